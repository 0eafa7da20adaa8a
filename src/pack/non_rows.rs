//! Lines that are no rows of the index: deletions, whose lines a pack copies unchanged, and faults, which it copies
//! unchanged to `rejected.ndjson`.
//!
//! They lie in the gaps between rows. Only segments that count such lines are searched, and each line found is parsed
//! once more to classify it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use memchr::memchr;

use crate::error::{IndexError, PackError};
use crate::extract::extractor::Extractor;
use crate::extract::facts::Content;
use crate::extract::fault::FaultKind;
use crate::fhir::reference::Reference;
use crate::ids::{EntryId, RowAddress, SegmentId};
use crate::index::row_reader::row_range;
use crate::index::snapshot::Snapshot;
use crate::limits::{PACK_DAMAGE_TOLD_MAX, READ_BYTES, ROW_BYTES_MAX};
use crate::pack::report::PackReport;
use crate::pack::row_fetch::RowFetcher;
use crate::progress::Progress;
use crate::simd::Kernel;
use crate::sys::durability::FileSync;
use crate::sys::private_files::create_private;
use crate::sys::store_file::StoreFile;

/// Name of the file of faulty lines. An index of the new store counts them as faults again.
pub(crate) const REJECTED: &str = "rejected.ndjson";
/// UTF-8 byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Position of a line of DELETE entries in the old store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TombstoneLine {
    /// Number of the segment that holds it.
    pub segment: SegmentId,
    /// Start in the uncompressed file.
    pub start: u64,
    /// Bytes of the line without its line end.
    pub length: u64,
    /// Its first DELETE entry; if it has none, the next one of the segment.
    pub first: EntryId,
    /// Number of its DELETE entries.
    pub count: usize,
}

/// Finds the lines of DELETE entries, copies the faulty lines to [`REJECTED`], and counts lines, blank lines and damage
/// in `packed`.
///
/// # Errors
/// [`PackError`] if the store cannot be read, the file cannot be written, or the pack is cancelled.
pub(crate) fn write_non_rows(
    snapshot: &Snapshot,
    rows: &mut RowFetcher<'_>,
    kernel: Kernel,
    (directory, sync): (&Path, FileSync),
    progress: &Progress,
    packed: &mut PackReport,
) -> Result<Vec<TombstoneLine>, PackError> {
    let index = snapshot.index();
    let has_non_rows = |segment: SegmentId| {
        let head = index.segment(segment).head();
        head.faulty + head.tombstone_lines > 0
    };
    rows.decode(&has_non_rows, progress)?;
    let mut extractor = Extractor::new(kernel, index.generation().rules);
    let mut rejected = RejectedLines { path: directory.join(REJECTED), file: None };
    let mut tombstone_lines = Vec::new();
    for segment in snapshot.segments() {
        let head = index.segment(segment).head();
        packed.lines += head.lines;
        packed.blank += head.blank;
        report_damage(snapshot, segment, packed);
        if !has_non_rows(segment) {
            continue;
        }
        if progress.cancel.load(Relaxed) {
            return Err(IndexError::Cancelled.into());
        }
        let source = rows.source(index.file_of(segment))?;
        let mut tombstones = 0;
        for gap in non_row_lines(snapshot, segment, source)? {
            each_non_row_line(source, gap, &mut |line| {
                match classify_line(source, &line, &mut extractor)? {
                    NonRowKind::Blank | NonRowKind::Resource => {}
                    NonRowKind::Faulty => {
                        rejected.take_line(source, &line)?;
                        packed.rejected += 1;
                    }
                    NonRowKind::Tombstones(count) => {
                        let (start, length) = (line.start, line.end - line.start);
                        let first = EntryId::of(tombstones);
                        tombstone_lines.push(TombstoneLine { segment, start, length, first, count });
                        tombstones += count;
                    }
                }
                Ok(())
            })?;
        }
    }
    rejected.finish(sync, packed)?;
    Ok(tombstone_lines)
}

