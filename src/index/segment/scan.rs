//! Scans the parts of a store that no segment covers yet, on all threads, into new segments.
//!
//! Workers are pure functions from a span to encoded segments; one writer appends them to a container file in whatever
//! order they come, and their place in the store, not their arrival, gives their order. Speed of light: the scanner's
//! bytes per second times the threads; memory: one segment's columns a thread, and a few encoded ones on their way.

use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::{DecodeError, Decoder};
use crate::error::IndexError;
use crate::extract::Validate;
use crate::extract::extractor::Extractor;
use crate::extract::fault::FaultKind;
use crate::index::dir::IndexDir;
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

/// A new segment, written to the container.
#[derive(Clone, Debug)]
pub(crate) struct WrittenSegment {
    /// Index of the file among the store's files.
    pub file: usize,
    /// Offset in the container.
    pub at: u64,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// Hash of the bytes between them.
    pub content: u64,
    /// Whether it is a tail.
    pub tail: bool,
}

/// Result of a scan.
#[derive(Default)]
pub(crate) struct ScanResult {
    /// The new segments, in no order.
    pub segments: Vec<WrittenSegment>,
    /// Compressed files (indices among the store's files) that did not end with a whole member and a whole line.
    pub open_ended: Vec<usize>,
}

/// How a scan is run.
pub(crate) struct ScanOptions<'a> {
    /// Scanner kernel.
    pub kernel: Kernel,
    /// What is checked.
    pub validate: Validate,
    /// Bytes of store files scanned so far.
    pub progress: &'a AtomicU64,
    /// Set from outside to stop.
    pub cancel: &'a AtomicBool,
}

/// Scans `spans` on the current rayon pool and appends the segments to the container `name`.
///
/// # Errors
/// The first failure to read the store or write the index, or the wish to stop.
pub(crate) fn scan(
    files: &StoreFiles,
    spans: &[ScanRange],
    home: &IndexDir,
    name: &str,
    options: &ScanOptions<'_>,
) -> Result<ScanResult, IndexError> {
    let failed_write = |source| IndexError::Write { name: name.to_string(), source };
    let mut container = home.create_blocks(name).map_err(failed_write)?;
    // Bounded: a slow disk holds the workers back instead of filling the memory.
    let (sender, receiver) = crossbeam_channel::bounded::<(usize, bool, EncodedSegment)>(rayon::current_num_threads());
    // Written buffers go back to be filled again.
    let (give_back, spare) = crossbeam_channel::bounded::<Vec<u8>>(rayon::current_num_threads());
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || -> Result<Vec<WrittenSegment>, IndexError> {
            let mut segments = Vec::new();
            let mut offset = 0;
            for (file, tail, encoded) in receiver {
                container.write_all(&encoded.bytes).map_err(failed_write)?;
                let EncodedSegment { bytes, start, end, content } = encoded;
                segments.push(WrittenSegment { file, at: offset, start, end, content, tail });
                offset += bytes.len() as u64;
                let _ = give_back.try_send(bytes);
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
                |(tools, sender), span| {
                    let source = files.source(span.file)?;
                    let tail = matches!(span.part, RangeKind::Plain { tail: true, .. });
                    let mut emit = |encoded| sender.send((span.file, tail, encoded)).map_err(|_| IndexError::Stopped);
                    match &span.part {
                        RangeKind::Plain { range, .. } => {
                            scan_plain(source, range.clone(), tools, options, &mut emit).map(|()| None)
                        }
                        RangeKind::Compressed { compression, from } => {
                            let closed = scan_compressed(source, *compression, *from, tools, options, &mut emit)?;
                            Ok((!closed).then_some(span.file))
                        }
                        RangeKind::Packed { table, frames } => {
                            scan_packed(source, table, frames.clone(), tools, options, &mut emit)?;
                            // What is put behind a table makes another file of it.
                            Ok(Some(span.file))
                        }
                    }
                },
            )
            .filter_map(Result::transpose)
            .collect::<Result<Vec<usize>, IndexError>>();
        drop(sender);
        // A failed write closes the channel, and the workers then stop with `Stopped`: the cause goes first.
        let segments = writer.join().expect("the writer does not panic")?;
        Ok(ScanResult { segments, open_ended: open_ended? })
    })
}

