//! Read-ahead by spans: the kernel is asked for what a task is going to copy, a bounded distance before it is read.
//!
//! The twin of `read_ahead`, which goes by a plan. What is in the page cache, by a sample, is not asked for. Whatever is asked for
//! or not, the rows are the same.

use crate::codec::compression::Compression;
use crate::ids::FileId;
use crate::spans::RowSpan;
use crate::spans::span_file::{SpanFile, SpanIter};
use crate::store::source_files::SourceFiles;
use crate::sys::read_ahead::MergedRanges;

/// Bytes of rows that are asked for and not copied yet, at which no more are asked for.
const AHEAD_BYTES: u64 = 16 << 20;
/// Most spans that are asked for at a time, and their bytes, from which on no more are added.
const BATCH_SPANS: usize = 256;
const BATCH_BYTES: u64 = 2 << 20;

/// The spans of an output file that are asked for.
pub(crate) struct SpanReadAhead<'a> {
    files: &'a dyn SourceFiles,
    spans: SpanIter<'a>,
    /// Bytes of the rows of the spans so far.
    asked: u64,
    batch: Vec<RowSpan>,
}

impl<'a> SpanReadAhead<'a> {
    /// Of all spans of a file; nothing is asked for yet.
    pub(crate) fn new(files: &'a dyn SourceFiles, spans: &'a SpanFile, numbers: &'a [FileId]) -> SpanReadAhead<'a> {
        SpanReadAhead { files, spans: spans.iter(numbers), asked: 0, batch: Vec::new() }
    }

    /// Asks for what follows, as far as may be ahead of the `copied` bytes of rows.
    pub(crate) fn advance(&mut self, copied: u64) {
        while self.asked < copied.saturating_add(AHEAD_BYTES) {
            self.batch.clear();
            let before = self.asked;
            // Damage is told by whoever copies.
            while let Some(Ok(span)) = self.spans.next() {
                self.asked += span.length + 1;
                self.batch.push(span);
                if self.batch.len() == BATCH_SPANS || self.asked - before >= BATCH_BYTES {
                    break;
                }
            }
            if self.batch.is_empty() {
                self.asked = u64::MAX;
                return;
            }
            self.batch.chunk_by(|a, b| a.file == b.file).for_each(|of_file| ask(self.files, of_file));
        }
    }
}

/// Asks for spans of one file. What is decoded from its start is not asked for: the kernel sees that it is read in order.
fn ask(files: &dyn SourceFiles, spans: &[RowSpan]) {
    let file = spans[0].file;
    let Ok(source) = files.source(file) else { return };
    let table = files.packed(file);
    if table.is_none() && files.compression(file) != Compression::None {
        return;
    }
    let ranges = spans.iter().map(|span| {
        let (start, end) = (span.start, span.start + span.length + 1);
        let Some(table) = table else { return start..end };
        let (first, last) = (table.frame_at(start), table.frame_at(end - 1));
        match last < table.frames() {
            true => table.frame(first).compressed..table.frame(last).compressed + table.frame(last).compressed_len,
            false => 0..0,
        }
    });
    let middle = spans.len() / 2;
    let samples = [0, middle, spans.len() - 1].map(|i| ranges.clone().nth(i).map_or(0, |range| range.start));
    if samples.into_iter().all(|offset| source.is_cached(offset)) {
        return;
    }
    let mut wanted = MergedRanges::new(|range| source.will_need(range));
    ranges.filter(|range| !range.is_empty()).for_each(|range| wanted.add(range));
    wanted.finish();
}
