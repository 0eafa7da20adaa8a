//! Whose a deletion is, once the version that it ended has left.

use crate::error::CorruptIndex;
use crate::fhir::instant::NO_INSTANT;
use crate::fhir::resource_type::ResourceType;
use crate::index::global::Section;
use crate::index::segment::layout::BASE_BITS;
use crate::pack::retention::Retention;
use crate::pack::writer::PriorOwnerEntry;
use crate::store::packed::seek_table::{FOLLOWED, LATE, NOBODY};

/// What the table must hold of a DELETE entry (numbered in its segment) that is the `entry`th of its frame.
pub(crate) fn prior_owner_entries(
    keep: &Retention<'_>,
    segment: usize,
    tombstone: usize,
    entry: u32,
) -> Result<Vec<PriorOwnerEntry>, CorruptIndex> {
    let index = keep.snapshot.index();
    let columns = index.segments()[segment].columns();
    let number = index.starts().tombstone[segment] + tombstone;
    let one = |updated, sentinel| vec![PriorOwnerEntry { entry, updated, owner: Err(sentinel) }];
    if columns.tomb_updated[tombstone] == NO_INSTANT {
        return Ok(Vec::new()); // it ends nothing
    }
    if keep.is_followed(index.rows() + number)? {
        return Ok(one(NO_INSTANT, FOLLOWED));
    }
    let ended = index.global().word(Section::Ends, number)?.checked_sub(1).map(|row| index.locate(row as usize));
    let ended_ticks = ended.map(|(segment, row)| index.segments()[segment].columns().last_updated[row]);
    let known = columns.prior_owner_of(tombstone);
    let (of, owners, updated, first_seen) = match (ended, known) {
        // What an earlier pack knew of a version that was younger than the one found.
        (_, Some(left)) if ended_ticks.is_none_or(|ticks| ticks < left.updated) => {
            if left.followed {
                return Ok(one(NO_INSTANT, FOLLOWED));
            }
            (segment, left.owners().collect::<Vec<_>>(), left.updated, left.first_seen)
        }
        (Some((of, row)), _) if keep.disposition(of, row)?.is_purged() => {
            let columns = index.segments()[of].columns();
            let owners = match columns.type_of(row) {
                ResourceType::GROUP => Vec::new(), // never exported by its members
                _ => columns.owners_of(row).iter().map(|owner| *owner as usize).collect(),
            };
            (of, owners, columns.last_updated[row], keep.version_set_of(of, columns.last_updated[row]))
        }
        _ => return Ok(Vec::new()),
    };
    // Who asks what was known at an instant must know when it came.
    let late = first_seen.map(|first| PriorOwnerEntry { entry, updated: first, owner: Err(LATE) });
    if owners.is_empty() {
        return Ok(one(updated, NOBODY).into_iter().chain(late).collect());
    }
    let columns = index.segments()[of].columns();
    let name = |owner: usize| {
        let base = columns.base_text((columns.owner_base[owner] & BASE_BITS) as usize);
        PriorOwnerEntry { entry, updated, owner: Ok((base.to_string(), columns.owner_id_of(owner))) }
    };
    Ok(owners.into_iter().map(name).chain(late).collect())
}
