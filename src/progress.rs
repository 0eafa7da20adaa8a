//! Progress of long work, and its cancellation.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;

/// Watches long work, and can stop it.
#[derive(Default)]
pub struct Progress {
    /// Set to stop: work ends at its next piece.
    pub cancel: AtomicBool,
    /// Bytes of store files to scan for the index.
    pub scan_total: AtomicU64,
    /// Bytes scanned so far.
    pub scan_done: AtomicU64,
    /// Set while the patient dictionary and successions are merged.
    pub merging: AtomicBool,
    /// Set while another process holds the index.
    pub waiting: AtomicBool,
    /// Bytes of rows to write.
    pub write_total: AtomicU64,
    /// Bytes written so far.
    pub write_done: AtomicU64,
    /// Files to write.
    pub files_total: AtomicU64,
    /// Files finished so far.
    pub files_done: AtomicU64,
}
