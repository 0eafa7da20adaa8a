//! The line numbers of a file that is read in pieces, for messages about its places.

/// Records offsets of newlines in a file read in pieces, to turn a byte offset into a line number.
#[derive(Default)]
pub(crate) struct LineCounter {
    position: u64,
    newlines: Vec<u64>,
}

impl LineCounter {
    /// Records the newlines of the next piece of a Group's file whose members are being resolved.
    pub(crate) fn count(&mut self, piece: &[u8]) {
        // A message needs the line of one offset; a file of more lines than this is no hand-written Group.
        if self.newlines.len() < 1 << 20 {
            self.newlines.extend(memchr::memchr_iter(b'\n', piece).map(|offset| self.position + offset as u64));
        }
        self.position += piece.len() as u64;
    }

    /// Line number, from 1, of a byte offset of a Group's file whose members are being resolved.
    pub(crate) fn line_of(&self, offset: u64) -> usize {
        self.newlines.partition_point(|position| *position < offset) + 1
    }
}
