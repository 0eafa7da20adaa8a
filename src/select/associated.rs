//! Provenance of the exported resources, by `includeAssociatedData` (ASSOC-02…ASSOC-08): it takes the place of the rule for
//! Provenance in the cohort. What is exported of all other types is decided before, and alone decides.

use crate::associated_data::AssociatedData;
use crate::error::{CorruptIndex, ExportError};
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{RecordId, RowAddress, SegmentId};
use crate::index::row_reader::{row_range, stream_range};
use crate::index::snapshot::{RowState, Snapshot};
use crate::request::ExportRequest;
use crate::select::cohort::Cohort;
use crate::select::provenance::CohortMembership;
use crate::select::selection::Selection;
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::HashMap;

use serde::Deserialize;

/// Adds to a selection, which has no Provenance yet, those that `includeAssociatedData` asks for. In the ledger a Provenance
/// that it leaves out counts by its type. Reads rows only where one of several must be chosen.
///
/// # Errors
/// [`ExportError`] if the index is damaged, or a row cannot be read.
pub(crate) fn add_associated(
    snapshot: &Snapshot,
    cohort: &Cohort,
    request: &ExportRequest,
    selection: &mut Selection,
) -> Result<(), ExportError> {
    let Some(asked) = request.associated else { return Ok(()) };
    let membership = CohortMembership::new(snapshot, cohort, request);
    // 1. The exported rows that each current Provenance is about.
    let segments: Vec<SegmentId> = snapshot.segments().collect();
    let found: Vec<Vec<AboutRow>> = segments
        .par_iter()
        .map(|segment| exported_targets(snapshot, cohort, &membership, selection, *segment))
        .collect::<Result<_, CorruptIndex>>()?;
    let mut about: Vec<AboutRow> = found.into_iter().flatten().collect();
    // 2. For each such row, all of them or the newest.
    about.sort_unstable();
    about.dedup();
    let mut chosen: Vec<RecordId> = Vec::new();
    let mut ages = ProvenanceAges { snapshot, known: HashMap::new() };
    for of_target in about.chunk_by(|a, b| a.target == b.target) {
        let all = of_target.iter().map(|about| about.provenance);
        match asked {
            AssociatedData::RelevantProvenance => chosen.extend(all),
            AssociatedData::LatestProvenance => chosen.extend(ages.newest(all)?),
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

/// The Provenances of a segment that are current, each with the exported rows that it is about.
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

/// The ages of Provenances that compete, each read once.
struct ProvenanceAges<'a> {
    snapshot: &'a Snapshot,
    known: HashMap<RecordId, ProvenanceAge>,
}

impl ProvenanceAges<'_> {
    /// The newest of some Provenances about one resource; none of none.
    fn newest(
        &mut self,
        all: impl ExactSizeIterator<Item = RecordId> + Clone,
    ) -> Result<Option<RecordId>, ExportError> {
        if all.len() > 1 {
            for record in all.clone() {
                if !self.known.contains_key(&record) {
                    let age = self.read(record)?;
                    self.known.insert(record, age);
                }
            }
        }
        // One alone is not read; it has no other to be compared with.
        let order = |a: &RecordId, b: &RecordId| match (self.known.get(a), self.known.get(b)) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => Ordering::Equal,
        };
        Ok(all.max_by(order))
    }

    /// Reads the age of a Provenance row.
    fn read(&self, record: RecordId) -> Result<ProvenanceAge, ExportError> {
        let index = self.snapshot.index();
        let address = index.locate(record);
        let (segment, row) = address.parts();
        index.segment(segment).verify_copied(row..row + 1)?;
        let columns = index.segment(segment).row(row)?;
        let updated = index.segment(segment).updated(row)?.map(|updated| updated.to_owned());
        let id = columns.id_of(row).to_string();
        let mut line = Vec::new();
        stream_range(index, index.file_of(segment), row_range(index, address), &mut |piece| {
            line.extend_from_slice(piece);
        })?;
        Ok(ProvenanceAge::read(&line, updated, &id))
    }
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
