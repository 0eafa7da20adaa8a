//! Finds the files of a store that hold no FHIR: logs and messages of other tools in NDJSON. Every line of theirs is an
//! object without a `resourceType`, so no line is missed by an export that passes over the file.

use crate::error::CorruptIndex;
use crate::extract::fault::FaultKind;
use crate::ids::{FileId, SegmentId};
use crate::index::segment::layout::Column;
use crate::index::snapshot::Index;

/// A file without FHIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherData {
    /// The file.
    pub file: FileId,
    /// Its lines, blank ones aside.
    pub lines: u64,
}

/// The files among segments, which come in store order, whose lines are all objects without a `resourceType` that is a
/// string, blank lines aside. A file with a resource, a deletion or a line that is broken is none of them.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn find_other_data(
    index: &Index,
    segments: impl Iterator<Item = SegmentId>,
) -> Result<Vec<OtherData>, CorruptIndex> {
    let mut found: Vec<OtherData> = Vec::new();
    // The last file, and whether it may be one.
    let (mut file, mut is_other) = (None, false);
    for segment in segments {
        let (head, own) = (index.segment(segment).head(), index.file_of(segment));
        if file != Some(own) {
            if !is_other {
                found.pop_if(|last| Some(last.file) == file);
            }
            (file, is_other) = (Some(own), true);
            found.push(OtherData { file: own, lines: 0 });
        }
        // Headers tell most files apart; columns are read of the others only.
        is_other = is_other
            && head.lines == head.blank + head.faulty
            && (head.faulty == 0 || {
                let columns = index.segment(segment).verify_columns(&[Column::FaultCount])?;
                columns.fault_count[FaultKind::NoType as usize] == head.faulty
            });
        if let Some(last) = found.last_mut() {
            last.lines += head.faulty;
        }
    }
    if !is_other {
        found.pop_if(|last| Some(last.file) == file);
    }
    // A file of blank lines alone is no matter.
    found.retain(|other| other.lines > 0);
    Ok(found)
}

/// Faulty lines of a store, by kind, those of files without FHIR aside.
pub(crate) struct FaultTotals {
    /// Numbers, indexed as [`FaultKind::ALL`].
    pub by_kind: Vec<u64>,
    /// The files without FHIR.
    pub other_data: Vec<OtherData>,
}

impl FaultTotals {
    /// The totals of an index.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn of(index: &Index) -> Result<FaultTotals, CorruptIndex> {
        let totals = index.global().totals()?;
        let mut by_kind: Vec<u64> = (0..FaultKind::ALL.len()).map(|kind| totals.faults(kind)).collect();
        let untyped = &mut by_kind[FaultKind::NoType as usize];
        let other_data = if *untyped > 0 { find_other_data(index, index.segment_ids())? } else { Vec::new() };
        *untyped = untyped.saturating_sub(other_data.iter().map(|other| other.lines).sum());
        Ok(FaultTotals { by_kind, other_data })
    }
}
