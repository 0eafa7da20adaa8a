//! Layout of the seek table of a packed file. No other file knows it; `envelope` knows where in the file it stands.
//!
//! All integers are little-endian. The table holds, in this order: the offsets of all frames and of their common end
//! (`u64` compressed, `u64` uncompressed), their hashes (`u64`), least and greatest lastUpdated (`i64` each), numbers
//! of rows (`u32`), in a gzip file the CRC-32 of their rows (`u32`), the row lengths (`u32`, zstd), the prior owners
//! recorded for DELETE entries, the names of these owners, and a trailer of fixed size with counts, instants, the
//! checksum of all before it and the name of the format.

use crate::fhir::id::Id;
use crate::fhir::instant::NO_INSTANT;
use crate::fhir::resource_type::ResourceType;
use crate::hash::{Hasher64, xxh3_64};
use crate::limits::{PACKED_FILE_BYTES, PACKED_FRAMES_MAX, PACKED_ROWS_MAX};
use crate::store::packed::envelope::{self, PackCoding, TableEnvelope};
use crate::sys::little_endian::{bytes_of, bytes_of_mut};
use crate::sys::store_file::{StoreFile, StoreFileError};

/// Version of the layout.
pub(crate) const VERSION: u64 = 1;
/// Number of `u64` words of the trailer.
const TRAILER_WORDS: usize = 14;
/// Bytes of the trailer at the end of the file.
pub(crate) const TRAILER_BYTES: usize = TRAILER_WORDS * 8;
/// Bytes of one entry of a prior owner.
const LEFT_BYTES: usize = 24;
/// Bytes of a table that are skipped at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Sentinel for an owner: the dropped version that the DELETE entry ended had no owner.
pub(crate) const NOBODY: u32 = u32::MAX;
/// Sentinel for an owner: a later version followed the DELETE entry, so that the entry no longer deletes anything.
pub(crate) const FOLLOWED: u32 = u32::MAX - 1;

/// Sentinel for an owner: the dropped version came late, and the instant of this entry is not its lastUpdated but T of
/// the first snapshot that held it. It is the last entry of its DELETE entry.
pub(crate) const LATE: u32 = u32::MAX - 2;

/// How the rows of a frame are compressed, and what proves them beside the hash of the compressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameCoding {
    /// A zstd frame, with a checksum of its own.
    Zstd,
    /// A deflate segment: blocks of a gzip member, none of them its last, that end on a byte boundary and refer to nothing
    /// before the first (RFC 1951). `crc` is the CRC-32 of its uncompressed bytes.
    Deflate {
        /// CRC-32 of the uncompressed bytes (RFC 1952 section 8).
        crc: u32,
    },
}

/// The entry of a frame in the seek table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// How its rows are compressed.
    pub coding: FrameCoding,
    /// Offset of its first byte in the file.
    pub compressed: u64,
    /// Length in the file, in bytes.
    pub compressed_len: u64,
    /// Uncompressed bytes of all frames before it.
    pub uncompressed: u64,
    /// Uncompressed length, in bytes.
    pub uncompressed_len: u64,
    /// xxh3 (64 bit) of its bytes in the file.
    pub hash: u64,
    /// Least lastUpdated of its rows in ticks, `i64::MAX` when none has one.
    pub least: i64,
    /// Greatest lastUpdated of its rows in ticks, the sentinel for none when none has one.
    pub greatest: i64,
    /// Number of rows (lines) of the frame.
    pub rows: u32,
}

/// A prior owner: an owner of the version that a DELETE entry ended, recorded because the pack dropped that version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriorOwnerRecord {
    /// Index of the frame that holds the DELETE entry.
    pub frame: u32,
    /// Index of the DELETE entry in the frame.
    pub entry: u32,
    /// lastUpdated of the version, in ticks, or the sentinel for none; see [`LATE`].
    pub updated: i64,
    /// Index among the names, [`NOBODY`], [`FOLLOWED`] or [`LATE`].
    pub owner: u32,
}

