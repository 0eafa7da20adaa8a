//! Every row and deletion of the bytes that an export saw, by resource: what was known of whom, and when.
//!
//! One pass over the store, by the twin of the scanner. Names are kept as hashes of 128 bits.

use crate::codec::compression::Compression;
use crate::error::IndexError;
use crate::fhir::instant::{Instant, NO_INSTANT};
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::hash::{Hasher128, xxh3_64};
use crate::index::snapshot::SnapshotRecord;
use crate::progress::Progress;
use crate::store::packed::seek_table::{FOLLOWED, LATE, PriorOwnerRecord, SeekTable};
use crate::sys::access::Access;
use crate::sys::store_file::StoreFile;
use crate::verify::VerifyError;
use crate::verify::json_tree::{Json, JsonTree, WantedNames, without_lone_surrogates};
use crate::verify::line_reader::{Body, CutLine};
use crate::verify::oracle_line::{OracleLine, OracleRow};
use crate::verify::output_file::entity;
use crate::verify::prior_owners::PriorOwners;
use crate::verify::request::RecordedRequest;
use crate::verify::segment_lines::{self, SegmentLines};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;

/// Which versions an observer knows of, by whether they are late.
pub(crate) type KnownVersion<'a> = &'a dyn Fn(bool) -> bool;

/// A version of a resource.
pub(crate) struct ResourceVersion {
    /// Hash of its type and id.
    pub entity: u128,
    /// Its type.
    pub resource_type: ResourceType,
    /// Its instant.
    pub updated: Option<Instant>,
    /// Digits of its version id: how many, and which, orders as the numbers do.
    version: Option<(usize, Box<str>)>,
    /// Hashes of the patients of ours that it belongs to by itself.
    pub owners: Box<[u128]>,
    /// Hashes of what it is about, if it is a Provenance: resources of ours.
    pub targets: Box<[u128]>,
    /// Hashes of its business identifiers, if it is a Patient.
    pub identifiers: Box<[u128]>,
    /// Number of its segment in the record.
    segment: usize,
    /// Where its line begins, and its length.
    place: (u64, u64),
    /// Whether it came to the store later than `_since`, and dates from before.
    pub late: bool,
    /// Hash of its line.
    pub line: u64,
}

/// A deletion with an instant, of a resource of ours.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deletion {
    entity: u128,
    updated: Instant,
}

/// A version that has left a packed store, as the deletion that ended it remembers it.
pub(crate) struct DepartedVersion {
    entity: u128,
    /// Its instant in ticks, the least for none.
    updated: i64,
    /// Hashes of the patients of ours that it belonged to.
    pub owners: Box<[u128]>,
    late: bool,
}

/// The last version of a resource.
pub(crate) enum LastState<'a> {
    /// Its place among the versions.
    Version(usize),
    /// It has left.
    Left(&'a DepartedVersion),
}

/// All of it.
#[derive(Default)]
pub(crate) struct VersionHistory {
    /// Versions in store order.
    pub versions: Vec<ResourceVersion>,
    /// Places of the versions, sorted by resource, then from the oldest to the latest.
    order: Vec<u32>,
    /// Deletions, sorted by resource.
    deletions: Vec<Deletion>,
    /// Versions that have left, sorted by resource and instant.
    left: Vec<DepartedVersion>,
    /// All lines.
    pub lines: u64,
    /// Blank lines.
    pub blank: u64,
    /// Faulty lines.
    pub faulty: u64,
    /// Lines of deletions.
    pub tombstones: u64,
    /// Lines that only the scanner has read.
    pub long: u64,
    files: Vec<(StoreFile, Compression)>,
    file_of: Vec<usize>,
}

