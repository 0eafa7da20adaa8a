//! How the body of a request is framed: as it is, or in chunks, and nothing else.

use axum::http::{HeaderMap, StatusCode, header};

use crate::issue::IssueCode;
use crate::server::error::ApiError;
use crate::server::http::list::join_header_lines;

/// 501 for a request whose body is in another transfer coding than chunked (RFC 9112, 6.1), which is not decoded here; 400
/// for one that is chunked twice. `None` for any other.
pub(crate) fn framing_error(headers: &HeaderMap) -> Option<ApiError> {
    let codings = join_header_lines(headers, header::TRANSFER_ENCODING);
    let codings: Vec<&str> = codings.split(',').map(str::trim).filter(|coding| !coding.is_empty()).collect();
    let is_chunked = |coding: &&str| coding.eq_ignore_ascii_case("chunked");
    let (status, code, text) = match codings.as_slice() {
        [] => return None,
        all if !all.iter().all(is_chunked) => (
            StatusCode::NOT_IMPLEMENTED,
            IssueCode::NotSupported,
            "Transfer-Encoding: chunked is the only coding that is taken here; send the body as it is",
        ),
        [_] => return None,
        _ => (
            StatusCode::BAD_REQUEST,
            IssueCode::Structure,
            "Transfer-Encoding: chunked stands there twice; send it once",
        ),
    };
    Some(ApiError::new(status, code, text).at("http.transfer-encoding"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// CORE-06: the body is as it is or in chunks.
    #[test]
    fn codings_of_transfer() {
        for (lines, status) in [
            (&[][..], None),
            (&["chunked"], None),
            (&["Chunked"], None),
            (&["gzip, chunked"], Some(501)),
            (&["gzip", "chunked"], Some(501)),
            (&["x;q=1, chunked"], Some(501)),
            (&["identity, chunked"], Some(501)),
            (&["chunked, chunked"], Some(400)),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::TRANSFER_ENCODING, HeaderValue::from_static(line));
            }
            assert_eq!(framing_error(&headers).map(|error| error.status.as_u16()), status, "{headers:?}");
        }
    }
}
