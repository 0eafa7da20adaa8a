//! Writes the data files of a packed store: head, frames, table.
//!
//! Frames are coded in parallel and written in order, so that the bytes do not depend on the threads. A file is full at
//! about [`PACKED_FILE_BYTES`]; the next one goes on with the next number.

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
use crate::index::snapshot::Snapshot;
use crate::limits::{FRAME_HELD_MAX, PACKED_FILE_BYTES, PACKED_ROWS_MAX};
use crate::pack::report::PackReport;
use crate::pack::retention::VersionSet;
use crate::pack::row_fetch::RowFetcher;
use crate::pack::sort_key::SortKey;
use crate::store::packed::seek_table::{self, PriorOwnerRecord, SeekTable};
use crate::sys::durability::FileSync;
use crate::sys::private_files::create_private;
use crate::write::encode::zstd_compressor;

/// What the table of each file says of the pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackHeader {
    packed_at: i64,
    birth: Option<i64>,
    latest: Option<i64>,
    first_seen: Option<i64>,
}

impl PackHeader {
    /// For the files of a set of a snapshot.
    pub(crate) fn new(snapshot: &Snapshot, set: VersionSet) -> PackHeader {
        let generation = snapshot.index().generation();
        let packed_at = crate::index::meta::ticks_rounded_up(snapshot.as_of());
        // Rows that are never late count as seen from the start.
        let first_seen = set.or(generation.birth);
        PackHeader { packed_at, birth: generation.birth, latest: generation.latest, first_seen }
    }
}

/// A frame, coded.
pub(crate) struct EncodedFrame {
    bytes: Vec<u8>,
    hash: u64,
    lengths: Vec<u32>,
    updated: (i64, i64),
}

impl EncodedFrame {
    fn uncompressed(&self) -> u64 {
        self.lengths.iter().map(|length| u64::from(*length) + 1).sum()
    }
}

/// An owner of a version that has left, for the table: the DELETE entry in its frame, and the rest.
pub(crate) struct PriorOwnerEntry {
    /// Number of the DELETE entry in the frame.
    pub entry: u32,
    /// lastUpdated of the version.
    pub updated: i64,
    /// Base and id, or a sentinel.
    pub owner: Result<(String, Id), u32>,
}

/// A data file under construction.
struct OpenPackFile {
    file: BufWriter<File>,
    path: PathBuf,
    table: SeekTable,
    lengths: Vec<u32>,
    file_bytes: u64,
}

/// Writes the data files of one type.
pub(crate) struct PackWriter {
    directory: PathBuf,
    resource_type: ResourceType,
    level: i32,
    sync: FileSync,
    ordinal: u32,
    header: Option<PackHeader>,
    open: Option<OpenPackFile>,
}

impl PackWriter {
    /// A writer that has written nothing.
    pub(crate) fn new(directory: &Path, resource_type: ResourceType, level: i32, sync: FileSync) -> PackWriter {
        let directory = directory.to_path_buf();
        PackWriter { directory, resource_type, level, sync, ordinal: 0, header: None, open: None }
    }

    /// What follows belongs to another set, which has files of its own.
    ///
    /// # Errors
    /// When the file of the former set cannot be finished.
    pub(crate) fn begin(&mut self, header: PackHeader, packed: &mut PackReport) -> Result<(), PackError> {
        self.finish(packed)?;
        self.header = Some(header);
        Ok(())
    }

    /// Codes frames of rows and writes them.
    ///
    /// # Errors
    /// When rows cannot be read or the file not be written.
    pub(crate) fn frames(
        &mut self,
        keys: &[SortKey],
        frames: &[Range<usize>],
        rows: &RowFetcher<'_>,
        packed: &mut PackReport,
    ) -> Result<(), PackError> {
        let level = self.level;
        let coded: Vec<Option<EncodedFrame>> = frames
            .par_iter()
            .map_init(
                || FrameEncoder::new(level),
                |coder, frame| {
                    let numbers: Vec<usize> = keys[frame.clone()].iter().map(|key| key.row as usize).collect();
                    coder.as_mut().map_err(|error| PackError::code(error))?.rows(&numbers, rows)
                },
            )
            .collect::<Result<_, PackError>>()?;
        for (frame, coded) in frames.iter().zip(coded) {
            match coded {
                Some(coded) => self.put(&coded, Vec::new(), packed)?,
                None => self.long_row(keys[frame.start].row as usize, rows, packed)?,
            }
            packed.rows += frame.len() as u64;
        }
        Ok(())
    }

