//! A directory held open, and what lies beneath it, reached without following a symbolic link.
//!
//! Names beneath it come from records on disk, which may be damaged or forged. Each part of a name is opened by itself with
//! `O_NOFOLLOW` (openat(2)), so nothing outside of the directory is reached, whatever a name or a link says. In the
//! place of a file only a regular file is opened, and without waiting: a pipe, a socket, a device or a directory there is an
//! error. The directory itself is the caller's choice and may be reached through links.

use std::ffi::{CStr, CString, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Mode of the files that are made (PRIV-03).
const FILE_MODE: libc::c_uint = 0o600;
/// Mode of the directories that are made.
const DIRECTORY_MODE: libc::mode_t = 0o700;

/// A directory, open. See the module.
#[derive(Debug)]
pub(crate) struct Directory {
    file: File,
    path: PathBuf,
}

/// A regular file's place where something else stands.
const NO_FILE: &str = "it is no regular file (a link, a pipe, a socket or a directory is not opened here)";
/// A directory's place where something else stands.
const NO_DIRECTORY: &str = "it is no directory (a symbolic link is not followed here)";

fn is_refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl Directory {
    /// Opens a directory. Links in `path` are followed: who names it may have made them.
    ///
    /// # Errors
    /// As the operating system gives them.
    pub(crate) fn open(path: &Path) -> io::Result<Directory> {
        let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Ok(Directory { file, path: path.to_path_buf() })
    }

    /// Its path, for messages and for calls that take nothing else.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory beneath.
    ///
    /// # Errors
    /// `InvalidInput` when a part of the name is no plain name, or no directory stands there; else the system's.
    pub(crate) fn directory(&self, name: &str) -> io::Result<Directory> {
        let (parent, last) = self.parent(name)?;
        Ok(Directory { file: open_directory(&parent, &last)?, path: self.path.join(name) })
    }

    /// Opens a directory beneath, made with mode 0700 if it is not there. Those above it must be there.
    ///
    /// # Errors
    /// As [`Directory::directory`].
    pub(crate) fn make_directory(&self, name: &str) -> io::Result<Directory> {
        let (parent, last) = self.parent(name)?;
        self.changing();
        // SAFETY: the descriptor is open, and the name ends with a NUL.
        match done(unsafe { libc::mkdirat(parent.as_raw_fd(), last.as_ptr(), DIRECTORY_MODE) }) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(Directory { file: open_directory(&parent, &last)?, path: self.path.join(name) })
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// As [`Directory::directory`], for a file.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        let (parent, last) = self.parent(name)?;
        regular(open_at(&parent, &last, libc::O_RDONLY, 0))
    }

    /// Reads a regular file.
    ///
    /// # Errors
    /// As [`Directory::open_file`]; `FileTooLarge` when it has more than `bytes_max` bytes.
    pub(crate) fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = self.open_file(name)?;
        let mut bytes = Vec::with_capacity(file.metadata()?.len().min(bytes_max) as usize);
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes")));
        }
        Ok(bytes)
    }

    /// Opens a regular file for reading and writing, made with mode 0600 if it is not there. What it holds stays.
    ///
    /// # Errors
    /// As [`Directory::open_file`].
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        let (parent, last) = self.parent(name)?;
        self.changing();
        regular(open_at(&parent, &last, libc::O_RDWR | libc::O_CREAT, FILE_MODE))
    }

    /// What stands under a name, a link as a link; `None` when nothing does.
    ///
    /// # Errors
    /// As [`Directory::directory`].
    pub(crate) fn metadata(&self, name: &str) -> io::Result<Option<Metadata>> {
        let found = self.parent(name).and_then(|(parent, last)| open_at(&parent, &last, libc::O_PATH, 0));
        match found {
            Ok(file) => file.metadata().map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Moves a file to another name beneath. A file of that name is replaced.
    ///
    /// # Errors
    /// As [`Directory::directory`].
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let ((from_parent, from), (to_parent, to)) = (self.parent(from)?, self.parent(to)?);
        self.changing();
        // SAFETY: both descriptors are open, and both names end with a NUL.
        done(unsafe { libc::renameat(from_parent.as_raw_fd(), from.as_ptr(), to_parent.as_raw_fd(), to.as_ptr()) })
    }

    /// Moves a file to another name beneath, under which nothing stands.
    ///
    /// # Errors
    /// `AlreadyExists` when something does; else as [`Directory::directory`].
    pub(crate) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let ((from_parent, from_name), (to_parent, to_name)) = (self.parent(from)?, self.parent(to)?);
        self.changing();
        let (from_fd, to_fd) = (from_parent.as_raw_fd(), to_parent.as_raw_fd());
        // SAFETY: both descriptors are open, and both names end with a NUL.
        let moved = done(unsafe {
            let flags = libc::RENAME_NOREPLACE;
            libc::syscall(libc::SYS_renameat2, from_fd, from_name.as_ptr(), to_fd, to_name.as_ptr(), flags) as _
        });
        match moved {
            // The file system or the kernel cannot do it in one step.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                if self.metadata(to)?.is_some() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                self.rename(from, to)
            }
            moved => moved,
        }
    }

    /// Removes a file, or a link itself. Tells whether it was there.
    ///
    /// # Errors
    /// As [`Directory::directory`]; a directory is not removed.
    pub(crate) fn remove_file(&self, name: &str) -> io::Result<bool> {
        self.remove(name, 0)
    }

    /// Removes a directory that is empty. Tells whether it was there.
    ///
    /// # Errors
    /// As [`Directory::directory`]; `DirectoryNotEmpty`.
    pub(crate) fn remove_directory(&self, name: &str) -> io::Result<bool> {
        self.remove(name, libc::AT_REMOVEDIR)
    }

    fn remove(&self, name: &str, flags: libc::c_int) -> io::Result<bool> {
        let removed = self.parent(name).and_then(|(parent, last)| {
            self.changing();
            // SAFETY: the descriptor is open, and the name ends with a NUL.
            done(unsafe { libc::unlinkat(parent.as_raw_fd(), last.as_ptr(), flags) })
        });
        match removed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes whatever stands under a name: a directory with all that is in it, anything else by itself. A link is removed,
    /// never what it leads to.
    ///
    /// # Errors
    /// As [`Directory::directory`].
    pub(crate) fn remove_tree(&self, name: &str) -> io::Result<()> {
        match self.metadata(name)? {
            Some(found) if found.is_dir() => {
                self.changing();
                // The standard library enters no links either.
                match std::fs::remove_dir_all(self.path.join(name)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    removed => removed,
                }
            }
            Some(_) => self.remove_file(name).map(drop),
            None => Ok(()),
        }
    }

    /// Replaces a file as a whole: a temporary file, then a rename. With `sync`, what was written outlives a loss of power.
    ///
    /// # Errors
    /// As [`Directory::create`]; the file that was there then still stands.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        let temporary = temporary_name(name);
        let mut file = self.create(&temporary)?;
        file.set_len(0)?;
        let written = file.write_all(bytes).and_then(|()| if sync { file.sync_all() } else { Ok(()) });
        if let Err(error) = written.and_then(|()| self.rename(&temporary, name)) {
            self.remove_file(&temporary).ok();
            return Err(error);
        }
        match sync {
            true => self.parent(name)?.0.sync_all(),
            false => Ok(()),
        }
    }

    /// Makes its entries outlive a loss of power.
    ///
    /// # Errors
    /// As the operating system gives them.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The names in it, in no order.
    ///
    /// # Errors
    /// As the operating system gives them.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        // A descriptor of its own, because reading moves a place that all copies of a descriptor share.
        let own = open_at(&self.file, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        // SAFETY: the descriptor is an open directory; from here on it is the stream's, which closes it.
        let stream = unsafe { libc::fdopendir(own.as_raw_fd()) };
        if stream.is_null() {
            return Err(io::Error::last_os_error());
        }
        let _ = own.into_raw_fd();
        let mut names = Vec::new();
        let outcome = loop {
            // SAFETY: errno is this thread's own.
            unsafe { *libc::__errno_location() = 0 };
            // SAFETY: the stream is open and used by this thread only.
            let entry = unsafe { libc::readdir64(stream) };
            if entry.is_null() {
                let error = io::Error::last_os_error();
                break if error.raw_os_error() == Some(0) { Ok(()) } else { Err(error) };
            }
            // SAFETY: an entry's name ends with a NUL and stands until the next call.
            let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(OsString::from_vec(name.to_vec()));
            }
        };
        // SAFETY: the stream is open, and not used after.
        unsafe { libc::closedir(stream) };
        outcome.map(|()| names)
    }

    /// The directory that the last part of a name stands in, and that part.
    fn parent(&self, name: &str) -> io::Result<(Parent<'_>, CString)> {
        let mut parent = Parent::Held(&self.file);
        let (folders, last) = name.rsplit_once('/').map_or((None, name), |(folders, last)| (Some(folders), last));
        for folder in folders.into_iter().flat_map(|folders| folders.split('/')) {
            parent = Parent::Opened(open_directory(&parent, &is_plain_name(folder)?)?);
        }
        Ok((parent, is_plain_name(last)?))
    }

    /// Something beneath is about to change: tests look at what a kill would leave here.
    fn changing(&self) {
        #[cfg(test)]
        tests::changing(&self.path);
    }
}

