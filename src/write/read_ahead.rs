//! Read-ahead by the plan: the kernel is asked for the bytes that a sweep is going to copy, a bounded distance before they
//! are read.
//!
//! A plan knows every range. The kernel guesses by what was read last: of scattered rows it reads several times as much as
//! is wanted, one request at a time. Segments whose bytes are in the page cache are told by a few samples and left alone, so
//! that a store that is in memory pays nothing. Whatever is asked for or not, the rows are the same.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::iter::Peekable;
use std::ops::Range;

use crate::codec::compression::Compression;
use crate::ids::{RowAddress, SegmentId, ShardId};
use crate::index::snapshot::Index;
use crate::plan::Plan;
use crate::select::row_set::RowSetIter;
use crate::store::packed::seek_table::SeekTable;
use crate::sys::read_ahead::MergedRanges;
use crate::sys::store_file::StoreFile;

/// Bytes asked for that are not read yet, at which no more are asked for.
const AHEAD_BYTES: u64 = 16 << 20;
/// Rows looked at at a time.
const BATCH_ROWS: usize = 256;
/// Least bytes of a segment that is looked at: the rows of a small file are few requests anyway.
const SEGMENT_BYTES_MIN: u64 = 256 << 10;
/// Number of rows of a segment that are sampled to decide whether its bytes are in the page cache.
const SAMPLES: usize = 8;

/// What a sweep is going to read, from where it has been asked for on.
pub(crate) struct ReadAhead<'a> {
    plan: &'a Plan,
    index: &'a Index,
    /// Whether rows of a type are taken, by its place in the order of names.
    types: Vec<bool>,
    /// Rows from the first to the last one taken.
    bounds: (RowAddress, RowAddress),
    /// The next segment to be looked at.
    next: SegmentId,
    /// What is left of the segment before.
    walk: Option<SegmentWalk<'a>>,
    /// Last row and bytes of each batch that was asked for and not read yet.
    asked: VecDeque<(RowAddress, u64)>,
    /// Sum of these bytes.
    asked_bytes: u64,
}

/// A segment whose rows are asked for.
enum SegmentWalk<'a> {
    /// Rows of a plain file.
    Rows(SegmentId, &'a StoreFile, RowSetIter<'a>),
    /// Rows of a packed file, whose frames are read.
    Frames(SegmentId, &'a StoreFile, &'a SeekTable, Peekable<RowSetIter<'a>>),
    /// Frames of a packed file whose rows are all read.
    AllFrames(RowAddress, &'a StoreFile, &'a SeekTable, Range<usize>),
}

