//! Maps of files of our own: an index file that is read, and a new file that is filled in any order.
//!
//! Files of others (a store) are read through `store_file`, which assumes less of them.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memmap2::{MmapMut, MmapOptions};
use rustix::fs::MemfdFlags;

use crate::sys::access::Access;
use crate::sys::little_endian;
use crate::sys::sigbus::Registration;
use crate::sys::store_file::{StoreFile, StoreFileError};

/// A published file of ours, mapped for reading. Such a file never changes under its name, because it is replaced by
/// rename. If it is shortened all the same, its map reads as zeros under the SIGBUS handler, and [`StoreFile::check`]
/// reports it.
#[derive(Debug)]
pub(crate) struct ReadMap {
    source: StoreFile,
}

impl ReadMap {
    /// Maps a file by its path. Reads are scattered, so the kernel is not advised to read ahead.
    ///
    /// # Errors
    /// As [`StoreFile::open`].
    pub(crate) fn open(path: impl AsRef<Path>) -> Result<ReadMap, StoreFileError> {
        // SAFETY: published files of ours are never written to or shortened, by the rules of the format. If another
        // process breaks them, this one dies or reads zeros; it never reads outside of the map.
        let source = StoreFile::open(path, unsafe { Access::mapped() })?;
        ReadMap::of_source(source)
    }

    /// Maps a file that is open already; `name` is its name in messages.
    ///
    /// # Errors
    /// As [`StoreFile::open`].
    pub(crate) fn of_file(file: File, name: &Path) -> Result<ReadMap, StoreFileError> {
        // SAFETY: as in `open`.
        let source = StoreFile::of_file(file, name, unsafe { Access::mapped() })?;
        ReadMap::of_source(source)
    }

    /// Accepts an opened file only if it is mapped or empty.
    fn of_source(source: StoreFile) -> Result<ReadMap, StoreFileError> {
        if source.map().is_none() && !source.is_empty() {
            let error = io::ErrorKind::FileTooLarge.into(); // longer than this machine's addresses
            return Err(StoreFileError::Read { path: source.path().into(), offset: 0, source: error });
        }
        Ok(ReadMap { source })
    }

    /// The mapped file: its path, length and stamp.
    pub(crate) fn source(&self) -> &StoreFile {
        &self.source
    }

    /// Whether every byte read from the map so far was the file's.
    ///
    /// # Errors
    /// As [`StoreFile::check`].
    #[cfg(test)]
    pub(crate) fn check(&self) -> Result<(), StoreFileError> {
        self.source.check()
    }
}

impl Deref for ReadMap {
    type Target = [u8];

    /// The file's bytes; empty for an empty file, which is not mapped.
    #[inline]
    fn deref(&self) -> &[u8] {
        self.source.map().unwrap_or_default()
    }
}

/// Why a new file of known length could not be created, allocated, mapped or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {} of {len} bytes ({doing}): check the free space and the rights of its directory", path.display())]
pub struct GrowError {
    /// Path of the new file.
    pub path: PathBuf,
    /// The length it was to have, in bytes.
    pub len: u64,
    /// The step that failed, as in "take space".
    pub doing: &'static str,
    /// The system's error in that step.
    pub source: io::Error,
}

impl From<GrowError> for io::Error {
    fn from(error: GrowError) -> io::Error {
        io::Error::new(error.source.kind(), error)
    }
}

/// A new file of known length, mapped to be filled in any order. Its blocks are allocated when it is created, so that
/// a full disk is an error then and no signal later. Dropped before [`GrowFile::finish`], a file made by
/// [`GrowFile::create`] is removed.
#[derive(Debug)]
pub struct GrowFile {
    path: PathBuf,
    len: u64,
    file: File,
    map: Option<FilledFile>,
    /// Whether drop keeps the file: it is finished, or has no name of ours.
    finished: bool,
}

/// A new file in memory without a path (memfd_create(2)); freed with its last descriptor and map.
///
/// # Errors
/// The system's error; a `name` with a NUL.
pub(crate) fn memory_file(name: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?))
}

