//! A store file as bytes at offsets, through a map or through `pread`.
//!
//! All bytes of a store pass this type. It knows no lines and no compression (`decode` does), writes nothing, and its
//! length is that of the moment it was opened: what is appended later is invisible, what is cut off later is an error.
//!
//! Bytes read from a map may change or turn to zeros under the reader when somebody else writes to the file. So whoever
//! acts on what was read asks [`StoreFile::check`] afterwards, and never assumes more of mapped bytes than that they are
//! bytes: a check made once (of UTF-8, say) does not hold for a second look.

use crate::sys::access::{Access, AccessKind};
use crate::sys::regular_file::{Links, RegularFileError, open_regular};
use crate::sys::sigbus::Registration;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};
use serde::{Deserialize, Serialize};

/// Size and times of a file. Equal stamps mean the same bytes, as far as times can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileStamp {
    /// Length in bytes.
    pub len: u64,
    /// Last modification, nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
    /// Last change of the file or of what the directory knows of it, nanoseconds since the Unix epoch.
    pub ctime_ns: i64,
}

impl FileStamp {
    fn of(file: &File) -> io::Result<FileStamp> {
        Ok(FileStamp::of_metadata(&file.metadata()?))
    }

    /// Of what the system tells of a file.
    pub fn of_metadata(found: &std::fs::Metadata) -> FileStamp {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        FileStamp {
            len: found.len(),
            mtime_ns: nanos(found.mtime(), found.mtime_nsec()),
            ctime_ns: nanos(found.ctime(), found.ctime_nsec()),
        }
    }
}

/// What can go wrong with a file that is read, each with what to do about it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields say what the messages say
pub enum StoreFileError {
    /// The file could not be opened.
    #[error("cannot open {}: check that it is there and may be read", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// It is a directory, a device, a pipe or a symbolic link.
    #[error("{} is no regular file (symbolic links are not followed): give the file itself", path.display())]
    NotAFile { path: PathBuf },
    /// The system failed to read or map it.
    #[error("cannot read {} at byte {offset}: check the disk or mount, then run again", path.display())]
    Read { path: PathBuf, offset: u64, source: io::Error },
    /// It is shorter than when it was opened.
    #[error(
        "{} was shortened while it was read, from {len_expected} to {len_found} bytes: replace store files by rename, \
         never in place, then run again",
        path.display()
    )]
    Truncated { path: PathBuf, len_expected: u64, len_found: u64 },
    /// A page of the map could not be had: the file was shortened for a while, or its disk fails.
    #[error(
        "a part of {} could not be read while it was mapped: it was shortened and written again, or its disk fails; \
         replace store files by rename, check the disk, then run again",
        path.display()
    )]
    Faulted { path: PathBuf },
    /// Bytes were asked for that the file did not have when it was opened.
    #[error(
        "{} has {len_found} bytes, and bytes {offset} to {end} were asked for: what asks (an index?) was made from \
         another file; build it again",
        path.display()
    )]
    Beyond { path: PathBuf, offset: u64, end: u64, len_found: u64 },
}

impl From<StoreFileError> for io::Error {
    fn from(error: StoreFileError) -> io::Error {
        let kind = match &error {
            StoreFileError::Open { source, .. } | StoreFileError::Read { source, .. } => source.kind(),
            StoreFileError::NotAFile { .. } => io::ErrorKind::InvalidInput,
            StoreFileError::Truncated { .. } | StoreFileError::Faulted { .. } | StoreFileError::Beyond { .. } => {
                io::ErrorKind::UnexpectedEof
            }
        };
        io::Error::new(kind, error)
    }
}

/// In which order a source is going to be read, for the kernel's read-ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOrder {
    /// From the front to the end: read far ahead.
    Scan,
    /// Here and there: read what is asked for.
    Scattered,
}

/// An open regular file of fixed length.
pub struct StoreFile {
    path: PathBuf,
    file: File,
    stamp: FileStamp,
    map: Option<Mapped>,
}

/// Fields drop in this order: the range is forgotten before it is unmapped.
struct Mapped {
    registration: Option<Registration>,
    map: Mmap,
}

