//! The router: the route tables of all mounts bound to the handlers, with the layers in front of them.
//!
//! A request passes the normalisation of its path (`request_path`), the choice of the media type of errors
//! (`middleware::name_error_type`), the access log (`middleware::log_request`), the shares of answers in progress
//! (`admission::admit`), the host check (`hosts::check_host`) and
//! the method check (`middleware::check_method`), in this order, then the routes. So all of them see one form of the path. Nothing here handles an operation.

use crate::server::admission::admit;
use crate::server::error::ApiError;
use crate::server::handlers::{PathParams, handle_operation, health, not_allowed, overview, ready};
use crate::server::hosts;
use crate::server::middleware::{check_method, log_request, name_error_type};
use crate::server::mount::MountTable;
use crate::server::request_path::normalise_path;
use crate::server::state::App;
use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::http::Method;
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
        .route("/health/ready", get(ready))
        .route("/", get(overview));
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
            let path = format!("{}{path}", mount.base);
            router = router.route(path.trim_end_matches('/'), methods);
        }
    }
    let (mount_table, hosts) = (Arc::new(MountTable::of(&app.config)), app.hosts.clone());
    let admission = app.admission.clone();
    let router = router
        .fallback(|| async { ApiError::not_found("this URL") })
        .method_not_allowed_fallback(|method: Method| async move { not_allowed(&method) })
        .with_state(app);
    // Layers run from the last one added to the first.
    let gated =
        Router::new().fallback_service(router).layer(middleware::from_fn_with_state(mount_table.clone(), check_method));
    let host_checked =
        Router::new().fallback_service(gated).layer(middleware::from_fn_with_state(hosts, hosts::check_host));
    let logged = host_checked
        .layer(middleware::from_fn_with_state(admission, admit))
        .layer(middleware::from_fn_with_state(mount_table, log_request))
        .layer(middleware::from_fn(name_error_type));
    // A layer that changes the path must be a service of its own: those of a router run behind its routing.
    let normalised = tower::ServiceBuilder::new().map_request(normalise_path).service(logged);
    Router::new().fallback_service(normalised)
}
