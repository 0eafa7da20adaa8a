//! The commit of an index: the segments of all tasks in one container, and then what a refresh does with segments that it has
//! scanned itself.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use crate::error::IndexError;
use crate::hash::Hasher128;
use crate::ids::FileId;
use crate::index::dir::{BlockWriter, IndexDir};
use crate::index::open::Verification;
use crate::index::refresh::{RefreshRun, refresh};
use crate::index::report::RefreshStats;
use crate::index::scan_plan::{changed_since_plan, cover_ranges, first_difference};
use crate::index::segment::scan::{ScanResult, SegmentSupply};
use crate::index::segment::span::ScanRange;
use crate::index::snapshot::Index;
use crate::index::store_files::StoreFiles;
use crate::progress::{Phase, Progress};
use crate::store::choices::RowRules;
use crate::store::file_name::path_of;
use crate::store::{Store, StoreOptions};
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::tasks::attempt::records_of_all;
use crate::tasks::commit::remove_files;
use crate::tasks::hashed_record::HashedRecord;
use crate::tasks::index_plan::{IndexJobPlan, index_dir_of};
use crate::tasks::index_task::IndexTaskRecord;
use crate::tasks::job_error::JobError;
use crate::tasks::job_files::{
    COMMITTED, Creation, JobRoot, PLAN, SEGMENTS, TASKS, is_segments_name, is_unlinked, is_unlinked_record,
    segments_name, task_name,
};
use crate::tasks::job_plan::TaskPlan;
use crate::tasks::run_task::OTHER_STORE;

/// What is to be committed.
pub(crate) struct IndexCommitRequest<'a> {
    /// The store, as the plan names it.
    pub store: &'a Path,
    /// How its index is written; its directory must be the one that the plan names. As much may be missing as it says, or the
    /// plan.
    pub options: StoreOptions,
    /// The root of the job.
    pub job: &'a Path,
    /// A name that no other commit has, on whatever machine.
    pub writer: &'a str,
    /// Whether files of the job are synced. Those of the index always are.
    pub sync: FileSync,
}

/// The record that an index has taken the segments of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommitRecord {
    /// The plan that was committed.
    job_id: String,
    /// Hash of everything else in this record.
    record_id: String,
}

impl HashedRecord for CommitRecord {
    fn stated_hash(&mut self) -> &mut String {
        &mut self.record_id
    }
}

/// A committed index.
pub(crate) struct CommittedIndex {
    /// The index, and what a refresh reports of it; `None` when it was committed before.
    pub index: Option<(Index, RefreshStats)>,
    /// Names of files of the job that were removed.
    pub removed: Vec<String>,
}

/// Commits the index of a job whose tasks have ended, under the lock of the index. The same once more changes nothing. The
/// segments of the job are removed, which are of no further use.
///
/// # Errors
/// [`JobError::Missing`] when a task has no record; [`JobError::Drifted`] when a refresh would scan something else by now;
/// [`JobError`] otherwise. The index is what it was then.
pub(crate) fn commit_index(request: IndexCommitRequest<'_>, progress: &Progress) -> Result<CommittedIndex, JobError> {
    let directory = Directory::open(request.job).map_err(|error| JobError::io(request.job, error))?;
    let root = JobRoot { directory, sync: request.sync };
    let plan = IndexJobPlan::read(&root)?;
    let found = request.store.canonicalize().map_err(|error| JobError::io(request.store, error))?;
    let allow_missing = request.options.allow_missing.max(plan.allow_missing);
    let options = StoreOptions { choices: plan.choices(), remake: plan.remake, allow_missing, ..request.options };
    let store = Store::open_with(request.store, options)?;
    if found.display().to_string() != plan.store {
        return Err(JobError::Refused(OTHER_STORE.to_string()));
    }
    if index_dir_of(&store)? != plan.index_dir {
        let text = "the index directory is not the one that the plan names; give that one, or plan anew";
        return Err(JobError::Refused(text.to_string()));
    }
    let record = CommitRecord { job_id: plan.job_id.clone(), record_id: String::new() }.hashed();
    let stands = root.read(COMMITTED)?;
    if stands.as_ref().is_some_and(|stands| *stands != record.to_bytes()) {
        let text = "it is not as a commit of this plan writes it; plan anew in another directory";
        return Err(JobError::damaged(&root.path(COMMITTED), text));
    }
    let mut index = None;
    if stands.is_none() {
        // An index in memory would be of no use.
        let path = store.index_dir();
        IndexDir::directory(&path).map_err(|error| JobError::io(&path, error))?;
        let records: Vec<IndexTaskRecord> = records_of_all(&root, &plan, plan.tasks.len())?;
        let supply = JobSegments { root: &root, plan: &plan, records, progress, failure: Mutex::new(None) };
        let run = RefreshRun { store: &store, progress, supply: Some(&supply) };
        let done = refresh(run, None, Some(&plan.listing), Verification::Stamps);
        let failure = supply.failure.into_inner().expect("no panic under it");
        let (made, stats, _) = done.map_err(|error| failure.unwrap_or_else(|| error.into()))?;
        index = Some((made, stats));
        match root.create_once(COMMITTED, request.writer, &record.to_bytes())? {
            Creation::Made | Creation::Exists => {}
        }
    }
    let mut removed = Vec::new();
    remove_files(&root, SEGMENTS, &is_segments_name, &mut removed)?;
    remove_files(&root, TASKS, &is_unlinked_record, &mut removed)?;
    let is_lost = |name: &str| is_unlinked(name, PLAN) || is_unlinked(name, COMMITTED);
    remove_files(&root, "", &is_lost, &mut removed)?;
    Ok(CommittedIndex { index, removed })
}

