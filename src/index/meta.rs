//! The index meta (file `generation`): which segments make one consistent index of the whole store, and the times of
//! the snapshots taken from it.
//!
//! The index meta is replaced by rename: a line with magic, version and checksum, then numbers and names without
//! separators, so that a thousand files are read in microseconds. Snapshots taken after its publication are recorded in
//! the [`SnapshotLog`].

use crate::codec::compression::{Compression, UnprovenPolicy};
use crate::extract::Validate;
use crate::extract::rules::{LineRules, LoneSurrogates};
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::id::IdRule;
use crate::fhir::instant::Instant;
use crate::fhir::reference::PatientReferences;
use crate::hash::xxh3_64;
use crate::ids::FileId;
use crate::index::segment::layout;
use crate::index::snapshot_log::SnapshotLog;
use crate::index::snapshot_time::{SnapshotTime, ticks_rounded_up};
use crate::named_enum::by_name;
use crate::store::choices::links_of;
use crate::store::file_name::name_of;
use crate::store::walk::is_store_name;
use crate::sys::regular_file::Links;
use crate::sys::store_file::FileStamp;
use std::ffi::OsStr;

/// File name of the index meta in the index directory.
pub(crate) const FILE: &str = "generation";
/// File name of its second copy.
pub(crate) const TWIN: &str = "generation-b";
/// File name of the [`SnapshotLog`] in the index directory.
pub(crate) const NOTE: &str = "generation.note";

/// Prefix of the names of container files, which hold segments.
pub(crate) const SEGMENTS: &str = "extents-";
/// Prefix of the names of global index files.
pub(crate) const MERGED: &str = "merged-";
/// Prefix of the names of files of first-seen times of rows.
pub(crate) const TIMES: &str = "times-";
/// Prefix of the names of files of vanished resources.
pub(crate) const VANISHED: &str = "vanished-";

/// Whether the name begins with `stem` and has only letters, digits and dashes, so that it names a file beside the
/// index meta.
fn is_index_name(name: &str, stem: &str) -> bool {
    name.starts_with(stem) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Sentinel for the offset of a segment in its container: the segment is to be scanned again.
pub(crate) const SCAN_AGAIN: u64 = u64::MAX;

/// A store file as it was when it was indexed.
#[derive(Clone, Debug, PartialEq)]
pub struct FileEntry {
    /// Path relative to the store.
    pub name: String,
    /// Compression of its bytes, as they were read: by its first bytes, or in an index of an earlier version by its name.
    pub compression: Compression,
    /// Size, times and identity when it was indexed.
    pub stamp: FileStamp,
    /// Whether the stamp was settled when it was taken ([`FileStamp::is_settled`]). Any other file is read again, even
    /// if it still has the stamp.
    pub settled: bool,
    /// xxh3 of the bytes on disk of a compressed file, up to that size; 0 for a plain one, whose segments have theirs.
    pub raw: u64,
    /// Whether new bytes behind the old end can be indexed by themselves: a plain file always, a compressed one when
    /// it ended with a whole member and a whole line.
    pub appendable: bool,
}

impl FileEntry {
    /// Compression of the file, if it is another than that of its name.
    pub(crate) fn other_compression(&self) -> Option<Compression> {
        Some(self.compression).filter(|compression| Compression::of_file_name(&self.name) != Some(*compression))
    }
}

/// A segment: its place in the index, its range of a store file, and the first snapshot that held it.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentMeta {
    /// The store file, by its place in [`IndexMeta::files`].
    pub file: FileId,
    /// Index of the container in [`IndexMeta::containers`].
    pub container: usize,
    /// Offset in the container.
    pub at: u64,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// xxh3 (64 bit) of the bytes from start to end.
    pub content: u64,
    /// Whether it is the last line of a plain file, still without its newline.
    pub tail: bool,
    /// T of the first snapshot that held it, in ticks rounded up; `None` before the first.
    pub first_seen: Option<i64>,
}

