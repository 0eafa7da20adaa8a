//! Compresses the wanted lines of frames again, several frames together, on whatever thread is idle; and decodes frames for
//! outputs that are not of their compression.

use std::ops::Range;
use std::sync::Mutex;

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, ParamSwitch, compress_bound};

use crate::error::ExportError;
use crate::store::packed::frame_reader::{FrameError, FrameReader};
use crate::store::packed::seek_table::{FrameCoding, FrameInfo};
use crate::sys::store_file::StoreFile;
use crate::write::deflate::SegmentDeflater;
use crate::write::encode::{CompressedRows, zstd_compressor};

/// zstd level of recompressed frames. With [`RECODE_MATCH`] and compressed literals it makes frames of 48 KiB of
/// Synthea data 4 % larger than level 1, in a tenth less time; without compressed literals they are 60 % larger, in a
/// quarter less.
const RECODE_LEVEL: i32 = -3;

/// Least length in bytes of a match in recompressed frames.
const RECODE_MATCH: u32 = 7;

/// Level of recompressed deflate segments.
const RECODE_DEFLATE_LEVEL: u32 = 1;

/// Pool of idle [`Recompressor`]s, shared by all files of an export: their buffers and contexts are expensive to
/// allocate.
#[derive(Default)]
pub(crate) struct Recompressors(Mutex<Vec<Recompressor>>);

impl Recompressors {
    /// Compresses the wanted lines of some frames into one frame. The outer error is the store's, the inner one the
    /// compressor's.
    pub(crate) fn recompress(
        &self,
        source: &StoreFile,
        jobs: &[CopyJob],
    ) -> Result<std::io::Result<RecodedFrame>, ExportError> {
        let spare = self.0.lock().expect("no panic under it").pop();
        let mut recompressor = spare.unwrap_or_else(Recompressor::new);
        let compressed_bytes = recompressor.code(source, jobs);
        self.0.lock().expect("no panic under it").push(recompressor);
        compressed_bytes
    }
}

/// A frame made of wanted lines.
pub(crate) struct RecodedFrame {
    /// Compressed bytes.
    pub(crate) compressed: Vec<u8>,
    /// The rows in them.
    pub(crate) rows: CompressedRows,
}

/// A frame and the bytes that are wanted of it.
pub(crate) struct CopyJob {
    /// The frame.
    pub(crate) frame: FrameInfo,
    /// Ranges of its uncompressed bytes: whole lines, ascending; empty when the whole frame is wanted.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Total length of the wanted bytes.
    pub(crate) bytes: u64,
}

/// Recompresses frames on one thread; its contexts and buffers are used again.
struct Recompressor {
    reader: FrameReader,
    zstd: Option<Compressor<'static>>,
    deflater: Option<SegmentDeflater>,
    text: FrameText,
    compressed_bytes: Vec<u8>,
}

impl Recompressor {
    /// A recompressor whose contexts are allocated when they are first used.
    fn new() -> Recompressor {
        let reader = FrameReader::of_what_was_packed().of_scattered_frames();
        let (text, compressed_bytes) = (FrameText::default(), Vec::new());
        Recompressor { reader, zstd: None, deflater: None, text, compressed_bytes }
    }

    /// Compresses the wanted lines of some frames into one frame of their coding; errors as
    /// [`Recompressors::recompress`].
    fn code(&mut self, source: &StoreFile, jobs: &[CopyJob]) -> Result<std::io::Result<RecodedFrame>, ExportError> {
        self.text.len = 0;
        for job in jobs {
            self.text.add(&mut self.reader, source, job)?;
        }
        let mut rows = CompressedRows { bytes: self.text.len as u64, crc: 0 };
        let compressed = match jobs[0].frame.coding {
            FrameCoding::Zstd => self.zstd_frame(),
            FrameCoding::Deflate { .. } => {
                rows.crc = crc32fast::hash(self.text.bytes());
                let deflater = self.deflater.get_or_insert_with(|| SegmentDeflater::new(RECODE_DEFLATE_LEVEL));
                let mut out = Vec::new();
                deflater.segment(self.text.bytes(), &mut out).map(|()| out)
            }
        };
        Ok(compressed.map(|compressed| RecodedFrame { compressed, rows }))
    }

