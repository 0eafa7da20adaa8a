//! Scope of a Group's writer: the patients and Groups that an export of a Group may draw on (GROUP-03).
//!
//! A Group that was written by a client bound to Groups reaches no more than that client, no matter which client
//! exports it. The scope is computed at kick-off, from the writer of the version and the configuration in force. At
//! start and reload, [`check_writers`] reports clients whose Groups could never reach a patient.

use std::time::Duration;

use crate::fhir::id::Id;
use crate::group::registry::view::{GroupLookup, GroupView};
use crate::group::registry::writer::GroupWriter;
use crate::group::registry::{GroupsError, RegisteredGroup};
use crate::job::record::{RecordedScope, ScopeGroup};
use crate::server::auth::{Authenticator, WritingRights};
use crate::server::config::auth::{ClientConfig, PatientSource};
use crate::server::mount::Mount;
use crate::server::state::Tenant;

/// The scope of a Group's current version, with copies of the registered Groups that the scope refers to; `None` if
/// the Group may draw on the whole store.
///
/// # Errors
/// If the Group registry or the store cannot be read.
pub(crate) fn scope_of(
    authenticator: &dyn Authenticator,
    tenant: &str,
    groups: &GroupView<'_>,
    id: &str,
    group: &RegisteredGroup,
) -> Result<Option<(RecordedScope, Vec<RegisteredGroup>)>, GroupsError> {
    let (is_writer_known, rights) = match group.writer() {
        Some(writer) if !writer.bound_to_groups => return Ok(None),
        // A client that was removed from the configuration may list nothing.
        Some(writer) => {
            let rights = authenticator.writing_rights(tenant, &writer.client);
            (true, vec![rights.unwrap_or(WritingRights { groups: Some(Vec::new()), any_patient: false })])
        }
        None => (false, authenticator.bound_writers(tenant, id)),
    };
    let listed = match (is_writer_known, rights.as_slice()) {
        (true, [rights]) => rights.groups.clone(),
        _ => Some(Vec::new()),
    };
    // Without a known writer: the union of what each possible writer could name.
    let sources: Option<Vec<&[String]>> = rights.iter().map(WritingRights::patients_of).collect();
    let sources = sources.filter(|sources| is_writer_known || !sources.is_empty());
    let (patients_of, copies) = match sources {
        None => (None, Vec::new()),
        Some(sources) => {
            let (groups, copies) = patient_groups(groups, sources.concat())?;
            (Some(groups), copies)
        }
    };
    Ok(Some((RecordedScope { known: is_writer_known, groups: listed, patients_of }, copies)))
}

/// The Groups of `ids` whose current version no bound client wrote, and copies of the registered ones: only the
/// members of such Groups may be named.
///
/// # Errors
/// If the Group registry or the store cannot be read.
fn patient_groups(
    groups: &GroupView<'_>,
    mut ids: Vec<String>,
) -> Result<(Vec<ScopeGroup>, Vec<RegisteredGroup>), GroupsError> {
    ids.sort();
    ids.dedup();
    let (mut found, mut copies) = (Vec::new(), Vec::new());
    for id in ids {
        let Some(parsed) = Id::parse_r4(id.as_bytes()) else { continue };
        let group = match groups.find(&parsed) {
            // A damaged file gives nobody to name.
            Err(GroupsError::Damaged { .. }) => continue,
            group => group?,
        };
        match group {
            // A Group that is unknown now may be indexed by the time the export begins.
            GroupLookup::Store(_) | GroupLookup::Unknown => found.push(ScopeGroup::Store(id)),
            GroupLookup::Registered(group) if group.writer().is_some_and(|writer| !writer.bound_to_groups) => {
                found.push(ScopeGroup::Copied(id));
                copies.push(group);
            }
            GroupLookup::Registered(_) | GroupLookup::Deleted { .. } => {}
        }
    }
    Ok((found, copies))
}

/// Whether some Groups list patients that a bound client may name; for several Groups, the maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SourcePresence {
    /// No version by another writer than a bound client is known of any of them.
    Never,
    /// One had such a version; a bound client has changed or deleted it, or it left the store.
    Formerly,
    /// The current version of one is in the store, or was written by an unbound client.
    Current,
}

