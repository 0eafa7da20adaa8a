//! Deletions that an export with `_since` lists (DELETED-01…07).
//!
//! A resource is listed if it has no current version at T and a DELETE entry after its last version lies in the window,
//! or arrived late. Its owners are those of the version that the deletion ended (DELETED-05). This module selects;
//! `write/deleted_bundle.rs` writes the Bundles. Many deletions of one id are walked once, not once for each.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::error::{CorruptIndex, ExportError};
use crate::fhir::context;
use crate::fhir::id::Id;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{EntryId, RecordId, RowAddress, SegmentId};
use crate::index::segment::columns::PriorOwner;
use crate::index::segment::id_encoding::VersionKey;
use crate::index::segment::layout::{BASE_BITS, Column, kind};
use crate::index::snapshot::Snapshot;
use crate::key_set::resource_key::entity_hash;
use crate::policies::{AccessPath, Audience, LateArrivals};
use crate::progress::Progress;
use crate::request::{ExportRequest, Population};
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::context_changes::{Versions, reached_backward, records_of};
use crate::select::context_closure::{Closure, has_context, may_leave};
use crate::select::provenance::Horizon;
use crate::select::vanished::VanishedSelection;

/// Records of one id that are looked at again for each of its DELETE entries; what there is more of is remembered.
const FEW: usize = 8;

/// A deletion that was found: type, record of its DELETE entry, and id.
type FoundDeletion = ((ResourceType, RecordId), Id);

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
    /// Adds vanished resources that are told as deletions, those of each type behind the others of the type.
    pub(crate) fn add_vanished(&mut self, vanished: &VanishedSelection) {
        let known: HashSet<(ResourceType, Id)> = self.listed.iter().copied().collect();
        let mut more: Vec<(ResourceType, Id)> = vanished.told().filter(|gone| !known.contains(gone)).collect();
        more.sort_unstable();
        more.dedup();
        self.listed.extend(more);
        self.listed.sort_by_key(|(resource_type, _)| *resource_type);
    }

    /// Selects the deletions of a request from the DELETE entries of the snapshot.
    ///
    /// # Errors
    /// [`ExportError`] if the index is damaged, or the work is cancelled.
    pub(crate) fn new(
        snapshot: &Snapshot,
        cohort: &Cohort,
        request: &ExportRequest,
        progress: &Progress,
    ) -> Result<Deletions, ExportError> {
        let classifier = RowClassifier::new(snapshot, cohort, request);
        let index = snapshot.index();
        let instant = snapshot.as_of().as_ref();
        let mut deletions = Deletions::default();
        let mut found: Vec<FoundDeletion> = Vec::new();
        // Deletions of context, listed if the cohort leads to what they end (TYPE-05).
        let mut of_context: Vec<(FoundDeletion, RowAddress)> = Vec::new();
        // The slow twin remembers nothing.
        let few = if request.access_path == AccessPath::Rows { usize::MAX } else { FEW };
        let mut known = KnownHistories { few, ..KnownHistories::default() };
        let segments_with_priors: Vec<SegmentId> =
            snapshot.segments().filter(|segment_id| index.segment(*segment_id).head().left > 0).collect();
        for segment_id in snapshot.segments() {
            let segment = index.segment(segment_id);
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
            for entry in segment.entry_ids() {
                let base = index.base_of_segment(segment_id, columns.tomb_base[entry.index()] & BASE_BITS);
                let Some(updated) = columns.tombstone_updated(entry) else { continue };
                if !cohort.ours[base.index()] || updated > instant {
                    continue;
                }
                let (resource_type, id) = columns.tombstone_of(entry);
                let is_late = || is_late && classifier.is_late_entry(segment_id, entry);
                let in_window = classifier.before_until(updated)
                    && (classifier.after_since(updated) || request.late == LateArrivals::Include && is_late());
                if !classifier.lists_deletions_of(resource_type) || !in_window {
                    continue;
                }
                let record = index.record_of_entry(segment_id, entry);
                let prior = match header.left {
                    0 => None,
                    _ => columns.prior_owner_of(entry),
                };
                // The entry's own prior owner, else one that another entry of the resource records.
                let (prior_segment, prior) = match prior {
                    Some(prior) => (segment_id, Some(prior)),
                    None => match known.purged_by_pack(&classifier, &segments_with_priors, (resource_type, &id))? {
                        Some((segment_id, prior)) => (segment_id, Some(prior)),
                        None => (segment_id, None),
                    },
                };
                let outlived = prior.is_some_and(|prior| InstantRef { ticks: prior.updated, rest: &[] } >= updated);
                if outlived || prior.is_some_and(|prior| prior.followed) || !known.ends_version(snapshot, record)? {
                    continue;
                }
                let version = known.last_version(snapshot, index.version_before(segment_id, entry)?)?;
                // The younger of the purged version and the last row decides the owners.
                let ticks = match version {
                    Some(version) => {
                        let (segment_id, row) = version.parts();
                        Some(index.segment(segment_id).row(row)?.last_updated[row])
                    }
                    None => None,
                };
                let prior = prior.filter(|prior| ticks.is_none_or(|ticks| ticks < prior.updated));
                let is_in_cohort = match (prior, version) {
                    (Some(prior), _) => classifier.membership.owned_prior_version(prior_segment, &prior)?,
                    (None, None) if request.population == Population::System => true,
                    (None, None) => {
                        deletions.unknown += 1;
                        false
                    }
                    (None, Some(version)) => known.in_cohort(&classifier, version)?,
                };
                if is_in_cohort {
                    found.push(((resource_type, record), id));
                } else if prior.is_some_and(|prior| prior.owners().next().is_none())
                    && has_context(request)
                    && context::is_context(resource_type)
                    && resource_type != ResourceType::DEVICE
                    && request.audience != Audience::BoundClient
                {
                    // What a pack dropped referred to is not known any more: a reader may hold the resource.
                    found.push(((resource_type, record), id));
                } else if prior.is_none()
                    && has_context(request)
                    && context::is_context(resource_type)
                    && let Some(version) = version
                    && may_leave(&classifier, version)?
                {
                    of_context.push((((resource_type, record), id), version));
                }
            }
        }
        found.extend(reached_deletions(&classifier, of_context, progress)?);
        found.sort_unstable();
        let mut listed = HashSet::new();
        for ((resource_type, _), id) in found {
            if listed.insert((resource_type, id)) {
                deletions.listed.push((resource_type, id));
            }
        }
        Ok(deletions)
    }
}

