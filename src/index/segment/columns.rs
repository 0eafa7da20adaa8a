//! The columns of a segment as typed slices, and what several of them tell together about a row, an owner or a deletion.
//!
//! Whoever reads them has had them proven (see [`segment`](crate::index::segment::reader)); nothing here looks whether that was done.

use crate::casts::{low_u32, to_u32};
use crate::extract::fault::FaultKind;
use crate::fhir::id::Id;
use crate::fhir::instant::{InstantRef, NO_INSTANT};
use crate::fhir::resource_type::ResourceType;
use crate::index::segment::id_encoding::{self, IdClass, VersionKey};
use crate::index::segment::layout::flag;
use crate::store::packed::seek_table::{FOLLOWED, LATE, NOBODY};

/// The columns of a segment (see [`COLUMNS`](crate::index::segment::layout::COLUMNS) for what each holds).
#[allow(missing_docs)]
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    pub place: &'a [[u32; 2]],
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
pub struct PriorOwner<'a> {
    /// Its lastUpdated in ticks, the sentinel for none.
    pub updated: i64,
    /// Whether a later version followed the DELETE entry, so that it deletes nothing any more.
    pub followed: bool,
    /// T of the first snapshot that held it, in ticks, if it came late.
    pub first_seen: Option<i64>,
    entries: &'a [[u64; 2]],
}

impl<'a> PriorOwner<'a> {
    /// Its owners, as numbers in the segment's dictionary.
    pub fn owners(&self) -> impl Iterator<Item = usize> + 'a {
        self.entries
            .iter()
            .map(|[start_offset, _]| (*start_offset >> 32) as u32)
            .filter(|position| !matches!(*position, NOBODY | FOLLOWED | LATE))
            .map(|offset| offset as usize)
    }
}

/// A faulty line, as the index keeps it.
#[derive(Clone, Copy, Debug)]
pub struct FaultRow {
    /// Start of the line, from the start of the segment.
    pub offset: u32,
    /// Bytes of the line, at most `u32::MAX`.
    pub length: u32,
    /// Lines before it in the segment.
    pub line: u32,
    /// Byte in the line where it was noticed.
    pub at: u32,
    /// What is wrong.
    pub kind: FaultKind,
}

