//! Registry of the Groups that clients create: durable, one file for each id.
//!
//! `{id}.ndjson` holds the Group as one line, ready to be exported, and a second line that names its writer. A deletion
//! replaces it by a transaction Bundle with a DELETE entry, the form in which a store records deletions. Both are
//! written under a temporary name, synced and renamed before the call returns: a crash leaves the version before or the
//! version after, and a temporary file that the next start removes. A deletion is kept for ever, because it also hides
//! a Group of the store, until the store has a later version.
//!
//! `document` checks and stamps bodies, `writer` is the second line, `store_groups` reads Groups of the store, `view`
//! combines registry and store, `query` and `search` search both, `search_facts` is held in memory. Nothing here reads
//! a clock or makes an id; requests for one Group wait for each other.
//!
//! Lock order: the lock of an id's stripe first, then either the entries or the facts of the store's Groups, each for
//! one access only. No call holds two stripes.

pub(crate) mod document;
pub(crate) mod json;
pub(crate) mod query;
pub(crate) mod search;
pub(crate) mod search_facts;
pub(crate) mod store_groups;
#[cfg(test)]
mod tests;
pub(crate) mod view;
pub(crate) mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{CorruptIndex, ExportError};
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::group::registry::search_facts::{FactsCache, SearchFacts};
use crate::group::registry::writer::{GroupWriter, WRITER_LINE_BYTES_MAX};
use crate::hash::xxh3_64;
use crate::limits::READ_BYTES;
use crate::sys::durability::{FileSync, replace_file_with, sync_directory};
use crate::sys::private_files::{create_private, create_unnamed, private_directory};
use crate::sys::regular_file::{Links, open_regular};
use crate::sys::store_file::FileStamp;
use serde_json::json;

