//! `group import` into the store of a running service: the next kick-off exports the members of the imported Group.

use serde_json::json;

use super::job_lifecycle::{accepted, ended, files};
use super::server::Server;
use crate::run::{self, scratch};

/// ONEUP-G07, ONEUP-M11, GROUP-07: exports before and after a second import hold the members of the Group at their
/// kick-off, and a finished export does not change.
#[test]
fn an_imported_group_is_exported_and_its_changes_too() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    crate::fixture::plain_store(&store, &["Patient", "Condition"], 1);
    let patients = std::fs::read_to_string(store.join("Patient.ndjson")).unwrap();
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_string();
    let ids: Vec<String> = patients.lines().take(5).map(id).collect();
    let import = |count: usize, version: usize| {
        let member: Vec<_> =
            ids[..count].iter().map(|id| json!({"entity": {"reference": format!("Patient/{id}")}})).collect();
        let group = json!({
            "resourceType": "Group", "id": "imported", "type": "person", "actual": true, "member": member,
            "meta": {"versionId": version.to_string(), "lastUpdated": format!("2024-01-0{version}T00:00:00Z")},
        });
        let file = scratch.path().join("group.json");
        std::fs::write(&file, serde_json::to_string_pretty(&group).unwrap()).unwrap();
        let (file, store) = (file.to_str().unwrap(), store.to_str().unwrap());
        let run = run::run(&["group", "import", file, "--store", store, "--rules", "oneup"]);
        assert_eq!(run.code, 0, "{run:#?}");
        assert!(!run.said().contains("counts as later"), "{run:#?}");
    };
    let server = Server::start(scratch.path(), &["--store", "store", "--data", "data"]);
    let client = server.client();
    let export = || {
        let status = accepted(&client, &server.fhir("Group/imported/$export?_type=Patient"));
        let done = ended(&client, &status);
        assert_eq!(done.status, 200, "{}", done.text());
        status
    };
    let exported = |status: &str| {
        let manifest = ended(&client, status).json();
        let mut found = Vec::new();
        for (of, path, _) in files(&client, &manifest) {
            assert_eq!(of, "Patient", "{manifest}");
            found.extend(client.get(&path).text().lines().map(id));
        }
        found.sort();
        found
    };
    let expected = |count: usize| {
        let mut ids = ids[..count].to_vec();
        ids.sort();
        ids
    };
    server.fhir("Group/imported/$export").outcome(404, "not-found");
    import(2, 1);
    let first = export();
    assert_eq!(exported(&first), expected(2));
    import(5, 2);
    assert_eq!(exported(&export()), expected(5), "ONEUP-M11");
    assert_eq!(exported(&first), expected(2));
}
