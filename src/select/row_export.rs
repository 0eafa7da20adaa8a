//! Whether an export would hold some rows: for access to what belongs to them.

use crate::error::ExportError;
use crate::ids::RowAddress;
use crate::index::snapshot::Snapshot;
use crate::request::ExportRequest;
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::ledger::{RowClass, SegmentSelection};

/// Whether an export of a snapshot by a request, which has no `_since`, holds one of these rows at least. A population that
/// cannot be exported holds none.
///
/// # Errors
/// If the index is corrupt, or the store cannot be read.
pub(crate) fn exports_any(
    snapshot: &Snapshot,
    request: &ExportRequest,
    rows: &[RowAddress],
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
    for row in rows {
        if classifier.classify(*row, &mut SegmentSelection::default())? == RowClass::Exported {
            return Ok(true);
        }
    }
    Ok(false)
}
