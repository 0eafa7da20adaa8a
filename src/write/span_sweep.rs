//! Copies the rows of output files by their spans, without an index: the twin of `shard`, which copies them by a plan.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::iter::Peekable;
use std::sync::atomic::Ordering::Relaxed;

use crate::codec::compression::Compression;
use crate::error::ExportError;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::resource_type::ResourceType;
use crate::ids::FileId;
use crate::progress::Progress;
use crate::spans::RowSpan;
use crate::spans::span_file::{SpanFile, SpanIter};
use crate::store::source_files::SourceFiles;
use crate::write::copy_run::{CopyRun, RunReader};
use crate::write::encode::Encoder;
use crate::write::frame_copy::FrameCopier;
use crate::write::frame_recode::Recompressors;
use crate::write::journal::Receipt;
use crate::write::row_changes::RowChanges;
use crate::write::shard::{PlannedOutput, finish_output};
use crate::write::shard_output::{FailedWrite, ShardOutput};
use crate::write::sink::Sink;
use crate::write::span_read_ahead::SpanReadAhead;

/// Most bytes between two rows that are read with them. Other tasks may read what lies between.
const GAP_BYTES: u64 = 512;

/// An output file that is written by its spans.
pub(crate) struct SpanOutput<'a> {
    /// Its name.
    pub(crate) name: String,
    /// Type of its rows.
    pub(crate) resource_type: ResourceType,
    /// What its rows must come to.
    pub(crate) planned: PlannedOutput,
    /// Its spans.
    pub(crate) spans: &'a SpanFile,
    /// Numbers of the store files that its spans name.
    pub(crate) numbers: &'a [FileId],
}

/// Output files of one type, one after another: the rows of one are behind those of the one before.
struct SpanLane<'a, S: Sink> {
    /// Those that follow.
    following: std::vec::IntoIter<usize>,
    /// The one that is written.
    current: usize,
    spans: Peekable<SpanIter<'a>>,
    ahead: SpanReadAhead<'a>,
    /// Bytes of the rows that were taken.
    taken: u64,
    /// Open from the first span on.
    output: Option<ShardOutput<'static, S>>,
    run: CopyRun,
}

