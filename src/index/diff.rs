//! Compares the files that an index was made from with those of the store now: which segments are kept, which ranges
//! are scanned, which rows were in the store before. Scans nothing and writes nothing.
//!
//! A file is untouched if it has the stamp that it was indexed with and that stamp was settled then. Any other is read:
//! a segment of a plain file is kept if its range still hashes the same, those of a compressed file if the bytes on disk
//! do (DESIGN 2). Nothing is taken for equal by samples or times.

use rayon::prelude::*;

use crate::codec::compression::{Compression, SeekPoint, UnprovenPolicy};
use crate::error::IndexError;
use crate::extract::fault::FaultKind;
use crate::ids::FileId;
use crate::index::meta::{FileEntry, IndexMeta, SCAN_AGAIN, SegmentMeta};
use crate::index::open::OpenedIndex;
use crate::index::row_times::{RowTimes, TimeRun};
use crate::index::segment::layout::Column;
use crate::index::segment::reader::Segment;
use crate::index::segment::span::{RangeKind, ScanRange, compressed_spans, plain_spans};
use crate::index::store_files::StoreFiles;
use crate::store::choices::RowRules;
use crate::sys::store_file::{FileStamp, StoreFile};

/// Kept segments and ranges to scan, for the files as they are now.
pub(crate) struct StoreDiff {
    /// Index meta of the files as they are now, with the kept segments only.
    pub(crate) meta: IndexMeta,
    /// The kept segments, opened, in the order of `meta`.
    pub(crate) segments: Vec<Segment>,
    /// For each kept segment its number in the previous index meta.
    pub(crate) origins: Vec<usize>,
    /// Ranges of store files to scan.
    pub(crate) spans: Vec<ScanRange>,
    /// Segments that are scanned again although the store still has their bytes.
    pub(crate) rescanned: Vec<RescannedSegment>,
    /// Segments whose bytes the store no longer has in their place.
    pub(crate) dropped: Vec<DroppedSegment>,
    /// Segments that are scanned again as one, by file and start.
    pub(crate) joined: Vec<JoinedSegments>,
    /// Whether a new index meta is to be published with new segments, or without old ones.
    pub(crate) changed: bool,
    /// Whether stamps of files are to be published although no segment changes.
    pub(crate) restamped: bool,
    /// Reasons why parts of the index are made again, for the report.
    pub(crate) repaired: Vec<String>,
    /// Whether files that are read whole are hashed here.
    pub(crate) hashes: NewFileHashes,
}

/// Whether a comparison hashes the files that are scanned whole, which reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewFileHashes {
    /// It does: its entries are to be published.
    Taken,
    /// It does not: only the ranges are wanted.
    LeftOut,
}

/// A segment that is made again of the bytes that it was made of, so that its rows keep their first-seen times.
pub(crate) struct RescannedSegment {
    /// The file, among those of the store now.
    pub file: FileId,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// First-seen time of the segment.
    pub first_seen: Option<i64>,
    /// First-seen times of rows.
    pub runs: Vec<TimeRun>,
}

/// A segment whose bytes are no longer in their place: its file is gone, or has other bytes there.
pub(crate) struct DroppedSegment {
    /// Its file, among those of the store now; `None` when the file is gone.
    pub file: Option<FileId>,
    /// Name of its file.
    pub old_name: String,
    /// Stamp of its file when it was indexed.
    pub old_stamp: FileStamp,
    /// Its columns; `None` when they cannot be read.
    pub segment: Option<Segment>,
    /// Whether its file may well be there, and is only not read any more, because the store's owner chose so. What it held
    /// is not gone.
    pub is_excluded: bool,
    /// First-seen time of the segment.
    pub first_seen: Option<i64>,
    /// First-seen times of rows.
    pub runs: Vec<TimeRun>,
}

/// Adjacent segments that are scanned again as one.
pub(crate) struct JoinedSegments {
    /// The file, among those of the store now.
    pub file: FileId,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// Numbers of the segments in the previous index meta.
    pub origins: std::ops::Range<usize>,
    /// The segments, as what they are if their bytes turn out to be no longer there.
    pub parts: Vec<DroppedSegment>,
}

/// What becomes of a segment of the previous index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SegmentFate {
    /// The store has its bytes, and it can be read.
    Kept,
    /// The store has its bytes, and it is scanned again.
    Rescanned,
    /// The store has other bytes, or none, in its place.
    Dropped,
}

