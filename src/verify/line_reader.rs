//! Splits bytes that arrive in pieces into lines, without holding a line that is too long.
//!
//! Shares no code with the line splitter of the index, which it checks. A line longer than [`LINE_HELD_MAX`] is fed to
//! the project's own scanner piece by piece and marked as such: it is not checked by a second reader.

use crate::extract::extractor::Extractor;
use crate::extract::fault::FaultKind;
use crate::extract::rules::LineRules;
use crate::hash::Hasher64;
use crate::limits::{LINE_HELD_MAX, ROW_BYTES_MAX};
use crate::simd::Kernel;
use crate::verify::oracle_line::OracleLine;
use memchr::memchr;

/// UTF-8 byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Treatment of a byte order mark at the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineMark {
    /// It is skipped (reading 8).
    Skip,
    /// It is part of the first line.
    Keep,
}

/// A line and its place in the file.
pub(crate) struct CutLine<'a> {
    /// Offset of its first byte in the uncompressed file.
    pub offset: u64,
    /// Whether a newline ends the line.
    pub ended: bool,
    /// Its bytes without the newline, or a substitute for them.
    pub body: Body<'a>,
}

/// Content of a line, as far as it is available.
pub(crate) enum Body<'a> {
    /// All bytes of the line.
    Whole(&'a [u8]),
    /// A line too long to be held: its length without newline and one carriage return, the hash (xxh3, 64 bits) of
    /// those bytes, and the scanner's facts.
    Long(u64, u64, OracleLine),
    /// The file cannot be decoded any further, or is not proven from here on: number of bytes up to its decodable end.
    Broken(u64),
}

/// State of a line that is too long to be held.
struct LongLine {
    extractor: Extractor,
    length: u64,
    blank: bool,
    /// Whether the bytes so far end with a carriage return, which is not counted until another byte follows.
    carriage: bool,
    hash: Hasher64,
}

/// Splits the bytes of a file, or of a part of it that begins with a line.
pub(crate) struct LineReader {
    /// How lines that are too long to be held are read.
    rules: LineRules,
    mark: LineMark,
    /// Offset of the next byte in the uncompressed file.
    position: u64,
    /// Offset of the current line.
    start: u64,
    /// Bytes of the current line that came with earlier pieces.
    held: Vec<u8>,
    long: Option<Box<LongLine>>,
}

impl LineReader {
    /// A reader that begins at an offset of the uncompressed file.
    pub(crate) fn new(offset: u64, mark: LineMark, rules: LineRules) -> LineReader {
        LineReader { rules, mark, position: offset, start: offset, held: Vec::new(), long: None }
    }

