//! Reading a segment: typed columns over its bytes, proven before they are believed.
//!
//! A segment is opened by its header, when something is first asked of it. What is read of its columns is proven page
//! by page ([`Segment::verify`], [`Segment::row`]) or as a whole ([`Segment::verify_all`]); what was proven is as outpour
//! wrote it, so that later indexing cannot fail. [`Segment::open`] checks all of it, relations too, for files that
//! somebody else may have touched. Nothing here knows other segments; what only the whole store can tell is merged.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::casts::to_usize;
use crate::error::CorruptIndex;
use crate::fhir::id::Id;
use crate::fhir::instant::{InstantRef, NO_INSTANT};
use crate::fhir::resource_type::ResourceType;
use crate::index::dir::IndexBytes;
use crate::index::page_checksums::PageChecksums;
use crate::index::segment::columns::Columns;
use crate::index::segment::id_encoding::IdClass;
use crate::index::segment::layout::{COLUMNS, Column, ColumnRanges, HEADER_BYTES, SegmentHeader, flag, kind};
use crate::sys::little_endian::view;

/// A segment of the index.
#[derive(Clone)]
pub struct Segment(Arc<SegmentInner>);

struct SegmentInner {
    bytes: Arc<IndexBytes>,
    at: u64,
    head: SegmentHeader,
    opened: OnceLock<Result<OpenedColumns, CorruptIndex>>,
}

struct OpenedColumns {
    at: usize,
    ranges: ColumnRanges,
    checksums: PageChecksums,
}

impl OpenedColumns {
    fn read(bytes: &[u8], position: u64) -> Result<OpenedColumns, CorruptIndex> {
        let offset = usize::try_from(position).map_err(|_| CorruptIndex("it lies beyond the file"))?;
        let own = bytes.get(offset..).ok_or(CorruptIndex("it lies beyond the file"))?;
        if offset % 8 != 0 {
            return Err(CorruptIndex("it is not aligned"));
        }
        let ranges = ColumnRanges::read(own).map_err(CorruptIndex)?;
        if !ranges.front_intact(own) {
            return Err(CorruptIndex("its checksum does not hold"));
        }
        let checksums = PageChecksums::new(HEADER_BYTES, ranges.front()..to_usize(ranges.head.size));
        Ok(OpenedColumns { at: offset, ranges, checksums })
    }
}

