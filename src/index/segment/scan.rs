//! Scans ranges of store files, on all threads, into new segments of one container file.
//!
//! Each range becomes segments independently of the others; one writer appends them to the container in order of
//! arrival, and their file and offset give their order in the store. Throughput is bounded by the scanner times the
//! threads; memory by the columns of one segment a thread and a few encoded segments in the channel.

use crate::casts::to_usize;
use crate::codec::compression::{Compression, SeekPoint, UnprovenPolicy};
use crate::codec::decoder::{DecodeError, Decoder};
use crate::error::IndexError;
use crate::extract::fault::FaultKind;
use crate::extract::rules::LineRules;
use crate::ids::FileId;
use crate::index::dir::{BlockWriter, IndexBytes, IndexDir};
use crate::index::meta::SegmentMeta;
use crate::index::segment::line_splitter::{EncodedSegment, LineSplitter, ScanWorker};
use crate::index::segment::reader::Segment;
use crate::index::segment::span::{RangeKind, ScanRange};
use crate::index::store_files::StoreFiles;
use crate::limits::{SCAN_BYTES, SEGMENT_BYTES};
use crate::simd::Kernel;
use crate::store::choices::RowRules;
use crate::store::packed::envelope::is_packed;
use crate::store::packed::frame_reader::{FrameError, FrameReader};
use crate::store::packed::seek_table::SeekTable;
use crate::sys::store_file::{FileStamp, StoreFile};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use memchr::memrchr;
use rayon::prelude::*;

/// Bytes behind which a segment ends even where its range goes on: offsets of rows in it are `u32`. Ranges are cut far
/// shorter; only a foreign packed file with a frame of gigabytes, or a forged record of a snapshot, gets here.
const SEGMENT_SPAN_MAX: u64 = 1 << 31;

/// A new segment, written to the container.
#[derive(Clone, Debug)]
pub(crate) struct WrittenSegment {
    /// The file, among those of the store.
    pub file: FileId,
    /// Offset in the container file.
    pub at: u64,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// xxh3 (64 bit) of the bytes between them.
    pub content: u64,
    /// Whether it is the last line of a plain file, without its newline.
    pub tail: bool,
}

impl WrittenSegment {
    /// Its entry in the index meta, with the number of its container and its first-seen time.
    pub(crate) fn into_entry(self, container: usize, first_seen: Option<i64>) -> SegmentMeta {
        let WrittenSegment { file, at, start, end, content, tail } = self;
        SegmentMeta { file, container, at, start, end, content, tail, first_seen }
    }

    /// Opens a segment that another process has made, once every byte of it is checked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn open_whole(&self, container: &Arc<IndexBytes>) -> Result<Segment, &'static str> {
        let segment = Segment::open(container.clone(), self.at)?;
        let head = segment.head();
        if (head.start, head.end, head.content) != (self.start, self.end, self.content) {
            return Err("it is of other bytes");
        }
        segment.verify_all().map_err(|damaged| damaged.0)?;
        Ok(segment)
    }
}

/// Segments that a scan wrote, and files that it cannot extend later.
#[derive(Default)]
pub(crate) struct ScanResult {
    /// The new segments, in no order.
    pub segments: Vec<WrittenSegment>,
    /// Compressed files that did not end with a whole member and a whole line.
    pub open_ended: Vec<FileId>,
    /// Files that were read by others, with their stamps before that, and whether those were settled.
    pub stamps: Vec<(FileId, FileStamp, bool)>,
}

/// Segments of ranges that others have scanned.
pub(crate) trait SegmentSupply: Sync {
    /// Puts the segments of these ranges, read by these rules, into a container, in the order of the ranges.
    ///
    /// # Errors
    /// [`IndexError::Changed`] when the ranges or rules are not those that were scanned by; what fails otherwise.
    fn put_segments(
        &self,
        files: &StoreFiles,
        ranges: &[ScanRange],
        rules: RowRules,
        container: &mut BlockWriter,
        name: &str,
    ) -> Result<ScanResult, IndexError>;
}

