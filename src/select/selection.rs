//! Selection: the exported rows of each segment, and the ledger class of every other line (reading 10).
//!
//! Three access paths give the same answer. A small cohort is selected by the postings of its members
//! (`postings_scan`), a large one by scanning the columns (`column_scan`); under `_since` a zone map skips most rows
//! (`zone_map_scan`). Segments are independent, so scans run over them in parallel, and results are combined in store
//! order. Only the index is read, no row of the store.

use crate::casts::to_u32;
use crate::error::CorruptIndex;
use crate::extract::fault::FaultKind;
use crate::ids::{OwnerOrd, SegmentId};
use crate::index::global::Section;
use crate::index::other_data::{OtherData, find_other_data};
use crate::index::read_ahead::ColumnReadAhead;
use crate::index::segment::layout::Column;
use crate::index::snapshot::Snapshot;
use crate::limits::POSTINGS_SHARE;
use crate::policies::AccessPath;
use crate::request::ExportRequest;
use crate::select::bitmap::Bitmap;
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::context_closure::DeadEnds;
use crate::select::ledger::{Ledger, SegmentSelection};
use crate::select::row_set::RowSet;
use crate::select::segment_filter::FilterWork;
use crate::select::visibility::Visibility;
use crate::select::{column_scan, postings_scan, zone_map_scan};
use rayon::prelude::*;

/// Counts for the messages of an export, collected while rows are selected.
#[derive(Clone, Debug, Default)]
pub struct SelectionStats {
    /// Rows without a usable lastUpdated that were exported, or excluded by policy.
    pub undated: u64,
    /// Rows of the snapshot that have a lastUpdated, but an illegal one.
    pub illegal_updated: u64,
    /// Late-arriving rows that were exported, or only reported by policy.
    pub late: u64,
    /// Faulty lines by kind, indexed as [`FaultKind::ALL`].
    pub faults: Vec<u64>,
    /// References to patients under each base that is not ours: base and count, none of them 0.
    pub foreign: Vec<(String, u64)>,
    /// Files without FHIR, whose lines are no faults.
    pub other_data: Vec<OtherData>,
    /// References of exported rows to context that the store does not have.
    pub(crate) dead_ends: DeadEnds,
    /// Rows that no filter could be evaluated for, and that are left out.
    pub(crate) unfiltered: u64,
    /// How the filters of each type were decided.
    pub(crate) filters: Vec<FilterWork>,
    /// Binaries of the cohort that no exported row refers to.
    pub(crate) unreached_binaries: u64,
}

/// The exported rows, and the class of every other line.
pub struct Selection {
    /// Exported rows of each segment of the index; empty for segments outside the snapshot.
    pub rows: Vec<RowSet>,
    /// Patients of the dictionary that have a current Patient row at T; when postings are scanned, members only.
    pub present: Bitmap,
    /// The classes of all lines of the snapshot.
    pub ledger: Ledger,
    /// Counts for messages.
    pub stats: SelectionStats,
}

