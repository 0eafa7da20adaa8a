//! A store that is empty, or lacks much of what it held: the service is not ready, starts no export, and recovers by
//! itself.

use std::time::Duration;

use super::job_lifecycle::{accepted, ended};
use super::server::Server;
use crate::run::scratch;

/// Waits until the service is ready.
#[track_caller]
fn wait_until_ready(server: &Server) {
    wait_until(server, 200, "");
}

/// Waits until the service is not ready for the reason given; the answer of the probe. A service that is still opening
/// its index is not ready either.
#[track_caller]
fn wait_until_unready(server: &Server, reason: &str) -> String {
    wait_until(server, 503, reason)
}

#[track_caller]
fn wait_until(server: &Server, status: u16, reason: &str) -> String {
    for _ in 0..3000 {
        let answer = server.client().get("/health/ready");
        let text = answer.text();
        if answer.status == status && text.contains(reason) {
            return text;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not {status} {reason:?} in time:\n{}", server.log());
}

/// Asserts that a kick-off is refused for the time being, and that nothing of the host or the data is told.
#[track_caller]
fn refused(server: &Server) {
    let answer = server.fhir("Patient/$export");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    let text = answer.outcome(503, "transient");
    assert!(!text.contains("store/") && !text.contains("ndjson") && !text.contains("30"), "{text}");
}

/// From an empty directory to a store, to one that is not mounted, to one that lacks a directory, and back each time.
#[test]
fn a_store_goes_and_comes_back() {
    let scratch = scratch();
    let (store, away) = (scratch.path().join("store"), scratch.path().join("away"));
    std::fs::create_dir(&store).unwrap();
    let server = Server::start(scratch.path(), &["--store", "store", "--index-dir", "index", "--data", "data"]);
    // 1. No data file yet.
    refused(&server);
    wait_until_unready(&server, "no data file");
    let row = |n: u32| format!("{{\"resourceType\":\"Patient\",\"id\":\"p{n}\"}}\n");
    std::fs::create_dir(store.join("d")).unwrap();
    std::fs::write(store.join("a.ndjson"), (0..20).map(row).collect::<String>()).unwrap();
    std::fs::write(store.join("d/b.ndjson"), (20..30).map(row).collect::<String>()).unwrap();
    wait_until_ready(&server);
    let export = || {
        let answer = server.fhir("Patient/$export");
        let job = accepted(&server.client(), &answer);
        assert_eq!(ended(&server.client(), &job).status, 200);
    };
    export();
    // 2. Not mounted.
    std::fs::rename(&store, &away).unwrap();
    std::fs::create_dir(&store).unwrap();
    refused(&server);
    let text = wait_until_unready(&server, "30 of 30 resources");
    assert!(!text.contains("ndjson"), "{text}");
    std::fs::remove_dir(&store).unwrap();
    std::fs::rename(&away, &store).unwrap();
    wait_until_ready(&server);
    export();
    // 3. Part of it is missing.
    std::fs::rename(store.join("d"), &away).unwrap();
    refused(&server);
    wait_until_unready(&server, "10 of 30 resources");
    std::fs::rename(&away, store.join("d")).unwrap();
    wait_until_ready(&server);
    export();
    assert_eq!(server.stop(), Some(0));
}

/// Where `[store]` has another choice than the index was made with, nothing is exported until it is made again, by hand.
#[test]
fn choices_that_differ_from_the_index() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("a.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    let index = |more: &[&str]| {
        let done = crate::run::run(&[&["index", "--store", store.to_str().unwrap()], more].concat());
        assert_eq!(done.code, 0, "{done:#?}");
    };
    index(&[]);
    std::fs::write(scratch.path().join("serve.toml"), "[store]\nids = \"r4\"\n").unwrap();
    let server = Server::start(scratch.path(), &["--store", "store", "--data", "data", "--config", "serve.toml"]);
    wait_until_unready(&server, "made with other choices");
    refused(&server);
    server.wait_for_log("--ids any, and r4 is given");
    server.wait_for_log("outpour index --remake");
    index(&["--ids", "r4", "--remake"]);
    // The next kick-off looks again.
    server.fhir("Patient/$export");
    wait_until_ready(&server);
    let job = accepted(&server.client(), &server.fhir("Patient/$export"));
    assert_eq!(ended(&server.client(), &job).status, 200);
}

/// A list of names to pass over that cannot be used stops exports until it can; links are followed as `[store]` says, and
/// clients are told neither.
#[test]
fn names_that_are_passed_over_and_links() {
    let scratch = scratch();
    let (store, beside) = (scratch.path().join("store"), scratch.path().join("beside"));
    for (directory, id) in [(&store, "a"), (&beside, "b")] {
        std::fs::create_dir(directory).unwrap();
        std::fs::write(
            directory.join(format!("{id}.ndjson")),
            format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"}}\n"),
        )
        .unwrap();
    }
    std::os::unix::fs::symlink(&beside, store.join("link")).unwrap();
    std::fs::write(store.join("c.ndjson"), "{").unwrap();
    std::fs::write(store.join(".outpourignore"), "c.*\n").unwrap();
    std::fs::write(scratch.path().join("serve.toml"), "[store]\nfollow_symlinks = true\n").unwrap();
    let server = Server::start(scratch.path(), &["--store", "store", "--data", "data", "--config", "serve.toml"]);
    wait_until_ready(&server);
    let export = || {
        let job = accepted(&server.client(), &server.fhir("Patient/$export"));
        let answer = ended(&server.client(), &job);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let manifest = export();
    assert_eq!((&manifest["output"][0]["count"], &manifest["error"]), (&2.into(), &serde_json::json!([])));
    server.wait_for_log("passed over by .outpourignore");
    // What a client gets follows links also where the configuration leaves the choice to the index.
    std::fs::write(store.join(".outpourignore"), "[\n").unwrap();
    refused(&server);
    server.wait_for_log(".outpourignore: line 1 is no pattern");
    std::fs::remove_file(store.join(".outpourignore")).unwrap();
    std::fs::remove_file(store.join("c.ndjson")).unwrap();
    wait_until_ready(&server);
    assert_eq!(export()["output"][0]["count"], 2);
    assert_eq!(server.stop(), Some(0));
    std::fs::write(scratch.path().join("serve.toml"), "[store]\n").unwrap();
    let server = Server::start(scratch.path(), &["--store", "store", "--data", "data", "--config", "serve.toml"]);
    wait_until_ready(&server);
    let job = accepted(&server.client(), &server.fhir("Patient/$export"));
    assert_eq!(ended(&server.client(), &job).json()["output"][0]["count"], 2);
    // Not usable when the service starts: it is not ready, and recovers by itself.
    assert_eq!(server.stop(), Some(0));
    std::fs::write(store.join(".outpourignore"), "[\n").unwrap();
    let server = Server::start(scratch.path(), &["--store", "store", "--data", "data", "--config", "serve.toml"]);
    let text = wait_until_unready(&server, "names to pass over");
    assert!(!text.contains("outpourignore"), "{text}");
    std::fs::remove_file(store.join(".outpourignore")).unwrap();
    wait_until_ready(&server);
}

/// Files of jobs beyond a link of the store would be read as its data: such a job fails, and the log says why.
#[test]
fn jobs_beyond_a_link_of_the_store() {
    let scratch = scratch();
    let (store, beside) = (scratch.path().join("store"), scratch.path().join("beside"));
    std::fs::create_dir(&store).unwrap();
    std::fs::create_dir(&beside).unwrap();
    std::fs::write(store.join("a.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    std::os::unix::fs::symlink(&beside, store.join("link")).unwrap();
    std::fs::write(scratch.path().join("serve.toml"), "[store]\nfollow_symlinks = true\n").unwrap();
    let server =
        Server::start(scratch.path(), &["--store", "store", "--data", "beside/data", "--config", "serve.toml"]);
    wait_until_ready(&server);
    let job = accepted(&server.client(), &server.fhir("Patient/$export"));
    let answer = ended(&server.client(), &job);
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(!answer.text().contains("beside"), "{}", answer.text());
    server.wait_for_log("which a link of the store leads to");
}
