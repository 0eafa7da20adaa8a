//! Read-ahead of ranges that are going to be read: whether a byte is in the page cache, and the request that the kernel read
//! a range into it. No answer depends on either; a system that has neither is slower.

use std::io::IoSliceMut;
use std::ops::Range;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::sys::store_file::StoreFile;

impl StoreFile {
    /// Whether a byte can be read without a wait for the disk, as far as the system tells: a file that is not held open
    /// counts as one whose bytes can, since nothing can be asked for of it.
    pub(crate) fn is_cached(&self, offset: u64) -> bool {
        let Some(file) = self.file() else { return true };
        let mut byte = [0];
        loop {
            match preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) {
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                // Also where the file system cannot tell.
                Err(_) => return false,
            }
        }
    }

    /// Asks the kernel to read a range of the file. Returns at once unless the queue of the disk is full. A failure is
    /// ignored.
    pub(crate) fn will_need(&self, range: Range<u64>) {
        let len = std::num::NonZero::new(range.end.saturating_sub(range.start));
        if let (Some(file), Some(_)) = (self.file(), len) {
            let _ = fadvise(file, range.start, len, Advice::WillNeed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::access::Access;
    use crate::sys::store_file::tests::file_of;

    /// What was just written is in the cache; what was asked for comes there.
    #[test]
    fn ranges_that_are_asked_for_come_to_the_cache() {
        let written = file_of(&vec![7; 1 << 20]);
        let source = StoreFile::open(written.path(), Access::pread()).unwrap();
        assert!(source.is_cached(0) && source.is_cached(700_000));
        written.as_file().sync_all().unwrap();
        let _ = fadvise(written.as_file(), 0, None, Advice::DontNeed);
        // A file system in memory drops nothing.
        if source.is_cached(700_000) {
            return;
        }
        source.will_need(690_000..710_000);
        for _ in 0..2_000 {
            if source.is_cached(700_000) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("the range does not come to the cache");
    }
}
