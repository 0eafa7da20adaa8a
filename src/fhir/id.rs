//! A logical id, held inline without allocation, and the rules of which texts are ids.

use crate::limits::{ID_BYTES_MAX, R4_ID_BYTES_MAX};
use crate::named_enum::by_name;

/// Which ids of resources and of references are legal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdRule {
    /// 1 to 255 characters of `A-Z a-z 0-9 - . _ ~`, but not `.` and `..`: what URLs hold as it is. Large systems give
    /// ids that R4 does not allow.
    #[default]
    Any,
    /// What R4 allows: 1 to 64 characters of `A-Z a-z 0-9 - .` (<https://hl7.org/fhir/R4/datatypes.html#id>).
    R4,
}

impl IdRule {
    /// Every rule, in the order of the enum.
    pub const ALL: [IdRule; 2] = [IdRule::Any, IdRule::R4];

    /// Name of the rule in records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            IdRule::Any => "any",
            IdRule::R4 => "r4",
        }
    }

    /// Whether an id with this text is legal.
    #[inline]
    pub(crate) fn allows(self, text: &[u8]) -> bool {
        Id::is_legal(text) && self.allows_legal(text)
    }

    /// Whether an id is legal whose text is so under one of the rules.
    #[inline]
    pub(crate) fn allows_legal(self, text: &[u8]) -> bool {
        match self {
            IdRule::Any => !Id::is_dots(text),
            IdRule::R4 => Id::is_r4(text),
        }
    }
}

by_name!(IdRule);

/// A logical id: 1 to 255 characters of `A-Z a-z 0-9 - . _ ~`. Ids are case-sensitive; their order is bytewise.
#[derive(Clone, Copy)]
pub struct Id {
    len: u8,
    bytes: [u8; ID_BYTES_MAX],
}

impl Id {
    /// The id with this text; `None` when it is legal under no rule ([`IdRule`]).
    pub fn parse(text: &[u8]) -> Option<Id> {
        Id::is_legal(text).then(|| Id::of(text))
    }

    /// The id with this text; `None` when R4 does not allow it.
    pub fn parse_r4(text: &[u8]) -> Option<Id> {
        Id::is_r4(text).then(|| Id::of(text))
    }

    /// The id with this text, which is legal.
    fn of(text: &[u8]) -> Id {
        let mut bytes = [0; ID_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Id { len: text.len() as u8, bytes }
    }

    /// Whether an id with this text is legal under any rule.
    #[inline]
    pub fn is_legal(text: &[u8]) -> bool {
        // Most ids are R4's, which are told by fewer comparisons.
        Id::is_r4(text) || Id::is_wide(text)
    }

    /// Whether an id with this text is legal under [`IdRule::Any`], the dots aside.
    #[cold]
    fn is_wide(text: &[u8]) -> bool {
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        (1..=ID_BYTES_MAX).contains(&text.len()) && text.iter().all(is_allowed)
    }

    /// Whether R4 allows an id with this text.
    #[inline]
    pub fn is_r4(text: &[u8]) -> bool {
        // No early exit, so that the compiler checks many bytes at once.
        let illegal = text
            .iter()
            .fold(false, |illegal, byte| illegal | !(byte.is_ascii_alphanumeric() | (*byte == b'-') | (*byte == b'.')));
        !illegal && !text.is_empty() && text.len() <= R4_ID_BYTES_MAX
    }

    /// Whether the text is `.` or `..`, which URLs cannot hold as a part of a path.
    #[inline]
    fn is_dots(text: &[u8]) -> bool {
        matches!(text, b"." | b"..")
    }

    /// The id's text, which is ASCII.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("an id is ASCII")
    }

    /// The id's text as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Id) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}
impl Eq for Id {}
impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Id) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Id {
    fn cmp(&self, other: &Id) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}
impl std::hash::Hash for Id {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state)
    }
}
impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Id({})", self.as_str())
    }
}
impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides of every bound of the rules.
    #[test]
    fn ids_are_those_of_the_rules() {
        let long = |count: usize| "a".repeat(count);
        for (text, any, r4) in [
            ("", false, false),
            ("a", true, true),
            ("a.B-9", true, true),
            ("a_b", true, false),
            ("~", true, false),
            (".", false, true),
            ("..", false, true),
            ("...", true, true),
            ("a b", false, false),
            ("a/b", false, false),
            ("a%b", false, false),
            ("\u{e9}", false, false),
            (&long(64), true, true),
            (&long(65), true, false),
            (&long(255), true, false),
            (&long(256), false, false),
        ] {
            assert_eq!((IdRule::Any.allows(text.as_bytes()), IdRule::R4.allows(text.as_bytes())), (any, r4), "{text}");
            assert_eq!(Id::parse(text.as_bytes()).is_some(), any || r4, "{text}");
            assert_eq!(Id::parse_r4(text.as_bytes()).is_some(), r4, "{text}");
        }
    }
}
