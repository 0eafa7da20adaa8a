//! Collects the facts of the lines of one segment and encodes them as columns.
//!
//! Each worker owns one builder. Its memory is bounded by [`SEGMENT_ROWS_MAX`] and [`SEGMENT_FAULTS_MAX`]. Lines are
//! found by `line_splitter`; the bytes are laid out by `layout`.

use std::collections::HashMap;

use crate::casts::{to_u8, to_u32, u64_to_u32};
use crate::extract::facts::{Facts, LastUpdated, ResourceFacts};
use crate::extract::fault::{Fault, FaultKind};
use crate::extract::rules::LineRules;
use crate::fhir::id::{Id, IdRule};
use crate::fhir::instant::NO_INSTANT;
use crate::fhir::reference::{OddReference, PatientReferences, Reference};
use crate::fhir::resource_type::ResourceType;
use crate::ids::EntryId;
use crate::index::segment::id_encoding::{self, IdClass};
use crate::index::segment::key_table::KeyTable;
use crate::index::segment::layout::{self, COLUMN_COUNT, Column, SegmentHeader, ZONE_ROWS, flag, kind};
use crate::index::segment::radix_sort::sort_by_hash;
use crate::index::segment::reference_columns::ReferenceColumns;
use crate::index::segment::row_note::RowNote;
use crate::key_set::resource_key::entity_hash;
use crate::limits::{SEGMENT_FAULTS_MAX, SEGMENT_ROWS_MAX};
use crate::sys::little_endian::bytes_of;

/// An owner of the dictionary: reference base and id of a patient, with their hash.
#[derive(Clone, Copy)]
struct OwnerName {
    hash: u64,
    base: u32,
    /// Place and length of the id in the builder's `owner_ids`.
    id: (u32, u32),
}

/// Targets of one row for which the table keeps its memory: a table that one row made large is not emptied, slot by slot,
/// for every row behind it.
const ROW_TARGETS_KEPT: usize = 4096;

/// A segment under construction.
#[derive(Default)]
pub(crate) struct SegmentBuilder {
    /// Which ids are legal.
    ids: IdRule,
    /// Which Patient references are followed.
    patient_references: PatientReferences,
    head: SegmentHeader,
    place: Vec<[u32; 2]>,
    last_updated: Vec<i64>,
    version: Vec<u64>,
    id: Vec<[u8; 16]>,
    resource_type: Vec<u8>,
    flags: Vec<u8>,
    line_hash: Vec<u64>,
    owner_start: Vec<u32>,
    owner: Vec<u32>,
    sorted: Vec<(u64, u32)>,
    sorted_spare: Vec<(u64, u32)>,
    /// Places in `owner_list`, by the hash of base and id.
    owners: KeyTable,
    owner_list: Vec<OwnerName>,
    /// Ids of the owners, one behind another.
    owner_ids: Vec<u8>,
    /// For each owner the last row that has it, plus 1; 0 for none. A row may name as many patients as fit into a line.
    owner_last_row: Vec<u32>,
    /// The owner met last: neighbouring rows mostly share it.
    last_owner: Option<(String, u32)>,
    /// Reference bases; the first is the empty one of relative references.
    bases: Vec<String>,
    base_numbers: HashMap<String, u32>,
    base_count: Vec<u64>,
    tomb_type: Vec<u8>,
    tomb_id: Vec<[u8; 16]>,
    tomb_base: Vec<u32>,
    tomb_updated: Vec<i64>,
    tomb_left: Vec<[u64; 2]>,
    target_row: Vec<u32>,
    target_type: Vec<u8>,
    target_id: Vec<[u8; 16]>,
    target_base: Vec<u32>,
    /// Targets of the Provenance row met last, by the hash of type and id: numbers from its first one on.
    row_targets: KeyTable,
    /// The first target of that row.
    first_target: usize,
    references: ReferenceColumns,
    fault: Vec<u32>,
    fault_count: Vec<u64>,
    note_count: Vec<u64>,
    note_place: Vec<[u32; 2]>,
    type_count: Vec<u64>,
    exact: Vec<[u32; 3]>,
    restart: Vec<u64>,
    heap: Vec<u8>,
}

