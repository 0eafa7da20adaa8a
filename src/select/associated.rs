//! Provenance of the exported resources, by `includeAssociatedData` (ASSOC-02…ASSOC-08): it takes the place of the rule for
//! Provenance in the cohort. What is exported of all other types is decided before, and alone decides.

use crate::associated_data::AssociatedData;
use crate::error::{CorruptIndex, ExportError};
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{RecordId, RowAddress, SegmentId};
use crate::index::row_lines::{RowPlace, read_lines};
use crate::index::row_reader::row_range;
use crate::index::snapshot::{RowState, Snapshot};
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::select::cohort::Cohort;
use crate::select::provenance::{CohortMembership, Horizon};
use crate::select::selection::Selection;
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use serde::Deserialize;

/// Adds to a selection, which has no Provenance yet, those that `includeAssociatedData` asks for. In the ledger a Provenance
/// that it leaves out counts by its type. Reads rows only where one of several must be chosen.
///
/// # Errors
/// [`ExportError`] if the index is damaged, a row cannot be read, or the work is cancelled.
pub(crate) fn add_associated(
    snapshot: &Snapshot,
    cohort: &Cohort,
    request: &ExportRequest,
    selection: &mut Selection,
    progress: &Progress,
) -> Result<(), ExportError> {
    let Some(asked) = request.associated else { return Ok(()) };
    let membership = CohortMembership::new(snapshot, cohort, request);
    // 1. The exported rows that each current Provenance is about.
    let segments: Vec<SegmentId> = snapshot.segments().collect();
    let found: Vec<Vec<AboutRow>> = segments
        .par_iter()
        .map(|segment| match progress.cancel.load(Relaxed) {
            true => Err(ExportError::Cancelled),
            false => Ok(exported_targets(snapshot, cohort, &membership, selection, *segment)?),
        })
        .collect::<Result<_, ExportError>>()?;
    let mut about: Vec<AboutRow> = found.into_iter().flatten().collect();
    // 2. For each such row, all of them or the newest.
    about.sort_unstable();
    about.dedup();
    let mut chosen: Vec<RecordId> = Vec::new();
    let ages = match asked {
        AssociatedData::RelevantProvenance => HashMap::new(),
        AssociatedData::LatestProvenance => read_ages(snapshot, &about, progress)?,
    };
    for of_target in about.chunk_by(|a, b| a.target == b.target) {
        let all = of_target.iter().map(|about| about.provenance);
        match asked {
            AssociatedData::RelevantProvenance => chosen.extend(all),
            AssociatedData::LatestProvenance => chosen.extend(newest(&ages, all)),
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    // 3. Into the selection, segment by segment.
    let index = snapshot.index();
    let count = chosen.len() as u64;
    let rows: Vec<RowAddress> = chosen.into_iter().map(|record| index.locate(record)).collect();
    for of_segment in rows.chunk_by(|a, b| a.segment == b.segment) {
        let added: Vec<usize> = of_segment.iter().map(|address| address.row.index()).collect();
        selection.rows[of_segment[0].segment.index()].add_all(&added);
    }
    selection.ledger.r#type -= count;
    selection.ledger.exported += count;
    Ok(())
}

/// A Provenance and an exported row that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AboutRow {
    target: RecordId,
    provenance: RecordId,
}

/// The Provenances of a segment that are current and no outsider's, each with the exported rows that it is about.
fn exported_targets(
    snapshot: &Snapshot,
    cohort: &Cohort,
    membership: &CohortMembership<'_>,
    selection: &Selection,
    segment: SegmentId,
) -> Result<Vec<AboutRow>, CorruptIndex> {
    let index = snapshot.index();
    let mut found = Vec::new();
    if !index.segment(segment).head().has_type(ResourceType::PROVENANCE.index()) {
        return Ok(found);
    }
    let as_of = snapshot.as_of().as_ref();
    for row in 0..index.segment(segment).rows() {
        if index.segment(segment).type_of(row)? != ResourceType::PROVENANCE {
            continue;
        }
        let address = RowAddress::of(segment, row);
        if snapshot.state(address, as_of, &cohort.ours, &|_| true)? != RowState::Current {
            continue;
        }
        if membership.is_outsiders(address, Horizon::All)? {
            continue;
        }
        for first in membership.targets(address)? {
            let target = membership.last_row(first)?;
            let is_exported = |target: &RowAddress| {
                let row = target.row.index();
                selection.rows[target.segment.index()].any(row..row + 1)
            };
            if let Some(target) = target.filter(is_exported) {
                let (target, provenance) = (index.record_of_row(target), index.record_of_row(address));
                found.push(AboutRow { target, provenance });
            }
        }
    }
    Ok(found)
}

/// By what Provenances are ordered, the newest last: `recorded`, then lastUpdated, then the id (ASSOC-06).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProvenanceAge {
    recorded: Option<Instant>,
    updated: Option<Instant>,
    id: String,
}

