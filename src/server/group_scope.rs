//! What the writer of a Group may draw on, worked out at kick-off from who wrote the version and from the configuration
//! in force (GROUP-03): a Group that a client bound to Groups wrote reaches no more than that client, whoever exports it.

use std::time::Duration;

use super::app::Tenant;
use super::auth::config::{ClientConfig, PatientSource};
use super::auth::{Authenticator, WritingRights};
use super::mount::Mount;
use crate::fhir::Id;
use crate::job::groups::{BookGroup, Found, Groups, GroupsError};
use crate::job::{RecordedScope, ScopeGroup};

/// The scope of a version of a Group, and the Groups of the book that it needs as they are now; none when the Group may
/// draw on the whole store.
///
/// # Errors
/// When the book or the store cannot be read.
pub fn scope_of(
    authenticator: &dyn Authenticator,
    tenant: &str,
    groups: &Groups<'_>,
    id: &str,
    group: &BookGroup,
) -> Result<Option<(RecordedScope, Vec<BookGroup>)>, GroupsError> {
    let (known, rights) = match group.writer() {
        Some(writer) if !writer.bound_to_groups => return Ok(None),
        // A client that is not configured any more sees nothing.
        Some(writer) => {
            let rights = authenticator.writing_rights(tenant, &writer.client);
            (true, vec![rights.unwrap_or(WritingRights { groups: Some(Vec::new()), any_patient: false })])
        }
        None => (false, authenticator.bound_writers(tenant, id)),
    };
    let listed = match (known, rights.as_slice()) {
        (true, [rights]) => rights.groups.clone(),
        _ => Some(Vec::new()),
    };
    // Of a version whose writer is not known, what any client that may have been it could name.
    let sources: Option<Vec<&[String]>> = rights.iter().map(WritingRights::patients_of).collect();
    let sources = sources.filter(|sources| known || !sources.is_empty());
    let (patients_of, copies) = match sources {
        None => (None, Vec::new()),
        Some(sources) => {
            let (groups, copies) = patient_groups(groups, sources.concat())?;
            (Some(groups), copies)
        }
    };
    Ok(Some((RecordedScope { known, groups: listed, patients_of }, copies)))
}

/// Those of some Groups whose current version no bound client wrote: the only ones that say who may be named.
fn patient_groups(groups: &Groups<'_>, mut ids: Vec<String>) -> Result<(Vec<ScopeGroup>, Vec<BookGroup>), GroupsError> {
    ids.sort();
    ids.dedup();
    let (mut found, mut copies) = (Vec::new(), Vec::new());
    for id in ids {
        let Some(parsed) = Id::parse(id.as_bytes()) else { continue };
        match groups.find(&parsed)? {
            // What is not there yet may be by the time the export begins.
            Found::Store(_) | Found::Unknown => found.push(ScopeGroup::Store(id)),
            Found::Book(group) if group.writer().is_some_and(|writer| !writer.bound_to_groups) => {
                found.push(ScopeGroup::Copied(id));
                copies.push(group);
            }
            Found::Book(_) | Found::Deleted { .. } => {}
        }
    }
    Ok((found, copies))
}

/// Whether one of some Groups says who may be named: it is there, and no bound client wrote its current version.
fn names_patients(groups: &Groups<'_>, ids: &[String]) -> Result<bool, GroupsError> {
    for id in ids.iter().filter_map(|id| Id::parse(id.as_bytes())) {
        let names = match groups.find(&id)? {
            Found::Store(_) => true,
            Found::Book(group) => group.writer().is_some_and(|writer| !writer.bound_to_groups),
            Found::Unknown | Found::Deleted { .. } => false,
        };
        if names {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Longest time that the index of a tenant is waited for at a stretch.
const INDEX_WAIT: Duration = Duration::from_secs(3600);

/// What is wrong with clients that may write Groups but could name nobody in them, one sentence each. A store that is not
/// indexed yet is, if that decides. Blocks.
pub fn check_writers(tenants: &[Tenant], mounts: &[Mount], clients: &[ClientConfig]) -> Vec<String> {
    let writes = |client: &&ClientConfig| client.writes_groups && !client.groups.is_empty();
    let bound = clients.iter().filter(writes).filter(|client| client.patients != Some(PatientSource::Any));
    let mut problems = Vec::new();
    for client in bound {
        let own = (0..tenants.len()).filter(|at| client.tenants.contains(&tenants[*at].name));
        match own.map(|at| may_name(&tenants[at], at, mounts, &client.groups)).collect::<Result<Vec<bool>, _>>() {
            Ok(found) if found.contains(&true) => {}
            Ok(_) => problems.push(format!(
                "client {}: it may write Groups, but none of its groups is a Group of the store, or was made by a client \
                 that is not bound to groups, so that it could name no patient; name such a Group, or give patients = \"any\"",
                client.name
            )),
            Err(error) => problems.push(format!("client {}: its groups cannot be looked up: {error}", client.name)),
        }
    }
    problems
}

fn may_name(tenant: &Tenant, at: usize, mounts: &[Mount], ids: &[String]) -> Result<bool, GroupsError> {
    let bases = mounts.iter().find(|mount| mount.tenant == at).map_or(&[][..], Mount::fhir_bases);
    let ask = || {
        let snapshot = tenant.engine.snapshot_now();
        names_patients(&Groups::new(&tenant.groups, snapshot.as_ref(), bases), ids)
    };
    if ask()? {
        return Ok(true);
    }
    tracing::info!(tenant = tenant.name, "the store is brought into the index to look for the groups of clients");
    while !tenant.engine.index_and_wait(INDEX_WAIT) {}
    ask()
}