impl SegmentBuilder {
    /// A builder without a segment, of rows that are read by these rules; call [`SegmentBuilder::begin`] before anything
    /// else.
    pub(crate) fn new(rules: LineRules) -> SegmentBuilder {
        let LineRules { ids, patient_references, .. } = rules;
        SegmentBuilder { ids, patient_references, ..SegmentBuilder::default() }
    }

    /// Begins an empty segment at `start` in the uncompressed file. The columns keep their memory from segment to
    /// segment: allocating it again, page by page, costs a twentieth of a build.
    pub(crate) fn begin(&mut self, start: u64) {
        /// Empties vectors of one element type.
        fn clear<T>(columns: &mut [&mut Vec<T>]) {
            columns.iter_mut().for_each(|column| column.clear());
        }
        self.head = SegmentHeader { start, end: start, ..SegmentHeader::default() };
        clear(&mut [&mut self.last_updated, &mut self.tomb_updated]);
        clear(&mut [&mut self.version, &mut self.line_hash, &mut self.base_count, &mut self.fault_count]);
        clear(&mut [&mut self.type_count, &mut self.restart]);
        clear(&mut [&mut self.id, &mut self.tomb_id, &mut self.target_id]);
        clear(&mut [
            &mut self.resource_type,
            &mut self.flags,
            &mut self.tomb_type,
            &mut self.target_type,
            &mut self.heap,
        ]);
        clear(&mut [&mut self.owner_start, &mut self.owner, &mut self.fault]);
        self.place.clear();
        clear(&mut [&mut self.tomb_base, &mut self.target_row, &mut self.target_base]);
        self.sorted.clear();
        self.references.begin();
        self.owners.clear(usize::MAX);
        self.owner_list.clear();
        self.owner_ids.clear();
        self.owner_last_row.clear();
        self.last_owner = None;
        self.bases.clear();
        self.base_numbers.clear();
        self.tomb_left.clear();
        self.exact.clear();
        self.note_count.clear();
        self.note_place.clear();
        self.owner_start.push(0);
        self.bases.push(String::new());
        self.base_count.push(0);
        self.fault_count.resize(FaultKind::ALL.len(), 0);
        self.note_count.resize(RowNote::ALL.len(), 0);
        self.note_place.resize(RowNote::ALL.len(), [0; 2]);
        self.type_count.resize(ResourceType::COUNT, 0);
    }

    /// Whether the segment has [`SEGMENT_ROWS_MAX`] rows, DELETE entries and targets, and must end before the next
    /// line.
    pub(crate) fn is_full(&self) -> bool {
        let elements = self.place.len() + self.tomb_type.len() + self.target_row.len();
        elements.max(self.references.references()) >= SEGMENT_ROWS_MAX
    }

    /// Whether the segment has any line, blank and faulty ones included.
    pub(crate) fn has_lines(&self) -> bool {
        self.head.lines > 0
    }

    /// Offset in the (uncompressed) file at which the segment begins.
    pub(crate) fn start(&self) -> u64 {
        self.head.start
    }

    /// Counts a blank line.
    pub(crate) fn count_blank(&mut self) {
        self.head.lines += 1;
        self.head.blank += 1;
    }

    /// Counts a faulty line at `offset` in the file, and keeps its details up to [`SEGMENT_FAULTS_MAX`] of them.
    pub(crate) fn push_fault(&mut self, offset: u64, length: u64, fault: Fault) {
        let clip = |n: u64| u64_to_u32(n.min(u64::from(u32::MAX)));
        self.fault_count[fault.kind as usize] += 1;
        if self.fault.len() / 5 < SEGMENT_FAULTS_MAX {
            self.fault.extend([
                clip(offset - self.head.start),
                clip(length),
                clip(self.head.lines),
                clip(fault.at),
                fault.kind as u32,
            ]);
        }
        self.head.lines += 1;
        self.head.faulty += 1;
    }

