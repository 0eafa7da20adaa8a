//! Which deletions an export with `_since` lists (DELETED-01…07).
//!
//! A resource is listed when it has no current version at T and one of the DELETE entries behind its last version
//! lies in the window, or came late. Owners are those of the version that the deletion ended (DELETED-05).

use crate::error::CorruptIndex;
use crate::fhir::id::Id;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;
use crate::index::global::Section;
use crate::index::segment::columns::PriorOwner;
use crate::index::segment::id_encoding::entity_hash;
use crate::index::segment::layout::{BASE_BITS, Column, kind};
use crate::index::snapshot::{Index, Snapshot};
use crate::request::{ExportRequest, LateArrivals, Population};
use crate::select::classifier::{Horizon, RowClassifier};
use crate::select::cohort::Cohort;

/// The deletions of an export.
#[derive(Default)]
pub struct Deletions {
    /// Resources deleted, in the order of type names, then of their DELETE entries in the store; each once.
    pub listed: Vec<(ResourceType, Id)>,
    /// DELETE entries of resources that the store never held: whose they were is not known (reading 9).
    pub unknown: u64,
    /// DELETE entries visible in the snapshot, of any kind.
    pub entries: u64,
    /// DELETE entries without an instant: they end nothing.
    pub undated: u64,
}

impl Deletions {
    /// Goes through the DELETE entries of the snapshot.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub fn new(snapshot: &Snapshot, cohort: &Cohort, request: &ExportRequest) -> Result<Deletions, CorruptIndex> {
        let filter = RowClassifier::new(snapshot, cohort, request);
        let index = snapshot.index();
        let instant = snapshot.as_of().as_ref();
        let mut deletions = Deletions::default();
        let mut found: Vec<((ResourceType, usize), Id)> = Vec::new();
        let remembering: Vec<usize> =
            snapshot.segments().filter(|segment_id| index.segments()[*segment_id].head().left > 0).collect();
        for segment_id in snapshot.segments() {
            let segment = &index.segments()[segment_id];
            let head = segment.head();
            deletions.entries += head.tombstones;
            deletions.undated += head.tombstones_undated;
            let late = filter.is_late(segment_id);
            let Some(since) = &request.since else { continue };
            if head.tombstones == 0 || !late && head.tombstone_updated_max() < since.ticks {
                continue;
            }
            let needed = [Column::TombType, Column::TombId, Column::TombBase, Column::TombUpdated];
            segment.verify_columns(&needed)?;
            let columns = segment.verify_columns(&[Column::Exact, Column::Heap, Column::TombLeft])?;
            for entry in 0..columns.tomb_type.len() {
                let base = index.base_number(segment_id, columns.tomb_base[entry] & BASE_BITS);
                let Some(updated) = columns.tombstone_updated(entry) else { continue };
                if !cohort.ours[base as usize] || updated > instant {
                    continue;
                }
                let (resource_type, id) = columns.tombstone_of(entry);
                let in_window = filter.before_until(updated)
                    && (filter.after_since(updated) || late && request.late == LateArrivals::Include);
                if !filter.selects_type(resource_type) || !in_window {
                    continue;
                }
                let number = index.starts().tombstone[segment_id] + entry;
                let left = match head.left {
                    0 => None,
                    _ => columns.prior_owner_of(entry),
                };
                let (of, left) = match left {
                    Some(left) => (segment_id, Some(left)),
                    None => match purged_by_pack(&filter, &remembering, (resource_type, &id))? {
                        Some((of, left)) => (of, Some(left)),
                        None => (segment_id, None),
                    },
                };
                let outlived = left.is_some_and(|left| InstantRef { ticks: left.updated, rest: &[] } >= updated);
                if outlived || left.is_some_and(|left| left.followed) || !ends_version(snapshot, index.rows() + number)?
                {
                    continue;
                }
                let noted = index.global().word(Section::Ends, number)?;
                let version = last_version(snapshot, index, noted as usize)?;
                // A packed store remembers whose a version was that has left, unless a younger one is found.
                let ticks = match version {
                    Some((segment_id, row)) => Some(index.segments()[segment_id].row(row)?.last_updated[row]),
                    None => None,
                };
                let left = left.filter(|left| ticks.is_none_or(|ticks| ticks < left.updated));
                let owned = match (left, version) {
                    (Some(left), _) => filter.owned_prior_version(of, &left)?,
                    (None, None) if request.population == Population::System => true,
                    (None, None) => {
                        deletions.unknown += 1;
                        false
                    }
                    (None, Some((segment_id, row))) => filter.in_cohort(segment_id, row, instant, Horizon::All)?,
                };
                if owned {
                    found.push(((resource_type, number), id));
                }
            }
        }
        found.sort_unstable();
        let mut seen = std::collections::HashSet::new();
        for ((resource_type, _), id) in found {
            if seen.insert((resource_type, id)) {
                deletions.listed.push((resource_type, id));
            }
        }
        Ok(deletions)
    }
}

