//! Brings an index up to date: keeps intact segments, scans new and damaged ranges, builds the global index, publishes
//! the index meta.
//!
//! Readers take no lock. A writer takes the lock once it has found work, compares the store with the index again,
//! because another writer may have done the work meanwhile, and holds the lock until the index meta is replaced. When
//! neither the store nor the index was touched, only the index meta and the headers of the index files are read.

use crate::codec::compression::Compression;
use crate::error::{CorruptIndex, IndexError};
use crate::fhir::instant::Instant;
use crate::index::diff::{StoreDiff, diff, file_entries, is_unchanged};
use crate::index::dir::{IndexDir, IndexLock};
use crate::index::first_seen::FirstSeen;
use crate::index::global::build::{self, BuildError};
use crate::index::global::{GlobalIndex, append};
use crate::index::meta::{self, IndexFile, IndexMeta, SegmentMeta, SnapshotLog};
use crate::index::open::{Verification, open_index};
use crate::index::report::RefreshStats;
use crate::index::segment::reader::Segment;
use crate::index::segment::scan::{ScanOptions, scan};
use crate::index::segment::span::{RangeKind, ScanRange, compressed_spans};
use crate::index::segment_files::compact_segment_files;
use crate::index::snapshot::{Index, SegmentRef, Snapshot, SnapshotRecord};
use crate::index::store_files::StoreFiles;
use crate::index::store_listing::StoreListing;
use crate::limits::STORE_ROWS_MAX;
use crate::progress::Progress;
use crate::store::{IndexAccess, Store};
use crate::sys::store_file::FileStamp;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Attempts to open an index whose files may be removed by a writer that publishes a newer index meta.
const ATTEMPTS: usize = 8;

/// Age in nanoseconds below which a file can be written again without a change of its times: a tick of the clock of the
/// file system, and a margin.
const RACY_NS: i64 = 30_000_000;

/// The index meta of a directory, without and with its snapshot log.
struct LoadedMeta {
    /// As the file has it.
    published: IndexMeta,
    /// With the snapshot log applied.
    current: IndexMeta,
}

/// Reads what the last refresh left in a directory, the index meta and the snapshot log; `None` when there is no index
/// meta that can be used.
fn load(dir: &IndexDir) -> Option<LoadedMeta> {
    let published = IndexMeta::from_bytes(&dir.read(meta::FILE).ok()?)?;
    let mut current = published.clone();
    if let Some(log) = dir.read(meta::NOTE).ok().and_then(|bytes| SnapshotLog::from_bytes(&bytes)) {
        current.apply(&log);
    }
    Some(LoadedMeta { published, current })
}

