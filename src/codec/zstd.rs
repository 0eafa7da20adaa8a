//! zstd files as frames (RFC 8878), skippable ones among them. Frames that need a dictionary are refused as damage.

use ::zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use crate::codec::input::{DecodeStep, Input};
use crate::limits::{READ_BYTES, ZSTD_WINDOW_LOG_MAX};
use crate::sys::store_file::StoreFileError;

/// Frames of a zstd file.
///
/// A call of the library that fails does not say what it had decoded before. So each call is given no more input than
/// the library asked for, which is one block, and none while decoded bytes wait for room: then a failing call has
/// nothing to lose but its own block.
pub(crate) struct Zstd {
    context: DCtx<'static>,
    in_frame: bool,
    /// Input that the next call wants, in bytes.
    wanted: usize,
    /// Decoded bytes wait for room.
    waiting: bool,
}

impl Zstd {
    const MAGIC: u32 = 0xfd2f_b528;
    const MAGIC_SKIPPABLE: u32 = 0x184d_2a50;

    pub(crate) fn new() -> Zstd {
        let mut context = DCtx::create();
        // The library refuses this for a bound that it does not know only; its default is the same.
        let _ = context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX));
        Zstd { context, in_frame: false, wanted: 0, waiting: false }
    }

    pub(crate) fn step(
        &mut self,
        input: &mut Input,
        out: &mut [u8],
        filled: &mut usize,
        passed: &mut impl FnMut(u64, usize),
    ) -> Result<DecodeStep, StoreFileError> {
        if !self.in_frame {
            return self.begin(input, *filled, passed);
        }
        let given = if self.waiting { &[] } else { input.peek(self.wanted)? };
        let given = &given[..given.len().min(self.wanted)];
        let (mut from, mut to) = (InBuffer::around(given), OutBuffer::around(&mut out[*filled..]));
        let result = self.context.decompress_stream(&mut to, &mut from);
        let (taken, made, room) = (from.pos(), to.pos(), to.capacity());
        let stuck = taken == 0 && made == 0 && given.is_empty() && !self.waiting;
        input.at += taken as u64;
        *filled += made;
        self.waiting = made == room;
        match result {
            Ok(0) => (self.in_frame, self.waiting) = (false, false),
            Ok(_) if stuck => return Ok(DecodeStep::Truncated),
            Ok(wanted) => self.wanted = wanted.min(READ_BYTES),
            Err(code) => {
                let name = zstd_safe::get_error_name(code);
                let advice =
                    if name.contains("too much memory") { "; recompress it with at most --long=27" } else { "" };
                return Ok(DecodeStep::Corrupt(format!("its zstd data is broken ({name}{advice})")));
            }
        }
        Ok(DecodeStep::More)
    }

    fn begin(
        &mut self,
        input: &mut Input,
        filled: usize,
        passed: &mut impl FnMut(u64, usize),
    ) -> Result<DecodeStep, StoreFileError> {
        if input.is_at_end() {
            return Ok(DecodeStep::End);
        }
        let bytes = input.peek(8)?;
        let word =
            |position: usize| bytes.get(position..position + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        match (word(0), word(4)) {
            (Some(Zstd::MAGIC), _) => {
                passed(input.at, filled);
                (self.in_frame, self.waiting, self.wanted) = (true, false, 5);
            }
            (Some(magic), len) if magic & !0xf == Zstd::MAGIC_SKIPPABLE => match len {
                Some(len) if 8 + len as u64 <= input.source.len() - input.at => input.at += 8 + len as u64,
                _ => return Ok(DecodeStep::Truncated),
            },
            (Some(_), _) => return Ok(DecodeStep::Corrupt("no zstd frame begins here".into())),
            (None, _) => return Ok(DecodeStep::Truncated),
        }
        Ok(DecodeStep::More)
    }
}
