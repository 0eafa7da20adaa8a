//! The pipeline in one file: open, snapshot, cohort, select, plan, write, publish.
//!
//! An output directory holds a job: its record first, then the files, the manifest last (MANIFEST-18). Whatever stops
//! a run in between, `--resume` finishes it to the same bytes from the record. This module decides nothing about rows
//! and knows no flags, clocks or terminals; it takes the time from its caller.

pub mod plan_record;
pub mod run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;

use crate::codec::decoder::DecodeError;
use crate::error::{ExportError, IndexError, Problem, RequestError};
use crate::export::run::{Clock, ExportRun};
use crate::extract::fault::FaultKind;
use crate::fhir::instant::Instant;
use crate::index::refresh::Work;
use crate::index::segment::layout::Column;
use crate::index::snapshot::Snapshot;
use crate::index::store_listing::View;
use crate::issue::{Code, Message, Messages, Parameter, Severity, Words};
use crate::plan::{Plan, plan, policy_messages};
use crate::request::{Audience, ExportRequest};
use crate::select::selection::Ledger;
use crate::store::packed::seek_table::is_packed;
use crate::store::{Store, Watch};
use crate::sys::store_file::{Access, Source};
use crate::write::journal::Receipt;
use crate::write::manifest::Manifest;
use crate::write::sink::Sync;

/// Stem of the files of deletions.
const DELETED: &str = "deleted/Bundle";
/// Stem of the files of messages.
const ERROR: &str = "error/OperationOutcome";

/// What to do with an output directory that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse it.
    Refuse,
    /// Go on with the run that its record names (CLI-04).
    Resume,
    /// Begin anew. An export that stands is left whole until the new one is planned and, where there is room, written; of
    /// the directory's files only those that a record lists are removed.
    Force,
}

/// Most faults that an export puts up with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultsAllowed {
    /// So many lines.
    Count(u64),
    /// So many of a hundred lines.
    Percent(f64),
}

/// Where and how an export is written.
pub struct ExportOptions<'a> {
    /// The output directory.
    pub out: PathBuf,
    /// What to do if it is in use.
    pub existing: Existing,
    /// Whether files are synced before the manifest appears.
    pub sync: Sync,
    /// Bound on faulty lines, if any.
    pub faults_allowed: Option<FaultsAllowed>,
    /// The time, for `status.json` only.
    pub clock: Clock<'a>,
    /// How the message files speak.
    pub words: &'a Words,
}

/// What moment of a store an export sees.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The transactionTime.
    pub as_of: Instant,
    /// What the store held when it was asked; what it holds when the export begins if `None`.
    pub view: Option<View>,
}

/// What an export did.
pub struct Exported {
    /// The published manifest.
    pub manifest: Manifest,
    /// Where it lies.
    pub manifest_path: PathBuf,
    /// Receipts of all files, in the manifest's order.
    pub files: Vec<Receipt>,
    /// The ledger.
    pub ledger: Ledger,
    /// Worst message of the error files, if there is one.
    pub worst: Option<Severity>,
    /// Messages by severity.
    pub messages: BTreeMap<Severity, u64>,
    /// Work on the index.
    pub index: Work,
    /// Files that a resumed run found finished.
    pub resumed_files: usize,
    /// The transactionTime.
    pub transaction_time: Instant,
    /// Members listed by the Group or file, before duplicates collapse.
    pub members_listed: u64,
    /// Patients of the cohort, by relative reference.
    pub members_found: u64,
    /// Files in the store's tree that are no data files.
    pub ignored: Vec<String>,
}

/// Plans without writing: the estimate that `--plan` prints. The index is not written either, and notes no snapshot: what it
/// lacks is made in memory.
///
/// # Errors
/// As [`plan`].
pub fn plan_only(
    store: &Store,
    request: &ExportRequest,
    as_of: Instant,
    watch: &Watch,
) -> Result<(Plan, Snapshot, Work), ExportError> {
    request.check()?;
    let store = store.read_only();
    let take = || store.snapshot_watched(as_of.clone(), watch);
    let (snapshot, work, plan, _) = planned_from(request, &take, &|| store.snapshot_rechecked(as_of.clone(), watch))?;
    Ok((plan, snapshot, work))
}

/// A snapshot, the work that it took, its plan and all messages.
type Planned = (Snapshot, Work, Plan, Messages);

