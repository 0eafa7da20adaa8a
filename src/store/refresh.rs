//! Brings an index up to date: keeps what still stands, scans what is new or was damaged, merges, publishes.
//!
//! Readers take no lock. A writer holds the lock from the moment it has seen that there is work until the generation
//! file is replaced; then it looks again, because another may have done the work meanwhile.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::extent::Extent;
use super::generation::{self, ExtentEntry, FileEntry, Generation};
use super::index_file::Home;
use super::merge::Merged;
use super::packed::remembered::Remembered;
use super::scan::{Part, ScanOptions, Span, compressed_spans, plain_spans, scan};
use super::snapshot::{Index, Snapshot, SnapshotRecord};
use super::walk::{Walk, walk};
use super::{Store, Watch};
use crate::bytes::decode::{Coding, Restart};
use crate::bytes::source::Source;
use crate::error::IndexError;
use crate::extract::Validate;
use crate::fhir::Instant;
use crate::limits::STORE_ROWS_MAX;

/// Containers at which an index run copies all live extents into one.
const CONTAINERS_MAX: usize = 24;
/// Times that a reader looks again when files vanish under it because a writer published a newer generation.
const ATTEMPTS: usize = 8;

/// What bringing the index up to date took.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Bytes of store files scanned.
    pub scanned_bytes: u64,
    /// Extents scanned.
    pub scanned_extents: usize,
    /// Extents kept.
    pub kept_extents: usize,
    /// Why extents that should have been there were scanned again.
    pub repaired: Vec<String>,
    /// Why the index is in memory only, if it is.
    pub in_memory: Option<String>,
}

/// What stands and what is to do, for the files as they are now.
struct Survey {
    generation: Generation,
    extents: HashMap<usize, Extent>,
    spans: Vec<Span>,
    /// `first_seen` that extents scanned again keep: (file, start, end, first seen).
    inherited: Vec<(usize, u64, u64, Option<i64>)>,
    changed: bool,
    repaired: Vec<String>,
}

/// The index of the store as it is now; with `as_of`, also noted as a snapshot's.
pub fn refresh(store: &Store, as_of: Option<&Instant>, watch: &Watch) -> Result<(Index, Work), IndexError> {
    let (home, in_memory) = match Home::directory(&store.index_dir()) {
        Ok(home) => (home, None),
        Err(error) => (Home::memory(), Some(format!("{}: {error}", store.index_dir().display()))),
    };
    let mut work = Work { in_memory, ..Work::default() };
    let mut last_reason = "it changed under every attempt to read it";
    for _ in 0..ATTEMPTS {
        let (walked, sources) = open_files(store)?;
        let known = load(&home);
        let survey = survey(&walked, &sources, known, &home, store.options().validate)?;
        let mut noted = survey.generation.clone();
        let unseen = as_of.is_some_and(|as_of| noted.seen(as_of));
        if !survey.changed && !unseen {
            match open_merged(&home, &survey.generation, &survey.extents) {
                Ok((list, merged)) => {
                    work.kept_extents = list.len();
                    let index = Index::new(survey.generation, list, merged, sources, &walked, home.is_durable());
                    return Ok((index, work));
                }
                Err(_) if load(&home).is_none_or(|now| now.merged != noted.merged) => continue,
                Err(_) => {}
            }
        }
        let lock = home
            .lock(&mut || watch.waiting.store(true, Relaxed))
            .map_err(|source| IndexError::Write { name: "lock".into(), source })?;
        watch.waiting.store(false, Relaxed);
        // Another writer may have been here while this one waited.
        let known = load(&home);
        let survey = self::survey(&walked, &sources, known, &home, store.options().validate)?;
        let (mut generation, extents) = build(&home, survey, &sources, watch, store, &mut work)?;
        if let Some(as_of) = as_of {
            generation.seen(as_of);
        }
        let bytes = generation.to_bytes();
        home.replace(generation::FILE, &bytes)
            .map_err(|source| IndexError::Write { name: generation::FILE.into(), source })?;
        let mut live: Vec<&str> = generation.containers.iter().map(String::as_str).collect();
        live.extend([generation.merged.as_str(), generation::FILE]);
        home.keep_only(&live);
        match open_merged(&home, &generation, &extents) {
            Ok((list, merged)) => {
                drop(lock);
                return Ok((Index::new(generation, list, merged, sources, &walked, home.is_durable()), work));
            }
            Err(reason) => last_reason = reason,
        }
    }
    Err(IndexError::ReadBack { name: store.index_dir().display().to_string(), reason: last_reason })
}

