//! What every handler shares, and the routes: each mount's table, bound to what answers it.
//!
//! Handlers that touch the disk run on threads that may block. A path is looked at as it was received, but for `%24`,
//! which is `$` (CORE-07); ids are looked up, never joined into a path.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Instant as Moment, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, get, on};
use serde_json::json;

use super::auth::{Authenticator, Principal};
use super::config::Config;
use super::export::{kick_off, unknown_group};
use super::files::{StoredFile, send};
use super::groups::GroupDesk;
use super::http::dates::system_time;
use super::http::format::media_type;
use super::kickoff::Level;
use super::mount::Mount;
use super::outcome::{IssueType, Refusal, informational, resource};
use super::polls::Polls;
use super::routes::{Operation, Route};
use super::status;
use crate::job::groups::{DocumentLimits, GroupBook};
use crate::job::{Engine, Found};
use crate::write::digest::Digest;

/// Name of the header that names a request in the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What every handler shares.
pub struct App {
    /// The configuration in force.
    pub config: Config,
    /// The job engine.
    pub engine: Engine,
    /// The Groups that clients made.
    pub groups: GroupBook,
    /// Who asks.
    pub authenticator: Box<dyn Authenticator>,
    /// The mounts.
    pub mounts: Vec<Mount>,
    /// How often is asked.
    pub polls: Polls,
    /// Whether the index has been brought up to date once.
    pub ready: AtomicBool,
}

/// One request, as a handler sees it.
struct Asked {
    method: Method,
    headers: HeaderMap,
    /// As received.
    uri: Uri,
    principal: Principal,
    id: Option<String>,
    version: Option<String>,
    body: Option<axum::body::Bytes>,
}

/// The names in a path.
type Names = Result<Path<HashMap<String, String>>, PathRejection>;

/// The routes of all mounts, and those that belong to none.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/health/live", get(|| async { health(json!({ "status": "live" })) }))
        .route("/health/ready", get(ready));
    for at in 0..app.mounts.len() {
        let mount = &app.mounts[at];
        let mut inner: Vec<(&'static str, MethodRouter<Arc<App>>)> = Vec::new();
        for route in mount.routes() {
            let filter = MethodFilter::try_from(route.method.clone()).expect("a table of known methods");
            let operation = route.operation;
            let handler = move |app: State<Arc<App>>, names: Names, request: Request| async move {
                match names {
                    Ok(names) => handle(app.0, at, operation, names.0, request).await,
                    // A name that is no text in UTF-8 is nobody's.
                    Err(_) => Refusal::not_found("this URL").into_response(),
                }
            };
            match inner.iter_mut().find(|(path, _)| *path == route.path) {
                Some((_, methods)) => *methods = std::mem::take(methods).on(filter, handler),
                None => inner.push((route.path, on(filter, handler))),
            }
        }
        for (path, methods) in inner {
            router = router.route(&format!("{}{path}", mount.base), methods);
        }
    }
    let router = router
        .fallback(|| async { Refusal::not_found("this URL") })
        .method_not_allowed_fallback(|method: Method| async move { not_allowed(&method) })
        .with_state(app);
    // Routes are found by the path with `$` written plainly; what was received is remembered.
    let plain = tower::ServiceBuilder::new().map_request(plain_path).service(router);
    Router::new().fallback_service(plain).layer(middleware::from_fn(log))
}

/// 405; what is possible stands in `Allow` (CORE-06).
fn not_allowed(method: &Method) -> Refusal {
    let text = format!("{method} is not possible here; the Allow header says what is");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, IssueType::NotSupported, text)
}

/// The URI as it was received.
#[derive(Clone)]
struct Received(Uri);