/// The deletions of context that any version of a row of the cohort leads to.
fn reached_deletions(
    classifier: &RowClassifier<'_>,
    deletions: Vec<(FoundDeletion, RowAddress)>,
    progress: &Progress,
) -> Result<Vec<FoundDeletion>, ExportError> {
    if deletions.is_empty() {
        return Ok(Vec::new());
    }
    let starts = deletions.iter().map(|(_, version)| Ok((vec![*version], records_of(classifier, *version)?)));
    let starts = starts.collect::<Result<_, CorruptIndex>>()?;
    let reached = reached_backward(&mut Closure::new(classifier), starts, Versions::Any, progress)?;
    let listed = deletions.into_iter().zip(reached).filter(|(_, is_reached)| *is_reached);
    Ok(listed.map(|((deletion, _), _)| deletion).collect())
}

/// A visible version, as versions are ordered: lastUpdated, versionId, number over the store; then its address.
type OrderedVersion<'a> = ((Option<InstantRef<'a>>, VersionKey<'a>, RecordId), RowAddress);

/// What was found out about resources with many records, for the further DELETE entries of the same ids.
#[derive(Default)]
struct KnownHistories<'a> {
    /// Records of one id up to which nothing is remembered.
    few: usize,
    /// See [`KnownHistories::purged_by_pack`].
    purged: HashMap<(ResourceType, Id), Option<(SegmentId, PriorOwner<'a>)>>,
    /// For DELETE entries, by their record numbers, whether no version follows.
    ends: HashMap<RecordId, bool>,
    /// Visible versions of resources whose recorded last version is not in the snapshot, in their order.
    visible: HashMap<(ResourceType, Id), Vec<OrderedVersion<'a>>>,
    /// Rows of many owners and Provenances, and whether they are in the cohort.
    in_cohort: HashMap<RowAddress, bool>,
}

impl<'a> KnownHistories<'a> {
    /// Whether the version that a deletion ended is in the cohort at T.
    fn in_cohort(&mut self, classifier: &RowClassifier<'a>, version: RowAddress) -> Result<bool, CorruptIndex> {
        let (segment, row) = version.parts();
        let is_in_cohort = || classifier.membership.in_cohort(version, Horizon::All);
        let segment = classifier.snapshot.index().segment(segment);
        let is_cheap = segment.row_owners(row)?.len() <= self.few && segment.type_of(row)? != ResourceType::PROVENANCE;
        if is_cheap || self.few == usize::MAX {
            return is_in_cohort();
        }
        if let Some(known) = self.in_cohort.get(&version) {
            return Ok(*known);
        }
        let found = is_in_cohort()?;
        self.in_cohort.insert(version, found);
        Ok(found)
    }

