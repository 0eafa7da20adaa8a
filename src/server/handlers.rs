//! What every handler shares, and the routes: each mount's table, bound to what answers it.
//!
//! Before the routes stand three things, whatever the path: `gate` names each request, and lets a mount refuse methods;
//! between the two, `hosts` refuses what a web page may have sent, where nobody is asked who they are.
//! Handlers that touch the disk run on threads that may block. A path is looked at as it was received, but for `%24`,
//! which is `$` (CORE-07); ids are looked up, never joined into a path.

use crate::fhir::resource_type::ResourceType;
use crate::group::registry::writer::GroupWriter;
use crate::hash::digest::Digest;
use crate::job::api::{JobLookup, RetryOutcome};
use crate::server::auth::Principal;
use crate::server::connection::request_tracker::Peer;
use crate::server::dialect::job_view::StartedJob;
use crate::server::dialect::render;
use crate::server::error::{ApiError, OutcomeIssueType, informational_outcome, outcome_resource};
use crate::server::files::binary::send_as_binary;
use crate::server::files::{StoredFile, send};
use crate::server::groups::GroupHandlers;
use crate::server::http::dates::system_time;
use crate::server::http::format::media_type;
use crate::server::http::query::Query;
use crate::server::kick_off::request::Level;
use crate::server::kick_off::start::{PREFERENCE_APPLIED, StartedExport, kick_off, kick_off_error};
use crate::server::middleware::AsGet;
use crate::server::mount::Mount;
use crate::server::routes::Operation;
use crate::server::state::App;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant as Moment, SystemTime};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use serde_json::json;

/// How often is looked whether a job that is waited for has ended.
const LOOK: Duration = Duration::from_millis(20);

/// One request, as a handler sees it.
struct HandlerRequest {
    method: Method,
    headers: HeaderMap,
    /// As received.
    uri: Uri,
    principal: Principal,
    id: Option<String>,
    version: Option<String>,
    body: Option<axum::body::Bytes>,
}

impl HandlerRequest {
    fn request_id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }
}

/// The names in a path.
pub(crate) type PathParams = Result<Path<HashMap<String, String>>, PathRejection>;

pub(crate) fn health(document: serde_json::Value) -> Response<Body> {
    let mut response = outcome_resource(StatusCode::OK, &document);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response<Body> {
    let active: usize = app.tenants.iter().map(|tenant| tenant.engine.active()).sum();
    match app.tenants.iter().all(|tenant| tenant.ready.load(Relaxed)) {
        true => {
            // For the operator, whose log names them: what clients get counts them at most (reading 24).
            let count = move || Ok(app.tenants.iter().filter_map(|tenant| tenant.engine.faulty_lines()).sum::<u64>());
            let faulty = run_blocking(count).await.ok();
            health(json!({ "status": "ready", "activeJobs": active, "faultyLines": faulty }))
        }
        false => {
            let text = "the store is being indexed for the first time since the start";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, OutcomeIssueType::Transient, text)
                .retry_after(1)
                .into_response()
        }
    }
}

