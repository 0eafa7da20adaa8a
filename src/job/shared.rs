//! What the threads of a job engine share.

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
use crate::job::registry::{Job, JobRegistry, RunPhase};
use crate::sys::directory::Directory;

pub(crate) struct EngineShared {
    pub options: EngineOptions,
    pub records: RecordDirectory,
    /// The directory of the jobs' directories, open.
    pub files: Directory,
    pub pool: rayon::ThreadPool,
    /// Held by who brings the index up to date, and taken before work is handed to the pool. The store's own lock is waited
    /// for by a thread of the pool, which may be the very one that holds it: while that waits for a part of its work it
    /// takes up other work, and would wait for itself for ever.
    pub index_turn: Mutex<()>,
    pub table: Mutex<JobRegistry>,
    /// Told when there may be something to do.
    pub wake: Condvar,
    /// The greatest T given out, in ticks.
    pub(crate) last_t: Mutex<i64>,
    pub(crate) indexer: Indexer,
    pub(crate) _lock: File,
}

impl EngineShared {
    /// See [`EngineShared::lock_index`]; a panic under it leaves nothing behind.
    pub(crate) fn lock_index(&self) -> MutexGuard<'_, ()> {
        self.index_turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, JobRegistry> {
        self.table.lock().expect("no panic under it")
    }

    pub(crate) fn now(&self) -> Instant {
        (self.options.clock)()
    }

    /// An id that cannot be guessed: 128 random bits (KICK-14).
    pub(crate) fn new_id(&self) -> String {
        format!("{:032x}", u128::from_le_bytes((self.options.random)()))
    }

    /// The directory of a job.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.options.files.join(id)
    }

    /// Changes a job's record, durably, unless the job was deleted meanwhile. Tells whether it was done.
    pub(crate) fn change(&self, job: &Job, change: impl FnOnce(&mut JobRecord)) -> std::io::Result<bool> {
        let _changing = job.changing.lock().expect("no panic under it");
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

/// So many seconds later, but never after the last instant that can be written down.
pub(crate) fn add_seconds(instant: &Instant, seconds: u64) -> Instant {
    let ticks = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(TICKS_PER_SECOND);
    let last = Instant::parse("9999-12-31T23:59:59Z").map_or(i64::MAX, |last| last.ticks);
    Instant { ticks: instant.ticks.saturating_add(ticks).min(last), rest: Box::default() }
}

/// The last to leave a deleted job has its directory removed.
pub(crate) fn leave_queue(inner: &EngineShared, job: &Arc<Job>) {
    let mut stage = job.stage.lock().expect("no panic under it");
    if !stage.is_busy() {
        *stage = RunPhase::Ended;
        drop(stage);
        inner.registry().trash.push(job.id.clone());
    }
}

/// Takes a job out of what the engine knows.
pub(crate) fn forget_job(table: &mut JobRegistry, job: &Arc<Job>) {
    table.turns.remove(job);
    table.jobs.remove(&job.id);
    let record = job.record();
    for file in &record.files {
        table.files.remove(&(record.mount.clone(), file.id.clone()));
    }
}
