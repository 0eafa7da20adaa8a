//! Reading an extent: typed columns over its bytes, proven before they are believed.
//!
//! An extent is opened by its header, when something is first asked of it. What is read of its columns is proven page
//! by page ([`Extent::prove`], [`Extent::row`]) or as a whole ([`Extent::prove_whole`]); what was proven is as outpour
//! wrote it, so that later indexing cannot fail. [`Extent::open`] checks all of it, relations too, for files that
//! somebody else may have touched. Nothing here knows other extents; what only the whole store can tell is merged.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::index_file::IndexBytes;
use super::key::{self, IdClass, Version};
use super::layout::{COLUMNS, Column, HEADER_BYTES, Head, NO_INSTANT, Places, flag, kind};
use super::packed::table::{FOLLOWED, LATE, NOBODY};
use super::sealed::{Damaged, Seals};
use crate::bytes::columns::{hashes, i64s, u32s, u64s};
use crate::extract::FaultKind;
use crate::fhir::instant::InstantRef;
use crate::fhir::{Id, ResourceType};

/// What copying reads of a row.
pub const PLACE: [Column; 4] = [Column::Offset, Column::Length, Column::Type, Column::Flags];

/// An extent of the index.
#[derive(Clone)]
pub struct Extent(Arc<Inner>);

struct Inner {
    bytes: Arc<IndexBytes>,
    at: u64,
    head: Head,
    opened: OnceLock<Result<Opened, Damaged>>,
}

struct Opened {
    at: usize,
    places: Places,
    seals: Seals,
}

impl Opened {
    fn read(bytes: &[u8], at: u64) -> Result<Opened, Damaged> {
        let at = usize::try_from(at).map_err(|_| Damaged("it lies beyond the file"))?;
        let own = bytes.get(at..).ok_or(Damaged("it lies beyond the file"))?;
        if at % 8 != 0 {
            return Err(Damaged("it is not aligned"));
        }
        let places = Places::read(own).map_err(Damaged)?;
        if !places.front_intact(own) {
            return Err(Damaged("its checksum does not hold"));
        }
        let seals = Seals::new(HEADER_BYTES, places.front()..places.head.size as usize);
        Ok(Opened { at, places, seals })
    }
}

