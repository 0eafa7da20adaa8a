//! Kick-off: everything that can be checked is checked, then a job is made durable, then the answer goes out (KICK-11,
//! KICK-13). No export work is done here (KICK-15).

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::fhir::id::Id;
use crate::group::lookup::{UnusableGroup, check_usable, read_group};
use crate::group::reader::{GroupHead, GroupMember, GroupReader};
use crate::group::registry::RegisteredGroup;
use crate::group::registry::view::{GroupLookup, GroupView};
use crate::job::api::{AcceptedJob, KickOffError};
use crate::job::record::{RecordedPopulation, RecordedScope, StoredRequest};
use crate::limits::READ_BYTES;
use crate::select::nested_groups::{GroupFollow, GroupQueue, NestedGroup, find_modifier};
use crate::server::auth::Principal;
use crate::server::error::{ApiError, OutcomeIssue, OutcomeIssueType};
use crate::server::group_scope::scope_of;
use crate::server::kick_off;
use crate::server::kick_off::request::Level;
use crate::server::mount::Mount;
use crate::server::state::{App, Tenant};
use crate::simd::Kernel;

/// Seconds after which a client that has too many jobs may ask again.
const BUSY_SECONDS: u64 = 10;
/// RFC 7240
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A kick-off that was taken.
pub(crate) struct StartedExport {
    /// The job, and its T.
    pub job: AcceptedJob,
    /// The kick-off URL, verbatim.
    pub request: String,
    /// How many parts of the request were passed over.
    pub notes: usize,
    /// The preferences that had an effect (HDR-11).
    pub applied: Option<HeaderValue>,
    /// Whether the client wants no waiting for the end of the job (ONEUP-M10).
    pub respond_async: bool,
}

/// Takes a kick-off. `query` and `url` are as they were received. Blocks: it syncs a record.
///
/// # Errors
/// The answer when it is not taken; then there is no job (KICK-10).
pub(crate) fn kick_off(
    app: &App,
    mount: &Mount,
    principal: &Principal,
    level: &Level,
    query: Option<&str>,
    headers: &HeaderMap,
    url: String,
) -> Result<StartedExport, ApiError> {
    let tenant = app.tenant(mount);
    let mut params = kick_off::parse(level, query, headers, &tenant.engine.now(), &mount.kickoff)?;
    principal.allow(level, &mut params)?;
    let view = tenant.engine.list_files().map_err(|error| unreadable_group(&error))?;
    let of_group = match level {
        Level::Group(id) => Some(group_population(app, mount, principal, id, &view)?),
        _ => None,
    };
    let whose = match level {
        Level::System => RecordedPopulation::System,
        Level::Patient => RecordedPopulation::AllPatients,
        Level::User(patient) => RecordedPopulation::Patient(patient.clone()),
        Level::Group(id) if of_group.as_ref().is_some_and(|of| of.own.is_some()) => {
            RecordedPopulation::OwnGroup(id.clone())
        }
        Level::Group(id) => RecordedPopulation::StoreGroup(id.clone()),
    };
    let GroupPopulation { own, scope, scope_groups, absent } = of_group.unwrap_or_default();
    let notes = params.notes.len();
    let job = crate::job::record::KickOff {
        mount: mount.name().to_string(),
        client: principal.client.clone(),
        url: url.clone(),
        request: StoredRequest {
            scope,
            absent_groups: absent.into_iter().collect(),
            bound_client: principal.is_bound(),
            ..mount.stored_request(whose, &params)
        },
        group: own,
        scope: scope_groups,
        view,
        keep_seconds: mount.settings.kept_table(),
        naming: mount.dialect.naming,
    };
    let accepted = tenant.engine.kick_off(job).map_err(kick_off_error)?;
    tracing::info!(job = accepted.id, client = principal.log_name(), mount = mount.name(), "a job was accepted");
    let applied = params.preference_applied();
    Ok(StartedExport { job: accepted, request: url, notes, applied, respond_async: params.prefer.respond_async })
}

/// The same words for a Group that is not there and one that the client may not see (KICK-16).
pub(crate) fn unknown_group() -> ApiError {
    ApiError::not_found("this Group")
}

