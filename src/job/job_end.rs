//! The end of a job: complete, with names for its files, or failed, with a reason that its client may read. Also what
//! stays of it on the disk, and what is removed at once or later.

use crate::error::{ExportError, IndexError, limit_of};
use crate::export::report::ExportReport;
use crate::fhir::instant::Instant;
use crate::hash::digest::Digest;
use crate::issue::Parameter;
use crate::job::record::{
    DEPARTED_TYPE, DepartedRecord, FileRecord, JobFailure, JobRecord, OUT, PlannedCounts, RecordKind, UrlNaming,
};
use crate::job::registry::{Job, RunPhase};
use crate::job::shared::{EngineShared, add_seconds};
use crate::job::space::{bytes_on_disk, is_disk_full};
use crate::job::state::JobState;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::sys::durability::FileSync;
use crate::write::journal::{JOB, PLAN, Receipt};
use crate::write::manifest::EXPORT_KEY;
use crate::write::output_name::OutputName;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Path of the plan of the job with this id, beneath the directory of the jobs' directories.
pub(crate) fn plan_file(id: &str) -> String {
    format!("{id}/{OUT}/{JOB}/{PLAN}")
}

/// Random names tried for one file before the job fails for want of a free one.
const NAMES_TRIED_MAX: usize = 1000;

