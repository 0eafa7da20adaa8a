//! Builds the global index of all segments: the patient dictionary with the owners of each patient, the version chains,
//! and the records that Provenance targets name.
//!
//! Every segment has its keys sorted by hash, and hashes are spread evenly, so the build goes through the hash space in
//! partitions, in parallel: a slice of each segment, sorted together. Ids are compared, never only their hashes.
//! Results go to one mapped file; in memory they take 8 bytes a record with a successor, 8 a later record of a resource
//! that a Provenance target names, 16 a target, and 8 a DELETE entry. If segments were only added, `append` extends the previous global index instead, to the same
//! bytes.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rayon::prelude::*;

use crate::casts::{low_u32, to_u32, to_usize};
use crate::error::CorruptIndex;
use crate::extract::fault::FaultKind;
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{RecordId, ReferenceId, TargetId};
use crate::index::dir::IndexDir;
use crate::index::global::edges::Edge;
use crate::index::global::entities::{Entity, EntityRecord, OwnerEntry, each_entity};
use crate::index::global::segment_set::SegmentSet;
use crate::index::global::{
    ALL_SECTIONS, GlobalCounts, MAGIC, SECTIONS, Section, TOTALS_WORDS, TYPE_TOTALS, WORDS, ranges,
};
use crate::index::page_checksums::{checksum, write_checksums};
use crate::index::segment::columns::Columns;
use crate::index::segment::layout::{ALL_COLUMNS, BASE_BITS, Column, SegmentHeader};
use crate::index::segment::radix_sort::sort_by_hash;
use crate::index::segment::reader::Segment;
use crate::sys::file_map::GrowFile;
use crate::sys::little_endian::atomics_u32;

/// Records that one partition aims at.
const PARTITION_RECORDS: usize = 1 << 17;

/// Why a global index cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The file of the global index cannot be made or filled.
    #[error(transparent)]
    Write(#[from] std::io::Error),
    /// A segment or the previous global index is damaged.
    #[error("{}", .0.0)]
    Damaged(CorruptIndex),
}

impl From<CorruptIndex> for BuildError {
    fn from(damaged: CorruptIndex) -> BuildError {
        BuildError::Damaged(damaged)
    }
}

/// Relations between records of the store, unsorted; a record is a row or a DELETE entry.
#[derive(Default)]
pub(crate) struct VersionChains {
    /// From a record to the next of the same resource.
    pub succession: Vec<Edge>,
    /// From the first record of a resource to a Provenance target that names it.
    pub about: Vec<Edge>,
    /// From a later record of such a resource to its first record.
    pub first_record: Vec<Edge>,
    /// DELETE entry and the version before it plus one, 0 for none.
    pub ends: Vec<(u32, u32)>,
    /// Target and the first record of its resource plus one, 0 for none.
    pub target_head: Vec<(TargetId, u32)>,
    /// From the first record of a resource to a reference that names it.
    pub referrer: Vec<Edge>,
    /// Reference and the first record of its resource plus one, 0 for none.
    pub reference_head: Vec<(ReferenceId, u32)>,
}

impl VersionChains {
    /// Appends the chains of another partition.
    fn absorb(&mut self, more: VersionChains) {
        self.succession.extend(more.succession);
        self.about.extend(more.about);
        self.first_record.extend(more.first_record);
        self.ends.extend(more.ends);
        self.target_head.extend(more.target_head);
        self.referrer.extend(more.referrer);
        self.reference_head.extend(more.reference_head);
    }

    /// Adds the records of one resource, in order, and what names it; `rows` is the number of rows of the store.
    pub(crate) fn add(&mut self, entity: &Entity<'_>, rows: usize) {
        let Entity { records, targets, references, keys, .. } = entity;
        self.add_keys(keys, references);
        let mut version = 0;
        for (i, record) in records.iter().enumerate() {
            if let Some(next) = records.get(i + 1) {
                self.succession.push(Edge::to_record_of(record.number, next.number));
            }
            match record.is_version {
                true => version = record.number.0 + 1,
                false => self.ends.push((record.number.0 - to_u32(rows), version)),
            }
        }
        // A resource is named by its first record, so that a version costs nothing for each Provenance, nor the other way.
        if let Some((first, later)) = records.split_first().filter(|_| !targets.is_empty() || !references.is_empty()) {
            self.about.extend(targets.iter().map(|target| Edge::to_target_of(first.number, *target)));
            self.referrer.extend(references.iter().map(|reference| Edge::to_reference_of(first.number, *reference)));
            self.first_record.extend(later.iter().map(|record| Edge::to_record_of(record.number, first.number)));
        }
        let head = records.first().map_or(0, |record| record.number.0 + 1);
        self.target_head.extend(targets.iter().map(|target| (*target, head)));
        if keys.is_empty() {
            self.reference_head.extend(references.iter().map(|reference| (*reference, head)));
        }
    }

