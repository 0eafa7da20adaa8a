//! Extends the previous global index by new segments, if segments were only added or joined: the usual append to a store.
//!
//! Joining changes no number of a row, DELETE entry, target or identifier, only those of segments, owners and references; of a
//! joined segment all references are looked up again. The result is, byte for byte, that of `build`. Old entries are copied with their numbers shifted (at memory speed);
//! only resources and patients that a new segment names are computed again. Their old entries are found by a filter
//! with a bit for each new hash: one pass over the sorted hashes of the old segments.

use std::ops::Range;

use rayon::prelude::*;

use crate::casts::{to_u32, to_usize};
use crate::error::CorruptIndex;
use crate::fhir::id::Id;
use crate::ids::{RecordId, ReferenceId, TargetId};
use crate::index::dir::IndexDir;
use crate::index::global::build::{
    BuildError, GlobalIndexWriter, OwnerRef, TypeTotals, VersionChains, counts, sort_owners,
};
use crate::index::global::edges::Edge;
use crate::index::global::entities::{Entity, OwnerEntry, each_entity};
use crate::index::global::segment_set::SegmentSet;
use crate::index::global::{GlobalIndex, Section, SegmentOffsets};
use crate::index::segment::layout::{BASE_BITS, Column, kind};
use crate::index::segment::reader::Segment;

/// Bits of the filter for each new hash: the reciprocal of the rate of false positives.
const FILTER_BITS: usize = 64;

/// Where the records of a segment come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct SegmentOrigin {
    /// Numbers of the segments of the previous index whose records it has, in their order; empty for a new segment.
    pub old: Range<usize>,
    /// If it was joined, for each of these the new numbers of its owners; else empty.
    pub owners: Vec<Vec<u32>>,
}

impl SegmentOrigin {
    /// The origin of a segment that was kept as it is.
    pub(crate) fn kept(number: usize) -> SegmentOrigin {
        SegmentOrigin { old: number..number + 1, owners: Vec::new() }
    }

    /// Whether it was joined from several: then it has other numbers of owners and of references.
    fn is_joined(&self) -> bool {
        !self.owners.is_empty()
    }

    /// Whether the segment has no record of the previous index.
    pub(crate) fn is_new(&self) -> bool {
        self.old.is_empty()
    }
}

/// Whether the previous global index can and should be extended: every segment of it is kept or joined, in its order, and
/// new ones are at most half of the store.
pub(crate) fn is_worth_appending(before: &GlobalIndex, segments: &[Segment], origins: &[SegmentOrigin]) -> bool {
    let kept = origins.iter().flat_map(|origin| origin.old.clone());
    let weight = |segment: &Segment| segment.rows() + segment.tombstones() + to_usize(segment.head().targets);
    let new = |(segment, origin): (&Segment, &SegmentOrigin)| if origin.is_new() { weight(segment) } else { 0 };
    let all: usize = segments.iter().map(weight).sum();
    kept.eq(0..before.heads().len()) && segments.iter().zip(origins).map(new).sum::<usize>() * 2 <= all
}

/// Maps numbers of rows, DELETE entries, targets, references, identifiers and owners of the previous global index to those of the new one.
struct OrdinalMap<'a> {
    before: &'a GlobalIndex,
    old: SegmentOffsets,
    new: &'a SegmentOffsets,
    origins: &'a [SegmentOrigin],
    /// For each old segment the segment that has its records now.
    segments: Vec<usize>,
    /// For each old segment the new numbers of its first elements.
    starts: Vec<RecordStarts>,
    old_rows: usize,
}

/// Numbers over the store of the first records of a segment.
#[derive(Clone, Copy)]
struct RecordStarts {
    row: usize,
    tombstone: usize,
    target: usize,
    key: usize,
    /// `None` if its references have other numbers.
    reference: Option<usize>,
}

