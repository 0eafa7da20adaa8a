//! The dialects of 1upHealth's two environments: job states with counters and batches, file links that do not expire
//! (ONEUP-S09…S25, ONEUP-M05, ONEUP-M10, ONEUP-M17, ONEUP-M18).

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::issue::IssueCode;
use crate::job::api::JobView;
use crate::job::record::{RecordKind, UrlNaming};
use crate::job::state::JobState;
use crate::server::dialect::job_view::{PolledJob, StartedJob};
use crate::server::dialect::{Dialect, RequestIds, ig, render};
use crate::server::error::ANY_JSON;
use crate::server::parameters::{ONEUP_MTE_PARAMETERS, ONEUP_STE_PARAMETERS};
use crate::server::routes::{ONEUP_MTE_ROUTES, ONEUP_STE_ROUTES};
use crate::write::manifest::ManifestItem;

/// The dialect of the single-tenant environment.
pub(crate) const STE: Dialect = Dialect {
    name: "oneup-ste",
    routes: ONEUP_STE_ROUTES,
    parameters: ONEUP_STE_PARAMETERS,
    kick_off_types: ANY_JSON,
    case_sensitive_types: false,
    type_refused: IssueCode::NotSupported,
    dates: true,
    user_exports: true,
    group_rules: true,
    request_ids: RequestIds::Plain,
    naming: UrlNaming::Typed,
    status_path: |job| format!("/$export/job/{}", uuid(job)),
    file_path: |file| format!("/$export/file/{file}"),
    job_named,
    render_started: accepted_response,
    render_polled: |polled| status_response(polled, Link::File),
    ..ig::IG
};

/// The dialect of the multi-tenant environment.
pub(crate) const MTE: Dialect = Dialect {
    name: "oneup-mte",
    routes: ONEUP_MTE_ROUTES,
    parameters: ONEUP_MTE_PARAMETERS,
    compartment_types: true,
    user_exports: false,
    gated: true,
    render_polled: |polled| status_response(polled, Link::Url),
    ..STE
};

/// Name of the link in an item of the file list (C-06).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    /// `file`, in the single-tenant environment (ONEUP-S17).
    File,
    /// `url`, in the multi-tenant environment (ONEUP-M17).
    Url,
}

/// A job id of the engine, 32 hexadecimal digits, in the form of a UUID (ONEUP-S12); any other text is returned
/// unchanged.
fn uuid(job: &str) -> String {
    let parts = [job.get(..8), job.get(8..12), job.get(12..16), job.get(16..20), job.get(20..)];
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    if job.len() == 32 { parts.join("-") } else { job.to_string() }
}

/// The engine's id of a job from its UUID; `None` for any other text.
fn job_named(name: &str) -> Option<String> {
    let id = name.replace('-', "");
    (id.len() == 32 && uuid(&id) == name).then_some(id)
}

/// An instant in UTC with three digits of a second (ONEUP-S16), rounded down, so that a `_since` copied from it
/// misses nothing.
fn millis(instant: &Instant) -> String {
    let ticks_per_milli = TICKS_PER_SECOND / 1000;
    let text = Instant { ticks: instant.ticks.div_euclid(ticks_per_milli) * ticks_per_milli, rest: Box::default() }
        .to_string();
    let text = text.trim_end_matches('Z');
    match text.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{fraction:0<3}Z"),
        None => format!("{text}.000Z"),
    }
}

/// A response to a 1upHealth client, with a JSON body that must not be cached.
fn json_answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 202 with the job's id and status URL in the body, and the URL in `Content-Location` (ONEUP-S09, ONEUP-S24).
fn accepted_response(started: &StartedJob<'_>) -> Response<Body> {
    let location = started.mount.status_url(started.job);
    let mut message = "The export job was accepted and has started; its status URL tells how far it is.".to_string();
    if started.notes > 0 {
        let (parts, were) = ig::ignored_parts(started.notes);
        message += &format!(" {parts} of the request {were} ignored.");
    }
    let body = json!({ "message": message, "jobId": uuid(started.job), "statusUrl": location });
    let mut response = json_answer(StatusCode::ACCEPTED, &body);
    ig::set_location(&mut response, &location);
    response
}

