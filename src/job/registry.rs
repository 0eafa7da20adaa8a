//! What the engine knows, in memory: an index over the records, and how far each job has come.

use crate::error::ExportError;
use crate::export::run::ExportRun;
use crate::fhir::instant::Instant;
use crate::job::fair_queue::{FairQueue, Queued};
use crate::job::record::JobRecord;
use crate::progress::Progress;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// A job in memory.
pub(crate) struct Job {
    pub id: String,
    pub client: String,
    /// What is true of it, as it was written last. Held for a moment only: who asks for it never waits for the disk.
    pub record: Mutex<Arc<JobRecord>>,
    /// Held while the record is written or removed.
    pub changing: Mutex<()>,
    /// Set under `changing`; then the record is not written any more.
    pub deleted: AtomicBool,
    /// Its client has asked what became of it, in this process.
    pub asked: AtomicBool,
    pub progress: Progress,
    pub percent: AtomicU64,
    /// It has begun anew once because the index was damaged.
    pub mended: AtomicBool,
    /// When work on it began, in this process.
    pub begun: Mutex<Option<Instant>>,
    pub stage: Mutex<RunPhase>,
    /// When something about it changed last, in ticks.
    touched: AtomicI64,
}

impl Queued for Job {
    fn client(&self) -> &str {
        &self.client
    }
}

impl Job {
    /// A job as its record has it; `now` in ticks.
    pub(crate) fn new(record: JobRecord, now: i64) -> Arc<Job> {
        let instants = [Some(&record.transaction_time), record.ended.as_ref()];
        let known =
            instants.into_iter().flatten().filter_map(|place| Instant::parse(place)).map(|instant| instant.ticks).max();
        // What an active job did before a restart is not recorded: it changes now.
        let touched = known.into_iter().chain(record.state.is_active().then_some(now)).max().unwrap_or(now);
        Arc::new(Job {
            touched: AtomicI64::new(touched),
            id: record.id.clone(),
            client: record.client.clone(),
            record: Mutex::new(Arc::new(record)),
            changing: Mutex::new(()),
            deleted: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            progress: Progress::default(),
            percent: AtomicU64::new(0),
            mended: AtomicBool::new(false),
            begun: Mutex::new(None),
            stage: Mutex::new(RunPhase::Waiting),
        })
    }

    pub(crate) fn record(&self) -> Arc<JobRecord> {
        self.record.lock().expect("no panic under it").clone()
    }

    /// Something about it has changed.
    pub(crate) fn touch(&self, now: &Instant) {
        self.touched.fetch_max(now.ticks, Relaxed);
    }

    /// When something about it changed last: never before its T, and never earlier than was told (ONEUP-S16).
    pub(crate) fn touched(&self) -> Instant {
        Instant { ticks: self.touched.load(Relaxed), rest: Box::default() }
    }

    /// As if nothing had been done yet, for another try.
    pub(crate) fn renew(&self) {
        for counter in [&self.progress.write_done, &self.progress.files_done, &self.progress.scan_done, &self.percent] {
            counter.store(0, Relaxed);
        }
        self.mended.store(false, Relaxed);
        *self.begun.lock().expect("no panic under it") = None;
        *self.stage.lock().expect("no panic under it") = RunPhase::Waiting;
    }
}

impl JobRegistry {
    /// A job that was announced has come, or will not.
    pub(crate) fn release_slot(&mut self, client: &str) {
        if let Some(coming) = self.coming.get_mut(client) {
            *coming -= 1;
            if *coming == 0 {
                self.coming.remove(client);
            }
        }
    }

    /// Has the reaper come by at that time, or before.
    pub(crate) fn set_due(&mut self, time: Option<Instant>) {
        self.due = self.due.into_iter().chain(time.map(|instant| instant.ticks)).min();
    }
}

/// What the engine knows, in memory.
#[derive(Default)]
pub(crate) struct JobRegistry {
    pub jobs: HashMap<String, Arc<Job>>,
    /// Mounts and the names of their files: whose, and which.
    pub files: HashMap<(String, String), (Arc<Job>, usize)>,
    pub turns: FairQueue<Job>,
    /// A job is being prepared: others wait, for they would wait for the index's lock.
    pub preparing: bool,
    /// Kick-offs that are being made durable, by client.
    pub coming: HashMap<String, usize>,
    /// Names of what is to be removed from the directory of files.
    pub trash: Vec<String>,
    /// When a job's time is over next, in ticks; none if no job's ever is.
    pub due: Option<i64>,
    pub stopping: bool,
}

/// How far a job has come, in memory.
pub(crate) enum RunPhase {
    /// Nothing is being done.
    Waiting,
    /// A worker takes its snapshot and plans.
    Preparing,
    /// Workers write its tasks.
    Writing {
        /// The run.
        run: Arc<ExportRun>,
        /// Tasks to write, and how often each was tried.
        pending: Vec<(usize, u32)>,
        /// Tasks being written.
        busy: usize,
        /// Why the job is to fail once nobody is at work on it.
        failed: Option<ExportError>,
    },
    /// A worker publishes it.
    Finishing,
    /// Nothing will be done any more.
    Ended,
}

impl RunPhase {
    /// Whether a worker is at it.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            RunPhase::Preparing | RunPhase::Finishing => true,
            RunPhase::Writing { busy, .. } => *busy > 0,
            RunPhase::Waiting | RunPhase::Ended => false,
        }
    }
}
