//! zstd files decoded frame by frame (RFC 8878), skippable frames included. Frames that need a dictionary are refused
//! as damage.

use ::zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use crate::codec::input::{DecodeStep, Input};
use crate::limits::{READ_BYTES, ZSTD_WINDOW_LOG_MAX};
use crate::sys::store_file::StoreFileError;

/// Decoder of the frames of a zstd file.
///
/// A failing call of the library does not report the bytes that it decoded before the error. So each call gets no more
/// input than the library requested, which is one block, and none while decoded bytes wait for output space: a failing
/// call then loses nothing but its own block.
pub(crate) struct Zstd {
    /// State of the library's decoder.
    context: DCtx<'static>,
    /// Whether a frame has begun and not ended.
    in_frame: bool,
    /// Input that the library requested for the next call, in bytes.
    input_due: usize,
    /// Whether decoded bytes may wait in the library for output space.
    output_pending: bool,
}

impl Zstd {
    /// Magic number of a frame.
    const MAGIC: u32 = 0xfd2f_b528;
    /// Magic number of a skippable frame, whose low four bits are free.
    const MAGIC_SKIPPABLE: u32 = 0x184d_2a50;

    /// A zstd decoder at the start of a frame.
    pub(crate) fn new() -> Zstd {
        let mut context = DCtx::create();
        // The library refuses only bounds outside of its range; this one is its default.
        let _ = context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX));
        Zstd { context, in_frame: false, input_due: 0, output_pending: false }
    }

    /// Whether every frame so far has decoded to its end, its checksum included, and no other has begun.
    pub(crate) fn is_between_frames(&self) -> bool {
        !self.in_frame
    }

    /// Decodes one piece of a zstd file into `out[*filled..]`. Calls `on_seek_point` with the offset and `filled` at
    /// the start of each frame.
    pub(crate) fn step(
        &mut self,
        input: &mut Input,
        out: &mut [u8],
        filled: &mut usize,
        on_seek_point: &mut impl FnMut(u64, usize),
    ) -> Result<DecodeStep, StoreFileError> {
        if !self.in_frame {
            return self.begin(input, *filled, on_seek_point);
        }
        let chunk = if self.output_pending { &[] } else { input.peek(self.input_due)? };
        let chunk = &chunk[..chunk.len().min(self.input_due)];
        let (mut from, mut to) = (InBuffer::around(chunk), OutBuffer::around(&mut out[*filled..]));
        let result = self.context.decompress_stream(&mut to, &mut from);
        let (consumed, produced, capacity) = (from.pos(), to.pos(), to.capacity());
        let is_stuck = consumed == 0 && produced == 0 && chunk.is_empty() && !self.output_pending;
        input.offset += consumed as u64;
        *filled += produced;
        self.output_pending = produced == capacity;
        match result {
            Ok(0) => (self.in_frame, self.output_pending) = (false, false),
            Ok(_) if is_stuck => return Ok(DecodeStep::Truncated),
            Ok(input_due) => self.input_due = input_due.min(READ_BYTES),
            Err(code) => {
                let name = zstd_safe::get_error_name(code);
                let advice =
                    if name.contains("too much memory") { "; recompress it with at most --long=27" } else { "" };
                return Ok(DecodeStep::Corrupt(format!("its zstd data is broken ({name}{advice})")));
            }
        }
        Ok(DecodeStep::More)
    }

    /// Reads the header of the next zstd frame, or skips a skippable one.
    fn begin(
        &mut self,
        input: &mut Input,
        filled: usize,
        on_seek_point: &mut impl FnMut(u64, usize),
    ) -> Result<DecodeStep, StoreFileError> {
        if input.is_at_end() {
            return Ok(DecodeStep::End);
        }
        let bytes = input.peek(8)?;
        let word = |offset: usize| bytes.get(offset..offset + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        match (word(0), word(4)) {
            (Some(Zstd::MAGIC), _) => {
                on_seek_point(input.offset, filled);
                (self.in_frame, self.output_pending, self.input_due) = (true, false, 5);
            }
            (Some(magic), len) if magic & !0xf == Zstd::MAGIC_SKIPPABLE => match len {
                Some(len) if 8 + len as u64 <= input.source.len() - input.offset => input.offset += 8 + len as u64,
                _ => return Ok(DecodeStep::Truncated),
            },
            (Some(_), _) => return Ok(DecodeStep::Corrupt("no zstd frame begins here".into())),
            (None, _) => return Ok(DecodeStep::Truncated),
        }
        Ok(DecodeStep::More)
    }
}
