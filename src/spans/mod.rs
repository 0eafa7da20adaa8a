//! Spans: what a plan selects, written down so that it outlives the index it was made from.
//!
//! A file of spans has the rows of one output file as ranges of store files, the identity of each store file, and sums that
//! prove it whole (`span_file` has the format, `span_block` its blocks). `plan_spans` writes it from a plan; `span_sources`
//! opens the store files that it names. Whoever copies by spans needs neither index nor Group.

pub(crate) mod plan_spans;
pub(crate) mod span_block;
pub(crate) mod span_file;
pub(crate) mod span_sources;

use crate::ids::FileId;

/// Consecutive rows of a store file: one, or several that follow one another with a newline between them and nothing else.
/// `start` and `length` are uncompressed bytes, without the line end of the last row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowSpan {
    /// The store file.
    pub(crate) file: FileId,
    /// Offset of the first row.
    pub(crate) start: u64,
    /// Bytes from there to the end of the last row.
    pub(crate) length: u64,
    /// Number of rows.
    pub(crate) rows: u32,
    /// Whether white space precedes the `{`; such a row is alone.
    pub(crate) spaced: bool,
    /// Whether it is the first span of its segment of the index. Frames of different segments are never compressed again
    /// together, so that the bytes of an output do not depend on who writes it.
    pub(crate) begins_segment: bool,
}
