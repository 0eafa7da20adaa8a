//! The lines that the index does not place: deletions, whose lines stay as they are, and faults, which go to
//! `rejected.ndjson` as they are.
//!
//! They stand in the gaps between rows. Only segments that count such lines are looked into, and each line found is read
//! once more to tell which it is.

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

/// Name of the file of lines that are no resources. They stay faults there.
pub(crate) const REJECTED: &str = "rejected.ndjson";
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A line of DELETE entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TombstoneLine {
    /// Segment that holds it.
    pub segment: usize,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// Bytes without the line's end.
    pub length: u64,
    /// Its first DELETE entry, numbered in the segment.
    pub first: usize,
    /// Its DELETE entries.
    pub count: usize,
}

/// Finds the lines of DELETE entries and copies the faulty lines; counts what leaves besides.
///
/// # Errors
/// When the store cannot be read or the file not be written.
pub(crate) fn write_non_rows(
    snapshot: &Snapshot,
    rows: &mut RowFetcher<'_>,
    kernel: Kernel,
    (directory, sync): (&Path, FileSync),
    progress: &Progress,
    packed: &mut PackReport,
) -> Result<Vec<TombstoneLine>, PackError> {
    let index = snapshot.index();
    let walked = |segment: usize| {
        let head = index.segments()[segment].head();
        head.faulty + head.tombstone_lines > 0
    };
    rows.decode(&walked, progress)?;
    let mut extractor = Extractor::new(kernel, index.generation().validate);
    let mut rejected = RejectedLines { path: directory.join(REJECTED), file: None };
    let mut found = Vec::new();
    for segment in snapshot.segments() {
        let head = index.segments()[segment].head();
        packed.lines += head.lines;
        packed.blank += head.blank;
        damage_error(snapshot, segment, packed);
        if !walked(segment) {
            continue;
        }
        if progress.cancel.load(Relaxed) {
            return Err(IndexError::Cancelled.into());
        }
        let source = rows.source(index.entry(segment).file)?;
        let mut tombstone = 0;
        for gap in non_row_lines(snapshot, segment, source)? {
            each_non_row_line(source, gap, &mut |line| {
                match read(source, &line, &mut extractor)? {
                    NonRowKind::Blank | NonRowKind::Resource => {}
                    NonRowKind::Faulty => {
                        rejected.take_line(source, &line)?;
                        packed.rejected += 1;
                    }
                    NonRowKind::Tombstones(count) => {
                        let (start, length) = (line.start, line.end - line.start);
                        found.push(TombstoneLine { segment, start, length, first: tombstone, count });
                        tombstone += count;
                    }
                }
                Ok(())
            })?;
        }
    }
    rejected.finish(sync, packed)?;
    Ok(found)
}

/// Counts the places at which a compressed file is damaged, and tells where the first of them are. Something was lost
/// there, or may have been: of a file that was cut off behind a line nobody can know.
fn damage_error(snapshot: &Snapshot, segment: usize, packed: &mut PackReport) {
    let index = snapshot.index();
    let (entry, columns) = (index.entry(segment), index.segments()[segment].columns());
    let kinds = [FaultKind::Damaged, FaultKind::DamagedFrame, FaultKind::DamagedTable];
    let count: u64 = kinds.iter().map(|kind| columns.fault_count[*kind as usize]).sum();
    packed.damaged += count;
    if count == 0 {
        return;
    }
    let room = PACK_DAMAGE_TOLD_MAX.saturating_sub(packed.damage.len());
    let name = index.file_name(entry.file);
    let reported = columns.faults().filter(|fault| kinds.contains(&fault.kind)).map(|fault| {
        let start = entry.start + u64::from(fault.offset);
        let frame = match fault.kind {
            FaultKind::DamagedFrame => {
                format!(", frame at byte {} of the file", index.restart_before(entry.file, start).compressed)
            }
            _ => String::new(),
        };
        format!("{name}: byte {start}{frame}: {}", fault.kind)
    });
    packed.damage.extend(reported.take(room));
}

/// The spans of a segment between its rows and their line ends, damaged frames left out.
fn non_row_lines(snapshot: &Snapshot, segment: usize, source: &StoreFile) -> Result<Vec<Range<u64>>, PackError> {
    let index = snapshot.index();
    let (entry, columns) = (index.entry(segment), index.segments()[segment].columns());
    let mut taken: Vec<Range<u64>> = (0..columns.rows()).map(|row| row_range(index, segment, row)).collect();
    let lost = columns.faults().filter(|fault| fault.kind == FaultKind::DamagedFrame);
    let lost: Vec<Range<u64>> = lost
        .map(|fault| {
            entry.start + u64::from(fault.offset)..entry.start + u64::from(fault.offset) + u64::from(fault.length)
        })
        .collect();
    taken.extend_from_slice(&lost);
    taken.sort_by_key(|range| range.start);
    let mut gaps = Vec::new();
    let mut buffer = Vec::new();
    let mut position = entry.start;
    let end = entry.end.min(source.len());
    if position == 0 && end >= 3 && source.read(0, 3, &mut buffer)? == BOM {
        position = 3;
    }
    for range in taken {
        if position < range.start {
            gaps.push(position..range.start.min(end));
        }
        position = range.end;
        if lost.binary_search_by_key(&range.start, |lost| lost.start).is_err() && position < end {
            // The line's end, one byte or two.
            position += if source.read(position, 1, &mut buffer)? == b"\r" { 2 } else { 1 };
        }
    }
    if position < end {
        gaps.push(position..end);
    }
    Ok(gaps)
}

/// Calls `visit` with each line of a span, without its newline and one carriage return.
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

enum NonRowKind {
    Blank,
    /// A line that was torn behind its last byte: it cannot be known to be whole, and cannot be kept as a fault.
    Resource,
    Faulty,
    Tombstones(usize),
}

fn read(source: &StoreFile, line: &Range<u64>, extractor: &mut Extractor) -> Result<NonRowKind, PackError> {
    if line.end - line.start > ROW_BYTES_MAX {
        return Ok(NonRowKind::Faulty);
    }
    let mut blank = true;
    extractor.begin();
    pieces(source, line, &mut |piece| {
        blank = blank && piece.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        extractor.feed(piece);
        Ok(())
    })?;
    Ok(match extractor.finish() {
        _ if blank => NonRowKind::Blank,
        Ok(facts) if facts.content == Content::Tombstones => {
            // As the index counts them.
            NonRowKind::Tombstones(facts.tombstones().filter(|url| Reference::parse(url).is_some()).count())
        }
        Ok(_) => NonRowKind::Resource,
        Err(_) => NonRowKind::Faulty,
    })
}

/// Passes a span of a file on, in pieces.
pub(crate) fn pieces(
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

/// The file of rejected lines; made when the first one comes.
struct RejectedLines {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl RejectedLines {
    fn take_line(&mut self, source: &StoreFile, line: &Range<u64>) -> Result<(), PackError> {
        let path = self.path.clone();
        let write = |source| PackError::Write { path: path.clone(), source };
        let file = match &mut self.file {
            Some(file) => file,
            slot => {
                let file = slot.insert(BufWriter::with_capacity(1 << 20, create_private(&self.path).map_err(write)?));
                let mut buffer = Vec::new();
                if line.end - line.start >= 3 && source.read(line.start, 3, &mut buffer)? == BOM {
                    // At the start of a file it would be passed by, and the line be a fault no more.
                    file.write_all(b"\n").map_err(write)?;
                }
                file
            }
        };
        pieces(source, line, &mut |piece| file.write_all(piece).map_err(write))?;
        file.write_all(b"\n").map_err(write)
    }

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
