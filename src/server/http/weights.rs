//! Quality weights of list headers such as `Accept` and `Accept-Encoding` (RFC 9110, 12.4.2): the one reader of `q`. What
//! members mean is not known here.

use axum::http::HeaderMap;
use axum::http::header::AsHeaderName;

use crate::server::http::list::{join_header_lines, split_list};

/// Weight of a member that states none, in thousandths; the greatest.
const FULL_WEIGHT: u16 = 1000;

/// The members of a list header that are not blank, in order: name in lower case, without parameters, and weight in
/// thousandths, 0 for what is excluded.
pub(crate) fn weighted_members(headers: &HeaderMap, name: impl AsHeaderName) -> Vec<(String, u16)> {
    let text = join_header_lines(headers, name);
    let members = split_list(&text, ',').filter(|member| !member.trim().is_empty());
    let weighted = members.map(|member| {
        let mut parts = split_list(member, ';');
        let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        (name, weight(parts))
    });
    weighted.collect()
}

/// The weight among the parameters of a member: the first `q`. One that is malformed or outside 0 to 1 counts as none, so
/// that it excludes nothing; digits beyond the third are rounded, and exclude nothing either.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a str>) -> u16 {
    let given = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    let quality = given.and_then(|value| value.parse::<f32>().ok()).filter(|q| (0.0..=1.0).contains(q));
    quality.map_or(FULL_WEIGHT, |q| ((q * 1000.0).round() as u16).max(u16::from(q > 0.0)))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&str]) -> Vec<(String, u16)> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("accept", HeaderValue::from_str(value).unwrap());
        }
        weighted_members(&headers, "accept")
    }

    /// HDR-01, FILE-04: both sides of each bound of a weight, whatever the header.
    #[test]
    fn weights_are_read() {
        for (parameters, weight) in [
            ("", 1000),
            (";q=1", 1000),
            (";q=1.000", 1000),
            (";q=0", 0),
            (";q=0.000", 0),
            (";Q = 0.5 ", 500),
            (";q=.2", 200),
            (";q=0.001", 1),
            (";q=0.0001", 1),
            (";q=0.9996", 1000),
            (";q=1.001", 1000),
            (";q=2", 1000),
            (";q=-1", 1000),
            (";q=nan", 1000),
            (";q=inf", 1000),
            (";q=", 1000),
            (";q", 1000),
            (";q=x", 1000),
            (";x=1;q=0.3;y=2", 300),
            (";q=0;q=1", 0),
            (";x=\";q=0,\"", 1000),
        ] {
            assert_eq!(read(&[&format!("A/b{parameters}")]), [("a/b".to_string(), weight)], "{parameters}");
        }
        let several = [("gzip".to_string(), 500), ("*".to_string(), 0), (String::new(), 0), ("br".to_string(), 1000)];
        assert_eq!(read(&["GZIP;q=0.5, ,*;q=0", "", ";q=0,br"]), several);
        assert_eq!(read(&[]), []);
    }

    proptest! {
        /// No bytes cause a panic, and no weight is above the full one.
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[a*;,q=.0-9\" -]{0,40}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let Ok(value) = HeaderValue::from_bytes(bytes) else { continue };
                let members = weighted_members(&HeaderMap::from_iter([(axum::http::header::ACCEPT, value)]), "accept");
                prop_assert!(members.iter().all(|(_, weight)| *weight <= FULL_WEIGHT));
            }
        }
    }
}
