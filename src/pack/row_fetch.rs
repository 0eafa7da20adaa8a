//! The bytes of the rows to pack: from the store's plain files, or from what a compressed one was decoded to.
//!
//! Rows are taken in an order of their own, so a compressed file is decoded first, as a whole, into a plain file inside
//! the hidden new directory; it goes again when no type to come has rows in it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::{DecodeError, Decoder};
use crate::error::{IndexError, PackError};
use crate::index::row_reader::row_range;
use crate::index::segment::layout::flag;
use crate::index::snapshot::{Index, Snapshot};
use crate::limits::READ_BYTES;
use crate::progress::Progress;
use crate::store::packed::frame_reader::{FrameError, FrameReader};
use crate::store::packed::seek_table::SeekTable;
use crate::sys::access::Access;
use crate::sys::private_files::create_private;
use crate::sys::store_file::{StoreFile, StoreFileError};

/// Reads rows.
pub(crate) struct RowFetcher<'a> {
    snapshot: &'a Snapshot,
    directory: PathBuf,
    decoded: HashMap<usize, StoreFile>,
    access: Access,
}

impl<'a> RowFetcher<'a> {
    /// Decoded files go to this directory, under hidden names.
    pub(crate) fn new(snapshot: &'a Snapshot, directory: &Path, access: Access) -> RowFetcher<'a> {
        // No advice on how the files are read: a store is mostly in some order already, and reading it page by page, as
        // for scattered rows, was measured five times slower where it is not in memory.
        RowFetcher { snapshot, directory: directory.to_path_buf(), decoded: HashMap::new(), access }
    }

    fn index(&self) -> &'a Index {
        self.snapshot.index()
    }

    fn decoded_path(&self, file: usize) -> PathBuf {
        self.directory.join(format!(".decoded-{file}"))
    }

    /// Decodes the compressed files that have a segment that is `wanted`, unless they are already.
    ///
    /// # Errors
    /// When a file cannot be read, or the new one not be written.
    pub(crate) fn decode(&mut self, wanted: &dyn Fn(usize) -> bool, progress: &Progress) -> Result<(), PackError> {
        for segment in self.snapshot.segments().filter(|segment| wanted(*segment)) {
            let file = self.index().entry(segment).file;
            if self.index().compression(file) == Compression::None || self.decoded.contains_key(&file) {
                continue;
            }
            let path = self.decoded_path(file);
            let write = |source| PackError::Write { path: path.clone(), source };
            let mut out = create_private(&path).map_err(write)?;
            decode(self.index(), file, &mut out, progress, &write)?;
            drop(out);
            self.decoded.insert(file, StoreFile::open(&path, self.access)?);
        }
        Ok(())
    }

    /// Removes decoded files without a segment that is still `wanted`.
    pub(crate) fn forget_decoded(&mut self, wanted: &dyn Fn(usize) -> bool) {
        let needed: Vec<usize> = self
            .snapshot
            .segments()
            .filter(|segment| wanted(*segment))
            .map(|segment| self.index().entry(segment).file)
            .collect();
        let gone: Vec<usize> = self.decoded.keys().copied().filter(|file| !needed.contains(file)).collect();
        for file in gone {
            self.decoded.remove(&file);
            // What stays costs room until the end; it is hidden, and removed before the directory is published.
            std::fs::remove_file(self.decoded_path(file)).ok();
        }
    }

    /// The plain bytes of a store file; a compressed one must have been decoded.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn source(&self, file: usize) -> Result<&StoreFile, StoreFileError> {
        self.decoded.get(&file).map_or_else(|| self.index().source(file), Ok)
    }

    /// lastUpdated in ticks, and length, of a row.
    pub(crate) fn facts(&self, number: usize) -> (i64, u32) {
        let (segment, row) = self.index().locate(number);
        let columns = self.index().segments()[segment].columns();
        (columns.last_updated[row], columns.length(row))
    }

    /// Appends a row and its line end to `out`; the bytes before the newline.
    ///
    /// # Errors
    /// [`PackError::Torn`] when no line is there, and what fails to be read.
    pub(crate) fn take_bytes(&self, number: usize, buffer: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<u32, PackError> {
        let start = out.len();
        self.pieces(number, buffer, &mut |piece| {
            out.extend_from_slice(piece);
            Ok(())
        })?;
        Ok((out.len() - start - 1) as u32)
    }

    /// Passes a row and its line end to `feed`, in pieces. A row that ends with a carriage return of its own is given
    /// another one, because one before the newline is no part of a line.
    ///
    /// # Errors
    /// As [`RowFetcher::take_bytes`], and those of `feed`.
    pub(crate) fn pieces(
        &self,
        number: usize,
        buffer: &mut Vec<u8>,
        feed: &mut dyn FnMut(&[u8]) -> Result<(), PackError>,
    ) -> Result<(), PackError> {
        let index = self.index();
        let (segment, row) = index.locate(number);
        let range = row_range(index, segment, row);
        let source = self.source(index.entry(segment).file)?;
        let spaced = index.segments()[segment].columns().flags[row] & flag::LEADING_SPACE != 0;
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
            let own = &bytes[(range.start.max(position) - position) as usize
                ..(range.end.clamp(position, piece_end) - position) as usize];
            if memchr::memchr(b'\n', own).is_some() {
                return Err(torn());
            }
            last = own.last().copied().unwrap_or(last);
            feed(own)?;
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

/// Decodes a compressed store file. Where a frame of a packed one is damaged, a hole stands for it, so that everything
/// behind it keeps its offset.
fn decode(
    index: &Index,
    file: usize,
    out: &mut File,
    progress: &Progress,
    failed: &dyn Fn(std::io::Error) -> PackError,
) -> Result<(), PackError> {
    let source = index.source(file)?;
    let stopped = || match progress.cancel.load(Relaxed) {
        true => Err(PackError::from(IndexError::Cancelled)),
        false => Ok(()),
    };
    if let Ok(Some(table)) = SeekTable::open(source) {
        let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
        for i in 0..table.frames() {
            stopped()?;
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
                    // It ends like a line, for the row behind it.
                    out.seek(SeekFrom::Start(end - 1)).and_then(|_| out.write_all(b"\n")).map_err(failed)?;
                }
            }
        }
        return Ok(());
    }
    let mut decoder = Decoder::new(source, index.compression(file), SeekPoint::default()).map_err(PackError::decode)?;
    loop {
        stopped()?;
        match decoder.piece(|_| {}) {
            Ok(Some(piece)) => out.write_all(piece).map_err(failed)?,
            Ok(None) => return Ok(()),
            Err(DecodeError::Source(error)) => return Err(error.into()),
            // The index has a fault where the file is damaged; what stands before is there.
            Err(_) => return Ok(()),
        }
    }
}
