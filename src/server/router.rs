//! The router: each mount's table of routes bound to the handlers, and the layers before them.

use crate::server::error::ApiError;
use crate::server::handlers::{OriginalUri, PathParams, handle_operation, health, not_allowed, ready};
use crate::server::hosts;
use crate::server::middleware::{MountTable, check_method, log_request};
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

/// The routes of all mounts, and those that belong to none.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/health/live", get(|| async { health(json!({ "status": "live" })) }))
        .route("/health/ready", get(ready));
    for i in 0..app.mounts.len() {
        let mount = &app.mounts[i];
        let mut inner: Vec<(&'static str, MethodRouter<Arc<App>>)> = Vec::new();
        for route in mount.routes() {
            let filter = MethodFilter::try_from(route.method.clone()).expect("a table of known methods");
            let operation = route.operation;
            let handler = move |app: State<Arc<App>>, names: PathParams, request: Request| async move {
                match names {
                    Ok(names) => handle_operation(app.0, i, operation, names.0, request).await,
                    // A name that is no text in UTF-8 is nobody's.
                    Err(_) => ApiError::not_found("this URL").into_response(),
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
    let (places, hosts) = (Arc::new(MountTable::of(&app.config)), app.hosts.clone());
    let router = router
        .fallback(|| async { ApiError::not_found("this URL") })
        .method_not_allowed_fallback(|method: Method| async move { not_allowed(&method) })
        .with_state(app);
    // Routes are found by the path with `$` written plainly; what was received is remembered.
    let gated =
        Router::new().fallback_service(router).layer(middleware::from_fn_with_state(places.clone(), check_method));
    let plain = tower::ServiceBuilder::new().map_request(plain_path).service(gated);
    let answered =
        Router::new().fallback_service(plain).layer(middleware::from_fn_with_state(hosts, hosts::check_host));
    answered.layer(middleware::from_fn_with_state(places, log_request))
}

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
