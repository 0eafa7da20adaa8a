//! Reads what the last refresh left in an index directory: the index meta with its snapshot log. A directory without an
//! index, one whose index meta is lost, and one that cannot be read are three things: only the index meta remembers when
//! rows were first part of a snapshot.

use std::io;

use crate::codec::compression::Compression;
use crate::error::IndexError;
use crate::extract::rules::LineRules;
use crate::index::dir::{IndexDir, TwinFile, is_absence, is_no_file_of_ours};
use crate::index::legacy_meta::{LegacyFile, LegacyMeta, LegacySegment};
use crate::index::meta::{self, FileEntry, IndexMeta, MemoryLoss, SCAN_AGAIN, SegmentMeta};
use crate::index::meta_head::{HEAD_BYTES, MetaHead};
use crate::index::row_times::RowTimes;
use crate::index::snapshot_log::SnapshotSlots;
use crate::store::Store;
use crate::sys::regular_file::Links;
use crate::sys::store_file::FileStamp;

/// Attempts to read files that a writer may replace meanwhile.
const ATTEMPTS: usize = 4;

/// The index meta of a directory.
pub(crate) struct LoadedMeta {
    /// With the snapshot log applied, unless it was asked for without.
    pub(crate) current: IndexMeta,
    /// T of its first snapshot as the file has it, without the log.
    pub(crate) published_first: Option<i64>,
    /// First-seen times of rows.
    pub(crate) times: RowTimes,
    /// Whether their file is not there.
    pub(crate) times_absent: bool,
    /// Whether it was carried over from format 3.
    pub(crate) is_legacy: bool,
    /// Whether it is to be written again although nothing has changed: a copy of it is lost.
    pub(crate) copy_lost: bool,
}

/// What an index directory remembers.
pub(crate) enum IndexMemory {
    /// It holds no index meta: it is new, or was emptied.
    Absent,
    /// Its index meta is there and cannot be used: what it remembered of snapshots is lost.
    Lost(MemoryLoss),
    /// It has an index meta.
    Known(Box<LoadedMeta>),
}

/// An index meta as its bytes say, or why they say nothing.
enum ParsedMeta {
    /// Of this format.
    Current(Box<IndexMeta>),
    /// Of format 3.
    Legacy(LegacyMeta),
    /// Of a format that this version does not know.
    OtherVersion,
}

impl ParsedMeta {
    /// Reads the bytes of an index meta; `None` when they are damaged.
    fn from_bytes(bytes: &[u8]) -> Option<ParsedMeta> {
        IndexMeta::from_bytes(bytes)
            .map(|meta| ParsedMeta::Current(Box::new(meta)))
            .or_else(|| LegacyMeta::from_bytes(bytes).map(ParsedMeta::Legacy))
            .or_else(|| IndexMeta::is_of_other_version(bytes).then_some(ParsedMeta::OtherVersion))
    }
}

impl IndexMemory {
    /// What the memory was lost by, if it was.
    pub(crate) fn loss(&self) -> Option<MemoryLoss> {
        match self {
            IndexMemory::Lost(loss) => Some(*loss),
            IndexMemory::Absent | IndexMemory::Known(_) => None,
        }
    }

    /// The index meta; `None` when there is none, or it is lost.
    pub(crate) fn known(self) -> Option<LoadedMeta> {
        match self {
            IndexMemory::Known(known) => Some(*known),
            IndexMemory::Absent | IndexMemory::Lost(_) => None,
        }
    }
}

/// Reads the index meta, the snapshot log and the first-seen times of rows of a directory.
///
/// # Errors
/// [`IndexError::ReadIndex`] when a file is there and cannot be read, which is no reason to forget what it holds.
pub(crate) fn load(dir: &IndexDir) -> Result<IndexMemory, IndexError> {
    load_by(dir, true)
}

/// As [`load`], without the snapshot log: what a writer changes that publishes it under the same number again.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_published(dir: &IndexDir) -> Result<IndexMemory, IndexError> {
    load_by(dir, false)
}

