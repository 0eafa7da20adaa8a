//! The cohort of a request: the members of a Group (nested, by identifier, active or merely listed), a list of
//! patients, all patients, or the whole store.

use super::instant::{self, Instant};
use super::store::Store;
use super::{Members, Request, Who, view};
use serde_json::Value;
use std::collections::BTreeSet;

/// The patients of an export, by id.
pub(crate) struct Cohort {
    /// Ids of the patients; `None` for all, also those without a row.
    pub patients: Option<BTreeSet<String>>,
    /// The exported Group: the only one whose row may be in the export.
    pub group: Option<String>,
    /// Members that resolve to nothing, and patients without a current row.
    pub warnings: u64,
}

impl Cohort {
    pub(crate) fn holds(&self, patient: &str) -> bool {
        self.patients.as_ref().is_none_or(|patients| patients.contains(patient))
    }
}

/// Resolves the cohort of a request at T.
///
/// # Errors
/// The reason for refusing the request.
pub(crate) fn resolve(store: &Store, request: &Request) -> Result<Cohort, String> {
    let mut found = Cohort { patients: Some(BTreeSet::new()), group: None, warnings: 0 };
    match &request.who {
        Who::AllPatients | Who::System => found.patients = None,
        Who::Patients(list) => {
            for text in list {
                let id = store.local_patient(text).or_else(|| super::line::is_id(text).then(|| text.clone()));
                found.patients.as_mut().unwrap().insert(id.ok_or("no patient")?);
            }
        }
        Who::GroupId(id) => {
            let group = group_row(store, id, &request.as_of).ok_or_else(|| format!("no Group/{id}"))?;
            add_group(store, request, &group, &mut found)?;
        }
        Who::GroupFile(group) => add_group(store, request, group, &mut found)?,
    }
    if let Some(only) = &request.only {
        let holds = |id: &&String| found.patients.as_ref().is_none_or(|patients| patients.contains(*id));
        let restricted: BTreeSet<String> = only.iter().filter(holds).cloned().collect();
        found.warnings += (only.len() - restricted.len()) as u64;
        found.patients = Some(restricted);
        // The Group's row lists others.
        found.group = None;
    }
    if let Some(patients) = &found.patients {
        let has_row = |id: &&String| view::current(store, "Patient", id, &request.as_of, &|_| true).is_none();
        found.warnings += patients.iter().filter(has_row).count() as u64;
    }
    Ok(found)
}

/// Adds the members of the requested Group and of the Groups nested in it.
fn add_group(store: &Store, request: &Request, group: &Value, found: &mut Cohort) -> Result<(), String> {
    if let Some(why) = unusable(group, request) {
        return Err(why.into());
    }
    if has_modifier(group) {
        return Err("a Group with a modifier".into());
    }
    found.group = group["id"].as_str().map(str::to_string);
    let mut seen = BTreeSet::from_iter(found.group.clone());
    // Level by level, so that a Group counts at its least depth.
    let mut level = members(store, request, group, found);
    for depth in 1.. {
        let mut next = Vec::new();
        level.retain(|id| seen.insert(id.clone()));
        for id in &level {
            let nested = group_row(store, id, &request.as_of).filter(|_| depth <= DEPTH_MAX);
            if nested.as_ref().is_some_and(has_modifier) {
                return Err("a nested Group with a modifier".into());
            }
            match nested.filter(|nested| unusable(nested, request).is_none()) {
                Some(nested) => next.extend(members(store, request, &nested, found)),
                None => found.warnings += 1,
            }
        }
        if next.is_empty() {
            break;
        }
        level = next;
    }
    Ok(())
}

/// Deepest nesting that is followed (GROUP-03).
const DEPTH_MAX: usize = 16;

/// Whether a modifier changes the meaning of a Group, or of a part of it that decides its members (reading 22).
fn has_modifier(group: &Value) -> bool {
    let filter = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter";
    let parts = each(&group["member"]).into_iter().flat_map(|member| [vec![member], each(&member["entity"])].concat());
    let parts = parts.chain(each(&group["characteristic"])).chain([group]);
    let mut modifiers = parts.flat_map(|part| each(&part["modifierExtension"]));
    modifiers.next().is_some()
        || !group["implicitRules"].is_null()
        || each(&group["extension"]).iter().any(|extension| extension["url"] == filter)
}

/// Reason why a Group cannot be exported; `None` if it can.
fn unusable(group: &Value, request: &Request) -> Option<&'static str> {
    if matches!(group["type"].as_str(), Some("practitioner" | "device" | "medication" | "substance")) {
        return Some("a Group of no persons");
    }
    let is_described = group["member"].as_array().is_none_or(Vec::is_empty) || group["actual"] == false;
    if is_described && !group["characteristic"].is_null() {
        return Some("a Group of characteristics");
    }
    (group["active"] == false && request.members == Members::Active).then_some("a Group that is not active")
}

/// Adds the patients that a Group lists to the cohort; returns the ids of the Groups that it lists.
fn members(store: &Store, request: &Request, group: &Value, found: &mut Cohort) -> Vec<String> {
    let mut groups = Vec::new();
    for member in each(&group["member"]) {
        if request.members == Members::Active && !is_active(member, &request.as_of) {
            continue;
        }
        let entity = each(&member["entity"]).into_iter().next().unwrap_or(&Value::Null);
        let target = match entity["reference"].as_str() {
            Some(reference) => store.local(reference),
            None => by_identifier(store, &entity["identifier"], &request.as_of).map(|id| ("Patient".into(), id)),
        };
        match target {
            Some((name, id)) if name == "Patient" => {
                found.patients.as_mut().unwrap().insert(id);
            }
            Some((name, id)) if name == "Group" => groups.push(id),
            _ => found.warnings += 1,
        }
    }
    groups
}

/// The items of a list, or the one value in place of a list (reading 8).
fn each(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().flat_map(each).collect(),
        one => vec![one],
    }
}

fn is_active(member: &Value, time: &Instant) -> bool {
    let edge = |name: &str| member["period"][name].as_str().and_then(instant::span);
    member["inactive"] != Value::Bool(true)
        && edge("start").is_none_or(|(begin, _)| begin <= *time)
        && edge("end").is_none_or(|(_, after)| *time < after)
}

/// The id of the one Patient current at T that has the identifier; `None` if there is none, or more than one.
fn by_identifier(store: &Store, identifier: &Value, instant: &Instant) -> Option<String> {
    let wanted = (identifier["system"].as_str().map(str::to_string), identifier["value"].as_str()?.to_string());
    let matching = store.entities.keys().filter(|(name, id)| {
        name == "Patient"
            && view::current(store, "Patient", id, instant, &|_| true)
                .is_some_and(|row| store.row(row).identifiers.contains(&wanted))
    });
    let ids: Vec<&String> = matching.map(|(_, id)| id).collect();
    if let [id] = ids[..] { Some(id.clone()) } else { None }
}

fn group_row(store: &Store, id: &str, instant: &Instant) -> Option<Value> {
    let row = view::current(store, "Group", id, instant, &|_| true)?;
    super::line::document(&store.entries[row].bytes)
}
