//! Resources of which nothing but the order of store files says which version is current: versions without a usable
//! lastUpdated, with the same versionId or none, in several files (reading 3).

use crate::error::CorruptIndex;
use crate::ids::{RecordId, RowAddress};
use crate::index::segment::id_encoding::VersionKey;
use crate::index::segment::layout::Column;
use crate::index::snapshot::{RowState, Snapshot};

/// The number of such resources of a snapshot. Segments without an undated row cost a look at their headers; of the
/// others the successions are walked.
///
/// `ours` holds for each base of the index whether it is a base of this store.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn count_decided_by_file(snapshot: &Snapshot, ours: &[bool]) -> Result<u64, CorruptIndex> {
    let index = snapshot.index();
    let mut resources = 0;
    for segment in snapshot.segments() {
        if index.segment(segment).head().undated == 0 {
            continue;
        }
        for (row, next) in index.successions(segment, 0..index.segment(segment).rows())? {
            resources += u64::from(is_last_change_of_file(snapshot, ours, RowAddress::of(segment, row), next)?);
        }
    }
    Ok(resources)
}

/// Whether the versions behind a row, of which `next` is the first, lie in one other file and end with the current one,
/// although nothing but their place tells them from the row. That holds for one row of a resource at most.
fn is_last_change_of_file(
    snapshot: &Snapshot,
    ours: &[bool],
    row: RowAddress,
    next: RecordId,
) -> Result<bool, CorruptIndex> {
    let index = snapshot.index();
    let Some(version) = undated_version(snapshot, row)? else { return Ok(false) };
    let own_file = index.file_of(row.segment);
    let mut last: Option<RowAddress> = None;
    let mut next = Some(next);
    while let Some(record) = next.filter(|record| index.is_row(*record)) {
        let address = index.locate(record);
        next = index.global().next(record)?;
        if !snapshot.sees_segment(address.segment) {
            continue;
        }
        if undated_version(snapshot, address)? != Some(version) {
            break;
        }
        let file = index.file_of(address.segment);
        match last {
            None if file == own_file => return Ok(false),
            Some(before) if file != index.file_of(before.segment) => return Ok(false),
            _ => last = Some(address),
        }
    }
    match last {
        // Whether a dated version behind it counts depends on T.
        Some(last) => {
            let state = snapshot.state(last, snapshot.as_of().as_ref(), ours, &|_| true)?;
            Ok(state == RowState::Current)
        }
        None => Ok(false),
    }
}

/// The versionId of a row without a usable lastUpdated; `None` for one that has one.
fn undated_version(snapshot: &Snapshot, row: RowAddress) -> Result<Option<VersionKey<'_>>, CorruptIndex> {
    let (segment, row) = row.parts();
    let segment = snapshot.index().segment(segment);
    if segment.head().undated == 0 || segment.updated(row)?.is_some() {
        return Ok(None);
    }
    segment.verify(Column::VersionId, row..row + 1)?;
    let columns = segment.columns();
    if columns.version[row] >> 63 != 0 {
        // Its digits lie in the heap.
        segment.verify_columns(&[Column::Heap])?;
    }
    Ok(Some(columns.version_of(row)))
}
