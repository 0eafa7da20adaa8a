//! Values in Groups that not every reader of JSON takes: refused when a Group is written, left out of search pages where it
//! lies in the store already.

use std::path::Path;

use serde_json::Value;

use super::server::Server;
use crate::run::{run, scratch};

fn group(id: &str, more: &str) -> String {
    format!(r#"{{"resourceType":"Group","id":"{id}","type":"person","actual":true,{more}"member":[]}}"#)
}

/// What is refused, with a part of what is told.
const REFUSED: [(&str, &str); 9] = [
    (r#""quantity":1e999999,"#, "Group.quantity (line 1, column "),
    (r#""quantity":-1,"#, "from 0 to 2147483647"),
    (r#""quantity":2.5,"#, "from 0 to 2147483647"),
    (r#""name":"a\ud800","#, "Group.name (line 1, column "),
    (r#""name":"\udc00b","#, "half of a surrogate pair"),
    (r#""code":{"text":"\ud83d\ud83d\ude00"},"#, "Group.code"),
    (r#""\ud800":1,"#, "half of a surrogate pair"),
    (r#""extension":[{"url":"u","valueDecimal":1e400}],"#, "Group.extension"),
    (r#""extension":[{"url":"u","valueInteger":2147483648}],"#, "-2147483648 to 2147483647"),
];

/// What is taken.
const TAKEN: [&str; 5] = [
    r#""quantity":0,"#,
    r#""quantity":2147483647,"#,
    r#""name":"\ud83d\ude00 \u00e9","#,
    r#""extension":[{"url":"u","valueDecimal":1.7976931348623157e308},{"url":"u","valueDecimal":0.000000000000000000000000000000010}],"#,
    r#""extension":[{"url":"u","valueDecimal":-123456789012345678901234567890.5},{"url":"u","valueInteger":-2147483648}],"#,
];

fn serve(directory: &Path) -> Server {
    let server = Server::start(directory, &["--store", "store", "--data", "data"]);
    server.wait_until_ready();
    server
}

/// GROUP-01, CORE-04: a number or string that R4's types do not have, or that some readers refuse with the whole document,
/// is refused by element and place, over HTTP as by `group check` and `group import`.
#[test]
fn values_are_checked_before_a_group_is_stored() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("a.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    let server = serve(scratch.path());
    let client = server.client();
    let json = [("Content-Type", "application/fhir+json")];
    let file = scratch.path().join("group.json");
    let (path, place) = (file.to_str().unwrap(), store.to_str().unwrap());
    for (more, told) in REFUSED {
        let body = group("g", more);
        for (method, target) in [("PUT", "/fhir/Group/g"), ("POST", "/fhir/Group")] {
            let said = client.ask(method, target, &json, body.as_bytes()).outcome(400, "value");
            assert!(said.contains(told), "{more}: {said}");
        }
        std::fs::write(&file, &body).unwrap();
        for words in [&["group", "check", path][..], &["group", "import", path, "--store", place]] {
            let said = run(words);
            assert!(said.code == 2 && said.said().contains(told), "{more}: {said:?}");
        }
    }
    client.get("/fhir/Group/g").outcome(404, "not-found");
    let found = client.get("/fhir/Group").json();
    assert_eq!(found["total"], 0, "{found}");
    for more in TAKEN {
        let body = group("g", more);
        assert!(client.ask("PUT", "/fhir/Group/g", &json, body.as_bytes()).status < 300, "{more}");
        std::fs::write(&file, &body).unwrap();
        let said = run(&["group", "check", path]);
        assert_eq!(said.code, 0, "{more}: {said:?}");
    }
}

/// GROUP-01: a Group of the store that some readers refuse is read as it is, and left out of search pages, which say so and
/// can be read by everybody.
#[test]
fn pages_can_be_read_whatever_the_store_holds() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let lines = [
        group("fine", r#""name":"fine","#),
        group("number", r#""quantity":1e999999,"#),
        group("surrogate", r#""name":"\ud800","#),
        group("typed", r#""quantity":-1,"#),
    ];
    std::fs::write(store.join("a.ndjson"), lines.join("\n") + "\n").unwrap();
    let built = run(&["index", "--store", store.to_str().unwrap(), "--lone-surrogates", "pass"]);
    assert_eq!(built.code, 0, "{built:?}");
    let server = serve(scratch.path());
    let client = server.client();
    let page = client.get("/fhir/Group");
    assert_eq!(page.status, 200);
    assert!(!page.text().contains("1e999999") && !page.text().contains("ud800"), "{}", page.text());
    let page: Value = page.json();
    assert_eq!(page["total"], 4, "{page}");
    let entries = page["entry"].as_array().unwrap();
    let ids: Vec<&str> = entries.iter().filter_map(|entry| entry["resource"]["id"].as_str()).collect();
    assert_eq!(ids, ["fine", "typed"]);
    let outcome = &entries.last().unwrap();
    assert_eq!(outcome["search"]["mode"], "outcome");
    let issues = outcome["resource"]["issue"].as_array().unwrap();
    let told: Vec<&str> = issues.iter().map(|issue| issue["diagnostics"].as_str().unwrap()).collect();
    assert!(told[0].contains("Group/number is left out") && told[1].contains("Group/surrogate"), "{told:?}");
    assert!(client.get("/fhir/Group/number").text().contains("1e999999"), "it is read as it is");
    assert!(client.get("/fhir/Group/surrogate").text().contains("ud800"));
}