/// Options and counters of a scan.
pub(crate) struct ScanOptions<'a> {
    /// Scanner kernel to extract lines with.
    pub kernel: Kernel,
    /// How strictly resources are checked.
    pub rules: LineRules,
    /// What becomes of rows of a compressed file that are not proven.
    pub unproven: UnprovenPolicy,
    /// Bytes of store files scanned so far.
    pub progress: &'a AtomicU64,
    /// Set by another thread to stop the scan.
    pub cancel: &'a AtomicBool,
}

/// What the writer of a container is told by the scanning threads.
enum ContainerOrder {
    /// Append segments of these files; the flag marks the last line of a plain file, without its newline.
    Append(Vec<(FileId, bool, EncodedSegment)>),
    /// Forget the segments of this file that were appended and begin at this offset or behind it: they held rows that are
    /// not proven. Their bytes stay in the container, and nothing names them.
    Forget(FileId, u64),
}

/// Scans `spans` on the current rayon pool and appends the segments to the container `name`.
///
/// # Errors
/// When a store file cannot be read, the container cannot be written, or `options.cancel` is set.
pub(crate) fn scan(
    files: &StoreFiles,
    spans: &[ScanRange],
    dir: &IndexDir,
    name: &str,
    options: &ScanOptions<'_>,
) -> Result<ScanResult, IndexError> {
    let created = dir.create_blocks(name);
    scan_into(
        files,
        spans,
        created.map_err(|source| IndexError::Write { name: name.to_string(), source })?,
        name,
        options,
    )
}

/// As [`scan`], with the segments appended to `container`, which errors call `name`. On a pool of one thread they are in the
/// order of the ranges.
///
/// # Errors
/// As [`scan`].
pub(crate) fn scan_into(
    files: &StoreFiles,
    spans: &[ScanRange],
    mut container: BlockWriter,
    name: &str,
    options: &ScanOptions<'_>,
) -> Result<ScanResult, IndexError> {
    let failed_write = |source| IndexError::Write { name: name.to_string(), source };
    // Bounded: workers wait for a slow disk instead of filling the memory.
    let (sender, receiver) = crossbeam::channel::bounded::<ContainerOrder>(rayon::current_num_threads());
    // Written buffers go back to be filled again.
    let (recycle, spare) = crossbeam::channel::bounded::<Vec<u8>>(rayon::current_num_threads());
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || -> Result<Vec<WrittenSegment>, IndexError> {
            let mut segments: Vec<WrittenSegment> = Vec::new();
            let mut offset = 0;
            for order in receiver {
                let list = match order {
                    ContainerOrder::Append(list) => list,
                    ContainerOrder::Forget(file, from) => {
                        segments.retain(|segment| segment.file != file || segment.start < from);
                        continue;
                    }
                };
                for (file, tail, encoded) in list {
                    container.write_all(&encoded.bytes).map_err(failed_write)?;
                    let EncodedSegment { bytes, start, end, content } = encoded;
                    segments.push(WrittenSegment { file, at: offset, start, end, content, tail });
                    offset += bytes.len() as u64;
                    let _ = recycle.try_send(bytes);
                }
            }
            container.flush().map_err(failed_write)?;
            Ok(segments)
        });
        let open_ended = batches_of(spans)
            .into_par_iter()
            .map_init(
                || {
                    let outbox = Outbox { sender: sender.clone(), pending: Vec::new(), pending_bytes: 0 };
                    (ScanWorker::new(options.kernel, options.rules, spare.clone()), outbox)
                },
                |(worker, outbox), batch| {
                    let mut open_ended = Vec::new();
                    for span in batch {
                        if !scan_span(files, span, worker, outbox, options)? {
                            open_ended.push(span.file);
                        }
                    }
                    outbox.flush()?;
                    Ok(open_ended)
                },
            )
            .collect::<Result<Vec<Vec<FileId>>, IndexError>>();
        drop(sender);
        // A failed write closes the channel, and workers then fail with `Stopped`: the cause is returned first.
        let segments = writer.join().expect("the writer does not panic")?;
        Ok(ScanResult { segments, open_ended: open_ended?.concat(), stamps: Vec::new() })
    })
}

/// Encoded segments on their way to the writer, small ones several at a time: waking it for each would cost more than
/// scanning them.
struct Outbox {
    sender: crossbeam::channel::Sender<ContainerOrder>,
    pending: Vec<(FileId, bool, EncodedSegment)>,
    pending_bytes: usize,
}

