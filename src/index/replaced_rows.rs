//! Compares the rows of dropped segments with those of new ones: which rows were in the store before, and which resources
//! are gone.
//!
//! A row is unchanged if type, id and the hash of its line are, and a DELETE entry if type, id, base and date are; it then
//! keeps its first-seen time. Two exceptions for rows, because
//! of two versions with equal dates the later one in store order is current, and a reader must be given it: rows of a
//! resource with such versions are new, and so is a row that moved to another file while a kept segment has a record of
//! its resource. Hashes of (type, id) are sorted in every segment, so dropped and new segments are joined in partitions of
//! the hash space, in parallel. Kept segments are read only for resources whose newest record is gone or whose rows moved.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rayon::prelude::*;

use crate::casts::to_u32;
use crate::error::CorruptIndex;
use crate::fhir::id::Id;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{EntryId, FileId};
use crate::index::diff::DroppedSegment;
use crate::index::global::build::{hash_range, slice_of};
use crate::index::row_times::{TimeRun, time_of_entry, time_of_row};
use crate::index::segment::columns::Columns;
use crate::index::segment::id_encoding::VersionKey;
use crate::index::segment::layout::{BASE_BITS, Column, kind};
use crate::index::segment::radix_sort::sort_by_hash;
use crate::index::segment::reader::Segment;

/// Records that one partition aims at.
const PARTITION_RECORDS: usize = 1 << 17;

/// Columns that the comparison reads.
const READ: [Column; 13] = [
    Column::Base,
    Column::LastUpdated,
    Column::VersionId,
    Column::Id,
    Column::Type,
    Column::Flags,
    Column::LineHash,
    Column::SortedHash,
    Column::SortedRef,
    Column::TombType,
    Column::TombId,
    Column::TombBase,
    Column::TombUpdated,
];

/// What became of the rows of dropped segments.
#[derive(Default)]
pub(crate) struct RowMatches {
    /// For each new segment the runs of its rows and DELETE entries that were in the store before.
    pub runs: Vec<Vec<TimeRun>>,
    /// Resources whose newest record is in no segment any more, except those of excluded files.
    pub missing: Vec<MissingResource>,
    /// Number of dropped segments that cannot be read: all rows in their place count as new, and none is known to be gone.
    pub unreadable: usize,
}

/// A resource whose newest record is gone from the store.
#[derive(Debug)]
pub(crate) struct MissingResource {
    /// Its type.
    pub resource_type: ResourceType,
    /// Its logical id.
    pub id: Id,
    /// Its newest row in a dropped segment: index of the segment among the dropped ones, and row.
    pub newest: Option<(usize, usize)>,
    /// The dropped segments that held rows of it, ascending.
    pub held_by: Vec<usize>,
    /// Whether an older version of it still stands in another place, and so is the newest now.
    pub older_stands: bool,
    /// Whether a snapshot held any of its dropped rows.
    pub was_seen: bool,
    /// Whether a DELETE entry in the store ends it.
    pub is_deleted: bool,
    /// Patients who own an older version that stands: reference base and id.
    pub standing_owners: Vec<(String, Id)>,
}

/// A row or a DELETE entry: segment among all that are compared, and reference in it (see [`kind`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RecordRef {
    segment: usize,
    reference: u32,
}

impl RecordRef {
    /// The row of its segment that it is, if it is one.
    fn row(self) -> usize {
        (self.reference & !kind::MASK) as usize
    }

    /// The DELETE entry of its segment that it is, if it is no row.
    fn entry_id(self) -> EntryId {
        EntryId(self.reference & !kind::MASK)
    }

    /// Whether it is a row.
    fn is_row(self) -> bool {
        self.reference & kind::MASK == kind::ROW
    }

    /// Type and id of its resource.
    fn entity(self, columns: &Columns<'_>) -> (ResourceType, Id) {
        match self.is_row() {
            true => (columns.type_of(self.row()), columns.id_of(self.row())),
            false => columns.tombstone_of(self.entry_id()),
        }
    }