impl OrdinalMap<'_> {
    /// The map to `new` numbers, given where each new segment comes from.
    fn of<'a>(before: &'a GlobalIndex, new: &'a SegmentOffsets, origins: &'a [SegmentOrigin]) -> OrdinalMap<'a> {
        let old = SegmentOffsets::of(before.heads().iter());
        let old_rows = old.rows;
        let (mut segments, mut starts) = (Vec::new(), Vec::new());
        for (segment, origin) in origins.iter().enumerate() {
            let (row, tombstone, target) = (new.row[segment], new.tombstone[segment], new.target[segment]);
            let first = origin.old.start;
            for number in origin.old.clone() {
                segments.push(segment);
                starts.push(RecordStarts {
                    row: row + old.row[number] - old.row[first],
                    tombstone: tombstone + old.tombstone[number] - old.tombstone[first],
                    target: target + old.target[number] - old.target[first],
                    key: new.key[segment] + old.key[number] - old.key[first],
                    reference: (!origin.is_joined()).then(|| new.reference[segment]),
                });
            }
        }
        OrdinalMap { before, old, new, origins, segments, starts, old_rows }
    }

    /// New number of a record.
    fn map_record(&self, record: RecordId) -> RecordId {
        let position = record.index();
        RecordId::of(match position {
            _ if position < self.old_rows => self.is_within(position, &self.old.row, |start| start.row),
            _ if position < self.old.before_keys => self.new.rows + self.map_tombstone(position - self.old_rows),
            _ => {
                let key = position - self.old.before_keys;
                self.new.before_keys + self.is_within(key, &self.old.key, |start| start.key)
            }
        })
    }

    /// New number of a reference; `None` if its segment was joined.
    fn map_reference(&self, reference: ReferenceId) -> Option<ReferenceId> {
        let offset = reference.index();
        let segment = self.old.reference.partition_point(|start| *start <= offset) - 1;
        Some(ReferenceId::of(offset - self.old.reference[segment] + self.starts[segment].reference?))
    }

    /// New number of a DELETE entry.
    fn map_tombstone(&self, entry: usize) -> usize {
        self.is_within(entry, &self.old.tombstone, |start| start.tombstone)
    }

    /// New number of a target.
    fn map_target(&self, target: TargetId) -> TargetId {
        TargetId::of(self.is_within(target.index(), &self.old.target, |start| start.target))
    }

    /// New number of an element; `old` holds the first number of each old segment, `new` gives its new one.
    fn is_within(&self, offset: usize, old: &[usize], new: impl Fn(&RecordStarts) -> usize) -> usize {
        let segment = old.partition_point(|start| *start <= offset) - 1;
        offset - old[segment] + new(&self.starts[segment])
    }

    /// Number in its new segment of owner `own` of an old segment.
    fn owner_within(&self, old_segment: usize, own: usize) -> Result<usize, CorruptIndex> {
        let origin = &self.origins[self.segments[old_segment]];
        match origin.owners.get(old_segment - origin.old.start) {
            None => Ok(own),
            Some(numbers) => {
                numbers.get(own).map(|number| *number as usize).ok_or(CorruptIndex("an owner points nowhere"))
            }
        }
    }

    /// New number of owner `own` of an old segment.
    fn map_owner(&self, old_segment: usize, own: usize) -> Result<u32, CorruptIndex> {
        Ok(to_u32(self.new.owner[self.segments[old_segment]] + self.owner_within(old_segment, own)?))
    }
}

/// Writes the global index of `segments` (in store order) into the file `name`, given `before`, that of the segments
/// that are no new ones.
///
/// # Errors
/// As [`build`](crate::index::global::build::build).
pub(crate) fn extend(
    before: &GlobalIndex,
    segments: &[Segment],
    origins: &[SegmentOrigin],
    dir: &IndexDir,
    name: &str,
) -> Result<(), BuildError> {
    let is_new = |segment: usize| origins[segment].is_new();
    let is_joined = |segment: usize| origins[segment].is_joined();
    // Of old segments hashes are read whole, and the few entries that match a new hash, verified one by one.
    (0..segments.len()).into_par_iter().try_for_each(|segment| match is_new(segment) {
        true => segments[segment].verify_all().map(drop),
        false if is_joined(segment) => {
            let read = [Column::Base, Column::Heap, Column::SortedHash, Column::SortedRef];
            segments[segment].verify_columns(&read).map(drop)
        }
        false => segments[segment].verify_columns(&[Column::Base, Column::Heap, Column::SortedHash]).map(drop),
    })?;
    let set = SegmentSet::of(segments);
    let map = OrdinalMap::of(before, &set.starts, origins);

    let entries = touched_entities(segments, &set, &is_new, &is_joined)?;
    let (chains, totals) = chains(&set, &map, entries, &is_new)?;
    let patients = PatientMap::of(&set, &map, segments, &is_new)?;
    let mut base_counts = vec![0u64; set.bases.len()];
    let old_counts = before.verified_longs(Section::BaseCount, 0..before.count(Section::BaseCount))?;
    for (count, base) in old_counts.iter().zip(&patients.old_bases) {
        base_counts[*base as usize] += count;
    }
    for segment in (0..segments.len()).filter(|segment| is_new(*segment)) {
        let own = set.columns[segment].base_count;
        set.base_numbers[segment].iter().zip(own).for_each(|(base, count)| base_counts[*base as usize] += count);
    }

    let counts = counts(&set.heads, &set.bases, patients.count, &chains);
    let mut file = GlobalIndexWriter::create(dir, name, &counts)?;
    file.put_whole(&set.heads, &set.bases, &set.base_numbers.concat(), &totals, &base_counts);
    file.put_chains(&chains);
    patients.put(&mut file, &set, &map, &is_new)?;
    Ok(file.finish()?)
}

