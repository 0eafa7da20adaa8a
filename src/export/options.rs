//! Options of a run, and the clock and the snapshot that it is given.

use std::path::PathBuf;

use crate::fhir::instant::Instant;
use crate::index::store_listing::StoreListing;
use crate::issue::ParameterNames;
use crate::sys::durability::FileSync;

/// What to do with an output directory that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse it.
    Refuse,
    /// Go on with the run that its record names (CLI-04).
    Resume,
    /// Begin anew. An export that stands is left whole until the new one is planned and, where there is room, written; of
    /// the directory's files only those that a record lists are removed.
    Force,
}

/// Most faults that an export puts up with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultsAllowed {
    /// So many lines.
    Count(u64),
    /// So many of a hundred lines.
    Percent(f64),
}

/// Where and how an export is written.
pub struct ExportOptions<'a> {
    /// The output directory.
    pub out: PathBuf,
    /// What to do if it is in use.
    pub existing: Existing,
    /// Whether files are synced before the manifest appears.
    pub sync: FileSync,
    /// Bound on faulty lines, if any.
    pub faults_allowed: Option<FaultsAllowed>,
    /// The time, for `status.json` only.
    pub clock: Clock<'a>,
    /// How the message files speak.
    pub words: &'a ParameterNames,
}

/// What moment of a store an export sees.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotRequest {
    /// The transactionTime.
    pub as_of: Instant,
    /// What the store held when it was asked; what it holds when the export begins if `None`.
    pub view: Option<StoreListing>,
}

/// A clock, for `status.json` only.
pub(crate) type Clock<'a> = &'a (dyn Fn() -> Instant + std::marker::Sync);
