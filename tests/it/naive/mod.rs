//! The naive oracle: a whole export in obvious code, without index or columns. It parses every line with serde_json and
//! answers two questions for each: is it current, and is it of the cohort. The binary must write what it answers.
//!
//! It follows the readings of `src/docs/readings.md` and shares no code with the program. It is slow on purpose, and
//! reads the store once for many requests (`Store::read`, then `export`).

pub(crate) mod associated;
pub(crate) mod cohort;
pub(crate) mod context;
pub(crate) mod instant;
pub(crate) mod line;
pub(crate) mod search;
pub(crate) mod search_table;
pub(crate) mod store;
pub(crate) mod vanished;
pub(crate) mod view;

use associated::{Associated, associated};
use cohort::Cohort;
use instant::Instant;
use line::Line;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use store::{Store, Tombstone};
use view::State;

/// Population of a request.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    GroupId(String),
    GroupFile(serde_json::Value),
    Patients(Vec<String>),
    AllPatients,
    System,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Members {
    Listed,
    Active,
}

/// A request for an export, in terms of the command line.
#[derive(Clone)]
pub(crate) struct Request {
    pub who: Who,
    /// The transactionTime T of the export.
    pub as_of: Instant,
    pub since: Option<Instant>,
    pub until: Option<Instant>,
    /// Types to export; all if empty.
    pub types: BTreeSet<String>,
    pub members: Members,
    /// Ids of patients to whom the population is restricted; all of it if `None`.
    pub only: Option<BTreeSet<String>>,
    /// Provenance of what is exported; that of the cohort if `None`.
    pub associated: Option<Associated>,
    /// Filters: a type, and what a resource of it must meet, one of those of its type.
    pub filters: Vec<(&'static str, Predicate)>,
    /// Whether referenced context is exported.
    pub context: bool,
    /// Whether rows without a lastUpdated pass the filters (`--missing-last-updated include`).
    pub missing_included: bool,
    /// File and line number of the lines first seen after `since`.
    pub late: BTreeSet<(String, u64)>,
    /// Whether late rows are exported (`--late include`).
    pub late_included: bool,
    /// Whether files may have been replaced after `since`, so that their content at `since` is uncertain.
    pub replaced: bool,
}

impl Request {
    pub(crate) fn new(who: Who, as_of: &str) -> Request {
        Request {
            who,
            as_of: instant::parse(as_of).expect("as_of is an instant"),
            since: None,
            until: None,
            types: BTreeSet::new(),
            members: Members::Listed,
            only: None,
            associated: None,
            filters: Vec::new(),
            context: false,
            missing_included: true,
            late: BTreeSet::new(),
            late_included: true,
            replaced: true,
        }
    }
    /// A date alone is its first instant in UTC (reading 1).
    pub(crate) fn since(mut self, text: &str) -> Request {
        let instant = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_string() };
        self.since = Some(instant::parse(&instant).expect("since is an instant"));
        self
    }
    pub(crate) fn until(mut self, text: &str) -> Request {
        self.until = Some(instant::parse(text).expect("until is an instant"));
        self
    }
    pub(crate) fn types(mut self, list: &str) -> Request {
        self.types.extend(list.split(',').map(|name| name.trim().to_string()).filter(|name| !name.is_empty()));
        self
    }
    pub(crate) fn members(mut self, members: Members) -> Request {
        self.members = members;
        self
    }
}

/// Whether a resource meets a filter.
pub(crate) type Predicate = fn(&serde_json::Value) -> bool;

/// Content of an export.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Lines of each type without newline, in store order.
    pub lines: BTreeMap<String, Vec<Vec<u8>>>,
    /// `Type/id` of the deletions, by type and then by position of the first tombstone that counts.
    pub deleted: Vec<String>,
    /// Number of input lines by class, each counted under the first class that applies (reading 10).
    pub ledger: BTreeMap<&'static str, u64>,
    /// File, line number and byte offset of each faulty line.
    pub faults: Vec<(String, u64, u64)>,
    /// Members that resolve to nothing or have no current Patient row.
    pub warnings: u64,
    /// Rows exported only because rows without a lastUpdated pass.
    pub without_last_updated: u64,
    /// Rows exported only because they are late.
    pub late: u64,
}

