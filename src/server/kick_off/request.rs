//! A parsed kick-off request, its level, and the policy of a mount that it is checked against. Parsing is in
//! `kick_off` and `parameters`.

use std::collections::BTreeMap;

use axum::http::HeaderValue;

use crate::fhir::instant::Instant;
use crate::issue::IssueCode;
use crate::request::{ExportRequest, Population};
use crate::server::config::mounts::HeaderPolicy;
use crate::server::config::presets::Preset;
use crate::server::http::prefer::Prefer;
use crate::server::parameters::ParameterRow;

/// Level of an export (KICK-01…03), from the kick-off URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// `[base]/$export`: everything in the store.
    System,
    /// `[base]/Patient/$export`: the records of all patients.
    Patient,
    /// `[base]/Group/[id]/$export`: the records of a Group's members; the id of the Group.
    Group(String),
    /// `[base]/$export` with a user's token: one patient's record (ONEUP-S01); the id of the Patient.
    User(String),
}

impl Level {
    /// Whose records an export of this level is of.
    pub(crate) fn population(&self) -> Population {
        match self {
            Level::System => Population::System,
            Level::Patient => Population::AllPatients,
            Level::Group(id) => Population::Group(id.clone()),
            Level::User(patient) => Population::PatientIds(vec![patient.clone()]),
        }
    }
}

/// A parameter of a kick-off, as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GivenParameter {
    /// Its name.
    pub name: String,
    /// Its value; of a list, one item or several.
    pub value: String,
    /// Where it was given.
    pub source: ParameterSource,
}

/// Where a parameter was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParameterSource {
    /// In the query, where a space stands for a raw `+` (PARAM-06).
    Query,
    /// In the body, as a value of this type, such as `valueString`.
    Body(&'static str),
}

/// What parameters are checked against besides the policy of the mount.
pub(crate) struct KickOffContext<'a> {
    /// The time by the service's clock, which bounds `_since` from above.
    pub now: Instant,
    /// The last transactionTime given out from the store, `None` before the first; asked for when it decides.
    pub last: &'a dyn Fn() -> Option<Instant>,
    /// A request with the policies of the mount, which the kick-off's begins with.
    pub defaults: ExportRequest,
    /// Whether the request has a body that is not read: that of a GET.
    pub unread_body: bool,
}

/// How a mount checks the headers and parameters of kick-offs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KickOffPolicy {
    /// Whether `Accept` and `Prefer` are required (HDR-01, HDR-03).
    pub headers: HeaderPolicy,
    /// The known parameters, served or not.
    pub parameters: &'static [ParameterRow],
    /// Media types, one of which the client must accept unless `_format` names JSON (HDR-01, HDR-02).
    pub answer_types: &'static [&'static str],
    /// Whether `_type` distinguishes upper and lower case (PARAM-08, C-12).
    pub case_sensitive_types: bool,
    /// Whether every type in `_type` must be in the Patient compartment (ONEUP-M07, C-19).
    pub compartment_types: bool,
    /// Issue code of the error about a type that is not exported (C-15).
    pub type_refused: IssueCode,
    /// Whether `_since` may be a date without a time, which means its midnight UTC (reading 1).
    pub dates: bool,
    /// How far `_since` may lie in the future, in seconds, to allow for the client's clock (SINCE-03).
    pub clock_skew_seconds: u64,
    /// Presets of `includeAssociatedData`, by name (ASSOC-09).
    pub presets: BTreeMap<String, Preset>,
}

/// A kick-off that was read: equal for kick-offs of equal meaning (PARAM-09).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RequestedExport {
    /// What is asked for, under the policies of the mount; the warnings about what was ignored under lenient handling are
    /// among its notes (HDR-06, OUTCOME-04).
    pub request: ExportRequest,
    /// The preferences of the client, from `Prefer`.
    pub prefer: Prefer,
}

impl RequestedExport {
    /// Value of `Preference-Applied` for a kick-off that was read: the preferences of the client that had an effect (HDR-11);
    /// `None` if none had.
    pub(crate) fn preference_applied(&self) -> Option<HeaderValue> {
        let applied = [
            (self.prefer.respond_async, "respond-async"),
            (self.prefer.separates_status(), "separate-export-status"),
            (!self.request.notes.is_empty(), "handling=lenient"),
        ];
        let applied: Vec<&str> = applied.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text).collect();
        if applied.is_empty() { None } else { HeaderValue::from_str(&applied.join(", ")).ok() }
    }
}
