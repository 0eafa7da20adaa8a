//! Texts that were met before, each with a number: what is made of a text is made once. Found by hash, and confirmed.

use crate::index::segment::key_table::KeyTable;

/// Bytes of the texts that are kept; beyond, no more are added.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// Texts and their numbers.
#[derive(Default)]
pub(crate) struct KnownTexts {
    table: KeyTable,
    bytes: Vec<u8>,
    /// End of each text, and its number.
    known: Vec<(usize, u32)>,
}

impl KnownTexts {
    /// A text by its place in the order of addition.
    fn text(&self, place: u32) -> &[u8] {
        let place = place as usize;
        let start = if place == 0 { 0 } else { self.known[place - 1].0 };
        &self.bytes[start..self.known[place].0]
    }

    /// The number of a text of this hash; `None` if it is not known.
    pub(crate) fn find(&self, hash: u64, text: &[u8]) -> Option<u32> {
        let place = self.table.find(hash, |place| self.text(place) == text)?;
        Some(self.known[place as usize].1)
    }

    /// Adds a text that is not known, if there is room.
    pub(crate) fn add(&mut self, hash: u64, text: &[u8], number: u32) {
        if self.bytes.len() + text.len() <= TEXT_BYTES_MAX {
            self.bytes.extend_from_slice(text);
            self.known.push((self.bytes.len(), number));
            // Nothing is the same as what was not found.
            self.table.number(hash, |_| false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text is found by its bytes, whatever else has its hash, and no more are kept than there is room for.
    #[test]
    fn texts_are_confirmed() {
        let mut texts = KnownTexts::default();
        for (number, text) in [(7, "a"), (8, "b"), (9, "")] {
            texts.add(1, text.as_bytes(), number);
        }
        assert_eq!([&b"a"[..], b"b", b"", b"c"].map(|text| texts.find(1, text)), [Some(7), Some(8), Some(9), None]);
        assert_eq!(texts.find(2, b"a"), None);
        let long = vec![0; TEXT_BYTES_MAX];
        texts.add(3, &long, 1);
        assert_eq!(texts.find(3, &long), None);
    }
}
