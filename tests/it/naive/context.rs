//! Referenced context in the naive oracle: what exported rows refer to, and what those refer to, until nothing is new.

use super::cohort::Cohort;
use super::line::Row;
use super::store::Store;
use super::view::{self, State};
use super::{Request, Who, associated, class_of, deletions_wanted, in_scope, wanted};
use std::collections::{BTreeMap, BTreeSet};

/// Types of context (COMP-06).
pub(crate) const TYPES: [&str; 10] = [
    "Practitioner",
    "PractitionerRole",
    "Organization",
    "Location",
    "Medication",
    "Device",
    "HealthcareService",
    "Endpoint",
    "Substance",
    "Questionnaire",
];

/// The current rows of context of an export, beside its `exported` rows.
pub(crate) fn context(
    store: &Store,
    request: &Request,
    cohort: &Cohort,
    exported: &BTreeSet<usize>,
) -> BTreeSet<usize> {
    if !request.context || matches!(request.who, Who::System) {
        return BTreeSet::new();
    }
    let question = Question { store, request, cohort, current: current(store, request) };
    let mut found = question.closure(exported);
    if request.since.is_some() {
        // What an export without a window has, and of that what is in the window.
        let whole = Request { since: None, until: None, late: BTreeSet::new(), ..request.clone() };
        let mut rows: BTreeSet<usize> =
            (0..store.entries.len()).filter(|index| is_exported(store, &whole, cohort, *index)).collect();
        rows.extend(associated(store, &whole, &rows));
        let windowed = |index: &usize| {
            let everyone = Request {
                who: Who::System,
                types: BTreeSet::new(),
                associated: None,
                filters: Vec::new(),
                ..request.clone()
            };
            is_exported(store, &everyone, cohort, *index)
        };
        let changed: BTreeSet<usize> = question.closure(&rows).into_iter().filter(windowed).collect();
        found.extend(question.closure(&changed));
        found.extend(changed);
    }
    found.retain(|index| !exported.contains(index));
    found
}

/// Whether a line is exported for what it is.
fn is_exported(store: &Store, request: &Request, cohort: &Cohort, index: usize) -> bool {
    matches!(store.entries[index].what, super::Line::Row(_))
        && class_of(store, request, cohort, index, &mut Default::default()) == "exported"
}

/// Whether a deletion of context is listed: any version of the cohort leads to the resource.
pub(crate) fn leads_to_deleted(store: &Store, request: &Request, cohort: &Cohort, version: usize) -> bool {
    let question = Question { store, request, cohort, current: BTreeMap::new() };
    request.context
        && !matches!(request.who, Who::System)
        && question.may_leave(version)
        && names(store.row(version)).iter().any(|name| question.names_ever().contains(name))
}

/// The names by which references name a row: type and id, or type and identifier.
fn names(row: &Row) -> BTreeSet<String> {
    let of = |(system, value): &(Option<String>, String)| {
        format!("{}?{}|{value}", row.resource_type, system.as_deref().unwrap_or(""))
    };
    let own = format!("{}/{}", row.resource_type, row.id);
    row.identifiers.iter().map(of).chain([own]).collect()
}

/// The name that a reference gives.
fn name(store: &Store, reference: &str) -> Option<String> {
    if let Some((of_type, id)) = store.local(reference) {
        return TYPES.contains(&of_type.as_str()).then(|| format!("{of_type}/{id}"));
    }
    let (of_type, identifier) = store.relative(reference)?.split_once("?identifier=")?;
    let identifier = identifier.replace("%7C", "|");
    let is_one = !identifier.contains(['&', ',', '#', '\\']) && identifier.contains('|') && !identifier.ends_with('|');
    (is_one && TYPES.contains(&of_type)).then(|| format!("{of_type}?{identifier}"))
}

/// The current rows of context by each of their names.
fn current(store: &Store, request: &Request) -> BTreeMap<String, Vec<usize>> {
    let mut current: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for index in store.entities.values().flat_map(|entity| entity.versions.iter().copied()) {
        let row = store.row(index);
        if TYPES.contains(&row.resource_type.as_str()) && view::state(store, index, &request.as_of) == State::Current {
            names(row).into_iter().for_each(|name| current.entry(name).or_default().push(index));
        }
    }
    current
}

struct Question<'a> {
    store: &'a Store,
    request: &'a Request,
    cohort: &'a Cohort,
    current: BTreeMap<String, Vec<usize>>,
}

impl Question<'_> {
    /// The rows of context that rows lead to.
    fn closure(&self, rows: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut waiting: Vec<usize> = rows.iter().copied().collect();
        while let Some(index) = waiting.pop() {
            for name in self.store.row(index).mentions.iter().filter_map(|text| name(self.store, text)) {
                // Of several resources of one identifier none is taken.
                let Some([one]) = self.current.get(&name).map(|all| &all[..]) else { continue };
                if self.may_leave(*one) && !rows.contains(one) && found.insert(*one) {
                    waiting.push(*one);
                }
            }
        }
        found
    }

    /// Whether a row is of a selected type of context, and no other patient's.
    fn may_leave(&self, index: usize) -> bool {
        let row = self.store.row(index);
        TYPES.contains(&row.resource_type.as_str())
            && wanted(self.request, &row.resource_type)
            && (!row.names_patient || in_scope(self.store, self.request, self.cohort, index))
    }

    /// The names that any version of the cohort gives, or a version of context of such a name.
    fn names_ever(&self) -> BTreeSet<String> {
        let mut known = BTreeSet::new();
        loop {
            let before = known.len();
            for index in self.store.entities.values().flat_map(|entity| entity.versions.iter().copied()) {
                let row = self.store.row(index);
                let is_past = row.last_updated.as_ref().is_none_or(|when| *when <= self.request.as_of);
                let is_named = || names(row).iter().any(|name| known.contains(name));
                if is_past
                    && deletions_wanted(self.request, &row.resource_type)
                    && (in_scope(self.store, self.request, self.cohort, index) || self.may_leave(index) && is_named())
                {
                    known.extend(row.mentions.iter().filter_map(|text| name(self.store, text)));
                }
            }
            if known.len() == before {
                return known;
            }
        }
    }
}
