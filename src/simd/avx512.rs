//! The AVX-512 kernel: one vector for a block; its comparisons yield masks.

use std::arch::x86_64::*;

use crate::simd::{
    Avx512, BLOCK, BlockMarks, Classes, HALF, KernelJob, PUNCTUATION_BY_LOW_HALF, SCALAR, SPACE_BY_LOW_HALF, Vector,
    WINDOW, avx2,
};

/// Runs a job in its version compiled for AVX-512.
///
/// # Safety
/// The processor must have AVX-512 F, BW and VBMI2, and all that the AVX2 kernel needs; an [`Avx512`] proves it.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
pub(crate) unsafe fn run<J: KernelJob>(proof: Avx512, job: J) -> J::Output {
    job.run(proof)
}

impl Vector for Avx512 {
    #[inline(always)]
    fn classes(self, block: &[u8; BLOCK]) -> Classes {
        // SAFETY: an `Avx512` exists only on a processor with the features.
        unsafe { classes(block) }
    }
    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        // SAFETY: as above; PCLMULQDQ is among them.
        unsafe { avx2::prefix_xor(bits) }
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
        // SAFETY: as above; VBMI2 is among them.
        unsafe { pack(block, marked, scalars, base, bytes, positions) };
        marked.count_ones() as usize
    }
    #[inline(always)]
    fn compress(self, block: &[u8; BLOCK], kept: u64, out: &mut [u8; BLOCK]) -> usize {
        // SAFETY: as above; VBMI2 is among them.
        unsafe { compress(block, kept, out) };
        kept.count_ones() as usize
    }
    #[inline(always)]
    fn differing(self, a: &[u8; HALF], b: &[u8; HALF]) -> u32 {
        // SAFETY: as above; AVX2 is among them.
        unsafe { avx2::differing(a, b) }
    }
    #[inline(always)]
    fn mention_letters(self, window: &[u8; WINDOW]) -> u64 {
        // SAFETY: as above.
        unsafe { mention_letters(window) }
    }
}

/// Places before the letters of mentions, with AVX-512; see [`Vector::mention_letters`].
///
/// # Safety
/// The processor must have AVX-512 F and BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn mention_letters(window: &[u8; WINDOW]) -> u64 {
    let bytes = |offset: usize| -> __m512i {
        // SAFETY: at most 5 + 64 bytes, which is `WINDOW`, and the load needs no alignment.
        unsafe { _mm512_loadu_si512(window.as_ptr().add(offset).cast()) }
    };
    let is = |vector: __m512i, byte: u8| _mm512_cmpeq_epi8_mask(vector, _mm512_set1_epi8(byte as i8));
    // `f` and `n` differ in one bit.
    let third = _mm512_or_si512(bytes(3), _mm512_set1_epi8(0x08));
    is(third, b'n') & is(bytes(5), b'r')
}

/// Marks of a block with AVX-512.
///
/// # Safety
/// The processor must have AVX-512 F and BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn marks(block: &[u8; BLOCK]) -> BlockMarks {
    // SAFETY: the load lies inside the block's 64 bytes, and the load needs no alignment.
    let text = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
    let is = |byte: u8| _mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8(byte as i8));
    let table = |bytes: &[u8; 16]| -> __m512i {
        // SAFETY: the load takes the table's 16 bytes, and the load needs no alignment.
        _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
    };
    // `[` and `{`, `]` and `}` differ in one bit. Setting it also turns two control characters into `,` and `:`; they
    // are removed, because control characters are marked by themselves.
    let folded = _mm512_or_si512(text, _mm512_set1_epi8(0x20));
    let punctuation = _mm512_cmpeq_epi8_mask(_mm512_shuffle_epi8(table(&PUNCTUATION_BY_LOW_HALF), text), folded);
    let control = _mm512_cmplt_epu8_mask(text, _mm512_set1_epi8(0x20));
    BlockMarks {
        backslash: is(b'\\'),
        quote: is(b'"'),
        punctuation: punctuation & !control,
        space: _mm512_cmpeq_epi8_mask(_mm512_shuffle_epi8(table(&SPACE_BY_LOW_HALF), text), text),
        control,
        high: _mm512_movepi8_mask(text),
        digit: _mm512_cmplt_epu8_mask(_mm512_sub_epi8(text, _mm512_set1_epi8(b'0' as i8)), _mm512_set1_epi8(10)),
        zero: is(b'0'),
        dot: is(b'.'),
    }
}

/// The positions of the bytes of a block, 0 to 63.
static BYTE_POSITIONS: [u8; BLOCK] = {
    let mut positions = [0; BLOCK];
    let mut i = 0;
    while i < BLOCK {
        positions[i] = i as u8;
        i += 1;
    }
    positions
};

/// Packs the bytes selected by `marked` and their positions, with the compress instructions of VBMI2.
///
/// # Safety
/// The processor must have AVX-512 F, BW and VBMI2.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
unsafe fn pack(
    block: &[u8; BLOCK],
    marked: u64,
    scalars: u64,
    base: u16,
    bytes: &mut [u8; BLOCK],
    positions: &mut [u16; BLOCK],
) {
    // SAFETY: the loads take the 64 bytes of each reference, and the loads need no alignment.
    let (text, all) =
        unsafe { (_mm512_loadu_si512(block.as_ptr().cast()), _mm512_loadu_si512(BYTE_POSITIONS.as_ptr().cast())) };
    let text = _mm512_mask_mov_epi8(text, scalars, _mm512_set1_epi8(SCALAR as i8));
    let found = _mm512_maskz_compress_epi8(marked, all);
    let base = _mm512_set1_epi16(base as i16);
    let low = _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(found)), base);
    // SAFETY: the stores fill the 64 bytes of the one and the 64 integers of 2 bytes of the other, at any alignment.
    unsafe {
        _mm512_storeu_si512(bytes.as_mut_ptr().cast(), _mm512_maskz_compress_epi8(marked, text));
        _mm512_storeu_si512(positions.as_mut_ptr().cast(), low);
        if marked.count_ones() > 32 {
            let high = _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64::<1>(found)), base);
            _mm512_storeu_si512(positions.as_mut_ptr().add(32).cast(), high);
        }
    }
}

/// Packs the bytes selected by `kept`, with the compress instruction of VBMI2.
///
/// # Safety
/// The processor must have AVX-512 F, BW and VBMI2.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
unsafe fn compress(block: &[u8; BLOCK], kept: u64, out: &mut [u8; BLOCK]) {
    // SAFETY: load and store take the 64 bytes of each reference, and neither needs alignment.
    unsafe {
        let text = _mm512_loadu_si512(block.as_ptr().cast());
        _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_maskz_compress_epi8(kept, text));
    }
}

/// Classes of a block with AVX-512.
///
/// # Safety
/// The processor must have AVX-512 F and BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn classes(block: &[u8; BLOCK]) -> Classes {
    // SAFETY: the load lies inside the block's 64 bytes, and the load needs no alignment.
    let text = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
    let is = |byte: u8| _mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8(byte as i8));
    // `[` and `{`, `]` and `}` differ in one bit: setting it lets one comparison find both.
    let folded = _mm512_or_si512(text, _mm512_set1_epi8(0x20));
    let folded_is = |byte: u8| _mm512_cmpeq_epi8_mask(folded, _mm512_set1_epi8(byte as i8));
    // SAFETY: the load takes the table's 16 bytes, and the load needs no alignment.
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
