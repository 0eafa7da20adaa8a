//! A file of a search column: sections of one parameter for some segments. It is written once, and never changed.
//!
//! ```text
//! head       `OUTSRCH\x01`, definition (u64)
//! sections   see `section`, each at a multiple of 8
//! table      56 bytes a section: content, start, end, lines and rows of its segment, bytes of the section, xxh3 of it (u64 each)
//! trailer    place of the table, sections, xxh3 of head and table, `OUTSRCH\x01` (u64 each)
//! ```
//!
//! Sections follow one another in the order of the table. The definition is a hash of the parameter, of the rules that tell which lines
//! are rows, and of the version of all this: a file of another one is of no use, and removed by the next writer.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::OnceLock;

use crate::casts::to_usize;
use crate::error::CorruptIndex;
use crate::hash::xxh3_64;
use crate::index::dir::IndexBytes;
use crate::index::search::section::ColumnSection;
use crate::index::segment::layout::SegmentHeader;
use crate::index::segment_files::ContainerUse;

/// First and last bytes of a file.
pub(crate) const MAGIC: [u8; 8] = *b"OUTSRCH\x01";
/// Bytes of head, trailer and an entry of the table.
const HEAD_BYTES: usize = 16;
const TRAILER_BYTES: usize = 32;
const ENTRY_WORDS: usize = 7;

/// What a section is of: bytes of the store with the rows in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SegmentKey {
    /// xxh3 of the bytes.
    content: u64,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// Lines.
    lines: u64,
    /// Rows.
    pub rows: u64,
}

impl SegmentKey {
    /// The key of a segment.
    pub(crate) fn of(head: &SegmentHeader) -> SegmentKey {
        SegmentKey { content: head.content, start: head.start, end: head.end, lines: head.lines, rows: head.rows }
    }
}

/// An opened file.
pub(crate) struct ColumnFile {
    bytes: IndexBytes,
    /// Sections by what they are of, in the order of the file.
    sections: Vec<(SegmentKey, StoredSection)>,
    places: HashMap<SegmentKey, usize>,
}

/// Where a section lies, and whether its bytes are those that were written.
struct StoredSection {
    range: Range<usize>,
    checksum: u64,
    is_intact: OnceLock<bool>,
}

impl ColumnFile {
    /// Reads the table of a file.
    ///
    /// # Errors
    /// [`CorruptIndex`] if it is damaged, or of another definition.
    pub(crate) fn open(bytes: IndexBytes, definition: u64) -> Result<ColumnFile, CorruptIndex> {
        let stored = bytes.get(8..HEAD_BYTES).map(<[u8]>::to_vec);
        let file = ColumnFile::open_any(bytes)?;
        match stored.is_some_and(|stored| *stored == definition.to_le_bytes()) {
            true => Ok(file),
            false => Err(CorruptIndex("a file of a search column is of another definition")),
        }
    }

    /// Reads the table of a file, whatever its definition.
    ///
    /// # Errors
    /// [`CorruptIndex`] if it is damaged.
    pub(crate) fn open_any(bytes: IndexBytes) -> Result<ColumnFile, CorruptIndex> {
        const DAMAGED: CorruptIndex = CorruptIndex("a file of a search column is damaged");
        let word = |at: usize| bytes.get(at..at + 8).and_then(|word| Some(u64::from_le_bytes(word.try_into().ok()?)));
        let trailer = bytes.len().checked_sub(TRAILER_BYTES).ok_or(DAMAGED)?;
        let is_ours = bytes.starts_with(&MAGIC) && bytes.ends_with(&MAGIC);
        let (table, count, checksum) = (word(trailer), word(trailer + 8), word(trailer + 16));
        let table = table.and_then(|at| bytes.get(usize::try_from(at).ok()?..trailer)).ok_or(DAMAGED)?;
        let of_table = checksum_of(&bytes[..HEAD_BYTES.min(bytes.len())], table);
        let (words, _) = table.as_chunks::<8>();
        let (entries, rest) = words.as_chunks::<ENTRY_WORDS>();
        if !is_ours || checksum != Some(of_table) || !rest.is_empty() || count != Some(entries.len() as u64) {
            return Err(DAMAGED);
        }
        let (mut sections, mut start) = (Vec::with_capacity(entries.len()), HEAD_BYTES);
        for entry in entries {
            let [content, first, end, lines, rows, length, checksum] = entry.map(u64::from_le_bytes);
            let length = usize::try_from(length).map_err(|_| DAMAGED)?;
            let range = start..start.checked_add(length).filter(|end| *end <= trailer - table.len()).ok_or(DAMAGED)?;
            start = range.end.next_multiple_of(8);
            let key = SegmentKey { content, start: first, end, lines, rows };
            sections.push((key, StoredSection { range, checksum, is_intact: OnceLock::new() }));
        }
        let places = sections.iter().enumerate().map(|(place, (key, _))| (*key, place)).collect();
        Ok(ColumnFile { bytes, sections, places })
    }

