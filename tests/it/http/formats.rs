//! The form of answers: `_format`, `_pretty` and `Accept` at kick-offs, searches and descriptions.

use super::client::Answer;
use super::job_lifecycle::{accepted, bundled};
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
        ("GET", "/fhir/$export?foo=1", vec![PREFER], "", 400),
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