/// Names the files of a finished export, records the job as complete and takes it out of the queue.
///
/// # Errors
/// If no name is free, or the record cannot be written; the names are then free again.
pub(crate) fn complete_job(inner: &EngineShared, job: &Arc<Job>, exported: &ExportReport) -> std::io::Result<()> {
    let record = job.record();
    // The names are registered before the record lists them, so that every listed file can be fetched at once.
    let named = {
        let mut registry = inner.registry();
        let mut name = |index: usize, of: &str| {
            let names = (0..NAMES_TRIED_MAX).map(|_| match record.naming {
                UrlNaming::Random => inner.new_id(),
                UrlNaming::Typed => format!("{of}_{}.ndjson", &inner.new_id()[..8]),
            });
            for id in names {
                if let Entry::Vacant(free) = registry.files.entry((record.mount.clone(), id.clone())) {
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
        let listed = exported.files.iter().enumerate().map(file).collect::<std::io::Result<Vec<FileRecord>>>();
        listed.and_then(|listed| match departed_facts(exported) {
            None => Ok((listed, None)),
            Some((bytes, digest)) => {
                let id = name(listed.len(), DEPARTED_TYPE)?;
                Ok((listed, Some(DepartedRecord { id, bytes, digest })))
            }
        })
    };
    let (files, departed) = match named {
        Ok(named) => named,
        Err(error) => {
            inner.registry().files.retain(|_, (owner, _)| !Arc::ptr_eq(owner, job));
            return Err(error);
        }
    };
    inner.options.space.measure(record.request.compression, &exported.files);
    job.disk_bytes.store(exported.files.iter().map(|file| file.file_bytes).sum(), Relaxed);
    // Whoever reads that the job is complete may build on it at once.
    if let Err(error) = inner.baselines.keep(&inner.files, &record, exported, &inner.now()) {
        tracing::warn!(job = job.id, %error, "the patients of an export cannot be kept; who joins later is not known");
    }
    let changed = inner.change(job, |record| {
        record.move_to(JobState::Complete);
        record.view = None;
        record.files = files;
        record.departed = departed;
        record.planned = record.planned.map(|planned| PlannedCounts { complete: planned.shards, ..planned });
        record.extension = exported.manifest.extension.clone();
        end_job(record, inner.now());
    });
    let mut registry = inner.registry();
    match changed {
        Ok(true) => {
            registry.set_due(job.record().expiry());
            registry.queue.remove(job);
            drop(registry);
            job.touch(&inner.now());
            remove_inputs(inner, &job.id);
            let listed = &job.record().files;
            let rows: u64 =
                listed.iter().filter(|file| file.kind == RecordKind::Output).map(|file| file.receipt.count).sum();
            let bytes: u64 = listed.iter().map(|file| file.receipt.file_bytes).sum();
            tracing::info!(
                target: "outpour::audit", job = job.id, client = record.client_name(), mount = record.mount, rows,
                files = listed.len(), bytes, "a job is complete"
            );
        }
        _ => {
            registry.files.retain(|_, (owner, _)| !Arc::ptr_eq(owner, job));
            drop(registry);
            inner.baselines.discard(&inner.files, &job.id);
        }
    }
    changed.map(drop)
}

/// Length and digest of the list of who left, if the export has one.
fn departed_facts(exported: &ExportReport) -> Option<(u64, Option<Digest>)> {
    let departed = exported.manifest.extension.get(EXPORT_KEY)?.get("departed")?;
    let digest = serde_json::from_value(departed["digest"].clone()).ok()?;
    Some((departed["bytes"].as_u64()?, digest))
}

/// Sets the end and the expiry of a job's record, as every end of a job does. Neither goes by a clock that was set back
/// behind the job's transactionTime.
fn end_job(record: &mut JobRecord, now: Instant) {
    let now = Instant::parse(&record.transaction_time).into_iter().chain([now]).max().expect("not empty");
    record.expires = record.keep_seconds.map(|seconds| add_seconds(&now, seconds).to_string());
    record.ended = Some(now.to_string());
}

/// Removes the copies of Groups and patients that a job was to export, once it is complete.
fn remove_inputs(inner: &EngineShared, id: &str) {
    let names = inner.files.directory(id).and_then(|directory| directory.names()).unwrap_or_default();
    for name in names.iter().filter_map(|name| name.to_str()).filter(|name| *name != OUT) {
        if let Err(error) = inner.files.remove_tree(&format!("{id}/{name}")) {
            tracing::warn!(job = id, %error, "the copy of a Group of a complete job cannot be removed");
        }
    }
}

/// Records a job as failed and takes it out of the queue; `error` is `None` after a panic.
pub(crate) fn fail_job(inner: &EngineShared, job: &Arc<Job>, error: Option<ExportError>) {
    let detail = error.as_ref().map_or("a worker panicked".to_string(), |error| match limit_of(error) {
        Some(limit) => format!("{error}; {limit}"),
        None => error.to_string(),
    });
    let reason = error.as_ref().map_or("the service failed; its operator finds the cause in the log", public_reason);
    tracing::error!(job = job.id, detail, "a job failed");
    let record = job.record();
    tracing::info!(
        target: "outpour::audit", job = job.id, client = record.client_name(), mount = record.mount, "a job is over: it failed"
    );
    let failure = JobFailure { reason: reason.to_string(), detail };
    let planned = planned_counts(job, &job.record());
    // A client that reads of the failure may retry at once: by then no run, queue entry or lock of this attempt is
    // left.
    *job.phase.lock().expect("no panic under it") = RunPhase::Ended;
    job.disk_bytes.store(bytes_on_disk(inner, &job.id), Relaxed);
    inner.registry().queue.remove(job);
    job.touch(&inner.now());
    let changed = inner.change(job, |record| {
        record.move_to(JobState::Failed);
        record.failure = Some(failure);
        record.planned = planned;
        end_job(record, inner.now());
    });
    if let Err(error) = changed {
        // The record on disk stays active: the next engine on this directory tries the job again.
        tracing::error!(job = job.id, %error, "the record of a failed job cannot be written");
        let mut held = job.record.lock().expect("no panic under it");
        let mut record = (**held).clone();
        record.state = JobState::Failed;
        record.failure =
            Some(JobFailure { reason: public_reason(&ExportError::Cancelled).to_string(), detail: error.to_string() });
        *held = Arc::new(record);
    }
    let record = job.record();
    let due = failed_files_due(&record, inner.options.limits.failed_seconds);
    inner.registry().set_due(record.expiry().into_iter().chain(due).min());
}

/// Reason of a failure in words for the client: no path of the host, nothing of the data.
fn public_reason(error: &ExportError) -> &'static str {
    match error {
        error if is_disk_full(error) => {
            "there is no room on the disk for the files of this export: delete exports that are done with, ask for less, or \
             ask again when others have expired"
        }
        ExportError::Request(wrong) if wrong.problems.iter().any(|one| one.parameter == Some(Parameter::Out)) => {
            "the service failed; its operator finds the cause in the log"
        }
        ExportError::Request(_) => {
            "what was asked for cannot be exported any more: the Group is gone or cannot stand for patients"
        }
        ExportError::Faults { .. } => "the store holds more faulty lines than this service allows",
        ExportError::Index(IndexError::Changed { .. } | IndexError::SnapshotLost { .. }) | ExportError::Torn { .. } => {
            "a file of the store was changed in place while it was read; ask again"
        }
        ExportError::Index(IndexError::NoDataFiles { .. } | IndexError::ResourcesMissing { .. }) => {
            "the store lacks much of what it held; ask again when its operator has restored it"
        }
        ExportError::Index(_) | ExportError::Decode(_) | ExportError::Frame { .. } => {
            "the store cannot be read as a whole; its operator finds the cause in the log"
        }
        ExportError::Write { .. } | ExportError::Record(_) => {
            "an output file cannot be written; the operator finds the cause in the log"
        }
        ExportError::Differs { .. }
        | ExportError::Import { .. }
        | ExportError::Unsynced { .. }
        | ExportError::Cancelled => "the service failed; its operator finds the cause in the log",
    }
}

/// The export error for a job record that cannot be written.
pub(crate) fn record_error(inner: &EngineShared, source: std::io::Error) -> ExportError {
    ExportError::Write { directory: inner.options.records.clone(), name: "the record of the job".to_string(), source }
}

/// Counts of the shards of a job, planned and written by the worker threads (`complete`), `None` before it is planned.
/// `complete` is at most the number of shards and at least the recorded one.
pub(crate) fn planned_counts(job: &Job, record: &JobRecord) -> Option<PlannedCounts> {
    let planned = record.planned?;
    let files_done = job.progress.files_done.load(Relaxed);
    Some(PlannedCounts { complete: planned.complete.max(files_done).min(planned.shards), ..planned })
}

/// Removes what a failed job has written, all but its plan, which says what it exports. Another try writes everything anew.
///
/// # Errors
/// The system's; what is left then is removed later.
pub(crate) fn remove_failed_output(inner: &EngineShared, id: &str) -> std::io::Result<()> {
    let (output, plan) = (format!("{id}/{OUT}"), plan_file(id));
    let recorded = inner.files.read(&plan, MANIFEST_BYTES_MAX).ok();
    inner.files.remove_tree(&output)?;
    let Some(recorded) = recorded else { return Ok(()) };
    inner.files.make_directory(&output)?;
    inner.files.make_directory(&format!("{output}/{JOB}"))?;
    inner.files.replace(&plan, &recorded, inner.options.sync == FileSync::Yes)
}

/// When the files of a failed job go; `None` for any other.
pub(crate) fn failed_files_due(record: &JobRecord, failed_seconds: u64) -> Option<Instant> {
    let has_files = record.state == JobState::Failed && !record.files_removed;
    let ended = record.ended.as_deref().and_then(Instant::parse).filter(|_| has_files)?;
    Some(add_seconds(&ended, failed_seconds))
}
