//! HTTP handlers of the operations of a mount.
//!
//! The router binds each route to [`handle_operation`], which authenticates the request, reads its body where the
//! operation takes one, and calls the code of the operation. Before a handler runs, the layers of `router` have
//! normalised the path (`request_path`), logged the request (`middleware`), checked its host (`hosts`) and its method
//! (`middleware`). Work that touches the disk or the index runs on blocking threads. Path parameters are looked up, never
//! joined into a file path (CORE-07).

use crate::fhir::attachment_url::AttachmentPath;
use crate::fhir::resource_type::ResourceType;
use crate::group::registry::store_groups::groups_are_current;
use crate::issue::IssueCode;
use crate::job::api::{JobLookup, RetryOutcome};
use crate::job::store_state::StoreRefusal;
use crate::server::admission::AnswerPlace;
use crate::server::attachments::{WantedAttachment, send_attachment};
use crate::server::audit::{Audit, loggable_id};
use crate::server::auth::Principal;
use crate::server::blocking::run_blocking;
use crate::server::connection::request_tracker::Peer;
use crate::server::dialect::job_view::StartedJob;
use crate::server::dialect::render;
use crate::server::error::{ApiError, informational_outcome, outcome_resource};
use crate::server::files::binary::send_as_binary;
use crate::server::files::{FileReader, StoredFile, send};
use crate::server::groups::GroupHandlers;
use crate::server::http::format::media_type;
use crate::server::http::query::Query;
use crate::server::kick_off::request::Level;
use crate::server::kick_off::start::{
    IndexAwaited, KickOffStep, PREFERENCE_APPLIED, ReceivedKickOff, StartedExport, kick_off, kick_off_error,
    unusable_store,
};
use crate::server::middleware::check_method_of;
use crate::server::mount::Mount;
use crate::server::operation_body::{export_level, read_operation_body};
use crate::server::overview::{mount_overview, service_overview};
use crate::server::request_body::RequestBody;
use crate::server::request_path::OriginalUri;
use crate::server::routes::Operation;
use crate::server::smart::discovery::discovery_answer;
use crate::server::state::App;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant as Moment};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;

/// Pause between two looks whether the index has caught up with a kick-off.
const INDEX_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Interval at which the state of a job is read while its kick-off waits for the end of the job.
const JOB_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// An authenticated request to a mount, with its path parameters.
struct HandlerRequest {
    method: Method,
    headers: HeaderMap,
    /// The URI as received, before its path was normalised.
    uri: Uri,
    /// The sender, with its rights.
    principal: Principal,
    /// The path parameter `id`; for job operations the id that the engine knows. `None` if the path has none.
    id: Option<String>,
    /// The path parameter `version` of a Group read.
    version: Option<String>,
    /// The whole body; `None` unless the operation takes one.
    body: Option<RequestBody>,
    /// Who takes the answer, for files.
    reader: FileReader,
    /// The audit log of the request.
    audit: Arc<Audit>,
}

impl HandlerRequest {
    /// The id of the job, Group or file that the request addresses; empty if it addresses none.
    fn request_id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }
}

/// The path parameters by name, or the rejection when one is not UTF-8.
pub(crate) type PathParams = Result<Path<HashMap<String, String>>, PathRejection>;

