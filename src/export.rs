//! The pipeline in one file: open, snapshot, cohort, select, plan, write, publish.
//!
//! An output directory holds a job: its record first, then the files, the manifest last (MANIFEST-18). Whatever stops
//! a run in between, `--resume` finishes it to the same bytes from the record. This module decides nothing about rows
//! and knows no flags, clocks or terminals; it takes the time from its caller.

mod job_plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;
use serde_json::json;

use crate::bytes::decode::DecodeError;
use crate::bytes::source::{Access, Source};
use crate::error::{ExportError, IndexError, RequestError};
use crate::extract::FaultKind;
use crate::fhir::Instant;
use crate::observe::{Code, Messages, Severity};
use crate::plan::{Plan, plan};
use crate::select::{ExportRequest, Ledger};
use crate::store::layout::Column;
use crate::store::packed::table::is_packed;
use crate::store::{Snapshot, Store, Watch, Work};
use crate::write::deleted::deleted_lines;
use crate::write::encode::Encoder;
use crate::write::generated::{self, write_lines};
use crate::write::manifest::Manifest;
use crate::write::outcome::outcome_lines;
use crate::write::record::{Begin, JobDirectory, Receipt};
use crate::write::shard::sweep;
use crate::write::sink::{DirSink, Sync};
use crate::write::status::{Status, StatusFile};
use crate::write::together::together;
pub use job_plan::{JobPlan, Origin};
use job_plan::{job_plan, same_job};

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
    /// Begin anew; only files that the old record lists are removed.
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
    pub clock: &'a (dyn Fn() -> Instant + std::marker::Sync),
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

