//! Start of an export: checks rights and the Group of a kick-off, then has the engine make the job durable (KICK-11,
//! KICK-13).
//!
//! No export work is done here (KICK-15). The text of the request is read in `kick_off`, the answer is rendered by
//! the dialect of the mount.

use std::collections::BTreeSet;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::count_text::counted;
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::{UnusableGroup, check_usable, read_group};
use crate::group::reader::{GroupHead, GroupMember, GroupReader};
use crate::group::registry::store_groups::groups_are_current;
use crate::group::registry::view::{GroupLookup, GroupView};
use crate::group::registry::{GroupsError, RegisteredGroup};
use crate::issue::IssueCode;
use crate::job::api::{AcceptedJob, KickOffError};
use crate::job::indexer::RequestedRun;
use crate::job::record::{RecordedPopulation, RecordedScope, StoredRequest};
use crate::job::store_state::StoreRefusal;
use crate::limits::READ_BYTES;
use crate::patient_restriction::PatientList;
use crate::policies::Audience;
use crate::select::member_starts::MemberStart;
use crate::select::nested_groups::{GroupFollow, GroupQueue, NestedGroup, find_modifier};
use crate::server::auth::Principal;
use crate::server::error::{ApiError, OutcomeIssue};
use crate::server::group_scope::scope_of;
use crate::server::groups::damaged_group;
use crate::server::kick_off;
use crate::server::kick_off::filter_rights::{check_filter_rights, check_filter_scope};
use crate::server::kick_off::request::{KickOffContext, Level, RequestedExport};
use crate::server::kick_off::strict_patients::PatientQuestion;
use crate::server::mount::Mount;
use crate::server::state::{App, Tenant};
use crate::simd::Kernel;

/// `Retry-After` of an answer to a busy client or an unreadable store, in seconds.
const BUSY_SECONDS: u64 = 10;
/// Header `Preference-Applied` (RFC 7240, section 3).
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// An accepted kick-off, with all that its answer is rendered from.
pub(crate) struct StartedExport {
    /// The job and its transaction time T.
    pub job: AcceptedJob,
    /// The absolute kick-off URL, as received.
    pub request: String,
    /// Number of parts of the request that were ignored under lenient handling.
    pub notes: usize,
    /// Value of `Preference-Applied` (HDR-11); `None` if no preference had an effect.
    pub applied: Option<HeaderValue>,
    /// Whether the client sent `Prefer: respond-async`, so that the answer does not wait for the job (ONEUP-M10).
    pub respond_async: bool,
}

/// What became of a kick-off.
pub(crate) enum KickOffStep {
    /// Its job was accepted.
    Started(Box<StartedExport>),
    /// It cannot be judged by the index as it is: it is to be asked again once this run has ended, or the wait for it.
    Behind(RequestedRun),
}

/// Why a kick-off is not started yet.
enum Hindrance {
    /// It is refused.
    Refused(ApiError),
    /// It is to be asked again after this run.
    Behind(RequestedRun),
}

impl From<ApiError> for Hindrance {
    fn from(refusal: ApiError) -> Hindrance {
        Hindrance::Refused(refusal)
    }
}

/// What was waited for before a kick-off is asked again: whether the run of the index has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexAwaited {
    /// Whether the run has ended, or else the wait.
    pub has_ended: bool,
}

/// A kick-off as it was received.
pub(crate) struct ReceivedKickOff<'a> {
    /// The mount.
    pub mount: &'a Mount,
    /// The client.
    pub principal: &'a Principal,
    /// The level of the export.
    pub level: &'a Level,
    /// The query, as received.
    pub query: Option<&'a str>,
    /// The body; `None` unless it is a POST with one that is not empty.
    pub body: Option<&'a [u8]>,
    /// Whether it is a GET with a body, where a POST would have been read.
    pub unread_body: bool,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The absolute URL, as received.
    pub url: String,
    /// What was waited for; `None` at first.
    pub awaited: Option<IndexAwaited>,
}

