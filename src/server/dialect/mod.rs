//! Dialects: the URLs, parameters, rules and renderings that the clients of a mount see of the job engine.
//!
//! The engine knows nothing of a dialect but how files are named (DIALECT-01). Every dialect is a constant;
//! configuration adds to it in `mount`.

pub(crate) mod ig;
pub(crate) mod job_view;
pub(crate) mod netsmart;
pub(crate) mod oneup;
pub(crate) mod render;

use crate::fhir::attachment_url::AttachmentPath;
use crate::issue::IssueCode;
use crate::job::record::UrlNaming;
use crate::server::dialect::job_view::{PolledJob, StartedJob};
use crate::server::parameters::ParameterRow;
use crate::server::routes::Route;
use axum::body::Body;
use axum::http::{Method, Response};

/// Which request ids of clients are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestIds {
    /// Up to 64 letters, digits, `-`, `.` and `_`; another id is replaced.
    Plain,
    /// A UUID; another id is replaced and returned as `X-Correlation-Id` (NETSMART-E11).
    Uuid,
}

/// The table of rules and renderings of one dialect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    /// Name of the dialect, which job records keep to name their mount.
    pub name: &'static str,
    /// Operations by method and path.
    pub routes: &'static [Route],
    /// Known parameters of a kick-off.
    pub parameters: &'static [ParameterRow],
    /// Media types, one of which a client must accept to kick an export off (HDR-01).
    pub kick_off_types: &'static [&'static str],
    /// Whether `_type` distinguishes upper and lower case (C-12).
    pub case_sensitive_types: bool,
    /// Whether every type in `_type` must be in the Patient compartment (C-19).
    pub compartment_types: bool,
    /// Issue code of the error about a type that is not exported (C-15).
    pub type_refused: IssueCode,
    /// Whether `_since` may be a date without a time (C-05).
    pub dates: bool,
    /// Whether `$export` with a user's token exports that user's record (ONEUP-S01).
    pub user_exports: bool,
    /// Whether Groups from clients must meet 1upHealth's rules (ONEUP-G08).
    pub group_rules: bool,
    /// Whether only GET, the method EXPORT and PUT of a job are allowed (ONEUP-M03…M05).
    pub gated: bool,
    /// Which request ids of clients are accepted.
    pub request_ids: RequestIds,
    /// How output files are named.
    pub naming: UrlNaming,
    /// Path of a job's status below the base, from the id of the job.
    pub status_path: fn(&str) -> String,
    /// Path of a file below the base, from the id of the file.
    pub file_path: fn(&str) -> String,
    /// Where attachments are downloaded below the base (NETSMART-E08).
    pub attachments: AttachmentPath,
    /// The engine's id of a job from its name in a URL; `None` if no job can have that name.
    pub job_named: fn(&str) -> Option<String>,
    /// Renders the answer to a kick-off.
    pub render_started: fn(&StartedJob<'_>) -> Response<Body>,
    /// Renders the answer to a poll of a known job.
    pub render_polled: fn(&PolledJob<'_>) -> Response<Body>,
}

impl Dialect {
    /// The dialect of a mount's table in the configuration; the IG for an unknown name.
    pub(crate) fn named(table: &str) -> &'static Dialect {
        match table {
            "netsmart" => &netsmart::NETSMART,
            "oneup_ste" => &oneup::STE,
            "oneup_mte" => &oneup::MTE,
            _ => &ig::IG,
        }
    }

    /// Whether a path below a base is the status URL of a job.
    fn is_job(&self, path: &str) -> bool {
        let job = path.strip_prefix((self.status_path)("").as_str());
        job.is_some_and(|job| !job.is_empty() && !job.contains('/'))
    }

    /// Whether a method is allowed at a path below a base of this dialect; decided before routing and authentication.
    pub(crate) fn method_policy(&self, method: &Method, path: &str) -> MethodPolicy {
        match (self.gated, method.as_str()) {
            (false, _) => MethodPolicy::Go,
            (true, "POST" | "DELETE") => MethodPolicy::Forbidden,
            (true, "PUT") if !self.is_job(path) => MethodPolicy::Forbidden,
            (true, "EXPORT") => MethodPolicy::AsGet,
            (true, _) => MethodPolicy::Go,
        }
    }
}

/// Verdict on the method of a request, see [`Dialect::method_policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MethodPolicy {
    /// The request goes on to the routes.
    Go,
    /// The request goes on as GET; only a kick-off answers it (ONEUP-M03).
    AsGet,
    /// The request is answered 403 (ONEUP-M04).
    Forbidden,
}
