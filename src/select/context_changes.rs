//! What a reader of earlier exports lacks of the context of an export with `_since` (TYPE-05): resources of context types that
//! any row of the cohort leads to, and that changed, came late or were deleted since.
//!
//! Few resources change, so they are the start: from each the references that name it, from there the rows of the segments
//! that have these references, until one of the cohort is found. Rows of context on the way are followed upwards, too. Where
//! the cohort is small, or the request asks for the slow twin, all context of the cohort is found instead, and those that
//! changed are taken from it.

use crate::error::{CorruptIndex, ExportError};
use crate::fhir::context;
use crate::ids::{RecordId, RowAddress, SegmentId};
use crate::index::segment::layout::{Column, ZONE_ROWS};
use crate::policies::AccessPath;
use crate::progress::Progress;
use crate::select::associated::add_associated;
use crate::select::classifier::RowClassifier;
use crate::select::context_closure::{Closure, Destination, is_current, may_leave, references_to};
use crate::select::ledger::SegmentSelection;
use crate::select::provenance::Horizon;
use crate::select::selection::{Selection, prefers_postings};
use crate::select::type_filters::{ColumnUse, apply_type_filters};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;

/// The rows of context that changed since and that the cohort leads to; none of them is selected yet.
///
/// # Errors
/// [`ExportError`] if the index is damaged, or the work is cancelled.
pub(crate) fn changed_context(
    closure: &mut Closure<'_>,
    selection: &Selection,
    progress: &Progress,
) -> Result<Vec<RowAddress>, ExportError> {
    let classifier = closure.classifier;
    let changed = changed_rows(classifier, selection)?;
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    let RowClassifier { snapshot, cohort, request, .. } = classifier;
    let is_forward = request.access_path == AccessPath::Rows
        || request.associated.is_some()
        || !request.type_filters.is_empty()
        || prefers_postings(snapshot, cohort, request);
    let reached = match is_forward {
        true => reached_forward(classifier, &changed, progress)?,
        false => {
            let starts = changed.iter().map(|row| Ok((vec![*row], records_of(classifier, *row)?)));
            let starts: Vec<_> = starts.collect::<Result<_, CorruptIndex>>()?;
            reached_backward(closure, starts, Versions::Current, progress)?
        }
    };
    Ok(changed.into_iter().zip(reached).filter(|(_, is_reached)| *is_reached).map(|(row, _)| row).collect())
}

/// Rows of selected context that are current, not selected, and in the window of the request or late, and may leave.
fn changed_rows(classifier: &RowClassifier<'_>, selection: &Selection) -> Result<Vec<RowAddress>, CorruptIndex> {
    let index = classifier.snapshot.index();
    let Some(since) = &classifier.request.since else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for segment_id in classifier.snapshot.segments() {
        let segment = index.segment(segment_id);
        let has_context = context::types()
            .any(|of_type| classifier.selects_type(of_type) && segment.head().has_type(of_type.index()));
        let is_late = classifier.is_late(segment_id);
        let is_old = segment.head().undated == 0 && segment.head().updated_max() < since.ticks;
        if !has_context || is_old && !is_late {
            continue;
        }
        let columns = segment.verify_columns(&[Column::Type, Column::UpdatedMax])?;
        for (zone, rows) in columns.resource_type.chunks(ZONE_ROWS).enumerate() {
            if columns.updated_max[zone] < since.ticks && !is_late {
                continue;
            }
            for row in (zone * ZONE_ROWS..).take(rows.len()) {
                let (of_type, address) = (columns.type_of(row), RowAddress::of(segment_id, row));
                if !context::is_context(of_type)
                    || !classifier.selects_type(of_type)
                    || selection.rows[segment_id.index()].any(row..row + 1)
                    || !is_current(classifier, address)?
                {
                    continue;
                }
                let updated = segment.updated(row)?;
                if classifier.passes_window(&mut SegmentSelection::default(), address, of_type, updated)?
                    && may_leave(classifier, address)?
                {
                    found.push(address);
                }
            }
        }
    }
    Ok(found)
}

/// For each row whether it is context of the cohort: of all that an export without a window has.
fn reached_forward(
    classifier: &RowClassifier<'_>,
    rows: &[RowAddress],
    progress: &Progress,
) -> Result<Vec<bool>, ExportError> {
    let RowClassifier { snapshot, cohort, .. } = classifier;
    let mut request = classifier.request.clone();
    (request.since, request.until) = (None, None);
    let mut selection = Selection::new(snapshot, cohort, &request)?;
    apply_type_filters(snapshot, cohort, &request, &mut selection, ColumnUse::Existing, progress)?;
    add_associated(snapshot, cohort, &request, &mut selection, progress)?;
    let whole = RowClassifier::new(snapshot, cohort, &request);
    let context: HashSet<RowAddress> =
        Closure::new(&whole).of_selection(&selection.rows, progress)?.into_iter().collect();
    Ok(rows.iter().map(|row| context.contains(row)).collect())
}

/// Which versions of rows lead to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Versions {
    /// Those that are current at T.
    Current,
    /// Any that is in the snapshot and not later than T.
    Any,
}

/// The records by which references name the resource of a row: its own, and those of its identifiers.
pub(crate) fn records_of(classifier: &RowClassifier<'_>, row: RowAddress) -> Result<Vec<RecordId>, CorruptIndex> {
    let index = classifier.snapshot.index();
    let keys = index.keys_of_row(row)?;
    Ok(std::iter::once(index.record_of_row(row)).chain(keys).collect())
}

