//! The worker threads: each takes one work item after the other from the fair queue and prepares a job (snapshot and
//! plan), writes one shard of it, or finishes it (manifest).
//!
//! Work that touches the store or the output runs on the engine's pool, where a panic ends the job and not the service.
//! Room on the disk is in `space`, the end of a job in `job_end`, expiry in `reaper`, the order of the locks in `shared`.

use crate::error::{ExportError, IndexError, JournalError};
use crate::export::options::{Existing, ExportOptions, SnapshotRequest};
use crate::export::prepare::SharedStatus;
use crate::export::repair::repair_index;
use crate::export::run::ExportRun;
use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::job::baselines::with_baseline;
use crate::job::job_end::{complete_job, fail_job, record_error};
use crate::job::record::{
    GROUP_FILE, JobRecord, ONLY_PATIENTS_FILE, OUT, PATIENT_FILE, PlannedCounts, RecordedPopulation,
};
use crate::job::registry::{Job, JobRegistry, RunPhase};
use crate::job::shared::EngineShared;
use crate::job::space::{RefusedJob, admit_planned_jobs, is_disk_full};
use crate::job::state::JobState;
use crate::job::store_state::StoreRefusal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Longest sleep of the reaper, and its delay before another try after an error, in seconds.
pub(crate) const REAPER_SECONDS: u64 = 30;

/// How long a job at least waits that met a full disk, before it tries again, in seconds.
const DISK_FULL_PAUSE_SECONDS: i64 = 5;

/// One piece of work for a worker.
enum WorkItem {
    /// Take the snapshot of a job and plan it.
    Prepare(Arc<Job>),
    /// Write a task of the run; the last two fields are its number and its failed attempts.
    Write(Arc<Job>, Arc<ExportRun>, usize, u32),
    /// Publish the manifest of the run.
    Finish(Arc<Job>, Arc<ExportRun>),
}

/// Body of a worker thread: takes work items, or sleeps while there is none, until the engine stops.
pub(crate) fn run_worker(inner: &Arc<EngineShared>) {
    let mut registry = inner.registry();
    loop {
        if registry.stopping {
            return;
        }
        let Some(item) = next_work_item(&mut registry) else {
            registry = inner.wake.wait(registry).expect("no panic under it");
            continue;
        };
        drop(registry);
        match item {
            WorkItem::Prepare(job) => prepare_job(inner, &job),
            WorkItem::Write(job, run, task, tried) => write_task(inner, &job, run, task, tried),
            WorkItem::Finish(job, run) => finish_job(inner, &job, run),
        }
        registry = inner.registry();
    }
}

/// The next work item of the fair queue, with the phase of its job moved on; `None` if no job has any for now.
fn next_work_item(registry: &mut JobRegistry) -> Option<WorkItem> {
    let JobRegistry { queue, preparing, .. } = registry;
    queue.next(|job| {
        let mut phase = job.phase.lock().expect("no panic under it");
        match &mut *phase {
            RunPhase::Waiting if !*preparing => {
                *phase = RunPhase::Preparing;
                *preparing = true;
                Some(WorkItem::Prepare(job.clone()))
            }
            RunPhase::Writing { run, pending, busy, failed, disk_full, .. } => {
                if failed.is_none()
                    && !*disk_full
                    && let Some((task, tried)) = pending.pop()
                {
                    *busy += 1;
                    return Some(WorkItem::Write(job.clone(), run.clone(), task, tried));
                }
                // Either tasks are still being written, or the job is about to fail once they are.
                if *busy > 0 || !pending.is_empty() {
                    return None;
                }
                let run = run.clone();
                *phase = RunPhase::Finishing;
                Some(WorkItem::Finish(job.clone(), run))
            }
            _ => None,
        }
    })
}

/// Runs work of a job on the pool.
///
/// # Errors
/// The error of `work`; `None` if it panicked.
fn run_guarded<T: Send>(
    inner: &EngineShared,
    work: impl FnOnce() -> Result<T, ExportError> + Send,
) -> Result<T, Option<ExportError>> {
    catch_unwind(AssertUnwindSafe(|| inner.pool.install(work))).map_err(|_| None)?.map_err(Some)
}

/// Options of the export of the job with this id: into its output directory, resuming what is there.
pub(crate) fn options<'a>(inner: &'a EngineShared, id: &str) -> ExportOptions<'a> {
    ExportOptions::new(inner.directory(id).join(OUT))
        .existing(Existing::Resume)
        .sync(inner.options.sync)
        .faults_allowed(inner.options.limits.faults_allowed)
        .clock(&*inner.options.clock)
        .words(inner.options.words)
}

