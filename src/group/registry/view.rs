//! All Groups, of registry and store together: lookup, creation, update and deletion for one client.
//!
//! Of two Groups of the same id the one with the later lastUpdated counts; if they are equal, the registry's.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::LazyLock;

use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::group::registry::document::GroupDocument;
use crate::group::registry::search_facts::SearchFacts;
use crate::group::registry::store_groups::{SnapshotLocation, StoreGroup, StoreLocation};
use crate::group::registry::writer::GroupWriter;
use crate::group::registry::{EntryState, GroupRegistry, GroupsError, RegisteredGroup, RegistryEntry};
use crate::index::snapshot::Snapshot;

/// The state of an id in registry and store together.
pub(crate) enum GroupLookup {
    /// A Group of the registry.
    Registered(RegisteredGroup),
    /// A Group of the store.
    Store(StoreGroup),
    /// A Group that was deleted, through the service or in the store.
    Deleted {
        /// Version number of the registry's entry; `None` if there is no entry.
        version: Option<u64>,
        /// Instant of the deletion.
        at: Instant,
    },
    /// No Group of this id was ever there, or the client may not know of it.
    Unknown,
}

impl GroupLookup {
    /// The facts of the Group; `None` if there is none.
    pub(crate) fn facts(&self) -> Option<&SearchFacts> {
        match self {
            GroupLookup::Registered(group) => Some(group.facts()),
            GroupLookup::Store(group) => Some(group.facts()),
            GroupLookup::Deleted { .. } | GroupLookup::Unknown => None,
        }
    }

    /// Number of the next version: one more if the version is a number, else 1.
    fn next_version(&self) -> u64 {
        let version = match self {
            GroupLookup::Deleted { version, .. } => *version,
            other => other.facts().and_then(|facts| facts.version.parse().ok()),
        };
        version.and_then(|version: u64| version.checked_add(1)).unwrap_or(1)
    }

    /// lastUpdated of the next version: `now`, but never before the version that it follows, or that one would still
    /// count.
    fn next_instant(&self, now: &Instant) -> Instant {
        let last = match self {
            GroupLookup::Deleted { at, .. } => Some(at),
            other => other.facts().and_then(|facts| facts.last_updated.as_ref()),
        };
        last.map_or(now, |last| last.max(now)).clone()
    }
}

/// Condition of a write on the current state (`If-Match`, `If-None-Match`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// No condition: any state will do.
    Anything,
    /// A Group in any version.
    Something,
    /// No Group may be there.
    Nothing,
    /// A Group in one of these versions.
    Versions(Vec<String>),
}

impl Precondition {
    /// Whether the current state meets the condition.
    pub(crate) fn is_met_by(&self, found: &GroupLookup) -> bool {
        match self {
            Precondition::Anything => true,
            Precondition::Something => found.facts().is_some(),
            Precondition::Nothing => found.facts().is_none(),
            Precondition::Versions(versions) => found.facts().is_some_and(|facts| versions.contains(&facts.version)),
        }
    }
}

/// A version that was written and survives a crash.
#[derive(Clone, Debug)]
pub(crate) struct GroupWrite {
    /// Id of the Group that was written.
    pub id: Id,
    /// Number of the version.
    pub version: u64,
    /// lastUpdated of the version.
    pub at: Instant,
    /// Whether there was no Group of this id before.
    pub created: bool,
    /// The version itself; `None` for a deletion.
    pub group: Option<RegisteredGroup>,
}

/// The current state did not meet the condition of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreconditionFailed {
    /// The current version; `None` if there is no Group, or the client may not know of it.
    pub current: Option<String>,
}

/// Registry and a snapshot of the store, as one client may see and change them.
pub(crate) struct GroupView<'a> {
    /// The Groups that clients created.
    pub(crate) registry: &'a GroupRegistry,
    /// The store's Groups; `None` without an index.
    pub(crate) store: Option<SnapshotLocation<'a>>,
    /// Bases under which absolute references are ours.
    pub(crate) bases: &'a [String],
    /// Ids that the client may know of; all if `None`.
    pub(crate) visible: Option<&'a [String]>,
    /// The client that writes, recorded in new versions.
    writer: Option<GroupWriter>,
}

/// The id that is looked up instead of one that the client may not know of: the same work as for a missing Group, and
/// none that depends on the hidden one, so that neither the answer nor its time discloses it (KICK-16).
static NOBODY: LazyLock<Id> = LazyLock::new(|| Id::parse(&[b'-'; 64]).expect("64 dashes are a legal id"));

