//! Statistics of one refresh of the index.

/// Work of one refresh, as reports print it.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefreshStats {
    /// Bytes of store files scanned.
    pub scanned_bytes: u64,
    /// Number of new segments, from scanned ranges.
    #[serde(rename = "scannedExtents")]
    pub scanned_segments: usize,
    /// Number of segments kept from the previous index.
    #[serde(rename = "keptExtents")]
    pub kept_segments: usize,
    /// Reasons why indexed segments were scanned again, or the global index was built again.
    pub repaired: Vec<String>,
    /// Why the index is in memory only; `None` when it is on disk.
    pub in_memory: Option<String>,
}
