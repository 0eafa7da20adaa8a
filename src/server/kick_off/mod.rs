//! Parsing of a kick-off request: headers and query parameters, checked against the policy of the mount.
//!
//! All problems of a request are collected into one error. Nothing is looked up: whether the Group exists and what
//! the client may export is checked in `start`. The rules of a mount are a [`KickOffPolicy`]; the known parameters
//! are the table in [`parameters`](crate::server::parameters).

pub(crate) mod body;
pub(crate) mod filter_rights;
pub(crate) mod parameters;
pub(crate) mod request;
pub(crate) mod start;
pub(crate) mod strict_patients;
#[cfg(test)]
mod tests;

use crate::issue::IssueCode;
use crate::server::config::mounts::HeaderPolicy;
use crate::server::error::{ApiError, FHIR_JSON, OutcomeIssue};
use crate::server::http::accept::Accept;
use crate::server::http::format::{is_form_parameter, named_format};
use crate::server::http::prefer::Prefer;
use crate::server::http::query::Query;
use crate::server::kick_off::body::read_body_parameters;
use crate::server::kick_off::parameters::read_parameters;
use crate::server::kick_off::request::{
    GivenParameter, KickOffContext, KickOffPolicy, Level, ParameterSource, RequestedExport,
};
use axum::http::{HeaderMap, StatusCode};

/// Reads a kick-off from its query string, as received, its headers, and its body if it is one by POST that is not empty.
/// Body and query are merged (KICK-06).
///
/// # Errors
/// All problems in one error: 406 if the client accepts no response type of the service, else 400.
pub(crate) fn parse(
    level: &Level,
    query: Option<&str>,
    body: Option<&[u8]>,
    headers: &HeaderMap,
    context: &KickOffContext<'_>,
    policy: &KickOffPolicy,
) -> Result<RequestedExport, ApiError> {
    let (mut pairs, malformed) = Query::parse(query);
    let prefer = Prefer::of(headers);
    let mut problems = Vec::new();
    // 406 outranks 400: a client that accepts no JSON must change that first.
    let unacceptable = answer_type_problem(&pairs, headers, policy.answer_types);
    let is_acceptable = unacceptable.is_none();
    problems.extend(unacceptable);
    if policy.headers == HeaderPolicy::Strict {
        // `_format` says what the header would.
        if is_acceptable && Accept::of(headers).is_absent() && !matches!(named_format(&pairs), Ok(Some(_))) {
            let text = format!("Accept: the header is missing; send Accept: {FHIR_JSON}");
            problems.push(OutcomeIssue::error(IssueCode::Required, text).at("http.accept"));
        }
        if !prefer.respond_async {
            let text = "Prefer: the header does not ask for respond-async; send Prefer: respond-async";
            problems.push(OutcomeIssue::error(IssueCode::Required, text).at("http.prefer"));
        }
    }
    pairs.retain(|(name, _)| !is_form_parameter(name));
    problems.extend(malformed.into_iter().map(|problem| OutcomeIssue::error(IssueCode::Invalid, problem)));
    let of_query = |(name, value)| GivenParameter { name, value, source: ParameterSource::Query };
    let mut given: Vec<GivenParameter> = pairs.into_iter().map(of_query).collect();
    // Under lenient handling, too: what it says is not known, and it may restrict the export (HDR-07).
    if context.unread_body {
        let text = "the body of a GET is not read; give the parameters in the query, or send them by POST";
        problems.push(OutcomeIssue::error(IssueCode::Structure, text));
    }
    match body.map_or(Ok(Vec::new()), read_body_parameters) {
        Ok(in_body) => given.extend(in_body),
        Err(wrong) => problems.extend(wrong),
    }
    match read_parameters(level, &given, prefer.lenient, context, policy) {
        Ok(request) if problems.is_empty() => Ok(RequestedExport { request, prefer }),
        checked => {
            problems.extend(checked.err().unwrap_or_default());
            let status = if is_acceptable { StatusCode::BAD_REQUEST } else { StatusCode::NOT_ACCEPTABLE };
            Err(ApiError::of(status, problems))
        }
    }
}

/// The problem of a kick-off whose client accepts no type of answer: by `_format`, which replaces the header as in every
/// request, or else by `Accept`. `None` if it accepts one.
fn answer_type_problem(pairs: &[(String, String)], headers: &HeaderMap, answer_types: &[&str]) -> Option<OutcomeIssue> {
    match named_format(pairs) {
        Ok(Some(_)) => None,
        Ok(None) => {
            let is_accepted = Accept::of(headers).best(answer_types).is_some();
            let text = format!("Accept: an export is not started for any of the types given; send Accept: {FHIR_JSON}");
            (!is_accepted).then(|| OutcomeIssue::error(IssueCode::NotSupported, text).at("http.accept"))
        }
        Err(mut problem) => {
            problem.diagnostics += "; the format of the files is _outputFormat";
            Some(problem)
        }
    }
}
