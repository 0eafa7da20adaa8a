//! Finds the data files of a store directory, in store order.
//!
//! Names beginning with a dot are skipped, and so are those that the store's `.outpourignore` takes. Inside a directory
//! that holds an outpour manifest only its `output` and `deleted` files are read (its `error` files are messages, not
//! records). Symbolic links are followed only if the store's owner chose so. Nothing is opened here but manifests; of the
//! others size and times are taken, every time and of every file, on several threads: the time of a directory says nothing of
//! what was appended to its files.
//!
//! With links a directory or a file may have many paths. Directories are visited in bytewise order of their paths, and each
//! once, by device and inode. A path within a directory is greater than that of the directory, so the first path is the
//! least one without a circle, and the work grows with the entries, not with the paths.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::codec::compression::Compression;
use crate::count_text::{counted, word_form};
use crate::error::IndexError;
use crate::limits::{GONE_FILES_NAMED_MAX, MANIFEST_BYTES_MAX};
use crate::store::Store;
use crate::store::file_name::{is_spelling, is_utf8, name_of, path_of};
use crate::store::ignore_file::IgnoreFile;
use crate::store::paths::JOB;
use crate::store::walked_file::{WalkedFile, take_stamps};
use crate::sys::atomic_dir::PARTIAL_SUFFIX;
use crate::sys::regular_file::{Links, RegularFileError, read_regular};
use crate::sys::store_file::{FileStamp, file_clock_ns};

/// What a walk follows, and what it passes over.
#[derive(Clone, Debug)]
pub(crate) struct WalkRules {
    /// Whether symbolic links are followed.
    pub links: Links,
    /// Names to pass over.
    pub ignore: IgnoreFile,
}

impl Default for WalkRules {
    fn default() -> WalkRules {
        WalkRules { links: Links::Refuse, ignore: IgnoreFile::default() }
    }
}

/// Data files and ignored paths of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    /// Data files in store order.
    pub files: Vec<WalkedFile>,
    /// When the walk began, in nanoseconds since the Unix epoch by the clock that stamps files.
    pub begun_ns: i64,
    /// Relative paths that were ignored: files of other names, links that are not followed or lead nowhere.
    pub ignored: Vec<String>,
    /// How many of the ignored paths are symbolic links.
    pub ignored_links: u64,
    /// How many files and directories `.outpourignore` took.
    pub excluded: u64,
    /// Directories that were entered through a link, without links in their paths.
    pub linked: Vec<PathBuf>,
    /// The rules of the walk.
    pub rules: WalkRules,
}