impl VersionHistory {
    /// Reads exactly the bytes that a record names.
    ///
    /// # Errors
    /// When the store cannot be read, or no longer holds those bytes.
    pub(crate) fn read(
        root: &Path,
        record: &SnapshotRecord,
        recorded: &RecordedRequest,
        access: Access,
        progress: &Progress,
    ) -> Result<VersionHistory, VerifyError> {
        let mut files: Vec<(StoreFile, Compression)> = Vec::new();
        let mut segments: Vec<(usize, Compression)> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for segment in &record.segments {
            if names.last() != Some(&segment.file.as_str()) {
                let Some(compression) = Compression::of_file_name(&segment.file) else {
                    return Err(changed(root, &segment.file));
                };
                files.push((StoreFile::open(root.join(&segment.file), access)?, compression));
                names.push(&segment.file);
            }
            segments.push((files.len() - 1, files[files.len() - 1].1));
        }
        progress.scan_total.store(files.iter().map(|(source, _)| source.len()).sum(), Relaxed);
        progress.scan_done.store(0, Relaxed);
        let parts: Vec<VersionHistory> = segment_lines::tasks(&segments)
            .into_par_iter()
            .map(|task| {
                let own = &record.segments[task.clone()];
                let stretches: Vec<SegmentLines> =
                    own.iter().map(|segment| SegmentLines { start: segment.start, end: segment.end }).collect();
                let late: Vec<bool> =
                    own.iter().map(|segment| is_late(segment.first_seen, record.birth, recorded)).collect();
                let (source, compression) = &files[segments[task.start].0];
                let mut part = VersionHistory::default();
                let table = match compression {
                    Compression::Zstd => SeekTable::open(source).ok().flatten(),
                    _ => None,
                };
                let mut left = PriorOwners::new(table.as_ref());
                let mut on_line = |number: usize, cut: CutLine<'_>| {
                    part.push_line(cut, task.start + number, late[number], (recorded, record.birth), &mut left);
                };
                let hashes = segment_lines::read(source, *compression, &stretches, progress, &mut on_line)?;
                match own.iter().map(|segment| segment.content).eq(hashes) {
                    true => Ok(part),
                    false => Err(changed(root, &own[0].file)),
                }
            })
            .collect::<Result<_, _>>()?;
        let mut history = VersionHistory {
            files,
            file_of: segments.iter().map(|(file, _)| *file).collect(),
            ..VersionHistory::default()
        };
        for part in parts {
            history.versions.extend(part.versions);
            history.deletions.extend(part.deletions);
            history.left.extend(part.left);
            history.lines += part.lines;
            history.blank += part.blank;
            history.faulty += part.faulty;
            history.tombstones += part.tombstones;
            history.long += part.long;
        }
        history.sort();
        Ok(history)
    }

    fn push_line(
        &mut self,
        cut: CutLine<'_>,
        segment: usize,
        late: bool,
        (recorded, birth): (&RecordedRequest, Option<i64>),
        left: &mut PriorOwners<'_>,
    ) {
        self.lines += 1;
        let (line, length, hash, whole) = match cut.body {
            Body::Whole(bytes) => {
                let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
                (OracleLine::read(bytes), bytes.len() as u64, xxh3_64(bytes), bytes)
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
            OracleLine::Deletions(updated, urls) => {
                self.tombstones += 1;
                for target in urls.iter().filter_map(|url| Reference::parse(url)) {
                    let gone = left.next(cut.offset);
                    // Without an instant they end nothing (reading 9).
                    let Some(updated) = updated.clone().filter(|_| recorded.is_ours(target.base)) else { continue };
                    let entity = entity(target.resource_type.name(), target.id.as_str());
                    self.deletions.push(Deletion { entity, updated });
                    self.left.extend(has_departed(entity, gone, left, recorded, birth));
                }
            }
            OracleLine::Row(row) => {
                let place = (cut.offset, length);
                self.versions.push(push_version(&row, whole, segment, place, late, hash, recorded));
            }
        }
    }

    fn sort(&mut self) {
        let versions = &self.versions;
        let mut order: Vec<u32> = (0..versions.len() as u32).collect();
        order.par_sort_unstable_by(|a, b| {
            let (one, other) = (&versions[*a as usize], &versions[*b as usize]);
            (one.entity, &one.updated, &one.version, a).cmp(&(other.entity, &other.updated, &other.version, b))
        });
        self.order = order;
        self.deletions.par_sort_unstable();
        self.left.sort_by_key(|left| (left.entity, left.updated));
    }

    /// Versions of a resource, the oldest first.
    fn versions_of(&self, entity: u128) -> &[u32] {
        let of = |start_offset: &u32| self.versions[*start_offset as usize].entity;
        let first = self.order.partition_point(|position| of(position) < entity);
        let after = self.order.partition_point(|offset| of(offset) <= entity);
        &self.order[first..after]
    }

    /// The last version of a resource at an instant among those that are known; whether it was deleted is not asked.
    pub(crate) fn last_version(&self, entity: u128, instant: &Instant, known: KnownVersion) -> Option<usize> {
        let seen = |version: &ResourceVersion| {
            version.updated.as_ref().is_none_or(|updated| updated <= instant) && known(version.late)
        };
        self.versions_of(entity).iter().map(|position| *position as usize).rfind(|offset| seen(&self.versions[*offset]))
    }

    /// The same with versions that have left: the younger of the two.
    pub(crate) fn last(&self, entity: u128, instant: &Instant, known: KnownVersion) -> Option<LastState<'_>> {
        let version = self.last_version(entity, instant, known);
        let ticks = |i: usize| self.versions[i].updated.as_ref().map_or(NO_INSTANT, |updated| updated.ticks);
        let first = self.left.partition_point(|left| left.entity < entity);
        let own = self.left[first..].iter().take_while(|left| left.entity == entity);
        let left = own.filter(|left| left.updated <= instant.ticks && known(left.late)).last();
        match left.filter(|left| version.is_none_or(|version| ticks(version) < left.updated)) {
            Some(left) => Some(LastState::Left(left)),
            None => version.map(LastState::Version),
        }
    }

    /// Whether a deletion at or before an instant is later than a version.
    pub(crate) fn is_deleted(&self, version: &ResourceVersion, instant: &Instant) -> bool {
        let first = self.deletions.partition_point(|deletion| deletion.entity < version.entity);
        let own = self.deletions[first..].iter().take_while(|deletion| deletion.entity == version.entity);
        let later = |deletion: &Deletion| version.updated.as_ref().is_none_or(|updated| deletion.updated > *updated);
        own.into_iter().any(|deletion| deletion.updated <= *instant && later(deletion))
    }

    /// The version that is current at an instant.
    pub(crate) fn current(&self, entity: u128, instant: &Instant) -> Option<usize> {
        let last = self.last_version(entity, instant, &|_late| true)?;
        (!self.is_deleted(&self.versions[last], instant)).then_some(last)
    }

    /// The bytes of a version's line.
    ///
    /// # Errors
    /// When they cannot be read again.
    pub(crate) fn bytes(&self, version: usize) -> Result<Vec<u8>, VerifyError> {
        let ResourceVersion { segment, place: (start, length), .. } = self.versions[version];
        let (source, compression) = &self.files[self.file_of[segment]];
        let stretch = SegmentLines { start, end: start + length };
        let mut bytes = Vec::with_capacity(length as usize);
        let progress = Progress::default();
        segment_lines::bytes(source, *compression, stretch, &progress, &mut |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }
}