    /// Adds a seek point of a compressed file: offsets at which decoding can begin.
    pub(crate) fn push_seek_point(&mut self, uncompressed: u64, compressed: u64) {
        self.restart.extend([uncompressed, compressed]);
    }

    /// Adds a resource line of `length` bytes at `offset` in the file, with its owners and targets; `line_hash` is the
    /// xxh3 of the line without its end.
    pub(crate) fn push_row(
        &mut self,
        offset: u64,
        length: u32,
        leading_space: bool,
        line_hash: u64,
        facts: &impl ResourceFacts,
    ) {
        let row = to_u32(self.place.len());
        let (resource_type, id) = (facts.resource_type(), facts.id());
        let (class, packed) = id_encoding::pack_id(id, &mut self.heap);
        let mut flags = class as u8;
        self.head.add_type(facts.resource_type().index());
        if leading_space {
            flags |= flag::LEADING_SPACE;
        }
        let ticks = match facts.last_updated() {
            LastUpdated::At(instant) => {
                if !instant.rest.is_empty() {
                    flags |= flag::EXACT;
                    let place = id_encoding::push_heap(&mut self.heap, instant.rest);
                    self.exact.push([row, place, to_u32(instant.rest.len())]);
                }
                instant.ticks
            }
            LastUpdated::Missing => NO_INSTANT,
            LastUpdated::Illegal => {
                flags |= flag::ILLEGAL_UPDATED;
                self.head.illegal_updated += 1;
                NO_INSTANT
            }
        };
        self.head.undated += u64::from(ticks == NO_INSTANT);
        self.place.push([u64_to_u32(offset - self.head.start), length]);
        self.last_updated.push(ticks);
        self.version.push(id_encoding::pack_version(facts.version_id(), &mut self.heap));
        self.id.push(packed);
        self.resource_type.push(to_u8(resource_type.index()));
        self.head.flags |= u64::from(flags);
        self.flags.push(flags);
        self.line_hash.push(line_hash);
        self.type_count[resource_type.index()] += 1;
        self.sorted.push((entity_hash(resource_type, id), row | kind::ROW));
        self.push_owner(facts, row);
        self.head.row_bytes += u64::from(length) + 1;
        let is_unowned = self.owner_start.last() == Some(&(to_u32(self.owner.len())));
        self.head.unowned += u64::from(is_unowned);
        if is_unowned && facts.has_identifier() {
            self.push_note(row, RowNote::Reference(OddReference::IdentifierOnly));
        }
        // A UUID is R4's.
        if class != IdClass::Uuid && !Id::is_r4(id) {
            self.push_note(row, RowNote::WideId);
        }
        self.head.lines += 1;
        self.owner_start.push(to_u32(self.owner.len()));
    }

    /// Adds the references of the row that was added last. `read` is given its number and type, what they are added to, and
    /// the heap; it says whether the row is a Device's with a key `patient`.
    pub(crate) fn push_references(
        &mut self,
        read: impl FnOnce((u32, ResourceType), &mut ReferenceColumns, &mut Vec<u8>) -> bool,
    ) {
        let number = self.place.len() - 1;
        let of_type = ResourceType::from_index(usize::from(self.resource_type[number])).expect("a type of a row");
        if read((to_u32(number), of_type), &mut self.references, &mut self.heap) {
            self.flags[number] |= flag::NAMES_PATIENT;
            self.head.flags |= u64::from(flag::NAMES_PATIENT);
        }
    }

