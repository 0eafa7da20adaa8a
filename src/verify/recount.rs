//! The class of every line, asked in the order of reading 10.

use std::collections::{BTreeMap, HashSet};

use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::select::ledger::Ledger;
use crate::verify::members::ListedMembers;
use crate::verify::request::{RecordedRequest, VerifiedPopulation};
use crate::verify::version_history::{KnownVersion, LastState, ResourceVersion, VersionHistory};

/// What a recount came to.
#[derive(Default)]
pub(crate) struct Recount {
    /// The ledger.
    pub ledger: Ledger,
    /// Lines exported by type, and the sum of their hashes.
    pub exported: BTreeMap<&'static str, (u64, u64)>,
}

/// Counts.
pub(crate) fn recount(history: &VersionHistory, recorded: &RecordedRequest, members: &ListedMembers) -> Recount {
    let mut found = Recount::default();
    let ledger = &mut found.ledger;
    ledger.lines = history.lines;
    ledger.blank = history.blank;
    ledger.faulty = history.faulty;
    ledger.tombstone = history.tombstones;
    let question = RecountQuestion { history, asked: recorded, members };
    for (i, version) in history.versions.iter().enumerate() {
        let class = question.class_of(i, version);
        *match class {
            RecountClass::Future => &mut ledger.future,
            RecountClass::Superseded => &mut ledger.superseded,
            RecountClass::Deleted => &mut ledger.deleted,
            RecountClass::Type => &mut ledger.r#type,
            RecountClass::Cohort => &mut ledger.cohort,
            RecountClass::SinceOrUntil => &mut ledger.since_or_until,
            RecountClass::Exported => &mut ledger.exported,
        } += 1;
        if class == RecountClass::Exported {
            let (lines, sum) = found.exported.entry(version.resource_type.name()).or_default();
            (*lines, *sum) = (*lines + 1, sum.wrapping_add(version.line));
        }
    }
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RecountClass {
    Future,
    Superseded,
    Deleted,
    Type,
    Cohort,
    SinceOrUntil,
    Exported,
}

struct RecountQuestion<'a> {
    history: &'a VersionHistory,
    asked: &'a RecordedRequest,
    members: &'a ListedMembers,
}

impl RecountQuestion<'_> {
    fn class_of(&self, offset: usize, version: &ResourceVersion) -> RecountClass {
        let recorded = self.asked;
        if version.updated.as_ref().is_some_and(|updated| *updated > recorded.as_of) {
            return RecountClass::Future;
        }
        if self.history.last_version(version.entity, &recorded.as_of, &|_late| true) != Some(offset) {
            return RecountClass::Superseded;
        }
        if self.history.is_deleted(version, &recorded.as_of) {
            return RecountClass::Deleted;
        }
        if !recorded.types.is_empty() && !recorded.types.contains(&version.resource_type) {
            return RecountClass::Type;
        }
        if recorded.whose != VerifiedPopulation::System && !self.in_cohort(offset, &recorded.as_of, &|_late| true) {
            return RecountClass::Cohort;
        }
        if self.passes(offset, version) { RecountClass::Exported } else { RecountClass::SinceOrUntil }
    }

    /// The window: `_since` and `_until`, both strict, undated and late rows by policy.
    fn passes(&self, offset: usize, version: &ResourceVersion) -> bool {
        let recorded = self.asked;
        let Some(updated) = &version.updated else {
            return recorded.undated || recorded.since.is_none() && recorded.until.is_none();
        };
        if recorded.until.as_ref().is_some_and(|until| updated >= until) {
            return false;
        }
        let Some(since) = recorded.since.as_ref().filter(|since| updated <= *since) else { return true };
        if version.late {
            return recorded.late;
        }
        // A Provenance that has come to belong since then is new to the reader, whatever its own instant.
        version.resource_type == ResourceType::PROVENANCE
            && recorded.whose != VerifiedPopulation::System
            && !self.in_cohort(offset, since, &|late| !late)
    }

    /// Whether a version is in the compartment of a patient asked for; a Provenance through the last versions, deleted
    /// or not, of what it is about; of Groups only the one asked for, when types are named (reading 6).
    fn in_cohort(&self, index: usize, when: &Instant, known: KnownVersion) -> bool {
        let mut seen = HashSet::new();
        let mut waiting = vec![index];
        while let Some(i) = waiting.pop() {
            let version = &self.history.versions[i];
            if version.resource_type == ResourceType::GROUP {
                if self.members.group == Some(i) && !self.asked.types.is_empty() {
                    return true;
                }
                continue;
            }
            if version.owners.iter().any(|owner| self.members.hold_member(*owner)) {
                return true;
            }
            if seen.insert(i) {
                for target in &version.targets {
                    match self.history.last(*target, when, known) {
                        Some(LastState::Version(version)) => waiting.push(version),
                        Some(LastState::Left(left))
                            if left.owners.iter().any(|owner| self.members.hold_member(*owner)) =>
                        {
                            return true;
                        }
                        _ => {}
                    }
                }
            }
        }
        false
    }
}
