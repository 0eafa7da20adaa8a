//! Splits the bytes of a store file, passed in pieces of any length, into lines, and closes segments.
//!
//! A line inside one piece is scanned in place; one that crosses pieces is fed to the scanner piece by piece, so that a
//! line of gigabytes needs no buffer. A line is the bytes between newlines without one trailing carriage return, and
//! without the byte order mark at the start of the file (reading 8). Reading the file is the task of `scan`.

use crossbeam::channel::Receiver;
use memchr::{memchr, memrchr};

use crate::casts::{to_usize, u64_to_u32};
use crate::codec::compression::SeekPoint;
use crate::extract::block::row::Row;
use crate::extract::extractor::Extractor;
use crate::extract::facts::{Content, Facts};
use crate::extract::fault::{Fault, FaultKind};
use crate::extract::line_references::MentionLine;
use crate::extract::rules::LineRules;
use crate::hash::{Hasher64, xxh3_64};
use crate::ids::EntryId;
use crate::index::segment::builder::SegmentBuilder;
use crate::index::segment::reference_columns::RowReferences;
use crate::limits::ROW_BYTES_MAX;
use crate::simd::Kernel;
use crate::store::packed::seek_table::{PriorOwnerRecord, SeekTable};

/// Byte order mark of UTF-8, skipped at the start of a file.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// An encoded segment, ready to be written to a container.
pub(crate) struct EncodedSegment {
    /// Bytes of the segment as they lie on disk.
    pub bytes: Vec<u8>,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// xxh3 (64 bit) of the bytes of the file between them.
    pub content: u64,
}

/// Extractor, builder and buffers that a worker thread reuses from range to range.
pub(crate) struct ScanWorker {
    extractor: Extractor,
    builder: SegmentBuilder,
    references: RowReferences,
    /// Buffers of segments that were written, to be filled again.
    spare: Receiver<Vec<u8>>,
    /// Buffer that plain files are read into: as long as the longest read so far.
    pub buffer: Vec<u8>,
}

impl ScanWorker {
    /// What line splitters of one thread share, with an empty builder; written buffers come back through `spare`.
    pub(crate) fn new(kernel: Kernel, rules: LineRules, spare: Receiver<Vec<u8>>) -> ScanWorker {
        let (extractor, references) = (Extractor::new(kernel, rules), RowReferences::new(kernel));
        ScanWorker { extractor, builder: SegmentBuilder::new(rules), references, spare, buffer: Vec::new() }
    }
}

/// Splits pieces of a file into lines and collects these into segments.
pub(crate) struct LineSplitter<'a> {
    extractor: &'a mut Extractor,
    builder: &'a mut SegmentBuilder,
    references: &'a mut RowReferences,
    spare: &'a Receiver<Vec<u8>>,
    hash: Hasher64,
    /// Offset in the file of the next byte.
    position: u64,
    /// The line that the pieces so far end in.
    line: Option<OpenLine>,
    /// Encoded segments that were not taken yet.
    done: Vec<EncodedSegment>,
    /// Prior owners of the frame being fed; `None` outside of packed files, and for a frame without any.
    left: Option<FramePriorOwners<'a>>,
}

/// Owners of versions that a pack dropped, recorded for the DELETE entries of one frame.
struct FramePriorOwners<'a> {
    table: &'a SeekTable,
    entries: &'a [PriorOwnerRecord],
    /// DELETE entries of the frame read so far.
    entries_seen: u32,
}

/// A line that began in an earlier piece.
struct OpenLine {
    start: u64,
    /// Bytes fed so far.
    fed: u64,
    /// Whether the last byte was a carriage return, which is part of the line end if a newline follows.
    pending_cr: bool,
    blank: bool,
    leading_space: bool,
    /// xxh3 of the bytes fed so far.
    hash: Hasher64,
}

/// A line to be added to a segment.
struct LinePlace {
    start: u64,
    /// Bytes without the line end.
    length: u64,
    leading_space: bool,
    /// xxh3 of those bytes.
    hash: u64,
}

