//! A directory that appears whole or not at all: built beside its place under a hidden name, put there by rename.
//!
//! Whoever fails removes what was built. A process that was killed cannot: the hidden directory stays until the next run to
//! the same place, which empties it first. No walk of a store goes into it, and it is refused as a store itself.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys::durability::{FileSync, sync_directory};
use crate::sys::private_files::private_directory;

/// Why a directory was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AtomicDirError {
    /// The place is taken.
    #[error("{} {reason}; name a directory that is not there yet, or an empty one", path.display())]
    Target {
        /// The place.
        path: PathBuf,
        /// Why nothing can be put there.
        reason: &'static str,
    },
    /// Something cannot be written.
    #[error("cannot write {}: {source}; make room or choose another place, then run the same command again", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// A directory under construction; removed unless it is published.
#[derive(Debug)]
pub(crate) struct AtomicDir {
    hidden: PathBuf,
    target: PathBuf,
    sync: FileSync,
    published: bool,
    /// Held while the directory is under construction, so that two runs cannot build the same one.
    _lock: File,
}

impl AtomicDir {
    /// Begins. `target` must not be there, or be an empty directory. What a killed run left of an earlier attempt is
    /// removed.
    ///
    /// # Errors
    /// [`AtomicDirError`].
    pub(crate) fn begin(target: &Path, sync: FileSync) -> Result<AtomicDir, AtomicDirError> {
        // A link to a directory stands for that directory.
        let absolute = || std::path::absolute(target).unwrap_or_else(|_| target.to_path_buf());
        let target = target.canonicalize().unwrap_or_else(|_| absolute());
        let refuse = |reason| AtomicDirError::Target { path: target.clone(), reason };
        match std::fs::read_dir(&target).map(|mut entries| entries.next()) {
            Ok(None) => {}
            Ok(Some(_)) => return Err(refuse("is not empty")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => return Err(refuse("is no directory")),
            Err(source) => return Err(AtomicDirError::Write { path: target, source }),
        }
        let (Some(name), Some(parent)) = (target.file_name(), target.parent()) else {
            return Err(refuse("has no name"));
        };
        let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
        if target.exists() && device(&target) != device(parent) {
            return Err(refuse("is a mount point, which nothing can be renamed to"));
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(PARTIAL_SUFFIX);
        let hidden = parent.join(hidden);
        let write = |source| AtomicDirError::Write { path: hidden.clone(), source };
        let lock = loop {
            private_directory(&hidden).map_err(write)?;
            // A symbolic link is not followed: what it leads to is not ours to empty.
            if !std::fs::symlink_metadata(&hidden).map_err(write)?.is_dir() {
                return Err(refuse("cannot be made: a symbolic link stands where it is built"));
            }
            let lock = File::open(&hidden).map_err(write)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => return Err(refuse("is being made by another process")),
                Err(std::fs::TryLockError::Error(error)) => return Err(write(error)),
            }
            // Whoever held it may have published or removed it between the two calls.
            let same = std::fs::symlink_metadata(&hidden).ok().map(|found| found.ino());
            if same == Some(lock.metadata().map_err(write)?.ino()) {
                break lock;
            }
        };
        for entry in std::fs::read_dir(&hidden).map_err(write)? {
            let path = entry.map_err(write)?.path();
            let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
            let removed = if is_directory { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(write)?;
        }
        Ok(AtomicDir { hidden, target, sync, published: false, _lock: lock })
    }

    /// Where files are to be written.
    pub(crate) fn path(&self) -> &Path {
        &self.hidden
    }

    /// Puts the directory in its place. Its files are the caller's to sync.
    ///
    /// # Errors
    /// [`AtomicDirError::Target`] when something has come there meanwhile, [`AtomicDirError::Write`].
    pub(crate) fn publish(mut self) -> Result<(), AtomicDirError> {
        let write = |path: &Path, source| AtomicDirError::Write { path: path.to_path_buf(), source };
        if self.sync == FileSync::Yes {
            sync_directory(&self.hidden).map_err(|source| write(&self.hidden, source))?;
        }
        match std::fs::rename(&self.hidden, &self.target) {
            Ok(()) => self.published = true,
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                return Err(AtomicDirError::Target { path: self.target.clone(), reason: "is no longer empty" });
            }
            Err(source) => return Err(write(&self.target, source)),
        }
        match self.target.parent() {
            Some(parent) if self.sync == FileSync::Yes => {
                sync_directory(parent).map_err(|source| write(parent, source))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if !self.published {
            std::fs::remove_dir_all(&self.hidden).ok();
        }
    }
}

/// End of the hidden name under which a directory is built beside its place. Such a directory is never a store.
pub(crate) const PARTIAL_SUFFIX: &str = ".outpour-partial";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new");
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        let new = AtomicDir::begin(&target, FileSync::Yes).unwrap();
        std::fs::write(new.path().join("a"), "a").unwrap();
        let second = AtomicDir::begin(&target, FileSync::Yes);
        assert!(matches!(second, Err(AtomicDirError::Target { .. })), "one builder at a time");
        drop(new);
        assert_eq!(names(), 0, "what was not published is removed");

        // What a killed run left is not part of the next.
        std::fs::create_dir_all(dir.path().join(".new.outpour-partial/deep")).unwrap();
        std::fs::write(dir.path().join(".new.outpour-partial/left"), "x").unwrap();
        std::fs::create_dir(&target).unwrap();
        let new = AtomicDir::begin(&target, FileSync::No).unwrap();
        std::fs::write(new.path().join("b"), "b").unwrap();
        new.publish().unwrap();
        assert_eq!((names(), std::fs::read_dir(&target).unwrap().count()), (1, 1));
        for place in [target.clone(), target.join("b")] {
            let refused = AtomicDir::begin(&place, FileSync::No);
            assert!(matches!(refused, Err(AtomicDirError::Target { .. })), "{place:?}");
        }
        std::os::unix::fs::symlink(&target, dir.path().join(".link.outpour-partial")).unwrap();
        let refused = AtomicDir::begin(&dir.path().join("link"), FileSync::No);
        assert!(matches!(refused, Err(AtomicDirError::Target { .. })) && target.join("b").exists());
    }

    #[test]
    fn a_place_that_was_taken_meanwhile_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new");
        let new = AtomicDir::begin(&target, FileSync::No).unwrap();
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("foreign"), "x").unwrap();
        assert!(matches!(new.publish(), Err(AtomicDirError::Target { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
