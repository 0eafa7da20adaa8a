//! Verifies packed files against their seek tables: hash and content of each frame, line lengths, and the index's rows
//! of the frame.
//!
//! The index counts a damaged frame as a fault; here it is a mismatch, because the file has changed since it was
//! packed.

use crate::codec::compression::Compression;
use crate::count_text::counted;
use crate::fhir::instant::NO_INSTANT;
use crate::fhir::resource_type::ResourceType;
use crate::ids::FileId;
use crate::index::snapshot::Index;
use crate::store::packed::envelope::is_packed;
use crate::store::packed::frame_reader::{FrameError, FrameReader};
use crate::store::packed::seek_table::{FrameInfo, SeekTable, TableError};
use crate::verify::VerifyError;
use crate::verify::mismatch::{Mismatch, Mismatches};

/// Checks every packed file of a store.
///
/// # Errors
/// [`VerifyError`] if a file cannot be read.
pub(crate) fn check_packed_files(index: &Index, mismatches: &mut Mismatches) -> Result<(), VerifyError> {
    for file in index.file_ids() {
        if index.compression(file) == Compression::None {
            continue;
        }
        let source = index.source(file)?;
        if !is_packed(source)? {
            continue;
        }
        let name = index.file_name(file);
        match SeekTable::open_with_lengths(source) {
            Ok(Some((table, lengths))) => check_frames(index, file, &table, &lengths, mismatches)?,
            Ok(None) => {}
            Err(TableError::Source(error)) => return Err(error.into()),
            Err(TableError::Damaged(reason)) => {
                mismatches.push(Mismatch::of_file("table", name, reason.to_string()));
            }
        }
    }
    Ok(())
}

/// Checks every frame of one packed file. `lengths` are the line lengths of the table.
fn check_frames(
    index: &Index,
    file: FileId,
    table: &SeekTable,
    lengths: &[u32],
    mismatches: &mut Mismatches,
) -> Result<(), VerifyError> {
    let source = index.source(file)?;
    let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
    let mut first = 0;
    for i in 0..table.frames() {
        let frame = table.frame(i);
        let stated = &lengths[first..first + frame.rows as usize];
        first += frame.rows as usize;
        let mut found = Lengths::default();
        let mut report = |rule, what: String| {
            let what = format!("frame {i} at byte {} of the file: {what}", frame.compressed);
            mismatches.push(Mismatch::of_file(rule, index.file_name(file), what));
        };
        match reader.feed(source, &frame, &mut buffer, &mut |piece| found.feed(piece)) {
            Ok(()) if found.lines != *stated => {
                report("table", "its lines have other lengths than the table says".to_string());
            }
            Ok(()) => {
                if let Some(what) = index_mismatch(index, file, table.resource_type, &frame) {
                    report("table", what);
                }
            }
            Err(FrameError::Source(error)) => return Err(error.into()),
            Err(FrameError::Damaged(reason)) => report("frame", reason),
        }
    }
    Ok(())
}

/// Lengths of the lines of a frame that arrives in pieces.
#[derive(Default)]
struct Lengths {
    lines: Vec<u32>,
    /// Bytes of the line that is not complete yet.
    open: u64,
}

impl Lengths {
    /// Takes the next bytes of the frame.
    fn feed(&mut self, mut piece: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            self.lines.push((self.open + end as u64).min(u64::from(u32::MAX)) as u32);
            self.open = 0;
            piece = &piece[end + 1..];
        }
        self.open += piece.len() as u64;
    }
}

/// Compares number, type and instants of a frame's rows in the index with the table; the first mismatch in words, else
/// `None`. A frame of deletions has no rows.
fn index_mismatch(index: &Index, file: FileId, stated: Option<ResourceType>, frame: &FrameInfo) -> Option<String> {
    let (mut rows, mut least, mut greatest) = (0u32, i64::MAX, NO_INSTANT);
    let end = frame.uncompressed + frame.uncompressed_len;
    let mut deletions = false;
    for i in index.segment_ids() {
        let entry = index.entry(i);
        if index.file_of(i) != file || entry.end <= frame.uncompressed || entry.start >= end {
            continue;
        }
        let segment = index.segment(i);
        let columns = segment.columns();
        deletions |= segment.head().tombstone_lines > 0;
        let place = |[offset, _]: &[u32; 2]| entry.start + u64::from(*offset);
        let from = columns.place.partition_point(|row| place(row) < frame.uncompressed);
        let to = columns.place.partition_point(|row| place(row) < end);
        for row in from..to {
            rows += 1;
            if stated != Some(columns.type_of(row)) {
                return Some("it has rows of another type than the table says".to_string());
            }
            if columns.last_updated[row] != NO_INSTANT {
                least = least.min(columns.last_updated[row]);
                greatest = greatest.max(columns.last_updated[row]);
            }
        }
    }
    if deletions && rows == 0 {
        return None;
    }
    if rows != frame.rows {
        return Some(format!("it has {}, the table says {}", counted(u64::from(rows), "row"), frame.rows));
    }
    ((least, greatest) != (frame.least, frame.greatest))
        .then(|| "its rows have other instants than the table says".to_string())
}