/// The classes of the ledger, in the order in which they apply (reading 10).
pub(crate) const LEDGER: [&str; 10] =
    ["blank", "faulty", "tombstone", "future", "superseded", "deleted", "type", "cohort", "sinceOrUntil", "exported"];

/// Reads a store, on a thread whose stack suffices for the deepest line.
pub(crate) fn read(dir: &Path, bases: &[&str]) -> Store {
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(512 << 20).spawn_scoped(scope, || Store::read(dir, bases));
        reader.unwrap().join().unwrap()
    })
}

/// A state of a store that an export saw, for [`late_lines`].
pub(crate) struct Seen {
    /// The bytes of each file as stored.
    files: BTreeMap<String, Vec<u8>>,
    /// Each row: file, offset in it, type, id, date and version, and line.
    rows: Vec<SeenRow>,
}

/// A row of a state of a store.
struct SeenRow {
    file: String,
    offset: u64,
    entity: (String, String),
    age: (Option<Instant>, Option<(usize, String)>),
    line: Vec<u8>,
}

/// The state of a store as it is now.
pub(crate) fn seen(dir: &Path, store: &Store) -> Seen {
    let files: BTreeSet<&String> = store.entries.iter().map(|entry| &entry.file).collect();
    let files = files.into_iter().map(|file| (file.clone(), std::fs::read(dir.join(file)).unwrap())).collect();
    let row = |entry: &store::Entry| match &entry.what {
        Line::Row(row) => {
            let (when, version) = row.age();
            Some(SeenRow {
                file: entry.file.clone(),
                offset: entry.offset,
                entity: (row.resource_type.clone(), row.id.clone()),
                age: (when.cloned(), version.map(|(length, digits)| (length, digits.to_string()))),
                line: entry.bytes.clone(),
            })
        }
        _ => None,
    };
    Seen { files, rows: store.entries.iter().filter_map(row).collect() }
}

/// The lines first seen between two states of a store: those of new and of changed files, and those of a plain file
/// after its last newline in the first state; but not a row of which a changed or removed file held the same line.
/// Rows whose place in the store decides which is current are new all the same.
pub(crate) fn late_lines(store: &Store, before: &Seen, after: &Seen) -> BTreeSet<(String, u64)> {
    // Up to this offset a file is as it was.
    let unchanged = |file: &String| match (before.files.get(file), after.files.get(file)) {
        (Some(old), Some(new)) if old == new => u64::MAX,
        (Some(old), Some(new)) if file.ends_with(".ndjson") && new.starts_with(old) => {
            old.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position as u64 + 1)
        }
        _ => 0,
    };
    let changed = |row: &&SeenRow| row.offset >= unchanged(&row.file);
    let was_there = |new: &SeenRow| {
        let old: Vec<&SeenRow> = before.rows.iter().filter(changed).filter(|old| old.entity == new.entity).collect();
        let beside: Vec<&SeenRow> = after.rows.iter().filter(|other| other.entity == new.entity).collect();
        let same = |other: &&&SeenRow| other.line == new.line;
        let stayed = old.iter().filter(same).any(|old| old.file == new.file);
        let moved = old.iter().any(|old| old.line == new.line) && beside.iter().all(changed);
        let involved = old.iter().chain(beside.iter().filter(|row| changed(row)));
        let tied = involved.filter(|other| !same(other)).any(|other| other.age == new.age);
        (stayed || moved) && !tied
    };
    let known: BTreeSet<(&String, u64)> =
        after.rows.iter().filter(changed).filter(|row| was_there(row)).map(|row| (&row.file, row.offset)).collect();
    let late = store.entries.iter().filter(|entry| entry.offset >= unchanged(&entry.file));
    let late = late.filter(|entry| !known.contains(&(&entry.file, entry.offset)));
    late.map(|entry| (entry.file.clone(), entry.line)).collect()
}

