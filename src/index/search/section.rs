//! A search column of one segment: the distinct values of its rows, and for each row the number of its own.
//!
//! ```text
//! six u32: rows, entries, width of a number, bytes of the names, bytes of the heap, zero
//! numbers:    width × rows      1 more than that of the row's entry, 0 for a row of another type; none if each row has its own
//! keys:       8 × entries       see `value_key`
//! starts:     4 × (entries + 1) where in the heap each entry begins; none if the heap is empty
//! names                         see `entry_coding`
//! heap                          see `entry_coding`; nothing of an entry whose key says all
//! ```
//!
//! Each part but the heap ends at a multiple of 8, all integers are little-endian. Nothing is trusted: what leads out of a part
//! is a corrupt index.

use std::cell::OnceCell;
use std::ops::Range;

use crate::casts::to_u32;
use crate::error::CorruptIndex;
use crate::fhir::search::value::ParameterValues;
use crate::index::search::entry_coding::{decode, read_names};
use crate::index::search::value_key::time_of_key;

/// Bytes before the parts.
const HEAD_BYTES: usize = 24;
/// What is said of bytes that are no section.
const MALFORMED: CorruptIndex = CorruptIndex("a search column is malformed");

/// A search column of a segment, over its bytes.
pub(crate) struct ColumnSection<'b> {
    numbers: RowNumbers<'b>,
    keys: &'b [[u8; 8]],
    starts: &'b [[u8; 4]],
    name_bytes: &'b [u8],
    names: OnceCell<Result<Vec<&'b str>, CorruptIndex>>,
    heap: &'b [u8],
}

