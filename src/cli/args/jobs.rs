//! Flags of `outpour jobs`.

use std::path::PathBuf;

/// `outpour jobs`
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "\
A service that runs is asked through the socket admin.sock in its data directory, which only the user that it runs as can open. Of
one that is stopped the records on disk are read.

  outpour jobs list --data /var/lib/outpour
  outpour jobs show 0123456789abcdef0123456789abcdef --data /var/lib/outpour
  outpour jobs remove 0123456789abcdef0123456789abcdef --data /var/lib/outpour

A removed job is cancelled, or its files are deleted, as by DELETE of its status URL.")]
pub(crate) enum JobsCommand {
    /// List the jobs of all clients
    List(JobsListArgs),
    /// Show one job: what it exports, how far it is, and its files
    Show(JobArgs),
    /// Cancel a job, or delete its files
    Remove(JobArgs),
}

/// Where the service keeps its jobs.
#[derive(clap::Args, Debug)]
pub(crate) struct JobsListArgs {
    /// Data directory of the service, or of one of its tenants
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where the records of jobs lie, of a service that is stopped [default: jobs in --data]
    #[arg(long, value_name = "DIR")]
    pub jobs: Option<PathBuf>,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

/// One job.
#[derive(clap::Args, Debug)]
pub(crate) struct JobArgs {
    /// Id of the job: the last part of its status URL
    #[arg(value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: JobsListArgs,
}
