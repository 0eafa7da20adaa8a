//! The two questions of the naive oracle: which version of a resource is current at an instant, and is it of the
//! cohort.

use super::cohort::Cohort;
use super::instant::Instant;
use super::store::{Entity, Store, Tombstone};
use std::collections::BTreeSet;

/// Whether an observer has seen a line, by its index in the store's entries.
pub(crate) type Known<'a> = &'a dyn Fn(usize) -> bool;

/// State of a version at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Current,
    Future,
    Superseded,
    Deleted,
}

/// The latest version at an instant, deleted or not.
pub(crate) fn last_version(store: &Store, entity: &Entity, instant: &Instant, known: Known) -> Option<usize> {
    let visible =
        |index: &usize| known(*index) && store.row(*index).last_updated.as_ref().is_none_or(|when| when <= instant);
    entity.versions.iter().copied().filter(visible).max_by_key(|index| (store.row(*index).age(), *index))
}

/// The tombstones at an instant that are later than the latest version. A tombstone dated as the version is older than
/// it.
pub(crate) fn last_tombstones<'a>(
    store: &'a Store,
    entity: &'a Entity,
    position: &'a Instant,
    known: Known<'a>,
) -> impl Iterator<Item = &'a Tombstone> {
    let version = last_version(store, entity, position, known);
    let age = version.and_then(|index| store.row(index).last_updated.as_ref());
    entity.tombstones.iter().filter(move |tomb| {
        known(tomb.index) && tomb.when <= *position && age.is_none_or(|version| tomb.when > *version)
    })
}

/// The version of a `Type/id` that is current at an instant.
pub(crate) fn current(store: &Store, name: &str, id: &str, instant: &Instant, known: Known) -> Option<usize> {
    let entity = store.entities.get(&(name.to_string(), id.to_string()))?;
    let version = last_version(store, entity, instant, known)?;
    last_tombstones(store, entity, instant, known).next().is_none().then_some(version)
}

/// The latest version of a `Type/id` at an instant, deleted or not.
pub(crate) fn last(store: &Store, name: &str, id: &str, instant: &Instant, known: Known) -> Option<usize> {
    last_version(store, store.entities.get(&(name.to_string(), id.to_string()))?, instant, known)
}

/// The state of a version at an instant.
pub(crate) fn state(store: &Store, index: usize, instant: &Instant) -> State {
    let row = store.row(index);
    if row.last_updated.as_ref().is_some_and(|when| when > instant) {
        return State::Future;
    }
    let entity = &store.entities[&(row.resource_type.clone(), row.id.clone())];
    let everything = |_| true;
    if last_version(store, entity, instant, &everything) != Some(index) {
        State::Superseded
    } else if last_tombstones(store, entity, instant, &everything).next().is_some() {
        State::Deleted
    } else {
        State::Current
    }
}

/// The row that a `Type/id` resolves to, for an observer at some instant who has seen some lines.
pub(crate) type Resolve<'a> = &'a dyn Fn(&str, &str) -> Option<usize>;

/// Whether a version is in a compartment of the cohort. A Provenance is in the compartments of the last version of each
/// of its targets, deleted or not (COMP-08: a reader of a record learns of its history); a Group is in none (COMP-09).
pub(crate) fn belongs(store: &Store, cohort: &Cohort, index: usize, resolve: Resolve) -> bool {
    let mut seen = BTreeSet::new();
    let mut waiting = vec![index];
    while let Some(index) = waiting.pop() {
        let row = store.row(index);
        let of_patient = |text: &String| store.local_patient(text).is_some_and(|id| cohort.holds(&id));
        let itself = row.resource_type == "Patient" && cohort.holds(&row.id);
        if row.resource_type != "Group" && (itself || row.references.iter().any(of_patient)) {
            return true;
        }
        if row.resource_type == "Provenance" && seen.insert(index) {
            let targets = row.references.iter().filter_map(|text| store.local(text));
            waiting.extend(targets.filter_map(|(name, id)| resolve(&name, &id)));
        }
    }
    false
}
