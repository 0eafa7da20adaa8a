//! Conditional requests for files (RFC 9110, section 13): whether the client's copy is current, and whether its range
//! is of this file.
//!
//! Files never change, so that every tag and every date is a strong validator. Of a malformed list of tags what stands
//! before the error counts: a download is not refused for it. Groups (`groups::request`) refuse such a list.

use std::time::{Duration, SystemTime};

use hyper::header::{HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};

use crate::server::http::entity_tags::{EntityTags, TagComparison};

/// The validators of a representation.
#[derive(Clone, Debug)]
pub(crate) struct Validators {
    /// Entity tag, with quotes.
    pub(crate) tag: String,
    /// Last modification, in whole seconds; `None` if it is not known, and conditions on it are ignored.
    pub(crate) modified: Option<SystemTime>,
}

/// Result of the preconditions of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreconditionVerdict {
    /// They hold: the request is answered.
    Go,
    /// 304: the client's copy is current.
    NotModified,
    /// 412: a precondition failed; the name of its header.
    Failed(&'static str),
}

impl Validators {
    /// Validators of a representation; parts of a second of `modified` are cut off.
    pub(crate) fn new(tag: String, modified: SystemTime) -> Validators {
        let seconds = modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Validators { tag, modified: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)) }
    }

    /// Validators of a representation of which no date is known.
    pub(crate) fn of_tag(tag: String) -> Validators {
        Validators { tag, modified: None }
    }

    /// Judges the preconditions in the order of section 13.2.2. A malformed date is ignored.
    pub(crate) fn judge_preconditions(&self, headers: &HeaderMap) -> PreconditionVerdict {
        if headers.contains_key(IF_MATCH) {
            if !self.is_listed(headers, IF_MATCH, TagComparison::Strong) {
                return PreconditionVerdict::Failed("If-Match");
            }
        } else if self.with_date(headers, IF_UNMODIFIED_SINCE).is_some_and(|(modified, date)| modified > date) {
            return PreconditionVerdict::Failed("If-Unmodified-Since");
        }
        if headers.contains_key(IF_NONE_MATCH) {
            if self.is_listed(headers, IF_NONE_MATCH, TagComparison::Weak) {
                return PreconditionVerdict::NotModified;
            }
        } else if self.with_date(headers, IF_MODIFIED_SINCE).is_some_and(|(modified, date)| modified <= date) {
            return PreconditionVerdict::NotModified;
        }
        PreconditionVerdict::Go
    }

    /// The last modification and the date of a header, if both are known.
    fn with_date(&self, headers: &HeaderMap, name: HeaderName) -> Option<(SystemTime, SystemTime)> {
        self.modified.zip(date(headers, name))
    }

    /// Whether `Range` applies: there is no `If-Range`, or it is exactly this tag or date.
    pub(crate) fn allow_range(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(IF_RANGE).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return !headers.contains_key(IF_RANGE) };
        let Ok(value) = value.to_str() else { return false };
        value == self.tag || httpdate::parse_http_date(value).is_ok_and(|date| Some(date) == self.modified)
    }

    /// Whether a list of entity tags is `*` or contains this tag.
    fn is_listed(&self, headers: &HeaderMap, name: HeaderName, comparison: TagComparison) -> bool {
        EntityTags::of(headers, &name).is_some_and(|tags| tags.contains(self.tag.trim_matches('"'), comparison))
    }
}

/// The date of a precondition header such as `If-Modified-Since`; `None` if it is absent or malformed.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn judged(pairs: &[(HeaderName, &str)]) -> (PreconditionVerdict, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        // Sun, 06 Nov 1994 08:49:37 GMT and a fraction, which no header can express.
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_900);
        let validators = Validators::new("\"abc\"".into(), modified);
        (validators.judge_preconditions(&headers), validators.allow_range(&headers))
    }

    /// FILE-14: each condition alone, and the order of two.
    #[test]
    fn conditions_are_judged_in_order() {
        const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
        let [none, matched] = [IF_NONE_MATCH, IF_MATCH];
        let failed = PreconditionVerdict::Failed;
        for (pairs, verdict) in [
            (&[][..], PreconditionVerdict::Go),
            (&[(none.clone(), "\"abc\"")], PreconditionVerdict::NotModified),
            (&[(none.clone(), "W/\"abc\"")], PreconditionVerdict::NotModified),
            (&[(none.clone(), "\"x\", \"abc\"")], PreconditionVerdict::NotModified),
            (&[(none.clone(), "\"x\""), (none.clone(), "\"abc\"")], PreconditionVerdict::NotModified),
            (&[(none.clone(), "*")], PreconditionVerdict::NotModified),
            (&[(none.clone(), "\"abcd\"")], PreconditionVerdict::Go),
            (&[(none.clone(), "abc")], PreconditionVerdict::Go),
            (&[(none.clone(), "\"a,\"abc\"")], PreconditionVerdict::Go),
            (&[(none.clone(), ",, \"abc\" ,")], PreconditionVerdict::NotModified),
            (&[(none.clone(), "\"abc\", x")], PreconditionVerdict::NotModified),
            (&[(none.clone(), "\"x\" \"abc\"")], PreconditionVerdict::Go),
            (&[(matched.clone(), "\"abc\"")], PreconditionVerdict::Go),
            (&[(matched.clone(), "*")], PreconditionVerdict::Go),
            (&[(matched.clone(), "W/\"abc\"")], failed("If-Match")),
            (&[(matched.clone(), "\"x\"")], failed("If-Match")),
            (&[(IF_MODIFIED_SINCE, THEN)], PreconditionVerdict::NotModified),
            (&[(IF_MODIFIED_SINCE, BEFORE)], PreconditionVerdict::Go),
            (&[(IF_MODIFIED_SINCE, "yesterday")], PreconditionVerdict::Go),
            (&[(IF_MODIFIED_SINCE, THEN), (none.clone(), "\"x\"")], PreconditionVerdict::Go),
            (&[(IF_UNMODIFIED_SINCE, THEN)], PreconditionVerdict::Go),
            (&[(IF_UNMODIFIED_SINCE, BEFORE)], failed("If-Unmodified-Since")),
            (&[(IF_UNMODIFIED_SINCE, BEFORE), (matched, "\"abc\"")], PreconditionVerdict::Go),
        ] {
            assert_eq!(judged(pairs), (verdict, true), "{pairs:?}");
        }
        for (value, allowed) in
            [("\"abc\"", true), ("W/\"abc\"", false), ("\"old\"", false), (THEN, true), (BEFORE, false), ("", false)]
        {
            assert_eq!(judged(&[(IF_RANGE, value)]), (PreconditionVerdict::Go, allowed), "{value}");
        }
        assert!(!judged(&[(IF_RANGE, "\"abc\""), (IF_RANGE, "\"abc\"")]).1);
    }
}