/// Whether an error means that the output directory of a job cannot be resumed and is to be written from the start.
fn is_spoiled(error: &ExportError) -> bool {
    use crate::error::JournalError::{Damaged, Foreign, NotEmpty};
    matches!(
        error,
        ExportError::Differs { .. } | ExportError::Record(Damaged { .. } | Foreign { .. } | NotEmpty { .. })
    )
}

/// Makes the directory of a job and its output directory, and checks that the file of its Group or patient is a regular
/// file, not a link or a pipe.
fn prepare_directory(inner: &EngineShared, record: &JobRecord) -> Result<(), ExportError> {
    let directory = inner.directory(&record.id);
    let failed = |name: &str| {
        let path = directory.join(name);
        |source| ExportError::Record(JournalError::Io { path, source })
    };
    let files = inner.files.make_directory(&record.id).map_err(failed(""))?;
    files.make_directory(OUT).map_err(failed(OUT))?;
    let input = match &record.request.population {
        RecordedPopulation::Patient(_) => Some(PATIENT_FILE),
        RecordedPopulation::OwnGroup(_) => Some(GROUP_FILE),
        RecordedPopulation::System | RecordedPopulation::AllPatients | RecordedPopulation::StoreGroup(_) => None,
    };
    let only = record.request.only_patients.map(|_| ONLY_PATIENTS_FILE);
    input.into_iter().chain(only).try_for_each(|name| files.open_file(name).map(drop).map_err(failed(name)))
}

/// Removes the output directory of the job with this id, for a worker thread that must write it from the start.
fn remove_output(inner: &EngineShared, id: &str) -> Result<(), ExportError> {
    let path = format!("{id}/{OUT}");
    inner
        .files
        .remove_tree(&path)
        .map_err(|source| ExportError::Record(JournalError::Io { path: inner.options.files.join(&path), source }))
}

/// Takes the snapshot of a job, plans it and records the plan's counts; its tasks are then pending. On an error the job
/// fails, unless the engine is stopping: then the next engine prepares it again.
fn prepare_job(inner: &Arc<EngineShared>, job: &Arc<Job>) {
    let record = job.record();
    let directory = inner.directory(&job.id);
    *job.started.lock().expect("no panic under it") = Some(inner.now());
    // 1. Begin or resume the export; once more from the start if what is there is spoiled or the index was repaired.
    let begin = || {
        if inner.probe_store() == Some(StoreRefusal::Unreadable) {
            let path = inner.options.store.root().to_path_buf();
            return Err(IndexError::NoStore { path, reason: "cannot be read" }.into());
        }
        prepare_directory(inner, &record)?;
        let options = options(inner, &job.id);
        // Chosen at kick-off by the rule for the next T, so not beyond the clock, which may have been set back since.
        let as_of = Instant::parse(&record.transaction_time).expect("a record is checked when it is read");
        let snapshot = SnapshotRequest { time: as_of.into(), view: record.view.clone() };
        let request = with_baseline(&inner.files, &record, record.request.to_request(&directory));
        let store = &inner.options.store;
        let begin = || {
            ExportRun::begin(
                store,
                &request,
                &snapshot,
                &options,
                Existing::Resume,
                &job.progress,
                &SharedStatus::default(),
            )
        };
        match begin() {
            // The output cannot be resumed (it may be of another version of outpour): it is written from the start,
            // with the same transactionTime. None of its files was reported yet.
            Err(error) if is_spoiled(&error) || repair_index(store, &error, &job.progress)?.is_some() => {
                tracing::warn!(job = job.id, "what a job has begun cannot be gone on with; it begins anew");
                remove_output(inner, &job.id)?;
                begin()
            }
            begun => begun,
        }
    };
    let index_lock = inner.lock_index();
    let begun = run_guarded(inner, begin);
    match &begun {
        Ok(_) => inner.store_state.note(None),
        Err(Some(ExportError::Index(error))) => inner.store_state.note_error(error),
        Err(_) => {}
    }
    drop(index_lock);
    // 2. Record the counts, then let workers take the tasks.
    let failed = match begun {
        Ok(run) => {
            log_withheld(job, &run);
            let pending = (0..run.tasks()).rev().map(|task| (task, 0)).collect();
            // Files finished before a retry or a restart still count as complete.
            let before = record.planned.map_or(0, |planned| planned.complete);
            let planned =
                PlannedCounts { rows: run.plan().rows(), shards: run.plan().shards.len() as u64, complete: before };
            let recorded = match record.state {
                JobState::Running if record.planned == Some(planned) => Ok(true),
                _ => inner.change(job, |record| {
                    if record.state == JobState::Queued {
                        record.move_to(JobState::Running);
                    }
                    record.planned = Some(planned);
                }),
            };
            job.touch(&inner.now());
            let since = inner.now().ticks;
            let planned = RunPhase::AwaitingSpace { run: Arc::new(run), pending, since, full_until: None };
            // No worker takes up a job that is about to fail.
            *job.phase.lock().expect("no panic under it") = if recorded.is_ok() { planned } else { RunPhase::Ended };
            recorded.err().map(|error| Some(record_error(inner, error)))
        }
        // No worker takes up a job that is about to fail.
        Err(error) => {
            *job.phase.lock().expect("no panic under it") = RunPhase::Ended;
            Some(error)
        }
    };
    // 3. Let the next job be prepared, and end this one if it was deleted or has failed.
    let mut registry = inner.registry();
    registry.preparing = false;
    let parked = registry.stopping;
    let deleted = job.deleted.load(Relaxed);
    drop(registry);
    match failed {
        _ if deleted => discard_if_idle(inner, job),
        // A stopping engine cancels the work: the error is of that, and the next engine prepares the job again.
        Some(error) if !parked => fail_job(inner, job, error),
        _ => admit_jobs(inner),
    }
    inner.wake.notify_all();
}

