//! Reads parts of a store file again, line by line, and hashes what passes.
//!
//! A stretch is what one segment was made from. Knows no index: offsets and hashes come from whoever asks.

use std::sync::atomic::Ordering::Relaxed;

use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::{DecodeError, Decoder};
use crate::hash::Hasher64;
use crate::limits::READ_BYTES;
use crate::progress::Progress;
use crate::store::packed::frame_reader::{FrameError, FrameReader};
use crate::store::packed::seek_table::{SeekTable, is_packed};
use crate::sys::store_file::StoreFile;
use crate::verify::VerifyError;
use crate::verify::line_reader::{Body, CutLine, LineMark, LineReader};

/// A part of a store file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentLines {
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in it.
    pub end: u64,
}

/// What is told of each line: the number of its stretch, and the line.
pub(crate) type OnLine<'a> = &'a mut dyn FnMut(usize, CutLine<'_>);

/// Parts of files that can be read apart from each other: each stretch of a plain file, all of a compressed one
/// together. `stretches` are (file, …) in store order; the answer holds ranges of them.
pub(crate) fn tasks(stretches: &[(usize, Compression)]) -> Vec<std::ops::Range<usize>> {
    let mut tasks: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, (file, compression)) in stretches.iter().enumerate() {
        match tasks.last_mut() {
            Some(last) if *compression != Compression::None && stretches[last.start].0 == *file => last.end = i + 1,
            _ => tasks.push(i..i + 1),
        }
    }
    tasks
}

/// Reads stretches of one file in their order; the hash (xxh3, 64 bit) of the bytes of each. Bytes that are not there
/// are not hashed, so that the hash tells.
///
/// # Errors
/// When the file cannot be read; damage of a compressed one is a broken line.
pub(crate) fn read(
    source: &StoreFile,
    compression: Compression,
    stretches: &[SegmentLines],
    progress: &Progress,
    on_line: OnLine<'_>,
) -> Result<Vec<u64>, VerifyError> {
    match compression {
        Compression::None => {
            stretches.iter().enumerate().map(|(i, stretch)| plain(source, *stretch, i, progress, on_line)).collect()
        }
        compression => compressed(source, compression, stretches, progress, on_line),
    }
}

fn plain(
    source: &StoreFile,
    stretch: SegmentLines,
    number: usize,
    progress: &Progress,
    on_line: OnLine<'_>,
) -> Result<u64, VerifyError> {
    let mut cutter = LineReader::new(stretch.start, LineMark::Skip);
    let (mut hash, mut buffer) = (Hasher64::new(), Vec::new());
    let end = stretch.end.min(source.len());
    let mut offset = stretch.start.min(end);
    while offset < end {
        reset_line(progress)?;
        let len = (end - offset).min(READ_BYTES as u64);
        let piece = source.read(offset, len as usize, &mut buffer)?;
        hash.update(piece);
        cutter.feed(piece, &mut |cut| on_line(number, cut));
        offset += len;
        progress.scan_done.fetch_add(len, Relaxed);
    }
    cutter.finish(&mut |cut| on_line(number, cut));
    source.check()?;
    Ok(hash.digest())
}

