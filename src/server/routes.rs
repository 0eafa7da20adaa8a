//! Route tables: the operation of each method and path below a mount's base, one table for each dialect.
//!
//! The router, the CapabilityStatement and the OperationDefinitions read the same tables. Nothing here handles a
//! request.

use axum::http::Method;

use crate::server::smart::discovery::DISCOVERY_PATH;

/// The operation that a route performs.
#[allow(clippy::enum_variant_names, reason = "OperationDefinition is the name of a resource")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// Kick-off for everything in the store (KICK-01).
    SystemExport,
    /// Kick-off for all patients (KICK-02).
    PatientExport,
    /// Kick-off for the members of a Group (KICK-03).
    GroupExport,
    /// Kick-off for one type of all patients' records (ONEUP-M06).
    TypeExport,
    /// Status of a job, with the manifest once it is complete.
    JobStatus,
    /// Queue a failed job again (ONEUP-M05).
    JobRetry,
    /// Cancel a running job, or delete the files of a finished one.
    JobDelete,
    /// Download of a file of an export.
    File,
    /// A small file of an export as a Binary resource (NETSMART-G10).
    Binary,
    /// Download of what a Binary of the store holds (ATTACH-02).
    Attachment,
    /// Search for Groups (GROUP-01).
    GroupSearch,
    /// Create a Group under an id that the service chooses.
    GroupCreate,
    /// Read the current version of a Group (GROUP-01).
    GroupRead,
    /// Read a Group by version id; only the current version is kept.
    GroupVersion,
    /// Create or replace a Group under the id of the path.
    GroupUpdate,
    /// Delete a Group by id.
    GroupDelete,
    /// Ask where things are, at a base or at the root.
    Overview,
    /// Read the CapabilityStatement (CAP-01).
    Metadata,
    /// Read an OperationDefinition (CAP-09).
    OperationDefinition,
    /// Ask where tokens are asked for (AUTH-02).
    SmartConfiguration,
    /// Ask for an access token (AUTH-04); at the root, of no mount.
    Token,
}

impl Operation {
    /// Name of the operation in the access log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Operation::SystemExport => "SystemExport",
            Operation::PatientExport => "PatientExport",
            Operation::GroupExport => "GroupExport",
            Operation::TypeExport => "TypeExport",
            Operation::JobStatus => "JobStatus",
            Operation::JobRetry => "JobRetry",
            Operation::JobDelete => "JobDelete",
            Operation::File => "File",
            Operation::Binary => "Binary",
            Operation::Attachment => "Attachment",
            Operation::GroupSearch => "GroupSearch",
            Operation::GroupCreate => "GroupCreate",
            Operation::GroupRead => "GroupRead",
            Operation::GroupVersion => "GroupVersion",
            Operation::GroupUpdate => "GroupUpdate",
            Operation::GroupDelete => "GroupDelete",
            Operation::Overview => "Overview",
            Operation::Metadata => "Metadata",
            Operation::OperationDefinition => "OperationDefinition",
            Operation::SmartConfiguration => "SmartConfiguration",
            Operation::Token => "Token",
        }
    }

    /// Whether the operation kicks off an export.
    pub(crate) fn is_export(self) -> bool {
        use Operation::{GroupExport, PatientExport, SystemExport, TypeExport};
        matches!(self, SystemExport | PatientExport | GroupExport | TypeExport)
    }

    /// Whether the operation is on a job.
    pub(crate) fn is_of_job(self) -> bool {
        matches!(self, Operation::JobStatus | Operation::JobDelete | Operation::JobRetry)
    }

    /// Whether the operation describes the service, which everybody may ask for (CAP-01).
    pub(crate) fn is_description(self) -> bool {
        use Operation::{Metadata, OperationDefinition, Overview, SmartConfiguration};
        matches!(self, Overview | Metadata | OperationDefinition | SmartConfiguration)
    }

    /// Resource type and code of the FHIR REST interaction
    /// (<https://hl7.org/fhir/R4/valueset-type-restful-interaction.html>); `None` for kick-offs, jobs, files and
    /// metadata.
    pub(crate) fn interaction(self) -> Option<(&'static str, &'static str)> {
        match self {
            Operation::GroupSearch => Some(("Group", "search-type")),
            Operation::GroupCreate => Some(("Group", "create")),
            Operation::GroupRead => Some(("Group", "read")),
            Operation::GroupVersion => Some(("Group", "vread")),
            Operation::GroupUpdate => Some(("Group", "update")),
            Operation::GroupDelete => Some(("Group", "delete")),
            Operation::Binary => Some(("Binary", "read")),
            Operation::OperationDefinition => Some(("OperationDefinition", "read")),
            _ => None,
        }
    }
}

