//! Spans of a plan: the rows of an output file, joined where they follow one another.

use std::io::{self, Write};

use crate::casts::to_u32;
use crate::codec::compression::Compression;
use crate::error::{CorruptIndex, ExportError};
use crate::ids::{FileId, SegmentId, ShardId};
use crate::index::segment::layout::flag;
use crate::index::snapshot::{Index, Snapshot};
use crate::plan::Plan;
use crate::spans::RowSpan;
use crate::spans::span_block::SPAN_JOINED_MAX;
use crate::spans::span_file::{SpanSource, SpanWriter};
use crate::sys::store_file::StoreFileError;

/// Passes the spans of an output file to `take`, in their order.
///
/// # Errors
/// [`ExportError`] if the index is damaged; those of `take`.
pub(crate) fn spans_of_shard(
    plan: &Plan,
    snapshot: &Snapshot,
    shard: ShardId,
    take: &mut dyn FnMut(RowSpan) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let index = snapshot.index();
    let mut open: Option<RowSpan> = None;
    let mut known: Option<SegmentId> = None;
    let mut any_space = false;
    for address in plan.rows_of(snapshot, shard) {
        let (segment_id, row) = address.parts();
        let segment = index.segment(segment_id);
        let begins_segment = known.replace(segment_id) != Some(segment_id);
        if begins_segment {
            any_space = segment.head().flags & u64::from(flag::LEADING_SPACE) != 0;
            // What is planned row by row is verified; a packed segment that is taken whole is not.
            if index.packed(index.file_of(segment_id)).is_some()
                && plan.selection.rows[segment_id.index()].all(0..segment.rows())
            {
                segment.verify_copied(0..segment.rows())?;
            }
        }
        let columns = segment.columns();
        let start = index.entry(segment_id).start + u64::from(columns.offset(row));
        let length = u64::from(columns.length(row));
        let spaced = any_space && columns.flags[row] & flag::LEADING_SPACE != 0;
        let span = RowSpan { file: index.file_of(segment_id), start, length, rows: 1, spaced, begins_segment };
        let joined = open.as_mut().filter(|open| {
            !begins_segment
                && !open.spaced
                && !spaced
                && open.start + open.length + 1 == start
                && start + length - open.start <= SPAN_JOINED_MAX
        });
        if let Some(open) = joined {
            open.length = start + length - open.start;
            open.rows += 1;
            continue;
        }
        if let Some(done) = open.replace(span) {
            take(done)?;
        }
    }
    open.map_or(Ok(()), take)
}

/// Writes the file of spans of an output file of a plan; what was written to, and the hash that tells the file from others.
///
/// # Errors
/// [`ExportError`] if the index is damaged, or a store file cannot be opened; the writer's by `failed`.
pub(crate) fn write_spans<W: Write>(
    plan: &Plan,
    snapshot: &Snapshot,
    shard: ShardId,
    plan_id: &str,
    out: W,
    failed: &dyn Fn(io::Error) -> ExportError,
) -> Result<(W, String), ExportError> {
    let index = snapshot.index();
    let mut writer = SpanWriter::begin(out).map_err(failed)?;
    spans_of_shard(plan, snapshot, shard, &mut |span| writer.push(span).map_err(failed))?;
    let source = |file: FileId| span_source(index, file).map_err(io::Error::other);
    let (out, facts, content_id) = writer.finish(plan_id, to_u32(shard.index()), &source).map_err(failed)?;
    let planned = (plan.shard(shard).rows, plan.source_bytes_of(shard));
    match (facts.rows, facts.bytes) == planned {
        true => Ok((out, content_id)),
        false => Err(CorruptIndex("its rows do not come to what was planned").into()),
    }
}

/// What a file of spans says of a store file.
fn span_source(index: &Index, file: FileId) -> Result<SpanSource, StoreFileError> {
    let (compression, stamp) = (index.compression(file), index.source(file)?.stamp());
    let packed = compression != Compression::None && index.packed(file).is_some();
    Ok(SpanSource { name: index.file_name(file).to_string(), stamp, compression, packed })
}
