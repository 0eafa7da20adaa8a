//! Reads a segment: its header, typed columns over its bytes, and page checksums verified on first read.
//!
//! A segment is opened by its header on first use. Columns are verified page by page ([`Segment::verify`],
//! [`Segment::row`]) or whole ([`Segment::verify_all`]); verified pages are as outpour wrote them, so that later
//! indexing cannot fail. [`Segment::open`] checks everything, relations too, for files that may have been changed.
//! Relations between segments are in `global`.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::casts::to_usize;
use crate::error::CorruptIndex;
use crate::fhir::id::Id;
use crate::fhir::instant::{InstantRef, NO_INSTANT};
use crate::fhir::resource_type::ResourceType;
use crate::ids::EntryId;
use crate::index::dir::{IndexBytes, LONG_BYTES};
use crate::index::page_checksums::PageChecksums;
use crate::index::segment::columns::Columns;
use crate::index::segment::id_encoding::IdClass;
use crate::index::segment::layout::{COLUMNS, Column, ColumnRanges, HEADER_BYTES, SegmentHeader, flag, kind};
use crate::sys::little_endian::view;

/// A segment of the index; clones share its bytes and what was verified of them.
#[derive(Clone)]
pub struct Segment(Arc<SegmentInner>);

/// Bytes and header of a segment, and its columns once they were opened.
struct SegmentInner {
    bytes: Arc<IndexBytes>,
    at: u64,
    head: HeaderPlace,
    /// In memory of its own: of a store of many files most segments are never opened.
    opened: OnceLock<Result<Box<OpenedColumns>, CorruptIndex>>,
}

/// Where the words of a segment's header are.
enum HeaderPlace {
    /// Copied from the segment.
    Own(Box<SegmentHeader>),
    /// In the global index.
    Known(KnownHeader),
}

/// A segment's header in a global index whose copies of headers are verified.
pub(crate) struct KnownHeader {
    /// The file of the global index.
    pub bytes: Arc<IndexBytes>,
    /// Offset of the header in it.
    pub at: usize,
}

impl HeaderPlace {
    /// The header.
    fn get(&self) -> &SegmentHeader {
        match self {
            HeaderPlace::Own(head) => head,
            HeaderPlace::Known(KnownHeader { bytes, at }) => {
                &view(&bytes[*at..*at + size_of::<SegmentHeader>()]).expect("a whole header, aligned")[0]
            }
        }
    }
}

/// Column ranges and verified pages of a segment whose header is intact.
struct OpenedColumns {
    at: usize,
    ranges: ColumnRanges,
    checksums: PageChecksums,
}

