//! Cuts store files into ranges to scan, at lines, members or frames, so that several threads can scan one file.

use memchr::memchr;
use memchr::memrchr;
use std::ops::Range;
use std::sync::Arc;

use crate::casts::to_usize;
use crate::codec::compression::{Compression, SeekPoint};
use crate::ids::FileId;
use crate::limits::SEGMENT_BYTES;
use crate::store::packed::seek_table::{SeekTable, TableError};
use crate::sys::store_file::{StoreFile, StoreFileError};

/// A range of a store file to scan into segments.
#[derive(Clone, Debug)]
pub(crate) struct ScanRange {
    /// The file, among those of the store.
    pub file: FileId,
    /// The range of the file, by its compression.
    pub part: RangeKind,
}

/// The range of a file that one worker scans.
#[derive(Clone, Debug)]
pub(crate) enum RangeKind {
    /// Bytes of a plain file, from line start to line end; the tail has no newline yet.
    Plain {
        /// Offsets in the file.
        range: Range<u64>,
        /// Whether it is the last line of the file, without a newline.
        tail: bool,
    },
    /// A compressed file from a seek point on.
    Compressed {
        /// Compression of the file, gzip or zstd.
        compression: Compression,
        /// Seek point at which decoding begins.
        from: SeekPoint,
        /// Line ends at which a segment ends, uncompressed and ascending.
        cuts: Vec<u64>,
        /// Line end at which the range ends, uncompressed; `None` for the end of the file.
        to: Option<u64>,
    },
    /// Frames of a packed file.
    Packed {
        /// Seek table of the file.
        table: Arc<SeekTable>,
        /// Indices of the frames in the table.
        frames: Range<usize>,
    },
}

impl RangeKind {
    /// Bytes on disk that the range covers, for the progress.
    pub(crate) fn file_bytes(&self, source: &StoreFile) -> u64 {
        match self {
            RangeKind::Plain { range, .. } => range.end - range.start,
            RangeKind::Compressed { from, .. } => source.len() - from.compressed,
            RangeKind::Packed { table, frames } => frames.clone().map(|frame| table.frame(frame).compressed_len).sum(),
        }
    }
}

/// Cuts `range` of a plain file at line ends into ranges of about [`SEGMENT_BYTES`]; a last line without newline is a
/// range of its own. Reads only the bytes around the cuts.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn plain_spans(
    file: FileId,
    source: &StoreFile,
    range: Range<u64>,
) -> Result<Vec<ScanRange>, StoreFileError> {
    let mut spans = Vec::new();
    let lines_end = match last_newline(source, range.clone())? {
        Some(position) => position + 1,
        None => range.start,
    };
    let mut start = range.start;
    while start < lines_end {
        let aim = start + SEGMENT_BYTES;
        let end = match aim < lines_end {
            true => first_newline(source, aim - 1..lines_end)?.map_or(lines_end, |offset| offset + 1),
            false => lines_end,
        };
        spans.push(ScanRange { file, part: RangeKind::Plain { range: start..end, tail: false } });
        start = end;
    }
    if lines_end < range.end {
        spans.push(ScanRange { file, part: RangeKind::Plain { range: lines_end..range.end, tail: true } });
    }
    Ok(spans)
}

/// Ranges of a whole compressed file: of about [`SEGMENT_BYTES`] of frames if it is packed, else one.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn compressed_spans(
    file: FileId,
    compression: Compression,
    source: &StoreFile,
) -> Result<Vec<ScanRange>, StoreFileError> {
    let table = match compression {
        Compression::None => Ok(None),
        Compression::Gzip | Compression::Zstd => SeekTable::open(source),
    };
    let table = match table {
        Ok(Some(table)) => Arc::new(table),
        Err(TableError::Source(error)) => return Err(error),
        Ok(None) | Err(TableError::Damaged(_)) => {
            let from = SeekPoint { compressed: 0, uncompressed: 0 };
            return Ok(vec![ScanRange {
                file,
                part: RangeKind::Compressed { compression, from, cuts: Vec::new(), to: None },
            }]);
        }
    };
    let mut spans = Vec::new();
    if table.frames() == 0 {
        // The pack of a store without resources: one empty range, so that the facts of its table are read.
        spans.push(ScanRange { file, part: RangeKind::Packed { table: table.clone(), frames: 0..0 } });
    }
    let mut first = 0;
    for position in 0..table.frames() {
        let frame = table.frame(position);
        let full = frame.uncompressed + frame.uncompressed_len - table.frame(first).uncompressed >= SEGMENT_BYTES;
        if full || position + 1 == table.frames() {
            spans.push(ScanRange {
                file,
                part: RangeKind::Packed { table: table.clone(), frames: first..position + 1 },
            });
            first = position + 1;
        }
    }
    Ok(spans)
}

/// Bytes that are read at a time to find a newline: the first or last line of most ranges is shorter.
const NEWLINE_READ_BYTES: usize = 64 << 10;

/// Offset of the first newline in a range of a plain file.
fn first_newline(source: &StoreFile, range: Range<u64>) -> Result<Option<u64>, StoreFileError> {
    let mut buffer = Vec::new();
    let mut offset = range.start;
    while offset < range.end {
        let len = to_usize((range.end - offset).min(NEWLINE_READ_BYTES as u64));
        if let Some(found) = memchr(b'\n', source.pread(offset, len, &mut buffer)?) {
            return Ok(Some(offset + found as u64));
        }
        offset += len as u64;
    }
    Ok(None)
}

/// Offset of the last newline in a range of a plain file.
fn last_newline(source: &StoreFile, range: Range<u64>) -> Result<Option<u64>, StoreFileError> {
    let mut buffer = Vec::new();
    let mut end = range.end;
    while end > range.start {
        let len = to_usize((end - range.start).min(NEWLINE_READ_BYTES as u64));
        if let Some(found) = memrchr(b'\n', source.pread(end - len as u64, len, &mut buffer)?) {
            return Ok(Some(end - len as u64 + found as u64));
        }
        end -= len as u64;
    }
    Ok(None)
}
