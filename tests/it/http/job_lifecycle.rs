//! The life of a job over HTTP: kick-off, polls, manifest, files, deletion; and the helpers of other tests for these
//! steps.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::client::{Answer, Client};
use super::server::Server;
use crate::run::{scratch, testdata};

/// Starts a service over the bundled store, with its data in `directory`.
pub(super) fn bundled(directory: &Path, words: &[&str]) -> Server {
    let store = testdata("stores/synthea-r4-100");
    let mut all = vec!["--store", store.to_str().unwrap(), "--index-dir", "index", "--data", "data"];
    all.extend(words);
    Server::start(directory, &all)
}

/// Asserts that a kick-off was accepted; the path of the job's status.
#[track_caller]
pub(crate) fn accepted(client: &Client, answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text());
    client.path(answer.header("content-location").expect("Content-Location")).to_string()
}

/// Polls a job until it has ended; the last response.
#[track_caller]
pub(crate) fn ended(client: &Client, status: &str) -> Answer {
    for _ in 0..3000 {
        let answer = client.get(status);
        match answer.status {
            202 => {
                let after: u64 = answer.header("retry-after").expect("CLIENT-02").parse().expect("whole seconds");
                assert!((1..=120).contains(&after), "STATUS-03: {after}");
                assert!(answer.header("content-location").expect("STATUS-19").ends_with(status));
                let progress = answer.header("x-progress").expect("STATUS-02");
                assert!(progress.len() < 100);
                let percent: u8 = progress.split('%').next().unwrap().parse().unwrap();
                assert!(percent < 100, "STATUS-02");
            }
            429 => {}
            _ => return answer,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the job did not end");
}

/// Type, path and count of every file in the lists of a manifest.
pub(crate) fn files(client: &Client, manifest: &Value) -> Vec<(String, String, u64)> {
    ["output", "deleted", "error"]
        .iter()
        .flat_map(|list| manifest[list].as_array().cloned().unwrap_or_default())
        .map(|item| {
            let path = client.path(item["url"].as_str().unwrap()).to_string();
            (item["type"].as_str().unwrap().to_string(), path, item["count"].as_u64().unwrap())
        })
        .collect()
}

/// DIALECT-02, KICK-03, KICK-08, KICK-09, STATUS-01, STATUS-02, STATUS-03, CLIENT-02, STATUS-06, STATUS-07, STATUS-11,
/// STATUS-12, STATUS-19, MANIFEST-02, MANIFEST-04, MANIFEST-06, MANIFEST-07, MANIFEST-08, MANIFEST-09, MANIFEST-14,
/// MANIFEST-15, FILE-01, FILE-02, FILE-03, FILE-15, FILE-19, DELETE-03, DELETE-04, CLIENT-09, CLIENT-12: one job from
/// kick-off to deletion.
#[test]
fn from_kick_off_to_deletion() {
    let scratch = scratch();
    std::fs::write(scratch.path().join("serve.toml"), "[limits]\npolls_burst = 1000\n").unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    let target = "Group/ten/$export?_type=Patient,Observation&_outputFormat=application/fhir+ndjson";
    let kicked = server.fhir(target);
    let status = accepted(&client, &kicked);
    assert_eq!(kicked.json()["resourceType"], "OperationOutcome");
    let first = client.get(&status);
    assert_eq!((first.status, first.header("retry-after")), (202, Some("1")), "CLIENT-12");
    let done = ended(&client, &status);
    assert_eq!((done.status, done.header("content-type")), (200, Some("application/json")));
    assert!(done.header("content-location").is_none(), "STATUS-19");
    let expires = httpdate::parse_http_date(done.header("expires").unwrap()).unwrap();
    assert!(expires > httpdate::parse_http_date(done.header("date").unwrap()).unwrap());
    let manifest = done.json();
    let known = ["transactionTime", "request", "requiresAccessToken", "output", "error", "extension"];
    assert!(manifest.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{manifest}");
    assert_eq!(manifest["request"], format!("http://{}/fhir/{target}", server.address), "MANIFEST-02");
    assert_eq!((&manifest["requiresAccessToken"], &manifest["error"]), (&false.into(), &Value::Array(vec![])));
    let listed = files(&client, &manifest);
    assert_eq!(listed.iter().map(|(of, ..)| of.as_str()).collect::<Vec<_>>(), ["Observation", "Patient"]);
    for (of, path, count) in &listed {
        let file = client.get(path);
        assert_eq!((file.status, file.header("content-type")), (200, Some("application/fhir+ndjson")));
        assert_eq!(file.header("content-length"), Some(&*file.body.len().to_string()), "FILE-15");
        assert!(file.header("content-disposition").unwrap().contains(&format!("{of}.00001.ndjson")), "FILE-19");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        let text = file.text();
        assert!(text.ends_with('\n') && !text.contains("\n\n"));
        assert_eq!(text.lines().count() as u64, *count, "MANIFEST-07");
        let of_type = |line: &str| serde_json::from_str::<Value>(line).unwrap()["resourceType"] == of.as_str();
        assert!(text.lines().all(of_type), "FILE-01");
        assert_eq!(client.ask("HEAD", path, &[], b"").header("content-length"), file.header("content-length"));
    }
    assert_eq!(client.get(&status).body, done.body, "STATUS-17");
    client.ask("DELETE", &status, &[], b"").outcome(202, "informational");
    client.get(&status).outcome(404, "not-found");
    client.ask("DELETE", &status, &[], b"").outcome(404, "not-found");
    client.get(&listed[0].1).outcome(404, "not-found");
    let log = server.log();
    assert!(log.contains("answered") && !log.contains("_type"), "the log has no query: {log}");
    assert_eq!(server.stop(), Some(0));
}