impl<'a> Columns<'a> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.place.len()
    }

    /// Where the line of a row begins, from the start of the segment.
    pub fn offset(&self, row: usize) -> u32 {
        self.place[row][0]
    }

    /// Bytes of a row's line without its end.
    pub fn length(&self, row: usize) -> u32 {
        self.place[row][1]
    }

    /// A row's resource type.
    pub fn type_of(&self, row: usize) -> ResourceType {
        ResourceType::from_index(self.resource_type[row] as usize).expect("checked at open")
    }

    /// A row's id.
    pub fn id_of(&self, row: usize) -> Id {
        let class = IdClass::from_bits(u32::from(self.flags[row] & flag::ID_CLASS)).expect("checked at open");
        id_encoding::unpack_id(class, &self.id[row], self.heap).expect("checked at open")
    }

    /// The id of an entry whose base element carries its class.
    fn based_id(&self, id: &[u8; 16], base: u32) -> Id {
        id_encoding::unpack_id(IdClass::from_bits(base >> 30).expect("checked at open"), id, self.heap)
            .expect("checked at open")
    }

    /// The id of an owner.
    pub fn owner_id_of(&self, owner: usize) -> Id {
        self.based_id(&self.owner_id[owner], self.owner_base[owner])
    }

    /// Whether an owner has the same id as one of another segment. Packed ids are canonical: but for those in a heap,
    /// they are equal where the ids are.
    pub fn same_owner_id(&self, owner: usize, other: &Columns<'_>, its: usize) -> bool {
        let (class, packed) = (self.owner_base[owner] >> 30, &self.owner_id[owner]);
        if class != IdClass::Heap as u32 {
            return class == other.owner_base[its] >> 30 && *packed == other.owner_id[its];
        }
        self.owner_id_of(owner) == other.owner_id_of(its)
    }

    /// Type and id of a DELETE entry.
    pub fn tombstone_of(&self, i: usize) -> (ResourceType, Id) {
        let resource_type = ResourceType::from_index(self.tomb_type[i] as usize).expect("checked at open");
        (resource_type, self.based_id(&self.tomb_id[i], self.tomb_base[i]))
    }

    /// Type and id of a Provenance target.
    pub fn target_of(&self, i: usize) -> (ResourceType, Id) {
        let resource_type = ResourceType::from_index(self.target_type[i] as usize).expect("checked at open");
        (resource_type, self.based_id(&self.target_id[i], self.target_base[i]))
    }

    /// Text of a base, empty for the first.
    pub fn base_text(&self, base: usize) -> &'a str {
        let (offset, len) = (self.base[base * 2] as usize, self.base[base * 2 + 1] as usize);
        str::from_utf8(&self.heap[offset..offset + len]).expect("checked at open")
    }

    /// Number of bases, at least 1.
    pub fn bases(&self) -> usize {
        self.base.len() / 2
    }

    /// The owners of a row, as numbers in the segment's dictionary.
    pub fn owners_of(&self, row: usize) -> &'a [u32] {
        &self.owner[self.owner_start[row] as usize..self.owner_start[row + 1] as usize]
    }

    /// A row's version.
    pub fn version_of(&self, row: usize) -> VersionKey<'a> {
        id_encoding::unpack_version(self.version[row], self.heap)
    }

    /// A row's lastUpdated, with every digit.
    pub fn updated_of(&self, row: usize) -> Option<InstantRef<'a>> {
        let ticks = self.last_updated[row];
        let rest = if self.flags[row] & flag::EXACT != 0 { self.exact_digits(to_u32(row)) } else { &[] };
        (ticks != NO_INSTANT).then_some(InstantRef { ticks, rest })
    }

    /// A DELETE entry's instant, with every digit.
    pub fn tombstone_updated(&self, i: usize) -> Option<InstantRef<'a>> {
        let ticks = self.tomb_updated[i];
        let rest = if self.exact.is_empty() { &[] } else { self.exact_digits(to_u32(i) | 1 << 31) };
        (ticks != NO_INSTANT).then_some(InstantRef { ticks, rest })
    }

    /// What a packed file tells of the version that a DELETE entry ended and that has left with it.
    pub fn prior_owner_of(&self, tombstone: usize) -> Option<PriorOwner<'a>> {
        let entries = self.prior_owner_entries(tombstone);
        entries.first().map(|[position, ticks]| PriorOwner {
            updated: *ticks as i64,
            followed: (*position >> 32) as u32 == FOLLOWED,
            first_seen: entries
                .last()
                .filter(|[offset, _]| (*offset >> 32) as u32 == LATE)
                .map(|[_, ticks]| *ticks as i64),
            entries,
        })
    }

    /// The same as it lies there: (DELETE entry, and above it the owner or a sentinel; ticks).
    pub fn prior_owner_entries(&self, tombstone: usize) -> &'a [[u64; 2]] {
        let (entries, _) = self.tomb_left.as_chunks::<2>();
        let first = entries.partition_point(|[position, _]| (low_u32(*position) as usize) < tombstone);
        let last = entries.partition_point(|[offset, _]| (low_u32(*offset) as usize) <= tombstone);
        &entries[first..last]
    }

    /// Digits beyond the seventh; the column is sorted by its references.
    fn exact_digits(&self, reference: u32) -> &'a [u8] {
        let (entries, _) = self.exact.as_chunks::<3>();
        match entries.binary_search_by_key(&reference, |entry| entry[0]) {
            Ok(i) => &self.heap[entries[i][1] as usize..][..entries[i][2] as usize],
            Err(_) => &[],
        }
    }

    /// The targets (numbers in the target columns) of a Provenance row; they are stored in the order of rows.
    pub fn targets_of(&self, row: usize) -> std::ops::Range<usize> {
        let row = to_u32(row);
        self.target_row.partition_point(|position| *position < row)
            ..self.target_row.partition_point(|offset| *offset <= row)
    }

    /// The faults whose details are kept.
    pub fn faults(&self) -> impl Iterator<Item = FaultRow> + 'a {
        self.fault.as_chunks::<5>().0.iter().map(|[offset, length, line, position, kind]| FaultRow {
            offset: *offset,
            length: *length,
            line: *line,
            at: *position,
            kind: FaultKind::ALL[*kind as usize],
        })
    }
}
