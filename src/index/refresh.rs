//! Brings an index up to date: keeps what still stands, scans what is new or was damaged, merges, publishes.
//!
//! Readers take no lock. A writer holds the lock from the moment it has seen that there is work until the generation
//! file is replaced; then it looks again, because another may have done the work meanwhile. When neither the store nor
//! the index has been touched, nothing is opened but the generation and the headers of the index files.

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

/// Times that a reader looks again when files vanish under it because a writer published a newer generation.
const ATTEMPTS: usize = 8;

/// Time in which a file can be written again without its times telling, in nanoseconds: the ticks of the file system's
/// clock, and some more.
const RACY_NS: i64 = 30_000_000;

/// A generation as it was published, and with what was noted since.
struct LoadedMeta {
    published: IndexMeta,
    noted: IndexMeta,
}

fn load(home: &IndexDir) -> Option<LoadedMeta> {
    let published = IndexMeta::from_bytes(&home.read(meta::FILE).ok()?)?;
    let mut noted = published.clone();
    if let Some(note) = home.read(meta::NOTE).ok().and_then(|bytes| SnapshotLog::from_bytes(&bytes)) {
        noted.apply(&note);
    }
    Some(LoadedMeta { published, noted })
}

/// The index of the store as it is now; with `as_of`, also noted as a snapshot's.
pub(crate) fn refresh(
    store: &Store,
    as_of: Option<&Instant>,
    view: Option<&StoreListing>,
    progress: &Progress,
    mut trust: Verification,
) -> Result<(Index, RefreshStats), IndexError> {
    let (home, in_memory) = match store.options().index_access {
        IndexAccess::ReadOnly => (IndexDir::read_only(&store.index_dir()), None),
        IndexAccess::ReadWrite => match IndexDir::directory(&store.index_dir()) {
            Ok(home) => (home, None),
            Err(error) => (IndexDir::memory(), Some(format!("{}: {error}", store.index_dir().display()))),
        },
    };
    let mut work = RefreshStats { in_memory, ..RefreshStats::default() };
    let mut last_reason = "it changed under every attempt to read it";
    for _ in 0..ATTEMPTS {
        let known = load(&home);
        let files = match view {
            Some(view) => StoreFiles::find_within(store, view, known.as_ref().map(|known| &known.noted))?,
            None => StoreFiles::find(store)?,
        };
        if let Some(known) = known
            && is_unchanged(&files, &known.noted, store.options().validate)
            && let Ok((segments, global)) = open_index(&home, &known.noted, trust).into_whole()
        {
            let Some(generation) = log_snapshot(&home, store, known, as_of, progress)? else { continue };
            work.kept_segments = segments.len();
            match Index::new(generation, segments, global, files, home.is_durable()) {
                Ok(index) => return Ok((index, work)),
                Err(damaged) => last_reason = damaged.0,
            }
            trust = Verification::Nothing;
            continue;
        }
        let lock = take_lock(&home, progress)?;
        // Another writer may have been here while this one waited.
        let known = load(&home).map(|known| known.noted);
        let before_sequence = known.as_ref().map_or(0, |known| known.sequence);
        let standing = known.as_ref().map(|known| open_index(&home, known, trust));
        let survey = diff(&files, known.as_ref(), standing.as_ref(), store.options().validate)?;
        let before = standing.and_then(|standing| standing.global.ok());
        let (mut generation, segments) = match build(&home, survey, before, &files, progress, store, &mut work) {
            Err(IndexError::Damaged(CorruptIndex(reason))) if trust == Verification::Stamps => {
                (trust, last_reason) = (Verification::Nothing, reason);
                continue;
            }
            built => built?,
        };
        if generation.sequence != before_sequence && store.options().index_access == IndexAccess::ReadOnly {
            work.in_memory = Some(format!("{} is only read here", store.index_dir().display()));
        }
        if let Some(as_of) = as_of {
            generation.note_snapshot(as_of);
        }
        publish(&home, &mut generation)?;
        home.keep_only(&index_file_names(&generation));
        let global = match home.open(&generation.global.name) {
            Ok(bytes) => GlobalIndex::open(bytes, &generation.segments),
            Err(_) => Err("it cannot be opened"),
        };
        drop(lock);
        let index = global.and_then(|global| {
            Index::new(generation, segments, global, files, home.is_durable()).map_err(|damaged| damaged.0)
        });
        match index {
            Ok(index) => return Ok((index, work)),
            Err(reason) => (trust, last_reason) = (Verification::Nothing, reason),
        }
    }
    Err(IndexError::ReadBack { name: store.index_dir().display().to_string(), reason: last_reason })
}

