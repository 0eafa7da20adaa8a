//! Answers: read from a connection, and held to what is documented.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::generator::Exchange;
use super::service::Service;

/// Statuses that any request may be answered with: those of the table in `src/docs/service.md` that depend on the
/// request or on the service's limits, not on an operation.
const ANY: &[u64] = &[400, 401, 403, 404, 405, 406, 408, 413, 414, 415, 421, 429, 431, 501, 503];

/// Statuses of each operation besides [`ANY`], by its name in the access log.
const BY_OPERATION: &[(&str, &[u64])] = &[
    ("none", &[200]), // the health probes
    ("unreadable", &[]),
    ("Overview", &[200]),
    ("Metadata", &[200]),
    ("OperationDefinition", &[200]),
    ("SmartConfiguration", &[200]),
    ("Token", &[200]),
    ("SystemExport", &[200, 202]),
    ("PatientExport", &[200, 202]),
    ("TypeExport", &[200, 202]),
    ("GroupExport", &[200, 202, 410]),
    ("JobStatus", &[200, 202, 410]),
    ("JobDelete", &[202]),
    ("JobRetry", &[202, 409]),
    ("File", &[200, 206, 304, 410, 412, 416]),
    ("Binary", &[200, 206, 304, 410, 412, 416]),
    ("GroupSearch", &[200]),
    ("GroupCreate", &[200, 201, 412, 422]),
    ("GroupRead", &[200, 304, 410, 412]),
    ("GroupVersion", &[200, 304, 410]),
    ("GroupUpdate", &[200, 201, 412, 422]),
    ("GroupDelete", &[204, 412]),
];

/// Longest answer that is read to its end, in bytes; of a longer one the client has enough.
const ANSWER_BYTES: usize = 4 << 20;

/// Longest time without a byte.
const SILENCE: Duration = Duration::from_secs(30);

/// Whether an operation may be answered with a status.
pub(crate) fn is_documented(operation: &str, status: u64) -> bool {
    let own = BY_OPERATION.iter().find(|(name, _)| *name == operation);
    own.is_some_and(|(_, statuses)| ANY.contains(&status) || statuses.contains(&status))
}

/// One answer.
pub(crate) struct Answer {
    pub status: u16,
    head: String,
    body: Vec<u8>,
    /// Whether the end of the body was read.
    whole: bool,
}

impl Answer {
    /// Value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// The body, if it is whole and JSON.
    pub(crate) fn json(&self) -> Option<Value> {
        let is_json = self.header("content-type").is_some_and(|value| value.contains("json") && !value.contains("nd"));
        serde_json::from_slice(&self.body).ok().filter(|_| self.whole && is_json)
    }
}

/// What came back over a connection.
pub(crate) struct Received {
    bytes: Vec<u8>,
    /// Whether there may have been more: the client had enough, or the connection was reset, as it is when the service closes
    /// it before it has read everything, which takes along what the client has not read yet.
    is_cut: bool,
}

/// Sends an exchange over a connection of its own, and reads what comes back; `None` if the client hung up.
///
/// # Errors
/// What the connection did that it may not do.
pub(crate) fn send(service: &Service, exchange: &Exchange) -> Result<Option<Received>, String> {
    let mut stream = TcpStream::connect(service.address).map_err(|error| format!("cannot connect: {error}"))?;
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream.set_write_timeout(Some(SILENCE)).unwrap();
    let bytes = &exchange.bytes[..exchange.hang_up_at.unwrap_or(exchange.bytes.len())];
    // A request that is refused while it is being sent ends the connection.
    let _ = stream.write_all(bytes);
    if exchange.hang_up_at.is_some() {
        return Ok(None);
    }
    if exchange.half_close {
        stream.shutdown(Shutdown::Write).ok();
    }
    let (mut received, mut piece) = (Received { bytes: Vec::new(), is_cut: false }, [0; 1 << 16]);
    loop {
        received.is_cut |= received.bytes.len() >= ANSWER_BYTES;
        match if received.is_cut { Ok(0) } else { stream.read(&mut piece) } {
            Ok(0) => break,
            Ok(len) => received.bytes.extend_from_slice(&piece[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(format!(
                    "neither an answer nor an end within {SILENCE:?}, after {} bytes",
                    received.bytes.len()
                ));
            }
            Err(_) => received.is_cut = true,
        }
    }
    Ok(Some(received))
}

/// Cuts what was received into answers.
///
/// # Errors
/// Why it is no sequence of answers.
pub(crate) fn parse(received: &Received, methods: &[String]) -> Result<Vec<Answer>, String> {
    let (mut answers, is_cut, mut received) = (Vec::new(), received.is_cut, &received.bytes[..]);
    while !received.is_empty() {
        let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
            if is_cut {
                return Ok(answers);
            }
            return Err(format!(
                "an answer without an end of its headers: {}",
                received[..received.len().min(200)].escape_ascii()
            ));
        };
        let head = str::from_utf8(&received[..end]).map_err(|_| "a header that is no text")?.to_string();
        let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        let status: u16 = status.ok_or_else(|| format!("no status line: {head}"))?;
        received = &received[end + 4..];
        if status == 100 {
            continue;
        }
        let mut answer = Answer { status, head, body: Vec::new(), whole: true };
        let is_bare = match methods.get(answers.len()) {
            _ if matches!(status, 204 | 304) => true,
            Some(method) if method != "HEAD" => false,
            Some(_) if !matches!(status, 400 | 413 | 431) => true,
            // What was asked is uncertain, or was to the service when it could not be read, as behind another request: it has
            // a body if something follows that is no other answer.
            _ => received.is_empty() || received.starts_with(b"HTTP/1."),
        };
        let length = answer.header("content-length").map(|value| value.parse::<usize>());
        let taken = match length {
            _ if is_bare => 0,
            Some(Ok(length)) if length <= received.len() => length,
            Some(Ok(_)) => {
                answer.whole = false;
                received.len()
            }
            Some(Err(_)) => return Err(format!("Content-Length is no number: {}", answer.head)),
            None if answer.header("transfer-encoding") == Some("chunked") => {
                let (body, taken, whole) = unchunk(received)?;
                (answer.body, answer.whole) = (body, whole);
                taken
            }
            None => received.len(),
        };
        if answer.body.is_empty() {
            answer.body = received[..taken].to_vec();
        }
        if !answer.whole && !is_cut {
            return Err(format!("an answer that ends early: {}", answer.head));
        }
        received = &received[taken..];
        answers.push(answer);
    }
    Ok(answers)
}