/// Handles a request for `operation` of the mount number `mount_index` and renders errors; the response carries the
/// operation as an extension for the access log.
pub(crate) async fn handle_operation(
    app: Arc<App>,
    mount_index: usize,
    operation: Operation,
    path_params: HashMap<String, String>,
    request: Request,
) -> Response<Body> {
    let mut response = match answer_operation(app, mount_index, operation, path_params, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    response.extensions_mut().insert(operation);
    response
}

/// Authenticates a request and runs its operation.
///
/// # Errors
/// 405 for HEAD or EXPORT where the operation does not take it, what authentication and the operation refuse.
async fn answer_operation(
    app: Arc<App>,
    mount_index: usize,
    operation: Operation,
    mut path_params: HashMap<String, String>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    // 1. Methods and operations that need no authentication.
    let (id, version) = (path_params.remove("id"), path_params.remove("version"));
    let (parts, body) = request.into_parts();
    check_method_of(app.mounts[mount_index].routes(), operation, &parts)?;
    if operation.is_description() {
        return answer_description(
            &app,
            &app.mounts[mount_index],
            operation,
            id.as_deref(),
            &parts.headers,
            parts.uri.query(),
        );
    }
    // 2. Authentication, before any id is looked up.
    let (mount_auth_rules, peer) = (app.mount_auth(&app.mounts[mount_index]), parts.extensions.get::<Peer>());
    let principal = app.authenticator.authenticate(mount_auth_rules, &parts.headers, peer).await?;
    if let (true, Some(place)) = (app.authenticator.requires_access_token(), parts.extensions.get::<AnswerPlace>()) {
        place.hand_over(&principal.client)?;
    }
    let mount = &app.mounts[mount_index];
    let audit = Audit::new(&parts.headers, &principal, &app.tenant(mount).name, mount.name());
    // 3. The operation, and what the audit log has of its refusal.
    let (asker, asked) = (principal.clone(), id.clone());
    let ids = (id, version);
    let authenticated = AuthenticatedRequest { parts, body, ids, principal, audit: Arc::new(audit) };
    let audit = authenticated.audit.clone();
    let answered = run_operation(app, mount_index, operation, authenticated).await;
    let status = answered.as_ref().map_or_else(|refusal| refusal.status, Response::status);
    let by_scope = answered.as_ref().is_err_and(ApiError::is_of_scope);
    audit.refused(operation, loggable_id(&asker, operation, asked.as_deref(), status), status, by_scope);
    answered
}

/// A request whose sender is known.
struct AuthenticatedRequest {
    parts: Parts,
    body: Body,
    /// The path parameters `id` and `version`.
    ids: (Option<String>, Option<String>),
    principal: Principal,
    audit: Arc<Audit>,
}

/// Reads the body of an authenticated request, and runs its operation.
///
/// # Errors
/// 404 for a path parameter that is no legal id, what the operation refuses.
async fn run_operation(
    app: Arc<App>,
    mount_index: usize,
    operation: Operation,
    authenticated: AuthenticatedRequest,
) -> Result<Response<Body>, ApiError> {
    let AuthenticatedRequest { parts, body, ids: (id, version), principal, audit } = authenticated;
    let is_illegal = |name: &Option<String>| {
        name.as_ref().is_some_and(|name| crate::fhir::id::Id::parse_r4(name.as_bytes()).is_none())
    };
    // Files are looked up by their whole name, which is not a legal id on every mount; Binaries by the ids of the store.
    let is_of_file = matches!(operation, Operation::File | Operation::Attachment);
    if is_illegal(&id) && !is_of_file || is_illegal(&version) {
        return Err(ApiError::not_found("this URL"));
    }
    // 1. The body, for the operations that take one.
    let named = id.as_deref().unwrap_or_default();
    let body = read_operation_body(&app, mount_index, operation, named, &principal, &parts, body).await?;
    let reader = FileReader::of(&parts.extensions);
    let uri = parts.extensions.get::<OriginalUri>().map_or(parts.uri, |received| received.0.clone());
    let mut handler_request = HandlerRequest {
        method: parts.method,
        headers: parts.headers,
        uri,
        principal,
        id,
        version,
        body,
        reader,
        audit,
    };
    // 2. Operations that run on this thread: they wait for no disk, or hand their reads to blocking threads.
    match operation {
        Operation::Attachment => return send_binary(&app, mount_index, handler_request).await,
        // Netsmart has one operation for files and attachments (NETSMART-E08).
        Operation::File if is_attachment(&app, &app.mounts[mount_index], &handler_request) => {
            return send_binary(&app, mount_index, handler_request).await;
        }
        Operation::File | Operation::Binary => {
            return send_file(&app, &app.mounts[mount_index], operation, handler_request).await;
        }
        Operation::JobStatus | Operation::JobDelete | Operation::JobRetry => {
            let id = job_id(&app.mounts[mount_index], &handler_request)?;
            if operation == Operation::JobStatus {
                // Job states are in memory: polls need no blocking thread, of which all may wait for the disk.
                return poll_job(&app, &app.mounts[mount_index], &handler_request.principal, &id);
            }
            handler_request.id = Some(id);
        }
        _ => {}
    }
    // 3. Operations that block.
    let shared_request = Arc::new(handler_request);
    if operation.is_export() {
        let started = start_export_in_steps(&app, mount_index, operation, &shared_request).await?;
        return Ok(wait_for_job(&app, &app.mounts[mount_index], &shared_request.principal, started).await);
    }
    run_blocking(move || act_on_job(&app, mount_index, operation, &shared_request)).await
}

/// Starts the job of an export. Where the index is behind the store, it is waited for up to `group_wait_milliseconds`, and no
/// thread with it. At most [`App::kick_offs`] requests are judged at a time, so that other work finds threads that may block.
///
/// # Errors
/// Those of [`start_export`].
async fn start_export_in_steps(
    app: &Arc<App>,
    mount_index: usize,
    operation: Operation,
    request: &Arc<HandlerRequest>,
) -> Result<StartedExport, ApiError> {
    let deadline = Moment::now() + Duration::from_millis(app.config.jobs.group_wait_milliseconds);
    let mut awaited = None;
    loop {
        let step = {
            let _permit = app.kick_offs.acquire().await;
            let (app, request) = (app.clone(), request.clone());
            run_blocking(move || start_export(&app, mount_index, operation, &request, awaited)).await?
        };
        let run = match step {
            KickOffStep::Started(started) => return Ok(*started),
            KickOffStep::Behind(run) => run,
        };
        let engine = &app.tenant(&app.mounts[mount_index]).engine;
        while !engine.has_indexed(run) && Moment::now() < deadline {
            tokio::time::sleep(INDEX_POLL_INTERVAL.min(deadline.saturating_duration_since(Moment::now()))).await;
        }
        awaited = Some(IndexAwaited { has_ended: engine.has_indexed(run) });
    }
}

/// The engine's id of the job that a request addresses: from the path, or from the query parameter `_id` on paths
/// without one (C-09).
///
/// # Errors
/// 400 if `_id` is missing or repeated, 404 for a name that no job of this dialect can have.
fn job_id(mount: &Mount, request: &HandlerRequest) -> Result<String, ApiError> {
    let unknown = || ApiError::not_found("this job");
    let name = match &request.id {
        Some(name) => name.clone(),
        None => {
            let (pairs, _) = Query::parse(request.uri.query());
            let mut values = pairs.into_iter().filter(|(name, _)| name == "_id").map(|(_, value)| value);
            match (values.next(), values.next()) {
                (Some(name), None) => name,
                (None, _) => {
                    let text =
                        "_id: the job is not named; ask with ?_id=, as the Content-Location of the kick-off has it";
                    return Err(ApiError::new(StatusCode::BAD_REQUEST, IssueCode::Required, text).at("http._id"));
                }
                _ => {
                    let text = "_id: it is given more than once; name one job";
                    return Err(ApiError::new(StatusCode::BAD_REQUEST, IssueCode::Invalid, text).at("http._id"));
                }
            }
        }
    };
    crate::fhir::id::Id::parse_r4(name.as_bytes()).ok_or_else(unknown)?;
    (mount.dialect.job_named)(&name).ok_or_else(unknown)
}

/// The root of the service: where its mounts are; public, as their descriptions are.
pub(crate) async fn overview(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    let mut response = match media_type(request.headers(), request.uri().query()) {
        Ok(media_type) => description(&service_overview(&app.mounts), media_type),
        Err(refusal) => refusal.into_response(),
    };
    response.extensions_mut().insert(Operation::Overview);
    response
}

/// The overview of a mount, its CapabilityStatement, where tokens are asked for, or the OperationDefinition named `id`; all are public.
///
/// # Errors
/// 404 for an unknown OperationDefinition, 406 if the client accepts no JSON.
pub(crate) fn answer_description(
    app: &App,
    mount: &Mount,
    operation: Operation,
    id: Option<&str>,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    if operation == Operation::SmartConfiguration {
        return Ok(discovery_answer(mount.root_url()));
    }
    let media_type = media_type(headers, query)?;
    let (declaration, version) = (mount.capability_declaration(app.authenticator.as_ref()), env!("CARGO_PKG_VERSION"));
    let found = match operation {
        Operation::Overview => Some(mount_overview(mount)),
        Operation::Metadata => Some(declaration.statement(&mount.since, version)),
        _ => id.and_then(|name| declaration.operation_definition(name, version)),
    };
    let found = found.ok_or_else(|| ApiError::not_found("this OperationDefinition"))?;
    Ok(description(&found, media_type))
}

/// 200 with a resource that describes the service, under a name of JSON that the client chose.
fn description(resource: &serde_json::Value, media_type: &'static str) -> Response<Body> {
    let mut response = outcome_resource(StatusCode::OK, resource);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// Handler of the routes of kick-offs: kicks off the export that the route and the principal select. Blocks.
///
/// # Errors
/// 404 for an unknown resource type in the path, and those of [`kick_off`].
fn start_export(
    app: &App,
    mount_index: usize,
    operation: Operation,
    request: &HandlerRequest,
    awaited: Option<IndexAwaited>,
) -> Result<KickOffStep, ApiError> {
    let (mount, principal, query) = (&app.mounts[mount_index], &request.principal, request.uri.query());
    let kick_off_at = |level: &Level, query| {
        let (headers, url) = (&request.headers, mount.url_of(&request.uri));
        let body = request.body.as_deref().filter(|body| !body.trim_ascii().is_empty());
        let unread_body = request.method == Method::GET && takes_post(mount, operation) && has_body(headers);
        let received = ReceivedKickOff { mount, principal, level, query, body, unread_body, headers, url, awaited };
        let step = kick_off(app, &received)?;
        if let KickOffStep::Started(started) = &step {
            let group = if let Level::Group(id) = level { Some(id.as_str()) } else { None };
            request.audit.kick_off(&started.job.id, operation, group);
        }
        Ok(step)
    };
    let level = export_level(mount, operation, principal, request.request_id());
    if operation != Operation::TypeExport {
        return kick_off_at(&level, query);
    }
    let resource_type =
        ResourceType::all().find(|resource_type| resource_type.name().eq_ignore_ascii_case(request.request_id()));
    let resource_type = resource_type.ok_or_else(|| ApiError::not_found("this URL"))?;
    // Same as the parameter `_type` (ONEUP-M06); a `_type` in the query adds to it.
    let rest = query.filter(|query| !query.is_empty()).map_or(String::new(), |query| format!("&{query}"));
    kick_off_at(&level, Some(&format!("_type={}{rest}", resource_type.name())))
}

/// Whether an operation can be asked for by POST on a mount, so that a client may think that the body of its GET counts.
fn takes_post(mount: &Mount, operation: Operation) -> bool {
    mount.routes().any(|route| route.operation == operation && route.method == Method::POST)
}

/// Whether a request says that it has a body, which may turn out to be empty where its length is not said.
fn has_body(headers: &HeaderMap) -> bool {
    let is_long = |length: &HeaderValue| length.to_str().is_ok_and(|length| length.trim().parse() != Ok(0u64));
    headers.contains_key(header::TRANSFER_ENCODING) || headers.get(header::CONTENT_LENGTH).is_some_and(is_long)
}

/// The answer to an accepted kick-off. If the mount waits for its jobs and the client does not prefer
/// `respond-async`, it is the status of the job when it ends within `sync_wait_milliseconds` (ONEUP-M10).
async fn wait_for_job(app: &App, mount: &Mount, principal: &Principal, started: StartedExport) -> Response<Body> {
    let requires_access_token = app.authenticator.requires_access_token();
    let (engine, job) = (&app.tenant(mount).engine, &started.job.id);
    let deadline = Moment::now() + Duration::from_millis(mount.settings.sync_wait_milliseconds);
    while !started.respond_async && Moment::now() < deadline {
        let found = engine.find(job, mount.name(), &principal.client);
        match &found {
            JobLookup::Job(view) if view.record.state.is_active() => {}
            _ => return mount.status_answer(&found, principal, requires_access_token),
        }
        tokio::time::sleep(JOB_POLL_INTERVAL.min(deadline.saturating_duration_since(Moment::now()))).await;
    }
    let (request, notes) = (started.request.as_str(), started.notes);
    let transaction_time = &started.job.transaction_time;
    let started_job = StartedJob { mount: mount.view(), job, transaction_time, request, notes, requires_access_token };
    let mut response = (mount.dialect.render_started)(&started_job);
    response.headers_mut().extend(started.applied.map(|applied| (PREFERENCE_APPLIED, applied)));
    response
}

/// Runs the operations that block: delete or retry a job, and all Group operations.
fn act_on_job(
    app: &App,
    mount_index: usize,
    operation: Operation,
    request: &HandlerRequest,
) -> Result<Response<Body>, ApiError> {
    let mount = &app.mounts[mount_index];
    match operation {
        Operation::JobDelete => delete_job(app, mount, request),
        Operation::JobRetry => retry_job(app, mount, request),
        _ => group_operation(app, mount, operation, request),
    }
}

/// Cancels a job or deletes its files: 202.
///
/// # Errors
/// 404 for a job that the client does not have, 503 if its record cannot be removed.
fn delete_job(app: &App, mount: &Mount, request: &HandlerRequest) -> Result<Response<Body>, ApiError> {
    let (principal, id) = (&request.principal, request.request_id());
    match app.tenant(mount).engine.delete(id, mount.name(), &principal.client) {
        Ok(true) => {
            request.audit.job_deleted(id);
            Ok(informational_outcome(StatusCode::ACCEPTED, "the export is deleted, and its files go"))
        }
        Ok(false) => Err(ApiError::not_found("this job")),
        Err(error) => {
            tracing::error!(job = id, %error, "the record of a job cannot be removed");
            let text = "the export cannot be deleted for the moment; ask again";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::NoStore, text).retry_after(5))
        }
    }
}

