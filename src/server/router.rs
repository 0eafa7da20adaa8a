//! The router: the route tables of all mounts bound to the handlers, with the layers in front of them.
//!
//! A request passes the normalisation of its path (`request_path`), the security headers of its answer
//! (`middleware::add_security_headers`), the form of errors at the token endpoint (`smart::oauth_error`), the choice of the
//! media type of other errors (`middleware::name_error_type`), the access log (`middleware::log_request`), the shares of answers in progress
//! (`admission::admit`), the host check (`hosts::check_host`) and
//! the method check (`middleware::check_method`), in this order, then the routes. So all of them see one form of the path. Nothing here handles an operation.

use crate::server::admission::admit;
use crate::server::connection::catch_panics;
use crate::server::error::ApiError;
use crate::server::handlers::{PathParams, handle_operation, overview};
use crate::server::health::{health, ready};
use crate::server::hosts;
use crate::server::middleware::{add_security_headers, check_method, log_request, name_error_type, not_allowed};
use crate::server::mount::MountTable;
use crate::server::request_path::normalise_path;
use crate::server::routes::{Operation, Route};
use crate::server::smart::discovery::{DISCOVERY_PATH, TOKEN_PATH};
use crate::server::smart::oauth_error::word_as_oauth_error;
use crate::server::smart::token_endpoint::{handle_token_request, smart_configuration};
use crate::server::state::App;
use crate::server::unknown_tenants::handle_unknown_tenant;
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
use axum::routing::post;
use serde_json::json;
use std::sync::Arc;

/// Adds the routes of a table below a base, each with its handler.
fn add_routes<'r>(
    mut router: Router<Arc<App>>,
    base: &str,
    routes: impl Iterator<Item = &'r Route>,
    handler: impl Fn(Operation, MethodFilter) -> MethodRouter<Arc<App>>,
) -> Router<Arc<App>> {
    let mut methods_by_path: Vec<(&'static str, MethodRouter<Arc<App>>)> = Vec::new();
    for route in routes {
        let filter = MethodFilter::try_from(route.method.clone()).expect("a table of known methods");
        let methods = handler(route.operation, filter);
        match methods_by_path.iter_mut().find(|(path, _)| *path == route.path) {
            Some((_, known)) => *known = std::mem::take(known).merge(methods),
            None => methods_by_path.push((route.path, methods)),
        }
    }
    for (path, methods) in methods_by_path {
        let path = format!("{base}{path}");
        router = router.route(path.trim_end_matches('/'), methods);
    }
    router
}

/// The routes of all mounts, the health probes, and the layers in front of them.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/health/live", get(|| async { health(json!({ "status": "live" })) }))
        .route("/health/ready", get(ready))
        .route("/", get(overview))
        .route(DISCOVERY_PATH, get(smart_configuration))
        .route(TOKEN_PATH, post(handle_token_request));
    for mount_index in 0..app.mounts.len() {
        let mount = &app.mounts[mount_index];
        let handler = |operation: Operation| {
            move |app: State<Arc<App>>, path_params: PathParams, request: Request| async move {
                match path_params {
                    Ok(path_params) => handle_operation(app.0, mount_index, operation, path_params.0, request).await,
                    // No id and no name here is anything but UTF-8.
                    Err(_) => ApiError::not_found("this URL").into_response(),
                }
            }
        };
        router = add_routes(router, &mount.base, mount.routes(), |operation, filter| on(filter, handler(operation)));
    }
    let mount_table = Arc::new(MountTable::of(&app.config));
    for index in 0..app.unknown_tenants.len() {
        let unknown = &app.unknown_tenants[index];
        let handler = |operation: Operation| {
            let mount_table = mount_table.clone();
            move |app: State<Arc<App>>, path_params: PathParams, request: Request| async move {
                let app = app.0;
                let unknown = &app.unknown_tenants[index];
                // A name that another mount begins with is that mount's.
                let found = mount_table.find(request.uri().path());
                match path_params {
                    Ok(path_params) if found.is_some_and(|(dialect, _)| dialect.name == unknown.name()) => {
                        let id = path_params.0.get("id").map(String::as_str);
                        handle_unknown_tenant(app.clone(), unknown, operation, id, request).await
                    }
                    _ => ApiError::not_found("this URL").into_response(),
                }
            }
        };
        router =
            add_routes(router, unknown.base(), unknown.routes(), |operation, filter| on(filter, handler(operation)));
    }
    let is_secure_url = app.public_url.starts_with("https://");
    let hosts = app.hosts.clone();
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
    // A handler that panics has an answer in the access log as well.
    let logged = host_checked
        .layer(catch_panics())
        .layer(middleware::from_fn_with_state(admission, admit))
        .layer(middleware::from_fn_with_state(mount_table, log_request))
        .layer(middleware::from_fn(name_error_type))
        .layer(middleware::from_fn(word_as_oauth_error))
        .layer(middleware::from_fn_with_state(is_secure_url, add_security_headers));
    // A layer that changes the path must be a service of its own: those of a router run behind its routing.
    let normalised = tower::ServiceBuilder::new().map_request(normalise_path).service(logged);
    Router::new().fallback_service(normalised)
}
