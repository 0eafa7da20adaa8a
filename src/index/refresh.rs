//! Brings an index up to date: keeps intact segments, scans new and damaged ranges, builds the global index, publishes
//! the index meta.
//!
//! Readers take no lock. A writer takes the lock once it has found work, compares the store with the index again,
//! because another writer may have done the work meanwhile, and holds the lock until the index meta is replaced. When
//! neither the store nor the index was touched, only the index meta and the headers of the index files are read.

use crate::codec::compression::Compression;
use crate::count_text::{counted, word_form};
use crate::error::{CorruptIndex, IndexError};
use crate::fhir::instant::Instant;
use crate::ids::FileId;
use crate::index::compaction::{join_segments, joined_facts};
use crate::index::diff::{NewFileHashes, StoreDiff, diff, is_unchanged};
use crate::index::dir::{IndexDir, IndexLock};
use crate::index::first_seen::FirstSeen;
use crate::index::global::GlobalIndex;
use crate::index::global::append::{self, SegmentOrigin};
use crate::index::global::build::{self, BuildError};
use crate::index::inherited_times::inherited_times;
use crate::index::legacy_files::hash_compressed_files;
use crate::index::load::{LoadedMeta, is_unwritable_place, lacks_copy, load, load_head, read_slots};
use crate::index::load_ahead::{LoadedAhead, load_ahead};
use crate::index::meta::{self, IndexFile, IndexMeta, SCAN_AGAIN, VanishedGap};
use crate::index::open::{Verification, open_index};
use crate::index::presence::{StoreContents, check_current, check_presence, remember_vanished};
use crate::index::replaced_rows::{RowMatches, match_rows};
use crate::index::report::RefreshStats;
use crate::index::row_times::{RowTimes, TimeRun, write_times};
use crate::index::segment::reader::Segment;
use crate::index::segment::scan::{ScanOptions, SegmentSupply, scan};
use crate::index::segment::span::RangeKind;
use crate::index::segment_files::compact_segment_files;
use crate::index::snapshot::Index;
use crate::index::snapshot_time::SnapshotTime;
use crate::index::store_files::StoreFiles;
use crate::index::store_listing::StoreListing;
use crate::index::vanished::{VanishedFile, VanishedResource, read_vanished, write_vanished};
use crate::limits::STORE_ROWS_MAX;
use crate::progress::{Phase, Progress};
use crate::store::StoreOptions;
use crate::store::choices::RowRules;
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

/// What is said when the file of vanished resources cannot be used.
const VANISHED_LOST: &str = "the list of vanished resources was lost or damaged: what is gone from the store since \
                             earlier snapshots is not told";

/// What a refresh works on.
#[derive(Clone, Copy)]
pub(crate) struct RefreshRun<'a> {
    /// The store.
    pub store: &'a Store,
    /// How far it is, and whether it is to end.
    pub progress: &'a Progress,
    /// Where the segments of new ranges come from that are not scanned here.
    pub supply: Option<&'a dyn SegmentSupply>,
}

