//! Prior owners of deletions: patients whose compartment a version was in before the pack dropped it for its deletion.
//!
//! This file computes the entries of one DELETE entry; `writer` stores them in the table of the packed file.

use crate::error::CorruptIndex;
use crate::fhir::instant::NO_INSTANT;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{EntryId, SegmentId};
use crate::index::segment::layout::BASE_BITS;
use crate::pack::retention::Retention;
use crate::pack::writer::PriorOwnerEntry;
use crate::store::packed::seek_table::{FOLLOWED, LATE, NOBODY};

/// Table entries for a DELETE entry of a segment, which becomes number `entry` of its frame. Empty if the
/// deletion ends nothing, or ends a version that is kept.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn prior_owner_entries(
    retention: &Retention<'_>,
    segment: SegmentId,
    tombstone: EntryId,
    entry: u32,
) -> Result<Vec<PriorOwnerEntry>, CorruptIndex> {
    let index = retention.snapshot.index();
    let columns = index.segment(segment).columns();
    let sentinel_entry = |updated, sentinel| vec![PriorOwnerEntry { entry, updated, owner: Err(sentinel) }];
    if columns.tomb_updated[tombstone.index()] == NO_INSTANT {
        return Ok(Vec::new()); // a deletion without an instant ends nothing
    }
    let record = index.record_of_entry(segment, tombstone);
    // A version that followed may be gone already, by an earlier pack.
    if retention.was_followed(segment, tombstone) || retention.is_followed(record)? {
        return Ok(sentinel_entry(NO_INSTANT, FOLLOWED));
    }
    let ended = index.version_before(segment, tombstone)?.map(|row| index.locate(row));
    let ended_ticks = ended.map(|row| index.segment(row.segment).columns().last_updated[row.row.index()]);
    let known = columns.prior_owner_of(tombstone);
    let (of, owners, updated, first_seen) = match (ended, known) {
        // An earlier pack dropped a version younger than the one that is still in the store: its entries are kept.
        (_, Some(prior)) if ended_ticks.is_none_or(|ticks| ticks < prior.updated) => {
            if prior.followed {
                return Ok(sentinel_entry(NO_INSTANT, FOLLOWED));
            }
            (segment, prior.owners().collect::<Vec<_>>(), prior.updated, prior.first_seen)
        }
        (Some(address), _) if retention.disposition(address)?.is_purged() => {
            let (of, row) = address.parts();
            let columns = index.segment(of).columns();
            let owners = match columns.type_of(row) {
                ResourceType::GROUP => Vec::new(), // a Group is not exported for its members
                _ => columns.owners_of(row).iter().map(|owner| *owner as usize).collect(),
            };
            (of, owners, columns.last_updated[row], retention.version_set_of(address, columns.last_updated[row]))
        }
        _ => return Ok(Vec::new()),
    };
    // To decide what was known at an earlier instant, a reader needs the T that first saw the version.
    let late = first_seen.map(|first| PriorOwnerEntry { entry, updated: first, owner: Err(LATE) });
    if owners.is_empty() {
        return Ok(sentinel_entry(updated, NOBODY).into_iter().chain(late).collect());
    }
    let columns = index.segment(of).columns();
    let name = |owner: usize| {
        let base = columns.base_text((columns.owner_base[owner] & BASE_BITS) as usize);
        PriorOwnerEntry { entry, updated, owner: Ok((base.to_string(), columns.owner_id_of(owner))) }
    };
    Ok(owners.into_iter().map(name).chain(late).collect())
}
