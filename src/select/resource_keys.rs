//! The keys of selected rows: what a reader holds, as a set.

use std::fs::File;
use std::path::Path;

use rayon::prelude::*;

use crate::error::CorruptIndex;
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{EntryId, SegmentId};
use crate::index::segment::layout::kind;
use crate::index::snapshot::Snapshot;
use crate::key_set::builder::SortedKeys;
use crate::key_set::resource_key::{ResourceKey, resource_key};
use crate::select::row_set::RowSet;

/// Writes the keys of selected rows, sorted, to an empty file that is open for reading and writing; `name` is its name in
/// messages. Runs on the current rayon pool.
///
/// # Errors
/// The file cannot be written (outer); [`CorruptIndex`] if a page that is read fails its checksum (inner).
pub(crate) fn write_keys(
    snapshot: &Snapshot,
    rows: &[RowSet],
    file: File,
    name: &Path,
) -> std::io::Result<Result<SortedKeys, CorruptIndex>> {
    let count = rows.iter().map(RowSet::count).sum();
    SortedKeys::fill(file, name, count, |mut slots| {
        let mut parts = Vec::new();
        for (segment, rows) in rows.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let (own, rest) = std::mem::take(&mut slots).split_at_mut(rows.count());
            parts.push((SegmentId::of(segment), rows, own));
            slots = rest;
        }
        let written = parts.into_par_iter().try_for_each(|(segment, rows, own)| {
            let segment = snapshot.index().segment(segment);
            for (slot, row) in own.iter_mut().zip(rows.iter()) {
                *slot = resource_key(segment.type_of(row)?, segment.row_id(row)?.as_bytes());
            }
            Ok(())
        });
        written.map(|()| count)
    })
}

/// The type and id of a resource with this key of which the snapshot has any version or a DELETE entry; `None` if it has none.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn find_name(snapshot: &Snapshot, key: &ResourceKey) -> Result<Option<(ResourceType, Id)>, CorruptIndex> {
    for segment_id in snapshot.segments() {
        let segment = snapshot.index().segment(segment_id);
        for reference in segment.references_of_hash(key[0])? {
            let (resource_type, id) = match reference & kind::MASK {
                kind::TOMBSTONE => {
                    let entry = EntryId(reference & !kind::MASK);
                    segment.tombstone(entry)?.tombstone_of(entry)
                }
                kind::ROW => {
                    let row = (reference & !kind::MASK) as usize;
                    (segment.type_of(row)?, segment.row_id(row)?)
                }
                _ => continue,
            };
            if resource_key(resource_type, id.as_bytes()) == *key {
                return Ok(Some((resource_type, id)));
            }
        }
    }
    Ok(None)
}
