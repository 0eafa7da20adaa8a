//! A set of rows of one segment: a sorted list for a sparse set, a bitmap for a dense one.
//!
//! The access path that builds a set chooses its representation; a set never changes it afterwards.

use std::ops::Range;

use crate::casts::to_u32;
use crate::select::bitmap::{BitIterator, Bitmap};

/// A set of row numbers of one segment. Sets are equal if they hold the same rows, whatever their representations.
#[derive(Clone, Debug)]
pub enum RowSet {
    /// Row numbers, ascending, each once.
    Sorted(Vec<u32>),
    /// One bit for each row of the segment.
    Bitmap(Bitmap),
}

impl Default for RowSet {
    fn default() -> RowSet {
        RowSet::Sorted(Vec::new())
    }
}

impl RowSet {
    /// All rows in the set, ascending.
    pub fn iter(&self) -> RowSetIter<'_> {
        match self {
            RowSet::Sorted(list) => RowSetIter::Sorted(list.iter()),
            RowSet::Bitmap(bits) => RowSetIter::Bitmap(bits.iter()),
        }
    }

    /// Number of rows in the set.
    pub fn count(&self) -> usize {
        match self {
            RowSet::Sorted(list) => list.len(),
            RowSet::Bitmap(bits) => bits.count(),
        }
    }

    /// Whether no row is in the set.
    pub fn is_empty(&self) -> bool {
        match self {
            RowSet::Sorted(list) => list.is_empty(),
            RowSet::Bitmap(bits) => bits.is_empty(),
        }
    }

    /// The rows in the set within a range, ascending.
    pub fn range(&self, range: Range<usize>) -> RowSetIter<'_> {
        match self {
            RowSet::Sorted(list) => RowSetIter::Sorted(within(list, &range).iter()),
            RowSet::Bitmap(bits) => RowSetIter::Bitmap(bits.range(range)),
        }
    }

    /// Whether any row of a range is in the set.
    pub fn any(&self, range: Range<usize>) -> bool {
        match self {
            RowSet::Sorted(list) => !within(list, &range).is_empty(),
            RowSet::Bitmap(bits) => bits.any(range),
        }
    }

    /// Whether every row of a range is in the set.
    pub fn all(&self, range: Range<usize>) -> bool {
        match self {
            RowSet::Sorted(list) => within(list, &range).len() == range.len(),
            RowSet::Bitmap(bits) => bits.all(range),
        }
    }

    /// Adds a row. In a sorted list it must be greater than every row in it, and below 2^32.
    pub fn push(&mut self, row: usize) {
        match self {
            RowSet::Sorted(list) => list.push(to_u32(row)),
            RowSet::Bitmap(bits) => drop(bits.insert(row)),
        }
    }
}

impl RowSet {
    /// Adds rows, ascending, that are not in the set.
    pub(crate) fn add_all(&mut self, rows: &[usize]) {
        match self {
            RowSet::Sorted(list) => {
                list.extend(rows.iter().map(|row| to_u32(*row)));
                list.sort_unstable();
            }
            RowSet::Bitmap(bits) => rows.iter().for_each(|row| {
                bits.insert(*row);
            }),
        }
    }
}

impl RowSet {
    /// Takes rows, ascending, out of the set.
    pub(crate) fn remove_all(&mut self, rows: &[usize]) {
        match self {
            RowSet::Sorted(list) => list.retain(|row| rows.binary_search(&(*row as usize)).is_err()),
            RowSet::Bitmap(bits) => rows.iter().for_each(|row| bits.remove(*row)),
        }
    }
}

/// Iterator over the rows of a set, ascending.
pub enum RowSetIter<'a> {
    /// Rows of a sorted list.
    Sorted(std::slice::Iter<'a, u32>),
    /// Rows of a bitmap.
    Bitmap(BitIterator<'a>),
}

impl Iterator for RowSetIter<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        match self {
            RowSetIter::Sorted(list) => list.next().map(|row| *row as usize),
            RowSetIter::Bitmap(bits) => bits.next(),
        }
    }
}

/// The slice of a sorted list whose rows lie in a range.
fn within<'a>(list: &'a [u32], range: &Range<usize>) -> &'a [u32] {
    let first = list.partition_point(|row| (*row as usize) < range.start);
    let end = list.partition_point(|row| (*row as usize) < range.end);
    &list[first..end.max(first)]
}

impl PartialEq for RowSet {
    fn eq(&self, other: &RowSet) -> bool {
        self.iter().eq(other.iter())
    }
}
