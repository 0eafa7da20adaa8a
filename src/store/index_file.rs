//! Where the files of an index live: a directory, or memory when nothing can be written.
//!
//! In memory a file is an anonymous one of the kernel's, so everything above works on files and maps alike; it is gone
//! when the process ends.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::bytes::map::{GrowFile, ReadMap, memory_file};
use crate::bytes::private::{create_private, private_directory};
use crate::bytes::source::Stamp;

/// Name of the lock file of an index directory.
const LOCK: &str = "lock";

/// The home of an index.
pub enum Home {
    /// Files in a directory of this path, 0600 in 0700 (the index holds patient ids, PRIV-03).
    Directory(PathBuf),
    /// Anonymous files by name.
    Memory(Mutex<HashMap<String, File>>),
}

/// Bytes of an index file, mapped.
pub struct IndexBytes(ReadMap);

impl Deref for IndexBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl IndexBytes {
    /// Size and times when it was opened.
    pub fn stamp(&self) -> Stamp {
        self.0.source().stamp()
    }
}

/// The exclusive right to change an index; given back on drop.
pub struct Lock(#[allow(dead_code, reason = "holds the lock while it is open")] Option<File>);

impl Home {
    /// An index in memory.
    pub fn memory() -> Home {
        Home::Memory(Mutex::default())
    }

    /// An index in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// When the directory can neither be made nor written: the caller falls back to memory.
    pub fn directory(path: &Path) -> io::Result<Home> {
        private_directory(path)?;
        create_private(&path.join(LOCK))?;
        Ok(Home::Directory(path.to_path_buf()))
    }

    /// Whether the index outlives the process.
    pub fn is_durable(&self) -> bool {
        matches!(self, Home::Directory(_))
    }

    /// Takes the writer's lock; `waiting` is called once if another process holds it.
    pub fn lock(&self, waiting: &mut dyn FnMut()) -> io::Result<Lock> {
        let Home::Directory(path) = self else { return Ok(Lock(None)) };
        let file = create_private(&path.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                waiting();
                file.lock()?;
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        Ok(Lock(Some(file)))
    }

    /// Makes a new file to write to.
    pub fn create(&self, name: &str) -> io::Result<File> {
        match self {
            Home::Directory(path) => {
                let file = create_private(&path.join(name))?;
                // As for output files: a new one is not to be written to disk when it is closed.
                if file.metadata()?.len() > 0 {
                    file.set_len(0)?;
                }
                Ok(file)
            }
            Home::Memory(files) => {
                let file = memory_file(name)?;
                let copy = file.try_clone()?;
                files.lock().expect("no thread panics with the lock").insert(name.to_string(), copy);
                Ok(file)
            }
        }
    }

    /// Makes a new file of this length, to be filled in any order.
    pub fn create_sized(&self, name: &str, len: u64) -> io::Result<GrowFile> {
        Ok(GrowFile::of_file(self.create(name)?, len, Path::new(name))?)
    }

    /// Maps a file.
    pub fn open(&self, name: &str) -> io::Result<IndexBytes> {
        let map = match self {
            Home::Directory(path) => ReadMap::open(path.join(name))?,
            Home::Memory(files) => {
                let files = files.lock().expect("no thread panics with the lock");
                let file = files.get(name).ok_or(io::ErrorKind::NotFound)?;
                ReadMap::of_file(file.try_clone()?, Path::new(name))?
            }
        };
        Ok(IndexBytes(map))
    }

    /// Reads a small file.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match self {
            Home::Directory(path) => {
                let mut bytes = Vec::new();
                File::open(path.join(name))?.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            Home::Memory(_) => Ok(self.open(name)?.to_vec()),
        }
    }

    /// Replaces a small file as a whole: temporary file, sync, rename. `bytes` is given the time of the new file, in
    /// nanoseconds since the Unix epoch: the file system's own clock.
    pub fn replace(&self, name: &str, bytes: &mut dyn FnMut(i64) -> Vec<u8>) -> io::Result<()> {
        match self {
            Home::Directory(path) => {
                let temporary = path.join(format!("{name}.part"));
                std::fs::remove_file(&temporary).ok();
                let mut file = create_private(&temporary)?;
                let now = Stamp::of_metadata(&file.metadata()?).mtime_ns;
                file.write_all(&bytes(now))?;
                file.sync_data()?;
                std::fs::rename(&temporary, path.join(name))
            }
            Home::Memory(_) => self.create(name)?.write_all(&bytes(i64::MIN)),
        }
    }

    /// Overwrites a small file in place; with `sync`, to the disk. A reader may find it torn.
    pub fn overwrite(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        match self {
            Home::Directory(path) => {
                let file = create_private(&path.join(name))?;
                file.write_all_at(bytes, 0)?;
                file.set_len(bytes.len() as u64)?;
                if sync { file.sync_data() } else { Ok(()) }
            }
            Home::Memory(_) => self.create(name)?.write_all(bytes),
        }
    }

    /// Removes every file but the lock and those named. Readers that have them open keep them.
    pub fn keep_only(&self, names: &[&str]) {
        match self {
            Home::Directory(path) => {
                // A file that cannot be listed or removed costs space, nothing else.
                for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                    let name = entry.file_name();
                    let kept = name.to_str().is_none_or(|name| name == LOCK || names.contains(&name));
                    if !kept && is_ours(&name.to_string_lossy()) {
                        std::fs::remove_file(entry.path()).ok();
                    }
                }
            }
            Home::Memory(files) => {
                files.lock().expect("no thread panics with the lock").retain(|name, _| names.contains(&name.as_str()));
            }
        }
    }
}

/// Whether an index could have written a file of this name: nothing else is ever removed.
fn is_ours(name: &str) -> bool {
    name.starts_with("extents-") || name.starts_with("merged-") || name == "generation.part"
}
