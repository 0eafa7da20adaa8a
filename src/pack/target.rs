//! The new directory: built beside its place under a hidden name, and put there by rename once it is whole.

use std::path::{Path, PathBuf};

use crate::bytes::private::private_directory;
use crate::error::PackError;
use crate::write::sink::{Sync, sync_directory};

/// A directory under construction; removed unless it is published.
pub struct NewDirectory {
    hidden: PathBuf,
    target: PathBuf,
    sync: Sync,
    published: bool,
}

impl NewDirectory {
    /// Begins. `target` must not be there, or be an empty directory.
    ///
    /// # Errors
    /// [`PackError::Target`], [`PackError::Write`].
    pub fn begin(target: &Path, sync: Sync) -> Result<NewDirectory, PackError> {
        let target = std::path::absolute(target).unwrap_or_else(|_| target.to_path_buf());
        let refuse = |reason| PackError::Target { path: target.clone(), reason };
        match std::fs::read_dir(&target) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(refuse("is not empty"));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(refuse("is no directory"));
            }
            Err(source) => return Err(PackError::Write { path: target, source }),
        }
        let (Some(name), Some(parent)) = (target.file_name(), target.parent()) else {
            return Err(refuse("has no name"));
        };
        let hidden = parent.join(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        let write = |source| PackError::Write { path: hidden.clone(), source };
        // What a killed run of the same number left is of no use to anybody.
        std::fs::remove_dir_all(&hidden).ok();
        private_directory(&hidden).map_err(write)?;
        Ok(NewDirectory { hidden, target, sync, published: false })
    }

    /// Where files are to be written.
    pub fn path(&self) -> &Path {
        &self.hidden
    }

    /// Puts the directory in its place.
    ///
    /// # Errors
    /// [`PackError::Target`] when something has come there meanwhile, [`PackError::Write`].
    pub fn publish(mut self) -> Result<(), PackError> {
        let write = |path: &Path| {
            let path = path.to_path_buf();
            move |source| PackError::Write { path, source }
        };
        if self.sync == Sync::Yes {
            sync_directory(&self.hidden).map_err(write(&self.hidden))?;
        }
        match std::fs::rename(&self.hidden, &self.target) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                return Err(PackError::Target { path: self.target.clone(), reason: "is no longer empty" });
            }
            Err(error) => return Err(write(&self.target)(error)),
        }
        self.published = true;
        match self.target.parent() {
            Some(parent) if self.sync == Sync::Yes => sync_directory(parent).map_err(write(parent)),
            _ => Ok(()),
        }
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if !self.published {
            std::fs::remove_dir_all(&self.hidden).ok();
        }
    }
}
