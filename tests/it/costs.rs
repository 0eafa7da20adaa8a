//! What must stay linear: time and memory when references, bases or files double; and names of very many files.

use crate::random::knob;
use crate::run::{Bounds, command, run, scratch};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

/// What a run of the binary cost.
#[derive(Debug)]
struct Usage {
    /// Processor time in user mode, in seconds.
    user: f64,
    /// Greatest resident memory, in bytes; `None` where this process was as large when it started the other: the system
    /// counts what a process had before it became another program.
    memory: Option<u64>,
}

/// Resident memory of this process, in bytes.
fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Runs the binary, which must succeed, and asks the system what the process cost.
#[track_caller]
#[allow(clippy::zombie_processes, reason = "wait4 waits for it, and tells what it cost")]
fn usage_of(args: &[&str]) -> Usage {
    use std::os::unix::process::ExitStatusExt;
    let own = own_memory();
    let child = command().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let (mut status, mut used) = (0, std::mem::MaybeUninit::<libc::rusage>::uninit());
    // SAFETY: both pointers are to memory of this function; the child is waited for nowhere else.
    let used = unsafe {
        assert_eq!(libc::wait4(pid, &mut status, 0, used.as_mut_ptr()), pid);
        used.assume_init()
    };
    assert_eq!(std::process::ExitStatus::from_raw(status).code(), Some(0), "{args:?}");
    let user = used.ru_utime.tv_sec as f64 + used.ru_utime.tv_usec as f64 / 1e6;
    let memory = u64::try_from(used.ru_maxrss).unwrap() << 10;
    Usage { user, memory: (memory > own.max(own_memory())).then_some(memory) }
}

/// Writes a store of one file.
fn store_of(dir: &Path, text: &str) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("a.ndjson"), text).unwrap();
}

/// An Appointment with so many participants, and each of them twice.
fn row_of_references(references: usize) -> String {
    let mut text = r#"{"resourceType":"Appointment","id":"a","participant":["#.to_string();
    for number in (0..references).chain(0..references) {
        write!(text, r#"{{"actor":{{"reference":"Patient/p{number}"}}}},"#).unwrap();
    }
    text.pop();
    text + "]}\n"
}

/// So many Observations of a hundred patients.
fn observations(rows: usize) -> String {
    (0..rows).fold(String::new(), |mut text, number| {
        let patient = number % 100;
        writeln!(
            text,
            r#"{{"resourceType":"Observation","id":"o{number}","subject":{{"reference":"Patient/p{patient}"}}}}"#
        )
        .unwrap();
        text
    })
}

/// Most that processor time may grow when the input grows by four: linear growth gives 4, growth with the square 16.
const GROWTH_MAX: f64 = 8.0;

#[test]
fn references_of_a_row_cost_the_same_each() {
    let scratch = scratch();
    let [few, many] = [20_000, 80_000].map(|references| {
        let (store, index) = (scratch.path().join(references.to_string()), scratch.path().join("index"));
        store_of(&store, &row_of_references(references));
        let index = index.to_str().unwrap();
        let used = usage_of(&["index", "--store", store.to_str().unwrap(), "--index-dir", index, "--threads", "1"]);
        std::fs::remove_dir_all(index).unwrap();
        used
    });
    assert!(many.user < few.user.max(0.05) * GROWTH_MAX, "{few:?} {many:?}");
}

/// A patient that a row names many times has the row once, whatever stands between.
#[test]
fn a_row_has_each_owner_once() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    store_of(&store, &(row_of_references(50) + &row_of_references(3).replace(r#""id":"a""#, r#""id":"b""#)));
    for (patients, rows) in [("p0\n", 2), ("p49\n", 1), ("p2\np3\n", 2), ("p50\n", 0)] {
        let list = scratch.path().join("list");
        std::fs::write(&list, patients).unwrap();
        let run = crate::run::export(&store, &out, &["--patients", list.to_str().unwrap(), "--type", "Appointment"]);
        assert!(run.code < 2, "{run:#?}");
        let found = crate::run::Export::read(&out, Bounds::DEFAULT);
        let lines: usize = found.output.iter().map(|file| file.lines.len()).sum();
        assert_eq!(lines, rows, "{patients:?}");
        std::fs::remove_dir_all(&out).unwrap();
    }
    let verified = run(&["verify", store.to_str().unwrap()]);
    assert_eq!(verified.code, 0, "{verified:#?}");
}

#[test]
fn files_cost_the_same_each() {
    let scratch = scratch();
    let index = scratch.path().join("index");
    let [few, many] = [4_000, 16_000].map(|rows| {
        let (store, out) = (scratch.path().join(rows.to_string()), scratch.path().join("out"));
        store_of(&store, &observations(rows));
        let (store, index, to) = (store.to_str().unwrap(), index.to_str().unwrap(), out.to_str().unwrap());
        let request = ["export", "--store", store, "--index-dir", index, "--out", to, "--all-patients", "--no-sync"];
        let used = usage_of(&[&request[..], &["--max-file-resources", "1", "--progress", "never"]].concat());
        std::fs::remove_dir_all(&out).unwrap();
        std::fs::remove_dir_all(index).unwrap();
        used
    });
    assert!(many.user < few.user.max(0.05) * GROWTH_MAX, "{few:?} {many:?}");
    match (few.memory, many.memory) {
        (Some(less), Some(more)) => {
            let each = more.saturating_sub(less) / 12_000;
            assert!(each < 1_500, "a file costs {each} bytes of memory: {few:?} {many:?}");
        }
        _ => println!("memory not compared: that of the test process hides it"),
    }
}

/// Names sort by their numbers beyond 99,999 files, and whoever reads names reads these: `verify`, and a resumed run.
#[test]
fn names_of_many_files_are_read_back() {
    const FILES: usize = 100_001;
    if knob("OUTPOUR_TEST_FULL", 0) != 1 {
        println!("skipped: 100,001 files take a while to write and to read twice (set OUTPOUR_TEST_FULL=1)");
        return;
    }
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    store_of(&store, &observations(FILES));
    let mut request = vec!["--all-patients", "--as-of", crate::golden::AS_OF, "--max-file-resources", "1"];
    assert_eq!(crate::run::export(&store, &out, &request).code, 0);
    let names = || {
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
        let url = |item: &serde_json::Value| item["url"].as_str().unwrap().rsplit('/').next().unwrap().to_string();
        manifest["output"].as_array().unwrap().iter().map(url).collect::<Vec<String>>()
    };
    let first = names();
    assert!(first.len() == FILES && first.is_sorted(), "by number, as the manifest has them, is by name");
    assert_eq!((&*first[0], &*first[FILES - 1]), ("Observation.000001.ndjson", "Observation.100001.ndjson"));
    assert!(first.iter().all(|name| out.join(name).is_file()));
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    std::fs::remove_file(out.join(&first[7])).unwrap();
    request.push("--resume");
    let resumed = crate::run::export(&store, &out, &request);
    assert_eq!((resumed.code, names() == first), (0, true), "{resumed:#?}");
    let verified = run(&["verify", out.to_str().unwrap()]);
    assert_eq!(verified.code, 0, "{verified:#?}");
}
