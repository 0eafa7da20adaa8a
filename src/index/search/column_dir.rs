//! Files of search columns in the index directory, which no index meta names: listed, renamed, removed, marked as used.

use std::io;
use std::path::Path;

use crate::index::dir::{IndexDir, IndexLock};
use crate::sys::disk::disk_space;
use crate::sys::private_files::create_private;
use crate::sys::regular_file::set_times_to_now;
use crate::sys::store_file::FileStamp;

/// Name of the lock file of the search columns.
const COLUMNS_LOCK: &str = "search.lock";

impl IndexDir {
    /// Names of the files that begin so.
    pub(crate) fn names_with(&self, prefix: &str) -> Vec<String> {
        let on_disk = |path: &Path| {
            let names = std::fs::read_dir(path).into_iter().flatten().flatten();
            names.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        };
        let mut names: Vec<String> = match self {
            IndexDir::Directory(path) => on_disk(path),
            IndexDir::Memory(files) => files.names(),
            IndexDir::ReadOnly(path, files) => [on_disk(path), files.names()].concat(),
        };
        names.retain(|name| name.starts_with(prefix));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Gives a new file its name, in place of an earlier one of that name.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match self {
            IndexDir::Directory(path) => std::fs::rename(path.join(from), path.join(to)),
            IndexDir::Memory(files) | IndexDir::ReadOnly(_, files) => files.rename(from, to),
        }
    }

    /// Removes a file that the caller has made; one that cannot be removed costs space, nothing else.
    pub(crate) fn remove(&self, name: &str) {
        match self {
            IndexDir::Directory(path) => drop(std::fs::remove_file(path.join(name))),
            IndexDir::Memory(files) | IndexDir::ReadOnly(_, files) => files.remove(name),
        }
    }

    /// When a file was last written or marked as used, in nanoseconds since the Unix epoch; the least value if that is not
    /// known.
    pub(crate) fn last_use(&self, name: &str) -> i64 {
        let IndexDir::Directory(path) = self else { return i64::MIN };
        let metadata = std::fs::symlink_metadata(path.join(name));
        metadata.map_or(i64::MIN, |metadata| FileStamp::of_metadata(&metadata).mtime_ns)
    }

    /// Marks a file as used now, where files are on disk and may be written.
    pub(crate) fn mark_used(&self, name: &str) {
        if let IndexDir::Directory(path) = self {
            set_times_to_now(&path.join(name));
        }
    }

    /// Used share of the disk in hundredths, where files outlive the process; `None` elsewhere.
    pub(crate) fn used_hundredths(&self) -> Option<u8> {
        let IndexDir::Directory(path) = self else { return None };
        Some(disk_space(path).ok()?.used_hundredths())
    }

    /// Takes the lock of the search columns; `None` if another process has it and `waits` is not set, or there is nothing to
    /// lock.
    ///
    /// # Errors
    /// When the lock file cannot be made or locked.
    pub(crate) fn lock_columns(&self, waits: bool) -> io::Result<Option<IndexLock>> {
        let IndexDir::Directory(path) = self else { return Ok(Some(IndexLock(None))) };
        let file = create_private(&path.join(COLUMNS_LOCK))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) if waits => file.lock()?,
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        Ok(Some(IndexLock(Some(file))))
    }
}