fn compressed(
    source: &StoreFile,
    compression: Compression,
    stretches: &[SegmentLines],
    progress: &Progress,
    on_line: OnLine<'_>,
) -> Result<Vec<u64>, VerifyError> {
    if let Ok(Some(table)) = SeekTable::open(source) {
        return packed(source, &table, stretches, progress, on_line);
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
    let mut walk = LineWalk::new(stretches, on_line);
    let mut compressed = 0;
    let broken = loop {
        reset_line(progress)?;
        let piece = match decoder.piece(|_| {}) {
            Ok(Some(piece)) => piece,
            Ok(None) => break false,
            Err(error) => {
                failed(error)?;
                break true;
            }
        };
        walk.feed(piece);
        let now = decoder.compressed();
        progress.scan_done.fetch_add(now - compressed, Relaxed);
        compressed = now;
        if walk.is_over() {
            break false;
        }
    };
    let no_table = !broken && !walk.is_over() && compression == Compression::Zstd && is_packed(source)?;
    Ok(walk.end(broken, no_table))
}

/// A packed file, frame by frame: one that is damaged is one broken line.
fn packed(
    source: &StoreFile,
    table: &SeekTable,
    stretches: &[SegmentLines],
    progress: &Progress,
    on_line: OnLine<'_>,
) -> Result<Vec<u64>, VerifyError> {
    let mut walk = LineWalk::new(stretches, on_line);
    let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
    for frame in (0..table.frames()).map(|offset| table.frame(offset)) {
        reset_line(progress)?;
        match reader.feed(source, &frame, &mut buffer, &mut |piece| walk.feed(piece)) {
            Ok(()) => {}
            Err(FrameError::Source(error)) => return Err(error.into()),
            Err(FrameError::Damaged(_)) => walk.broken_frame(frame.uncompressed_len),
        }
        progress.scan_done.fetch_add(frame.compressed_len, Relaxed);
    }
    Ok(walk.end(false, false))
}

/// Bytes of a compressed file on their way to the stretches that they belong to.
struct LineWalk<'a, 'b> {
    stretches: &'a [SegmentLines],
    hashes: Vec<Hasher64>,
    number: usize,
    at: u64,
    cutter: Option<LineReader>,
    on_line: OnLine<'b>,
}

impl<'a, 'b> LineWalk<'a, 'b> {
    fn new(stretches: &'a [SegmentLines], on_line: OnLine<'b>) -> LineWalk<'a, 'b> {
        let hashes = vec![Hasher64::new(); stretches.len()];
        let cutter = stretches.first().map(|stretch| LineReader::new(stretch.start, LineMark::Skip));
        LineWalk { stretches, hashes, number: 0, at: 0, cutter, on_line }
    }

    /// The next stretch begins only with its first byte: damage behind the last byte belongs to the one before.
    fn switch_range(&mut self) {
        while self.number + 1 < self.stretches.len() && self.at >= self.stretches[self.number].end {
            finish(self.cutter.take(), self.number, self.on_line);
            self.number += 1;
            self.cutter = Some(LineReader::new(self.stretches[self.number].start, LineMark::Skip));
        }
    }

    fn feed(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            self.switch_range();
            let Some(stretch) = self.stretches.get(self.number).copied() else { break };
            let (number, offset) = (self.number, self.at);
            let until = if offset < stretch.start { stretch.start } else { stretch.end };
            let len = if offset >= stretch.end { rest.len() } else { rest.len().min((until - offset) as usize) };
            let (own, more) = rest.split_at(len);
            if offset >= stretch.start && offset < stretch.end {
                self.hashes[number].update(own);
                if let Some(cutter) = &mut self.cutter {
                    cutter.feed(own, &mut |cut| (self.on_line)(number, cut));
                }
            }
            self.at += len as u64;
            rest = more;
        }
    }

    /// A frame that cannot be read: so many bytes are not there.
    fn broken_frame(&mut self, bytes: u64) {
        self.switch_range();
        let within =
            self.stretches.get(self.number).is_some_and(|stretch| (stretch.start..stretch.end).contains(&self.at));
        if within {
            (self.on_line)(self.number, CutLine { offset: self.at, ended: true, body: Body::Broken(bytes) });
            self.cutter = Some(LineReader::new(self.at + bytes, LineMark::Skip));
        }
        self.at += bytes;
    }

    /// Whether all stretches lie behind.
    fn is_over(&self) -> bool {
        self.stretches.last().is_none_or(|last| self.at > last.end)
    }

    /// The bytes are over: because they are broken, or without the table that a packed file has.
    fn end(mut self, broken: bool, no_table: bool) -> Vec<u64> {
        self.switch_range();
        let (number, on_line) = (self.number, self.on_line);
        match self.cutter {
            Some(cutter) if broken => cutter.break_off(&mut |cut| on_line(number, cut)),
            Some(cutter) if no_table && cutter.is_between_lines() => cutter.break_off(&mut |cut| on_line(number, cut)),
            cutter => finish(cutter, number, on_line),
        }
        self.hashes.iter().map(Hasher64::digest).collect()
    }
}

