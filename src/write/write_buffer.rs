//! Write buffer of an output file: bytes that have not gone to its sink yet.
//!
//! Rows are read from the store straight into the buffer, which saves a copy, and leave in long writes that end
//! wherever a row does. Writes at multiples of their own length would fill larger pages of the kernel. That costs less
//! where such pages are free, and three times as much on a virtual machine whose host must provide them first (both
//! measured). Knows neither rows nor sinks.

use crate::limits::GATHER_BYTES;

/// Bytes of a file that follow its last write.
#[derive(Default)]
pub(crate) struct WriteBuffer {
    /// One byte that is never written, the gathered bytes, and unused room.
    buffer: Vec<u8>,
    len: usize,
}

impl WriteBuffer {
    /// Bytes that can be added before a write is due.
    pub(crate) fn room(&self) -> usize {
        GATHER_BYTES.saturating_sub(self.len)
    }

    /// Whether no bytes are gathered.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends bytes by copying them.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.uninit(bytes.len())[1..].copy_from_slice(bytes);
        self.take_bytes(bytes.len());
    }

    /// Space for the next `len` bytes, preceded by the last gathered byte (or by a filler byte when the buffer is
    /// empty). A caller that reads a file into the space from one byte earlier must read that same byte there.
    pub(crate) fn uninit(&mut self, len: usize) -> &mut [u8] {
        let end = self.len + 1 + len;
        if self.buffer.len() < end {
            // Doubling zeroes the memory once or twice in all; a short file never takes the full size.
            self.buffer.resize(end.max(self.buffer.len() * 2), 0);
        }
        &mut self.buffer[self.len..end]
    }

    /// Counts the first `len` bytes of the space as gathered.
    pub(crate) fn take_bytes(&mut self, len: usize) {
        self.len += len;
        debug_assert!(self.len < self.buffer.len().max(1));
    }

    /// Empties the buffer after its bytes were written.
    pub(crate) fn clear_sent(&mut self) {
        self.len = 0;
    }

    /// The gathered bytes, which the next write takes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(1..=self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that leave do not depend on the lengths of the pieces or on the way they are added.
    #[test]
    fn bytes_leave_in_order() {
        let bytes: Vec<u8> =
            (0..5 * GATHER_BYTES + 77).map(|position| (position.wrapping_mul(0x9e37_79b1) >> 9) as u8).collect();
        let (mut tail, mut out, mut offset, mut step) = (WriteBuffer::default(), Vec::new(), 0, 1);
        assert!(tail.bytes().is_empty() && tail.is_empty());
        while offset < bytes.len() {
            let len = step.min(bytes.len() - offset);
            match step % 2 {
                0 => tail.extend(&bytes[offset..offset + len]),
                _ => {
                    // As a reader of rows: from the byte before on, and more than is committed.
                    let place = tail.uninit(len + 1);
                    if offset > 0 {
                        place[0] = bytes[offset - 1];
                    }
                    place[1..=len].copy_from_slice(&bytes[offset..offset + len]);
                    place[len + 1] = b'x';
                    tail.take_bytes(len);
                }
            }
            offset += len;
            if tail.room() == 0 {
                out.extend_from_slice(tail.bytes());
                tail.clear_sent();
            }
            step = step * 7 % 400_009;
        }
        out.extend_from_slice(tail.bytes());
        assert!(out == bytes);
    }
}
