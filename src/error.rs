//! What can go wrong, one enum per operation; every variant says where.
//!
//! A bad row is no error: it is a fault and goes to the `error` files. `Display` says what happened, `source()` holds the
//! cause. No text here names a flag, a route or a header: what can be done stands at the variant, and a door that has
//! flags for it adds them.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::codec::decoder::DecodeError;
use crate::count_text::{counted, word_form};
use crate::issue::{Advice, PLAIN_NAMES, Parameter, ParameterNames};
use crate::sys::atomic_dir::AtomicDirError;
use crate::sys::process_limits::reached_limit;
use crate::sys::store_file::StoreFileError;

/// A store cannot be opened or indexed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The store directory is not there or no directory: it must be the one that holds the `.ndjson` files.
    #[error("the store {} {reason}", path.display())]
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
    /// The index cannot be written: it needs room, or another place
    /// ([`StoreOptions::index_dir`](crate::store::StoreOptions::index_dir)).
    #[error("cannot write the index file {name}: {source}")]
    Write {
        /// Name in the index directory.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// An index file is there and cannot be read: an error of the disk, too many open files, no permission. What it remembers
    /// is needed, so nothing is made again and nothing was changed; the same may succeed later.
    #[error("cannot read the index file {name}: {source}; nothing was changed")]
    ReadIndex {
        /// Name in the index directory.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// The index directory holds the index of another store, none of whose files is in this one: with it, what is
    /// remembered of that store would be lost. It needs an index directory of its own
    /// ([`StoreOptions::index_dir`](crate::store::StoreOptions::index_dir)).
    #[error(
        "the index in {} was made of the store {}, and none of its files is in {}",
        index.display(), recorded.display(), store.display()
    )]
    ForeignIndex {
        /// The index directory.
        index: PathBuf,
        /// The store that its index was made of.
        recorded: PathBuf,
        /// The store that was opened.
        store: PathBuf,
    },
    /// A freshly written index file does not read back.
    #[error("the index file {name} does not read back: {reason}; check the disk that holds the index")]
    ReadBack {
        /// Name in the index directory.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The index is not as it was written. [`export`](crate::export::export) repairs it by itself; who takes a snapshot and
    /// plans calls [`Store::verify_and_repair`](crate::store::Store::verify_and_repair), and looks at the disk that holds it.
    #[error("the index is damaged: {0}")]
    Damaged(CorruptIndex),
    /// A store file is not what the snapshot was taken of.
    #[error("the store file {} {reason}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What happened, and what to do.
        reason: String,
    },
    /// What the snapshot of an interrupted export was taken of cannot be found again: the export can only begin anew
    /// ([`Existing::Force`](crate::export::options::Existing::Force)).
    #[error("the store file {} {reason}", path.display())]
    SnapshotLost {
        /// The file; the store itself when the record names no moment.
        path: PathBuf,
        /// What happened to it.
        reason: &'static str,
        /// Whether the export can also go on once the file is put back.
        restorable: bool,
    },
    /// The store has no data file: it is not mounted, or the path is wrong.
    #[error(
        "the store {} holds no data file (.ndjson or .jsonl, with .gz or .zst or nothing behind it){others}: check that it is \
         mounted and that the path is right",
        path.display()
    )]
    NoDataFiles {
        /// The directory.
        path: PathBuf,
        /// What it holds instead, in words: the number and the first names of other files.
        others: String,
        /// How many of those are links ([`StoreOptions::follow_symlinks`](crate::store::StoreOptions::follow_symlinks)).
        links: u64,
    },
    /// The list of names to pass over in the store cannot be used: its path, and what is wrong. Without it more would be
    /// read than its author wants.
    #[error("{path}: {1}", path = .0.display())]
    IgnoreFile(PathBuf, String),
    /// The index was made with other choices than are given. It is as it was; one that is to be made again needs a word
    /// ([`StoreOptions::remake`](crate::store::StoreOptions::remake)).
    #[error("the index of this store was made with other choices: {}", other_choices(different))]
    OtherChoices {
        /// Option, value given, and value that stands, of each choice that differs.
        different: Vec<(&'static str, &'static str, &'static str)>,
    },
    /// More of the resources of the last snapshot are gone without a deletion than is allowed
    /// ([`StoreOptions::allow_missing`](crate::store::StoreOptions::allow_missing)). The index is as it was.
    #[error(
        "{gone} of {} of the last snapshot {} gone from the store without a deletion, more than {allowed} % ({files}): mount or \
         restore what is missing",
        counted(*present, "resource"), word_form(*gone, "is", "are")
    )]
    ResourcesMissing {
        /// Resources gone since the last snapshot.
        gone: u64,
        /// Current resources at the last snapshot.
        present: u64,
        /// Percent of them that may be gone.
        allowed: f64,
        /// The files that held most of them, with numbers.
        files: String,
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
        IndexError::Damaged(damaged)
    }
}

