//! The dialect of the Bulk Data Access IG, release 3, which clients of releases 1 and 2 understand (DIALECT-02). The
//! other dialects are variations of it.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};

use crate::count_text::{counted, word_form};
use crate::fhir::attachment_url::AttachmentPath;
use crate::issue::IssueCode;
use crate::job::record::UrlNaming;
use crate::server::dialect::job_view::StartedJob;
use crate::server::dialect::{Dialect, RequestIds, render};
use crate::server::error::{FHIR_JSON, informational_outcome};
use crate::server::parameters::PARAMETERS;
use crate::server::routes::IG_ROUTES;

/// The dialect of the Bulk Data Access IG.
pub(crate) const IG: Dialect = Dialect {
    name: "ig",
    routes: IG_ROUTES,
    parameters: PARAMETERS,
    kick_off_types: &[FHIR_JSON],
    case_sensitive_types: true,
    compartment_types: false,
    type_refused: IssueCode::NotSupported,
    dates: false,
    user_exports: false,
    group_rules: false,
    gated: false,
    request_ids: RequestIds::Plain,
    naming: UrlNaming::Random,
    status_path: |job| format!("/bulk-status/{job}"),
    file_path: |file| format!("/bulk-files/{file}"),
    attachments: AttachmentPath::Plain,
    job_named: |name| Some(name.to_string()),
    render_started: accepted_response,
    render_polled: render::status_of_job,
};

/// How many parts of a request were ignored, and the verb for them.
pub(crate) fn ignored_parts(notes: usize) -> (String, &'static str) {
    (counted(notes as u64, "part"), word_form(notes as u64, "was", "were"))
}

/// What clients of the IG dialect see after a kick-off: 202 with the status URL in `Content-Location` and an
/// OperationOutcome (KICK-08, KICK-09, NETSMART-E03).
pub(crate) fn accepted_response(started: &StartedJob<'_>) -> Response<Body> {
    let location = started.mount.status_url(started.job);
    let instant = started.transaction_time;
    let mut text = format!("the export was accepted, as of {instant}; its state is at {location}");
    if started.notes > 0 {
        let (parts, were) = ignored_parts(started.notes);
        text += &format!("; {parts} of the request {were} ignored, see the messages of the export");
    }
    let mut response = informational_outcome(StatusCode::ACCEPTED, text);
    set_location(&mut response, &location);
    response
}

/// Sets `Content-Location` to the status URL of a job that was kicked off, as the IG dialect and its variations do.
pub(crate) fn set_location(response: &mut Response<Body>, location: &str) {
    let location = HeaderValue::from_str(location).expect("a URL of ours");
    response.headers_mut().insert(header::CONTENT_LOCATION, location);
}