    /// What the sections are of.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &SegmentKey> {
        self.sections.iter().map(|(key, _)| key)
    }

    /// Bytes of the sections of some segments, and of all.
    pub(crate) fn usage(&self, live: &[SegmentKey]) -> ContainerUse {
        let bytes = |place: usize| self.sections[place].1.range.len() as u64;
        ContainerUse {
            live: live.iter().filter_map(|key| self.places.get(key)).map(|place| bytes(*place)).sum(),
            total: (0..self.sections.len()).map(bytes).sum(),
        }
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes of the section of a segment, verified; `None` if there is none, or it is damaged.
    pub(crate) fn section_bytes(&self, key: &SegmentKey) -> Option<&[u8]> {
        let (_, stored) = &self.sections[*self.places.get(key)?];
        let bytes = self.bytes.get(stored.range.clone())?;
        stored.is_intact.get_or_init(|| xxh3_64(bytes) == stored.checksum).then_some(bytes)
    }

    /// The section of a segment; `None` if there is none, or it is damaged.
    pub(crate) fn section(&self, key: &SegmentKey) -> Option<ColumnSection<'_>> {
        ColumnSection::open(self.section_bytes(key)?, to_usize(key.rows)).ok()
    }
}

/// Checksum of head and table.
fn checksum_of(head: &[u8], table: &[u8]) -> u64 {
    xxh3_64(&[head, table].concat())
}

/// A file that is being written.
pub(crate) struct ColumnFileWriter {
    file: io::BufWriter<File>,
    head: [u8; HEAD_BYTES],
    position: u64,
    table: Vec<u8>,
}

impl ColumnFileWriter {
    /// Begins a file of a definition.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn begin(file: File, definition: u64) -> io::Result<ColumnFileWriter> {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&MAGIC);
        head[8..].copy_from_slice(&definition.to_le_bytes());
        let mut file = io::BufWriter::new(file);
        file.write_all(&head)?;
        Ok(ColumnFileWriter { file, head, position: HEAD_BYTES as u64, table: Vec::new() })
    }

    /// Adds the section of a segment.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn add(&mut self, key: &SegmentKey, section: &[u8]) -> io::Result<()> {
        let padding = section.len().next_multiple_of(8) - section.len();
        self.file.write_all(section)?;
        self.file.write_all(&[0; 8][..padding])?;
        self.position += (section.len() + padding) as u64;
        let SegmentKey { content, start, end, lines, rows } = *key;
        for word in [content, start, end, lines, rows, section.len() as u64, xxh3_64(section)] {
            self.table.extend_from_slice(&word.to_le_bytes());
        }
        Ok(())
    }

    /// Ends the file. It is not synced: what a loss of power leaves of it is found out by its checksums, and made again.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.file.write_all(&self.table)?;
        let count = (self.table.len() / (ENTRY_WORDS * 8)) as u64;
        for word in [self.position, count, checksum_of(&self.head, &self.table)] {
            self.file.write_all(&word.to_le_bytes())?;
        }
        self.file.write_all(&MAGIC)?;
        self.file.flush()
    }
}
