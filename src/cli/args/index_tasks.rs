//! The words of `outpour index-plan`, `outpour index-task` and `outpour index-commit`.

use std::path::PathBuf;

use crate::cli::args::choices::ValidateArg;
use crate::cli::args::run::{AllowMissingArgs, ProgressArg, RunArgs, WriteArgs};
use crate::cli::args::store::StoreArgs;

/// `outpour index-plan`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The index of a store in four tasks, here one after another; any machines that
see DIR and JOB may run them, at once and again:
  outpour index-plan --store DIR --job JOB --tasks 4
  for i in 0 1 2 3; do
    outpour index-task --store DIR --job JOB --task $i
  done
  outpour index-commit --store DIR --job JOB

The index is what `outpour index` makes of the files that are there when it is
planned. The plan and the tasks change nothing of an index that stands.
Exit codes: 0 planned; 2 wrong arguments; 3 it failed.")]
pub(crate) struct IndexPlanArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Root of the job, a new or empty directory that every task sees under this path
    #[arg(long, value_name = "DIR")]
    pub job: PathBuf,
    /// Number of tasks [default: one for each 4 GiB that are to be read]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub tasks: Option<u32>,
    /// What is checked of each line: the whole grammar, or structure only [default: full, or what the index was made with]
    #[arg(long, value_name = "HOW")]
    pub validate: Option<ValidateArg>,
    /// Plan to make an index again that was made with other choices, as `outpour index --remake` does
    #[arg(long)]
    pub remake: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub write: WriteArgs,
}

/// `outpour index-task`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The number of the task is taken from JOB_COMPLETION_INDEX (Kubernetes),
SLURM_ARRAY_TASK_ID or AWS_BATCH_JOB_ARRAY_INDEX where --task is not given.
A task has one thread, and ends with its parent process.
Exit codes: 0 the task is done. Do not retry: 64 wrong arguments, plan or
build; 65 the store has changed; 70 two attempts differ; 77 not permitted.
Retry: 74 reading or writing failed; 130 interrupted.")]
pub(crate) struct IndexTaskArgs {
    /// The store, as the plan names it
    #[arg(long, value_name = "DIR", env = "OUTPOUR_STORE", hide_env_values = true)]
    pub store: PathBuf,
    /// Root of the job, as the plan names it
    #[arg(long, value_name = "DIR")]
    pub job: PathBuf,
    /// Number of the task, from 0
    #[arg(long, value_name = "I")]
    pub task: Option<usize>,
    /// Name of the attempt, for people who look for what became of it: letters, digits, - and _
    #[arg(long, value_name = "NAME", default_value = "a")]
    pub attempt: String,
    /// Do not wait until files are on the disk
    #[arg(long)]
    pub no_sync: bool,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
    /// Progress on standard error: a bar where that is a terminal (auto), a line every 10 s and at each further 10 % (plain)
    #[arg(long, value_name = "HOW", default_value = "auto", env = "OUTPOUR_PROGRESS", hide_env_values = true)]
    pub progress: ProgressArg,
}

/// `outpour index-commit`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Committing twice is committing once. The segments of the job are removed when
the index has them.
Exit codes: 0 committed. Do not retry: 64 wrong arguments, plan or records, or
too much is gone from the store; 65 the store or its index has changed: plan
anew; 70 two attempts differ; 77 not permitted.
Retry: 74 reading or writing failed; 75 tasks have not ended; 130 interrupted.")]
pub(crate) struct IndexCommitArgs {
    /// The store, as the plan names it
    #[arg(long, value_name = "DIR", env = "OUTPOUR_STORE", hide_env_values = true)]
    pub store: PathBuf,
    /// Where the index lies, as the plan names it [default: .outpour in the store]
    #[arg(long, value_name = "DIR", env = "OUTPOUR_INDEX_DIR", hide_env_values = true)]
    pub index_dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub missing: AllowMissingArgs,
    /// Root of the job
    #[arg(long, value_name = "DIR")]
    pub job: PathBuf,
    /// Do not wait until files of the job are on the disk; those of the index are waited for
    #[arg(long)]
    pub no_sync: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run: RunArgs,
}
