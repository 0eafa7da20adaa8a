//! Clustering: the order of a type's rows, and where one frame ends and the next begins.
//!
//! Rows are sorted by patient (the first owner), then lastUpdated; rows without an owner follow, rows dated after T
//! come last, in store order. A patient with enough rows of the type gets frames of its own, so that a Group's export
//! copies them compressed; the other patients share frames. The rows of one patient are cut into frames of about
//! [`FRAME_BYTES`], so that an export of recent changes reads little.

use crate::error::{IndexError, PackError};
use crate::ids::{OwnerOrd, RowAddress, SegmentId};
use crate::limits::{DEFLATE_PATIENT_BYTES_MIN, FRAME_BYTES, FRAME_PATIENT_BYTES_MIN};
use crate::pack::report::PackReport;
use crate::pack::retention::{Disposition, Retention, VersionSet};
use crate::pack::row_fetch::RowFetcher;
use crate::pack::sort_key::SortKey;
use crate::pack::writer::PackWriter;
use crate::progress::Progress;
use crate::store::packed::envelope::PackCoding;
use std::ops::Range;

use rayon::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

/// Number of keys that a pass aims to sort: 64 MiB of them.
const PASS_ROWS: u64 = 1 << 22;
/// Sentinel in [`SortKey::patient`]: the row has no owner.
const NOBODY: u32 = u32::MAX - 1;
/// Sentinel in [`SortKey::patient`]: the row is dated after T. Such rows keep store order, which decides between
/// versions of one instant.
const FUTURE: u32 = u32::MAX;
/// Uncompressed bytes that a batch of frames aims at; the frames of a batch are compressed in parallel.
const BATCH_BYTES: u64 = 8 << 20;

/// Ranges of patient numbers, one a pass over the columns: a single one, unless the type has very many rows. The last
/// range includes the sentinels.
pub(crate) fn passes(retention: &Retention<'_>, type_index: usize) -> impl Iterator<Item = Range<u64>> + use<> {
    let index = retention.snapshot.index();
    let count = |segment: SegmentId| index.segment(segment).columns().type_count[type_index];
    let rows: u64 = retention.snapshot.segments().map(count).sum();
    let (parts, patients) = (rows.div_ceil(PASS_ROWS).max(1), index.patients() as u64);
    (0..parts).map(move |part| {
        let cut = |part: u64| patients * part / parts;
        cut(part)..if part + 1 == parts { u64::MAX } else { cut(part + 1) }
    })
}

/// Writes the kept rows of one type, version set and pass, in order, batch by batch.
///
/// # Errors
/// [`PackError`] if rows cannot be read, files cannot be written, or the pack is cancelled.
#[allow(clippy::too_many_arguments, reason = "called once, from the loop over types, sets and passes")]
pub(crate) fn write_type(
    retention: &Retention<'_>,
    type_index: usize,
    set: VersionSet,
    pass: Range<u64>,
    rows: &RowFetcher<'_>,
    writer: &mut PackWriter,
    progress: &Progress,
    packed: &mut PackReport,
) -> Result<(), PackError> {
    let mut keys = sort_keys(retention, type_index, set, &pass, packed)?;
    keys.par_sort_unstable();
    let index = retention.snapshot.index();
    let length = |key: &SortKey| {
        let (segment, row) = index.locate(key.row).parts();
        u64::from(index.segment(segment).columns().length(row)) + 1
    };
    let mut frames = FrameCutter {
        keys: &keys,
        length: &length,
        patient_min: patient_bytes_min(writer.coding()),
        next_key: 0,
        pending: Vec::new(),
    };
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

/// Collects, in store order, the keys of the kept rows of one type, version set and pass, to be sorted and cut into
/// frames. Dropped rows are counted in `packed`.
///
/// # Errors
/// [`IndexError`] if a page of the index that is read fails its checksum.
fn sort_keys(
    retention: &Retention<'_>,
    type_index: usize,
    set: VersionSet,
    pass: &Range<u64>,
    packed: &mut PackReport,
) -> Result<Vec<SortKey>, IndexError> {
    let index = retention.snapshot.index();
    let mut keys = Vec::new();
    for segment in retention.snapshot.segments() {
        let columns = index.segment(segment).columns();
        if columns.type_count[type_index] == 0 {
            continue;
        }
        let owner_patient = index.patients_of_segment(segment)?;
        let mut followed = index.successions(segment, 0..columns.rows())?.map(|(row, _)| row).peekable();
        for row in (0..columns.rows()).filter(|row| columns.resource_type[*row] as usize == type_index) {
            let address = RowAddress::of(segment, row);
            let first = columns.owners_of(row).first();
            let patient = first.map_or(NOBODY, |owner| owner_patient.patient_of(OwnerOrd(*owner)).0);
            let ticks = columns.last_updated[row];
            if !pass.contains(&u64::from(patient)) || retention.version_set_of(address, ticks) != set {
                continue;
            }
            // Both ascend: what follows earlier rows is skipped for good.
            while followed.next_if(|followed| *followed < row).is_some() {}
            let is_followed = followed.peek() == Some(&row);
            let number = index.record_of_row(address);
            match retention.disposition_of(address, is_followed)? {
                Disposition::Stays => keys.push(SortKey::new(patient, ticks, number)),
                Disposition::Future => keys.push(SortKey::new(FUTURE, i64::MAX, number)),
                Disposition::Superseded => packed.superseded += 1,
                Disposition::Deleted => packed.deleted += 1,
            }
        }
    }
    Ok(keys)
}

/// Cuts sorted keys into frames, one call at a time.
struct FrameCutter<'a> {
    keys: &'a [SortKey],
    length: &'a dyn Fn(&SortKey) -> u64,
    /// Least bytes of the rows of a patient that get frames of their own.
    patient_min: u64,
    /// First key that is in no frame yet.
    next_key: usize,
    /// Frames (range of keys, bytes) of one patient that are cut but not returned yet, last first.
    pending: Vec<(Range<usize>, u64)>,
}