/// The index of the store as it is now, or of the bytes of `listing`; with `time`, a snapshot at that time is recorded,
/// and its T returned. A T that is left to the clock is chosen under the lock under which it is recorded.
///
/// # Errors
/// When the store cannot be read, the index cannot be written or read back, the store has too many rows, or `progress`
/// is cancelled.
pub(crate) fn refresh(
    run: RefreshRun<'_>,
    time: Option<&SnapshotTime>,
    listing: Option<&StoreListing>,
    mut verification: Verification,
) -> Result<(Index, RefreshStats, Option<Instant>), IndexError> {
    let RefreshRun { store, progress, .. } = run;
    let (dir, in_memory) = match store.options().index_access {
        IndexAccess::ReadOnly => (IndexDir::read_only(&store.index_dir()), None),
        IndexAccess::ReadWrite => match IndexDir::directory(&store.index_dir()) {
            Ok(dir) => (dir, None),
            Err(error) if is_unwritable_place(&error) => {
                (IndexDir::memory(), Some(format!("{}: {error}", store.index_dir().display())))
            }
            Err(source) => return Err(IndexError::Write { name: "lock".into(), source }),
        },
    };
    let dir = Arc::new(dir);
    let search_columns = &store.options().search_columns;
    let mut stats = RefreshStats { in_memory, ..RefreshStats::default() };
    let mut last_reason = "it changed under every attempt to read it";
    for _ in 0..ATTEMPTS {
        // 1. An unchanged store with an intact index needs no lock, unless a snapshot is to be recorded.
        let LoadedAhead { memory, opened, walk } = load_ahead(store, &dir, verification);
        let mut known = memory?.known();
        if let Some(known) = known.as_mut().filter(|_| verification == Verification::Nothing) {
            known.copy_lost |= lacks_copy(&dir)?;
        }
        let rules = chosen_rules(store, known.as_ref().map(|known| &known.current))?;
        let files = match listing {
            Some(listing) => StoreFiles::find_within(store, listing, known.as_ref().map(|known| &known.current), walk)?,
            None => StoreFiles::find(store, known.as_ref().map(|known| &known.current), walk)?,
        };
        if let Some(known) = &known {
            check_root(store, &files, &known.current)?;
        }
        // What was indexed before is missed, unless all of it may be.
        let is_missed = |known: &LoadedMeta| known.current.first.is_some() && !known.current.segments.is_empty();
        let misses = store.options().allow_missing < 100.0 && known.as_ref().is_some_and(is_missed);
        // What is not read by choice is not missed: without this, a choice that leaves nothing to read would be one of an
        // empty export.
        let walked = files.walked();
        let hides =
            walked.excluded > 0 || known.as_ref().is_some_and(|known| known.current.links() != walked.rules.links);
        if files.count() == 0 && (!misses || hides) {
            let (path, others) = (store.root().to_path_buf(), walked.words_of_others());
            return Err(IndexError::NoDataFiles { path, others, links: walked.ignored_links });
        }
        if let Some(known) = known
            && is_unchanged(&files, &known.current, rules)
            && (known.current.chosen || !store.options().remake)
            && (verification == Verification::Stamps || read_vanished(&dir, &known.current)?.is_some())
            && let Ok((segments, global)) =
                opened.unwrap_or_else(|| open_index(&dir, &known.current, verification))?.into_whole()
        {
            if known.copy_lost && dir.is_durable() {
                stats.repaired.push("one of the two copies of the generation file was lost".to_string());
            }
            let times = known.times.clone();
            let Some((meta, as_of)) = log_snapshot(&dir, store, known, time, progress)? else { continue };
            stats.kept_segments = segments.len();
            stats.memory_lost = meta.lost;
            let vanished = VanishedFile::open(&dir, &meta);
            match Index::new(meta, times, segments, global, files, dir.clone()) {
                Ok(index) => {
                    let index = index.with_vanished(vanished).with_search_columns(search_columns.clone());
                    return Ok((index, stats, as_of));
                }
                Err(damaged) => last_reason = damaged.0,
            }
            verification = Verification::Nothing;
            continue;
        }
        // 2. Under the lock: compare again, because another writer may have published meanwhile, then scan and build.
        let lock = take_lock(&dir, progress)?;
        let memory = load(&dir)?;
        let loss = memory.loss();
        let mut known = memory.known();
        let is_legacy = known.as_ref().is_some_and(|known| known.is_legacy);
        if let Some(known) = known.as_mut().filter(|_| is_legacy) {
            hash_compressed_files(&mut known.current, &files)?;
        }
        let (mut known, known_times): (Option<IndexMeta>, _) = known.map(|known| (known.current, known.times)).unzip();
        let known_times = known_times.unwrap_or_default();
        let before_sequence = known.as_ref().map_or(0, |known| known.sequence);
        if let Some(known) = &known {
            check_root(store, &files, known)?;
        }
        let vanished = match &mut known {
            Some(known) => match read_vanished(&dir, known)? {
                Some(list) => list,
                None => {
                    known.vanished.clear();
                    known.vanished_gap = Some(VanishedGap::default());
                    stats.repaired.retain(|reason| reason != VANISHED_LOST);
                    stats.repaired.push(VANISHED_LOST.to_string());
                    Vec::new()
                }
            },
            None => Vec::new(),
        };
        let opened = known.as_ref().map(|known| open_index(&dir, known, verification)).transpose()?;
        let mut rules = chosen_rules(store, known.as_ref())?;
        let is_other_walk = |known: &IndexMeta| known.links() != files.walked().rules.links;
        if !store.options().remake && known.as_ref().is_some_and(is_other_walk) {
            // Another process has made the index meanwhile, with the other choice of links.
            continue;
        }
        // Rows are compared one by one, for which segments of an earlier format lack a column: they are made again by the
        // rules that stand, and then by others.
        let stand = known.as_ref().filter(|known| known.segments.iter().any(|segment| segment.at == SCAN_AGAIN));
        let in_two_steps = stand.is_some_and(|known| (known.rules, known.unproven) != rules);
        if let Some(known) = stand {
            rules = (known.rules, known.unproven);
        }
        let mut changes = diff(&files, known.as_ref(), opened.as_ref(), &known_times, rules, NewFileHashes::Taken)?;
        if is_legacy {
            // What lacks columns is not damaged.
            changes.repaired.clear();
        }
        stats.kept_segments = changes.segments.len();
        // Only together with other work, and where it is not lost.
        let compacts = changes.changed && dir.is_durable() && store.options().compaction;
        if let Some(known) = known.as_ref().filter(|_| compacts) {
            join_segments(&mut changes, &files, known, &known_times)?;
        }
        let previous_global = opened.and_then(|opened| opened.global.ok());
        let previous = PreviousIndex { global: previous_global, times: known_times, vanished };
        let built = build(&run, &dir, changes, previous, &files, &mut stats);
        let (mut meta, times, segments) = match built {
            Err(IndexError::Damaged(CorruptIndex(reason))) if verification == Verification::Stamps => {
                (verification, last_reason) = (Verification::Nothing, reason);
                continue;
            }
            Err(error) => {
                // What was written of a refresh that failed is of no use to the next one.
                if let Some(known) = &known {
                    dir.remove_all_but(&index_file_names(known));
                }
                return Err(error);
            }
            Ok(built) => built,
        };
        meta.root = real_path(store);
        meta.chosen |= store.options().remake && !in_two_steps;
        if loss.is_some() {
            meta.lost = loss;
            stats.tells_memory_loss = true;
        }
        stats.memory_lost = meta.lost;
        if meta.sequence != before_sequence && store.options().index_access == IndexAccess::ReadOnly {
            stats.in_memory = Some(format!("{} is only read here", store.index_dir().display()));
        }
        // 3. Publish, then open the new global index.
        let as_of = time.map(|time| meta.note_snapshot(time).0);
        publish(&dir, &mut meta)?;
        dir.remove_all_but(&index_file_names(&meta));
        let global = match dir.open(&meta.global.name) {
            Ok(bytes) => GlobalIndex::open(bytes, &meta.segments),
            Err(_) => Err("it cannot be opened"),
        };
        let vanished = VanishedFile::open(&dir, &meta);
        drop(lock);
        if in_two_steps {
            continue;
        }
        let index = global.and_then(|global| {
            Index::new(meta, times, segments, global, files, dir.clone()).map_err(|damaged| damaged.0)
        });
        match index {
            Ok(index) => {
                let index = index.with_vanished(vanished).with_search_columns(search_columns.clone());
                return Ok((index, stats, as_of));
            }
            Err(reason) => (verification, last_reason) = (Verification::Nothing, reason),
        }
    }
    Err(IndexError::ReadBack { name: store.index_dir().display().to_string(), reason: last_reason })
}

