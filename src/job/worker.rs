//! What the engine's threads do: workers prepare, write and finish jobs by turns; the reaper expires and removes.

use crate::error::{ExportError, IndexError, JournalError};
use crate::export::options::{Existing, ExportOptions, SnapshotRequest};
use crate::export::repair::repair_index;
use crate::export::report::ExportReport;
use crate::export::run::ExportRun;
use crate::fhir::instant::Instant;
use crate::job::record::{
    FileRecord, GROUP_FILE, JobFailure, JobRecord, PATIENT_FILE, PlannedCounts, RecordKind, RecordedPopulation,
    UrlNaming,
};
use crate::job::registry::{Job, JobRegistry, RunPhase};
use crate::job::shared::{EngineShared, add_seconds, leave_queue};
use crate::job::state::JobState;
use crate::write::journal::Receipt;
use crate::write::output_name::OutputName;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Name of the output directory in a job's directory.
pub(crate) const OUT: &str = "out";
/// Times that a name is made for a file before it is believed that none is free.
const NAMES_TRIED_MAX: usize = 1000;
/// How long the reaper sleeps when nothing is due, at most.
pub(crate) const REAPER_SECONDS: u64 = 30;

/// A turn.
enum WorkItem {
    Prepare(Arc<Job>),
    Write(Arc<Job>, Arc<ExportRun>, usize, u32),
    Finish(Arc<Job>, Arc<ExportRun>),
}

/// A worker's life.
pub(crate) fn run_worker(inner: &Arc<EngineShared>) {
    let mut table = inner.registry();
    loop {
        if table.stopping {
            return;
        }
        let Some(turn) = next_work_item(&mut table) else {
            table = inner.wake.wait(table).expect("no panic under it");
            continue;
        };
        drop(table);
        match turn {
            WorkItem::Prepare(job) => prepare_job(inner, &job),
            WorkItem::Write(job, run, task, tried) => write_task(inner, &job, run, task, tried),
            WorkItem::Finish(job, run) => finish_job(inner, &job, run),
        }
        table = inner.registry();
    }
}

fn next_work_item(table: &mut JobRegistry) -> Option<WorkItem> {
    let JobRegistry { turns, preparing, .. } = table;
    turns.next(|job| {
        let mut stage = job.stage.lock().expect("no panic under it");
        match &mut *stage {
            RunPhase::Waiting if !*preparing => {
                *stage = RunPhase::Preparing;
                *preparing = true;
                Some(WorkItem::Prepare(job.clone()))
            }
            RunPhase::Writing { run, pending, busy, failed } => {
                if let (None, Some((task, tried))) = (&failed, pending.pop()) {
                    *busy += 1;
                    return Some(WorkItem::Write(job.clone(), run.clone(), task, tried));
                }
                if *busy > 0 || !pending.is_empty() {
                    return None;
                }
                let run = run.clone();
                *stage = RunPhase::Finishing;
                Some(WorkItem::Finish(job.clone(), run))
            }
            _ => None,
        }
    })
}

/// Runs work on the pool. A panic is the job's failure, not the service's.
fn run_guarded<T: Send>(
    inner: &EngineShared,
    work: impl FnOnce() -> Result<T, ExportError> + Send,
) -> Result<T, Option<ExportError>> {
    catch_unwind(AssertUnwindSafe(|| inner.pool.install(work))).map_err(|_| None)?.map_err(Some)
}

pub(crate) fn options<'a>(inner: &'a EngineShared, id: &str) -> ExportOptions<'a> {
    ExportOptions::new(inner.directory(id).join(OUT))
        .existing(Existing::Resume)
        .sync(inner.options.sync)
        .faults_allowed(inner.options.limits.faults_allowed)
        .clock(&*inner.options.clock)
        .words(inner.options.words)
}

/// Whether the output directory of a job is no good any more.
fn is_spoiled(error: &ExportError) -> bool {
    use crate::error::JournalError::{Damaged, Foreign, NotEmpty};
    matches!(
        error,
        ExportError::Differs { .. } | ExportError::Record(Damaged { .. } | Foreign { .. } | NotEmpty { .. })
    )
}

