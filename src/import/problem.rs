//! What keeps a source, or a part of it, from being taken: problems of the data with their places, and errors of the
//! machine.
//!
//! A problem tells where it stands and why, and none of the content.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::codec::decoder::DecodeError;
use crate::error::{ExportError, IndexError};
use crate::limits::IMPORT_PROBLEMS_TOLD_MAX;
use crate::sys::atomic_dir::AtomicDirError;
use crate::sys::store_file::StoreFileError;

/// A part of a source that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ImportProblem {
    /// The file.
    pub source: String,
    /// Number of the line, of the element of an array or of the document in the file, from 1; `None` if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<u64>,
    /// Number of the entry in its Bundle, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// Offset in the uncompressed file, in bytes.
    pub offset: u64,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl std::fmt::Display for ImportProblem {
    /// Writes the place and the reason.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.source)?;
        if let Some(document) = self.document {
            write!(f, "line or element {document}, ")?;
        }
        if let Some(entry) = self.entry {
            write!(f, "entry {entry}, ")?;
        }
        write!(f, "byte {}: {}", self.offset, self.reason)
    }
}

/// The problems of a source: the first ones, and the number of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProblemLog {
    /// The first ones, in their order.
    pub first: Vec<ImportProblem>,
    /// How many there are.
    pub count: u64,
}

impl ProblemLog {
    /// Adds a problem.
    pub(crate) fn push(&mut self, problem: ImportProblem) {
        self.count += 1;
        if self.first.len() < IMPORT_PROBLEMS_TOLD_MAX {
            self.first.push(problem);
        }
    }

    /// Adds the problems of another log behind its own.
    pub(crate) fn append(&mut self, other: ProblemLog) {
        let count = self.count + other.count;
        other.first.into_iter().for_each(|problem| self.push(problem));
        self.count = count;
    }
}

/// Why an import ended without having looked at all its sources.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// The store directory cannot be used.
    #[error("the store {} {reason}", path.display())]
    Store {
        /// Its path.
        path: PathBuf,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A source or a directory of sources cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A source failed while it was read.
    #[error(transparent)]
    Source(#[from] StoreFileError),
    /// A compressed source is damaged or cut off.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A file of the store cannot be written.
    #[error("cannot write {}: {source}; make room, or make the store writable, then import again", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The directory of a source cannot be built or published.
    #[error(transparent)]
    Directory(#[from] AtomicDirError),
    /// The index of the store cannot be used to find what a condition names.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A row of the store cannot be read.
    #[error(transparent)]
    Rows(#[from] ExportError),
    /// Somebody stopped it.
    #[error("stopped; what is imported stays, and the same command takes the rest")]
    Cancelled,
}

impl ImportError {
    /// The error of a file that cannot be read.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> ImportError {
        |source| ImportError::Read { path: path.to_path_buf(), source }
    }

    /// The error of a file that cannot be written.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> ImportError {
        |source| ImportError::Write { path: path.to_path_buf(), source }
    }
}
