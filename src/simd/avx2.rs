//! The AVX2 kernel: two vectors of 32 bytes for a block, and a carry-less multiplication for the quotes.

use std::arch::x86_64::*;

use crate::simd::{
    Avx2, BLOCK, BlockMarks, Classes, HALF, KernelJob, PUNCTUATION_BY_LOW_HALF, SCALAR, SPACE_BY_LOW_HALF, Vector,
    WINDOW,
};

/// Runs a job in its version compiled for AVX2.
///
/// # Safety
/// The processor must have AVX2, PCLMULQDQ, BMI1, BMI2, LZCNT and POPCNT; an [`Avx2`] proves it.
#[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
pub(crate) unsafe fn run<J: KernelJob>(proof: Avx2, job: J) -> J::Output {
    job.run(proof)
}

impl Vector for Avx2 {
    #[inline(always)]
    fn classes(self, block: &[u8; BLOCK]) -> Classes {
        // SAFETY: an `Avx2` exists only on a processor with the features.
        unsafe { classes(block) }
    }
    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        // SAFETY: as above.
        unsafe { prefix_xor(bits) }
    }
    #[inline(always)]
    fn marks(self, block: &[u8; BLOCK]) -> BlockMarks {
        // SAFETY: as above.
        unsafe { marks(block) }
    }
    #[inline(always)]
    fn pack(
        self,
        block: &[u8; BLOCK],
        marked: u64,
        scalars: u64,
        base: u16,
        bytes: &mut [u8; BLOCK],
        positions: &mut [u16; BLOCK],
    ) -> usize {
        // SAFETY: as above.
        unsafe { pack(block, marked, base, bytes, positions) };
        let mut remaining = scalars & marked;
        while remaining != 0 {
            bytes[(marked & ((remaining & remaining.wrapping_neg()) - 1)).count_ones() as usize] = SCALAR;
            remaining &= remaining - 1;
        }
        marked.count_ones() as usize
    }
    #[inline(always)]
    fn compress(self, block: &[u8; BLOCK], kept: u64, out: &mut [u8; BLOCK]) -> usize {
        // SAFETY: as above.
        unsafe { compress(block, kept, out) };
        kept.count_ones() as usize
    }
    #[inline(always)]
    fn differing(self, a: &[u8; HALF], b: &[u8; HALF]) -> u32 {
        // SAFETY: as above.
        unsafe { differing(a, b) }
    }
    #[inline(always)]
    fn mention_letters(self, window: &[u8; WINDOW]) -> u64 {
        // SAFETY: as above.
        unsafe { mention_letters(window) }
    }
}

/// Places before the letters of mentions, with AVX2; see [`Vector::mention_letters`].
///
/// # Safety
/// The processor must have AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn mention_letters(window: &[u8; WINDOW]) -> u64 {
    let half = |start: usize| -> u64 {
        let bytes = |offset: usize| -> __m256i {
            // SAFETY: at most 32 + 5 + 32 bytes, which is `WINDOW`, and the load needs no alignment.
            unsafe { _mm256_loadu_si256(window.as_ptr().add(start + offset).cast()) }
        };
        let is = |vector: __m256i, byte: u8| _mm256_cmpeq_epi8(vector, _mm256_set1_epi8(byte as i8));
        // `f` and `n` differ in one bit.
        let third = _mm256_or_si256(bytes(3), _mm256_set1_epi8(0x08));
        // SAFETY: AVX2 is this function's own precondition.
        unsafe { u64::from(sign_bits(_mm256_and_si256(is(third, b'n'), is(bytes(5), b'r')))) }
    };
    half(0) | half(HALF) << HALF
}

