//! Follows references from rows to rows of context, over columns alone (COMP-06).
//!
//! A segment lists each reference once, and rows by sets of references, so that the first step costs one look at the set of
//! each exported row and one at each reference of a segment; the steps behind it have few rows. What a reference leads to is
//! decided at T: the current version of its resource, or the one resource whose current version has the identifier of a
//! conditional reference.

use crate::casts::to_u32;
use crate::error::{CorruptIndex, ExportError};
use crate::fhir::context;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{RecordId, RowAddress, SegmentId};
use crate::index::segment::layout::{BASE_BITS, flag};
use crate::index::snapshot::RowState;
use crate::policies::Context;
use crate::progress::Progress;
use crate::request::{ExportRequest, Population};
use crate::select::classifier::RowClassifier;
use crate::select::row_set::RowSet;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;

/// Rows of a segment, as a share of all, from which on the sets of all its rows are read at once.
const SHARE_READ_WHOLE: usize = 16;

/// References of exported rows that lead to no resource, by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeadEnds {
    /// References that name a resource that the store does not hold at T, or that may not leave, each counted once a row.
    pub nowhere: BTreeMap<ResourceType, u64>,
    /// References by an identifier that several resources have.
    pub several: BTreeMap<ResourceType, u64>,
}

/// Whether a request has context: it asks for it, and has a cohort. At system level every resource is exported anyway.
pub(crate) fn has_context(request: &ExportRequest) -> bool {
    request.context != Context::None && request.population != Population::System
}

/// What a reference leads to at T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The current version of one resource.
    Row(RowAddress),
    /// No resource of the store.
    Nowhere,
    /// Several resources that have its identifier.
    Several,
}

/// References to one resource, as pass by pass they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct CountedHead {
    /// First record of the resource, or of the identifier, plus one; 0 for none.
    head: u32,
    resource_type: ResourceType,
    count: u64,
}

/// Follows references from rows to rows of context.
pub(crate) struct Closure<'a> {
    pub classifier: &'a RowClassifier<'a>,
    /// What first records lead to, as far as it was asked.
    known: HashMap<u32, Destination>,
    /// Rows that were found.
    taken: HashSet<RowAddress>,
    pub dead_ends: DeadEnds,
}

