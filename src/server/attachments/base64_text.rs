//! The bytes of a base64 text that is the inside of a JSON string, in pieces of any size (RFC 4648, section 4;
//! <https://hl7.org/fhir/R4/datatypes.html#base64Binary>).
//!
//! White space may stand anywhere, as R4 has it, and characters may be escaped as JSON has it. The text is a whole number of
//! groups of four characters, of which the last one may be padded. Bits that a padded group has too many are ignored.

/// The text is no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotBase64;

/// Value of a byte that is no digit of base64.
const NO_DIGIT: u8 = 0xff;
/// Values of the digits by their characters.
const DIGITS: [u8; 256] = digit_values();

/// The table of [`DIGITS`].
const fn digit_values() -> [u8; 256] {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [NO_DIGIT; 256];
    let mut at = 0;
    while at < alphabet.len() {
        values[alphabet[at] as usize] = at as u8;
        at += 1;
    }
    values
}

/// Decodes one text; the default is its start.
#[derive(Clone, Copy, Default)]
pub(crate) struct Base64Text {
    /// Digits of the group that is not complete, the first one in the highest bits.
    group: u32,
    /// Characters of the group so far, padding included; and of them the padding.
    chars: u8,
    padding: u8,
    /// Whether a padded group has ended the text.
    has_ended: bool,
    escape: EscapePlace,
}

/// Where in an escape the next byte stands.
#[derive(Clone, Copy, Default)]
enum EscapePlace {
    /// In none.
    #[default]
    Outside,
    /// Behind a backslash.
    Begun,
    /// In the digits of `\u`: how many there were, and their value.
    Unicode(u8, u32),
}