impl Outbox {
    /// Takes a segment.
    fn append(&mut self, file: FileId, tail: bool, encoded: EncodedSegment) -> Result<(), IndexError> {
        self.pending_bytes += encoded.bytes.len();
        self.pending.push((file, tail, encoded));
        if self.pending_bytes < BATCH_BYTES { Ok(()) } else { self.flush() }
    }

    /// Has the writer forget the segments of a file from an offset on.
    fn forget(&mut self, file: FileId, from: u64) -> Result<(), IndexError> {
        self.flush()?;
        self.send(ContainerOrder::Forget(file, from))
    }

    /// Sends what was taken.
    fn flush(&mut self) -> Result<(), IndexError> {
        self.pending_bytes = 0;
        match self.pending.is_empty() {
            true => Ok(()),
            false => {
                let pending = std::mem::take(&mut self.pending);
                self.send(ContainerOrder::Append(pending))
            }
        }
    }

    fn send(&self, order: ContainerOrder) -> Result<(), IndexError> {
        self.sender.send(order).map_err(|_| IndexError::Stopped)
    }
}

/// Bytes of ranges that one thread takes at a time, and of segments that are sent at a time, in bytes.
const BATCH_BYTES: usize = 256 << 10;

/// Divides ranges, in their order, among the threads: large ones one by one, small ones of plain files many at a time.
fn batches_of(spans: &[ScanRange]) -> Vec<&[ScanRange]> {
    let bytes = |span: &ScanRange| match &span.part {
        RangeKind::Plain { range, .. } => range.end - range.start,
        RangeKind::Compressed { .. } | RangeKind::Packed { .. } => BATCH_BYTES as u64,
    };
    let (mut batches, mut first, mut sum) = (Vec::new(), 0, 0);
    for (i, span) in spans.iter().enumerate() {
        sum += bytes(span);
        if sum >= BATCH_BYTES as u64 || i + 1 == spans.len() {
            batches.push(&spans[first..=i]);
            (first, sum) = (i + 1, 0);
        }
    }
    batches
}

/// Scans one range of a store file; whether what is appended to the file later can be scanned by itself.
fn scan_span(
    files: &StoreFiles,
    span: &ScanRange,
    worker: &mut ScanWorker,
    outbox: &mut Outbox,
    options: &ScanOptions<'_>,
) -> Result<bool, IndexError> {
    let source = files.source(span.file)?;
    let tail = matches!(span.part, RangeKind::Plain { tail: true, .. });
    let mut emit = |encoded| outbox.append(span.file, tail, encoded);
    match &span.part {
        RangeKind::Plain { range, .. } => {
            scan_plain(source, range.clone(), worker, options, &mut emit)?;
            Ok(true)
        }
        RangeKind::Compressed { compression, from, cuts, to } => {
            let ends = (&cuts[..], *to);
            let end = scan_compressed(source, *compression, *from, ends, worker, options, &mut emit)?;
            if let ScanEnd::Unproven(proven) = end {
                if to.is_some() {
                    // What is scanned again up to a point was proven before.
                    return Err(changed_meanwhile(source));
                }
                outbox.forget(span.file, from.uncompressed)?;
                let mut emit = |encoded| outbox.append(span.file, tail, encoded);
                scan_proven(source, *compression, *from..proven, worker, options, &mut emit)?;
            }
            Ok(end == ScanEnd::Whole)
        }
        RangeKind::Packed { table, frames } => {
            scan_packed(source, table, frames.clone(), worker, options, &mut emit)?;
            // Bytes behind the table would make another file of it: it is never extended.
            Ok(false)
        }
    }
}

/// Receives each encoded segment of a range.
type SegmentSink<'a> = &'a mut dyn FnMut(EncodedSegment) -> Result<(), IndexError>;

