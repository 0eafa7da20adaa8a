//! Searches registry and store together, in the order of ids, one page at a time.
//!
//! Facts in memory answer every parameter but `member`, for which the few Groups that may match are read. A page starts
//! after an id, so a Group created or deleted between two pages moves no other Group to another page. The total is
//! counted for each page again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fhir::base_url::BaseUrls;
use crate::fhir::id::Id;
use crate::group::facts::{GroupFact, GroupFactReader};
use crate::group::registry::query::{GroupQuery, ReferenceCriterion};
use crate::group::registry::store_groups::StoreLocation;
use crate::group::registry::view::{GroupLookup, GroupView, facts_of, registry_has};
use crate::group::registry::{EntryState, GroupsError, RegistryEntry};
use crate::limits::READ_BYTES;
use crate::simd::Kernel;

/// The page of the results that is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SearchPage {
    /// The last id of the page before; `None` for the first page.
    pub after: Option<Id>,
    /// Most Groups of the page; 0 counts only.
    pub count: usize,
    /// The page ends with the Group that takes it past so many bytes of resources.
    pub bytes_max: u64,
}

/// Total and continuation of a search, after its page was passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SearchSummary {
    /// Groups that match, on all pages.
    pub total: u64,
    /// The last id of this page; `None` if no Group follows it.
    pub next: Option<Id>,
    /// Groups of which nobody knows whether they match, because their files are damaged: on the first page, and no more
    /// than the page has room for. They are not in the total.
    pub damaged: Vec<Id>,
}

/// A Group that matches a search.
pub(crate) struct SearchHit {
    /// Id of the Group.
    pub id: Id,
    /// A [`GroupLookup::Registered`] or [`GroupLookup::Store`].
    pub found: GroupLookup,
}

impl SearchHit {
    /// Bytes of the Group's resource.
    pub(crate) fn len(&self) -> u64 {
        match &self.found {
            GroupLookup::Registered(group) => group.len(),
            GroupLookup::Store(group) => group.len(),
            GroupLookup::Deleted { .. } | GroupLookup::Unknown => 0,
        }
    }
}

/// The registry's and the store's state of an id, before its Group is examined; `None` if not looked up or missing.
#[derive(Default)]
struct SearchCandidate {
    entry: Option<Arc<RegistryEntry>>,
    in_store: Option<StoreLocation>,
}

