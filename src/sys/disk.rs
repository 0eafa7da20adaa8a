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
pub(crate) struct DiskSpace {
    /// Bytes that we may use in all, those reserved for others left out.
    pub total: u64,
    /// Bytes that we may still use.
    pub free: u64,
}

impl DiskSpace {
    /// How full it is, in hundredths, rounded down.
    pub(crate) fn used_hundredths(self) -> u8 {
        let used = u128::from(self.total - self.free.min(self.total));
        (used * 100 / u128::from(self.total.max(1))) as u8
    }
}

/// Room on the disk that holds `path`, which must be there.
///
/// # Errors
/// As the operating system gives them.
pub(crate) fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut report = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a NUL, and the place is as large as what is written to it.
    if unsafe { libc::statvfs(path.as_ptr(), report.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so that all of it is written.
    let reported = unsafe { report.assume_init() };
    // The types of these fields differ between systems.
    #[allow(clippy::unnecessary_cast)]
    let (unit, total, unused, free) =
        (reported.f_frsize as u64, reported.f_blocks as u64, reported.f_bfree as u64, reported.f_bavail as u64);
    let used = total - unused;
    Ok(DiskSpace { total: (used + free) * unit, free: free * unit })
}

/// Takes room for a range of a file that is going to be written; the file's length stays as it is, and what is read of
/// the range until then is zeros. Room behind the file's end is given back by cutting the file to its own length.
///
/// # Errors
/// As the operating system gives them: there is no room, or the file system cannot do it.
pub(crate) fn reserve(file: &File, range: Range<u64>) -> io::Result<()> {
    let to_offset =
        |offset: u64| libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    let (start, len) = (to_offset(range.start)?, to_offset(range.end.saturating_sub(range.start))?);
    // SAFETY: the descriptor is open, and the call touches no memory of ours.
    match unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, start, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes that a file must have for room to be taken ahead.
const ROOM_BYTES_MIN: u64 = 1 << 20;
/// Most room that is taken ahead of writes, in bytes.
const ROOM_BYTES_MAX: u64 = 32 << 20;

/// Room that a file being written from front to end has ahead of it. Without it ext4 counts every block anew as it is
/// written: a third of what a write costs. Files that stay short go without. It is only a hint: a disk that is full
/// says so when it is written to.
pub(crate) struct DiskReservation {
    /// Bytes written.
    len: u64,
    /// Where the room ends; `None` when none can be taken any more.
    reserved: Option<u64>,
}

impl Default for DiskReservation {
    /// Of a file that nothing was written to.
    fn default() -> DiskReservation {
        DiskReservation { len: 0, reserved: Some(0) }
    }
}

impl DiskReservation {
    /// Makes room for a write of so many bytes, which comes next.
    pub(crate) fn reserve_ahead(&mut self, file: &File, len: usize) {
        let end = self.len + len as u64;
        if let Some(reserved) = self.reserved.filter(|reserved| end > (*reserved).max(ROOM_BYTES_MIN)) {
            let ahead = end + end.min(ROOM_BYTES_MAX);
            self.reserved = reserve(file, reserved.max(self.len)..ahead).is_ok().then_some(ahead);
        }
        self.len = end;
    }

    /// Gives back what was not needed, once everything is written; also what a refusal may have left half taken.
    ///
    /// # Errors
    /// When the file cannot be cut to its length.
    pub(crate) fn give_back(&self, file: &File) -> io::Result<()> {
        if self.reserved == Some(0) { Ok(()) } else { file.set_len(self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file takes no more of the disk than its bytes need, whether room could be taken to the end or not.
    #[test]
    fn room_is_given_back() {
        use std::io::Write;
        use std::os::unix::fs::MetadataExt;
        for refused in [false, true] {
            let (mut file, mut room) = (tempfile::tempfile().unwrap(), DiskReservation::default());
            for _ in 0..5 {
                room.reserve_ahead(&file, 1 << 20);
                file.write_all(&vec![1; 1 << 20]).unwrap();
            }
            if refused {
                room.reserved = None;
            }
            room.give_back(&file).unwrap();
            file.sync_all().unwrap();
            let reported = file.metadata().unwrap();
            assert_eq!(reported.len(), 5 << 20);
            assert!(reported.blocks() * 512 <= (5 << 20) + (64 << 10), "{refused}: {} blocks", reported.blocks());
        }
    }

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
