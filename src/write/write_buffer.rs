//! The tail of an output file: what has not gone to its sink yet.
//!
//! Rows are read straight into their place here, so that nothing is copied that need not be, and leave in long writes
//! that end wherever a row does. Writes at multiples of their own length would fill larger pages of the kernel, which
//! costs less where such pages are at hand, and three times as much on a virtual machine whose host must give them first
//! (both measured). Knows neither rows nor sinks.

use crate::limits::GATHER_BYTES;

/// What a file has beyond its last write.
#[derive(Default)]
pub(crate) struct WriteBuffer {
    /// A byte that is never written, what is gathered, and room.
    buffer: Vec<u8>,
    len: usize,
}

impl WriteBuffer {
    /// Bytes until a write is due.
    pub(crate) fn room(&self) -> usize {
        GATHER_BYTES.saturating_sub(self.len)
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends bytes.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.uninit(bytes.len())[1..].copy_from_slice(bytes);
        self.take_bytes(bytes.len());
    }

    /// The place of the next `len` bytes, led by the byte before it: the last one that was gathered, if there is one.
    /// Who reads a file into it from one byte further ahead must find the same there.
    pub(crate) fn uninit(&mut self, len: usize) -> &mut [u8] {
        let end = self.len + 1 + len;
        if self.buffer.len() < end {
            // It grows in few steps, and so is zeroed once or twice; a short file never takes all of it.
            self.buffer.resize(end.max(self.buffer.len() * 2), 0);
        }
        &mut self.buffer[self.len..end]
    }

    /// Takes so many bytes of the place as gathered.
    pub(crate) fn take_bytes(&mut self, len: usize) {
        self.len += len;
        debug_assert!(self.len < self.buffer.len().max(1));
    }

    /// All of it has been written.
    pub(crate) fn clear_sent(&mut self) {
        self.len = 0;
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(1..=self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the pieces, and whichever way they come, the same bytes leave.
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
                    // As who reads rows: from the byte before on, and more than is taken.
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
