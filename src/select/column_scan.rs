//! Selection by a pass over the columns of a segment: every row gets exactly one class of the ledger, and the exported
//! ones a bit. The way for cohorts that are a large part of the store.

use crate::casts::{low_u32, to_usize};
use crate::error::CorruptIndex;
use crate::fhir::resource_type::ResourceType;
use crate::index::global::Section;
use crate::index::segment::layout::{Column, flag};
use crate::index::snapshot::RowState;
use crate::request::Population;
use crate::select::bitmap::Bitmap;
use crate::select::classifier::{Horizon, RowClassifier};
use crate::select::ledger::{RowClass, SegmentSelection};
use crate::select::row_set::RowSet;
use crate::select::visibility::Visibility;

/// Takes all rows of a segment but those that something follows, if no other row of it can be left out: its header says
/// that somebody owns each of them, and everybody in its dictionary is asked for. Else `None`.
///
/// # Errors
/// [`Damaged`] when the index is.
pub(crate) fn select_whole(
    filter: &RowClassifier<'_>,
    ended: Visibility,
    segment_id: usize,
) -> Result<Option<SegmentSelection>, CorruptIndex> {
    let index = filter.snapshot.index();
    let segment = &index.segments()[segment_id];
    if segment.rows() == 0 || !filter.is_uniform(segment_id) || !all_in_cohort(filter, segment_id)? {
        return Ok(None);
    }
    let mut part = SegmentSelection::of_header(segment.head());
    let mut rows = Bitmap::full(segment.rows());
    let first = index.starts().row[segment_id];
    let mut left = 0;
    for pair in index.global().pairs(Section::Succession, first..first + segment.rows())? {
        let row = (pair >> 32) as usize - first;
        let class = match ended.state(filter, segment_id, row, low_u32(*pair) as usize)? {
            RowState::Current => continue,
            RowState::Future => RowClass::Future,
            RowState::Superseded => RowClass::Superseded,
            RowState::Deleted => RowClass::Deleted,
        };
        part.count_row(class);
        rows.remove(row);
        left += 1;
    }
    part.ledger.exported += segment.rows() as u64 - left;
    part.rows = RowSet::Bitmap(rows);
    Ok(Some(part))
}

/// Whether every row of a segment has an owner, and every owner is in the cohort.
///
/// # Errors
/// [`Damaged`] when the index is.
pub(crate) fn all_in_cohort(filter: &RowClassifier<'_>, segment: usize) -> Result<bool, CorruptIndex> {
    let Some(patients) = &filter.cohort.patients else { return Ok(true) };
    let index = filter.snapshot.index();
    let head = index.segments()[segment].head();
    let owners = index.starts().owner[segment]..index.starts().owner[segment] + to_usize(head.owners);
    let mut owners = index.global().verified_words(Section::OwnerPatient, owners)?.iter();
    Ok(head.unowned == 0 && owners.all(|patient| patients.contains(*patient as usize)))
}

/// Goes through the rows of a segment.
///
/// # Errors
/// [`Damaged`] when the index is.
pub(crate) fn scan_columns(
    filter: &RowClassifier<'_>,
    ended: Visibility,
    segment_id: usize,
) -> Result<SegmentSelection, CorruptIndex> {
    let index = filter.snapshot.index();
    let segment = &index.segments()[segment_id];
    let timeless = filter.needs_no_time_filter(segment_id);
    let columns = segment.verify_columns(&[Column::Type, Column::Flags, Column::OwnerStart, Column::Owner])?;
    if !timeless {
        segment.verify_columns(&[Column::LastUpdated, Column::Exact, Column::Heap])?;
    }
    let mut part = SegmentSelection::of_header(index.segments()[segment_id].head());
    part.illegal_updated = 0;
    let mut rows = Bitmap::new(columns.rows());
    let global = index.global();
    let first = index.starts().row[segment_id];
    let mut successions = global.pairs(Section::Succession, first..first + columns.rows())?.iter().peekable();
    let owners = index.starts().owner[segment_id]..index.starts().owner[segment_id] + columns.owner_hash.len();
    let owner_patient = global.verified_words(Section::OwnerPatient, owners)?;
    // Membership of the segment's own owners, once each, so that the loop below asks a small array.
    let members: Vec<bool> = match &filter.cohort.patients {
        Some(patients) => owner_patient.iter().map(|patient| patients.contains(*patient as usize)).collect(),
        None => Vec::new(),
    };
    let position = filter.as_of();
    for row in 0..columns.rows() {
        let next = successions.next_if(|pair| (**pair >> 32) as usize == first + row);
        let updated = if timeless { None } else { columns.updated_of(row) };
        part.illegal_updated += u64::from(columns.flags[row] & flag::ILLEGAL_UPDATED != 0);
        if updated.is_some_and(|updated| updated > position) {
            part.count_row(RowClass::Future);
            continue;
        }
        if let Some(pair) = next {
            match ended.state(filter, segment_id, row, low_u32(*pair) as usize)? {
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
            part.present.push(owner_patient[columns.owners_of(row)[0] as usize]);
        }
        if !filter.selects_type(resource_type) {
            part.count_row(RowClass::Type);
            continue;
        }
        let belongs = match (&filter.request.population, resource_type) {
            (Population::System, _) => true,
            (_, ResourceType::GROUP | ResourceType::PROVENANCE) => {
                filter.in_cohort(segment_id, row, position, Horizon::All)?
            }
            _ => columns.owners_of(row).iter().any(|owner| members[*owner as usize]),
        };
        if !belongs {
            part.count_row(RowClass::Cohort);
            continue;
        }
        if !timeless && !filter.passes_window(&mut part, segment_id, row, resource_type, updated)? {
            part.count_row(RowClass::SinceOrUntil);
            continue;
        }
        part.count_row(RowClass::Exported);
        rows.insert(row);
    }
    part.rows = RowSet::Bitmap(rows);
    Ok(part)
}
