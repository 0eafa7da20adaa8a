//! A kick-off as it was written: its headers and parameters read and checked, every problem told at once, before anything
//! is looked up. What a mount allows is a [`KickOffPolicy`]; which parameters there are is the table of
//! [`parameters`](crate::server::parameters). Whether the Group is there, and what the client may see, is not asked here.

pub(crate) mod parameters;
pub(crate) mod request;
pub(crate) mod start;
#[cfg(test)]
mod tests;

use crate::fhir::instant::Instant;
use crate::server::config::mounts::HeaderPolicy;
use crate::server::error::{ApiError, FHIR_JSON, OutcomeIssue, OutcomeIssueType};
use crate::server::http::accept::Accept;
use crate::server::http::prefer::Prefer;
use crate::server::http::query::Query;
use crate::server::kick_off::parameters::read_parameters;
use crate::server::kick_off::request::{KickOffParams, KickOffPolicy, Level};
use axum::http::{HeaderMap, StatusCode};

/// Reads a kick-off by GET: its query string as it was received, and its headers.
///
/// # Errors
/// Every problem in one refusal: 406 when no answer of ours is acceptable to the client, 400 otherwise.
pub(crate) fn parse(
    level: &Level,
    query: Option<&str>,
    headers: &HeaderMap,
    now: &Instant,
    policy: &KickOffPolicy,
) -> Result<KickOffParams, ApiError> {
    let (accept, prefer) = (Accept::of(headers), Prefer::of(headers));
    let mut problems = Vec::new();
    // What cannot be answered in any way that the client takes comes before what is wrong with the question.
    let acceptable = accept.best(&[FHIR_JSON, "application/json"]).is_some();
    if !acceptable {
        let text = format!("Accept: none of the types given can be sent; send Accept: {FHIR_JSON} (HDR-02)");
        problems.push(OutcomeIssue::error(OutcomeIssueType::NotSupported, text).at("http.accept"));
    }
    if policy.headers == HeaderPolicy::Strict {
        if accept.is_absent() {
            let text = format!("Accept: the header is missing; send Accept: {FHIR_JSON} (HDR-01)");
            problems.push(OutcomeIssue::error(OutcomeIssueType::Required, text).at("http.accept"));
        }
        if !prefer.respond_async {
            let text = "Prefer: the header does not ask for respond-async; send Prefer: respond-async (HDR-03)";
            problems.push(OutcomeIssue::error(OutcomeIssueType::Required, text).at("http.prefer"));
        }
    }
    let (pairs, malformed) = Query::parse(query);
    problems.extend(malformed.into_iter().map(|problem| OutcomeIssue::error(OutcomeIssueType::Invalid, problem)));
    match read_parameters(level, &pairs, prefer.lenient, now, policy) {
        Ok(params) if problems.is_empty() => Ok(KickOffParams { prefer, ..params }),
        found => {
            problems.extend(found.err().unwrap_or_default());
            let status = if acceptable { StatusCode::BAD_REQUEST } else { StatusCode::NOT_ACCEPTABLE };
            Err(ApiError::of(status, problems))
        }
    }
}