/// Writes output files in one sweep through the store files: what several of them take from one file is read in its order, so
/// that a compressed file without a seek table is decoded once. `open` is given the place of each in `outputs`, and so is
/// `close`, with the receipt.
///
/// # Errors
/// The first failure of spans, store or sink; files that were open are abandoned.
#[allow(clippy::too_many_arguments, reason = "what a task and its caller have to say")]
pub(crate) fn copy_spans<'o, S: Sink>(
    outputs: &'o [SpanOutput<'o>],
    files: &'o dyn SourceFiles,
    elements: &ElementSelection,
    recoders: &Recompressors,
    progress: &Progress,
    open: &mut dyn FnMut(usize) -> Result<Encoder<S>, ExportError>,
    close: &mut dyn FnMut(usize, Receipt) -> Result<(), ExportError>,
    failed_write: FailedWrite<'_>,
) -> Result<(), ExportError> {
    let mut reader = RunReader::new(files).with_gaps(GAP_BYTES);
    let mut copier = FrameCopier::new(recoders);
    let spans_of = |i: usize| outputs[i].spans.iter(outputs[i].numbers).peekable();
    let ahead_of = |i: usize| SpanReadAhead::new(files, outputs[i].spans, outputs[i].numbers);
    let mut of_types: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let type_of = |output: &SpanOutput<'_>| output.resource_type.index();
    outputs.iter().enumerate().for_each(|(i, output)| of_types.entry(type_of(output)).or_default().push(i));
    let lane = |of_type: Vec<usize>| {
        let mut following = of_type.into_iter();
        let current = following.next()?;
        let (spans, ahead) = (spans_of(current), ahead_of(current));
        Some(SpanLane { following, current, spans, ahead, taken: 0, output: None, run: CopyRun::default() })
    };
    let mut lanes: Vec<SpanLane<'_, S>> = of_types.into_values().filter_map(lane).collect();
    // The next span of each lane; that which comes first in the store is taken first.
    let mut heads: BinaryHeap<Reverse<(FileId, u64, usize)>> = BinaryHeap::new();
    for (i, lane) in lanes.iter_mut().enumerate() {
        heads.extend(lane.head()?.map(|span| Reverse((span.file, span.start, i))));
    }
    let mut taken = Vec::new();
    while let Some(Reverse((file, _, i))) = heads.pop() {
        if progress.cancel.load(Relaxed) {
            return Err(ExportError::Cancelled);
        }
        let lane = &mut lanes[i];
        if lane.output.is_none() {
            let SpanOutput { name, resource_type, .. } = &outputs[lane.current];
            let changes = RowChanges::reducing(elements, *resource_type);
            let (name, resource_type) = (name.clone(), resource_type.name());
            lane.output = Some(ShardOutput { encoder: open(lane.current)?, name, resource_type, changes });
        }
        let SpanLane { spans, ahead, taken: bytes, output, run, .. } = lane;
        ahead.advance(*bytes);
        let Some(output) = output else { unreachable!("opened above") };
        // Other lanes have nothing of what a packed file's frames are decoded for, or very little.
        let next_of_others = heads.peek().map(|Reverse((file, start, _))| (*file, *start));
        match files.packed(file) {
            Some(table) => {
                taken.clear();
                // A segment at a time, as with an index: what is compressed again together decides the bytes.
                while let Some(span) = next_within(spans, file, |span| taken.is_empty() || !span.begins_segment)? {
                    *bytes += span.length + 1;
                    taken.push(span);
                }
                reader.take_packed_spans(&mut copier, output, run, table, &taken, progress, failed_write)?;
            }
            None => {
                let is_decoded = files.compression(file) != Compression::None;
                let is_next = |span: &RowSpan| {
                    !is_decoded || next_of_others.is_none_or(|others| (span.file, span.start) <= others)
                };
                let mut any = false;
                while let Some(span) = next_within(spans, file, |span| !any || is_next(span))? {
                    any = true;
                    ahead.advance(*bytes);
                    *bytes += span.length + 1;
                    let done = reader.take_row(output, run, span, failed_write)?;
                    progress.write_done.fetch_add(done, Relaxed);
                    if progress.cancel.load(Relaxed) {
                        return Err(ExportError::Cancelled);
                    }
                }
            }
        }
        if lane.head()?.is_none() {
            let Some(output) = lane.output.take() else { unreachable!("it has a span, so it was opened") };
            let planned = outputs[lane.current].planned;
            close(lane.current, finish_output(&mut reader, &mut lane.run, output, planned, progress, failed_write)?)?;
            let Some(next) = lane.following.next() else { continue };
            (lane.current, lane.spans, lane.ahead, lane.taken) = (next, spans_of(next), ahead_of(next), 0);
        }
        heads.extend(lane.head()?.map(|span| Reverse((span.file, span.start, i))));
    }
    Ok(())
}

impl<S: Sink> SpanLane<'_, S> {
    /// The next span; `None` at the end.
    fn head(&mut self) -> Result<Option<RowSpan>, ExportError> {
        match self.spans.peek() {
            None => Ok(None),
            Some(Ok(span)) => Ok(Some(*span)),
            Some(Err(_)) => self.spans.next().transpose().map_err(ExportError::from),
        }
    }
}

/// Takes the next span if it is of a file and `may_take` it.
fn next_within(
    spans: &mut Peekable<SpanIter<'_>>,
    file: FileId,
    mut may_take: impl FnMut(&RowSpan) -> bool,
) -> Result<Option<RowSpan>, ExportError> {
    let takes = |span: &Result<RowSpan, _>| span.as_ref().map_or(true, |span| span.file == file && may_take(span));
    spans.next_if(takes).transpose().map_err(ExportError::from)
}
