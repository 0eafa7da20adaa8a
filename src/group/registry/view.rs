//! All Groups: those of the book and those of the store as one. Of two with the same id the later version holds; of
//! two as old as each other the book's.

use std::sync::LazyLock;

use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::group::registry::document::GroupDocument;
use crate::group::registry::search_facts::GroupFacts;
use crate::group::registry::store_groups::{SnapshotLocation, StoreGroup, StoreLocation};
use crate::group::registry::writer::GroupWriter;
use crate::group::registry::{EntryState, GroupRegistry, GroupsError, RegisteredGroup, RegistryEntry};
use crate::index::snapshot::Snapshot;

/// What stands under an id.
pub(crate) enum GroupLookup {
    /// A Group made here.
    Book(RegisteredGroup),
    /// A Group of the store.
    Store(StoreGroup),
    /// A Group that was deleted, through the service or in the store.
    Deleted {
        /// Version that the deletion is, when it was made here.
        version: Option<u64>,
        /// When.
        at: Instant,
    },
    /// Nothing has ever stood there.
    Unknown,
}

impl GroupLookup {
    /// What is known of the Group, if there is one.
    pub(crate) fn facts(&self) -> Option<&GroupFacts> {
        match self {
            GroupLookup::Book(group) => Some(group.facts()),
            GroupLookup::Store(group) => Some(group.facts()),
            GroupLookup::Deleted { .. } | GroupLookup::Unknown => None,
        }
    }

    /// The number of the version after it: the next one for a number, else 1.
    fn next_version(&self) -> u64 {
        let now = match self {
            GroupLookup::Deleted { version, .. } => *version,
            other => other.facts().and_then(|facts| facts.version.parse().ok()),
        };
        now.and_then(|now: u64| now.checked_add(1)).unwrap_or(1)
    }

    /// The instant of the version after it: now, but never before what it follows, or it would not hold.
    fn next_instant(&self, now: &Instant) -> Instant {
        let before = match self {
            GroupLookup::Deleted { at, .. } => Some(at),
            other => other.facts().and_then(|facts| facts.last_updated.as_ref()),
        };
        before.map_or(now, |before| before.max(now)).clone()
    }
}

/// What a writer expects to find (`If-Match`, `If-None-Match`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Whatever is there.
    Anything,
    /// A Group in any version.
    Something,
    /// No Group.
    Nothing,
    /// A Group in one of these versions.
    Versions(Vec<String>),
}

impl Precondition {
    /// Whether it is met.
    pub(crate) fn is_met_by(&self, found: &GroupLookup) -> bool {
        match self {
            Precondition::Anything => true,
            Precondition::Something => found.facts().is_some(),
            Precondition::Nothing => found.facts().is_none(),
            Precondition::Versions(versions) => found.facts().is_some_and(|facts| versions.contains(&facts.version)),
        }
    }
}

/// A version that was made to last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupWrite {
    /// The Group's id.
    pub id: Id,
    /// Number of the version.
    pub version: u64,
    /// Its lastUpdated.
    pub at: Instant,
    /// Whether no Group stood there before.
    pub created: bool,
    /// The resource, one line without its newline; empty for a deletion.
    pub line: Vec<u8>,
}

/// A writer found something else than it expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WriteError {
    /// The version that is current; none when there is no Group.
    pub current: Option<String>,
}

/// The book and the store, as one moment shows them.
pub(crate) struct GroupView<'a> {
    pub(crate) book: &'a GroupRegistry,
    pub(crate) store: Option<SnapshotLocation<'a>>,
    pub(crate) bases: &'a [String],
    /// Ids that the client may know of; all if none.
    pub(crate) visible: Option<&'a [String]>,
    /// Who writes.
    writer: Option<GroupWriter>,
}

/// The id that is looked up for every one that the client may not know of: the same work as for a Group that is not
/// there, and none that depends on the Group that may be there, so that neither the answer nor its time tells (KICK-16).
static NOBODY: LazyLock<Id> = LazyLock::new(|| Id::parse(&[b'-'; 64]).expect("64 dashes are a legal id"));