fn take_lock(home: &IndexDir, progress: &Progress) -> Result<IndexLock, IndexError> {
    let lock = home
        .lock(&mut || progress.waiting.store(true, Relaxed))
        .map_err(|source| IndexError::Write { name: "lock".into(), source })?;
    progress.waiting.store(false, Relaxed);
    Ok(lock)
}

/// Files of the index that a generation needs.
fn index_file_names(generation: &IndexMeta) -> Vec<&str> {
    let mut names: Vec<&str> = generation.containers.iter().map(|file| file.name.as_str()).collect();
    names.extend([generation.global.name.as_str(), meta::FILE, meta::NOTE]);
    names
}

/// Notes a snapshot, and stamps of index files that can be trusted by now; the generation with both. `None` when
/// another writer has published meanwhile.
fn log_snapshot(
    home: &IndexDir,
    store: &Store,
    known: LoadedMeta,
    as_of: Option<&Instant>,
    progress: &Progress,
) -> Result<Option<IndexMeta>, IndexError> {
    let LoadedMeta { mut published, mut noted } = known;
    let unseen = as_of.is_some_and(|as_of| noted.clone().note_snapshot(as_of));
    let stampless =
        home.is_durable() && noted.containers.iter().chain([&noted.global]).any(|file| file.stamp.is_none());
    if !unseen && !stampless {
        return Ok(Some(noted));
    }
    let _lock = take_lock(home, progress)?;
    let Some(now) = load(home) else { return Ok(None) };
    if now.published.sequence != published.sequence {
        return Ok(None);
    }
    (published, noted) = (now.published, now.noted);
    let first_of_all = noted.birth.is_none() && as_of.is_some();
    if let Some(as_of) = as_of {
        noted.note_snapshot(as_of);
    }
    if first_of_all || stampless {
        publish(home, &mut noted)?;
    } else if unseen {
        let note = SnapshotLog::of(&noted, &published).to_bytes();
        home.overwrite(meta::NOTE, &note, store.options().sync)
            .map_err(|source| IndexError::Write { name: meta::NOTE.into(), source })?;
    }
    Ok(Some(noted))
}

/// The greatest T, in ticks, of the snapshots that the index on disk remembers; nothing is made for it.
pub(crate) fn latest_snapshot_ticks(store: &Store) -> Option<i64> {
    load(&IndexDir::Directory(store.index_dir()))?.noted.latest
}

/// The index as it was last published, without a look at the store; none when there is none that stands.
pub(crate) fn latest_published(store: &Store) -> Option<Index> {
    // A writer may take the files away that a generation just read names.
    for _ in 0..ATTEMPTS {
        let home = match store.options().index_access {
            IndexAccess::ReadOnly => IndexDir::read_only(&store.index_dir()),
            IndexAccess::ReadWrite => IndexDir::directory(&store.index_dir()).ok()?,
        };
        let known = load(&home)?.noted;
        let Ok((segments, global)) = open_index(&home, &known, Verification::Stamps).into_whole() else { continue };
        let files = StoreFiles::known_to(store, &known);
        if let Ok(index) = Index::new(known, segments, global, files, home.is_durable()) {
            return Some(index);
        }
    }
    None
}

