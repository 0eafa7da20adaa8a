//! Paths with slashes that do not count, repeated or at the end: answered as the path without them, with the same
//! rights, and never by a redirect.

use serde_json::Value;

use super::job_lifecycle::{accepted, bundled, ended, files};
use super::vendors::{IG, MTE, MTE_DEFAULT, NETSMART, STE, World};
use crate::run::scratch;

/// A path with slashes that do not count: at the start, between, at the end, and everywhere.
fn variants(path: &str) -> Vec<String> {
    let (path, query) = path.split_once('?').map_or((path, String::new()), |(path, query)| (path, format!("?{query}")));
    let doubled = path.replace('/', "//");
    [format!("{path}/"), format!("/{path}"), doubled.clone(), format!("{doubled}///")].map(|path| path + &query).into()
}

/// CORE-07, STATUS-19: every route answers with slashes that do not count as it does without them.
#[test]
fn slashes_that_do_not_count() {
    let scratch = scratch();
    std::fs::write(
        scratch.path().join("serve.toml"),
        "[limits]\npolls_burst = 1000\n[jobs]\nactive_per_client = 100\n",
    )
    .unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
    let ask = |method: &str, path: &str| client.ask(method, path, &headers, b"");
    let mut jobs = Vec::new();
    for base in [IG, NETSMART, STE, MTE_DEFAULT] {
        for path in variants(&format!("{base}/Group/ten/$export?_type=Patient")) {
            let kicked = ask("GET", &path);
            assert!(kicked.header("location").is_none(), "{path}");
            let status = accepted(&client, &kicked);
            assert!(status.starts_with(&format!("{base}/")), "{status}");
            jobs.push(status);
        }
    }
    // The probe tells the number of jobs that run.
    jobs.iter().for_each(|job| drop(ended(&client, job)));
    let manifest = ended(&client, &jobs[0]).json();
    assert_eq!(manifest["request"], format!("http://{}{}", server.address, "/fhir/Group/ten/$export/?_type=Patient"));
    let (_, file, _) = files(&client, &manifest).remove(0);
    let group = format!("{IG}/Group/ten");
    let same = [
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/fhir/metadata"),
        ("HEAD", "/fhir/metadata"),
        ("GET", "/fhir/OperationDefinition/group-export"),
        ("GET", "/uscore/v1/bulk-data/metadata"),
        ("GET", "/bulk-data/r4/metadata"),
        ("GET", "/v1/default/bulk-export/bulk-data/r4/metadata"),
        ("GET", "/v1/nobody/bulk-export/bulk-data/r4/metadata"),
        ("GET", "/nowhere"),
        ("GET", "/fhir/Group?_id=ten"),
        ("POST", "/fhir/bulk-status/x"),
        ("HEAD", "/fhir/$export"),
        ("DELETE", "/fhir/metadata"),
        ("POST", "/v1/default/bulk-export/bulk-data/r4/Group"),
        ("DELETE", "/v1/nobody/bulk-export/bulk-data/r4/$export/job/x"),
        ("GET", &group),
        ("HEAD", &group),
        ("GET", &jobs[0]),
        ("GET", &file),
        ("HEAD", &file),
    ];
    for (method, path) in same {
        let plain = ask(method, path);
        for path in variants(path) {
            let found = ask(method, &path);
            assert_eq!(found.status, plain.status, "{method} {path}: {}", found.text());
            assert!(found.header("location").is_none(), "{method} {path}");
            assert_eq!(found.header("allow"), plain.header("allow"), "{method} {path}");
            assert_eq!(found.header("content-length"), plain.header("content-length"), "{method} {path}");
            assert!(path.contains("health") || found.body == plain.body, "{method} {path}: {}", found.text());
        }
    }
    let part = client.ask("GET", &file.replace('/', "//"), &[("Range", "bytes=0-9")], b"");
    assert_eq!((part.status, part.body.len()), (206, 10));
    // A Group is written and deleted, and a job deleted, under such paths too.
    let json = [("Content-Type", "application/fhir+json")];
    let made = br#"{"resourceType":"Group","id":"made","type":"person","actual":true}"#;
    assert_eq!(client.ask("PUT", "//fhir/Group//made/", &json, made).status, 201);
    assert_eq!(client.get("/fhir/Group/made").status, 200);
    assert_eq!(client.ask("DELETE", "/fhir//Group/made//", &[], b"").status, 204);
    assert_eq!(client.ask("POST", "/fhir/Group/", &json, made).status, 201);
    client.ask("DELETE", &format!("{}/", jobs[0]), &[], b"").outcome(202, "informational");
    client.get(&jobs[0]).outcome(404, "not-found");
    client.get(&format!("/{file}/")).outcome(404, "not-found");
}

