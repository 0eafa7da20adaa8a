//! The automaton of JSON numbers and literals, one byte at a time, so that it can resume in the next piece.

/// A state of the automaton.
pub(crate) type ScalarState = u8;

/// The state before the first byte.
pub(crate) const START: ScalarState = 0;
/// The state of a text that begins no number or literal.
pub(crate) const REJECT: ScalarState = 21;

/// States inside a number, each after the part of its name (RFC 8259, section 6).
const MINUS: ScalarState = 1;
const ZERO: ScalarState = 2;
const INTEGER: ScalarState = 3;
const POINT: ScalarState = 4;
const FRACTION: ScalarState = 5;
const EXPONENT: ScalarState = 6;
const SIGN: ScalarState = 7;
const POWER: ScalarState = 8;
/// First states of `true`, `false` and `null`, each followed by one state for each further letter.
const TRUE: ScalarState = 9;
const FALSE: ScalarState = 12;
const NULL: ScalarState = 16;
/// The state after the last letter of a literal.
const LITERAL_END: ScalarState = 19;

/// Whether the text read up to this state is a complete number or literal.
pub(crate) fn accepts(state: ScalarState) -> bool {
    matches!(state, ZERO | INTEGER | FRACTION | POWER | LITERAL_END)
}

/// The state after one more byte (RFC 8259, sections 3 and 6).
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

/// Whether a byte ends a number or literal: white space or punctuation. A quote does not, so that a string directly
/// behind one is rejected.
fn may_end(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b'}' | b']' | b':' | b'{' | b'[')
}

/// Reads `bytes` from `state` on: the state reached and the number of bytes read. If all were read, the number may
/// continue in the next piece.
#[inline]
pub(crate) fn run(mut state: ScalarState, bytes: &[u8]) -> (ScalarState, usize) {
    // Most numbers are short integers, which take only the first branch.
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
        /// The automaton accepts exactly the texts that serde_json accepts.
        #[test]
        fn scalars_are_those_of_serde(text in "[-+0-9.eEtrufalsn]{1,8}|-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,3})?([eE][-+]?[0-9]{1,3})?|true|false|null") {
            prop_assert_eq!(is_scalar(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }
}
