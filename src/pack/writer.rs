//! Writer of the data files of a packed store: header, frames, seek table.
//!
//! Frames are compressed in parallel and written in order, so that the bytes do not depend on the number of threads. A
//! file is full at about [`PACKED_FILE_BYTES`]; the next one has the next number. Which rows form a frame is decided in
//! `cluster`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::PackError;
use crate::fhir::id::Id;
use crate::fhir::instant::NO_INSTANT;
use crate::fhir::resource_type::ResourceType;
use crate::hash::{Hasher64, xxh3_64};
use crate::ids::RecordId;
use crate::index::snapshot::Snapshot;
use crate::limits::{FRAME_HELD_MAX, PACKED_FILE_BYTES, PACKED_ROWS_MAX};
use crate::pack::report::PackReport;
use crate::pack::retention::VersionSet;
use crate::pack::row_fetch::RowFetcher;
use crate::pack::sort_key::SortKey;
use crate::store::packed::envelope::PackCoding;
use crate::store::packed::seek_table::{NewFrame, PriorOwnerRecord, SeekTable};
use crate::sys::durability::FileSync;
use crate::sys::private_files::create_private;
use crate::write::deflate::SegmentDeflater;
use crate::write::encode::zstd_compressor;

/// Instants, in ticks, that the seek table of each file records of the packed index; `None` where the index knows none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackHeader {
    /// T of the pack, rounded up to a tick.
    packed_at: i64,
    /// First snapshot of the index.
    birth: Option<i64>,
    /// Latest snapshot of the index.
    latest: Option<i64>,
    /// Snapshot that first saw the rows of the file.
    first_seen: Option<i64>,
}

impl PackHeader {
    /// Header of the files of a version set.
    pub(crate) fn new(snapshot: &Snapshot, set: VersionSet) -> PackHeader {
        let generation = snapshot.index().generation();
        let packed_at = crate::index::snapshot_time::ticks_rounded_up(snapshot.as_of());
        // Rows that never arrive late count as seen by the first snapshot.
        let first_seen = set.or(generation.birth);
        PackHeader { packed_at, birth: generation.birth, latest: generation.latest, first_seen }
    }
}

/// A compressed frame with the facts that the seek table records of it.
pub(crate) struct EncodedFrame {
    bytes: Vec<u8>,
    /// Hash (xxh3, 64 bits) of the compressed bytes.
    hash: u64,
    /// CRC-32 of the uncompressed bytes; 0 in a zstd file.
    crc: u32,
    /// Length of each line without its newline.
    lengths: Vec<u32>,
    /// Least and greatest lastUpdated in ticks, see [`min_max_ticks`].
    updated: (i64, i64),
}

impl EncodedFrame {
    /// Uncompressed bytes of the frame.
    fn uncompressed(&self) -> u64 {
        self.lengths.iter().map(|length| u64::from(*length) + 1).sum()
    }
}

/// Table entry for a DELETE entry: an owner of the version that the pack dropped for it.
pub(crate) struct PriorOwnerEntry {
    /// Number of the DELETE entry in its frame.
    pub entry: u32,
    /// lastUpdated of the dropped version in ticks; for the sentinel `LATE`, the T that first saw it.
    pub updated: i64,
    /// Base URL and id of the patient, or a sentinel of the seek table (`NOBODY`, `FOLLOWED`, `LATE`).
    pub owner: Result<(String, Id), u32>,
}

/// A data file that is being written, and its table so far.
struct OpenPackFile {
    file: BufWriter<File>,
    path: PathBuf,
    table: SeekTable,
    /// Length of each line of the file without its newline.
    lengths: Vec<u32>,
    /// Bytes written to the file so far.
    file_bytes: u64,
}

/// Writes the data files of one resource type.
pub(crate) struct PackWriter {
    directory: PathBuf,
    resource_type: ResourceType,
    coder: FrameCoder,
    sync: FileSync,
    ordinal: u32,
    header: Option<PackHeader>,
    open: Option<OpenPackFile>,
}

impl PackWriter {
    /// A writer without an open file.
    pub(crate) fn new(directory: &Path, resource_type: ResourceType, coder: FrameCoder, sync: FileSync) -> PackWriter {
        let directory = directory.to_path_buf();
        PackWriter { directory, resource_type, coder, sync, ordinal: 0, header: None, open: None }
    }

    /// Coding of the frames.
    pub(crate) fn coding(&self) -> PackCoding {
        self.coder.coding
    }