/// Looks a Group up, waiting for the index when only bytes that are not indexed yet can hold it. One that is not visible is
/// taken for one that is not there, in every step.
fn find_group(
    app: &App,
    tenant: &Tenant,
    mount: &Mount,
    id: &str,
    visible: bool,
    view: &crate::index::store_listing::StoreListing,
) -> Result<GroupLookup, ApiError> {
    let Some(id) = Id::parse(id.as_bytes()) else { return Err(unknown_group()) };
    let look = || -> Result<(GroupLookup, bool), ApiError> {
        let snapshot = tenant.engine.snapshot_now();
        let indexed = snapshot.as_ref().is_some_and(|snapshot| view.is_indexed(snapshot.index().generation()));
        let groups = GroupView::new(&tenant.groups, snapshot.as_ref(), mount.fhir_bases());
        let found = groups.find(&id).map_err(|error| unreadable_group(&error))?;
        Ok((if visible { found } else { GroupLookup::Unknown }, indexed))
    };
    let (found, indexed) = look()?;
    match found {
        GroupLookup::Unknown | GroupLookup::Deleted { .. } if !indexed => {}
        GroupLookup::Unknown | GroupLookup::Deleted { .. } => return Err(unknown_group()),
        found => return Ok(found),
    }
    let done = tenant.engine.index_and_wait(Duration::from_millis(app.config.jobs.group_wait_milliseconds));
    match look()? {
        (GroupLookup::Unknown | GroupLookup::Deleted { .. }, indexed) if done && indexed => Err(unknown_group()),
        (GroupLookup::Unknown | GroupLookup::Deleted { .. }, _) => {
            let text = "new data is being read in, and this Group may be part of it; ask again";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, OutcomeIssueType::Transient, text).retry_after(1))
        }
        (found, _) => Ok(found),
    }
}

/// Whom a Group stands for.
#[derive(Default)]
struct GroupPopulation {
    /// The Group itself, if it was made through the service.
    own: Option<RegisteredGroup>,
    /// What its writer may draw on.
    scope: Option<RecordedScope>,
    /// The Groups that this needs, as they are now.
    scope_groups: Vec<RegisteredGroup>,
    /// Groups of the store that something of the service stands for: they count as absent where others list them.
    absent: BTreeSet<String>,
}

/// Finds a Group, and whom it may stand for (GROUP-03, GROUP-09, GROUP-10).
fn group_population(
    app: &App,
    mount: &Mount,
    principal: &Principal,
    id: &str,
    view: &crate::index::store_listing::StoreListing,
) -> Result<GroupPopulation, ApiError> {
    let tenant = app.tenant(mount);
    let found = find_group(app, tenant, mount, id, principal.sees_group(id), view)?;
    let snapshot = tenant.engine.snapshot_now();
    let groups = GroupView::new(&tenant.groups, snapshot.as_ref(), mount.fhir_bases());
    let mut of = GroupPopulation::default();
    if let GroupLookup::Book(group) = &found {
        let scoped = scope_of(app.authenticator.as_ref(), &tenant.name, &groups, id, group);
        if let Some((scope, copies)) = scoped.map_err(|error| unreadable_group(&error))? {
            (of.scope, of.scope_groups) = (Some(scope), copies);
        }
    }
    let absent = groups.check_superseding().map_err(|error| unreadable_group(&error))?;
    of.absent = absent.into_iter().map(|id| id.to_string()).collect();
    check_group(&found, &of, principal, tenant, mount, id)?;
    if let GroupLookup::Book(group) = found {
        of.own = Some(group);
    }
    Ok(of)
}

