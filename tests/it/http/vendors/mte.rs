//! The mount of 1upHealth's multi-tenant environment, against its page on population-level data.

use serde_json::{Value, json};

use super::{MTE, MTE_DEFAULT, World, ended, exported, keys, kick_off, resources};
use crate::http::credentials::Credential;

/// The list of files, by a request that waits for the end of its job.
#[track_caller]
fn at_once(world: &World, who: &Credential, method: &str, target: &str) -> Value {
    let answer = who.ask(&world.client(), method, target, &[]);
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    answer.json()
}

/// ONEUP-M02, ONEUP-M03, ONEUP-M06, ONEUP-M08, ONEUP-M10, ONEUP-M13, ONEUP-M14, ONEUP-M15, ONEUP-M17, ONEUP-M18, C-08:
/// the requests of the page, verbatim, are answered with the list of files.
#[test]
fn the_list_of_files() {
    let world = World::new("[files]\nmax_resources = 1\n");
    let (client, who) = (world.client(), &world.full);
    let list = at_once(&world, who, "GET", &format!("{MTE}/Group/example-group/$export?_type=Encounter"));
    assert_eq!(resources(&client, who, &list), ["Encounter/e-777", "Encounter/old-777"]);
    let items = list["output"].as_array().unwrap();
    assert_eq!(items.len(), 2, "ONEUP-M14: several links for one type");
    for item in items {
        assert_eq!(item.get("file"), None, "ONEUP-M17");
        let url = item["url"].as_str().unwrap();
        let name = url.strip_prefix(&world.url(&format!("{MTE}/$export/file/Encounter_"))).unwrap();
        assert!(name.len() == 15 && name.ends_with(".ndjson"), "{name}");
        client.get(client.path(url)).outcome(401, "login");
    }
    let since = at_once(&world, who, "GET", &format!("{MTE}/Group/example-group/$export?_since=2021-01-01"));
    assert_eq!(resources(&client, who, &since), ["Encounter/e-777"]);
    let literal = at_once(&world, who, "EXPORT", &format!("{MTE}/Group/example-group/$export?_type=Encounter"));
    assert_eq!(resources(&client, who, &literal), resources(&client, who, &list), "ONEUP-M03");
    let one = at_once(&world, who, "GET", &format!("{MTE}/Encounter"));
    let same = at_once(&world, who, "GET", &format!("{MTE}/$export?_type=encounter"));
    assert_eq!(resources(&client, who, &one), resources(&client, who, &same), "ONEUP-M06");
    assert_eq!(one["request"], world.url(&format!("{MTE}/Encounter")), "as it was asked");
    let all = at_once(&world, who, "GET", &format!("{MTE}/$export"));
    assert_eq!(resources(&client, who, &all), ["Encounter/e-777", "Encounter/old-777", "Patient/777"]);
    let group = at_once(&world, who, "GET", &format!("{MTE_DEFAULT}/Group/example-group/$export?_type=Patient"));
    assert_eq!(resources(&client, who, &group), ["Patient/123", "Patient/124"], "ONEUP-M13: listed means exported");
}

/// ONEUP-M10: a request that does not want to wait, or waits too long, is answered with the status of a job.
#[test]
fn three_ways_to_be_answered() {
    let world = World::new("[oneup_mte]\nsync_wait_milliseconds = 2000\n");
    let (client, who) = (world.client(), &world.full);
    let target = format!("{MTE}/Group/example-group/$export");
    let status = kick_off(&client, who, &target);
    let fields = [
        "id",
        "transactionTime",
        "request",
        "requiresAccessToken",
        "status",
        "resourceCount",
        "batches",
        "lastUpdated",
    ];
    assert!(keys(&ended(&client, who, &status).json()).starts_with(&fields), "ONEUP-M17");
    assert_eq!(at_once(&world, who, "GET", &target)["status"], "Successful");
    // Holding the lock of the index keeps every job waiting.
    let held = std::fs::File::create(world.scratch.path().join("store2/.outpour/lock")).unwrap();
    held.lock().unwrap();
    std::fs::write(world.scratch.path().join("store2/new.ndjson"), "{\"resourceType\":\"Basic\",\"id\":\"b\"}\n")
        .unwrap();
    let begun = std::time::Instant::now();
    let late = who.get(&client, &target);
    assert!(begun.elapsed().as_millis() >= 2000);
    assert_eq!((late.status, keys(&late.json())), (202, vec!["message", "jobId", "statusUrl"]));
    let status = client.path(late.header("content-location").unwrap()).to_string();
    assert_eq!(who.get(&client, &status).json()["status"], "In Progress");
    drop(held);
    assert_eq!(ended(&client, who, &status).json()["status"], "Successful");
}

