//! The skeleton of a line: one byte for each token, and the offset at which each begins.
//!
//! It is built a block at a time without a branch that depends on ordinary text. Only strings and escapes are checked
//! here; `shape_cache` decides whether the tokens make a JSON text and checks numbers and literals. A token's byte is
//! that of the text; all numbers and literals have the same one, and a string has that of its opening quote.

use crate::extract::block::tokens::illegal_escapes;
use crate::limits::{OUTLINE_BYTES_MAX, OUTLINE_TOKENS_MAX};
use crate::simd::{BLOCK, Vector, WINDOW, escaped_characters};

/// The skeleton of one line, in buffers that are reused.
pub(crate) struct Skeleton {
    /// Bytes of the tokens; zeros fill the block behind the last.
    bytes: Box<[u8; OUTLINE_TOKENS_MAX + BLOCK]>,
    /// Offset of each token from the start of the line.
    offsets: Box<[u16; OUTLINE_TOKENS_MAX + BLOCK]>,
    /// Number of tokens.
    tokens: usize,
    /// Offset in the text of the line's newline.
    pub(crate) end: usize,
    /// Whether a byte of 0x80 or above occurs in the line or in the rest of its last block.
    pub(crate) high: bool,
    /// Whether a backslash occurs in the line or in the rest of its last block.
    pub(crate) escapes: bool,
    /// Offsets from the start of the line of the strings that have the letters of mentions; see [`Vector::mention_letters`].
    pub(crate) mentions: Vec<u16>,
}

impl Skeleton {
    /// A skeleton of no tokens.
    pub(crate) fn new() -> Skeleton {
        Skeleton {
            bytes: Box::new([0; _]),
            offsets: Box::new([0; _]),
            tokens: 0,
            end: 0,
            high: false,
            escapes: false,
            mentions: Vec::new(),
        }
    }

    /// Bytes of the skeleton's tokens.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.tokens]
    }

    /// Offset of a token from the start of the line.
    #[inline(always)]
    pub(crate) fn offset_of(&self, token: u16) -> usize {
        self.offsets[usize::from(token)].into()
    }

    /// A hash of the tokens that separates ordinary lines; not one against malice.
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

    /// Builds the skeleton of the line that starts at `start`; `false` when the line is too long, has an error in a
    /// string, or does not end.
    #[inline(always)]
    pub(crate) fn build<V: Vector, const FULL: bool>(&mut self, vector: V, text: &[u8], start: usize) -> bool {
        // State carried from block to block, as in `tokens::TokenCarry`.
        let (mut count, mut high, mut escapes) = (0, 0, false);
        self.mentions.clear();
        let (mut in_string_before, mut plain_before, mut escaped_before) = (0, 0, false);
        let mut padded = [b' '; WINDOW];
        let limit = text.len().min(start + OUTLINE_BYTES_MAX);
        let mut base = start;
        while base < limit && count <= OUTLINE_TOKENS_MAX {
            let window = match text[base..].first_chunk::<WINDOW>() {
                Some(window) => window,
                None => {
                    padded[..text.len() - base].copy_from_slice(&text[base..]);
                    &padded
                }
            };
            let Some(block) = window.first_chunk::<BLOCK>() else { return false };
            // 1. Strings: escaped characters, then the positions inside and outside of strings.
            let marks = vector.marks(block);
            let mut escaped = 0;
            if marks.backslash != 0 || escaped_before {
                escapes = true;
                (escaped, escaped_before) = escaped_characters(marks.backslash, BLOCK, escaped_before);
            }
            let quote = marks.quote & !escaped;
            // Set from an opening quote up to the character before the closing one.
            let in_string = vector.prefix_xor(quote) ^ in_string_before;
            in_string_before = ((in_string as i64) >> 63) as u64;
            let outside = !(in_string | quote);
            // 2. The part of the block before the first newline outside of strings, and illegal bytes in its strings.
            let mut part = u64::MAX;
            let mut newline = 0;
            if marks.control != 0 {
                newline = vector.classes(block).newline;
                part = (newline & outside) ^ (newline & outside).wrapping_sub(1);
                let illegal = if FULL { marks.control } else { newline };
                if illegal & in_string & part != 0 {
                    return false;
                }
                newline &= outside;
                part &= !newline;
            }
            if FULL && escaped != 0 && illegal_escapes(text, base, escaped) & in_string & part != 0 {
                return false;
            }
            // 3. Token starts, packed behind those of the blocks before.
            let plain = !(marks.punctuation | marks.space) & outside & part;
            let scalar = plain & !(plain << 1 | plain_before);
            plain_before = plain >> 63;
            high |= marks.high;
            let tokens = (marks.punctuation & outside | quote & in_string) & part | scalar;
            let bytes = self.bytes[count..].first_chunk_mut::<BLOCK>();
            let offsets = self.offsets[count..].first_chunk_mut::<BLOCK>();
            let (Some(bytes), Some(offsets)) = (bytes, offsets) else { return false };
            count += vector.pack(block, tokens, scalar, (base - start) as u16, bytes, offsets);
            // 4. The few strings that may be mentions.
            let mut mentions = vector.mention_letters(window) & quote & in_string & part;
            while mentions != 0 {
                self.mentions.push((base - start) as u16 + mentions.trailing_zeros() as u16);
                mentions &= mentions - 1;
            }
            // 5. The newline completes the skeleton; zeros follow its bytes, because `hash` reads whole blocks.
            if newline != 0 {
                let Some(padding) = self.bytes[count..].first_chunk_mut::<BLOCK>() else { return false };
                padding.fill(0);
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
