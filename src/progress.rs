//! Progress of long work, and its cancellation.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};

use crate::named_enum::by_name;

/// Step of long work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing has been counted yet: files are opened, directories listed.
    #[default]
    Starting,
    /// Another process holds the index.
    Waiting,
    /// Store files are scanned.
    Indexing,
    /// What was scanned is merged into the index.
    Merging,
    /// Rows are selected and files planned.
    Planning,
    /// Data files are written.
    Writing,
    /// Messages and the manifest are written, and files come into their place.
    Publishing,
    /// Files are read to be compared with what they should be.
    Checking,
}

impl Phase {
    /// Every phase; the position of one is its number.
    pub(crate) const ALL: [Phase; 8] = [
        Phase::Starting,
        Phase::Waiting,
        Phase::Indexing,
        Phase::Merging,
        Phase::Planning,
        Phase::Writing,
        Phase::Publishing,
        Phase::Checking,
    ];

    /// Its word, in status documents and progress lines.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Waiting => "waiting",
            Phase::Indexing => "indexing",
            Phase::Merging => "merging",
            Phase::Planning => "planning",
            Phase::Writing => "writing",
            Phase::Publishing => "publishing",
            Phase::Checking => "checking",
        }
    }
}

by_name!(Phase);

/// The step under way and how far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PhaseProgress {
    /// The step.
    pub phase: Phase,
    /// Bytes of it that are done, at most `total`.
    pub done: u64,
    /// Bytes of it in all; 0 for a step without figures.
    pub total: u64,
}

impl PhaseProgress {
    /// Hundredths that are done, rounded down; `None` for a step without figures.
    pub(crate) fn percent(&self) -> Option<u8> {
        (self.total > 0).then(|| (u128::from(self.done) * 100 / u128::from(self.total)) as u8)
    }
}

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
    phase: AtomicU8,
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

    /// Says that a step begins.
    pub(crate) fn begin(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// The step under way and how far it has come.
    pub(crate) fn phase(&self) -> PhaseProgress {
        let figures = |phase, done: &AtomicU64, total: &AtomicU64| {
            let total = total.load(Relaxed);
            PhaseProgress { phase, done: done.load(Relaxed).min(total), total }
        };
        let without = |phase| PhaseProgress { phase, done: 0, total: 0 };
        match Phase::ALL[usize::from(self.phase.load(Relaxed))] {
            _ if self.waiting.load(Relaxed) => without(Phase::Waiting),
            _ if self.merging.load(Relaxed) => without(Phase::Merging),
            phase @ (Phase::Indexing | Phase::Checking) => figures(phase, &self.scan_done, &self.scan_total),
            phase @ Phase::Writing => figures(phase, &self.write_done, &self.write_total),
            phase => without(phase),
        }
    }

    /// Says what there is to write, and that it begins.
    pub(crate) fn expect_writes(&self, bytes: u64, files: u64) {
        self.begin(Phase::Writing);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A step has the figures of its counters; waiting and merging go before it, and have none.
    #[test]
    fn the_step_under_way_is_told_with_its_figures() {
        let progress = Progress::default();
        let told = |progress: &Progress| (progress.phase().phase, progress.phase().percent());
        assert_eq!(told(&progress), (Phase::Starting, None));
        Phase::ALL.iter().enumerate().for_each(|(number, phase)| assert_eq!(*phase as usize, number));
        progress.begin(Phase::Indexing);
        assert_eq!(told(&progress), (Phase::Indexing, None));
        progress.scan_total.store(3, Relaxed);
        progress.scan_done.store(2, Relaxed);
        assert_eq!(told(&progress), (Phase::Indexing, Some(66)));
        progress.waiting.store(true, Relaxed);
        assert_eq!(told(&progress), (Phase::Waiting, None));
        progress.waiting.store(false, Relaxed);
        progress.expect_writes(u64::MAX, 1);
        progress.write_done.store(u64::MAX - 1, Relaxed);
        assert_eq!(told(&progress), (Phase::Writing, Some(99)));
    }
}
