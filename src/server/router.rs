//! The router: the route tables of all mounts bound to the handlers, with the layers in front of them.
//!
//! A request passes the access log (`middleware::log_request`), the host check (`hosts::check_host`), the replacement
//! of `%24` by `$`, and the method check (`middleware::check_method`), in this order, then the routes. Nothing here
//! handles an operation.

use crate::server::error::ApiError;
use crate::server::handlers::{OriginalUri, PathParams, handle_operation, health, not_allowed, ready};
use crate::server::hosts;
use crate::server::middleware::{check_method, log_request};
use crate::server::mount::MountTable;
use crate::server::state::App;
use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::http::Method;
use axum::http::Uri;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::MethodFilter;
use axum::routing::MethodRouter;
use axum::routing::get;
use axum::routing::on;
use serde_json::json;
use std::sync::Arc;

/// The routes of all mounts, the health probes, and the layers in front of them.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/health/live", get(|| async { health(json!({ "status": "live" })) }))
        .route("/health/ready", get(ready));
    for mount_index in 0..app.mounts.len() {
        let mount = &app.mounts[mount_index];
        let mut methods_by_path: Vec<(&'static str, MethodRouter<Arc<App>>)> = Vec::new();
        for route in mount.routes() {
            let filter = MethodFilter::try_from(route.method.clone()).expect("a table of known methods");
            let operation = route.operation;
            let handler = move |app: State<Arc<App>>, path_params: PathParams, request: Request| async move {
                match path_params {
                    Ok(path_params) => handle_operation(app.0, mount_index, operation, path_params.0, request).await,
                    // No id and no name here is anything but UTF-8.
                    Err(_) => ApiError::not_found("this URL").into_response(),
                }
            };
            match methods_by_path.iter_mut().find(|(path, _)| *path == route.path) {
                Some((_, methods)) => *methods = std::mem::take(methods).on(filter, handler),
                None => methods_by_path.push((route.path, on(filter, handler))),
            }
        }
        for (path, methods) in methods_by_path {
            router = router.route(&format!("{}{path}", mount.base), methods);
        }
    }
    let (mount_table, hosts) = (Arc::new(MountTable::of(&app.config)), app.hosts.clone());
    let router = router
        .fallback(|| async { ApiError::not_found("this URL") })
        .method_not_allowed_fallback(|method: Method| async move { not_allowed(&method) })
        .with_state(app);
    // Layers run from the last one added to the first; the routes match the path with a plain `$`.
    let gated =
        Router::new().fallback_service(router).layer(middleware::from_fn_with_state(mount_table.clone(), check_method));
    let plain = tower::ServiceBuilder::new().map_request(plain_path).service(gated);
    let host_checked =
        Router::new().fallback_service(plain).layer(middleware::from_fn_with_state(hosts, hosts::check_host));
    host_checked.layer(middleware::from_fn_with_state(mount_table, log_request))
}

/// Replaces `%24` in the path of a request by `$`, and keeps the received URI as [`OriginalUri`].
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
    request.extensions_mut().insert(OriginalUri(received));
    request
}
