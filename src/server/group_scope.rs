//! What the writer of a Group may draw on, worked out at kick-off from who wrote the version and from the configuration
//! in force (GROUP-03): a Group that a client bound to Groups wrote reaches no more than that client, whoever exports it.

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

/// The scope of a version of a Group, and the Groups of the book that it needs as they are now; none when the Group may
/// draw on the whole store.
///
/// # Errors
/// When the book or the store cannot be read.
pub(crate) fn scope_of(
    authenticator: &dyn Authenticator,
    tenant: &str,
    groups: &GroupView<'_>,
    id: &str,
    group: &RegisteredGroup,
) -> Result<Option<(RecordedScope, Vec<RegisteredGroup>)>, GroupsError> {
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
fn patient_groups(
    groups: &GroupView<'_>,
    mut ids: Vec<String>,
) -> Result<(Vec<ScopeGroup>, Vec<RegisteredGroup>), GroupsError> {
    ids.sort();
    ids.dedup();
    let (mut found, mut copies) = (Vec::new(), Vec::new());
    for id in ids {
        let Some(parsed) = Id::parse(id.as_bytes()) else { continue };
        match groups.find(&parsed)? {
            // What is not there yet may be by the time the export begins.
            GroupLookup::Store(_) | GroupLookup::Unknown => found.push(ScopeGroup::Store(id)),
            GroupLookup::Book(group) if group.writer().is_some_and(|writer| !writer.bound_to_groups) => {
                found.push(ScopeGroup::Copied(id));
                copies.push(group);
            }
            GroupLookup::Book(_) | GroupLookup::Deleted { .. } => {}
        }
    }
    Ok((found, copies))
}

/// Whether some Groups list patients that a bound client may name, the best of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SourcePresence {
    /// None of them has ever been there but as a bound client wrote it.
    Never,
    /// One was there; a bound client has changed or deleted it, or it left the store.
    Formerly,
    /// One is there, and no bound client wrote its current version.
    Current,
}

fn presence_of(groups: &GroupView<'_>, ids: &[String]) -> Result<SourcePresence, GroupsError> {
    let mut best = SourcePresence::Never;
    for id in ids.iter().filter_map(|id| Id::parse(id.as_bytes())) {
        let of_writer = |writer: Option<&GroupWriter>| match writer {
            Some(writer) if !writer.bound_to_groups => SourcePresence::Current,
            Some(writer) if !writer.follows_unbound => SourcePresence::Never,
            // Of a version without a writer it is not known.
            _ => SourcePresence::Formerly,
        };
        best = best.max(match groups.find(&id)? {
            GroupLookup::Store(_) => SourcePresence::Current,
            GroupLookup::Book(group) => of_writer(group.writer()),
            GroupLookup::Deleted { .. } => SourcePresence::Formerly,
            GroupLookup::Unknown => SourcePresence::Never,
        });
    }
    Ok(best)
}

/// Longest time that the index of a tenant is waited for at a stretch.
const INDEX_WAIT: Duration = Duration::from_secs(3600);

/// How clients are looked at that could name nobody in the Groups that they write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriterCheck {
    /// At start: a store that is not indexed yet is, if that decides.
    Start,
    /// While the service runs: nothing is waited for.
    Reload,
}

/// Clients that may write Groups but can name nobody in them: what is wrong with them by the configuration alone, one
/// sentence each. What a client may change itself (its Groups' current versions), or what left the store, decides nothing:
/// it is logged. Blocks.
pub(crate) fn check_writers(
    check: WriterCheck,
    tenants: &[Tenant],
    mounts: &[Mount],
    clients: &[ClientConfig],
) -> Vec<String> {
    let writes = |client: &&ClientConfig| client.writes_groups && !client.groups.is_empty();
    let bound = clients.iter().filter(writes).filter(|client| client.patients != Some(PatientSource::Any));
    let mut problems = Vec::new();
    for client in bound {
        let own = (0..tenants.len()).filter(|offset| client.tenants.contains(&tenants[*offset].name));
        let found = own.map(|i| tenant_presence(check, &tenants[i], i, mounts, &client.groups));
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

fn tenant_presence(
    check: WriterCheck,
    tenant: &Tenant,
    offset: usize,
    mounts: &[Mount],
    ids: &[String],
) -> Result<SourcePresence, GroupsError> {
    let bases = mounts.iter().find(|mount| mount.tenant == offset).map_or(&[][..], Mount::fhir_bases);
    let ask = || {
        let snapshot = tenant.engine.snapshot_now();
        presence_of(&GroupView::new(&tenant.groups, snapshot.as_ref(), bases), ids)
    };
    let found = ask()?;
    if found > SourcePresence::Never || check == WriterCheck::Reload {
        return Ok(found);
    }
    tracing::info!(tenant = tenant.name, "the store is brought into the index to look for the groups of clients");
    while !tenant.engine.index_and_wait(INDEX_WAIT) {}
    ask()
}