/// Why what an earlier index of the same directory remembered of snapshots is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLoss {
    /// Its index meta was damaged, both copies of it.
    Damaged,
    /// Its index meta was of a version of the format that is not known here.
    OtherVersion,
}

impl MemoryLoss {
    /// Every value.
    pub(crate) const ALL: [MemoryLoss; 2] = [MemoryLoss::Damaged, MemoryLoss::OtherVersion];

    /// Its word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            MemoryLoss::Damaged => "damaged",
            MemoryLoss::OtherVersion => "otherVersion",
        }
    }
}

by_name!(MemoryLoss);

/// Version of the format whose index meta knows no choice of rules but `validate`.
const BEFORE_CHOICES: u32 = 4;
/// Version of the format whose segments have no references.
const BEFORE_REFERENCES: u32 = 5;

/// The index meta: files and segments of one consistent index of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexMeta {
    /// Number of the index meta; grows with every change of segments.
    pub sequence: u64,
    /// How lines were read.
    pub rules: LineRules,
    /// Whether the rules were chosen, or are the defaults of a version with a choice; else an earlier version made the index.
    pub chosen: bool,
    /// Whether symbolic links in the store were followed.
    pub follow_symlinks: bool,
    /// xxh3 of the store's `.outpourignore`; 0 when it had none.
    pub ignore_hash: u64,
    /// What became of rows of compressed files that are not proven.
    pub unproven: UnprovenPolicy,
    /// T of the first snapshot ever taken, in ticks rounded up; `None` before it.
    pub birth: Option<i64>,
    /// The last T: the greatest of the snapshots taken that was not beyond the clock, in ticks rounded up; `None` before
    /// the first.
    pub latest: Option<i64>,
    /// Whether an earlier index was lost, so that nothing is known of what came before `birth`.
    pub lost: Option<MemoryLoss>,
    /// T of the first snapshot of these segments, in ticks rounded up, as new segments have it; `None` before it.
    pub first: Option<i64>,
    /// Path of the store that the index was made of, without links; empty when it is not known.
    pub root: String,
    /// Current resources at the last snapshot before these segments were published.
    pub present: u64,
    /// File of first-seen times of rows; empty when there is none.
    pub times: String,
    /// File of vanished resources; empty when there is none.
    pub vanished: String,
    /// Whether that file lacks what vanished before some snapshot.
    pub vanished_gap: Option<VanishedGap>,
    /// Store files in store order.
    pub files: Vec<FileEntry>,
    /// Container files, which hold segments.
    pub containers: Vec<IndexFile>,
    /// Segments in store order.
    pub segments: Vec<SegmentMeta>,
    /// File of the global index over all segments; its name is empty when there is none.
    pub global: IndexFile,
}

/// What vanished before a snapshot may not be known: the file of vanished resources, or the index of a replaced file, was
/// damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VanishedGap {
    /// T of the first snapshot after the damage, in ticks; `None` until the next refresh, when it is the `first` one of the
    /// index meta.
    pub until: Option<i64>,
}

/// A container or a global index file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IndexFile {
    /// Name in the index directory.
    pub name: String,
    /// Size and times when it was published. A file that still has them is opened by its header alone. `None` when it
    /// was so young then that a later write could have left its times unchanged.
    pub stamp: Option<FileStamp>,
}

impl IndexFile {
    /// A file without stamp, to be checked whole when it is opened.
    pub fn new(name: String) -> IndexFile {
        IndexFile { name, stamp: None }
    }
}

impl IndexMeta {
    /// The index meta of no files, before the first refresh.
    pub fn empty(rules: impl Into<LineRules>) -> IndexMeta {
        IndexMeta {
            sequence: 0,
            rules: rules.into(),
            chosen: true,
            follow_symlinks: false,
            ignore_hash: 0,
            unproven: UnprovenPolicy::default(),
            birth: None,
            latest: None,
            lost: None,
            first: None,
            root: String::new(),
            present: 0,
            times: String::new(),
            vanished: String::new(),
            vanished_gap: None,
            files: Vec::new(),
            containers: Vec::new(),
            segments: Vec::new(),
            global: IndexFile::default(),
        }
    }

