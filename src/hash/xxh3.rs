//! xxHash3 over long runs of bytes, as fast as the processor's vectors read them.
//!
//! The values are those of the `xxhash_rust` crate (seed 0), which still hashes what is short and is the twin in the
//! tests; the crate chooses its vectors when it is compiled, this file when it runs. Inputs of more than
//! `SHORT_BYTES` are taken in stripes of 64 bytes over eight lanes, a block of 16 stripes at a time: that loop is the
//! kernels', everything around it is here. Layout: <https://github.com/Cyan4973/xxHash/blob/v0.8.3/doc/xxhash_spec.md>.

use xxhash_rust::xxh3 as twin;

use crate::simd::Kernel;

/// Longest input that is not hashed in stripes.
const SHORT_BYTES: usize = 240;
/// Bytes that the lanes take at a time.
pub const STRIPE: usize = 64;
/// Bytes between two turns of the lanes.
pub const BLOCK: usize = (SECRET.len() - STRIPE) / 8 * STRIPE;
/// Where the key of the last stripe begins in the secret.
const LAST_KEY: usize = SECRET.len() - STRIPE - 7;
/// Where the keys of the final mixing begin, of the low word; that of the high word of 128 bits lies as far from the end.
const MERGE_KEY: usize = 11;

/// 32-bit primes that the kernels need, too.
pub const PRIME32_1: u32 = 0x9e37_79b1;
const PRIME32_2: u64 = 0x85eb_ca77;
const PRIME32_3: u64 = 0xc2b2_ae3d;
const PRIME64_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME64_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME64_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME64_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME64_5: u64 = 0x27d4_eb2f_1656_67c5;

/// The lanes before the first stripe.
const LANES: [u64; 8] = [PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1 as u64];

/// The algorithm's default secret.
#[rustfmt::skip]
pub const SECRET: [u8; 192] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
];

/// Hash of 64 bits.
pub fn xxh3_64(bytes: &[u8]) -> u64 {
    match bytes.len() <= SHORT_BYTES {
        true => twin::xxh3_64(bytes),
        false => low(&whole(Kernel::detect(), bytes), bytes.len() as u64),
    }
}

/// The lanes after a long input.
fn whole(kernel: Kernel, bytes: &[u8]) -> [u64; 8] {
    let mut lanes = LANES;
    kernel.stripes(&mut lanes, &bytes[..bytes.len() - 1], last(bytes));
    lanes
}

