//! Reads lines of rows where the index does not know what decides.

use crate::casts::to_usize;
use crate::codec::compression::Compression;
use crate::error::{CorruptIndex, ExportError};
use crate::ids::FileId;
use crate::index::row_reader::stream_range;
use crate::index::snapshot::Index;
use crate::progress::Progress;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes between two rows of a plain file up to which both are read in one go.
const GAP_BYTES_MAX: u64 = 16 << 10;
/// Bytes of a plain file that are read in one go, but for a row that is longer.
const RUN_BYTES: u64 = 256 << 10;

/// Where a row lies.
pub(crate) struct RowPlace<T> {
    /// Its file.
    pub file: FileId,
    /// Its bytes in the uncompressed file.
    pub range: Range<u64>,
    /// What the caller knows it by.
    pub row: T,
}

/// Passes the lines of rows to `take`. Places are in the order of the store: what is compressed is decoded once, whatever the
/// number of rows.
///
/// # Errors
/// [`ExportError`] if a row cannot be read, or the work is cancelled, and what `take` returns.
pub(crate) fn read_lines<T>(
    index: &Index,
    places: &[RowPlace<T>],
    progress: &Progress,
    take: &mut impl FnMut(&T, &[u8]) -> Result<(), CorruptIndex>,
) -> Result<(), ExportError> {
    // Rows are read in one go as long as decoding on is no farther than decoding from another point; those of a plain file as
    // long as they are near, up to a length.
    let mut run_start = places.first().map_or(0, |place| place.range.start);
    let goes_on = |a: &RowPlace<T>, b: &RowPlace<T>| {
        let is_near = match index.compression(a.file) {
            Compression::None => {
                b.range.start.wrapping_sub(a.range.end) <= GAP_BYTES_MAX && b.range.end <= run_start + RUN_BYTES
            }
            _ => index.restart_before(b.file, b.range.start).uncompressed <= a.range.end,
        };
        let goes_on = a.file == b.file && is_near;
        run_start = if goes_on { run_start } else { b.range.start };
        goes_on
    };
    for run in places.chunk_by(goes_on) {
        if progress.cancel.load(Relaxed) {
            return Err(ExportError::Cancelled);
        }
        let (file, whole) = (run[0].file, run[0].range.start..run[run.len() - 1].range.end);
        let (mut rows, mut line, mut position) = (run.iter().peekable(), Vec::new(), whole.start);
        let mut failed = None;
        let mut pass = |row: &T, line: &[u8]| {
            if let Err(error) = take(row, line) {
                failed = Some(error);
            }
        };
        stream_range(index, file, whole, &mut |piece| {
            let end = position + piece.len() as u64;
            while let Some(RowPlace { range, row, .. }) = rows.peek().filter(|place| place.range.start < end) {
                let from = to_usize(range.start.max(position) - position);
                let to = to_usize(range.end.min(end) - position);
                // A row that lies in one piece is not copied.
                if range.start >= position && range.end <= end {
                    pass(row, &piece[from..to]);
                    rows.next();
                    continue;
                }
                line.extend_from_slice(&piece[from..to]);
                if range.end > end {
                    break;
                }
                pass(row, &line);
                line.clear();
                rows.next();
            }
            position = end;
        })?;
        failed.map_or(Ok(()), Err)?;
    }
    Ok(())
}
