//! Writing sets of keys: small ones in memory, large ones in a mapped file that is sorted in place.

use std::fs::File;
use std::io;
use std::path::Path;

use rayon::prelude::*;

use crate::key_set::resource_key::ResourceKey;
use crate::key_set::{HEADER_BYTES, header_of};
use crate::sys::file_map::GrowFile;
use crate::sys::little_endian;

/// Bytes of a key.
const KEY_BYTES: usize = size_of::<ResourceKey>();

/// The file of a set of keys that are given in any order, some maybe twice.
pub(crate) fn file_bytes(mut keys: Vec<ResourceKey>) -> Vec<u8> {
    keys.sort_unstable();
    keys.dedup();
    let body = little_endian::bytes_of(&keys);
    let mut bytes = header_of(body).to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// A file of keys while it is written: mapped, sorted, each key once. Its pages are those of the file, not memory of the process.
pub(crate) struct SortedKeys {
    map: GrowFile,
    /// A second handle, to cut the file to its length.
    file: File,
    count: usize,
}

impl SortedKeys {
    /// Fills an empty file that is open for reading and writing with at most `count_max` keys. `fill` puts them into the first
    /// slots, in any order, and returns how many there are. Sorts on the current rayon pool.
    ///
    /// # Errors
    /// The file cannot be written (outer), or the error of `fill` (inner).
    pub(crate) fn fill<E>(
        file: File,
        name: &Path,
        count_max: usize,
        fill: impl FnOnce(&mut [ResourceKey]) -> Result<usize, E>,
    ) -> io::Result<Result<SortedKeys, E>> {
        let bytes = HEADER_BYTES as u64 + count_max as u64 * KEY_BYTES as u64;
        let mut map = GrowFile::of_file(file.try_clone()?, bytes, name)?;
        let slots = slots(&mut map);
        let filled = match fill(slots) {
            Ok(count) => &mut slots[..count],
            Err(error) => return Ok(Err(error)),
        };
        filled.par_sort_unstable();
        let count = dedup(filled);
        Ok(Ok(SortedKeys { map, file, count }))
    }

    /// The keys, ascending, none twice.
    pub(crate) fn keys(&mut self) -> &[ResourceKey] {
        let count = self.count;
        &slots(&mut self.map)[..count]
    }

    /// Completes the file; with `sync` it is on the disk then.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn finish(mut self, sync: bool) -> io::Result<()> {
        let bytes = HEADER_BYTES + self.count * KEY_BYTES;
        let (header, body) = self.map.bytes_mut()[..bytes].split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&header_of(body));
        self.map.finish(false)?;
        self.file.set_len(bytes as u64)?;
        if sync { self.file.sync_all() } else { Ok(()) }
    }
}

/// The keys of a mapped file, behind its header.
fn slots(map: &mut GrowFile) -> &mut [ResourceKey] {
    let body = map.bytes_mut().get_mut(HEADER_BYTES..).unwrap_or_default();
    little_endian::view_mut(body).expect("a map begins at a page, and its length is that of keys")
}

/// Moves each key of a sorted list to the front once; returns how many there are.
fn dedup(keys: &mut [ResourceKey]) -> usize {
    let mut count = 0;
    for i in 0..keys.len() {
        if count == 0 || keys[count - 1] != keys[i] {
            keys[count] = keys[i];
            count += 1;
        }
    }
    count
}
