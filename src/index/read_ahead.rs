//! Parts of the index that are about to be read, asked for together: a disk gives many scattered pages in the time of a few
//! that are waited for one after another.
//!
//! Nothing is asked for that seems to be in the page cache. Whatever is asked for or not, the answers are the same.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::casts::to_usize;
use crate::ids::{OwnerOrd, RowAddress, SegmentId};
use crate::index::dir::IndexBytes;
use crate::index::page_checksums::checksum_count;
use crate::index::segment::layout::{COLUMNS, Column, HEADER_BYTES};
use crate::index::segment::reader::Segment;
use crate::index::snapshot::Index;
use crate::sys::read_ahead::MergedRanges;
use crate::sys::store_file::ReadOrder;

/// Number of the parts that are sampled to decide whether they are in the page cache.
const SAMPLES: usize = 16;
/// Number of offsets of an index file that are sampled to decide whether it is in the page cache.
const FILE_SAMPLES: u64 = 64;
/// Number of segments, from the one that is scanned on, whose columns are asked for.
const SEGMENTS_AHEAD: usize = 8;

impl IndexBytes {
    /// Has the kernel read single pages where nothing was asked for, instead of megabytes around them: what is read of a
    /// file of segments is known or scattered.
    pub(in crate::index) fn expect_scattered_reads(&self) {
        self.source().advise(ReadOrder::Scattered);
    }

    /// Asks the kernel to read a range, unless it seems to be in the page cache.
    #[cold]
    pub(in crate::index) fn read_range_ahead(&self, range: Range<u64>) {
        let samples = [range.start, range.start.midpoint(range.end), range.end.saturating_sub(1)];
        if !samples.iter().all(|offset| self.source().is_cached(*offset)) {
            self.source().will_need(range);
        }
    }

    /// Asks the kernel to read all of it, unless it seems to be in the page cache.
    pub(crate) fn read_ahead(&self) {
        let (source, len) = (self.source(), self.len() as u64);
        if !(0..FILE_SAMPLES).map(|i| len / FILE_SAMPLES * i).all(|offset| source.is_cached(offset)) {
            source.will_need(0..len);
        }
    }
}

/// Where header and page checksums of a segment lie in its container, as the header says; nothing of the segment is read.
fn front_place(segment: &Segment) -> Range<u64> {
    let size = segment.head().size;
    // The checksums of the pages of the columns are fewer than those of the pages of the whole segment.
    let checksums = 4 * checksum_count(to_usize(size)) as u64;
    segment.offset()..segment.offset().saturating_add(size.min(HEADER_BYTES as u64 + checksums))
}

/// Where elements of a column lie in the container of a segment; `None` when its header is damaged or there are no such
/// elements.
fn elements_place(segment: &Segment, column: Column, elements: Range<usize>) -> Option<Range<u64>> {
    let (place, width) = (segment.column_place(column)?, COLUMNS[column as usize].width);
    let start = place.start.checked_add((elements.start as u64).checked_mul(width as u64)?)?;
    let end = place.start.checked_add((elements.end as u64).checked_mul(width as u64)?)?;
    (start < end && end <= place.end).then_some(start..end)
}

/// Parts of index files, to be asked for at once.
#[derive(Default)]
struct WantedParts<'a>(Vec<(&'a Arc<IndexBytes>, Range<u64>)>);

impl<'a> WantedParts<'a> {
    /// Adds header and page checksums of a segment.
    fn add_front(&mut self, segment: &'a Segment) {
        self.0.push((segment.container(), front_place(segment)));
    }

    /// Adds elements of a column, if there are such.
    fn add(&mut self, segment: &'a Segment, column: Column, elements: Range<usize>) {
        self.0.extend(elements_place(segment, column, elements).map(|place| (segment.container(), place)));
    }

    /// Adds a whole column.
    fn add_column(&mut self, segment: &'a Segment, column: Column) {
        self.add(segment, column, 0..segment.column_size(column).0);
    }

    /// Asks for the parts, near ones as one, if some seem not to be in the page cache.
    fn ask(self) {
        let step = (self.0.len() / SAMPLES).max(1);
        if !self.0.iter().step_by(step).all(|(bytes, place)| bytes.source().is_cached(place.start)) {
            self.ask_for_all();
        }
    }

    /// Asks for the parts, near ones as one.
    fn ask_for_all(mut self) {
        let file = |bytes: &Arc<IndexBytes>| Arc::as_ptr(bytes).addr();
        self.0.sort_unstable_by_key(|(bytes, place)| (file(bytes), place.start));
        for of_file in self.0.chunk_by(|a, b| Arc::ptr_eq(a.0, b.0)) {
            let mut wanted = MergedRanges::new(|range| of_file[0].0.source().will_need(range));
            of_file.iter().for_each(|(_, place)| wanted.add(place.clone()));
            wanted.finish();
        }
    }
}