impl StoreFile {
    /// Opens a regular file; a symbolic link is not followed. When the guard's table of ranges is full the file is read
    /// by `pread` instead of through a map.
    ///
    /// # Errors
    /// [`StoreFileError::Open`], [`StoreFileError::NotAFile`], or [`StoreFileError::Read`] when it cannot be mapped.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<StoreFile, StoreFileError> {
        let path = path.as_ref();
        match open_regular(path, Links::Refuse) {
            Ok(file) => StoreFile::of_file(file, path, access),
            Err(RegularFileError::NotRegular) => Err(StoreFileError::NotAFile { path: path.to_path_buf() }),
            Err(error) => Err(StoreFileError::Open { path: path.to_path_buf(), source: error.into() }),
        }
    }

    /// As [`StoreFile::open`], of a file that is open already; `path` stands for it in messages.
    ///
    /// # Errors
    /// As [`StoreFile::open`].
    pub(crate) fn of_file(file: File, path: &Path, access: Access) -> Result<StoreFile, StoreFileError> {
        let path = path.to_path_buf();
        let failed = |path: &Path, source| StoreFileError::Read { path: path.into(), offset: 0, source };
        if !file.metadata().map_err(|source| failed(&path, source))?.is_file() {
            return Err(StoreFileError::NotAFile { path });
        }
        let stamp = FileStamp::of(&file).map_err(|source| failed(&path, source))?;
        let map = Mapped::new(&file, stamp.len, access).map_err(|source| failed(&path, source))?;
        Ok(StoreFile { path, file, stamp, map })
    }

    /// The same, ending at `len` if it is longer: what lies behind is not there.
    pub fn up_to(mut self, len: u64) -> StoreFile {
        self.stamp.len = self.stamp.len.min(len);
        self
    }

    /// Length when opened, in bytes.
    pub fn len(&self) -> u64 {
        self.stamp.len
    }

    /// Whether there was nothing in it when opened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size and times when opened.
    pub fn stamp(&self) -> FileStamp {
        self.stamp
    }

    /// The open file, for calls that this type does not know.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file, when it is mapped. Nothing is mapped for an empty file.
    pub fn map(&self) -> Option<&[u8]> {
        self.map.as_ref().map(|mapped| &mapped.map[..self.stamp.len as usize])
    }

    /// `len` bytes from `offset`: borrowed from the map, else read into `buf`, whose old contents do not matter and
    /// which is never made smaller.
    ///
    /// # Errors
    /// [`StoreFileError::Beyond`], [`StoreFileError::Read`]; without a map [`StoreFileError::Truncated`] (with a map,
    /// [`StoreFile::check`] tells).
    pub fn read<'b>(&'b self, offset: u64, len: usize, buf: &'b mut Vec<u8>) -> Result<&'b [u8], StoreFileError> {
        let end = offset.saturating_add(len as u64);
        if end > self.len() {
            return Err(StoreFileError::Beyond { path: self.path.clone(), offset, end, len_found: self.len() });
        }
        match self.map() {
            Some(map) => Ok(&map[offset as usize..end as usize]),
            None => self.pread(offset, len, buf),
        }
    }

    /// `len` bytes from `offset`, read into `buf` whether the file is mapped or not: for bytes that are wanted once,
    /// which is cheaper than to fault their pages in (measured: a quarter less CPU time for whole files, half for
    /// scattered rows).
    ///
    /// # Errors
    /// [`StoreFileError::Beyond`], [`StoreFileError::Read`], [`StoreFileError::Truncated`].
    pub fn pread<'b>(&self, offset: u64, len: usize, buf: &'b mut Vec<u8>) -> Result<&'b [u8], StoreFileError> {
        if offset.saturating_add(len as u64) > self.len() {
            let end = offset.saturating_add(len as u64);
            return Err(StoreFileError::Beyond { path: self.path.clone(), offset, end, len_found: self.len() });
        }
        if buf.len() < len {
            buf.try_reserve_exact(len - buf.len())
                .map_err(|_| self.failed(offset, io::ErrorKind::OutOfMemory.into()))?;
            buf.resize(len, 0);
        }
        self.pread_into(offset, &mut buf[..len])?;
        Ok(&buf[..len])
    }

    /// As [`StoreFile::pread`], into a place of this length.
    ///
    /// # Errors
    /// As [`StoreFile::pread`].
    pub fn pread_into(&self, offset: u64, place: &mut [u8]) -> Result<(), StoreFileError> {
        let end = offset.saturating_add(place.len() as u64);
        if end > self.len() {
            return Err(StoreFileError::Beyond { path: self.path.clone(), offset, end, len_found: self.len() });
        }
        match self.file.read_exact_at(place, offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.check()?;
                Err(StoreFileError::Faulted { path: self.path.clone() }) // it has grown again meanwhile
            }
            Err(error) => Err(self.failed(offset, error)),
        }
    }

    /// Tells the kernel how this file is going to be read. Advice only, so a refusal does not matter.
    pub fn advise(&self, order: ReadOrder) {
        let (map_advice, file_advice) = match order {
            ReadOrder::Scan => (memmap2::Advice::Sequential, libc::POSIX_FADV_SEQUENTIAL),
            ReadOrder::Scattered => (memmap2::Advice::Random, libc::POSIX_FADV_RANDOM),
        };
        match &self.map {
            Some(mapped) => drop(mapped.map.advise(map_advice)),
            // SAFETY: the descriptor is open, and the call touches no memory of ours.
            None => drop(unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, file_advice) }),
        }
    }

    /// Whether everything read so far was really there. What was overwritten in place without getting shorter passes:
    /// ask [`StoreFile::changed`] about that.
    ///
    /// # Errors
    /// [`StoreFileError::Truncated`] when the file is now shorter than at open, [`StoreFileError::Faulted`] when the guard
    /// had to put zeros in the place of a page.
    pub fn check(&self) -> Result<(), StoreFileError> {
        let (path, len_expected) = (self.path.clone(), self.len());
        let len_found = self.stamp_now()?.len;
        if len_found < len_expected {
            return Err(StoreFileError::Truncated { path, len_expected, len_found });
        }
        match &self.map {
            Some(Mapped { registration: Some(range), .. }) if range.faulted() => Err(StoreFileError::Faulted { path }),
            _ => Ok(()),
        }
    }

    /// Whether the file was written to since it was opened (an append counts).
    ///
    /// # Errors
    /// [`StoreFileError::Read`].
    pub fn changed(&self) -> Result<bool, StoreFileError> {
        Ok(self.stamp_now()? != self.stamp)
    }

    fn stamp_now(&self) -> Result<FileStamp, StoreFileError> {
        FileStamp::of(&self.file).map_err(|source| self.failed(0, source))
    }

    fn failed(&self, offset: u64, source: io::Error) -> StoreFileError {
        StoreFileError::Read { path: self.path.clone(), offset, source }
    }
}

