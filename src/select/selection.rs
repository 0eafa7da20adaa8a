//! One pass over the columns: every row gets exactly one class of the ledger (reading 10), and the exported ones a bit.
//!
//! Extents are independent, so the pass runs over them in parallel; results are put together in store order. No byte
//! of the store is read here.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bitmap::Bitmap;
use super::cohort::Cohort;
use super::request::{ExportRequest, Late, MissingLastUpdated, Population};
use crate::extract::FaultKind;
use crate::fhir::instant::InstantRef;
use crate::fhir::{Instant, ResourceType};
use crate::store::Index;
use crate::store::extent::{Columns, Left};
use crate::store::layout::{BASE_BITS, flag};
use crate::store::snapshot::{Snapshot, State};

/// Provenances asked on the way to an answer, by extent and row: each is asked once, however they refer to each other.
pub type Asked = Vec<(usize, usize)>;

/// Every input line under the first class that fits it; the sum is the lines of the snapshot (reading 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Ledger {
    pub lines: u64,
    pub blank: u64,
    pub faulty: u64,
    pub tombstone: u64,
    pub future: u64,
    pub superseded: u64,
    pub deleted: u64,
    pub r#type: u64,
    pub cohort: u64,
    pub since_or_until: u64,
    pub exported: u64,
}

impl Ledger {
    /// Adds another ledger's counts.
    pub fn add(&mut self, other: &Ledger) {
        self.lines += other.lines;
        self.blank += other.blank;
        self.faulty += other.faulty;
        self.tombstone += other.tombstone;
        self.future += other.future;
        self.superseded += other.superseded;
        self.deleted += other.deleted;
        self.r#type += other.r#type;
        self.cohort += other.cohort;
        self.since_or_until += other.since_or_until;
        self.exported += other.exported;
    }

    /// Whether the classes add up to the lines.
    pub fn balances(&self) -> bool {
        let sum = self.blank
            + self.faulty
            + self.tombstone
            + self.future
            + self.superseded
            + self.deleted
            + self.r#type
            + self.cohort
            + self.since_or_until
            + self.exported;
        sum == self.lines
    }
}

/// What the pass noticed besides, for messages.
#[derive(Clone, Debug, Default)]
pub struct Noticed {
    /// Exported rows without a usable lastUpdated, or such rows left out by policy.
    pub undated: u64,
    /// Rows of the snapshot whose lastUpdated is there but illegal.
    pub illegal_updated: u64,
    /// Late rows exported, or that would have been.
    pub late: u64,
    /// Faulty lines by kind.
    pub faults: Vec<u64>,
    /// References to patients by base that is not ours.
    pub foreign: Vec<(String, u64)>,
}

/// The rows of an export.
pub struct Selection {
    /// For each extent of the index the rows taken.
    pub rows: Vec<Bitmap>,
    /// Patients of the dictionary that have a current Patient row at T.
    pub present: Bitmap,
    /// The classes of all lines.
    pub ledger: Ledger,
    /// For messages.
    pub noticed: Noticed,
}

/// The question that selection asks of every row, prepared.
pub struct Filter<'a> {
    snapshot: &'a Snapshot,
    cohort: &'a Cohort,
    request: &'a ExportRequest,
    types: [bool; ResourceType::COUNT],
}

impl<'a> Filter<'a> {
    /// Prepares a request against a snapshot.
    pub fn new(snapshot: &'a Snapshot, cohort: &'a Cohort, request: &'a ExportRequest) -> Filter<'a> {
        let mut types = [request.types.is_empty(); ResourceType::COUNT];
        request.types.iter().for_each(|t| types[t.index()] = true);
        Filter { snapshot, cohort, request, types }
    }

    fn at(&self) -> InstantRef<'a> {
        self.snapshot.as_of().as_ref()
    }

    /// Whether `_type` lets a type through.
    pub fn wants(&self, resource_type: ResourceType) -> bool {
        self.types[resource_type.index()]
    }

