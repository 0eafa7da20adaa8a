//! Reads the byte ranges of segments from a store file again, line by line, and hashes them.
//!
//! Knows no index: ranges come from the caller, which also compares the hashes.

use std::sync::atomic::Ordering::Relaxed;

use crate::codec::compression::{Compression, SeekPoint, UnprovenPolicy};
use crate::codec::decoder::{DecodeError, Decoder};
use crate::extract::rules::LineRules;
use crate::hash::Hasher64;
use crate::limits::READ_BYTES;
use crate::progress::Progress;
use crate::store::packed::envelope::is_packed;
use crate::store::packed::frame_reader::{FrameError, FrameReader};
use crate::store::packed::seek_table::SeekTable;
use crate::sys::store_file::StoreFile;
use crate::verify::VerifyError;
use crate::verify::line_reader::{Body, CutLine, LineMark, LineReader};

/// Byte range of a store file that one segment was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentLines {
    /// Start in the uncompressed file.
    pub start: u64,
    /// End in the uncompressed file, exclusive.
    pub end: u64,
}

/// Called with each line and the index of its range among those that are read.
pub(crate) type OnLine<'a> = &'a mut dyn FnMut(usize, CutLine<'_>);

/// Groups of ranges that can be read independently: each range of a plain file alone, all ranges of a compressed file
/// together. `ranges` are (file, compression) in store order; the result holds intervals of their indexes.
pub(crate) fn tasks<F: PartialEq>(ranges: &[(F, Compression)]) -> Vec<std::ops::Range<usize>> {
    let mut tasks: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, (file, compression)) in ranges.iter().enumerate() {
        match tasks.last_mut() {
            Some(last) if *compression != Compression::None && ranges[last.start].0 == *file => last.end = i + 1,
            _ => tasks.push(i..i + 1),
        }
    }
    tasks
}

/// How a file is read: its compression, what becomes of members that are not proven, and the rules of lines.
pub(crate) type ReadBy = (Compression, UnprovenPolicy, LineRules);

/// Reads ranges of one file in order. Returns the hash (xxh3, 64 bits) of the bytes of each; missing bytes are left out, so
/// that the hash differs.
///
/// # Errors
/// [`VerifyError`] if the file cannot be read, or the work is cancelled. Damage of a compressed file is a broken line.
pub(crate) fn read(
    source: &StoreFile,
    (compression, unproven, rules): ReadBy,
    ranges: &[SegmentLines],
    progress: &Progress,
    on_line: OnLine<'_>,
) -> Result<Vec<u64>, VerifyError> {
    match compression {
        Compression::None => {
            ranges.iter().enumerate().map(|(i, range)| plain(source, *range, rules, i, progress, on_line)).collect()
        }
        compression => compressed(source, (compression, unproven, rules), ranges, progress, on_line),
    }
}

/// Reads one range of a plain file.
fn plain(
    source: &StoreFile,
    range: SegmentLines,
    rules: LineRules,
    number: usize,
    progress: &Progress,
    on_line: OnLine<'_>,
) -> Result<u64, VerifyError> {
    let mut line_reader = LineReader::new(range.start, LineMark::Skip, rules);
    let (mut hash, mut buffer) = (Hasher64::new(), Vec::new());
    let end = range.end.min(source.len());
    let mut offset = range.start.min(end);
    while offset < end {
        check_cancelled(progress)?;
        let len = (end - offset).min(READ_BYTES as u64);
        let piece = source.read(offset, len as usize, &mut buffer)?;
        hash.update(piece);
        line_reader.feed(piece, &mut |cut| on_line(number, cut));
        offset += len;
        progress.scan_done.fetch_add(len, Relaxed);
    }
    line_reader.finish(&mut |cut| on_line(number, cut));
    source.check()?;
    Ok(hash.digest())
}

/// Decodes a compressed file without looking at its bytes, up to `until` or the first error: how many of its uncompressed
/// bytes are proven; `None` if there is no error.
fn proven_bytes(
    source: &StoreFile,
    compression: Compression,
    until: u64,
    progress: &Progress,
) -> Result<Option<u64>, VerifyError> {
    let mut decoder = match Decoder::new(source, compression, SeekPoint { compressed: 0, uncompressed: 0 }) {
        Ok(decoder) => decoder,
        Err(DecodeError::Source(error)) => return Err(error.into()),
        Err(_) => return Ok(Some(0)),
    };
    while decoder.proven().uncompressed <= until {
        check_cancelled(progress)?;
        match decoder.piece(|_| {}) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(DecodeError::Source(error)) => return Err(error.into()),
            Err(_) => return Ok(Some(decoder.proven().uncompressed)),
        }
    }
    Ok(None)
}

