//! Packs ids to 16 bytes and version ids to 8, reads them back, and hashes (type, id) and (base, id).
//!
//! A packed id is exact, so that the index compares ids without reading the store: a UUID in lower case is its 128
//! bits, up to 15 characters lie inline, any other id lies in the heap of the segment.

use crate::casts::{low_u32, to_u8, to_u32};
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::hash::xxh3_64_with_seed;

/// Form of a packed id. The discriminants are stored on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum IdClass {
    /// Up to 15 characters; the last byte is their number.
    Inline = 0,
    /// A UUID in lower-case hexadecimal with dashes.
    Uuid = 1,
    /// Offset (`u32`) and length (`u32`) in the heap.
    Heap = 2,
}

impl IdClass {
    /// The class of a stored discriminant; `None` for any other number.
    pub(crate) fn from_bits(bits: u32) -> Option<IdClass> {
        [IdClass::Inline, IdClass::Uuid, IdClass::Heap].get(bits as usize).copied()
    }
}

/// Packs an id; one that is neither short nor a UUID goes to `heap`.
pub(crate) fn pack_id(id: &[u8], heap: &mut Vec<u8>) -> (IdClass, [u8; 16]) {
    let mut packed = [0; 16];
    if id.len() <= 15 {
        packed[..id.len()].copy_from_slice(id);
        packed[15] = to_u8(id.len());
        return (IdClass::Inline, packed);
    }
    if let Some(bits) = parse_uuid(id) {
        return (IdClass::Uuid, bits);
    }
    let offset = push_heap(heap, id);
    packed[..4].copy_from_slice(&offset.to_le_bytes());
    packed[4..8].copy_from_slice(&to_u32(id.len()).to_le_bytes());
    (IdClass::Heap, packed)
}

/// Appends bytes to a heap and returns their offset. A segment's heap stays far below 4 GiB: ids, digits and bases of
/// 2^17 rows.
pub(crate) fn push_heap(heap: &mut Vec<u8>, bytes: &[u8]) -> u32 {
    let offset = u32::try_from(heap.len()).expect("the heap of an extent is below 4 GiB");
    heap.extend_from_slice(bytes);
    offset
}

/// Range in the heap of a packed id of class [`IdClass::Heap`].
pub(crate) fn heap_range(packed: &[u8; 16]) -> std::ops::Range<usize> {
    let offset = u32::from_le_bytes(packed[..4].try_into().expect("4 bytes")) as usize;
    let len = u32::from_le_bytes(packed[4..8].try_into().expect("4 bytes")) as usize;
    offset..offset + len
}

/// Unpacks an id; `None` when the bytes are no packed id of this class, or point out of the heap.
pub(crate) fn unpack_id(class: IdClass, packed: &[u8; 16], heap: &[u8]) -> Option<Id> {
    match class {
        IdClass::Inline => Id::parse(packed.get(..packed[15] as usize)?),
        IdClass::Uuid => Id::parse(&format_uuid(packed)),
        IdClass::Heap => Id::parse(heap.get(heap_range(packed))?),
    }
}

/// The 128 bits of a UUID written as 36 lower-case characters; `None` for any other text.
fn parse_uuid(id: &[u8]) -> Option<[u8; 16]> {
    let id: &[u8; 36] = id.try_into().ok()?;
    let four = |position: usize| u64::from(u32::from_le_bytes(*id[position..].first_chunk().expect("36 bytes")));
    let parts = [(0, 4), (9, 14), (19, 24), (28, 32)].map(|(low, high)| hex(four(low) | four(high) << 32));
    let dashes = [8, 13, 18, 23].iter().all(|offset| id[*offset] == b'-');
    let mut bits = [0; 16];
    for (bytes, part) in bits.as_chunks_mut::<4>().0.iter_mut().zip(parts) {
        *bytes = part?.to_le_bytes();
    }
    dashes.then_some(bits)
}

/// The four bytes that eight lower-case hexadecimal digits stand for, eight of either at a time; `None` for other
/// texts.
fn hex(digits: u64) -> Option<u32> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let letters = (digits >> 6) & ONES;
    let values = (digits & (15 * ONES)) + 9 * letters;
    // A letter must be worth ten or more, no digit more than fifteen, and each value must give its digit back.
    let tens = ((values + 6 * ONES) >> 4) & ONES;
    let right = tens == letters && values & (16 * ONES) == 0 && values + 0x30 * ONES + 0x27 * letters == digits;
    let pairs = (values << 4 | values >> 8) & 0x00ff_00ff_00ff_00ff;
    let halves = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    right.then_some(low_u32(halves | halves >> 16))
}

