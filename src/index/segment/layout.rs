//! Layout of a segment on disk: a header, page checksums, then columns, each aligned to 8 bytes. No other file knows
//! it.
//!
//! All integers are little-endian. Offsets derive from the lengths before them. A reader checks magic, version, lengths
//! and the checksum of the header here, and each page when it first reads it (`page_checksums`). Tests compare
//! `src/docs/format.md` with [`COLUMNS`] and [`SegmentHeader`].

use crate::casts::{to_u32, to_usize};
use crate::fhir::resource_type::ResourceType;
use crate::index::page_checksums::{PageChecksums, checksum, checksum_count, write_checksums};
use crate::sys::little_endian::words;

/// Magic bytes at the start of a segment.
pub const MAGIC: [u8; 8] = *b"OUTPOUR\x01";
/// Version of the layout; another version is rebuilt from the store, never converted.
pub const VERSION: u32 = 6;

/// Description of a column, as `inspect` and the format document print it.
pub(crate) struct ColumnInfo {
    /// Name as `inspect` and the format document print it.
    pub name: &'static str,
    /// Bytes of one element.
    pub width: usize,
    /// The item that each element belongs to.
    pub per: &'static str,
    /// Meaning, as the format document states it; a test compares the two.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that compares the format document"))]
    pub holds: &'static str,
}

macro_rules! columns {
    ($($column:ident $name:literal $width:literal $per:literal $holds:literal;)*) => {
        /// The columns of a segment, in the order they lie in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        #[allow(missing_docs)]
        pub enum Column { $($column),* }
        /// Descriptions of the columns, in their order.
        pub(crate) const COLUMNS: &[ColumnInfo] = &[
            $(ColumnInfo { name: $name, width: $width, per: $per, holds: $holds }),*
        ];
        /// All columns in their order.
        pub(crate) const ALL_COLUMNS: [Column; COLUMNS.len()] = [$(Column::$column),*];
    };
}

columns! {
    Place "place" 8 "row" "two u32: start of the line, from the start of the segment; bytes of the line without its end";
    LastUpdated "last_updated" 8 "row" "i64 of 100 ns ticks since 1970, least value for none";
    VersionId "version" 8 "row" "numeric versionId plus one, 0 for none, top bit: length and place in the heap";
    Id "id" 16 "row" "packed id";
    Type "type" 1 "row" "place of the resource type in the order of names";
    Flags "flags" 1 "row" "see the flags below";
    LineHash "line_hash" 8 "row" "xxh3 of the line without its end";
    OwnerStart "owner_start" 4 "row, and one more" "first of the row's owners";
    Owner "owner" 4 "row and owner" "place in the segment's owner dictionary";
    PostingStart "posting_start" 4 "owner, and one more" "first of the owner's rows";
    Posting "posting" 4 "row and owner" "a row of the owner, ascending";
    Several "several" 4 "row of several owners" "its number";
    UpdatedMax "updated_max" 8 "64 rows, the last ones included" "greatest last_updated among them, greatest value if one has none";
    SortedHash "sorted_hash" 8 "row, tombstone, target, reference, identifier" "hash of (type, id) or of (type, identifier), ascending";
    SortedRef "sorted_ref" 4 "row, tombstone, target, reference, identifier" "its number; the three top bits tell which: 0 row, 4 tombstone, 6 target, 2 reference, 3 identifier";
    OwnerHash "owner_hash" 8 "owner" "hash of (base, id), ascending";
    OwnerId "owner_id" 16 "owner" "packed id";
    OwnerBase "owner_base" 4 "owner" "reference base, two top bits: class of the id";
    Base "base" 8 "base" "place and length of its text in the heap; the first is the empty one";
    BaseCount "base_count" 8 "base" "references to patients under it";
    TombType "tombstone_type" 1 "tombstone" "as type";
    TombId "tombstone_id" 16 "tombstone" "packed id";
    TombBase "tombstone_base" 4 "tombstone" "reference base, two top bits: class of the id";
    TombUpdated "tombstone_last_updated" 8 "tombstone" "as last_updated";
    TombLeft "tombstone_left" 16 "owner of a version that has left" "two u32: tombstone, owner or a sentinel; i64: last_updated of the version";
    TargetRow "target_row" 4 "target" "the Provenance row that names it";
    TargetType "target_type" 1 "target" "as type";
    TargetId "target_id" 16 "target" "packed id";
    TargetBase "target_base" 4 "target" "reference base, two top bits: class of the id";
    ReferenceSet "reference_set" 4 "row of a segment with references" "its set of references, 0 for none";
    SetStart "set_start" 4 "set of references, and one more" "first reference of the set";
    SetReference "set_reference" 4 "set and reference" "place in the segment's references, ascending; that of an attachment as often as its URL stands in the row";
    ReferenceType "reference_type" 1 "reference" "as type";
    ReferenceId "reference_id" 16 "reference" "packed id; for a conditional reference two u32: place and length of its condition (system, a vertical line, value) in the heap";
    ReferenceBase "reference_base" 4 "reference" "reference base, two top bits: class of the id, 3 for a conditional reference";
    KeyRow "key_row" 4 "identifier of a row of context" "its row, ascending";
    KeyText "key_text" 8 "identifier of a row of context" "two u32: place and length of its text (system, a vertical line, value) in the heap";
    Fault "fault" 20 "fault kept" "five u32: offset, length, line in the segment, byte in the line, kind";
    FaultCount "fault_count" 8 "kind of fault" "lines with it";
    NoteCount "note_count" 8 "kind of note" "rows or references with it";
    NotePlace "note_place" 8 "kind of note" "two u32: offset from the start of the segment and line in it of the first row with it";
    TypeCount "type_count" 8 "resource type" "rows of it";
    Exact "exact" 12 "instant of more than 7 fraction digits" "three u32: row (top bit: tombstone), place and length of the digits in the heap";
    Restart "restart" 16 "restart of a compressed file" "two u64: uncompressed and compressed offset in the file";
    Heap "heap" 1 "byte" "long ids, digits, bases";
}

