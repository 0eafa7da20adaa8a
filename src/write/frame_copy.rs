//! Takes the rows of a shard from a packed file: frames are copied as they are where all of their rows are wanted.
//!
//! Into a `.zst` file a frame that is wanted as a whole goes as it lies in the store, without being decoded; of the
//! others only the wanted rows are coded anew, some frames together, on whatever threads are idle. Into other files the
//! frames that are needed are decoded one behind the other into one buffer, which goes to the file in long writes. Every
//! frame is checked against its hash before anything is made of it. What is written is a function of the rows and the
//! store's frames only: never of threads.
//!
//! Speed of light: for copies a hash of the compressed bytes and `write`; else the decoder and `write`.

use std::ops::Range;
use std::sync::Mutex;

use rayon::prelude::*;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, ParamSwitch, compress_bound};

use crate::codec::compression::Compression;
use crate::error::{CorruptIndex, ExportError};
use crate::hash::xxh3_64;
use crate::index::segment::columns::Columns;
use crate::index::segment::layout::Column;
use crate::index::segment::reader::Segment;
use crate::index::snapshot::Index;
use crate::limits::{FRAME_HELD_MAX, READ_BYTES};
use crate::select::row_set::RowSet;
use crate::store::packed::frame_reader::{FrameError, FrameReader, is_held};
use crate::store::packed::seek_table::{FrameInfo, SeekTable};
use crate::sys::store_file::StoreFile;
use crate::write::encode::{Encoder, zstd_compressor};
use crate::write::sink::Sink;

/// Level of the frames that are coded anew. With [`RECODE_MATCH`] and coded literals it makes frames of 48 KiB of Synthea
/// data 4 % larger than level 1, in a tenth less time; without coded literals they are 60 % larger, in a quarter less.
const RECODE_LEVEL: i32 = -3;
/// Bytes that a match has at least in them.
const RECODE_MATCH: u32 = 7;
/// Wanted bytes of neighbouring frames that are coded anew together, at most, unless one frame has more.
const RECODE_BYTES: u64 = 512 << 10;
/// Uncompressed bytes of frames to be coded anew that are held at a time.
const BATCH_BYTES: u64 = 8 << 20;
/// Bytes of neighbouring frames that are copied in one write.
const COPY_BYTES: u64 = 256 << 10;
/// Decoded bytes that are written at a time.
const DECODED_BYTES: usize = 256 << 10;

/// Gives an output the rows of packed files.
pub(crate) struct FrameCopier<'a> {
    index: &'a Index,
    reader: FrameReader,
    buffer: Vec<u8>,
    decoded: FrameText,
    recoders: &'a Recompressors,
}

/// Whatever codes frames anew and is not in use: kept for all files of an export, as their memory is worth more than they.
#[derive(Default)]
pub(crate) struct Recompressors(Mutex<Vec<Recompressor>>);

impl Recompressors {
    fn recompress(&self, source: &StoreFile, jobs: &[CopyJob]) -> Result<std::io::Result<Vec<u8>>, ExportError> {
        let spare = self.0.lock().expect("no panic under it").pop();
        let mut recoder = spare.unwrap_or_else(Recompressor::new);
        let coded = recoder.code(source, jobs);
        self.0.lock().expect("no panic under it").push(recoder);
        coded
    }
}

/// The part of a segment that a shard takes.
pub(crate) struct FrameRequest<'a> {
    /// The segment.
    pub segment: usize,
    /// Rows that lie in the shard's bounds.
    pub rows: Range<usize>,
    /// Rows of the segment that are exported.
    pub selected: &'a RowSet,
    /// The shard's type, by place in the order of names.
    pub type_index: usize,
}

/// A frame and what is wanted of it.
struct CopyJob {
    frame: FrameInfo,
    /// Ranges of its uncompressed bytes, whole lines, ascending; none when all of it is wanted.
    ranges: Vec<Range<usize>>,
    bytes: u64,
}

/// What to do next to an output file of frames.
enum CopyStep {
    /// Neighbouring frames, copied.
    Copy(Vec<FrameInfo>),
    /// Frames of which a part is wanted, coded anew together.
    Recode(Vec<CopyJob>),
}

