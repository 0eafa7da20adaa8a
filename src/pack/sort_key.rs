//! The sort key of a packed row: type, patient, time.

/// Where a row goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SortKey {
    pub(crate) patient: u32,
    ticks_high: u32,
    ticks_low: u32,
    /// Number of the row over the store.
    pub row: u32,
}

impl SortKey {
    pub(crate) fn new(patient: u32, ticks: i64, row: u32) -> SortKey {
        // The sign bit turned round, so that words order as the ticks do.
        let ticks = ticks as u64 ^ 1 << 63;
        SortKey { patient, ticks_high: (ticks >> 32) as u32, ticks_low: ticks as u32, row }
    }
}
