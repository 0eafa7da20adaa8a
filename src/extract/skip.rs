//! Skips values without followed paths, by table instead of by branch.
//!
//! Most of a resource is such values. The class of the next token cannot be predicted, so that a branch for each token
//! would dominate the walk. Here a token costs one look-up in a table of (innermost container, expected token, class),
//! and the grammar is still checked. An error is only detected here; the caller walks the block again token by token to
//! locate and name it.

/// The tokens that the grammar allows next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExpectedToken {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    /// No token: the resource is complete.
    Nothing,
    /// A token came that was not allowed.
    Wrong,
}

impl ExpectedToken {
    /// Every state, in the order of their numbers.
    const ALL: [ExpectedToken; 8] = [
        ExpectedToken::Value,
        ExpectedToken::ValueOrEnd,
        ExpectedToken::Key,
        ExpectedToken::KeyOrEnd,
        ExpectedToken::Colon,
        ExpectedToken::CommaOrEnd,
        ExpectedToken::Nothing,
        ExpectedToken::Wrong,
    ];
}

/// Classes of tokens: brackets, punctuation and strings.
const OPEN_OBJECT: u8 = 0;
const CLOSE_OBJECT: u8 = 1;
const OPEN_ARRAY: u8 = 2;
const CLOSE_ARRAY: u8 = 3;
const COLON: u8 = 4;
const COMMA: u8 = 5;
const QUOTE: u8 = 6;
/// Class of a number or a literal.
pub(crate) const SCALAR: u8 = 7;

/// Class of a token, by its first byte.
pub(crate) static CLASS: [u8; 256] = {
    let mut table = [SCALAR; 256];
    table[b'{' as usize] = OPEN_OBJECT;
    table[b'}' as usize] = CLOSE_OBJECT;
    table[b'[' as usize] = OPEN_ARRAY;
    table[b']' as usize] = CLOSE_ARRAY;
    table[b':' as usize] = COLON;
    table[b',' as usize] = COMMA;
    table[b'"' as usize] = QUOTE;
    table
};

/// The next expected token. Index: bit 6 is set when the innermost container is an object, bits 3 to 5 are the
/// expected token, bits 0 to 2 the class of the token.
static NEXT: [u8; 128] = {
    let mut table = [ExpectedToken::Wrong as u8; 128];
    let mut i = 0;
    while i < 128 {
        let in_object = i >= 64;
        let expect = ExpectedToken::ALL[i >> 3 & 7];
        let value = matches!(expect, ExpectedToken::Value | ExpectedToken::ValueOrEnd);
        let next = match (i & 7) as u8 {
            OPEN_OBJECT if value => ExpectedToken::KeyOrEnd,
            OPEN_ARRAY if value => ExpectedToken::ValueOrEnd,
            QUOTE | SCALAR if value => ExpectedToken::CommaOrEnd,
            QUOTE if matches!(expect, ExpectedToken::Key | ExpectedToken::KeyOrEnd) => ExpectedToken::Colon,
            COLON if matches!(expect, ExpectedToken::Colon) => ExpectedToken::Value,
            COMMA if matches!(expect, ExpectedToken::CommaOrEnd) => {
                if in_object {
                    ExpectedToken::Key
                } else {
                    ExpectedToken::Value
                }
            }
            CLOSE_OBJECT if in_object && matches!(expect, ExpectedToken::KeyOrEnd | ExpectedToken::CommaOrEnd) => {
                ExpectedToken::CommaOrEnd
            }
            CLOSE_ARRAY if !in_object && matches!(expect, ExpectedToken::ValueOrEnd | ExpectedToken::CommaOrEnd) => {
                ExpectedToken::CommaOrEnd
            }
            _ => ExpectedToken::Wrong,
        };
        table[i] = next as u8;
        i += 1;
    }
    table
};

/// State of a walk over skipped values.
#[derive(Clone, Copy)]
pub(crate) struct Skip {
    /// The [`ExpectedToken`], as its number.
    pub expect: u8,
    /// Kinds of the innermost containers, as in `Stack::top`.
    pub top: u64,
    /// Number of open containers.
    pub depth: u32,
}

impl Skip {
    /// The tokens that the grammar allows next.
    pub(crate) fn expect(&self) -> ExpectedToken {
        ExpectedToken::ALL[self.expect as usize & 7]
    }

    /// Takes one token of this class: moves the expected token and the stack of containers.
    #[inline(always)]
    pub(crate) fn step(&mut self, class: u8) {
        let position = (self.top & 1) << 6 | u64::from(self.expect) << 3 | u64::from(class);
        self.expect = NEXT[position as usize & 127];
        let opens = 0b0101u32 >> class & 1;
        let closes = 0b1010u32 >> class & 1;
        self.top = (self.top << opens | u64::from(class == OPEN_OBJECT)) >> closes;
        self.depth = self.depth.wrapping_add(opens).wrapping_sub(closes);
    }

    /// Whether the next token leaves the outer words of the stack untouched: the depth is not near a multiple of 64.
    #[inline(always)]
    pub(crate) fn has_room(&self) -> bool {
        (self.depth & 63).wrapping_sub(2) < 60
    }
}
