//! The uncompressed bytes of a store file, in pieces, from its start or from any place where decoding can start anew.
//!
//! gzip files are read as members (RFC 1952), zstd files as frames (RFC 8878), as many as there are, empty and skippable
//! ones among them; the start of each is a [`Restart`]. All that was decoded before an error is handed out before the
//! error is, so that a torn file yields its whole lines. Memory is bounded by the two buffers and zstd's window.
//!
//! Nothing here cuts lines, compresses, or decides what a torn file means.

use std::path::PathBuf;

use flate2::{Decompress, FlushDecompress, Status};
use serde::{Deserialize, Serialize};
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use super::source::{Source, SourceError};
use crate::limits::{READ_BYTES, ZSTD_WINDOW_LOG_MAX};

/// How a store file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Coding {
    /// Not at all.
    Plain,
    /// gzip, any number of members.
    Gzip,
    /// zstd, any number of frames.
    Zstd,
}

impl Coding {
    /// By the end of a file's name, exactly in lower case; `None` when it is no store file.
    pub fn of_name(name: &str) -> Option<Coding> {
        match name {
            _ if name.ends_with(".ndjson") => Some(Coding::Plain),
            _ if name.ends_with(".ndjson.gz") => Some(Coding::Gzip),
            _ if name.ends_with(".ndjson.zst") => Some(Coding::Zstd),
            _ => None,
        }
    }
}

/// A place where decoding can start: a member or frame begins here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Restart {
    /// Its offset in the file, in bytes.
    pub compressed: u64,
    /// Uncompressed bytes before it.
    pub uncompressed: u64,
}

/// Why decoding stopped before the end of the file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields say what the messages say
pub enum DecodeError {
    /// The file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It ends in the middle of a member or frame.
    #[error(
        "{} ends at byte {compressed} in the middle of its compressed data (after {uncompressed} uncompressed bytes): \
         it is still being written or was cut off; copy it again",
        path.display()
    )]
    Truncated { path: PathBuf, compressed: u64, uncompressed: u64 },
    /// It is not what its name says, or damaged.
    #[error(
        "{} is damaged near byte {compressed} (after {uncompressed} uncompressed bytes): {reason}; \
         copy or compress it again",
        path.display()
    )]
    Corrupt { path: PathBuf, compressed: u64, uncompressed: u64, reason: String },
    /// Another piece was asked for after an error.
    #[error("{} could not be decoded any further: see the error before", path.display())]
    Stopped { path: PathBuf },
}

/// Decodes a source, piece by piece.
pub struct Decoder<'a> {
    input: Input<'a>,
    from: Restart,
    uncompressed: u64,
    out: Vec<u8>,
    engine: Engine,
    state: State,
}

enum Engine {
    Plain,
    Gzip(Box<Gzip>),
    Zstd(Box<Zstd>),
}

enum State {
    Running,
    /// What was decoded before it has been handed out; the error comes next.
    Failing(DecodeError),
    Failed,
}

/// What one step of an engine came to.
enum Step {
    /// Go on.
    More,
    /// The file ends here, between two members.
    End,
    /// The file ends here, and must not.
    Truncated,
    Corrupt(String),
}

