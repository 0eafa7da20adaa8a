//! Tokens of a JSON text that comes in pieces, with how deep they lie.
//!
//! The text has passed the scanner's full check before, piece for piece: here nothing is checked again, and on other
//! text any tokens may come, but no panic. Nothing is held but one string that crosses pieces, up to a bound.

use std::borrow::Cow;

use crate::extract::unescape::unescape;
use crate::limits::REFERENCE_BYTES_MAX;

/// Tokens that lie in more containers than these are not told: no rule about Groups looks so deep.
const DEPTH_TOLD_MAX: usize = 5;
/// Longest string that is kept, in bytes of JSON text: each of its characters may be escaped.
const RAW_BYTES_MAX: usize = 6 * REFERENCE_BYTES_MAX;

/// What a token is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JsonToken<'a> {
    /// The name of a member of an object.
    Key(TokenText<'a>),
    /// A string that is a value.
    String(TokenText<'a>),
    /// A number.
    Number,
    /// `true` or `false`.
    Bool(bool),
    /// `null`
    Null,
    /// `{`
    Object,
    /// `[`
    Array,
    /// The end of the container that it lies in.
    End,
}

/// The text of a string, as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenText<'a>(&'a [u8]);

impl<'a> TokenText<'a> {
    /// With its escapes resolved; none when it is longer than [`REFERENCE_BYTES_MAX`].
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenState {
    Between,
    /// In a string; whether its next byte is escaped.
    String {
        escaped: bool,
    },
    /// In a number or literal that has been told.
    Scalar,
}

/// Cuts one text.
pub(crate) struct TokenReader {
    state: TokenState,
    depth: usize,
    /// Whether the container of each depth that is told is an object.
    objects: [bool; DEPTH_TOLD_MAX + 1],
    /// Whether a string that comes next is a key.
    wants_key: bool,
    /// A string that crosses pieces, as far as it is kept.
    text: Vec<u8>,
    bytes: u64,
}

impl TokenReader {
    /// Ready for the first piece.
    pub(crate) fn new() -> TokenReader {
        let objects = [false; DEPTH_TOLD_MAX + 1];
        TokenReader { state: TokenState::Between, depth: 0, objects, wants_key: false, text: Vec::new(), bytes: 0 }
    }

    /// Bytes so far without the white space between tokens.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next piece. Tells each token, and in how many containers it lies.
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

    fn is_complete(&self) -> bool {
        self.depth <= DEPTH_TOLD_MAX
    }

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
        if self.is_complete() {
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

    /// Goes on in a string; where its piece of it ends.
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
                    self.keep(&piece[from..]);
                    return piece.len();
                }
                Some(backslash) => offset = backslash + 2,
            }
        };
        let Some(end) = end else {
            self.state = TokenState::String { escaped: false };
            self.keep(&piece[from..]);
            return piece.len();
        };
        self.state = TokenState::Between;
        if self.is_complete() {
            let crosses = !self.text.is_empty();
            if crosses {
                self.keep(&piece[from..end]);
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

    /// Keeps a part of a string that goes on in the next piece, one byte more than is looked at, so that it shows.
    fn keep(&mut self, part: &[u8]) {
        self.bytes += part.len() as u64;
        if self.is_complete() {
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
        let mut tell = |depth: usize, token: String| out.extend((depth <= DEPTH_TOLD_MAX).then_some((depth, token)));
        match tree {
            Tree::Null => tell(depth, "null".into()),
            Tree::Bool(truth) => tell(depth, truth.to_string()),
            Tree::Number(_) => tell(depth, "number".into()),
            Tree::String(text) => tell(depth, format!("string {text}")),
            Tree::Array(elements) => {
                tell(depth, "[".into());
                elements.iter().for_each(|element| naive(element, depth + 1, out));
                out.extend((depth < DEPTH_TOLD_MAX).then_some((depth + 1, "end".into())));
            }
            Tree::Object(members) => {
                tell(depth, "{".into());
                for (name, value) in members {
                    out.extend((depth < DEPTH_TOLD_MAX).then_some((depth + 1, format!("key {name}"))));
                    naive(value, depth + 1, out);
                }
                out.extend((depth < DEPTH_TOLD_MAX).then_some((depth + 1, "end".into())));
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

    /// A string of any length is told, in bounded memory; one that is longer than is looked at has no text.
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
