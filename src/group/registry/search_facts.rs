//! Facts of Groups that are held in memory, enough to answer most searches without reading a Group, and the cache of
//! facts of the store's Groups.
//!
//! Members are a Bloom filter of ten bits each; a match by member is confirmed by reading the Group. With 1,000 Groups
//! of 10,000 members (720 MB) the filters take 12.5 MB, where sorted 64-bit hashes would take 80; a search for a member
//! takes 27 ms, where reading every Group takes 4.1 s (one run, built without full optimisation).

use std::collections::HashMap;

use crate::extract::fault::Fault;
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::reference::Reference;
use crate::group::facts::{GroupFact, GroupFactReader};
use crate::group::values::ValueScan;
use crate::hash::{Hasher64, xxh3_64};
use crate::limits::{GROUP_FACTS_BYTES_MAX, GROUP_FILTER_BYTES_MAX, GROUP_TOKENS_MAX};
use crate::simd::Kernel;

/// Searchable facts of one version of a Group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SearchFacts {
    /// Whether `resourceType` is `Group`.
    pub is_group: bool,
    /// `Group.id`, if it is a legal id.
    pub id: Option<Id>,
    /// `meta.versionId`; `x` and the XXH3-64 of the bytes if it is missing or illegal, so that every version has a
    /// name.
    pub version: String,
    /// `meta.lastUpdated`, if it is an instant.
    pub last_updated: Option<Instant>,
    /// `Group.name`, if there is one.
    pub name: Option<String>,
    /// `Group.type`, if there is one.
    pub group_type: Option<String>,
    /// `Group.actual`, if it is a boolean.
    pub actual: Option<bool>,
    /// `managingEntity.reference`, if there is one.
    pub managing_entity: Option<String>,
    /// `identifier`: system (empty if none) and value, the first [`GROUP_TOKENS_MAX`].
    pub identifiers: Vec<(String, String)>,
    /// `code.coding`: system (empty if none) and code, the first [`GROUP_TOKENS_MAX`].
    pub codes: Vec<(String, String)>,
    /// Bloom filter of the members' keys.
    pub members: MemberFilter,
    /// Whether some readers of JSON refuse the Group, and with it any document that it stands in.
    pub is_unreadable: bool,
}

impl SearchFacts {
    /// Reads the search facts to keep in memory from a document, whose pieces `feed_pieces` passes on in order. The
    /// inner error is the document's first fault.
    ///
    /// # Errors
    /// The error of `feed_pieces`.
    pub(crate) fn read<E>(
        feed_pieces: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    ) -> Result<Result<SearchFacts, Fault>, E> {
        let mut facts = SearchFacts::default();
        let mut keys = Vec::new();
        let mut hash = Hasher64::new();
        let (mut values, mut is_unreadable) = (ValueScan::new(), false);
        let mut on_fact = |fact: GroupFact<'_>| match fact {
            GroupFact::ResourceType(text) => facts.is_group = text == "Group",
            GroupFact::Id(text) => facts.id = Id::parse_r4(text.as_bytes()),
            GroupFact::Version(text) => facts.version = text.to_string(),
            GroupFact::Updated(text) => facts.last_updated = Instant::parse(text),
            GroupFact::Name(text) => facts.name = Some(text.to_string()),
            GroupFact::Type(text) => facts.group_type = Some(text.to_string()),
            GroupFact::Actual(truth) => facts.actual = Some(truth),
            GroupFact::ManagingEntity(text) => facts.managing_entity = Some(text.to_string()),
            GroupFact::Identifier(system, value) => push_token(&mut facts.identifiers, system, value),
            GroupFact::Code(system, code) => push_token(&mut facts.codes, system, code),
            GroupFact::Member(text) => keys.push(member_key(text)),
        };
        let outcome = {
            let mut reader = GroupFactReader::new(Kernel::detect(), &mut on_fact);
            feed_pieces(&mut |piece| {
                hash.update(piece);
                values.feed(piece, &mut |found| is_unreadable |= found.fault.is_unreadable());
                reader.feed(piece);
            })?;
            reader.finish()
        };
        facts.members = MemberFilter::from_keys(&keys);
        facts.is_unreadable = is_unreadable;
        // A version id is sent in an HTTP header, so an illegal one is replaced.
        if Id::parse_r4(facts.version.as_bytes()).is_none() {
            facts.version = format!("x{:016x}", hash.digest());
        }
        Ok(outcome.map(|()| facts))
    }

    /// Estimated bytes that the search facts of a Group take in memory.
    fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let tokens = self.identifiers.iter().chain(&self.codes);
        let tokens: usize = tokens.map(|(system, value)| system.len() + value.len() + 48).sum();
        256 + tokens + self.members.bits.len() * 8 + text(&self.name) + text(&self.managing_entity)
    }
}

/// Adds a system and value to the search facts in memory, a list of at most [`GROUP_TOKENS_MAX`].
fn push_token(list: &mut Vec<(String, String)>, system: &str, value: &str) {
    if list.len() < GROUP_TOKENS_MAX {
        list.push((system.to_string(), value.to_string()));
    }
}