impl Walk {
    /// What a store without data files holds instead, for a message.
    pub(crate) fn words_of_others(&self) -> String {
        let mut words = String::new();
        if !self.ignored.is_empty() {
            let first =
                self.ignored.iter().take(GONE_FILES_NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if self.ignored.len() > GONE_FILES_NAMED_MAX { ", ..." } else { "" };
            let others = self.ignored.len() as u64 - self.ignored_links;
            let files = (others > 0).then(|| format!("{} of other names", counted(others, "file")));
            let links = (self.ignored_links > 0).then(|| counted(self.ignored_links, "symbolic link"));
            let what: Vec<String> = files.into_iter().chain(links).collect();
            words += &format!(", but {}: {first}{more}", what.join(" and "));
        }
        if self.excluded > 0 {
            words += &format!(", and .outpourignore passes over {}", excluded_text(self.excluded));
        }
        words
    }
}

/// Whether a version that knew fewer names took a file of this name.
pub(crate) fn is_earlier_name(name: &str) -> bool {
    Compression::is_earlier_name(name) && is_utf8(name)
}

/// How many files and directories `.outpourignore` took, in words.
pub(crate) fn excluded_text(excluded: u64) -> String {
    format!("{excluded} {}", word_form(excluded, "file or directory", "files or directories"))
}

/// Whether a walk could have found a data file of this name: a path in the store with the suffix of a data file and
/// without hidden parts, spelled as a walk spells it. Names from a record or an index are checked by it before a file is
/// opened.
pub(crate) fn is_store_name(name: &str) -> bool {
    Compression::of_file_name(name).is_some() && is_spelling(name)
}

/// Walks the directory tree under `root`, links not followed.
///
/// # Errors
/// When any directory cannot be read, with its path: a part of the store must not be omitted silently.
pub(crate) fn walk(root: &Path) -> Result<Walk, (PathBuf, io::Error)> {
    walk_by(root, WalkRules::default(), Path::new(""))
}

/// Walks the directory tree under `root` by `rules`. Of `index_dir` nothing is read through a link.
///
/// # Errors
/// As [`walk`].
pub(crate) fn walk_by(root: &Path, rules: WalkRules, index_dir: &Path) -> Result<Walk, (PathBuf, io::Error)> {
    let mut walker = Walker {
        root,
        real_root: root.canonicalize().unwrap_or_default(),
        index_dir: index_dir.canonicalize().ok(),
        pending: BinaryHeap::new(),
        visited: HashSet::new(),
        contents: HashMap::new(),
        found: Vec::new(),
        unstamped: Vec::new(),
        walk: Walk { begun_ns: file_clock_ns(), rules, ..Walk::default() },
    };
    walker.pending.push(Reverse(PendingDirectory::default()));
    while let Some(Reverse(next)) = walker.pending.pop() {
        walker.visit(next)?;
    }
    let Walker { mut walk, unstamped, .. } = walker;
    stamp_walk(root, &mut walk, &unstamped)?;
    walk.files.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    if walk.rules.links == Links::Follow {
        // A file with many paths has the least of them.
        let mut known = HashSet::new();
        walk.files.retain(|found| known.insert((found.stamp.device, found.stamp.inode)));
    }
    walk.ignored.sort();
    Ok(walk)
}

/// A directory that is still to be visited, in the order of their paths.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct PendingDirectory {
    /// Its path in the store as names have it, with a slash at its end; empty for the store itself.
    prefix: String,
    /// The same on disk.
    path: PathBuf,
    /// What the manifest of the export lists whose `deleted` directory it is, if it is one.
    deleted_of: Option<Rc<ListedNames>>,
    /// Whether a part of its path is a link.
    is_beyond_link: bool,
    /// Its path without links, if a link leads to it.
    linked: Option<PathBuf>,
}

/// Names of output and deleted files that a manifest lists, relative to it, ascending.
type ListedNames = Vec<String>;

/// What a directory is, by its own entries.
#[derive(Clone)]
enum DirectoryContents {
    /// One like any other.
    Plain,
    /// An export, with the files that its manifest lists.
    Published(Rc<ListedNames>),
    /// An export that has no manifest yet.
    Unfinished,
}

/// What an entry of a directory is; of a link that is followed, what it leads to.
enum EntryKind {
    Directory,
    /// A file that a link leads to.
    File(Metadata),
    /// A file with the name of a data file, whose metadata are taken later.
    UnstampedFile,
    /// A file of another name, a pipe, a socket, a device, or a link that is not followed or leads nowhere.
    Other,
}

/// A walk under way.
struct Walker<'a> {
    root: &'a Path,
    real_root: PathBuf,
    index_dir: Option<PathBuf>,
    pending: BinaryHeap<Reverse<PendingDirectory>>,
    /// Devices and inodes of the directories that were visited; kept only if links are followed.
    visited: HashSet<(u64, u64)>,
    /// What directories are that links lead into.
    contents: HashMap<PathBuf, DirectoryContents>,
    /// Files of the directory that is visited.
    found: Vec<FoundFile>,
    /// Places in the walk of the files whose stamps are still to be taken, ascending.
    unstamped: Vec<usize>,
    walk: Walk,
}

/// A data file of the directory that is visited.
struct FoundFile {
    file: WalkedFile,
    /// Whether its stamp was taken: of one that a link leads to.
    is_stamped: bool,
}

