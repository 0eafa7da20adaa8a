//! Reading an extent: typed columns over its bytes, checked once so that later indexing cannot fail.
//!
//! Nothing here knows other extents; what only the whole store can tell is in the generation.

use std::sync::Arc;

use super::index_file::IndexBytes;
use super::key::{self, IdClass, Version};
use super::layout::{BASE_BITS, Column, Head, NO_INSTANT, Places, flag, kind};
use super::packed::table::{FOLLOWED, NOBODY};
use crate::bytes::columns::{hashes, i64s, u32s, u64s};
use crate::extract::FaultKind;
use crate::fhir::instant::InstantRef;
use crate::fhir::{Id, ResourceType};

/// An extent of the index, opened.
#[derive(Clone)]
pub struct Extent {
    bytes: Arc<IndexBytes>,
    at: usize,
    places: Places,
}

impl Extent {
    /// Opens the extent that begins at `at`, checks its checksum and every relation that indexing relies on.
    ///
    /// # Errors
    /// A sentence that says what is wrong; the caller rebuilds.
    pub fn open(bytes: Arc<IndexBytes>, at: u64) -> Result<Extent, &'static str> {
        let at = usize::try_from(at).map_err(|_| "it lies beyond the file")?;
        let own = bytes.get(at..).ok_or("it lies beyond the file")?;
        if at % 8 != 0 {
            return Err("it is not aligned");
        }
        let places = Places::read(own)?;
        if !places.intact(own) {
            return Err("its checksum does not hold");
        }
        let extent = Extent { bytes, at, places };
        extent.columns().check()?;
        Ok(extent)
    }

    /// The header.
    pub fn head(&self) -> &Head {
        &self.places.head
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.places.count(Column::Offset)
    }

    /// Number of DELETE entries.
    pub fn tombstones(&self) -> usize {
        self.places.count(Column::TombType)
    }

    /// Number of elements and of bytes of a column.
    pub fn column_size(&self, column: Column) -> (usize, usize) {
        (self.places.count(column), self.places.column(column).len())
    }

    /// Its bytes, as they lie on disk.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.at..self.at + self.places.head.size as usize]
    }

    /// Every column.
    pub fn columns(&self) -> Columns<'_> {
        let bytes = self.bytes();
        let of = |column| &bytes[self.places.column(column)];
        // Columns are 8-byte aligned in an aligned extent and their lengths divide, so the casts hold.
        let words = |column| u32s(of(column)).expect("an aligned column");
        let longs = |column| u64s(of(column)).expect("an aligned column");
        let ticks = |column| i64s(of(column)).expect("an aligned column");
        let ids = |column| hashes(of(column)).expect("whole ids");
        Columns {
            offset: words(Column::Offset),
            length: words(Column::Length),
            last_updated: ticks(Column::LastUpdated),
            version: longs(Column::VersionId),
            id: ids(Column::Id),
            resource_type: of(Column::Type),
            flags: of(Column::Flags),
            owner_start: words(Column::OwnerStart),
            owner: words(Column::Owner),
            sorted_hash: longs(Column::SortedHash),
            sorted_ref: words(Column::SortedRef),
            owner_hash: longs(Column::OwnerHash),
            owner_id: ids(Column::OwnerId),
            owner_base: words(Column::OwnerBase),
            base: words(Column::Base),
            base_count: longs(Column::BaseCount),
            tomb_type: of(Column::TombType),
            tomb_id: ids(Column::TombId),
            tomb_base: words(Column::TombBase),
            tomb_updated: ticks(Column::TombUpdated),
            tomb_left: longs(Column::TombLeft),
            target_row: words(Column::TargetRow),
            target_type: of(Column::TargetType),
            target_id: ids(Column::TargetId),
            target_base: words(Column::TargetBase),
            fault: words(Column::Fault),
            fault_count: longs(Column::FaultCount),
            type_count: longs(Column::TypeCount),
            exact: words(Column::Exact),
            restart: longs(Column::Restart),
            heap: of(Column::Heap),
        }
    }
}

