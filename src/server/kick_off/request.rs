//! A parsed kick-off request, its level, and the policy of a mount that it is checked against. Parsing is in
//! `kick_off` and `parameters`.

use std::collections::BTreeMap;

use axum::http::HeaderValue;

use crate::associated_data::AssociatedData;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::issue::{Issue, IssueCode};
use crate::policies::Context;
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
    /// Base URLs under which absolute references are ours.
    pub fhir_bases: &'a [String],
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

/// The parameters of a kick-off in normal form: equal for requests of equal meaning (PARAM-09).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct KickOffParams {
    /// Types of `_type`, sorted, without repeats; empty for all types.
    pub types: Vec<ResourceType>,
    /// Ids of `patient`, ascending, each once; `None` for no restriction (PATIENT-01).
    pub patients: Option<Vec<Id>>,
    /// Root elements of `_elements`; empty for all.
    pub elements: ElementSelection,
    /// `includeAssociatedData`; `None` if nothing was asked for.
    pub associated: Option<AssociatedData>,
    /// The referenced context that a preset sets; `None` for that of the mount.
    pub context: Option<Context>,
    /// Exclusive lower bound of `meta.lastUpdated`; `None` for no bound.
    pub since: Option<Instant>,
    /// Exclusive upper bound of `meta.lastUpdated`; `None` for no bound.
    pub until: Option<Instant>,
    /// Warnings about what was ignored under lenient handling, for the message files (HDR-06, OUTCOME-04).
    pub notes: Vec<Issue>,
    /// The preferences of the client, from `Prefer`.
    pub prefer: Prefer,
}

impl KickOffParams {
    /// Value of `Preference-Applied` for a kick-off request that was read: the preferences of the client that had an
    /// effect (HDR-11); `None` if none had.
    pub(crate) fn preference_applied(&self) -> Option<HeaderValue> {
        let applied = [
            (self.prefer.respond_async, "respond-async"),
            (self.prefer.separates_status(), "separate-export-status"),
            (!self.notes.is_empty(), "handling=lenient"),
        ];
        let applied: Vec<&str> = applied.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text).collect();
        if applied.is_empty() { None } else { HeaderValue::from_str(&applied.join(", ")).ok() }
    }
}
