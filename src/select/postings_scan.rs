//! Selection by the postings of a cohort's members: their rows are classified one by one, all other rows are counted by
//! totals.
//!
//! The access path for cohorts that are a small part of the store: its cost grows with the answer, not with the store,
//! unless the snapshot lacks segments or rows are dated after T; then the totals are counted segment by segment.

use rayon::prelude::*;

use crate::error::CorruptIndex;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{OwnerOrd, PatientId, RecordId, RowAddress, RowId, SegmentId};
use crate::index::global::Section;
use crate::index::segment::layout::Column;
use crate::index::snapshot::RowState;
use crate::select::classifier::{CandidateSource, RowClassifier};
use crate::select::ledger::{Ledger, RowClass, SegmentSelection};
use crate::select::row_set::RowSet;

/// Selects the rows of a cohort: the exported rows of each segment that has any, and one selection with the ledger and
/// counts of the whole snapshot, without rows.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn select_by_postings(
    classifier: &RowClassifier<'_>,
) -> Result<(Vec<(SegmentId, RowSet)>, SegmentSelection), CorruptIndex> {
    let index = classifier.snapshot.index();
    // 1. Lines of the whole snapshot.
    let mut part = SegmentSelection::default();
    for segment in classifier.snapshot.segments() {
        part.add_header(index.segment(segment).head());
    }
    // 2. Candidates, segment by segment.
    let mut rows: Vec<(SegmentId, RowSet)> = Vec::new();
    let (mut in_cohort, mut exported) = (0, 0);
    let candidates = candidates(classifier)?;
    read_facts_ahead(classifier, &candidates)?;
    for candidates in candidates.chunk_by(|a, b| a.segment == b.segment) {
        let segment = candidates[0].segment;
        let (exported_rows, outside_window) = collect(classifier, segment, candidates, &mut part)?;
        exported += exported_rows.len() as u64;
        in_cohort += exported_rows.len() as u64 + outside_window;
        if !exported_rows.is_empty() {
            rows.push((segment, RowSet::Sorted(exported_rows)));
        }
    }
    // 3. Everything else by the totals of its type.
    let totals = totals(classifier)?;
    let ledger = &mut part.ledger;
    let mut wanted = 0;
    for resource_type in ResourceType::all() {
        let [rows, future, superseded, deleted] = totals[resource_type.index()];
        ledger.future += future;
        ledger.superseded += superseded;
        ledger.deleted += deleted;
        let current = rows - future - superseded - deleted;
        match classifier.selects_type(resource_type) {
            true => wanted += current,
            false => ledger.r#type += current,
        }
    }
    *ledger = Ledger { cohort: wanted - in_cohort, since_or_until: in_cohort - exported, exported, ..*ledger };
    Ok((rows, part))
}

/// Asks for the pages of the index on which the places of candidates stand, and for what decides about those that ownership
/// alone does not decide, with their successors. Of an index in memory nothing is looked at but a few samples.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
fn read_facts_ahead(classifier: &RowClassifier<'_>, candidates: &[RowAddress]) -> Result<(), CorruptIndex> {
    let index = classifier.snapshot.index();
    if !index.read_rows_ahead(&[Column::Place], candidates) {
        return Ok(());
    }
    let mut undecided: Vec<RowAddress> = Vec::new();
    for own in candidates.chunk_by(|a, b| a.segment == b.segment) {
        let segment = own[0].segment;
        let span = own[0].row.index()..own[own.len() - 1].row.index() + 1;
        for (row, next) in index.successions(segment, span)? {
            let row = RowAddress::of(segment, row);
            if own.binary_search(&row).is_ok() {
                undecided.push(row);
                undecided.extend(index.is_row(next).then(|| index.locate(next)));
            }
        }
        if !classifier.is_uniform(segment) || classifier.cohort.outsiders.is_some() {
            undecided.extend_from_slice(own);
        }
    }
    let columns = [Column::Type, Column::Flags, Column::LastUpdated, Column::OwnerStart, Column::Owner];
    index.read_rows_ahead(&columns, &undecided);
    Ok(())
}

/// The exported rows among the candidates of a segment (ascending, not empty), and the number of rows in the cohort
/// that the window excludes.
fn collect(
    classifier: &RowClassifier<'_>,
    segment: SegmentId,
    candidates: &[RowAddress],
    part: &mut SegmentSelection,
) -> Result<(Vec<u32>, u64), CorruptIndex> {
    let index = classifier.snapshot.index();
    let is_uniform = classifier.is_uniform(segment) && classifier.cohort.outsiders.is_none();
    let span = candidates[0].row.index()..candidates[candidates.len() - 1].row.index() + 1;
    let mut followed = index.successions(segment, span)?.map(|(row, _)| row).peekable();
    let (mut exported_rows, mut outside_window) = (Vec::with_capacity(candidates.len()), 0);
    for candidate in candidates {
        let row = candidate.row.index();
        while followed.next_if(|followed| *followed < row).is_some() {}
        let class = match is_uniform && followed.peek() != Some(&row) {
            // Only owners and successors could exclude the row, and neither does.
            true => RowClass::Exported,
            false => classifier.classify_candidate(*candidate, CandidateSource::MemberPostings, part)?,
        };
        match class {
            RowClass::SinceOrUntil => outside_window += 1,
            RowClass::Exported => exported_rows.push(candidate.row.0),
            _ => {}
        }
    }
    Ok((exported_rows, outside_window))
}

