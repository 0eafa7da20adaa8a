//! Compares the files that an index was made from with those of the store now: which segments are kept, which ranges
//! are scanned. Reads sampled blocks of touched files; scans nothing and writes nothing.

use crate::codec::compression::{Compression, SeekPoint, UnprovenPolicy};
use crate::error::IndexError;
use crate::extract::Validate;
use crate::extract::fault::FaultKind;
use crate::index::meta::{FileEntry, IndexMeta, SCAN_AGAIN, SegmentMeta};
use crate::index::open::OpenedIndex;
use crate::index::segment::layout::Column;
use crate::index::segment::reader::Segment;
use crate::index::segment::span::{RangeKind, ScanRange, compressed_spans, plain_spans};
use crate::index::store_files::StoreFiles;
use crate::sys::store_file::StoreFile;

/// Kept segments and ranges to scan, for the files as they are now.
pub(crate) struct StoreDiff {
    /// Index meta of the files as they are now, with the kept segments only.
    pub(crate) meta: IndexMeta,
    /// The kept segments, opened, in the order of `meta`.
    pub(crate) segments: Vec<Segment>,
    /// For each kept segment its number in the previous index meta.
    pub(crate) origins: Vec<usize>,
    /// Ranges of store files to scan.
    pub(crate) spans: Vec<ScanRange>,
    /// `first_seen` of dropped segments, inherited by new ones that overlap them: (file, start, end, first seen).
    pub(crate) inherited: Vec<(usize, u64, u64, Option<i64>)>,
    /// Whether a new index meta is to be published.
    pub(crate) changed: bool,
    /// Reasons why parts of the index are made again, for the report.
    pub(crate) repaired: Vec<String>,
}

/// Whether names, sizes and times of the files equal those of the index meta, and no segment is marked to be scanned
/// again.
pub(crate) fn is_unchanged(
    files: &StoreFiles,
    known: &IndexMeta,
    wanted: Option<Validate>,
    unproven: Option<UnprovenPolicy>,
) -> bool {
    let weaker = wanted == Some(Validate::Full) && known.validate == Validate::Structure;
    !weaker
        && unproven.is_none_or(|policy| policy == known.unproven)
        && known.files.len() == files.count()
        && known.segments.iter().all(|segment| segment.at != SCAN_AGAIN)
        && (0..files.count()).all(|i| known.files[i].stamp == files.stamp(i) && known.files[i].name == files.name(i))
}

/// The entries of the index meta for these files as they are now: name, stamp and sampled hash of each.
pub(crate) fn file_entries(files: &StoreFiles) -> Result<Vec<FileEntry>, IndexError> {
    let entry = |file| {
        let source = files.source(file)?;
        let samples = source.sampled_hash(source.len())?;
        Ok(FileEntry { name: files.name(file).to_string(), stamp: source.stamp(), samples, appendable: true })
    };
    (0..files.count()).map(entry).collect()
}

