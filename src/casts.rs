//! Narrowing casts of integers whose bound the caller knows. Each checks the bound in debug builds.
//!
//! `index/`, `select/` and `plan` deny other narrowing casts, so that a count or an offset that outgrows its column is
//! not truncated silently there.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("offsets of files are used as indices: 64-bit machines only");

/// An offset or count as an index of a slice; both have 64 bits.
#[inline(always)]
pub(crate) const fn to_usize(n: u64) -> usize {
    n as usize
}

/// An index as 32 bits; the caller's bound is below 2^32.
#[inline(always)]
pub(crate) const fn to_u32(n: usize) -> u32 {
    debug_assert!(n <= u32::MAX as usize, "a bound of 32 bits");
    n as u32
}

/// A number as 32 bits; the caller's bound is below 2^32.
#[inline(always)]
pub(crate) const fn u64_to_u32(n: u64) -> u32 {
    debug_assert!(n <= u32::MAX as u64, "a bound of 32 bits");
    n as u32
}

/// The lower 32 bits of a packed pair of 32-bit numbers.
#[inline(always)]
pub(crate) const fn low_u32(pair: u64) -> u32 {
    (pair & 0xffff_ffff) as u32
}

/// An index as 8 bits; the caller's bound is below 256.
#[inline(always)]
pub(crate) const fn to_u8(n: usize) -> u8 {
    debug_assert!(n <= u8::MAX as usize, "a bound of 8 bits");
    n as u8
}
