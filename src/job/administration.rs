//! What the operator of a service may do with jobs, whoever's they are: of a running engine, and of the directories of a service
//! that is stopped.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::job::engine::JobEngine;
use crate::job::job_end;
use crate::job::overview::JobOverview;
use crate::job::record::is_job_id;
use crate::job::record_directory::{RecordDirectory, RecordListing};
use crate::job::registry::Job;
use crate::job::state::JobState;
use crate::job::store_state::LOCK;
use crate::job::worker;
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;

impl JobEngine {
    /// All jobs, those that have expired included, by time of kick-off.
    pub(crate) fn job_overviews(&self) -> Vec<JobOverview> {
        let jobs: Vec<Arc<Job>> = self.inner.registry().jobs.values().cloned().collect();
        let mut overviews: Vec<JobOverview> = jobs.iter().map(|job| overview_of(job)).collect();
        overviews.sort_by(|a, b| (&a.accepted, &a.id).cmp(&(&b.accepted, &b.id)));
        overviews
    }

    /// The job with this id, whoever's it is.
    pub(crate) fn job_overview(&self, id: &str) -> Option<JobOverview> {
        self.inner.registry().jobs.get(id).cloned().map(|job| overview_of(&job))
    }

    /// Cancels or deletes the job with this id, whoever's it is, as [`JobEngine::delete`] does for its client. `false` if there is
    /// no such job, or it has expired.
    ///
    /// # Errors
    /// If the record cannot be removed; the job then still exists.
    pub(crate) fn remove_job(&self, id: &str) -> io::Result<bool> {
        let job = self.inner.registry().jobs.get(id).cloned();
        job.map_or(Ok(false), |job| self.delete_job(&job))
    }
}

/// A job of a running engine, with its progress.
fn overview_of(job: &Job) -> JobOverview {
    let record = job.record();
    let overview = JobOverview::of_record(&record);
    match record.state.is_active() {
        true => JobOverview {
            percent: worker::percent_done(job),
            awaits_space: job.awaits_space.load(Relaxed),
            planned: job_end::planned_counts(job, &record),
            ..overview
        },
        false => overview,
    }
}

/// The jobs of a service that is stopped, or does not answer, by their records.
pub(crate) struct RecordedJobs {
    records: RecordDirectory,
    files: std::path::PathBuf,
}

/// The jobs of a service as its operator sees them.
pub(crate) struct JobList {
    /// The jobs, by time of kick-off.
    pub jobs: Vec<JobOverview>,
    /// Records that cannot be read: id, and reason.
    pub unreadable: Vec<(String, String)>,
}

/// What became of a removal among the records of a stopped service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordRemoval {
    /// The job and its files are gone.
    Removed,
    /// There is no such job, or it has expired.
    Unknown,
    /// A service has the directory of records.
    Busy,
}

impl RecordedJobs {
    /// Opens the directory of records and that of the jobs' files. Neither is made.
    ///
    /// # Errors
    /// The system's; `NotFound` if there are no records.
    pub(crate) fn open(records: &Path, files: &Path) -> io::Result<RecordedJobs> {
        let records = RecordDirectory::open_existing(records, FileSync::Yes)?;
        Ok(RecordedJobs { records, files: files.to_path_buf() })
    }

    /// The jobs, and the records that cannot be read.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn list(&self) -> io::Result<JobList> {
        let RecordListing { records, unreadable } = self.records.list_only()?;
        Ok(JobList { jobs: records.iter().map(JobOverview::of_record).collect(), unreadable })
    }

    /// Removes a job and its files, as a service would on a DELETE, under the lock that keeps services out meanwhile.
    ///
    /// # Errors
    /// The system's; the record goes first, so that what is left of the files is removed by the next service.
    pub(crate) fn remove(&self, id: &str) -> io::Result<RecordRemoval> {
        let lock: File = self.records.directory().create(LOCK)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(RecordRemoval::Busy),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        let is_there = |job: &JobOverview| job.id == id && job.state != JobState::Expired;
        if !is_job_id(id) || !self.list()?.jobs.iter().any(is_there) {
            return Ok(RecordRemoval::Unknown);
        }
        self.records.remove(id)?;
        match Directory::open(&self.files) {
            Ok(files) => files.remove_tree(id)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(RecordRemoval::Removed)
    }
}