    /// Begins a version set, which gets files of its own.
    ///
    /// # Errors
    /// [`PackError`] if the last file of the former set cannot be finished.
    pub(crate) fn begin(&mut self, header: PackHeader, packed: &mut PackReport) -> Result<(), PackError> {
        self.finish(packed)?;
        self.header = Some(header);
        Ok(())
    }

    /// Compresses frames of rows in parallel and writes them in order. Each frame is a range of `keys`.
    ///
    /// # Errors
    /// [`PackError`] if rows cannot be read or the file cannot be written.
    pub(crate) fn frames(
        &mut self,
        keys: &[SortKey],
        frames: &[Range<usize>],
        rows: &RowFetcher<'_>,
        packed: &mut PackReport,
    ) -> Result<(), PackError> {
        let coder = self.coder;
        let encoded: Vec<Option<EncodedFrame>> = frames
            .par_iter()
            .map_init(
                || FrameEncoder::new(coder),
                |encoder, frame| {
                    let records: Vec<RecordId> = keys[frame.clone()].iter().map(|key| key.row).collect();
                    encoder.as_mut().map_err(|error| PackError::code(error))?.rows(&records, rows)
                },
            )
            .collect::<Result<_, PackError>>()?;
        for (frame, encoded) in frames.iter().zip(encoded) {
            match encoded {
                Some(encoded) => self.put(&encoded, Vec::new(), packed)?,
                None => self.long_row(keys[frame.start].row, rows, packed)?,
            }
            packed.rows += frame.len() as u64;
        }
        Ok(())
    }

    /// Writes one frame of these lines. `prior_owners` are the entries of their DELETE entries.
    ///
    /// # Errors
    /// [`PackError`] if the frame cannot be compressed or written.
    pub(crate) fn lines(
        &mut self,
        text: &[u8],
        lengths: Vec<u32>,
        updated: (i64, i64),
        prior_owners: Vec<PriorOwnerEntry>,
        packed: &mut PackReport,
    ) -> Result<(), PackError> {
        let mut encoder = FrameEncoder::new(self.coder).map_err(|error| PackError::code(&error))?;
        let encoded = encoder.encode(text, lengths, updated).map_err(|error| PackError::code(&error))?;
        self.put(&encoded, prior_owners, packed)
    }

    /// Writes a file without frames, whose table records the instants of the packed index.
    ///
    /// # Errors
    /// [`PackError`] if it cannot be written.
    pub(crate) fn empty(&mut self, header: PackHeader, packed: &mut PackReport) -> Result<(), PackError> {
        self.begin(header, packed)?;
        self.file_for(0, 0, packed)?;
        self.finish(packed)
    }

    /// The open file, or the next one if this has no room for a frame of so many bytes and rows.
    fn file_for(&mut self, bytes: u64, rows: u64, packed: &mut PackReport) -> Result<&mut OpenPackFile, PackError> {
        let full = self.open.as_ref().is_some_and(|open| {
            let entries = open.lengths.len().max(open.table.left.len()) as u64;
            open.table.uncompressed_len() + bytes > PACKED_FILE_BYTES || entries + rows > PACKED_ROWS_MAX
        });
        if full {
            self.finish(packed)?;
        }
        if self.open.is_none() {
            self.ordinal += 1;
            let coding = self.coder.coding;
            let suffix = coding.compression().suffix();
            let path = self.directory.join(format!("{}.{:05}.ndjson{suffix}", self.resource_type.name(), self.ordinal));
            let write = |source| PackError::Write { path: path.clone(), source };
            let mut file = BufWriter::with_capacity(1 << 20, create_private(&path).map_err(write)?);
            file.write_all(&coding.head()).map_err(write)?;
            let PackHeader { packed_at, birth, latest, first_seen } =
                self.header.expect("begun before it is written to");
            let mut table = SeekTable::new(coding);
            table.resource_type = Some(self.resource_type);
            (table.packed_at, table.birth) = (packed_at, birth);
            (table.latest, table.first_seen) = (latest, first_seen);
            self.open = Some(OpenPackFile { file, path, table, lengths: Vec::new(), file_bytes: coding.head_bytes() });
        }
        Ok(self.open.as_mut().expect("opened above"))
    }

