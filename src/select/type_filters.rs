//! Filters of `_typeFilter`, applied to the rows that everything else selects (TFILTER-02, TFILTER-09). Rows of other types are
//! neither asked for nor read.

use crate::casts::to_u32;
use crate::error::{CorruptIndex, ExportError};
use crate::fhir::base_url::BaseUrls;
use crate::fhir::instant::NO_INSTANT;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::parameter::{ParameterName, SearchParameter};
use crate::ids::{RowAddress, SegmentId};
use crate::index::search::writer::ColumnWriter;
use crate::index::segment::layout::Column;
use crate::index::snapshot::Snapshot;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::filter_verdicts::MET;
use crate::select::ledger::SegmentSelection;
use crate::select::row_set::RowSet;
use crate::select::segment_filter::{ColumnMaker, FilterWork, FilteredRows, MadeColumn, TypeFilters};
use crate::select::selection::Selection;
use rayon::prelude::*;

/// If at least one row in so many of a segment is asked for, all are: a verdict that nobody needs costs less than a list.
const DENSE_SHARE: usize = 8;

/// Whether search columns that are missing may be made and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnUse {
    /// Those that are there are used.
    Existing,
    /// Missing ones are made where much of their rows is read anyway.
    Completed,
}

/// Takes the rows out of those of a segment that meet no filter of a type.
fn apply_to_segment(
    filters: &TypeFilters<'_>,
    snapshot: &Snapshot,
    segment_id: SegmentId,
    selected: &mut RowSet,
    progress: &Progress,
) -> Result<FilterWork, ExportError> {
    let (segment, mut work) = (snapshot.index().segment(segment_id), filters.no_work());
    if selected.is_empty() || !segment.head().has_type(filters.resource_type.index()) {
        return Ok(work);
    }
    let types = match segment.head().only_type() {
        Some(_) => None,
        None => Some(segment.verify_columns(&[Column::Type])?),
    };
    let is_of_type = |row: usize| types.as_ref().is_none_or(|columns| columns.type_of(row) == filters.resource_type);
    // 1. The rows of the type: a list, unless they are all rows or many.
    let count = selected.count();
    let listed: Option<Vec<u32>> = (types.is_some() || count * DENSE_SHARE < segment.rows())
        .then(|| selected.iter().filter(|row| is_of_type(*row)).map(to_u32).collect());
    work.rows = listed.as_ref().map_or(count, Vec::len) as u64;
    if work.rows == 0 {
        return Ok(work);
    }
    // 2. Those that stay.
    let rows = listed.as_deref().map_or(FilteredRows::Of(selected), FilteredRows::Listed);
    let verdicts = filters.decide(snapshot, segment_id, rows, &mut work, progress)?;
    keep_met(selected, listed.as_deref(), &verdicts);
    work.met = work.rows - (count - selected.count()) as u64;
    Ok(work)
}

/// Keeps the rows whose verdict is that they meet a filter. Verdicts are of the listed rows, and others stay, or of all rows.
fn keep_met(selected: &mut RowSet, listed: Option<&[u32]>, verdicts: &[u8]) {
    match (listed, selected) {
        (Some(rows), selected) => {
            let left_out = rows.iter().zip(verdicts).filter(|(_, verdict)| **verdict != MET);
            let left_out: Vec<usize> = left_out.map(|(row, _)| *row as usize).collect();
            selected.remove_all(&left_out);
        }
        (None, RowSet::Sorted(rows)) => rows.retain(|row| verdicts[*row as usize] == MET),
        (None, RowSet::Bitmap(rows)) => rows.retain_words(|first| {
            let word = &verdicts[first..verdicts.len().min(first + 64)];
            word.iter().rev().fold(0, |bits, verdict| bits << 1 | u64::from(*verdict == MET))
        }),
    }
}