/// Lets the planned jobs be written that have room on the disk by now, and ends those that will get none.
pub(crate) fn admit_jobs(inner: &EngineShared) {
    for RefusedJob { job, error } in admit_planned_jobs(inner) {
        if job.deleted.load(Relaxed) {
            discard_if_idle(inner, &job);
        } else {
            fail_job(inner, &job, Some(error));
        }
    }
}

/// Logs the issues of a job that its client does not get to see, for the operator.
fn log_withheld(job: &Job, run: &ExportRun) {
    match run.withheld_issues() {
        Ok(withheld) => withheld.into_iter().for_each(|(cause, count, first)| {
            tracing::warn!(job = job.id, cause, count, first = first.text, "not told to the client of the job");
        }),
        Err(error) => tracing::warn!(job = job.id, %error, "the messages of a job cannot be put together"),
    }
}

/// Writes one task of a run, which was tried `tried` times before. A task that fails is pending again if that may help,
/// else the job fails once no worker is busy with it.
fn write_task(inner: &Arc<EngineShared>, job: &Arc<Job>, run: Arc<ExportRun>, task: usize, tried: u32) {
    let written = run_guarded(inner, || run.write(task, &*inner.options.clock, &job.progress));
    // A run holds the lock of its directory. Only the phase may keep it, so that a restart of the job can acquire it.
    drop(run);
    let mut fatal = None;
    {
        let mut phase = job.phase.lock().expect("no panic under it");
        let RunPhase::Writing { pending, busy, failed, disk_full, waited_since, .. } = &mut *phase else { return };
        *busy -= 1;
        let stopped = job.progress.cancel.load(Relaxed);
        job.touch(&inner.now());
        match written {
            Ok(()) => *waited_since = None,
            Err(_) if stopped => pending.push((task, tried)),
            // Others took what was reserved. The job waits for room as it did when it was planned, and the wait decides.
            Err(Some(error)) if is_disk_full(&error) => {
                tracing::warn!(job = job.id, task, detail = %error, "a shard met a full disk");
                pending.insert(0, (task, tried));
                *disk_full = true;
            }
            Err(error) => {
                let again = tried + 1 < inner.options.limits.attempts && error.as_ref().is_some_and(is_transient);
                let detail = error.as_ref().map_or("a panic".to_string(), ToString::to_string);
                tracing::warn!(job = job.id, task, tried, again, detail, "a shard could not be written");
                match (again, error) {
                    // Taken after all others: the cause may have passed by then.
                    (true, _) => pending.insert(0, (task, tried + 1)),
                    (false, Some(error)) => *failed = Some(error),
                    (false, None) => *failed = Some(ExportError::Cancelled),
                }
            }
        }
        if *busy == 0
            && !stopped
            && let Some(error) = failed.take()
        {
            // No worker takes up the job while the index is repaired.
            if let RunPhase::Writing { run, .. } = std::mem::replace(&mut *phase, RunPhase::Preparing) {
                run.fail(&error, &*inner.options.clock);
            }
            fatal = Some(error);
        } else if let RunPhase::Writing { busy: 0, disk_full: true, .. } = &*phase {
            job.awaits_space.store(true, Relaxed);
            await_space_again(job, &mut phase, inner.now().ticks);
        }
    }
    if let Some(error) = fatal {
        repair_and_retry(inner, job, error);
    } else if job.deleted.load(Relaxed) {
        discard_if_idle(inner, job);
    }
    inner.wake.notify_all();
}