/// Queues a failed job again and answers as its kick-off did (ONEUP-M05).
///
/// # Errors
/// 404 for a job that the client does not have, 403 for one that it may not have, 409 for one that has not failed, and those of
/// the engine.
fn retry_job(app: &App, mount: &Mount, request: &HandlerRequest) -> Result<Response<Body>, ApiError> {
    let (principal, id) = (&request.principal, request.request_id());
    let engine = &app.tenant(mount).engine;
    if let JobLookup::Job(view) = engine.find(id, mount.name(), &principal.client) {
        principal.check_job(&view.record)?;
    }
    match engine.retry(id, mount.name(), &principal.client).map_err(kick_off_error)? {
        RetryOutcome::Accepted => {
            request.audit.job_retried(id);
            let found = engine.find(id, mount.name(), &principal.client);
            let JobLookup::Job(view) = &found else { return Err(ApiError::not_found("this job")) };
            let time = crate::fhir::instant::Instant::parse(&view.record.transaction_time)
                .expect("a record holds what was written");
            Ok((mount.dialect.render_started)(&StartedJob {
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
            let text = format!("this job is {state}; only one that has failed can be tried again");
            Err(ApiError::new(StatusCode::CONFLICT, IssueCode::Conflict, text))
        }
        RetryOutcome::SnapshotGone => {
            let text = "the files of this job were removed, and the store no longer has what it began with; ask for a new export";
            Err(ApiError::new(StatusCode::CONFLICT, IssueCode::Conflict, text))
        }
        RetryOutcome::Unknown => Err(ApiError::not_found("this job")),
    }
}

/// The status of a job.
///
/// # Errors
/// 429 if the client polls the job too often; 403 if it may no longer have all that the job exports.
fn poll_job(app: &App, mount: &Mount, principal: &Principal, id: &str) -> Result<Response<Body>, ApiError> {
    if let Err(wait) = app.polls.count((principal.client.clone(), id.to_string()), Moment::now()) {
        let text = "this job is polled too often; wait as long as Retry-After says";
        let refusal = ApiError::new(StatusCode::TOO_MANY_REQUESTS, IssueCode::Throttled, text);
        return Err(refusal.retry_after(wait.as_secs_f64().ceil() as u64));
    }
    let found = app.tenant(mount).engine.find(id, mount.name(), &principal.client);
    if let JobLookup::Job(view) = &found {
        principal.check_job(&view.record)?;
    }
    Ok(mount.status_answer(&found, principal, app.authenticator.requires_access_token()))
}

/// Handler of the routes of Groups: runs the operation with the rights of the principal (GROUP-01). Blocks.
///
/// # Errors
/// 403 or 404 if the principal may not do this; all other errors are rendered by [`GroupHandlers`].
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
    let mut snapshot = tenant.engine.snapshot_now();
    if snapshot.as_ref().is_some_and(|snapshot| !groups_are_current(snapshot)) {
        tenant.engine.index_and_wait(Duration::from_millis(app.config.jobs.group_wait_milliseconds));
        snapshot = tenant.engine.snapshot_now();
    }
    let group_handlers = GroupHandlers {
        book: &tenant.groups,
        snapshot: snapshot.as_ref(),
        base: &mount.url,
        bases: mount.fhir_bases(),
        principal: &request.principal,
        rules: mount.group_rules(),
        now: tenant.engine.now(),
    };
    let response = match operation {
        Operation::GroupSearch => group_handlers.search(request.uri.query(), headers),
        Operation::GroupCreate => group_handlers.create(headers, body, &crate::server::ids::random),
        Operation::GroupUpdate => group_handlers.update(id, headers, body),
        Operation::GroupDelete => group_handlers.delete(id, headers),
        Operation::GroupVersion => {
            group_handlers.read_version(id, request.version.as_deref().unwrap_or_default(), headers)
        }
        _ => group_handlers.read(id, headers),
    };
    // Without its store, nobody knows which Groups there are.
    let is_unknown = matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR);
    if is_unknown && tenant.engine.probe_store() == Some(StoreRefusal::Unreadable) {
        return Err(unusable_store());
    }
    request.audit.group(operation, &response);
    Ok(response)
}

/// Whether a request for a file is for an attachment: the mount has one path for both, and no file has this id.
fn is_attachment(app: &App, mount: &Mount, request: &HandlerRequest) -> bool {
    let (id, client) = (request.request_id(), &request.principal.client);
    mount.dialect.attachments == AttachmentPath::BinaryAccessRead
        && matches!(app.tenant(mount).engine.file(id, mount.name(), client), Ok(None))
}

/// Handler of the routes of attachments: sends what a Binary of the store holds (ATTACH-02).
///
/// # Errors
/// Those of [`send_attachment`].
async fn send_binary(
    app: &Arc<App>,
    mount_index: usize,
    requested: HandlerRequest,
) -> Result<Response<Body>, ApiError> {
    let HandlerRequest { method, headers, uri, principal, id, reader, audit, .. } = requested;
    let wanted = WantedAttachment { id: id.unwrap_or_default(), query: uri.query().map(str::to_string), principal };
    let response = send_attachment(app, mount_index, wanted, (&method, &headers), reader).await?;
    audit.attachment(&method, &response);
    Ok(response)
}

/// Handler of the routes of downloads: sends a file of a finished job, as stored or as a Binary resource (FILE).
///
/// # Errors
/// 404 for a file that the client does not have, 410 for an expired one, 403 if the client may no longer have it.
async fn send_file(
    app: &App,
    mount: &Mount,
    operation: Operation,
    requested: HandlerRequest,
) -> Result<Response<Body>, ApiError> {
    let (id, reader) = (requested.id.unwrap_or_default(), requested.reader);
    let unknown = || ApiError::not_found("this file");
    let found = match app.tenant(mount).engine.file(&id, mount.name(), &requested.principal.client) {
        Ok(found) => found.ok_or_else(unknown)?,
        Err(()) => {
            return Err(render::expired_error("this file was kept until its time and is gone; ask for a new export"));
        }
    };
    let record = found.record.clone();
    requested.principal.check_file(&record, record.files.get(found.at))?;
    let stored = StoredFile::of(found, &id);
    let response = match operation {
        Operation::Binary => send_as_binary(&requested.method, &requested.headers, stored, &id, reader).await,
        _ => send(&requested.method, &requested.headers, stored, reader).await,
    };
    requested.audit.download(&record.id, &id, &requested.method, &response);
    Ok(response)
}