/// The snapshot of a record: from the index if it still has the segments, else from the store's bytes.
pub(crate) fn rebuild_from_record(
    store: &Store,
    record: &SnapshotRecord,
    progress: &Progress,
) -> Result<(Snapshot, RefreshStats), IndexError> {
    let Some(as_of) = Instant::parse(&record.as_of) else {
        return Err(lost_error(store, "", "is to be seen as of what is no instant", false));
    };
    let (index, mut work) = refresh(store, None, None, progress, Verification::Stamps)?;
    let index = match Snapshot::of_segments(index, record, as_of.clone()) {
        Ok(snapshot) => return Ok((snapshot, work)),
        Err((index, _)) => index,
    };
    // Some of the index was lost or cut anew. What stands is kept, the other recorded spans are scanned, in memory.
    let files = StoreFiles::find(store)?;
    let home = IndexDir::memory();
    let known = index.find_segments(record);
    let same = index.generation().validate == record.validate;
    // A compressed file is decoded from its start, and cut as it is then.
    let is_coded =
        |name: &str| Compression::of_file_name(name).is_some_and(|compression| compression != Compression::None);
    let lost = record.segments.iter().zip(&known).filter(|(segment, known)| known.is_none() && is_coded(&segment.file));
    let lost: HashSet<&str> = lost.map(|(segment, _)| segment.file.as_str()).collect();
    let stays = |segment: &SegmentRef| same && !lost.contains(segment.file.as_str());
    let kept: Vec<Option<usize>> =
        record.segments.iter().zip(known).map(|(segment, known)| known.filter(|_| stays(segment))).collect();
    let mut generation = IndexMeta { files: file_entries(&files)?, ..IndexMeta::empty(record.validate) };
    generation.containers = index.generation().containers.clone();
    let (mut segments, mut spans) = (Vec::new(), Vec::new());
    for (segment, kept) in record.segments.iter().zip(&kept) {
        let Some(file) = files.position(&segment.file) else {
            return Err(lost_error(store, &segment.file, "is no longer there", true));
        };
        if let Some(kept) = *kept {
            generation.segments.push(SegmentMeta { file, ..index.entry(kept).clone() });
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
    let survey = StoreDiff {
        generation,
        // Nothing was merged before that the numbers would be of.
        origins: (0..segments.len()).collect(),
        segments,
        spans,
        inherited: Vec::new(),
        changed: true,
        repaired: Vec::new(),
    };
    let (generation, segments) = build(&home, survey, None, &files, progress, store, &mut work)?;
    let global = home.open(&generation.global.name).map_err(|_| "it cannot be opened");
    let index = global
        .and_then(|bytes| GlobalIndex::open(bytes, &generation.segments))
        .and_then(|global| Index::new(generation, segments, global, files, false).map_err(|damaged| damaged.0))
        .map_err(|reason| IndexError::ReadBack { name: "in memory".into(), reason })?;
    match Snapshot::of_segments(index, record, as_of) {
        Ok(snapshot) => Ok((snapshot, work)),
        Err((_, missing)) => {
            let reason = "no longer holds the bytes that the interrupted export began with";
            Err(lost_error(store, &record.segments[missing].file, reason, false))
        }
    }
}

fn lost_error(store: &Store, name: &str, reason: &'static str, restorable: bool) -> IndexError {
    IndexError::SnapshotLost { path: store.root().join(name), reason, restorable }
}

/// Publishes a generation. Index files get the stamps by which later readers trust them, but for those so young that
/// a later write could leave them as they are: those are checked once more, and stamped then.
fn publish(home: &IndexDir, generation: &mut IndexMeta) -> Result<(), IndexError> {
    let opened = |file: &IndexFile| home.open(&file.name).ok().map(|bytes| bytes.stamp());
    let containers: Vec<_> = generation.containers.iter().map(opened).collect();
    let global = opened(&generation.global);
    let mut bytes = |now: i64| {
        // In memory there is no such clock: `now` lies before every time, and nothing settles.
        let age = |stamp: &FileStamp| now.saturating_sub(stamp.mtime_ns.max(stamp.ctime_ns));
        let settled = |stamp: &Option<FileStamp>| stamp.filter(|stamp| age(stamp) >= RACY_NS);
        for (file, stamp) in generation.containers.iter_mut().zip(&containers) {
            file.stamp = settled(stamp);
        }
        generation.global.stamp = settled(&global);
        generation.to_bytes()
    };
    home.replace(meta::FILE, &mut bytes).map_err(|source| IndexError::Write { name: meta::FILE.into(), source })
}

/// Scans, assembles and merges what a survey asks for; `before` is what was merged over the generation before.
fn build(
    home: &IndexDir,
    survey: StoreDiff,
    before: Option<GlobalIndex>,
    files: &StoreFiles,
    progress: &Progress,
    store: &Store,
    work: &mut RefreshStats,
) -> Result<(IndexMeta, Vec<Segment>), IndexError> {
    let StoreDiff { mut generation, mut segments, origins, spans, inherited, changed, repaired } = survey;
    work.repaired.extend(repaired);
    work.kept_segments = segments.len();
    if !changed {
        return Ok((generation, segments));
    }
    let mut origins: Vec<Option<usize>> = origins.into_iter().map(Some).collect();
    generation.sequence += 1;
    if !spans.is_empty() {
        let mut total = 0;
        for span in &spans {
            total += span.part.file_bytes(files.source(span.file)?);
        }
        progress.scan_total.fetch_add(total, Relaxed);
        let options = ScanOptions {
            kernel: store.options().kernel,
            validate: generation.validate,
            progress: &progress.scan_done,
            cancel: &progress.cancel,
        };
        let name = format!("extents-{:012}", generation.sequence);
        let scanned = scan(files, &spans, home, &name, &options)?;
        work.scanned_bytes += progress.scan_done.load(Relaxed);
        work.scanned_segments += scanned.segments.len();
        for file in scanned.open_ended {
            generation.files[file].appendable = false;
        }
        let remembered = FirstSeen::of(&spans, &generation);
        remembered.note_table(&mut generation);
        let container = generation.containers.len();
        generation.containers.push(IndexFile::new(name.clone()));
        let bytes = Arc::new(home.open(&name).map_err(|source| IndexError::Write { name: name.clone(), source })?);
        let old = generation.segments.drain(..).zip(segments.drain(..)).zip(origins.drain(..));
        let mut all: Vec<_> = old.map(|((entry, segment), origin)| (entry, segment, origin)).collect();
        for new in scanned.segments {
            let read_back = |reason| IndexError::ReadBack { name: name.clone(), reason };
            let segment = Segment::written(bytes.clone(), new.at).map_err(read_back)?;
            debug_assert_eq!(Segment::open(bytes.clone(), new.at).err(), None, "what is written holds");
            // What was scanned again was seen when the latest of the segments in its place was.
            let first_seen = inherited
                .iter()
                .filter(|(file, start, end, _)| *file == new.file && *start < new.end && new.start < *end)
                .map(|(.., first_seen)| *first_seen)
                .reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))
                .flatten()
                .or_else(|| remembered.first_seen(new.file));
            let (file, offset, start, end, content, tail) =
                (new.file, new.at, new.start, new.end, new.content, new.tail);
            let entry = SegmentMeta { file, container, at: offset, start, end, content, tail, first_seen };
            all.push((entry, segment, None));
        }
        all.sort_by_key(|(entry, ..)| (entry.file, entry.start));
        for (entry, segment, origin) in all {
            generation.segments.push(entry);
            segments.push(segment);
            origins.push(origin);
        }
    }
    compact_segment_files(home, &mut generation, &mut segments)?;
    let rows: u64 = segments.iter().map(|segment| (segment.rows() + segment.tombstones()) as u64).sum();
    if rows > STORE_ROWS_MAX {
        return Err(IndexError::TooManyRows { max: STORE_ROWS_MAX });
    }
    progress.merging.store(true, Relaxed);
    generation.global = IndexFile::new(format!("merged-{:012}", generation.sequence));
    let global = match before {
        Some(before) if append::is_worth_appending(&before, &segments, &origins) => {
            append::extend(&before, &segments, &origins, home, &generation.global.name)
        }
        _ => build::build(&segments, home, &generation.global.name),
    };
    progress.merging.store(false, Relaxed);
    match global {
        Ok(()) => Ok((generation, segments)),
        Err(BuildError::Damaged(damaged)) => Err(damaged.into()),
        Err(BuildError::Write(source)) => Err(IndexError::Write { name: generation.global.name, source }),
    }
}
