//! Statistics of a refresh.

/// What bringing the index up to date took.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefreshStats {
    /// Bytes of store files scanned.
    pub scanned_bytes: u64,
    /// Segments scanned.
    #[serde(rename = "scannedExtents")]
    pub scanned_segments: usize,
    /// Segments kept.
    #[serde(rename = "keptExtents")]
    pub kept_segments: usize,
    /// Why segments that should have been there were scanned again.
    pub repaired: Vec<String>,
    /// Why the index is in memory only, if it is.
    pub in_memory: Option<String>,
}
