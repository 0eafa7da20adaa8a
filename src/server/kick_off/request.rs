//! A kick-off as it was written: level, policy of the mount, headers and parameters.

use axum::http::HeaderValue;

use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::issue::Issue;
use crate::server::config::mounts::HeaderPolicy;
use crate::server::error::OutcomeIssueType;
use crate::server::http::prefer::Prefer;
use crate::server::parameters::ParameterRow;

/// At which level an export was asked for (KICK-01…03).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// `[base]/$export`
    System,
    /// `[base]/Patient/$export`
    Patient,
    /// `[base]/Group/[id]/$export`
    Group(String),
    /// `[base]/$export` of a user, whose own record it is (ONEUP-S01); the id of the Patient.
    User(String),
}

/// How a mount reads kick-offs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KickOffPolicy {
    /// Whether `Accept` and `Prefer` must be there (HDR-01, HDR-03).
    pub headers: HeaderPolicy,
    /// Which parameters there are.
    pub parameters: &'static [ParameterRow],
    /// Whether names of types are told apart by case (PARAM-08, C-12).
    pub case_sensitive_types: bool,
    /// Whether every type asked for must be of the Patient compartment (ONEUP-M07, C-19).
    pub compartment_types: bool,
    /// The code of an issue about a type that is not exported (C-15).
    pub type_refused: OutcomeIssueType,
    /// Whether a date alone stands for its midnight in `_since` (reading 1).
    pub dates: bool,
    /// How far in the future `_since` may lie, in seconds, because clocks differ (SINCE-03).
    pub clock_skew_seconds: u64,
}

/// What a kick-off asks, normalised: two that mean the same are equal here however they were written (PARAM-09).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct KickOffParams {
    /// `_type`, sorted, without repeats; empty for all.
    pub types: Vec<ResourceType>,
    /// `_since`.
    pub since: Option<Instant>,
    /// `_until`.
    pub until: Option<Instant>,
    /// What was ignored or dropped under lenient handling, for the message files (HDR-06, OUTCOME-04).
    pub notes: Vec<Issue>,
    /// What the client would like.
    pub prefer: Prefer,
}

impl KickOffParams {
    /// The value of `Preference-Applied`: the preferences that were given and have had an effect (HDR-11); none if none.
    pub(crate) fn preference_applied(&self) -> Option<HeaderValue> {
        match (self.prefer.respond_async, !self.notes.is_empty()) {
            (true, true) => Some(HeaderValue::from_static("respond-async, handling=lenient")),
            (true, false) => Some(HeaderValue::from_static("respond-async")),
            (false, true) => Some(HeaderValue::from_static("handling=lenient")),
            (false, false) => None,
        }
    }
}
