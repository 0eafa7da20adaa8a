//! The audit log: who did what to which job, file and Group; and that every answer is in the log, whoever made it.

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::credentials::{Credential, client};
use super::hostile::raw;
use super::server::Server;
use crate::run::scratch;

const STORE: &str = r#"{"resourceType":"Patient","id":"p-secret","name":[{"family":"Secretname"}],"meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Patient","id":"p-other","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Group","id":"ten","type":"person","actual":true,"name":"Secretgroup","member":[{"entity":{"reference":"Patient/p-secret"}}]}
{"resourceType":"Group","id":"hidden","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/p-other"}}]}
"#;

/// Starts a service whose log is JSON, over a small store.
fn serve(directory: &Path, more: &str) -> Server {
    if !directory.join("store").is_dir() {
        std::fs::create_dir(directory.join("store")).unwrap();
        std::fs::write(directory.join("store/secret-file.ndjson"), STORE).unwrap();
    }
    let toml = format!(
        "[log]\nformat = 'json'\n[limits]\npolls_burst = 1000\nhead_seconds = 1\nwrite_seconds = 1\nidle_seconds = 1\n\
         [ig]\nfirst_poll_in_progress = false\n{more}"
    );
    std::fs::write(directory.join("serve.toml"), toml).unwrap();
    let server = Server::start(directory, &["--store", "store", "--data", "data", "--config", "serve.toml"]);
    server.wait_until_ready();
    server
}

/// The events of the log of a target, in order.
fn events(server: &Server, target: &str) -> Vec<Value> {
    let lines: Vec<Value> = server.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    lines.into_iter().filter(|line| line["target"] == target).collect()
}

