//! Walks JSON text in place, so that what is not looked at stays as it was written.
//!
//! The text has passed the scanner's full check before: here nothing is checked again, and on other text any answer
//! may come, but no panic.

use std::borrow::Cow;

/// A value of a document: its text, without white space around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonSpan<'a>(&'a [u8]);

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonKind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true` or `false`
    Bool(bool),
    /// `null`
    Null,
}

impl<'a> JsonSpan<'a> {
    /// The value that a document is.
    pub(crate) fn of(document: &'a [u8]) -> JsonSpan<'a> {
        JsonSpan(document.trim_ascii())
    }

    /// Its text.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// What it is.
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

    /// For the twin of the walk: the text of a string, escapes resolved; what no text can be (a lone surrogate) gives none.
    #[cfg(test)]
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        (self.kind() == JsonKind::String).then(|| text_of(self.0)).flatten()
    }

    /// Names and values of an object, in their order; nothing of anything else.
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

    /// For the twin of the walk: the values of an array; nothing of anything else.
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

/// The name of an object's member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonMember<'a>(&'a [u8]);

impl<'a> JsonMember<'a> {
    /// As it is written, with its quotes.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Escapes resolved.
    pub(crate) fn name(self) -> Cow<'a, str> {
        text_of(self.0).unwrap_or_default()
    }
}

fn text_of(string: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', string).is_some() {
        return serde_json::from_slice::<String>(string).ok().map(Cow::Owned);
    }
    let inner = string.get(1..string.len().checked_sub(1)?)?;
    str::from_utf8(inner).ok().map(Cow::Borrowed)
}

/// What follows white space and one separator.
fn skip_space(text: &[u8], separator: u8) -> &[u8] {
    let text = text.trim_ascii_start();
    text.strip_prefix(&[separator]).unwrap_or(text).trim_ascii_start()
}

/// Where the value ends that a text begins with.
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

/// Appends a value without the white space between its tokens: one line, every token as it was written.
pub(crate) fn push_compact(value: &[u8], line: &mut Vec<u8>) {
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
        line.extend_from_slice(&value[offset..offset + len]);
        offset += len;
    }
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
            push_compact(&pretty, &mut line);
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
            push_compact(text.as_bytes(), &mut Vec::new());
        }
    }
}
