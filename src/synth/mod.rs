//! Makes benchmark stores of any size out of the bundled Synthea patients.
//!
//! Patient k is a copy of seed patient k mod 100 under new ids: every UUID of the patient's resources is replaced,
//! consistently in every reference; hospitals and practitioners are shared. Times are drawn evenly between
//! 2012 and 2025, so the share of rows after an instant is known beforehand. The same seed gives the same bytes on any
//! machine and any number of threads. Nothing is held but the seed (52 MB) and, in order of arrival, a window of events.

pub(crate) mod event;
pub(crate) mod rename;
pub(crate) mod seed;
pub(crate) mod store;
pub(crate) mod time;

use std::path::PathBuf;

use crate::sys::atomic_dir::AtomicDirError;
use crate::sys::durability::FileSync;

/// In what order rows stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SynthOrder {
    /// All rows of a patient together, patients one after another.
    #[default]
    Clustered,
    /// As a server's log: visits of all patients by time, rows of a visit together.
    Arrival,
}

/// How rows are spread over files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A file a resource type.
    #[default]
    ByType,
    /// All types in one file.
    Mixed,
}

/// What to make.
#[derive(Clone, Debug)]
pub(crate) struct SynthOptions {
    /// The new store; not there, or an empty directory.
    pub out: PathBuf,
    /// Patients in it.
    pub patients: u64,
    /// Another seed gives other ids, times and choices.
    pub seed: u64,
    /// Order of rows.
    pub order: SynthOrder,
    /// Files.
    pub layout: Layout,
    /// Share of the patients' rows that have a later version under the same id, 0 to 1.
    pub updates: f64,
    /// Share of the patients' rows that are deleted later, 0 to 1.
    pub deletions: f64,
    /// Whether files are synced before the store appears.
    pub sync: FileSync,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SynthReport {
    /// Patients.
    pub patients: u64,
    /// Rows, second versions included.
    pub rows: u64,
    /// Second versions among them.
    pub updates: u64,
    /// Lines that delete a resource.
    pub deletions: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Ids of the Groups, and their members.
    pub groups: Vec<(String, u64)>,
}

/// Why no store was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SynthError {
    /// The place is taken or cannot be written.
    #[error(transparent)]
    Directory(#[from] AtomicDirError),
    /// The caller asked to stop.
    #[error("stopped on request")]
    Cancelled,
}
