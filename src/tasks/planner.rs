//! Makes the plan of a job: snapshot and plan as for an export, then spans, generated files, and `plan.json` last.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::io::BufWriter;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rayon::prelude::*;

use crate::casts::to_u32;
use crate::error::{ExportError, RequestError, RequestProblem};
use crate::export::options::FaultsAllowed;
use crate::export::plan_record::plan_record;
use crate::export::planning::{check_faults, plan_snapshot};
use crate::export::prepare::{DELETED, ERROR};
use crate::export::repair::repair_index;
use crate::export::run::manifest_extension;
use crate::fhir::instant::Instant;
use crate::ids::{FileId, ShardId};
use crate::index::report::RefreshStats;
use crate::index::snapshot::Snapshot;
use crate::index::snapshot_time::SnapshotTime;
use crate::issue::{IssueLog, Parameter, ParameterNames};
use crate::plan::{Plan, Shard};
use crate::progress::{Phase, Progress};
use crate::request::ExportRequest;
use crate::spans::plan_spans::write_spans;
use crate::store::Store;
use crate::sys::directory::temporary_name;
use crate::sys::durability::FileSync;
use crate::sys::store_file::file_clock_ns;
use crate::tasks::hashed_record::HashedRecord;
use crate::tasks::job_files::{DATA, JobRoot, PLANNED, SPANS, TASKS, data_name, spans_name, with_parents};
use crate::tasks::job_plan::{JobPlan, JobShard, TaskPlan};
use crate::tasks::new_job::{open_new_job, publish_plan, write_error};
use crate::write::deleted_bundle::deleted_lines;
use crate::write::generated_files::write_lines_as;
use crate::write::journal::Receipt;
use crate::write::manifest::file_url;
use crate::write::operation_outcome::outcome_lines;
use crate::write::shard_groups::decoded_groups;
use crate::write::sink::DirSink;

/// How a job is planned.
pub(crate) struct JobOptions<'a> {
    /// The root of the job, which is made if it is not there.
    pub job: &'a Path,
    /// A name that no other planner has, on whatever machine.
    pub writer: &'a str,
    /// Number of tasks; as many as [`TASK_BYTES`] ask for if `None`.
    pub tasks: Option<usize>,
    /// Whether files are synced before the plan appears.
    pub sync: FileSync,
    /// Bound on faulty lines; any number if `None`.
    pub faults_allowed: Option<FaultsAllowed>,
    /// How the message files speak.
    pub words: &'a ParameterNames,
}

/// Bytes of rows of a task, where the number of tasks is not given: some seconds of work.
const TASK_BYTES: u64 = 1 << 30;
/// Most tasks that are planned unless more are asked for; schedulers bound arrays of tasks (Slurm: 1,001 by default).
const TASKS_DEFAULT_MAX: usize = 1000;
/// Time between two looks whether the times of files that were just written are past.
const SETTLE_WAIT: Duration = Duration::from_millis(50);
/// Most such looks: 3 s, more than the coarsest clock of a file system takes for a step.
const SETTLE_ROUNDS: u32 = 60;

/// A planned job.
pub(crate) struct PlannedJob {
    /// Its record.
    pub plan: JobPlan,
    /// T.
    pub transaction_time: Instant,
    /// All messages.
    pub messages: IssueLog,
    /// What was done to the index.
    pub index: RefreshStats,
}

/// Plans a job. Runs on the current rayon pool. If the index turns out to be damaged on the way, it is repaired and the job planned
/// once more.
///
/// # Errors
/// [`ExportError`]: a wrong request, what fails in the store, a root that holds another job or something else.
pub(crate) fn plan_job(
    store: &Store,
    request: &ExportRequest,
    time: SnapshotTime,
    options: &JobOptions<'_>,
    progress: &Progress,
) -> Result<PlannedJob, ExportError> {
    request.check()?;
    let (root, _lock) = open_new_job(options.job, options.sync, [SPANS, TASKS, DATA])?;
    let error = match plan_into(&root, store, request, time.clone(), options, progress) {
        Err(error) => error,
        done => return done,
    };
    let Some(repaired) = repair_index(store, &error, progress)? else { return Err(error) };
    if !request.population.can_be_read_again() {
        return Err(error);
    }
    progress.begin_writing_again();
    let mut planned = plan_into(&root, store, request, time, options, progress)?;
    planned.index.repaired.extend(repaired);
    Ok(planned)
}