/// Whether one of the Groups `ids` lists patients that a bound client may name.
///
/// # Errors
/// If the Group registry or the store cannot be read.
fn presence_of(groups: &GroupView<'_>, ids: &[String]) -> Result<SourcePresence, GroupsError> {
    let mut best = SourcePresence::Never;
    for id in ids.iter().filter_map(|id| Id::parse_r4(id.as_bytes())) {
        let by_writer = |writer: Option<&GroupWriter>| match writer {
            Some(writer) if !writer.bound_to_groups => SourcePresence::Current,
            Some(writer) if !writer.follows_unbound => SourcePresence::Never,
            // A version without a recorded writer may be of either kind.
            _ => SourcePresence::Formerly,
        };
        let group = match groups.find(&id) {
            // A damaged file stops its own Group only, and no start.
            Err(GroupsError::Damaged { .. }) => {
                best = best.max(SourcePresence::Formerly);
                continue;
            }
            group => group?,
        };
        best = best.max(match group {
            GroupLookup::Store(_) => SourcePresence::Current,
            GroupLookup::Registered(group) => by_writer(group.writer()),
            GroupLookup::Deleted { .. } => SourcePresence::Formerly,
            GroupLookup::Unknown => SourcePresence::Never,
        });
    }
    Ok(best)
}

/// Longest single wait for the index of a tenant; the wait is repeated until the index is complete.
const INDEX_WAIT: Duration = Duration::from_secs(3600);

/// When the clients are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriterCheck {
    /// At the start: waits for the index of a tenant if the result depends on it.
    Start,
    /// While the service runs: waits for nothing.
    Reload,
}

/// Clients that may write Groups but whose configuration lets them name no patient, one sentence each. A client that
/// could name patients once is only logged: a client can cause that itself by a change of its Groups. Blocks.
pub(crate) fn check_writers(
    check: WriterCheck,
    tenants: &[Tenant],
    mounts: &[Mount],
    clients: &[ClientConfig],
) -> Vec<String> {
    let writes = |client: &&ClientConfig| client.writes_groups && !client.groups.is_empty();
    let bound_clients = clients.iter().filter(writes).filter(|client| client.patients != Some(PatientSource::Any));
    let mut problems = Vec::new();
    for client in bound_clients {
        let own_tenants = (0..tenants.len()).filter(|offset| client.tenants.contains(&tenants[*offset].name));
        let found = own_tenants.map(|i| tenant_presence(check, &tenants[i], i, mounts, &client.groups));
        let why = match found.collect::<Result<Vec<SourcePresence>, _>>().map(|found| found.into_iter().max()) {
            Ok(Some(SourcePresence::Current)) => continue,
            Ok(Some(SourcePresence::Formerly)) => {
                let (client, groups) = (&client.name, client.groups.join(" "));
                tracing::warn!(
                    client,
                    groups,
                    "this client can name no patient in the Groups that it writes: none of its groups is there as somebody else wrote it"
                );
                continue;
            }
            Ok(_) => format!(
                "none of its groups ({}) is a Group of the store, or was made by a client that is not bound to groups, so \
                 that it could name no patient; name such a Group, or give patients = \"any\"",
                client.groups.join(", ")
            ),
            Err(error) => format!("its groups cannot be looked up: {error}"),
        };
        problems.push(format!("client {}: it may write Groups, but {why}", client.name));
    }
    problems
}

/// Whether one of the Groups `ids` lists nameable patients in one tenant; `offset` is the tenant's position.
///
/// # Errors
/// If the Group registry or the store cannot be read.
fn tenant_presence(
    check: WriterCheck,
    tenant: &Tenant,
    tenant_index: usize,
    mounts: &[Mount],
    ids: &[String],
) -> Result<SourcePresence, GroupsError> {
    let bases = mounts.iter().find(|mount| mount.tenant == tenant_index).map_or(&[][..], Mount::fhir_bases);
    let look_up = || {
        let snapshot = tenant.engine.snapshot_now();
        presence_of(&GroupView::new(&tenant.groups, snapshot.as_ref(), bases), ids)
    };
    let found = look_up()?;
    if found > SourcePresence::Never || check == WriterCheck::Reload {
        return Ok(found);
    }
    tracing::info!(tenant = tenant.name, "the store is brought into the index to look for the groups of clients");
    while !tenant.engine.index_and_wait(INDEX_WAIT) {}
    look_up()
}
