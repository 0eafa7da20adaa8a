//! One attempt of a task: its files, then its record.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;

use crate::error::ExportError;
use crate::hash::digest::DigestAlgorithm;
use crate::ids::FileId;
use crate::progress::{Phase, Progress};
use crate::spans::span_file::{SpanFacts, SpanFile};
use crate::spans::span_sources::SpanSources;
use crate::store::choices::links_of;
use crate::sys::access::Access;
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::tasks::attempt::{TaskOutcome, check_task, run_attempt};
use crate::tasks::job_error::JobError;
use crate::tasks::job_files::{DATA, JobRoot, spans_name};
use crate::tasks::job_plan::{JobPlan, JobShard, TaskPlan};
use crate::tasks::task_record::{TaskRecord, shards_of};
use crate::write::encode::Encoder;
use crate::write::frame_recode::Recompressors;
use crate::write::journal::Receipt;
use crate::write::shard::PlannedOutput;
use crate::write::sink::DirSink;
use crate::write::span_sweep::{SpanOutput, copy_spans};

/// What is to be run.
pub(crate) struct TaskRequest<'a> {
    /// The store, as the plan names it.
    pub store: &'a Path,
    /// The root of the job, as the plan names it.
    pub job: &'a Path,
    /// Number of the task, from 0.
    pub task: usize,
    /// Name of this attempt, which no other one has.
    pub attempt: &'a str,
    /// Whether files are synced before the record appears.
    pub sync: FileSync,
}

/// Runs a task, unless its record stands. Runs on the current rayon pool.
///
/// # Errors
/// [`JobError`]; nothing of this attempt has a record then, and its files are removed.
pub(crate) fn run_task(request: &TaskRequest<'_>, progress: &Progress) -> Result<TaskOutcome<TaskRecord>, JobError> {
    let directory = Directory::open(request.job).map_err(|error| JobError::io(request.job, error))?;
    let root = JobRoot { directory, sync: request.sync };
    let plan = JobPlan::read(&root)?;
    check_request(request, &plan)?;
    let write = || {
        let files = write_files(request, &root, &plan, progress)?;
        Ok(TaskRecord::new(&plan, request.task, request.attempt, files))
    };
    let remove = || remove_files(&root, &plan, request);
    run_attempt(&root, &plan, (request.task, request.attempt), write, remove)
}

/// Refuses a task that is not of the plan.
fn check_request(request: &TaskRequest<'_>, plan: &JobPlan) -> Result<(), JobError> {
    let store = request.store.canonicalize().map_err(|error| JobError::io(request.store, error))?;
    let is_planned = store.display().to_string() == plan.store;
    let wrong = if is_planned { Vec::new() } else { vec![OTHER_STORE.to_string()] };
    check_task(request.task, plan.tasks.len(), request.attempt, wrong)
}

/// What is said of a store that is not the one of the plan.
pub(crate) const OTHER_STORE: &str = "the store is not the one that the plan names; give that one";

