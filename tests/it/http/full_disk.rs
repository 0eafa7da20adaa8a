//! Jobs while the disk of their files is full and the records are on another disk.

use super::client::Answer;
use super::job_lifecycle::{accepted, ended, files};
use super::server::Server;
use crate::disk::Tmpfs;
use crate::run::{scratch, testdata};
use std::path::Path;
use std::time::Duration;

/// A service of the bundled store whose files lie in `small` and whose records do not.
fn start(scratch: &Path, jobs: &str, files: &str) -> Server {
    let toml =
        format!("[jobs]\ndisk_high_water = 100\n{jobs}\n[files]\n{files}\n[ig]\nfirst_poll_in_progress = false\n");
    std::fs::write(scratch.join("serve.toml"), toml).unwrap();
    let store = testdata("stores/synthea-r4-100");
    let words = ["--store", store.to_str().unwrap(), "--index-dir", "index", "--data", "small", "--jobs", "records"];
    let server = Server::start(scratch, &[&words[..], &["--config", "serve.toml"]].concat());
    server.wait_until_ready();
    server
}

/// STATUS-08, DELETE-08, FILE-16: a job that can never have room on the disk fails with a reason. Finished and later jobs are
/// not affected. Records may be on another volume.
#[test]
fn a_job_that_never_fits_fails_alone() {
    let scratch = scratch();
    let small = scratch.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let Some(_mounted) = Tmpfs::mount(&small, "6m", 0) else {
        println!("passed over: mounting is not allowed here");
        return;
    };
    let server = start(scratch.path(), "", "");
    let client = server.client();
    let before = accepted(&client, &server.fhir("Group/ten/$export?_type=Patient"));
    let manifest = ended(&client, &before).json();
    let path = files(&client, &manifest)[0].1.clone();
    let good = client.get(&path).body;
    let large = accepted(&client, &server.fhir("Patient/$export"));
    let reported = ended(&client, &large).outcome(500, "processing");
    assert!(reported.contains("no room on the disk") && !reported.contains("small"), "{reported}");
    assert!(!server.log().contains("a shard could not be written"), "nothing was tried: {}", server.log());
    assert_eq!(client.get(&path).body, good, "a finished job is untouched");
    client.ask("DELETE", &large, &[], b"").outcome(202, "informational");
    // There is room again at once, or as soon as the worker has closed its file.
    let after = (0..50).find_map(|_| {
        let status = accepted(&client, &server.fhir("Group/ten/$export?_type=Patient,Condition"));
        let done = ended(&client, &status);
        std::thread::sleep(std::time::Duration::from_millis(if done.status == 200 { 0 } else { 100 }));
        (done.status == 200).then_some(done)
    });
    assert_eq!(files(&client, &after.expect("room again").json()).len(), 2);
    assert!(scratch.path().join("records").read_dir().unwrap().count() > 2 && !small.join("jobs").exists());
    assert_eq!(server.stop(), Some(0));
}

/// STATUS-08, EXPIRE-03: a job that meets a full disk although there was room by the count (here no file can be made any
/// more) waits, says so to its client, and goes on with what it has written when there is room; after
/// `jobs.space_wait_seconds` it fails with a reason.
#[test]
fn a_job_that_meets_a_full_disk_waits() {
    let scratch = scratch();
    let small = scratch.path().join("small");
    std::fs::create_dir(&small).unwrap();
    for (wait_seconds, waits) in [(3600, true), (6, false)] {
        let Some(_mounted) = Tmpfs::mount(&small, "200m,nr_inodes=40", 0) else {
            println!("passed over: mounting is not allowed here");
            return;
        };
        std::fs::remove_dir_all(scratch.path().join("records")).ok();
        let server =
            start(scratch.path(), &format!("attempts = 1\nspace_wait_seconds = {wait_seconds}"), "max_bytes = 200000");
        let client = server.client();
        let job = accepted(&client, &server.fhir("Patient/$export?_type=Claim,Encounter,Observation"));
        if waits {
            let waiting =
                |answer: &Answer| String::from_utf8_lossy(&answer.body).contains("waits for room on the disk");
            let mut polled = (0..60).map(|_| {
                std::thread::sleep(Duration::from_millis(600));
                client.get(&job)
            });
            let polled = polled.find(|answer| answer.status != 202 || waiting(answer)).unwrap();
            polled.outcome(202, "informational");
            let more = Tmpfs::mount(&small, "200m,nr_inodes=4000", libc::MS_REMOUNT).expect("room is made");
            std::mem::forget(more);
            let done = ended(&client, &job);
            assert!(done.status == 200 && files(&client, &done.json()).len() > 40, "{done:?}");
        } else {
            let reported = ended(&client, &job).outcome(500, "processing");
            assert!(reported.contains("no room on the disk"), "{reported}");
        }
        assert_eq!(server.stop(), Some(0));
    }
}
