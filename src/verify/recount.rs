//! Recount: the class of every line of the store, tested in the order of reading 10 on plain lists of versions.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use crate::associated_data::AssociatedData;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::context;
use crate::fhir::instant::{Instant, NO_INSTANT};
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::filter_set::FilterSet;
use crate::policies::Context;
use crate::select::ledger::Ledger;
use crate::verify::VerifyError;
use crate::verify::exported_line::exported_hash;
use crate::verify::members::ListedMembers;
use crate::verify::output_file::entity;
use crate::verify::request::{RecordedRequest, VerifiedPopulation};
use crate::verify::version_history::{Deletion, KnownVersion, LastState, RecordedEnd, ResourceVersion, VersionHistory};

/// Result of a recount.
#[derive(Default)]
pub(crate) struct Recount {
    /// Number of lines by class.
    pub ledger: Ledger,
    /// Number of exported lines by type, and the sum of their hashes as they are written.
    pub exported: BTreeMap<&'static str, (u64, u64)>,
    /// Hashes of the names of the resources that are listed as deleted.
    pub deleted: HashSet<u128>,
}

/// Classifies and counts all lines of the store.
///
/// # Errors
/// [`VerifyError`] if a Provenance that competes with another, or a line that is found as an export writes it, cannot be read.
pub(crate) fn recount(
    history: &VersionHistory,
    recorded: &RecordedRequest,
    members: &ListedMembers,
) -> Result<Recount, VerifyError> {
    let mut found = Recount::default();
    let ledger = &mut found.ledger;
    ledger.lines = history.lines;
    ledger.blank = history.blank;
    ledger.faulty = history.faulty;
    ledger.not_fhir = history.not_fhir;
    ledger.tombstone = history.tombstones;
    let question = RecountQuestion {
        history,
        request: recorded,
        members,
        provenances: Default::default(),
        joined: recorded.joined.iter().map(|id| entity("Patient", id)).collect(),
        names_ever: OnceCell::new(),
    };
    let mut classes: Vec<RecountClass> =
        history.versions.iter().enumerate().map(|(i, version)| question.class_of(i, version)).collect();
    // What an export without a window has.
    let mut whole: Vec<RecountClass> = classes.clone();
    question.apply_filters(&mut classes, &mut whole)?;
    let with_associated = |mut classes: Vec<RecountClass>| -> Result<Vec<RecountClass>, VerifyError> {
        question.associated(&classes)?.into_iter().for_each(|i| classes[i] = RecountClass::Exported);
        Ok(classes)
    };
    let whole = with_associated(whole)?;
    let mut classes = with_associated(classes)?;
    question.context(&classes, &whole).into_iter().for_each(|i| classes[i] = RecountClass::Exported);
    let completed: HashSet<u128> =
        recorded.completed.iter().filter_map(|name| name.split_once('/')).map(|(of, id)| entity(of, id)).collect();
    for (i, version) in history.versions.iter().enumerate() {
        use RecountClass::{Cohort, SinceOrUntil, Type, TypeFilter};
        if matches!(classes[i], Cohort | SinceOrUntil | Type | TypeFilter) && completed.contains(&version.entity) {
            classes[i] = RecountClass::Exported;
        }
        let class = classes[i];
        *match class {
            RecountClass::Future => &mut ledger.future,
            RecountClass::Superseded => &mut ledger.superseded,
            RecountClass::Deleted => &mut ledger.deleted,
            RecountClass::Type => &mut ledger.r#type,
            RecountClass::Cohort => &mut ledger.cohort,
            RecountClass::SinceOrUntil => &mut ledger.since_or_until,
            RecountClass::TypeFilter => &mut ledger.type_filter,
            RecountClass::Exported => &mut ledger.exported,
        } += 1;
        if class == RecountClass::Exported {
            let (lines, sum) = found.exported.entry(version.resource_type.name()).or_default();
            (*lines, *sum) = (*lines + 1, sum.wrapping_add(exported_hash(history, i, recorded)?));
        }
    }
    let listed = history.deletions.iter().filter(|deletion| question.lists(deletion));
    found.deleted = listed.map(|deletion| deletion.entity).collect();
    Ok(found)
}

/// Class of a row in the ledger; the order of the variants is that of the tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecountClass {
    Future,
    Superseded,
    Deleted,
    Type,
    Cohort,
    SinceOrUntil,
    TypeFilter,
    Exported,
}

