//! What a reader holds after an export, and what an increment takes away: kept in the record as keys, and listed in
//! `departed.json-lines` (GROUP-13).
//!
//! A reader who applies the exports of a chain in turn holds, after an increment, what it held before, less the deletions and
//! the departed, and what the increment brought. A resource has departed that the reader holds, that the same request without
//! `_since` would not export now, and that is not listed as deleted: its patient left, it moved to another patient, a filter finds
//! it no more, or nothing refers to it any more. What is gone from the store without a deletion departs if those whose it was
//! are not in the cohort any more, or if the policy for vanished resources lists deletions and it would not be listed for want
//! of an owner; else the reader keeps it.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{CorruptIndex, ExportError, IndexError};
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::hash::digest::{DigestAlgorithm, Digester};
use crate::index::snapshot::Snapshot;
use crate::index::vanished::{VanishCause, VanishedResource};
use crate::key_set::ResourceKeySet;
use crate::key_set::builder::SortedKeys;
use crate::key_set::resource_key::{ResourceKey, resource_key};
use crate::plan::Plan;
use crate::policies::Vanished;
use crate::progress::Progress;
use crate::select::resource_keys::{find_name, write_keys};
use crate::select::vanished::vanished_of_others;
use crate::sys::directory::Directory;
use crate::sys::private_files::create_unnamed;
use crate::write::journal::{DEPARTED, RESOURCES};

/// A failure of the files of an output directory, by name, or of the store.
pub(crate) enum StateError {
    /// A file cannot be written.
    Write(&'static str, io::Error),
    /// The store, its index, or the caller's wish to stop.
    Export(ExportError),
}

impl From<CorruptIndex> for StateError {
    fn from(error: CorruptIndex) -> StateError {
        StateError::Export(IndexError::from(error).into())
    }
}

/// Where the files of an increment's state go.
pub(crate) struct StatePlaces<'a> {
    /// The directory of the output files.
    pub files: &'a Directory,
    /// The directory of the record.
    pub record: &'a Directory,
    /// Whether files are synced.
    pub sync: bool,
}

/// Writes `resources` and, for an increment, `departed.json-lines`. Returns what the root extension of the manifest says of them:
/// `resources` with the number of keys and the digest of their file, `departed` with its name, numbers, bytes and digest.
///
/// # Errors
/// [`StateError`]; the files stand whole or not at all.
pub(crate) fn write_reader_state(
    plan: &Plan,
    snapshot: &Snapshot,
    places: &StatePlaces<'_>,
    progress: &Progress,
) -> Result<Vec<(&'static str, Value)>, StateError> {
    let mut facts = Vec::new();
    let Some(baseline) = &plan.request.baseline else {
        if plan.request.keeps_resources {
            let keys = write_named(places, |file, name| write_keys(snapshot, &plan.selection.rows, file, name))?;
            facts.push(("resources", keys));
        }
        return Ok(facts);
    };
    let mut departed = Vec::new();
    if let Some(before) = baseline.resources.as_ref().filter(|_| plan.request.keeps_resources) {
        let mut exported = unnamed(places, |file, name| write_keys(snapshot, &plan.selection.rows, file, name))?;
        let removed = Removed::of(plan, snapshot, before, places, progress)?;
        let kept = before.keys().iter().filter(|key| !removed.contains(key));
        let exported = exported.keys();
        let capacity = before.keys().len() + exported.len();
        let keys = write_named(places, |file, name| {
            SortedKeys::fill(file, name, capacity, |slots| {
                let mut count = 0;
                for (slot, key) in slots.iter_mut().zip(kept.chain(exported)) {
                    *slot = *key;
                    count += 1;
                }
                Ok::<usize, CorruptIndex>(count)
            })
        })?;
        facts.push(("resources", keys));
        departed = removed.departed;
    }
    facts.push(("departed", write_departed(plan, &departed, places)?));
    Ok(facts)
}

/// Keys that a reader no longer holds.
struct Removed {
    /// Names of what departed, by type and id.
    departed: Vec<(ResourceType, Box<str>)>,
    /// Their keys and those of the listed deletions, ascending.
    keys: Vec<ResourceKey>,
}