/// Groups of the registry or the store cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupsError {
    /// The registry's directory or a file of it cannot be used.
    #[error("cannot use {}: {source}; make room there, or make it readable and writable, then start again", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process holds the lock of the registry's directory.
    #[error("another service keeps its Groups in {}; stop it, or give this one a directory of its own", path.display())]
    Busy {
        /// The directory that is locked.
        path: PathBuf,
    },
    /// A file of the registry does not hold what was written.
    #[error("{} is damaged ({reason}); put it back from a copy, or move it away to give its Group up", path.display())]
    Damaged {
        /// Path of the damaged file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store or its index cannot be read.
    #[error(transparent)]
    Store(#[from] ExportError),
}

impl From<CorruptIndex> for GroupsError {
    fn from(damaged: CorruptIndex) -> GroupsError {
        GroupsError::Store(damaged.into())
    }
}

/// The registry's state of an id: version, instant, and whether it is live.
#[derive(Debug)]
pub(crate) struct RegistryEntry {
    version: u64,
    at: Instant,
    state: EntryState,
}

/// Whether an entry is a Group or a deletion.
#[derive(Debug)]
enum EntryState {
    /// A Group; `len` is its bytes without the newline. A file of another stamp is read again before it is believed.
    Live { facts: Arc<SearchFacts>, len: u64, writer: Option<GroupWriter>, stamp: Option<FileStamp> },
    /// A file that does not hold what was written, and why: nobody knows whether there is a Group. It counts before
    /// whatever the store has.
    Damaged(String),
    /// A deletion, kept for ever.
    Deleted,
}

impl RegistryEntry {
    /// The entry of a file that cannot be read as what was written.
    fn damaged(error: &GroupsError) -> RegistryEntry {
        let reason = match error {
            GroupsError::Damaged { reason, .. } => reason.clone(),
            GroupsError::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        // Later than any version of the store.
        let at = Instant { ticks: i64::MAX, rest: Box::default() };
        RegistryEntry { version: 0, at, state: EntryState::Damaged(reason) }
    }

    /// Whether two entries are of the same version of a Group.
    fn is_same_version(&self, other: &RegistryEntry) -> bool {
        match (&self.state, &other.state) {
            (EntryState::Live { facts, len, .. }, EntryState::Live { facts: known, len: known_len, .. }) => {
                (self.version, &self.at, facts, len) == (other.version, &other.at, known, known_len)
            }
            _ => false,
        }
    }
}

/// One version of a registered Group. Its file is open, so it stays readable when a later version replaces it.
#[derive(Clone, Debug)]
pub(crate) struct RegisteredGroup {
    file: Arc<File>,
    path: PathBuf,
    len: u64,
    facts: Arc<SearchFacts>,
    writer: Option<GroupWriter>,
}

impl RegisteredGroup {
    /// The client that wrote this version; `None` if that is not recorded.
    pub(crate) fn writer(&self) -> Option<&GroupWriter> {
        self.writer.as_ref()
    }

    /// The searchable facts of this version.
    pub(crate) fn facts(&self) -> &SearchFacts {
        &self.facts
    }

    /// Bytes of the resource, without the newline and the writer's line that follow in its file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes of the resource. Blocks.
    ///
    /// # Errors
    /// [`GroupsError`] if the file cannot be read.
    pub(crate) fn document(&self) -> Result<Vec<u8>, GroupsError> {
        let mut bytes = vec![0; crate::casts::to_usize(self.len)];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `buffer` from an offset of the file. Blocks.
    ///
    /// # Errors
    /// [`GroupsError::Io`] if the file cannot be read, or ends before the buffer is full.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), GroupsError> {
        self.file.read_exact_at(buffer, offset).map_err(io_at(&self.path))
    }

    /// Writes this version to a private file of its own, as one line, for an export by
    /// [`ExportRequest::group_file`](crate::request::ExportRequest::group_file).
    ///
    /// # Errors
    /// [`GroupsError::Io`] if the version cannot be read, or the file not be written or synced.
    pub(crate) fn copy_to(&self, to: &Path, sync: FileSync) -> Result<(), GroupsError> {
        let out = create_private(to).map_err(io_at(to))?;
        out.set_len(0).map_err(io_at(to))?;
        let mut buffer = vec![0; READ_BYTES.min(self.len as usize + 1)];
        let mut offset = 0;
        while offset < self.len + 1 {
            let len = buffer.len().min((self.len + 1 - offset) as usize);
            self.read_at(offset, &mut buffer[..len])?;
            out.write_all_at(&buffer[..len], offset).map_err(io_at(to))?;
            offset += len as u64;
        }
        if sync == FileSync::Yes { out.sync_all().map_err(io_at(to)) } else { Ok(()) }
    }
}

/// Number of locks for ids; ids share a lock by their hash.
const STRIPES: usize = 64;
/// Suffix of the files of Groups.
const SUFFIX: &str = ".ndjson";

/// All entries of a registry's directory, held open under its lock.
#[derive(Debug)]
pub(crate) struct GroupRegistry {
    directory: PathBuf,
    sync: FileSync,
    entries: RwLock<BTreeMap<Id, Arc<RegistryEntry>>>,
    stripes: [RwLock<()>; STRIPES],
    store_facts: Mutex<FactsCache>,
    _lock: File,
}

impl GroupRegistry {
    /// Opens the registry of a directory, and creates the directory if it is missing. Reads every Group once and
    /// removes temporary files that a crash left; other files are left alone. A file whose content is not what was written
    /// stops its own Group only: whoever asks for that is told so ([`GroupsError::Damaged`]), because a service that
    /// skipped it would answer wrongly about it.
    ///
    /// # Errors
    /// [`GroupsError::Busy`] if another process has it open; [`GroupsError::Io`].
    pub(crate) fn open(directory: &Path, sync: FileSync) -> Result<GroupRegistry, GroupsError> {
        private_directory(directory).map_err(io_at(directory))?;
        let lock = create_private(&directory.join(".lock")).map_err(io_at(directory))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(GroupsError::Busy { path: directory.to_path_buf() }),
            Err(std::fs::TryLockError::Error(source)) => return Err(io_at(directory)(source)),
        }
        let mut entries = BTreeMap::new();
        for found in std::fs::read_dir(directory).map_err(io_at(directory))? {
            let name = found.map_err(io_at(directory))?.file_name();
            let Some(name) = name.to_str() else { continue };
            let path = directory.join(name);
            if let Some(id) = name.strip_suffix(SUFFIX).and_then(|id| Id::parse_r4(id.as_bytes())) {
                let entry = load(&path, &id).unwrap_or_else(|error| RegistryEntry::damaged(&error));
                entries.insert(id, Arc::new(entry));
            } else if is_leftover(name) {
                std::fs::remove_file(&path).map_err(io_at(&path))?;
            }
        }
        if sync == FileSync::Yes {
            // A rename before a crash may not be durable yet; it must be before a client reads what it brought.
            sync_directory(directory).map_err(io_at(directory))?;
        }
        Ok(GroupRegistry {
            directory: directory.to_path_buf(),
            sync,
            entries: RwLock::new(entries),
            stripes: [const { RwLock::new(()) }; STRIPES],
            store_facts: Mutex::default(),
            _lock: lock,
        })
    }

    /// Path of a registered Group's file; `None` if there is no Group of this id. A later version replaces the file by
    /// rename.
    #[cfg(test)]
    pub(crate) fn file_of(&self, id: &Id) -> Option<PathBuf> {
        let entry = self.entry(id)?;
        matches!(entry.state, EntryState::Live { .. }).then(|| self.path_of(id))
    }

    /// Path of the file of an id, whether it exists or not.
    fn path_of(&self, id: &Id) -> PathBuf {
        self.directory.join(format!("{id}{SUFFIX}"))
    }

    /// The damaged files, each with what is wrong with it.
    pub(crate) fn damaged_files(&self) -> Vec<GroupsError> {
        let damaged = |(id, entry): (Id, Arc<RegistryEntry>)| match &entry.state {
            EntryState::Damaged(reason) => Some(self.damaged(&id, reason.clone())),
            _ => None,
        };
        self.entries().into_iter().filter_map(damaged).collect()
    }

    /// The entry of an id; `None` if the registry never had a Group of it. A damaged file is looked at again: it may have
    /// been put back, or moved away to give its Group up.
    fn entry(&self, id: &Id) -> Option<Arc<RegistryEntry>> {
        let entry = self.entries.read().expect("no panic under it").get(id).cloned()?;
        if !matches!(entry.state, EntryState::Damaged(_)) {
            return Some(entry);
        }
        match load(&self.path_of(id), id) {
            Ok(mended) => {
                let mended = Arc::new(mended);
                self.entries.write().expect("no panic under it").insert(*id, mended.clone());
                Some(mended)
            }
            Err(GroupsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.entries.write().expect("no panic under it").remove(id);
                None
            }
            Err(_) => Some(entry),
        }
    }

    /// Every entry, deletions included, in the order of ids.
    fn entries(&self) -> Vec<(Id, Arc<RegistryEntry>)> {
        let entries = self.entries.read().expect("no panic under it");
        entries.iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    /// The lock of an id, shared with other ids of the same hash.
    fn stripe(&self, id: &Id) -> &RwLock<()> {
        &self.stripes[xxh3_64(id.as_bytes()) as usize % STRIPES]
    }

    /// Locks an id for reading, so that its file and its entry agree. Waits for a writer's sync.
    fn reading(&self, id: &Id) -> RwLockReadGuard<'_, ()> {
        self.stripe(id).read().expect("no panic under it")
    }

    /// Locks an id for writing its file and its entry.
    fn writing(&self, id: &Id) -> RwLockWriteGuard<'_, ()> {
        self.stripe(id).write().expect("no panic under it")
    }

    /// Opens the Group of an entry; `None` for a deletion. The caller holds the stripe's lock, in either mode.
    ///
    /// # Errors
    /// [`GroupsError::Io`] if it cannot be opened, [`GroupsError::Damaged`] if its file is not the one that was written.
    fn open_group(&self, id: &Id, entry: &RegistryEntry) -> Result<Option<RegisteredGroup>, GroupsError> {
        let (facts, len, writer, stamp) = match &entry.state {
            EntryState::Live { facts, len, writer, stamp } => (facts, len, writer, stamp),
            EntryState::Damaged(reason) => return Err(self.damaged(id, reason.clone())),
            EntryState::Deleted => return Ok(None),
        };
        let path = self.path_of(id);
        let file = Arc::new(open_regular(&path, Links::Refuse).map_err(|error| io_at(&path)(error.into()))?);
        let opened = FileStamp::of_metadata(&file.metadata().map_err(io_at(&path))?);
        if stamp.as_ref() != Some(&opened) && !load(&path, id)?.is_same_version(entry) {
            return Err(self.damaged(id, "it holds another version than the service has written".to_string()));
        }
        Ok(Some(RegisteredGroup { file, path, len: *len, facts: facts.clone(), writer: writer.clone() }))
    }

    /// Replaces a Group's file by a line, which `write_line` writes, and that of its writer, and its entry. The caller holds
    /// the stripe's lock for writing.
    fn replace(&self, id: &Id, write_line: LineWriter<'_>, mut entry: RegistryEntry) -> Result<(), GroupsError> {
        let path = self.path_of(id);
        let writer = match &entry.state {
            EntryState::Live { writer, .. } => writer.as_ref().map(GroupWriter::to_line).unwrap_or_default(),
            _ => Vec::new(),
        };
        let write_file = &mut |out: &mut dyn Write| {
            write_line(out)?;
            out.write_all(b"\n")?;
            out.write_all(&writer)
        };
        let written = replace_file_with(&path, self.sync, write_file).map_err(io_at(&path));
        // If the rename was done but could not be synced, the file in the directory decides the entry.
        let entry = match &written {
            Ok(()) => {
                if let EntryState::Live { stamp, .. } = &mut entry.state {
                    *stamp = std::fs::symlink_metadata(&path).ok().map(|found| FileStamp::of_metadata(&found));
                }
                Some(entry)
            }
            Err(_) => load(&path, id).ok(),
        };
        if let Some(entry) = entry {
            self.entries.write().expect("no panic under it").insert(*id, Arc::new(entry));
        }
        written
    }

    /// Writes a version of a Group, whose line `write_line` writes twice alike: to be read, and to the file. The caller holds
    /// the stripe's lock for writing.
    ///
    /// # Errors
    /// If it cannot be written, or not be opened again.
    fn put(
        &self,
        id: &Id,
        write_line: LineWriter<'_>,
        version: u64,
        instant: Instant,
        writer: Option<GroupWriter>,
    ) -> Result<RegisteredGroup, GroupsError> {
        let mut len = 0;
        let facts = SearchFacts::read(|feed| {
            let mut out = BufWriter::with_capacity(READ_BYTES, PieceWriter { feed, len: &mut len });
            write_line(&mut out).and_then(|()| out.flush()).map_err(io_at(&self.path_of(id)))
        })?;
        let facts = Arc::new(facts.map_err(|fault| self.damaged(id, fault.kind.to_string()))?);
        let state = EntryState::Live { facts, len, writer, stamp: None };
        self.replace(id, write_line, RegistryEntry { version, at: instant, state })?;
        let gone = || self.damaged(id, "it is not the Group that was written".to_string());
        let entry = self.entry(id).ok_or_else(gone)?;
        self.open_group(id, &entry)?.ok_or_else(gone)
    }

    /// Makes a file without a name where Groups are kept, for a body that may become one. `random` makes the name that it
    /// has for a moment where the file system has no files without.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn create_body_file(&self, random: [u8; 16]) -> io::Result<File> {
        // A name that the next start removes.
        create_unnamed(&self.directory, &format!(".{:032x}{SUFFIX}.part", u128::from_le_bytes(random)))
    }

    /// Replaces a Group by its deletion. The caller holds the stripe's lock for writing.
    fn mark_deleted(&self, id: &Id, version: u64, instant: Instant) -> Result<(), GroupsError> {
        let line = json!({
            "resourceType": "Bundle",
            "meta": {"versionId": version.to_string(), "lastUpdated": instant.to_string()},
            "type": "transaction",
            "entry": [{"request": {"method": "DELETE", "url": format!("Group/{id}")}}],
        });
        let line = line.to_string();
        let entry = RegistryEntry { version, at: instant, state: EntryState::Deleted };
        self.replace(id, &|out| out.write_all(line.as_bytes()), entry)
    }

    /// A [`GroupsError::Damaged`] for the file of an id.
    fn damaged(&self, id: &Id, reason: String) -> GroupsError {
        GroupsError::Damaged { path: self.path_of(id), reason }
    }
}

