//! The answers to requests that nobody could read: the HTTP library makes them itself, with a status and no body.
//!
//! They never reach a handler, so that they are made here as bytes. Each closes the connection.

use std::time::Duration;

use hyper::StatusCode;

use crate::server::connection::limits::ConnectionLimits;
use crate::server::error::{ApiError, OutcomeIssueType};

/// The answer with an OperationOutcome that stands for the library's own, if `head` is the whole of such a one.
pub(crate) fn answer_unparsed(head: &[u8], limits: &ConnectionLimits) -> Option<Vec<u8>> {
    let text = str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let mut is_empty = false;
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        match (name, value) {
            ("content-length", "0") => is_empty = true,
            ("connection", "close") | ("date", _) => {}
            // The library sends nothing else: this is a handler's answer.
            _ => return None,
        }
    }
    let reason = match status {
        400 => "this is no HTTP/1.1 request: check the request line and the headers".to_string(),
        414 => "the URI of the request is longer than this server reads: shorten its query".to_string(),
        431 => too_much(limits),
        _ => return None,
    };
    is_empty.then(|| {
        is_whole_head(
            status,
            if status == 400 { OutcomeIssueType::Structure } else { OutcomeIssueType::TooLong },
            &reason,
        )
    })
}

/// To a request over HTTP/2 with too many headers, which the library does not count.
pub(crate) fn too_many_headers(limits: &ConnectionLimits) -> ApiError {
    ApiError::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, OutcomeIssueType::TooLong, too_much(limits))
}

fn too_much(limits: &ConnectionLimits) -> String {
    format!(
        "the headers of the request are more than {} or longer than {} bytes with the request line: send fewer",
        limits.headers_max, limits.head_bytes_max
    )
}

/// To a client that does not finish the headers of its request.
pub(crate) fn too_slow(wait: Duration) -> Vec<u8> {
    let reason = format!("the request line and headers took longer than {} seconds: send them at once", wait.as_secs());
    is_whole_head(408, OutcomeIssueType::Timeout, &reason)
}

fn is_whole_head(status: u16, code: OutcomeIssueType, reason: &str) -> Vec<u8> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = ApiError::new(status, code, reason).to_json();
    let phrase = status.canonical_reason().unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} {phrase}\r\ncontent-type: application/fhir+json\r\ncache-control: no-store\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        status.as_u16(),
        body.len()
    );
    [head.as_bytes(), body.as_ref()].concat()
}
