//! Options that every command with long work has: threads, progress.

use clap::ValueEnum;

use crate::store::ALLOW_MISSING_DEFAULT;

/// How a command runs, and what it tells meanwhile.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Run")]
pub(crate) struct RunArgs {
    /// Threads to use, 1 to 1024 [default: one a processor]
    #[arg(long, value_name = "N", env = "OUTPOUR_THREADS", hide_env_values = true)]
    pub threads: Option<usize>,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
    /// Progress on standard error: a bar where that is a terminal (auto), a line every 10 s and at each further 10 % (plain)
    #[arg(long, value_name = "HOW", default_value = "auto", env = "OUTPOUR_PROGRESS", hide_env_values = true)]
    pub progress: ProgressArg,
}

/// The same of a command that writes data files, and whether it syncs them.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Run")]
pub(crate) struct WriteArgs {
    /// Do not wait until files are on the disk
    #[arg(long)]
    pub no_sync: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run: RunArgs,
}

/// How much of a store may be gone since the last snapshot of its index.
#[derive(clap::Args, Debug, Clone, Copy)]
pub(crate) struct AllowMissingArgs {
    /// Fail when more resources than this share are gone from the store without a deletion since the last snapshot
    #[arg(long, value_name = "N%", default_value = "10%", value_parser = parse_percent)]
    pub allow_missing: f64,
}

impl Default for AllowMissingArgs {
    fn default() -> AllowMissingArgs {
        AllowMissingArgs { allow_missing: ALLOW_MISSING_DEFAULT }
    }
}

/// Parses a share in percent, such as 10% or 0.5; the sign may be left out.
///
/// # Errors
/// A sentence when it is none, or not between 0 and 100.
fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(share) if (0.0..=100.0).contains(&share) => Ok(share),
        _ => Err("it is no share between 0% and 100%, such as 10%".to_string()),
    }
}

/// See `--progress`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum ProgressArg {
    Auto,
    Plain,
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A share with or without its sign; nothing below 0 or above 100, and no other text.
    #[test]
    fn shares_are_read_as_documented() {
        assert_eq!(
            ["10%", "0.5", "100 %", "0"].map(|text| parse_percent(text).ok()),
            [10.0, 0.5, 100.0, 0.0].map(Some)
        );
        ["", "%", "-1%", "101%", "NaN", "inf", "ten"].iter().for_each(|text| assert!(parse_percent(text).is_err()));
        assert_eq!(AllowMissingArgs::default().allow_missing, 10.0);
    }
}