    /// Whether the window lets an instant through; undated rows go by policy.
    pub fn in_window(&self, updated: Option<InstantRef<'_>>) -> bool {
        let Some(updated) = updated else {
            let bounded = self.request.since.is_some() || self.request.until.is_some();
            return !bounded || self.request.missing_last_updated == MissingLastUpdated::Include;
        };
        self.after_since(updated) && self.before_until(updated)
    }

    /// `_since`, strict.
    pub fn after_since(&self, updated: InstantRef<'_>) -> bool {
        self.request.since.as_ref().is_none_or(|since| updated > since.as_ref())
    }

    /// `_until`, strict.
    pub fn before_until(&self, updated: InstantRef<'_>) -> bool {
        self.request.until.as_ref().is_none_or(|until| updated < until.as_ref())
    }

    /// Whether the rows of an extent are late under the request's `_since`.
    pub fn is_late(&self, extent: usize) -> bool {
        self.request.since.as_ref().is_some_and(|since| self.snapshot.is_late(extent, since))
    }

    /// Whether a row is in the compartment of a member (COMP-04), Provenance through its targets (COMP-08), as of an
    /// instant and among the extents that `known` lets through.
    pub fn belongs(
        &self,
        extent: usize,
        row: usize,
        at: InstantRef<'_>,
        known: &dyn Fn(usize) -> bool,
        asked: &mut Asked,
    ) -> bool {
        let Some(patients) = &self.cohort.patients else { return true };
        let index = self.snapshot.index();
        let columns = index.extents()[extent].columns();
        let resource_type = columns.type_of(row);
        if resource_type == ResourceType::GROUP {
            // Other members' names would leak (COMP-09): only the Group asked for, and only if it is named by type.
            return self.cohort.group_row == Some((extent, row)) && !self.request.types.is_empty();
        }
        let merged = index.merged();
        let first = index.starts().owner[extent];
        let own = columns
            .owners_of(row)
            .iter()
            .any(|owner| patients.contains(merged.owner_patient[first + *owner as usize] as usize));
        own || resource_type == ResourceType::PROVENANCE && self.belongs_by_target(extent, row, at, known, asked)
    }

    fn belongs_by_target(
        &self,
        extent: usize,
        row: usize,
        at: InstantRef<'_>,
        known: &dyn Fn(usize) -> bool,
        asked: &mut Asked,
    ) -> bool {
        if asked.contains(&(extent, row)) {
            return false;
        }
        asked.push((extent, row));
        let index = self.snapshot.index();
        let columns = index.extents()[extent].columns();
        let merged = index.merged();
        columns.targets_of(row).any(|target| {
            let base = index.base_number(extent, columns.target_base[target] & BASE_BITS);
            if !self.cohort.ours[base as usize] {
                return false;
            }
            // The versions of the target, oldest first; the last one at that instant decides, deleted or not: what
            // was told of a record stays with those who were told of the record.
            let mut record = merged.target_head[index.starts().target[extent] + target] as usize;
            let mut last = None;
            while record != 0 {
                let number = record - 1;
                if number < index.rows() {
                    let (extent, row) = index.locate(number);
                    if index.extents()[extent].columns().updated_of(row).is_some_and(|updated| updated > at) {
                        break;
                    }
                    if self.snapshot.sees(extent) && known(extent) {
                        last = Some(Last::Row(extent, row));
                    }
                } else {
                    // A version that has left a packed store is known by the deletion that ended it.
                    let (extent, entry) = index.locate_tombstone(number - index.rows());
                    let left = index.extents()[extent].columns().left_of(entry);
                    let told = left.filter(|left| {
                        let updated = InstantRef { ticks: left.updated, rest: &[] };
                        !left.followed
                            && updated <= at
                            && self.snapshot.sees(extent)
                            && last.as_ref().is_none_or(|last| last.is_before(index, left))
                    });
                    last = told.map(|left| Last::Left(extent, left)).or(last);
                }
                record = merged.next[number] as usize;
            }
            match last {
                Some(Last::Row(extent, row)) => self.belongs(extent, row, at, known, asked),
                Some(Last::Left(extent, left)) => self.owns_left(extent, &left),
                None => false,
            }
        })
    }

