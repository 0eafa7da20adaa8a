//! Renderings of a job in the form of the IG: the answer to a status poll and the manifest (STATUS, MANIFEST). Other
//! dialects build on them.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::fhir::instant::Instant;
use crate::issue::IssueCode;
use crate::job::api::JobView;
use crate::job::record::{FileRecord, JobRecord, RecordKind};
use crate::job::state::JobState;
use crate::server::dialect::job_view::PolledJob;
use crate::server::error::{ApiError, informational_outcome};
use crate::server::http::dates::imf_fixdate;
use crate::write::journal::Receipt;
use crate::write::manifest::{EXPORT_KEY, Manifest};

/// Header with the status of a job, where it is apart from that of the poll (HDR-10).
const EXPORT_STATUS: HeaderName = HeaderName::from_static("x-export-status");

/// Upper bound of `Retry-After` in the answer to a poll, in seconds (STATUS-03).
const RETRY_SECONDS_MAX: u64 = 120;

/// Renders the status of an expired job, or the answer for its files, as 410 (STATUS-13, FILE-11).
pub(crate) fn expired_error(text: &str) -> ApiError {
    ApiError::new(StatusCode::GONE, IssueCode::NotFound, text)
}

/// The answer to a poll of a job, in the form of the IG.
pub(crate) fn status_of_job(polled: &PolledJob<'_>) -> Response<Body> {
    let view = polled.view;
    let must_show_progress = polled.mount.settings.first_poll_in_progress && !view.asked_before;
    match view.record.state {
        // A public test suite fails unless it sees a 202 first (CLIENT-12).
        JobState::Complete if must_show_progress => {
            in_progress_status(polled, &JobView { percent: 99, seconds_left: None, ..view.clone() })
        }
        JobState::Complete => complete_status(polled),
        JobState::Failed => failed_status(&view.record),
        _ => in_progress_status(polled, view),
    }
}

/// 202 of a job that runs or waits, with the share that is done (STATUS-01…03); `view` is what the client is shown of it.
fn in_progress_status(polled: &PolledJob<'_>, view: &JobView) -> Response<Body> {
    let percent = view.percent.min(99);
    let text = match view.awaits_space {
        true => "the export waits for room on the disk; it goes on when other exports are deleted or have expired"
            .to_string(),
        false => format!("the export is being written: {percent}% complete"),
    };
    let mut response = informational_outcome(StatusCode::ACCEPTED, text);
    add_progress_headers(response.headers_mut(), polled, view);
    response
}

/// Adds `X-Progress` and `Retry-After` (STATUS-02, STATUS-03, CLIENT-02), and `Content-Location` with the URL to poll
/// next, which some clients take from there (STATUS-19). Progress is at most 99%.
pub(crate) fn add_progress_headers(headers: &mut HeaderMap, polled: &PolledJob<'_>, view: &JobView) {
    let location = HeaderValue::from_str(&polled.mount.status_url(&polled.view.record.id)).expect("a URL of ours");
    headers.insert(header::CONTENT_LOCATION, location);
    let progress = format!("{}% complete", view.percent.min(99));
    headers.insert("x-progress", HeaderValue::from_str(&progress).expect("plain text"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(view.seconds_left.unwrap_or(1).clamp(1, RETRY_SECONDS_MAX)));
}

/// The answer to a poll whose client asked for its status apart from that of the job: 200, with the job's in a header
/// (XSTAT-01…03).
pub(crate) fn separate_status(mut answer: Response<Body>) -> Response<Body> {
    let status = answer.status();
    let text = format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or_default());
    *answer.status_mut() = StatusCode::OK;
    answer.headers_mut().extend(HeaderValue::from_str(text.trim_end()).ok().map(|value| (EXPORT_STATUS, value)));
    answer
}

/// 500 of a failed job, with an issue code that does not invite a retry (STATUS-08, STATUS-09).
fn failed_status(record: &JobRecord) -> Response<Body> {
    let reason = record.failure.as_ref().map_or("the export failed", |failure| &failure.reason);
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, IssueCode::Processing, reason).into_response()
}

