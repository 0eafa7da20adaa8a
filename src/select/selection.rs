//! Selection: which rows leave, and the class of every other line (reading 10).
//!
//! There are two ways to the same answer. A small cohort is selected from its members' side (`postings`); a large one
//! by a pass over the columns (`columns`), which under `_since` passes most rows by (`zones`). Segments are
//! independent, so passes run over them in parallel; results are put together in store order. No byte of the store is
//! read here.

use crate::casts::to_u32;
use crate::error::CorruptIndex;
use crate::extract::fault::FaultKind;
use crate::index::global::Section;
use crate::index::segment::layout::Column;
use crate::index::snapshot::Snapshot;
use crate::limits::POSTINGS_SHARE;
use crate::request::{AccessPath, ExportRequest};
use crate::select::bitmap::Bitmap;
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::ledger::{Ledger, SegmentSelection};
use crate::select::row_set::RowSet;
use crate::select::visibility::Visibility;
use crate::select::{column_scan, postings_scan, zone_map_scan};
use rayon::prelude::*;

/// What selecting noticed besides, for messages.
#[derive(Clone, Debug, Default)]
pub struct SelectionStats {
    /// Exported rows without a usable lastUpdated, or such rows left out by policy.
    pub undated: u64,
    /// Rows of the snapshot whose lastUpdated is there but illegal.
    pub illegal_updated: u64,
    /// Late rows exported, or that would have been.
    pub late: u64,
    /// Faulty lines by kind.
    pub faults: Vec<u64>,
    /// References to patients by base that is not ours.
    pub foreign: Vec<(String, u64)>,
}

/// The rows of an export.
pub struct Selection {
    /// For each segment of the index the rows taken.
    pub rows: Vec<RowSet>,
    /// Patients of the dictionary that have a current Patient row at T; of a small cohort, only its own.
    pub present: Bitmap,
    /// The classes of all lines.
    pub ledger: Ledger,
    /// For messages.
    pub noticed: SelectionStats,
}

impl Selection {
    /// Selects. Runs on the current rayon pool.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub fn new(snapshot: &Snapshot, cohort: &Cohort, request: &ExportRequest) -> Result<Selection, CorruptIndex> {
        let filter = RowClassifier::new(snapshot, cohort, request);
        let index = snapshot.index();
        let mut selection = Selection {
            rows: vec![RowSet::default(); index.segment_count()],
            present: Bitmap::new(index.patients()),
            ledger: Ledger::default(),
            noticed: SelectionStats { faults: vec![0; FaultKind::ALL.len()], ..SelectionStats::default() },
        };
        if prefers_postings(snapshot, cohort, request) {
            let (rows, part) = postings_scan::select_by_postings(&filter)?;
            selection.add(part);
            rows.into_iter().for_each(|(segment, rows)| selection.rows[segment] = rows);
        } else {
            let ended = Visibility::of(&filter)?;
            let pass = |segment| match request.access_path {
                AccessPath::Rows => column_scan::scan_columns(&filter, Visibility::default(), segment),
                _ if zone_map_scan::applies(&filter, segment) => zone_map_scan::scan_zones(&filter, ended, segment),
                _ => match column_scan::select_whole(&filter, ended, segment)? {
                    Some(part) => Ok(part),
                    None => column_scan::scan_columns(&filter, ended, segment),
                },
            };
            let segments: Vec<usize> = snapshot.segments().collect();
            let parts: Vec<SegmentSelection> =
                segments.par_iter().map(|segment| pass(*segment)).collect::<Result<_, _>>()?;
            for (segment, part) in segments.into_iter().zip(parts) {
                selection.rows[segment] = selection.add(part);
            }
        }
        selection.collect_stats(snapshot, cohort)?;
        Ok(selection)
    }

    /// Adds what a part contributes, but for its rows, which are given back.
    fn add(&mut self, part: SegmentSelection) -> RowSet {
        self.ledger.add(&part.ledger);
        self.noticed.undated += part.undated;
        self.noticed.illegal_updated += part.illegal_updated;
        self.noticed.late += part.late;
        part.present.iter().for_each(|patient| {
            self.present.insert(*patient as usize);
        });
        part.rows
    }

    /// Counts faults by kind and references under foreign bases.
    fn collect_stats(&mut self, snapshot: &Snapshot, cohort: &Cohort) -> Result<(), CorruptIndex> {
        let index = snapshot.index();
        let mut foreign = vec![0; index.bases().len()];
        if snapshot.sees_whole_index() {
            let totals = index.global().totals()?;
            self.noticed.faults.iter_mut().enumerate().for_each(|(kind, sum)| *sum = totals.faults(kind));
            foreign = index.global().verified_longs(Section::BaseCount, 0..foreign.len())?.to_vec();
        } else {
            for segment in snapshot.segments() {
                let columns = index.segments()[segment].verify_columns(&[Column::FaultCount, Column::BaseCount])?;
                columns.fault_count.iter().zip(&mut self.noticed.faults).for_each(|(count, sum)| *sum += count);
                for (base, count) in columns.base_count.iter().enumerate() {
                    foreign[index.base_number(segment, to_u32(base)) as usize] += count;
                }
            }
        }
        self.noticed.foreign = (0..foreign.len())
            .filter(|base| !cohort.ours[*base] && foreign[*base] > 0)
            .map(|base| (index.bases()[base].clone(), foreign[base]))
            .collect();
        Ok(())
    }
}

/// Owners of selected rows under each base that is not ours: what selected rows say of other servers' patients. Reads no
/// row where every base is ours.
///
/// # Errors
/// [`Damaged`] when the index is.
pub(crate) fn foreign_owners(
    snapshot: &Snapshot,
    cohort: &Cohort,
    selection: &Selection,
) -> Result<Vec<(String, u64)>, CorruptIndex> {
    let index = snapshot.index();
    let mut counts = vec![0; index.bases().len()];
    if cohort.ours.iter().all(|ours| *ours) {
        return Ok(Vec::new());
    }
    let bases = index.global().verified_words(Section::PatientBase, 0..index.patients())?;
    for segment in snapshot.segments().filter(|segment| !selection.rows[*segment].is_empty()) {
        for row in selection.rows[segment].iter() {
            for owner in index.segments()[segment].row_owners(row)? {
                let base = bases[index.patient_of_owner(segment, *owner)? as usize] as usize;
                counts[base] += u64::from(!cohort.ours[base]);
            }
        }
    }
    let counted = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
    Ok(counted.map(|(base, count)| (index.bases()[base].clone(), count)).collect())
}

/// Whether the cohort is so small a part of the store's patients that its postings are the shorter way.
fn prefers_postings(snapshot: &Snapshot, cohort: &Cohort, request: &ExportRequest) -> bool {
    let Some(patients) = &cohort.patients else { return false };
    match request.access_path {
        AccessPath::Postings => true,
        AccessPath::Columns | AccessPath::Rows => false,
        AccessPath::Auto => patients.count() * POSTINGS_SHARE <= snapshot.index().patients(),
    }
}