/// The index of the store as it is now, or of the bytes of `listing`; with `as_of`, a snapshot at that T is recorded.
///
/// # Errors
/// When the store cannot be read, the index cannot be written or read back, the store has too many rows, or `progress`
/// is cancelled.
pub(crate) fn refresh(
    store: &Store,
    as_of: Option<&Instant>,
    listing: Option<&StoreListing>,
    progress: &Progress,
    mut verification: Verification,
) -> Result<(Index, RefreshStats), IndexError> {
    let (dir, in_memory) = match store.options().index_access {
        IndexAccess::ReadOnly => (IndexDir::read_only(&store.index_dir()), None),
        IndexAccess::ReadWrite => match IndexDir::directory(&store.index_dir()) {
            Ok(dir) => (dir, None),
            Err(error) => (IndexDir::memory(), Some(format!("{}: {error}", store.index_dir().display()))),
        },
    };
    let mut stats = RefreshStats { in_memory, ..RefreshStats::default() };
    let mut last_reason = "it changed under every attempt to read it";
    for _ in 0..ATTEMPTS {
        // 1. An unchanged store with an intact index needs no lock, unless a snapshot is to be recorded.
        let known = load(&dir);
        let files = match listing {
            Some(listing) => StoreFiles::find_within(store, listing, known.as_ref().map(|known| &known.current))?,
            None => StoreFiles::find(store)?,
        };
        if let Some(known) = known
            && is_unchanged(&files, &known.current, store.options().validate, store.options().unproven)
            && let Ok((segments, global)) = open_index(&dir, &known.current, verification).into_whole()
        {
            let Some(meta) = log_snapshot(&dir, store, known, as_of, progress)? else { continue };
            stats.kept_segments = segments.len();
            match Index::new(meta, segments, global, files, dir.is_durable()) {
                Ok(index) => return Ok((index, stats)),
                Err(damaged) => last_reason = damaged.0,
            }
            verification = Verification::Nothing;
            continue;
        }
        // 2. Under the lock: compare again, because another writer may have published meanwhile, then scan and build.
        let lock = take_lock(&dir, progress)?;
        let known = load(&dir).map(|known| known.current);
        let before_sequence = known.as_ref().map_or(0, |known| known.sequence);
        let opened = known.as_ref().map(|known| open_index(&dir, known, verification));
        let (validate, unproven) = (store.options().validate, store.options().unproven);
        let changes = diff(&files, known.as_ref(), opened.as_ref(), validate, unproven)?;
        let previous_global = opened.and_then(|opened| opened.global.ok());
        let (mut meta, segments) = match build(&dir, changes, previous_global, &files, progress, store, &mut stats) {
            Err(IndexError::Damaged(CorruptIndex(reason))) if verification == Verification::Stamps => {
                (verification, last_reason) = (Verification::Nothing, reason);
                continue;
            }
            built => built?,
        };
        if meta.sequence != before_sequence && store.options().index_access == IndexAccess::ReadOnly {
            stats.in_memory = Some(format!("{} is only read here", store.index_dir().display()));
        }
        // 3. Publish, then open the new global index.
        if let Some(as_of) = as_of {
            meta.note_snapshot(as_of);
        }
        publish(&dir, &mut meta)?;
        dir.remove_all_but(&index_file_names(&meta));
        let global = match dir.open(&meta.global.name) {
            Ok(bytes) => GlobalIndex::open(bytes, &meta.segments),
            Err(_) => Err("it cannot be opened"),
        };
        drop(lock);
        let index = global.and_then(|global| {
            Index::new(meta, segments, global, files, dir.is_durable()).map_err(|damaged| damaged.0)
        });
        match index {
            Ok(index) => return Ok((index, stats)),
            Err(reason) => (verification, last_reason) = (Verification::Nothing, reason),
        }
    }
    Err(IndexError::ReadBack { name: store.index_dir().display().to_string(), reason: last_reason })
}

/// Takes the lock of the index directory; `progress.waiting` is set while another process holds it.
fn take_lock(dir: &IndexDir, progress: &Progress) -> Result<IndexLock, IndexError> {
    let lock = dir
        .lock(&mut || progress.waiting.store(true, Relaxed))
        .map_err(|source| IndexError::Write { name: "lock".into(), source })?;
    progress.waiting.store(false, Relaxed);
    Ok(lock)
}

/// Names of the index files that the published index meta needs; a refresh removes all others.
fn index_file_names(meta: &IndexMeta) -> Vec<&str> {
    let mut names: Vec<&str> = meta.containers.iter().map(|file| file.name.as_str()).collect();
    names.extend([meta.global.name.as_str(), meta::FILE, meta::NOTE]);
    names
}

/// Records a snapshot at `as_of` in the snapshot log, or in the index meta if it is the first or index files lack
/// stamps; the index meta with it. `None` when another writer has published meanwhile.
fn log_snapshot(
    dir: &IndexDir,
    store: &Store,
    known: LoadedMeta,
    as_of: Option<&Instant>,
    progress: &Progress,
) -> Result<Option<IndexMeta>, IndexError> {
    let LoadedMeta { mut published, mut current } = known;
    let is_new_snapshot = as_of.is_some_and(|as_of| current.clone().note_snapshot(as_of));
    let lacks_stamps =
        dir.is_durable() && current.containers.iter().chain([&current.global]).any(|file| file.stamp.is_none());
    if !is_new_snapshot && !lacks_stamps {
        return Ok(Some(current));
    }
    let _lock = take_lock(dir, progress)?;
    let Some(reloaded) = load(dir) else { return Ok(None) };
    if reloaded.published.sequence != published.sequence {
        return Ok(None);
    }
    (published, current) = (reloaded.published, reloaded.current);
    let is_first_snapshot = current.birth.is_none() && as_of.is_some();
    if let Some(as_of) = as_of {
        current.note_snapshot(as_of);
    }
    if is_first_snapshot || lacks_stamps {
        publish(dir, &mut current)?;
    } else if is_new_snapshot {
        let log = SnapshotLog::of(&current, &published).to_bytes();
        dir.overwrite(meta::NOTE, &log, store.options().sync)
            .map_err(|source| IndexError::Write { name: meta::NOTE.into(), source })?;
    }
    Ok(Some(current))
}