/// Key of a member in the filter of the search facts: the hash of its id, whatever its base and type, or of its whole
/// text if that is no reference to a resource.
pub(crate) fn member_key(reference: &str) -> u64 {
    match Reference::parse(reference) {
        Some(parsed) => xxh3_64(parsed.id.as_bytes()),
        None => xxh3_64(reference.as_bytes()),
    }
}

/// A Bloom filter of member keys (<https://doi.org/10.1145/362686.362692>): no false negatives, about one false
/// positive in a hundred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberFilter {
    bits: Box<[u64]>,
}

impl MemberFilter {
    const BITS_PER_KEY: usize = 10;
    const PROBES: u64 = 5;

    /// The search fact in memory that stands for members: a filter of keys, at most [`GROUP_FILTER_BYTES_MAX`] bytes.
    fn from_keys(keys: &[u64]) -> MemberFilter {
        let words = (keys.len() * Self::BITS_PER_KEY).div_ceil(64).min(GROUP_FILTER_BYTES_MAX / 8);
        let mut filter = MemberFilter { bits: vec![0; words].into() };
        for key in keys {
            for bit in filter.filter_slots(*key) {
                filter.bits[bit / 64] |= 1 << (bit % 64);
            }
        }
        filter
    }

    /// The bits of a key in the member filter of the search facts; the filter is not empty.
    fn filter_slots(&self, key: u64) -> impl Iterator<Item = usize> + use<> {
        let bits = self.bits.len() as u64 * 64;
        let step = key.rotate_left(32) | 1;
        (0..Self::PROBES).map(move |probe| (key.wrapping_add(step.wrapping_mul(probe)) % bits) as usize)
    }

    /// Whether a key may be in the member filter of the search facts; if false, it is not.
    pub(crate) fn may_contain(&self, key: u64) -> bool {
        !self.bits.is_empty() && self.filter_slots(key).all(|bit| self.bits[bit / 64] >> (bit % 64) & 1 == 1)
    }
}

/// Key of a store's row in the cache: content hash of its segment, and its number there. Segments of the same hash have
/// the same rows, so no change of the store invalidates an entry.
pub(crate) type RowKey = (u64, usize);

/// Cache of the facts of the store's Groups, of at most [`GROUP_FACTS_BYTES_MAX`] bytes.
#[derive(Debug, Default)]
pub(crate) struct FactsCache {
    /// Facts by row, with the number of the last search that used them.
    rows: HashMap<RowKey, (u64, std::sync::Arc<SearchFacts>)>,
    /// Sum of [`SearchFacts::bytes`].
    bytes: usize,
    /// Number of the current search. Rows that a store no longer has are evicted because no search uses them.
    search: u64,
}

impl FactsCache {
    /// Begins a search: raises the number that used rows are marked with.
    pub(crate) fn begin(&mut self) {
        self.search += 1;
    }

    /// The cached facts of a row, marked as used by the current search; `None` if they are not cached.
    pub(crate) fn get(&mut self, key: RowKey) -> Option<std::sync::Arc<SearchFacts>> {
        let search = self.search;
        self.rows.get_mut(&key).map(|(last_used, facts)| {
            *last_used = search;
            facts.clone()
        })
    }

    /// Caches the facts of a row, if there is room.
    pub(crate) fn put(&mut self, key: RowKey, facts: &std::sync::Arc<SearchFacts>) {
        self.put_within_bound(key, facts, GROUP_FACTS_BYTES_MAX);
    }

    /// Caches the facts of a row within a bound: if there is no room, rows are evicted that neither the current nor the
    /// last search used.
    fn put_within_bound(&mut self, key: RowKey, facts: &std::sync::Arc<SearchFacts>, bytes_max: usize) {
        let bytes = facts.bytes();
        if self.bytes + bytes > bytes_max {
            let oldest_kept = self.search.saturating_sub(1);
            self.rows.retain(|_, (last_used, _)| *last_used >= oldest_kept);
            self.bytes = self.rows.values().map(|(_, facts)| facts.bytes()).sum();
        }
        if self.bytes + bytes <= bytes_max && self.rows.insert(key, (self.search, facts.clone())).is_none() {
            self.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_holds_every_member_and_few_others() {
        for members in [0, 1, 100, 20_000] {
            let keys: Vec<u64> = (0..members).map(|n| member_key(&format!("Patient/{n}"))).collect();
            let filter = MemberFilter::from_keys(&keys);
            assert!(keys.iter().all(|key| filter.may_contain(*key)));
            let others = (0..10_000).filter(|n| filter.may_contain(member_key(&format!("Patient/other-{n}")))).count();
            assert!(others < 300, "{others} of 10,000 strangers pass a filter of {members}");
        }
    }

    /// A store that changes leaves nothing behind for ever, and the facts stay within their bound.
    #[test]
    fn the_cache_stays_within_its_bound_and_forgets_what_nobody_asks() {
        let mut cache = FactsCache::default();
        let facts = std::sync::Arc::new(SearchFacts::default());
        let room = facts.bytes() * 10;
        for search in 0..5u64 {
            cache.begin();
            for row in 0..8 {
                assert!(cache.get((search, row)).is_none());
                cache.put_within_bound((search, row), &facts, room);
            }
            assert!(cache.bytes <= room);
        }
        assert!((0..8).any(|row| cache.get((4, row)).is_some()));
        assert!((0..8).all(|row| cache.get((0, row)).is_none()));
    }
}
