//! Groups that clients make: durable, one file each, found beside those of the store.
//!
//! `{id}.ndjson` holds the Group as one line, ready to be exported, and a second line that says who wrote it; a deletion replaces it by a Bundle line that deletes
//! it, as a store would tell it. Both are written under a temporary name, synced and renamed before the caller hears of
//! them: a crash leaves the version before or the version after, and a temporary file that the next start removes.
//! A deletion is kept for good, because it also stands for a Group of the store's, until the store brings a later version.
//!
//! `document` takes what a client sends, `writer` is who sent it, `view` merges the book with the store, `query` and `search` ask both, `facts` is
//! what stays in memory. Nothing here takes a clock or makes an id; requests for one Group wait for each other.

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
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{CorruptIndex, ExportError};
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::group::registry::search_facts::{FactsCache, GroupFacts};
use crate::group::registry::writer::{GroupWriter, WRITER_LINE_BYTES_MAX};
use crate::hash::xxh3_64;
use crate::limits::READ_BYTES;
use crate::sys::durability::{FileSync, replace_file, sync_directory};
use crate::sys::private_files::{create_private, private_directory};
use crate::sys::regular_file::{Links, open_regular};
use serde_json::json;

/// Groups cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupsError {
    /// The book's directory or a file of it.
    #[error("cannot use {}: {source}; make room there, or make it readable and writable, then start again", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process keeps its Groups there.
    #[error("another service keeps its Groups in {}; stop it, or give this one a directory of its own", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A file of the book holds something else than was written.
    #[error("{} is damaged ({reason}); put it back from a copy, or move it away to give its Group up", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The store or its index.
    #[error(transparent)]
    Store(#[from] ExportError),
}

impl From<CorruptIndex> for GroupsError {
    fn from(damaged: CorruptIndex) -> GroupsError {
        GroupsError::Store(damaged.into())
    }
}

/// What the book says of an id.
#[derive(Debug)]
pub(crate) struct RegistryEntry {
    version: u64,
    at: Instant,
    state: EntryState,
}

#[derive(Debug)]
enum EntryState {
    /// A Group of so many bytes, without the newline.
    Live {
        facts: Arc<GroupFacts>,
        len: u64,
        writer: Option<GroupWriter>,
    },
    Deleted,
}

/// A Group of the book: one version, whatever happens to it meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct RegisteredGroup {
    file: Arc<File>,
    path: PathBuf,
    len: u64,
    facts: Arc<GroupFacts>,
    writer: Option<GroupWriter>,
}

impl RegisteredGroup {
    /// Who wrote this version, if that is recorded.
    pub(crate) fn writer(&self) -> Option<&GroupWriter> {
        self.writer.as_ref()
    }

    /// What is known of it.
    pub(crate) fn facts(&self) -> &GroupFacts {
        &self.facts
    }

    /// Bytes of the resource; in its file a newline follows, and the writer's line.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `place` from an offset of the resource. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read_at(&self, offset: u64, place: &mut [u8]) -> Result<(), GroupsError> {
        self.file.read_exact_at(place, offset).map_err(io_at(&self.path))
    }

    /// Writes this version to a file of its own, one line, for an export by
    /// [`ExportRequest::group_file`](crate::request::ExportRequest::group_file).
    ///
    /// # Errors
    /// When it cannot be read or written.
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

/// Locks for the ids that share one by their hash.
const STRIPES: usize = 64;
const SUFFIX: &str = ".ndjson";