impl Removed {
    /// Finds what is in the state before and not in the whole selection of now.
    fn of(
        plan: &Plan,
        snapshot: &Snapshot,
        before: &ResourceKeySet,
        places: &StatePlaces<'_>,
        progress: &Progress,
    ) -> Result<Removed, StateError> {
        let rows = plan.whole.as_ref().map_or(&plan.selection.rows, |whole| &whole.rows);
        let mut whole = unnamed(places, |file, name| write_keys(snapshot, rows, file, name))?;
        let whole = whole.keys();
        let deleted = &plan.deletions.listed;
        let mut keys: Vec<ResourceKey> = deleted.iter().map(|(t, id)| resource_key(*t, id.as_bytes())).collect();
        keys.sort_unstable();
        let (vanished, gone) = (snapshot.vanished()?, OnceCell::new());
        let of_others = vanished_of_others(snapshot, &plan.cohort, &plan.request)?;
        let (mut departed, mut departed_keys, mut at) = (Vec::new(), Vec::new(), 0);
        for key in before.keys() {
            while whole.get(at).is_some_and(|other| other < key) {
                at += 1;
            }
            if whole.get(at) == Some(key) || keys.binary_search(key).is_ok() {
                continue;
            }
            if progress.is_cancelled() {
                return Err(StateError::Export(ExportError::Cancelled));
            }
            let name = match find_name(snapshot, key)? {
                Some(name) => Some(name),
                None => gone.get_or_init(|| gone_for_readers(plan, vanished, &of_others)).get(key).copied(),
            };
            if let Some(name) = name {
                departed.push((name.0, name.1.as_str().into()));
                departed_keys.push(*key);
            }
        }
        keys.extend(departed_keys);
        keys.sort_unstable();
        departed.sort_unstable();
        Ok(Removed { departed, keys })
    }

    /// Whether a reader no longer holds the resource of a key.
    fn contains(&self, key: &ResourceKey) -> bool {
        self.keys.binary_search(key).is_ok()
    }
}

/// The names of resources that are gone from the store, where the policy says that such resources are gone for readers, too;
/// and of those `of_others`, for whatever reason they are gone: a reader must keep no record of a patient who left.
fn gone_for_readers(
    plan: &Plan,
    vanished: &[VanishedResource],
    of_others: &[&VanishedResource],
) -> HashMap<ResourceKey, (ResourceType, Id)> {
    let is_gone = |gone: &&VanishedResource| match gone.cause {
        VanishCause::Deleted => true,
        VanishCause::ReplacedFile => plan.request.vanished == Vanished::Delete,
        _ => false,
    };
    let gone = vanished.iter().filter(is_gone).chain(of_others.iter().copied());
    gone.map(|gone| (resource_key(gone.resource_type, gone.id.as_bytes()), (gone.resource_type, gone.id))).collect()
}

/// Writes a set of keys to the record under its name, and returns its facts for the manifest.
fn write_named(
    places: &StatePlaces<'_>,
    fill: impl FnOnce(std::fs::File, &Path) -> io::Result<Result<SortedKeys, CorruptIndex>>,
) -> Result<Value, StateError> {
    let failed = |error| StateError::Write(RESOURCES, error);
    let temporary = crate::sys::directory::temporary_name(RESOURCES);
    let file = places.record.create(&temporary).map_err(failed)?;
    file.set_len(0).map_err(failed)?;
    let name = places.record.path().join(RESOURCES);
    let mut keys = fill(file, &name).map_err(failed)??;
    let count = keys.keys().len();
    keys.finish(places.sync).map_err(failed)?;
    let set = places.record.open_file(&temporary).map_err(failed)?;
    let set = ResourceKeySet::open(set, &name).map_err(|reason| failed(io::Error::other(reason)))?;
    let digest = set.digest();
    places.record.rename(&temporary, RESOURCES).map_err(failed)?;
    if places.sync {
        places.record.sync().map_err(failed)?;
    }
    Ok(json!({ "count": count, "digest": digest }))
}

/// Writes a set of keys to a file without a name.
fn unnamed(
    places: &StatePlaces<'_>,
    fill: impl FnOnce(std::fs::File, &Path) -> io::Result<Result<SortedKeys, CorruptIndex>>,
) -> Result<SortedKeys, StateError> {
    let failed = |error| StateError::Write(RESOURCES, error);
    let directory = places.record.path();
    let file = create_unnamed(directory, ".keys.part").map_err(failed)?;
    Ok(fill(file, &directory.join(RESOURCES)).map_err(failed)??)
}

/// Writes the list of members and resources that departed, a JSON object a line, and returns its facts for the manifest.
fn write_departed(
    plan: &Plan,
    resources: &[(ResourceType, Box<str>)],
    places: &StatePlaces<'_>,
) -> Result<Value, StateError> {
    let failed = |error| StateError::Write(DEPARTED, error);
    let members = plan.member_changes.as_ref().map_or(&[][..], |changes| &changes.left);
    let mut digest = Digester::new(DigestAlgorithm::Xxh3);
    let mut bytes = 0u64;
    let mut write = |out: &mut dyn Write| {
        let members = members.iter().map(|id| format!("{{\"member\":\"Patient/{id}\"}}\n"));
        let resources = resources.iter().map(|(t, id)| format!("{{\"resource\":\"{}/{id}\"}}\n", t.name()));
        for line in members.chain(resources) {
            digest.update(line.as_bytes());
            bytes += line.len() as u64;
            out.write_all(line.as_bytes())?;
        }
        Ok(())
    };
    places.files.replace_with(DEPARTED, places.sync, &mut write).map_err(failed)?;
    Ok(json!({
        "file": DEPARTED,
        "members": members.len(),
        "resources": resources.len(),
        "bytes": bytes,
        "digest": digest.finish(),
    }))
}
