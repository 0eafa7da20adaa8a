//! Reopens the snapshot that a record names, whatever was appended to the store or joined in the index since.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::codec::compression::Compression;
use crate::error::IndexError;
use crate::fhir::instant::Instant;
use crate::ids::{FileId, SegmentId};
use crate::index::diff::NewFileHashes;
use crate::index::diff::{StoreDiff, file_entries};
use crate::index::dir::IndexDir;
use crate::index::global::GlobalIndex;
use crate::index::meta::{IndexMeta, SegmentMeta};
use crate::index::open::Verification;
use crate::index::refresh::{PreviousIndex, RefreshRun, build, refresh};
use crate::index::report::RefreshStats;
use crate::index::segment::span::{RangeKind, ScanRange, compressed_spans};
use crate::index::snapshot::{Index, Snapshot};
use crate::index::snapshot_record::{SegmentRef, SnapshotRecord};
use crate::index::store_files::StoreFiles;
use crate::progress::Progress;
use crate::store::Store;
use crate::store::file_name::path_of;

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
    let run = RefreshRun { store, progress, supply: None };
    let (index, mut stats, _) = refresh(run, None, None, Verification::Stamps)?;
    let index = match Snapshot::of_segments(index, record, as_of.clone()) {
        Ok(snapshot) => return Ok((snapshot, stats)),
        Err((index, _)) => index,
    };
    // 1. The index lacks segments of the record. Those that it has are kept, the other recorded ranges are scanned.
    let files = StoreFiles::find_for_record(store, record, index.generation())?;
    let dir = IndexDir::memory();
    let known = index.find_segments(record);
    let same = index.generation().rules == record.rules.rules();
    // A compressed file is decoded from its start, so all of its segments are scanned again.
    let is_coded = |name: &str| files.position(name).is_some_and(|file| files.compression(file) != Compression::None);
    let lost = record.segments.iter().zip(&known).filter(|(segment, known)| known.is_none() && is_coded(&segment.file));
    let lost: HashSet<&str> = lost.map(|(segment, _)| segment.file.as_str()).collect();
    let stays = |segment: &SegmentRef| same && !lost.contains(segment.file.as_str());
    let kept: Vec<Option<SegmentId>> =
        record.segments.iter().zip(known).map(|(segment, known)| known.filter(|_| stays(segment))).collect();
    // 2. Collect the kept segments and the ranges to scan.
    let (entries, unproven) = (file_entries(&files)?, record.unproven);
    let follow_symlinks = record.follow_symlinks;
    let mut meta = IndexMeta { files: entries, unproven, follow_symlinks, ..IndexMeta::empty(record.rules.rules()) };
    meta.containers = index.generation().containers.clone();
    meta.lost = index.generation().lost;
    let (mut segments, mut spans) = (Vec::new(), Vec::<ScanRange>::new());
    // For each compressed file that is scanned, the place of its first range.
    let mut first_spans: HashMap<FileId, usize> = HashMap::new();
    for (segment, kept) in record.segments.iter().zip(&kept) {
        let Some(file) = files.position(&segment.file) else {
            return Err(lost_error(store, &segment.file, "is no longer there", true));
        };
        if let Some(kept) = *kept {
            meta.segments.push(SegmentMeta { file, ..index.entry(kept).clone() });
            segments.push(index.segment(kept).clone());
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
                if let Entry::Vacant(first) = first_spans.entry(file) {
                    first.insert(spans.len());
                    spans.extend(compressed_spans(file, compression, files.source(file)?)?);
                }
                // Its segments end where those of the record do: they may have been joined since.
                if let Some(ScanRange { part: RangeKind::Compressed { cuts, .. }, .. }) =
                    spans.get_mut(first_spans[&file])
                {
                    cuts.push(segment.end);
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
        rescanned: Vec::new(),
        dropped: Vec::new(),
        joined: Vec::new(),
        changed: true,
        restamped: false,
        repaired: Vec::new(),
        hashes: NewFileHashes::Taken,
    };
    // 3. Build that index in memory and take the snapshot of it.
    let (meta, times, segments) = build(&run, &dir, changes, PreviousIndex::default(), &files, &mut stats)?;
    let global = dir.open(&meta.global.name).map_err(|_| "it cannot be opened");
    let index = global
        .and_then(|bytes| GlobalIndex::open(bytes, &meta.segments))
        .and_then(|global| {
            Index::new(meta, times, segments, global, files, Arc::new(IndexDir::read_only(&store.index_dir())))
                .map_err(|damaged| damaged.0)
        })
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
    IndexError::SnapshotLost { path: store.root().join(path_of(name)), reason, restorable }
}
