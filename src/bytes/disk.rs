//! How full a disk is, and room on it for a file that is being written.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that we may use in all, those reserved for others left out.
    pub total: u64,
    /// Bytes that we may still use.
    pub free: u64,
}

impl DiskSpace {
    /// How full it is, in hundredths, rounded down.
    pub fn used_hundredths(self) -> u8 {
        let used = u128::from(self.total - self.free.min(self.total));
        (used * 100 / u128::from(self.total.max(1))) as u8
    }
}

/// Room on the disk that holds `path`, which must be there.
///
/// # Errors
/// As the operating system gives them.
pub fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut told = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a NUL, and the place is as large as what is written to it.
    if unsafe { libc::statvfs(path.as_ptr(), told.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so that all of it is written.
    let told = unsafe { told.assume_init() };
    let unit = told.f_frsize;
    let used = told.f_blocks - told.f_bfree;
    let free = told.f_bavail;
    Ok(DiskSpace { total: (used + free) * unit, free: free * unit })
}

/// Takes room for a range of a file that is going to be written; the file's length stays as it is, and what is read of
/// the range until then is zeros. Room behind the file's end is given back by cutting the file to its own length.
///
/// # Errors
/// As the operating system gives them: there is no room, or the file system cannot do it.
pub fn reserve(file: &File, range: Range<u64>) -> io::Result<()> {
    let to_offset = |at: u64| libc::off_t::try_from(at).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    let (start, len) = (to_offset(range.start)?, to_offset(range.end.saturating_sub(range.start))?);
    // SAFETY: the descriptor is open, and the call touches no memory of ours.
    match unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, start, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_room_is_no_part_of_the_file() {
        let file = tempfile::tempfile().unwrap();
        match reserve(&file, 0..1 << 20) {
            Ok(()) => assert_eq!(file.metadata().unwrap().len(), 0),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
        }
        assert!(reserve(&file, 0..u64::MAX).is_err() && reserve(&file, 0..1 << 60).is_err());
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_disk_has_a_size() {
        let space = disk_space(Path::new("/")).unwrap();
        assert!(space.total > 0 && space.free <= space.total && space.used_hundredths() <= 100);
        assert_eq!(DiskSpace { total: 1000, free: 55 }.used_hundredths(), 94);
        assert!(disk_space(Path::new("/not/there")).is_err());
    }
}
