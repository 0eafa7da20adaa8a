//! The uncompressed bytes of a store file, in pieces, from its start or from any place where decoding can start anew.
//!
//! gzip files are read as members (RFC 1952), zstd files as frames (RFC 8878), as many as there are, empty and skippable
//! ones among them; the start of each is a [`SeekPoint`]. All that was decoded before an error is handed out before the
//! error is, so that a torn file yields its whole lines. Memory is bounded by the two buffers and zstd's window.
//!
//! Nothing here cuts lines, compresses, or decides what a torn file means.

use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::gzip::Gzip;
use crate::codec::input::{DecodeStep, Input};
use crate::codec::zstd::Zstd;
use crate::limits::READ_BYTES;
use crate::sys::store_file::{StoreFile, StoreFileError};
use std::path::PathBuf;

/// Why decoding stopped before the end of the file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields say what the messages say
pub enum DecodeError {
    /// The file cannot be read.
    #[error(transparent)]
    Source(#[from] StoreFileError),
    /// It ends in the middle of a member or frame.
    #[error(
        "{} ends at byte {compressed} in the middle of its compressed data (after {uncompressed} uncompressed bytes): \
         it is still being written or was cut off; copy it again",
        path.display()
    )]
    Truncated { path: PathBuf, compressed: u64, uncompressed: u64 },
    /// It is not what its name says, or damaged.
    #[error(
        "{} is damaged near byte {compressed} (after {uncompressed} uncompressed bytes): {reason}; \
         copy or compress it again",
        path.display()
    )]
    Corrupt { path: PathBuf, compressed: u64, uncompressed: u64, reason: String },
    /// Another piece was asked for after an error.
    #[error("{} could not be decoded any further: see the error before", path.display())]
    Stopped { path: PathBuf },
}

/// Decodes a source, piece by piece.
pub(crate) struct Decoder<'a> {
    input: Input<'a>,
    from: SeekPoint,
    uncompressed: u64,
    out: Vec<u8>,
    engine: DecoderEngine,
    state: DecoderState,
}

enum DecoderEngine {
    Plain,
    Gzip(Box<Gzip>),
    Zstd(Box<Zstd>),
}

enum DecoderState {
    Running,
    /// What was decoded before it has been handed out; the error comes next.
    Failing(DecodeError),
    Failed,
}

impl<'a> Decoder<'a> {
    /// Decodes from a restart (the default one is the start of the file) to the end that the source had when opened.
    ///
    /// # Errors
    /// [`StoreFileError::Beyond`] when the source ends before the restart.
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
        let input = Input { source, at: from.compressed, buf: Vec::new(), buf_start: 0, buf_len: 0 };
        Ok(Decoder {
            input,
            from,
            uncompressed: from.uncompressed,
            out: Vec::new(),
            engine,
            state: DecoderState::Running,
        })
    }

    /// Bytes of the file that have been read.
    pub(crate) fn compressed(&self) -> u64 {
        self.input.at
    }

    /// Uncompressed bytes up to the end of the last piece, counted from the start of the file.
    #[cfg(test)]
    pub(crate) fn uncompressed(&self) -> u64 {
        self.uncompressed
    }

    /// The next 1 to `READ_BYTES` uncompressed bytes, `None` at the end. Calls `passed` for each restart that the piece
    /// reaches after the one it began with, in order; a restart may stand at the very end of the piece.
    ///
    /// A piece of a mapped plain file is the map itself: [`StoreFile::check`] tells whether it was really there.
    ///
    /// # Errors
    /// [`DecodeError`], once all that was decoded before it has been handed out; after that [`DecodeError::Stopped`].
    pub(crate) fn piece(&mut self, mut passed: impl FnMut(SeekPoint)) -> Result<Option<&[u8]>, DecodeError> {
        let source = self.input.source;
        match std::mem::replace(&mut self.state, DecoderState::Running) {
            DecoderState::Running => {}
            DecoderState::Failing(error) => return Err(self.fail(error)),
            DecoderState::Failed => return Err(self.fail(DecodeError::Stopped { path: source.path().into() })),
        }
        if let DecoderEngine::Plain = self.engine {
            let len = (source.len() - self.input.at).min(READ_BYTES as u64);
            if let Err(error) = if len == 0 { source.check() } else { Ok(()) } {
                return Err(self.fail(error.into()));
            }
            let position = self.input.at;
            (self.input.at, self.uncompressed) = (position + len, self.uncompressed + len);
            return match source.read(position, len as usize, &mut self.out) {
                Ok(bytes) => Ok((len > 0).then_some(bytes)),
                Err(error) => {
                    self.state = DecoderState::Failed;
                    Err(error.into())
                }
            };
        }

        self.out.resize(READ_BYTES, 0);
        let (mut filled, start) = (0, self.uncompressed);
        while filled < self.out.len() {
            let offset = self.input.at;
            let passed = &mut |compressed, filled: usize| {
                if compressed != self.from.compressed {
                    passed(SeekPoint { compressed, uncompressed: start + filled as u64 });
                }
            };
            let step = match &mut self.engine {
                DecoderEngine::Gzip(gzip) => gzip.step(&mut self.input, &mut self.out, &mut filled, passed),
                DecoderEngine::Zstd(zstd) => zstd.step(&mut self.input, &mut self.out, &mut filled, passed),
                DecoderEngine::Plain => Ok(DecodeStep::End),
            };
            let (path, uncompressed) = (|| source.path().to_path_buf(), start + filled as u64);
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
            // A mapped file that was shortened meanwhile looks damaged, or ends in what looks like padding.
            if let Some(error) = source.check().err().map(DecodeError::from).or(error) {
                self.state = DecoderState::Failing(error);
            }
            break;
        }
        self.uncompressed = start + filled as u64;
        if filled > 0 {
            return Ok(Some(&self.out[..filled]));
        }
        match std::mem::replace(&mut self.state, DecoderState::Running) {
            DecoderState::Failing(error) => Err(self.fail(error)),
            _ => Ok(None),
        }
    }

    fn fail(&mut self, error: DecodeError) -> DecodeError {
        self.state = DecoderState::Failed;
        error
    }
}

#[cfg(test)]
mod tests;
