//! The report of a pack.

use serde::Serialize;

use crate::index::report::RefreshStats;

/// What a pack came to.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PackReport {
    /// transactionTime of the pack.
    pub transaction_time: String,
    /// Lines of the store.
    pub lines: u64,
    /// Rows packed.
    pub rows: u64,
    /// Lines of deletions packed.
    pub tombstone_lines: u64,
    /// Versions that left: a later one was there.
    pub superseded: u64,
    /// Versions that left: they were deleted.
    pub deleted: u64,
    /// Lines that are no resources, in `rejected.ndjson`.
    pub rejected: u64,
    /// Blank lines that left.
    pub blank: u64,
    /// Places where compressed files of the store are damaged: what stood there is lost.
    pub damaged: u64,
    /// Where: the first [`crate::limits::PACK_DAMAGE_TOLD_MAX`] of them, each with file and byte.
    pub damage: Vec<String>,
    /// Data files.
    pub files: u64,
    /// Frames in them.
    pub frames: u64,
    /// Uncompressed bytes of the rows and deletions packed.
    pub bytes: u64,
    /// Bytes of the files.
    pub file_bytes: u64,
    /// Work on the index.
    pub index: RefreshStats,
}
