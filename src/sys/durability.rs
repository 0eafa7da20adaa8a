//! Durability: files and directories synced, and a file replaced by rename.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::sys::directory::Directory;

/// Replaces a file as a whole.
///
/// # Errors
/// When it cannot be written; the old one then still stands.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], sync: FileSync) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    Directory::open(parent)?.replace(name, bytes, sync == FileSync::Yes)
}

/// Whether files are made to survive a loss of power before they are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileSync {
    /// fsync each.
    #[default]
    Yes,
    /// Leave it to the kernel.
    No,
}

/// Makes the entries of a directory last.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