impl<'a> LineSplitter<'a> {
    /// A splitter that begins a segment at `start` in the file, which must be the start of a line.
    pub(crate) fn new(worker: &'a mut ScanWorker, start: u64) -> LineSplitter<'a> {
        let ScanWorker { extractor, builder, references, spare, .. } = worker;
        builder.begin(start);
        LineSplitter {
            extractor,
            builder,
            references,
            spare,
            hash: Hasher64::new(),
            position: start,
            line: None,
            done: Vec::new(),
            left: None,
        }
    }

    /// Announces the next frame of a packed file: adds a seek point and selects the prior owners of its DELETE entries.
    pub(crate) fn frame(&mut self, table: &'a SeekTable, frame: usize) {
        let info = table.frame(frame);
        self.restart(info.uncompressed, info.compressed);
        let at = |frame| table.left.partition_point(|left| (left.frame as usize) < frame);
        let entries = &table.left[at(frame)..at(frame + 1)];
        self.left = (!entries.is_empty()).then_some(FramePriorOwners { table, entries, entries_seen: 0 });
    }

    /// Skips a damaged frame of `uncompressed` bytes and `rows` rows, which counts as one faulty line.
    pub(crate) fn damaged_frame(&mut self, uncompressed: u64, rows: u32) {
        self.builder.push_fault(self.position, uncompressed, Fault { kind: FaultKind::DamagedFrame, at: rows.into() });
        self.position += uncompressed;
    }

    /// Records that the table of a packed file is damaged: one fault behind the last line.
    pub(crate) fn damaged_table(&mut self) {
        if self.line.is_none() {
            self.builder.push_fault(self.position, 0, Fault { kind: FaultKind::DamagedTable, at: 0 });
        }
    }

    /// Offset in the file of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Reads the next bytes of the file as [`LineSplitter::push`], and closes a segment at each of `cuts` behind which there
    /// are more bytes, unless a line goes on there. Cuts that were passed are taken off.
    pub(crate) fn push_cut(&mut self, mut bytes: &[u8], cuts: &mut &[u64], segment_bytes: u64) {
        while let Some((cut, later)) = cuts.split_first()
            && *cut < self.position + bytes.len() as u64
        {
            let (own, behind) = bytes.split_at(to_usize(cut.saturating_sub(self.position)));
            self.push(own, segment_bytes);
            if self.line.is_none() && self.position > self.builder.start() {
                self.close_segment(self.position);
            }
            (bytes, *cuts) = (behind, later);
        }
        self.push(bytes, segment_bytes);
    }

    /// Whether the bytes so far end inside a line.
    pub(crate) fn inside_line(&self) -> bool {
        self.line.is_some()
    }

    /// Adds a seek point, at which decoding can begin: offsets in the uncompressed and the compressed file.
    pub(crate) fn restart(&mut self, uncompressed: u64, compressed: u64) {
        self.builder.push_seek_point(uncompressed, compressed);
    }

    /// Takes the segments closed so far.
    pub(crate) fn take_done(&mut self) -> std::vec::Drain<'_, EncodedSegment> {
        self.done.drain(..)
    }

    /// Reads the next bytes of the file. A segment is closed behind the line that reaches `segment_bytes` from its
    /// start.
    pub(crate) fn push(&mut self, bytes: &[u8], segment_bytes: u64) {
        let mut hashed = 0;
        let mut place = 0;
        if self.position == 0 && bytes.starts_with(BOM) {
            place = BOM.len();
        }
        // 1. End the line that an earlier piece began.
        let base = self.position;
        if self.line.is_some() && place < bytes.len() {
            match memchr(b'\n', &bytes[place..]) {
                Some(newline) => {
                    self.feed_line(&bytes[place..place + newline], base + place as u64);
                    self.end_open_line();
                    place += newline + 1;
                }
                None => {
                    self.feed_line(&bytes[place..], base + place as u64);
                    place = bytes.len();
                }
            }
        }
        // 2. Whole lines: ordinary ones many at a time, any other by itself.
        let lines_end = memrchr(b'\n', &bytes[place..]).map_or(place, |newline| place + newline + 1);
        loop {
            let is_full = self.builder.is_full() || base + place as u64 - self.builder.start() >= segment_bytes;
            if is_full && self.line.is_none() {
                self.hash.update(&bytes[hashed..place]);
                hashed = place;
                self.close_segment(base + place as u64);
            }
            if place == lines_end {
                break;
            }
            let (builder, references, mut stopped) = (&mut *self.builder, &mut *self.references, false);
            place = self.extractor.extract_lines(&bytes[..lines_end], place, |range, facts| {
                let (start, end) = (base + range.start as u64, base + range.end as u64);
                add_whole_row(builder, references, start, &bytes[range.clone()], facts);
                let next = end + if bytes[range.end] == b'\n' { 1 } else { 2 };
                stopped = builder.is_full() || next - builder.start() >= segment_bytes;
                !stopped
            });
            if !stopped && place < lines_end {
                let newline = memchr(b'\n', &bytes[place..]).map_or(lines_end, |newline| place + newline);
                self.index_whole_lines(&bytes[place..newline], base + place as u64);
                place = newline + 1;
            }
        }
        // 3. The rest begins a line that a later piece ends.
        if place < bytes.len() {
            self.feed_line(&bytes[place..], base + place as u64);
        }
        self.hash.update(&bytes[hashed..]);
        self.position = base + bytes.len() as u64;
    }