/// Number of columns of a segment.
pub(crate) const COLUMN_COUNT: usize = COLUMNS.len();

/// Flags of a row: two bits of id class, then these.
pub(crate) mod flag {
    /// Mask of the class of the id.
    pub(crate) const ID_CLASS: u8 = 0b11;
    /// lastUpdated has more fraction digits than ticks hold: see the `exact` column.
    pub(crate) const EXACT: u8 = 1 << 2;
    /// `meta.lastUpdated` is there but no legal instant; it counts as none (reading 1).
    pub(crate) const ILLEGAL_UPDATED: u8 = 1 << 3;
    /// The line has white space before its `{`.
    pub(crate) const LEADING_SPACE: u8 = 1 << 4;
    /// The line is a Device's with a key `patient` or `subject`, or `_` and either: it is a record of a patient, even if nothing says whose.
    pub(crate) const NAMES_PATIENT: u8 = 1 << 5;
}

/// Top bits of `sorted_ref`: which columns the number in the other bits indexes.
pub(crate) mod kind {
    /// The mask of the three bits.
    pub(crate) const MASK: u32 = 7 << 29;
    /// The number is that of a row.
    pub(crate) const ROW: u32 = 0;
    /// The number is that of a DELETE entry.
    pub(crate) const TOMBSTONE: u32 = 2 << 30;
    /// The number is that of a Provenance target.
    pub(crate) const TARGET: u32 = 3 << 30;
    /// The number is that of a reference.
    pub(crate) const REFERENCE: u32 = 2 << 29;
    /// The number is that of an identifier of a row of context.
    pub(crate) const KEY: u32 = 3 << 29;
}

/// Bits of a `*_base` element that number the base; the two above are the class of the id beside it.
pub(crate) const BASE_BITS: u32 = (1 << 30) - 1;

