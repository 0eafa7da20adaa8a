//! Cuts JSON text that comes in pieces into tokens, each with its depth.
//!
//! The text has passed the scanner's full check before, piece by piece: nothing is checked here again. On other text
//! the tokens are arbitrary, but nothing panics. Only a string that crosses pieces is held, up to a bound.

use std::borrow::Cow;

use crate::extract::unescape::unescape;
use crate::limits::REFERENCE_BYTES_MAX;

/// Tokens in more containers than these are not reported: no rule for Groups needs them.
const DEPTH_REPORTED_MAX: usize = 5;
/// Longest string that is held, in bytes of JSON text: each of its characters may be escaped.
const RAW_BYTES_MAX: usize = 6 * REFERENCE_BYTES_MAX;

/// A token, without commas and colons.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JsonToken<'a> {
    /// The name of a member of an object.
    Key(TokenText<'a>),
    /// A string that is a value, not a key.
    String(TokenText<'a>),
    /// A number, in any form.
    Number,
    /// A literal `true` or `false`.
    Bool(bool),
    /// The literal `null`.
    Null,
    /// Start of an object.
    Object,
    /// Start of an array.
    Array,
    /// End of the container that the token lies in.
    End,
}

/// The text of a string between its quotes, as written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenText<'a>(&'a [u8]);

impl<'a> TokenText<'a> {
    /// The text with escapes resolved; `None` if it is longer than [`REFERENCE_BYTES_MAX`], or no Unicode text.
    pub(crate) fn get(self) -> Option<Cow<'a, str>> {
        if self.0.len() > RAW_BYTES_MAX {
            return None;
        }
        let text = match memchr::memchr(b'\\', self.0) {
            None => Cow::Borrowed(str::from_utf8(self.0).ok()?),
            Some(_) => {
                let mut text = String::new();
                unescape(self.0, &mut text).then_some(Cow::Owned(text))?
            }
        };
        (text.len() <= REFERENCE_BYTES_MAX).then_some(text)
    }
}

/// Position of the reader relative to tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenState {
    /// Before a token, or between two.
    Between,
    /// In a string; `escaped` if its next byte is escaped.
    String { escaped: bool },
    /// In a number or literal that was already reported.
    Scalar,
}

/// Cuts one text into tokens.
pub(crate) struct TokenReader {
    state: TokenState,
    /// Number of open containers.
    depth: usize,
    /// Whether the container at each reported depth is an object.
    objects: [bool; DEPTH_REPORTED_MAX + 1],
    /// Whether the next string is a key.
    wants_key: bool,
    /// Start of a string that crosses pieces, up to the bound.
    text: Vec<u8>,
    /// Bytes so far, without white space between tokens.
    bytes: u64,
}

impl TokenReader {
    /// A reader before the first piece.
    pub(crate) fn new() -> TokenReader {
        let objects = [false; DEPTH_REPORTED_MAX + 1];
        TokenReader { state: TokenState::Between, depth: 0, objects, wants_key: false, text: Vec::new(), bytes: 0 }
    }

