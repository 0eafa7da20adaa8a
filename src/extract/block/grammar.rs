//! The order of the tokens of a block: whether each follows one that it may follow, for all of them at once.

use crate::extract::block::row::OutOfOrdinary;
use crate::extract::block::tokens::TokenMasks;
use crate::simd::BLOCK;

/// Whether the first token of the next block follows a token of each class.
#[derive(Clone, Copy, Default)]
pub(crate) struct Followers {
    open_object: bool,
    open_array: bool,
    object_comma: bool,
    key: bool,
    /// A colon, or a comma in an array.
    value_due: bool,
}

/// Checks that each token in `part` follows one that it may follow (RFC 8259, section 2). `object` marks the positions
/// whose innermost container is an object.
#[inline(always)]
pub(crate) fn check_order<const FULL: bool>(
    tokens: &TokenMasks,
    part: u64,
    object: u64,
    line_start: usize,
    follows: &mut Followers,
) -> Result<(), OutOfOrdinary> {
    let open = tokens.open & part;
    let close = tokens.close & part;
    let comma = tokens.comma & part;
    let colon = tokens.colon & part;
    let quote = tokens.opening & part;
    let scalar = tokens.scalar & part;
    let newline = tokens.newline & part;
    let all = open | close | comma | colon | quote | scalar | newline;
    if !FULL && all == 0 {
        return Ok(());
    }
    // The tokens directly behind those of a class: the carry of the sum runs over positions without a token.
    let behind = |class: u64, carried: &mut bool| -> u64 {
        let (sum, over) = (class << 1 | u64::from(*carried)).overflowing_add(!all);
        *carried = over | (class >> 63 != 0);
        sum & all
    };
    let after_open_object = behind(open & tokens.curly, &mut follows.open_object);
    let after_open_array = behind(open & !tokens.curly, &mut follows.open_array);
    let after_object_comma = behind(comma & object, &mut follows.object_comma);
    let key = quote & (after_open_object | after_object_comma);
    let after_key = behind(key, &mut follows.key);
    let value_due = behind(colon | comma & !object, &mut follows.value_due);
    let after_value = all & !(after_open_object | after_open_array | after_object_comma | after_key | value_due);
    // The first token of a line follows none of these classes either, and must be an opening bracket.
    let first = match line_start.checked_sub(tokens.base) {
        Some(bit) if bit < BLOCK => 1 << bit,
        _ => 0,
    };
    let value = quote | scalar | open;
    let illegal = after_open_object & !(quote | close)
        | after_open_array & !(value | close)
        | after_object_comma & !quote
        | (after_key ^ colon)
        | value_due & !value
        | after_value & !(comma | close | newline | first & open);
    if illegal == 0 { Ok(()) } else { Err(OutOfOrdinary) }
}