/// Starts the job of a kick-off that passes all checks. Blocks: it syncs a job record. It does not wait for the index:
/// where it is behind the store, the caller waits for it, without a thread, and asks again.
///
/// # Errors
/// All problems of the request, missing rights, an unknown or unusable Group, a busy engine; in each case no job
/// exists (KICK-10).
pub(crate) fn kick_off(app: &App, received: &ReceivedKickOff<'_>) -> Result<KickOffStep, ApiError> {
    match try_kick_off(app, received) {
        Ok(started) => Ok(KickOffStep::Started(Box::new(started))),
        Err(Hindrance::Behind(run)) => Ok(KickOffStep::Behind(run)),
        Err(Hindrance::Refused(refusal)) => Err(refusal),
    }
}

/// As [`kick_off`].
fn try_kick_off(app: &App, received: &ReceivedKickOff<'_>) -> Result<StartedExport, Hindrance> {
    let ReceivedKickOff { mount, principal, level, query, body, headers, url, awaited, unread_body } = received;
    // 1. The text of the request, and the rights of the client.
    let tenant = app.tenant(mount);
    let context = KickOffContext {
        now: tenant.engine.now(),
        last: &|| tenant.engine.last_transaction_time(),
        defaults: mount.request(),
        unread_body: *unread_body,
    };
    let mut asked = kick_off::parse(level, *query, *body, headers, &context, &mount.kickoff)?;
    principal.allow(level, &mut asked.request)?;
    asked.request.audience = if principal.is_bound() { Audience::BoundClient } else { Audience::Client };
    // 2. The files of the store at this time, and the Group.
    if tenant.engine.probe_store().is_some() {
        return Err(unusable_store().into());
    }
    let listing = tenant.engine.list_files().map_err(|error| unreadable_store(&error))?;
    if awaited.is_none() && tenant.engine.may_be_refused(&listing) {
        return Err(Hindrance::Behind(tenant.engine.request_index()));
    }
    match tenant.engine.store_refusal() {
        None => {}
        Some(StoreRefusal::Unreadable | StoreRefusal::Unwritable) => return Err(unusable_store().into()),
        Some(_) => return Err(refused_store().into()),
    }
    let group = match level {
        Level::Group(id) => Some(group_population(app, received, id, &listing)?),
        _ => None,
    };
    let population = match level {
        Level::System => RecordedPopulation::System,
        Level::Patient => RecordedPopulation::AllPatients,
        Level::User(patient) => RecordedPopulation::Patient(patient.clone()),
        Level::Group(id) if group.as_ref().is_some_and(|of| of.own.is_some()) => {
            RecordedPopulation::OwnGroup(id.clone())
        }
        Level::Group(id) => RecordedPopulation::StoreGroup(id.clone()),
    };
    let GroupPopulation { own, scope, scope_groups, absent, searched } = group.unwrap_or_default();
    asked.request.absent_groups = absent;
    // 3. The patients to whom it is restricted, if each must be there.
    let request = &asked.request;
    if request.only_patients.is_some() && mount.settings.strict_patients {
        let question = PatientQuestion { request, own: own.as_ref(), scope: scope.as_ref(), copies: &scope_groups };
        check_patients(app, received, &question, &listing)?;
    }
    // 4. The job.
    let applied = asked.preference_applied();
    let RequestedExport { mut request, prefer } = asked;
    let mut stored = StoredRequest::of(&request, population, scope);
    stored.member_filter_types = searched.iter().map(|of| of.name().to_string()).collect();
    let job = crate::job::record::KickOff {
        mount: mount.name().to_string(),
        client: principal.client.clone(),
        url: url.clone(),
        request: stored,
        group: own,
        only_patients: request.only_patients.take().and_then(PatientList::into_ids),
        separate_status: prefer.separates_status(),
        scope: scope_groups,
        view: listing,
        keep_seconds: mount.settings.retention_seconds(),
        naming: mount.dialect.naming,
    };
    let accepted = tenant.engine.kick_off(job).map_err(kick_off_error)?;
    Ok(StartedExport {
        job: accepted,
        request: url.clone(),
        notes: request.notes.len(),
        applied,
        respond_async: prefer.respond_async,
    })
}