/// Answers a request.
///
/// # Errors
/// The reason for refusing the request.
pub(crate) fn export(store: &Store, request: &Request) -> Result<Answer, String> {
    let cohort = cohort::resolve(store, request)?;
    let mut answer = Answer { warnings: cohort.warnings, ..Answer::default() };
    for class in LEDGER {
        answer.ledger.insert(class, 0);
    }
    let mut classes = Vec::new();
    for (index, entry) in store.entries.iter().enumerate() {
        classes.push(match &entry.what {
            Line::Blank => "blank",
            Line::NotFhir => "notFhir",
            Line::Fault(_) | Line::Untyped => {
                answer.faults.push((entry.file.clone(), entry.line, entry.offset));
                "faulty"
            }
            Line::Tombstones { .. } => "tombstone",
            Line::Row(_) => class_of(store, request, &cohort, index, &mut answer),
        });
    }
    let mut exported: BTreeSet<usize> = (0..classes.len()).filter(|index| classes[*index] == "exported").collect();
    exported.extend(associated(store, request, &exported));
    exported.extend(context::context(store, request, &cohort, &exported));
    exported.into_iter().for_each(|index| classes[index] = "exported");
    for (index, (entry, class)) in store.entries.iter().zip(classes).enumerate() {
        if class == "exported" {
            let of_type = answer.lines.entry(store.row(index).resource_type.clone()).or_default();
            of_type.push(entry.bytes.clone());
        }
        *answer.ledger.entry(class).or_default() += 1;
    }
    answer.deleted = deleted(store, request, &cohort);
    Ok(answer)
}

/// Class of a line in the ledger, filters included.
fn class_of(store: &Store, request: &Request, cohort: &Cohort, index: usize, answer: &mut Answer) -> &'static str {
    match class_without_filters(store, request, cohort, index, answer) {
        "exported" if !meets_filters(store, request, index) => "typeFilter",
        class => class,
    }
}

/// Whether a line meets a filter of its type, if there is one.
fn meets_filters(store: &Store, request: &Request, index: usize) -> bool {
    let of = &store.row(index).resource_type;
    let mut own = request.filters.iter().filter(|(name, _)| name == of).peekable();
    if own.peek().is_none() {
        return true;
    }
    let document: serde_json::Value = serde_json::from_slice(&store.entries[index].bytes).unwrap();
    own.any(|(_, meets)| meets(&document))
}

/// Class of a line in the ledger without filters.
fn class_without_filters(
    store: &Store,
    request: &Request,
    cohort: &Cohort,
    index: usize,
    answer: &mut Answer,
) -> &'static str {
    let row = store.row(index);
    match view::state(store, index, &request.as_of) {
        State::Future => return "future",
        State::Superseded => return "superseded",
        State::Deleted => return "deleted",
        State::Current => {}
    }
    if !wanted(request, &row.resource_type) {
        return "type";
    }
    if !in_scope(store, request, cohort, index) {
        return "cohort";
    }
    let Some(when) = &row.last_updated else {
        if request.since.is_none() && request.until.is_none() {
            return "exported";
        }
        if !request.missing_included {
            return "sinceOrUntil";
        }
        answer.without_last_updated += 1;
        return "exported";
    };
    if request.until.as_ref().is_some_and(|until| when >= until) {
        return "sinceOrUntil";
    }
    match &request.since {
        Some(since) if when <= since => {
            if is_late(store, request, index) {
                answer.late += 1;
                if request.late_included { "exported" } else { "sinceOrUntil" }
            } else if joined_later(store, request, cohort, index, since) {
                "exported"
            } else {
                "sinceOrUntil"
            }
        }
        _ => "exported",
    }
}