/// The rules by which rows of the store are to be read: those that `known` was made with, or that its caller chose.
///
/// # Errors
/// [`IndexError::OtherChoices`] if they differ and the index is not to be made again.
pub(crate) fn chosen_rules(store: &Store, known: Option<&IndexMeta>) -> Result<RowRules, IndexError> {
    let StoreOptions { choices, remake, .. } = store.options();
    let Some(known) = known.filter(|_| !remake) else { return Ok(choices.of_new_index()) };
    let stands = (known.rules, known.unproven);
    match choices.differences(stands, known.follow_symlinks) {
        different if different.is_empty() => Ok(stands),
        different => Err(IndexError::OtherChoices { different }),
    }
}

/// Path of the store without links, as the index meta keeps it.
fn real_path(store: &Store) -> String {
    store.root().canonicalize().unwrap_or_else(|_| store.root().to_path_buf()).to_string_lossy().into_owned()
}

/// Refuses the index of another store: the recorded root is another one, and none of the recorded files is here. The
/// index of a store that was copied, moved or restored is its own.
pub(crate) fn check_root(store: &Store, files: &StoreFiles, known: &IndexMeta) -> Result<(), IndexError> {
    let stands = known.files.is_empty() || known.files.iter().any(|file| files.position(&file.name).is_some());
    if stands || known.root.is_empty() || known.root == real_path(store) {
        return Ok(());
    }
    Err(IndexError::ForeignIndex {
        index: store.index_dir(),
        recorded: known.root.clone().into(),
        store: store.root().to_path_buf(),
    })
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
    names.extend([meta.global.name.as_str(), &meta.times, &meta.vanished, meta::FILE, meta::NOTE]);
    names
}