    /// Writes a frame and adds it to the table.
    fn put(
        &mut self,
        encoded: &EncodedFrame,
        prior_owners: Vec<PriorOwnerEntry>,
        packed: &mut PackReport,
    ) -> Result<(), PackError> {
        let uncompressed = encoded.uncompressed();
        let entries = encoded.lengths.len().max(prior_owners.len()) as u64;
        let open = self.file_for(uncompressed, entries, packed)?;
        open.write(&encoded.bytes)?;
        let frame = open.table.frames() as u32;
        let rows = encoded.lengths.len() as u32;
        open.table.push(NewFrame {
            compressed_len: encoded.bytes.len() as u64,
            uncompressed_len: uncompressed,
            hash: encoded.hash,
            crc: encoded.crc,
            updated: encoded.updated,
            rows,
        });
        open.lengths.extend_from_slice(&encoded.lengths);
        for PriorOwnerEntry { entry, updated, owner } in prior_owners {
            let owner = match owner {
                Ok(name) => {
                    // Neighbouring entries mostly share their owner.
                    if open.table.names.last() != Some(&name) {
                        open.table.names.push(name);
                    }
                    open.table.names.len() as u32 - 1
                }
                Err(sentinel) => sentinel,
            };
            open.table.left.push(PriorOwnerRecord { frame, entry, updated, owner });
        }
        packed.frames += 1;
        packed.bytes += uncompressed;
        Ok(())
    }

    /// Writes a row that is too long to be held as a frame of its own, compressed on the way to the file.
    fn long_row(&mut self, record: RecordId, rows: &RowFetcher<'_>, packed: &mut PackReport) -> Result<(), PackError> {
        let (ticks, length) = rows.ticks_and_length(record);
        let coder = self.coder;
        let open = self.file_for(u64::from(length) + 1, 1, packed)?;
        let path = open.path.clone();
        let write = |source| PackError::Write { path: path.clone(), source };
        let mut sink = HashingWriter { file: &mut open.file, hash: Hasher64::new(), bytes: 0 };
        let (mut uncompressed, mut crc) = (0, crc32fast::Hasher::new());
        let mut encoder = LongFrameEncoder::begin(coder, &mut sink).map_err(write)?;
        rows.pieces(record, &mut Vec::new(), &mut |piece| {
            uncompressed += piece.len() as u64;
            if coder.coding == PackCoding::Gzip {
                crc.update(piece);
            }
            encoder.write(piece).map_err(write)
        })?;
        encoder.finish().map_err(write)?;
        let (hash, compressed_len) = (sink.hash.digest(), sink.bytes);
        open.file_bytes += compressed_len;
        open.table.push(NewFrame {
            compressed_len,
            uncompressed_len: uncompressed,
            hash,
            crc: crc.finalize(),
            updated: min_max_ticks(&[ticks]),
            rows: 1,
        });
        open.lengths.push((uncompressed - 1).min(u64::from(u32::MAX)) as u32);
        packed.frames += 1;
        packed.bytes += uncompressed;
        Ok(())
    }

    /// Ends the open file, if there is one, with its table.
    ///
    /// # Errors
    /// [`PackError`] if it cannot be written or synced.
    pub(crate) fn finish(&mut self, packed: &mut PackReport) -> Result<(), PackError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let path = open.path.clone();
        let write = |source| PackError::Write { path: path.clone(), source };
        let table = open.table.to_bytes(&open.lengths).map_err(write)?;
        open.write(&table)?;
        let file = open.file.into_inner().map_err(|error| write(error.into_error()))?;
        if self.sync == FileSync::Yes {
            file.sync_all().map_err(write)?;
        }
        packed.files += 1;
        packed.file_bytes += open.file_bytes;
        Ok(())
    }
}

impl OpenPackFile {
    /// Appends bytes to the file and counts them.
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.file_bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| PackError::Write { path: self.path.clone(), source })
    }
}

/// Hashes and counts the bytes that are written to a file.
struct HashingWriter<'a> {
    file: &'a mut BufWriter<File>,
    hash: Hasher64,
    bytes: u64,
}

impl Write for HashingWriter<'_> {
    /// Writes compressed bytes of a long row's frame to the packed file, and hashes and counts them for its seek table.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }
    /// Does nothing: the buffer of the packed file is written when the file ends.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How frames are compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameCoder {
    /// Coding of the frames, and so of the files.
    pub coding: PackCoding,
    /// Level of the compressor.
    pub level: i32,
}

impl FrameCoder {
    /// zstd frames at a level from 1 to 19.
    pub(crate) fn zstd(level: i32) -> FrameCoder {
        FrameCoder { coding: PackCoding::Zstd, level }
    }

    /// Deflate segments at a level from 1 to 9.
    pub(crate) fn gzip(level: i32) -> FrameCoder {
        FrameCoder { coding: PackCoding::Gzip, level }
    }
}

