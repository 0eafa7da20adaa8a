//! Flags of `outpour group`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::args::request::MembersArg;
use crate::cli::args::run::AllowMissingArgs;

/// `outpour group`
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "\
A Group is R4's: resourceType, id, type (person or animal), actual true, and its members, such as
  {\"resourceType\":\"Group\",\"id\":\"mine\",\"type\":\"person\",\"actual\":true,
   \"member\":[{\"entity\":{\"reference\":\"Patient/1\"}},
             {\"entity\":{\"reference\":\"Patient/2\"}}]}

The Groups of a store:
  outpour group list --store DIR
What one resolves to, and whether 1upHealth would take it:
  outpour group check mine.json --store DIR
  outpour group check mine.json --rules oneup
Stored, if it keeps the rules; else nothing is written:
  outpour group import mine.json --store DIR --rules oneup
Its members' records:
  outpour export --store DIR --group mine --out OUT

--rules oneup: at least one member, each a reference to a Patient; at most 10,000; and at most 400 KiB of JSON without \
white space if any member says more than entity.reference. --max-members and --max-bytes move the two bounds. \
Every problem is told at once (exit code 2). A service on the same store takes an imported Group at its next kick-off.")]
pub(crate) enum GroupCommand {
    /// Check a Group and say what it resolves to
    Check(GroupCheckArgs),
    /// Put a Group into a store as `Group.{id}.ndjson`
    Import(GroupImportArgs),
    /// List the Groups of a store
    List(GroupListArgs),
}

/// `outpour group list`
#[derive(clap::Args, Debug)]
pub(crate) struct GroupListArgs {
    /// Store to list the Groups of
    #[arg(long, value_name = "DIR", env = "OUTPOUR_STORE", hide_env_values = true)]
    pub store: PathBuf,
    /// Where the store's index lies [default: .outpour in the store]
    #[arg(long, value_name = "DIR", env = "OUTPOUR_INDEX_DIR", hide_env_values = true)]
    pub index_dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub missing: AllowMissingArgs,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

/// `outpour group check`
#[derive(clap::Args, Debug)]
pub(crate) struct GroupCheckArgs {
    /// File with one Group resource
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Store to resolve the members in
    #[arg(long, value_name = "DIR", env = "OUTPOUR_STORE", hide_env_values = true)]
    pub store: Option<PathBuf>,
    /// Where the store's index lies [default: .outpour in the store]
    #[arg(long, value_name = "DIR", env = "OUTPOUR_INDEX_DIR", hide_env_values = true)]
    pub index_dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub missing: AllowMissingArgs,
    /// Base URL under which absolute references are the store's; repeatable
    #[arg(long, value_name = "URL")]
    pub fhir_base: Vec<String>,
    /// Members: all that are listed, or those that are active now
    #[arg(long, value_name = "WHICH", default_value = "listed")]
    pub members: MembersArg,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub rules: GroupRulesArgs,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

/// `outpour group import`
#[derive(clap::Args, Debug)]
pub(crate) struct GroupImportArgs {
    /// File with one Group resource
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Store to put it into
    #[arg(long, value_name = "DIR", env = "OUTPOUR_STORE", hide_env_values = true)]
    pub store: PathBuf,
    /// Where the store's index lies [default: .outpour in the store]
    #[arg(long, value_name = "DIR", env = "OUTPOUR_INDEX_DIR", hide_env_values = true)]
    pub index_dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub rules: GroupRulesArgs,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

/// The rules that a Group is held to.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Rules")]
pub(crate) struct GroupRulesArgs {
    /// Those of FHIR R4 and of what can be exported, or 1upHealth's as well
    #[arg(long, value_name = "WHOSE", default_value = "r4")]
    pub rules: RulesArg,
    /// Most members [default: no bound; with oneup 10000]
    #[arg(long, value_name = "N")]
    pub max_members: Option<u64>,
    /// Most bytes of its JSON without white space, where members say more than entity.reference [default: no bound; with
    /// oneup 400KiB]
    #[arg(long, value_name = "SIZE")]
    pub max_bytes: Option<String>,
}

/// See `--rules`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum RulesArg {
    R4,
    Oneup,
}