impl<'a> GroupView<'a> {
    /// All Groups of a registry and of a store. `bases` are those under which absolute references are ours: the
    /// service's own and those of the store; final slashes do not count.
    pub(crate) fn new(registry: &'a GroupRegistry, store: Option<&'a Snapshot>, bases: &'a [String]) -> GroupView<'a> {
        GroupView {
            registry,
            store: store.map(|snapshot| SnapshotLocation::new(snapshot, bases)),
            bases,
            visible: None,
            writer: None,
        }
    }

    /// The same for a client that may know of these ids only (all if `None`). It finds nothing under any other id and
    /// can change nothing there.
    pub(crate) fn seen_by(self, visible: Option<&'a [String]>) -> GroupView<'a> {
        GroupView { visible, ..self }
    }

    /// The same for a client that writes: new versions record it.
    pub(crate) fn written_by(self, writer: GroupWriter) -> GroupView<'a> {
        GroupView { writer: Some(writer), ..self }
    }

    /// Whether the client may know of an id.
    pub(crate) fn is_seen(&self, id: &Id) -> bool {
        self.visible.is_none_or(|visible| visible.iter().any(|known| known == id.as_str()))
    }

    /// The id to lock and look up for a requested one: itself, or [`NOBODY`] if the client may not know of it.
    fn authorize<'i>(&self, id: &'i Id) -> &'i Id {
        if self.is_seen(id) { id } else { &NOBODY }
    }

    /// The state of an id for the client. Streams a Group of the store unless its facts are cached. Blocks.
    ///
    /// # Errors
    /// If the registry or the store cannot be read.
    pub(crate) fn find(&self, id: &Id) -> Result<GroupLookup, GroupsError> {
        let _reading = self.registry.reading(self.authorize(id));
        self.find_seen(id)
    }

    /// The state of an id for the client. The caller holds the lock of [`GroupView::authorize`]'s id.
    fn find_seen(&self, id: &Id) -> Result<GroupLookup, GroupsError> {
        let found = self.find_locked(self.authorize(id))?;
        Ok(if self.is_seen(id) { found } else { GroupLookup::Unknown })
    }

    /// The state of an id, whatever the client may know. The caller holds the lock of the id.
    fn find_locked(&self, id: &Id) -> Result<GroupLookup, GroupsError> {
        let in_store = match &self.store {
            Some(store) => store.find(id)?,
            None => StoreLocation::Unknown,
        };
        self.merge(id, self.registry.entry(id).as_deref(), in_store)
    }

    /// The later of the registry's entry and the store's state. The caller holds the lock of the id.
    ///
    /// # Errors
    /// If the Group of the later one cannot be opened or read.
    pub(crate) fn merge(
        &self,
        id: &Id,
        entry: Option<&RegistryEntry>,
        in_store: StoreLocation,
    ) -> Result<GroupLookup, GroupsError> {
        if let Some(entry) = entry.filter(|entry| registry_has(entry, &in_store)) {
            return Ok(match self.registry.open_group(id, entry)? {
                Some(group) => GroupLookup::Registered(group),
                None => GroupLookup::Deleted { version: Some(entry.version), at: entry.at.clone() },
            });
        }
        match (in_store, &self.store) {
            (StoreLocation::Current { row, .. }, Some(store)) => {
                Ok(GroupLookup::Store(store.read_group(self.registry, row)?))
            }
            (StoreLocation::Deleted(instant), _) => {
                Ok(GroupLookup::Deleted { version: entry.map(|entry| entry.version), at: instant })
            }
            _ => Ok(GroupLookup::Unknown),
        }
    }

    /// Creates a Group under an id that was never used. On return it survives a crash. Blocks.
    ///
    /// # Errors
    /// If the registry or the store cannot be read, or the Group not be written. `Ok(Err(_))` if the id is or was used:
    /// the caller tries another one.
    pub(crate) fn create(
        &self,
        id: &Id,
        document: &GroupDocument<'_>,
        now: &Instant,
    ) -> Result<Result<GroupWrite, PreconditionFailed>, GroupsError> {
        let _writing = self.registry.writing(id);
        match self.find_locked(id)? {
            GroupLookup::Unknown => self.put(id, document, &GroupLookup::Unknown, now).map(Ok),
            found => Ok(Err(PreconditionFailed { current: found.facts().map(|facts| facts.version.clone()) })),
        }
    }

    /// Writes the next version of a Group, or its first one. On return it survives a crash. Blocks.
    ///
    /// # Errors
    /// If the registry or the store cannot be read, or the version not be written. `Ok(Err(_))` if the precondition is
    /// not met, or the client may not know of the id.
    pub(crate) fn update(
        &self,
        id: &Id,
        document: &GroupDocument<'_>,
        expected: &Precondition,
        now: &Instant,
    ) -> Result<Result<GroupWrite, PreconditionFailed>, GroupsError> {
        let _writing = self.registry.writing(self.authorize(id));
        let found = self.find_seen(id)?;
        if !expected.is_met_by(&found) || !self.is_seen(id) {
            return Ok(Err(PreconditionFailed { current: found.facts().map(|facts| facts.version.clone()) }));
        }
        self.put(id, document, &found, now).map(Ok)
    }

    /// Writes the version that follows a state. The caller holds the lock of the id for writing.
    fn put(
        &self,
        id: &Id,
        document: &GroupDocument<'_>,
        found: &GroupLookup,
        now: &Instant,
    ) -> Result<GroupWrite, GroupsError> {
        let (version, instant) = (found.next_version(), found.next_instant(now));
        let write_line = &|out: &mut dyn Write| document.write_version(id, version, &instant, out);
        let group = self.registry.put(id, write_line, version, instant.clone(), self.writer_after(found))?;
        Ok(GroupWrite { id: *id, version, at: instant, created: found.facts().is_none(), group: Some(group) })
    }

    /// The writer to record in the version that follows a state. A writer bound to Groups is marked as following an
    /// unbound one if that, or the store, wrote under the id before, and after a deletion, which records no writer.
    fn writer_after(&self, found: &GroupLookup) -> Option<GroupWriter> {
        let follows_unbound = match found {
            GroupLookup::Store(_) | GroupLookup::Deleted { .. } => true,
            GroupLookup::Registered(group) => {
                group.writer().is_some_and(|writer| !writer.bound_to_groups || writer.follows_unbound)
            }
            GroupLookup::Unknown => false,
        };
        self.writer
            .clone()
            .map(|writer| GroupWriter { follows_unbound: writer.bound_to_groups && follows_unbound, ..writer })
    }

    /// Ids under which there may be a Group that the client may know of, ascending.
    ///
    /// # Errors
    /// If the index is corrupt.
    pub(crate) fn ids(&self) -> Result<BTreeSet<Id>, GroupsError> {
        if let Some(visible) = self.visible {
            return Ok(visible.iter().filter_map(|id| Id::parse_r4(id.as_bytes())).collect());
        }
        let mut ids: BTreeSet<Id> = self.registry.entries().into_iter().map(|(id, _)| id).collect();
        if let Some(store) = &self.store {
            store.each_group(&mut |id, _| {
                ids.insert(id);
            })?;
        }
        Ok(ids)
    }

    /// Ids of current Groups of the store that an entry of the registry supersedes, by replacement or deletion.
    ///
    /// # Errors
    /// If the index is corrupt.
    pub(crate) fn superseded_ids(&self) -> Result<Vec<Id>, GroupsError> {
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for (id, entry) in self.registry.entries() {
            let in_store = store.find(&id)?;
            if matches!(in_store, StoreLocation::Current { .. }) && registry_has(&entry, &in_store) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Deletes the Group of an id, of registry and store. On return the deletion survives a crash. `None` if there is
    /// no Group: then nothing is written. Blocks.
    ///
    /// # Errors
    /// If the registry or the store cannot be read, or the deletion not be written. `Ok(Err(_))` if the precondition is
    /// not met.
    pub(crate) fn delete(
        &self,
        id: &Id,
        expected: &Precondition,
        now: &Instant,
    ) -> Result<Result<Option<GroupWrite>, PreconditionFailed>, GroupsError> {
        let _writing = self.registry.writing(self.authorize(id));
        let found = self.find_seen(id)?;
        if !expected.is_met_by(&found) {
            return Ok(Err(PreconditionFailed { current: found.facts().map(|facts| facts.version.clone()) }));
        }
        if found.facts().is_none() {
            return Ok(Ok(None));
        }
        let (version, instant) = (found.next_version(), found.next_instant(now));
        self.registry.mark_deleted(id, version, instant.clone())?;
        Ok(Ok(Some(GroupWrite { id: *id, version, at: instant, created: false, group: None })))
    }
}

/// Whether a registry entry counts, not the store's state: it is not older. An undated row of the store is older.
pub(crate) fn registry_has(entry: &RegistryEntry, in_store: &StoreLocation) -> bool {
    match in_store {
        StoreLocation::Current { updated, .. } => updated.as_ref().is_none_or(|updated| *updated <= entry.at),
        StoreLocation::Deleted(instant) => *instant <= entry.at,
        StoreLocation::Unknown => true,
    }
}

/// The facts of a Group in its registry's entry, for reads of registry and store as one; `None` if it is a deletion or
/// damaged.
pub(crate) fn facts_of(entry: &RegistryEntry) -> Option<&SearchFacts> {
    match &entry.state {
        EntryState::Live { facts, .. } => Some(facts),
        EntryState::Deleted | EntryState::Damaged(_) => None,
    }
}
