//! The mount of 1upHealth's single-tenant environment, against its Export Bulk Data page.

use serde_json::{Value, json};

use super::{STE, World, ended, exported, keys, kick_off, resources, start};
use crate::run::run;

fn is_instant(text: &Value) -> bool {
    let text = text.as_str().unwrap();
    text.len() == 24 && text.ends_with('Z') && text.as_bytes()[19] == b'.'
}

/// Asserts what holds for a status document in every state (ONEUP-S12, ONEUP-S13, ONEUP-S15, ONEUP-S16).
#[track_caller]
fn check(status: &Value) {
    let id = status["id"].as_str().unwrap();
    assert!(id.split('-').map(str::len).eq([8, 4, 4, 4, 12]), "{id}");
    assert!(is_instant(&status["transactionTime"]) && is_instant(&status["lastUpdated"]), "{status}");
    assert!(status["lastUpdated"].as_str() >= status["transactionTime"].as_str(), "{status}");
    assert!(status["request"].is_string() && status["requiresAccessToken"].is_boolean());
    let batch = |name: &str| status["batches"][name].as_u64().unwrap();
    assert_eq!(keys(&status["batches"]), ["running", "complete", "failed", "total"]);
    assert_eq!(batch("total"), batch("running") + batch("complete") + batch("failed"), "{status}");
    assert!(status["resourceCount"].is_u64());
    let state = status["status"].as_str().unwrap();
    assert!(["In Progress", "Successful", "Failed"].contains(&state), "{state}");
    assert_eq!(status.get("output").is_some(), state == "Successful", "ONEUP-S17");
    if state == "Successful" {
        assert_eq!((batch("running"), batch("failed"), batch("complete")), (0, 0, batch("total")));
    }
}

/// ONEUP-S09, ONEUP-S10, ONEUP-S11, ONEUP-S12, ONEUP-S13, ONEUP-S14, ONEUP-S15, ONEUP-S16, ONEUP-S17, ONEUP-S18,
/// ONEUP-S20, ONEUP-S21, ONEUP-S22, ONEUP-S24, ONEUP-S25, ONEUP-G01, C-06, C-07: the steps of the page, with no headers
/// but credentials.
#[test]
fn from_kick_off_to_files() {
    let world = World::new("[files]\nmax_resources = 2\n");
    let client = world.client();
    for who in [&world.by_headers, &world.full] {
        let kicked = who.get(&client, &format!("{STE}/$export"));
        assert_eq!((kicked.status, kicked.header("content-type")), (202, Some("application/json")));
        let (body, location) = (kicked.json(), kicked.header("content-location").unwrap());
        assert_eq!(keys(&body), ["message", "jobId", "statusUrl"]);
        assert_eq!(body["statusUrl"], location);
        assert_eq!(location, world.url(&format!("{STE}/$export/job/{}", body["jobId"].as_str().unwrap())));
        let status = client.path(location);
        let mut last = json!({ "lastUpdated": "", "resourceCount": 0 });
        let done = loop {
            let answer = who.get(&client, status);
            let now = answer.json();
            check(&now);
            assert!(now["lastUpdated"].as_str() >= last["lastUpdated"].as_str(), "ONEUP-S16");
            let counted = last["resourceCount"].as_u64().unwrap();
            assert!(counted == 0 || now["resourceCount"] == counted, "ONEUP-S14");
            match now["status"].as_str().unwrap() {
                "In Progress" => assert!(answer.status == 202 && answer.header("retry-after").is_some()),
                _ => break answer,
            }
            last = now;
        };
        assert_eq!((done.status, done.header("expires")), (200, None), "ONEUP-S18, ONEUP-S19");
        let done = done.json();
        assert_eq!(done["request"], world.url(&format!("{STE}/$export")));
        assert_eq!((&done["requiresAccessToken"], &done["error"]), (&json!(true), &json!([])));
        let files = done["output"].as_array().unwrap();
        for item in files {
            let of = item["type"].as_str().unwrap();
            let name = item["file"].as_str().unwrap().strip_prefix(&world.url(&format!("{STE}/$export/file/{of}_")));
            let digits = name.and_then(|name| name.strip_suffix(".ndjson")).expect("the form of its links");
            assert!(digits.len() == 8 && digits.bytes().all(|b| b"0123456789abcdef".contains(&b)), "{digits}");
            assert_eq!(item["url"], item["file"]);
            let path = client.path(item["file"].as_str().unwrap());
            let file = world.by_headers.get(&client, path);
            assert_eq!((file.status, file.header("content-type")), (200, Some("application/fhir+ndjson")));
            assert!((1..=2).contains(&file.text().lines().count()));
            assert_eq!(world.full.get(&client, path).body, file.body);
            client.get(path).outcome(401, "login");
        }
        assert!(files.iter().filter(|item| item["type"] == "Observation").count() > 1, "ONEUP-S20");
        let found = resources(&client, who, &done);
        assert_eq!(done["resourceCount"], found.len(), "ONEUP-S14");
        assert_eq!(found.len(), 16, "everything of the client: {found:?}");
    }
    client.get(&format!("{STE}/$export")).outcome(401, "login");
}

