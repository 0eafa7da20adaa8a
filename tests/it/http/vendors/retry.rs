//! Retry by PUT of a job that failed because of a full disk.

use serde_json::Value;

use super::{IG, STE};
use crate::http::client::{Answer, Client};
use crate::http::server::Server;
use crate::run::{scratch, testdata};

const MTE: &str = super::MTE_DEFAULT;

#[track_caller]
fn ended(client: &Client, status: &str) -> Answer {
    for _ in 0..3000 {
        let answer = client.get(status);
        if answer.status != 202 {
            return answer;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the job did not end");
}

/// ONEUP-M05, ONEUP-M10, ONEUP-S13, ONEUP-S15, C-03: after PUT a failed job writes its missing files, with the same
/// transactionTime; finished files stay. A job that has not failed is answered 409, one of another mount 404.
#[test]
fn a_failed_job_is_retried_by_put() {
    let scratch = scratch();
    let store = testdata("stores/synthea-r4-100");
    let store = store.to_str().unwrap();
    let index =
        crate::run::run(&["index", "--store", store, "--index-dir", scratch.path().join("index").to_str().unwrap()]);
    assert_eq!(index.code, 0, "{index:?}");
    std::fs::write(scratch.path().join("serve.toml"), "[limits]\npolls_burst = 100000\n").unwrap();
    let words = ["--store", store, "--index-dir", "index", "--data", "data", "--config", "serve.toml"];
    let server = Server::start_cramped(scratch.path(), &words, 1 << 20);
    let client = server.client();
    let failed = client.get(&format!("{MTE}/Group/all/$export?_type=Patient,Observation,Device"));
    assert_eq!(failed.status, 500, "the wait ends with the job: {}", failed.text());
    let failed = failed.json();
    assert_eq!(failed["status"], "Failed");
    assert!(failed["message"].as_str().unwrap().contains("cannot be written"), "{failed}");
    let batch = |of: &Value, name: &str| of["batches"][name].as_u64().unwrap();
    assert_eq!((batch(&failed, "running"), batch(&failed, "total")), (0, 3), "{failed}");
    assert!(batch(&failed, "failed") >= 1 && failed.get("output").is_none());
    let status = format!("{MTE}/$export/job/{}", failed["id"].as_str().unwrap());
    assert_eq!(client.get(&status).status, 500, "and stays so");
    for base in [IG, STE] {
        let there = status.replace(MTE, base);
        assert!(matches!(client.ask("PUT", &there, &[], b"").status, 404 | 405), "C-03");
    }
    let again = client.ask("PUT", &status, &[], b"");
    assert_eq!(again.status, 202, "{}", again.text());
    assert_eq!(client.path(again.header("content-location").unwrap()), status);
    assert_eq!(ended(&client, &status).json()["status"], "Failed", "there is still no room");
    let job = failed["id"].as_str().unwrap().replace('-', "");
    let kept = scratch.path().join("data/files").join(job).join("out");
    let identity = || {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(kept.join("Patient.00001.ndjson")).unwrap();
        (file.ino(), file.mtime_nsec())
    };
    let before = identity();
    server.lift();
    assert_eq!(client.ask("PUT", &status, &[], b"").status, 202);
    let done = ended(&client, &status);
    assert_eq!(done.status, 200, "{}", done.text());
    let done = done.json();
    assert_eq!(done["transactionTime"], failed["transactionTime"]);
    assert_eq!((identity(), batch(&done, "complete")), (before, 3));
    client.ask("PUT", &status, &[], b"").outcome(409, "conflict");
    client
        .ask("PUT", &format!("{MTE}/$export/job/5edebc8a-2514-4ae1-874e-7029785e9639"), &[], b"")
        .outcome(404, "not-found");
    // The rows equal those of a job that did not fail.
    let fresh = client.get(&format!("{MTE}/Group/all/$export?_type=Patient,Observation,Device")).json();
    for (a, b) in done["output"].as_array().unwrap().iter().zip(fresh["output"].as_array().unwrap()) {
        assert_eq!((&a["type"], &a["count"], &a["extension"]), (&b["type"], &b["count"], &b["extension"]));
    }
}
