//! Selection from the members' side: their rows by the postings, a look at each, and everything else by totals. The
//! way for cohorts that are a small part of the store: what it costs follows the answer, not the store.

use rayon::prelude::*;

use crate::casts::{low_u32, to_u32};
use crate::error::CorruptIndex;
use crate::fhir::resource_type::ResourceType;
use crate::index::global::Section;
use crate::index::segment::layout::Column;
use crate::index::snapshot::RowState;
use crate::select::classifier::{CandidateSource, PROVENANCE_DEPTH_MAX, RowClassifier};
use crate::select::ledger::{Ledger, RowClass, SegmentSelection};
use crate::select::row_set::RowSet;

/// A row: segment and number in it.
type PostingRow = (u32, u32);

/// Selects: the rows of each segment that has any, and a part that speaks for the whole store.
///
/// # Errors
/// [`Damaged`] when the index is.
pub(crate) fn select_by_postings(
    filter: &RowClassifier<'_>,
) -> Result<(Vec<(usize, RowSet)>, SegmentSelection), CorruptIndex> {
    let index = filter.snapshot.index();
    let mut part = SegmentSelection::default();
    for segment in filter.snapshot.segments() {
        part.add_header(index.segments()[segment].head());
    }
    let mut rows: Vec<(usize, RowSet)> = Vec::new();
    let (mut in_cohort, mut exported) = (0, 0);
    for found in candidates(filter)?.chunk_by(|a, b| a.0 == b.0) {
        let segment = found[0].0 as usize;
        let (taken, passed_by) = collect(filter, segment, found, &mut part)?;
        exported += taken.len() as u64;
        in_cohort += taken.len() as u64 + passed_by;
        if !taken.is_empty() {
            rows.push((segment, RowSet::Sorted(taken)));
        }
    }
    let totals = totals(filter)?;
    let ledger = &mut part.ledger;
    let mut wanted = 0;
    for resource_type in ResourceType::all() {
        let [rows, future, superseded, deleted] = totals[resource_type.index()];
        ledger.future += future;
        ledger.superseded += superseded;
        ledger.deleted += deleted;
        let current = rows - future - superseded - deleted;
        match filter.selects_type(resource_type) {
            true => wanted += current,
            false => ledger.r#type += current,
        }
    }
    *ledger = Ledger { cohort: wanted - in_cohort, since_or_until: in_cohort - exported, exported, ..*ledger };
    Ok((rows, part))
}

/// Of the candidates of a segment, ascending, those that are exported, and how many more the window keeps back.
fn collect(
    filter: &RowClassifier<'_>,
    segment: usize,
    candidates: &[PostingRow],
    part: &mut SegmentSelection,
) -> Result<(Vec<u32>, u64), CorruptIndex> {
    let index = filter.snapshot.index();
    let even = filter.is_uniform(segment);
    let first = index.starts().row[segment];
    let number = |(_, row): &PostingRow| first + *row as usize;
    let span = number(&candidates[0])..number(&candidates[candidates.len() - 1]) + 1;
    let mut followed =
        index.global().pairs(Section::Succession, span)?.iter().map(|pair| (pair >> 32) as usize).peekable();
    let (mut taken, mut passed_by) = (Vec::with_capacity(candidates.len()), 0);
    for candidate in candidates {
        let (number, row) = (number(candidate), candidate.1);
        while followed.next_if(|followed| *followed < number).is_some() {}
        let class = match even && followed.peek() != Some(&number) {
            true => RowClass::Exported,
            false => filter.classify_candidate(segment, row as usize, CandidateSource::AsMembers, part)?,
        };
        match class {
            RowClass::SinceOrUntil => passed_by += 1,
            RowClass::Exported => taken.push(row),
            _ => {}
        }
    }
    Ok((taken, passed_by))
}