    /// Writes a frame of whole lines that are given as they are. `left` are the owners of their DELETE entries.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn lines(
        &mut self,
        text: &[u8],
        lengths: Vec<u32>,
        updated: (i64, i64),
        left: Vec<PriorOwnerEntry>,
        packed: &mut PackReport,
    ) -> Result<(), PackError> {
        let mut coder = FrameEncoder::new(self.level).map_err(|error| PackError::code(&error))?;
        let bytes = coder.encode(text).map_err(|error| PackError::code(&error))?;
        let hash = xxh3_64(&bytes);
        self.put(&EncodedFrame { bytes, hash, lengths, updated }, left, packed)
    }

    /// Writes a file without a frame, for the sake of its table: it remembers the index that was packed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn empty(&mut self, header: PackHeader, packed: &mut PackReport) -> Result<(), PackError> {
        self.begin(header, packed)?;
        self.file(0, 0, packed)?;
        self.finish(packed)
    }

    /// The file that takes a frame of so many bytes and rows.
    fn file(&mut self, bytes: u64, rows: u64, packed: &mut PackReport) -> Result<&mut OpenPackFile, PackError> {
        let full = self.open.as_ref().is_some_and(|open| {
            let entries = open.lengths.len().max(open.table.left.len()) as u64;
            open.table.uncompressed_len() + bytes > PACKED_FILE_BYTES || entries + rows > PACKED_ROWS_MAX
        });
        if full {
            self.finish(packed)?;
        }
        if self.open.is_none() {
            self.ordinal += 1;
            let path = self.directory.join(format!("{}.{:05}.ndjson.zst", self.resource_type.name(), self.ordinal));
            let write = |source| PackError::Write { path: path.clone(), source };
            let mut file = BufWriter::with_capacity(1 << 20, create_private(&path).map_err(write)?);
            file.write_all(&seek_table::read_head()).map_err(write)?;
            let PackHeader { packed_at, birth, latest, first_seen } =
                self.header.expect("begun before it is written to");
            let mut table = SeekTable::default();
            table.resource_type = Some(self.resource_type);
            (table.packed_at, table.birth) = (packed_at, birth);
            (table.latest, table.first_seen) = (latest, first_seen);
            self.open =
                Some(OpenPackFile { file, path, table, lengths: Vec::new(), file_bytes: seek_table::HEAD_BYTES });
        }
        Ok(self.open.as_mut().expect("opened above"))
    }

    fn put(
        &mut self,
        coded: &EncodedFrame,
        left: Vec<PriorOwnerEntry>,
        packed: &mut PackReport,
    ) -> Result<(), PackError> {
        let uncompressed = coded.uncompressed();
        let entries = coded.lengths.len().max(left.len()) as u64;
        let open = self.file(uncompressed, entries, packed)?;
        open.write(&coded.bytes)?;
        let frame = open.table.frames() as u32;
        let rows = coded.lengths.len() as u32;
        open.table.push(coded.bytes.len() as u64, uncompressed, coded.hash, coded.updated, rows);
        open.lengths.extend_from_slice(&coded.lengths);
        for PriorOwnerEntry { entry, updated, owner } in left {
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

    /// A row that is too long to be held, as a frame of its own, coded on the way to the file.
    fn long_row(&mut self, number: usize, rows: &RowFetcher<'_>, packed: &mut PackReport) -> Result<(), PackError> {
        let (ticks, length) = rows.facts(number);
        let level = self.level;
        let open = self.file(u64::from(length) + 1, 1, packed)?;
        let path = open.path.clone();
        let write = |source| PackError::Write { path: path.clone(), source };
        let mut sink = HashingWriter { file: &mut open.file, hash: Hasher64::new(), bytes: 0 };
        let mut encoder = zstd::stream::write::Encoder::new(&mut sink, level).map_err(write)?;
        encoder.include_checksum(true).map_err(write)?;
        let mut uncompressed = 0;
        rows.pieces(number, &mut Vec::new(), &mut |piece| {
            uncompressed += piece.len() as u64;
            encoder.write_all(piece).map_err(write)
        })?;
        encoder.finish().map_err(write)?;
        let (hash, bytes) = (sink.hash.digest(), sink.bytes);
        open.file_bytes += bytes;
        open.table.push(bytes, uncompressed, hash, min_max_ticks(&[ticks]), 1);
        open.lengths.push((uncompressed - 1).min(u64::from(u32::MAX)) as u32);
        packed.frames += 1;
        packed.bytes += uncompressed;
        Ok(())
    }

    /// Ends the file that is open.
    ///
    /// # Errors
    /// When it cannot be written or synced.
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
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.file_bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| PackError::Write { path: self.path.clone(), source })
    }
}

/// Hashes what passes.
struct HashingWriter<'a> {
    file: &'a mut BufWriter<File>,
    hash: Hasher64,
    bytes: u64,
}

impl Write for HashingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Codes frames on one thread.
struct FrameEncoder {
    compressor: zstd::bulk::Compressor<'static>,
    text: Vec<u8>,
    buffer: Vec<u8>,
}

impl FrameEncoder {
    fn new(level: i32) -> std::io::Result<FrameEncoder> {
        let compressor = zstd_compressor(level)?;
        Ok(FrameEncoder { compressor, text: Vec::new(), buffer: Vec::new() })
    }

    /// A frame of rows; `None` for a row that is too long to be held.
    fn rows(&mut self, numbers: &[usize], rows: &RowFetcher<'_>) -> Result<Option<EncodedFrame>, PackError> {
        let facts: Vec<(i64, u32)> = numbers.iter().map(|number| rows.facts(*number)).collect();
        if facts.iter().map(|(_, length)| u64::from(*length) + 1).sum::<u64>() > FRAME_HELD_MAX / 2 {
            return Ok(None);
        }
        self.text.clear();
        let mut lengths = Vec::with_capacity(numbers.len());
        for number in numbers {
            lengths.push(rows.take_bytes(*number, &mut self.buffer, &mut self.text)?);
        }
        let bytes = self.compressor.compress(&self.text).map_err(|error| PackError::code(&error))?;
        let ticks: Vec<i64> = facts.iter().map(|(ticks, _)| *ticks).collect();
        Ok(Some(EncodedFrame { hash: xxh3_64(&bytes), bytes, lengths, updated: min_max_ticks(&ticks) }))
    }

    fn encode(&mut self, text: &[u8]) -> std::io::Result<Vec<u8>> {
        self.compressor.compress(text)
    }
}

/// Least and greatest of some instants; of none, what compares as none.
pub(crate) fn min_max_ticks(ticks: &[i64]) -> (i64, i64) {
    let dated = || ticks.iter().copied().filter(|ticks| *ticks != NO_INSTANT);
    (dated().min().unwrap_or(i64::MAX), dated().max().unwrap_or(NO_INSTANT))
}