/// CORE-07: an encoded slash is no slash, and a name is never taken for the one beside it.
#[test]
fn encoded_slashes_are_no_slashes() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &[]);
    server.wait_until_ready();
    let client = server.client();
    let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
    for path in [
        "/fhir%2Fmetadata",
        "/fhir/%2Fmetadata",
        "/fhir/metadata%2F",
        "/fhir/metadata%2f%2f",
        "/fhir/Group/ten%2F$export",
        "/fhir/Group/%2Ften",
        "/fhir/Group/ten%2f",
        "/fhir/Group/%2F/$export",
        "%2Ffhir/metadata",
        "/fhir/../fhir/metadata",
        "/fhir/./metadata",
        "/fhir/bulk-files/%2F",
        "/fhir/bulk-status/%2F/",
        "/health%2Flive",
        "/v1/default%2Fx/bulk-export/bulk-data/r4/metadata",
    ] {
        let answer = client.ask("GET", path, &headers, b"");
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(answer.header("location").is_none(), "{path}");
    }
    // An encoded slash takes no request out of the mount that refuses POST and DELETE.
    client.ask("DELETE", &format!("{MTE_DEFAULT}/%2F/x%2F"), &[], b"").outcome(403, "forbidden");
}

/// ONEUP-M01, ONEUP-M04, STATUS-15, FILE-06, FILE-07, KICK-16: slashes that do not count open nothing: other clients,
/// tenants and types are refused under such paths as under the plain ones, and so are methods.
#[test]
fn slashes_open_nothing() {
    let world = World::new("");
    let client = world.client();
    let (full, rival, narrow) = (&world.full, &world.rival, &world.narrow);
    for base in [IG, NETSMART, STE, MTE_DEFAULT, MTE] {
        let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
        let target = format!("{base}//Group/example-group/$export/?_type=Patient");
        let status = accepted(&client, &full.ask(&client, "GET", &target, &headers));
        // The first poll on the IG's mount is always answered 202.
        full.get(&client, &status);
        let list: Value = super::vendors::ended(&client, full, &status).json();
        let item = &list["output"][0];
        let url = item.get("url").or(item.get("file")).unwrap().as_str().unwrap();
        for path in [status.as_str(), client.path(url)] {
            for variant in variants(path) {
                assert_eq!(full.get(&client, &variant).status, 200, "{variant}");
                client.get(&variant).outcome(401, "login");
                for who in [rival, narrow, &world.stranger] {
                    let plain = who.get(&client, path);
                    assert!(matches!(plain.status, 403 | 404), "{path}: {}", plain.status);
                    let found = who.get(&client, &variant);
                    assert_eq!((found.status, found.body), (plain.status, plain.body), "{variant}");
                    assert_eq!(who.ask(&client, "HEAD", &variant, &[]).status, plain.status, "{variant}");
                    let [deleted, plainly] = [&variant, path].map(|path| who.ask(&client, "DELETE", path, &[]).status);
                    assert_eq!(deleted, plainly, "DELETE {variant}");
                    assert!(matches!(deleted, 403..=405), "DELETE {variant}: {deleted}");
                }
            }
        }
        for variant in variants(&format!("{base}/Group/other-group")) {
            narrow.get(&client, &variant).outcome(404, "not-found");
        }
    }
    for method in ["POST", "DELETE"] {
        for path in variants(&format!("{MTE}/Group/example-group")) {
            full.ask(&client, method, &path, &[]).outcome(403, "forbidden");
        }
    }
    for path in variants(&format!("{MTE}/$export/job")) {
        full.ask(&client, "PUT", &path, &[]).outcome(403, "forbidden");
    }
}
