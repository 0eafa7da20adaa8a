//! The rows of a store that refer to a Binary.

use std::collections::HashSet;

use crate::error::ExportError;
use crate::fhir::id::Id;
use crate::ids::RowAddress;
use crate::index::row_reader::{row_range, stream_range};
use crate::index::snapshot::{RowState, Snapshot};
use crate::write::rewrite::url_rewriter::UrlRewriter;

/// The current rows that have the URL of an attachment that is this Binary, found the slow and obvious way: every row is read.
///
/// # Errors
/// If the index is corrupt, or the store cannot be read.
fn scan_for_references(snapshot: &Snapshot, id: &Id, ours: &[bool]) -> Result<Vec<RowAddress>, ExportError> {
    let index = snapshot.index();
    let mut rows = Vec::new();
    let (mut rewriter, mut rewritten) = (UrlRewriter::default(), Vec::new());
    for segment in snapshot.segments() {
        for row in 0..index.segment(segment).rows() {
            let address = RowAddress::of(segment, row);
            index.segment(segment).row(row)?;
            if snapshot.state(address, snapshot.as_of().as_ref(), ours, &|_| true)? != RowState::Current {
                continue;
            }
            let mut named: HashSet<Id> = HashSet::new();
            stream_range(index, index.file_of(segment), row_range(index, address), &mut |piece| {
                rewritten.clear();
                let mut note = |found: crate::fhir::reference::Reference<'_>| {
                    named.insert(found.id());
                    None
                };
                rewriter.feed(piece, &mut note, &mut rewritten);
            })?;
            rewriter.end_row(&mut rewritten);
            if named.contains(id) {
                rows.push(address);
            }
        }
    }
    Ok(rows)
}

mod tests {
    use super::*;
    use crate::fhir::instant::Instant;
    use crate::progress::Progress;
    use crate::select::attachments::rows_that_refer_to;
    use crate::store::Store;
    use proptest::prelude::*;

    /// A line that may refer to Binaries, by URLs of attachments and in other ways; some are versions of one another.
    fn line() -> impl Strategy<Value = String> {
        let url =
            prop::sample::select(vec!["Binary/a", "Binary/b", "Binary\\/a", "Binary/a/_history/1", "Binary/", "x"]);
        let member = (prop::sample::select(vec!["url", "u\\u0072l", "reference", "uri"]), url)
            .prop_map(|(name, url)| format!(r#"{{"{name}":"{url}"}}"#));
        let of = prop::sample::select(vec!["DocumentReference", "Media", "Binary"]);
        (of, 0..3u32, 1..4u32, prop::collection::vec(member, 0..3)).prop_map(|(of, id, day, members)| {
            let meta = format!(r#""meta":{{"lastUpdated":"2024-01-0{day}T00:00:00Z"}}"#);
            format!(r#"{{"resourceType":"{of}","id":"{id}",{meta},"content":[{}]}}"#, members.join(","))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// ATTACH-02: the index finds the rows that reading every row finds.
        #[test]
        fn the_index_finds_what_refers_to_a_binary(lines in prop::collection::vec(line(), 0..20)) {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("a.ndjson"), lines.join("\n")).unwrap();
            let as_of = Instant::parse("2024-01-02T12:00:00Z").unwrap();
            let store = Store::open(directory.path()).unwrap().read_only();
            let (snapshot, _) = store.snapshot_watched(as_of, &Progress::default()).unwrap();
            let ours = vec![true; snapshot.index().bases().len()];
            for id in ["a", "b", "c"] {
                let id = Id::parse(id.as_bytes()).unwrap();
                let expected = scan_for_references(&snapshot, &id, &ours).unwrap();
                prop_assert_eq!(rows_that_refer_to(&snapshot, &id, &ours).unwrap(), expected);
            }
        }
    }
}
