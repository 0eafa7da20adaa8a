//! `Prefer`: the preferences of a client (RFC 7240). Unknown preferences are ignored.

use axum::http::HeaderMap;

use crate::server::http::list::{join_header_lines, split_list, unquoted};

/// The preferences that the service knows. `wait` is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefer {
    /// Whether `respond-async` was sent.
    pub respond_async: bool,
    /// Whether `separate-export-status` was sent (HDR-08).
    pub separate_status: bool,
    /// Whether handling is lenient: `handling=lenient` (HDR-05), not `strict`, another value or absent.
    pub lenient: bool,
    /// The body of an answer to a write, from `return=`; `None` if it is absent or unknown.
    pub returned: Option<ReturnPreference>,
}

/// The body of an answer to a write (<https://hl7.org/fhir/R4/http.html#ops>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReturnPreference {
    /// `return=minimal`: an empty body.
    Minimal,
    /// `return=representation`: the written resource.
    Representation,
    /// `return=OperationOutcome`: a message about the success.
    Outcome,
}

impl ReturnPreference {
    /// The preference in the form of `Preference-Applied`.
    pub(crate) fn text(self) -> &'static str {
        match self {
            ReturnPreference::Minimal => "return=minimal",
            ReturnPreference::Representation => "return=representation",
            ReturnPreference::Outcome => "return=OperationOutcome",
        }
    }

    /// Reads a value of `return=`, ignoring case; `None` if it is unknown.
    fn parse(text: &str) -> Option<ReturnPreference> {
        let known = [
            ("minimal", ReturnPreference::Minimal),
            ("representation", ReturnPreference::Representation),
            ("OperationOutcome", ReturnPreference::Outcome),
        ];
        known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, returned)| returned)
    }
}

impl Prefer {
    /// Reads the headers (HDR-04). The first of repeated preferences counts, as the RFC requires.
    pub(crate) fn of(headers: &HeaderMap) -> Prefer {
        let (mut respond_async, mut separate_status, mut handling, mut returned) = (false, false, None, None);
        for preference in split_list(&join_header_lines(headers, "prefer"), ',') {
            let preference = split_list(preference, ';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => respond_async = true,
                "separate-export-status" => separate_status = true,
                "handling" => handling = handling.or_else(|| Some(unquoted(value))),
                "return" => returned = returned.or_else(|| Some(unquoted(value))),
                _ => {}
            }
        }
        Prefer {
            respond_async,
            separate_status,
            lenient: handling.is_some_and(|value| value.eq_ignore_ascii_case("lenient")),
            returned: returned.and_then(|value| ReturnPreference::parse(&value)),
        }
    }
}

impl Prefer {
    /// Whether polls are to be answered with their own status, and the job's in a header (HDR-09): asked for with
    /// `respond-async` alone.
    pub(crate) fn separates_status(&self) -> bool {
        self.respond_async && self.separate_status
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&str]) -> Prefer {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().unwrap());
        }
        Prefer::of(&headers)
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
            (&["wait=5; handling=lenient, , respond-async"], (true, false)),
            (&["handling=nonsense, handling=lenient"], (false, false)),
            (&["foo=\"a, respond-async\""], (false, false)),
            (&["foo=\"a\\\", respond-async\", respond-async"], (true, false)),
            (&["respond-asynchronously"], (false, false)),
            (&[], (false, false)),
        ] {
            let prefer = of(values);
            assert_eq!((prefer.respond_async, prefer.lenient), read, "{values:?}");
        }
    }

    /// HDR-04: `return=`; the first of two counts, known or not.
    #[test]
    fn returns_are_read() {
        for (values, returned) in [
            (&["return=minimal"][..], Some(ReturnPreference::Minimal)),
            (&["respond-async, RETURN = \"operationoutcome\"; x=1"], Some(ReturnPreference::Outcome)),
            (&["return=representation", "return=minimal"], Some(ReturnPreference::Representation)),
            (&["return=nonsense, return=minimal"], None),
            (&["x=\"a, return=minimal\""], None),
            (&["return"], None),
            (&[], None),
        ] {
            assert_eq!(of(values).returned, returned, "{values:?}");
        }
    }

    /// HDR-04: bytes that are not UTF-8 affect no other preference of their line.
    #[test]
    fn bytes_that_are_no_text_are_passed_over() {
        let value = HeaderValue::from_bytes(b"x=\"\xff\", respond-async").unwrap();
        assert!(Prefer::of(&HeaderMap::from_iter([(HeaderName::from_static("prefer"), value)])).respond_async);
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[hr=,;\\\\\" ]{0,40}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let Ok(value) = HeaderValue::from_bytes(bytes) else { continue };
                Prefer::of(&HeaderMap::from_iter([(HeaderName::from_static("prefer"), value)]));
            }
        }

        /// HDR-04: other preferences before and behind a preference do not change it.
        #[test]
        fn neighbours_do_not_matter(before in "[a-f]{1,8}(=\"[a-f ,;=]{0,8}\")?", after in "[a-f]{1,8}; [a-f]{1,4}=1") {
            let prefer = of(&[&format!("{before}, Handling=Lenient;x=\",\", respond-async ,{after}")]);
            prop_assert_eq!(prefer, Prefer { respond_async: true, separate_status: false, lenient: true, returned: None });
        }
    }
}
