//! Asks a running service over the admin socket in its data directory: HTTP/1.1, one request a connection.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::limits::RECORD_BYTES_MAX;
use crate::server::admin::SOCKET;
use crate::sys::directory::Directory;
use crate::sys::unix_socket::connect;

/// Longest wait for bytes of an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// The answer of the service that has this data directory: its status and its document; `None` if no service listens there.
/// `target` is a path of the interface, without anything that HTTP would take for more than a path.
///
/// # Errors
/// The system's, `PermissionDenied` for who is not the user that the service runs as; `InvalidData` if what answers is no such
/// service.
pub(crate) fn ask_service(data: &Path, method: &str, target: &str) -> io::Result<Option<(u16, Value)>> {
    let mut stream = match connect(&Directory::open(data)?, SOCKET) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(RECORD_BYTES_MAX).read_to_end(&mut bytes)?;
    let is_answer = || io::Error::new(io::ErrorKind::InvalidData, "what answers there is no service of this version");
    read_answer(&bytes).ok_or_else(is_answer).map(Some)
}

/// Status and document of an answer; `None` if it is not whole, or no JSON.
fn read_answer(bytes: &[u8]) -> Option<(u16, Value)> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let length: usize = length
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, n)| n.trim().parse().ok())?;
    let body = &bytes[end + 4..];
    (body.len() == length).then(|| serde_json::from_slice(body).ok()).flatten().map(|document| (status, document))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a whole answer is one.
    #[test]
    fn answers_are_whole() {
        let whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 12\r\n\r\n{\"one\": 1.5}";
        let (status, document) = read_answer(whole).unwrap();
        assert_eq!((status, document["one"].as_f64()), (202, Some(1.5)));
        for cut in 0..whole.len() {
            assert!(read_answer(&whole[..cut]).is_none(), "{cut}");
        }
        for other in [
            &b"HTTP/1.1 200 OK\r\n\r\n{}"[..],
            b"SSH-2.0\r\n\r\n",
            b"HTTP/1.1 2\xff0 OK\r\nContent-Length: 2\r\n\r\n{}",
        ] {
            assert!(read_answer(other).is_none());
        }
    }
}