/// Takes the rows out of a selection that meet no filter of their type. A row that cannot be read for a filter is left out and
/// counted.
///
/// # Errors
/// [`ExportError`] if the index is damaged, a row cannot be read, or the work is cancelled.
pub fn apply_type_filters(
    snapshot: &Snapshot,
    cohort: &Cohort,
    request: &ExportRequest,
    selection: &mut Selection,
    columns: ColumnUse,
    progress: &Progress,
) -> Result<(), ExportError> {
    if request.type_filters.is_empty() {
        return Ok(());
    }
    let index = snapshot.index();
    let of_type = |of| TypeFilters::of(snapshot, of, &request.type_filters, BaseUrls::new(&request.fhir_bases));
    let mut filters: Vec<TypeFilters<'_>> = ResourceType::all().filter_map(of_type).collect();
    // 1. Whether columns are made: another process that writes some is not waited for.
    let owned: Vec<(ParameterName, SearchParameter)> =
        filters.iter().flat_map(|of| &of.columns).map(|(name, parameter, _)| (*name, parameter.clone())).collect();
    let parameters: Vec<(ParameterName, &SearchParameter)> = owned.iter().map(|(name, one)| (*name, one)).collect();
    let is_completed = columns == ColumnUse::Completed && !parameters.is_empty();
    let made = if is_completed { index.search().made_for_filters() } else { None };
    let writer = match &made {
        Some(_) => ColumnWriter::begin(index, &parameters, false).unwrap_or_default(),
        None => None,
    };
    if let (Some((listed, makes_others)), Some(writer)) = (&made, &writer) {
        let kind = |name: &ParameterName| match listed.contains(name) {
            true => Some(MadeColumn::Listed),
            false => Some(MadeColumn::Other).filter(|_| *makes_others),
        };
        let mut first = 0;
        for of in &mut filters {
            let kinds = of.columns.iter().map(|(name, _, _)| kind(name)).collect();
            of.maker = Some(ColumnMaker { writer, first, kinds });
            first += of.columns.len();
        }
    }
    // 2. Each segment by itself.
    let classifier = RowClassifier::new(snapshot, cohort, request);
    let segments: Vec<SegmentId> = snapshot.segments().collect();
    let rows: Vec<RowSet> =
        segments.iter().map(|segment| std::mem::take(&mut selection.rows[segment.index()])).collect();
    let apply = |(segment, mut rows): (&SegmentId, RowSet)| {
        let before = counts_dates(&classifier, *segment).then(|| rows.clone());
        let work: Vec<FilterWork> = filters
            .iter()
            .map(|filters| apply_to_segment(filters, snapshot, *segment, &mut rows, progress))
            .collect::<Result<_, ExportError>>()?;
        let dated = before
            .map_or(Ok(SegmentSelection::default()), |before| count_left_out(&classifier, *segment, &before, &rows))?;
        Ok::<_, ExportError>((rows, work, dated))
    };
    let done: Vec<(RowSet, Vec<FilterWork>, SegmentSelection)> =
        segments.par_iter().zip(rows).map(apply).collect::<Result<_, ExportError>>()?;
    // 3. The sums.
    let mut works: Vec<FilterWork> = filters.iter().map(TypeFilters::no_work).collect();
    for (segment, (rows, own, dated)) in segments.into_iter().zip(done) {
        selection.rows[segment.index()] = rows;
        works.iter_mut().zip(&own).for_each(|(sum, own)| sum.add(own));
        selection.stats.late -= dated.late;
        selection.stats.undated -= dated.undated;
    }
    for work in &works {
        selection.ledger.exported -= work.rows - work.met;
        selection.ledger.type_filter += work.rows - work.met;
        selection.stats.unfiltered += work.unreadable;
    }
    selection.stats.filters = works;
    drop(filters);
    if let Some(writer) = writer {
        writer.finish_or_give_up();
        index.search().drop_least_used();
    }
    Ok(())
}

/// Whether rows of a segment are counted for messages about their dates.
fn counts_dates(classifier: &RowClassifier<'_>, segment: SegmentId) -> bool {
    classifier.is_late(segment) || classifier.snapshot.index().segment(segment).head().undated > 0
}

/// What was counted of the rows that are left out for messages about what is exported.
fn count_left_out(
    classifier: &RowClassifier<'_>,
    segment_id: SegmentId,
    before: &RowSet,
    after: &RowSet,
) -> Result<SegmentSelection, CorruptIndex> {
    let segment = classifier.snapshot.index().segment(segment_id);
    let (mut counted, mut stays) = (SegmentSelection::default(), after.iter().peekable());
    let may_be_late = classifier.is_late(segment_id);
    let updated = segment.verify_columns(&[Column::LastUpdated])?.last_updated;
    for row in before.iter().filter(|row| stays.next_if_eq(row).is_none()) {
        // They were selected, so that nothing but their dates is left to be looked at.
        if may_be_late {
            let (address, of_type) = (RowAddress::of(segment_id, row), segment.type_of(row)?);
            classifier.passes_window(&mut counted, address, of_type, segment.updated(row)?)?;
        } else {
            counted.undated += u64::from(updated[row] == NO_INSTANT);
        }
    }
    Ok(counted)
}