    /// The keys that order the records of a resource, as in version chains; `None` for a DELETE entry that ends nothing.
    fn key<'a>(self, columns: &Columns<'a>) -> Option<(Option<InstantRef<'a>>, bool, VersionKey<'a>)> {
        match self.is_row() {
            true => Some((columns.updated_of(self.row()), true, columns.version_of(self.row()))),
            false => columns.tombstone_updated(self.entry_id()).map(|at| (Some(at), false, VersionKey::None)),
        }
    }
}

/// A resource whose newest dropped record is newer than its new ones.
struct Candidate {
    hash: u64,
    entity: (ResourceType, Id),
    newest: RecordRef,
    newest_row: Option<RecordRef>,
    /// The newest row of it in a new segment.
    standing_row: Option<RecordRef>,
    held_by: Vec<usize>,
    older_stands: bool,
    was_seen: bool,
    is_deleted: bool,
    standing_owners: Vec<(String, Id)>,
}

/// Compares dropped with new segments (each with its file, among those of the store now); `kept` are all other
/// segments of the new index, and `latest` is the T of the last snapshot, in ticks.
///
/// # Errors
/// [`CorruptIndex`] if a page of a new or kept segment fails its checksum.
pub(crate) fn match_rows(
    dropped: &[DroppedSegment],
    new: &[(FileId, Segment)],
    kept: &[Segment],
    latest: Option<i64>,
) -> Result<RowMatches, CorruptIndex> {
    let mut matches = RowMatches { runs: vec![Vec::new(); new.len()], ..RowMatches::default() };
    // 1. The columns of both sides, verified. A dropped segment that is damaged is as one that nobody knows.
    let sides = [Column::Exact, Column::Heap].into_iter().chain(READ).collect::<Vec<Column>>();
    let mut readable = Vec::new();
    for (i, old) in dropped.iter().enumerate() {
        match old.segment.as_ref().map(|segment| segment.verify_columns(&sides)) {
            Some(Ok(columns)) => readable.push((i, columns)),
            _ => matches.unreadable += 1,
        }
    }
    if readable.is_empty() {
        return Ok(matches);
    }
    let new_columns =
        new.par_iter().map(|(_, segment)| segment.verify_columns(&sides)).collect::<Result<Vec<_>, _>>()?;
    let files = readable.iter().map(|(i, _)| dropped[*i].file).chain(new.iter().map(|(file, _)| Some(*file))).collect();
    let columns: Vec<Columns<'_>> = readable.iter().map(|(_, columns)| *columns).chain(new_columns).collect();
    let olds = readable.len();
    // 2. Times are codes while rows are joined: 0 for none, else the place of the time among all, plus one.
    let times_of = |(i, _): &(usize, Columns<'_>)| {
        let old = &dropped[*i];
        old.runs.iter().filter_map(|run| run.first_seen).chain(old.first_seen)
    };
    let mut times: Vec<i64> = readable.iter().flat_map(times_of).collect();
    times.sort_unstable();
    times.dedup();
    let records_of = |columns: &Columns<'_>| columns.rows() + columns.tomb_type.len();
    let codes: Vec<Vec<AtomicU32>> =
        columns[olds..].iter().map(|columns| (0..records_of(columns)).map(|_| AtomicU32::new(0)).collect()).collect();
    let records: usize = columns.iter().map(|columns| columns.sorted_hash.len()).sum();
    let bits = records.div_ceil(PARTITION_RECORDS).next_power_of_two().trailing_zeros();
    let (readable, times, codes) = (&readable[..], &times[..], &codes[..]);
    let join = Join { columns: &columns, files, olds, dropped, readable, times, codes, latest };
    let (candidates, moved): (Vec<Vec<Candidate>>, Vec<Vec<MovedRow>>) =
        (0..1u64 << bits).into_par_iter().map(|part| join.partition(hash_range(part, bits))).unzip();
    // 3. Records of kept segments: of the candidates, and of resources whose rows moved between files.
    let mut candidates: Vec<Candidate> = candidates.into_iter().flatten().collect();
    for (candidate, row) in candidates.iter_mut().filter_map(|one| one.standing_row.map(|row| (one, row))) {
        candidate.standing_owners = row_owners(&new[row.segment - olds].1, row.row())?;
    }
    resolve_candidates(&mut candidates, &columns, kept)?;
    for row in rows_beside_others(moved.into_iter().flatten().collect(), kept)? {
        codes[row.segment][row.row].store(0, Relaxed);
    }
    for ((runs, codes), columns) in matches.runs.iter_mut().zip(codes).zip(&columns[olds..]) {
        let time = |code: u32| (code as usize).checked_sub(1).map(|i| times[i]);
        let records = codes.iter().enumerate();
        runs.extend(records.map(|(i, code)| TimeRun { row: to_u32(i), first_seen: time(code.load(Relaxed)) }));
        // A run of rows says nothing of entries.
        runs.dedup_by_key(|run| (run.row as usize >= columns.rows(), run.first_seen));
        if runs.iter().all(|run| run.first_seen.is_none()) {
            runs.clear();
        }
    }
    let is_missing =
        |one: &Candidate| one.older_stands || one.newest.is_row() || one.is_deleted && one.newest_row.is_some();
    // What is only not read any more is not gone.
    let excluded = |segment: usize| dropped[readable[segment].0].is_excluded;
    let is_excluded = |one: &Candidate| excluded(one.newest.segment) || one.held_by.iter().any(|held| excluded(*held));
    let missing = candidates.into_iter().filter(|one| is_missing(one) && !is_excluded(one));
    matches.missing = missing
        .map(|one| MissingResource {
            resource_type: one.entity.0,
            id: one.entity.1,
            newest: one.newest_row.map(|row| (readable[row.segment].0, row.row())),
            held_by: one.held_by.iter().map(|segment| readable[*segment].0).collect(),
            older_stands: one.older_stands,
            was_seen: one.was_seen,
            is_deleted: one.is_deleted,
            standing_owners: one.standing_owners,
        })
        .collect();
    matches.missing.sort_by_key(|one| (one.resource_type, one.id));
    Ok(matches)
}

