//! The outline of a line: its tokens without what stands in them, one byte each, and where they begin.
//!
//! Drawn a block at a time without a branch that ordinary text decides. Only strings and escapes are checked here;
//! whether the tokens make a JSON text, and what stands in numbers and literals, is for `shape` to know. The bytes are those of the text, one for
//! all numbers and literals, and one for a string: its opening quote.

use crate::extract::block::tokens::wrong_escapes;
use crate::limits::{OUTLINE_BYTES_MAX, OUTLINE_TOKENS_MAX};
use crate::simd::{BLOCK, Vector, escaped_characters};

/// A drawn line.
pub(crate) struct Skeleton {
    /// Bytes of the tokens; zeros behind the last.
    bytes: Box<[u8; OUTLINE_TOKENS_MAX + BLOCK]>,
    /// Where each begins, from the start of the line.
    places: Box<[u16; OUTLINE_TOKENS_MAX + BLOCK]>,
    tokens: usize,
    /// Where the line's newline stands in the text.
    pub(crate) end: usize,
    /// Whether a byte of 0x80 or above stands in the line, or close behind it.
    pub(crate) high: bool,
    /// The same of a backslash.
    pub(crate) escapes: bool,
}

impl Skeleton {
    pub(crate) fn new() -> Skeleton {
        Skeleton { bytes: Box::new([0; _]), places: Box::new([0; _]), tokens: 0, end: 0, high: false, escapes: false }
    }

    /// Bytes of the tokens.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.tokens]
    }

    /// Where a token begins, from the start of the line.
    #[inline(always)]
    pub(crate) fn place(&self, token: u16) -> usize {
        self.places[usize::from(token)].into()
    }

    /// A hash of the tokens, good enough to tell ordinary lines apart.
    #[inline(always)]
    pub(crate) fn hash(&self) -> u64 {
        let mut lanes = [self.tokens as u64; 8];
        for chunk in self.bytes[..self.tokens.next_multiple_of(BLOCK)].as_chunks::<BLOCK>().0 {
            for (lane, word) in lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
                *lane = lane.rotate_left(11) ^ u64::from_le_bytes(*word);
            }
        }
        lanes.iter().fold(0, |sum, lane| (sum ^ lane).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32))
    }

    /// Draws the line that starts at `start`. `false` when it cannot be drawn: it is too long, or wrong in itself.
    #[inline(always)]
    pub(crate) fn draw_tokens<V: Vector, const FULL: bool>(&mut self, vector: V, text: &[u8], start: usize) -> bool {
        let (mut count, mut high, mut escapes) = (0, 0, false);
        let (mut in_string_before, mut plain_before, mut escaped_before) = (0, 0, false);
        let mut padded = [b' '; BLOCK];
        let limit = text.len().min(start + OUTLINE_BYTES_MAX);
        let mut base = start;
        while base < limit && count <= OUTLINE_TOKENS_MAX {
            let block = match text[base..].first_chunk::<BLOCK>() {
                Some(block) => block,
                None => {
                    padded[..text.len() - base].copy_from_slice(&text[base..]);
                    &padded
                }
            };
            let found = vector.marks(block);
            let mut escaped = 0;
            if found.backslash != 0 || escaped_before {
                escapes = true;
                (escaped, escaped_before) = escaped_characters(found.backslash, BLOCK, escaped_before);
            }
            let quote = found.quote & !escaped;
            // Set from an opening quote up to the character before the closing one.
            let in_string = vector.prefix_xor(quote) ^ in_string_before;
            in_string_before = ((in_string as i64) >> 63) as u64;
            let outside = !(in_string | quote);
            let mut part = u64::MAX;
            let mut newline = 0;
            if found.control != 0 {
                newline = vector.classes(block).newline;
                part = (newline & outside) ^ (newline & outside).wrapping_sub(1);
                let wrong = if FULL { found.control } else { newline };
                if wrong & in_string & part != 0 {
                    return false;
                }
                newline &= outside;
                part &= !newline;
            }
            if FULL && escaped != 0 && wrong_escapes(text, base, escaped) & in_string & part != 0 {
                return false;
            }
            let plain = !(found.punctuation | found.space) & outside & part;
            let scalar = plain & !(plain << 1 | plain_before);
            plain_before = plain >> 63;
            high |= found.high;
            let tokens = (found.punctuation & outside | quote & in_string) & part | scalar;
            let bytes = self.bytes[count..].first_chunk_mut::<BLOCK>();
            let places = self.places[count..].first_chunk_mut::<BLOCK>();
            let (Some(bytes), Some(places)) = (bytes, places) else { return false };
            count += vector.pack(block, tokens, scalar, (base - start) as u16, bytes, places);
            if newline != 0 {
                let Some(behind) = self.bytes[count..].first_chunk_mut::<BLOCK>() else { return false };
                behind.fill(0);
                self.tokens = count;
                self.end = base + newline.trailing_zeros() as usize;
                self.high = high != 0;
                self.escapes = escapes;
                return true;
            }
            base += BLOCK;
        }
        false
    }
}
