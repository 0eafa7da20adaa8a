//! A store file as bytes at offsets, through a map or through `pread`.
//!
//! All bytes of a store are read through this type. It knows no lines and no compression (`codec` does) and writes
//! nothing. Its length is that at open: bytes appended later are invisible, bytes cut off later are an error.
//!
//! A store file is held open, or it is opened whenever it is read, so that a store may have more files than a process may
//! have open. Of a file that is held, deleting it or replacing it by rename changes nothing; of one that is not, both are an
//! error that names it ([`StoreFileError::Replaced`]).
//!
//! Bytes read from a map may change or turn to zeros under the reader when another process writes to the file. So a
//! caller that acts on bytes it read calls [`StoreFile::check`] afterwards, and relies on nothing it verified in
//! mapped bytes: a check made once (of UTF-8, say) does not hold for a second read.

use crate::count_text::counted;
use crate::sys::access::{Access, AccessKind};
use crate::sys::held_files::{HeldFileSlot, drop_recent, held_files_max, keep_recent};
use crate::sys::process_limits::reached_limit;
use crate::sys::regular_file::{Links, RegularFileError, open_regular};
use crate::sys::sigbus::Registration;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use memmap2::{Mmap, MmapOptions};
use serde::{Deserialize, Serialize};

/// Length, times and identity of a file. Equal stamps mean equal bytes if the stamp was settled when it was taken
/// ([`FileStamp::is_settled`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileStamp {
    /// Length in bytes.
    pub len: u64,
    /// Last modification, nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
    /// Last change of the file or of its inode, nanoseconds since the Unix epoch.
    pub ctime_ns: i64,
    /// Number of the inode; 0 in a stamp of earlier versions, which had none.
    #[serde(default)]
    pub inode: u64,
    /// Number of the device; 0 in a stamp of earlier versions.
    #[serde(default)]
    pub device: u64,
}

/// Step in nanoseconds of the clock that stamps the files of a local file system: a tick of the kernel (10 ms at most),
/// and a margin.
const CLOCK_STEP_NS: i64 = 30_000_000;

/// Step in nanoseconds of the times of a file system that keeps whole seconds (ext3, ext4 with small inodes, many NAS)
/// or every second of them (FAT), and a margin.
const COARSE_STEP_NS: i64 = 2_100_000_000;

impl FileStamp {
    /// Stamp of an open file.
    fn of(file: &File) -> io::Result<FileStamp> {
        Ok(FileStamp::of_metadata(&file.metadata()?))
    }

    /// Stamp of a file from its metadata.
    pub fn of_metadata(metadata: &std::fs::Metadata) -> FileStamp {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        FileStamp {
            len: metadata.len(),
            mtime_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    /// Whether the file was older than the clock step of its file system at `now` (nanoseconds since the Unix epoch, by
    /// the clock that stamps files), so that no later write can leave the stamp as it is. A time of whole seconds is
    /// taken for that of a file system that keeps no more. A time in the future is never settled.
    pub fn is_settled(&self, now: i64) -> bool {
        let is_coarse = [self.mtime_ns, self.ctime_ns].iter().any(|time| time % 1_000_000_000 == 0);
        let step = if is_coarse { COARSE_STEP_NS } else { CLOCK_STEP_NS };
        now.saturating_sub(self.mtime_ns.max(self.ctime_ns)) >= step
    }
}

/// The time now in nanoseconds since the Unix epoch, by the clock that local file systems stamp files with. Only to be
/// compared with the times of files: no answer depends on it, only which files are read again.
pub(crate) fn file_clock_ns() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to memory of this function, and the clock is one that every Linux has.
    match unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut now) } {
        0 => now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec),
        // Before every time: no stamp is settled.
        _ => i64::MIN,
    }
}

