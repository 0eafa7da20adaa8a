//! Regular files, opened without waiting and read within a bound.
//!
//! Under any name in a store, an index or an export a stranger may have put a pipe, a socket, a device or a directory.
//! To open a pipe waits for its other end, to open a device may do something, and to read either may never end. So what is
//! not named by the user himself is looked at before it is opened, opened without waiting, looked at again, and read as
//! far as its bound. What a user names on the command line may be a pipe: [`read_argument`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A file was not opened or read.
#[derive(Debug, thiserror::Error)]
pub enum RegularFileError {
    /// Something else stands there: a directory, a pipe, a socket, a device, or a symbolic link where none is followed.
    #[error("it is no regular file")]
    NotRegular,
    /// It is longer than such a file can be.
    #[error("it has more than {bytes_max} bytes")]
    TooLong {
        /// The bound.
        bytes_max: u64,
    },
    /// It cannot be opened or read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl RegularFileError {
    /// Whether no file stands there: nothing, something that is no file, or a link that leads to nothing.
    pub fn is_absence(&self) -> bool {
        match self {
            RegularFileError::NotRegular => true,
            RegularFileError::TooLong { .. } => false,
            RegularFileError::Io(error) => {
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                    || error.raw_os_error() == Some(libc::ELOOP)
            }
        }
    }
}

impl From<RegularFileError> for io::Error {
    fn from(error: RegularFileError) -> io::Error {
        let kind = match &error {
            RegularFileError::NotRegular => io::ErrorKind::InvalidInput,
            RegularFileError::TooLong { .. } => io::ErrorKind::InvalidData,
            RegularFileError::Io(_) => {
                let RegularFileError::Io(error) = error else { unreachable!("matched above") };
                return error;
            }
        };
        io::Error::new(kind, error)
    }
}

/// What becomes of a symbolic link in the last place of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// What it leads to is opened.
    Follow,
    /// It is no regular file.
    Refuse,
}

/// Opens a regular file for reading. Never waits, and opens nothing else but in the moment in which one is put in the
/// place of the other; then it is closed unread.
///
/// # Errors
/// [`RegularFileError::NotRegular`], [`RegularFileError::Io`].
pub(crate) fn open_regular(path: &Path, links: Links) -> Result<File, RegularFileError> {
    let (found, no_follow) = match links {
        Links::Follow => (std::fs::metadata(path)?, 0),
        Links::Refuse => (std::fs::symlink_metadata(path)?, libc::O_NOFOLLOW),
    };
    if !found.is_file() {
        return Err(RegularFileError::NotRegular);
    }
    // Without effect on a regular file; whatever has come in its place meanwhile is not waited for, and a terminal does
    // not become the process's own.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC | no_follow;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| {
        // A link (where none is followed) or a socket that came meanwhile.
        match (error.raw_os_error(), links) {
            (Some(libc::ELOOP), Links::Refuse) | (Some(libc::ENXIO), _) => RegularFileError::NotRegular,
            _ => error.into(),
        }
    })?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(RegularFileError::NotRegular),
    }
}

/// Reads a regular file as a whole. Links are followed.
///
/// # Errors
/// As [`open_regular`]; [`RegularFileError::TooLong`] when it has more than `bytes_max` bytes.
pub(crate) fn read_regular(path: &Path, bytes_max: u64) -> Result<Vec<u8>, RegularFileError> {
    read_whole(open_regular(path, Links::Follow)?, bytes_max)
}

/// Reads what a user named on the command line, as a whole: a file, or a pipe or device that is waited for.
///
/// # Errors
/// [`RegularFileError::TooLong`] when more than `bytes_max` bytes come, [`RegularFileError::Io`].
pub(crate) fn read_argument(path: &Path, bytes_max: u64) -> Result<Vec<u8>, RegularFileError> {
    read_whole(File::open(path)?, bytes_max)
}

fn read_whole(file: File, bytes_max: u64) -> Result<Vec<u8>, RegularFileError> {
    let len = file.metadata()?.len();
    if len > bytes_max {
        return Err(RegularFileError::TooLong { bytes_max });
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len as usize).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    // It may have grown since; a pipe has no length.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(RegularFileError::TooLong { bytes_max }),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    fn pipe(path: &Path) {
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name is a C string that outlives the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    }

    /// Anything but a regular file is refused at once: a test that hangs here has opened it.
    #[test]
    fn nothing_but_a_regular_file_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        pipe(&at("pipe"));
        std::fs::create_dir(at("directory")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        symlink(at("pipe"), at("to-pipe")).unwrap();
        symlink(at("nothing"), at("dangling")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        std::fs::write(at("file"), "text").unwrap();
        symlink(at("file"), at("to-file")).unwrap();
        let paths = ["pipe", "directory", "socket", "to-pipe", "dangling", "loop", "nothing", "file/below"].map(at);
        for path in paths.into_iter().chain([PathBuf::from("/dev/null"), PathBuf::from("/dev/zero")]) {
            for links in [Links::Follow, Links::Refuse] {
                let error = open_regular(&path, links).expect_err("no regular file");
                assert!(error.is_absence(), "{path:?} {links:?}: {error}");
            }
            assert!(read_regular(&path, 10).unwrap_err().is_absence());
        }
        assert_eq!(read_regular(&at("file"), 4).unwrap(), b"text");
        assert_eq!(read_regular(&at("to-file"), 4).unwrap(), b"text");
        let link = open_regular(&at("to-file"), Links::Refuse).unwrap_err();
        assert!(matches!(link, RegularFileError::NotRegular));
    }

    /// No more is read than the bound and a byte, of a pipe that never ends as well.
    #[test]
    fn reading_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "12345").unwrap();
        for read in [read_regular, read_argument] {
            assert_eq!(read(&file, 5).unwrap(), b"12345");
            let error = read(&file, 4).unwrap_err();
            assert!(matches!(error, RegularFileError::TooLong { bytes_max: 4 }) && !error.is_absence());
        }
        let endless = read_argument(Path::new("/dev/zero"), 100_000).unwrap_err();
        assert!(matches!(endless, RegularFileError::TooLong { .. }));
        assert_eq!(read_argument(Path::new("/dev/null"), 0).unwrap(), b"");
        // A pipe that somebody writes to is read to its end.
        let path = dir.path().join("pipe");
        pipe(&path);
        let writer = std::thread::spawn({
            let path = path.clone();
            move || std::fs::write(path, "from a pipe").unwrap()
        });
        assert_eq!(read_argument(&path, 100).unwrap(), b"from a pipe");
        writer.join().unwrap();
    }
}
