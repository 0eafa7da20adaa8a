//! Kick-offs by POST: a body means what a query means, and only a body restricts an export to patients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::client::{Answer, Client};
use super::job_lifecycle::{accepted, bundled, ended, files};
use super::server::Server;
use crate::run::{run, scratch, testdata};
use serde_json::Value;

pub(super) const HEADERS: [(&str, &str); 3] =
    [("Accept", "application/fhir+json"), ("Prefer", "respond-async"), ("Content-Type", "application/fhir+json")];

/// A `Parameters` of these entries.
pub(super) fn parameters(entries: &str) -> String {
    format!(r#"{{"resourceType":"Parameters","parameter":[{entries}]}}"#)
}

pub(super) fn post(client: &Client, path: &str, body: &str) -> Answer {
    client.ask("POST", &format!("/fhir/{path}"), &HEADERS, body.as_bytes())
}

/// Lines of the output and deleted files of a job, by the name of the file.
pub(super) fn lines(client: &Client, manifest: &Value) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for (_, path, _) in files(client, manifest) {
        let file = client.ask("GET", &path, &[("Accept-Encoding", "identity")], b"");
        let name = file.header("content-disposition").unwrap().split('"').nth(1).unwrap().to_string();
        if !name.starts_with("OperationOutcome") {
            assert!(found.insert(name, file.body).is_none());
        }
    }
    found
}

/// Texts of the messages of a job.
pub(super) fn messages(client: &Client, manifest: &Value) -> Vec<String> {
    let error = manifest["error"].as_array().unwrap();
    let bodies = error.iter().map(|file| client.get(client.path(file["url"].as_str().unwrap())).body);
    let texts = bodies.flat_map(|body| {
        let text = String::from_utf8(body).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    });
    texts.map(|outcome| outcome["issue"][0]["diagnostics"].as_str().unwrap().to_string()).collect()
}

