//! The facts about a mount and a job that the renderings of a dialect read.

use crate::fhir::instant::Instant;
use crate::job::api::JobView;
use crate::server::config::mounts::MountConfig;

/// The facts about a job's mount that its renderings read.
#[derive(Clone, Copy)]
pub(crate) struct MountView<'a> {
    /// URL of the mount's base, absolute, without a slash at its end (CORE-05).
    pub base_url: &'a str,
    /// Configuration of the mount.
    pub settings: &'a MountConfig,
    /// Path of a job's status below the base, from the id of the job.
    pub status_path: fn(&str) -> String,
    /// Path of a file below the base, from the id of the file.
    pub file_path: fn(&str) -> String,
}

impl MountView<'_> {
    /// The absolute URL of a job's status (KICK-08).
    pub(crate) fn status_url(&self, job: &str) -> String {
        format!("{}{}", self.base_url, (self.status_path)(job))
    }
}

/// A job that was just accepted, for the answer to its kick-off.
pub(crate) struct StartedJob<'a> {
    /// The mount of the kick-off.
    pub mount: MountView<'a>,
    /// Id of the job in the engine.
    pub job: &'a str,
    /// Transaction time T of the export.
    pub transaction_time: &'a Instant,
    /// The absolute kick-off URL, as received.
    pub request: &'a str,
    /// Number of parts of the request that were ignored.
    pub notes: usize,
    /// Whether the download of files needs credentials (MANIFEST-03).
    pub requires_access_token: bool,
}

/// A job whose status a client polls.
pub(crate) struct PolledJob<'a> {
    /// The mount of the poll.
    pub mount: MountView<'a>,
    /// State of the job in the engine.
    pub view: &'a JobView,
    /// Whether the download of files needs credentials (MANIFEST-03).
    pub requires_access_token: bool,
    /// Whether the client, or the one that started the job, is bound to Groups, types or a patient (reading 24).
    pub bound_client: bool,
}