/// The seek table of a packed file, as read, or as a writer collects it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeekTable {
    coding: PackCoding,
    /// The one resource type of the rows; `None` when the table names no known type.
    pub resource_type: Option<ResourceType>,
    /// transactionTime of the pack, in ticks: versions superseded before it may have been dropped.
    pub packed_at: i64,
    /// T of the first snapshot of the index that was packed, in ticks.
    pub birth: Option<i64>,
    /// Greatest T of its snapshots, in ticks.
    pub latest: Option<i64>,
    /// T of the first snapshot that held these rows, in ticks.
    pub first_seen: Option<i64>,
    places: Vec<u64>,
    hashes: Vec<u64>,
    least: Vec<i64>,
    greatest: Vec<i64>,
    rows: Vec<u32>,
    /// CRC-32 of the rows of each frame; empty in a zstd file.
    crcs: Vec<u32>,
    /// Prior owners of DELETE entries, sorted by frame and entry.
    pub left: Vec<PriorOwnerRecord>,
    /// Reference base and id of the prior owners.
    pub names: Vec<(String, Id)>,
}

/// Why the table of a file that begins as a packed one cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file cannot be read.
    #[error(transparent)]
    Source(#[from] StoreFileError),
    /// The table is missing or damaged; the text says how.
    #[error("{0}")]
    Damaged(&'static str),
}

/// Ticks of the trailer; `None` for the sentinel.
fn optional(ticks: i64) -> Option<i64> {
    (ticks != NO_INSTANT).then_some(ticks)
}

impl SeekTable {
    /// A table without frames.
    pub(crate) fn new(coding: PackCoding) -> SeekTable {
        SeekTable { coding, ..SeekTable::default() }
    }

    /// Coding of the frames.
    pub(crate) fn coding(&self) -> PackCoding {
        self.coding
    }

    /// Number of frames of the file.
    pub fn frames(&self) -> usize {
        self.hashes.len()
    }

    /// Number of rows of all frames.
    pub fn rows(&self) -> u64 {
        self.rows.iter().map(|rows| u64::from(*rows)).sum()
    }

    /// Uncompressed bytes of all frames.
    pub fn uncompressed_len(&self) -> u64 {
        self.places.last().copied().unwrap_or(0)
    }

    /// Offset in the file at which the frames end and the table begins.
    pub fn compressed_end(&self) -> u64 {
        self.places.len().checked_sub(2).map_or(self.coding.head_bytes(), |i| self.places[i])
    }

    /// The entry of frame `i`.
    pub fn frame(&self, i: usize) -> FrameInfo {
        let places = &self.places[i * 2..i * 2 + 4];
        FrameInfo {
            coding: match self.coding {
                PackCoding::Zstd => FrameCoding::Zstd,
                PackCoding::Gzip => FrameCoding::Deflate { crc: self.crcs[i] },
            },
            compressed: places[0],
            compressed_len: places[2] - places[0],
            uncompressed: places[1],
            uncompressed_len: places[3] - places[1],
            hash: self.hashes[i],
            least: self.least[i],
            greatest: self.greatest[i],
            rows: self.rows[i],
        }
    }

    /// The first frame that ends behind an uncompressed offset; the number of frames when none does.
    pub fn frame_at(&self, offset: u64) -> usize {
        let (places, _) = self.places.as_chunks::<2>();
        places.partition_point(|[_, uncompressed]| *uncompressed <= offset).saturating_sub(1).min(self.frames())
    }

    /// Adds a frame behind the last one.
    pub(crate) fn push(&mut self, frame: NewFrame) {
        if self.places.is_empty() {
            self.places.extend([self.coding.head_bytes(), 0]);
        }
        let (compressed, uncompressed) = (self.compressed_end(), self.uncompressed_len());
        self.places.extend([compressed + frame.compressed_len, uncompressed + frame.uncompressed_len]);
        self.hashes.push(frame.hash);
        self.least.push(frame.updated.0);
        self.greatest.push(frame.updated.1);
        self.rows.push(frame.rows);
        if self.coding == PackCoding::Gzip {
            self.crcs.push(frame.crc);
        }
    }

    /// CRC-32 and length of all rows of a gzip file.
    fn sum_of_rows(&self) -> (u32, u64) {
        let mut sum = crc32fast::Hasher::new();
        for (i, crc) in self.crcs.iter().enumerate() {
            let places = &self.places[i * 2..i * 2 + 4];
            sum.combine(&crc32fast::Hasher::new_with_initial_len(*crc, places[3] - places[1]));
        }
        (sum.finalize(), self.uncompressed_len())
    }

    /// Encodes what stands behind the frames, to the end of the file, given the length of each row.
    ///
    /// # Errors
    /// When zstd fails to compress, or the table exceeds 4 GiB.
    pub(crate) fn to_bytes(&self, row_lengths: &[u32]) -> std::io::Result<Vec<u8>> {
        let mut places = self.places.clone();
        if places.is_empty() {
            places.extend([self.coding.head_bytes(), 0]);
        }
        let lengths = zstd::bulk::compress(bytes_of(row_lengths), 3)?;
        let mut out = Vec::new();
        out.extend_from_slice(bytes_of(&places));
        out.extend_from_slice(bytes_of(&self.hashes));
        out.extend_from_slice(bytes_of(&self.least));
        out.extend_from_slice(bytes_of(&self.greatest));
        out.extend_from_slice(bytes_of(&self.rows));
        out.extend_from_slice(bytes_of(&self.crcs));
        out.extend_from_slice(&lengths);
        for left in &self.left {
            for word in [left.frame, left.entry, left.owner, 0] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.extend_from_slice(&left.updated.to_le_bytes());
        }
        let names_at = out.len();
        for (base, id) in &self.names {
            out.extend_from_slice(&(base.len() as u32).to_le_bytes());
            out.extend_from_slice(&(id.as_bytes().len() as u32).to_le_bytes());
            out.extend_from_slice(base.as_bytes());
            out.extend_from_slice(id.as_bytes());
        }
        let names_bytes = out.len() - names_at;
        let instant = |ticks: Option<i64>| ticks.unwrap_or(NO_INSTANT) as u64;
        let words = [
            VERSION,
            self.frames() as u64,
            row_lengths.len() as u64,
            lengths.len() as u64,
            self.left.len() as u64,
            self.names.len() as u64,
            names_bytes as u64,
            self.resource_type.map_or(u64::MAX, |t| t.index() as u64),
            self.packed_at as u64,
            instant(self.birth),
            instant(self.latest),
            instant(self.first_seen),
        ];
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&self.coding.magic());
        if u32::try_from(out.len()).is_err() {
            return Err(std::io::Error::other("a table of more than 4 GiB"));
        }
        Ok(envelope::wrap(self.coding, &out, TRAILER_BYTES, self.sum_of_rows()))
    }

    /// The table of a file; `None` when the file does not begin as a packed one.
    ///
    /// # Errors
    /// When the file cannot be read, or its table is missing or damaged; the frames may be sound all the same.
    pub fn open(source: &StoreFile) -> Result<Option<SeekTable>, TableError> {
        let Some(coding) = PackCoding::of(source)? else { return Ok(None) };
        parse(source, coding, false).map(|(table, _)| Some(table))
    }

    /// The table of a packed file and the length of each of its rows.
    ///
    /// # Errors
    /// As [`SeekTable::open`].
    pub fn open_with_lengths(source: &StoreFile) -> Result<Option<(SeekTable, Vec<u32>)>, TableError> {
        let Some(coding) = PackCoding::of(source)? else { return Ok(None) };
        let (table, coded) = parse(source, coding, true)?;
        let damaged = || TableError::Damaged("the row lengths cannot be decoded");
        let rows = table.rows() as usize;
        let bytes = zstd::bulk::decompress(&coded, rows * 4).map_err(|_| damaged())?;
        let (lengths, rest) = bytes.as_chunks::<4>();
        if lengths.len() != rows || !rest.is_empty() {
            return Err(damaged());
        }
        Ok(Some((table, lengths.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())))
    }
}

