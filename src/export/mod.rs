//! The pipeline: open → snapshot → cohort → select → plan → write → publish.
//!
//! `run` has the steps, `planning` the way from a request to a plan. An output directory holds a run: its journal first, then
//! the files, the manifest last (MANIFEST-18). A run that stopped anywhere in between is resumed to the same bytes from the
//! journal. This module decides nothing about rows and knows no flags, clocks or terminals; it takes the time from its caller.

pub(crate) mod baseline_record;
pub(crate) mod chain_link;
pub(crate) mod messages;
pub(crate) mod options;
pub(crate) mod plan_record;
pub(crate) mod planning;
pub(crate) mod prepare;
pub(crate) mod reader_state;
pub(crate) mod repair;
pub(crate) mod report;
pub(crate) mod run;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod to_sink;
pub(crate) mod vanished_record;

use crate::error::ExportError;
use crate::export::options::{Existing, ExportOptions, SnapshotRequest};
use crate::export::prepare::SharedStatus;
use crate::export::repair::repair_index;
use crate::export::report::ExportReport;
use crate::export::run::ExportRun;
use crate::index::snapshot_time::SnapshotTime;
use crate::progress::{Phase, Progress};
use crate::request::ExportRequest;
use crate::store::Store;
use crate::write::status_file::StatusFile;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::Thread;
use std::time::Duration;

use rayon::prelude::*;

/// Runs an export at `time`, which is the transactionTime or has it chosen by the clock
/// ([`SnapshotTime::by_clock`]), or resumes one. If the index turns out to be damaged on the way, it is repaired and the
/// export starts over, once, with the T it had.
///
/// # Errors
/// [`ExportError`]; whatever it is, nothing half-written has a published name.
pub fn export(
    store: &Store,
    request: &ExportRequest,
    time: impl Into<SnapshotTime>,
    options: &ExportOptions<'_>,
    progress: &Progress,
) -> Result<ExportReport, ExportError> {
    // Without a clock there is no time to tell before there is a plan.
    let Some(clock) = options.clock else {
        return export_with_status(store, request, time.into(), options, progress, &SharedStatus::default());
    };
    let status = SharedStatus::new(StatusFile::announcing().into());
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !is_done.load(Relaxed) {
                status.lock().expect("no panic under it").look(progress.phase(), clock()).ok();
                std::thread::park_timeout(STATUS_INTERVAL);
            }
        });
        // Also on a panic of the work: the scope joins its threads before the panic is passed on.
        let _end = StatusWriterEnd { is_done: &is_done, writer: writer.thread() };
        export_with_status(store, request, time.into(), options, progress, &status)
    })
}

/// How often the status of an export is looked at, so that each step is told.
const STATUS_INTERVAL: Duration = Duration::from_millis(50);

/// Ends the thread that writes the status when it is dropped.
struct StatusWriterEnd<'a> {
    /// Looked at by the thread in every round.
    is_done: &'a AtomicBool,
    /// The thread, to be woken from its pause.
    writer: &'a Thread,
}

impl Drop for StatusWriterEnd<'_> {
    fn drop(&mut self) {
        self.is_done.store(true, Relaxed);
        self.writer.unpark();
    }
}

/// As [`export`], with the status that it tells.
fn export_with_status(
    store: &Store,
    request: &ExportRequest,
    time: SnapshotTime,
    options: &ExportOptions<'_>,
    progress: &Progress,
    status: &SharedStatus,
) -> Result<ExportReport, ExportError> {
    let mut snapshot = SnapshotRequest { time, view: None };
    let error = match attempt(store, request, &mut snapshot, options, options.existing, progress, status) {
        Err(error) => error,
        done => return done,
    };
    let Some(repaired) = repair_index(store, &error, progress)? else { return Err(error) };
    if !request.population.can_be_read_again() {
        return Err(error);
    }
    progress.begin_writing_again();
    let mut report = attempt(store, request, &mut snapshot, options, Existing::Force, progress, status)?;
    report.index.repaired.extend(repaired);
    Ok(report)
}

/// One pass of the pipeline over the output directory.
fn attempt(
    store: &Store,
    request: &ExportRequest,
    snapshot: &mut SnapshotRequest,
    options: &ExportOptions<'_>,
    existing: Existing,
    progress: &Progress,
    status: &SharedStatus,
) -> Result<ExportReport, ExportError> {
    // open, snapshot, cohort, select, plan
    let run = ExportRun::begin(store, request, snapshot, options, existing, progress, status)?;
    // An attempt after this one has the same T, which this one has recorded.
    snapshot.time = snapshot.time.settled(run.transaction_time().clone());
    let transaction_time = || run.transaction_time().clone();
    let clock = options.clock.unwrap_or(&transaction_time);
    let write_and_publish = || {
        progress.begin(Phase::Writing);
        (0..run.tasks()).into_par_iter().try_for_each(|task| run.write(task, clock, progress))?;
        run.finish(clock, progress)
    };
    let report = match write_and_publish() {
        // A full disk: the export that is replaced is removed first, to make room.
        Err(error) if run.lacks_room(&error) => run.make_room().and_then(|()| write_and_publish()),
        report => report,
    };
    report.inspect_err(|error| run.fail(error, clock))
}
