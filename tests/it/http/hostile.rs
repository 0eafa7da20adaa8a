//! Broken, slow and hostile clients: each gets the documented response, and the service keeps running.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::client::Answer;
use super::job_lifecycle::{accepted, bundled, ended, files};
use super::server::Server;
use crate::run::scratch;

/// Asserts that the service still answers.
fn lives(server: &Server) {
    assert_eq!(server.client().get("/health/live").status, 200, "{}", server.log());
}

/// Sends bytes verbatim and reads one response; `None` if the connection is closed without one.
pub(super) fn raw(server: &Server, bytes: &[u8], half_close: bool) -> Option<Answer> {
    let mut stream = server.client().connect();
    stream.write_all(bytes).ok();
    if half_close {
        stream.shutdown(Shutdown::Write).ok();
    }
    let mut read = Vec::new();
    stream.read_to_end(&mut read).ok();
    Answer::parse(&read)
}

/// CORE-06, CORE-07, CORE-08, FILE-20, CLIENT-11: oversized and malformed bodies, heads and paths, and connections that
/// stall, are answered or closed.
#[test]
fn hostile_requests_are_answered() {
    let scratch = scratch();
    let toml = "[limits]\nbody_bytes = 100000\nhead_seconds = 1\nidle_seconds = 1\nbody_seconds = 1\nwrite_seconds = 1\nheaders = 50\n";
    std::fs::write(scratch.path().join("serve.toml"), toml).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    let client = server.client();
    let json = [("Content-Type", "application/fhir+json")];
    // Oversized and malformed bodies.
    client.ask("POST", "/fhir/Group", &json, &vec![b' '; 100_001]).outcome(413, "too-long");
    client.ask("POST", "/fhir/Group", &json, b"{\"resourceType\":").outcome(400, "structure");
    client.ask("POST", "/fhir/Group", &json, &vec![b'['; 50_000]).outcome(400, "structure");
    client.ask("POST", "/fhir/Group", &json, b"{\"resourceType\":\"Patient\"}").outcome(400, "value");
    client.ask("POST", "/fhir/Group", &[("Content-Type", "text/plain")], b"{}").outcome(415, "not-supported");
    let huge =
        b"POST /fhir/Group HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n";
    let answer = raw(&server, &[&huge[..], &vec![b' '; 200_000]].concat(), false);
    assert!(answer.is_none_or(|answer| answer.status == 413), "a 100 MB body");
    lives(&server);
    // Oversized and malformed heads.
    let many: String = (0..60).map(|n| format!("X-{n}: y\r\n")).collect();
    let head = |rest: &str| format!("GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n");
    assert_eq!(raw(&server, head(&many).as_bytes(), false).unwrap().status, 431);
    assert_eq!(raw(&server, head(&format!("X: {}\r\n", "y".repeat(100_000))).as_bytes(), false).unwrap().status, 431);
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(70_000));
    assert!(matches!(raw(&server, long.as_bytes(), false).unwrap().status, 414 | 431));
    assert_eq!(raw(&server, b"nonsense\r\n\r\n", false).unwrap().status, 400);
    lives(&server);
    // Paths that try to leave the routes.
    for path in ["..%2f..%2fetc%2fpasswd", "..", "%2e%2e", "a%00", "%00", &"a".repeat(65), "a/b", "%ff", "\u{e9}", "*"]
    {
        for place in ["bulk-files", "bulk-status", "Group", "OperationDefinition"] {
            let answer = client.ask("GET", &format!("/fhir/{place}/{path}"), &[], b"");
            assert!(matches!(answer.status, 404 | 400), "{place}/{path}: {}", answer.status);
            if answer.header("content-type") != Some("application/fhir+json") {
                panic!("{place}/{path}: {answer:?}");
            }
        }
    }
    // Stalls: half a request, half a body, a half-closed connection.
    let begun = Instant::now();
    assert!(raw(&server, b"GET /fhir/meta", false).is_none_or(|answer| answer.status == 408));
    let half = b"POST /fhir/Group HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    assert!(raw(&server, half, false).is_none_or(|answer| matches!(answer.status, 400 | 408)));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let whole = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(raw(&server, whole, true).unwrap().status, 200, "a half-closed connection is answered");
    lives(&server);
}

/// DELETE-06, CORE-08: a client that does not read is disconnected; one that reads slowly gets its file, although it is
/// deleted meanwhile.
#[test]
fn slow_clients() {
    let scratch = scratch();
    let toml = "[limits]\nwrite_seconds = 1\n[ig]\nfirst_poll_in_progress = false\n";
    std::fs::write(scratch.path().join("serve.toml"), toml).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    let client = server.client();
    let status = accepted(&client, &server.fhir("$export?_type=Claim,ExplanationOfBenefit"));
    let manifest = ended(&client, &status).json();
    let path = files(&client, &manifest).into_iter().map(|(_, path, _)| path).next_back().unwrap();
    let good = client.get(&path).body;
    assert!(good.len() > 10_000_000, "more than sockets hold: {}", good.len());
    let ask = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut slow = client.connect();
    slow.write_all(ask.as_bytes()).unwrap();
    let mut stalled = client.connect();
    stalled.write_all(ask.as_bytes()).unwrap();
    let mut read = vec![0; 1000];
    slow.read_exact(&mut read).unwrap();
    client.ask("DELETE", &status, &[], b"").outcome(202, "informational");
    client.get(&path).outcome(404, "not-found");
    let mut piece = vec![0; 1 << 20];
    while let Ok(len @ 1..) = slow.read(&mut piece) {
        read.extend_from_slice(&piece[..len]);
        std::thread::sleep(Duration::from_millis(50));
    }
    let answer = Answer::parse(&read).unwrap();
    assert!(answer.body == good, "{} of {}", answer.body.len(), good.len());
    // By then the client that does not read is disconnected.
    std::thread::sleep(Duration::from_millis(2500));
    let mut rest = Vec::new();
    stalled.read_to_end(&mut rest).ok();
    assert!(rest.len() < good.len(), "it was cut");
    lives(&server);
    assert_eq!(server.stop(), Some(0));
}
