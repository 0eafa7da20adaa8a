//! xxHash3 of bytes, in one call or in pieces; `content` hashes store files with it, `digest` holds the digests of
//! output files.
//!
//! The hashes detect accidents, not malice. Their values are those of the published algorithm
//! (<https://github.com/Cyan4973/xxHash/blob/v0.8.3/doc/xxhash_spec.md>) with its default secret; `twox-hash` computes
//! them and selects the processor's vector instructions at run time. Index files, packed files, plan records and
//! manifests contain such hashes, so the algorithm cannot change without a new version of each.

pub(crate) mod content;
pub(crate) mod digest;

use std::hash::Hasher;
use std::io::{self, Read};

use twox_hash::{XxHash3_64, XxHash3_128};

/// 64-bit xxHash3 of bytes in one call.
pub(crate) fn xxh3_64(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// 128-bit xxHash3 of bytes in one call.
pub(crate) fn xxh3_128(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

/// Number of bytes that a reader gives, and their 128-bit xxHash3.
///
/// # Errors
/// Those of the reader.
pub(crate) fn xxh3_128_of_reader(mut reader: impl Read) -> io::Result<(u64, u128)> {
    let (mut hasher, mut bytes, mut buffer) = (Hasher128::new(), 0, vec![0; 256 << 10]);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((bytes, hasher.digest())),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// 64-bit xxHash3 of bytes; each `seed` selects another function of the family.
pub(crate) fn xxh3_64_with_seed(bytes: &[u8], seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// 128-bit xxHash3 of bytes; each `seed` selects another function of the family.
pub(crate) fn xxh3_128_with_seed(bytes: &[u8], seed: u64) -> u128 {
    XxHash3_128::oneshot_with_seed(seed, bytes)
}

/// [`xxh3_64`] of bytes that come in pieces; seed 0.
#[derive(Clone, Default)]
pub(crate) struct Hasher64(XxHash3_64);

impl Hasher64 {
    /// A 64-bit hasher of no bytes.
    pub(crate) fn new() -> Hasher64 {
        Hasher64::default()
    }

    /// Adds the next bytes to the 64-bit hash.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The 64-bit hash of all bytes added so far; more may follow.
    pub(crate) fn digest(&self) -> u64 {
        self.0.finish()
    }
}

/// [`xxh3_128`] of bytes that come in pieces; seed 0.
#[derive(Clone, Default)]
pub(crate) struct Hasher128(XxHash3_128);

impl Hasher128 {
    /// A 128-bit hasher of no bytes.
    pub(crate) fn new() -> Hasher128 {
        Hasher128::default()
    }

    /// Adds the next bytes to the 128-bit hash.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The 128-bit hash of all bytes added so far; more may follow.
    pub(crate) fn digest(&self) -> u128 {
        self.0.finish_128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xxhash_rust::xxh3 as oracle;

    fn bytes(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// Every length around the edges of stripes (64 bytes) and blocks (1,024 bytes), at every alignment of a word.
    #[test]
    fn every_length_hashes_as_another_crate_does() {
        let text = bytes(5 * 1024, 7);
        for len in (0..=2 * 1024 + 3 * 64).chain([3 * 1024 - 1, 3 * 1024, 3 * 1024 + 1, 4 * 1024]) {
            let text = &text[len % 8..][..len];
            assert_eq!(xxh3_64(text), oracle::xxh3_64(text), "{len}");
            assert_eq!(xxh3_128(text), oracle::xxh3_128(text), "{len}");
            assert_eq!(xxh3_64_with_seed(text, 9), oracle::xxh3_64_with_seed(text, 9), "{len}");
            assert_eq!(xxh3_128_with_seed(text, 9), oracle::xxh3_128_with_seed(text, 9), "{len}");
        }
    }

    proptest! {
        /// However the input is cut, and whenever a digest is taken.
        #[test]
        fn pieces_hash_as_the_whole(
            seed: u64,
            cuts in prop::collection::vec(prop_oneof![0usize..70, 900usize..1200, 0usize..9000, Just(1024)], 0..12)
        ) {
            let text = bytes(cuts.iter().sum(), seed);
            let (mut short, mut long, mut end) = (Hasher64::new(), Hasher128::new(), 0);
            for cut in &cuts {
                let piece = &text[end..end + cut];
                short.update(piece);
                long.update(piece);
                end += cut;
                prop_assert_eq!(short.digest(), oracle::xxh3_64(&text[..end]));
                prop_assert_eq!(long.digest(), oracle::xxh3_128(&text[..end]));
            }
        }
    }
}
