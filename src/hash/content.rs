//! Hashes of a store file's contents: of a range, or of a sample that distinguishes an appended file from a replaced
//! one.
//!
//! The hash is 64-bit xxh3: it detects accidents, not malice.

use std::ops::Range;

use crate::hash::Hasher64;
use crate::limits::READ_BYTES;
use crate::sys::store_file::{StoreFile, StoreFileError};

/// Number of blocks in a sample.
pub(crate) const SAMPLE_BLOCKS: u64 = 64;
/// Size of a sampled block, in bytes.
pub(crate) const SAMPLE_BLOCK_BYTES: u64 = 4096;

impl StoreFile {
    /// xxh3 of the 64 blocks of 4 KiB spread evenly over the first `upto_len` bytes, the first and last block
    /// included; of all these bytes when they are at most as many as the blocks hold. After an append, the hash up to
    /// the old length is unchanged.
    ///
    /// # Errors
    /// As [`StoreFile::read`] and [`StoreFile::check`].
    pub fn sampled_hash(&self, upto_len: u64) -> Result<u64, StoreFileError> {
        if upto_len <= SAMPLE_BLOCKS * SAMPLE_BLOCK_BYTES {
            return self.content_hash(0..upto_len);
        }
        let last = upto_len - SAMPLE_BLOCK_BYTES;
        let (mut hash, mut buf) = (Hasher64::new(), Vec::new());
        for block in 0..SAMPLE_BLOCKS {
            let offset = (last as u128 * block as u128 / (SAMPLE_BLOCKS - 1) as u128) as u64;
            hash.update(self.read(offset, SAMPLE_BLOCK_BYTES as usize, &mut buf)?);
        }
        self.check()?;
        Ok(hash.digest())
    }

    /// xxh3 of a byte range of the store file, read in pieces.
    ///
    /// # Errors
    /// As [`StoreFile::read`] and [`StoreFile::check`].
    pub fn content_hash(&self, range: Range<u64>) -> Result<u64, StoreFileError> {
        let (mut hash, mut buf) = (Hasher64::new(), Vec::new());
        let mut offset = range.start;
        while offset < range.end {
            let len = (range.end - offset).min(READ_BYTES as u64) as usize;
            hash.update(self.read(offset, len, &mut buf)?);
            offset += len as u64;
        }
        self.check()?;
        Ok(hash.digest())
    }
}

#[cfg(test)]
mod tests {
    use crate::hash::xxh3_64;
    use crate::sys::store_file::StoreFile;
    use crate::sys::store_file::tests::{accesses, file_of};

    #[test]
    fn both_accesses_hash_alike() {
        let bytes: Vec<u8> =
            (0..3_000_000_u32).map(|position| (position.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
        let file = file_of(&bytes);
        for access in accesses() {
            let source = StoreFile::open(file.path(), access).unwrap();
            assert_eq!(source.content_hash(0..3_000_000).unwrap(), xxh3_64(&bytes));
            assert_eq!(source.content_hash(5..2_000_000).unwrap(), xxh3_64(&bytes[5..2_000_000]));
            assert_eq!(source.content_hash(7..7).unwrap(), xxh3_64(b""));
            assert_eq!(source.sampled_hash(1000).unwrap(), xxh3_64(&bytes[..1000]));
            let picked: Vec<u8> = (0..64)
                .map(|block| (3_000_000 - 4096) * block / 63)
                .flat_map(|offset| bytes[offset..offset + 4096].to_vec())
                .collect();
            assert_eq!(source.sampled_hash(3_000_000).unwrap(), xxh3_64(&picked));
            assert!(source.sampled_hash(3_000_001).is_err());
            assert!(source.content_hash(0..u64::MAX).is_err());
        }
    }

    // Appending keeps the sample of the old length; a changed first or last byte does not.
    #[test]
    fn samples_tell_append_from_change() {
        let mut bytes = vec![b'x'; 500_000];
        let sample = |bytes: &[u8]| {
            StoreFile::open(file_of(bytes).path(), accesses()[0]).unwrap().sampled_hash(500_000).unwrap()
        };
        let before = sample(&bytes);
        bytes.extend_from_slice(b"more");
        assert_eq!(sample(&bytes), before);
        bytes[499_999] = b'y';
        assert_ne!(sample(&bytes), before);
        bytes[499_999] = b'x';
        bytes[0] = b'y';
        assert_ne!(sample(&bytes), before);
    }
}
