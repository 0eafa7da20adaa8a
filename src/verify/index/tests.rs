//! Indexes, good, damaged and forged, against their stores.

use super::*;
use crate::index::meta;
use crate::index::segment::layout::{self, Column, ColumnRanges, HEADER_BYTES, flag};
use crate::pack::writer::FrameCoder;
use crate::store::StoreOptions;
use std::path::{Path, PathBuf};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn open(root: &Path, index: &Path) -> Store {
    let options = StoreOptions { index_dir: Some(index.to_path_buf()), ..StoreOptions::default() };
    Store::open_with(root, options).unwrap()
}

fn verified(root: &Path, index: &Path) -> StoreReport {
    let before = files(index);
    let report = verify_index(&open(root, index), &Progress::default()).unwrap();
    assert_eq!(files(index), before, "a verification writes nothing");
    report
}

/// Names, bytes and times of what lies in an index; none when it is not there.
fn files(index: &Path) -> Option<Vec<(String, Vec<u8>, std::time::SystemTime)>> {
    let mut found: Vec<_> = std::fs::read_dir(index)
        .ok()?
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let modified = entry.metadata().unwrap().modified().unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap(), modified)
        })
        .collect();
    found.sort();
    Some(found)
}

/// Builds the index, or rebuilds its damaged parts.
fn indexed(root: &Path, index: &Path) {
    open(root, index).verify_and_repair(&Progress::default()).unwrap();
}

/// The reference implementation agrees with the index on every bundled store: real records, and hand-made edge cases.
#[test]
fn the_bundled_stores_hold() {
    for name in ["stores/synthea-r4-100", "hostile/store", "hostile/deleted", "hostile/coverage", "hostile/compressed"]
    {
        let index = tempfile::tempdir().unwrap();
        let report = verified(&testdata(name), index.path());
        assert!(report.holds, "{name}: {report}");
        let counts = report.counts;
        let classes = counts.blank + counts.faulty + counts.tombstone + counts.rows;
        assert_eq!((classes, counts.long), (counts.lines, 0), "{name}");
        assert!(counts.rows > 0 && serde_json::to_string(&report).is_ok(), "{name}");
    }
}

/// After lines are appended, torn and completed, the segments still agree with the bytes.
#[test]
fn a_grown_store_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (root, index) = (dir.path().join("store"), dir.path().join("index"));
    std::fs::create_dir(&root).unwrap();
    let file = root.join("Patient.ndjson");
    let mut text = "\u{feff}{\"resourceType\":\"Patient\",\"id\":\"a\"}\r\n\n".to_string();
    for more in
        ["{\"resourceType\":\"Patient\",\"id\":\"b\"}", "\n", "{\"resourceType\":\"Pat", "ient\",\"id\":\"c\"}\n"]
    {
        text.push_str(more);
        std::fs::write(&file, &text).unwrap();
        let report = verified(&root, &index);
        assert!(report.holds, "{more:?}: {report}");
        let known = if index.exists() { IndexState::Present } else { IndexState::Absent };
        // A newline behind the last line changes no segment.
        assert_eq!((report.on_disk, report.index.in_memory.is_some()), (known, more != "\n"), "{report}");
        indexed(&root, &index);
        assert!(verified(&root, &index).index.in_memory.is_none());
    }
    let report = verified(&root, &index);
    assert_eq!((report.counts.rows, report.counts.blank, report.counts.faulty), (3, 1, 0));
}

/// The segment container of an index, its only one.
fn container(index: &Path) -> PathBuf {
    let mut names = std::fs::read_dir(index).unwrap().map(|entry| entry.unwrap().path());
    names.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("extents-")).unwrap()
}

/// Changes bytes of a column of the first segment; the checksum is made to hold again.
fn forge(index: &Path, column: Column, change: impl FnOnce(&mut [u8])) {
    let path = container(index);
    let mut bytes = std::fs::read(&path).unwrap();
    let places = ColumnRanges::read(&bytes).unwrap();
    change(&mut bytes[places.column(column)]);
    layout::seal_segment(&mut bytes[..places.head.size as usize], places.front());
    std::fs::write(&path, bytes).unwrap();
}

