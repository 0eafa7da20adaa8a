//! Compares the compressed files of a store with what an index of format 3 recorded of them. It had no hash of their
//! bytes on disk, so they are decoded once and their lines compared with the content hashes of its segments.

use crate::casts::to_usize;
use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::{DecodeError, Decoder};
use crate::error::IndexError;
use crate::hash::Hasher64;
use crate::ids::FileId;
use crate::index::meta::{IndexMeta, SegmentMeta};
use crate::index::store_files::StoreFiles;
use crate::sys::store_file::{StoreFile, StoreFileError};

/// Gives each compressed file of an index meta that was carried over the hash of its bytes on disk, as this format has it.
/// A file that no longer holds what was indexed gets another number, which no bytes have.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn hash_compressed_files(known: &mut IndexMeta, files: &StoreFiles) -> Result<(), IndexError> {
    for (number, entry) in known.files.iter_mut().enumerate() {
        let Some(file) = files.position(&entry.name) else { continue };
        let compression = files.compression(file);
        if compression == Compression::None {
            continue;
        }
        let source = files.source(file)?;
        let known_file = FileId::of(number);
        let segments: Vec<&SegmentMeta> = known.segments.iter().filter(|segment| segment.file == known_file).collect();
        let raw = source.content_hash(0..entry.stamp.len.min(source.len()))?;
        let is_same = entry.stamp.len <= source.len() && holds_segments(source, compression, &segments)?;
        entry.raw = if is_same { raw } else { !raw };
    }
    Ok(())
}

/// Whether the decoded bytes of a file have the content hashes of its segments, which follow one another from its start.
fn holds_segments(
    source: &StoreFile,
    compression: Compression,
    segments: &[&SegmentMeta],
) -> Result<bool, StoreFileError> {
    let from = SeekPoint { compressed: 0, uncompressed: 0 };
    let mut decoder = match Decoder::new(source, compression, from) {
        Ok(decoder) => decoder,
        Err(DecodeError::Source(error)) => return Err(error),
        Err(_) => return Ok(segments.is_empty()),
    };
    let (mut hash, mut offset, mut next) = (Hasher64::new(), 0, 0);
    while next < segments.len() {
        // An empty segment at the end holds a fault only.
        if segments[next].end <= offset {
            if hash.digest() != segments[next].content {
                return Ok(false);
            }
            (hash, next) = (Hasher64::new(), next + 1);
            continue;
        }
        let mut piece = match decoder.piece(|_| {}) {
            Ok(Some(piece)) => piece,
            Err(DecodeError::Source(error)) => return Err(error),
            Ok(None) | Err(_) => return Ok(false),
        };
        while next < segments.len() && segments[next].end <= offset + piece.len() as u64 && segments[next].end > offset
        {
            let (own, rest) = piece.split_at(to_usize(segments[next].end - offset));
            hash.update(own);
            if hash.digest() != segments[next].content {
                return Ok(false);
            }
            (hash, offset, piece, next) = (Hasher64::new(), segments[next].end, rest, next + 1);
        }
        hash.update(piece);
        offset += piece.len() as u64;
    }
    Ok(true)
}
