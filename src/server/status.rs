//! What became of a job, as the IG tells it: the answer to a poll, the manifest (STATUS, MANIFEST).

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;

use super::dialect::Polled;
use super::http::dates::imf_fixdate;
use super::mount::Mount;
use super::outcome::{IssueType, Refusal, informational};
use crate::fhir::Instant;
use crate::job::{FileRecord, Found, JobRecord, JobView, Kind, State};
use crate::write::manifest::Manifest;
use crate::write::record::Receipt;

/// Most seconds that a client is told to wait (STATUS-03).
const RETRY_SECONDS_MAX: u64 = 120;

/// The state of a job, as its mount renders it.
pub fn answer(found: &Found, mount: &Mount, requires_access_token: bool) -> Response<Body> {
    match found {
        Found::Unknown => Refusal::not_found("this job").into_response(),
        Found::Expired => {
            expired("the files of this job were kept until their time and are gone; ask again").into_response()
        }
        Found::Job(view) => (mount.dialect.polled)(&Polled { mount, view, requires_access_token }),
    }
}

/// 410 (STATUS-13, FILE-11).
pub fn expired(text: &str) -> Refusal {
    Refusal::new(StatusCode::GONE, IssueType::NotFound, text)
}

/// The state of a job, as the IG has it.
pub fn of_job(polled: &Polled<'_>) -> Response<Body> {
    let view = polled.view;
    let first = polled.mount.settings.first_poll_in_progress && !view.asked_before;
    match view.record.state {
        // A public suite wants to see progress (CLIENT-12).
        State::Complete if first => in_progress(&JobView { percent: 99, seconds_left: None, ..view.clone() }),
        State::Complete => complete(&view.record, polled.mount, polled.requires_access_token),
        State::Failed => failed(&view.record),
        _ => in_progress(view),
    }
}

/// 202, with how far it has come (STATUS-01…03).
fn in_progress(view: &JobView) -> Response<Body> {
    let percent = view.percent.min(99);
    let mut response = informational(StatusCode::ACCEPTED, format!("the export is being written: {percent}% complete"));
    progress(response.headers_mut(), view);
    response
}

/// `X-Progress`, and when to ask again (STATUS-02, STATUS-03, CLIENT-02).
pub fn progress(headers: &mut HeaderMap, view: &JobView) {
    let progress = format!("{}% complete", view.percent.min(99));
    headers.insert("x-progress", HeaderValue::from_str(&progress).expect("plain text"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(view.seconds_left.unwrap_or(1).clamp(1, RETRY_SECONDS_MAX)));
}

/// 500, with a code that says that asking again will not help (STATUS-08, STATUS-09).
fn failed(record: &JobRecord) -> Response<Body> {
    let reason = record.failure.as_ref().map_or("the export failed", |failure| &failure.reason);
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, IssueType::Processing, reason).into_response()
}

/// 200 with the manifest (STATUS-06, STATUS-07); without what the vendor's documents do not show where only that is wanted
/// (DIALECT-06).
fn complete(record: &JobRecord, mount: &Mount, requires_access_token: bool) -> Response<Body> {
    let manifest = manifest(record, mount, requires_access_token);
    let bytes = match mount.settings.strict_dialect {
        false => manifest.to_bytes(),
        true => {
            let mut plain = serde_json::to_value(&manifest).expect("a manifest is plain data");
            let fields = plain.as_object_mut().expect("an object");
            fields.retain(|key, _| !["deleted", "extension"].contains(&key.as_str()));
            for item in fields.values_mut().filter_map(|list| list.as_array_mut()).flatten() {
                item.as_object_mut().expect("an object").remove("extension");
            }
            plain.to_string().into_bytes()
        }
    };
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(date) = record.expiry().as_ref().and_then(imf_fixdate) {
        headers.insert(header::EXPIRES, date);
    }
    response
}

/// The manifest of a finished job: the engine's, with the URLs under which a mount serves the files.
pub fn manifest(record: &JobRecord, mount: &Mount, requires_access_token: bool) -> Manifest {
    let list = |kind: Kind| -> Vec<Receipt> {
        let of_kind = record.files.iter().filter(|file| file.kind == kind);
        let served = |id: &str| (mount.dialect.file_path)(id);
        of_kind.map(|FileRecord { id, receipt, .. }| Receipt { file: served(id), ..receipt.clone() }).collect()
    };
    let as_of = Instant::parse(&record.transaction_time).expect("a record holds what was written");
    let (output, deleted, error) = (list(Kind::Output), list(Kind::Deleted), list(Kind::Error));
    let none = serde_json::Value::Null;
    let mut manifest = Manifest::assemble(&as_of, record.url.clone(), &mount.url, &output, &deleted, &error, none);
    manifest.extension = record.extension.clone();
    manifest.requires_access_token = requires_access_token;
    manifest
}