/// Every row that may be in the cohort, in store order, each once: all versions of the members' rows, Provenances about
/// them, Provenances about those, and the requested Group.
fn candidates(classifier: &RowClassifier<'_>) -> Result<Vec<RowAddress>, CorruptIndex> {
    let index = classifier.snapshot.index();
    let mut owners: Vec<(SegmentId, OwnerOrd)> = Vec::new();
    for patient in classifier.cohort.patients.iter().flat_map(|patients| patients.iter()) {
        owners.extend(index.owners_of_patient(PatientId::of(patient))?.map(|owner| index.locate_owner(owner)));
    }
    index.read_postings_ahead(&owners);
    let mut lists: Vec<(SegmentId, &[u32])> = Vec::with_capacity(owners.len());
    for (segment, owner) in owners {
        lists.push((segment, index.segment(segment).posting(owner.index())?));
    }
    let group = classifier.cohort.group_row.map(|group| (group.segment, [group.row.0]));
    lists.extend(group.iter().map(|(segment, row)| (*segment, &row[..])));
    lists.sort_unstable_by_key(|(segment, _)| *segment);
    let mut rows: Vec<RowAddress> = Vec::with_capacity(lists.iter().map(|(_, list)| list.len()).sum());
    let mut found: Vec<u32> = Vec::new();
    for of_segment in lists.chunk_by(|a, b| a.0 == b.0) {
        found.clear();
        of_segment.iter().for_each(|(_, list)| found.extend_from_slice(list));
        found.sort_unstable();
        found.dedup();
        rows.extend(found.iter().map(|row| RowAddress { segment: of_segment[0].0, row: RowId(*row) }));
    }
    if index.global().count(Section::About) > 0 {
        let mut known: std::collections::HashSet<RowAddress> = rows.iter().copied().collect();
        // The targets of a resource are asked for at most twice, however many of its versions lead to it: by its first
        // record, and by the first of the later ones.
        let mut asked: std::collections::HashSet<RecordId> = std::collections::HashSet::new();
        // Versions purged from a packed store have no postings: the deletions that ended them lead to their resources.
        let purged = classifier.membership.deletions_of_purged()?;
        let mut deletions = purged.iter().map(|(segment, entry)| index.record_of_entry(*segment, *entry)).rev();
        let mut next = 0;
        loop {
            let record = match (deletions.next(), rows.get(next)) {
                (Some(deletion), _) => deletion,
                (None, Some(row)) => {
                    next += 1;
                    index.record_of_row(*row)
                }
                (None, None) => break,
            };
            let Some((resource, targets)) = index.global().targets_of_resource(record)? else { continue };
            let is_asked = if resource == record { asked.contains(&resource) } else { !asked.insert(resource) };
            if is_asked {
                continue;
            }
            for edge in targets.iter() {
                let (segment, target) = index.locate_target(edge.to_target());
                let row = index.segment(segment).target(target)?.target_row[target];
                let row = RowAddress { segment, row: RowId(row) };
                if known.insert(row) {
                    rows.push(row);
                }
            }
        }
        rows.sort_unstable();
    }
    rows.retain(|row| classifier.snapshot.sees_segment(row.segment));
    Ok(rows)
}

/// For each type (by index) the numbers of its rows, and of those in the future, superseded and deleted. Totals of the
/// global index if they hold for this snapshot: it has every segment, nothing is dated after T, and every deletion is
/// under a base of ours. Else counted in parallel, segment by segment.
fn totals(classifier: &RowClassifier<'_>) -> Result<Vec<[u64; 4]>, CorruptIndex> {
    let (snapshot, index) = (classifier.snapshot, classifier.snapshot.index());
    let instant = classifier.as_of();
    let mut sums = vec![[0; 4]; ResourceType::COUNT];
    let whole = index.global().totals()?;
    let counted = snapshot.sees_whole_index()
        && whole.foreign_deletions() == 0
        && index.segments().iter().all(|segment| {
            let header = segment.head();
            header.updated_max() < instant.ticks && header.tombstone_updated_max() < instant.ticks
        });
    if counted {
        for (index, sum) in sums.iter_mut().enumerate() {
            *sum = [whole.rows(index), 0, whole.superseded(index), whole.deleted(index)];
        }
        return Ok(sums);
    }
    let segments: Vec<SegmentId> = snapshot.segments().collect();
    let parts: Vec<Vec<[u64; 4]>> =
        segments.into_par_iter().map(|segment| totals_of(classifier, segment)).collect::<Result<_, _>>()?;
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| sum.iter_mut().zip(part).for_each(|(sum, n)| *sum += n));
    }
    Ok(sums)
}

/// The same numbers for one segment: rows by its type counts, future rows by their dates if any is after T, superseded
/// and deleted rows by its successions.
fn totals_of(classifier: &RowClassifier<'_>, segment_id: SegmentId) -> Result<Vec<[u64; 4]>, CorruptIndex> {
    let (snapshot, index) = (classifier.snapshot, classifier.snapshot.index());
    let (segment, instant) = (index.segment(segment_id), classifier.as_of());
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
    for (row, _) in index.successions(segment_id, 0..segment.rows())? {
        let class =
            match snapshot.state(RowAddress::of(segment_id, row), instant, &classifier.cohort.ours, &|_| true)? {
                RowState::Superseded => 2,
                RowState::Deleted => 3,
                RowState::Current | RowState::Future => continue,
            };
        sums[segment.row(row)?.resource_type[row] as usize][class] += 1;
    }
    Ok(sums)
}