/// Reads ranges of a compressed file: packed ones by frame, others by one decoder. Where rows that are not proven are
/// faults, the file is decoded twice: what is proven is known only behind it.
fn compressed(
    source: &StoreFile,
    (compression, unproven, rules): ReadBy,
    ranges: &[SegmentLines],
    progress: &Progress,
    on_line: OnLine<'_>,
) -> Result<Vec<u64>, VerifyError> {
    if let Ok(Some(table)) = SeekTable::open(source) {
        return packed(source, &table, rules, ranges, progress, on_line);
    }
    let from = SeekPoint { compressed: 0, uncompressed: 0 };
    let failed = |error| match error {
        DecodeError::Source(error) => Err(VerifyError::from(error)),
        _ => Ok(()),
    };
    let mut decoder = match Decoder::new(source, compression, from) {
        Ok(decoder) => decoder,
        Err(error) => return failed(error).map(|()| Vec::new()),
    };
    let until = ranges.last().map_or(0, |last| last.end);
    let proven = match unproven {
        UnprovenPolicy::Fault => proven_bytes(source, compression, until, progress)?,
        UnprovenPolicy::Export => None,
    };
    let mut walk = LineWalk::new(rules, ranges, on_line);
    let mut compressed = 0;
    let broken = loop {
        check_cancelled(progress)?;
        let piece = match decoder.piece(|_| {}) {
            Ok(Some(piece)) => piece,
            Ok(None) => break false,
            Err(error) => {
                failed(error)?;
                break true;
            }
        };
        let left = proven.map_or(u64::MAX, |proven| proven.saturating_sub(walk.offset));
        let (own, rest) = piece.split_at(left.min(piece.len() as u64) as usize);
        walk.feed(own, true);
        walk.feed(rest, false);
        let now = decoder.compressed();
        progress.scan_done.fetch_add(now - compressed, Relaxed);
        compressed = now;
        if walk.is_over() {
            break false;
        }
    };
    let no_table = !broken && !walk.is_over() && compression != Compression::None && is_packed(source)?;
    Ok(walk.end(broken, no_table))
}

/// Reads ranges of a packed file frame by frame; a damaged frame is one broken line.
fn packed(
    source: &StoreFile,
    table: &SeekTable,
    rules: LineRules,
    ranges: &[SegmentLines],
    progress: &Progress,
    on_line: OnLine<'_>,
) -> Result<Vec<u64>, VerifyError> {
    let mut walk = LineWalk::new(rules, ranges, on_line);
    let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
    for frame in (0..table.frames()).map(|offset| table.frame(offset)) {
        check_cancelled(progress)?;
        match reader.feed(source, &frame, &mut buffer, &mut |piece| walk.feed(piece, true)) {
            Ok(()) => {}
            Err(FrameError::Source(error)) => return Err(error.into()),
            Err(FrameError::Damaged(_)) => walk.broken_frame(frame.uncompressed_len),
        }
        progress.scan_done.fetch_add(frame.compressed_len, Relaxed);
    }
    Ok(walk.end(false, false))
}

/// Distributes the bytes of a compressed file over the ranges that they belong to.
struct LineWalk<'a, 'b> {
    rules: LineRules,
    ranges: &'a [SegmentLines],
    hashes: Vec<Hasher64>,
    /// Index of the current range.
    number: usize,
    /// Offset of the next byte in the uncompressed file.
    offset: u64,
    line_reader: Option<LineReader>,
    on_line: OnLine<'b>,
}

impl<'a, 'b> LineWalk<'a, 'b> {
    /// A walk before the first byte of the file.
    fn new(rules: LineRules, ranges: &'a [SegmentLines], on_line: OnLine<'b>) -> LineWalk<'a, 'b> {
        let hashes = vec![Hasher64::new(); ranges.len()];
        let line_reader = ranges.first().map(|range| LineReader::new(range.start, LineMark::Skip, rules));
        LineWalk { rules, ranges, hashes, number: 0, offset: 0, line_reader, on_line }
    }

    /// Moves to the range of the current offset. A range begins with its first byte: damage after the last byte of a
    /// range belongs to that range.
    fn advance_range(&mut self) {
        while self.number + 1 < self.ranges.len() && self.offset >= self.ranges[self.number].end {
            finish_range(self.line_reader.take(), self.number, self.on_line);
            self.number += 1;
            self.line_reader = Some(LineReader::new(self.ranges[self.number].start, LineMark::Skip, self.rules));
        }
    }