/// All entries of new segments, and the old ones that may name the same resource, verified. References of joined segments
/// count as new.
fn touched_entities(
    segments: &[Segment],
    set: &SegmentSet<'_>,
    is_new: &(dyn Fn(usize) -> bool + Sync),
    is_joined: &(dyn Fn(usize) -> bool + Sync),
) -> Result<Vec<OwnerEntry>, CorruptIndex> {
    let new = || (0..segments.len()).filter(|segment| is_new(*segment) || is_joined(*segment));
    let is_touched = |segment: usize, reference: u32| is_new(segment) || reference & kind::MASK == kind::REFERENCE;
    let of_segment = |segment: usize| match is_new(segment) {
        true => set.columns[segment].sorted_hash.len(),
        false => to_usize(set.heads[segment].references),
    };
    let hashes: usize = new().map(of_segment).sum();
    let bits = (hashes * FILTER_BITS).next_power_of_two().trailing_zeros().max(6);
    let mut filter = vec![0u64; 1 << (bits - 6)];
    let mut entries: Vec<OwnerEntry> = Vec::with_capacity(hashes);
    for segment in new() {
        let c = &set.columns[segment];
        for (i, (hash, reference)) in c.sorted_hash.iter().zip(c.sorted_ref).enumerate() {
            if !is_touched(segment, *reference) {
                continue;
            }
            if !is_new(segment) {
                segments[segment].verify_entry(i)?;
            }
            let bit = hash >> (64 - bits);
            filter[(bit / 64) as usize] |= 1 << (bit % 64);
            entries.push((*hash, to_u32(segment), *reference));
        }
    }
    let old: Vec<usize> = (0..segments.len()).filter(|segment| !is_new(*segment)).collect();
    let found: Vec<Vec<OwnerEntry>> = old
        .into_par_iter()
        .map(|segment| {
            let c = &set.columns[segment];
            let mut found = Vec::new();
            for (i, hash) in c.sorted_hash.iter().enumerate() {
                let bit = hash >> (64 - bits);
                if filter[(bit / 64) as usize] >> (bit % 64) & 1 != 0 {
                    if is_joined(segment) && is_touched(segment, c.sorted_ref[i]) {
                        continue;
                    }
                    segments[segment].verify_entry(i)?;
                    found.push((*hash, to_u32(segment), c.sorted_ref[i]));
                }
            }
            Ok(found)
        })
        .collect::<Result<_, CorruptIndex>>()?;
    entries.extend(found.into_iter().flatten());
    Ok(entries)
}

