//! A damaged file of one Group in the data directory.

use super::job_lifecycle::{accepted, ended};
use super::server::Server;
use super::store_away::{exports, serve};
use crate::run::scratch;

/// GROUP-01: one damaged file of a Group stops that Group only, whether it is damaged before the start or later. It is served
/// again when it has been put back.
#[test]
fn a_damaged_group_stops_itself_only() {
    let scratch = scratch();
    let server = serve(scratch.path());
    let json = [("Content-Type", "application/fhir+json")];
    let body = |id: &str| {
        format!(
            r#"{{"resourceType":"Group","id":"{id}","type":"person","actual":true,"name":"{id}","member":[{{"entity":{{"reference":"Patient/a"}}}}]}}"#
        )
    };
    for id in ["bad", "good"] {
        assert_eq!(server.client().ask("PUT", &format!("/fhir/Group/{id}"), &json, body(id).as_bytes()).status, 201);
    }
    let file = scratch.path().join("data/groups/bad.ndjson");
    let whole = std::fs::read(&file).unwrap();
    let check = |server: &Server, by: &str| {
        let client = server.client();
        for (method, target) in
            [("GET", "Group/bad"), ("GET", "Group/bad/_history/1"), ("PUT", "Group/bad"), ("DELETE", "Group/bad")]
        {
            let sent = if method == "PUT" { body("bad") } else { String::new() };
            let said = client.ask(method, &format!("/fhir/{target}"), &json, sent.as_bytes()).outcome(500, "exception");
            assert!(said.contains("Group/bad is damaged"), "{by} {method}: {said}");
        }
        let said = server.fhir("Group/bad/$export").outcome(500, "exception");
        assert!(said.contains("Group/bad is damaged"), "{by}: {said}");
        assert_eq!(client.get("/fhir/Group/good").status, 200, "{by}");
        let page = client.get("/fhir/Group").json();
        let ids: Vec<&str> =
            page["entry"].as_array().unwrap().iter().filter_map(|entry| entry["resource"]["id"].as_str()).collect();
        assert_eq!((ids, &page["total"]), (vec!["good", "of-store"], &2.into()), "{by}: {page}");
        assert!(page.to_string().contains("Group/bad is damaged"), "{by}: {page}");
        let job = accepted(&client, &server.fhir("Group/good/$export"));
        assert_eq!(ended(&client, &job).status, 200, "{by}");
        exports(server);
        assert_eq!(client.ask("PUT", "/fhir/Group/good", &json, body("good").as_bytes()).status, 200, "{by}");
        assert!(
            server.log().contains("bad.ndjson is damaged") || server.log().contains("bad.ndjson: "),
            "{by}: {}",
            server.log()
        );
    };
    // 1. Damaged under the running service: other bytes, a version of before, cut.
    for damaged in [b"{\"resourceType\":\"Group\"}\n".to_vec(), whole[..whole.len() / 2].to_vec(), Vec::new()] {
        std::fs::write(&file, damaged).unwrap();
        check(&server, "running");
    }
    // Put back from a copy.
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(server.client().get("/fhir/Group/bad").status, 200);
    assert_eq!(server.client().ask("PUT", "/fhir/Group/bad", &json, body("bad").as_bytes()).status, 200);
    drop(server);
    // 2. Damaged when the service starts.
    let whole = std::fs::read(&file).unwrap();
    for damaged in [whole[..whole.len() / 2].to_vec(), b"nonsense".to_vec()] {
        std::fs::write(&file, damaged).unwrap();
        let server = serve(scratch.path());
        check(&server, "at start");
    }
    let server = serve(scratch.path());
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(server.client().get("/fhir/Group/bad").header("etag"), Some("W/\"2\""), "it need not start anew");
    drop(server);
    // 3. Given up.
    std::fs::write(&file, "nonsense").unwrap();
    let server = serve(scratch.path());
    std::fs::remove_file(&file).unwrap();
    server.client().get("/fhir/Group/bad").outcome(404, "not-found");
}