impl OpenedColumns {
    /// Reads the header of the segment at `position` of a container and checks its checksum.
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
    /// Opens the segment at `offset` of a container and checks all of it: header, pages and every relation of columns.
    ///
    /// # Errors
    /// A sentence that says what is wrong; the caller scans the range again.
    pub fn open(bytes: Arc<IndexBytes>, offset: u64) -> Result<Segment, &'static str> {
        let segment = Segment::written(bytes, offset)?;
        segment.verify_all().map_err(|damaged| damaged.0)?;
        segment.columns().check_relations(segment.head())?;
        Ok(segment)
    }

    /// Opens the segment at `offset` of a container by its header. This process has written it, so that its relations
    /// hold where its pages are intact, and pages are verified as they are read.
    ///
    /// # Errors
    /// As [`Segment::open`].
    pub fn written(bytes: Arc<IndexBytes>, offset: u64) -> Result<Segment, &'static str> {
        let opened = OpenedColumns::read(&bytes, offset).map_err(|damaged| damaged.0)?;
        Ok(Segment(Arc::new(SegmentInner {
            bytes,
            at: offset,
            head: HeaderPlace::Own(Box::new(opened.ranges.head)),
            opened: OnceLock::from(Ok(Box::new(opened))),
        })))
    }

    /// The segment at `offset` of a container, with the header that the global index has of it. Reads nothing.
    pub(crate) fn open_known(bytes: Arc<IndexBytes>, offset: u64, head: KnownHeader) -> Segment {
        let head = HeaderPlace::Known(head);
        Segment(Arc::new(SegmentInner { bytes, at: offset, head, opened: OnceLock::new() }))
    }

    /// The same segment, which was copied to `offset` of another container.
    pub(crate) fn moved(&self, bytes: Arc<IndexBytes>, offset: u64) -> Segment {
        let head = HeaderPlace::Own(Box::new(*self.head()));
        Segment(Arc::new(SegmentInner { bytes, at: offset, head, opened: OnceLock::new() }))
    }

    /// The columns, opened on first use; the header must be the one that the global index has.
    fn opened(&self) -> Result<&OpenedColumns, CorruptIndex> {
        let opened = self.0.opened.get_or_init(|| match OpenedColumns::read(&self.0.bytes, self.0.at)? {
            opened if opened.ranges.head == *self.head() => Ok(Box::new(opened)),
            _ => Err(CorruptIndex("its header is another than the one that was merged")),
        });
        opened.as_deref().map_err(|damaged| *damaged)
    }

    /// The header of the segment.
    pub fn head(&self) -> &SegmentHeader {
        self.0.head.get()
    }

    /// The container that holds it.
    pub(crate) fn container(&self) -> &Arc<IndexBytes> {
        &self.0.bytes
    }

    /// Bytes of the container that holds it.
    pub(crate) fn container_bytes(&self) -> u64 {
        self.0.bytes.len() as u64
    }

    /// Offset in the container.
    pub(in crate::index) fn offset(&self) -> u64 {
        self.0.at
    }

    /// Where a column lies in the container; `None` when the header is damaged.
    pub(in crate::index) fn column_place(&self, column: Column) -> Option<Range<u64>> {
        let range = self.opened().ok()?.ranges.column(column);
        Some(self.0.at + range.start as u64..self.0.at + range.end as u64)
    }

    /// Verifies a range of the segment. A long one is asked for before: its pages would be read one by one.
    fn verify_range(&self, opened: &OpenedColumns, range: Range<usize>) -> Result<(), CorruptIndex> {
        if range.len() >= LONG_BYTES && opened.checksums.is_new(&range) {
            self.0.bytes.read_range_ahead(self.0.at + range.start as u64..self.0.at + range.end as u64);
        }
        opened.checksums.verify(self.bytes(), range)
    }

    /// Number of resource rows, from the header.
    pub fn rows(&self) -> usize {
        to_usize(self.head().rows)
    }

    /// Number of DELETE entries, from the header.
    pub fn tombstones(&self) -> usize {
        to_usize(self.head().tombstones)
    }

    /// The DELETE entries.
    pub fn entry_ids(&self) -> impl ExactSizeIterator<Item = EntryId> + use<> {
        (0..self.tombstones()).map(EntryId::of)
    }

    /// Number of elements and of bytes of a column; zeros when the header is damaged.
    pub fn column_size(&self, column: Column) -> (usize, usize) {
        self.opened().map_or((0, 0), |opened| (opened.ranges.count(column), opened.ranges.column(column).len()))
    }

    /// Bytes of the whole segment as they lie on disk; empty when its header is damaged.
    pub fn bytes(&self) -> &[u8] {
        self.opened().map_or(&[], |opened| &self.0.bytes[opened.at..][..to_usize(opened.ranges.head.size)])
    }

    /// Verifies the pages that hold a range of elements of a column.
    ///
    /// # Errors
    /// [`CorruptIndex`] if the header or a page fails its checksum, or the range exceeds the column.
    pub fn verify(&self, column: Column, elements: Range<usize>) -> Result<(), CorruptIndex> {
        let opened = self.opened()?;
        let (place, width) = (opened.ranges.column(column), COLUMNS[column as usize].width);
        if elements.start > elements.end || elements.end > opened.ranges.count(column) {
            return Err(CorruptIndex("a number points nowhere"));
        }
        self.verify_range(opened, place.start + elements.start * width..place.start + elements.end * width)
    }

    /// One element of a `u32` column, verified.
    fn word(&self, column: Column, offset: usize) -> Result<u32, CorruptIndex> {
        self.verify(column, offset..offset + 1)?;
        let start = self.opened()?.ranges.column(column).start + offset * 4;
        Ok(u32::from_le_bytes(self.bytes()[start..start + 4].try_into().expect("4 bytes")))
    }

    /// Verifies whole columns and returns all columns.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn verify_columns(&self, columns: &[Column]) -> Result<Columns<'_>, CorruptIndex> {
        let opened = self.opened()?;
        columns.iter().try_for_each(|column| self.verify_range(opened, opened.ranges.column(*column)))?;
        Ok(self.columns())
    }

    /// Verifies every page of the segment and returns its columns.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn verify_all(&self) -> Result<Columns<'_>, CorruptIndex> {
        self.opened()?.checksums.verify_all(self.bytes())?;
        Ok(self.columns())
    }

    /// The columns, with offset, length, type, flags and lastUpdated of a row verified, as selecting and copying read
    /// them.
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

    /// Verifies the columns that copying reads of a range of rows: offsets and lengths; types and flags only where the
    /// header does not determine them.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn verify_copied(&self, rows: Range<usize>) -> Result<(), CorruptIndex> {
        if rows.end > self.rows() {
            return Err(CorruptIndex("a number points nowhere"));
        }
        self.verify(Column::Place, rows.clone())?;
        if self.head().only_type().is_none() {
            self.verify(Column::Type, rows.clone())?;
        }
        match self.head().flags & u64::from(flag::LEADING_SPACE) {
            0 => Ok(()),
            _ => self.verify(Column::Flags, rows),
        }
    }

    /// Owners of a row as numbers in the dictionary of the segment, verified.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn row_owners(&self, row: usize) -> Result<&[u32], CorruptIndex> {
        self.list(Column::OwnerStart, Column::Owner, row)
    }

    /// Rows of an owner of the dictionary, ascending, verified.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn posting(&self, owner: usize) -> Result<&[u32], CorruptIndex> {
        self.list(Column::PostingStart, Column::Posting, owner)
    }

    /// The elements of `list` from `start[offset]` to `start[offset + 1]`, verified.
    fn list(&self, start: Column, list: Column, offset: usize) -> Result<&[u32], CorruptIndex> {
        let range = self.word(start, offset)? as usize..self.word(start, offset + 1)? as usize;
        self.verify(list, range.clone())?;
        let words = view(&self.bytes()[self.opened()?.ranges.column(list)]).expect("an aligned column");
        Ok(&words[range])
    }

    /// lastUpdated of a row with every digit, verified; `None` when it has none or an illegal one.
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

    /// Resource type of a row, verified.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn type_of(&self, row: usize) -> Result<ResourceType, CorruptIndex> {
        self.verify(Column::Type, row..row + 1)?;
        let start = self.opened()?.ranges.column(Column::Type).start + row;
        ResourceType::from_index(self.bytes()[start] as usize).ok_or(CorruptIndex("a type is none"))
    }

    /// Number of rows of a type, verified.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub(crate) fn rows_of_type(&self, resource_type: ResourceType) -> Result<u64, CorruptIndex> {
        match self.head().only_type() {
            Some(only) => Ok(if only == resource_type { self.head().rows } else { 0 }),
            None => {
                Ok(self.verify_columns(&[Column::TypeCount])?.type_count.get(resource_type.index()).map_or(0, |n| *n))
            }
        }
    }

    /// References (see [`kind`]) of all rows, DELETE entries and targets whose hash of (type, id) is `hash`, verified.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn references_of_hash(&self, hash: u64) -> Result<&[u32], CorruptIndex> {
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

    /// Verifies the columns that building the global index reads of entry `offset` of the sorted columns: kind, type,
    /// id, instant and version.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn verify_entry(&self, offset: usize) -> Result<(), CorruptIndex> {
        let reference = self.word(Column::SortedRef, offset)?;
        let number = (reference & !kind::MASK) as usize;
        match reference & kind::MASK {
            kind::TOMBSTONE => self.tombstone(EntryId::of(number)).map(drop),
            kind::TARGET => [Column::TargetType, Column::TargetId, Column::TargetBase]
                .into_iter()
                .try_for_each(|column| self.verify(column, number..number + 1)),
            kind::REFERENCE => self.reference(number).map(drop),
            kind::KEY => {
                self.verify(Column::KeyRow, number..number + 1)?;
                self.verify(Column::KeyText, number..number + 1)?;
                self.type_of(self.columns().key_row[number] as usize)?;
                self.verify_columns(&[Column::Heap]).map(drop)
            }
            _ => {
                self.row_id(number)?;
                self.verify(Column::VersionId, number..number + 1)
            }
        }
    }

    /// The columns, with type, id, base and instant of a DELETE entry verified.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn tombstone(&self, entry: EntryId) -> Result<Columns<'_>, CorruptIndex> {
        let i = entry.index();
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

    /// The columns, with row and base of a Provenance target verified, not its type and id.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn target(&self, offset: usize) -> Result<Columns<'_>, CorruptIndex> {
        self.verify(Column::TargetRow, offset..offset + 1)?;
        self.verify(Column::TargetBase, offset..offset + 1)?;
        Ok(self.columns())
    }

    /// Range in the target columns of the targets of a Provenance row, with the columns; their rows and bases are
    /// verified, not their types and ids.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn row_targets(&self, row: usize) -> Result<(Range<usize>, Columns<'_>), CorruptIndex> {
        let columns = self.columns();
        let bound = |first: usize| -> Result<usize, CorruptIndex> {
            let (mut low, mut high) = (0, columns.target_row.len());
            while low < high {
                let middle = low + (high - low) / 2;
                self.verify(Column::TargetRow, middle..middle + 1)?;
                match (columns.target_row[middle] as usize) < first {
                    true => low = middle + 1,
                    false => high = middle,
                }
            }
            Ok(low)
        };
        let targets = bound(row)?..bound(row + 1)?;
        self.verify(Column::TargetBase, targets.clone())?;
        Ok((targets, columns))
    }

    /// The columns, with type, name and base of a reference verified.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn reference(&self, number: usize) -> Result<Columns<'_>, CorruptIndex> {
        for column in [Column::ReferenceType, Column::ReferenceId, Column::ReferenceBase] {
            self.verify(column, number..number + 1)?;
        }
        let columns = self.columns();
        if columns.reference_base[number] >> 30 >= IdClass::Heap as u32 {
            self.verify_columns(&[Column::Heap])?;
        }
        Ok(columns)
    }

    /// The columns, with the sets and bases of the references of all rows verified, not their names.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn reference_sets(&self) -> Result<Columns<'_>, CorruptIndex> {
        self.verify_columns(&[
            Column::ReferenceSet,
            Column::SetStart,
            Column::SetReference,
            Column::ReferenceType,
            Column::ReferenceBase,
        ])
    }

    /// The row that an identifier belongs to.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub(crate) fn key_row(&self, key: usize) -> Result<usize, CorruptIndex> {
        self.word(Column::KeyRow, key).map(|row| row as usize)
    }

    /// The identifiers of a row.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub(crate) fn keys_of_row(&self, row: usize) -> Result<Range<usize>, CorruptIndex> {
        if self.head().keys == 0 {
            return Ok(0..0);
        }
        let rows = self.verify_columns(&[Column::KeyRow])?.key_row;
        Ok(rows.partition_point(|key| (*key as usize) < row)..rows.partition_point(|key| (*key as usize) <= row))
    }

    /// The references of one row, verified with their types and bases, not their names.
    ///
    /// # Errors
    /// As [`Segment::verify`].
    pub fn row_references(&self, row: usize) -> Result<&[u32], CorruptIndex> {
        if self.head().references == 0 {
            return Ok(&[]);
        }
        self.verify(Column::ReferenceSet, row..row + 1)?;
        let columns = self.columns();
        let set = columns.reference_set[row] as usize;
        self.verify(Column::SetStart, set..set + 2)?;
        let (start, end) = (columns.set_start[set] as usize, columns.set_start[set + 1] as usize);
        self.verify(Column::SetReference, start..end)?;
        let references = columns.set_reference.get(start..end).ok_or(CorruptIndex("a set points nowhere"))?;
        for number in references {
            let number = *number as usize;
            self.verify(Column::ReferenceType, number..number + 1)?;
            self.verify(Column::ReferenceBase, number..number + 1)?;
        }
        Ok(references)
    }

    /// Logical id of a row, verified.
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

    /// Logical id of an owner of the dictionary, verified.
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

    /// Every column, unverified: elements on pages that were not verified may be any value. Empty when the header is
    /// damaged.
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
            line_hash: longs(Column::LineHash),
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
            reference_set: words(Column::ReferenceSet),
            set_start: words(Column::SetStart),
            set_reference: words(Column::SetReference),
            reference_type: of(Column::ReferenceType),
            reference_id: ids(Column::ReferenceId),
            reference_base: words(Column::ReferenceBase),
            key_row: words(Column::KeyRow),
            key_text: words(Column::KeyText).as_chunks::<2>().0,
            fault: words(Column::Fault),
            fault_count: longs(Column::FaultCount),
            note_count: longs(Column::NoteCount),
            note_place: words(Column::NotePlace).as_chunks::<2>().0,
            type_count: longs(Column::TypeCount),
            exact: words(Column::Exact),
            restart: longs(Column::Restart),
            heap: of(Column::Heap),
        }
    }
}
