//! Negotiation of a download from its request headers: media type, content coding, byte range. No file is opened
//! here.
//!
//! Weights are read by [`weight`], whose rules differ from those of `Accept` in `http::accept`: an out-of-range
//! weight is clamped here and counts as 1 there, thousandths are cut off here and rounded there.

use std::ops::Range;

use hyper::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, RANGE};

use crate::codec::compression::Compression;
use crate::server::http::accept::Accept;

/// Media types by which a file may be requested (FILE-05); it is always sent as the first.
pub(crate) const MEDIA_TYPES: [&str; 3] = ["application/fhir+ndjson", "application/ndjson", "application/octet-stream"];

/// Name of a compression in headers; `None` for identity, which is not named (FILE-04).
pub(crate) fn coding_name(coding: Compression) -> Option<&'static str> {
    match coding {
        Compression::None => None,
        Compression::Gzip => Some("gzip"),
        Compression::Zstd => Some("zstd"),
    }
}

/// The weight among the parameters of a coding, in thousandths (RFC 9110, section 12.4.2), clamped to 0..=1000 and
/// cut off. A malformed weight counts as 1000, so that it excludes nothing.
fn weight<'a>(parameters: impl Iterator<Item = &'a str>) -> u32 {
    for parameter in parameters {
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("q")
        {
            return value.trim().parse::<f32>().map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32);
        }
    }
    1000
}

/// The members of a list header in lower case, with their weights. Other parameters are ignored.
fn weighted_codings(headers: &HeaderMap, name: HeaderName) -> Vec<(String, u32)> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let members = values.flat_map(|value| value.split(',')).map(|member| {
        let mut parts = member.split(';');
        (parts.next().unwrap_or_default().trim().to_ascii_lowercase(), weight(parts))
    });
    members.filter(|(name, _)| !name.is_empty()).collect()
}

/// Whether the client accepts NDJSON: its `Accept` is absent or includes one of [`MEDIA_TYPES`].
pub(crate) fn takes_ndjson(headers: &HeaderMap) -> bool {
    Accept::of(headers).best(&MEDIA_TYPES).is_some()
}

/// The coding to send: the stored one if the client names it (or `*`) with at least the weight of identity, else
/// identity; `None` if the client excludes both.
pub(crate) fn negotiate_coding(headers: &HeaderMap, stored: Compression) -> Option<Compression> {
    let codings = weighted_codings(headers, ACCEPT_ENCODING);
    let weight_of = |name: &str| codings.iter().find(|(coding, _)| coding == name).map(|(_, weight)| *weight);
    let any = weight_of("*");
    let stored_weight = match coding_name(stored) {
        Some(name) => weight_of(name).or_else(|| if name == "gzip" { weight_of("x-gzip") } else { None }).or(any),
        None => None,
    };
    // Identity that is not mentioned is acceptable, but any mentioned coding is preferred to it.
    let (stored_weight, identity) = (stored_weight.unwrap_or(0), weight_of("identity").or(any));
    match (stored_weight, identity) {
        (0, Some(0)) => None,
        (0, _) => Some(Compression::None),
        (weight, Some(identity)) if identity > weight => Some(Compression::None),
        _ => Some(stored),
    }
}

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
    use super::*;
    use hyper::header::{ACCEPT, HeaderValue};

    fn with(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// FILE-04: every stored compression against every `Accept-Encoding`.
    #[test]
    fn codings_are_chosen() {
        let [none, gzip, zstd] = [Compression::None, Compression::Gzip, Compression::Zstd];
        for (accepted, from_gzip, from_zstd) in [
            (&[][..], Some(none), Some(none)),
            (&[""], Some(none), Some(none)),
            (&["gzip"], Some(gzip), Some(none)),
            (&["GZIP, deflate, br"], Some(gzip), Some(none)),
            (&["x-gzip"], Some(gzip), Some(none)),
            (&["br", "zstd"], Some(none), Some(zstd)),
            (&["gzip;q=0"], Some(none), Some(none)),
            (&["gzip; Q=0.000, zstd;q=0.5"], Some(none), Some(zstd)),
            (&["*"], Some(gzip), Some(zstd)),
            (&["gzip;q=0, *"], Some(none), Some(zstd)),
            (&["identity"], Some(none), Some(none)),
            (&["identity, gzip"], Some(gzip), Some(none)),
            (&["identity;q=1, gzip;q=0.5"], Some(none), Some(none)),
            (&["identity;q=0.5, *;q=0"], Some(none), Some(none)),
            (&["identity;q=0, gzip"], Some(gzip), None),
            (&["*;q=0"], None, None),
            (&["identity;q=0"], None, None),
            (&["gzip;q=nonsense"], Some(gzip), Some(none)),
        ] {
            let headers = with(ACCEPT_ENCODING, accepted);
            assert_eq!(
                (negotiate_coding(&headers, gzip), negotiate_coding(&headers, zstd)),
                (from_gzip, from_zstd),
                "{accepted:?}"
            );
            let refused = accepted.concat().contains("identity;q=0") && !accepted.concat().contains("identity;q=0.5")
                || accepted == ["*;q=0"];
            assert_eq!(negotiate_coding(&headers, none), (!refused).then_some(none), "{accepted:?}");
        }
    }

    /// FILE-05: the values of `Accept` that accept a file.
    #[test]
    fn media_types_are_accepted() {
        for (accepted, taken) in [
            (&[][..], true),
            (&["application/fhir+ndjson"], true),
            (&["text/csv, Application/NDJSON;charset=utf-8"], true),
            (&["text/csv", "application/octet-stream;q=0.1"], true),
            (&["application/*"], true),
            (&["*/*;q=0.1"], true),
            (&["text/csv"], false),
            (&["application/fhir+json"], false),
            (&["*/*;q=0"], false),
            (&["application/fhir+ndjson;q=0, application/ndjson;q=0, application/octet-stream;q=0, */*"], false),
        ] {
            assert_eq!(takes_ndjson(&with(ACCEPT, accepted)), taken, "{accepted:?}");
        }
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
            assert_eq!(parse_range(&with(RANGE, &[value]), 10), expected, "{value}");
        }
        assert_eq!(parse_range(&with(RANGE, &["bytes=0-"]), 0), RangeSpec::Beyond);
        assert_eq!(parse_range(&with(RANGE, &["bytes=-1"]), 0), RangeSpec::Beyond);
        assert_eq!(parse_range(&with(RANGE, &["bytes=0-1", "bytes=0-1"]), 10), RangeSpec::Whole);
        assert_eq!(parse_range(&HeaderMap::new(), 10), RangeSpec::Whole);
    }
}
