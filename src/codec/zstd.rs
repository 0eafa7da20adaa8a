//! zstd files decoded frame by frame (RFC 8878), skippable frames included. Frames that need a dictionary are refused
//! as damage.

use ::zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use crate::codec::input::{DecodeStep, Input};
use crate::limits::{READ_BYTES, ZSTD_WINDOW_LOG_MAX};
use crate::sys::store_file::StoreFileError;

/// Longest header of a frame, in bytes (RFC 8878, 3.1.1.1), its magic number included.
pub(crate) const FRAME_HEADER_BYTES_MAX: usize = 18;

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
    /// What is wrong with the window of the current frame.
    window_problem: Option<String>,
    /// Bytes that the header of the current frame promises and that are not decoded yet; `None` if it promises nothing.
    promised: Option<u64>,
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
        Zstd { context, in_frame: false, input_due: 0, output_pending: false, window_problem: None, promised: None }
    }

    /// The window that the frame which begins with these bytes needs, in bytes; `None` if it is no frame, or one whose window
    /// is not in its header.
    pub(crate) fn window_of_frame(start: &[u8]) -> Option<u64> {
        let (magic, rest) = start.split_first_chunk::<4>()?;
        let (descriptor, rest) = rest.split_first()?;
        let is_single_segment = descriptor & 0x20 != 0;
        if u32::from_le_bytes(*magic) != Zstd::MAGIC {
            return None;
        }
        if !is_single_segment {
            // Window_Descriptor (RFC 8878, 3.1.1.1.2): an exponent in five bits, eighths of that power of two in three.
            let window = *rest.first()?;
            let base = 1u64 << (10 + (window >> 3));
            return Some(base + base / 8 * u64::from(window & 7));
        }
        // Without one the whole content is the window.
        let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let rest = rest.get(dictionary_bytes..)?;
        let size = |bytes: usize| {
            let mut word = [0; 8];
            word[..bytes].copy_from_slice(rest.get(..bytes)?);
            Some(u64::from_le_bytes(word))
        };
        match descriptor >> 6 {
            0 => size(1),
            1 => size(2).map(|bytes| bytes + 256),
            2 => size(4),
            _ => size(8),
        }
    }

    /// What is wrong with a frame that begins with these bytes, if it is that its window is larger than is taken.
    pub(crate) fn window_problem(start: &[u8]) -> Option<String> {
        let most = 1 << ZSTD_WINDOW_LOG_MAX;
        let window = Zstd::window_of_frame(start).filter(|window| *window > most)?;
        // Rounded up, so that what is not taken is never told as what is.
        let (window, most) = (window.div_ceil(1 << 20), most >> 20);
        Some(format!(
            "a zstd frame needs a window of {window} MiB, more than the {most} MiB that are taken; compress it again with \
             --long={ZSTD_WINDOW_LOG_MAX} or less"
        ))
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
        // More than was promised is an error of the library.
        self.promised = self.promised.map(|promised| promised.saturating_sub(produced as u64));
        match result {
            // The library compares the promise with the content, but not in a frame that ends with an empty block.
            Ok(0) if self.promised.is_some_and(|promised| promised > 0) => {
                return Ok(DecodeStep::Corrupt("a zstd frame ends before the length in its header".into()));
            }
            Ok(0) => (self.in_frame, self.output_pending) = (false, false),
            Ok(_) if is_stuck => return Ok(DecodeStep::Truncated),
            Ok(input_due) => self.input_due = input_due.min(READ_BYTES),
            Err(code) => {
                let broken = || format!("its zstd data is broken ({})", zstd_safe::get_error_name(code));
                return Ok(DecodeStep::Corrupt(self.window_problem.take().unwrap_or_else(broken)));
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
        let bytes = input.peek(FRAME_HEADER_BYTES_MAX)?;
        let word = |offset: usize| bytes.get(offset..offset + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        match (word(0), word(4)) {
            (Some(Zstd::MAGIC), _) => {
                self.window_problem = Zstd::window_problem(bytes);
                // A header that is damaged is refused by the library.
                self.promised = zstd_safe::get_frame_content_size(bytes).ok().flatten();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of headers of every form, and headers that have none.
    #[test]
    fn windows_are_read_from_headers() {
        let magic = Zstd::MAGIC.to_le_bytes();
        let window = |rest: &[u8]| Zstd::window_of_frame(&[&magic, rest].concat());
        assert_eq!(window(&[0, 0x88]), Some(128 << 20));
        assert_eq!(window(&[0, 0x89]), Some(144 << 20));
        assert_eq!(window(&[4, 0xff]), Some((1 << 41) / 8 * 15));
        // The content is the window: 1, 2, 4 and 8 bytes, behind a dictionary id.
        assert_eq!(window(&[0x20, 7]), Some(7));
        assert_eq!(window(&[0x61, 9, 1, 0]), Some(257));
        assert_eq!(window(&[0xa3, 9, 9, 9, 9, 0, 0, 0, 9]), Some(9 << 24));
        assert_eq!(window(&[0xe0, 0, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 32));
        for cut in [&[][..], &[0], &[0x20], &[0xa3, 9, 9, 9, 9, 0, 0, 0]] {
            assert_eq!(window(cut), None, "{cut:?}");
        }
        assert_eq!(Zstd::window_of_frame(&[0x50, 0x2a, 0x4d, 0x18, 0, 0x90]), None, "a skippable frame");
        let problem = |byte: u8| Zstd::window_problem(&[&magic[..], &[0, byte]].concat());
        assert_eq!(problem(0x88), None);
        let text = problem(0x89).unwrap();
        assert!(text.contains("a window of 144 MiB, more than the 128 MiB") && text.contains("--long=27"), "{text}");
    }

    /// The library refuses just the windows that are told as too large.
    #[test]
    fn windows_that_are_told_are_those_refused() {
        let mut frame = ::zstd::stream::encode_all(&b"{}\n"[..], 1).unwrap();
        assert_eq!(frame[4] & 0x20, 0, "the encoder writes a window");
        for (byte, fits) in [(0x88, true), (0x89, false), (0x90, false), (0xa8, false)] {
            frame[5] = byte;
            let mut context = Zstd::new().context;
            let mut out = Vec::with_capacity(64);
            let (mut from, mut to) = (InBuffer::around(&frame), OutBuffer::around(&mut out));
            assert_eq!(context.decompress_stream(&mut to, &mut from).is_ok(), fits, "{byte}");
            assert_eq!(Zstd::window_problem(&frame).is_none(), fits, "{byte}");
        }
    }
}
