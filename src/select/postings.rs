//! Selection from the members' side: their rows by the postings, a look at each, and everything else by totals. The
//! way for cohorts that are a small part of the store: what it costs follows the answer, not the store.

use rayon::prelude::*;

use super::filter::{Class, Filter, Found, PROVENANCE_DEPTH_MAX};
use super::row_set::RowSet;
use super::selection::{Ledger, Part};
use crate::fhir::ResourceType;
use crate::store::layout::Column;
use crate::store::merged::Section;
use crate::store::sealed::Damaged;
use crate::store::snapshot::State;

/// A row: extent and number in it.
type Row = (u32, u32);

/// Selects: the rows of each extent that has any, and a part that speaks for the whole store.
///
/// # Errors
/// [`Damaged`] when the index is.
pub fn select(filter: &Filter<'_>) -> Result<(Vec<(usize, RowSet)>, Part), Damaged> {
    let index = filter.snapshot.index();
    let mut part = Part::default();
    for extent in filter.snapshot.extents() {
        part.add_head(index.extents()[extent].head());
    }
    let mut rows: Vec<(usize, RowSet)> = Vec::new();
    let (mut in_cohort, mut exported) = (0, 0);
    for (extent, row) in candidates(filter)? {
        let (extent, row) = (extent as usize, row as usize);
        match filter.classify_found(extent, row, Found::AsMembers, &mut part)? {
            Class::SinceOrUntil => in_cohort += 1,
            Class::Exported => {
                in_cohort += 1;
                exported += 1;
                match rows.last_mut() {
                    Some((last, set)) if *last == extent => set.push(row),
                    _ => rows.push((extent, RowSet::Few(vec![row as u32]))),
                }
            }
            _ => {}
        }
    }
    let totals = totals(filter)?;
    let ledger = &mut part.ledger;
    let mut wanted = 0;
    for resource_type in ResourceType::all() {
        let [rows, future, superseded, deleted] = totals[resource_type.index()];
        ledger.future += future;
        ledger.superseded += superseded;
        ledger.deleted += deleted;
        let current = rows - future - superseded - deleted;
        match filter.wants(resource_type) {
            true => wanted += current,
            false => ledger.r#type += current,
        }
    }
    *ledger = Ledger { cohort: wanted - in_cohort, since_or_until: in_cohort - exported, exported, ..*ledger };
    Ok((rows, part))
}

/// Every row that may be the cohort's, in store order: the members' own in any version, Provenances about them, and
/// about those, and the Group asked for.
fn candidates(filter: &Filter<'_>) -> Result<Vec<Row>, Damaged> {
    let index = filter.snapshot.index();
    let mut rows: Vec<Row> = Vec::new();
    for patient in filter.cohort.patients.iter().flat_map(|patients| patients.iter()) {
        for owner in index.owners_of_patient(patient as u32)? {
            let (extent, owner) = index.locate_owner(*owner as usize);
            rows.extend(index.extents()[extent].posting(owner)?.iter().map(|row| (extent as u32, *row)));
        }
    }
    rows.extend(filter.cohort.group_row.map(|(extent, row)| (extent as u32, row as u32)));
    rows.sort_unstable();
    rows.dedup();
    if index.merged().count(Section::About) > 0 {
        let mut known: std::collections::HashSet<Row> = rows.iter().copied().collect();
        let mut new = rows.clone();
        for _ in 0..=PROVENANCE_DEPTH_MAX {
            let mut found = Vec::new();
            for (extent, row) in new {
                let record = index.starts().row[extent as usize] + row as usize;
                for pair in index.merged().pairs(Section::About, record..record + 1)? {
                    let (extent, target) = index.locate_target(*pair as u32 as usize);
                    let row = (extent as u32, index.extents()[extent].target(target)?.target_row[target]);
                    if known.insert(row) {
                        found.push(row);
                    }
                }
            }
            rows.extend(&found);
            new = found;
        }
        rows.sort_unstable();
    }
    if index.extents().iter().any(|extent| extent.head().left > 0) {
        // What has left a packed store has no postings, so every Provenance may be about something that has.
        for (number, extent) in index.extents().iter().enumerate() {
            if extent.head().has_type(ResourceType::PROVENANCE.index()) {
                let types = extent.prove_columns(&[Column::Type])?.resource_type.iter().enumerate();
                let provenances = types.filter(|(_, at)| **at as usize == ResourceType::PROVENANCE.index());
                rows.extend(provenances.map(|(row, _)| (number as u32, row as u32)));
            }
        }
        rows.sort_unstable();
        rows.dedup();
    }
    rows.retain(|(extent, _)| filter.snapshot.sees(*extent as usize));
    Ok(rows)
}

/// For each type its rows, and those in the future, superseded and deleted. From what was counted when the index was
/// made, where all that counted then counts now: nothing dated after T, every extent seen, deletions under our base.
fn totals(filter: &Filter<'_>) -> Result<Vec<[u64; 4]>, Damaged> {
    let (snapshot, index) = (filter.snapshot, filter.snapshot.index());
    let at = filter.at();
    let mut sums = vec![[0; 4]; ResourceType::COUNT];
    let whole = index.merged().totals()?;
    let counted = snapshot.sees_all()
        && whole.foreign_deletions() == 0
        && index.extents().iter().all(|extent| {
            let head = extent.head();
            head.updated_max() < at.ticks && head.tombstone_updated_max() < at.ticks
        });
    if counted {
        for (index, sum) in sums.iter_mut().enumerate() {
            *sum = [whole.rows(index), 0, whole.superseded(index), whole.deleted(index)];
        }
        return Ok(sums);
    }
    let extents: Vec<usize> = snapshot.extents().collect();
    let parts: Vec<Vec<[u64; 4]>> =
        extents.into_par_iter().map(|extent| totals_of(filter, extent)).collect::<Result<_, _>>()?;
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| sum.iter_mut().zip(part).for_each(|(sum, n)| *sum += n));
    }
    Ok(sums)
}

/// The same of one extent, row by row where it must be.
fn totals_of(filter: &Filter<'_>, extent: usize) -> Result<Vec<[u64; 4]>, Damaged> {
    let (snapshot, index) = (filter.snapshot, filter.snapshot.index());
    let (this, at) = (&index.extents()[extent], filter.at());
    let mut sums = vec![[0; 4]; ResourceType::COUNT];
    let counts = this.prove_columns(&[Column::TypeCount])?.type_count;
    sums.iter_mut().zip(counts).for_each(|(sum, rows)| sum[0] = *rows);
    if this.head().updated_max() >= at.ticks {
        let needed = [Column::LastUpdated, Column::Type, Column::Flags, Column::Exact, Column::Heap];
        let columns = this.prove_columns(&needed)?;
        for row in 0..this.rows() {
            let future = columns.updated_of(row).is_some_and(|updated| updated > at);
            sums[columns.resource_type[row] as usize][1] += u64::from(future);
        }
    }
    let first = index.starts().row[extent];
    for pair in index.merged().pairs(Section::Succession, first..first + this.rows())? {
        let row = (pair >> 32) as usize - first;
        let class = match snapshot.state(extent, row, at, &filter.cohort.ours, &|_| true)? {
            State::Superseded => 2,
            State::Deleted => 3,
            State::Current | State::Future => continue,
        };
        sums[this.row(row)?.resource_type[row] as usize][class] += 1;
    }
    Ok(sums)
}