/// Counts the places where a segment's compressed file is damaged, and describes the first of them in `packed`. Lines
/// there are lost, or may be: how many followed in a file that was cut off is unknown.
fn report_damage(snapshot: &Snapshot, segment: SegmentId, packed: &mut PackReport) {
    let index = snapshot.index();
    let (entry, columns, file) = (index.entry(segment), index.segment(segment).columns(), index.file_of(segment));
    let kinds = [FaultKind::Damaged, FaultKind::DamagedFrame, FaultKind::DamagedTable, FaultKind::Unproven];
    let count: u64 = kinds.iter().map(|kind| columns.fault_count[*kind as usize]).sum();
    packed.damaged += count;
    if count == 0 {
        return;
    }
    let room = PACK_DAMAGE_TOLD_MAX.saturating_sub(packed.damage.len());
    let name = index.file_name(file);
    let reported = columns.faults().filter(|fault| kinds.contains(&fault.kind)).map(|fault| {
        let start = entry.start + u64::from(fault.offset);
        let frame = match fault.kind {
            FaultKind::DamagedFrame => {
                format!(", frame at byte {} of the file", index.restart_before(file, start).compressed)
            }
            FaultKind::Unproven => {
                let member = index.restart_before(file, start + u64::from(fault.at)).compressed;
                format!(" to {}, byte {member} of the file", start + u64::from(fault.length))
            }
            _ => String::new(),
        };
        format!("{name}: byte {start}{frame}: {}", fault.kind)
    });
    packed.damage.extend(reported.take(room));
}

/// Spans of a segment outside its rows, their line ends, the damaged frames and what is not proven.
fn non_row_lines(snapshot: &Snapshot, segment: SegmentId, source: &StoreFile) -> Result<Vec<Range<u64>>, PackError> {
    let index = snapshot.index();
    let (entry, columns) = (index.entry(segment), index.segment(segment).columns());
    let mut covered: Vec<Range<u64>> =
        (0..columns.rows()).map(|row| row_range(index, RowAddress::of(segment, row))).collect();
    let damaged_frames = columns.faults().filter(|fault| fault.kind == FaultKind::DamagedFrame);
    let damaged_frames: Vec<Range<u64>> = damaged_frames
        .map(|fault| {
            entry.start + u64::from(fault.offset)..entry.start + u64::from(fault.offset) + u64::from(fault.length)
        })
        .collect();
    covered.extend_from_slice(&damaged_frames);
    covered.sort_by_key(|range| range.start);
    let mut gaps = Vec::new();
    let mut buffer = Vec::new();
    let mut position = entry.start;
    let unproven = columns.faults().find(|fault| fault.kind == FaultKind::Unproven);
    let lines_end = unproven.map_or(entry.end, |fault| entry.start + u64::from(fault.offset));
    let end = lines_end.min(source.len());
    if position == 0 && end >= 3 && source.read(0, 3, &mut buffer)? == BOM {
        position = 3;
    }
    for range in covered {
        if position < range.start {
            gaps.push(position..range.start.min(end));
        }
        position = range.end;
        if damaged_frames.binary_search_by_key(&range.start, |frame| frame.start).is_err() && position < end {
            // The line end has one byte or two.
            position += if source.read(position, 1, &mut buffer)? == b"\r" { 2 } else { 1 };
        }
    }
    if position < end {
        gaps.push(position..end);
    }
    Ok(gaps)
}

/// Calls `visit` with the byte range of each line of a span, without its newline and one carriage return.
fn each_non_row_line(
    source: &StoreFile,
    span: Range<u64>,
    visit: &mut dyn FnMut(Range<u64>) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let mut buffer = Vec::new();
    let (mut start, mut offset, mut last) = (span.start, span.start, 0);
    while offset < span.end {
        let len = (span.end - offset).min(READ_BYTES as u64) as usize;
        let bytes = source.read(offset, len, &mut buffer)?;
        let mut from = 0;
        while let Some(end) = memchr(b'\n', &bytes[from..]).map(|end| from + end) {
            let newline = offset + end as u64;
            let before = if end > 0 { bytes[end - 1] } else { last };
            let carriage = newline > start && before == b'\r';
            visit(start..newline - u64::from(carriage))?;
            start = newline + 1;
            from = end + 1;
        }
        last = bytes[len - 1];
        offset += len as u64;
    }
    if start < span.end {
        visit(start..span.end - u64::from(last == b'\r'))?;
    }
    Ok(())
}

