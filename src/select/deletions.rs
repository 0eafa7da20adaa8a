//! Which deletions an export with `_since` lists (DELETED-01…07).
//!
//! A resource is listed when it has no current version at T and one of the DELETE entries behind its last version
//! lies in the window, or came late. Owners are those of the version that the deletion ended (DELETED-05).

use super::cohort::Cohort;
use super::request::{ExportRequest, Late, Population};
use super::selection::{Asked, Filter};
use crate::fhir::{Id, ResourceType};
use crate::store::Index;
use crate::store::layout::BASE_BITS;
use crate::store::snapshot::Snapshot;

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
    pub fn new(snapshot: &Snapshot, cohort: &Cohort, request: &ExportRequest) -> Deletions {
        let filter = Filter::new(snapshot, cohort, request);
        let index = snapshot.index();
        let merged = index.merged();
        let at = snapshot.as_of().as_ref();
        let mut deletions = Deletions::default();
        let mut found: Vec<((ResourceType, usize), Id)> = Vec::new();
        for extent in snapshot.extents() {
            let columns = index.extents()[extent].columns();
            let late = filter.is_late(extent);
            for entry in 0..columns.tomb_type.len() {
                deletions.entries += 1;
                let base = index.base_number(extent, columns.tomb_base[entry] & BASE_BITS);
                let Some(updated) = columns.tombstone_updated(entry) else {
                    deletions.undated += 1;
                    continue;
                };
                if request.since.is_none() || !cohort.ours[base as usize] || updated > at {
                    continue;
                }
                let (resource_type, id) = columns.tombstone_of(entry);
                let in_window = filter.before_until(updated)
                    && (filter.after_since(updated) || late && request.late == Late::Include);
                if !filter.wants(resource_type) || !in_window {
                    continue;
                }
                let number = index.starts().tombstone[extent] + entry;
                let left = columns.left_of(entry);
                if left.is_some_and(|left| left.followed) || !ended(snapshot, index.rows() + number) {
                    continue;
                }
                let version = last_version(snapshot, index, merged.ends[number] as usize);
                // A packed store remembers whose a version was that has left, unless a younger one is found.
                let ticks = version.map(|(extent, row)| index.extents()[extent].columns().last_updated[row]);
                let left = left.filter(|left| ticks.is_none_or(|ticks| ticks < left.updated));
                let owned = match (left, version) {
                    (Some(left), _) => filter.owns_left(extent, &left),
                    (None, None) if request.population == Population::System => true,
                    (None, None) => {
                        deletions.unknown += 1;
                        false
                    }
                    (None, Some((extent, row))) => filter.belongs(extent, row, at, &|_| true, &mut Asked::new()),
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
        deletions
    }
}

/// Whether no version follows a record at or before T, so that the resource is gone at T.
fn ended(snapshot: &Snapshot, record: usize) -> bool {
    let index = snapshot.index();
    let merged = index.merged();
    let at = snapshot.as_of().as_ref();
    let mut record = merged.next[record] as usize;
    while record != 0 {
        let number = record - 1;
        if number < index.rows() {
            let (extent, row) = index.locate(number);
            if index.extents()[extent].columns().updated_of(row).is_some_and(|updated| updated > at) {
                return true;
            }
            if snapshot.sees(extent) {
                return false;
            }
        }
        record = merged.next[number] as usize;
    }
    true
}

/// The last visible version before a DELETE entry. Usually the one that the merge noted; when that one is not part of
/// the snapshot, an older one is sought.
fn last_version(snapshot: &Snapshot, index: &Index, noted: usize) -> Option<(usize, usize)> {
    let (extent, row) = index.locate(noted.checked_sub(1)?);
    if snapshot.sees(extent) {
        return Some((extent, row));
    }
    let columns = index.extents()[extent].columns();
    let (resource_type, id) = (columns.type_of(row), columns.id_of(row));
    let noted_updated = columns.updated_of(row);
    super::cohort::rows_of(snapshot, resource_type, &id)
        .into_iter()
        .filter(|(extent, row)| index.extents()[*extent].columns().updated_of(*row) <= noted_updated)
        .max_by(|a, b| {
            let key = |at: &(usize, usize)| {
                let columns = index.extents()[at.0].columns();
                (columns.updated_of(at.1), columns.version_of(at.1), index.starts().row[at.0] + at.1)
            };
            key(a).cmp(&key(b))
        })
}
