//! Walks JSON text in place, so that values which are not changed keep their bytes.
//!
//! The text has passed the scanner's full check before: nothing is checked here again. On other text the result is
//! arbitrary, but nothing panics.

use std::borrow::Cow;
use std::io::{self, Write};

/// A value of a document, as its text without white space around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonSpan<'a>(&'a [u8]);

/// Kind of a JSON value, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonKind {
    /// An object, `{…}`
    Object,
    /// An array, `[…]`
    Array,
    /// A string, `"…"`
    String,
    /// A number, in any form.
    Number,
    /// One of the literals `true` and `false`
    Bool(bool),
    /// The literal `null`, or an empty text
    Null,
}

impl<'a> JsonSpan<'a> {
    /// The root value of a document.
    pub(crate) fn of(document: &'a [u8]) -> JsonSpan<'a> {
        JsonSpan(document.trim_ascii())
    }

    /// The text of the value, as written.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The kind of the value.
    pub(crate) fn kind(self) -> JsonKind {
        match self.0.first() {
            Some(b'{') => JsonKind::Object,
            Some(b'[') => JsonKind::Array,
            Some(b'"') => JsonKind::String,
            Some(b't') => JsonKind::Bool(true),
            Some(b'f') => JsonKind::Bool(false),
            Some(b'n') | None => JsonKind::Null,
            Some(_) => JsonKind::Number,
        }
    }

    /// For the reference implementation: the text of a string, escapes resolved; `None` for other values and for a lone
    /// surrogate.
    #[cfg(test)]
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        (self.kind() == JsonKind::String).then(|| text_of(self.0)).flatten()
    }

    /// Names and values of an object, in their order; empty for other values.
    pub(crate) fn members(self) -> impl Iterator<Item = (JsonMember<'a>, JsonSpan<'a>)> {
        let mut rest = if self.kind() == JsonKind::Object { &self.0[1..] } else { &[][..] };
        std::iter::from_fn(move || {
            rest = skip_space(rest, b',');
            if rest.first() != Some(&b'"') {
                return None;
            }
            let (name, after) = rest.split_at(end_of(rest));
            let after = skip_space(after, b':');
            let (value, after) = after.split_at(end_of(after));
            rest = after;
            Some((JsonMember(name), JsonSpan(value)))
        })
    }

    /// For the reference implementation: the values of an array; empty for other values.
    #[cfg(test)]
    pub(crate) fn elements(self) -> impl Iterator<Item = JsonSpan<'a>> {
        let mut rest = if self.kind() == JsonKind::Array { &self.0[1..] } else { &[][..] };
        std::iter::from_fn(move || {
            rest = skip_space(rest, b',');
            if matches!(rest.first(), None | Some(b']')) {
                return None;
            }
            let (value, after) = rest.split_at(end_of(rest));
            rest = after;
            (!value.is_empty()).then_some(JsonSpan(value))
        })
    }
}

/// The name of an object's member, as written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonMember<'a>(&'a [u8]);

impl<'a> JsonMember<'a> {
    /// The name as written, with quotes and escapes.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The name with escapes resolved; empty if it is no text.
    pub(crate) fn name(self) -> Cow<'a, str> {
        text_of(self.0).unwrap_or_default()
    }
}

/// Text of a quoted string, escapes resolved; `None` if it is not Unicode text.
fn text_of(string: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', string).is_some() {
        return serde_json::from_slice::<String>(string).ok().map(Cow::Owned);
    }
    let inner = string.get(1..string.len().checked_sub(1)?)?;
    str::from_utf8(inner).ok().map(Cow::Borrowed)
}

/// Steps on in JSON walked in place: the rest after white space and at most one `separator`, a comma or a colon.
fn skip_space(text: &[u8], separator: u8) -> &[u8] {
    let text = text.trim_ascii_start();
    text.strip_prefix(&[separator]).unwrap_or(text).trim_ascii_start()
}

/// Length of the value at the start of a text.
fn end_of(text: &[u8]) -> usize {
    match text.first() {
        Some(b'"') => end_of_string(text),
        Some(b'{' | b'[') => {
            let (mut offset, mut depth) = (0, 0usize);
            while offset < text.len() {
                match text[offset] {
                    b'"' => {
                        offset += end_of_string(&text[offset..]);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                offset += 1;
                if depth == 0 {
                    return offset;
                }
            }
            text.len()
        }
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            text.iter().position(ends).unwrap_or(text.len())
        }
    }
}

/// Length of the quoted string at the start of a text; all of the text if it does not end.
fn end_of_string(text: &[u8]) -> usize {
    let mut i = 1;
    while let Some(found) = text.get(i..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        i += found;
        match text[i] {
            b'"' => return i + 1,
            _ => i += 2,
        }
    }
    text.len()
}

/// Appends a value without the white space between its tokens: one line, every token as written.
pub(crate) fn write_compact(value: &[u8], line: &mut dyn Write) -> io::Result<()> {
    let mut offset = 0;
    while offset < value.len() {
        let len = match value[offset] {
            b' ' | b'\t' | b'\n' | b'\r' => {
                offset += 1;
                continue;
            }
            b'"' => end_of_string(&value[offset..]),
            _ => {
                let stops = |byte: &u8| matches!(byte, b'"' | b' ' | b'\t' | b'\n' | b'\r');
                value[offset..].iter().position(stops).unwrap_or(value.len() - offset)
            }
        };
        line.write_all(&value[offset..offset + len])?;
        offset += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::rules::tokens::tests::document as any_json;
    use proptest::prelude::*;
    use serde_json::Value as Tree;

    fn tree(value: JsonSpan<'_>) -> Tree {
        match value.kind() {
            JsonKind::Object => {
                Tree::Object(value.members().map(|(name, value)| (name.name().into_owned(), tree(value))).collect())
            }
            JsonKind::Array => Tree::Array(value.elements().map(tree).collect()),
            JsonKind::String => Tree::String(value.text().unwrap().into_owned()),
            _ => serde_json::from_slice(value.bytes()).unwrap(),
        }
    }

    proptest! {
        /// The walk and serde_json read the same tree, written either way, and compact text is what serde_json writes.
        #[test]
        fn the_walk_is_serde_jsons_tree(document in any_json()) {
            let compact = serde_json::to_vec(&document).unwrap();
            let pretty = serde_json::to_vec_pretty(&document).unwrap();
            prop_assert_eq!(tree(JsonSpan::of(&compact)), document.clone());
            prop_assert_eq!(tree(JsonSpan::of(&pretty)), document);
            let mut line = Vec::new();
            write_compact(&pretty, &mut line).unwrap();
            prop_assert_eq!(line, compact);
        }

        #[test]
        fn no_text_is_a_panic(text in "[\\[\\]{}:,\" \\\\a1tn\n]{0,24}") {
            let mut left = vec![JsonSpan::of(text.as_bytes())];
            while let Some(value) = left.pop() {
                left.extend(value.elements());
                left.extend(value.members().map(|(_, value)| value));
                value.text();
            }
            write_compact(text.as_bytes(), &mut Vec::new()).unwrap();
        }
    }
}