/// The greatest T, in ticks, of the snapshots that refreshes recorded in the index on disk; `None` without an index or
/// a snapshot. Makes no directory.
pub(crate) fn latest_snapshot_ticks(store: &Store) -> Option<i64> {
    load(&IndexDir::Directory(store.index_dir()))?.current.latest
}

/// The index as the last refresh published it, without a new refresh or a walk over the store; `None` when no intact
/// one exists.
pub(crate) fn latest_published(store: &Store) -> Option<Index> {
    // A writer may remove the files that the index meta just read names.
    for _ in 0..ATTEMPTS {
        let dir = match store.options().index_access {
            IndexAccess::ReadOnly => IndexDir::read_only(&store.index_dir()),
            IndexAccess::ReadWrite => IndexDir::directory(&store.index_dir()).ok()?,
        };
        let known = load(&dir)?.current;
        let Ok((segments, global)) = open_index(&dir, &known, Verification::Stamps).into_whole() else { continue };
        let files = StoreFiles::known_to(store, &known);
        if let Ok(index) = Index::new(known, segments, global, files, dir.is_durable()) {
            return Some(index);
        }
    }
    None
}

/// The snapshot of a record: from the index if it has all segments of the record, else by a refresh in memory, which
/// scans the recorded bytes that the index lacks.
///
/// # Errors
/// [`IndexError::Changed`] when the store lacks bytes of the record; else as [`refresh`].
pub(crate) fn rebuild_from_record(
    store: &Store,
    record: &SnapshotRecord,
    progress: &Progress,
) -> Result<(Snapshot, RefreshStats), IndexError> {
    let Some(as_of) = Instant::parse(&record.as_of) else {
        return Err(lost_error(store, "", "is to be seen as of what is no instant", false));
    };
    let (index, mut stats) = refresh(store, None, None, progress, Verification::Stamps)?;
    let index = match Snapshot::of_segments(index, record, as_of.clone()) {
        Ok(snapshot) => return Ok((snapshot, stats)),
        Err((index, _)) => index,
    };
    // 1. The index lacks segments of the record. Those that it has are kept, the other recorded ranges are scanned.
    let files = StoreFiles::find(store)?;
    let dir = IndexDir::memory();
    let known = index.find_segments(record);
    let same = index.generation().validate == record.validate;
    // A compressed file is decoded from its start, so all of its segments are scanned again.
    let is_coded =
        |name: &str| Compression::of_file_name(name).is_some_and(|compression| compression != Compression::None);
    let lost = record.segments.iter().zip(&known).filter(|(segment, known)| known.is_none() && is_coded(&segment.file));
    let lost: HashSet<&str> = lost.map(|(segment, _)| segment.file.as_str()).collect();
    let stays = |segment: &SegmentRef| same && !lost.contains(segment.file.as_str());
    let kept: Vec<Option<usize>> =
        record.segments.iter().zip(known).map(|(segment, known)| known.filter(|_| stays(segment))).collect();
    // 2. Collect the kept segments and the ranges to scan.
    let (entries, unproven) = (file_entries(&files)?, record.unproven);
    let mut meta = IndexMeta { files: entries, unproven, ..IndexMeta::empty(record.validate) };
    meta.containers = index.generation().containers.clone();
    let (mut segments, mut spans) = (Vec::new(), Vec::new());
    for (segment, kept) in record.segments.iter().zip(&kept) {
        let Some(file) = files.position(&segment.file) else {
            return Err(lost_error(store, &segment.file, "is no longer there", true));
        };
        if let Some(kept) = *kept {
            meta.segments.push(SegmentMeta { file, ..index.entry(kept).clone() });
            segments.push(index.segments()[kept].clone());
            continue;
        }
        match files.compression(file) {
            Compression::None if segment.end > files.source(file)?.len() => {
                let reason = "is shorter than it was when the export began";
                return Err(lost_error(store, &segment.file, reason, true));
            }
            Compression::None => spans.push(ScanRange {
                file,
                part: RangeKind::Plain { range: segment.start..segment.end, tail: segment.tail },
            }),
            compression => {
                if !spans.iter().any(|span: &ScanRange| span.file == file) {
                    spans.extend(compressed_spans(file, compression, files.source(file)?)?);
                }
            }
        }
    }
    let changes = StoreDiff {
        meta,
        // No previous global index is used, so these numbers are not read.
        origins: (0..segments.len()).collect(),
        segments,
        spans,
        inherited: Vec::new(),
        changed: true,
        repaired: Vec::new(),
    };
    // 3. Build that index in memory and take the snapshot of it.
    let (meta, segments) = build(&dir, changes, None, &files, progress, store, &mut stats)?;
    let global = dir.open(&meta.global.name).map_err(|_| "it cannot be opened");
    let index = global
        .and_then(|bytes| GlobalIndex::open(bytes, &meta.segments))
        .and_then(|global| Index::new(meta, segments, global, files, false).map_err(|damaged| damaged.0))
        .map_err(|reason| IndexError::ReadBack { name: "in memory".into(), reason })?;
    match Snapshot::of_segments(index, record, as_of) {
        Ok(snapshot) => Ok((snapshot, stats)),
        Err((_, missing)) => {
            let reason = "no longer holds the bytes that the interrupted export began with";
            Err(lost_error(store, &record.segments[missing].file, reason, false))
        }
    }
}

