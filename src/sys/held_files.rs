//! How many store files a process holds open, and those that it opened last of the others.
//!
//! A store may have more files than a process may have open. Up to a bound they are held: what is deleted or replaced by
//! rename is still read as it was. Any other is opened when it is read ([`StoreFile`](crate::sys::store_file::StoreFile)), and
//! its descriptor is kept only while it is among the last few that were read. Everything in the process shares the bound: the
//! jobs of a service, and the index that it keeps.
//!
//! One lock, of [`RECENT_FILES`]; no other is taken while it is held.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::limits::{HELD_FILES_MAX, RECENT_FILES_MAX, SPARE_DESCRIPTORS};
use crate::sys::process_limits::open_files_max;

/// A number of store files that may be held open.
struct HeldFileBudget {
    /// The bound; set when it is first asked for.
    max: OnceLock<usize>,
    /// Files that are held.
    held: AtomicUsize,
}

/// The budget of the process.
static BUDGET: HeldFileBudget = HeldFileBudget { max: OnceLock::new(), held: AtomicUsize::new(0) };

/// Descriptors of files that are not held, the one that was opened last at the end.
static RECENT_FILES: Mutex<VecDeque<Arc<File>>> = Mutex::new(VecDeque::new());

/// The right to hold a store file open, until dropped.
pub(crate) struct HeldFileSlot(&'static HeldFileBudget);

impl HeldFileBudget {
    /// The bound of the budget.
    fn max(&self) -> usize {
        *self.max.get_or_init(|| held_files_within(open_files_max()))
    }

    /// The right to hold one more file; `None` when as many are held as may be.
    fn take(&'static self) -> Option<HeldFileSlot> {
        let max = self.max();
        let more = |held: usize| (held < max).then_some(held + 1);
        self.held.fetch_update(Relaxed, Relaxed, more).ok().map(|_| HeldFileSlot(self))
    }
}

impl HeldFileSlot {
    /// The right to hold one more store file; `None` when the process holds as many as it may.
    pub(crate) fn take() -> Option<HeldFileSlot> {
        BUDGET.take()
    }
}

impl Drop for HeldFileSlot {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}

/// How many store files the process holds open at most.
pub(crate) fn held_files_max() -> usize {
    BUDGET.max()
}

/// How many store files may be held where a process may have so many files open (`None`: any number). Room is left for index
/// files, outputs and sockets: a quarter, and where the limit is low up to a half.
fn held_files_within(open_max: Option<u64>) -> usize {
    let open_max = open_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    let spare = (open_max / 4).max(SPARE_DESCRIPTORS.min(open_max / 2));
    (open_max - spare).min(HELD_FILES_MAX)
}

/// Keeps a descriptor until [`RECENT_FILES_MAX`] later ones were kept, fewer where few files may be open.
pub(crate) fn keep_recent(file: Arc<File>) {
    let recent_max = RECENT_FILES_MAX.min(held_files_max() / 8).max(1);
    let mut closed = None;
    let mut recent = RECENT_FILES.lock().unwrap_or_else(PoisonError::into_inner);
    if recent.len() >= recent_max {
        closed = recent.pop_front();
    }
    recent.push_back(file);
    // Closed without the lock: on a network the close may wait.
    drop(recent);
    drop(closed);
}

/// Gives up a descriptor that was kept.
pub(crate) fn drop_recent(file: &Arc<File>) {
    let mut recent = RECENT_FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let found = recent.iter().position(|kept| Arc::ptr_eq(kept, file));
    let closed = found.and_then(|position| recent.remove(position));
    drop(recent);
    drop(closed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part of every limit is left for other descriptors, and maps of all held files are fewer than a process may have.
    #[test]
    fn room_is_left_for_other_descriptors() {
        for (open_max, held_max) in
            [(0, 0), (1, 1), (4, 2), (40, 20), (256, 128), (1024, 512), (4096, 3072), (8192, 6144)]
        {
            assert_eq!(held_files_within(Some(open_max)), held_max, "{open_max}");
        }
        for unbounded in [None, Some(u64::MAX), Some(1 << 20)] {
            assert_eq!(held_files_within(unbounded), HELD_FILES_MAX);
        }
    }

    /// No more files are held than the budget has, by all threads together, and what is given back is taken again.
    #[test]
    fn a_budget_is_shared_and_given_back() {
        let budget: &'static HeldFileBudget =
            Box::leak(Box::new(HeldFileBudget { max: OnceLock::from(10), held: AtomicUsize::new(0) }));
        let slots: Vec<HeldFileSlot> = std::thread::scope(|scope| {
            let takers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..5).filter_map(|_| budget.take()).collect::<Vec<_>>())).collect();
            takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
        });
        assert_eq!((slots.len(), budget.take().is_some()), (10, false));
        drop(slots);
        assert_eq!(budget.held.load(Relaxed), 0);
        assert!(budget.take().is_some());
    }

    /// Only the descriptors that were kept last stay, and one that is given up does not.
    #[test]
    fn the_last_descriptors_are_kept() {
        let file = || Arc::new(tempfile::tempfile().unwrap());
        let first = file();
        keep_recent(first.clone());
        assert!(Arc::strong_count(&first) == 2);
        drop_recent(&first);
        assert_eq!(Arc::strong_count(&first), 1);
        keep_recent(first.clone());
        for _ in 0..RECENT_FILES_MAX {
            keep_recent(file());
        }
        assert_eq!(Arc::strong_count(&first), 1, "it was closed when others came");
    }
}