impl Segment {
    /// Opens the segment that begins at `at` and checks all of it: header, seals, pages and every relation.
    ///
    /// # Errors
    /// A sentence that says what is wrong; the caller rebuilds.
    pub fn open(bytes: Arc<IndexBytes>, offset: u64) -> Result<Segment, &'static str> {
        let segment = Segment::written(bytes, offset)?;
        segment.verify_all().map_err(|damaged| damaged.0)?;
        segment.columns().check_relations(segment.head())?;
        Ok(segment)
    }

    /// Opens the segment that begins at `at` by its header. This process has written it, so that its relations hold as far
    /// as its seals do, and those are proven as it is read.
    ///
    /// # Errors
    /// As [`Segment::open`].
    pub fn written(bytes: Arc<IndexBytes>, offset: u64) -> Result<Segment, &'static str> {
        let opened = OpenedColumns::read(&bytes, offset).map_err(|damaged| damaged.0)?;
        Ok(Segment(Arc::new(SegmentInner {
            bytes,
            at: offset,
            head: opened.ranges.head,
            opened: OnceLock::from(Ok(opened)),
        })))
    }

    /// The segment that begins at `at` and has this header, as what was merged over the store has it. Nothing is read
    /// of it yet.
    pub fn open_known(bytes: Arc<IndexBytes>, offset: u64, head: SegmentHeader) -> Segment {
        Segment(Arc::new(SegmentInner { bytes, at: offset, head, opened: OnceLock::new() }))
    }

    fn opened(&self) -> Result<&OpenedColumns, CorruptIndex> {
        let opened = self.0.opened.get_or_init(|| match OpenedColumns::read(&self.0.bytes, self.0.at)? {
            opened if opened.ranges.head == self.0.head => Ok(opened),
            _ => Err(CorruptIndex("its header is another than the one that was merged")),
        });
        opened.as_ref().map_err(|damaged| *damaged)
    }

    /// The header.
    pub fn head(&self) -> &SegmentHeader {
        &self.0.head
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        to_usize(self.0.head.rows)
    }

    /// Number of DELETE entries.
    pub fn tombstones(&self) -> usize {
        to_usize(self.0.head.tombstones)
    }

    /// Number of elements and of bytes of a column.
    pub fn column_size(&self, column: Column) -> (usize, usize) {
        self.opened().map_or((0, 0), |opened| (opened.ranges.count(column), opened.ranges.column(column).len()))
    }

    /// Its bytes, as they lie on disk; none when its header is damaged.
    pub fn bytes(&self) -> &[u8] {
        self.opened().map_or(&[], |opened| &self.0.bytes[opened.at..][..to_usize(opened.ranges.head.size)])
    }

    /// Proves elements of a column.
    ///
    /// # Errors
    /// [`Damaged`] when they are not what was written, or not there.
    pub fn verify(&self, column: Column, elements: Range<usize>) -> Result<(), CorruptIndex> {
        let opened = self.opened()?;
        let (place, width) = (opened.ranges.column(column), COLUMNS[column as usize].width);
        if elements.start > elements.end || elements.end > opened.ranges.count(column) {
            return Err(CorruptIndex("a number points nowhere"));
        }
        opened.checksums.verify(self.bytes(), place.start + elements.start * width..place.start + elements.end * width)
    }

    /// A proven element of a column of `u32`s.
    fn word(&self, column: Column, offset: usize) -> Result<u32, CorruptIndex> {
        self.verify(column, offset..offset + 1)?;
        let start = self.opened()?.ranges.column(column).start + offset * 4;
        Ok(u32::from_le_bytes(self.bytes()[start..start + 4].try_into().expect("4 bytes")))
    }

    /// Proves all of some columns.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn verify_columns(&self, columns: &[Column]) -> Result<Columns<'_>, CorruptIndex> {
        let opened = self.opened()?;
        for column in columns {
            opened.checksums.verify(self.bytes(), opened.ranges.column(*column))?;
        }
        Ok(self.columns())
    }

    /// Proves every column.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn verify_all(&self) -> Result<Columns<'_>, CorruptIndex> {
        self.opened()?.checksums.verify_all(self.bytes())?;
        Ok(self.columns())
    }

    /// The columns, with what selecting and copying reads of a row proven: its place, type, flags and lastUpdated.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn row(&self, row: usize) -> Result<Columns<'_>, CorruptIndex> {
        let opened = self.opened()?;
        if !opened.checksums.is_verified() {
            if row >= self.rows() {
                return Err(CorruptIndex("a number points nowhere"));
            }
            for column in [Column::Place, Column::Type, Column::Flags, Column::LastUpdated] {
                self.verify(column, row..row + 1)?;
            }
            if opened.ranges.count(Column::Exact) > 0 {
                self.verify_columns(&[Column::Exact, Column::Heap])?;
            }
        }
        Ok(self.columns())
    }

    /// Proves what copying reads of some rows: their places, and of type and flags what the header leaves open.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn verify_copied(&self, rows: Range<usize>) -> Result<(), CorruptIndex> {
        if rows.end > self.rows() {
            return Err(CorruptIndex("a number points nowhere"));
        }
        self.verify(Column::Place, rows.clone())?;
        if self.0.head.only_type().is_none() {
            self.verify(Column::Type, rows.clone())?;
        }
        match self.0.head.flags & u64::from(flag::LEADING_SPACE) {
            0 => Ok(()),
            _ => self.verify(Column::Flags, rows),
        }
    }

    /// A row's owners, proven.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn row_owners(&self, row: usize) -> Result<&[u32], CorruptIndex> {
        self.list(Column::OwnerStart, Column::Owner, row)
    }

    /// The rows of an owner, ascending, proven.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn posting(&self, owner: usize) -> Result<&[u32], CorruptIndex> {
        self.list(Column::PostingStart, Column::Posting, owner)
    }

    /// The elements of `list` that belong to `at`, where `start` says where they begin.
    fn list(&self, start: Column, list: Column, offset: usize) -> Result<&[u32], CorruptIndex> {
        let range = self.word(start, offset)? as usize..self.word(start, offset + 1)? as usize;
        self.verify(list, range.clone())?;
        let words = view(&self.bytes()[self.opened()?.ranges.column(list)]).expect("an aligned column");
        Ok(&words[range])
    }

    /// A row's lastUpdated with every digit, proven.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn updated(&self, row: usize) -> Result<Option<InstantRef<'_>>, CorruptIndex> {
        let opened = self.opened()?;
        if opened.ranges.count(Column::Exact) > 0 {
            return Ok(self.row(row)?.updated_of(row));
        }
        self.verify(Column::LastUpdated, row..row + 1)?;
        let start = opened.ranges.column(Column::LastUpdated).start + row * 8;
        let ticks = i64::from_le_bytes(self.bytes()[start..start + 8].try_into().expect("8 bytes"));
        Ok((ticks != NO_INSTANT).then_some(InstantRef { ticks, rest: &[] }))
    }

    /// A row's resource type, proven.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn type_of(&self, row: usize) -> Result<ResourceType, CorruptIndex> {
        self.verify(Column::Type, row..row + 1)?;
        let start = self.opened()?.ranges.column(Column::Type).start + row;
        ResourceType::from_index(self.bytes()[start] as usize).ok_or(CorruptIndex("a type is none"))
    }

    /// References (see [`kind`]) of everything whose hash of (type, id) is this one, proven.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn based_name_of(&self, hash: u64) -> Result<&[u32], CorruptIndex> {
        let columns = self.columns();
        let bound = |after: &dyn Fn(u64) -> bool| -> Result<usize, CorruptIndex> {
            let (mut low, mut high) = (0, self.column_size(Column::SortedHash).0);
            while low < high {
                let middle = low + (high - low) / 2;
                self.verify(Column::SortedHash, middle..middle + 1)?;
                match after(columns.sorted_hash[middle]) {
                    true => high = middle,
                    false => low = middle + 1,
                }
            }
            Ok(low)
        };
        let same = bound(&|known| known >= hash)?..bound(&|known| known > hash)?;
        self.verify(Column::SortedRef, same.clone())?;
        Ok(&columns.sorted_ref[same])
    }

    /// Proves what a merge reads of the entry at `at` of the sorted columns: what it is, its name, instant and version.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn verify_entry(&self, offset: usize) -> Result<(), CorruptIndex> {
        let reference = self.word(Column::SortedRef, offset)?;
        let number = (reference & !kind::MASK) as usize;
        match reference & kind::MASK {
            kind::TOMBSTONE => self.tombstone(number).map(drop),
            kind::TARGET => [Column::TargetType, Column::TargetId, Column::TargetBase]
                .into_iter()
                .try_for_each(|column| self.verify(column, number..number + 1)),
            _ => {
                self.row_id(number)?;
                self.verify(Column::VersionId, number..number + 1)
            }
        }
    }

    /// The columns, with a DELETE entry proven.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn tombstone(&self, i: usize) -> Result<Columns<'_>, CorruptIndex> {
        for column in [Column::TombType, Column::TombId, Column::TombBase, Column::TombUpdated] {
            self.verify(column, i..i + 1)?;
        }
        let columns = self.columns();
        let in_heap = columns.tomb_base[i] >> 30 == IdClass::Heap as u32;
        if in_heap || self.column_size(Column::Exact).0 > 0 {
            self.verify_columns(&[Column::Exact, Column::Heap])?;
        }
        Ok(columns)
    }

    /// The columns, with a target of a Provenance proven, but for its id.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn target(&self, offset: usize) -> Result<Columns<'_>, CorruptIndex> {
        self.verify(Column::TargetRow, offset..offset + 1)?;
        self.verify(Column::TargetBase, offset..offset + 1)?;
        Ok(self.columns())
    }

    /// A row's id, proven.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn row_id(&self, row: usize) -> Result<Id, CorruptIndex> {
        self.row(row)?;
        self.verify(Column::Id, row..row + 1)?;
        let columns = self.columns();
        if columns.flags[row] & flag::ID_CLASS == IdClass::Heap as u8 {
            self.verify_columns(&[Column::Heap])?;
        }
        Ok(columns.id_of(row))
    }

    /// An owner's id, proven.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn owner_id(&self, owner: usize) -> Result<Id, CorruptIndex> {
        self.verify(Column::OwnerId, owner..owner + 1)?;
        self.verify(Column::OwnerBase, owner..owner + 1)?;
        let columns = self.columns();
        if columns.owner_base[owner] >> 30 == IdClass::Heap as u32 {
            self.verify_columns(&[Column::Heap])?;
        }
        Ok(columns.owner_id_of(owner))
    }

    /// Every column, as it lies there: what has not been proven may be anything. Without an intact header they are
    /// empty.
    pub fn columns(&self) -> Columns<'_> {
        let opened = self.opened();
        let bytes = self.bytes();
        let of = |column| match &opened {
            Ok(opened) => &bytes[opened.ranges.column(column)],
            Err(_) => &[],
        };
        // Columns are 8-byte aligned in an aligned segment and their lengths divide, so the casts hold.
        let words = |column| view(of(column)).expect("an aligned column");
        let longs = |column| view(of(column)).expect("an aligned column");
        let ticks = |column| view(of(column)).expect("an aligned column");
        let ids = |column| view(of(column)).expect("whole ids");
        Columns {
            place: words(Column::Place).as_chunks::<2>().0,
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
