//! How full a disk is.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
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
    let unit = told.f_frsize as u64;
    let used = (told.f_blocks - told.f_bfree) as u64;
    let free = told.f_bavail as u64;
    Ok(DiskSpace { total: (used + free) * unit, free: free * unit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_a_size() {
        let space = disk_space(Path::new("/")).unwrap();
        assert!(space.total > 0 && space.free <= space.total && space.used_hundredths() <= 100);
        assert_eq!(DiskSpace { total: 1000, free: 55 }.used_hundredths(), 94);
        assert!(disk_space(Path::new("/not/there")).is_err());
    }
}
