//! A store of one file to which one row was appended and indexed n times, against a fresh index of it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use outpour::{ExportOptions, ExportRequest, FileSync, Instant, Progress, Store, StoreOptions, export};

use crate::harness::GrowthTable;

/// The table of this file.
pub(crate) const TABLES: [GrowthTable; 1] = [GrowthTable {
    name: "appends",
    about: "n rows, appended and indexed one by one; at the end one more, against a fresh index",
    size_max: 100_000,
    write: write_appends,
    steps: &[
        ("index run", index_run),
        ("one patient", export_patient),
        ("fresh index", fresh_index),
        ("fresh: index run", fresh_index_run),
        ("fresh: one patient", fresh_export_patient),
    ],
}];

/// Patients that the rows are of.
const PATIENTS: usize = 50;

/// The store in a scratch directory, with an index beside it.
fn opened_store(scratch: &Path, index: &str) -> Store {
    let access = outpour::internals::install().unwrap();
    let options = StoreOptions::default().index_dir(scratch.join(index)).access(access).sync(FileSync::No);
    Store::open_with(scratch.join("store"), options).unwrap()
}

/// Writes row `number` to the file.
fn write_row(file: &mut File, number: usize) {
    let (day, second) = (number / 86_400, number % 86_400);
    let row = format!(
        r#"{{"resourceType":"Observation","id":"o{number}","meta":{{"lastUpdated":"2020-01-{:02}T{:02}:{:02}:{:02}Z"}},"subject":{{"reference":"Patient/p{}"}}}}"#,
        1 + day,
        second / 3600,
        second / 60 % 60,
        second % 60,
        number % PATIENTS
    );
    file.write_all(format!("{row}\n").as_bytes()).unwrap();
}

/// The file of the store, to append to.
fn store_file(scratch: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(scratch.join("store/a.ndjson")).unwrap()
}

/// Appends the rows and indexes after each, and takes a snapshot after every tenth.
fn write_appends(scratch: &Path, size: usize) {
    std::fs::create_dir(scratch.join("store")).unwrap();
    let (mut file, store) = (store_file(scratch), opened_store(scratch, "index"));
    for number in 0..size {
        write_row(&mut file, number);
        if number % 10 == 9 {
            let (day, second) = (number / 86_400, number % 86_400);
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            let now = format!("2021-01-{:02}T{hour:02}:{minute:02}:{second:02}Z", 1 + day);
            store.snapshot(Instant::parse(&now).unwrap()).unwrap();
        } else {
            store.index(&Progress::default()).unwrap();
        }
    }
}

/// Appends one row and brings an index up to date.
fn append_and_index(scratch: &Path, size: usize, index: &str) {
    write_row(&mut store_file(scratch), size);
    let (index, work) = opened_store(scratch, index).index(&Progress::default()).unwrap();
    assert!(work.scanned_segments == 1 && index.rows() > size);
}

fn index_run(scratch: &Path, size: usize) {
    append_and_index(scratch, size, "index");
}

/// Builds another index, and asserts that the one that grew is at most twice as large.
fn fresh_index(scratch: &Path, size: usize) {
    let (index, _) = opened_store(scratch, "fresh").index(&Progress::default()).unwrap();
    assert_eq!(index.rows(), size + 1);
    let bytes = |index: &str| {
        let files = std::fs::read_dir(scratch.join(index)).unwrap();
        files.map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    let (grown, fresh) = (bytes("index"), bytes("fresh"));
    assert!(grown <= 2 * fresh, "{grown} of {fresh} bytes");
}

fn fresh_index_run(scratch: &Path, size: usize) {
    append_and_index(scratch, size, "fresh");
}

/// Exports the rows of one patient.
fn export_one(scratch: &Path, index: &str) {
    let out = tempfile::tempdir_in(scratch).unwrap();
    let store = opened_store(scratch, index);
    let options = ExportOptions::new(out.path().join("out")).sync(FileSync::No);
    let now = Instant::parse("2026-01-01T00:00:00Z").unwrap();
    let report = export(&store, &ExportRequest::patient_ids(["p1"]), now, &options, &Progress::default()).unwrap();
    assert_eq!(report.manifest.output.len(), 1);
}

fn export_patient(scratch: &Path, _size: usize) {
    export_one(scratch, "index");
}

fn fresh_export_patient(scratch: &Path, _size: usize) {
    export_one(scratch, "fresh");
}