/// Has a job wait for room from `now`, in ticks, whose files met a full disk.
fn await_space_again(job: &Job, phase: &mut RunPhase, now: i64) {
    *phase = match std::mem::replace(phase, RunPhase::Ended) {
        RunPhase::Writing { run, pending, waited_since, .. } => {
            // What a failed task had written is gone.
            job.progress.write_done.store(run.source_bytes_written(), Relaxed);
            let full_until = now.saturating_add(DISK_FULL_PAUSE_SECONDS * TICKS_PER_SECOND);
            let since = waited_since.unwrap_or(now);
            RunPhase::AwaitingSpace { run, pending, since, full_until: Some(full_until) }
        }
        other => other,
    };
}

/// Whether another attempt may help. Damage of the index or of a packed file stays until it is repaired.
fn is_transient(error: &ExportError) -> bool {
    !matches!(error, ExportError::Index(IndexError::Damaged(_)) | ExportError::Frame { .. } | ExportError::Torn { .. })
}

/// Ends the run of a job after an error. If the index or a packed file was damaged, it is repaired and the job waits to
/// be prepared again, once; otherwise the job fails.
fn repair_and_retry(inner: &Arc<EngineShared>, job: &Arc<Job>, error: ExportError) {
    let first = !job.repaired_once.swap(true, Relaxed);
    let index_lock = inner.lock_index();
    let repaired = first
        && matches!(run_guarded(inner, || repair_index(&inner.options.store, &error, &job.progress)), Ok(Some(_)));
    drop(index_lock);
    if repaired {
        tracing::warn!(job = job.id, %error, "the index was mended; the job begins anew");
        remove_output(inner, &job.id).ok();
        job.progress.write_done.store(0, Relaxed);
        job.progress.files_done.store(0, Relaxed);
        // No shard counts as complete any more.
        inner.change(job, |record| record.planned = None).ok();
    }
    // No worker takes up a job that is about to fail.
    *job.phase.lock().expect("no panic under it") = if repaired { RunPhase::Waiting } else { RunPhase::Ended };
    if job.deleted.load(Relaxed) {
        discard_if_idle(inner, job);
    } else if !repaired {
        fail_job(inner, job, Some(error));
    }
}

/// Publishes the manifest of a run whose tasks are all written, and completes the job; on an error the job is repaired
/// and retried, fails, or waits for the next engine.
fn finish_job(inner: &Arc<EngineShared>, job: &Arc<Job>, run: Arc<ExportRun>) {
    let finished = run_guarded(inner, || run.finish(&*inner.options.clock, &job.progress));
    drop(run);
    let ended = match finished {
        Ok(exported) => complete_job(inner, job, &exported).map_err(|error| Some(record_error(inner, error))),
        Err(error) => Err(error),
    };
    let stopped = job.progress.cancel.load(Relaxed);
    match ended {
        Err(Some(error)) if !stopped => repair_and_retry(inner, job, error),
        ended => {
            *job.phase.lock().expect("no panic under it") = if stopped { RunPhase::Waiting } else { RunPhase::Ended };
            if job.deleted.load(Relaxed) {
                discard_if_idle(inner, job);
            } else if ended.is_err() && !stopped {
                fail_job(inner, job, None);
            }
        }
    }
    inner.wake.notify_all();
}

/// Share of a job that the worker threads have done, in hundredths from 0 to 99, never less than reported before.
pub(crate) fn percent_done(job: &Job) -> u8 {
    let progress = &job.progress;
    let share = |done: u64, total: u64| if total == 0 { 0.0 } else { (done as f64 / total as f64).min(1.0) };
    let (scan, write) = (progress.scan_total.load(Relaxed), progress.write_total.load(Relaxed));
    let scanned = share(progress.scan_done.load(Relaxed), scan);
    let written = share(progress.write_done.load(Relaxed), write);
    // Indexing new bytes is the first half of a job that has any.
    let done = if scan > 0 { scanned * 50.0 + written * 50.0 } else { written * 100.0 };
    let now = (done as u64).min(99);
    now.max(job.percent.fetch_max(now, Relaxed)) as u8
}

/// Hands the directory of a deleted job to the reaper, unless a worker is still busy with the job: the last worker to
/// finish calls this again.
fn discard_if_idle(inner: &EngineShared, job: &Arc<Job>) {
    let mut phase = job.phase.lock().expect("no panic under it");
    if !phase.is_busy() {
        *phase = RunPhase::Ended;
        // The registry is never acquired under a phase.
        drop(phase);
        inner.registry().trash.push(job.id.clone());
    }
}