/// A damaged index is reported as damaged; a forged one with valid checksums is reported by column and line.
#[test]
fn a_garbled_index_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (root, index) = (dir.path().join("store"), dir.path().join("index"));
    std::fs::create_dir(&root).unwrap();
    let text: String = (0..9)
        .map(|n| format!("{{\"resourceType\":\"Observation\",\"id\":\"o{n}\",\"meta\":{{\"lastUpdated\":\"2020-01-01T00:00:0{n}Z\"}},\"subject\":{{\"reference\":\"Patient/p{n}\"}}}}\n"))
        .collect();
    std::fs::write(root.join("a.ndjson"), text + "x\n").unwrap();
    indexed(&root, &index);
    assert!(verified(&root, &index).holds);

    let flip = |k: usize| {
        let path = container(&index);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[k] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    };
    flip(HEADER_BYTES + 3);
    let report = verified(&root, &index);
    assert!(!report.holds && report.differences.is_empty() && report.index.repaired.len() == 1, "{report}");
    indexed(&root, &index);
    assert!(verified(&root, &index).holds);

    for (column, name) in
        [(Column::LastUpdated, "last_updated"), (Column::VersionId, "version"), (Column::Owner, "owner")]
    {
        let mut kept = Vec::new();
        forge(&index, column, |bytes| {
            kept = bytes.to_vec();
            bytes[0] ^= 1;
        });
        let report = verified(&root, &index);
        let first = report.differences.lines().first().cloned().unwrap_or_default();
        assert_eq!(first, format!("a.ndjson: line 1 at byte 0: the index differs in {name} (index)"), "{report}");
        forge(&index, column, |bytes| bytes.copy_from_slice(&kept));
    }
    // The header sums up lengths, types, flags and owners: an index that contradicts itself is made again.
    let contradictions = [
        (Column::Place, 4, 1),
        (Column::Type, 0, 1),
        (Column::Flags, 0, flag::LEADING_SPACE),
        (Column::OwnerStart, 4, 1),
    ];
    for (column, i, change) in contradictions {
        forge(&index, column, |bytes| bytes[i] ^= change);
        let report = verified(&root, &index);
        assert!(!report.holds && report.differences.is_empty() && report.index.repaired.len() == 1, "{report}");
        indexed(&root, &index);
    }
    forge(&index, Column::Place, |bytes| bytes[8] += 1);
    let report = verified(&root, &index);
    assert!(report.differences.lines()[0].contains("line 2 at byte"), "{report}");
    assert!(report.differences.lines()[0].contains("no row for it"), "{report}");
    forge(&index, Column::Place, |bytes| bytes[8] -= 1);
    forge(&index, Column::FaultCount, |bytes| bytes[0] += 1);
    assert!(!verified(&root, &index).holds);
}

/// Bytes that were changed behind the index's back, size and times kept, are found by their hash and their facts.
#[test]
fn changed_bytes_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (root, index) = (dir.path().join("store"), dir.path().join("index"));
    std::fs::create_dir(&root).unwrap();
    let file = root.join("a.ndjson");
    std::fs::write(&file, "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    indexed(&root, &index);
    assert!(verified(&root, &index).holds);
    // The generation is made to believe in the changed file: as if a disk had lied.
    let text = std::fs::read_to_string(&file).unwrap().replace("\"a\"", "\"b\"");
    std::fs::write(&file, text).unwrap();
    let name = index.join(crate::index::meta::FILE);
    let mut generation = crate::index::meta::IndexMeta::from_bytes(&std::fs::read(&name).unwrap()).unwrap();
    let source = crate::sys::store_file::StoreFile::open(&file, crate::sys::access::Access::pread()).unwrap();
    (generation.files[0].stamp, generation.files[0].settled) = (source.stamp(), true);
    std::fs::write(&name, generation.to_bytes()).unwrap();
    let report = verified(&root, &index);
    let rules: Vec<_> = report.differences.counts.keys().copied().collect();
    assert_eq!(rules, ["content", "index", "sorted_hash"], "{report}");
}