/// Writes the line of a Group or a deletion, without its newline, as often as it is called.
type LineWriter<'a> = &'a dyn Fn(&mut dyn Write) -> io::Result<()>;

/// Passes on what is written, in pieces, and counts its bytes.
struct PieceWriter<'a> {
    feed: &'a mut dyn FnMut(&[u8]),
    len: &'a mut u64,
}

impl Write for PieceWriter<'_> {
    /// Passes the whole piece on.
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        (self.feed)(piece);
        *self.len += piece.len() as u64;
        Ok(piece.len())
    }

    /// Nothing is kept back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a [`GroupsError::Io`] for a path from an error of the operating system.
fn io_at(path: &Path) -> impl Fn(io::Error) -> GroupsError + use<> {
    let path = path.to_path_buf();
    move |source| GroupsError::Io { path: path.clone(), source }
}

/// Whether a file name is that of a Group's temporary file, `.{id}.ndjson.part`.
fn is_leftover(name: &str) -> bool {
    let stem = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part")?.strip_suffix(SUFFIX));
    stem.is_some_and(|id| Id::parse_r4(id.as_bytes()).is_some())
}

/// Reads and checks the file of an id: the Group and its writer's line, or the deletion.
///
/// # Errors
/// [`GroupsError::Io`]; [`GroupsError::Damaged`] if the file's content is not what was written.
fn load(path: &Path, id: &Id) -> Result<RegistryEntry, GroupsError> {
    let damaged = |reason: &str| GroupsError::Damaged { path: path.to_path_buf(), reason: reason.to_string() };
    let mut file = open_regular(path, Links::Refuse).map_err(|error| io_at(path)(error.into()))?;
    let metadata = file.metadata().map_err(io_at(path))?;
    let (len, stamp) = (metadata.len(), Some(FileStamp::of_metadata(&metadata)));
    let mut buffer = vec![0; READ_BYTES.min(len as usize)];
    // 1. Feed the first line to the reader of facts; keep what follows it, bounded, and a deletion's line.
    // `line_len` is the length of the first line, once its end was read.
    let mut line_len = None;
    let mut position = 0;
    let mut rest = Vec::new();
    let mut is_deletion = false;
    let mut deletion = Vec::new();
    let facts = SearchFacts::read(|feed| {
        let mut first = true;
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io_at(path)(error)),
            };
            if std::mem::take(&mut first) {
                is_deletion = buffer[..read].starts_with(br#"{"resourceType":"Bundle""#);
                deletion = if is_deletion { buffer[..read].to_vec() } else { Vec::new() };
            }
            let mut piece = &buffer[..read];
            if line_len.is_none()
                && let Some(end) = memchr::memchr(b'\n', piece)
            {
                feed(&piece[..end]);
                line_len = Some(position + end as u64);
                piece = &piece[end + 1..];
            } else if line_len.is_none() {
                feed(piece);
                piece = &[];
            }
            // One byte more than a writer's line may have, to detect one that is too long.
            rest.extend_from_slice(&piece[..piece.len().min(WRITER_LINE_BYTES_MAX + 1 - rest.len())]);
            position += read as u64;
        }
    })?;
    let facts = facts.map_err(|fault| damaged(&format!("byte {}: {}", fault.at, fault.kind)))?;
    // 2. Check the version, the instant and what follows the line.
    let (Ok(version), Some(time)) = (facts.version.parse(), facts.last_updated.clone()) else {
        return Err(damaged("it has no version or no instant of its own"));
    };
    let Some(len) = line_len else { return Err(damaged("its line is cut off")) };
    if rest.len() > WRITER_LINE_BYTES_MAX || is_deletion && !rest.is_empty() {
        return Err(damaged("something follows its line"));
    }
    let writer = GroupWriter::parse(&rest).map_err(|reason| damaged(&reason))?;
    // 3. Check that it is the Group, or the deletion of the Group, that its name says.
    if is_deletion {
        let line: serde_json::Value =
            serde_json::from_slice(deletion.trim_ascii_end()).map_err(|error| damaged(&error.to_string()))?;
        if line["entry"][0]["request"]["url"].as_str() != Some(&format!("Group/{id}")) {
            return Err(damaged("it deletes another Group than its name says"));
        }
        return Ok(RegistryEntry { version, at: time, state: EntryState::Deleted });
    }
    if !facts.is_group || facts.id != Some(*id) {
        return Err(damaged("it is not the Group that its name says"));
    }
    Ok(RegistryEntry { version, at: time, state: EntryState::Live { facts: Arc::new(facts), len, writer, stamp } })
}
