//! Growth tables of references in a row, of reference bases, and of files of one resource: what each costs from 1,000 to
//! 1,000,000, and the exponent of the growth. Linear work has exponent 1.
//!
//! `cargo bench --bench costs -- [GREATEST]`; in a directory on tmpfs (`TMPDIR=/dev/shm`) the file system's own growth stays
//! out of the tables.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What one run cost.
pub struct Measured {
    /// Seconds by the clock.
    pub wall: f64,
    /// Seconds of processor time, user and system.
    pub cpu: f64,
    /// Greatest resident memory, in bytes.
    pub memory: u64,
    /// Bytes of the index after it.
    pub index: u64,
}

/// A table: what is counted, and how so many of it are measured.
pub type GrowthTable = (&'static str, Box<dyn Fn(u64) -> Measured>);

/// The tables of this file.
pub fn tables() -> Vec<GrowthTable> {
    vec![
        ("references in one row", Box::new(|n| indexed(&row_of_references(n)))),
        ("distinct reference bases", Box::new(|n| indexed(&rows_of_bases(n)))),
        ("files of one resource", Box::new(|n| exported(&observations(n)))),
    ]
}

/// Measures the index run of a store of one file.
fn indexed(text: &str) -> Measured {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, index) = store_of(dir.path(), text);
    measure(&["index", "--store", &store, "--index-dir", &index, "--threads", "1"], Path::new(&index))
}

/// Measures the export of a store of one file, indexed before, with one resource a file.
fn exported(text: &str) -> Measured {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, index) = store_of(dir.path(), text);
    measure(&["index", "--store", &store, "--index-dir", &index], Path::new(&index));
    let out = dir.path().join("out");
    let out = out.to_str().expect("plain names");
    let request = ["export", "--store", &store, "--index-dir", &index, "--all-patients", "--out", out];
    let bounds = ["--max-file-resources", "1", "--no-sync", "--progress", "never"];
    measure(&[&request[..], &bounds].concat(), Path::new(&index))
}

/// Writes a store of one file; the paths of store and index.
fn store_of(dir: &Path, text: &str) -> (String, String) {
    let store = dir.join("store");
    std::fs::create_dir(&store).and_then(|()| std::fs::write(store.join("a.ndjson"), text)).expect("room for a store");
    let word = |path: &Path| path.to_str().expect("plain names").to_string();
    (word(&store), word(&dir.join("index")))
}

/// An Appointment with so many participants.
fn row_of_references(count: u64) -> String {
    let actors = (0..count).map(|n| format!(r#"{{"actor":{{"reference":"Patient/p{n}"}}}}"#));
    let actors = actors.collect::<Vec<_>>().join(",");
    format!("{{\"resourceType\":\"Appointment\",\"id\":\"a\",\"participant\":[{actors}]}}\n")
}

/// Observations, each of a patient under a base of its own.
fn rows_of_bases(count: u64) -> String {
    let mut text = String::new();
    for n in 0..count {
        let reference = format!("https://h{n}.example.org/fhir/Patient/p");
        writeln!(text, r#"{{"resourceType":"Observation","id":"o{n}","subject":{{"reference":"{reference}"}}}}"#)
            .expect("memory");
    }
    text
}

/// Observations of a hundred patients.
fn observations(count: u64) -> String {
    let mut text = String::new();
    for n in 0..count {
        let patient = n % 100;
        writeln!(
            text,
            r#"{{"resourceType":"Observation","id":"o{n}","subject":{{"reference":"Patient/p{patient}"}}}}"#
        )
        .expect("memory");
    }
    text
}

/// Runs the binary, which must succeed, and measures it.
#[allow(clippy::zombie_processes, reason = "wait4 waits for it, and tells what it cost")]
fn measure(args: &[&str], index: &Path) -> Measured {
    let begun = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_outpour"))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    let (mut status, mut used) = (0, std::mem::MaybeUninit::<libc::rusage>::uninit());
    // SAFETY: both pointers are to memory of this function; the child is waited for nowhere else.
    let used = unsafe {
        assert_eq!(libc::wait4(pid, &mut status, 0, used.as_mut_ptr()), pid);
        used.assume_init()
    };
    assert_eq!(status, 0, "{args:?}");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let files = std::fs::read_dir(index).into_iter().flatten().flatten();
    Measured {
        wall: begun.elapsed().as_secs_f64(),
        cpu: seconds(used.ru_utime) + seconds(used.ru_stime),
        memory: u64::try_from(used.ru_maxrss).unwrap_or(0) << 10,
        index: files.filter_map(|file| Some(file.metadata().ok()?.len())).sum(),
    }
}

/// Exponent of the growth between the first and the last row that take at least a twentieth of a second: below that, the
/// start of the process is what is measured.
fn exponent(rows: &[(u64, f64)]) -> Option<f64> {
    let first = rows.iter().find(|(_, cost)| *cost >= 0.05)?;
    let last = rows.last().filter(|last| last.0 > first.0)?;
    Some((last.1 / first.1).ln() / (last.0 as f64 / first.0 as f64).ln())
}

fn main() {
    let greatest = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1_000_000);
    for (what, run) in tables() {
        println!("\n| {what} | wall s | cpu s | memory MB | index MB |\n|---|---|---|---|---|");
        let mut rows = Vec::new();
        for n in [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000].into_iter().filter(|n| *n <= greatest) {
            let Measured { wall, cpu, memory, index } = run(n);
            let mb = |bytes: u64| bytes as f64 / 1e6;
            println!("| {n} | {wall:.2} | {cpu:.2} | {:.1} | {:.2} |", mb(memory), mb(index));
            rows.push((n, cpu));
        }
        match exponent(&rows) {
            Some(exponent) => println!("\nexponent of the processor time: {exponent:.2}"),
            None => println!("\ntoo short to tell an exponent"),
        }
    }
}
