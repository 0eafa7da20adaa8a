//! Deflate segments: blocks of a deflate stream (RFC 1951), none of them its last, that end on a byte boundary and refer to
//! nothing before the first. Segments that follow one another are one stream, whoever wrote them.
//!
//! Nothing here knows gzip members, checksums or rows.

use flate2::{Decompress, FlushDecompress, Status};

/// An empty last block in the fixed code (RFC 1951 section 3.2.6). Behind a segment it ends the stream; behind anything
/// else, inside a block or off a byte boundary, no decoder takes it for one.
pub(crate) const LAST_BLOCK: [u8; 2] = [3, 0];

/// Decodes segments, one after another, each from a fresh state.
pub(crate) struct SegmentInflater {
    inflate: Decompress,
}

/// What a piece of a segment gave.
pub(crate) struct InflatedPiece {
    /// Bytes taken of the segment.
    pub consumed: usize,
    /// Bytes decoded.
    pub produced: usize,
}

impl SegmentInflater {
    /// A decoder at the start of a segment.
    pub(crate) fn new() -> SegmentInflater {
        SegmentInflater { inflate: Decompress::new(false) }
    }

    /// Decodes a segment into `out`, which must be as long as the segment is uncompressed.
    ///
    /// # Errors
    /// What the segment is instead, in words.
    pub(crate) fn decode(&mut self, segment: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
        self.begin();
        let InflatedPiece { consumed, produced } = self.piece(segment, out)?;
        if produced < out.len() {
            return Err("it holds less than the table says");
        }
        if consumed < segment.len() {
            return Err("it holds more than the table says");
        }
        self.end()
    }

    /// Begins the next segment.
    pub(crate) fn begin(&mut self) {
        self.inflate.reset(false);
    }

    /// Decodes a piece of a segment, as far as `out` has room.
    ///
    /// # Errors
    /// The data are no deflate blocks, refer to what stands before the segment, or have a last block.
    pub(crate) fn piece(&mut self, bytes: &[u8], out: &mut [u8]) -> Result<InflatedPiece, &'static str> {
        let (mut consumed, mut produced) = (0, 0);
        loop {
            let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
            let result = self.inflate.decompress(&bytes[consumed..], &mut out[produced..], FlushDecompress::None);
            let (taken, given) = (self.inflate.total_in() - taken, self.inflate.total_out() - given);
            // Both are parts of slices.
            (consumed, produced) = (consumed + taken as usize, produced + given as usize);
            match result {
                Ok(Status::StreamEnd) => return Err("its deflate data has a last block"),
                Ok(_) if taken == 0 && given == 0 => return Ok(InflatedPiece { consumed, produced }),
                Ok(_) => {}
                Err(_) => return Err("its deflate data is broken"),
            }
        }
    }

    /// Ends a segment whose pieces were decoded.
    ///
    /// # Errors
    /// It does not end with a block, on a byte boundary.
    pub(crate) fn end(&mut self) -> Result<(), &'static str> {
        let (taken, mut none) = (self.inflate.total_in(), [0; 1]);
        let given = self.inflate.total_out();
        let result = self.inflate.decompress(&LAST_BLOCK, &mut none, FlushDecompress::Finish);
        let is_end = matches!(result, Ok(Status::StreamEnd))
            && self.inflate.total_in() - taken == LAST_BLOCK.len() as u64
            && self.inflate.total_out() == given;
        if is_end { Ok(()) } else { Err("its deflate data does not end with a block") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    /// A segment of these bytes.
    fn segment(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() * 2 + 1000);
        Compress::new(Compression::new(level), false).compress_vec(bytes, &mut out, FlushCompress::Sync).unwrap();
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// A segment gives its bytes; cut anywhere, with anything behind, or with another length stated, it is refused.
        #[test]
        fn whole_segments_alone_are_taken(bytes in proptest::collection::vec(0..4_u8, 1..600), level in 0..=9_u32, more: u8) {
            let whole = segment(&bytes, level);
            let mut inflater = SegmentInflater::new();
            let mut out = vec![9; bytes.len()];
            prop_assert_eq!(inflater.decode(&whole, &mut out), Ok(()));
            prop_assert_eq!(&out, &bytes);
            for cut in 0..whole.len() {
                // A stored block of nothing may be cut off its end: what stays is a shorter segment, if it ends on a byte.
                let is_taken = inflater.decode(&whole[..cut], &mut out).is_ok();
                prop_assert!(!is_taken || whole.len() - cut == 5 && out == bytes, "cut to {}", cut);
            }
            let longer = [&whole[..], &[more]].concat();
            prop_assert!(inflater.decode(&longer, &mut out).is_err());
            let ended = [&whole[..], &LAST_BLOCK].concat();
            prop_assert!(inflater.decode(&ended, &mut out).is_err());
            prop_assert!(inflater.decode(&whole, &mut vec![0; bytes.len() + 1]).is_err());
            prop_assert!(inflater.decode(&whole, &mut vec![0; bytes.len() - 1]).is_err());
        }

        /// What is taken joins: segments in a row, each decoded alone, are one stream of the same bytes.
        #[test]
        fn what_is_taken_joins(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..6)) {
            let mut inflater = SegmentInflater::new();
            // Any bytes may come from a stranger: those that are taken by themselves are the interesting ones.
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for part in &parts {
                for candidate in [part.clone(), segment(part, 6)] {
                    let mut out = vec![0; 4096];
                    inflater.begin();
                    let Ok(piece) = inflater.piece(&candidate, &mut out) else { continue };
                    out.truncate(piece.produced);
                    if inflater.decode(&candidate, &mut out).is_ok() {
                        stream.extend_from_slice(&candidate);
                        expected.extend_from_slice(&out);
                    }
                }
            }
            stream.extend_from_slice(&LAST_BLOCK);
            let mut read = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::DeflateDecoder::new(&stream[..]), &mut read).unwrap();
            prop_assert_eq!(read, expected);
        }
    }
}