    /// Ends the file, or the range to scan. Returns the segments that were not taken yet.
    pub(crate) fn finish(mut self) -> Vec<EncodedSegment> {
        if self.line.is_some() {
            self.end_open_line();
        }
        if self.position > self.builder.start() || self.builder.has_lines() {
            self.close_segment(self.position);
        }
        self.done
    }

    /// Ends the file where it cannot be decoded further: the open line, or an empty one, becomes a fault of `kind`.
    pub(crate) fn break_off_line(mut self, kind: FaultKind) -> Vec<EncodedSegment> {
        let (start, length) = match self.line.take() {
            Some(line) => (line.start, self.position - line.start),
            None => (self.position, 0),
        };
        self.builder.push_fault(start, length, Fault { kind, at: length });
        self.close_segment(self.position);
        self.done
    }

    /// Reads bytes that are not proven and become no lines. They belong to the segment, so that a change of them is found.
    pub(crate) fn push_unproven(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.position += bytes.len() as u64;
    }

    /// Ends the file with what is not proven: one fault from the start of the line that is open at `proven` to the last
    /// byte pushed. Its `at` is the place of the unproven member in that range.
    pub(crate) fn break_off_unproven(mut self, proven: SeekPoint) -> Vec<EncodedSegment> {
        let start = self.line.take().map_or(proven.uncompressed, |line| line.start);
        let at = proven.uncompressed - start;
        self.builder.push_fault(start, self.position - start, Fault { kind: FaultKind::Unproven, at });
        self.close_segment(self.position);
        self.done
    }

    /// Encodes the segment that ends at `end` in the file, and begins the next one there.
    fn close_segment(&mut self, end: u64) {
        let hash = std::mem::take(&mut self.hash);
        let (start, content) = (self.builder.start(), hash.digest());
        let bytes = self.builder.finish(end, content, self.spare.try_recv().unwrap_or_default());
        self.done.push(EncodedSegment { bytes, start, end, content });
        self.builder.begin(end);
    }

