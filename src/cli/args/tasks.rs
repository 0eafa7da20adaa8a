//! The words of `outpour plan`, `outpour run-task`, `outpour commit` and `outpour spark`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::cli::args::request::RequestArgs;
use crate::cli::args::run::WriteArgs;
use crate::cli::args::store::StoreArgs;

/// `outpour plan`
#[derive(clap::Args, Debug)]
#[command(override_usage = "outpour plan --store <DIR> --job <DIR> <WHOSE RECORDS> [OPTIONS]")]
#[command(after_help = "\
An export in eight tasks, here one after another; any machines that see DIR and
JOB may run them, at once and again:
  outpour plan --store DIR --job JOB --all-patients --tasks 8
  for i in 0 1 2 3 4 5 6 7; do
    outpour run-task --store DIR --job JOB --task $i
  done
  outpour commit --job JOB

The export is complete when JOB/manifest.json is there.")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Root of the job, a new or empty directory that every task sees under this path
    #[arg(long, value_name = "DIR")]
    pub job: PathBuf,
    /// Number of tasks [default: one for each GiB of rows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub tasks: Option<u32>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub request: RequestArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub write: WriteArgs,
}

/// `outpour run-task`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The number of the task is taken from JOB_COMPLETION_INDEX (Kubernetes),
SLURM_ARRAY_TASK_ID or AWS_BATCH_JOB_ARRAY_INDEX where --task is not given.
It ends with its parent process.
Exit codes: 0 the task is done. Do not retry: 64 wrong arguments, plan or
build; 65 the store has changed; 70 two attempts differ; 77 not permitted.
Retry: 74 reading or writing failed; 130 interrupted.")]
pub(crate) struct RunTaskArgs {
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
    #[command(flatten)]
    #[allow(missing_docs)]
    pub write: WriteArgs,
}

/// `outpour commit`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Committing twice is committing once; files that no task has in its record are
removed each time.
Exit codes: 0 committed. Do not retry: 64 wrong arguments, plan or records;
70 the manifest is another one; 77 not permitted.
Retry: 74 reading or writing failed; 75 tasks have not ended; 130 interrupted.")]
pub(crate) struct CommitArgs {
    /// Root of the job
    #[arg(long, value_name = "DIR")]
    pub job: PathBuf,
    /// Remove what attempts leave that end so many seconds late, too: waits, and looks again
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub grace: Option<u64>,
    /// Do not wait until files are on the disk
    #[arg(long)]
    pub no_sync: bool,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

/// `outpour spark`
#[derive(clap::Args, Debug)]
#[command(override_usage = "\
outpour spark --job <DIR> [OPTIONS] [-- WORDS FOR SPARK-SUBMIT]
       outpour spark --print")]
#[command(after_help = "\
Eight tasks on a cluster of which every machine sees DIR and JOB:
  outpour plan --store DIR --job JOB --all-patients --tasks 8
  outpour spark --job JOB -- --master spark://HOST:7077
The driver itself, for a cluster that is reached in another way:
  outpour spark --print > driver.py
  spark-submit driver.py --job JOB

The export is complete when JOB/manifest.json is there. JOB/status.json tells
how far it is. Tasks that have ended are not run again.
Exit codes: 0 committed. Do not retry: 64 wrong arguments, plan or build; 65
the store has changed; 70 two attempts differ; 77 not permitted. Retry: 74
reading or writing failed; 75 Spark gave up; 130 interrupted. 3 is a code of
spark-submit's own.")]
pub(crate) struct SparkArgs {
    /// Root of the job, as `outpour plan` made it
    #[arg(long, value_name = "DIR", required_unless_present = "print")]
    pub job: Option<PathBuf>,
    /// The store [default: as the plan names it]
    #[arg(long, value_name = "DIR", env = "OUTPOUR_STORE", hide_env_values = true)]
    pub store: Option<PathBuf>,
    /// Have Spark copy this binary to the workers [default: they find it under its own path]
    #[arg(long)]
    pub ship: bool,
    /// The spark-submit to run [default: that of SPARK_HOME, else of PATH]
    #[arg(long, value_name = "PATH")]
    pub spark_submit: Option<PathBuf>,
    /// Print the driver, a Python program, and stop
    #[arg(long, conflicts_with_all = ["job", "ship", "spark_submit", "words"])]
    pub print: bool,
    /// Words for spark-submit
    #[arg(last = true, value_name = "WORDS")]
    pub words: Vec<OsString>,
}
