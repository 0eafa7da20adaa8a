//! The columns of a segment as typed slices, and the decoded values of single rows, owners, DELETE entries and targets.
//!
//! The caller has verified the pages that it reads (see [`reader`](crate::index::segment::reader)); nothing here checks
//! that.

use crate::casts::{low_u32, to_u32};
use crate::extract::fault::FaultKind;
use crate::fhir::id::Id;
use crate::fhir::instant::{InstantRef, NO_INSTANT};
use crate::fhir::resource_type::ResourceType;
use crate::ids::EntryId;
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
    pub line_hash: &'a [u64],
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
    pub reference_set: &'a [u32],
    pub set_start: &'a [u32],
    pub set_reference: &'a [u32],
    pub reference_type: &'a [u8],
    pub reference_id: &'a [[u8; 16]],
    pub reference_base: &'a [u32],
    pub key_row: &'a [u32],
    pub key_text: &'a [[u32; 2]],
    pub fault: &'a [u32],
    pub fault_count: &'a [u64],
    pub note_count: &'a [u64],
    pub note_place: &'a [[u32; 2]],
    pub type_count: &'a [u64],
    pub exact: &'a [u32],
    pub restart: &'a [u64],
    pub heap: &'a [u8],
}

/// A version that a pack dropped, as recorded beside the DELETE entry that ended it.
#[derive(Clone, Copy, Debug)]
pub struct PriorOwner<'a> {
    /// lastUpdated of the dropped version in ticks, [`NO_INSTANT`] for none.
    pub updated: i64,
    /// Whether a later version followed the DELETE entry, so that the entry no longer deletes anything.
    pub followed: bool,
    /// T of the first snapshot that held the dropped version, in ticks; `None` unless it came late.
    pub first_seen: Option<i64>,
    entries: &'a [[u64; 2]],
}

impl<'a> PriorOwner<'a> {
    /// Owners of the dropped version, as numbers in the owner dictionary of the segment.
    pub fn owners(&self) -> impl Iterator<Item = usize> + 'a {
        self.entries
            .iter()
            .map(|[pair, _]| (*pair >> 32) as u32)
            .filter(|owner| !matches!(*owner, NOBODY | FOLLOWED | LATE))
            .map(|owner| owner as usize)
    }
}

/// By what a reference names a resource of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::large_enum_variant, reason = "ids are inline, so that nothing is allocated for each name")]
pub enum ReferenceName<'a> {
    /// By its logical id.
    Id(Id),
    /// By a business identifier: system, a vertical line, value. The empty text is that of no resource.
    Identifier(&'a [u8]),
}

/// Details of a faulty line, as the index keeps them.
#[derive(Clone, Copy, Debug)]
pub struct FaultRow {
    /// Start of the line, from the start of the segment.
    pub offset: u32,
    /// Bytes of the line, at most `u32::MAX`.
    pub length: u32,
    /// Lines before it in the segment.
    pub line: u32,
    /// Offset in the line at which the fault was found.
    pub at: u32,
    /// Kind of the fault.
    pub kind: FaultKind,
}

impl<'a> Columns<'a> {
    /// Number of resource rows of the segment.
    pub fn rows(&self) -> usize {
        self.place.len()
    }

    /// Offset of the line of a row, from the start of the segment in the (uncompressed) file.
    pub fn offset(&self, row: usize) -> u32 {
        self.place[row][0]
    }

    /// Bytes of the line of a row without its line end.
    pub fn length(&self, row: usize) -> u32 {
        self.place[row][1]
    }

    /// Resource type of a row, from the type column.
    pub fn type_of(&self, row: usize) -> ResourceType {
        ResourceType::from_index(self.resource_type[row] as usize).expect("checked at open")
    }

    /// Logical id of a row, unpacked.
    pub fn id_of(&self, row: usize) -> Id {
        let class = IdClass::from_bits(u32::from(self.flags[row] & flag::ID_CLASS)).expect("checked at open");
        id_encoding::unpack_id(class, &self.id[row], self.heap).expect("checked at open")
    }

    /// Unpacks the id of an owner, DELETE entry or target; the two top bits of its base hold the class.
    fn based_id(&self, id: &[u8; 16], base: u32) -> Id {
        id_encoding::unpack_id(IdClass::from_bits(base >> 30).expect("checked at open"), id, self.heap)
            .expect("checked at open")
    }

    /// Id of an owner of the dictionary, unpacked.
    pub fn owner_id_of(&self, owner: usize) -> Id {
        self.based_id(&self.owner_id[owner], self.owner_base[owner])
    }

    /// Whether an owner has the same id as owner `its` of another segment. Packed ids are canonical: except for those
    /// in a heap, ids are equal if and only if their packed forms are.
    pub fn same_owner_id(&self, owner: usize, other: &Columns<'_>, its: usize) -> bool {
        let (class, packed) = (self.owner_base[owner] >> 30, &self.owner_id[owner]);
        if class != IdClass::Heap as u32 {
            return class == other.owner_base[its] >> 30 && *packed == other.owner_id[its];
        }
        self.owner_id_of(owner) == other.owner_id_of(its)
    }

    /// Resource type and id that a DELETE entry names.
    pub fn tombstone_of(&self, entry: EntryId) -> (ResourceType, Id) {
        let i = entry.index();
        let resource_type = ResourceType::from_index(self.tomb_type[i] as usize).expect("checked at open");
        (resource_type, self.based_id(&self.tomb_id[i], self.tomb_base[i]))
    }