/// Every row that may be the cohort's, in store order: the members' own in any version, Provenances about them, and
/// about those, and the Group asked for.
fn candidates(filter: &RowClassifier<'_>) -> Result<Vec<PostingRow>, CorruptIndex> {
    let index = filter.snapshot.index();
    let mut lists: Vec<(usize, &[u32])> = Vec::new();
    for patient in filter.cohort.patients.iter().flat_map(|patients| patients.iter()) {
        for owner in index.owners_of_patient(to_u32(patient))? {
            let (segment, owner) = index.locate_owner(*owner as usize);
            lists.push((segment, index.segments()[segment].posting(owner)?));
        }
    }
    let group = filter.cohort.group_row.map(|(segment, row)| (segment, [to_u32(row)]));
    lists.extend(group.iter().map(|(segment, row)| (*segment, &row[..])));
    lists.sort_unstable_by_key(|(segment, _)| *segment);
    let mut rows: Vec<PostingRow> = Vec::with_capacity(lists.iter().map(|(_, list)| list.len()).sum());
    let mut found: Vec<u32> = Vec::new();
    for of_segment in lists.chunk_by(|a, b| a.0 == b.0) {
        found.clear();
        of_segment.iter().for_each(|(_, list)| found.extend_from_slice(list));
        found.sort_unstable();
        found.dedup();
        rows.extend(found.iter().map(|row| (to_u32(of_segment[0].0), *row)));
    }
    if index.global().count(Section::About) > 0 {
        let mut known: std::collections::HashSet<PostingRow> = rows.iter().copied().collect();
        let mut new = rows.clone();
        for _ in 0..=PROVENANCE_DEPTH_MAX {
            let mut found = Vec::new();
            for (segment, row) in new {
                let record = index.starts().row[segment as usize] + row as usize;
                for pair in index.global().pairs(Section::About, record..record + 1)? {
                    let (segment, target) = index.locate_target(low_u32(*pair) as usize);
                    let row = (to_u32(segment), index.segments()[segment].target(target)?.target_row[target]);
                    if known.insert(row) {
                        found.push(row);
                    }
                }
            }
            rows.extend(&found);
            new = found;
        }
        rows.sort_unstable();
    }
    if index.segments().iter().any(|segment| segment.head().left > 0) {
        // What has left a packed store has no postings, so every Provenance may be about something that has.
        for (number, segment) in index.segments().iter().enumerate() {
            if segment.head().has_type(ResourceType::PROVENANCE.index()) {
                let types = segment.verify_columns(&[Column::Type])?.resource_type.iter().enumerate();
                let provenances = types.filter(|(_, position)| **position as usize == ResourceType::PROVENANCE.index());
                rows.extend(provenances.map(|(row, _)| (to_u32(number), to_u32(row))));
            }
        }
        rows.sort_unstable();
        rows.dedup();
    }
    rows.retain(|(segment, _)| filter.snapshot.sees_segment(*segment as usize));
    Ok(rows)
}

/// For each type its rows, and those in the future, superseded and deleted. From what was counted when the index was
/// made, where all that counted then counts now: nothing dated after T, every segment seen, deletions under our base.
fn totals(filter: &RowClassifier<'_>) -> Result<Vec<[u64; 4]>, CorruptIndex> {
    let (snapshot, index) = (filter.snapshot, filter.snapshot.index());
    let instant = filter.as_of();
    let mut sums = vec![[0; 4]; ResourceType::COUNT];
    let whole = index.global().totals()?;
    let counted = snapshot.sees_whole_index()
        && whole.foreign_deletions() == 0
        && index.segments().iter().all(|segment| {
            let head = segment.head();
            head.updated_max() < instant.ticks && head.tombstone_updated_max() < instant.ticks
        });
    if counted {
        for (index, sum) in sums.iter_mut().enumerate() {
            *sum = [whole.rows(index), 0, whole.superseded(index), whole.deleted(index)];
        }
        return Ok(sums);
    }
    let segments: Vec<usize> = snapshot.segments().collect();
    let parts: Vec<Vec<[u64; 4]>> =
        segments.into_par_iter().map(|segment| totals_of(filter, segment)).collect::<Result<_, _>>()?;
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| sum.iter_mut().zip(part).for_each(|(sum, n)| *sum += n));
    }
    Ok(sums)
}

/// The same of one segment, row by row where it must be.
fn totals_of(filter: &RowClassifier<'_>, segment_id: usize) -> Result<Vec<[u64; 4]>, CorruptIndex> {
    let (snapshot, index) = (filter.snapshot, filter.snapshot.index());
    let (segment, instant) = (&index.segments()[segment_id], filter.as_of());
    let mut sums = vec![[0; 4]; ResourceType::COUNT];
    let counts = segment.verify_columns(&[Column::TypeCount])?.type_count;
    sums.iter_mut().zip(counts).for_each(|(sum, rows)| sum[0] = *rows);
    if segment.head().updated_max() >= instant.ticks {
        let needed = [Column::LastUpdated, Column::Type, Column::Flags, Column::Exact, Column::Heap];
        let columns = segment.verify_columns(&needed)?;
        for row in 0..segment.rows() {
            let future = columns.updated_of(row).is_some_and(|updated| updated > instant);
            sums[columns.resource_type[row] as usize][1] += u64::from(future);
        }
    }
    let first = index.starts().row[segment_id];
    for pair in index.global().pairs(Section::Succession, first..first + segment.rows())? {
        let row = (pair >> 32) as usize - first;
        let class = match snapshot.state(segment_id, row, instant, &filter.cohort.ours, &|_| true)? {
            RowState::Superseded => 2,
            RowState::Deleted => 3,
            RowState::Current | RowState::Future => continue,
        };
        sums[segment.row(row)?.resource_type[row] as usize][class] += 1;
    }
    Ok(sums)
}
