//! Reads the bytes of rows to pack, from the store's plain files or from decoded copies of its compressed ones.
//!
//! Rows are read in sorted order, not in store order, so a compressed file is decoded first, as a whole, into a plain
//! file in the hidden new directory. The copy is removed when no later type has rows in it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::{DecodeError, Decoder};
use crate::error::{IndexError, PackError};
use crate::ids::{FileId, RecordId, SegmentId};
use crate::index::row_reader::row_range;
use crate::index::segment::layout::flag;
use crate::index::snapshot::{Index, Snapshot};
use crate::limits::READ_BYTES;
use crate::progress::Progress;
use crate::store::packed::frame_reader::{FrameError, FrameReader};
use crate::store::packed::seek_table::SeekTable;
use crate::sys::access::Access;
use crate::sys::private_files::create_private;
use crate::sys::regular_file::Links;
use crate::sys::store_file::{StoreFile, StoreFileError};

/// Random access to the rows of a snapshot.
pub(crate) struct RowFetcher<'a> {
    snapshot: &'a Snapshot,
    directory: PathBuf,
    /// Decoded copies of compressed files, by file number.
    decoded: HashMap<FileId, StoreFile>,
    access: Access,
}

impl<'a> RowFetcher<'a> {
    /// A fetcher that puts decoded copies into `directory`, under hidden names.
    pub(crate) fn new(snapshot: &'a Snapshot, directory: &Path, access: Access) -> RowFetcher<'a> {
        // The kernel gets no read advice: a store is mostly in some order already, and advice for random access made
        // reading a store that is not in memory five times slower (measured).
        RowFetcher { snapshot, directory: directory.to_path_buf(), decoded: HashMap::new(), access }
    }

    /// The index of the snapshot.
    fn index(&self) -> &'a Index {
        self.snapshot.index()
    }

    /// Path of the decoded copy of a file.
    fn decoded_path(&self, file: FileId) -> PathBuf {
        self.directory.join(format!(".decoded-{}", file.0))
    }

    /// Decodes the compressed files that have a segment that is `wanted`, unless a copy exists.
    ///
    /// # Errors
    /// [`PackError`] if a file cannot be read, a copy cannot be written, or the pack is cancelled.
    pub(crate) fn decode(&mut self, wanted: &dyn Fn(SegmentId) -> bool, progress: &Progress) -> Result<(), PackError> {
        for segment in self.snapshot.segments().filter(|segment| wanted(*segment)) {
            let file = self.index().file_of(segment);
            if self.index().compression(file) == Compression::None || self.decoded.contains_key(&file) {
                continue;
            }
            let path = self.decoded_path(file);
            let write = |source| PackError::Write { path: path.clone(), source };
            let mut out = create_private(&path).map_err(write)?;
            decode_file(self.index(), file, &mut out, progress, &write)?;
            drop(out);
            let source = StoreFile::open_one_of_many(&path, self.access, Links::Refuse, true, None)?;
            self.decoded.insert(file, source);
        }
        Ok(())
    }

    /// Removes the decoded copies of files that have no segment that is still `wanted`.
    pub(crate) fn forget_decoded(&mut self, wanted: &dyn Fn(SegmentId) -> bool) {
        let needed: HashSet<FileId> = self
            .snapshot
            .segments()
            .filter(|segment| wanted(*segment))
            .map(|segment| self.index().file_of(segment))
            .collect();
        let unneeded: Vec<FileId> = self.decoded.keys().copied().filter(|file| !needed.contains(file)).collect();
        for file in unneeded {
            self.decoded.remove(&file);
            // A copy that cannot be removed costs only space: hidden files are removed before the directory is published.
            std::fs::remove_file(self.decoded_path(file)).ok();
        }
    }

