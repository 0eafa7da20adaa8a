//! What is gone from a store without a deletion, in obvious code (reading 26). Each look at the store is compared with
//! the look before, resource by resource; what is found between two exports is what the second of them must state.
//!
//! Where two lines of a resource have equal dates and versions, the order of files decides which is the newest; and rows
//! that a told DELETE entry ended may be told again once they are gone. Those resources are not judged here: an answer holds
//! their number, and states of them nothing.

use super::instant::Instant;
use super::line::Line;
use super::store::Store;
use super::view;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Type and id of a resource.
type Key = (String, String);

/// Date, whether it is a row, and version: the order of the records of a resource. At the date of a row a DELETE entry is
/// older.
type Age = (Option<Instant>, bool, Option<(usize, String)>);

/// How a resource came to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Replaced,
    Uncertain,
    Missing,
    Older,
    Deleted,
    /// The rows of a resource that was told as deleted are gone; the DELETE entry stands. It may be told again.
    Ended,
}

/// What an export must state of vanished resources.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Vanished {
    /// `Type/id` of those that it lists as deleted.
    pub told: BTreeSet<String>,
    /// Numbers of those that it only counts: gone from replaced files, from uncertain ones, with their files, and without
    /// their newest version.
    pub counted: [u64; 4],
    /// Resources of which this says nothing: lines of equal age differ, or they may be told again.
    pub unjudged: u64,
}

/// A file at a look: what tells it from a new one in its place, and whether it has no fault and no cut end.
struct FileLook {
    inode: u64,
    is_whole: bool,
}

/// A row of a look.
struct RowLook {
    file: String,
    age: Age,
    line: Vec<u8>,
    patients: BTreeSet<String>,
}

/// A DELETE entry of a look.
#[derive(Clone, PartialEq, Eq)]
struct EntryLook {
    when: Instant,
    /// Whether a snapshot held it at its date or later, so that its deletion was told.
    in_force: bool,
}

/// The store at one moment.
#[derive(Default)]
struct Look {
    files: BTreeMap<String, FileLook>,
    rows: BTreeMap<Key, Vec<RowLook>>,
    entries: BTreeMap<Key, Vec<EntryLook>>,
}

impl Look {
    fn new(dir: &Path, store: &Store) -> Look {
        let mut look = Look::default();
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
            let name = entry.file_name().into_string().unwrap();
            if name.ends_with(".ndjson") {
                let bytes = std::fs::read(entry.path()).unwrap();
                let is_whole = bytes.is_empty() || bytes.ends_with(b"\n");
                look.files.insert(name, FileLook { inode: entry.metadata().unwrap().ino(), is_whole });
            }
        }
        for entry in &store.entries {
            match &entry.what {
                Line::Row(row) => {
                    let (when, version) = row.age();
                    let age = (when.cloned(), true, version.map(|(length, digits)| (length, digits.to_string())));
                    let itself = (row.resource_type == "Patient").then(|| row.id.clone());
                    let referred = row.references.iter().filter_map(|text| store.local_patient(text));
                    look.rows.entry((row.resource_type.clone(), row.id.clone())).or_default().push(RowLook {
                        file: entry.file.clone(),
                        age,
                        line: entry.bytes.clone(),
                        patients: referred.chain(itself).collect(),
                    });
                }
                Line::Fault(_) => look.files.get_mut(&entry.file).unwrap().is_whole = false,
                _ => {}
            }
        }
        for (key, entity) in &store.entities {
            let entries = entity.tombstones.iter().map(|one| EntryLook { when: one.when.clone(), in_force: false });
            look.entries.insert(key.clone(), entries.collect());
        }
        look
    }

    fn rows(&self, key: &Key) -> &[RowLook] {
        self.rows.get(key).map_or(&[], |rows| rows)
    }

    fn entries(&self, key: &Key) -> &[EntryLook] {
        self.entries.get(key).map_or(&[], |entries| entries)
    }
}

/// What was found of a resource since the last snapshot.
struct Event {
    /// `None` if nothing is said of it.
    cause: Option<Cause>,
    /// Patients of its last version.
    patients: BTreeSet<String>,
}

/// One who looks at a store whenever an index of it is refreshed.
#[derive(Default)]
pub(crate) struct Watch {
    last: Option<Look>,
    events: BTreeMap<Key, Event>,
}

