//! Decides what is remembered of resources that are gone: which are noted, whether too many are gone at once, and which
//! have come back.
//!
//! A store that was not mounted, or of which a directory is missing, looks like one whose resources were all removed. So
//! a refresh that would lose more than a share of the current resources of the last snapshot fails and leaves the index
//! as it was.

use std::collections::{BTreeMap, HashSet};

use crate::error::{CorruptIndex, IndexError};
use crate::fhir::id::Id;
use crate::fhir::instant::NO_INSTANT;
use crate::fhir::resource_type::ResourceType;
use crate::ids::FileId;
use crate::index::diff::DroppedSegment;
use crate::index::meta::{FileEntry, IndexMeta};
use crate::index::replaced_rows::{MissingResource, RowMatches, intersection, row_owners};
use crate::index::report::GoneResources;
use crate::index::row_times::{RowTimes, time_of_row};
use crate::index::segment::layout::{Column, kind};
use crate::index::segment::reader::Segment;
use crate::index::vanished::{VanishCause, VanishedResource};
use crate::key_set::resource_key::entity_hash;
use crate::limits::GONE_FILES_NAMED_MAX;

/// Gone resources below which only the number of current resources decides.
const FEW_GONE: u64 = 10;

/// What the store holds now, for the decision on what is gone.
pub(crate) struct StoreContents<'a> {
    /// The index meta with all files and segments of the store as it is now.
    pub meta: &'a IndexMeta,
    /// Its segments.
    pub segments: &'a [Segment],
    /// Numbers of the segments that the refresh scanned.
    pub scanned: &'a [usize],
    /// First-seen times of rows.
    pub times: &'a RowTimes,
    /// Files that are packed: a seek table shows that they are whole.
    pub packed: &'a HashSet<FileId>,
}

/// The vanished resources to remember: those of `before`, and the new ones. One of which a new row has come is forgotten
/// once a snapshot held it; `first` is the T of the first snapshot since the refresh before, in ticks.
/// What came and went between two snapshots is among them, too: it may have followed what a snapshot held.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn remember_vanished(
    mut before: Vec<VanishedResource>,
    first: Option<i64>,
    matches: &RowMatches,
    dropped: &[DroppedSegment],
    contents: &StoreContents<'_>,
) -> Result<Vec<VanishedResource>, CorruptIndex> {
    before.retain(|gone| !gone.returned || first.is_none());
    before.iter_mut().for_each(|gone| gone.first_missed = gone.first_missed.or(first));
    returned_resources(&before, contents)?.into_iter().for_each(|i| before[i].returned = true);
    let again: HashSet<_> = matches.missing.iter().map(|gone| (gone.resource_type, gone.id)).collect();
    let mut list: Vec<VanishedResource> =
        before.iter().filter(|gone| !again.contains(&(gone.resource_type, gone.id))).cloned().collect();
    let whole: Vec<bool> = match matches.missing.is_empty() {
        true => Vec::new(),
        false => contents.meta.file_ids().map(|file| is_whole(file, contents)).collect(),
    };
    for gone in &matches.missing {
        let (updated, owners) = match gone.newest {
            Some((i, row)) => last_version(&dropped[i], row, gone.resource_type)?,
            None => (NO_INSTANT, Vec::new()),
        };
        // Of two versions each owner is concerned: one lost the newest, the other has an older one for current.
        let mut owners: Vec<(String, Id)> = match gone.resource_type == ResourceType::GROUP {
            true => owners,
            false => owners.into_iter().chain(gone.standing_owners.iter().cloned()).collect(),
        };
        owners.sort_unstable();
        owners.dedup();
        list.push(VanishedResource {
            resource_type: gone.resource_type,
            id: gone.id,
            cause: cause_of(gone, dropped, &contents.meta.files, &whole),
            first_missed: None,
            updated,
            owners,
            returned: false,
        });
    }
    Ok(list)
}

/// Counts what is gone without a deletion, and refuses a refresh that loses more than `allowed` percent of the
/// resources of the last snapshot. Fewer than [`FEW_GONE`] are left to [`check_current`]: a file of a row or two that is
/// replaced by one of other rows is no store that vanished.
///
/// # Errors
/// [`IndexError::ResourcesMissing`].
pub(crate) fn check_presence(
    meta: &IndexMeta,
    matches: &RowMatches,
    dropped: &[DroppedSegment],
    allowed: f64,
) -> Result<Option<GoneResources>, IndexError> {
    // What came and went between two snapshots is missed by nobody.
    let gone = || matches.missing.iter().filter(|gone| !gone.older_stands && !gone.is_deleted && gone.was_seen);
    let mut by_file: BTreeMap<(&str, bool), u64> = BTreeMap::new();
    for resource in gone() {
        if let Some(file) = resource.held_by.last().map(|i| &dropped[*i]) {
            *by_file.entry((&file.old_name, file.file.is_none())).or_default() += 1;
        }
    }
    let here = gone().count() as u64;
    let older = matches.missing.iter().filter(|gone| gone.older_stands && gone.was_seen).count() as u64;
    if here + older == 0 {
        return Ok(None);
    }
    let mut files: Vec<((&str, bool), u64)> = by_file.into_iter().collect();
    files.sort_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
    let named = files.iter().take(GONE_FILES_NAMED_MAX).map(|((name, missing), count)| {
        format!("{count} of {name}, {}", if *missing { "which is gone" } else { "which was changed" })
    });
    let report = GoneResources {
        resources: here,
        present: meta.present,
        older_versions: older,
        files: named.collect(),
        more_files: files.len().saturating_sub(GONE_FILES_NAMED_MAX) as u64,
    };
    match here >= FEW_GONE && is_too_much(here, meta.present, allowed) {
        true => Err(missing_error(here, meta.present, allowed, report.files_text())),
        false => Ok(Some(report)),
    }
}