/// The facts that classes are decided by.
pub(crate) struct RecountQuestion<'a> {
    pub history: &'a VersionHistory,
    pub request: &'a RecordedRequest,
    members: &'a ListedMembers,
    /// Provenance versions in a compartment of the members, and of others, for what they are about, at each moment; found
    /// when first asked for.
    provenances: [[OnceCell<HashSet<usize>>; 2]; 3],
    /// Names of the patients who joined, whose records count whatever their age.
    joined: HashSet<u128>,
    /// Names that the cohort's versions refer to, or ever did; found when first asked for.
    pub names_ever: OnceCell<HashSet<u128>>,
}

/// The id of a line, whose other values may be nested to any depth.
#[derive(Default, serde::Deserialize)]
struct IdText {
    id: String,
}

/// When the Provenance of a line was recorded; nothing if it says so twice, or not in a string.
#[derive(Default, serde::Deserialize)]
struct RecordedText {
    recorded: Option<String>,
}

/// The moment at which membership is asked for.
#[derive(Clone, Copy)]
enum MembershipMoment {
    /// T, all versions known.
    Now,
    /// `_since`, late versions unknown.
    Since,
}

/// Whose compartments are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PatientSide {
    /// The requested patients'.
    Members,
    /// Those of all others.
    Others,
    /// Those of the requested patients who joined since the baseline.
    Joined,
}