/// Answers an operation of a mount.
pub(crate) async fn handle_operation(
    app: Arc<App>,
    offset: usize,
    operation: Operation,
    names: HashMap<String, String>,
    request: Request,
) -> Response<Body> {
    let mut response = match answer_operation(app, offset, operation, names, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    response.extensions_mut().insert(operation);
    response
}

async fn answer_operation(
    app: Arc<App>,
    i: usize,
    operation: Operation,
    mut names: HashMap<String, String>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let (id, version) = (names.remove("id"), names.remove("version"));
    let (parts, body) = request.into_parts();
    // HEAD comes along with GET, and EXPORT where it is known; to look must not start a job.
    let as_get = parts.extensions.get::<AsGet>().is_some();
    if operation.is_export() && parts.method == Method::HEAD || as_get && !operation.is_export() {
        return Err(not_allowed(&parts.method).header(header::ALLOW, HeaderValue::from_static("GET")));
    }
    // What describes the service is for everybody (CAP-01).
    if matches!(operation, Operation::Metadata | Operation::OperationDefinition) {
        return answer_description(&app, &app.mounts[i], operation, id.as_deref(), &parts.headers, parts.uri.query());
    }
    let (door, peer) = (app.mount_auth(&app.mounts[i]), parts.extensions.get::<Peer>());
    let principal = app.authenticator.authenticate(door, &parts.headers, peer).await?;
    let illegal =
        |name: &Option<String>| name.as_ref().is_some_and(|name| crate::fhir::id::Id::parse(name.as_bytes()).is_none());
    // Files are looked up by their whole name, which is no id on every mount.
    if illegal(&id) && operation != Operation::File || illegal(&version) {
        return Err(ApiError::not_found("this URL"));
    }
    let body = match operation {
        Operation::GroupCreate | Operation::GroupUpdate => Some(read_body(body, app.config.limits.body_bytes).await?),
        _ => None,
    };
    let uri = parts.extensions.get::<OriginalUri>().map_or(parts.uri, |received| received.0.clone());
    let mut wanted = HandlerRequest { method: parts.method, headers: parts.headers, uri, principal, id, version, body };
    match operation {
        Operation::File | Operation::Binary => return send_file(&app, &app.mounts[i], operation, wanted).await,
        Operation::JobStatus | Operation::JobDelete | Operation::JobRetry => {
            let id = job_id(&app.mounts[i], &wanted)?;
            if operation == Operation::JobStatus {
                // All of it is in memory: a poll is answered however many threads wait for the disk or the index.
                return poll_job(&app, &app.mounts[i], &wanted.principal, &id);
            }
            wanted.id = Some(id);
        }
        _ => {}
    }
    let requested = Arc::new(wanted);
    if operation.is_export() {
        let (on, asking) = (app.clone(), requested.clone());
        let started = run_blocking(move || start_export(&on, i, operation, &asking)).await?;
        return Ok(wait_for_job(&app, &app.mounts[i], &requested.principal, started).await);
    }
    run_blocking(move || act_on_job(&app, i, operation, &requested)).await
}

/// Does what blocks on a thread that may.
async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        let text = "the service failed at this request: try again, and tell its operator";
        Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, OutcomeIssueType::Exception, text))
    })
}

/// The job that a request is about: named in the path, or by `_id` where the path has no place for it (C-09).
fn job_id(mount: &Mount, request: &HandlerRequest) -> Result<String, ApiError> {
    let unknown = || ApiError::not_found("this job");
    let name = match &request.id {
        Some(name) => name.clone(),
        None => {
            let (pairs, _) = Query::parse(request.uri.query());
            let mut named = pairs.into_iter().filter(|(name, _)| name == "_id").map(|(_, value)| value);
            match (named.next(), named.next()) {
                (Some(name), None) => name,
                (None, _) => {
                    let text =
                        "_id: the job is not named; ask with ?_id=, as the Content-Location of the kick-off has it";
                    return Err(ApiError::new(StatusCode::BAD_REQUEST, OutcomeIssueType::Required, text).at("http._id"));
                }
                _ => {
                    let text = "_id: it is given more than once; name one job";
                    return Err(ApiError::new(StatusCode::BAD_REQUEST, OutcomeIssueType::Invalid, text).at("http._id"));
                }
            }
        }
    };
    crate::fhir::id::Id::parse(name.as_bytes()).ok_or_else(unknown)?;
    (mount.dialect.job_named)(&name).ok_or_else(unknown)
}

async fn read_body(body: Body, most: usize) -> Result<axum::body::Bytes, ApiError> {
    use http_body_util::{BodyExt, LengthLimitError, Limited};
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("the body has more than {most} bytes, which is what this service takes");
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, OutcomeIssueType::TooLong, text))
        }
        Err(_) => {
            let text = "the body did not arrive as a whole; send it again";
            Err(ApiError::new(StatusCode::BAD_REQUEST, OutcomeIssueType::Incomplete, text))
        }
    }
}