/// Why a kick-off is not started, or a request refused: 404 with one text, both for a Group that does not exist and
/// for one that the client may not see (KICK-16).
pub(crate) fn unknown_group() -> ApiError {
    ApiError::not_found("this Group")
}

/// Looks up the Group of a kick-off that is being started. If it is missing and files of `view` are not indexed yet, the
/// index is waited for. An invisible Group takes the same steps (KICK-16).
///
/// # Errors
/// 404 for a missing, deleted or invisible Group, 503 if the index is still behind `view`.
fn find_group(
    tenant: &Tenant,
    received: &ReceivedKickOff<'_>,
    id: &str,
    view: &crate::index::store_listing::StoreListing,
) -> Result<GroupLookup, Hindrance> {
    let ReceivedKickOff { mount, principal, awaited, .. } = received;
    let visible = principal.sees_group(id);
    let Some(id) = Id::parse_r4(id.as_bytes()) else { return Err(unknown_group().into()) };
    let look_up = || -> Result<(GroupLookup, bool), ApiError> {
        let snapshot = tenant.engine.snapshot_now();
        let indexed = snapshot.as_ref().is_some_and(|snapshot| view.is_indexed(snapshot.index().generation()));
        let groups = GroupView::new(&tenant.groups, snapshot.as_ref(), mount.fhir_bases());
        let found = groups.find(&id).map_err(|error| match error {
            GroupsError::Damaged { .. } if visible => damaged_group(id.as_str()),
            // What is wrong with a Group that the client may not see is not told.
            GroupsError::Damaged { .. } => unknown_group(),
            error => unreadable_store(&error),
        })?;
        Ok((if visible { found } else { GroupLookup::Unknown }, indexed))
    };
    let is_missing = |found: &GroupLookup| matches!(found, GroupLookup::Unknown | GroupLookup::Deleted { .. });
    // A Group that is there may have another version by now.
    if awaited.is_none() && tenant.engine.snapshot_now().is_some_and(|snapshot| !groups_are_current(&snapshot)) {
        return Err(Hindrance::Behind(tenant.engine.request_index()));
    }
    match (look_up()?, awaited) {
        ((found, _), _) if !is_missing(&found) => Ok(found),
        ((_, true), None | Some(IndexAwaited { has_ended: true })) => Err(unknown_group().into()),
        ((_, false), None) => Err(Hindrance::Behind(tenant.engine.request_index())),
        (_, Some(_)) => {
            let text = "new data is being read in, and this Group may be part of it; ask again";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::Transient, text).retry_after(1).into())
        }
    }
}

/// Before a kick-off is started whose patients must all be there: looks for them by the index (PATIENT-05). If one is
/// missing and files of `view` are not indexed yet, the index is waited for.
///
/// # Errors
/// 400 naming every patient who is missing, 503 if the index is still behind `view`, or store or index cannot be read.
fn check_patients(
    app: &App,
    received: &ReceivedKickOff<'_>,
    asked: &PatientQuestion<'_>,
    view: &crate::index::store_listing::StoreListing,
) -> Result<(), Hindrance> {
    let engine = &app.tenant(received.mount).engine;
    let snapshot = engine.snapshot_now();
    let is_indexed = snapshot.as_ref().is_some_and(|snapshot| view.is_indexed(snapshot.index().generation()));
    let missing = match &snapshot {
        Some(snapshot) => asked.missing(snapshot).map_err(|error| unreadable_store(&error))?,
        None => Vec::new(),
    };
    match (missing.is_empty() && snapshot.is_some(), is_indexed, received.awaited) {
        (true, ..) => Ok(()),
        (false, true, None | Some(IndexAwaited { has_ended: true })) => {
            Err(ApiError::of(StatusCode::BAD_REQUEST, missing).into())
        }
        (false, false, None) => Err(Hindrance::Behind(engine.request_index())),
        (false, _, Some(_)) => {
            let text = "new data is being read in, and patients that were named may be part of it; ask again";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::Transient, text).retry_after(1).into())
        }
    }
}

