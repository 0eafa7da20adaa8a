//! Bytes viewed as little-endian integers and back, without copying.
//!
//! A view exists only where the bytes are aligned and make a whole number of integers, so that a damaged file is a
//! `None` and never a panic. Columns on disk are little-endian and are mapped without conversion, so the machine must
//! be little-endian, too.

use std::sync::atomic::AtomicU32;

use bytemuck::{AnyBitPattern, NoUninit, try_cast_slice};

#[cfg(target_endian = "big")]
compile_error!("columns are mapped as they are on disk: little-endian machines only");

/// A struct of `u64` words that a [`view`] can have as its elements.
macro_rules! words {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: u64,)* }

        // SAFETY: all zeros are a value of each word.
        unsafe impl bytemuck::Zeroable for $name {}
        // SAFETY: in this order and without padding it holds words alone, of which any bits are a value.
        unsafe impl bytemuck::Pod for $name {}
    };
}
pub(crate) use words;

/// The bytes as integers `T`; `None` unless they are aligned to `T` and make a whole number of them.
pub(crate) fn view<T: AnyBitPattern>(bytes: &[u8]) -> Option<&[T]> {
    // No bytes are no integers, wherever they lie; the cast would ask for their alignment.
    if bytes.is_empty() {
        return Some(&[]);
    }
    try_cast_slice(bytes).ok()
}

/// The bytes as integers `T` to be written; `None` unless they are aligned to `T` and make a whole number of them.
pub(crate) fn view_mut<T: NoUninit + AnyBitPattern>(bytes: &mut [u8]) -> Option<&mut [T]> {
    if bytes.is_empty() {
        return Some(&mut []);
    }
    bytemuck::try_cast_slice_mut(bytes).ok()
}

/// The bytes of integers, in the form that [`view`] reads back.
pub(crate) fn bytes_of<T: NoUninit>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// The bytes of integers, to be overwritten.
pub(crate) fn bytes_of_mut<T: NoUninit + AnyBitPattern>(values: &mut [T]) -> &mut [u8] {
    bytemuck::cast_slice_mut(values)
}

/// The integers as atomics, so that several threads can fill them in any order.
pub(crate) fn atomics_u32(values: &mut [u32]) -> &[AtomicU32] {
    // SAFETY: an atomic has the layout of its integer, and the exclusive borrow becomes a shared one of atomics only.
    unsafe { &*(std::ptr::from_mut(values) as *const [AtomicU32]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_little_endian_and_read_back() {
        assert_eq!(bytes_of(&[0x0102_u16]), [2, 1]);
        assert_eq!(bytes_of(&[1_u32, 0x0203_0405]), [1, 0, 0, 0, 5, 4, 3, 2]);
        assert_eq!(bytes_of(&[-2_i64]), [0xfe, 255, 255, 255, 255, 255, 255, 255]);
        let values = [0, 1, u64::MAX, 1 << 40];
        assert_eq!(view(bytes_of(&values)), Some(&values[..]));
        assert_eq!(view(bytes_of(&[i64::MIN, 7])), Some(&[i64::MIN, 7][..]));
        assert_eq!(view(bytes_of(&[7_u32, 8])), Some(&[7_u32, 8][..]));
        assert_eq!(view(bytes_of(&[[3_u8; 16]; 2])), Some(&[[3_u8; 16]; 2][..]));
    }

    #[test]
    fn unaligned_or_broken_bytes_are_none() {
        let mut words = [0_u64; 4];
        let bytes = bytes_of_mut(&mut words);
        assert!(view::<u64>(&bytes[4..12]).is_none() && view::<u64>(&bytes[..12]).is_none());
        assert!(view::<i64>(&bytes[1..]).is_none() && view::<u16>(&bytes[1..3]).is_none());
        assert!(view::<u32>(&bytes[2..6]).is_none() && view::<u32>(&bytes[..6]).is_none());
        assert_eq!(view::<u32>(&bytes[4..12]).map(<[u32]>::len), Some(2));
        assert_eq!(view::<[u8; 16]>(&bytes[1..17]).map(<[_]>::len), Some(1));
        assert!(view::<[u8; 16]>(&bytes[..31]).is_none());
        view_mut::<u32>(&mut bytes[4..]).unwrap()[0] = 9;
        assert!(view_mut::<u64>(&mut bytes[4..]).is_none() && view_mut::<i64>(&mut bytes[..9]).is_none());
        assert_eq!(words[0], 9 << 32);
        for empty in [&[][..], &bytes_of(&[1_u64])[8..]] {
            assert_eq!(view::<u64>(empty).map(<[u64]>::len), Some(0));
        }
    }
}
