//! Deletions that an export with `_since` lists (DELETED-01…07).
//!
//! A resource is listed if it has no current version at T and a DELETE entry after its last version lies in the window,
//! or arrived late. Its owners are those of the version that the deletion ended (DELETED-05). This module selects;
//! `write/deleted_bundle.rs` writes the Bundles.

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

/// The deletions of an export, and counts for its messages.
#[derive(Default)]
pub struct Deletions {
    /// Deleted resources, each once, by type and then by the order of their DELETE entries in the store; empty without
    /// `_since`.
    pub listed: Vec<(ResourceType, Id)>,
    /// DELETE entries in the window of resources that the store never held, so that their owners are unknown (reading
    /// 9).
    pub unknown: u64,
    /// All DELETE entries in the snapshot.
    pub entries: u64,
    /// DELETE entries without an instant, which delete nothing.
    pub undated: u64,
}

impl Deletions {
    /// Selects the deletions of a request from the DELETE entries of the snapshot.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub fn new(snapshot: &Snapshot, cohort: &Cohort, request: &ExportRequest) -> Result<Deletions, CorruptIndex> {
        let classifier = RowClassifier::new(snapshot, cohort, request);
        let index = snapshot.index();
        let instant = snapshot.as_of().as_ref();
        let mut deletions = Deletions::default();
        let mut found: Vec<((ResourceType, usize), Id)> = Vec::new();
        let segments_with_priors: Vec<usize> =
            snapshot.segments().filter(|segment_id| index.segments()[*segment_id].head().left > 0).collect();
        for segment_id in snapshot.segments() {
            let segment = &index.segments()[segment_id];
            let header = segment.head();
            deletions.entries += header.tombstones;
            deletions.undated += header.tombstones_undated;
            let is_late = classifier.is_late(segment_id);
            let Some(since) = &request.since else { continue };
            if header.tombstones == 0 || !is_late && header.tombstone_updated_max() < since.ticks {
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
                let is_late = || is_late && classifier.is_late_entry(segment_id, entry);
                let in_window = classifier.before_until(updated)
                    && (classifier.after_since(updated) || request.late == LateArrivals::Include && is_late());
                if !classifier.selects_type(resource_type) || !in_window {
                    continue;
                }
                let number = index.starts().tombstone[segment_id] + entry;
                let prior = match header.left {
                    0 => None,
                    _ => columns.prior_owner_of(entry),
                };
                // The entry's own prior owner, else one that another entry of the resource records.
                let (prior_segment, prior) = match prior {
                    Some(prior) => (segment_id, Some(prior)),
                    None => match purged_by_pack(&classifier, &segments_with_priors, (resource_type, &id))? {
                        Some((segment_id, prior)) => (segment_id, Some(prior)),
                        None => (segment_id, None),
                    },
                };
                let outlived = prior.is_some_and(|prior| InstantRef { ticks: prior.updated, rest: &[] } >= updated);
                if outlived
                    || prior.is_some_and(|prior| prior.followed)
                    || !ends_version(snapshot, index.rows() + number)?
                {
                    continue;
                }
                let recorded = index.global().word(Section::Ends, number)?;
                let version = last_version(snapshot, index, recorded as usize)?;
                // The younger of the purged version and the last row decides the owners.
                let ticks = match version {
                    Some((segment_id, row)) => Some(index.segments()[segment_id].row(row)?.last_updated[row]),
                    None => None,
                };
                let prior = prior.filter(|prior| ticks.is_none_or(|ticks| ticks < prior.updated));
                let is_in_cohort = match (prior, version) {
                    (Some(prior), _) => classifier.owned_prior_version(prior_segment, &prior)?,
                    (None, None) if request.population == Population::System => true,
                    (None, None) => {
                        deletions.unknown += 1;
                        false
                    }
                    (None, Some((segment_id, row))) => classifier.in_cohort(segment_id, row, instant, Horizon::All)?,
                };
                if is_in_cohort {
                    found.push(((resource_type, number), id));
                }
            }
        }
        found.sort_unstable();
        let mut listed = std::collections::HashSet::new();
        for ((resource_type, _), id) in found {
            if listed.insert((resource_type, id)) {
                deletions.listed.push((resource_type, id));
            }
        }
        Ok(deletions)
    }
}

/// The youngest version of a resource purged from a packed store that any DELETE entry of it records, with the segment
/// of that entry; `None` if no entry records one. Searches only the segments that record prior owners, which are few.
fn purged_by_pack<'a>(
    classifier: &RowClassifier<'a>,
    segments_with_priors: &[usize],
    (resource_type, id): (ResourceType, &Id),
) -> Result<Option<(usize, PriorOwner<'a>)>, CorruptIndex> {
    let index = classifier.snapshot.index();
    let hash = entity_hash(resource_type, id.as_bytes());
    let mut found: Option<(usize, PriorOwner<'a>)> = None;
    for segment_id in segments_with_priors {
        let segment = &index.segments()[*segment_id];
        for reference in
            segment.references_of_hash(hash)?.iter().filter(|reference| *reference & kind::MASK == kind::TOMBSTONE)
        {
            let entry = (reference & !kind::MASK) as usize;
            let columns = segment.tombstone(entry)?;
            let base = index.base_number(*segment_id, columns.tomb_base[entry] & BASE_BITS);
            if columns.tombstone_of(entry) != (resource_type, *id) || !classifier.cohort.ours[base as usize] {
                continue;
            }
            let prior = segment.verify_columns(&[Column::TombLeft])?.prior_owner_of(entry).filter(|prior| {
                !prior.followed
                    && InstantRef { ticks: prior.updated, rest: &[] } <= classifier.snapshot.as_of().as_ref()
            });
            if let Some(prior) = prior
                && found.is_none_or(|(_, known)| known.updated < prior.updated)
            {
                found = Some((*segment_id, prior));
            }
        }
    }
    Ok(found)
}

/// Whether no visible version at or before T follows a record (rows first, then DELETE entries), so that the resource
/// has no current version at T.
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

/// The last visible version (segment, row) before a DELETE entry; `None` if there is none. Usually the row that the
/// global index records (`recorded`, from 1; 0 for none); if its segment is not in the snapshot, the youngest older
/// one.
fn last_version(snapshot: &Snapshot, index: &Index, recorded: usize) -> Result<Option<(usize, usize)>, CorruptIndex> {
    let Some(recorded) = recorded.checked_sub(1) else { return Ok(None) };
    let (segment, row) = index.locate(recorded);
    if snapshot.sees_segment(segment) {
        return Ok(Some((segment, row)));
    }
    let columns = index.segments()[segment].row(row)?;
    let (resource_type, id) = (columns.type_of(row), index.segments()[segment].row_id(row)?);
    let recorded_updated = columns.updated_of(row);
    let mut best = None;
    for (segment, row) in crate::group::lookup::group_rows_of(snapshot, resource_type, &id)? {
        let columns = index.segments()[segment].verify_columns(&[Column::VersionId, Column::Heap])?;
        if columns.updated_of(row) <= recorded_updated {
            let key = (columns.updated_of(row), columns.version_of(row), index.starts().row[segment] + row);
            if best.as_ref().is_none_or(|(known, _)| *known < key) {
                best = Some((key, (segment, row)));
            }
        }
    }
    Ok(best.map(|(_, address)| address))
}
