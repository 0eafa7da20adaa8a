//! Deflate segments written: blocks that end on a byte boundary with an empty stored block, a sync flush, and refer to
//! nothing before the first, so that segments can stand in any order in one stream (RFC 1951).

use std::io;

use flate2::{Compress, Compression, FlushCompress, Status};

/// Compresses segments, one after another, each from a fresh state; its memory is used again.
pub(crate) struct SegmentDeflater {
    deflate: Compress,
}

impl SegmentDeflater {
    /// A compressor at a level of zlib, 0 to 9.
    pub(crate) fn new(level: u32) -> SegmentDeflater {
        SegmentDeflater { deflate: Compress::new(Compression::new(level), false) }
    }

    /// Appends the segment of these bytes to `out`.
    ///
    /// # Errors
    /// The compressor fails.
    pub(crate) fn segment(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.begin();
        out.reserve(input.len() / 6 + 256);
        self.run(input, FlushCompress::Sync, out)
    }

    /// Begins a segment that comes in pieces.
    pub(crate) fn begin(&mut self) {
        self.deflate.reset();
    }

    /// Takes a piece of a segment, and appends what it gives to `out`.
    ///
    /// # Errors
    /// The compressor fails.
    pub(crate) fn piece(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.run(input, FlushCompress::None, out)
    }

    /// Ends a segment that came in pieces.
    ///
    /// # Errors
    /// The compressor fails.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.run(&[], FlushCompress::Sync, out)
    }

    /// Compresses all of `input`, and what waits, as `flush` says.
    fn run(&mut self, input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) -> io::Result<()> {
        let begun = self.deflate.total_in();
        loop {
            if out.len() == out.capacity() {
                out.reserve(out.len().max(4096));
            }
            // All of it was taken from a slice.
            let consumed = (self.deflate.total_in() - begun) as usize;
            let status = self.deflate.compress_vec(&input[consumed..], out, flush).map_err(io::Error::other)?;
            let all = (self.deflate.total_in() - begun) as usize == input.len();
            // Room left in the output means that nothing waits but what a later flush will give.
            if status == Status::StreamEnd || all && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::deflate::SegmentInflater;

    /// Segments in one go and in pieces decode to their bytes, whatever the level and however often the compressor served.
    #[test]
    fn segments_decode_to_their_bytes() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> (24 + i % 7)) as u8).collect();
        let mut inflater = SegmentInflater::new();
        for level in [0, 1, 6, 9] {
            let mut deflater = SegmentDeflater::new(level);
            for part in [&bytes[..1], &bytes[..], &bytes[7..70_000], &[]] {
                let mut decoded = vec![0; part.len()];
                let mut whole = Vec::new();
                deflater.segment(part, &mut whole).unwrap();
                assert_eq!(inflater.decode(&whole, &mut decoded), Ok(()), "{level} {}", part.len());
                assert!(decoded == part);
                let mut in_pieces = Vec::new();
                deflater.begin();
                part.chunks(3_001).for_each(|piece| deflater.piece(piece, &mut in_pieces).unwrap());
                deflater.end(&mut in_pieces).unwrap();
                assert_eq!(inflater.decode(&in_pieces, &mut decoded), Ok(()), "{level} {}", part.len());
                assert!(decoded == part);
            }
        }
    }
}