impl Extent {
    /// Opens the extent that begins at `at` and checks all of it: header, seals, pages and every relation.
    ///
    /// # Errors
    /// A sentence that says what is wrong; the caller rebuilds.
    pub fn open(bytes: Arc<IndexBytes>, at: u64) -> Result<Extent, &'static str> {
        let opened = Opened::read(&bytes, at).map_err(|damaged| damaged.0)?;
        let extent =
            Extent(Arc::new(Inner { bytes, at, head: opened.places.head, opened: OnceLock::from(Ok(opened)) }));
        extent.prove_whole().map_err(|damaged| damaged.0)?;
        extent.columns().check()?;
        Ok(extent)
    }

    /// The extent that begins at `at` and has this header, as what was merged over the store has it. Nothing is read
    /// of it yet.
    pub fn known(bytes: Arc<IndexBytes>, at: u64, head: Head) -> Extent {
        Extent(Arc::new(Inner { bytes, at, head, opened: OnceLock::new() }))
    }

    fn opened(&self) -> Result<&Opened, Damaged> {
        let opened = self.0.opened.get_or_init(|| match Opened::read(&self.0.bytes, self.0.at)? {
            opened if opened.places.head == self.0.head => Ok(opened),
            _ => Err(Damaged("its header is another than the one that was merged")),
        });
        opened.as_ref().map_err(|damaged| *damaged)
    }

    /// The header.
    pub fn head(&self) -> &Head {
        &self.0.head
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.0.head.rows as usize
    }

    /// Number of DELETE entries.
    pub fn tombstones(&self) -> usize {
        self.0.head.tombstones as usize
    }

    /// Number of elements and of bytes of a column.
    pub fn column_size(&self, column: Column) -> (usize, usize) {
        self.opened().map_or((0, 0), |opened| (opened.places.count(column), opened.places.column(column).len()))
    }

    /// Its bytes, as they lie on disk; none when its header is damaged.
    pub fn bytes(&self) -> &[u8] {
        self.opened().map_or(&[], |opened| &self.0.bytes[opened.at..][..opened.places.head.size as usize])
    }

    /// Proves elements of a column.
    ///
    /// # Errors
    /// [`Damaged`] when they are not what was written, or not there.
    pub fn prove(&self, column: Column, elements: Range<usize>) -> Result<(), Damaged> {
        let opened = self.opened()?;
        let (place, width) = (opened.places.column(column), COLUMNS[column as usize].width);
        if elements.start > elements.end || elements.end > opened.places.count(column) {
            return Err(Damaged("a number points nowhere"));
        }
        opened.seals.prove(self.bytes(), place.start + elements.start * width..place.start + elements.end * width)
    }

    /// A proven element of a column of `u32`s.
    fn word(&self, column: Column, at: usize) -> Result<u32, Damaged> {
        self.prove(column, at..at + 1)?;
        let start = self.opened()?.places.column(column).start + at * 4;
        Ok(u32::from_le_bytes(self.bytes()[start..start + 4].try_into().expect("4 bytes")))
    }

    /// Proves all of some columns.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn prove_columns(&self, columns: &[Column]) -> Result<Columns<'_>, Damaged> {
        let opened = self.opened()?;
        for column in columns {
            opened.seals.prove(self.bytes(), opened.places.column(*column))?;
        }
        Ok(self.columns())
    }

    /// Proves every column.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn prove_whole(&self) -> Result<Columns<'_>, Damaged> {
        self.opened()?.seals.prove_whole(self.bytes())?;
        Ok(self.columns())
    }

    /// The columns, with what selecting and copying reads of a row proven: its place, type, flags and lastUpdated.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn row(&self, row: usize) -> Result<Columns<'_>, Damaged> {
        let opened = self.opened()?;
        if !opened.seals.is_whole() {
            self.prove_place(row)?;
            self.prove(Column::LastUpdated, row..row + 1)?;
            if opened.places.count(Column::Exact) > 0 {
                self.prove_columns(&[Column::Exact, Column::Heap])?;
            }
        }
        Ok(self.columns())
    }

    /// Proves what copying reads of a row: its place, type and flags.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn prove_place(&self, row: usize) -> Result<(), Damaged> {
        if row >= self.rows() {
            return Err(Damaged("a number points nowhere"));
        }
        PLACE.into_iter().try_for_each(|column| self.prove(column, row..row + 1))
    }

    /// A row's owners, proven.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn row_owners(&self, row: usize) -> Result<&[u32], Damaged> {
        self.list(Column::OwnerStart, Column::Owner, row)
    }

    /// The rows of an owner, ascending, proven.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn posting(&self, owner: usize) -> Result<&[u32], Damaged> {
        self.list(Column::PostingStart, Column::Posting, owner)
    }

    /// The elements of `list` that belong to `at`, where `start` says where they begin.
    fn list(&self, start: Column, list: Column, at: usize) -> Result<&[u32], Damaged> {
        let range = self.word(start, at)? as usize..self.word(start, at + 1)? as usize;
        self.prove(list, range.clone())?;
        let words = u32s(&self.bytes()[self.opened()?.places.column(list)]).expect("an aligned column");
        Ok(&words[range])
    }

    /// A row's lastUpdated with every digit, proven.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn updated(&self, row: usize) -> Result<Option<InstantRef<'_>>, Damaged> {
        let opened = self.opened()?;
        if opened.places.count(Column::Exact) > 0 {
            return Ok(self.row(row)?.updated_of(row));
        }
        self.prove(Column::LastUpdated, row..row + 1)?;
        let start = opened.places.column(Column::LastUpdated).start + row * 8;
        let ticks = i64::from_le_bytes(self.bytes()[start..start + 8].try_into().expect("8 bytes"));
        Ok((ticks != NO_INSTANT).then_some(InstantRef { ticks, rest: &[] }))
    }

    /// A row's resource type, proven.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn type_of(&self, row: usize) -> Result<ResourceType, Damaged> {
        self.prove(Column::Type, row..row + 1)?;
        let start = self.opened()?.places.column(Column::Type).start + row;
        ResourceType::from_index(self.bytes()[start] as usize).ok_or(Damaged("a type is none"))
    }

    /// References (see [`kind`]) of everything whose hash of (type, id) is this one, proven.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn named(&self, hash: u64) -> Result<&[u32], Damaged> {
        let columns = self.columns();
        let bound = |after: &dyn Fn(u64) -> bool| -> Result<usize, Damaged> {
            let (mut low, mut high) = (0, self.column_size(Column::SortedHash).0);
            while low < high {
                let middle = low + (high - low) / 2;
                self.prove(Column::SortedHash, middle..middle + 1)?;
                match after(columns.sorted_hash[middle]) {
                    true => high = middle,
                    false => low = middle + 1,
                }
            }
            Ok(low)
        };
        let same = bound(&|known| known >= hash)?..bound(&|known| known > hash)?;
        self.prove(Column::SortedRef, same.clone())?;
        Ok(&columns.sorted_ref[same])
    }

    /// Proves what a merge reads of the entry at `at` of the sorted columns: what it is, its name, instant and version.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn prove_entry(&self, at: usize) -> Result<(), Damaged> {
        let reference = self.word(Column::SortedRef, at)?;
        let number = (reference & !kind::MASK) as usize;
        match reference & kind::MASK {
            kind::TOMBSTONE => self.tombstone(number).map(drop),
            kind::TARGET => [Column::TargetType, Column::TargetId, Column::TargetBase]
                .into_iter()
                .try_for_each(|column| self.prove(column, number..number + 1)),
            _ => {
                self.row_id(number)?;
                self.prove(Column::VersionId, number..number + 1)
            }
        }
    }

    /// The columns, with a DELETE entry proven.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn tombstone(&self, at: usize) -> Result<Columns<'_>, Damaged> {
        for column in [Column::TombType, Column::TombId, Column::TombBase, Column::TombUpdated] {
            self.prove(column, at..at + 1)?;
        }
        let columns = self.columns();
        let in_heap = columns.tomb_base[at] >> 30 == IdClass::Heap as u32;
        if in_heap || self.column_size(Column::Exact).0 > 0 {
            self.prove_columns(&[Column::Exact, Column::Heap])?;
        }
        Ok(columns)
    }

    /// The columns, with a target of a Provenance proven, but for its id.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn target(&self, at: usize) -> Result<Columns<'_>, Damaged> {
        self.prove(Column::TargetRow, at..at + 1)?;
        self.prove(Column::TargetBase, at..at + 1)?;
        Ok(self.columns())
    }

    /// A row's id, proven.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn row_id(&self, row: usize) -> Result<Id, Damaged> {
        self.row(row)?;
        self.prove(Column::Id, row..row + 1)?;
        let columns = self.columns();
        if columns.flags[row] & flag::ID_CLASS == IdClass::Heap as u8 {
            self.prove_columns(&[Column::Heap])?;
        }
        Ok(columns.id_of(row))
    }

    /// An owner's id, proven.
    ///
    /// # Errors
    /// As [`Extent::prove`].
    pub fn owner_id(&self, owner: usize) -> Result<Id, Damaged> {
        self.prove(Column::OwnerId, owner..owner + 1)?;
        self.prove(Column::OwnerBase, owner..owner + 1)?;
        let columns = self.columns();
        if columns.owner_base[owner] >> 30 == IdClass::Heap as u32 {
            self.prove_columns(&[Column::Heap])?;
        }
        Ok(columns.owner_id_of(owner))
    }

    /// Every column, as it lies there: what has not been proven may be anything. Without an intact header they are
    /// empty.
    pub fn columns(&self) -> Columns<'_> {
        let opened = self.opened();
        let bytes = self.bytes();
        let of = |column| match &opened {
            Ok(opened) => &bytes[opened.places.column(column)],
            Err(_) => &[],
        };
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
            posting_start: words(Column::PostingStart),
            posting: words(Column::Posting),
            several: words(Column::Several),
            updated_max: ticks(Column::UpdatedMax),
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
    pub posting_start: &'a [u32],
    pub posting: &'a [u32],
    pub several: &'a [u32],
    pub updated_max: &'a [i64],
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
    /// T of the first snapshot that held it, in ticks, if it came late.
    pub first_seen: Option<i64>,
    entries: &'a [[u64; 2]],
}