/// One pass of the planner.
fn plan_into(
    root: &JobRoot,
    store: &Store,
    request: &ExportRequest,
    time: SnapshotTime,
    options: &JobOptions<'_>,
    progress: &Progress,
) -> Result<PlannedJob, ExportError> {
    let take = || store.snapshot_watched(time.clone(), progress);
    let (snapshot, index, plan, messages) = plan_snapshot(store, request, &take, progress)?;
    check_faults(&plan, options.faults_allowed)?;
    if plan.shards.iter().any(|shard| shard.rewritten) {
        // Which rows and URLs these are is known from the index, which no task opens.
        let text = "it makes URLs of attachments absolute, which is not done in tasks yet; leave it out, or export without a plan";
        return Err(RequestError::one(RequestProblem::of(Parameter::BaseUrl, text)).into());
    }
    progress.expect_writes(plan.source_bytes(), plan.shards.len() as u64);
    progress.begin(Phase::Writing);
    wait_until_settled(&plan, &snapshot)?;
    // 1. What tasks read, and lines that are made here.
    let plan_id = plan_record(&plan, &snapshot, store).plan_id;
    let shards = write_all_spans(root, &plan, &snapshot, &plan_id, progress)?;
    let deleted = deleted_lines(&plan.deletions.listed, snapshot.as_of());
    let deleted = write_generated(root, DELETED, "Bundle", &deleted, request)?;
    let error = write_generated(root, ERROR, "OperationOutcome", &outcome_lines(&messages, options.words), request)?;
    // 2. The last look at the store: what the spans name must be what the snapshot was taken of (CONS-08).
    snapshot.index().verify_unchanged()?;
    // 3. The plan, once all that it names stands.
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let job = absolute(root.directory.path());
    let asked_for = || (plan.source_bytes().div_ceil(TASK_BYTES) as usize).clamp(1, TASKS_DEFAULT_MAX);
    let tasks = options.tasks.unwrap_or_else(asked_for).max(1);
    let made = JobPlan {
        build: JobPlan::build_id(),
        job_id: String::new(),
        store: absolute(store.root()).display().to_string(),
        base_url: request.base_url.clone().unwrap_or_else(|| file_url(&job)),
        job: job.display().to_string(),
        follow_symlinks: snapshot.index().generation().follow_symlinks,
        transaction_time: snapshot.as_of().to_string(),
        request: request.canonical_text(plan.cohort.group_id.as_deref()),
        compression: request.compression,
        digest: request.digest,
        elements: request.elements.items().map(|item| item.to_string()).collect(),
        shards,
        tasks: deal(&plan, decoded_groups(&plan, &snapshot), tasks),
        deleted,
        error,
        worst: messages.worst(),
        extension: manifest_extension(&plan, &snapshot, &plan_id),
        plan_id,
    }
    .hashed();
    let generated = made.deleted.iter().chain(&made.error).filter_map(|file| Some(file.file.rsplit_once('/')?.0));
    // A directory that was made here stands by the directory above it.
    let folders: BTreeSet<&str> = generated.flat_map(with_parents).chain([SPANS, TASKS, DATA, ""]).collect();
    publish_plan(root, folders, options.writer, &made)?;
    Ok(PlannedJob { plan: made, transaction_time: snapshot.as_of().clone(), messages, index })
}

