//! What a reader of a baseline lacks: rows that an increment exports whatever their age, because the keys of what the reader holds
//! show that it does not hold them.
//!
//! Dates and first-seen times tell what came since; they cannot tell what belongs for another reason (a Provenance whose target
//! moved, context that is referred to for the first time, associated Provenance), nor what an index that was lost has forgotten. The
//! whole selection, without `_since`, has all of it: of that a row is exported that the reader does not hold, that passes the window, or
//! whose newest version is gone, so that an older one stands in its place.

use std::collections::HashSet;

use rayon::prelude::*;

use crate::error::CorruptIndex;
use crate::ids::{RowAddress, SegmentId};
use crate::index::snapshot::Snapshot;
use crate::index::vanished::VanishCause;
use crate::key_set::ResourceKeySet;
use crate::key_set::resource_key::{ResourceKey, resource_key};
use crate::policies::LateArrivals;
use crate::request::ExportRequest;
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::ledger::{RowClass, SegmentSelection};
use crate::select::selection::Selection;

/// Adds to the selection of an increment the rows of the whole selection that a reader of the baseline lacks. Returns their names,
/// `Type/id`, ascending. Runs on the current rayon pool.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn add_lacking(
    snapshot: &Snapshot,
    cohort: &Cohort,
    request: &ExportRequest,
    held: &ResourceKeySet,
    whole: &Selection,
    selection: &mut Selection,
) -> Result<Vec<String>, CorruptIndex> {
    let classifier = RowClassifier::new(snapshot, cohort, request);
    let fallen_back = fallen_back(snapshot, request)?;
    let segments: Vec<SegmentId> = snapshot.segments().collect();
    let find = |segment_id: &SegmentId| -> Result<Vec<usize>, CorruptIndex> {
        let (all, selected) = (&whole.rows[segment_id.index()], &selection.rows[segment_id.index()]);
        let segment = snapshot.index().segment(*segment_id);
        let mut lacking = Vec::new();
        for row in all.iter().filter(|row| !selected.any(*row..*row + 1)) {
            let resource_type = segment.type_of(row)?;
            let key = resource_key(resource_type, segment.row_id(row)?.as_bytes());
            let address = RowAddress::of(*segment_id, row);
            let is_new = || {
                let mut uncounted = SegmentSelection::default();
                classifier.passes_window(&mut uncounted, address, resource_type, segment.updated(row)?)
            };
            if !held.contains(&key) || fallen_back.contains(&key) || is_new()? {
                lacking.push(row);
            }
        }
        Ok(lacking)
    };
    let found: Vec<Vec<usize>> = segments.par_iter().map(find).collect::<Result<_, _>>()?;
    let (mut names, mut passed) = (Vec::new(), SegmentSelection::default());
    for (segment_id, rows) in segments.into_iter().zip(found) {
        let segment = snapshot.index().segment(segment_id);
        for row in &rows {
            let address = RowAddress::of(segment_id, *row);
            let class = match classifier.classify(address, &mut passed)? {
                RowClass::Exported => RowClass::TypeFilter,
                class => class,
            };
            selection.ledger.export_one_of(class);
            names.push(format!("{}/{}", segment.type_of(*row)?.name(), segment.row_id(*row)?));
        }
        selection.rows[segment_id.index()].add_all(&rows);
    }
    if request.late == LateArrivals::Report {
        // Those that came late were counted as left out.
        selection.stats.late = selection.stats.late.saturating_sub(passed.late);
    }
    names.sort_unstable();
    Ok(names)
}

/// The resources whose newest version a snapshot after `_since` was the first to miss, while an older one stands.
fn fallen_back(snapshot: &Snapshot, request: &ExportRequest) -> Result<HashSet<ResourceKey>, CorruptIndex> {
    let since = request.since.as_ref().map_or(i64::MIN, |since| since.ticks);
    let is_one = |cause, missed: Option<i64>| cause == VanishCause::OlderVersion && missed.is_some_and(|at| at > since);
    let gone = snapshot.vanished()?.iter().filter(|gone| is_one(gone.cause, gone.first_missed));
    Ok(gone.map(|gone| resource_key(gone.resource_type, gone.id.as_bytes())).collect())
}