/// Scans a byte range of a plain file.
fn scan_plain(
    source: &StoreFile,
    range: Range<u64>,
    worker: &mut ScanWorker,
    options: &ScanOptions<'_>,
    emit: SegmentSink<'_>,
) -> Result<(), IndexError> {
    // Kept from file to file, and no longer than they need: filling it anew costs more than a small file.
    let mut buffer = std::mem::take(&mut worker.buffer);
    let buffer_len = buffer.len().max(to_usize((range.end - range.start).min(2 * SCAN_BYTES as u64)));
    buffer.resize(buffer_len, 0);
    let mut lines = LineSplitter::new(worker, range.start);
    // Read, not mapped: a copy that stays in the second-level cache costs less than page faults. A line that a piece
    // cuts is moved to the front of the next piece.
    let mut carried = 0;
    let mut position = range.start;
    while position < range.end {
        if options.cancel.load(Relaxed) {
            return Err(IndexError::Cancelled);
        }
        let len = to_usize((range.end - position).min(SCAN_BYTES as u64));
        source.pread_into(position, &mut buffer[carried..carried + len])?;
        position += len as u64;
        let filled = carried + len;
        let lines_end = match memrchr(b'\n', &buffer[carried..filled]) {
            Some(newline) if position < range.end => carried + newline + 1,
            // No line ends in this piece, or the range does: the line is fed in pieces.
            _ => filled,
        };
        lines.push(&buffer[..lines_end], SEGMENT_SPAN_MAX);
        buffer.copy_within(lines_end..filled, 0);
        carried = filled - lines_end;
        options.progress.fetch_add(len as u64, Relaxed);
        for encoded in lines.take_done() {
            emit(encoded)?;
        }
    }
    let encoded = lines.finish();
    worker.buffer = buffer;
    encoded.into_iter().try_for_each(emit)
}

/// How the scan of a compressed file ended.
#[derive(Clone, Copy, PartialEq)]
enum ScanEnd {
    /// With a whole member and a whole line: what is appended can be scanned by itself.
    Whole,
    /// In any other way that is not to be mended.
    Open,
    /// In a member that is not proven, which begins here: rows of it may have been emitted, and the file is to be scanned
    /// again up to this point.
    Unproven(SeekPoint),
}

/// Scans a compressed file from a seek point to its end, or to the second of `ends`. At each of the first of `ends` a
/// segment ends.
fn scan_compressed(
    source: &StoreFile,
    compression: Compression,
    from: SeekPoint,
    (mut cuts, to): (&[u64], Option<u64>),
    worker: &mut ScanWorker,
    options: &ScanOptions<'_>,
    emit: SegmentSink<'_>,
) -> Result<ScanEnd, IndexError> {
    let mut decoder = match Decoder::new(source, compression, from) {
        Ok(decoder) => decoder,
        Err(DecodeError::Source(error)) => return Err(error.into()),
        Err(_) => unreachable!("only reading fails before the first piece"),
    };
    let mut restarts = Vec::new();
    let mut lines = LineSplitter::new(worker, from.uncompressed);
    lines.restart(from.uncompressed, from.compressed);
    let mut compressed = from.compressed;
    loop {
        if options.cancel.load(Relaxed) {
            return Err(IndexError::Cancelled);
        }
        match decoder.piece(|restart| restarts.push(restart)) {
            Ok(Some(piece)) => {
                let left = to.map_or(u64::MAX, |to| to.saturating_sub(lines.position()));
                lines.push_cut(&piece[..to_usize(left.min(piece.len() as u64))], &mut cuts, SEGMENT_BYTES);
            }
            Ok(None) => break,
            Err(DecodeError::Source(error)) => return Err(error.into()),
            Err(_) if options.unproven == UnprovenPolicy::Fault => return Ok(ScanEnd::Unproven(decoder.proven())),
            Err(_) => {
                lines.break_off_line(FaultKind::Damaged).into_iter().try_for_each(emit)?;
                return Ok(ScanEnd::Open);
            }
        }
        for restart in restarts.drain(..) {
            lines.restart(restart.uncompressed, restart.compressed);
        }
        let now = decoder.compressed();
        options.progress.fetch_add(now - compressed, Relaxed);
        compressed = now;
        for encoded in lines.take_done() {
            emit(encoded)?;
        }
        if to.is_some_and(|to| lines.position() >= to) {
            break;
        }
    }
    let mut is_whole = !lines.inside_line();
    if compression != Compression::None && from.compressed == 0 && is_packed(source)? {
        // A packed file is scanned here only if its table cannot be used.
        lines.damaged_table();
        is_whole = false;
    }
    lines.finish().into_iter().try_for_each(emit)?;
    Ok(if is_whole { ScanEnd::Whole } else { ScanEnd::Open })
}

