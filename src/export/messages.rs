//! The messages of an export: policies that applied, faulty lines, members that were not found; for each audience.

use crate::count_text::{counted, word_form};
use crate::error::{CorruptIndex, IndexError};
use crate::extract::fault::FaultKind;
use crate::fhir::compartment::in_compartment;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::ids::PatientId;
use crate::index::fault_places::visit_faults;
use crate::index::meta::MemoryLoss;
use crate::index::snapshot::Snapshot;
use crate::issue::{Advice, Issue, IssueCode, IssueLog, Severity};
use crate::limits::MEMBERS_LEFT_SHARE;
use crate::plan::Plan;
use crate::policies::{Audience, LateArrivals, MissingLastUpdated, NewMembers, Vanished};
use crate::request::{ExportRequest, Population};
use crate::select::attachments::attachment_urls;
use crate::select::cohort::Cohort;
use crate::select::context_closure::DeadEnds;
use crate::select::member_changes::{ChangeSource, MemberChanges};
use crate::select::selection::{Selection, foreign_owners};
use crate::select::store_issues::{add_file_issues, add_operator_issues, add_row_notes, add_versions_by_file};
use std::collections::{BTreeSet, HashSet};

/// A member needs no current Patient row: its records are exported, and a warning names it (GROUP-06).
pub(crate) fn add_absent_members(
    snapshot: &Snapshot,
    cohort: &Cohort,
    selection: &Selection,
    messages: &mut IssueLog,
) -> Result<(), CorruptIndex> {
    for patient in cohort.members.iter().filter(|patient| !selection.present.contains(*patient)) {
        let id = snapshot.index().patient_id(PatientId::of(patient))?;
        let text = format!(
            "Patient/{id} is asked for but has no current Patient resource in the store; its records were exported"
        );
        messages.push("member-without-patient", Issue::warning(IssueCode::NotFound, text));
    }
    Ok(())
}

