//! The record of a task, `tasks/<i>.json`: what the attempt has written that ended first.

use serde::{Deserialize, Serialize};

use crate::hash::digest::Digest;
use crate::tasks::attempt::AttemptRecord;
use crate::tasks::hashed_record::HashedRecord;
use crate::tasks::job_files::is_attempt;
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
        TaskRecord { job_id, task, attempt, record_id: String::new(), files }.hashed()
    }
}

impl HashedRecord for TaskRecord {
    fn stated_hash(&mut self) -> &mut String {
        &mut self.record_id
    }
}

impl AttemptRecord for TaskRecord {
    type Plan = JobPlan;

    fn attempt(&self) -> &str {
        &self.attempt
    }

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

    fn has_same_contents(&self, other: &TaskRecord) -> bool {
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
