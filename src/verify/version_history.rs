//! Version history: every row and deletion of the bytes that an export saw, ordered by resource and time.
//!
//! Built in one pass over the store, by the reference implementation of the scanner; no index is read. Names are kept
//! as hashes of 128 bits.

use crate::codec::compression::Compression;
use crate::error::IndexError;
use crate::extract::rules::LineRules;
use crate::fhir::instant::{Instant, NO_INSTANT};
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::hash::{Hasher128, xxh3_64};
use crate::ids::EntryId;
use crate::index::snapshot_record::SnapshotRecord;
use crate::limits::LINE_HELD_MAX;
use crate::progress::{Phase, Progress};
use crate::store::choices::links_of;
use crate::store::file_name::path_of;
use crate::store::packed::seek_table::{FOLLOWED, LATE, PriorOwnerRecord, SeekTable};
use crate::sys::access::Access;
use crate::sys::store_file::StoreFile;
use crate::verify::VerifyError;
use crate::verify::context_facts::ContextFacts;
use crate::verify::json_tree::{Json, JsonTree, WantedNames, without_lone_surrogates};
use crate::verify::line_reader::{Body, CutLine};
use crate::verify::oracle_line::{OracleLine, OracleRow};
use crate::verify::output_file::entity;
use crate::verify::prior_owners::PriorOwners;
use crate::verify::reduced_line::reduced_line;
use crate::verify::request::RecordedRequest;
use crate::verify::rewritten_line::has_attachments;
use crate::verify::segment_lines::{self, SegmentLines};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;

/// Whether an observer knows a version; the argument says whether the version arrived late.
pub(crate) type KnownVersion<'a> = &'a dyn Fn(bool) -> bool;

/// One version of a resource: one row of the store.
pub(crate) struct ResourceVersion {
    /// Hash of type and id.
    pub entity: u128,
    /// Type of the resource.
    pub resource_type: ResourceType,
    /// The lastUpdated; `None` if it is missing or illegal.
    pub updated: Option<Instant>,
    /// Numeric version id as (number of digits, digits), which orders as the number does.
    version: Option<(usize, Box<str>)>,
    /// Hashes of the patients of the store's own bases whose compartment it is in by itself.
    pub owners: Box<[u128]>,
    /// Hashes of the targets of a Provenance under the store's own bases.
    pub targets: Box<[u128]>,
    /// What it refers to beside patients, where context is asked for.
    pub context: ContextFacts,
    /// Hashes of the business identifiers of a Patient.
    pub identifiers: Box<[u128]>,
    /// Number of its segment in the record.
    segment: usize,
    /// Offset of its line in the uncompressed file, and length.
    place: (u64, u64),
    /// Whether it arrived late: its segment was first seen after `_since`.
    pub late: bool,
    /// Hash (xxh3, 64 bits) of its line as an export writes it, but for what [`ResourceVersion::is_pending`] says.
    pub line: u64,
    /// Whether its line has URLs of attachments, or is changed by an export and is too long to be held: `line` is of the line
    /// in the store, and what an export writes is found once it is known to be exported.
    pub is_pending: bool,
}

/// A deletion with an instant, of a resource under the store's own bases.
#[derive(Clone)]
pub(crate) struct Deletion {
    /// Hash of type and id.
    pub entity: u128,
    /// Type of the resource.
    pub resource_type: ResourceType,
    /// Its instant.
    pub updated: Instant,
    /// Whether its segment was first seen after `_since`.
    pub late: bool,
    /// What the table of a packed file records of the version that it ended.
    pub recorded: RecordedEnd,
}

/// What the table of a packed file records of the version that a deletion ended.
#[derive(Clone)]
pub(crate) enum RecordedEnd {
    /// Nothing.
    Nothing,
    /// That a later version followed.
    Followed,
    /// The version's lastUpdated in ticks, and hashes of its owners under the store's own bases.
    Version(i64, Box<[u128]>),
}

