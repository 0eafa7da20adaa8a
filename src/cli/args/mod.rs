//! The words of the command line, as clap reads them. No decision is made here.

pub(crate) mod chain;
pub(crate) mod choices;
#[cfg(feature = "server")]
pub(crate) mod credential;
pub(crate) mod group;
pub(crate) mod import;
pub(crate) mod index_tasks;
#[cfg(feature = "server")]
pub(crate) mod jobs;
pub(crate) mod read_only;
pub(crate) mod records;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod search_columns;
pub(crate) mod store;
pub(crate) mod tasks;

use crate::cli::args::chain::{ApplyArgs, ChainArgs};
use crate::cli::args::choices::ValidateArg;
use crate::cli::args::import::{AppendArgs, ImportArgs};
use crate::cli::args::index_tasks::{IndexCommitArgs, IndexPlanArgs, IndexTaskArgs};
use crate::cli::args::read_only::{InspectArgs, VerifyArgs};
use crate::cli::args::request::RequestArgs;
use crate::cli::args::run::{RunArgs, WriteArgs};
use crate::cli::args::search_columns::SearchColumnArgs;
use crate::cli::args::store::StoreArgs;
use crate::cli::args::tasks::{CommitArgs, PlanArgs, RunTaskArgs, SparkArgs};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Exports a cohort's FHIR R4 records in bulk: index once, select rows, copy byte ranges.
#[derive(Parser, Debug)]
#[command(name = "outpour", version = version(), max_term_width = 80, arg_required_else_help = true, after_help = "\
A first run on your own data:
  outpour export --store /data/fhir --group my-group --out /data/export
Every night: everything the first time, then what changed since:
  outpour export --store /data/fhir --group my-group --chain /data/nights
  outpour apply /data/nights --to /data/current

Results are on standard output, progress and messages on standard error.
Exit codes: 0 done; 1 done, and the error files name faulty records;
2 the request was wrong; 3 failed; 130 interrupted.")]
pub(crate) struct Args {
    /// Print errors, and warnings that need an operator, and nothing else
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Messages")]
    pub quiet: bool,
    /// Print every message, and how long each phase took
    #[arg(short, long, global = true, help_heading = "Messages")]
    pub verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// `--version`: the version and the scanner kernel in use.
fn version() -> &'static str {
    match crate::simd::Kernel::detect().name() {
        "avx512" => concat!(env!("CARGO_PKG_VERSION"), " (kernel avx512)"),
        "avx2" => concat!(env!("CARGO_PKG_VERSION"), " (kernel avx2)"),
        _ => concat!(env!("CARGO_PKG_VERSION"), " (kernel scalar)"),
    }
}

