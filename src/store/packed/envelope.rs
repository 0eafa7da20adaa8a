//! What makes a packed file an ordinary compressed file: its head, and what stands around its seek table.
//!
//! | | zstd (RFC 8878) | gzip (RFC 1952) |
//! |---|---|---|
//! | head | a skippable frame with the name of the format | header of a member, the name in its extra field |
//! | frames | zstd frames | deflate segments of that member |
//! | end of the rows | | an empty last block, CRC-32 and length of the member |
//! | table | a skippable frame | extra fields of empty members, the trailer in one of its own |
//!
//! Every reader of the format passes over the rest, so that it reads the rows and nothing else.

use std::path::Path;

use crate::codec::compression::Compression;
use crate::codec::deflate::LAST_BLOCK;
use crate::sys::access::Access;
use crate::sys::store_file::{StoreFile, StoreFileError};

/// Coding of the frames of a packed file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PackCoding {
    /// zstd frames, in a `.zst` file.
    #[default]
    Zstd,
    /// Deflate segments of one gzip member, in a `.gz` file.
    Gzip,
}

/// Name of the format at the start and at the end of a zstd file.
const ZSTD_NAME: [u8; 8] = *b"OUTPACK\x01";
/// Name of the format at the start and at the end of a gzip file.
const GZIP_NAME: [u8; 8] = *b"OUTPGZI\x01";
/// Magic number of the skippable frames, RFC 8878 section 3.1.2.
const SKIPPABLE: u32 = 0x184d_2a5b;
/// A gzip header that has an extra field and nothing else; OS 255: unknown (RFC 1952 section 2.3).
const MEMBER_START: [u8; 10] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255];
/// Identification of the one subfield of the extra field (RFC 1952 section 2.3.1.1).
const SUBFIELD: [u8; 2] = *b"OP";
/// Bytes of a member before what its subfield holds: header, length of the extra field, identification and length of the
/// subfield.
const BEFORE_PART: u64 = 16;
/// Bytes of a member behind its extra field when it holds no rows: the last block, CRC-32, length.
const EMPTY_END: u64 = 10;
/// Most entries of a directory that [`coding_of_store`] looks at.
const LOOKED_AT_MAX: usize = 1_000;
/// Most bytes of a table in one member: an extra field has at most 65,535.
const PART_BYTES: u64 = 65_531;

impl PackCoding {
    /// Every coding, in the order of the enum.
    pub(crate) const ALL: [PackCoding; 2] = [PackCoding::Zstd, PackCoding::Gzip];

    /// The compression of the file.
    pub(crate) const fn compression(self) -> Compression {
        match self {
            PackCoding::Zstd => Compression::Zstd,
            PackCoding::Gzip => Compression::Gzip,
        }
    }

    /// Name of the format, which ends the table.
    pub(crate) fn magic(self) -> [u8; 8] {
        match self {
            PackCoding::Zstd => ZSTD_NAME,
            PackCoding::Gzip => GZIP_NAME,
        }
    }

    /// Bytes of the head.
    pub(crate) const fn head_bytes(self) -> u64 {
        match self {
            PackCoding::Zstd => 8 + ZSTD_NAME.len() as u64,
            PackCoding::Gzip => BEFORE_PART + GZIP_NAME.len() as u64,
        }
    }

    /// The head, which names the format, so that a file whose end was cut off is still known as a packed one.
    pub(crate) fn head(self) -> Vec<u8> {
        match self {
            PackCoding::Zstd => skippable_frame(&ZSTD_NAME),
            PackCoding::Gzip => member_start(&GZIP_NAME),
        }
    }

