//! The one place that knows how an extent lies on disk: a header, then columns, each aligned to 8 bytes.
//!
//! All integers are little-endian. Offsets derive from the lengths before them; a reader checks magic, version,
//! lengths and checksum before it believes anything. `src/docs/format.md` is compared with [`COLUMNS`] by a test.

/// First bytes of an extent.
pub const MAGIC: [u8; 8] = *b"OUTPOUR\x01";
/// Version of the layout; another version is rebuilt from the store, never converted.
pub const VERSION: u32 = 2;

/// A column: what it holds, bytes an element, and what an element stands for.
pub struct ColumnInfo {
    /// Name as `inspect` and the format document print it.
    pub name: &'static str,
    /// Bytes of one element.
    pub width: usize,
    /// What there is one element of.
    pub per: &'static str,
    /// What it holds.
    pub holds: &'static str,
}

macro_rules! columns {
    ($($column:ident $name:literal $width:literal $per:literal $holds:literal;)*) => {
        /// The columns of an extent, in the order they lie in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        #[allow(missing_docs)]
        pub enum Column { $($column),* }
        /// Their descriptions.
        pub const COLUMNS: &[ColumnInfo] = &[
            $(ColumnInfo { name: $name, width: $width, per: $per, holds: $holds }),*
        ];
    };
}

columns! {
    Offset "offset" 4 "row" "start of the line, from the start of the extent";
    Length "length" 4 "row" "bytes of the line without its end";
    LastUpdated "last_updated" 8 "row" "i64 of 100 ns ticks since 1970, least value for none";
    VersionId "version" 8 "row" "numeric versionId plus one, 0 for none, top bit: length and place in the heap";
    Id "id" 16 "row" "packed id";
    Type "type" 1 "row" "place of the resource type in the order of names";
    Flags "flags" 1 "row" "see the flags below";
    OwnerStart "owner_start" 4 "row, and one more" "first of the row's owners";
    Owner "owner" 4 "row and owner" "place in the extent's owner dictionary";
    SortedHash "sorted_hash" 8 "row, tombstone, target" "hash of (type, id), ascending";
    SortedRef "sorted_ref" 4 "row, tombstone, target" "its number; the two top bits tell which: 0 row, 2 tombstone, 3 target";
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
    Fault "fault" 20 "fault kept" "five u32: offset, length, line in the extent, byte in the line, kind";
    FaultCount "fault_count" 8 "kind of fault" "lines with it";
    TypeCount "type_count" 8 "resource type" "rows of it";
    Exact "exact" 12 "instant of more than 7 fraction digits" "three u32: row (top bit: tombstone), place and length of the digits in the heap";
    Restart "restart" 16 "restart of a compressed file" "two u64: uncompressed and compressed offset in the file";
    Heap "heap" 1 "byte" "long ids, digits, bases";
}

/// Number of columns.
pub const COLUMN_COUNT: usize = COLUMNS.len();

/// Flags of a row: two bits of id class, then these.
pub mod flag {
    /// The id's class.
    pub const ID_CLASS: u8 = 0b11;
    /// More fraction digits than ticks hold: see the `exact` column.
    pub const EXACT: u8 = 1 << 2;
    /// `meta.lastUpdated` is there but no legal instant; it counts as none (reading 1).
    pub const ILLEGAL_UPDATED: u8 = 1 << 3;
    /// White space stands before the line's `{`.
    pub const LEADING_SPACE: u8 = 1 << 4;
}

/// Top bits of `sorted_ref`.
pub mod kind {
    /// The mask of the two bits.
    pub const MASK: u32 = 3 << 30;
    /// A resource.
    pub const ROW: u32 = 0;
    /// A DELETE entry.
    pub const TOMBSTONE: u32 = 2 << 30;
    /// A target of a Provenance.
    pub const TARGET: u32 = 3 << 30;
}

/// `last_updated` of a row without one.
pub const NO_INSTANT: i64 = i64::MIN;
/// Bits of a `*_base` element that number the base; the two above are the class of the id beside it.
pub const BASE_BITS: u32 = (1 << 30) - 1;

/// Fixed part of the header, before the column table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the whole extent on disk, a multiple of 8.
    pub size: u64,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// xxh3 (64 bit) of the file's bytes from start to end.
    pub content: u64,
    /// Lines, of any kind.
    pub lines: u64,
    /// Blank lines.
    pub blank: u64,
    /// Faulty lines.
    pub faulty: u64,
    /// Lines of DELETE entries.
    pub tombstone_lines: u64,
    /// Rows without `meta.lastUpdated`, or with an illegal one.
    pub undated: u64,
}

