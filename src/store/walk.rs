//! Finds the data files of a store directory, in store order.
//!
//! Names beginning with a dot are skipped, symlinks are not followed, and inside a directory that holds an outpour
//! manifest only its `output` and `deleted` files are read (its `error` files are messages, not records). Nothing is
//! opened here but manifests; of the others size and times are taken.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::codec::compression::Compression;
use crate::error::IndexError;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::store::Store;
use crate::sys::regular_file::{RegularFileError, read_regular};
use crate::sys::store_file::{FileStamp, file_clock_ns};

/// A data file of the store as the walk found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WalkedFile {
    /// Path relative to the store, `/` between its parts; store order is the bytewise order of these.
    pub name: String,
    /// Compression of its bytes by its name; the bytes themselves may tell another one.
    pub named: Compression,
    /// Size and times at the time of the walk; a plain file is cut at the length of a listing, if there is one.
    pub stamp: FileStamp,
    /// Length at which a listing cuts it, in bytes, if it turns out to be plain.
    pub listed_len: Option<u64>,
}

/// Data files and ignored paths of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    /// Data files in store order.
    pub files: Vec<WalkedFile>,
    /// When the walk began, in nanoseconds since the Unix epoch by the clock that stamps files.
    pub begun_ns: i64,
    /// Relative paths that were ignored: other files, symlinks, names that are no UTF-8 (shown lossily).
    pub ignored: Vec<String>,
}

/// Whether a walk could have found a data file of this name: a path in the store with the suffix of a data file and
/// without hidden parts. Names from a record or an index are checked by it before a file is opened.
pub(crate) fn is_store_name(name: &str) -> bool {
    Compression::of_file_name(name).is_some() && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

/// Walks the directory tree under `root`.
///
/// # Errors
/// When any directory cannot be read, with its path: a part of the store must not be omitted silently.
pub(crate) fn walk(root: &Path) -> Result<Walk, (PathBuf, io::Error)> {
    let mut walk = Walk { begun_ns: file_clock_ns(), ..Walk::default() };
    visit(root, "", &mut walk)?;
    walk.files.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    walk.ignored.sort();
    Ok(walk)
}

/// Adds the data files below one directory to the walk; `prefix` is its path in the store, with a slash at its end.
fn visit(directory: &Path, prefix: &str, walk: &mut Walk) -> Result<(), (PathBuf, io::Error)> {
    let at = |error| (directory.to_path_buf(), error);
    let published = published_names(directory)?;
    for entry in std::fs::read_dir(directory).map_err(at)? {
        let entry = entry.map_err(at)?;
        let Ok(name) = entry.file_name().into_string() else {
            walk.ignored.push(format!("{prefix}{}", entry.file_name().to_string_lossy()));
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let relative = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(|error| (entry.path(), error))?;
        if kind.is_dir() {
            // Sub-directories of a published export: only `deleted` holds store data, and only as the manifest says.
            match &published {
                Some(_) if name != "deleted" => walk.ignored.push(format!("{relative}/")),
                Some(names) => visit_published(&entry.path(), &relative, names, walk)?,
                None => visit(&entry.path(), &format!("{relative}/"), walk)?,
            }
            continue;
        }
        let listed = published.as_ref().is_none_or(|names| names.contains(&name));
        match Compression::of_file_name(&name) {
            Some(compression) if kind.is_file() && listed => push(&entry, relative, compression, walk)?,
            _ => walk.ignored.push(relative),
        }
    }
    Ok(())
}

/// Adds a data file to the walk. A file removed since the directory was read is not part of the store.
fn push(
    entry: &std::fs::DirEntry,
    name: String,
    named: Compression,
    walk: &mut Walk,
) -> Result<(), (PathBuf, io::Error)> {
    match entry.metadata() {
        Ok(found) => {
            let stamp = FileStamp::of_metadata(&found);
            walk.files.push(WalkedFile { name, named, stamp, listed_len: None });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err((entry.path(), error)),
    }
    Ok(())
}

/// Adds the files of the `deleted` directory of an export that its manifest lists; others are ignored.
fn visit_published(
    directory: &Path,
    prefix: &str,
    names: &HashSet<String>,
    walk: &mut Walk,
) -> Result<(), (PathBuf, io::Error)> {
    let at = |error| (directory.to_path_buf(), error);
    for entry in std::fs::read_dir(directory).map_err(at)? {
        let entry = entry.map_err(at)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let relative = format!("{prefix}/{name}");
        let file = entry.file_type().map_err(at)?.is_file();
        match Compression::of_file_name(&name) {
            _ if name.starts_with('.') => {}
            Some(compression) if file && names.contains(&format!("deleted/{name}")) => {
                push(&entry, relative, compression, walk)?
            }
            _ => walk.ignored.push(relative),
        }
    }
    Ok(())
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
fn published_names(directory: &Path) -> Result<Option<HashSet<String>>, (PathBuf, io::Error)> {
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
    let mut names = HashSet::new();
    for list in ["output", "deleted"] {
        for item in manifest.get(list).and_then(|list| list.as_array()).into_iter().flatten() {
            // The last path segment is the file's name, whatever base URL the export was given.
            let name = item.get("url").and_then(|url| url.as_str()).and_then(|url| url.rsplit('/').next());
            let folder = if list == "deleted" { "deleted/" } else { "" };
            names.extend(name.map(|name| format!("{folder}{name}")));
        }
    }
    Ok(Some(names))
}

/// Walks the directory of a store for its data files.
///
/// # Errors
/// When a directory cannot be read.
pub(crate) fn walk_store(store: &Store) -> Result<Walk, IndexError> {
    walk(store.root()).map_err(|(path, source)| IndexError::Read { path, source })
}
