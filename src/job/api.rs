//! What the engine is given, and what it answers: options and bounds, kick-offs taken and refused, jobs and files as their
//! owners see them. How it comes to its answers is not here.

use std::path::PathBuf;
use std::sync::Arc;

use crate::export::options::FaultsAllowed;
use crate::fhir::instant::Instant;
use crate::issue::ParameterNames;
use crate::job::record::{JobRecord, PlannedCounts};
use crate::job::state::JobState;
use crate::store::Store;
use crate::sys::durability::FileSync;

/// Bounds of what the engine takes on.
#[derive(Clone, Debug)]
pub(crate) struct JobLimits {
    /// Jobs of one client that may wait or run (KICK-12).
    pub active_per_client: usize,
    /// Jobs that may wait or run.
    pub active: usize,
    /// Times that a shard is tried.
    pub attempts: u32,
    /// How long an expired job is remembered, in seconds (STATUS-13).
    pub remembered_seconds: u64,
    /// Share of the disk, in hundredths, from which on no job is taken (EXPIRE-03).
    pub disk_high_water: u8,
    /// More faulty lines than this fail a job (CONS-10).
    pub faults_allowed: Option<FaultsAllowed>,
}

impl Default for JobLimits {
    fn default() -> JobLimits {
        JobLimits {
            active_per_client: 10,
            active: 100,
            attempts: 3,
            remembered_seconds: 24 * 3600,
            disk_high_water: 95,
            faults_allowed: None,
        }
    }
}

/// How an engine is opened.
pub(crate) struct EngineOptions {
    /// The store.
    pub store: Store,
    /// Directory of the records.
    pub records: PathBuf,
    /// Directory of the jobs' directories.
    pub files: PathBuf,
    /// Threads that work.
    pub threads: usize,
    /// Bounds.
    pub limits: JobLimits,
    /// Whether records and files are synced before anybody is told of them.
    pub sync: FileSync,
    /// The time.
    pub clock: Box<dyn Fn() -> Instant + Send + std::marker::Sync>,
    /// Random bytes, from a source fit for secrets.
    pub random: Box<dyn Fn() -> [u8; 16] + Send + std::marker::Sync>,
    /// How the message files speak.
    pub words: &'static ParameterNames,
}

/// An engine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// A directory cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("another outpour serves from {}", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The records are not those of the files.
    #[error("the records in {} are not those of the files in {}", records.display(), files.display())]
    Strangers {
        /// Directory of the files.
        files: PathBuf,
        /// Directory of the records.
        records: PathBuf,
    },
    /// The index cannot be kept.
    #[error("the index directory {} cannot be written: a service needs an index that lasts", path.display())]
    Index {
        /// The directory.
        path: PathBuf,
    },
    /// Threads cannot be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
}

/// A kick-off that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcceptedJob {
    /// The job.
    pub id: String,
    /// Its transactionTime.
    pub transaction_time: Instant,
}

/// A kick-off that was not taken. No job was made (KICK-10).
#[derive(Debug)]
pub(crate) enum KickOffError {
    /// The client has as many active jobs as it may; so many.
    ClientBusy(usize),
    /// There are as many active jobs as there may be.
    Busy,
    /// The disk of the files, or of the records, is too full (EXPIRE-03).
    DiskFull,
    /// The service is stopping.
    Stopping,
    /// The record cannot be written.
    Unwritable(std::io::Error),
}

/// What became of a job.
pub(crate) enum JobLookup {
    /// It is there.
    Job(JobView),
    /// It was, and its files are gone.
    Expired,
    /// Nobody knows it, or not by this client on this mount.
    Unknown,
}

/// A job as its owner may see it.
#[derive(Clone)]
pub(crate) struct JobView {
    /// Its record.
    pub record: Arc<JobRecord>,
    /// How much is done, in hundredths; 100 only when it has ended.
    pub percent: u8,
    /// Seconds that it may still take, as far as that can be told.
    pub seconds_left: Option<u64>,
    /// Whether it was asked for before, since the engine was opened.
    pub asked_before: bool,
    /// How much it has to do and has done, once that is known.
    pub planned: Option<PlannedCounts>,
    /// When something about it changed last; never before its T.
    pub changed: Instant,
}

/// What became of the wish to try a failed job again (C-03).
#[derive(Debug)]
pub(crate) enum RetryOutcome {
    /// It waits for its turn, with its T and the files that it has finished.
    Accepted,
    /// It has not failed: it is in this state.
    NotFailed(JobState),
    /// Nobody knows it, or not by this client on this mount.
    Unknown,
}

/// A file of a finished job.
#[derive(Clone)]
pub(crate) struct FileView {
    /// The job.
    pub record: Arc<JobRecord>,
    /// Its number among the record's files.
    pub at: usize,
    /// The directory of all jobs' files.
    pub root: PathBuf,
    /// Where in it this one lies, reached without following a link.
    pub place: String,
}