/// The error of a refresh to the bytes of a record: a store file (relative to the store) no longer holds them.
fn lost_error(store: &Store, name: &str, reason: &'static str, restorable: bool) -> IndexError {
    IndexError::SnapshotLost { path: store.root().join(name), reason, restorable }
}

/// Publishes an index meta. Index files get the stamps by which later readers trust them; a file younger than
/// [`RACY_NS`] gets none, because a later write could leave its times unchanged: it is checked whole once more, and
/// stamped then.
fn publish(dir: &IndexDir, meta: &mut IndexMeta) -> Result<(), IndexError> {
    let opened = |file: &IndexFile| dir.open(&file.name).ok().map(|bytes| bytes.stamp());
    let containers: Vec<_> = meta.containers.iter().map(opened).collect();
    let global = opened(&meta.global);
    let mut bytes = |now: i64| {
        // In memory there is no clock of a file system: `now` lies before every time, and no file gets a stamp.
        let age = |stamp: &FileStamp| now.saturating_sub(stamp.mtime_ns.max(stamp.ctime_ns));
        let settled = |stamp: &Option<FileStamp>| stamp.filter(|stamp| age(stamp) >= RACY_NS);
        for (file, stamp) in meta.containers.iter_mut().zip(&containers) {
            file.stamp = settled(stamp);
        }
        meta.global.stamp = settled(&global);
        meta.to_bytes()
    };
    dir.replace(meta::FILE, &mut bytes).map_err(|source| IndexError::Write { name: meta::FILE.into(), source })
}

