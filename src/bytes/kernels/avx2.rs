//! The AVX2 kernel: two vectors of 32 bytes a block, and a carry-less multiplication for the quotes.

use std::arch::x86_64::*;

use super::{BLOCK, Carry, Classes, Masks, classify_with};

/// See [`super::Kernel::classify`].
///
/// # Safety
/// The processor must have AVX2 and PCLMULQDQ.
#[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn classify(text: &[u8], carry: &mut Carry, masks: &mut Masks) -> usize {
    // The closures are inlined into this function and so compiled with its features.
    classify_with(
        text,
        carry,
        masks,
        #[inline(always)]
        |block| {
            // SAFETY: the caller of this function has the features.
            unsafe { classes(block) }
        },
        #[inline(always)]
        |bits| {
            // SAFETY: as above.
            unsafe { prefix_xor(bits) }
        },
    )
}

/// # Safety
/// The processor must have AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn classes(block: &[u8; BLOCK]) -> Classes {
    // SAFETY: both loads lie inside the block's 64 bytes, and unaligned loads are asked for.
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
    // `[` and `{`, `]` and `}` differ in one bit: setting it lets one comparison find both.
    let fold = _mm256_set1_epi8(0x20);
    let (low_folded, high_folded) = (_mm256_or_si256(low, fold), _mm256_or_si256(high, fold));
    let punctuation = |vector: __m256i, folded: __m256i| -> __m256i {
        let brackets = _mm256_or_si256(
            _mm256_cmpeq_epi8(folded, _mm256_set1_epi8(b'{' as i8)),
            _mm256_cmpeq_epi8(folded, _mm256_set1_epi8(b'}' as i8)),
        );
        let marks = _mm256_or_si256(
            _mm256_cmpeq_epi8(vector, _mm256_set1_epi8(b':' as i8)),
            _mm256_cmpeq_epi8(vector, _mm256_set1_epi8(b',' as i8)),
        );
        _mm256_or_si256(brackets, marks)
    };
    let space = |vector: __m256i| -> __m256i {
        let ends = _mm256_or_si256(
            _mm256_cmpeq_epi8(vector, _mm256_set1_epi8(b'\n' as i8)),
            _mm256_cmpeq_epi8(vector, _mm256_set1_epi8(b'\r' as i8)),
        );
        let gaps = _mm256_or_si256(
            _mm256_cmpeq_epi8(vector, _mm256_set1_epi8(b' ' as i8)),
            _mm256_cmpeq_epi8(vector, _mm256_set1_epi8(b'\t' as i8)),
        );
        _mm256_or_si256(ends, gaps)
    };
    let below = |vector: __m256i| -> __m256i {
        let most = _mm256_set1_epi8(0x1f);
        _mm256_cmpeq_epi8(_mm256_max_epu8(vector, most), most)
    };
    Classes {
        backslash: is(b'\\'),
        quote: is(b'"'),
        punctuation: bits(punctuation(low, low_folded), punctuation(high, high_folded)),
        space: bits(space(low), space(high)),
        control: bits(below(low), below(high)),
        high: bits(low, high),
    }
}

/// The top bit of each byte. Written as the instruction itself: given the intrinsic, the optimiser carries the masks of a
/// whole block as vectors of bits, which AVX2 does not have, and takes them apart byte by byte (measured: 3 times
/// slower).
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

/// # Safety
/// The processor must have PCLMULQDQ.
#[inline]
#[target_feature(enable = "pclmulqdq")]
unsafe fn prefix_xor(bits: u64) -> u64 {
    let ones = _mm_set1_epi8(-1);
    _mm_cvtsi128_si64(_mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits as i64), ones)) as u64
}
