//! Permission bits of what an export publishes. They are set before the manifest appears; until then everything is its owner's
//! alone.

use std::io;

use crate::sys::directory::Directory;
use crate::write::journal::Receipt;

/// Permission bits of published files and directories; those of their making, 0600 and 0700, where none are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileModes {
    /// Of the manifest, the status document and all files that the manifest lists.
    pub file: Option<u32>,
    /// Of the output directory and the directories of listed files in it.
    pub directory: Option<u32>,
}

impl FileModes {
    /// Sets the permission bits of all finished files in an output directory, and of the directories that hold them, as far
    /// as they are given. The journal keeps its own.
    ///
    /// # Errors
    /// The name of what they cannot be set of, and the system's error.
    pub(crate) fn set(&self, root: &Directory, finished: &[Receipt]) -> Result<(), (String, io::Error)> {
        if let Some(mode) = self.file {
            for name in finished.iter().map(|receipt| &receipt.file) {
                root.set_file_mode(name, mode).map_err(|error| (name.clone(), error))?;
            }
        }
        if let Some(mode) = self.directory {
            for folder in ["deleted", "error"] {
                let holds = |receipt: &Receipt| receipt.file.split_once('/').is_some_and(|(of, _)| of == folder);
                if finished.iter().any(holds) {
                    let set = root.directory(folder).and_then(|found| found.set_mode(mode));
                    set.map_err(|error| (folder.to_string(), error))?;
                }
            }
            root.set_mode(mode).map_err(|error| (String::new(), error))?;
        }
        Ok(())
    }
}
