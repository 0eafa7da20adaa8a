//! The question that selection asks of a row, one row at a time: the slow and obvious way, which the passes over many
//! rows abbreviate and are tested against. Everything that it reads of the index is proven on the way.

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

/// The last version of a Provenance's target that was met.
enum LastVersion {
    /// A row: segment and row.
    Row(usize, usize),
    /// One that has left: its lastUpdated in ticks, and whether it was a member's.
    Left { updated: i64, owned: bool },
}

/// Which versions an observer knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Horizon {
    /// All that the snapshot sees.
    All,
    /// Those that were there at `_since`: none that came late.
    Then,
}

/// How a row came to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CandidateSource {
    /// Whose it is must be asked.
    Anyhow,
    /// By a member's postings, unless it is a Group or a Provenance.
    AsMembers,
}

/// A request prepared against a snapshot.
pub(crate) struct RowClassifier<'a> {
    /// What is seen.
    pub snapshot: &'a Snapshot,
    /// Whose records are asked for.
    pub cohort: &'a Cohort,
    /// What is asked for.
    pub request: &'a ExportRequest,
    types: [bool; ResourceType::COUNT],
}

impl<'a> RowClassifier<'a> {
    /// Prepares a request against a snapshot.
    pub(crate) fn new(snapshot: &'a Snapshot, cohort: &'a Cohort, request: &'a ExportRequest) -> RowClassifier<'a> {
        let mut types = [request.types.is_empty(); ResourceType::COUNT];
        request.types.iter().for_each(|t| types[t.index()] = true);
        RowClassifier { snapshot, cohort, request, types }
    }

    /// T.
    pub(crate) fn as_of(&self) -> InstantRef<'a> {
        self.snapshot.as_of().as_ref()
    }

    /// Whether `_type` lets a type through.
    pub(crate) fn selects_type(&self, resource_type: ResourceType) -> bool {
        self.types[resource_type.index()]
    }

    /// Whether the window lets an instant through; undated rows go by policy.
    pub(crate) fn in_window(&self, updated: Option<InstantRef<'_>>) -> bool {
        let Some(updated) = updated else {
            let bounded = self.request.since.is_some() || self.request.until.is_some();
            return !bounded || self.request.missing_last_updated == MissingLastUpdated::Include;
        };
        self.after_since(updated) && self.before_until(updated)
    }

    /// `_since`, strict.
    pub(crate) fn after_since(&self, updated: InstantRef<'_>) -> bool {
        self.request.since.as_ref().is_none_or(|since| updated > since.as_ref())
    }

    /// `_until`, strict.
    pub(crate) fn before_until(&self, updated: InstantRef<'_>) -> bool {
        self.request.until.as_ref().is_none_or(|until| updated < until.as_ref())
    }

    /// Whether the rows of a segment are late under the request's `_since`.
    pub(crate) fn is_late(&self, segment: usize) -> bool {
        self.request.since.as_ref().is_some_and(|since| self.snapshot.is_late(segment, since))
    }

    /// Whether it does not matter when the rows of a segment are dated: all of them are, before T, and there is no window.
    pub(crate) fn needs_no_time_filter(&self, segment: usize) -> bool {
        let head = self.snapshot.index().segments()[segment].head();
        let bounded = self.request.since.is_some() || self.request.until.is_some();
        !bounded && head.undated == 0 && head.updated_max() < self.as_of().ticks
    }

    /// Whether the rows of a segment need no look but for whose they are and what follows them: they are of one type that
    /// is wanted and belongs to whoever owns it, and it does not matter when they are dated.
    pub(crate) fn is_uniform(&self, segment: usize) -> bool {
        self.uniform_type(segment).is_some() && self.needs_no_time_filter(segment)
    }

    /// The one type of the rows of a segment, if it is wanted and belongs to whoever owns it.
    pub(crate) fn uniform_type(&self, segment: usize) -> Option<ResourceType> {
        let one_by_one = [ResourceType::PATIENT, ResourceType::GROUP, ResourceType::PROVENANCE];
        let only = self.snapshot.index().segments()[segment].head().only_type();
        only.filter(|only| self.selects_type(*only) && !one_by_one.contains(only))
    }

