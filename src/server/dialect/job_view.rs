//! A job as the renderings of a dialect see it: what of the mount they need, and the job.

use crate::fhir::instant::Instant;
use crate::job::api::JobView;
use crate::server::config::mounts::MountConfig;

/// What a rendering needs of the mount that a job belongs to.
#[derive(Clone, Copy)]
pub(crate) struct MountView<'a> {
    /// URL of the mount's base, absolute, without a slash at its end (CORE-05).
    pub base_url: &'a str,
    /// What is configured for the mount.
    pub settings: &'a MountConfig,
    /// Path of a job's status below the base, by the id of the job.
    pub status_path: fn(&str) -> String,
    /// Path of a file below the base, by the id of the file.
    pub file_path: fn(&str) -> String,
}

impl MountView<'_> {
    /// The absolute URL of a job's status (KICK-08).
    pub(crate) fn status_url(&self, job: &str) -> String {
        format!("{}{}", self.base_url, (self.status_path)(job))
    }
}

/// A job that was just made, for the answer to its kick-off.
pub(crate) struct StartedJob<'a> {
    /// The mount at which it was asked for.
    pub mount: MountView<'a>,
    /// Its id, the engine's.
    pub job: &'a str,
    /// Its T.
    pub transaction_time: &'a Instant,
    /// The kick-off URL, verbatim.
    pub request: &'a str,
    /// Number of parts of the request that were ignored.
    pub notes: usize,
    /// Whether files need a token.
    pub requires_access_token: bool,
}

/// A job whose status is asked for.
pub(crate) struct PolledJob<'a> {
    /// The mount at which it was asked for.
    pub mount: MountView<'a>,
    /// The job.
    pub view: &'a JobView,
    /// Whether files need a token.
    pub requires_access_token: bool,
    /// Whether the reader may have some Groups, types or one patient only (reading 24).
    pub bound_client: bool,
}