/// Why a store file was not opened or read; each message names a remedy.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields say what the messages say
pub enum StoreFileError {
    /// The file could not be opened.
    #[error("cannot open {}: check that it is there and may be read", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The file could not be opened because as many files are open as may be.
    #[error(
        "cannot open {}, one of {} of the store: as many files are open as may be: allow more",
        path.display(), counted(*files as u64, "file")
    )]
    TooManyOpen { path: PathBuf, files: usize, source: io::Error },
    /// It was not held open, and another file, or none, has its path by now.
    #[error(
        "{} was removed or replaced after the snapshot of the store was taken, and could not be held open: a process with this \
         limit of open files holds {held_max} store files: run again when no file of the store is being replaced; join files of \
         the store, or allow more open files (ulimit -n, or LimitNOFILE of the service), so that all are held",
        path.display()
    )]
    Replaced { path: PathBuf, held_max: usize },
    /// It is a directory, a device, a pipe, a socket or a symbolic link.
    #[error("{} is no regular file, or a symbolic link where none is followed: give the file itself", path.display())]
    NotAFile { path: PathBuf },
    /// The system failed to read or map it.
    #[error("cannot read {} at byte {offset}: check the disk or mount, then run again", path.display())]
    Read { path: PathBuf, offset: u64, source: io::Error },
    /// It is shorter than when it was opened.
    #[error(
        "{} was shortened while it was read, from {len_expected} to {}: replace store files by rename, never in place, then run \
         again",
        path.display(), counted(*len_found, "byte")
    )]
    Truncated { path: PathBuf, len_expected: u64, len_found: u64 },
    /// The SIGBUS handler replaced a page of the map: the file was shortened for a while, or its disk fails.
    #[error(
        "a part of {} could not be read while it was mapped: it was shortened and written again, or its disk fails; \
         replace store files by rename, check the disk, then run again",
        path.display()
    )]
    Faulted { path: PathBuf },
    /// The requested range ends behind the length that the file had when it was opened.
    #[error(
        "{} has {}, and bytes {offset} to {end} were asked for: what asks (an index?) was made from another file; build it again",
        path.display(), counted(*len_found, "byte")
    )]
    Beyond { path: PathBuf, offset: u64, end: u64, len_found: u64 },
}

impl StoreFileError {
    /// The same of one of so many files of a store, whose number is told where a limit of the process is what was reached.
    pub(crate) fn of_store(self, files: usize) -> StoreFileError {
        match self {
            StoreFileError::Open { path, source } if reached_limit(&source).is_some() => {
                StoreFileError::TooManyOpen { path, files, source }
            }
            other => other,
        }
    }
}

impl From<StoreFileError> for io::Error {
    fn from(error: StoreFileError) -> io::Error {
        let kind = match &error {
            StoreFileError::Open { source, .. }
            | StoreFileError::TooManyOpen { source, .. }
            | StoreFileError::Read { source, .. } => source.kind(),
            StoreFileError::NotAFile { .. } => io::ErrorKind::InvalidInput,
            StoreFileError::Truncated { .. } | StoreFileError::Faulted { .. } | StoreFileError::Beyond { .. } => {
                io::ErrorKind::UnexpectedEof
            }
            StoreFileError::Replaced { .. } => io::ErrorKind::NotFound,
        };
        io::Error::new(kind, error)
    }
}

/// The order in which a store file is going to be read, for the kernel's read-ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOrder {
    /// From start to end: read far ahead.
    Scan,
    /// At scattered offsets: read only the requested bytes.
    Scattered,
}

/// A regular file of fixed length: the length it had when it was first opened.
pub struct StoreFile {
    path: PathBuf,
    stamp: FileStamp,
    hold: StoreFileHold,
}

/// Whether a store file is held open. Fields drop in this order: a slot is given back when its file is closed.
enum StoreFileHold {
    /// It is, and may be mapped.
    Open {
        /// Made when bytes of it are first asked for; `None` if there is to be none, or the system has no room for it.
        map: OnceLock<Option<Mapped>>,
        access: Access,
        file: File,
        /// `None` where its descriptor is not one of a store's, of which there may be many.
        _slot: Option<HeldFileSlot>,
    },
    /// It is opened when it is read. Its descriptor is kept as long as it is one of the last few.
    Reopened { links: Links, recent: Mutex<Weak<File>> },
}

