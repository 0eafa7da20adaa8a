//! Jobs in memory: the registry over the records on disk, the queue, and how far each running job has come. Nothing
//! here touches the disk; the order of the locks is stated in `shared`.

use crate::error::ExportError;
use crate::export::run::ExportRun;
use crate::fhir::instant::Instant;
use crate::job::fair_queue::{FairQueue, Queued};
use crate::job::record::JobRecord;
use crate::progress::Progress;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// A job in memory: its record, and the state of the work on it in this process.
pub(crate) struct Job {
    /// Id of the job.
    pub id: String,
    /// Client that kicked the job off.
    pub client: String,
    /// The record as last written. Held for a moment only, so that a reader never waits for the disk.
    pub record: Mutex<Arc<JobRecord>>,
    /// Held while the record is written to disk or removed.
    pub record_write: Mutex<()>,
    /// Set under `record_write`; the record is not written after that.
    pub deleted: AtomicBool,
    /// The client has looked the job up, in this process.
    pub looked_up: AtomicBool,
    /// Counters of the work, and its cancellation.
    pub progress: Progress,
    /// Greatest share of the work reported so far, in hundredths.
    pub percent: AtomicU64,
    /// The job was restarted once already because the index or a packed file was damaged.
    pub repaired_once: AtomicBool,
    /// When work on the job began in this process; `None` before.
    pub started: Mutex<Option<Instant>>,
    /// Bytes on the disk of the files of the job, as far as known: what it has reserved while it is written, then what its
    /// files take until they are removed.
    pub disk_bytes: AtomicU64,
    /// The job waits for room on the disk, which was logged.
    pub awaits_space: AtomicBool,
    /// How far the run of the job has come.
    pub phase: Mutex<RunPhase>,
    /// Time of the last change, in ticks.
    last_change: AtomicI64,
}

impl Queued for Job {
    /// The client that the job in memory belongs to.
    fn client(&self) -> &str {
        &self.client
    }
}

impl Job {
    /// A job in memory as its record describes it, with no work done in this process; `now` in ticks.
    pub(crate) fn new(record: JobRecord, now: i64) -> Arc<Job> {
        let instants = [Some(&record.transaction_time), record.ended.as_ref()];
        let recorded =
            instants.into_iter().flatten().filter_map(|text| Instant::parse(text)).map(|instant| instant.ticks).max();
        // The last change of an active job before a restart is not recorded: its resumption counts as one.
        let last_change = recorded.into_iter().chain(record.state.is_active().then_some(now)).max().unwrap_or(now);
        Arc::new(Job {
            last_change: AtomicI64::new(last_change),
            id: record.id.clone(),
            client: record.client.clone(),
            record: Mutex::new(Arc::new(record)),
            record_write: Mutex::new(()),
            deleted: AtomicBool::new(false),
            looked_up: AtomicBool::new(false),
            progress: Progress::default(),
            percent: AtomicU64::new(0),
            repaired_once: AtomicBool::new(false),
            started: Mutex::new(None),
            disk_bytes: AtomicU64::new(0),
            awaits_space: AtomicBool::new(false),
            phase: Mutex::new(RunPhase::Waiting),
        })
    }

    /// The record of the job, as the job in memory holds it: as last written, without waiting for the disk.
    pub(crate) fn record(&self) -> Arc<JobRecord> {
        self.record.lock().expect("no panic under it").clone()
    }

    /// Notes in the job in memory a change of it at `now`. An earlier instant than the last one is ignored.
    pub(crate) fn touch(&self, now: &Instant) {
        self.last_change.fetch_max(now.ticks, Relaxed);
    }

    /// Time of the last change of the job in memory: never before the transactionTime, and never earlier than reported
    /// before (ONEUP-S16).
    pub(crate) fn last_change(&self) -> Instant {
        Instant { ticks: self.last_change.load(Relaxed), rest: Box::default() }
    }