/// What a mount is, for everybody.
fn answer_description(
    app: &App,
    mount: &Mount,
    operation: Operation,
    id: Option<&str>,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    let media_type = media_type(headers, query)?;
    let (declaration, version) =
        (mount.capability_declaration(app.authenticator.describe()), env!("CARGO_PKG_VERSION"));
    let found = match operation {
        Operation::Metadata => Some(declaration.statement(&mount.since, version)),
        _ => id.and_then(|name| declaration.operation_definition(name, version)),
    };
    let found = found.ok_or_else(|| ApiError::not_found("this OperationDefinition"))?;
    let mut response = outcome_resource(StatusCode::OK, &found);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// The absolute URL of a request, verbatim, `%24` and all (MANIFEST-02).
fn url_of(mount: &Mount, uri: &Uri) -> String {
    // A mount's URL is the public URL and its base.
    let root = mount.url.strip_suffix(&mount.base).unwrap_or(&mount.url);
    format!("{root}{}", uri.path_and_query().map_or("/", |path| path.as_str()))
}

/// Starts a job.
fn start_export(
    app: &App,
    i: usize,
    operation: Operation,
    request: &HandlerRequest,
) -> Result<StartedExport, ApiError> {
    let (mount, principal, query) = (&app.mounts[i], &request.principal, request.uri.query());
    let url = url_of(mount, &request.uri);
    let begin = |level: &Level, query| kick_off(app, mount, principal, level, query, &request.headers, url.clone());
    match operation {
        Operation::SystemExport => match &principal.patient {
            Some(patient) if mount.dialect.user_exports => begin(&Level::User(patient.clone()), query),
            _ => begin(&Level::System, query),
        },
        Operation::PatientExport => begin(&Level::Patient, query),
        Operation::TypeExport => {
            let of = ResourceType::all().find(|of| of.name().eq_ignore_ascii_case(request.request_id()));
            let of = of.ok_or_else(|| ApiError::not_found("this URL"))?;
            // As if `_type` had been given (ONEUP-M06); one that is given as well adds to it.
            let rest = query.filter(|query| !query.is_empty()).map_or(String::new(), |query| format!("&{query}"));
            begin(&Level::Patient, Some(&format!("_type={}{rest}", of.name())))
        }
        _ => begin(&Level::Group(request.request_id().to_string()), query),
    }
}

/// The answer to a kick-off. Where the mount waits for the end of its jobs, and the client does not ask otherwise, what has
/// become of the job by then (ONEUP-M10).
async fn wait_for_job(app: &App, mount: &Mount, principal: &Principal, started: StartedExport) -> Response<Body> {
    let requires_access_token = app.authenticator.requires_access_token();
    let (engine, job) = (&app.tenant(mount).engine, &started.job.id);
    let until = Moment::now() + Duration::from_millis(mount.settings.sync_wait_milliseconds);
    while !started.respond_async && Moment::now() < until {
        let found = engine.find(job, mount.name(), &principal.client);
        match &found {
            JobLookup::Job(view) if view.record.state.is_active() => {}
            _ => return mount.status_answer(&found, principal, requires_access_token),
        }
        tokio::time::sleep(LOOK.min(until.saturating_duration_since(Moment::now()))).await;
    }
    let (request, notes) = (started.request.as_str(), started.notes);
    let transaction_time = &started.job.transaction_time;
    let taken = StartedJob { mount: mount.view(), job, transaction_time, request, notes, requires_access_token };
    let mut response = (mount.dialect.taken)(&taken);
    response.headers_mut().extend(started.applied.map(|applied| (PREFERENCE_APPLIED, applied)));
    response
}

fn act_on_job(app: &App, i: usize, operation: Operation, request: &HandlerRequest) -> Result<Response<Body>, ApiError> {
    let mount = &app.mounts[i];
    match operation {
        Operation::JobDelete => delete_job(app, mount, &request.principal, request.request_id()),
        Operation::JobRetry => retry_job(app, mount, &request.principal, request.request_id()),
        _ => group_operation(app, mount, operation, request),
    }
}

fn delete_job(app: &App, mount: &Mount, principal: &Principal, id: &str) -> Result<Response<Body>, ApiError> {
    match app.tenant(mount).engine.delete(id, mount.name(), &principal.client) {
        Ok(true) => {
            tracing::info!(job = id, client = principal.log_name(), "a job was deleted");
            Ok(informational_outcome(StatusCode::ACCEPTED, "the export is deleted, and its files go"))
        }
        Ok(false) => Err(ApiError::not_found("this job")),
        Err(error) => {
            tracing::error!(job = id, %error, "the record of a job cannot be removed");
            let text = "the export cannot be deleted for the moment; ask again";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, OutcomeIssueType::NoStore, text).retry_after(5))
        }
    }
}

/// Tries a failed job again (ONEUP-M05).
fn retry_job(app: &App, mount: &Mount, principal: &Principal, id: &str) -> Result<Response<Body>, ApiError> {
    let engine = &app.tenant(mount).engine;
    match engine.retry(id, mount.name(), &principal.client).map_err(kick_off_error)? {
        RetryOutcome::Accepted => {
            tracing::info!(job = id, client = principal.log_name(), "a job is tried again");
            let found = engine.find(id, mount.name(), &principal.client);
            let JobLookup::Job(view) = &found else { return Err(ApiError::not_found("this job")) };
            let time = crate::fhir::instant::Instant::parse(&view.record.transaction_time)
                .expect("a record holds what was written");
            Ok((mount.dialect.taken)(&StartedJob {
                mount: mount.view(),
                job: id,
                transaction_time: &time,
                request: &view.record.url,
                notes: 0,
                requires_access_token: app.authenticator.requires_access_token(),
            }))
        }
        RetryOutcome::NotFailed(state) => {
            let state = if state.is_active() { "under way" } else { "complete" };
            let text = format!("this job is {state}; only one that has failed can be tried again (ONEUP-M05)");
            Err(ApiError::new(StatusCode::CONFLICT, OutcomeIssueType::Conflict, text))
        }
        RetryOutcome::Unknown => Err(ApiError::not_found("this job")),
    }
}