/// The columns of an extent (see [`super::layout::COLUMNS`] for what each holds).
#[allow(missing_docs)]
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    pub offset: &'a [u32],
    pub length: &'a [u32],
    pub last_updated: &'a [i64],
    pub version: &'a [u64],
    pub id: &'a [[u8; 16]],
    pub resource_type: &'a [u8],
    pub flags: &'a [u8],
    pub owner_start: &'a [u32],
    pub owner: &'a [u32],
    pub sorted_hash: &'a [u64],
    pub sorted_ref: &'a [u32],
    pub owner_hash: &'a [u64],
    pub owner_id: &'a [[u8; 16]],
    pub owner_base: &'a [u32],
    pub base: &'a [u32],
    pub base_count: &'a [u64],
    pub tomb_type: &'a [u8],
    pub tomb_id: &'a [[u8; 16]],
    pub tomb_base: &'a [u32],
    pub tomb_updated: &'a [i64],
    pub tomb_left: &'a [u64],
    pub target_row: &'a [u32],
    pub target_type: &'a [u8],
    pub target_id: &'a [[u8; 16]],
    pub target_base: &'a [u32],
    pub fault: &'a [u32],
    pub fault_count: &'a [u64],
    pub type_count: &'a [u64],
    pub exact: &'a [u32],
    pub restart: &'a [u64],
    pub heap: &'a [u8],
}

/// A version that has left a packed store, as the DELETE entry that ended it remembers it.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    /// Its lastUpdated in ticks, the sentinel for none.
    pub updated: i64,
    /// Whether a later version followed the DELETE entry, so that it deletes nothing any more.
    pub followed: bool,
    entries: &'a [[u64; 2]],
}

impl<'a> Left<'a> {
    /// Its owners, as numbers in the extent's dictionary.
    pub fn owners(&self) -> impl Iterator<Item = usize> + 'a {
        self.entries
            .iter()
            .map(|[at, _]| (*at >> 32) as u32)
            .filter(|at| !matches!(*at, NOBODY | FOLLOWED))
            .map(|at| at as usize)
    }
}

/// A faulty line, as the index keeps it.
#[derive(Clone, Copy, Debug)]
pub struct FaultRow {
    /// Start of the line, from the start of the extent.
    pub offset: u32,
    /// Bytes of the line, at most `u32::MAX`.
    pub length: u32,
    /// Lines before it in the extent.
    pub line: u32,
    /// Byte in the line where it was noticed.
    pub at: u32,
    /// What is wrong.
    pub kind: FaultKind,
}