/// Prior owners are compared with the table of the packed file: a wrong or missing one is a mismatch, and a number out of
/// range is damage, not a panic.
#[test]
fn owners_of_what_has_left_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (root, packed) = (dir.path().join("store"), dir.path().join("packed"));
    std::fs::create_dir(&root).unwrap();
    let row = |id: &str, patient: &str| {
        format!(
            "{{\"resourceType\":\"Observation\",\"id\":\"{id}\",\"meta\":{{\"lastUpdated\":\"2020-01-01T00:00:00Z\"}},\
             \"subject\":{{\"reference\":\"Patient/{patient}\"}},\"performer\":[{{\"reference\":\"Patient/r\"}}]}}\n"
        )
    };
    let deletion = |ids: &[&str]| {
        let entry = |id: &&str| format!("{{\"request\":{{\"method\":\"DELETE\",\"url\":\"Observation/{id}\"}}}}");
        let entries: Vec<String> = ids.iter().map(entry).collect();
        format!(
            "{{\"resourceType\":\"Bundle\",\"type\":\"batch\",\"meta\":{{\"lastUpdated\":\"2020-01-02T00:00:00Z\"}},\
             \"entry\":[{}]}}\n",
            entries.join(",")
        )
    };
    let text = row("x", "p") + &row("y", "q") + &deletion(&["n", "x"]) + &deletion(&["y"]);
    std::fs::write(root.join("all.ndjson"), text).unwrap();
    let store = Store::open(&root).unwrap();
    let time = crate::fhir::instant::Instant::parse("2020-02-01T00:00:00Z").unwrap();
    let options = crate::pack::PackOptions {
        to: packed.clone(),
        coder: FrameCoder::zstd(1),
        sync: crate::sys::durability::FileSync::No,
    };
    crate::pack::pack(&store, time, &options, &Progress::default()).unwrap();
    let index = dir.path().join("index");
    indexed(&packed, &index);
    assert!(verified(&packed, &index).holds);
    // x: p and r; y: q and r.
    for (k, change) in [(0usize, 1u8), (4, 1), (8, 1), (16 * 3 + 4, 1)] {
        forge(&index, Column::TombLeft, |bytes| {
            assert_eq!(bytes.len(), 16 * 4);
            bytes[k] ^= change;
        });
        let report = verified(&packed, &index);
        // A number of an entry that is moved on is out of order, or another entry's.
        let reported = report.differences.lines().iter().any(|line| line.contains("tombstone_left"));
        assert!(!report.holds && (reported || !report.index.repaired.is_empty()), "{k}: {report}");
        assert!(reported || k == 0, "{k}: {report}");
        match report.index.repaired.is_empty() {
            true => forge(&index, Column::TombLeft, |bytes| bytes[k] ^= change),
            false => indexed(&packed, &index),
        }
        assert!(verified(&packed, &index).holds);
    }
    for i in [3usize, 7] {
        forge(&index, Column::TombLeft, |bytes| bytes[i] ^= 0x40);
        let report = verified(&packed, &index);
        assert!(!report.holds && report.index.repaired.len() == 1, "{i}: {report}");
        indexed(&packed, &index);
        assert!(verified(&packed, &index).holds);
    }
}

/// An unreadable index is reported differently from a missing one, and another format version differently from damage.
#[test]
fn what_is_on_disk_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (root, index) = (dir.path().join("store"), dir.path().join("index"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    let report = verified(&root, &index);
    assert!(report.holds && !index.exists() && report.to_string().contains("has no index"), "{report}");
    indexed(&root, &index);
    let name = index.join(meta::FILE);
    let good = std::fs::read(&name).unwrap();
    let version = format!("outpour-index {} ", layout::VERSION);
    assert!(good.starts_with(version.as_bytes()));
    let other = [b"outpour-index 1 ", &good[version.len()..]].concat();
    let mut damaged = good.clone();
    damaged[40] ^= 1;
    for (bytes, state, holds) in [
        (good, IndexState::Present, true),
        (other, IndexState::OtherFormat, true),
        (damaged, IndexState::Damaged, false),
        (Vec::new(), IndexState::Damaged, false),
    ] {
        std::fs::write(&name, &bytes).unwrap();
        std::fs::write(index.join(meta::TWIN), bytes).unwrap();
        let report = verified(&root, &index);
        assert_eq!((report.on_disk, report.holds), (state, holds), "{report}");
        assert_eq!(report.counts.rows, 1, "{report}");
    }
}

/// A verification and a concurrent indexing run wait for each other.
#[test]
fn a_verification_and_a_writer_hold_each_other_off() {
    let dir = tempfile::tempdir().unwrap();
    let (root, index) = (dir.path().join("store"), dir.path().join("index"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    indexed(&root, &index);
    std::fs::write(root.join("b.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"b\"}\n").unwrap();
    let writer = std::fs::File::options().read(true).write(true).open(index.join("lock")).unwrap();
    writer.lock().unwrap();
    let progress = Progress::default();
    let store_now = open(&root, &index);
    std::thread::scope(|scope| {
        let verification = scope.spawn(|| verify_index(&store_now, &progress).unwrap());
        while !progress.waiting.load(Relaxed) {
            assert!(!verification.is_finished(), "it looked while somebody wrote");
            std::thread::yield_now();
        }
        writer.unlock().unwrap();
        assert!(verification.join().unwrap().holds);
    });
}