/// The facts about the Group of an export that its job record keeps.
#[derive(Default)]
struct GroupPopulation {
    /// The Group, if it was created through the service; `None` for a Group of the store.
    own: Option<RegisteredGroup>,
    /// The patients and Groups that the Group's writer may draw on; `None` for the whole store.
    scope: Option<RecordedScope>,
    /// Copies of the Groups that the scope refers to, in their current versions.
    scope_groups: Vec<RegisteredGroup>,
    /// Ids of store Groups that a Group of the service has replaced: they count as missing where other Groups list
    /// them.
    absent: BTreeSet<String>,
    /// Types that filters of the Group search.
    searched: Vec<ResourceType>,
}

/// Before a kick-off is started: finds its Group and the scope of the Group's writer, and checks that it can be
/// exported (GROUP-03, GROUP-09, GROUP-10).
///
/// # Errors
/// 404 for a missing or invisible Group, 400 for one that cannot be exported, 403 for one whose filters search what its writer or
/// the client may not export, 503 if store or index cannot be read.
fn group_population(
    app: &App,
    received: &ReceivedKickOff<'_>,
    id: &str,
    view: &crate::index::store_listing::StoreListing,
) -> Result<GroupPopulation, Hindrance> {
    let ReceivedKickOff { mount, principal, .. } = received;
    let tenant = app.tenant(mount);
    let found = find_group(tenant, received, id, view)?;
    let snapshot = tenant.engine.snapshot_now();
    let groups = GroupView::new(&tenant.groups, snapshot.as_ref(), mount.fhir_bases());
    let mut population = GroupPopulation::default();
    if let GroupLookup::Registered(group) = &found {
        let scoped = scope_of(app.authenticator.as_ref(), &tenant.name, &groups, id, group);
        if let Some((scope, copies)) = scoped.map_err(|error| unreadable_store(&error))? {
            (population.scope, population.scope_groups) = (Some(scope), copies);
        }
    }
    let absent = groups.superseded_ids().map_err(|error| unreadable_store(&error))?;
    population.absent = absent.into_iter().map(|id| id.to_string()).collect();
    let head = check_group(&found, &population, principal, tenant, mount, id)?;
    population.searched = check_filter_rights(&head, &found, principal, app.authenticator.as_ref(), &tenant.name, id)?;
    check_filter_scope(&head, population.scope.as_ref(), id)?;
    if let GroupLookup::Registered(group) = found {
        population.own = Some(group);
    }
    Ok(population)
}

/// Before a kick-off is started: checks that its Group and the Groups that it lists can be exported (GROUP-09,
/// GROUP-10, readings 22 and 37). Returns what the Group says beside its members.
///
/// # Errors
/// 400 with every reason; 503 if the store cannot be read.
fn check_group(
    found: &GroupLookup,
    population: &GroupPopulation,
    principal: &Principal,
    tenant: &Tenant,
    mount: &Mount,
    id: &str,
) -> Result<GroupHead, ApiError> {
    let now = tenant.engine.snapshot_moment();
    let (fhir_bases, members) = (mount.fhir_bases(), mount.settings.members);
    let following = GroupFollow { fhir_bases, members, at: &now, absent: &population.absent };
    let mut listed = GroupQueue::default();
    Id::parse_r4(id.as_bytes()).into_iter().for_each(|id| listed.exclude_group(id));
    // Groups outside the writer's scope are skipped: an error about one would disclose that it exists.
    let may_list = |nested: &Id| {
        let groups = population.scope.as_ref().and_then(|scope| scope.groups.as_ref());
        groups.is_none_or(|groups| groups.iter().any(|known| known == nested.as_str()))
    };
    let mut on_member = |member: &GroupMember<'_>| {
        let nested = following.group_of(member).filter(may_list);
        nested
            .into_iter()
            .for_each(|id| listed.push(NestedGroup { id, depth: 1, listed_by: 0, start: MemberStart::Before }));
    };
    let head = read_group_header(found, &mut on_member).map_err(|error| {
        tracing::error!(%error, "a Group cannot be read");
        ApiError::new(StatusCode::BAD_REQUEST, IssueCode::Structure, format!("Group/{id} cannot be read as a Group"))
    })?;
    let mut issues: Vec<OutcomeIssue> = check_usable(&head, members, mount.filtered_groups())
        .into_iter()
        .map(|problem| {
            let code = if problem == UnusableGroup::Inactive { IssueCode::Invalid } else { IssueCode::NotSupported };
            OutcomeIssue::error(code, format!("Group/{id} {problem}"))
        })
        .collect();
    if let Some(snapshot) = tenant.engine.snapshot_now() {
        let found = find_modifier(&snapshot, &following, listed).map_err(|error| unreadable_store(&error))?;
        issues.extend(found.map(|(nested, modifier)| {
            // The id and the modifier of a Group that the client may not see are not disclosed.
            let text = match principal.sees_group(nested.as_str()) {
                true => format!("Group/{nested}, which Group/{id} reaches, {}", UnusableGroup::Modified(modifier)),
                false => format!("Group/{id} reaches a Group with a modifier that is not understood here"),
            };
            OutcomeIssue::error(IssueCode::NotSupported, text)
        }));
    }
    if issues.is_empty() { Ok(head) } else { Err(ApiError::of(StatusCode::BAD_REQUEST, issues)) }
}