impl<'a> Closure<'a> {
    /// A closure of a request's context; nothing is read yet.
    pub(crate) fn new(classifier: &'a RowClassifier<'a>) -> Closure<'a> {
        Closure { classifier, known: HashMap::new(), taken: HashSet::new(), dead_ends: DeadEnds::default() }
    }

    /// The rows of context that selected rows lead to, and are not selected themselves, each once, in no order.
    ///
    /// # Errors
    /// [`ExportError`] if the index is damaged, or the work is cancelled.
    pub(crate) fn of_selection(
        &mut self,
        rows: &[RowSet],
        progress: &Progress,
    ) -> Result<Vec<RowAddress>, ExportError> {
        let segments: Vec<SegmentId> = self.classifier.snapshot.segments().collect();
        let classifier = self.classifier;
        let found: Vec<Vec<CountedHead>> = segments
            .par_iter()
            .map(|segment| match progress.cancel.load(Relaxed) {
                true => Err(ExportError::Cancelled),
                false => Ok(references_of_rows(classifier, *segment, &rows[segment.index()])?),
            })
            .collect::<Result<_, _>>()?;
        let mut heads: Vec<CountedHead> = found.into_iter().flatten().collect();
        heads.par_sort_unstable();
        let first = self.follow(&heads, rows)?;
        self.of_rows(first, rows, progress)
    }

    /// Rows of context that are not in `rows`, with those that they lead to in turn, each once.
    ///
    /// # Errors
    /// As [`Closure::of_selection`].
    pub(crate) fn of_rows(
        &mut self,
        mut frontier: Vec<RowAddress>,
        rows: &[RowSet],
        progress: &Progress,
    ) -> Result<Vec<RowAddress>, ExportError> {
        self.taken.extend(&frontier);
        let mut found = frontier.clone();
        while !frontier.is_empty() {
            if progress.cancel.load(Relaxed) {
                return Err(ExportError::Cancelled);
            }
            let mut heads = Vec::new();
            for row in &frontier {
                references_of_row(self.classifier, *row, 1, &mut heads)?;
            }
            heads.sort_unstable();
            frontier = self.follow(&heads, rows)?;
            found.extend(&frontier);
        }
        Ok(found)
    }

    /// The rows that sorted heads lead to for the first time, and that may leave as context. Counts dead ends.
    fn follow(&mut self, heads: &[CountedHead], rows: &[RowSet]) -> Result<Vec<RowAddress>, CorruptIndex> {
        let mut new = Vec::new();
        for of_head in heads.chunk_by(|a, b| (a.head, a.resource_type) == (b.head, b.resource_type)) {
            let CountedHead { head, resource_type, .. } = of_head[0];
            let count: u64 = of_head.iter().map(|one| one.count).sum();
            match self.destination(head)? {
                Destination::Row(row) => {
                    let number = row.row.index();
                    let is_selected = rows[row.segment.index()].any(number..number + 1);
                    if is_selected || self.taken.contains(&row) {
                        continue;
                    }
                    if may_leave(self.classifier, row)? {
                        self.taken.insert(row);
                        new.push(row);
                    } else {
                        // Counted with references to absent rows, so that no count tells that the row exists.
                        *self.dead_ends.nowhere.entry(resource_type).or_default() += count;
                    }
                }
                Destination::Nowhere => *self.dead_ends.nowhere.entry(resource_type).or_default() += count,
                Destination::Several if resource_type == ResourceType::DEVICE => {
                    *self.dead_ends.nowhere.entry(resource_type).or_default() += count;
                }
                Destination::Several => *self.dead_ends.several.entry(resource_type).or_default() += count,
            }
        }
        Ok(new)
    }

    /// What a first record, given plus one, leads to at T.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn destination(&mut self, head: u32) -> Result<Destination, CorruptIndex> {
        if let Some(known) = self.known.get(&head) {
            return Ok(*known);
        }
        let found = destination(self.classifier, head)?;
        self.known.insert(head, found);
        Ok(found)
    }
}

/// As [`Closure::destination`], and nothing is remembered.
fn destination(classifier: &RowClassifier<'_>, head: u32) -> Result<Destination, CorruptIndex> {
    let index = classifier.snapshot.index();
    let Some(first) = head.checked_sub(1).map(RecordId) else { return Ok(Destination::Nowhere) };
    if index.row_of_key(first)?.is_none() {
        let last = classifier.membership.last_row(first)?;
        return Ok(match last {
            Some(row) if is_current(classifier, row)? => Destination::Row(row),
            _ => Destination::Nowhere,
        });
    }
    // The current rows that have the identifier.
    let (mut next, mut found) = (Some(first), None);
    while let Some(record) = next {
        let row = index.row_of_key(record)?.ok_or(CorruptIndex("an identifier is followed by a row"))?;
        if found != Some(row) && is_current(classifier, row)? {
            if found.is_some() {
                return Ok(Destination::Several);
            }
            found = Some(row);
        }
        next = index.global().next(record)?.filter(|next| *next > record);
    }
    Ok(found.map_or(Destination::Nowhere, Destination::Row))
}

/// Whether a row is in the snapshot, and the current version of its resource at T.
pub(crate) fn is_current(classifier: &RowClassifier<'_>, row: RowAddress) -> Result<bool, CorruptIndex> {
    let RowClassifier { snapshot, cohort, .. } = classifier;
    Ok(snapshot.sees_segment(row.segment)
        && snapshot.state(row, classifier.as_of(), &cohort.ours, &|_| true)? == RowState::Current)
}

/// Whether a row of context may leave: it is no patient's record, or one of the cohort's. A Device that names a patient whom
/// nothing identifies stays.
pub(crate) fn may_leave(classifier: &RowClassifier<'_>, row: RowAddress) -> Result<bool, CorruptIndex> {
    let segment = classifier.snapshot.index().segment(row.segment);
    let number = row.row.index();
    if segment.row_owners(number)?.is_empty() {
        return Ok(segment.row(number)?.flags[number] & flag::NAMES_PATIENT == 0);
    }
    classifier.membership.has_cohort_owner(row)
}