impl GroupView<'_> {
    /// Searches, and passes each Group of a page to `on_hit`, in the order of ids. Blocks.
    ///
    /// # Errors
    /// If the registry or the store cannot be read, or the error of `on_hit`.
    pub(crate) fn search(
        &self,
        query: &GroupQuery,
        page: SearchPage,
        on_hit: &mut dyn FnMut(SearchHit) -> Result<(), GroupsError>,
    ) -> Result<SearchSummary, GroupsError> {
        self.registry.store_facts.lock().expect("no panic under it").begin();
        let (mut total, mut reported, mut bytes) = (0u64, 0usize, 0u64);
        let (mut last, mut next) = (None, None);
        let mut damaged = Vec::new();
        for (id, candidate) in self.candidates(query)? {
            let on_page = page.after.is_none_or(|after| id > after) && next.is_none() && page.count > 0;
            let full = reported >= page.count || bytes > page.bytes_max;
            let wanted = on_page && !full;
            let hit = match self.examine(&id, candidate, query, wanted) {
                // One file of the registry stops its own Group only.
                Err(GroupsError::Damaged { .. } | GroupsError::Io { .. }) => {
                    if page.after.is_none() && damaged.len() < page.count {
                        damaged.push(id);
                    }
                    continue;
                }
                examined => examined?,
            };
            let Some(hit) = hit else { continue };
            total += 1;
            if wanted {
                (reported, bytes, last) = (reported + 1, bytes + hit.len(), Some(id));
                on_hit(hit)?;
            } else if on_page {
                next = last;
            }
        }
        Ok(SearchSummary { total, next, damaged })
    }

    /// Every id that may have a matching Group, with its states in registry and store.
    fn candidates(&self, query: &GroupQuery) -> Result<BTreeMap<Id, SearchCandidate>, GroupsError> {
        let mut candidates: BTreeMap<Id, SearchCandidate> = BTreeMap::new();
        // A client that may see certain Groups only: they are looked up by id, so other Groups cost no time.
        let visible = || self.visible.map(|ids| ids.iter().filter_map(|id| Id::parse_r4(id.as_bytes())).collect());
        match (query.ids().or_else(visible), &self.store) {
            (Some(ids), store) => {
                for id in ids.into_iter().filter(|id| self.is_seen(id)) {
                    let in_store = store.as_ref().map(|store| store.find(&id)).transpose()?;
                    candidates.insert(id, SearchCandidate { entry: self.registry.entry(&id), in_store });
                }
                return Ok(candidates);
            }
            (None, Some(store)) => store.each_group(&mut |id, current| {
                candidates.entry(id).or_default().in_store = Some(current);
            })?,
            (None, None) => {}
        }
        for (id, entry) in self.registry.entries() {
            candidates.entry(id).or_default().entry = Some(entry);
        }
        Ok(candidates)
    }

    /// The Group of a candidate if it matches. One that is not `wanted` on the page is opened only if its bytes decide.
    fn examine(
        &self,
        id: &Id,
        candidate: SearchCandidate,
        query: &GroupQuery,
        wanted: bool,
    ) -> Result<Option<SearchHit>, GroupsError> {
        let SearchCandidate { entry, in_store } = candidate;
        let is_newer = |entry: &RegistryEntry| in_store.as_ref().is_none_or(|in_store| registry_has(entry, in_store));
        let by_members = !query.members().is_empty();
        if let Some(entry) = entry.as_deref().filter(|entry| is_newer(entry)) {
            if let EntryState::Damaged(reason) = &entry.state {
                return Err(self.registry.damaged(id, reason.clone()));
            }
            let Some(facts) = facts_of(entry) else { return Ok(None) };
            if !query.may_match(id, facts, BaseUrls::new(self.bases)) {
                return Ok(None);
            }
            // The store may have a later deletion, which only a lookup by id finds.
            let in_store = match (in_store, &self.store) {
                (None, Some(store)) => store.find(id)?,
                (in_store, _) => in_store.unwrap_or(StoreLocation::Unknown),
            };
            if !registry_has(entry, &in_store) {
                return Ok(None);
            }
            if !wanted && !by_members {
                return Ok(Some(SearchHit { id: *id, found: GroupLookup::Unknown }));
            }
            // Another version may be there by now, so the opened one is matched again.
            let found = {
                let _reading = self.registry.reading(id);
                self.merge(id, self.registry.entry(id).as_deref(), in_store)?
            };
            return self.confirm_hit(id, found, query);
        }
        match (in_store, &self.store) {
            (Some(StoreLocation::Current { row, .. }), Some(store)) => {
                let group = store.read_group(self.registry, row)?;
                self.confirm_hit(id, GroupLookup::Store(group), query)
            }
            _ => Ok(None),
        }
    }

    /// The opened Group as a hit if it matches every criterion, members included.
    fn confirm_hit(&self, id: &Id, found: GroupLookup, query: &GroupQuery) -> Result<Option<SearchHit>, GroupsError> {
        let matches = match found.facts() {
            Some(facts) => query.may_match(id, facts, BaseUrls::new(self.bases)),
            None => false,
        };
        let matches = matches && self.has_members(&found, &query.members())?;
        Ok(matches.then_some(SearchHit { id: *id, found }))
    }

    /// Whether a Group has a member that matches at least one value of each list. Streams the Group.
    fn has_members(&self, found: &GroupLookup, lists: &[&[ReferenceCriterion]]) -> Result<bool, GroupsError> {
        if lists.is_empty() {
            return Ok(true);
        }
        let bases = BaseUrls::new(self.bases);
        let mut is_met = vec![false; lists.len()];
        let mut on_fact = |fact: GroupFact<'_>| {
            let GroupFact::Member(reference) = fact else { return };
            for (is_met, targets) in is_met.iter_mut().zip(lists) {
                *is_met = *is_met || targets.iter().any(|target| target.matches(reference, bases));
            }
        };
        let mut reader = GroupFactReader::new(Kernel::detect(), &mut on_fact);
        match found {
            GroupLookup::Registered(group) => {
                let mut buffer = vec![0; READ_BYTES.min(group.len() as usize)];
                let mut offset = 0;
                while offset < group.len() {
                    let len = buffer.len().min((group.len() - offset) as usize);
                    group.read_at(offset, &mut buffer[..len])?;
                    reader.feed(&buffer[..len]);
                    offset += len as u64;
                }
            }
            GroupLookup::Store(group) => group.stream(0..group.len(), &mut |piece| reader.feed(piece))?,
            GroupLookup::Deleted { .. } | GroupLookup::Unknown => return Ok(false),
        }
        Ok(is_met.iter().all(|is_met| *is_met))
    }
}
