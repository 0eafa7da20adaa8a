//! The rows taken of one segment: a list while they are few, a bit for each row when they are many.

use std::ops::Range;

use crate::casts::to_u32;
use crate::select::bitmap::{BitIterator, Bitmap};

/// A set of rows of a segment.
#[derive(Clone, Debug)]
pub enum RowSet {
    /// Numbers of rows, ascending.
    Sorted(Vec<u32>),
    /// A bit for each row.
    Bitmap(Bitmap),
}

impl Default for RowSet {
    fn default() -> RowSet {
        RowSet::Sorted(Vec::new())
    }
}

impl RowSet {
    /// The rows in the set, ascending.
    pub fn iter(&self) -> RowSetIter<'_> {
        match self {
            RowSet::Sorted(list) => RowSetIter::Sorted(list.iter()),
            RowSet::Bitmap(bits) => RowSetIter::Bitmap(bits.iter()),
        }
    }

    /// How many rows are in the set.
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

    /// Adds a row, which must lie behind those of a list.
    pub fn push(&mut self, row: usize) {
        match self {
            RowSet::Sorted(list) => list.push(to_u32(row)),
            RowSet::Bitmap(bits) => drop(bits.insert(row)),
        }
    }
}

/// Rows of a set, ascending.
pub enum RowSetIter<'a> {
    /// Of a list.
    Sorted(std::slice::Iter<'a, u32>),
    /// Of a bitmap.
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

/// The part of an ascending list that lies in a range.
fn within<'a>(list: &'a [u32], range: &Range<usize>) -> &'a [u32] {
    let first = list.partition_point(|row| (*row as usize) < range.start);
    let behind = list.partition_point(|row| (*row as usize) < range.end);
    &list[first..behind.max(first)]
}

impl PartialEq for RowSet {
    fn eq(&self, other: &RowSet) -> bool {
        self.iter().eq(other.iter())
    }
}