/// The snapshot of a record: from the index if it still has the extents, else from the store's bytes.
pub fn again(store: &Store, record: &SnapshotRecord, watch: &Watch) -> Result<(Snapshot, Work), IndexError> {
    let (index, mut work) = refresh(store, None, watch)?;
    if let Some(snapshot) = Snapshot::of_record(index, record) {
        return Ok((snapshot, work));
    }
    // The index was lost or cut anew: scan exactly the recorded spans, in memory.
    let (walked, sources) = open_files(store)?;
    let home = Home::memory();
    let mut spans = Vec::new();
    for extent in &record.extents {
        let file = walked.files.iter().position(|found| found.name == extent.file);
        let Some(file) = file else {
            return Err(gone(store, &extent.file, "is no longer there; put it back, or begin anew with --force"));
        };
        match walked.files[file].coding {
            Coding::Plain if extent.end > sources[file].len() => {
                let reason = "is shorter than it was when the export began; put it back, or begin anew with --force";
                return Err(gone(store, &extent.file, reason));
            }
            Coding::Plain => {
                spans.push(Span { file, part: Part::Plain { range: extent.start..extent.end, tail: extent.tail } })
            }
            coding => {
                if !spans.iter().any(|span: &Span| span.file == file) {
                    spans.extend(compressed_spans(file, coding, &sources[file])?);
                }
            }
        }
    }
    let survey = Survey {
        generation: Generation { files: entries(&walked, &sources)?, ..Generation::empty(record.validate) },
        extents: HashMap::new(),
        spans,
        inherited: Vec::new(),
        changed: true,
        repaired: Vec::new(),
    };
    let (generation, extents) = build(&home, survey, &sources, watch, store, &mut work)?;
    let (list, merged) = open_merged(&home, &generation, &extents)
        .map_err(|reason| IndexError::ReadBack { name: "in memory".into(), reason })?;
    let index = Index::new(generation, list, merged, sources, &walked, false);
    let Some(snapshot) = Snapshot::of_record(index, record) else {
        let reason = "no longer holds the bytes that the interrupted export began with; begin anew with --force";
        let file = record.extents.first().map_or("", |extent| extent.file.as_str());
        return Err(gone(store, file, reason));
    };
    Ok((snapshot, work))
}

fn gone(store: &Store, name: &str, reason: &str) -> IndexError {
    IndexError::Changed { path: store.root().join(name), reason: reason.to_string() }
}

fn open_files(store: &Store) -> Result<(Walk, Vec<Source>), IndexError> {
    let walked = walk(store.root()).map_err(|(path, source)| IndexError::Read { path, source })?;
    let open = |found: &super::walk::Found| {
        let path: PathBuf = store.root().join(&found.name);
        Source::open(path, store.options().access)
    };
    let sources = walked.files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    Ok((walked, sources))
}

fn load(home: &Home) -> Option<Generation> {
    Generation::from_bytes(&home.read(generation::FILE).ok()?)
}

fn entries(walked: &Walk, sources: &[Source]) -> Result<Vec<FileEntry>, IndexError> {
    let entry = |(found, source): (&super::walk::Found, &Source)| {
        Ok(FileEntry {
            name: found.name.clone(),
            stamp: source.stamp(),
            samples: source.samples(source.len())?,
            appendable: true,
        })
    };
    walked.files.iter().zip(sources).map(entry).collect()
}

