//! Stamps of the files of a directory, taken by their names in it: of many files the path of the directory is then resolved
//! once. Nothing in the directory is opened.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::sys::store_file::FileStamp;

/// A directory whose files are looked at by their names.
pub(crate) struct StampedDirectory(OwnedFd);

impl StampedDirectory {
    /// Opens a directory by a path, in which links are followed.
    ///
    /// # Errors
    /// The system's error of open(2).
    pub(crate) fn open(path: &Path) -> io::Result<StampedDirectory> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(StampedDirectory(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// The stamp of the regular file of this name; `None` when something else has the name, a link too.
    ///
    /// # Errors
    /// The system's error of fstatat(2): `NotFound` when nothing has the name.
    pub(crate) fn stamp(&self, name: &OsStr) -> io::Result<Option<FileStamp>> {
        let found = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        Ok(is_file.then(|| stamp_of(&found)))
    }
}

/// Stamp of a file from what stat(2) says of it, as [`FileStamp::of_metadata`] makes it.
#[allow(clippy::unnecessary_cast, reason = "the types of the fields differ between architectures")]
fn stamp_of(stat: &Stat) -> FileStamp {
    let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    FileStamp {
        len: stat.st_size.max(0) as u64,
        mtime_ns: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime_ns: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        inode: stat.st_ino as u64,
        device: stat.st_dev as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A stamp taken by name is the one of the file's metadata; what is no regular file has none.
    #[test]
    fn stamps_are_those_of_the_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("a"), "text").unwrap();
        std::fs::create_dir(at("b")).unwrap();
        symlink(at("a"), at("c")).unwrap();
        let stamps = StampedDirectory::open(dir.path()).unwrap();
        let of_metadata = FileStamp::of_metadata(&std::fs::symlink_metadata(at("a")).unwrap());
        assert_eq!(stamps.stamp(OsStr::new("a")).unwrap(), Some(of_metadata));
        assert_eq!(stamps.stamp(OsStr::new("b")).unwrap(), None);
        assert_eq!(stamps.stamp(OsStr::new("c")).unwrap(), None);
        assert_eq!(stamps.stamp(OsStr::new("d")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(StampedDirectory::open(&at("a")).is_err() && StampedDirectory::open(&at("d")).is_err());
    }
}
