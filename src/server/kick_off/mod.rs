//! A kick-off as it was written: its headers and parameters read and checked, every problem told at once, before anything
//! is looked up. What a mount allows is a [`KickoffPolicy`]; which parameters there are is the table of
//! [`parameters`](crate::server::parameters). Whether the Group is there, and what the client may see, is not asked here.

pub mod parameters;
pub mod start;
#[cfg(test)]
mod tests;

use axum::http::{HeaderMap, HeaderValue, StatusCode};

use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::issue::Message;
use crate::server::config::mounts::HeaderPolicy;
use crate::server::error::{FHIR_JSON, Issue, IssueType, Refusal};
use crate::server::http::accept::Accept;
use crate::server::http::prefer::Prefer;
use crate::server::http::query::Query;
use crate::server::kick_off::parameters::read;
use crate::server::parameters::Parameter;

/// At which level an export was asked for (KICK-01…03).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
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
pub struct KickoffPolicy {
    /// Whether `Accept` and `Prefer` must be there (HDR-01, HDR-03).
    pub headers: HeaderPolicy,
    /// Which parameters there are.
    pub parameters: &'static [Parameter],
    /// Whether names of types are told apart by case (PARAM-08, C-12).
    pub case_sensitive_types: bool,
    /// Whether every type asked for must be of the Patient compartment (ONEUP-M07, C-19).
    pub compartment_types: bool,
    /// The code of an issue about a type that is not exported (C-15).
    pub type_refused: IssueType,
    /// Whether a date alone stands for its midnight in `_since` (reading 1).
    pub dates: bool,
    /// How far in the future `_since` may lie, in seconds, because clocks differ (SINCE-03).
    pub clock_skew_seconds: u64,
}

/// What a kick-off asks, normalised: two that mean the same are equal here however they were written (PARAM-09).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// `_type`, sorted, without repeats; empty for all.
    pub types: Vec<ResourceType>,
    /// `_since`.
    pub since: Option<Instant>,
    /// `_until`.
    pub until: Option<Instant>,
    /// What was ignored or dropped under lenient handling, for the message files (HDR-06, OUTCOME-04).
    pub notes: Vec<Message>,
    /// What the client would like.
    pub prefer: Prefer,
}

impl Asked {
    /// The value of `Preference-Applied`: the preferences that were given and have had an effect (HDR-11); none if none.
    pub fn preference_applied(&self) -> Option<HeaderValue> {
        match (self.prefer.respond_async, !self.notes.is_empty()) {
            (true, true) => Some(HeaderValue::from_static("respond-async, handling=lenient")),
            (true, false) => Some(HeaderValue::from_static("respond-async")),
            (false, true) => Some(HeaderValue::from_static("handling=lenient")),
            (false, false) => None,
        }
    }
}

/// Reads a kick-off by GET: its query string as it was received, and its headers.
///
/// # Errors
/// Every problem in one refusal: 406 when no answer of ours is acceptable to the client, 400 otherwise.
pub fn parse(
    level: &Level,
    query: Option<&str>,
    headers: &HeaderMap,
    now: &Instant,
    policy: &KickoffPolicy,
) -> Result<Asked, Refusal> {
    let (accept, prefer) = (Accept::of(headers), Prefer::of(headers));
    let mut problems = Vec::new();
    // What cannot be answered in any way that the client takes comes before what is wrong with the question.
    let acceptable = accept.best(&[FHIR_JSON, "application/json"]).is_some();
    if !acceptable {
        let text = format!("Accept: none of the types given can be sent; send Accept: {FHIR_JSON} (HDR-02)");
        problems.push(Issue::error(IssueType::NotSupported, text).at("http.accept"));
    }
    if policy.headers == HeaderPolicy::Strict {
        if accept.is_absent() {
            let text = format!("Accept: the header is missing; send Accept: {FHIR_JSON} (HDR-01)");
            problems.push(Issue::error(IssueType::Required, text).at("http.accept"));
        }
        if !prefer.respond_async {
            let text = "Prefer: the header does not ask for respond-async; send Prefer: respond-async (HDR-03)";
            problems.push(Issue::error(IssueType::Required, text).at("http.prefer"));
        }
    }
    let (pairs, malformed) = Query::parse(query);
    problems.extend(malformed.into_iter().map(|problem| Issue::error(IssueType::Invalid, problem)));
    match read(level, &pairs, prefer.lenient, now, policy) {
        Ok(asked) if problems.is_empty() => Ok(Asked { prefer, ..asked }),
        found => {
            problems.extend(found.err().unwrap_or_default());
            let status = if acceptable { StatusCode::BAD_REQUEST } else { StatusCode::NOT_ACCEPTABLE };
            Err(Refusal::of(status, problems))
        }
    }
}