    /// What a walk of the store does with links.
    pub(crate) fn links(&self) -> Links {
        links_of(self.follow_symlinks)
    }

    /// The store files, in store order.
    pub fn file_ids(&self) -> impl ExactSizeIterator<Item = FileId> + use<> {
        (0..self.files.len()).map(FileId::of)
    }

    /// Records that a snapshot at `time` holds every segment; its T, and whether that changed any time.
    ///
    /// A new segment gets a `first_seen` after the last T: a snapshot of a past T, taken today, must not make a file
    /// that came today look as if an earlier export had held it.
    pub fn note_snapshot(&mut self, time: &SnapshotTime) -> (Instant, bool) {
        let changes = self.would_change(time);
        let chosen = time.choose(self.latest);
        self.first = self.first.or(Some(chosen.first_seen));
        for segment in &mut self.segments {
            segment.first_seen = segment.first_seen.or(Some(chosen.first_seen));
        }
        self.birth = self.birth.or(Some(chosen.first_seen));
        self.latest = chosen.latest;
        (chosen.as_of, changes)
    }

    /// Whether [`IndexMeta::note_snapshot`] at `time` changes any time.
    pub(crate) fn would_change(&self, time: &SnapshotTime) -> bool {
        self.first.is_none()
            || self.birth.is_none()
            || self.latest != time.choose(self.latest).latest
            || self.segments.iter().any(|segment| segment.first_seen.is_none())
    }

    /// The snapshot log of this index meta, by the snapshots recorded since it was published with this first one.
    pub fn log_since(&self, published_first: Option<i64>) -> SnapshotLog {
        SnapshotLog {
            sequence: self.sequence,
            first: self.first.filter(|_| published_first.is_none()),
            latest: self.latest,
        }
    }

    /// Whether rows of this segment are late for an export since `since` (reading "late rows"): the segment was first
    /// held by a snapshot after `since`, and after the birth of the index.
    pub fn is_late(&self, segment: &SegmentMeta, since: &Instant) -> bool {
        self.came_late(segment.first_seen, since)
    }

    /// Whether rows first held by the snapshot of T `first_seen` (in ticks) are late for an export since `since`.
    pub fn came_late(&self, first_seen: Option<i64>, since: &Instant) -> bool {
        let (Some(first), Some(birth)) = (first_seen, self.birth) else { return false };
        // Rounding up errs towards exporting a row twice, never towards losing it.
        first > since.ticks && first > birth
    }

    /// T of the first snapshot of this index, in ticks, and why the memory of earlier ones is lost, if it is and an export
    /// since `since` would need it.
    pub fn memory_lost_since(&self, since: &Instant) -> Option<(Option<i64>, MemoryLoss)> {
        let loss = self.lost?;
        self.birth.is_none_or(|birth| since.ticks < birth).then_some((self.birth, loss))
    }

    /// Whether resources that vanished between `since` and a snapshot at `as_of` may not be known; then the T before which
    /// they vanished, in ticks.
    pub fn vanished_unknown_since(&self, since: &Instant, as_of: &Instant) -> Option<i64> {
        let until = self.vanished_gap?.until.or(self.first).unwrap_or_else(|| ticks_rounded_up(as_of));
        // A snapshot before the damage, of an export that is resumed, has its own list.
        (since.ticks < until && until <= ticks_rounded_up(as_of)).then_some(until)
    }

    /// Applies the snapshot log; false, and no change, if the log belongs to another index meta.
    pub fn apply(&mut self, log: &SnapshotLog) -> bool {
        if log.sequence != self.sequence {
            return false;
        }
        for segment in &mut self.segments {
            segment.first_seen = segment.first_seen.or(log.first);
        }
        self.first = self.first.or(log.first);
        self.latest = self.latest.max(log.latest);
        true
    }

