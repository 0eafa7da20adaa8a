//! Selection: a small cohort by its postings and by a column scan, the cohort size where the two cross, and an
//! increment of one row in a thousand. Also opening a store of a thousand files.
//!
//! Speed of light: for an increment, its zone maps (0.13 bytes per row) and one cache line per new row; for a small
//! cohort, its rows; for opening, one `statx` per file.
//!
//! `OUTPOUR_BENCH_ROWS` rows in the synthetic store, in patient order, 400 per patient; 1,000,000 by default.

use std::io::Write;
use std::path::Path;
use std::time::Instant as Clock;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outpour::ExportRequest;
use outpour::Instant;
use outpour::Progress;
use outpour::Snapshot;
use outpour::Store;
use outpour::StoreOptions;
use outpour::internals::AccessPath;
use outpour::internals::Cohort;
use outpour::internals::Selection;

mod common;

/// Observations of each patient.
const ROWS_PER_PATIENT: usize = 400;
/// One row in so many is later than `SINCE`.
const ROWS_PER_NEW_ROW: usize = 1000;
/// The `_since` of the increment.
const SINCE: &str = "2024-01-01T00:00:00Z";

/// Rows of the synthetic store, by `OUTPOUR_BENCH_ROWS`.
fn rows() -> usize {
    std::env::var("OUTPOUR_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000)
}

/// Writes Observations in patient order. The dates of each patient's rows are spread over the years, and the new rows
/// over the patients.
fn write_store(root: &Path, rows: usize) {
    std::fs::create_dir_all(root).unwrap();
    let open = |name: &str| std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(root.join(name)).unwrap());
    let (mut patients, mut observations) = (open("Patient.ndjson"), open("Observation.ndjson"));
    for patient in 0..rows / ROWS_PER_PATIENT {
        let meta = r#""meta":{"versionId":"1","lastUpdated":"2020-01-01T00:00:00Z"}"#;
        writeln!(patients, r#"{{"resourceType":"Patient","id":"p{patient}",{meta}}}"#).unwrap();
    }
    for row in 0..rows {
        let scattered = row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let year = if scattered % ROWS_PER_NEW_ROW == 0 { 2024 } else { 2000 + scattered % 24 };
        let (month, day) = (1 + scattered / 7 % 12, 2 + scattered / 11 % 27);
        writeln!(
            observations,
            r#"{{"resourceType":"Observation","id":"o{row}","meta":{{"lastUpdated":"{year}-{month:02}-{day:02}T10:00:00Z"}},"subject":{{"reference":"Patient/p{}"}}}}"#,
            row / ROWS_PER_PATIENT
        )
        .unwrap();
    }
}

/// Selects the rows of a request by one access path.
fn select(snapshot: &Snapshot, request: &ExportRequest, access_path: AccessPath) -> Selection {
    let request = request.clone().access_path(access_path);
    let cohort = Cohort::resolve(snapshot, &request).unwrap();
    Selection::new(snapshot, &cohort, &request).unwrap()
}

/// An increment and cohorts of several sizes by each access path, then a table of times by cohort size.
fn selection(c: &mut Criterion) {
    let scratch = tempfile::tempdir().unwrap();
    let (root, rows) = (scratch.path().join("store"), rows());
    write_store(&root, rows);
    let access = outpour::internals::install().unwrap();
    let store = Store::open_with(&root, StoreOptions::default().access(access)).unwrap();
    let snapshot = store.snapshot(Instant::parse("2026-06-01T00:00:00Z").unwrap()).unwrap();
    let pool = common::one_thread();
    let patients = rows / ROWS_PER_PATIENT;
    let list = scratch.path().join("list.txt");
    let cohort = |members: usize| {
        // Spread over the store, as the members of a Group are.
        let ids: String = (0..members).map(|n| format!("p{}\n", n * patients / members)).collect();
        std::fs::write(&list, ids).unwrap();
        ExportRequest::patients(&list)
    };

    let mut group = c.benchmark_group("select");
    group.throughput(Throughput::Elements(rows as u64));
    let increment = ExportRequest::all_patients().since(SINCE);
    let run = |request: &ExportRequest, access_path| pool.install(|| select(&snapshot, request, access_path));
    let slow = run(&increment, AccessPath::Rows);
    let zones = run(&increment, AccessPath::Columns);
    assert!(slow.ledger == zones.ledger && slow.rows == zones.rows);
    assert!((1..rows as u64 / 500).contains(&zones.ledger.exported), "{:?}", zones.ledger);
    group.bench_function("an increment of 1 in 1,000, by zones", |b| b.iter(|| run(&increment, AccessPath::Columns)));
    group.bench_function("an increment of 1 in 1,000, row by row", |b| b.iter(|| run(&increment, AccessPath::Rows)));
    for members in [1, patients / 100, patients / 10] {
        let request = cohort(members.max(1));
        for access_path in [AccessPath::Postings, AccessPath::Columns] {
            assert_eq!(run(&request, access_path).ledger.exported as usize, members.max(1) * (ROWS_PER_PATIENT + 1));
            group.bench_function(format!("{} members, {access_path:?}", members.max(1)), |b| {
                b.iter(|| run(&request, access_path))
            });
        }
    }
    group.finish();

    println!("members in a hundred patients, milliseconds by postings, by columns:");
    let best = |request: &ExportRequest, access_path| {
        let time = |_| {
            let begun = Clock::now();
            run(request, access_path);
            begun.elapsed()
        };
        (0..3).map(time).min().unwrap().as_secs_f64() * 1e3
    };
    for percent in [1, 2, 4, 6, 8, 12, 16, 25, 50] {
        let request = cohort((patients * percent / 100).max(1));
        println!(
            "{percent:>4} {:>9.2} {:>9.2}",
            best(&request, AccessPath::Postings),
            best(&request, AccessPath::Columns)
        );
    }
}

/// Opens an up-to-date index of a store of 1,000 files.
fn opening(c: &mut Criterion) {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("store");
    std::fs::create_dir(&root).unwrap();
    for file in 0..1000 {
        let text = format!("{{\"resourceType\":\"Patient\",\"id\":\"p{file}\"}}\n");
        std::fs::write(root.join(format!("{file:04}.ndjson")), text).unwrap();
    }
    let access = outpour::internals::install().unwrap();
    let store = Store::open_with(&root, StoreOptions::default().access(access)).unwrap();
    store.index(&Progress::default()).unwrap();
    // A file's times are trusted only once they are old enough to tell a later change.
    std::thread::sleep(std::time::Duration::from_millis(100));
    store.index(&Progress::default()).unwrap();
    c.bench_function("open, 1,000 files", |b| {
        b.iter(|| {
            let (index, work) = store.index(&Progress::default()).unwrap();
            assert_eq!((index.rows(), index.segment_count(), work.scanned_bytes), (1000, 1000, 0));
        })
    });
}

criterion_group!(benches, selection, opening);
criterion_main!(benches);