/// Where a name is looked up.
enum Parent<'a> {
    Held(&'a File),
    Opened(File),
}

impl Deref for Parent<'_> {
    type Target = File;
    fn deref(&self) -> &File {
        match self {
            Parent::Held(file) => file,
            Parent::Opened(file) => file,
        }
    }
}

/// The temporary name of a file, in the same directory.
pub(crate) fn temporary_name(name: &str) -> String {
    match name.rsplit_once('/') {
        Some((folders, last)) => format!("{folders}/.{last}.part"),
        None => format!(".{name}.part"),
    }
}

/// A part of a name that leads nowhere else.
fn is_plain_name(part: &str) -> io::Result<CString> {
    if matches!(part, "" | "." | "..") || part.contains('/') {
        return Err(is_refused("its name leads out of its directory"));
    }
    CString::new(part).map_err(|_| is_refused("its name holds a NUL"))
}

fn open_at(parent: &File, name: &CStr, flags: libc::c_int, mode: libc::c_uint) -> io::Result<File> {
    let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    loop {
        // SAFETY: the descriptor is open, and the name ends with a NUL.
        let opened = unsafe { libc::openat(parent.as_raw_fd(), name.as_ptr(), flags, mode) };
        match done(opened) {
            // SAFETY: the descriptor is new, so that nobody else closes it.
            Ok(()) => return Ok(unsafe { File::from_raw_fd(opened) }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn open_directory(parent: &File, name: &CStr) -> io::Result<File> {
    open_at(parent, name, libc::O_RDONLY | libc::O_DIRECTORY, 0).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP | libc::ENOTDIR) => is_refused(NO_DIRECTORY),
        _ => error,
    })
}

/// What was opened, if it is a regular file.
fn regular(opened: io::Result<File>) -> io::Result<File> {
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(is_refused(NO_FILE)),
        // A link; a socket or a pipe without a reader; a directory opened for writing.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::EISDIR)) => {
            Err(is_refused(NO_FILE))
        }
        Err(error) => Err(error),
    }
}

