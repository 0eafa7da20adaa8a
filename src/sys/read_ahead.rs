//! Read-ahead of ranges that are going to be read: whether a byte is in the page cache, and the request that the kernel read
//! a range into it. No answer depends on either; a system that has neither is slower.
//!
//! Ranges that are near one another are asked for as one ([`MergedRanges`]).

use std::io::IoSliceMut;
use std::ops::Range;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::sys::store_file::StoreFile;

/// Most bytes between two ranges that are asked for as one: reading them costs less than another request.
pub(crate) const GAP_BYTES: u64 = 16 << 10;

impl StoreFile {
    /// Whether a byte can be read without a wait for the disk, as far as the system tells: a file that is not held open
    /// counts as one whose bytes can, since nothing can be asked for of it.
    pub(crate) fn is_cached(&self, offset: u64) -> bool {
        let Some(file) = self.file() else { return true };
        let mut byte = [0];
        loop {
            match preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) {
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                // Also where the file system cannot tell.
                Err(_) => return false,
            }
        }
    }

    /// Asks the kernel to read a range of the file. Returns at once unless the queue of the disk is full. A failure is
    /// ignored.
    pub(crate) fn will_need(&self, range: Range<u64>) {
        let len = std::num::NonZero::new(range.end.saturating_sub(range.start));
        if let (Some(file), Some(_)) = (self.file(), len) {
            let _ = fadvise(file, range.start, len, Advice::WillNeed);
        }
    }
}

/// Asks for ranges of a file, ascending; those that are near one another as one.
pub(crate) struct MergedRanges<F: FnMut(Range<u64>)> {
    will_need: F,
    pending: Range<u64>,
    bytes: u64,
}

impl<F: FnMut(Range<u64>)> MergedRanges<F> {
    /// Of no range yet.
    pub(crate) fn new(will_need: F) -> MergedRanges<F> {
        MergedRanges { will_need, pending: 0..0, bytes: 0 }
    }

    /// Adds a range.
    pub(crate) fn add(&mut self, range: Range<u64>) {
        if !self.pending.is_empty() && range.start <= self.pending.end.saturating_add(GAP_BYTES) {
            self.pending.end = self.pending.end.max(range.end);
            return;
        }
        self.ask();
        self.pending = range;
    }

    /// Asks for the pending range.
    fn ask(&mut self) {
        let range = std::mem::take(&mut self.pending);
        if !range.is_empty() {
            self.bytes += range.end - range.start;
            (self.will_need)(range);
        }
    }

    /// Asks for the last range; the bytes of all.
    pub(crate) fn finish(mut self) -> u64 {
        self.ask();
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::access::Access;
    use crate::sys::store_file::tests::file_of;
    use proptest::prelude::*;

    /// What was just written is in the cache; what was asked for comes there.
    #[test]
    fn ranges_that_are_asked_for_come_to_the_cache() {
        let written = file_of(&vec![7; 1 << 20]);
        let source = StoreFile::open(written.path(), Access::pread()).unwrap();
        assert!(source.is_cached(0) && source.is_cached(700_000));
        written.as_file().sync_all().unwrap();
        let _ = fadvise(written.as_file(), 0, None, Advice::DontNeed);
        // A file system in memory drops nothing.
        if source.is_cached(700_000) {
            return;
        }
        source.will_need(690_000..710_000);
        for _ in 0..2_000 {
            if source.is_cached(700_000) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("the range does not come to the cache");
    }

    proptest! {
        /// Every byte that is wanted is asked for, once, and nothing else but what lies between near ranges.
        #[test]
        fn what_is_wanted_is_asked_for_once(steps in proptest::collection::vec((0..40_000u64, 1..3_000u64), 0..200)) {
            let mut end = 0;
            let ranges: Vec<Range<u64>> = steps
                .iter()
                .map(|(gap, len)| {
                    let start = end + gap;
                    end = start + len;
                    start..end
                })
                .collect();
            let mut asked = Vec::new();
            let mut wanted = MergedRanges::new(|range| asked.push(range));
            ranges.iter().for_each(|range| wanted.add(range.clone()));
            let bytes = wanted.finish();
            prop_assert_eq!(bytes, asked.iter().map(|range| range.end - range.start).sum::<u64>());
            prop_assert!(asked.windows(2).all(|pair| pair[0].end + GAP_BYTES < pair[1].start));
            // The naive twin: a range begins a request if the one before ends farther away.
            let begins = |i: &usize| *i == 0 || ranges[*i].start > ranges[i - 1].end + GAP_BYTES;
            let starts: Vec<u64> = (0..ranges.len()).filter(begins).map(|i| ranges[i].start).collect();
            prop_assert_eq!(asked.iter().map(|range| range.start).collect::<Vec<_>>(), starts);
            prop_assert!(ranges.iter().all(|range| asked.iter().any(|asked| asked.start <= range.start && range.end <= asked.end)));
        }
    }
}
