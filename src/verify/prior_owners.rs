//! Whose deletions are, by the table of a packed file: what the index must have of them, and what a recount
//! must know.
//!
//! A version that a deletion ended leaves when a store is packed; whose it was is in the table, by frame and DELETE
//! entry of the frame, and in the index by DELETE entry of the segment. Entries are counted here from the lines, as the
//! twin reads them.

use crate::fhir::id::Id;
use crate::index::segment::columns::Columns;
use crate::index::segment::layout::BASE_BITS;
use crate::store::packed::seek_table::{FOLLOWED, LATE, NOBODY, PriorOwnerRecord, SeekTable};

/// A cursor in the table of one file, or in none.
pub(crate) struct PriorOwners<'a> {
    table: Option<&'a SeekTable>,
    frame: usize,
    /// DELETE entries of the frame that were met.
    met: u32,
}

impl<'a> PriorOwners<'a> {
    /// Before the first line of a file, or of a part of it that begins with a frame.
    pub(crate) fn new(table: Option<&'a SeekTable>) -> PriorOwners<'a> {
        PriorOwners { table, frame: usize::MAX, met: 0 }
    }

    /// What the table has of the next DELETE entry, which stands in the line at `at` of the (uncompressed) file; nothing
    /// without a table.
    pub(crate) fn next(&mut self, offset: u64) -> &'a [PriorOwnerRecord] {
        let Some(table) = self.table else { return &[] };
        let frame = table.frame_at(offset);
        if frame != self.frame {
            (self.frame, self.met) = (frame, 0);
        }
        let key = (frame as u32, self.met);
        self.met += 1;
        let own = table.left.partition_point(|left| (left.frame, left.entry) < key)
            ..table.left.partition_point(|left| (left.frame, left.entry) <= key);
        &table.left[own]
    }

    /// Base and id of an owner; `None` for a sentinel.
    pub(crate) fn name(&self, left: &PriorOwnerRecord) -> Option<(&'a str, Id)> {
        let (base, id) = self.table?.names.get(left.owner as usize)?;
        Some((base, *id))
    }

    /// Whether a segment has of its DELETE entry what the table has of the next one, which stands in the line at `at`.
    pub(crate) fn same_owners(&mut self, offset: u64, columns: &Columns<'_>, entry: usize) -> bool {
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