/// Makes the directory of a job, and looks that nothing in it leads elsewhere or would have a reader wait.
fn prepare_directory(inner: &EngineShared, record: &JobRecord) -> Result<(), ExportError> {
    let directory = inner.directory(&record.id);
    let failed = |name: &str| {
        let path = directory.join(name);
        |source| ExportError::Record(JournalError::Io { path, source })
    };
    let files = inner.files.make_directory(&record.id).map_err(failed(""))?;
    files.make_directory(OUT).map_err(failed(OUT))?;
    let given = match &record.request.whose {
        RecordedPopulation::Patient(_) => Some(PATIENT_FILE),
        RecordedPopulation::OwnGroup(_) => Some(GROUP_FILE),
        RecordedPopulation::System | RecordedPopulation::AllPatients | RecordedPopulation::StoreGroup(_) => None,
    };
    given.map_or(Ok(()), |name| files.open_file(name).map(drop).map_err(failed(name)))
}

/// Removes what a job has written.
fn remove_output(inner: &EngineShared, id: &str) -> Result<(), ExportError> {
    let place = format!("{id}/{OUT}");
    inner
        .files
        .remove_tree(&place)
        .map_err(|source| ExportError::Record(JournalError::Io { path: inner.options.files.join(&place), source }))
}

fn prepare_job(inner: &Arc<EngineShared>, job: &Arc<Job>) {
    let record = job.record();
    let directory = inner.directory(&job.id);
    *job.begun.lock().expect("no panic under it") = Some(inner.now());
    let begin = || {
        prepare_directory(inner, &record)?;
        let options = options(inner, &job.id);
        let as_of = Instant::parse(&record.transaction_time).expect("a record is checked when it is read");
        let moment = SnapshotRequest { as_of, view: record.view.clone() };
        let request = record.request.to_request(&directory);
        let store = &inner.options.store;
        let begin = || ExportRun::begin(store, &request, &moment, &options, Existing::Resume, &job.progress);
        match begin() {
            // What was begun cannot be gone on with (by another version of outpour, say): it begins anew, with its T.
            // Nobody was told of any of its files yet.
            Err(error) if is_spoiled(&error) || repair_index(store, &error, &job.progress)?.is_some() => {
                tracing::warn!(job = job.id, "what a job has begun cannot be gone on with; it begins anew");
                remove_output(inner, &job.id)?;
                begin()
            }
            begun => begun,
        }
    };
    let turn = inner.lock_index();
    let begun = run_guarded(inner, begin);
    drop(turn);
    let failed = match begun {
        Ok(run) => {
            log_withheld(job, &run);
            let pending = (0..run.tasks()).rev().map(|task| (task, 0)).collect();
            // What stood in the record before a retry or a restart stands now.
            let before = record.planned.map_or(0, |planned| planned.complete);
            let planned =
                PlannedCounts { rows: run.plan().rows(), shards: run.plan().shards.len() as u64, complete: before };
            let noted = match record.state {
                JobState::Running if record.planned == Some(planned) => Ok(true),
                _ => inner.change(job, |record| {
                    if record.state == JobState::Queued {
                        record.move_to(JobState::Running);
                    }
                    record.planned = Some(planned);
                }),
            };
            job.touch(&inner.now());
            let stage = RunPhase::Writing { run: Arc::new(run), pending, busy: 0, failed: None };
            *job.stage.lock().expect("no panic under it") = stage;
            noted.err().map(|error| Some(record_error(inner, error)))
        }
        // Nobody takes a turn of what is about to fail.
        Err(error) => {
            *job.stage.lock().expect("no panic under it") = RunPhase::Ended;
            Some(error)
        }
    };
    let mut table = inner.registry();
    table.preparing = false;
    let parked = table.stopping;
    let gone = job.deleted.load(Relaxed);
    drop(table);
    match failed {
        _ if gone => leave_queue(inner, job),
        // What was cut off by the stop is for the next service.
        Some(error) if !parked => fail_job(inner, job, error),
        _ => {}
    }
    inner.wake.notify_all();
}

/// Leaves in the log what the operator may know and the job's client is not told.
fn log_withheld(job: &Job, run: &ExportRun) {
    match run.withheld_issues() {
        Ok(withheld) => withheld.into_iter().for_each(|(cause, count, first)| {
            tracing::warn!(job = job.id, cause, count, first = first.text, "not told to the client of the job");
        }),
        Err(error) => tracing::warn!(job = job.id, %error, "the messages of a job cannot be put together"),
    }
}

