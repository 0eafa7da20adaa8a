//! Files and directories that only their owner can read (PRIV-03): indexes hold patient ids, exports hold whole
//! records.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Opens a file for reading and writing, made with mode 0600 if it is absent. Its contents are kept.
///
/// # Errors
/// The system's; a symbolic link is not followed. `InvalidInput`, without waiting, when the path is a pipe, a socket
/// or a device.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let file = options.open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file stands there")),
    }
}

/// Makes a file without a name, for reading and writing, on the file system of a directory. It goes with its last handle.
/// Where such files cannot be made, it bears `name` for a moment, a name that is not in use.
///
/// # Errors
/// The system's.
pub(crate) fn create_unnamed(directory: &Path, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC).open(directory) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
            let path = directory.join(name);
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        opened => opened,
    }
}

/// Makes a directory and its missing parents with mode 0700; an existing one is kept.
///
/// # Errors
/// The system's error of mkdir(2).
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