    /// Adds the rows' identifiers of one text, in order, and the conditional references that name it.
    fn add_keys(&mut self, keys: &[RecordId], references: &[ReferenceId]) {
        let Some((first, later)) = keys.split_first() else { return };
        self.succession.extend(keys.windows(2).map(|pair| Edge::to_record_of(pair[0], pair[1])));
        self.reference_head.extend(references.iter().map(|reference| (*reference, first.0 + 1)));
        if !references.is_empty() {
            self.referrer.extend(references.iter().map(|reference| Edge::to_reference_of(*first, *reference)));
            self.first_record.extend(later.iter().map(|record| Edge::to_record_of(*record, *first)));
        }
    }
}

/// The totals of the store, signed so that an append can subtract: rows, superseded and deleted rows of each type,
/// faults, DELETE entries under other bases.
pub(crate) struct TypeTotals(pub Vec<i64>);

impl TypeTotals {
    /// Totals of an empty store.
    pub(crate) fn none() -> TypeTotals {
        TypeTotals(vec![0; TOTALS_WORDS])
    }

    /// Adds (`sign` 1) or subtracts (-1) superseded and deleted rows of one resource, whose records are in order.
    pub(crate) fn add(&mut self, resource_type: ResourceType, records: &[EntityRecord<'_>], sign: i64) {
        let i = resource_type.index() * TYPE_TOTALS;
        for (number, record) in records.iter().enumerate() {
            if !record.is_version {
                self.0[TOTALS_WORDS - 1] += if record.foreign { sign } else { 0 };
                continue;
            }
            let behind = &records[number + 1..];
            if behind.iter().any(|record| record.is_version) {
                self.0[i + 1] += sign;
            } else if behind.iter().any(|record| !record.foreign) {
                self.0[i + 2] += sign;
            }
        }
    }

    /// Adds the totals of another partition.
    fn absorb(&mut self, more: &TypeTotals) {
        self.0.iter_mut().zip(&more.0).for_each(|(sum, count)| *sum += count);
    }

    /// Adds the rows of each type and faults of each kind of one segment.
    pub(crate) fn add_columns(&mut self, columns: &Columns<'_>) {
        for (index, rows) in columns.type_count.iter().enumerate() {
            self.0[index * TYPE_TOTALS] += *rows as i64;
        }
        for (kind, faults) in columns.fault_count.iter().enumerate().take(FaultKind::ALL.len()) {
            self.0[ResourceType::COUNT * TYPE_TOTALS + kind] += *faults as i64;
        }
    }
}

/// A global index file under construction; sections are filled in any order and by any thread.
pub(crate) struct GlobalIndexWriter {
    file: GrowFile,
    front: usize,
    ranges: [std::ops::Range<usize>; SECTIONS.len()],
}

impl GlobalIndexWriter {
    /// Makes the file for sections of these sizes and writes its counts.
    pub(crate) fn create(
        dir: &IndexDir,
        name: &str,
        counts: &GlobalCounts,
    ) -> Result<GlobalIndexWriter, std::io::Error> {
        // Owners and targets are numbered over the store in `u32`; rows and DELETE entries are bounded by
        // `STORE_ROWS_MAX`.
        let sections = [Section::Occurrence, Section::TargetHead, Section::ReferenceHead];
        let numbered = sections.map(|section| counts[section as usize]);
        if numbered.iter().any(|count| u32::try_from(*count).is_err()) {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        let (front, ranges) = ranges(counts).ok_or(std::io::ErrorKind::FileTooLarge)?;
        let end = ranges[SECTIONS.len() - 1].end.next_multiple_of(8);
        let mut file = dir.create_sized(name, end as u64)?;
        let words = file.u64s_mut();
        words[0] = MAGIC;
        for (slot, count) in words[2..].iter_mut().zip(counts) {
            *slot = *count as u64;
        }
        Ok(GlobalIndexWriter { file, front, ranges })
    }

    /// Access to the sections of `u32` and `u64`, to be filled.
    pub(crate) fn sections(&mut self) -> SectionWriter<'_> {
        SectionWriter {
            words: atomics_u32(self.file.u32s_mut()),
            starts: ALL_SECTIONS.map(|s| self.ranges[s as usize].start / 4),
        }
    }

