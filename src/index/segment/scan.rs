//! Scans ranges of store files, on all threads, into new segments of one container file.
//!
//! Each range becomes segments independently of the others; one writer appends them to the container in order of
//! arrival, and their file and offset give their order in the store. Throughput is bounded by the scanner times the
//! threads; memory by the columns of one segment a thread and a few encoded segments in the channel.

use crate::casts::to_usize;
use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::{DecodeError, Decoder};
use crate::error::IndexError;
use crate::extract::Validate;
use crate::extract::extractor::Extractor;
use crate::extract::fault::FaultKind;
use crate::index::dir::IndexDir;
use crate::index::meta::SegmentMeta;
use crate::index::segment::line_splitter::{EncodedSegment, LineSplitter, ScanWorker};
use crate::index::segment::span::{RangeKind, ScanRange};
use crate::index::store_files::StoreFiles;
use crate::limits::{SCAN_BYTES, SEGMENT_BYTES};
use crate::simd::Kernel;
use crate::store::packed::frame_reader::{FrameError, FrameReader};
use crate::store::packed::seek_table::{SeekTable, is_packed};
use crate::sys::store_file::StoreFile;
use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use memchr::memrchr;
use rayon::prelude::*;

/// Bytes behind which a segment ends even where its range goes on: offsets of rows in it are `u32`. Ranges are cut far
/// shorter; only a foreign packed file with a frame of gigabytes, or a forged record of a snapshot, gets here.
const SEGMENT_SPAN_MAX: u64 = 1 << 31;

/// A new segment, written to the container.
#[derive(Clone, Debug)]
pub(crate) struct WrittenSegment {
    /// Index of the file among the store's files.
    pub file: usize,
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
}

/// Segments that a scan wrote, and files that it cannot extend later.
#[derive(Default)]
pub(crate) struct ScanResult {
    /// The new segments, in no order.
    pub segments: Vec<WrittenSegment>,
    /// Compressed files (indices among the store's files) that did not end with a whole member and a whole line.
    pub open_ended: Vec<usize>,
}

/// Options and counters of a scan.
pub(crate) struct ScanOptions<'a> {
    /// Scanner kernel to extract lines with.
    pub kernel: Kernel,
    /// How strictly resources are checked.
    pub validate: Validate,
    /// Bytes of store files scanned so far.
    pub progress: &'a AtomicU64,
    /// Set by another thread to stop the scan.
    pub cancel: &'a AtomicBool,
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
    let failed_write = |source| IndexError::Write { name: name.to_string(), source };
    let mut container = dir.create_blocks(name).map_err(failed_write)?;
    // Bounded: workers wait for a slow disk instead of filling the memory.
    let (sender, receiver) = crossbeam::channel::bounded::<(usize, bool, EncodedSegment)>(rayon::current_num_threads());
    // Written buffers go back to be filled again.
    let (recycle, spare) = crossbeam::channel::bounded::<Vec<u8>>(rayon::current_num_threads());
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || -> Result<Vec<WrittenSegment>, IndexError> {
            let mut segments = Vec::new();
            let mut offset = 0;
            for (file, tail, encoded) in receiver {
                container.write_all(&encoded.bytes).map_err(failed_write)?;
                let EncodedSegment { bytes, start, end, content } = encoded;
                segments.push(WrittenSegment { file, at: offset, start, end, content, tail });
                offset += bytes.len() as u64;
                let _ = recycle.try_send(bytes);
            }
            container.flush().map_err(failed_write)?;
            Ok(segments)
        });
        let open_ended = spans
            .par_iter()
            .map_init(
                || {
                    let extractor = Extractor::new(options.kernel, options.validate);
                    (ScanWorker::new(extractor, spare.clone()), sender.clone())
                },
                |(worker, sender), span| {
                    let source = files.source(span.file)?;
                    let tail = matches!(span.part, RangeKind::Plain { tail: true, .. });
                    let mut emit = |encoded| sender.send((span.file, tail, encoded)).map_err(|_| IndexError::Stopped);
                    match &span.part {
                        RangeKind::Plain { range, .. } => {
                            scan_plain(source, range.clone(), worker, options, &mut emit).map(|()| None)
                        }
                        RangeKind::Compressed { compression, from, cuts, to } => {
                            let ends = (&cuts[..], *to);
                            let closed =
                                scan_compressed(source, *compression, *from, ends, worker, options, &mut emit)?;
                            Ok((!closed).then_some(span.file))
                        }
                        RangeKind::Packed { table, frames } => {
                            scan_packed(source, table, frames.clone(), worker, options, &mut emit)?;
                            // Bytes behind the table would make another file of it: it is never extended.
                            Ok(Some(span.file))
                        }
                    }
                },
            )
            .filter_map(Result::transpose)
            .collect::<Result<Vec<usize>, IndexError>>();
        drop(sender);
        // A failed write closes the channel, and workers then fail with `Stopped`: the cause is returned first.
        let segments = writer.join().expect("the writer does not panic")?;
        Ok(ScanResult { segments, open_ended: open_ended? })
    })
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
    let mut lines = LineSplitter::new(worker, range.start);
    // Read, not mapped: a copy that stays in the second-level cache costs less than page faults. A line that a piece
    // cuts is moved to the front of the next piece.
    let mut buffer = vec![0; 2 * SCAN_BYTES];
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
    lines.finish().into_iter().try_for_each(emit)
}

/// Scans a compressed file from a seek point to its end, or to the second of `ends`; whether it ended with a whole member
/// and a whole line. At each of the first of `ends` a segment ends.
fn scan_compressed(
    source: &StoreFile,
    compression: Compression,
    from: SeekPoint,
    (mut cuts, to): (&[u64], Option<u64>),
    worker: &mut ScanWorker,
    options: &ScanOptions<'_>,
    emit: SegmentSink<'_>,
) -> Result<bool, IndexError> {
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
            Err(_) => {
                lines.break_off_line(FaultKind::Damaged).into_iter().try_for_each(emit)?;
                return Ok(false);
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
    let mut closed = !lines.inside_line();
    if compression == Compression::Zstd && from.compressed == 0 && is_packed(source)? {
        // A packed file is scanned here only if its table cannot be used.
        lines.damaged_table();
        closed = false;
    }
    lines.finish().into_iter().try_for_each(emit)?;
    Ok(closed)
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