impl<'a> ReadAhead<'a> {
    /// Of the shards of a sweep, ascending within each type.
    pub(crate) fn new(plan: &'a Plan, index: &'a Index, shards: &[ShardId]) -> ReadAhead<'a> {
        let mut types = vec![false; crate::fhir::resource_type::ResourceType::COUNT];
        let (mut first, mut last) = (RowAddress::of(SegmentId(u32::MAX), 0), RowAddress::of(SegmentId(0), 0));
        for shard in shards.iter().map(|shard| plan.shard(*shard)) {
            types[shard.resource_type.index()] = true;
            (first, last) = (first.min(shard.first), last.max(shard.last));
        }
        let (next, walk, asked) = (first.segment, None, VecDeque::new());
        ReadAhead { plan, index, types, bounds: (first, last), next, walk, asked, asked_bytes: 0 }
    }

    /// Asks for what follows, as far as may be ahead of the row that is about to be read.
    pub(crate) fn advance(&mut self, at: RowAddress) {
        while let Some((last, bytes)) = self.asked.front()
            && *last < at
        {
            self.asked_bytes -= bytes;
            self.asked.pop_front();
        }
        while self.asked_bytes < AHEAD_BYTES {
            let Some((last, bytes)) = self.ask() else { return };
            self.asked.push_back((last, bytes));
            self.asked_bytes += bytes;
        }
    }

    /// Asks for the next batch. Its last row and bytes; `None` when nothing follows.
    fn ask(&mut self) -> Option<(RowAddress, u64)> {
        loop {
            let batch = match self.walk.as_mut() {
                None => None,
                Some(SegmentWalk::Rows(segment, source, rows)) => {
                    ask_for_rows(self.index, &self.types, *segment, source, rows)
                }
                Some(SegmentWalk::Frames(segment, source, table, rows)) => {
                    ask_for_frames(self.index, *segment, source, table, rows)
                }
                Some(SegmentWalk::AllFrames(last, source, table, frames)) => {
                    let mut wanted = MergedRanges::new(|range| source.will_need(range));
                    let batch = frames.by_ref().take(BATCH_ROWS).map(|i| table.frame(i));
                    batch.for_each(|frame| wanted.add(frame.compressed..frame.compressed + frame.compressed_len));
                    Some(wanted.finish()).filter(|bytes| *bytes > 0).map(|bytes| (*last, bytes))
                }
            };
            if batch.is_some() {
                return batch;
            }
            self.walk = None;
            if self.next > self.bounds.1.segment {
                return None;
            }
            let segment = self.next;
            self.next = segment.following();
            self.walk = self.begin(segment);
        }
    }

    /// Begins a segment; `None` if nothing is to be asked for of it.
    fn begin(&self, segment: SegmentId) -> Option<SegmentWalk<'a>> {
        let (index, entry) = (self.index, self.index.entry(segment));
        let selected = &self.plan.selection.rows[segment.index()];
        let is_taken = (0..self.types.len()).any(|i| self.types[i] && index.segment(segment).head().has_type(i));
        if selected.is_empty() || entry.end - entry.start < SEGMENT_BYTES_MIN || !is_taken {
            return None;
        }
        let file = index.file_of(segment);
        let table = index.packed(file);
        if table.is_none() && index.compression(file) != Compression::None {
            // Decoded from one point on, in order: the kernel sees that.
            return None;
        }
        let source = index.source(file).ok()?;
        let rows = index.segment(segment).rows();
        let (first, last) = self.bounds;
        let first = if first.segment == segment { first.row.index() } else { 0 };
        let end = if last.segment == segment { last.row.index() + 1 } else { rows };
        // Looked up when it is first asked: a segment that is taken whole needs none of it.
        let columns = OnceCell::new();
        let columns = || columns.get_or_init(|| index.segment(segment).columns());
        let place = |row: usize| entry.start + u64::from(columns().offset(row));
        let is_cached = |offset: u64| source.is_cached(offset);
        if let Some(table) = table.filter(|_| selected.all(0..rows)) {
            // A plan reads where rows lie only of a segment that it cuts: so does this.
            let (from, to) = match (first, end == rows) {
                (0, true) => (entry.start, entry.end - 1),
                _ => (place(first), place(end.clamp(1, rows) - 1)),
            };
            let frames = table.frame_at(from)..(table.frame_at(to) + 1).min(table.frames());
            let step = (frames.len() / SAMPLES).max(1);
            if frames.clone().step_by(step).all(|i| is_cached(table.frame(i).compressed)) {
                return None;
            }
            return Some(SegmentWalk::AllFrames(RowAddress::of(segment, rows - 1), source, table, frames));
        }
        let offset = |row: usize| match table {
            None => Some(place(row)),
            Some(table) => {
                let frame = table.frame_at(place(row));
                (frame < table.frames()).then(|| table.frame(frame).compressed)
            }
        };
        let step = (end.saturating_sub(first) / SAMPLES).max(1);
        let mut samples = (first..end).step_by(step).filter_map(|from| selected.range(from..end).next());
        if samples.all(|row| offset(row).is_none_or(is_cached)) {
            return None;
        }
        match table {
            None => Some(SegmentWalk::Rows(segment, source, selected.range(first..end))),
            Some(table) => Some(SegmentWalk::Frames(segment, source, table, selected.range(first..end).peekable())),
        }
    }
}