    /// Fills a section of bytes.
    fn put_text(&mut self, section: Section, text: &[u8]) {
        let place = self.ranges[section as usize].clone();
        self.file.bytes_mut()[place].copy_from_slice(text);
    }

    /// Writes page checksums and the checksum of the header, and ends the file.
    pub(crate) fn finish(mut self) -> Result<(), std::io::Error> {
        let (front, body) = self.file.bytes_mut().split_at_mut(self.front);
        write_checksums(&mut front[WORDS * 8..], body);
        let sum = checksum(&front[16..]);
        self.file.u64s_mut()[1] = sum;
        Ok(self.file.finish(false)?)
    }

    /// Fills the sections of segment headers, totals and bases.
    pub(crate) fn put_whole(
        &mut self,
        heads: &[SegmentHeader],
        bases: &[String],
        segment_bases: &[u32],
        totals: &TypeTotals,
        base_counts: &[u64],
    ) {
        let sections = self.sections();
        heads
            .iter()
            .flat_map(SegmentHeader::words)
            .enumerate()
            .for_each(|(at, word)| sections.put_long(Section::Heads, at, word));
        totals
            .0
            .iter()
            .enumerate()
            .for_each(|(position, total)| sections.put_long(Section::Totals, position, *total as u64));
        base_counts.iter().enumerate().for_each(|(k, count)| sections.put_long(Section::BaseCount, k, *count));
        bases.iter().enumerate().for_each(|(index, base)| sections.put(Section::BaseLength, index, to_u32(base.len())));
        segment_bases.iter().enumerate().for_each(|(i, base)| sections.put(Section::SegmentBase, i, *base));
        self.put_text(Section::BaseText, bases.concat().as_bytes());
    }

    /// Fills the sections of the version chains; successions and targets must be sorted.
    pub(crate) fn put_chains(&mut self, chains: &VersionChains) {
        let sections = self.sections();
        for (section, list) in [
            (Section::Succession, &chains.succession),
            (Section::About, &chains.about),
            (Section::FirstRecord, &chains.first_record),
            (Section::Referrer, &chains.referrer),
        ] {
            list.par_iter().enumerate().for_each(|(index, edge)| sections.put_long(section, index, edge.word()));
        }
        chains.ends.par_iter().for_each(|(i, version)| sections.put(Section::Ends, *i as usize, *version));
        chains.target_head.par_iter().for_each(|(i, head)| sections.put(Section::TargetHead, i.index(), *head));
        chains.reference_head.par_iter().for_each(|(i, head)| sections.put(Section::ReferenceHead, i.index(), *head));
    }
}

/// Stores elements into the sections of a file under construction, from any thread.
#[derive(Clone, Copy)]
pub(crate) struct SectionWriter<'a> {
    words: &'a [AtomicU32],
    starts: [usize; SECTIONS.len()],
}

impl SectionWriter<'_> {
    /// Stores an element of a section of `u32`.
    pub(crate) fn put(&self, section: Section, offset: usize, word: u32) {
        self.words[self.starts[section as usize] + offset].store(word, Relaxed);
    }

    /// Stores an element of a section of `u64`.
    pub(crate) fn put_long(&self, section: Section, offset: usize, long: u64) {
        let i = self.starts[section as usize] + offset * 2;
        self.words[i].store(low_u32(long), Relaxed);
        self.words[i + 1].store((long >> 32) as u32, Relaxed);
    }
}

/// Columns that a build does not read, and so does not verify.
const NOT_READ: [Column; 14] = [
    Column::Place,
    Column::LineHash,
    Column::OwnerStart,
    Column::Owner,
    Column::PostingStart,
    Column::Posting,
    Column::Several,
    Column::UpdatedMax,
    Column::TombLeft,
    Column::ReferenceSet,
    Column::SetStart,
    Column::SetReference,
    Column::Fault,
    Column::Restart,
];