/// Copies a row (numbered in the segment) of a frame too long to be held.
type LongRow<'a, S> = &'a mut dyn FnMut(&mut Encoder<S>, usize) -> Result<(), ExportError>;
type CopyFailure<'a> = &'a dyn Fn(std::io::Error) -> ExportError;

impl<'a> FrameCopier<'a> {
    /// A copier.
    pub(crate) fn new(index: &'a Index, recoders: &'a Recompressors) -> FrameCopier<'a> {
        let reader = FrameReader::of_what_was_packed();
        FrameCopier { index, reader, buffer: Vec::new(), decoded: FrameText::default(), recoders }
    }

    /// Writes what a shard takes of a segment. Rows of frames too long to be held are left to `long`, in their turn.
    ///
    /// # Errors
    /// [`ExportError::Frame`] when a frame is damaged, and what fails in store or sink.
    pub(crate) fn take_rows<S: Sink>(
        &mut self,
        encoder: &mut Encoder<S>,
        table: &SeekTable,
        taken: &FrameRequest<'_>,
        failed: CopyFailure<'_>,
        long: LongRow<'_, S>,
    ) -> Result<(), ExportError> {
        let entry = self.index.entry(taken.segment);
        let source = self.index.source(entry.file)?;
        let segment = &self.index.segments()[taken.segment];
        let one_type = segment.head().only_type().is_some_and(|only| only.index() == taken.type_index);
        if let Some(frames) = whole_frames(table, segment, taken, one_type, encoder.compression()) {
            let mut steps = CopySteps::default();
            for frame in frames.map(|frame| table.frame(frame)) {
                self.take_whole(encoder, source, frame, &mut steps, failed)?;
            }
            self.flush_decoded(encoder, failed)?;
            return self.steps(encoder, source, steps, failed);
        }
        let columns = segment.columns();
        if taken.selected.all(0..segment.rows()) {
            // Planning has proven the others, but need not look at rows that are taken one and all.
            segment.verify_copied(0..segment.rows())?;
        }
        let mut steps = CopySteps::default();
        let (mut next, mut number) = (taken.rows.start, 0);
        while let Some(row) = taken.selected.range(next..taken.rows.end.max(next)).next() {
            let frame = frame_of(table, entry.start + u64::from(columns.offset(row)), &mut number)?;
            let own = rows_of(segment, columns.place, entry.start, row, &frame)?;
            next = own.end;
            let requested = own.start.max(taken.rows.start)..own.end.min(taken.rows.end);
            let all = one_type && requested == own && taken.selected.all(requested.clone());
            if all
                && fills_frame(&columns, entry.start, &own, &frame)
                && (is_held(&frame) || encoder.compression() == Compression::Zstd)
            {
                self.take_whole(encoder, source, frame, &mut steps, failed)?;
                continue;
            }
            let rows = taken.selected.range(requested).filter(|row| one_type || is_type(&columns, *row, taken));
            if !is_held(&frame) {
                self.steps(encoder, source, std::mem::take(&mut steps), failed)?;
                rows.into_iter().try_for_each(|row| long(encoder, row))?;
                continue;
            }
            let ranges = ranges(&columns, entry.start, rows, &frame);
            let bytes = ranges.iter().map(|range| range.len() as u64).sum();
            if bytes == 0 {
                continue;
            }
            match encoder.compression() {
                Compression::Zstd => steps.recode(CopyJob { frame, ranges, bytes }),
                _ => self.decode(encoder, source, &CopyJob { frame, ranges, bytes }, failed)?,
            }
            if steps.held >= BATCH_BYTES {
                self.steps(encoder, source, std::mem::take(&mut steps), failed)?;
            }
        }
        self.flush_decoded(encoder, failed)?;
        self.steps(encoder, source, steps, failed)
    }

    /// Takes a frame that is wanted as a whole; one too long to be held is copied.
    fn take_whole<S: Sink>(
        &mut self,
        encoder: &mut Encoder<S>,
        source: &StoreFile,
        frame: FrameInfo,
        steps: &mut CopySteps,
        failed: CopyFailure<'_>,
    ) -> Result<(), ExportError> {
        match encoder.compression() {
            Compression::Zstd if is_held(&frame) => {
                steps.copy(frame);
                Ok(())
            }
            Compression::Zstd => {
                self.steps(encoder, source, std::mem::take(steps), failed)?;
                self.copy_long(encoder, source, &frame, failed)
            }
            _ => self.decode(
                encoder,
                source,
                &CopyJob { frame, ranges: Vec::new(), bytes: frame.uncompressed_len },
                failed,
            ),
        }
    }

    /// Codes what is to be coded, in parallel, then writes everything in order.
    fn steps<S: Sink>(
        &mut self,
        encoder: &mut Encoder<S>,
        source: &StoreFile,
        steps: CopySteps,
        failed: CopyFailure<'_>,
    ) -> Result<(), ExportError> {
        self.flush_decoded(encoder, failed)?;
        let coded: Vec<std::io::Result<Vec<u8>>> = steps
            .list
            .par_iter()
            .map(|step| match step {
                CopyStep::Copy(_) => Ok(Ok(Vec::new())),
                CopyStep::Recode(jobs) => self.recoders.recompress(source, jobs),
            })
            .collect::<Result<_, ExportError>>()?;
        for (step, coded) in steps.list.into_iter().zip(coded) {
            match step {
                CopyStep::Recode(jobs) => {
                    let coded = coded.map_err(failed)?;
                    encoder.append_frame(&coded, jobs.iter().map(|job| job.bytes).sum()).map_err(failed)?;
                }
                CopyStep::Copy(frames) => {
                    let (first, last) = (frames[0], frames[frames.len() - 1]);
                    let len = (last.compressed + last.compressed_len - first.compressed) as usize;
                    let place = encoder.reserve_raw(len).map_err(failed)?;
                    source.pread_into(first.compressed, place)?;
                    for frame in &frames {
                        let offset = (frame.compressed - first.compressed) as usize;
                        if xxh3_64(&place[offset..offset + frame.compressed_len as usize]) != frame.hash {
                            source.check()?;
                            return Err(damaged(source, frame, "its bytes have changed"));
                        }
                    }
                    let uncompressed = end_of(&last) - first.uncompressed;
                    encoder.commit_raw(len, uncompressed).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Copies a frame that is too long to be held.
    fn copy_long<S: Sink>(
        &mut self,
        encoder: &mut Encoder<S>,
        source: &StoreFile,
        frame: &FrameInfo,
        failed: CopyFailure<'_>,
    ) -> Result<(), ExportError> {
        let end = frame.compressed + frame.compressed_len;
        if source.content_hash(frame.compressed..end)? != frame.hash {
            return Err(damaged(source, frame, "its bytes have changed"));
        }
        let mut offset = frame.compressed;
        while offset < end {
            let len = (end - offset).min(READ_BYTES as u64);
            let bytes = source.pread(offset, len as usize, &mut self.buffer)?;
            let uncompressed = if offset == frame.compressed { frame.uncompressed_len } else { 0 };
            encoder.append_frame(bytes, uncompressed).map_err(failed)?;
            offset += len;
        }
        Ok(())
    }

    /// Decodes what is wanted of a frame behind what is there already, which goes to the file when there is enough.
    fn decode<S: Sink>(
        &mut self,
        encoder: &mut Encoder<S>,
        source: &StoreFile,
        job: &CopyJob,
        failed: CopyFailure<'_>,
    ) -> Result<(), ExportError> {
        let len = job.frame.uncompressed_len as usize;
        if let Some(place) = encoder.reserve(len) {
            let kept = decode_job(&mut self.reader, source, job, &mut place[1..])?;
            return encoder.commit(kept).map_err(failed);
        }
        if self.decoded.len > 0 && self.decoded.len + len > DECODED_BYTES {
            self.flush_decoded(encoder, failed)?;
        }
        self.decoded.add(&mut self.reader, source, job)
    }

    fn flush_decoded<S: Sink>(&mut self, encoder: &mut Encoder<S>, failed: CopyFailure<'_>) -> Result<(), ExportError> {
        if self.decoded.len > 0 {
            encoder.write(self.decoded.bytes()).map_err(failed)?;
            self.decoded.len = 0;
        }
        Ok(())
    }
}

/// Steps being collected.
#[derive(Default)]
struct CopySteps {
    list: Vec<CopyStep>,
    /// Uncompressed bytes that coding anew will hold.
    held: u64,
}

impl CopySteps {
    fn copy(&mut self, frame: FrameInfo) {
        match self.list.last_mut() {
            Some(CopyStep::Copy(frames))
                if end_in_file(&frames[frames.len() - 1]) == frame.compressed
                    && end_in_file(&frame) - frames[0].compressed <= COPY_BYTES =>
            {
                frames.push(frame);
            }
            _ => self.list.push(CopyStep::Copy(vec![frame])),
        }
    }

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

/// Codes frames anew on one thread.
struct Recompressor {
    reader: FrameReader,
    compressor: Option<Compressor<'static>>,
    text: FrameText,
    coded: Vec<u8>,
}

impl Recompressor {
    fn new() -> Recompressor {
        let reader = FrameReader::of_what_was_packed().of_scattered_frames();
        Recompressor { reader, compressor: None, text: FrameText::default(), coded: Vec::new() }
    }

    fn code(&mut self, source: &StoreFile, jobs: &[CopyJob]) -> Result<std::io::Result<Vec<u8>>, ExportError> {
        self.text.len = 0;
        for job in jobs {
            self.text.add(&mut self.reader, source, job)?;
        }
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            slot => match recompressor() {
                Ok(compressor) => slot.insert(compressor),
                Err(error) => return Ok(Err(error)),
            },
        };
        let text = self.text.bytes();
        let most = compress_bound(text.len());
        if self.coded.len() < most {
            self.coded.resize(most, 0);
        }
        // The room that coding may need is kept, and only what it took goes on.
        Ok(compressor.compress_to_buffer(text, &mut self.coded[..most]).map(|len| self.coded[..len].to_vec()))
    }
}

fn recompressor() -> std::io::Result<Compressor<'static>> {
    let mut compressor = zstd_compressor(RECODE_LEVEL)?;
    compressor.set_parameter(CParameter::MinMatch(RECODE_MATCH))?;
    compressor.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
    Ok(compressor)
}

/// Decoded bytes: a buffer that grows to its size once, so that what is behind its end is not zeroed for every frame.
#[derive(Default)]
struct FrameText {
    buffer: Vec<u8>,
    len: usize,
}

impl FrameText {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Adds what is wanted of a frame.
    fn add(&mut self, reader: &mut FrameReader, source: &StoreFile, job: &CopyJob) -> Result<(), ExportError> {
        let (start, end) = (self.len, self.len + job.frame.uncompressed_len as usize);
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.len += decode_job(reader, source, job, &mut self.buffer[start..end])?;
        Ok(())
    }
}

/// Decodes a frame into its place, which is as long as it is, and moves what is wanted of it to the front. Returns how
/// much that is.
fn decode_job(
    reader: &mut FrameReader,
    source: &StoreFile,
    job: &CopyJob,
    own: &mut [u8],
) -> Result<usize, ExportError> {
    let frame = &job.frame;
    match reader.decode(source, frame, own) {
        Ok(()) => {}
        Err(FrameError::Source(error)) => return Err(error.into()),
        Err(FrameError::Damaged(reason)) => return Err(damaged(source, frame, &reason)),
    }
    if job.ranges.is_empty() {
        return Ok(own.len());
    }
    for range in &job.ranges {
        if own[range.end - 1] == b'\r' && own.get(range.end) == Some(&b'\n') {
            // The carriage return is no part of the line.
            own[range.end - 1] = b'\n';
        }
    }
    // All lines are looked at before any is moved over another.
    let torn = job.ranges.iter().find(|range| {
        let follows = range.start == 0 || own[range.start - 1] == b'\n';
        !follows || own[range.end - 1] != b'\n'
    });
    if let Some(range) = torn {
        let offset = frame.uncompressed + range.start as u64;
        return Err(ExportError::Torn { path: source.path().to_path_buf(), offset });
    }
    let mut kept = 0;
    for range in &job.ranges {
        own.copy_within(range.clone(), kept);
        kept += range.len();
    }
    Ok(kept)
}

fn end_of(frame: &FrameInfo) -> u64 {
    frame.uncompressed + frame.uncompressed_len
}

fn end_in_file(frame: &FrameInfo) -> u64 {
    frame.compressed + frame.compressed_len
}

/// The frames of a segment that is taken as a whole, if they hold its rows and nothing else, so that none of its rows need
/// be looked at. Those too long to be held can only be copied.
fn whole_frames(
    table: &SeekTable,
    segment: &Segment,
    taken: &FrameRequest<'_>,
    one_type: bool,
    compression: Compression,
) -> Option<Range<usize>> {
    let head = segment.head();
    if segment.rows() == 0
        || !one_type
        || !head.is_dense()
        || taken.rows != (0..segment.rows())
        || !taken.selected.all(0..segment.rows())
    {
        return None;
    }
    let (first, last) = (table.frame_at(head.start), table.frame_at(head.end - 1));
    let frames = first..last + 1;
    let bounded = last < table.frames()
        && table.frame(first).uncompressed == head.start
        && end_of(&table.frame(last)) == head.end
        && (compression == Compression::Zstd || frames.clone().all(|frame| is_held(&table.frame(frame))));
    bounded.then_some(frames)
}

fn is_type(columns: &Columns<'_>, row: usize, taken: &FrameRequest<'_>) -> bool {
    columns.resource_type[row] as usize == taken.type_index
}

/// The frame that holds a byte. `number` is that of the last one that was asked for, which it follows as a rule.
fn frame_of(table: &SeekTable, place: u64, number: &mut usize) -> Result<FrameInfo, CorruptIndex> {
    let holds = |offset: usize| {
        let frame = (offset < table.frames()).then(|| table.frame(offset))?;
        (frame.uncompressed..end_of(&frame)).contains(&place).then_some(frame)
    };
    if let Some(frame) = holds(*number + 1) {
        *number += 1;
        return Ok(frame);
    }
    *number = table.frame_at(place);
    holds(*number).ok_or(CorruptIndex("a row lies in no frame"))
}

/// The rows that lie in a frame, of which `row` is one. `places` and `start` are those of the segment.
fn rows_of(
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
    let behind = row + places[row..behind].partition_point(|place| before(place, end_of(frame)));
    // What the search met on its way may be damaged. Rows ascend, so the two on either side of each bound prove it.
    let (outer, above) = (first.saturating_sub(1), (behind + 1).min(places.len()));
    segment.verify(Column::Place, outer..above)?;
    let fits = |i: usize, inside: bool| {
        (before(&places[i], end_of(frame)) && !before(&places[i], frame.uncompressed)) == inside
    };
    let bounded = (first == 0 || fits(outer, false)) && (behind == places.len() || fits(behind, false));
    match bounded && behind > row && fits(first, true) && fits(behind - 1, true) {
        true => Ok(first..behind),
        false => Err(CorruptIndex("a frame's rows are not its own")),
    }
}

/// Whether a frame holds these rows, each with a newline, and nothing else. `start` is that of the segment.
fn fills_frame(columns: &Columns<'_>, start: u64, rows: &Range<usize>, frame: &FrameInfo) -> bool {
    let bytes: u64 = columns.place[rows.clone()].iter().map(|[_, length]| u64::from(*length) + 1).sum();
    // Rows follow one another without overlap, so that rows that come to the length of the frame leave no gap.
    bytes == frame.uncompressed_len && start + u64::from(columns.offset(rows.start)) == frame.uncompressed
}

/// The bytes of rows and their newlines in their frame, neighbours joined.
fn ranges(
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

fn damaged(source: &StoreFile, frame: &FrameInfo, reason: &str) -> ExportError {
    let (path, offset, reason) = (source.path().to_path_buf(), frame.compressed, reason.to_string());
    ExportError::Frame { path, offset, reason }
}

const _: () = assert!(DECODED_BYTES as u64 <= FRAME_HELD_MAX);