/// Compares the files with what the index knows of them.
fn survey(
    walked: &Walk,
    sources: &[Source],
    known: Option<Generation>,
    home: &Home,
    wanted: Option<Validate>,
) -> Result<Survey, IndexError> {
    let mut known = known.unwrap_or_else(|| Generation::empty(wanted.unwrap_or(Validate::Full)));
    let mut repaired = Vec::new();
    if wanted == Some(Validate::Full) && known.validate == Validate::Structure {
        // What was checked less is scanned again; what the index remembers of snapshots stays.
        repaired.push("the index was made with --validate structure".to_string());
        known.extents.iter_mut().for_each(|extent| extent.at = u64::MAX);
        known.validate = Validate::Full;
    }
    let mut containers = HashMap::new();
    let mut generation = Generation { files: Vec::new(), extents: Vec::new(), ..known.clone() };
    let mut survey_extents = HashMap::new();
    let (mut spans, mut inherited) = (Vec::new(), Vec::new());
    let mut changed = known.merged.is_empty() || known.files.len() != walked.files.len();
    for (file, (found, source)) in walked.files.iter().zip(sources).enumerate() {
        let old = known.files.binary_search_by(|entry| entry.name.as_bytes().cmp(found.name.as_bytes())).ok();
        let same_stamp = old.is_some_and(|old| known.files[old].stamp == source.stamp());
        let standing = match old.map(|old| &known.files[old]) {
            Some(entry) if same_stamp => Some(entry),
            Some(entry)
                if source.len() >= entry.stamp.len
                    && (entry.appendable || source.len() == entry.stamp.len)
                    && source.samples(entry.stamp.len)? == entry.samples =>
            {
                changed = true;
                Some(entry)
            }
            _ => None,
        };
        let samples = match standing {
            Some(entry) if same_stamp => entry.samples,
            _ => source.samples(source.len())?,
        };
        let appendable = standing.is_none_or(|entry| entry.appendable);
        generation.files.push(FileEntry { name: found.name.clone(), stamp: source.stamp(), samples, appendable });
        let Some((old, entry)) = old.zip(standing) else {
            changed = true;
            spans.extend(whole_file(file, found.coding, source)?);
            continue;
        };
        let grown = source.len() > entry.stamp.len;
        let mut end = 0;
        let mut damaged = None;
        for extent in known.extents.iter().filter(|extent| extent.file == old) {
            // The last line without its newline stands only while nothing but a newline follows it.
            if extent.tail && grown && byte_at(source, extent.end)? != Some(b'\n') {
                break;
            }
            end = if extent.tail && grown { extent.end + 1 } else { extent.end };
            match open_extent(&mut containers, home, &known, extent) {
                Ok(open) => {
                    let key = generation.extents.len();
                    generation.extents.push(ExtentEntry { file, ..extent.clone() });
                    survey_extents.insert(key, open);
                }
                Err(reason) => {
                    damaged = Some(reason);
                    inherited.push((file, extent.start, extent.end, extent.first_seen));
                    if found.coding == Coding::Plain {
                        let part = Part::Plain { range: extent.start..extent.end, tail: extent.tail };
                        spans.push(Span { file, part });
                    }
                }
            }
        }
        if let Some(reason) = damaged {
            changed = true;
            repaired.push(format!("{}: an extent of the index is damaged: {reason}", found.name));
            if found.coding != Coding::Plain {
                // A compressed file is decoded from its start; its other extents go, too.
                let first = generation.extents.partition_point(|extent| extent.file < file);
                for (at, extent) in generation.extents.iter().enumerate().skip(first) {
                    inherited.push((file, extent.start, extent.end, extent.first_seen));
                    survey_extents.remove(&at);
                }
                generation.extents.truncate(first);
                spans.extend(whole_file(file, found.coding, source)?);
                continue;
            }
        }
        match found.coding {
            Coding::Plain if source.len() > end => spans.extend(plain_spans(file, source, end..source.len())?),
            Coding::Plain => {}
            coding if grown => {
                let from = Restart { compressed: entry.stamp.len, uncompressed: end };
                spans.push(Span { file, part: Part::Compressed { coding, from } });
            }
            _ => {}
        }
    }
    changed |= !spans.is_empty();
    if !changed && !home.open(&known.merged).is_ok_and(|merged| !merged.is_empty()) {
        changed = true;
        repaired.push("the merged file of the index is gone".to_string());
    }
    Ok(Survey { generation, extents: survey_extents, spans, inherited, changed, repaired })
}