    /// Coding of a file that begins with the head of a packed one, or ends with its table; `None` for any other.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn of(source: &StoreFile) -> Result<Option<PackCoding>, StoreFileError> {
        for coding in PackCoding::ALL {
            if coding.has_head(source)? || coding.has_name_at_end(source)? {
                return Ok(Some(coding));
            }
        }
        Ok(None)
    }

    /// Whether a file begins with the head.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn has_head(self, source: &StoreFile) -> Result<bool, StoreFileError> {
        let len = source.len().min(self.head_bytes()) as usize;
        Ok(*source.pread(0, len, &mut Vec::new())? == self.head())
    }

    /// Whether the name of the format stands where it ends the table.
    fn has_name_at_end(self, source: &StoreFile) -> Result<bool, StoreFileError> {
        let name = self.magic();
        let Some(offset) = self.trailer_offset(source.len(), name.len() as u64) else { return Ok(false) };
        Ok(*source.pread(offset, name.len(), &mut Vec::new())? == name)
    }

    /// Offset of the trailer, which ends the table, in a file of so many bytes; `None` if it is too short for one.
    pub(crate) fn trailer_offset(self, file_len: u64, trailer: u64) -> Option<u64> {
        let behind = if self == PackCoding::Gzip { EMPTY_END } else { 0 };
        file_len.checked_sub(trailer + behind).filter(|offset| *offset >= self.head_bytes())
    }
}

/// Whether a file begins or ends as a packed one does.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn is_packed(source: &StoreFile) -> Result<bool, StoreFileError> {
    Ok(PackCoding::of(source)?.is_some())
}

/// Coding of a store that `outpour pack` made, by the first packed file at its top; `None` if there is none among the first
/// files, or they cannot be read.
pub(crate) fn coding_of_store(root: &Path) -> Option<PackCoding> {
    let entries = std::fs::read_dir(root).ok()?.take(LOOKED_AT_MAX).flatten().map(|entry| entry.path());
    entries
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            Compression::of_file_name(name).is_some_and(|compression| compression != Compression::None)
        })
        .find_map(|path| PackCoding::of(&StoreFile::open(&path, Access::pread()).ok()?).ok()?)
}

/// A skippable frame, RFC 8878 section 3.1.2. `content` is shorter than 4 GiB.
fn skippable_frame(content: &[u8]) -> Vec<u8> {
    [&SKIPPABLE.to_le_bytes()[..], &(content.len() as u32).to_le_bytes(), content].concat()
}

/// The start of a member, with a part of the format in its extra field.
fn member_start(part: &[u8]) -> Vec<u8> {
    let mut out = part_lead(part.len() as u64).to_vec();
    out.extend_from_slice(part);
    out
}

/// What stands before a part of so many bytes in a member.
fn part_lead(len: u64) -> [u8; BEFORE_PART as usize] {
    let mut lead = [0; BEFORE_PART as usize];
    lead[..10].copy_from_slice(&MEMBER_START);
    lead[10..12].copy_from_slice(&(len as u16 + 4).to_le_bytes());
    lead[12..14].copy_from_slice(&SUBFIELD);
    lead[14..].copy_from_slice(&(len as u16).to_le_bytes());
    lead
}

/// The end of a member, by the CRC-32 and the length of its rows.
fn member_end((crc, len): (u32, u64)) -> [u8; EMPTY_END as usize] {
    let mut end = [0; EMPTY_END as usize];
    end[..2].copy_from_slice(&LAST_BLOCK);
    end[2..6].copy_from_slice(&crc.to_le_bytes());
    end[6..].copy_from_slice(&(len as u32).to_le_bytes());
    end
}

/// What follows the frames of a file: the end of the rows, and the table. `rows` are CRC-32 and length of the rows of a gzip
/// file.
pub(crate) fn wrap(coding: PackCoding, table: &[u8], trailer: usize, rows: (u32, u64)) -> Vec<u8> {
    if coding == PackCoding::Zstd {
        return skippable_frame(table);
    }
    let mut out = member_end(rows).to_vec();
    let (parts, trailer) = table.split_at(table.len() - trailer);
    for part in parts.chunks(PART_BYTES as usize).chain([trailer]) {
        out.extend(member_start(part));
        out.extend(member_end((0, 0)));
    }
    out
}