/// The descriptor of a store file while it is read.
enum Descriptor<'a> {
    Held(&'a File),
    Recent(Arc<File>),
}

impl Deref for Descriptor<'_> {
    type Target = File;
    fn deref(&self) -> &File {
        match self {
            Descriptor::Held(file) => file,
            Descriptor::Recent(file) => file,
        }
    }
}

/// The map of a store file. Fields drop in this order: the range is unregistered before it is unmapped.
struct Mapped {
    /// `None` when the SIGBUS handler is not installed or its table is full.
    registration: Option<Registration>,
    map: Mmap,
}

impl StoreFile {
    /// Opens a regular file; a symbolic link is not followed. When the guard's table of ranges is full, the file is
    /// read by `pread` instead of through a map.
    ///
    /// # Errors
    /// [`StoreFileError::Open`] when it cannot be opened, [`StoreFileError::NotAFile`] when it is no regular file, or
    /// [`StoreFileError::Read`] when it cannot be mapped.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<StoreFile, StoreFileError> {
        StoreFile::open_by(path.as_ref(), access, Links::Refuse)
    }

    /// As [`StoreFile::open`]; a link in the last component is treated as `links` says.
    ///
    /// # Errors
    /// As [`StoreFile::open`].
    pub(crate) fn open_by(path: &Path, access: Access, links: Links) -> Result<StoreFile, StoreFileError> {
        StoreFile::of_file(open_store_file(path, links)?, path, access)
    }

    /// As [`StoreFile::open_by`], for one of many files. It is held open if the process may hold one more and `may_hold`,
    /// else it is opened when it is read, and then must be the same file as here. `expected` is the stamp that the file had
    /// in a snapshot of the store: another inode is an error.
    ///
    /// # Errors
    /// As [`StoreFile::open`]; [`StoreFileError::Replaced`].
    pub(crate) fn open_one_of_many(
        path: &Path,
        access: Access,
        links: Links,
        may_hold: bool,
        expected: Option<&FileStamp>,
    ) -> Result<StoreFile, StoreFileError> {
        if let Some(slot) = may_hold.then(HeldFileSlot::take).flatten() {
            // Mapped when a reader asks for it: most store files are read by `pread` alone.
            let mut source = StoreFile::unmapped(open_store_file(path, links)?, path, access)?;
            if let StoreFileHold::Open { _slot, .. } = &mut source.hold {
                *_slot = Some(slot);
            }
            // Another file has its path by now: what is known of the one before says nothing of its bytes.
            if let Some(known) = expected.filter(|known| known.inode != 0)
                && (known.inode, known.device) != (source.stamp.inode, source.stamp.device)
            {
                return Err(source.replaced());
            }
            return Ok(source);
        }
        let path = path.to_path_buf();
        let hold = StoreFileHold::Reopened { links, recent: Mutex::new(Weak::new()) };
        let mut source = StoreFile { path, stamp: expected.copied().unwrap_or_default(), hold };
        let file = source.reopen(links, expected.is_some())?;
        source.stamp = FileStamp::of(&file).map_err(|error| source.read_error(0, error))?;
        if let StoreFileHold::Reopened { recent, .. } = &mut source.hold {
            let file = Arc::new(file);
            *recent.get_mut().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&file);
            keep_recent(file);
        }
        Ok(source)
    }

    /// As [`StoreFile::open`], for a file that is open already; `path` is its name in messages.
    ///
    /// # Errors
    /// [`StoreFileError::NotAFile`] when it is no regular file, [`StoreFileError::Read`] when it cannot be mapped.
    pub(crate) fn of_file(file: File, path: &Path, access: Access) -> Result<StoreFile, StoreFileError> {
        let mut source = StoreFile::unmapped(file, path, access)?;
        if let StoreFileHold::Open { map, file, .. } = &mut source.hold {
            let made = Mapped::new(file, source.stamp.len, access);
            *map =
                OnceLock::from(made.map_err(|source| StoreFileError::Read { path: path.into(), offset: 0, source })?);
        }
        Ok(source)
    }

    /// As [`StoreFile::of_file`], without a map so far.
    fn unmapped(file: File, path: &Path, access: Access) -> Result<StoreFile, StoreFileError> {
        let path = path.to_path_buf();
        let read_error = |path: &Path, source| StoreFileError::Read { path: path.into(), offset: 0, source };
        let metadata = file.metadata().map_err(|source| read_error(&path, source))?;
        if !metadata.is_file() {
            return Err(StoreFileError::NotAFile { path });
        }
        let stamp = FileStamp::of_metadata(&metadata);
        Ok(StoreFile { path, stamp, hold: StoreFileHold::Open { map: OnceLock::new(), access, file, _slot: None } })
    }

    /// Opens a file that is not held by its path. If it `is_known`, it must be the one that has its stamp: another may only
    /// be the same file with other bytes, which the caller's checks of its contents find, or with more.
    fn reopen(&self, links: Links, is_known: bool) -> Result<File, StoreFileError> {
        let file = match open_store_file(&self.path, links) {
            Err(StoreFileError::NotAFile { .. }) if is_known => return Err(self.replaced()),
            Err(StoreFileError::Open { source, .. })
                if is_known && RegularFileError::Io(io::Error::from(source.kind())).is_absence() =>
            {
                return Err(self.replaced());
            }
            opened => opened?,
        };
        if is_known {
            self.check_stamp(&FileStamp::of(&file).map_err(|source| self.read_error(0, source))?)?;
        }
        Ok(file)
    }

    /// Compares the stamp that the path of a file that is not held has now with that of the file.
    fn check_stamp(&self, now: &FileStamp) -> Result<(), StoreFileError> {
        let (known, path) = (&self.stamp, self.path.clone());
        // Stamps of earlier versions of an index have no inode.
        if known.inode != 0 && (now.inode, now.device) != (known.inode, known.device) {
            return Err(self.replaced());
        }
        match now.len < known.len {
            true => Err(StoreFileError::Truncated { path, len_expected: known.len, len_found: now.len }),
            false => Ok(()),
        }
    }

    /// A [`StoreFileError::Replaced`] of this file.
    fn replaced(&self) -> StoreFileError {
        StoreFileError::Replaced { path: self.path.clone(), held_max: held_files_max() }
    }

    /// The descriptor to read the file by.
    fn descriptor(&self) -> Result<Descriptor<'_>, StoreFileError> {
        match &self.hold {
            StoreFileHold::Open { file, .. } => Ok(Descriptor::Held(file)),
            StoreFileHold::Reopened { links, recent } => {
                let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(file) = recent.upgrade() {
                    return Ok(Descriptor::Recent(file));
                }
                let file = Arc::new(self.reopen(*links, true)?);
                *recent = Arc::downgrade(&file);
                drop(recent);
                keep_recent(file.clone());
                Ok(Descriptor::Recent(file))
            }
        }
    }

    /// The same file with a length of at most `len` bytes; later bytes are invisible.
    pub fn up_to(mut self, len: u64) -> StoreFile {
        self.stamp.len = self.stamp.len.min(len);
        self
    }

    /// Length when opened (or as cut by [`StoreFile::up_to`]), in bytes.
    pub fn len(&self) -> u64 {
        self.stamp.len
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stamp of the file when it was opened.
    pub fn stamp(&self) -> FileStamp {
        self.stamp
    }

    /// The open file, for system calls that this type does not offer; `None` of one that is not held open.
    pub(crate) fn file(&self) -> Option<&File> {
        match &self.hold {
            StoreFileHold::Open { file, .. } => Some(file),
            StoreFileHold::Reopened { .. } => None,
        }
    }

    /// The map of the file, if it has one by now.
    fn mapped(&self) -> Option<&Mapped> {
        match &self.hold {
            StoreFileHold::Open { map, .. } => map.get()?.as_ref(),
            StoreFileHold::Reopened { .. } => None,
        }
    }

    /// The map of the file, made if it is to have one. Where there is no room for it, the file is read by `pread`.
    #[inline]
    fn mapped_now(&self) -> Option<&Mapped> {
        match &self.hold {
            StoreFileHold::Open { map, access, file, .. } => {
                map.get_or_init(|| Mapped::new(file, self.stamp.len, *access).ok().flatten()).as_ref()
            }
            StoreFileHold::Reopened { .. } => None,
        }
    }

    /// The path that the store file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes of the file if it is mapped; `None` with `pread`, for an empty file, which is never mapped, and for one that
    /// is not held open.
    #[inline]
    pub fn map(&self) -> Option<&[u8]> {
        self.mapped_now().map(|mapped| &mapped.map[..self.stamp.len as usize])
    }

    /// `len` bytes from `offset`: borrowed from the map, else read into `buf`, whose contents are overwritten and
    /// which never shrinks.
    ///
    /// # Errors
    /// [`StoreFileError::Beyond`] when the range ends behind the file's length; [`StoreFileError::Read`] when the
    /// system fails; without a map [`StoreFileError::Truncated`] (with a map, [`StoreFile::check`] reports it).
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

    /// `len` bytes from `offset`, read into `buf` even if the file is mapped: for bytes that are needed once, which is
    /// cheaper than faulting in their pages (measured: a quarter less CPU time for whole files, half for scattered
    /// rows).
    ///
    /// # Errors
    /// As [`StoreFile::pread_into`].
    pub fn pread<'b>(&self, offset: u64, len: usize, buf: &'b mut Vec<u8>) -> Result<&'b [u8], StoreFileError> {
        if offset.saturating_add(len as u64) > self.len() {
            let end = offset.saturating_add(len as u64);
            return Err(StoreFileError::Beyond { path: self.path.clone(), offset, end, len_found: self.len() });
        }
        if buf.len() < len {
            buf.try_reserve_exact(len - buf.len())
                .map_err(|_| self.read_error(offset, io::ErrorKind::OutOfMemory.into()))?;
            buf.resize(len, 0);
        }
        self.pread_into(offset, &mut buf[..len])?;
        Ok(&buf[..len])
    }

    /// Fills `buf` with the bytes from `offset`, even if the file is mapped.
    ///
    /// # Errors
    /// [`StoreFileError::Beyond`] when the range ends behind the file's length, [`StoreFileError::Truncated`] when the
    /// file was shortened since, [`StoreFileError::Read`] when the system fails.
    pub fn pread_into(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreFileError> {
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.len() {
            return Err(StoreFileError::Beyond { path: self.path.clone(), offset, end, len_found: self.len() });
        }
        match self.descriptor()?.read_exact_at(buf, offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.check()?;
                // It was shortened during the read and has grown again since.
                Err(StoreFileError::Faulted { path: self.path.clone() })
            }
            Err(error) => Err(self.read_error(offset, error)),
        }
    }

    /// Advises the kernel of the order in which the file is going to be read. A failure is ignored.
    pub fn advise(&self, order: ReadOrder) {
        let (map_advice, file_advice) = match order {
            ReadOrder::Scan => (memmap2::Advice::Sequential, rustix::fs::Advice::Sequential),
            ReadOrder::Scattered => (memmap2::Advice::Random, rustix::fs::Advice::Random),
        };
        match (self.mapped(), self.file()) {
            (Some(mapped), _) => drop(mapped.map.advise(map_advice)),
            (None, Some(file)) => drop(rustix::fs::fadvise(file, 0, None, file_advice)),
            // The advice would end with the descriptor.
            (None, None) => {}
        }
    }

    /// Whether every byte read so far was the file's, and the path of one that is not held still is. Bytes overwritten in place without shortening pass:
    /// [`StoreFile::changed`] reports those.
    ///
    /// # Errors
    /// [`StoreFileError::Truncated`] when the file is now shorter than at open, [`StoreFileError::Faulted`] when the
    /// guard replaced a page of the map by zeros, [`StoreFileError::Replaced`].
    pub fn check(&self) -> Result<(), StoreFileError> {
        let (path, len_expected) = (self.path.clone(), self.len());
        let len_found = self.current_stamp()?.len;
        if len_found < len_expected {
            return Err(StoreFileError::Truncated { path, len_expected, len_found });
        }
        match self.mapped() {
            Some(Mapped { registration: Some(range), .. }) if range.faulted() => Err(StoreFileError::Faulted { path }),
            _ => Ok(()),
        }
    }

    /// Whether the file's stamp differs from that at open; an append counts.
    ///
    /// # Errors
    /// [`StoreFileError::Read`] when the system fails; as [`StoreFile::check`] of one that is not held.
    pub fn changed(&self) -> Result<bool, StoreFileError> {
        Ok(self.current_stamp()? != self.stamp)
    }

    /// Stamp of the file now.
    fn current_stamp(&self) -> Result<FileStamp, StoreFileError> {
        let links = match &self.hold {
            StoreFileHold::Open { file, .. } => {
                return FileStamp::of(file).map_err(|source| self.read_error(0, source));
            }
            StoreFileHold::Reopened { links, .. } => links,
        };
        // By its path: a descriptor that happens to be kept must not decide the answer.
        let found = match links {
            Links::Follow => std::fs::metadata(&self.path),
            Links::Refuse => std::fs::symlink_metadata(&self.path),
        };
        match found {
            Ok(found) if found.is_file() => {
                let now = FileStamp::of_metadata(&found);
                self.check_stamp(&now).map(|()| now)
            }
            Ok(_) => Err(self.replaced()),
            Err(error) if RegularFileError::Io(io::Error::from(error.kind())).is_absence() => Err(self.replaced()),
            Err(source) => Err(self.read_error(0, source)),
        }
    }

    /// A [`StoreFileError::Read`] of this file.
    fn read_error(&self, offset: u64, source: io::Error) -> StoreFileError {
        StoreFileError::Read { path: self.path.clone(), offset, source }
    }
}