/// Whether names and stamps of the files, and the rules of the walk, equal those of the index meta, all stamps were
/// settled, and no segment is marked to be scanned again.
pub(crate) fn is_unchanged(files: &StoreFiles, known: &IndexMeta, rules: RowRules) -> bool {
    rules == (known.rules, known.unproven)
        && files.has_walk_rules_of(known)
        && known.files.len() == files.count()
        && known.segments.iter().all(|segment| segment.at != SCAN_AGAIN)
        && files
            .ids()
            .zip(&known.files)
            .all(|(file, entry)| is_untouched(files, file, entry) && entry.name == files.name(file))
}

/// Whether a file has the settled stamp that it was indexed with.
pub(crate) fn is_untouched(files: &StoreFiles, file: FileId, entry: &FileEntry) -> bool {
    entry.settled && entry.stamp == files.stamp(file)
}

/// The entries of the index meta for these files as they are now.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn file_entries(files: &StoreFiles) -> Result<Vec<FileEntry>, IndexError> {
    files.ids().map(|file| file_entry(files, file, None)).collect()
}

/// The entry of a file as it is now; `raw` is the hash of its bytes on disk if the caller knows it.
fn file_entry(files: &StoreFiles, file: FileId, raw: Option<u64>) -> Result<FileEntry, IndexError> {
    let raw = match (files.compression(file), raw) {
        (Compression::None, _) => 0,
        (_, Some(raw)) => raw,
        _ => files.source(file)?.content_hash(0..files.source(file)?.len())?,
    };
    let (stamp, settled) = (files.stamp(file), files.is_settled(file));
    let compression = files.compression(file);
    Ok(FileEntry { name: files.name(file).to_string(), compression, stamp, settled, raw, appendable: true })
}

/// Compares the files with the index meta `known`. `opened` holds the result of opening its segments, `times` the
/// first-seen times of rows, `rules` how rows are to be read, and `hashes` whether the entries of new files are wanted.
///
/// # Errors
/// When a touched file cannot be opened or read.
pub(crate) fn diff(
    files: &StoreFiles,
    known: Option<&IndexMeta>,
    opened: Option<&OpenedIndex>,
    times: &RowTimes,
    (rules, unproven): RowRules,
    hashes: NewFileHashes,
) -> Result<StoreDiff, IndexError> {
    let mut known = known.cloned().unwrap_or_else(|| IndexMeta { unproven, ..IndexMeta::empty(rules) });
    let mut diff = StoreDiff {
        meta: IndexMeta { files: Vec::new(), segments: Vec::new(), ..known.clone() },
        segments: Vec::new(),
        origins: Vec::new(),
        spans: Vec::new(),
        rescanned: Vec::new(),
        dropped: Vec::new(),
        joined: Vec::new(),
        changed: known.global.name.is_empty() || known.files.len() != files.count(),
        restamped: !files.has_walk_rules_of(&known),
        repaired: Vec::new(),
        hashes,
    };
    let (has_other_rules, has_other_policy) = (known.rules != rules, known.unproven != unproven);
    diff.changed |= has_other_rules || has_other_policy;
    (known.unproven, diff.meta.unproven) = (unproven, unproven);
    diff.meta.rules = rules;
    (diff.meta.follow_symlinks, diff.meta.ignore_hash) = files.walk_rules();
    let old = OldSegments { known: &known, opened, times, has_other_rules, has_other_policy };
    let entry = |file| {
        let place = known.files.binary_search_by(|entry| entry.name.as_bytes().cmp(files.name(file).as_bytes()));
        place.ok().map(FileId::of)
    };
    let ids: Vec<FileId> = files.ids().collect();
    // New files are opened and cut on all threads, if they are many.
    let cut = |file: &FileId| match entry(*file) {
        Some(_) => Ok(None),
        None => whole_file(*file, files.compression(*file), files.source(*file)?).map(Some),
    };
    let new_spans: Vec<Option<Vec<ScanRange>>> =
        ids.par_iter().with_min_len(FILES_PER_TASK_MIN).map(cut).collect::<Result<_, IndexError>>()?;
    for (file, new_spans) in ids.into_iter().zip(new_spans) {
        match (new_spans, entry(file)) {
            (None, Some(old_file)) => diff.add_file(files, file, old_file, &old)?,
            (spans, _) => diff.add_new_file(files, file, spans.unwrap_or_default())?,
        }
    }
    for (old_file, entry) in known.file_ids().zip(&known.files) {
        if files.position(&entry.name).is_none() {
            diff.changed = true;
            let is_excluded = files.is_excluded(&entry.name, &known);
            let dropped = old.of_file(old_file).map(|number| old.dropped(number, None));
            diff.dropped.extend(dropped.map(|segment| DroppedSegment { is_excluded, ..segment }));
        }
    }
    diff.changed |= !diff.spans.is_empty() || !diff.dropped.is_empty();
    if let (false, Some(Err(reason))) = (diff.changed, opened.map(|opened| &opened.global)) {
        diff.changed = true;
        diff.repaired.push(format!("the merged file of the index is damaged: {reason}"));
    }
    Ok(diff)
}

