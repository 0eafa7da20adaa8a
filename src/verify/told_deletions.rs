//! Vanished resources that an export listed as deletions, held against the rules by which they may be (reading 26).
//!
//! That they were in the store once is known from the record alone; everything else is judged from the store's bytes.

use std::collections::HashSet;

use crate::export::plan_record::PlanRecord;
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::index::snapshot_time::ticks_rounded_up;
use crate::index::vanished::{VanishCause, VanishedResource};
use crate::verify::members::ListedMembers;
use crate::verify::output_file::entity;
use crate::verify::request::{RecordedRequest, VerifiedPopulation};
use crate::verify::version_history::VersionHistory;

/// The resources of a record that were told as deletions: hashes of their names, and how many of them must not have been.
pub(crate) fn told_resources(
    job: &PlanRecord,
    history: &VersionHistory,
    recorded: &RecordedRequest,
    members: &ListedMembers,
) -> (HashSet<u128>, u64) {
    let (mut told, mut wrong) = (HashSet::new(), 0);
    for gone in job.vanished.iter().filter(|gone| gone.told) {
        let name = entity(&gone.resource_type, &gone.id);
        told.insert(name);
        let may = gone
            .resource()
            .is_some_and(|gone| may_be_told(&gone, job, recorded, members) && !history.has_version(name));
        wrong += u64::from(!may);
    }
    (told, wrong)
}

/// Whether a resource that has no row any more may be told as a deletion.
fn may_be_told(gone: &VanishedResource, job: &PlanRecord, recorded: &RecordedRequest, members: &ListedMembers) -> bool {
    let (Some(since), Some(first)) = (&recorded.since, gone.first_missed) else { return false };
    let in_window = first > since.ticks
        && first <= ticks_rounded_up(&recorded.as_of)
        && recorded.until.as_ref().is_none_or(|until| first < ticks_rounded_up(until))
        && job.snapshot.birth.is_some_and(|birth| first > birth);
    let of_type = recorded.types.is_empty() || recorded.types.contains(&gone.resource_type);
    let is_member = |base: &str, id: &str| recorded.is_ours(base) && members.contains(entity("Patient", id));
    let owned = recorded.population == VerifiedPopulation::System
        || gone.owners.iter().any(|(base, id)| is_member(base, id.as_str()))
        || gone.resource_type == ResourceType::PATIENT && is_member("", gone.id.as_str());
    let is_shared = |(base, id): &(String, Id)| recorded.is_ours(base) && !is_member(base, id.as_str());
    let owned = owned && !(recorded.strict && gone.owners.iter().any(is_shared));
    let by_policy = match gone.cause {
        VanishCause::Deleted => true,
        VanishCause::ReplacedFile => recorded.vanished,
        _ => false,
    };
    by_policy && in_window && of_type && owned
}