impl<'a> GroupView<'a> {
    /// The Groups of a book, and of a store under the bases that are ours (the service's own and the store's
    /// `--fhir-base`; final slashes do not count).
    pub(crate) fn new(book: &'a GroupRegistry, store: Option<&'a Snapshot>, bases: &'a [String]) -> GroupView<'a> {
        GroupView {
            book,
            store: store.map(|snapshot| SnapshotLocation::new(snapshot, bases)),
            bases,
            visible: None,
            writer: None,
        }
    }

    /// The same for a client that may know of these ids only; of all if `None`. Under any other id nothing stands for it,
    /// and nothing can be changed.
    pub(crate) fn seen_by(self, visible: Option<&'a [String]>) -> GroupView<'a> {
        GroupView { visible, ..self }
    }

    /// The same for a client that writes: versions remember it.
    pub(crate) fn written_by(self, writer: GroupWriter) -> GroupView<'a> {
        GroupView { writer: Some(writer), ..self }
    }

    /// Whether the client may know what stands under an id.
    pub(crate) fn is_seen(&self, id: &Id) -> bool {
        self.visible.is_none_or(|visible| visible.iter().any(|known| known == id.as_str()))
    }

    /// The id to lock and look up for one that is asked for.
    fn authorize<'i>(&self, id: &'i Id) -> &'i Id {
        if self.is_seen(id) { id } else { &NOBODY }
    }

    /// What stands under an id. Reads a Group of the store once, to know its version. Blocks.
    ///
    /// # Errors
    /// When the book or the store cannot be read.
    pub(crate) fn find(&self, id: &Id) -> Result<GroupLookup, GroupsError> {
        let _reading = self.book.reading(self.authorize(id));
        self.find_seen(id)
    }

    /// What stands under an id for the client. Under the lock of [`GroupView::authorize`].
    fn find_seen(&self, id: &Id) -> Result<GroupLookup, GroupsError> {
        let found = self.find_locked(self.authorize(id))?;
        Ok(if self.is_seen(id) { found } else { GroupLookup::Unknown })
    }

    fn find_locked(&self, id: &Id) -> Result<GroupLookup, GroupsError> {
        let in_store = match &self.store {
            Some(store) => store.find(id)?,
            None => StoreLocation::Unknown,
        };
        self.merge(id, self.book.entry(id).as_deref(), in_store)
    }

    /// The later of what the book and the store say. Under the lock of the id.
    pub(crate) fn merge(
        &self,
        id: &Id,
        entry: Option<&RegistryEntry>,
        in_store: StoreLocation,
    ) -> Result<GroupLookup, GroupsError> {
        if let Some(entry) = entry.filter(|entry| registry_has(entry, &in_store)) {
            return Ok(match self.book.open_group(id, entry)? {
                Some(group) => GroupLookup::Book(group),
                None => GroupLookup::Deleted { version: Some(entry.version), at: entry.at.clone() },
            });
        }
        match (in_store, &self.store) {
            (StoreLocation::Current { segment, row, .. }, Some(store)) => {
                Ok(GroupLookup::Store(store.read_group(self.book, segment, row)?))
            }
            (StoreLocation::Deleted(instant), _) => {
                Ok(GroupLookup::Deleted { version: entry.map(|entry| entry.version), at: instant })
            }
            _ => Ok(GroupLookup::Unknown),
        }
    }

    /// Keeps a new Group under an id that nothing has stood under. On return it survives a crash. Blocks.
    ///
    /// # Errors
    /// When it cannot be kept. `Ok(Err(_))` when the id is taken: make another one.
    pub(crate) fn create(
        &self,
        id: &Id,
        document: &GroupDocument<'_>,
        now: &Instant,
    ) -> Result<Result<GroupWrite, WriteError>, GroupsError> {
        let _writing = self.book.writing(id);
        match self.find_locked(id)? {
            GroupLookup::Unknown => self.put(id, document, &GroupLookup::Unknown, now).map(Ok),
            found => Ok(Err(WriteError { current: found.facts().map(|facts| facts.version.clone()) })),
        }
    }

    /// Keeps a version of the Group under an id, the first one if need be. On return it survives a crash. Blocks.
    ///
    /// # Errors
    /// When it cannot be kept. `Ok(Err(_))` when something else stands there than was expected, or the client may not
    /// know of it.
    pub(crate) fn update(
        &self,
        id: &Id,
        document: &GroupDocument<'_>,
        expected: &Precondition,
        now: &Instant,
    ) -> Result<Result<GroupWrite, WriteError>, GroupsError> {
        let _writing = self.book.writing(self.authorize(id));
        let found = self.find_seen(id)?;
        if !expected.is_met_by(&found) || !self.is_seen(id) {
            return Ok(Err(WriteError { current: found.facts().map(|facts| facts.version.clone()) }));
        }
        self.put(id, document, &found, now).map(Ok)
    }

    fn put(
        &self,
        id: &Id,
        document: &GroupDocument<'_>,
        found: &GroupLookup,
        now: &Instant,
    ) -> Result<GroupWrite, GroupsError> {
        let (version, instant) = (found.next_version(), found.next_instant(now));
        let line = self.book.put(
            id,
            document.stamp_version(id, version, &instant),
            version,
            instant.clone(),
            self.writer_after(found),
        )?;
        Ok(GroupWrite { id: *id, version, at: instant, created: found.facts().is_none(), line })
    }

    /// Who writes, for a version that follows what was found.
    fn writer_after(&self, found: &GroupLookup) -> Option<GroupWriter> {
        let follows_unbound = match found {
            GroupLookup::Store(_) | GroupLookup::Deleted { .. } => true,
            GroupLookup::Book(group) => {
                group.writer().is_some_and(|writer| !writer.bound_to_groups || writer.follows_unbound)
            }
            GroupLookup::Unknown => false,
        };
        self.writer
            .clone()
            .map(|writer| GroupWriter { follows_unbound: writer.bound_to_groups && follows_unbound, ..writer })
    }

    /// Ids under which the book holds against a Group that is current in the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn check_superseding(&self) -> Result<Vec<Id>, GroupsError> {
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for (id, entry) in self.book.entries() {
            let in_store = store.find(&id)?;
            if matches!(in_store, StoreLocation::Current { .. }) && registry_has(&entry, &in_store) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Deletes the Group under an id, the store's too. On return the deletion survives a crash. `None` when no Group
    /// stood there: nothing is written then. Blocks.
    ///
    /// # Errors
    /// When it cannot be kept. `Ok(Err(_))` when something else stands there than was expected.
    pub(crate) fn delete(
        &self,
        id: &Id,
        expected: &Precondition,
        now: &Instant,
    ) -> Result<Result<Option<GroupWrite>, WriteError>, GroupsError> {
        let _writing = self.book.writing(self.authorize(id));
        let found = self.find_seen(id)?;
        if !expected.is_met_by(&found) {
            return Ok(Err(WriteError { current: found.facts().map(|facts| facts.version.clone()) }));
        }
        if found.facts().is_none() {
            return Ok(Ok(None));
        }
        let (version, instant) = (found.next_version(), found.next_instant(now));
        self.book.mark_deleted(id, version, instant.clone())?;
        Ok(Ok(Some(GroupWrite { id: *id, version, at: instant, created: false, line: Vec::new() })))
    }
}

/// Whether the book's word holds against the store's.
pub(crate) fn registry_has(entry: &RegistryEntry, in_store: &StoreLocation) -> bool {
    match in_store {
        StoreLocation::Current { updated, .. } => updated.as_ref().is_none_or(|updated| *updated <= entry.at),
        StoreLocation::Deleted(instant) => *instant <= entry.at,
        StoreLocation::Unknown => true,
    }
}

/// What is known of an entry that is live.
pub(crate) fn facts_of(entry: &RegistryEntry) -> Option<&GroupFacts> {
    match &entry.state {
        EntryState::Live { facts, .. } => Some(facts),
        EntryState::Deleted => None,
    }
}
