//! Copies the rows of shards from the store to their files, byte for byte (FILE-18), or changed as `_elements` and URLs
//! of attachments have it.
//!
//! Neighbouring rows of a file become one run, which is read once and written from there. A compressed source
//! is decoded once, feeding every shard that takes from it, so shards that share one are written together. No JSON of whole
//! rows is parsed: each range must follow a line end, begin with `{` and end before a line end, which catches a store file
//! that was changed in place without looking inside.

use crate::codec::compression::Compression;
use crate::error::{CorruptIndex, ExportError};
use crate::fhir::resource_type::ResourceType;
use crate::ids::{RowAddress, SegmentId, ShardId};
use crate::index::segment::layout::flag;
use crate::index::snapshot::Snapshot;
use crate::plan::{Plan, Shard};
use crate::progress::Progress;
use crate::spans::RowSpan;
use crate::sys::store_file::{StoreFile, StoreFileError};
use crate::write::copy_run::{CopyRun, DENSE_SHARE, ROWS_AHEAD, RunReader};
use crate::write::encode::Encoder;
use crate::write::frame_copy::{FrameCopier, FrameRequest};
use crate::write::frame_recode::Recompressors;
use crate::write::journal::Receipt;
use crate::write::read_ahead::ReadAhead;
use crate::write::row_changes::RowChanges;
use crate::write::shard_output::{FailedWrite, ShardOutput};
use crate::write::sink::Sink;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// Writes shards in one sweep through the store. `open` makes the output of a shard, or `None` to skip it; `close` is
/// given each finished one. At most one shard of each type is open at a time.
///
/// # Errors
/// The first failure of store or sink; files that were open are abandoned.
#[allow(clippy::too_many_arguments, reason = "what an export and its caller have to say")]
pub(crate) fn copy_shards<S: Sink>(
    plan: &Plan,
    snapshot: &Snapshot,
    shards: &[ShardId],
    recoders: &Recompressors,
    progress: &Progress,
    open: &mut dyn FnMut(ShardId) -> Result<Option<Encoder<S>>, ExportError>,
    close: &mut dyn FnMut(ShardId, Receipt) -> Result<(), ExportError>,
    failed_write: FailedWrite<'_>,
) -> Result<(), ExportError> {
    let index = snapshot.index();
    let mut lanes = shard_writers((plan, snapshot), shards, open)?;
    let first = shards.iter().map(|shard| plan.shard(*shard).first.segment).min().unwrap_or(SegmentId(0));
    let last = shards.iter().map(|shard| plan.shard(*shard).last.segment).max().unwrap_or(SegmentId(0));
    let mut reader = RunReader::new(index);
    let mut copier = FrameCopier::new(recoders);
    let mut read_ahead = ReadAhead::new(plan, index, shards);
    for segment in first.through(last).filter(|segment| !plan.selection.rows[segment.index()].is_empty()) {
        let (columns, head) = (index.segment(segment).columns(), index.segment(segment).head());
        let (only_type, any_space) = (head.only_type(), head.flags & u64::from(flag::LEADING_SPACE) != 0);
        let base = index.entry(segment).start;
        if !lanes
            .iter()
            .any(|lane| index.segment(segment).head().has_type(lane.type_index) && lane.covers_segment(segment))
        {
            continue;
        }
        if progress.cancel.load(Relaxed) {
            return Err(ExportError::Cancelled);
        }
        read_ahead.advance(RowAddress::of(segment, 0));
        if let Some(table) = index.packed(index.file_of(segment)) {
            let mut k = 0;
            while k < lanes.len() {
                let lane = &mut lanes[k];
                let shard = plan.shard(lane.shards[lane.current]);
                let has = index.segment(segment).head().has_type(lane.type_index);
                if !has || shard.first.segment > segment {
                    k += 1;
                    continue;
                }
                let ends = shard.last.segment == segment;
                let first = if shard.first.segment == segment { shard.first.row.index() } else { 0 };
                let behind = if ends { shard.last.row.index() + 1 } else { index.segment(segment).rows() };
                let selected = &plan.selection.rows[segment.index()];
                let taken = FrameRequest { segment, rows: first..behind, selected, type_index: lane.type_index };
                if let Some(output) = &mut lane.output {
                    reader.take_frames(
                        &mut copier,
                        index,
                        output,
                        &mut lane.run,
                        table,
                        &taken,
                        progress,
                        failed_write,
                    )?;
                }
                if ends {
                    end_shard((plan, snapshot), &mut lanes, k, &mut reader, progress, open, close, failed_write)?;
                } else {
                    k += 1;
                }
            }
            continue;
        }
        let file = index.file_of(segment);
        // What several types are taken from is read once for all of them.
        let shared = lanes.len() > 1
            && index.compression(file) == Compression::None
            && plan.selection.rows[segment.index()].count() * DENSE_SHARE >= columns.rows();
        let mut rows = plan.selection.rows[segment.index()].range(rows_of_lanes(plan, &lanes, segment, columns.rows()));
        let mut ahead: Vec<(usize, [u32; 2])> = Vec::with_capacity(ROWS_AHEAD);
        let mut at_ahead = 0;
        loop {
            if at_ahead == ahead.len() {
                // Places lie about in memory: many are fetched at a time, so that one wait is for all of them.
                ahead.clear();
                ahead.extend(rows.by_ref().take(ROWS_AHEAD).map(|row| (row, columns.place[row])));
                at_ahead = 0;
                ahead.first().into_iter().for_each(|(row, _)| read_ahead.advance(RowAddress::of(segment, *row)));
            }
            let Some((row, [offset, length])) = ahead.get(at_ahead).copied() else { break };
            at_ahead += 1;
            let type_index = only_type.map_or_else(|| columns.resource_type[row] as usize, ResourceType::index);
            // The last shard of a type may end before the rows that other types still take.
            let Some(i) = lanes.iter().position(|lane| lane.type_index == type_index) else { continue };
            if progress.cancel.load(Relaxed) {
                return Err(ExportError::Cancelled);
            }
            let place = RowAddress::of(segment, row);
            if place < plan.shard(lanes[i].shards[lanes[i].current]).first {
                continue;
            }
            let spaced = any_space && columns.flags[row] & flag::LEADING_SPACE != 0;
            let (start, length) = (base + u64::from(offset), u64::from(length));
            let line = RowSpan { file, start, length, rows: 1, spaced, begins_segment: false };
            if shared && !reader.holds(&line) {
                for lane in &mut lanes {
                    if let Some(output) = &mut lane.output {
                        let done = reader.flush(output, &mut lane.run, failed_write)?;
                        progress.write_done.fetch_add(done, Relaxed);
                    }
                }
                reader.load(&line)?;
            }
            let lane = &mut lanes[i];
            if let Some(output) = &mut lane.output {
                let done = reader.take_row(output, &mut lane.run, line, failed_write)?;
                progress.write_done.fetch_add(done, Relaxed);
            }
            if place == plan.shard(lane.shards[lane.current]).last {
                end_shard((plan, snapshot), &mut lanes, i, &mut reader, progress, open, close, failed_write)?;
            }
        }
    }
    debug_assert!(lanes.is_empty(), "the plan names rows that the selection does not have");
    Ok(())
}