    /// The class of a row; what messages need to know of it is noted in `part`.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub(crate) fn classify(
        &self,
        segment: usize,
        row: usize,
        part: &mut SegmentSelection,
    ) -> Result<RowClass, CorruptIndex> {
        self.classify_candidate(segment, row, CandidateSource::Anyhow, part)
    }

    /// The same of a row that was found in some way.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
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
        let by_owner = found == CandidateSource::AsMembers
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

    /// The same of a version that has left, by the T that first saw it, in ticks.
    fn came_late(&self, first: i64) -> bool {
        let generation = self.snapshot.index().generation();
        self.request.since.as_ref().is_some_and(|since| generation.came_late(Some(first), since))
    }

    /// Whether the window lets a row through, late ones and Provenances that are new to the reader included.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
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
        if self.is_late(segment) {
            part.late += 1;
            return Ok(self.request.late == LateArrivals::Include);
        }
        Ok(resource_type == ResourceType::PROVENANCE && self.newly_in_cohort(segment, row)?)
    }

    /// Whether an owner of a row is in the cohort.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
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

    /// Whether a row is in the compartment of a member (COMP-04), Provenance through its targets (COMP-08), as of an
    /// instant and among the versions that are `known`.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub(crate) fn in_cohort(
        &self,
        segment: usize,
        row: usize,
        instant: InstantRef<'_>,
        known: Horizon,
    ) -> Result<bool, CorruptIndex> {
        if self.cohort.patients.is_none() {
            return Ok(true);
        }
        if self.has_cohort_owner(segment, row)?
            && self.snapshot.index().segments()[segment].type_of(row)? != ResourceType::GROUP
        {
            return Ok(true);
        }
        // Level by level, and no row twice: Provenances about one another make a web, whose paths are countless.
        let mut seen = HashSet::new();
        let mut level = vec![(segment, row)];
        for _ in 0..=PROVENANCE_DEPTH_MAX {
            let mut next = Vec::new();
            for (segment, row) in level {
                let resource_type = self.snapshot.index().segments()[segment].type_of(row)?;
                let belongs = match resource_type {
                    // Other members' names would leak (COMP-09): only the Group asked for, if it is named by type.
                    ResourceType::GROUP => {
                        self.cohort.group_row == Some((segment, row)) && !self.request.types.is_empty()
                    }
                    _ => self.has_cohort_owner(segment, row)?,
                };
                if belongs {
                    return Ok(true);
                }
                if resource_type == ResourceType::PROVENANCE
                    && self.target_in_cohort(segment, row, instant, known, &mut |target| {
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

    /// Whether a version that has left, as a DELETE entry of a segment remembers it, was a member's.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub(crate) fn owned_prior_version(&self, segment: usize, left: &PriorOwner<'_>) -> Result<bool, CorruptIndex> {
        let Some(patients) = &self.cohort.patients else { return Ok(true) };
        for owner in left.owners() {
            if patients.contains(self.snapshot.index().patient_of_owner(segment, to_u32(owner))? as usize) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a DELETE entry tells of a version that was there at an instant and has left, younger than `last`.
    fn prior_owner_at(
        &self,
        (segment_id, entry): (usize, usize),
        position: InstantRef<'_>,
        known: Horizon,
        last: Option<&LastVersion>,
    ) -> Result<Option<LastVersion>, CorruptIndex> {
        let index = self.snapshot.index();
        let segment = &index.segments()[segment_id];
        if segment.head().left == 0 || !self.snapshot.sees_segment(segment_id) {
            return Ok(None);
        }
        let Some(left) = segment.verify_columns(&[Column::TombLeft])?.prior_owner_of(entry) else { return Ok(None) };
        let before = match last {
            Some(LastVersion::Row(segment_id, row)) => {
                Some(index.segments()[*segment_id].row(*row)?.last_updated[*row])
            }
            Some(LastVersion::Left { updated, .. }) => Some(*updated),
            None => None,
        };
        let there = InstantRef { ticks: left.updated, rest: &[] } <= position;
        let came_late = known == Horizon::Then && left.first_seen.is_some_and(|first| self.came_late(first));
        if left.followed || !there || came_late || before.is_some_and(|before| before >= left.updated) {
            return Ok(None);
        }
        Ok(Some(LastVersion::Left { updated: left.updated, owned: self.owned_prior_version(segment_id, &left)? }))
    }

    /// Calls `visit` for what a Provenance is about: of each target of ours the last version at an instant. Whether one
    /// of them has left a packed store and was a member's.
    fn target_in_cohort(
        &self,
        segment: usize,
        row: usize,
        instant: InstantRef<'_>,
        known: Horizon,
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
            // The versions of the target, oldest first; the last one at that instant decides, deleted or not: what
            // was told of a record stays with those who were told of the record.
            let head = index.global().word(Section::TargetHead, index.starts().target[segment] + target)?;
            let mut record = (head as usize).checked_sub(1);
            let mut last = None;
            while let Some(number) = record {
                if number < index.rows() {
                    let (segment, row) = index.locate(number);
                    if index.segments()[segment].updated(row)?.is_some_and(|updated| updated > instant) {
                        break;
                    }
                    if self.snapshot.sees_segment(segment) && (known == Horizon::All || !self.is_late(segment)) {
                        last = Some(LastVersion::Row(segment, row));
                    }
                } else {
                    // A version that has left a packed store is known by the deletion that ended it.
                    let entry = index.locate_tombstone(number - index.rows());
                    last = self.prior_owner_at(entry, instant, known, last.as_ref())?.or(last);
                }
                record = index.global().next(number)?;
            }
            match last {
                Some(LastVersion::Row(segment, row)) => visit((segment, row)),
                Some(LastVersion::Left { owned: by_member, .. }) => owned |= by_member,
                None => {}
            }
        }
        Ok(owned)
    }

    /// A Provenance that belongs at T but did not at `_since`, because what it is about came or changed hands later,
    /// is new to the reader whatever its own lastUpdated (CONS-05).
    fn newly_in_cohort(&self, segment: usize, row: usize) -> Result<bool, CorruptIndex> {
        let Some(since) = &self.request.since else { return Ok(false) };
        if self.cohort.patients.is_none() {
            return Ok(false);
        }
        Ok(!self.in_cohort(segment, row, since.as_ref(), Horizon::Then)?)
    }
}
