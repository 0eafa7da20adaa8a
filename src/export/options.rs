//! Options of a run, and the clock and the snapshot that it is given.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::export::chain_link::ChainLink;
use crate::export::plan_record::PlanRecord;
use crate::fhir::instant::Instant;
use crate::index::snapshot_time::SnapshotTime;
use crate::index::store_listing::StoreListing;
use crate::issue::{PLAIN_NAMES, ParameterNames};
use crate::sys::durability::FileSync;
use crate::write::file_modes::FileModes;

/// What to do with an output directory that is not empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Existing {
    /// Refuse it.
    #[default]
    Refuse,
    /// Go on with the run that its record names (CLI-04).
    Resume,
    /// Begin anew. An export that stands is left whole until the new one is planned and, where there is room, written; of
    /// the directory's files only those that a record lists are removed.
    Force,
}

/// Most faults that an export puts up with.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FaultsAllowed {
    /// So many lines.
    Count(u64),
    /// So many of a hundred lines.
    Percent(f64),
}

/// Where and how an export is written.
///
/// ```
/// use outpour::{Existing, ExportOptions, FaultsAllowed, FileSync, Instant};
/// let clock = || Instant::from(std::time::SystemTime::now());
/// let options = ExportOptions::new("out")
///     .existing(Existing::Resume)
///     .sync(FileSync::No)
///     .faults_allowed(FaultsAllowed::Percent(0.1))
///     .clock(&clock);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ExportOptions<'a> {
    /// The output directory.
    pub(crate) out: PathBuf,
    /// What to do if it is in use.
    pub(crate) existing: Existing,
    /// Whether files are synced before the manifest appears.
    pub(crate) sync: FileSync,
    /// Bound on faulty lines; any number if `None`.
    pub(crate) faults_allowed: Option<FaultsAllowed>,
    /// The time, for `status.json` only; the transactionTime if `None`.
    pub(crate) clock: Option<Clock<'a>>,
    /// How the message files speak.
    pub(crate) words: &'a ParameterNames,
    /// The chain of exports that this one is a part of.
    pub(crate) chain: Option<ChainLink>,
    /// The record of the export that an increment builds on: both must ask for the same.
    pub(crate) builds_on: Option<Arc<PlanRecord>>,
    /// Permission bits of what is published.
    pub(crate) modes: FileModes,
}

impl<'a> ExportOptions<'a> {
    /// Into this directory, which is made if it is not there: refused if it is in use, files synced, any number of faulty
    /// lines.
    pub fn new(out: impl Into<PathBuf>) -> ExportOptions<'a> {
        ExportOptions {
            out: out.into(),
            existing: Existing::default(),
            sync: FileSync::default(),
            faults_allowed: None,
            clock: None,
            words: &PLAIN_NAMES,
            chain: None,
            builds_on: None,
            modes: FileModes::default(),
        }
    }

    /// What to do if the directory is in use.
    pub fn existing(self, existing: Existing) -> ExportOptions<'a> {
        ExportOptions { existing, ..self }
    }

    /// Whether files are synced before the manifest appears.
    pub fn sync(self, sync: FileSync) -> ExportOptions<'a> {
        ExportOptions { sync, ..self }
    }

    /// Most faulty lines; with more, nothing is published ([`ExportError::Faults`](crate::error::ExportError::Faults)).
    /// Any number with `None`.
    pub fn faults_allowed(self, most: impl Into<Option<FaultsAllowed>>) -> ExportOptions<'a> {
        ExportOptions { faults_allowed: most.into(), ..self }
    }

    /// The time, for `status.json` only, which has the transactionTime in its place without. No file of the export depends
    /// on it.
    pub fn clock(self, clock: &'a (dyn Fn() -> Instant + std::marker::Sync)) -> ExportOptions<'a> {
        ExportOptions { clock: Some(clock), ..self }
    }

    /// The same into another directory.
    pub(crate) fn into_directory(self, out: PathBuf) -> ExportOptions<'a> {
        ExportOptions { out, ..self }
    }

    /// As a part of a chain, or on top of an earlier export.
    pub(crate) fn builds_on(self, record: Option<Arc<PlanRecord>>, chain: Option<ChainLink>) -> ExportOptions<'a> {
        ExportOptions { builds_on: record, chain, ..self }
    }

    /// How the message files speak; plain names unless given.
    pub(crate) fn words(self, words: &'a ParameterNames) -> ExportOptions<'a> {
        ExportOptions { words, ..self }
    }

    /// Permission bits of what is published; 0600 and 0700 unless given.
    pub(crate) fn modes(self, modes: FileModes) -> ExportOptions<'a> {
        ExportOptions { modes, ..self }
    }
}

impl fmt::Debug for ExportOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExportOptions { out, existing, sync, faults_allowed, clock: _, words: _, chain: _, builds_on: _, modes: _ } =
            self;
        let mut shown = f.debug_struct("ExportOptions");
        shown.field("out", out).field("existing", existing).field("sync", sync).field("faults_allowed", faults_allowed);
        shown.finish_non_exhaustive()
    }
}

/// What moment of a store an export sees.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotRequest {
    /// The transactionTime, or the clock that it is to be chosen by.
    pub time: SnapshotTime,
    /// What the store held when it was asked; what it holds when the export begins if `None`.
    pub view: Option<StoreListing>,
}

/// A clock, for `status.json` only.
pub(crate) type Clock<'a> = &'a (dyn Fn() -> Instant + std::marker::Sync);
