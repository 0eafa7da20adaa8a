//! Reads single frames of a packed file, each checked before its bytes are used.
//!
//! One decompression context and one buffer serve any number of frames. A frame is sound when its bytes in the file
//! have the hash of the table, decode to the length of the table (a deflate segment also to its CRC-32, and to the end of a
//! block on a byte boundary), and end a line. Frames longer than [`FRAME_HELD_MAX`]
//! (a line of gigabytes is one) are passed on in pieces.

use zstd::zstd_safe::{DCtx, DParameter, get_error_name};

use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::{DecodeError, Decoder};
use crate::codec::deflate::{SEGMENT_END, SegmentInflater};
use crate::count_text::counted;
use crate::hash::xxh3_64;
use crate::limits::{FRAME_HELD_MAX, READ_BYTES, ZSTD_WINDOW_LOG_MAX};
use crate::store::packed::seek_table::{FrameCoding, FrameInfo};
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
    /// Whether the checksum of the uncompressed bytes is verified, too.
    checksums: bool,
    /// Whether the frames to read are scattered over the file.
    scattered: bool,
    /// Made when the first zstd frame is decoded: frames that are only copied need none.
    context: Option<DCtx<'static>>,
    /// As `context`, for deflate segments.
    inflater: Option<SegmentInflater>,
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
        FrameReader { checksums: true, scattered: false, context: None, inflater: None, compressed: Vec::new() }
    }

    /// A reader that does not verify the checksums over the uncompressed bytes of frames: the compressed bytes have
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
        if let FrameCoding::Deflate { crc } = frame.coding {
            let inflater = self.inflater.get_or_insert_with(SegmentInflater::new);
            inflater.decode(bytes, out).map_err(|what| damaged(what.into()))?;
            if checksums && crc32fast::hash(out) != crc {
                return Err(damaged("its rows have another checksum than the table says".into()));
            }
            return ends_line(out);
        }
        match self.context.get_or_insert_with(|| decoder_context(checksums)).decompress(out, bytes) {
            Ok(len) if len == out.len() => {}
            Ok(len) => {
                return Err(damaged(format!("it holds {}, the table says {}", counted(len as u64, "byte"), out.len())));
            }
            Err(code) => return Err(damaged(format!("its zstd data is broken ({})", get_error_name(code)))),
        }
        ends_line(out)
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

