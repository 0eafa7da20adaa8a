//! Whose records were asked for, resolved by obvious means: Groups as trees, lists line by line (readings 4–6).

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;

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
use crate::verify::output_file::entity;
use crate::verify::request::{RecordedRequest, VerifiedPopulation};
use crate::verify::version_history::{VersionHistory, identifier};

/// The patients asked for.
#[derive(Default)]
pub(crate) struct ListedMembers {
    /// Hashes of their names; `None` for everybody.
    patients: Option<HashSet<u128>>,
    /// The version of the Group asked for, if it lies in the store.
    pub group: Option<usize>,
}

impl ListedMembers {
    /// Whether a patient was asked for.
    pub(crate) fn hold_member(&self, patient: u128) -> bool {
        self.patients.as_ref().is_none_or(|patients| patients.contains(&patient))
    }

    /// Resolves a request's population.
    ///
    /// # Errors
    /// When a file or Group cannot be read any more as it was read for the export.
    pub(crate) fn resolve(history: &VersionHistory, recorded: &RecordedRequest) -> Result<ListedMembers, VerifyError> {
        let mut resolver = ObviousResolver {
            history,
            asked: recorded,
            patients: HashSet::new(),
            groups: VecDeque::new(),
            seen: HashSet::new(),
        };
        let mut group = None;
        match &recorded.whose {
            VerifiedPopulation::System | VerifiedPopulation::AllPatients => return Ok(ListedMembers::default()),
            VerifiedPopulation::Patients(path, hash) => resolver.list(&file(path, hash)?),
            VerifiedPopulation::Group(id) => {
                resolver.seen.insert(entity("Group", id));
                group = history.current(entity("Group", id), &recorded.as_of);
                if let Some(version) = group {
                    resolver.group(&history.bytes(version)?, 0);
                }
            }
            VerifiedPopulation::GroupFile(path, hash) => {
                // Its namesake in the store is the Group asked for, should `_type` name Group.
                let named = resolver.group(&file(path, hash)?, 0);
                group = named.and_then(|named| history.current(named, &recorded.as_of));
            }
        }
        // Breadth first; no Group is read twice, so that a cycle ends by itself.
        while let Some((group, depth)) = resolver.groups.pop_front() {
            if depth <= GROUP_DEPTH_MAX
                && let Some(version) = history.current(group, &recorded.as_of)
            {
                resolver.group(&history.bytes(version)?, depth);
            }
        }
        Ok(ListedMembers { patients: Some(resolver.patients), group })
    }
}

/// A file that names the population, if it is still the one that was read for the export.
fn file(path: &Path, hash: &str) -> Result<Vec<u8>, VerifyError> {
    let bytes = read_regular(path, POPULATION_BYTES_MAX)
        .map_err(|error| VerifyError::Read { path: path.to_path_buf(), source: error.into() })?;
    if format!("{:032x}", xxh3_128(&bytes)) == hash {
        return Ok(bytes);
    }
    let reason = "is not the file that the export was made with; name that one".to_string();
    Err(VerifyError::Index(IndexError::Changed { path: path.to_path_buf(), reason }))
}

struct ObviousResolver<'a> {
    history: &'a VersionHistory,
    asked: &'a RecordedRequest,
    patients: HashSet<u128>,
    /// Groups still to read, and how deep they are nested.
    groups: VecDeque<(u128, usize)>,
    /// Groups that were asked for or listed.
    seen: HashSet<u128>,
}

impl ObviousResolver<'_> {
    fn list(&mut self, bytes: &[u8]) {
        for line in bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            match Id::parse(line) {
                Some(id) => drop(self.patients.insert(entity("Patient", id.as_str()))),
                None => self.reference(str::from_utf8(line).unwrap_or_default(), GROUP_DEPTH_MAX),
            }
        }
    }

    fn reference(&mut self, text: &str, depth: usize) {
        let Some(reference) = Reference::parse(text).filter(|reference| self.asked.is_ours(reference.base)) else {
            return;
        };
        match reference.resource_type {
            ResourceType::PATIENT => drop(self.patients.insert(entity("Patient", reference.id.as_str()))),
            ResourceType::GROUP => {
                let group = entity("Group", reference.id.as_str());
                if self.seen.insert(group) {
                    self.groups.push_back((group, depth + 1));
                }
            }
            _ => {}
        }
    }

    /// Takes the members of a Group that stands for patients; its name.
    fn group(&mut self, bytes: &[u8], depth: usize) -> Option<u128> {
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
        let refused = self.asked.active && last(&group, "active") == Some(Json::Bool(false));
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
            if self.asked.active && !self.is_active(member) {
                continue;
            }
            let text = |path: &str| member.leaves(path).filter_map(Json::text).last();
            if let Some(reference) = text("entity.reference") {
                self.reference(reference, depth);
            } else if let Some(value) = text("entity.identifier.value") {
                identifiers.insert(identifier(text("entity.identifier.system").unwrap_or(""), value));
            }
        }
        self.resolve_identifier(&identifiers);
        named
    }

    /// Neither inactive nor outside its period at T (GROUP-04).
    fn is_active(&self, member: &JsonTree<'_>) -> bool {
        let instant = &self.asked.as_of;
        let span =
            |path: &str| member.leaves(path).last().and_then(Json::text).and_then(|t| date_time_span(t.as_bytes()));
        let inactive = member.leaves("inactive").last() == Some(&Json::Bool(true));
        let begun = span("period.start").is_none_or(|(first, _)| first <= *instant);
        let over = span("period.end").is_some_and(|(_, after)| after <= *instant);
        !inactive && begun && !over
    }

    /// Members by identifier: each stands for the one current Patient that has it, if it is one.
    fn resolve_identifier(&mut self, wanted: &HashSet<u128>) {
        if wanted.is_empty() {
            return;
        }
        let mut found: HashMap<u128, HashSet<u128>> = HashMap::new();
        for (i, version) in self.history.versions.iter().enumerate() {
            for identifier in version.identifiers.iter().filter(|identifier| wanted.contains(identifier)) {
                if self.history.current(version.entity, &self.asked.as_of) == Some(i) {
                    found.entry(*identifier).or_default().insert(version.entity);
                }
            }
        }
        self.patients.extend(found.values().filter(|patients| patients.len() == 1).flatten());
    }
}