impl<'a> Decoder<'a> {
    /// Decodes from a restart (the default one is the start of the file) to the end that the source had when opened.
    ///
    /// # Errors
    /// [`SourceError::Beyond`] when the source ends before the restart.
    pub fn new(source: &'a Source, coding: Coding, from: Restart) -> Result<Decoder<'a>, DecodeError> {
        source.read(from.compressed, 0, &mut Vec::new())?;
        let engine = match coding {
            Coding::Plain => Engine::Plain,
            Coding::Gzip => Engine::Gzip(Box::new(Gzip::new())),
            Coding::Zstd => Engine::Zstd(Box::new(Zstd::new())),
        };
        let input = Input { source, at: from.compressed, buf: Vec::new(), buf_start: 0, buf_len: 0 };
        Ok(Decoder { input, from, uncompressed: from.uncompressed, out: Vec::new(), engine, state: State::Running })
    }

    /// Uncompressed bytes up to the end of the last piece, counted from the start of the file.
    pub fn uncompressed(&self) -> u64 {
        self.uncompressed
    }

    /// The next 1 to `READ_BYTES` uncompressed bytes, `None` at the end. Calls `passed` for each restart that the piece
    /// reaches after the one it began with, in order; a restart may stand at the very end of the piece.
    ///
    /// A piece of a mapped plain file is the map itself: [`Source::check`] tells whether it was really there.
    ///
    /// # Errors
    /// [`DecodeError`], once all that was decoded before it has been handed out; after that [`DecodeError::Stopped`].
    pub fn piece(&mut self, mut passed: impl FnMut(Restart)) -> Result<Option<&[u8]>, DecodeError> {
        let source = self.input.source;
        match std::mem::replace(&mut self.state, State::Running) {
            State::Running => {}
            State::Failing(error) => return Err(self.fail(error)),
            State::Failed => return Err(self.fail(DecodeError::Stopped { path: source.path().into() })),
        }
        if let Engine::Plain = self.engine {
            let len = (source.len() - self.input.at).min(READ_BYTES as u64);
            if let Err(error) = if len == 0 { source.check() } else { Ok(()) } {
                return Err(self.fail(error.into()));
            }
            let at = self.input.at;
            (self.input.at, self.uncompressed) = (at + len, self.uncompressed + len);
            return match source.read(at, len as usize, &mut self.out) {
                Ok(bytes) => Ok((len > 0).then_some(bytes)),
                Err(error) => {
                    self.state = State::Failed;
                    Err(error.into())
                }
            };
        }

        self.out.resize(READ_BYTES, 0);
        let (mut filled, start) = (0, self.uncompressed);
        while filled < self.out.len() {
            let at = self.input.at;
            let passed = &mut |compressed, filled: usize| {
                if compressed != self.from.compressed {
                    passed(Restart { compressed, uncompressed: start + filled as u64 });
                }
            };
            let step = match &mut self.engine {
                Engine::Gzip(gzip) => gzip.step(&mut self.input, &mut self.out, &mut filled, passed),
                Engine::Zstd(zstd) => zstd.step(&mut self.input, &mut self.out, &mut filled, passed),
                Engine::Plain => Ok(Step::End),
            };
            let (path, uncompressed) = (|| source.path().to_path_buf(), start + filled as u64);
            let error = match step {
                Ok(Step::More) => continue,
                Ok(Step::End) => None,
                Ok(Step::Truncated) => {
                    Some(DecodeError::Truncated { path: path(), compressed: source.len(), uncompressed })
                }
                Ok(Step::Corrupt(reason)) => {
                    Some(DecodeError::Corrupt { path: path(), compressed: at, uncompressed, reason })
                }
                Err(error) => Some(error.into()),
            };
            // A mapped file that was shortened meanwhile looks damaged, or ends in what looks like padding.
            if let Some(error) = source.check().err().map(DecodeError::from).or(error) {
                self.state = State::Failing(error);
            }
            break;
        }
        self.uncompressed = start + filled as u64;
        if filled > 0 {
            return Ok(Some(&self.out[..filled]));
        }
        match std::mem::replace(&mut self.state, State::Running) {
            State::Failing(error) => Err(self.fail(error)),
            _ => Ok(None),
        }
    }

    fn fail(&mut self, error: DecodeError) -> DecodeError {
        self.state = State::Failed;
        error
    }
}

/// The compressed bytes from a place on.
struct Input<'a> {
    source: &'a Source,
    at: u64,
    buf: Vec<u8>,
    buf_start: u64,
    buf_len: usize,
}

impl Input<'_> {
    /// At least `want` bytes (at most `READ_BYTES`), unless the file ends before. The bytes come in the same portions
    /// with a map and without, so that errors do, too.
    fn peek(&mut self, want: usize) -> Result<&[u8], SourceError> {
        let left = (self.source.len() - self.at).min(READ_BYTES as u64) as usize;
        let mut used = self.at - self.buf_start;
        if (self.buf_len as u64).saturating_sub(used) < want.min(left) as u64 {
            self.source.read(self.at, left, &mut self.buf)?;
            (self.buf_start, self.buf_len, used) = (self.at, left, 0);
        }
        let buf = match self.source.map() {
            Some(map) => &map[self.buf_start as usize..],
            None => &self.buf,
        };
        Ok(&buf[(used as usize).min(self.buf_len)..self.buf_len])
    }

    fn is_at_end(&self) -> bool {
        self.at == self.source.len()
    }
}

