//! Binaries of patients of the cohort that no exported row refers to: they go with the rows whose attachments they are, and
//! never by themselves (COMP-10). Here they are counted.

use crate::casts::to_u8;
use crate::error::CorruptIndex;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{BaseId, RecordId, RowAddress, SegmentId};
use crate::index::segment::columns::ReferenceName;
use crate::index::segment::layout::{BASE_BITS, Column};
use crate::index::snapshot::Snapshot;
use crate::request::{ExportRequest, Population};
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::context_closure::is_current;
use crate::select::row_set::RowSet;
use std::collections::HashSet;

/// Number of current Binaries whose `securityContext` names a patient of the cohort, and that no selected row refers to as an
/// attachment. 0 at system level, with `_type`, and with a window.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn count_unreached_binaries(
    snapshot: &Snapshot,
    cohort: &Cohort,
    request: &ExportRequest,
    selected: &[RowSet],
) -> Result<u64, CorruptIndex> {
    let index = snapshot.index();
    let mut own: Vec<RecordId> = Vec::new();
    // Where types or a window leave rows out, what points to a Binary may be among them.
    let is_whole = request.types.is_empty()
        && request.since.is_none()
        && request.until.is_none()
        && request.type_filters.is_empty();
    if request.population != Population::System && is_whole {
        let classifier = RowClassifier::new(snapshot, cohort, request);
        for segment in snapshot.segments() {
            let head = index.segment(segment).head();
            if !head.has_type(ResourceType::BINARY.index()) || head.references == 0 {
                continue;
            }
            let types = index.segment(segment).verify_columns(&[Column::Type])?.resource_type;
            for row in memchr::memchr_iter(to_u8(ResourceType::BINARY.index()), types) {
                let address = RowAddress::of(segment, row);
                if names_patients(&classifier, address)? == Some(true) && is_current(&classifier, address)? {
                    own.push(index.global().first_record(index.record_of_row(address))?);
                }
            }
        }
    }
    // Most stores have none, and nothing else is read.
    if own.is_empty() {
        return Ok(0);
    }
    let mut reached: HashSet<u32> = HashSet::new();
    for segment in snapshot.segments().filter(|segment| !selected[segment.index()].is_empty()) {
        reached.extend(attachments_of(snapshot, segment, &selected[segment.index()])?);
    }
    Ok(own.iter().filter(|record| !reached.contains(&(record.0 + 1))).count() as u64)
}

/// Whether a Binary's `securityContext`, or another reference of it, names a patient of the cohort; `None` if none names a
/// patient.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn names_patients(classifier: &RowClassifier<'_>, row: RowAddress) -> Result<Option<bool>, CorruptIndex> {
    let mut found = None;
    let RowClassifier { snapshot, cohort, .. } = classifier;
    let index = snapshot.index();
    let segment = index.segment(row.segment);
    for number in segment.row_references(row.row.index())? {
        let columns = segment.reference(*number as usize)?;
        let base = index.base_of_segment(row.segment, columns.reference_base[*number as usize] & BASE_BITS);
        if columns.reference_type_of(*number as usize) != ResourceType::PATIENT {
            continue;
        }
        found = Some(false);
        if !cohort.ours[base.index()] {
            continue;
        }
        let ReferenceName::Id(id) = columns.reference_name(*number as usize) else { continue };
        // The dictionary has a patient under the bases that records name it by.
        for base in (0..index.bases().len()).filter(|base| cohort.ours[*base]) {
            if let Some(patient) = index.patient(BaseId::of(base), &id)?
                && cohort.patients.as_ref().is_none_or(|patients| patients.contains(patient.index()))
            {
                return Ok(Some(true));
            }
        }
    }
    Ok(found)
}

/// The Binaries that the URLs of some rows of a segment name, by their first records, plus one each.
fn attachments_of(snapshot: &Snapshot, segment_id: SegmentId, rows: &RowSet) -> Result<Vec<u32>, CorruptIndex> {
    let index = snapshot.index();
    let segment = index.segment(segment_id);
    if segment.head().references == 0 {
        return Ok(Vec::new());
    }
    let columns = segment.reference_sets()?;
    if memchr::memchr(to_u8(ResourceType::BINARY.index()), columns.reference_type).is_none() {
        return Ok(Vec::new());
    }
    let heads = index.reference_heads(segment_id)?;
    let mut found = Vec::new();
    for row in rows.iter() {
        let own = columns.references_of(row).iter().map(|number| *number as usize);
        found.extend(
            own.filter(|number| columns.reference_type_of(*number) == ResourceType::BINARY).map(|number| heads[number]),
        );
    }
    Ok(found)
}
