//! Isolation of clients, users and tenants: the response to every principal at every URL of every other, on every
//! mount.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{IG, MTE, MTE_DEFAULT, NETSMART, STE, World, ended, exported, kick_off};
use crate::http::client::Client;
use crate::http::credentials::Credential;

const HEADERS: [(&str, &str); 2] = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];

/// A finished job: its owner and mount, and the paths of its status and files.
struct OwnedJob {
    owner: &'static str,
    mount: &'static str,
    paths: Vec<String>,
    /// Content of all its files.
    content: String,
    ledger: Value,
}

fn make(client: &Client, owner: &'static str, who: &Credential, mount: &'static str, target: &str) -> OwnedJob {
    let requested = who.ask(client, "GET", &format!("{mount}{target}"), &HEADERS);
    assert_eq!(requested.status, 202, "{owner} {mount}: {}", requested.text());
    let status = client.path(requested.header("content-location").unwrap()).to_string();
    // The first poll on the IG's mount is always answered 202.
    who.get(client, &status);
    let list: Value = ended(client, who, &status).json();
    let mut paths = vec![status];
    let mut content = String::new();
    let items = ["output", "error"].iter().flat_map(|name| list[name].as_array().cloned().unwrap_or_default());
    for item in items.collect::<Vec<Value>>() {
        let url = item.get("url").or(item.get("file")).unwrap().as_str().unwrap();
        paths.push(client.path(url).to_string());
        content += &who.get(client, client.path(url)).text();
    }
    assert!(paths.len() > 1, "{owner} {mount}");
    let ledger = list["extension"]["urn:outpour:export:1"]["ledger"].clone();
    OwnedJob { owner, mount, paths, content, ledger }
}

