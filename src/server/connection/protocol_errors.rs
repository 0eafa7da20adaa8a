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

impl RawAnswer {
    /// This answer up to the end of its headers.
    fn without_body(mut self) -> RawAnswer {
        let end = memchr::memmem::find(&self.bytes, b"\r\n\r\n").map_or(self.bytes.len(), |at| at + 4);
        self.bytes.truncate(end);
        self
    }
}

/// The answer with an OperationOutcome that replaces `head`, if that is a whole answer of the library to an
/// unreadable request; else `None`. `received` is the beginning of that request, as far as it is known.
pub(crate) fn answer_unparsed(head: &[u8], received: &[u8], limits: &ConnectionLimits) -> Option<RawAnswer> {
    let answer = unparsed_answer(head, received, limits)?;
    // Whoever asks with HEAD reads no body, also of an answer to a target that is none (RFC 9110, 9.3.2). With more behind it,
    // the request that cannot be read may be the next one, sent at once with a HEAD that has been answered.
    let is_alone = memchr::memmem::find(received, b"\r\n\r\n").is_none_or(|end| end + 4 == received.len());
    Some(if is_alone && received.starts_with(b"HEAD ") { answer.without_body() } else { answer })
}

/// As [`answer_unparsed`], whatever the method is.
fn unparsed_answer(head: &[u8], received: &[u8], limits: &ConnectionLimits) -> Option<RawAnswer> {
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
    if matches!(status, 400 | 431)
        && let Some((status, code, reason)) = unparsed_reason(received)
    {
        return Some(http1_answer(status, code, reason));
    }
    let reason = match status {
        400 => "this is no HTTP/1.1 request: check the request line and the headers".to_string(),
        414 => "the URI of the request is longer than this server reads: shorten its query".to_string(),
        431 => header_limits_text(limits),
        _ => return None,
    };
    Some(http1_answer(status, if status == 400 { IssueCode::Structure } else { IssueCode::TooLong }, &reason))
}

/// Text of a request whose target has a fragment.
pub(crate) const FRAGMENT_TEXT: &str = "a # stands in the target of the request: what follows it is for the client alone; \
     send the target without it, or %23 where the sign itself is meant";

/// Why the library cannot read a request that begins with these bytes, where its own status does not say it; with the
/// status that says it. `None` for any other reason.
fn unparsed_reason(received: &[u8]) -> Option<(u16, IssueCode, &'static str)> {
    let mut lines = received.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    if words.nth(1).is_some_and(|target| target.contains(&b'#')) {
        return Some((400, IssueCode::Structure, FRAGMENT_TEXT));
    }
    let mut lengths: Vec<&[u8]> = Vec::new();
    let mut codings: Vec<&[u8]> = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let items = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths.extend(items);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            codings.extend(items);
        }
    }
    let is_number = |length: &&[u8]| !length.is_empty() && length.iter().all(u8::is_ascii_digit);
    // The library keeps the two largest numbers for itself.
    let is_huge = |length: &&[u8]| {
        str::from_utf8(length).is_ok_and(|text| text.parse::<u64>().map_or(true, |n| n > u64::MAX - 2))
    };
    if !lengths.iter().all(is_number) {
        let text = "Content-Length: the value is no number of bytes; send the length of the body, once";
        return Some((400, IssueCode::Structure, text));
    }
    if lengths.iter().any(is_huge) {
        let text = "Content-Length: the body is announced as longer than any that this server takes";
        return Some((413, IssueCode::TooLong, text));
    }
    if lengths.windows(2).any(|pair| pair[0] != pair[1]) {
        let text = "Content-Length: it stands there twice with different values; send the length of the body, once";
        return Some((400, IssueCode::Structure, text));
    }
    if codings.last().is_some_and(|last| !last.eq_ignore_ascii_case(b"chunked")) {
        let text = "Transfer-Encoding: the last coding must be chunked, or nobody knows where the body ends; send chunked alone";
        return Some((400, IssueCode::Structure, text));
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    /// CORE-04: what the library cannot read is told as what it is.
    #[test]
    fn unreadable_requests_are_told_apart() {
        let reason =
            |head: &str| unparsed_reason(format!("{head}\r\n\r\nX: #").as_bytes()).map(|found| (found.0, found.2));
        for (head, status, word) in [
            ("GET /a#b HTTP/1.1\r\nHost: x", 400, "a #"),
            ("POST /a HTTP/1.1\r\nContent-Length: 18446744073709551615", 413, "longer than any"),
            ("POST /a HTTP/1.1\r\ncontent-length: 99999999999999999999999", 413, "longer than any"),
            ("POST /a HTTP/1.1\r\nContent-Length: -1", 400, "no number"),
            ("POST /a HTTP/1.1\r\nContent-Length:", 400, "no number"),
            ("POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2", 400, "twice"),
            ("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked, gzip", 400, "chunked"),
        ] {
            let (found, text) = reason(head).unwrap_or_else(|| panic!("{head}"));
            assert_eq!(found, status, "{head}");
            assert!(text.contains(word), "{head}: {text}");
        }
        for other in [
            "",
            "nonsense",
            "GET / HTTP/9.9",
            "GET /a%23b HTTP/1.1\r\nX: #",
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551613",
        ] {
            assert_eq!(reason(other), None, "{other}");
        }
    }
}