/// Version chains and totals of all records: old ones renumbered, those of resources in `entries` computed again.
fn chains(
    set: &SegmentSet<'_>,
    map: &OrdinalMap<'_>,
    entries: Vec<OwnerEntry>,
    is_new: &dyn Fn(usize) -> bool,
) -> Result<(VersionChains, TypeTotals), CorruptIndex> {
    // 1. Chains of the resources that new segments name, and the change of the totals.
    let before = map.before;
    let mut rebuilt = VersionChains::default();
    let mut totals = TypeTotals::none();
    let (mut rebuilt_records, mut rebuilt_targets): (Vec<RecordId>, Vec<TargetId>) = Default::default();
    let mut rebuilt_references: Vec<ReferenceId> = Vec::new();
    each_entity(set, entries, &mut |entity| {
        rebuilt.add(entity, set.starts.rows);
        let Entity { resource_type, records, targets, references, keys } = entity;
        totals.add(*resource_type, records, 1);
        let old: Vec<_> = records.iter().filter(|record| !is_new(record.segment as usize)).cloned().collect();
        totals.add(*resource_type, &old, -1);
        rebuilt_records.extend(records.iter().map(|record| record.number).chain(keys.iter().copied()));
        rebuilt_targets.extend(targets);
        rebuilt_references.extend(references);
    });
    rebuilt_records.sort_unstable();
    rebuilt_targets.sort_unstable();
    rebuilt_references.sort_unstable();
    let old_totals = before.verified_longs(Section::Totals, 0..before.count(Section::Totals))?;
    totals.0.iter_mut().zip(old_totals).for_each(|(sum, old)| *sum += *old as i64);
    for segment in (0..set.columns.len()).filter(|segment| is_new(*segment)) {
        totals.add_columns(&set.columns[segment]);
    }

    // 2. Old chains of the other resources, renumbered.
    let all = |section| before.verified_longs(section, 0..before.count(section));
    let record_kept = |record: RecordId| rebuilt_records.binary_search(&record).is_err();
    let target_kept = |target: TargetId| rebuilt_targets.binary_search(&target).is_err();
    let reference_kept = |reference: ReferenceId| {
        map.map_reference(reference).filter(|reference| rebuilt_references.binary_search(reference).is_err())
    };
    // As the sections `ends` and `target_head` hold records: plus one, 0 for none.
    let map_optional = |record: u32| record.checked_sub(1).map_or(0, |record| map.map_record(RecordId(record)).0 + 1);
    // Old values come first, so that new ones for the same target or DELETE entry overwrite them.
    let mut chains = VersionChains::default();
    for (position, version) in before.verified_words(Section::Ends, 0..before.count(Section::Ends))?.iter().enumerate()
    {
        let k = map.map_tombstone(position);
        if record_kept(RecordId::of(set.starts.rows + k)) {
            chains.ends.push((to_u32(k), map_optional(*version)));
        }
    }
    let heads = before.verified_words(Section::TargetHead, 0..before.count(Section::TargetHead))?;
    for (index, head) in heads.iter().enumerate() {
        let target = map.map_target(TargetId::of(index));
        if target_kept(target) {
            chains.target_head.push((target, map_optional(*head)));
        }
    }
    let heads = before.verified_words(Section::ReferenceHead, 0..before.count(Section::ReferenceHead))?;
    for (index, head) in heads.iter().enumerate() {
        if let Some(reference) = reference_kept(ReferenceId::of(index)) {
            chains.reference_head.push((reference, map_optional(*head)));
        }
    }
    chains.reference_head.append(&mut rebuilt.reference_head);
    chains.ends.append(&mut rebuilt.ends);
    chains.target_head.append(&mut rebuilt.target_head);
    let move_on = |section, moved: &(dyn Fn(Edge) -> Option<Edge> + Sync)| {
        let moved = all(section)?.par_iter().filter_map(|word| moved(Edge::of_word(*word))).collect();
        Ok::<Vec<Edge>, CorruptIndex>(moved)
    };
    let between_records = |edge: Edge| {
        let from = map.map_record(edge.from());
        record_kept(from).then(|| Edge::to_record_of(from, map.map_record(edge.to_record())))
    };
    let mut succession = move_on(Section::Succession, &between_records)?;
    let mut about = move_on(Section::About, &|edge| {
        let target = map.map_target(edge.to_target());
        target_kept(target).then(|| Edge::to_target_of(map.map_record(edge.from()), target))
    })?;
    let mut referrer = move_on(Section::Referrer, &|edge| {
        let reference = reference_kept(edge.to_reference())?;
        Some(Edge::to_reference_of(map.map_record(edge.from()), reference))
    })?;
    let mut first_record = move_on(Section::FirstRecord, &between_records)?;
    succession.append(&mut rebuilt.succession);
    about.append(&mut rebuilt.about);
    referrer.append(&mut rebuilt.referrer);
    referrer.par_sort();
    first_record.append(&mut rebuilt.first_record);
    // Two sorted runs, old and new: a merge sort is fast here.
    succession.par_sort();
    about.par_sort();
    first_record.par_sort();
    Ok((VersionChains { succession, about, first_record, referrer, ..chains }, totals))
}

