//! Tables of kick-off requests: refused ones with their errors, and accepted ones with their meaning.

use super::job_lifecycle::{accepted, bundled, ended, files};
use super::server::Server;
use crate::run::scratch;

const ACCEPT: (&str, &str) = ("Accept", "application/fhir+json");
const PREFER: (&str, &str) = ("Prefer", "respond-async");
const LENIENT: (&str, &str) = ("Prefer", "respond-async, handling=lenient");

/// Target, headers, status, issue code, words of the diagnostics.
type Refused<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, &'a str, &'a [&'a str]);
/// Target, headers, target of the plain request with the same result, words of the messages.
type Accepted<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str, &'a [&'a str]);

fn active(server: &Server) -> u64 {
    server.client().get("/health/ready").json()["activeJobs"].as_u64().unwrap()
}

/// Number of job records in the data directory.
fn jobs(directory: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(directory.join("data/jobs")).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".json")).count()
}

/// KICK-10, KICK-11, KICK-17, KICK-19, HDR-01, HDR-02, HDR-03, HDR-07, PARAM-03, PARAM-04, PARAM-08, FMT-02, FMT-03,
/// SINCE-03, SINCE-09, TYPE-03, TYPE-04, TYPE-07, KICK-16, CORE-03, CORE-04, CORE-06, CORE-07, CLIENT-11, FILE-13: each
/// request gets an OperationOutcome that names the problem, and makes no job.
#[test]
fn refused_kick_offs() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &["--config", "/dev/null"]);
    server.wait_until_ready();
    let client = server.client();
    let both = [ACCEPT, PREFER];
    let long = format!("/fhir/Group/{}/$export", "a".repeat(65));
    let cases: Vec<Refused<'_>> = vec![
        ("/fhir/$export", &[PREFER], 400, "required", &["Accept"]),
        ("/fhir/$export", &[ACCEPT], 400, "required", &["Prefer"]),
        ("/fhir/$export?foo=1", &[], 400, "required", &["Accept", "Prefer", "foo"]),
        ("/fhir/$export", &[("Accept", "text/html"), PREFER], 406, "not-supported", &["Accept"]),
        ("/fhir/Group/ten/$export", &[("Accept", "application/fhir+xml"), PREFER], 406, "not-supported", &["Accept"]),
        ("/fhir/$export?foo=bar", &both, 400, "not-supported", &["foo"]),
        ("/fhir/$export?_Type=Patient", &both, 400, "not-supported", &["_Type", "_type"]),
        ("/fhir/$export?_type=patient", &both, 400, "not-supported", &["_type", "patient", "Patient"]),
        ("/fhir/$export?_type=Nope,Patient", &both, 400, "not-supported", &["_type", "Nope"]),
        ("/fhir/$export?_type=Nope", &[ACCEPT, LENIENT], 400, "not-supported", &["_type", "Nope"]),
        ("/fhir/$export?_type=Resource", &both, 400, "not-supported", &["Resource"]),
        ("/fhir/$export?_type=DomainResource", &both, 400, "not-supported", &["DomainResource"]),
        ("/fhir/Patient/$export?_type=Practitioner", &both, 400, "not-supported", &["_type", "Practitioner"]),
        ("/fhir/$export?_outputFormat=application/xml", &both, 400, "not-supported", &["_outputFormat"]),
        ("/fhir/$export?_outputFormat=text/html", &[ACCEPT, LENIENT], 400, "not-supported", &["_outputFormat"]),
        ("/fhir/$export?_outputFormat=application/vnd.apache.parquet", &both, 400, "not-supported", &["_outputFormat"]),
        ("/fhir/$export?_since=0000-60-01T30:70:80+05:00", &both, 400, "value", &["_since"]),
        ("/fhir/$export?_since=2020-01-01", &[ACCEPT, LENIENT], 400, "value", &["_since"]),
        ("/fhir/$export?_since=2020-01-01T00:00:00", &both, 400, "value", &["_since"]),
        ("/fhir/$export?_since=2099-01-01T00:00:00Z", &both, 400, "value", &["_since", "future"]),
        ("/fhir/$export?_until=yesterday", &both, 400, "value", &["_until"]),
        ("/fhir/$export?_since=2020-01-01T00:00:00Z&_until=2020-01-01T00:00:00Z", &both, 400, "value", &["_until"]),
        ("/fhir/$export?_since=2021-01-01T00:00:00Z&_until=2020-01-01T00:00:00Z", &both, 400, "value", &["_until"]),
        (
            "/fhir/$export?_since=2020-01-01T00:00:00Z&_since=2021-01-01T00:00:00Z",
            &[ACCEPT, LENIENT],
            400,
            "invalid",
            &["_since"],
        ),
        (
            "/fhir/$export?_elements=id.x&_typeFilter=x&patient=y",
            &both,
            400,
            "not-supported",
            &["_elements", "_typeFilter", "patient"],
        ),
        ("/fhir/$export?_maximumFileSize=1", &both, 400, "not-supported", &["_maximumFileSize"]),
        ("/fhir/$export?_type=%zz", &both, 400, "invalid", &["_type"]),
        ("/fhir/Group/unknown/$export", &both, 404, "not-found", &["Group"]),
        ("/fhir/Group/unknown/$export", &[ACCEPT, LENIENT], 404, "not-found", &["Group"]),
        ("/fhir/Patient/58c297c4-d684-4677-8024-01131d93835e/$export", &both, 404, "not-found", &[]),
        ("/fhir/Group/..%2f..%2fetc/$export", &both, 404, "not-found", &[]),
        ("/fhir/Group/a%00b/$export", &both, 404, "not-found", &[]),
        (&long, &both, 404, "not-found", &[]),
        ("/fhir/Group/a_b/$export", &both, 404, "not-found", &[]),
        ("/fhir/$export-v4", &both, 404, "not-found", &[]),
        ("/nothing", &both, 404, "not-found", &[]),
        ("/favicon.ico", &[], 404, "not-found", &[]),
    ];
    for (target, headers, status, code, words) in &cases {
        let answer = client.ask("GET", target, headers, b"");
        let reported = answer.outcome(*status, code);
        for word in *words {
            assert!(reported.contains(word), "{target}: {word}: {reported}");
        }
        assert!(!reported.contains(scratch.path().to_str().unwrap()), "no path of the host: {reported}");
    }
    for (method, target, allow) in [
        ("POST", "/fhir/bulk-status/x", "GET"),
        ("PUT", "/fhir/Group/ten/$export", "GET"),
        ("HEAD", "/fhir/$export", "GET"),
        ("BREW", "/fhir/bulk-status/x", "GET"),
        ("DELETE", "/fhir/metadata", "GET"),
        ("PATCH", "/fhir/Group/ten", "PUT"),
        ("POST", "/health/live", "GET"),
    ] {
        let answer = client.ask(method, target, &both, b"");
        assert!(answer.header("allow").is_some_and(|methods| methods.contains(allow)), "{method} {target}: {answer:?}");
        if method != "HEAD" {
            answer.outcome(405, "not-supported");
        }
    }
    assert_eq!((active(&server), jobs(scratch.path())), (0, 0), "KICK-10");
}

