//! A store: a directory of NDJSON files, and the index that knows its rows.
//!
//! `walk` finds the files, `scan` and `lines` turn bytes into extents, `merge` tells what only the whole store can,
//! `generation` names one consistent index, [`Snapshot`] is what one export sees. Nothing here knows requests, output
//! files or clocks.

pub mod packed;
pub mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::error::IndexError;
use crate::extract::Validate;
use crate::fhir::instant::Instant;
use crate::index::refresh::{self, Trust, Work};
use crate::index::snapshot::{Index, Snapshot, SnapshotRecord};
use crate::index::store_listing::View;
use crate::index::{invalidate, store_files};
use crate::simd::Kernel;
use crate::sys::store_file::Access;

/// End of the hidden name under which a directory is built beside its place. Such a directory is never a store.
pub const PARTIAL_SUFFIX: &str = ".outpour-partial";

/// What may be done to the index of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexAccess {
    /// It is brought up to date, repaired, and notes the snapshots that are taken.
    #[default]
    ReadWrite,
    /// Nothing is written, the directory of the index not made: what it lacks is made in memory, and is gone with what
    /// was made from it.
    ReadOnly,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Where the index lies; `.outpour` in the store when `None`.
    pub index_dir: Option<PathBuf>,
    /// How store files are read.
    pub access: Access,
    /// Scanner kernel.
    pub kernel: Kernel,
    /// What a scan checks; `None` takes what the index was made with, [`Validate::Full`] for a new one.
    pub validate: Option<Validate>,
    /// Whether what the index remembers of a snapshot is on the disk before the snapshot is given. Without, a loss of
    /// power may cost the memory of the last snapshots, and an export since an earlier one then takes some rows again.
    pub sync: bool,
    /// Whether the index is written.
    pub index_access: IndexAccess,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            index_dir: None,
            access: Access::called(),
            kernel: Kernel::detect(),
            validate: None,
            sync: true,
            index_access: IndexAccess::ReadWrite,
        }
    }
}

/// Watches long work, and can stop it.
#[derive(Default)]
pub struct Watch {
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

/// A store directory. Opening it reads nothing but the directory's entry; see [`Store::snapshot`].
///
/// ```
/// use outpour::{Store, fhir::Instant};
/// # let dir = tempfile::tempdir()?;
/// # std::fs::write(dir.path().join("Patient.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n")?;
/// let store = Store::open(dir.path())?;
/// let now = Instant::parse("2026-01-01T00:00:00Z").unwrap();
/// let snapshot = store.snapshot(now)?;
/// assert_eq!(snapshot.index().rows(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    options: StoreOptions,
}

impl Store {
    /// Opens a store whose files are read by `pread`: safe whatever other processes do to them.
    ///
    /// # Errors
    /// When the path is no directory.
    pub fn open(root: impl AsRef<Path>) -> Result<Store, IndexError> {
        Store::open_with(root, StoreOptions::default())
    }

    /// Opens a store whose files are mapped.
    ///
    /// # Errors
    /// When the path is no directory.
    ///
    /// # Safety
    /// No process may truncate or rewrite the store's files in place while the store or anything made from it lives.
    /// (The binary installs a fault guard instead, see [`guard`](crate::sys::sigbus), and needs no such promise.)
    pub unsafe fn open_mapped(root: impl AsRef<Path>) -> Result<Store, IndexError> {
        // SAFETY: the caller makes the promise that the constructor asks for.
        let access = unsafe { Access::mapped() };
        Store::open_with(root, StoreOptions { access, ..StoreOptions::default() })
    }