/// ONEUP-S01: a user exports the own record at the same URL; ONEUP-S02: an exported Group must exist; ONEUP-G05, C-10:
/// all listed members count, regardless of `period` and `inactive`.
#[test]
fn populations() {
    let world = World::new("");
    let client = world.client();
    let own = exported(&client, &world.user, &format!("{STE}/$export"));
    assert_eq!(own.len(), 7, "{own:?}");
    assert!(own.contains(&"Patient/123".to_string()) && own.contains(&"Observation/late".to_string()));
    let other = exported(&client, &world.other_user, &format!("{STE}/$export"));
    assert_eq!(other, ["Encounter/e-999", "Observation/of-999", "Patient/999"]);
    let group = exported(&client, &world.full, &format!("{STE}/Group/example-group/$export"));
    assert_eq!(group.len(), 9);
    assert!(group.contains(&"Patient/124".to_string()) && group.contains(&"Observation/of-124".to_string()));
    world.full.get(&client, &format!("{STE}/Group/nobody/$export")).outcome(404, "not-found");
    world.user.get(&client, &format!("{STE}/Group/example-group/$export")).outcome(404, "not-found");
    world.user.get(&client, "/fhir/$export").outcome(400, "required");
    let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
    world.user.ask(&client, "GET", "/fhir/$export", &headers).outcome(403, "forbidden");
}

/// ONEUP-S04, ONEUP-S05, ONEUP-S06, C-05, C-12: exports filtered by types, in upper or lower case, and by dates.
#[test]
fn parameters() {
    let world = World::new("");
    let (client, who) = (world.client(), &world.full);
    let export = |query: &str| exported(&client, who, &format!("{STE}/$export{query}"));
    assert_eq!(export("?_type=patient"), ["Patient/123", "Patient/124", "Patient/999"]);
    assert_eq!(export("?_type=ENCOUNTER,organization"), ["Encounter/e-123", "Encounter/e-999", "Organization/org"]);
    let since = export("?_since=2021-01-01");
    assert_eq!(since, export("?_since=2021-01-01T00:00:00Z"));
    assert!(since.contains(&"Observation/after-midnight".to_string()));
    assert!(!since.contains(&"Observation/midnight".to_string()), "later than it");
    assert_eq!(since.len(), 5);
    for (query, code) in [("?_type=nope", "not-supported"), ("?_since=2021-13-01", "value"), ("?_since=2021", "value")]
    {
        who.get(&client, &format!("{STE}/$export{query}")).outcome(400, code);
    }
}

/// ONEUP-S08, C-13: after a token expires during a job, a new one of the same client has access to it; client headers
/// do not expire.
#[test]
fn tokens_lapse_and_jobs_go_on() {
    let world = World::new("");
    let client = world.client();
    let status = kick_off(&client, &world.full, &format!("{STE}/$export?_type=Patient"));
    let path = world.scratch.path().join("serve.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let fresh = crate::http::credentials::Credential::token(&[]);
    assert!(fresh.entry.contains("expires"), "two hours, unless the operator says otherwise");
    std::fs::write(&path, config.replace(&world.full.entry, &fresh.entry)).unwrap();
    let lapsed = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        world.full.get(&client, &status).status == 401
    });
    assert!(lapsed, "the configuration is read anew: {}", world.server.log());
    let done = ended(&client, &fresh, &status);
    assert_eq!(resources(&client, &fresh, &done.json()).len(), 3);
    assert_eq!(resources(&client, &world.by_headers, &done.json()).len(), 3);
}

