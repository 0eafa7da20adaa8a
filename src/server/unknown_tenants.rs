//! Answers below the base of a tenant that is not there: those that a client gets below the base of a tenant that it may
//! not ask for, so that no answer tells which tenants there are (ONEUP-M01).
//!
//! Each mount that stands once for each tenant has these routes besides, with the tenant's name as a parameter; a path with
//! the name of a tenant never comes here. What needs no credentials is answered as everywhere: it is the same for all
//! names.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::Response;
use axum::response::IntoResponse;

use crate::server::auth::{MountAuth, unknown_tenant};
use crate::server::config::mounts::Authorization;
use crate::server::connection::request_tracker::Peer;
use crate::server::error::ApiError;
use crate::server::handlers::answer_description;
use crate::server::middleware::check_method_of;
use crate::server::mount::UnknownTenantMount;
use crate::server::routes::Operation;
use crate::server::state::App;

/// Handles a request for `operation` below such a mount; `id` is the path parameter of a description. The response carries
/// the operation as an extension for the access log.
pub(crate) async fn handle_unknown_tenant(
    app: Arc<App>,
    unknown: &UnknownTenantMount,
    operation: Operation,
    id: Option<&str>,
    request: Request,
) -> Response<Body> {
    let answered = answer(&app, unknown, operation, id, request).await;
    let mut response = answered.unwrap_or_else(ApiError::into_response);
    response.extensions_mut().insert(operation);
    response
}

/// As [`handle_unknown_tenant`].
///
/// # Errors
/// 401 without a valid credential, 404 with one, and what is refused of a request wherever it is sent.
async fn answer(
    app: &App,
    unknown: &UnknownTenantMount,
    operation: Operation,
    id: Option<&str>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let (parts, _) = request.into_parts();
    let Some(mount) = unknown.named_in(parts.uri.path()) else { return Err(ApiError::not_found("this URL")) };
    check_method_of(mount.routes(), operation, &parts)?;
    if operation.is_description() {
        return answer_description(app, &mount, operation, id, &parts.headers, parts.uri.query());
    }
    let accepts = |method| mount.settings.authorization.contains(&method);
    let mount_auth = MountAuth {
        tenant: None,
        names_tenant: true,
        bearer: accepts(Authorization::Bearer),
        client_headers: accepts(Authorization::ClientHeaders),
    };
    app.authenticator.authenticate(mount_auth, &parts.headers, parts.extensions.get::<Peer>()).await?;
    Err(unknown_tenant())
}