/// The last stripe of an input, and its key.
fn last(bytes: &[u8]) -> Option<(&[u8; STRIPE], &[u8; STRIPE])> {
    bytes.last_chunk().zip(SECRET[LAST_KEY..].first_chunk())
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Mixes the lanes into one word.
fn merge(lanes: &[u64; 8], key: usize, start: u64) -> u64 {
    let mut sum = start;
    for (pair, lanes) in lanes.as_chunks::<2>().0.iter().enumerate() {
        let at = key + pair * 16;
        let product = u128::from(lanes[0] ^ word(&SECRET, at)) * u128::from(lanes[1] ^ word(&SECRET, at + 8));
        sum = sum.wrapping_add(product as u64 ^ (product >> 64) as u64);
    }
    sum ^= sum >> 37;
    sum = sum.wrapping_mul(0x1656_6791_9e37_79f9);
    sum ^ sum >> 32
}

fn low(lanes: &[u64; 8], len: u64) -> u64 {
    merge(lanes, MERGE_KEY, len.wrapping_mul(PRIME64_1))
}

fn high(lanes: &[u64; 8], len: u64) -> u64 {
    merge(lanes, SECRET.len() - STRIPE - MERGE_KEY, !len.wrapping_mul(PRIME64_2))
}

/// A hash of bytes that come in pieces.
#[derive(Clone)]
pub struct Xxh3 {
    kernel: Kernel,
    lanes: [u64; 8],
    /// What is not in the lanes yet, behind the last stripe that is: the end of the input is mixed in differently, so
    /// that a block stays here until more follows.
    held: [u8; STRIPE + BLOCK],
    held_len: usize,
    len: u64,
}

impl Default for Xxh3 {
    fn default() -> Xxh3 {
        Xxh3::new()
    }
}

impl Xxh3 {
    /// Of nothing yet.
    pub fn new() -> Xxh3 {
        Xxh3::with(Kernel::detect())
    }

    fn with(kernel: Kernel) -> Xxh3 {
        Xxh3 { kernel, lanes: LANES, held: [0; STRIPE + BLOCK], held_len: 0, len: 0 }
    }

    /// Begins anew.
    pub fn reset(&mut self) {
        *self = Xxh3::with(self.kernel);
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if self.held_len + bytes.len() > BLOCK {
            if self.held_len > 0 {
                let (now, later) = bytes.split_at(BLOCK - self.held_len);
                self.hold(now);
                self.kernel.stripes(&mut self.lanes, &self.held[STRIPE..], None);
                self.held.copy_within(BLOCK.., 0);
                self.held_len = 0;
                bytes = later;
            }
            // At least a byte is left, and at least that is kept.
            let (now, later) = bytes.split_at((bytes.len() - 1) / BLOCK * BLOCK);
            if let Some(end) = now.last_chunk::<STRIPE>() {
                self.kernel.stripes(&mut self.lanes, now, None);
                self.held[..STRIPE].copy_from_slice(end);
            }
            bytes = later;
        }
        self.hold(bytes);
    }

    fn hold(&mut self, bytes: &[u8]) {
        let at = STRIPE + self.held_len;
        self.held[at..at + bytes.len()].copy_from_slice(bytes);
        self.held_len += bytes.len();
    }

    /// What is held of a short input, which is all of it; else the lanes after the end.
    fn end(&self) -> Result<[u64; 8], &[u8]> {
        let end = STRIPE + self.held_len;
        let held = &self.held[STRIPE..end];
        if self.len <= SHORT_BYTES as u64 {
            return Err(held);
        }
        let mut lanes = self.lanes;
        self.kernel.stripes(&mut lanes, &held[..held.len() - 1], last(&self.held[..end]));
        Ok(lanes)
    }

    /// Hash of 64 bits of all so far.
    pub fn digest(&self) -> u64 {
        match self.end() {
            Ok(lanes) => low(&lanes, self.len),
            Err(short) => twin::xxh3_64(short),
        }
    }

    /// Hash of 128 bits of all so far.
    pub fn digest128(&self) -> u128 {
        match self.end() {
            Ok(lanes) => u128::from(high(&lanes, self.len)) << 64 | u128::from(low(&lanes, self.len)),
            Err(short) => twin::xxh3_128(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// Every length around the edges of stripes and blocks, with every kernel, at every alignment of a word.
    #[test]
    fn every_length_hashes_as_the_twin() {
        let text = bytes(5 * BLOCK, 7);
        for kernel in Kernel::available() {
            for len in (0..=2 * BLOCK + 3 * STRIPE).chain([3 * BLOCK - 1, 3 * BLOCK, 3 * BLOCK + 1, 4 * BLOCK]) {
                let text = &text[len % 8..][..len];
                let mut hash = Xxh3::with(kernel);
                hash.update(text);
                assert_eq!(hash.digest(), twin::xxh3_64(text), "{kernel:?} {len}");
                assert_eq!(hash.digest128(), twin::xxh3_128(text), "{kernel:?} {len}");
                if len > SHORT_BYTES {
                    assert_eq!(low(&whole(kernel, text), len as u64), twin::xxh3_64(text), "{kernel:?} {len}");
                }
                assert_eq!(xxh3_64(text), twin::xxh3_64(text));
                hash.reset();
                assert_eq!(hash.digest(), twin::xxh3_64(b""));
            }
        }
    }

    proptest! {
        /// However the input is cut, and whenever one looks.
        #[test]
        fn pieces_hash_as_the_twin(
            seed: u64,
            cuts in prop::collection::vec(prop_oneof![0usize..70, 900usize..1200, 0usize..9000, Just(BLOCK)], 0..12)
        ) {
            let text = bytes(cuts.iter().sum(), seed);
            for kernel in Kernel::available() {
                let (mut hash, mut at) = (Xxh3::with(kernel), 0);
                for cut in &cuts {
                    hash.update(&text[at..at + cut]);
                    at += cut;
                    prop_assert_eq!(hash.digest(), twin::xxh3_64(&text[..at]), "{:?}", kernel);
                    prop_assert_eq!(hash.digest128(), twin::xxh3_128(&text[..at]), "{:?}", kernel);
                }
            }
        }
    }
}