impl Mapped {
    fn new(file: &File, len: u64, access: Access) -> io::Result<Option<Mapped>> {
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        if len == 0 || !access.is_mapped() {
            return Ok(None);
        }
        // SAFETY: the map is read-only. That the file does not shrink under it is the promise of `Access::mapped`, or
        // does no harm under the guard; without the guard's care the map is dropped again below.
        let map = unsafe { MmapOptions::new().len(len).map(file)? };
        let registration = Registration::new(&map, libc::PROT_READ);
        if access.0 == AccessKind::MappedUnderGuard && registration.is_none() {
            return Ok(None);
        }
        Ok(Some(Mapped { registration, map }))
    }
}

impl std::fmt::Debug for StoreFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({}, {} bytes, mapped: {})", self.path.display(), self.len(), self.map.is_some())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys::sigbus;
    use std::io::Write;

    /// Every way to read a file.
    pub(crate) fn accesses() -> [Access; 2] {
        [Access::pread(), sigbus::install().unwrap()]
    }

    pub(crate) fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn reads_what_was_there_at_open() {
        for access in accesses() {
            let mut file = file_of(b"0123456789");
            let source = StoreFile::open(file.path(), access).unwrap();
            file.write_all(b"more").unwrap();
            let mut buf = Vec::new();
            assert_eq!(source.map().is_some(), access.is_mapped());
            assert_eq!((source.len(), source.read(3, 4, &mut buf).unwrap()), (10, &b"3456"[..]));
            assert_eq!(source.read(10, 0, &mut buf).unwrap(), b"");
            for (offset, len) in [(3, 8), (11, 0), (u64::MAX, 1), (0, usize::MAX)] {
                let error = source.read(offset, len, &mut buf).unwrap_err();
                assert!(matches!(error, StoreFileError::Beyond { len_found: 10, .. }), "{error:?}");
            }
            source.check().unwrap();
            assert!(source.changed().unwrap());
            source.advise(ReadOrder::Scan);
            source.advise(ReadOrder::Scattered);
        }
    }

    #[test]
    fn an_empty_file_is_fine() {
        for access in accesses() {
            let file = file_of(b"");
            let source = StoreFile::open(file.path(), access).unwrap();
            assert!(source.is_empty() && source.map().is_none());
            assert_eq!(source.read(0, 0, &mut Vec::new()).unwrap(), b"");
            source.check().unwrap();
            assert!(!source.changed().unwrap());
        }
    }

    // The file loses its second half under its reader: no signal, and an error that names it.
    #[test]
    fn truncation_is_an_error_and_no_signal() {
        for access in accesses() {
            let file = file_of(&vec![7; 1 << 20]);
            let source = StoreFile::open(file.path(), access).unwrap();
            let mut buf = Vec::new();
            assert_eq!(source.read(0, 1 << 20, &mut buf).unwrap()[1 << 19], 7);
            file.as_file().set_len(1 << 19).unwrap();
            let read = source.read(0, 1 << 20, &mut buf).map(|bytes| bytes[(1 << 20) - 1]);
            match read {
                Ok(byte) => assert_eq!(byte, 0),
                Err(error) => assert!(matches!(error, StoreFileError::Truncated { len_found: 0x80000, .. })),
            }
            let error = source.check().unwrap_err();
            assert!(error.to_string().contains(&*file.path().to_string_lossy()), "{error}");
            // Growing again does not wash the fault away for who has read zeros.
            file.as_file().set_len(1 << 20).unwrap();
            assert_eq!(source.check().is_err(), access.is_mapped());
            assert!(source.changed().unwrap());
        }
    }

    #[test]
    fn only_regular_files_open() {
        let dir = tempfile::tempdir().unwrap();
        let (link, pipe) = (dir.path().join("link"), dir.path().join("pipe"));
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
        // SAFETY: a C string that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        for path in [dir.path(), &link, &pipe] {
            let error = StoreFile::open(path, Access::pread()).unwrap_err();
            assert!(matches!(error, StoreFileError::NotAFile { .. }), "{error:?}");
        }
        let error = StoreFile::open(dir.path().join("none"), Access::pread()).unwrap_err();
        assert!(matches!(error, StoreFileError::Open { .. }), "{error:?}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    }
}
