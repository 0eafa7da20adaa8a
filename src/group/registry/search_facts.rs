//! What is kept in memory of a Group: enough to answer most searches without reading it.
//!
//! Members are a Bloom filter of ten bits each; that a Group has a member is only ever believed after its bytes were
//! read. With 1,000 Groups of 10,000 members (720 MB) the filters take 12.5 MB, where sorted 64-bit hashes would take 80;
//! a search for a member takes 27 ms, where reading every Group takes 4.1 s (one run, built without full optimisation).

use std::collections::HashMap;

use crate::extract::fault::Fault;
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::reference::Reference;
use crate::group::facts::{GroupFact, GroupFactReader};
use crate::hash::{Hasher64, xxh3_64};
use crate::limits::{GROUP_FACTS_BYTES_MAX, GROUP_FILTER_BYTES_MAX, GROUP_TOKENS_MAX};
use crate::simd::Kernel;

/// Facts of one version of a Group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupFacts {
    /// Whether it is a Group at all.
    pub is_group: bool,
    /// `id`, if legal.
    pub id: Option<Id>,
    /// `meta.versionId`; a hash of the bytes when there is none, so that every version has a name.
    pub version: String,
    /// `meta.lastUpdated`, if it is an instant.
    pub last_updated: Option<Instant>,
    /// `name`.
    pub name: Option<String>,
    /// `type`.
    pub group_type: Option<String>,
    /// `actual`.
    pub actual: Option<bool>,
    /// `managingEntity.reference`.
    pub managing_entity: Option<String>,
    /// `identifier`: system (empty if none) and value, the first [`GROUP_TOKENS_MAX`].
    pub identifiers: Vec<(String, String)>,
    /// `code.coding`: system (empty if none) and code, the first [`GROUP_TOKENS_MAX`].
    pub codes: Vec<(String, String)>,
    /// Members.
    pub members: MemberFilter,
}

impl GroupFacts {
    /// Reads the facts of a document, which `pieces` feeds.
    ///
    /// # Errors
    /// What is wrong with the document, or with feeding it.
    pub(crate) fn read<E>(
        pieces: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    ) -> Result<Result<GroupFacts, Fault>, E> {
        let mut facts = GroupFacts::default();
        let mut keys = Vec::new();
        let mut hash = Hasher64::new();
        let mut on_fact = |fact: GroupFact<'_>| match fact {
            GroupFact::ResourceType(text) => facts.is_group = text == "Group",
            GroupFact::Id(text) => facts.id = Id::parse(text.as_bytes()),
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
            pieces(&mut |piece| {
                hash.update(piece);
                reader.feed(piece);
            })?;
            reader.finish()
        };
        facts.members = MemberFilter::hash_member(&keys);
        // A version id goes into a header: one that R4 does not allow is none.
        if Id::parse(facts.version.as_bytes()).is_none() {
            facts.version = format!("x{:016x}", hash.digest());
        }
        Ok(outcome.map(|()| facts))
    }

    /// Bytes that they take.
    fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let tokens = self.identifiers.iter().chain(&self.codes);
        let tokens: usize = tokens.map(|(system, value)| system.len() + value.len() + 48).sum();
        256 + tokens + self.members.bits.len() * 8 + text(&self.name) + text(&self.managing_entity)
    }
}

fn push_token(list: &mut Vec<(String, String)>, system: &str, value: &str) {
    if list.len() < GROUP_TOKENS_MAX {
        list.push((system.to_string(), value.to_string()));
    }
}

/// What a member is found under: the hash of its id, whatever its base and type, or of all its text when that is no
/// reference to a resource.
pub(crate) fn member_key(reference: &str) -> u64 {
    match Reference::parse(reference) {
        Some(parsed) => xxh3_64(parsed.id.as_bytes()),
        None => xxh3_64(reference.as_bytes()),
    }
}

/// A Bloom filter (<https://doi.org/10.1145/362686.362692>): what it does not hold is not there; of what is not there
/// it holds about one in a hundred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberFilter {
    bits: Box<[u64]>,
}

impl MemberFilter {
    const BITS_PER_KEY: usize = 10;
    const PROBES: u64 = 5;

    fn hash_member(keys: &[u64]) -> MemberFilter {
        let words = (keys.len() * Self::BITS_PER_KEY).div_ceil(64).min(GROUP_FILTER_BYTES_MAX / 8);
        let mut filter = MemberFilter { bits: vec![0; words].into() };
        for key in keys {
            for bit in filter.filter_slots(*key) {
                filter.bits[bit / 64] |= 1 << (bit % 64);
            }
        }
        filter
    }

    fn filter_slots(&self, key: u64) -> impl Iterator<Item = usize> + use<> {
        let bits = self.bits.len() as u64 * 64;
        let step = key.rotate_left(32) | 1;
        (0..Self::PROBES).map(move |probe| (key.wrapping_add(step.wrapping_mul(probe)) % bits) as usize)
    }

    /// Whether a key may be in it.
    pub(crate) fn may_contain(&self, key: u64) -> bool {
        !self.bits.is_empty() && self.filter_slots(key).all(|bit| self.bits[bit / 64] >> (bit % 64) & 1 == 1)
    }
}

/// What tells one row of a store from every other: its segment's content, and its number there. Rows of the same
/// content are equal, so no change of the store makes an entry wrong.
pub(crate) type RowKey = (u64, usize);

/// Facts of the store's Groups, at most [`GROUP_FACTS_BYTES_MAX`] of them.
#[derive(Debug, Default)]
pub(crate) struct FactsCache {
    rows: HashMap<RowKey, (u64, std::sync::Arc<GroupFacts>)>,
    bytes: usize,
    /// Number of the search that asked last; rows of a store that is no more are known by not being asked for.
    search: u64,
}

impl FactsCache {
    /// A search begins.
    pub(crate) fn begin(&mut self) {
        self.search += 1;
    }

    /// The facts of a row.
    pub(crate) fn get(&mut self, key: RowKey) -> Option<std::sync::Arc<GroupFacts>> {
        let search = self.search;
        self.rows.get_mut(&key).map(|(requested, facts)| {
            *requested = search;
            facts.clone()
        })
    }

    /// Keeps the facts of a row, if there is room.
    pub(crate) fn put(&mut self, key: RowKey, facts: &std::sync::Arc<GroupFacts>) {
        self.put_within_bound(key, facts, GROUP_FACTS_BYTES_MAX);
    }

    fn put_within_bound(&mut self, key: RowKey, facts: &std::sync::Arc<GroupFacts>, bytes_max: usize) {
        let bytes = facts.bytes();
        if self.bytes + bytes > bytes_max {
            let oldest_kept = self.search.saturating_sub(1);
            self.rows.retain(|_, (requested, _)| *requested >= oldest_kept);
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
            let filter = MemberFilter::hash_member(&keys);
            assert!(keys.iter().all(|key| filter.may_contain(*key)));
            let others = (0..10_000).filter(|n| filter.may_contain(member_key(&format!("Patient/other-{n}")))).count();
            assert!(others < 300, "{others} of 10,000 strangers pass a filter of {members}");
        }
    }

    /// A store that changes leaves nothing behind for ever, and the facts stay within their bound.
    #[test]
    fn the_cache_stays_within_its_bound_and_forgets_what_nobody_asks() {
        let mut cache = FactsCache::default();
        let facts = std::sync::Arc::new(GroupFacts::default());
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