/// Writes the spans of all output files; what the plan says of each.
fn write_all_spans(
    root: &JobRoot,
    plan: &Plan,
    snapshot: &Snapshot,
    plan_id: &str,
    progress: &Progress,
) -> Result<Vec<JobShard>, ExportError> {
    for folder in [SPANS, TASKS, DATA] {
        root.directory.make_directory(folder).map_err(|error| write_error(root, folder, error))?;
    }
    let ids: Vec<ShardId> = plan.shard_ids().collect();
    let written = ids.into_par_iter().map(|shard| {
        if progress.is_cancelled() {
            return Err(ExportError::Cancelled);
        }
        let spans = write_spans_file(root, plan, snapshot, shard, plan_id)?;
        let source_bytes = plan.source_bytes_of(shard);
        progress.write_done.fetch_add(source_bytes, Relaxed);
        progress.files_done.fetch_add(1, Relaxed);
        let Shard { resource_type, ordinal, rows, bytes, .. } = *plan.shard(shard);
        Ok(JobShard { r#type: resource_type, ordinal, rows, bytes, source_bytes, spans })
    });
    written.collect()
}

/// Writes the files of generated lines, as the attempt of the planner.
fn write_generated(
    root: &JobRoot,
    stem: &str,
    of_type: &'static str,
    lines: &[String],
    request: &ExportRequest,
) -> Result<Vec<Receipt>, ExportError> {
    let mut sink = DirSink::new(root.directory.path(), root.sync);
    let name = |number: u32| data_name(stem, number, PLANNED, request.compression);
    let written = write_lines_as(&name, of_type, lines, request, &mut sink);
    written.map_err(|(name, error)| write_error(root, &name, error))
}

/// Writes the spans of an output file; the hash that tells them from others.
fn write_spans_file(
    root: &JobRoot,
    plan: &Plan,
    snapshot: &Snapshot,
    shard: ShardId,
    plan_id: &str,
) -> Result<String, ExportError> {
    let name = spans_name(shard.index());
    let failed = |error| write_error(root, &name, error);
    // Its name is given once all of it is there; what an interrupted planner left under this one is overwritten.
    let temporary = temporary_name(&name);
    let file = root.directory.create(&temporary).map_err(failed)?;
    file.set_len(0).map_err(failed)?;
    let (out, content_id) = write_spans(plan, snapshot, shard, plan_id, BufWriter::new(file), &failed)?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    if root.sync == FileSync::Yes {
        file.sync_all().map_err(failed)?;
    }
    root.directory.rename(&temporary, &name).map_err(failed)?;
    Ok(content_id)
}

/// Waits until no file of the plan can be written to without a change of its times: a task has nothing else to tell a store file
/// by. Files that were written some seconds ago need no wait.
fn wait_until_settled(plan: &Plan, snapshot: &Snapshot) -> Result<(), ExportError> {
    let index = snapshot.index();
    let mut files: Vec<FileId> = Vec::new();
    for segment in snapshot.segments().filter(|segment| !plan.selection.rows[segment.index()].is_empty()) {
        let file = index.file_of(segment);
        if files.last() != Some(&file) {
            files.push(file);
        }
    }
    for _ in 0..SETTLE_ROUNDS {
        let now = file_clock_ns();
        let mut waits = false;
        for file in &files {
            waits |= !index.source(*file)?.stamp().is_settled(now);
        }
        if !waits {
            return Ok(());
        }
        std::thread::sleep(SETTLE_WAIT);
    }
    // Times in the future: no wait helps, and a task compares them all the same.
    Ok(())
}

/// Deals groups of output files to tasks, the longest first, each to the task with the fewest bytes. Some tasks may stay empty: their
/// number is what was asked for.
fn deal(plan: &Plan, groups: Vec<Vec<ShardId>>, tasks: usize) -> Vec<Vec<Vec<u32>>> {
    let bytes_of = |group: &[ShardId]| group.iter().map(|shard| plan.source_bytes_of(*shard)).sum::<u64>();
    let mut groups: Vec<(u64, Vec<ShardId>)> = groups.into_iter().map(|group| (bytes_of(&group), group)).collect();
    groups.sort_by_key(|(bytes, group)| (Reverse(*bytes), group[0]));
    let mut dealt: Vec<Vec<Vec<ShardId>>> = vec![Vec::new(); tasks];
    let mut least: BinaryHeap<Reverse<(u64, usize)>> = (0..tasks).map(|task| Reverse((0, task))).collect();
    for (bytes, group) in groups {
        let Reverse((sum, task)) = least.pop().expect("there is one task at least");
        least.push(Reverse((sum + bytes, task)));
        dealt[task].push(group);
    }
    let number = |shard: ShardId| to_u32(shard.index());
    let numbered = |mut groups: Vec<Vec<ShardId>>| {
        groups.sort();
        groups.into_iter().map(|group| group.into_iter().map(number).collect()).collect()
    };
    dealt.into_iter().map(numbered).collect()
}