impl Walker<'_> {
    /// Adds the data files of one directory to the walk, and its directories to those to be visited.
    fn visit(&mut self, directory: PendingDirectory) -> Result<(), (PathBuf, io::Error)> {
        let path = self.root.join(&directory.path);
        let at = |error| (path.clone(), error);
        if self.walk.rules.links == Links::Follow {
            let found = std::fs::metadata(&path).map_err(at)?;
            if !self.visited.insert((found.dev(), found.ino())) {
                return Ok(());
            }
            if directory.is_beyond_link && self.is_own_directory(&path, &found).map_err(at)? {
                self.walk.ignored.push(directory.prefix);
                return Ok(());
            }
            if let Some(target) = &directory.linked {
                self.walk.linked.push(target.clone());
            }
        }
        let listed = match &directory.deleted_of {
            Some(listed) => Some(listed.clone()),
            None => published_names(&path)?.map(Rc::new),
        };
        for entry in std::fs::read_dir(&path).map_err(at)? {
            let entry = entry.map_err(at)?;
            let on_disk = entry.file_name();
            if !on_disk.as_encoded_bytes().starts_with(b".") {
                self.add(&entry, &on_disk, &directory, listed.as_ref())?;
            }
        }
        // Sorted while they are few and near: the sort of all files then finds them in order.
        self.found.sort_unstable_by(|a, b| a.file.name.as_bytes().cmp(b.file.name.as_bytes()));
        let first = self.walk.files.len();
        let is_unstamped = |(place, found): (usize, &FoundFile)| (!found.is_stamped).then_some(first + place);
        self.unstamped.extend(self.found.iter().enumerate().filter_map(is_unstamped));
        self.walk.files.extend(self.found.drain(..).map(|found| found.file));
        Ok(())
    }

    /// Adds an entry of a directory, of which a manifest lists these files, if it has one.
    fn add(
        &mut self,
        entry: &std::fs::DirEntry,
        on_disk: &OsStr,
        directory: &PendingDirectory,
        listed: Option<&Rc<ListedNames>>,
    ) -> Result<(), (PathBuf, io::Error)> {
        let own = name_of(on_disk);
        let mut name = String::with_capacity(directory.prefix.len() + own.len());
        name.push_str(&directory.prefix);
        name.push_str(&own);
        let ignore = &self.walk.rules.ignore;
        let is_taken = |is_directory| !ignore.is_absent() && ignore.takes(&directory.path.join(on_disk), is_directory);
        let is_link = entry.file_type().map_err(|error| (entry.path(), error))?.is_symlink();
        let named = Compression::of_file_name(&name);
        let kind = match self.kind_of(entry, named.is_some()) {
            Ok(kind) => kind,
            // What is passed over need not be readable.
            Err(_) if is_taken(false) || is_taken(true) => {
                self.walk.excluded += 1;
                return Ok(());
            }
            Err(error) => return Err((entry.path(), error)),
        };
        if is_taken(matches!(kind, EntryKind::Directory)) {
            self.walk.excluded += 1;
            return Ok(());
        }
        let target = match is_link && !matches!(kind, EntryKind::Other) {
            true => match entry.path().canonicalize() {
                Ok(target) => Some(target),
                Err(error) if leads_nowhere(&error) => {
                    self.ignore(name, is_link);
                    return Ok(());
                }
                Err(error) => return Err((entry.path(), error)),
            },
            false => None,
        };
        match kind {
            EntryKind::Directory if directory.deleted_of.is_none() => {
                // Of the directories of a published export only `deleted` holds store data, and only as the manifest says.
                let deleted_of = match (listed, &target) {
                    (Some(_), _) if *on_disk != *"deleted" => Err(()),
                    (Some(listed), _) => Ok(Some(listed.clone())),
                    (None, Some(target)) => self.linked_directory(target)?.ok_or(()),
                    (None, None) => Ok(None),
                };
                match deleted_of {
                    Ok(deleted_of) => {
                        let (prefix, is_beyond_link) = (format!("{name}/"), directory.is_beyond_link || is_link);
                        let path = directory.path.join(on_disk);
                        let next = PendingDirectory { prefix, path, deleted_of, is_beyond_link, linked: target };
                        self.pending.push(Reverse(next));
                    }
                    Err(()) => self.ignore(format!("{name}/"), is_link),
                }
                return Ok(());
            }
            EntryKind::File(found) => {
                let place = if directory.deleted_of.is_some() { "deleted/" } else { "" };
                let is_read = listed.is_none_or(|listed| is_listed(listed, place, on_disk))
                    && target.as_deref().map_or(Ok(true), |target| self.is_linked_data(target))?;
                if let (Some(named), true) = (named, is_read) {
                    let stamp = FileStamp::of_metadata(&found);
                    let file = WalkedFile { name, named, stamp, listed_len: None };
                    self.found.push(FoundFile { file, is_stamped: true });
                    return Ok(());
                }
            }
            EntryKind::UnstampedFile => {
                let place = if directory.deleted_of.is_some() { "deleted/" } else { "" };
                if let (Some(named), true) = (named, listed.is_none_or(|listed| is_listed(listed, place, on_disk))) {
                    let file = WalkedFile { name, named, stamp: FileStamp::default(), listed_len: None };
                    self.found.push(FoundFile { file, is_stamped: false });
                    return Ok(());
                }
            }
            EntryKind::Directory | EntryKind::Other => {}
        }
        self.ignore(name, is_link);
        Ok(())
    }

    /// Notes a path that is not read.
    fn ignore(&mut self, name: String, is_link: bool) {
        self.walk.ignored.push(name);
        self.walk.ignored_links += u64::from(is_link);
    }

    /// What an entry is, or what its link leads to if links are followed. Of a file whose name is not that of a data file
    /// nothing more is asked.
    fn kind_of(&self, entry: &std::fs::DirEntry, has_data_name: bool) -> io::Result<EntryKind> {
        let kind = entry.file_type()?;
        let is_followed = kind.is_symlink() && self.walk.rules.links == Links::Follow;
        if kind.is_dir() {
            return Ok(EntryKind::Directory);
        }
        let found = match is_followed {
            true => std::fs::metadata(entry.path()),
            false if kind.is_file() && has_data_name => return Ok(EntryKind::UnstampedFile),
            false => return Ok(EntryKind::Other),
        };
        match found {
            Ok(found) if found.is_dir() => Ok(EntryKind::Directory),
            Ok(found) if found.is_file() => Ok(EntryKind::File(found)),
            Ok(_) => Ok(EntryKind::Other),
            Err(error) if leads_nowhere(&error) => Ok(EntryKind::Other),
            Err(error) => Err(error),
        }
    }

    /// How a directory is read that a link leads to: `None` if not at all, else what the manifest lists whose `deleted`
    /// directory it is, if it is one.
    fn linked_directory(&mut self, target: &Path) -> Result<Option<Option<Rc<ListedNames>>>, (PathBuf, io::Error)> {
        if self.is_own(target) || matches!(self.contents_of(target)?, DirectoryContents::Unfinished) {
            return Ok(None);
        }
        Ok(match self.contents_above(target)? {
            DirectoryContents::Plain => Some(None),
            DirectoryContents::Published(listed) if target.ends_with("deleted") => Some(Some(listed)),
            DirectoryContents::Published(_) | DirectoryContents::Unfinished => None,
        })
    }

    /// Whether a file that a link leads to holds data by the manifest beside it or above it, if there is one.
    fn is_linked_data(&mut self, target: &Path) -> Result<bool, (PathBuf, io::Error)> {
        let (Some(directory), Some(name)) = (target.parent(), target.file_name()) else { return Ok(false) };
        if self.is_own(target) {
            return Ok(false);
        }
        Ok(match self.contents_of(directory)? {
            DirectoryContents::Published(listed) => is_listed(&listed, "", name),
            DirectoryContents::Unfinished => false,
            DirectoryContents::Plain => match self.contents_above(directory)? {
                DirectoryContents::Plain => true,
                DirectoryContents::Published(listed) => {
                    directory.ends_with("deleted") && is_listed(&listed, "deleted/", name)
                }
                DirectoryContents::Unfinished => false,
            },
        })
    }

    /// Whether a directory beyond a link is the index, or an export that has no manifest yet.
    fn is_own_directory(&self, path: &Path, found: &Metadata) -> io::Result<bool> {
        let index = self.index_dir.as_ref().and_then(|index_dir| std::fs::metadata(index_dir).ok());
        let is_index = index.is_some_and(|index| (index.dev(), index.ino()) == (found.dev(), found.ino()));
        Ok(is_index || path.join(JOB).is_dir() && !path.join("manifest.json").try_exists()?)
    }

    /// Whether a path without links lies in the index, in a directory under construction, or beside the record of a run.
    fn is_own(&self, target: &Path) -> bool {
        let is_ours = |part: &OsStr| part == JOB || part.as_encoded_bytes().ends_with(PARTIAL_SUFFIX.as_bytes());
        self.index_dir.as_ref().is_some_and(|index_dir| target.starts_with(index_dir)) || target.iter().any(is_ours)
    }

    /// What the directory above one is; plain above the store itself.
    fn contents_above(&mut self, directory: &Path) -> Result<DirectoryContents, (PathBuf, io::Error)> {
        match directory.parent().filter(|_| directory != self.real_root) {
            Some(above) => self.contents_of(above),
            None => Ok(DirectoryContents::Plain),
        }
    }

    /// What a directory is, by its own entries.
    fn contents_of(&mut self, directory: &Path) -> Result<DirectoryContents, (PathBuf, io::Error)> {
        if let Some(known) = self.contents.get(directory) {
            return Ok(known.clone());
        }
        let contents = match published_names(directory)? {
            Some(listed) => DirectoryContents::Published(Rc::new(listed)),
            None if directory.join(JOB).is_dir() => DirectoryContents::Unfinished,
            None => DirectoryContents::Plain,
        };
        self.contents.insert(directory.to_path_buf(), contents.clone());
        Ok(contents)
    }
}

