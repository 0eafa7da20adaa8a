//! Numbers made from a seed (SplitMix64), so that a run can be repeated.

/// A generator of numbers.
pub(crate) struct Chance(u64);

impl Chance {
    /// A generator that begins with a seed.
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Whether one of so many times.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of a list that is not empty.
    pub(crate) fn pick<'l, T: ?Sized>(&mut self, list: &[&'l T]) -> &'l T {
        list[self.below(list.len())]
    }

    /// Random bytes, fewer than `end`.
    pub(crate) fn bytes(&mut self, end: usize) -> Vec<u8> {
        (0..self.below(end)).map(|_| self.next() as u8).collect()
    }

    /// A short name of characters that URLs take.
    pub(crate) fn name(&mut self) -> String {
        const LETTERS: &[u8] = b"abcxyzABC0189-._~";
        (0..1 + self.below(12)).map(|_| LETTERS[self.below(LETTERS.len())] as char).collect()
    }
}