/// 200 with the manifest (STATUS-06, STATUS-07). A strict mount leaves out `deleted` and `extension`, which the
/// vendor's documents do not show (DIALECT-06).
fn complete_status(polled: &PolledJob<'_>) -> Response<Body> {
    let (record, mount) = (&polled.view.record, polled.mount);
    let manifest = manifest(polled);
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

/// The manifest of a complete job, with the file URLs of the mount. For a bound client the ledger holds only the
/// client's own lines (reading 10).
pub(crate) fn manifest(polled: &PolledJob<'_>) -> Manifest {
    let (record, mount) = (&polled.view.record, polled.mount);
    let receipts_of = |kind: RecordKind| -> Vec<Receipt> {
        let of_kind = record.files.iter().filter(|file| file.kind == kind);
        let path_of = |id: &str| (mount.file_path)(id);
        of_kind.map(|FileRecord { id, receipt, .. }| Receipt { file: path_of(id), ..receipt.clone() }).collect()
    };
    let as_of = Instant::parse(&record.transaction_time).expect("a record holds what was written");
    let (output, deleted, error) =
        (receipts_of(RecordKind::Output), receipts_of(RecordKind::Deleted), receipts_of(RecordKind::Error));
    let no_extension = serde_json::Value::Null;
    let mut manifest =
        Manifest::assemble(&as_of, record.url.clone(), mount.base_url, &output, &deleted, &error, no_extension);
    manifest.extension = record.extension.clone();
    if let (Some(departed), Some(export)) = (&record.departed, manifest.extension.get_mut(EXPORT_KEY)) {
        // The record was read from the disk: its extension may be any JSON.
        if let Some(facts) = export.get_mut("departed").and_then(Value::as_object_mut) {
            facts.insert("url".into(), format!("{}{}", mount.base_url, (mount.file_path)(&departed.id)).into());
        }
    }
    if polled.bound_client {
        manifest.extension.get_mut(EXPORT_KEY).into_iter().for_each(remove_foreign_facts);
    }
    manifest.requires_access_token = polled.requires_access_token;
    manifest
}

/// Removes from the root extension the facts about the whole store and other mounts: the base URLs, and every row
/// class of the ledger but those of the export's own rows.
fn remove_foreign_facts(export: &mut Value) {
    // The record was read from the disk: its extension may be any JSON.
    let Some(export) = export.as_object_mut() else { return *export = Value::Null };
    export.get_mut("policies").and_then(Value::as_object_mut).map(|policies| policies.remove("fhirBases"));
    let count = |class: &str| export.get("ledger").and_then(|ledger| ledger.get(class)?.as_u64()).unwrap_or(0);
    let (since_or_until, type_filter, exported) = (count("sinceOrUntil"), count("typeFilter"), count("exported"));
    let lines = since_or_until.saturating_add(type_filter).saturating_add(exported);
    let mut own = json!({ "lines": lines, "sinceOrUntil": since_or_until, "exported": exported });
    if type_filter > 0 {
        own["typeFilter"] = type_filter.into();
    }
    export.insert("ledger".to_string(), own);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reading 10: the remaining ledger adds up to its lines, and shows nothing of other lines or mounts.
    #[test]
    fn a_bound_client_gets_its_own_lines() {
        let ledger = json!({"lines": 100, "blank": 1, "faulty": 2, "tombstone": 3, "future": 4, "superseded": 5,
            "deleted": 6, "type": 7, "cohort": 60, "sinceOrUntil": 4, "exported": 8});
        let mut export = json!({"planId": "x", "policies": {"members": "listed", "fhirBases": ["https://other.example"]},
            "ledger": ledger});
        remove_foreign_facts(&mut export);
        let own = json!({"lines": 12, "exported": 8, "sinceOrUntil": 4});
        assert_eq!(export, json!({"planId": "x", "policies": {"members": "listed"}, "ledger": own}));
        for mut odd in [json!({}), json!("x"), json!({"policies": 1, "ledger": [2]})] {
            remove_foreign_facts(&mut odd);
            assert!(odd.is_null() || odd["ledger"]["lines"] == 0, "{odd}");
        }
    }
}
