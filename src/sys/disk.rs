//! Space on a disk: how full it is, and blocks reserved ahead of a file that is being written.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use rustix::fs::FallocateFlags;

/// Size and free space of a file system as this user may use it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskSpace {
    /// Bytes that this user may use in all; those reserved for root are not counted.
    pub total: u64,
    /// Bytes that this user may still use.
    pub free: u64,
}

impl DiskSpace {
    /// Used share of the disk in percent, rounded down.
    pub(crate) fn used_hundredths(self) -> u8 {
        let used = u128::from(self.total - self.free.min(self.total));
        (used * 100 / u128::from(self.total.max(1))) as u8
    }
}

/// Size and free space of the file system that holds `path`, which must exist (statvfs(3)).
///
/// # Errors
/// `InvalidInput` for a path with a NUL, else the system's error.
pub(crate) fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let disk = rustix::fs::statvfs(path)?;
    let used = disk.f_blocks - disk.f_bfree;
    Ok(DiskSpace { total: (used + disk.f_bavail) * disk.f_frsize, free: disk.f_bavail * disk.f_frsize })
}

/// Reserves disk blocks for a range of a file (fallocate(2)). The file's length is unchanged, and unwritten bytes of
/// the range read as zeros. Cutting the file to its length gives back blocks beyond its end.
///
/// # Errors
/// `FileTooLarge` for a range beyond the system's offsets; else the system's: the disk is full, or the file system has
/// no fallocate.
pub(crate) fn reserve(file: &File, range: Range<u64>) -> io::Result<()> {
    if i64::try_from(range.end).is_err() {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let len = range.end.saturating_sub(range.start);
    Ok(rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, range.start, len)?)
}

/// Bytes that a file must reach before blocks are reserved ahead of it.
const RESERVED_FILE_BYTES_MIN: u64 = 1 << 20;
/// Most bytes that are reserved ahead of writes.
const RESERVED_BYTES_MAX: u64 = 32 << 20;

/// Disk blocks reserved ahead of a file that is written from front to end. Without them ext4 accounts for every block
/// as it is written, a third of the cost of a write. Short files have none. It is only a hint: a full disk is reported
/// by the write.
pub(crate) struct DiskReservation {
    /// Bytes written so far, the next write of `reserve_ahead` included.
    len: u64,
    /// Offset at which the reserved blocks end; `None` after a reservation failed, when no more are tried.
    reserved: Option<u64>,
}

impl Default for DiskReservation {
    /// The reservation of an empty file.
    fn default() -> DiskReservation {
        DiskReservation { len: 0, reserved: Some(0) }
    }
}

impl DiskReservation {
    /// Reserves blocks for the next write, of `len` bytes: as many again as the file then has, at most 32 MiB. A
    /// failure is ignored.
    pub(crate) fn reserve_ahead(&mut self, file: &File, len: usize) {
        let end = self.len + len as u64;
        if let Some(reserved) = self.reserved.filter(|reserved| end > (*reserved).max(RESERVED_FILE_BYTES_MIN)) {
            let ahead = end + end.min(RESERVED_BYTES_MAX);
            self.reserved = reserve(file, reserved.max(self.len)..ahead).is_ok().then_some(ahead);
        }
        self.len = end;
    }

    /// Cuts the file to its length after the last write, which gives back unused blocks and those of a reservation
    /// that failed half way.
    ///
    /// # Errors
    /// The system's error when the file cannot be cut.
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
