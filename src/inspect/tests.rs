//! Reports of the inspector on intact and damaged files.

use super::*;
use crate::export::options::ExportOptions;
use crate::fhir::instant::Instant;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::store::Store;
use crate::sys::durability::FileSync;

/// A store, exported: its index and the export.
fn exported() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    for file in ["a", "b"] {
        let rows: String = (0..40)
            .map(|n| {
                let id = format!("{file}-secret-{n}");
                format!("{{\"resourceType\":\"Observation\",\"id\":\"{id}\",\"subject\":{{\"reference\":\"Patient/secret-{n}\"}}}}\n")
            })
            .collect();
        std::fs::write(store.join(format!("{file}.ndjson")), rows).unwrap();
    }
    let out = dir.path().join("out");
    let clock = || Instant::from_unix_millis(0);
    let options = ExportOptions::new(&out).sync(FileSync::No).clock(&clock);
    let as_of = Instant::parse("2024-01-01T00:00:00Z").unwrap();
    let request = ExportRequest::all_patients();
    crate::export::export(&Store::open(&store).unwrap(), &request, as_of, &options, &Progress::default()).unwrap();
    (dir, store, out)
}

/// The kind of every file and directory is recognised; nothing is broken, no id is shown, nothing is written.
#[test]
fn every_file_is_told() {
    let (_dir, store, out) = exported();
    let index = store.join(".outpour");
    let listing = |dir: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = (listing(&index), listing(&out));
    let mut reported = Vec::new();
    let job = out.join(JOB);
    let files = [&index, &job].into_iter().flat_map(|dir| std::fs::read_dir(dir).unwrap());
    let files = files.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("lock"));
    for path in files.chain([out.join(MANIFEST), out.join(STATUS), out.clone(), index.clone(), store.clone()]) {
        let report = inspect(&path).unwrap();
        assert!(report.intact, "{report}");
        assert!(!report.to_string().contains("secret"), "{report}");
        serde_json::to_string(&report).unwrap();
        reported.push(report.what);
    }
    reported.sort();
    let expected = [
        "a file of extents",
        "a store with its index",
        "an export",
        "an index",
        "the generation of an index",
        "the generation of an index",
        "the manifest of an export",
        "the plan of an export",
        "the receipts of an export",
        "the status of an export",
        "what was merged over the extents of an index",
    ];
    assert_eq!(reported, expected);
    assert_eq!((listing(&index), listing(&out)), before);
    let text = inspect(&index).unwrap().to_string();
    for expected in ["owner_hash", "Observation    80", "a.ndjson", "sequence", "patient of each owner"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    std::fs::write(store.join("a.txt"), "x").unwrap();
    assert!(matches!(inspect(&store.join("a.txt")), Err(InspectError::Foreign { .. })));
    assert!(inspect(&store.join("a.ndjson")).unwrap().what.contains("data file"));
    assert!(matches!(inspect(&store.join("none")), Err(InspectError::Read { .. })));
}

/// Whatever byte is flipped and wherever a file is cut, the inspector says so, and says the rest; it never panics.
#[test]
fn damage_is_told_and_never_a_panic() {
    let (dir, store, out) = exported();
    let index = store.join(".outpour");
    let job = out.join(JOB);
    let damaged = dir.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    let files = [&index, &job].into_iter().flat_map(|dir| std::fs::read_dir(dir).unwrap());
    let files = files.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("lock"));
    for path in files.chain([out.join(MANIFEST), out.join(STATUS)]) {
        let bytes = std::fs::read(&path).unwrap();
        let copy = damaged.join(path.file_name().unwrap());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let checked = name.starts_with("extents-")
            || name.starts_with("merged-")
            || name == "generation"
            || name == "generation-b";
        for offset in (0..bytes.len()).step_by((bytes.len() / 70).max(1)) {
            let mut flipped = bytes.clone();
            flipped[offset] ^= 0x10;
            std::fs::write(&copy, &flipped).unwrap();
            let report = inspect(&copy).unwrap();
            assert!(!checked || !report.intact, "{name}: byte {offset}: {report}");
            std::fs::write(&copy, &bytes[..offset]).unwrap();
            let report = inspect(&copy).unwrap();
            assert!(
                !report.intact || offset == 0 || offset + 1 == bytes.len() || name == "receipts.jsonlog",
                "{name}: cut at {offset}: {report}"
            );
        }
    }
    // The second segment is shown although the first is broken.
    let mut names = std::fs::read_dir(&index).unwrap().map(|entry| entry.unwrap().path());
    let container = names.find(|path| path.to_string_lossy().contains("extents-")).unwrap();
    let mut bytes = std::fs::read(&container).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&container, bytes).unwrap();
    let report = inspect(&index).unwrap();
    assert!(report.broken[0].contains("byte 0: no extent"), "{report}");
    assert!(report.to_string().contains("Observation    40"), "{report}");
}
