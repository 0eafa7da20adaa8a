//! The root of the service and the base of each mount, which say where things are.

use super::client::Answer;
use super::hostile::raw;
use super::job_lifecycle::bundled;
use super::vendors::{IG, MTE, MTE_DEFAULT, NETSMART, STE, World};
use crate::run::scratch;

/// The diagnostics of an overview.
#[track_caller]
fn texts(answer: &Answer) -> String {
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/fhir+json")),
        "{}",
        answer.text()
    );
    let body = answer.json();
    assert_eq!(body["resourceType"], "OperationOutcome");
    let issues = body["issue"].as_array().unwrap();
    assert!(
        issues
            .iter()
            .all(|issue| (&issue["severity"], &issue["code"]) == (&"information".into(), &"informational".into()))
    );
    issues.iter().map(|issue| issue["diagnostics"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// CAP-01, CORE-05, OUTCOME-05, ONEUP-M01: the root and the bases name URLs that answer, to everybody, and neither a path of
/// the host nor a tenant.
#[test]
fn bases_say_where_things_are() {
    let world = World::new("");
    let (client, full) = (world.client(), &world.full);
    let root = texts(&client.get("/"));
    for base in [IG, NETSMART, STE, "/v1/{customer}/bulk-export/bulk-data/r4"] {
        assert!(root.contains(&world.url(&format!("{base}/metadata"))), "{base}: {root}");
    }
    assert!(!root.contains("default") && !root.contains("ExampleCompany"), "{root}");
    let directory = world.scratch.path().to_str().unwrap();
    for base in [IG, NETSMART, STE, MTE, MTE_DEFAULT] {
        let plain = client.get(base);
        let text = texts(&plain);
        assert!(!text.contains(directory), "{text}");
        assert_eq!(full.get(&client, base).body, plain.body, "{base}: the same for everybody");
        assert_eq!(client.get(&format!("/{base}//")).body, plain.body, "{base}");
        assert_eq!(client.ask("HEAD", base, &[], b"").status, 200);
        let metadata = format!("{base}/metadata");
        assert!(text.contains(&world.url(&metadata)), "{text}");
        assert_eq!(client.get(&metadata).status, 200);
        assert!(text.contains(&world.url(&format!("{base}/Group/{{id}}/$export"))), "{text}");
        for (level, ours) in [
            ("/$export", base != NETSMART),
            ("/Patient/$export", base == IG),
            ("/{type}", base == MTE || base == MTE_DEFAULT),
        ] {
            let url = world.url(&format!("{base}{level}"));
            assert_eq!(text.split([' ', ',', '\n']).any(|word| word == url), ours, "{url}: {text}");
        }
        // Asking for the overview is all that is free.
        let refused = client.ask("POST", base, &[], b"").status;
        assert_eq!(refused, if text.contains("{type}") { 403 } else { 405 }, "{base}");
        assert!(client.get(&format!("{base}/Group/example-group")).status >= 401, "{base}");
    }
    assert_eq!(client.get("/v1/nobody/bulk-export/bulk-data/r4").status, 200, "ONEUP-M01: for any name");
    client.get("/v1/{customer}/bulk-export/bulk-data/r4").outcome(404, "not-found");
    client.ask("EXPORT", MTE, &[], b"").outcome(405, "not-supported");
    let refused = client.ask("POST", "/", &[("Content-Type", "application/json")], b"{}");
    refused.outcome(405, "not-supported");
    assert!(refused.header("allow").unwrap().contains("GET"));
}

/// CLIENT-04, CAP-01, DIALECT-04: an overview has the forms of a description, and shows what is switched on.
#[test]
fn overviews_show_what_is_on() {
    let scratch = scratch();
    let toml = "public_url = 'https://bulk.example.org/api/'\n[ig]\nsystem_level = false\npatient_level = false\n\
        [netsmart]\nenabled = false\n[oneup_ste]\nenabled = false\n[oneup_mte]\nenabled = false\n";
    std::fs::write(scratch.path().join("serve.toml"), toml).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    let client = server.client();
    let root = texts(&client.get("/"));
    assert!(root.ends_with(": https://bulk.example.org/api/fhir/metadata"), "{root}");
    let base = texts(&client.get("/fhir"));
    assert!(
        base.ends_with(" https://bulk.example.org/api/fhir/Group/{id}/$export") && !base.contains("fhir/$export"),
        "{base}"
    );
    for path in ["/", "/fhir"] {
        for (accept, query, status, media_type) in [
            ("*/*", "", 200, "application/fhir+json"),
            ("text/html,*/*;q=0.8", "", 200, "application/fhir+json"),
            ("application/json", "", 200, "application/json"),
            ("text/html", "?_format=json&_pretty=true", 200, "application/fhir+json"),
            ("text/html", "", 406, "application/fhir+json"),
            ("*/*", "?_format=xml", 406, "application/fhir+json"),
        ] {
            let answer = client.ask("GET", &format!("{path}{query}"), &[("Accept", accept)], b"");
            assert_eq!((answer.status, answer.header("content-type")), (status, Some(media_type)), "{path} {accept}");
        }
    }
    client.get("/uscore/v1/bulk-data").outcome(404, "not-found");
    // Without clients pages of other sites read it no more than anything else.
    let foreign = b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    raw(&server, foreign, false).unwrap().outcome(421, "forbidden");
    let log = server.log();
    assert!(log.contains("Overview"), "{log}");
}