/// The segments of the previous index.
struct OldSegments<'a> {
    known: &'a IndexMeta,
    opened: Option<&'a OpenedIndex>,
    times: &'a RowTimes,
    /// Whether lines were read by other rules: rows of the same bytes may have come or gone.
    has_other_rules: bool,
    /// Whether the policy for what is not proven is another than theirs.
    has_other_policy: bool,
}

impl OldSegments<'_> {
    /// Numbers of the segments of a file.
    fn of_file(&self, old_file: FileId) -> std::ops::Range<usize> {
        let segments = &self.known.segments;
        segments.partition_point(|segment| segment.file < old_file)
            ..segments.partition_point(|segment| segment.file <= old_file)
    }

    /// A segment, opened, or why it is to be scanned again.
    fn open(&self, number: usize) -> Result<Segment, &'static str> {
        match self.opened {
            _ if self.known.segments[number].at == SCAN_AGAIN => Err("it is to be scanned again"),
            Some(opened) => opened.segments[number].clone(),
            None => Err("it cannot be opened"),
        }
    }

    /// Whether a segment holds a fault for what is not proven, or may.
    fn is_unproven(&self, number: usize) -> bool {
        let Ok(segment) = self.open(number) else { return true };
        let kinds = [FaultKind::Damaged, FaultKind::Unproven];
        let is_proven = segment.head().faulty == 0
            || segment
                .verify_columns(&[Column::FaultCount])
                .is_ok_and(|columns| kinds.iter().all(|kind| columns.fault_count[*kind as usize] == 0));
        !is_proven
    }

    /// A segment that is dropped, of a file that is now `file`.
    fn dropped(&self, number: usize, file: Option<FileId>) -> DroppedSegment {
        let entry = &self.known.segments[number];
        // Its rows are compared with new ones, whatever checks they were made with.
        let segment = self.opened.and_then(|opened| opened.segments[number].clone().ok());
        DroppedSegment {
            file,
            old_name: self.known.files[entry.file.index()].name.clone(),
            old_stamp: self.known.files[entry.file.index()].stamp,
            segment: segment.filter(|_| entry.at != SCAN_AGAIN),
            is_excluded: false,
            first_seen: entry.first_seen,
            runs: self.times.runs(number).to_vec(),
        }
    }
}

/// Least new files that a thread opens.
const FILES_PER_TASK_MIN: usize = 64;

impl StoreDiff {
    /// The hash of a file that is scanned whole, if it need not be known.
    fn hash_of_new(&self) -> Option<u64> {
        (self.hashes == NewFileHashes::LeftOut).then_some(0)
    }

    /// Adds a file that the previous index meta does not have, with the ranges to scan.
    fn add_new_file(&mut self, files: &StoreFiles, file: FileId, spans: Vec<ScanRange>) -> Result<(), IndexError> {
        self.changed = true;
        self.meta.files.push(file_entry(files, file, self.hash_of_new())?);
        self.spans.extend(spans);
        Ok(())
    }

