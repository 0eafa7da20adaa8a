//! The tokens of a block from its classes: strings are separated from the text between them, and bytes that no JSON
//! text has are marked. Nothing here knows the grammar.

use crate::extract::scalar;
use crate::simd::{BLOCK, Classes, Vector, escaped_characters};

/// Positions of the tokens of a block, one bit for each byte. Bytes in strings are no tokens.
#[derive(Clone, Copy, Default)]
pub(crate) struct TokenMasks {
    /// Offset in the text of the block's first byte.
    pub(crate) base: usize,
    /// `{` and `[`
    pub(crate) open: u64,
    /// `}` and `]`
    pub(crate) close: u64,
    /// Bit 5 of the byte: distinguishes `{` and `}` from `[` and `]`.
    pub(crate) curly: u64,
    pub(crate) colon: u64,
    pub(crate) comma: u64,
    /// Line feeds outside of strings.
    pub(crate) newline: u64,
    /// Opening quotes of strings.
    pub(crate) opening: u64,
    /// Closing quotes of strings.
    pub(crate) closing: u64,
    /// First characters of numbers and literals.
    pub(crate) scalar: u64,
    /// Bytes of 0x80 and above, anywhere.
    pub(crate) high: u64,
    /// Illegal bytes in strings, and first characters of illegal numbers and literals.
    pub(crate) illegal: u64,
    /// Whether the block has a backslash, in strings or not.
    pub(crate) backslash: bool,
}

/// State that one block hands to the next about strings and scalars; the default is the start of a line.
#[derive(Default)]
pub(crate) struct TokenCarry {
    /// Whether the next character is escaped.
    escaped: bool,
    /// All ones inside a string, else 0.
    in_string: u64,
    /// 1 when the last character belongs to a number or literal, else 0.
    scalar: u64,
}

/// Masks of the tokens of the block at `base`, from its classes.
#[inline(always)]
pub(crate) fn tokens<V: Vector, const FULL: bool>(
    vector: V,
    text: &[u8],
    base: usize,
    classes: &Classes,
    carry: &mut TokenCarry,
) -> TokenMasks {
    let (mut escaped, mut illegal) = (0, 0);
    if classes.backslash != 0 || carry.escaped {
        (escaped, carry.escaped) = escaped_characters(classes.backslash, BLOCK, carry.escaped);
        if FULL {
            illegal = illegal_escapes(text, base, escaped);
        }
    }
    let quote = classes.quote & !escaped;
    // Set from an opening quote up to the character before the closing one.
    let in_string = vector.prefix_xor(quote) ^ carry.in_string;
    carry.in_string = ((in_string as i64) >> 63) as u64;
    let outside = !(in_string | quote);
    illegal = illegal & in_string | if FULL { classes.control & in_string } else { classes.newline & in_string };
    let plain = !(classes.punctuation() | classes.space) & outside;
    let scalar = plain & !(plain << 1 | carry.scalar);
    carry.scalar = plain >> 63;
    if FULL {
        let mut remaining = scalar;
        while remaining != 0 {
            let offset = remaining.trailing_zeros() as usize;
            remaining &= remaining - 1;
            let (state, _) = scalar::run(scalar::START, &text[base + offset..]);
            illegal |= u64::from(!scalar::accepts(state)) << offset;
        }
    }
    TokenMasks {
        base,
        open: classes.open & outside,
        close: classes.close & outside,
        curly: classes.curly,
        colon: classes.colon & outside,
        comma: classes.comma & outside,
        newline: classes.newline & outside,
        opening: quote & in_string,
        closing: quote & !in_string,
        scalar,
        high: classes.high,
        illegal,
        backslash: classes.backslash != 0,
    }
}

/// Those of the escaped characters of the block at `base` that form no escape of RFC 8259, section 7, or half of a
/// surrogate pair, which the scanner judges.
#[cold]
pub(crate) fn illegal_escapes(text: &[u8], base: usize, escaped: u64) -> u64 {
    let mut illegal = 0;
    let mut remaining = escaped;
    while remaining != 0 {
        let offset = remaining.trailing_zeros() as usize;
        remaining &= remaining - 1;
        let legal = match text.get(base + offset) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => true,
            Some(b'u') => code_unit(text, base + offset).is_some_and(|unit| match unit {
                0xd800..=0xdfff => is_paired(text, base + offset, unit),
                _ => true,
            }),
            _ => false,
        };
        illegal |= u64::from(!legal) << offset;
    }
    illegal
}

/// The UTF-16 code unit of an escape whose `u` is at `at`; `None` without four hexadecimal digits.
fn code_unit(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at + 1..at + 5)?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// Whether a surrogate, in the escape whose `u` is at `at`, is beside its other half. False also where that takes more
/// than a look at the neighbour.
fn is_paired(text: &[u8], at: usize, unit: u32) -> bool {
    if unit < 0xdc00 {
        let is_escape = text.get(at + 5..at + 7) == Some(b"\\u");
        return is_escape && code_unit(text, at + 6).is_some_and(|low| matches!(low, 0xdc00..=0xdfff));
    }
    // Behind another backslash the text before could be no escape.
    let Some(before) = at.checked_sub(8).and_then(|from| text.get(from..from + 3)) else { return false };
    let is_escape = before[0] != b'\\' && before[1..] == *b"\\u";
    is_escape && code_unit(text, at - 6).is_some_and(|high| matches!(high, 0xd800..=0xdbff))
}
