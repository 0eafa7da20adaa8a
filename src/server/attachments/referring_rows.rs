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
pub(crate) fn scan_for_references(snapshot: &Snapshot, id: &Id, ours: &[bool]) -> Result<Vec<RowAddress>, ExportError> {
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
