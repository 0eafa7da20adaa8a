//! The file `.outpourignore` in the root of a store: names that a walk passes over, by the patterns of gitignore.
//!
//! It takes files away and adds none: hidden names and files of other kinds are not read, whatever it says. A file that
//! cannot be used is an error, because without its patterns more would be read than its author wants.

use std::io;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::IndexError;
use crate::hash::xxh3_64;
use crate::limits::IGNORE_FILE_BYTES_MAX;
use crate::store::file_name::path_of;
use crate::sys::regular_file::{Links, read_regular_as};

/// Its name in the root of the store.
pub(crate) const NAME: &str = ".outpourignore";

/// The patterns of a store's `.outpourignore`; none if it has no such file.
#[derive(Clone, Debug, Default)]
pub(crate) struct IgnoreFile {
    patterns: Option<Gitignore>,
    /// xxh3 of its bytes; 0 when there is no file.
    pub(crate) hash: u64,
}

impl IgnoreFile {
    /// Reads the file of a store; a symbolic link in its place is followed as `links` says.
    ///
    /// # Errors
    /// [`IndexError::IgnoreFile`] when there is one that cannot be read, is too large, or has a line that is no pattern.
    pub(crate) fn read(root: &Path, links: Links) -> Result<IgnoreFile, IndexError> {
        let path = root.join(NAME);
        let unusable = |reason: String| IndexError::IgnoreFile(path.clone(), reason);
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(IgnoreFile::default()),
            Ok(found) if found.is_symlink() && links == Links::Refuse => {
                return Err(unusable("it is a symbolic link, and links are not followed in this store".to_string()));
            }
            _ => {}
        }
        let bytes = read_regular_as(&path, IGNORE_FILE_BYTES_MAX, links)
            .map_err(|error| unusable(format!("it cannot be read: {error}")))?;
        IgnoreFile::parse(&path, &bytes)
    }

    /// Reads the bytes of the file at `path`.
    fn parse(path: &Path, bytes: &[u8]) -> Result<IgnoreFile, IndexError> {
        let mut builder = GitignoreBuilder::new("");
        builder.allow_unclosed_class(false);
        let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        for (i, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let wrong = |reason: String| IndexError::IgnoreFile(path.to_path_buf(), format!("line {} {reason}", i + 1));
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = str::from_utf8(line)
                .map_err(|_| wrong("is no UTF-8: write ? for each byte of a name that is none".to_string()))?;
            builder.add_line(None, line).map_err(|error| wrong(format!("is no pattern: {}", plain(&error))))?;
        }
        let unusable =
            |error| IndexError::IgnoreFile(path.to_path_buf(), format!("it cannot be used: {}", plain(&error)));
        let patterns = builder.build().map_err(unusable)?;
        // 0 says that there is no file.
        Ok(IgnoreFile { patterns: Some(patterns), hash: xxh3_64(bytes).max(1) })
    }

    /// Whether there is no such file.
    pub(crate) fn is_absent(&self) -> bool {
        self.patterns.is_none()
    }

    /// Whether a pattern takes this entry of a directory that no pattern takes; a path relative to the store.
    pub(crate) fn takes(&self, path: &Path, is_directory: bool) -> bool {
        self.patterns.as_ref().is_some_and(|patterns| patterns.matched(path, is_directory).is_ignore())
    }

    /// Whether a walk passes over the file of this name, or over a directory that it lies in.
    pub(crate) fn takes_file(&self, name: &str) -> bool {
        let path = path_of(name);
        let mut part = PathBuf::new();
        let depth = path.components().count();
        path.components().enumerate().any(|(i, component)| {
            part.push(component);
            self.takes(&part, i + 1 < depth)
        })
    }
}

/// What is wrong with a pattern, in the words of the matcher.
fn plain(error: &ignore::Error) -> String {
    match error {
        ignore::Error::Glob { err, .. } => err.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn patterns(text: &str) -> IgnoreFile {
        IgnoreFile::parse(Path::new("/s/.outpourignore"), text.as_bytes()).unwrap()
    }

    #[track_caller]
    fn refused(bytes: &[u8], words: &str) {
        let error = IgnoreFile::parse(Path::new("/s/.outpourignore"), bytes).unwrap_err().to_string();
        assert!(error.contains("/s/.outpourignore") && error.contains(words), "{error}");
    }

    #[test]
    fn patterns_are_those_of_gitignore() {
        let file = patterns("# old ones\nold/\r\n*.gz\n!keep.ndjson.gz\n/top.ndjson\na/**/b.ndjson\n\\#x.ndjson\n");
        for name in
            ["old/x.ndjson", "y/old/x.ndjson", "x.ndjson.gz", "top.ndjson", "a/b.ndjson", "a/c/d/b.ndjson", "#x.ndjson"]
        {
            assert!(file.takes_file(name), "{name}");
        }
        for name in ["keep.ndjson.gz", "y/top.ndjson", "b.ndjson", "old.ndjson", "# old ones"] {
            assert!(!file.takes_file(name), "{name}");
        }
        // What lies in a directory that is passed over stays out, as in git.
        assert!(patterns("old/\n!old/x.ndjson\n").takes_file("old/x.ndjson"));
        // Of a name that is no UTF-8 each byte is a character.
        let file = patterns("caf?.ndjson\n");
        assert!(file.takes_file(r"caf\xe9.ndjson") && !file.takes_file(r"caf\xe9\xe9.ndjson"));
        assert!(file.takes(Path::new(std::ffi::OsStr::from_bytes(b"caf\xe9.ndjson")), false));
        assert!(patterns("\u{feff}a.ndjson").takes_file("a.ndjson"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_line() {
        refused(b"a\n[b\n", "line 2 is no pattern");
        refused(b"a\nb\n{c", "line 3 is no pattern");
        refused(b"\xff", "line 1 is no UTF-8");
        assert!(patterns("").hash != 0 && !patterns("").takes_file("a.ndjson"));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        assert_eq!(IgnoreFile::read(dir.path(), Links::Refuse).unwrap().hash, 0);
        std::fs::create_dir(&path).unwrap();
        IgnoreFile::read(dir.path(), Links::Follow).unwrap_err();
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, vec![b'\n'; IGNORE_FILE_BYTES_MAX as usize + 1]).unwrap();
        let error = IgnoreFile::read(dir.path(), Links::Refuse).unwrap_err().to_string();
        assert!(error.contains("more than 1048576 bytes"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("patterns", &path).unwrap();
        let error = IgnoreFile::read(dir.path(), Links::Refuse).unwrap_err().to_string();
        assert!(error.contains("is a symbolic link"), "{error}");
        IgnoreFile::read(dir.path(), Links::Follow).unwrap_err();
        std::fs::write(dir.path().join("patterns"), "a\n").unwrap();
        assert!(IgnoreFile::read(dir.path(), Links::Follow).unwrap().takes_file("a"));
    }
}
