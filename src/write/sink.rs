//! Where the bytes of an output file go.

use crate::sys::directory::{Directory, temporary_name};
use crate::sys::disk::DiskReservation;
use crate::sys::durability::FileSync;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A place for output files, one at a time. A file appears whole on [`Sink::commit`] or not at all.
///
/// ```
/// use outpour::Sink;
/// use std::io;
///
/// /// Counts files and bytes.
/// #[derive(Default)]
/// struct Counter(u64, u64);
///
/// impl Sink for Counter {
///     fn begin(&mut self, _name: &str) -> io::Result<()> {
///         Ok(())
///     }
///     fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
///         self.1 += bytes.len() as u64;
///         Ok(())
///     }
///     fn commit(&mut self) -> io::Result<()> {
///         self.0 += 1;
///         Ok(())
///     }
///     fn abort(&mut self) {}
/// }
/// ```
pub trait Sink: Send {
    /// Begins a file; `name` is relative and may hold `/`, as in `error/OperationOutcome.00001.ndjson`. A file of that name
    /// that was committed before is replaced when this one is.
    ///
    /// # Errors
    /// When it cannot be made.
    fn begin(&mut self, name: &str) -> io::Result<()>;
    /// Appends bytes.
    ///
    /// # Errors
    /// When they cannot be taken, for example because the disk is full.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The file is whole: make it visible under its name.
    ///
    /// # Errors
    /// When it cannot be made to last.
    fn commit(&mut self) -> io::Result<()>;
    /// Forget the file.
    fn abort(&mut self);
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn begin(&mut self, name: &str) -> io::Result<()> {
        (**self).begin(name)
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        (**self).write(bytes)
    }
    fn commit(&mut self) -> io::Result<()> {
        (**self).commit()
    }
    fn abort(&mut self) {
        (**self).abort();
    }
}

/// Files in a directory: 0600, under a temporary name until they are whole (PRIV-03). No link below it is followed.
pub struct DirSink {
    path: PathBuf,
    directory: Option<Arc<Directory>>,
    sync: FileSync,
    open: Option<OpenFile>,
}

struct OpenFile {
    file: File,
    directory: Arc<Directory>,
    name: String,
    room: DiskReservation,
}

impl fmt::Debug for DirSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.open.as_ref().map(|open| &open.name);
        f.debug_struct("DirSink").field("path", &self.path).field("sync", &self.sync).field("open", &open).finish()
    }
}

impl DirSink {
    /// Files go to this directory, which must be there.
    pub fn new(directory: &Path, sync: FileSync) -> DirSink {
        DirSink { path: directory.to_path_buf(), directory: None, sync, open: None }
    }

    /// Files go to a directory that is open.
    pub(crate) fn within(directory: Arc<Directory>, sync: FileSync) -> DirSink {
        DirSink { path: directory.path().to_path_buf(), directory: Some(directory), sync, open: None }
    }
}

impl Sink for DirSink {
    fn begin(&mut self, name: &str) -> io::Result<()> {
        self.abort();
        let directory = match &self.directory {
            Some(directory) => directory.clone(),
            None => self.directory.insert(Arc::new(Directory::open(&self.path)?)).clone(),
        };
        for (offset, _) in name.match_indices('/') {
            directory.make_directory(&name[..offset])?;
        }
        let file = directory.create(&temporary_name(name))?;
        // Only what is there is cut off: ext4 takes a file that was cut to nothing for one being replaced, and writes
        // it to disk at once when it is closed.
        if file.metadata()?.len() > 0 {
            file.set_len(0)?;
        }
        self.open = Some(OpenFile { file, directory, name: name.to_string(), room: DiskReservation::default() });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let open = self.open.as_mut().ok_or(io::ErrorKind::NotFound)?;
        open.room.reserve_ahead(&open.file, bytes.len());
        open.file.write_all(bytes)
    }

    fn commit(&mut self) -> io::Result<()> {
        let OpenFile { file, directory, name, room } = self.open.take().ok_or(io::ErrorKind::NotFound)?;
        room.give_back(&file)?;
        if self.sync == FileSync::Yes {
            file.sync_all()?;
        }
        directory.rename(&temporary_name(&name), &name)
    }

    fn abort(&mut self) {
        if let Some(open) = self.open.take() {
            open.directory.remove_file(&temporary_name(&open.name)).ok();
        }
    }
}

impl Drop for DirSink {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Files in memory, by name; clones share them.
#[derive(Clone, Default)]
pub struct MemorySink {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    open: Option<(String, Vec<u8>)>,
}

/// Names and lengths of the files, and nothing of what is in them.
impl fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.lock().expect("no panic under it");
        f.debug_map().entries(files.iter().map(|(name, bytes)| (name, bytes.len()))).finish()
    }
}

impl MemorySink {
    /// The committed files.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.files.lock().expect("no panic under it").clone()
    }
}

impl Sink for MemorySink {
    fn begin(&mut self, name: &str) -> io::Result<()> {
        self.open = Some((name.to_string(), Vec::new()));
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open.as_mut().ok_or(io::ErrorKind::NotFound)?.1.extend_from_slice(bytes);
        Ok(())
    }
    fn commit(&mut self) -> io::Result<()> {
        let (name, bytes) = self.open.take().ok_or(io::ErrorKind::NotFound)?;
        self.files.lock().expect("no panic under it").insert(name, bytes);
        Ok(())
    }
    fn abort(&mut self) {
        self.open = None;
    }
}
