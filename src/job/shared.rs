//! State shared by the threads of a job engine: options, directories, the registry, and the locks over them.
//!
//! Lock order, outermost first:
//!
//! 1. `EngineShared::index_lock`, then the store's own lock file (taken inside the store). None of the locks below is
//!    held while it is acquired.
//! 2. `Job::record_write`, held across a write of the record to disk.
//! 3. `EngineShared::registry`. It is never acquired while `Job::record_write` or a lock of step 4 is held, and no
//!    thread that holds it touches the disk.
//! 4. `Job::phase`, `Job::record`, `Job::started` and `EngineShared::last_t`. No other lock is acquired under them. They
//!    are held for a moment, except `Job::phase` while a failed run writes its status.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering::Relaxed;

use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::job::api::EngineOptions;
use crate::job::indexer::Indexer;
use crate::job::record::{JobRecord, RecordDirectory};
use crate::job::registry::{Job, JobRegistry};
use crate::job::store_state::StoreState;
use crate::sys::directory::Directory;

/// What the workers, the reaper and the callers of a job engine share.
pub(crate) struct EngineShared {
    /// Options as given at opening.
    pub options: EngineOptions,
    /// Records, one file per job.
    pub records: RecordDirectory,
    /// The directory of the jobs' directories, open.
    pub files: Directory,
    /// Threads of indexing, planning and writing.
    pub pool: rayon::ThreadPool,
    /// Held while the index is brought up to date, and acquired before work is handed to the pool. Without it two jobs
    /// could meet at the store's own lock on one pool thread: the thread that holds that lock waits for a part of its
    /// work, takes up the other job meanwhile, and would wait for itself for ever.
    pub index_lock: Mutex<()>,
    /// The jobs in memory.
    pub registry: Mutex<JobRegistry>,
    /// Signalled when there may be something to do: a kick-off, an end, a deletion, the stop.
    pub wake: Condvar,
    /// The greatest transactionTime given out, in ticks.
    pub(crate) last_t: Mutex<i64>,
    /// Whether the store was whole at the last look. Its lock is held for a moment, and no other under it.
    pub(crate) store_state: StoreState,
    /// The index as last published, and the thread that updates it between jobs.
    pub(crate) indexer: Indexer,
    /// Lock file of the directory of records, held while the engine lives.
    pub(crate) _lock: File,
}

impl EngineShared {
    /// Acquires [`EngineShared::index_lock`]. A poisoned lock is taken all the same: it guards no data.
    pub(crate) fn lock_index(&self) -> MutexGuard<'_, ()> {
        self.index_lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Locks the registry of jobs.
    pub(crate) fn registry(&self) -> MutexGuard<'_, JobRegistry> {
        self.registry.lock().expect("no panic under it")
    }

    /// The time by the engine's clock.
    pub(crate) fn now(&self) -> Instant {
        (self.options.clock)()
    }

    /// A new job or file id that cannot be guessed: 128 random bits as 32 hexadecimal digits (KICK-14).
    pub(crate) fn new_id(&self) -> String {
        format!("{:032x}", u128::from_le_bytes((self.options.random)()))
    }

    /// Path of the directory of the job with this id; it need not exist.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.options.files.join(id)
    }

    /// Changes a job's record, on disk first and then in memory. `false` if the job was deleted, which changes nothing.
    ///
    /// # Errors
    /// If the record cannot be written; the record in memory is then unchanged.
    pub(crate) fn change(&self, job: &Job, change: impl FnOnce(&mut JobRecord)) -> std::io::Result<bool> {
        let _write = job.record_write.lock().expect("no panic under it");
        if job.deleted.load(Relaxed) {
            return Ok(false);
        }
        let mut record = (*job.record()).clone();
        change(&mut record);
        self.records.write(&record)?;
        *job.record.lock().expect("no panic under it") = Arc::new(record);
        Ok(true)
    }
}

/// For the threads that set when a job expires: the instant `seconds` later, at most 9999-12-31T23:59:59Z, the last one
/// that a record of a job can hold.
pub(crate) fn add_seconds(instant: &Instant, seconds: u64) -> Instant {
    let ticks = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(TICKS_PER_SECOND);
    let last = Instant::parse("9999-12-31T23:59:59Z").map_or(i64::MAX, |last| last.ticks);
    Instant { ticks: instant.ticks.saturating_add(ticks).min(last), rest: Box::default() }
}

/// Removes a job and the names of its files from the registry and queue that threads share. Its record and its
/// directory stay on disk.
pub(crate) fn forget_job(registry: &mut JobRegistry, job: &Arc<Job>) {
    registry.queue.remove(job);
    registry.jobs.remove(&job.id);
    let record = job.record();
    for file in &record.files {
        registry.files.remove(&(record.mount.clone(), file.id.clone()));
    }
}
