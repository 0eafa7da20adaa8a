//! A directory that appears complete or not at all: built beside its target under a hidden name, then renamed to it.
//!
//! A build that fails removes the hidden directory. A killed process cannot: its hidden directory stays until the next
//! run with the same target, which empties it first. The walk of a store skips such a directory, and it is refused as
//! a store itself.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys::durability::{FileSync, sync_directory};
use crate::sys::private_files::private_directory;

/// Why a directory could not be built or renamed to its target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AtomicDirError {
    /// The target exists and is no empty directory, or another process is building it.
    #[error("{} {reason}; name a directory that is not there yet, or an empty one", path.display())]
    Target {
        /// The path that the directory was to have.
        path: PathBuf,
        /// Why no directory can be renamed to it, as the end of a sentence about the path.
        reason: &'static str,
    },
    /// A file or directory cannot be read, written, renamed or synced.
    #[error("cannot write {}: {source}; make room or choose another place, then run the same command again", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The system's error on it.
        source: std::io::Error,
    },
    /// The directory stands complete under its target, but the directory above it cannot be synced.
    #[error(
        "{} stands complete, but the directory that holds it cannot be synced: {source}; only a loss of power can still undo \
         it, so do not run the command again, but `sync` before you rely on it",
        path.display()
    )]
    Unsynced {
        /// The target.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// A directory under construction; removed on drop unless it was published.
#[derive(Debug)]
pub(crate) struct AtomicDir {
    /// The directory that is being filled, `.NAME.outpour-partial` beside the target.
    hidden: PathBuf,
    /// The path that it is renamed to.
    target: PathBuf,
    sync: FileSync,
    /// Whether the target may be a directory with entries, which this one replaces.
    replaces: bool,
    /// Set by the rename, so that drop removes nothing.
    published: bool,
    /// The hidden directory, locked (flock) while it is under construction, so that two processes cannot build the
    /// same one.
    _lock: File,
}

impl AtomicDir {
    /// Makes the hidden directory beside `target`, locks it and empties it of what a killed run left. `target` must be
    /// absent or an empty directory.
    ///
    /// # Errors
    /// [`AtomicDirError::Target`] when `target` is not empty, no directory, a mount point or under construction
    /// elsewhere; [`AtomicDirError::Write`] when the system fails.
    pub(crate) fn begin(target: &Path, sync: FileSync) -> Result<AtomicDir, AtomicDirError> {
        AtomicDir::begin_at(target, sync, false)
    }

    /// As [`AtomicDir::begin`], but `target` may also be a directory with entries: it is exchanged with the new one when that is
    /// published, and then deleted. The caller has made sure that everything in it may go.
    ///
    /// # Errors
    /// As [`AtomicDir::begin`].
    pub(crate) fn begin_replacing(target: &Path, sync: FileSync) -> Result<AtomicDir, AtomicDirError> {
        AtomicDir::begin_at(target, sync, true)
    }

    /// The work of both.
    fn begin_at(target: &Path, sync: FileSync, replaces: bool) -> Result<AtomicDir, AtomicDirError> {
        // A link to a directory is resolved, so that the directory it leads to is built and not the link replaced.
        let absolute = || std::path::absolute(target).unwrap_or_else(|_| target.to_path_buf());
        let target = target.canonicalize().unwrap_or_else(|_| absolute());
        let refuse = |reason| AtomicDirError::Target { path: target.clone(), reason };
        match std::fs::read_dir(&target).map(|mut entries| entries.next()) {
            Ok(None) => {}
            Ok(Some(_)) if replaces => {}
            Ok(Some(_)) => return Err(refuse("is not empty")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => return Err(refuse("is no directory")),
            Err(source) => return Err(AtomicDirError::Write { path: target, source }),
        }
        let (Some(name), Some(parent)) = (target.file_name(), target.parent()) else {
            return Err(refuse("has no name"));
        };
        // rename(2) cannot replace a mount point: refused before anything is built.
        let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
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
            // A symbolic link is not followed: the directory that it leads to is not ours to empty.
            if !std::fs::symlink_metadata(&hidden).map_err(write)?.is_dir() {
                return Err(refuse("cannot be made: a symbolic link stands where it is built"));
            }
            let lock = File::open(&hidden).map_err(write)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => return Err(refuse("is being made by another process")),
                Err(std::fs::TryLockError::Error(error)) => return Err(write(error)),
            }
            // The previous holder may have published or removed it between open and lock: then try again.
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
        Ok(AtomicDir { hidden, target, sync, replaces, published: false, _lock: lock })
    }

    /// The hidden directory, in which the caller writes its files.
    pub(crate) fn path(&self) -> &Path {
        &self.hidden
    }

    /// Renames the hidden directory to its target and, with [`FileSync::Yes`], syncs both directories. The caller has
    /// synced the files in it.
    ///
    /// # Errors
    /// [`AtomicDirError::Target`] when the target is no longer empty, [`AtomicDirError::Write`] when the system fails,
    /// [`AtomicDirError::Unsynced`] when it fails after the rename.
    pub(crate) fn publish(mut self) -> Result<(), AtomicDirError> {
        let write = |path: &Path, source| AtomicDirError::Write { path: path.to_path_buf(), source };
        if self.sync == FileSync::Yes {
            sync_directory(&self.hidden).map_err(|source| write(&self.hidden, source))?;
        }
        match std::fs::rename(&self.hidden, &self.target) {
            Ok(()) => self.published = true,
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && self.replaces => {
                self.exchange().map_err(|source| write(&self.target, source))?;
                self.published = true;
            }
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                return Err(AtomicDirError::Target { path: self.target.clone(), reason: "is no longer empty" });
            }
            Err(source) => return Err(write(&self.target, source)),
        }
        match self.target.parent() {
            Some(parent) if self.sync == FileSync::Yes => {
                sync_directory(parent).map_err(|source| AtomicDirError::Unsynced { path: self.target.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

impl AtomicDir {
    /// Puts the hidden directory in the place of the target, and deletes what stood there. Where the two cannot be exchanged in one
    /// step, the target is missing for a moment.
    fn exchange(&self) -> std::io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, &self.hidden, CWD, &self.target, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                let aside = self.hidden.with_extension("replaced");
                std::fs::rename(&self.target, &aside)?;
                std::fs::rename(&self.hidden, &self.target)?;
                std::fs::rename(&aside, &self.hidden)?;
            }
            Err(error) => return Err(error.into()),
        }
        // The new one stands: what is left of the old one is removed by the next that builds here.
        std::fs::remove_dir_all(&self.hidden).ok();
        Ok(())
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if !self.published {
            std::fs::remove_dir_all(&self.hidden).ok();
        }
    }
}

/// Suffix of the hidden name under which a directory is built. A directory of such a name is never a store.
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

        // Files of a killed run are removed before the next.
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

    /// A sync that fails after the rename is no failure of the directory: it stands, and the error says so.
    #[test]
    fn a_failed_sync_leaves_what_stands() {
        use crate::sys::directory::tests::failing_syncs;
        let dir = tempfile::tempdir().unwrap();
        let (above, target) = (dir.path().canonicalize().unwrap(), dir.path().canonicalize().unwrap().join("new"));
        let build = || {
            let new = AtomicDir::begin(&target, FileSync::Yes).unwrap();
            std::fs::write(new.path().join("a"), "a").unwrap();
            new
        };
        let error = failing_syncs(&above, || true, || build().publish()).unwrap_err();
        assert!(matches!(&error, AtomicDirError::Unsynced { path, .. } if *path == target), "{error}");
        assert!(error.to_string().contains("stands complete") && target.join("a").exists());
        std::fs::remove_dir_all(&target).unwrap();
        let hidden = above.join(".new.outpour-partial");
        let error = failing_syncs(&hidden, || true, || build().publish()).unwrap_err();
        assert!(matches!(error, AtomicDirError::Write { .. }) && !target.exists() && !hidden.exists());
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