/// Takes the stamps of the files of a walk at these places. A file that is gone since its directory was read is removed from the
/// walk; what is none any more is noted as not read.
fn stamp_walk(root: &Path, walk: &mut Walk, places: &[usize]) -> Result<(), (PathBuf, io::Error)> {
    let unstamped = take_stamps(root, &mut walk.files, places);
    if unstamped.is_empty() {
        return Ok(());
    }
    let mut removed = Vec::with_capacity(unstamped.len());
    for (place, outcome) in unstamped {
        match outcome {
            Ok(is_other) => {
                removed.push(place);
                walk.ignored.extend(is_other.then(|| walk.files[place].name.clone()));
            }
            Err(error) => return Err((root.join(path_of(&walk.files[place].name)), error)),
        }
    }
    let mut place = 0;
    walk.files.retain(|_| {
        place += 1;
        removed.binary_search(&(place - 1)).is_err()
    });
    Ok(())
}

/// Whether a link that cannot be followed for this reason leads nowhere, or in a circle.
fn leads_nowhere(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG))
}

/// Whether a manifest lists the file of this name in `place` beside it. It lists no name that is no UTF-8.
fn is_listed(listed: &ListedNames, place: &str, name: &OsStr) -> bool {
    let name = name.to_str().map(|name| format!("{place}{name}"));
    name.is_some_and(|name| listed.binary_search(&name).is_ok())
}