/// A frame to be added to a table.
pub(crate) struct NewFrame {
    /// Length in the file, in bytes.
    pub compressed_len: u64,
    /// Uncompressed length, in bytes.
    pub uncompressed_len: u64,
    /// xxh3 (64 bit) of its bytes in the file.
    pub hash: u64,
    /// CRC-32 of its uncompressed bytes; not looked at in a zstd file.
    pub crc: u32,
    /// Least and greatest lastUpdated of its rows in ticks.
    pub updated: (i64, i64),
    /// Number of rows.
    pub rows: u32,
}

/// Reads the parts of a table in order, copied, so that the checked bytes are the used ones even if the file changes.
struct TableReader<'a> {
    source: &'a StoreFile,
    envelope: TableEnvelope,
    /// Bytes of the table read so far.
    at: u64,
    sum: Hasher64,
}

impl TableReader<'_> {
    /// Reads the next bytes of the table into `part`, and adds them to the checksum.
    fn fill(&mut self, part: &mut [u8]) -> Result<(), StoreFileError> {
        self.envelope.read(self.source, self.at, part)?;
        self.sum.update(part);
        self.at += part.len() as u64;
        Ok(())
    }

    /// Reads the next `len` bytes of the table.
    fn bytes(&mut self, len: usize) -> Result<Vec<u8>, StoreFileError> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Skips a part that the caller does not need, but adds it to the checksum.
    fn skip_bytes(&mut self, len: usize) -> Result<Vec<u8>, StoreFileError> {
        let mut piece = vec![0; len.min(PIECE_BYTES)];
        let mut left = len;
        while left > 0 {
            let now = left.min(PIECE_BYTES);
            self.fill(&mut piece[..now])?;
            left -= now;
        }
        Ok(Vec::new())
    }
}