/// The state of a job with its counters, and its files once it is complete (ONEUP-S12…S18, ONEUP-S25).
fn status_response(polled: &PolledJob<'_>, link: Link) -> Response<Body> {
    let (view, record) = (polled.view, &polled.view.record);
    let strict = polled.mount.settings.strict_dialect;
    let to_millis = |text: &str| Instant::parse(text).map_or_else(|| text.to_string(), |instant| millis(&instant));
    let (state, status) = match record.state {
        JobState::Complete => ("Successful", StatusCode::OK),
        JobState::Failed => ("Failed", StatusCode::INTERNAL_SERVER_ERROR),
        _ => ("In Progress", StatusCode::ACCEPTED),
    };
    let mut body = json!({
        "id": uuid(&record.id),
        "transactionTime": to_millis(&record.transaction_time),
        "request": record.url,
        "requiresAccessToken": polled.requires_access_token,
        "status": state,
        "resourceCount": view.planned.map_or(0, |planned| planned.rows),
        "batches": batches(view),
        "lastUpdated": millis(&view.changed),
    });
    let fields = body.as_object_mut().expect("an object");
    if record.state == JobState::Complete {
        let manifest = render::manifest(polled);
        let items_of =
            |items: &[ManifestItem]| items.iter().map(|item| file_item(item, link, strict)).collect::<Vec<Value>>();
        fields.insert("output".into(), items_of(&manifest.output).into());
        if !strict {
            if record.files.iter().any(|file| file.kind == RecordKind::Deleted) {
                fields.insert("deleted".into(), items_of(&manifest.deleted).into());
            }
            fields.insert("error".into(), items_of(&manifest.error).into());
            fields.insert("extension".into(), manifest.extension.into());
        }
    } else if let (Some(failure), false) = (&record.failure, strict) {
        fields.insert("message".into(), json!(failure.reason));
    }
    let mut response = json_answer(status, &body);
    if record.state.is_active() {
        render::add_progress_headers(response.headers_mut(), polled, view);
    }
    response
}

/// Counters of a job's shards as `batches`. Shards that wait count as running, so that the counters add up to the
/// total (ONEUP-S15); the unfinished shards of a failed job count as failed.
fn batches(view: &JobView) -> Value {
    let (complete, total) = view.planned.map_or((0, 0), |planned| (planned.complete, planned.shards));
    let unfinished = total - complete;
    let (running, failed) = if view.record.state == JobState::Failed { (0, unfinished) } else { (unfinished, 0) };
    json!({ "running": running, "complete": complete, "failed": failed, "total": total })
}

/// One item of the file list; a strict mount has only the fields of 1upHealth's documents.
fn file_item(item: &ManifestItem, link: Link, strict: bool) -> Value {
    let mut out = Map::new();
    out.insert("type".into(), json!(item.r#type));
    if link == Link::File {
        out.insert("file".into(), json!(item.url));
    }
    if link == Link::Url || !strict {
        out.insert("url".into(), json!(item.url));
    }
    if !strict {
        out.insert("count".into(), json!(item.count));
        out.insert("extension".into(), json!(item.extension));
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ONEUP-S12: clients see job ids as UUIDs, and only UUIDs are accepted.
    #[test]
    fn jobs_are_named_by_uuids() {
        let id = "5edebc8a25144ae1874e7029785e9639";
        let name = "5edebc8a-2514-4ae1-874e-7029785e9639";
        assert_eq!(uuid(id), name);
        assert_eq!(job_named(name).as_deref(), Some(id));
        for wrong in [id, "5edebc8a-2514-4ae1-874e-7029785e963", "5edebc8a2514-4ae1-874e-7029785e9639-", "", "é", "-"]
        {
            assert_eq!(job_named(wrong), None, "{wrong}");
        }
    }

    /// ONEUP-S16: always three digits of a second.
    #[test]
    fn instants_have_milliseconds() {
        for (given, reported) in [
            ("2023-09-22T17:39:41.461Z", "2023-09-22T17:39:41.461Z"),
            ("2023-09-22T17:39:41Z", "2023-09-22T17:39:41.000Z"),
            ("2023-09-22T17:39:41.5Z", "2023-09-22T17:39:41.500Z"),
            ("2023-09-22T17:39:41.4619999Z", "2023-09-22T17:39:41.461Z"),
            ("2023-09-22T19:39:41.4+02:00", "2023-09-22T17:39:41.400Z"),
        ] {
            assert_eq!(millis(&Instant::parse(given).unwrap()), reported);
        }
    }
}