/// ONEUP-M04, ONEUP-M05, C-02: POST and DELETE are refused before any other check, and PUT everywhere except at the URL
/// of a job.
#[test]
fn methods() {
    let world = World::new("");
    let client = world.client();
    let paths = [
        "",
        "/",
        "/metadata",
        "/$export",
        "/%24export",
        "/Group",
        "/Group/example-group",
        "/Group/example-group/$export",
        "/$export/job/5edebc8a-2514-4ae1-874e-7029785e9639",
        "/$export/job/5edebc8a-2514-4ae1-874e-7029785e9639/more",
        "/$export/file/Patient_00000000.ndjson",
        "/Encounter",
        "/nowhere/at/all",
        "/..%2f",
    ];
    for base in [MTE, MTE_DEFAULT, "/v1/nobody/bulk-export/bulk-data/r4"] {
        for path in paths {
            for method in ["POST", "DELETE", "PUT"] {
                let target = format!("{base}{path}");
                let retry = path.strip_prefix("/$export/job/").is_some_and(|job| !job.contains('/'));
                for answer in [client.ask(method, &target, &[], b"x"), world.full.ask(&client, method, &target, &[])] {
                    if method == "PUT" && retry {
                        assert!(matches!(answer.status, 401 | 404), "{}", answer.text());
                    } else {
                        answer.outcome(403, "forbidden");
                    }
                }
            }
        }
    }
    let who = &world.full;
    who.ask(&client, "EXPORT", &format!("{MTE}/Group/example-group"), &[]).outcome(405, "not-supported");
    who.ask(&client, "EXPORT", "/fhir/$export", &[]).outcome(405, "not-supported");
    who.ask(&client, "HEAD", &format!("{MTE}/$export"), &[]);
    assert!(
        !world.scratch.path().join("data2/files").read_dir().unwrap().any(|entry| entry
            .unwrap()
            .path()
            .join("out")
            .is_dir())
    );
}

/// ONEUP-M07, C-19: exports of Patient and types of its compartment, alone or in a list.
#[test]
fn types() {
    let world = World::new("");
    let (client, who) = (world.client(), &world.full);
    for wrong in ["Organization", "Patient,Organization", "Nope", "patient,nope"] {
        for place in ["$export", "Group/example-group/$export"] {
            who.get(&client, &format!("{MTE}/{place}?_type={wrong}")).outcome(400, "not-supported");
        }
    }
    who.get(&client, &format!("{MTE}/Organization")).outcome(400, "not-supported");
    who.get(&client, &format!("{MTE}/Nope")).outcome(404, "not-found");
    assert_eq!(exported(&client, who, &format!("{MTE}/$export?_type=PATIENT")), ["Patient/777"]);
}

/// ONEUP-M09, ONEUP-M15, C-14: only tokens are accepted, ONEUP-M01: and only those of the tenant in the path, which
/// must exist.
#[test]
fn tokens_of_the_tenant_only() {
    let world = World::new("");
    let client = world.client();
    let list = at_once(&world, &world.full, "GET", &format!("{MTE}/Patient"));
    let file = client.path(list["output"][0]["url"].as_str().unwrap());
    for path in [&format!("{MTE}/Group/example-group/$export"), &format!("{MTE}/Encounter"), file] {
        let reported = world.by_headers.get(&client, path).outcome(401, "login");
        assert!(reported.contains("Bearer"), "{reported}");
        client.get(path).outcome(401, "login");
        world.rival.get(&client, path).outcome(404, "not-found");
        let nowhere = path.replace("ExampleCompany", "nobody");
        world.full.get(&client, &nowhere).outcome(404, "not-found");
    }
    assert_eq!(world.stranger.get(&client, file).status, 404, "another client's file");
    assert_eq!(exported(&client, &world.stranger, &format!("{MTE}/Patient")), ["Patient/777"]);
}

/// ONEUP-M12: a Group must exist before its export; ONEUP-M16: it is read and searched at the same base URL; ONEUP-M11:
/// the next export has its changes.
#[test]
fn groups() {
    let world = World::new("");
    let (client, who) = (world.client(), &world.full);
    who.get(&client, &format!("{MTE}/Group/nobody/$export")).outcome(404, "not-found");
    let group = who.get(&client, &format!("{MTE}/Group/example-group"));
    assert_eq!((group.status, &group.json()["id"]), (200, &json!("example-group")));
    let found = who.get(&client, &format!("{MTE}/Group?_id=example-group")).json();
    assert_eq!(found["total"], 1);
    let export = format!("{MTE}/Group/example-group/$export?_type=Patient");
    assert_eq!(exported(&client, who, &export), ["Patient/777"]);
    let more = "{\"resourceType\":\"Patient\",\"id\":\"778\"}\n{\"resourceType\":\"Group\",\"id\":\"example-group\",\"meta\":{\"lastUpdated\":\"2021-01-01T00:00:00Z\"},\"type\":\"person\",\"actual\":true,\"member\":[{\"entity\":{\"reference\":\"Patient/777\"}},{\"entity\":{\"reference\":\"Patient/778\"}}]}\n";
    std::fs::write(world.scratch.path().join("store2/more.ndjson"), more).unwrap();
    assert_eq!(exported(&client, who, &export), ["Patient/777", "Patient/778"]);
}
