//! Members of the requested population, resolved without the index: Groups as JSON trees, lists line by line (readings
//! 4–6).

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;

use crate::codec::byte_order_mark::without_mark;
use crate::error::IndexError;
use crate::fhir::id::Id;
use crate::fhir::instant::date_time_span;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::hash::xxh3_128;
use crate::limits::{GROUP_DEPTH_MAX, POPULATION_BYTES_MAX};
use crate::sys::regular_file::read_regular;
use crate::verify::VerifyError;
use crate::verify::json_tree::{Json, JsonTree, WantedNames, without_lone_surrogates};
use crate::verify::member_filters::ReadFilters;
use crate::verify::output_file::entity;
use crate::verify::request::{RecordedRequest, VerifiedPopulation};
use crate::verify::version_history::{VersionHistory, identifier};

/// The patients of the requested population.
#[derive(Default)]
pub(crate) struct ListedMembers {
    /// Hashes of their names; `None` for a population without a list.
    patients: Option<HashSet<u128>>,
    /// Index of the requested Group's version, if it is in the store.
    pub group: Option<usize>,
}

impl ListedMembers {
    /// Whether a patient (hash of its name) was requested.
    pub(crate) fn contains(&self, patient: u128) -> bool {
        self.patients.as_ref().is_none_or(|patients| patients.contains(&patient))
    }

    /// Resolves the population of a request.
    ///
    /// # Errors
    /// [`VerifyError`] if a file or Group can no longer be read, or a file is not the one of the export.
    pub(crate) fn resolve(history: &VersionHistory, recorded: &RecordedRequest) -> Result<ListedMembers, VerifyError> {
        let mut resolver = ObviousResolver {
            history,
            request: recorded,
            patients: HashSet::new(),
            groups: VecDeque::new(),
            seen: HashSet::new(),
        };
        let mut group = None;
        let mut filters = ReadFilters::default();
        match &recorded.population {
            VerifiedPopulation::System | VerifiedPopulation::AllPatients => {
                return Ok(ListedMembers { patients: recorded.only.as_deref().map(named_patients), group });
            }
            VerifiedPopulation::Patients(path, hash) => resolver.add_list(&population_file(path, hash)?),
            VerifiedPopulation::Group(id) => {
                resolver.seen.insert(entity("Group", id));
                group = history.current(entity("Group", id), &recorded.as_of);
                if let Some(version) = group {
                    let bytes = history.bytes(version)?;
                    filters = ReadFilters::of(&bytes);
                    resolver.add_group(&bytes, 0);
                }
            }
            VerifiedPopulation::GroupFile(path, hash) => {
                // If `_type` names Group, the Group of the same id in the store is exported.
                let bytes = population_file(path, hash)?;
                filters = ReadFilters::of(&bytes);
                let named = resolver.add_group(&bytes, 0);
                group = named.and_then(|named| history.current(named, &recorded.as_of));
            }
        }
        // Breadth first; no Group is read twice, so a cycle of Groups ends.
        while let Some((group, depth)) = resolver.groups.pop_front() {
            if depth <= GROUP_DEPTH_MAX
                && let Some(version) = history.current(group, &recorded.as_of)
            {
                resolver.add_group(&history.bytes(version)?, depth);
            }
        }
        let mut patients = filters.choose(resolver.patients, history, recorded)?;
        if let Some(only) = &recorded.only {
            let only = named_patients(only);
            patients.retain(|patient| only.contains(patient));
        }
        // A restricted export has no Group.
        let group = group.filter(|_| recorded.only.is_none());
        Ok(ListedMembers { patients: Some(patients), group })
    }
}

/// Hashes of the names of patients, by their ids.
fn named_patients(ids: &[String]) -> HashSet<u128> {
    ids.iter().map(|id| entity("Patient", id)).collect()
}

/// Bytes of a population's file without its byte order mark; [`IndexError::Changed`] if its hash is not that of the file of the export.
fn population_file(path: &Path, hash: &str) -> Result<Vec<u8>, VerifyError> {
    let bytes = read_regular(path, POPULATION_BYTES_MAX)
        .map_err(|error| VerifyError::Read { path: path.to_path_buf(), source: error.into() })?;
    if format!("{:032x}", xxh3_128(&bytes)) == hash {
        return Ok(without_mark(&bytes).to_vec());
    }
    let reason = "is not the file that the export was made with; name that one".to_string();
    Err(VerifyError::Index(IndexError::Changed { path: path.to_path_buf(), reason }))
}

/// Collects the patients of a population from lists and Groups.
struct ObviousResolver<'a> {
    history: &'a VersionHistory,
    request: &'a RecordedRequest,
    patients: HashSet<u128>,
    /// Groups still to read, and their depth of nesting.
    groups: VecDeque<(u128, usize)>,
    /// Groups that were requested or listed so far.
    seen: HashSet<u128>,
}

