//! The pipeline in one file: open, snapshot, cohort, select, plan, write, publish.
//!
//! An output directory holds a job: its record first, then the files, the manifest last (MANIFEST-18). Whatever stops
//! a run in between, `--resume` finishes it to the same bytes from the record. This module decides nothing about rows
//! and knows no flags, clocks or terminals; it takes the time from its caller.

pub(crate) mod messages;
pub(crate) mod options;
pub(crate) mod plan_record;
pub(crate) mod planning;
pub(crate) mod repair;
pub(crate) mod report;
pub(crate) mod run;
#[cfg(test)]
mod tests;
pub(crate) mod to_sink;

use crate::error::ExportError;
use crate::export::options::{Existing, ExportOptions, SnapshotRequest};
use crate::export::repair::repair_index;
use crate::export::report::ExportReport;
use crate::export::run::ExportRun;
use crate::fhir::instant::Instant;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::store::Store;

use rayon::prelude::*;

/// Runs an export as of `as_of`, or resumes one.
///
/// # Errors
/// [`ExportError`]; whatever it is, nothing half-written stands under a published name.
pub fn export(
    store: &Store,
    request: &ExportRequest,
    as_of: Instant,
    options: &ExportOptions<'_>,
    progress: &Progress,
) -> Result<ExportReport, ExportError> {
    let mut moment = SnapshotRequest { as_of, view: None };
    let error = match attempt(store, request, &mut moment, options, options.existing, progress) {
        Err(error) => error,
        done => return done,
    };
    let Some(repaired) = repair_index(store, &error, progress)? else { return Err(error) };
    if !request.population.can_be_read_again() {
        return Err(error);
    }
    // The export begins anew, once, with the T it had.
    progress.begin_writing_again();
    let mut done = attempt(store, request, &mut moment, options, Existing::Force, progress)?;
    done.index.repaired.extend(repaired);
    Ok(done)
}

fn attempt(
    store: &Store,
    request: &ExportRequest,
    moment: &mut SnapshotRequest,
    options: &ExportOptions<'_>,
    existing: Existing,
    progress: &Progress,
) -> Result<ExportReport, ExportError> {
    let run = ExportRun::begin(store, request, moment, options, existing, progress)?;
    moment.as_of = run.transaction_time().clone();
    let transaction_time = || run.transaction_time().clone();
    let clock = options.clock.unwrap_or(&transaction_time);
    let write_all = || {
        (0..run.tasks()).into_par_iter().try_for_each(|task| run.write(task, clock, progress))?;
        run.finish(clock, progress)
    };
    let done = match write_all() {
        // The export that is replaced gives its room.
        Err(error) if run.lacks_room(&error) => run.make_room().and_then(|()| write_all()),
        done => done,
    };
    done.inspect_err(|error| run.fail(error, clock))
}
