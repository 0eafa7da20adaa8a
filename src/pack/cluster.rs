//! The order of a type's rows, and where one frame ends and the next begins.
//!
//! Rows are sorted by patient (the first owner), then lastUpdated; those of nobody come behind, those dated after T last
//! of all, in store order. A patient with enough rows of the type has frames of its own, so that a Group's export
//! copies them as they are; the others share. Long runs are cut, so that an export of what changed reads little.

use crate::error::{IndexError, PackError};
use crate::index::global::Section;
use crate::limits::{FRAME_BYTES, FRAME_PATIENT_BYTES_MIN};
use crate::pack::report::PackReport;
use crate::pack::retention::{Disposition, Retention, VersionSet};
use crate::pack::row_fetch::RowFetcher;
use crate::pack::sort_key::SortKey;
use crate::pack::writer::PackWriter;
use crate::progress::Progress;
use std::ops::Range;

use rayon::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

/// Most keys that are sorted at a time, by aim: 64 MiB of them.
const PASS_ROWS: u64 = 1 << 22;
/// In the place of a patient: the row is nobody's.
const NOBODY: u32 = u32::MAX - 1;
/// In the place of a patient: the row is dated after T. Such rows keep the order of the store, which decides between
/// versions of one instant.
const FUTURE: u32 = u32::MAX;
/// Frames are coded in batches of so many uncompressed bytes, by aim.
const BATCH_BYTES: u64 = 8 << 20;

/// The patients that are taken in one pass over the columns: all of them, unless a type has very many rows.
pub(crate) fn passes(keep: &Retention<'_>, type_index: usize) -> impl Iterator<Item = Range<u64>> + use<> {
    let index = keep.snapshot.index();
    let count = |segment: usize| index.segments()[segment].columns().type_count[type_index];
    let rows: u64 = keep.snapshot.segments().map(count).sum();
    let (parts, patients) = (rows.div_ceil(PASS_ROWS).max(1), index.patients() as u64);
    (0..parts).map(move |part| {
        let cut = |part: u64| patients * part / parts;
        cut(part)..if part + 1 == parts { u64::MAX } else { cut(part + 1) }
    })
}

/// Writes the rows of one type, set and pass.
#[allow(clippy::too_many_arguments, reason = "called once, from the loop over types, sets and passes")]
pub(crate) fn write_type(
    keep: &Retention<'_>,
    type_index: usize,
    set: VersionSet,
    pass: Range<u64>,
    rows: &RowFetcher<'_>,
    writer: &mut PackWriter,
    progress: &Progress,
    packed: &mut PackReport,
) -> Result<(), PackError> {
    let mut keys = sort_keys(keep, type_index, set, &pass, packed)?;
    keys.par_sort_unstable();
    let index = keep.snapshot.index();
    let length = |key: &SortKey| {
        let (segment, row) = index.locate(key.row as usize);
        u64::from(index.segments()[segment].columns().length(row)) + 1
    };
    let mut frames = FrameCutter { keys: &keys, length: &length, at: 0, shared: Vec::new() };
    let mut batch: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    loop {
        let next = frames.next_frame();
        if let Some((range, len)) = &next {
            batch.push(range.clone());
            bytes += len;
        }
        if next.is_none() || bytes >= BATCH_BYTES {
            if progress.cancel.load(Relaxed) {
                return Err(IndexError::Cancelled.into());
            }
            writer.frames(&keys, &batch, rows, packed)?;
            progress.write_done.fetch_add(bytes, Relaxed);
            (bytes, _) = (0, batch.clear());
        }
        if next.is_none() {
            return Ok(());
        }
    }
}

/// The keys of the rows that stay. What leaves is counted with the set of the others, once.
fn sort_keys(
    keep: &Retention<'_>,
    type_index: usize,
    set: VersionSet,
    pass: &Range<u64>,
    packed: &mut PackReport,
) -> Result<Vec<SortKey>, IndexError> {
    let index = keep.snapshot.index();
    let global = index.global();
    let mut keys = Vec::new();
    for segment in keep.snapshot.segments() {
        let columns = index.segments()[segment].columns();
        if columns.type_count[type_index] == 0 {
            continue;
        }
        let owners = index.starts().owner[segment]..index.starts().owner[segment] + columns.owner_hash.len();
        let owner_patient = global.verified_words(Section::OwnerPatient, owners)?;
        let first_row = index.starts().row[segment];
        let mut followed = global.pairs(Section::Succession, first_row..first_row + columns.rows())?;
        for row in (0..columns.rows()).filter(|row| columns.resource_type[*row] as usize == type_index) {
            let first = columns.owners_of(row).first();
            let patient = first.map_or(NOBODY, |owner| owner_patient[*owner as usize]);
            let ticks = columns.last_updated[row];
            if !pass.contains(&u64::from(patient)) || keep.version_set_of(segment, ticks) != set {
                continue;
            }
            let number = first_row + row;
            let before = followed.partition_point(|pair| ((pair >> 32) as usize) < number);
            followed = &followed[before..];
            let is_followed = followed.first().is_some_and(|pair| (pair >> 32) as usize == number);
            let number = number as u32;
            match keep.disposition_of(segment, row, is_followed)? {
                Disposition::Stays => keys.push(SortKey::new(patient, ticks, number)),
                Disposition::Future => keys.push(SortKey::new(FUTURE, i64::MAX, number)),
                Disposition::Superseded => packed.superseded += 1,
                Disposition::Deleted => packed.deleted += 1,
            }
        }
    }
    Ok(keys)
}