/// A version that a pack dropped, as the table of the packed file records it with the deletion that ended it.
pub(crate) struct DepartedVersion {
    entity: u128,
    /// Its lastUpdated in ticks; [`NO_INSTANT`] if it had none.
    pub updated: i64,
    /// Hashes of the patients of the store's own bases whose compartment it was in.
    pub owners: Box<[u128]>,
    late: bool,
}

/// Last version of a resource.
pub(crate) enum LastState<'a> {
    /// Its index in [`VersionHistory::versions`].
    Version(usize),
    /// A pack dropped it.
    Departed(&'a DepartedVersion),
}

/// History of all resources of the store, and counts of all lines.
#[derive(Default)]
pub(crate) struct VersionHistory {
    /// All versions in store order.
    pub versions: Vec<ResourceVersion>,
    /// Indexes of the versions, sorted by resource, then from the oldest to the latest.
    order: Vec<u32>,
    /// Deletions, sorted by resource and instant.
    pub deletions: Vec<Deletion>,
    /// Versions that packs dropped, sorted by resource and instant.
    departed: Vec<DepartedVersion>,
    /// Number of lines in all files.
    pub lines: u64,
    /// Number of blank lines.
    pub blank: u64,
    /// Number of faulty lines.
    pub faulty: u64,
    /// Number of those that are whole JSON objects without a type.
    untyped: u64,
    /// Number of lines of files without FHIR, which are not counted as faulty.
    pub not_fhir: u64,
    /// Number of lines of deletions.
    pub tombstones: u64,
    /// Lines too long to be held, which only the scanner has read.
    pub long: u64,
    /// Store files of the record.
    files: Vec<(StoreFile, Compression)>,
    /// File of each segment, as an index into `files`.
    file_of: Vec<usize>,
}

