//! Tests of the vendors' mounts against the vendors' documents, on one service with two tenants and clients of every
//! kind.

mod bound;
mod filtered_groups;
mod isolation;
mod mte;
mod netsmart;
mod retry;
mod ste;
mod tenants;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::client::{Answer, Client};
use super::credentials::{Credential, client};
use super::server::Server;
use crate::run::scratch;

pub(super) const IG: &str = "/fhir";
pub(super) const NETSMART: &str = "/uscore/v1/bulk-data";
pub(super) const STE: &str = "/bulk-data/r4";
/// Mount of the tenant in 1upHealth's examples.
pub(super) const MTE: &str = "/v1/ExampleCompany/bulk-export/bulk-data/r4";
/// The same mount for the tenant outside `[[tenants]]`.
pub(super) const MTE_DEFAULT: &str = "/v1/default/bulk-export/bulk-data/r4";

/// A service and the credentials of its clients. The first tenant has patients 123 and 124 in `example-group`, 124
/// inactive, and 999 in `other-group`; `nested` lists `example-group`; the second one 777 in a Group that is named like
/// the first's.
pub(super) struct World {
    pub scratch: tempfile::TempDir,
    pub server: Server,
    /// A client with access to everything of both tenants.
    pub full: Credential,
    /// The client of `full`, by client headers.
    pub by_headers: Credential,
    /// A user of the client of `full`: patient 123.
    pub user: Credential,
    /// Another user of the client of `full`: patient 999.
    pub other_user: Credential,
    /// A client for Patient and Observation of `example-group` of the first tenant.
    pub narrow: Credential,
    /// A client with access to everything of the second tenant only.
    pub stranger: Credential,
    /// Another client with access to everything of the first tenant.
    pub rival: Credential,
    /// A client for `example-group` and `own` of the first tenant, which it may write.
    pub writer: Credential,
}