    /// Takes the next decoded bytes, which are lines only where they are proven.
    fn feed(&mut self, mut rest: &[u8], are_proven: bool) {
        while !rest.is_empty() {
            self.advance_range();
            let Some(range) = self.ranges.get(self.number).copied() else { break };
            let (number, offset) = (self.number, self.offset);
            let until = if offset < range.start { range.start } else { range.end };
            let len = if offset >= range.end { rest.len() } else { rest.len().min((until - offset) as usize) };
            let (own, more) = rest.split_at(len);
            if offset >= range.start && offset < range.end {
                self.hashes[number].update(own);
                if let Some(line_reader) = self.line_reader.as_mut().filter(|_| are_proven) {
                    line_reader.feed(own, &mut |cut| (self.on_line)(number, cut));
                }
            }
            self.offset += len as u64;
            rest = more;
        }
    }

    /// Counts a frame of `bytes` bytes that cannot be decoded, and reports it as a broken line.
    fn broken_frame(&mut self, bytes: u64) {
        self.advance_range();
        let within = self.ranges.get(self.number).is_some_and(|range| (range.start..range.end).contains(&self.offset));
        if within {
            (self.on_line)(self.number, CutLine { offset: self.offset, ended: true, body: Body::Broken(bytes) });
            self.line_reader = Some(LineReader::new(self.offset + bytes, LineMark::Skip, self.rules));
        }
        self.offset += bytes;
    }

    /// Whether the walk is past the last range.
    fn is_over(&self) -> bool {
        self.ranges.last().is_none_or(|last| self.offset > last.end)
    }

    /// Ends the file and returns the hash of each range. `broken`: it cannot be decoded any further; `no_table`: it is
    /// a packed file without its table, which counts as broken if the frames end with a whole line.
    fn end(mut self, broken: bool, no_table: bool) -> Vec<u64> {
        self.advance_range();
        let (number, offset, on_line) = (self.number, self.offset, self.on_line);
        match self.line_reader {
            Some(line_reader) if broken => line_reader.break_off(offset, &mut |cut| on_line(number, cut)),
            Some(line_reader) if no_table && line_reader.is_between_lines() => {
                line_reader.break_off(offset, &mut |cut| on_line(number, cut))
            }
            line_reader => finish_range(line_reader, number, on_line),
        }
        self.hashes.iter().map(Hasher64::digest).collect()
    }
}

/// Passes the bytes of one range to `feed`, in pieces.
///
/// # Errors
/// [`VerifyError`] if the file cannot be read. If a compressed file cannot be decoded to the end of the range, fewer
/// bytes are passed.
pub(crate) fn bytes(
    source: &StoreFile,
    compression: Compression,
    range: SegmentLines,
    progress: &Progress,
    feed: &mut dyn FnMut(&[u8]),
) -> Result<(), VerifyError> {
    if compression == Compression::None {
        let (mut position, mut buffer) = (range.start, Vec::new());
        while position < range.end {
            let len = (range.end - position).min(READ_BYTES as u64);
            feed(source.read(position, len as usize, &mut buffer)?);
            position += len;
        }
        return Ok(source.check()?);
    }
    if let Ok(Some(table)) = SeekTable::open(source) {
        return packed_bytes(source, &table, range, feed);
    }
    let mut decoder = match Decoder::new(source, compression, SeekPoint { compressed: 0, uncompressed: 0 }) {
        Ok(decoder) => decoder,
        Err(DecodeError::Source(error)) => return Err(error.into()),
        Err(_) => return Ok(()),
    };
    let mut offset = 0u64;
    while offset < range.end {
        check_cancelled(progress)?;
        let piece = match decoder.piece(|_| {}) {
            Ok(Some(piece)) => piece,
            Err(DecodeError::Source(error)) => return Err(error.into()),
            Ok(None) | Err(_) => break,
        };
        let end = offset + piece.len() as u64;
        let (from, to) = (range.start.clamp(offset, end) - offset, range.end.clamp(offset, end) - offset);
        feed(&piece[from as usize..to as usize]);
        offset = end;
    }
    Ok(())
}

/// Passes the bytes of one range of a packed file to `feed`; those of damaged frames are left out.
fn packed_bytes(
    source: &StoreFile,
    table: &SeekTable,
    range: SegmentLines,
    feed: &mut dyn FnMut(&[u8]),
) -> Result<(), VerifyError> {
    let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
    for frame in (table.frame_at(range.start)..table.frames()).map(|position| table.frame(position)) {
        if frame.uncompressed >= range.end {
            break;
        }
        let mut offset = frame.uncompressed;
        let mut on_piece = |piece: &[u8]| {
            let end = offset + piece.len() as u64;
            let (from, to) = (range.start.clamp(offset, end) - offset, range.end.clamp(offset, end) - offset);
            feed(&piece[from as usize..to as usize]);
            offset = end;
        };
        match reader.feed(source, &frame, &mut buffer, &mut on_piece) {
            Err(FrameError::Source(error)) => return Err(error.into()),
            Ok(()) | Err(FrameError::Damaged(_)) => {}
        }
    }
    Ok(())
}