/// Takes a snapshot and plans. An index that turns out to be damaged is checked as a whole, repaired, and asked again.
fn planned(
    store: &Store,
    request: &ExportRequest,
    take: &dyn Fn() -> Result<(Snapshot, Work), IndexError>,
    watch: &Watch,
) -> Result<Planned, ExportError> {
    let again = || {
        let (_, repair) = store.recheck(watch)?;
        let (snapshot, mut work) = take()?;
        work.repaired.extend(repair.repaired);
        Ok((snapshot, work))
    };
    planned_from(request, take, &again)
}

/// Takes a snapshot and plans; one whose index turns out to be damaged is taken again.
fn planned_from(
    request: &ExportRequest,
    take: &dyn Fn() -> Result<(Snapshot, Work), IndexError>,
    again: &dyn Fn() -> Result<(Snapshot, Work), IndexError>,
) -> Result<Planned, ExportError> {
    let of = |(snapshot, work): (Snapshot, Work)| {
        let plan = plan(&snapshot, request)?;
        let messages = all_messages(&snapshot, &plan, request.audience)?;
        Ok((snapshot, work, plan, messages))
    };
    match take().map_err(ExportError::from).and_then(of) {
        Err(ExportError::Index(IndexError::Damaged { reason })) => {
            let taken = again()?;
            if !request.population.can_be_read_again() {
                return Err(IndexError::Damaged { reason }.into());
            }
            of(taken)
        }
        done => done,
    }
}

/// Runs an export as of `as_of`, or resumes one.
///
/// # Errors
/// [`ExportError`]; whatever it is, nothing half-written stands under a published name.
pub fn export(
    store: &Store,
    request: &ExportRequest,
    as_of: Instant,
    options: &ExportOptions<'_>,
    watch: &Watch,
) -> Result<Exported, ExportError> {
    let mut moment = Moment { as_of, view: None };
    let error = match attempt(store, request, &mut moment, options, options.existing, watch) {
        Err(error) => error,
        done => return done,
    };
    let Some(repaired) = recover(store, &error, watch)? else { return Err(error) };
    if !request.population.can_be_read_again() {
        return Err(error);
    }
    // The export begins anew, once, with the T it had.
    watch.write_done.store(0, Relaxed);
    watch.files_done.store(0, Relaxed);
    let mut done = attempt(store, request, &mut moment, options, Existing::Force, watch)?;
    done.index.repaired.extend(repaired);
    Ok(done)
}

fn attempt(
    store: &Store,
    request: &ExportRequest,
    moment: &mut Moment,
    options: &ExportOptions<'_>,
    existing: Existing,
    watch: &Watch,
) -> Result<Exported, ExportError> {
    let run = ExportRun::begin(store, request, moment, options, existing, watch)?;
    moment.as_of = run.transaction_time().clone();
    let write_all = || {
        (0..run.tasks()).into_par_iter().try_for_each(|task| run.write(task, options.clock, watch))?;
        run.finish(options.clock, watch)
    };
    let done = match write_all() {
        // The export that is replaced gives its room.
        Err(error) if run.lacks_room(&error) => run.make_room().and_then(|()| write_all()),
        done => done,
    };
    done.inspect_err(|error| run.fail(error, options.clock))
}

/// What an error that stopped an export says of the index, mended: damage found while writing has the index checked
/// as a whole, a packed file that is no longer what was indexed is indexed anew. Then what was repaired is told, and
/// the export can begin anew with [`Existing::Force`]; `None` when there is nothing to mend.
///
/// # Errors
/// When the store or the index cannot be read or written.
pub fn recover(store: &Store, error: &ExportError, watch: &Watch) -> Result<Option<Vec<String>>, ExportError> {
    if let ExportError::Index(IndexError::Damaged { .. }) = error {
        return Ok(Some(store.recheck(watch)?.1.repaired));
    }
    let Some(name) = damaged_file(store, error) else { return Ok(None) };
    store.forget(&name, watch)?;
    Ok(Some(Vec::new()))
}

/// The packed file of the store whose damage stopped an export, if that is what happened.
fn damaged_file(store: &Store, error: &ExportError) -> Option<String> {
    let path = match error {
        ExportError::Frame { path, .. } => path,
        ExportError::Decode(DecodeError::Corrupt { path, .. }) => path,
        _ => return None,
    };
    let source = Source::open(path, Access::called()).ok()?;
    is_packed(&source).ok()?.then(|| path.strip_prefix(store.root()).ok()?.to_str().map(str::to_string))?
}

