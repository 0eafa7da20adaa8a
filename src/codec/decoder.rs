//! The uncompressed bytes of a store file, in pieces, from its start or from any seek point.
//!
//! gzip files are read as members (RFC 1952), zstd files as frames (RFC 8878), any number of them, empty and skippable
//! ones included; the start of each is a [`SeekPoint`]. All bytes decoded before an error are handed out before the
//! error, so that a torn file yields its complete lines. Memory is bounded by the two buffers and zstd's window.
//!
//! Nothing here cuts lines, compresses, or decides how a torn file is treated.

use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::gzip::Gzip;
use crate::codec::input::{DecodeStep, Input};
use crate::codec::zstd::Zstd;
use crate::count_text::counted;
use crate::limits::READ_BYTES;
use crate::sys::store_file::{StoreFile, StoreFileError};
use std::path::PathBuf;

/// Why decoding stopped before the end of the file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields say what the messages say
pub enum DecodeError {
    /// The store file cannot be read.
    #[error(transparent)]
    Source(#[from] StoreFileError),
    /// The file ends inside a member or frame.
    #[error(
        "{} ends at byte {compressed} in the middle of its compressed data (after {}): it is still being written or was cut off; \
         copy it again",
        path.display(), counted(*uncompressed, "uncompressed byte")
    )]
    Truncated { path: PathBuf, compressed: u64, uncompressed: u64 },
    /// The file is damaged, or its compression is not that of its name.
    #[error(
        "{} is damaged near byte {compressed} (after {}): {reason}; copy or compress it again",
        path.display(), counted(*uncompressed, "uncompressed byte")
    )]
    Corrupt { path: PathBuf, compressed: u64, uncompressed: u64, reason: String },
    /// A piece was requested after an error.
    #[error("{} could not be decoded any further: see the error before", path.display())]
    Stopped { path: PathBuf },
}

/// Decodes a store file, piece by piece.
pub(crate) struct Decoder<'a> {
    input: Input<'a>,
    /// Where decoding started; it is not reported again.
    from: SeekPoint,
    /// Uncompressed bytes up to the end of the last piece, from the start of the file.
    uncompressed: u64,
    /// End of the last member or frame that is proven, from the start of the file.
    proven: SeekPoint,
    /// Buffer of a piece.
    out: Vec<u8>,
    engine: DecoderEngine,
    state: DecoderState,
}

/// A decoder between two pieces that borrows no file, for readers that outlive the borrow.
pub(crate) struct PausedDecoder {
    /// Offset, window, and start and length of the window, as [`Input`] has them.
    input: (u64, Vec<u8>, u64, usize),
    from: SeekPoint,
    uncompressed: u64,
    proven: SeekPoint,
    out: Vec<u8>,
    engine: DecoderEngine,
    state: DecoderState,
}

impl PausedDecoder {
    /// The decoder again. `source` is the file that it decoded before.
    pub(crate) fn resume(self, source: &StoreFile) -> Decoder<'_> {
        let PausedDecoder { input: (offset, buf, buf_start, buf_len), from, uncompressed, proven, out, engine, state } =
            self;
        let input = Input { source, offset, buf, buf_start, buf_len };
        Decoder { input, from, uncompressed, proven, out, engine, state }
    }
}

/// The decoder of the file's compression.
enum DecoderEngine {
    Plain,
    Gzip(Box<Gzip>),
    Zstd(Box<Zstd>),
}

/// Whether another piece can follow.
enum DecoderState {
    Running,
    /// The bytes decoded before the error are handed out; the error is next.
    Failing(DecodeError),
    /// The error was returned.
    Failed,
}