/// Waits for an event of the log with these fields; lines are read by another thread.
#[track_caller]
fn event(server: &Server, target: &str, fields: &[(&str, Value)]) -> Value {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let all = events(server, target);
        let found = all.iter().find(|line| fields.iter().all(|(name, value)| line[name] == *value));
        if let Some(found) = found {
            return found.clone();
        }
        assert!(Instant::now() < end, "{fields:?}: {all:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// PRIV-02: kick-off, completion, download, deletion and refusal of exports, reads and writes of Groups, each with the client
/// and the id, and counts where there are some. Nothing of a resource, no patient, no query, no path of the host.
#[test]
fn events_name_client_and_id() {
    let scratch = scratch();
    let [full, bound] = [(); 2].map(|()| Credential::token(&[]));
    let user = Credential::token(&["--patient", "p-secret"]);
    let clients = client("nightly", "writes_groups = true", &[&full, &user])
        + &client("bound", "levels = ['group']\ngroups = ['ten']", &[&bound]);
    let server = serve(scratch.path(), &clients);
    let http = server.client();
    let audit = |fields: &[(&str, Value)]| event(&server, "outpour::audit", fields);
    let says = |message: &str, client: &str| [("message", message.into()), ("client", client.into())];
    let kick_off = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];

    // 1. From kick-off to deletion.
    let target = "/fhir/Group/ten/$export?_type=Patient&_since=2023-01-01T00:00:00Z";
    let started = full.ask(&http, "GET", target, &kick_off);
    assert_eq!(started.status, 202, "{}", started.text());
    let status = http.path(started.header("content-location").unwrap()).to_string();
    let manifest = full.manifest(&http, &status);
    let job = status.rsplit('/').next().unwrap();
    let accepted = audit(&says("a job was accepted", "nightly"));
    assert_eq!((&accepted["job"], &accepted["group"]), (&job.into(), &"ten".into()), "{accepted}");
    assert_eq!(accepted["request"], started.header("x-request-id").unwrap(), "as in the access log");
    let complete = audit(&says("a job is complete", "nightly"));
    let path = http.path(manifest["output"][0]["url"].as_str().unwrap()).to_string();
    let sent = full.get(&http, &path);
    assert_eq!((&complete["job"], &complete["rows"]), (&job.into(), &1.into()), "{complete}");
    let items = ["output", "error"].map(|list| manifest[list].as_array().unwrap().clone()).concat();
    let sizes = items.iter().map(|item| full.get(&http, http.path(item["url"].as_str().unwrap())).body.len());
    assert_eq!(
        (&complete["files"], &complete["bytes"]),
        (&items.len().into(), &sizes.sum::<usize>().into()),
        "{complete}"
    );
    let file = path.rsplit('/').next().unwrap();
    let mut sending = says("a file is sent", "nightly").to_vec();
    sending.push(("file", file.into()));
    let download = audit(&sending);
    assert_eq!((&download["job"], &download["file"], &download["status"]), (&job.into(), &file.into(), &200.into()));
    assert_eq!(download["bytes"], sent.body.len(), "{download}");
    full.ask(&http, "GET", &path, &[("Range", "bytes=0-9")]);
    assert_eq!(audit(&[("status", 206.into())])["bytes"], 10);
    full.ask(&http, "HEAD", &path, &[]);
    // Another client is told that it is not there; which file it is of, is not in the log, for it knows no such one.
    bound.get(&http, &path).outcome(404, "not-found");
    let refused = audit(&says("refused", "bound"));
    assert_eq!(
        (&refused["operation"], &refused["status"], &refused["id"]),
        (&"File".into(), &404.into(), &Value::Null)
    );
    full.ask(&http, "DELETE", &status, &[]);
    assert_eq!(audit(&says("a job was deleted", "nightly"))["job"], job);

    // 2. Groups.
    full.get(&http, "/fhir/Group/ten");
    assert_eq!(audit(&says("a Group was read", "nightly"))["group"], "ten");
    let group = r#"{"resourceType":"Group","id":"own","type":"person","actual":true,"name":"Secretgroup","member":[{"entity":{"reference":"Patient/p-secret"}}]}"#;
    let header = full.headers[0].clone();
    let headers = [("Content-Type", "application/fhir+json"), (header.0.as_str(), header.1.as_str())];
    assert_eq!(http.ask("PUT", "/fhir/Group/own", &headers, group.as_bytes()).status, 201);
    let written = audit(&says("a Group was written", "nightly"));
    assert_eq!((&written["group"], &written["status"]), (&"own".into(), &201.into()), "{written}");
    let made = http.ask("POST", "/fhir/Group", &headers, group.as_bytes()).json();
    assert_eq!(audit(&says("a Group was made", "nightly"))["group"], made["id"]);
    assert_eq!(full.ask(&http, "DELETE", "/fhir/Group/own", &[]).status, 204);
    assert_eq!(audit(&says("a Group was deleted", "nightly"))["group"], "own");
    bound.get(&http, "/fhir/Group?name=Secretgroup");
    let searched = audit(&says("Groups were searched", "bound"));
    assert_eq!((&searched["group"], &searched["found"]), (&"ten".into(), &1.into()), "{searched}");
    for (method, target, operation, status) in [
        ("GET", "/fhir/Group/hidden", "GroupRead", 404),
        ("GET", "/fhir/Group/hidden/$export", "GroupExport", 404),
        ("PUT", "/fhir/Group/hidden", "GroupUpdate", 403),
        ("DELETE", "/fhir/Group/ten", "GroupDelete", 403),
        ("POST", "/fhir/Group", "GroupCreate", 403),
        ("GET", "/fhir/$export", "SystemExport", 403),
    ] {
        assert_eq!(bound.ask(&http, method, target, &kick_off).status, status, "{method} {target}");
        let mut fields = says("refused", "bound").to_vec();
        fields.extend([("operation", operation.into()), ("status", status.into())]);
        let refused = audit(&fields);
        let named = target.split('/').nth(3).filter(|_| target.contains("Group/"));
        assert_eq!(refused["id"].as_str(), named, "{refused}");
    }
    // 3. A user's own record: the client is named, the patient is not.
    let started = user.ask(&http, "GET", "/bulk-data/r4/$export", &kick_off);
    assert_eq!(started.status, 202, "{}", started.text());
    let job = http.path(started.header("content-location").unwrap()).rsplit('/').next().unwrap().replace('-', "");
    let complete = audit(&[("message", "a job is complete".into()), ("job", job.into())]);
    assert_eq!(complete["client"], "nightly");
    user.get(&http, "/fhir/Group/ten");

    // 4. What may be in no line.
    let log = server.log();
    for secret in ["p-secret", "p-other", "Secretname", "Secretgroup", "2023-01-01", "_type", "_since", "secret-file"] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{secret}: {lines:#?}");
    }
    let directory = scratch.path().to_str().unwrap();
    for line in events(&server, "outpour::audit") {
        assert!(!line.to_string().contains(directory), "{line}");
        assert!(line["timestamp"].is_string());
    }
}

/// PRIV-02: a job that fails is told of as well as one that is complete.
#[test]
fn a_failed_job_is_told() {
    let scratch = scratch();
    let full = Credential::token(&[]);
    let server = serve(scratch.path(), &client("nightly", "", &[&full]));
    let http = server.client();
    let lock = std::fs::File::create(scratch.path().join("store/.outpour/lock")).unwrap();
    lock.lock().unwrap();
    std::fs::write(scratch.path().join("store/more.ndjson"), "{\"resourceType\":\"Basic\",\"id\":\"b\"}\n").unwrap();
    let started =
        full.ask(&http, "GET", "/fhir/$export", &[("Accept", "application/fhir+json"), ("Prefer", "respond-async")]);
    assert_eq!(started.status, 202, "{}", started.text());
    // The store is gone before the job has its turn.
    std::fs::rename(scratch.path().join("store"), scratch.path().join("away")).unwrap();
    drop(lock);
    let over = event(&server, "outpour::audit", &[("message", "a job is over: it failed".into())]);
    assert_eq!(over["client"], "nightly");
}

/// PRIV-02, CORE-08: every answer is a line of the log, those too that no handler makes; a connection that is cut off is.
/// A long method is not repeated whole.
#[test]
fn every_answer_is_logged() {
    let scratch = scratch();
    let server = serve(scratch.path(), "");
    let access = |fields: &[(&str, Value)]| event(&server, "outpour::access", fields);
    assert_eq!(raw(&server, b"nonsense\r\n\r\n", false).unwrap().status, 400);
    assert_eq!(access(&[("status", 400.into())])["client"], "127.0.0.1");
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let head = |rest: &str| format!("GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n");
    assert_eq!(raw(&server, head(&many).as_bytes(), false).unwrap().status, 431);
    access(&[("status", 431.into())]);
    assert_eq!(raw(&server, b"GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n", false).unwrap().status, 421);
    access(&[("status", 421.into())]);
    assert_eq!(raw(&server, b"GET /fhir", false).unwrap().status, 408);
    access(&[("status", 408.into())]);
    // A client that does not read.
    let big: String =
        (0..40_000).map(|n| format!("{{\"entity\":{{\"reference\":\"Patient/{n}{}\"}}}},", "x".repeat(200))).collect();
    let group = format!(
        r#"{{"resourceType":"Group","id":"big","type":"person","actual":true,"member":[{}]}}"#,
        big.trim_end_matches(',')
    );
    let json = [("Content-Type", "application/fhir+json"), ("Prefer", "return=minimal")];
    assert_eq!(server.client().ask("PUT", "/fhir/Group/big", &json, group.as_bytes()).status, 201);
    let mut stalled = server.client().connect();
    stalled.write_all(b"GET /fhir/Group/big HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    access(&[("message", "cut off".into())]);
    drop(stalled);
    // A method as long as a head may be.
    let method = "M".repeat(60_000);
    let answer = raw(&server, format!("{method} /fhir HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes(), false).unwrap();
    assert_eq!(answer.status, 405);
    assert!(answer.body.len() < 1000, "{}", answer.body.len());
    access(&[("method", format!("{}…", &method[..24]).into())]);
    let answer = raw(
        &server,
        format!("{method} /v1/default/bulk-export/bulk-data/r4 HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes(),
        false,
    );
    assert!(answer.unwrap().body.len() < 1000);
    assert!(server.log().lines().all(|line| line.len() < 2000), "no line is longer than it must be");
    let mut rest = Vec::new();
    let mut last = server.client().connect();
    last.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    last.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200"));
}