/// The operations that a mount has switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Enabled {
    /// Export of the whole system.
    pub system: bool,
    /// Export of all patients.
    pub patient: bool,
    /// Export of Groups, and reading them.
    pub group: bool,
    /// Searching Groups; only where `group` is on.
    pub groups_searchable: bool,
    /// Making, changing and deleting Groups; only where `group` is on.
    pub groups_writable: bool,
}

impl Enabled {
    /// Whether `operation` is switched on. Status, deletion and files always are: jobs outlive a level that is
    /// switched off.
    pub(crate) fn has(&self, operation: Operation) -> bool {
        match operation {
            Operation::SystemExport => self.system,
            Operation::PatientExport | Operation::TypeExport => self.patient,
            Operation::GroupExport | Operation::GroupRead | Operation::GroupVersion => self.group,
            Operation::GroupSearch => self.group && self.groups_searchable,
            Operation::GroupCreate | Operation::GroupUpdate | Operation::GroupDelete => {
                self.group && self.groups_writable
            }
            Operation::JobStatus | Operation::JobRetry | Operation::JobDelete => true,
            Operation::File | Operation::Binary | Operation::Attachment => true,
            Operation::Overview | Operation::Metadata | Operation::OperationDefinition => true,
            Operation::SmartConfiguration | Operation::Token => true,
        }
    }
}

/// One method at one path, and its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// HTTP method. GET includes HEAD, which the handler refuses for kick-offs because it must not start a job.
    pub method: Method,
    /// Path below the mount's base, in the syntax of axum, with a plain `$` (CORE-07); `/` is the base itself. `{id}` and
    /// `{version}` are the only parameters, one segment each.
    pub path: &'static str,
    /// The operation that a request at this route performs.
    pub operation: Operation,
}

/// A row of a route table.
const fn route(method: Method, path: &'static str, operation: Operation) -> Route {
    Route { method, path, operation }
}

/// Routes of the Bulk Data IG (DIALECT-02).
pub(crate) const IG_ROUTES: &[Route] = &[
    route(Method::GET, "/$export", Operation::SystemExport),
    route(Method::POST, "/$export", Operation::SystemExport),
    route(Method::GET, "/Patient/$export", Operation::PatientExport),
    route(Method::POST, "/Patient/$export", Operation::PatientExport),
    route(Method::GET, "/Group/{id}/$export", Operation::GroupExport),
    route(Method::POST, "/Group/{id}/$export", Operation::GroupExport),
    route(Method::GET, "/bulk-status/{id}", Operation::JobStatus),
    route(Method::DELETE, "/bulk-status/{id}", Operation::JobDelete),
    route(Method::GET, "/bulk-files/{id}", Operation::File),
    route(Method::GET, "/attachment/{id}", Operation::Attachment),
    route(Method::GET, "/Group", Operation::GroupSearch),
    route(Method::POST, "/Group", Operation::GroupCreate),
    route(Method::GET, "/Group/{id}", Operation::GroupRead),
    route(Method::GET, "/Group/{id}/_history/{version}", Operation::GroupVersion),
    route(Method::PUT, "/Group/{id}", Operation::GroupUpdate),
    route(Method::DELETE, "/Group/{id}", Operation::GroupDelete),
    route(Method::GET, "/", Operation::Overview),
    route(Method::GET, "/metadata", Operation::Metadata),
    route(Method::GET, DISCOVERY_PATH, Operation::SmartConfiguration),
    route(Method::GET, "/OperationDefinition/{id}", Operation::OperationDefinition),
];

