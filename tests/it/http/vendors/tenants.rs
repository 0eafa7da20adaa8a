//! Which tenants there are: no answer tells who may not ask for them. What the readiness probe tells to whom.

use serde_json::Value;

use super::{MTE, MTE_DEFAULT, World, kick_off};
use crate::http::client::Answer;
use crate::http::credentials::{Credential, client};
use crate::http::server::Server;
use crate::run::scratch;

/// The name of a tenant that is not there.
const NOBODY: &str = "nobody";

/// What a client can see of an answer, with the name of the tenant taken out: status, headers and body.
fn seen(answer: &Answer, name: &str) -> (u16, Vec<Option<String>>, String) {
    let headers =
        ["content-type", "www-authenticate", "cache-control", "allow", "vary", "content-location", "retry-after"];
    let place = format!("/v1/{name}/");
    let headers = headers.map(|header| answer.header(header).map(|value| value.replace(&place, "/v1/*/")));
    (answer.status, headers.to_vec(), answer.text().replace(&place, "/v1/*/"))
}

/// ONEUP-M01: without a valid credential the names of all tenants answer alike, those that are not there too, whatever the
/// method and the path; with one, an unknown and a foreign tenant do. What is public is so for every name.
#[test]
fn no_answer_tells_which_tenants_there_are() {
    let world = World::new("");
    let client = world.client();
    let wrong = Credential::token(&[]);
    let base = |name: &str| MTE.replace("ExampleCompany", name);
    for path in [
        "/$export",
        "/$export?_type=Patient",
        "/$export/job/5edebc8a-2514-4ae1-874e-7029785e9639",
        "/$export/file/Patient_00000000.ndjson",
        "/Group",
        "/Group?name=x&_count=-1",
        "/Group/example-group",
        "/Group/no%20id",
        "/Group/example-group/$export",
        "/Encounter",
        "/Nope",
        "/metadata",
        "/metadata?_format=xml",
        "/OperationDefinition/export",
        "/OperationDefinition/none",
        "",
        "/nowhere/at/all",
        "//Group//example-group/",
        "/%24export",
    ] {
        for method in ["GET", "HEAD", "EXPORT", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
            let targets = [NOBODY, "default", "ExampleCompany"].map(|name| (name, format!("{}{path}", base(name))));
            let bare = targets.clone().map(|(name, target)| seen(&client.ask(method, &target, &[], b""), name));
            assert!(bare[0] == bare[1] && bare[0] == bare[2], "{method} {path}: {bare:?}");
            let denied = targets.clone().map(|(name, target)| seen(&wrong.ask(&client, method, &target, &[]), name));
            assert!(denied[0] == denied[1] && denied[0] == denied[2], "{method} {path}: {denied:?}");
            // The rival is of the first tenant alone: the second one is as unknown to it as the third.
            let foreign = [&targets[0], &targets[2]]
                .map(|(name, target)| seen(&world.rival.ask(&client, method, target, &[]), name));
            assert_eq!(foreign[0], foreign[1], "{method} {path}");
        }
    }
    for path in ["/$export", "/Group/example-group", "/Encounter", "/$export/file/x"] {
        client.get(&format!("{}{path}", base(NOBODY))).outcome(401, "login");
        for name in [NOBODY, "ExampleCompany"] {
            let text = world.rival.get(&client, &format!("{}{path}", base(name))).outcome(404, "not-found");
            assert!(text.contains("tenant"), "{text}");
        }
    }
    let described = client.get(&format!("{}/metadata", base(NOBODY))).json();
    assert!(described["implementation"]["url"].as_str().unwrap().ends_with(&base(NOBODY)), "{described}");
    // What cannot be the name of a tenant is no URL, with or without credentials.
    for name in [".hidden", "a%20b", "%64efault", &"x".repeat(65), "a*b"] {
        for path in ["/metadata", "/Encounter"] {
            client.get(&format!("{}{path}", base(name))).outcome(404, "not-found");
            world.full.get(&client, &format!("{}{path}", base(name))).outcome(404, "not-found");
        }
    }
    // The log has both, for the operator.
    let log = world.server.log();
    assert!(log.lines().any(|line| line.contains("OtherTenant") && line.contains("ExampleCompany")), "{log}");
}

