//! Provenances: what the index keeps of their targets, and that an export finds them at a cost that grows with the store.

use std::fmt::Write;

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
