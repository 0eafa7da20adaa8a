//! The names of the properties that a reduced resource of one type keeps, for one look-up a property.

use crate::extract::unescape::unescape;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::resource_type::ResourceType;

/// Most bytes of a property name that is looked up; no name of R4 is near it, nor any escaped by `\u` in every character.
pub(crate) const KEY_BYTES_MAX: usize = 512;

/// What is done with a property of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PropertyRole {
    /// It is left out.
    Dropped,
    /// It is copied.
    Kept,
    /// It is `meta`, which gets the tag.
    Meta,
}

/// The names that one type keeps.
#[derive(Debug)]
pub(crate) struct KeptNames {
    /// Names by their length in bytes.
    by_length: Vec<Vec<Box<[u8]>>>,
}

impl KeptNames {
    /// The names that a selection keeps of a type; `None` if the type is not reduced.
    pub(crate) fn of(selection: &ElementSelection, resource_type: ResourceType) -> Option<KeptNames> {
        let mut by_length: Vec<Vec<Box<[u8]>>> = Vec::new();
        for name in selection.kept_names(resource_type)? {
            if by_length.len() <= name.len() {
                by_length.resize_with(name.len() + 1, Vec::new);
            }
            by_length[name.len()].push(name.as_bytes().into());
        }
        Some(KeptNames { by_length })
    }

    /// What is done with the property whose name has this text between its quotes, escapes as they stand.
    #[inline(always)]
    pub(crate) fn role(&self, raw: &[u8]) -> PropertyRole {
        if memchr::memchr(b'\\', raw).is_some() { self.role_of_escaped(raw) } else { self.role_of_name(raw) }
    }

    /// What is done with the property of a name.
    #[inline(always)]
    fn role_of_name(&self, name: &[u8]) -> PropertyRole {
        // The property of a primitive's id and extensions stays with that of its value (ELEM-05).
        let element = name.strip_prefix(b"_").unwrap_or(name);
        match self.by_length.get(element.len()).is_some_and(|names| names.iter().any(|kept| **kept == *element)) {
            true if name == b"meta" => PropertyRole::Meta,
            true => PropertyRole::Kept,
            false => PropertyRole::Dropped,
        }
    }

    /// The same of a name with escapes.
    #[cold]
    fn role_of_escaped(&self, raw: &[u8]) -> PropertyRole {
        let mut name = String::new();
        match raw.len() <= KEY_BYTES_MAX && unescape(raw, &mut name) {
            true => self.role_of_name(name.as_bytes()),
            false => PropertyRole::Dropped,
        }
    }
}

/// Whether the raw text of a string is this text.
#[inline(always)]
pub(crate) fn is_text(raw: &[u8], text: &str) -> bool {
    raw == text.as_bytes() || memchr::memchr(b'\\', raw).is_some() && is_escaped_text(raw, text)
}

/// The same of a raw text with escapes.
#[cold]
fn is_escaped_text(raw: &[u8], text: &str) -> bool {
    let mut found = String::new();
    raw.len() <= KEY_BYTES_MAX && unescape(raw, &mut found) && found == text
}
