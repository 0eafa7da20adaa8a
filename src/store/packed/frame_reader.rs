//! Reads single frames of a packed file, each checked before its bytes are used.
//!
//! One decompression context and one buffer serve any number of frames. A frame is sound when its bytes in the file
//! have the hash of the table, decode to the length of the table, and end a line. Frames longer than [`FRAME_HELD_MAX`]
//! (a line of gigabytes is one) are passed on in pieces.

use zstd::zstd_safe::{DCtx, DParameter, get_error_name};

use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::{DecodeError, Decoder};
use crate::count_text::counted;
use crate::hash::xxh3_64;
use crate::limits::{FRAME_HELD_MAX, ZSTD_WINDOW_LOG_MAX};
use crate::store::packed::seek_table::FrameInfo;
use crate::sys::store_file::{StoreFile, StoreFileError};

/// Why a frame cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The file cannot be read.
    #[error(transparent)]
    Source(#[from] StoreFileError),
    /// The frame's bytes are not what the table says.
    #[error("{0}")]
    Damaged(String),
}

/// Whether a frame is at most [`FRAME_HELD_MAX`] bytes, compressed and not, and is decoded at once.
pub(crate) fn is_held(frame: &FrameInfo) -> bool {
    frame.uncompressed_len <= FRAME_HELD_MAX && frame.compressed_len <= FRAME_HELD_MAX
}

/// Reads, checks and decodes frames of packed files, with one context for all.
pub(crate) struct FrameReader {
    /// Whether the checksum in a frame is verified, too.
    checksums: bool,
    /// Whether the frames to read are scattered over the file.
    scattered: bool,
    /// Made when the first frame is decoded: frames that are only copied need none.
    context: Option<DCtx<'static>>,
    compressed: Vec<u8>,
}

impl Default for FrameReader {
    fn default() -> FrameReader {
        FrameReader::new()
    }
}

impl FrameReader {
    /// A reader that verifies hash, length and checksum of frames.
    pub(crate) fn new() -> FrameReader {
        FrameReader { checksums: true, scattered: false, context: None, compressed: Vec::new() }
    }

    /// A reader that does not verify the checksums in frames, over their uncompressed bytes: the compressed bytes have
    /// the hash of the table, so they are those that were packed. Saves a tenth of the decoding.
    pub(crate) fn of_what_was_packed() -> FrameReader {
        FrameReader { checksums: false, ..FrameReader::new() }
    }

    /// The same reader for frames scattered over a file, which are faster read than mapped.
    pub(crate) fn of_scattered_frames(self) -> FrameReader {
        FrameReader { scattered: true, ..self }
    }

    /// Decodes a held frame into `out`, which must be as long as the frame is uncompressed.
    ///
    /// # Errors
    /// When the file cannot be read, or the frame is not sound.
    pub(crate) fn decode(&mut self, source: &StoreFile, frame: &FrameInfo, out: &mut [u8]) -> Result<(), FrameError> {
        let bytes = read_checked_frame(source, frame, self.scattered, &mut self.compressed)?;
        let damaged = |what: String| FrameError::Damaged(what);
        let checksums = self.checksums;
        match self.context.get_or_insert_with(|| decoder_context(checksums)).decompress(out, bytes) {
            Ok(len) if len == out.len() => {}
            Ok(len) => {
                return Err(damaged(format!("it holds {}, the table says {}", counted(len as u64, "byte"), out.len())));
            }
            Err(code) => return Err(damaged(format!("its zstd data is broken ({})", get_error_name(code)))),
        }
        match out.last() {
            Some(b'\n') => Ok(()),
            _ => Err(damaged("it does not end with a whole line".into())),
        }
    }

    /// Passes the uncompressed bytes of a frame to `feed`: at once when it is held, else in pieces.
    ///
    /// # Errors
    /// When the file cannot be read, or the frame is not sound; `feed` was not called then, unless the file changed
    /// meanwhile.
    pub(crate) fn feed(
        &mut self,
        source: &StoreFile,
        frame: &FrameInfo,
        buffer: &mut Vec<u8>,
        feed: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FrameError> {
        if is_held(frame) {
            let len = frame.uncompressed_len as usize;
            if buffer.len() < len {
                buffer.resize(len, 0);
            }
            self.decode(source, frame, &mut buffer[..len])?;
            feed(&buffer[..len]);
            return Ok(());
        }
        if source.content_hash(frame.compressed..frame.compressed + frame.compressed_len)? != frame.hash {
            return Err(FrameError::Damaged("its bytes have changed".into()));
        }
        // Decoded twice: no byte may be passed on of a frame that is not sound as a whole.
        each_piece(source, frame, &mut |_| {})?;
        each_piece(source, frame, feed)
    }
}

/// A zstd context with the window bound of outpour; `checksums` is whether frame checksums are verified.
fn decoder_context(checksums: bool) -> DCtx<'static> {
    let mut context = DCtx::create();
    if !checksums {
        // A library without this parameter refuses it, and verifies them.
        let _ = context.set_parameter(DParameter::ForceIgnoreChecksum(true));
    }
    // Refused only for a bound that the library does not support; its default is the same.
    let _ = context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX));
    context
}

/// The compressed bytes of a frame, whose hash is that of the table; `scattered` reads by `pread` even a mapped file.
fn read_checked_frame<'b>(
    source: &'b StoreFile,
    frame: &FrameInfo,
    scattered: bool,
    buffer: &'b mut Vec<u8>,
) -> Result<&'b [u8], FrameError> {
    let len = frame.compressed_len as usize;
    let bytes = match scattered {
        true => source.pread(frame.compressed, len, buffer)?,
        false => source.read(frame.compressed, len, buffer)?,
    };
    match xxh3_64(bytes) == frame.hash {
        true => Ok(bytes),
        false => {
            source.check()?;
            Err(FrameError::Damaged("its bytes have changed".into()))
        }
    }
}

/// Decodes a frame longer than [`FRAME_HELD_MAX`] in pieces.
fn each_piece(source: &StoreFile, frame: &FrameInfo, feed: &mut dyn FnMut(&[u8])) -> Result<(), FrameError> {
    let broken = |error: DecodeError| match error {
        DecodeError::Source(error) => FrameError::Source(error),
        other => FrameError::Damaged(other.to_string()),
    };
    let from = SeekPoint { compressed: frame.compressed, uncompressed: frame.uncompressed };
    let mut decoder = Decoder::new(source, Compression::Zstd, from).map_err(broken)?;
    let mut left = frame.uncompressed_len;
    let mut last = 0;
    while left > 0 {
        let Some(piece) = decoder.piece(|_| {}).map_err(broken)? else { break };
        let piece = &piece[..(piece.len() as u64).min(left) as usize];
        left -= piece.len() as u64;
        last = piece.last().copied().unwrap_or(last);
        feed(piece);
    }
    match (left, last) {
        (0, b'\n') => Ok(()),
        _ => Err(FrameError::Damaged("it does not end with a whole line".into())),
    }
}
