//! Statistics of a refresh.

/// What bringing the index up to date took.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefreshStats {
    /// Bytes of store files scanned.
    pub scanned_bytes: u64,
    /// Extents scanned.
    pub scanned_extents: usize,
    /// Extents kept.
    pub kept_extents: usize,
    /// Why extents that should have been there were scanned again.
    pub repaired: Vec<String>,
    /// Why the index is in memory only, if it is.
    pub in_memory: Option<String>,
}