/// Routes of Netsmart (NETSMART-G07). A job is named in the path or by `_id`: Netsmart's pages show both (C-09).
pub(crate) const NETSMART_ROUTES: &[Route] = &[
    route(Method::GET, "/$export", Operation::SystemExport),
    route(Method::GET, "/Patient/$export", Operation::PatientExport),
    route(Method::GET, "/Group/{id}/$export", Operation::GroupExport),
    route(Method::GET, "/$export-poll-status", Operation::JobStatus),
    route(Method::GET, "/$export-poll-status/{id}", Operation::JobStatus),
    route(Method::DELETE, "/$export-poll-status", Operation::JobDelete),
    route(Method::DELETE, "/$export-poll-status/{id}", Operation::JobDelete),
    route(Method::GET, "/Binary/{id}/$binary-access-read", Operation::File),
    route(Method::GET, "/Binary/{id}", Operation::Binary),
    route(Method::GET, "/Group", Operation::GroupSearch),
    route(Method::GET, "/Group/{id}", Operation::GroupRead),
    route(Method::GET, "/", Operation::Overview),
    route(Method::GET, "/metadata", Operation::Metadata),
    route(Method::GET, DISCOVERY_PATH, Operation::SmartConfiguration),
    route(Method::GET, "/OperationDefinition/{id}", Operation::OperationDefinition),
];

/// Routes of 1upHealth's single-tenant environment (ONEUP-S01, ONEUP-S02, ONEUP-S11, ONEUP-S17). It has no DELETE
/// (C-04).
pub(crate) const ONEUP_STE_ROUTES: &[Route] = &[
    route(Method::GET, "/$export", Operation::SystemExport),
    route(Method::GET, "/Group/{id}/$export", Operation::GroupExport),
    route(Method::GET, "/$export/job/{id}", Operation::JobStatus),
    route(Method::GET, "/$export/file/{id}", Operation::File),
    route(Method::GET, "/attachment/{id}", Operation::Attachment),
    route(Method::GET, "/Group", Operation::GroupSearch),
    route(Method::POST, "/Group", Operation::GroupCreate),
    route(Method::GET, "/Group/{id}", Operation::GroupRead),
    route(Method::GET, "/", Operation::Overview),
    route(Method::GET, "/metadata", Operation::Metadata),
    route(Method::GET, DISCOVERY_PATH, Operation::SmartConfiguration),
    route(Method::GET, "/OperationDefinition/{id}", Operation::OperationDefinition),
];

/// Routes of 1upHealth's multi-tenant environment (ONEUP-M02, ONEUP-M05, ONEUP-M06, ONEUP-M16, ONEUP-M18): `$export`
/// without a Group exports all patients.
pub(crate) const ONEUP_MTE_ROUTES: &[Route] = &[
    route(Method::GET, "/$export", Operation::PatientExport),
    route(Method::GET, "/Group/{id}/$export", Operation::GroupExport),
    route(Method::GET, "/$export/job/{id}", Operation::JobStatus),
    route(Method::PUT, "/$export/job/{id}", Operation::JobRetry),
    route(Method::GET, "/$export/file/{id}", Operation::File),
    route(Method::GET, "/attachment/{id}", Operation::Attachment),
    route(Method::GET, "/Group", Operation::GroupSearch),
    route(Method::GET, "/Group/{id}", Operation::GroupRead),
    route(Method::GET, "/", Operation::Overview),
    route(Method::GET, "/metadata", Operation::Metadata),
    route(Method::GET, DISCOVERY_PATH, Operation::SmartConfiguration),
    route(Method::GET, "/OperationDefinition/{id}", Operation::OperationDefinition),
    route(Method::GET, "/{id}", Operation::TypeExport),
];

