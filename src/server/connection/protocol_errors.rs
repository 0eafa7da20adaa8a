//! Answers to requests that the HTTP library cannot read. The library answers them with a status and no body; these
//! replace its answers.
//!
//! No handler sees such a request, so that the answers are made as bytes. Each closes the connection.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::StatusCode;

use crate::count_text::counted;
use crate::issue::IssueCode;
use crate::server::connection::limits::ConnectionLimits;
use crate::server::error::ApiError;

/// An answer as bytes, with its status for the log.
pub(crate) struct RawAnswer {
    /// HTTP status of the answer.
    pub status: u16,
    /// The whole answer.
    pub bytes: Vec<u8>,
}

/// The answer with an OperationOutcome that replaces `head`, if that is a whole answer of the library to an
/// unreadable request; else `None`.
pub(crate) fn answer_unparsed(head: &[u8], limits: &ConnectionLimits) -> Option<RawAnswer> {
    let text = str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let mut is_empty = false;
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        match (name, value) {
            ("content-length", "0") => is_empty = true,
            ("connection", "close") | ("date", _) => {}
            // The library sends no other header: this is the answer of a handler.
            _ => return None,
        }
    }
    if !is_empty {
        return None;
    }
    let reason = match status {
        400 => "this is no HTTP/1.1 request: check the request line and the headers".to_string(),
        414 => "the URI of the request is longer than this server reads: shorten its query".to_string(),
        431 => header_limits_text(limits),
        _ => return None,
    };
    Some(http1_answer(status, if status == 400 { IssueCode::Structure } else { IssueCode::TooLong }, &reason))
}

/// Logs an answer that no handler has made, as the access log does for the others.
pub(crate) fn log_answer(client: SocketAddr, status: u16, why: &str) {
    let client = client.ip().to_canonical().to_string();
    tracing::info!(target: "outpour::access", client, status, why, "answered");
}

/// Logs a connection, or a stream of one, that is given up without an answer.
pub(crate) fn log_cut(client: SocketAddr, why: &str) {
    let client = client.ip().to_canonical().to_string();
    tracing::info!(target: "outpour::access", client, why, "cut off");
}

/// 431 for an HTTP/2 request with too many headers, which the library does not count.
pub(crate) fn too_many_headers(limits: &ConnectionLimits) -> ApiError {
    ApiError::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, IssueCode::TooLong, header_limits_text(limits))
}

/// Message about headers beyond the limits.
fn header_limits_text(limits: &ConnectionLimits) -> String {
    format!(
        "the headers of the request are more than {} or longer than {} with the request line: send fewer",
        limits.headers_max,
        counted(limits.head_bytes_max as u64, "byte")
    )
}

/// 503 for a connection of an address that has its share of connections.
pub(crate) fn too_many_connections() -> RawAnswer {
    let reason = "this address has as many connections open as it may have at a time: close some, or keep one and send \
                  requests one after the other";
    http1_answer(503, IssueCode::Throttled, reason)
}

/// 408 for a request whose headers do not end within `wait`.
pub(crate) fn too_slow(wait: Duration) -> RawAnswer {
    let reason = format!(
        "the request line and headers took longer than {}: send them at once",
        counted(wait.as_secs(), "second")
    );
    http1_answer(408, IssueCode::Timeout, &reason)
}

/// A whole HTTP/1.1 answer as bytes, with an OperationOutcome, that closes the connection.
fn http1_answer(status: u16, code: IssueCode, reason: &str) -> RawAnswer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = ApiError::new(status, code, reason).to_json();
    let phrase = status.canonical_reason().unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} {phrase}\r\ncontent-type: application/fhir+json\r\ncache-control: no-store\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        status.as_u16(),
        body.len()
    );
    RawAnswer { status: status.as_u16(), bytes: [head.as_bytes(), body.as_ref()].concat() }
}
