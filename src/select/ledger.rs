//! The ledger of an export: every input line counted in exactly one class (reading 10).
//!
//! [`SegmentSelection`] is the result of selecting in one segment: rows, ledger and counts for messages. This module
//! counts; `classifier` and the access paths decide the classes.

use serde::Deserialize;
use serde::Serialize;

use crate::ids::PatientId;
use crate::index::segment::layout::SegmentHeader;
use crate::select::row_set::RowSet;

/// The class of a row in the ledger: the first of these, in this order, that applies to it (reading 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum RowClass {
    Future,
    Superseded,
    Deleted,
    Type,
    Cohort,
    SinceOrUntil,
    TypeFilter,
    Exported,
}

/// Numbers of input lines by the first class that applies to each; the classes add up to `lines`, the lines of the
/// snapshot (reading 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Ledger {
    pub lines: u64,
    pub blank: u64,
    pub faulty: u64,
    /// Lines of files without FHIR. Left out where there are none, as in manifests of versions that did not count them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_fhir: u64,
    pub tombstone: u64,
    pub future: u64,
    pub superseded: u64,
    pub deleted: u64,
    pub r#type: u64,
    pub cohort: u64,
    pub since_or_until: u64,
    /// Rows that meet no filter of their type. Left out where there are none, as in manifests of versions without filters.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub type_filter: u64,
    pub exported: u64,
}

/// Whether a count is left out of a document.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Ledger {
    /// Adds the counts of another ledger, class by class.
    pub fn add(&mut self, other: &Ledger) {
        self.lines += other.lines;
        self.blank += other.blank;
        self.faulty += other.faulty;
        self.not_fhir += other.not_fhir;
        self.tombstone += other.tombstone;
        self.future += other.future;
        self.superseded += other.superseded;
        self.deleted += other.deleted;
        self.r#type += other.r#type;
        self.cohort += other.cohort;
        self.since_or_until += other.since_or_until;
        self.type_filter += other.type_filter;
        self.exported += other.exported;
    }

    /// Moves a line of a class to those that are exported.
    pub(crate) fn export_one_of(&mut self, class: RowClass) {
        let count = match class {
            RowClass::Future => &mut self.future,
            RowClass::Superseded => &mut self.superseded,
            RowClass::Deleted => &mut self.deleted,
            RowClass::Type => &mut self.r#type,
            RowClass::Cohort => &mut self.cohort,
            RowClass::SinceOrUntil => &mut self.since_or_until,
            RowClass::TypeFilter => &mut self.type_filter,
            RowClass::Exported => return,
        };
        *count -= 1;
        self.exported += 1;
    }

    /// Whether the classes add up to `lines`.
    pub fn balances(&self) -> bool {
        let sum = self.blank
            + self.faulty
            + self.not_fhir
            + self.tombstone
            + self.future
            + self.superseded
            + self.deleted
            + self.r#type
            + self.cohort
            + self.since_or_until
            + self.type_filter
            + self.exported;
        sum == self.lines
    }
}

/// Result of selecting in one segment, or in the whole store when postings are scanned.
#[derive(Default)]
pub(crate) struct SegmentSelection {
    /// Exported rows of the segment; empty when postings are scanned, which return rows apart.
    pub rows: RowSet,
    /// Patients (numbers in the dictionary) that have a current Patient row here.
    pub present: Vec<PatientId>,
    /// Classes of the lines of the segment.
    pub ledger: Ledger,
    /// As [`SelectionStats::undated`](crate::select::selection::SelectionStats::undated).
    pub undated: u64,
    /// As [`SelectionStats::illegal_updated`](crate::select::selection::SelectionStats::illegal_updated).
    pub illegal_updated: u64,
    /// As [`SelectionStats::late`](crate::select::selection::SelectionStats::late).
    pub late: u64,
}

impl SegmentSelection {
    /// A ledger begun with the line counts of a segment's header; no row is selected yet.
    pub(crate) fn of_header(header: &SegmentHeader) -> SegmentSelection {
        let mut part = SegmentSelection::default();
        part.add_header(header);
        part
    }

    /// Ledger: adds the lines that a segment's header counts (all, blank, faulty, tombstones), and illegal lastUpdated.
    pub(crate) fn add_header(&mut self, header: &SegmentHeader) {
        self.ledger.lines += header.lines;
        self.ledger.blank += header.blank;
        self.ledger.faulty += header.faulty;
        self.ledger.tombstone += header.tombstone_lines;
        self.illegal_updated += header.illegal_updated;
    }

    /// Ledger: counts one row in its class.
    pub(crate) fn count_row(&mut self, class: RowClass) {
        let ledger = &mut self.ledger;
        *match class {
            RowClass::Future => &mut ledger.future,
            RowClass::Superseded => &mut ledger.superseded,
            RowClass::Deleted => &mut ledger.deleted,
            RowClass::Type => &mut ledger.r#type,
            RowClass::Cohort => &mut ledger.cohort,
            RowClass::SinceOrUntil => &mut ledger.since_or_until,
            RowClass::TypeFilter => &mut ledger.type_filter,
            RowClass::Exported => &mut ledger.exported,
        } += 1;
    }
}
