//! Options that every command with long work has: threads, progress.

use clap::ValueEnum;

/// How a command runs, and what it tells meanwhile.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Run")]
pub(crate) struct RunArgs {
    /// Threads to use, 1 to 1024 [default: one a processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
    /// Show progress on a terminal
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub progress: ProgressArg,
}

/// See `--progress`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum ProgressArg {
    Auto,
    Never,
}