fn byte_at(source: &Source, at: u64) -> Result<Option<u8>, IndexError> {
    if at >= source.len() {
        return Ok(None);
    }
    Ok(source.read(at, 1, &mut Vec::new())?.first().copied())
}

fn whole_file(file: usize, coding: Coding, source: &Source) -> Result<Vec<Span>, IndexError> {
    match coding {
        Coding::Plain => Ok(plain_spans(file, source, 0..source.len())?),
        coding => Ok(compressed_spans(file, coding, source)?),
    }
}

type Containers = HashMap<usize, Result<Arc<super::index_file::IndexBytes>, &'static str>>;

fn open_extent(
    containers: &mut Containers,
    home: &Home,
    generation: &Generation,
    entry: &ExtentEntry,
) -> Result<Extent, &'static str> {
    if entry.at == u64::MAX {
        return Err("it is to be scanned again");
    }
    let bytes = containers.entry(entry.container).or_insert_with(|| {
        let name = &generation.containers[entry.container];
        home.open(name).map(Arc::new).map_err(|_| "its file cannot be opened")
    });
    let extent = Extent::open(bytes.clone()?, entry.at)?;
    let head = extent.head();
    match (head.start, head.end, head.content) == (entry.start, entry.end, entry.content) {
        true => Ok(extent),
        false => Err("it is of other bytes"),
    }
}

