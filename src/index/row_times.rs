//! First-seen times of single rows, of segments whose rows did not all come at once: those that replaced other segments
//! and those that were joined from several.
//!
//! A segment has one first-seen time in the index meta, the latest of its rows. Where some of its rows were in the store
//! before, runs of rows say since when; DELETE entries count behind the last row. They lie in one small file beside the
//! index meta, written twice: what they say cannot be made again from the store. A row without a run has the time of its
//! segment.

use crate::casts::to_u32;
use crate::error::IndexError;
use crate::hash::xxh3_64;
use crate::ids::EntryId;
use crate::index::dir::IndexDir;
use crate::index::meta::{self, IndexMeta};
use crate::sys::little_endian::{bytes_of, view};

/// Magic bytes at the start of the file, as a word.
const MAGIC: u64 = u64::from_le_bytes(*b"OUTTIME\x01");

/// From this row on, up to the next run, the rows of a segment were first seen at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeRun {
    /// First row of the run, in the segment; for DELETE entries the number of rows and the first entry.
    pub row: u32,
    /// T of the first snapshot that held the rows, in ticks; `None` for the time of the segment.
    pub first_seen: Option<i64>,
}

/// Runs of the segments that have any, by the number of the segment in the index meta.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowTimes {
    segments: Vec<(usize, Vec<TimeRun>)>,
}

impl RowTimes {
    /// Whether no segment has runs.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Number of segments that have runs, and of all their runs.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.segments.len(), self.segments.iter().map(|(_, runs)| runs.len()).sum())
    }

    /// The runs of a segment, ascending by row; empty when all its rows have the time of the segment.
    pub(crate) fn runs(&self, segment: usize) -> &[TimeRun] {
        match self.segments.binary_search_by_key(&segment, |(number, _)| *number) {
            Ok(i) => &self.segments[i].1,
            Err(_) => &[],
        }
    }

    /// Sets the runs of a segment behind all that have runs already; runs that say nothing are left out.
    ///
    /// # Panics
    /// When a segment of this or a greater number has runs.
    pub(crate) fn push(&mut self, segment: usize, runs: Vec<TimeRun>) {
        assert!(self.segments.last().is_none_or(|(last, _)| *last < segment), "segments come in their order");
        if runs.iter().any(|run| run.first_seen.is_some()) {
            self.segments.push((segment, runs));
        }
    }

    /// Bytes of the file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut words: Vec<u64> = vec![MAGIC, 0, self.segments.len() as u64];
        for (segment, runs) in &self.segments {
            words.extend([*segment as u64, runs.len() as u64]);
            for run in runs {
                words.push(u64::from(run.row) | u64::from(run.first_seen.is_some()) << 32);
                words.push(run.first_seen.unwrap_or_default() as u64);
            }
        }
        words[1] = xxh3_64(bytes_of(&words[2..]));
        bytes_of(&words).to_vec()
    }

    /// Reads the bytes of the file; `None` when they are damaged.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<RowTimes> {
        let aligned: Vec<u64> = match view::<u64>(bytes) {
            Some(words) => words.to_vec(),
            None => bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect(),
        };
        let [MAGIC, sum, body @ ..] = &aligned[..] else { return None };
        if !bytes.len().is_multiple_of(8) || *sum != xxh3_64(bytes_of(body)) {
            return None;
        }
        let (count, mut rest) = body.split_first()?;
        let mut times = RowTimes::default();
        for _ in 0..*count {
            let [segment, runs, behind @ ..] = rest else { return None };
            let (own, behind) = behind.split_at_checked(usize::try_from(*runs).ok()?.checked_mul(2)?)?;
            rest = behind;
            let (pairs, _) = own.as_chunks::<2>();
            let run = |[row, ticks]: &[u64; 2]| {
                let first_seen = match row >> 32 {
                    0 => None,
                    1 => Some(*ticks as i64),
                    _ => return None,
                };
                Some(TimeRun { row: u32::try_from(row & u64::from(u32::MAX)).ok()?, first_seen })
            };
            let runs = pairs.iter().map(run).collect::<Option<Vec<_>>>()?;
            let segment = usize::try_from(*segment).ok()?;
            let ordered = times.segments.last().is_none_or(|(last, _)| *last < segment);
            if !ordered || !runs.is_sorted_by(|a, b| a.row < b.row) {
                return None;
            }
            times.segments.push((segment, runs));
        }
        rest.is_empty().then_some(times)
    }
}

/// First-seen time of a row, in ticks, given the runs and the time of its segment.
pub(crate) fn time_of_row(runs: &[TimeRun], row: usize, segment_time: Option<i64>) -> Option<i64> {
    let after = runs.partition_point(|run| run.row as usize <= row);
    let run = after.checked_sub(1).and_then(|i| runs[i].first_seen);
    run.or(segment_time)
}

/// First-seen time of a DELETE entry, in ticks, given the runs, rows and time of its segment. Runs of rows say nothing of
/// entries.
pub(crate) fn time_of_entry(runs: &[TimeRun], rows: usize, entry: EntryId, segment_time: Option<i64>) -> Option<i64> {
    let of_rows = runs.partition_point(|run| (run.row as usize) < rows);
    time_of_row(&runs[of_rows..], rows + entry.index(), segment_time)
}

/// A part of a joined segment: numbers of its rows and DELETE entries, its runs, and its first-seen time.
pub(crate) type JoinedPart<'a> = ((usize, usize), &'a [TimeRun], Option<i64>);