/// Whether a Group can stand for patients (GROUP-09, GROUP-10, reading 22), and the Groups that it lists do not forbid it.
fn check_group(
    found: &GroupLookup,
    of: &GroupPopulation,
    principal: &Principal,
    tenant: &Tenant,
    mount: &Mount,
    id: &str,
) -> Result<(), ApiError> {
    let now = tenant.engine.now();
    let (fhir_bases, members) = (mount.fhir_bases(), mount.settings.members);
    let following = GroupFollow { fhir_bases, members, at: &now, absent: &of.absent };
    let mut listed = GroupQueue::default();
    Id::parse(id.as_bytes()).into_iter().for_each(|id| listed.exclude_patient(id));
    // A Group that is not there for the writer is not looked at, or the answer would tell that it is there.
    let may_list = |nested: &Id| {
        let groups = of.scope.as_ref().and_then(|scope| scope.groups.as_ref());
        groups.is_none_or(|groups| groups.iter().any(|known| known == nested.as_str()))
    };
    let mut on_member = |member: &GroupMember<'_>| {
        let nested = following.group_of(member).filter(may_list);
        nested.into_iter().for_each(|id| listed.push(NestedGroup { id, depth: 1, listed_by: 0 }));
    };
    let head = head_of(found, &mut on_member).map_err(|error| {
        tracing::error!(%error, "a Group cannot be read");
        ApiError::new(
            StatusCode::BAD_REQUEST,
            OutcomeIssueType::Structure,
            format!("Group/{id} cannot be read as a Group"),
        )
    })?;
    let mut issues: Vec<OutcomeIssue> = check_usable(&head, members)
        .into_iter()
        .map(|problem| {
            let code = if problem == UnusableGroup::Inactive {
                OutcomeIssueType::Invalid
            } else {
                OutcomeIssueType::NotSupported
            };
            OutcomeIssue::error(code, format!("Group/{id} {problem}"))
        })
        .collect();
    if let Some(snapshot) = tenant.engine.snapshot_now() {
        let found = find_modifier(&snapshot, &following, listed).map_err(|error| unreadable_group(&error))?;
        issues.extend(found.map(|(nested, modifier)| {
            // What a Group is called, and holds, that the client may not see, it is not told.
            let text = match principal.sees_group(nested.as_str()) {
                true => format!("Group/{nested}, which Group/{id} reaches, {}", UnusableGroup::Modified(modifier)),
                false => format!("Group/{id} reaches a Group with a modifier that is not understood here"),
            };
            OutcomeIssue::error(OutcomeIssueType::NotSupported, text)
        }));
    }
    if issues.is_empty() { Ok(()) } else { Err(ApiError::of(StatusCode::BAD_REQUEST, issues)) }
}

fn head_of(found: &GroupLookup, on_member: &mut dyn FnMut(&GroupMember<'_>)) -> Result<GroupHead, String> {
    let read = match found {
        GroupLookup::Store(group) => read_group(&group.snapshot, (group.segment, group.row), on_member),
        GroupLookup::Book(group) => {
            let mut reader = GroupReader::new(Kernel::detect(), on_member);
            reader.begin();
            let (mut offset, mut buffer) = (0, vec![0; READ_BYTES]);
            while offset < group.len() {
                let len = (group.len() - offset).min(buffer.len() as u64);
                group.read_at(offset, &mut buffer[..len as usize]).map_err(|error| error.to_string())?;
                reader.feed(&buffer[..len as usize]);
                offset += len;
            }
            Ok(reader.finish())
        }
        _ => return Err("it is not there".to_string()),
    };
    read.map_err(|error| error.to_string())?.map_err(|fault| fault.kind.to_string())
}

/// The store cannot answer for now.
fn unreadable_group(error: &dyn std::fmt::Display) -> ApiError {
    tracing::error!(%error, "the store cannot be read");
    let text = "the store cannot be read for the moment; ask again, and tell the operator if that does not help";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, OutcomeIssueType::Transient, text).retry_after(BUSY_SECONDS)
}

/// What the engine does not take, as an answer.
pub(crate) fn kick_off_error(refused: KickOffError) -> ApiError {
    let throttled = |text: String| ApiError::new(StatusCode::TOO_MANY_REQUESTS, OutcomeIssueType::Throttled, text);
    match refused {
        KickOffError::ClientBusy(jobs) => {
            throttled(format!("this client has {jobs} exports waiting or running; wait for one to end, or delete one"))
                .retry_after(BUSY_SECONDS)
        }
        KickOffError::Busy => throttled("the service has as many exports as it takes; ask again later".to_string())
            .retry_after(BUSY_SECONDS),
        KickOffError::DiskFull => {
            let text = "there is no room for the files of another export; delete exports that are done with, or ask again when others have expired";
            ApiError::new(StatusCode::INSUFFICIENT_STORAGE, OutcomeIssueType::TooCostly, text)
        }
        KickOffError::Stopping => {
            let text = "the service is stopping; ask again";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, OutcomeIssueType::Transient, text).retry_after(5)
        }
        KickOffError::Unwritable(error) => {
            tracing::error!(%error, "the record of a job cannot be written");
            let text =
                "the export cannot be recorded for the moment; ask again, and tell the operator if that does not help";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, OutcomeIssueType::NoStore, text).retry_after(BUSY_SECONDS)
        }
    }
}