fn check_faults(plan: &Plan, allowed: Option<FaultsAllowed>) -> Result<(), ExportError> {
    let (faults, lines) = (plan.ledger().faulty, plan.ledger().lines);
    let (over, allowed) = match allowed {
        None => return Ok(()),
        Some(FaultsAllowed::Count(most)) => (faults > most, most.to_string()),
        Some(FaultsAllowed::Percent(most)) => (faults as f64 * 100.0 > most * lines as f64, format!("{most}%")),
    };
    if over { Err(ExportError::Faults { faults, lines, allowed }) } else { Ok(()) }
}

/// What a reader of the export is told: notes on the request, what did not resolve, policies applied, and the faulty lines
/// of the snapshot in store order (OUTCOME-03, OUTCOME-05); to one that may not have the whole store only their number.
///
/// # Errors
/// [`IndexError::Damaged`] when the index is.
pub fn all_messages(snapshot: &Snapshot, plan: &Plan, audience: Audience) -> Result<Messages, IndexError> {
    let mut messages = Messages::default();
    for note in &plan.request.notes {
        messages.push("note", note.clone());
    }
    messages.add(&plan.messages);
    messages.add(&policy_messages(snapshot, plan, audience)?);
    match (audience, plan.ledger().faulty) {
        (Audience::BoundClient, 0) => {}
        (Audience::BoundClient, faults) => {
            let text = format!("faulty lines of the store that were passed by: {faults}; its operator knows which");
            messages.push("faults", Message::new(Severity::Error, Code::Incomplete, text));
        }
        _ => fault_messages(snapshot, plan, &mut messages)?,
    }
    Ok(messages)
}

fn fault_messages(snapshot: &Snapshot, plan: &Plan, messages: &mut Messages) -> Result<(), IndexError> {
    let index = snapshot.index();
    let mut told = vec![0u64; FaultKind::ALL.len()];
    let (mut file, mut lines_before) = (usize::MAX, 0);
    for extent in snapshot.extents() {
        let entry = index.entry(extent);
        if entry.file != file {
            (file, lines_before) = (entry.file, 0);
        }
        let lines = index.extents()[extent].head().lines;
        if index.extents()[extent].head().faulty == 0 {
            lines_before += lines;
            continue;
        }
        for fault in index.extents()[extent].prove_columns(&[Column::Fault])?.faults() {
            told[fault.kind as usize] += 1;
            let line = lines_before + u64::from(fault.line) + 1;
            let start = entry.start + u64::from(fault.offset);
            let name = index.file_name(file);
            let text = match fault.kind {
                FaultKind::DamagedFrame => {
                    let frame = index.restart_before(file, start).compressed;
                    let (kind, rows) = (fault.kind, fault.at);
                    format!(
                        "{name}: line {line} at byte {start}, frame at byte {frame} of the file, {rows} rows: {kind}"
                    )
                }
                kind => format!("{name}: line {line} at byte {start}: {kind} (byte {} of the line)", fault.at),
            };
            messages.push(fault.kind.name(), Message::new(Severity::Error, fault_code(fault.kind), text));
        }
        lines_before += lines;
    }
    // The index keeps the details of so many faults an extent; the others are counted.
    for (kind, told) in FaultKind::ALL.iter().zip(told) {
        messages.more(
            Severity::Error,
            fault_code(*kind),
            kind.name(),
            plan.selection.noticed.faults[*kind as usize] - told,
        );
    }
    Ok(())
}

fn fault_code(kind: FaultKind) -> Code {
    match kind {
        FaultKind::TooLong => Code::TooLong,
        FaultKind::Damaged | FaultKind::DamagedFrame | FaultKind::DamagedTable => Code::Incomplete,
        _ => Code::Structure,
    }
}

/// Whether `out` lies inside `store`, where the next export would read it as input.
pub fn inside_store(store: &Path, out: &Path) -> Result<(), RequestError> {
    let absolute = |path: &Path| {
        // The directory need not be there yet: resolve as much of it as there is.
        let mut rest = Vec::new();
        let mut at = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        loop {
            match at.canonicalize() {
                Ok(found) => return rest.iter().rev().fold(found, |path, part| path.join(part)),
                Err(_) => match (at.file_name().map(|name| name.to_os_string()), at.parent()) {
                    (Some(name), Some(parent)) => {
                        rest.push(name);
                        at = parent.to_path_buf();
                    }
                    _ => return at,
                },
            }
        }
    };
    match absolute(out).starts_with(absolute(store)) {
        false => Ok(()),
        true => Err(RequestError::one(Problem::of(
            Parameter::Out,
            format!(
                "{} lies inside the store {}, where the next export would read it as input; choose a directory outside",
                out.display(),
                store.display()
            ),
        ))),
    }
}
