//! Negotiation of a download from its request headers: media type and content coding. No file is opened here.

use hyper::header::{ACCEPT_ENCODING, HeaderMap};

use crate::codec::compression::Compression;
use crate::server::http::accept::Accept;
use crate::server::http::weights::weighted_members;

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

/// Whether the client accepts NDJSON: its `Accept` is absent or includes one of [`MEDIA_TYPES`].
pub(crate) fn takes_ndjson(headers: &HeaderMap) -> bool {
    Accept::of(headers).best(&MEDIA_TYPES).is_some()
}

/// The coding to send: the stored one if the client names it (or `*`) with at least the weight of identity, else
/// identity; `None` if the client excludes both.
pub(crate) fn negotiate_coding(headers: &HeaderMap, stored: Compression) -> Option<Compression> {
    let codings = weighted_members(headers, ACCEPT_ENCODING);
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

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{ACCEPT, HeaderName, HeaderValue};

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
}