/// Plans without writing: the estimate that `--plan` prints.
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
    let (snapshot, work, plan, _) = planned(store, request, &|| store.snapshot_watched(as_of.clone(), watch), watch)?;
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
    let once = || {
        let (snapshot, work) = take()?;
        let plan = plan(&snapshot, request)?;
        let messages = all_messages(&snapshot, &plan)?;
        Ok((snapshot, work, plan, messages))
    };
    match once() {
        Err(ExportError::Index(IndexError::Damaged { .. })) => {
            let (_, repair) = store.recheck(watch)?;
            let (snapshot, mut work, plan, messages) = once()?;
            work.repaired.extend(repair.repaired);
            Ok((snapshot, work, plan, messages))
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
    mut as_of: Instant,
    options: &ExportOptions<'_>,
    watch: &Watch,
) -> Result<Exported, ExportError> {
    let error = match attempt(store, request, &mut as_of, options, options.existing, watch) {
        Err(error) => error,
        done => return done,
    };
    let repaired = match &error {
        // Found while writing: planning has proven what it read itself.
        ExportError::Index(IndexError::Damaged { .. }) => store.recheck(watch)?.1.repaired,
        // A packed file is no longer what was indexed: what is left of it is indexed anew.
        _ => match damaged_file(store, &error) {
            Some(name) => store.forget(&name, watch).map(|_| Vec::new())?,
            None => return Err(error),
        },
    };
    // The export begins anew, once.
    watch.write_done.store(0, Relaxed);
    watch.files_done.store(0, Relaxed);
    let mut done = attempt(store, request, &mut as_of, options, Existing::Force, watch)?;
    done.index.repaired.extend(repaired);
    Ok(done)
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

/// One attempt at an export; `as_of` becomes that of a run that is resumed.
fn attempt(
    store: &Store,
    request: &ExportRequest,
    as_of: &mut Instant,
    options: &ExportOptions<'_>,
    existing: Existing,
    watch: &Watch,
) -> Result<Exported, ExportError> {
    request.check()?;
    let directory = JobDirectory::open(&options.out, options.sync)?;
    let begin = match existing {
        Existing::Refuse => Begin::Fresh,
        Existing::Resume => Begin::Resume,
        Existing::Force => Begin::Force,
    };
    let recorded: Option<JobPlan> = directory.begin(begin)?;

    let take = || match &recorded {
        Some(job) => store.snapshot_again(&job.snapshot, watch),
        None => store.snapshot_watched(as_of.clone(), watch),
    };
    let (snapshot, work, plan, messages) = planned(store, request, &take, watch)?;
    *as_of = snapshot.as_of().clone();
    check_faults(&plan, options.faults_allowed)?;
    let job = job_plan(&plan, &snapshot, store);
    let deleted = deleted_lines(&plan.deletions.listed, snapshot.as_of());
    let error = outcome_lines(&messages);
    match &recorded {
        Some(recorded) => same_job(recorded, &job)?,
        None => {
            let mut names: Vec<String> = (0..plan.shards.len()).map(|shard| plan.file_name(shard)).collect();
            names.extend(generated::file_names(DELETED, &deleted, request));
            names.extend(generated::file_names(ERROR, &error, request));
            directory.write_plan(&job, &names)?;
        }
    }
    let finished = match recorded {
        Some(_) => directory.finished(request.digest)?,
        None => Vec::new(),
    };
    let resumed_files = finished.len();

    let mut run = Run {
        snapshot: &snapshot,
        plan: &plan,
        directory: &directory,
        options,
        watch,
        finished: finished.into_iter().map(|receipt| (receipt.file.clone(), receipt)).collect(),
        status: Mutex::new(status_file(&plan, &snapshot, &job, &directory)),
    };
    match run.write(&deleted, &error, &job) {
        Ok((manifest, files)) => Ok(Exported {
            manifest_path: directory.path().join("manifest.json"),
            manifest,
            files,
            ledger: *plan.ledger(),
            worst: messages.worst(),
            messages: messages.counts(),
            index: work,
            resumed_files,
            transaction_time: snapshot.as_of().clone(),
            members_listed: plan.cohort.listed,
            members_found: plan.cohort.members.count() as u64,
            ignored: snapshot.index().ignored().to_vec(),
        }),
        Err(error) => {
            run.fail(&error);
            Err(error)
        }
    }
}

/// One run over a plan.
struct Run<'a> {
    snapshot: &'a Snapshot,
    plan: &'a Plan,
    directory: &'a JobDirectory,
    options: &'a ExportOptions<'a>,
    watch: &'a Watch,
    finished: BTreeMap<String, Receipt>,
    status: Mutex<StatusFile>,
}

impl Run<'_> {
    /// Writes shards, deleted and error files, and publishes.
    fn write(
        &mut self,
        deleted: &[String],
        error: &[String],
        job: &JobPlan,
    ) -> Result<(Manifest, Vec<Receipt>), ExportError> {
        self.watch.write_total.store(self.plan.bytes(), Relaxed);
        self.watch.files_total.store(self.plan.shards.len() as u64, Relaxed);
        self.tell(|_| {});
        let output = self.shards()?;
        let deleted = self.generated(DELETED, "Bundle", deleted)?;
        let error = self.generated(ERROR, "OperationOutcome", error)?;
        // The last look at the store: what was read must be what the snapshot was taken of (CONS-08).
        self.snapshot.index().verify_unchanged()?;
        if self.watch.cancel.load(Relaxed) {
            return Err(ExportError::Cancelled);
        }
        let manifest = Manifest::assemble(
            self.snapshot.as_of(),
            self.plan.request.canonical(self.plan.cohort.group_id.as_deref()),
            &self.base_url(),
            &output,
            &deleted,
            &error,
            self.extension(job),
        );
        self.directory.publish(&manifest.to_bytes()).map_err(|error| self.failed("manifest.json", error))?;
        self.tell(|status| status.succeed(&manifest));
        let files = output.into_iter().chain(deleted).chain(error).collect();
        Ok((manifest, files))
    }

    fn shards(&self) -> Result<Vec<Receipt>, ExportError> {
        let plan = self.plan;
        let receipts: Mutex<BTreeMap<usize, Receipt>> = Mutex::default();
        let groups = together(plan, self.snapshot);
        let threads = rayon::current_num_threads();
        groups.par_iter().try_for_each(|shards| {
            // A shard that a former run finished is not written again.
            let left: Vec<usize> = shards
                .iter()
                .copied()
                .filter(|shard| match self.finished.get(&plan.file_name(*shard)) {
                    Some(receipt) => {
                        self.watch.write_done.fetch_add(plan.shards[*shard].bytes, Relaxed);
                        self.watch.files_done.fetch_add(1, Relaxed);
                        receipts.lock().expect("no panic under it").insert(*shard, receipt.clone());
                        false
                    }
                    None => true,
                })
                .collect();
            self.tell(|_| {});
            let mut open = |shard: usize| {
                let name = plan.file_name(shard);
                let sink = DirSink::new(self.directory.path(), self.options.sync);
                // All files together hold about a block for each thread.
                let blocks = if shards.len() > 1 { 1 } else { threads.div_ceil(groups.len().min(threads)) };
                let encoder = Encoder::begin(sink, &name, plan.request.coding, plan.request.digest, blocks);
                encoder.map(Some).map_err(|error| self.failed(&name, error))
            };
            let mut close = |shard: usize, receipt: Receipt| {
                self.directory.record(&receipt).map_err(|error| self.failed(&receipt.file, error))?;
                receipts.lock().expect("no panic under it").insert(shard, receipt);
                self.watch.files_done.fetch_add(1, Relaxed);
                self.tell(|_| {});
                Ok(())
            };
            let failed = |name: &str, error| self.failed(name, error);
            sweep(plan, self.snapshot, &left, self.watch, &mut open, &mut close, &failed)
        })?;
        Ok(receipts.into_inner().expect("no panic under it").into_values().collect())
    }

    /// Writes generated lines as size-bounded files. They are few and made anew by a resumed run.
    fn generated(
        &self,
        stem: &str,
        resource_type: &'static str,
        lines: &[String],
    ) -> Result<Vec<Receipt>, ExportError> {
        let sink = || DirSink::new(self.directory.path(), self.options.sync);
        let receipts = write_lines(stem, resource_type, lines, &self.plan.request, &sink)
            .map_err(|(name, error)| self.failed(&name, error))?;
        for receipt in &receipts {
            if !self.finished.contains_key(&receipt.file) {
                self.directory.record(receipt).map_err(|error| self.failed(&receipt.file, error))?;
            }
        }
        Ok(receipts)
    }

    fn failed(&self, name: &str, source: std::io::Error) -> ExportError {
        ExportError::Write { directory: self.directory.path().to_path_buf(), name: name.to_string(), source }
    }

    fn base_url(&self) -> String {
        match &self.plan.request.base_url {
            Some(base) => base.clone(),
            None => crate::write::manifest::file_url(self.directory.path()),
        }
    }

    /// Updates `status.json`, at most once a second. A status that cannot be written costs nobody an export.
    fn tell(&self, change: impl FnOnce(&mut StatusFile)) {
        let mut status = self.status.lock().expect("no panic under it");
        status.complete(self.watch.files_done.load(Relaxed));
        change(&mut status);
        status.write((self.options.clock)()).ok();
    }

    fn fail(&self, error: &ExportError) {
        let state = if matches!(error, ExportError::Cancelled) { Status::Cancelled } else { Status::Failed };
        self.tell(|status| status.end(state));
    }

    /// The root extension of the manifest: snapshot, policies, ledger (MANIFEST-14, MANIFEST-17, reading 10).
    fn extension(&self, job: &JobPlan) -> serde_json::Value {
        let request = &self.plan.request;
        let generation = self.snapshot.index().generation();
        let known_since = generation.birth.map(|ticks| Instant { ticks, rest: Box::default() }.to_string());
        json!({
            "planId": job.plan_id,
            "snapshot": self.plan.snapshot_id,
            "software": concat!("outpour ", env!("CARGO_PKG_VERSION")),
            "policies": {
                "members": request.members,
                "context": "none",
                "fhirBases": request.fhir_bases,
                "late": request.late,
                "lateKnownSince": known_since,
                "missingLastUpdated": request.missing_last_updated,
                "validate": generation.validate,
                "maxFileBytes": request.bounds.file_bytes,
                "maxFileResources": request.bounds.file_resources,
                "compress": request.coding,
            },
            "ledger": self.plan.ledger(),
        })
    }
}

fn status_file(plan: &Plan, snapshot: &Snapshot, job: &JobPlan, directory: &JobDirectory) -> StatusFile {
    StatusFile::new(
        directory.path(),
        &job.plan_id,
        snapshot.as_of().clone(),
        plan.request.canonical(plan.cohort.group_id.as_deref()),
        plan.rows(),
        plan.shards.len() as u64,
    )
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

/// The plan's messages, then the faulty lines of the snapshot in store order (OUTCOME-03, OUTCOME-05).
///
/// # Errors
/// [`IndexError::Damaged`] when the index is.
pub fn all_messages(snapshot: &Snapshot, plan: &Plan) -> Result<Messages, IndexError> {
    let mut messages = plan.messages.clone();
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
            messages.push(Severity::Error, fault_code(fault.kind), fault.kind.name(), text);
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
    Ok(messages)
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
        true => Err(RequestError::one(format!(
            "--out: {} lies inside the store {}, where the next export would read it as input; choose a directory outside",
            out.display(),
            store.display()
        ))),
    }
}

#[cfg(test)]
mod ways;
