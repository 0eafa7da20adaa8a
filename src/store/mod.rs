//! A store: a directory of NDJSON files, plain, compressed or packed, and the options to open it with.
//!
//! `walk` finds the files, `packed` reads packed ones, `paths` checks output directories. Methods that use the index
//! are in [`index::open_store`](crate::index::open_store). Nothing here knows requests or output files. The one unsafe
//! function, [`Store::open_mapped`], stands here because the promise that it needs is that of who opens the store.

pub(crate) mod choices;
pub(crate) mod file_name;
pub(crate) mod ignore_file;
pub(crate) mod packed;
pub(crate) mod paths;
pub(crate) mod source_files;
pub(crate) mod walk;
pub(crate) mod walked_file;

use crate::codec::compression::UnprovenPolicy;
use crate::error::IndexError;
use crate::extract::Validate;
use crate::extract::rules::LoneSurrogates;
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::id::IdRule;
use crate::fhir::reference::PatientReferences;
use crate::fhir::search::parameter::ParameterName;
use crate::limits::HELD_FILES_MAX;
use crate::simd::Kernel;
use crate::store::choices::RowChoices;
use crate::sys::access::Access;
use crate::sys::atomic_dir::PARTIAL_SUFFIX;
use crate::sys::durability::FileSync;
use std::path::{Path, PathBuf};

/// Whether the index of a store is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IndexAccess {
    /// The index is brought up to date and repaired, and records the snapshots that are taken.
    #[default]
    ReadWrite,
    /// Nothing is written and no directory is made: missing parts of the index are made in memory, and dropped with the
    /// objects that use them.
    ReadOnly,
}

/// Options to open a store with.
///
/// ```
/// # use outpour::{Store, StoreOptions, Validate};
/// # let (dir, elsewhere) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// let options = StoreOptions::default().index_dir(elsewhere.path()).validate(Validate::Structure);
/// let store = Store::open_with(dir.path(), options)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Directory of the index; `None` for `.outpour` in the store.
    pub(crate) index_dir: Option<PathBuf>,
    /// Whether store files are read or mapped.
    pub(crate) access: Access,
    /// Scanner kernel to extract lines with.
    pub(crate) kernel: Kernel,
    /// How the store is read.
    pub(crate) choices: RowChoices,
    /// Whether an index that was made with other choices is made again.
    pub(crate) remake: bool,
    /// Whether the times of a snapshot are synced to disk before the snapshot is returned. Without, a loss of power may
    /// lose those of the last snapshots, and an export since an earlier one then takes some rows again.
    pub(crate) sync: bool,
    /// Whether the index may be written.
    pub(crate) index_access: IndexAccess,
    /// Percent of the resources of the last snapshot that may be gone without a deletion.
    pub(crate) allow_missing: f64,
    /// Whether small segments of the index are joined.
    pub(crate) compaction: bool,
    /// Which search columns the index may get because a filter asks for them.
    pub(crate) search_columns: SearchColumnOptions,
    /// Most files of the store that one opened index holds open; the process as a whole may hold fewer.
    pub(crate) held_files_max: usize,
}

/// Which search columns an index may get because a filter of an export asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SearchColumnOptions {
    /// These, and those that the index lists itself: wherever a row is asked for.
    pub listed: Vec<ParameterName>,
    /// So many others: where much would be read anyway. Those that were not used for longest are dropped.
    pub others_max: usize,
    /// None while so much of the disk is used, in hundredths.
    pub disk_high_water: u8,
}

impl Default for SearchColumnOptions {
    fn default() -> SearchColumnOptions {
        SearchColumnOptions { listed: Vec::new(), others_max: 16, disk_high_water: 95 }
    }
}

/// Percent of the resources of the last snapshot that may be gone unless more is allowed (reading 26).
pub(crate) const ALLOW_MISSING_DEFAULT: f64 = 10.0;

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            index_dir: None,
            access: Access::pread(),
            kernel: Kernel::detect(),
            choices: RowChoices::default(),
            remake: false,
            sync: true,
            index_access: IndexAccess::ReadWrite,
            allow_missing: ALLOW_MISSING_DEFAULT,
            compaction: true,
            search_columns: SearchColumnOptions::default(),
            held_files_max: HELD_FILES_MAX,
        }
    }
}

impl StoreOptions {
    /// Where the index lies, which is made if it is not there; `.outpour` in the store unless given.
    pub fn index_dir(self, directory: impl Into<PathBuf>) -> StoreOptions {
        StoreOptions { index_dir: Some(directory.into()), ..self }
    }