    /// The plain bytes of a store file; a compressed one must have been decoded.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn source(&self, file: FileId) -> Result<&StoreFile, StoreFileError> {
        self.decoded.get(&file).map_or_else(|| self.index().source(file), Ok)
    }

    /// lastUpdated in ticks and length in bytes of a row, from the index.
    pub(crate) fn ticks_and_length(&self, record: RecordId) -> (i64, u32) {
        let (segment, row) = self.index().locate(record).parts();
        let columns = self.index().segment(segment).columns();
        (columns.last_updated[row], columns.length(row))
    }

    /// Appends a row and its newline to `out`. Returns the length without the newline.
    ///
    /// # Errors
    /// As [`RowFetcher::pieces`].
    pub(crate) fn take_bytes(
        &self,
        record: RecordId,
        buffer: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<u32, PackError> {
        let start = out.len();
        self.pieces(record, buffer, &mut |piece| {
            out.extend_from_slice(piece);
            Ok(())
        })?;
        Ok((out.len() - start - 1) as u32)
    }

    /// Passes a row and its newline to `feed`, in pieces. A row that ends with a carriage return of its own gets a
    /// second one, because readers do not count the one before a newline as part of the line.
    ///
    /// # Errors
    /// [`PackError::Torn`] if the bytes at the row's place are no line that begins with `{`; errors of reading; errors
    /// of `feed`.
    pub(crate) fn pieces(
        &self,
        record: RecordId,
        buffer: &mut Vec<u8>,
        feed: &mut dyn FnMut(&[u8]) -> Result<(), PackError>,
    ) -> Result<(), PackError> {
        let index = self.index();
        let address = index.locate(record);
        let (segment, row) = address.parts();
        let range = row_range(index, address);
        let source = self.source(index.file_of(segment))?;
        let spaced = index.segment(segment).columns().flags[row] & flag::LEADING_SPACE != 0;
        let torn = || PackError::Torn { path: source.path().to_path_buf(), offset: range.start };
        // A line follows a line end, begins with `{` and ends before a line end.
        let before = range.start.min(1);
        let behind = (source.len().saturating_sub(range.end)).min(2);
        let mut position = range.start - before;
        let end = range.end + behind;
        let (mut first, mut last) = (true, 0);
        while position < end {
            let len = (end - position).min(READ_BYTES as u64) as usize;
            let bytes = source.read(position, len, buffer)?;
            let piece_end = position + len as u64;
            if first {
                let follows = before == 0 || bytes[0] == b'\n' || range.start == 3 && bytes[0] == 0xbf;
                if !follows || !spaced && bytes[before as usize] != b'{' {
                    return Err(torn());
                }
                first = false;
            }
            let line_part = &bytes[(range.start.max(position) - position) as usize
                ..(range.end.clamp(position, piece_end) - position) as usize];
            if memchr::memchr(b'\n', line_part).is_some() {
                return Err(torn());
            }
            last = line_part.last().copied().unwrap_or(last);
            feed(line_part)?;
            let rest = &bytes[(range.end.clamp(position, piece_end) - position) as usize..];
            let ends = match rest {
                // A carriage return at the end of a piece has its newline in the next one.
                [] | [b'\n', ..] | [b'\r'] | [b'\r', b'\n'] => true,
                _ => piece_end > range.end && position > range.end,
            };
            if !ends {
                return Err(torn());
            }
            position = piece_end;
        }
        feed(if last == b'\r' { b"\r\n" } else { b"\n" })
    }
}

/// Decodes a compressed store file into `out`. A damaged frame of a packed file is replaced by a hole of its length, so
/// that the rows behind it keep their offsets.
///
/// # Errors
/// [`PackError`] if the file cannot be read, `out` cannot be written, or the pack is cancelled. A file that breaks off
/// is no error.
fn decode_file(
    index: &Index,
    file: FileId,
    out: &mut File,
    progress: &Progress,
    failed: &dyn Fn(std::io::Error) -> PackError,
) -> Result<(), PackError> {
    let source = index.source(file)?;
    let check_cancelled = || match progress.cancel.load(Relaxed) {
        true => Err(PackError::from(IndexError::Cancelled)),
        false => Ok(()),
    };
    if let Ok(Some(table)) = SeekTable::open(source) {
        let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
        for i in 0..table.frames() {
            check_cancelled()?;
            let frame = table.frame(i);
            let mut written = Ok(());
            let fed = reader.feed(source, &frame, &mut buffer, &mut |piece| {
                if written.is_ok() {
                    written = out.write_all(piece);
                }
            });
            written.map_err(failed)?;
            match fed {
                Ok(()) => {}
                Err(FrameError::Source(error)) => return Err(error.into()),
                Err(FrameError::Damaged(_)) => {
                    let end = frame.uncompressed + frame.uncompressed_len;
                    // The hole ends with a newline: the row behind it must follow a line end.
                    out.seek(SeekFrom::Start(end - 1)).and_then(|_| out.write_all(b"\n")).map_err(failed)?;
                }
            }
        }
        return Ok(());
    }
    let mut decoder = Decoder::new(source, index.compression(file), SeekPoint::default()).map_err(PackError::decode)?;
    loop {
        check_cancelled()?;
        match decoder.piece(|_| {}) {
            Ok(Some(piece)) => out.write_all(piece).map_err(failed)?,
            Ok(None) => return Ok(()),
            Err(DecodeError::Source(error)) => return Err(error.into()),
            // The index records the damage as a fault; the rows before it are decoded.
            Err(_) => return Ok(()),
        }
    }
}