/// Reads the table at the end of a file that begins as a packed one, and with `lengths_too` the compressed row lengths.
fn parse(source: &StoreFile, coding: PackCoding, lengths_too: bool) -> Result<(SeekTable, Vec<u8>), TableError> {
    let damaged = TableError::Damaged;
    if !coding.has_head(source)? {
        return Err(damaged("the file ends as a packed one and does not begin so"));
    }
    // 1. The trailer, with the sizes of the parts.
    let Some(trailer_at) = coding.trailer_offset(source.len(), TRAILER_BYTES as u64) else {
        return Err(damaged("the file ends before its table"));
    };
    let mut buffer = Vec::new();
    let trailer: Vec<u64> = words(source.pread(trailer_at, TRAILER_BYTES, &mut buffer)?);
    if trailer[TRAILER_WORDS - 1] != u64::from_le_bytes(coding.magic()) {
        return Err(damaged("the file does not end with a table: it was cut off, or appended to"));
    }
    if trailer[0] != VERSION {
        return Err(damaged("the table is of another format version"));
    }
    let [frames, rows, lengths, left, names, names_bytes] = *trailer[1..7].first_chunk().expect("six words");
    if frames > PACKED_FRAMES_MAX || rows > PACKED_ROWS_MAX {
        return Err(damaged("the table has more frames or rows than a packed file may have"));
    }
    // Each term is below 2^32 once it is known to lie in the file, so that the sum cannot overflow.
    let reader = [lengths, left, names, names_bytes];
    if reader.iter().any(|part| *part > source.len().min(u64::from(u32::MAX))) {
        return Err(damaged("the table is longer than the file"));
    }
    let crcs = if coding == PackCoding::Gzip { frames } else { 0 };
    let payload = (frames + 1) * 16
        + frames * 28
        + crcs * 4
        + lengths
        + left * LEFT_BYTES as u64
        + names_bytes
        + TRAILER_BYTES as u64;
    let envelope = (payload <= u64::from(u32::MAX))
        .then(|| TableEnvelope::at_end(coding, source.len(), payload, TRAILER_BYTES as u64))
        .flatten()
        .ok_or(damaged("the table is longer than the file"))?;
    // 2. What stands around the table.
    if !envelope.is_intact(source)? {
        return Err(damaged("no table begins where it should"));
    }
    let offset = envelope.start();
    let mut reader = TableReader { source, envelope, at: 0, sum: Hasher64::new() };
    // 3. The parts, in order, and the checksum over them.
    let count = frames as usize;
    let mut table = SeekTable {
        coding,
        resource_type: usize::try_from(trailer[7]).ok().and_then(ResourceType::from_index),
        packed_at: trailer[8] as i64,
        birth: optional(trailer[9] as i64),
        latest: optional(trailer[10] as i64),
        first_seen: optional(trailer[11] as i64),
        places: vec![0; (count + 1) * 2],
        hashes: vec![0; count],
        least: vec![0; count],
        greatest: vec![0; count],
        rows: vec![0; count],
        crcs: vec![0; crcs as usize],
        ..SeekTable::default()
    };
    reader.fill(bytes_of_mut(&mut table.places))?;
    reader.fill(bytes_of_mut(&mut table.hashes))?;
    reader.fill(bytes_of_mut(&mut table.least))?;
    reader.fill(bytes_of_mut(&mut table.greatest))?;
    reader.fill(bytes_of_mut(&mut table.rows))?;
    reader.fill(bytes_of_mut(&mut table.crcs))?;
    let coded = match lengths_too {
        true => reader.bytes(lengths as usize)?,
        false => reader.skip_bytes(lengths as usize)?,
    };
    let left = reader.bytes(left as usize * LEFT_BYTES)?;
    let text = reader.bytes(names_bytes as usize)?;
    reader.sum.update(bytes_of(&trailer[..TRAILER_WORDS - 2]));
    source.check()?;
    if reader.sum.digest() != trailer[TRAILER_WORDS - 2] {
        return Err(damaged("the checksum of the table does not hold"));
    }
    // 4. Owners, names, and the relations that later indexing relies on.
    table.left = left.chunks_exact(LEFT_BYTES).map(read_prior_owner).collect();
    table.names = owner_names(&text).ok_or(damaged("the owners of the table cannot be read"))?;
    check_table(&table, offset, rows, names)?;
    if !reader.envelope.ends_rows(source, table.sum_of_rows())? {
        return Err(damaged("the checksum or the length of its rows is another"));
    }
    Ok((table, coded))
}

