//! Growth tables of references in a row, of distinct reference bases, of files of one resource, and of the rows of a file
//! that is replaced.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use outpour::ExportRequest;

use crate::harness::GrowthTable;
use crate::provenance::{assert_exported, index};

/// The tables of this file.
pub(crate) const TABLES: [GrowthTable; 4] = [
    GrowthTable {
        name: "references",
        about: "one row with n references",
        size_max: 1_000_000,
        write: write_references,
        steps: &[("index", index)],
    },
    GrowthTable {
        name: "bases",
        about: "n rows, each with a reference under a base of its own",
        size_max: 1_000_000,
        write: write_bases,
        steps: &[("index", index), ("everything", export_everything)],
    },
    GrowthTable {
        name: "files",
        about: "n rows, each exported into a file of its own",
        size_max: 1_000_000,
        write: write_observations,
        steps: &[("index", index), ("a file a row", export_files)],
    },
    GrowthTable {
        name: "replaced",
        about: "a file of n rows, replaced by one with a row more at its front",
        size_max: 1_000_000,
        write: write_observations,
        steps: &[("index", index), ("index again", index_replaced)],
    },
];

/// A new file of the store in a scratch directory.
fn store_file(scratch: &Path) -> BufWriter<File> {
    std::fs::create_dir(scratch.join("store")).unwrap();
    BufWriter::with_capacity(1 << 20, File::create(scratch.join("store/a.ndjson")).unwrap())
}

fn write_references(scratch: &Path, size: usize) {
    let mut file = store_file(scratch);
    write!(file, r#"{{"resourceType":"Appointment","id":"a","participant":["#).unwrap();
    for number in 0..size {
        let comma = if number == 0 { "" } else { "," };
        write!(file, r#"{comma}{{"actor":{{"reference":"Patient/p{number}"}}}}"#).unwrap();
    }
    writeln!(file, "]}}").unwrap();
}

fn write_bases(scratch: &Path, size: usize) {
    let mut file = store_file(scratch);
    for number in 0..size {
        let reference = format!("https://h{number}.example.org/fhir/Patient/p");
        writeln!(file, r#"{{"resourceType":"Observation","id":"o{number}","subject":{{"reference":"{reference}"}}}}"#)
            .unwrap();
    }
}

/// Writes an Observation of one of a hundred patients.
fn write_observation(file: &mut impl Write, number: usize) {
    let patient = number % 100;
    writeln!(
        file,
        r#"{{"resourceType":"Observation","id":"o{number}","meta":{{"lastUpdated":"2020-01-01T00:00:00Z"}},"subject":{{"reference":"Patient/p{patient}"}}}}"#
    )
    .unwrap();
}

fn write_observations(scratch: &Path, size: usize) {
    let mut file = store_file(scratch);
    (0..size).for_each(|number| write_observation(&mut file, number));
}

/// Exports every row of the store.
fn export_everything(scratch: &Path, size: usize) {
    assert_exported(scratch, &ExportRequest::system(), size);
}

/// Exports every row into a file of its own.
fn export_files(scratch: &Path, size: usize) {
    assert_exported(scratch, &ExportRequest::all_patients().file_resources(1), size);
}

/// Replaces the file by rename, and brings the index up to date.
fn index_replaced(scratch: &Path, size: usize) {
    let (new, path) = (scratch.join("new"), scratch.join("store/a.ndjson"));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&new).unwrap());
    write_observation(&mut file, size);
    std::io::copy(&mut File::open(&path).unwrap(), &mut file).unwrap();
    file.into_inner().unwrap();
    std::fs::rename(new, path).unwrap();
    index(scratch, size);
}