/// What another DELETE entry of the same resource remembers of its last version, where that has left a packed store: the
/// segment of that entry, and the youngest version there is. Segments that `remember` anything are few.
fn purged_by_pack<'a>(
    filter: &RowClassifier<'a>,
    remember: &[usize],
    (resource_type, id): (ResourceType, &Id),
) -> Result<Option<(usize, PriorOwner<'a>)>, CorruptIndex> {
    let index = filter.snapshot.index();
    let hash = entity_hash(resource_type, id.as_bytes());
    let mut found: Option<(usize, PriorOwner<'a>)> = None;
    for segment_id in remember {
        let segment = &index.segments()[*segment_id];
        for reference in
            segment.based_name_of(hash)?.iter().filter(|reference| *reference & kind::MASK == kind::TOMBSTONE)
        {
            let entry = (reference & !kind::MASK) as usize;
            let columns = segment.tombstone(entry)?;
            let base = index.base_number(*segment_id, columns.tomb_base[entry] & BASE_BITS);
            if columns.tombstone_of(entry) != (resource_type, *id) || !filter.cohort.ours[base as usize] {
                continue;
            }
            let left = segment.verify_columns(&[Column::TombLeft])?.prior_owner_of(entry).filter(|left| {
                !left.followed && InstantRef { ticks: left.updated, rest: &[] } <= filter.snapshot.as_of().as_ref()
            });
            if let Some(left) = left
                && found.is_none_or(|(_, known)| known.updated < left.updated)
            {
                found = Some((*segment_id, left));
            }
        }
    }
    Ok(found)
}

/// Whether no version follows a record at or before T, so that the resource is gone at T.
fn ends_version(snapshot: &Snapshot, record: usize) -> Result<bool, CorruptIndex> {
    let index = snapshot.index();
    let instant = snapshot.as_of().as_ref();
    let mut next = index.global().next(record)?;
    while let Some(number) = next {
        if number < index.rows() {
            let (segment, row) = index.locate(number);
            if index.segments()[segment].updated(row)?.is_some_and(|updated| updated > instant) {
                return Ok(true);
            }
            if snapshot.sees_segment(segment) {
                return Ok(false);
            }
        }
        next = index.global().next(number)?;
    }
    Ok(true)
}

/// The last visible version before a DELETE entry. Usually the one that the merge noted; when that one is not part of
/// the snapshot, an older one is sought.
fn last_version(snapshot: &Snapshot, index: &Index, noted: usize) -> Result<Option<(usize, usize)>, CorruptIndex> {
    let Some(noted) = noted.checked_sub(1) else { return Ok(None) };
    let (segment, row) = index.locate(noted);
    if snapshot.sees_segment(segment) {
        return Ok(Some((segment, row)));
    }
    let columns = index.segments()[segment].row(row)?;
    let (resource_type, id) = (columns.type_of(row), index.segments()[segment].row_id(row)?);
    let noted_updated = columns.updated_of(row);
    let mut best = None;
    for (segment, row) in crate::group::lookup::group_rows_of(snapshot, resource_type, &id)? {
        let columns = index.segments()[segment].verify_columns(&[Column::VersionId, Column::Heap])?;
        if columns.updated_of(row) <= noted_updated {
            let key = (columns.updated_of(row), columns.version_of(row), index.starts().row[segment] + row);
            if best.as_ref().is_none_or(|(known, _)| *known < key) {
                best = Some((key, (segment, row)));
            }
        }
    }
    Ok(best.map(|(_, place)| place))
}
