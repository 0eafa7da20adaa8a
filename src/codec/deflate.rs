//! Deflate segments: blocks of a deflate stream (RFC 1951), none of them its last, that end with an empty stored block and refer
//! to nothing before the first. Segments that follow one another are one stream, whoever wrote them.
//!
//! Fixed bytes appended to a segment do not prove that it ends there: an attacker can choose the Huffman codes of a block so that
//! the block goes on in those bytes. So the four length bytes of the empty stored block at the end are replaced by those of a
//! stored block of 16 random bytes. A decoder outputs these bytes only if it is inside that stored block.
//!
//! Nothing here knows gzip members, checksums or rows.

use std::hash::{BuildHasher, RandomState};

use flate2::{Decompress, FlushDecompress, Status};

/// An empty last block in the fixed code (RFC 1951 section 3.2.6), which ends a stream of segments.
pub(crate) const LAST_BLOCK: [u8; 2] = [3, 0];
/// Length of an empty stored block and its complement (RFC 1951 section 3.2.4): the last bytes of each segment.
pub(crate) const SEGMENT_END: [u8; 4] = [0, 0, 0xff, 0xff];
/// Random bytes that a decoder is given at the end of a segment.
const PROBE_BYTES: usize = 16;

/// Decodes segments, one after another, each from a fresh state.
pub(crate) struct SegmentInflater {
    inflate: Decompress,
    /// Contents of a stored block that nobody can foresee.
    probe: [u8; PROBE_BYTES],
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
        let random = RandomState::new();
        let mut probe = [0; PROBE_BYTES];
        for (i, part) in probe.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&random.hash_one(i).to_le_bytes());
        }
        SegmentInflater { inflate: Decompress::new(false), probe }
    }

    /// Decodes a segment into `out`, which must be as long as the segment is uncompressed.
    ///
    /// # Errors
    /// What the segment is instead, in words.
    pub(crate) fn decode(&mut self, segment: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
        self.begin();
        let (blocks, end) = segment.split_last_chunk::<4>().ok_or("it is too short to be one")?;
        let InflatedPiece { consumed, produced } = self.piece(blocks, out)?;
        if produced < out.len() {
            return Err("it holds less than the table says");
        }
        if consumed < blocks.len() {
            return Err("it holds more than the table says");
        }
        self.end(*end)
    }

    /// Begins the next segment.
    pub(crate) fn begin(&mut self) {
        self.inflate.reset(false);
    }

    /// Decodes a piece of a segment, as far as `out` has room. Its last four bytes are no piece: they go to
    /// [`SegmentInflater::end`].
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

    /// Ends a segment whose pieces were decoded, but for its last four bytes.
    ///
    /// # Errors
    /// It does not end with an empty stored block.
    pub(crate) fn end(&mut self, end: [u8; 4]) -> Result<(), &'static str> {
        let wrong = "its deflate data does not end with an empty stored block";
        let len = PROBE_BYTES as u16;
        let mut stored = [0; 4 + PROBE_BYTES];
        stored[..2].copy_from_slice(&len.to_le_bytes());
        stored[2..4].copy_from_slice(&(!len).to_le_bytes());
        stored[4..].copy_from_slice(&self.probe);
        let mut out = [0; PROBE_BYTES + 1];
        let InflatedPiece { consumed, produced } = self.piece(&stored, &mut out).map_err(|_| wrong)?;
        match end == SEGMENT_END && consumed == stored.len() && out[..produced] == self.probe {
            true => Ok(()),
            false => Err(wrong),
        }
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
                prop_assert!(inflater.decode(&whole[..cut], &mut out).is_err(), "cut to {}", cut);
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
                    let blocks = &candidate[..candidate.len().saturating_sub(4)];
                    let Ok(piece) = inflater.piece(blocks, &mut out) else { continue };
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

    /// Bits of a deflate stream, written from the lowest of each byte on.
    #[derive(Default)]
    struct BitWriter {
        bytes: Vec<u8>,
        used: u32,
    }

    impl BitWriter {
        /// Writes the lowest `count` bits of a number, the lowest first.
        fn number(&mut self, value: u32, count: u32) {
            for i in 0..count {
                if self.used.is_multiple_of(8) {
                    self.bytes.push(0);
                }
                let last = self.bytes.len() - 1;
                self.bytes[last] |= ((value >> i & 1) as u8) << (self.used % 8);
                self.used += 1;
            }
        }

        /// Writes a code, its highest bit first.
        fn code(&mut self, code: u32, count: u32) {
            (0..count).rev().for_each(|i| self.number(code >> i & 1, 1));
        }
    }

    /// A block whose end-of-block code is what would follow the segment: it is no end, whether the block is the last one or not.
    /// The code of `"` is 0 and that of the end of the block 11, with which [`LAST_BLOCK`] begins.
    #[test]
    fn a_block_that_goes_on_behind_the_segment_is_no_end() {
        for is_last in [0, 1] {
            let mut bits = BitWriter::default();
            bits.number(is_last, 1);
            bits.number(2, 2);
            // 257 literals and lengths, one distance, 18 lengths of code lengths; of these 1, 2, 0 (by 18: zeros) have codes.
            [(0, 5), (0, 5), (14, 4)].into_iter().for_each(|(value, count)| bits.number(value, count));
            // In the order of RFC 1951: 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1.
            for length in [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2] {
                bits.number(length, 3);
            }
            // Codes: 18 is 0, 1 is 10, 2 is 11.
            let zeros = |bits: &mut BitWriter, count: u32| {
                bits.code(0, 1);
                bits.number(count - 11, 7);
            };
            // 34 ('"') has one bit, 13 and 256 (end of block) have two each.
            zeros(&mut bits, 13);
            bits.code(0b11, 2);
            zeros(&mut bits, 20);
            bits.code(0b10, 2);
            [138, 83].into_iter().for_each(|count| zeros(&mut bits, count));
            bits.code(0b11, 2);
            // The one distance has a code of one bit.
            bits.code(0b10, 2);
            let mut text = Vec::new();
            while !bits.used.is_multiple_of(8) || text.len() < 20 {
                bits.code(0, 1);
                text.push(b'"');
            }
            let mut inflater = SegmentInflater::new();
            let mut out = vec![0; text.len()];
            inflater.begin();
            let piece = inflater.piece(&bits.bytes, &mut out).unwrap();
            assert_eq!(
                (piece.consumed, piece.produced, &out),
                (bits.bytes.len(), text.len(), &text),
                "last: {is_last}"
            );
            for behind in
                [&[][..], &[0xff; 4], &SEGMENT_END, &[0, 0, 0, 0xff, 0xff], &LAST_BLOCK, &[3, 0, 0, 0, 0xff, 0xff]]
            {
                let segment = [&bits.bytes[..], behind].concat();
                for more in 0..4 {
                    let mut out = vec![0; text.len() + more];
                    assert!(inflater.decode(&segment, &mut out).is_err(), "last: {is_last}, behind: {behind:?}");
                }
            }
        }
    }
}
