//! Hashes of a range of a store file's contents.
//!
//! The hash is 64-bit xxh3: it detects accidents, not malice.

use std::ops::Range;

use crate::hash::Hasher64;
use crate::limits::READ_BYTES;
use crate::sys::store_file::{StoreFile, StoreFileError};

impl StoreFile {
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

impl StoreFile {
    /// xxh3 of the first `front` bytes (`None` when the file has fewer), and of all bytes; reads them once.
    ///
    /// # Errors
    /// As [`StoreFile::read`] and [`StoreFile::check`].
    pub fn content_hashes(&self, front: u64) -> Result<(Option<u64>, u64), StoreFileError> {
        let (mut hash, mut buf) = (Hasher64::new(), Vec::new());
        let (mut offset, mut front_hash) = (0, (front == 0).then(|| Hasher64::new().digest()));
        while offset < self.len() {
            let end = if offset < front { front.min(self.len()) } else { self.len() };
            let len = (end - offset).min(READ_BYTES as u64) as usize;
            hash.update(self.read(offset, len, &mut buf)?);
            offset += len as u64;
            if offset == front {
                front_hash = Some(hash.digest());
            }
        }
        self.check()?;
        Ok((front_hash, hash.digest()))
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
            assert!(source.content_hash(0..u64::MAX).is_err());
            for front in [0, 7, 1 << 20, 2_999_999, 3_000_000] {
                let expected = (Some(xxh3_64(&bytes[..front])), xxh3_64(&bytes));
                assert_eq!(source.content_hashes(front as u64).unwrap(), expected);
            }
            assert_eq!(source.content_hashes(3_000_001).unwrap(), (None, xxh3_64(&bytes)));
        }
    }
}
