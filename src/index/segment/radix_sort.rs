//! Sorts items by their hashes, which are spread evenly: first into buckets by the upper bits, then inside each bucket.
//!
//! Two passes over the items instead of one for each halving. Where hashes are not spread, buckets are uneven and the
//! sort is no slower than the library sort that it uses inside them, so chosen ids cannot make it slow.

use crate::casts::to_usize;

/// Fewer items than this are sorted by the library without buckets.
const ITEMS_MIN: usize = 128;
/// Most bits of a bucket number: the ends of so many buckets fit in the second-level cache.
const BITS_MAX: u32 = 16;

/// Sorts `items` by `Ord`, which must compare `hash` first; `spare` is working memory.
pub(crate) fn sort_by_hash<T: Copy + Ord>(items: &mut Vec<T>, spare: &mut Vec<T>, hash: impl Fn(&T) -> u64) {
    if items.len() < ITEMS_MIN {
        return items.sort_unstable();
    }
    let bits = (items.len().ilog2() - 1).min(BITS_MAX);
    let (least, most) = items.iter().map(&hash).fold((u64::MAX, 0), |(a, b), hash| (a.min(hash), b.max(hash)));
    let shift = (u64::BITS - (most - least).leading_zeros()).saturating_sub(bits);
    let bucket = |item: &T| to_usize((hash(item) - least) >> shift);
    // Sizes of the buckets, then their starts, then, once all items are placed, their ends.
    let mut ends = vec![0u32; 1 << bits];
    items.iter().for_each(|item| ends[bucket(item)] += 1);
    let mut sum = 0;
    for end in &mut ends {
        sum += std::mem::replace(end, sum);
    }
    spare.clear();
    spare.extend_from_slice(items);
    for item in items.iter() {
        let end = &mut ends[bucket(item)];
        spare[*end as usize] = *item;
        *end += 1;
    }
    let mut start = 0;
    for end in ends {
        let own = &mut spare[start..end as usize];
        if own.len() > 1 {
            own.sort_unstable();
        }
        start = end as usize;
    }
    std::mem::swap(items, spare);
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// It sorts as the standard library does, hashes that spread evenly and others.
        #[test]
        fn sorts_as_the_standard_library(
            hashes in prop::collection::vec(prop_oneof![4 => any::<u64>(), 1 => 0..3u64, 1 => Just(u64::MAX)], 0..3000),
            narrow in 0..64u32) {
            let mut items: Vec<(u64, u32)> =
                hashes.iter().enumerate().map(|(at, hash)| (hash >> narrow, at as u32 ^ 0x55)).collect();
            let mut expected = items.clone();
            expected.sort_unstable();
            sort_by_hash(&mut items, &mut Vec::new(), |item| item.0);
            prop_assert_eq!(items, expected);
        }
    }
}
