//! `includeAssociatedData` in the naive oracle: the Provenance of what is exported, whatever else says of it.

use super::Request;
use super::store::Store;
use super::view::{self, State};
use std::collections::{BTreeMap, BTreeSet};

/// The Provenance that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Associated {
    /// Of each resource the newest.
    Latest,
    /// All of it.
    Relevant,
}

impl Associated {
    /// Its code.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Associated::Latest => "LatestProvenanceResources",
            Associated::Relevant => "RelevantProvenanceResources",
        }
    }
}

/// The current Provenances about exported rows (ASSOC-02, ASSOC-03).
pub(crate) fn associated(store: &Store, request: &Request, exported: &BTreeSet<usize>) -> BTreeSet<usize> {
    let Some(asked) = request.associated else { return BTreeSet::new() };
    let mut about: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in store.entities.values().flat_map(|entity| entity.versions.iter().copied()) {
        let row = store.row(index);
        if row.resource_type != "Provenance" || view::state(store, index, &request.as_of) != State::Current {
            continue;
        }
        for (name, id) in row.references.iter().filter_map(|text| store.local(text)) {
            let last = view::last(store, &name, &id, &request.as_of, &|_| true);
            if let Some(target) = last.filter(|target| exported.contains(target)) {
                about.entry(target).or_default().push(index);
            }
        }
    }
    // A tie of the newest is broken by lastUpdated, then by id, then by position (ASSOC-06).
    let age = |index: &usize| {
        let row = store.row(*index);
        (row.recorded.clone(), row.last_updated.clone(), row.id.clone(), *index)
    };
    match asked {
        Associated::Relevant => about.into_values().flatten().collect(),
        Associated::Latest => about.into_values().filter_map(|all| all.into_iter().max_by_key(age)).collect(),
    }
}