fn write_task(inner: &Arc<EngineShared>, job: &Arc<Job>, run: Arc<ExportRun>, task: usize, tried: u32) {
    let done = run_guarded(inner, || run.write(task, &*inner.options.clock, &job.progress));
    // A run holds the lock of its directory: nobody may hold one that the stage does not.
    drop(run);
    let mut over = None;
    {
        let mut stage = job.stage.lock().expect("no panic under it");
        let RunPhase::Writing { pending, busy, failed, .. } = &mut *stage else { return };
        *busy -= 1;
        let stopped = job.progress.cancel.load(Relaxed);
        job.touch(&inner.now());
        match done {
            Ok(()) => {}
            Err(_) if stopped => pending.push((task, tried)),
            Err(error) => {
                let again = tried + 1 < inner.options.limits.attempts && error.as_ref().is_some_and(is_transient);
                let detail = error.as_ref().map_or("a panic".to_string(), ToString::to_string);
                tracing::warn!(job = job.id, task, tried, again, detail, "a shard could not be written");
                match (again, error) {
                    // Behind the others: what was wrong may have passed by then.
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
            // Nobody takes a turn of it while it is mended.
            if let RunPhase::Writing { run, .. } = std::mem::replace(&mut *stage, RunPhase::Preparing) {
                run.fail(&error, &*inner.options.clock);
            }
            over = Some(error);
        }
    }
    if let Some(error) = over {
        repair_and_retry(inner, job, error);
    } else if job.deleted.load(Relaxed) {
        leave_queue(inner, job);
    }
    inner.wake.notify_all();
}

/// Whether trying once more may help.
fn is_transient(error: &ExportError) -> bool {
    !matches!(error, ExportError::Index(IndexError::Damaged(_)) | ExportError::Frame { .. } | ExportError::Torn { .. })
}

/// A job whose index or packed file was found damaged begins anew, once; others fail. No run of it is left.
fn repair_and_retry(inner: &Arc<EngineShared>, job: &Arc<Job>, error: ExportError) {
    let first = !job.mended.swap(true, Relaxed);
    let turn = inner.lock_index();
    let recovered = first
        && matches!(run_guarded(inner, || repair_index(&inner.options.store, &error, &job.progress)), Ok(Some(_)));
    drop(turn);
    if recovered {
        tracing::warn!(job = job.id, %error, "the index was mended; the job begins anew");
        remove_output(inner, &job.id).ok();
        job.progress.write_done.store(0, Relaxed);
        job.progress.files_done.store(0, Relaxed);
        // Nothing that was finished stands any more.
        inner.change(job, |record| record.planned = None).ok();
    }
    // Nobody takes a turn of what is about to fail.
    *job.stage.lock().expect("no panic under it") = if recovered { RunPhase::Waiting } else { RunPhase::Ended };
    if job.deleted.load(Relaxed) {
        leave_queue(inner, job);
    } else if !recovered {
        fail_job(inner, job, Some(error));
    }
}

fn finish_job(inner: &Arc<EngineShared>, job: &Arc<Job>, run: Arc<ExportRun>) {
    let done = run_guarded(inner, || run.finish(&*inner.options.clock, &job.progress));
    drop(run);
    let ended = match done {
        Ok(exported) => complete_job(inner, job, &exported).map_err(|error| Some(record_error(inner, error))),
        Err(error) => Err(error),
    };
    let stopped = job.progress.cancel.load(Relaxed);
    match ended {
        Err(Some(error)) if !stopped => repair_and_retry(inner, job, error),
        ended => {
            *job.stage.lock().expect("no panic under it") = if stopped { RunPhase::Waiting } else { RunPhase::Ended };
            if job.deleted.load(Relaxed) {
                leave_queue(inner, job);
            } else if ended.is_err() && !stopped {
                fail_job(inner, job, None);
            }
        }
    }
    inner.wake.notify_all();
}

fn complete_job(inner: &EngineShared, job: &Arc<Job>, exported: &ExportReport) -> std::io::Result<()> {
    let record = job.record();
    // Whoever reads of a file in the record finds it; before, nobody knows its name.
    let named = {
        let mut table = inner.registry();
        let mut name = |index: usize, of: &str| {
            let names = (0..NAMES_TRIED_MAX).map(|_| match record.naming {
                UrlNaming::Random => inner.new_id(),
                UrlNaming::Typed => format!("{of}_{}.ndjson", &inner.new_id()[..8]),
            });
            for id in names {
                if let Entry::Vacant(free) = table.files.entry((record.mount.clone(), id.clone())) {
                    free.insert((job.clone(), index));
                    return Ok(id);
                }
            }
            Err(std::io::Error::other("no name for a file is free"))
        };
        let file = |(i, receipt): (usize, &Receipt)| {
            let (id, receipt) = (name(i, &receipt.r#type)?, receipt.clone());
            let kind = OutputName::parse(&receipt.file).map_or(RecordKind::Output, |name| RecordKind::of(&name));
            Ok(FileRecord { id, kind, receipt })
        };
        exported.files.iter().enumerate().map(file).collect::<std::io::Result<Vec<FileRecord>>>()
    };
    let files = match named {
        Ok(files) => files,
        Err(error) => {
            inner.registry().files.retain(|_, (owner, _)| !Arc::ptr_eq(owner, job));
            return Err(error);
        }
    };
    let changed = inner.change(job, |record| {
        record.move_to(JobState::Complete);
        record.view = None;
        record.files = files;
        record.planned = record.planned.map(|planned| PlannedCounts { complete: planned.shards, ..planned });
        record.extension = exported.manifest.extension.clone();
        end_job(record, inner.now());
    });
    let mut table = inner.registry();
    match changed {
        Ok(true) => {
            table.set_due(job.record().expiry());
            table.turns.remove(job);
            job.touch(&inner.now());
            tracing::info!(job = job.id, files = exported.files.len(), "a job is complete");
        }
        _ => table.files.retain(|_, (owner, _)| !Arc::ptr_eq(owner, job)),
    }
    changed.map(drop)
}

/// What all ends of a job have in common.
fn end_job(record: &mut JobRecord, now: Instant) {
    record.expires = record.keep_seconds.map(|seconds| add_seconds(&now, seconds).to_string());
    record.ended = Some(now.to_string());
}

/// Ends a job without success; no error stands for a panic.
fn fail_job(inner: &EngineShared, job: &Arc<Job>, error: Option<ExportError>) {
    let detail = error.as_ref().map_or("a worker panicked".to_string(), ToString::to_string);
    let reason = error.as_ref().map_or("the service failed; its operator finds the cause in the log", public_reason);
    tracing::error!(job = job.id, detail, "a job failed");
    let failure = JobFailure { reason: reason.to_string(), detail };
    let left = planned_counts(job, &job.record());
    // Whoever reads that it has failed may have it tried again at once: by then nothing is left of this try.
    *job.stage.lock().expect("no panic under it") = RunPhase::Ended;
    inner.registry().turns.remove(job);
    job.touch(&inner.now());
    let changed = inner.change(job, |record| {
        record.move_to(JobState::Failed);
        record.failure = Some(failure);
        record.planned = left;
        end_job(record, inner.now());
    });
    if let Err(error) = changed {
        // It stays active on the disk, and is tried again by the next service on this directory.
        tracing::error!(job = job.id, %error, "the record of a failed job cannot be written");
        let mut held = job.record.lock().expect("no panic under it");
        let mut record = (**held).clone();
        record.state = JobState::Failed;
        record.failure =
            Some(JobFailure { reason: public_reason(&ExportError::Cancelled).to_string(), detail: error.to_string() });
        *held = Arc::new(record);
    }
    inner.registry().set_due(job.record().expiry());
}

/// What a client may know of an error: no path of the host, nothing of the data.
fn public_reason(error: &ExportError) -> &'static str {
    match error {
        ExportError::Request(_) => {
            "what was asked for cannot be exported any more: the Group is gone or cannot stand for patients"
        }
        ExportError::Faults { .. } => "the store holds more faulty lines than this service allows",
        ExportError::Index(IndexError::Changed { .. } | IndexError::SnapshotLost { .. }) | ExportError::Torn { .. } => {
            "a file of the store was changed in place while it was read; ask again"
        }
        ExportError::Index(_) | ExportError::Decode(_) | ExportError::Frame { .. } => {
            "the store cannot be read as a whole; its operator finds the cause in the log"
        }
        ExportError::Write { .. } | ExportError::Record(_) => {
            "an output file cannot be written; the operator finds the cause in the log"
        }
        ExportError::Differs { .. } | ExportError::Import { .. } | ExportError::Cancelled => {
            "the service failed; its operator finds the cause in the log"
        }
    }
}

fn record_error(inner: &EngineShared, source: std::io::Error) -> ExportError {
    ExportError::Write { directory: inner.options.records.clone(), name: "the record of the job".to_string(), source }
}

/// How much a job has to do and has done, if it is planned; never more done than there is, nor less than was recorded.
pub(crate) fn planned_counts(job: &Job, record: &JobRecord) -> Option<PlannedCounts> {
    let planned = record.planned?;
    let done = job.progress.files_done.load(Relaxed);
    Some(PlannedCounts { complete: planned.complete.max(done).min(planned.shards), ..planned })
}

/// How much of a job is done, in hundredths, never less than was told before and never all.
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