impl From<CorruptIndex> for ExportError {
    fn from(damaged: CorruptIndex) -> ExportError {
        IndexError::from(damaged).into()
    }
}

/// What kind of thing is wrong with a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// Its value cannot be used.
    #[default]
    Invalid,
    /// It names something that is not there.
    NotFound,
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestProblem {
    /// The parameter that is wrong, if it is a single one.
    pub parameter: Option<Parameter>,
    /// What is wrong with it, without its name.
    pub text: String,
    /// What follows the text.
    pub(crate) advice: Option<Advice>,
    /// What kind of thing it is.
    pub kind: ProblemKind,
}

impl RequestProblem {
    /// A problem with a parameter.
    pub fn of(parameter: Parameter, text: impl Into<String>) -> RequestProblem {
        RequestProblem { parameter: Some(parameter), ..RequestProblem::from(text) }
    }

    /// The same of something that is not there.
    pub(crate) fn not_found(self) -> RequestProblem {
        RequestProblem { kind: ProblemKind::NotFound, ..self }
    }

    /// The same, with what can be done.
    pub(crate) fn advise(self, advice: Advice) -> RequestProblem {
        RequestProblem { advice: Some(advice), ..self }
    }

    /// The sentence that a door prints.
    pub(crate) fn say(&self, words: &ParameterNames) -> String {
        let parameter = self.parameter.map_or(String::new(), |parameter| format!("{}: ", (words.parameter)(parameter)));
        let advice = self.advice.as_ref().and_then(words.advice).unwrap_or_default();
        format!("{parameter}{}{advice}", self.text)
    }
}

/// The sentence in plain names.
impl fmt::Display for RequestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.say(&PLAIN_NAMES))
    }
}

impl<T: Into<String>> From<T> for RequestProblem {
    fn from(text: T) -> RequestProblem {
        RequestProblem { parameter: None, text: text.into(), advice: None, kind: ProblemKind::Invalid }
    }
}

/// A request that cannot be carried out as it stands: every problem at once. `Display` speaks in plain names.
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
    pub(crate) fn say(&self, words: &ParameterNames) -> Vec<String> {
        self.problems.iter().map(|problem| problem.say(words)).collect()
    }
}

/// The choices that differ from an index's, in words.
fn other_choices(different: &[(&str, &str, &str)]) -> String {
    let one = |(option, given, stands): &(&str, &str, &str)| format!("{option} {stands}, and {given} is given");
    different.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The limit of the process that an error, or one of its causes, says was reached: its name and number, and how it is
/// raised.
pub(crate) fn limit_of(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|error| error.downcast_ref().and_then(reached_limit))
}

/// An export failed.
///
/// ```
/// use outpour::{ExportError, ExportRequest, Instant, Parameter, Store, plan};
/// # let dir = tempfile::tempdir()?;
/// # std::fs::write(dir.path().join("Patient.ndjson"), "")?;
/// let snapshot = Store::open(dir.path())?.snapshot("2026-01-01T00:00:00Z".parse::<Instant>()?)?;
/// let error = plan(&snapshot, &ExportRequest::group("ten")).unwrap_err();
/// assert!(error.is_missing_group());
/// let ExportError::Request(request) = error else { panic!("{error}") };
/// assert_eq!(request.problems[0].parameter, Some(Parameter::Group));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// An output file cannot be written. Once there is room, the same export can be resumed
    /// ([`Existing::Resume`](crate::export::options::Existing::Resume)).
    #[error("cannot write {name} in {}: {source}", directory.display())]
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
    /// A Group is stored, but the directory of its file cannot be synced.
    #[error(
        "{} stands complete, but its directory cannot be synced: {source}; only a loss of power can still undo it, so `sync` \
         before you rely on it, or import again",
        path.display()
    )]
    Unsynced {
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
    /// The record of an interrupted run belongs to another request: it is resumed with the first one, or the export begins
    /// anew ([`Existing::Force`](crate::export::options::Existing::Force)).
    #[error("cannot resume: {} differs ({recorded} then, {given} now)", parameter.map_or(field.as_str(), |parameter| parameter.name()))]
    Differs {
        /// The parameter that differs, if it is one.
        parameter: Option<Parameter>,
        /// The field of the record that differs.
        field: String,
        /// Its value in the record, or a word where it was not given.
        recorded: String,
        /// Its value now, or a word where it is not given.
        given: String,
    },
    /// More faults than the caller allows. Nothing was published.
    #[error(
        "{faults} of {} {} faulty, which is more than is allowed ({allowed}); nothing was published",
        counted(*lines, "line"), word_form(*faults, "is", "are")
    )]
    Faults {
        /// Faulty lines in the exported scope.
        faults: u64,
        /// Lines in it.
        lines: u64,
        /// The limit as given.
        allowed: String,
    },
    /// The caller asked to stop ([`Progress::cancel`](crate::progress::Progress::cancel)). The same export can be resumed.
    #[error("stopped on request")]
    Cancelled,
}

