//! Whether the filters of a Group may be evaluated for a kick-off: what they search must be open to the Group's writer and to
//! whoever exports it (COHORT-05).
//!
//! Who is in such a Group tells something of what its filters search. The configuration at kick-off decides, whatever it was
//! when the Group was written.

use axum::http::StatusCode;

use crate::fhir::resource_type::ResourceType;
use crate::group::reader::GroupHead;
use crate::group::registry::view::GroupLookup;
use crate::issue::IssueCode;
use crate::job::record::RecordedScope;
use crate::select::member_filters::{UNBOUND_WRITER, UNKNOWN_WRITER};
use crate::server::auth::{Authenticator, Principal};
use crate::server::error::ApiError;

/// Checks the types that the filters of a Group search, and returns them, sorted. A Group of the store is the operator's, who may
/// search all.
///
/// # Errors
/// 403 naming each type that the client, or the Group's writer, may not export; 403 if there are filters, and the writer is not
/// recorded.
pub(crate) fn check_filter_rights(
    head: &GroupHead,
    found: &GroupLookup,
    principal: &Principal,
    authenticator: &dyn Authenticator,
    tenant: &str,
    id: &str,
) -> Result<Vec<ResourceType>, ApiError> {
    let searched = head.filters.searched_types();
    if head.filters.is_empty() {
        return Ok(searched);
    }
    principal.check_filters(&format!("Group/{id}"), &searched)?;
    if let GroupLookup::Registered(group) = found {
        let writer = group.writer().ok_or_else(|| forbidden(id, UNKNOWN_WRITER))?;
        let may_search = |of: &&ResourceType| authenticator.may_filter_by(tenant, &writer.client, **of);
        let denied: Vec<&str> = searched.iter().filter(|of| !may_search(of)).map(|of| of.name()).collect();
        if !denied.is_empty() {
            let text = format!("has a member-filter of {}, which its writer may not export", denied.join(", "));
            return Err(forbidden(id, &text));
        }
    }
    Ok(searched)
}

/// Checks that it is known whom the writer of a filtered Group without members may access; `scope` is the writer's, if it is
/// bound to Groups.
///
/// # Errors
/// 403 if it is bound and may name anybody.
pub(crate) fn check_filter_scope(head: &GroupHead, scope: Option<&RecordedScope>, id: &str) -> Result<(), ApiError> {
    let is_open = !head.filters.is_empty() && !head.has_member;
    match scope {
        Some(scope) if is_open && scope.patients_of.is_none() => Err(forbidden(id, UNBOUND_WRITER)),
        _ => Ok(()),
    }
}

/// 403 for a Group of which something is to be said.
fn forbidden(id: &str, text: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, IssueCode::Forbidden, format!("Group/{id} {text}"))
}
