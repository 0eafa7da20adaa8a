//! The AVX-512 kernel: one vector a block, whose comparisons are masks already.

use std::arch::x86_64::*;

use super::{Avx512, BLOCK, Classes, Job, SPACE_BY_LOW_HALF, Vector, avx2};

/// Runs a job as compiled for AVX-512.
///
/// # Safety
/// The processor must have AVX-512 F and BW, and all that the AVX2 kernel needs; an [`Avx512`] proves it.
#[target_feature(enable = "avx512f,avx512bw,avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn run<J: Job>(proof: Avx512, job: J) -> J::Output {
    job.run(proof)
}

impl Vector for Avx512 {
    #[inline(always)]
    fn classes(self, block: &[u8; BLOCK]) -> Classes {
        // SAFETY: whoever holds an `Avx512` runs on a processor with the features.
        unsafe { classes(block) }
    }
    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        // SAFETY: as above; PCLMULQDQ is among them.
        unsafe { avx2::prefix_xor(bits) }
    }
}

/// # Safety
/// The processor must have AVX-512 F and BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn classes(block: &[u8; BLOCK]) -> Classes {
    // SAFETY: the load lies inside the block's 64 bytes, and an unaligned load is asked for.
    let text = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
    let is = |byte: u8| _mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8(byte as i8));
    // `[` and `{`, `]` and `}` differ in one bit: setting it lets one comparison find both.
    let folded = _mm512_or_si512(text, _mm512_set1_epi8(0x20));
    let folded_is = |byte: u8| _mm512_cmpeq_epi8_mask(folded, _mm512_set1_epi8(byte as i8));
    // SAFETY: the load takes the table's 16 bytes, and an unaligned load is asked for.
    let kinds = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(SPACE_BY_LOW_HALF.as_ptr().cast()) });
    Classes {
        backslash: is(b'\\'),
        quote: is(b'"'),
        open: folded_is(b'{'),
        close: folded_is(b'}'),
        curly: _mm512_test_epi8_mask(text, _mm512_set1_epi8(0x20)),
        colon: is(b':'),
        comma: is(b','),
        space: _mm512_cmpeq_epi8_mask(_mm512_shuffle_epi8(kinds, text), text),
        newline: is(b'\n'),
        control: _mm512_cmplt_epu8_mask(text, _mm512_set1_epi8(0x20)),
        high: _mm512_movepi8_mask(text),
    }
}