/// Writes the files of a task; their receipts, in the order of the plan.
fn write_files(
    request: &TaskRequest<'_>,
    root: &JobRoot,
    plan: &JobPlan,
    progress: &Progress,
) -> Result<Vec<Receipt>, JobError> {
    let shards = shards_of(plan, request.task);
    let spans = shards.iter().map(|shard| open_spans(root, plan, *shard)).collect::<Result<Vec<SpanFile>, _>>()?;
    let facts: Vec<&SpanFacts> = spans.iter().map(|spans| &spans.facts).collect();
    let sources = SpanSources::open(request.store, Access::pread(), links_of(plan.follow_symlinks), &facts)?;
    let bytes = shards.iter().map(|shard| plan.shards[*shard].source_bytes).sum();
    progress.expect_writes(bytes, shards.len() as u64);
    progress.begin(Phase::Writing);
    let elements = plan.elements();
    let recoders = Recompressors::default();
    let receipts: Mutex<Vec<Option<Receipt>>> = Mutex::new(vec![None; shards.len()]);
    let failed = |name: &str, source| ExportError::Write {
        directory: root.directory.path().to_path_buf(),
        name: name.to_string(),
        source,
    };
    let digest = match plan.digest {
        // Attempts are compared by it.
        DigestAlgorithm::None => DigestAlgorithm::Xxh3,
        digest => digest,
    };
    plan.tasks[request.task].par_iter().try_for_each(|group| {
        let places: Vec<usize> = group.iter().map(|shard| place_of(&shards, *shard as usize)).collect();
        let numbers: Vec<Vec<FileId>> = places.iter().map(|place| sources.numbers(&spans[*place].facts)).collect();
        let outputs: Vec<SpanOutput<'_>> = places
            .iter()
            .zip(&numbers)
            .map(|(place, numbers)| output_of(plan, shards[*place], request.attempt, &spans[*place], numbers))
            .collect();
        let mut open = |i: usize| {
            let name = &outputs[i].name;
            let sink = DirSink::new(root.directory.path(), request.sync);
            Encoder::begin(sink, name, plan.compression, digest, 1).map_err(|error| failed(name, error))
        };
        let mut close = |i: usize, receipt: Receipt| {
            receipts.lock().expect("no panic under it")[places[i]] = Some(receipt);
            progress.files_done.fetch_add(1, Relaxed);
            Ok(())
        };
        copy_spans(&outputs, &sources, &elements, &recoders, progress, &mut open, &mut close, &failed)
    })?;
    sources.verify_unchanged()?;
    let folders = plan.folders(shards.iter().copied());
    root.sync_folders(folders.iter().map(String::as_str).chain([DATA]))?;
    let receipts = receipts.into_inner().expect("no panic under it");
    receipts
        .into_iter()
        .collect::<Option<Vec<Receipt>>>()
        .ok_or_else(|| JobError::Refused("the spans of a file have no rows; make a new plan".to_string()))
}

/// An output file of a task, as an attempt writes it.
fn output_of<'a>(
    plan: &JobPlan,
    shard: usize,
    attempt: &str,
    spans: &'a SpanFile,
    numbers: &'a [FileId],
) -> SpanOutput<'a> {
    let JobShard { r#type, rows, bytes, source_bytes, .. } = plan.shards[shard];
    let planned = PlannedOutput { rows, bytes, source_bytes };
    SpanOutput { name: plan.file_name(shard, attempt), resource_type: r#type, planned, spans, numbers }
}

/// The place of a shard among those of a task, which are ascending.
fn place_of(shards: &[usize], shard: usize) -> usize {
    shards.partition_point(|other| *other < shard)
}

/// Opens the spans of an output file, and checks that they are those of the plan.
fn open_spans(root: &JobRoot, plan: &JobPlan, shard: usize) -> Result<SpanFile, JobError> {
    let name = spans_name(shard);
    let path = root.path(&name);
    let file = root.directory.open_file(&name).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => JobError::damaged(&path, "it is not there; make a new plan"),
        _ => JobError::io(&path, error),
    })?;
    let spans = SpanFile::open(file, &path)?;
    let planned = &plan.shards[shard];
    let facts = &spans.facts;
    let is_planned = (facts.rows, facts.bytes) == (planned.rows, planned.source_bytes)
        && facts.plan_id == plan.plan_id
        && facts.shard as usize == shard
        && spans.content_id() == planned.spans;
    if is_planned { Ok(spans) } else { Err(JobError::damaged(&path, "it is of another plan; make a new one")) }
}

/// Removes the files of an attempt that has no record. What cannot be removed, a commit removes.
fn remove_files(root: &JobRoot, plan: &JobPlan, request: &TaskRequest<'_>) {
    for shard in shards_of(plan, request.task) {
        root.directory.remove_file(&plan.file_name(shard, request.attempt)).ok();
    }
}
