//! The job engine, as its callers see it: opens the directories, accepts kick-offs and retries, looks jobs and files
//! up, deletes, stops.
//!
//! Everything that must survive a crash is in a record before a method reports it. Memory holds a registry over the
//! records and the work under way. The work itself is in `worker`, expiry in `reaper`, and the order of the locks in
//! `shared`.

use crate::error::IndexError;
use crate::export::plan_record::PlanRecord;
use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::index::other_data::FaultTotals;
use crate::index::snapshot::Snapshot;
use crate::index::store_listing::StoreListing;
use crate::job::api::{
    AcceptedJob, EngineOptions, FileView, JobLookup, JobView, KickOffError, OpenError, RetryOutcome,
};
use crate::job::baselines::{self, KeptBaselines};
use crate::job::indexer::{Indexer, RequestedRun};
use crate::job::record::{
    FORMAT, GROUP_FILE, JobRecord, KickOff, ONLY_PATIENTS_FILE, OUT, PATIENT_FILE, RecordedPopulation, is_job_id,
    scope_file,
};
use crate::job::record_directory::RecordDirectory;
use crate::job::registry::{Job, JobRegistry};
use crate::job::service_mark::check_same_disk;
use crate::job::shared::{self, EngineShared, LastTime};
use crate::job::state::JobState;
use crate::job::store_state::{LOCK, StoreRefusal, StoreState};
use crate::job::{job_end, reaper, space, worker};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::progress::Progress;
use crate::store::Store;
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::sys::private_files::{create_private, private_directory};
use crate::write::journal::DEPARTED;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The job engine. Dropping it stops it, see [`JobEngine::stop`].
pub(crate) struct JobEngine {
    /// State shared with the workers and the reaper.
    pub(crate) inner: Arc<EngineShared>,
    /// The workers and the reaper, joined by [`JobEngine::stop`].
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl JobEngine {
    /// Opens the directories, queues unfinished jobs again, and starts the threads.
    ///
    /// # Errors
    /// [`OpenError`] if a directory cannot be used or belongs to another service, or threads cannot be started.
    pub(crate) fn open(options: EngineOptions) -> Result<JobEngine, OpenError> {
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |source| OpenError::Directory { path, source }
        };
        // 1. The directories, and the lock that keeps other services out.
        private_directory(&options.files).map_err(failed(&options.files))?;
        let files = Directory::open(&options.files).map_err(failed(&options.files))?;
        let records = RecordDirectory::open(&options.records, options.sync).map_err(failed(&options.records))?;
        let lock = create_private(&options.records.join(LOCK)).map_err(failed(&options.records))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(OpenError::Busy { path: options.records.clone() }),
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(OpenError::Directory { path: options.records.clone(), source });
            }
        }
        check_same_disk(&options, &files, records.directory())?;
        let index_dir = options.store.index_dir();
        if private_directory(&index_dir).and_then(|()| create_private(&index_dir.join("lock")).map(drop)).is_err() {
            return Err(OpenError::Index { path: index_dir });
        }
        // 2. The threads of the pool.
        let threads = options.threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("outpour-{index}"))
            .build()
            .map_err(|error| OpenError::Threads(error.to_string()))?;
        // 3. The records: jobs, the names of their files, the queue, and the last transactionTime.
        let listed = records.list().map_err(failed(&options.records))?;
        let mut registry = JobRegistry::default();
        let last_t = LastTime::none();
        last_t.take_in(options.store.latest_snapshot().as_ref());
        let mut keep: Vec<String> = listed.unreadable.iter().map(|(id, _)| id.clone()).collect();
        for (id, reason) in &listed.unreadable {
            tracing::error!(job = id, reason, "the record of a job cannot be read; it is left as it is");
        }
        for record in listed.records {
            if record.file_ids().any(|file| registry.files.contains_key(&(record.mount.clone(), file.to_string()))) {
                let reason = "a file of it has the id of another job's";
                tracing::error!(job = record.id, reason, "the record of a job cannot be read; it is left as it is");
                keep.push(record.id);
                continue;
            }
            last_t.take_in(Instant::parse(&record.transaction_time).as_ref());
            if record.state != JobState::Expired {
                keep.push(record.id.clone());
            }
            let job = Job::new(record, (options.clock)().ticks);
            let record = job.record();
            for (i, file) in record.file_ids().enumerate() {
                registry.files.insert((record.mount.clone(), file.to_string()), (job.clone(), i));
            }
            if record.state.is_active() {
                tracing::info!(job = job.id, "a job is taken up again");
                registry.queue.push(job.clone());
            }
            registry.jobs.insert(job.id.clone(), job);
        }
        // 4. Directories named as jobs are, of which there is no record. Other names are not of the service, and stay.
        let keep: HashSet<String> = keep.into_iter().collect();
        let names = files.names().map_err(failed(&options.files))?;
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        registry.trash.extend(names.filter(|name| is_job_id(name) && !keep.contains(name)));
        // 5. What is kept of former exports for increments on them.
        let baselines = KeptBaselines::open(&files, options.limits.kept_baselines, options.sync);
        let baselines = baselines.map_err(failed(&options.files))?;
        let of_jobs: Vec<Arc<JobRecord>> = registry.jobs.values().map(|job| job.record()).collect();
        baselines.reconcile(&files, &of_jobs, &(options.clock)());
        // 6. The shared state, and the threads of the engine.
        let inner = Arc::new(EngineShared {
            options,
            records,
            files,
            pool,
            registry: Mutex::new(registry),
            wake: Condvar::new(),
            last_t,
            store_state: StoreState::default(),
            indexer: Indexer::default(),
            index_lock: Mutex::default(),
            baselines,
            _lock: lock,
        });
        space::measure_kept_files(&inner);
        // Leftovers of a crash are removed before the first request is answered.
        reaper::reap(&inner);
        let engine = JobEngine { inner, threads: Mutex::default() };
        engine.start(threads.max(2))?;
        Ok(engine)
    }

    /// Starts the reaper and so many workers.
    fn start(&self, workers: usize) -> Result<(), OpenError> {
        let mut threads = self.threads.lock().expect("no panic under it");
        for index in 0..workers + 1 {
            let inner = self.inner.clone();
            let (name, body): (_, fn(&Arc<EngineShared>)) = match index {
                0 => ("outpour-reaper".to_string(), reaper::run_reaper),
                i => (format!("outpour-job-{i}"), worker::run_worker),
            };
            let thread = std::thread::Builder::new().name(name).spawn(move || body(&inner));
            threads.push(thread.map_err(|error| OpenError::Threads(error.to_string()))?);
        }
        Ok(())
    }

    /// The store that jobs export from.
    pub(crate) fn store(&self) -> &Store {
        &self.inner.options.store
    }

    /// Accepts a kick-off as a queued job. When this returns, the job outlives a crash (KICK-13).
    ///
    /// # Errors
    /// [`KickOffError`] if a bound of the jobs or the disk is reached, the engine is stopping, or the record cannot be
    /// written. No job exists then.
    pub(crate) fn kick_off(&self, kick_off: KickOff) -> Result<AcceptedJob, KickOffError> {
        let client = kick_off.client.clone();
        self.reserve_slot(&client)?;
        let made = self.make_durable(kick_off);
        let mut registry = self.inner.registry();
        registry.release_slot(&client);
        let record = made.map_err(record_write_error)?;
        let transaction_time = Instant::parse(&record.transaction_time).expect("written here");
        let accepted = AcceptedJob { id: record.id.clone(), transaction_time };
        let job = Job::new(record, self.inner.now().ticks);
        registry.jobs.insert(job.id.clone(), job.clone());
        registry.queue.push(job);
        drop(registry);
        self.inner.wake.notify_all();
        Ok(accepted)
    }

    /// Reserves a slot for a job of `client` that is about to be made durable, and given back by
    /// [`JobRegistry::release_slot`].
    ///
    /// # Errors
    /// [`KickOffError`] if a disk is too full, the engine is stopping, or a bound on active jobs is reached.
    fn reserve_slot(&self, client: &str) -> Result<(), KickOffError> {
        let inner = &self.inner;
        let limits = &inner.options.limits;
        for directory in [&inner.options.files, &inner.options.records] {
            let used = (inner.options.disk_space)(directory).map_err(KickOffError::Unwritable)?.used_hundredths();
            if used >= limits.disk_high_water {
                return Err(KickOffError::DiskFull);
            }
        }
        let mut registry = inner.registry();
        if registry.stopping {
            return Err(KickOffError::Stopping);
        }
        let reserved: usize = registry.reserved.values().sum();
        let own = registry.queue.iter().filter(|job| job.client == client).count()
            + registry.reserved.get(client).copied().unwrap_or(0);
        if own >= limits.active_per_client {
            return Err(KickOffError::ClientBusy(own));
        }
        if registry.queue.iter().count() + reserved >= limits.active {
            return Err(KickOffError::Busy);
        }
        *registry.reserved.entry(client.to_string()).or_default() += 1;
        Ok(())
    }

    /// Queues a failed job again: its finished files, its transactionTime and its view of the store are kept
    /// (ONEUP-M05). When this returns [`RetryOutcome::Accepted`], that outlives a crash.
    ///
    /// # Errors
    /// [`KickOffError`] under the conditions of [`JobEngine::kick_off`]; the job is then unchanged.
    pub(crate) fn retry(&self, id: &str, mount: &str, client: &str) -> Result<RetryOutcome, KickOffError> {
        let inner = &self.inner;
        let Some(job) = self.job(id, mount, client) else { return Ok(RetryOutcome::Unknown) };
        // Checked before a slot is reserved, so that a wrong state is reported before a full queue; and again below
        // under the lock, because the state may change meanwhile.
        let refusal = |record: &JobRecord| match record.state {
            JobState::Expired => Some(RetryOutcome::Unknown),
            _ if self.is_over(record) => Some(RetryOutcome::Unknown),
            JobState::Failed => None,
            other => Some(RetryOutcome::NotFailed(other)),
        };
        if let Some(refusal) = refusal(&job.record()) {
            return Ok(refusal);
        }
        if job.record().files_removed && !self.snapshot_stands(&job) {
            return Ok(RetryOutcome::SnapshotGone);
        }
        self.reserve_slot(client)?;
        let retried = (|| {
            let _write = job.record_write.lock().expect("no panic under it");
            let mut record = (*job.record()).clone();
            if job.deleted.load(Relaxed) {
                return Ok(RetryOutcome::Unknown);
            }
            if let Some(refusal) = refusal(&record) {
                return Ok(refusal);
            }
            record.move_to(JobState::Queued);
            (record.failure, record.ended, record.expires) = (None, None, None);
            record.files_removed = false;
            inner.records.write(&record)?;
            *job.record.lock().expect("no panic under it") = Arc::new(record);
            job.reset();
            job.touch(&inner.now());
            Ok(RetryOutcome::Accepted)
        })();
        let mut registry = inner.registry();
        registry.release_slot(client);
        if matches!(retried, Ok(RetryOutcome::Accepted)) && !job.deleted.load(Relaxed) {
            registry.queue.push(job);
        }
        drop(registry);
        inner.wake.notify_all();
        retried.map_err(record_write_error)
    }

    /// Whether the store still has what a failed job began with. A job that failed before it was planned began with nothing.
    fn snapshot_stands(&self, job: &Job) -> bool {
        let inner = &self.inner;
        let Ok(bytes) = inner.files.read(&job_end::plan_file(&job.id), MANIFEST_BYTES_MAX) else {
            return job.record().planned.is_none();
        };
        let Ok(plan) = PlanRecord::from_bytes(&bytes) else { return false };
        let _index_lock = inner.lock_index();
        let store = inner.options.store.read_only();
        inner.pool.install(|| store.reopen_snapshot(&plan.snapshot, &Progress::default())).is_ok()
    }

    /// Makes the record of an accepted kick-off and the files that belong to it, or leaves nothing on disk.
    fn make_durable(&self, kick_off: KickOff) -> std::io::Result<JobRecord> {
        let id = self.inner.new_id();
        let made = self.make_record(id.clone(), kick_off);
        if made.is_err() {
            // The id was not reported: the remains belong to no job.
            self.inner.files.remove_tree(&id).ok();
        }
        made
    }

    /// Writes the files of a kick-off (its Group, the Groups of its scope, its patient), then the record, last.
    fn make_record(&self, id: String, kick_off: KickOff) -> std::io::Result<JobRecord> {
        let inner = &self.inner;
        let now = inner.now();
        let directory = inner.directory(&id);
        let patient = match &kick_off.request.population {
            RecordedPopulation::Patient(patient) => Some(format!("{patient}\n")),
            _ => None,
        };
        let only = kick_off.only_patients.as_ref();
        let (mut request, only_ids) = (kick_off.request, only.map(Vec::as_slice));
        request.question = baselines::recorded_question(&request, only_ids);
        let owner = (&*id, &*kick_off.mount, &*kick_off.client);
        request.baseline = inner.baselines.take(&inner.files, owner, &request, only_ids)?;
        let has_files = kick_off.group.is_some() || patient.is_some() || only.is_some() || request.baseline.is_some();
        if has_files {
            inner.files.make_directory(&id)?;
        }
        if let Some(group) = &kick_off.group {
            group.copy_to(&directory.join(GROUP_FILE), inner.options.sync).map_err(std::io::Error::other)?;
        }
        for group in &kick_off.scope {
            let id = group.facts().id.expect("a Group of the book has an id");
            let file = directory.join(scope_file(id.as_str()));
            group.copy_to(&file, inner.options.sync).map_err(std::io::Error::other)?;
        }
        let sync = inner.options.sync == FileSync::Yes;
        if let Some(patient) = &patient {
            inner.files.replace(&format!("{id}/{PATIENT_FILE}"), patient.as_bytes(), sync)?;
        }
        if let Some(only) = only {
            let lines: String = only.iter().map(|patient| format!("{patient}\n")).collect();
            inner.files.replace(&format!("{id}/{ONLY_PATIENTS_FILE}"), lines.as_bytes(), sync)?;
        }
        if has_files && sync {
            inner.files.sync()?;
        }
        inner.last_transaction_time();
        let transaction_time = inner.last_t.give_out(&now);
        inner.clock_behind();
        // A client's clock may run ahead a little: nothing has changed after T yet, for it either.
        if request.since.as_deref().and_then(Instant::parse).is_some_and(|since| since > transaction_time) {
            request.since = Some(transaction_time.to_string());
        }
        let record = JobRecord {
            format: FORMAT,
            id,
            mount: kick_off.mount,
            client: kick_off.client,
            url: kick_off.url,
            request,
            transaction_time: transaction_time.to_string(),
            view: Some(kick_off.view),
            state: JobState::Queued,
            accepted: now.to_string(),
            ended: None,
            keep_seconds: kick_off.keep_seconds,
            expires: None,
            files_removed: false,
            failure: None,
            naming: kick_off.naming,
            separate_status: kick_off.separate_status,
            planned: None,
            files: Vec::new(),
            departed: None,
            extension: serde_json::Map::new(),
        };
        inner.records.write(&record)?;
        Ok(record)
    }

    /// Looks a job up for its client on its mount; any other caller gets [`JobLookup::Unknown`] (DIALECT-01,
    /// STATUS-15).
    pub(crate) fn find(&self, id: &str, mount: &str, client: &str) -> JobLookup {
        let Some(job) = self.job(id, mount, client) else { return JobLookup::Unknown };
        let record = job.record();
        if record.state == JobState::Expired || self.is_over(&record) {
            return JobLookup::Expired;
        }
        let percent = if record.state.is_active() { worker::percent_done(&job) } else { 100 };
        let started = job.started.lock().expect("no panic under it").clone();
        // The rest is taken to go as fast as the part that is done.
        let seconds_left = started.filter(|_| percent > 0).map(|started| {
            let elapsed = (self.inner.now().ticks - started.ticks).max(0) as f64 / TICKS_PER_SECOND as f64;
            (elapsed * f64::from(100 - percent) / f64::from(percent)).ceil() as u64
        });
        let asked_before = job.looked_up.swap(true, Relaxed);
        let planned = job_end::planned_counts(&job, &record);
        JobLookup::Job(JobView {
            record,
            percent,
            seconds_left,
            awaits_space: job.awaits_space.load(Relaxed),
            asked_before,
            planned,
            changed: job.last_change(),
        })
    }

    /// Whether the retention of an ended job is over. The reaper may not have expired it yet.
    fn is_over(&self, record: &JobRecord) -> bool {
        !record.state.is_active() && record.expiry().is_some_and(|expiry| expiry <= self.inner.now())
    }

    /// The job with this id, if it is of this client and mount.
    fn job(&self, id: &str, mount: &str, client: &str) -> Option<Arc<Job>> {
        let job = self.inner.registry().jobs.get(id).cloned()?;
        let record = job.record();
        (record.mount == mount && record.client == client).then_some(job)
    }

    /// A file of a complete job by its id (FILE-20), for its client on its mount; `None` if there is no such file.
    ///
    /// # Errors
    /// If the job of the file has expired.
    #[allow(clippy::result_unit_err, reason = "there is one way to fail, and it has no details")]
    pub(crate) fn file(&self, id: &str, mount: &str, client: &str) -> Result<Option<FileView>, ()> {
        let name = (mount.to_string(), id.to_string());
        let Some((job, i)) = self.inner.registry().files.get(&name).cloned() else { return Ok(None) };
        let record = job.record();
        if record.client != client {
            return Ok(None);
        }
        if record.state == JobState::Expired || self.is_over(&record) {
            return Err(());
        }
        // Behind the files of the manifest stands the list of who left.
        let name = match record.files.get(i) {
            Some(file) => &*file.receipt.file,
            None if record.departed.is_some() => DEPARTED,
            None => return Ok(None),
        };
        let place = format!("{}/{}/{name}", job.id, OUT);
        Ok(Some(FileView { record, at: i, root: self.inner.options.files.clone(), place }))
    }

    /// Deletes a job in any state: it is unknown from now on, its work is cancelled, and the reaper removes its files.
    /// `false` if there was no such job (DELETE-01…05).
    ///
    /// # Errors
    /// If the record cannot be removed; the job then still exists.
    pub(crate) fn delete(&self, id: &str, mount: &str, client: &str) -> std::io::Result<bool> {
        self.job(id, mount, client).map_or(Ok(false), |job| self.delete_job(&job))
    }

    /// As [`JobEngine::delete`], of a job that was found.
    ///
    /// # Errors
    /// As [`JobEngine::delete`].
    pub(crate) fn delete_job(&self, job: &Arc<Job>) -> std::io::Result<bool> {
        let (inner, id) = (&self.inner, &*job.id);
        {
            let _write = job.record_write.lock().expect("no panic under it");
            if job.deleted.load(Relaxed) || job.record().state == JobState::Expired {
                return Ok(false);
            }
            inner.records.remove(id)?;
            job.deleted.store(true, Relaxed);
        }
        job.progress.cancel.store(true, Relaxed);
        let mut registry = inner.registry();
        shared::forget_job(&mut registry, job);
        if !job.phase.lock().expect("no panic under it").is_busy() {
            registry.trash.push(id.to_string());
        }
        drop(registry);
        inner.wake.notify_all();
        Ok(true)
    }

    /// Snapshot of the index as last published, as of now, or of the last T if the clock was set back behind it; `None`
    /// while no index is published.
    pub(crate) fn snapshot_now(&self) -> Option<Snapshot> {
        Some(Snapshot::new(self.inner.indexer.latest_published(self.store())?, self.snapshot_moment()))
    }

    /// Number of faulty lines of the store by the index as last published; `None` while there is none, or if its totals
    /// are damaged.
    pub(crate) fn faulty_lines(&self) -> Option<u64> {
        let snapshot = self.snapshot_now()?;
        let faults = FaultTotals::of(snapshot.index()).ok()?;
        Some(faults.by_kind.iter().sum())
    }

    /// The time by the engine's clock.
    pub(crate) fn now(&self) -> Instant {
        self.inner.now()
    }

    /// The last transactionTime given out from the store, by this engine or another process; `None` before the first.
    /// Reads the index meta.
    pub(crate) fn last_transaction_time(&self) -> Option<Instant> {
        self.inner.last_transaction_time()
    }

    /// The moment that Groups are seen as of: now, or the last transactionTime if the clock was set back behind it.
    pub(crate) fn snapshot_moment(&self) -> Instant {
        self.inner.snapshot_moment()
    }

    /// By how many seconds the clock is behind the last transactionTime given out, if it was set back.
    pub(crate) fn clock_behind(&self) -> Option<u64> {
        self.inner.clock_behind()
    }

    /// Lists the files of the store and their sizes now, by [`Store::list_files`].
    ///
    /// # Errors
    /// If a directory of the store cannot be read.
    pub(crate) fn list_files(&self) -> Result<StoreListing, IndexError> {
        self.store().list_files()
    }

    /// Indexes the store's new bytes in a run that begins after this call, and waits for its end at most `wait_max`.
    /// Returns whether the run has ended. Blocks: not for an async thread.
    pub(crate) fn index_and_wait(&self, wait_max: Duration) -> bool {
        self.inner.indexer.run_and_wait(wait_max, self.index_run())
    }

    /// Indexes the store's new bytes in a run that begins after this call, without waiting for it.
    pub(crate) fn request_index(&self) -> RequestedRun {
        self.inner.indexer.request_run(self.index_run())
    }

    /// Whether a run that [`JobEngine::request_index`] returned has ended.
    pub(crate) fn has_indexed(&self, run: RequestedRun) -> bool {
        self.inner.indexer.has_ended(run)
    }

    /// A run of the indexing thread.
    fn index_run(&self) -> impl Fn() + Send + 'static {
        let inner = self.inner.clone();
        move || inner.index_store()
    }

    /// Number of files of the store that are not read, because they are no data files by their names.
    pub(crate) fn passed_over(&self) -> u64 {
        self.inner.store_state.passed_over()
    }

    /// Why the store cannot be used at all at this moment; `None` if it can. It is then refused until it has been looked at
    /// again. Blocks for a moment.
    pub(crate) fn probe_store(&self) -> Option<StoreRefusal> {
        self.inner.probe_store()
    }

    /// Why the store was refused at the last look; `None` if it was not.
    pub(crate) fn store_refusal(&self) -> Option<StoreRefusal> {
        self.inner.store_state.refusal()
    }

    /// Whether a store with these files may have to be refused, so that it is to be looked at first: an indexed file is not
    /// among them, or there is none at all. Not for one that is refused already.
    pub(crate) fn may_be_refused(&self, listing: &StoreListing) -> bool {
        let lacks = || {
            let index = self.inner.indexer.latest_published(self.store());
            index.is_some_and(|index| listing.lacks_file_of(index.generation()))
        };
        self.store_refusal().is_none() && (listing.is_empty() || lacks())
    }

    /// Number of jobs that wait or run.
    pub(crate) fn active(&self) -> usize {
        self.inner.registry().queue.iter().count()
    }

    /// Runs the reaper once, on the caller's thread.
    #[cfg(test)]
    pub(crate) fn reap(&self) {
        reaper::reap(&self.inner);
    }

    /// Stops the engine and joins its threads. Work under way is cancelled; the next engine on the same directories
    /// resumes it.
    pub(crate) fn stop(&self) {
        {
            let mut registry = self.inner.registry();
            registry.stopping = true;
            registry.queue.iter().for_each(|job| job.progress.cancel.store(true, Relaxed));
        }
        self.inner.wake.notify_all();
        for thread in self.threads.lock().expect("no panic under it").drain(..) {
            thread.join().ok();
        }
    }
}

/// The refusal for a record that cannot be written: a full disk has its own.
fn record_write_error(error: std::io::Error) -> KickOffError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => KickOffError::DiskFull,
        _ => KickOffError::Unwritable(error),
    }
}

impl Drop for JobEngine {
    fn drop(&mut self) {
        self.stop();
    }
}