/// A row that was in another file before.
struct MovedRow {
    /// Hash of (type, id).
    hash: u64,
    /// Index of the segment among the new ones.
    segment: usize,
    row: usize,
}

/// The join of dropped and new segments.
struct Join<'a> {
    /// Columns of the dropped segments that can be read, then of the new ones.
    columns: &'a [Columns<'a>],
    /// The file of each of these segments, among the store's files now.
    files: Vec<Option<FileId>>,
    /// How many of them are dropped.
    olds: usize,
    dropped: &'a [DroppedSegment],
    readable: &'a [(usize, Columns<'a>)],
    times: &'a [i64],
    /// For each new segment the code of each row, and then of each DELETE entry.
    codes: &'a [Vec<AtomicU32>],
    /// T of the last snapshot, in ticks.
    latest: Option<i64>,
}

impl Join<'_> {
    /// Joins the records of a range of hashes: sets the codes of unchanged rows, returns the resources whose newest
    /// record is a dropped one, and the unchanged rows that moved.
    fn partition(&self, range: (u64, u64)) -> (Vec<Candidate>, Vec<MovedRow>) {
        let mut entries: Vec<(u64, u32, u32)> = Vec::new();
        for (segment, columns) in self.columns.iter().enumerate() {
            let own = slice_of(columns.sorted_hash, range);
            entries.extend(own.map(|i| (columns.sorted_hash[i], to_u32(segment), columns.sorted_ref[i])));
        }
        entries.retain(|(_, _, reference)| matches!(reference & kind::MASK, kind::ROW | kind::TOMBSTONE));
        sort_by_hash(&mut entries, &mut Vec::new(), |entry| entry.0);
        let (mut candidates, mut moved) = (Vec::new(), Vec::new());
        for group in entries.chunk_by(|a, b| a.0 == b.0) {
            if group.iter().all(|(_, segment, _)| *segment as usize >= self.olds) {
                continue;
            }
            let record = |entry: &(u64, u32, u32)| RecordRef { segment: entry.1 as usize, reference: entry.2 };
            if let [a, b] = group
                && self.is_unchanged_pair(record(a), record(b), a.0, &mut moved)
            {
                continue;
            }
            let mut keyed: Vec<((ResourceType, Id), RecordRef)> =
                group.iter().map(record).map(|one| (one.entity(&self.columns[one.segment]), one)).collect();
            keyed.sort_by_key(|(entity, _)| *entity);
            for same in keyed.chunk_by(|a, b| a.0 == b.0) {
                let records: Vec<RecordRef> = same.iter().map(|(_, record)| *record).collect();
                candidates.extend(self.entity(group[0].0, same[0].0, &records, &mut moved));
            }
        }
        (candidates, moved)
    }

    /// Hash of the line of a row.
    fn line(&self, row: RecordRef) -> u64 {
        self.columns[row.segment].line_hash[row.row()]
    }

    /// Whether a snapshot held a row of a dropped segment.
    fn was_seen(&self, row: RecordRef) -> bool {
        let from = &self.dropped[self.readable[row.segment].0];
        time_of_row(&from.runs, row.row(), from.first_seen).is_some()
    }

    /// First-seen time of a DELETE entry of a dropped segment.
    fn entry_time(&self, entry: RecordRef) -> Option<i64> {
        let from = &self.dropped[self.readable[entry.segment].0];
        time_of_entry(&from.runs, self.columns[entry.segment].rows(), entry.entry_id(), from.first_seen)
    }

    /// Whether readers know a DELETE entry of a dropped segment: a snapshot held it, at its date or later.
    fn is_told(&self, entry: RecordRef) -> bool {
        let updated = self.columns[entry.segment].tombstone_updated(entry.entry_id()).map(|updated| updated.ticks);
        let is_past = updated.zip(self.latest).is_some_and(|(updated, latest)| updated <= latest);
        is_past && self.entry_time(entry).is_some()
    }

    /// Gives new DELETE entries of a resource the first-seen time of a dropped one of the same base and date; of several
    /// the latest.
    fn keep_entry_times(&self, entries: impl Iterator<Item = RecordRef> + Clone) {
        let key = |entry: &RecordRef| {
            let columns = &self.columns[entry.segment];
            let base = columns.base_text((columns.tomb_base[entry.entry_id().index()] & BASE_BITS) as usize);
            Some((columns.tombstone_updated(entry.entry_id())?, base))
        };
        let mut before = BTreeMap::new();
        for (key, old) in entries.clone().filter_map(|entry| Some((key(&entry)?, entry))) {
            if old.segment < self.olds {
                let time = self.entry_time(old);
                let latest = before.entry(key).or_insert(time);
                *latest = latest.zip(time).map(|(a, b)| a.max(b));
            }
        }
        for entry in entries.filter(|entry| entry.segment >= self.olds && !before.is_empty()) {
            let time = key(&entry).and_then(|key| *before.get(&key)?);
            if let Some(i) = time.and_then(|time| self.times.binary_search(&time).ok()) {
                let place = self.columns[entry.segment].rows() + entry.entry_id().index();
                self.codes[entry.segment - self.olds][place].store(to_u32(i) + 1, Relaxed);
            }
        }
    }

    /// The rows of a resource, ascending, that have date and version of another line of it, so that their order in the
    /// store decides which is current.
    fn tied_rows(&self, mut rows: Vec<RecordRef>) -> Vec<RecordRef> {
        rows.sort_by(|a, b| a.key(&self.columns[a.segment]).cmp(&b.key(&self.columns[b.segment])));
        let groups = rows.chunk_by(|a, b| a.key(&self.columns[a.segment]) == b.key(&self.columns[b.segment]));
        let mut tied: Vec<RecordRef> = groups
            .filter(|group| group.iter().any(|row| self.line(*row) != self.line(group[0])))
            .flatten()
            .copied()
            .collect();
        tied.sort_unstable();
        tied
    }

    /// The usual case of [`Join::entity`], without its tables: a resource of one dropped and one new row with the same
    /// line. False, and nothing done, for any other pair.
    fn is_unchanged_pair(&self, a: RecordRef, b: RecordRef, hash: u64, moved: &mut Vec<MovedRow>) -> bool {
        let (old, new) = if a.segment < b.segment { (a, b) } else { (b, a) };
        let is_pair = old.segment < self.olds && new.segment >= self.olds && old.is_row() && new.is_row();
        if !is_pair || self.line(old) != self.line(new) {
            return false;
        }
        let (old_columns, new_columns) = (&self.columns[old.segment], &self.columns[new.segment]);
        let same_type = old_columns.resource_type[old.row()] == new_columns.resource_type[new.row()];
        if !same_type || old_columns.id_of(old.row()) != new_columns.id_of(new.row()) {
            return false;
        }
        let from = &self.dropped[self.readable[old.segment].0];
        if let Some(time) = time_of_row(&from.runs, old.row(), from.first_seen) {
            self.keep_time(new, time, hash, self.files[old.segment] == self.files[new.segment], moved);
        }
        true
    }

    /// Gives a new row the first-seen time that its line had; a row of another file than before is noted as moved.
    fn keep_time(&self, row: RecordRef, time: i64, hash: u64, in_file: bool, moved: &mut Vec<MovedRow>) {
        let Ok(i) = self.times.binary_search(&time) else { return };
        let segment = row.segment - self.olds;
        self.codes[segment][row.row()].store(to_u32(i) + 1, Relaxed);
        if !in_file {
            moved.push(MovedRow { hash, segment, row: row.row() });
        }
    }

    /// Joins the records of one resource.
    fn entity(
        &self,
        hash: u64,
        entity: (ResourceType, Id),
        records: &[RecordRef],
        moved: &mut Vec<MovedRow>,
    ) -> Option<Candidate> {
        let is_old = |record: &&RecordRef| record.segment < self.olds;
        // 1. New rows whose line was there before, in the same file if possible. Of equal lines the latest time: it errs
        // towards exporting a row twice, never towards losing it.
        let rows = || records.iter().filter(|record| record.is_row());
        let mut before: HashMap<(u64, Option<Option<FileId>>), Option<i64>> = HashMap::new();
        for old in rows().filter(is_old) {
            let from = &self.dropped[self.readable[old.segment].0];
            let time = time_of_row(&from.runs, old.row(), from.first_seen);
            for place in [None, Some(self.files[old.segment])] {
                let latest = before.entry((self.line(*old), place)).or_insert(time);
                *latest = latest.zip(time).map(|(a, b)| a.max(b));
            }
        }
        self.keep_entry_times(records.iter().filter(|record| !record.is_row()).copied());
        let tied = self.tied_rows(rows().copied().collect());
        for row in rows().filter(|record| !is_old(record)) {
            let here = before.get(&(self.line(*row), Some(self.files[row.segment]))).copied();
            let anywhere = before.get(&(self.line(*row), None)).copied();
            let Some(Some(time)) = here.or(anywhere) else { continue };
            if tied.binary_search(row).is_ok() {
                continue;
            }
            self.keep_time(*row, time, hash, here.is_some(), moved);
        }
        // 2. Is the newest record a dropped one? A DELETE entry that came and went unseen ended nothing for any reader.
        let newest = |old: bool, rows: bool| {
            let some = records.iter().filter(|record| is_old(record) == old);
            let some = some.filter(|record| record.is_row() || !rows && (!old || self.is_told(**record)));
            some.filter_map(|record| Some((record.key(&self.columns[record.segment])?, *record)))
                .max_by(|a, b| a.0.cmp(&b.0))
        };
        let (old_key, old) = newest(true, false)?;
        let newer = newest(false, false).filter(|(new_key, _)| *new_key >= old_key);
        if newer.as_ref().is_some_and(|(_, record)| record.is_row()) {
            return None;
        }
        let is_deleted = newer.is_some();
        let mut held_by: Vec<usize> = rows().filter(is_old).map(|row| row.segment).collect();
        held_by.sort_unstable();
        held_by.dedup();
        let newest_row = newest(true, true).map(|(_, record)| record);
        let standing_row = newest(false, true).map(|(_, record)| record);
        let older_stands = standing_row.is_some();
        let was_seen = rows().filter(is_old).any(|row| self.was_seen(*row));
        let standing_owners = Vec::new();
        let candidate = Candidate {
            hash,
            entity,
            newest: old,
            newest_row,
            standing_row,
            held_by,
            older_stands,
            was_seen,
            is_deleted,
            standing_owners,
        };
        Some(candidate)
    }
}

