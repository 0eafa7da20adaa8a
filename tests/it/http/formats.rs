//! The form of answers: `_format`, `_pretty` and `Accept` at kick-offs, searches and descriptions.

use super::client::Answer;
use super::job_lifecycle::{accepted, bundled, ended, files};
use super::vendors::{IG, MTE_DEFAULT, NETSMART, STE};
use crate::run::scratch;

const PREFER: (&str, &str) = ("Prefer", "respond-async");
const FHIR_JSON: (&str, &str) = ("Accept", "application/fhir+json");

/// Method, path, headers, body, status under `Accept: application/json`.
type Refused<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, &'a str, u16);

/// CLIENT-04, PARAM-04, PARAM-06: `_format` and `_pretty` are read alike by every route that has a query.
#[test]
fn form_parameters_are_read_alike() {
    let scratch = scratch();
    std::fs::write(scratch.path().join("serve.toml"), "[jobs]\nactive_per_client = 1000\n").unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    let kick_offs = [
        format!("{IG}/$export?_type=Patient"),
        format!("{IG}/Patient/$export?_type=Patient"),
        format!("{IG}/Group/ten/$export?_type=Patient"),
        format!("{NETSMART}/Group/ten/$export?_type=Patient"),
        format!("{STE}/$export?_type=Patient"),
        format!("{MTE_DEFAULT}/Group/ten/$export?_type=Patient"),
        format!("{MTE_DEFAULT}/Patient?"),
    ];
    let ask = |path: &str, query: &str| client.ask("GET", &format!("{path}&{query}"), &[FHIR_JSON, PREFER], b"");
    for path in &kick_offs {
        for query in ["_format=json", "_format=application/fhir+json&_pretty=true", "_pretty=false", "_format="] {
            accepted(&client, &ask(path, query));
        }
        let html = [("Accept", "text/html"), PREFER];
        accepted(&client, &client.ask("GET", &format!("{path}&_format=application/json"), &html, b""));
        client.ask("GET", path, &html, b"").outcome(406, "not-supported");
        for query in ["_format=xml", "_format=application/fhir%2Bndjson", "_format=json&_format=html"] {
            assert!(ask(path, query).outcome(406, "not-supported").contains("_outputFormat"), "{path} {query}");
        }
        assert!(ask(path, "_formatt=json").outcome(400, "not-supported").contains("_formatt"), "{path}");
    }
    for path in ["/fhir/Group?_id=ten", "/fhir/metadata?", "/fhir/OperationDefinition/group-export?"] {
        let plain = ask(path, "");
        assert_eq!(plain.status, 200);
        let total = |answer: &Answer| (answer.json()["total"].clone(), answer.json()["resourceType"].clone());
        for query in ["_format=json", "_format=text/json", "_pretty=true", "_format=application/fhir+json&_pretty=x"] {
            let found = ask(path, query);
            assert_eq!((found.status, total(&found)), (200, total(&plain)), "{path} {query}");
        }
        assert!(matches!(ask(path, "_format=xml").status, 400 | 406), "{path}");
    }
    assert_eq!(ask("/fhir/Group?_id=ten", "_format=nojson").status, 400);
}

/// CORE-03, DELETE-04, CLIENT-11: an error is `application/json` to who accepts that and not `application/fhir+json`;
/// to everybody else it is `application/fhir+json`. Answers that are no errors keep their types.
#[test]
fn errors_by_accepted_type() {
    let scratch = scratch();
    std::fs::write(scratch.path().join("serve.toml"), "[limits]\nbody_bytes = 1000\n").unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    let status = accepted(&client, &server.fhir("$export?_type=Patient"));
    assert_eq!(client.ask("DELETE", &status, &[("Accept", "application/json")], b"").status, 202);
    let large = "x".repeat(1001);
    let typed = ("Content-Type", "application/json");
    let refused: [Refused<'_>; 16] = [
        ("DELETE", &status, vec![], "", 404),
        ("GET", &status, vec![], "", 404),
        ("GET", "/fhir/bulk-files/x", vec![], "", 404),
        ("GET", "/nowhere", vec![], "", 404),
        ("GET", "/fhir/Group?foo=1", vec![], "", 400),
        ("GET", "/fhir/Group/nobody", vec![], "", 404),
        ("GET", "/fhir/$export?foo=1", vec![PREFER], "", 406),
        ("GET", "/uscore/v1/bulk-data/Group/ten/$export?foo=1", vec![PREFER], "", 400),
        ("GET", "/bulk-data/r4/$export?foo=1", vec![], "", 400),
        ("GET", "/v1/default/bulk-export/bulk-data/r4/Nope", vec![], "", 404),
        ("POST", "/v1/default/bulk-export/bulk-data/r4/Group", vec![], "", 403),
        ("PATCH", "/fhir/metadata", vec![], "", 405),
        ("POST", "/fhir/Group", vec![typed], &large, 413),
        ("POST", "/fhir/Group", vec![("Content-Type", "text/plain")], "{}", 415),
        ("POST", "/fhir/Group", vec![], "{}", 415),
        ("GET", "/fhir/metadata", vec![("Host", "second.example")], "", 400),
    ];
    for (method, path, headers, body, status) in &refused {
        for (accept, media_type) in [
            ("application/json", "application/json"),
            ("application/json;q=0.1, text/html", "application/json"),
            ("Application/JSON;charset=utf-8", "application/json"),
            ("application/fhir+json;q=0, */*", "application/json"),
            ("application/json, application/fhir+json;q=0.1", "application/fhir+json"),
            ("application/json, */*;q=0.1", "application/fhir+json"),
            ("application/*", "application/fhir+json"),
            ("application/json;q=0", "application/fhir+json"),
            ("text/html", "application/fhir+json"),
            ("", "application/fhir+json"),
        ] {
            let headers = [&headers[..], &[("Accept", accept)]].concat();
            let answer = client.ask(method, path, &headers, body.as_bytes());
            assert!((400..500).contains(&answer.status), "{method} {path} {accept}");
            if accept == "application/json" {
                assert_eq!(answer.status, *status, "{method} {path}: {}", answer.text());
            }
            assert_eq!(answer.header("content-type"), Some(media_type), "{method} {path} {accept}");
            assert_eq!(answer.json()["resourceType"], "OperationOutcome");
        }
    }
    let plain = [("Accept", "application/json")];
    assert_eq!(client.ask("HEAD", "/nowhere", &plain, b"").header("content-type"), Some("application/json"));
    // No error: the type of the answer itself.
    let group = client.ask("GET", "/fhir/Group/ten", &plain, b"");
    assert_eq!((group.status, group.header("content-type")), (200, Some("application/fhir+json")));
}

