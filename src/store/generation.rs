//! The generation file: which extents make one consistent index of the whole store, and what the index remembers of
//! the snapshots taken from it.
//!
//! One small text file replaced by rename: a line with magic, version and checksum, then JSON.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::layout;
use crate::bytes::source::Stamp;
use crate::extract::Validate;
use crate::fhir::Instant;

/// Name of the file.
pub const FILE: &str = "generation";

/// A store file as the index knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    /// Path relative to the store.
    pub name: String,
    /// Size and times when it was indexed.
    pub stamp: Stamp,
    /// Hash of sampled blocks of its bytes up to that size.
    pub samples: u64,
    /// Whether new bytes behind the old end can be indexed by themselves: a plain file always, a compressed one when
    /// it ended with a whole member and a whole line.
    pub appendable: bool,
}

/// An extent of the generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtentEntry {
    /// Index of the store file in [`Generation::files`].
    pub file: usize,
    /// Index of the container in [`Generation::containers`].
    pub container: usize,
    /// Offset in the container.
    pub at: u64,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// Hash of the bytes from start to end.
    pub content: u64,
    /// Whether it is the last line of a plain file, still without its newline.
    pub tail: bool,
    /// T of the first snapshot that held it, in ticks rounded up; none until one has.
    pub first_seen: Option<i64>,
}

/// One consistent index of a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generation {
    /// Grows with every change.
    pub sequence: u64,
    /// What the scan checked.
    pub validate: Validate,
    /// T of the first snapshot ever taken, in ticks rounded up.
    pub birth: Option<i64>,
    /// Greatest T of the snapshots taken, in ticks rounded up.
    pub latest: Option<i64>,
    /// Store files in store order.
    pub files: Vec<FileEntry>,
    /// Files of the index that hold extents.
    pub containers: Vec<String>,
    /// Extents in store order.
    pub extents: Vec<ExtentEntry>,
    /// File of the index that holds what was merged over all extents.
    pub merged: String,
}

/// An instant as ticks, rounded up to the next tick.
pub fn ticks_up(at: &Instant) -> i64 {
    at.ticks + i64::from(!at.rest.is_empty())
}

impl Generation {
    /// An index of nothing.
    pub fn empty(validate: Validate) -> Generation {
        Generation {
            sequence: 0,
            validate,
            birth: None,
            latest: None,
            files: Vec::new(),
            containers: Vec::new(),
            extents: Vec::new(),
            merged: String::new(),
        }
    }

    /// Notes that a snapshot at `as_of` holds every extent; whether that changed anything.
    ///
    /// An extent is never called older than the snapshots that were taken before it came: a snapshot of the past
    /// taken today must not make tonight's late file look as if last night's export had held it.
    pub fn seen(&mut self, as_of: &Instant) -> bool {
        let now = ticks_up(as_of);
        let first = match self.latest {
            Some(latest) if latest >= now => latest + 1,
            _ => now,
        };
        let mut changed = false;
        for extent in &mut self.extents {
            if extent.first_seen.is_none() {
                extent.first_seen = Some(first);
                changed = true;
            }
        }
        if self.birth.is_none() {
            self.birth = Some(first);
            changed = true;
        }
        if self.latest.is_none_or(|latest| latest < now) {
            self.latest = Some(now);
            changed = true;
        }
        changed
    }

    /// Whether rows of this extent are late for an export since `since` (reading "late rows"): the extent was first
    /// held by a snapshot after `since`, and the index was alive then, or has come later than the index's birth.
    pub fn is_late(&self, extent: &ExtentEntry, since: &Instant) -> bool {
        let (Some(first), Some(birth)) = (extent.first_seen, self.birth) else { return false };
        // Rounding up errs towards exporting a row twice, never towards losing it.
        first > since.ticks && first > birth
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).expect("a generation is plain data");
        let mut bytes = format!("outpour-index {} {:016x}\n", layout::VERSION, xxh3_64(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads the file; `None` when it is damaged or of another version, which means a rebuild.
    pub fn from_bytes(bytes: &[u8]) -> Option<Generation> {
        let newline = memchr::memchr(b'\n', bytes)?;
        let (head, body) = (str::from_utf8(&bytes[..newline]).ok()?, &bytes[newline + 1..]);
        if head != format!("outpour-index {} {:016x}", layout::VERSION, xxh3_64(body)) {
            return None;
        }
        let generation: Generation = serde_json::from_slice(body).ok()?;
        let (files, containers) = (generation.files.len(), generation.containers.len());
        let sound = generation.extents.iter().all(|e| e.file < files && e.container < containers && e.start <= e.end);
        let ordered = generation.extents.is_sorted_by_key(|e| (e.file, e.start))
            && generation.files.is_sorted_by(|a, b| a.name.as_bytes() < b.name.as_bytes());
        (sound && ordered).then_some(generation)
    }
}
