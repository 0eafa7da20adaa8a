//! The lines of DELETE entries, as they are, in store order.

use crate::error::PackError;
use crate::fhir::instant::NO_INSTANT;
use crate::limits::{FRAME_BYTES, PACKED_ROWS_MAX};
use crate::pack::non_rows::{TombstoneLine, pieces};
use crate::pack::prior_owners;
use crate::pack::report::PackReport;
use crate::pack::retention::Retention;
use crate::pack::row_fetch::RowFetcher;
use crate::pack::writer::{PackHeader, PackWriter, PriorOwnerEntry, min_max_ticks};

/// Writes them, those that can be late to files of their own.
///
/// # Errors
/// When they cannot be read, or the files not be written.
pub(crate) fn write(
    keep: &Retention<'_>,
    found: &[TombstoneLine],
    rows: &RowFetcher<'_>,
    writer: &mut PackWriter,
    packed: &mut PackReport,
) -> Result<(), PackError> {
    let index = keep.snapshot.index();
    let ticks = |line: &TombstoneLine| match line.count {
        0 => NO_INSTANT,
        _ => index.segments()[line.segment].columns().tomb_updated[line.first],
    };
    for set in keep.version_sets() {
        writer.begin(PackHeader::new(keep.snapshot, set), packed)?;
        let mut frame = TombstoneFrame::default();
        for line in found.iter().filter(|line| keep.version_set_of(line.segment, ticks(line)) == set) {
            let entries = frame.entries as u64 + line.count as u64;
            if !frame.text.is_empty()
                && (frame.text.len() as u64 + line.length > FRAME_BYTES || entries > PACKED_ROWS_MAX / 8)
            {
                std::mem::take(&mut frame).put(writer, packed)?;
            }
            let source = rows.source(index.entry(line.segment).file)?;
            pieces(source, &(line.start..line.start + line.length), &mut |piece| {
                frame.text.extend_from_slice(piece);
                Ok(())
            })?;
            frame.text.push(b'\n');
            frame.lengths.push(line.length as u32);
            frame.ticks.push(ticks(line));
            for tombstone in line.first..line.first + line.count {
                frame.left.extend(prior_owners::prior_owner_entries(keep, line.segment, tombstone, frame.entries)?);
                frame.entries += 1;
            }
            packed.tombstone_lines += 1;
        }
        if !frame.text.is_empty() {
            frame.put(writer, packed)?;
        }
    }
    Ok(())
}

/// A frame being filled.
#[derive(Default)]
struct TombstoneFrame {
    text: Vec<u8>,
    lengths: Vec<u32>,
    ticks: Vec<i64>,
    left: Vec<PriorOwnerEntry>,
    entries: u32,
}

impl TombstoneFrame {
    fn put(self, writer: &mut PackWriter, packed: &mut PackReport) -> Result<(), PackError> {
        writer.lines(&self.text, self.lengths, min_max_ticks(&self.ticks), self.left, packed)
    }
}