impl Watch {
    /// Compares the store as it is now with the last look.
    pub(crate) fn look(&mut self, dir: &Path, store: &Store) {
        let mut now = Look::new(dir, store);
        if let Some(last) = &self.last {
            for (key, entries) in &mut now.entries {
                let known = |one: &EntryLook| last.entries(key).iter().any(|old| old.in_force && old.when == one.when);
                entries.iter_mut().for_each(|one| one.in_force = known(one));
            }
            for key in last.rows.keys().chain(last.entries.keys().filter(|key| last.rows(key).is_empty())) {
                let (before, after) = (last.rows(key), now.rows(key));
                let cause = cause(last, &now, key);
                let is_changed = !before.iter().map(|row| &row.line).eq(after.iter().map(|row| &row.line));
                // A line in place of one of its age is a correction.
                let is_tied = is_changed && (is_tied(before.iter()) || is_tied(after.iter()))
                    || cause.is_some() && is_tied(before.iter().chain(after));
                if cause.is_some() || is_tied {
                    let newest = before.iter().max_by(|a, b| a.age.cmp(&b.age));
                    let patients = newest.into_iter().chain(after).flat_map(|row| row.patients.clone()).collect();
                    let cause = cause.filter(|cause| *cause != Cause::Ended && !is_tied);
                    self.events.insert(key.clone(), Event { cause, patients });
                }
            }
        }
        self.last = Some(now);
    }

    /// What an export as of T must state that follows the last snapshot: of `patients`, or at system level of all.
    /// `is_increment`: whether it has a `_since`, the T of that snapshot; `delete`: whether vanished resources are
    /// deletions.
    pub(crate) fn answer(
        &self,
        store: &Store,
        patients: Option<&[&str]>,
        as_of: &Instant,
        is_increment: bool,
        delete: bool,
    ) -> Vanished {
        let mut answer = Vanished::default();
        for (key, event) in &self.events {
            if patients.is_some_and(|ids| !ids.iter().any(|id| event.patients.contains(*id))) {
                continue;
            }
            let Some(cause) = event.cause else {
                answer.unjudged += 1;
                continue;
            };
            if cause != Cause::Older && view::current(store, &key.0, &key.1, as_of, &|_| true).is_some() {
                continue;
            }
            match cause {
                Cause::Deleted if !is_increment => {}
                Cause::Replaced if !(is_increment && delete) => answer.counted[0] += 1,
                Cause::Deleted | Cause::Replaced | Cause::Ended => {
                    answer.told.extend([format!("{}/{}", key.0, key.1)]);
                }
                Cause::Uncertain => answer.counted[1] += 1,
                Cause::Missing => answer.counted[2] += 1,
                Cause::Older => answer.counted[3] += 1,
            }
        }
        answer
    }

    /// An export as of T was made.
    pub(crate) fn snapshot(&mut self, as_of: &Instant) {
        self.events.clear();
        let entries = self.last.iter_mut().flat_map(|look| look.entries.values_mut()).flatten();
        entries.for_each(|entry| entry.in_force |= entry.when <= *as_of);
    }
}

/// How a resource that had rows is gone, or no longer as it was; `None` if neither.
fn cause(last: &Look, now: &Look, key: &Key) -> Option<Cause> {
    let ages = |look: &Look, all: bool| {
        let entries = look.entries(key).iter().filter(|entry| all || entry.in_force);
        let entries = entries.map(|entry| (Some(entry.when.clone()), false, None));
        look.rows(key).iter().map(|row| row.age.clone()).chain(entries).max()
    };
    let (before, after) = (ages(last, false)?, ages(now, true));
    let stands = !now.rows(key).is_empty();
    match after {
        Some((_, true, _)) if after.as_ref() >= Some(&before) => None,
        Some(_) if after.as_ref() >= Some(&before) && before.1 => (!stands).then_some(Cause::Deleted),
        Some(_) if after.as_ref() >= Some(&before) => (!stands && !last.rows(key).is_empty()).then_some(Cause::Ended),
        _ if stands => Some(Cause::Older),
        // It was deleted before its rows went.
        _ if !before.1 => None,
        _ => {
            let mut cause = Cause::Replaced;
            for row in last.rows(key) {
                let Some(file) = now.files.get(&row.file) else { return Some(Cause::Missing) };
                if file.inode == last.files[&row.file].inode || !file.is_whole {
                    cause = Cause::Uncertain;
                }
            }
            Some(cause)
        }
    }
}

/// Whether rows of a resource are of equal age and differ.
fn is_tied<'a>(rows: impl Iterator<Item = &'a RowLook> + Clone) -> bool {
    rows.clone().any(|a| rows.clone().any(|b| a.age == b.age && a.line != b.line))
}
