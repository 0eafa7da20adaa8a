//! Membership in the cohort: a row's by its owners (COMP-04), a Provenance's also by what it is about (COMP-08).
//!
//! A Provenance belongs where the last version of one of its targets belongs, and that may be a Provenance again: a
//! graph of any depth, with cycles. The answers for what Provenances are about are kept, so that all questions together
//! cost about one look at each Provenance, target and version. Only rows that are asked for, and what they lead to, are
//! read. [`AccessPath::Rows`] walks the graph anew for every row: the slow twin.
//!
//! Where the cohort has outsiders, what is also in the record of one of them, found in the very same way, is in it no more
//! (COMP-05).

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use crate::error::CorruptIndex;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{EntryId, OwnerOrd, RecordId, RowAddress, SegmentId};
use crate::index::global::Section;
use crate::index::segment::columns::PriorOwner;
use crate::index::segment::layout::{BASE_BITS, Column};
use crate::index::snapshot::Snapshot;
use crate::policies::AccessPath;
use crate::request::ExportRequest;
use crate::select::bitmap::Bitmap;
use crate::select::cohort::Cohort;

/// Versions or owners that are looked at again for every Provenance about a resource; what has more is remembered.
const FEW: usize = 8;

/// Which versions of a resource count when an earlier state is reconstructed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Horizon {
    /// All versions in the snapshot, at T.
    All,
    /// Versions that the store held at `_since`: late arrivals do not count.
    AtSince,
}

/// The last version of a Provenance's target found so far, walking its versions from the oldest.
#[derive(Clone, Copy)]
enum LastVersion {
    /// A row of the store.
    Row(RowAddress),
    /// A version purged from a packed store: its lastUpdated in ticks, and the DELETE entry of a segment that ended it.
    Purged { updated: i64, segment: SegmentId, entry: EntryId },
}

/// What the last version of a resource says about the Provenances that name it.
#[derive(Clone, Copy)]
enum TargetVerdict {
    /// They are in the cohort.
    InCohort,
    /// Nothing.
    Outside,
    /// They are if this Provenance row is.
    AsProvenance(RecordId),
}

/// What has been found out as of one horizon.
#[derive(Default)]
struct KnownMembership {
    /// Resources of more than [`FEW`] versions or owners, by their first records.
    verdicts: Mutex<HashMap<RecordId, TargetVerdict>>,
    /// Provenance rows that are about Provenances, or that such are about: whether they are in the cohort.
    provenances: Mutex<HashMap<RecordId, bool>>,
}

/// Decides which rows are in the compartment of a member of the cohort, and of no outsider if it has some.
pub(crate) struct CohortMembership<'a> {
    snapshot: &'a Snapshot,
    cohort: &'a Cohort,
    request: &'a ExportRequest,
    /// Whose compartments are looked at; `None` for everything.
    patients: Option<&'a Bitmap>,
    /// The same for the outsiders.
    outsiders: Option<Box<CohortMembership<'a>>>,
    /// Findings at T and at `_since`.
    known: [KnownMembership; 2],
}

impl<'a> CohortMembership<'a> {
    /// Membership of rows of a snapshot in a request's resolved cohort; nothing is read yet.
    pub(crate) fn new(snapshot: &'a Snapshot, cohort: &'a Cohort, request: &'a ExportRequest) -> CohortMembership<'a> {
        let of = |patients, outsiders| {
            let known = Default::default();
            CohortMembership { snapshot, cohort, request, patients, outsiders, known }
        };
        let outsiders = cohort.outsiders.as_ref().map(|others| Box::new(of(Some(others), None)));
        of(cohort.patients.as_ref(), outsiders)
    }

    /// Whether a row arrived late under the request's `_since`; false without `_since`.
    fn is_late(&self, row: RowAddress) -> bool {
        self.request.since.as_ref().is_some_and(|since| self.snapshot.is_late_row(row, since))
    }

    /// Whether a purged version arrived late under `_since`; `first` is the T, in ticks, of the first snapshot that had
    /// it.
    fn came_late(&self, first: i64) -> bool {
        let generation = self.snapshot.index().generation();
        self.request.since.as_ref().is_some_and(|since| generation.came_late(Some(first), since))
    }

    /// The instant of a horizon.
    fn instant(&self, horizon: Horizon) -> InstantRef<'a> {
        match (horizon, &self.request.since) {
            (Horizon::AtSince, Some(since)) => since.as_ref(),
            _ => self.snapshot.as_of().as_ref(),
        }
    }