/// HDR-01, HDR-02, KICK-10, C-17: on the IG's mounts a kick-off accepts `application/fhir+json`, by whatever range, or
/// names JSON in `_format`; without the header it is refused where headers are required. Other mounts take any JSON.
#[test]
fn kick_offs_by_accepted_type() {
    const JSON: &str = "application/fhir+json";
    for (policy, absent) in [("strict", 400), ("assume", 202)] {
        let scratch = scratch();
        let toml = format!("[jobs]\nactive_per_client = 1000\n[ig]\nheader_policy = '{policy}'\n");
        std::fs::write(scratch.path().join("serve.toml"), toml).unwrap();
        let server = bundled(scratch.path(), &["--config", "serve.toml"]);
        server.wait_until_ready();
        let client = server.client();
        let active = || client.get("/health/ready").json()["activeJobs"].as_u64().unwrap();
        let levels = ["$export", "Patient/$export", "Group/ten/$export", "/Group/ten/%24export/"];
        let ask = |path: &str, accept: &[&str]| {
            let mut headers = vec![PREFER];
            headers.extend(accept.iter().map(|value| ("Accept", *value)));
            client.ask("GET", path, &headers, b"")
        };
        // Nothing is kicked off by what is refused.
        for level in levels {
            let path = format!("{IG}/{level}?_type=Device");
            for accept in [
                "application/json",
                "application/json, text/json",
                "application/json, */*;q=0",
                "application/fhir+json;q=0, application/json",
                "application/fhir+json;q=0, */*",
                "application/fhir+xml",
                "application/fhir+ndjson",
                "text/html",
            ] {
                let refused = ask(&path, &[accept]);
                assert_eq!((refused.status, refused.json()["issue"][0]["code"].as_str()), (406, Some("not-supported")));
                let text = refused.json()["issue"][0]["diagnostics"].as_str().unwrap().to_string();
                assert!(text.starts_with("Accept: ") && text.contains(JSON), "{text}");
                ask(&format!("{path}&_format=xml"), &[accept]);
            }
            let none = ask(&path, &[]);
            assert_eq!(none.status, absent, "{policy} {path}");
            if absent == 400 {
                assert!(none.outcome(400, "required").contains("Accept"));
                ask(&path, &[""]).outcome(400, "required");
            }
        }
        if absent == 400 {
            assert_eq!(active(), 0, "KICK-10");
        }
        for level in levels {
            let path = format!("{IG}/{level}?_type=Device");
            for accept in [
                // smart-fetch, cumulus-etl and bulk-data-client; Medplum; curl.
                &[JSON][..],
                &["application/fhir+json, */*; q=0.1"],
                &["*/*"],
                &["application/*;q=0.001"],
                &["application/json", "application/fhir+json;q=0.1"],
                &["application/json, */*;q=0.1"],
            ] {
                accepted(&client, &ask(&path, accept));
            }
            for format in ["json", "application/json", "text/json", "application/fhir%2Bjson"] {
                accepted(&client, &ask(&format!("{path}&_format={format}"), &["application/json"]));
                accepted(&client, &ask(&format!("{path}&_format={format}"), &[]));
            }
        }
        for base in [NETSMART, STE, MTE_DEFAULT] {
            let path = format!("{base}/Group/ten/$export?_type=Device");
            for accept in [&["application/json"][..], &[JSON], &["*/*"], &[]] {
                accepted(&client, &ask(&path, accept));
            }
            assert_eq!(ask(&path, &["text/html"]).status, 406, "{base}");
        }
    }
}

/// FILE-05, STATUS-16: the download of a file is refused to who excludes NDJSON; a poll is answered whatever is accepted.
#[test]
fn files_by_accepted_type() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &[]);
    server.wait_until_ready();
    let client = server.client();
    let status = accepted(&client, &server.fhir("$export?_type=Organization"));
    let (_, file, _) = files(&client, &ended(&client, &status).json()).remove(0);
    for (accept, expected) in [
        ("application/fhir+json", 406),
        ("application/json", 406),
        ("application/x-ndjson", 406),
        ("application/fhir+ndjson", 200),
        ("application/fhir+json, */*;q=0.1", 200),
    ] {
        for method in ["GET", "HEAD"] {
            assert_eq!(client.ask(method, &file, &[("Accept", accept)], b"").status, expected, "{method} {accept}");
        }
    }
}
