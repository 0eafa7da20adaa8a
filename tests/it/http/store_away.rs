//! A store that is moved away, or whose index cannot be written, while it is served: nothing is exported, the service says
//! that it is not ready, and recovers by itself.

use std::path::Path;
use std::time::Duration;

use super::job_lifecycle::{accepted, ended};
use super::server::Server;
use crate::disk::Tmpfs;
use crate::run::scratch;

const ROWS: &str = "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n{\"resourceType\":\"Group\",\"id\":\"of-store\",\"type\":\"person\",\"actual\":true,\"member\":[{\"entity\":{\"reference\":\"Patient/a\"}}]}\n";

pub(super) fn serve(directory: &Path) -> Server {
    if !directory.join("store").is_dir() {
        std::fs::create_dir(directory.join("store")).unwrap();
    }
    std::fs::write(directory.join("store/a.ndjson"), ROWS).unwrap();
    let server = Server::start(directory, &["--store", "store", "--data", "data"]);
    server.wait_until_ready();
    server
}

/// Waits until the probe has a status and says something.
#[track_caller]
fn wait_for(server: &Server, status: u16, word: &str) {
    for _ in 0..1500 {
        let answer = server.client().get("/health/ready");
        if answer.status == status && answer.text().contains(word) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not {status} {word}: {}", server.log());
}

/// Asserts that an export is made.
#[track_caller]
pub(super) fn exports(server: &Server) {
    let job = accepted(&server.client(), &server.fhir("Group/of-store/$export"));
    assert_eq!(ended(&server.client(), &job).status, 200);
}

/// Asserts that nothing is exported for the moment, and that nothing of the host is told.
#[track_caller]
fn refuses(server: &Server) {
    for path in ["Patient/$export", "Group/of-store/$export"] {
        let answer = server.fhir(path);
        let said = answer.outcome(503, "transient");
        assert!(answer.header("retry-after").is_some() && said.contains("cannot be used"), "{said}");
    }
}

/// CORE-08, EXPIRE-03: a store that is moved away while it is served: kick-offs are 503, the service is not ready, and both
/// by itself are again when it is back. Nothing is made in its place.
#[test]
fn a_store_is_moved_away_and_back() {
    let scratch = scratch();
    let server = serve(scratch.path());
    exports(&server);
    let (store, away) = (scratch.path().join("store"), scratch.path().join("away"));
    std::fs::rename(&store, &away).unwrap();
    // Nobody has to ask for an export.
    wait_for(&server, 503, "the store cannot be read");
    refuses(&server);
    let read = server.client().get("/fhir/Group/of-store");
    assert_eq!(read.status, 503, "what is in it is not known: {}", read.text());
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!store.exists(), "nothing stands in its place");
    std::fs::rename(&away, &store).unwrap();
    wait_for(&server, 200, "ready");
    exports(&server);
    assert_eq!(server.client().get("/fhir/Group/of-store").status, 200);
    assert!(
        server.log().contains("the store cannot be read") && server.log().contains("whole again"),
        "{}",
        server.log()
    );
    assert_eq!(server.stop(), Some(0));
}

/// CORE-08: an index that cannot be written: as a store that is gone.
#[test]
fn a_store_cannot_be_written_for_a_while() {
    let scratch = scratch();
    let server = serve(scratch.path());
    exports(&server);
    let lock = scratch.path().join("store/.outpour/lock");
    // By rename, because the service makes a lock that it does not find.
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    std::fs::rename(&link, &lock).unwrap();
    wait_for(&server, 503, "cannot be written");
    refuses(&server);
    std::fs::remove_file(&lock).unwrap();
    wait_for(&server, 200, "ready");
    exports(&server);
    drop(server);
    // The same of a disk that is made read-only.
    let scratch = crate::run::scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let Some(_mounted) = Tmpfs::mount(&store, "6m", 0) else {
        println!("passed over: mounting is not allowed here");
        return;
    };
    let server = serve(scratch.path());
    exports(&server);
    let remount = |flags| Tmpfs::mount(&store, "6m", libc::MS_REMOUNT | flags).map(std::mem::forget).is_some();
    if !remount(libc::MS_RDONLY) {
        println!("passed over: a file of the disk is open for writing");
        return;
    }
    wait_for(&server, 503, "cannot be written");
    refuses(&server);
    assert_eq!(server.client().get("/fhir/Group/of-store").status, 200, "it can be read");
    assert!(remount(0));
    wait_for(&server, 200, "ready");
    exports(&server);
}
