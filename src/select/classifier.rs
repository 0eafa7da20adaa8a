//! Classifies one row at a time: its ledger class, whether it is in the cohort, whether it passes the window.
//!
//! The slow and obvious implementation, which the scans over many rows shorten and are tested against. Every page of
//! the index that it reads is verified first.

use crate::casts::to_u32;
use crate::error::CorruptIndex;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;
use crate::index::global::Section;
use crate::index::segment::columns::PriorOwner;
use crate::index::segment::layout::{BASE_BITS, Column};
use crate::index::snapshot::{RowState, Snapshot};
use crate::request::{ExportRequest, LateArrivals, MissingLastUpdated, Population};
use crate::select::cohort::Cohort;
use crate::select::ledger::{RowClass, SegmentSelection};
use std::collections::HashSet;

/// Deepest chain of Provenances about Provenances that is followed.
pub(crate) const PROVENANCE_DEPTH_MAX: usize = 32;

/// The last version of a Provenance's target found so far, walking its versions from the oldest.
enum LastVersion {
    /// A row of the store: segment, and row in it.
    Row(usize, usize),
    /// A version purged from a packed store: its lastUpdated in ticks, and whether a member owned it.
    Purged { updated: i64, owned: bool },
}

/// Which versions of a resource count when an earlier state is reconstructed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Horizon {
    /// All versions in the snapshot.
    All,
    /// Versions that the store held at `_since`: late arrivals do not count.
    AtSince,
}

/// How a candidate row was found, which decides whether its owners must be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CandidateSource {
    /// By a scan: its owners must be checked.
    AnyRow,
    /// In the postings of a member, so a member owns it, unless it is a Group or a Provenance.
    MemberPostings,
}

/// Decides the class of rows of a snapshot for one request and its cohort.
pub(crate) struct RowClassifier<'a> {
    /// The snapshot that rows are taken from.
    pub snapshot: &'a Snapshot,
    /// The patients whose records are requested.
    pub cohort: &'a Cohort,
    /// The request, for its types, window and policies.
    pub request: &'a ExportRequest,
    /// Whether `_type` selects each type, by [`ResourceType::index`].
    types: [bool; ResourceType::COUNT],
}

impl<'a> RowClassifier<'a> {
    /// A classifier of rows of a snapshot for a request and its resolved cohort.
    pub(crate) fn new(snapshot: &'a Snapshot, cohort: &'a Cohort, request: &'a ExportRequest) -> RowClassifier<'a> {
        let mut types = [request.types.is_empty(); ResourceType::COUNT];
        request.types.iter().for_each(|t| types[t.index()] = true);
        RowClassifier { snapshot, cohort, request, types }
    }

    /// The transactionTime T of the snapshot.
    pub(crate) fn as_of(&self) -> InstantRef<'a> {
        self.snapshot.as_of().as_ref()
    }

    /// Whether `_type` selects a resource type; without `_type`, every type.
    pub(crate) fn selects_type(&self, resource_type: ResourceType) -> bool {
        self.types[resource_type.index()]
    }

    /// Whether an instant lies between `_since` and `_until`. `None` (an undated row) passes without a window, else by
    /// policy.
    pub(crate) fn in_window(&self, updated: Option<InstantRef<'_>>) -> bool {
        let Some(updated) = updated else {
            let bounded = self.request.since.is_some() || self.request.until.is_some();
            return !bounded || self.request.missing_last_updated == MissingLastUpdated::Include;
        };
        self.after_since(updated) && self.before_until(updated)
    }

    /// Whether an instant is later than `_since`, strictly; true without `_since`.
    pub(crate) fn after_since(&self, updated: InstantRef<'_>) -> bool {
        self.request.since.as_ref().is_none_or(|since| updated > since.as_ref())
    }

    /// Whether an instant is earlier than `_until`, strictly; true without `_until`.
    pub(crate) fn before_until(&self, updated: InstantRef<'_>) -> bool {
        self.request.until.as_ref().is_none_or(|until| updated < until.as_ref())
    }

