//! The inner loop of xxHash3 on vectors: eight lanes of 64 bits that take a stripe at a time. What the loop is part of,
//! and what it must come to, is `bytes::xxh3`.

use crate::hash::xxh3::{BLOCK, PRIME32_1, SECRET, STRIPE};

/// The last stripe of an input, and its key.
pub type Last<'a> = Option<(&'a [u8; STRIPE], &'a [u8; STRIPE])>;

/// Key of the turn behind each block.
const TURN_KEY: &[u8; STRIPE] = SECRET.last_chunk().expect("the secret is longer");

/// Takes the whole stripes of `bytes`, with a turn behind each whole block, then the last one.
#[inline(always)]
fn walk<L: Copy>(
    mut lanes: L,
    bytes: &[u8],
    last: Last<'_>,
    take: impl Fn(L, &[u8; STRIPE], &[u8; STRIPE]) -> L,
    turn: impl Fn(L, &[u8; STRIPE]) -> L,
) -> L {
    let key = |at: usize| SECRET[at * 8..].first_chunk().expect("a block has no more stripes than the secret has keys");
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for block in blocks {
        for (at, stripe) in block.as_chunks::<STRIPE>().0.iter().enumerate() {
            lanes = take(lanes, stripe, key(at));
        }
        lanes = turn(lanes, TURN_KEY);
    }
    for (at, stripe) in rest.as_chunks::<STRIPE>().0.iter().enumerate() {
        lanes = take(lanes, stripe, key(at));
    }
    match last {
        Some((stripe, key)) => take(lanes, stripe, key),
        None => lanes,
    }
}

/// Without vectors.
pub fn scalar(lanes: &mut [u64; 8], bytes: &[u8], last: Last<'_>) {
    let words = |bytes: &[u8; STRIPE]| -> [u64; 8] {
        std::array::from_fn(|lane| u64::from_le_bytes(bytes.as_chunks::<8>().0[lane]))
    };
    let take = |mut lanes: [u64; 8], stripe: &[u8; STRIPE], key: &[u8; STRIPE]| {
        let (stripe, key) = (words(stripe), words(key));
        for lane in 0..8 {
            let mixed = stripe[lane] ^ key[lane];
            lanes[lane ^ 1] = lanes[lane ^ 1].wrapping_add(stripe[lane]);
            lanes[lane] = lanes[lane].wrapping_add((mixed & 0xffff_ffff) * (mixed >> 32));
        }
        lanes
    };
    let turn = |lanes: [u64; 8], key: &[u8; STRIPE]| {
        let key = words(key);
        std::array::from_fn(|lane| (lanes[lane] ^ lanes[lane] >> 47 ^ key[lane]).wrapping_mul(u64::from(PRIME32_1)))
    };
    *lanes = walk(*lanes, bytes, last, take, turn);
}

/// On two vectors of four lanes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub fn avx2(lanes: &mut [u64; 8], bytes: &[u8], last: Last<'_>) {
    use std::arch::x86_64::*;
    type Lanes = [__m256i; 2];
    let load = |bytes: *const u8| -> Lanes {
        // SAFETY: every caller passes the address of 64 bytes, and unaligned loads are asked for.
        unsafe { [_mm256_loadu_si256(bytes.cast()), _mm256_loadu_si256(bytes.add(32).cast())] }
    };
    let take = |lanes: Lanes, stripe: &[u8; STRIPE], key: &[u8; STRIPE]| {
        let (stripe, key) = (load(stripe.as_ptr()), load(key.as_ptr()));
        [0, 1].map(|half| {
            let mixed = _mm256_xor_si256(stripe[half], key[half]);
            let product = _mm256_mul_epu32(mixed, _mm256_srli_epi64::<32>(mixed));
            // Each lane adds what its neighbour read.
            let sum = _mm256_add_epi64(lanes[half], _mm256_shuffle_epi32::<0x4e>(stripe[half]));
            _mm256_add_epi64(sum, product)
        })
    };
    let turn = |lanes: Lanes, key: &[u8; STRIPE]| {
        let (key, prime) = (load(key.as_ptr()), _mm256_set1_epi32(PRIME32_1 as i32));
        [0, 1].map(|half| {
            let mixed = _mm256_xor_si256(lanes[half], _mm256_srli_epi64::<47>(lanes[half]));
            let mixed = _mm256_xor_si256(mixed, key[half]);
            // A product of 64 and 32 bits, of which the low 64 count.
            let high = _mm256_mul_epu32(_mm256_srli_epi64::<32>(mixed), prime);
            _mm256_add_epi64(_mm256_mul_epu32(mixed, prime), _mm256_slli_epi64::<32>(high))
        })
    };
    let after = walk(load(lanes.as_ptr().cast()), bytes, last, take, turn);
    // SAFETY: the lanes are 64 bytes, and unaligned stores are asked for.
    unsafe {
        _mm256_storeu_si256(lanes.as_mut_ptr().cast(), after[0]);
        _mm256_storeu_si256(lanes.as_mut_ptr().add(4).cast(), after[1]);
    }
}

/// On one vector of all lanes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub fn avx512(lanes: &mut [u64; 8], bytes: &[u8], last: Last<'_>) {
    use std::arch::x86_64::*;
    let load = |bytes: *const u8| -> __m512i {
        // SAFETY: every caller passes the address of 64 bytes, and an unaligned load is asked for.
        unsafe { _mm512_loadu_si512(bytes.cast()) }
    };
    let take = |lanes: __m512i, stripe: &[u8; STRIPE], key: &[u8; STRIPE]| {
        let stripe = load(stripe.as_ptr());
        let mixed = _mm512_xor_si512(stripe, load(key.as_ptr()));
        let product = _mm512_mul_epu32(mixed, _mm512_srli_epi64::<32>(mixed));
        let sum = _mm512_add_epi64(lanes, _mm512_shuffle_epi32::<0x4e>(stripe));
        _mm512_add_epi64(sum, product)
    };
    let turn = |lanes: __m512i, key: &[u8; STRIPE]| {
        let prime = _mm512_set1_epi32(PRIME32_1 as i32);
        let mixed = _mm512_xor_si512(lanes, _mm512_srli_epi64::<47>(lanes));
        let mixed = _mm512_xor_si512(mixed, load(key.as_ptr()));
        let high = _mm512_mul_epu32(_mm512_srli_epi64::<32>(mixed), prime);
        _mm512_add_epi64(_mm512_mul_epu32(mixed, prime), _mm512_slli_epi64::<32>(high))
    };
    let after = walk(load(lanes.as_ptr().cast()), bytes, last, take, turn);
    // SAFETY: the lanes are 64 bytes, and an unaligned store is asked for.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), after) }
}