impl<'a> Left<'a> {
    /// Its owners, as numbers in the extent's dictionary.
    pub fn owners(&self) -> impl Iterator<Item = usize> + 'a {
        self.entries
            .iter()
            .map(|[at, _]| (*at >> 32) as u32)
            .filter(|at| !matches!(*at, NOBODY | FOLLOWED | LATE))
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

    /// Whether an owner has the same id as one of another extent. Packed ids are canonical: but for those in a heap,
    /// they are equal where the ids are.
    pub fn same_owner_id(&self, owner: usize, other: &Columns<'_>, its: usize) -> bool {
        let (class, packed) = (self.owner_base[owner] >> 30, &self.owner_id[owner]);
        if class != IdClass::Heap as u32 {
            return class == other.owner_base[its] >> 30 && *packed == other.owner_id[its];
        }
        self.owner_id_of(owner) == other.owner_id_of(its)
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
        let entries = self.left_entries(tombstone);
        entries.first().map(|[at, ticks]| Left {
            updated: *ticks as i64,
            followed: (*at >> 32) as u32 == FOLLOWED,
            first_seen: entries.last().filter(|[at, _]| (*at >> 32) as u32 == LATE).map(|[_, ticks]| *ticks as i64),
            entries,
        })
    }

    /// The same as it lies there: (DELETE entry, and above it the owner or a sentinel; ticks).
    pub fn left_entries(&self, tombstone: usize) -> &'a [[u64; 2]] {
        let (left, _) = self.tomb_left.as_chunks::<2>();
        let first = left.partition_point(|[at, _]| (*at as u32 as usize) < tombstone);
        let last = left.partition_point(|[at, _]| (*at as u32 as usize) <= tombstone);
        &left[first..last]
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