/// The error of a store file that is not what it was a moment ago.
fn changed_meanwhile(source: &StoreFile) -> IndexError {
    IndexError::Changed {
        path: source.path().to_path_buf(),
        reason: "was written while it was read; replace store files by rename, then run the same command again".into(),
    }
}

/// Scans a compressed file again whose member at the end of `range` is not proven: only lines that end before it are
/// rows, the rest that can be decoded is one fault.
///
/// # Errors
/// [`IndexError::Changed`] if the file is not what it was at the scan before; else as [`scan`].
fn scan_proven(
    source: &StoreFile,
    compression: Compression,
    range: Range<SeekPoint>,
    worker: &mut ScanWorker,
    options: &ScanOptions<'_>,
    emit: SegmentSink<'_>,
) -> Result<(), IndexError> {
    let changed = || changed_meanwhile(source);
    let Range { start: from, end: proven } = range;
    let mut decoder = Decoder::new(source, compression, from).map_err(|_| changed())?;
    let mut lines = LineSplitter::new(worker, from.uncompressed);
    let mut restarts = vec![from];
    let mut position = from.uncompressed;
    let is_broken = loop {
        if options.cancel.load(Relaxed) {
            return Err(IndexError::Cancelled);
        }
        let piece = match decoder.piece(|restart| restarts.push(restart)) {
            Ok(Some(piece)) => piece,
            Ok(None) => break false,
            Err(DecodeError::Source(error)) => return Err(error.into()),
            Err(_) => break true,
        };
        let own = to_usize((proven.uncompressed - position.min(proven.uncompressed)).min(piece.len() as u64));
        let (own, unproven) = piece.split_at(own);
        if !own.is_empty() {
            lines.push(own, SEGMENT_BYTES);
        }
        lines.push_unproven(unproven);
        position += piece.len() as u64;
        for restart in restarts.drain(..).filter(|restart| restart.compressed < proven.compressed) {
            lines.restart(restart.uncompressed, restart.compressed);
        }
        for encoded in lines.take_done() {
            emit(encoded)?;
        }
    };
    if !is_broken || decoder.proven() != proven {
        return Err(changed());
    }
    // The message about the fault names the last seek point of the file.
    lines.restart(proven.uncompressed, proven.compressed);
    lines.break_off_unproven(proven).into_iter().try_for_each(emit)
}