/// The segments that the tasks of a job have written.
struct JobSegments<'a> {
    root: &'a JobRoot,
    plan: &'a IndexJobPlan,
    records: Vec<IndexTaskRecord>,
    progress: &'a Progress,
    /// What is wrong with the job, where that is why the refresh failed.
    failure: Mutex<Option<JobError>>,
}

impl SegmentSupply for JobSegments<'_> {
    fn put_segments(
        &self,
        files: &StoreFiles,
        ranges: &[ScanRange],
        rules: RowRules,
        container: &mut BlockWriter,
        name: &str,
    ) -> Result<ScanResult, IndexError> {
        // 1. What a refresh would scan must be what was planned, in files that are what they were.
        let root = Path::new(&self.plan.store);
        if self.plan.rules.rules() != Some(rules) {
            let reason = "has an index by other rules than when it was planned; make a new plan".to_string();
            return Err(IndexError::Changed { path: root.to_path_buf(), reason });
        }
        if let Some(name) = first_difference(files, ranges, &self.plan.files, &self.plan.ranges()) {
            let reason =
                "is to be scanned otherwise than was planned: it or the index has changed; make a new plan".to_string();
            return Err(IndexError::Changed { path: root.join(path_of(&name)), reason });
        }
        let numbers: Option<Vec<FileId>> = self.plan.files.iter().map(|file| files.position(&file.name)).collect();
        let numbers = numbers.expect("each has a range");
        for (planned, file) in self.plan.files.iter().zip(&numbers) {
            if !planned.stands_in(files.stamp_now(*file)?) {
                return Err(changed_since_plan(files, *file));
            }
        }
        // 2. The containers of the tasks, one behind the other.
        self.progress.begin(Phase::Indexing);
        self.progress.scan_total.fetch_add(self.records.iter().map(|record| record.bytes).sum(), Relaxed);
        let mut result = ScanResult::default();
        let (mut before, mut ranges) = (0, ranges);
        for record in &self.records {
            let (own, rest) = ranges.split_at(self.plan.tasks[record.task].len());
            ranges = rest;
            let segments = record.segments.iter();
            let segments = segments.map(|segment| (numbers[segment.file as usize], segment.start, segment.end));
            if !cover_ranges(own, segments) {
                let text = "it does not have the segments of its ranges; plan anew in another directory";
                let damaged = JobError::damaged(&self.root.path(&task_name(record.task)), text);
                return Err(self.explain(ContainerError::Job(damaged), name));
            }
            if self.progress.is_cancelled() {
                return Err(IndexError::Cancelled);
            }
            self.copy_container(record, container).map_err(|error| self.explain(error, name))?;
            for segment in &record.segments {
                let file = numbers[segment.file as usize];
                result.segments.push(segment.written(file, before).expect("checked when it was read"));
            }
            result.open_ended.extend(record.open_ended.iter().map(|file| numbers[*file as usize]));
            before += record.bytes;
        }
        container.flush().map_err(|source| IndexError::Write { name: name.to_string(), source })?;
        // 3. The stamps of before the tasks read: if a file was written since, the next refresh compares it.
        let stamps = self.plan.files.iter().zip(numbers).map(|(planned, file)| (file, planned.stamp, planned.settled));
        result.stamps = stamps.collect();
        Ok(result)
    }
}

/// Why a container was not copied.
enum ContainerError {
    /// Of what is read.
    Job(JobError),
    /// Of what is written.
    Write(io::Error),
}

impl JobSegments<'_> {
    /// Appends the container of a task, which must have the length and the hash of its record.
    fn copy_container(&self, record: &IndexTaskRecord, container: &mut BlockWriter) -> Result<(), ContainerError> {
        let name = segments_name(record.task, &record.attempt);
        let failed = |error| ContainerError::Job(JobError::io(self.root.path(&name), error));
        let damaged = |text| ContainerError::Job(JobError::damaged(&self.root.path(&name), text));
        let file = match self.root.directory.open_file(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("it is not there; plan anew in another directory"));
            }
            Err(error) => return Err(failed(error)),
        };
        let mut input = file.take(record.bytes + 1);
        let (mut hasher, mut bytes, mut buffer) = (Hasher128::new(), 0, vec![0; COPY_BYTES]);
        loop {
            let count = input.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            container.write_all(&buffer[..count]).map_err(ContainerError::Write)?;
            bytes += count as u64;
            self.progress.scan_done.fetch_add(count as u64, Relaxed);
        }
        if bytes != record.bytes || format!("{:032x}", hasher.digest()) != record.hash {
            return Err(damaged("it is not as its task has written it; plan anew in another directory"));
        }
        Ok(())
    }

    /// The error of a refresh whose segments could not be copied; what is wrong with the job is kept for its commit.
    fn explain(&self, error: ContainerError, name: &str) -> IndexError {
        match error {
            ContainerError::Write(source) => IndexError::Write { name: name.to_string(), source },
            ContainerError::Job(error) => {
                *self.failure.lock().expect("no panic under it") = Some(error);
                IndexError::Stopped
            }
        }
    }
}

/// Bytes of a container that are copied at a time.
const COPY_BYTES: usize = 1 << 20;