/// Whether a reference of this type under this base of a segment is followed: the type is selected context, and the base
/// ours.
pub(crate) fn is_followed(
    classifier: &RowClassifier<'_>,
    segment: SegmentId,
    resource_type: ResourceType,
    base: u32,
) -> bool {
    let base = classifier.snapshot.index().base_of_segment(segment, base & BASE_BITS);
    context::is_context(resource_type) && classifier.selects_type(resource_type) && classifier.cohort.ours[base.index()]
}

/// The references of some rows of a segment that are followed, by first record.
fn references_of_rows(
    classifier: &RowClassifier<'_>,
    segment_id: SegmentId,
    rows: &RowSet,
) -> Result<Vec<CountedHead>, CorruptIndex> {
    let index = classifier.snapshot.index();
    let segment = index.segment(segment_id);
    let mut heads = Vec::new();
    if segment.head().references == 0 || rows.is_empty() {
        return Ok(heads);
    }
    if rows.count() * SHARE_READ_WHOLE < segment.rows() {
        for row in rows.iter() {
            references_of_row(classifier, RowAddress::of(segment_id, row), 1, &mut heads)?;
        }
    } else {
        let columns = segment.reference_sets()?;
        let mut rows_of_set = vec![0u32; columns.set_start.len() - 1];
        rows.iter().for_each(|row| rows_of_set[columns.reference_set[row] as usize] += 1);
        let mut counts = vec![0u64; columns.reference_type.len()];
        for (set, count) in rows_of_set.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            columns.references_of_set(set).iter().for_each(|number| counts[*number as usize] += u64::from(count));
        }
        let first_records = index.reference_heads(segment_id)?;
        for (number, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let resource_type = columns.reference_type_of(number);
            if is_followed(classifier, segment_id, resource_type, columns.reference_base[number]) {
                heads.push(CountedHead { head: first_records[number], resource_type, count });
            }
        }
    }
    // Few are left of the many references of many rows.
    heads.sort_unstable();
    heads.dedup_by(|one, kept| {
        let is_same = (one.head, one.resource_type) == (kept.head, kept.resource_type);
        kept.count += if is_same { one.count } else { 0 };
        is_same
    });
    Ok(heads)
}

/// Adds the references of one row that are followed, each `count` times.
fn references_of_row(
    classifier: &RowClassifier<'_>,
    row: RowAddress,
    count: u64,
    heads: &mut Vec<CountedHead>,
) -> Result<(), CorruptIndex> {
    let index = classifier.snapshot.index();
    let segment = index.segment(row.segment);
    for number in segment.row_references(row.row.index())? {
        let number = *number as usize;
        let columns = segment.columns();
        let resource_type = columns.reference_type_of(number);
        if is_followed(classifier, row.segment, resource_type, columns.reference_base[number]) {
            heads.push(CountedHead { head: index.reference_head(row.segment, number)?, resource_type, count });
        }
    }
    Ok(())
}

/// The rows whose current references lead to the resource of a row, by any reference that `leads` confirms: segment by
/// segment, as (segment, references).
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn references_to(
    classifier: &RowClassifier<'_>,
    records: impl Iterator<Item = RecordId>,
) -> Result<Vec<(SegmentId, u32)>, CorruptIndex> {
    let index = classifier.snapshot.index();
    let mut found = Vec::new();
    for record in records {
        for edge in index.global().referrers(record)?.iter() {
            let (segment, number) = index.locate_reference(edge.to_reference());
            let columns = index.segment(segment).reference(number)?;
            let resource_type = columns.reference_type_of(number);
            if classifier.snapshot.sees_segment(segment)
                && is_followed(classifier, segment, resource_type, columns.reference_base[number])
            {
                found.push((segment, to_u32(number)));
            }
        }
    }
    Ok(found)
}
