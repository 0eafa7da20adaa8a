//! Regular files, opened without waiting and read within a bound.
//!
//! Any name in a store, an index or an export may belong to a pipe, a socket, a device or a directory that someone
//! else put there. Opening a pipe waits for its other end, opening a device may have an effect, and reading either may
//! never end. So a file that the user did not name on the command line is checked before it is opened, opened without
//! waiting, checked again, and read up to a bound. A file that the user did name may be a pipe: [`read_argument`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Why a regular file was not opened or read.
#[derive(Debug, thiserror::Error)]
pub enum RegularFileError {
    /// A directory, a pipe, a socket, a device, or a symbolic link where none is followed.
    #[error("it is no regular file")]
    NotRegular,
    /// It is longer than the caller's bound.
    #[error("it has more than {bytes_max} bytes")]
    TooLong {
        /// The bound, in bytes.
        bytes_max: u64,
    },
    /// The system failed to open or read it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl RegularFileError {
    /// Whether no regular file has the path: nothing has it, something else has it, or a link leads to nothing.
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

/// How a symbolic link in the last component of a path is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// The file that it leads to is opened.
    Follow,
    /// It is [`RegularFileError::NotRegular`].
    Refuse,
}

/// Opens a regular file for reading, without waiting. If something else takes its place between check and open, that
/// is opened without waiting and closed unread.
///
/// # Errors
/// [`RegularFileError::NotRegular`] when it is no regular file, [`RegularFileError::Io`] when the system cannot open
/// it.
pub(crate) fn open_regular(path: &Path, links: Links) -> Result<File, RegularFileError> {
    let (metadata, no_follow) = match links {
        Links::Follow => (std::fs::metadata(path)?, 0),
        Links::Refuse => (std::fs::symlink_metadata(path)?, libc::O_NOFOLLOW),
    };
    if !metadata.is_file() {
        return Err(RegularFileError::NotRegular);
    }
    // No effect on a regular file. If a pipe or a terminal took its place meanwhile, the open does not wait, and the
    // terminal does not become the controlling one.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC | no_follow;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| {
        // A link (where none is followed) or a socket took its place meanwhile.
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

/// Reads a regular file completely. Links are followed.
///
/// # Errors
/// As [`open_regular`]; [`RegularFileError::TooLong`] when it has more than `bytes_max` bytes.
pub(crate) fn read_regular(path: &Path, bytes_max: u64) -> Result<Vec<u8>, RegularFileError> {
    read_regular_as(path, bytes_max, Links::Follow)
}

/// As [`read_regular`]; a link in the last component is treated as `links` says.
///
/// # Errors
/// As [`read_regular`].
pub(crate) fn read_regular_as(path: &Path, bytes_max: u64, links: Links) -> Result<Vec<u8>, RegularFileError> {
    read_bounded(open_regular(path, links)?, bytes_max)
}

/// Reads a file that the user named completely, within a bound: unlike [`read_regular`], it waits for a pipe or
/// device.
///
/// # Errors
/// [`RegularFileError::TooLong`] when it has more than `bytes_max` bytes, [`RegularFileError::Io`] when the system
/// cannot read it.
pub(crate) fn read_argument(path: &Path, bytes_max: u64) -> Result<Vec<u8>, RegularFileError> {
    read_bounded(File::open(path)?, bytes_max)
}

/// Reads an open file to its end, or fails once it has more than `bytes_max` bytes.
fn read_bounded(file: File, bytes_max: u64) -> Result<Vec<u8>, RegularFileError> {
    let len = file.metadata()?.len();
    if len > bytes_max {
        return Err(RegularFileError::TooLong { bytes_max });
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len as usize).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    // The bound is checked again: the file may have grown since, and a pipe has no length.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(RegularFileError::TooLong { bytes_max }),
        false => Ok(bytes),
    }
}

/// Sets the times of a file to now; a link is not followed. A file whose times cannot be set keeps them.
pub(crate) fn set_times_to_now(path: &Path) {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok();
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
        // A pipe with a writer is read to its end.
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
