//! Copies the rows of a shard from a packed file; frames whose rows are all wanted are copied compressed.
//!
//! Into a file of its own compression (`.zst`, or a deflate segment into `.gz`) such a frame goes as it is in the store,
//! without being decoded; of the other frames only the wanted rows are compressed again (`frame_recode`). Into other files
//! the needed frames are decoded in turn into one buffer, which is written in long writes. The hash of every frame is
//! checked before its bytes are used. The output is a function of the rows and the store's frames only, never of the number of
//! threads. Rows that are to be changed are decoded, whatever the output is.
//!
//! Speed of light: for copies a hash of the compressed bytes and `write`; else the decoder and `write`.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::{CorruptIndex, ExportError};
use crate::hash::xxh3_64;
use crate::ids::{FileId, SegmentId};
use crate::index::segment::columns::Columns;
use crate::index::segment::layout::{Column, flag};
use crate::index::segment::reader::Segment;
use crate::index::snapshot::Index;
use crate::limits::{FRAME_HELD_MAX, READ_BYTES};
use crate::select::row_set::RowSet;
use crate::spans::RowSpan;
use crate::store::packed::frame_reader::{FrameReader, is_held};
use crate::store::packed::seek_table::{FrameCoding, FrameInfo, SeekTable};
use crate::sys::store_file::StoreFile;
use crate::write::encode::CompressedRows;
use crate::write::frame_recode::{CopyJob, FrameText, RecodedFrame, Recompressors, decode_job, frame_error};
use crate::write::shard_output::{FailedWrite, ShardOutput};
use crate::write::sink::Sink;

/// Most wanted bytes of neighbouring frames that are recompressed together, unless one frame has more.
const RECODE_BYTES: u64 = 512 << 10;
/// Uncompressed bytes of frames that wait to be recompressed, at which they are.
const BATCH_BYTES: u64 = 8 << 20;
/// Most bytes of neighbouring frames that are copied in one write.
const COPY_BYTES: u64 = 256 << 10;
/// Most decoded bytes that are gathered for one write.
const DECODED_BYTES: usize = 256 << 10;

/// Writes rows of packed files to an output.
pub(crate) struct FrameCopier<'a> {
    reader: FrameReader,
    buffer: Vec<u8>,
    decoded: FrameText,
    recompressors: &'a Recompressors,
}

/// The rows of one segment that a shard takes.
pub(crate) struct FrameRequest<'a> {
    /// Number of the segment in the index.
    pub segment: SegmentId,
    /// Rows of the segment within the shard's bounds.
    pub rows: Range<usize>,
    /// Rows of the segment that the request selects.
    pub selected: &'a RowSet,
    /// Index of the shard's resource type in the order of names.
    pub type_index: usize,
}

/// A frame and the rows that are wanted of it, ascending.
struct WantedFrame {
    frame: FrameInfo,
    /// Spans within the frame.
    spans: Vec<RowSpan>,
}

/// The next frames to append to an output of their compression.
enum CopyStep {
    /// Neighbouring frames, copied compressed.
    Copy(Vec<FrameInfo>),
    /// Frames of which a part is wanted, recompressed together.
    Recode(Vec<CopyJob>),
}