/// Ends the current range of segment lines: bytes after its last newline are a line.
fn finish_range(line_reader: Option<LineReader>, number: usize, on_line: OnLine<'_>) {
    if let Some(line_reader) = line_reader {
        line_reader.finish(&mut |cut| on_line(number, cut));
    }
}

/// [`VerifyError::Cancelled`] if the caller has cancelled the work.
fn check_cancelled(progress: &Progress) -> Result<(), VerifyError> {
    if progress.cancel.load(Relaxed) { Err(VerifyError::Cancelled) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::access::Access;
    use std::io::Write;

    /// A compressed file gives the same lines and hashes as the plain one, and a broken line where it is cut off.
    #[test]
    fn plain_and_compressed_are_read_alike() {
        let dir = tempfile::tempdir().unwrap();
        let text: Vec<u8> = (0..1000).flat_map(|n| format!("line {n}\n").into_bytes()).chain(*b"last").collect();
        let cut = 10 * "line 0\n".len() as u64;
        let ranges = [SegmentLines { start: 0, end: cut }, SegmentLines { start: cut, end: text.len() as u64 }];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        let lines = |bytes: &[u8], compression, unproven| {
            let path = dir.path().join("f");
            std::fs::write(&path, bytes).unwrap();
            let source = StoreFile::open(&path, Access::pread()).unwrap();
            let mut lines = Vec::new();
            let mut on_line = |number, cut: CutLine<'_>| match cut.body {
                Body::Whole(line) => lines.push((number, cut.offset, line.to_vec())),
                Body::Broken(bytes) => lines.push((number, cut.offset, format!("broken {bytes}").into())),
                Body::Long(..) => panic!("none is long"),
            };
            let hashes = read(
                &source,
                (compression, unproven, LineRules::default()),
                &ranges,
                &Progress::default(),
                &mut on_line,
            )
            .unwrap();
            (lines, hashes)
        };
        let lines_of = |bytes: &[u8], compression| lines(bytes, compression, UnprovenPolicy::Export);
        let plain = lines_of(&text, Compression::None);
        assert_eq!(plain.0.len(), 1001);
        assert_eq!(plain.1[0], crate::hash::xxh3_64(&text[..cut as usize]));
        for unproven in UnprovenPolicy::ALL {
            assert_eq!(lines(&gzip, Compression::Gzip, unproven), plain);
            assert_eq!(lines(&zstd, Compression::Zstd, unproven), plain);
        }
        let (torn, hashes) = lines_of(&gzip[..gzip.len() - 4], Compression::Gzip);
        assert_eq!((torn.len(), torn[1000].2.clone()), (1001, b"broken 4".to_vec()));
        assert_eq!(hashes, plain.1);
        // Not one byte of that member is proven; of two members the first is.
        let (torn, _) = lines(&gzip[..gzip.len() - 4], Compression::Gzip, UnprovenPolicy::Fault);
        assert!(torn.iter().all(|(_, offset, body)| *offset == cut || body.is_empty()), "{torn:?}");
        let torn = [&gzip[..], &gzip[..gzip.len() - 4]].concat();
        let whole = [SegmentLines { start: 0, end: 2 * text.len() as u64 }];
        let path = dir.path().join("f");
        std::fs::write(&path, torn).unwrap();
        let source = StoreFile::open(&path, Access::pread()).unwrap();
        let mut broken = Vec::new();
        let mut on_line = |_, cut: CutLine<'_>| {
            if let Body::Broken(bytes) = cut.body {
                broken.push((cut.offset, bytes));
            }
        };
        let by = (Compression::Gzip, UnprovenPolicy::Fault, LineRules::default());
        let hashes = read(&source, by, &whole, &Progress::default(), &mut on_line).unwrap();
        // The last line of the first member ends in the second, so it belongs to what is not proven.
        assert_eq!(broken, [(text.len() as u64 - 4, text.len() as u64 + 4)]);
        assert_eq!(hashes, [crate::hash::xxh3_64(&text.repeat(2))]);
    }

    #[test]
    fn compressed_files_are_one_task() {
        let (p, z) = (Compression::None, Compression::Zstd);
        assert_eq!(tasks(&[(0, p), (0, p), (1, z), (1, z), (2, z)]), [0..1, 1..2, 2..4, 4..5]);
        assert!(tasks::<usize>(&[]).is_empty());
    }
}
