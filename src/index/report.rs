//! Statistics of one refresh of the index.

use crate::count_text::counted;
use crate::index::meta::MemoryLoss;

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
    /// Why what an earlier index remembered of snapshots is lost; `None` when it is not.
    pub memory_lost: Option<MemoryLoss>,
    /// Whether people are to be told of that: this refresh found it, or the export would have needed it.
    #[serde(skip)]
    pub tells_memory_loss: bool,
    /// What is gone from the store since the refresh before; `None` when nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<GoneResources>,
    /// Why the index is in memory only; `None` when it is on disk.
    pub in_memory: Option<String>,
}

/// Resources that a refresh no longer found in the store, without a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GoneResources {
    /// Resources of which no row is left.
    pub resources: u64,
    /// Current resources at the last snapshot.
    pub present: u64,
    /// Resources whose newest version is gone while an older one stands.
    pub older_versions: u64,
    /// The files that held most of them, with their number and what became of the file.
    pub files: Vec<String>,
    /// Number of further files that held some.
    pub more_files: u64,
}

impl GoneResources {
    /// The files in one phrase.
    pub(crate) fn files_text(&self) -> String {
        let mut text = self.files.join("; ");
        if self.more_files > 0 {
            text += &format!("; and {}", counted(self.more_files, "more file"));
        }
        text
    }
}