/// Records a snapshot at `time` in the snapshot log, or in the index meta if it is the first, index files lack stamps, or
/// a copy of the index meta is lost; the index meta with it, and its T. `None` when another writer has published
/// meanwhile.
fn log_snapshot(
    dir: &IndexDir,
    store: &Store,
    known: LoadedMeta,
    time: Option<&SnapshotTime>,
    progress: &Progress,
) -> Result<Option<(IndexMeta, Option<Instant>)>, IndexError> {
    let LoadedMeta { mut current, mut published_first, copy_lost, .. } = known;
    let as_of = time.map(|time| time.choose(current.latest).as_of);
    let is_new_snapshot = time.is_some_and(|time| current.would_change(time));
    let lacks_stamps = copy_lost || current.containers.iter().chain([&current.global]).any(|file| file.stamp.is_none());
    let is_incomplete = dir.is_durable() && lacks_stamps;
    if !is_new_snapshot && !is_incomplete {
        return Ok(Some((current, as_of)));
    }
    let _lock = take_lock(dir, progress)?;
    // Other processes may have recorded snapshots meanwhile, which changes only the log. The whole is read again if it is to be
    // written: a file may be marked in it to be scanned again.
    let is_written = current.birth.is_none() || is_incomplete;
    match if is_written { None } else { load_head(dir)? } {
        Some(head) if head.sequence == current.sequence => {
            let slots = read_slots(dir).map_err(|source| IndexError::ReadIndex { name: meta::NOTE.into(), source })?;
            if let Some(log) = slots.newest() {
                current.apply(&log);
            }
            // One that found stamps lacking has written its T to the index meta, not to the log.
            current.latest = current.latest.max(head.latest);
        }
        // To be written, without an intact copy, or of an earlier format.
        None => {
            let Some(reloaded) = load(dir)?.known() else { return Ok(None) };
            if reloaded.current.sequence != current.sequence {
                return Ok(None);
            }
            (current, published_first) = (reloaded.current, reloaded.published_first);
        }
        Some(_) => return Ok(None),
    }
    let is_first_snapshot = current.birth.is_none() && time.is_some();
    // Chosen again: another process may have recorded a snapshot before the lock was taken.
    let as_of = time.map(|time| current.note_snapshot(time).0);
    if is_first_snapshot || is_incomplete {
        publish(dir, &mut current)?;
    } else if is_new_snapshot {
        let failed = |source| IndexError::Write { name: meta::NOTE.into(), source };
        let [first, copy] = read_slots(dir).map_err(failed)?.writes(&current.log_since(published_first));
        dir.overwrite_note(first.0, &first.1, store.options().sync).map_err(failed)?;
        // The copy is for a slot that is damaged later: nobody waits for it to reach the disk.
        dir.overwrite_note(copy.0, &copy.1, false).map_err(failed)?;
    }
    Ok(Some((current, as_of)))
}

