//! The data files of a store as one walk found them: opened when something is first read from them.
//!
//! A walk takes size and times of every file, and for most questions that is all. What was found and what was opened
//! may differ when somebody was quicker; whoever reads compares [`StoreFiles::stamp`] with what its index was made from.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::codec::compression::Compression;
use crate::error::IndexError;
use crate::index::meta::{FileEntry, IndexMeta};
use crate::index::store_listing::StoreListing;
use crate::store::Store;
use crate::store::walk::{Walk, WalkedFile, walk};
use crate::sys::access::Access;
use crate::sys::store_file::{FileStamp, StoreFile, StoreFileError};

/// Walks a store.
///
/// # Errors
/// When a directory cannot be read.
pub(crate) fn walk_store(store: &Store) -> Result<Walk, IndexError> {
    walk(store.root()).map_err(|(path, source)| IndexError::Read { path, source })
}

/// The files of a store.
pub(crate) struct StoreFiles {
    root: PathBuf,
    access: Access,
    walked: Walk,
    /// Whether files end where the walk says, however long they are by now.
    truncated: bool,
    open: Vec<OnceLock<StoreFile>>,
}

impl StoreFiles {
    /// Walks the store.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub(crate) fn find(store: &Store) -> Result<StoreFiles, IndexError> {
        Ok(StoreFiles::of(store, walk_store(store)?, false))
    }

    /// As [`StoreFiles::find`], cut back to what a view saw; of what came later only what is indexed already is left.
    ///
    /// # Errors
    /// As [`StoreFiles::find`].
    pub(crate) fn find_within(
        store: &Store,
        listing: &StoreListing,
        known: Option<&IndexMeta>,
    ) -> Result<StoreFiles, IndexError> {
        let mut walked = walk_store(store)?;
        listing.truncate_to(&mut walked, known);
        Ok(StoreFiles::of(store, walked, true))
    }

    /// The files that a generation was made of, without a look at the store.
    pub(crate) fn known_to(store: &Store, meta: &IndexMeta) -> StoreFiles {
        let found = |entry: &FileEntry| WalkedFile {
            name: entry.name.clone(),
            compression: Compression::of_file_name(&entry.name).unwrap_or(Compression::None),
            stamp: entry.stamp,
        };
        let files = meta.files.iter().map(found).collect();
        StoreFiles::of(store, Walk { files, ignored: Vec::new() }, true)
    }

    fn of(store: &Store, walked: Walk, truncated: bool) -> StoreFiles {
        let open = walked.files.iter().map(|_| OnceLock::new()).collect();
        StoreFiles { root: store.root().to_path_buf(), access: store.options().access, walked, truncated, open }
    }

    /// Number of files.
    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    /// Path of a file, relative to the store.
    pub(crate) fn name(&self, file: usize) -> &str {
        &self.walked.files[file].name
    }

    /// How a file is coded.
    pub(crate) fn compression(&self, file: usize) -> Compression {
        self.walked.files[file].compression
    }

    /// The number of the file of this name.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.walked.files.binary_search_by(|found| found.name.as_bytes().cmp(name.as_bytes())).ok()
    }

    /// Size and times of a file: when it was opened if it was, else when it was found.
    pub(crate) fn stamp(&self, file: usize) -> FileStamp {
        self.open[file].get().map_or(self.walked.files[file].stamp, StoreFile::stamp)
    }

    /// A file, opened now if it was not yet.
    ///
    /// # Errors
    /// As [`StoreFile::open`].
    pub(crate) fn source(&self, file: usize) -> Result<&StoreFile, StoreFileError> {
        if let Some(source) = self.open[file].get() {
            return Ok(source);
        }
        let source = StoreFile::open(self.root.join(self.name(file)), self.access)?;
        let source = match self.compression(file) {
            // What was appended since the files were found is not there.
            Compression::None if self.truncated => source.up_to(self.walked.files[file].stamp.len),
            _ => source,
        };
        // Another thread may have been quicker; then its source is the one.
        Ok(self.open[file].get_or_init(|| source))
    }

    /// The files that have been opened.
    pub(crate) fn opened_files(&self) -> impl Iterator<Item = (usize, &StoreFile)> {
        self.open.iter().enumerate().filter_map(|(file, open)| open.get().map(|source| (file, source)))
    }

    /// Relative paths that the walk passed by.
    pub(crate) fn ignored_names(&self) -> &[String] {
        &self.walked.ignored
    }
}