    /// Whether a version that has left, as a DELETE entry of an extent remembers it, was a member's.
    pub fn owns_left(&self, extent: usize, left: &Left<'_>) -> bool {
        let Some(patients) = &self.cohort.patients else { return true };
        let index = self.snapshot.index();
        let owner_patient = &index.merged().owner_patient[index.starts().owner[extent]..];
        left.owners().any(|owner| patients.contains(owner_patient[owner] as usize))
    }

    /// A Provenance that belongs at T but did not at `_since`, because what it is about came or changed hands later,
    /// is new to the reader whatever its own lastUpdated (CONS-05).
    fn newly_belongs(&self, extent: usize, row: usize) -> bool {
        let Some(since) = &self.request.since else { return false };
        if self.cohort.patients.is_none() {
            return false;
        }
        let then_known = |extent: usize| !self.is_late(extent);
        !self.belongs(extent, row, since.as_ref(), &then_known, &mut Asked::new())
    }
}

/// The last version of a Provenance's target that was met.
enum Last<'a> {
    /// A row: extent and row.
    Row(usize, usize),
    /// One that has left, as a DELETE entry of an extent remembers it.
    Left(usize, Left<'a>),
}

impl Last<'_> {
    /// Whether it is older than a version that has left.
    fn is_before(&self, index: &Index, left: &Left<'_>) -> bool {
        match self {
            Last::Row(extent, row) => index.extents()[*extent].columns().last_updated[*row] < left.updated,
            Last::Left(_, known) => known.updated < left.updated,
        }
    }
}

/// What one extent contributes.
struct Part {
    rows: Bitmap,
    present: Vec<u32>,
    ledger: Ledger,
    undated: u64,
    illegal_updated: u64,
    late: u64,
}

impl Selection {
    /// Selects. Runs on the current rayon pool.
    pub fn new(snapshot: &Snapshot, cohort: &Cohort, request: &ExportRequest) -> Selection {
        let filter = Filter::new(snapshot, cohort, request);
        let index = snapshot.index();
        let parts: Vec<Part> = (0..index.extent_count())
            .into_par_iter()
            .map(|extent| match snapshot.sees(extent) {
                true => filter.extent(extent),
                false => Part::empty(index.extents()[extent].rows()),
            })
            .collect();
        let mut selection = Selection {
            rows: Vec::with_capacity(parts.len()),
            present: Bitmap::new(index.patients()),
            ledger: Ledger::default(),
            noticed: Noticed { faults: vec![0; FaultKind::ALL.len()], ..Noticed::default() },
        };
        for part in parts {
            selection.ledger.add(&part.ledger);
            selection.noticed.undated += part.undated;
            selection.noticed.illegal_updated += part.illegal_updated;
            selection.noticed.late += part.late;
            part.present.iter().for_each(|patient| {
                selection.present.insert(*patient as usize);
            });
            selection.rows.push(part.rows);
        }
        let mut foreign = vec![0; index.bases().len()];
        for extent in snapshot.extents() {
            let columns = index.extents()[extent].columns();
            columns.fault_count.iter().zip(&mut selection.noticed.faults).for_each(|(count, sum)| *sum += count);
            for (base, count) in columns.base_count.iter().enumerate() {
                foreign[index.base_number(extent, base as u32) as usize] += count;
            }
        }
        selection.noticed.foreign = (0..foreign.len())
            .filter(|base| !cohort.ours[*base] && foreign[*base] > 0)
            .map(|base| (index.bases()[base].clone(), foreign[base]))
            .collect();
        selection
    }
}