    /// The youngest version of a resource purged from a packed store that any DELETE entry of it records, with the
    /// segment of that entry; `None` if no entry records one. Searches only the segments that record prior owners,
    /// which are few.
    fn purged_by_pack(
        &mut self,
        classifier: &RowClassifier<'a>,
        segments_with_priors: &[SegmentId],
        (resource_type, id): (ResourceType, &Id),
    ) -> Result<Option<(SegmentId, PriorOwner<'a>)>, CorruptIndex> {
        if let Some(known) = self.purged.get(&(resource_type, *id)) {
            return Ok(*known);
        }
        let index = classifier.snapshot.index();
        let hash = entity_hash(resource_type, id.as_bytes());
        let (mut found, mut asked): (Option<(SegmentId, PriorOwner<'a>)>, usize) = (None, 0);
        for segment_id in segments_with_priors {
            let segment = index.segment(*segment_id);
            let references = segment.references_of_hash(hash)?;
            asked += references.len();
            for reference in references.iter().filter(|reference| *reference & kind::MASK == kind::TOMBSTONE) {
                let entry = EntryId(reference & !kind::MASK);
                let columns = segment.tombstone(entry)?;
                let base = index.base_of_segment(*segment_id, columns.tomb_base[entry.index()] & BASE_BITS);
                if columns.tombstone_of(entry) != (resource_type, *id) || !classifier.cohort.ours[base.index()] {
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
        if asked > self.few {
            self.purged.insert((resource_type, *id), found);
        }
        Ok(found)
    }

    /// Whether no visible version at or before T follows a record, so that the
    /// resource has no current version at T.
    fn ends_version(&mut self, snapshot: &Snapshot, record: RecordId) -> Result<bool, CorruptIndex> {
        let index = snapshot.index();
        let instant = snapshot.as_of().as_ref();
        let mut passed = Vec::new();
        let mut next = Some(record);
        let ends = loop {
            let Some(number) = next else { break true };
            if index.is_row(number) {
                let (segment, row) = index.locate(number).parts();
                if index.segment(segment).updated(row)?.is_some_and(|updated| updated > instant) {
                    break true;
                }
                if snapshot.sees_segment(segment) {
                    break false;
                }
            } else if let Some(known) = self.ends.get(&number) {
                break *known;
            } else {
                passed.push(number);
            }
            next = index.global().next(number)?;
        };
        // The same holds for every DELETE entry on the way.
        if passed.len() > self.few {
            self.ends.extend(passed.into_iter().map(|number| (number, ends)));
        }
        Ok(ends)
    }

    /// The last visible version before a DELETE entry; `None` if there is none. Usually the row that the
    /// global index records (`recorded`); if its segment is not in the snapshot, the youngest older
    /// one.
    fn last_version(
        &mut self,
        snapshot: &'a Snapshot,
        recorded: Option<RecordId>,
    ) -> Result<Option<RowAddress>, CorruptIndex> {
        let index = snapshot.index();
        let Some(recorded) = recorded else { return Ok(None) };
        let address = index.locate(recorded);
        let (segment, row) = address.parts();
        if snapshot.sees_segment(segment) {
            return Ok(Some(address));
        }
        let columns = index.segment(segment).row(row)?;
        let (resource_type, id) = (columns.type_of(row), index.segment(segment).row_id(row)?);
        let versions = match self.visible.entry((resource_type, id)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let mut versions = Vec::new();
                for address in crate::group::lookup::group_rows_of(snapshot, resource_type, &id)? {
                    let (segment, row) = address.parts();
                    let columns = index.segment(segment).verify_columns(&[Column::VersionId, Column::Heap])?;
                    let record = index.record_of_row(address);
                    versions.push(((columns.updated_of(row), columns.version_of(row), record), address));
                }
                versions.sort_unstable();
                new.insert(versions)
            }
        };
        let older = versions.partition_point(|((updated, ..), _)| *updated <= columns.updated_of(row));
        Ok(versions[..older].last().map(|(_, address)| *address))
    }
}