/// Where the seek table of a file stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableEnvelope {
    coding: PackCoding,
    /// End of the frames.
    start: u64,
    /// Bytes of the table before its trailer, and of the trailer.
    parts: u64,
    trailer: u64,
}

impl TableEnvelope {
    /// The place of a table of `table` bytes, the trailer included, at the end of a file; `None` if the file is too short.
    pub(crate) fn at_end(coding: PackCoding, file_len: u64, table: u64, trailer: u64) -> Option<TableEnvelope> {
        let mut envelope = TableEnvelope { coding, start: 0, parts: table.checked_sub(trailer)?, trailer };
        envelope.start = file_len.checked_sub(envelope.len()).filter(|start| *start >= coding.head_bytes())?;
        Some(envelope)
    }

    /// End of the frames, from which on the bytes are not theirs.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Bytes from the end of the frames to the end of the file.
    fn len(&self) -> u64 {
        match self.coding {
            PackCoding::Zstd => 8 + self.parts + self.trailer,
            PackCoding::Gzip => {
                let members = self.parts.div_ceil(PART_BYTES) + 1;
                EMPTY_END + members * (BEFORE_PART + EMPTY_END) + self.parts + self.trailer
            }
        }
    }

    /// The parts of a gzip file's table: offset in the table, length, and offset in the file of the member of each.
    fn members(&self) -> impl Iterator<Item = (u64, u64, u64)> + use<> {
        let TableEnvelope { start, parts, trailer, .. } = *self;
        let first = start + EMPTY_END;
        let ends =
            (0..parts.div_ceil(PART_BYTES)).map(move |i| (i * PART_BYTES, PART_BYTES.min(parts - i * PART_BYTES)));
        ends.chain([(parts, trailer)])
            .enumerate()
            .map(move |(i, (offset, len))| (offset, len, first + i as u64 * (BEFORE_PART + EMPTY_END) + offset))
    }

    /// Reads bytes of the table from an offset in it on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(&self, source: &StoreFile, offset: u64, out: &mut [u8]) -> Result<(), StoreFileError> {
        if self.coding == PackCoding::Zstd {
            return source.pread_into(self.start + 8 + offset, out);
        }
        let end = offset + out.len() as u64;
        let first = (offset / PART_BYTES) as usize;
        for (part, len, member) in self.members().skip(first).take_while(|(part, ..)| *part < end) {
            let (from, to) = (offset.max(part), end.min(part + len));
            if from < to {
                let place = &mut out[(from - offset) as usize..(to - offset) as usize];
                source.pread_into(member + BEFORE_PART + (from - part), place)?;
            }
        }
        Ok(())
    }

    /// Whether what stands around the parts of the table is what a pack writes there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn is_intact(&self, source: &StoreFile) -> Result<bool, StoreFileError> {
        let mut buffer = Vec::new();
        if self.coding == PackCoding::Zstd {
            let lead = skippable_frame(&[]);
            let found = source.pread(self.start, 8, &mut buffer)?;
            return Ok(found[..4] == lead[..4] && found[4..] == ((self.parts + self.trailer) as u32).to_le_bytes());
        }
        for (_, len, member) in self.members() {
            let is_start = source.pread(member, BEFORE_PART as usize, &mut buffer)? == part_lead(len);
            let end = source.pread(member + BEFORE_PART + len, EMPTY_END as usize, &mut buffer)?;
            if !is_start || *end != member_end((0, 0)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the rows of a gzip file end with this CRC-32 and length. A zstd file has neither.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn ends_rows(&self, source: &StoreFile, rows: (u32, u64)) -> Result<bool, StoreFileError> {
        match self.coding {
            PackCoding::Zstd => Ok(true),
            PackCoding::Gzip => {
                let mut buffer = Vec::new();
                Ok(*source.pread(self.start, EMPTY_END as usize, &mut buffer)? == member_end(rows))
            }
        }
    }
}
