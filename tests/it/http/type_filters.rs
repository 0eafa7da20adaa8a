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

/// What a refused kick-off says when it is sent by POST, which takes filters of any length.
fn refused_post(client: &Client, filters: &[String], types: &str) -> Vec<String> {
    let entry = |name: &str, text: &str| format!(r#"{{"name":"{name}","valueString":"{text}"}}"#);
    let entries: Vec<String> = filters.iter().map(|filter| entry("_typeFilter", filter)).collect();
    let answer =
        post(client, "Group/ten/$export", &parameters(&[entries, vec![entry("_type", types)]].concat().join(",")));
    assert_eq!(answer.status, 400, "{filters:?}");
    let issues = answer.json()["issue"].as_array().unwrap().clone();
    issues.iter().map(|issue| issue["diagnostics"].as_str().unwrap().to_string()).collect()
}

/// TFILTER-06, TFILTER-08, HDR-06: parameters, modifiers, prefixes, dates that do not exist, too many filters and values, and types
/// that are not exported: each is told by name in one answer, and none of them gets through. `Patient?status` is no parameter of
/// R4: it is refused, and under lenient handling the type is whole and a message says so.
#[test]
fn every_wrong_filter_is_told_by_name() {
    let scratch = scratch();
    let server = bundled(scratch.path(), &["--config", "/dev/null"]);
    server.wait_until_ready();
    let client = server.client();
    let texts = |all: &[&str]| all.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    let wrong = [
        ("Patient?birthdate=2021-02-29", "Patient?birthdate: a value of it is no date"),
        ("Patient?death-date=ge2021-13", "Patient?death-date: a value of it is no date"),
        ("Patient?_lastUpdated=lt2021-01-01T00:00:00%2B14:01", "Patient?_lastUpdated: a value of it is no date"),
        ("Observation?date=zz2021", "Observation?date: a value of it is no date"),
        ("Observation?value-quantity=~5", "Observation?value-quantity: a value of it is no number"),
        ("Observation?code:below=SECRET", "Observation?code: the modifier :below"),
        ("Observation?subject:Person=a&subject:Nobody=SECRET", "Observation?subject: the modifier :Nobody"),
        ("Observation?status=http://h.example|SECRET", "Observation?status: its values name no system"),
        ("Patient?telecom=home|SECRET", "Patient?telecom: its values name no system"),
        ("Patient?gender:missing=SECRET", "Patient?gender: :missing takes true or false"),
        ("Patient?gender=", "Patient?gender: it has no value"),
        ("Patient?status=SECRET", "Patient?status: there is no such search parameter"),
        ("Encounter?class=SECRET", "Encounter?: this type is not among those of _type"),
        ("Person?name=SECRET", "Person?: this type is not among those of _type"),
        ("Parson?name=SECRET", "there is no resource type Parson"),
    ];
    let told = refused_post(&client, &texts(&wrong.map(|(text, _)| text)), "Patient,Observation");
    assert_eq!(told.len(), wrong.len(), "{told:#?}");
    for (_, part) in wrong {
        assert!(told.iter().any(|text| text.starts_with("_typeFilter: ") && text.contains(part)), "{part}: {told:#?}");
    }
    assert!(!told.concat().contains("SECRET"), "{told:#?}");
    let thousand = refused_post(&client, &vec!["Patient?gender=male".to_string(); 1000], "Patient");
    assert_eq!(thousand, ["_typeFilter: there are 1000 filters; give at most 100"]);
    let ids = |count: usize| format!("Patient?_id={}", vec!["a"; count].join(","));
    assert_eq!(
        refused_post(&client, &[ids(1001)], "Patient"),
        ["_typeFilter: Patient?_id: it has 1001 values; give at most 1000"]
    );
    let long = refused_post(&client, &[format!("Patient?family={}", "a".repeat(1 << 20))], "Patient");
    assert_eq!(long, ["_typeFilter: a filter has 1048591 bytes; give at most 65536"]);
    // By GET alone, strict and lenient.
    assert_eq!(
        refused(&client, "Patient/$export?_typeFilter=Patient%3Fstatus%3Dactive"),
        ["_typeFilter: Patient?status: there is no such search parameter here"]
    );
    let lenient = [("Accept", "application/fhir+json"), ("Prefer", "respond-async, handling=lenient")];
    let path = "/fhir/Group/ten/$export?_type=Patient&_typeFilter=Patient%3Fstatus%3Dactive";
    let answer = client.ask("GET", path, &lenient, b"");
    let manifest = ended(&client, &accepted(&client, &answer)).json();
    let told = messages(&client, &manifest);
    let part = "_typeFilter: Patient is not filtered, and all of it is exported; Patient?status: there is no such search parameter";
    assert!(told.iter().any(|text| text.starts_with(part)), "{told:?}");
    assert_eq!(manifest["output"][0]["count"], 10);
    assert_eq!(server.stop(), Some(0));
}
