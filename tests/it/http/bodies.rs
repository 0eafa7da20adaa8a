//! Bodies of requests: content codings.

use super::client::Answer;
use super::credentials::{Credential, client};
use super::job_lifecycle::{accepted, bundled};
use super::vendors::{IG, MTE_DEFAULT, NETSMART, STE};
use crate::run::scratch;

const GROUP: &str = r#"{"resourceType":"Group","id":"made","type":"person","actual":true}"#;
const JSON: (&str, &str) = ("Content-Type", "application/fhir+json");

/// Bytes as one gzip member.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn refused(answer: &Answer) {
    assert!(answer.outcome(415, "not-supported").starts_with("Content-Encoding: "), "{}", answer.text());
    assert_eq!(answer.header("accept-encoding"), Some("identity"));
}

/// CORE-06, CORE-08: a body in a content coding is refused and not decoded, wherever a body is read; elsewhere it is not
/// looked at.
#[test]
fn coded_bodies_are_refused() {
    let scratch = scratch();
    let writable = "groups_writable = true\n";
    std::fs::write(scratch.path().join("serve.toml"), format!("[ig]\n{writable}[oneup_ste]\n{writable}")).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    let http = server.client();
    let (coded, bomb) = (gzip(GROUP.as_bytes()), gzip(&vec![b' '; 17 << 20]));
    let places =
        [("POST", format!("{IG}/Group")), ("PUT", format!("{IG}/Group/made")), ("POST", format!("{STE}/Group"))];
    for (method, path) in &places {
        for coding in
            ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "gzip, identity", "identity,gzip", "none", "*"]
        {
            for body in [GROUP.as_bytes(), &coded, &bomb] {
                refused(&http.ask(method, path, &[JSON, ("Content-Encoding", coding)], body));
            }
        }
        let twice = [JSON, ("Content-Encoding", "identity"), ("Content-Encoding", "gzip")];
        refused(&http.ask(method, path, &twice, &coded));
        http.ask(method, path, &[JSON], &coded).outcome(400, "structure");
    }
    assert_eq!(http.get("/fhir/Group/made").status, 404, "nothing was written");
    let member = GROUP.replace(r#""actual":true"#, r#""actual":true,"member":[{"entity":{"reference":"Patient/x"}}]"#);
    for (method, path) in &places {
        for coding in ["identity", "Identity", "", " , identity"] {
            let answer = http.ask(method, path, &[JSON, ("Content-Encoding", coding)], member.as_bytes());
            assert!(matches!(answer.status, 200 | 201), "{coding}: {}", answer.text());
        }
    }
    // Where no body is read its coding does not matter; a kick-off that has one is refused for that.
    let async_kick_off =
        [JSON, ("Content-Encoding", "gzip"), ("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
    http.ask("GET", "/fhir/$export?_type=Patient", &async_kick_off, &coded).outcome(400, "structure");
    let status = accepted(&http, &http.ask("GET", "/fhir/$export?_type=Patient", &async_kick_off, b""));
    assert_eq!(http.ask("DELETE", &status, &async_kick_off, &coded).status, 202);
    http.ask("POST", "/fhir/$export", &async_kick_off, &coded).outcome(415, "not-supported");
    http.ask("POST", &format!("{NETSMART}/Group"), &async_kick_off, &coded).outcome(404, "not-found");
    http.ask("POST", &format!("{MTE_DEFAULT}/Group"), &async_kick_off, &coded).outcome(403, "forbidden");
    assert_eq!(http.ask("DELETE", "/fhir/Group/made", &async_kick_off, &coded).status, 204);
}

/// CORE-06, CORE-03: who may not ask is told that first, before anything of the body.
#[test]
fn credentials_come_before_codings() {
    let scratch = scratch();
    let known = Credential::token(&[]);
    std::fs::write(scratch.path().join("serve.toml"), client("a", "writes_groups = true", &[&known])).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    let http = server.client();
    let coded = gzip(GROUP.as_bytes());
    let mut headers = vec![JSON, ("Content-Encoding", "gzip")];
    http.ask("POST", "/fhir/Group", &headers, &coded).outcome(401, "login");
    headers.extend(known.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    refused(&http.ask("POST", "/fhir/Group", &headers, &coded));
}
