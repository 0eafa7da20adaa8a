//! Reads single rows and ranges of store files through the index, from plain and compressed files.
//!
//! For the few lines that an export reads itself (Groups, Patients that an identifier may name); rows in bulk are
//! copied by `write`, which does not parse them.

use std::ops::Range;
use std::sync::Arc;

use crate::casts::to_usize;
use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::{DecodeError, Decoder, PausedDecoder};
use crate::error::ExportError;
use crate::ids::{FileId, RowAddress};
use crate::index::snapshot::Index;
use crate::limits::READ_BYTES;
use crate::store::packed::seek_table::SeekTable;
use crate::store::source_files::SourceFiles;
use crate::sys::store_file::{StoreFile, StoreFileError};

impl SourceFiles for Index {
    fn source(&self, file: FileId) -> Result<&StoreFile, StoreFileError> {
        Index::source(self, file)
    }

    fn compression(&self, file: FileId) -> Compression {
        Index::compression(self, file)
    }

    fn packed(&self, file: FileId) -> Option<&SeekTable> {
        Index::packed(self, file)
    }

    fn restart_before(&self, file: FileId, offset: u64) -> SeekPoint {
        Index::restart_before(self, file, offset)
    }
}

/// Byte range of a row in its (uncompressed) file, without its line end. The caller has verified the row
/// ([`Segment::row`]).
///
/// [`Segment::row`]: crate::index::segment::reader::Segment::row
pub(crate) fn row_range(index: &Index, address: RowAddress) -> Range<u64> {
    let (segment, row) = address.parts();
    let columns = index.segment(segment).columns();
    let start = index.entry(segment).start + u64::from(columns.offset(row));
    start..start + u64::from(columns.length(row))
}

/// A decoder of a compressed file from the last seek point at or before an uncompressed offset on, and that point. In a
/// packed gzip file that is a segment inside a member, whose bytes are compared with the table's hash first.
///
/// # Errors
/// When the file cannot be read, or the segment has changed.
pub(crate) fn decoder_before<'a>(
    files: &dyn SourceFiles,
    source: &'a StoreFile,
    file: FileId,
    offset: u64,
) -> Result<(Decoder<'a>, SeekPoint), ExportError> {
    let (compression, from) = (files.compression(file), files.restart_before(file, offset));
    let table = if compression == Compression::Gzip { files.packed(file) } else { None };
    let Some(table) = table else { return Ok((Decoder::new(source, compression, from)?, from)) };
    let frame = table.frame_at(offset);
    if frame < table.frames() {
        let frame = table.frame(frame);
        let from = SeekPoint { compressed: frame.compressed, uncompressed: frame.uncompressed };
        if source.content_hash(frame.compressed..frame.compressed + frame.compressed_len)? == frame.hash {
            return Ok((Decoder::inside_member(source, from)?, from));
        }
    }
    let SeekPoint { compressed, uncompressed } = from;
    let (path, reason) = (source.path().to_path_buf(), "the bytes of a segment have changed".to_string());
    Err(DecodeError::Corrupt { path, compressed, uncompressed, reason }.into())
}

/// Passes the bytes of `range` of a store file (uncompressed offsets) to `feed`, in pieces.
///
/// # Errors
/// When the file cannot be read or decoded that far.
pub(crate) fn stream_range(
    index: &Index,
    file: FileId,
    range: Range<u64>,
    feed: &mut dyn FnMut(&[u8]),
) -> Result<(), ExportError> {
    let source = index.source(file)?;
    match index.compression(file) {
        Compression::None => {
            let mut buffer = Vec::new();
            let mut position = range.start;
            while position < range.end {
                let len = to_usize((range.end - position).min(READ_BYTES as u64));
                feed(source.read(position, len, &mut buffer)?);
                position += len as u64;
            }
            source.check()?;
        }
        Compression::Gzip | Compression::Zstd => {
            let (mut decoder, from) = decoder_before(index, source, file, range.start)?;
            let mut offset = from.uncompressed;
            while offset < range.end {
                let piece = match decoder.piece(|_| {}) {
                    Ok(Some(piece)) => piece,
                    Ok(None) => {
                        let (path, len_expected) = (source.path().to_path_buf(), range.end);
                        return Err(StoreFileError::Truncated { path, len_expected, len_found: offset }.into());
                    }
                    Err(error) => return Err(error.into()),
                };
                let end = offset + piece.len() as u64;
                let from = range.start.clamp(offset, end) - offset;
                let to = range.end.clamp(offset, end) - offset;
                feed(&piece[to_usize(from)..to_usize(to)]);
                offset = end;
            }
        }
    }
    Ok(())
}

/// A range of a store file that is read piece by piece, as somebody takes them. Borrows nothing, and keeps its file open.
pub(crate) struct RangeReader {
    source: Arc<StoreFile>,
    /// What is left of the range.
    left: Range<u64>,
    /// The decoder, and the end of its last piece in the uncompressed file; `None` once it has failed.
    decoder: Option<PausedDecoder>,
    decoded: u64,
}

impl RangeReader {
    /// A reader of `range` (uncompressed offsets) of a store file. Nothing is read yet.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn new(index: &Index, file: FileId, range: Range<u64>) -> Result<RangeReader, ExportError> {
        let (source, compression) = (index.shared_source(file)?, index.compression(file));
        let (decoder, from) = match compression {
            Compression::None => {
                let from = SeekPoint { compressed: range.start, uncompressed: range.start };
                (Decoder::new(&source, compression, from)?, from)
            }
            Compression::Gzip | Compression::Zstd => decoder_before(index, &source, file, range.start)?,
        };
        let decoder = decoder.pause();
        Ok(RangeReader { source, left: range, decoder: Some(decoder), decoded: from.uncompressed })
    }

    /// Passes the next bytes of the range to `feed`; none at times. `false` if the range has been read.
    ///
    /// # Errors
    /// When the file cannot be read or decoded that far; then it cannot be read any further.
    pub(crate) fn next(&mut self, feed: &mut dyn FnMut(&[u8])) -> Result<bool, ExportError> {
        let path = || self.source.path().to_path_buf();
        let (len_expected, len_found) = (self.left.end, self.decoded);
        let ended = || ExportError::from(StoreFileError::Truncated { path: path(), len_expected, len_found });
        if self.left.is_empty() {
            return Ok(false);
        }
        let mut decoder = self.decoder.take().ok_or_else(ended)?.resume(&self.source);
        let piece = decoder.piece(|_| {})?.ok_or_else(ended)?;
        let end = self.decoded + piece.len() as u64;
        let from = self.left.start.clamp(self.decoded, end) - self.decoded;
        let to = self.left.end.clamp(self.decoded, end) - self.decoded;
        feed(&piece[to_usize(from)..to_usize(to)]);
        self.left.start = self.left.start.max(end.min(self.left.end));
        self.decoded = end;
        self.decoder = Some(decoder.pause());
        self.source.check()?;
        Ok(true)
    }
}
