//! The form of the log: with `log.format = "json"` standard error holds JSON from its first byte to its last.

use serde_json::Value;

use super::job_lifecycle::bundled;
use super::server::Server;
use crate::run::scratch;

/// Asserts that each line is a JSON object of the log; the messages.
#[track_caller]
fn messages(log: &str) -> Vec<String> {
    assert!(!log.is_empty());
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?} in {log}"));
        for name in ["timestamp", "level", "target", "message"] {
            assert!(event[name].is_string(), "{name}: {line}");
        }
        event["message"].as_str().unwrap().to_string()
    };
    log.lines().map(event).collect()
}

/// CORE-08, AUTH-27: the lines of the start, of requests and of the end are events of the log.
#[test]
fn a_log_is_json_from_the_first_byte() {
    let scratch = scratch();
    std::fs::write(scratch.path().join("serve.toml"), "[log]\nformat = 'json'\n").unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    assert_eq!(server.client().get("/fhir/metadata").status, 200);
    server.client().get("/fhir/nothing").outcome(404, "not-found");
    let said = messages(&server.log());
    assert!(
        said.iter().any(|line| line.starts_with(&format!("outpour serves on http://{}", server.address))),
        "{said:?}"
    );
    // Lines after the first are read by another thread.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let words = ["/fhir/metadata says what", "/uscore/v1/bulk-data/metadata", "answered"];
    while !words.iter().all(|word| messages(&server.log()).iter().any(|line| line.contains(word))) {
        assert!(std::time::Instant::now() < end, "{}", server.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // What keeps a service from starting is an event, too.
    let listen = server.address.to_string();
    let start = |toml: &str, words: &[&str]| {
        std::fs::write(scratch.path().join("other.toml"), toml).unwrap();
        std::fs::create_dir_all(scratch.path().join("empty")).unwrap();
        let words = [&["--config", "other.toml"], words].concat();
        Server::try_start(scratch.path(), &words).err().expect("it does not start")
    };
    let json = "[log]\nformat = 'json'\n";
    let (store, data) = (["--store", "empty"], ["--data", "other"]);
    for (toml, words, named) in [
        (format!("public_url = 'here'\n{json}"), [&store[..], &data].concat(), "public_url"),
        (format!("{json}level = 'error'\n[jobs]\nactive = 0\n"), [&store[..], &data].concat(), "active"),
        (format!("{json}level = 'loud'\n"), [&store[..], &data].concat(), "level"),
        (json.to_string(), data.to_vec(), "store"),
        (json.to_string(), [&["--store", "nowhere"][..], &data].concat(), "nowhere"),
        (json.to_string(), [&store[..], &data, &["--listen", &listen]].concat(), "cannot listen"),
        (json.to_string(), [&store[..], &["--data", "data"]].concat(), "data"),
    ] {
        let said = messages(&start(&toml, &words));
        assert!(said.iter().any(|line| line.contains(named)), "{named}: {said:?}");
    }
    // For people it is plain text, and so is what is said before the form is known.
    let text = start("public_url = 'here'\n", &[&store[..], &data].concat());
    assert!(text.starts_with("outpour: error: ") && text.contains("public_url"), "{text}");
    let unread = start("[log\nformat = 'json'\n", &[&store[..], &data].concat());
    assert!(unread.starts_with("outpour: error: ") && unread.contains("--config"), "{unread}");
}