/// The 36 lower-case characters of a UUID.
fn format_uuid(bits: &[u8; 16]) -> [u8; 36] {
    let mut text = [b'-'; 36];
    let mut i = 0;
    for byte in bits {
        if matches!(i, 8 | 13 | 18 | 23) {
            i += 1;
        }
        text[i] = b"0123456789abcdef"[(byte >> 4) as usize];
        text[i + 1] = b"0123456789abcdef"[(byte & 15) as usize];
        i += 2;
    }
    text
}

/// In place of the class of an id: the reference is conditional, and the id is place and length of its condition in the
/// heap.
pub(crate) const CONDITIONAL: u32 = 3;

/// Hash of an identifier (system, a vertical line, value) of a resource of this type.
pub(crate) fn identifier_hash(resource_type: ResourceType, text: &[u8]) -> u64 {
    xxh3_64_with_seed(text, (resource_type.index() as u64 + 1) << 32)
}

/// Hash of a patient as a reference names it: a base (empty for relative references) and a logical id.
pub(crate) fn owner_hash(base: &[u8], id: &[u8]) -> u64 {
    xxh3_64_with_seed(id, if base.is_empty() { 0 } else { xxh3_64_with_seed(base, 1) })
}

/// Packs a `meta.versionId`: 0 for none or no number, the number plus one up to 18 digits, else (top bit) length and
/// offset in the heap.
pub(crate) fn pack_version(text: &[u8], heap: &mut Vec<u8>) -> u64 {
    if text.is_empty() || text.len() > crate::limits::R4_ID_BYTES_MAX || !text.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let zeros = text.iter().take_while(|b| **b == b'0').count();
    let digits = &text[zeros..];
    if digits.len() <= 18 {
        return digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')) + 1;
    }
    let offset = push_heap(heap, digits);
    1 << 63 | (digits.len() as u64) << 32 | u64::from(offset)
}

/// A versionId as an ordered key: none or no number first, then numbers by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VersionKey<'a> {
    /// None given, or no number.
    None,
    /// A number of up to 18 digits.
    Small(u64),
    /// More digits: their number, then the digits (no leading zero), which orders as the values do.
    Big(usize, &'a [u8]),
}

/// Unpacks a versionId; digits that point out of the heap are empty.
pub(crate) fn unpack_version(packed: u64, heap: &[u8]) -> VersionKey<'_> {
    match packed {
        0 => VersionKey::None,
        _ if packed >> 63 == 0 => VersionKey::Small(packed - 1),
        _ => {
            let len = (packed >> 32 & 0x7fff_ffff) as usize;
            let offset = low_u32(packed) as usize;
            VersionKey::Big(len, heap.get(offset..offset + len).unwrap_or_default())
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    /// Packing loses nothing, and only the canonical form of a UUID is packed as one.
    #[test]
    fn ids_survive_packing() {
        let mut heap = Vec::new();
        for id in [
            "a",
            "123456789012345",
            "1234567890123456",
            "0b7d7a9e-6d6f-4c53-9d50-3a0c6a2f1e11",
            "0B7d7a9e-6d6f-4c53-9d50-3a0c6a2f1e11",
            "0b7d7a9e.6d6f-4c53-9d50-3a0c6a2f1e11",
            "m0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde",
        ] {
            let (class, packed) = pack_id(id.as_bytes(), &mut heap);
            assert_eq!(unpack_id(class, &packed, &heap).unwrap().as_str(), id);
        }
    }

    /// Eight digits at a time are eight digits one by one, for every byte at every place.
    #[test]
    fn digits_are_read_as_one_by_one() {
        let slow = |text: &[u8; 8]| {
            let value = |byte: u8| b"0123456789abcdef".iter().position(|digit| *digit == byte).map(|value| value as u8);
            let mut bytes = [0; 4];
            for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
                *byte = value(pair[0])? << 4 | value(pair[1])?;
            }
            Some(u32::from_le_bytes(bytes))
        };
        for text in [*b"01234567", *b"89abcdef", *b"ffffffff", *b"00000000", *b"f0e1d2c3"] {
            for i in 0..8 {
                for byte in 0..=255 {
                    let mut text = text;
                    text[i] = byte;
                    assert_eq!(hex(u64::from_le_bytes(text)), slow(&text), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn versions_order_as_numbers() {
        let mut heap = Vec::new();
        let texts: [&[u8]; 7] =
            [b"x", b"0", b"9", b"010", b"999999999999999999", b"1000000000000000000", b"20000000000000000000"];
        let packed: Vec<u64> = texts.iter().map(|text| pack_version(text, &mut heap)).collect();
        let versions: Vec<VersionKey> = packed.iter().map(|packed| unpack_version(*packed, &heap)).collect();
        assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
    }
}
