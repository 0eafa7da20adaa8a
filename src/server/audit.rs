//! The audit log: which client did what to which job, file or Group (PRIV-02).
//!
//! Each event is one line of the target `outpour::audit` with the id of its request, under which the access log has the
//! address. No line has a patient's id, a value of a query, a path of the host or anything of a resource; an id is logged
//! only if it is one of ours, or one that the client may not see. The ends of jobs are logged by the engine, refused
//! credentials by `auth`, and what pages of other sites cause by `hosts`, all under the same target.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};

use crate::fhir::id::Id;
use crate::server::auth::Principal;
use crate::server::ids::REQUEST_ID;
use crate::server::routes::Operation;

/// Most Groups of one page of a search that are named; the others are counted.
const GROUPS_NAMED_MAX: usize = 50;

/// Response extension: the Groups that an answer holds or that its request wrote.
#[derive(Clone)]
pub(crate) struct ServedGroups(pub Vec<Id>);

/// The audit log of one request: whose it is, and where.
pub(crate) struct Audit {
    request: String,
    client: String,
    tenant: String,
    mount: &'static str,
}

impl Audit {
    /// The log of the request with these headers by a principal, on a mount of a tenant.
    pub(crate) fn new(headers: &HeaderMap, principal: &Principal, tenant: &str, mount: &'static str) -> Audit {
        Audit {
            request: headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default().to_string(),
            client: principal.log_name().to_string(),
            tenant: tenant.to_string(),
            mount,
        }
    }

    /// An export was kicked off; `group` is the Group that it is of.
    pub(crate) fn kick_off(&self, job: &str, operation: Operation, group: Option<&str>) {
        let Audit { request, client, tenant, mount } = self;
        let operation = operation.name();
        tracing::info!(target: "outpour::audit", request, client, tenant, mount, job, operation, group, "a job was accepted");
    }

    /// A job was deleted.
    pub(crate) fn job_deleted(&self, job: &str) {
        let Audit { request, client, tenant, mount } = self;
        tracing::info!(target: "outpour::audit", request, client, tenant, mount, job, "a job was deleted");
    }

    /// A failed job is tried again.
    pub(crate) fn job_retried(&self, job: &str) {
        let Audit { request, client, tenant, mount } = self;
        tracing::info!(target: "outpour::audit", request, client, tenant, mount, job, "a job is tried again");
    }

    /// A file of a job was asked for, and is sent if the answer is no error: how many bytes of it, from the answer's head.
    pub(crate) fn download(&self, job: &str, file: &str, method: &Method, response: &Response<Body>) {
        let Some((status, bytes)) = sent_bytes(method, response) else { return };
        let Audit { request, client, tenant, mount } = self;
        tracing::info!(
            target: "outpour::audit", request, client, tenant, mount, job, file, status, bytes, "a file is sent"
        );
    }

    /// What a Binary holds was asked for, and is sent if the answer is no error. The id is the store's, and not logged.
    pub(crate) fn attachment(&self, method: &Method, response: &Response<Body>) {
        let Some((status, bytes)) = sent_bytes(method, response) else { return };
        let Audit { request, client, tenant, mount } = self;
        tracing::info!(target: "outpour::audit", request, client, tenant, mount, status, bytes, "an attachment is sent");
    }

    /// A Group was read, written or deleted, or Groups were searched, if the answer says so.
    pub(crate) fn group(&self, operation: Operation, response: &Response<Body>) {
        let Some(ServedGroups(groups)) = response.extensions().get() else { return };
        let Audit { request, client, tenant, mount } = self;
        let (status, found) = (response.status().as_u16(), groups.len());
        let named: Vec<&str> = groups.iter().take(GROUPS_NAMED_MAX).map(Id::as_str).collect();
        let group = named.join(" ");
        let done = match operation {
            Operation::GroupSearch => {
                tracing::info!(
                    target: "outpour::audit", request, client, tenant, mount, group, found, status, "Groups were searched"
                );
                return;
            }
            Operation::GroupCreate => "a Group was made",
            Operation::GroupUpdate => "a Group was written",
            Operation::GroupDelete => "a Group was deleted",
            _ => "a Group was read",
        };
        let version = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        tracing::info!(target: "outpour::audit", request, client, tenant, mount, group, version, status, "{done}");
    }

    /// A request is answered 403, or 404 for something that is not there or not this client's. `id` is what it asked for,
    /// if that may be logged; `by_scope` says that another token of the client could have it.
    pub(crate) fn refused(&self, operation: Operation, id: Option<&str>, status: StatusCode, by_scope: bool) {
        if !matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) {
            return;
        }
        let Audit { request, client, tenant, mount } = self;
        let (operation, status) = (operation.name(), status.as_u16());
        let reason = by_scope.then(|| tracing::field::display("InsufficientScope"));
        tracing::warn!(target: "outpour::audit", request, client, tenant, mount, operation, id, status, reason, "refused");
    }
}

/// Status of an answer with bytes of a file, and how many they are if its head says so; `None` if it is an error.
fn sent_bytes(method: &Method, response: &Response<Body>) -> Option<(u16, Option<u64>)> {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        return None;
    }
    let has_body = method == Method::GET && status != StatusCode::NOT_MODIFIED;
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let bytes: Option<u64> = if has_body { length.and_then(|value| value.parse().ok()) } else { Some(0) };
    Some((status.as_u16(), bytes))
}

/// What of a request's id the audit log may have when it is refused: an id of ours that the client may not use, or the id
/// of a Group that it may not see, whether there is one or not.
pub(crate) fn loggable_id<'i>(
    principal: &Principal,
    operation: Operation,
    id: Option<&'i str>,
    status: StatusCode,
) -> Option<&'i str> {
    use Operation::{GroupDelete, GroupExport, GroupRead, GroupUpdate, GroupVersion};
    let names_group = matches!(operation, GroupDelete | GroupExport | GroupRead | GroupUpdate | GroupVersion);
    let names_job = matches!(operation, Operation::File | Operation::Binary) || operation.is_of_job();
    let is_hidden = |id: &str| Id::parse_r4(id.as_bytes()).is_some() && !principal.sees_group(id);
    id.filter(|id| match status {
        StatusCode::FORBIDDEN => names_job || names_group,
        _ => names_group && is_hidden(id),
    })
}
