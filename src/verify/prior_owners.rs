//! Prior owners of deletions in the table of a packed file, read in line order: to check those in the index, and for a
//! recount.
//!
//! When a store is packed, a version that a deletion ended is dropped; its owners are kept in the table by frame and
//! DELETE entry of the frame, and in the index by DELETE entry of the segment. Entries are counted here from the lines,
//! as the reference implementation reads them.

use crate::fhir::id::Id;
use crate::ids::EntryId;
use crate::index::segment::columns::Columns;
use crate::index::segment::layout::BASE_BITS;
use crate::store::packed::seek_table::{FOLLOWED, LATE, NOBODY, PriorOwnerRecord, SeekTable};

/// Cursor in the table of one file; `table` is `None` for a file without one.
pub(crate) struct PriorOwners<'a> {
    table: Option<&'a SeekTable>,
    frame: usize,
    /// DELETE entries of the frame that were counted.
    entries: u32,
}

impl<'a> PriorOwners<'a> {
    /// A cursor before the first line of a file, or of a part of it that begins with a frame.
    pub(crate) fn new(table: Option<&'a SeekTable>) -> PriorOwners<'a> {
        PriorOwners { table, frame: usize::MAX, entries: 0 }
    }

    /// Table entries of the next DELETE entry, whose line is at `offset` of the uncompressed file; empty without a
    /// table.
    pub(crate) fn next(&mut self, offset: u64) -> &'a [PriorOwnerRecord] {
        let Some(table) = self.table else { return &[] };
        let frame = table.frame_at(offset);
        if frame != self.frame {
            (self.frame, self.entries) = (frame, 0);
        }
        let key = (frame as u32, self.entries);
        self.entries += 1;
        let own = table.left.partition_point(|left| (left.frame, left.entry) < key)
            ..table.left.partition_point(|left| (left.frame, left.entry) <= key);
        &table.left[own]
    }

    /// Base URL and id of an owner; `None` for a sentinel.
    pub(crate) fn name(&self, left: &PriorOwnerRecord) -> Option<(&'a str, Id)> {
        let (base, id) = self.table?.names.get(left.owner as usize)?;
        Some((base, *id))
    }

    /// Whether a segment has for a DELETE entry of it what the table has for the next one, whose line is at
    /// `offset`.
    pub(crate) fn same_owners(&mut self, offset: u64, columns: &Columns<'_>, entry: EntryId) -> bool {
        let stated = self.next(offset).iter().map(|left| (left.updated, self.name(left).ok_or(left.owner)));
        stated.eq(columns.prior_owner_entries(entry).iter().map(|[word, ticks]| {
            let owner = (*word >> 32) as u32;
            let name = (!matches!(owner, NOBODY | FOLLOWED | LATE)).then(|| {
                let base = columns.base_text((columns.owner_base[owner as usize] & BASE_BITS) as usize);
                (base, columns.owner_id_of(owner as usize))
            });
            (*ticks as i64, name.ok_or(owner))
        }))
    }
}
