//! Provenances: what the index keeps of their targets, and that an export finds them at a cost that grows with the store.

use crate::pack::writer::FrameCoder;
use std::fmt::Write;
use std::path::Path;

use proptest::prelude::*;

use crate::export::tests::access_paths::{at, selected};
use crate::ids::SegmentId;
use crate::index::test_lines::append;
use crate::pack::{PackOptions, pack};
use crate::policies::{AccessPath, PatientStrict};
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::select::cohort::Cohort;
use crate::select::deleted::Deletions;
use crate::store::Store;
use crate::sys::durability::FileSync;

/// A row names versions of a few resources: one target for each type, id and base, in the order of the row.
#[test]
fn a_row_has_one_target_for_each_resource_and_base() {
    let dir = tempfile::tempdir().unwrap();
    let long = "a-long-id-that-needs-the-heap-of-a-segment";
    let mut named = vec!["Device/o".to_string(), format!("Observation/{long}")];
    named.extend((1..50).flat_map(|version| {
        ["", "https://a.example/r4/", "https://b.example/r4/"]
            .map(|base| format!("{base}Observation/o/_history/{version}"))
            .into_iter()
            .chain([format!("Observation/{long}/_history/{version}")])
    }));
    let provenance = |id: &str, named: &[String]| {
        let targets: Vec<String> = named.iter().map(|named| format!(r#"{{"reference":"{named}"}}"#)).collect();
        format!(r#"{{"resourceType":"Provenance","id":"{id}","target":[{}]}}"#, targets.join(","))
    };
    append(&dir.path().join("a.ndjson"), &[provenance("all", &named), provenance("last", &named[named.len() - 1..])]);
    let (index, _) = Store::open(dir.path()).unwrap().index(&Progress::default()).unwrap();
    let columns = index.segment(SegmentId(0)).verify_all().unwrap();
    let targets = |row: usize| {
        columns.targets_of(row).fold(String::new(), |mut list, target| {
            let (resource_type, id) = columns.target_of(target);
            let base =
                columns.base_text((columns.target_base[target] & crate::index::segment::layout::BASE_BITS) as usize);
            write!(list, "{base} {resource_type} {} ", id.as_str()).unwrap();
            list
        })
    };
    let own = format!(" Observation {long} ");
    let others = "https://a.example/r4 Observation o https://b.example/r4 Observation o ";
    assert_eq!(targets(0), format!(" Device o {own} Observation o {others}"));
    assert_eq!(targets(1), own);
    // Two rows, six targets, and the reference to the Device.
    assert_eq!(columns.sorted_hash.len(), 2 + 6 + 1);
}

/// Writes one resource of as many versions as Provenances, each about another version.
fn write_versions(root: &Path, count: usize) {
    let mut lines = vec![r#"{"resourceType":"Patient","id":"p"}"#.to_string()];
    for n in 0..count {
        let meta = format!(r#""meta":{{"versionId":"{}","lastUpdated":"2024-01-01T00:00:00Z"}}"#, n + 1);
        lines
            .push(format!(r#"{{"resourceType":"Observation","id":"o",{meta},"subject":{{"reference":"Patient/p"}}}}"#));
        lines.push(format!(
            r#"{{"resourceType":"Provenance","id":"v{n}","target":[{{"reference":"Observation/o/_history/{}"}}]}}"#,
            n + 1
        ));
    }
    append(&root.join("a.ndjson"), &lines);
}

/// The global index of versions with a Provenance each grows as the store does.
#[test]
fn versions_and_their_provenances_do_not_multiply() {
    let bytes = [1000, 2000].map(|count| {
        let dir = tempfile::tempdir().unwrap();
        write_versions(dir.path(), count);
        let (index, _) = Store::open(dir.path()).unwrap().index(&Progress::default()).unwrap();
        assert_eq!(index.rows(), 1 + 2 * count);
        index.global().bytes().len()
    });
    assert!(bytes[1] * 10 <= bytes[0] * 22, "{bytes:?}");
}

/// A line of a web: mostly Provenances about few resources and about one another, under two bases, in many versions.
fn web_line() -> impl Strategy<Value = String> {
    let about = (0..8u32, 0..3usize, 0..9u32).prop_map(|(kind, base, id)| {
        let name = ["Observation", "Observation", "Patient", "Group"][kind.min(3) as usize];
        let name = if kind < 4 { name } else { "Provenance" };
        format!(r#"{{"reference":"{}{name}/r{id}"}}"#, ["", "https://a.example/r4/", "https://b.example/r4/"][base])
    });
    let patients =
        prop_oneof![4 => proptest::collection::vec(0..14u32, 1..2), 1 => proptest::collection::vec(0..14u32, 9..14)];
    let meta = (0..40u32).prop_map(|second| match second {
        0 => String::new(),
        _ => format!(r#","meta":{{"lastUpdated":"2020-01-01T00:00:{second:02}Z"}}"#),
    });
    (0..12u32, 0..9u32, meta, patients, proptest::collection::vec(about, 1..4)).prop_map(
        |(kind, id, meta, patients, about)| match kind {
            0..3 => {
                let performers: Vec<String> =
                    patients.iter().map(|patient| format!(r#"{{"reference":"Patient/r{patient}"}}"#)).collect();
                format!(
                    r#"{{"resourceType":"Observation","id":"r{id}"{meta},"performer":[{}]}}"#,
                    performers.join(",")
                )
            }
            3 => format!(r#"{{"resourceType":"Patient","id":"r{id}"{meta}}}"#),
            4..6 => {
                let (url, id) = (["Observation", "Provenance"][id as usize % 2], id % 2);
                format!(
                    r#"{{"resourceType":"Bundle"{meta},"type":"batch","entry":[{{"request":{{"method":"DELETE","url":"{url}/r{id}"}}}}]}}"#
                )
            }
            _ => format!(r#"{{"resourceType":"Provenance","id":"r{id}"{meta},"target":[{}]}}"#, about.join(",")),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The cached membership of Provenances equals that of a walk from each row: over cycles, versions, deletions, late
    /// rows, reference bases and versions that a pack purged.
    #[test]
    fn what_is_remembered_of_a_web_is_what_a_walk_finds(
        rounds in proptest::collection::vec((0..3usize, proptest::collection::vec(web_line(), 0..60)), 1..5),
        packed_after in 0..5usize,
        people in proptest::collection::vec(0..14u32, 1..3),
        since in proptest::collection::vec(0..40u32, 3),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut root = dir.path().join("plain");
        std::fs::create_dir(&root).unwrap();
        let list = dir.path().join("people.txt");
        std::fs::write(&list, people.iter().map(|id| format!("r{id}\n")).collect::<String>()).unwrap();
        for (round, (file, lines)) in rounds.iter().enumerate() {
            append(&root.join(["b.ndjson", "a.ndjson", "c.ndjson"][*file]), lines);
            let taken = at(&format!("2020-01-01T00:00:{:02}Z", 9 * round + 5));
            Store::open(&root).unwrap().snapshot(taken.clone()).unwrap();
            if round == packed_after {
                let options = PackOptions { to: dir.path().join("packed"), coder: [FrameCoder::zstd(1), FrameCoder::gzip(1)][people.len() % 2], sync: FileSync::No };
                pack(&Store::open(&root).unwrap(), taken, &options, &Progress::default()).unwrap();
                root = options.to;
                Store::open(&root).unwrap().snapshot(at("2020-01-01T00:00:50Z")).unwrap();
            }
        }
        for second in [21, 59] {
            let snapshot = Store::open(&root).unwrap().snapshot(at(&format!("2020-01-01T00:00:{second:02}Z"))).unwrap();
            let requests = since.iter().map(|since| format!("2020-01-01T00:00:{since:02}Z")).map(Some).chain([None]);
            for (i, since) in requests.flat_map(|since| [since.clone(), since]).enumerate() {
                let mut request = match i % 4 < 2 {
                    true => ExportRequest::patients(&list),
                    // COMP-05: what is also in the record of anybody else is not in the cohort.
                    false => {
                        let only = people.iter().map(|id| format!("r{id}")).chain((0..8).map(|id| format!("r{id}")));
                        ExportRequest::all_patients().only_patients(only).patient_strict(PatientStrict::All)
                    }
                };
                if let Some(since) = since {
                    request = request.since(&since);
                }
                if i % 2 == 1 {
                    request.fhir_bases.push("https://a.example/r4".to_string());
                }
                let deleted = |access_path| {
                    let request = request.clone().access_path(access_path);
                    let cohort = Cohort::resolve(&snapshot, &request).unwrap();
                    let deletions = Deletions::new(&snapshot, &cohort, &request, &Progress::default()).unwrap();
                    (deletions.listed, deletions.unknown)
                };
                let rows = selected(&snapshot, &request, AccessPath::Rows);
                for access_path in [AccessPath::Columns, AccessPath::Postings] {
                    prop_assert_eq!(&rows, &selected(&snapshot, &request, access_path), "{:?} {:?}", access_path, request);
                    prop_assert!(deleted(AccessPath::Rows) == deleted(access_path));
                }
            }
        }
    }
}

/// A chain of any length leads to the member's record at its end, by every access path.
#[test]
fn a_chain_has_no_depth() {
    let dir = tempfile::tempdir().unwrap();
    let (root, list) = (dir.path().join("store"), dir.path().join("list"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(&list, "p\n").unwrap();
    let mut lines = vec![
        r#"{"resourceType":"Patient","id":"p"}"#.to_string(),
        r#"{"resourceType":"Observation","id":"c0","subject":{"reference":"Patient/p"}}"#.to_string(),
    ];
    lines.extend((1..=3000).map(|n| {
        let about = format!("{}/c{}", if n == 1 { "Observation" } else { "Provenance" }, n - 1);
        format!(r#"{{"resourceType":"Provenance","id":"c{n}","target":[{{"reference":"{about}"}}]}}"#)
    }));
    append(&root.join("a.ndjson"), &lines);
    let snapshot = Store::open(&root).unwrap().snapshot(at("2021-01-01T00:00:00Z")).unwrap();
    for access_path in [AccessPath::Columns, AccessPath::Postings, AccessPath::Rows] {
        let request = ExportRequest::patients(&list).access_path(access_path);
        let cohort = Cohort::resolve(&snapshot, &request).unwrap();
        let selection = crate::select::selection::Selection::new(&snapshot, &cohort, &request).unwrap();
        assert_eq!(selection.ledger.exported, 3002, "{access_path:?}");
    }
}