    /// Whether a row is a late arrival under the request's `_since`; false without `_since`.
    pub(crate) fn is_late_row(&self, segment: usize, row: usize) -> bool {
        self.request.since.as_ref().is_some_and(|since| self.snapshot.is_late_row(segment, row, since))
    }

    /// Whether a DELETE entry is late for the request.
    pub(crate) fn is_late_entry(&self, segment: usize, entry: usize) -> bool {
        self.request.since.as_ref().is_some_and(|since| self.snapshot.is_late_entry(segment, entry, since))
    }

    /// Whether rows of a segment may be late arrivals under the request's `_since`; false without `_since`.
    pub(crate) fn is_late(&self, segment: usize) -> bool {
        self.request.since.as_ref().is_some_and(|since| self.snapshot.is_late(segment, since))
    }

    /// Whether the dates of a segment's rows decide nothing: there is no window, and every row is dated before T.
    pub(crate) fn needs_no_time_filter(&self, segment: usize) -> bool {
        let header = self.snapshot.index().segments()[segment].head();
        let bounded = self.request.since.is_some() || self.request.until.is_some();
        !bounded && header.undated == 0 && header.updated_max() < self.as_of().ticks
    }

    /// Whether only owners and successors decide the rows of a segment: [`Self::uniform_type`] holds, and dates decide
    /// nothing.
    pub(crate) fn is_uniform(&self, segment: usize) -> bool {
        self.uniform_type(segment).is_some() && self.needs_no_time_filter(segment)
    }

    /// The type of a segment's rows if they are all of one type, `_type` selects it, and ownership alone decides
    /// membership: not Patient, Group or Provenance.
    pub(crate) fn uniform_type(&self, segment: usize) -> Option<ResourceType> {
        let decided_by_row = [ResourceType::PATIENT, ResourceType::GROUP, ResourceType::PROVENANCE];
        let only = self.snapshot.index().segments()[segment].head().only_type();
        only.filter(|only| self.selects_type(*only) && !decided_by_row.contains(only))
    }

