//! The bytes of a source as one text in memory: the mapped file, or a mapped file without a name that holds what a
//! compressed source decodes to.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::codec::byte_order_mark::without_mark;
use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::Decoder;
use crate::hash::Hasher128;
use crate::import::problem::ImportError;
use crate::limits::READ_BYTES;
use crate::progress::Progress;
use crate::sys::access::Access;
use crate::sys::file_map::ReadMap;
use crate::sys::private_files::create_unnamed;
use crate::sys::regular_file::Links;
use crate::sys::store_file::{FileStamp, ReadOrder, StoreFile};

/// First bytes of a file by which its compression is told.
const HEAD_BYTES: u64 = 64;

/// A source that is open.
pub(crate) struct SourceText {
    /// The file itself.
    source: StoreFile,
    /// What it decodes to, if it is not read in place.
    decoded: Option<ReadMap>,
    path: PathBuf,
}

impl SourceText {
    /// Opens a source. What has to be decoded, or may not be mapped, goes to a file without a name in `spool`.
    ///
    /// # Errors
    /// If it is no regular file, cannot be read or decoded, or there is no room for it.
    pub(crate) fn open(
        path: &Path,
        access: Access,
        spool: &Path,
        progress: &Progress,
    ) -> Result<SourceText, ImportError> {
        let source = StoreFile::open_by(path, access, Links::Follow)?;
        source.advise(ReadOrder::Scan);
        let mut head = Vec::new();
        let head = source.read(0, source.len().min(HEAD_BYTES) as usize, &mut head)?;
        let compression = Compression::of_first_bytes(head, Compression::None);
        let mut text = SourceText { source, decoded: None, path: path.to_path_buf() };
        if compression != Compression::None || text.source.map().is_none() && !text.source.is_empty() {
            text.decoded = Some(decode(&text.source, compression, spool, progress)?);
        }
        Ok(text)
    }

    /// All bytes, without a byte order mark; and how many bytes stand before them.
    pub(crate) fn bytes(&self) -> (&[u8], u64) {
        let all = match &self.decoded {
            Some(decoded) => decoded,
            None => self.source.map().unwrap_or_default(),
        };
        let text = without_mark(all);
        (text, (all.len() - text.len()) as u64)
    }

    /// Adds all bytes to a hash.
    ///
    /// # Errors
    /// [`ImportError::Cancelled`].
    pub(crate) fn add_to(&self, hash: &mut Hasher128, progress: &Progress) -> Result<(), ImportError> {
        for piece in self.bytes().0.chunks(READ_BYTES) {
            if progress.is_cancelled() {
                return Err(ImportError::Cancelled);
            }
            hash.update(piece);
        }
        Ok(())
    }

    /// Whether the bytes read so far were the file's, and the file is as it was when it was opened.
    ///
    /// # Errors
    /// If a page could not be read or the file is gone.
    pub(crate) fn is_unchanged(&self) -> Result<bool, ImportError> {
        self.source.check()?;
        let now = std::fs::metadata(&self.path).map_err(ImportError::read(&self.path))?;
        Ok(FileStamp::of_metadata(&now) == self.source.stamp())
    }
}

/// Decodes a source into a file without a name.
fn decode(
    source: &StoreFile,
    compression: Compression,
    spool: &Path,
    progress: &Progress,
) -> Result<ReadMap, ImportError> {
    let failed = |error| ImportError::Write { path: spool.to_path_buf(), source: error };
    let file = create_unnamed(spool, ".outpour-import.spool").map_err(failed)?;
    let mut out = BufWriter::with_capacity(READ_BYTES, file);
    let mut decoder = Decoder::new(source, compression, SeekPoint::default())?;
    while let Some(piece) = decoder.piece(|_| {})? {
        if progress.is_cancelled() {
            return Err(ImportError::Cancelled);
        }
        out.write_all(piece).map_err(failed)?;
    }
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    Ok(ReadMap::of_file(file, source.path())?)
}
