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
pub(crate) mod reader_state;
pub(crate) mod repair;
pub(crate) mod report;
pub(crate) mod run;
#[cfg(test)]
mod tests;
pub(crate) mod to_sink;
pub(crate) mod vanished_record;

use crate::error::ExportError;
use crate::export::options::{Existing, ExportOptions, SnapshotRequest};
use crate::export::repair::repair_index;
use crate::export::report::ExportReport;
use crate::export::run::ExportRun;
use crate::index::snapshot_time::SnapshotTime;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::store::Store;

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
    let mut snapshot = SnapshotRequest { time: time.into(), view: None };
    let error = match attempt(store, request, &mut snapshot, options, options.existing, progress) {
        Err(error) => error,
        done => return done,
    };
    let Some(repaired) = repair_index(store, &error, progress)? else { return Err(error) };
    if !request.population.can_be_read_again() {
        return Err(error);
    }
    progress.begin_writing_again();
    let mut report = attempt(store, request, &mut snapshot, options, Existing::Force, progress)?;
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
) -> Result<ExportReport, ExportError> {
    // open, snapshot, cohort, select, plan
    let run = ExportRun::begin(store, request, snapshot, options, existing, progress)?;
    // An attempt after this one has the same T, which this one has recorded.
    snapshot.time = snapshot.time.settled(run.transaction_time().clone());
    let transaction_time = || run.transaction_time().clone();
    let clock = options.clock.unwrap_or(&transaction_time);
    let write_and_publish = || {
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