/// Copies rows of a frame too long to be held.
type LongRows<'a, S> = &'a mut dyn FnMut(&mut ShardOutput<'_, S>, RowSpan) -> Result<(), ExportError>;

impl<'a> FrameCopier<'a> {
    /// A copier for one thread, without buffers yet.
    pub(crate) fn new(recompressors: &'a Recompressors) -> FrameCopier<'a> {
        let reader = FrameReader::of_what_was_packed();
        FrameCopier { reader, buffer: Vec::new(), decoded: FrameText::default(), recompressors }
    }

    /// Writes the rows that a shard takes of a segment. A row of a frame too long to be held is passed to `long`, in
    /// its turn.
    ///
    /// # Errors
    /// [`ExportError::Frame`] if a frame is damaged or has changed; errors of the index, the store and the sink.
    pub(crate) fn take_rows<S: Sink>(
        &mut self,
        index: &Index,
        output: &mut ShardOutput<'_, S>,
        table: &SeekTable,
        request: &FrameRequest<'_>,
        failed: FailedWrite<'_>,
        long: LongRows<'_, S>,
    ) -> Result<(), ExportError> {
        // 1. A segment whose rows are exactly those of its frames: no row is looked at.
        let (entry, file) = (index.entry(request.segment), index.file_of(request.segment));
        let source = index.source(file)?;
        let segment = index.segment(request.segment);
        let one_type = segment.head().only_type().is_some_and(|only| only.index() == request.type_index);
        let copies_frames = copies_frames(output, table);
        if let Some(frames) = whole_frames(table, segment, request, one_type, copies_frames) {
            let mut steps = CopySteps::new(copies_frames);
            for frame in frames.map(|frame| table.frame(frame)) {
                self.copy_whole_frame(output, source, frame, &mut steps, failed)?;
            }
            self.flush_decoded(output, failed)?;
            return self.run_steps(output, source, steps, failed);
        }
        // 2. Planning has verified the columns of rows that it selected one by one, but not of segments taken whole.
        let columns = segment.columns();
        if request.selected.all(0..segment.rows()) {
            segment.verify_copied(0..segment.rows())?;
        }
        // 3. Frame by frame, from the next selected row on.
        let mut steps = CopySteps::new(copies_frames);
        let (mut next, mut number) = (request.rows.start, 0);
        while let Some(row) = request.selected.range(next..request.rows.end.max(next)).next() {
            let frame = frame_of(table, entry.start + u64::from(columns.offset(row)), &mut number)?;
            let own = rows_of_frame(segment, columns.place, entry.start, row, &frame)?;
            next = own.end;
            let requested = own.start.max(request.rows.start)..own.end.min(request.rows.end);
            let all = requested == own
                && request.selected.all(requested.clone())
                && (one_type || own.clone().all(|row| is_type(&columns, row, request)));
            if all && fills_frame(&columns, entry.start, &own, &frame) && (is_held(&frame) || copies_frames) {
                self.copy_whole_frame(output, source, frame, &mut steps, failed)?;
                continue;
            }
            let rows = request.selected.range(requested).filter(|row| one_type || is_type(&columns, *row, request));
            if !is_held(&frame) {
                self.run_steps(output, source, steps.take(), failed)?;
                let place = |row| span_of_row(segment, file, entry.start, row);
                rows.into_iter().try_for_each(|row| long(output, place(row)))?;
                continue;
            }
            let ranges = line_ranges(&columns, entry.start, rows, &frame);
            let bytes = ranges.iter().map(|range| range.len() as u64).sum();
            if bytes == 0 {
                continue;
            }
            match copies_frames {
                true => steps.recode(CopyJob { frame, ranges, bytes }),
                false => self.decode(output, source, &CopyJob { frame, ranges, bytes }, failed)?,
            }
            if steps.held >= BATCH_BYTES {
                self.run_steps(output, source, steps.take(), failed)?;
            }
        }
        self.flush_decoded(output, failed)?;
        self.run_steps(output, source, steps, failed)
    }

    /// Writes the rows of spans of one segment of a packed file, ascending. Rows of a frame too long to be held are passed to `long`, in
    /// their turn. The twin of [`FrameCopier::take_rows`] where no index is: the same bytes come of the same rows.
    ///
    /// # Errors
    /// [`ExportError::Frame`] if a frame is damaged or has changed; [`ExportError::Torn`] if a span lies in none; errors of the
    /// store and the sink.
    pub(crate) fn take_spans<S: Sink>(
        &mut self,
        source: &StoreFile,
        output: &mut ShardOutput<'_, S>,
        table: &SeekTable,
        spans: &[RowSpan],
        failed: FailedWrite<'_>,
        long: LongRows<'_, S>,
    ) -> Result<(), ExportError> {
        let copies_frames = copies_frames(output, table);
        let mut steps = CopySteps::new(copies_frames);
        let mut number = 0;
        let mut open: Option<WantedFrame> = None;
        for span in spans {
            let (mut position, end) = (span.start, (span.start + span.length + 1).min(table.uncompressed_len()));
            while position < end {
                let torn = |_| ExportError::Torn { path: source.path().to_path_buf(), offset: position };
                let frame = frame_of(table, position, &mut number).map_err(torn)?;
                if open.as_ref().is_none_or(|open| open.frame.uncompressed != frame.uncompressed) {
                    self.take_wanted(output, source, open.take(), &mut steps, failed, long)?;
                }
                let to = end.min(uncompressed_end(&frame));
                let wanted = open.get_or_insert_with(|| WantedFrame { frame, spans: Vec::new() });
                // What is passed on ends before its newline.
                wanted.spans.push(RowSpan { start: position, length: to - position - 1, ..*span });
                position = to;
            }
        }
        self.take_wanted(output, source, open, &mut steps, failed, long)?;
        self.flush_decoded(output, failed)?;
        self.run_steps(output, source, steps, failed)
    }

    /// Takes what is wanted of a frame, once all of it is known.
    fn take_wanted<S: Sink>(
        &mut self,
        output: &mut ShardOutput<'_, S>,
        source: &StoreFile,
        wanted: Option<WantedFrame>,
        steps: &mut CopySteps,
        failed: FailedWrite<'_>,
        long: LongRows<'_, S>,
    ) -> Result<(), ExportError> {
        let Some(WantedFrame { frame, spans }) = wanted else { return Ok(()) };
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for span in &spans {
            let start = (span.start - frame.uncompressed) as usize;
            let end = start + span.length as usize + 1;
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        let is_whole = matches!(ranges[..], [Range { start: 0, end }] if end as u64 == frame.uncompressed_len);
        if is_whole && (is_held(&frame) || steps.copies) {
            return self.copy_whole_frame(output, source, frame, steps, failed);
        }
        if !is_held(&frame) {
            self.run_steps(output, source, steps.take(), failed)?;
            return spans.into_iter().try_for_each(|span| long(output, span));
        }
        let bytes = ranges.iter().map(|range| range.len() as u64).sum();
        match steps.copies {
            true => steps.recode(CopyJob { frame, ranges, bytes }),
            false => self.decode(output, source, &CopyJob { frame, ranges, bytes }, failed)?,
        }
        match steps.held >= BATCH_BYTES {
            true => self.run_steps(output, source, steps.take(), failed),
            false => Ok(()),
        }
    }

    /// Copies a frame that is wanted as a whole; one too long to be held is copied in pieces.
    fn copy_whole_frame<S: Sink>(
        &mut self,
        output: &mut ShardOutput<'_, S>,
        source: &StoreFile,
        frame: FrameInfo,
        steps: &mut CopySteps,
        failed: FailedWrite<'_>,
    ) -> Result<(), ExportError> {
        match steps.copies {
            true if is_held(&frame) => {
                steps.copy(frame);
                Ok(())
            }
            true => {
                self.run_steps(output, source, steps.take(), failed)?;
                self.copy_long_frame(output, source, &frame, failed)
            }
            false => self.decode(
                output,
                source,
                &CopyJob { frame, ranges: Vec::new(), bytes: frame.uncompressed_len },
                failed,
            ),
        }
    }

    /// Recompresses in parallel what must be, then appends all steps to the output in order.
    fn run_steps<S: Sink>(
        &mut self,
        output: &mut ShardOutput<'_, S>,
        source: &StoreFile,
        steps: CopySteps,
        failed: FailedWrite<'_>,
    ) -> Result<(), ExportError> {
        self.flush_decoded(output, failed)?;
        let ShardOutput { encoder, name, .. } = output;
        let failed = |error| failed(name, error);
        let recoded: Vec<Option<std::io::Result<RecodedFrame>>> = steps
            .list
            .par_iter()
            .map(|step| match step {
                CopyStep::Copy(_) => Ok(None),
                CopyStep::Recode(jobs) => self.recompressors.recompress(source, jobs).map(Some),
            })
            .collect::<Result<_, ExportError>>()?;
        for (step, recoded) in steps.list.into_iter().zip(recoded) {
            if let Some(recoded) = recoded {
                let RecodedFrame { compressed, rows } = recoded.map_err(failed)?;
                encoder.append_frame(&compressed, rows).map_err(failed)?;
            }
            match step {
                CopyStep::Recode(_) => {}
                CopyStep::Copy(frames) => {
                    let (first, last) = (frames[0], frames[frames.len() - 1]);
                    let len = (last.compressed + last.compressed_len - first.compressed) as usize;
                    let place = encoder.reserve_raw(len).map_err(failed)?;
                    source.pread_into(first.compressed, place)?;
                    for frame in &frames {
                        let offset = (frame.compressed - first.compressed) as usize;
                        if xxh3_64(&place[offset..offset + frame.compressed_len as usize]) != frame.hash {
                            source.check()?;
                            return Err(frame_error(source, frame, "its bytes have changed"));
                        }
                    }
                    let rows = frames[1..].iter().fold(rows_of(&first), |rows, frame| rows.then(rows_of(frame)));
                    encoder.commit_raw(len, rows).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Copies a frame that is too long to be held in pieces, after hashing it.
    fn copy_long_frame<S: Sink>(
        &mut self,
        output: &mut ShardOutput<'_, S>,
        source: &StoreFile,
        frame: &FrameInfo,
        failed: FailedWrite<'_>,
    ) -> Result<(), ExportError> {
        let end = frame.compressed + frame.compressed_len;
        if source.content_hash(frame.compressed..end)? != frame.hash {
            return Err(frame_error(source, frame, "its bytes have changed"));
        }
        let ShardOutput { encoder, name, .. } = output;
        let failed = |error| failed(name, error);
        let mut offset = frame.compressed;
        while offset < end {
            let len = (end - offset).min(READ_BYTES as u64);
            let bytes = source.pread(offset, len as usize, &mut self.buffer)?;
            let rows = if offset == frame.compressed { rows_of(frame) } else { CompressedRows { bytes: 0, crc: 0 } };
            encoder.append_frame(bytes, rows).map_err(failed)?;
            offset += len;
        }
        Ok(())
    }

    /// Decodes the wanted lines of a frame behind those decoded before, into the write buffer of an uncompressed
    /// output, else into `decoded`, which is written when it is full.
    fn decode<S: Sink>(
        &mut self,
        output: &mut ShardOutput<'_, S>,
        source: &StoreFile,
        job: &CopyJob,
        failed: FailedWrite<'_>,
    ) -> Result<(), ExportError> {
        let len = job.frame.uncompressed_len as usize;
        if !output.is_whole() {
            // Changed rows are gathered behind the change.
            self.decoded.add(&mut self.reader, source, job)?;
            let torn = |_| ExportError::Torn { path: source.path().to_path_buf(), offset: job.frame.uncompressed };
            let text = std::mem::take(&mut self.decoded.len);
            return output.write_rows(&self.decoded.buffer[..text], torn, failed);
        }
        if let Some(place) = output.encoder.reserve(len) {
            let kept = decode_job(&mut self.reader, source, job, &mut place[1..])?;
            return output.encoder.commit(kept).map_err(|error| failed(&output.name, error));
        }
        if self.decoded.len > 0 && self.decoded.len + len > DECODED_BYTES {
            self.flush_decoded(output, failed)?;
        }
        self.decoded.add(&mut self.reader, source, job)
    }

    /// Appends the decoded lines that wait to the output.
    fn flush_decoded<S: Sink>(
        &mut self,
        output: &mut ShardOutput<'_, S>,
        failed: FailedWrite<'_>,
    ) -> Result<(), ExportError> {
        if self.decoded.len > 0 {
            output.encoder.write(self.decoded.bytes()).map_err(|error| failed(&output.name, error))?;
            self.decoded.len = 0;
        }
        Ok(())
    }
}

/// Steps for an output that frames are copied to, collected before they are run.
struct CopySteps {
    /// Whether frames go to the output compressed.
    copies: bool,
    list: Vec<CopyStep>,
    /// Uncompressed bytes that recompressing them will hold.
    held: u64,
}

impl CopySteps {
    /// No steps yet.
    fn new(copies: bool) -> CopySteps {
        CopySteps { copies, list: Vec::new(), held: 0 }
    }

    /// The steps so far, which are no longer among these.
    fn take(&mut self) -> CopySteps {
        std::mem::replace(self, CopySteps::new(self.copies))
    }

    /// Adds a frame to be copied, to the last step if it lies directly behind its frames.
    fn copy(&mut self, frame: FrameInfo) {
        match self.list.last_mut() {
            Some(CopyStep::Copy(frames))
                if compressed_end(&frames[frames.len() - 1]) == frame.compressed
                    && compressed_end(&frame) - frames[0].compressed <= COPY_BYTES =>
            {
                frames.push(frame);
            }
            _ => self.list.push(CopyStep::Copy(vec![frame])),
        }
    }

    /// Adds a frame to be recompressed, to the last step if there is room in it.
    fn recode(&mut self, job: CopyJob) {
        self.held += job.bytes;
        match self.list.last_mut() {
            Some(CopyStep::Recode(jobs))
                if jobs.iter().map(|job| job.bytes).sum::<u64>() + job.bytes <= RECODE_BYTES =>
            {
                jobs.push(job);
            }
            _ => self.list.push(CopyStep::Recode(vec![job])),
        }
    }
}

/// End of a frame in the uncompressed file.
fn uncompressed_end(frame: &FrameInfo) -> u64 {
    frame.uncompressed + frame.uncompressed_len
}

/// End of a frame in the store file.
fn compressed_end(frame: &FrameInfo) -> u64 {
    frame.compressed + frame.compressed_len
}

/// Whether frames go to an output compressed, copied or recompressed: to a file of their compression, of rows as they are.
fn copies_frames<S: Sink>(output: &ShardOutput<'_, S>, table: &SeekTable) -> bool {
    output.encoder.compression() == table.coding().compression() && output.is_whole()
}

/// The rows of a frame.
fn rows_of(frame: &FrameInfo) -> CompressedRows {
    let crc = match frame.coding {
        FrameCoding::Zstd => 0,
        FrameCoding::Deflate { crc } => crc,
    };
    CompressedRows { bytes: frame.uncompressed_len, crc }
}

/// Numbers of the frames of a segment that is taken as a whole, if they hold its rows and nothing else, so that no row
/// need be looked at; else `None`. A frame too long to be held qualifies only if it is copied.
fn whole_frames(
    table: &SeekTable,
    segment: &Segment,
    request: &FrameRequest<'_>,
    one_type: bool,
    copies_frames: bool,
) -> Option<Range<usize>> {
    let header = segment.head();
    if segment.rows() == 0
        || !one_type
        || !header.is_dense()
        || request.rows != (0..segment.rows())
        || !request.selected.all(0..segment.rows())
    {
        return None;
    }
    let (first, last) = (table.frame_at(header.start), table.frame_at(header.end - 1));
    let frames = first..last + 1;
    let bounded = last < table.frames()
        && table.frame(first).uncompressed == header.start
        && uncompressed_end(&table.frame(last)) == header.end
        && (copies_frames || frames.clone().all(|frame| is_held(&table.frame(frame))));
    bounded.then_some(frames)
}

/// A row of a segment that begins at `start` of its file.
fn span_of_row(segment: &Segment, file: FileId, start: u64, row: usize) -> RowSpan {
    let columns = segment.columns();
    let any_space = segment.head().flags & u64::from(flag::LEADING_SPACE) != 0;
    let spaced = any_space && columns.flags[row] & flag::LEADING_SPACE != 0;
    let (start, length) = (start + u64::from(columns.offset(row)), u64::from(columns.length(row)));
    RowSpan { file, start, length, rows: 1, spaced, begins_segment: false }
}

/// Whether a row has the shard's resource type.
fn is_type(columns: &Columns<'_>, row: usize, request: &FrameRequest<'_>) -> bool {
    columns.resource_type[row] as usize == request.type_index
}

/// The frame that holds the byte `place` of the uncompressed file. `number` is that of the frame found last; the next
/// one is tried first.
///
/// # Errors
/// The byte lies in no frame.
fn frame_of(table: &SeekTable, place: u64, number: &mut usize) -> Result<FrameInfo, CorruptIndex> {
    let holds = |offset: usize| {
        let frame = (offset < table.frames()).then(|| table.frame(offset))?;
        (frame.uncompressed..uncompressed_end(&frame)).contains(&place).then_some(frame)
    };
    if let Some(frame) = holds(*number + 1) {
        *number += 1;
        return Ok(frame);
    }
    *number = table.frame_at(place);
    holds(*number).ok_or(CorruptIndex("a row lies in no frame"))
}

/// The rows of a segment that lie in a frame, of which `row` is one. `places` and `start` are the segment's.
///
/// # Errors
/// The column of places contradicts the frame, or a page of it fails its checksum.
fn rows_of_frame(
    segment: &Segment,
    places: &[[u32; 2]],
    start: u64,
    row: usize,
    frame: &FrameInfo,
) -> Result<Range<usize>, CorruptIndex> {
    let before = |[offset, _]: &[u32; 2], end: u64| start + u64::from(*offset) < end;
    let first = row.saturating_sub(frame.rows as usize);
    let first = first + places[first..row].partition_point(|place| before(place, frame.uncompressed));
    let behind = (row + frame.rows as usize).min(places.len());
    let behind = row + places[row..behind].partition_point(|place| before(place, uncompressed_end(frame)));
    // The binary searches read places that are not verified. Rows ascend, so verifying the two rows on either side of each
    // bound proves the bound.
    let (outer, above) = (first.saturating_sub(1), (behind + 1).min(places.len()));
    segment.verify(Column::Place, outer..above)?;
    let fits = |i: usize, inside: bool| {
        (before(&places[i], uncompressed_end(frame)) && !before(&places[i], frame.uncompressed)) == inside
    };
    let bounded = (first == 0 || fits(outer, false)) && (behind == places.len() || fits(behind, false));
    match bounded && behind > row && fits(first, true) && fits(behind - 1, true) {
        true => Ok(first..behind),
        false => Err(CorruptIndex("a frame's rows are not its own")),
    }
}

/// Whether a frame holds these rows, each with a newline, and nothing else. `start` is the segment's.
fn fills_frame(columns: &Columns<'_>, start: u64, rows: &Range<usize>, frame: &FrameInfo) -> bool {
    let bytes: u64 = columns.place[rows.clone()].iter().map(|[_, length]| u64::from(*length) + 1).sum();
    // Rows do not overlap, so rows as long as the frame in sum leave no gap.
    bytes == frame.uncompressed_len && start + u64::from(columns.offset(rows.start)) == frame.uncompressed
}

/// Byte ranges of rows and their newlines within their frame; ranges of neighbouring rows are joined.
fn line_ranges(
    columns: &Columns<'_>,
    start: u64,
    rows: impl Iterator<Item = usize>,
    frame: &FrameInfo,
) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for row in rows {
        let position = (start + u64::from(columns.offset(row)) - frame.uncompressed) as usize;
        let end = (position + columns.length(row) as usize + 1).min(frame.uncompressed_len as usize);
        match ranges.last_mut() {
            Some(last) if last.end == position => last.end = end,
            _ => ranges.push(position..end),
        }
    }
    ranges
}

const _: () = assert!(DECODED_BYTES as u64 <= FRAME_HELD_MAX);
