//! First-seen times that a segment inherits when a range of the store is scanned again.

use crate::casts::to_u32;
use crate::error::CorruptIndex;
use crate::index::diff::RescannedSegment;
use crate::index::row_times::TimeRun;
use crate::index::segment::layout::Column;
use crate::index::segment::reader::Segment;
use crate::index::segment::scan::WrittenSegment;

/// The first-seen times of a segment that was scanned again: those of the segment of the same range, else for each row
/// that of the segment that it was in. Rows that were in none are new.
///
/// # Errors
/// [`CorruptIndex`] when the places of the segment's rows fail their checksum.
pub(crate) fn inherited_times(
    rescanned: &[RescannedSegment],
    new: &WrittenSegment,
    segment: &Segment,
) -> Result<(Option<i64>, Vec<TimeRun>), CorruptIndex> {
    let of_file =
        rescanned.partition_point(|old| old.file < new.file)..rescanned.partition_point(|old| old.file <= new.file);
    let rescanned = &rescanned[of_file];
    if let Some(same) = rescanned.iter().find(|old| (old.start, old.end) == (new.start, new.end)) {
        return Ok((same.first_seen, same.runs.clone()));
    }
    let overlaps = |old: &&RescannedSegment| old.start < new.end && new.start < old.end;
    let overlapping: Vec<&RescannedSegment> = rescanned.iter().filter(overlaps).collect();
    let covered: u64 = overlapping.iter().map(|old| old.end.min(new.end) - old.start.max(new.start)).sum();
    let latest = overlapping.iter().map(|old| old.first_seen).reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).flatten();
    let own = latest.filter(|_| covered == new.end - new.start);
    let places = segment.verify_columns(&[Column::Place])?.place;
    let first_row =
        |offset: u64| to_u32(places.partition_point(|[start, _]| u64::from(*start) < offset.saturating_sub(new.start)));
    let mut runs = Vec::new();
    for old in overlapping {
        runs.push(TimeRun { row: first_row(old.start), first_seen: old.first_seen });
        runs.push(TimeRun { row: first_row(old.end), first_seen: None });
    }
    // A range without rows, and the end of one that another begins at, say nothing.
    let mut said: Vec<TimeRun> = Vec::new();
    for run in runs {
        if said.last().is_some_and(|last| last.row == run.row) {
            said.pop();
        }
        said.push(run);
    }
    Ok((own, said))
}
