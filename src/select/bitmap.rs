//! A fixed-size bitmap: a set over `0..len`, one bit for each number.
//!
//! Plain, uncompressed 64-bit words; sets of patients and dense sets of rows are held in it.

/// A set of numbers below a bound fixed at construction. Methods that take a number or range panic beyond the bound,
/// rounded up to whole words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

impl Bitmap {
    /// The empty set of numbers below `len`.
    pub fn new(len: usize) -> Bitmap {
        Bitmap { words: vec![0; len.div_ceil(64)], len }
    }

    /// The set of all numbers below `len`.
    pub fn full(len: usize) -> Bitmap {
        let mut all = Bitmap { words: vec![u64::MAX; len.div_ceil(64)], len };
        if !len.is_multiple_of(64) {
            all.words[len / 64] = (1 << (len % 64)) - 1;
        }
        all
    }

    /// The bound that the set was made with, not the number of its members (see [`Bitmap::count`]).
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Adds a number; true if it was not in the set before.
    pub fn insert(&mut self, i: usize) -> bool {
        let bit = 1 << (i % 64);
        let new = self.words[i / 64] & bit == 0;
        self.words[i / 64] |= bit;
        new
    }

    /// Removes a number, if it is in the set.
    pub fn remove(&mut self, i: usize) {
        self.words[i / 64] &= !(1 << (i % 64));
    }

    /// Whether a number is in the set.
    pub fn contains(&self, i: usize) -> bool {
        self.words[i / 64] >> (i % 64) & 1 != 0
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The numbers in the set, ascending.
    pub fn iter(&self) -> BitIterator<'_> {
        self.range(0..self.words.len() * 64)
    }

    /// The numbers in the set within a range, ascending.
    pub fn range(&self, range: std::ops::Range<usize>) -> BitIterator<'_> {
        let (first, end) = (range.start / 64, range.end.div_ceil(64));
        let last_mask = match range.end % 64 {
            0 => u64::MAX,
            bits => (1 << bits) - 1,
        };
        if range.is_empty() {
            return BitIterator { words: &[], word: 0, bits: 0, last_mask };
        }
        let words = &self.words[..end];
        let bits = words[first] & u64::MAX << (range.start % 64) & if first + 1 == end { last_mask } else { u64::MAX };
        BitIterator { words, word: first, bits, last_mask }
    }

    /// Whether any number of a range is in the set.
    pub fn any(&self, range: std::ops::Range<usize>) -> bool {
        self.masks(range).any(|(i, mask)| self.words[i] & mask != 0)
    }

    /// Whether every number of a range is in the set.
    pub fn all(&self, range: std::ops::Range<usize>) -> bool {
        self.masks(range).all(|(i, mask)| self.words[i] & mask == mask)
    }

    /// Indices of the words that a range touches, each with the mask of its bits that lie in the range.
    fn masks(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = (usize, u64)> + use<> {
        let words = range.start / 64..if range.is_empty() { range.start / 64 } else { range.end.div_ceil(64) };
        words.map(move |i| {
            let first = range.start.saturating_sub(i * 64);
            let last = (range.end - i * 64).min(64);
            (i, (u64::MAX << first) & (u64::MAX >> (64 - last)))
        })
    }

    /// Keeps of each word of 64 numbers those of which the bit is set in what `kept` says of the first of them; words without
    /// a number are not asked for.
    pub(crate) fn retain_words(&mut self, mut kept: impl FnMut(usize) -> u64) {
        let words = self.words.iter_mut().enumerate().filter(|(_, word)| **word != 0);
        words.for_each(|(i, word)| *word &= kept(i * 64));
    }

    /// Adds every number of another set of the same size.
    pub fn union(&mut self, other: &Bitmap) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, more)| *word |= more);
    }
}

/// Iterator over the numbers of a set within a range, ascending. Every exported row passes here twice, so it is a plain
/// loop over words.
pub struct BitIterator<'a> {
    /// Words of the set, up to and including the one that the range ends in.
    words: &'a [u64],
    /// Index of the current word.
    word: usize,
    /// Bits of the current word that are not yet returned.
    bits: u64,
    /// Mask of the bits of the last word that lie in the range.
    last_mask: u64,
}

impl Iterator for BitIterator<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.bits == 0 {
            self.word += 1;
            self.bits = *self.words.get(self.word)?;
            if self.word + 1 == self.words.len() {
                self.bits &= self.last_mask;
            }
        }
        let bit = self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        Some(self.word * 64 + bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set = Bitmap::new(130);
        assert!(set.is_empty());
        for i in [0, 63, 64, 129] {
            assert!(set.insert(i));
            assert!(!set.insert(i));
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!(set.count(), 4);
        assert_eq!(Bitmap::full(130).count(), 130);
    }

    #[test]
    fn ranges_are_asked_bit_by_bit() {
        let mut set = Bitmap::new(200);
        (0..200).filter(|place| place % 7 == 0 || (60..70).contains(place) || *place > 120).for_each(|position| {
            set.insert(position);
        });
        for start in 0..=200 {
            for end in start..=200 {
                let slow: Vec<usize> = (start..end).filter(|offset| set.contains(*offset)).collect();
                assert_eq!(set.any(start..end), !slow.is_empty(), "{start}..{end}");
                assert_eq!(set.all(start..end), slow.len() == end - start, "{start}..{end}");
                assert_eq!(set.range(start..end).collect::<Vec<_>>(), slow, "{start}..{end}");
            }
        }
    }
}
