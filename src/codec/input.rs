//! The compressed bytes of a store file, read ahead for a decoder, and the outcome of one decoding step.

use crate::limits::READ_BYTES;
use crate::sys::store_file::{StoreFile, StoreFileError};

/// Outcome of one step of a gzip or zstd decoder.
pub(crate) enum DecodeStep {
    /// Progress was made, or nothing was due: take the next step.
    More,
    /// The file ends between two members or frames.
    End,
    /// The file ends inside a member or frame.
    Truncated,
    /// The data is damaged, for this reason.
    Corrupt(String),
}

/// The compressed bytes of a store file from an offset on, with a window that is read ahead.
pub(crate) struct Input<'a> {
    pub(crate) source: &'a StoreFile,
    /// Offset in the file of the next compressed byte.
    pub(crate) offset: u64,
    /// The window's bytes, when the file is not mapped.
    pub(crate) buf: Vec<u8>,
    /// Offset in the file at which the window starts.
    pub(crate) buf_start: u64,
    /// Length of the window, in bytes.
    pub(crate) buf_len: usize,
}

impl Input<'_> {
    /// The next compressed bytes, without consuming them: at least `want` (at most `READ_BYTES`) unless the file ends
    /// before. The windows are the same with a map and without, so that errors are, too.
    pub(crate) fn peek(&mut self, want: usize) -> Result<&[u8], StoreFileError> {
        let ahead = (self.source.len() - self.offset).min(READ_BYTES as u64) as usize;
        let mut consumed = self.offset - self.buf_start;
        if (self.buf_len as u64).saturating_sub(consumed) < want.min(ahead) as u64 {
            self.source.read(self.offset, ahead, &mut self.buf)?;
            (self.buf_start, self.buf_len, consumed) = (self.offset, ahead, 0);
        }
        let buf = match self.source.map() {
            Some(map) => &map[self.buf_start as usize..],
            None => &self.buf,
        };
        Ok(&buf[(consumed as usize).min(self.buf_len)..self.buf_len])
    }

    /// Whether all compressed bytes are consumed.
    pub(crate) fn is_at_end(&self) -> bool {
        self.offset == self.source.len()
    }
}