/// ONEUP-M01: without clients, a tenant that is not there is a 404.
#[test]
fn without_clients() {
    let scratch = scratch();
    std::fs::create_dir(scratch.path().join("store")).unwrap();
    std::fs::write(scratch.path().join("store/a.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    let server = Server::start(scratch.path(), &["--store", "store", "--data", "data"]);
    let client = server.client();
    client.get("/v1/nobody/bulk-export/bulk-data/r4/$export").outcome(404, "not-found");
    assert_ne!(client.get(&format!("{MTE_DEFAULT}/Patient")).status, 404);
    server.wait_until_ready();
    let ready = client.get("/health/ready").json();
    assert!(ready["activeJobs"].is_u64() && ready["faultyLines"].is_u64(), "everybody may see everything: {ready}");
    // The name that jobs have without clients can be none of theirs.
    let token = Credential::token(&[]);
    std::fs::write(scratch.path().join("serve.toml"), client_named("anybody", &token)).unwrap();
    drop(server);
    let words = ["--store", "store", "--data", "data", "--config", "serve.toml"];
    let said = Server::try_start(scratch.path(), &words).err().expect("it does not start");
    assert!(said.contains("client anybody") && said.contains("without authorization"), "{said}");
}

fn client_named(name: &str, token: &Credential) -> String {
    client(name, "", &[token])
}

/// CONS-10, reading 24: the numbers of the readiness probe are for clients that are bound to nothing, of their tenants; the
/// state is for everybody.
#[test]
fn the_probe_counts_for_who_may_see_it() {
    let world = World::new("");
    let client = world.client();
    let counts = ["activeJobs", "faultyLines", "filesNotRead"];
    let shown = |ready: &Value| counts.map(|name| ready[name].as_u64());
    let wrong = Credential::token(&[]);
    // A job that waits: the lock of the second tenant's index is held.
    let held = std::fs::File::create(world.scratch.path().join("store2/.outpour/lock")).unwrap();
    held.lock().unwrap();
    std::fs::write(world.scratch.path().join("store2/new.ndjson"), "{\"resourceType\":\"Basic\",\"id\":\"b\"}\n")
        .unwrap();
    let job = kick_off(&client, &world.full, &format!("{MTE}/Patient"));
    for (who, expected) in [
        (None, [None; 3]),
        (Some(&wrong), [None; 3]),
        (Some(&world.narrow), [None; 3]),
        (Some(&world.writer), [None; 3]),
        (Some(&world.user), [None; 3]),
        (Some(&world.full), [Some(1), Some(0), Some(0)]),
        (Some(&world.by_headers), [Some(1), Some(0), Some(0)]),
        (Some(&world.stranger), [Some(1), Some(0), Some(0)]),
        (Some(&world.rival), [Some(0); 3]),
    ] {
        let ready = match who {
            None => client.get("/health/ready"),
            Some(who) => who.get(&client, "/health/ready"),
        };
        assert_eq!((ready.status, shown(&ready.json())), (200, expected), "{}", ready.text());
        assert_eq!(ready.json()["status"], "ready");
    }
    assert!(world.server.log().lines().any(|line| line.contains("outpour::audit") && line.contains("Unknown")));
    drop(held);
    // A store that lacks something: how much is told likewise. What was in no snapshot is not missed.
    world.full.manifest(&client, &job);
    let (store, away) = (world.scratch.path().join("store2/all.ndjson"), world.scratch.path().join("away"));
    std::fs::rename(&store, &away).unwrap();
    world.full.ask(&client, "GET", &format!("{MTE}/$export"), &[("Prefer", "respond-async")]);
    let unready = (0..1000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let answer = client.get("/health/ready");
        (answer.status == 503).then_some(answer)
    });
    let bare = unready.expect("it is not ready").outcome(503, "transient");
    assert!(bare.contains("gone from the store") && !bare.contains(|c: char| c.is_ascii_digit()), "{bare}");
    let told = world.stranger.get(&client, "/health/ready").outcome(503, "transient");
    assert!(told.contains(" of "), "{told}");
    assert_eq!(world.rival.get(&client, "/health/ready").outcome(503, "transient"), bare);
}