/// The moved rows of whose resource, or of one with the same hash, a kept segment has a record.
fn rows_beside_others(moved: Vec<MovedRow>, kept: &[Segment]) -> Result<Vec<MovedRow>, CorruptIndex> {
    if moved.is_empty() || kept.is_empty() {
        return Ok(Vec::new());
    }
    let mut hashes: Vec<u64> = moved.iter().map(|row| row.hash).collect();
    hashes.par_sort_unstable();
    hashes.dedup();
    let found = kept
        .par_iter()
        .map(|segment| {
            let own = segment.verify_columns(&[Column::SortedHash])?.sorted_hash;
            Ok(intersection(&hashes, own))
        })
        .collect::<Result<Vec<_>, CorruptIndex>>()?;
    let found: std::collections::HashSet<u64> = found.into_iter().flatten().collect();
    Ok(moved.into_iter().filter(|row| found.contains(&row.hash)).collect())
}

/// The numbers that both ascending lists have. The shorter one is searched for in the longer.
pub(crate) fn intersection(a: &[u64], b: &[u64]) -> Vec<u64> {
    let (short, mut long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let mut common = Vec::new();
    for number in short {
        // The next number is near: steps that double find it.
        let mut step = 1;
        while step < long.len() && long[step] < *number {
            step *= 2;
        }
        let from = step / 2;
        let end = long.len().min(step + 1);
        long = &long[from + long[from..end].partition_point(|other| other < number)..];
        if long.first() == Some(number) && common.last() != Some(number) {
            common.push(*number);
        }
    }
    common
}

/// A record of a kept segment whose resource is a candidate.
struct KeptRecord {
    /// Place among the candidates.
    candidate: usize,
    /// Whether it is newer than every dropped record of the resource, or the same as the newest.
    is_newer: bool,
    is_row: bool,
    /// Owners of an older row.
    owners: Vec<(String, Id)>,
}

/// Reference base and id of the owners of a row.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn row_owners(segment: &Segment, row: usize) -> Result<Vec<(String, Id)>, CorruptIndex> {
    let mut owners = Vec::new();
    for owner in segment.row_owners(row)? {
        let id = segment.owner_id(*owner as usize)?;
        let columns = segment.verify_columns(&[Column::Base, Column::Heap])?;
        let base = columns.base_text((columns.owner_base[*owner as usize] & BASE_BITS) as usize);
        owners.push((base.to_string(), id));
    }
    Ok(owners)
}

