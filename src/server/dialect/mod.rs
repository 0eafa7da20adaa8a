//! Dialects: what a mount's clients see of the one job engine. A dialect is a table of routes, parameters, rules and
//! renderings; nothing of it reaches the engine but how files are named (DIALECT-01).

pub(crate) mod ig;
pub(crate) mod job_view;
pub(crate) mod netsmart;
pub(crate) mod oneup;
pub(crate) mod render;

use crate::job::record::UrlNaming;
use crate::server::dialect::job_view::{PolledJob, StartedJob};
use crate::server::error::OutcomeIssueType;
use crate::server::parameters::ParameterRow;
use crate::server::routes::Route;
use axum::body::Body;
use axum::http::{Method, Response};

/// How request ids are taken from clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestIds {
    /// Up to 64 letters, digits, `-`, `.` and `_` are given back.
    Plain,
    /// A UUID is given back; what is none comes back as `X-Correlation-Id` (NETSMART-E11).
    Uuid,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    /// Its name, by which jobs remember their mount.
    pub name: &'static str,
    /// Which URL means what.
    pub routes: &'static [Route],
    /// Parameters of a kick-off.
    pub parameters: &'static [ParameterRow],
    /// Whether names of types are told apart by case (C-12).
    pub case_sensitive_types: bool,
    /// Whether only types of the Patient compartment may be asked for (C-19).
    pub compartment_types: bool,
    /// The code of an issue about a type that is not exported (C-15).
    pub type_refused: OutcomeIssueType,
    /// Whether a date alone may stand in `_since` (C-05).
    pub dates: bool,
    /// Whether `$export` of a user is the user's own record (ONEUP-S01).
    pub user_exports: bool,
    /// Whether Groups that clients send follow 1upHealth's rules (ONEUP-G08).
    pub group_rules: bool,
    /// Whether only GET, the method EXPORT and PUT of a job are let in (ONEUP-M03…M05).
    pub gated: bool,
    /// How request ids are taken.
    pub request_ids: RequestIds,
    /// How files are named.
    pub naming: UrlNaming,
    /// Where the state of a job is told, below the base.
    pub status_path: fn(&str) -> String,
    /// Where a file is, below the base.
    pub file_path: fn(&str) -> String,
    /// The id of the engine's that a client names a job by; none for what is no such name.
    pub job_named: fn(&str) -> Option<String>,
    /// The answer to a kick-off.
    pub taken: fn(&StartedJob<'_>) -> Response<Body>,
    /// The answer to a question about a job that is there.
    pub polled: fn(&PolledJob<'_>) -> Response<Body>,
}

impl Dialect {
    /// Every dialect, by the name of its table in the configuration.
    pub(crate) fn named(table: &str) -> &'static Dialect {
        match table {
            "netsmart" => &netsmart::NETSMART,
            "oneup_ste" => &oneup::STE,
            "oneup_mte" => &oneup::MTE,
            _ => &ig::IG,
        }
    }

    /// Whether a path below a base is that of a job's state.
    fn is_job(&self, path: &str) -> bool {
        let job = path.strip_prefix((self.status_path)("").as_str());
        job.is_some_and(|job| !job.is_empty() && !job.contains('/'))
    }

    /// What becomes of a method at a path below a base of this dialect, before anything else is looked at.
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

/// See [`Dialect::method_policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MethodPolicy {
    /// On to the routes.
    Go,
    /// On to the routes, as GET; only a kick-off answers it (ONEUP-M03).
    AsGet,
    /// 403 (ONEUP-M04).
    Forbidden,
}
