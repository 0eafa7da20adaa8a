//! Query strings of all requests: decoded pairs of names and values, within bounds. The meaning of parameters is not known
//! here.

use percent_encoding::percent_decode_str;

use crate::limits::{QUERY_BYTES_MAX, QUERY_PARAMETERS_MAX, SHOWN_CHARS_MAX};

/// Namespace of the query string parser.
pub(crate) struct Query;

impl Query {
    /// The pairs of a query string, and a sentence on each part that cannot be read, beginning with its name
    /// (CORE-04). A raw `+` becomes a space, as in forms; see [`plus_for_space`].
    pub(crate) fn parse(query: Option<&str>) -> (Vec<(String, String)>, Vec<String>) {
        let (mut pairs, mut problems) = (Vec::new(), Vec::new());
        let query = query.unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            problems.push(format!("the query has more than {QUERY_BYTES_MAX} bytes; ask for less at a time"));
            return (pairs, problems);
        }
        for (i, part) in query.split('&').filter(|part| !part.is_empty()).enumerate() {
            if i == QUERY_PARAMETERS_MAX {
                problems.push(format!("the query has more than {QUERY_PARAMETERS_MAX} parameters; ask for less"));
                break;
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match (decode(name), decode(value)) {
                (Ok(name), Ok(value)) => pairs.push((name, value)),
                (Ok(name), Err(problem)) => problems.push(format!("{}: the value {problem}", shown_value(&name))),
                // The name cannot be decoded: it is shown as received.
                (Err(problem), _) => problems.push(format!("{}: the name {problem}", shown_value(name))),
            }
        }
        (pairs, problems)
    }
}

/// Replaces spaces by `+` in a value in which no space is legal, so that each was an unencoded `+` (PARAM-06). For
/// media types and instants, as in `application/fhir+ndjson` and `T00:00:00+05:00`; not for texts and lists.
pub(crate) fn plus_for_space(value: &str) -> String {
    value.replace(' ', "+")
}

/// The beginning of a client's text, escaped, at most [`SHOWN_CHARS_MAX`] characters, for a message.
fn shown_value(name: &str) -> String {
    name.chars().flat_map(char::escape_debug).take(SHOWN_CHARS_MAX).collect()
}

/// Decodes percent escapes once, and `+` as a space.
///
/// # Errors
/// The predicate of a sentence about the text.
fn decode(text: &str) -> Result<String, &'static str> {
    let bytes = text.as_bytes();
    let hex = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_hexdigit);
    if !bytes.iter().enumerate().all(|(i, byte)| *byte != b'%' || hex(i + 1) && hex(i + 2)) {
        return Err("has a % without two hex digits behind it; a % itself is written %25");
    }
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8().map_err(|_| "is not UTF-8 when it is decoded")?;
    if decoded.chars().any(char::is_control) {
        return Err("holds a control character; leave it out");
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// PARAM-06, CORE-04: parts are decoded once, and malformed ones are named.
    #[test]
    fn queries_are_read() {
        let (pairs, problems) = Query::parse(Some("_type=Patient%2CGroup&&a=b+c%2Bd&%5Ftype&x=%zz&%ff=1&n=%00&y=1=2"));
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(pairs, [("_type", "Patient,Group"), ("a", "b c+d"), ("_type", ""), ("y", "1=2")]);
        assert_eq!(problems.len(), 3);
        for (problem, (name, word)) in problems.iter().zip([("x: ", "%25"), ("%ff: ", "UTF-8"), ("n: ", "control")]) {
            assert!(problem.starts_with(name) && problem.contains(word), "{problem}");
        }
        assert_eq!(Query::parse(None), (vec![], vec![]));
    }

    /// CORE-04: every kind of malformed part, by the parameter's name, beside the readable ones.
    #[test]
    fn slips_are_named() {
        for (query, name) in [
            ("_since=%", "_since: "),
            ("_since=%4", "_since: "),
            ("_since=%+1", "_since: "),
            ("_since=%C3%28", "_since: "),
            ("_since=%ED%A0%80", "_since: "),
            ("_since=a%0d%0ab", "_since: "),
            ("_since=%7F", "_since: "),
            ("_since=%C2%85", "_since: "),
            ("_since=a\tb", "_since: "),
            ("a%00=1", "a%00: "),
            ("a\nb=1", "a\\nb: "),
        ] {
            let (pairs, problems) = Query::parse(Some(&format!("{query}&_type=Patient")));
            assert_eq!(pairs, [("_type".to_string(), "Patient".to_string())], "{query:?}");
            assert!(problems.len() == 1 && problems[0].starts_with(name), "{query:?} {problems:?}");
        }
        let (_, problems) = Query::parse(Some(&format!("{}=%", "n".repeat(5000))));
        assert!(problems[0].len() < 200);
    }

    /// CORE-08: the number and length of parameters are bounded.
    #[test]
    fn queries_are_bounded() {
        let most = "a&".repeat(QUERY_PARAMETERS_MAX);
        assert!(Query::parse(Some(&most)).1.is_empty());
        let (pairs, problems) = Query::parse(Some(&format!("{most}b")));
        assert_eq!((pairs.len(), problems.len()), (QUERY_PARAMETERS_MAX, 1));
        let long = "x".repeat(QUERY_BYTES_MAX);
        assert!(Query::parse(Some(&long)).1.is_empty());
        let (pairs, problems) = Query::parse(Some(&format!("{long}x")));
        assert_eq!((pairs.len(), problems.len()), (0, 1));
    }

    /// PARAM-06: raw `+`, `%2B` and `%20` are equal where only `+` is legal, and distinct elsewhere.
    #[test]
    fn a_raw_plus_is_a_plus_where_no_space_can_stand() {
        for raw in ["fhir+ndjson", "fhir%2Bndjson", "fhir%20ndjson"] {
            let (pairs, _) = Query::parse(Some(&format!("_outputFormat=application/{raw}&_since=00:00%2B05:00")));
            assert_eq!(plus_for_space(&pairs[0].1), "application/fhir+ndjson", "{raw}");
            assert_eq!(plus_for_space(&pairs[1].1), "00:00+05:00");
        }
        assert_eq!(Query::parse(Some("name=a+b%2Bc")).0[0].1, "a b+c");
    }

    proptest! {
        /// Encoded pairs are read back, and no text causes a panic.
        #[test]
        fn what_is_encoded_is_read(name in "[^\\p{Cc}]{1,20}", value in "[^\\p{Cc}]{0,40}", junk in ".{0,60}") {
            let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let query = format!("{}={}", encode(&name), encode(&value));
            prop_assert_eq!(Query::parse(Some(&query)), (vec![(name, value)], vec![]));
            Query::parse(Some(&junk));
        }
    }
}
