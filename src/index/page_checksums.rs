//! Page checksums: one for each page of 1,024 bytes behind the header of a segment or of the global index, verified
//! when the page is first read.
//!
//! Opening an index reads headers only. A damaged page is found before its bytes are used, and a query pays for the
//! pages that it touches, not for the index. Page checksums find damage, not forgery: a file that was rewritten
//! together with its checksums has other times, and is then checked whole (see [`open`](crate::index::open)).

use crate::casts::low_u32;
use crate::error::CorruptIndex;
use crate::hash::xxh3_64;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Bytes of a page. Smaller pages make scattered reads cheaper and the index longer (0.4 % with these).
pub(crate) const PAGE_BYTES: usize = 1024;

/// Checksum of the header of a segment or of the global index, page checksums included: the xxh3 (64 bit).
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Number of page checksums of so many bytes.
pub(crate) fn checksum_count(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES)
}

/// Checksum of one page of at most 1,024 bytes: the low half of its xxh3.
fn checksum_of_page(page: &[u8]) -> u32 {
    low_u32(xxh3_64(page))
}

/// Writes the page checksums of `body`, four bytes each, to the front of `slots`.
pub(crate) fn write_checksums(slots: &mut [u8], body: &[u8]) {
    for (slot, page) in slots.chunks_exact_mut(4).zip(body.chunks(PAGE_BYTES)) {
        slot.copy_from_slice(&checksum_of_page(page).to_le_bytes());
    }
}

/// Which pages of a file have been verified. The page checksums themselves are covered by the checksum of the header.
pub(crate) struct PageChecksums {
    /// Offset of the page checksums.
    checksums_at: usize,
    /// Byte range of the pages.
    body: Range<usize>,
    verified: Box<[AtomicU64]>,
    all_verified: AtomicBool,
}

impl PageChecksums {
    /// No page is verified yet. `checksums_at` is the offset of the page checksums in the bytes that
    /// [`PageChecksums::verify`] is given, `body` the range of the pages; the caller has checked that both lie inside.
    pub(crate) fn new(checksums_at: usize, body: Range<usize>) -> PageChecksums {
        let words = checksum_count(body.len()).div_ceil(64);
        let verified = (0..words).map(|_| AtomicU64::new(0)).collect();
        PageChecksums { checksums_at, body, verified, all_verified: AtomicBool::new(false) }
    }

    /// Verifies the pages that hold `range` of `bytes`, those that were not verified before.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page fails its checksum, or the range lies outside of the pages.
    pub(crate) fn verify(&self, bytes: &[u8], range: Range<usize>) -> Result<(), CorruptIndex> {
        if self.all_verified.load(Relaxed) || range.is_empty() {
            return Ok(());
        }
        if range.start < self.body.start || range.end > self.body.end {
            return Err(CorruptIndex("a number points out of it"));
        }
        let first = (range.start - self.body.start) / PAGE_BYTES;
        let last = (range.end - 1 - self.body.start) / PAGE_BYTES;
        let mut next = first;
        while next <= last {
            let page = next;
            let (word, bit) = (&self.verified[page / 64], 1 << (page % 64));
            let verified = word.load(Relaxed);
            // Long columns are asked for again and again: 64 verified pages cost one step.
            next += if verified == u64::MAX { 64 - page % 64 } else { 1 };
            if verified & bit != 0 {
                continue;
            }
            let start = self.body.start + page * PAGE_BYTES;
            let end = self.body.end.min(start + PAGE_BYTES);
            let offset = self.checksums_at + page * 4;
            let stored = u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("4 bytes"));
            if checksum_of_page(&bytes[start..end]) != stored {
                return Err(CorruptIndex("a page of it is not what was written"));
            }
            word.fetch_or(bit, Relaxed);
        }
        Ok(())
    }

    /// Whether the first page of a range inside of the pages was not verified before.
    pub(crate) fn is_new(&self, range: &Range<usize>) -> bool {
        let page = range.start.saturating_sub(self.body.start) / PAGE_BYTES;
        !self.all_verified.load(Relaxed)
            && self.verified.get(page / 64).is_some_and(|word| word.load(Relaxed) & (1 << (page % 64)) == 0)
    }

    /// Verifies every page of the file.
    ///
    /// # Errors
    /// As [`PageChecksums::verify`].
    pub(crate) fn verify_all(&self, bytes: &[u8]) -> Result<(), CorruptIndex> {
        self.verify(bytes, self.body.clone())?;
        self.all_verified.store(true, Relaxed);
        Ok(())
    }

    /// Whether every page has been verified by [`PageChecksums::verify_all`].
    pub(crate) fn is_verified(&self) -> bool {
        self.all_verified.load(Relaxed)
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    /// A damaged byte fails the verification of its page, and of no other page.
    #[test]
    fn a_page_is_proven_before_it_is_read() {
        let body = 3 * PAGE_BYTES + 100;
        let mut bytes: Vec<u8> = (0..16 + body).map(|offset| (offset * 7 % 251) as u8).collect();
        let (front, tail) = bytes.split_at_mut(16);
        write_checksums(front, tail);
        let checksums_at = || PageChecksums::new(0, 16..16 + body);
        checksums_at().verify_all(&bytes).unwrap();
        for damaged in [16, 16 + PAGE_BYTES - 1, 16 + PAGE_BYTES, 15 + body] {
            bytes[damaged] ^= 1;
            let page = (damaged - 16) / PAGE_BYTES;
            let checksums_at = checksums_at();
            for other in 0..4 {
                let position = 16 + other * PAGE_BYTES;
                assert_eq!(checksums_at.verify(&bytes, position..position + 1).is_err(), other == page);
            }
            assert!(checksums_at.verify_all(&bytes).is_err() && !checksums_at.is_verified());
            bytes[damaged] ^= 1;
        }
        assert!(
            checksums_at().verify(&bytes, 15..17).is_err() && checksums_at().verify(&bytes, body..body + 17).is_err()
        );
    }
}
