//! Provenances: what the index keeps of their targets, and that an export finds them at a cost that grows with the store.

use std::fmt::Write;
use std::path::Path;

use crate::index::test_lines::append;
use crate::progress::Progress;
use crate::store::Store;

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
    let columns = index.segments()[0].verify_all().unwrap();
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
    assert_eq!(columns.sorted_hash.len(), 2 + 6);
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