/// For each row 1 more than the number of its entry, 0 for one of another type.
#[derive(Clone, Copy)]
enum RowNumbers<'b> {
    /// Each row has an entry of its own.
    Own(usize),
    One(&'b [u8]),
    Two(&'b [[u8; 2]]),
    Four(&'b [[u8; 4]]),
}

/// The values of an entry.
pub(crate) enum EntryValues<'b> {
    /// They could not be read from the row.
    Unreadable,
    /// The values.
    Read(ParameterValues<'b>),
}

impl<'b> ColumnSection<'b> {
    /// The section of these bytes, of a segment of so many rows.
    ///
    /// # Errors
    /// [`CorruptIndex`] if the parts do not add up to the bytes.
    pub(crate) fn open(bytes: &'b [u8], rows: usize) -> Result<ColumnSection<'b>, CorruptIndex> {
        let (head, mut rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(MALFORMED)?;
        let word = |i: usize| head.as_chunks::<4>().0.get(i).map_or(0, |word| u32::from_le_bytes(*word) as usize);
        let (entries, width, names, heap) = (word(1), word(2), word(3), word(4));
        if word(0) != rows {
            return Err(CorruptIndex("a search column is of another segment"));
        }
        let mut part = |length: usize| {
            let (part, behind) = rest.split_at_checked(length.next_multiple_of(8)).ok_or(MALFORMED)?;
            rest = behind;
            Ok::<&[u8], CorruptIndex>(&part[..length])
        };
        let numbers = part(rows.checked_mul(width).ok_or(MALFORMED)?)?;
        let numbers = match width {
            0 if entries == rows => RowNumbers::Own(rows),
            1 => RowNumbers::One(numbers),
            2 => RowNumbers::Two(numbers.as_chunks().0),
            4 => RowNumbers::Four(numbers.as_chunks().0),
            _ => return Err(MALFORMED),
        };
        let keys = part(entries.checked_mul(8).ok_or(MALFORMED)?)?.as_chunks().0;
        let starts = part(if heap == 0 { 0 } else { (entries + 1).checked_mul(4).ok_or(MALFORMED)? })?;
        let (starts, name_bytes) = (starts.as_chunks().0, part(names)?);
        if rest.len() != heap {
            return Err(MALFORMED);
        }
        Ok(ColumnSection { numbers, keys, starts, name_bytes, names: OnceCell::new(), heap: rest })
    }

    /// Number of entries.
    pub(crate) fn entries(&self) -> usize {
        self.keys.len()
    }

    /// The word of an entry.
    pub(crate) fn key(&self, entry: usize) -> u64 {
        u64::from_le_bytes(self.keys[entry])
    }

    /// The words of all entries.
    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = u64> + 'b {
        self.keys.iter().map(|key| u64::from_le_bytes(*key))
    }

    /// The values of an entry.
    ///
    /// # Errors
    /// [`CorruptIndex`] if they are none.
    pub(crate) fn values(&self, entry: usize) -> Result<EntryValues<'b>, CorruptIndex> {
        let range = self.heap_range(entry)?;
        if range.is_empty() {
            let span = time_of_key(self.key(entry)).ok_or(MALFORMED)?;
            return Ok(EntryValues::Read(ParameterValues::of_time(span)));
        }
        let names = self.names.get_or_init(|| read_names(self.name_bytes));
        let bytes = self.heap.get(range).ok_or(MALFORMED)?;
        Ok(decode(bytes, names.as_ref().map_err(|wrong| *wrong)?)?.map_or(EntryValues::Unreadable, EntryValues::Read))
    }

    /// Where an entry lies in the heap.
    fn heap_range(&self, entry: usize) -> Result<Range<usize>, CorruptIndex> {
        let start = |i: usize| self.starts.get(i).map_or(0, |start| u32::from_le_bytes(*start) as usize);
        let range = start(entry)..start(entry + 1);
        if range.start <= range.end { Ok(range) } else { Err(MALFORMED) }
    }

    /// Whether the word of an entry says all of its values.
    #[inline(always)]
    pub(crate) fn is_in_key(&self, entry: usize) -> bool {
        self.starts.get(entry) == self.starts.get(entry + 1)
    }

    /// The entry of a row; `None` if the row is of another type.
    ///
    /// # Errors
    /// [`CorruptIndex`] if there is no such entry.
    #[inline(always)]
    pub(crate) fn entry_of(&self, row: usize) -> Result<Option<usize>, CorruptIndex> {
        let number = match self.numbers {
            RowNumbers::Own(rows) => Some(row + 1).filter(|number| *number <= rows),
            RowNumbers::One(numbers) => numbers.get(row).map(|number| usize::from(*number)),
            RowNumbers::Two(numbers) => numbers.get(row).map(|number| usize::from(u16::from_le_bytes(*number))),
            RowNumbers::Four(numbers) => numbers.get(row).map(|number| u32::from_le_bytes(*number) as usize),
        };
        match number {
            Some(0) => Ok(None),
            Some(number) if number <= self.keys.len() => Ok(Some(number - 1)),
            _ => Err(MALFORMED),
        }
    }

    /// Writes for each row what stands in `table` for its entry, the first place of which is for rows of another type.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a row leads out of the table.
    pub(crate) fn spread(&self, table: &[u8], out: &mut [u8]) -> Result<(), CorruptIndex> {
        fn copy(table: &[u8], numbers: impl Iterator<Item = usize>, out: &mut [u8]) -> bool {
            // One more than any number of a byte, or of two, can reach, so that those are not compared.
            let mut is_inside = true;
            for (place, number) in out.iter_mut().zip(numbers) {
                match table.get(number) {
                    Some(value) => *place = *value,
                    None => is_inside = false,
                }
            }
            is_inside
        }
        let is_inside = match self.numbers {
            RowNumbers::Own(rows) => copy(table, 1..rows + 1, out),
            RowNumbers::One(numbers) => copy(table, numbers.iter().map(|number| usize::from(*number)), out),
            RowNumbers::Two(numbers) => {
                copy(table, numbers.iter().map(|number| usize::from(u16::from_le_bytes(*number))), out)
            }
            RowNumbers::Four(numbers) => {
                copy(table, numbers.iter().map(|number| u32::from_le_bytes(*number) as usize), out)
            }
        };
        if is_inside { Ok(()) } else { Err(MALFORMED) }
    }
}

/// Entries and row numbers as a section is made of them.
#[derive(Default)]
pub(crate) struct SectionParts {
    /// For each row 1 more than the number of its entry, 0 for one of another type.
    pub numbers: Vec<u32>,
    /// The word of each entry.
    pub keys: Vec<u64>,
    /// Where in the heap each entry ends.
    pub ends: Vec<u32>,
    /// The names.
    pub names: Vec<u8>,
    /// The entries that their words do not say.
    pub heap: Vec<u8>,
}

impl SectionParts {
    /// The section as bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let has_heap = !self.heap.is_empty();
        let entries = self.keys.len();
        // Where most rows have values of their own, they are written row by row, without numbers.
        let is_own = entries * 2 > self.numbers.len() && !has_heap && !self.numbers.contains(&0);
        let width = match entries {
            _ if is_own => 0,
            0..=0xff => 1,
            0x100..=0xffff => 2,
            _ => 4,
        };
        let counted = if is_own { self.numbers.len() } else { entries };
        let mut out = Vec::with_capacity(HEAD_BYTES + self.numbers.len() * width + counted * 12 + self.heap.len());
        let head = [self.numbers.len(), counted, width, self.names.len(), self.heap.len(), 0];
        head.iter().for_each(|word| out.extend_from_slice(&to_u32(*word).to_le_bytes()));
        let pad = |out: &mut Vec<u8>| out.resize(out.len().next_multiple_of(8), 0);
        self.numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()[..width]));
        pad(&mut out);
        if is_own {
            let key = |number: &u32| self.keys[*number as usize - 1];
            self.numbers.iter().for_each(|number| out.extend_from_slice(&key(number).to_le_bytes()));
        } else {
            self.keys.iter().for_each(|key| out.extend_from_slice(&key.to_le_bytes()));
        }
        if has_heap {
            out.extend_from_slice(&[0; 4]);
            self.ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
            pad(&mut out);
        }
        out.extend_from_slice(&self.names);
        pad(&mut out);
        out.extend_from_slice(&self.heap);
        out
    }
}