fn plain_path(mut request: Request) -> Request {
    let received = request.uri().clone();
    if received.path().contains("%24") {
        let mut parts = received.clone().into_parts();
        let query = received.query().map_or(String::new(), |query| format!("?{query}"));
        let plain = format!("{}{query}", received.path().replace("%24", "$"));
        if let Ok(plain) = plain.parse() {
            parts.path_and_query = Some(plain);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    request.extensions_mut().insert(Received(received));
    request
}

/// Names each request, and writes a line of log for each answer: no query, no ids, nothing of the data.
async fn log(mut request: Request, next: Next) -> Response<Body> {
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let plain = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let id = given.filter(plain).map_or_else(super::new_id, str::to_string);
    let value = HeaderValue::from_str(&id).expect("letters and digits");
    request.headers_mut().insert(REQUEST_ID, value.clone());
    let (method, begun) = (request.method().clone(), Moment::now());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, value);
    let route = response.extensions().get::<Operation>().map_or("none".to_string(), |found| format!("{found:?}"));
    let (status, milliseconds) = (response.status().as_u16(), begun.elapsed().as_secs_f64() * 1000.0);
    tracing::info!(target: "outpour::access", request = id, %method, route, status, milliseconds, "answered");
    response
}

fn health(document: serde_json::Value) -> Response<Body> {
    let mut response = resource(StatusCode::OK, &document);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn ready(State(app): State<Arc<App>>) -> Response<Body> {
    match app.ready.load(Relaxed) {
        true => health(json!({ "status": "ready", "activeJobs": app.engine.active() })),
        false => {
            let text = "the store is being indexed for the first time since the start";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, IssueType::Transient, text).retry_after(1).into_response()
        }
    }
}

/// Answers an operation of a mount.
async fn handle(
    app: Arc<App>,
    at: usize,
    operation: Operation,
    names: HashMap<String, String>,
    request: Request,
) -> Response<Body> {
    let mut response = match answer(app, at, operation, names, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    response.extensions_mut().insert(operation);
    response
}

async fn answer(
    app: Arc<App>,
    at: usize,
    operation: Operation,
    mut names: HashMap<String, String>,
    request: Request,
) -> Result<Response<Body>, Refusal> {
    let (id, version) = (names.remove("id"), names.remove("version"));
    let (parts, body) = request.into_parts();
    let exports = matches!(operation, Operation::SystemExport | Operation::PatientExport | Operation::GroupExport);
    if exports && parts.method == Method::HEAD {
        // HEAD comes along with GET; to look must not start a job.
        return Err(not_allowed(&parts.method).header(header::ALLOW, HeaderValue::from_static("GET")));
    }
    // What describes the service is for everybody (CAP-01).
    if matches!(operation, Operation::Metadata | Operation::OperationDefinition) {
        return describe(&app.mounts[at], operation, id.as_deref(), &parts.headers, parts.uri.query());
    }
    let illegal =
        |name: &Option<String>| name.as_ref().is_some_and(|name| crate::fhir::Id::parse(name.as_bytes()).is_none());
    if illegal(&id) || illegal(&version) {
        return Err(Refusal::not_found("this URL"));
    }
    let principal = app.authenticator.authenticate(&parts.headers)?;
    let body = match operation {
        Operation::GroupCreate | Operation::GroupUpdate => Some(read_body(body, app.config.limits.body_bytes).await?),
        _ => None,
    };
    let uri = parts.extensions.get::<Received>().map_or(parts.uri, |received| received.0.clone());
    let asked = Asked { method: parts.method, headers: parts.headers, uri, principal, id, version, body };
    if operation == Operation::File {
        return file(&app, &app.mounts[at], asked).await;
    }
    if operation == Operation::JobStatus {
        // All of it is in memory: a poll is answered however many threads wait for the disk or the index.
        return poll(&app, &app.mounts[at], &asked.principal, asked.id.as_deref().unwrap_or_default());
    }
    let done = tokio::task::spawn_blocking(move || blocking(&app, at, operation, asked));
    done.await.unwrap_or_else(|_| {
        let text = "the service failed at this request: try again, and tell its operator";
        Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, IssueType::Exception, text))
    })
}

async fn read_body(body: Body, most: usize) -> Result<axum::body::Bytes, Refusal> {
    use http_body_util::{BodyExt, LengthLimitError, Limited};
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("the body has more than {most} bytes, which is what this service takes");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, IssueType::TooLong, text))
        }
        Err(_) => {
            let text = "the body did not arrive as a whole; send it again";
            Err(Refusal::new(StatusCode::BAD_REQUEST, IssueType::Incomplete, text))
        }
    }
}

/// What a mount is, for everybody.
fn describe(
    mount: &Mount,
    operation: Operation,
    id: Option<&str>,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Response<Body>, Refusal> {
    let media_type = media_type(headers, query)?;
    let (declaration, version) = (mount.declaration(), env!("CARGO_PKG_VERSION"));
    let found = match operation {
        Operation::Metadata => Some(declaration.statement(&mount.since, version)),
        _ => id.and_then(|name| declaration.operation_definition(name, version)),
    };
    let found = found.ok_or_else(|| Refusal::not_found("this OperationDefinition"))?;
    let mut response = resource(StatusCode::OK, &found);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

fn blocking(app: &App, at: usize, operation: Operation, asked: Asked) -> Result<Response<Body>, Refusal> {
    let mount = &app.mounts[at];
    let Asked { headers, uri, principal, .. } = &asked;
    let id = asked.id.clone().unwrap_or_default();
    let level = match operation {
        Operation::SystemExport => Some(Level::System),
        Operation::PatientExport => Some(Level::Patient),
        Operation::GroupExport => Some(Level::Group(id.clone())),
        _ => None,
    };
    if let Some(level) = level {
        // Verbatim, `%24` and all (MANIFEST-02): a mount's URL is the public URL and its base.
        let root = mount.url.strip_suffix(&mount.base).unwrap_or(&mount.url);
        let url = format!("{root}{}", uri.path_and_query().map_or("/", |path| path.as_str()));
        return kick_off(app, mount, principal, &level, uri.query(), headers, url);
    }
    match operation {
        Operation::JobDelete => match app.engine.delete(&id, mount.name, &principal.client) {
            Ok(true) => {
                tracing::info!(job = id, client = principal.client, "a job was deleted");
                Ok(informational(StatusCode::ACCEPTED, "the export is deleted, and its files go"))
            }
            Ok(false) => Err(Refusal::not_found("this job")),
            Err(error) => {
                tracing::error!(job = id, %error, "the record of a job cannot be removed");
                let text = "the export cannot be deleted for the moment; ask again";
                Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, IssueType::NoStore, text).retry_after(5))
            }
        },
        _ => group(app, mount, operation, &asked),
    }
}

