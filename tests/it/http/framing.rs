//! Requests that the HTTP library passes over, or refuses without a reason.

use super::hostile::raw;
use super::store_away::serve;
use crate::run::scratch;

/// CORE-04, CORE-06: what the HTTP library passes over is refused, and what it refuses is told as what it is.
#[test]
fn requests_are_told_what_is_wrong() {
    let scratch = scratch();
    let server = serve(scratch.path());
    let ask = |first: &str, more: &str| {
        raw(&server, format!("{first} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n").as_bytes(), true).expect("an answer")
    };
    let post = "POST /fhir/Group";
    for (more, status, code, word) in [
        ("Content-Length: 18446744073709551615\r\n", 413, "too-long", "Content-Length"),
        ("Content-Length: 18446744073709551616\r\n", 413, "too-long", "Content-Length"),
        ("Content-Length: 99999999999999999999999999\r\n", 413, "too-long", "Content-Length"),
        (
            "Content-Type: application/json\r\nContent-Length: 18446744073709551613\r\n",
            413,
            "too-long",
            "more than 16777216 bytes",
        ),
        ("Content-Length: abc\r\n", 400, "structure", "no number"),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", 400, "structure", "Content-Length"),
        ("Transfer-Encoding: gzip\r\n", 400, "structure", "Transfer-Encoding"),
        ("Transfer-Encoding: gzip, chunked\r\n", 501, "not-supported", "Transfer-Encoding"),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501, "not-supported", "Transfer-Encoding"),
    ] {
        let said = ask(post, more).outcome(status, code);
        assert!(said.contains(word), "{more}: {said}");
    }
    for target in
        ["/fhir/metadata#x", "/#", "/fhir/Group?name=a#b", "/fhir//metadata/#", "#x", "/fhir/Group/a#/$export"]
    {
        let said = ask(&format!("GET {target}"), "Connection: close\r\n").outcome(400, "structure");
        assert!(said.contains("a # stands in the target"), "{target}: {said}");
    }
    // No answer to HEAD has a body, that to a target which cannot be read neither.
    for target in ["fhir/metadata", "/fhir/metadata#x"] {
        let answer = ask(&format!("HEAD {target}"), "");
        assert_eq!((answer.status, answer.body.len()), (400, 0), "{target}: {}", answer.text());
        assert_ne!(answer.header("content-length"), Some("0"), "{target}: that of GET");
    }
    // One after the other, and at once: only the one with the sign is refused.
    let two = |first: &str, second: &str| {
        let head = |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        let mut stream = server.client().connect();
        std::io::Write::write_all(&mut stream, (head(first, "") + &head(second, "Connection: close\r\n")).as_bytes())
            .unwrap();
        let mut read = String::new();
        std::io::Read::read_to_string(&mut stream, &mut read).unwrap();
        read.match_indices("HTTP/1.1 ").map(|(at, _)| read[at + 9..at + 12].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(two("/health/live", "/health/live#x"), ["200", "400"]);
    assert_eq!(two("/health/live#x", "/health/live"), ["400", "200"]);
    assert_eq!(two("/health/live", "/health/live"), ["200", "200"]);
    assert_eq!(ask("GET /fhir/metadata?x=%23", "X: #\r\nConnection: close\r\n").status, 200, "an encoded sign is none");
}