/// Checks that a frame ends with the end of a line.
fn ends_line(bytes: &[u8]) -> Result<(), FrameError> {
    match bytes.last() {
        Some(b'\n') => Ok(()),
        _ => Err(FrameError::Damaged("it does not end with a whole line".into())),
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
    let mut last = None;
    let mut noted = |piece: &[u8]| {
        last = piece.last().copied().or(last);
        feed(piece);
    };
    match frame.coding {
        FrameCoding::Zstd => zstd_pieces(source, frame, &mut noted)?,
        FrameCoding::Deflate { crc } => deflate_pieces(source, frame, crc, &mut noted)?,
    }
    ends_line(last.as_slice())
}

/// Decodes a long zstd frame in pieces.
fn zstd_pieces(source: &StoreFile, frame: &FrameInfo, feed: &mut dyn FnMut(&[u8])) -> Result<(), FrameError> {
    let broken = |error: DecodeError| match error {
        DecodeError::Source(error) => FrameError::Source(error),
        other => FrameError::Damaged(other.to_string()),
    };
    let from = SeekPoint { compressed: frame.compressed, uncompressed: frame.uncompressed };
    let mut decoder = Decoder::new(source, Compression::Zstd, from).map_err(broken)?;
    let mut left = frame.uncompressed_len;
    while left > 0 {
        let Some(piece) = decoder.piece(|_| {}).map_err(broken)? else { break };
        let piece = &piece[..(piece.len() as u64).min(left) as usize];
        left -= piece.len() as u64;
        feed(piece);
    }
    match left {
        0 => Ok(()),
        _ => Err(FrameError::Damaged("it holds less than the table says".into())),
    }
}

/// Decodes a long deflate segment in pieces.
fn deflate_pieces(
    source: &StoreFile,
    frame: &FrameInfo,
    crc: u32,
    feed: &mut dyn FnMut(&[u8]),
) -> Result<(), FrameError> {
    let damaged = |what: &str| FrameError::Damaged(what.into());
    let mut inflater = SegmentInflater::new();
    let (mut buffer, mut out) = (Vec::new(), vec![0; READ_BYTES]);
    let (mut sum, mut left) = (crc32fast::Hasher::new(), frame.uncompressed_len);
    let frame_end = frame.compressed + frame.compressed_len;
    let (mut offset, end) = (frame.compressed, frame_end.saturating_sub(SEGMENT_END.len() as u64));
    while offset < end {
        let len = (end - offset).min(READ_BYTES as u64);
        let bytes = source.read(offset, len as usize, &mut buffer)?;
        let mut consumed = 0;
        loop {
            let piece = inflater.piece(&bytes[consumed..], &mut out).map_err(damaged)?;
            consumed += piece.consumed;
            let rows = &out[..piece.produced];
            left = left.checked_sub(rows.len() as u64).ok_or_else(|| damaged("it holds more than the table says"))?;
            sum.update(rows);
            feed(rows);
            if piece.produced < out.len() {
                break;
            }
        }
        if consumed < bytes.len() {
            return Err(damaged("its deflate data does not go on"));
        }
        offset += len;
    }
    let mut last = [0; SEGMENT_END.len()];
    source.pread_into(end, &mut last)?;
    inflater.end(last).map_err(damaged)?;
    source.check()?;
    match (left, sum.finalize() == crc) {
        (0, true) => Ok(()),
        (0, false) => Err(damaged("its rows have another checksum than the table says")),
        _ => Err(damaged("it holds less than the table says")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::access::Access;
    use crate::sys::store_file::tests::file_of;
    use crate::write::deflate::SegmentDeflater;

    /// A file with 7 bytes before the segment of `text`, and its entry in a table.
    fn segment(text: &[u8]) -> (Vec<u8>, FrameInfo) {
        let mut bytes = b"before\n".to_vec();
        SegmentDeflater::new(6).segment(text, &mut bytes).unwrap();
        let frame = FrameInfo {
            coding: FrameCoding::Deflate { crc: crc32fast::hash(text) },
            compressed: 7,
            compressed_len: bytes.len() as u64 - 7,
            uncompressed: 0,
            uncompressed_len: text.len() as u64,
            hash: xxh3_64(&bytes[7..]),
            least: 0,
            greatest: 0,
            rows: 1,
        };
        (bytes, frame)
    }

    /// What a reader gives of a frame, if it gives it.
    fn read(bytes: &[u8], frame: &FrameInfo) -> Option<Vec<u8>> {
        let file = file_of(bytes);
        let source = StoreFile::open(file.path(), Access::pread()).unwrap();
        let mut out = Vec::new();
        let fed = FrameReader::new().feed(&source, frame, &mut Vec::new(), &mut |piece| out.extend_from_slice(piece));
        fed.is_ok().then_some(out)
    }

    /// A deflate segment is read whole or not at all, short or long; a table that was forged to fit altered bytes makes
    /// nobody believe them.
    #[test]
    fn segments_are_proven() {
        let mut random = 1_u64;
        let mut noise = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b"abcdefgh"[(random >> 61) as usize]
        };
        for len in [1, 400, FRAME_HELD_MAX as usize + 70_000] {
            let mut text: Vec<u8> = (1..len).map(|_| noise()).collect();
            text.push(b'\n');
            let (bytes, frame) = segment(&text);
            assert!(read(&bytes, &frame) == Some(text.clone()));
            let is_refused = |change: &dyn Fn(&mut Vec<u8>, &mut FrameInfo)| {
                let (mut bytes, mut frame) = (bytes.clone(), frame);
                change(&mut bytes, &mut frame);
                // Whoever altered it knows the hash, too.
                frame.hash = xxh3_64(&bytes[7..7 + frame.compressed_len as usize]);
                // Bits between a stored block's header and its length are nobody's: without them the rows are the same.
                read(&bytes, &frame).is_none_or(|rows| frame.uncompressed_len == text.len() as u64 && rows == text)
            };
            let places = if len > 1000 { bytes.len() / 3 } else { 1 };
            for i in (7..bytes.len()).step_by(places) {
                assert!(is_refused(&|bytes, _| bytes[i] ^= 0x10), "byte {i} of {}", bytes.len());
            }
            // Of the table, nothing may differ.
            assert!(is_refused(&|_, frame| frame.uncompressed_len += 1));
            assert!(is_refused(&|_, frame| frame.uncompressed_len -= 1));
            assert!(is_refused(&|_, frame| frame.compressed_len -= 1));
            let other_crc = FrameInfo { coding: FrameCoding::Deflate { crc: 1 }, ..frame };
            assert!(read(&bytes, &other_crc).is_none());
            assert!(is_refused(&|bytes, frame| {
                bytes.extend([3, 0]);
                frame.compressed_len += 2;
            }));
        }
        let (bytes, frame) = segment(b"no end of a line");
        assert!(read(&bytes, &frame).is_none());
    }
}