/// The bytes of one stretch, in pieces.
///
/// # Errors
/// When the file cannot be read. Of a compressed file that cannot be decoded so far there is less.
pub(crate) fn bytes(
    source: &StoreFile,
    compression: Compression,
    stretch: SegmentLines,
    progress: &Progress,
    feed: &mut dyn FnMut(&[u8]),
) -> Result<(), VerifyError> {
    if compression == Compression::None {
        let (mut position, mut buffer) = (stretch.start, Vec::new());
        while position < stretch.end {
            let len = (stretch.end - position).min(READ_BYTES as u64);
            feed(source.read(position, len as usize, &mut buffer)?);
            position += len;
        }
        return Ok(source.check()?);
    }
    if let Ok(Some(table)) = SeekTable::open(source) {
        return packed_bytes(source, &table, stretch, feed);
    }
    let mut decoder = match Decoder::new(source, compression, SeekPoint { compressed: 0, uncompressed: 0 }) {
        Ok(decoder) => decoder,
        Err(DecodeError::Source(error)) => return Err(error.into()),
        Err(_) => return Ok(()),
    };
    let mut offset = 0u64;
    while offset < stretch.end {
        reset_line(progress)?;
        let piece = match decoder.piece(|_| {}) {
            Ok(Some(piece)) => piece,
            Err(DecodeError::Source(error)) => return Err(error.into()),
            Ok(None) | Err(_) => break,
        };
        let end = offset + piece.len() as u64;
        let (from, to) = (stretch.start.clamp(offset, end) - offset, stretch.end.clamp(offset, end) - offset);
        feed(&piece[from as usize..to as usize]);
        offset = end;
    }
    Ok(())
}

/// The bytes of one stretch of a packed file; of damaged frames there are none.
fn packed_bytes(
    source: &StoreFile,
    table: &SeekTable,
    stretch: SegmentLines,
    feed: &mut dyn FnMut(&[u8]),
) -> Result<(), VerifyError> {
    let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
    for frame in (table.frame_at(stretch.start)..table.frames()).map(|position| table.frame(position)) {
        if frame.uncompressed >= stretch.end {
            break;
        }
        let mut offset = frame.uncompressed;
        let mut on_piece = |piece: &[u8]| {
            let end = offset + piece.len() as u64;
            let (from, to) = (stretch.start.clamp(offset, end) - offset, stretch.end.clamp(offset, end) - offset);
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

fn finish(cutter: Option<LineReader>, number: usize, on_line: OnLine<'_>) {
    if let Some(cutter) = cutter {
        cutter.finish(&mut |cut| on_line(number, cut));
    }
}

fn reset_line(progress: &Progress) -> Result<(), VerifyError> {
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
        let stretches = [SegmentLines { start: 0, end: cut }, SegmentLines { start: cut, end: text.len() as u64 }];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        let lines = |bytes: &[u8], compression| {
            let path = dir.path().join("f");
            std::fs::write(&path, bytes).unwrap();
            let source = StoreFile::open(&path, Access::pread()).unwrap();
            let mut lines = Vec::new();
            let mut on_line = |number, cut: CutLine<'_>| match cut.body {
                Body::Whole(line) => lines.push((number, cut.offset, line.to_vec())),
                Body::Broken(bytes) => lines.push((number, cut.offset, format!("broken {bytes}").into())),
                Body::Long(..) => panic!("none is long"),
            };
            let hashes = read(&source, compression, &stretches, &Progress::default(), &mut on_line).unwrap();
            (lines, hashes)
        };
        let plain = lines(&text, Compression::None);
        assert_eq!(plain.0.len(), 1001);
        assert_eq!(plain.1[0], crate::hash::xxh3_64(&text[..cut as usize]));
        assert_eq!(lines(&gzip, Compression::Gzip), plain);
        assert_eq!(lines(&zstd, Compression::Zstd), plain);
        let (torn, hashes) = lines(&gzip[..gzip.len() - 4], Compression::Gzip);
        assert_eq!((torn.len(), torn[1000].2.clone()), (1001, b"broken 4".to_vec()));
        assert_eq!(hashes, plain.1);
    }

    #[test]
    fn compressed_files_are_one_task() {
        let (p, z) = (Compression::None, Compression::Zstd);
        assert_eq!(tasks(&[(0, p), (0, p), (1, z), (1, z), (2, z)]), [0..1, 1..2, 2..4, 4..5]);
        assert!(tasks(&[]).is_empty());
    }
}