    /// Opens a store as `options` say.
    ///
    /// # Errors
    /// When the path is no directory.
    pub fn open_with(root: impl AsRef<Path>, options: StoreOptions) -> Result<Store, IndexError> {
        let path = root.as_ref().to_path_buf();
        let own = path.canonicalize().unwrap_or_else(|_| path.clone());
        if own.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(PARTIAL_SUFFIX.as_bytes())) {
            let reason =
                "is a directory under construction, or what a killed run left of one: run that again, or remove it";
            return Err(IndexError::NoStore { path, reason });
        }
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => Ok(Store { root: path, options }),
            Ok(_) => Err(IndexError::NoStore { path, reason: "is no directory" }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(IndexError::NoStore { path, reason: "is not there" })
            }
            Err(source) => Err(IndexError::Read { path, source }),
        }
    }

    /// The same store, whose index is read and not written; see [`IndexAccess::ReadOnly`].
    pub fn read_only(&self) -> Store {
        let options = StoreOptions { index_access: IndexAccess::ReadOnly, ..self.options.clone() };
        Store { root: self.root.clone(), options }
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where its index lies, or would.
    pub fn index_dir(&self) -> PathBuf {
        self.options.index_dir.clone().unwrap_or_else(|| self.root.join(".outpour"))
    }

    /// The greatest T of the snapshots that the store's index remembers.
    pub fn latest_snapshot(&self) -> Option<Instant> {
        let ticks = refresh::latest(self)?;
        Some(Instant { ticks, rest: Box::default() })
    }

    /// How it was opened.
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Brings the index up to date and takes a snapshot: what an export as of `as_of` sees (CONS-04). Rows that come
    /// to the store later, or are dated later, are not part of it.
    ///
    /// # Errors
    /// When the store cannot be read as a whole.
    pub fn snapshot(&self, as_of: Instant) -> Result<Snapshot, IndexError> {
        self.snapshot_watched(as_of, &Watch::default()).map(|(snapshot, _)| snapshot)
    }

    /// Like [`Store::snapshot`], watched; also tells what work that was.
    ///
    /// # Errors
    /// When the store cannot be read as a whole, or the watch says stop.
    pub fn snapshot_watched(&self, as_of: Instant, watch: &Watch) -> Result<(Snapshot, Work), IndexError> {
        let (index, work) = refresh::refresh(self, Some(&as_of), None, watch, Trust::Stamps)?;
        Ok((Snapshot::new(Arc::new(index), as_of), work))
    }

    /// Like [`Store::snapshot_watched`], but every byte of the index is checked as by [`Store::recheck`].
    ///
    /// # Errors
    /// As [`Store::snapshot_watched`].
    pub fn snapshot_rechecked(&self, as_of: Instant, watch: &Watch) -> Result<(Snapshot, Work), IndexError> {
        let (index, work) = refresh::refresh(self, Some(&as_of), None, watch, Trust::Nothing)?;
        Ok((Snapshot::new(Arc::new(index), as_of), work))
    }

    /// What the store holds now: a walk over its names, sizes and times, nothing read.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn look(&self) -> Result<View, IndexError> {
        Ok(View::of(&store_files::look(self)?))
    }

    /// Like [`Store::snapshot_watched`], of the bytes that an earlier [`Store::look`] saw: what was appended or came
    /// since is not part of it, unless somebody else has had it indexed meanwhile. Files replaced since are taken as
    /// they are now.
    ///
    /// # Errors
    /// As [`Store::snapshot_watched`].
    pub fn snapshot_of(&self, view: &View, as_of: Instant, watch: &Watch) -> Result<(Snapshot, Work), IndexError> {
        let (index, work) = refresh::refresh(self, Some(&as_of), Some(view), watch, Trust::Stamps)?;
        Ok((Snapshot::new(Arc::new(index), as_of), work))
    }

    /// The index as it was last published, without a look at the store; `None` when there is none that stands, or it
    /// is being replaced.
    pub fn last_index(&self) -> Option<Index> {
        refresh::last(self)
    }

    /// Brings the index up to date and opens it, without taking a snapshot.
    ///
    /// # Errors
    /// When the store cannot be read as a whole, or the watch says stop.
    pub fn index(&self, watch: &Watch) -> Result<(Index, Work), IndexError> {
        refresh::refresh(self, None, None, watch, Trust::Stamps)
    }

    /// Like [`Store::index`], but every byte of the index is checked whatever its files' times say, and what is damaged
    /// is made again. For whoever was told [`IndexError::Damaged`], or wants to know.
    ///
    /// # Errors
    /// As [`Store::index`].
    pub fn recheck(&self, watch: &Watch) -> Result<(Index, Work), IndexError> {
        refresh::refresh(self, None, None, watch, Trust::Nothing)
    }

    /// Has the index scan a store file again when it is next brought up to date; the file is named as below the store.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn forget(&self, name: &str, watch: &Watch) -> Result<(), IndexError> {
        invalidate::forget(self, name, watch)
    }

    /// The snapshot that a record names: the same extents, whatever has been appended since.
    ///
    /// # Errors
    /// [`IndexError::Changed`] when the store no longer holds those bytes.
    pub fn snapshot_again(&self, record: &SnapshotRecord, watch: &Watch) -> Result<(Snapshot, Work), IndexError> {
        refresh::again(self, record, watch)
    }
}