/// The outcome of a system call.
fn done(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::sys::regular_file::{Links, open_regular};

    /// Called before each change beneath a directory.
    type EntryLookup = Arc<dyn Fn() + Send + Sync>;
    static LOOKS: Mutex<Vec<(PathBuf, EntryLookup)>> = Mutex::new(Vec::new());

    pub(crate) fn changing(path: &Path) {
        let looks: Vec<EntryLookup> = {
            let all = LOOKS.lock().unwrap();
            all.iter().filter(|(root, _)| path.starts_with(root)).map(|(_, look)| look.clone()).collect()
        };
        looks.iter().for_each(|look| look());
    }

    /// Has `look` called before each change beneath `root` while `work` is done: what it finds is what a kill would leave.
    pub(crate) fn watching<T>(root: &Path, look: impl Fn() + Send + Sync + 'static, work: impl FnOnce() -> T) -> T {
        LOOKS.lock().unwrap().push((root.to_path_buf(), Arc::new(look)));
        let outcome = work();
        LOOKS.lock().unwrap().retain(|(watched, _)| watched != root);
        outcome
    }

    fn pipe(path: &Path) {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a C string that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    }

    #[test]
    fn files_and_directories_are_made_read_moved_and_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Directory::open(scratch.path()).unwrap();
        let below = root.make_directory("a").unwrap();
        root.make_directory("a").unwrap();
        root.replace("a/one", b"1", true).unwrap();
        root.replace("a/one", b"11", false).unwrap();
        assert_eq!(below.read("one", 2).unwrap(), b"11");
        assert_eq!(below.read("one", 1).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(below.names().unwrap(), ["one"]);
        let mode = |name: &str| root.metadata(name).unwrap().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("a"), mode("a/one")), (0o700, 0o600));
        root.replace("two", b"2", false).unwrap();
        assert_eq!(root.rename_new("a/one", "two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        root.rename_new("a/one", "three").unwrap();
        root.rename("three", "two").unwrap();
        assert_eq!(root.read("two", 9).unwrap(), b"11");
        assert!(root.remove_directory("a").unwrap() && !root.remove_directory("a").unwrap());
        assert!(root.remove_file("two").unwrap() && !root.remove_file("two").unwrap());
        assert!(root.metadata("two").unwrap().is_none() && root.names().unwrap().is_empty());
        assert_eq!(root.open_file("none").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(root.directory("none").unwrap_err().kind(), io::ErrorKind::NotFound);
        root.sync().unwrap();
    }

    /// Neither a link nor a name leads out, and nothing waits for the other end of a pipe.
    #[test]
    fn nothing_but_files_and_directories_is_entered() {
        let scratch = tempfile::tempdir().unwrap();
        let (outside, inside) = (scratch.path().join("outside"), scratch.path().join("inside"));
        std::fs::create_dir_all(outside.join("deep")).unwrap();
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(outside.join("secret"), "x").unwrap();
        symlink(&outside, inside.join("folder")).unwrap();
        symlink(outside.join("secret"), inside.join("file")).unwrap();
        symlink("nowhere", inside.join("dangling")).unwrap();
        pipe(&inside.join("pipe"));
        let _socket = std::os::unix::net::UnixListener::bind(inside.join("socket")).unwrap();
        std::fs::create_dir(inside.join("plain")).unwrap();
        let root = Directory::open(&inside).unwrap();
        for name in ["file", "dangling", "pipe", "socket", "plain", "folder", "folder/secret", "../outside/secret"] {
            assert_eq!(root.open_file(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
            assert_eq!(root.create(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        for name in ["", ".", "..", "/", "a//b", "/etc/passwd", "plain/..", "plain/../x", "a\0b"] {
            for error in [root.open_file(name).unwrap_err(), root.create(name).unwrap_err()] {
                assert!(
                    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound),
                    "{name} {error}"
                );
            }
            assert!(root.remove_file(name).map_or(true, |removed| !removed), "{name}");
        }
        for name in ["folder", "file", "pipe", "folder/deep", "plain/../../outside"] {
            assert_eq!(root.directory(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
            assert_eq!(root.make_directory(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert!(root.remove_file("folder/secret").is_err() && root.rename("file", "folder/x").is_err());
        for name in ["file", "dangling", "pipe", "socket", "plain", "folder"] {
            assert!(open_regular(&inside.join(name), Links::Refuse).is_err(), "{name}");
        }
        // A link that stands in the place of a file is replaced or removed itself, never what it leads to.
        root.replace("file", b"own", false).unwrap();
        assert!(open_regular(&inside.join("file"), Links::Refuse).is_ok());
        root.remove_tree("folder").unwrap();
        assert!(root.remove_tree("folder/secret").is_ok() && root.remove_tree("plain/../../outside").is_err());
        symlink(&outside, inside.join("plain/link")).unwrap();
        std::fs::write(inside.join("plain/x"), "x").unwrap();
        root.remove_tree("plain").unwrap();
        assert!(outside.join("deep").is_dir() && !inside.join("plain").exists());
        assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"x");
        // The directory itself may be reached through a link.
        symlink(&inside, scratch.path().join("link")).unwrap();
        assert_eq!(Directory::open(&scratch.path().join("link")).unwrap().read("file", 9).unwrap(), b"own");
    }
}
