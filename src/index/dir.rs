//! The index directory: names, files and lock of an index, on disk, in memory when the directory cannot be written, or
//! read from disk with changes in memory.
//!
//! A file in memory is an anonymous file of the kernel, so callers use files and maps in all three cases; it exists
//! until the process ends. The formats of the files are defined elsewhere: `meta`, `segment::layout`, `global`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::index::meta::{FILE, MERGED, NOTE, SEGMENTS, TIMES, VANISHED};
use crate::index::snapshot_log::NOTE_BYTES_MAX;
use crate::limits::GENERATION_BYTES_MAX;
use crate::sys::disk::DiskReservation;
use crate::sys::durability::sync_directory;
use crate::sys::file_map::{GrowFile, ReadMap, memory_file};
use crate::sys::private_files::{create_private, private_directory};
use crate::sys::regular_file::{Links, open_regular, read_regular};
use crate::sys::store_file::{FileStamp, StoreFile};

/// Name of the lock file of an index directory.
const LOCK: &str = "lock";

/// What ends the name of a file that is being written, until it is renamed.
pub(crate) const PART: &str = ".part";

/// Name of the second copy of a file that is kept twice.
pub(crate) fn twin_name(name: &str) -> String {
    format!("{name}-b")
}

/// A file that is kept twice, as it was read.
#[derive(Debug, PartialEq, Eq)]
pub enum TwinFile<T> {
    /// Neither copy is there.
    Absent,
    /// What the first intact copy holds.
    Intact {
        /// Its contents.
        contents: T,
        /// Whether it is the second one, because the first is missing or damaged.
        copy_lost: bool,
    },
    /// No copy is intact, and at least one is there.
    Damaged,
}

/// Whether there is nothing of that name.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether what has the name cannot be a file of ours: a pipe, a socket, a directory, a loop of links, a file that is too long or
/// shorter than it was a moment ago.
pub(crate) fn is_no_file_of_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, IsADirectory, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | IsADirectory | UnexpectedEof)
        || matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO))
}

/// Bytes of a block of [`BlockWriter`].
const BLOCK_BYTES: usize = 256 << 10;

/// Where the files of an index lie.
pub enum IndexDir {
    /// Files in a directory of this path, 0600 in 0700 (the index holds patient ids, PRIV-03).
    Directory(PathBuf),
    /// Anonymous files by name.
    Memory(MemoryFiles),
    /// Files in a directory that is only read; written files are in memory and hide the file of the same name.
    ReadOnly(PathBuf, MemoryFiles),
}

/// Anonymous files of the kernel by name.
#[derive(Default)]
pub struct MemoryFiles(Mutex<HashMap<String, File>>);

impl MemoryFiles {
    /// Makes an anonymous file and keeps it under `name`, in place of an earlier one.
    fn create(&self, name: &str) -> io::Result<File> {
        let file = memory_file(name)?;
        let copy = file.try_clone()?;
        self.0.lock().expect("no thread panics with the lock").insert(name.to_string(), copy);
        Ok(file)
    }

    /// Maps a file in memory; `None` when there is none of this name.
    fn open(&self, name: &str) -> io::Result<Option<ReadMap>> {
        let files = self.0.lock().expect("no thread panics with the lock");
        let Some(file) = files.get(name) else { return Ok(None) };
        Ok(Some(ReadMap::of_file(file.try_clone()?, Path::new(name))?))
    }

    /// Names of the files in memory.
    pub(in crate::index) fn names(&self) -> Vec<String> {
        self.0.lock().expect("no thread panics with the lock").keys().cloned().collect()
    }

    /// Gives a file in memory another name.
    pub(in crate::index) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock().expect("no thread panics with the lock");
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_string(), file);
        Ok(())
    }

    /// Forgets a file in memory.
    pub(in crate::index) fn remove(&self, name: &str) {
        self.0.lock().expect("no thread panics with the lock").remove(name);
    }

    /// Forgets every file in memory but those named.
    fn remove_all_but(&self, names: &[&str]) {
        self.0.lock().expect("no thread panics with the lock").retain(|name, _| names.contains(&name.as_str()));
    }
}

