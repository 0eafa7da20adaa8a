//! A store: a directory of NDJSON files, plain, compressed or packed, and the options to open it with.
//!
//! `walk` finds the files, `packed` reads packed ones, `paths` checks output directories. Methods that use the index
//! are in [`index::open_store`](crate::index::open_store). Nothing here knows requests or output files.

pub(crate) mod packed;
pub(crate) mod paths;
pub(crate) mod walk;

use crate::error::IndexError;
use crate::extract::Validate;
use crate::simd::Kernel;
use crate::sys::access::Access;
use crate::sys::atomic_dir::PARTIAL_SUFFIX;
use std::path::{Path, PathBuf};

/// Whether the index of a store is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexAccess {
    /// The index is brought up to date and repaired, and records the snapshots that are taken.
    #[default]
    ReadWrite,
    /// Nothing is written and no directory is made: missing parts of the index are made in memory, and dropped with the
    /// objects that use them.
    ReadOnly,
}

/// Options to open a store with.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Directory of the index; `None` for `.outpour` in the store.
    pub index_dir: Option<PathBuf>,
    /// Whether store files are read or mapped.
    pub access: Access,
    /// Scanner kernel to extract lines with.
    pub kernel: Kernel,
    /// How strictly a scan checks resources; `None` for that of the existing index, [`Validate::Full`] for a new one.
    pub validate: Option<Validate>,
    /// Whether the times of a snapshot are synced to disk before the snapshot is returned. Without, a loss of power may
    /// lose those of the last snapshots, and an export since an earlier one then takes some rows again.
    pub sync: bool,
    /// Whether the index may be written.
    pub index_access: IndexAccess,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            index_dir: None,
            access: Access::pread(),
            kernel: Kernel::detect(),
            validate: None,
            sync: true,
            index_access: IndexAccess::ReadWrite,
        }
    }
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
    /// (The binary installs a guard against faults of mapped reads instead, and needs no such promise.)
    pub unsafe fn open_mapped(root: impl AsRef<Path>) -> Result<Store, IndexError> {
        // SAFETY: the caller makes the promise that the constructor requires.
        let access = unsafe { Access::mapped() };
        Store::open_with(root, StoreOptions { access, ..StoreOptions::default() })
    }

    /// Opens a store with `options`.
    ///
    /// # Errors
    /// When the path is no directory, cannot be read, or is a directory under construction.
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

    /// Directory of the store, as it was given.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of the index, whether it exists or not.
    pub fn index_dir(&self) -> PathBuf {
        self.options.index_dir.clone().unwrap_or_else(|| self.root.join(".outpour"))
    }

    /// The options that the store was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }
}
