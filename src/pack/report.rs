//! Report of a pack: counts of lines, rows and files, for people and as JSON.

use serde::Serialize;

use crate::index::report::RefreshStats;
use crate::issue::IssueLog;

/// Result of a pack. Its fields are keys of the JSON report.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PackReport {
    /// T of the pack, as an instant.
    pub transaction_time: String,
    /// Lines of the old store.
    pub lines: u64,
    /// Rows written to the new store.
    pub rows: u64,
    /// Lines of deletions written.
    pub tombstone_lines: u64,
    /// Versions dropped because a later version follows them.
    pub superseded: u64,
    /// Versions dropped because a deletion follows them.
    pub deleted: u64,
    /// Faulty lines, now in `rejected.ndjson`.
    pub rejected: u64,
    /// Blank lines, which are dropped.
    pub blank: u64,
    /// Places where compressed files of the old store are damaged: the lines there are lost.
    pub damaged: u64,
    /// The first [`crate::limits::PACK_DAMAGE_TOLD_MAX`] of these places, each with file and byte.
    pub damage: Vec<String>,
    /// Files written, `rejected.ndjson` included.
    pub files: u64,
    /// Frames in the data files.
    pub frames: u64,
    /// Uncompressed bytes of the rows and deletions written.
    pub bytes: u64,
    /// Bytes of the files on disk.
    pub file_bytes: u64,
    /// What the old store gives occasion to say: files that are not read, versions that a file's name decided, and the like.
    #[serde(skip)]
    pub messages: IssueLog,
    /// How many files and directories of the old store `.outpourignore` took.
    pub excluded: u64,
    /// Work on the old store's index.
    pub index: RefreshStats,
}