/// The patient dictionary of all segments: old patients, and the owners of new segments merged between them.
struct PatientMap {
    count: usize,
    /// Number of each base of the previous global index among all bases.
    old_bases: Vec<u32>,
    /// Owners of new segments, sorted by patient.
    owners: Vec<OwnerRef>,
    /// The runs of `owners` that are one patient each.
    runs: Vec<OrdinalRun>,
}

/// Adjacent owners of new segments that are one patient.
struct OrdinalRun {
    /// End of the run in `owners`.
    end: usize,
    /// The old patient that it is, or the first one behind it.
    old: usize,
    /// Whether it is the patient `old`.
    is_old: bool,
}

impl PatientMap {
    /// Finds for each patient of a new segment its old number, or the position between old ones.
    fn of(
        set: &SegmentSet<'_>,
        map: &OrdinalMap<'_>,
        segments: &[Segment],
        is_new: &dyn Fn(usize) -> bool,
    ) -> Result<PatientMap, CorruptIndex> {
        let before = map.before;
        let old_count = before.count(Section::PatientHash);
        let hashes = before.verified_longs(Section::PatientHash, 0..old_count)?;
        let bases = before.verified_words(Section::PatientBase, 0..old_count)?;
        let starts = before.verified_words(Section::PatientStart, 0..old_count + 1)?;
        let base_number = |text: &String| set.bases.binary_search(text).map(to_u32);
        let old_bases: Vec<u32> = before
            .bases()?
            .iter()
            .map(base_number)
            .collect::<Result<_, _>>()
            .map_err(|_| CorruptIndex("a base is unknown"))?;
        let mut owners = Vec::new();
        for segment in (0..segments.len()).filter(|segment| is_new(*segment)) {
            let c = &set.columns[segment];
            for (owner, hash) in c.owner_hash.iter().enumerate() {
                let base = set.base_numbers[segment][(c.owner_base[owner] & BASE_BITS) as usize];
                owners.push(OwnerRef { hash: *hash, segment: to_u32(segment), owner: to_u32(owner), base });
            }
        }
        sort_owners(&mut owners, &set.columns);
        let key = |owner: &OwnerRef| (owner.hash, owner.base, owner.entity_id(&set.columns));
        let old_key = |patient: usize| -> Result<(u64, u32, Id), CorruptIndex> {
            let first = before.word(Section::Occurrence, starts[patient] as usize)? as usize;
            let segment = map.old.owner.partition_point(|start| *start <= first) - 1;
            let own = map.owner_within(segment, first - map.old.owner[segment])?;
            let id = segments[map.segments[segment]].owner_id(own)?;
            Ok((hashes[patient], old_bases[bases[patient] as usize], id))
        };
        let (mut runs, mut i, mut old) = (Vec::new(), 0, 0);
        let mut count = old_count;
        while i < owners.len() {
            let patient_key = key(&owners[i]);
            let mut end = i + 1;
            while end < owners.len() && key(&owners[end]) == patient_key {
                end += 1;
            }
            while old < old_count
                && (hashes[old] < patient_key.0 || hashes[old] == patient_key.0 && old_key(old)? < patient_key)
            {
                old += 1;
            }
            let is_old = old < old_count && hashes[old] == patient_key.0 && old_key(old)? == patient_key;
            count += usize::from(!is_old);
            runs.push(OrdinalRun { end, old, is_old });
            i = end;
        }
        Ok(PatientMap { count, old_bases, owners, runs })
    }

