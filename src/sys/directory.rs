//! A directory held open, and the files beneath it, reached without following a symbolic link.
//!
//! Names beneath it come from records on disk, which may be damaged or forged. Each component of a name is opened by
//! itself with `O_NOFOLLOW` (openat(2)), so that no name and no link leads outside of the directory. Only regular
//! files are opened as files, and without waiting: a pipe, a socket, a device or a directory in their place is an
//! error. The directory itself is the caller's choice and may be reached through links.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::sys::unsynced_entry::unsynced;

/// Mode of the files that are made (PRIV-03).
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
/// Mode of the directories that are made.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o700);

/// An open directory, and operations on the names beneath it. A name is a relative path whose components are separated
/// by `/`; none may be empty, `.` or `..`.
#[derive(Debug)]
pub(crate) struct Directory {
    file: File,
    /// The path it was opened by, for messages.
    path: PathBuf,
}

/// Bytes that are written at a time.
const WRITTEN_BYTES: usize = 64 << 10;

/// Error text for a name that is no regular file.
const NO_FILE: &str = "it is no regular file (a link, a pipe, a socket or a directory is not opened here)";
/// Error text for a name that is no directory.
const NO_DIRECTORY: &str = "it is no directory (a symbolic link is not followed here)";

/// An `InvalidInput` error for a name beneath a directory that is not opened.
fn invalid_input_error(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

impl Directory {
    /// Opens a directory by any path. Links in `path` are followed, because the caller chose it.
    ///
    /// # Errors
    /// The system's error of openat(2).
    pub(crate) fn open(path: &Path) -> io::Result<Directory> {
        let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Ok(Directory { file, path: path.to_path_buf() })
    }

    /// The path that the directory was opened by, for messages and for calls that take only paths.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor of the open directory, for system calls that this type does not offer.
    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Opens a directory beneath this one.
    ///
    /// # Errors
    /// `InvalidInput` when a component of the name is empty, `.`, `..` or holds a NUL, or something other than a
    /// directory has the name; else the system's.
    pub(crate) fn directory(&self, name: &str) -> io::Result<Directory> {
        let (parent, last) = self.parent(name)?;
        Ok(Directory { file: open_directory(&parent, &last)?, path: self.path.join(name) })
    }

    /// Opens a directory beneath this one and makes it with mode 0700 if it is absent. Its parents must exist.
    ///
    /// # Errors
    /// As [`Directory::directory`].
    pub(crate) fn make_directory(&self, name: &str) -> io::Result<Directory> {
        let (parent, last) = self.parent(name)?;
        self.before_change();
        match rustix::fs::mkdirat(&*parent, &last, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Directory { file: open_directory(&parent, &last)?, path: self.path.join(name) })
    }

    /// Opens a regular file beneath the directory for reading.
    ///
    /// # Errors
    /// As [`Directory::directory`]; `InvalidInput` when something other than a regular file has the name.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        let (parent, last) = self.parent(name)?;
        require_regular(open_at(&parent, &last, OFlags::RDONLY, Mode::empty()))
    }

    /// As [`Directory::open`] and [`Directory::open_file`] together, without waiting for a disk: only if the system has all
    /// names at hand (`RESOLVE_CACHED` of openat2(2), Linux 5.12). `None` otherwise, and where anything is wrong: the caller
    /// then opens the file on a thread that may wait, and learns why.
    pub(crate) fn open_file_at_hand(directory: &Path, name: &str) -> Option<File> {
        for component in name.split('/') {
            plain_component(component).ok()?;
        }
        let cached = |parent: BorrowedFd<'_>, path: &OsStr, flags, resolve: ResolveFlags| {
            let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            rustix::fs::openat2(parent, path, flags, Mode::empty(), resolve | ResolveFlags::CACHED).ok()
        };
        let root = cached(rustix::fs::CWD, directory.as_os_str(), OFlags::DIRECTORY, ResolveFlags::empty())?;
        // No link is followed, as where each component is opened by itself.
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = cached(root.as_fd(), OsStr::new(name), OFlags::NOFOLLOW, beneath)?;
        require_regular(Ok(file.into())).ok()
    }

    /// Reads a regular file beneath the directory completely.
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

    /// Opens a regular file beneath the directory for reading and writing, made with mode 0600 if it is absent. Its
    /// contents are kept.
    ///
    /// # Errors
    /// As [`Directory::open_file`].
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        let (parent, last) = self.parent(name)?;
        self.before_change();
        require_regular(open_at(&parent, &last, OFlags::RDWR | OFlags::CREATE, FILE_MODE))
    }

    /// Makes a file beneath the directory with mode 0600, which nobody else can have made.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is in use; else the system's.
    pub(crate) fn create_new(&self, name: &str) -> io::Result<File> {
        let (parent, last) = self.parent(name)?;
        self.before_change();
        require_regular(open_at(&parent, &last, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, FILE_MODE))
    }

    /// Metadata of a name beneath the directory, of a link itself if it is one; `None` when nothing has the name.
    ///
    /// # Errors
    /// As [`Directory::directory`].
    pub(crate) fn metadata(&self, name: &str) -> io::Result<Option<Metadata>> {
        let found = self.parent(name).and_then(|(parent, last)| open_at(&parent, &last, OFlags::PATH, Mode::empty()));
        match found {
            Ok(file) => file.metadata().map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renames a file beneath the directory; both names are beneath it. An existing file of the new name is replaced.
    ///
    /// # Errors
    /// As [`Directory::directory`].
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let ((from_parent, from), (to_parent, to)) = (self.parent(from)?, self.parent(to)?);
        self.before_change();
        Ok(rustix::fs::renameat(&*from_parent, from, &*to_parent, to)?)
    }

    /// Renames a file beneath the directory to a name that is not in use.
    ///
    /// # Errors
    /// `AlreadyExists` when the new name is in use; else as [`Directory::directory`].
    pub(crate) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let ((from_parent, from_name), (to_parent, to_name)) = (self.parent(from)?, self.parent(to)?);
        self.before_change();
        match rustix::fs::renameat_with(&*from_parent, from_name, &*to_parent, to_name, RenameFlags::NOREPLACE) {
            // The file system or the kernel cannot do it in one step.
            Err(Errno::INVAL | Errno::NOSYS) => {
                if self.metadata(to)?.is_some() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                self.rename(from, to)
            }
            moved => Ok(moved?),
        }
    }

    /// Gives a regular file beneath the directory a second name, which nothing may have yet or which is replaced. Where the file
    /// system has no hard links, or the file no room for one more, the second name is that of a copy.
    ///
    /// # Errors
    /// As [`Directory::open_file`], or the system's.
    pub(crate) fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut file = self.open_file(from)?;
        let ((from_parent, from_name), (to_parent, to_name)) = (self.parent(from)?, self.parent(to)?);
        self.remove_file(to)?;
        self.before_change();
        match rustix::fs::linkat(&*from_parent, from_name, &*to_parent, to_name, AtFlags::empty()) {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::XDEV) => {
                self.replace_with(to, true, &mut |out| io::copy(&mut file, out).map(drop))
            }
            linked => Ok(linked?),
        }
    }

    /// Gives a regular file beneath the directory a second name, which nothing may have. Where the file system has no hard links,
    /// the file is renamed.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is in use; else as [`Directory::open_file`], or the system's.
    pub(crate) fn link_new(&self, from: &str, to: &str) -> io::Result<()> {
        let ((from_parent, from_name), (to_parent, to_name)) = (self.parent(from)?, self.parent(to)?);
        self.before_change();
        match rustix::fs::linkat(&*from_parent, from_name, &*to_parent, to_name, AtFlags::empty()) {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => self.rename_new(from, to),
            linked => Ok(linked?),
        }
    }

    /// Unlinks a file beneath the directory, or a link itself. `false` when nothing had the name.
    ///
    /// # Errors
    /// As [`Directory::directory`]; the system's when it is a directory.
    pub(crate) fn remove_file(&self, name: &str) -> io::Result<bool> {
        self.remove(name, AtFlags::empty())
    }

    /// Removes an empty directory beneath this one. `false` when nothing had the name.
    ///
    /// # Errors
    /// As [`Directory::directory`]; `DirectoryNotEmpty` when it has entries.
    pub(crate) fn remove_directory(&self, name: &str) -> io::Result<bool> {
        self.remove(name, AtFlags::REMOVEDIR)
    }

    /// Unlinks a name beneath the directory by unlinkat(2) with these flags. `false` when nothing had the name.
    fn remove(&self, name: &str, flags: AtFlags) -> io::Result<bool> {
        let removed = self.parent(name).and_then(|(parent, last)| {
            self.before_change();
            Ok(rustix::fs::unlinkat(&*parent, last, flags)?)
        });
        match removed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a name beneath the directory: a directory with everything in it, a file or a link by itself. The target
    /// of a link is kept.
    ///
    /// # Errors
    /// As [`Directory::directory`].
    pub(crate) fn remove_tree(&self, name: &str) -> io::Result<()> {
        match self.metadata(name)? {
            Some(found) if found.is_dir() => {
                self.before_change();
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

    /// Replaces a file beneath the directory by writing a temporary file and renaming it. With `sync` the new contents
    /// survive a loss of power.
    ///
    /// # Errors
    /// As [`Directory::create`], or the system's when it cannot be written; the previous file is then unchanged. An error
    /// that [`is_unsynced`](crate::sys::unsynced_entry::is_unsynced) when the new contents stand, but not surely after a loss
    /// of power.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        self.replace_with(name, sync, &mut |out| out.write_all(bytes))
    }

    /// As [`Directory::replace`], with contents that `write` gives piece by piece.
    ///
    /// # Errors
    /// As [`Directory::replace`]; the error of `write`.
    pub(crate) fn replace_with(
        &self,
        name: &str,
        sync: bool,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.replace_with_mode(name, sync, None, write)
    }

    /// As [`Directory::replace_with`]; the file has these permission bits from the moment that it has its name, 0600 without.
    ///
    /// # Errors
    /// As [`Directory::replace_with`].
    pub(crate) fn replace_with_mode(
        &self,
        name: &str,
        sync: bool,
        mode: Option<u32>,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let temporary = temporary_name(name);
        let file = self.create(&temporary)?;
        file.set_len(0)?;
        if let Some(mode) = mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        let mut out = BufWriter::with_capacity(WRITTEN_BYTES, &file);
        let written = write(&mut out).and_then(|()| out.flush());
        // What could not be written is not tried again.
        drop(out.into_parts());
        let synced = written.and_then(|()| if sync { file.sync_all() } else { Ok(()) });
        if let Err(error) = synced.and_then(|()| self.rename(&temporary, name)) {
            self.remove_file(&temporary).ok();
            return Err(error);
        }
        match sync {
            true => self.sync_parent(name).map_err(unsynced),
            false => Ok(()),
        }
    }

    /// Makes a symbolic link beneath the directory to `target`, in place of a link or file of the name.
    ///
    /// # Errors
    /// As [`Directory::rename`]; the system's where links cannot be made.
    pub(crate) fn replace_link(&self, name: &str, target: &str) -> io::Result<()> {
        let temporary = temporary_name(name);
        self.remove_file(&temporary)?;
        let (parent, last) = self.parent(&temporary)?;
        self.before_change();
        rustix::fs::symlinkat(target, &*parent, last)?;
        self.rename(&temporary, name).inspect_err(|_| drop(self.remove_file(&temporary)))
    }

    /// Sets the permission bits of a regular file beneath the directory.
    ///
    /// # Errors
    /// As [`Directory::open_file`], or the system's error of fchmod(2).
    pub(crate) fn set_file_mode(&self, name: &str, mode: u32) -> io::Result<()> {
        self.open_file(name)?.set_permissions(Permissions::from_mode(mode))
    }

    /// Sets the permission bits of the directory itself.
    ///
    /// # Errors
    /// The system's error of fchmod(2).
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(mode))
    }

    /// Syncs the directory, so that its entries survive a loss of power.
    ///
    /// # Errors
    /// The system's error of fsync(2).
    pub(crate) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        tests::before_sync(&self.path)?;
        self.file.sync_all()
    }

    /// Syncs the directory that holds a name beneath this one.
    fn sync_parent(&self, name: &str) -> io::Result<()> {
        match self.parent(name)? {
            (Parent::Held(_), _) => self.sync(),
            (Parent::Opened(file), _) => {
                #[cfg(test)]
                tests::before_sync(self.path.join(name).parent().expect("a name has a parent"))?;
                file.sync_all()
            }
        }
    }

    /// The names of the directory's entries, in no order, without `.` and `..`.
    ///
    /// # Errors
    /// The system's error of openat(2) or readdir(3).
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        // A descriptor of its own, because reading moves a position that all copies of a descriptor share.
        let own = open_at(&self.file, c".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::new(own)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        Ok(names)
    }

    /// Opens the directory that holds the last component of a name, without following links, and returns it with that
    /// component.
    fn parent(&self, name: &str) -> io::Result<(Parent<'_>, CString)> {
        let mut parent = Parent::Held(&self.file);
        let (folders, last) = name.rsplit_once('/').map_or((None, name), |(folders, last)| (Some(folders), last));
        for folder in folders.into_iter().flat_map(|folders| folders.split('/')) {
            parent = Parent::Opened(open_directory(&parent, &plain_component(folder)?)?);
        }
        Ok((parent, plain_component(last)?))
    }

    /// Hook called before each change beneath the directory: tests record the state that a kill would leave here.
    fn before_change(&self) {
        #[cfg(test)]
        tests::before_change(&self.path);
    }
}