/// Scans frames of a packed file. A damaged one is one fault; the table gives the offset of the next.
fn scan_packed(
    source: &StoreFile,
    table: &SeekTable,
    frames: Range<usize>,
    worker: &mut ScanWorker,
    options: &ScanOptions<'_>,
    emit: SegmentSink<'_>,
) -> Result<(), IndexError> {
    if frames.is_empty() {
        return Ok(());
    }
    let mut lines = LineSplitter::new(worker, table.frame(frames.start).uncompressed);
    let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
    for i in frames {
        if options.cancel.load(Relaxed) {
            return Err(IndexError::Cancelled);
        }
        let frame = table.frame(i);
        lines.frame(table, i);
        match reader.feed(source, &frame, &mut buffer, &mut |piece| lines.push(piece, SEGMENT_SPAN_MAX)) {
            Ok(()) => {}
            Err(FrameError::Damaged(_)) => lines.damaged_frame(frame.uncompressed_len, frame.rows),
            Err(FrameError::Source(error)) => return Err(error.into()),
        }
        options.progress.fetch_add(frame.compressed_len, Relaxed);
        for encoded in lines.take_done() {
            emit(encoded)?;
        }
    }
    lines.finish().into_iter().try_for_each(emit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decoder::tests::{gzip, zstd};
    use crate::fhir::instant::Instant;
    use crate::index::snapshot::Index;
    use crate::limits::SEGMENT_ROWS_MAX;
    use crate::progress::Progress;
    use crate::store::{Store, StoreOptions};

    /// So many Patients, one a line.
    fn patients(numbers: Range<usize>) -> Vec<u8> {
        numbers.flat_map(|n| format!("{{\"resourceType\":\"Patient\",\"id\":\"{n}\"}}\n").into_bytes()).collect()
    }

    /// A member whose checksum does not hold, though its data can be decoded.
    fn unproven(compression: Compression, text: &[u8]) -> Vec<u8> {
        let mut member = if compression == Compression::Gzip { gzip(text) } else { zstd(text) };
        // gzip: checksum, then length; zstd: the checksum ends the frame.
        let at = member.len() - if compression == Compression::Gzip { 8 } else { 4 };
        member[at] ^= 1;
        member
    }

    /// The index of a store, made under a policy.
    fn index_of(root: &std::path::Path, policy: Option<UnprovenPolicy>) -> Index {
        let mut options = StoreOptions::default().remake(policy.is_some());
        options.choices.unproven = policy;
        Store::open_with(root, options).unwrap().index(&Progress::default()).unwrap().0
    }

    /// Kind, offset in the file, length and `at` of each fault of an index of one file.
    fn faults(index: &Index) -> Vec<(FaultKind, u64, u64, u32)> {
        let mut found = Vec::new();
        for segment in index.segment_ids() {
            let start = index.entry(segment).start;
            for fault in index.segment(segment).columns().faults() {
                found.push((fault.kind, start + u64::from(fault.offset), fault.length.into(), fault.at));
            }
        }
        found
    }

    /// Only lines that end before the member are rows; the fault covers the rest, and the last seek point is the
    /// member's. Under the other policy its rows are there, and a record is reopened under its own.
    #[test]
    fn rows_of_a_member_that_is_not_proven_are_one_fault() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let dir = tempfile::tempdir().unwrap();
            let text = patients(0..30);
            // The line of number 10 begins in the proven member and ends in the other.
            let (cut, line) = (patients(0..10).len() + 5, patients(0..10).len() as u64);
            let first = if compression == Compression::Gzip { gzip(&text[..cut]) } else { zstd(&text[..cut]) };
            let name = format!("p.ndjson{}", compression.suffix());
            let tail = unproven(compression, &text[cut..]);
            std::fs::write(dir.path().join(&name), [&first[..], &tail[..], &first[..]].concat()).unwrap();
            let index = index_of(dir.path(), None);
            assert_eq!(index.rows(), 10);
            let length = text.len() as u64 - line;
            assert_eq!(faults(&index), [(FaultKind::Unproven, line, length, 5)]);
            let member = index.restart_before(FileId(0), line + 5);
            assert_eq!(member, SeekPoint { compressed: first.len() as u64, uncompressed: cut as u64 });
            assert!(!index.generation().files[0].appendable);

            let as_of = Instant::parse("2026-01-01T00:00:00Z").unwrap();
            let record = Store::open(dir.path()).unwrap().snapshot(as_of).unwrap().record();
            let index = index_of(dir.path(), Some(UnprovenPolicy::Export));
            assert_eq!((index.rows(), faults(&index)[0].0), (30, FaultKind::Damaged));
            let store = Store::open(dir.path()).unwrap();
            assert_eq!(store.reopen_snapshot(&record, &Progress::default()).unwrap().0.index().rows(), 10);
            assert_eq!(index_of(dir.path(), None).rows(), 30, "the policy is kept");
            assert_eq!(index_of(dir.path(), Some(UnprovenPolicy::Fault)).rows(), 10);
        }
    }

    /// Segments that were written before the damage came to light are forgotten.
    #[test]
    fn segments_of_a_long_member_are_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let count = SEGMENT_ROWS_MAX + 10;
        let (first, second) = (patients(0..count), patients(count..2 * count + 7));
        let file = [gzip(&first), unproven(Compression::Gzip, &second)].concat();
        std::fs::write(dir.path().join("p.ndjson.gz"), file).unwrap();
        let index = index_of(dir.path(), None);
        assert_eq!(index.rows(), count);
        let end = (first.len() + second.len()) as u64;
        assert_eq!(faults(&index), [(FaultKind::Unproven, first.len() as u64, second.len() as u64, 0)]);
        let segments = &index.generation().segments;
        assert!(segments.windows(2).all(|pair| pair[0].end == pair[1].start), "{segments:?}");
        assert_eq!((segments[0].start, segments.last().unwrap().end), (0, end));
    }
}
