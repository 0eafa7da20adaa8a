//! From the bytes of a store file, in pieces of any length, to segments.
//!
//! A line inside one piece is scanned where it lies; one that crosses pieces is fed to the scanner piece by piece, so
//! that a line of gigabytes needs no buffer of its own. What is a line: the bytes between newlines without one
//! trailing carriage return, and without the byte order mark at the start of the file (reading 8).

use crossbeam_channel::Receiver;
use memchr::{memchr, memrchr};

use crate::extract::extractor::Extractor;
use crate::extract::facts::{Content, Facts};
use crate::extract::fault::{Fault, FaultKind};
use crate::hash::Hasher64;
use crate::index::segment::builder::SegmentBuilder;
use crate::limits::ROW_BYTES_MAX;
use crate::store::packed::seek_table::{PriorOwnerRecord, SeekTable};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// A segment that is ready to be written.
pub(crate) struct EncodedSegment {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// Hash of the file's bytes between them.
    pub content: u64,
}

/// What a worker uses again from span to span.
pub(crate) struct ScanWorker {
    extractor: Extractor,
    builder: SegmentBuilder,
    /// Buffers of segments that were written, to be filled again.
    spare: Receiver<Vec<u8>>,
}

impl ScanWorker {
    /// Tools of a worker.
    pub(crate) fn new(extractor: Extractor, spare: Receiver<Vec<u8>>) -> ScanWorker {
        ScanWorker { extractor, builder: SegmentBuilder::new(), spare }
    }
}

/// Cuts pieces into lines and lines into segments.
pub(crate) struct LineSplitter<'a> {
    extractor: &'a mut Extractor,
    builder: &'a mut SegmentBuilder,
    spare: &'a Receiver<Vec<u8>>,
    hash: Hasher64,
    /// Offset in the file of the next byte.
    position: u64,
    line: Option<OpenLine>,
    done: Vec<EncodedSegment>,
    /// What a packed file tells of the DELETE entries of the frame being fed, and how many of these were met.
    left: Option<FramePriorOwners<'a>>,
}

/// Owners of versions that have left, for the DELETE entries of one frame.
struct FramePriorOwners<'a> {
    table: &'a SeekTable,
    entries: &'a [PriorOwnerRecord],
    met: u32,
}

/// A line that began in an earlier piece.
struct OpenLine {
    start: u64,
    /// Bytes fed so far.
    fed: u64,
    /// A carriage return that may turn out to be part of the line's end.
    held: bool,
    blank: bool,
    leading_space: bool,
}

impl<'a> LineSplitter<'a> {
    /// Starts at `start` in the file, which must be the start of a line.
    pub(crate) fn new(tools: &'a mut ScanWorker, start: u64) -> LineSplitter<'a> {
        let ScanWorker { extractor, builder, spare } = tools;
        builder.begin(start);
        LineSplitter {
            extractor,
            builder,
            spare,
            hash: Hasher64::new(),
            position: start,
            line: None,
            done: Vec::new(),
            left: None,
        }
    }

    /// A frame of a packed file comes next.
    pub(crate) fn frame(&mut self, table: &'a SeekTable, frame: usize) {
        let note = table.frame(frame);
        self.restart(note.uncompressed, note.compressed);
        let at = |frame| table.left.partition_point(|left| (left.frame as usize) < frame);
        let entries = &table.left[at(frame)..at(frame + 1)];
        self.left = (!entries.is_empty()).then_some(FramePriorOwners { table, entries, met: 0 });
    }

    /// The frame that comes next is damaged: so many bytes are not there, and count as one faulty line.
    pub(crate) fn damaged_frame(&mut self, uncompressed: u64, rows: u32) {
        self.builder.push_fault(self.position, uncompressed, Fault { kind: FaultKind::DamagedFrame, at: rows.into() });
        self.position += uncompressed;
    }

    /// The table of a packed file is damaged: noted once, behind the last line.
    pub(crate) fn damaged_table(&mut self) {
        if self.line.is_none() {
            self.builder.push_fault(self.position, 0, Fault { kind: FaultKind::DamagedTable, at: 0 });
        }
    }

    /// Whether the bytes so far end inside a line.
    pub(crate) fn inside_line(&self) -> bool {
        self.line.is_some()
    }

    /// A place where decoding can begin anew: offsets in the uncompressed and the compressed file.
    pub(crate) fn restart(&mut self, uncompressed: u64, compressed: u64) {
        self.builder.push_seek_point(uncompressed, compressed);
    }

    /// Segments finished so far.
    pub(crate) fn take_done(&mut self) -> std::vec::Drain<'_, EncodedSegment> {
        self.done.drain(..)
    }