    /// Adds the owners of a row, and its targets if it is a Provenance.
    fn push_owner(&mut self, facts: &impl ResourceFacts, row: u32) {
        let resource_type = facts.resource_type();
        if resource_type == ResourceType::PATIENT {
            // A Patient is in its own compartment (COMP-02).
            let own = self.owner_number("", facts.id());
            self.add_owner(row, own);
        }
        for text in facts.reference_bytes() {
            let number = match &self.last_owner {
                Some((last, number)) if last.as_bytes() == text && resource_type != ResourceType::PROVENANCE => {
                    let base = self.owner_list[*number as usize].base;
                    self.base_count[base as usize] += 1;
                    *number
                }
                _ => {
                    let text = str::from_utf8(text).unwrap_or_default();
                    let reference = match Reference::read(text, self.ids, self.patient_references) {
                        Ok(reference) => reference,
                        Err(form) => {
                            form.into_iter().for_each(|form| self.push_note(row, RowNote::Reference(form)));
                            continue;
                        }
                    };
                    if resource_type == ResourceType::PROVENANCE {
                        // Patients, too: a Patient row that links to a member is in that member's compartment.
                        self.push_target(row, &reference);
                    }
                    if reference.resource_type != ResourceType::PATIENT {
                        continue;
                    }
                    let number = self.owner_number(reference.base, reference.id.as_bytes());
                    let base = self.owner_list[number as usize].base;
                    self.base_count[base as usize] += 1;
                    let mut last = self.last_owner.take().map(|(text, _)| text).unwrap_or_default();
                    last.clear();
                    last.push_str(text);
                    self.last_owner = Some((last, number));
                    number
                }
            };
            self.add_owner(row, number);
        }
    }

    /// Counts a note on the row that is being added, which is the next line.
    #[cold]
    fn push_note(&mut self, row: u32, note: RowNote) {
        let kind = note.index();
        if self.note_count[kind] == 0 {
            self.note_place[kind] = [self.place[row as usize][0], u64_to_u32(self.head.lines.min(u64::from(u32::MAX)))];
        }
        self.note_count[kind] += 1;
        self.head.notes += 1;
    }

    /// Adds an owner to the row that is being added, unless it has that owner already.
    fn add_owner(&mut self, row: u32, number: u32) {
        let last_row = &mut self.owner_last_row[number as usize];
        if std::mem::replace(last_row, row + 1) != row + 1 {
            self.owner.push(number);
        }
    }

    /// Number of a patient in the owner dictionary, added if it is new.
    fn owner_number(&mut self, base: &str, id: &[u8]) -> u32 {
        let hash = id_encoding::owner_hash(base.as_bytes(), id);
        let base = self.base_number(base);
        let (list, ids) = (&self.owner_list, &self.owner_ids);
        let is_same = |number: u32| {
            let known = &list[number as usize];
            known.base == base && id_of(ids, known) == id
        };
        let (number, was_known) = self.owners.number(hash, is_same);
        if !was_known {
            let place = to_u32(self.owner_ids.len());
            self.owner_ids.extend_from_slice(id);
            self.owner_list.push(OwnerName { hash, base, id: (place, to_u32(id.len())) });
            self.owner_last_row.push(0);
        }
        number
    }

    /// Number of a reference base of the segment, added if it is new; 0 is the empty one.
    fn base_number(&mut self, base: &str) -> u32 {
        if base.is_empty() {
            return 0;
        }
        if let Some(number) = self.base_numbers.get(base) {
            return *number;
        }
        let number = to_u32(self.bases.len());
        self.bases.push(base.to_string());
        self.base_numbers.insert(base.to_string(), number);
        self.base_count.push(0);
        number
    }

