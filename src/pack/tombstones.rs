//! Lines of DELETE entries: copied unchanged, in store order, to frames of their own, with the prior owners of each
//! entry.

use crate::error::PackError;
use crate::fhir::instant::NO_INSTANT;
use crate::ids::EntryId;
use crate::limits::{FRAME_BYTES, PACKED_ROWS_MAX};
use crate::pack::non_rows::{TombstoneLine, span_pieces};
use crate::pack::prior_owners;
use crate::pack::report::PackReport;
use crate::pack::retention::Retention;
use crate::pack::row_fetch::RowFetcher;
use crate::pack::writer::{PackHeader, PackWriter, PriorOwnerEntry, min_max_ticks};

/// Writes the lines `found` by version set: late-arriving ones go to files of their own.
///
/// # Errors
/// [`PackError`] if the lines cannot be read or the files cannot be written.
pub(crate) fn write(
    retention: &Retention<'_>,
    found: &[TombstoneLine],
    rows: &RowFetcher<'_>,
    writer: &mut PackWriter,
    packed: &mut PackReport,
) -> Result<(), PackError> {
    let index = retention.snapshot.index();
    let ticks = |line: &TombstoneLine| match line.count {
        0 => NO_INSTANT,
        _ => index.segment(line.segment).columns().tomb_updated[line.first.index()],
    };
    for set in retention.version_sets() {
        writer.begin(PackHeader::new(retention.snapshot, set), packed)?;
        let mut frame = TombstoneFrame::default();
        for line in
            found.iter().filter(|line| retention.version_set_of_entry(line.segment, line.first, ticks(line)) == set)
        {
            let entries = frame.entries as u64 + line.count as u64;
            if !frame.text.is_empty()
                && (frame.text.len() as u64 + line.length > FRAME_BYTES || entries > PACKED_ROWS_MAX / 8)
            {
                std::mem::take(&mut frame).put(writer, packed)?;
            }
            let source = rows.source(index.file_of(line.segment))?;
            span_pieces(source, &(line.start..line.start + line.length), &mut |piece| {
                frame.text.extend_from_slice(piece);
                Ok(())
            })?;
            frame.text.push(b'\n');
            frame.lengths.push(line.length as u32);
            frame.ticks.push(ticks(line));
            let first = line.first.index();
            for tombstone in (first..first + line.count).map(EntryId::of) {
                frame.prior_owners.extend(prior_owners::prior_owner_entries(
                    retention,
                    line.segment,
                    tombstone,
                    frame.entries,
                )?);
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

/// A frame being filled: its lines, their lengths and instants, and the prior owners of their entries.
#[derive(Default)]
struct TombstoneFrame {
    text: Vec<u8>,
    lengths: Vec<u32>,
    ticks: Vec<i64>,
    prior_owners: Vec<PriorOwnerEntry>,
    entries: u32,
}

impl TombstoneFrame {
    /// Writes the frame to the data file of its version set.
    fn put(self, writer: &mut PackWriter, packed: &mut PackReport) -> Result<(), PackError> {
        writer.lines(&self.text, self.lengths, min_max_ticks(&self.ticks), self.prior_owners, packed)
    }
}