/// The little-endian `u64` words of the trailer.
fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}

/// Reads one entry of a prior owner, 24 bytes.
fn read_prior_owner(bytes: &[u8]) -> PriorOwnerRecord {
    let word = |offset: usize| u32::from_le_bytes(*bytes[offset..].first_chunk().expect("24 bytes"));
    let updated = i64::from_le_bytes(*bytes[16..].first_chunk().expect("24 bytes"));
    PriorOwnerRecord { frame: word(0), entry: word(4), owner: word(8), updated }
}

/// Reads bases and ids of the owners; `None` when a length or an id is illegal.
fn owner_names(mut bytes: &[u8]) -> Option<Vec<(String, Id)>> {
    let mut names = Vec::new();
    while !bytes.is_empty() {
        let word = |offset: usize| Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?) as usize);
        let (base, id) = (word(0)?, word(4)?);
        let text = bytes.get(8..8usize.checked_add(base)?.checked_add(id)?)?;
        let base_text = str::from_utf8(&text[..base]).ok()?.to_string();
        names.push((base_text, Id::parse(&text[base..])?));
        bytes = &bytes[8 + base + id..];
    }
    Some(names)
}

/// Checks that frames ascend and fill the file, counts agree, and prior owners are sorted and in range.
fn check_table(table: &SeekTable, table_at: u64, rows: u64, names: u64) -> Result<(), TableError> {
    let (places, _) = table.places.as_chunks::<2>();
    let ascending = places.windows(2).all(|pair| pair[0][0] < pair[1][0] && pair[0][1] < pair[1][1]);
    let whole =
        places.first() == Some(&[table.coding.head_bytes(), 0]) && places.last().is_some_and(|end| end[0] == table_at);
    // A file is full at one length, but for one row.
    let is_long = table.uncompressed_len() > PACKED_FILE_BYTES + u64::from(u32::MAX) + 2;
    if !ascending || !whole || is_long || table.rows() != rows || table.names.len() as u64 != names {
        return Err(TableError::Damaged("the places of the table do not fit the file"));
    }
    let sound = table.left.iter().all(|left| {
        (left.frame as usize) < table.frames()
            && ((left.owner as usize) < table.names.len() || matches!(left.owner, NOBODY | FOLLOWED | LATE))
    });
    let ordered = table.left.is_sorted_by_key(|left| (left.frame, left.entry));
    if sound && ordered { Ok(()) } else { Err(TableError::Damaged("an owner of the table leads nowhere")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::access::Access;
    use std::io::Write;

    /// Two frames of three rows, and two prior owners; `names` further ones make the table longer.
    fn table(coding: PackCoding, names: usize) -> (SeekTable, Vec<u32>) {
        let mut table = SeekTable {
            resource_type: Some(ResourceType::PATIENT),
            packed_at: 77,
            birth: Some(3),
            latest: Some(9),
            first_seen: None,
            ..SeekTable::new(coding)
        };
        let frame = NewFrame { compressed_len: 100, uncompressed_len: 400, hash: 7, crc: 5, updated: (1, 5), rows: 2 };
        table.push(NewFrame { ..frame });
        let updated = (i64::MAX, NO_INSTANT);
        table.push(NewFrame { compressed_len: 50, uncompressed_len: 600, hash: 8, crc: 6, updated, rows: 1 });
        table.left = vec![
            PriorOwnerRecord { frame: 0, entry: 1, updated: 12, owner: 0 },
            PriorOwnerRecord { frame: 1, entry: 0, updated: NO_INSTANT, owner: NOBODY },
        ];
        let base = "https://example.org/fhir";
        table.names = (0..=names).map(|n| (base.into(), Id::parse(format!("a-{n}").as_bytes()).unwrap())).collect();
        (table, vec![150, 248, 599])
    }

    fn file(bytes: &[u8]) -> StoreFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        StoreFile::open(file.path(), Access::pread()).unwrap()
    }

    /// A file whose frames are no frames, and the offset of their end.
    fn packed(coding: PackCoding, names: usize) -> (Vec<u8>, usize) {
        let (table, lengths) = table(coding, names);
        let mut bytes = coding.head();
        bytes.resize(bytes.len() + 150, 0x55);
        let end = bytes.len();
        bytes.extend(table.to_bytes(&lengths).unwrap());
        (bytes, end)
    }

    /// The table reads back, in a gzip file also if it takes several members.
    #[test]
    fn a_table_reads_back() {
        for (coding, names) in [(PackCoding::Zstd, 0), (PackCoding::Gzip, 0), (PackCoding::Gzip, 5_000)] {
            let (bytes, end) = packed(coding, names);
            let (expected, lengths) = table(coding, names);
            let (found, found_lengths) = SeekTable::open_with_lengths(&file(&bytes)).unwrap().unwrap();
            assert_eq!((&found, found_lengths), (&expected, lengths));
            assert_eq!((found.rows(), found.uncompressed_len(), found.compressed_end()), (3, 1000, end as u64));
            let position: Vec<usize> = [0, 399, 400, 999, 1000, 5000].map(|offset| found.frame_at(offset)).to_vec();
            assert_eq!(position, [0, 0, 1, 1, 2, 2]);
        }
        assert!(SeekTable::open(&file(b"{}\n")).unwrap().is_none());
        assert!(SeekTable::open(&file(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0")).unwrap().is_none());
    }

    /// Every single changed byte behind the frames is noticed, and so is every cut and every appended byte.
    #[test]
    fn damage_is_noticed() {
        for coding in PackCoding::ALL {
            let (bytes, end) = packed(coding, 0);
            for i in end..bytes.len() {
                let mut broken = bytes.clone();
                broken[i] ^= 0x10;
                let opened = SeekTable::open(&file(&broken));
                assert!(matches!(opened, Err(TableError::Damaged(_))), "{coding:?}, byte {i} of {}", bytes.len());
            }
            for len in coding.head_bytes() as usize..bytes.len() {
                assert!(SeekTable::open(&file(&bytes[..len])).is_err(), "{coding:?}, cut to {len}");
            }
            assert!(SeekTable::open(&file(&[&bytes[..], b"x"].concat())).is_err());
            // A file that ends as a packed one, and does not begin so, is not taken for one that never was.
            for i in 0..coding.head_bytes() as usize {
                let mut broken = bytes.clone();
                broken[i] ^= 1;
                assert!(SeekTable::open(&file(&broken)).is_err(), "{coding:?}, byte {i}");
            }
            // A member that is appended is one more, not part of the table.
            let member = [&bytes[..], &crate::codec::decoder::tests::gzip(b"{}\n")].concat();
            assert!(SeekTable::open(&file(&member)).is_err());
        }
    }
}
