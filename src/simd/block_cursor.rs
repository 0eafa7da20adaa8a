//! A cursor on a piece of a row that finds ends of strings and of nested values, 64 bytes at a time.
//!
//! Knows no grammar. What a string is at the start of a piece comes from the pieces before it.

use crate::simd::{BLOCK, Vector, escaped_characters};

/// What one piece of a row hands to the next; the default is the start of a row.
#[derive(Clone, Copy, Default)]
pub(crate) struct StringCarry {
    /// Whether the next character is escaped.
    escaped: bool,
    /// All ones inside a string, else 0.
    in_string: u64,
}

/// A position in a piece, and the classes of the block that it lies in.
pub(crate) struct BlockCursor<'a, V: Vector> {
    vector: V,
    piece: &'a [u8],
    carry: StringCarry,
    /// Offset of the next byte.
    pub(crate) at: usize,
    /// Offset of the first byte behind the block whose classes are held.
    block_end: usize,
    /// Quotes at ends of strings, either end.
    quote: u64,
    /// `{` and `[` outside of strings.
    open: u64,
    /// `}` and `]` outside of strings.
    close: u64,
}

impl<'a, V: Vector> BlockCursor<'a, V> {
    /// A cursor at the start of a piece.
    #[inline(always)]
    pub(crate) fn new(vector: V, piece: &'a [u8], carry: StringCarry) -> BlockCursor<'a, V> {
        BlockCursor { vector, piece, carry, at: 0, block_end: 0, quote: 0, open: 0, close: 0 }
    }

    /// The next byte; `None` at the end of the piece.
    #[inline(always)]
    pub(crate) fn byte(&self) -> Option<u8> {
        self.piece.get(self.at).copied()
    }

    /// Moves to the next quote that begins or ends a string, if the byte here does not; `false` at the end of the piece.
    #[inline(always)]
    pub(crate) fn find_quote(&mut self) -> bool {
        while self.at < self.piece.len() {
            let behind = self.classify() & self.quote;
            if behind != 0 {
                self.at = self.block_end - BLOCK + behind.trailing_zeros() as usize;
                return true;
            }
            self.at = self.block_end;
        }
        self.at = self.piece.len();
        false
    }

    /// Moves behind the bracket that closes the outermost of `depth` open containers; `false` at the end of the piece, with
    /// the number of those that are still open.
    #[inline(always)]
    pub(crate) fn leave_containers(&mut self, depth: &mut u64) -> bool {
        while self.at < self.piece.len() {
            let behind = self.classify();
            let (open, mut close) = (self.open & behind, self.close & behind);
            // A block with fewer closing brackets than there are open containers cannot leave them.
            if u64::from(close.count_ones()) >= *depth {
                let mut closed = 0;
                while close != 0 {
                    closed += 1;
                    let bit = close & close.wrapping_neg();
                    if *depth + u64::from((open & (bit - 1)).count_ones()) == closed {
                        self.at = self.block_end - BLOCK + bit.trailing_zeros() as usize + 1;
                        *depth = 0;
                        return true;
                    }
                    close &= close - 1;
                }
            }
            *depth = *depth + u64::from(open.count_ones()) - u64::from((self.close & behind).count_ones());
            self.at = self.block_end;
        }
        self.at = self.piece.len();
        false
    }

    /// Classifies the rest of the piece; what the next piece needs.
    #[inline(always)]
    pub(crate) fn finish(mut self) -> StringCarry {
        if !self.piece.is_empty() {
            self.at = self.piece.len() - 1;
            self.classify();
        }
        self.carry
    }

    /// Has the classes of the block that the position lies in, and of each before it: strings are told by all of them.
    /// Returns the bits of the position and of those behind it.
    #[inline(always)]
    fn classify(&mut self) -> u64 {
        while self.block_end <= self.at {
            let rest = &self.piece[self.block_end..];
            match rest.first_chunk() {
                Some(block) => self.take_block(block, BLOCK),
                None => {
                    let mut block = [b' '; BLOCK];
                    block[..rest.len()].copy_from_slice(rest);
                    self.take_block(&block, rest.len());
                }
            }
        }
        u64::MAX << (self.at + BLOCK - self.block_end)
    }

    /// Classifies the next block, of which `len` bytes are of the piece.
    #[inline(always)]
    fn take_block(&mut self, block: &[u8; BLOCK], len: usize) {
        let classes = self.vector.classes(block);
        let mut escaped = 0;
        if classes.backslash != 0 || self.carry.escaped {
            (escaped, self.carry.escaped) = escaped_characters(classes.backslash, len, self.carry.escaped);
        }
        self.quote = classes.quote & !escaped;
        // Set from an opening quote up to the character before the closing one.
        let in_string = self.vector.prefix_xor(self.quote) ^ self.carry.in_string;
        self.carry.in_string = ((in_string as i64) >> 63) as u64;
        (self.open, self.close) = (classes.open & !in_string, classes.close & !in_string);
        self.block_end += BLOCK;
    }
}