/// ONEUP-S19, C-04: statuses and files do not expire, also over restarts; nothing can be deleted over HTTP.
#[test]
fn nothing_expires() {
    let world = World::new("[ig]\nkeep_seconds = 1\n");
    let client = world.client();
    let status = kick_off(&client, &world.full, &format!("{STE}/$export?_type=Patient"));
    let done = ended(&client, &world.full, &status);
    let record = std::fs::read_dir(world.scratch.path().join("data/jobs")).unwrap();
    let record = record.flatten().find(|entry| entry.file_name().to_string_lossy().ends_with(".json")).unwrap();
    let record: Value = serde_json::from_slice(&std::fs::read(record.path()).unwrap()).unwrap();
    assert_eq!((&record["keepSeconds"], record.get("expires")), (&Value::Null, None));
    world.full.ask(&client, "DELETE", &status, &[]).outcome(405, "not-supported");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let World { scratch, server, full, .. } = world;
    assert_eq!(server.stop(), Some(0));
    let server = start(scratch.path());
    let again = full.get(&server.client(), &status).json();
    let strip = |list: &Value| {
        let names = list["output"].as_array().unwrap().iter();
        names.map(|item| item["file"].as_str().unwrap().rsplit('/').next().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(strip(&again), strip(&done.json()), "the same names, reserved for good");
    assert_eq!(resources(&server.client(), &full, &again).len(), 3);
}

/// DIALECT-06, ONEUP-S25, C-06: with `strict_dialect` the response has the fields of the page's example, and no others.
#[test]
fn strict_dialect() {
    let world = World::new("[oneup_ste]\nstrict_dialect = true\n");
    let (client, who) = (world.client(), &world.full);
    let status = kick_off(&client, who, &format!("{STE}/$export?_type=Patient&_since=2010-01-01"));
    let done = ended(&client, who, &status).json();
    let fields = ["id", "transactionTime", "request", "requiresAccessToken", "status", "resourceCount", "batches"];
    assert_eq!(keys(&done), [&fields[..], &["lastUpdated", "output"]].concat());
    assert!(done["output"].as_array().unwrap().iter().all(|item| keys(item) == ["type", "file"]));
}

/// ONEUP-G02, ONEUP-G03, ONEUP-G06, ONEUP-G07: Groups are made by POST only if that is enabled, and by 1upHealth's
/// rules; ONEUP-G08: these rules do not hold on the IG's mount.
#[test]
fn groups_are_made() {
    let world = World::new("");
    let client = world.client();
    let headers: Vec<(&str, &str)> = world.full.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let headers = [&headers[..], &[("Content-Type", "application/fhir+json")]].concat();
    let members = |n: usize| {
        let one = |offset: usize| format!(r#"{{"entity":{{"reference":"Patient/p{offset}"}}}}"#);
        let list = (0..n).map(one).collect::<Vec<_>>().join(",");
        format!(r#"{{"resourceType":"Group","type":"person","actual":true,"member":[{list}]}}"#)
    };
    let refused = client.ask("POST", &format!("{STE}/Group"), &headers, members(1).as_bytes());
    assert!(matches!(refused.status, 404 | 405), "off by default: {}", refused.status);
    let on = World::new("[oneup_ste]\ngroups_writable = true\n");
    let client = on.client();
    let headers: Vec<(&str, &str)> = on.full.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let headers = [&headers[..], &[("Content-Type", "application/fhir+json")]].concat();
    let post = |base: &str, body: &str| client.ask("POST", &format!("{base}/Group"), &headers, body.as_bytes());
    let made = post(STE, &members(10_000));
    assert_eq!(made.status, 201, "{}", made.text());
    let reported = post(STE, &members(10_001)).outcome(422, "too-long");
    assert!(reported.contains("10001") && reported.contains("10000"), "{reported}");
    post(STE, &members(1).replace("Patient/", "Practitioner/")).outcome(422, "business-rule");
    assert_eq!(post(STE, &members(0)).status / 100, 4, "without members");
    assert_eq!(post("/fhir", &members(50_000)).status, 201, "ONEUP-G08");
    let id = made.json()["id"].as_str().unwrap().to_string();
    assert!(
        exported(&client, &on.full, &format!("{STE}/Group/{id}/$export")).is_empty(),
        "nobody in it is in the store"
    );
}

/// ONEUP-S23: an estimate of the number of resources, without writing files.
#[test]
fn an_estimate() {
    let world = World::new("");
    let path = |name: &str| world.scratch.path().join(name).display().to_string();
    let words = [
        "export",
        "--store",
        &path("store"),
        "--index-dir",
        &path("ix"),
        "--system",
        "--type",
        "Patient",
        "--plan",
        "--json",
    ];
    let done = run(&words);
    assert_eq!(done.code, 0, "{done:?}");
    let plan: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&plan["rows"], &plan["types"]["Patient"]["files"]), (&json!(3), &json!(1)), "{plan}");
    assert!(!world.scratch.path().join("out").exists() && plan["bytes"].as_u64().unwrap() > 200);
}