type SegmentSink<'a> = &'a mut dyn FnMut(EncodedSegment) -> Result<(), IndexError>;

fn scan_plain(
    source: &StoreFile,
    range: Range<u64>,
    tools: &mut ScanWorker,
    options: &ScanOptions<'_>,
    emit: SegmentSink<'_>,
) -> Result<(), IndexError> {
    let mut lines = LineSplitter::new(tools, range.start);
    // Read rather than mapped: one copy that stays in the second-level cache costs less than faulting pages in, and the
    // scan then waits for no memory. A line that a piece cuts is moved to the front of the next.
    let mut buffer = vec![0; 2 * SCAN_BYTES];
    let mut kept = 0;
    let mut position = range.start;
    while position < range.end {
        if options.cancel.load(Relaxed) {
            return Err(IndexError::Cancelled);
        }
        let len = (range.end - position).min(SCAN_BYTES as u64) as usize;
        source.pread_into(position, &mut buffer[kept..kept + len])?;
        position += len as u64;
        let held = kept + len;
        let whole = match memrchr(b'\n', &buffer[kept..held]) {
            Some(newline) if position < range.end => kept + newline + 1,
            // No line ends here, or the last does: the line goes through the scanner in pieces.
            _ => held,
        };
        lines.push(&buffer[..whole], u64::MAX);
        buffer.copy_within(whole..held, 0);
        kept = held - whole;
        options.progress.fetch_add(len as u64, Relaxed);
        for encoded in lines.take_done() {
            emit(encoded)?;
        }
    }
    lines.finish().into_iter().try_for_each(emit)
}

/// Whether the file ended with a whole member and a whole line.
fn scan_compressed(
    source: &StoreFile,
    compression: Compression,
    from: SeekPoint,
    tools: &mut ScanWorker,
    options: &ScanOptions<'_>,
    emit: SegmentSink<'_>,
) -> Result<bool, IndexError> {
    let mut decoder = match Decoder::new(source, compression, from) {
        Ok(decoder) => decoder,
        Err(DecodeError::Source(error)) => return Err(error.into()),
        Err(_) => unreachable!("only reading fails before the first piece"),
    };
    let mut restarts = Vec::new();
    let mut lines = LineSplitter::new(tools, from.uncompressed);
    lines.restart(from.uncompressed, from.compressed);
    let mut compressed = from.compressed;
    loop {
        if options.cancel.load(Relaxed) {
            return Err(IndexError::Cancelled);
        }
        match decoder.piece(|restart| restarts.push(restart)) {
            Ok(Some(piece)) => lines.push(piece, SEGMENT_BYTES),
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
    }
    let mut closed = !lines.inside_line();
    if compression == Compression::Zstd && from.compressed == 0 && is_packed(source)? {
        // It is read here because its table could not be.
        lines.damaged_table();
        closed = false;
    }
    lines.finish().into_iter().try_for_each(emit)?;
    Ok(closed)
}

/// Frames of a packed file. One that is damaged is one fault, and the next one is found by the table.
fn scan_packed(
    source: &StoreFile,
    table: &SeekTable,
    frames: Range<usize>,
    tools: &mut ScanWorker,
    options: &ScanOptions<'_>,
    emit: SegmentSink<'_>,
) -> Result<(), IndexError> {
    if frames.is_empty() {
        return Ok(());
    }
    let mut lines = LineSplitter::new(tools, table.frame(frames.start).uncompressed);
    let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
    for i in frames {
        if options.cancel.load(Relaxed) {
            return Err(IndexError::Cancelled);
        }
        let frame = table.frame(i);
        lines.frame(table, i);
        match reader.feed(source, &frame, &mut buffer, &mut |piece| lines.push(piece, u64::MAX)) {
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
