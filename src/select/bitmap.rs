//! A set of small numbers, one bit each.

/// A fixed-size set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

impl Bitmap {
    /// The empty set over `0..len`.
    pub fn new(len: usize) -> Bitmap {
        Bitmap { words: vec![0; len.div_ceil(64)], len }
    }

    /// The whole set `0..len`.
    pub fn full(len: usize) -> Bitmap {
        let mut all = Bitmap { words: vec![u64::MAX; len.div_ceil(64)], len };
        if !len.is_multiple_of(64) {
            all.words[len / 64] = (1 << (len % 64)) - 1;
        }
        all
    }

    /// Numbers that could be in the set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Puts a number in; whether it was not there.
    pub fn insert(&mut self, at: usize) -> bool {
        let bit = 1 << (at % 64);
        let new = self.words[at / 64] & bit == 0;
        self.words[at / 64] |= bit;
        new
    }

    /// Whether a number is in the set.
    pub fn contains(&self, at: usize) -> bool {
        self.words[at / 64] >> (at % 64) & 1 != 0
    }

    /// How many are in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The numbers in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let bit = left.trailing_zeros() as usize;
                    left &= left - 1;
                    at * 64 + bit
                })
            })
        })
    }

    /// Adds every number of another set of the same size.
    pub fn union(&mut self, other: &Bitmap) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, more)| *word |= more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set = Bitmap::new(130);
        assert!(set.is_empty());
        for at in [0, 63, 64, 129] {
            assert!(set.insert(at));
            assert!(!set.insert(at));
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!(set.count(), 4);
        assert_eq!(Bitmap::full(130).count(), 130);
    }
}