    /// The ledger class of a row of a scan; counts for messages and current Patients are added to `part`.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn classify(
        &self,
        segment: usize,
        row: usize,
        part: &mut SegmentSelection,
    ) -> Result<RowClass, CorruptIndex> {
        self.classify_candidate(segment, row, CandidateSource::AnyRow, part)
    }

    /// The ledger class of a candidate row; counts for messages and current Patients are added to `part`.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn classify_candidate(
        &self,
        segment_id: usize,
        row: usize,
        found: CandidateSource,
        part: &mut SegmentSelection,
    ) -> Result<RowClass, CorruptIndex> {
        let segment = &self.snapshot.index().segments()[segment_id];
        match self.snapshot.state(segment_id, row, self.as_of(), &self.cohort.ours, &|_| true)? {
            RowState::Current => {}
            RowState::Future => return Ok(RowClass::Future),
            RowState::Superseded => return Ok(RowClass::Superseded),
            RowState::Deleted => return Ok(RowClass::Deleted),
        }
        let resource_type = segment.type_of(row)?;
        if resource_type == ResourceType::PATIENT {
            // A Patient row owns itself first.
            let own = *segment.row_owners(row)?.first().ok_or(CorruptIndex("a Patient owns nobody"))?;
            part.present.push(self.snapshot.index().patient_of_owner(segment_id, own)?);
        }
        if !self.selects_type(resource_type) {
            return Ok(RowClass::Type);
        }
        let by_owner = found == CandidateSource::MemberPostings
            && resource_type != ResourceType::GROUP
            && resource_type != ResourceType::PROVENANCE;
        if self.request.population != Population::System
            && !by_owner
            && !self.in_cohort(segment_id, row, self.as_of(), Horizon::All)?
        {
            return Ok(RowClass::Cohort);
        }
        if self.needs_no_time_filter(segment_id) {
            return Ok(RowClass::Exported);
        }
        let updated = segment.updated(row)?;
        match self.passes_window(part, segment_id, row, resource_type, updated)? {
            true => Ok(RowClass::Exported),
            false => Ok(RowClass::SinceOrUntil),
        }
    }

    /// Whether a purged version arrived late under `_since`; `first` is the T, in ticks, of the first snapshot that had
    /// it.
    fn came_late(&self, first: i64) -> bool {
        let generation = self.snapshot.index().generation();
        self.request.since.as_ref().is_some_and(|since| generation.came_late(Some(first), since))
    }

    /// Whether a row passes the window: by its lastUpdated, as a late arrival, or as a Provenance that is new to the
    /// reader. Counts undated and late rows in `part`.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn passes_window(
        &self,
        part: &mut SegmentSelection,
        segment: usize,
        row: usize,
        resource_type: ResourceType,
        updated: Option<InstantRef<'_>>,
    ) -> Result<bool, CorruptIndex> {
        let Some(updated) = updated else {
            part.undated += 1;
            return Ok(self.in_window(None));
        };
        if self.after_since(updated) {
            return Ok(self.before_until(updated));
        }
        if !self.before_until(updated) {
            return Ok(false);
        }
        if self.is_late_row(segment, row) {
            part.late += 1;
            return Ok(self.request.late == LateArrivals::Include);
        }
        Ok(resource_type == ResourceType::PROVENANCE && self.newly_in_cohort(segment, row)?)
    }

    /// Whether at least one owner of a row is in the cohort; true at system level.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn has_cohort_owner(&self, segment: usize, row: usize) -> Result<bool, CorruptIndex> {
        let Some(patients) = &self.cohort.patients else { return Ok(true) };
        let index = self.snapshot.index();
        for owner in index.segments()[segment].row_owners(row)? {
            if patients.contains(index.patient_of_owner(segment, *owner)? as usize) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a row is in the compartment of a member (COMP-04), a Provenance also through its targets (COMP-08), as
    /// of `instant` and among the versions within `horizon`.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn in_cohort(
        &self,
        segment: usize,
        row: usize,
        instant: InstantRef<'_>,
        horizon: Horizon,
    ) -> Result<bool, CorruptIndex> {
        if self.cohort.patients.is_none() {
            return Ok(true);
        }
        if self.has_cohort_owner(segment, row)?
            && self.snapshot.index().segments()[segment].type_of(row)? != ResourceType::GROUP
        {
            return Ok(true);
        }
        // Breadth first, each row once: Provenances about Provenances form a graph with exponentially many paths.
        let mut seen = HashSet::new();
        let mut level = vec![(segment, row)];
        for _ in 0..=PROVENANCE_DEPTH_MAX {
            let mut next = Vec::new();
            for (segment, row) in level {
                let resource_type = self.snapshot.index().segments()[segment].type_of(row)?;
                let is_in_cohort = match resource_type {
                    // Other Groups would disclose members of theirs (COMP-09): only the requested Group, if `_type`
                    // names Group.
                    ResourceType::GROUP => {
                        self.cohort.group_row == Some((segment, row)) && !self.request.types.is_empty()
                    }
                    _ => self.has_cohort_owner(segment, row)?,
                };
                if is_in_cohort {
                    return Ok(true);
                }
                if resource_type == ResourceType::PROVENANCE
                    && self.target_in_cohort(segment, row, instant, horizon, &mut |target| {
                        if seen.insert(target) {
                            next.push(target);
                        }
                    })?
                {
                    return Ok(true);
                }
            }
            level = next;
        }
        Ok(false)
    }

    /// Whether a member owned a purged version, by the prior owners that a DELETE entry of `segment` records; true at
    /// system level.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn owned_prior_version(&self, segment: usize, prior: &PriorOwner<'_>) -> Result<bool, CorruptIndex> {
        let Some(patients) = &self.cohort.patients else { return Ok(true) };
        for owner in prior.owners() {
            if patients.contains(self.snapshot.index().patient_of_owner(segment, to_u32(owner))? as usize) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The purged version that a DELETE entry records, if it existed at an instant within the horizon and is younger
    /// than `last`.
    fn prior_owner_at(
        &self,
        (segment_id, entry): (usize, usize),
        instant: InstantRef<'_>,
        horizon: Horizon,
        last: Option<&LastVersion>,
    ) -> Result<Option<LastVersion>, CorruptIndex> {
        let index = self.snapshot.index();
        let segment = &index.segments()[segment_id];
        if segment.head().left == 0 || !self.snapshot.sees_segment(segment_id) {
            return Ok(None);
        }
        let Some(prior) = segment.verify_columns(&[Column::TombLeft])?.prior_owner_of(entry) else { return Ok(None) };
        let before = match last {
            Some(LastVersion::Row(segment_id, row)) => {
                Some(index.segments()[*segment_id].row(*row)?.last_updated[*row])
            }
            Some(LastVersion::Purged { updated, .. }) => Some(*updated),
            None => None,
        };
        let existed = InstantRef { ticks: prior.updated, rest: &[] } <= instant;
        let came_late = horizon == Horizon::AtSince && prior.first_seen.is_some_and(|first| self.came_late(first));
        if prior.followed || !existed || came_late || before.is_some_and(|before| before >= prior.updated) {
            return Ok(None);
        }
        Ok(Some(LastVersion::Purged { updated: prior.updated, owned: self.owned_prior_version(segment_id, &prior)? }))
    }

    /// Calls `visit` with the last version at an instant of each target of a Provenance under a base of ours. Returns
    /// whether one of those last versions is purged from a packed store and was owned by a member.
    fn target_in_cohort(
        &self,
        segment: usize,
        row: usize,
        instant: InstantRef<'_>,
        horizon: Horizon,
        visit: &mut dyn FnMut((usize, usize)),
    ) -> Result<bool, CorruptIndex> {
        let mut owned = false;
        let index = self.snapshot.index();
        let columns = index.segments()[segment].verify_columns(&[Column::TargetRow, Column::TargetBase])?;
        for target in columns.targets_of(row) {
            let base = index.base_number(segment, columns.target_base[target] & BASE_BITS);
            if !self.cohort.ours[base as usize] {
                continue;
            }
            // The versions of the target, oldest first. The last one at that instant decides, deleted or not: readers
            // that received a record also receive the Provenance about it after its deletion.
            let oldest = index.global().word(Section::TargetHead, index.starts().target[segment] + target)?;
            let mut record = (oldest as usize).checked_sub(1);
            let mut last = None;
            while let Some(number) = record {
                if number < index.rows() {
                    let (segment, row) = index.locate(number);
                    if index.segments()[segment].updated(row)?.is_some_and(|updated| updated > instant) {
                        break;
                    }
                    if self.snapshot.sees_segment(segment)
                        && (horizon == Horizon::All || !self.is_late_row(segment, row))
                    {
                        last = Some(LastVersion::Row(segment, row));
                    }
                } else {
                    // A version purged from a packed store is known by the deletion that ended it.
                    let entry = index.locate_tombstone(number - index.rows());
                    last = self.prior_owner_at(entry, instant, horizon, last.as_ref())?.or(last);
                }
                record = index.global().next(number)?;
            }
            match last {
                Some(LastVersion::Row(segment, row)) => visit((segment, row)),
                Some(LastVersion::Purged { owned: owned_by_member, .. }) => owned |= owned_by_member,
                None => {}
            }
        }
        Ok(owned)
    }

    /// Whether a Provenance in the cohort at T was not in it at `_since`, because a target was added or changed owners
    /// later: then it is new to the reader whatever its own lastUpdated (CONS-05). False without `_since`.
    fn newly_in_cohort(&self, segment: usize, row: usize) -> Result<bool, CorruptIndex> {
        let Some(since) = &self.request.since else { return Ok(false) };
        if self.cohort.patients.is_none() {
            return Ok(false);
        }
        Ok(!self.in_cohort(segment, row, since.as_ref(), Horizon::AtSince)?)
    }
}
