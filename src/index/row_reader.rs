//! Reads single rows and ranges of store files through the index, from plain and compressed files.
//!
//! For the few lines that an export reads itself (Groups, Patients that an identifier may name); rows in bulk are
//! copied by `write`, which does not parse them.

use std::ops::Range;

use crate::casts::to_usize;
use crate::codec::compression::Compression;
use crate::codec::decoder::Decoder;
use crate::error::ExportError;
use crate::ids::{FileId, RowAddress};
use crate::index::snapshot::Index;
use crate::limits::READ_BYTES;
use crate::sys::store_file::StoreFileError;

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
        compression => {
            let from = index.restart_before(file, range.start);
            let mut decoder = Decoder::new(source, compression, from)?;
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