/// Builds the global index of the segments (in store order) into the file `name`.
///
/// # Errors
/// When the file cannot be made or filled, or a segment is damaged.
pub fn build(segments: &[Segment], dir: &IndexDir, name: &str) -> Result<(), BuildError> {
    // 1. Verify the columns that are read.
    let read: Vec<Column> = ALL_COLUMNS.into_iter().filter(|column| !NOT_READ.contains(column)).collect();
    segments.par_iter().try_for_each(|segment| segment.verify_columns(&read).map(drop))?;
    let set = SegmentSet::of(segments);
    let partitions = |total: usize| total.div_ceil(PARTITION_RECORDS).next_power_of_two().trailing_zeros();

    // 2. Version chains and totals, in partitions of the hashes of (type, id).
    let bits = partitions(set.columns.iter().map(|c| c.sorted_hash.len()).sum());
    let parts: Vec<(VersionChains, TypeTotals)> = (0..1u64 << bits)
        .into_par_iter()
        .map(|part| {
            let (mut chains, mut totals_part) = (VersionChains::default(), TypeTotals::none());
            let range = hash_range(part, bits);
            let mut entries: Vec<OwnerEntry> = Vec::new();
            for (segment, c) in set.columns.iter().enumerate() {
                entries.extend(
                    slice_of(c.sorted_hash, range).map(|i| (c.sorted_hash[i], to_u32(segment), c.sorted_ref[i])),
                );
            }
            each_entity(&set, entries, &mut |entity| {
                chains.add(entity, set.starts.rows);
                totals_part.add(entity.resource_type, &entity.records, 1);
            });
            (chains, totals_part)
        })
        .collect();
    let (mut chains, mut totals) = (VersionChains::default(), TypeTotals::none());
    for (more, totals_part) in parts {
        chains.absorb(more);
        totals.absorb(&totals_part);
    }
    chains.succession.par_sort_unstable();
    chains.about.par_sort_unstable();
    chains.first_record.par_sort_unstable();
    chains.referrer.par_sort_unstable();
    let mut base_counts = vec![0; set.bases.len()];
    for (columns, numbers) in set.columns.iter().zip(&set.base_numbers) {
        totals.add_columns(columns);
        numbers.iter().zip(columns.base_count).for_each(|(base, count)| base_counts[*base as usize] += count);
    }

    // 3. Count patients in partitions of the owner hashes, so that the size of the file is known.
    let bits = partitions(set.columns.iter().map(|c| c.owner_hash.len()).sum());
    let per_part: Vec<(usize, usize)> = (0..1u64 << bits)
        .into_par_iter()
        .map(|part| {
            let (mut patients, mut owners) = (0, 0);
            each_patient(&set, part, bits, |_, first| {
                patients += usize::from(first);
                owners += 1;
            });
            (patients, owners)
        })
        .collect();
    let patients: usize = per_part.iter().map(|part| part.0).sum();
    // 4. Fill the file.
    let counts = counts(&set.heads, &set.bases, patients, &chains);
    let mut file = GlobalIndexWriter::create(dir, name, &counts)?;
    file.put_whole(&set.heads, &set.bases, &set.base_numbers.concat(), &totals, &base_counts);
    file.put_chains(&chains);
    drop(chains);
    let sections = file.sections();
    per_part.par_iter().enumerate().for_each(|(part, _)| {
        let before = per_part[..part].iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        let (mut patient, mut occurrence) = before;
        each_patient(&set, part as u64, bits, |owner, first| {
            if first {
                sections.put_long(Section::PatientHash, patient, owner.hash);
                sections.put(Section::PatientBase, patient, owner.base);
                sections.put(Section::PatientStart, patient, to_u32(occurrence));
                patient += 1;
            }
            let number = set.starts.owner[owner.segment as usize] + owner.owner as usize;
            sections.put(Section::OwnerPatient, number, to_u32(patient) - 1);
            sections.put(Section::Occurrence, occurrence, to_u32(number));
            occurrence += 1;
        });
    });
    sections.put(Section::PatientStart, patients, to_u32(counts[Section::Occurrence as usize]));
    Ok(file.finish()?)
}