impl<'a> Columns<'a> {
    /// The relations that make every later index legal. One pass over the small columns; a file whose checksum holds
    /// fails only if it was forged.
    fn check(&self) -> Result<(), &'static str> {
        let rows = self.offset.len();
        let owners = self.owner_hash.len();
        let tombs = self.tomb_type.len();
        let targets = self.target_row.len();
        let bases = self.base.len() / 2;
        let same = |lens: &[usize], count: usize| lens.iter().all(|len| *len == count);
        if !same(
            &[
                self.length.len(),
                self.last_updated.len(),
                self.version.len(),
                self.id.len(),
                self.resource_type.len(),
                self.flags.len(),
            ],
            rows,
        ) || self.owner_start.len() != rows + 1
            || !same(&[self.owner_id.len(), self.owner_base.len()], owners)
            || !same(&[self.tomb_id.len(), self.tomb_base.len(), self.tomb_updated.len()], tombs)
            || !same(&[self.target_type.len(), self.target_id.len(), self.target_base.len()], targets)
            || !same(&[self.sorted_hash.len(), self.sorted_ref.len()], rows + tombs + targets)
            || self.base_count.len() != bases
            || bases == 0
            || self.fault_count.len() != FaultKind::ALL.len()
            || self.type_count.len() != ResourceType::COUNT
        {
            return Err("its columns differ in length");
        }
        let ordered = self.owner_start.windows(2).all(|pair| pair[0] <= pair[1]);
        if !ordered || self.owner_start[0] != 0 || self.owner_start[rows] as usize != self.owner.len() {
            return Err("its owners do not fit");
        }
        let types = |column: &[u8]| column.iter().all(|at| (*at as usize) < ResourceType::COUNT);
        let below = |column: &[u32], bound: usize| column.iter().all(|at| (*at as usize) < bound);
        let based = |column: &[u32]| {
            column.iter().all(|at| ((at & BASE_BITS) as usize) < bases && IdClass::from_bits(at >> 30).is_some())
        };
        if !below(self.owner, owners)
            || !below(self.target_row, rows)
            || !types(self.resource_type)
            || !types(self.tomb_type)
            || !types(self.target_type)
            || !based(self.owner_base)
            || !based(self.tomb_base)
            || !based(self.target_base)
        {
            return Err("a number points nowhere");
        }
        let (left, _) = self.tomb_left.as_chunks::<2>();
        let left_sound = left.iter().all(|[at, _]| {
            let (tombstone, owner) = (*at as u32 as usize, (*at >> 32) as u32);
            tombstone < tombs && ((owner as usize) < owners || matches!(owner, NOBODY | FOLLOWED))
        });
        if !left_sound || !left.is_sorted_by_key(|[at, _]| *at as u32) {
            return Err("an owner of a deletion points nowhere");
        }
        let refs = self.sorted_ref.iter().all(|at| {
            let number = (at & !kind::MASK) as usize;
            match at & kind::MASK {
                kind::ROW => number < rows,
                kind::TOMBSTONE => number < tombs,
                kind::TARGET => number < targets,
                _ => false,
            }
        });
        if !refs || !self.sorted_hash.is_sorted() || !self.owner_hash.is_sorted() {
            return Err("its order does not hold");
        }
        let heap = |at: u32, len: u32| u64::from(at) + u64::from(len) <= self.heap.len() as u64;
        let ids = |ids: &[[u8; 16]], class: &dyn Fn(usize) -> u32| {
            ids.iter().enumerate().all(|(at, id)| match IdClass::from_bits(class(at)) {
                Some(IdClass::Uuid) => true,
                Some(class) => key::unpack_id(class, id, self.heap).is_some(),
                None => false,
            })
        };
        if !self.base.chunks_exact(2).all(|base| {
            heap(base[0], base[1]) && str::from_utf8(&self.heap[base[0] as usize..(base[0] + base[1]) as usize]).is_ok()
        }) || !self.exact.chunks_exact(3).all(|exact| heap(exact[1], exact[2]))
            || !ids(self.id, &|at| u32::from(self.flags[at] & flag::ID_CLASS))
            || !ids(self.owner_id, &|at| self.owner_base[at] >> 30)
            || !ids(self.tomb_id, &|at| self.tomb_base[at] >> 30)
            || !ids(self.target_id, &|at| self.target_base[at] >> 30)
        {
            return Err("a text lies beyond its heap");
        }
        let faults = self.fault.chunks_exact(5).all(|fault| FaultKind::ALL.get(fault[4] as usize).is_some());
        if !faults {
            return Err("a fault is of no known kind");
        }
        Ok(())
    }

    /// A row's resource type.
    pub fn type_of(&self, row: usize) -> ResourceType {
        ResourceType::from_index(self.resource_type[row] as usize).expect("checked at open")
    }

    /// A row's id.
    pub fn id_of(&self, row: usize) -> Id {
        let class = IdClass::from_bits(u32::from(self.flags[row] & flag::ID_CLASS)).expect("checked at open");
        key::unpack_id(class, &self.id[row], self.heap).expect("checked at open")
    }

    /// The id of an entry whose base element carries its class.
    fn based_id(&self, id: &[u8; 16], base: u32) -> Id {
        key::unpack_id(IdClass::from_bits(base >> 30).expect("checked at open"), id, self.heap)
            .expect("checked at open")
    }

    /// The id of an owner.
    pub fn owner_id_of(&self, owner: usize) -> Id {
        self.based_id(&self.owner_id[owner], self.owner_base[owner])
    }

    /// Type and id of a DELETE entry.
    pub fn tombstone_of(&self, at: usize) -> (ResourceType, Id) {
        let resource_type = ResourceType::from_index(self.tomb_type[at] as usize).expect("checked at open");
        (resource_type, self.based_id(&self.tomb_id[at], self.tomb_base[at]))
    }

    /// Type and id of a Provenance target.
    pub fn target_of(&self, at: usize) -> (ResourceType, Id) {
        let resource_type = ResourceType::from_index(self.target_type[at] as usize).expect("checked at open");
        (resource_type, self.based_id(&self.target_id[at], self.target_base[at]))
    }

    /// Text of a base, empty for the first.
    pub fn base_text(&self, base: usize) -> &'a str {
        let (at, len) = (self.base[base * 2] as usize, self.base[base * 2 + 1] as usize);
        str::from_utf8(&self.heap[at..at + len]).expect("checked at open")
    }

    /// Number of bases, at least 1.
    pub fn bases(&self) -> usize {
        self.base.len() / 2
    }

    /// The owners of a row, as numbers in the extent's dictionary.
    pub fn owners_of(&self, row: usize) -> &'a [u32] {
        &self.owner[self.owner_start[row] as usize..self.owner_start[row + 1] as usize]
    }

    /// A row's version.
    pub fn version_of(&self, row: usize) -> Version<'a> {
        key::unpack_version(self.version[row], self.heap)
    }

    /// A row's lastUpdated, with every digit.
    pub fn updated_of(&self, row: usize) -> Option<InstantRef<'a>> {
        let ticks = self.last_updated[row];
        let rest = if self.flags[row] & flag::EXACT != 0 { self.exact_digits(row as u32) } else { &[] };
        (ticks != NO_INSTANT).then_some(InstantRef { ticks, rest })
    }

    /// A DELETE entry's instant, with every digit.
    pub fn tombstone_updated(&self, at: usize) -> Option<InstantRef<'a>> {
        let ticks = self.tomb_updated[at];
        let rest = if self.exact.is_empty() { &[] } else { self.exact_digits(at as u32 | 1 << 31) };
        (ticks != NO_INSTANT).then_some(InstantRef { ticks, rest })
    }

    /// What a packed file tells of the version that a DELETE entry ended and that has left with it.
    pub fn left_of(&self, tombstone: usize) -> Option<Left<'a>> {
        let (left, _) = self.tomb_left.as_chunks::<2>();
        let first = left.partition_point(|[at, _]| (*at as u32 as usize) < tombstone);
        let last = left.partition_point(|[at, _]| (*at as u32 as usize) <= tombstone);
        let entries = &left[first..last];
        entries.first().map(|[at, ticks]| Left {
            updated: *ticks as i64,
            followed: (*at >> 32) as u32 == FOLLOWED,
            entries,
        })
    }

    /// Digits beyond the seventh; the column is sorted by its references.
    fn exact_digits(&self, reference: u32) -> &'a [u8] {
        let (entries, _) = self.exact.as_chunks::<3>();
        match entries.binary_search_by_key(&reference, |entry| entry[0]) {
            Ok(at) => &self.heap[entries[at][1] as usize..][..entries[at][2] as usize],
            Err(_) => &[],
        }
    }

    /// The targets (numbers in the target columns) of a Provenance row; they are stored in the order of rows.
    pub fn targets_of(&self, row: usize) -> std::ops::Range<usize> {
        let row = row as u32;
        self.target_row.partition_point(|at| *at < row)..self.target_row.partition_point(|at| *at <= row)
    }

    /// The faults whose details are kept.
    pub fn faults(&self) -> impl Iterator<Item = FaultRow> + 'a {
        self.fault.as_chunks::<5>().0.iter().map(|[offset, length, line, at, kind]| FaultRow {
            offset: *offset,
            length: *length,
            line: *line,
            at: *at,
            kind: FaultKind::ALL[*kind as usize],
        })
    }
}
