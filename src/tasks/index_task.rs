//! One attempt of a task of an index: its ranges scanned into a container of segments, then its record.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use crate::error::IndexError;
use crate::hash::xxh3_128_of_reader;
use crate::ids::FileId;
use crate::index::dir::BlockWriter;
use crate::index::scan_plan::{changed_since_plan, planned_files, ranges_to_scan};
use crate::index::segment::scan::{ScanOptions, ScanResult, WrittenSegment, scan_into};
use crate::index::store_files::StoreFiles;
use crate::progress::{Phase, Progress};
use crate::simd::Kernel;
use crate::store::{Store, StoreOptions};
use crate::sys::access::Access;
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::tasks::attempt::{AttemptRecord, TaskOutcome, check_task, run_attempt};
use crate::tasks::hashed_record::HashedRecord;
use crate::tasks::index_plan::IndexJobPlan;
use crate::tasks::job_error::JobError;
use crate::tasks::job_files::{JobRoot, SEGMENTS, is_attempt, segments_name};
use crate::tasks::job_plan::TaskPlan;
use crate::tasks::run_task::{OTHER_STORE, TaskRequest};
/// What an attempt of a task of an index has written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IndexTaskRecord {
    /// The plan that it is of.
    pub job_id: String,
    /// Number of the task.
    pub task: usize,
    /// Name of the attempt.
    pub attempt: String,
    /// Hash of everything else in this record.
    pub record_id: String,
    /// Bytes of its container.
    pub bytes: u64,
    /// xxh3 (128 bit) of the container.
    pub hash: String,
    /// Its segments, in the order of its ranges.
    pub segments: Vec<TaskSegment>,
    /// Compressed files, by their places in the plan, that did not end with a whole member and a whole line.
    pub open_ended: Vec<u32>,
}

/// A segment that a task has written, see [`WrittenSegment`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskSegment {
    /// Place of its file in the plan.
    pub file: u32,
    /// Offset in the container.
    pub at: u64,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// xxh3 (64 bit) of the bytes between them, in hexadecimal.
    pub content: String,
    /// Whether it is the last line of a plain file, without its newline.
    pub tail: bool,
}

impl TaskSegment {
    /// The segment as a task writes it down.
    fn of(segment: &WrittenSegment) -> TaskSegment {
        let WrittenSegment { file, at, start, end, content, tail } = *segment;
        TaskSegment { file: file.0, at, start, end, content: format!("{content:016x}"), tail }
    }

    /// The segment, as one of the file `file` whose container begins `before` bytes into another; `None` if its hash is none.
    pub(crate) fn written(&self, file: FileId, before: u64) -> Option<WrittenSegment> {
        let content = u64::from_str_radix(&self.content, 16).ok()?;
        let TaskSegment { at, start, end, tail, .. } = *self;
        Some(WrittenSegment { file, at: before + at, start, end, content, tail })
    }
}

impl HashedRecord for IndexTaskRecord {
    fn stated_hash(&mut self) -> &mut String {
        &mut self.record_id
    }
}

impl AttemptRecord for IndexTaskRecord {
    type Plan = IndexJobPlan;

    fn attempt(&self) -> &str {
        &self.attempt
    }

    fn is_of(&self, plan: &IndexJobPlan, task: usize) -> bool {
        let files: HashSet<u32> = plan.tasks[task].iter().map(|range| range.file).collect();
        let has_range = |file: u32| files.contains(&file);
        let mut before = 0;
        let is_sound = |segment: &TaskSegment| {
            let in_order = segment.at >= before && segment.at < self.bytes && segment.start <= segment.end;
            before = segment.at + 1;
            in_order && has_range(segment.file) && segment.written(FileId(0), 0).is_some()
        };
        self.job_id == plan.job_id
            && self.task == task
            && is_attempt(&self.attempt)
            && self.hash.len() == 32
            && self.segments.iter().all(is_sound)
            && self.open_ended.iter().all(|file| has_range(*file))
    }

    fn has_same_contents(&self, other: &IndexTaskRecord) -> bool {
        let facts = |record: &IndexTaskRecord| (record.bytes, record.hash.clone(), record.open_ended.clone());
        facts(self) == facts(other) && self.segments == other.segments
    }
}

