//! Names of store files as text: those that are no UTF-8 are spelled so that the name on disk can be found again.
//!
//! Records, the index and messages hold names as text. A byte that is no part of UTF-8 is written `\xHH`, in lower case; a
//! backslash on disk that would be read as the start of such a spelling is written `\x5c`. Any other name is its own
//! spelling, so records of ordinary names are as they were before there was one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The spelling of a name, or of a path, on disk.
pub(crate) fn name_of(on_disk: &OsStr) -> String {
    let mut name = String::with_capacity(on_disk.len());
    for chunk in on_disk.as_bytes().utf8_chunks() {
        let text = chunk.valid();
        let mut copied = 0;
        for (at, _) in text.match_indices('\\').filter(|(at, _)| escaped_byte(&text.as_bytes()[*at..]).is_some()) {
            name += &text[copied..at];
            name += r"\x5c";
            copied = at + 1;
        }
        name += &text[copied..];
        chunk.invalid().iter().for_each(|byte| name += &format!(r"\x{byte:02x}"));
    }
    name
}

/// The name or path on disk of a spelling, relative to the store.
pub(crate) fn path_of(name: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        match escaped_byte(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// Whether the name on disk is UTF-8, as all names were that versions without this spelling read.
pub(crate) fn is_utf8(name: &str) -> bool {
    path_of(name).to_str().is_some()
}

/// Whether a path in a store could have this spelling: it is the one that [`name_of`] gives, and no part of the path is empty,
/// hidden, or holds what no name can. A name that was read from a disk may have been written by anybody.
pub(crate) fn is_spelling(name: &str) -> bool {
    let is_part = |part: &[u8]| !part.is_empty() && !part.starts_with(b".");
    if !name.contains('\\') {
        // Nothing in it spells a byte.
        return !name.as_bytes().contains(&0) && name.as_bytes().split(|byte| *byte == b'/').all(is_part);
    }
    let path = path_of(name);
    let bytes = path.as_os_str().as_bytes();
    name_of(path.as_os_str()) == name && !bytes.contains(&0) && bytes.split(|byte| *byte == b'/').all(is_part)
}

/// The byte that the first four bytes spell, if they are such a spelling.
fn escaped_byte(bytes: &[u8]) -> Option<u8> {
    let [b'\\', b'x', digits @ ..] = bytes.first_chunk::<4>()? else { return None };
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn spelled(bytes: &[u8], name: &str) {
        assert_eq!(name_of(OsStr::from_bytes(bytes)), name);
        assert_eq!(path_of(name).as_os_str().as_bytes(), bytes);
    }

    #[test]
    fn names_are_spelled_and_found_again() {
        spelled(b"Patient.ndjson", "Patient.ndjson");
        spelled("ä/b c.ndjson".as_bytes(), "ä/b c.ndjson");
        spelled(b"caf\xe9.ndjson", r"caf\xe9.ndjson");
        spelled(b"a\xff\xfe/\x80.ndjson", r"a\xff\xfe/\x80.ndjson");
        // Other backslashes stay, those that begin a spelling do not.
        spelled(br"a\b\x\xg1\x4\xA1\xaF.ndjson", r"a\b\x\xg1\x4\xA1\xaF.ndjson");
        spelled(br"\x41\x5c.ndjson", r"\x5cx41\x5cx5c.ndjson");
        spelled(b"\\\xff\\x\xff\\x5\xff", r"\\xff\x\xff\x5\xff");
    }

    /// Nothing is smuggled in by a spelling: only what stands on a disk has one.
    #[test]
    fn only_paths_of_files_are_spellings() {
        for name in ["a", "ä/b", r"caf\xe9", r"\xff/\xfe", r"\x5cx41", r"a\b"] {
            assert!(is_spelling(name), "{name}");
        }
        for name in
            ["", "/a", "a//b", "a/", ".a", "a/..", "a\0", r"\x2e\x2e/a", r"a\x2fb", r"\x41", r"\x5c", r"\xc3\xa4"]
        {
            assert!(!is_spelling(name), "{name}");
        }
        assert!(is_utf8(r"\x5cx41") && is_utf8("ä") && !is_utf8(r"a\xff"));
    }

    proptest! {
        /// Every name is found again, and no two have one spelling.
        #[test]
        fn spellings_are_reversible(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"\\x5cfe19./"[..])], 0..24)
        ) {
            let name = name_of(OsStr::from_bytes(&bytes));
            let found = path_of(&name);
            prop_assert_eq!(found.as_os_str().as_bytes(), &bytes);
            // A text that is read as some name is its spelling, or refused.
            if let Ok(text) = String::from_utf8(bytes) {
                let read = path_of(&text);
                prop_assert!(name_of(read.as_os_str()) == text || !is_spelling(&text));
            }
        }
    }
}
