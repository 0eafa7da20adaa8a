//! Why a task or a commit failed, by what whoever started it should do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::codec::decoder::DecodeError;
use crate::error::{ExportError, IndexError, JournalError};
use crate::spans::span_sources::SpanSourceError;
use crate::sys::store_file::StoreFileError;
use crate::sys::unsynced_entry::os_error;

/// Why a task or a commit failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// The plan, a record or what was asked for is wrong: another run of the same fails, too.
    #[error("{0}")]
    Refused(String),
    /// The store is not what it was when the plan was made.
    #[error("{0}")]
    Drifted(String),
    /// Two attempts of a task, or two commits, have written different things.
    #[error("{0}")]
    Differs(String),
    /// The system permits it not.
    #[error("cannot use {}: {source}; give the account of the task this permission", path.display())]
    NotPermitted {
        /// What was touched.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Reading or writing failed, and may succeed another time.
    #[error("cannot use {}: {source}; see that it is there and has room, then run it once more", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Tasks that have not ended.
    #[error("{} of {tasks} tasks {}: {}; run them, then commit once more", missing.len(), verb(missing.len()), list(missing))]
    Missing {
        /// Their numbers, ascending.
        missing: Vec<usize>,
        /// Number of all tasks.
        tasks: usize,
    },
    /// The index of the store refuses it.
    #[error(transparent)]
    Index(IndexError),
    /// It was interrupted.
    #[error("interrupted; nothing of this run counts, run it once more")]
    Cancelled,
}

/// "has" or "have", for so many tasks.
fn verb(count: usize) -> &'static str {
    if count == 1 { "has not ended" } else { "have not ended" }
}

/// The first of some numbers, as text.
fn list(numbers: &[usize]) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<String> = numbers.iter().take(SHOWN).map(usize::to_string).collect();
    let more = if numbers.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

impl JobError {
    /// The error of what could not be read or written.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> JobError {
        use io::ErrorKind::{FileTooLarge, InvalidInput, PermissionDenied, ReadOnlyFilesystem};
        let path = path.into();
        match source.kind() {
            // Not the system's errors, but ours: something that is no file, or not of this size, has the name of one.
            InvalidInput | FileTooLarge if os_error(&source).is_none() => JobError::Refused(format!(
                "{} is not of a job's making: {source}; plan anew in another directory",
                path.display()
            )),
            PermissionDenied | ReadOnlyFilesystem => JobError::NotPermitted { path, source },
            _ => JobError::Io { path, source },
        }
    }

    /// The error of a record, or of a plan, that cannot be used.
    pub(crate) fn damaged(path: &Path, reason: &str) -> JobError {
        JobError::Refused(format!("{} cannot be used: {reason}", path.display()))
    }
}

impl From<StoreFileError> for JobError {
    fn from(error: StoreFileError) -> JobError {
        let text = || format!("{error}: the store is not what it was when the plan was made; make a new plan");
        match error {
            StoreFileError::Open { ref source, .. } if source.kind() == io::ErrorKind::NotFound => {
                JobError::Drifted(text())
            }
            StoreFileError::Open { path, source }
            | StoreFileError::Read { path, source, .. }
            | StoreFileError::TooManyOpen { path, source, .. } => JobError::io(path, source),
            StoreFileError::Replaced { .. }
            | StoreFileError::NotAFile { .. }
            | StoreFileError::Truncated { .. }
            | StoreFileError::Faulted { .. }
            | StoreFileError::Beyond { .. } => JobError::Drifted(text()),
        }
    }
}

impl From<SpanSourceError> for JobError {
    fn from(error: SpanSourceError) -> JobError {
        match error {
            SpanSourceError::Open(error) => error.into(),
            SpanSourceError::Disagree { .. } => JobError::Refused(error.to_string()),
            SpanSourceError::Changed { .. } => JobError::Drifted(error.to_string()),
        }
    }
}

impl From<JournalError> for JobError {
    fn from(error: JournalError) -> JobError {
        match error {
            JournalError::Io { path, source } => JobError::io(path, source),
            other => JobError::Refused(other.to_string()),
        }
    }
}

impl From<IndexError> for JobError {
    fn from(error: IndexError) -> JobError {
        match error {
            IndexError::Cancelled => JobError::Cancelled,
            IndexError::Source(error) => error.into(),
            IndexError::Read { path, source } => JobError::io(path, source),
            IndexError::Write { name, source } | IndexError::ReadIndex { name, source } => JobError::io(name, source),
            IndexError::Changed { .. } | IndexError::NoDataFiles { .. } => JobError::Drifted(error.to_string()),
            other => JobError::Index(other),
        }
    }
}

impl From<ExportError> for JobError {
    fn from(error: ExportError) -> JobError {
        match error {
            ExportError::Cancelled => JobError::Cancelled,
            ExportError::Record(error) => error.into(),
            ExportError::Index(IndexError::Source(error)) | ExportError::Decode(DecodeError::Source(error)) => {
                error.into()
            }
            ExportError::Write { directory, name, source } => JobError::io(directory.join(name), source),
            ExportError::Index(IndexError::Damaged(_)) => JobError::Drifted(
                "the rows of the spans do not come to what was planned: the store or the spans have changed; make a new plan".into(),
            ),
            // Rows that are not where the plan has them.
            other => JobError::Drifted(format!("{other}; or make a new plan")),
        }
    }
}
