//! Whether the store was whole at the last look: one that is empty or lacks too much counts as not mounted, and exports
//! nothing until a later look finds it again.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::IndexError;
use crate::store::Store;
use crate::store::walk::Walk;
use crate::sys::private_files::create_private;

/// Names of files that are not read in a line of the log; the others are counted.
const NAMES_LOGGED_MAX: usize = 5;

/// Name of the file in the directory of records that is locked while a service has it.
pub(crate) const LOCK: &str = ".lock";

/// Why a store was refused. Counts alone: paths and names are the operator's, and stand in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreRefusal {
    /// It, or a directory of it, cannot be read.
    Unreadable,
    /// Its index, or the records of jobs, cannot be written.
    Unwritable,
    /// It holds no data file.
    NoDataFiles,
    /// Its `.outpourignore` cannot be used.
    IgnoreFile,
    /// Its index was made with other choices than the configuration has.
    OtherChoices,
    /// So many of the resources of the last snapshot are gone without a deletion.
    ResourcesMissing {
        /// Resources gone.
        gone: u64,
        /// Resources of the last snapshot.
        present: u64,
    },
}

impl StoreRefusal {
    /// The refusal that an error of the index is, if it is one.
    pub(crate) fn of(error: &IndexError) -> Option<StoreRefusal> {
        match error {
            IndexError::NoStore { .. } | IndexError::Read { .. } => Some(StoreRefusal::Unreadable),
            IndexError::NoDataFiles { .. } => Some(StoreRefusal::NoDataFiles),
            IndexError::IgnoreFile(..) => Some(StoreRefusal::IgnoreFile),
            IndexError::OtherChoices { .. } => Some(StoreRefusal::OtherChoices),
            IndexError::ResourcesMissing { gone, present, .. } => {
                Some(StoreRefusal::ResourcesMissing { gone: *gone, present: *present })
            }
            _ => None,
        }
    }
}

/// Why a store cannot be used at all: its directory is not there, or its index or the directory of records cannot be
/// written. `None` if it can, as far as that shows without reading it. At most a lock file is made that is not there.
pub(crate) fn find_unusable(store: &Store, records: &Path) -> Option<(StoreRefusal, std::io::Error)> {
    // Without file descriptors or memory nothing is known of the store.
    let says_something =
        |error: &std::io::Error| !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM));
    if let Err(error) = std::fs::read_dir(store.root()) {
        return says_something(&error).then_some((StoreRefusal::Unreadable, error));
    }
    for path in [store.index_dir().join("lock"), records.join(LOCK)] {
        match create_private(&path) {
            Ok(_) => {}
            // The next use of the index makes its directory again.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return says_something(&error).then_some((StoreRefusal::Unwritable, error)),
        }
    }
    None
}

/// What the last look at the store found.
#[derive(Default)]
pub(crate) struct StoreState {
    refusal: Mutex<Option<StoreRefusal>>,
    /// Number of files that were not read, because they are no data files.
    passed_over: AtomicU64,
    /// Number of files and directories that `.outpourignore` took.
    excluded: AtomicU64,
}

impl StoreState {
    /// Why the store was refused at the last look; `None` if it was not.
    pub(crate) fn refusal(&self) -> Option<StoreRefusal> {
        *self.refusal.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notes what a look found: a refusal, or `None` for a store that was indexed. A change is logged. Other errors say
    /// nothing about what the store holds, and are not to be noted.
    pub(crate) fn note(&self, refusal: Option<StoreRefusal>) {
        let mut known = self.refusal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match (*known, refusal) {
            (None, Some(StoreRefusal::Unreadable)) => {
                tracing::error!("the store cannot be read: nothing is exported until it can be");
            }
            (None, Some(StoreRefusal::Unwritable)) => {
                tracing::error!(
                    "the index or the records of jobs cannot be written: nothing is exported until they can be"
                );
            }
            (None, Some(StoreRefusal::NoDataFiles)) => {
                tracing::error!("the store holds no data file: nothing is exported until it does");
            }
            (None, Some(StoreRefusal::IgnoreFile)) => {
                tracing::error!("the .outpourignore of the store cannot be used: nothing is exported until it can");
            }
            (None, Some(StoreRefusal::OtherChoices)) => {
                tracing::error!(
                    "the index was made with other choices than [store] has: nothing is exported until they agree. Change [store], \
                     or make the index again with `outpour index --remake`"
                );
            }
            (None, Some(StoreRefusal::ResourcesMissing { gone, present })) => {
                tracing::error!(
                    gone,
                    present,
                    "the store has lost too much: nothing is exported until it is whole again"
                );
            }
            (Some(_), None) => tracing::info!("the store is whole again, and can be used"),
            _ => {}
        }
        *known = refusal;
    }

    /// Number of files of the store that are not read.
    pub(crate) fn passed_over(&self) -> u64 {
        self.passed_over.load(Relaxed)
    }

    /// Notes the files of the store that are not read. A change of their number is logged, with the first names.
    pub(crate) fn note_passed_over(&self, walked: &Walk) {
        let (names, links) = (&walked.ignored, walked.ignored_links);
        let count = names.len() as u64;
        if self.passed_over.swap(count, Relaxed) != count && count > 0 {
            let first = names.iter().take(NAMES_LOGGED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                files = count,
                links,
                first,
                "files of the store are not read: they are no data files by their names, or links that are not followed \
                 (follow_symlinks in [store])"
            );
        }
        if self.excluded.swap(walked.excluded, Relaxed) != walked.excluded {
            tracing::info!(
                number = walked.excluded,
                "files or directories of the store are passed over by .outpourignore"
            );
        }
    }

    /// Notes what an error of a look says, if it says anything about what the store holds.
    pub(crate) fn note_error(&self, error: &IndexError) {
        if let Some(refusal) = StoreRefusal::of(error) {
            self.note(Some(refusal));
        }
    }
}
