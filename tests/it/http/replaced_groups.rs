//! Store files that hold Groups and are replaced, or appended to, under a running service.

use super::server::Server;
use super::store_away::serve;
use crate::run::scratch;
use std::path::Path;

/// A Group of one patient, of the store.
fn group(id: &str, patient: &str, name: &str) -> String {
    format!(
        r#"{{"resourceType":"Group","id":"{id}","meta":{{"lastUpdated":"2024-01-01T00:00:00Z"}},"type":"person","actual":true,"name":"{name}","member":[{{"entity":{{"reference":"Patient/{patient}"}}}}]}}"#
    ) + "\n"
}

/// Replaces a file by rename.
fn replace(store: &Path, text: &str) {
    std::fs::write(store.join(".new"), text).unwrap();
    std::fs::rename(store.join(".new"), store.join("groups.ndjson")).unwrap();
}

/// GROUP-01, KICK-16: a Group is read from the file that it was indexed in or from the one that stands there now, never by the place of the
/// one in the other: neither another Group nor a part of one is given for it. A kick-off after the replacement takes the new version.
/// A service without a configuration outlives its terminal.
#[test]
fn groups_of_a_replaced_file_are_its_own() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    replace(&store, &(group("g", "a", "one") + &group("h", "b", "two")));
    let server: Server = serve(scratch.path());
    server.hang_up();
    let client = server.client();
    let name = |id: &str| {
        let found = client.get(&format!("/fhir/Group/{id}"));
        assert_eq!(found.status, 200, "{id}: {}", found.text());
        assert_eq!(found.json()["id"], id);
        found.json()["name"].as_str().unwrap().to_string()
    };
    // 1. The same lengths in another order, before anybody has read a Group.
    replace(&store, &(group("h", "b", "TWO") + &group("g", "a", "ONE")));
    assert_eq!([name("g"), name("h")], ["ONE", "TWO"]);
    // 2. Longer lines.
    replace(&store, &(group("h", "b", "the second") + &group("g", "a", "the first")));
    let page = client.get("/fhir/Group?_id=g").json();
    assert_eq!(page["entry"][0]["resource"]["name"], "the first", "{page}");
    replace(&store, &(group("h", "b", "the second of all") + &group("g", "a", "the first of all")));
    assert_eq!(server.fhir("Group/g/$export").status, 202);
    assert_eq!(name("h"), "the second of all");
    // 3. Appended.
    let newer = group("g", "b", "newer").replace("2024-01-01", "2024-01-02");
    let grown = std::fs::read_to_string(store.join("groups.ndjson")).unwrap() + &newer;
    std::fs::write(store.join("groups.ndjson"), grown).unwrap();
    assert_eq!(name("g"), "newer");
}
