//! From a request to a plan: cohort, selection, deletions, shards; nothing is written.

use crate::error::{ExportError, IndexError, RequestError, RequestProblem};
use crate::export::messages::{add_absent_members, all_issues};
use crate::export::options::FaultsAllowed;
use crate::ids::FileId;
use crate::index::report::RefreshStats;
use crate::index::snapshot::Snapshot;
use crate::index::snapshot_time::SnapshotTime;
use crate::issue::{IssueLog, Parameter};
use crate::plan::{Plan, cut_shards};
use crate::policies::{Context, NewMembers};
use crate::progress::{Phase, Progress};
use crate::request::ExportRequest;
use crate::select::associated::add_associated;
use crate::select::attachments::{AttachmentLinks, attachment_urls, count_attachments};
use crate::select::bitmap::Bitmap;
use crate::select::cohort::Cohort;
use crate::select::completion::add_lacking;
use crate::select::context::add_context;
use crate::select::deleted::Deletions;
use crate::select::member_changes::{MemberChanges, add_records_of_joined};
use crate::select::selection::Selection;
use crate::select::type_filters::{ColumnUse, apply_type_filters};
use crate::select::unreached_binaries::count_unreached_binaries;
use crate::select::vanished::VanishedSelection;
use crate::store::Store;
use crate::sys::store_file::StoreFileError;

/// Plans an export: cohort, selection, shards. Runs on the current rayon pool; writes nothing.
///
/// # Errors
/// [`ExportError::Request`] with every problem of the request, and what fails in the store.
pub fn plan(snapshot: &Snapshot, request: &ExportRequest) -> Result<Plan, ExportError> {
    plan_cancellably(snapshot, request, ColumnUse::Existing, &Progress::default())
}

/// As [`plan`], until `progress` is cancelled.
///
/// # Errors
/// Also [`ExportError::Cancelled`].
pub(crate) fn plan_cancellably(
    snapshot: &Snapshot,
    request: &ExportRequest,
    columns: ColumnUse,
    progress: &Progress,
) -> Result<Plan, ExportError> {
    request.check()?;
    if let Some(since) = &request.since
        && since > snapshot.as_of()
    {
        let text = format!(
            "{since} is later than the transactionTime {}; nothing can have changed after it yet",
            snapshot.as_of()
        );
        return Err(RequestError::one(RequestProblem::of(Parameter::Since, text)).into());
    }
    // Of a store of many files the name of the snapshot takes as long as all the rest.
    let is_long = snapshot.index().segment_count() >= NAMED_MEANWHILE_MIN;
    let (planned, snapshot_id) = match is_long {
        true => rayon::join(|| plan_rows(snapshot, request, columns, progress), || snapshot.id()),
        false => (plan_rows(snapshot, request, columns, progress), snapshot.id()),
    };
    planned.map(|plan| Plan { snapshot_id, ..plan })
}

/// Least segments of a snapshot that gets its name while its rows are selected; fewer in tests, whose stores are small.
const NAMED_MEANWHILE_MIN: usize = if cfg!(test) { 4 } else { 4096 };

/// The plan, without the name of the snapshot.
///
/// # Errors
/// As [`plan_cancellably`].
fn plan_rows(
    snapshot: &Snapshot,
    request: &ExportRequest,
    columns: ColumnUse,
    progress: &Progress,
) -> Result<Plan, ExportError> {
    let mut cohort = Cohort::resolve_cancellably(snapshot, request, progress)?;
    read_index_ahead(snapshot, &cohort, request);
    let member_changes = MemberChanges::of(request, snapshot, &cohort)?;
    let joined = member_changes.as_ref().and_then(|changes| changes.joined.as_ref());
    let joined = joined.filter(|_| request.new_members == NewMembers::Full);
    let mut selection = select_rows(snapshot, &cohort, request, joined, columns, progress)?;
    let held = request.baseline.as_ref().and_then(|baseline| baseline.resources.as_ref());
    let (mut whole, mut completed) = (None, Vec::new());
    if let Some(held) = held {
        let all = select_rows(snapshot, &cohort, &request.clone().without_baseline(), None, columns, progress)?;
        // Otherwise what those who joined had before stays where it is.
        if request.new_members == NewMembers::Full {
            completed = add_lacking(snapshot, &cohort, request, held, &all, &mut selection)?;
        }
        whole = Some(all);
    }
    selection.stats.unreached_binaries = count_unreached_binaries(snapshot, &cohort, request, &selection.rows)?;
    let mut deletions = Deletions::new(snapshot, &cohort, request, progress)?;
    let vanished = VanishedSelection::new(snapshot, &cohort, request)?;
    deletions.add_vanished(&vanished);
    let mut messages = std::mem::take(&mut cohort.messages);
    add_absent_members(snapshot, &cohort, &selection, &mut messages)?;
    let (attachments, attachment_counts) = match attachment_urls(request) {
        Some(urls) => {
            let (links, counts) = AttachmentLinks::of(snapshot, &selection.rows, urls, &request.fhir_bases)?;
            (Some(links).filter(|_| counts.relative > counts.unknown), counts)
        }
        None => (None, count_attachments(snapshot, &selection.rows)?),
    };
    let shards = cut_shards(snapshot, &selection, request.bounds, &request.elements, attachments.as_ref())?;
    open_sources(snapshot, &selection)?;
    Ok(Plan {
        request: request.clone(),
        shards,
        selection,
        cohort,
        deletions,
        vanished,
        whole,
        completed,
        member_changes,
        attachments,
        attachment_counts,
        messages,
        snapshot_id: String::new(),
    })
}

/// Share of the patients, one in so many, from which on most pages of the index are read: each holds facts of some hundred
/// rows.
const INDEX_SHARE: usize = 500;