/// Finishes the shard that lane `at` has reached the end of, and goes on with its next one; a lane without is removed.
#[allow(clippy::too_many_arguments, reason = "the state of a sweep")]
fn end_shard<'p, S: Sink>(
    (plan, snapshot): (&'p Plan, &'p Snapshot),
    lanes: &mut Vec<ShardWriter<'p, S>>,
    i: usize,
    reader: &mut RunReader<'_>,
    progress: &Progress,
    open: OpenShard<'_, S>,
    close: &mut dyn FnMut(ShardId, Receipt) -> Result<(), ExportError>,
    failed_write: FailedWrite<'_>,
) -> Result<(), ExportError> {
    let lane = &mut lanes[i];
    let shard = lane.shards[lane.current];
    if let Some(output) = lane.output.take() {
        let Shard { rows, bytes, .. } = *plan.shard(shard);
        let planned = PlannedOutput { rows, bytes, source_bytes: plan.source_bytes_of(shard) };
        close(shard, finish_output(reader, &mut lane.run, output, planned, progress, failed_write)?)?;
    }
    lane.current += 1;
    match lane.shards.get(lane.current) {
        Some(next) => lane.output = start_shard((plan, snapshot), *next, open)?,
        None => {
            lanes.swap_remove(i);
        }
    }
    if progress.cancel.load(Relaxed) { Err(ExportError::Cancelled) } else { Ok(()) }
}