/// Least bytes of a part of an index file that is asked for before its pages are verified.
pub(in crate::index) const LONG_BYTES: usize = 16 << 10;

/// Bytes of an index file, mapped.
pub struct IndexBytes(ReadMap);

impl Deref for IndexBytes {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl IndexBytes {
    /// The file: its bytes are in the page cache or not, and can be asked for.
    pub(in crate::index) fn source(&self) -> &StoreFile {
        self.0.source()
    }

    /// Size and times when it was opened.
    pub fn stamp(&self) -> FileStamp {
        self.0.source().stamp()
    }
}

/// Least bytes of a file kept twice that is mapped to be read; fewer in tests, whose stores are small.
const MAPPED_BYTES_MIN: u64 = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// Bytes of a small file of the index.
enum FileContents {
    Read(Vec<u8>),
    Mapped(IndexBytes),
}

impl Deref for FileContents {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            FileContents::Read(bytes) => bytes,
            FileContents::Mapped(bytes) => bytes,
        }
    }
}

/// A new file that is written in whole blocks at multiples of their length, so that the kernel keeps it in large pages:
/// a reader that maps it then has a few page faults and TLB misses instead of thousands.
pub struct BlockWriter {
    file: File,
    /// Bytes that are less than a block, not written yet.
    partial_block: Vec<u8>,
    reservation: DiskReservation,
}

impl BlockWriter {
    /// Writes a new, empty file.
    pub(crate) fn of_file(file: File) -> BlockWriter {
        BlockWriter { file, partial_block: Vec::with_capacity(BLOCK_BYTES), reservation: DiskReservation::default() }
    }

    /// Appends bytes to the file, with disk space reserved ahead.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reservation.reserve_ahead(&self.file, bytes.len());
        self.file.write_all(bytes)
    }

    /// Writes the bytes that are less than a block, and empties the buffer.
    fn put_partial_block(&mut self) -> io::Result<()> {
        let mut partial_block = std::mem::take(&mut self.partial_block);
        self.put(&partial_block)?;
        partial_block.clear();
        self.partial_block = partial_block;
        Ok(())
    }
}

impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.partial_block.is_empty() && bytes.len() >= BLOCK_BYTES {
            let whole = bytes.len() / BLOCK_BYTES * BLOCK_BYTES;
            self.put(&bytes[..whole])?;
            return Ok(whole);
        }
        let len = bytes.len().min(BLOCK_BYTES - self.partial_block.len());
        self.partial_block.extend_from_slice(&bytes[..len]);
        if self.partial_block.len() == BLOCK_BYTES {
            self.put_partial_block()?;
        }
        Ok(len)
    }

    /// Writes the partial block and gives reserved space back. Only at the end: later blocks would not be aligned.
    fn flush(&mut self) -> io::Result<()> {
        self.put_partial_block()?;
        self.reservation.give_back(&self.file)
    }
}