/// Runs a task of an index, unless its record stands. One thread scans, whatever the current pool: the order of the segments in the
/// container must not depend on chance.
///
/// # Errors
/// [`JobError`]; nothing of this attempt has a record then, and its file is removed.
pub(crate) fn run_index_task(
    request: &TaskRequest<'_>,
    kernel: Kernel,
    progress: &Progress,
) -> Result<TaskOutcome<IndexTaskRecord>, JobError> {
    let directory = Directory::open(request.job).map_err(|error| JobError::io(request.job, error))?;
    let root = JobRoot { directory, sync: request.sync };
    let plan = IndexJobPlan::read(&root)?;
    let store = request.store.canonicalize().map_err(|error| JobError::io(request.store, error))?;
    let is_planned = store.display().to_string() == plan.store;
    let wrong = if is_planned { Vec::new() } else { vec![OTHER_STORE.to_string()] };
    check_task(request.task, plan.tasks.len(), request.attempt, wrong)?;
    let write = || write_segments(request, &root, &plan, kernel, progress);
    let remove = || drop(root.directory.remove_file(&segments_name(request.task, request.attempt)));
    run_attempt(&root, &plan, (request.task, request.attempt), write, remove)
}

/// Scans the ranges of a task into its container; its record.
fn write_segments(
    request: &TaskRequest<'_>,
    root: &JobRoot,
    plan: &IndexJobPlan,
    kernel: Kernel,
    progress: &Progress,
) -> Result<IndexTaskRecord, JobError> {
    let (name, ranges) = (segments_name(request.task, request.attempt), &plan.tasks[request.task]);
    let failed = |error| JobError::io(root.path(&name), error);
    let options = StoreOptions { access: Access::pread(), choices: plan.choices(), kernel, ..StoreOptions::default() };
    let store = Store::open_with(request.store, options)?;
    let files = planned_files(&store, &plan.files, plan.follow_symlinks);
    check_stamps(&files, plan, request.task)?;
    let spans = ranges_to_scan(&files, ranges)?;
    let mut total = 0;
    for span in &spans {
        total += span.part.file_bytes(files.source(span.file)?);
    }
    progress.begin(Phase::Indexing);
    progress.scan_total.fetch_add(total, Relaxed);
    let Some((rules, unproven)) = plan.rules.rules() else { unreachable!("checked when it was read") };
    let options = ScanOptions { kernel, rules, unproven, progress: &progress.scan_done, cancel: &progress.cancel };
    root.directory.make_directory(SEGMENTS).map_err(failed)?;
    let file = root.directory.create_new(&name).map_err(failed)?;
    let container = BlockWriter::of_file(file.try_clone().map_err(failed)?);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.map_err(|error| failed(io::Error::other(error)))?;
    let scanned =
        pool.install(|| scan_into(&files, &spans, container, &name, &options)).map_err(|error| match error {
            IndexError::Write { source, .. } => failed(source),
            other => other.into(),
        })?;
    // A file that was written meanwhile may have been read half before and half after.
    check_stamps(&files, plan, request.task)?;
    if request.sync == FileSync::Yes {
        file.sync_all().map_err(failed)?;
    }
    root.sync_folders([SEGMENTS])?;
    let (bytes, hash) = xxh3_128_of_reader(root.directory.open_file(&name).map_err(failed)?).map_err(failed)?;
    let ScanResult { segments, open_ended, .. } = scanned;
    let record = IndexTaskRecord {
        job_id: plan.job_id.clone(),
        task: request.task,
        attempt: request.attempt.to_string(),
        record_id: String::new(),
        bytes,
        hash: format!("{hash:032x}"),
        segments: segments.iter().map(TaskSegment::of).collect(),
        open_ended: open_ended.into_iter().map(|file| file.0).collect(),
    };
    Ok(record.hashed())
}

/// Checks that the files of a task are what they were when the plan was made.
fn check_stamps(files: &StoreFiles, plan: &IndexJobPlan, task: usize) -> Result<(), JobError> {
    let mut last = None;
    for range in plan.tasks[task].iter().filter(|range| last.replace(range.file) != Some(range.file)) {
        let file = FileId(range.file);
        let now = files.stamp_now(file)?;
        if !plan.files[range.file as usize].stands_in(now) {
            return Err(changed_since_plan(files, file).into());
        }
    }
    Ok(())
}
