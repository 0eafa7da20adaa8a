//! State shared by the threads of a job engine: options, directories, the registry, and the locks over them.
//!
//! Lock order, outermost first:
//!
//! 1. `EngineShared::index_lock`, then the store's own lock file (taken inside the store). None of the locks below is
//!    held while it is acquired.
//! 2. `SpaceAccount::reservations`, held while the disk is looked at and planned jobs get room on it.
//! 3. `Job::record_write`, held across a write of the record to disk.
//! 4. `EngineShared::registry`. It is never acquired while `Job::record_write` or a lock of step 5 is held, and no
//!    thread that holds it touches the disk.
//! 5. `Job::phase`, `Job::record` and `Job::started`. No other lock is acquired under them. They
//!    are held for a moment, except `Job::phase` while a failed run writes its status.
//! 6. The lock of `KeptBaselines`, held while its files are linked and removed. No other lock is acquired under it, and it is not
//!    acquired under those of steps 4 and 5.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64};

use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::index::snapshot_time::{next_ticks, seconds_behind, ticks_rounded_up};
use crate::job::api::EngineOptions;
use crate::job::baselines::KeptBaselines;
use crate::job::indexer::Indexer;
use crate::job::record::JobRecord;
use crate::job::record_directory::RecordDirectory;
use crate::job::registry::{Job, JobRegistry};
use crate::job::store_state::{StoreRefusal, StoreState, find_unusable};
use crate::progress::Progress;
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
    /// The patients of finished exports, for increments on them.
    pub baselines: KeptBaselines,
    /// The jobs in memory.
    pub registry: Mutex<JobRegistry>,
    /// Signalled when there may be something to do: a kick-off, an end, a deletion, the stop.
    pub wake: Condvar,
    /// The last T given out: of the records, and of the index as last looked at.
    pub(crate) last_t: LastTime,
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

    /// The last T given out, those of other processes that export from this store included; `None` before the first.
    /// Reads the index meta.
    pub(crate) fn last_transaction_time(&self) -> Option<Instant> {
        self.last_t.take_in(self.options.store.latest_snapshot().as_ref());
        self.last_t.get()
    }

    /// Looks whether the store can be used at all ([`find_unusable`]); what it cannot be used for is noted, and stays noted
    /// until it has been indexed again. Blocks for a moment.
    pub(crate) fn probe_store(&self) -> Option<StoreRefusal> {
        let (refusal, error) = find_unusable(&self.options.store, self.records.directory().path())?;
        if self.store_state.refusal().is_none() {
            tracing::error!(%error, "the store or the data directory cannot be used");
        }
        self.store_state.note(Some(refusal));
        Some(refusal)
    }

    /// Indexes the store's new bytes, and notes what that tells of the store. Blocks.
    pub(crate) fn index_store(&self) {
        // An index that is in a store which is gone would be made where the store was.
        if self.probe_store().is_some() {
            return;
        }
        let _index_lock = self.lock_index();
        match self.pool.install(|| self.options.store.index(&Progress::default())) {
            Ok((index, _)) => {
                self.store_state.note(None);
                self.store_state.note_passed_over(index.walked());
            }
            Err(error) => {
                // A store that stays away is looked at again and again: that is said once.
                if StoreRefusal::of(&error).is_none() || self.store_state.refusal().is_none() {
                    tracing::error!(%error, "the store cannot be indexed");
                }
                self.store_state.note_error(&error);
            }
        }
    }

    /// The moment that something is seen as of without a T of its own: now, or the last T if the clock was set back
    /// behind it.
    pub(crate) fn snapshot_moment(&self) -> Instant {
        let now = self.now();
        self.last_t.get().map_or(now.clone(), |last| last.max(now))
    }

    /// By how many seconds the clock is behind the last T, if it was set back. Logs it when that begins and when it ends.
    pub(crate) fn clock_behind(&self) -> Option<u64> {
        let behind = self.last_t.get().and_then(|last| seconds_behind(&self.now(), last.ticks));
        if self.last_t.said.swap(behind.is_some(), Relaxed) != behind.is_some() {
            match behind {
                Some(seconds) => tracing::warn!(
                    seconds,
                    "the clock is behind the last transactionTime given out: was it set back? Exports take the \
                     milliseconds after that one until the clock has caught up, and rows that come meanwhile count as late"
                ),
                None => tracing::info!("the clock has caught up with the last transactionTime given out"),
            }
        }
        behind
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

/// The last T that a job engine gave out, or found in its records and index: the greatest that was not beyond the clock
/// when it was given out. A T in a record was chosen by the rule for the next one, so all of them count.
pub(crate) struct LastTime {
    /// In ticks; the least value for none.
    ticks: AtomicI64,
    /// Whether it was logged that the clock is behind.
    said: AtomicBool,
}

impl LastTime {
    /// None given out yet.
    pub(crate) fn none() -> LastTime {
        LastTime { ticks: AtomicI64::new(i64::MIN), said: AtomicBool::new(false) }
    }

    /// The last T that the job engine knows of; `None` before the first.
    pub(crate) fn get(&self) -> Option<Instant> {
        let ticks = self.ticks.load(Relaxed);
        (ticks > i64::MIN).then(|| Instant { ticks, rest: Box::default() })
    }

    /// Takes in a T that a record or the index holds.
    pub(crate) fn take_in(&self, given: Option<&Instant>) {
        if let Some(given) = given {
            self.ticks.fetch_max(ticks_rounded_up(given), Relaxed);
        }
    }

    /// Gives out the T of the next job by a clock that shows `now`, later than any before it (CONS-06).
    pub(crate) fn give_out(&self, now: &Instant) -> Instant {
        let mut last = self.ticks.load(Relaxed);
        loop {
            let next = next_ticks(now, (last > i64::MIN).then_some(last));
            match self.ticks.compare_exchange_weak(last, next, Relaxed, Relaxed) {
                Ok(_) => return Instant { ticks: next, rest: Box::default() },
                Err(meanwhile) => last = meanwhile,
            }
        }
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
    for file in record.file_ids() {
        registry.files.remove(&(record.mount.clone(), file.to_string()));
    }
}
