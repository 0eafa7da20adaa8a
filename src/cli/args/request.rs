//! Options that say what is exported: whose records, which, and into what files.

use std::path::PathBuf;

use clap::{ArgGroup, ValueEnum};

use crate::cli::args::records::RecordArgs;

/// What is exported, and into what files.
#[derive(clap::Args, Debug)]
#[command(group = ArgGroup::new("population").required(true).args(["group", "patients", "all_patients", "system"]))]
pub(crate) struct RequestArgs {
    /// Members of this Group: an id in the store, also as Group/ID, or else a path to a file (with a '/', such as
    /// ./Group/ten, or ending in .json)
    #[arg(long, value_name = "ID|FILE.json", help_heading = "Whose records (one of)")]
    pub group: Option<String>,
    /// Patients named in a file, one id or reference a line; - reads standard input
    #[arg(long, value_name = "FILE|-", help_heading = "Whose records (one of)")]
    pub patients: Option<PathBuf>,
    /// With --patients: a list that names nobody is exported, as an empty Group is, and not refused
    #[arg(long, help_heading = "Whose records (one of)")]
    pub allow_empty: bool,
    /// Everybody's compartment
    #[arg(long, help_heading = "Whose records (one of)")]
    pub all_patients: bool,
    /// Everything in the store, compartments ignored
    #[arg(long, help_heading = "Whose records (one of)")]
    pub system: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub records: RecordArgs,
    /// Take the store as of this time, in the forms of --since, which becomes the transactionTime [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Which records")]
    pub as_of: Option<String>,
    /// Take an --as-of later than the clock, which is refused otherwise
    #[arg(long, requires = "as_of", help_heading = "Which records")]
    pub allow_future: bool,
    /// Group members: all that are listed, or those that are active at the transactionTime
    #[arg(long, value_name = "WHICH", default_value = "listed", help_heading = "Which records")]
    pub members: MembersArg,
    /// Practitioners, Organizations, Locations and the like that the records refer to
    #[arg(long, value_name = "WHICH", default_value = "none", help_heading = "Which records")]
    pub context: ContextArg,
    /// Base URL under which absolute references are this store's; repeatable
    #[arg(long, value_name = "URL", help_heading = "Which records")]
    pub fhir_base: Vec<String>,
    /// With --since: records that came to the store late, dated before it
    #[arg(long, value_name = "HOW", default_value = "include", help_heading = "Which records")]
    pub late: LateArg,
    /// With --since or --until: records without meta.lastUpdated
    #[arg(long, value_name = "HOW", default_value = "include", help_heading = "Which records")]
    pub missing_last_updated: MissingArg,
    /// With --since: resources that are gone from a file that was replaced: counted, or listed as deletions
    #[arg(long, value_name = "HOW", default_value = "report", help_heading = "Which records")]
    pub vanished: VanishedArg,
    /// Most uncompressed bytes of a file, such as 256M or 256MiB (1024-based), 1.5GB (1000-based) or 1000000
    #[arg(long, value_name = "SIZE", default_value = "256MiB", help_heading = "Files")]
    pub max_file_bytes: String,
    /// Most resources of a file
    #[arg(long, value_name = "N", help_heading = "Files")]
    pub max_file_resources: Option<u64>,
    /// Compress the files
    #[arg(long, value_name = "CODING", default_value = "none", help_heading = "Files")]
    pub compress: CompressArg,
    /// URL that is put before file names in the manifest [default: file:// URLs], and before relative URLs of attachments
    #[arg(long, value_name = "URL", help_heading = "Files")]
    pub base_url: Option<String>,
    /// Digest of each file in the manifest
    #[arg(long, value_name = "ALGORITHM", default_value = "xxh3", help_heading = "Files")]
    pub digest: DigestArg,
    /// How rows are selected; every way gives the same files
    #[arg(long, value_name = "WAY", default_value = "auto", hide = true)]
    pub selection: SelectionArg,
    /// Fail when more lines than this are faulty: a number, or a share such as 0.1%
    #[arg(long, value_name = "N|P%", help_heading = "Run")]
    pub faults_allowed: Option<String>,
}

/// See `--members`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum MembersArg {
    Listed,
    Active,
}

/// See `--context`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum ContextArg {
    None,
    Referenced,
    /// As referenced; with --since only those that changed
    Changed,
}

/// See `--late`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum LateArg {
    Include,
    Report,
}

/// See `--missing-last-updated`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum MissingArg {
    Include,
    Exclude,
}

/// See `--vanished`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum VanishedArg {
    Report,
    Delete,
}

/// See `--compress`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum CompressArg {
    None,
    Gzip,
    Zstd,
}

/// See `--digest`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum DigestArg {
    Xxh3,
    Sha256,
    None,
}

/// See `--selection`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum SelectionArg {
    Auto,
    Postings,
    Columns,
    Rows,
}
