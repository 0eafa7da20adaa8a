//! The ledger of an export: every line of the store in exactly one class (reading 10), for a segment and for the whole.

use serde::Deserialize;
use serde::Serialize;

use crate::index::segment::layout::SegmentHeader;
use crate::select::row_set::RowSet;

/// The class of a row in the ledger: the first that fits it (reading 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum RowClass {
    Future,
    Superseded,
    Deleted,
    Type,
    Cohort,
    SinceOrUntil,
    Exported,
}

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

/// What a part of the store contributes.
#[derive(Default)]
pub(crate) struct SegmentSelection {
    /// Rows taken.
    pub rows: RowSet,
    /// Patients that have a current Patient row.
    pub present: Vec<u32>,
    /// Classes of the lines.
    pub ledger: Ledger,
    /// See [`Noticed::undated`].
    pub undated: u64,
    /// See [`Noticed::illegal_updated`].
    pub illegal_updated: u64,
    /// See [`Noticed::late`].
    pub late: u64,
}

impl SegmentSelection {
    /// What the header of a segment says.
    pub(crate) fn of_header(head: &SegmentHeader) -> SegmentSelection {
        let mut part = SegmentSelection::default();
        part.add_header(head);
        part
    }

    /// Adds what the header of a segment says.
    pub(crate) fn add_header(&mut self, head: &SegmentHeader) {
        self.ledger.lines += head.lines;
        self.ledger.blank += head.blank;
        self.ledger.faulty += head.faulty;
        self.ledger.tombstone += head.tombstone_lines;
        self.illegal_updated += head.illegal_updated;
    }

    /// Counts a row under its class.
    pub(crate) fn count_row(&mut self, class: RowClass) {
        let ledger = &mut self.ledger;
        *match class {
            RowClass::Future => &mut ledger.future,
            RowClass::Superseded => &mut ledger.superseded,
            RowClass::Deleted => &mut ledger.deleted,
            RowClass::Type => &mut ledger.r#type,
            RowClass::Cohort => &mut ledger.cohort,
            RowClass::SinceOrUntil => &mut ledger.since_or_until,
            RowClass::Exported => &mut ledger.exported,
        } += 1;
    }
}
