//! What can go wrong, one enum per operation; every variant says where.
//!
//! A bad row is no error: it is a fault and goes to the `error` files. `Display` gives this level and what to do;
//! `source()` holds the cause.

use std::io;
use std::path::PathBuf;

use crate::codec::decoder::DecodeError;
use crate::issue::{Advice, PLAIN_NAMES, Parameter, ParameterNames};
use crate::sys::atomic_dir::AtomicDirError;
use crate::sys::store_file::StoreFileError;

/// A store cannot be opened or indexed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The store directory is not there or no directory.
    #[error("the store {} {reason}; give the directory that holds the .ndjson files with --store", path.display())]
    NoStore {
        /// The path that was given.
        path: PathBuf,
        /// Why it is none.
        reason: &'static str,
    },
    /// A directory or file of the store cannot be read.
    #[error("cannot read {}: {source}; an export must see the whole store, so give read permission or move it away", path.display())]
    Read {
        /// The directory or file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A store file failed while it was read.
    #[error(transparent)]
    Source(#[from] StoreFileError),
    /// The index cannot be written.
    #[error("cannot write the index file {name}: {source}; make room, or choose another place with --index-dir")]
    Write {
        /// Name in the index directory.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// A freshly written index file does not read back.
    #[error("the index file {name} does not read back: {reason}; check the disk that holds the index")]
    ReadBack {
        /// Name in the index directory.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The index is not as it was written.
    #[error(
        "the index is damaged: {reason}; run `outpour index --recheck` on the store, which repairs it, and check the disk that holds it"
    )]
    Damaged {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A store file is not what the snapshot was taken of.
    #[error("the store file {} {reason}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What happened, and what to do.
        reason: String,
    },
    /// More rows than a generation can number.
    #[error("the store holds more than {max} lines, which is this format's bound; split it into several stores")]
    TooManyRows {
        /// The bound.
        max: u64,
    },
    /// The caller asked to stop.
    #[error("stopped on request")]
    Cancelled,
    /// A worker stopped because another failed.
    #[error("stopped because another part failed")]
    Stopped,
}

impl From<CorruptIndex> for IndexError {
    fn from(damaged: CorruptIndex) -> IndexError {
        IndexError::Damaged { reason: damaged.0 }
    }
}

impl From<CorruptIndex> for ExportError {
    fn from(damaged: CorruptIndex) -> ExportError {
        IndexError::from(damaged).into()
    }
}

/// One thing that is wrong with a request. Doors print it by [`RequestProblem::say`] in their own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestProblem {
    /// The parameter that is wrong, if it is a single one.
    pub parameter: Option<Parameter>,
    /// What is wrong with it, and what to do.
    pub text: String,
    /// What follows the text.
    pub advice: Option<Advice>,
}

impl RequestProblem {
    /// A problem with a parameter.
    pub fn of(parameter: Parameter, text: impl Into<String>) -> RequestProblem {
        RequestProblem { parameter: Some(parameter), text: text.into(), advice: None }
    }

    /// The same, with what can be done.
    pub fn advise(self, advice: Advice) -> RequestProblem {
        RequestProblem { advice: Some(advice), ..self }
    }

    /// The sentence that a door prints.
    pub fn say(&self, words: &ParameterNames) -> String {
        let parameter = self.parameter.map_or(String::new(), |parameter| format!("{}: ", (words.parameter)(parameter)));
        let advice = self.advice.as_ref().and_then(words.advice).unwrap_or_default();
        format!("{parameter}{}{advice}", self.text)
    }
}

impl<T: Into<String>> From<T> for RequestProblem {
    fn from(text: T) -> RequestProblem {
        RequestProblem { parameter: None, text: text.into(), advice: None }
    }
}

/// A request that cannot be carried out as it stands: every problem at once. `Display` speaks in [`PLAIN_NAMES`].
#[derive(Debug, thiserror::Error)]
#[error("{}", self.say(&PLAIN_NAMES).join("\n"))]
pub struct RequestError {
    /// What is wrong, one or more.
    pub problems: Vec<RequestProblem>,
}

impl RequestError {
    /// A request with one problem.
    pub fn one(problem: impl Into<RequestProblem>) -> RequestError {
        RequestError { problems: vec![problem.into()] }
    }

    /// One sentence a problem, as a door prints them.
    pub fn say(&self, words: &ParameterNames) -> Vec<String> {
        self.problems.iter().map(|problem| problem.say(words)).collect()
    }
}