/// As [`load`], with the snapshot log or without.
fn load_by(dir: &IndexDir, with_log: bool) -> Result<IndexMemory, IndexError> {
    for _ in 0..ATTEMPTS {
        let memory = load_once(dir, with_log)?;
        match &memory {
            // A writer may have replaced both files between the two readings.
            IndexMemory::Known(known) if known.times_absent => {}
            _ => return Ok(memory),
        }
    }
    load_once(dir, with_log)
}

/// The head of the index meta of a directory, with the last T of its snapshot log; `None` unless both copies begin alike, as
/// those of this format do that are intact. It is read in the time of a few bytes, however many files the store has: no damage
/// makes both copies begin with the same wrong bytes, and what a stranger writes he can write with its checksum.
///
/// # Errors
/// As [`load`], of the snapshot log.
pub(crate) fn load_head(dir: &IndexDir) -> Result<Option<MetaHead>, IndexError> {
    let Some(bytes) = dir.common_front(meta::FILE, HEAD_BYTES) else { return Ok(None) };
    let Some(head) = MetaHead::of_front(&bytes) else { return Ok(None) };
    let log = read_slots(dir).map_err(failed(meta::NOTE))?.newest().filter(|log| log.sequence == head.sequence);
    Ok(Some(MetaHead { latest: head.latest.max(log.and_then(|log| log.latest)), ..head }))
}

/// As [`load`]; the files may be of two generations.
fn load_once(dir: &IndexDir, with_log: bool) -> Result<IndexMemory, IndexError> {
    // A copy of a version that is not known may be a damaged one: the other copy is looked at first.
    let of_known_version =
        |bytes: &[u8]| ParsedMeta::from_bytes(bytes).filter(|parsed| !matches!(parsed, ParsedMeta::OtherVersion));
    let (parsed, copy_lost) = match dir.read_either(meta::FILE, of_known_version).map_err(failed(meta::FILE))? {
        // Its other files show that there was one.
        TwinFile::Absent if dir.has_segments() => return Ok(IndexMemory::Lost(MemoryLoss::Damaged)),
        TwinFile::Absent => return Ok(IndexMemory::Absent),
        TwinFile::Damaged => {
            let any = dir.read_either(meta::FILE, ParsedMeta::from_bytes).map_err(failed(meta::FILE))?;
            let is_of_other_version = matches!(any, TwinFile::Intact { .. });
            let loss = if is_of_other_version { MemoryLoss::OtherVersion } else { MemoryLoss::Damaged };
            return Ok(IndexMemory::Lost(loss));
        }
        TwinFile::Intact { contents, copy_lost } => (contents, copy_lost),
    };
    let log = match dir.read(meta::NOTE) {
        Ok(bytes) => Some(bytes),
        // A lost log costs no row.
        Err(error) if is_absence(&error) || is_no_file_of_ours(&error) => None,
        Err(error) => return Err(failed(meta::NOTE)(error)),
    };
    let (mut current, is_legacy) = match parsed {
        ParsedMeta::OtherVersion => return Ok(IndexMemory::Lost(MemoryLoss::OtherVersion)),
        ParsedMeta::Current(published) => (*published, false),
        ParsedMeta::Legacy(mut legacy) => {
            log.iter().filter(|_| with_log).for_each(|bytes| legacy.apply_log(bytes));
            (carried_over(legacy), true)
        }
    };
    let published_first = current.first;
    if let Some(log) =
        log.filter(|_| with_log && !is_legacy).and_then(|bytes| SnapshotSlots::from_bytes(&bytes).newest())
    {
        current.apply(&log);
    }
    let (times, times_absent) = read_times(dir, &current)?;
    Ok(IndexMemory::Known(Box::new(LoadedMeta { current, published_first, times, times_absent, is_legacy, copy_lost })))
}

/// The last T that refreshes recorded in the index on disk, in ticks; `None` without an index or a snapshot, and while it
/// cannot be read: a snapshot then fails and says why. Makes no directory.
pub(crate) fn latest_snapshot_ticks(store: &Store) -> Option<i64> {
    let dir = IndexDir::Directory(store.index_dir());
    match load_head(&dir).ok()? {
        Some(head) => head.latest,
        // None, damaged, of an earlier format, or replaced meanwhile.
        None => load(&dir).ok()?.known()?.current.latest,
    }
}

