//! Synthesises benchmark stores of any size from the bundled Synthea patients.
//!
//! Patient k is a copy of seed patient k mod 100 under new ids: every UUID of the patient's resources is replaced,
//! consistently in every reference; hospitals and practitioners are shared. Times are spread evenly between 2012 and
//! 2025, so the share of rows after an instant is known beforehand. The same seed gives the same bytes on any machine
//! and any number of threads. Memory: the seed (52 MB) and, in order of arrival, a window of events.

pub(crate) mod event;
pub(crate) mod rename;
pub(crate) mod seed;
pub(crate) mod store;
pub(crate) mod time;

use std::path::PathBuf;

use crate::sys::atomic_dir::AtomicDirError;
use crate::sys::durability::FileSync;

/// Order of the rows in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SynthOrder {
    /// All rows of a patient together, one patient after another.
    #[default]
    Clustered,
    /// Order of a server's log: visits of all patients by time, the rows of a visit together.
    Arrival,
}

/// Distribution of the rows over files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One file a resource type.
    #[default]
    ByType,
    /// All types in one file.
    Mixed,
}

/// Size, shape and place of the store to make.
#[derive(Clone, Debug)]
pub(crate) struct SynthOptions {
    /// The new store: a directory that does not exist, or an empty one.
    pub out: PathBuf,
    /// Number of patients to make.
    pub patients: u64,
    /// Seed of all ids, times and choices.
    pub seed: u64,
    /// Order of the rows.
    pub order: SynthOrder,
    /// Distribution of the rows over files.
    pub layout: Layout,
    /// Share of the patients' rows that get a second version under the same id, 0 to 1.
    pub updates: f64,
    /// Share of the patients' rows that are deleted later, 0 to 1.
    pub deletions: f64,
    /// Whether files are synced before the store appears under its name.
    pub sync: FileSync,
}

/// Result of a synthesis. Its fields are keys of the JSON report.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SynthReport {
    /// Number of patients made.
    pub patients: u64,
    /// Rows in the store, second versions included.
    pub rows: u64,
    /// Second versions among the rows.
    pub updates: u64,
    /// Lines that delete a resource; they are no rows.
    pub deletions: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Id of each Group and its number of members.
    pub groups: Vec<(String, u64)>,
}

/// Failure of a synthesis; no store appears.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SynthError {
    /// The target directory is not empty, or cannot be written.
    #[error(transparent)]
    Directory(#[from] AtomicDirError),
    /// The caller asked to stop.
    #[error("stopped on request")]
    Cancelled,
}