/// The runs of joined segments; `parts` are in order, `own` is the time of the joined segment.
pub(crate) fn joined_runs(parts: &[JoinedPart<'_>], own: Option<i64>) -> Vec<TimeRun> {
    let known = |time: Option<i64>| if time == own { None } else { time };
    // 1. Runs of rows.
    let mut runs: Vec<TimeRun> = Vec::new();
    let mut start = 0;
    for ((rows, _), part, time) in parts {
        let part = &part[..part.partition_point(|run| (run.row as usize) < *rows)];
        if *rows > 0 && part.first().is_none_or(|run| run.row > 0) {
            runs.push(TimeRun { row: start, first_seen: known(*time) });
        }
        runs.extend(
            part.iter().map(|run| TimeRun { row: start + run.row, first_seen: known(run.first_seen.or(*time)) }),
        );
        start += to_u32(*rows);
    }
    runs.dedup_by_key(|run| run.first_seen);
    // 2. Runs of DELETE entries, behind all rows.
    let mut of_entries: Vec<TimeRun> = Vec::new();
    for ((rows, entries), part, time) in parts {
        let part = &part[part.partition_point(|run| (run.row as usize) < *rows)..];
        if *entries > 0 && part.first().is_none_or(|run| run.row as usize > *rows) {
            of_entries.push(TimeRun { row: start, first_seen: known(*time) });
        }
        of_entries.extend(part.iter().map(|run| TimeRun {
            row: start + (run.row - to_u32(*rows)),
            first_seen: known(run.first_seen.or(*time)),
        }));
        start += to_u32(*entries);
    }
    of_entries.dedup_by_key(|run| run.first_seen);
    runs.extend(of_entries);
    runs
}

/// Writes the first-seen times of rows and names their file in the index meta.
pub(crate) fn write_times(dir: &IndexDir, meta: &mut IndexMeta, times: &RowTimes) -> Result<(), IndexError> {
    meta.times = String::new();
    if !times.is_empty() {
        meta.times = format!("{}{:012}", meta::TIMES, meta.sequence);
        dir.write_twice(&meta.times, &times.to_bytes(), true)
            .map_err(|source| IndexError::Write { name: meta.times.clone(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(row: u32, first_seen: Option<i64>) -> TimeRun {
        TimeRun { row, first_seen }
    }

    /// What is written is read back; what is cut short or changed anywhere is refused.
    #[test]
    fn times_read_back_or_not_at_all() {
        let mut times = RowTimes::default();
        times.push(2, vec![run(0, Some(-5)), run(7, None), run(9, Some(3))]);
        times.push(3, vec![run(0, None), run(4, None)]);
        times.push(8, vec![run(1, Some(i64::MAX))]);
        let bytes = times.to_bytes();
        assert_eq!(RowTimes::from_bytes(&bytes), Some(times.clone()));
        for i in 0..bytes.len() {
            assert_eq!(RowTimes::from_bytes(&bytes[..i]), None);
            let mut damaged = bytes.clone();
            damaged[i] ^= 4;
            assert_eq!(RowTimes::from_bytes(&damaged), None, "byte {i}");
        }
        assert!(times.runs(3).is_empty() && times.runs(5).is_empty() && times.runs(8).len() == 1);
        let of = |row| time_of_row(times.runs(2), row, Some(100));
        assert_eq!([0, 6, 7, 8, 9, 99].map(of), [-5, -5, 100, 100, 3, 3].map(Some));
        assert_eq!(time_of_row(times.runs(8), 0, None), None);
    }

    proptest! {
        /// A row and a DELETE entry of joined segments have the time that they had, however often they were joined.
        #[test]
        fn joined_rows_keep_their_times(
            parts in proptest::collection::vec(
                (0..6usize, 0..4usize, proptest::collection::btree_map(0..6u32, proptest::option::of(0..3i64), 0..3),
                 proptest::option::weighted(0.9, 0..3i64)), 0..9),
            middle in 0..9usize,
        ) {
            type Part = ((usize, usize), Vec<TimeRun>, Option<i64>);
            let parts: Vec<Part> = parts
                .into_iter()
                .map(|(rows, entries, runs, time)| {
                    let runs = runs.into_iter().filter(|(row, _)| (*row as usize) < rows);
                    ((rows, entries), runs.map(|(row, first_seen)| run(row, first_seen)).collect(), time)
                })
                .collect();
            let join = |parts: &[Part]| -> Part {
                let times: Option<Vec<i64>> = parts.iter().map(|part| part.2).collect();
                let own = times.and_then(|times| times.into_iter().max());
                let borrowed: Vec<_> = parts.iter().map(|(counts, runs, time)| (*counts, &runs[..], *time)).collect();
                let sum = parts.iter().fold((0, 0), |sum, part| (sum.0 + part.0.0, sum.1 + part.0.1));
                (sum, joined_runs(&borrowed, own), own)
            };
            let (front, back) = parts.split_at(middle.min(parts.len()));
            let (counts, joined, own) = join(&[join(front), join(back)]);
            prop_assert!(joined.is_sorted_by(|a, b| a.row < b.row));
            let (mut row, mut entry) = (0, 0);
            for ((rows, entries), runs, time) in &parts {
                for i in 0..*rows {
                    prop_assert_eq!(time_of_row(&joined, row, own), time_of_row(runs, i, *time));
                    row += 1;
                }
                for i in (0..*entries).map(EntryId::of) {
                    let of_joined = time_of_entry(&joined, counts.0, EntryId::of(entry), own);
                    prop_assert_eq!(of_joined, time_of_entry(runs, *rows, i, *time));
                    entry += 1;
                }
            }
        }
    }
}
