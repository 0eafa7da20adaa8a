//! Stores of Provenances about many versions of one resource and about one another, and many deletions of one id.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use outpour::{ExportOptions, ExportRequest, FileSync, Instant, Progress, Store, StoreOptions, export};

use crate::harness::GrowthTable;

/// The tables of this file.
pub(crate) const TABLES: [GrowthTable; 4] = [
    GrowthTable {
        name: "versions",
        about: "a resource of n versions, and a Provenance about each",
        size_max: 1_000_000,
        write: write_versions,
        steps: &[("index", index), ("one patient", export_versions), ("all since", export_versions_since)],
    },
    GrowthTable {
        name: "web",
        about: "n Provenances, each about the two before it, the last about a member's record",
        size_max: 1_000_000,
        write: write_web,
        steps: &[("index", index), ("one patient", export_end_of_web), ("all since", export_end_of_web_since)],
    },
    GrowthTable {
        name: "chain",
        about: "n Provenances, each about the one before it, the first about a member's record",
        size_max: 1_000_000,
        write: write_chain,
        steps: &[("index", index), ("one patient", export_chain), ("all since", export_chain_since)],
    },
    GrowthTable {
        name: "deletions",
        about: "n deletions of one record",
        size_max: 1_000_000,
        write: write_deletions,
        steps: &[("index", index), ("all since", export_deletions)],
    },
];

/// A new file of the store in a scratch directory.
fn store_file(scratch: &Path) -> BufWriter<File> {
    std::fs::create_dir(scratch.join("store")).unwrap();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(scratch.join("store/a.ndjson")).unwrap());
    writeln!(file, r#"{{"resourceType":"Patient","id":"p"}}"#).unwrap();
    file
}

/// Writes an Observation of the patient; `number` counts seconds, and is the version.
fn write_observation(file: &mut impl Write, number: usize) {
    writeln!(
        file,
        r#"{{"resourceType":"Observation","id":"o","meta":{{"versionId":"{number}","lastUpdated":"{}"}},"subject":{{"reference":"Patient/p"}}}}"#,
        instant(number)
    )
    .unwrap();
}

/// Writes a Provenance about targets.
fn write_provenance(file: &mut impl Write, number: usize, targets: &[String]) {
    let targets: Vec<String> = targets.iter().map(|target| format!(r#"{{"reference":"{target}"}}"#)).collect();
    writeln!(
        file,
        r#"{{"resourceType":"Provenance","id":"w{number}","meta":{{"lastUpdated":"{}"}},"target":[{}]}}"#,
        instant(number),
        targets.join(",")
    )
    .unwrap();
}

/// So many seconds after the beginning of 2020.
fn instant(seconds: usize) -> String {
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    format!("2020-01-{:02}T{:02}:{:02}:{:02}Z", 1 + day, second / 3600, second / 60 % 60, second % 60)
}

fn write_versions(scratch: &Path, size: usize) {
    let mut file = store_file(scratch);
    for number in 0..size {
        write_observation(&mut file, number);
        write_provenance(&mut file, number, &[format!("Observation/o/_history/{number}")]);
    }
}

fn write_web(scratch: &Path, size: usize) {
    let mut file = store_file(scratch);
    write_observation(&mut file, 0);
    for number in 0..size {
        let mut targets: Vec<String> =
            (number.saturating_sub(2)..number).map(|before| format!("Provenance/w{before}")).collect();
        if number == size - 1 {
            targets.push("Observation/o".to_string());
        }
        write_provenance(&mut file, number, &targets);
    }
}

fn write_chain(scratch: &Path, size: usize) {
    let mut file = store_file(scratch);
    write_observation(&mut file, 0);
    for number in 0..size {
        let target =
            number.checked_sub(1).map_or("Observation/o".to_string(), |before| format!("Provenance/w{before}"));
        write_provenance(&mut file, number, &[target]);
    }
}

fn write_deletions(scratch: &Path, size: usize) {
    let mut file = store_file(scratch);
    write_observation(&mut file, 0);
    for number in 1..=size {
        writeln!(
            file,
            r#"{{"resourceType":"Bundle","type":"batch","meta":{{"lastUpdated":"{}"}},"entry":[{{"request":{{"method":"DELETE","url":"Observation/o"}}}}]}}"#,
            instant(number)
        )
        .unwrap();
    }
}

/// The store in a scratch directory, with the index beside it.
fn opened_store(scratch: &Path) -> Store {
    let access = outpour::internals::install().unwrap();
    let options = StoreOptions::default().index_dir(scratch.join("index")).access(access).sync(FileSync::No);
    Store::open_with(scratch.join("store"), options).unwrap()
}

/// Builds the index of the store in a scratch directory.
pub(crate) fn index(scratch: &Path, _size: usize) {
    let (_, work) = opened_store(scratch).index(&Progress::default()).unwrap();
    assert!(work.scanned_bytes > 0);
}

/// Exports a request into a new directory, and asserts how many rows it has.
#[track_caller]
pub(crate) fn assert_exported(scratch: &Path, request: &ExportRequest, rows: usize) {
    let out = tempfile::tempdir_in(scratch).unwrap();
    let options = ExportOptions::new(out.path().join("out")).sync(FileSync::No);
    let as_of = Instant::parse("2021-01-01T00:00:00Z").unwrap();
    let report = export(&opened_store(scratch), request, as_of, &options, &Progress::default()).unwrap();
    assert_eq!(report.ledger.exported, rows as u64, "{:?}", report.ledger);
}

/// The one patient, by the postings.
fn one_patient() -> ExportRequest {
    ExportRequest::patient_ids(["p"]).access_path(outpour::internals::AccessPath::Postings)
}

/// Every patient since before everything, by the columns.
fn all_since() -> ExportRequest {
    ExportRequest::all_patients().since("2019-01-01").access_path(outpour::internals::AccessPath::Columns)
}

fn export_versions(scratch: &Path, size: usize) {
    assert_exported(scratch, &one_patient(), 2 + size);
}

fn export_versions_since(scratch: &Path, size: usize) {
    assert_exported(scratch, &all_since(), 2 + size);
}

fn export_end_of_web(scratch: &Path, _size: usize) {
    assert_exported(scratch, &one_patient(), 3);
}

fn export_end_of_web_since(scratch: &Path, _size: usize) {
    assert_exported(scratch, &all_since(), 3);
}

fn export_chain(scratch: &Path, size: usize) {
    assert_exported(scratch, &one_patient(), 2 + size);
}

fn export_chain_since(scratch: &Path, size: usize) {
    assert_exported(scratch, &all_since(), 2 + size);
}

fn export_deletions(scratch: &Path, _size: usize) {
    assert_exported(scratch, &all_since(), 1);
}
