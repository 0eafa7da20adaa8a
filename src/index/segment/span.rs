//! Ranges of a store file to scan, cut at lines, members or frames, so that threads can scan one file together.

use memchr::memchr;
use memchr::memrchr;
use std::ops::Range;
use std::sync::Arc;

use crate::casts::to_usize;
use crate::codec::compression::{Compression, SeekPoint};
use crate::limits::{READ_BYTES, SEGMENT_BYTES};
use crate::store::packed::seek_table::{SeekTable, TableError};
use crate::sys::store_file::{StoreFile, StoreFileError};

/// A part of a store file to scan.
#[derive(Clone, Debug)]
pub(crate) struct ScanRange {
    /// Index of the file among the store's files.
    pub file: usize,
    /// What to scan of it.
    pub part: RangeKind,
}

/// What a span covers.
#[derive(Clone, Debug)]
pub(crate) enum RangeKind {
    /// Bytes of a plain file; begins and ends at line ends, but for the tail, which has no newline yet.
    Plain {
        /// Offsets in the file.
        range: Range<u64>,
        /// Whether it is the line without a newline at the end of the file.
        tail: bool,
    },
    /// A compressed file from a restart to its end.
    Compressed {
        /// gzip or zstd.
        compression: Compression,
        /// Where to begin.
        from: SeekPoint,
    },
    /// Frames of a packed file.
    Packed {
        /// The file's table.
        table: Arc<SeekTable>,
        /// Which frames.
        frames: Range<usize>,
    },
}

impl RangeKind {
    /// Bytes of the file that it covers.
    pub(crate) fn file_bytes(&self, source: &StoreFile) -> u64 {
        match self {
            RangeKind::Plain { range, .. } => range.end - range.start,
            RangeKind::Compressed { from, .. } => source.len() - from.compressed,
            RangeKind::Packed { table, frames } => frames.clone().map(|frame| table.frame(frame).compressed_len).sum(),
        }
    }
}

/// Cuts `range` of a plain file into spans of about [`EXTENT_BYTES`] at line ends, the line without a newline at its
/// end apart. Touches only the bytes around the cuts.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn plain_spans(
    file: usize,
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

/// Spans of a whole compressed file: of about [`EXTENT_BYTES`] where a table tells frames apart, else one.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn compressed_spans(
    file: usize,
    compression: Compression,
    source: &StoreFile,
) -> Result<Vec<ScanRange>, StoreFileError> {
    let table = match compression {
        Compression::Zstd => SeekTable::open(source),
        _ => Ok(None),
    };
    let table = match table {
        Ok(Some(table)) => Arc::new(table),
        Err(TableError::Source(error)) => return Err(error),
        Ok(None) | Err(TableError::Damaged(_)) => {
            let from = SeekPoint { compressed: 0, uncompressed: 0 };
            return Ok(vec![ScanRange { file, part: RangeKind::Compressed { compression, from } }]);
        }
    };
    let mut spans = Vec::new();
    if table.frames() == 0 {
        // A store without resources was packed: what its table remembers is all there is.
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

fn first_newline(source: &StoreFile, range: Range<u64>) -> Result<Option<u64>, StoreFileError> {
    let mut buffer = Vec::new();
    let mut offset = range.start;
    while offset < range.end {
        let len = to_usize((range.end - offset).min(READ_BYTES as u64));
        if let Some(found) = memchr(b'\n', source.read(offset, len, &mut buffer)?) {
            return Ok(Some(offset + found as u64));
        }
        offset += len as u64;
    }
    Ok(None)
}

fn last_newline(source: &StoreFile, range: Range<u64>) -> Result<Option<u64>, StoreFileError> {
    let mut buffer = Vec::new();
    let mut end = range.end;
    while end > range.start {
        let len = to_usize((end - range.start).min(READ_BYTES as u64));
        if let Some(found) = memrchr(b'\n', source.read(end - len as u64, len, &mut buffer)?) {
            return Ok(Some(end - len as u64 + found as u64));
        }
        end -= len as u64;
    }
    Ok(None)
}
