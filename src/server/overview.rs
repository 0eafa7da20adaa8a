//! What the root of the service and the base of each mount answer: where things are.
//!
//! It is public, as the CapabilityStatements are that it names. So the root shows the bases as they are configured, with
//! `{customer}` for the tenant: which tenants there are is nobody's business.

use serde_json::Value;

use crate::issue::{IssueCode, Severity};
use crate::server::error::{OutcomeIssue, outcome};
use crate::server::mount::Mount;
use crate::server::routes::Operation;

/// An OperationOutcome on the base of a mount: its CapabilityStatement and the URLs of its kick-offs.
pub(crate) fn mount_overview(mount: &Mount) -> Value {
    let mut issues = vec![information(format!("{}/metadata says what can be asked here", mount.url))];
    let kick_offs = mount.routes().filter(|route| route.operation.is_export());
    let urls: Vec<String> = kick_offs
        .map(|route| {
            let name = if route.operation == Operation::TypeExport { "{type}" } else { "{id}" };
            format!("{}{}", mount.url, route.path.replace("{id}", name))
        })
        .collect();
    if !urls.is_empty() {
        issues.push(information(format!("exports are kicked off by GET of {}", urls.join(", "))));
    }
    outcome(&issues)
}

/// An OperationOutcome on the root of the service: the CapabilityStatement of each mount.
pub(crate) fn service_overview(mounts: &[Mount]) -> Value {
    let mut urls: Vec<String> = Vec::new();
    for mount in mounts {
        let url = format!("{}{}/metadata", mount.root_url(), mount.settings.base);
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    let places = if urls.is_empty() { "nothing is switched on here".to_string() } else { urls.join(", ") };
    outcome(&[information(format!(
        "this service exports FHIR records in bulk; what can be asked is said at: {places}"
    ))])
}

/// An issue that tells something and blames nothing.
fn information(diagnostics: String) -> OutcomeIssue {
    OutcomeIssue { severity: Severity::Information, code: IssueCode::Informational, diagnostics, expression: None }
}