/// The Groups made through the service.
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
    /// Opens the book kept in a directory, making it if it is not there: every Group is read once, what a crash left
    /// unfinished is removed. Files of other names are left alone.
    ///
    /// # Errors
    /// [`GroupsError::Busy`], [`GroupsError::Io`]; [`GroupsError::Damaged`] with the first file that is not as it was
    /// written, because a service that forgot a Group would answer wrongly about it.
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
            if let Some(id) = name.strip_suffix(SUFFIX).and_then(|id| Id::parse(id.as_bytes())) {
                entries.insert(id, Arc::new(load(&path, &id)?));
            } else if is_leftover(name) {
                std::fs::remove_file(&path).map_err(io_at(&path))?;
            }
        }
        if sync == FileSync::Yes {
            // A rename that a crash kept from lasting is made to last before anybody is told of what it brought.
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

    /// The file of a Group of the book; none when it has none of this id, or it was deleted. The file's content is
    /// replaced by rename: open it at once, or take [`RegisteredGroup::copy_to`].
    #[cfg(test)]
    pub(crate) fn file_of(&self, id: &Id) -> Option<PathBuf> {
        let entry = self.entry(id)?;
        matches!(entry.state, EntryState::Live { .. }).then(|| self.path_of(id))
    }

    fn path_of(&self, id: &Id) -> PathBuf {
        self.directory.join(format!("{id}{SUFFIX}"))
    }

    fn entry(&self, id: &Id) -> Option<Arc<RegistryEntry>> {
        self.entries.read().expect("no panic under it").get(id).cloned()
    }

    /// Every entry, in the order of ids.
    fn entries(&self) -> Vec<(Id, Arc<RegistryEntry>)> {
        let entries = self.entries.read().expect("no panic under it");
        entries.iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    fn stripe(&self, id: &Id) -> &RwLock<()> {
        &self.stripes[xxh3_64(id.as_bytes()) as usize % STRIPES]
    }

    /// Keeps the file and what is known of it from being changed apart. Waits for a writer's sync.
    fn reading(&self, id: &Id) -> RwLockReadGuard<'_, ()> {
        self.stripe(id).read().expect("no panic under it")
    }

    fn writing(&self, id: &Id) -> RwLockWriteGuard<'_, ()> {
        self.stripe(id).write().expect("no panic under it")
    }

    /// The Group of an entry that is live. Under the stripe's lock, in either mode.
    fn open_group(&self, id: &Id, entry: &RegistryEntry) -> Result<Option<RegisteredGroup>, GroupsError> {
        let EntryState::Live { facts, len, writer } = &entry.state else { return Ok(None) };
        let path = self.path_of(id);
        let file = Arc::new(open_regular(&path, Links::Refuse).map_err(|error| io_at(&path)(error.into()))?);
        Ok(Some(RegisteredGroup { file, path, len: *len, facts: facts.clone(), writer: writer.clone() }))
    }

    /// Makes a line, and that of its writer, the content of a Group's file. Under the stripe's lock for writing.
    fn replace(&self, id: &Id, mut line: Vec<u8>, entry: RegistryEntry) -> Result<Vec<u8>, GroupsError> {
        let path = self.path_of(id);
        let len = line.len();
        line.push(b'\n');
        if let EntryState::Live { writer: Some(writer), .. } = &entry.state {
            line.extend(writer.to_line());
        }
        let written = replace_file(&path, &line, self.sync).map_err(io_at(&path));
        // When the rename was done but could not be made to last, what stands in the directory is what holds.
        let entry = match &written {
            Ok(()) => Some(entry),
            Err(_) => load(&path, id).ok(),
        };
        if let Some(entry) = entry {
            self.entries.write().expect("no panic under it").insert(*id, Arc::new(entry));
        }
        line.truncate(len);
        written.map(|()| line)
    }

    fn put(
        &self,
        id: &Id,
        line: Vec<u8>,
        version: u64,
        instant: Instant,
        writer: Option<GroupWriter>,
    ) -> Result<Vec<u8>, GroupsError> {
        let facts = GroupFacts::read(|feed| {
            line.chunks(READ_BYTES).for_each(feed);
            Ok::<_, GroupsError>(())
        })?;
        let facts = Arc::new(facts.map_err(|fault| self.damaged(id, fault.kind.to_string()))?);
        let state = EntryState::Live { facts, len: line.len() as u64, writer };
        self.replace(id, line, RegistryEntry { version, at: instant, state })
    }

    fn mark_deleted(&self, id: &Id, version: u64, instant: Instant) -> Result<(), GroupsError> {
        let line = json!({
            "resourceType": "Bundle",
            "meta": {"versionId": version.to_string(), "lastUpdated": instant.to_string()},
            "type": "transaction",
            "entry": [{"request": {"method": "DELETE", "url": format!("Group/{id}")}}],
        });
        self.replace(
            id,
            line.to_string().into_bytes(),
            RegistryEntry { version, at: instant, state: EntryState::Deleted },
        )
        .map(drop)
    }

    fn damaged(&self, id: &Id, reason: String) -> GroupsError {
        GroupsError::Damaged { path: self.path_of(id), reason }
    }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> GroupsError + use<> {
    let path = path.to_path_buf();
    move |source| GroupsError::Io { path: path.clone(), source }
}

/// Whether a name is that of a temporary file of a Group's.
fn is_leftover(name: &str) -> bool {
    let of = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part")?.strip_suffix(SUFFIX));
    of.is_some_and(|id| Id::parse(id.as_bytes()).is_some())
}

/// Reads what a file of the book says.
fn load(path: &Path, id: &Id) -> Result<RegistryEntry, GroupsError> {
    let damaged = |reason: &str| GroupsError::Damaged { path: path.to_path_buf(), reason: reason.to_string() };
    let mut file = open_regular(path, Links::Refuse).map_err(|error| io_at(path)(error.into()))?;
    let len = file.metadata().map_err(io_at(path))?.len();
    let mut buffer = vec![0; READ_BYTES.min(len as usize)];
    // Bytes of the first line once its end has come, and what follows it.
    let mut line_len = None;
    let mut position = 0;
    let mut rest = Vec::new();
    let mut is_deletion = false;
    let mut deletion = Vec::new();
    let facts = GroupFacts::read(|feed| {
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
            // One byte more than a writer's line may have tells that it has too many.
            rest.extend_from_slice(&piece[..piece.len().min(WRITER_LINE_BYTES_MAX + 1 - rest.len())]);
            position += read as u64;
        }
    })?;
    let facts = facts.map_err(|fault| damaged(&format!("byte {}: {}", fault.at, fault.kind)))?;
    let (Ok(version), Some(time)) = (facts.version.parse(), facts.last_updated.clone()) else {
        return Err(damaged("it has no version or no instant of its own"));
    };
    let Some(len) = line_len else { return Err(damaged("its line is cut off")) };
    if rest.len() > WRITER_LINE_BYTES_MAX || is_deletion && !rest.is_empty() {
        return Err(damaged("something follows its line"));
    }
    let writer = GroupWriter::parse(&rest).map_err(|reason| damaged(&reason))?;
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
    Ok(RegistryEntry { version, at: time, state: EntryState::Live { facts: Arc::new(facts), len, writer } })
}