/// KICK-05, KICK-06, PARAM-01, MANIFEST-02, CLIENT-01: a POST gives the files of the GET with the same parameters at every level; the
/// manifest names its URL as it was sent.
#[test]
fn a_post_is_answered_as_its_get() {
    let scratch = scratch();
    let config = "[ig]\nfirst_poll_in_progress = false\n";
    std::fs::write(scratch.path().join("serve.toml"), config).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    let done = |answer: &Answer| ended(&client, &accepted(&client, answer)).json();
    let types = r#"{"name":"_type","valueString":"Patient,Condition"}"#;
    let since = r#"{"name":"_since","valueInstant":"2015-01-01T00:00:00+01:00"}"#;
    for (by_get, by_post, body) in [
        ("Group/ten/$export", "Group/ten/$export", parameters("")),
        ("Group/ten/$export", "Group/ten/$export", r#"{"resourceType":"Parameters"}"#.to_string()),
        ("Group/ten/$export?_type=Patient,Condition", "Group/ten/$export", parameters(types)),
        ("Group/ten/$export?_type=Patient,Condition,Encounter", "Group/ten/$export?_type=Encounter", parameters(types)),
        (
            "Patient/$export?_type=Patient,Condition&_since=2015-01-01T00:00:00%2B01:00",
            "Patient/$export",
            parameters(&format!("{types},{since}")),
        ),
        ("$export?_type=Organization", "$export?_type=Organization", String::new()),
    ] {
        let (expected, found) = (done(&server.fhir(by_get)), done(&post(&client, by_post, &body)));
        assert_eq!(found["request"], format!("http://{}/fhir/{by_post}", server.address));
        let (expected, found) = (lines(&client, &expected), lines(&client, &found));
        assert!(!expected.is_empty() && expected == found, "{by_get} {by_post}");
    }
    // With no body and no Content-Type, as a public client sends it.
    let bare = client.ask("POST", "/fhir/Group/one/$export?_type=Patient", &HEADERS[..2], b"");
    assert_eq!(lines(&client, &done(&bare)), lines(&client, &done(&server.fhir("Group/one/$export?_type=Patient"))));
    let plain = [HEADERS[0], HEADERS[1], ("Content-Type", "application/json")];
    let plain = client.ask("POST", "/fhir/Group/one/$export", &plain, parameters(types).as_bytes());
    assert_eq!(lines(&client, &done(&plain)).len(), 2);
    // What cannot be used is refused, all at once, and makes no job.
    let jobs = scratch.path().join("data/jobs").read_dir().unwrap().count();
    let wrong = parameters(r#"{"name":"foo","valueString":"x"},{"name":"_since","valueBoolean":true}"#);
    let told = post(&client, "$export?_type=Nope", &wrong).outcome(400, "not-supported");
    assert!(["foo: ", "_since: ", "_type: "].iter().all(|name| told.contains(name)), "{told}");
    for (body, code) in [("{", "structure"), ("[]", "structure"), (r#"{"resourceType":"Bundle"}"#, "structure")] {
        post(&client, "$export", body).outcome(400, code);
    }
    let text = [HEADERS[0], HEADERS[1], ("Content-Type", "text/plain")];
    client.ask("POST", "/fhir/$export", &text, b"x").outcome(415, "not-supported");
    let coded = [HEADERS[0], HEADERS[1], HEADERS[2], ("Content-Encoding", "gzip")];
    client.ask("POST", "/fhir/$export", &coded, b"x").outcome(415, "not-supported");
    post(&client, "Group/nobody/$export", &parameters("")).outcome(404, "not-found");
    assert_eq!(scratch.path().join("data/jobs").read_dir().unwrap().count(), jobs);
    let head = client.ask("HEAD", "/fhir/$export", &HEADERS[..2], b"");
    assert_eq!((head.status, head.header("allow")), (405, Some("GET,POST")));
    // Dialects whose documents have no POST have none.
    assert_eq!(client.ask("POST", "/uscore/v1/bulk-data/Group/ten/$export", &HEADERS, b"").status, 405);
    assert_eq!(client.ask("POST", "/v1/default/bulk-export/bulk-data/r4/$export", &HEADERS, b"").status, 403);
    assert_eq!(server.stop(), Some(0));
}

/// Ids of the patients of a Group of the bundled store, by an export of it.
fn patients_of(client: &Client, server: &Server, group: &str) -> BTreeSet<String> {
    let manifest =
        ended(client, &accepted(client, &server.fhir(&format!("Group/{group}/$export?_type=Patient")))).json();
    let lines = lines(client, &manifest);
    let text = String::from_utf8(lines.into_values().flatten().collect()).unwrap();
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_string();
    text.lines().map(id).collect()
}

/// PATIENT-01, PATIENT-04, PATIENT-05: an export of a Group or of all patients is restricted to those that are listed; one who
/// is not there and one who is not in the Group are told alike; the command line writes the same bytes, and its ledger is
/// recounted.
#[test]
fn exports_are_restricted_to_patients() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &["--config", "/dev/null"]);
    server.wait_until_ready();
    let client = server.client();
    let ten: Vec<String> = patients_of(&client, &server, "ten").into_iter().collect();
    let others = patients_of(&client, &server, "all");
    let other = others.iter().find(|id| !ten.contains(id)).unwrap();
    let wanted = [&ten[2], &ten[7], other, "nobody", &ten[2]].map(|id| {
        let form =
            if id == ten[7] { format!("http://{}/fhir/Patient/{id}", server.address) } else { format!("Patient/{id}") };
        format!(r#"{{"name":"patient","valueReference":{{"reference":"{form}"}}}}"#)
    });
    let body = parameters(&wanted.join(","));
    for (level, words, found, absent) in [
        ("Group/ten/$export", "--group ten", vec![&ten[2], &ten[7]], vec![other.as_str(), "nobody"]),
        ("Patient/$export", "--all-patients", vec![&ten[2], &ten[7], other], vec!["nobody"]),
    ] {
        let manifest = ended(&client, &accepted(&client, &post(&client, level, &body))).json();
        assert_eq!(manifest["request"], format!("http://{}/fhir/{level}", server.address));
        let restricted = lines(&client, &manifest);
        let text = String::from_utf8(restricted.values().flat_map(|body| body.clone()).collect()).unwrap();
        let of_patients = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of_patients = of_patients.filter(|resource| resource["resourceType"] == "Patient");
        let ids: BTreeSet<String> = of_patients.map(|patient| patient["id"].as_str().unwrap().to_string()).collect();
        assert_eq!(ids, found.iter().map(|id| id.to_string()).collect(), "{level}");
        for id in others.iter().filter(|id| !ids.contains(*id)) {
            assert!(!text.contains(id.as_str()), "{level}: {id} is in the output");
        }
        let told: Vec<String> =
            messages(&client, &manifest).into_iter().filter(|text| text.starts_with("patient: ")).collect();
        let mut alike: Vec<String> = told.iter().zip(&absent).map(|(text, id)| text.replace(id, "")).collect();
        alike.dedup();
        assert_eq!((told.len(), alike.len()), (absent.len(), 1), "{level}: {told:?}");
        assert!(absent.iter().all(|id| told.iter().any(|text| text.contains(id))));
        // The command line, and the recount of its ledger.
        let out = scratch.path().join(words.replace(' ', ""));
        let (store, index, out) =
            (testdata("stores/synthea-r4-100"), scratch.path().join("index"), out.to_str().unwrap());
        let base = format!("http://{}/fhir", server.address);
        let patients = format!("{},{base}/Patient/{},{other}", ten[2], ten[7]);
        let mut all = vec!["export", "--store", store.to_str().unwrap(), "--index-dir", index.to_str().unwrap()];
        all.extend(["--out", out, "--as-of", manifest["transactionTime"].as_str().unwrap(), "--members", "active"]);
        all.extend(["--context", "referenced", "--fhir-base", &base, "--patient", &patients, "--patient", "nobody"]);
        all.extend(words.split(' '));
        let done = run(&all);
        assert_eq!(done.code, 0, "{done:?}");
        for (name, body) in &restricted {
            assert!(std::fs::read(std::path::Path::new(out).join(name)).unwrap() == *body, "{level}: {name}");
        }
        let verified = run(&["verify", out, "--ledger"]);
        assert_eq!(verified.code, 0, "{verified:#?}");
    }
    // No Group leaves that lists others.
    let with_group = [body.trim_end_matches("]}"), r#",{"name":"_type","valueString":"Patient,Group"}]}"#].concat();
    let manifest = ended(&client, &accepted(&client, &post(&client, "Group/ten/$export", &with_group))).json();
    assert_eq!(lines(&client, &manifest).len(), 1);
    assert!(messages(&client, &manifest).iter().any(|text| text.starts_with("Group: ")));
    let empty = client.ask("GET", "/fhir/Group/ten/$export?patient=", &HEADERS[..2], b"");
    assert!(empty.outcome(400, "invalid").contains("patient: "));
    // An empty result if none is there.
    let nobody = parameters(r#"{"name":"patient","valueReference":{"reference":"Patient/nobody"}}"#);
    let manifest = ended(&client, &accepted(&client, &post(&client, "Group/ten/$export", &nobody))).json();
    assert_eq!(manifest["output"], serde_json::json!([]));
    // Where it may not be, under lenient handling, too.
    for prefer in ["respond-async", "respond-async, handling=lenient"] {
        let headers = [HEADERS[0], ("Prefer", prefer), HEADERS[2]];
        let by_get = client.ask("GET", "/fhir/Group/ten/$export?patient=Patient/a", &headers[..2], b"");
        assert!(by_get.outcome(400, "invalid").contains("patient: "));
        let of_system = client.ask("POST", "/fhir/$export", &headers, body.as_bytes());
        assert!(of_system.outcome(400, "invalid").contains("patient: "));
        for vendor in ["/uscore/v1/bulk-data/Group/ten/$export", "/bulk-data/r4/Group/ten/$export"] {
            let refused = client.ask("GET", &format!("{vendor}?patient=Patient/a"), &headers[..2], b"");
            assert_eq!(refused.status, 400, "{vendor}: {}", refused.text());
        }
    }
    let system = run(&["export", "--store", ".", "--out", "x", "--system", "--patient", "a"]);
    system.refused(2, &["--patient"]);
    assert_eq!(server.stop(), Some(0));
}

/// HDR-08, HDR-09, HDR-10, XSTAT-01, XSTAT-02, XSTAT-03, XSTAT-04: where it is asked for, polls say their own status, and
/// that of the job in a header; never without.
#[test]
fn the_status_of_an_export_apart_from_its_poll() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let rows = "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n{\"resourceType\":\"Patient\",\"id\":}\n";
    std::fs::write(store.join("Patient.ndjson"), rows).unwrap();
    let apart = [HEADERS[0], ("Prefer", "respond-async, separate-export-status")];
    for (faults, status, text) in [("", 200, "200 OK"), ("faults_allowed = \"0\"", 500, "500 Internal Server Error")] {
        std::fs::write(scratch.path().join("serve.toml"), format!("[jobs]\n{faults}\n")).unwrap();
        let server = Server::start(scratch.path(), &["--store", "store", "--data", "data", "--config", "serve.toml"]);
        server.wait_until_ready();
        let client = server.client();
        let answer = client.ask("GET", "/fhir/Patient/$export", &apart, b"");
        assert_eq!(answer.header("preference-applied"), Some("respond-async, separate-export-status"));
        let job = accepted(&client, &answer);
        let first = client.get(&job);
        assert_eq!(first.status, 200);
        let mut last = first.clone();
        let mut states = vec![first.header("x-export-status").unwrap().to_string()];
        while last.header("x-export-status") == Some("202 Accepted") {
            assert!(last.header("retry-after").is_some() && last.header("x-progress").is_some());
            std::thread::sleep(std::time::Duration::from_millis(600));
            last = client.get(&job);
            assert_eq!(last.status, 200);
            states.push(last.header("x-export-status").unwrap().to_string());
        }
        assert_eq!(states.last().map(String::as_str), Some(text), "{states:?}");
        assert_eq!(last.json()["resourceType"] == "OperationOutcome", status == 500, "{}", last.text());
        // A poll that fails has its own status alone.
        let limited = (0..30).map(|_| client.get(&job)).find(|answer| answer.status == 429).unwrap();
        assert_eq!(limited.header("x-export-status"), None);
        let unknown = client.get("/fhir/bulk-status/0123456789abcdef0123456789abcdef");
        assert_eq!((unknown.status, unknown.header("x-export-status")), (404, None));
        // Without it.
        let plain = client.ask("GET", "/fhir/Patient/$export", &apart[..1], b"");
        assert_eq!(plain.status, 400);
        let answer = client.ask("GET", "/fhir/Patient/$export", &HEADERS[..2], b"");
        assert_eq!(answer.header("preference-applied"), Some("respond-async"));
        let ended = ended(&client, &accepted(&client, &answer));
        assert_eq!((ended.status, ended.header("x-export-status")), (status, None));
        // It outlives the service.
        assert_eq!(server.stop(), Some(0));
        let server = Server::start(scratch.path(), &["--store", "store", "--data", "data", "--config", "serve.toml"]);
        // The first poll of a process says that the job is under way.
        server.client().get(&job);
        assert_eq!(server.client().get(&job).header("x-export-status"), Some(text));
        assert_eq!(server.stop(), Some(0));
    }
}

/// ASSOC-01, ASSOC-02, ASSOC-03, ASSOC-08: Provenance of what is exported, over HTTP as on the command line.
#[test]
fn provenance_is_added_to_what_is_exported() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let meta = r#""meta":{"lastUpdated":"2020-01-01T00:00:00Z"}"#;
    let provenance = |id: &str, recorded: u32, about: &str| {
        format!(
            r#"{{"resourceType":"Provenance","id":"{id}",{meta},"recorded":"202{recorded}-01-01T00:00:00Z","target":[{{"reference":"{about}"}}]}}"#
        )
    };
    let rows = [
        format!(r#"{{"resourceType":"Patient","id":"a",{meta}}}"#),
        format!(r#"{{"resourceType":"Observation","id":"o",{meta},"subject":{{"reference":"Patient/a"}}}}"#),
        provenance("first", 1, "Observation/o"),
        provenance("last", 2, "Observation/o"),
        provenance("of-patient", 3, "Patient/a"),
    ];
    std::fs::write(store.join("rows.ndjson"), rows.join("\n") + "\n").unwrap();
    let toml = "[ig]\nfirst_poll_in_progress = false\n";
    std::fs::write(scratch.path().join("serve.toml"), toml).unwrap();
    let words = ["--store", "store", "--index-dir", "index", "--data", "data", "--config", "serve.toml"];
    let server = Server::start(scratch.path(), &words);
    server.wait_until_ready();
    let client = server.client();
    for (code, ids) in
        [("LatestProvenanceResources", &["last"][..]), ("RelevantProvenanceResources", &["first", "last"])]
    {
        let query = format!("Patient/$export?_type=Observation&includeAssociatedData={code}");
        let manifest = ended(&client, &accepted(&client, &server.fhir(&query))).json();
        assert_eq!(manifest["request"], format!("http://{}/fhir/{query}", server.address));
        let body = parameters(&format!(r#"{{"name":"includeAssociatedData","valueCode":"{code}"}}"#));
        let by_post = post(&client, "Patient/$export?_type=Observation", &body);
        let by_post = ended(&client, &accepted(&client, &by_post)).json();
        let served = lines(&client, &manifest);
        assert_eq!(served, lines(&client, &by_post));
        let text = String::from_utf8(served["Provenance.00001.ndjson"].clone()).unwrap();
        let found: Vec<Value> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
        assert_eq!(found, ids.iter().map(|id| Value::from(*id)).collect::<Vec<_>>());
        let out = scratch.path().join(code);
        let out = out.to_str().unwrap();
        let store = store.to_str().unwrap();
        let done = run(&[
            "export",
            "--store",
            store,
            "--out",
            out,
            "--all-patients",
            "--type",
            "Observation",
            "--include-associated-data",
            code,
            "--as-of",
            manifest["transactionTime"].as_str().unwrap(),
        ]);
        assert_eq!(done.code, 0, "{done:?}");
        for (name, body) in &served {
            assert!(std::fs::read(std::path::Path::new(out).join(name)).unwrap() == *body, "{name}");
        }
        assert_eq!(run(&["verify", out, "--ledger"]).code, 0);
    }
    server.fhir("$export?includeAssociatedData=Nope").outcome(400, "not-supported");
    run(&["export", "--store", "store", "--out", "x", "--system", "--include-associated-data", "Nope"])
        .refused(2, &["--include-associated-data", "Nope"]);
    assert_eq!(server.stop(), Some(0));
}

/// ELEM-01, ELEM-02, ELEM-03, ELEM-04, MANIFEST-02: resources are reduced over HTTP as on the command line.
#[test]
fn elements_over_http_and_on_the_command_line() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &["--config", "/dev/null"]);
    server.wait_until_ready();
    let client = server.client();
    let query = "Group/ten/$export?_type=Patient,Condition&_elements=Patient.name,Patient.birthDate";
    let manifest = ended(&client, &accepted(&client, &server.fhir(query))).json();
    let body = parameters(
        r#"{"name":"_elements","valueString":"Patient.name"},{"name":"_elements","valueString":"Patient.birthDate"}"#,
    );
    let by_post = post(&client, "Group/ten/$export?_type=Patient,Condition", &body);
    let by_post = ended(&client, &accepted(&client, &by_post)).json();
    let served = lines(&client, &manifest);
    assert_eq!(served, lines(&client, &by_post));
    let patients = String::from_utf8(served["Patient.00001.ndjson"].clone()).unwrap();
    assert_eq!(patients.lines().count(), 10);
    for line in patients.lines() {
        let patient: Value = serde_json::from_str(line).unwrap();
        let names: Vec<&String> = patient.as_object().unwrap().keys().collect();
        assert!(
            names.iter().all(|name| ["resourceType", "id", "meta", "name", "birthDate"].contains(&name.as_str())),
            "{names:?}"
        );
        let tags = patient["meta"]["tag"].as_array().unwrap();
        assert!(tags.iter().any(|tag| tag["code"] == "SUBSETTED"), "{tags:?}");
    }
    let out = scratch.path().join("out");
    let (store, index) = (testdata("stores/synthea-r4-100"), scratch.path().join("index"));
    let done = run(&[
        "export",
        "--store",
        store.to_str().unwrap(),
        "--index-dir",
        index.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--group",
        "ten",
        "--members",
        "active",
        "--type",
        "Patient,Condition",
        "--elements",
        "Patient.name,Patient.birthDate",
        "--fhir-base",
        &format!("http://{}/fhir", server.address),
        "--as-of",
        manifest["transactionTime"].as_str().unwrap(),
    ]);
    assert_eq!(done.code, 0, "{done:?}");
    for (name, body) in &served {
        assert!(std::fs::read(out.join(name)).unwrap() == *body, "{name}");
    }
    server.fhir("$export?_elements=Patient.name.family").outcome(400, "not-supported");
    assert_eq!(server.stop(), Some(0));
}

/// CORE-08, KICK-06: a body of many entries, or of values that nothing takes, needs no more memory than one that is right.
#[test]
fn hostile_bodies_take_little_memory() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &["--config", "/dev/null"]);
    server.wait_until_ready();
    let client = server.client();
    let before = server.memory();
    let count = 15_000_000;
    for (entry, between) in
        [("", "{},"), (r#"{"name":"x","valueString":["#, "0,"), (r#"{"name":"x","valueString":["#, "{},")]
    {
        let many = between.repeat(count / between.len());
        let end = if entry.is_empty() { "" } else { "]}" };
        let body = parameters(&format!("{entry}{}{end}", many.trim_end_matches(',')));
        let most = AtomicU64::new(0);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    most.fetch_max(server.memory(), Relaxed);
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            });
            post(&client, "$export", &body).outcome(400, "structure");
            done.store(true, Relaxed);
        });
        let most = most.load(Relaxed);
        assert!(most < before + (48 << 20), "{entry} {between}: {most} before {before}");
    }
    assert_eq!(server.stop(), Some(0));
}