/// The writable map of a [`GrowFile`]. Fields drop in this order: the range is unregistered before it is unmapped.
#[derive(Debug)]
struct FilledFile {
    registration: Option<Registration>,
    map: MmapMut,
}

impl GrowFile {
    /// Creates a file of `len` zero bytes with mode 0600; it must not exist yet.
    ///
    /// # Errors
    /// [`GrowError`] when the file exists, its directory cannot be written, or the disk is full.
    pub fn create(path: impl AsRef<Path>, len: u64) -> Result<GrowFile, GrowError> {
        let path = path.as_ref().to_path_buf();
        let failed = |doing, source| GrowError { path: path.clone(), len, doing, source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .map_err(|source| failed("create", source))?;
        // From here on, dropping it removes the file.
        GrowFile { path, len, file, map: None, finished: false }.allocated()
    }

    /// Extends an empty file that is open already to `len` zero bytes; `name` is its name in messages. It is not
    /// removed on drop.
    ///
    /// # Errors
    /// [`GrowError`] when the disk or the memory is full, or the file cannot be mapped.
    pub fn of_file(file: File, len: u64, name: &Path) -> Result<GrowFile, GrowError> {
        GrowFile { path: name.to_path_buf(), len, file, map: None, finished: true }.allocated()
    }

    /// Allocates the file's blocks and maps it for writing.
    fn allocated(mut self) -> Result<GrowFile, GrowError> {
        let failed = |doing, source| GrowError { path: self.path.clone(), len: self.len, doing, source };
        allocate_blocks(&self.file, self.len).map_err(|source| failed("take space", source))?;
        self.map = FilledFile::new(&self.file, self.len).map_err(|source| failed("map", source))?;
        Ok(self)
    }

    /// The bytes of the file, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.map.as_mut().map(|allocated| &mut allocated.map[..]).unwrap_or_default()
    }

    /// The bytes of the file as `u32`s, to be filled; up to three bytes at the end are left out.
    pub fn u32s_mut(&mut self) -> &mut [u32] {
        little_endian::view_mut(whole_units(self.bytes_mut(), 4)).unwrap_or_default()
    }

    /// The bytes of the file as `u64`s, to be filled; up to seven bytes at the end are left out.
    pub fn u64s_mut(&mut self) -> &mut [u64] {
        little_endian::view_mut(whole_units(self.bytes_mut(), 8)).unwrap_or_default()
    }