/// The body in chunks, the bytes that it took, and whether its end is there.
fn unchunk(bytes: &[u8]) -> Result<(Vec<u8>, usize, bool), String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = bytes[at..].windows(2).position(|pair| pair == b"\r\n") else {
            return Ok((body, bytes.len(), false));
        };
        let text = str::from_utf8(&bytes[at..at + line]).unwrap_or_default();
        let length = usize::from_str_radix(text, 16).map_err(|_| format!("a chunk of length {text:?}"))?;
        at += line + 2;
        let Some(chunk) = bytes.get(at..at + length + 2) else { return Ok((body, bytes.len(), false)) };
        body.extend_from_slice(&chunk[..length]);
        at += length + 2;
        if length == 0 {
            return Ok((body, at, true));
        }
    }
}

/// Checks one answer, to a request with this method if that is certain, against what holds for all: its status is documented,
/// an error is an OperationOutcome, and nothing of the host stands in it.
///
/// # Errors
/// What it breaks.
pub(crate) fn check(answer: &Answer, service: &Service, method: Option<&str>) -> Result<(), String> {
    let status = u64::from(answer.status);
    if !BY_OPERATION.iter().any(|(operation, _)| is_documented(operation, status)) {
        return Err(format!("{status} is not documented"));
    }
    let media_type = answer.header("content-type").unwrap_or_default();
    let is_json = media_type.starts_with("application/fhir+json") || media_type.starts_with("application/json");
    let is_bare = method.map_or(answer.body.is_empty(), |method| method == "HEAD");
    if status >= 400 && !is_bare {
        let body = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        let issues = body["issue"].as_array().map_or(&[][..], Vec::as_slice);
        let is_issue = |issue: &Value| {
            ["severity", "code", "diagnostics"]
                .iter()
                .all(|name| issue[name].as_str().is_some_and(|text| !text.is_empty()))
        };
        // A probe says whether the service is ready, not what is wrong with the request.
        let is_probe = status == 503 && body["status"].is_string();
        // The token endpoint has the words of OAuth.
        let is_oauth = ["error", "error_description"].iter().all(|name| body[name].is_string());
        if !is_probe
            && !is_oauth
            && (body["resourceType"] != "OperationOutcome" || issues.is_empty() || !issues.iter().all(is_issue))
        {
            return Err(format!("{status} without an OperationOutcome: {}", String::from_utf8_lossy(&answer.body)));
        }
        if !is_json {
            return Err(format!("{status} as {media_type:?}"));
        }
    }
    // Files hold the store's own words.
    let told = if is_json { &answer.body[..] } else { &[] };
    let told = answer.head.clone() + &String::from_utf8_lossy(told);
    let directories = service.directories.iter().map(String::as_str);
    for word in ["/usr/", "/home/", ".rs:", "panicked", "RUST_BACKTRACE", "unwrap()"].into_iter().chain(directories) {
        if told.contains(word) {
            return Err(format!("{word:?} is in the answer: {told}"));
        }
    }
    Ok(())
}

/// Status of a GET, if it is answered.
pub(crate) fn status_of(service: &Service, path: &str) -> Option<u16> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let exchange = Exchange {
        bytes: head.into_bytes(),
        methods: vec!["GET".into()],
        answers_least: 1,
        half_close: false,
        hang_up_at: None,
    };
    let received = send(service, &exchange).ok()??;
    parse(&received, &exchange.methods).ok()?.first().map(|answer| answer.status)
}