/// DIALECT-01, DIALECT-05, STATUS-15, FILE-06, ONEUP-M01, ONEUP-S01, ONEUP-S17, ONEUP-M18: a job and its files are
/// served to their client on their mount only. Others get 404 within a tenant, with a token of another tenant 404 where the
/// path names the tenant and 403 elsewhere, 401 without credentials.
#[test]
fn jobs_and_files_are_seen_by_their_owner_only() {
    let world = World::new("");
    let client = world.client();
    let group = "/Group/example-group/$export?_type=Patient";
    let mut made = Vec::new();
    for mount in [IG, NETSMART, STE, MTE_DEFAULT] {
        made.push(make(&client, "acme", &world.full, mount, group));
        made.push(make(&client, "rival", &world.rival, mount, group));
    }
    made.push(make(&client, "user", &world.user, STE, "/$export"));
    made.push(make(&client, "other user", &world.other_user, STE, "/$export"));
    // A Group of a bound client lists a Group and a patient that are hidden from it; other clients export it, too.
    let own = r#"{"resourceType":"Group","id":"own","type":"person","actual":true,"member":[{"entity":{"reference":"Group/other-group"}},
        {"entity":{"reference":"Patient/999"}},{"entity":{"reference":"Group/example-group"}}]}"#;
    let mut headers = vec![("Content-Type", "application/fhir+json")];
    headers.extend(world.writer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    assert_eq!(client.ask("PUT", "/fhir/Group/own", &headers, own.as_bytes()).status, 201);
    for mount in [IG, NETSMART, STE, MTE_DEFAULT] {
        for (owner, who) in [("writer", &world.writer), ("acme", &world.full)] {
            made.push(make(&client, owner, who, mount, "/Group/own/$export"));
        }
        made.push(make(&client, "acme", &world.full, mount, "/Group/nested/$export?_type=Patient"));
        made.push(make(&client, "narrow", &world.narrow, mount, "/Group/example-group/$export"));
    }
    for one in &made {
        let is_bound = ["writer", "narrow", "user", "other user"].contains(&one.owner);
        // Patient 999 is in `other-group` only: all but its own user may at most read of it as an unknown member.
        let of_999 = one.content.lines().filter(|line| line.contains("999") && !line.contains("OperationOutcome"));
        assert_eq!(of_999.count() > 0, one.owner == "other user", "{} {}: {}", one.owner, one.mount, one.content);
        let expected = if is_bound { 3 } else { 11 };
        assert_eq!(one.ledger.as_object().map(|ledger| ledger.len()), Some(expected), "{} {}", one.owner, one.mount);
    }
    made.push(make(&client, "acme", &world.full, MTE, group));
    made.push(make(&client, "stranger", &world.stranger, MTE, group));
    let principals: [(&str, &Credential); 8] = [
        ("acme", &world.full),
        ("acme", &world.by_headers),
        ("user", &world.user),
        ("other user", &world.other_user),
        ("narrow", &world.narrow),
        ("stranger", &world.stranger),
        ("rival", &world.rival),
        ("writer", &world.writer),
    ];
    let both = ["acme", "user", "other user"];
    let mut answers: BTreeMap<(bool, u16), usize> = BTreeMap::new();
    for one in &made {
        for path in &one.paths {
            client.get(path).outcome(401, "login");
            for (name, who) in principals {
                let answer = who.get(&client, path);
                let second = one.mount == MTE;
                let in_tenant = both.contains(&name) || (name == "stranger") == second;
                let by_headers = std::ptr::eq(who, &raw const world.by_headers);
                let expected = match () {
                    // The kind of credential is checked first.
                    () if by_headers && one.mount != STE => 401,
                    // ONEUP-M01: where the path names a tenant, it is unknown to the clients of others.
                    () if !in_tenant && [MTE, MTE_DEFAULT].contains(&one.mount) => 404,
                    () if !in_tenant => 403,
                    () if name == one.owner => 200,
                    () => 404,
                };
                assert_eq!(answer.status, expected, "{name} at {path} of {}: {}", one.owner, answer.text());
                *answers.entry((name == one.owner, answer.status)).or_default() += 1;
                if expected != 200 {
                    assert!(!answer.text().contains("Patient/1"), "{}", answer.text());
                }
            }
            // The same id on every other mount is unknown, to its owner too.
            let owner = principals.iter().find(|(name, _)| *name == one.owner).unwrap().1;
            for (other, forms) in [
                (IG, ["/bulk-status/", "/bulk-files/"]),
                (NETSMART, ["/$export-poll-status/", "/Binary/"]),
                (STE, ["/$export/job/", "/$export/file/"]),
                (MTE_DEFAULT, ["/$export/job/", "/$export/file/"]),
            ] {
                if other == one.mount {
                    continue;
                }
                let name = path.split('/').rfind(|part| !part.starts_with('$')).unwrap();
                let name = path.split("_id=").nth(1).unwrap_or(name);
                let (plain, dashed) = (name.replace('-', ""), dashes(name));
                for form in forms {
                    for name in [name, &plain, &dashed] {
                        let tail = if form == "/Binary/" { "/$binary-access-read" } else { "" };
                        let answer = owner.get(&client, &format!("{other}{form}{name}{tail}"));
                        let denied = one.owner == "stranger" && other != MTE_DEFAULT;
                        assert_eq!(answer.status, if denied { 403 } else { 404 }, "{other}{form}{name}{tail}");
                    }
                }
            }
        }
    }
    assert!(answers[&(true, 200)] > 20 && answers[&(false, 404)] > 50 && answers[&(false, 403)] > 20, "{answers:?}");
}

fn dashes(name: &str) -> String {
    match name.len() == 32 && name.is_ascii() {
        true => [&name[..8], &name[8..12], &name[12..16], &name[16..20], &name[20..]].join("-"),
        false => name.to_string(),
    }
}

/// KICK-16, NETSMART-E04, GROUP-08: responses about hidden Groups equal those about unknown Groups, for every request
/// on every mount, in words and headers; ONEUP-M01: a Group of the same id in another tenant is another Group.
#[test]
fn hidden_groups_look_unknown() {
    let world = World::new("");
    let client = world.client();
    for mount in [IG, NETSMART, STE, MTE_DEFAULT] {
        for tail in ["", "/$export", "/$export?_type=Patient&_since=2020-01-01T00:00:00Z"] {
            let reported = |group: &str| {
                let answer = world.narrow.ask(&client, "GET", &format!("{mount}/Group/{group}{tail}"), &HEADERS);
                assert_eq!(answer.status, 404, "{mount} {group}{tail}: {}", answer.text());
                (
                    answer.text(),
                    answer.header("content-type").map(String::from),
                    answer.header("cache-control").map(String::from),
                )
            };
            assert_eq!(reported("other-group"), reported("not-there"));
        }
    }
    for who in [&world.full, &world.stranger] {
        assert_eq!(
            exported(&client, who, &format!("{MTE}/Group/example-group/$export?_type=Patient")),
            ["Patient/777"]
        );
    }
    world.full.ask(&client, "GET", &format!("{MTE}/Group/other-group/$export"), &HEADERS).outcome(404, "not-found");
}