/// Asks for the next rows of a plain file.
fn ask_for_rows(
    index: &Index,
    types: &[bool],
    segment: SegmentId,
    source: &StoreFile,
    rows: &mut RowSetIter<'_>,
) -> Option<(RowAddress, u64)> {
    let (columns, start) = (index.segment(segment).columns(), index.entry(segment).start);
    let only_type = index.segment(segment).head().only_type().is_some();
    let mut wanted = MergedRanges::new(|range| source.will_need(range));
    let mut last = None;
    for row in rows.by_ref().take(BATCH_ROWS) {
        last = Some(row);
        // The page of types is not verified yet: what it says may be anything.
        if only_type || types.get(usize::from(columns.resource_type[row])).is_some_and(|taken| *taken) {
            let offset = start + u64::from(columns.offset(row));
            wanted.add(offset..offset + u64::from(columns.length(row)) + 1);
        }
    }
    let bytes = wanted.finish();
    last.map(|row| (RowAddress::of(segment, row), bytes))
}

/// Asks for the next frames of a packed file that hold selected rows.
fn ask_for_frames(
    index: &Index,
    segment: SegmentId,
    source: &StoreFile,
    table: &SeekTable,
    rows: &mut Peekable<RowSetIter<'_>>,
) -> Option<(RowAddress, u64)> {
    let (columns, start) = (index.segment(segment).columns(), index.entry(segment).start);
    let place = |row: usize| start + u64::from(columns.offset(row));
    let mut wanted = MergedRanges::new(|range| source.will_need(range));
    let last = ask_for_frames_of(table, rows, place, &mut wanted);
    let bytes = wanted.finish();
    last.map(|row| (RowAddress::of(segment, row), bytes))
}

/// Adds the frames of the next rows, each once; the last of these rows. `place` is where a row begins in the uncompressed
/// file.
fn ask_for_frames_of<F: FnMut(Range<u64>)>(
    table: &SeekTable,
    rows: &mut Peekable<impl Iterator<Item = usize>>,
    place: impl Fn(usize) -> u64,
    wanted: &mut MergedRanges<F>,
) -> Option<usize> {
    let mut last = None;
    for _ in 0..BATCH_ROWS {
        let Some(row) = rows.next() else { break };
        last = Some(row);
        let number = table.frame_at(place(row));
        if number >= table.frames() {
            continue;
        }
        let frame = table.frame(number);
        wanted.add(frame.compressed..frame.compressed + frame.compressed_len);
        let end = frame.uncompressed + frame.uncompressed_len;
        while let Some(row) = rows.next_if(|row| place(*row) < end) {
            last = Some(row);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::packed::envelope::PackCoding;
    use crate::store::packed::seek_table::NewFrame;
    use proptest::prelude::*;

    proptest! {
        /// The frames that are asked for are those that hold a wanted row, each once, whatever rows are wanted.
        #[test]
        fn frames_of_wanted_rows_are_asked_for(
            rows_of in proptest::collection::vec(1..6u64, 1..400),
            wanted in proptest::collection::vec(any::<bool>(), 2_400),
        ) {
            // Rows of ten bytes; frames so long in the file that none is near another but its neighbours.
            let mut table = SeekTable::new(PackCoding::Zstd);
            for rows in &rows_of {
                let (compressed_len, uncompressed_len) = (40_000, rows * 10);
                table.push(NewFrame { compressed_len, uncompressed_len, hash: 0, updated: (0, 0), rows: *rows as u32, crc: 0 });
            }
            let count = rows_of.iter().sum::<u64>() as usize;
            let rows: Vec<usize> = (0..count).filter(|row| wanted[*row]).collect();
            let (mut left, mut asked, mut last) = (rows.iter().copied().peekable(), Vec::new(), None);
            loop {
                let mut merged = MergedRanges::new(|range| asked.push(range));
                match ask_for_frames_of(&table, &mut left, |row| row as u64 * 10, &mut merged) {
                    Some(row) => last = Some(row),
                    None => break,
                }
                merged.finish();
            }
            prop_assert_eq!(last, rows.last().copied());
            // The naive twin: each frame is asked about each row.
            for i in 0..table.frames() {
                let frame = table.frame(i);
                let (start, end) = (frame.uncompressed, frame.uncompressed + frame.uncompressed_len);
                let is_wanted = rows.iter().any(|row| (start..end).contains(&(*row as u64 * 10)));
                let holders = asked.iter().filter(|range| range.contains(&frame.compressed)).count();
                prop_assert_eq!(holders, usize::from(is_wanted));
            }
        }
    }
}
