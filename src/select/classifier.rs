//! Classifies one row at a time: its ledger class, whether it is in the cohort, whether it passes the window.
//!
//! The slow and obvious implementation, which the scans over many rows shorten and are tested against. Every page of
//! the index that it reads is verified first.

use crate::error::CorruptIndex;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{EntryId, OwnerOrd, RowAddress, SegmentId};
use crate::index::snapshot::{RowState, Snapshot};
use crate::policies::{LateArrivals, MissingLastUpdated};
use crate::request::{ExportRequest, Population};
use crate::select::cohort::Cohort;
use crate::select::ledger::{RowClass, SegmentSelection};
use crate::select::provenance::{CohortMembership, Horizon};

/// How a candidate row was found, which decides whether its owners must be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CandidateSource {
    /// By a scan: its owners must be checked.
    AnyRow,
    /// In the postings of a member, so a member owns it, unless it is a Group or a Provenance. An outsider may own it, too.
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
    /// Which rows are the members' records, as far as it was asked.
    pub membership: CohortMembership<'a>,
    /// Whether each type is selected by `_type`, Provenance only where none is associated, by [`ResourceType::index`].
    types: [bool; ResourceType::COUNT],
}

impl<'a> RowClassifier<'a> {
    /// A classifier of rows of a snapshot for a request and its resolved cohort.
    pub(crate) fn new(snapshot: &'a Snapshot, cohort: &'a Cohort, request: &'a ExportRequest) -> RowClassifier<'a> {
        let mut types = [request.types.is_empty(); ResourceType::COUNT];
        request.types.iter().for_each(|t| types[t.index()] = true);
        // Which Provenances are exported depends on what else is.
        types[ResourceType::PROVENANCE.index()] &= request.associated.is_none();
        let membership = CohortMembership::new(snapshot, cohort, request);
        RowClassifier { snapshot, cohort, request, membership, types }
    }

    /// The transactionTime T of the snapshot.
    pub(crate) fn as_of(&self) -> InstantRef<'a> {
        self.snapshot.as_of().as_ref()
    }

    /// Whether `_type` selects a resource type; without `_type`, every type.
    pub(crate) fn selects_type(&self, resource_type: ResourceType) -> bool {
        self.types[resource_type.index()]
    }

    /// Whether deletions of a resource type are listed: those of selected types, and of Provenance where it is associated
    /// (ASSOC-08).
    pub(crate) fn lists_deletions_of(&self, resource_type: ResourceType) -> bool {
        let is_associated = self.request.associated.is_some() && resource_type == ResourceType::PROVENANCE;
        self.selects_type(resource_type) || is_associated
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
    pub(crate) fn is_late_row(&self, row: RowAddress) -> bool {
        self.request.since.as_ref().is_some_and(|since| self.snapshot.is_late_row(row, since))
    }

    /// Whether a DELETE entry is late for the request.
    pub(crate) fn is_late_entry(&self, segment: SegmentId, entry: EntryId) -> bool {
        self.request.since.as_ref().is_some_and(|since| self.snapshot.is_late_entry(segment, entry, since))
    }

    /// Whether rows of a segment may be late arrivals under the request's `_since`; false without `_since`.
    pub(crate) fn is_late(&self, segment: SegmentId) -> bool {
        self.request.since.as_ref().is_some_and(|since| self.snapshot.is_late(segment, since))
    }

    /// Whether the dates of a segment's rows decide nothing: there is no window, and every row is dated before T.
    pub(crate) fn needs_no_time_filter(&self, segment: SegmentId) -> bool {
        let header = self.snapshot.index().segment(segment).head();
        let bounded = self.request.since.is_some() || self.request.until.is_some();
        !bounded && header.undated == 0 && header.updated_max() < self.as_of().ticks
    }

    /// Whether only owners and successors decide the rows of a segment: [`Self::uniform_type`] holds, and dates decide
    /// nothing.
    pub(crate) fn is_uniform(&self, segment: SegmentId) -> bool {
        self.uniform_type(segment).is_some() && self.needs_no_time_filter(segment)
    }

    /// The type of a segment's rows if they are all of one type, `_type` selects it, and ownership alone decides
    /// membership: not Patient, Group or Provenance.
    pub(crate) fn uniform_type(&self, segment: SegmentId) -> Option<ResourceType> {
        let decided_by_row = [ResourceType::PATIENT, ResourceType::GROUP, ResourceType::PROVENANCE];
        let only = self.snapshot.index().segment(segment).head().only_type();
        only.filter(|only| self.selects_type(*only) && !decided_by_row.contains(only))
    }

    /// The ledger class of a row of a scan; counts for messages and current Patients are added to `part`.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn classify(&self, row: RowAddress, part: &mut SegmentSelection) -> Result<RowClass, CorruptIndex> {
        self.classify_candidate(row, CandidateSource::AnyRow, part)
    }

    /// The ledger class of a candidate row; counts for messages and current Patients are added to `part`.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn classify_candidate(
        &self,
        address: RowAddress,
        found: CandidateSource,
        part: &mut SegmentSelection,
    ) -> Result<RowClass, CorruptIndex> {
        let (segment_id, row) = address.parts();
        let segment = self.snapshot.index().segment(segment_id);
        match self.snapshot.state(address, self.as_of(), &self.cohort.ours, &|_| true)? {
            RowState::Current => {}
            RowState::Future => return Ok(RowClass::Future),
            RowState::Superseded => return Ok(RowClass::Superseded),
            RowState::Deleted => return Ok(RowClass::Deleted),
        }
        let resource_type = segment.type_of(row)?;
        if resource_type == ResourceType::PATIENT {
            // A Patient row owns itself first.
            let own = *segment.row_owners(row)?.first().ok_or(CorruptIndex("a Patient owns nobody"))?;
            part.present.push(self.snapshot.index().patient_of_owner(segment_id, OwnerOrd(own))?);
        }
        if !self.selects_type(resource_type) {
            return Ok(RowClass::Type);
        }
        let by_owner = found == CandidateSource::MemberPostings
            && self.cohort.outsiders.is_none()
            && resource_type != ResourceType::GROUP
            && resource_type != ResourceType::PROVENANCE;
        if self.request.population != Population::System
            && !by_owner
            && !self.membership.in_cohort(address, Horizon::All)?
        {
            return Ok(RowClass::Cohort);
        }
        if self.needs_no_time_filter(segment_id) {
            return Ok(RowClass::Exported);
        }
        let updated = segment.updated(row)?;
        match self.passes_window(part, address, resource_type, updated)? {
            true => Ok(RowClass::Exported),
            false => Ok(RowClass::SinceOrUntil),
        }
    }

    /// Whether a row passes the window: by its lastUpdated, as a late arrival, or as a Provenance that is new to the
    /// reader. Counts undated and late rows in `part`.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn passes_window(
        &self,
        part: &mut SegmentSelection,
        row: RowAddress,
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
        if self.is_late_row(row) {
            part.late += 1;
            return Ok(self.request.late == LateArrivals::Include);
        }
        Ok(resource_type == ResourceType::PROVENANCE && self.membership.newly_in_cohort(row)?)
    }
}