impl ObviousResolver<'_> {
    /// Adds the patients and Groups that a list names, one a line; other lines are ignored.
    fn add_list(&mut self, bytes: &[u8]) {
        for line in bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            match Id::parse(line) {
                Some(id) => drop(self.patients.insert(entity("Patient", id.as_str()))),
                None => self.add_reference(str::from_utf8(line).unwrap_or_default(), GROUP_DEPTH_MAX),
            }
        }
    }

    /// Adds the Patient that a reference names, or enqueues the Group; other references are ignored.
    fn add_reference(&mut self, text: &str, depth: usize) {
        let Some(reference) = Reference::parse(text).filter(|reference| self.request.is_ours(reference.base)) else {
            return;
        };
        match reference.resource_type {
            ResourceType::PATIENT => drop(self.patients.insert(entity("Patient", reference.id))),
            ResourceType::GROUP => {
                let group = entity("Group", reference.id);
                if self.seen.insert(group) {
                    self.groups.push_back((group, depth + 1));
                }
            }
            _ => {}
        }
    }

    /// Adds the members of a Group; returns the hash of the Group's name. `None` if the Group does not list patients:
    /// it is of another type, defined by characteristics, or inactive when active ones are requested.
    fn add_group(&mut self, bytes: &[u8], depth: usize) -> Option<u128> {
        let text = without_lone_surrogates(str::from_utf8(bytes).unwrap_or_default());
        let want = WantedNames::of(&[
            "id",
            "type",
            "actual",
            "active",
            "characteristic",
            "member.inactive",
            "member.period.start",
            "member.period.end",
            "member.entity.reference",
            "member.entity.identifier.system",
            "member.entity.identifier.value",
        ]);
        let group = JsonTree::read(&text, &want)?;
        let last = |tree: &JsonTree<'_>, path: &str| tree.leaves(path).last().cloned();
        let members = group.objects("member").into_iter().filter(|member| matches!(member, Json::Map(_)));
        let members: Vec<JsonTree<'_>> = members.map(JsonTree::of).collect();
        let of_persons = match last(&group, "type") {
            Some(Json::Text(of)) => matches!(of.as_str(), "person" | "animal"),
            _ => true,
        };
        let by_rule = group.leaves("characteristic").any(|value| matches!(value, Json::List(_) | Json::Map(_)));
        let by_rule = by_rule && (members.is_empty() || last(&group, "actual") == Some(Json::Bool(false)));
        let refused = self.request.active && last(&group, "active") == Some(Json::Bool(false));
        if !of_persons || by_rule || refused {
            return None;
        }
        let named = match last(&group, "id") {
            Some(Json::Text(id)) => Some(entity("Group", &id)),
            _ => None,
        };
        self.seen.extend(named);
        let mut identifiers = HashSet::new();
        for member in &members {
            if self.request.active && !self.is_active(member) {
                continue;
            }
            let text = |path: &str| member.leaves(path).filter_map(Json::text).last();
            if let Some(reference) = text("entity.reference") {
                self.add_reference(reference, depth);
            } else if let Some(value) = text("entity.identifier.value") {
                identifiers.insert(identifier(text("entity.identifier.system").unwrap_or(""), value));
            }
        }
        self.resolve_identifiers(&identifiers);
        named
    }

    /// Whether a member is neither inactive nor outside its period at T (GROUP-04).
    fn is_active(&self, member: &JsonTree<'_>) -> bool {
        let instant = &self.request.as_of;
        let span =
            |path: &str| member.leaves(path).last().and_then(Json::text).and_then(|t| date_time_span(t.as_bytes()));
        let inactive = member.leaves("inactive").last() == Some(&Json::Bool(true));
        let begun = span("period.start").is_none_or(|(first, _)| first <= *instant);
        let over = span("period.end").is_some_and(|(_, after)| after <= *instant);
        !inactive && begun && !over
    }

    /// Adds the patients of members by identifier: the current Patient with that identifier, if there is exactly one.
    fn resolve_identifiers(&mut self, wanted: &HashSet<u128>) {
        if wanted.is_empty() {
            return;
        }
        let mut found: HashMap<u128, HashSet<u128>> = HashMap::new();
        for (i, version) in self.history.versions.iter().enumerate() {
            for identifier in version.identifiers.iter().filter(|identifier| wanted.contains(identifier)) {
                if self.history.current(version.entity, &self.request.as_of) == Some(i) {
                    found.entry(*identifier).or_default().insert(version.entity);
                }
            }
        }
        self.patients.extend(found.values().filter(|patients| patients.len() == 1).flatten());
    }
}