/// Scans the ranges of `changes`, joins new and kept segments, and builds the global index; `previous_global` is the
/// global index of the previous index meta. Returns index meta and segments, not yet published.
fn build(
    dir: &IndexDir,
    changes: StoreDiff,
    previous_global: Option<GlobalIndex>,
    files: &StoreFiles,
    progress: &Progress,
    store: &Store,
    stats: &mut RefreshStats,
) -> Result<(IndexMeta, Vec<Segment>), IndexError> {
    let StoreDiff { mut meta, mut segments, origins, spans, inherited, changed, repaired } = changes;
    stats.repaired.extend(repaired);
    stats.kept_segments = segments.len();
    if !changed {
        return Ok((meta, segments));
    }
    // `origins` has for each segment its number in the previous index meta, `None` for a new one.
    let mut origins: Vec<Option<usize>> = origins.into_iter().map(Some).collect();
    meta.sequence += 1;
    // 1. Scan into a new container.
    if !spans.is_empty() {
        let mut total = 0;
        for span in &spans {
            total += span.part.file_bytes(files.source(span.file)?);
        }
        progress.scan_total.fetch_add(total, Relaxed);
        let options = ScanOptions {
            kernel: store.options().kernel,
            validate: meta.validate,
            unproven: meta.unproven,
            progress: &progress.scan_done,
            cancel: &progress.cancel,
        };
        let name = format!("extents-{:012}", meta.sequence);
        let scanned = scan(files, &spans, dir, &name, &options)?;
        stats.scanned_bytes += progress.scan_done.load(Relaxed);
        stats.scanned_segments += scanned.segments.len();
        for file in scanned.open_ended {
            meta.files[file].appendable = false;
        }
        let packed_facts = FirstSeen::of(&spans, &meta);
        packed_facts.note_table(&mut meta);
        let container = meta.containers.len();
        meta.containers.push(IndexFile::new(name.clone()));
        let bytes = Arc::new(dir.open(&name).map_err(|source| IndexError::Write { name: name.clone(), source })?);
        // 2. Join new and kept segments, in store order.
        let old = meta.segments.drain(..).zip(segments.drain(..)).zip(origins.drain(..));
        let mut all: Vec<_> = old.map(|((entry, segment), origin)| (entry, segment, origin)).collect();
        for new in scanned.segments {
            let read_back = |reason| IndexError::ReadBack { name: name.clone(), reason };
            let segment = Segment::written(bytes.clone(), new.at).map_err(read_back)?;
            debug_assert_eq!(Segment::open(bytes.clone(), new.at).err(), None, "what is written holds");
            // A segment scanned again inherits the latest `first_seen` of the segments that it overlaps.
            let first_seen = inherited
                .iter()
                .filter(|(file, start, end, _)| *file == new.file && *start < new.end && new.start < *end)
                .map(|(.., first_seen)| *first_seen)
                .reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))
                .flatten()
                .or_else(|| packed_facts.first_seen(new.file));
            let (file, offset, start, end, content, tail) =
                (new.file, new.at, new.start, new.end, new.content, new.tail);
            let entry = SegmentMeta { file, container, at: offset, start, end, content, tail, first_seen };
            all.push((entry, segment, None));
        }
        all.sort_by_key(|(entry, ..)| (entry.file, entry.start));
        for (entry, segment, origin) in all {
            meta.segments.push(entry);
            segments.push(segment);
            origins.push(origin);
        }
    }
    // 3. Bound the number of containers and of rows.
    compact_segment_files(dir, &mut meta, &mut segments)?;
    let rows: u64 = segments.iter().map(|segment| (segment.rows() + segment.tombstones()) as u64).sum();
    if rows > STORE_ROWS_MAX {
        return Err(IndexError::TooManyRows { max: STORE_ROWS_MAX });
    }
    // 4. Build the global index, from the previous one if most of it is kept.
    progress.merging.store(true, Relaxed);
    meta.global = IndexFile::new(format!("merged-{:012}", meta.sequence));
    let global = match previous_global {
        Some(previous_global) if append::is_worth_appending(&previous_global, &segments, &origins) => {
            append::extend(&previous_global, &segments, &origins, dir, &meta.global.name)
        }
        _ => build::build(&segments, dir, &meta.global.name),
    };
    progress.merging.store(false, Relaxed);
    match global {
        Ok(()) => Ok((meta, segments)),
        Err(BuildError::Damaged(damaged)) => Err(damaged.into()),
        Err(BuildError::Write(source)) => Err(IndexError::Write { name: meta.global.name, source }),
    }
}
