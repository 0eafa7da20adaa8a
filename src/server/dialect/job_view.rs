//! TODO: module documentation.

use crate::fhir::instant::Instant;
use crate::job::api::JobView;
use crate::server::mount::Mount;

/// A job that was taken, to be told to whoever asked for it.
pub struct StartedJob<'a> {
    /// Where it was asked for.
    pub mount: &'a Mount,
    /// Its id, the engine's.
    pub job: &'a str,
    /// Its T.
    pub transaction_time: &'a Instant,
    /// The kick-off URL, verbatim.
    pub request: &'a str,
    /// How many parts of the request were passed over.
    pub notes: usize,
    /// Whether files need a token.
    pub requires_access_token: bool,
}

/// A job that is asked about.
pub struct PolledJob<'a> {
    /// Where it is asked about, and was asked for.
    pub mount: &'a Mount,
    /// The job.
    pub view: &'a JobView,
    /// Whether files need a token.
    pub requires_access_token: bool,
    /// Whether the reader may have some Groups, types or one patient only (reading 24).
    pub bound_client: bool,
}
