//! Options of increments and of chains of exports.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::args::run::RunArgs;

/// On what an export builds.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Increments")]
pub(crate) struct ChainArgs {
    /// Export what changed since the export in DIR, or of this manifest.json, which must have asked for the same; lists what no longer
    /// belongs in departed.json-lines
    #[arg(long, value_name = "DIR|FILE", conflicts_with_all = ["since", "until", "force", "chain"])]
    pub since_manifest: Option<PathBuf>,
    /// Keep what a later --since-manifest needs to list resources that no longer belong: 16 bytes for each
    #[arg(long)]
    pub baseline: bool,
    /// Export into a new dated directory below ROOT: all the first time, then what changed since the newest finished export there. An
    /// interrupted export is finished first; ROOT/latest.json names the newest
    #[arg(long, value_name = "ROOT", conflicts_with_all = ["out", "since", "until", "resume", "force"])]
    pub chain: Option<PathBuf>,
    /// With --chain: every Nth export has everything
    #[arg(long, value_name = "N", requires = "chain", value_parser = clap::value_parser!(u64).range(1..))]
    pub full_every: Option<u64>,
    /// With --full-every: keep the newest N full exports, and all increments since the oldest of them
    #[arg(long, value_name = "N", requires = "full_every", value_parser = clap::value_parser!(u64).range(1..))]
    pub keep: Option<u64>,
    /// Patients who joined since: all their records, only a count, or nothing [default: full with --chain, else report]
    #[arg(long, value_name = "HOW")]
    pub new_members: Option<NewMembersArg>,
}

/// See `--new-members`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum NewMembersArg {
    Full,
    Report,
    Ignore,
}

/// `outpour apply`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Reads the newest full export below ROOT and the increments on it, and writes what is current after the last one:
  outpour apply /data/chain --to /data/current
DIR appears as a whole, and replaces what an earlier `outpour apply` has put there.")]
pub(crate) struct ApplyArgs {
    /// Root of a chain of exports (`outpour export --chain`)
    #[arg(value_name = "ROOT")]
    pub root: PathBuf,
    /// Directory of the current resources
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Most bytes of a file, such as 256MiB, 1GB or 1000000
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub max_file_bytes: String,
    /// Do not wait until files are on the disk
    #[arg(long)]
    pub no_sync: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run: RunArgs,
}
