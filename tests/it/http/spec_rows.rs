//! Rows of the specification that need a running service: time windows and types, faults, limits, expiry, Groups,
//! downloads, long manifests, metadata.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::client::Answer;
use super::job_lifecycle::{accepted, bundled, ended, files};
use super::server::Server;
use crate::run::{decode, scratch};

/// Starts a service over a store of these lines, with this configuration.
fn small(directory: &Path, lines: &[&str], toml: &str) -> Server {
    std::fs::create_dir_all(directory.join("store")).unwrap();
    append(directory, lines);
    std::fs::write(directory.join("serve.toml"), format!("[ig]\nfirst_poll_in_progress = false\n{toml}")).unwrap();
    Server::start(directory, &["--store", "store", "--data", "data", "--config", "serve.toml"])
}

fn append(directory: &Path, lines: &[&str]) {
    let mut file = OpenOptions::new().create(true).append(true).open(directory.join("store/all.ndjson")).unwrap();
    lines.iter().for_each(|line| writeln!(file, "{line}").unwrap());
}

/// Holds the lock of the index, as another process does that indexes.
fn lock_index(directory: &Path) -> std::fs::File {
    let path = directory.join("store/.outpour/lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
    lock.lock().unwrap();
    lock
}

/// Runs a job to its end; its rows with their types, messages included, and the last response.
fn export(server: &Server, target: &str) -> (Vec<(String, Value)>, Answer) {
    let client = server.client();
    let done = ended(&client, &accepted(&client, &server.fhir(target)));
    let mut rows = Vec::new();
    if done.status == 200 {
        for (of, path, count) in files(&client, &done.json()) {
            let text = client.get(&path).text();
            assert_eq!(text.lines().count() as u64, count);
            rows.extend(text.lines().map(|line| (of.clone(), serde_json::from_str(line).unwrap())));
        }
    }
    (rows, done)
}

fn types(rows: &[(String, Value)]) -> Vec<&str> {
    let mut types: Vec<&str> = rows.iter().map(|(of, _)| of.as_str()).collect();
    types.dedup();
    types
}

const GROUP: &str = r#"{"resourceType":"Group","id":"g","meta":{"lastUpdated":"2020-01-01T00:00:00Z"},"type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}}]}"#;
const PATIENT: &str = r#"{"resourceType":"Patient","id":"a","meta":{"lastUpdated":"2020-01-01T00:00:00Z"}}"#;

fn observation(id: &str, place: &str) -> String {
    format!(
        r#"{{"resourceType":"Observation","id":"{id}","meta":{{"lastUpdated":"{place}"}},"subject":{{"reference":"Patient/a"}}}}"#
    )
}

/// SINCE-02, SINCE-06, SINCE-08, SINCE-10, TYPE-01, TYPE-06, FILE-17, CONS-04, CONS-07: rows exported for `_since`,
/// `_until` and `_type`.
#[test]
fn time_windows_and_types() {
    let scratch = scratch();
    let lines = [
        observation("changed", "2020-01-01T00:00:00Z"),
        observation("changed", "2022-01-01T00:00:00Z"),
        observation("changed", "2024-01-01T00:00:00Z"),
        observation("old", "2020-01-01T00:00:00Z"),
    ];
    let practitioner = r#"{"resourceType":"Practitioner","id":"dr","meta":{"lastUpdated":"2020-01-01T00:00:00Z"}}"#;
    let mut all = vec![GROUP, PATIENT, practitioner];
    all.extend(lines.iter().map(String::as_str));
    let server = small(scratch.path(), &all, "");
    let (rows, done) = export(&server, "Group/g/$export?_since=2023-01-01T00:00:00Z");
    assert_eq!(
        types(&rows),
        ["Observation", "OperationOutcome"],
        "an unchanged Patient does not hide its Observations"
    );
    // Two messages: no deletions are tracked, and no entry of the Group says when its member joined.
    assert_eq!((rows.len(), &rows[0].1["id"]), (3, &"changed".into()));
    let (date, t) = (done.header("date").unwrap(), done.json()["transactionTime"].as_str().unwrap().to_string());
    let date: chrono::Seconds = httpdate::parse_http_date(date).unwrap().into();
    assert!(date.near(&t), "CONS-04: {t}");
    let (rows, _) = export(&server, "Group/g/$export?_until=2023-01-01T00:00:00Z&_type=Observation");
    assert_eq!(
        rows.iter().map(|(_, row)| row["id"].as_str().unwrap_or("")).filter(|id| !id.is_empty()).collect::<Vec<_>>(),
        ["old"],
        "SINCE-10"
    );
    let (rows, _) = export(&server, "Group/g/$export?_type=Observation");
    assert_eq!(types(&rows), ["Observation"], "TYPE-06");
    assert!(rows.iter().all(|(_, row)| row["meta"]["lastUpdated"].is_string()), "FILE-17");
}

/// SINCE-04: rows without a date pass `_since`, and are reported.
#[test]
fn undated_rows() {
    let scratch = scratch();
    let undated = r#"{"resourceType":"Observation","id":"undated","subject":{"reference":"Patient/a"}}"#;
    let server = small(scratch.path(), &[GROUP, PATIENT, undated], "");
    let (rows, _) = export(&server, "Group/g/$export?_since=2023-01-01T00:00:00Z");
    assert_eq!(types(&rows), ["Observation", "OperationOutcome"]);
    let reported = rows.iter().any(|(_, row)| row.to_string().contains("without a usable meta.lastUpdated"));
    assert!(reported, "{rows:?}");
}

/// Comparison of a `Date` header with an instant.
mod chrono {
    use std::time::{Duration, SystemTime};

    pub(super) struct Seconds(SystemTime);

    impl From<SystemTime> for Seconds {
        fn from(system_time: SystemTime) -> Seconds {
            Seconds(system_time)
        }
    }

    impl Seconds {
        /// Whether an instant of today lies within ten seconds.
        pub(super) fn near(&self, instant: &str) -> bool {
            (0..=10).any(|back| {
                let then = httpdate::fmt_http_date(self.0 - Duration::from_secs(back));
                then.contains(&instant[11..19])
            })
        }
    }
}

/// STATUS-08, STATUS-10, CONS-10, OUTCOME-01, OUTCOME-02, OUTCOME-03, OUTCOME-05, MANIFEST-09: a faulty line is
/// reported; too many fail the job.
#[test]
fn faults() {
    let secret =
        r#"{"resourceType":"Observation","id":"o","subject":{"reference":"Patient/a"},"valueString":"Hogwarts"#;
    for (allowed, status) in [("", 200), ("0", 500)] {
        let scratch = scratch();
        let server =
            small(scratch.path(), &[GROUP, PATIENT, secret], &format!("[jobs]\nfaults_allowed = '{allowed}'\n"));
        let (rows, done) = export(&server, "Group/g/$export");
        assert_eq!(done.status, status, "{}", done.text());
        if status == 500 {
            let reported = done.outcome(500, "processing");
            assert!(reported.contains("faulty") && !reported.contains(scratch.path().to_str().unwrap()), "{reported}");
            continue;
        }
        let errors: Vec<String> =
            rows.iter().filter(|(of, _)| of == "OperationOutcome").map(|(_, row)| row.to_string()).collect();
        assert!(errors.iter().any(|error| error.contains("all.ndjson") && error.contains("byte")), "{errors:?}");
        assert!(!errors.join("").contains("Hogwarts") && !server.log().contains("Hogwarts"), "OUTCOME-05");
        assert_eq!(types(&rows), ["Patient", "OperationOutcome"]);
    }
}

/// OUTCOME-02, OUTCOME-05: what is told of odd ids and references names no option of the command line; the client of these tests
/// looks for one in each answer.
#[test]
fn odd_references_and_ids() {
    let scratch = scratch();
    let observation = |id: &str, reference: &str| {
        format!(r#"{{"resourceType":"Observation","id":"{id}","subject":{{"reference":"{reference}"}}}}"#)
    };
    let references =
        ["/Patient/a", "patient/a", " Patient/a", "urn:uuid:5edebc8a-2514-4ae1-874e-7029785e9639", "Patient?x=y"];
    let mut rows: Vec<String> =
        references.iter().enumerate().map(|(n, text)| observation(&format!("o{n}"), text)).collect();
    rows.extend([observation("a_b", "Patient/a"), observation("a b", "Patient/a")]);
    let lines: Vec<&str> = [GROUP, PATIENT].into_iter().chain(rows.iter().map(String::as_str)).collect();
    let server = small(scratch.path(), &lines, "");
    let (rows, done) = export(&server, "Patient/$export");
    assert_eq!(done.status, 200, "{}", done.text());
    let told: Vec<String> =
        rows.iter().filter(|(of, _)| of == "OperationOutcome").map(|(_, row)| row.to_string()).collect();
    assert!(told.len() >= 7, "{told:#?}");
}

/// KICK-12, STATUS-04, STATUS-16, STATUS-20, CORE-05, CORE-08: limits on jobs and polls, and forged forwarding headers.
#[test]
fn limits_and_polls() {
    let scratch = scratch();
    let server = small(scratch.path(), &[GROUP, PATIENT], "[jobs]\nactive_per_client = 1\n");
    let client = server.client();
    let first = accepted(&client, &server.fhir("Group/g/$export"));
    assert_eq!(ended(&client, &first).status, 200);
    std::thread::sleep(Duration::from_millis(3000));
    for accept in ["*/*", "application/json", "application/fhir+json", "text/html"] {
        let answer = client.ask("GET", &first, &[("Accept", accept), ("X-Forwarded-Host", "evil.example")], b"");
        assert_eq!(answer.status, 200, "STATUS-16 {accept}");
        assert!(!answer.text().contains("evil.example"), "CORE-05");
    }
    let spoofed = [("Accept", "*/*"), ("Prefer", "respond-async"), ("X-Forwarded-Host", "evil.example")];
    let host = [&spoofed[..], &[("Host", "evil.example")]].concat();
    client.ask("GET", "/fhir/Group/g/$export", &host, b"").outcome(400, "invalid");
    let kicked = client.ask("GET", "/fhir/Group/g/$export", &spoofed, b"");
    let second = accepted(&client, &kicked);
    assert_eq!(ended(&client, &second).status, 200);
    // No job is prepared while another process indexes.
    append(scratch.path(), &[&observation("new", "2021-01-01T00:00:00Z")]);
    let held = lock_index(scratch.path());
    let third = accepted(&client, &server.fhir("Group/g/$export"));
    let refused = server.fhir("Group/g/$export");
    assert!(refused.outcome(429, "throttled").contains("1 export waiting"), "KICK-12");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    let record = |status: &str| {
        std::fs::read(scratch.path().join(format!("data/jobs/{}.json", status.rsplit('/').next().unwrap()))).unwrap()
    };
    let before = record(&third);
    let answers: Vec<Answer> = (0..1000).map(|_| client.get(&third)).collect();
    assert_eq!(record(&third), before, "STATUS-20");
    let throttled = answers.iter().find(|answer| answer.status == 429).expect("STATUS-04");
    throttled.outcome(429, "throttled");
    assert!(throttled.header("retry-after").unwrap().parse::<u64>().is_ok());
    assert!(answers.iter().all(|answer| matches!(answer.status, 202 | 429)));
    drop(held);
    assert_eq!(ended(&client, &third).status, 200);
}

/// STATUS-13, EXPIRE-01, EXPIRE-03, FILE-10, FILE-11: jobs expire and are forgotten in time; a full disk refuses
/// kick-offs.
#[test]
fn expiry_and_full_disk() {
    let scratch = scratch();
    let server = small(
        scratch.path(),
        &[GROUP, PATIENT],
        "keep_seconds = 2\n[jobs]\nremembered_seconds = 2\n[limits]\npolls_burst = 1000\n",
    );
    let client = server.client();
    let status = accepted(&client, &server.fhir("Group/g/$export"));
    let manifest = ended(&client, &status).json();
    let path = files(&client, &manifest)[0].1.clone();
    assert_eq!(client.get(&path).status, 200, "FILE-10");
    std::thread::sleep(Duration::from_millis(2100));
    client.get(&status).outcome(410, "not-found");
    client.get(&path).outcome(410, "not-found");
    std::thread::sleep(Duration::from_millis(2500));
    client.get(&status).outcome(404, "not-found");
    client.get(&path).outcome(404, "not-found");
    drop(server);
    let server = small(scratch.path(), &[], "[jobs]\ndisk_high_water = 0\n");
    server.fhir("Group/g/$export").outcome(507, "too-costly");
}

/// GROUP-01, GROUP-05, GROUP-09, GROUP-10, KICK-16, STATUS-09: Groups of the store and of the service are found alike;
/// for a Group that is not indexed yet, the kick-off waits.
#[test]
fn groups() {
    let scratch = scratch();
    let practitioners = r#"{"resourceType":"Group","id":"staff","type":"practitioner","actual":true}"#;
    let described = r#"{"resourceType":"Group","id":"rule","type":"person","actual":false,"characteristic":[{"code":{"text":"x"}}]}"#;
    let empty = r#"{"resourceType":"Group","id":"empty","type":"person","actual":true}"#;
    let server = small(
        scratch.path(),
        &[GROUP, PATIENT, practitioners, described, empty],
        "[jobs]\ngroup_wait_milliseconds = 200\n",
    );
    let client = server.client();
    assert_eq!(export(&server, "Group/empty/$export").1.json()["output"], Value::Array(vec![]), "GROUP-05");
    assert!(server.fhir("Group/staff/$export").outcome(400, "not-supported").contains("practitioner"));
    assert!(server.fhir("Group/rule/$export").outcome(400, "not-supported").contains("characteristics"));
    let unknown = [server.fhir("Group/none/$export"), server.fhir("Group/other/$export")];
    assert_eq!(unknown[0].outcome(404, "not-found"), unknown[1].outcome(404, "not-found"), "KICK-16");
    // A Group made and changed by HTTP is exported at once.
    let json = [("Content-Type", "application/fhir+json"), ("Prefer", "return=representation")];
    let made = client.ask("POST", "/fhir/Group", &json, GROUP.replace("\"a\"", "\"x\"").as_bytes());
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.json()["id"].as_str().unwrap().to_string();
    assert!(client.path(made.header("location").unwrap()).starts_with(&format!("/fhir/Group/{id}")));
    assert_eq!(types(&export(&server, &format!("Group/{id}/$export")).0), ["Patient"]);
    let read = client.get(&format!("/fhir/Group/{id}"));
    let etag = read.header("etag").unwrap().to_string();
    let emptied = format!(r#"{{"resourceType":"Group","id":"{id}","type":"person","actual":true}}"#);
    let put = |etag: &str| {
        client.ask("PUT", &format!("/fhir/Group/{id}"), &[json[0], ("If-Match", etag)], emptied.as_bytes())
    };
    assert_eq!(put(&etag).status, 200);
    assert_eq!(put(&etag).status, 412, "the version has moved on");
    assert_eq!(export(&server, &format!("Group/{id}/$export")).1.json()["output"], Value::Array(vec![]));
    let found = client.get("/fhir/Group?member=Patient/a").json();
    assert_eq!(
        (&found["resourceType"], found["entry"].as_array().map(Vec::len)),
        (&"Bundle".into(), Some(1)),
        "{found}"
    );
    assert_eq!(client.ask("DELETE", &format!("/fhir/Group/{id}"), &[], b"").status, 204);
    server.fhir(&format!("Group/{id}/$export")).outcome(404, "not-found");
    // For a Group that is new in the store, the kick-off waits for the index.
    append(scratch.path(), &[&GROUP.replace("\"g\"", "\"late\"")]);
    assert_eq!(types(&export(&server, "Group/late/$export").0), ["Patient"]);
    append(scratch.path(), &[&GROUP.replace("\"g\"", "\"later\"")]);
    let held = lock_index(scratch.path());
    let busy = server.fhir("Group/later/$export");
    busy.outcome(503, "transient");
    assert!(busy.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1, "STATUS-09");
    drop(held);
    assert_eq!(types(&export(&server, "Group/later/$export").0), ["Patient"]);
}

/// CLIENT-08, FILE-04: downloads as real clients do them: several requests per connection, and gzip if accepted.
#[test]
fn downloads_of_real_clients() {
    let scratch = scratch();
    std::fs::write(
        scratch.path().join("serve.toml"),
        "[files]\ncompress = 'gzip'\n[ig]\nfirst_poll_in_progress = false\n",
    )
    .unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    let manifest = ended(&client, &accepted(&client, &server.fhir("Group/ten/$export"))).json();
    let listed = files(&client, &manifest);
    let mut stream = client.connect();
    for (of, path, count) in &listed {
        let ask =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip, deflate, br, identity\r\n\r\n");
        stream.write_all(ask.as_bytes()).unwrap();
        let answer = next(&mut stream);
        assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
        let text = decode("x.gz", &answer.body);
        let plain = client.get(path);
        assert_eq!((plain.header("content-encoding"), &plain.body), (None, &text), "FILE-04");
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().count() as u64, *count);
        assert!(text.lines().all(|line| line.contains(&format!("\"resourceType\":\"{of}\""))));
    }
}

/// Reads the next response of a connection that stays open.
fn next(stream: &mut std::net::TcpStream) -> Answer {
    use std::io::Read;
    let mut bytes = Vec::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        let len = stream.read(&mut piece).unwrap();
        assert!(len > 0, "the connection was closed");
        bytes.extend_from_slice(&piece[..len]);
        if let Some(answer) = Answer::parse(&bytes)
            && answer.header("content-length").unwrap().parse() == Ok(answer.body.len())
        {
            return answer;
        }
    }
}

/// MANIFEST-16, MANIFEST-19, FILE-12: thousands of files in one manifest, in order.
#[test]
fn a_long_manifest() {
    let scratch = scratch();
    let toml = "[files]\nmax_resources = 1\n[data]\nsync = false\n[ig]\nfirst_poll_in_progress = false\n[limits]\npolls_burst = 10000\n";
    std::fs::write(scratch.path().join("serve.toml"), toml).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    let manifest = ended(&client, &accepted(&client, &server.fhir("Patient/$export?_type=Patient,Condition"))).json();
    let output = manifest["output"].as_array().unwrap();
    assert!(output.len() > 700 && output.iter().all(|item| item["count"] == 1), "{}", output.len());
    let types: Vec<&str> = output.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert!(types.is_sorted());
    let listed = files(&client, &manifest);
    assert!(listed.iter().step_by(97).all(|(_, path, _)| client.get(path).status == 200));
}

/// CAP-01, CAP-05, CAP-13, CLIENT-04: the capability statement, requested without headers; every type and parameter in
/// it is accepted.
#[test]
fn metadata() {
    let scratch = scratch();
    let server = small(
        scratch.path(),
        &[GROUP, PATIENT],
        "[jobs]\nactive_per_client = 1000\nactive = 1000\n[data]\nsync = false\n",
    );
    let client = server.client();
    let answer = client.get("/fhir/metadata");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/fhir+json")));
    let statement = answer.json();
    assert_eq!(client.get("/fhir/metadata?_format=json").json(), statement);
    let exportable: Vec<&str> =
        statement["rest"][0]["resource"].as_array().unwrap().iter().map(|of| of["type"].as_str().unwrap()).collect();
    assert!(exportable.contains(&"Observation") && exportable.len() > 140);
    let all = exportable.join(",");
    assert_eq!(server.fhir(&format!("$export?_type={all}")).status, 202);
    for name in ["export", "patient-export", "group-export"] {
        let definition = client.get(&format!("/fhir/OperationDefinition/{name}")).json();
        let parameters = definition["parameter"].as_array().unwrap();
        for parameter in parameters.iter().filter(|parameter| parameter["use"] == "in") {
            let value = match parameter["name"].as_str().unwrap() {
                "_type" => "Patient",
                "_outputFormat" => "ndjson",
                "_since" => "2020-01-01T00:00:00Z",
                "_until" => "2024-01-01T00:00:00Z",
                "_elements" => "id",
                "_typeFilter" => "Observation%3Fcode%3Da",
                "includeAssociatedData" => "LatestProvenanceResources",
                // In the body of a POST only.
                "patient" => continue,
                other => panic!("{other} is advertised"),
            };
            let target = format!("Patient/$export?{}={value}", parameter["name"].as_str().unwrap());
            assert_eq!(server.fhir(&target).status, 202, "CAP-13 {target}");
        }
    }
    client.get("/fhir/OperationDefinition/none").outcome(404, "not-found");
}
