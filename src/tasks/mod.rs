//! An export, or the index of a store, as tasks that the workers of another system run: plan, tasks, commit.
//!
//! Everything of an export's job lies in one directory that all workers see, its root:
//!
//! ```text
//! plan.json                          what is exported, from which store, in which tasks
//! spans/<shard>                      the rows of an output file (`spans::span_file`)
//! data/<Type>/<n>.<attempt>.ndjson   an output file, as one attempt of a task wrote it
//! tasks/<i>.json                     what the attempt of a task wrote that ended first
//! manifest.json                      the export, once it is committed
//! ```
//!
//! `planner` makes the plan, once. An attempt of a task (`run_task`) writes files under names of its own, and then its record, which
//! only the first attempt can make; a later one compares what it wrote, removes it, and ends as the first one did. `commit` reads
//! the records of all tasks, makes the manifest, and then removes what no record names. So a task may be run twice, at once or
//! after the commit, may be killed anywhere, and need not be told from another attempt of itself.
//!
//! The job of an index (`index_plan`, `index_task`, `index_commit`) has in place of spans and data
//!
//! ```text
//! segments/<i>.<attempt>             the segments of the ranges of a task, as one attempt wrote them
//! committed.json                     the index has taken them
//! ```
//!
//! The records are read as if a stranger had written them. A plan holds no credential.

pub(crate) mod attempt;
pub(crate) mod commit;
pub(crate) mod hashed_record;
pub(crate) mod index_commit;
pub(crate) mod index_plan;
pub(crate) mod index_task;
#[cfg(test)]
mod index_tests;
pub(crate) mod job_error;
pub(crate) mod job_files;
pub(crate) mod job_plan;
pub(crate) mod new_job;
pub(crate) mod planner;
pub(crate) mod run_task;
pub(crate) mod task_record;
#[cfg(test)]
mod tests;