/// The index as the last refresh published it, without a new refresh or a walk over the store; `None` when no intact
/// one exists.
///
/// # Errors
/// [`IndexError::ReadIndex`] when one may exist that cannot be read.
pub(crate) fn latest_published(store: &Store) -> Result<Option<Index>, IndexError> {
    // A writer may remove the files that the index meta just read names.
    for _ in 0..ATTEMPTS {
        let dir = match store.options().index_access {
            IndexAccess::ReadOnly => IndexDir::read_only(&store.index_dir()),
            IndexAccess::ReadWrite => match IndexDir::directory(&store.index_dir()) {
                Ok(dir) => dir,
                Err(error) if is_unwritable_place(&error) => return Ok(None),
                Err(source) => return Err(IndexError::ReadIndex { name: "lock".into(), source }),
            },
        };
        let Some(LoadedMeta { current: known, times, .. }) = load(&dir)?.known() else { return Ok(None) };
        let Ok((segments, global)) = open_index(&dir, &known, Verification::Stamps)?.into_whole() else { continue };
        let (files, vanished) = (StoreFiles::known_to(store, &known), VanishedFile::open(&dir, &known));
        if let Ok(index) = Index::new(known, times, segments, global, files, Arc::new(dir)) {
            return Ok(Some(index.with_vanished(vanished)));
        }
    }
    Ok(None)
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
    dir.replace_twice(meta::FILE, &mut bytes, true)
        .map_err(|source| IndexError::Write { name: meta::FILE.into(), source })
}

/// What a build takes from the previous index.
#[derive(Default)]
pub(crate) struct PreviousIndex {
    /// Its global index; `None` when there is none that can be read.
    global: Option<GlobalIndex>,
    /// First-seen times of its rows.
    times: RowTimes,
    /// Resources that were gone from the store.
    vanished: Vec<VanishedResource>,
}