    /// Whether at least one owner of a row is in the cohort, and none an outsider; true at system level.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn has_cohort_owner(&self, row: RowAddress) -> Result<bool, CorruptIndex> {
        Ok(self.has_owner(row)?
            && match &self.outsiders {
                Some(outsiders) => !outsiders.has_owner(row)?,
                None => true,
            })
    }

    /// Whether at least one owner of a row is one of the patients.
    fn has_owner(&self, row: RowAddress) -> Result<bool, CorruptIndex> {
        let Some(patients) = self.patients else { return Ok(true) };
        let index = self.snapshot.index();
        for owner in index.segment(row.segment).row_owners(row.row.index())? {
            if patients.contains(index.patient_of_owner(row.segment, OwnerOrd(*owner))?.index()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a member owned a purged version, and no outsider, by the prior owners that a DELETE entry of `segment`
    /// records; true at system level.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn owned_prior_version(&self, segment: SegmentId, prior: &PriorOwner<'_>) -> Result<bool, CorruptIndex> {
        Ok(self.has_prior_owner(segment, prior)?
            && match &self.outsiders {
                Some(outsiders) => !outsiders.has_prior_owner(segment, prior)?,
                None => true,
            })
    }

    /// Whether one of the patients owned a purged version.
    fn has_prior_owner(&self, segment: SegmentId, prior: &PriorOwner<'_>) -> Result<bool, CorruptIndex> {
        let Some(patients) = self.patients else { return Ok(true) };
        for owner in prior.owners() {
            if patients.contains(self.snapshot.index().patient_of_owner(segment, OwnerOrd::of(owner))?.index()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a row is in the compartment of a member and of no outsider, a Provenance also through its targets, as of a
    /// horizon; true at system level.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn in_cohort(&self, row: RowAddress, horizon: Horizon) -> Result<bool, CorruptIndex> {
        Ok(self.in_compartment(row, horizon)? && !self.is_outsiders(row, horizon)?)
    }

    /// Whether a row is in the compartment of an outsider, as of a horizon; false where there are none.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn is_outsiders(&self, row: RowAddress, horizon: Horizon) -> Result<bool, CorruptIndex> {
        match &self.outsiders {
            Some(outsiders) => outsiders.in_compartment(row, horizon),
            None => Ok(false),
        }
    }

    /// Whether a row is in the compartment of one of the patients, as of a horizon.
    fn in_compartment(&self, row: RowAddress, horizon: Horizon) -> Result<bool, CorruptIndex> {
        if self.patients.is_none() {
            return Ok(true);
        }
        match self.row_verdict(row)? {
            TargetVerdict::InCohort => Ok(true),
            TargetVerdict::Outside => Ok(false),
            TargetVerdict::AsProvenance(_) if self.request.access_path == AccessPath::Rows => {
                self.walk_in_cohort(row, horizon)
            }
            TargetVerdict::AsProvenance(number) => match self.decisive_provenances(row, horizon)? {
                None => Ok(true),
                Some(others) if others.is_empty() => Ok(false),
                Some(others) => self.search(number, others, horizon),
            },
        }
    }

    /// What a row by itself says about its membership.
    fn row_verdict(&self, row: RowAddress) -> Result<TargetVerdict, CorruptIndex> {
        let index = self.snapshot.index();
        let resource_type = index.segment(row.segment).type_of(row.row.index())?;
        let is_in_cohort = match resource_type {
            // Other Groups would disclose members of theirs (COMP-09): only the requested Group, if `_type` names Group.
            ResourceType::GROUP => self.cohort.group_row == Some(row) && !self.request.types.is_empty(),
            _ => self.has_owner(row)?,
        };
        Ok(match (is_in_cohort, resource_type) {
            (true, _) => TargetVerdict::InCohort,
            (false, ResourceType::PROVENANCE) => TargetVerdict::AsProvenance(index.record_of_row(row)),
            _ => TargetVerdict::Outside,
        })
    }

    /// First records of the resources that a Provenance row is about, under a base of ours and in the store.
    pub(crate) fn targets(&self, row: RowAddress) -> Result<Vec<RecordId>, CorruptIndex> {
        let (segment, row) = row.parts();
        let index = self.snapshot.index();
        let (targets, columns) = index.segment(segment).row_targets(row)?;
        let mut firsts = Vec::with_capacity(targets.len());
        for target in targets {
            let base = index.base_of_segment(segment, columns.target_base[target] & BASE_BITS);
            if self.cohort.ours[base.index()] {
                firsts.extend(index.first_record_of_target(segment, target)?);
            }
        }
        Ok(firsts)
    }

    /// The Provenance rows that decide whether a Provenance row outside the members' own records is in the cohort;
    /// `None` if a target of another kind puts it there.
    fn decisive_provenances(&self, row: RowAddress, horizon: Horizon) -> Result<Option<Vec<RecordId>>, CorruptIndex> {
        let mut found = Vec::new();
        for first in self.targets(row)? {
            match self.target_verdict(first, horizon)? {
                TargetVerdict::InCohort => return Ok(None),
                TargetVerdict::Outside => {}
                TargetVerdict::AsProvenance(number) => found.push(number),
            }
        }
        Ok(Some(found))
    }

    /// What the last version of a resource, given by its first record, says. Remembered if finding it out is long.
    fn target_verdict(&self, first: RecordId, horizon: Horizon) -> Result<TargetVerdict, CorruptIndex> {
        let verdicts = &self.known[horizon as usize].verdicts;
        let remembered = || verdicts.lock().expect("no panic under it").get(&first).copied();
        let (mut known, mut is_long) = (None, false);
        let last = self.last_version(first, horizon, &mut || {
            (known, is_long) = (remembered(), true);
            known.is_some()
        })?;
        if !is_long && self.owner_count(last)? > FEW {
            (known, is_long) = (remembered(), true);
        }
        if let Some(verdict) = known {
            return Ok(verdict);
        }
        let verdict = match last {
            None => TargetVerdict::Outside,
            Some(LastVersion::Row(row)) => self.row_verdict(row)?,
            Some(LastVersion::Purged { segment, entry, .. }) => match self.prior_owner(segment, entry)? {
                Some(prior) if self.has_prior_owner(segment, &prior)? => TargetVerdict::InCohort,
                _ => TargetVerdict::Outside,
            },
        };
        if is_long {
            verdicts.lock().expect("no panic under it").insert(first, verdict);
        }
        Ok(verdict)
    }

    /// How many owners of a version would have to be looked at.
    fn owner_count(&self, last: Option<LastVersion>) -> Result<usize, CorruptIndex> {
        Ok(match last {
            None => 0,
            Some(LastVersion::Row(row)) => {
                self.snapshot.index().segment(row.segment).row_owners(row.row.index())?.len()
            }
            Some(LastVersion::Purged { segment, entry, .. }) => {
                self.prior_owner(segment, entry)?.map_or(0, |prior| prior.owners().take(FEW + 1).count())
            }
        })
    }

    /// The purged version that a DELETE entry records.
    fn prior_owner(&self, segment: SegmentId, entry: EntryId) -> Result<Option<PriorOwner<'a>>, CorruptIndex> {
        Ok(self.snapshot.index().segment(segment).verify_columns(&[Column::TombLeft])?.prior_owner_of(entry))
    }

    /// The last version of a resource as of a horizon, walking its records from the first. It decides, deleted or not:
    /// readers that received a record also receive the Provenance about it after its deletion. `is_known` is asked once
    /// if there are more than [`FEW`] records; if it says true, the walk ends with nothing.
    fn last_version(
        &self,
        first: RecordId,
        horizon: Horizon,
        is_known: &mut dyn FnMut() -> bool,
    ) -> Result<Option<LastVersion>, CorruptIndex> {
        let (index, instant) = (self.snapshot.index(), self.instant(horizon));
        let records = index.rows() + index.global().count(Section::Ends);
        let (mut record, mut last, mut walked) = (Some(first), None, 0);
        while let Some(number) = record {
            walked += 1;
            if walked > records {
                return Err(CorruptIndex("a succession has no end"));
            }
            if walked == FEW + 1 && is_known() {
                return Ok(None);
            }
            if index.is_row(number) {
                let row = index.locate(number);
                if index.segment(row.segment).updated(row.row.index())?.is_some_and(|updated| updated > instant) {
                    break;
                }
                if self.snapshot.sees_segment(row.segment) && (horizon == Horizon::All || !self.is_late(row)) {
                    last = Some(LastVersion::Row(row));
                }
            } else {
                // A version purged from a packed store is known by the deletion that ended it.
                let (segment, entry) = index.locate_tombstone(number);
                last = self.purged_version((segment, entry), horizon, last)?.or(last);
            }
            record = index.global().next(number)?;
        }
        Ok(last)
    }

    /// The row that is the last version of a resource at T, deleted or not; `None` if that was purged.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn last_row(&self, first: RecordId) -> Result<Option<RowAddress>, CorruptIndex> {
        Ok(match self.last_version(first, Horizon::All, &mut || false)? {
            Some(LastVersion::Row(row)) => Some(row),
            _ => None,
        })
    }

    /// The purged version that a DELETE entry records, if it existed as of a horizon and is younger than `last`.
    fn purged_version(
        &self,
        (segment, entry): (SegmentId, EntryId),
        horizon: Horizon,
        last: Option<LastVersion>,
    ) -> Result<Option<LastVersion>, CorruptIndex> {
        let index = self.snapshot.index();
        if index.segment(segment).head().left == 0 || !self.snapshot.sees_segment(segment) {
            return Ok(None);
        }
        let Some(prior) = self.prior_owner(segment, entry)? else { return Ok(None) };
        let before = match last {
            Some(LastVersion::Row(address)) => {
                let (segment, row) = address.parts();
                Some(index.segment(segment).row(row)?.last_updated[row])
            }
            Some(LastVersion::Purged { updated, .. }) => Some(updated),
            None => None,
        };
        let existed = InstantRef { ticks: prior.updated, rest: &[] } <= self.instant(horizon);
        let came_late = horizon == Horizon::AtSince && prior.first_seen.is_some_and(|first| self.came_late(first));
        let counts = !prior.followed && existed && !came_late && before.is_none_or(|before| before < prior.updated);
        Ok(counts.then_some(LastVersion::Purged { updated: prior.updated, segment, entry }))
    }

    /// Whether a Provenance row that `others` decide is in the cohort. Rows that were not decided before are collected
    /// along the targets, each once; then membership is passed back from those that have it, and all are decided.
    fn search(&self, start: RecordId, others: Vec<RecordId>, horizon: Horizon) -> Result<bool, CorruptIndex> {
        let mut known = self.known[horizon as usize].provenances.lock().expect("no panic under it");
        if let Some(is_in_cohort) = known.get(&start) {
            return Ok(*is_in_cohort);
        }
        // 1. The undecided rows, and for each those about it.
        let mut graph = ProvenanceGraph::default();
        graph.place(start);
        let (mut next, mut others) = (0, Some(others));
        while let Some(row) = graph.rows.get(next).copied() {
            let decisive = match others.take() {
                Some(others) => Some(others),
                None => {
                    let row = self.snapshot.index().locate(row);
                    self.decisive_provenances(row, horizon)?
                }
            };
            match decisive {
                Some(list) if !list.iter().any(|other| known.get(other) == Some(&true)) => {
                    list.iter().filter(|other| !known.contains_key(other)).for_each(|other| graph.link(*other, next));
                }
                _ => graph.in_cohort.push(next),
            }
            next += 1;
        }
        // 2. Membership passed back.
        let found = graph.spread();
        known.extend(graph.rows.iter().copied().zip(found.iter().copied()));
        Ok(found[0])
    }

    /// The slow twin of [`CohortMembership::in_compartment`] for a Provenance: breadth first from one row, each row once,
    /// since Provenances about Provenances form a graph with exponentially many paths. Nothing is remembered.
    fn walk_in_cohort(&self, start: RowAddress, horizon: Horizon) -> Result<bool, CorruptIndex> {
        let mut seen = HashSet::from([start]);
        let mut waiting = vec![start];
        while let Some(row) = waiting.pop() {
            match self.row_verdict(row)? {
                TargetVerdict::InCohort => return Ok(true),
                TargetVerdict::Outside => continue,
                TargetVerdict::AsProvenance(_) => {}
            }
            for first in self.targets(row)? {
                match self.last_version(first, horizon, &mut || false)? {
                    Some(LastVersion::Row(row)) if seen.insert(row) => waiting.push(row),
                    Some(LastVersion::Purged { segment, entry, .. }) => {
                        if let Some(prior) = self.prior_owner(segment, entry)?
                            && self.has_prior_owner(segment, &prior)?
                        {
                            return Ok(true);
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    /// Whether a Provenance in the cohort at T was not in it at `_since`, because a target was added or changed owners
    /// later: then it is new to the reader whatever its own lastUpdated (CONS-05). False without `_since` and at system
    /// level.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn newly_in_cohort(&self, row: RowAddress) -> Result<bool, CorruptIndex> {
        let is_asked = self.request.since.is_some() && self.patients.is_some();
        Ok(is_asked && !self.in_cohort(row, Horizon::AtSince)?)
    }

    /// The DELETE entries, each with its segment, that record a purged version of a member.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn deletions_of_purged(&self) -> Result<Vec<(SegmentId, EntryId)>, CorruptIndex> {
        let mut found = Vec::new();
        for segment_id in self.snapshot.segments() {
            let segment = self.snapshot.index().segment(segment_id);
            if segment.head().left == 0 {
                continue;
            }
            for entry in segment.entry_ids() {
                if let Some(prior) = self.prior_owner(segment_id, entry)?
                    && self.has_prior_owner(segment_id, &prior)?
                {
                    found.push((segment_id, entry));
                }
            }
        }
        Ok(found)
    }
}

/// Provenance rows that wait for one another, numbered as they are found.
#[derive(Default)]
struct ProvenanceGraph {
    /// The rows.
    rows: Vec<RecordId>,
    /// Number of each row.
    numbers: HashMap<RecordId, usize>,
    /// For each row the last of the links to it, as an index into `links`, plus one; 0 for none.
    last_link: Vec<usize>,
    /// Number of a row that is about another, and the link to the same one before it, as in `last_link`.
    links: Vec<(usize, usize)>,
    /// Numbers of rows in the cohort.
    in_cohort: Vec<usize>,
}

impl ProvenanceGraph {
    /// Number of a row, added if it is new.
    fn place(&mut self, row: RecordId) -> usize {
        let next = self.rows.len();
        let number = *self.numbers.entry(row).or_insert(next);
        if number == next {
            self.rows.push(row);
            self.last_link.push(0);
        }
        number
    }

    /// Records that row number `about` is about `row`.
    fn link(&mut self, row: RecordId, about: usize) {
        let number = self.place(row);
        self.links.push((about, self.last_link[number]));
        self.last_link[number] = self.links.len();
    }

    /// For each row whether it is in the cohort or leads to one that is.
    fn spread(&mut self) -> Vec<bool> {
        let mut found = vec![false; self.rows.len()];
        self.in_cohort.iter().for_each(|number| found[*number] = true);
        while let Some(number) = self.in_cohort.pop() {
            let mut link = self.last_link[number];
            while let Some((about, before)) = link.checked_sub(1).map(|link| self.links[link]) {
                if !std::mem::replace(&mut found[about], true) {
                    self.in_cohort.push(about);
                }
                link = before;
            }
        }
        found
    }
}