    /// Bytes of the file `generation`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = MetaWriter(Vec::with_capacity(256 + self.files.len() * 96 + self.segments.len() * 64));
        body.number(self.sequence);
        body.number(u64::from(self.rules.validate == Validate::Full));
        body.number(u64::from(self.unproven == UnprovenPolicy::Export));
        body.number(u64::from(self.rules.ids == IdRule::Any));
        body.number(u64::from(self.rules.lone_surrogates == LoneSurrogates::Fault));
        // One number for both: versions without a choice of paths wrote 0 or 1.
        let is_lenient = u64::from(self.rules.patient_references == PatientReferences::Lenient);
        body.number(is_lenient | u64::from(self.rules.compartment_paths == CompartmentPaths::Primary) << 1);
        body.number(u64::from(self.chosen));
        body.number(u64::from(self.follow_symlinks));
        body.number(self.ignore_hash);
        body.optional(self.birth);
        body.optional(self.latest);
        body.number(self.lost.map_or(0, |loss| 1 + loss as u64));
        body.optional(self.first);
        body.text(&self.root);
        body.number(self.present);
        body.text(&self.times);
        body.text(&self.vanished);
        body.number(self.files.len() as u64);
        for file in &self.files {
            body.text(&file.name);
            body.number(file.compression as u64);
            body.stamp(&file.stamp);
            body.number(u64::from(file.settled));
            body.number(file.raw);
            body.number(u64::from(file.appendable));
        }
        body.number(self.containers.len() as u64);
        for file in self.containers.iter().chain([&self.global]) {
            body.text(&file.name);
            body.number(u64::from(file.stamp.is_some()));
            body.stamp(&file.stamp.unwrap_or_default());
        }
        body.number(self.segments.len() as u64);
        for segment in &self.segments {
            for number in [u64::from(segment.file.0), segment.container as u64, segment.at, segment.start, segment.end]
            {
                body.number(number);
            }
            body.number(segment.content);
            body.number(u64::from(segment.tail));
            body.optional(segment.first_seen);
        }
        if let Some(gap) = self.vanished_gap {
            body.optional(gap.until);
        }
        let mut bytes = format!("outpour-index {} {:016x}\n", layout::VERSION, xxh3_64(&body.0)).into_bytes();
        bytes.extend_from_slice(&body.0);
        bytes
    }

    /// Reads the bytes of the file `generation`; `None` when it is damaged, of another version, or names files outside
    /// of store and index. The index is then built from the store.
    pub fn from_bytes(bytes: &[u8]) -> Option<IndexMeta> {
        let newline = memchr::memchr(b'\n', bytes)?;
        let (head, body) = (str::from_utf8(&bytes[..newline]).ok()?, &bytes[newline + 1..]);
        let versions = [layout::VERSION, BEFORE_REFERENCES, BEFORE_CHOICES];
        let sum = xxh3_64(body);
        let version = versions.into_iter().find(|version| head == format!("outpour-index {version} {sum:016x}"))?;
        let mut meta = IndexMeta::read(&mut MetaReader(body), version)?;
        let (files, containers) = (meta.files.len(), meta.containers.len());
        let sound =
            meta.segments.iter().all(|e| e.file.index() < files && e.container < containers && e.start <= e.end);
        let ordered = meta.segments.is_sorted_by_key(|e| (e.file, e.start))
            && meta.files.is_sorted_by(|a, b| a.name.as_bytes() < b.name.as_bytes());
        // Its names are opened later: they must lie in the store, or be index files beside it.
        let in_store = meta.files.iter().all(|file| is_store_name(&file.name));
        let in_index = meta.containers.iter().all(|file| is_index_name(&file.name, SEGMENTS))
            && [(&meta.global.name, MERGED), (&meta.times, TIMES), (&meta.vanished, VANISHED)]
                .iter()
                .all(|(name, stem)| name.is_empty() || is_index_name(name, stem));
        if version != layout::VERSION {
            // Its segments lack columns.
            meta.segments.iter_mut().for_each(|segment| segment.at = SCAN_AGAIN);
        }
        (sound && ordered && in_store && in_index).then_some(meta)
    }

    /// Whether the bytes are an index meta of another version of the format.
    pub fn is_of_other_version(bytes: &[u8]) -> bool {
        let version = bytes.strip_prefix(b"outpour-index ").and_then(|rest| rest.split(|byte| *byte == b' ').next());
        let version =
            version.and_then(|digits| str::from_utf8(digits).ok()).and_then(|digits| digits.parse::<u32>().ok());
        version.is_some_and(|version| ![layout::VERSION, BEFORE_REFERENCES, BEFORE_CHOICES].contains(&version))
    }

    /// Reads the bytes behind the first line without a check of their checksum; `None` when they are no index meta.
    pub fn read_body(body: &[u8]) -> Option<IndexMeta> {
        IndexMeta::read(&mut MetaReader(body), layout::VERSION)
    }

    /// Reads the numbers and names of an index meta; `None` unless the body ends with them.
    fn read(body: &mut MetaReader<'_>, version: u32) -> Option<IndexMeta> {
        let sequence = body.number()?;
        let validate = if body.flag()? { Validate::Full } else { Validate::Structure };
        let unproven = if body.flag()? { UnprovenPolicy::Export } else { UnprovenPolicy::Fault };
        let (mut rules, mut chosen) = (LineRules::without_choices(validate), false);
        let (mut follow_symlinks, mut ignore_hash) = (false, 0);
        if version > BEFORE_CHOICES {
            let ids = if body.flag()? { IdRule::Any } else { IdRule::R4 };
            let lone_surrogates = if body.flag()? { LoneSurrogates::Fault } else { LoneSurrogates::Pass };
            let (patient_references, compartment_paths) = match body.number()? {
                0 => (PatientReferences::Strict, CompartmentPaths::R4),
                1 => (PatientReferences::Lenient, CompartmentPaths::R4),
                2 => (PatientReferences::Strict, CompartmentPaths::Primary),
                3 => (PatientReferences::Lenient, CompartmentPaths::Primary),
                _ => return None,
            };
            rules = LineRules { validate, ids, lone_surrogates, patient_references, compartment_paths };
            chosen = body.flag()?;
            (follow_symlinks, ignore_hash) = (body.flag()?, body.number()?);
        }
        let (birth, latest) = (body.optional()?, body.optional()?);
        let lost = match body.number()? {
            0 => None,
            number => Some(*MemoryLoss::ALL.get(usize::try_from(number).ok()? - 1)?),
        };
        let first = body.optional()?;
        let (root, present) = (body.text()?, body.number()?);
        let (times, vanished) = (body.text()?, body.text()?);
        let file = |body: &mut MetaReader<'_>| {
            let name = body.text()?;
            // Versions without a spelling of names wrote them as they were.
            let name = if version > BEFORE_CHOICES { name } else { name_of(OsStr::new(&name)) };
            let compression = match version > BEFORE_CHOICES {
                true => *Compression::ALL.get(usize::try_from(body.number()?).ok()?)?,
                false => Compression::of_file_name(&name).unwrap_or_default(),
            };
            let stamp = body.stamp()?;
            let (settled, raw, appendable) = (body.flag()?, body.number()?, body.flag()?);
            Some(FileEntry { name, compression, stamp, settled, raw, appendable })
        };
        let files = body.list(file)?;
        let index_file = |body: &mut MetaReader<'_>| {
            let (name, trusted, stamp) = (body.text()?, body.flag()?, body.stamp()?);
            Some(IndexFile { name, stamp: trusted.then_some(stamp) })
        };
        let containers = body.list(index_file)?;
        let global = index_file(body)?;
        let segment = |body: &mut MetaReader<'_>| {
            Some(SegmentMeta {
                file: FileId(u32::try_from(body.number()?).ok()?),
                container: usize::try_from(body.number()?).ok()?,
                at: body.number()?,
                start: body.number()?,
                end: body.number()?,
                content: body.number()?,
                tail: body.flag()?,
                first_seen: body.optional()?,
            })
        };
        let segments = body.list(segment)?;
        let vanished_gap = match body.0.is_empty() {
            true => None,
            false => Some(VanishedGap { until: body.optional()? }),
        };
        body.0.is_empty().then_some(IndexMeta {
            sequence,
            rules,
            chosen,
            follow_symlinks,
            ignore_hash,
            unproven,
            birth,
            latest,
            lost,
            first,
            root,
            present,
            times,
            vanished,
            vanished_gap,
            files,
            containers,
            segments,
            global,
        })
    }
}