impl VersionHistory {
    /// Reads exactly the bytes that a record names.
    ///
    /// # Errors
    /// [`IndexError::Changed`] if the store no longer holds those bytes; errors of reading it;
    /// [`VerifyError::Cancelled`].
    pub(crate) fn read(
        root: &Path,
        record: &SnapshotRecord,
        recorded: &RecordedRequest,
        access: Access,
        progress: &Progress,
    ) -> Result<VersionHistory, VerifyError> {
        // 1. Open the files of the record.
        let mut files: Vec<(StoreFile, Compression)> = Vec::new();
        let mut segments: Vec<(usize, Compression)> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        let count = record.segments.chunk_by(|one, next| one.file == next.file).count();
        for segment in &record.segments {
            if names.last() != Some(&segment.file.as_str()) {
                let Some(named) = Compression::of_file_name(&segment.file) else {
                    return Err(changed_error(root, &segment.file));
                };
                let path = root.join(path_of(&segment.file));
                let links = links_of(record.follow_symlinks);
                let source = StoreFile::open_one_of_many(&path, access, links, true, None)
                    .map_err(|error| error.of_store(count))?;
                files.push((source, segment.compression.unwrap_or(named)));
                names.push(&segment.file);
            }
            segments.push((files.len() - 1, files[files.len() - 1].1));
        }
        progress.begin(Phase::Checking);
        progress.scan_total.store(files.iter().map(|(source, _)| source.len()).sum(), Relaxed);
        progress.scan_done.store(0, Relaxed);
        // 2. Read their segments in parallel; the hash of each must be the recorded one.
        let parts: Vec<VersionHistory> = segment_lines::tasks(&segments)
            .into_par_iter()
            .map(|task| {
                let recorded_segments = &record.segments[task.clone()];
                let ranges: Vec<SegmentLines> = recorded_segments
                    .iter()
                    .map(|segment| SegmentLines { start: segment.start, end: segment.end })
                    .collect();
                let mut rows = vec![0; recorded_segments.len()];
                // DELETE entries of each segment so far, those that the history has no deletion for included.
                let mut entries = vec![0; recorded_segments.len()];
                // The segment of each deletion of the history, and its DELETE entry there.
                let mut deletions: Vec<(usize, EntryId)> = Vec::new();
                let (source, compression) = &files[segments[task.start].0];
                let mut part = VersionHistory::default();
                let table = match compression {
                    Compression::None => None,
                    Compression::Gzip | Compression::Zstd => SeekTable::open(source).ok().flatten(),
                };
                let mut prior_owners = PriorOwners::new(table.as_ref());
                let mut on_line = |number: usize, cut: CutLine<'_>| {
                    let time = recorded_segments[number].first_seen_of(rows[number]);
                    let late = is_late(time, record.birth, recorded);
                    let birth = (recorded, record.birth, record.rules.rules());
                    let mut entry = |is_kept: bool| {
                        if is_kept {
                            deletions.push((number, EntryId::of(entries[number])));
                        }
                        entries[number] += 1;
                    };
                    let is_row = part.push_line(cut, task.start + number, late, birth, &mut prior_owners, &mut entry);
                    rows[number] += usize::from(is_row);
                };
                let by = (*compression, record.unproven, record.rules.rules());
                let hashes = segment_lines::read(source, by, &ranges, progress, &mut on_line)?;
                // Their first-seen times count behind the last row of the segment.
                for (deletion, (number, entry)) in part.deletions.iter_mut().zip(deletions) {
                    let time = recorded_segments[number].first_seen_of_entry(rows[number], entry);
                    deletion.late = is_late(time, record.birth, recorded);
                }
                match recorded_segments.iter().map(|segment| segment.content).eq(hashes) {
                    true => Ok(part),
                    false => Err(changed_error(root, &recorded_segments[0].file)),
                }
            })
            .collect::<Result<_, _>>()?;
        // 3. Join the parts in store order, and sort.
        let mut history = VersionHistory {
            files,
            file_of: segments.iter().map(|(file, _)| *file).collect(),
            ..VersionHistory::default()
        };
        let mut counts = vec![(0, 0); history.files.len()];
        for (task, part) in segment_lines::tasks(&segments).into_iter().zip(parts) {
            let (others, untyped) = &mut counts[segments[task.start].0];
            *others += part.lines - part.blank - part.untyped;
            *untyped += part.untyped;
            history.versions.extend(part.versions);
            history.deletions.extend(part.deletions);
            history.departed.extend(part.departed);
            history.lines += part.lines;
            history.blank += part.blank;
            history.faulty += part.faulty;
            history.tombstones += part.tombstones;
            history.long += part.long;
        }
        // A file of nothing but untyped lines holds no FHIR.
        history.not_fhir = counts.iter().filter(|(others, _)| *others == 0).map(|(_, untyped)| untyped).sum();
        history.faulty -= history.not_fhir;
        history.sort();
        Ok(history)
    }

    /// Adds a line of segment number `segment` to the history; whether it is a row, which is late if `late` is set. Calls
    /// `entry` for each DELETE entry, with whether the history has a deletion for it; the caller knows which are late.
    fn push_line(
        &mut self,
        cut: CutLine<'_>,
        segment: usize,
        late: bool,
        (recorded, birth, rules): (&RecordedRequest, Option<i64>, LineRules),
        prior_owners: &mut PriorOwners<'_>,
        entry: &mut dyn FnMut(bool),
    ) -> bool {
        self.lines += 1;
        let (line, length, hash, held) = match cut.body {
            Body::Whole(bytes) => {
                let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
                (OracleLine::read(bytes, rules), bytes.len() as u64, xxh3_64(bytes), bytes)
            }
            Body::Long(length, hash, line) => {
                self.long += 1;
                (line, length, hash, &[][..])
            }
            Body::Broken(_) => (OracleLine::Faulty, 0, 0, &[][..]),
        };
        match line {
            OracleLine::Blank => self.blank += 1,
            OracleLine::Faulty => self.faulty += 1,
            OracleLine::Untyped => {
                self.faulty += 1;
                self.untyped += 1;
            }
            OracleLine::Deletions(updated, urls) => {
                self.tombstones += 1;
                for target in urls.iter().filter_map(|url| Reference::parse(url)) {
                    let records = prior_owners.next(cut.offset);
                    // A deletion without an instant ends nothing (reading 9).
                    let kept = updated.clone().filter(|_| recorded.is_ours(target.base));
                    entry(kept.is_some());
                    let Some(updated) = kept else { continue };
                    let entity = entity(target.resource_type.name(), target.id);
                    let departed = departed_version(entity, records, prior_owners, recorded, birth);
                    let end = match &departed {
                        _ if records.is_empty() => RecordedEnd::Nothing,
                        None => RecordedEnd::Followed,
                        Some(version) => RecordedEnd::Version(version.updated, version.owners.clone()),
                    };
                    self.deletions.push(Deletion {
                        entity,
                        resource_type: target.resource_type,
                        updated,
                        late: false,
                        recorded: end,
                    });
                    self.departed.extend(departed);
                }
            }
            OracleLine::Row(row) => {
                let place = (cut.offset, length);
                let is_pending = match length > LINE_HELD_MAX as u64 {
                    true => recorded.attachments.is_some() || recorded.elements.reduces(row.resource_type),
                    false => recorded.attachments.is_some() && has_attachments(held),
                };
                let reduced = reduced_line(held, row.resource_type, &recorded.elements).filter(|_| !is_pending);
                let hash = reduced.map_or(hash, |line| xxh3_64(&line));
                let context = ContextFacts::read(&row, held, recorded, rules.ids);
                let version = resource_version(&row, held, segment, place, late, hash, recorded);
                self.versions.push(ResourceVersion { context, is_pending, ..version });
                return true;
            }
        }
        false
    }

    /// Sorts versions, deletions and departed versions by resource.
    fn sort(&mut self) {
        let versions = &self.versions;
        let mut order: Vec<u32> = (0..versions.len() as u32).collect();
        order.par_sort_unstable_by(|a, b| {
            let (one, other) = (&versions[*a as usize], &versions[*b as usize]);
            (one.entity, &one.updated, &one.version, a).cmp(&(other.entity, &other.updated, &other.version, b))
        });
        self.order = order;
        self.deletions.par_sort_by(|a, b| (a.entity, &a.updated).cmp(&(b.entity, &b.updated)));
        self.departed.sort_by_key(|version| (version.entity, version.updated));
    }

    /// Indexes of the versions of a resource, the oldest first.
    fn versions_of(&self, entity: u128) -> &[u32] {
        let entity_of = |i: &u32| self.versions[*i as usize].entity;
        let first = self.order.partition_point(|i| entity_of(i) < entity);
        let after = self.order.partition_point(|i| entity_of(i) <= entity);
        &self.order[first..after]
    }

    /// Index of the last known version of a resource at an instant, whether or not a deletion follows it; `None` if
    /// there is no such version.
    pub(crate) fn last_version(&self, entity: u128, instant: &Instant, known: KnownVersion) -> Option<usize> {
        let is_visible = |version: &ResourceVersion| {
            version.updated.as_ref().is_none_or(|updated| updated <= instant) && known(version.late)
        };
        self.versions_of(entity).iter().map(|i| *i as usize).rfind(|i| is_visible(&self.versions[*i]))
    }

    /// As [`VersionHistory::last_version`], with versions that packs dropped: the younger of the two.
    pub(crate) fn last(&self, entity: u128, instant: &Instant, known: KnownVersion) -> Option<LastState<'_>> {
        let version = self.last_version(entity, instant, known);
        let ticks = |i: usize| self.versions[i].updated.as_ref().map_or(NO_INSTANT, |updated| updated.ticks);
        let first = self.departed.partition_point(|departed| departed.entity < entity);
        let of_entity = self.departed[first..].iter().take_while(|departed| departed.entity == entity);
        let last = of_entity.filter(|departed| departed.updated <= instant.ticks && known(departed.late)).last();
        match last.filter(|departed| version.is_none_or(|version| ticks(version) < departed.updated)) {
            Some(departed) => Some(LastState::Departed(departed)),
            None => version.map(LastState::Version),
        }
    }

    /// The youngest version of a resource at or before an instant that packs dropped.
    pub(crate) fn last_departed(&self, entity: u128, instant: &Instant) -> Option<&DepartedVersion> {
        let first = self.departed.partition_point(|departed| departed.entity < entity);
        let of_entity = self.departed[first..].iter().take_while(|departed| departed.entity == entity);
        of_entity.filter(|departed| departed.updated <= instant.ticks).last()
    }

    /// Whether the store has any version of a resource.
    pub(crate) fn has_version(&self, entity: u128) -> bool {
        !self.versions_of(entity).is_empty()
    }

    /// Whether a deletion of the resource at or before an instant is later than a version.
    pub(crate) fn is_deleted(&self, version: &ResourceVersion, instant: &Instant) -> bool {
        let first = self.deletions.partition_point(|deletion| deletion.entity < version.entity);
        let of_entity = self.deletions[first..].iter().take_while(|deletion| deletion.entity == version.entity);
        let later = |deletion: &Deletion| version.updated.as_ref().is_none_or(|updated| deletion.updated > *updated);
        of_entity.into_iter().any(|deletion| deletion.updated <= *instant && later(deletion))
    }

    /// Index of the version that is current at an instant; `None` if the resource does not exist or is deleted then.
    pub(crate) fn current(&self, entity: u128, instant: &Instant) -> Option<usize> {
        let last = self.last_version(entity, instant, &|_late| true)?;
        (!self.is_deleted(&self.versions[last], instant)).then_some(last)
    }

    /// The versions of a resource that an export at an instant may hold, and that it may not: indexes, the oldest first; none
    /// if the resource does not exist or is deleted then.
    pub(crate) fn kept_versions(&self, entity: u128, instant: &Instant) -> Vec<usize> {
        let is_past = |i: &usize| self.versions[*i].updated.as_ref().is_none_or(|updated| updated <= instant);
        match self.current(entity, instant) {
            Some(_) => self.versions_of(entity).iter().map(|i| *i as usize).filter(is_past).collect(),
            None => Vec::new(),
        }
    }

    /// The versionId of a version if it is a number, without zeros before it.
    pub(crate) fn numbered(&self, version: usize) -> Option<&str> {
        self.versions[version].version.as_ref().map(|(_, digits)| if digits.is_empty() { "0" } else { digits })
    }

    /// Bytes of a version's line, without its line end.
    ///
    /// # Errors
    /// [`VerifyError`] if they cannot be read again.
    pub(crate) fn bytes(&self, version: usize) -> Result<Vec<u8>, VerifyError> {
        let mut bytes = Vec::with_capacity(self.length(version) as usize);
        self.stream(version, u64::MAX, &mut |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    /// Length of a version's line, without its line end.
    pub(crate) fn length(&self, version: usize) -> u64 {
        self.versions[version].place.1
    }

    /// Passes the bytes of a version's line, up to a length and without its line end, to `feed`, in pieces.
    ///
    /// # Errors
    /// [`VerifyError`] if they cannot be read again.
    pub(crate) fn stream(&self, version: usize, most: u64, feed: &mut dyn FnMut(&[u8])) -> Result<(), VerifyError> {
        let ResourceVersion { segment, place: (start, length), .. } = self.versions[version];
        let (source, compression) = &self.files[self.file_of[segment]];
        let range = SegmentLines { start, end: start + length.min(most) };
        segment_lines::bytes(source, *compression, range, &Progress::default(), feed)
    }
}

/// The version that a row is. `held` are the bytes of its line, empty if it is too long to be held.
fn resource_version(
    row: &OracleRow,
    held: &[u8],
    segment: usize,
    place: (u64, u64),
    late: bool,
    line: u64,
    recorded: &RecordedRequest,
) -> ResourceVersion {
    let owners = row.owners().into_iter().filter(|(base, _)| recorded.is_ours(base));
    let targets = row.targets().into_iter().filter(|(base, ..)| recorded.is_ours(base));
    let mut owners: Vec<u128> = owners.map(|(_, id)| entity("Patient", id.as_str())).collect();
    owners.dedup();
    ResourceVersion {
        entity: entity(row.resource_type.name(), row.id.as_str()),
        resource_type: row.resource_type,
        updated: row.updated.clone(),
        version: row.version.as_deref().map(|digits| (digits.len(), digits.into())),
        owners: owners.into(),
        targets: targets.map(|(_, of_type, id)| entity(of_type.name(), id.as_str())).collect(),
        context: ContextFacts::default(),
        identifiers: if row.resource_type == ResourceType::PATIENT { identifiers(held) } else { Box::default() },
        segment,
        place,
        late,
        line,
        is_pending: false,
    }
}

/// Hash of a business identifier, by which the version history knows a Patient's; `system` is empty if it has none.
pub(crate) fn identifier(system: &str, value: &str) -> u128 {
    let mut hash = Hasher128::new();
    hash.update(&(system.len() as u64).to_le_bytes());
    hash.update(system.as_bytes());
    hash.update(value.as_bytes());
    hash.digest()
}

/// Hashes of the identifiers of a Patient's line that have a value.
fn identifiers(line: &[u8]) -> Box<[u128]> {
    let text = without_lone_surrogates(str::from_utf8(line).unwrap_or_default());
    let want = WantedNames::of(&["identifier.system", "identifier.value"]);
    let Some(tree) = JsonTree::read(&text, &want) else { return Box::default() };
    let one = |found: &Json| {
        let found = JsonTree::of(found);
        let text = |key| found.leaves(key).last().and_then(Json::text);
        Some(identifier(text("system").unwrap_or(""), text("value")?))
    };
    tree.objects("identifier").into_iter().filter_map(one).collect()
}

/// The version that a deletion ended and a pack dropped, from the table's `records` of the DELETE entry; `None` if
/// there is none, or if a later version follows.
fn departed_version(
    entity: u128,
    records: &[PriorOwnerRecord],
    table: &PriorOwners<'_>,
    recorded: &RecordedRequest,
    birth: Option<i64>,
) -> Option<DepartedVersion> {
    let first = records.first().filter(|first| first.owner != FOLLOWED)?;
    let names = records.iter().filter_map(|record| table.name(record)).filter(|(base, _)| recorded.is_ours(base));
    let owners = names.map(|(_, id)| crate::verify::output_file::entity("Patient", id.as_str())).collect();
    let late = records.iter().any(|record| record.owner == LATE && is_late(Some(record.updated), birth, recorded));
    Some(DepartedVersion { entity, updated: first.updated, owners, late })
}

/// Whether rows of a segment arrived late: a snapshot after `_since` first saw it, and the index is older than that.
fn is_late(first_seen: Option<i64>, birth: Option<i64>, recorded: &RecordedRequest) -> bool {
    match (first_seen, birth, &recorded.since) {
        (Some(first), Some(birth), Some(since)) => first > since.ticks && first > birth,
        _ => false,
    }
}

/// [`IndexError::Changed`] for a store file.
fn changed_error(root: &Path, file: &str) -> VerifyError {
    let path: PathBuf = root.join(path_of(file));
    let reason = "no longer holds the bytes that were exported; a ledger can be recounted only from those".to_string();
    VerifyError::Index(IndexError::Changed { path, reason })
}
