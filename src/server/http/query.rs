//! Query strings: pairs of names and values, decoded.

use percent_encoding::percent_decode_str;

use crate::limits::{QUERY_PARAMETERS_MAX, SHOWN_CHARS_MAX};

/// Reads query strings.
pub struct Query;

impl Query {
    /// The pairs of a query string, and a sentence on each part that cannot be read. A raw `+` is a space, as forms have
    /// it; readers of values in which no space can stand take it for a `+` (PARAM-06).
    pub fn parse(query: Option<&str>) -> (Vec<(String, String)>, Vec<String>) {
        let (mut pairs, mut problems) = (Vec::new(), Vec::new());
        let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        for (at, part) in parts.enumerate() {
            if at == QUERY_PARAMETERS_MAX {
                problems.push(format!("the query has more than {QUERY_PARAMETERS_MAX} parameters"));
                break;
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match (decode(name), decode(value)) {
                (Some(name), Some(value)) => pairs.push((name, value)),
                (name, _) => {
                    let name = name.as_deref().unwrap_or("the name of a parameter");
                    let shown: String = name.chars().take(SHOWN_CHARS_MAX).collect();
                    problems.push(format!("{shown}: it is not percent-encoded UTF-8 text without control characters"));
                }
            }
        }
        (pairs, problems)
    }
}

fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let whole = bytes.iter().enumerate().all(|(at, byte)| *byte != b'%' || hex(at + 1) && hex(at + 2));
    let decoded = percent_decode_str(&text.replace('+', " ")).decode_utf8().ok()?.into_owned();
    (whole && !decoded.chars().any(char::is_control)).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// PARAM-06, CORE-04: decoded once, and what cannot be is named.
    #[test]
    fn queries_are_read() {
        let (pairs, problems) = Query::parse(Some("_type=Patient%2CGroup&&a=b+c%2Bd&%5Ftype&x=%zz&%ff=1&n=%00&y=1=2"));
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(pairs, [("_type", "Patient,Group"), ("a", "b c+d"), ("_type", ""), ("y", "1=2")]);
        assert_eq!(problems.len(), 3);
        assert!(problems[0].starts_with("x:") && problems[1].starts_with("the name") && problems[2].starts_with("n:"));
        assert_eq!(Query::parse(None), (vec![], vec![]));
        assert_eq!(Query::parse(Some(&"a&".repeat(5000))).0.len(), QUERY_PARAMETERS_MAX);
    }

    proptest! {
        /// What is encoded is read back, and nothing panics.
        #[test]
        fn what_is_encoded_is_read(name in "[^\\p{Cc}]{1,20}", value in "[^\\p{Cc}]{0,40}", junk in ".{0,60}") {
            let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let query = format!("{}={}", encode(&name), encode(&value));
            prop_assert_eq!(Query::parse(Some(&query)), (vec![(name, value)], vec![]));
            Query::parse(Some(&junk));
        }
    }
}