impl Selection {
    /// Selects the rows of a request, by the access path that it names or the cheaper one. Runs on the current rayon
    /// pool.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub fn new(snapshot: &Snapshot, cohort: &Cohort, request: &ExportRequest) -> Result<Selection, CorruptIndex> {
        let classifier = RowClassifier::new(snapshot, cohort, request);
        let index = snapshot.index();
        let mut selection = Selection {
            rows: vec![RowSet::default(); index.segment_count()],
            present: Bitmap::new(index.patients()),
            ledger: Ledger::default(),
            stats: SelectionStats { faults: vec![0; FaultKind::ALL.len()], ..SelectionStats::default() },
        };
        if prefers_postings(snapshot, cohort, request) {
            let (rows, part) = postings_scan::select_by_postings(&classifier)?;
            selection.add(part);
            rows.into_iter().for_each(|(segment, rows)| selection.rows[segment.index()] = rows);
        } else {
            let visibility = Visibility::of(&classifier)?;
            let segments: Vec<SegmentId> = snapshot.segments().collect();
            let columns = columns_ahead(snapshot, cohort, request);
            // Of a packed segment that is taken whole no column is read.
            let reads = |segment| columns != [Column::Place] || index.packed(index.file_of(segment)).is_none();
            let read_ahead = ColumnReadAhead::new(index, &segments, &columns, reads);
            let scan = |segment| match request.access_path {
                // Without shortcuts: no zone map, and every succession is walked.
                AccessPath::Rows => column_scan::scan_columns(&classifier, Visibility::default(), segment),
                _ if zone_map_scan::applies(&classifier, segment) => {
                    zone_map_scan::scan_zones(&classifier, visibility, segment)
                }
                _ => match column_scan::select_whole(&classifier, visibility, segment)? {
                    Some(part) => Ok(part),
                    None => column_scan::scan_columns(&classifier, visibility, segment),
                },
            };
            let scan_at = |(at, segment): (usize, &SegmentId)| {
                read_ahead.advance(at);
                scan(*segment)
            };
            let parts: Vec<SegmentSelection> =
                segments.par_iter().enumerate().map(scan_at).collect::<Result<_, _>>()?;
            for (segment, part) in segments.into_iter().zip(parts) {
                selection.rows[segment.index()] = selection.add(part);
            }
        }
        selection.collect_stats(snapshot, cohort)?;
        Ok(selection)
    }

    /// Adds the counts and Patient rows of one segment's selection, and returns its rows.
    fn add(&mut self, part: SegmentSelection) -> RowSet {
        self.ledger.add(&part.ledger);
        self.stats.undated += part.undated;
        self.stats.illegal_updated += part.illegal_updated;
        self.stats.late += part.late;
        part.present.iter().for_each(|patient| {
            self.present.insert(patient.index());
        });
        part.rows
    }

    /// Counts faults by kind, and references under bases that are not ours: from the totals of the global index if the
    /// snapshot has every segment, else segment by segment.
    fn collect_stats(&mut self, snapshot: &Snapshot, cohort: &Cohort) -> Result<(), CorruptIndex> {
        let index = snapshot.index();
        let mut foreign = vec![0; index.bases().len()];
        if snapshot.sees_whole_index() {
            let totals = index.global().totals()?;
            self.stats.faults.iter_mut().enumerate().for_each(|(kind, sum)| *sum = totals.faults(kind));
            foreign = index.global().verified_longs(Section::BaseCount, 0..foreign.len())?.to_vec();
        } else {
            for segment in snapshot.segments() {
                let columns = index.segment(segment).verify_columns(&[Column::FaultCount, Column::BaseCount])?;
                columns.fault_count.iter().zip(&mut self.stats.faults).for_each(|(count, sum)| *sum += count);
                for (base, count) in columns.base_count.iter().enumerate() {
                    foreign[index.base_of_segment(segment, to_u32(base)).index()] += count;
                }
            }
        }
        // Most stores have no such fault, and none of their headers is read.
        if self.stats.faults[FaultKind::NoType as usize] > 0 {
            self.stats.other_data = find_other_data(index, snapshot.segments())?;
            let lines: u64 = self.stats.other_data.iter().map(|other| other.lines).sum();
            let untyped = &mut self.stats.faults[FaultKind::NoType as usize];
            *untyped = untyped.saturating_sub(lines);
            self.ledger.faulty = self.ledger.faulty.saturating_sub(lines);
            self.ledger.not_fhir += lines;
        }
        self.stats.foreign = (0..foreign.len())
            .filter(|base| !cohort.ours[*base] && foreign[*base] > 0)
            .map(|base| (index.bases()[base].clone(), foreign[base]))
            .collect();
        Ok(())
    }
}

/// Owner entries of selected rows under each base that is not ours: base and count, none of them 0. Reads no column if
/// every base is ours.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
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
    for segment in snapshot.segments().filter(|segment| !selection.rows[segment.index()].is_empty()) {
        for row in selection.rows[segment.index()].iter() {
            for owner in index.segment(segment).row_owners(row)? {
                let base = bases[index.patient_of_owner(segment, OwnerOrd(*owner))?.index()] as usize;
                counts[base] += u64::from(!cohort.ours[base]);
            }
        }
    }
    let counted = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
    Ok(counted.map(|(base, count)| (index.bases()[base].clone(), count)).collect())
}

/// Columns that a scan of segments and the plan are going to read, as far as that is known beforehand.
fn columns_ahead(snapshot: &Snapshot, cohort: &Cohort, request: &ExportRequest) -> Vec<Column> {
    let mut columns = Vec::new();
    let is_everybody = cohort.patients.as_ref().is_none_or(|patients| patients.count() == snapshot.index().patients());
    if !is_everybody || request.access_path == AccessPath::Rows {
        columns.extend([Column::Type, Column::Flags, Column::OwnerStart, Column::Owner]);
    }
    if request.since.is_some() || request.until.is_some() {
        columns.push(Column::UpdatedMax);
    } else {
        columns.push(Column::Place);
    }
    columns
}

/// Whether to scan postings: the request says so, or by default if the cohort is at most one [`POSTINGS_SHARE`]th of
/// the store's patients. Never at system level, which has no cohort.
pub(crate) fn prefers_postings(snapshot: &Snapshot, cohort: &Cohort, request: &ExportRequest) -> bool {
    let Some(patients) = &cohort.patients else { return false };
    match request.access_path {
        AccessPath::Postings => true,
        AccessPath::Columns | AccessPath::Rows => false,
        AccessPath::Auto => patients.count() * POSTINGS_SHARE <= snapshot.index().patients(),
    }
}
