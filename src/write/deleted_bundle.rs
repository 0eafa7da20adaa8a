//! Lines of the `deleted` files: Bundles of DELETE entries (DELETED-02, DELETED-07).
//!
//! Which resources count as deleted is decided in `select`; nothing is written here.

use serde_json::{Value, json};

use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::limits::DELETED_ENTRIES_MAX;

/// Transaction Bundles of DELETE entries for these resources, in their order, at most [`DELETED_ENTRIES_MAX`] entries a
/// Bundle, without line ends. Every Bundle has the lastUpdated T: all the resources are deleted at T, so an importer
/// can treat the files as tombstones.
pub(crate) fn deleted_lines(deleted: &[(ResourceType, Id)], as_of: &Instant) -> Vec<String> {
    let bundle = |chunk: &[(ResourceType, Id)]| {
        let entry = |(resource_type, id): &(ResourceType, Id)| -> Value {
            json!({ "request": { "method": "DELETE", "url": format!("{resource_type}/{id}") } })
        };
        json!({
            "resourceType": "Bundle",
            "meta": { "lastUpdated": as_of.to_string() },
            "type": "transaction",
            "entry": chunk.iter().map(entry).collect::<Vec<Value>>(),
        })
        .to_string()
    };
    deleted.chunks(DELETED_ENTRIES_MAX).map(bundle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DELETED-07: 1001 deletions are two lines.
    #[test]
    fn a_bundle_has_at_most_a_thousand_entries() {
        let ids: Vec<_> =
            (0..1001).map(|n| (ResourceType::PATIENT, Id::parse(format!("p{n}").as_bytes()).unwrap())).collect();
        let lines = deleted_lines(&ids, &Instant::from_unix_millis(0));
        let entries = |line: &String| serde_json::from_str::<Value>(line).unwrap()["entry"].as_array().unwrap().len();
        assert_eq!(lines.iter().map(entries).collect::<Vec<_>>(), [1000, 1]);
    }
}