impl<'a> Decoder<'a> {
    /// A decoder from a seek point (the default one is the start of the file) to the length that the file had when
    /// opened.
    ///
    /// # Errors
    /// [`StoreFileError::Beyond`] when the file ends before the seek point.
    pub(crate) fn new(
        source: &'a StoreFile,
        compression: Compression,
        from: SeekPoint,
    ) -> Result<Decoder<'a>, DecodeError> {
        source.read(from.compressed, 0, &mut Vec::new())?;
        let engine = match compression {
            Compression::None => DecoderEngine::Plain,
            Compression::Gzip => DecoderEngine::Gzip(Box::new(Gzip::new())),
            Compression::Zstd => DecoderEngine::Zstd(Box::new(Zstd::new())),
        };
        let input = Input { source, offset: from.compressed, buf: Vec::new(), buf_start: 0, buf_len: 0 };
        Ok(Decoder {
            input,
            from,
            uncompressed: from.uncompressed,
            proven: from,
            out: Vec::new(),
            engine,
            state: DecoderState::Running,
        })
    }

    /// A decoder of a gzip file from the start of a deflate segment inside a member on. What it decodes of that member is
    /// not proven by it.
    ///
    /// # Errors
    /// [`StoreFileError::Beyond`] when the file ends before the segment.
    pub(crate) fn inside_member(source: &'a StoreFile, from: SeekPoint) -> Result<Decoder<'a>, DecodeError> {
        let mut decoder = Decoder::new(source, Compression::Gzip, from)?;
        decoder.engine = DecoderEngine::Gzip(Box::new(Gzip::inside_member()));
        Ok(decoder)
    }

    /// The decoder without its file, to go on later.
    pub(crate) fn pause(self) -> PausedDecoder {
        let Decoder { input, from, uncompressed, proven, out, engine, state } = self;
        let Input { source: _, offset, buf, buf_start, buf_len } = input;
        PausedDecoder { input: (offset, buf, buf_start, buf_len), from, uncompressed, proven, out, engine, state }
    }

    /// Compressed bytes consumed, counted from the start of the file.
    pub(crate) fn compressed(&self) -> u64 {
        self.input.offset
    }

    /// Uncompressed bytes up to the end of the last piece, counted from the start of the file.
    #[cfg(test)]
    pub(crate) fn uncompressed(&self) -> u64 {
        self.uncompressed
    }

    /// End of the last gzip member or zstd frame whose data is proven, as far as decoding went: its checksum and length
    /// hold; a frame without checksum has decoded to its end. After an error the member or frame that begins there is not
    /// proven. A plain file has no members: it stays the point at which decoding started.
    pub(crate) fn proven(&self) -> SeekPoint {
        self.proven
    }

    /// The next 1 to `READ_BYTES` uncompressed bytes, `None` at the end. Calls `on_seek_point` in order for each seek
    /// point in the piece except the one decoding started at; one may lie at the very end of the piece.
    ///
    /// A piece of a mapped plain file is the map itself: [`StoreFile::check`] reports whether its bytes were the file's.
    ///
    /// # Errors
    /// [`DecodeError`] after all bytes decoded before it were handed out; after that [`DecodeError::Stopped`].
    pub(crate) fn piece(&mut self, mut on_seek_point: impl FnMut(SeekPoint)) -> Result<Option<&[u8]>, DecodeError> {
        let source = self.input.source;
        // 1. An error that was held back while its bytes were handed out comes now.
        match std::mem::replace(&mut self.state, DecoderState::Running) {
            DecoderState::Running => {}
            DecoderState::Failing(error) => return Err(self.fail(error)),
            DecoderState::Failed => return Err(self.fail(DecodeError::Stopped { path: source.path().into() })),
        }
        // 2. A plain file needs no buffer: its piece is the map, or one read.
        if let DecoderEngine::Plain = self.engine {
            let len = (source.len() - self.input.offset).min(READ_BYTES as u64);
            if let Err(error) = if len == 0 { source.check() } else { Ok(()) } {
                return Err(self.fail(error.into()));
            }
            let position = self.input.offset;
            (self.input.offset, self.uncompressed) = (position + len, self.uncompressed + len);
            return match source.read(position, len as usize, &mut self.out) {
                Ok(bytes) => Ok((len > 0).then_some(bytes)),
                Err(error) => {
                    self.state = DecoderState::Failed;
                    Err(error.into())
                }
            };
        }

        // 3. Decode until the buffer is full, the file ends, or an error stops the engine.
        self.out.resize(READ_BYTES, 0);
        let (mut filled, start) = (0, self.uncompressed);
        while filled < self.out.len() {
            let offset = self.input.offset;
            let passed = &mut |compressed, filled: usize| {
                if compressed != self.from.compressed {
                    on_seek_point(SeekPoint { compressed, uncompressed: start + filled as u64 });
                }
            };
            let step = match &mut self.engine {
                DecoderEngine::Gzip(gzip) => gzip.step(&mut self.input, &mut self.out, &mut filled, passed),
                DecoderEngine::Zstd(zstd) => zstd.step(&mut self.input, &mut self.out, &mut filled, passed),
                DecoderEngine::Plain => Ok(DecodeStep::End),
            };
            let (path, uncompressed) = (|| source.path().to_path_buf(), start + filled as u64);
            let is_between_members = match &self.engine {
                DecoderEngine::Gzip(gzip) => gzip.is_between_members(),
                DecoderEngine::Zstd(zstd) => zstd.is_between_frames(),
                DecoderEngine::Plain => false,
            };
            if is_between_members {
                self.proven = SeekPoint { compressed: self.input.offset, uncompressed };
            }
            let error = match step {
                Ok(DecodeStep::More) => continue,
                Ok(DecodeStep::End) => None,
                Ok(DecodeStep::Truncated) => {
                    Some(DecodeError::Truncated { path: path(), compressed: source.len(), uncompressed })
                }
                Ok(DecodeStep::Corrupt(reason)) => {
                    Some(DecodeError::Corrupt { path: path(), compressed: offset, uncompressed, reason })
                }
                Err(error) => Some(error.into()),
            };
            // A mapped file that was shortened meanwhile reads as zeros, which look like damage or padding: the file's
            // own error takes precedence.
            if let Some(error) = source.check().err().map(DecodeError::from).or(error) {
                self.state = DecoderState::Failing(error);
            }
            break;
        }
        // 4. Decoded bytes come before the error that followed them.
        self.uncompressed = start + filled as u64;
        if filled > 0 {
            return Ok(Some(&self.out[..filled]));
        }
        match std::mem::replace(&mut self.state, DecoderState::Running) {
            DecoderState::Failing(error) => Err(self.fail(error)),
            _ => Ok(None),
        }
    }

    /// Ends decoding: every later piece is [`DecodeError::Stopped`].
    fn fail(&mut self, error: DecodeError) -> DecodeError {
        self.state = DecoderState::Failed;
        error
    }
}

#[cfg(test)]
pub(crate) mod tests;
