//! Jobs while the disk of their files is full and the records are on another disk.

use super::job_lifecycle::{accepted, ended, files};
use super::server::Server;
use crate::disk::Tmpfs;
use crate::run::{scratch, testdata};

/// STATUS-08, DELETE-08, FILE-16: a shard that cannot be written is tried again, then its job fails with a reason.
/// Finished and later jobs are not affected. Records may be on another volume.
#[test]
fn a_full_disk_fails_one_job() {
    let scratch = scratch();
    let small = scratch.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let Some(_mounted) = Tmpfs::mount(&small, "6m", 0) else {
        println!("passed over: mounting is not allowed here");
        return;
    };
    let toml = "[jobs]\ndisk_high_water = 100\n[ig]\nfirst_poll_in_progress = false\n";
    std::fs::write(scratch.path().join("serve.toml"), toml).unwrap();
    let store = testdata("stores/synthea-r4-100");
    let words = ["--store", store.to_str().unwrap(), "--index-dir", "index", "--data", "small", "--jobs", "records"];
    let words = [&words[..], &["--config", "serve.toml"]].concat();
    let server = Server::start(scratch.path(), &words);
    let client = server.client();
    let before = accepted(&client, &server.fhir("Group/ten/$export?_type=Patient"));
    let manifest = ended(&client, &before).json();
    let path = files(&client, &manifest)[0].1.clone();
    let good = client.get(&path).body;
    let large = accepted(&client, &server.fhir("Patient/$export"));
    let reported = ended(&client, &large).outcome(500, "processing");
    assert!(reported.contains("cannot be written") && !reported.contains("small"), "{reported}");
    let tries = server.log().matches("a shard could not be written").count();
    assert!(tries >= 3, "{tries} tries: {}", server.log());
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
