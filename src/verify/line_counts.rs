//! Counts of the lines of a store by kind, as the reference implementation classifies them.

use serde::Serialize;

/// Numbers of lines by kind; the fields are keys of a JSON report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub(crate) struct LineCounts {
    pub lines: u64,
    pub blank: u64,
    pub faulty: u64,
    pub tombstone: u64,
    pub rows: u64,
    /// Lines too long to be held, which only the scanner has read; they are counted under their kind, too.
    pub long: u64,
}

impl LineCounts {
    /// Adds the counts of another segment.
    pub(crate) fn add(&mut self, other: &LineCounts) {
        self.lines += other.lines;
        self.blank += other.blank;
        self.faulty += other.faulty;
        self.tombstone += other.tombstone;
        self.rows += other.rows;
        self.long += other.long;
    }
}
