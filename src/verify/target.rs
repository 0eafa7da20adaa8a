//! Classifies a directory that is to be verified: a finished export, an unfinished one, a store, or none of these.
//!
//! Only names, sizes and the small documents of a run are read; nothing is written, and no lock is taken, so that a
//! look never stops a run.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codec::compression::Compression;
use crate::export::plan_record::PlanRecord;
use crate::fhir::instant::Instant;
use crate::index::meta;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::store::packed::envelope::is_packed;
use crate::store::walk::{Walk, walk};
use crate::sys::access::Access;
use crate::sys::atomic_dir::PARTIAL_SUFFIX;
use crate::sys::regular_file::{Links, open_regular, read_regular};
use crate::sys::store_file::StoreFile;
use crate::tasks::job_files::{is_export_job, is_job};
use crate::text_table::{grouped, grouped_with};
use crate::verify::VerifyError;
use crate::verify::applied::is_applied;
use crate::verify::chain::is_chain;
use crate::write::journal::{JOB, LEGACY_RECEIPTS, MANIFEST, NEXT, PLAN, RECEIPTS, Receipt, STATUS};
use crate::write::output_name::OutputName;

/// Kind of a directory.
#[derive(Clone, Debug)]
pub(crate) enum VerifyTarget {
    /// It holds a manifest: [`export`](crate::verify::export) verifies it.
    Export,
    /// It holds files of a run that has not published its manifest.
    Unfinished(UnfinishedReport),
    /// It is the root of a chain of exports: [`chain`](crate::verify::chain) verifies it.
    Chain,
    /// It holds the current records of a chain: [`applied`](crate::verify::applied) verifies it.
    Applied,
    /// It holds data files or an index: [`index`](crate::verify::index) verifies it.
    Store,
}

/// Progress of an export without a manifest. Its fields are keys of the JSON report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnfinishedReport {
    /// The transactionTime; `None` if neither a plan nor a status states it.
    pub transaction_time: Option<String>,
    /// Files that exist with the size of their receipts; without a plan, files with the name of an output file.
    pub finished: u64,
    /// Planned files, generated ones included; `None` if neither a plan nor a status states the number.
    pub planned: Option<u64>,
    /// The state in `status.json`, which a killed run leaves unchanged; `None` without that file.
    pub state: Option<String>,
    /// The step in `status.json`; `None` where it states none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Why the run failed, by `status.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When `status.json` was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<String>,
    /// Whether the directory of the run's journal exists.
    pub has_record: bool,
    /// Whether its plan can be read, so that the run can be resumed.
    pub resumable: bool,
}

/// Classifies a directory. `index_elsewhere`: the caller knows an index for it outside the directory, so it is a store
/// unless it is an export.
///
/// # Errors
/// [`VerifyError::Neither`] if it is none of these; [`VerifyError::Read`] if it cannot be read.
pub(crate) fn verify_target(directory: &Path, index_elsewhere: bool) -> Result<VerifyTarget, VerifyError> {
    let neither = |found: String| VerifyError::Neither { path: directory.to_path_buf(), found };
    match std::fs::metadata(directory) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(neither("is no directory".to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(neither("is not there".to_string()));
        }
        Err(source) => return Err(VerifyError::Read { path: directory.to_path_buf(), source }),
    }
    // A packed store under construction is no store yet; opening it as one gives the error that says so.
    let name = directory.canonicalize().ok().and_then(|path| path.file_name().map(|name| name.to_os_string()));
    if name.is_some_and(|name| name.as_encoded_bytes().ends_with(PARTIAL_SUFFIX.as_bytes())) {
        return Ok(VerifyTarget::Store);
    }
    if is_chain(directory) {
        return Ok(VerifyTarget::Chain);
    }
    if directory.join(MANIFEST).is_file() {
        return Ok(VerifyTarget::Export);
    }
    if is_applied(directory) {
        return Ok(VerifyTarget::Applied);
    }
    if is_job(directory) && !is_export_job(directory) {
        return Err(neither("holds the job of an index: verify the store".to_string()));
    }
    if is_job(directory) {
        return Err(neither("holds a job that is not committed: run its tasks, then `outpour commit`".to_string()));
    }
    // 1. A journal or a status is written only by an export.
    let status = read_status(&directory.join(STATUS));
    if directory.join(JOB).is_dir() || status.is_some() {
        return Ok(VerifyTarget::Unfinished(report_unfinished(directory, status)));
    }
    // 2. An index belongs to a store.
    if index_elsewhere || directory.join(".outpour").join(meta::FILE).is_file() {
        return Ok(VerifyTarget::Store);
    }
    if directory.join(meta::FILE).is_file() {
        return Err(neither(
            "is an index: give the store that it belongs to, and the index with --index-dir".to_string(),
        ));
    }
    // 3. Data files. If all have names of output files, they are those of an export that has lost its journal.
    let found = walk(directory).map_err(|(path, source)| VerifyError::Read { path, source })?;
    if found.files.is_empty() {
        return Err(neither(format!(
            "is neither an export nor a store: it holds no {MANIFEST}, no {JOB} or {STATUS} of a run, no index \
             (.outpour), and no data file (.ndjson or .jsonl, plain, .gz or .zst)"
        )));
    }
    match found.files.iter().all(|file| may_be_output(directory, &file.name)) {
        true => Ok(VerifyTarget::Unfinished(UnfinishedReport {
            finished: output_file_count(&found),
            ..UnfinishedReport::default()
        })),
        false => Ok(VerifyTarget::Store),
    }
}

/// Whether a JSON value has the keys of a status document; one of a run without a plan may have no transactionTime.
pub(crate) fn is_status(value: &Value) -> bool {
    let has = |key: &str| value.get(key).is_some();
    has("batches") && has("status") && (has("transactionTime") || has("phase") && has("heartbeat"))
}

