//! What became of a job: the answer to a poll, the manifest, and the answer to a deletion (STATUS, DELETE, MANIFEST).

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;

use super::http::dates::imf_fixdate;
use super::outcome::{IssueType, Refusal, informational};
use crate::fhir::Instant;
use crate::job::{FileRecord, Found, JobRecord, JobView, Kind, State};
use crate::write::manifest::Manifest;
use crate::write::record::Receipt;

/// Most seconds that a client is told to wait (STATUS-03).
const RETRY_SECONDS_MAX: u64 = 120;

/// The state of a job, as a mount renders it.
pub fn answer(found: Found, files_url: &str, requires_access_token: bool) -> Response<Body> {
    match found {
        Found::Unknown => Refusal::not_found("this job").into_response(),
        Found::Expired => {
            expired("the files of this job were kept until their time and are gone; ask again").into_response()
        }
        Found::Job(view) => match view.record.state {
            State::Complete => complete(&view.record, files_url, requires_access_token),
            State::Failed => failed(&view.record),
            _ => in_progress(view.percent, view.seconds_left),
        },
    }
}

/// 410 (STATUS-13, FILE-11).
pub fn expired(text: &str) -> Refusal {
    Refusal::new(StatusCode::GONE, IssueType::NotFound, text)
}

/// 202, with how far it has come (STATUS-01…03, CLIENT-02).
pub fn in_progress(percent: u8, seconds_left: Option<u64>) -> Response<Body> {
    let percent = percent.min(99);
    let mut response = informational(StatusCode::ACCEPTED, format!("the export is being written: {percent}% complete"));
    let headers = response.headers_mut();
    let progress = format!("{percent}% complete");
    headers.insert("x-progress", HeaderValue::from_str(&progress).expect("plain text"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds_left.unwrap_or(1).clamp(1, RETRY_SECONDS_MAX)));
    response
}

/// 500, with a code that says that asking again will not help (STATUS-08, STATUS-09).
fn failed(record: &JobRecord) -> Response<Body> {
    let reason = record.failure.as_ref().map_or("the export failed", |failure| &failure.reason);
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, IssueType::Processing, reason).into_response()
}

/// 200 with the manifest (STATUS-06, STATUS-07).
fn complete(record: &JobRecord, files_url: &str, requires_access_token: bool) -> Response<Body> {
    let manifest = manifest(record, files_url, requires_access_token);
    let mut response = Response::new(Body::from(manifest.to_bytes()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(date) = record.expiry().as_ref().and_then(imf_fixdate) {
        headers.insert(header::EXPIRES, date);
    }
    response
}

/// The manifest of a finished job: the engine's, with the URLs under which a mount serves the files.
pub fn manifest(record: &JobRecord, files_url: &str, requires_access_token: bool) -> Manifest {
    let list = |kind: Kind| -> Vec<Receipt> {
        let of_kind = record.files.iter().filter(|file| file.kind == kind);
        of_kind.map(|FileRecord { id, receipt, .. }| Receipt { file: id.clone(), ..receipt.clone() }).collect()
    };
    let as_of = Instant::parse(&record.transaction_time).expect("a record holds what was written");
    let (output, deleted, error) = (list(Kind::Output), list(Kind::Deleted), list(Kind::Error));
    let mut manifest =
        Manifest::assemble(&as_of, record.url.clone(), files_url, &output, &deleted, &error, serde_json::Value::Null);
    manifest.extension = record.extension.clone();
    manifest.requires_access_token = requires_access_token;
    manifest
}

/// Keeps a done job from being told on the first poll (CLIENT-12): then it seems to be under way.
pub fn as_if_under_way(view: &JobView) -> bool {
    view.record.state == State::Complete
}