    /// Resets counters, phase and starting time of the job in memory for a retry. The record is not touched.
    pub(crate) fn reset(&self) {
        for counter in [&self.progress.write_done, &self.progress.files_done, &self.progress.scan_done, &self.percent] {
            counter.store(0, Relaxed);
        }
        self.repaired_once.store(false, Relaxed);
        self.awaits_space.store(false, Relaxed);
        *self.started.lock().expect("no panic under it") = None;
        *self.phase.lock().expect("no panic under it") = RunPhase::Waiting;
    }
}

impl JobRegistry {
    /// Gives back a slot reserved for a kick-off or retry, which has succeeded or failed since.
    pub(crate) fn release_slot(&mut self, client: &str) {
        if let Some(count) = self.reserved.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                self.reserved.remove(client);
            }
        }
    }

    /// Schedules the reaper for `time`, unless it is scheduled earlier already; `None` schedules nothing.
    pub(crate) fn set_due(&mut self, time: Option<Instant>) {
        self.due = self.due.into_iter().chain(time.map(|instant| instant.ticks)).min();
    }
}

/// All jobs in memory, the names of their files, and what the workers and the reaper have to do.
#[derive(Default)]
pub(crate) struct JobRegistry {
    /// All jobs in memory by id.
    pub jobs: HashMap<String, Arc<Job>>,
    /// Mount and file id, to the job and the index of the file in its record.
    pub files: HashMap<(String, String), (Arc<Job>, usize)>,
    /// Jobs that wait or run.
    pub queue: FairQueue<Job>,
    /// A job is being prepared. No other is started meanwhile: it would occupy a worker waiting for the index lock.
    pub preparing: bool,
    /// Slots of kick-offs and retries that are being made durable, by client.
    pub reserved: HashMap<String, usize>,
    /// Names of job directories that the reaper is to remove.
    pub trash: Vec<String>,
    /// When the next job expires or is forgotten, in ticks; `None` if none ever does.
    pub due: Option<i64>,
    /// The engine is stopping: no kick-off is accepted and the threads end.
    pub stopping: bool,
}

/// How far the run of a job has come in this process. Not on disk; see `state::JobState` for that.
pub(crate) enum RunPhase {
    /// No worker has the job; it is to be prepared.
    Waiting,
    /// A worker takes the snapshot and plans, or repairs the index.
    Preparing,
    /// The job is planned; its files wait for room on the disk.
    AwaitingSpace {
        /// The planned export, which holds the lock of its output directory.
        run: Arc<ExportRun>,
        /// Tasks to write, as in `Writing`.
        pending: Vec<(usize, u32)>,
        /// When the wait began, in ticks: the first one since a task of the run was written.
        since: i64,
        /// Until when no other try is made, in ticks: a disk was full although there seemed to be room. `None` for a first try.
        full_until: Option<i64>,
    },
    /// Workers write the tasks of the run.
    Writing {
        /// The planned export, which holds the lock of its output directory.
        run: Arc<ExportRun>,
        /// Tasks to write, each with its failed attempts; the last is taken first.
        pending: Vec<(usize, u32)>,
        /// Number of tasks being written now.
        busy: usize,
        /// Error that the job fails with once `busy` is 0; no task is started after it.
        failed: Option<ExportError>,
        /// A task met a full disk; once `busy` is 0 the job waits for room, and no task is started before.
        disk_full: bool,
        /// When the wait began, in ticks, after which no task has been written yet; `None` if one has.
        waited_since: Option<i64>,
    },
    /// A worker publishes the manifest.
    Finishing,
    /// No work will be done any more.
    Ended,
}

impl RunPhase {
    /// Whether a worker is preparing, writing or finishing the job in memory now.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            RunPhase::Preparing | RunPhase::Finishing => true,
            RunPhase::Writing { busy, .. } => *busy > 0,
            RunPhase::Waiting | RunPhase::AwaitingSpace { .. } | RunPhase::Ended => false,
        }
    }
}