/// Compares the files with the index meta `known`. `opened` holds the result of opening its segments, `wanted` the
/// validation that the index is to have at least, and `unproven` the policy that it is to have, if another.
///
/// # Errors
/// When a touched file cannot be opened or read.
pub(crate) fn diff(
    files: &StoreFiles,
    known: Option<&IndexMeta>,
    opened: Option<&OpenedIndex>,
    wanted: Option<Validate>,
    unproven: Option<UnprovenPolicy>,
) -> Result<StoreDiff, IndexError> {
    let mut known = known.cloned().unwrap_or_else(|| IndexMeta::empty(wanted.unwrap_or(Validate::Full)));
    let mut repaired = Vec::new();
    let weaker = wanted == Some(Validate::Full) && known.validate == Validate::Structure;
    if weaker {
        // Segments made with weaker checks are scanned again; the times of snapshots are kept.
        repaired.push("the index was made with --validate structure".to_string());
        known.validate = Validate::Full;
    }
    let other_policy = unproven.filter(|policy| *policy != known.unproven);
    known.unproven = other_policy.unwrap_or(known.unproven);
    let open_segment = |k: usize| match opened {
        _ if weaker || known.segments[k].at == SCAN_AGAIN => Err("it is to be scanned again"),
        Some(opened) => opened.segments[k].clone(),
        None => Err("it cannot be opened"),
    };
    let mut meta = IndexMeta { files: Vec::new(), segments: Vec::new(), ..known.clone() };
    let (mut segments, mut origins) = (Vec::new(), Vec::new());
    let (mut spans, mut inherited) = (Vec::new(), Vec::new());
    let mut changed =
        weaker || other_policy.is_some() || known.global.name.is_empty() || known.files.len() != files.count();
    for file in 0..files.count() {
        let (name, compression) = (files.name(file), files.compression(file));
        let old = known.files.binary_search_by(|entry| entry.name.as_bytes().cmp(name.as_bytes())).ok();
        let same_stamp = old.is_some_and(|old| known.files[old].stamp == files.stamp(file));
        // 1. Is the file untouched, or an extension of the indexed bytes? An untouched file is not opened.
        let source = || files.source(file);
        let extended = match old.map(|old| &known.files[old]) {
            Some(entry) if same_stamp => Some(entry),
            Some(entry)
                if source()?.len() >= entry.stamp.len
                    && (entry.appendable || source()?.len() == entry.stamp.len)
                    && source()?.sampled_hash(entry.stamp.len)? == entry.samples =>
            {
                changed = true;
                Some(entry)
            }
            _ => None,
        };
        // Another policy decides anew on a file in which something is not proven.
        let judged_anew =
            old.filter(|_| extended.is_some() && other_policy.is_some() && compression != Compression::None);
        let judged_anew = judged_anew
            .map(|old| judge_anew(&known, opened, old))
            .filter(|segments| segments.iter().any(|(_, is_unproven)| *is_unproven));
        for (segment, is_unproven) in judged_anew.iter().flatten() {
            // Rows that become visible are new to every reader.
            let first_seen = segment.first_seen.filter(|_| !is_unproven || known.unproven == UnprovenPolicy::Fault);
            inherited.push((file, segment.start, segment.end, first_seen));
        }
        let extended = extended.filter(|_| judged_anew.is_none());
        let samples = match extended {
            Some(entry) if same_stamp => entry.samples,
            _ => source()?.sampled_hash(source()?.len())?,
        };
        let appendable = extended.is_none_or(|entry| entry.appendable);
        let len = files.stamp(file).len;
        meta.files.push(FileEntry { name: name.to_string(), stamp: files.stamp(file), samples, appendable });
        // 2. A new or rewritten file is scanned whole.
        let Some((old, entry)) = old.zip(extended) else {
            changed = true;
            spans.extend(whole_file(file, compression, source()?)?);
            continue;
        };
        // 3. Segments that open are kept; damaged ones of a plain file are scanned again by themselves.
        let grown = len > entry.stamp.len;
        let mut end = 0;
        let mut damaged = None;
        let first = known.segments.partition_point(|segment| segment.file < old);
        for (i, segment) in known.segments.iter().enumerate().skip(first).take_while(|(_, segment)| segment.file == old)
        {
            // A segment of the last line without newline is kept only if nothing or a newline follows it.
            if segment.tail && grown && byte_at(source()?, segment.end)? != Some(b'\n') {
                break;
            }
            end = if segment.tail && grown { segment.end + 1 } else { segment.end };
            match open_segment(i) {
                Ok(open) => {
                    meta.segments.push(SegmentMeta { file, ..segment.clone() });
                    segments.push(open);
                    origins.push(i);
                }
                Err(reason) => {
                    damaged = Some(reason);
                    inherited.push((file, segment.start, segment.end, segment.first_seen));
                    if compression == Compression::None {
                        let part = RangeKind::Plain { range: segment.start..segment.end, tail: segment.tail };
                        spans.push(ScanRange { file, part });
                    }
                }
            }
        }
        if let Some(reason) = damaged {
            changed = true;
            repaired.push(format!("{name}: an extent of the index is damaged: {reason}"));
            if compression != Compression::None {
                // A compressed file is decoded from its start; its other segments are dropped, too.
                let first = meta.segments.partition_point(|segment| segment.file < file);
                for segment in &meta.segments[first..] {
                    inherited.push((file, segment.start, segment.end, segment.first_seen));
                }
                meta.segments.truncate(first);
                segments.truncate(first);
                origins.truncate(first);
                spans.extend(whole_file(file, compression, source()?)?);
                continue;
            }
        }
        // 4. Bytes behind the kept segments are scanned.
        match compression {
            Compression::None if len > end => spans.extend(plain_spans(file, source()?, end..len)?),
            Compression::None => {}
            compression if grown => {
                let from = SeekPoint { compressed: entry.stamp.len, uncompressed: end };
                spans.push(ScanRange { file, part: RangeKind::Compressed { compression, from } });
            }
            _ => {}
        }
    }
    changed |= !spans.is_empty();
    if let (false, Some(Err(reason))) = (changed, opened.map(|opened| &opened.global)) {
        changed = true;
        repaired.push(format!("the merged file of the index is damaged: {reason}"));
    }
    Ok(StoreDiff { meta, segments, origins, spans, inherited, changed, repaired })
}

/// The segments of a file, by its number in `known`, and whether each holds a fault for what is not proven, or may.
fn judge_anew<'a>(known: &'a IndexMeta, opened: Option<&OpenedIndex>, file: usize) -> Vec<(&'a SegmentMeta, bool)> {
    let first = known.segments.partition_point(|segment| segment.file < file);
    let own = known.segments.iter().enumerate().skip(first).take_while(|(_, segment)| segment.file == file);
    own.map(|(i, segment)| {
        let open = opened.and_then(|opened| opened.segments[i].as_ref().ok());
        let is_proven = open.is_some_and(|open| {
            open.head().faulty == 0
                || open.verify_columns(&[Column::FaultCount]).is_ok_and(|columns| {
                    [FaultKind::Damaged, FaultKind::Unproven]
                        .iter()
                        .all(|kind| columns.fault_count[*kind as usize] == 0)
                })
        });
        (segment, !is_proven)
    })
    .collect()
}

/// The byte of a file at an offset; `None` at or behind its end.
fn byte_at(source: &StoreFile, offset: u64) -> Result<Option<u8>, IndexError> {
    if offset >= source.len() {
        return Ok(None);
    }
    Ok(source.read(offset, 1, &mut Vec::new())?.first().copied())
}

/// The ranges to scan of a file of which no segment is kept.
fn whole_file(file: usize, compression: Compression, source: &StoreFile) -> Result<Vec<ScanRange>, IndexError> {
    match compression {
        Compression::None => Ok(plain_spans(file, source, 0..source.len())?),
        compression => Ok(compressed_spans(file, compression, source)?),
    }
}
