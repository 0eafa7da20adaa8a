//! The form of answers: `_format`, `_pretty` and `Accept` at kick-offs, searches and descriptions.

use super::client::Answer;
use super::job_lifecycle::{accepted, bundled};
use super::vendors::{IG, MTE_DEFAULT, NETSMART, STE};
use crate::run::scratch;

const PREFER: (&str, &str) = ("Prefer", "respond-async");
const FHIR_JSON: (&str, &str) = ("Accept", "application/fhir+json");

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