/// Writes the numbers and texts of an index meta, and of the small files beside it.
pub(crate) struct MetaWriter(pub Vec<u8>);

impl MetaWriter {
    /// Appends a number as a little-endian `u64`.
    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Appends a flag and a number, 0 for `None`.
    pub(crate) fn optional(&mut self, number: Option<i64>) {
        self.number(u64::from(number.is_some()));
        self.number(number.unwrap_or_default() as u64);
    }

    /// Appends the length and the bytes of a text.
    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Appends length, times, inode and device of a file.
    pub(crate) fn stamp(&mut self, stamp: &FileStamp) {
        self.number(stamp.len);
        self.number(stamp.mtime_ns as u64);
        self.number(stamp.ctime_ns as u64);
        self.number(stamp.inode);
        self.number(stamp.device);
    }
}

/// Reads them back in order; `None` at the end of the bytes or for a value out of range.
pub(crate) struct MetaReader<'a>(pub &'a [u8]);

impl MetaReader<'_> {
    /// Reads a little-endian `u64`.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    /// Reads a number that is 0 or 1.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Reads a flag and a number.
    pub(crate) fn optional(&mut self) -> Option<Option<i64>> {
        let (there, number) = (self.flag()?, self.number()?);
        Some(there.then_some(number as i64))
    }

    /// Reads a length and a UTF-8 text.
    pub(crate) fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        str::from_utf8(text).ok().map(str::to_string)
    }

    /// Reads length, times, inode and device of a file.
    pub(crate) fn stamp(&mut self) -> Option<FileStamp> {
        let (len, mtime_ns, ctime_ns) = (self.number()?, self.number()? as i64, self.number()? as i64);
        Some(FileStamp { len, mtime_ns, ctime_ns, inode: self.number()?, device: self.number()? })
    }

    /// Reads a count and so many items; memory grows with the items read, not with the count.
    pub(crate) fn list<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.number()?).ok()?;
        // Each element takes at least eight bytes, so a damaged count cannot ask for more memory than the file has.
        let mut list = Vec::with_capacity(count.min(self.0.len() / 8));
        for _ in 0..count {
            list.push(one(self)?);
        }
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> IndexMeta {
        let stamp = FileStamp { len: 3, mtime_ns: -1, ctime_ns: i64::MAX, inode: 8, device: 9 };
        let segment = |start, first_seen| SegmentMeta {
            file: FileId(0),
            container: 0,
            at: u64::MAX,
            start,
            end: start + 7,
            content: 5,
            tail: start == 7,
            first_seen,
        };
        IndexMeta {
            sequence: 4,
            birth: Some(-7),
            latest: Some(12),
            lost: Some(MemoryLoss::OtherVersion),
            root: "/stores/a".into(),
            present: 10,
            times: "times-4".into(),
            vanished: "vanished-3".into(),
            files: vec![FileEntry {
                name: "ä/b.ndjson".into(),
                compression: Compression::Zstd,
                stamp,
                settled: true,
                raw: 9,
                appendable: true,
            }],
            containers: vec![IndexFile { name: "extents-1".into(), stamp: Some(stamp) }],
            segments: vec![segment(0, Some(-7)), segment(7, None)],
            global: IndexFile::new("merged-1".into()),
            unproven: UnprovenPolicy::Export,
            follow_symlinks: true,
            ignore_hash: 77,
            ..IndexMeta::empty(Validate::Structure)
        }
    }

    /// What is written is read back; what is cut short or changed anywhere is refused.
    #[test]
    fn a_generation_reads_back_or_not_at_all() {
        for until in [None, Some(6)] {
            let with_gap = IndexMeta { vanished_gap: Some(VanishedGap { until }), ..meta() };
            assert_eq!(IndexMeta::from_bytes(&with_gap.to_bytes()), Some(with_gap));
        }
        let meta = meta();
        let bytes = meta.to_bytes();
        assert_eq!(IndexMeta::from_bytes(&bytes), Some(meta));
        for offset in 0..bytes.len() {
            assert_eq!(IndexMeta::from_bytes(&bytes[..offset]), None);
            assert!(IndexMeta::read_body(&bytes[offset..bytes.len() - 1]).is_none_or(|read| read.files.len() < 9));
            let mut damaged = bytes.clone();
            damaged[offset] ^= 1;
            assert_eq!(IndexMeta::from_bytes(&damaged), None, "byte {offset}");
        }
    }

    /// A forged file, its checksum right, cannot have anything opened outside of the store and the index.
    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let reads = |change: &dyn Fn(&mut IndexMeta)| {
            let mut meta = meta();
            change(&mut meta);
            IndexMeta::from_bytes(&meta.to_bytes()).is_some()
        };
        assert!(reads(&|_| {}));
        for name in [
            "../x.ndjson",
            "/etc/x.ndjson",
            "a/../x.ndjson",
            "a//x.ndjson",
            ".hidden/x.ndjson",
            "passwd",
            "",
            r"\x2e\x2e/x.ndjson",
        ] {
            assert!(!reads(&|meta| meta.files[0].name = name.to_string()), "{name}");
        }
        for name in ["../extents-1", "extents-/../../x", "extents-1/x", "merged-1", "lock", "", "/extents-1"] {
            assert!(!reads(&|meta| meta.containers[0].name = name.to_string()), "{name}");
        }
        for name in ["../merged-1", "merged-/../x", "extents-1", "generation"] {
            assert!(!reads(&|meta| meta.global.name = name.to_string()), "{name}");
        }
        for name in ["../times-1", "times-/x", "vanished-1", "generation"] {
            assert!(!reads(&|meta| meta.times = name.to_string()), "{name}");
        }
        for name in ["../vanished-1", "vanished-/x", "times-1", "generation"] {
            assert!(!reads(&|meta| meta.vanished = name.to_string()), "{name}");
        }
        assert!(reads(&|meta| {
            (meta.global.name, meta.times, meta.vanished) = (String::new(), String::new(), String::new())
        }));
    }

    /// What vanished before the first snapshot after a damage is not known to exports since an earlier time, but for those
    /// of snapshots before it, which are resumed.
    #[test]
    fn a_gap_ends_with_the_first_snapshot_after_it() {
        let at = |ticks: i64| Instant { ticks, rest: Box::default() };
        assert_eq!(meta().vanished_unknown_since(&at(1), &at(50)), None);
        for (until, first, ends) in [(None, None, 50), (None, Some(30), 30), (Some(20), Some(30), 20)] {
            let gap = IndexMeta { vanished_gap: Some(VanishedGap { until }), first, ..meta() };
            assert_eq!(gap.vanished_unknown_since(&at(ends - 1), &at(50)), Some(ends));
            assert_eq!(gap.vanished_unknown_since(&at(ends), &at(50)), None);
            assert_eq!(gap.vanished_unknown_since(&at(1), &at(10)), (ends == 50).then_some(10));
        }
    }

    /// A snapshot log gives back what `note_snapshot` changed, for its own index meta only.
    #[test]
    fn a_note_gives_back_what_was_seen() {
        let published = meta();
        let mut seen = published.clone();
        assert!(seen.note_snapshot(&Instant { ticks: 20, rest: Box::default() }.into()).1);
        let log = seen.log_since(published.first);
        let mut again = published.clone();
        assert!(again.apply(&log) && again == seen);
        let mut other = IndexMeta { sequence: 5, ..published.clone() };
        assert!(!other.apply(&log) && other.latest == published.latest);
    }
}
