//! Compares the bytes of a store file with the content hashes of its segments.

use crate::casts::to_usize;
use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::Decoder;
use crate::error::IndexError;
use crate::hash::Hasher64;
use crate::ids::FileId;
use crate::index::meta::SegmentMeta;
use crate::index::snapshot::Index;
use crate::store::packed::frame_reader::FrameReader;
use crate::store::packed::seek_table::SeekTable;
use crate::sys::store_file::StoreFile;

impl Index {
    /// Compares the content hash of each segment of a file with the bytes of the file now.
    ///
    /// # Errors
    /// As [`Index::verify_unchanged`].
    pub fn verify_content(&self, file: FileId) -> Result<(), IndexError> {
        let source = self.source(file)?;
        let changed = |what: &str| IndexError::Changed {
            path: source.path().to_path_buf(),
            reason: format!(
                "was {what} in place while it was in use; replace store files by rename, then run the same command again"
            ),
        };
        let segments = &self.generation().segments;
        let first = segments.partition_point(|entry| entry.file < file);
        let entries: Vec<&SegmentMeta> = segments[first..].iter().take_while(|entry| entry.file == file).collect();
        // 1. A plain file: each range by itself.
        if self.compression(file) == Compression::None {
            for entry in entries {
                if entry.end > source.len() {
                    return Err(changed("truncated"));
                }
                if source.content_hash(entry.start..entry.end)? != entry.content {
                    return Err(changed("rewritten"));
                }
            }
            return Ok(());
        }
        // 2. A packed file: frame by frame, so that damaged frames are skipped as the scan did.
        if let Ok(Some(table)) = SeekTable::open(source) {
            return self.verify_frames(source, &table, &entries).then_some(()).ok_or_else(|| changed("rewritten"));
        }
        // 3. Any other compressed file is decoded from its start.
        let from = SeekPoint { compressed: 0, uncompressed: 0 };
        let Ok(mut decoder) = Decoder::new(source, self.compression(file), from) else {
            return Err(changed("truncated"));
        };
        let mut hash = Hasher64::new();
        let (mut offset, mut next) = (0u64, 0);
        while let Some(piece) = decoder.piece(|_| {}).ok().flatten() {
            let mut piece = piece;
            while next < entries.len() && entries[next].end <= offset + piece.len() as u64 {
                let (own, rest) = piece.split_at(to_usize(entries[next].end - offset));
                hash.update(own);
                if hash.digest() != entries[next].content {
                    return Err(changed("rewritten"));
                }
                hash = Hasher64::new();
                offset += own.len() as u64;
                piece = rest;
                next += 1;
            }
            hash.update(piece);
            offset += piece.len() as u64;
        }
        // An empty segment at the end holds a fault only, and no bytes that could have changed.
        while next < entries.len() && entries[next].end == offset && hash.digest() == entries[next].content {
            hash = Hasher64::new();
            next += 1;
        }
        if next < entries.len() { Err(changed("truncated")) } else { Ok(()) }
    }

    /// Whether the frames of a packed file have the content hashes of the segments; a damaged frame counts as no bytes.
    fn verify_frames(&self, source: &StoreFile, table: &SeekTable, entries: &[&SegmentMeta]) -> bool {
        let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
        let mut hashes = entries.iter().map(|entry| (entry, Hasher64::new())).collect::<Vec<_>>();
        let mut next = 0;
        for i in 0..table.frames() {
            let frame = table.frame(i);
            let mut place = frame.uncompressed;
            let read = reader.feed(source, &frame, &mut buffer, &mut |mut piece| {
                while !piece.is_empty() && next < hashes.len() {
                    let (entry, hash) = &mut hashes[next];
                    let (own, rest) = piece.split_at(piece.len().min(to_usize(entry.end.max(place) - place)));
                    hash.update(own);
                    place += own.len() as u64;
                    next += usize::from(place >= entry.end);
                    piece = rest;
                }
            });
            let end = frame.uncompressed + frame.uncompressed_len;
            while read.is_err() && next < hashes.len() && hashes[next].0.end <= end {
                next += 1;
            }
        }
        hashes.iter().all(|(entry, hash)| hash.digest() == entry.content)
    }
}