/// Reads the Group of a kick-off that is being started, from the store or the registry: calls `on_member` for each
/// member, and returns the rest of it.
///
/// # Errors
/// A text for the log if it cannot be read or is no Group.
fn read_group_header(found: &GroupLookup, on_member: &mut dyn FnMut(&GroupMember<'_>)) -> Result<GroupHead, String> {
    let read = match found {
        GroupLookup::Store(group) => read_group(&group.snapshot, group.row, on_member),
        GroupLookup::Registered(group) => {
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

/// A kick-off cannot be started: 503 for a store, index or Group registry that cannot be read; `error` is logged.
fn unreadable_store(error: &dyn std::fmt::Display) -> ApiError {
    tracing::error!(%error, "the store cannot be read");
    unusable_store()
}

/// A request cannot be answered: 503 for a store, index or data directory that cannot be used for the moment.
pub(crate) fn unusable_store() -> ApiError {
    let text = "the store cannot be used for the moment; ask again, and tell the operator if that does not help";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::Transient, text).retry_after(BUSY_SECONDS)
}

/// A kick-off cannot be started: 503 while the store lacks too much. How much is the operator's to know.
fn refused_store() -> ApiError {
    let text = "the store lacks much of what it held, and nothing is exported until it is whole again; ask again, and tell \
                the operator if that does not help";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::Transient, text).retry_after(BUSY_SECONDS)
}

/// The answer when the engine refuses to start a kick-off or a retry: 429 if busy, 507 if the disk is full, else 503.
pub(crate) fn kick_off_error(refused: KickOffError) -> ApiError {
    let throttled = |text: String| ApiError::new(StatusCode::TOO_MANY_REQUESTS, IssueCode::Throttled, text);
    match refused {
        KickOffError::ClientBusy(jobs) => throttled(format!(
            "this client has {} waiting or running; wait for one to end, or delete one",
            counted(jobs as u64, "export")
        ))
        .retry_after(BUSY_SECONDS),
        KickOffError::Busy => throttled("the service has as many exports as it takes; ask again later".to_string())
            .retry_after(BUSY_SECONDS),
        KickOffError::DiskFull => {
            let text = "there is no room for the files of another export; delete exports that are done with, or ask again when others have expired";
            ApiError::new(StatusCode::INSUFFICIENT_STORAGE, IssueCode::TooCostly, text)
        }
        KickOffError::Stopping => {
            let text = "the service is stopping; ask again";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::Transient, text).retry_after(5)
        }
        KickOffError::Unwritable(error) => {
            tracing::error!(%error, "the record of a job cannot be written");
            let text =
                "the export cannot be recorded for the moment; ask again, and tell the operator if that does not help";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::NoStore, text).retry_after(BUSY_SECONDS)
        }
    }
}