/// Members of a gzip file. Zeros after a member are padding, as gzip has it (tapes, blocks); unlike gzip, which would
/// ignore it, we read another member that follows them. Anything else is damage.
struct Gzip {
    inflate: Decompress,
    place: Place,
    crc: crc32fast::Hasher,
    /// Of the member's bytes, modulo 2^32 as its trailer has it.
    len: u32,
}

enum Place {
    Header,
    Body,
    Trailer,
    Padding,
}

impl Gzip {
    fn new() -> Gzip {
        Gzip { inflate: Decompress::new(false), place: Place::Header, crc: crc32fast::Hasher::new(), len: 0 }
    }

    fn step(
        &mut self,
        input: &mut Input,
        out: &mut [u8],
        filled: &mut usize,
        passed: &mut impl FnMut(u64, usize),
    ) -> Result<Step, SourceError> {
        match self.place {
            Place::Header if input.is_at_end() => return Ok(Step::End),
            Place::Header => {
                let mut found = gzip_header(input.peek(10)?);
                if let Ok(None) = found {
                    found = gzip_header(input.peek(READ_BYTES)?);
                }
                match found {
                    Ok(Some(len)) => {
                        passed(input.at, *filled);
                        input.at += len as u64;
                        self.inflate.reset(false);
                        (self.crc, self.len) = (crc32fast::Hasher::new(), 0);
                        self.place = Place::Body;
                    }
                    Ok(None) if input.source.len() - input.at < READ_BYTES as u64 => return Ok(Step::Truncated),
                    Ok(None) => return Ok(Step::Corrupt("the header of a gzip member has no end".into())),
                    Err(reason) => return Ok(Step::Corrupt(reason.into())),
                }
            }
            Place::Body => {
                let (taken, made) = (self.inflate.total_in(), self.inflate.total_out());
                let result = self.inflate.decompress(input.peek(1)?, &mut out[*filled..], FlushDecompress::None);
                let (taken, made) = (self.inflate.total_in() - taken, self.inflate.total_out() - made);
                let made = &out[*filled..*filled + made as usize];
                self.crc.update(made);
                self.len = self.len.wrapping_add(made.len() as u32);
                *filled += made.len();
                input.at += taken;
                match result {
                    Ok(Status::StreamEnd) => self.place = Place::Trailer,
                    Ok(_) if taken > 0 || !made.is_empty() => {}
                    Ok(_) if input.is_at_end() => return Ok(Step::Truncated),
                    Ok(_) => return Ok(Step::Corrupt("its deflate data does not go on".into())),
                    Err(_) => return Ok(Step::Corrupt("its deflate data is broken".into())),
                }
            }
            Place::Trailer => {
                let Some(&[c0, c1, c2, c3, l0, l1, l2, l3]) = input.peek(8)?.first_chunk() else {
                    return Ok(Step::Truncated);
                };
                if u32::from_le_bytes([c0, c1, c2, c3]) != self.crc.clone().finalize() {
                    return Ok(Step::Corrupt("the checksum of a gzip member differs".into()));
                }
                if u32::from_le_bytes([l0, l1, l2, l3]) != self.len {
                    return Ok(Step::Corrupt("the length of a gzip member differs".into()));
                }
                input.at += 8;
                self.place = Place::Padding;
            }
            Place::Padding => {
                let bytes = input.peek(1)?;
                let (zeros, seen) = (bytes.iter().take_while(|byte| **byte == 0).count(), bytes.len());
                input.at += zeros as u64;
                if zeros < seen || seen == 0 {
                    self.place = Place::Header;
                }
            }
        }
        Ok(Step::More)
    }
}

