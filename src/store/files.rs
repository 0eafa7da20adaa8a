//! The data files of a store as one walk found them: opened when something is first read from them.
//!
//! A walk takes size and times of every file, and for most questions that is all. What was found and what was opened
//! may differ when somebody was quicker; whoever reads compares [`Files::stamp`] with what its index was made from.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::Store;
use super::walk::{Walk, walk};
use crate::bytes::decode::Coding;
use crate::bytes::source::{Access, Source, SourceError, Stamp};
use crate::error::IndexError;

/// The files of a store.
pub struct Files {
    root: PathBuf,
    access: Access,
    walked: Walk,
    open: Vec<OnceLock<Source>>,
}

impl Files {
    /// Walks the store.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn find(store: &Store) -> Result<Files, IndexError> {
        let walked = walk(store.root()).map_err(|(path, source)| IndexError::Read { path, source })?;
        let open = walked.files.iter().map(|_| OnceLock::new()).collect();
        Ok(Files { root: store.root().to_path_buf(), access: store.options().access, walked, open })
    }

    /// Number of files.
    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// Path of a file, relative to the store.
    pub fn name(&self, file: usize) -> &str {
        &self.walked.files[file].name
    }

    /// How a file is coded.
    pub fn coding(&self, file: usize) -> Coding {
        self.walked.files[file].coding
    }

    /// The number of the file of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.walked.files.binary_search_by(|found| found.name.as_bytes().cmp(name.as_bytes())).ok()
    }

    /// Size and times of a file: when it was opened if it was, else when it was found.
    pub fn stamp(&self, file: usize) -> Stamp {
        self.open[file].get().map_or(self.walked.files[file].stamp, Source::stamp)
    }

    /// A file, opened now if it was not yet.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn source(&self, file: usize) -> Result<&Source, SourceError> {
        if let Some(source) = self.open[file].get() {
            return Ok(source);
        }
        let source = Source::open(self.root.join(self.name(file)), self.access)?;
        // Another thread may have been quicker; then its source is the one.
        Ok(self.open[file].get_or_init(|| source))
    }

    /// The files that have been opened.
    pub fn opened(&self) -> impl Iterator<Item = (usize, &Source)> {
        self.open.iter().enumerate().filter_map(|(file, open)| open.get().map(|source| (file, source)))
    }

    /// Relative paths that the walk passed by.
    pub fn ignored(&self) -> &[String] {
        &self.walked.ignored
    }
}