impl RecountQuestion<'_> {
    /// Class of version number `i` of the history.
    fn class_of(&self, i: usize, version: &ResourceVersion) -> RecountClass {
        let recorded = self.request;
        if version.updated.as_ref().is_some_and(|updated| *updated > recorded.as_of) {
            return RecountClass::Future;
        }
        if self.history.last_version(version.entity, &recorded.as_of, &|_late| true) != Some(i) {
            return RecountClass::Superseded;
        }
        if self.history.is_deleted(version, &recorded.as_of) {
            return RecountClass::Deleted;
        }
        let is_associated = recorded.associated.is_some() && version.resource_type == ResourceType::PROVENANCE;
        if is_associated || !recorded.types.is_empty() && !recorded.types.contains(&version.resource_type) {
            return RecountClass::Type;
        }
        if recorded.population != VerifiedPopulation::System && !self.in_cohort(i, MembershipMoment::Now) {
            return RecountClass::Cohort;
        }
        if self.passes(i, version) { RecountClass::Exported } else { RecountClass::SinceOrUntil }
    }

    /// Takes what meets no filter out of the exported versions, and of `whole` also out of those outside the window, which are
    /// exported else.
    fn apply_filters(&self, classes: &mut [RecountClass], whole: &mut [RecountClass]) -> Result<(), VerifyError> {
        let recorded = self.request;
        let now = TimeSpan::parse(&recorded.as_of.to_string()).unwrap_or(TimeSpan::ALWAYS);
        let bases = BaseUrls::new(&recorded.bases);
        let of_type = |of| Some((of, FilterSet::of(of, &recorded.type_filters, bases, now)?));
        let filters: HashMap<ResourceType, FilterSet<'_>> = ResourceType::all().filter_map(of_type).collect();
        for (i, version) in self.history.versions.iter().enumerate() {
            if !matches!(classes[i], RecountClass::Exported | RecountClass::SinceOrUntil) {
                continue;
            }
            let is_met = match filters.get(&version.resource_type) {
                Some(filters) => filters.is_met(&self.history.bytes(i)?) == Ok(true),
                None => true,
            };
            whole[i] = if is_met { RecountClass::Exported } else { RecountClass::TypeFilter };
            if classes[i] == RecountClass::Exported {
                classes[i] = whole[i];
            }
        }
        Ok(())
    }

    /// The Provenance versions that `includeAssociatedData` adds to the exported ones of these classes: for each of them all
    /// that are about it, or the newest.
    fn associated(&self, classes: &[RecountClass]) -> Result<HashSet<usize>, VerifyError> {
        let Some(asked) = self.request.associated else { return Ok(HashSet::new()) };
        let mut about: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, version) in self.history.versions.iter().enumerate() {
            if version.resource_type != ResourceType::PROVENANCE || classes[i] != RecountClass::Type {
                continue;
            }
            if self.is_others(i, MembershipMoment::Now) {
                continue;
            }
            for target in &version.targets {
                if let Some(LastState::Version(last)) = self.history.last(*target, &self.request.as_of, &|_late| true)
                    && classes[last] == RecountClass::Exported
                {
                    about.entry(last).or_default().push(i);
                }
            }
        }
        let mut found = HashSet::new();
        for all in about.into_values() {
            if asked == AssociatedData::RelevantProvenance {
                found.extend(all);
                continue;
            }
            let mut newest = None;
            for i in all {
                let line = self.history.bytes(i)?;
                let id = serde_json::from_slice::<IdText>(&line).unwrap_or_default().id;
                let recorded = serde_json::from_slice::<RecordedText>(&line).unwrap_or_default().recorded;
                let recorded = recorded.as_deref().and_then(Instant::parse);
                let age = (recorded, self.history.versions[i].updated.clone(), id, i);
                newest = newest.max(Some(age));
            }
            found.extend(newest.map(|(.., i)| i));
        }
        Ok(found)
    }

    /// Whether a version passes the time filter: `_since` and `_until` are strict, undated and late-arriving rows pass
    /// by policy.
    pub(crate) fn passes(&self, i: usize, version: &ResourceVersion) -> bool {
        let recorded = self.request;
        // Those who joined: as without `_since`.
        let since = recorded
            .since
            .as_ref()
            .filter(|_| self.joined.is_empty() || !self.in_compartment(i, MembershipMoment::Now, PatientSide::Joined));
        let Some(updated) = &version.updated else {
            return recorded.undated || since.is_none() && recorded.until.is_none();
        };
        if recorded.until.as_ref().is_some_and(|until| updated >= until) {
            return false;
        }
        if since.is_none_or(|since| updated > since) {
            return true;
        }
        if version.late {
            return recorded.late;
        }
        // A Provenance that entered the cohort after `_since` is new to the client, whatever its own instant.
        version.resource_type == ResourceType::PROVENANCE
            && recorded.population != VerifiedPopulation::System
            && !self.in_cohort(i, MembershipMoment::Since)
    }

    /// Whether a deletion is listed: in the window, with no version after it at T, of a version of the cohort (DELETED-01,
    /// DELETED-03, DELETED-05).
    fn lists(&self, deletion: &Deletion) -> bool {
        let (recorded, history) = (self.request, self.history);
        let Some(since) = &recorded.since else { return false };
        let in_window = deletion.updated <= recorded.as_of
            && recorded.until.as_ref().is_none_or(|until| deletion.updated < *until)
            && (deletion.updated > *since || deletion.late && recorded.late);
        if !in_window || !self.lists_deletions_of(deletion.resource_type) {
            return false;
        }
        // 1. What packs dropped: as its own table records it, else as another deletion of the resource does.
        let departed = match &deletion.recorded {
            RecordedEnd::Followed => return false,
            RecordedEnd::Version(updated, owners) => Some((*updated, owners)),
            RecordedEnd::Nothing => {
                history.last_departed(deletion.entity, &recorded.as_of).map(|last| (last.updated, &last.owners))
            }
        };
        let at = |ticks: i64| Instant { ticks, rest: Box::default() };
        if departed.is_some_and(|(updated, _)| at(updated) >= deletion.updated) {
            return false;
        }
        // 2. The versions that stand.
        let last = history.last_version(deletion.entity, &recorded.as_of, &|_late| true);
        let updated = |i: usize| history.versions[i].updated.as_ref();
        if last.is_some_and(|i| updated(i).is_some_and(|updated| *updated >= deletion.updated)) {
            return false;
        }
        let ticks = |i: usize| updated(i).map_or(NO_INSTANT, |updated| updated.ticks);
        let is_system = recorded.population == VerifiedPopulation::System;
        match (departed.filter(|(updated, _)| last.is_none_or(|i| ticks(i) < *updated)), last) {
            _ if is_system => true,
            (Some((_, owners)), _) => {
                let is_context = recorded.context != Context::None
                    && context::is_context(deletion.resource_type)
                    && deletion.resource_type != ResourceType::DEVICE;
                is_context && owners.is_empty() || self.owned_departed(owners)
            }
            (None, Some(version)) => self.in_cohort(version, MembershipMoment::Now) || self.leads_to_deleted(version),
            (None, None) => false,
        }
    }

    /// Whether deletions of a resource type are listed: those of `_type`, and of Provenance where it is associated (ASSOC-08).
    pub(crate) fn lists_deletions_of(&self, resource_type: ResourceType) -> bool {
        let recorded = self.request;
        let is_associated = recorded.associated.is_some() && resource_type == ResourceType::PROVENANCE;
        is_associated || recorded.types.is_empty() || recorded.types.contains(&resource_type)
    }

    /// Whether a version is in the cohort at T.
    pub(crate) fn belongs(&self, i: usize) -> bool {
        self.in_cohort(i, MembershipMoment::Now)
    }

    /// Whether a version is in the compartment of a requested patient, and of nobody else where the request is strict. A
    /// Provenance is in a compartment, if the last version of one of its targets at that moment is or was, deleted or not. A
    /// Group is, if it is the requested one and types are named (reading 6).
    fn in_cohort(&self, i: usize, moment: MembershipMoment) -> bool {
        self.in_compartment(i, moment, PatientSide::Members) && !self.is_others(i, moment)
    }

    /// Whether a version is in the compartment of somebody who was not asked for, where the request is strict.
    fn is_others(&self, i: usize, moment: MembershipMoment) -> bool {
        self.request.strict && self.in_compartment(i, moment, PatientSide::Others)
    }

    /// Whether a version is in a compartment of some patients.
    fn in_compartment(&self, i: usize, moment: MembershipMoment, whose: PatientSide) -> bool {
        let of_provenances =
            || self.provenances[whose as usize][moment as usize].get_or_init(|| self.provenances_at(moment, whose));
        self.is_owned(i, whose)
            || self.history.versions[i].resource_type == ResourceType::PROVENANCE && of_provenances().contains(&i)
    }

    /// Whether a patient (hash of its name) is one of some patients.
    fn is_one_of(&self, patient: u128, whose: PatientSide) -> bool {
        match whose {
            PatientSide::Members => self.members.contains(patient),
            PatientSide::Others => !self.members.contains(patient),
            PatientSide::Joined => self.joined.contains(&patient),
        }
    }

    /// Whether one of these owners of a version that is not there any more was asked for, and no other one where the request
    /// is strict.
    fn owned_departed(&self, owners: &[u128]) -> bool {
        let has = |whose| owners.iter().any(|owner| self.is_one_of(*owner, whose));
        has(PatientSide::Members) && !(self.request.strict && has(PatientSide::Others))
    }

    /// Whether a version is in the cohort whatever it is about.
    pub(crate) fn belongs_by_itself(&self, i: usize) -> bool {
        let is_others = || self.request.strict && self.is_owned(i, PatientSide::Others);
        self.is_owned(i, PatientSide::Members) && !is_others()
    }

    /// Whether a version is in a compartment of some patients whatever it is about.
    fn is_owned(&self, i: usize, whose: PatientSide) -> bool {
        let version = &self.history.versions[i];
        match version.resource_type == ResourceType::GROUP {
            true => self.members.group == Some(i) && !self.request.types.is_empty() && whose == PatientSide::Members,
            false => version.owners.iter().any(|owner| self.is_one_of(*owner, whose)),
        }
    }

    /// The Provenance versions that are in a compartment for what they are about: what belongs by itself, then again these,
    /// until no more are found. Each target is judged once.
    fn provenances_at(&self, moment: MembershipMoment, whose: PatientSide) -> HashSet<usize> {
        let (when, known): (&Instant, KnownVersion) = match (moment, &self.request.since) {
            (MembershipMoment::Since, Some(since)) => (since, &|late| !late),
            _ => (&self.request.as_of, &|_late| true),
        };
        let is_member = |owner: &u128| self.is_one_of(*owner, whose);
        let mut about: HashMap<u128, Vec<usize>> = HashMap::new();
        for (i, version) in self.history.versions.iter().enumerate() {
            if version.resource_type == ResourceType::PROVENANCE {
                version.targets.iter().for_each(|target| about.entry(*target).or_default().push(i));
            }
        }
        // The Provenances about a version of a Provenance that is the last one of its resource.
        let mut about_version: HashMap<usize, &Vec<usize>> = HashMap::new();
        let mut found: Vec<usize> = Vec::new();
        for (target, provenances) in &about {
            let belongs = match self.history.last(*target, when, known) {
                None => false,
                Some(LastState::Departed(departed)) => departed.owners.iter().any(is_member),
                Some(LastState::Version(last)) => {
                    about_version.insert(last, provenances);
                    self.is_owned(last, whose)
                }
            };
            if belongs {
                found.extend(provenances);
            }
        }
        let mut all = HashSet::new();
        while let Some(i) = found.pop() {
            if all.insert(i) {
                found.extend(about_version.get(&i).into_iter().copied().flatten());
            }
        }
        all
    }
}
