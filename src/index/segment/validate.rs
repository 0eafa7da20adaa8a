//! Checks the relations between the columns of a segment on which later indexing relies. Page checksums do not find a
//! file that was forged together with them, so a segment whose file may have been changed is checked here, too.

use crate::casts::low_u32;
use crate::extract::fault::FaultKind;
use crate::fhir::resource_type::ResourceType;
use crate::index::segment::columns::Columns;
use crate::index::segment::id_encoding::{self, IdClass};
use crate::index::segment::layout::{BASE_BITS, SegmentHeader, ZONE_ROWS, flag, kind};
use crate::index::segment::row_note::RowNote;
use crate::store::packed::seek_table::{FOLLOWED, LATE, NOBODY};

impl Columns<'_> {
    /// Checks that lengths of columns fit, every number is in range, sorted columns are sorted, and the header agrees
    /// with the rows. One pass over the columns, whose pages the caller has verified; only a forged file fails.
    ///
    /// # Errors
    /// A sentence that names the first relation that does not hold.
    pub(crate) fn check_relations(&self, head: &SegmentHeader) -> Result<(), &'static str> {
        // 1. Lengths of columns.
        let rows = self.place.len();
        let owners = self.owner_hash.len();
        let tombs = self.tomb_type.len();
        let targets = self.target_row.len();
        let (references, keys) = (self.reference_type.len(), self.key_row.len());
        let bases = self.base.len() / 2;
        let same = |lens: &[usize], count: usize| lens.iter().all(|len| *len == count);
        if !same(
            &[self.last_updated.len(), self.version.len(), self.id.len(), self.resource_type.len(), self.flags.len()],
            rows,
        ) || self.line_hash.len() != rows
            || self.owner_start.len() != rows + 1
            || !same(&[self.owner_id.len(), self.owner_base.len()], owners)
            || !same(&[self.tomb_id.len(), self.tomb_base.len(), self.tomb_updated.len()], tombs)
            || !same(&[self.target_type.len(), self.target_id.len(), self.target_base.len()], targets)
            || !same(&[self.reference_id.len(), self.reference_base.len()], references)
            || self.key_text.len() != keys
            || !same(&[self.sorted_hash.len(), self.sorted_ref.len()], rows + tombs + targets + references + keys)
            || self.posting_start.len() != owners + 1
            || self.posting.len() != self.owner.len()
            || self.updated_max.len() != rows.div_ceil(ZONE_ROWS)
            || self.base_count.len() != bases
            || bases == 0
            || self.fault_count.len() != FaultKind::ALL.len()
            || !same(&[self.note_count.len(), self.note_place.len()], RowNote::ALL.len())
            || self.type_count.len() != ResourceType::COUNT
        {
            return Err("its columns differ in length");
        }
        // 2. Starts of lists ascend, and numbers are in range.
        let ordered = self.owner_start.windows(2).all(|pair| pair[0] <= pair[1]);
        if !ordered || self.owner_start[0] != 0 || self.owner_start[rows] as usize != self.owner.len() {
            return Err("its owners do not fit");
        }
        let ordered = self.posting_start.windows(2).all(|pair| pair[0] <= pair[1]);
        if !ordered || self.posting_start[0] != 0 || self.posting_start[owners] as usize != self.posting.len() {
            return Err("its postings do not fit");
        }
        // Without references there is neither a column of sets nor a set.
        let sets = self.set_start.len().saturating_sub(1);
        let ordered = self.set_start.windows(2).all(|pair| pair[0] <= pair[1]);
        let is_whole = match references {
            0 => self.reference_set.is_empty() && self.set_start.is_empty() && self.set_reference.is_empty(),
            _ => {
                self.reference_set.len() == rows
                    && self.set_start.first() == Some(&0)
                    && self.set_start.last().map(|end| *end as usize) == Some(self.set_reference.len())
            }
        };
        if !ordered || !is_whole || !self.key_row.is_sorted() {
            return Err("its references do not fit");
        }
        let types = |column: &[u8]| column.iter().all(|index| (*index as usize) < ResourceType::COUNT);
        let below = |column: &[u32], bound: usize| column.iter().all(|number| (*number as usize) < bound);
        let based = |column: &[u32]| {
            column.iter().all(|base| ((base & BASE_BITS) as usize) < bases && IdClass::from_bits(base >> 30).is_some())
        };
        if !below(self.owner, owners)
            || !below(self.target_row, rows)
            || !below(self.posting, rows)
            || !below(self.several, rows)
            || !below(self.reference_set, sets)
            || !below(self.set_reference, references)
            || !below(self.key_row, rows)
            || !types(self.reference_type)
            || !self.reference_base.iter().all(|base| ((base & BASE_BITS) as usize) < bases)
            || !types(self.resource_type)
            || !types(self.tomb_type)
            || !types(self.target_type)
            || !based(self.owner_base)
            || !based(self.tomb_base)
            || !based(self.target_base)
        {
            return Err("a number points nowhere");
        }
        // 3. The header: queries read its summary in place of the columns.
        let mut found = SegmentHeader::default();
        self.resource_type.iter().for_each(|index| found.add_type(*index as usize));
        found.flags = self.flags.iter().fold(0, |sum, flags| sum | u64::from(*flags));
        found.row_bytes = self.place.iter().map(|[_, length]| u64::from(*length) + 1).sum();
        found.unowned = self.owner_start.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
        let summary = |head: &SegmentHeader| (head.types(), head.flags, head.row_bytes, head.unowned);
        if summary(&found) != summary(head) {
            return Err("its header does not speak for its rows");
        }
        // 4. Prior owners, sorted by DELETE entry.
        let (prior_owners, _) = self.tomb_left.as_chunks::<2>();
        let owned = |pair: u64| {
            let owner = (pair >> 32) as u32;
            (owner as usize) < owners || matches!(owner, NOBODY | FOLLOWED | LATE)
        };
        if !prior_owners.iter().all(|[pair, _]| (low_u32(*pair) as usize) < tombs && owned(*pair))
            || !prior_owners.is_sorted_by_key(|[pair, _]| low_u32(*pair))
        {
            return Err("an owner of what has left points nowhere");
        }
        // 5. Sorted names.
        let refs = self.sorted_ref.iter().all(|reference| {
            let number = (reference & !kind::MASK) as usize;
            match reference & kind::MASK {
                kind::ROW => number < rows,
                kind::TOMBSTONE => number < tombs,
                kind::TARGET => number < targets,
                kind::REFERENCE => number < references,
                kind::KEY => number < keys,
                _ => false,
            }
        });
        if !refs || !self.sorted_hash.is_sorted() || !self.owner_hash.is_sorted() {
            return Err("its order does not hold");
        }
        // 6. Texts lie in the heap, and ids are legal.
        let in_heap = |offset: u32, len: u32| u64::from(offset) + u64::from(len) <= self.heap.len() as u64;
        let ids = |ids: &[[u8; 16]], class: &dyn Fn(usize) -> u32| {
            ids.iter().enumerate().all(|(i, id)| match IdClass::from_bits(class(i)) {
                Some(IdClass::Uuid) => true,
                Some(class) => id_encoding::unpack_id(class, id, self.heap).is_some(),
                None => false,
            })
        };
        if !self.base.chunks_exact(2).all(|base| {
            in_heap(base[0], base[1])
                && str::from_utf8(&self.heap[base[0] as usize..(base[0] + base[1]) as usize]).is_ok()
        }) || !self.exact.chunks_exact(3).all(|exact| in_heap(exact[1], exact[2]))
            || !ids(self.id, &|position| u32::from(self.flags[position] & flag::ID_CLASS))
            || !ids(self.owner_id, &|k| self.owner_base[k] >> 30)
            || !ids(self.tomb_id, &|index| self.tomb_base[index] >> 30)
            || !ids(self.target_id, &|i| self.target_base[i] >> 30)
            || !self.key_text.iter().all(|[place, length]| in_heap(*place, *length))
            || !self.reference_id.iter().zip(self.reference_base).all(|(id, base)| {
                match IdClass::from_bits(base >> 30) {
                    Some(class) => id_encoding::unpack_id(class, id, self.heap).is_some(),
                    None => self.heap.get(id_encoding::heap_range(id)).is_some(),
                }
            })
        {
            return Err("a text lies beyond its heap");
        }
        let faults = self.fault.chunks_exact(5).all(|fault| FaultKind::ALL.get(fault[4] as usize).is_some());
        if !faults {
            return Err("a fault is of no known kind");
        }
        Ok(())
    }
}