/// Compressor of either coding; its memory is used again.
enum FrameCompressor {
    Zstd(zstd::bulk::Compressor<'static>),
    Deflate(SegmentDeflater),
}

/// Compresses frames on one thread; its buffers are used again.
struct FrameEncoder {
    compressor: FrameCompressor,
    text: Vec<u8>,
    buffer: Vec<u8>,
}

impl FrameEncoder {
    /// An encoder of a coding and level.
    fn new(coder: FrameCoder) -> std::io::Result<FrameEncoder> {
        let compressor = match coder.coding {
            PackCoding::Zstd => FrameCompressor::Zstd(zstd_compressor(coder.level)?),
            PackCoding::Gzip => FrameCompressor::Deflate(SegmentDeflater::new(coder.level.unsigned_abs())),
        };
        Ok(FrameEncoder { compressor, text: Vec::new(), buffer: Vec::new() })
    }

    /// Frame of these rows; `None` if they are too long to be held.
    fn rows(&mut self, records: &[RecordId], rows: &RowFetcher<'_>) -> Result<Option<EncodedFrame>, PackError> {
        let ticks_and_lengths: Vec<(i64, u32)> = records.iter().map(|record| rows.ticks_and_length(*record)).collect();
        if ticks_and_lengths.iter().map(|(_, length)| u64::from(*length) + 1).sum::<u64>() > FRAME_HELD_MAX / 2 {
            return Ok(None);
        }
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let mut lengths = Vec::with_capacity(records.len());
        for record in records {
            lengths.push(rows.take_bytes(*record, &mut self.buffer, &mut text)?);
        }
        let ticks: Vec<i64> = ticks_and_lengths.iter().map(|(ticks, _)| *ticks).collect();
        let encoded = self.encode(&text, lengths, min_max_ticks(&ticks)).map_err(|error| PackError::code(&error))?;
        self.text = text;
        Ok(Some(encoded))
    }

    /// Frame of these lines.
    fn encode(&mut self, text: &[u8], lengths: Vec<u32>, updated: (i64, i64)) -> std::io::Result<EncodedFrame> {
        let (bytes, crc) = match &mut self.compressor {
            FrameCompressor::Zstd(compressor) => (compressor.compress(text)?, 0),
            FrameCompressor::Deflate(deflater) => {
                let mut bytes = Vec::new();
                deflater.segment(text, &mut bytes)?;
                (bytes, crc32fast::hash(text))
            }
        };
        Ok(EncodedFrame { hash: xxh3_64(&bytes), bytes, crc, lengths, updated })
    }
}

/// Compresses a frame that comes in pieces on the way to its file.
enum LongFrameEncoder<'a, 'f> {
    Zstd(zstd::stream::write::Encoder<'static, &'a mut HashingWriter<'f>>),
    Deflate(SegmentDeflater, &'a mut HashingWriter<'f>, Vec<u8>),
}

impl<'a, 'f> LongFrameEncoder<'a, 'f> {
    /// Begins a frame.
    fn begin(coder: FrameCoder, sink: &'a mut HashingWriter<'f>) -> std::io::Result<LongFrameEncoder<'a, 'f>> {
        match coder.coding {
            PackCoding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(sink, coder.level)?;
                encoder.include_checksum(true)?;
                Ok(LongFrameEncoder::Zstd(encoder))
            }
            PackCoding::Gzip => {
                let deflater = SegmentDeflater::new(coder.level.unsigned_abs());
                Ok(LongFrameEncoder::Deflate(deflater, sink, Vec::new()))
            }
        }
    }

    /// Takes a piece of the frame.
    fn write(&mut self, piece: &[u8]) -> std::io::Result<()> {
        match self {
            LongFrameEncoder::Zstd(encoder) => encoder.write_all(piece),
            LongFrameEncoder::Deflate(deflater, sink, out) => {
                deflater.piece(piece, out)?;
                sink.write_all(out)?;
                out.clear();
                Ok(())
            }
        }
    }

    /// Ends the frame.
    fn finish(self) -> std::io::Result<()> {
        match self {
            LongFrameEncoder::Zstd(encoder) => encoder.finish().map(drop),
            LongFrameEncoder::Deflate(mut deflater, sink, mut out) => {
                deflater.end(&mut out)?;
                sink.write_all(&out)
            }
        }
    }
}

/// Least and greatest lastUpdated of a frame of a packed file, in ticks, for its seek table. Missing ones
/// ([`NO_INSTANT`]) are ignored; if all are missing the pair is (`i64::MAX`, [`NO_INSTANT`]).
pub(crate) fn min_max_ticks(ticks: &[i64]) -> (i64, i64) {
    let dated = || ticks.iter().copied().filter(|ticks| *ticks != NO_INSTANT);
    (dated().min().unwrap_or(i64::MAX), dated().max().unwrap_or(NO_INSTANT))
}
