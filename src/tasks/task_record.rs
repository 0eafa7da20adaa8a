//! The record of a task, `tasks/<i>.json`: what the attempt has written that ended first.

use serde::{Deserialize, Serialize};

use crate::hash::digest::Digest;
use crate::hash::xxh3_128;
use crate::tasks::job_error::JobError;
use crate::tasks::job_files::{JobRoot, is_attempt, task_name};
use crate::tasks::job_plan::JobPlan;
use crate::write::journal::Receipt;

/// What an attempt of a task has written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskRecord {
    /// The plan that it is of.
    pub job_id: String,
    /// Number of the task.
    pub task: usize,
    /// Name of the attempt.
    pub attempt: String,
    /// Hash of everything else in this record.
    pub record_id: String,
    /// Its files, in the order of the plan. Each has a digest, also where the manifest is to have none: attempts are compared by
    /// it.
    pub files: Vec<Receipt>,
}

impl TaskRecord {
    /// The record of an attempt.
    pub(crate) fn new(plan: &JobPlan, task: usize, attempt: &str, files: Vec<Receipt>) -> TaskRecord {
        let (job_id, attempt) = (plan.job_id.clone(), attempt.to_string());
        let mut record = TaskRecord { job_id, task, attempt, record_id: String::new(), files };
        record.record_id = record.content_id();
        record
    }

    /// The hash of the record, whatever hash it states.
    fn content_id(&self) -> String {
        let unnamed = TaskRecord { record_id: String::new(), ..self.clone() };
        format!("{:032x}", xxh3_128(&unnamed.to_bytes()))
    }

    /// The record as it is written.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a record is plain data");
        bytes.push(b'\n');
        bytes
    }

    /// Reads the record of a task; `None` if the task has not ended.
    ///
    /// # Errors
    /// [`JobError::Refused`] when it is not as it was written, or of another plan; [`JobError::Io`].
    pub(crate) fn read(root: &JobRoot, plan: &JobPlan, task: usize) -> Result<Option<TaskRecord>, JobError> {
        let name = task_name(task);
        let Some(bytes) = root.read(&name)? else { return Ok(None) };
        let wrong = || {
            JobError::damaged(
                &root.path(&name),
                "it is not as a task of this plan writes it; plan anew in another directory",
            )
        };
        TaskRecord::from_bytes(&bytes, plan, task).map(Some).ok_or_else(wrong)
    }

    /// The record of a task; `None` if the bytes are not as it is written, or of another plan.
    pub(crate) fn from_bytes(bytes: &[u8], plan: &JobPlan, task: usize) -> Option<TaskRecord> {
        let record: TaskRecord = serde_json::from_slice(bytes).ok()?;
        let is_whole = record.record_id == record.content_id() && record.to_bytes() == bytes;
        (is_whole && record.is_of(plan, task)).then_some(record)
    }

    /// Whether it says what a task of this plan writes.
    fn is_of(&self, plan: &JobPlan, task: usize) -> bool {
        let shards = shards_of(plan, task);
        let is_planned = |(shard, file): (usize, &Receipt)| {
            let planned = &plan.shards[shard];
            let is_changed = planned.bytes != planned.source_bytes;
            file.file == plan.file_name(shard, &self.attempt)
                && file.r#type == planned.r#type.name()
                && file.count == planned.rows
                && (file.bytes == planned.bytes || is_changed && file.bytes < planned.bytes)
                && file.digest.as_ref().is_some_and(Digest::is_well_formed)
        };
        self.job_id == plan.job_id
            && self.task == task
            && is_attempt(&self.attempt)
            && self.files.len() == shards.len()
            && shards.into_iter().zip(&self.files).all(is_planned)
    }

    /// Whether another attempt has written the same.
    pub(crate) fn has_same_files(&self, other: &TaskRecord) -> bool {
        let facts = |record: &TaskRecord| -> Vec<_> {
            let files = record.files.iter();
            files.map(|file| (file.count, file.bytes, file.file_bytes, file.digest.clone())).collect()
        };
        facts(self) == facts(other)
    }
}

/// The output files of a task, by their places in the plan, ascending.
pub(crate) fn shards_of(plan: &JobPlan, task: usize) -> Vec<usize> {
    let mut shards: Vec<usize> = plan.tasks[task].iter().flatten().map(|shard| *shard as usize).collect();
    shards.sort_unstable();
    shards
}
