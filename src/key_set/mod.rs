//! Sets of resources or patients on disk, as sorted keys of 16 bytes.
//!
//! The record of an export holds whom and what it was about in this form, so that a later increment can tell what has joined
//! and left. The file is mapped, not read: a header of 32 bytes ([`MAGIC`], the number of keys, the xxHash3 of the keys, the
//! xxHash3 of the 24 bytes before it), then the keys, ascending, none twice, each as two 64-bit numbers, little-endian.

pub(crate) mod builder;
pub(crate) mod resource_key;

use std::fs::File;
use std::path::Path;

use crate::hash::{xxh3_64, xxh3_128};
use crate::key_set::resource_key::ResourceKey;
use crate::sys::file_map::ReadMap;
use crate::sys::little_endian;

/// First bytes of the file, its version among them.
pub(crate) const MAGIC: &[u8; 8] = b"OPKEYS01";
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 32;

/// A set of keys in a file, checked when it was opened.
#[derive(Debug)]
pub(crate) struct ResourceKeySet {
    map: ReadMap,
}

impl ResourceKeySet {
    /// Opens a file of keys, reads and checks all of it; `name` is its name in messages.
    ///
    /// # Errors
    /// A clause that says what is wrong with the file.
    pub(crate) fn open(file: File, name: &Path) -> Result<ResourceKeySet, String> {
        let map = ReadMap::of_file(file, name).map_err(|error| error.to_string())?;
        let Some((header, body)) = map.split_at_checked(HEADER_BYTES) else {
            return Err("is shorter than its header".to_string());
        };
        if header != header_of(body) {
            return Err("does not have the length and the checksum that its header states".to_string());
        }
        let keys: Option<&[ResourceKey]> = little_endian::view(body);
        match keys.is_some_and(|keys| keys.is_sorted_by(|a, b| a < b)) {
            true => Ok(ResourceKeySet { map }),
            false => Err("does not hold its keys in ascending order".to_string()),
        }
    }

    /// The keys, ascending, none twice.
    pub(crate) fn keys(&self) -> &[ResourceKey] {
        little_endian::view(&self.map[HEADER_BYTES..]).expect("checked when it was opened")
    }

    /// Whether a key is in the set.
    pub(crate) fn contains(&self, key: &ResourceKey) -> bool {
        self.keys().binary_search(key).is_ok()
    }

    /// Digest of the file, as records name it.
    pub(crate) fn digest(&self) -> String {
        digest_of(&self.map)
    }
}

/// The header over the bytes of some keys.
fn header_of(body: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let count = body.len() as u64 / size_of::<ResourceKey>() as u64;
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&count.to_le_bytes());
    header[16..24].copy_from_slice(&xxh3_64(body).to_le_bytes());
    let sum = xxh3_64(&header[..24]);
    header[24..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Digest of a file of keys: its xxHash3 of 128 bits in hexadecimal.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_set::builder::{SortedKeys, file_bytes};
    use crate::key_set::resource_key::patient_key;
    use std::io::Write;

    /// The keys of these numbers as ids of patients.
    fn keys(numbers: impl IntoIterator<Item = u32>) -> Vec<ResourceKey> {
        numbers.into_iter().map(|number| patient_key(number.to_string().as_bytes())).collect()
    }

    /// Opens bytes as a file of keys.
    fn opened(bytes: &[u8]) -> Result<ResourceKeySet, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        ResourceKeySet::open(file, Path::new("keys"))
    }

    /// Both ways of writing give the same file, which reads back as a set.
    #[test]
    fn keys_read_back_sorted_and_each_once() {
        for count in [0, 1, 2, 1_000] {
            let given = keys((0..count).chain(0..count / 2));
            let bytes = file_bytes(given.clone());
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join("keys");
            let file =
                || std::fs::File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
            let sorted = SortedKeys::fill(file(), &path, given.len(), |slots| {
                slots.copy_from_slice(&given);
                Ok::<usize, std::io::Error>(given.len())
            });
            sorted.unwrap().unwrap().finish(false).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes, "{count}");
            let set = ResourceKeySet::open(file(), &path).unwrap();
            assert_eq!(set.keys().len(), count as usize);
            assert!(given.iter().all(|key| set.contains(key)) && !set.contains(&keys([count])[0]));
            assert_eq!(set.digest(), digest_of(&bytes));
        }
    }

    /// A file that is not as it was written is refused, wherever it differs.
    #[test]
    fn damaged_files_are_refused() {
        let bytes = file_bytes(keys(0..20));
        assert!(opened(&bytes).is_ok());
        for i in 0..bytes.len() {
            assert!(opened(&bytes[..i]).is_err(), "{i}");
            let mut damaged = bytes.clone();
            damaged[i] ^= 4;
            assert!(opened(&damaged).is_err(), "{i}");
        }
        // With a right checksum, but in another order.
        let mut body = bytes[HEADER_BYTES..].to_vec();
        body.rotate_left(16);
        let forged: Vec<u8> = header_of(&body).into_iter().chain(body).collect();
        assert!(opened(&forged).unwrap_err().contains("ascending"));
    }
}
