//! Filters of `_typeFilter`, applied to the rows that everything else selects (TFILTER-02, TFILTER-09). Rows of other types are
//! not read.

use crate::error::ExportError;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::filter_set::FilterSet;
use crate::ids::{RowAddress, SegmentId};
use crate::index::row_reader::row_range;
use crate::index::snapshot::Snapshot;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::ledger::SegmentSelection;
use crate::select::row_lines::{RowPlace, read_lines};
use crate::select::selection::Selection;
use rayon::prelude::*;

/// The filters of each type, by its index; a type without any is not filtered.
struct FiltersByType<'a>(Vec<Option<FilterSet<'a>>>);

/// The rows of a segment that filters leave out.
#[derive(Default)]
struct LeftOutRows {
    /// Their numbers, ascending.
    rows: Vec<usize>,
    /// How many of them could not be read for a filter.
    unreadable: u64,
}

impl<'a> FiltersByType<'a> {
    /// The filters of a request.
    fn of(snapshot: &Snapshot, request: &'a ExportRequest) -> FiltersByType<'a> {
        let now = TimeSpan::parse(&snapshot.as_of().to_string()).unwrap_or(TimeSpan::ALWAYS);
        let of_type = |of| FilterSet::of(of, &request.type_filters, BaseUrls::new(&request.fhir_bases), now);
        let mut sets: Vec<Option<FilterSet<'_>>> = (0..ResourceType::COUNT).map(|_| None).collect();
        ResourceType::all().for_each(|of| sets[of.index()] = of_type(of));
        FiltersByType(sets)
    }

    /// The selected rows of a segment that meet no filter of their type.
    fn left_out(
        &self,
        snapshot: &Snapshot,
        selection: &Selection,
        segment_id: SegmentId,
        progress: &Progress,
    ) -> Result<LeftOutRows, ExportError> {
        let index = snapshot.index();
        let (segment, file) = (index.segment(segment_id), index.file_of(segment_id));
        let mut left_out = LeftOutRows::default();
        let has_filters = |of: ResourceType| self.0[of.index()].is_some() && segment.head().has_type(of.index());
        if selection.rows[segment_id.index()].is_empty() || !ResourceType::all().any(has_filters) {
            return Ok(left_out);
        }
        let mut places = Vec::new();
        for row in selection.rows[segment_id.index()].iter() {
            segment.verify_copied(row..row + 1)?;
            let of_type = segment.type_of(row)?;
            if let Some(filters) = &self.0[of_type.index()] {
                let range = row_range(index, RowAddress::of(segment_id, row));
                places.push(RowPlace { file, range, row: (row, filters) });
            }
        }
        read_lines(index, &places, progress, &mut |(row, filters), line| {
            let met = filters.is_met(line);
            left_out.unreadable += u64::from(met.is_err());
            if met != Ok(true) {
                left_out.rows.push(*row);
            }
            Ok(())
        })?;
        Ok(left_out)
    }
}

/// Takes the rows out of a selection that meet no filter of their type. A row that cannot be read for a filter is left out and
/// counted.
///
/// # Errors
/// [`ExportError`] if the index is damaged, a row cannot be read, or the work is cancelled.
pub(crate) fn apply_type_filters(
    snapshot: &Snapshot,
    cohort: &Cohort,
    request: &ExportRequest,
    selection: &mut Selection,
    progress: &Progress,
) -> Result<(), ExportError> {
    if request.type_filters.is_empty() {
        return Ok(());
    }
    let filters = FiltersByType::of(snapshot, request);
    let segments: Vec<SegmentId> = snapshot.segments().collect();
    let left_out: Vec<LeftOutRows> = segments
        .par_iter()
        .map(|segment| filters.left_out(snapshot, selection, *segment, progress))
        .collect::<Result<_, ExportError>>()?;
    let classifier = RowClassifier::new(snapshot, cohort, request);
    for (segment, LeftOutRows { rows, unreadable }) in segments.into_iter().zip(left_out) {
        selection.rows[segment.index()].remove_all(&rows);
        let count = rows.len() as u64;
        selection.ledger.exported -= count;
        selection.ledger.type_filter += count;
        selection.stats.unfiltered += unreadable;
        // They were counted for messages about what is exported.
        let mut counted = SegmentSelection::default();
        for row in rows {
            classifier.classify(RowAddress::of(segment, row), &mut counted)?;
        }
        selection.stats.late -= counted.late;
        selection.stats.undated -= counted.undated;
    }
    Ok(())
}