    /// Takes the next bytes and passes each line that they complete to `on_line`. The first piece of a file must hold
    /// the whole byte order mark, if there is one.
    pub(crate) fn feed(&mut self, mut piece: &[u8], on_line: &mut dyn FnMut(CutLine<'_>)) {
        if self.position == 0 && self.mark == LineMark::Skip && piece.starts_with(BOM) {
            (self.position, self.start) = (3, 3);
            piece = &piece[3..];
        }
        while let Some(end) = memchr(b'\n', piece) {
            if self.long.is_none() && self.held.is_empty() && end <= LINE_HELD_MAX {
                on_line(CutLine { offset: self.start, ended: true, body: Body::Whole(&piece[..end]) });
            } else {
                self.hold_bytes(&piece[..end]);
                self.close(true, on_line);
            }
            self.position += end as u64 + 1;
            self.start = self.position;
            piece = &piece[end + 1..];
        }
        self.hold_bytes(piece);
        self.position += piece.len() as u64;
    }

    /// Whether the bytes so far end with a newline.
    pub(crate) fn is_between_lines(&self) -> bool {
        self.position == self.start
    }

    /// Ends the file: bytes after the last newline are a line without one.
    pub(crate) fn finish(mut self, on_line: &mut dyn FnMut(CutLine<'_>)) {
        if self.position > self.start {
            self.close(false, on_line);
        }
    }

    /// Ends a file that cannot be read as lines any further: the bytes after the last newline up to `end`, even if there
    /// are none, are a broken line.
    pub(crate) fn break_off(self, end: u64, on_line: &mut dyn FnMut(CutLine<'_>)) {
        on_line(CutLine { offset: self.start, ended: false, body: Body::Broken(end.saturating_sub(self.start)) });
    }

    /// Keeps bytes of an incomplete line, or scans them if the line is too long.
    fn hold_bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.long.is_none() && self.held.len() + bytes.len() > LINE_HELD_MAX {
            let mut long = Box::new(LongLine {
                extractor: Extractor::new(Kernel::detect(), self.rules),
                length: 0,
                blank: true,
                carriage: false,
                hash: Hasher64::new(),
            });
            long.extractor.begin();
            long.feed(&std::mem::take(&mut self.held));
            self.long = Some(long);
        }
        match &mut self.long {
            Some(long) => long.feed(bytes),
            None => self.held.extend_from_slice(bytes),
        }
    }

    /// Passes the current line to `on_line`.
    fn close(&mut self, ended: bool, on_line: &mut dyn FnMut(CutLine<'_>)) {
        let body = match self.long.take() {
            Some(mut long) => {
                let line = long.finish(self.rules);
                Body::Long(long.length, long.hash.digest(), line)
            }
            None => Body::Whole(&self.held),
        };
        on_line(CutLine { offset: self.start, ended, body });
        self.held.clear();
    }
}

impl LongLine {
    /// Takes the next bytes of the line; a carriage return at their end waits for the next ones.
    fn feed(&mut self, bytes: &[u8]) {
        let Some((last, head)) = bytes.split_last() else { return };
        if self.carriage {
            self.scan(b"\r");
        }
        self.carriage = *last == b'\r';
        self.scan(if self.carriage { head } else { bytes });
    }

    /// Hashes, counts and scans bytes of the line.
    fn scan(&mut self, bytes: &[u8]) {
        self.blank = self.blank && bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        self.length += bytes.len() as u64;
        self.hash.update(bytes);
        self.extractor.feed(bytes);
    }

    /// Facts of the complete line.
    fn finish(&mut self, rules: LineRules) -> OracleLine {
        match self.extractor.finish() {
            _ if self.blank => OracleLine::Blank,
            _ if self.length > ROW_BYTES_MAX => OracleLine::Faulty,
            Ok(facts) => OracleLine::of_facts(facts, rules),
            Err(fault) if fault.kind == FaultKind::NoType => OracleLine::Untyped,
            Err(_) => OracleLine::Faulty,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8], piece: usize, mark: LineMark) -> Vec<(u64, bool, Vec<u8>)> {
        let mut lines = Vec::new();
        let mut on_line = |cut: CutLine<'_>| match cut.body {
            Body::Whole(line) => lines.push((cut.offset, cut.ended, line.to_vec())),
            _ => panic!("no line here is long"),
        };
        let mut cutter = LineReader::new(0, mark, LineRules::default());
        bytes.chunks(piece).for_each(|piece| cutter.feed(piece, &mut on_line));
        cutter.finish(&mut on_line);
        lines
    }

    /// Pieces of any length give the same lines, blank ones and an unended one among them.
    #[test]
    fn lines_do_not_depend_on_pieces() {
        let bytes = b"\xef\xbb\xbfone\r\n\n{}\n\n last";
        let whole = cut(bytes, 100, LineMark::Skip);
        assert_eq!(whole[0], (3, true, b"one\r".to_vec()));
        assert_eq!(whole[4], (13, false, b" last".to_vec()));
        for piece in 3..9 {
            assert_eq!(cut(bytes, piece, LineMark::Skip), whole);
        }
        assert_eq!(cut(bytes, 5, LineMark::Keep)[0], (0, true, b"\xef\xbb\xbfone\r".to_vec()));
        assert_eq!(cut(b"a\n", 1, LineMark::Keep), [(0, true, b"a".to_vec())]);
        assert_eq!(cut(b"", 1, LineMark::Keep), []);
    }

    /// A line longer than what is held is scanned in pieces, its carriage return left out.
    #[test]
    fn a_long_line_is_scanned() {
        let mut line = b"{\"resourceType\":\"Patient\",\"id\":\"a\",\"x\":\"".to_vec();
        line.resize(LINE_HELD_MAX, b'x');
        line.extend_from_slice(b"\"}\r");
        let mut cutter = LineReader::new(7, LineMark::Keep, LineRules::default());
        let mut seen = Vec::new();
        let mut on_line = |cut: CutLine<'_>| match cut.body {
            Body::Long(length, hash, OracleLine::Row(row)) => seen.push((cut.offset, length, hash, row.id)),
            _ => panic!("it is long"),
        };
        line.chunks(1 << 20).for_each(|piece| cutter.feed(piece, &mut on_line));
        cutter.feed(b"\n", &mut on_line);
        cutter.finish(&mut on_line);
        let bytes = &line[..line.len() - 1];
        let id = crate::fhir::id::Id::parse(b"a").unwrap();
        assert_eq!(seen, [(7, bytes.len() as u64, crate::hash::xxh3_64(bytes), id)]);
    }
}