/// Who joined and left since the export that an increment builds on (GROUP-11, GROUP-13), or who joined by the entries of a Group.
fn member_issues(plan: &Plan, audience: Audience, push: &mut dyn FnMut(&'static str, Issue)) {
    let note = |text: String| Issue::new(Severity::Information, IssueCode::Informational, text);
    let request = &plan.request;
    let done = match request.new_members {
        NewMembers::Full => "all their records are exported",
        _ => "what was dated before _since is not exported for that",
    };
    match &plan.member_changes {
        Some(MemberChanges { joined_count, source: ChangeSource::Starts { unknown }, .. }) => {
            if *joined_count > 0 {
                let joined = counted(*joined_count, "patient");
                push("joined", note(format!("{joined} joined the Group after _since, by member.period.start; {done}")));
            }
            if *unknown > 0 {
                let (members, all) = (counted(*unknown, "member"), plan.cohort.members.count());
                let text = format!(
                    "When {members} of {all} joined the Group is not known: {} no member.period.start, and there is no earlier \
                     export to compare with; {} records are exported as far as they changed after _since",
                    word_form(*unknown, "it has", "they have"),
                    word_form(*unknown, "its", "their")
                );
                push("members-unknown", note(text));
            }
        }
        Some(changes) => cohort_issues(changes, request, done, push),
        None if request.baseline.is_some()
            && request.population != Population::System
            && request.new_members != NewMembers::Ignore =>
        {
            let text =
                "Who joined or left is not known: the export that this one builds on has no list of its patients";
            push("members-unknown", note(text.into()));
        }
        None => {}
    }
    if request.baseline.as_ref().is_some_and(|baseline| baseline.resources.is_none()) {
        let text = "Resources that no longer belong are not listed: the record of the export that this one builds on does not \
                    hold the keys of its resources";
        // A service keeps the list of patients alone, which its clients cannot change.
        let issue = match audience {
            Audience::Operator => Issue::warning(IssueCode::Incomplete, text),
            _ => note(text.into()),
        };
        push("departures-unknown", issue);
    }
}

/// Who joined and left, by the list of the patients of the baseline.
fn cohort_issues(
    changes: &MemberChanges,
    request: &ExportRequest,
    done: &str,
    push: &mut dyn FnMut(&'static str, Issue),
) {
    let note = |text: String| Issue::new(Severity::Information, IssueCode::Informational, text);
    let (joined, left) = (changes.joined_count, changes.left_count());
    if joined > 0 {
        let joined = counted(joined, "patient");
        push("joined", note(format!("{joined} joined since the export that this one builds on; {done}")));
    }
    if left > 0 {
        let before = request.baseline.as_ref().and_then(|baseline| baseline.cohort.as_ref());
        let before = before.map_or(0, |cohort| cohort.keys().len() as u64);
        let of = format!("{} of {before} left since", counted(left, "patient"));
        let text = format!("{of} the export that this one builds on");
        // A Group that was emptied by mistake takes everything from its readers.
        let is_much = left > 1 && left * MEMBERS_LEFT_SHARE > before;
        push("left", if is_much { Issue::warning(IssueCode::BusinessRule, text) } else { note(text) });
    }
    if changes.left_unnamed > 0 {
        let unnamed = counted(changes.left_unnamed, "patient");
        let text = format!("{unnamed} who left cannot be named: no record of theirs is in the store any more");
        push("left-unnamed", Issue::warning(IssueCode::Incomplete, text));
    }
}

/// What was decided by policy is said, with its count (OUTCOME-02, SINCE-04, DELETED-09).
///
/// A reader who may not have the whole store is told of its cohort and types alone (reading 24): what is counted over the
/// whole store only is left out for it.
///
/// # Errors
/// [`Damaged`] when the index is.
pub(crate) fn policy_issues(snapshot: &Snapshot, plan: &Plan, audience: Audience) -> Result<IssueLog, CorruptIndex> {
    let Plan { request, selection, deletions, .. } = plan;
    let stats = &selection.stats;
    let sees_all = audience != Audience::BoundClient;
    let mut messages = IssueLog::default();
    let mut push = |cause, message| messages.push(cause, message);
    let note = |severity, text: String| Issue::new(severity, IssueCode::Informational, text);
    if (request.since.is_some() || request.until.is_some()) && stats.undated > 0 {
        let (done, advice) = match request.missing_last_updated {
            MissingLastUpdated::Include => ("exported whatever _since and _until say", None),
            MissingLastUpdated::Exclude => ("left out", Some(Advice::UndatedExcluded)),
        };
        let (resources, were) = (counted(stats.undated, "resource"), word_form(stats.undated, "was", "were"));
        let text = format!("{resources} without a usable meta.lastUpdated {were} {done}");
        push("undated", Issue { advice, ..note(Severity::Information, text) });
    }
    if let Some(since) = &request.since
        && let Some((birth, loss)) = snapshot.index().generation().memory_lost_since(since)
    {
        let reason = match loss {
            MemoryLoss::Damaged => "it was damaged",
            MemoryLoss::OtherVersion => "it is of another version",
        };
        let birth = Instant { ticks: birth.unwrap_or(snapshot.as_of().ticks), rest: Box::default() };
        let text = format!(
            "What the index remembered of earlier exports is lost ({reason}). Resources and deletions that came to the \
             store between _since and {birth}, dated before _since, cannot be told and are not listed here, nor what is gone from it without a deletion; an \
             export without _since has every resource"
        );
        push("memory-lost", Issue::warning(IssueCode::Incomplete, text));
    }
    if let Some(since) = &request.since
        && let Some(until) = snapshot.index().generation().vanished_unknown_since(since, snapshot.as_of())
    {
        let until = Instant { ticks: until, rest: Box::default() };
        let text = format!(
            "What the index remembered of resources that are gone from the store without a deletion was damaged. Those that \
             went between _since and {until} are neither listed as deleted nor counted here; an export without _since has \
             what the store holds"
        );
        push("vanished-unknown", Issue::warning(IssueCode::Incomplete, text));
    }
    let is_known = |since: &Instant| snapshot.index().generation().birth.is_some_and(|birth| birth <= since.ticks);
    if let Some(since) = &request.since
        && !snapshot.index().is_durable()
        && !is_known(since)
    {
        let text = "The index is held in memory only: resources that came to the store after the export that _since names, \
                    dated before it, cannot be told and are not listed here";
        push("memory-only", Issue::warning(IssueCode::Incomplete, text.to_string()));
    }
    if stats.late > 0 {
        let (not, advice) = match request.late {
            LateArrivals::Include => ("", None),
            LateArrivals::Report => ("not ", Some(Advice::LateReported)),
        };
        let text = format!(
            "{} came to the store after the export that _since names, though dated before it, and {} {not}exported",
            counted(stats.late, "resource"),
            word_form(stats.late, "was", "were")
        );
        push("late", Issue { advice, ..note(Severity::Information, text) });
    }
    member_issues(plan, audience, &mut push);
    if stats.illegal_updated > 0 && sees_all {
        let text = format!(
            "{} {} a meta.lastUpdated that is no instant; it counts as none",
            counted(stats.illegal_updated, "resource"),
            word_form(stats.illegal_updated, "has", "have")
        );
        push("illegal-last-updated", note(Severity::Warning, text));
    }
    if sees_all {
        add_versions_by_file(snapshot, &plan.cohort.ours, &mut messages)?;
    }
    let mut push = |cause, message| messages.push(cause, message);
    let foreign = match (&request.population, audience) {
        (Population::System, _) => Vec::new(),
        (_, Audience::Operator) | (Population::AllPatients, Audience::Client) => stats.foreign.clone(),
        _ => foreign_owners(snapshot, &plan.cohort, selection)?,
    };
    for (base, count) in foreign {
        let text = format!(
            "{} to patients under the base {base} {} taken for another server's patients",
            counted(count, "reference"),
            word_form(count, "was", "were")
        );
        push("foreign-base", note(Severity::Warning, text).advise(Advice::on_foreign_base(&base)));
    }
    dead_end_issues(&stats.dead_ends, &mut messages);
    if stats.unfiltered > 0 {
        let text = format!(
            "{} nested too deep to be searched, and {} left out: a filter cannot be evaluated for {}",
            word_form(stats.unfiltered, "1 resource is", &format!("{} resources are", stats.unfiltered)),
            word_form(stats.unfiltered, "was", "were"),
            word_form(stats.unfiltered, "it", "them")
        );
        messages.push("unfiltered", note(Severity::Error, text));
    }
    for of in filters_of_context(request) {
        let text = format!(
            "{of}?: resources of this type are exported here only where others refer to them, which no filter narrows; filter it \
             in an export at system level"
        );
        messages.push("filter-of-context", note(Severity::Warning, text));
    }
    if stats.unreached_binaries > 0 {
        let text = format!(
            "{} of exported patients {} the attachment of no exported resource and {} not exported",
            word_form(stats.unreached_binaries, "1 Binary", &format!("{} Binaries", stats.unreached_binaries)),
            word_form(stats.unreached_binaries, "is", "are"),
            word_form(stats.unreached_binaries, "was", "were")
        );
        messages.push("unreached-binary", note(Severity::Information, text));
    }
    let mut push = |cause, message| messages.push(cause, message);
    if request.since.is_some() && deletions.entries == 0 && plan.vanished.counts().told == 0 {
        let text = "The store holds no DELETE entries, so deletions are not tracked: none can be listed".to_string();
        push("no-deletions", note(Severity::Information, text));
    }
    if deletions.unknown > 0 && sees_all {
        let text = format!(
            "{} of resources that the store does not hold {} not listed here: whose they were is not known from it",
            counted(deletions.unknown, "deletion"),
            word_form(deletions.unknown, "is", "are")
        );
        push("deleted-unknown", note(Severity::Warning, text));
    }
    if deletions.undated > 0 && sees_all {
        let text = format!(
            "{} {} no meta.lastUpdated and {} as older than everything: nothing is deleted by {}",
            counted(deletions.undated, "DELETE entry"),
            word_form(deletions.undated, "has", "have"),
            word_form(deletions.undated, "counts", "count"),
            word_form(deletions.undated, "it", "them")
        );
        push("deleted-undated", note(Severity::Warning, text));
    }
    vanished_issues(plan, &mut messages);
    attachment_issues(plan, &mut messages);
    Ok(messages)
}

/// Types with a filter whose resources are no patient's, in an export of patients: they come as referenced context alone
/// (TFILTER-09).
fn filters_of_context(request: &ExportRequest) -> BTreeSet<ResourceType> {
    let is_narrowed = |of: &ResourceType| {
        request.population == Population::System || in_compartment(*of) || *of == ResourceType::GROUP
    };
    request.type_filters.iter().map(|filter| filter.resource_type).filter(|of| !is_narrowed(of)).collect()
}

/// References of exported rows to context that is not there are counted, type by type (COMP-06).
fn dead_end_issues(dead_ends: &DeadEnds, messages: &mut IssueLog) {
    let ends = [
        ("context-nowhere", &dead_ends.nowhere, "no current resource that may be exported"),
        (
            "context-several",
            &dead_ends.several,
            "several resources that have the same identifier, of which none was taken",
        ),
    ];
    for (cause, counts, where_to) in ends {
        for (resource_type, count) in counts {
            let text = format!(
                "{} of exported resources to {resource_type} {} to {where_to}",
                counted(*count, "reference"),
                word_form(*count, "leads", "lead")
            );
            messages.push(cause, Issue::new(Severity::Information, IssueCode::Informational, text));
        }
    }
}

/// URLs of attachments that stay relative are counted: all without a base, else those of Binaries that are not there
/// (ATTACH-02).
fn attachment_issues(plan: &Plan, messages: &mut IssueLog) {
    let counts = plan.attachment_counts;
    let urls = |count| (counted(count, "attachment URL"), word_form(count, "is", "are"));
    match attachment_urls(&plan.request) {
        None if counts.relative > 0 => {
            let (urls, are) = urls(counts.relative);
            let text = format!("{urls} of exported resources {are} relative to the server, and {are} left so");
            let issue = Issue::new(Severity::Information, IssueCode::Informational, text);
            messages.push("attachment-relative", issue.advise(Advice::GiveBaseUrl));
        }
        Some(_) if counts.unknown > 0 => {
            let (urls, are) = urls(counts.unknown);
            let (names, them) = (word_form(counts.unknown, "names", "name"), word_form(counts.unknown, "it", "they"));
            let text = format!(
                "{urls} of exported resources {names} a Binary that the store does not hold; {them} {are} left as {them} stand{}",
                word_form(counts.unknown, "s", "")
            );
            messages.push("attachment-unknown", Issue::warning(IssueCode::NotFound, text));
        }
        _ => {}
    }
}

/// What is gone without a deletion is counted, cause by cause: who keeps a copy by increments holds it still.
fn vanished_issues(plan: &Plan, messages: &mut IssueLog) {
    let counts = plan.vanished.counts();
    let held = if plan.request.since.is_some() { Severity::Warning } else { Severity::Information };
    let is_choice = plan.request.since.is_some() && plan.request.vanished == Vanished::Report;
    let causes = [
        ("vanished-told", counts.told, "is", "are", "gone from files that were replaced, and listed as deleted"),
        (
            "vanished-replaced",
            counts.replaced_files,
            "is",
            "are",
            "gone from files that were replaced, and not listed as deleted",
        ),
        (
            "vanished-uncertain",
            counts.uncertain_files,
            "is",
            "are",
            "gone from files that were changed in place, hold faulty lines or end within a line, and not listed as deleted: \
             what is gone so may come back",
        ),
        (
            "vanished-missing",
            counts.missing_files,
            "is",
            "are",
            "gone together with the file that held it, and not listed as deleted: what is gone so may come back",
        ),
        (
            "vanished-older",
            counts.older_versions,
            "has",
            "have",
            "no newest version any more while an older one stands; that is neither listed as deleted nor exported for it",
        ),
    ];
    for (cause, count, one, many, text) in causes.into_iter().filter(|(_, count, ..)| *count > 0) {
        let severity = if cause == "vanished-told" { Severity::Information } else { held };
        let text = format!("{} {} {text}", counted(count, "resource"), word_form(count, one, many));
        let issue = Issue::new(severity, IssueCode::Informational, text);
        let advice = (cause == "vanished-replaced" && is_choice).then_some(Advice::VanishedReported);
        messages.push(cause, Issue { advice, ..issue });
    }
}

/// What a reader of the export is told: notes on the request, what did not resolve, policies applied, and the faulty lines
/// of the snapshot in store order (OUTCOME-03, OUTCOME-05); to one that may not have the whole store only their number.
///
/// # Errors
/// [`IndexError::Damaged`] when the index is.
pub(crate) fn all_issues(snapshot: &Snapshot, plan: &Plan, audience: Audience) -> Result<IssueLog, IndexError> {
    let mut messages = IssueLog::default();
    for note in &plan.request.notes {
        messages.push("note", note.clone());
    }
    messages.add(&plan.messages);
    messages.add(&policy_issues(snapshot, plan, audience)?);
    match (audience, plan.ledger().faulty) {
        (Audience::BoundClient, 0) => {}
        (Audience::BoundClient, faults) => {
            let text = format!("faulty lines of the store that were passed by: {faults}; its operator knows which");
            messages.push("faults", Issue::new(Severity::Error, IssueCode::Incomplete, text));
        }
        _ => {
            let told = fault_issues(snapshot, plan, &mut messages)?;
            add_row_notes(snapshot, &mut messages)?;
            add_file_issues(snapshot, &plan.selection.stats.other_data, &told, &mut messages);
        }
    }
    if audience == Audience::Operator {
        add_operator_issues(snapshot, &mut messages);
    }
    Ok(messages)
}

/// Adds the issues about faulty lines of the export, those of each kind bounded in number. Returns the names of files that
/// are told as a whole.
fn fault_issues(snapshot: &Snapshot, plan: &Plan, messages: &mut IssueLog) -> Result<HashSet<String>, IndexError> {
    let stats = &plan.selection.stats;
    let mut whole_files = HashSet::new();
    let told = visit_faults(snapshot.index(), snapshot.segments(), &stats.other_data, &mut |place| {
        let cause = if place.is_whole_file { "no-ndjson" } else { place.kind.name() };
        messages.push(cause, Issue::new(Severity::Error, fault_code(place.kind), place.text));
        if place.is_whole_file {
            whole_files.insert(place.file);
        }
    })?;
    // The index keeps the details of so many faults a segment; the others are counted.
    for (kind, told) in FaultKind::ALL.iter().zip(told) {
        messages.more(
            Severity::Error,
            fault_code(*kind),
            kind.name(),
            stats.faults[*kind as usize].saturating_sub(told),
        );
    }
    Ok(whole_files)
}

/// The FHIR issue code of a kind of faulty line.
fn fault_code(kind: FaultKind) -> IssueCode {
    match kind {
        FaultKind::TooLong => IssueCode::TooLong,
        FaultKind::Damaged | FaultKind::DamagedFrame | FaultKind::DamagedTable | FaultKind::Unproven => {
            IssueCode::Incomplete
        }
        _ => IssueCode::Structure,
    }
}
