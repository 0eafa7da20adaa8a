//! New ids for copies: a copy's UUID is a function of the seed, the patient's number and the old UUID alone.

use crate::hash::{xxh3_64_with_seed, xxh3_128_with_seed};

/// Length in bytes of a UUID's text.
pub(crate) const UUID_BYTES: usize = 36;

/// UUID that replaces `old` in the resources of patient number `patient`.
pub(crate) fn renamed(seed: u64, patient: u64, old: u128) -> u128 {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&patient.to_le_bytes());
    key[8..].copy_from_slice(&old.to_le_bytes());
    xxh3_128_with_seed(&key, seed)
}

/// Evenly spread number that decides one property (`purpose`) of a patient's row: hashed from the seed, as new ids are.
pub(crate) fn choice(seed: u64, patient: u64, row: u64, purpose: u64) -> u64 {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&patient.to_le_bytes());
    key[8..16].copy_from_slice(&row.to_le_bytes());
    key[16..].copy_from_slice(&purpose.to_le_bytes());
    xxh3_64_with_seed(&key, seed)
}

/// Parses a UUID in lower-case hexadecimal at the start of `text`; `None` if there is none.
pub(crate) fn parse(text: &[u8]) -> Option<u128> {
    let text = text.first_chunk::<UUID_BYTES>()?;
    let mut value = 0u128;
    for (i, byte) in text.iter().enumerate() {
        match (i, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => value = value << 4 | u128::from(byte - b'0'),
            (_, b'a'..=b'f') => value = value << 4 | u128::from(byte - b'a' + 10),
            _ => return None,
        }
    }
    Some(value)
}

/// Appends a UUID as 36 characters.
pub(crate) fn put(out: &mut Vec<u8>, uuid: u128) {
    let mut text = [b'-'; UUID_BYTES];
    let mut i = 0;
    for byte in uuid.to_be_bytes() {
        if matches!(i, 8 | 13 | 18 | 23) {
            i += 1;
        }
        text[i] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[i + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
        i += 2;
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_reads_back() {
        let mut text = Vec::new();
        let uuid = renamed(1, 2, 3);
        put(&mut text, uuid);
        assert_eq!(parse(&text), Some(uuid));
        assert_eq!(parse(b"0123456789abcdef"), None);
        assert_ne!(renamed(1, 3, 3), uuid);
        assert_ne!(renamed(2, 2, 3), uuid);
    }
}