    /// The next bytes of the file. A segment ends behind the first line at or after `segment_bytes`.
    pub(crate) fn push(&mut self, bytes: &[u8], segment_bytes: u64) {
        let mut hashed = 0;
        let mut place = 0;
        if self.position == 0 && bytes.starts_with(BOM) {
            place = BOM.len();
        }
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
        // Whole lines are read many at a time; one that is out of the ordinary by itself.
        let whole = memrchr(b'\n', &bytes[place..]).map_or(place, |newline| place + newline + 1);
        loop {
            let is_full = self.builder.is_full() || base + place as u64 - self.builder.start() >= segment_bytes;
            if is_full && self.line.is_none() {
                self.hash.update(&bytes[hashed..place]);
                hashed = place;
                self.close_segment(base + place as u64);
            }
            if place == whole {
                break;
            }
            let (builder, mut stopped) = (&mut *self.builder, false);
            place = self.extractor.extract_lines(&bytes[..whole], place, |range, facts| {
                let (start, end) = (base + range.start as u64, base + range.end as u64);
                builder.push_row(start, (end - start) as u32, false, facts);
                let next = end + if bytes[range.end] == b'\n' { 1 } else { 2 };
                stopped = builder.is_full() || next - builder.start() >= segment_bytes;
                !stopped
            });
            if !stopped && place < whole {
                let newline = memchr(b'\n', &bytes[place..]).map_or(whole, |newline| place + newline);
                self.index_whole_lines(&bytes[place..newline], base + place as u64);
                place = newline + 1;
            }
        }
        if place < bytes.len() {
            self.feed_line(&bytes[place..], base + place as u64);
        }
        self.hash.update(&bytes[hashed..]);
        self.position = base + bytes.len() as u64;
    }

    /// The file, or the part of it that was asked for, ends here. The segments that were not taken yet are returned.
    pub(crate) fn finish(mut self) -> Vec<EncodedSegment> {
        if self.line.is_some() {
            self.end_open_line();
        }
        if self.position > self.builder.start() || self.builder.has_lines() {
            self.close_segment(self.position);
        }
        self.done
    }

    /// The bytes cannot be read further: the line that was begun, or the nothing there is, becomes a fault.
    pub(crate) fn break_off_line(mut self, kind: FaultKind) -> Vec<EncodedSegment> {
        let (start, length) = match self.line.take() {
            Some(line) => (line.start, self.position - line.start),
            None => (self.position, 0),
        };
        self.builder.push_fault(start, length, Fault { kind, at: length });
        self.close_segment(self.position);
        self.done
    }

    fn close_segment(&mut self, end: u64) {
        let hash = std::mem::take(&mut self.hash);
        let (start, content) = (self.builder.start(), hash.digest());
        let bytes = self.builder.finish(end, content, self.spare.try_recv().unwrap_or_default());
        self.done.push(EncodedSegment { bytes, start, end, content });
        self.builder.begin(end);
    }

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
        index_line(self.builder, &mut self.left, outcome, start, line.len() as u64, leading_space);
    }

    /// Feeds the next part of a line that no piece holds as a whole.
    fn feed_line(&mut self, part: &[u8], start: u64) {
        let line = self.line.get_or_insert_with(|| {
            self.extractor.begin();
            let leading_space = part.first().is_some_and(|b| is_space(*b));
            OpenLine { start, fed: 0, held: false, blank: true, leading_space }
        });
        if part.is_empty() {
            return;
        }
        if line.held {
            self.extractor.feed(b"\r");
            line.fed += 1;
            line.held = false;
        }
        let part = match part {
            [head @ .., b'\r'] => {
                line.held = true;
                head
            }
            _ => part,
        };
        line.blank = line.blank && part.iter().all(|b| is_space(*b));
        line.fed += part.len() as u64;
        if line.fed <= ROW_BYTES_MAX {
            self.extractor.feed(part);
        }
    }

    fn end_open_line(&mut self) {
        let Some(line) = self.line.take() else { return };
        if line.blank {
            return self.builder.count_blank();
        }
        let outcome = match line.fed {
            0..=ROW_BYTES_MAX => self.extractor.finish(),
            _ => Err(Fault { kind: FaultKind::TooLong, at: 0 }),
        };
        index_line(self.builder, &mut self.left, outcome, line.start, line.fed, line.leading_space);
    }
}

fn index_line(
    builder: &mut SegmentBuilder,
    left: &mut Option<FramePriorOwners<'_>>,
    outcome: Result<&Facts, Fault>,
    start: u64,
    length: u64,
    leading_space: bool,
) {
    match outcome {
        Ok(facts) if facts.content == Content::Tombstones => {
            let first = builder.push_tombstones();
            builder.push_tombstone_line(facts);
            if let Some(left) = left {
                left.take_row(builder, first);
            }
        }
        Ok(facts) => builder.push_row(start, length as u32, leading_space, facts),
        Err(fault) => builder.push_fault(start, length, fault),
    }
}

impl FramePriorOwners<'_> {
    /// Hands the owners on of the DELETE entries from `first` on, which the builder has just taken.
    fn take_row(&mut self, builder: &mut SegmentBuilder, first: usize) {
        for tombstone in first..builder.push_tombstones() {
            let own = self.entries.partition_point(|left| left.entry < self.met)
                ..self.entries.partition_point(|left| left.entry <= self.met);
            for left in &self.entries[own] {
                let owner = self.table.names.get(left.owner as usize);
                builder.push_prior_owners(
                    tombstone,
                    left.updated,
                    owner.map(|(base, id)| (base.as_str(), *id)).ok_or(left.owner),
                );
            }
            self.met += 1;
        }
    }
}

/// White space of RFC 8259 that can stand inside a line.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}
