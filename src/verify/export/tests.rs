//! Verification of intact exports, and of exports that break one rule each.

use super::*;
use crate::codec::compression::Compression;
use crate::export::options::ExportOptions;
use crate::fhir::instant::Instant;
use crate::request::{ExportRequest, Population};
use crate::store::Store;
use crate::sys::durability::FileSync;
use std::path::PathBuf;

/// A store of two patients and a deletion, exported.
pub(super) fn exported(mut request: ExportRequest) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let mut text = String::new();
    for n in 0..50 {
        let place = format!("2020-01-{:02}T00:00:00Z", 1 + n % 28);
        text += &format!(
            "{{\"resourceType\":\"Observation\",\"id\":\"o{n}\",\"meta\":{{\"lastUpdated\":\"{place}\"}},\"subject\":{{\"reference\":\"Patient/p{}\"}}}}\n",
            n % 3
        );
    }
    text += "not json\n\n";
    std::fs::write(store.join("Observation.ndjson"), text).unwrap();
    std::fs::write(
        store.join("Patient.ndjson"),
        "{\"resourceType\":\"Patient\",\"id\":\"p0\"}\r\n{\"resourceType\":\"Patient\",\"id\":\"p1\"}",
    )
    .unwrap();
    std::fs::write(
        store.join("deleted.ndjson"),
        "{\"resourceType\":\"Bundle\",\"type\":\"transaction\",\"meta\":{\"lastUpdated\":\"2021-01-01T00:00:00Z\"},\"entry\":[{\"request\":{\"method\":\"DELETE\",\"url\":\"Observation/o1\"}},{\"request\":{\"method\":\"DELETE\",\"url\":\"Observation/o3\"}}]}\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("ids"), "p0\np1\n").unwrap();
    let out = dir.path().join("out");
    if let Population::Patients(path) = &mut request.population {
        *path = dir.path().join("ids");
    }
    let clock = || Instant::from_unix_millis(0);
    let options = ExportOptions::new(&out).sync(FileSync::No).clock(&clock);
    let as_of = Instant::parse("2024-01-01T00:00:00Z").unwrap();
    crate::export::export(&Store::open(&store).unwrap(), &request, as_of, &options, &Progress::default()).unwrap();
    (dir, out)
}

fn request() -> ExportRequest {
    let mut request = ExportRequest::patients("").since("2019-01-01");
    request.bounds.file_resources = Some(20);
    request
}

fn coded(compression: Compression) -> ExportRequest {
    let mut request = request();
    request.compression = compression;
    request
}

fn rules(out: &Path) -> Vec<&'static str> {
    let report = verify_export(out, &Progress::default()).unwrap();
    assert_eq!(report.holds, report.differences.is_empty());
    assert!(!report.to_string().is_empty());
    serde_json::to_string(&report).unwrap();
    report.differences.counts.keys().copied().collect()
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// An intact export holds in every compression; a file that is not listed is reported and is no mismatch.
#[test]
fn a_good_export_holds() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let (_dir, out) = exported(coded(compression));
        std::fs::write(out.join("notes.txt"), "x").unwrap();
        let report = verify_export(&out, &Progress::default()).unwrap();
        assert_eq!(report.differences.lines(), Vec::<String>::new());
        assert!(report.holds);
        assert_eq!(report.unlisted, ["notes.txt"]);
        assert_eq!((report.output["Observation"].lines, report.output["Observation"].files), (32, 2));
        assert_eq!((report.output["Patient"].lines, report.deleted.lines), (2, 1));
        assert_eq!((report.long_lines, report.asked_again, report.without_facts), (0, 0, 0));
        assert!(report.error.lines > 0);
        assert!(report.to_string().contains("Observation"), "{report}");
    }
}

/// Each damage is found under its rule, with its place.
#[test]
fn damage_is_found() {
    let (_dir, out) = exported(request());
    let shard = out.join("Observation.00001.ndjson");
    let keep = std::fs::read(&shard).unwrap();
    let first = keep.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    type Change<'a> = (&'a dyn Fn(&mut Vec<u8>), &'a [&'a str]);
    let changes: [Change<'_>; 9] = [
        (&|bytes| bytes[20] ^= 1, &["FILE-01", "MANIFEST-17"]),
        (&|bytes| drop(bytes.drain(..first)), &["MANIFEST-07", "MANIFEST-17", "ledger"]),
        (&|bytes| bytes.truncate(bytes.len() - 1), &["FILE-02", "MANIFEST-17"]),
        (&|bytes| bytes.insert(first, b'\n'), &["FILE-02", "FILE-12", "MANIFEST-07", "MANIFEST-17", "ledger"]),
        (&|bytes| drop(bytes.splice(0..0, *b"\xef\xbb\xbf")), &["FILE-02", "MANIFEST-17"]),
        (&|bytes| bytes[first - 2] = b' ', &["FILE-02", "MANIFEST-17"]),
        (&|bytes| bytes[first - 2] = 0xff, &["FILE-02", "MANIFEST-17"]),
        (
            &|bytes| drop(bytes.splice(0..0, keep[..first].to_vec())),
            &["CONS-07", "FILE-12", "MANIFEST-07", "MANIFEST-17", "ledger"],
        ),
        (
            // o0 becomes o1, which is deleted.
            &|bytes| {
                let index = bytes.windows(6).position(|w| w == b"d\":\"o0").unwrap();
                bytes[index + 5] = b'1';
            },
            &["DELETED-03", "MANIFEST-17"],
        ),
    ];
    for (i, (change, expected)) in changes.into_iter().enumerate() {
        edit(&shard, change);
        assert_eq!(rules(&out), expected, "change {i}");
        std::fs::write(&shard, &keep).unwrap();
    }
    std::fs::remove_file(&shard).unwrap();
    let report = verify_export(&out, &Progress::default()).unwrap();
    assert!(report.differences.lines()[0].starts_with("Observation.00001.ndjson: it is not there"), "{report}");
}