    /// Unmaps the file and keeps it; with `sync`, after its bytes are on the disk.
    ///
    /// # Errors
    /// [`GrowError`] when it could not be written to disk, or the SIGBUS handler replaced a page of it.
    pub fn finish(mut self, sync: bool) -> Result<(), GrowError> {
        let failed = |doing, source| GrowError { path: self.path.clone(), len: self.len, doing, source };
        if let Some(allocated) = &self.map {
            if sync {
                allocated.map.flush().map_err(|source| failed("write", source))?;
            }
            if allocated.registration.as_ref().is_some_and(Registration::faulted) {
                return Err(failed("write", io::Error::other("a page of it could not be written")));
            }
        }
        if sync {
            self.file.sync_all().map_err(|source| failed("sync", source))?;
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for GrowFile {
    fn drop(&mut self) {
        if !self.finished {
            // Its name was not handed out yet. If it cannot be removed, the next `create` of this name fails.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl FilledFile {
    /// Maps a new file for writing and registers it with the SIGBUS handler; `None` for an empty one.
    fn new(file: &File, len: u64) -> io::Result<Option<FilledFile>> {
        if len == 0 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: the file is new and ours alone until it is finished: no other process has its name, and its mode
        // keeps other users out.
        let map = unsafe { MmapOptions::new().len(len).map_mut(file)? };
        let registration = Registration::new(&map, libc::PROT_READ | libc::PROT_WRITE);
        Ok(Some(FilledFile { registration, map }))
    }
}

/// The longest prefix of a map's `bytes` whose length is a multiple of `unit`.
fn whole_units(bytes: &mut [u8], unit: usize) -> &mut [u8] {
    let len = bytes.len() / unit * unit;
    &mut bytes[..len]
}

/// Allocates the blocks of a file of `len` bytes (posix_fallocate(3)), so that filling its map cannot fail on a full
/// disk.
fn allocate_blocks(file: &File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let offset = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: the descriptor is open, and the call touches no memory of ours.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, offset) } {
            0 => return Ok(()),
            libc::EINTR => continue,
            // Some file systems have no fallocate: written zeros allocate the blocks as well.
            libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS => return write_zeros(file, len),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Writes `len` zero bytes, for file systems without fallocate.
fn write_zeros(file: &File, len: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < len {
        let piece = (len - offset).min(zeros.len() as u64);
        file.write_all_at(&zeros[..piece as usize], offset)?;
        offset += piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sigbus;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_filled_is_read() {
        let places = [Some(tempfile::tempdir().unwrap()), tempfile::tempdir_in("/dev/shm").ok()];
        for (place, sync) in places.iter().flatten().zip([true, false]) {
            let path = place.path().join("column");
            let mut file = GrowFile::create(&path, 8 * 10_001 + 3).unwrap();
            assert_eq!((file.u64s_mut().len(), file.u32s_mut().len()), (10_001, 20_002));
            for i in (0..10_001).rev() {
                file.u64s_mut()[i] = i as u64 * 3;
            }
            file.u32s_mut()[1] = 7;
            file.bytes_mut()[80_010] = 9;
            file.finish(sync).unwrap();

            let map = ReadMap::open(&path).unwrap();
            assert_eq!(map.len(), 80_011);
            let values = little_endian::view::<u64>(&map[..80_008]).unwrap();
            assert_eq!((values[0], values[10_000], map[80_010]), (7 << 32, 30_000, 9));
            map.check().unwrap();
            assert_eq!(map.source().path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn an_empty_file_and_zeros_by_hand() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        let mut file = GrowFile::create(&path, 0).unwrap();
        assert!(file.bytes_mut().is_empty() && file.u32s_mut().is_empty() && file.u64s_mut().is_empty());
        file.finish(true).unwrap();
        assert!(ReadMap::open(&path).unwrap().is_empty());
        let file = tempfile::tempfile().unwrap();
        write_zeros(&file, (1 << 20) + 5).unwrap();
        assert_eq!(file.metadata().unwrap().len(), (1 << 20) + 5);
    }

    // No space, an existing name, an unfinished file: errors, and no file remains.
    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("column");
        for len in [1 << 60, u64::MAX] {
            let error = GrowFile::create(&path, len).unwrap_err();
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
            assert!(!path.exists());
        }
        drop(GrowFile::create(&path, 100).unwrap());
        assert!(!path.exists());
        std::fs::write(&path, "taken").unwrap();
        assert_eq!(io::Error::from(GrowFile::create(&path, 100).unwrap_err()).kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"taken");
        assert!(matches!(ReadMap::open(dir.path().join("none")), Err(StoreFileError::Open { .. })));
    }

    // Somebody shortens our files against the rules: under the guard that is an error on both sides.
    #[test]
    fn a_shortened_file_is_an_error() {
        sigbus::install().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("column");
        let mut file = GrowFile::create(&path, 1 << 16).unwrap();
        let other = OpenOptions::new().write(true).open(&path).unwrap();
        other.set_len(0).unwrap();
        file.u64s_mut().fill(5);
        assert!(file.finish(true).is_err());
        assert!(!path.exists());

        std::fs::write(&path, vec![1; 1 << 16]).unwrap();
        let map = ReadMap::open(&path).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert_eq!(map.iter().map(|byte| *byte as u64).sum::<u64>(), 0);
        assert!(matches!(map.check(), Err(StoreFileError::Truncated { .. })));
    }
}
