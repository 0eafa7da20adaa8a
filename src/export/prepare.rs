//! The first half of a run: snapshot, plan and record; what a former run has finished.

use crate::codec::compression::Compression;
use crate::error::{ExportError, IndexError, JournalError};
use crate::export::baseline_record::check_same_question;
use crate::export::options::{ExportOptions, SnapshotRequest};
use crate::export::plan_record::{PlanRecord, check_same_request, plan_record};
use crate::export::planning::{check_faults, plan_snapshot};
use crate::fhir::resource_type::ResourceType;
use crate::index::report::RefreshStats;
use crate::index::snapshot::Snapshot;
use crate::issue::IssueLog;
use crate::key_set::builder::file_bytes;
use crate::key_set::digest_of;
use crate::plan::{Plan, Shard};
use crate::progress::Progress;
use crate::request::{ExportRequest, Population};
use crate::select::member_changes::cohort_keys;
use crate::store::Store;
use crate::store::paths::check_outside_linked;
use crate::write::deleted_bundle::deleted_lines;
use crate::write::generated_files;
use crate::write::journal::{PlanFile, Receipt};
use crate::write::operation_outcome::outcome_lines;
use crate::write::output_dir::OutputDirectory;
use crate::write::status_file::StatusFile;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

/// What a run is made of, once its plan is recorded.
pub(crate) struct PreparedRun {
    pub snapshot: Snapshot,
    pub work: RefreshStats,
    pub plan: Plan,
    pub messages: IssueLog,
    /// The record of the plan, without the snapshot.
    pub job: PlanRecord<()>,
    /// The file of the keys of the cohort, if the record has one.
    pub cohort: Option<Vec<u8>>,
    pub deleted: Vec<String>,
    pub error: Vec<String>,
    /// Receipts of the files that a former run finished.
    pub finished: Vec<Receipt>,
    /// Bytes before compression that are left to be written.
    pub left: u64,
}

/// Takes the snapshot, plans, and writes the record of a run into its directory, or checks the one that is there (`recorded`).
///
/// # Errors
/// As [`ExportRun::begin`].
pub(crate) fn prepare(
    store: &Store,
    request: &ExportRequest,
    moment: &SnapshotRequest,
    options: &ExportOptions<'_>,
    progress: &Progress,
    (directory, recorded): (&OutputDirectory, Option<PlanFile<PlanRecord>>),
    status: &SharedStatus,
) -> Result<PreparedRun, ExportError> {
    if let Some(PlanFile { files, job }) = &recorded {
        let path = directory.plan_path();
        job.check_files(files).map_err(|reason| JournalError::Damaged { path, reason })?;
    }
    let take = || match (&recorded, &moment.view) {
        (Some(PlanFile { job, .. }), _) => {
            let (snapshot, work) = store.reopen_snapshot(&job.snapshot, progress)?;
            Ok((snapshot.with_vanished(job.vanished_resources()), work))
        }
        (None, Some(view)) => store.snapshot_of_listing(view, moment.time.clone(), progress),
        (None, None) => store.snapshot_watched(moment.time.clone(), progress),
    };
    let (snapshot, work, plan, messages) = plan_snapshot(store, request, &take, progress)?;
    check_outside_linked(&snapshot.index().walked().linked, &options.out)?;
    check_faults(&plan, options.faults_allowed)?;
    let cohort = match records_cohort(request) {
        true => Some(file_bytes(cohort_keys(&snapshot, &plan.cohort).map_err(IndexError::from)?)),
        false => None,
    };
    let mut job = plan_record(&plan, &snapshot, store);
    job.cohort = cohort.as_deref().map(digest_of);
    job.chain = options.chain.clone();
    if let Some(before) = &options.builds_on {
        check_same_question(before, &job)?;
    }
    let deleted = deleted_lines(&plan.deletions.listed, snapshot.as_of());
    let error = outcome_lines(&messages, options.words);
    // Up to here nothing is changed in the directory: what is refused leaves an old export whole.
    match &recorded {
        Some(PlanFile { job: recorded, .. }) => check_same_request(recorded, &job)?,
        None => {
            let mut names: Vec<String> = (0..plan.shards.len()).map(|shard| plan.file_name(shard)).collect();
            names.extend(generated_files::file_names(DELETED, &deleted, request));
            names.extend(generated_files::file_names(ERROR, &error, request));
            let _no_write_meanwhile = status.lock().expect("no panic under it");
            directory.write_plan(&job, &names)?;
        }
    }
    let finished = match recorded {
        Some(_) => {
            // A receipt counts if it says what is planned; messages and deletions are made anew.
            let (planned, rewritten) = (job.files_by_name(), job.rewritten_files());
            let is_planned = |file: &Receipt| {
                let reduced = ResourceType::parse(&file.r#type).is_some_and(|of| request.elements.reduces(of));
                // What changed rows come to is not planned, only the most that it can be.
                let changed = reduced || rewritten.contains(file.file.as_str());
                planned.get(&*file.file).is_some_and(|(count, bytes)| {
                    file.count == *count && (file.bytes == *bytes || changed && file.bytes < *bytes)
                })
            };
            directory.finished_files(request.digest, is_planned)?
        }
        None => Vec::new(),
    };
    let names: HashSet<&str> = finished.iter().map(|receipt| receipt.file.as_str()).collect();
    let unwritten = plan.shards.iter().enumerate().filter(|(shard, _)| !names.contains(&*plan.file_name(*shard)));
    let (reduced, whole): (Vec<_>, Vec<_>) =
        unwritten.map(|(_, shard)| shard).partition(|shard| request.elements.reduces(shard.resource_type));
    let bytes_of = |shards: &[&Shard]| shards.iter().map(|shard| shard.bytes).sum::<u64>();
    let lines: usize = deleted.iter().chain(&error).map(|line| line.len() + 1).sum();
    let whole = bytes_of(&whole) + lines as u64;
    // Half of the most that reduced files can be: a guess, so that a job of few elements is not refused for want of room.
    let left = whole + bytes_of(&reduced) / 2;
    if directory.is_staged() {
        // How much compressed and reduced files will take is not known: they are tried.
        let needed = if request.compression == Compression::None { whole } else { 0 };
        if !directory.has_room_beside(needed)? {
            let _no_write_meanwhile = status.lock().expect("no panic under it");
            directory.move_into_place(&finished)?;
        }
    }
    let job = job.with_snapshot(());
    Ok(PreparedRun { snapshot, work, plan, messages, job, cohort, deleted, error, finished, left })
}

/// Whether the record of an export holds the keys of its patients: that of a Group does, for the increments of its members, and
/// every one that increments are to build on.
fn records_cohort(request: &ExportRequest) -> bool {
    request.population != Population::System
        && (request.is_of_group() || request.keeps_resources || request.baseline.is_some())
}

/// The status of a run, shared with whoever writes it while the run is busy.
pub(crate) type SharedStatus = Arc<Mutex<StatusFile>>;

/// Stem of the files of deletions.
pub(crate) const DELETED: &str = "deleted/Bundle";

/// Stem of the files of messages.
pub(crate) const ERROR: &str = "error/OperationOutcome";