/// Cuts sorted keys into frames.
struct FrameCutter<'a> {
    keys: &'a [SortKey],
    length: &'a dyn Fn(&SortKey) -> u64,
    at: usize,
    /// Ends and lengths of frames that are cut but not handed out, last first.
    shared: Vec<(Range<usize>, u64)>,
}

impl FrameCutter<'_> {
    /// The next frame: its keys and its bytes.
    fn next_frame(&mut self) -> Option<(Range<usize>, u64)> {
        if let Some(ready) = self.shared.pop() {
            return Some(ready);
        }
        let start = self.at;
        let (mut end, mut bytes) = (start, 0);
        while end < self.keys.len() {
            let (own_end, own) = self.patient(end);
            if own >= FRAME_PATIENT_BYTES_MIN {
                if end == start {
                    self.at = own_end;
                    self.should_cut(start..own_end, own);
                    return self.shared.pop();
                }
                break;
            }
            (end, bytes) = (own_end, bytes + own);
            if bytes >= FRAME_SHARED_BYTES {
                break;
            }
        }
        self.at = end;
        (end > start).then_some((start..end, bytes))
    }

    /// End and bytes of the rows of the patient whose first key stands at `at`.
    fn patient(&self, offset: usize) -> (usize, u64) {
        let own = self.keys[offset..].iter().take_while(|key| key.patient == self.keys[offset].patient);
        own.fold((offset, 0), |(end, bytes), key| (end + 1, bytes + (self.length)(key)))
    }

    /// Cuts the rows of one patient into frames of about equal size.
    fn should_cut(&mut self, keys: Range<usize>, bytes: u64) {
        let parts = bytes.div_ceil(FRAME_BYTES).max(1);
        let aim = bytes / parts;
        let (mut start, mut sum) = (keys.start, 0);
        let mut frames = Vec::new();
        for i in keys.clone() {
            let own = (self.length)(&self.keys[i]);
            // A row that is too long for company is a frame of its own.
            if sum > 0 && sum + own > 2 * FRAME_BYTES {
                frames.push((start..i, sum));
                (start, sum) = (i, 0);
            }
            sum += own;
            if sum >= aim {
                frames.push((start..i + 1, sum));
                (start, sum) = (i + 1, 0);
            }
        }
        if start < keys.end {
            frames.push((start..keys.end, sum));
        }
        self.shared.extend(frames.into_iter().rev());
    }
}

/// Bytes at which a frame that patients share is full.
const FRAME_SHARED_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames cover the keys in order, small patients share, large ones do not, and none is far above the aim.
    #[test]
    fn frames_cover_the_keys() {
        let lengths = [500u64, 20_000, 900, 1_000, 700_000, 300, 16_000, 3_000_000, 10];
        let mut keys = Vec::new();
        let mut of_row = Vec::new();
        for (patient, bytes) in lengths.iter().enumerate() {
            for part in 0..1 + bytes / 2000 {
                keys.push(SortKey::new(patient as u32, part as i64 - 3, of_row.len() as u32));
                of_row.push(if patient == 7 && part == 5 { 2_000_000 } else { bytes / (1 + bytes / 2000) });
            }
        }
        assert!(keys.is_sorted());
        let length = |key: &SortKey| of_row[key.row as usize];
        let mut frames = FrameCutter { keys: &keys, length: &length, at: 0, shared: Vec::new() };
        let mut i = 0;
        while let Some((range, bytes)) = frames.next_frame() {
            assert_eq!(range.start, i);
            assert_eq!(bytes, keys[range.clone()].iter().map(length).sum::<u64>());
            let patients: std::collections::BTreeSet<u32> = keys[range.clone()].iter().map(|key| key.patient).collect();
            assert!(patients.len() == 1 || patients.iter().all(|at| lengths[*at as usize] < FRAME_PATIENT_BYTES_MIN));
            assert!(bytes <= 2 * FRAME_BYTES || range.len() == 1);
            i = range.end;
        }
        assert_eq!(i, keys.len());
    }

    #[test]
    fn keys_order_as_ticks_do() {
        let ticks = [i64::MIN, -5, 0, 1, 1 << 40, i64::MAX];
        assert!(ticks.windows(2).all(|pair| SortKey::new(1, pair[0], 9) < SortKey::new(1, pair[1], 0)));
    }
}