    /// Adds a target of a Provenance row, once however often the row names it: versions of one resource are one target.
    fn push_target(&mut self, row: u32, reference: &Reference<'_>) {
        let (resource_type, id) = (reference.resource_type, reference.id.as_bytes());
        let hash = entity_hash(resource_type, id);
        let base = self.base_number(reference.base);
        if self.target_row.last() != Some(&row) {
            self.row_targets.clear(ROW_TARGETS_KEPT);
            self.first_target = self.target_row.len();
        }
        // Equal ids of a target are packed alike, but for their place in the heap.
        let heap_length = self.heap.len();
        let (class, packed) = id_encoding::pack_id(id, &mut self.heap);
        let (types, bases, ids) = (&self.target_type, &self.target_base, &self.target_id);
        let (heap, first) = (&self.heap, self.first_target);
        let of_type = to_u8(resource_type.index());
        let is_same = |number: u32| {
            let number = first + number as usize;
            let is_same_id = || match class {
                IdClass::Heap => &heap[id_encoding::heap_range(&ids[number])] == id,
                IdClass::Inline | IdClass::Uuid => ids[number] == packed,
            };
            types[number] == of_type && bases[number] == base | (class as u32) << 30 && is_same_id()
        };
        if self.row_targets.number(hash, is_same).1 {
            return self.heap.truncate(heap_length);
        }
        let number = to_u32(self.target_row.len());
        self.target_row.push(row);
        self.target_type.push(of_type);
        self.target_id.push(packed);
        self.target_base.push(base | (class as u32) << 30);
        self.sorted.push((hash, number | kind::TARGET));
    }

    /// Adds the DELETE entries of a Bundle line.
    pub(crate) fn push_tombstone_line(&mut self, facts: &Facts) {
        self.head.lines += 1;
        self.head.tombstone_lines += 1;
        for url in facts.tombstones() {
            let Some(reference) = Reference::parse(url) else { continue };
            let number = to_u32(self.tomb_type.len());
            let ticks = match facts.last_updated() {
                LastUpdated::At(instant) => {
                    if !instant.rest.is_empty() {
                        let place = id_encoding::push_heap(&mut self.heap, instant.rest);
                        self.exact.push([number | 1 << 31, place, to_u32(instant.rest.len())]);
                    }
                    instant.ticks
                }
                LastUpdated::Missing | LastUpdated::Illegal => NO_INSTANT,
            };
            let (class, packed) = id_encoding::pack_id(reference.id.as_bytes(), &mut self.heap);
            let base = self.base_number(reference.base) | (class as u32) << 30;
            self.tomb_type.push(to_u8(reference.resource_type.index()));
            self.tomb_id.push(packed);
            self.tomb_base.push(base);
            self.tomb_updated.push(ticks);
            let hash = entity_hash(reference.resource_type, reference.id.as_bytes());
            self.sorted.push((hash, number | kind::TOMBSTONE));
        }
    }

    /// Number of DELETE entries of the segment so far.
    pub(crate) fn tombstone_count(&self) -> usize {
        self.tomb_type.len()
    }

    /// Adds an owner, or a sentinel, of the dropped version that a DELETE entry ended; `updated` is its lastUpdated in
    /// ticks. Called in the order of DELETE entries.
    pub(crate) fn push_prior_owners(&mut self, entry: EntryId, updated: i64, owner: Result<(&str, Id), u32>) {
        let owner = owner.map_or_else(|sentinel| sentinel, |(base, id)| self.owner_number(base, id.as_bytes()));
        self.tomb_left.push([u64::from(entry.0) | u64::from(owner) << 32, updated as u64]);
    }

