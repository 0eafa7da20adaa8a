//! The compressed bytes of a store file, read ahead for a decoder, and what a decoder made of them in one step.

use crate::limits::READ_BYTES;
use crate::sys::store_file::{StoreFile, StoreFileError};

/// What one step of an engine came to.
pub(crate) enum DecodeStep {
    /// Go on.
    More,
    /// The file ends here, between two members.
    End,
    /// The file ends here, and must not.
    Truncated,
    Corrupt(String),
}

/// The compressed bytes from a place on.
pub(crate) struct Input<'a> {
    pub(crate) source: &'a StoreFile,
    pub(crate) at: u64,
    pub(crate) buf: Vec<u8>,
    pub(crate) buf_start: u64,
    pub(crate) buf_len: usize,
}

impl Input<'_> {
    /// At least `want` bytes (at most `READ_BYTES`), unless the file ends before. The bytes come in the same portions
    /// with a map and without, so that errors do, too.
    pub(crate) fn peek(&mut self, want: usize) -> Result<&[u8], StoreFileError> {
        let left = (self.source.len() - self.at).min(READ_BYTES as u64) as usize;
        let mut used = self.at - self.buf_start;
        if (self.buf_len as u64).saturating_sub(used) < want.min(left) as u64 {
            self.source.read(self.at, left, &mut self.buf)?;
            (self.buf_start, self.buf_len, used) = (self.at, left, 0);
        }
        let buf = match self.source.map() {
            Some(map) => &map[self.buf_start as usize..],
            None => &self.buf,
        };
        Ok(&buf[(used as usize).min(self.buf_len)..self.buf_len])
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.source.len()
    }
}
