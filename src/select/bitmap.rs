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
    pub fn insert(&mut self, offset: usize) -> bool {
        let bit = 1 << (offset % 64);
        let new = self.words[offset / 64] & bit == 0;
        self.words[offset / 64] |= bit;
        new
    }

    /// Takes a number out.
    pub fn remove(&mut self, position: usize) {
        self.words[position / 64] &= !(1 << (position % 64));
    }

    /// Whether a number is in the set.
    pub fn contains(&self, offset: usize) -> bool {
        self.words[offset / 64] >> (offset % 64) & 1 != 0
    }

    /// How many are in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The numbers in the set, ascending.
    pub fn iter(&self) -> BitIterator<'_> {
        self.range(0..self.words.len() * 64)
    }

    /// The numbers in the set within a range, ascending.
    pub fn range(&self, range: std::ops::Range<usize>) -> BitIterator<'_> {
        let (first, behind) = (range.start / 64, range.end.div_ceil(64));
        let last = match range.end % 64 {
            0 => u64::MAX,
            bits => (1 << bits) - 1,
        };
        if range.is_empty() {
            return BitIterator { words: &[], at: 0, left: 0, last };
        }
        let words = &self.words[..behind];
        let left = words[first] & u64::MAX << (range.start % 64) & if first + 1 == behind { last } else { u64::MAX };
        BitIterator { words, at: first, left, last }
    }

    /// Whether any number of a range is in the set.
    pub fn any(&self, range: std::ops::Range<usize>) -> bool {
        self.masks(range).any(|(i, mask)| self.words[i] & mask != 0)
    }

    /// Whether every number of a range is in the set.
    pub fn all(&self, range: std::ops::Range<usize>) -> bool {
        self.masks(range).all(|(position, mask)| self.words[position] & mask == mask)
    }

    /// The words that a range touches, and which of their bits lie in it.
    fn masks(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = (usize, u64)> + use<> {
        let words = range.start / 64..if range.is_empty() { range.start / 64 } else { range.end.div_ceil(64) };
        words.map(move |offset| {
            let first = range.start.saturating_sub(offset * 64);
            let last = (range.end - offset * 64).min(64);
            (offset, (u64::MAX << first) & (u64::MAX >> (64 - last)))
        })
    }

    /// Adds every number of another set of the same size.
    pub fn union(&mut self, other: &Bitmap) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, more)| *word |= more);
    }
}

/// Numbers of a set within a range. Every row of an export passes here twice, so it is a plain loop over words.
pub struct BitIterator<'a> {
    /// The words up to the one that the range ends in.
    words: &'a [u64],
    at: usize,
    /// What is left of the word reached.
    left: u64,
    /// The bits of the last word that lie in the range.
    last: u64,
}

impl Iterator for BitIterator<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.left == 0 {
            self.at += 1;
            self.left = *self.words.get(self.at)?;
            if self.at + 1 == self.words.len() {
                self.left &= self.last;
            }
        }
        let bit = self.left.trailing_zeros() as usize;
        self.left &= self.left - 1;
        Some(self.at * 64 + bit)
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