fn poll(app: &App, mount: &Mount, principal: &Principal, id: &str) -> Result<Response<Body>, Refusal> {
    if let Err(wait) = app.polls.count(&principal.client, id, Moment::now()) {
        let text = "this job is polled too often; wait as long as Retry-After says";
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, IssueType::Throttled, text);
        return Err(refusal.retry_after(wait.as_secs_f64().ceil() as u64));
    }
    let found = app.engine.find(id, mount.name, &principal.client);
    if let Found::Job(view) = &found
        && mount.first_poll_in_progress
        && status::as_if_under_way(view)
        && !view.asked_before
    {
        return Ok(status::in_progress(99, None));
    }
    Ok(status::answer(found, &mount.files_url(), app.authenticator.requires_access_token()))
}

/// Groups (GROUP-01).
fn group(app: &App, mount: &Mount, operation: Operation, asked: &Asked) -> Result<Response<Body>, Refusal> {
    let (headers, id) = (&asked.headers, asked.id.as_deref().unwrap_or_default());
    let body = asked.body.as_deref().unwrap_or_default();
    let writes = matches!(operation, Operation::GroupCreate | Operation::GroupUpdate | Operation::GroupDelete);
    if writes && !asked.principal.writes_groups {
        let text = "this client may not make, change or delete Groups";
        return Err(Refusal::new(StatusCode::FORBIDDEN, IssueType::Forbidden, text));
    }
    if !id.is_empty() && !asked.principal.sees_group(id) {
        return Err(unknown_group());
    }
    let snapshot = app.engine.snapshot_now();
    let desk = GroupDesk {
        book: &app.groups,
        snapshot: snapshot.as_ref(),
        base: &mount.url,
        bases: mount.fhir_bases(),
        limits: DocumentLimits { bytes_max: None, members_max: Some(app.config.groups.max_members as u64) },
        now: app.engine.now(),
    };
    Ok(match operation {
        Operation::GroupSearch => desk.search(asked.uri.query(), headers),
        Operation::GroupCreate => desk.create(headers, body, &super::random),
        Operation::GroupUpdate => desk.update(id, headers, body),
        Operation::GroupDelete => desk.delete(id, headers),
        Operation::GroupVersion => desk.read_version(id, asked.version.as_deref().unwrap_or_default(), headers),
        _ => desk.read(id, headers),
    })
}

/// Sends a file of a finished job (FILE).
async fn file(app: &App, mount: &Mount, asked: Asked) -> Result<Response<Body>, Refusal> {
    let id = asked.id.unwrap_or_default();
    let unknown = || Refusal::not_found("this file");
    let found = match app.engine.file(&id, mount.name) {
        Ok(found) => found.ok_or_else(unknown)?,
        Err(()) => return Err(status::expired("this file was kept until its time and is gone; ask for a new export")),
    };
    let (record, receipt) = (&found.record, &found.record.files[found.at].receipt);
    if app.authenticator.requires_access_token() && record.client != asked.principal.client {
        return Err(unknown());
    }
    if let Some(types) = &asked.principal.types
        && !types.iter().any(|of| of.name() == receipt.r#type)
    {
        let text = "this client may not fetch files of this type";
        return Err(Refusal::new(StatusCode::FORBIDDEN, IssueType::Forbidden, text));
    }
    let ended = record.ended.as_deref().and_then(crate::fhir::Instant::parse);
    let finished = ended.as_ref().and_then(system_time).unwrap_or(SystemTime::UNIX_EPOCH);
    let stored = StoredFile {
        path: found.path,
        name: receipt.file.rsplit('/').next().unwrap_or_default().to_string(),
        coding: record.request.coding,
        bytes: receipt.bytes,
        file_bytes: receipt.file_bytes,
        etag_seed: receipt.digest.as_ref().map_or(id, |digest: &Digest| digest.value.clone()),
        finished,
    };
    Ok(send(&asked.method, &asked.headers, stored).await)
}

impl Mount {
    /// The routes that are switched on.
    pub fn routes(&self) -> impl Iterator<Item = &'static Route> {
        super::routes::IG_ROUTES.iter().filter(|route| self.enabled.has(route.operation))
    }
}