/// Removes the candidates of which a kept segment has a newer record, and finds those of which it has an older row.
fn resolve_candidates(
    candidates: &mut Vec<Candidate>,
    columns: &[Columns<'_>],
    kept: &[Segment],
) -> Result<(), CorruptIndex> {
    if candidates.is_empty() {
        return Ok(());
    }
    candidates.sort_by_key(|one| one.hash);
    let mut hashes: Vec<u64> = candidates.iter().map(|one| one.hash).collect();
    hashes.dedup();
    // Records of kept segments with the hash of a candidate.
    let found = kept
        .par_iter()
        .map(|segment| {
            let mut found: Vec<KeptRecord> = Vec::new();
            let own = segment.verify_columns(&[Column::SortedHash])?;
            for hash in intersection(&hashes, own.sorted_hash) {
                let some = candidates.partition_point(|one| one.hash < hash)
                    ..candidates.partition_point(|one| one.hash <= hash);
                let places = own.sorted_hash.partition_point(|other| *other < hash)
                    ..own.sorted_hash.partition_point(|other| *other <= hash);
                for place in places {
                    segment.verify_entry(place)?;
                    let record = RecordRef { segment: 0, reference: own.sorted_ref[place] };
                    if !matches!(record.reference & kind::MASK, kind::ROW | kind::TOMBSTONE) {
                        continue;
                    }
                    segment.verify_columns(&[Column::LineHash])?;
                    for i in some.clone().filter(|i| candidates[*i].entity == record.entity(&own)) {
                        let old = candidates[i].newest;
                        let order = record.key(&own).cmp(&old.key(&columns[old.segment]));
                        // Rows of equal age may differ; DELETE entries of equal age say the same.
                        let is_same = || {
                            !record.is_row() || own.line_hash[record.row()] == columns[old.segment].line_hash[old.row()]
                        };
                        let is_newer = order.is_gt() || order.is_eq() && is_same();
                        let owners = match record.is_row() && !is_newer {
                            true => row_owners(segment, record.row())?,
                            false => Vec::new(),
                        };
                        found.push(KeptRecord { candidate: i, is_newer, is_row: record.is_row(), owners });
                    }
                }
            }
            Ok(found)
        })
        .collect::<Result<Vec<_>, CorruptIndex>>()?;
    let mut covered = vec![false; candidates.len()];
    for record in found.into_iter().flatten() {
        let candidate = &mut candidates[record.candidate];
        covered[record.candidate] |= record.is_newer && record.is_row;
        candidate.is_deleted |= record.is_newer && !record.is_row;
        candidate.older_stands |= record.is_row;
        candidate.standing_owners.extend(record.owners);
    }
    // What a DELETE entry ends is told by it, as long as a version stands that says whose it was.
    for (covered, candidate) in covered.iter_mut().zip(candidates.iter()) {
        *covered |= candidate.is_deleted && candidate.older_stands;
    }
    let mut covered = covered.into_iter();
    candidates.retain(|_| !covered.next().unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::diff::DroppedSegment;
    use crate::progress::Progress;
    use crate::store::{Store, StoreOptions};
    use crate::sys::store_file::FileStamp;
    use proptest::prelude::*;

    /// A row: id, date, version and a note that makes another line of it; of version [`ENTRY`] a DELETE entry.
    type Row = (u8, u8, u8, u8);

    const ENTRY: u8 = 2;

    fn line((id, date, version, note): Row) -> String {
        let meta = format!(r#""meta":{{"lastUpdated":"2020-01-0{}T00:00:00Z","versionId":"{version}"}}"#, date + 1);
        if version == ENTRY {
            let entry = format!(r#"{{"request":{{"method":"DELETE","url":"Patient/p{id}"}}}}"#);
            return format!(r#"{{"resourceType":"Bundle","type":"batch",{meta},"entry":[{entry}],"id":"{note}"}}"#);
        }
        format!(r#"{{"resourceType":"Patient","id":"p{id}",{meta},"gender":"{note}"}}"#)
    }

    /// The segments of a store of two files, one each, in their order.
    fn segments(files: &[Vec<Row>; 2]) -> Vec<Segment> {
        let dir = tempfile::tempdir().unwrap();
        for (name, rows) in ["a.ndjson", "b.ndjson"].iter().zip(files) {
            let text: String = rows.iter().map(|row| line(*row) + "\n").collect();
            // A blank line keeps an empty file a segment.
            std::fs::write(dir.path().join(name), text + "\n").unwrap();
        }
        let index = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), StoreOptions::default().index_dir(index.path())).unwrap();
        store.index(&Progress::default()).unwrap().0.segments().to_vec()
    }

    fn rows() -> impl Strategy<Value = [Vec<Row>; 2]> {
        let file = || proptest::collection::vec((0..6u8, 0..2u8, 0..=ENTRY, 0..2u8), 0..8);
        [file(), file()]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// A row keeps its time if its line was there before, in its own file if possible, unless another line of the
        /// resource has its date and version, and a DELETE entry if one of its date was: as an obvious search finds it.
        #[test]
        fn unchanged_rows_are_those_of_an_obvious_search(old in rows(), new in rows()) {
            let times = [7, 9];
            let dropped: Vec<DroppedSegment> = segments(&old)
                .into_iter()
                .enumerate()
                .map(|(file, segment)| DroppedSegment {
                    file: Some(FileId::of(file)),
                    old_name: String::new(),
                    old_stamp: FileStamp::default(),
                    segment: Some(segment),
                    is_excluded: false,
                    first_seen: Some(times[file]),
                    runs: Vec::new(),
                })
                .collect();
            let scanned: Vec<(FileId, Segment)> = (0..).map(FileId).zip(segments(&new)).collect();
            let matches = match_rows(&dropped, &scanned, &[], None).unwrap();
            let all = || old.iter().chain(&new).flatten();
            let is_tied = |row: &Row| {
                row.2 != ENTRY && all().any(|other| other != row && (other.0, other.1, other.2) == (row.0, row.1, row.2))
            };
            let same = |a: &Row, b: &Row| a == b || a.2 == ENTRY && (a.0, a.1, a.2) == (b.0, b.1, b.2);
            let is_in = |file: usize, row: &Row| old[file].iter().any(|other| same(row, other));
            for (file, lines) in new.iter().enumerate() {
                let rows = lines.iter().filter(|line| line.2 != ENTRY);
                let count = rows.clone().count();
                for (i, row) in rows.enumerate() {
                    let place = if is_in(file, row) { Some(file) } else { [1, 0].into_iter().find(|place| is_in(*place, row)) };
                    let expected = place.filter(|_| !is_tied(row)).map(|place| times[place]);
                    prop_assert_eq!(time_of_row(&matches.runs[file], i, None), expected, "row {} of file {}", i, file);
                }
                for (i, entry) in lines.iter().filter(|line| line.2 == ENTRY).enumerate() {
                    let expected = [1, 0].into_iter().find(|place| is_in(*place, entry)).map(|place| times[place]);
                    let time = time_of_entry(&matches.runs[file], count, EntryId::of(i), None);
                    prop_assert_eq!(time, expected, "entry {} of file {}", i, file);
                }
            }
        }
    }

    /// Common numbers of ascending lists, whatever their lengths.
    #[test]
    fn intersections_are_common_numbers() {
        let lists: [&[u64]; 5] = [&[], &[5], &[1, 1, 2, 5, 5, 9], &[0, 2, 4, 5, 6, 7, 8, 10], &[9, 11, 12]];
        for a in lists {
            for b in lists {
                let mut expected: Vec<u64> = a.iter().filter(|number| b.contains(number)).copied().collect();
                expected.dedup();
                assert_eq!(intersection(a, b), expected, "{a:?} {b:?}");
            }
        }
    }
}