/// An export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The request was wrong.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The store failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The output directory cannot be used.
    #[error(transparent)]
    Record(#[from] crate::error::JournalError),
    /// An output file cannot be written.
    #[error("cannot write {name} in {}: {source}; make room, then run the same command with --resume", directory.display())]
    Write {
        /// The output directory.
        directory: PathBuf,
        /// Name of the file.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// A Group cannot be stored.
    #[error("cannot write {}: {source}; make room, or make the store writable, then import again", path.display())]
    Import {
        /// Its file in the store.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A row's bytes are not where the index says.
    #[error("{} no longer holds a resource at byte {offset}: it was changed in place while it was read; replace store files by rename, then export again", path.display())]
    Torn {
        /// The store file.
        path: PathBuf,
        /// Offset in the (uncompressed) file.
        offset: u64,
    },
    /// A compressed store file cannot be decoded as it could when it was indexed.
    #[error(transparent)]
    Decode(DecodeError),
    /// A frame of a packed file is not what it was when it was indexed.
    #[error(
        "{} is damaged: the frame at byte {offset} cannot be used ({reason}); put the file back from a copy, then export again",
        path.display()
    )]
    Frame {
        /// The store file.
        path: PathBuf,
        /// Offset of the frame in the file.
        offset: u64,
        /// What was noticed.
        reason: String,
    },
    /// The record of an interrupted run belongs to another request.
    #[error(
        "cannot resume: {field} differs ({recorded} then, {given} now); repeat the first command with --resume, or begin anew with --force"
    )]
    Differs {
        /// The field of the request.
        field: String,
        /// Its value in the record.
        recorded: String,
        /// Its value now.
        given: String,
    },
    /// More faults than the caller allows.
    #[error(
        "{faults} of {lines} lines are faulty, which is more than --faults-allowed {allowed} permits; see `outpour verify` for where they are. Nothing was published"
    )]
    Faults {
        /// Faulty lines in the exported scope.
        faults: u64,
        /// Lines in it.
        lines: u64,
        /// The limit as given.
        allowed: String,
    },
    /// The caller asked to stop.
    #[error("stopped on request; run the same command with --resume to go on")]
    Cancelled,
}

/// A store cannot be packed. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// The new directory cannot be one.
    #[error("--to: {} {reason}; give a directory that is not there yet, or an empty one", path.display())]
    Target {
        /// As it was given.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// The new directory would lie in the store.
    #[error(
        "--to: {} lies inside the store {}, where the next command would read it as input; choose a directory outside",
        to.display(),
        store.display()
    )]
    Inside {
        /// As it was given.
        to: PathBuf,
        /// The store.
        store: PathBuf,
    },
    /// The store failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A row's bytes are not where the index says.
    #[error("{} no longer holds a resource at byte {offset}: it was changed in place while it was read; replace store files by rename, then pack again", path.display())]
    Torn {
        /// The store file.
        path: PathBuf,
        /// Offset in the (uncompressed) file.
        offset: u64,
    },
    /// A file of the new directory cannot be written.
    #[error("cannot write {}: {source}; make room, then pack again", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The zstd library failed.
    #[error("zstd cannot compress: {0}; free some memory, or choose a lower --level")]
    Code(String),
}

impl PackError {
    /// A failure of the zstd library.
    pub(crate) fn code(error: &io::Error) -> PackError {
        PackError::Code(error.to_string())
    }

    /// A failure of a decoder before its first piece.
    pub(crate) fn decode(error: DecodeError) -> PackError {
        match error {
            DecodeError::Source(error) => error.into(),
            other => PackError::Code(other.to_string()),
        }
    }
}

impl From<AtomicDirError> for PackError {
    fn from(error: AtomicDirError) -> PackError {
        match error {
            AtomicDirError::Target { path, reason } => PackError::Target { path, reason },
            AtomicDirError::Write { path, source } => PackError::Write { path, source },
        }
    }
}

impl From<CorruptIndex> for PackError {
    fn from(damaged: CorruptIndex) -> PackError {
        IndexError::from(damaged).into()
    }
}

impl From<StoreFileError> for PackError {
    fn from(error: StoreFileError) -> PackError {
        PackError::Index(IndexError::Source(error))
    }
}

impl From<DecodeError> for ExportError {
    fn from(error: DecodeError) -> ExportError {
        match error {
            DecodeError::Source(error) => error.into(),
            other => ExportError::Decode(other),
        }
    }
}

impl From<StoreFileError> for ExportError {
    fn from(error: StoreFileError) -> ExportError {
        ExportError::Index(IndexError::Source(error))
    }
}

/// An output directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("cannot use {}: {source}; choose another directory with --out, or make it writable", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another export runs into it.
    #[error("another export is running into {}; wait for it, or choose another directory with --out", path.display())]
    Busy {
        /// The output directory.
        path: PathBuf,
    },
    /// It holds something already.
    #[error("the output directory {} {holds}", path.display())]
    NotEmpty {
        /// The output directory.
        path: PathBuf,
        /// What it holds, and what to do.
        holds: String,
    },
    /// Its record cannot be read.
    #[error("the record {} cannot be read ({reason}); begin anew with --force", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A foreign file stands where an output file would go.
    #[error("{} is not of outpour's making but has the name of an output file; move it away, or choose another directory with --out", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

/// A part of an index file is not what was written: what is wrong, as a sentence. The cure is always the same: the
/// whole index is checked, what is damaged is made again from the store, and the question is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptIndex(pub &'static str);
