//! The answer with a representation of a file: preconditions, range, HEAD (FILE-14, FILE-15). What the bytes are, and the
//! headers that say so, are the caller's.

use std::ops::Range;

use axum::body::Body;
use axum::response::Response;
use hyper::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue,
};
use hyper::{Method, StatusCode};

use crate::issue::IssueCode;
use crate::server::admission::HeldBytes;
use crate::server::error::ApiError;
use crate::server::files::body::FileBody;
use crate::server::http::byte_range::{RangeSpec, parse_range};
use crate::server::http::preconditions::{PreconditionVerdict, Validators};

/// A representation that can be sent, whole or a range of it.
pub(crate) struct Representation {
    /// Headers of every answer about it.
    pub headers: HeaderMap,
    /// Its validators.
    pub validators: Validators,
    /// Its length in bytes.
    pub len: u64,
}

impl Representation {
    /// The answer to GET or HEAD: 200, 206 or 304. `body` makes the body of a range; it is not called if none is sent.
    ///
    /// # Errors
    /// 412 and 416, the latter after `out_of_range` has added to it; those of `body`.
    pub(crate) fn answer(
        self,
        method: &Method,
        headers: &HeaderMap,
        out_of_range: &dyn Fn(ApiError) -> ApiError,
        body: impl FnOnce(Range<u64>) -> Result<FileBody, ApiError>,
    ) -> Result<Response, ApiError> {
        let Representation { headers: own, validators, len } = self;
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = own;
        // 1. Preconditions.
        match validators.judge_preconditions(headers) {
            PreconditionVerdict::Go => {}
            PreconditionVerdict::NotModified => {
                for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_DISPOSITION] {
                    response.headers_mut().remove(name);
                }
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return Ok(response);
            }
            PreconditionVerdict::Failed(header) => {
                let reason = format!("{header} names another version than the file's only one: ask without it");
                return Err(ApiError::new(StatusCode::PRECONDITION_FAILED, IssueCode::Conflict, reason));
            }
        }
        // 2. The range.
        let requested = if *method == Method::GET && validators.allow_range(headers) {
            parse_range(headers, len)
        } else {
            RangeSpec::Whole
        };
        let range = match requested {
            RangeSpec::Whole => 0..len,
            RangeSpec::Range(range) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let content_range = format!("bytes {}-{}/{len}", range.start, range.end - 1);
                set_header(response.headers_mut(), CONTENT_RANGE, &content_range);
                range
            }
            RangeSpec::Beyond => {
                let reason = format!("Range asks for bytes that are not there: the file has {len} in this coding");
                let refusal = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, IssueCode::Value, reason);
                let content_range = HeaderValue::from_str(&format!("bytes */{len}")).ok();
                return Err(out_of_range(
                    content_range.into_iter().fold(refusal, |refusal, value| refusal.header(CONTENT_RANGE, value)),
                ));
            }
        };
        // 3. The body.
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        if *method == Method::GET {
            *response.body_mut() = Body::new(body(range)?);
            response.extensions_mut().insert(HeldBytes(0));
        }
        Ok(response)
    }
}

/// Sets a header to a text.
pub(crate) fn set_header(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // The values consist of printable ASCII, so that the conversion never fails.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