/// What the rows of an output file must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedOutput {
    /// Number of rows.
    pub(crate) rows: u64,
    /// Uncompressed bytes, newlines included; of changed rows the most that they can be.
    pub(crate) bytes: u64,
    /// Bytes of the rows as they are in the store, newlines included.
    pub(crate) source_bytes: u64,
}

/// Ends an output file whose rows were all taken: writes what is pending, and checks what it came to and where it came from.
///
/// # Errors
/// [`CorruptIndex`] if it is not what was planned; the store's and the sink's.
pub(crate) fn finish_output<S: Sink>(
    reader: &mut RunReader<'_>,
    run: &mut CopyRun,
    mut output: ShardOutput<'_, S>,
    planned: PlannedOutput,
    progress: &Progress,
    failed_write: FailedWrite<'_>,
) -> Result<Receipt, ExportError> {
    let done = reader.flush(&mut output, run, failed_write)?;
    progress.write_done.fetch_add(done, Relaxed);
    reader.check(run)?;
    output.drain(failed_write)?;
    // Rows that the index places wrongly would be caught above; this catches rows that nobody took. Of changed rows it is
    // planned what they were, and how long they may become.
    let written = output.encoder.bytes_in();
    let is_planned = match &output.changes {
        None => written == planned.bytes,
        Some(changes) => changes.taken() == (planned.rows, planned.source_bytes) && written <= planned.bytes,
    };
    if !is_planned {
        return Err(CorruptIndex("its rows do not come to what was planned").into());
    }
    let ShardOutput { encoder, name, resource_type, .. } = output;
    let sums = encoder.finish().map_err(|error| failed_write(&name, error))?;
    Ok(Receipt::new(name, resource_type, planned.rows, sums))
}

impl Plan {
    /// Writes one shard to a sink: the unit that an embedder schedules, from as many threads as there are sinks. Byte for byte
    /// what a whole run writes. Runs on the current rayon pool.
    ///
    /// `progress` is that of the plan: its totals are those of all shards, and each shard that is written adds to what is done.
    ///
    /// # Errors
    /// As the export's: the store's failures, [`ExportError::Write`] for the sink's, [`ExportError::Cancelled`]. The sink is
    /// told to forget a file that fails.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn write_shard(
        &self,
        shard: usize,
        snapshot: &Snapshot,
        sink: &mut impl Sink,
        progress: &Progress,
    ) -> Result<Receipt, ExportError> {
        let failed = |name: &str, source: std::io::Error| ExportError::Write {
            directory: std::path::PathBuf::from("the sink"),
            name: name.to_string(),
            source,
        };
        // The sum over all shards is taken for the first one only.
        if progress.files_total() != self.shards.len() as u64 {
            progress.expect_writes(self.source_bytes(), self.shards.len() as u64);
        }
        let name = self.file_name(shard);
        let (compression, digest) = (self.request.compression, self.request.digest);
        let blocks = rayon::current_num_threads();
        let mut encoder = Some(Encoder::begin(sink, &name, compression, digest, blocks).map_err(|e| failed(&name, e))?);
        let mut receipt = None;
        let mut close = |_, done| {
            receipt = Some(done);
            Ok(())
        };
        copy_shards(
            self,
            snapshot,
            &[ShardId::of(shard)],
            &Recompressors::default(),
            progress,
            &mut |_| Ok(encoder.take()),
            &mut close,
            &failed,
        )?;
        progress.files_done.fetch_add(1, Relaxed);
        Ok(receipt.expect("a sweep that succeeds closes its shard"))
    }
}