    /// Encodes the segment, in the memory of `out`. `end` is its end in the (uncompressed) file, `content` the xxh3 of
    /// the bytes of the file that it covers.
    pub(crate) fn finish(&mut self, end: u64, content: u64, out: Vec<u8>) -> Vec<u8> {
        self.head.end = end;
        self.head.content = content;
        self.summarise();
        // 1. Number owners in the order of their hashes, so that building the global index takes slices without a sort.
        let mut order: Vec<u32> = (0..to_u32(self.owner_list.len())).collect();
        order.sort_unstable_by(|a, b| {
            let (a, b) = (&self.owner_list[*a as usize], &self.owner_list[*b as usize]);
            let id = |owner: &OwnerName| id_of(&self.owner_ids, owner);
            a.hash.cmp(&b.hash).then_with(|| (a.base, id(a)).cmp(&(b.base, id(b))))
        });
        let mut rank = vec![0u32; order.len()];
        for (new, old) in order.iter().enumerate() {
            rank[*old as usize] = to_u32(new);
        }
        for owner in &mut self.owner {
            *owner = rank[*owner as usize];
        }
        // 2. Columns that follow from others: postings, rows of several owners, zones.
        let (posting_start, posting) = postings(&self.owner_start, &self.owner, order.len());
        let rows = 0..to_u32(self.place.len());
        let owners_of = |row: u32| self.owner_start[row as usize + 1] - self.owner_start[row as usize];
        let several: Vec<u32> = rows.filter(|row| owners_of(*row) > 1).collect();
        // A zone with an undated row has the greatest value, so that no filter skips it.
        let zone = |rows: &[i64]| match rows.contains(&NO_INSTANT) {
            true => i64::MAX,
            false => rows.iter().copied().max().unwrap_or(NO_INSTANT),
        };
        let updated_max: Vec<i64> = self.last_updated.chunks(ZONE_ROWS).map(zone).collect();
        // 3. Owner numbers of dropped versions; a sentinel has no rank and stays.
        for [i, _] in &mut self.tomb_left {
            if let Some(new) = rank.get((*i >> 32) as usize) {
                *i = *i & u64::from(u32::MAX) | u64::from(*new) << 32;
            }
        }
        // 4. Owner dictionary, hash order of all names, bases.
        let mut owner_hash = Vec::with_capacity(order.len());
        let mut owner_id = Vec::with_capacity(order.len());
        let mut owner_base = Vec::with_capacity(order.len());
        for old in order {
            let key = self.owner_list[old as usize];
            let (class, packed): (IdClass, _) = id_encoding::pack_id(id_of(&self.owner_ids, &key), &mut self.heap);
            owner_hash.push(key.hash);
            owner_id.push(packed);
            owner_base.push(key.base | (class as u32) << 30);
        }
        let mut references = std::mem::take(&mut self.references);
        let (mut heap, mut sorted) = (std::mem::take(&mut self.heap), std::mem::take(&mut self.sorted));
        let types = std::mem::take(&mut self.resource_type);
        let encoded = references.encode(self.ids, &mut heap, (&mut sorted, &types), &mut |base| self.base_number(base));
        (self.heap, self.sorted, self.resource_type) = (heap, sorted, types);
        self.head.references = references.references() as u64;
        self.head.keys = references.key_row.len() as u64;
        self.head.bases = self.bases.len() as u64;
        sort_by_hash(&mut self.sorted, &mut self.sorted_spare, |entry| entry.0);
        let (sorted_hash, sorted_ref): (Vec<u64>, Vec<u32>) = self.sorted.iter().copied().unzip();
        let mut base = Vec::new();
        for text in &self.bases {
            base.push(id_encoding::push_heap(&mut self.heap, text.as_bytes()));
            base.push(to_u32(text.len()));
        }
        self.exact.sort_unstable();

        // 5. Lay them out.
        let mut columns: [&[u8]; COLUMN_COUNT] = [&[]; COLUMN_COUNT];
        let mut put = |column: Column, bytes| columns[column as usize] = bytes;
        put(Column::Place, bytes_of(self.place.as_flattened()));
        put(Column::LastUpdated, bytes_of(&self.last_updated));
        put(Column::VersionId, bytes_of(&self.version));
        put(Column::Id, self.id.as_flattened());
        put(Column::Type, &self.resource_type);
        put(Column::Flags, &self.flags);
        put(Column::LineHash, bytes_of(&self.line_hash));
        put(Column::OwnerStart, bytes_of(&self.owner_start));
        put(Column::Owner, bytes_of(&self.owner));
        put(Column::PostingStart, bytes_of(&posting_start));
        put(Column::Posting, bytes_of(&posting));
        put(Column::Several, bytes_of(&several));
        put(Column::UpdatedMax, bytes_of(&updated_max));
        put(Column::SortedHash, bytes_of(&sorted_hash));
        put(Column::SortedRef, bytes_of(&sorted_ref));
        put(Column::OwnerHash, bytes_of(&owner_hash));
        put(Column::OwnerId, owner_id.as_flattened());
        put(Column::OwnerBase, bytes_of(&owner_base));
        put(Column::Base, bytes_of(&base));
        put(Column::BaseCount, bytes_of(&self.base_count));
        put(Column::TombType, &self.tomb_type);
        put(Column::TombId, self.tomb_id.as_flattened());
        put(Column::TombBase, bytes_of(&self.tomb_base));
        put(Column::TombUpdated, bytes_of(&self.tomb_updated));
        put(Column::TombLeft, bytes_of(self.tomb_left.as_flattened()));
        put(Column::TargetRow, bytes_of(&self.target_row));
        put(Column::TargetType, &self.target_type);
        put(Column::TargetId, self.target_id.as_flattened());
        put(Column::TargetBase, bytes_of(&self.target_base));
        put(Column::ReferenceSet, bytes_of(&references.row_set));
        put(Column::SetStart, bytes_of(&encoded.set_start));
        put(Column::SetReference, bytes_of(&references.set_reference));
        put(Column::ReferenceType, &encoded.of_type);
        put(Column::ReferenceId, encoded.id.as_flattened());
        put(Column::ReferenceBase, bytes_of(&encoded.base));
        put(Column::KeyRow, bytes_of(&references.key_row));
        put(Column::KeyText, bytes_of(references.key_text.as_flattened()));
        put(Column::Fault, bytes_of(&self.fault));
        put(Column::FaultCount, bytes_of(&self.fault_count));
        put(Column::NoteCount, bytes_of(&self.note_count));
        put(Column::NotePlace, bytes_of(self.note_place.as_flattened()));
        put(Column::TypeCount, bytes_of(&self.type_count));
        put(Column::Exact, bytes_of(self.exact.as_flattened()));
        put(Column::Restart, bytes_of(&self.restart));
        put(Column::Heap, &self.heap);
        let segment = layout::encode(self.head, &columns, out);
        self.references = references;
        segment
    }