/// Marks of a block with AVX2.
///
/// # Safety
/// The processor must have AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn marks(block: &[u8; BLOCK]) -> BlockMarks {
    // SAFETY: both loads lie inside the block's 64 bytes, and the loads need no alignment.
    let text =
        unsafe { [_mm256_loadu_si256(block.as_ptr().cast()), _mm256_loadu_si256(block.as_ptr().add(32).cast())] };
    let bits = |of: [__m256i; 2]| -> u64 {
        // SAFETY: AVX2 is this function's own precondition.
        unsafe { u64::from(sign_bits(of[0])) | u64::from(sign_bits(of[1])) << 32 }
    };
    let is = |byte: u8| bits(text.map(|half| _mm256_cmpeq_epi8(half, _mm256_set1_epi8(byte as i8))));
    let below = |half: __m256i, most: u8| -> __m256i {
        let most = _mm256_set1_epi8(most as i8);
        _mm256_cmpeq_epi8(_mm256_max_epu8(half, most), most)
    };
    let table = |bytes: &[u8; 16]| -> __m256i {
        // SAFETY: the load takes the table's 16 bytes, and the load needs no alignment.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
    };
    let (spaces, marks) = (table(&SPACE_BY_LOW_HALF), table(&PUNCTUATION_BY_LOW_HALF));
    let fold = _mm256_set1_epi8(0x20);
    // As in the AVX-512 kernel: control characters that the fold turns into `,` or `:` are taken out.
    let folded = |half| _mm256_cmpeq_epi8(_mm256_shuffle_epi8(marks, half), _mm256_or_si256(half, fold));
    let control = bits(text.map(|half| below(half, 0x1f)));
    BlockMarks {
        backslash: is(b'\\'),
        quote: is(b'"'),
        punctuation: bits(text.map(folded)) & !control,
        space: bits(text.map(|half| _mm256_cmpeq_epi8(_mm256_shuffle_epi8(spaces, half), half))),
        control,
        high: bits(text),
        digit: bits(text.map(|half| below(_mm256_sub_epi8(half, _mm256_set1_epi8(b'0' as i8)), 9))),
        zero: is(b'0'),
        dot: is(b'.'),
    }
}

/// For each byte the positions of its set bits, one byte each, the lowest first.
static BIT_POSITIONS: [u64; 256] = {
    let mut table = [0; 256];
    let mut bits = 0;
    while bits < 256 {
        let (mut position, mut count) = (0, 0);
        while position < 8 {
            if bits >> position & 1 != 0 {
                table[bits] |= (position as u64) << (8 * count);
                count += 1;
            }
            position += 1;
        }
        bits += 1;
    }
    table
};

/// Packs the bytes selected by `marked` and their positions, eight bytes at a time by a table of positions.
///
/// # Safety
/// The processor must have AVX2 and POPCNT.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn pack(block: &[u8; BLOCK], marked: u64, base: u16, bytes: &mut [u8; BLOCK], positions: &mut [u16; BLOCK]) {
    let mut count = 0;
    for i in 0..8 {
        let bits = (marked >> (8 * i)) as u8;
        let chosen = _mm_cvtsi64_si128(BIT_POSITIONS[bits as usize] as i64);
        let offset = _mm_set1_epi16((base + 8 * i as u16) as i16);
        // SAFETY: at most eight were counted for each eight bytes before, so the load and both stores, of eight
        // elements each, end inside of the 64; none needs alignment.
        unsafe {
            let eight = _mm_loadl_epi64(block.as_ptr().add(8 * i).cast());
            _mm_storel_epi64(bytes.as_mut_ptr().add(count).cast(), _mm_shuffle_epi8(eight, chosen));
            let chosen_positions = _mm_add_epi16(_mm_cvtepu8_epi16(chosen), offset);
            _mm_storeu_si128(positions.as_mut_ptr().add(count).cast(), chosen_positions);
        }
        count += bits.count_ones() as usize;
    }
}

/// Packs the bytes selected by `kept`, eight bytes at a time by a table of positions.
///
/// # Safety
/// The processor must have AVX2 and POPCNT.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn compress(block: &[u8; BLOCK], kept: u64, out: &mut [u8; BLOCK]) {
    let mut count = 0;
    for i in 0..8 {
        let bits = (kept >> (8 * i)) as u8;
        let chosen = _mm_cvtsi64_si128(BIT_POSITIONS[bits as usize] as i64);
        // SAFETY: at most eight were counted for each eight bytes before, so load and store, of eight bytes each, end inside
        // of the 64; neither needs alignment.
        unsafe {
            let eight = _mm_loadl_epi64(block.as_ptr().add(8 * i).cast());
            _mm_storel_epi64(out.as_mut_ptr().add(count).cast(), _mm_shuffle_epi8(eight, chosen));
        }
        count += bits.count_ones() as usize;
    }
}

