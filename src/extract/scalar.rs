//! Numbers and literals, one byte at a time, so that one can go on in the next piece.

/// A state of the automaton.
pub(crate) type ScalarState = u8;

/// Nothing read yet.
pub(crate) const START: ScalarState = 0;
/// No number or literal begins so.
pub(crate) const REJECT: ScalarState = 21;

const MINUS: ScalarState = 1;
const ZERO: ScalarState = 2;
const INTEGER: ScalarState = 3;
const POINT: ScalarState = 4;
const FRACTION: ScalarState = 5;
const EXPONENT: ScalarState = 6;
const SIGN: ScalarState = 7;
const POWER: ScalarState = 8;
/// `true`, `false` and `null` from their first letters on; each has its states in a row.
const TRUE: ScalarState = 9;
const FALSE: ScalarState = 12;
const NULL: ScalarState = 16;
const LITERAL_END: ScalarState = 19;

/// Whether a number or literal may end in this state.
pub(crate) fn accepts(state: ScalarState) -> bool {
    matches!(state, ZERO | INTEGER | FRACTION | POWER | LITERAL_END)
}

/// The state behind one more byte (RFC 8259, sections 3 and 6).
fn step(state: ScalarState, byte: u8) -> ScalarState {
    match (state, byte) {
        (START, b'-') => MINUS,
        (START | MINUS, b'0') => ZERO,
        (START | MINUS, b'1'..=b'9') => INTEGER,
        (START, b't') => TRUE,
        (START, b'f') => FALSE,
        (START, b'n') => NULL,
        (INTEGER, b'0'..=b'9') => INTEGER,
        (ZERO | INTEGER, b'.') => POINT,
        (POINT | FRACTION, b'0'..=b'9') => FRACTION,
        (ZERO | INTEGER | FRACTION, b'e' | b'E') => EXPONENT,
        (EXPONENT, b'+' | b'-') => SIGN,
        (EXPONENT | SIGN | POWER, b'0'..=b'9') => POWER,
        (TRUE, b'r') | (FALSE, b'a') | (NULL, b'u') => state + 1,
        (10, b'u') | (13, b'l') | (14, b's') | (17, b'l') => state + 1,
        (11, b'e') | (15, b'e') | (18, b'l') => LITERAL_END,
        _ => REJECT,
    }
}

/// Whether a byte ends a number or literal: white space or punctuation. A quote does not, so that it is rejected.
fn may_end(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b'}' | b']' | b':' | b'{' | b'[')
}

/// Reads on from `state`: the state reached and the bytes read. All bytes read means that it may go on.
#[inline]
pub(crate) fn run(mut state: ScalarState, bytes: &[u8]) -> (ScalarState, usize) {
    // Most numbers are short integers; this is their whole way.
    for (i, byte) in bytes.iter().enumerate() {
        if state == INTEGER && byte.is_ascii_digit() {
            continue;
        }
        if may_end(*byte) {
            return (state, i);
        }
        state = step(state, *byte);
        if state == REJECT {
            return (state, i);
        }
    }
    (state, bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_scalar(text: &str) -> bool {
        let (state, read) = run(START, text.as_bytes());
        read == text.len() && accepts(state)
    }

    proptest! {
        /// The automaton takes exactly what serde_json takes.
        #[test]
        fn scalars_are_those_of_serde(text in "[-+0-9.eEtrufalsn]{1,8}|-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,3})?([eE][-+]?[0-9]{1,3})?|true|false|null") {
            prop_assert_eq!(is_scalar(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }
}
