//! From the classes of a block to its tokens: strings are told from what stands between them, and what cannot stand in
//! any JSON text is marked. Nothing here knows the grammar.

use crate::extract::scalar;
use crate::simd::{BLOCK, Classes, Vector, escaped_characters};

/// Where the tokens of a block stand; strings are told apart.
#[derive(Clone, Copy, Default)]
pub(crate) struct TokenMasks {
    pub(crate) base: usize,
    pub(crate) open: u64,
    pub(crate) close: u64,
    pub(crate) curly: u64,
    pub(crate) colon: u64,
    pub(crate) comma: u64,
    pub(crate) newline: u64,
    /// Opening quotes.
    pub(crate) opening: u64,
    /// Closing quotes.
    pub(crate) closing: u64,
    /// First characters of numbers and literals.
    pub(crate) scalar: u64,
    /// Bytes of 0x80 and above, anywhere.
    pub(crate) high: u64,
    /// What no JSON text has: inside strings, or a number or literal that is none.
    pub(crate) wrong: u64,
    /// Whether a backslash stands anywhere.
    pub(crate) backslash: bool,
}

/// What one block hands to the next about strings and scalars.
#[derive(Default)]
pub(crate) struct TokenCarry {
    escaped: bool,
    in_string: u64,
    scalar: u64,
}

/// Tells strings from what stands between them.
#[inline(always)]
pub(crate) fn tokens<V: Vector, const FULL: bool>(
    vector: V,
    text: &[u8],
    base: usize,
    found: &Classes,
    carry: &mut TokenCarry,
) -> TokenMasks {
    let (mut escaped, mut wrong) = (0, 0);
    if found.backslash != 0 || carry.escaped {
        (escaped, carry.escaped) = escaped_characters(found.backslash, BLOCK, carry.escaped);
        if FULL {
            wrong = wrong_escapes(text, base, escaped);
        }
    }
    let quote = found.quote & !escaped;
    // Set from an opening quote up to the character before the closing one.
    let in_string = vector.prefix_xor(quote) ^ carry.in_string;
    carry.in_string = ((in_string as i64) >> 63) as u64;
    let outside = !(in_string | quote);
    wrong = wrong & in_string | if FULL { found.control & in_string } else { found.newline & in_string };
    let plain = !(found.punctuation() | found.space) & outside;
    let scalar = plain & !(plain << 1 | carry.scalar);
    carry.scalar = plain >> 63;
    if FULL {
        let mut left = scalar;
        while left != 0 {
            let offset = left.trailing_zeros() as usize;
            left &= left - 1;
            let (state, _) = scalar::run(scalar::START, &text[base + offset..]);
            wrong |= u64::from(!scalar::accepts(state)) << offset;
        }
    }
    TokenMasks {
        base,
        open: found.open & outside,
        close: found.close & outside,
        curly: found.curly,
        colon: found.colon & outside,
        comma: found.comma & outside,
        newline: found.newline & outside,
        opening: quote & in_string,
        closing: quote & !in_string,
        scalar,
        high: found.high,
        wrong,
        backslash: found.backslash != 0,
    }
}

/// Those of the escaped characters that make no escape of RFC 8259, section 7.
#[cold]
pub(crate) fn wrong_escapes(text: &[u8], base: usize, escaped: u64) -> u64 {
    let mut wrong = 0;
    let mut left = escaped;
    while left != 0 {
        let offset = left.trailing_zeros() as usize;
        left &= left - 1;
        let legal = match text.get(base + offset) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => true,
            Some(b'u') => text
                .get(base + offset + 1..base + offset + 5)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
            _ => false,
        };
        wrong |= u64::from(!legal) << offset;
    }
    wrong
}
