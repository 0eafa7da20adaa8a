//! Whether an export would hold some rows: for access to what belongs to them.

use crate::error::ExportError;
use crate::fhir::context;
use crate::ids::RowAddress;
use crate::index::snapshot::Snapshot;
use crate::progress::Progress;
use crate::request::{ExportRequest, Population};
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::context_changes::{Versions, reached_backward, records_of};
use crate::select::context_closure::{Closure, has_context, is_current, may_leave};
use crate::select::ledger::{RowClass, SegmentSelection};
use crate::select::unreached_binaries::names_patients;

/// Whether an export of a snapshot by a request, which has no `_since`, holds one of these rows at least that `refers` says
/// refers to a Binary, and the Binary is no record of patients outside the cohort alone, by its `securityContext`. A population
/// that cannot be exported holds none.
///
/// # Errors
/// If the index is corrupt, or the store cannot be read.
pub(crate) fn exports_any(
    snapshot: &Snapshot,
    request: &ExportRequest,
    (rows, binary): (&[RowAddress], RowAddress),
    refers: &mut dyn FnMut(RowAddress) -> Result<bool, ExportError>,
) -> Result<bool, ExportError> {
    if rows.is_empty() {
        return Ok(false);
    }
    let cohort = match Cohort::resolve(snapshot, request) {
        Ok(cohort) => cohort,
        Err(ExportError::Request(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    let classifier = RowClassifier::new(snapshot, &cohort, request);
    if request.population != Population::System && names_patients(&classifier, binary)? == Some(false) {
        return Ok(false);
    }
    for row in rows {
        if classifier.classify(*row, &mut SegmentSelection::default())? == RowClass::Exported && refers(*row)? {
            return Ok(true);
        }
    }
    is_context_of_any(&classifier, rows, refers)
}

/// Whether an export has one of these rows at least because rows that it exports lead to it (COMP-06).
fn is_context_of_any(
    classifier: &RowClassifier<'_>,
    rows: &[RowAddress],
    refers: &mut dyn FnMut(RowAddress) -> Result<bool, ExportError>,
) -> Result<bool, ExportError> {
    let index = classifier.snapshot.index();
    let mut starts = Vec::new();
    for row in rows.iter().filter(|_| has_context(classifier.request)) {
        let of_type = index.segment(row.segment).type_of(row.row.index())?;
        if context::is_context(of_type)
            && classifier.selects_type(of_type)
            && is_current(classifier, *row)?
            && may_leave(classifier, *row)?
            && refers(*row)?
        {
            starts.push((vec![*row], records_of(classifier, *row)?));
        }
    }
    let mut closure = Closure::new(classifier);
    let reached = reached_backward(&mut closure, starts, Versions::Current, &Progress::default())?;
    Ok(reached.contains(&true))
}