/// Classification of a line that is no row of the index.
enum NonRowKind {
    /// White space only; dropped.
    Blank,
    /// A resource before the damaged end of a file; dropped. It may be incomplete, and parses, so it would not stay a fault.
    Resource,
    /// A fault; copied to [`REJECTED`].
    Faulty,
    /// A line with this number of DELETE entries.
    Tombstones(usize),
}

/// Parses a line and classifies it.
fn classify_line(source: &StoreFile, line: &Range<u64>, extractor: &mut Extractor) -> Result<NonRowKind, PackError> {
    if line.end - line.start > ROW_BYTES_MAX {
        return Ok(NonRowKind::Faulty);
    }
    let mut blank = true;
    extractor.begin();
    span_pieces(source, line, &mut |piece| {
        blank = blank && piece.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        extractor.feed(piece);
        Ok(())
    })?;
    Ok(match extractor.finish() {
        _ if blank => NonRowKind::Blank,
        Ok(facts) if facts.content == Content::Tombstones => {
            // The index numbers only entries whose url is a reference.
            NonRowKind::Tombstones(facts.tombstones().filter(|url| Reference::parse(url).is_some()).count())
        }
        Ok(_) => NonRowKind::Resource,
        Err(_) => NonRowKind::Faulty,
    })
}

/// Passes a byte range of a file to `feed`, in pieces of at most [`READ_BYTES`].
///
/// # Errors
/// [`PackError`] if the file cannot be read; errors of `feed`.
pub(crate) fn span_pieces(
    source: &StoreFile,
    span: &Range<u64>,
    feed: &mut dyn FnMut(&[u8]) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let (mut offset, mut buffer) = (span.start, Vec::new());
    while offset < span.end {
        let len = (span.end - offset).min(READ_BYTES as u64) as usize;
        feed(source.read(offset, len, &mut buffer)?)?;
        offset += len as u64;
    }
    Ok(())
}

/// The file of faulty lines, created for the first of them.
struct RejectedLines {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl RejectedLines {
    /// Appends a faulty line.
    fn take_line(&mut self, source: &StoreFile, line: &Range<u64>) -> Result<(), PackError> {
        let path = self.path.clone();
        let write = |source| PackError::Write { path: path.clone(), source };
        let file = match &mut self.file {
            Some(file) => file,
            slot => {
                let file = slot.insert(BufWriter::with_capacity(1 << 20, create_private(&self.path).map_err(write)?));
                let mut buffer = Vec::new();
                if line.end - line.start >= 3 && source.read(line.start, 3, &mut buffer)? == BOM {
                    // At the start of the file readers would skip the mark, and the line might parse.
                    file.write_all(b"\n").map_err(write)?;
                }
                file
            }
        };
        span_pieces(source, line, &mut |piece| file.write_all(piece).map_err(write))?;
        file.write_all(b"\n").map_err(write)
    }

    /// Flushes the file, syncs it if `sync` says so, and counts it in `packed`.
    fn finish(self, sync: FileSync, packed: &mut PackReport) -> Result<(), PackError> {
        let Some(file) = self.file else { return Ok(()) };
        let write = |source| PackError::Write { path: self.path.clone(), source };
        let file = file.into_inner().map_err(|error| write(error.into_error()))?;
        if sync == FileSync::Yes {
            file.sync_all().map_err(write)?;
        }
        packed.files += 1;
        packed.file_bytes += file.metadata().map_err(write)?.len();
        Ok(())
    }
}
