//! Sort key of a packed row within its type: patient, then lastUpdated, then store order.

use crate::ids::RecordId;

/// Key of 16 bytes; the derived order compares the fields from first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SortKey {
    /// Number of the row's first owner, or one of the sentinels of `cluster`.
    pub(crate) patient: u32,
    /// Upper half of lastUpdated in ticks, sign bit flipped. Two halves keep the key at an alignment of four bytes.
    ticks_high: u32,
    ticks_low: u32,
    /// The row.
    pub row: RecordId,
}

impl SortKey {
    /// Key of a row with this owner and lastUpdated in ticks.
    pub(crate) fn new(patient: u32, ticks: i64, row: RecordId) -> SortKey {
        // With the sign bit flipped, unsigned words order as the signed ticks do.
        let ticks = ticks as u64 ^ 1 << 63;
        SortKey { patient, ticks_high: (ticks >> 32) as u32, ticks_low: ticks as u32, row }
    }
}