fn poll_job(app: &App, mount: &Mount, principal: &Principal, id: &str) -> Result<Response<Body>, ApiError> {
    if let Err(wait) = app.polls.count_poll(&principal.client, id, Moment::now()) {
        let text = "this job is polled too often; wait as long as Retry-After says";
        let refusal = ApiError::new(StatusCode::TOO_MANY_REQUESTS, OutcomeIssueType::Throttled, text);
        return Err(refusal.retry_after(wait.as_secs_f64().ceil() as u64));
    }
    let found = app.tenant(mount).engine.find(id, mount.name(), &principal.client);
    if let JobLookup::Job(view) = &found {
        principal.check_job(&view.record)?;
    }
    Ok(mount.status_answer(&found, principal, app.authenticator.requires_access_token()))
}

/// Groups (GROUP-01).
fn group_operation(
    app: &App,
    mount: &Mount,
    operation: Operation,
    request: &HandlerRequest,
) -> Result<Response<Body>, ApiError> {
    let (headers, id) = (&request.headers, request.request_id());
    let body = request.body.as_deref().unwrap_or_default();
    request.principal.check_group(operation, id)?;
    let tenant = app.tenant(mount);
    let snapshot = tenant.engine.snapshot_now();
    let desk = GroupHandlers {
        book: &tenant.groups,
        snapshot: snapshot.as_ref(),
        base: &mount.url,
        bases: mount.fhir_bases(),
        visible: request.principal.groups.as_deref(),
        writer: GroupWriter {
            client: request.principal.client.clone(),
            bound_to_groups: request.principal.is_bound_to_groups(),
            follows_unbound: false,
        },
        rules: mount.group_rules(),
        now: tenant.engine.now(),
    };
    Ok(match operation {
        Operation::GroupSearch => desk.search(request.uri.query(), headers),
        Operation::GroupCreate => desk.create(headers, body, &crate::server::ids::random),
        Operation::GroupUpdate => desk.update(id, headers, body),
        Operation::GroupDelete => desk.delete(id, headers),
        Operation::GroupVersion => desk.read_version(id, request.version.as_deref().unwrap_or_default(), headers),
        _ => desk.read(id, headers),
    })
}

/// Sends a file of a finished job (FILE).
async fn send_file(
    app: &App,
    mount: &Mount,
    operation: Operation,
    requested: HandlerRequest,
) -> Result<Response<Body>, ApiError> {
    let id = requested.id.unwrap_or_default();
    let unknown = || ApiError::not_found("this file");
    let found = match app.tenant(mount).engine.file(&id, mount.name(), &requested.principal.client) {
        Ok(found) => found.ok_or_else(unknown)?,
        Err(()) => {
            return Err(render::expired_error("this file was kept until its time and is gone; ask for a new export"));
        }
    };
    let (record, receipt) = (&found.record, &found.record.files[found.at].receipt);
    requested.principal.check_file(record, &record.files[found.at])?;
    let ended = record.ended.as_deref().and_then(crate::fhir::instant::Instant::parse);
    let finished = ended.as_ref().and_then(system_time).unwrap_or(SystemTime::UNIX_EPOCH);
    let stored = StoredFile {
        root: found.root,
        place: found.place,
        name: receipt.file.rsplit('/').next().unwrap_or_default().to_string(),
        coding: record.request.compression,
        bytes: receipt.bytes,
        file_bytes: receipt.file_bytes,
        etag_seed: receipt.digest.as_ref().map_or(id.clone(), |digest: &Digest| digest.value.clone()),
        finished,
    };
    Ok(match operation {
        Operation::Binary => send_as_binary(&requested.method, &requested.headers, stored, &id).await,
        _ => send(&requested.method, &requested.headers, stored).await,
    })
}

/// 405; what is possible stands in `Allow` (CORE-06).
pub(crate) fn not_allowed(method: &Method) -> ApiError {
    let text = format!("{method} is not possible here; the Allow header says what is");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, OutcomeIssueType::NotSupported, text)
}

/// The URI as it was received.
#[derive(Clone)]
pub(crate) struct OriginalUri(pub(crate) Uri);