impl ExportError {
    /// Whether the caller asked to stop, whatever was being done then.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, ExportError::Cancelled | ExportError::Index(IndexError::Cancelled))
    }

    /// Whether the Group that was asked for is not in the store at the transactionTime.
    pub fn is_missing_group(&self) -> bool {
        let missing = |problem: &RequestProblem| {
            problem.parameter == Some(Parameter::Group) && problem.kind == ProblemKind::NotFound
        };
        matches!(self, ExportError::Request(request) if request.problems.iter().any(missing))
    }

    /// What is wrong with the index, if that is what stopped the export.
    pub fn corrupt_index(&self) -> Option<CorruptIndex> {
        match self {
            ExportError::Index(IndexError::Damaged(damaged)) => Some(*damaged),
            _ => None,
        }
    }
}

/// A store cannot be packed. Nothing is left behind, unless it is [`PackError::Unsynced`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// The new directory cannot be one.
    #[error("the new directory {} {reason}; give one that is not there yet, or an empty one", path.display())]
    Target {
        /// As it was given.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// The new directory would lie in the store.
    #[error(
        "the new directory {} lies inside the store {}, where the next command would read it as input; choose a directory outside",
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
    /// The new directory stands complete, but the directory above it cannot be synced.
    #[error(
        "{} stands complete, but the directory that holds it cannot be synced: {source}; only a loss of power can still undo \
         it, so do not pack again, but `sync` before you rely on it",
        path.display()
    )]
    Unsynced {
        /// The new directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The zstd library failed.
    #[error("zstd cannot compress: {0}; free some memory, or choose a lower level")]
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
            AtomicDirError::Unsynced { path, source } => PackError::Unsynced { path, source },
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

/// An output directory cannot be used. Another one can be chosen whatever the reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the fields say what the messages say
pub enum JournalError {
    /// It cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The export is published, but its directory cannot be synced: only a loss of power can still undo it. Resuming it
    /// ([`Existing::Resume`](crate::export::options::Existing::Resume)) syncs once more.
    #[error(
        "the export in {} stands complete under its manifest; only its durability is in doubt: {source}",
        path.display()
    )]
    Unsynced { path: PathBuf, source: io::Error },
    /// Another export runs into it.
    #[error("another export is running into {}", path.display())]
    Busy { path: PathBuf },
    /// It holds something already.
    #[error("the output directory {} {holds}", path.display())]
    NotEmpty { path: PathBuf, holds: DirectoryContent },
    /// Its record cannot be read: the export can begin anew ([`Existing::Force`](crate::export::options::Existing::Force)).
    #[error("the record {} cannot be read ({reason})", path.display())]
    Damaged { path: PathBuf, reason: String },
    /// A foreign file stands where an output file would go.
    #[error("{} is not of outpour's making but has the name of an output file", path.display())]
    Foreign { path: PathBuf },
}

/// What an output directory holds that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectoryContent {
    /// A finished export: [`Existing::Force`](crate::export::options::Existing::Force) replaces it.
    Finished,
    /// An interrupted export: it can be resumed, or begin anew.
    Interrupted,
    /// A finished export and an unfinished one that is to replace it, which can be resumed or begin anew.
    Replacement,
    /// An increment with its list of what no longer belongs, which is not replaced.
    Increment,
    /// A job in tasks, which is not replaced.
    Job,
    /// The current records of another chain, which are not replaced.
    OtherChain,
    /// Something that is not of an export, by its name; with [`Existing::Force`](crate::export::options::Existing::Force) it is left alone.
    Foreign(String),
}

impl fmt::Display for DirectoryContent {
    /// What an output directory holds, as the text of the error [`JournalError::NotEmpty`] says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DirectoryContent::Finished => f.write_str("holds a finished export"),
            DirectoryContent::Interrupted => f.write_str("holds an interrupted export"),
            DirectoryContent::Replacement => f.write_str("holds an export and an unfinished one that is to replace it"),
            DirectoryContent::Increment => f.write_str("holds an increment, which is not replaced"),
            DirectoryContent::Job => f.write_str("holds a job in tasks, which is not replaced"),
            DirectoryContent::OtherChain => f.write_str("holds the records of another chain: choose another directory"),
            DirectoryContent::Foreign(name) => write!(f, "holds {name}, which is not of an export"),
        }
    }
}

/// A part of an index file is not what was written: what is wrong, as a sentence. The cure is always the same: the
/// whole index is checked, what is damaged is made again from the store, and the question is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CorruptIndex(pub &'static str);
