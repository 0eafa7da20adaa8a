//! Netsmart's dialect: the IG's manifest under Netsmart's URLs and with its headers (NETSMART-G06, NETSMART-E03…E12).

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::fhir::attachment_url::AttachmentPath;
use crate::issue::IssueCode;
use crate::job::record::UrlNaming;
use crate::server::config::mounts::AcceptedBody;
use crate::server::dialect::job_view::{PolledJob, StartedJob};
use crate::server::dialect::{Dialect, RequestIds, ig, render};
use crate::server::error::{ANY_JSON, outcome_resource};
use crate::server::parameters::NETSMART_PARAMETERS;
use crate::server::routes::NETSMART_ROUTES;

/// The dialect of Netsmart.
pub(crate) const NETSMART: Dialect = Dialect {
    name: "netsmart",
    routes: NETSMART_ROUTES,
    parameters: NETSMART_PARAMETERS,
    kick_off_types: ANY_JSON,
    type_refused: IssueCode::Processing,
    request_ids: RequestIds::Uuid,
    naming: UrlNaming::Random,
    status_path: |job| format!("/$export-poll-status?_id={job}"),
    file_path: |file| format!("/Binary/{file}/$binary-access-read"),
    attachments: AttachmentPath::BinaryAccessRead,
    render_started: accepted_response,
    render_polled: status_response,
    ..ig::IG
};

/// 202 with the status URL; the body is the IG's, or the one of Netsmart's pages if the mount is configured so
/// (C-09).
fn accepted_response(started: &StartedJob<'_>) -> Response<Body> {
    if started.mount.settings.accepted_body == AcceptedBody::Outcome {
        return ig::accepted_response(started);
    }
    let body = json!({
        "transactionTime": started.transaction_time.to_string(),
        "request": started.request,
        "requiresAccessToken": started.requires_access_token,
    });
    let mut response = outcome_resource(StatusCode::ACCEPTED, &body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ig::set_location(&mut response, &started.mount.status_url(started.job));
    response
}

/// The IG's answer to a poll, with `X-RetryAfter` in addition to `Retry-After` (NETSMART-E09, C-20).
fn status_response(polled: &PolledJob<'_>) -> Response<Body> {
    let mut response = render::status_of_job(polled);
    if let Some(after) = response.headers().get(header::RETRY_AFTER).cloned() {
        response.headers_mut().insert("x-retryafter", after);
    }
    response
}