/// Deletions that no client could read are found.
#[test]
fn deleted_bundles_are_held_to_their_shape() {
    let (_dir, out) = exported(request());
    let file = out.join("deleted/Bundle.00001.ndjson");
    let keep = std::fs::read_to_string(&file).unwrap();
    assert!(keep.contains("Observation/o1"), "{keep}");
    let entry = "{\"request\":{\"method\":\"DELETE\",\"url\":\"Patient/x\"}}";
    let many = format!("\"entry\":[{}]", vec![entry; 1001].join(","));
    for (from, to) in [
        ("transaction", "batch"),
        ("DELETE", "PUT"),
        ("Observation/o1", "Observation?x=1"),
        ("Observation/o1", "http://h/Observation/o1"),
        ("\"entry\":[", "\"entry\":[],\"x\":["),
        ("\"entry\":[", &format!("{many},\"x\":[")),
    ] {
        std::fs::write(&file, keep.replace(from, to)).unwrap();
        assert_eq!(rules(&out), ["DELETED-02", "MANIFEST-17"], "{to}");
    }
}

/// A coded file that cannot be decoded is a difference with its cause, not a failure.
#[test]
fn damaged_codings_are_found() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let (_dir, out) = exported(coded(compression));
        let shard = out.join(format!("Observation.00001.ndjson{}", compression.suffix()));
        let keep = std::fs::read(&shard).unwrap();
        edit(&shard, |bytes| bytes.truncate(bytes.len() / 2));
        assert!(rules(&out).contains(&"FILE-04"), "{compression:?}");
        edit(&shard, |bytes| *bytes = [&keep[..], &keep[..]].concat());
        let found = rules(&out);
        match compression {
            // Most clients read the first member only: the rest is not there for them.
            Compression::Gzip => assert_eq!(found, ["FILE-04", "MANIFEST-17"]),
            _ => assert_eq!(found, ["CONS-07", "FILE-12", "MANIFEST-07", "MANIFEST-17", "ledger"]),
        }
    }
}

/// A manifest that is cut off, or says other things than the IG allows.
#[test]
fn the_manifest_is_held_to_its_shape() {
    let (_dir, out) = exported(request());
    let path = out.join("manifest.json");
    let keep = std::fs::read_to_string(&path).unwrap();
    for (from, to, expected) in [
        ("\"requiresAccessToken\": false", "\"requiresAccessToken\": \"no\"", "MANIFEST-03"),
        ("\"error\": [", "\"errors\": [", "MANIFEST-15"),
        ("\"exported\": 34", "\"exported\": 33", "ledger"),
        ("\"type\": \"Patient\"", "\"type\": \"Patent\"", "MANIFEST-05"),
        ("\"url\": \"file://", "\"url\": \"", "MANIFEST-06"),
        ("Patient.00001", "Patient.00007", "MANIFEST-05"),
        ("\"transactionTime\": \"2024", "\"transactionTime\": \"24", "MANIFEST-01"),
        ("\"planId\": \"", "\"planId\": \"0", "record"),
    ] {
        assert!(keep.contains(from), "{from}");
        std::fs::write(&path, keep.replace(from, to)).unwrap();
        assert!(rules(&out).contains(&expected), "{to}: {:?}", rules(&out));
    }
    std::fs::write(&path, &keep[..keep.len() / 2]).unwrap();
    assert!(rules(&out).contains(&"MANIFEST-15"));
    std::fs::remove_file(&path).unwrap();
    let error = verify_export(&out, &Progress::default()).unwrap_err();
    assert!(error.to_string().contains("not finished") && error.exit_code() == 2, "{error}");
    assert_eq!(verify_export(&out.join("none"), &Progress::default()).unwrap_err().exit_code(), 2);
}
