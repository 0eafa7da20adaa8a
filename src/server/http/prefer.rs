//! `Prefer`: what a client would like (RFC 7240). Preferences that are not known are passed over.

use axum::http::HeaderMap;

use super::list::split;

/// The preferences that a kick-off knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// `respond-async`
    pub respond_async: bool,
    /// `handling=lenient` (HDR-05)
    pub lenient: bool,
}

impl Prefer {
    /// Reads the headers (HDR-04). Of a preference given twice the first counts, as the RFC has it.
    pub fn of(headers: &HeaderMap) -> Prefer {
        let mut prefer = Prefer::default();
        let mut handling = None;
        for value in headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()) {
            for preference in split(value, ',') {
                let preference = split(preference, ';').next().unwrap_or_default();
                let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
                let (name, value) = (name.trim(), value.trim().trim_matches('"'));
                if name.eq_ignore_ascii_case("respond-async") {
                    prefer.respond_async = true;
                } else if name.eq_ignore_ascii_case("handling") {
                    handling.get_or_insert(value.eq_ignore_ascii_case("lenient"));
                }
            }
        }
        Prefer { lenient: handling == Some(true), ..prefer }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&str]) -> (bool, bool) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().unwrap());
        }
        let Prefer { respond_async, lenient } = Prefer::of(&headers);
        (respond_async, lenient)
    }

    /// HDR-03, HDR-04: lists, several lines, case, spaces, parameters, quoted strings.
    #[test]
    fn preferences_are_read() {
        for (values, read) in [
            (&["respond-async"][..], (true, false)),
            (&["Respond-Async, wait=10"], (true, false)),
            (&["handling=lenient", "respond-async"], (true, true)),
            (&["handling = \"lenient\" , respond-async; x=y"], (true, true)),
            (&["handling=strict, handling=lenient, respond-async"], (true, false)),
            (&["handling=lenient"], (false, true)),
            (&["foo=\"a, respond-async\""], (false, false)),
            (&["foo=\"a\\\", respond-async\", respond-async"], (true, false)),
            (&["respond-asynchronously"], (false, false)),
            (&[], (false, false)),
        ] {
            assert_eq!(of(values), read, "{values:?}");
        }
    }

    proptest! {
        /// HDR-04
        #[test]
        fn no_header_panics(value in "[ -~]{0,60}") {
            of(&[&value]);
        }
    }
}