/// The commands.
#[derive(Subcommand, Debug)]
#[allow(clippy::large_enum_variant)]
pub(crate) enum Command {
    /// Write the records of a Group, of patients or of everybody as NDJSON files with a manifest
    Export(ExportArgs),
    /// Take Bundles, resources, NDJSON and exports apart into rows of a store
    Import(ImportArgs),
    /// Write lines that come on standard input to a store, durably
    Append(AppendArgs),
    /// Bring the index of a store up to date
    Index(IndexArgs),
    /// Write a store anew as a packed one: sorted, compressed, made for exports that copy
    Pack(PackArgs),
    /// Write the current resources of a chain of exports
    Apply(ApplyArgs),
    /// Plan an export in tasks, which the workers of another system run
    Plan(PlanArgs),
    /// Run one task of a planned export
    RunTask(RunTaskArgs),
    /// Publish a planned export, once its tasks have ended
    Commit(CommitArgs),
    /// Plan the index of a store in tasks
    IndexPlan(IndexPlanArgs),
    /// Run one task of a planned index
    IndexTask(IndexTaskArgs),
    /// Make the index, once its tasks have ended
    IndexCommit(IndexCommitArgs),
    /// Run the tasks of a planned export on Apache Spark, and publish it
    Spark(SparkArgs),
    /// Check an export against its manifest, or a store's index against its bytes
    Verify(VerifyArgs),
    /// Show what any file that outpour writes holds
    Inspect(InspectArgs),
    /// Answer other services: asynchronous exports over HTTP, as the Bulk Data Access IG describes them
    #[cfg(feature = "server")]
    Serve(ServeArgs),
    /// List, show and remove the jobs of the service
    #[cfg(feature = "server")]
    Jobs {
        /// What to do with jobs.
        #[command(subcommand)]
        command: jobs::JobsCommand,
    },
    /// Make a benchmark store of any size out of bundled synthetic patients
    Synth(SynthArgs),
    /// List, check or import Groups
    Group {
        /// What to do with a Group.
        #[command(subcommand)]
        command: group::GroupCommand,
    },
    /// Make tokens and secrets for the clients of the service
    #[cfg(feature = "server")]
    #[command(after_help = "\
A client says who it is by a bearer token, or by an id and a secret in headers. \
This command makes them out of 256 random bits and prints two things: what the client gets, on standard output, \
shown this once and kept nowhere; and what the configuration of the service gets, on standard error, which holds a \
SHA-256 hash and gives nothing away.

A line for `tokens` of a client:
  outpour credential token --lifetime 30d
A token of a user, for one patient's record:
  outpour credential token --patient p1
For client headers:
  outpour credential secret --client-id nightly

Put it into the file that `outpour serve --config` reads, below [[clients]]:
  [[clients]]
  name = \"nightly\"
  tokens = [
    { id = \"...\", hash = \"...\", expires = \"...\" },
  ]
A service that runs takes it within seconds. Taking the line out again revokes the token.")]
    Credential {
        /// What to make.
        #[command(subcommand)]
        command: credential::CredentialCommand,
    },
}

/// `outpour export`
#[derive(clap::Args, Debug)]
#[command(override_usage = "\
outpour export --store <DIR> --out <DIR> <WHOSE RECORDS> [OPTIONS]
       outpour export --store <DIR> --chain <ROOT> <WHOSE RECORDS> [OPTIONS]
       outpour export --store <DIR> <WHOSE RECORDS> --plan [OPTIONS]")]
#[command(after_help = "\
A Group of the store:
  outpour export --store DIR --out OUT --group ten
Every night: everything the first time, then what changed:
  outpour export --store DIR --group ten --chain ROOT
How much it would be; writes nothing:
  outpour export --store DIR --group ten --plan
Some types, of a Group in a file:
  outpour export --store DIR --out OUT --group cohort.json \\
    --type Patient,Condition
What changed:
  outpour export --store DIR --out OUT --all-patients \\
    --since 2024-05-01T00:00Z --compress gzip

The export is complete when OUT/manifest.json is there. OUT/status.json tells
the state at any time.")]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Directory that the export is written to
    #[arg(long, value_name = "DIR", required_unless_present_any = ["plan", "chain"])]
    pub out: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub request: RequestArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub chain: ChainArgs,
    /// Permission bits of the files once they are published, such as 0640 for a group that reads them [default: 0600]
    #[arg(long, value_name = "OCTAL", help_heading = "Files")]
    pub mode: Option<String>,
    /// Permission bits of the directory and those in it, such as 0750 [default: 0700 where it is made]
    #[arg(long, value_name = "OCTAL", help_heading = "Files")]
    pub dir_mode: Option<String>,
    /// Print types, rows, bytes and files, and write nothing
    #[arg(long, help_heading = "Run")]
    pub plan: bool,
    /// Finish an interrupted export
    #[arg(long, conflicts_with = "force", help_heading = "Run")]
    pub resume: bool,
    /// Replace an earlier export, which stays whole until the new one is planned and, where there is room, written; foreign
    /// files are left alone
    #[arg(long, help_heading = "Run")]
    pub force: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub write: WriteArgs,
}

/// `outpour index`
#[derive(clap::Args, Debug)]
pub(crate) struct IndexArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// What is checked of each line: the whole grammar, or (for stores that another system has validated) structure
    /// only [default: full, or what the index was made with]
    #[arg(long, value_name = "HOW")]
    pub validate: Option<ValidateArg>,
    /// Make an index again that was made with other choices (--validate, --unproven, --ids, --lone-surrogates,
    /// --patient-references, --compartment-paths, --follow-symlinks), or by a version without them: by those that are given, and the defaults. What it remembers
    /// of exports is kept
    #[arg(long)]
    pub remake: bool,
    /// Check every byte of the index, and make again what is damaged
    #[arg(long)]
    pub recheck: bool,
    /// List the faulty lines: file, line, byte and what is wrong
    #[arg(long)]
    pub faults: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub search: SearchColumnArgs,
    /// Also index references outside the compartment (for --context referenced): always done, so this changes nothing
    #[arg(long, hide = true)]
    pub references: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run: RunArgs,
}

