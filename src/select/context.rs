//! Referenced context: what exported rows refer to and is no patient's record, added to a selection (COMP-06, TYPE-05).
//!
//! `context_closure` follows the references; `context_changes` finds what a reader of earlier exports lacks.

use crate::error::{CorruptIndex, ExportError};
use crate::ids::RowAddress;
use crate::index::snapshot::Snapshot;
use crate::policies::Context;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::context_changes::changed_context;
use crate::select::context_closure::{Closure, has_context};
use crate::select::ledger::{RowClass, SegmentSelection};
use crate::select::selection::Selection;

/// Adds to a selection the resources of context types that its rows lead to.
///
/// # Errors
/// [`ExportError`] if the index is damaged, or the work is cancelled.
pub(crate) fn add_context(
    snapshot: &Snapshot,
    cohort: &Cohort,
    request: &ExportRequest,
    selection: &mut Selection,
    progress: &Progress,
) -> Result<(), ExportError> {
    if !has_context(request) {
        return Ok(());
    }
    let classifier = RowClassifier::new(snapshot, cohort, request);
    let mut closure = Closure::new(&classifier);
    let added = closure.of_selection(&selection.rows, progress)?;
    let is_whole = request.since.is_none();
    if is_whole || request.context == Context::Referenced {
        put_rows(&classifier, selection, &added)?;
    }
    if !is_whole {
        let changed = changed_context(&mut closure, selection, progress)?;
        // What did not change and these lead to comes as well, unless only changes are asked for.
        let changed = match request.context {
            Context::Referenced => closure.of_rows(changed, &selection.rows, progress)?,
            _ => changed,
        };
        put_rows(&classifier, selection, &changed)?;
    }
    selection.stats.dead_ends = closure.dead_ends;
    Ok(())
}

/// Puts rows of context into a selection, which does not have them yet.
fn put_rows(
    classifier: &RowClassifier<'_>,
    selection: &mut Selection,
    rows: &[RowAddress],
) -> Result<(), CorruptIndex> {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    for of_segment in rows.chunk_by(|a, b| a.segment == b.segment) {
        let numbers: Vec<usize> = of_segment.iter().map(|address| address.row.index()).collect();
        selection.rows[of_segment[0].segment.index()].add_all(&numbers);
        for address in of_segment {
            // Counts for messages concern what the request selects by itself.
            let class = match classifier.classify(*address, &mut SegmentSelection::default())? {
                // A filter left it out.
                RowClass::Exported => RowClass::TypeFilter,
                class => class,
            };
            selection.ledger.export_one_of(class);
        }
    }
    Ok(())
}