impl Index {
    /// Asks for what reading the postings of owners needs, and for where their rows lie. Numbers that are read on the way
    /// are not verified: a wrong one asks for other pages.
    pub(crate) fn read_postings_ahead(&self, owners: &[(SegmentId, OwnerOrd)]) {
        let is_cached = |(segment, owner): &(SegmentId, OwnerOrd)| {
            let segment = self.segment(*segment);
            let source = segment.container().source();
            // Where the column lies is asked only if the header can be read without a wait.
            source.is_cached(front_place(segment).start)
                && elements_place(segment, Column::PostingStart, owner.index()..owner.index() + 2)
                    .is_none_or(|place| source.is_cached(place.start))
        };
        if owners.iter().step_by((owners.len() / SAMPLES).max(1)).all(is_cached) {
            return;
        }
        let mut segments: Vec<SegmentId> = owners.iter().map(|(segment, _)| *segment).collect();
        segments.sort_unstable();
        segments.dedup();
        let mut fronts = WantedParts::default();
        segments.iter().for_each(|segment| fronts.add_front(self.segment(*segment)));
        fronts.ask();
        let mut starts = WantedParts::default();
        for (segment, owner) in owners {
            starts.add(self.segment(*segment), Column::PostingStart, owner.index()..owner.index() + 2);
        }
        starts.ask();
        let mut postings = WantedParts::default();
        for (segment, owner) in owners {
            let segment = self.segment(*segment);
            if let Some([start, end]) = segment.columns().posting_start.get(owner.index()..owner.index() + 2) {
                postings.add(segment, Column::Posting, *start as usize..*end as usize);
            }
        }
        postings.ask();
    }

    /// Asks for these columns of rows; whether some seem not to be in the page cache.
    pub(crate) fn read_rows_ahead(&self, columns: &[Column], rows: &[RowAddress]) -> bool {
        let place = |row: &RowAddress, column: Column| {
            let segment = self.segment(row.segment);
            let element = row.row.index()..row.row.index() + 1;
            elements_place(segment, column, element).map(|place| (segment.container(), place))
        };
        let sampled = rows.iter().step_by((rows.len() / SAMPLES).max(1));
        let mut places = sampled.flat_map(|row| columns.iter().filter_map(move |column| place(row, *column)));
        if places.all(|(bytes, place)| bytes.source().is_cached(place.start)) {
            return false;
        }
        let all = rows.iter().flat_map(|row| columns.iter().filter_map(move |column| place(row, *column)));
        WantedParts(all.collect()).ask_for_all();
        true
    }
}

/// Columns of segments that are scanned one after another on several threads, asked for a few segments ahead.
pub(crate) struct ColumnReadAhead<'a> {
    index: &'a Index,
    segments: &'a [SegmentId],
    columns: &'a [Column],
    /// Which segments were asked for.
    asked: Vec<AtomicBool>,
}

impl<'a> ColumnReadAhead<'a> {
    /// Of these columns of those of the segments that `reads` says they are read of. Asks for the headers of these, which say
    /// where columns lie: half a percent of the index.
    pub(crate) fn new(
        index: &'a Index,
        segments: &'a [SegmentId],
        columns: &'a [Column],
        reads: impl Fn(SegmentId) -> bool,
    ) -> ColumnReadAhead<'a> {
        let mut fronts = WantedParts::default();
        segments.iter().filter(|at| reads(**at)).for_each(|segment| fronts.add_front(index.segment(*segment)));
        fronts.ask();
        let asked = segments.iter().map(|segment| AtomicBool::new(!reads(*segment))).collect();
        ColumnReadAhead { index, segments, columns, asked }
    }

    /// Asks for what the segment at this place and the next ones need.
    pub(crate) fn advance(&self, at: usize) {
        let end = (at + SEGMENTS_AHEAD).min(self.segments.len());
        for (segment, asked) in self.segments[at..end].iter().zip(&self.asked[at..end]) {
            if !asked.load(Relaxed) && !asked.swap(true, Relaxed) {
                let mut wanted = WantedParts::default();
                self.columns.iter().for_each(|column| wanted.add_column(self.index.segment(*segment), *column));
                wanted.ask();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::segment::layout::ALL_COLUMNS;
    use crate::progress::Progress;
    use crate::store::Store;

    /// Header, checksums and columns are asked for where they lie: the parts follow one another in the segment, and what is
    /// said to be there is what the segment reads there.
    #[test]
    fn parts_of_a_segment_are_asked_for_where_they_lie() {
        let dir = tempfile::tempdir().unwrap();
        let row = |n: u32| {
            format!(
                "{{\"resourceType\":\"Condition\",\"id\":\"c{n}\",\"subject\":{{\"reference\":\"Patient/p{}\"}}}}\n",
                n % 7
            )
        };
        std::fs::write(dir.path().join("a.ndjson"), (0..500).map(row).collect::<String>()).unwrap();
        let (index, _) = Store::open(dir.path()).unwrap().index(&Progress::default()).unwrap();
        let segment = &index.segments()[0];
        let container: &[u8] = segment.container();
        let front = front_place(segment);
        assert_eq!(&container[to_usize(front.start)..][..7], b"OUTPOUR");
        assert!(front.end - front.start >= HEADER_BYTES as u64);
        let mut end = 0;
        for column in ALL_COLUMNS {
            let (count, bytes) = segment.column_size(column);
            let Some(place) = elements_place(segment, column, 0..count) else { continue };
            assert_eq!(place.end - place.start, bytes as u64);
            assert!(place.start >= end && place.start >= front.start + HEADER_BYTES as u64);
            end = place.end;
            assert_eq!(elements_place(segment, column, count - 1..count).map(|last| last.end), Some(end));
            assert_eq!(elements_place(segment, column, count..count + 1), None);
        }
        let places = elements_place(segment, Column::Place, 0..1).unwrap();
        let first = segment.verify_columns(&[Column::Place]).unwrap().place[0];
        assert_eq!(container[to_usize(places.start)..][..4], first[0].to_le_bytes());
        assert_eq!(container[to_usize(places.start) + 4..][..4], first[1].to_le_bytes());
    }
}
