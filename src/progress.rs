//! Progress of long work, and its cancellation.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Watches long work, and can stop it. Every method takes `&self`, so that another thread can look and cancel while the
/// work runs; the figures are counters that only ever grow within one run, each by itself, in no order among each other.
///
/// ```
/// # use outpour::{Progress, Store};
/// # let dir = tempfile::tempdir()?;
/// # std::fs::write(dir.path().join("Patient.ndjson"), "")?;
/// let (store, progress) = (Store::open(dir.path())?, Progress::default());
/// std::thread::scope(|threads| {
///     let work = threads.spawn(|| store.index(&progress));
///     while !work.is_finished() {
///         println!("{} of {} bytes scanned", progress.scan_done(), progress.scan_total());
///         std::thread::yield_now();
///     }
///     work.join().unwrap()
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Progress {
    pub(crate) cancel: AtomicBool,
    pub(crate) scan_total: AtomicU64,
    pub(crate) scan_done: AtomicU64,
    pub(crate) merging: AtomicBool,
    pub(crate) waiting: AtomicBool,
    pub(crate) write_total: AtomicU64,
    pub(crate) write_done: AtomicU64,
    pub(crate) files_total: AtomicU64,
    pub(crate) files_done: AtomicU64,
}

impl Progress {
    /// Stops the work at its next piece, which ends with an error
    /// ([`ExportError::is_cancelled`](crate::error::ExportError::is_cancelled)). It stays cancelled: work that is begun
    /// later with the same value ends at once.
    pub fn cancel(&self) {
        self.cancel.store(true, Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Relaxed)
    }

    /// Bytes of store files to scan for the index; 0 until they are known, and where the index is up to date.
    pub fn scan_total(&self) -> u64 {
        self.scan_total.load(Relaxed)
    }

    /// Bytes of store files scanned so far.
    pub fn scan_done(&self) -> u64 {
        self.scan_done.load(Relaxed)
    }

    /// Whether scanned files are being merged into the index, which has no figures.
    pub fn is_merging(&self) -> bool {
        self.merging.load(Relaxed)
    }

    /// Whether another process holds the index, and this one waits for it.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Relaxed)
    }

    /// Uncompressed bytes of rows to write; 0 until the export is planned.
    pub fn write_total(&self) -> u64 {
        self.write_total.load(Relaxed)
    }

    /// Uncompressed bytes of rows written so far.
    pub fn write_done(&self) -> u64 {
        self.write_done.load(Relaxed)
    }

    /// Files of rows to write; 0 until the export is planned. Files of messages and deletions are not counted.
    pub fn files_total(&self) -> u64 {
        self.files_total.load(Relaxed)
    }

    /// Files of rows finished so far.
    pub fn files_done(&self) -> u64 {
        self.files_done.load(Relaxed)
    }

    /// Says what there is to write.
    pub(crate) fn expect_writes(&self, bytes: u64, files: u64) {
        self.write_total.store(bytes, Relaxed);
        self.files_total.store(files, Relaxed);
    }

    /// Counts bytes as written.
    pub(crate) fn add_written(&self, bytes: u64) {
        self.write_done.fetch_add(bytes, Relaxed);
    }

    /// Nothing counts as written.
    pub(crate) fn begin_writing_again(&self) {
        self.write_done.store(0, Relaxed);
        self.files_done.store(0, Relaxed);
    }
}
