//! The table of routes that the router and the CapabilityStatement share.

use axum::http::Method;

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    SystemExport,
    PatientExport,
    GroupExport,
    JobStatus,
    JobDelete,
    File,
    GroupSearch,
    GroupCreate,
    GroupRead,
    GroupVersion,
    GroupUpdate,
    GroupDelete,
    Metadata,
    OperationDefinition,
}

/// A route, below the base of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Method; HEAD goes with GET.
    pub method: Method,
    /// Path, with `{id}` and `{version}` at most.
    pub path: &'static str,
    /// What it does.
    pub operation: Operation,
}

const fn route(method: Method, path: &'static str, operation: Operation) -> Route {
    Route { method, path, operation }
}

/// Routes of the mount of the Bulk Data IG.
pub const IG_ROUTES: &[Route] = &[
    route(Method::GET, "/$export", Operation::SystemExport),
    route(Method::GET, "/Patient/$export", Operation::PatientExport),
    route(Method::GET, "/Group/{id}/$export", Operation::GroupExport),
    route(Method::GET, "/bulk-status/{id}", Operation::JobStatus),
    route(Method::DELETE, "/bulk-status/{id}", Operation::JobDelete),
    route(Method::GET, "/bulk-files/{id}", Operation::File),
    route(Method::GET, "/Group", Operation::GroupSearch),
    route(Method::POST, "/Group", Operation::GroupCreate),
    route(Method::GET, "/Group/{id}", Operation::GroupRead),
    route(Method::GET, "/Group/{id}/_history/{version}", Operation::GroupVersion),
    route(Method::PUT, "/Group/{id}", Operation::GroupUpdate),
    route(Method::DELETE, "/Group/{id}", Operation::GroupDelete),
    route(Method::GET, "/metadata", Operation::Metadata),
    route(Method::GET, "/OperationDefinition/{id}", Operation::OperationDefinition),
];

/// What a mount has switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enabled {
    /// Export of the system.
    pub system: bool,
    /// Export of all patients.
    pub patient: bool,
    /// Export of a Group.
    pub group: bool,
    /// Whether Groups can be made, changed and deleted.
    pub groups_writable: bool,
}

impl Enabled {
    /// Whether an operation is switched on.
    pub fn has(&self, operation: Operation) -> bool {
        match operation {
            Operation::SystemExport => self.system,
            Operation::PatientExport => self.patient,
            Operation::GroupExport => self.group,
            Operation::GroupCreate | Operation::GroupUpdate | Operation::GroupDelete => self.groups_writable,
            _ => true,
        }
    }
}