/// Scans, assembles and merges what a survey asks for.
fn build(
    home: &Home,
    survey: Survey,
    sources: &[Source],
    watch: &Watch,
    store: &Store,
    work: &mut Work,
) -> Result<(Generation, HashMap<usize, Extent>), IndexError> {
    let Survey { mut generation, mut extents, spans, inherited, changed, repaired } = survey;
    work.repaired.extend(repaired);
    work.kept_extents = extents.len();
    if !changed && open_merged(home, &generation, &extents).is_ok() {
        return Ok((generation, extents));
    }
    generation.sequence += 1;
    if !spans.is_empty() {
        let bytes = spans.iter().map(|span| span.part.file_bytes(&sources[span.file]));
        watch.scan_total.fetch_add(bytes.sum(), Relaxed);
        let options = ScanOptions {
            kernel: store.options().kernel,
            validate: generation.validate,
            progress: &watch.scan_done,
            cancel: &watch.cancel,
        };
        let name = format!("extents-{:012}", generation.sequence);
        let scanned = scan(sources, &spans, home, &name, &options)?;
        work.scanned_bytes += watch.scan_done.load(Relaxed);
        work.scanned_extents += scanned.extents.len();
        for file in scanned.open_ended {
            generation.files[file].appendable = false;
        }
        let remembered = Remembered::of(&spans, &generation);
        remembered.note(&mut generation);
        let container = generation.containers.len();
        generation.containers.push(name.clone());
        let bytes = Arc::new(home.open(&name).map_err(|source| IndexError::Write { name: name.clone(), source })?);
        let mut all: Vec<(ExtentEntry, Option<Extent>)> =
            generation.extents.drain(..).enumerate().map(|(at, entry)| (entry, extents.remove(&at))).collect();
        for new in scanned.extents {
            let read_back = |reason| IndexError::ReadBack { name: name.clone(), reason };
            let extent = Extent::open(bytes.clone(), new.at).map_err(read_back)?;
            // What was scanned again was seen when the latest of the extents in its place was.
            let first_seen = inherited
                .iter()
                .filter(|(file, start, end, _)| *file == new.file && *start < new.end && new.start < *end)
                .map(|(.., first_seen)| *first_seen)
                .reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))
                .flatten()
                .or_else(|| remembered.first_seen(new.file));
            let (file, at, start, end, content, tail) = (new.file, new.at, new.start, new.end, new.content, new.tail);
            let entry = ExtentEntry { file, container, at, start, end, content, tail, first_seen };
            all.push((entry, Some(extent)));
        }
        all.sort_by_key(|(entry, _)| (entry.file, entry.start));
        for (at, (entry, extent)) in all.into_iter().enumerate() {
            generation.extents.push(entry);
            extents.extend(extent.map(|extent| (at, extent)));
        }
    }
    gather_containers(home, &mut generation, &mut extents)?;
    let list: Vec<Extent> = (0..generation.extents.len()).map(|at| extents[&at].clone()).collect();
    let rows: u64 = list.iter().map(|extent| (extent.rows() + extent.tombstones()) as u64).sum();
    if rows > STORE_ROWS_MAX {
        return Err(IndexError::TooManyRows { max: STORE_ROWS_MAX });
    }
    watch.merging.store(true, Relaxed);
    generation.merged = format!("merged-{:012}", generation.sequence);
    let merged = Merged::build(&list, home, &generation.merged);
    watch.merging.store(false, Relaxed);
    merged.map_err(|source| IndexError::Write { name: generation.merged.clone(), source })?;
    Ok((generation, extents))
}

/// Drops containers that no extent lies in, and copies all extents into one when there are many.
fn gather_containers(
    home: &Home,
    generation: &mut Generation,
    extents: &mut HashMap<usize, Extent>,
) -> Result<(), IndexError> {
    let mut used: Vec<usize> = generation.extents.iter().map(|extent| extent.container).collect();
    used.sort_unstable();
    used.dedup();
    if used.len() <= CONTAINERS_MAX {
        generation.containers = used.iter().map(|at| generation.containers[*at].clone()).collect();
        for extent in &mut generation.extents {
            extent.container = used.binary_search(&extent.container).expect("collected above");
        }
        return Ok(());
    }
    let name = format!("extents-{:012}-all", generation.sequence);
    let failed = |source| IndexError::Write { name: name.clone(), source };
    let mut file = std::io::BufWriter::with_capacity(1 << 20, home.create(&name).map_err(failed)?);
    let mut at = 0;
    for (number, entry) in generation.extents.iter_mut().enumerate() {
        let bytes = extents[&number].bytes();
        std::io::Write::write_all(&mut file, bytes).map_err(failed)?;
        (entry.container, entry.at) = (0, at);
        at += bytes.len() as u64;
    }
    std::io::Write::flush(&mut file).map_err(failed)?;
    let bytes = Arc::new(home.open(&name).map_err(failed)?);
    for (number, entry) in generation.extents.iter().enumerate() {
        let read_back = |reason| IndexError::ReadBack { name: name.clone(), reason };
        extents.insert(number, Extent::open(bytes.clone(), entry.at).map_err(read_back)?);
    }
    generation.containers = vec![name];
    Ok(())
}

/// The extents in store order, and what was merged over them.
fn open_merged(
    home: &Home,
    generation: &Generation,
    extents: &HashMap<usize, Extent>,
) -> Result<(Vec<Extent>, Merged), &'static str> {
    let list: Vec<Extent> = (0..generation.extents.len()).map(|at| extents[&at].clone()).collect();
    let merged = Merged::open(&list, home, &generation.merged)?;
    Ok((list, merged))
}
