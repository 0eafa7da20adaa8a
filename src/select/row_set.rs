//! The rows taken of one extent: a list while they are few, a bit for each row when they are many.

use super::bitmap::Bitmap;

/// A set of rows of an extent.
#[derive(Clone, Debug)]
pub enum RowSet {
    /// Numbers of rows, ascending.
    Few(Vec<u32>),
    /// A bit for each row.
    Many(Bitmap),
}

impl Default for RowSet {
    fn default() -> RowSet {
        RowSet::Few(Vec::new())
    }
}

impl RowSet {
    /// The rows in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let (few, many) = match self {
            RowSet::Few(list) => (Some(list.iter().map(|row| *row as usize)), None),
            RowSet::Many(bits) => (None, Some(bits.iter())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }

    /// Whether no row is in the set.
    pub fn is_empty(&self) -> bool {
        match self {
            RowSet::Few(list) => list.is_empty(),
            RowSet::Many(bits) => bits.is_empty(),
        }
    }

    /// Adds a row, which must lie behind those of a list.
    pub fn push(&mut self, row: usize) {
        match self {
            RowSet::Few(list) => list.push(row as u32),
            RowSet::Many(bits) => drop(bits.insert(row)),
        }
    }
}

impl PartialEq for RowSet {
    fn eq(&self, other: &RowSet) -> bool {
        self.iter().eq(other.iter())
    }
}
