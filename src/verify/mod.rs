//! Second opinions: an export against its manifest, an index against the bytes it was made from, a ledger against the
//! store.
//!
//! What is read here is read by other means than those that wrote it, wherever there are any: simd-json and serde_json
//! instead of the scanner, obvious counting instead of the index. Nothing is written, printed or decided: a report says
//! what was found, and the caller says so with its exit code.
//!
//! [`target`] tells what a directory is. [`export`] reads an export directory alone. [`store`] holds an index against its store. [`ledger`] recounts an
//! export's ledger from the store's bytes, by the record in its directory.

pub(crate) mod export;
pub(crate) mod index;
pub(crate) mod json_oracle;
pub(crate) mod json_tree;
pub(crate) mod ledger;
pub(crate) mod line_counts;
pub(crate) mod line_reader;
pub(crate) mod manifest;
pub(crate) mod members;
pub(crate) mod mismatch;
pub(crate) mod oracle_line;
pub(crate) mod output_file;
pub(crate) mod packed;
pub(crate) mod prior_owners;
pub(crate) mod recount;
pub(crate) mod request;
pub(crate) mod segment;
pub(crate) mod segment_lines;
pub(crate) mod target;
pub(crate) mod version_history;

use std::io;
use std::path::PathBuf;

use crate::error::{CorruptIndex, IndexError};
use crate::sys::store_file::StoreFileError;

/// A verification cannot be made. That something is not as stated is no error but a report's content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// The directory is no export.
    #[error("{} {reason}", path.display())]
    NoExport {
        /// The directory.
        path: PathBuf,
        /// Why it is none, and what to do.
        reason: &'static str,
    },
    /// The directory is nothing that can be verified.
    #[error("{} {found}", path.display())]
    Neither {
        /// The directory.
        path: PathBuf,
        /// What was looked for, or what it is instead.
        found: String,
    },
    /// The record of the export does not say what is needed.
    #[error("the record {} {reason}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is missing, and what to do.
        reason: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}; check that it is there and may be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The caller asked to stop.
    #[error("stopped on request")]
    Cancelled,
}

impl From<CorruptIndex> for VerifyError {
    fn from(damaged: CorruptIndex) -> VerifyError {
        IndexError::from(damaged).into()
    }
}

impl From<StoreFileError> for VerifyError {
    fn from(error: StoreFileError) -> VerifyError {
        VerifyError::Index(IndexError::Source(error))
    }
}

impl VerifyError {
    /// Exit code of the command line: 2 the request was wrong, 3 it cannot be read, 130 interrupted.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            VerifyError::NoExport { .. } | VerifyError::Neither { .. } | VerifyError::Record { .. } => 2,
            VerifyError::Index(IndexError::NoStore { .. }) => 2,
            VerifyError::Index(IndexError::Cancelled) | VerifyError::Cancelled => 130,
            VerifyError::Read { .. } | VerifyError::Index(_) => 3,
        }
    }
}