/// Length of the gzip header that `bytes` begin with (RFC 1952, 2.3); `None` when more bytes are needed to tell.
fn gzip_header(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    const CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    if bytes.iter().zip(b"\x1f\x8b\x08").any(|(byte, magic)| byte != magic) {
        return Err("no gzip member begins here");
    }
    let Some(head) = bytes.first_chunk::<10>() else { return Ok(None) };
    let flags = head[3];
    if flags & 0xe0 != 0 {
        return Err("the header of a gzip member has unknown flags");
    }
    let mut at = 10;
    if flags & EXTRA != 0 {
        let Some(&[low, high]) = bytes[at..].first_chunk() else { return Ok(None) };
        at += 2 + u16::from_le_bytes([low, high]) as usize;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let Some(end) = bytes.get(at..).and_then(|rest| memchr::memchr(0, rest)) else { return Ok(None) };
            at += end + 1;
        }
    }
    if flags & CRC != 0 {
        let Some(&[low, high]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
        if crc32fast::hash(&bytes[..at]) as u16 != u16::from_le_bytes([low, high]) {
            return Err("the checksum of a gzip header differs");
        }
        at += 2;
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// Frames of a zstd file.
///
/// A call of the library that fails does not say what it had decoded before. So each call is given no more input than
/// the library asked for, which is one block, and none while decoded bytes wait for room: then a failing call has
/// nothing to lose but its own block.
struct Zstd {
    context: DCtx<'static>,
    in_frame: bool,
    /// Input that the next call wants, in bytes.
    wanted: usize,
    /// Decoded bytes wait for room.
    waiting: bool,
}

impl Zstd {
    const MAGIC: u32 = 0xfd2f_b528;
    const MAGIC_SKIPPABLE: u32 = 0x184d_2a50;

    fn new() -> Zstd {
        let mut context = DCtx::create();
        // The library refuses this for a bound that it does not know only; its default is the same.
        let _ = context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX));
        Zstd { context, in_frame: false, wanted: 0, waiting: false }
    }

    fn step(
        &mut self,
        input: &mut Input,
        out: &mut [u8],
        filled: &mut usize,
        passed: &mut impl FnMut(u64, usize),
    ) -> Result<Step, SourceError> {
        if !self.in_frame {
            return self.begin(input, *filled, passed);
        }
        let given = if self.waiting { &[] } else { input.peek(self.wanted)? };
        let given = &given[..given.len().min(self.wanted)];
        let (mut from, mut to) = (InBuffer::around(given), OutBuffer::around(&mut out[*filled..]));
        let result = self.context.decompress_stream(&mut to, &mut from);
        let (taken, made, room) = (from.pos(), to.pos(), to.capacity());
        let stuck = taken == 0 && made == 0 && given.is_empty() && !self.waiting;
        input.at += taken as u64;
        *filled += made;
        self.waiting = made == room;
        match result {
            Ok(0) => (self.in_frame, self.waiting) = (false, false),
            Ok(_) if stuck => return Ok(Step::Truncated),
            Ok(wanted) => self.wanted = wanted.min(READ_BYTES),
            Err(code) => {
                let name = zstd_safe::get_error_name(code);
                let advice =
                    if name.contains("too much memory") { "; recompress it with at most --long=27" } else { "" };
                return Ok(Step::Corrupt(format!("its zstd data is broken ({name}{advice})")));
            }
        }
        Ok(Step::More)
    }

    fn begin(
        &mut self,
        input: &mut Input,
        filled: usize,
        passed: &mut impl FnMut(u64, usize),
    ) -> Result<Step, SourceError> {
        if input.is_at_end() {
            return Ok(Step::End);
        }
        let bytes = input.peek(8)?;
        let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        match (word(0), word(4)) {
            (Some(Zstd::MAGIC), _) => {
                passed(input.at, filled);
                (self.in_frame, self.waiting, self.wanted) = (true, false, 5);
            }
            (Some(magic), len) if magic & !0xf == Zstd::MAGIC_SKIPPABLE => match len {
                Some(len) if 8 + len as u64 <= input.source.len() - input.at => input.at += 8 + len as u64,
                _ => return Ok(Step::Truncated),
            },
            (Some(_), _) => return Ok(Step::Corrupt("no zstd frame begins here".into())),
            (None, _) => return Ok(Step::Truncated),
        }
        Ok(Step::More)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::source::Access;
    use crate::bytes::source::tests::{accesses, file_of};
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Bytes that compress, but not to nothing.
    fn text(len: usize) -> Vec<u8> {
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b"{}:,\"abcdefghij\n"[(random >> 60) as usize]
        };
        (0..len).map(|_| next()).collect()
    }

    struct Decoded {
        bytes: Vec<u8>,
        restarts: Vec<Restart>,
        error: Option<DecodeError>,
    }

    fn decode(source: &Source, coding: Coding, from: Restart) -> Decoded {
        let mut decoder = Decoder::new(source, coding, from).unwrap();
        let mut decoded = Decoded { bytes: Vec::new(), restarts: Vec::new(), error: None };
        loop {
            match decoder.piece(|restart| decoded.restarts.push(restart)) {
                Ok(Some(piece)) => {
                    assert!(!piece.is_empty() && piece.len() <= READ_BYTES);
                    decoded.bytes.extend_from_slice(piece);
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(matches!(decoder.piece(|_| ()), Err(DecodeError::Stopped { .. })));
                    decoded.error = Some(error);
                    break;
                }
            }
        }
        assert_eq!(decoder.uncompressed() - from.uncompressed, decoded.bytes.len() as u64);
        decoded
    }

    /// Decodes bytes by each access, which must agree.
    fn decode_bytes(bytes: &[u8], coding: Coding) -> Decoded {
        let file = file_of(bytes);
        let [a, b] =
            accesses().map(|access| decode(&Source::open(file.path(), access).unwrap(), coding, Restart::default()));
        assert_eq!((&a.bytes, &a.restarts), (&b.bytes, &b.restarts));
        assert_eq!(a.error.as_ref().map(ToString::to_string), b.error.as_ref().map(ToString::to_string));
        a
    }

    #[track_caller]
    fn check(bytes: &[u8], coding: Coding, expected: &[u8], error: &str) {
        let decoded = decode_bytes(bytes, coding);
        assert!(decoded.bytes == expected, "{} bytes for {}", decoded.bytes.len(), expected.len());
        let found = decoded.error.map(|error| error.to_string()).unwrap_or_default();
        assert!(found.contains(error) && found.is_empty() == error.is_empty(), "{found:?}");
    }

    #[test]
    fn names_tell_the_coding() {
        assert_eq!(Coding::of_name("Patient.ndjson"), Some(Coding::Plain));
        assert_eq!(Coding::of_name("Patient.1.ndjson.gz"), Some(Coding::Gzip));
        assert_eq!(Coding::of_name("Patient.ndjson.zst"), Some(Coding::Zstd));
        for name in ["Patient.json", "Patient.NDJSON", "Patient.ndjson.GZ", "Patient.gz", "ndjson", "a.ndjson.bz2", ""]
        {
            assert_eq!(Coding::of_name(name), None, "{name}");
        }
    }

    #[test]
    fn empty_files_are_empty() {
        for coding in [Coding::Plain, Coding::Gzip, Coding::Zstd] {
            check(b"", coding, b"", "");
        }
        check(&gzip(b""), Coding::Gzip, b"", "");
        check(&zstd(b""), Coding::Zstd, b"", "");
    }

    // Several pieces, each by both accesses, in one member and in many.
    #[test]
    fn large_files_come_in_pieces() {
        let bytes = text(5 * READ_BYTES + 12345);
        check(&bytes, Coding::Plain, &bytes, "");
        for (coding, compress) in [(Coding::Gzip, gzip as fn(&[u8]) -> Vec<u8>), (Coding::Zstd, zstd)] {
            check(&compress(&bytes), coding, &bytes, "");
            let many: Vec<u8> = bytes.chunks(70_001).flat_map(compress).collect();
            check(&many, coding, &bytes, "");
        }
    }

    #[test]
    fn gzip_headers_and_padding_as_in_the_wild() {
        let full = flate2::GzBuilder::new()
            .filename("name")
            .comment("comment")
            .extra(vec![0; 70])
            .write(Vec::new(), flate2::Compression::best());
        let mut full = { full }.finish().unwrap();
        check(&full, Coding::Gzip, b"", "");
        // A header checksum is part of the format, though nobody writes it.
        let head = gzip_header(&full).unwrap().unwrap();
        full[3] |= 2;
        let crc = crc32fast::hash(&full[..head]) as u16;
        full.splice(head..head, crc.to_le_bytes());
        check(&full, Coding::Gzip, b"", "");
        full[head] ^= 1;
        check(&full, Coding::Gzip, b"", "checksum of a gzip header");

        let mut padded = gzip(b"one\n");
        padded.resize(padded.len() + 3000, 0);
        check(&padded, Coding::Gzip, b"one\n", "");
        padded.extend(gzip(b"two\n"));
        check(&padded, Coding::Gzip, b"one\ntwo\n", "");
        padded.extend(b"garbage");
        check(&padded, Coding::Gzip, b"one\ntwo\n", "no gzip member begins here");
        check(b"\0\0", Coding::Gzip, b"", "no gzip member begins here");
        check(b"{}\n", Coding::Gzip, b"", "no gzip member begins here");
    }

    #[test]
    fn damage_is_told_from_truncation() {
        let member = gzip(b"one\n");
        for (back, error) in [(1, "length"), (8, "checksum"), (9, "near byte")] {
            let mut broken = member.clone();
            let at = broken.len() - back;
            broken[at] ^= 0x5a;
            assert!(decode_bytes(&broken, Coding::Gzip).error.unwrap().to_string().contains(error), "{back}");
        }
        let mut frame = zstd(b"one\n");
        let last = frame.len() - 1;
        check(&frame[..last], Coding::Zstd, b"one\n", "middle of its compressed data");
        frame[last] ^= 1;
        check(&frame, Coding::Zstd, b"one\n", "checksum");
        check(b"{}\n{}\n", Coding::Zstd, b"", "no zstd frame begins here");
        check(b"{}\n", Coding::Zstd, b"", "middle");
    }

    #[test]
    fn skippable_frames_are_skipped_and_must_be_whole() {
        let skip = |len: u32| [&0x184d_2a5e_u32.to_le_bytes()[..], &len.to_le_bytes(), &vec![7; len as usize]].concat();
        let file = [skip(0), zstd(b"a\n"), skip(3_000_000), zstd(b"b\n"), skip(5)].concat();
        check(&file, Coding::Zstd, b"a\nb\n", "");
        check(&file[..file.len() - 1], Coding::Zstd, b"a\nb\n", "middle");
        check(&file[..file.len() - 6], Coding::Zstd, b"a\nb\n", "middle");
        assert_eq!(decode_bytes(&file, Coding::Zstd).restarts.len(), 2);
    }

    // A frame that wants a window of 2 GiB is refused before memory is taken for it.
    #[test]
    fn huge_windows_are_refused() {
        let frame = [&Zstd::MAGIC.to_le_bytes()[..], &[0, 21 << 3, 1, 0, 0]].concat();
        check(&frame, Coding::Zstd, b"", "--long=27");
    }

    // The last of many blocks is broken: those before it are handed out.
    #[test]
    fn what_stands_before_an_error_is_handed_out() {
        let bytes = text(3 * READ_BYTES);
        for (coding, file) in [(Coding::Gzip, gzip(&bytes)), (Coding::Zstd, zstd(&bytes))] {
            let cut = decode_bytes(&file[..file.len() - 2000], coding);
            assert!(matches!(cut.error, Some(DecodeError::Truncated { .. })));
            let mut broken = file.clone();
            let from = broken.len() - 3000;
            broken[from..].iter_mut().for_each(|byte| *byte ^= 0x5a);
            let broken = decode_bytes(&broken, coding);
            assert!(matches!(broken.error, Some(DecodeError::Corrupt { .. })), "{:?}", broken.error);
            for decoded in [cut, broken] {
                let right = decoded.bytes.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
                assert!(right > bytes.len() - 300_000, "{coding:?}: {right} of {}", bytes.len());
            }
        }
    }

    // The file shrinks between two pieces: the error is the source's, not damage, and not a quiet end in "padding".
    #[test]
    fn a_file_shortened_meanwhile_is_named() {
        let bytes = text(4 * READ_BYTES);
        let split: Vec<u8> = bytes.chunks(READ_BYTES).flat_map(gzip).collect();
        for (coding, file) in [(Coding::Plain, bytes.clone()), (Coding::Gzip, split), (Coding::Zstd, zstd(&bytes))] {
            for access in accesses() {
                let file = file_of(&file);
                let source = Source::open(file.path(), access).unwrap();
                let mut decoder = Decoder::new(&source, coding, Restart::default()).unwrap();
                assert!(decoder.piece(|_| ()).unwrap().is_some());
                file.as_file().set_len(source.len() / 2).unwrap();
                let error = loop {
                    match decoder.piece(|_| ()) {
                        Ok(piece) => assert!(piece.is_some(), "{coding:?} {access:?} ended quietly"),
                        Err(error) => break error,
                    }
                };
                assert!(matches!(error, DecodeError::Source(SourceError::Truncated { .. })), "{error:?}");
            }
        }
    }

    #[test]
    fn a_restart_beyond_the_end_is_an_error() {
        let file = file_of(b"{}\n");
        let source = Source::open(file.path(), Access::called()).unwrap();
        assert!(Decoder::new(&source, Coding::Gzip, Restart { compressed: 4, uncompressed: 0 }).is_err());
        assert!(decode(&source, Coding::Zstd, Restart { compressed: 3, uncompressed: 9 }).bytes.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        // Any split decodes to the same bytes; each member but the first is reported, and from each the tail comes.
        #[test]
        fn splits_restarts_and_truncations(
            lens in proptest::collection::vec(prop_oneof![Just(0), 1..5000_usize], 1..8),
            is_gzip: bool,
            cut: proptest::sample::Index,
            flip: (proptest::sample::Index, u8),
        ) {
            let bytes = text(lens.iter().sum());
            let (coding, compress) = if is_gzip { (Coding::Gzip, gzip as fn(&[u8]) -> Vec<u8>) } else { (Coding::Zstd, zstd as _) };
            let (mut file, mut starts, mut done) = (Vec::new(), Vec::new(), 0);
            for len in lens {
                starts.push(Restart { compressed: file.len() as u64, uncompressed: done as u64 });
                file.extend(compress(&bytes[done..done + len]));
                done += len;
            }
            let whole = decode_bytes(&file, coding);
            prop_assert!(whole.error.is_none());
            prop_assert!(whole.bytes == bytes);
            prop_assert_eq!(&whole.restarts, &starts[1..]);
            let stored = file_of(&file);
            for access in accesses() {
                let source = Source::open(stored.path(), access).unwrap();
                for (at, start) in starts.iter().enumerate() {
                    let tail = decode(&source, coding, *start);
                    prop_assert!(tail.bytes == bytes[start.uncompressed as usize..] && tail.error.is_none());
                    prop_assert_eq!(&tail.restarts, &starts[at + 1..]);
                }
            }

            let cut = cut.index(file.len());
            let torn = decode_bytes(&file[..cut], coding);
            prop_assert!(bytes.starts_with(&torn.bytes));
            let between = starts.iter().any(|start| start.compressed == cut as u64);
            match torn.error {
                None => prop_assert!(between),
                Some(error) => prop_assert!(!between && matches!(error, DecodeError::Truncated { .. }), "{error:?}"),
            }

            let at = flip.0.index(file.len());
            file[at] ^= flip.1;
            decode_bytes(&file, coding);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>, magic in 0..3) {
            let magic: &[u8] = [&b"\x1f\x8b\x08"[..], b"\x28\xb5\x2f\xfd", b""][magic as usize];
            let bytes = [magic, &bytes].concat();
            decode_bytes(&bytes, Coding::Gzip);
            decode_bytes(&bytes, Coding::Zstd);
        }
    }
}
