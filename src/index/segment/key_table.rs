//! Finds the number of a key by its hash; keys themselves lie where their numbers lead.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::casts::to_u32;

/// Hasher for keys that are hashes: returns them.
#[derive(Default)]
struct PrecomputedHasher(u64);

impl Hasher for PrecomputedHasher {
    /// The hash that was written.
    fn finish(&self) -> u64 {
        self.0
    }
    /// Never called: a hash is written as one number.
    fn write(&mut self, _: &[u8]) {
        unreachable!("only whole hashes are written")
    }
    /// Takes a hash.
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// End of a chain of keys with the same hash.
const END: u32 = u32::MAX;

/// Numbers of keys, from 0 in the order in which they were added, found by the hashes of the keys.
#[derive(Default)]
pub(crate) struct KeyTable {
    /// For each hash the key that was added last.
    last: HashMap<u64, u32, BuildHasherDefault<PrecomputedHasher>>,
    /// For each key the one of the same hash that was added before it, or [`END`].
    before: Vec<u32>,
}

impl KeyTable {
    /// Forgets every key; memory for about `kept` of them is not given back.
    pub(crate) fn clear(&mut self, kept: usize) {
        match self.last.capacity() > kept {
            true => *self = KeyTable::default(),
            false => self.last.clear(),
        }
        self.before.clear();
    }

    /// The number of the key of this hash that `is_same` confirms; `None` if it was never added.
    pub(crate) fn find(&self, hash: u64, is_same: impl Fn(u32) -> bool) -> Option<u32> {
        let mut number = self.last.get(&hash).copied().unwrap_or(END);
        while number != END && !is_same(number) {
            number = self.before[number as usize];
        }
        (number != END).then_some(number)
    }

    /// The number of the key of this hash that `is_same` confirms, and whether it was there before. One that was not is
    /// added.
    pub(crate) fn number(&mut self, hash: u64, is_same: impl Fn(u32) -> bool) -> (u32, bool) {
        let next = to_u32(self.before.len());
        let last = self.last.entry(hash).or_insert(END);
        let mut number = *last;
        while number != END {
            if is_same(number) {
                return (number, true);
            }
            number = self.before[number as usize];
        }
        self.before.push(std::mem::replace(last, next));
        (next, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Keys are told apart whatever their hashes, and have the numbers that a search gives.
        #[test]
        fn numbers_are_those_of_a_search(keys in proptest::collection::vec(0..20u64, 0..60), bits in 0..3u32) {
            let mut table = KeyTable::default();
            for _ in 0..2 {
                let mut known: Vec<u64> = Vec::new();
                for key in &keys {
                    let is_same = |number: u32| known[number as usize] == *key;
                    let found = table.find(key & ((1 << bits) - 1), is_same).map(|number| number as usize);
                    prop_assert_eq!(found, known.iter().position(|other| other == key));
                    let (number, was_known) = table.number(key & ((1 << bits) - 1), |number| known[number as usize] == *key);
                    let expected = known.iter().position(|other| other == key);
                    prop_assert_eq!((number as usize, was_known), (expected.unwrap_or(known.len()), expected.is_some()));
                    if !was_known {
                        known.push(*key);
                    }
                }
                table.clear(4);
            }
        }
    }
}