impl ProvenanceAge {
    /// The age of a Provenance by its line, which has passed the scan; lastUpdated and id as the index has them.
    pub(crate) fn read(line: &[u8], updated: Option<Instant>, id: &str) -> ProvenanceAge {
        #[derive(Deserialize)]
        struct Recorded {
            recorded: Option<String>,
        }
        let read: Option<Recorded> = serde_json::from_slice(line).ok();
        let recorded = read.and_then(|read| Instant::parse(&read.recorded?));
        ProvenanceAge { recorded, updated, id: id.to_string() }
    }
}

/// Reads the ages of Provenances that compete with others about a resource. Rows of a file are read in their order: what is
/// compressed is decoded once, whatever the number of rows.
///
/// # Errors
/// [`ExportError`] if a row cannot be read, or the work is cancelled.
fn read_ages(
    snapshot: &Snapshot,
    about: &[AboutRow],
    progress: &Progress,
) -> Result<HashMap<RecordId, ProvenanceAge>, ExportError> {
    let index = snapshot.index();
    let of_several = about.chunk_by(|a, b| a.target == b.target).filter(|of_target| of_target.len() > 1);
    let mut records: Vec<RecordId> = of_several.flatten().map(|about| about.provenance).collect();
    records.sort_unstable();
    records.dedup();
    let mut places: Vec<RowPlace<RecordId>> = Vec::with_capacity(records.len());
    for record in records {
        let address = index.locate(record);
        let (segment, row) = address.parts();
        index.segment(segment).verify_copied(row..row + 1)?;
        places.push(RowPlace { file: index.file_of(segment), range: row_range(index, address), row: record });
    }
    places.sort_unstable_by_key(|place| (place.file, place.range.start));
    let mut ages = HashMap::with_capacity(places.len());
    read_lines(index, &places, progress, &mut |record, line| {
        ages.insert(*record, age_of(snapshot, *record, line)?);
        Ok(())
    })?;
    Ok(ages)
}

/// The age of a Provenance row by its line.
fn age_of(snapshot: &Snapshot, record: RecordId, line: &[u8]) -> Result<ProvenanceAge, CorruptIndex> {
    let index = snapshot.index();
    let (segment, row) = index.locate(record).parts();
    let updated = index.segment(segment).updated(row)?.map(|updated| updated.to_owned());
    Ok(ProvenanceAge::read(line, updated, index.segment(segment).row(row)?.id_of(row).as_str()))
}

/// The newest of some Provenances about one resource; none of none. One alone has no age, and no other to be compared with.
fn newest(ages: &HashMap<RecordId, ProvenanceAge>, all: impl Iterator<Item = RecordId>) -> Option<RecordId> {
    all.max_by(|a, b| match (ages.get(a), ages.get(b)) {
        (Some(a), Some(b)) => a.cmp(b),
        _ => Ordering::Equal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ASSOC-06: by `recorded`, then lastUpdated, then id; what has no `recorded` is the oldest.
    #[test]
    fn ages_are_ordered() {
        let at = |text: &str| Instant::parse(text);
        let age = |recorded: &str, updated: &str, id: &str| {
            ProvenanceAge::read(format!(r#"{{"a":1,"recorded":{recorded}}}"#).as_bytes(), at(updated), id)
        };
        let ordered = [
            age("null", "2024-01-01T00:00:00Z", "z"),
            age(r#""2020-01-01T05:00:00+05:00""#, "", "a"),
            age(r#""2020-01-01T00:00:00Z""#, "2020-01-01T00:00:00Z", "a"),
            age(r#""2020-01-01T00:00:00.000Z""#, "2020-01-01T00:00:00Z", "b"),
            age(r#""2020-01-01T00:00:00Z""#, "2021-01-01T00:00:00Z", "a"),
            age(r#""2020-01-01T00:00:00.001Z""#, "2019-01-01T00:00:00Z", "a"),
        ];
        assert!(ordered.is_sorted_by(|a, b| a < b), "{ordered:?}");
    }
}