/// Number of elements of each section.
pub(crate) fn counts(
    heads: &[SegmentHeader],
    bases: &[String],
    patients: usize,
    chains: &VersionChains,
) -> GlobalCounts {
    let sum = |count: &dyn Fn(&SegmentHeader) -> u64| to_usize(heads.iter().map(count).sum::<u64>());
    ALL_SECTIONS.map(|section| match section {
        Section::Heads => heads.len() * crate::index::segment::layout::HEAD_WORDS,
        Section::Totals => TOTALS_WORDS,
        Section::BaseCount | Section::BaseLength => bases.len(),
        Section::PatientHash | Section::PatientBase => patients,
        Section::Succession => chains.succession.len(),
        Section::About => chains.about.len(),
        Section::FirstRecord => chains.first_record.len(),
        Section::PatientStart => patients + 1,
        Section::Occurrence | Section::OwnerPatient => sum(&|head| head.owners),
        Section::Ends => sum(&|head| head.tombstones),
        Section::TargetHead => sum(&|head| head.targets),
        Section::ReferenceHead => sum(&|head| head.references),
        Section::Referrer => chains.referrer.len(),
        Section::SegmentBase => sum(&|head| head.bases),
        Section::BaseText => bases.iter().map(String::len).sum(),
    })
}

/// An owner of a segment, with the number of its base over the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnerRef {
    pub hash: u64,
    pub segment: u32,
    pub owner: u32,
    pub base: u32,
}

impl OwnerRef {
    /// Logical id of the owner.
    pub(crate) fn entity_id(&self, columns: &[Columns<'_>]) -> Id {
        columns[self.segment as usize].owner_id_of(self.owner as usize)
    }

    /// Whether base and id of both are the same; the caller compares the hashes.
    fn is_same(&self, other: &OwnerRef, columns: &[Columns<'_>]) -> bool {
        let (a, b) = (&columns[self.segment as usize], &columns[other.segment as usize]);
        self.base == other.base && a.same_owner_id(self.owner as usize, b, other.owner as usize)
    }
}

/// The hashes of partition `part` out of `1 << bits`, as an inclusive range.
pub(crate) fn hash_range(part: u64, bits: u32) -> (u64, u64) {
    if bits == 0 {
        return (0, u64::MAX);
    }
    let low = part << (64 - bits);
    (low, low | (u64::MAX >> bits))
}

/// Range of a sorted column of hashes that lies in a partition.
pub(crate) fn slice_of(hashes: &[u64], (low, high): (u64, u64)) -> std::ops::Range<usize> {
    hashes.partition_point(|hash| *hash < low)..hashes.partition_point(|hash| *hash <= high)
}

/// Sorts owners by hash, base and id, so that those of one patient are adjacent, in store order.
pub(crate) fn sort_owners(owners: &mut Vec<OwnerRef>, columns: &[Columns<'_>]) {
    sort_by_hash(owners, &mut Vec::new(), |owner| owner.hash);
    for group in owners.chunk_by_mut(|a, b| a.hash == b.hash) {
        // Equal hashes are nearly always equal patients; then nothing moves.
        if group.iter().all(|owner| owner.is_same(&group[0], columns)) {
            continue;
        }
        group.sort_by_key(|owner| (owner.base, owner.entity_id(columns)));
    }
}

/// Calls `visit` for every owner of every segment in a partition, those of one patient together and in store order;
/// the flag is set for the first of a patient.
fn each_patient(set: &SegmentSet<'_>, part: u64, bits: u32, mut visit: impl FnMut(OwnerRef, bool)) {
    let range = hash_range(part, bits);
    let mut owners: Vec<OwnerRef> = Vec::new();
    for (segment, c) in set.columns.iter().enumerate() {
        for owner in slice_of(c.owner_hash, range) {
            let base = set.base_numbers[segment][(c.owner_base[owner] & BASE_BITS) as usize];
            owners.push(OwnerRef { hash: c.owner_hash[owner], segment: to_u32(segment), owner: to_u32(owner), base });
        }
    }
    sort_owners(&mut owners, &set.columns);
    let mut last: Option<OwnerRef> = None;
    for owner in owners {
        let same_as_last = last.is_some_and(|last| last.hash == owner.hash && last.is_same(&owner, &set.columns));
        visit(owner, !same_as_last);
        last = Some(owner);
    }
}