/// The lock of an index directory, released on drop: exclusive for a writer, shared for a read-only user. Without a
/// file nothing is locked.
pub struct IndexLock(#[allow(dead_code, reason = "holds the lock while it is open")] pub(in crate::index) Option<File>);

impl IndexDir {
    /// An index in memory.
    pub fn memory() -> IndexDir {
        IndexDir::Memory(MemoryFiles::default())
    }

    /// An index in a directory, which need not exist and in which nothing is written: new files are in memory.
    pub fn read_only(path: &Path) -> IndexDir {
        IndexDir::ReadOnly(path.to_path_buf(), MemoryFiles::default())
    }

    /// An index in a directory, which is made if it does not exist.
    ///
    /// # Errors
    /// When the directory can neither be made nor written: the caller falls back to memory.
    pub fn directory(path: &Path) -> io::Result<IndexDir> {
        private_directory(path)?;
        create_private(&path.join(LOCK))?;
        Ok(IndexDir::Directory(path.to_path_buf()))
    }

    /// Whether the index outlives the process.
    pub fn is_durable(&self) -> bool {
        matches!(self, IndexDir::Directory(_))
    }

    /// Takes the lock: exclusive in a directory, shared in a read-only one, none in memory. `waiting` is called once if
    /// another process holds it.
    ///
    /// # Errors
    /// When the lock file cannot be made or locked.
    pub fn lock(&self, waiting: &mut dyn FnMut()) -> io::Result<IndexLock> {
        let (file, shared) = match self {
            IndexDir::Memory(_) => return Ok(IndexLock(None)),
            IndexDir::Directory(path) => (create_private(&path.join(LOCK))?, false),
            // A reader that makes missing parts in memory needs the files to stay until it is done. Without a lock file
            // there is no writer.
            IndexDir::ReadOnly(path, _) => match open_regular(&path.join(LOCK), Links::Refuse) {
                Ok(file) => (file, true),
                Err(error) if error.is_absence() => return Ok(IndexLock(None)),
                Err(error) => return Err(error.into()),
            },
        };
        match if shared { file.try_lock_shared() } else { file.try_lock() } {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                waiting();
                if shared { file.lock_shared()? } else { file.lock()? }
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        Ok(IndexLock(Some(file)))
    }

    /// Makes a new, empty file; an existing one is truncated.
    ///
    /// # Errors
    /// When the file cannot be made, in the directory or in memory.
    pub fn create(&self, name: &str) -> io::Result<File> {
        match self {
            IndexDir::Directory(path) => {
                let file = create_own(&path.join(name))?;
                // Truncating an empty file would make the kernel write it to disk when it is closed.
                if file.metadata()?.len() > 0 {
                    file.set_len(0)?;
                }
                Ok(file)
            }
            IndexDir::Memory(files) | IndexDir::ReadOnly(_, files) => files.create(name),
        }
    }

    /// Makes a new file to be written from front to end in blocks, and flushed at its end.
    ///
    /// # Errors
    /// As [`IndexDir::create`].
    pub fn create_blocks(&self, name: &str) -> io::Result<BlockWriter> {
        Ok(BlockWriter::of_file(self.create(name)?))
    }

    /// Makes a new mapped file of `len` bytes, to be filled in any order.
    ///
    /// # Errors
    /// When the file cannot be made, or the disk lacks the space.
    pub fn create_sized(&self, name: &str, len: u64) -> io::Result<GrowFile> {
        Ok(GrowFile::of_file(self.create(name)?, len, Path::new(name))?)
    }

    /// Maps a file of the index.
    ///
    /// # Errors
    /// When there is no regular file of this name, or it cannot be mapped.
    pub fn open(&self, name: &str) -> io::Result<IndexBytes> {
        let map = match self {
            IndexDir::Directory(path) => ReadMap::open(path.join(name))?,
            IndexDir::Memory(files) => files.open(name)?.ok_or(io::ErrorKind::NotFound)?,
            IndexDir::ReadOnly(path, files) => match files.open(name)? {
                Some(map) => map,
                None => ReadMap::open(path.join(name))?,
            },
        };
        Ok(IndexBytes(map))
    }

    /// Reads a small file of the index, at most [`GENERATION_BYTES_MAX`] bytes of one on disk.
    ///
    /// # Errors
    /// When there is no such file, or it cannot be read.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match self {
            IndexDir::Directory(path) => Ok(read_regular(&path.join(name), GENERATION_BYTES_MAX)?),
            IndexDir::Memory(_) => Ok(self.open(name)?.to_vec()),
            IndexDir::ReadOnly(path, files) => match files.open(name)? {
                Some(map) => Ok(map.to_vec()),
                None => Ok(read_regular(&path.join(name), GENERATION_BYTES_MAX)?),
            },
        }
    }

    /// Length in bytes of a file on disk; `None` when there is none, or the directory is in memory.
    pub(crate) fn file_len(&self, name: &str) -> Option<u64> {
        let (IndexDir::Directory(path) | IndexDir::ReadOnly(path, _)) = self else { return None };
        std::fs::symlink_metadata(path.join(name)).ok().map(|found| found.len())
    }

    /// As [`IndexDir::read`], mapped if it is large: then it is neither copied nor held in memory.
    fn contents(&self, name: &str) -> io::Result<FileContents> {
        let is_large = self.file_len(name).is_some_and(|len| (MAPPED_BYTES_MIN..=GENERATION_BYTES_MAX).contains(&len));
        match is_large.then(|| self.open(name)) {
            Some(Ok(bytes)) if bytes.len() as u64 <= GENERATION_BYTES_MAX => Ok(FileContents::Mapped(bytes)),
            // What cannot be mapped is told by reading it.
            _ => Ok(FileContents::Read(self.read(name)?)),
        }
    }

    /// The first bytes, `count` or all, that both copies of a file have; `None` when they differ, or one cannot be read.
    pub(crate) fn common_front(&self, name: &str, count: usize) -> Option<Vec<u8>> {
        let (IndexDir::Directory(path) | IndexDir::ReadOnly(path, _)) = self else { return None };
        let front = |name: &str| {
            let mut bytes = Vec::new();
            let file = open_regular(&path.join(name), Links::Follow).ok()?;
            file.take(count as u64).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        let is_hidden = |files: &MemoryFiles| files.names().iter().any(|known| known == name);
        match self {
            // Written by this process, without a second copy.
            IndexDir::ReadOnly(_, files) if is_hidden(files) => None,
            _ => front(name).filter(|bytes| front(&twin_name(name)).as_ref() == Some(bytes)),
        }
    }

    /// Writes a small file twice, under its name and under [`twin_name`]. Each copy is replaced as a whole: temporary file,
    /// rename; with `sync`, to the disk. The first copy is replaced first, so a reader, who takes the first that is
    /// intact, finds the old or the new contents, whenever a writer is killed. In memory there is one copy.
    ///
    /// # Errors
    /// When a copy cannot be written, synced or renamed.
    pub fn write_twice(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        self.replace_twice(name, &mut |_| bytes.to_vec(), sync)
    }

    /// As [`IndexDir::write_twice`]; `bytes` is given the time of the new file, in nanoseconds since the Unix epoch by the
    /// clock of the file system; `i64::MIN` in memory.
    ///
    /// # Errors
    /// As [`IndexDir::write_twice`].
    pub fn replace_twice(&self, name: &str, bytes: &mut dyn FnMut(i64) -> Vec<u8>, sync: bool) -> io::Result<()> {
        let IndexDir::Directory(path) = self else { return self.create(name)?.write_all(&bytes(i64::MIN)) };
        let mut contents = None;
        for name in [name, &twin_name(name)] {
            let temporary = path.join(format!("{name}{PART}"));
            std::fs::remove_file(&temporary).ok();
            let mut file = create_private(&temporary)?;
            let now = FileStamp::of_metadata(&file.metadata()?).mtime_ns;
            file.write_all(contents.get_or_insert_with(|| bytes(now)))?;
            if sync {
                file.sync_data()?;
            }
            std::fs::rename(&temporary, path.join(name))?;
        }
        if sync { sync_directory(path) } else { Ok(()) }
    }

    /// Reads a small file that is kept twice: the first copy that `parse` accepts.
    ///
    /// # Errors
    /// When a copy that is needed is there and cannot be read: that says nothing of what it holds.
    pub fn read_either<T>(&self, name: &str, parse: impl Fn(&[u8]) -> Option<T>) -> io::Result<TwinFile<T>> {
        let mut damaged = 0;
        for copy in [name, &twin_name(name)] {
            match self.contents(copy) {
                Ok(bytes) => match parse(&bytes) {
                    Some(contents) => return Ok(TwinFile::Intact { contents, copy_lost: copy != name }),
                    None => damaged += 1,
                },
                Err(error) if is_absence(&error) => {}
                Err(error) if is_no_file_of_ours(&error) => damaged += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(if damaged == 0 { TwinFile::Absent } else { TwinFile::Damaged })
    }

    /// Overwrites bytes of the snapshot log in place, at an offset; with `sync`, to the disk. A reader may find them torn.
    ///
    /// # Errors
    /// When the file cannot be written or synced.
    pub fn overwrite_note(&self, offset: u64, bytes: &[u8], sync: bool) -> io::Result<()> {
        match self {
            IndexDir::Directory(path) => {
                let file = create_own(&path.join(NOTE))?;
                file.write_all_at(bytes, offset)?;
                // What an earlier or a foreign writer left behind the slots could make the file too long to be read.
                if file.metadata()?.len() > NOTE_BYTES_MAX {
                    file.set_len(NOTE_BYTES_MAX)?;
                }
                if sync { file.sync_data() } else { Ok(()) }
            }
            IndexDir::Memory(_) | IndexDir::ReadOnly(..) => {
                let held = self.read(NOTE).unwrap_or_default();
                let file = self.create(NOTE)?;
                file.write_all_at(&held, 0)?;
                file.write_all_at(bytes, offset)
            }
        }
    }

    /// Whether a directory on disk has a global index: a refresh was finished in it once.
    pub fn has_segments(&self) -> bool {
        let (IndexDir::Directory(path) | IndexDir::ReadOnly(path, _)) = self else { return false };
        let mut names = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.any(|name| name.to_str().is_some_and(|name| name.starts_with(MERGED)))
    }

    /// Removes every file but the lock, those named and their second copies. Readers that have them open keep them.
    pub fn remove_all_but(&self, names: &[&str]) {
        match self {
            IndexDir::Directory(path) => {
                // A file that cannot be listed or removed costs space, nothing else.
                for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                    let name = entry.file_name();
                    let is_named =
                        |name: &str| names.contains(&name) || names.iter().any(|named| twin_name(named) == name);
                    let kept = name.to_str().is_none_or(|name| name == LOCK || is_named(name));
                    if !kept && is_ours(&name.to_string_lossy()) {
                        std::fs::remove_file(entry.path()).ok();
                    }
                }
            }
            IndexDir::Memory(files) | IndexDir::ReadOnly(_, files) => files.remove_all_but(names),
        }
    }
}

/// As [`create_private`], for a file name of an index: a pipe, a device, a link or a socket of that name is removed
/// first.
fn create_own(path: &Path) -> io::Result<File> {
    match create_private(path) {
        // A pipe or a device; a link; a socket.
        Err(error)
            if error.kind() == io::ErrorKind::InvalidInput
                || matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) =>
        {
            std::fs::remove_file(path)?;
            create_private(path)
        }
        made => made,
    }
}

/// Whether the name is one that the index gives to its files: no other file is ever removed.
fn is_ours(name: &str) -> bool {
    [SEGMENTS, MERGED, TIMES, VANISHED].iter().any(|stem| name.starts_with(stem))
        || (name.starts_with(FILE) && name.ends_with(PART))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    /// Whatever one copy has come to, and wherever a writer was killed, the file is read; an older copy is never taken
    /// for an intact newer one, and two lost copies are not taken for none.
    #[test]
    fn a_file_that_is_kept_twice_survives_the_loss_of_one_copy() {
        let dir = tempfile::tempdir().unwrap();
        let home = IndexDir::directory(&dir.path().join("index")).unwrap();
        let paths = ["f", &twin_name("f")].map(|name| dir.path().join("index").join(name));
        let read = || {
            home.read_either("f", |bytes| match bytes {
                [b'+', rest @ ..] => Some(rest.to_vec()),
                _ => None,
            })
            .unwrap()
        };
        let intact = |text: &str, copy_lost| TwinFile::Intact { contents: text.as_bytes().to_vec(), copy_lost };
        let copies: [Option<&str>; 4] = [None, Some("-damaged"), Some("+old"), Some("+new")];
        for first in copies {
            for second in copies {
                for (path, copy) in paths.iter().zip([first, second]) {
                    std::fs::remove_file(path).ok();
                    copy.iter().for_each(|text| std::fs::write(path, text).unwrap());
                }
                let expected = match (first, second) {
                    (None, None) => TwinFile::Absent,
                    (Some(first), _) if first.starts_with('+') => intact(&first[1..], false),
                    (_, Some(second)) if second.starts_with('+') => intact(&second[1..], true),
                    _ => TwinFile::Damaged,
                };
                assert_eq!(read(), expected, "{first:?} {second:?}");
                home.write_twice("f", b"+again", true).unwrap();
                assert_eq!(read(), intact("again", false));
                assert_eq!(home.read(&twin_name("f")).unwrap(), b"+again");
            }
        }
        assert_eq!(twin_name(FILE), crate::index::meta::TWIN);
        // A directory in the place of a copy is damage; a file that may not be read is an error, not damage.
        std::fs::remove_file(&paths[0]).unwrap();
        std::fs::create_dir(&paths[0]).unwrap();
        assert_eq!(read(), intact("again", true));
        std::fs::remove_file(&paths[1]).unwrap();
        assert_eq!(read(), TwinFile::Damaged);
    }

    /// A reader beside a writer finds the contents of one writing, as a whole, and never older ones than before.
    #[test]
    fn a_reader_of_a_file_that_is_kept_twice_sees_no_part() {
        let dir = tempfile::tempdir().unwrap();
        let home = IndexDir::directory(&dir.path().join("index")).unwrap();
        let write = |number: u64| home.write_twice("f", &number.to_le_bytes().repeat(5_000), false).unwrap();
        write(0);
        std::thread::scope(|scope| {
            scope.spawn(|| (1..300).for_each(write));
            let mut before = 0;
            while before < 299 {
                let parse = |bytes: &[u8]| Some(bytes.to_vec());
                let TwinFile::Intact { contents, copy_lost: false } = home.read_either("f", parse).unwrap() else {
                    panic!("the first copy is always there")
                };
                let (words, _) = contents.as_chunks::<8>();
                let number = u64::from_le_bytes(words[0]);
                assert!(words.len() == 5_000 && words.iter().all(|word| *word == words[0]) && number >= before);
                before = number;
            }
        });
    }

    /// However the bytes come, they leave in their order, and all but the last ones in whole blocks.
    #[test]
    fn blocks_are_the_bytes_that_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let home = IndexDir::directory(&dir.path().join("index")).unwrap();
        let bytes: Vec<u8> =
            (0..7 * BLOCK_BYTES + 99).map(|position| (position.wrapping_mul(0x9e37_79b1) >> 11) as u8).collect();
        for name in ["extents-a", "extents-b"] {
            // The second time, there is a file of that name.
            for first in [1, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 5] {
                let mut file = home.create_blocks(name).unwrap();
                let (mut offset, mut step) = (0, first);
                while offset < bytes.len() {
                    let len = step.min(bytes.len() - offset);
                    file.write_all(&bytes[offset..offset + len]).unwrap();
                    offset += len;
                    assert_eq!(home.read(name).unwrap().len(), offset / BLOCK_BYTES * BLOCK_BYTES);
                    step = step * 7 % 900_001 + 1;
                }
                file.flush().unwrap();
                assert!(home.read(name).unwrap() == bytes);
            }
        }
    }
}
