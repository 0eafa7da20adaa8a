//! `outpour jobs` and the admin socket: what the operator sees and removes, of a running service and of a stopped one.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::job_lifecycle::{accepted, bundled, ended};
use crate::run::{Run, run, scratch};

/// Runs `outpour jobs` on a data directory.
fn jobs(directory: &Path, words: &[&str]) -> Run {
    let data = directory.join("data");
    run(&[&["jobs"][..], words, &["--data", data.to_str().unwrap(), "--json"]].concat())
}

/// The document of a run that went well.
#[track_caller]
fn document(done: &Run) -> Value {
    assert_eq!(done.code, 0, "{done:#?}");
    serde_json::from_str(&done.stdout).unwrap()
}

/// The raw answer of the admin socket.
fn ask(directory: &Path, head: &str) -> String {
    let mut socket = UnixStream::connect(directory.join("data/admin.sock")).unwrap();
    write!(socket, "{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// A job is listed, shown and removed, while the service runs, after it was killed, and while it is stopped.
#[test]
fn the_operator_sees_and_removes_jobs() {
    let scratch = scratch();
    let directory = scratch.path();
    let server = bundled(directory, &[]);
    server.wait_until_ready();
    let kick_off = |server: &super::server::Server, target: &str| {
        let status = accepted(&server.client(), &server.fhir(target));
        assert_eq!(ended(&server.client(), &status).status, 200);
        (status.rsplit('/').next().unwrap().replace('-', ""), status)
    };
    let filtered = "Group/ten/$export?_type=Patient,Observation&_since=2001-01-01T00:00:00Z\
                    &_typeFilter=Observation%3Fcategory%3Dlaboratory";
    let (first, status) = kick_off(&server, filtered);
    let (second, _) = kick_off(&server, "$export?_type=Patient");

    // 1. The socket is its owner's alone, and tells of all jobs.
    let found = std::fs::symlink_metadata(directory.join("data/admin.sock")).unwrap();
    assert!(found.file_type().is_socket() && found.mode() & 0o777 == 0o600, "{found:?}");
    let listed = document(&jobs(directory, &["list"]));
    assert_eq!((&listed["source"], listed["jobs"].as_array().unwrap().len()), (&"service".into(), 2));
    assert_eq!((&listed["jobs"][0]["id"], &listed["jobs"][1]["id"]), (&first.clone().into(), &second.clone().into()));
    let shown = jobs(directory, &["show", &first]);
    let job = document(&shown)["job"].clone();
    assert_eq!((&job["state"], &job["group"], &job["percent"]), (&"complete".into(), &"ten".into(), &100.into()));
    assert_eq!((&job["typeFilters"], &job["since"]), (&1.into(), &"2001-01-01T00:00:00.000Z".into()));
    let lines: u64 = job["files"].as_array().unwrap().iter().map(|file| file["count"].as_u64().unwrap()).sum();
    assert!(lines > 10, "{job}");
    for needle in
        ["complete, 100 % done", "Group/ten", "Patient, Observation", "1 filter", "Patient.00001.ndjson", "messages"]
    {
        assert!(
            shown.stderr.replace("Observation, Patient", "Patient, Observation").contains(needle),
            "{needle}: {shown:#?}"
        );
    }
    assert!(!shown.stdout.contains("laboratory") && !shown.stderr.contains("laboratory"), "{shown:#?}");
    let service = ask(directory, "GET /admin/v1/service HTTP/1.1");
    for needle in [
        "200 OK",
        "\"version\":",
        "\"complete\":2",
        "\"tenant\":\"default\"",
        "/fhir\"",
        "synthea-r4-100",
        "\"ready\":true",
    ] {
        assert!(service.contains(needle), "{needle}: {service}");
    }
    // 2. What is no job, or no path.
    jobs(directory, &["show", "0123456789abcdef0123456789abcdef"]).refused(2, &["no such job"]);
    jobs(directory, &["remove", "../x"]).refused(2, &["32 digits"]);
    for (head, status) in
        [("GET / HTTP/1.1", 404), ("POST /admin/v1/jobs HTTP/1.1", 405), ("DELETE /admin/v1/jobs/x HTTP/1.1", 404)]
    {
        let answer = ask(directory, head);
        assert!(answer.contains(&format!(" {status} ")) && answer.contains("problem"), "{answer}");
    }
    // 3. A removal is a DELETE; clients see neither the socket nor its paths.
    assert_eq!(document(&jobs(directory, &["remove", &first]))["removed"], first.as_str());
    // The job was polled a moment ago.
    let answer = (0..20).map(|_| server.client().get(&status)).find(|answer| {
        std::thread::sleep(std::time::Duration::from_millis(if answer.status == 429 { 500 } else { 0 }));
        answer.status != 429
    });
    answer.expect("the job may be polled again").outcome(404, "not-found");
    assert_eq!(server.client().get("/admin/v1/jobs").status, 404);
    server.wait_for_log("deleted by the operator");
    // 4. A service that was killed leaves its socket: the records are read.
    server.kill();
    assert!(directory.join("data/admin.sock").exists());
    let listed = document(&jobs(directory, &["list"]));
    assert_eq!((&listed["source"], &listed["jobs"][0]["id"]), (&"records".into(), &second.clone().into()));
    assert_eq!(document(&jobs(directory, &["show", &second]))["job"]["files"][0]["type"], "Patient");
    // 5. The next service takes its place, and takes the socket away at its end.
    let server = bundled(directory, &[]);
    assert_eq!(document(&jobs(directory, &["list"]))["source"], "service");
    let records = directory.join("data/jobs");
    let files = directory.join("data/files").join(&second);
    std::fs::remove_file(directory.join("data/admin.sock")).unwrap();
    jobs(directory, &["remove", &second]).refused(3, &["a service has these records"]);
    assert_eq!(server.stop(), Some(0));
    assert!(!directory.join("data/admin.sock").exists());
    // 6. Of a stopped service a job is removed with its files.
    assert!(files.exists());
    assert_eq!(document(&jobs(directory, &["remove", &second]))["source"], "records");
    assert!(!files.exists() && !records.join(format!("{second}.json")).exists());
    jobs(directory, &["show", &second]).refused(2, &["no such job"]);
    run(&["jobs", "list", "--data", directory.join("nowhere").to_str().unwrap()])
        .refused(2, &["--data", "is not there"]);
}