/// Refuses an index that lost more than `allowed` percent of the resources of the last snapshot, whatever refreshes came
/// between: by the number of `current` resources, and by those of `vanished` that no snapshot has missed yet, the lesser of
/// both. So neither what came back, nor what others came for, nor what DELETE entries ended counts.
///
/// # Errors
/// [`IndexError::ResourcesMissing`].
pub(crate) fn check_current(
    present: u64,
    current: u64,
    vanished: &[VanishedResource],
    allowed: f64,
    report: Option<&GoneResources>,
) -> Result<(), IndexError> {
    let is_gone = |gone: &&VanishedResource| {
        let causes = [VanishCause::ReplacedFile, VanishCause::UncertainFile, VanishCause::MissingFile];
        gone.first_missed.is_none() && !gone.returned && causes.contains(&gone.cause)
    };
    let lost = present.saturating_sub(current).min(vanished.iter().filter(is_gone).count() as u64);
    match is_too_much(lost, present, allowed) {
        true => {
            let files = report.map_or_else(|| "before this refresh".to_string(), GoneResources::files_text);
            Err(missing_error(lost, present, allowed, files))
        }
        false => Ok(()),
    }
}

/// Whether so many of the resources of the last snapshot are more than `allowed` percent.
fn is_too_much(lost: u64, present: u64, allowed: f64) -> bool {
    present > 0 && allowed < 100.0 && lost as f64 * 100.0 > allowed * present as f64
}

/// The error of a store that lost too much.
fn missing_error(gone: u64, present: u64, allowed: f64, files: String) -> IndexError {
    IndexError::ResourcesMissing { gone, present, allowed, files }
}

/// Whether a file has no fault and no cut end, so that a row that is not in it was left out on purpose.
fn is_whole(file: FileId, contents: &StoreContents<'_>) -> bool {
    let entries = &contents.meta.segments;
    let first = entries.partition_point(|entry| entry.file < file);
    let own = entries[first..].iter().zip(&contents.segments[first..]).take_while(|(entry, _)| entry.file == file);
    let mut ends_whole = contents.meta.files[file.index()].appendable || contents.packed.contains(&file);
    for (entry, segment) in own {
        if segment.head().faulty > 0 {
            return false;
        }
        ends_whole &= !entry.tail;
    }
    ends_whole
}

/// How a resource came to be gone.
fn cause_of(gone: &MissingResource, dropped: &[DroppedSegment], files: &[FileEntry], whole: &[bool]) -> VanishCause {
    if gone.is_deleted {
        return VanishCause::Deleted;
    }
    if gone.older_stands {
        return VanishCause::OlderVersion;
    }
    let mut cause = VanishCause::ReplacedFile;
    for old in gone.held_by.iter().map(|i| &dropped[*i]) {
        let Some(file) = old.file else { return VanishCause::MissingFile };
        let now = &files[file.index()].stamp;
        let was_replaced = (now.inode, now.device) != (old.old_stamp.inode, old.old_stamp.device);
        if !was_replaced || !whole[file.index()] {
            cause = VanishCause::UncertainFile;
        }
    }
    cause
}

/// lastUpdated and owners of a row of a dropped segment.
fn last_version(
    old: &DroppedSegment,
    row: usize,
    resource_type: ResourceType,
) -> Result<(i64, Vec<(String, Id)>), CorruptIndex> {
    let Some(segment) = &old.segment else { return Ok((NO_INSTANT, Vec::new())) };
    segment.row(row)?;
    // A Group is not exported for its members.
    let owners = if resource_type == ResourceType::GROUP { Vec::new() } else { row_owners(segment, row)? };
    Ok((segment.columns().last_updated[row], owners))
}

/// Places in the list of the resources of which a scanned segment has a row that was not in the store before.
fn returned_resources(list: &[VanishedResource], contents: &StoreContents<'_>) -> Result<HashSet<usize>, CorruptIndex> {
    let mut known: Vec<(u64, usize)> =
        list.iter().enumerate().map(|(i, gone)| (entity_hash(gone.resource_type, gone.id.as_bytes()), i)).collect();
    known.sort_unstable();
    let mut hashes: Vec<u64> = known.iter().map(|(hash, _)| *hash).collect();
    hashes.dedup();
    let mut returned = HashSet::new();
    for number in contents.scanned {
        let segment = &contents.segments[*number];
        let (runs, time) = (contents.times.runs(*number), contents.meta.segments[*number].first_seen);
        let own = segment.verify_columns(&[Column::SortedHash])?;
        for hash in intersection(&hashes, own.sorted_hash) {
            let some = known.partition_point(|one| one.0 < hash)..known.partition_point(|one| one.0 <= hash);
            for reference in segment.references_of_hash(hash)?.iter().filter(|one| *one & kind::MASK == kind::ROW) {
                let row = (reference & !kind::MASK) as usize;
                if time_of_row(runs, row, time).is_some() {
                    continue;
                }
                let entity = (segment.type_of(row)?, segment.row_id(row)?);
                let same = |(_, i): &&(u64, usize)| (list[*i].resource_type, list[*i].id) == entity;
                returned.extend(known[some.clone()].iter().filter(same).map(|(_, i)| *i));
            }
        }
    }
    Ok(returned)
}
