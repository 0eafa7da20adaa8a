//! Who joined a Group and who left it since the export that an increment builds on (GROUP-11, GROUP-13), over HTTP.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::client::Client;
use super::credentials::{Credential, client};
use super::server::Server;
use crate::run::scratch;

/// Patients with an Observation each, but for `n`.
const STORE: &str = r#"{"resourceType":"Patient","id":"a","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Patient","id":"b","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Patient","id":"c","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Patient","id":"n","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Observation","id":"o-a","meta":{"lastUpdated":"2024-01-01T00:00:00Z"},"subject":{"reference":"Patient/a"}}
{"resourceType":"Observation","id":"o-b","meta":{"lastUpdated":"2024-01-01T00:00:00Z"},"subject":{"reference":"Patient/b"}}
{"resourceType":"Observation","id":"o-c","meta":{"lastUpdated":"2024-01-01T00:00:00Z"},"subject":{"reference":"Patient/c"}}
"#;

fn serve(directory: &Path, policy: &str, clients: &str) -> Server {
    if !directory.join("store").is_dir() {
        std::fs::create_dir(directory.join("store")).unwrap();
        std::fs::write(directory.join("store/rows.ndjson"), STORE).unwrap();
    }
    let mount = format!("[ig]\nfirst_poll_in_progress = false\n{policy}\n");
    std::fs::write(directory.join("serve.toml"), format!("[limits]\npolls_burst = 10000\n{mount}{clients}")).unwrap();
    let words = ["--store", "store", "--index-dir", "index", "--data", "data", "--config", "serve.toml"];
    let server = Server::start(directory, &words);
    server.wait_until_ready();
    server
}