fn push_version(
    row: &OracleRow,
    whole: &[u8],
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
        identifiers: if row.resource_type == ResourceType::PATIENT { identifiers(whole) } else { Box::default() },
        segment,
        place,
        late,
        line,
    }
}

/// Hash of a business identifier; the system is empty when there is none.
pub(crate) fn identifier(system: &str, value: &str) -> u128 {
    let mut hash = Hasher128::new();
    hash.update(&(system.len() as u64).to_le_bytes());
    hash.update(system.as_bytes());
    hash.update(value.as_bytes());
    hash.digest()
}

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

/// The version that a deletion ended, from what the table of a packed file has of it.
fn has_departed(
    entity: u128,
    gone: &[PriorOwnerRecord],
    table: &PriorOwners<'_>,
    recorded: &RecordedRequest,
    birth: Option<i64>,
) -> Option<DepartedVersion> {
    let first = gone.first().filter(|first| first.owner != FOLLOWED)?;
    let names = gone.iter().filter_map(|left| table.name(left)).filter(|(base, _)| recorded.is_ours(base));
    let owners = names.map(|(_, id)| crate::verify::output_file::entity("Patient", id.as_str())).collect();
    let late = gone.iter().any(|left| left.owner == LATE && is_late(Some(left.updated), birth, recorded));
    Some(DepartedVersion { entity, updated: first.updated, owners, late })
}

/// A segment first held by a snapshot after `_since`, unless the whole index is no older.
fn is_late(first_seen: Option<i64>, birth: Option<i64>, recorded: &RecordedRequest) -> bool {
    match (first_seen, birth, &recorded.since) {
        (Some(first), Some(birth), Some(since)) => first > since.ticks && first > birth,
        _ => false,
    }
}

fn changed(root: &Path, file: &str) -> VerifyError {
    let path: PathBuf = root.join(file);
    let reason = "no longer holds the bytes that were exported; a ledger can be recounted only from those".to_string();
    VerifyError::Index(IndexError::Changed { path, reason })
}