/// KICK-01, KICK-02, KICK-04, KICK-14, HDR-04, HDR-05, HDR-06, HDR-11, PARAM-01, PARAM-06, PARAM-07, FMT-01, FMT-04,
/// SINCE-01, TYPE-01, TYPE-02, TYPE-03, CORE-07, CLIENT-05, CLIENT-06, OUTCOME-04: each request is accepted, and
/// exports what its plain form does.
#[test]
fn accepted_kick_offs() {
    let scratch = scratch();
    std::fs::write(
        scratch.path().join("serve.toml"),
        "[ig]\nfirst_poll_in_progress = false\n[jobs]\nactive_per_client = 100\n",
    )
    .unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    let both = vec![ACCEPT, PREFER];
    let lenient = vec![ACCEPT, LENIENT];
    // Requests, the plain form of each, and words of the messages.
    let cases: Vec<Accepted<'_>> = vec![
        ("Group/ten/%24export", both.clone(), "Group/ten/$export", &[]),
        ("Group/ten/$export", vec![("accept", "*/*"), PREFER], "Group/ten/$export", &[]),
        (
            "Group/ten/$export",
            vec![("accept", "application/*;q=0.1, text/html"), ("prefer", "wait=5"), ("prefer", "Respond-Async")],
            "Group/ten/$export",
            &[],
        ),
        ("Group/ten/$export", vec![ACCEPT, PREFER, ("authorization", "Bearer ")], "Group/ten/$export", &[]),
        (
            "Group/ten/$export?_type=Patient&_type=Condition",
            both.clone(),
            "Group/ten/$export?_type=Patient,Condition",
            &[],
        ),
        ("Group/ten/$export?_type=Patient,,Patient,%20", both.clone(), "Group/ten/$export?_type=Patient", &[]),
        ("Group/ten/$export?_type=&_since=", both.clone(), "Group/ten/$export", &[]),
        ("Group/ten/$export?_outputFormat=application/fhir+ndjson", both.clone(), "Group/ten/$export", &[]),
        ("Group/ten/$export?_outputFormat=application%2Ffhir%2Bndjson", both.clone(), "Group/ten/$export", &[]),
        ("Group/ten/$export?_outputFormat=application/fhir%20ndjson", both.clone(), "Group/ten/$export", &[]),
        ("Group/ten/$export?_outputFormat=application/ndjson", both.clone(), "Group/ten/$export", &[]),
        ("Group/ten/$export?_outputFormat=ndjson&_outputFormat=ndjson", both.clone(), "Group/ten/$export", &[]),
        (
            "Patient/$export?_type=Device&_since=2015-01-01T05:00:00+05:00",
            both.clone(),
            "Patient/$export?_type=Device&_since=2015-01-01T00:00:00Z",
            &[],
        ),
        (
            "Patient/$export?_type=Device&_since=2015-01-01T05:00:00%2B05:00",
            both.clone(),
            "Patient/$export?_type=Device&_since=2015-01-01T00:00:00Z",
            &[],
        ),
        ("$export?_type=Device&_until=2100-01-01T00:00:00Z", both.clone(), "$export?_type=Device", &[]),
        ("$export?_type=Substance", both.clone(), "$export?_type=Substance", &[]),
        ("Group/ten/$export?_type=Nope,Patient", lenient.clone(), "Group/ten/$export?_type=Patient", &["Nope"]),
        (
            "Group/ten/$export?foo=bar&_typeFilter=Patient%3Fx%3Dy&_type=Patient",
            vec![ACCEPT, ("prefer", "handling=lenient"), PREFER],
            "Group/ten/$export?_type=Patient",
            &["foo", "_typeFilter"],
        ),
    ];
    let contents = |target: &str, headers: &[(&str, &str)]| {
        let kicked = client.ask("GET", &format!("/fhir/{target}"), headers, b"");
        let status = accepted(&client, &kicked);
        assert!(kicked.header("preference-applied").unwrap().contains("respond-async"), "HDR-11");
        let id = status.rsplit('/').next().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "KICK-14");
        let done = ended(&client, &status);
        assert_eq!(done.status, 200, "{target}: {}", done.text());
        let (mut rows, mut messages) = (Vec::new(), Vec::new());
        for (of, path, _) in files(&client, &done.json()) {
            let file = client.get(&path);
            assert_eq!(file.header("content-type"), Some("application/fhir+ndjson"), "FMT-04");
            match of.as_str() {
                "OperationOutcome" => {
                    messages.extend(file.text().lines().filter(|line| line.contains("warning")).map(str::to_string))
                }
                _ => rows.push((of, file.body)),
            }
        }
        assert_eq!(client.ask("DELETE", &status, &[], b"").status, 202);
        (rows, messages)
    };
    for (target, headers, plain, words) in &cases {
        let (rows, messages) = contents(target, headers);
        assert!(rows == contents(plain, &both).0, "{target}");
        assert_eq!(messages.len(), words.len(), "{target}: {messages:?}");
        for word in *words {
            assert!(messages.iter().any(|message| message.contains(word)), "{word}: {messages:?}");
        }
        if let Some(types) = target.contains("_type=Patient&").then_some(["Condition", "Patient"]) {
            assert_eq!(rows.iter().map(|(of, _)| of.as_str()).collect::<Vec<_>>(), types, "TYPE-01");
        }
    }
}
