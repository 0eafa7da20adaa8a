//! The record of a job in its output directory: what was planned, and which files are finished.
//!
//! `.outpour-job/plan.json` comes first, then one line for each finished file in `done.ndjson`, the manifest last. A
//! run that was interrupted anywhere is finished from it to the same bytes. Foreign files are never touched: what
//! is removed or replaced is what a record lists, nothing else.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::digest::{Digest, DigestAlgorithm, digest_file};
use super::encode::Sums;
use super::sink::{Sync, sync_directory, temporary};
use crate::bytes::private::{create_private, private_directory};

/// Directory of the record, inside the output directory.
pub const JOB: &str = ".outpour-job";
/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// Name of the status document.
pub const STATUS: &str = "status.json";

/// A finished file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Name relative to the output directory.
    pub file: String,
    /// Type of its lines.
    pub r#type: String,
    /// Its lines.
    pub count: u64,
    /// Uncompressed bytes.
    pub bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Digest over the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl Receipt {
    /// A receipt for a file of `count` lines.
    pub fn new(file: String, resource_type: &str, count: u64, sums: Sums) -> Receipt {
        let Sums { bytes, file_bytes, digest } = sums;
        Receipt { file, r#type: resource_type.to_string(), count, bytes, file_bytes, digest }
    }
}

/// An output directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
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

/// How to begin in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Only if it is empty.
    Fresh,
    /// Go on with the record, if there is one.
    Resume,
    /// Remove what the record lists and begin anew.
    Force,
}

/// `plan.json`.
#[derive(Serialize, Deserialize)]
struct PlanFile<T> {
    /// Files that the run will write, besides messages and deletions.
    files: Vec<String>,
    job: T,
}

/// An output directory, locked for one run.
pub struct JobDirectory {
    path: PathBuf,
    sync: Sync,
    done: Mutex<Option<File>>,
    /// Whether this run has left a plan; before that, a failure leaves nothing behind.
    planned: AtomicBool,
    made: bool,
    _lock: File,
}

impl JobDirectory {
    /// Locks an output directory, making it if it is not there.
    ///
    /// # Errors
    /// [`RecordError::Busy`] when another run has it, [`RecordError::Io`].
    pub fn open(path: &Path, sync: Sync) -> Result<JobDirectory, RecordError> {
        let io = |source| RecordError::Io { path: path.to_path_buf(), source };
        let made = !path.exists();
        let job = path.join(JOB);
        private_directory(&job).map_err(io)?;
        let lock = create_private(&job.join("lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(RecordError::Busy { path: path.to_path_buf() }),
            Err(std::fs::TryLockError::Error(source)) => return Err(io(source)),
        }
        let path = path.canonicalize().map_err(io)?;
        let (done, planned) = (Mutex::new(None), AtomicBool::new(false));
        Ok(JobDirectory { path, sync, done, planned, made, _lock: lock })
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn io(&self, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
        let path = path.to_path_buf();
        |source| RecordError::Io { path, source }
    }

    /// Decides what to do with what the directory holds; the recorded job if there is one to go on with.
    ///
    /// # Errors
    /// When that is not what `begin` allows.
    pub fn begin<T: DeserializeOwned>(&self, begin: Begin) -> Result<Option<T>, RecordError> {
        let plan = self.path.join(JOB).join("plan.json");
        let recorded = plan.exists();
        let entries = std::fs::read_dir(&self.path).map_err(self.io(&self.path))?;
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        let foreign = names.into_iter().find(|name| name != JOB);
        let refuse = |holds: &str| Err(RecordError::NotEmpty { path: self.path.clone(), holds: holds.to_string() });
        if recorded {
            // From here on the directory is ours to keep.
            self.planned.store(true, Relaxed);
        }
        match (begin, recorded) {
            (Begin::Fresh, true) if self.path.join(MANIFEST).exists() => {
                refuse("holds a finished export; choose another directory, or replace it with --force")
            }
            (Begin::Fresh, true) => {
                refuse("holds an interrupted export; finish it with --resume, or begin anew with --force")
            }
            (Begin::Fresh | Begin::Resume, false) => match foreign {
                Some(name) => refuse(&format!(
                    "holds {name}, which is not of an export; choose another directory, or use --force, which leaves \
                     foreign files alone"
                )),
                None => Ok(None),
            },
            (Begin::Resume, true) => self.read_plan(&plan).map(|plan| Some(plan.job)),
            (Begin::Force, true) => self.clear(&plan).map(|()| None),
            (Begin::Force, false) => Ok(None),
        }
    }

    fn read_plan<T: DeserializeOwned>(&self, path: &Path) -> Result<PlanFile<T>, RecordError> {
        let damaged = |reason: String| RecordError::Damaged { path: path.to_path_buf(), reason };
        let bytes = std::fs::read(path).map_err(|error| damaged(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))
    }

    /// Removes the manifest, then what the old record lists, then the record.
    fn clear(&self, plan: &Path) -> Result<(), RecordError> {
        let mut names = vec![MANIFEST.to_string(), STATUS.to_string()];
        // A record that cannot be read lists nothing: then only the names of the record itself are ours.
        if let Ok(plan) = self.read_plan::<serde::de::IgnoredAny>(plan) {
            names.extend(plan.files);
        }
        names.extend(self.receipts()?.into_iter().map(|receipt| receipt.file));
        for name in names.iter().filter(|name| is_plain(name)) {
            let path = self.path.join(name);
            for path in [temporary(&path), path] {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.io(&path)(error)),
                    _ => {}
                }
            }
        }
        for name in ["error", "deleted"] {
            // Gone only if nothing foreign is in it.
            std::fs::remove_dir(self.path.join(name)).ok();
        }
        for name in ["done.ndjson", "plan.json"] {
            std::fs::remove_file(self.path.join(JOB).join(name)).ok();
        }
        Ok(())
    }