/// `outpour synth`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The store appears when it is whole. Until then it is built beside its place as .NAME.outpour-partial, which a run that \
fails removes. A run that was killed leaves it; the next one to the same place begins anew in it, and removing it by \
hand does no harm.")]
pub(crate) struct SynthArgs {
    /// The new store: a directory that is not there yet, or an empty one
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Patients in it; 4,000 make 2 GB
    #[arg(long, value_name = "N")]
    pub patients: u64,
    /// Another seed gives other ids, times and choices
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Rows of a patient together, or all in order of arrival as in a server's log
    #[arg(long, value_name = "ORDER", default_value = "clustered")]
    pub order: OrderArg,
    /// A file a type, or all types in one file
    #[arg(long, value_name = "LAYOUT", default_value = "by-type")]
    pub layout: LayoutArg,
    /// Share of the rows that have a second version
    #[arg(long, value_name = "P%", default_value = "2%")]
    pub updates: String,
    /// Share of the rows that are deleted later
    #[arg(long, value_name = "P%", default_value = "0.5%")]
    pub deletions: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub write: WriteArgs,
}

/// See `--order`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum OrderArg {
    Clustered,
    Arrival,
}

/// See `--layout`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum LayoutArg {
    ByType,
    Mixed,
}

/// `outpour pack`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A packed store is an ordinary store: a directory of .ndjson.zst files that any tool for zstd reads, or of .ndjson.gz files. Versions that a \
later one or a deletion followed leave; lines that are no resources go to rejected.ndjson. New data is put beside the \
packed files; pack again, to another directory, from time to time.

The new directory appears when it is whole. Until then it is built beside its place as .NAME.outpour-partial, which a \
run that fails removes. A run that was killed leaves it; the next one to the same place begins anew in it, and removing \
it by hand does no harm.

Exit code 1: packed, and some lines are no resources, or a compressed file is damaged or cut off, so that something was \
lost or may have been. Of the store that was packed only the index is written: keep it until you have looked.")]
pub(crate) struct PackArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// The new directory; it must not be there yet, or be empty
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Compression of the files; an export in the same compression copies most of it as it is
    #[arg(long, value_name = "CODING", value_enum, default_value_t = CodingArg::Zstd)]
    pub coding: CodingArg,
    /// Level of the compression: 1 to 19 for zstd, 1 to 9 for gzip [default: 3 for zstd, 6 for gzip]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: Option<i32>,
    /// Versions that were followed by this time leave: an instant, a date, -24h, now, today or yesterday [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub as_of: Option<String>,
    /// Take an --as-of later than the clock, which is refused otherwise
    #[arg(long, requires = "as_of")]
    pub allow_future: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub write: WriteArgs,
}

/// See `--coding`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum CodingArg {
    Zstd,
    Gzip,
}

/// `outpour serve`
#[cfg(feature = "server")]
#[derive(clap::Args, Debug)]
#[command(after_help = "\
On http://127.0.0.1:8080, for this machine alone:
  outpour serve --store DIR --data /var/lib/outpour
By a configuration, and every value in force:
  outpour serve --config serve.toml
  outpour serve --config serve.toml --print-config

What can be asked: http://127.0.0.1:8080/fhir/metadata. Jobs outlive the service: what was running when it stopped \
goes on when it starts again. Words of the command line go before the environment, and that before the configuration.")]
pub(crate) struct ServeArgs {
    /// Directory tree of .ndjson or .jsonl files, plain, .gz or .zst, one resource a line
    #[arg(long, value_name = "DIR", env = "OUTPOUR_STORE", hide_env_values = true)]
    pub store: Option<PathBuf>,
    /// Where the service keeps jobs, files and Groups
    #[arg(long, value_name = "DIR", env = "OUTPOUR_DATA", hide_env_values = true)]
    pub data: Option<PathBuf>,
    /// Where the records of jobs lie [default: jobs in --data]
    #[arg(long, value_name = "DIR")]
    pub jobs: Option<PathBuf>,
    /// Where the index lies [default: .outpour in the store]
    #[arg(long, value_name = "DIR", env = "OUTPOUR_INDEX_DIR", hide_env_values = true)]
    pub index_dir: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "OUTPOUR_LISTEN", hide_env_values = true)]
    pub listen: Option<std::net::SocketAddr>,
    /// A configuration in TOML; the words of the command line go before it
    #[arg(long, value_name = "FILE", env = "OUTPOUR_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Print the configuration in force, and stop
    #[arg(long)]
    pub print_config: bool,
}