/// The directory in which a name's last component is looked up.
enum Parent<'a> {
    /// The [`Directory`] itself.
    Held(&'a File),
    /// A directory beneath it, opened for this look-up.
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

/// Name, beneath a held directory, of the temporary file that replaces a file there: `.NAME.part` beside it.
pub(crate) fn temporary_name(name: &str) -> String {
    match name.rsplit_once('/') {
        Some((folders, last)) => format!("{folders}/.{last}.part"),
        None => format!(".{name}.part"),
    }
}

/// One component of a name as a C string; `InvalidInput` when it is empty, `.`, `..`, or holds `/` or NUL.
fn plain_component(part: &str) -> io::Result<CString> {
    if matches!(part, "" | "." | "..") || part.contains('/') {
        return Err(invalid_input_error("its name leads out of its directory"));
    }
    CString::new(part).map_err(|_| invalid_input_error("its name holds a NUL"))
}

/// openat(2) without following a link and without waiting, retried on EINTR.
fn open_at(parent: &File, name: &CStr, flags: OFlags, mode: Mode) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(retry_on_intr(|| rustix::fs::openat(parent, name, flags, mode))?))
}

/// Opens one component as a directory; a link or anything else is `InvalidInput`.
fn open_directory(parent: &File, name: &CStr) -> io::Result<File> {
    open_at(parent, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ELOOP | libc::ENOTDIR) => invalid_input_error(NO_DIRECTORY),
            _ => error,
        }
    })
}

