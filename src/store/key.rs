//! Keys of the index: ids packed to 16 bytes, version ids packed to 8, and their hashes.
//!
//! A packed id is exact, so that the index can compare ids without reading the store: a UUID in lower case is its 128
//! bits, up to 15 characters stand inline, anything else lies in the extent's heap.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::fhir::{Id, ResourceType};

/// How an id is packed. The discriminants are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IdClass {
    /// Up to 15 characters; the last byte is their number.
    Inline = 0,
    /// A UUID in lower-case hexadecimal with dashes.
    Uuid = 1,
    /// Offset (`u32`) and length (`u32`) in the heap.
    Heap = 2,
}

impl IdClass {
    /// The class of this stored discriminant.
    pub fn from_bits(bits: u32) -> Option<IdClass> {
        [IdClass::Inline, IdClass::Uuid, IdClass::Heap].get(bits as usize).copied()
    }
}

/// Packs an id, putting what fits nowhere else into `heap`.
pub fn pack_id(id: &[u8], heap: &mut Vec<u8>) -> (IdClass, [u8; 16]) {
    let mut packed = [0; 16];
    if id.len() <= 15 {
        packed[..id.len()].copy_from_slice(id);
        packed[15] = id.len() as u8;
        return (IdClass::Inline, packed);
    }
    if let Some(bits) = parse_uuid(id) {
        return (IdClass::Uuid, bits);
    }
    let at = push_heap(heap, id);
    packed[..4].copy_from_slice(&at.to_le_bytes());
    packed[4..8].copy_from_slice(&(id.len() as u32).to_le_bytes());
    (IdClass::Heap, packed)
}

/// Appends bytes to a heap; its offset. An extent's heap stays far below 4 GiB: ids, digits and bases of 2^17 rows.
pub fn push_heap(heap: &mut Vec<u8>, bytes: &[u8]) -> u32 {
    let at = u32::try_from(heap.len()).expect("the heap of an extent is below 4 GiB");
    heap.extend_from_slice(bytes);
    at
}

/// Offset and length of a heap reference.
pub fn heap_range(packed: &[u8; 16]) -> std::ops::Range<usize> {
    let at = u32::from_le_bytes(packed[..4].try_into().expect("4 bytes")) as usize;
    let len = u32::from_le_bytes(packed[4..8].try_into().expect("4 bytes")) as usize;
    at..at + len
}

/// The id that was packed, or `None` when the bytes are no packed id.
pub fn unpack_id(class: IdClass, packed: &[u8; 16], heap: &[u8]) -> Option<Id> {
    match class {
        IdClass::Inline => Id::parse(packed.get(..packed[15] as usize)?),
        IdClass::Uuid => Id::parse(&format_uuid(packed)),
        IdClass::Heap => Id::parse(heap.get(heap_range(packed))?),
    }
}

/// The 128 bits of a UUID written as 36 lower-case characters; `None` for any other text.
fn parse_uuid(id: &[u8]) -> Option<[u8; 16]> {
    let id: &[u8; 36] = id.try_into().ok()?;
    let mut bits = [0; 16];
    // Every digit is looked up before anything is decided: one branch for all 32 of them.
    let mut wrong = 0;
    for (byte, at) in bits.iter_mut().zip([0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34]) {
        let (high, low) = (LOWER_HEX[id[at] as usize], LOWER_HEX[id[at + 1] as usize]);
        wrong |= high | low;
        *byte = high << 4 | low & 15;
    }
    let dashes = [8, 13, 18, 23].iter().all(|at| id[*at] == b'-');
    (dashes && wrong < 16).then_some(bits)
}

/// Values of lower-case hexadecimal digits; 255 for anything else.
static LOWER_HEX: [u8; 256] = {
    let mut table = [255; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

fn format_uuid(bits: &[u8; 16]) -> [u8; 36] {
    let mut text = [b'-'; 36];
    let mut at = 0;
    for byte in bits {
        if matches!(at, 8 | 13 | 18 | 23) {
            at += 1;
        }
        text[at] = b"0123456789abcdef"[(byte >> 4) as usize];
        text[at + 1] = b"0123456789abcdef"[(byte & 15) as usize];
        at += 2;
    }
    text
}

/// Hash of an entity: a type and a logical id.
pub fn entity_hash(resource_type: ResourceType, id: &[u8]) -> u64 {
    xxh3_64_with_seed(id, resource_type.index() as u64 + 1)
}

/// Hash of a patient as a reference names it: a base (empty for relative references) and a logical id.
pub fn owner_hash(base: &[u8], id: &[u8]) -> u64 {
    xxh3_64_with_seed(id, if base.is_empty() { 0 } else { xxh3_64_with_seed(base, 1) })
}

/// A packed `meta.versionId`: 0 for none or no number, else the number plus one, else (top bit) a place in the heap.
pub fn pack_version(text: &[u8], heap: &mut Vec<u8>) -> u64 {
    if text.is_empty() || text.len() > crate::limits::ID_BYTES_MAX || !text.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let zeros = text.iter().take_while(|b| **b == b'0').count();
    let digits = &text[zeros..];
    if digits.len() <= 18 {
        return digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')) + 1;
    }
    let at = push_heap(heap, digits);
    1 << 63 | (digits.len() as u64) << 32 | u64::from(at)
}

/// A version id as it orders: no number first, then numbers by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version<'a> {
    /// None given, or no number.
    None,
    /// A number of up to 18 digits.
    Small(u64),
    /// More digits: their number, then the digits (no leading zero), which orders as the values do.
    Big(usize, &'a [u8]),
}

/// Reads a packed version.
pub fn unpack_version(packed: u64, heap: &[u8]) -> Version<'_> {
    match packed {
        0 => Version::None,
        _ if packed >> 63 == 0 => Version::Small(packed - 1),
        _ => {
            let len = (packed >> 32 & 0x7fff_ffff) as usize;
            let at = packed as u32 as usize;
            Version::Big(len, heap.get(at..at + len).unwrap_or_default())
        }
    }
}

#[cfg(test)]
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

    #[test]
    fn versions_order_as_numbers() {
        let mut heap = Vec::new();
        let texts: [&[u8]; 7] =
            [b"x", b"0", b"9", b"010", b"999999999999999999", b"1000000000000000000", b"20000000000000000000"];
        let packed: Vec<u64> = texts.iter().map(|text| pack_version(text, &mut heap)).collect();
        let versions: Vec<Version> = packed.iter().map(|packed| unpack_version(*packed, &heap)).collect();
        assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
    }
}