const HEAD_WORDS: usize = 9;
/// Bytes of the header with the column table.
pub const HEADER_BYTES: usize = 8 + 8 + 8 + HEAD_WORDS * 8 + COLUMN_COUNT * 8;
/// Offset of the checksum (xxh3 of everything behind it).
const CHECKSUM_AT: usize = 16;

/// Lays the header and the columns out in one run of bytes.
pub fn encode(mut head: Head, columns: &[&[u8]; COLUMN_COUNT]) -> Vec<u8> {
    let body: usize = columns.iter().map(|column| column.len().next_multiple_of(8)).sum();
    head.size = (HEADER_BYTES + body) as u64;
    let mut out = Vec::with_capacity(HEADER_BYTES + body);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(COLUMN_COUNT as u32).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    let words = [
        head.size,
        head.start,
        head.end,
        head.content,
        head.lines,
        head.blank,
        head.faulty,
        head.tombstone_lines,
        head.undated,
    ];
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for column in columns {
        out.extend_from_slice(&(column.len() as u64).to_le_bytes());
    }
    for column in columns {
        out.extend_from_slice(column);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    let checksum = xxhash_rust::xxh3::xxh3_64(&out[CHECKSUM_AT + 8..]);
    out[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&checksum.to_le_bytes());
    out
}

/// Where the columns of an extent lie, relative to its first byte.
#[derive(Clone, Debug)]
pub struct Places {
    /// The header's fixed part.
    pub head: Head,
    columns: [(usize, usize); COLUMN_COUNT],
}

impl Places {
    /// Reads a header. `bytes` begins with the extent and may go on behind it. Checks everything but the checksum;
    /// the error says what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Places, &'static str> {
        let word = |at: usize| bytes.get(at..at + 8).map(|w| u64::from_le_bytes(w.try_into().expect("8 bytes")));
        if bytes.len() < HEADER_BYTES {
            return Err("it is shorter than a header");
        }
        if bytes[..8] != MAGIC {
            return Err("it does not begin with the magic bytes");
        }
        if bytes[8..12] != VERSION.to_le_bytes() || bytes[12..16] != (COLUMN_COUNT as u32).to_le_bytes() {
            return Err("it is of another format version");
        }
        let mut words = [0; HEAD_WORDS];
        for (at, slot) in words.iter_mut().enumerate() {
            *slot = word(24 + at * 8).ok_or("it is shorter than a header")?;
        }
        let [size, start, end, content, lines, blank, faulty, tombstone_lines, undated] = words;
        let head = Head { size, start, end, content, lines, blank, faulty, tombstone_lines, undated };
        if size > bytes.len() as u64 || size % 8 != 0 || start > end {
            return Err("its lengths do not fit");
        }
        let mut columns = [(0, 0); COLUMN_COUNT];
        let mut at = HEADER_BYTES as u64;
        for (column, slot) in columns.iter_mut().enumerate() {
            let len = word(24 + HEAD_WORDS * 8 + column * 8).ok_or("it is shorter than a header")?;
            // `size` bounds every sum below, so none overflows.
            if len > size || at + len.next_multiple_of(8) > size || len % COLUMNS[column].width as u64 != 0 {
                return Err("its columns do not fit");
            }
            *slot = (at as usize, len as usize);
            at += len.next_multiple_of(8);
        }
        if at != size {
            return Err("its columns do not fill it");
        }
        Ok(Places { head, columns })
    }

    /// Whether the checksum of `bytes` (which begin with the extent) holds.
    pub fn intact(&self, bytes: &[u8]) -> bool {
        let stored = u64::from_le_bytes(bytes[CHECKSUM_AT..CHECKSUM_AT + 8].try_into().expect("8 bytes"));
        xxhash_rust::xxh3::xxh3_64(&bytes[CHECKSUM_AT + 8..self.head.size as usize]) == stored
    }

    /// Byte range of a column.
    pub fn column(&self, column: Column) -> std::ops::Range<usize> {
        let (at, len) = self.columns[column as usize];
        at..at + len
    }

    /// Number of elements of a column.
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
        let document = include_str!("../docs/format.md");
        for ColumnInfo { name, width, per, holds } in COLUMNS {
            let row = format!("| {name} | {width} | {per} | {holds} |");
            assert!(document.contains(&row), "format.md lacks: {row}");
        }
    }
}
