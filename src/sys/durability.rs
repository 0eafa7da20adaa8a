//! Durability: directories synced, and a file replaced by a temporary file and a rename.

use std::io::{self, Write};
use std::path::Path;

use crate::sys::directory::Directory;

/// Replaces the file at `path`, whose parent must exist, by what `write` gives piece by piece, so that readers see the old or
/// the new contents and never a part.
///
/// # Errors
/// `InvalidInput` when the path has no UTF-8 file name; the error of `write`; else the system's. The previous file is then unchanged.
pub(crate) fn replace_file_with(
    path: &Path,
    sync: FileSync,
    write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    Directory::open(parent)?.replace_with(name, sync == FileSync::Yes, write)
}

/// Whether files are synced to disk before they are renamed to their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileSync {
    /// fsync each file and its directory, so that they survive a loss of power.
    #[default]
    Yes,
    /// Leave writing back to the kernel.
    No,
}

/// fsync of a directory, so that the names in it survive a loss of power.
///
/// # Errors
/// The system's error when the directory cannot be opened or synced.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    Directory::open(directory)?.sync()
}
