//! Options that say which store is read, and how.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::args::choices::ChoiceArgs;
use crate::cli::args::run::AllowMissingArgs;

/// Where the store is and how it is read.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct StoreArgs {
    /// Directory tree of .ndjson or .jsonl files, plain, .gz or .zst, one resource a line
    #[arg(long, value_name = "DIR", env = "OUTPOUR_STORE", hide_env_values = true)]
    pub store: PathBuf,
    /// Where the index lies [default: .outpour in the store]
    #[arg(long, value_name = "DIR", env = "OUTPOUR_INDEX_DIR", hide_env_values = true)]
    pub index_dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub choices: ChoiceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub missing: AllowMissingArgs,
    /// How store files are read: mapped, or called with pread
    #[arg(long, value_name = "HOW", default_value = "mapped", hide = true)]
    pub access: AccessArg,
    /// Scanner kernel to force
    #[arg(long, value_name = "NAME", hide = true)]
    pub kernel: Option<String>,
}

/// See `--access`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum AccessArg {
    Mapped,
    Called,
}
