//! A legal FHIR id, held inline without allocation.

use crate::limits::ID_BYTES_MAX;

/// A logical id as R4 allows it: 1 to 64 characters of `A-Z a-z 0-9 - .`
/// (<https://hl7.org/fhir/R4/datatypes.html#id>). Ids are case-sensitive; their order is bytewise.
#[derive(Clone, Copy)]
pub struct Id {
    len: u8,
    bytes: [u8; ID_BYTES_MAX],
}

impl Id {
    /// The id with this text; `None` when R4 does not allow it.
    pub fn parse(text: &[u8]) -> Option<Id> {
        if !Id::is_legal(text) {
            return None;
        }
        let mut bytes = [0; ID_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Some(Id { len: text.len() as u8, bytes })
    }

    /// Whether R4 allows an id with this text.
    #[inline]
    pub fn is_legal(text: &[u8]) -> bool {
        // No early exit, so that the compiler checks many bytes at once.
        let illegal = text
            .iter()
            .fold(false, |illegal, byte| illegal | !(byte.is_ascii_alphanumeric() | (*byte == b'-') | (*byte == b'.')));
        !illegal && !text.is_empty() && text.len() <= ID_BYTES_MAX
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
