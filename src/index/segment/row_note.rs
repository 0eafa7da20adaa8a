//! What is told of rows that are no faults: ids that R4 does not allow, and references of other forms. A segment keeps the
//! number of each kind and the place of the first row that has it.

use crate::fhir::reference::OddReference;

/// A kind of note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowNote {
    /// The id of the row is none that R4 allows.
    WideId,
    /// It has a reference of another form.
    Reference(OddReference),
}

impl RowNote {
    /// Every kind, in the order of their numbers on disk.
    pub(crate) const ALL: [RowNote; 1 + OddReference::ALL.len()] = {
        let mut all = [RowNote::WideId; 1 + OddReference::ALL.len()];
        let mut i = 0;
        while i < OddReference::ALL.len() {
            all[1 + i] = RowNote::Reference(OddReference::ALL[i]);
            i += 1;
        }
        all
    };

    /// Its number on disk.
    pub(crate) fn index(self) -> usize {
        match self {
            RowNote::WideId => 0,
            RowNote::Reference(form) => 1 + form as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are those of the list.
    #[test]
    fn notes_are_numbered_in_their_order() {
        assert!(RowNote::ALL.iter().enumerate().all(|(i, note)| note.index() == i));
    }
}
