//! `/admin/v1`: jobs of all clients and the state of the service, as JSON, for who operates it. A Unix socket in the data directory
//! of each tenant answers for that tenant; who may open the socket may ask everything, and nobody else can reach it.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::job::state::JobState;
use crate::server::state::{App, Tenant};
use crate::sys::directory::Directory;
use crate::sys::unix_socket::bind_private;

/// Name of the socket in the data directory of a tenant.
pub(crate) const SOCKET: &str = "admin.sock";

/// The admin interfaces of a running service. Dropped, they answer no more, and their sockets are gone.
pub(crate) struct AdminSockets(Vec<(JoinHandle<()>, Directory)>);

impl AdminSockets {
    /// Opens the socket of each tenant. One that cannot be opened is said in the log, and the service goes on without it.
    pub(crate) fn open(app: &Arc<App>, started: Instant) -> AdminSockets {
        let tenants = app.config.all_tenants().into_iter().enumerate();
        let opened = tenants.filter_map(|(tenant, settings)| {
            let directory = Directory::open(&settings.data.path);
            let bound = directory.and_then(|directory| {
                let listener = bind_private(&directory, SOCKET)?;
                listener.set_nonblocking(true)?;
                Ok((UnixListener::from_std(listener)?, directory))
            });
            match bound {
                Ok((listener, directory)) => {
                    let routes = routes(AdminState { app: app.clone(), tenant, started });
                    let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });
                    Some((serving, directory))
                }
                Err(error) => {
                    let path = settings.data.path.join(SOCKET);
                    tracing::warn!(
                        path = %path.display(), %error,
                        "the admin interface is off: `outpour jobs` sees what the records say, and removes nothing while this \
                         service runs; give a shorter data directory, or one on a file system that has sockets"
                    );
                    None
                }
            }
        });
        AdminSockets(opened.collect())
    }
}

impl Drop for AdminSockets {
    fn drop(&mut self) {
        for (serving, directory) in &self.0 {
            serving.abort();
            // One that stays is replaced at the next start.
            directory.remove_file(SOCKET).ok();
        }
    }
}

/// What the handlers of one socket share.
#[derive(Clone)]
struct AdminState {
    app: Arc<App>,
    /// The tenant that the socket is of, by its place.
    tenant: usize,
    /// When the service started.
    started: Instant,
}

impl AdminState {
    fn tenant(&self) -> &Tenant {
        &self.app.tenants[self.tenant]
    }
}

/// The routes of one socket.
fn routes(state: AdminState) -> Router {
    Router::new()
        .route("/admin/v1/service", get(service))
        .route("/admin/v1/jobs", get(jobs))
        .route("/admin/v1/jobs/{id}", get(job).delete(remove_job))
        .fallback(async || {
            problem(StatusCode::NOT_FOUND, "there is nothing at this path: see /admin/v1/jobs and /admin/v1/service")
        })
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "this path takes GET, and that of a job DELETE")
        })
        .with_state(state)
}

/// An answer of one JSON document.
fn answer(status: StatusCode, document: &Value) -> Response {
    let text = serde_json::to_vec(document).expect("a document is plain data");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// An answer that says what is wrong.
fn problem(status: StatusCode, text: &str) -> Response {
    answer(status, &json!({ "problem": text }))
}

/// 404 for a job.
fn no_such_job() -> Response {
    problem(StatusCode::NOT_FOUND, "there is no such job: /admin/v1/jobs lists those that are there")
}

/// Version, times, store, mounts and counts.
async fn service(State(state): State<AdminState>) -> Response {
    let tenant = state.tenant();
    let mounts = state.app.mounts.iter().filter(|mount| mount.tenant == state.tenant);
    let mounts: Vec<Value> = mounts.map(|mount| json!({ "mount": mount.name(), "url": mount.url })).collect();
    let jobs = tenant.engine.job_overviews();
    let count = |of: JobState| jobs.iter().filter(|job| job.state == of).count();
    let store = tenant.engine.store();
    let document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeSeconds": state.started.elapsed().as_secs(),
        "publicUrl": state.app.public_url,
        "tenant": tenant.name,
        "store": store.root().to_string_lossy(),
        "indexDir": store.index_dir().to_string_lossy(),
        "ready": tenant.ready.load(std::sync::atomic::Ordering::Relaxed) && tenant.engine.store_refusal().is_none(),
        "mounts": mounts,
        "jobs": {
            "queued": count(JobState::Queued),
            "running": count(JobState::Running),
            "complete": count(JobState::Complete),
            "failed": count(JobState::Failed),
            "expired": count(JobState::Expired),
        },
    });
    answer(StatusCode::OK, &document)
}

/// All jobs of the tenant, by time of kick-off.
async fn jobs(State(state): State<AdminState>) -> Response {
    let tenant = state.tenant();
    answer(StatusCode::OK, &json!({ "tenant": tenant.name, "jobs": tenant.engine.job_overviews() }))
}

/// One job.
async fn job(State(state): State<AdminState>, Path(id): Path<String>) -> Response {
    match state.tenant().engine.job_overview(&id) {
        Some(job) => answer(StatusCode::OK, &json!(job)),
        None => no_such_job(),
    }
}

/// Cancels a job or deletes its files: 202, as DELETE of its status URL.
async fn remove_job(State(state): State<AdminState>, Path(id): Path<String>) -> Response {
    let removed = tokio::task::spawn_blocking({
        let (state, id) = (state.clone(), id.clone());
        move || state.tenant().engine.remove_job(&id)
    });
    match removed.await {
        Ok(Ok(true)) => {
            tracing::info!(
                target: "outpour::audit", job = id, tenant = state.tenant().name, "a job was deleted by the operator"
            );
            answer(StatusCode::ACCEPTED, &json!({ "removed": id }))
        }
        Ok(Ok(false)) => no_such_job(),
        Ok(Err(error)) => {
            tracing::error!(job = id, %error, "the record of a job cannot be removed");
            problem(StatusCode::SERVICE_UNAVAILABLE, &format!("the record of the job cannot be removed: {error}"))
        }
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the service failed at this request: its log says how"),
    }
}