fn row(of: &str, id: &str, place: &str, patient: &str) -> String {
    let subject = match of {
        "Patient" | "Organization" => String::new(),
        _ => format!(r#","subject":{{"reference":"Patient/{patient}"}}"#),
    };
    format!(r#"{{"resourceType":"{of}","id":"{id}","meta":{{"lastUpdated":"{place}"}}{subject}}}"#)
}

fn group(id: &str, members: &str) -> String {
    format!(
        r#"{{"resourceType":"Group","id":"{id}","meta":{{"lastUpdated":"2020-01-01T00:00:00Z"}},"active":true,"type":"person","actual":true,"name":"Diabetes Care Program Patients","quantity":150,"member":[{members}]}}"#
    )
}

const EARLY: &str = "2020-06-01T00:00:00Z";

fn first_store() -> Vec<String> {
    let members = r#"{"entity":{"reference":"Patient/123"}},{"entity":{"reference":"Patient/124"},"inactive":true,"period":{"end":"2001-01-01"}}"#;
    let mut lines = vec![
        group("example-group", members),
        group("other-group", r#"{"entity":{"reference":"Patient/999"}}"#),
        group("nested", r#"{"entity":{"reference":"Group/example-group"}}"#),
        row("Organization", "org", EARLY, ""),
        row("Observation", "midnight", "2021-01-01T00:00:00Z", "123"),
        row("Observation", "after-midnight", "2021-01-01T00:00:00.001Z", "123"),
        row("Observation", "new-year", "2024-01-01T00:00:00Z", "123"),
        row("Observation", "late", "2024-06-01T00:00:00Z", "123"),
        row("Observation", "of-124", "2024-06-01T00:00:00Z", "124"),
        row("Observation", "of-999", "2024-06-01T00:00:00Z", "999"),
        row("Condition", "c-123", EARLY, "123"),
        row("Encounter", "e-123", EARLY, "123"),
        row("Encounter", "e-999", EARLY, "999"),
    ];
    lines.extend(["123", "124", "999"].map(|id| row("Patient", id, EARLY, "")));
    lines
}

fn second_store() -> Vec<String> {
    vec![
        group("example-group", r#"{"entity":{"reference":"Patient/777"}}"#),
        row("Patient", "777", EARLY, ""),
        row("Encounter", "e-777", "2022-01-01T00:00:00Z", "777"),
        row("Encounter", "old-777", EARLY, "777"),
        row("Organization", "org-2", EARLY, ""),
    ]
}

impl World {
    /// Starts a service with the common configuration and `more`.
    pub(super) fn new(more: &str) -> World {
        let scratch = scratch();
        for (directory, lines) in [("store", first_store()), ("store2", second_store())] {
            std::fs::create_dir(scratch.path().join(directory)).unwrap();
            std::fs::write(scratch.path().join(directory).join("all.ndjson"), lines.join("\n") + "\n").unwrap();
        }
        let (full, by_headers) = (Credential::token(&[]), Credential::client_headers("acme-1"));
        let user = Credential::token(&["--patient", "123"]);
        let other_user = Credential::token(&["--patient", "999"]);
        let [narrow, stranger, rival, writer] = [(); 4].map(|()| Credential::token(&[]));
        let both = "tenants = ['default', 'ExampleCompany']\nwrites_groups = true\n";
        let clients = client("acme", &format!("{both}{}", by_headers.entry), &[&full, &user, &other_user])
            + &client(
                "narrow",
                "types = ['Patient', 'Observation']\nlevels = ['group']\ngroups = ['example-group']",
                &[&narrow],
            )
            + &client("stranger", "tenants = ['ExampleCompany']", &[&stranger])
            + &client("rival", "writes_groups = true", &[&rival])
            + &client(
                "writer",
                "levels = ['group']\ngroups = ['own', 'example-group']\nwrites_groups = true",
                &[&writer],
            );
        let toml = format!(
            "[limits]\npolls_burst = 100000\n{more}\n[[tenants]]\nname = 'ExampleCompany'\nstore = {{ path = 'store2' }}\n\
             data = {{ path = 'data2', sync = false }}\n{clients}"
        );
        std::fs::write(scratch.path().join("serve.toml"), toml).unwrap();
        let server = start(scratch.path());
        // The stores are indexed first: tests hold the lock of the index, under which no new Group would be found.
        let ready = |_| {
            std::thread::sleep(Duration::from_millis(5));
            server.client().get("/health/ready").status == 200
        };
        assert!((0..6000).any(ready), "{}", server.log());
        World { scratch, server, full, by_headers, user, other_user, narrow, stranger, rival, writer }
    }

    pub(super) fn client(&self) -> Client {
        self.server.client()
    }

    /// The absolute URL of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }
}

/// Starts the service of a world on its directory.
pub(super) fn start(directory: &Path) -> Server {
    Server::start(directory, &["--store", "store", "--data", "data", "--config", "serve.toml"])
}

/// Kicks a job off; the path of its status.
#[track_caller]
pub(super) fn kick_off(client: &Client, who: &Credential, target: &str) -> String {
    let answer = who.ask(client, "GET", target, &[("Prefer", "respond-async")]);
    assert_eq!(answer.status, 202, "{target}: {}", answer.text());
    client.path(answer.header("content-location").expect("Content-Location")).to_string()
}

/// Polls a job until it has ended; the last response.
#[track_caller]
pub(super) fn ended(client: &Client, who: &Credential, status: &str) -> Answer {
    for _ in 0..3000 {
        let answer = who.get(client, status);
        if answer.status != 202 {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the job did not end");
}

/// `Type/id` of every resource in the files of a manifest or list of files, sorted. Asserts that each file has one
/// type.
#[track_caller]
pub(super) fn resources(client: &Client, who: &Credential, manifest: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for item in manifest["output"].as_array().unwrap() {
        let url = item.get("url").or(item.get("file")).unwrap().as_str().unwrap();
        let file = who.get(client, client.path(url));
        assert_eq!(file.status, 200, "{}", file.text());
        for line in file.text().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["resourceType"], item["type"], "one type a file");
            found.push(format!("{}/{}", item["type"].as_str().unwrap(), line["id"].as_str().unwrap()));
        }
    }
    found.sort();
    found
}

/// `Type/id` of every exported resource, from kick-off to files.
#[track_caller]
pub(super) fn exported(client: &Client, who: &Credential, target: &str) -> Vec<String> {
    let status = kick_off(client, who, target);
    let done = ended(client, who, &status);
    assert_eq!(done.status, 200, "{target}: {}", done.text());
    resources(client, who, &done.json())
}

/// Names of the fields of an object, in order.
pub(super) fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}