/// Whether a Provenance joined the cohort after `since`, through a target that did not exist before.
fn joined_later(store: &Store, request: &Request, cohort: &Cohort, index: usize, since: &Instant) -> bool {
    store.row(index).resource_type == "Provenance"
        && !matches!(request.who, Who::System)
        && !view::belongs(store, cohort, index, &|name, id| known_at(store, request, name, id, since))
}

/// The current row of `Type/id` at `since`, as an export then saw it. `None` if files may have been replaced since, and
/// a line of that age about it was first seen later: the line that the export then saw may be gone.
fn known_at(store: &Store, request: &Request, name: &str, id: &str, since: &Instant) -> Option<usize> {
    let entity = store.entities.get(&(name.to_string(), id.to_string()))?;
    let late = |index: usize| is_late(store, request, index);
    let old = |index: &usize| store.row(*index).last_updated.as_ref().is_none_or(|when| when <= since);
    let unsure = request.replaced && entity.versions.iter().any(|index| late(*index) && old(index));
    if unsure { None } else { view::last_version(store, entity, since, &|index| !late(index)) }
}

/// Whether a DELETE entry ends the `Type/id` at an instant.
pub(crate) fn is_ended(store: &Store, name: &str, instant: &Instant) -> bool {
    let (name, id) = name.split_once('/').unwrap();
    let entity = store.entities.get(&(name.to_string(), id.to_string()));
    entity.is_some_and(|entity| view::last_tombstones(store, entity, instant, &|_| true).next().is_some())
}

/// Whether a type is exported for itself. Associated Provenance is not (ASSOC-05).
fn wanted(request: &Request, resource_type: &str) -> bool {
    let is_associated = request.associated.is_some() && resource_type == "Provenance";
    !is_associated && (request.types.is_empty() || request.types.contains(resource_type))
}

/// Whether deletions of a type are listed: of associated Provenance, too (ASSOC-08).
fn deletions_wanted(request: &Request, resource_type: &str) -> bool {
    wanted(request, resource_type) || request.associated.is_some() && resource_type == "Provenance"
}

fn in_scope(store: &Store, request: &Request, cohort: &Cohort, index: usize) -> bool {
    let row = store.row(index);
    match request.who {
        Who::System => true,
        _ if row.resource_type == "Group" => request.types.contains("Group") && cohort.group.as_ref() == Some(&row.id),
        _ => view::belongs(store, cohort, index, &|name, id| view::last(store, name, id, &request.as_of, &|_| true)),
    }
}

fn is_late(store: &Store, request: &Request, index: usize) -> bool {
    let entry = &store.entries[index];
    !request.late.is_empty() && request.late.contains(&(entry.file.clone(), entry.line))
}

fn deleted(store: &Store, request: &Request, cohort: &Cohort) -> Vec<String> {
    let Some(since) = &request.since else { return Vec::new() };
    let (instant, everything) = (&request.as_of, |_: usize| true);
    let mut found: Vec<(&str, (usize, usize), &str)> = Vec::new();
    for ((name, id), entity) in &store.entities {
        let counts = |tomb: &&Tombstone| {
            request.until.as_ref().is_none_or(|until| tomb.when < *until)
                && (tomb.when > *since || (request.late_included && is_late(store, request, tomb.index)))
        };
        let Some(first) = view::last_tombstones(store, entity, instant, &everything).find(counts) else { continue };
        let ours = match view::last_version(store, entity, instant, &everything) {
            _ if matches!(request.who, Who::System) => true,
            None => false,
            Some(version) => {
                in_scope(store, request, cohort, version) || context::leads_to_deleted(store, request, cohort, version)
            }
        };
        if ours && deletions_wanted(request, name) {
            found.push((name, (first.index, first.place), id));
        }
    }
    found.sort();
    found.into_iter().map(|(name, _, id)| format!("{name}/{id}")).collect()
}