/// Passes on a file opened beneath a held directory if it is regular; anything else, as a link, is `InvalidInput`.
fn require_regular(opened: io::Result<File>) -> io::Result<File> {
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(invalid_input_error(NO_FILE)),
        // A link; a socket or a pipe without a reader; a directory opened for writing.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::EISDIR)) => {
            Err(invalid_input_error(NO_FILE))
        }
        Err(error) => Err(error),
    }
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

    pub(crate) fn before_change(path: &Path) {
        let looks: Vec<EntryLookup> = {
            let all = LOOKS.lock().unwrap();
            all.iter().filter(|(root, _)| path.starts_with(root)).map(|(_, look)| look.clone()).collect()
        };
        looks.iter().for_each(|look| look());
    }

    /// Calls `look` before each change beneath `root` during `work`: it finds the files that a kill would leave.
    pub(crate) fn watching<T>(root: &Path, look: impl Fn() + Send + Sync + 'static, work: impl FnOnce() -> T) -> T {
        LOOKS.lock().unwrap().push((root.to_path_buf(), Arc::new(look)));
        let outcome = work();
        LOOKS.lock().unwrap().retain(|(watched, _)| watched != root);
        outcome
    }

    /// When the sync of a directory fails.
    type SyncFailure = Arc<dyn Fn() -> bool + Send + Sync>;
    static SYNC_FAILURES: Mutex<Vec<(PathBuf, SyncFailure)>> = Mutex::new(Vec::new());

    pub(crate) fn before_sync(path: &Path) -> io::Result<()> {
        let failures = SYNC_FAILURES.lock().unwrap();
        let fails = failures.iter().filter(|(directory, _)| directory == path).any(|(_, fails)| fails());
        if fails { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    /// Has each sync of `directory` fail for which `when` holds, during `work`.
    pub(crate) fn failing_syncs<T>(
        directory: &Path,
        when: impl Fn() -> bool + Send + Sync + 'static,
        work: impl FnOnce() -> T,
    ) -> T {
        SYNC_FAILURES.lock().unwrap().push((directory.to_path_buf(), Arc::new(when)));
        let outcome = work();
        SYNC_FAILURES.lock().unwrap().retain(|(failing, _)| failing != directory);
        outcome
    }

    /// A file whose directory cannot be synced stands with its new contents, and the error says so.
    #[test]
    fn a_failed_sync_tells_what_stands() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Directory::open(scratch.path()).unwrap();
        root.make_directory("a").unwrap();
        for (name, directory) in [("one", scratch.path().to_path_buf()), ("a/one", scratch.path().join("a"))] {
            root.replace(name, b"old", true).unwrap();
            let error = failing_syncs(&directory, || true, || root.replace(name, b"new", true)).unwrap_err();
            assert!(crate::sys::unsynced_entry::is_unsynced(&error), "{error}");
            assert_eq!(root.read(name, 9).unwrap(), b"new");
            failing_syncs(&directory, || true, || root.replace(name, b"newer", false)).unwrap();
            root.replace(name, b"newest", true).unwrap();
        }
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
            assert!(Directory::open_file_at_hand(&inside, name).is_none(), "{name}");
        }
        for name in ["", ".", "..", "/", "a//b", "/etc/passwd", "plain/..", "plain/../x", "a\0b"] {
            for error in [root.open_file(name).unwrap_err(), root.create(name).unwrap_err()] {
                assert!(
                    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound),
                    "{name} {error}"
                );
            }
            assert!(root.remove_file(name).map_or(true, |removed| !removed), "{name}");
            assert!(Directory::open_file_at_hand(&inside, name).is_none(), "{name}");
        }
        for name in ["folder", "file", "pipe", "folder/deep", "plain/../../outside"] {
            assert_eq!(root.directory(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
            assert_eq!(root.make_directory(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert!(root.remove_file("folder/secret").is_err() && root.rename("file", "folder/x").is_err());
        for name in ["file", "dangling", "pipe", "socket", "plain", "folder"] {
            assert!(open_regular(&inside.join(name), Links::Refuse).is_err(), "{name}");
        }
        // A link in place of a file is replaced or removed itself; its target is kept.
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
        // What is at hand is the same file. A kernel or a sandbox without openat2(2) has nothing at hand.
        root.make_directory("deep").unwrap();
        root.replace("deep/file", b"deep", false).unwrap();
        for (name, bytes) in [("file", &b"own"[..]), ("deep/file", b"deep")] {
            assert_eq!(root.read(name, 9).unwrap(), bytes);
            let Some(mut file) = Directory::open_file_at_hand(&scratch.path().join("link"), name) else { continue };
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes);
        }
    }
}
