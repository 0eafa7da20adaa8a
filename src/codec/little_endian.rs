//! Bytes seen as little-endian integers and back, without copying.
//!
//! A view is given only when the bytes are aligned and make whole integers, so a damaged file is a `None`, never a
//! panic. Columns on disk are little-endian, and so must the machine be: no others are in reach to test.

#[cfg(target_endian = "big")]
compile_error!("columns are mapped as they are on disk: little-endian machines only");

/// An integer (or an array of bytes) that any bytes make a legal value of, and that has no padding.
///
/// # Safety
/// Both must hold for the type.
unsafe trait Plain: Copy {}
// SAFETY: integers have neither padding nor illegal values.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for i64 {}
// SAFETY: as above, of each of the bytes.
unsafe impl Plain for [u8; 16] {}

fn view<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: any bytes are a legal `T`; `align_to` sees to alignment and bounds.
    let (before, values, after) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && after.is_empty()).then_some(values)
}

fn view_mut<T: Plain>(bytes: &mut [u8]) -> Option<&mut [T]> {
    // SAFETY: any bytes are a legal `T` and any `T` is legal bytes, so either side may be written.
    let (before, values, after) = unsafe { bytes.align_to_mut::<T>() };
    (before.is_empty() && after.is_empty()).then_some(values)
}

fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: a `T` has no padding, so all its bytes are initialised, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_of_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and any bytes are a legal `T`, so whatever is written leaves values.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// The bytes as `u16`s, if they are aligned to 2 and make whole ones.
pub fn u16s(bytes: &[u8]) -> Option<&[u16]> {
    view(bytes)
}

/// The bytes as `u32`s, if they are aligned to 4 and make whole ones.
pub fn u32s(bytes: &[u8]) -> Option<&[u32]> {
    view(bytes)
}

/// The bytes as `u64`s, if they are aligned to 8 and make whole ones.
pub fn u64s(bytes: &[u8]) -> Option<&[u64]> {
    view(bytes)
}

/// The bytes as `i64`s, if they are aligned to 8 and make whole ones.
pub fn i64s(bytes: &[u8]) -> Option<&[i64]> {
    view(bytes)
}

/// The bytes in groups of 16, if they make whole ones; any alignment will do.
pub fn hashes(bytes: &[u8]) -> Option<&[[u8; 16]]> {
    view(bytes)
}

/// The integers as atomics, so that threads can fill them in any order.
pub fn atomics_u32(values: &mut [u32]) -> &[std::sync::atomic::AtomicU32] {
    // SAFETY: an atomic has the layout of its integer, and the exclusive borrow becomes a shared one of atomics only.
    unsafe { &*(std::ptr::from_mut(values) as *const [std::sync::atomic::AtomicU32]) }
}

/// The bytes as `u32`s to be written, if they are aligned to 4 and make whole ones.
pub fn u32s_mut(bytes: &mut [u8]) -> Option<&mut [u32]> {
    view_mut(bytes)
}

/// The bytes as `u64`s to be written, if they are aligned to 8 and make whole ones.
pub fn u64s_mut(bytes: &mut [u8]) -> Option<&mut [u64]> {
    view_mut(bytes)
}

/// The bytes as `i64`s to be written, if they are aligned to 8 and make whole ones.
pub fn i64s_mut(bytes: &mut [u8]) -> Option<&mut [i64]> {
    view_mut(bytes)
}

/// The bytes that `u16s` reads back.
pub fn as_bytes_u16(values: &[u16]) -> &[u8] {
    bytes_of(values)
}

/// The bytes that `u32s` reads back.
pub fn as_bytes_u32(values: &[u32]) -> &[u8] {
    bytes_of(values)
}

/// The bytes that `u64s` reads back.
pub fn as_bytes_u64(values: &[u64]) -> &[u8] {
    bytes_of(values)
}

/// The bytes that `i64s` reads back.
pub fn as_bytes_i64(values: &[i64]) -> &[u8] {
    bytes_of(values)
}

/// The bytes of `u32`s, to be filled.
pub fn as_bytes_u32_mut(values: &mut [u32]) -> &mut [u8] {
    bytes_of_mut(values)
}

/// The bytes of `u64`s, to be filled.
pub fn as_bytes_u64_mut(values: &mut [u64]) -> &mut [u8] {
    bytes_of_mut(values)
}

/// The bytes of `i64`s, to be filled.
pub fn as_bytes_i64_mut(values: &mut [i64]) -> &mut [u8] {
    bytes_of_mut(values)
}

/// The bytes that `hashes` reads back.
pub fn as_bytes_hashes(values: &[[u8; 16]]) -> &[u8] {
    bytes_of(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_little_endian_and_read_back() {
        assert_eq!(as_bytes_u16(&[0x0102]), [2, 1]);
        assert_eq!(as_bytes_u32(&[1, 0x0203_0405]), [1, 0, 0, 0, 5, 4, 3, 2]);
        assert_eq!(as_bytes_i64(&[-2]), [0xfe, 255, 255, 255, 255, 255, 255, 255]);
        let values = [0, 1, u64::MAX, 1 << 40];
        assert_eq!(u64s(as_bytes_u64(&values)), Some(&values[..]));
        assert_eq!(i64s(as_bytes_i64(&[i64::MIN, 7])), Some(&[i64::MIN, 7][..]));
        assert_eq!(u32s(as_bytes_u32(&[7, 8])), Some(&[7, 8][..]));
        assert_eq!(u16s(as_bytes_u16(&[7, 8])), Some(&[7, 8][..]));
        assert_eq!(hashes(as_bytes_hashes(&[[3; 16]; 2])), Some(&[[3; 16]; 2][..]));
    }

    #[test]
    fn unaligned_or_broken_bytes_are_none() {
        let mut words = [0_u64; 4];
        let bytes = view_mut_bytes(&mut words);
        assert!(u64s(&bytes[4..12]).is_none() && u64s(&bytes[..12]).is_none() && i64s(&bytes[1..]).is_none());
        assert!(u32s(&bytes[2..6]).is_none() && u32s(&bytes[..6]).is_none() && u16s(&bytes[1..3]).is_none());
        assert_eq!(u32s(&bytes[4..12]).map(<[u32]>::len), Some(2));
        assert_eq!(hashes(&bytes[1..17]).map(<[_]>::len), Some(1));
        assert!(hashes(&bytes[..31]).is_none());
        u32s_mut(&mut bytes[4..]).unwrap()[0] = 9;
        assert!(u64s_mut(&mut bytes[4..]).is_none() && i64s_mut(&mut bytes[..9]).is_none());
        assert_eq!(words[0], 9 << 32);
        for empty in [&[][..], &as_bytes_u64(&[1])[8..]] {
            assert_eq!(u64s(empty).map(<[u64]>::len), Some(0));
        }
    }

    fn view_mut_bytes(words: &mut [u64]) -> &mut [u8] {
        // SAFETY: as in `bytes_of`, and any bytes are a legal `u64`.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
    }
}
