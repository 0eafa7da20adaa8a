//! The root of a job that is being planned: locked, and empty but for what an interrupted planner left.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use crate::error::{DirectoryContent, ExportError, JournalError};
use crate::limits::RECORD_BYTES_MAX;
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::sys::private_files::private_directory;
use crate::tasks::hashed_record::HashedRecord;
use crate::tasks::job_error::JobError;
use crate::tasks::job_files::{Creation, JobRoot, PLAN, is_job, is_unlinked};

/// Opens and locks the root of a job to be planned: it has no plan, and nothing but these `folders`, of which the first is made and
/// holds the lock. A job is planned by one process, and once.
///
/// # Errors
/// [`ExportError::Record`]: it holds something else, is being planned, or cannot be used.
pub(crate) fn open_new_job(job: &Path, sync: FileSync, folders: [&str; 3]) -> Result<(JobRoot, File), ExportError> {
    let io = |source| JournalError::Io { path: job.to_path_buf(), source };
    private_directory(job).map_err(io)?;
    let root = JobRoot { directory: Directory::open(job).map_err(io)?, sync };
    let is_ours = |name: &OsString| {
        // What an interrupted planner leaves.
        folders.iter().any(|folder| name == folder) || name.to_str().is_some_and(|name| is_unlinked(name, PLAN))
    };
    let names = root.directory.names().map_err(io)?;
    match names.iter().find(|name| !is_ours(name)) {
        None => {}
        Some(_) if is_job(root.directory.path()) => return Err(in_use(&root, DirectoryContent::Job)),
        Some(name) => return Err(in_use(&root, DirectoryContent::Foreign(name.to_string_lossy().into_owned()))),
    }
    root.directory.make_directory(folders[0]).map_err(io)?;
    let lock = root.directory.create(&format!("{}/.lock", folders[0])).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(JournalError::Busy { path: job.to_path_buf() }.into()),
        Err(TryLockError::Error(error)) => return Err(io(error).into()),
    }
    // Another planner may have ended before the lock was free.
    match root.directory.metadata(PLAN).map_err(io)? {
        None => Ok((root, lock)),
        Some(_) => Err(in_use(&root, DirectoryContent::Job)),
    }
}

/// Makes the plan, once these folders are synced in which it names files.
///
/// # Errors
/// [`ExportError::Record`] when another plan stands; [`ExportError::Write`].
pub(crate) fn publish_plan<'f>(
    root: &JobRoot,
    folders: impl IntoIterator<Item = &'f str>,
    writer: &str,
    plan: &impl HashedRecord,
) -> Result<(), ExportError> {
    let unwritten = |error: JobError| match error {
        JobError::Io { source, .. } | JobError::NotPermitted { source, .. } => write_error(root, PLAN, source),
        other => write_error(root, PLAN, io::Error::other(other.to_string())),
    };
    let bytes = plan.to_bytes();
    if bytes.len() as u64 > RECORD_BYTES_MAX {
        let text =
            format!("a task reads at most {RECORD_BYTES_MAX} bytes of it: join small files, or divide the store");
        return Err(write_error(root, PLAN, io::Error::new(io::ErrorKind::FileTooLarge, text)));
    }
    root.sync_folders(folders).map_err(unwritten)?;
    match root.create_once(PLAN, writer, &bytes).map_err(unwritten)? {
        Creation::Made => Ok(()),
        Creation::Exists => Err(in_use(root, DirectoryContent::Job)),
    }
}

/// The error of a root that holds something.
fn in_use(root: &JobRoot, holds: DirectoryContent) -> ExportError {
    JournalError::NotEmpty { path: root.directory.path().to_path_buf(), holds }.into()
}

/// The error of a file of the job that cannot be written.
pub(crate) fn write_error(root: &JobRoot, name: &str, source: io::Error) -> ExportError {
    ExportError::Write { directory: root.directory.path().to_path_buf(), name: name.to_string(), source }
}