    /// Extracts one line that lies whole in a piece, and adds it to the segment.
    fn index_whole_lines(&mut self, line: &[u8], start: u64) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let leading_space = line.first().is_none_or(|b| is_space(*b));
        if leading_space && line.iter().all(|b| is_space(*b)) {
            return self.builder.count_blank();
        }
        if line.len() as u64 > ROW_BYTES_MAX {
            return self.builder.push_fault(start, line.len() as u64, Fault { kind: FaultKind::TooLong, at: 0 });
        }
        let outcome = self.extractor.extract(line);
        let place = LinePlace { start, length: line.len() as u64, leading_space, hash: xxh3_64(line) };
        if index_line(self.builder, &mut self.left, outcome, &place) {
            let references = &mut *self.references;
            let line = MentionLine { text: line, escapes: true, marks: None };
            self.builder.push_references(|row, columns, heap| references.read_row(line, row, columns, heap));
        }
    }

    /// Feeds a part of a line that crosses pieces to the extractor; a line beyond [`ROW_BYTES_MAX`] is only counted.
    fn feed_line(&mut self, part: &[u8], start: u64) {
        let line = self.line.get_or_insert_with(|| {
            self.extractor.begin();
            self.references.begin_line();
            let leading_space = part.first().is_some_and(|b| is_space(*b));
            OpenLine { start, fed: 0, pending_cr: false, blank: true, leading_space, hash: Hasher64::new() }
        });
        if part.is_empty() {
            return;
        }
        if line.pending_cr {
            self.extractor.feed(b"\r");
            self.references.feed_piece(b"\r");
            line.hash.update(b"\r");
            line.fed += 1;
            line.pending_cr = false;
        }
        let part = match part {
            [head @ .., b'\r'] => {
                line.pending_cr = true;
                head
            }
            _ => part,
        };
        line.blank = line.blank && part.iter().all(|b| is_space(*b));
        line.fed += part.len() as u64;
        if line.fed <= ROW_BYTES_MAX {
            line.hash.update(part);
            self.extractor.feed(part);
            self.references.feed_piece(part);
        }
    }

    /// Ends the line that began in an earlier piece, and adds it to the segment.
    fn end_open_line(&mut self) {
        let Some(line) = self.line.take() else { return };
        if line.blank {
            return self.builder.count_blank();
        }
        let outcome = match line.fed {
            0..=ROW_BYTES_MAX => self.extractor.finish(),
            _ => Err(Fault { kind: FaultKind::TooLong, at: 0 }),
        };
        let OpenLine { start, fed: length, leading_space, .. } = line;
        let place = LinePlace { start, length, leading_space, hash: line.hash.digest() };
        if index_line(self.builder, &mut self.left, outcome, &place) {
            let references = &mut *self.references;
            self.builder.push_references(|row, columns, heap| references.end_line(row, columns, heap));
        }
    }
}

/// Adds a row that the block pass read, with its references. Never inlined: the pass, which is most of the work of a scan,
/// would have fewer registers.
#[inline(never)]
fn add_whole_row(
    builder: &mut SegmentBuilder,
    references: &mut RowReferences,
    start: u64,
    line: &[u8],
    facts: &Row<'_>,
) {
    builder.push_row(start, u64_to_u32(line.len() as u64), false, xxh3_64(line), facts);
    let line = MentionLine { text: line, escapes: facts.escapes, marks: facts.mentions };
    builder.push_references(|row, columns, heap| references.read_row(line, row, columns, heap));
}

/// Adds an extracted line to the segment: DELETE entries with their prior owners, a row, or a fault. Whether it is a row,
/// whose references are to be added.
fn index_line(
    builder: &mut SegmentBuilder,
    left: &mut Option<FramePriorOwners<'_>>,
    outcome: Result<&Facts, Fault>,
    line: &LinePlace,
) -> bool {
    let LinePlace { start, length, leading_space, hash } = *line;
    match outcome {
        Ok(facts) if facts.content == Content::Tombstones => {
            let first = EntryId::of(builder.tombstone_count());
            builder.push_tombstone_line(facts);
            if let Some(left) = left {
                left.push_prior_owners_of(builder, first);
            }
        }
        Ok(facts) => {
            builder.push_row(start, u64_to_u32(length), leading_space, hash, facts);
            return true;
        }
        Err(fault) => builder.push_fault(start, length, fault),
    }
    false
}

impl FramePriorOwners<'_> {
    /// Adds the recorded owners of the DELETE entries from `first` on, which were added to the builder last.
    fn push_prior_owners_of(&mut self, builder: &mut SegmentBuilder, first: EntryId) {
        for entry in (first.index()..builder.tombstone_count()).map(EntryId::of) {
            let own = self.entries.partition_point(|left| left.entry < self.entries_seen)
                ..self.entries.partition_point(|left| left.entry <= self.entries_seen);
            for left in &self.entries[own] {
                let owner = self.table.names.get(left.owner as usize);
                builder.push_prior_owners(
                    entry,
                    left.updated,
                    owner.map(|(base, id)| (base.as_str(), *id)).ok_or(left.owner),
                );
            }
            self.entries_seen += 1;
        }
    }
}

/// Whether a line that was cut may begin with the byte, or be blank: white space of RFC 8259 other than a newline.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}
