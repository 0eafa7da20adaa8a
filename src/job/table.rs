//! What the engine knows, in memory: an index over the records, and how far each job has come.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::record::JobRecord;
use super::turns::{Turns, Waiting};
use super::work::Stage;
use crate::fhir::Instant;
use crate::store::Watch;

/// A job in memory.
pub struct Job {
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
    pub watch: Watch,
    pub percent: AtomicU64,
    /// It has begun anew once because the index was damaged.
    pub mended: AtomicBool,
    /// When work on it began, in this process.
    pub begun: Mutex<Option<Instant>>,
    pub stage: Mutex<Stage>,
}

impl Waiting for Job {
    fn client(&self) -> &str {
        &self.client
    }
}

impl Job {
    pub fn new(record: JobRecord) -> Arc<Job> {
        Arc::new(Job {
            id: record.id.clone(),
            client: record.client.clone(),
            record: Mutex::new(Arc::new(record)),
            changing: Mutex::new(()),
            deleted: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            watch: Watch::default(),
            percent: AtomicU64::new(0),
            mended: AtomicBool::new(false),
            begun: Mutex::new(None),
            stage: Mutex::new(Stage::Waiting),
        })
    }

    pub fn record(&self) -> Arc<JobRecord> {
        self.record.lock().expect("no panic under it").clone()
    }
}

impl Table {
    /// Has the reaper come by at that time, or before.
    pub fn due_at(&mut self, at: Option<Instant>) {
        self.due = self.due.into_iter().chain(at.map(|at| at.ticks)).min();
    }
}

/// What the engine knows, in memory.
#[derive(Default)]
pub struct Table {
    pub jobs: HashMap<String, Arc<Job>>,
    /// File ids: whose, and which.
    pub files: HashMap<String, (Arc<Job>, usize)>,
    pub turns: Turns<Job>,
    /// A job is being prepared: others wait, for they would wait for the index's lock.
    pub preparing: bool,
    /// Kick-offs that are being made durable, by client.
    pub coming: HashMap<String, usize>,
    /// Directories to remove.
    pub trash: Vec<PathBuf>,
    /// When a job's time is over next, in ticks; none if no job's ever is.
    pub due: Option<i64>,
    pub stopping: bool,
}