    /// What a scan checks; what the index was made with unless given, [`Validate::Full`] for a new one. A choice that
    /// differs from an index is an error ([`IndexError::OtherChoices`]), here and below, unless it is made again
    /// ([`StoreOptions::remake`]).
    pub fn validate(mut self, validate: Validate) -> StoreOptions {
        self.choices.validate = Some(validate);
        self
    }

    /// What becomes of rows of compressed files that are not proven; what the index was made with unless given,
    /// [`UnprovenPolicy::Fault`] for a new one.
    pub fn unproven(mut self, unproven: UnprovenPolicy) -> StoreOptions {
        self.choices.unproven = Some(unproven);
        self
    }

    /// Which ids are legal; what the index was made with unless given, [`IdRule::Any`] for a new one.
    pub fn ids(mut self, ids: IdRule) -> StoreOptions {
        self.choices.ids = Some(ids);
        self
    }

    /// What becomes of lines with halves of surrogate pairs; what the index was made with unless given,
    /// [`LoneSurrogates::Fault`] for a new one.
    pub fn lone_surrogates(mut self, lone_surrogates: LoneSurrogates) -> StoreOptions {
        self.choices.lone_surrogates = Some(lone_surrogates);
        self
    }

    /// Which Patient references are followed; what the index was made with unless given, [`PatientReferences::Strict`]
    /// for a new one.
    pub fn patient_references(mut self, patient_references: PatientReferences) -> StoreOptions {
        self.choices.patient_references = Some(patient_references);
        self
    }

    /// Which paths of a resource make a patient its owner; what the index was made with unless given,
    /// [`CompartmentPaths::R4`] for a new one.
    pub fn compartment_paths(mut self, paths: CompartmentPaths) -> StoreOptions {
        self.choices.compartment_paths = Some(paths);
        self
    }

    /// Whether symbolic links in the store are followed, also to files and directories outside of it; what the index was
    /// made with unless given, not so for a new one.
    pub fn follow_symlinks(mut self, follow: bool) -> StoreOptions {
        self.choices.follow_symlinks = Some(follow);
        self
    }

    /// Whether an index that was made with other choices, or by a version without them, is made again, by those that are
    /// given and the defaults. What it remembers of snapshots is kept. Not so unless given.
    pub fn remake(self, remake: bool) -> StoreOptions {
        StoreOptions { remake, ..self }
    }

    /// Whether what the index remembers of a snapshot is on the disk before the snapshot is given; so unless given. Without,
    /// a loss of power may cost the memory of the last snapshots, and an export since an earlier one then takes some rows
    /// again.
    pub fn sync(self, sync: FileSync) -> StoreOptions {
        StoreOptions { sync: sync == FileSync::Yes, ..self }
    }

    /// How many percent of the resources of the last snapshot may be gone from the store without a deletion; 10 unless
    /// given. More is an error that leaves the index as it was: the store may not be mounted.
    pub fn allow_missing(self, percent: f64) -> StoreOptions {
        StoreOptions { allow_missing: percent, ..self }
    }

    /// The index is read and not written, its directory not made: what it lacks is made in memory, and is gone with what was
    /// made from it.
    pub fn read_only(self) -> StoreOptions {
        StoreOptions { index_access: IndexAccess::ReadOnly, ..self }
    }

    /// Search columns that the index may get because a filter of an export asks for them, at most; those that were not used for
    /// longest are dropped for others. 16 unless given; with 0 none are made then.
    pub fn search_columns(mut self, at_most: usize) -> StoreOptions {
        self.search_columns.others_max = at_most;
        self
    }

    /// Whether a refresh joins small segments of the index; so unless given. For tests that compare both.
    #[doc(hidden)]
    pub fn compaction(self, compaction: bool) -> StoreOptions {
        StoreOptions { compaction, ..self }
    }

    /// How store files are read; by `pread` unless given. For benches; [`Store::open_mapped`] maps them.
    #[doc(hidden)]
    pub fn access(self, access: Access) -> StoreOptions {
        StoreOptions { access, ..self }
    }
}

/// A store directory. Opening it reads nothing but the directory's entry; see [`Store::snapshot`].
///
/// ```
/// use outpour::{Instant, Store};
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

    /// The same store, whose index is read and not written; see [`StoreOptions::read_only`].
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

    /// The same store, whose index may get these search columns.
    pub(crate) fn with_search_columns(mut self, search_columns: SearchColumnOptions) -> Store {
        self.options.search_columns = search_columns;
        self
    }

    /// The options that the store was opened with.
    pub(crate) fn options(&self) -> &StoreOptions {
        &self.options
    }
}