/// A resource in the search: rows of it, if there are any, and the records by which references name it.
type SearchStart = (Vec<RowAddress>, Vec<RecordId>);

/// What the rows of one segment say about resources of a search.
#[derive(Default)]
struct SegmentFindings {
    /// Resources that a row of the cohort refers to.
    direct: Vec<usize>,
    /// Rows of context, each with a resource that it refers to.
    above: Vec<(RowAddress, usize)>,
}

/// For each of `starts` whether any row of the cohort leads to it, over rows of selected context.
///
/// # Errors
/// [`ExportError`] if the index is damaged, or the work is cancelled.
pub(crate) fn reached_backward(
    closure: &mut Closure<'_>,
    starts: Vec<SearchStart>,
    versions: Versions,
    progress: &Progress,
) -> Result<Vec<bool>, ExportError> {
    let classifier = closure.classifier;
    let count = starts.len();
    let mut numbers: HashMap<RowAddress, usize> = HashMap::new();
    let mut below: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut is_reached = vec![false; count];
    for (number, (rows, _)) in starts.iter().enumerate() {
        numbers.extend(rows.iter().map(|row| (*row, number)));
    }
    let mut level: Vec<(usize, SearchStart)> = starts.into_iter().enumerate().collect();
    while !level.is_empty() {
        // 1. The references that name the resources of this level, by segment.
        let mut references: Vec<(SegmentId, u32, usize)> = Vec::new();
        for (number, (rows, records)) in level.drain(..) {
            for (segment, reference) in references_to(classifier, records.into_iter())? {
                let leads_here = match versions {
                    Versions::Any => true,
                    Versions::Current => {
                        let head = classifier.snapshot.index().reference_head(segment, reference as usize)?;
                        matches!(closure.destination(head)?, Destination::Row(row) if rows.contains(&row))
                    }
                };
                if leads_here {
                    references.push((segment, reference, number));
                }
            }
        }
        references.sort_unstable();
        references.dedup();
        // 2. The rows that have these references.
        let of_segments: Vec<_> = references.chunk_by(|a, b| a.0 == b.0).collect();
        let findings: Vec<SegmentFindings> = of_segments
            .par_iter()
            .map(|of_segment| match progress.cancel.load(Relaxed) {
                true => Err(ExportError::Cancelled),
                false => Ok(search_segment(classifier, of_segment, versions, &is_reached)?),
            })
            .collect::<Result<_, _>>()?;
        for SegmentFindings { direct, above } in findings {
            direct.into_iter().for_each(|number| is_reached[number] = true);
            for (row, number) in above {
                let next = below.len();
                let of_row = *numbers.entry(row).or_insert(next);
                if of_row == next {
                    below.push(Vec::new());
                    is_reached.push(false);
                    level.push((next, (vec![row], records_of(classifier, row)?)));
                }
                below[of_row].push(number);
            }
        }
    }
    // 3. What is reached passes it on.
    let mut waiting: Vec<usize> = (0..is_reached.len()).filter(|number| is_reached[*number]).collect();
    while let Some(number) = waiting.pop() {
        for next in &below[number] {
            if !std::mem::replace(&mut is_reached[*next], true) {
                waiting.push(*next);
            }
        }
    }
    is_reached.truncate(count);
    Ok(is_reached)
}

/// Looks at the rows of a segment that have any of these references of it, each with the number of the resource that it leads
/// to. Rows are no longer looked at for resources that a row of the cohort was found for.
fn search_segment(
    classifier: &RowClassifier<'_>,
    references: &[(SegmentId, u32, usize)],
    versions: Versions,
    is_reached: &[bool],
) -> Result<SegmentFindings, CorruptIndex> {
    let mut findings = SegmentFindings::default();
    let segment_id = references[0].0;
    let segment = classifier.snapshot.index().segment(segment_id);
    let columns = segment.reference_sets()?;
    // The resources that each set leads to.
    let mut of_set: Vec<Vec<usize>> = vec![Vec::new(); columns.set_start.len() - 1];
    for (set, resources) in of_set.iter_mut().enumerate() {
        for number in columns.references_of_set(set) {
            let first = references.partition_point(|(_, reference, _)| reference < number);
            let own = references[first..].iter().take_while(|(_, reference, _)| reference == number);
            resources.extend(own.map(|(_, _, resource)| *resource).filter(|resource| !is_reached[*resource]));
        }
    }
    let mut found: HashSet<usize> = HashSet::new();
    for (row, set) in columns.reference_set.iter().enumerate() {
        let resources = &mut of_set[*set as usize];
        if resources.is_empty() {
            continue;
        }
        resources.retain(|resource| !found.contains(resource));
        let (address, of_type) = (RowAddress::of(segment_id, row), segment.type_of(row)?);
        // An earlier export may have had an associated Provenance, whose type is not selected.
        if resources.is_empty() || !classifier.lists_deletions_of(of_type) {
            continue;
        }
        let counts = match versions {
            Versions::Current => is_current(classifier, address)?,
            Versions::Any => segment.updated(row)?.is_none_or(|updated| updated <= classifier.as_of()),
        };
        if !counts {
            continue;
        }
        if classifier.membership.in_cohort(address, Horizon::All)? {
            found.extend(resources.drain(..));
        } else if context::is_context(of_type) && may_leave(classifier, address)? {
            findings.above.extend(resources.iter().map(|resource| (address, *resource)));
        }
    }
    findings.direct.extend(found);
    Ok(findings)
}