/// Writes the Group `g` with these entries: an id, and the start of its period.
fn put(http: &Client, who: &Credential, members: &[(&str, &str)]) {
    let entry = |(id, start): &(&str, &str)| {
        let period = if start.is_empty() { String::new() } else { format!(r#","period":{{"start":"{start}"}}"#) };
        format!(r#"{{"entity":{{"reference":"Patient/{id}"}}{period}}}"#)
    };
    let members = members.iter().map(entry).collect::<Vec<_>>().join(",");
    let group = format!(r#"{{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{members}]}}"#);
    let mut headers = vec![("Content-Type", "application/fhir+json")];
    headers.extend(who.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let answer = http.ask("PUT", "/fhir/Group/g", &headers, group.as_bytes());
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
}

/// A finished export, as a client sees it.
struct Seen {
    /// Path of its status.
    status: String,
    manifest: Value,
    /// Type and id of each exported resource, sorted.
    rows: Vec<String>,
    messages: Vec<String>,
}

impl Seen {
    /// The facts of the root extension.
    fn facts(&self) -> &Value {
        &self.manifest["extension"]["urn:outpour:export:1"]
    }

    fn time(&self) -> &str {
        self.manifest["transactionTime"].as_str().unwrap()
    }

    #[track_caller]
    fn says(&self, needle: &str) {
        assert!(self.messages.iter().any(|text| text.contains(needle)), "{needle}: {:#?}", self.messages);
    }
}

#[track_caller]
fn export(http: &Client, who: &Credential, query: &str) -> Seen {
    let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
    let kicked = who.ask(http, "GET", &format!("/fhir/Group/g/$export?{query}"), &headers);
    assert_eq!(kicked.status, 202, "{}", kicked.text());
    let status = http.path(kicked.header("content-location").unwrap()).to_string();
    let manifest = who.manifest(http, &status);
    let read = |list: &str| -> Vec<Value> {
        let items = manifest[list].as_array().cloned().unwrap_or_default();
        let texts = items.iter().map(|item| who.get(http, http.path(item["url"].as_str().unwrap())).text());
        texts.flat_map(|text| text.lines().map(|l| serde_json::from_str(l).unwrap()).collect::<Vec<_>>()).collect()
    };
    let word = |row: &Value, key: &str| row[key].as_str().unwrap().to_string();
    let mut rows: Vec<String> =
        read("output").iter().map(|row| format!("{}/{}", word(row, "resourceType"), word(row, "id"))).collect();
    rows.sort();
    let messages = read("error").iter().map(|row| word(&row["issue"][0], "diagnostics")).collect();
    Seen { status, manifest, rows, messages }
}

/// GROUP-11, GROUP-13, SINCE-07: the export of the same client whose T is `_since` tells who joined and left, after its deletion and a
/// restart, too; that of another client never does. Who left is named in a file of the job, for its client alone.
#[test]
fn who_joined_and_left_is_known_by_the_export_before() {
    let scratch = scratch();
    let [a, b] = [(); 2].map(|()| Credential::token(&[]));
    let clients = client("a", "writes_groups = true", &[&a]) + &client("b", "", &[&b]);
    let server = serve(scratch.path(), "new_members = 'full'", &clients);
    let http = server.client();
    put(&http, &a, &[("a", ""), ("b", "")]);
    let first = export(&http, &a, "");
    assert_eq!(first.rows, ["Observation/o-a", "Observation/o-b", "Patient/a", "Patient/b"]);
    put(&http, &a, &[("b", ""), ("c", "")]);
    let since = format!("_since={}", first.time());
    let check = |http: &Client, increment: &Seen| {
        assert_eq!(increment.rows, ["Observation/o-c", "Patient/c"]);
        let facts = increment.facts();
        assert_eq!(facts["newMembers"], serde_json::json!({"policy": "full", "joined": 1, "left": 1}));
        assert_eq!(facts["baseline"]["transactionTime"], first.manifest["transactionTime"]);
        increment.says("1 patient joined since");
        increment.says("1 patient of 2 left since");
        let departed = &facts["departed"];
        assert_eq!((&departed["members"], &departed["resources"]), (&1.into(), &0.into()));
        let path = http.path(departed["url"].as_str().unwrap()).to_string();
        let list = a.get(http, &path);
        assert_eq!((list.status, list.header("content-type")), (200, Some("application/x-ndjson")));
        assert_eq!(list.text(), "{\"member\":\"Patient/a\"}\n");
        assert!(list.header("content-disposition").unwrap().contains("departed.json-lines"));
        assert_eq!(departed["bytes"].as_u64(), Some(list.body.len() as u64));
        assert_eq!(b.get(http, &path).status, 404, "it is of another client");
        path
    };
    let increment = export(&http, &a, &since);
    let path = check(&http, &increment);
    let others = export(&http, &b, &since);
    assert!(
        others.rows.is_empty() && others.facts().get("departed").is_none() && others.facts().get("baseline").is_none()
    );
    others.says("2 members of 2 joined the Group is not known");
    let narrower = export(&http, &a, &format!("{since}&_type=Observation"));
    assert_eq!(narrower.rows, ["Observation/o-c"]);
    // Of the jobs nothing is left but the keys of the patients.
    for job in [&first.status, &increment.status] {
        assert_eq!(a.ask(&http, "DELETE", job, &[]).status, 202);
    }
    assert_eq!(a.get(&http, &path).status, 404);
    let kept: Vec<_> = scratch.path().join("data/files/baselines").read_dir().unwrap().map(Result::unwrap).collect();
    assert!(kept.iter().all(|file| file.metadata().unwrap().permissions().mode() & 0o777 == 0o600));
    assert!(kept.iter().all(|file| {
        let bytes = std::fs::read(file.path()).unwrap();
        !bytes.windows(9).any(|window| window == b"Patient/a")
    }));
    server.kill();
    let server = serve(scratch.path(), "new_members = 'full'", &clients);
    let http = server.client();
    let again = export(&http, &a, &since);
    let path = check(&http, &again);
    // The list of who left is there after a restart, and goes with its job.
    server.kill();
    let server = serve(scratch.path(), "new_members = 'full'", &clients);
    let http = server.client();
    assert_eq!(a.get(&http, &path).text(), "{\"member\":\"Patient/a\"}\n");
    // An increment is a baseline in turn; one on which nobody left has an empty list.
    let next = export(&http, &a, &format!("_since={}", again.time()));
    assert!(next.rows.is_empty(), "{:?}", next.rows);
    let empty = next.facts()["departed"]["url"].as_str().unwrap().to_string();
    let empty = a.get(&http, http.path(&empty));
    assert_eq!((empty.status, empty.body.len()), (200, 0), "{}", empty.text());
    assert_eq!(server.stop(), Some(0));
}

/// GROUP-11, GROUP-13: without such an export `member.period.start` tells who joined; the policies; a client of some types is told of
/// nobody of whom it was sent nothing.
#[test]
fn who_joined_is_known_by_the_entries_of_the_group() {
    let scratch = scratch();
    let [a, narrow] = [(); 2].map(|()| Credential::token(&[]));
    let clients = client("a", "writes_groups = true", &[&a]) + &client("narrow", "types = ['Observation']", &[&narrow]);
    let server = serve(scratch.path(), "new_members = 'full'", &clients);
    let http = server.client();
    put(&http, &a, &[("a", "2024-06-01"), ("b", "2025-06-01"), ("c", "")]);
    let since = "_since=2025-01-01T00:00:00Z";
    let found = export(&http, &a, since);
    assert_eq!(found.rows, ["Observation/o-b", "Patient/b"]);
    assert_eq!(found.facts()["newMembers"], serde_json::json!({"policy": "full", "joined": 1, "unknown": 1}));
    found.says("1 patient joined the Group after _since, by member.period.start; all their records are exported");
    found.says("When 1 member of 3 joined the Group is not known");
    put(&http, &a, &[("a", ""), ("b", ""), ("n", "")]);
    let first = export(&http, &narrow, "");
    assert_eq!(first.rows, ["Observation/o-a", "Observation/o-b"]);
    put(&http, &a, &[("b", "")]);
    let increment = export(&http, &narrow, &format!("_since={}", first.time()));
    let departed = http.path(increment.facts()["departed"]["url"].as_str().unwrap()).to_string();
    let list = narrow.get(&http, &departed);
    assert_eq!(list.text(), "{\"member\":\"Patient/a\"}\n", "of Patient/n it was sent nothing");
    // A client that has lost the type has lost the list.
    server.kill();
    let fewer = client("a", "writes_groups = true", &[&a]) + &client("narrow", "types = ['Condition']", &[&narrow]);
    let server = serve(scratch.path(), "new_members = 'report'", &fewer);
    let http = server.client();
    assert_eq!(narrow.get(&http, &departed).status, 403);
    put(&http, &a, &[("a", "2024-06-01"), ("b", "2025-06-01"), ("c", "")]);
    let counted = export(&http, &a, since);
    assert!(counted.rows.is_empty());
    counted.says("what was dated before _since is not exported for that");
    server.kill();
    let server = serve(scratch.path(), "new_members = 'ignore'", &clients);
    let http = server.client();
    let ignored = export(&http, &a, since);
    assert!(ignored.rows.is_empty() && ignored.facts().get("newMembers").is_none());
    assert!(!ignored.messages.iter().any(|text| text.contains("joined")), "{:?}", ignored.messages);
    let statement = http.get("/fhir/metadata").text();
    assert!(statement.contains("`ignore`: of a patient who joined the Group"), "{statement}");
    assert_eq!(server.stop(), Some(0));
}
