//! Selection by scanning the columns of a segment: every row gets exactly one ledger class, and the exported ones a
//! bit.
//!
//! The access path for cohorts that are a large part of the store. A segment of which no row but superseded and deleted
//! ones can be excluded is selected as a whole, without a look at its columns.

use crate::error::CorruptIndex;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{OwnerOrd, RowAddress, SegmentId};
use crate::index::segment::layout::{Column, flag};
use crate::index::snapshot::RowState;
use crate::request::Population;
use crate::select::bitmap::Bitmap;
use crate::select::classifier::RowClassifier;
use crate::select::ledger::{RowClass, SegmentSelection};
use crate::select::provenance::Horizon;
use crate::select::row_set::RowSet;
use crate::select::visibility::Visibility;

/// Selects all rows of a segment but superseded, deleted and future ones, if no other row can be excluded: its rows are
/// of one selected type, dates decide nothing, every row has an owner, and every owner is in the cohort. Else `None`.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn select_whole(
    classifier: &RowClassifier<'_>,
    visibility: Visibility,
    segment_id: SegmentId,
) -> Result<Option<SegmentSelection>, CorruptIndex> {
    let index = classifier.snapshot.index();
    let segment = index.segment(segment_id);
    if segment.rows() == 0 || !classifier.is_uniform(segment_id) || !all_in_cohort(classifier, segment_id)? {
        return Ok(None);
    }
    let mut part = SegmentSelection::of_header(segment.head());
    let mut rows = Bitmap::full(segment.rows());
    let mut excluded = 0;
    for (row, next) in index.successions(segment_id, 0..segment.rows())? {
        let class = match visibility.state(classifier, RowAddress::of(segment_id, row), next)? {
            RowState::Current => continue,
            RowState::Future => RowClass::Future,
            RowState::Superseded => RowClass::Superseded,
            RowState::Deleted => RowClass::Deleted,
        };
        part.count_row(class);
        rows.remove(row);
        excluded += 1;
    }
    part.ledger.exported += segment.rows() as u64 - excluded;
    part.rows = RowSet::Bitmap(rows);
    Ok(Some(part))
}

/// Whether every row of a segment has an owner, and every owner is in the cohort.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn all_in_cohort(classifier: &RowClassifier<'_>, segment: SegmentId) -> Result<bool, CorruptIndex> {
    let Some(patients) = &classifier.cohort.patients else { return Ok(true) };
    let index = classifier.snapshot.index();
    let header = index.segment(segment).head();
    let mut owners = index.patients_of_segment(segment)?.iter();
    Ok(header.unowned == 0 && owners.all(|patient| patients.contains(patient.index())))
}

/// Classifies every row of a segment from its columns.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn scan_columns(
    classifier: &RowClassifier<'_>,
    visibility: Visibility,
    segment_id: SegmentId,
) -> Result<SegmentSelection, CorruptIndex> {
    let index = classifier.snapshot.index();
    let segment = index.segment(segment_id);
    let is_timeless = classifier.needs_no_time_filter(segment_id);
    let columns = segment.verify_columns(&[Column::Type, Column::Flags, Column::OwnerStart, Column::Owner])?;
    if !is_timeless {
        segment.verify_columns(&[Column::LastUpdated, Column::Exact, Column::Heap])?;
    }
    let mut part = SegmentSelection::of_header(index.segment(segment_id).head());
    // Counted row by row below; the header's count would count them twice.
    part.illegal_updated = 0;
    let mut rows = Bitmap::new(columns.rows());
    let mut successions = index.successions(segment_id, 0..columns.rows())?.peekable();
    let owner_patient = index.patients_of_segment(segment_id)?;
    // Membership of the segment's owners, once each, so that the loop below reads a small array.
    let members: Vec<bool> = match &classifier.cohort.patients {
        Some(patients) => owner_patient.iter().map(|patient| patients.contains(patient.index())).collect(),
        None => Vec::new(),
    };
    // Of a row that is in the records of others, too, they decide: every owner of ours must be a member.
    let outsiders: Vec<bool> = match &classifier.cohort.outsiders {
        Some(outsiders) => owner_patient.iter().map(|patient| outsiders.contains(patient.index())).collect(),
        None => Vec::new(),
    };
    let instant = classifier.as_of();
    for row in 0..columns.rows() {
        let next = successions.next_if(|(followed, _)| *followed == row);
        let updated = if is_timeless { None } else { columns.updated_of(row) };
        part.illegal_updated += u64::from(columns.flags[row] & flag::ILLEGAL_UPDATED != 0);
        if updated.is_some_and(|updated| updated > instant) {
            part.count_row(RowClass::Future);
            continue;
        }
        if let Some((_, next)) = next {
            match visibility.state(classifier, RowAddress::of(segment_id, row), next)? {
                RowState::Current => {}
                RowState::Future => unreachable!("asked above"),
                RowState::Superseded => {
                    part.count_row(RowClass::Superseded);
                    continue;
                }
                RowState::Deleted => {
                    part.count_row(RowClass::Deleted);
                    continue;
                }
            }
        }
        let resource_type = columns.type_of(row);
        if resource_type == ResourceType::PATIENT {
            // A Patient row owns itself first.
            part.present.push(owner_patient.patient_of(OwnerOrd(columns.owners_of(row)[0])));
        }
        if !classifier.selects_type(resource_type) {
            part.count_row(RowClass::Type);
            continue;
        }
        let is_in_cohort = match (&classifier.request.population, resource_type) {
            (Population::System, _) => true,
            (_, ResourceType::GROUP | ResourceType::PROVENANCE) => {
                classifier.membership.in_cohort(RowAddress::of(segment_id, row), Horizon::All)?
            }
            _ => {
                let owners = columns.owners_of(row);
                owners.iter().any(|owner| members[*owner as usize])
                    && (outsiders.is_empty() || !owners.iter().any(|owner| outsiders[*owner as usize]))
            }
        };
        if !is_in_cohort {
            part.count_row(RowClass::Cohort);
            continue;
        }
        if !is_timeless
            && !classifier.passes_window(&mut part, RowAddress::of(segment_id, row), resource_type, updated)?
        {
            part.count_row(RowClass::SinceOrUntil);
            continue;
        }
        part.count_row(RowClass::Exported);
        rows.insert(row);
    }
    part.rows = RowSet::Bitmap(rows);
    Ok(part)
}
