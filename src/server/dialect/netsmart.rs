//! Netsmart's dialect: the IG's manifest, under URLs and with headers of its own (NETSMART-G06, NETSMART-E03…E12).

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::job::record::UrlNaming;
use crate::server::config::mounts::AcceptedBody;
use crate::server::dialect::job_view::{PolledJob, StartedJob};
use crate::server::dialect::{Dialect, RequestIds, ig, render};
use crate::server::error::{OutcomeIssueType, outcome_resource};
use crate::server::parameters::NETSMART_PARAMETERS;
use crate::server::routes::NETSMART_ROUTES;

/// See the module.
pub(crate) const NETSMART: Dialect = Dialect {
    name: "netsmart",
    routes: NETSMART_ROUTES,
    parameters: NETSMART_PARAMETERS,
    type_refused: OutcomeIssueType::Processing,
    request_ids: RequestIds::Uuid,
    naming: UrlNaming::Random,
    status_path: |job| format!("/$export-poll-status?_id={job}"),
    file_path: |file| format!("/Binary/{file}/$binary-access-read"),
    taken: accepted_response,
    polled: status_response,
    ..ig::IG
};

/// As the IG has it; or, where it is so configured, with the other body that its pages show (C-09).
fn accepted_response(taken: &StartedJob<'_>) -> Response<Body> {
    if taken.mount.settings.accepted_body == AcceptedBody::Outcome {
        return ig::accepted_response(taken);
    }
    let body = json!({
        "transactionTime": taken.transaction_time.to_string(),
        "request": taken.request,
        "requiresAccessToken": taken.requires_access_token,
    });
    let mut response = outcome_resource(StatusCode::ACCEPTED, &body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ig::set_location(&mut response, &taken.mount.status_url(taken.job));
    response
}

/// As the IG has it, with `X-RetryAfter` beside `Retry-After` (NETSMART-E09, C-20).
fn status_response(polled: &PolledJob<'_>) -> Response<Body> {
    let mut response = render::status_of_job(polled);
    if let Some(after) = response.headers().get(header::RETRY_AFTER).cloned() {
        response.headers_mut().insert("x-retryafter", after);
    }
    response
}