impl Part {
    fn empty(rows: usize) -> Part {
        Part {
            rows: Bitmap::new(rows),
            present: Vec::new(),
            ledger: Ledger::default(),
            undated: 0,
            illegal_updated: 0,
            late: 0,
        }
    }
}

impl Filter<'_> {
    fn extent(&self, extent: usize) -> Part {
        let index = self.snapshot.index();
        let head = index.extents()[extent].head();
        let columns = index.extents()[extent].columns();
        let late = self.is_late(extent);
        let mut part = Part::empty(columns.offset.len());
        part.ledger = Ledger {
            lines: head.lines,
            blank: head.blank,
            faulty: head.faulty,
            tombstone: head.tombstone_lines,
            ..Ledger::default()
        };
        let merged = index.merged();
        let next = &merged.next[index.starts().row[extent]..];
        let owner_patient = &merged.owner_patient[index.starts().owner[extent]..][..columns.owner_hash.len()];
        // Membership of the extent's own owners, once each, so that the loop below asks a small array.
        let members: Vec<bool> = match &self.cohort.patients {
            Some(patients) => owner_patient.iter().map(|patient| patients.contains(*patient as usize)).collect(),
            None => Vec::new(),
        };
        let at = self.at();
        let known = |_| true;
        for row in 0..columns.offset.len() {
            let updated = columns.updated_of(row);
            part.illegal_updated += u64::from(columns.flags[row] & flag::ILLEGAL_UPDATED != 0);
            if updated.is_some_and(|updated| updated > at) {
                part.ledger.future += 1;
                continue;
            }
            if next[row] != 0 {
                match self.snapshot.state(extent, row, at, &self.cohort.ours, &known) {
                    State::Current => {}
                    State::Future => unreachable!("asked above"),
                    State::Superseded => {
                        part.ledger.superseded += 1;
                        continue;
                    }
                    State::Deleted => {
                        part.ledger.deleted += 1;
                        continue;
                    }
                }
            }
            let resource_type = columns.type_of(row);
            if resource_type == ResourceType::PATIENT {
                // A Patient row owns itself first.
                part.present.push(owner_patient[columns.owners_of(row)[0] as usize]);
            }
            if !self.wants(resource_type) {
                part.ledger.r#type += 1;
                continue;
            }
            if !self.in_cohort(&columns, &members, extent, row, resource_type) {
                part.ledger.cohort += 1;
                continue;
            }
            if !self.passes_window(&mut part, extent, row, resource_type, updated, late) {
                part.ledger.since_or_until += 1;
                continue;
            }
            part.ledger.exported += 1;
            part.rows.insert(row);
        }
        part
    }

    fn in_cohort(
        &self,
        columns: &Columns<'_>,
        members: &[bool],
        extent: usize,
        row: usize,
        resource_type: ResourceType,
    ) -> bool {
        match (&self.request.population, resource_type) {
            (Population::System, _) => true,
            (_, ResourceType::GROUP | ResourceType::PROVENANCE) => {
                self.belongs(extent, row, self.at(), &|_| true, &mut Asked::new())
            }
            _ => columns.owners_of(row).iter().any(|owner| members[*owner as usize]),
        }
    }

    fn passes_window(
        &self,
        part: &mut Part,
        extent: usize,
        row: usize,
        resource_type: ResourceType,
        updated: Option<InstantRef<'_>>,
        late: bool,
    ) -> bool {
        let Some(updated) = updated else {
            part.undated += 1;
            return self.in_window(None);
        };
        if self.after_since(updated) {
            return self.before_until(updated);
        }
        if !self.before_until(updated) {
            return false;
        }
        if late {
            part.late += 1;
            return self.request.late == Late::Include;
        }
        resource_type == ResourceType::PROVENANCE && self.newly_belongs(extent, row)
    }
}

/// Whether an instant is later than T, for a request's own `_since` (SINCE-03).
pub fn is_future(since: &Instant, snapshot: &Snapshot) -> bool {
    since > snapshot.as_of()
}