/// `status.json` of a directory to verify, if it has the keys of a status document.
fn read_status(path: &Path) -> Option<Value> {
    let status: Value = serde_json::from_slice(&read_regular(path, MANIFEST_BYTES_MAX).ok()?).ok()?;
    is_status(&status).then_some(status)
}

/// The fields of `plan.json` that are read here.
#[derive(Deserialize)]
struct PlanFileState {
    files: Vec<String>,
    job: PlanRecord,
}

/// What is verified is an unfinished export: its planned and finished files, counted by the journal, or by names if
/// it has no readable plan.
fn report_unfinished(directory: &Path, status: Option<Value>) -> UnfinishedReport {
    let mut report = UnfinishedReport { has_record: directory.join(JOB).is_dir(), ..UnfinishedReport::default() };
    if let Some(status) = &status {
        report.transaction_time = status["transactionTime"].as_str().map(str::to_string);
        report.state = status["status"].as_str().map(str::to_string);
        // Before there is a plan nobody knows how many files there will be.
        report.planned = status["batches"]["total"].as_u64().filter(|_| status.get("id").is_some());
        let text = |key: &str| status[key].as_str().map(str::to_string);
        (report.phase, report.reason, report.heartbeat) = (text("phase"), text("reason"), text("heartbeat"));
    }
    // A replacing run keeps its journal and its files in a directory of their own until it is finished.
    let (own, next) = (directory.join(JOB), directory.join(NEXT));
    let record = if next.join(PLAN).is_file() { &next } else { &own };
    let plan = read_regular(&record.join(PLAN), MANIFEST_BYTES_MAX).ok();
    let plan = plan.and_then(|bytes| serde_json::from_slice::<PlanFileState>(&bytes).ok());
    let Some(plan) = plan else {
        report.finished = walk(directory).map_or(0, |found| output_file_count(&found));
        return report;
    };
    let read = |name: &str| read_regular(&record.join(name), MANIFEST_BYTES_MAX);
    // Earlier versions had another name for the receipts.
    let receipts = read(RECEIPTS).or_else(|_| read(LEGACY_RECEIPTS)).unwrap_or_default();
    // An incomplete last line is no receipt.
    let whole = memchr::memrchr(b'\n', &receipts).map_or(0, |offset| offset + 1);
    let receipts =
        receipts[..whole].split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Receipt>(line).ok());
    // The last receipt of a name counts.
    let sizes: HashMap<String, u64> = receipts.map(|receipt| (receipt.file, receipt.file_bytes)).collect();
    let has = |place: &Path, name: &str, size: u64| {
        let file = open_regular(&place.join(name), Links::Refuse).and_then(|file| Ok(file.metadata()?.len()));
        file.is_ok_and(|len| len == size)
    };
    let is_finished = |name: &String| {
        let is_plain = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        is_plain && sizes.get(name).is_some_and(|size| has(directory, name, *size) || has(&next, name, *size))
    };
    report.finished = plan.files.iter().filter(|name| is_finished(name)).count() as u64;
    report.planned = Some(plan.files.len() as u64);
    report.transaction_time = Instant::parse(&plan.job.snapshot.as_of).map(|instant| instant.to_string());
    report.resumable = true;
    report
}

/// What is verified: number of files at the top level of the directory that have the name of an output file.
fn output_file_count(found: &Walk) -> u64 {
    found.files.iter().filter(|file| OutputName::parse(&file.name).is_some()).count() as u64
}

/// Whether a directory to verify may be an export because of this file: by its name, unless it is one of a packed
/// store, which has the same names.
fn may_be_output(directory: &Path, name: &str) -> bool {
    let open = || StoreFile::open(directory.join(name), Access::pread()).ok();
    let has_coding = |name| Compression::of_file_name(name).is_some_and(|of| of != Compression::None);
    OutputName::parse(name).is_some()
        && !(has_coding(name) && open().is_some_and(|file| is_packed(&file).unwrap_or(false)))
}

impl UnfinishedReport {
    /// Lines for people where the target of `outpour verify` is an unfinished export.
    pub(crate) fn lines(&self) -> Vec<String> {
        let location = self.transaction_time.as_ref().map_or(String::new(), |place| format!(" as of {place}"));
        let planned =
            self.planned.map_or("an unknown number of files".to_string(), |files| grouped_with(files, "file"));
        let finished = grouped(self.finished);
        let mut lines =
            vec![format!("The export{location} is incomplete, {finished} of {planned}: no {MANIFEST} is there.")];
        if let Some(state) = &self.state {
            let step = self.phase.as_ref().map_or(String::new(), |phase| format!(", {phase}"));
            let last = self.heartbeat.as_ref().map_or(String::new(), |time| format!(", last at {time}"));
            lines.push(format!("{STATUS} says {state}{step}{last}."));
            lines.extend(self.reason.iter().map(|reason| format!("It says why: {reason}.")));
        }
        let advice = match (self.resumable, self.has_record) {
            (true, _) => "Finish it with --resume and the words of the first command; if it is still running, wait.",
            (false, true) => "No plan of it can be read: begin anew with --force; if it is still running, wait.",
            (false, false) if self.phase.is_some() && self.planned.is_none() => {
                "It ended before its plan stood: run the same command again."
            }
            (false, false) if self.state.is_some() => "Its record is not there: copy the whole export again.",
            (false, false) => "Copy the whole export again. Should it be a store, run `outpour index` on it first.",
        };
        lines.push(advice.to_string());
        lines
    }
}

impl fmt::Display for UnfinishedReport {
    /// Writes, line by line, that the target to verify is an unfinished export.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