    /// Writes `plan.json`, after a look that no foreign file has the name of a file to come.
    ///
    /// # Errors
    /// [`RecordError::Foreign`], [`RecordError::Io`].
    pub fn write_plan<T: Serialize>(&self, job: &T, files: &[String]) -> Result<(), RecordError> {
        for name in files.iter().map(String::as_str).chain([MANIFEST, STATUS]) {
            let path = self.path.join(name);
            if path.symlink_metadata().is_ok() {
                return Err(RecordError::Foreign { path });
            }
        }
        for (directory, stem) in [("error", "OperationOutcome."), ("deleted", "Bundle.")] {
            let directory = self.path.join(directory);
            let taken = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            if let Some(entry) = taken.into_iter().find(|entry| entry.file_name().to_string_lossy().starts_with(stem)) {
                return Err(RecordError::Foreign { path: entry.path() });
            }
        }
        let path = self.path.join(JOB).join("plan.json");
        let bytes = serde_json::to_vec(&PlanFile { files: files.to_vec(), job }).expect("a plan is plain data");
        self.planned.store(true, Relaxed);
        replace_file(&path, &bytes, self.sync).map_err(self.io(&path))
    }

    /// Every receipt of the record. A line that was torn when the run was killed is no receipt.
    fn receipts(&self) -> Result<Vec<Receipt>, RecordError> {
        let path = self.path.join(JOB).join("done.ndjson");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.io(&path)(error)),
        };
        let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1);
        Ok(bytes[..whole].split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Receipts of the files that are really there as recorded: every one is hashed again.
    ///
    /// # Errors
    /// When the record or a file cannot be read.
    pub fn finished(&self, algorithm: DigestAlgorithm) -> Result<Vec<Receipt>, RecordError> {
        // The last receipt of a name counts.
        let latest: BTreeMap<String, Receipt> =
            self.receipts()?.into_iter().map(|receipt| (receipt.file.clone(), receipt)).collect();
        let mut finished = Vec::new();
        for receipt in latest.into_values().filter(|receipt| is_plain(&receipt.file)) {
            let path = self.path.join(&receipt.file);
            match digest_file(&path, algorithm) {
                Ok((len, digest)) if len == receipt.file_bytes && digest == receipt.digest => finished.push(receipt),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.io(&path)(error)),
            }
        }
        Ok(finished)
    }

    /// Adds a receipt.
    ///
    /// # Errors
    /// When it cannot be written: the file then counts as unfinished.
    pub fn record(&self, receipt: &Receipt) -> io::Result<()> {
        let mut done = self.done.lock().expect("no panic under it");
        let file = match &mut *done {
            Some(file) => file,
            slot => slot.insert(open_done(&self.path.join(JOB).join("done.ndjson"))?),
        };
        let mut line = serde_json::to_vec(receipt).expect("a receipt is plain data");
        line.push(b'\n');
        file.write_all(&line)?;
        if self.sync == Sync::Yes { file.sync_data() } else { Ok(()) }
    }

    /// Publishes the manifest: the last thing a run does (MANIFEST-18).
    ///
    /// # Errors
    /// When it cannot be written or made to last.
    pub fn publish(&self, manifest: &[u8]) -> io::Result<()> {
        if self.sync == Sync::Yes {
            for directory in ["error", "deleted", "."] {
                let directory = self.path.join(directory);
                if directory.is_dir() {
                    sync_directory(&directory)?;
                }
            }
        }
        replace_file(&self.path.join(MANIFEST), manifest, self.sync)
    }
}

impl Drop for JobDirectory {
    /// A run that failed before it had a plan leaves the directory as it found it.
    fn drop(&mut self) {
        if !self.planned.load(Relaxed) {
            let job = self.path.join(JOB);
            std::fs::remove_file(job.join("lock")).ok();
            std::fs::remove_dir(&job).ok();
            if self.made {
                std::fs::remove_dir(&self.path).ok();
            }
        }
    }
}

/// A name that cannot lead out of the directory.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Opens `done.ndjson` for appending, behind its last whole line.
fn open_done(path: &Path) -> io::Result<File> {
    let mut file = create_private(path)?;
    let bytes = std::fs::read(path)?;
    let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1);
    file.set_len(whole as u64)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// Replaces a file as a whole.
///
/// # Errors
/// When it cannot be written; the old one then still stands.
pub fn replace_file(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = create_private(&temporary)?;
    file.set_len(0)?;
    let written = file.write_all(bytes).and_then(|()| if sync == Sync::Yes { file.sync_all() } else { Ok(()) });
    let renamed = written.and_then(|()| std::fs::rename(&temporary, path));
    if renamed.is_err() {
        std::fs::remove_file(&temporary).ok();
        return renamed;
    }
    match path.parent() {
        Some(parent) if sync == Sync::Yes => sync_directory(parent),
        _ => Ok(()),
    }
}