    /// Fills the sections of patients and owners: merges old patients with the runs, in order.
    fn put(
        &self,
        file: &mut GlobalIndexWriter,
        set: &SegmentSet<'_>,
        map: &OrdinalMap<'_>,
        is_new: &dyn Fn(usize) -> bool,
    ) -> Result<(), CorruptIndex> {
        let before = map.before;
        let old_count = before.count(Section::PatientHash);
        let hashes = before.verified_longs(Section::PatientHash, 0..old_count)?;
        let bases = before.verified_words(Section::PatientBase, 0..old_count)?;
        let starts = before.verified_words(Section::PatientStart, 0..old_count + 1)?;
        let occurrences = before.verified_words(Section::Occurrence, 0..before.count(Section::Occurrence))?;
        let owner_patient = before.verified_words(Section::OwnerPatient, 0..before.count(Section::OwnerPatient))?;
        let sections = file.sections();
        let mut new_number = vec![0u32; old_count];
        let (mut patient, mut occurrence, mut run_start) = (0usize, 0usize, 0usize);
        let mut runs = self.runs.iter().peekable();
        let mut list: Vec<u32> = Vec::new();
        let mut old = 0;
        while old < old_count || runs.peek().is_some() {
            let run = runs.next_if(|run| run.old == old);
            list.clear();
            let mut of_old = false;
            let (hash, base) = match run {
                Some(run) if !run.is_old => (self.owners[run_start].hash, self.owners[run_start].base),
                _ => {
                    of_old = true;
                    (hashes[old], self.old_bases[bases[old] as usize])
                }
            };
            if of_old {
                let own = &occurrences[starts[old] as usize..starts[old + 1] as usize];
                let mut segment = 0;
                for owner in own.iter().map(|owner| *owner as usize) {
                    // Owners ascend, so the search goes forward only.
                    if map.old.owner.get(segment + 1).is_some_and(|start| *start <= owner) {
                        segment += map.old.owner[segment..].partition_point(|start| *start <= owner) - 1;
                    }
                    list.push(map.map_owner(segment, owner - map.old.owner[segment])?);
                }
                // Owners of joined segments that are one patient have become one.
                list.dedup();
                new_number[old] = to_u32(patient);
                old += 1;
            }
            if let Some(run) = run {
                for owner in &self.owners[run_start..run.end] {
                    let number = to_u32(set.starts.owner[owner.segment as usize]) + owner.owner;
                    sections.put(Section::OwnerPatient, number as usize, to_u32(patient));
                    list.push(number);
                }
                run_start = run.end;
                list.sort_unstable();
            }
            sections.put_long(Section::PatientHash, patient, hash);
            sections.put(Section::PatientBase, patient, base);
            sections.put(Section::PatientStart, patient, to_u32(occurrence));
            for number in &list {
                sections.put(Section::Occurrence, occurrence, *number);
                occurrence += 1;
            }
            patient += 1;
        }
        sections.put(Section::PatientStart, patient, to_u32(occurrence));
        for (old, new) in map.segments.iter().enumerate() {
            debug_assert!(!is_new(*new));
            let from = map.old.owner[old];
            for i in 0..to_usize(before.heads()[old].owners) {
                let number = map.map_owner(old, i)? as usize;
                sections.put(Section::OwnerPatient, number, new_number[owner_patient[from + i] as usize]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::global::build;
    use crate::index::test_lines::{append, line};
    use crate::progress::Progress;
    use crate::store::Store;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        /// Appending to any file, adding one, and joining what was appended give the bytes that merging everything gives.
        #[test]
        fn what_is_merged_bit_by_bit_is_what_is_merged_at_once(
            rounds in proptest::collection::vec(
                proptest::collection::vec((0..3usize, proptest::collection::vec(line(), 0..12)), 1..3), 1..6)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            for round in rounds {
                for (file, lines) in round {
                    append(&dir.path().join(["b.ndjson", "a.ndjson", "c/d.ndjson"][file].replace("c/", "c")), &lines);
                }
                let (index, work) = store.index(&Progress::default()).unwrap();
                prop_assert!(work.repaired.is_empty(), "{:?}", work.repaired);
                let dir = IndexDir::memory();
                build::build(index.segments(), &dir, "whole").unwrap();
                let set = dir.open("whole").unwrap();
                prop_assert!(set[..] == index.global().bytes()[..]);
                index.global().check(index.segments()).unwrap();
            }
        }
    }

    /// A small append extends the previous global index; a large one, or one that replaces a file, builds it again.
    #[test]
    fn it_pays_when_little_came_and_nothing_went() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lines: Vec<String> = (0..40).map(|n| format!(r#"{{"resourceType":"Patient","id":"x{n}"}}"#)).collect();
        append(&dir.path().join("a.ndjson"), &lines[..30]);
        let (before, _) = store.index(&Progress::default()).unwrap();
        append(&dir.path().join("a.ndjson"), &lines[30..]);
        let (after, _) = store.index(&Progress::default()).unwrap();
        let (kept, new) = (SegmentOrigin::kept, SegmentOrigin::default);
        assert!(is_worth_appending(before.global(), after.segments(), &[kept(0), new()]));
        assert!(!is_worth_appending(before.global(), after.segments(), &[new(), new()]));
        assert!(!is_worth_appending(after.global(), after.segments(), &[kept(1), kept(0)]));
        assert!(!is_worth_appending(after.global(), &after.segments()[..1], &[kept(0)]));
    }
}