/// KICK-16: a kick-off for a hidden Group does the same work as one for an unknown Group, so that times do not reveal
/// it. Asserted by the waits: while bytes are not indexed yet, both wait for the index.
#[test]
fn hidden_groups_take_as_long() {
    let world = World::new("[jobs]\ngroup_wait_milliseconds = 400\n");
    let client = world.client();
    exported(&client, &world.full, &format!("{STE}/$export?_type=Patient"));
    let held = std::fs::File::create(world.scratch.path().join("store/.outpour/lock")).unwrap();
    held.lock().unwrap();
    std::fs::write(world.scratch.path().join("store/new.ndjson"), "{\"resourceType\":\"Basic\",\"id\":\"b\"}\n")
        .unwrap();
    for group in ["other-group", "not-there"] {
        let begun = std::time::Instant::now();
        let answer = world.narrow.ask(&client, "GET", &format!("{NETSMART}/Group/{group}/$export"), &HEADERS);
        assert_eq!(answer.status, 503, "{group}: {}", answer.text());
        assert!(begun.elapsed().as_millis() >= 400, "{group}");
    }
}

/// DIALECT-05: exports of a Group by one client have the same resources on every mount under the same policies, and on
/// the command line.
#[test]
fn every_mount_gives_the_same() {
    let listed = "[ig]\nmembers = 'listed'\n[netsmart]\nmembers = 'listed'\n";
    let world = World::new(listed);
    let client = world.client();
    for query in ["", "?_type=Patient,Observation", "?_since=2021-01-01T00:00:00Z"] {
        let target = format!("/Group/example-group/$export{query}");
        let expected = exported(&client, &world.full, &format!("{STE}{target}"));
        for mount in [NETSMART, MTE_DEFAULT] {
            assert_eq!(exported(&client, &world.full, &format!("{mount}{target}")), expected, "{mount} {query}");
        }
        let status = {
            let requested = world.full.ask(&client, "GET", &format!("{IG}{target}"), &HEADERS);
            client.path(requested.header("content-location").unwrap()).to_string()
        };
        world.full.get(&client, &status);
        let list = ended(&client, &world.full, &status).json();
        assert_eq!(super::resources(&client, &world.full, &list), expected, "{IG} {query}");
        let path = |name: &str| world.scratch.path().join(name).display().to_string();
        let out = path("out");
        let (store, index) = (path("store"), path("cli-index"));
        let mut words = vec![
            "export",
            "--store",
            &store,
            "--index-dir",
            &index,
            "--out",
            &out,
            "--group",
            "example-group",
            "--force",
        ];
        match query.split_once('=') {
            Some(("?_type", types)) => words.extend(["--type", types]),
            Some((_, since)) => words.extend(["--since", since]),
            None => {}
        }
        assert_eq!(crate::run::run(&words).code, 0);
        let mut written = Vec::new();
        for entry in std::fs::read_dir(&out).unwrap().flatten() {
            if entry.file_name().to_string_lossy().ends_with(".ndjson") {
                for line in std::fs::read_to_string(entry.path()).unwrap().lines() {
                    let line: Value = serde_json::from_str(line).unwrap();
                    written.push(format!(
                        "{}/{}",
                        line["resourceType"].as_str().unwrap(),
                        line["id"].as_str().unwrap()
                    ));
                }
            }
        }
        written.sort();
        assert_eq!(written, expected, "command line {query}");
    }
    let status = kick_off(&client, &world.full, &format!("{STE}/$export?_type=Patient"));
    assert_eq!(ended(&client, &world.full, &status).status, 200);
}