macro_rules! head {
    ($($(#[$doc:meta])* $field:ident;)*) => {
        words! {
            /// The words of a segment header, before the lengths of the columns. The global index has a copy of them for
            /// each segment.
            #[derive(Debug, Default, PartialEq, Eq)]
            pub struct SegmentHeader { $($(#[$doc])* pub $field,)* }
        }

        /// Number of words of a [`SegmentHeader`].
        pub(crate) const HEAD_WORDS: usize = [$(stringify!($field)),*].len();

        /// Names of the words of a [`SegmentHeader`], in their order.
        #[cfg(test)]
        const HEAD_NAMES: [&str; HEAD_WORDS] = [$(stringify!($field)),*];

        impl SegmentHeader {
            /// The words of the header in their order on disk.
            pub fn words(&self) -> [u64; HEAD_WORDS] {
                [$(self.$field),*]
            }

            /// The header that consists of these words.
            pub fn from_words(words: &[u64; HEAD_WORDS]) -> SegmentHeader {
                let [$($field),*] = *words;
                SegmentHeader { $($field),* }
            }
        }
    };
}

head! {
    /// Bytes of the whole segment on disk, a multiple of 8.
    size;
    /// Start in the (uncompressed) file.
    start;
    /// End in the (uncompressed) file.
    end;
    /// xxh3 (64 bit) of the file's bytes from start to end.
    content;
    /// Lines, of any kind.
    lines;
    /// Blank lines: only white space.
    blank;
    /// Lines that are no legal resource.
    faulty;
    /// Lines of DELETE entries.
    tombstone_lines;
    /// Rows without `meta.lastUpdated`, or with an illegal one.
    undated;
    /// Rows whose `meta.lastUpdated` is there but illegal.
    illegal_updated;
    /// Greatest last_updated of the rows (an `i64`), the least value when none has one.
    updated_max;
    /// Number of resource rows.
    rows;
    /// Number of DELETE entries.
    tombstones;
    /// DELETE entries without an instant.
    tombstones_undated;
    /// Greatest instant of the DELETE entries (an `i64`), the least value when none has one.
    tombstone_updated_max;
    /// Owners of versions that a pack dropped, recorded beside DELETE entries.
    left;
    /// Number of Provenance targets.
    targets;
    /// Number of references that its rows have, each counted once.
    references;
    /// Number of identifiers of its rows of context.
    keys;
    /// Owners in the dictionary of the segment.
    owners;
    /// Reference bases, the empty one included.
    bases;
    /// Bits of the resource types that any row has: types 0 to 63.
    types_0;
    /// Bits of the resource types 64 to 127.
    types_1;
    /// Bits of the resource types 128 to 191.
    types_2;
    /// Flags ([`flag`]) that any of its rows has.
    flags;
    /// Rows without an owner.
    unowned;
    /// Bytes of its rows, a newline after each included.
    row_bytes;
    /// Sum of the notes on its rows, of every kind.
    notes;
}

const _: () = assert!(ResourceType::COUNT <= 192, "the types of an extent are 192 bits");

impl SegmentHeader {
    /// Greatest last_updated of the rows, in ticks.
    pub fn updated_max(&self) -> i64 {
        self.updated_max as i64
    }

    /// Greatest instant of the DELETE entries, in ticks.
    pub fn tombstone_updated_max(&self) -> i64 {
        self.tombstone_updated_max as i64
    }

    /// Resource types that any row has, a bit each.
    pub fn types(&self) -> [u64; 3] {
        [self.types_0, self.types_1, self.types_2]
    }

    /// Whether any row has the resource type of this index.
    pub fn has_type(&self, index: usize) -> bool {
        self.types()[index / 64] >> (index % 64) & 1 != 0
    }

    /// The resource type that all rows have; `None` when they have several, or there is no row.
    #[inline]
    pub fn only_type(&self) -> Option<ResourceType> {
        let words = self.types();
        let i = words.iter().position(|word| *word != 0)?;
        match self.type_count() {
            1 => ResourceType::from_index(i * 64 + words[i].trailing_zeros() as usize),
            _ => None,
        }
    }

    /// Whether the range of the file is exactly its rows, each with one newline: no blank, faulty or other bytes
    /// between.
    pub fn is_dense(&self) -> bool {
        self.end.checked_sub(self.start) == Some(self.row_bytes)
    }

    /// Number of different resource types of its rows.
    pub fn type_count(&self) -> u32 {
        self.types().iter().map(|word| word.count_ones()).sum()
    }

    /// Sets the bit of the resource type of this index.
    pub fn add_type(&mut self, index: usize) {
        *[&mut self.types_0, &mut self.types_1, &mut self.types_2][index / 64] |= 1 << (index % 64);
    }
}

/// Rows that one element of `updated_max` covers.
pub(crate) const ZONE_ROWS: usize = 64;
/// Bytes of the header with the lengths of the columns; the page checksums follow.
pub(crate) const HEADER_BYTES: usize = 8 + 8 + 8 + HEAD_WORDS * 8 + COLUMN_COUNT * 8;
/// Offset of the checksum of the header (xxh3 of the header behind it and of the page checksums).
const CHECKSUM_AT: usize = 16;

/// Bytes of the header and the page checksums of a segment whose padded columns take `body` bytes.
fn front_bytes(body: usize) -> usize {
    HEADER_BYTES + (checksum_count(body) * 4).next_multiple_of(8)
}

/// Encodes header, page checksums and columns of a segment, in the memory of `out`. Sets the size of the header.
pub(crate) fn encode(mut head: SegmentHeader, columns: &[&[u8]; COLUMN_COUNT], mut out: Vec<u8>) -> Vec<u8> {
    let body: usize = columns.iter().map(|column| column.len().next_multiple_of(8)).sum();
    let front = front_bytes(body);
    head.size = (front + body) as u64;
    out.clear();
    out.reserve(front + body);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&to_u32(COLUMN_COUNT).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    for word in head.words() {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for column in columns {
        out.extend_from_slice(&(column.len() as u64).to_le_bytes());
    }
    out.resize(front, 0);
    for column in columns {
        out.extend_from_slice(column);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    seal_segment(&mut out, front);
    out
}

/// Writes the page checksums and the checksum of the header of a segment whose columns begin at `front`.
pub fn seal_segment(segment: &mut [u8], front: usize) {
    let (head, body) = segment.split_at_mut(front);
    write_checksums(&mut head[HEADER_BYTES..], body);
    let sum = checksum(&head[CHECKSUM_AT + 8..]);
    head[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&sum.to_le_bytes());
}

/// Whether the header and every page of the segment at the start of `bytes` match their checksums.
pub(crate) fn is_intact(bytes: &[u8], ranges: &ColumnRanges) -> bool {
    let checksums = PageChecksums::new(HEADER_BYTES, ranges.front..to_usize(ranges.head.size));
    ranges.front_intact(bytes) && checksums.verify_all(bytes).is_ok()
}

/// Byte ranges of the columns of a segment, relative to its first byte.
#[derive(Clone, Debug)]
pub struct ColumnRanges {
    /// The words of the header.
    pub head: SegmentHeader,
    front: usize,
    columns: [(usize, usize); COLUMN_COUNT],
}

impl ColumnRanges {
    /// Reads a header. `bytes` begins with the segment and may be longer. Checks everything but the checksum.
    ///
    /// # Errors
    /// A sentence when magic, version or lengths are not those of a segment that lies in `bytes`.
    pub fn read(bytes: &[u8]) -> Result<ColumnRanges, &'static str> {
        let word = |k: usize| bytes.get(k..k + 8).map(|w| u64::from_le_bytes(w.try_into().expect("8 bytes")));
        if bytes.len() < HEADER_BYTES {
            return Err("it is shorter than a header");
        }
        if bytes[..8] != MAGIC {
            return Err("it does not begin with the magic bytes");
        }
        if bytes[8..12] != VERSION.to_le_bytes() || bytes[12..16] != to_u32(COLUMN_COUNT).to_le_bytes() {
            return Err("it is of another format version");
        }
        let mut words = [0; HEAD_WORDS];
        for (index, slot) in words.iter_mut().enumerate() {
            *slot = word(24 + index * 8).ok_or("it is shorter than a header")?;
        }
        let head = SegmentHeader::from_words(&words);
        let SegmentHeader { size, start, end, .. } = head;
        if size > bytes.len() as u64 || size % 8 != 0 || start > end {
            return Err("its lengths do not fit");
        }
        let mut body = 0u64;
        for column in 0..COLUMN_COUNT {
            let len = word(24 + HEAD_WORDS * 8 + column * 8).ok_or("it is shorter than a header")?;
            // `size` bounds every sum, so none overflows.
            if len > size || body > size {
                return Err("its columns do not fit");
            }
            body += len.next_multiple_of(8);
        }
        if body > size {
            return Err("its columns do not fit");
        }
        let front = front_bytes(to_usize(body));
        let mut columns = [(0, 0); COLUMN_COUNT];
        let mut i = front as u64;
        for (column, slot) in columns.iter_mut().enumerate() {
            let len = word(24 + HEAD_WORDS * 8 + column * 8).ok_or("it is shorter than a header")?;
            // `size` bounds every sum below, so none overflows.
            if len > size || i + len.next_multiple_of(8) > size || len % COLUMNS[column].width as u64 != 0 {
                return Err("its columns do not fit");
            }
            *slot = (to_usize(i), to_usize(len));
            i += len.next_multiple_of(8);
        }
        if i != size {
            return Err("its columns do not fill it");
        }
        let ranges = ColumnRanges { head, front, columns };
        let counted = [
            (Column::Place, head.rows),
            (Column::TombType, head.tombstones),
            (Column::TargetRow, head.targets),
            (Column::ReferenceType, head.references),
            (Column::KeyRow, head.keys),
            (Column::OwnerHash, head.owners),
        ];
        if counted.iter().any(|(column, count)| ranges.count(*column) as u64 != *count) {
            return Err("its columns are not as long as its header says");
        }
        Ok(ranges)
    }

    /// Offset of the first column, behind header and page checksums.
    pub fn front(&self) -> usize {
        self.front
    }

    /// Whether header and page checksums of the segment at the start of `bytes` match the checksum of the header.
    pub fn front_intact(&self, bytes: &[u8]) -> bool {
        let stored = u64::from_le_bytes(bytes[CHECKSUM_AT..CHECKSUM_AT + 8].try_into().expect("8 bytes"));
        checksum(&bytes[CHECKSUM_AT + 8..self.front]) == stored
    }

    /// Byte range of a column, without padding.
    pub fn column(&self, column: Column) -> std::ops::Range<usize> {
        let (offset, len) = self.columns[column as usize];
        offset..offset + len
    }

    /// Number of elements of a column, from its length in bytes.
    pub fn count(&self, column: Column) -> usize {
        self.columns[column as usize].1 / COLUMNS[column as usize].width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document lists every column as it is.
    #[test]
    fn the_format_document_is_true() {
        let document = include_str!("../../docs/format.md");
        for ColumnInfo { name, width, per, holds } in COLUMNS {
            let row = format!("| {name} | {width} | {per} | {holds} |");
            assert!(document.contains(&row), "format.md lacks: {row}");
        }
        let columns = document.lines().skip_while(|line| !line.starts_with("| column |")).skip(2);
        assert_eq!(columns.take_while(|line| line.starts_with('|')).count(), COLUMN_COUNT, "rows of no column");
    }

    /// The document lists the words of the header in their order, and states their number and the size of the header.
    #[test]
    fn the_format_document_has_the_header() {
        let words: Vec<&str> = include_str!("../../docs/format.md").split_whitespace().collect();
        let document = words.join(" ");
        let names = HEAD_NAMES.map(|name| format!("`{name}`")).join(", ");
        for text in [
            format!("The header of {HEADER_BYTES} bytes: magic"),
            format!("then {HEAD_WORDS} words of `u64`: {names}; then the length of each column"),
        ] {
            assert!(document.contains(&text), "format.md lacks: {text}");
        }
    }
}