/// Asks for the index as a whole where most of it is going to be read, which a disk does faster than page by page. A
/// request without filters reads a few columns, which selection asks for itself.
fn read_index_ahead(snapshot: &Snapshot, cohort: &Cohort, request: &ExportRequest) {
    let is_plain = request.since.is_none()
        && request.until.is_none()
        && request.type_filters.is_empty()
        && request.associated.is_none()
        && request.context == Context::None
        && request.baseline.is_none()
        && request.attachments.is_none()
        && cohort.outsiders.is_none();
    let index = snapshot.index();
    let reads_most = cohort.patients.as_ref().is_none_or(|patients| patients.count() * INDEX_SHARE >= index.patients());
    if reads_most && !is_plain {
        index.read_ahead();
    }
}

/// The rows of a request, with the older ones of members who joined, if some did.
///
/// # Errors
/// [`ExportError`] if the store or its index cannot be read, or the work is cancelled.
pub(crate) fn select_rows(
    snapshot: &Snapshot,
    cohort: &Cohort,
    request: &ExportRequest,
    joined: Option<&Bitmap>,
    columns: ColumnUse,
    progress: &Progress,
) -> Result<Selection, ExportError> {
    let mut selection = Selection::new(snapshot, cohort, request)?;
    if let Some(joined) = joined {
        add_records_of_joined(snapshot, cohort, request, joined, &mut selection)?;
    }
    apply_type_filters(snapshot, cohort, request, &mut selection, columns, progress)?;
    add_associated(snapshot, cohort, request, &mut selection, progress)?;
    add_context(snapshot, cohort, request, &mut selection, progress)?;
    Ok(selection)
}

/// Opens the files that rows are taken from: what is replaced by rename from here on changes nothing for the export.
fn open_sources(snapshot: &Snapshot, selection: &Selection) -> Result<(), StoreFileError> {
    let index = snapshot.index();
    let taken = index.segment_ids().filter(|segment| !selection.rows[segment.index()].is_empty());
    let mut files: Vec<FileId> = taken.map(|segment| index.file_of(segment)).collect();
    files.dedup();
    files.into_iter().try_for_each(|file| index.source(file).map(drop))
}

/// Plans without writing: the estimate that `--plan` prints. The index is not written either, and notes no snapshot: what it
/// lacks is made in memory.
///
/// # Errors
/// As [`plan`].
pub(crate) fn plan_only(
    store: &Store,
    request: &ExportRequest,
    time: impl Into<SnapshotTime>,
    progress: &Progress,
) -> Result<(Plan, Snapshot, RefreshStats), ExportError> {
    request.check()?;
    let store = store.read_only();
    let time = time.into();
    let take = || store.snapshot_watched(time.clone(), progress);
    let (snapshot, work, plan, _) = plan_taken_snapshot(request, ColumnUse::Existing, progress, &take, &|| {
        store.snapshot_verified(time.clone(), progress)
    })?;
    Ok((plan, snapshot, work))
}

/// A snapshot, the work that it took, its plan and all messages.
type PlannedExport = (Snapshot, RefreshStats, Plan, IssueLog);

/// Takes a snapshot and plans. An index that turns out to be damaged is checked as a whole, repaired, and asked again.
pub(crate) fn plan_snapshot(
    store: &Store,
    request: &ExportRequest,
    take: &dyn Fn() -> Result<(Snapshot, RefreshStats), IndexError>,
    progress: &Progress,
) -> Result<PlannedExport, ExportError> {
    let again = || {
        let (_, repair) = store.verify_and_repair(progress)?;
        let (snapshot, mut work) = take()?;
        work.repaired.extend(repair.repaired);
        Ok((snapshot, work))
    };
    plan_taken_snapshot(request, ColumnUse::Completed, progress, take, &again)
}

/// Takes a snapshot and plans; one whose index turns out to be damaged is taken again.
fn plan_taken_snapshot(
    request: &ExportRequest,
    columns: ColumnUse,
    progress: &Progress,
    take: &dyn Fn() -> Result<(Snapshot, RefreshStats), IndexError>,
    again: &dyn Fn() -> Result<(Snapshot, RefreshStats), IndexError>,
) -> Result<PlannedExport, ExportError> {
    let of = |(snapshot, mut work): (Snapshot, RefreshStats)| {
        let needs_memory = |since| snapshot.index().generation().memory_lost_since(since).is_some();
        progress.begin(Phase::Planning);
        work.tells_memory_loss |= request.since.as_ref().is_some_and(needs_memory);
        let plan = plan_cancellably(&snapshot, request, columns, progress)?;
        let messages = all_issues(&snapshot, &plan, request.audience)?;
        Ok((snapshot, work, plan, messages))
    };
    progress.begin(Phase::Indexing);
    match take().map_err(ExportError::from).and_then(of) {
        Err(ExportError::Index(IndexError::Damaged(damaged))) => {
            progress.begin(Phase::Indexing);
            let taken = again()?;
            if !request.population.can_be_read_again() {
                return Err(damaged.into());
            }
            of(taken)
        }
        done => done,
    }
}

/// Refuses a plan whose store has more faulty lines than are allowed.
pub(crate) fn check_faults(plan: &Plan, allowed: Option<FaultsAllowed>) -> Result<(), ExportError> {
    let (faults, lines) = (plan.ledger().faulty, plan.ledger().lines);
    let (over, allowed) = match allowed {
        None => return Ok(()),
        Some(FaultsAllowed::Count(most)) => (faults > most, most.to_string()),
        Some(FaultsAllowed::Percent(most)) => (faults as f64 * 100.0 > most * lines as f64, format!("{most}%")),
    };
    if over { Err(ExportError::Faults { faults, lines, allowed }) } else { Ok(()) }
}