    /// Bytes so far, without white space between tokens.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the next piece; passes each token to `on_token`, with the number of containers that it lies in.
    pub(crate) fn feed(&mut self, piece: &[u8], mut on_token: impl FnMut(usize, JsonToken<'_>)) {
        let mut offset = 0;
        while offset < piece.len() {
            match self.state {
                TokenState::String { escaped } => offset = self.string(piece, offset, escaped, &mut on_token),
                TokenState::Scalar => {
                    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                    let found = piece[offset..].iter().position(ends);
                    let end = found.map_or(piece.len(), |len| offset + len);
                    self.bytes += (end - offset) as u64;
                    offset = end;
                    if found.is_some() {
                        self.state = TokenState::Between;
                    }
                }
                TokenState::Between => {
                    self.bytes += u64::from(!matches!(piece[offset], b' ' | b'\t' | b'\n' | b'\r'));
                    self.between(piece[offset], &mut on_token);
                    offset += 1;
                }
            }
        }
    }

    /// Whether tokens at the current depth are reported.
    fn is_reported(&self) -> bool {
        self.depth <= DEPTH_REPORTED_MAX
    }

    /// Reads a byte between tokens, which may start one.
    fn between(&mut self, byte: u8, on_token: &mut impl FnMut(usize, JsonToken<'_>)) {
        let token = match byte {
            b'{' => JsonToken::Object,
            b'[' => JsonToken::Array,
            b'}' | b']' => JsonToken::End,
            b't' => JsonToken::Bool(true),
            b'f' => JsonToken::Bool(false),
            b'n' => JsonToken::Null,
            b'-' | b'0'..=b'9' => JsonToken::Number,
            b'"' => {
                self.text.clear();
                return self.state = TokenState::String { escaped: false };
            }
            b',' => return self.wants_key = self.objects.get(self.depth) == Some(&true),
            b':' => return self.wants_key = false,
            _ => return,
        };
        if self.is_reported() {
            on_token(self.depth, token);
        }
        match token {
            JsonToken::Object | JsonToken::Array => {
                self.depth += 1;
                self.wants_key = matches!(token, JsonToken::Object);
                if let Some(is_object) = self.objects.get_mut(self.depth) {
                    *is_object = self.wants_key;
                }
            }
            JsonToken::End => (self.depth, self.wants_key) = (self.depth.saturating_sub(1), false),
            _ => self.state = TokenState::Scalar,
        }
    }

    /// Continues a string from an offset of a piece; returns the offset after its closing quote, or the end of the
    /// piece.
    fn string(
        &mut self,
        piece: &[u8],
        from: usize,
        escaped: bool,
        on_token: &mut impl FnMut(usize, JsonToken<'_>),
    ) -> usize {
        let mut offset = from + usize::from(escaped);
        let end = loop {
            match memchr::memchr2(b'"', b'\\', &piece[offset..]).map(|found| offset + found) {
                None => break None,
                Some(quote) if piece[quote] == b'"' => break Some(quote),
                Some(last) if last + 1 == piece.len() => {
                    self.state = TokenState::String { escaped: true };
                    self.hold(&piece[from..]);
                    return piece.len();
                }
                Some(backslash) => offset = backslash + 2,
            }
        };
        let Some(end) = end else {
            self.state = TokenState::String { escaped: false };
            self.hold(&piece[from..]);
            return piece.len();
        };
        self.state = TokenState::Between;
        if self.is_reported() {
            let crosses = !self.text.is_empty();
            if crosses {
                self.hold(&piece[from..end]);
            } else {
                self.bytes += (end - from) as u64;
            }
            let text = TokenText(if crosses { &self.text } else { &piece[from..end] });
            on_token(self.depth, if self.wants_key { JsonToken::Key(text) } else { JsonToken::String(text) });
        } else {
            self.bytes += (end - from) as u64;
        }
        self.bytes += 1;
        end + 1
    }

    /// Holds a part of a string that crosses pieces: up to one byte beyond the bound, so that the excess is noticed.
    fn hold(&mut self, part: &[u8]) {
        self.bytes += part.len() as u64;
        if self.is_reported() {
            let room = (RAW_BYTES_MAX + 1).saturating_sub(self.text.len());
            self.text.extend_from_slice(&part[..part.len().min(room)]);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value as Tree;

    /// Tokens of a tree, by recursion.
    fn naive(tree: &Tree, depth: usize, out: &mut Vec<(usize, String)>) {
        let mut report =
            |depth: usize, token: String| out.extend((depth <= DEPTH_REPORTED_MAX).then_some((depth, token)));
        match tree {
            Tree::Null => report(depth, "null".into()),
            Tree::Bool(truth) => report(depth, truth.to_string()),
            Tree::Number(_) => report(depth, "number".into()),
            Tree::String(text) => report(depth, format!("string {text}")),
            Tree::Array(elements) => {
                report(depth, "[".into());
                elements.iter().for_each(|element| naive(element, depth + 1, out));
                out.extend((depth < DEPTH_REPORTED_MAX).then_some((depth + 1, "end".into())));
            }
            Tree::Object(members) => {
                report(depth, "{".into());
                for (name, value) in members {
                    out.extend((depth < DEPTH_REPORTED_MAX).then_some((depth + 1, format!("key {name}"))));
                    naive(value, depth + 1, out);
                }
                out.extend((depth < DEPTH_REPORTED_MAX).then_some((depth + 1, "end".into())));
            }
        }
    }

    fn cut(text: &[u8], piece: usize) -> (Vec<(usize, String)>, u64) {
        let mut tokens = TokenReader::new();
        let mut out = Vec::new();
        for piece in text.chunks(piece) {
            tokens.feed(piece, |depth, token| {
                let text = match token {
                    JsonToken::Key(text) => format!("key {}", text.get().unwrap()),
                    JsonToken::String(text) => format!("string {}", text.get().unwrap()),
                    JsonToken::Number => "number".into(),
                    JsonToken::Bool(truth) => truth.to_string(),
                    JsonToken::Null => "null".into(),
                    JsonToken::Object => "{".into(),
                    JsonToken::Array => "[".into(),
                    JsonToken::End => "end".into(),
                };
                out.push((depth, text));
            });
        }
        (out, tokens.bytes())
    }

    /// Any JSON text, as a tree: nested, with keys that need escapes.
    pub(crate) fn document() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            Just(Tree::Null),
            any::<bool>().prop_map(Tree::Bool),
            any::<i32>().prop_map(Tree::from),
            "[ -~\\\\\"é\n]{0,6}".prop_map(Tree::String),
        ];
        leaf.prop_recursive(8, 48, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Tree::Array),
                proptest::collection::vec(("[a-c\\\\\"{]{0,3}", inner), 0..4)
                    .prop_map(|members| Tree::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Tokens and bytes are those of serde_json's tree, written either way, whatever the pieces.
        #[test]
        fn tokens_are_serde_jsons(document in document(), piece in 1usize..40) {
            let mut expected = Vec::new();
            naive(&document, 0, &mut expected);
            let compact = serde_json::to_vec(&document).unwrap();
            let pretty = serde_json::to_vec_pretty(&document).unwrap();
            for text in [&compact, &pretty] {
                for piece in [piece, usize::MAX] {
                    let (found, bytes) = cut(text, piece);
                    prop_assert_eq!(&found, &expected);
                    prop_assert_eq!(bytes, compact.len() as u64);
                }
            }
        }

        #[test]
        fn no_text_is_a_panic(text in "[\\[\\]{}:,\" \\\\a1tn\n]{0,24}", piece in 1usize..9) {
            text.as_bytes().chunks(piece).fold(TokenReader::new(), |mut tokens, piece| {
                tokens.feed(piece, |_, _| {});
                tokens
            });
        }
    }

    /// A string of any length is reported, in bounded memory; one beyond the bound has no text.
    #[test]
    fn long_strings_have_no_text() {
        for (chars, known) in [(REFERENCE_BYTES_MAX, true), (REFERENCE_BYTES_MAX + 1, false), (100_000, false)] {
            let text = format!(r#"["{}"]"#, "x".repeat(chars));
            for piece in [7, 4096, usize::MAX] {
                let mut tokens = TokenReader::new();
                let mut reported = Vec::new();
                for piece in text.as_bytes().chunks(piece) {
                    tokens.feed(piece, |_, token| {
                        if let JsonToken::String(text) = token {
                            reported.push(text.get().is_some());
                        }
                    });
                }
                assert_eq!((reported, tokens.bytes()), (vec![known], text.len() as u64));
                assert!(tokens.text.capacity() <= 2 * RAW_BYTES_MAX + 2);
            }
        }
    }
}
