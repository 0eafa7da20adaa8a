//! `_typeFilter` over HTTP: the same as on the command line, refused by name, and declared.

use super::client::Client;
use super::job_lifecycle::{accepted, bundled, ended};
use super::post::{HEADERS, lines, messages, parameters, post};
use crate::run::{run, scratch, testdata};
use serde_json::Value;

const FILTER: &str = "Observation?category=laboratory&date=ge2015-01-01";

/// TFILTER-01, TFILTER-07, TFILTER-11, CLIENT-07, PARAM-05: by GET, encoded once and twice, in one value or several, and by POST the files
/// are those of the command line; the manifest names the URL as it was sent.
#[test]
fn filters_over_http_and_on_the_command_line() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &["--config", "/dev/null"]);
    server.wait_until_ready();
    let client = server.client();
    let once = "Observation%3Fcategory%3Dlaboratory%26date%3Dge2015-01-01";
    let twice = "Observation%3Fcategory%3Dlaboratory%252Cx%26date%3Dge2015-01-01";
    let query = format!("Group/ten/$export?_type=Patient,Observation,Encounter&_typeFilter={once}");
    let manifest = ended(&client, &accepted(&client, &server.fhir(&query))).json();
    assert!(manifest["request"].as_str().unwrap().ends_with(&query), "{}", manifest["request"]);
    let served = lines(&client, &manifest);
    let text = String::from_utf8(served["Observation.00001.ndjson"].clone()).unwrap();
    assert!(text.lines().count() > 10);
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["category"][0]["coding"][0]["code"], "laboratory");
    }
    let done = |path: &str| lines(&client, &ended(&client, &accepted(&client, &server.fhir(path))).json());
    assert_eq!(served, done(&query.replace(once, twice)));
    // An alternative that finds nothing, in the same value or another, changes nothing.
    assert_eq!(served, done(&format!("{query},Observation%3F_id%3Dnobody")));
    assert_eq!(served, done(&format!("{query}&_typeFilter=Observation%3F_id%3Dnobody")));
    let body = parameters(&format!(r#"{{"name":"_typeFilter","valueString":"{FILTER}"}}"#));
    let by_post = post(&client, "Group/ten/$export?_type=Patient,Observation,Encounter", &body);
    assert_eq!(served, lines(&client, &ended(&client, &accepted(&client, &by_post)).json()));
    let (out, store, index) =
        (scratch.path().join("out"), testdata("stores/synthea-r4-100"), scratch.path().join("index"));
    let mut command = vec!["export", "--store", store.to_str().unwrap(), "--index-dir", index.to_str().unwrap()];
    command.extend([
        "--out",
        out.to_str().unwrap(),
        "--group",
        "ten",
        "--members",
        "active",
        "--context",
        "referenced",
    ]);
    command.extend(["--type", "Patient,Observation,Encounter", "--type-filter", FILTER, "--as-of"]);
    command.push(manifest["transactionTime"].as_str().unwrap());
    let base = format!("http://{}/fhir", server.address);
    command.extend(["--fhir-base", &base]);
    let done = run(&command);
    assert_eq!(done.code, 0, "{done:?}");
    for (name, body) in &served {
        assert!(std::fs::read(out.join(name)).unwrap() == *body, "{name}");
    }
    assert_eq!(server.stop(), Some(0));
}

/// The diagnostics of a refused kick-off.
fn refused(client: &Client, query: &str) -> Vec<String> {
    let answer = client.ask("GET", &format!("/fhir/{query}"), &HEADERS[..2], b"");
    assert_eq!(answer.status, 400, "{query}");
    let issues = answer.json()["issue"].as_array().unwrap().clone();
    issues.iter().map(|issue| issue["diagnostics"].as_str().unwrap().to_string()).collect()
}

/// TFILTER-04, TFILTER-05, TFILTER-06, TFILTER-08, HDR-05: refused by name, all at once, with no word of a value; under lenient
/// handling the type is whole, which a message says. No value is in the log.
#[test]
fn filters_that_cannot_be_evaluated() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &["--config", "/dev/null"]);
    server.wait_until_ready();
    let client = server.client();
    let wrong = "_typeFilter=Patient%3Fstatus%3DSECRET&_typeFilter=Observation%3Fcode%3Ain%3DSECRET%26_sort%3DSECRET";
    let told = refused(&client, &format!("Group/ten/$export?{wrong}&_typeFilter=Encounter%3Fdate%3DSECRET"));
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told.iter().all(|text| text.starts_with("_typeFilter: ") && !text.contains("SECRET")), "{told:?}");
    let unused = refused(&client, "Group/ten/$export?_type=Patient&_typeFilter=Observation%3Fcode%3DSECRET");
    assert!(unused[0].starts_with("_typeFilter: Observation?: ") && unused.len() == 1, "{unused:?}");
    assert_eq!(refused(&client, "Group/ten/$export?_typeFilter=Observation").len(), 1);
    let lenient = [("Accept", "application/fhir+json"), ("Prefer", "respond-async, handling=lenient")];
    let path = format!("/fhir/Group/ten/$export?_type=Patient&{wrong}");
    let answer = client.ask("GET", &path, &lenient, b"");
    let manifest = ended(&client, &accepted(&client, &answer)).json();
    let texts = messages(&client, &manifest);
    assert!(texts[0].starts_with("_typeFilter: Patient is not filtered"), "{texts:?}");
    assert!(texts.iter().all(|text| !text.contains("SECRET")), "{texts:?}");
    let patients = String::from_utf8(lines(&client, &manifest)["Patient.00001.ndjson"].clone()).unwrap();
    assert_eq!(patients.lines().count(), 10);
    assert!(!server.log().contains("SECRET"), "{}", server.log());
    assert_eq!(server.stop(), Some(0));
}

/// CAP-06: the CapabilityStatement lists the search parameters that filters take, each once; Netsmart's documents have none.
#[test]
fn search_parameters_are_declared() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &["--config", "/dev/null"]);
    let statement = server.fhir("metadata").json();
    let resources = statement["rest"][0]["resource"].as_array().unwrap();
    let of = |name: &str| resources.iter().find(|resource| resource["type"] == name).unwrap();
    let names = |name: &str| -> Vec<String> {
        let list = of(name)["searchParam"].as_array().unwrap();
        list.iter().map(|parameter| parameter["name"].as_str().unwrap().to_string()).collect()
    };
    for (name, has) in
        [("Observation", "category"), ("Patient", "_lastUpdated"), ("Group", "member"), ("Device", "_tag")]
    {
        let mut all = names(name);
        assert!(all.iter().any(|known| known == has), "{name}");
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "{name}");
    }
    assert_eq!(server.stop(), Some(0));
}