/// What a walk does with links by the index on disk, or a new one.
///
/// # Errors
/// [`IndexError::ReadIndex`] when there may be one that cannot be read.
pub(crate) fn links_of_published(store: &Store) -> Result<Links, IndexError> {
    let new = store.options().choices.links_of_new_index();
    match load(&IndexDir::Directory(store.index_dir())) {
        Ok(memory) => Ok(memory.known().map_or(new, |known| known.current.links())),
        // There the index is in memory, and always new.
        Err(IndexError::ReadIndex { source, .. }) if is_unwritable_place(&source) => Ok(new),
        Err(error) => Err(error),
    }
}

/// What the snapshot log of a directory holds; nothing if there is none.
///
/// # Errors
/// When it is there and cannot be read: written over then, it could lose the newest log.
pub(crate) fn read_slots(dir: &IndexDir) -> io::Result<SnapshotSlots> {
    match dir.read(meta::NOTE) {
        Ok(bytes) => Ok(SnapshotSlots::from_bytes(&bytes)),
        // What is written replaces it.
        Err(error) if is_absence(&error) || is_no_file_of_ours(&error) => Ok(SnapshotSlots::from_bytes(&[])),
        Err(error) => Err(error),
    }
}

/// The error of an index file that cannot be read.
fn failed(name: &str) -> impl FnOnce(io::Error) -> IndexError {
    let name = name.to_string();
    move |source| IndexError::ReadIndex { name, source }
}

/// The first-seen times of rows of an index meta, and whether their file is not there. Where they are lost, rows have the
/// later times of their segments, and are exported twice rather than lost.
fn read_times(dir: &IndexDir, meta: &IndexMeta) -> Result<(RowTimes, bool), IndexError> {
    if meta.times.is_empty() {
        return Ok((RowTimes::default(), false));
    }
    match dir.read_either(&meta.times, RowTimes::from_bytes).map_err(failed(&meta.times))? {
        TwinFile::Intact { contents, .. } => Ok((contents, false)),
        TwinFile::Absent => Ok((RowTimes::default(), true)),
        TwinFile::Damaged => Ok((RowTimes::default(), false)),
    }
}

/// The index meta that carries over what format 3 remembered. Its segments are scanned again, because they lack columns;
/// one of a range that still hashes the same inherits its first-seen time. The bytes on disk of compressed files had no
/// hash of their own; `legacy_files` finds it.
fn carried_over(legacy: LegacyMeta) -> IndexMeta {
    let file = |file: LegacyFile| FileEntry {
        compression: Compression::of_file_name(&file.name).unwrap_or_default(),
        name: file.name,
        stamp: FileStamp { len: file.len, ..FileStamp::default() },
        settled: false,
        raw: 0,
        appendable: file.appendable,
    };
    let segment = |segment: LegacySegment| SegmentMeta {
        file: segment.file,
        container: 0,
        at: SCAN_AGAIN,
        start: segment.start,
        end: segment.end,
        content: segment.content,
        tail: segment.tail,
        first_seen: segment.first_seen,
    };
    IndexMeta {
        sequence: legacy.sequence,
        chosen: false,
        birth: legacy.birth,
        latest: legacy.latest,
        first: legacy.latest,
        files: legacy.files.into_iter().map(file).collect(),
        segments: legacy.segments.into_iter().map(segment).collect(),
        ..IndexMeta::empty(LineRules::without_choices(legacy.validate))
    }
}

/// Whether the second copy of the index meta is not as the first one is.
///
/// # Errors
/// As [`load`].
pub(crate) fn lacks_copy(dir: &IndexDir) -> Result<bool, IndexError> {
    let read = |name: &str| match dir.read(name) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_absence(&error) || is_no_file_of_ours(&error) => Ok(None),
        Err(source) => Err(IndexError::ReadIndex { name: name.to_string(), source }),
    };
    Ok(read(meta::FILE)? != read(meta::TWIN)?)
}

/// Whether an index directory that cannot be made or written is the user's choice, so that the index goes to memory: no
/// permission, a file system that is only read, no room, something else in its place. Anything else may pass: then
/// what the directory holds must not be left out of account.
pub(crate) fn is_unwritable_place(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | StorageFull | QuotaExceeded | AlreadyExists)
        || is_absence(error)
        || is_no_file_of_ours(error)
}
