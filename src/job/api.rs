//! Types at the boundary of the job engine: its options and bounds, the outcomes of kick-offs and retries, and the
//! views of jobs and files that their owners get. The operations themselves are methods of `engine::JobEngine`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::export::options::FaultsAllowed;
use crate::fhir::instant::Instant;
use crate::issue::ParameterNames;
use crate::job::record::{JobRecord, PlannedCounts};
use crate::job::space_account::SpaceAccount;
use crate::job::state::JobState;
use crate::store::Store;
use crate::sys::disk::DiskSpace;
use crate::sys::durability::FileSync;

/// Bounds on the jobs that an engine accepts, and on each job.
#[derive(Clone, Debug)]
pub(crate) struct JobLimits {
    /// Jobs of one client that may wait or run (KICK-12).
    pub active_per_client: usize,
    /// Jobs of all clients that may wait or run at once (KICK-12).
    pub active: usize,
    /// Attempts to write one shard, the first included.
    pub attempts: u32,
    /// How long the record of an expired job is kept, in seconds (STATUS-13).
    pub remembered_seconds: u64,
    /// How long the files of a failed job are kept for another try, in seconds.
    pub failed_seconds: u64,
    /// Used share of a disk, in hundredths, at and above which kick-offs are refused (EXPIRE-03).
    pub disk_high_water: u8,
    /// How long a job whose files have no room on the disk waits before it fails, in seconds.
    pub space_wait_seconds: u64,
    /// Share of the disk, in hundredths, that the files of one client may take; 100 for no bound.
    pub client_disk_share: u8,
    /// Exports of a Group by a client whose patients are kept for increments, the newest ones.
    pub kept_baselines: usize,
    /// A job with more faulty lines fails (CONS-10); `None` allows any number.
    pub faults_allowed: Option<FaultsAllowed>,
}

impl Default for JobLimits {
    fn default() -> JobLimits {
        JobLimits {
            active_per_client: 10,
            active: 100,
            attempts: 3,
            remembered_seconds: 24 * 3600,
            failed_seconds: 24 * 3600,
            disk_high_water: 95,
            space_wait_seconds: 3600,
            client_disk_share: 80,
            kept_baselines: 40,
            faults_allowed: None,
        }
    }
}

/// Gives size and free space of the disk that holds a directory.
pub(crate) type DiskSpaceSource = Box<dyn Fn(&Path) -> std::io::Result<DiskSpace> + Send + std::marker::Sync>;

/// How a job engine is opened: directories, threads, bounds, and its sources of time and randomness.
pub(crate) struct EngineOptions {
    /// The store that is exported from.
    pub store: Store,
    /// Directory of the records, one file per job; made if missing.
    pub records: PathBuf,
    /// Directory of the jobs' directories; made if missing.
    pub files: PathBuf,
    /// Threads of the pool; also the number of job workers, of which there are at least two.
    pub threads: usize,
    /// Bounds on accepted jobs.
    pub limits: JobLimits,
    /// Whether records and files are synced before a response reports them.
    pub sync: FileSync,
    /// Size and free space of the disk that holds a directory.
    pub disk_space: DiskSpaceSource,
    /// What jobs have reserved on the disk; engines of one process share it.
    pub space: Arc<SpaceAccount>,
    /// Source of the current time.
    pub clock: Box<dyn Fn() -> Instant + Send + std::marker::Sync>,
    /// Random bytes, from a source fit for secrets.
    pub random: Box<dyn Fn() -> [u8; 16] + Send + std::marker::Sync>,
    /// Names of parameters in the message files of exports.
    pub words: &'static ParameterNames,
}

/// Reason why a job engine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// A directory cannot be made, opened, read or written.
    #[error("cannot use {}: {source}", path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the operating system answered.
        source: std::io::Error,
    },
    /// Another process holds the lock of the directory of records.
    #[error("another outpour serves from {}", path.display())]
    Busy {
        /// The directory of records.
        path: PathBuf,
    },
    /// The two directories bear different marks: the records are of other files.
    #[error("the records in {} are not those of the files in {}", records.display(), files.display())]
    Strangers {
        /// Directory of the jobs' directories.
        files: PathBuf,
        /// Directory of the job records.
        records: PathBuf,
    },
    /// The index directory cannot be written; a service needs an index that lasts.
    #[error("the index directory {} cannot be written: a service needs an index that lasts", path.display())]
    Index {
        /// The index directory that cannot be written.
        path: PathBuf,
    },
    /// The operating system refuses to start threads; its message.
    #[error("cannot start threads: {0}")]
    Threads(String),
}

/// Outcome of an accepted kick-off; its record is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcceptedJob {
    /// Id of the new job.
    pub id: String,
    /// The transactionTime of the job.
    pub transaction_time: Instant,
}

/// Reason of a refused kick-off or retry. No job was made or changed (KICK-10).
#[derive(Debug)]
pub(crate) enum KickOffError {
    /// The client has as many active jobs as it may have; that number.
    ClientBusy(usize),
    /// All clients together have as many active jobs as there may be.
    Busy,
    /// The disk of the files, or of the records, is too full (EXPIRE-03).
    DiskFull,
    /// The engine is stopping.
    Stopping,
    /// The record, or a file that belongs to it, cannot be written.
    Unwritable(std::io::Error),
}

/// Outcome of looking a job up by its id.
pub(crate) enum JobLookup {
    /// The job exists and has not expired.
    Job(JobView),
    /// The job has expired: its files are gone, its record is still kept.
    Expired,
    /// There is no such job of this client on this mount.
    Unknown,
}

/// A job as its owner may see it, at one moment.
#[derive(Clone)]
pub(crate) struct JobView {
    /// The record of the job.
    pub record: Arc<JobRecord>,
    /// Share of the work that is done, in hundredths; 100 only when the job has ended.
    pub percent: u8,
    /// Estimated seconds to the end; `None` before the first hundredth is done in this process.
    pub seconds_left: Option<u64>,
    /// Whether the job is planned and waits for room on the disk.
    pub awaits_space: bool,
    /// Whether the job was looked up before, since the engine was opened.
    pub asked_before: bool,
    /// Resources and shards, planned and complete; `None` before the job is planned.
    pub planned: Option<PlannedCounts>,
    /// Time of the last change; never before the job's transactionTime.
    pub changed: Instant,
}

/// Outcome of a request to retry a failed job (C-03).
#[derive(Debug)]
pub(crate) enum RetryOutcome {
    /// The job is queued again, with its transactionTime and the files that it has finished.
    Accepted,
    /// The job has not failed; its state.
    NotFailed(JobState),
    /// Its files were removed, and what it began with is no longer to be had: the store has changed since.
    SnapshotGone,
    /// There is no such job of this client on this mount, or it has expired.
    Unknown,
}

/// A file of a complete job, as found by its id.
#[derive(Clone)]
pub(crate) struct FileView {
    /// The record of the job that the file is of.
    pub record: Arc<JobRecord>,
    /// Index of the file in `record.files`; one beyond the last for `record.departed`.
    pub at: usize,
    /// The directory of all jobs' directories.
    pub root: PathBuf,
    /// Path of the file relative to `root`; to be opened without following links.
    pub place: String,
}