/// Bit i of the result is set where byte i of `a` differs from byte i of `b`, with AVX2.
///
/// # Safety
/// The processor must have AVX2.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn differing(a: &[u8; HALF], b: &[u8; HALF]) -> u32 {
    // SAFETY: the loads take the 32 bytes of each, and the loads need no alignment.
    let (a, b) = unsafe { (_mm256_loadu_si256(a.as_ptr().cast()), _mm256_loadu_si256(b.as_ptr().cast())) };
    !(_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b)) as u32)
}

/// Classes of a block with AVX2.
///
/// # Safety
/// The processor must have AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn classes(block: &[u8; BLOCK]) -> Classes {
    // SAFETY: both loads lie inside the block's 64 bytes, and the loads need no alignment.
    let (low, high) =
        unsafe { (_mm256_loadu_si256(block.as_ptr().cast()), _mm256_loadu_si256(block.as_ptr().add(32).cast())) };
    let bits = |low: __m256i, high: __m256i| -> u64 {
        // SAFETY: AVX2 is this function's own precondition.
        unsafe { u64::from(sign_bits(low)) | u64::from(sign_bits(high)) << 32 }
    };
    let is = |byte: u8| -> u64 {
        let wanted = _mm256_set1_epi8(byte as i8);
        bits(_mm256_cmpeq_epi8(low, wanted), _mm256_cmpeq_epi8(high, wanted))
    };
    let folded_is = |byte: u8| -> u64 {
        // `[` and `{`, `]` and `}` differ in one bit: setting it lets one comparison find both.
        let (fold, wanted) = (_mm256_set1_epi8(0x20), _mm256_set1_epi8(byte as i8));
        let of = |vector| _mm256_cmpeq_epi8(_mm256_or_si256(vector, fold), wanted);
        bits(of(low), of(high))
    };
    let space = |vector: __m256i| -> __m256i {
        // SAFETY: the load takes the table's 16 bytes, and the load needs no alignment.
        let kinds = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(SPACE_BY_LOW_HALF.as_ptr().cast()) });
        _mm256_cmpeq_epi8(_mm256_shuffle_epi8(kinds, vector), vector)
    };
    let below = |vector: __m256i| -> __m256i {
        let most = _mm256_set1_epi8(0x1f);
        _mm256_cmpeq_epi8(_mm256_max_epu8(vector, most), most)
    };
    Classes {
        backslash: is(b'\\'),
        quote: is(b'"'),
        open: folded_is(b'{'),
        close: folded_is(b'}'),
        curly: bits(_mm256_slli_epi16::<2>(low), _mm256_slli_epi16::<2>(high)),
        colon: is(b':'),
        comma: is(b','),
        space: bits(space(low), space(high)),
        newline: is(b'\n'),
        control: bits(below(low), below(high)),
        high: bits(low, high),
    }
}

/// The top bit of each byte. Written as inline assembly: from the intrinsic, the optimiser makes vectors of bits for the
/// masks of a whole block, which AVX2 does not have, and takes them apart byte by byte (measured: 3 times slower).
///
/// # Safety
/// The processor must have AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sign_bits(vector: __m256i) -> u32 {
    let bits: u32;
    // SAFETY: the instruction reads one vector register and writes one general register, nothing else.
    unsafe {
        std::arch::asm!("vpmovmskb {bits:e}, {vector}", bits = lateout(reg) bits, vector = in(ymm_reg) vector,
            options(pure, nomem, nostack, preserves_flags));
    }
    bits
}

/// Bit i of the result is the parity of bits 0 to i: a carry-less multiplication by all ones.
///
/// # Safety
/// The processor must have PCLMULQDQ.
#[inline]
#[target_feature(enable = "pclmulqdq")]
pub(crate) unsafe fn prefix_xor(bits: u64) -> u64 {
    let ones = _mm_set1_epi8(-1);
    _mm_cvtsi128_si64(_mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits as i64), ones)) as u64
}