    /// The zstd frame of the decoded text.
    fn zstd_frame(&mut self) -> std::io::Result<Vec<u8>> {
        let compressor = match &mut self.zstd {
            Some(compressor) => compressor,
            slot => slot.insert(recompressor()?),
        };
        let text = self.text.bytes();
        let most = compress_bound(text.len());
        if self.compressed_bytes.len() < most {
            self.compressed_bytes.resize(most, 0);
        }
        // The buffer keeps its bound for the next call; only the used part is returned.
        let len = compressor.compress_to_buffer(text, &mut self.compressed_bytes[..most])?;
        Ok(self.compressed_bytes[..len].to_vec())
    }
}

/// zstd context with the parameters of recompressed frames.
fn recompressor() -> std::io::Result<Compressor<'static>> {
    let mut compressor = zstd_compressor(RECODE_LEVEL)?;
    compressor.set_parameter(CParameter::MinMatch(RECODE_MATCH))?;
    compressor.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
    Ok(compressor)
}

/// Decoded lines in a buffer that never shrinks, so that the room behind them is not zeroed for every frame.
#[derive(Default)]
pub(crate) struct FrameText {
    /// The lines, and room behind them.
    pub(crate) buffer: Vec<u8>,
    /// Bytes of the lines.
    pub(crate) len: usize,
}

impl FrameText {
    /// The lines that were decoded and not written yet.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Decodes the wanted lines of a frame behind those that are there.
    pub(crate) fn add(
        &mut self,
        reader: &mut FrameReader,
        source: &StoreFile,
        job: &CopyJob,
    ) -> Result<(), ExportError> {
        let (start, end) = (self.len, self.len + job.frame.uncompressed_len as usize);
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.len += decode_job(reader, source, job, &mut self.buffer[start..end])?;
        Ok(())
    }
}

/// Decodes a frame into `own`, which has its uncompressed length, and moves the wanted lines to the front. Returns
/// their length.
///
/// # Errors
/// [`ExportError::Frame`] if the frame is damaged, [`ExportError::Torn`] if a wanted range does not begin and end with
/// lines.
pub(crate) fn decode_job(
    reader: &mut FrameReader,
    source: &StoreFile,
    job: &CopyJob,
    own: &mut [u8],
) -> Result<usize, ExportError> {
    let frame = &job.frame;
    match reader.decode(source, frame, own) {
        Ok(()) => {}
        Err(FrameError::Source(error)) => return Err(error.into()),
        Err(FrameError::Damaged(reason)) => return Err(frame_error(source, frame, &reason)),
    }
    if job.ranges.is_empty() {
        return Ok(own.len());
    }
    for range in &job.ranges {
        if own[range.end - 1] == b'\r' && own.get(range.end) == Some(&b'\n') {
            // The row ended with CR LF, and its range with the CR: the output has LF only.
            own[range.end - 1] = b'\n';
        }
    }
    // All ranges are checked before any is moved: moving overwrites the bytes before the next one.
    let torn_range = job.ranges.iter().find(|range| {
        let follows = range.start == 0 || own[range.start - 1] == b'\n';
        !follows || own[range.end - 1] != b'\n'
    });
    if let Some(range) = torn_range {
        let offset = frame.uncompressed + range.start as u64;
        return Err(ExportError::Torn { path: source.path().to_path_buf(), offset });
    }
    let mut kept = 0;
    for range in &job.ranges {
        own.copy_within(range.clone(), kept);
        kept += range.len();
    }
    Ok(kept)
}

/// [`ExportError::Frame`] with the place of a frame.
pub(crate) fn frame_error(source: &StoreFile, frame: &FrameInfo, reason: &str) -> ExportError {
    let (path, offset, reason) = (source.path().to_path_buf(), frame.compressed, reason.to_string());
    ExportError::Frame { path, offset, reason }
}