impl Base64Text {
    /// Decodes the next piece of the text, and appends its bytes to `out`.
    ///
    /// # Errors
    /// [`NotBase64`]; what was appended until then is of no use.
    pub(crate) fn feed(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), NotBase64> {
        while let Some(byte) = piece.first() {
            if self.chars == 0 && !self.has_ended && matches!(self.escape, EscapePlace::Outside) {
                let whole = push_groups(piece, out);
                if whole > 0 {
                    piece = &piece[whole..];
                    continue;
                }
            }
            piece = &piece[1..];
            match self.escape {
                EscapePlace::Outside if *byte == b'\\' => self.escape = EscapePlace::Begun,
                EscapePlace::Outside => self.take_char(u32::from(*byte), out)?,
                EscapePlace::Begun => {
                    self.escape = EscapePlace::Outside;
                    match byte {
                        b'u' => self.escape = EscapePlace::Unicode(0, 0),
                        b'n' | b'r' | b't' => self.take_char(u32::from(b' '), out)?,
                        other => self.take_char(u32::from(*other), out)?,
                    }
                }
                EscapePlace::Unicode(digits, value) => {
                    let digit = (*byte as char).to_digit(16).ok_or(NotBase64)?;
                    let value = value << 4 | digit;
                    self.escape = EscapePlace::Unicode(digits + 1, value);
                    if digits == 3 {
                        self.escape = EscapePlace::Outside;
                        self.take_char(value, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends the text.
    ///
    /// # Errors
    /// [`NotBase64`] if a group is not complete.
    pub(crate) fn finish(self) -> Result<(), NotBase64> {
        match (self.chars, self.escape) {
            (0, EscapePlace::Outside) => Ok(()),
            _ => Err(NotBase64),
        }
    }

    /// Takes a character whose escape is resolved.
    fn take_char(&mut self, char: u32, out: &mut Vec<u8>) -> Result<(), NotBase64> {
        let byte = u8::try_from(char).map_err(|_| NotBase64)?;
        match (byte, DIGITS[byte as usize]) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => return Ok(()),
            _ if self.has_ended => return Err(NotBase64),
            (b'=', _) if self.chars >= 2 => self.padding += 1,
            (_, NO_DIGIT) => return Err(NotBase64),
            // A digit behind padding.
            _ if self.padding > 0 => return Err(NotBase64),
            (_, digit) => self.group |= u32::from(digit) << (18 - 6 * self.chars),
        }
        self.chars += 1;
        if self.chars == 4 {
            let [_, bytes @ ..] = self.group.to_be_bytes();
            out.extend_from_slice(&bytes[..3 - self.padding as usize]);
            *self = Base64Text { has_ended: self.padding > 0, ..Base64Text::default() };
        }
        Ok(())
    }
}

/// Decodes whole groups from the start of a text up to the first that has another character than a digit. Returns the
/// length of their text.
fn push_groups(text: &[u8], out: &mut Vec<u8>) -> usize {
    let (groups, _) = text.as_chunks::<4>();
    out.reserve(groups.len() * 3);
    for (i, group) in groups.iter().enumerate() {
        let [a, b, c, d] = group.map(|byte| DIGITS[byte as usize]);
        if (a | b | c | d) & 0xc0 != 0 {
            return i * 4;
        }
        let [_, bytes @ ..] =
            (u32::from(a) << 18 | u32::from(b) << 12 | u32::from(c) << 6 | u32::from(d)).to_be_bytes();
        out.extend_from_slice(&bytes);
    }
    groups.len() * 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64ct::{Base64, Encoding};
    use proptest::prelude::*;

    /// Decodes a text in pieces that end at `cuts`.
    fn decode(text: &str, cuts: &[usize]) -> Option<Vec<u8>> {
        let (mut decoder, mut out, mut start) = (Base64Text::default(), Vec::new(), 0);
        for end in cuts.iter().copied().chain([text.len()]) {
            let end = end.clamp(start, text.len());
            decoder.feed(&text.as_bytes()[start..end], &mut out).ok()?;
            start = end;
        }
        decoder.finish().ok().map(|()| out)
    }

    /// The slow twin: the JSON string by serde_json, its bits one by one.
    fn decode_slowly(text: &str) -> Option<Vec<u8>> {
        let text: String = serde_json::from_str(&format!("\"{text}\"")).ok()?;
        let text: String = text.chars().filter(|char| !matches!(char, ' ' | '\t' | '\n' | '\r')).collect();
        let digits = text.trim_end_matches('=');
        let padding = text.len() - digits.len();
        if !text.len().is_multiple_of(4) || padding > 2 {
            return None;
        }
        let mut bits = Vec::new();
        for char in digits.chars() {
            let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let digit = alphabet.find(char)?;
            bits.extend((0..6).rev().map(|bit| digit >> bit & 1));
        }
        Some(bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | *bit as u8)).collect())
    }

    /// ATTACH-02: texts that are base64, and others.
    #[test]
    fn texts_are_decoded() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("aGk=", Some(b"hi")),
            ("aA==", Some(b"h")),
            (" a G\\n k\\u003d\\r\\t ", Some(b"hi")),
            ("\\/\\/\\/\\/", Some(b"\xff\xff\xff")),
            ("aGlq", Some(b"hij")),
            ("aGl=", Some(b"hi")),
            ("a", None),
            ("aGk", None),
            ("aGk=aGk=", None),
            ("aG=k", None),
            ("a===", None),
            ("====", None),
            ("aGk=\\", None),
            ("aGk\\u00e9", None),
            ("aG-_", None),
            ("aGk\\u263a", None),
        ] {
            let every: Vec<usize> = (0..text.len()).collect();
            assert_eq!(decode(text, &[]).as_deref(), expected, "{text}");
            assert_eq!(decode(text, &every).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        /// Random bytes come back, and random texts are what the slow twin says, in pieces of any size.
        #[test]
        fn the_decoder_equals_its_twins(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "([A-Za-z0-9+]{2}|\\\\/|[ =]|\\\\u0041|\\\\n){0,40}={0,2}", cuts in prop::collection::vec(0usize..300, 0..6)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            prop_assert_eq!(decode(&Base64::encode_string(&bytes), &cuts), Some(bytes));
            prop_assert_eq!(decode(&text, &cuts), decode_slowly(&text), "{}", text);
        }
    }
}
