//! Verification: an export against its manifest, an index against the bytes it was made from, a ledger against the
//! store.
//!
//! Wherever possible, bytes are read by other means than those that wrote them: simd-json and serde_json instead of the
//! scanner, plain counting instead of the index. Nothing is written, printed or decided here: a report lists what was
//! found, and the caller turns it into an exit code.
//!
//! [`target`] classifies a directory. [`export`] reads an export directory alone. [`index`] compares an index with its
//! store. [`ledger`] recounts an export's ledger from the store's bytes, by the record in its directory.

pub(crate) mod applied;
pub(crate) mod chain;
pub(crate) mod context;
pub(crate) mod context_facts;
pub(crate) mod export;
pub(crate) mod exported_line;
pub(crate) mod index;
pub(crate) mod json_oracle;
pub(crate) mod json_tree;
pub(crate) mod ledger;
pub(crate) mod line_counts;
pub(crate) mod line_reader;
pub(crate) mod manifest;
pub(crate) mod member_filters;
pub(crate) mod members;
pub(crate) mod mismatch;
pub(crate) mod oracle_line;
pub(crate) mod output_file;
pub(crate) mod packed;
pub(crate) mod prior_owners;
pub(crate) mod recount;
pub(crate) mod reduced_line;
pub(crate) mod request;
pub(crate) mod rewritten_line;
pub(crate) mod row_references;
pub(crate) mod search_columns;
pub(crate) mod segment;
pub(crate) mod segment_lines;
pub(crate) mod target;
pub(crate) mod told_deletions;
pub(crate) mod version_history;

use std::io;
use std::path::PathBuf;

use crate::error::{CorruptIndex, IndexError};
use crate::sys::store_file::StoreFileError;

/// A verification cannot be made. A mismatch is no error; it is part of the report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// The directory is no export.
    #[error("{} {reason}", path.display())]
    NoExport {
        /// Path of the directory.
        path: PathBuf,
        /// Why it is no export, and what to do.
        reason: &'static str,
    },
    /// The directory is nothing that can be verified.
    #[error("{} {found}", path.display())]
    Neither {
        /// Path of the directory.
        path: PathBuf,
        /// The things that were looked for, or what the directory is instead.
        found: String,
    },
    /// The record of the export lacks something that the verification needs.
    #[error("the record {} {reason}", path.display())]
    Record {
        /// Path of the record.
        path: PathBuf,
        /// The missing thing, and what to do.
        reason: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}; check that it is there and may be read", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The store or its index cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The caller cancelled the verification.
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
    /// Exit code of the command line: 2 if the request was wrong, 3 if something cannot be read, 130 if interrupted.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            VerifyError::NoExport { .. } | VerifyError::Neither { .. } | VerifyError::Record { .. } => 2,
            VerifyError::Index(
                IndexError::NoStore { .. }
                | IndexError::ForeignIndex { .. }
                | IndexError::NoDataFiles { .. }
                | IndexError::IgnoreFile(..)
                | IndexError::OtherChoices { .. },
            ) => 2,
            VerifyError::Index(IndexError::Cancelled) | VerifyError::Cancelled => 130,
            VerifyError::Read { .. } | VerifyError::Index(_) => 3,
        }
    }
}