/// Scans the ranges of `changes`, joins new and kept segments, and builds the global index. Returns index meta,
/// first-seen times of rows, and segments, not yet published.
pub(crate) fn build(
    run: &RefreshRun<'_>,
    dir: &IndexDir,
    changes: StoreDiff,
    previous: PreviousIndex,
    files: &StoreFiles,
    stats: &mut RefreshStats,
) -> Result<(IndexMeta, RowTimes, Vec<Segment>), IndexError> {
    let RefreshRun { store, progress, supply } = *run;
    let StoreDiff {
        mut meta, mut segments, origins, spans, rescanned, mut dropped, mut joined, changed, repaired, ..
    } = changes;
    stats.repaired.extend(repaired);
    if !changed {
        return Ok((meta, previous.times, segments));
    }
    let mut runs: Vec<Vec<TimeRun>> = origins.iter().map(|origin| previous.times.runs(*origin).to_vec()).collect();
    let mut origins: Vec<SegmentOrigin> = origins.into_iter().map(SegmentOrigin::kept).collect();
    meta.sequence += 1;
    let first = meta.first.take();
    if let Some(gap) = &mut meta.vanished_gap {
        gap.until = gap.until.or(first);
    }
    if let (Some(_), Some(global)) = (first, &previous.global) {
        meta.present = global.totals()?.current();
    }
    let packed: HashSet<FileId> =
        spans.iter().filter(|span| matches!(span.part, RangeKind::Packed { .. })).map(|span| span.file).collect();
    let mut matches = RowMatches::default();
    // 1. Scan into a new container.
    if !spans.is_empty() {
        let mut total = 0;
        for span in &spans {
            total += span.part.file_bytes(files.source(span.file)?);
        }
        progress.begin(Phase::Indexing);
        progress.scan_total.fetch_add(total, Relaxed);
        let options = ScanOptions {
            kernel: store.options().kernel,
            rules: meta.rules,
            unproven: meta.unproven,
            progress: &progress.scan_done,
            cancel: &progress.cancel,
        };
        let name = format!("extents-{:012}", meta.sequence);
        let failed_write = |source| IndexError::Write { name: name.clone(), source };
        let scanned = match supply {
            None => {
                let scanned = scan(files, &spans, dir, &name, &options)?;
                stats.scanned_bytes += progress.scan_done.load(Relaxed);
                scanned
            }
            Some(supply) => {
                let mut container = dir.create_blocks(&name).map_err(failed_write)?;
                supply.put_segments(files, &spans, (meta.rules, meta.unproven), &mut container, &name)?
            }
        };
        for (file, stamp, settled) in scanned.stamps {
            let entry = &mut meta.files[file.index()];
            (entry.stamp, entry.settled) = (stamp, settled);
            if !settled && entry.compression != Compression::None {
                // Its bytes may have been others when they were scanned than now, when they were hashed: a hash that does not fit
                // has them scanned again.
                entry.raw = !entry.raw;
            }
        }
        for file in scanned.open_ended {
            meta.files[file.index()].appendable = false;
        }
        let packed_facts = FirstSeen::of(&spans, &meta);
        packed_facts.note_table(&mut meta);
        let container = meta.containers.len();
        meta.containers.push(IndexFile::new(name.clone()));
        let bytes = Arc::new(dir.open(&name).map_err(failed_write)?);
        // 2. Join new and kept segments, in store order.
        let mut kept = segments.clone();
        let old = meta.segments.drain(..).zip(segments.drain(..)).zip(origins.drain(..)).zip(runs.drain(..));
        let mut all: Vec<_> = old.map(|(((entry, segment), origin), runs)| (entry, segment, origin, runs)).collect();
        let (mut new_written, mut new_segments) = (Vec::new(), Vec::new());
        for new in scanned.segments {
            let read_back = |reason| IndexError::ReadBack { name: name.clone(), reason };
            let segment = match supply {
                None => Segment::written(bytes.clone(), new.at),
                Some(_) => new.open_whole(&bytes),
            };
            let segment = segment.map_err(read_back)?;
            debug_assert_eq!(Segment::open(bytes.clone(), new.at).err(), None, "what is written holds");
            match joined_facts(&joined, &new, &segment) {
                Some((i, facts)) => {
                    kept.push(segment.clone());
                    all.push((new.into_entry(container, facts.first_seen), segment, facts.origin, facts.runs));
                    joined[i].parts.clear();
                }
                None => {
                    new_segments.push((new.file, segment));
                    new_written.push(new);
                }
            }
        }
        // The file was changed after it was compared: what was to be joined is not there any more.
        dropped.extend(joined.iter_mut().flat_map(|joined| joined.parts.drain(..)));
        stats.scanned_segments += new_written.len();
        matches = match_rows(&dropped, &new_segments, &kept, meta.latest)?;
        for (i, (new, (_, segment))) in new_written.into_iter().zip(new_segments).enumerate() {
            let (first_seen, mut own_runs) = inherited_times(&rescanned, &new, &segment)?;
            let first_seen = first_seen.or_else(|| packed_facts.first_seen(new.file));
            if first_seen.is_none() && own_runs.is_empty() {
                own_runs = std::mem::take(&mut matches.runs[i]);
            }
            all.push((new.into_entry(container, first_seen), segment, SegmentOrigin::default(), own_runs));
        }
        all.sort_by_key(|(entry, ..)| (entry.file, entry.start));
        for (entry, segment, origin, own_runs) in all {
            meta.segments.push(entry);
            segments.push(segment);
            origins.push(origin);
            runs.push(own_runs);
        }
    }
    if spans.is_empty() && !dropped.is_empty() {
        matches = match_rows(&dropped, &[], &segments, meta.latest)?;
    }
    if matches.unreadable > 0 {
        stats.repaired.push(format!(
            "{} {} to parts of files that were replaced: rows there count as new, and resources gone from there are not known",
            counted(matches.unreadable as u64, "damaged extent"),
            word_form(matches.unreadable as u64, "belongs", "belong")
        ));
        meta.vanished_gap = Some(VanishedGap::default());
    }
    let allowed = store.options().allow_missing;
    stats.gone = check_presence(&meta, &matches, &dropped, allowed)?;
    let scanned: Vec<usize> = (0..origins.len()).filter(|number| origins[*number].is_new()).collect();
    let mut times = RowTimes::default();
    runs.into_iter().enumerate().for_each(|(number, runs)| times.push(number, runs));
    let contents =
        StoreContents { meta: &meta, segments: &segments, scanned: &scanned, times: &times, packed: &packed };
    let vanished = remember_vanished(previous.vanished, first, &matches, &dropped, &contents)?;
    write_vanished(dir, &mut meta, &vanished)?;
    write_times(dir, &mut meta, &times)?;
    // 3. Bound the number of containers and of rows.
    compact_segment_files(dir, &mut meta, &mut segments)?;
    let rows: u64 = segments.iter().map(|segment| (segment.rows() + segment.tombstones()) as u64).sum();
    if rows > STORE_ROWS_MAX {
        return Err(IndexError::TooManyRows { max: STORE_ROWS_MAX });
    }
    // 4. Build the global index, from the previous one if most of it is kept.
    progress.merging.store(true, Relaxed);
    meta.global = IndexFile::new(format!("merged-{:012}", meta.sequence));
    let global = match previous.global {
        Some(previous_global) if append::is_worth_appending(&previous_global, &segments, &origins) => {
            append::extend(&previous_global, &segments, &origins, dir, &meta.global.name)
        }
        _ => build::build(&segments, dir, &meta.global.name),
    };
    progress.merging.store(false, Relaxed);
    match global {
        Ok(()) => {
            if meta.present > 0 && !vanished.is_empty() {
                let read_back = |reason| IndexError::ReadBack { name: meta.global.name.clone(), reason };
                let bytes = dir.open(&meta.global.name).map_err(|_| read_back("it cannot be opened"))?;
                let current = GlobalIndex::open(bytes, &meta.segments).map_err(read_back)?.totals()?.current();
                check_current(meta.present, current, &vanished, allowed, stats.gone.as_ref())?;
            }
            Ok((meta, times, segments))
        }
        Err(BuildError::Damaged(damaged)) => Err(damaged.into()),
        Err(BuildError::Write(source)) => Err(IndexError::Write { name: meta.global.name, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A T that another writer put into the index meta, after this one had read it and under the same sequence, is not given
    /// out again.
    #[test]
    fn a_time_in_the_index_meta_is_not_given_again() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
        let store = Store::open(root.path()).unwrap();
        let clock = || SnapshotTime::by_clock(Instant::parse("2026-01-01T00:00:00Z").unwrap());
        store.snapshot(clock()).unwrap();
        let dir = IndexDir::directory(&store.index_dir()).unwrap();
        let known = || load(&dir).unwrap().known().unwrap();
        // Stamped, so that a later snapshot goes to the log alone.
        let mut stamped = known().current;
        publish(&dir, &mut stamped).unwrap();
        std::thread::sleep(std::time::Duration::from_nanos(RACY_NS.unsigned_abs()));
        publish(&dir, &mut stamped).unwrap();
        let mine = known();
        let mut other = known().current;
        let taken = other.note_snapshot(&clock()).0;
        publish(&dir, &mut other).unwrap();
        let (_, given) = log_snapshot(&dir, &store, mine, Some(&clock()), &Progress::default()).unwrap().unwrap();
        assert!(given.as_ref().is_some_and(|given| *given > taken), "{given:?} after {taken}");
    }
}