    /// Fills the words of the header that summarise columns, so that most queries need not read these.
    fn summarise(&mut self) {
        let greatest = |ticks: &[i64]| ticks.iter().copied().max().unwrap_or(NO_INSTANT) as u64;
        self.head.updated_max = greatest(&self.last_updated);
        self.head.tombstone_updated_max = greatest(&self.tomb_updated);
        self.head.tombstones_undated = self.tomb_updated.iter().filter(|ticks| **ticks == NO_INSTANT).count() as u64;
        self.head.rows = self.place.len() as u64;
        self.head.tombstones = self.tomb_type.len() as u64;
        self.head.targets = self.target_row.len() as u64;
        self.head.left = self.tomb_left.len() as u64;
        self.head.owners = self.owner_list.len() as u64;
    }
}

/// The id of an owner, which lies in `ids`.
fn id_of<'a>(ids: &'a [u8], owner: &OwnerName) -> &'a [u8] {
    let (place, length) = (owner.id.0 as usize, owner.id.1 as usize);
    &ids[place..place + length]
}

/// Inverts owners of rows: for each owner the start of its rows, and the rows of all owners, ascending for each.
pub(crate) fn postings(owner_start: &[u32], owner: &[u32], owners: usize) -> (Vec<u32>, Vec<u32>) {
    let mut start = vec![0u32; owners + 1];
    owner.iter().for_each(|owner| start[*owner as usize + 1] += 1);
    for i in 0..owners {
        start[i + 1] += start[i];
    }
    let mut next = start.clone();
    let mut rows = vec![0; owner.len()];
    for (row, pair) in owner_start.windows(2).enumerate() {
        for owner in &owner[pair[0] as usize..pair[1] as usize] {
            let slot = &mut next[*owner as usize];
            rows[*slot as usize] = to_u32(row);
            *slot += 1;
        }
    }
    (start, rows)
}
