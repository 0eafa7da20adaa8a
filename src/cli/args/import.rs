//! The words of the commands that add to a store: `outpour import` and `outpour append`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::args::run::RunArgs;

/// `outpour import`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  outpour import transaction.json --store DIR           one Bundle, taken apart into rows
  outpour import synthea/output/fhir --store DIR        every .json and .ndjson file of a directory
  outpour import OUT --store DIR                        the output of a bulk export, with what it lists as deleted
  outpour import --watch INBOX --store DIR              whatever comes, until Ctrl-C

A source is taken as a whole or, when anything in it is wrong, not at all; then every problem is told, other sources are \
taken all the same, and the exit code is 1. Sources are neither moved nor removed. The same bytes again add nothing.")]
pub(crate) struct ImportArgs {
    /// Files (Bundles, resources, NDJSON; plain, .gz or .zst), directories of them, output directories of exports
    #[arg(value_name = "SOURCE", required_unless_present = "watch")]
    pub sources: Vec<PathBuf>,
    /// Store to add to; made if only the last part of its path is missing
    #[arg(long, value_name = "DIR", env = "OUTPOUR_STORE", hide_env_values = true)]
    pub store: PathBuf,
    /// Where the store's index lies [default: .outpour in the store]
    #[arg(long, value_name = "DIR", env = "OUTPOUR_INDEX_DIR", hide_env_values = true)]
    pub index_dir: Option<PathBuf>,
    /// Base URL under which absolute references are the store's; repeatable
    #[arg(long, value_name = "URL")]
    pub fhir_base: Vec<String>,
    /// Dates of rows: as they are, or a new meta.lastUpdated for those that differ from the store's current version, later
    /// than every snapshot; those that do not differ are left out
    #[arg(long, value_name = "WHICH", default_value = "none")]
    pub stamp: StampArg,
    /// Take the good rows of a source that has bad ones
    #[arg(long)]
    pub partial: bool,
    /// Go on, and import what comes to this directory
    #[arg(long, value_name = "DIR", conflicts_with_all = ["sources", "json"])]
    pub watch: Option<PathBuf>,
    /// With --watch: seconds for which a file must not have changed
    #[arg(long, value_name = "SECONDS", default_value_t = 5, requires = "watch")]
    pub settle: u64,
    /// Do not wait until files are on the disk
    #[arg(long, help_heading = "Run")]
    pub no_sync: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run: RunArgs,
}

/// See `--stamp`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum StampArg {
    None,
    Changed,
}

/// `outpour append`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Lines are checked one by one; one that is no resource is told with its number and not written, and the exit code is 1.

With --ack a number comes on standard output whenever lines are on the disk: how many of them, from the first. What was \
counted there survives a loss of power. Several writers may append to one store at once; each has files of its own.

  producer | outpour append --store DIR --ack")]
pub(crate) struct AppendArgs {
    /// Store to add to; made if only the last part of its path is missing
    #[arg(long, value_name = "DIR", env = "OUTPOUR_STORE", hide_env_values = true)]
    pub store: PathBuf,
    /// Start of the names of the files
    #[arg(long, value_name = "NAME", default_value = "append")]
    pub name: String,
    /// Bytes from which on another file is begun, such as 256MiB or 1GB
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub rotate: String,
    /// Print the number of lines on the disk after each sync
    #[arg(long, conflicts_with = "json")]
    pub ack: bool,
    /// Do not wait until lines are on the disk
    #[arg(long, conflicts_with = "ack")]
    pub no_sync: bool,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}