/// Opens a regular file of a store by its path.
fn open_store_file(path: &Path, links: Links) -> Result<File, StoreFileError> {
    match open_regular(path, links) {
        Ok(file) => Ok(file),
        Err(RegularFileError::NotRegular) => Err(StoreFileError::NotAFile { path: path.to_path_buf() }),
        Err(error) => Err(StoreFileError::Open { path: path.to_path_buf(), source: error.into() }),
    }
}

impl Drop for StoreFile {
    fn drop(&mut self) {
        if let StoreFileHold::Reopened { recent, .. } = &mut self.hold
            && let Some(file) = recent.get_mut().unwrap_or_else(PoisonError::into_inner).upgrade()
        {
            drop_recent(&file);
        }
    }
}

impl Mapped {
    /// Maps a store file as `access` says and registers the range; `None` when it is to be read by `pread`.
    fn new(file: &File, len: u64, access: Access) -> io::Result<Option<Mapped>> {
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        if len == 0 || !access.is_mapped() {
            return Ok(None);
        }
        // SAFETY: the map is read-only. That the file does not shrink under it is the promise of `Access::mapped`, or
        // does no harm under the guard; a map that the guard has no slot for is dropped below.
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
        write!(f, "Source({}, {} bytes, mapped: {})", self.path.display(), self.len(), self.mapped().is_some())
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
            // A reader has seen zeros, so the fault stays after the file has grown again.
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