impl FrameCutter<'_> {
    /// The next frame: range of its keys, and uncompressed bytes. `None` after the last key.
    fn next_frame(&mut self) -> Option<(Range<usize>, u64)> {
        if let Some(ready) = self.pending.pop() {
            return Some(ready);
        }
        let start = self.next_key;
        let (mut end, mut bytes) = (start, 0);
        while end < self.keys.len() {
            let (patient_end, patient_bytes) = self.patient(end);
            if patient_bytes >= self.patient_min {
                // A patient with many rows: frames of its own, after the shared frame that ends here.
                if end == start {
                    self.next_key = patient_end;
                    self.cut_patient(start..patient_end, patient_bytes);
                    return self.pending.pop();
                }
                break;
            }
            (end, bytes) = (patient_end, bytes + patient_bytes);
            if bytes >= FRAME_SHARED_BYTES {
                break;
            }
        }
        self.next_key = end;
        (end > start).then_some((start..end, bytes))
    }

    /// End and uncompressed bytes of the rows of the patient whose first key is at `offset`.
    fn patient(&self, offset: usize) -> (usize, u64) {
        let patient_keys = self.keys[offset..].iter().take_while(|key| key.patient == self.keys[offset].patient);
        patient_keys.fold((offset, 0), |(end, bytes), key| (end + 1, bytes + (self.length)(key)))
    }

    /// Cuts the rows of one patient into frames of about equal size, none far above [`FRAME_BYTES`].
    fn cut_patient(&mut self, keys: Range<usize>, bytes: u64) {
        let parts = bytes.div_ceil(FRAME_BYTES).max(1);
        let aim = bytes / parts;
        let (mut start, mut sum) = (keys.start, 0);
        let mut frames = Vec::new();
        for i in keys.clone() {
            let row_bytes = (self.length)(&self.keys[i]);
            // A row this long is a frame of its own.
            if sum > 0 && sum + row_bytes > 2 * FRAME_BYTES {
                frames.push((start..i, sum));
                (start, sum) = (i, 0);
            }
            sum += row_bytes;
            if sum >= aim {
                frames.push((start..i + 1, sum));
                (start, sum) = (i + 1, 0);
            }
        }
        if start < keys.end {
            frames.push((start..keys.end, sum));
        }
        self.pending.extend(frames.into_iter().rev());
    }
}

/// Least bytes of the rows of one patient and type that get frames of their own.
fn patient_bytes_min(coding: PackCoding) -> u64 {
    match coding {
        PackCoding::Zstd => FRAME_PATIENT_BYTES_MIN,
        PackCoding::Gzip => DEFLATE_PATIENT_BYTES_MIN,
    }
}

/// Uncompressed bytes at which a frame of several patients is full.
const FRAME_SHARED_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RecordId;

    /// Frames cover the keys in order, small patients share, large ones do not, and none is far above the aim.
    #[test]
    fn frames_cover_the_keys() {
        let lengths = [500u64, 20_000, 900, 1_000, 700_000, 300, 16_000, 3_000_000, 10];
        let mut keys = Vec::new();
        let mut of_row = Vec::new();
        for (patient, bytes) in lengths.iter().enumerate() {
            for part in 0..1 + bytes / 2000 {
                keys.push(SortKey::new(patient as u32, part as i64 - 3, RecordId::of(of_row.len())));
                of_row.push(if patient == 7 && part == 5 { 2_000_000 } else { bytes / (1 + bytes / 2000) });
            }
        }
        assert!(keys.is_sorted());
        let length = |key: &SortKey| of_row[key.row.index()];
        let patient_min = FRAME_PATIENT_BYTES_MIN;
        let mut frames = FrameCutter { keys: &keys, length: &length, patient_min, next_key: 0, pending: Vec::new() };
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
        assert!(
            ticks.windows(2).all(|pair| SortKey::new(1, pair[0], RecordId(9)) < SortKey::new(1, pair[1], RecordId(0)))
        );
    }
}
