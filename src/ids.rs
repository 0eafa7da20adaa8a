//! Numbers of things as types, so that a number of one thing is not taken for one of another: a row of the store is not
//! a row of its segment. Each is a bare 32-bit integer; only the modules that number things do arithmetic with them.

use crate::casts::to_u32;

macro_rules! ids {
    ($($(#[$attribute:meta])* $visibility:vis $name:ident;)*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        $visibility struct $name($visibility u32);

        impl $name {
            /// The number of this index; the caller's bound is below 2^32.
            #[inline(always)]
            $visibility const fn of(index: usize) -> $name {
                $name(to_u32(index))
            }

            /// The number as an index of a slice.
            #[inline(always)]
            $visibility const fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

ids! {
    /// A segment, by its place in the store order of an index.
    pub SegmentId;
    /// A store file, by its place in the store order of an index, or among the files of the store that one is made of.
    #[derive(Default)]
    pub FileId;
    /// A record, numbered over the store: rows first, in store order, then DELETE entries in store order.
    pub RecordId;
    /// A row of a segment, by its place in it.
    pub RowId;
    /// A DELETE entry of a segment, by its place in it.
    pub EntryId;
    /// An owner of a segment: a patient that it names, by its place among those of the segment.
    pub OwnerOrd;
    /// An owner: a patient that a segment names, numbered over the segments of the store.
    pub OwnerId;
    /// A patient of the dictionary of an index.
    pub PatientId;
    /// A reference base of an index, the empty one first.
    pub BaseId;
    /// A target of a Provenance, numbered over the store.
    pub TargetId;
    /// A reference of the rows of a segment, numbered over the store.
    pub(crate) ReferenceId;
    /// A shard: an output file of rows, by its place among those of its plan, which stand by type and then by ordinal. It
    /// is no ordinal, which counts the files of one type from 1.
    pub(crate) ShardId;
}

impl SegmentId {
    /// The segment that follows, if there is one.
    pub fn following(self) -> SegmentId {
        SegmentId(self.0.saturating_add(1))
    }

    /// The segments from this one to `last`, both included.
    pub fn through(self, last: SegmentId) -> impl Iterator<Item = SegmentId> {
        (self.0..=last.0).map(SegmentId)
    }
}

/// Address of a row: its segment, and its number there. Addresses order as the rows of the store do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowAddress {
    /// The segment in the index.
    pub segment: SegmentId,
    /// The row in the segment.
    pub row: RowId,
}

impl RowAddress {
    /// The address of the row of this index in a segment; the caller's bound is below 2^32.
    #[inline(always)]
    pub const fn of(segment: SegmentId, row: usize) -> RowAddress {
        RowAddress { segment, row: RowId::of(row) }
    }

    /// The segment, and the row as an index of its columns.
    #[inline(always)]
    pub const fn parts(self) -> (SegmentId, usize) {
        (self.segment, self.row.index())
    }
}
