//! The words of the commands that look and write nothing.

use std::path::PathBuf;

use crate::cli::args::run::{AllowMissingArgs, RunArgs};

/// `outpour verify`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Nothing is written. Of a store that has no index, or whose index is behind it or damaged, what is missing is made in memory.

Exit code 1: the export or the index differs from what it should be, the index is damaged (`outpour index --recheck` \
repairs it), or the export is not finished: no manifest is there, and so many of so many files are. 2: the directory is \
neither an export nor a store.")]
pub(crate) struct VerifyArgs {
    /// An export directory, or a store
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Recount every class of the ledger line by line from the store's bytes
    #[arg(long)]
    pub ledger: bool,
    /// List the faulty lines of a store: file, line, byte and what is wrong
    #[arg(long)]
    pub faults: bool,
    /// Where the store's index lies [env: OUTPOUR_INDEX_DIR] [default: .outpour in the store]
    #[arg(long, value_name = "DIR")]
    pub index_dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub missing: AllowMissingArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run: RunArgs,
}

/// `outpour inspect`
#[derive(clap::Args, Debug)]
pub(crate) struct InspectArgs {
    /// A file or directory that outpour wrote
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}
