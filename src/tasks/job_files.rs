//! The files of a job: their names, and how a file is made that only one of many writers can make.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::codec::compression::Compression;
use crate::limits::RECORD_BYTES_MAX;
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::tasks::job_error::JobError;

/// The plan.
pub(crate) const PLAN: &str = "plan.json";
/// The manifest of a committed job.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The directory of the files of spans.
pub(crate) const SPANS: &str = "spans";
/// The directory of the records of tasks.
pub(crate) const TASKS: &str = "tasks";
/// The directory of the output files.
pub(crate) const DATA: &str = "data";
/// The attempt that a planner writes generated files as.
pub(crate) const PLANNED: &str = "plan";

/// The directory of the containers of segments, in the job of an index.
pub(crate) const SEGMENTS: &str = "segments";
/// The record that an index has taken the segments of a job.
pub(crate) const COMMITTED: &str = "committed.json";

/// Whether a directory is the root of a job: of an export, or of an index.
pub(crate) fn is_job(path: &Path) -> bool {
    is_export_job(path) || path.join(PLAN).is_file() && path.join(SEGMENTS).is_dir()
}

/// Whether a directory is the root of a job of an export.
pub(crate) fn is_export_job(path: &Path) -> bool {
    path.join(PLAN).is_file() && path.join(SPANS).is_dir()
}

/// Name of the segments of a task, as an attempt writes them.
pub(crate) fn segments_name(task: usize, attempt: &str) -> String {
    format!("{SEGMENTS}/{task}.{attempt}")
}

/// Whether a name in the directory of segments is one that an attempt of a task writes.
pub(crate) fn is_segments_name(name: &str) -> bool {
    let parts = name.split_once('.');
    parts.is_some_and(|(task, attempt)| {
        !task.is_empty() && task.bytes().all(|byte| byte.is_ascii_digit()) && is_attempt(attempt)
    })
}

/// Name of the spans of an output file, by its place in the plan.
pub(crate) fn spans_name(shard: usize) -> String {
    format!("{SPANS}/{shard}")
}

/// Name of the note that two attempts of a task have written different bytes.
pub(crate) fn differs_name(task: usize) -> String {
    format!("{TASKS}/{task}.differs.json")
}

/// Name of the record of a task.
pub(crate) fn task_name(task: usize) -> String {
    format!("{TASKS}/{task}.json")
}

/// Name of an output file: `stem` is its type, or `deleted/Bundle`, say.
pub(crate) fn data_name(stem: &str, ordinal: u32, attempt: &str, compression: Compression) -> String {
    format!("{DATA}/{stem}/{ordinal:05}.{attempt}.ndjson{}", compression.suffix())
}

/// Whether a name in a directory of output files is one that an attempt writes, or is writing: of its numbers, its attempt and
/// any coding, and nothing else.
pub(crate) fn is_data_name(name: &str) -> bool {
    let hidden = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part"));
    let name = hidden.unwrap_or(name);
    let Some((number, rest)) = name.split_once('.') else { return false };
    let Some((attempt, ending)) = rest.split_once('.') else { return false };
    let is_number = number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && is_attempt(attempt) && ["ndjson", "ndjson.gz", "ndjson.zst"].contains(&ending)
}

/// Whether a text can name an attempt: letters, digits, `-` and `_`, 1 to 80 of them.
pub(crate) fn is_attempt(text: &str) -> bool {
    (1..=80).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// A directory of a job and those above it, but the root.
pub(crate) fn with_parents(folder: &str) -> impl Iterator<Item = &str> {
    let parents = folder.match_indices('/').map(|(at, _)| &folder[..at]);
    parents.chain([folder])
}

/// Whether a name is one under which [`JobRoot::create_once`] writes the file `of`, of any writer.
pub(crate) fn is_unlinked(name: &str, of: &str) -> bool {
    let rest = name.strip_prefix('.').and_then(|name| name.strip_prefix(of));
    rest.and_then(|rest| rest.strip_prefix('.')).is_some_and(is_attempt)
}

/// Whether a name is one under which the record of a task is written, of any writer.
pub(crate) fn is_unlinked_record(name: &str) -> bool {
    let task = name.strip_prefix('.').and_then(|name| name.split_once(".json.")).map(|(task, _)| task);
    task.is_some_and(|task| {
        task.bytes().all(|byte| byte.is_ascii_digit()) && is_unlinked(name, &format!("{task}.json"))
    })
}

/// The root of a job, open.
pub(crate) struct JobRoot {
    /// The directory.
    pub(crate) directory: Directory,
    /// Whether files are synced before they are relied on.
    pub(crate) sync: FileSync,
}

/// What became of a file that only one writer can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    /// It was made here.
    Made,
    /// Another one stands.
    Exists,
}

impl JobRoot {
    /// Path of a file of the job, for messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Reads a record; `None` if it is not there.
    ///
    /// # Errors
    /// [`JobError::Io`], [`JobError::NotPermitted`].
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, JobError> {
        match self.directory.read(name, RECORD_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(JobError::io(self.path(name), error)),
        }
    }

    /// Makes a file with these contents unless one stands. It is written under a name of `writer`'s own, which no other process or
    /// thread may have, and then linked: link(2)
    /// fails where the name is in use, on NFS too. Where the answer of the system was lost, what stands tells whose it is.
    ///
    /// # Errors
    /// [`JobError::Io`], [`JobError::NotPermitted`].
    pub(crate) fn create_once(&self, name: &str, writer: &str, bytes: &[u8]) -> Result<Creation, JobError> {
        let failed = |error| JobError::io(self.path(name), error);
        let (folder, last) = name.rsplit_once('/').map_or(("", name), |(folder, last)| (folder, last));
        let own = if folder.is_empty() { format!(".{last}.{writer}") } else { format!("{folder}/.{last}.{writer}") };
        if !folder.is_empty() {
            // Whoever has copied the job may have left out empty directories.
            self.directory.make_directory(folder).map_err(failed)?;
        }
        let written = self.directory.create_new(&own).and_then(|mut file| {
            file.write_all(bytes)?;
            if self.sync == FileSync::Yes { file.sync_all() } else { Ok(()) }
        });
        let linked = written.and_then(|()| self.directory.link_new(&own, name));
        let outcome = match linked {
            Ok(()) => Ok(Creation::Made),
            Err(error) => match self.directory.read(name, RECORD_BYTES_MAX) {
                Ok(found) if found == bytes => Ok(Creation::Made),
                Ok(_) => Ok(Creation::Exists),
                Err(_) => Err(failed(error)),
            },
        };
        self.directory.remove_file(&own).ok();
        if outcome.is_ok() {
            self.sync_folders([folder])?;
        }
        outcome
    }

    /// Syncs directories of the job, so that the names in them survive a loss of power; `""` is the root. Nothing without sync.
    ///
    /// # Errors
    /// [`JobError::Io`].
    pub(crate) fn sync_folders<'n>(&self, folders: impl IntoIterator<Item = &'n str>) -> Result<(), JobError> {
        if self.sync == FileSync::No {
            return Ok(());
        }
        folders.into_iter().try_for_each(|folder| {
            let synced = match folder {
                "" => self.directory.sync(),
                folder => self.directory.directory(folder).and_then(|directory| directory.sync()),
            };
            synced.map_err(|error| JobError::io(self.path(folder), error))
        })
    }
}