    /// Adds a file of the store; `old_file` is the same file in the previous index meta.
    fn add_file(
        &mut self,
        files: &StoreFiles,
        file: FileId,
        old_file: FileId,
        old: &OldSegments<'_>,
    ) -> Result<(), IndexError> {
        let compression = files.compression(file);
        let entry = &old.known.files[old_file.index()];
        let numbers = old.of_file(old_file);
        // 1. A file that is read otherwise is scanned whole.
        if old.has_other_rules || entry.compression != compression {
            // Its rows are compared one by one with those that the same lines were before.
            self.changed = true;
            numbers.for_each(|number| self.dropped.push(old.dropped(number, Some(file))));
            self.meta.files.push(file_entry(files, file, self.hash_of_new())?);
            self.spans.extend(whole_file(file, compression, files.source(file)?)?);
            return Ok(());
        }
        let untouched = is_untouched(files, file, entry);
        let mut raw = untouched.then_some(entry.raw);
        // 2. Which segments does the file still have the bytes of? An untouched file is not opened.
        let (has_bytes, is_whole, appended) = match (untouched, compression) {
            (true, _) => (vec![true; numbers.len()], true, false),
            (false, Compression::None) => {
                let (has_bytes, grown) =
                    plain_segments_in(files.source(file)?, entry, &old.known.segments[numbers.clone()])?;
                let is_whole = has_bytes.iter().all(|has| *has);
                (has_bytes, is_whole, grown)
            }
            (false, _) => {
                let source = files.source(file)?;
                let grown = source.len() > entry.stamp.len;
                let (front, whole) = source.content_hashes(entry.stamp.len)?;
                raw = Some(whole);
                let same = front == Some(entry.raw) && (entry.appendable || !grown);
                // A file without a line has no segment, but bytes all the same.
                (vec![same; numbers.len()], same, grown)
            }
        };
        let new_entry = file_entry(files, file, raw)?;
        let appendable = !is_whole || entry.appendable;
        self.restamped |= new_entry.stamp != entry.stamp || new_entry.settled != entry.settled;
        self.meta.files.push(FileEntry { appendable, ..new_entry });
        // 3. What becomes of each segment. A compressed file with an unproven member is scanned again if the policy changed.
        let unproven: Vec<bool> = match compression {
            Compression::None => Vec::new(),
            _ => numbers.clone().map(|number| old.has_other_policy && old.is_unproven(number)).collect(),
        };
        let judged_anew = unproven.contains(&true);
        let mut damaged = None;
        let mut fates = Vec::with_capacity(numbers.len());
        for (number, has_bytes) in numbers.clone().zip(&has_bytes) {
            fates.push(match (has_bytes, old.open(number)) {
                (false, _) => SegmentFate::Dropped,
                (true, Ok(_)) if judged_anew => SegmentFate::Rescanned,
                (true, Ok(_)) => SegmentFate::Kept,
                (true, Err(reason)) => {
                    damaged = Some(reason);
                    SegmentFate::Rescanned
                }
            });
        }
        if let Some(reason) = damaged {
            self.repaired.push(format!("{}: an extent of the index is damaged: {reason}", files.name(file)));
        }
        if compression != Compression::None && fates.contains(&SegmentFate::Rescanned) {
            // A compressed file is decoded from its start; its other segments are made again, too.
            fates.iter_mut().for_each(|fate| *fate = SegmentFate::Rescanned);
        }
        for (i, (number, fate)) in numbers.clone().zip(&fates).enumerate() {
            let segment = &old.known.segments[number];
            // Rows that become visible are new to every reader.
            let becomes_visible = unproven.get(i) == Some(&true) && old.known.unproven == UnprovenPolicy::Export;
            match fate {
                SegmentFate::Rescanned if becomes_visible => self.rescanned.push(RescannedSegment {
                    file,
                    start: segment.start,
                    end: segment.end,
                    first_seen: None,
                    runs: Vec::new(),
                }),
                SegmentFate::Kept => {
                    self.meta.segments.push(SegmentMeta { file, ..segment.clone() });
                    self.segments.extend(old.open(number));
                    self.origins.push(number);
                }
                SegmentFate::Rescanned => self.rescanned.push(RescannedSegment {
                    file,
                    start: segment.start,
                    end: segment.end,
                    first_seen: segment.first_seen,
                    runs: old.times.runs(number).to_vec(),
                }),
                SegmentFate::Dropped => self.dropped.push(old.dropped(number, Some(file))),
            }
        }
        // 4. What no kept segment covers is scanned.
        let segments = numbers.map(|number| &old.known.segments[number]).zip(&fates);
        match compression {
            Compression::None => {
                let source = if untouched { None } else { Some(files.source(file)?) };
                self.add_plain_spans(file, source, segments)?;
            }
            _ if fates.contains(&SegmentFate::Rescanned) || !is_whole => {
                self.spans.extend(whole_file(file, compression, files.source(file)?)?);
            }
            _ if appended => {
                let end = segments.map(|(segment, _)| segment.end).next_back().unwrap_or(0);
                let from = SeekPoint { compressed: entry.stamp.len, uncompressed: end };
                self.spans.push(ScanRange {
                    file,
                    part: RangeKind::Compressed { compression, from, cuts: Vec::new(), to: None },
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds the ranges of a plain file that no kept segment covers. A segment that is made again is a range of its own.
    /// `source` is `None` for an untouched file, of which every byte is covered.
    fn add_plain_spans<'a>(
        &mut self,
        file: FileId,
        source: Option<&StoreFile>,
        segments: impl Iterator<Item = (&'a SegmentMeta, &'a SegmentFate)>,
    ) -> Result<(), IndexError> {
        let mut position = 0;
        for (segment, fate) in segments.filter(|(_, fate)| **fate != SegmentFate::Dropped) {
            if let Some(source) = source {
                position = behind_late_newline(source, position)?;
                if position < segment.start {
                    self.spans.extend(plain_spans(file, source, position..segment.start)?);
                }
            }
            if *fate == SegmentFate::Rescanned {
                let part = RangeKind::Plain { range: segment.start..segment.end, tail: segment.tail };
                self.spans.push(ScanRange { file, part });
            }
            position = segment.end;
        }
        if let Some(source) = source {
            position = behind_late_newline(source, position)?;
            if position < source.len() {
                self.spans.extend(plain_spans(file, source, position..source.len())?);
            }
        }
        Ok(())
    }
}

/// The offset behind the newline at `position` if the line before it was indexed without one: that newline is part of
/// no segment. Else `position`.
fn behind_late_newline(source: &StoreFile, position: u64) -> Result<u64, IndexError> {
    let is_torn = position > 0 && byte_at(source, position - 1)? != Some(b'\n');
    Ok(position + u64::from(is_torn && byte_at(source, position)? == Some(b'\n')))
}

/// For each segment of a plain file whether the file still has its bytes, between the same line ends; and whether it is
/// longer than it was. Reads the file once.
fn plain_segments_in(
    source: &StoreFile,
    entry: &FileEntry,
    segments: &[SegmentMeta],
) -> Result<(Vec<bool>, bool), IndexError> {
    let len = source.len();
    let mut has_bytes = Vec::with_capacity(segments.len());
    // Where the length differs, bytes behind the first difference have moved: they are not read twice.
    let stops_at_difference = len != entry.stamp.len;
    for some in segments.chunks(rayon::current_num_threads().max(1)) {
        if stops_at_difference && has_bytes.last() == Some(&false) {
            break;
        }
        let is_same = |segment: &SegmentMeta| match segment.end <= len {
            true => Ok(source.content_hash(segment.start..segment.end)? == segment.content),
            false => Ok(false),
        };
        let same: Vec<bool> = some.par_iter().map(is_same).collect::<Result<_, IndexError>>()?;
        has_bytes.extend(same);
    }
    if stops_at_difference {
        // What is kept does not depend on the number of threads.
        let same = has_bytes.iter().take_while(|has| **has).count();
        has_bytes.truncate(same);
    }
    has_bytes.resize(segments.len(), false);
    // A segment begins and ends at line ends; one without a newline at its end has one behind it, or is the last.
    for (i, segment) in segments.iter().enumerate() {
        let begins = segment.start == 0 || byte_at(source, segment.start - 1)? == Some(b'\n');
        let ends = segment.end == len
            || segment.end > segment.start && byte_at(source, segment.end - 1)? == Some(b'\n')
            || byte_at(source, segment.end)? == Some(b'\n');
        has_bytes[i] = has_bytes[i] && begins && ends;
    }
    Ok((has_bytes, len > entry.stamp.len))
}

/// The byte of a file at an offset; `None` at or behind its end.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn byte_at(source: &StoreFile, offset: u64) -> Result<Option<u8>, IndexError> {
    if offset >= source.len() {
        return Ok(None);
    }
    Ok(source.read(offset, 1, &mut Vec::new())?.first().copied())
}

/// The ranges to scan of a file of which no segment is kept.
fn whole_file(file: FileId, compression: Compression, source: &StoreFile) -> Result<Vec<ScanRange>, IndexError> {
    match compression {
        Compression::None => Ok(plain_spans(file, source, 0..source.len())?),
        compression => Ok(compressed_spans(file, compression, source)?),
    }
}