    /// Resource type and id that a Provenance target names.
    pub fn target_of(&self, i: usize) -> (ResourceType, Id) {
        let resource_type = ResourceType::from_index(self.target_type[i] as usize).expect("checked at open");
        (resource_type, self.based_id(&self.target_id[i], self.target_base[i]))
    }

    /// References of a row, as numbers in the segment.
    pub fn references_of(&self, row: usize) -> &'a [u32] {
        self.reference_set.get(row).map_or(&[], |set| self.references_of_set(*set as usize))
    }

    /// References of a set.
    pub fn references_of_set(&self, set: usize) -> &'a [u32] {
        &self.set_reference[self.set_start[set] as usize..self.set_start[set + 1] as usize]
    }

    /// Resource type of what a reference leads to.
    pub fn reference_type_of(&self, i: usize) -> ResourceType {
        ResourceType::from_index(self.reference_type[i] as usize).expect("checked at open")
    }

    /// What a reference of the segment says beside its type.
    pub fn reference_name(&self, i: usize) -> ReferenceName<'a> {
        match self.reference_base[i] >> 30 {
            id_encoding::CONDITIONAL => {
                ReferenceName::Identifier(&self.heap[id_encoding::heap_range(&self.reference_id[i])])
            }
            _ => ReferenceName::Id(self.based_id(&self.reference_id[i], self.reference_base[i])),
        }
    }

    /// Resource type and text of an identifier of a row of context.
    pub fn key_of(&self, i: usize) -> (ResourceType, &'a [u8]) {
        let [place, length] = self.key_text[i];
        (self.type_of(self.key_row[i] as usize), &self.heap[place as usize..][..length as usize])
    }

    /// Text of a reference base of the segment, empty for the first.
    pub fn base_text(&self, base: usize) -> &'a str {
        let (offset, len) = (self.base[base * 2] as usize, self.base[base * 2 + 1] as usize);
        str::from_utf8(&self.heap[offset..offset + len]).expect("checked at open")
    }

    /// Number of reference bases of the segment, at least 1.
    pub fn bases(&self) -> usize {
        self.base.len() / 2
    }

    /// Owners of a row, as numbers in the owner dictionary of the segment.
    pub fn owners_of(&self, row: usize) -> &'a [u32] {
        &self.owner[self.owner_start[row] as usize..self.owner_start[row + 1] as usize]
    }

    /// versionId of a row as an ordered key.
    pub fn version_of(&self, row: usize) -> VersionKey<'a> {
        id_encoding::unpack_version(self.version[row], self.heap)
    }

    /// lastUpdated of a row with every digit; `None` when it has none or an illegal one.
    pub fn updated_of(&self, row: usize) -> Option<InstantRef<'a>> {
        let ticks = self.last_updated[row];
        let rest = if self.flags[row] & flag::EXACT != 0 { self.exact_digits(to_u32(row)) } else { &[] };
        (ticks != NO_INSTANT).then_some(InstantRef { ticks, rest })
    }

    /// Instant of a DELETE entry with every digit; `None` when it has none.
    pub fn tombstone_updated(&self, entry: EntryId) -> Option<InstantRef<'a>> {
        let ticks = self.tomb_updated[entry.index()];
        let rest = if self.exact.is_empty() { &[] } else { self.exact_digits(entry.0 | 1 << 31) };
        (ticks != NO_INSTANT).then_some(InstantRef { ticks, rest })
    }

    /// The dropped version that a DELETE entry ended, as a packed file records it; `None` when it records none.
    pub fn prior_owner_of(&self, entry: EntryId) -> Option<PriorOwner<'a>> {
        let entries = self.prior_owner_entries(entry);
        entries.first().map(|[pair, ticks]| PriorOwner {
            updated: *ticks as i64,
            followed: (*pair >> 32) as u32 == FOLLOWED,
            first_seen: entries.last().filter(|[pair, _]| (*pair >> 32) as u32 == LATE).map(|[_, ticks]| *ticks as i64),
            entries,
        })
    }

    /// The raw entries of [`Columns::prior_owner_of`]: DELETE entry in the lower, owner or sentinel in the upper half;
    /// ticks.
    pub fn prior_owner_entries(&self, entry: EntryId) -> &'a [[u64; 2]] {
        let (entries, _) = self.tomb_left.as_chunks::<2>();
        let first = entries.partition_point(|[pair, _]| low_u32(*pair) < entry.0);
        let last = entries.partition_point(|[pair, _]| low_u32(*pair) <= entry.0);
        &entries[first..last]
    }

    /// Fraction digits beyond the seventh of a row, or of a DELETE entry (top bit set); empty when there are none. The
    /// column is sorted by row.
    fn exact_digits(&self, reference: u32) -> &'a [u8] {
        let (entries, _) = self.exact.as_chunks::<3>();
        match entries.binary_search_by_key(&reference, |entry| entry[0]) {
            Ok(i) => &self.heap[entries[i][1] as usize..][..entries[i][2] as usize],
            Err(_) => &[],
        }
    }

    /// Range in the target columns of the targets of a Provenance row; targets are stored in the order of rows.
    pub fn targets_of(&self, row: usize) -> std::ops::Range<usize> {
        let row = to_u32(row);
        self.target_row.partition_point(|target| *target < row)
            ..self.target_row.partition_point(|target| *target <= row)
    }

    /// Details of the faulty lines, at most [`SEGMENT_FAULTS_MAX`](crate::limits::SEGMENT_FAULTS_MAX).
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
