//! `Accept`: selection of a media type that the client accepts (RFC 9110, 12.5.1).

use axum::http::{HeaderMap, header};

use crate::server::http::weights::weighted_members;

/// The parsed `Accept` headers of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accept {
    /// Type, subtype and weight in thousandths, in the order of the header; `*` for any.
    ranges: Vec<(String, String, u16)>,
    /// Whether the header is absent or has no member.
    is_empty: bool,
}

impl Accept {
    /// Reads the headers. Members that are no media range are ignored.
    pub(crate) fn of(headers: &HeaderMap) -> Accept {
        let members = weighted_members(headers, header::ACCEPT);
        // A header with empty members only is the same as none.
        let is_empty = members.is_empty();
        Accept { ranges: members.into_iter().filter_map(range).collect(), is_empty }
    }

    /// Whether the client states no preference.
    pub(crate) fn is_absent(&self) -> bool {
        self.is_empty
    }

    /// The offered type with the highest weight, the first of equals; `None` if the client accepts none of them.
    pub(crate) fn best<'o>(&self, offered: &[&'o str]) -> Option<&'o str> {
        if self.is_empty {
            return offered.first().copied();
        }
        let mut best: Option<(u16, &str)> = None;
        for name in offered {
            let weight = self.weight(name);
            if weight > best.map_or(0, |(most, _)| most) {
                best = Some((weight, name));
            }
        }
        best.map(|(_, name)| name)
    }

    /// Whether the client accepts a type at all.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.is_empty || self.weight(name) > 0
    }

    /// Weight of a type in thousandths: that of its most specific range, 0 if there is none.
    fn weight(&self, name: &str) -> u16 {
        let (kind, sub) = name.split_once('/').unwrap_or((name, ""));
        let exactness = |(of, part, weight): &(String, String, u16)| match (of == kind, part == sub) {
            (true, true) => Some((2, *weight)),
            (true, false) if part == "*" => Some((1, *weight)),
            (false, _) if of == "*" && part == "*" => Some((0, *weight)),
            _ => None,
        };
        self.ranges.iter().filter_map(exactness).max().map_or(0, |(_, weight)| weight)
    }
}

/// The media range of a weighted member. Parameters such as `fhirVersion` and `charset` are ignored; `*` alone, from old
/// clients, means `*/*`.
fn range((name, weight): (String, u16)) -> Option<(String, String, u16)> {
    let (kind, sub) = if name == "*" { ("*", "*") } else { name.split_once('/')? };
    Some((kind.trim().to_string(), sub.trim().to_string(), weight))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&str]) -> Accept {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("accept", value.parse().unwrap());
        }
        Accept::of(&headers)
    }

    /// The media types of files, by name.
    const NDJSON: [&str; 3] = ["application/fhir+ndjson", "application/ndjson", "application/octet-stream"];

    const OFFERED: [&str; 2] = ["application/fhir+json", "application/json"];

    /// HDR-01, HDR-02, STATUS-16, CLIENT-01: wildcards, weights and parameters as real clients send them.
    #[test]
    fn types_are_chosen() {
        for (values, best) in [
            (&["application/fhir+json"][..], Some("application/fhir+json")),
            (&["application/json"], Some("application/json")),
            (&["*/*"], Some("application/fhir+json")),
            (&["application/*"], Some("application/fhir+json")),
            (&["application/fhir+json, */*; q=0.1"], Some("application/fhir+json")),
            (&["application/fhir+json;q=0.2, application/json"], Some("application/json")),
            (&["text/html", "application/json;q=0.1"], Some("application/json")),
            (&["Application/FHIR+JSON; fhirVersion=4.0"], Some("application/fhir+json")),
            (&["*/*, application/fhir+json;q=0"], Some("application/json")),
            (&["application/fhir+json;q=0"], None),
            (&["text/html"], None),
            (&["application/fhir+xml"], None),
            (&["nonsense"], None),
            (&["text/html", "application/json"], Some("application/json")),
            (&["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"], Some("application/fhir+json")),
            (&["text/html;x=\"a,application/json\""], None),
            (&["application/json;x=\";q=0\""], Some("application/json")),
            (&["application/*;q=0, */*"], None),
            (&["*/json"], None),
            (&["application/json;q=nan"], Some("application/json")),
            (&["application/json;q=0.001"], Some("application/json")),
            (&["application/json;Q=0"], None),
            (&[" , "], Some("application/fhir+json")),
            (&["application/json;q=2"], Some("application/json")),
            (&["application/json; q = nonsense"], Some("application/json")),
            (&[""], Some("application/fhir+json")),
        ] {
            assert_eq!(of(values).best(&OFFERED), best, "{values:?}");
        }
        assert!(of(&[]).is_absent() && of(&["", ","]).is_absent() && !of(&["x"]).is_absent());
    }

    /// HDR-02: a header that is not UTF-8 is not an absent header.
    #[test]
    fn bytes_that_are_no_text_are_a_header() {
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_bytes(b"text/\xff").unwrap());
        assert!(!Accept::of(&headers).is_absent() && Accept::of(&headers).best(&OFFERED).is_none());
        headers.append("accept", HeaderValue::from_static("application/json"));
        assert_eq!(Accept::of(&headers).best(&OFFERED), Some("application/json"));
    }

    /// FILE-05: the media types of files.
    #[test]
    fn types_of_files_are_chosen() {
        for (value, best) in [
            ("*/*", Some(NDJSON[0])),
            ("application/ndjson", Some(NDJSON[1])),
            ("application/octet-stream, text/csv", Some(NDJSON[2])),
            ("text/csv", None),
            ("application/fhir+json", None),
        ] {
            assert_eq!(of(&[value]).best(&NDJSON), best, "{value}");
        }
    }

    proptest! {
        /// No bytes cause a panic, and the result is one of the offered types.
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[aj*/;,q=.0-9\" ]{0,40}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let Ok(value) = HeaderValue::from_bytes(bytes) else { continue };
                let accept = Accept::of(&HeaderMap::from_iter([(header::ACCEPT, value)]));
                prop_assert!(accept.best(&OFFERED).is_none_or(|best| OFFERED.contains(&best)));
            }
        }
    }
}
