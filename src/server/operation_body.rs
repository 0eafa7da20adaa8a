//! The body of an authenticated request, for the operations that take one. What its sender may not do is refused before a
//! byte of it is read.

use crate::server::auth::Principal;
use crate::server::error::ApiError;
use crate::server::groups::request::{check_content_coding, check_content_type};
use crate::server::kick_off::request::Level;
use crate::server::mount::Mount;
use crate::server::request_body::{BodyLimits, RequestBody, read_body};
use crate::server::routes::Operation;
use crate::server::state::App;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use axum::http::request::Parts;

/// Bytes of memory that the parameters of a body take for each of its bytes, at most: 180 for an entry of 60, say.
const PARAMETERS_GROWTH: u64 = 3;
/// Most bytes of memory that the parameters of a body take: their number is bounded.
const PARAMETERS_BYTES_MAX: u64 = 48 << 20;

/// Reads the body of a request for `operation` of the mount number `mount_index`; `id` is the path parameter, empty if there
/// is none. `None` for an operation that takes no body.
///
/// # Errors
/// 403 or 404 for what the principal may not do, 415 for a body that is no JSON or is coded, those of [`read_body`].
pub(crate) async fn read_operation_body(
    app: &Arc<App>,
    mount_index: usize,
    operation: Operation,
    id: &str,
    principal: &Principal,
    parts: &Parts,
    body: Body,
) -> Result<Option<RequestBody>, ApiError> {
    let what = match operation {
        Operation::GroupCreate | Operation::GroupUpdate => {
            principal.check_group(operation, id)?;
            "a Group"
        }
        _ if operation.is_export() && parts.method == Method::POST => {
            principal.check_level(&export_level(&app.mounts[mount_index], operation, principal, id))?;
            "a Parameters resource"
        }
        _ => return Ok(None),
    };
    check_content_type(&parts.headers, what)?;
    check_content_coding(&parts.headers, what)?;
    let limits = BodyLimits {
        bytes_max: app.config.limits.body_bytes,
        whole_wait: Duration::from_secs(app.config.limits.whole_body_seconds),
    };
    let (service, place) = (app.clone(), parts.extensions.get());
    let new_file =
        move || service.tenant(&service.mounts[mount_index]).groups.create_body_file(crate::server::ids::random());
    let read = read_body(body, limits, place, new_file).await?;
    if let Some(place) = place.filter(|_| operation.is_export()) {
        place.hold_request_bytes((read.len() as u64 * PARAMETERS_GROWTH).min(PARAMETERS_BYTES_MAX))?;
    }
    Ok(Some(read))
}

/// The level of a kick-off at a route; `id` is the path parameter.
pub(crate) fn export_level(mount: &Mount, operation: Operation, principal: &Principal, id: &str) -> Level {
    match (operation, &principal.patient) {
        (Operation::SystemExport, Some(patient)) if mount.dialect.user_exports => Level::User(patient.clone()),
        (Operation::SystemExport, _) => Level::System,
        (Operation::PatientExport | Operation::TypeExport, _) => Level::Patient,
        _ => Level::Group(id.to_string()),
    }
}