/// The shards of one type, one after another.
struct ShardWriter<'p, S: Sink> {
    type_index: usize,
    shards: Vec<ShardId>,
    current: usize,
    first_segment: SegmentId,
    last_segment: SegmentId,
    output: Option<ShardOutput<'p, S>>,
    run: CopyRun,
}

impl<S: Sink> ShardWriter<'_, S> {
    /// Whether the writer's current shard takes rows of the segment.
    fn covers_segment(&self, segment: SegmentId) -> bool {
        (self.first_segment..=self.last_segment).contains(&segment)
    }
}

/// The rows of a segment among which the shards of some lanes find theirs: from the first row of the first shard to the last
/// row of the last one. Without this bound a segment that is cut into many files would be walked once for each of them.
fn rows_of_lanes<S: Sink>(plan: &Plan, lanes: &[ShardWriter<'_, S>], segment: SegmentId, rows: usize) -> Range<usize> {
    let (mut start, mut end) = (rows, 0);
    for lane in lanes {
        let first = plan.shard(lane.shards[lane.current]).first;
        let last = plan.shard(*lane.shards.last().expect("a lane has a shard")).last;
        if first.segment > segment || last.segment < segment {
            continue;
        }
        start = start.min(if first.segment == segment { first.row.index() } else { 0 });
        end = end.max(if last.segment == segment { last.row.index() + 1 } else { rows });
    }
    start..end.max(start)
}

type OpenShard<'a, S> = &'a mut dyn FnMut(ShardId) -> Result<Option<Encoder<S>>, ExportError>;

/// Opens the output file of a shard and begins its encoder.
fn start_shard<'p, S: Sink>(
    (plan, snapshot): (&'p Plan, &'p Snapshot),
    shard: ShardId,
    open: OpenShard<'_, S>,
) -> Result<Option<ShardOutput<'p, S>>, ExportError> {
    let resource_type = plan.shard(shard).resource_type;
    let Some(encoder) = open(shard)? else { return Ok(None) };
    let changes = RowChanges::of(plan, snapshot, shard);
    Ok(Some(ShardOutput { encoder, name: plan.file_name(shard.index()), resource_type: resource_type.name(), changes }))
}

/// A writer for each type among the shards that are written together.
fn shard_writers<'p, S: Sink>(
    (plan, snapshot): (&'p Plan, &'p Snapshot),
    shards: &[ShardId],
    open: OpenShard<'_, S>,
) -> Result<Vec<ShardWriter<'p, S>>, ExportError> {
    let mut lanes: Vec<ShardWriter<'p, S>> = Vec::new();
    for shard in shards {
        let this = plan.shard(*shard);
        match lanes.iter_mut().find(|lane| lane.type_index == this.resource_type.index()) {
            Some(lane) => {
                lane.shards.push(*shard);
                lane.last_segment = this.last.segment;
            }
            None => lanes.push(ShardWriter {
                type_index: this.resource_type.index(),
                shards: vec![*shard],
                current: 0,
                first_segment: this.first.segment,
                last_segment: this.last.segment,
                output: start_shard((plan, snapshot), *shard, open)?,
                run: CopyRun::default(),
            }),
        }
    }
    Ok(lanes)
}

/// A file that ends too early is told like any other failure of the source.
impl From<(&StoreFile, u64)> for ExportError {
    /// The error of shards whose rows lie in a store file that now ends after `found` bytes.
    fn from((source, found): (&StoreFile, u64)) -> ExportError {
        let (path, len_expected) = (source.path().to_path_buf(), source.len());
        StoreFileError::Truncated { path, len_expected, len_found: found }.into()
    }
}
