//! `Host`: whether a request names exactly one host, by the grammar of RFC 9110 (7.2) and RFC 3986 (3.2.2). Which hosts
//! are answered is decided in `server::hosts`.
//!
//! hyper passes on requests without the header, with several and with any value.

use std::net::Ipv6Addr;

use axum::http::{HeaderMap, StatusCode, Version, header};

use crate::issue::IssueCode;
use crate::server::error::ApiError;

/// 400 for a request that RFC 9112 (3.2) wants refused: without `Host` in HTTP/1.1, with several, or with one that is no
/// host; `None` for any other. HTTP/1.0 knows no `Host`, and HTTP/2 has the host in `:authority`.
pub(crate) fn host_error(version: Version, headers: &HeaderMap) -> Option<ApiError> {
    let mut lines = headers.get_all(header::HOST).iter();
    let text = match (lines.next(), lines.next()) {
        (None, _) if version != Version::HTTP_11 => return None,
        (None, _) => "Host: the header is missing; HTTP/1.1 wants the host of the URL in it",
        (Some(host), None) if host.to_str().is_ok_and(is_authority) => return None,
        (Some(_), None) => "Host: the value is no host; send a name or an address, and a port if there is one",
        (Some(_), Some(_)) => "Host: the header is there more than once; send it once",
    };
    Some(ApiError::new(StatusCode::BAD_REQUEST, IssueCode::Invalid, text).at("http.host"))
}

/// The host and the port of `host` or `host:port`; an empty port if there is none.
pub(crate) fn split_port(authority: &str) -> (&str, &str) {
    match authority.rfind(':') {
        // A colon inside brackets belongs to an address.
        Some(colon) if !authority[colon..].contains(']') => (&authority[..colon], &authority[colon + 1..]),
        _ => (authority, ""),
    }
}

/// Whether a text is `host` or `host:port`. An empty host, which the grammar has, belongs to no URL of http.
fn is_authority(text: &str) -> bool {
    let (host, port) = split_port(text);
    let is_host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(is_literal_address),
        None => is_name(host),
    };
    is_host && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text is an address as it stands in brackets: of IPv6, or of a version to come.
fn is_literal_address(text: &str) -> bool {
    let is_of_future = |text: &str| {
        let (version, address) = text.split_once('.').unwrap_or_default();
        let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_version && !address.is_empty() && address.bytes().all(|byte| is_name_byte(byte) || byte == b':')
    };
    text.parse::<Ipv6Addr>().is_ok() || text.strip_prefix(['v', 'V']).is_some_and(is_of_future)
}

/// Whether a text is a registered name, percent escapes included, or an IPv4 address; never empty.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_escape = |i: usize| bytes.get(i + 1..i + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    !bytes.is_empty() && (0..bytes.len()).all(|i| is_name_byte(bytes[i]) || bytes[i] == b'%' && is_escape(i))
}

/// Unreserved characters and sub-delimiters of RFC 3986.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn status(version: Version, hosts: &[&[u8]]) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append("host", HeaderValue::from_bytes(host).unwrap());
        }
        host_error(version, &headers).map(|refusal| refusal.status.as_u16())
    }

    /// CORE-09: the host of a request must be there once, where its version has it in a header.
    #[test]
    fn a_host_stands_once() {
        let (one, eleven, two) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for (version, hosts, expected) in [
            (eleven, &[][..], Some(400)),
            (one, &[], None),
            (two, &[], None),
            (eleven, &[&b"a"[..]], None),
            (eleven, &[b"a", b"a"], Some(400)),
            (one, &[b"a", b"b"], Some(400)),
            (two, &[b"a", b"a"], Some(400)),
            (one, &[b"a b"], Some(400)),
            (two, &[b""], Some(400)),
        ] {
            assert_eq!(status(version, hosts), expected, "{version:?} {hosts:?}");
        }
    }

    /// CORE-09: both sides of the grammar.
    #[test]
    fn hosts_by_grammar() {
        for host in [
            "localhost",
            "localhost:",
            "localhost:8080",
            "a.example.:99999",
            "a_b~c",
            "127.0.0.1:1",
            "127.1",
            "%41b",
            "a,b",
            "[::1]",
            "[::1]:8080",
            "[::ffff:1.2.3.4]",
            "[v1.a:b]",
            "xn--bcher-kva.example",
        ] {
            assert_eq!(status(Version::HTTP_11, &[host.as_bytes()]), None, "{host}");
        }
        for host in [
            "",
            ":",
            ":80",
            "a b",
            "a:b",
            "a:1:2",
            "a:+1",
            "a@b",
            "a/",
            "http://a",
            "a?",
            "a#",
            "%4",
            "%zz",
            "[",
            "[]",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:x",
            "[1.2.3.4]",
            "[v.a]",
            "[v1.]",
            "[::1%25lo]",
            "a\tb",
            "a, b",
            "l\u{f6}c",
            "\"a\"",
            "a\\b",
            "<a>",
        ] {
            assert_eq!(status(Version::HTTP_11, &[host.as_bytes()]), Some(400), "{host}");
        }
        assert_eq!(status(Version::HTTP_11, &[b"a\xff"]), Some(400));
    }

    proptest! {
        /// No value causes a panic.
        #[test]
        fn no_host_panics(text in "[a%4\\[\\]:.v é]{0,12}", bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            is_authority(&text);
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = host_error(Version::HTTP_11, &HeaderMap::from_iter([(header::HOST, value)]));
            }
        }
    }
}
