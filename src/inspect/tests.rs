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

/// The files of a service: records, Groups, keys and assertions are counted, what is secret or a patient's is not shown, and
/// damage is named. A file under a name of ours that holds something else is damage, too.
#[test]
fn the_files_of_a_service_are_told() {
    use crate::group::registry::writer::GroupWriter;
    use crate::hash::xxh3_64;
    use crate::inspect::service::{KEYS, MARK};
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    for folder in ["jobs", "groups", "files", "smart/assertions"] {
        std::fs::create_dir_all(data.join(folder)).unwrap();
    }
    let write = |name: &str, bytes: &[u8]| std::fs::write(data.join(name), bytes).unwrap();
    write(&format!("jobs/{MARK}"), b"m");
    write(&format!("files/{MARK}"), b"m");
    let id = "0123456789abcdef0123456789abcdef";
    std::fs::create_dir(data.join("files").join(id)).unwrap();
    let body = format!(
        r#"{{"format":1,"id":"{id}","state":"complete","client":"nightly","url":"/x?_typeFilter=secret","request":{{"whose":{{"patient":"secret"}}}},"planned":{{"rows":7,"shards":1,"complete":1}},"files":[{{"file":"Patient.00001.ndjson","type":"Patient","count":7,"bytes":70}}]"#
    );
    let record = format!(r#"{body},"sum":"{:016x}"}}"#, xxh3_64(body.as_bytes()));
    write(&format!("jobs/{id}.json"), record.as_bytes());
    let group = br#"{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/secret"}}]}"#;
    let writer = GroupWriter { client: "author".to_string(), bound_to_groups: false, follows_unbound: false };
    write("groups/g.ndjson", &[&group[..], b"\n", &writer.to_line()].concat());
    let key = r#"{"version":1,"keys":[{"kid":"k1","made":1700000000,"pkcs8":"secret"}]}"#;
    write(&format!("smart/{}", KEYS[0]), key.as_bytes());
    let mut used = [&[7; 32][..], &1_700_000_300_u64.to_le_bytes()].concat();
    used.extend(crc32fast::hash(&used).to_le_bytes());
    used.extend([1, 2, 3]);
    write("smart/assertions/used-1-2-3", &used);
    let files = [
        format!("jobs/{id}.json"),
        "groups/g.ndjson".into(),
        format!("smart/{}", KEYS[0]),
        "smart/assertions/used-1-2-3".into(),
    ];
    let told = |path: &Path| inspect(path).unwrap();
    for name in files.iter().map(String::as_str).chain(["", "jobs"]) {
        let report = told(&data.join(name));
        assert!(report.intact && !report.to_string().contains("secret"), "{name}: {report}");
    }
    let whole = told(data).to_string();
    for needle in ["nightly", "author", "k1", "complete", id, "1700000300"] {
        assert!(whole.contains(needle), "{needle}: {whole}");
    }
    // Damage of each is named, and nothing panics.
    write(&format!("jobs/{id}.json"), record.replace("nightly", "nightlY").as_bytes());
    assert!(told(data).broken[0].contains("checksum"), "{}", told(data));
    used[40] ^= 1;
    write("smart/assertions/used-1-2-3", &used);
    write("groups/g.ndjson", b"{");
    write(&format!("smart/{}", KEYS[0]), b"[]");
    assert_eq!(told(data).broken.len(), 5, "{}", told(data));
    for name in &files {
        assert!(!told(&data.join(name)).intact, "{name}");
    }
}