/// The member by which an outpour manifest is recognised; the rest of the document is ignored.
#[derive(Deserialize)]
struct MarkedDirectory {
    #[serde(rename = "extension")]
    _extension: DirectoryMark,
}

/// The extension that an outpour manifest has.
#[derive(Deserialize)]
struct DirectoryMark {
    #[serde(rename = "urn:outpour:export:1")]
    _export: IgnoredAny,
}

/// Names (relative to `directory`) of the output and deleted files that the directory's outpour manifest lists, or
/// `None` when it holds no such manifest. A `manifest.json` of another system is just another file, and so is one that
/// may not be read: the files of an export have one owner and one mode.
fn published_names(directory: &Path) -> Result<Option<ListedNames>, (PathBuf, io::Error)> {
    let path = directory.join("manifest.json");
    let text = match read_regular(&path, MANIFEST_BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.is_absence() => return Ok(None),
        Err(RegularFileError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err((path, error.into())),
    };
    if serde_json::from_slice::<MarkedDirectory>(&text).is_err() {
        return Ok(None);
    }
    let Ok(manifest) = serde_json::from_slice::<serde_json::Value>(&text) else { return Ok(None) };
    let mut names = ListedNames::new();
    for list in ["output", "deleted"] {
        for item in manifest.get(list).and_then(|list| list.as_array()).into_iter().flatten() {
            // The last path segment is the file's name, whatever base URL the export was given.
            let name = item.get("url").and_then(|url| url.as_str()).and_then(|url| url.rsplit('/').next());
            let folder = if list == "deleted" { "deleted/" } else { "" };
            names.extend(name.map(|name| format!("{folder}{name}")));
        }
    }
    names.sort_unstable();
    Ok(Some(names))
}

/// Walks the directory of a store for its data files, without what its `.outpourignore` takes.
///
/// # Errors
/// When a directory cannot be read, or that file cannot be used.
pub(crate) fn walk_store(store: &Store, links: Links) -> Result<Walk, IndexError> {
    walk_store_by(store, WalkRules { links, ignore: IgnoreFile::read(store.root(), links)? })
}

/// Walks the directory of a store by `rules`.
///
/// # Errors
/// When a directory cannot be read.
pub(crate) fn walk_store_by(store: &Store, rules: WalkRules) -> Result<Walk, IndexError> {
    walk_by(store.root(), rules, &store.index_dir()).map_err(|(path, source)| IndexError::Read { path, source })
}

#[cfg(test)]
mod tests;