/// The routes of a table whose operations are switched on.
pub(crate) fn routes_on<'a>(table: &'a [Route], enabled: &Enabled) -> impl Iterator<Item = &'a Route> {
    table.iter().filter(move |route| enabled.has(route.operation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use axum::routing::{MethodFilter, on};
    use std::collections::HashSet;
    use tower::Service;

    const ALL: Enabled =
        Enabled { system: true, patient: true, group: true, groups_searchable: true, groups_writable: true };

    fn router(enabled: &Enabled) -> Router {
        let mut router = Router::new();
        for route in routes_on(IG_ROUTES, enabled) {
            let filter = MethodFilter::try_from(route.method.clone()).unwrap();
            let operation = route.operation;
            router = router.route(route.path, on(filter, move || async move { operation.name() }));
        }
        Router::new().nest("/fhir", router)
    }

    async fn ask(router: &mut Router, method: &str, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router.call(request).await.unwrap();
        let status = response.status();
        (status, String::from_utf8(to_bytes(response.into_body(), 1000).await.unwrap().to_vec()).unwrap())
    }

    /// KICK-04: GET at all three levels; axum accepts the tables unchanged.
    #[tokio::test]
    async fn a_router_takes_the_table() {
        let mut router = router(&ALL);
        for (method, path, operation) in [
            ("GET", "/fhir/$export", "SystemExport"),
            ("GET", "/fhir/Patient/$export?_type=Patient", "PatientExport"),
            ("GET", "/fhir/Group/a.b-c/$export", "GroupExport"),
            ("GET", "/fhir/bulk-status/0", "JobStatus"),
            ("DELETE", "/fhir/bulk-status/0", "JobDelete"),
            ("GET", "/fhir/bulk-files/0", "File"),
            ("GET", "/fhir/Group?name=a", "GroupSearch"),
            ("POST", "/fhir/Group", "GroupCreate"),
            ("GET", "/fhir/Group/a", "GroupRead"),
            ("GET", "/fhir/Group/a/_history/1", "GroupVersion"),
            ("PUT", "/fhir/Group/a", "GroupUpdate"),
            ("DELETE", "/fhir/Group/a", "GroupDelete"),
            ("GET", "/fhir", "Overview"),
            ("GET", "/fhir/attachment/a", "Attachment"),
            ("GET", "/fhir/metadata", "Metadata"),
            ("GET", "/fhir/OperationDefinition/export", "OperationDefinition"),
            ("GET", "/fhir/.well-known/smart-configuration", "SmartConfiguration"),
        ] {
            assert_eq!(
                ask(&mut router, method, path).await,
                (StatusCode::OK, operation.to_string()),
                "{method} {path}"
            );
        }
        assert_eq!(ask(&mut router, "HEAD", "/fhir/bulk-files/0").await.0, StatusCode::OK);
        assert_eq!(ask(&mut router, "GET", "/fhir/bulk-files/..%2f..%2fetc").await.1, "File", "one segment, as it is");
        assert_eq!(ask(&mut router, "GET", "/fhir/Patient/a/$export").await.0, StatusCode::NOT_FOUND, "KICK-17");
        assert_eq!(ask(&mut router, "PATCH", "/fhir/Group/a").await.0, StatusCode::METHOD_NOT_ALLOWED);
    }

    /// CAP-01: an operation that is off has no route; jobs and files of a level that was switched off are still
    /// served.
    #[tokio::test]
    async fn what_is_off_is_not_there() {
        let mut router = router(&Enabled {
            system: false,
            patient: false,
            group: true,
            groups_searchable: true,
            groups_writable: false,
        });
        assert_eq!(ask(&mut router, "GET", "/fhir/$export").await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask(&mut router, "GET", "/fhir/Patient/$export").await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask(&mut router, "GET", "/fhir/Group/a/$export").await.0, StatusCode::OK);
        assert_eq!(ask(&mut router, "POST", "/fhir/Group").await.0, StatusCode::METHOD_NOT_ALLOWED);
        let off =
            Enabled { system: false, patient: false, group: false, groups_searchable: true, groups_writable: true };
        let left: HashSet<Operation> = routes_on(IG_ROUTES, &off).map(|route| route.operation).collect();
        let always =
            [Operation::JobStatus, Operation::JobDelete, Operation::File, Operation::Attachment, Operation::Overview];
        let described = [Operation::Metadata, Operation::OperationDefinition, Operation::SmartConfiguration];
        assert_eq!(left, always.into_iter().chain(described).collect());
    }

    #[test]
    fn no_row_stands_twice() {
        for table in [IG_ROUTES, NETSMART_ROUTES, ONEUP_STE_ROUTES, ONEUP_MTE_ROUTES] {
            let rows: HashSet<_> = table.iter().map(|route| (&route.method, route.path)).collect();
            assert_eq!(rows.len(), table.len());
        }
    }
}
