//! `Range`: the bytes of a representation that a request selects (RFC 9110, 14.2). Whether the header applies is decided by
//! `If-Range`, in `http::preconditions`.

use std::ops::Range;

use hyper::header::{HeaderMap, RANGE};

/// The part of a representation that a request selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RangeSpec {
    /// All of it: `Range` is absent, malformed, of another unit, or lists several ranges.
    Whole,
    /// A range of bytes, never empty.
    Range(Range<u64>),
    /// A range without any byte of the representation: 416.
    Beyond,
}

/// The part that `Range` selects of a representation of `len` bytes (RFC 9110, section 14.2).
pub(crate) fn parse_range(headers: &HeaderMap, len: u64) -> RangeSpec {
    let mut values = headers.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return RangeSpec::Whole };
    let Ok(value) = value.to_str() else { return RangeSpec::Whole };
    let Some((unit, range)) = value.split_once('=') else { return RangeSpec::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return RangeSpec::Whole };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number that overflows is behind the end of every file.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return RangeSpec::Whole;
    }
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => RangeSpec::Whole,
        (Some(first), _) if first >= len && (last.is_empty() || number(last).is_some()) => RangeSpec::Beyond,
        (Some(first), Some(last)) => RangeSpec::Range(first..last.saturating_add(1).min(len)),
        (Some(first), None) if last.is_empty() => RangeSpec::Range(first..len),
        (None, Some(suffix)) if first.is_empty() && (suffix == 0 || len == 0) => RangeSpec::Beyond,
        (None, Some(suffix)) if first.is_empty() => RangeSpec::Range(len.saturating_sub(suffix)..len),
        _ => RangeSpec::Whole,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn with(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (RANGE, HeaderValue::from_str(value).unwrap())).collect()
    }

    /// FILE-14: one range is answered, an unsatisfiable one is 416, any other value is ignored.
    #[test]
    fn ranges_are_read() {
        let huge = format!("bytes=0-{}0", u64::MAX);
        let beyond = format!("bytes={}0-", u64::MAX);
        for (value, expected) in [
            ("bytes=0-0", RangeSpec::Range(0..1)),
            ("Bytes = 3-9", RangeSpec::Range(3..10)),
            ("bytes=3-10", RangeSpec::Range(3..10)),
            ("bytes=9-", RangeSpec::Range(9..10)),
            ("bytes=-3", RangeSpec::Range(7..10)),
            ("bytes=-30", RangeSpec::Range(0..10)),
            (&huge, RangeSpec::Range(0..10)),
            (&beyond, RangeSpec::Beyond),
            ("bytes=10-", RangeSpec::Beyond),
            ("bytes=10-12", RangeSpec::Beyond),
            ("bytes=-0", RangeSpec::Beyond),
            ("bytes=5-4", RangeSpec::Whole),
            ("bytes=12-11", RangeSpec::Whole),
            ("bytes=12-x", RangeSpec::Whole),
            ("bytes=0-1,3-4", RangeSpec::Whole),
            ("bytes=-", RangeSpec::Whole),
            ("bytes=+1-2", RangeSpec::Whole),
            ("rows=0-1", RangeSpec::Whole),
            ("0-1", RangeSpec::Whole),
        ] {
            assert_eq!(parse_range(&with(&[value]), 10), expected, "{value}");
        }
        assert_eq!(parse_range(&with(&["bytes=0-"]), 0), RangeSpec::Beyond);
        assert_eq!(parse_range(&with(&["bytes=-1"]), 0), RangeSpec::Beyond);
        assert_eq!(parse_range(&with(&["bytes=0-1", "bytes=0-1"]), 10), RangeSpec::Whole);
        assert_eq!(parse_range(&HeaderMap::new(), 10), RangeSpec::Whole);
    }
}
