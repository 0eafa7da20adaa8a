//! The opened index ([`Index`]) and the view that one export has of it ([`Snapshot`]).
//!
//! A snapshot is the set of visible segments and the transactionTime T. With both, the state of a row at T, its owners
//! and whether it is late are fixed, whatever is appended to the store later. Opening and refreshing are in `open` and
//! `refresh`.

use crate::codec::compression::{Compression, SeekPoint};
use crate::error::{CorruptIndex, IndexError};
use crate::fhir::instant::{Instant, InstantRef};
use crate::ids::{BaseId, EntryId, FileId, OwnerId, OwnerOrd, RecordId, RowAddress, SegmentId, TargetId};
use crate::index::dir::{IndexBytes, IndexDir};
use crate::index::global::{GlobalIndex, Section, SegmentOffsets};
use crate::index::meta::{IndexMeta, SegmentMeta};
use crate::index::row_times::{RowTimes, TimeRun, time_of_entry, time_of_row};
use crate::index::search::columns::SearchColumns;
use crate::index::segment::layout::{BASE_BITS, Column};
use crate::index::segment::reader::Segment;
use crate::index::snapshot_record::{RecordedRules, SegmentRef, SnapshotRecord};
use crate::index::store_files::StoreFiles;
use crate::index::vanished::{VanishedFile, VanishedResource};
use crate::store::SearchColumnOptions;
use crate::store::packed::seek_table::SeekTable;
use crate::store::walk::Walk;
use crate::sys::store_file::{StoreFile, StoreFileError};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde::{Serialize, Serializer};

/// One consistent, opened index of a store. Index pages and store files are read on first use.
pub struct Index {
    meta: IndexMeta,
    /// First-seen times of rows.
    times: RowTimes,
    segments: Vec<Segment>,
    global: GlobalIndex,
    files: StoreFiles,
    /// Seek points of each compressed file, ascending.
    restarts: HashMap<FileId, Vec<SeekPoint>>,
    /// Reference bases of the store, the empty one first.
    bases: Vec<String>,
    /// For each base of each segment its number in `bases`.
    base_numbers: Vec<u32>,
    starts: SegmentOffsets,
    /// Whether the index is on disk.
    durable: bool,
    /// Seek tables of packed files, read on first use.
    tables: Vec<OnceLock<Option<Box<SeekTable>>>>,
    /// Resources that are gone from the store.
    vanished: VanishedFile,
    /// Values of search parameters.
    search: SearchColumns,
}

impl Index {
    /// An index of opened segments, in the order of `meta`. Reads seek points and bases.
    pub(crate) fn new(
        meta: IndexMeta,
        times: RowTimes,
        segments: Vec<Segment>,
        global: GlobalIndex,
        mut files: StoreFiles,
        dir: Arc<IndexDir>,
    ) -> Result<Index, CorruptIndex> {
        files.take_compressions(&meta);
        let mut restarts: HashMap<FileId, Vec<SeekPoint>> = HashMap::new();
        for (entry, segment) in meta.segments.iter().zip(&segments) {
            if files.compression(entry.file) == Compression::None {
                continue;
            }
            let (pairs, _) = segment.verify_columns(&[Column::Restart])?.restart.as_chunks::<2>();
            restarts.entry(entry.file).or_default().extend(
                pairs.iter().map(|[uncompressed, compressed]| SeekPoint {
                    compressed: *compressed,
                    uncompressed: *uncompressed,
                }),
            );
        }
        restarts.values_mut().for_each(|list| list.sort_by_key(|restart| (restart.uncompressed, restart.compressed)));
        let bases = global.bases()?;
        let base_numbers = global.verified_words(Section::SegmentBase, 0..global.count(Section::SegmentBase))?.to_vec();
        let starts = SegmentOffsets::of(segments.iter().map(Segment::head));
        let tables = meta.files.iter().map(|_| OnceLock::new()).collect();
        let vanished = VanishedFile::default();
        let durable = dir.is_durable();
        let search = SearchColumns::new(dir, &meta);
        Ok(Index {
            tables,
            meta,
            times,
            segments,
            global,
            files,
            restarts,
            bases,
            base_numbers,
            starts,
            durable,
            vanished,
            search,
        })
    }

    /// The same index, which may get these search columns.
    pub(crate) fn with_search_columns(self, options: SearchColumnOptions) -> Index {
        Index { search: self.search.with_options(options), ..self }
    }

    /// The same index with its file of vanished resources.
    pub(crate) fn with_vanished(self, vanished: VanishedFile) -> Index {
        Index { vanished, ..self }
    }

    /// Resources that are gone from the store without a deletion, as the index remembers them.
    ///
    /// # Errors
    /// [`CorruptIndex`] if their file is lost or damaged.
    pub(crate) fn vanished(&self) -> Result<&[VanishedResource], CorruptIndex> {
        self.vanished.list()
    }

    /// Values of search parameters, as far as they are kept.
    pub(crate) fn search(&self) -> &SearchColumns {
        &self.search
    }

    /// Number of resource rows of all segments, visible or not.
    pub fn rows(&self) -> usize {
        self.starts.rows
    }

    /// Number of segments of the index.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The segments of the index, in store order.
    pub fn segment_ids(&self) -> impl ExactSizeIterator<Item = SegmentId> + Clone + use<> {
        (0..self.segments.len()).map(SegmentId::of)
    }

    /// An opened segment.
    pub fn segment(&self, segment: SegmentId) -> &Segment {
        &self.segments[segment.index()]
    }

    /// The opened segments, in store order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The entry of a segment in the index meta.
    pub fn entry(&self, segment: SegmentId) -> &SegmentMeta {
        &self.meta.segments[segment.index()]
    }

    /// The store files of the index, in store order.
    pub fn file_ids(&self) -> impl ExactSizeIterator<Item = FileId> + use<> {
        self.meta.file_ids()
    }

    /// The store file that a segment is of.
    pub fn file_of(&self, segment: SegmentId) -> FileId {
        self.entry(segment).file
    }

    /// First-seen times of the rows of a segment that have other ones than the segment.
    pub(crate) fn row_times(&self, segment: SegmentId) -> &[TimeRun] {
        self.times.runs(segment.index())
    }

    /// T of the first snapshot that held a row, in ticks; `None` before the first.
    pub fn first_seen(&self, address: RowAddress) -> Option<i64> {
        let (segment, row) = address.parts();
        time_of_row(self.times.runs(segment.index()), row, self.entry(segment).first_seen)
    }

    /// T of the first snapshot that held a DELETE entry, in ticks; `None` before the first.
    pub(crate) fn entry_first_seen(&self, segment: SegmentId, entry: EntryId) -> Option<i64> {
        let rows = self.segment(segment).rows();
        time_of_entry(self.times.runs(segment.index()), rows, entry, self.entry(segment).first_seen)
    }

    /// The index meta that this index was opened from.
    pub fn generation(&self) -> &IndexMeta {
        &self.meta
    }

    /// The global index over the segments.
    pub fn global(&self) -> &GlobalIndex {
        &self.global
    }

    /// For each segment of a record its number in this index; `None` if the index has no segment of that file, range
    /// and content.
    pub(crate) fn find_segments(&self, record: &SnapshotRecord) -> Vec<Option<SegmentId>> {
        let key = |file, start, end, content, tail| (file, start, end, content, tail);
        let entries = self.segment_ids().zip(&self.meta.segments);
        let mut known: HashMap<_, SegmentId> = entries
            .map(|(i, e)| (key(&*self.meta.files[e.file.index()].name, e.start, e.end, e.content, e.tail), i))
            .collect();
        // Other rules make other rows of the same bytes, and so does another policy if they are compressed.
        let same_policy = record.unproven == self.meta.unproven;
        let same_rules = record.rules.rules() == self.meta.rules;
        let may_have = |segment: SegmentId| {
            same_rules && (same_policy || self.compression(self.file_of(segment)) == Compression::None)
        };
        let wanted = record.segments.iter();
        // A segment occurs once in a snapshot.
        wanted
            .map(|e| {
                known.remove(&key(&*e.file, e.start, e.end, e.content, e.tail)).filter(|segment| may_have(*segment))
            })
            .collect()
    }

    /// Name of a store file, relative to the store.
    pub fn file_name(&self, file: FileId) -> &str {
        &self.meta.files[file.index()].name
    }

    /// A store file, opened on first use. [`Index::verify_unchanged`] finds out if it is no longer the one that was
    /// indexed.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn source(&self, file: FileId) -> Result<&StoreFile, StoreFileError> {
        self.files.source(file)
    }

    /// A store file that stays open as long as it is read, whatever becomes of the index.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn shared_source(&self, file: FileId) -> Result<Arc<StoreFile>, StoreFileError> {
        self.files.shared_source(file)
    }

    /// Compression of a store file, as the index has read it.
    pub fn compression(&self, file: FileId) -> Compression {
        self.files.compression(file)
    }

    /// The seek table of a packed file; `None` for any other file, and when the table is damaged or the file
    /// unreadable.
    pub fn packed(&self, file: FileId) -> Option<&SeekTable> {
        if self.compression(file) == Compression::None {
            return None;
        }
        // An unreadable file fails when its rows are read.
        let open = || SeekTable::open(self.source(file).ok()?).ok().flatten().map(Box::new);
        self.tables[file.index()].get_or_init(open).as_deref()
    }

    /// Whether a store file has not changed since it was indexed, by its stamp alone.
    pub(crate) fn is_current(&self, file: FileId) -> bool {
        self.files.is_current(file)
    }

    /// Asks the kernel to read the files that hold the segments, but those that seem to be in the page cache.
    pub(crate) fn read_ahead(&self) {
        let mut containers: Vec<&Arc<IndexBytes>> = self.segments.iter().map(Segment::container).collect();
        containers.dedup_by(|a, b| Arc::ptr_eq(a, b));
        containers.into_iter().for_each(|container| container.read_ahead());
    }

    /// The last seek point of a compressed file at or before an uncompressed offset.
    pub fn restart_before(&self, file: FileId, offset: u64) -> SeekPoint {
        let list = self.restarts.get(&file).map_or(&[][..], Vec::as_slice);
        let after = list.partition_point(|restart| restart.uncompressed <= offset);
        // Several seek points may share an uncompressed offset (empty members); any of them will do.
        if after == 0 { SeekPoint { compressed: 0, uncompressed: 0 } } else { list[after - 1] }
    }

    /// Reference bases in the store, the empty one first.
    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// The base of the index that base `base` of a segment is.
    pub fn base_of_segment(&self, segment: SegmentId, base: u32) -> BaseId {
        BaseId(self.base_numbers[self.starts.base[segment.index()] + base as usize])
    }

    /// First numbers of the records, owners and targets of each segment.
    pub(in crate::index) fn starts(&self) -> &SegmentOffsets {
        &self.starts
    }

    /// The record that a row is.
    pub fn record_of_row(&self, address: RowAddress) -> RecordId {
        RecordId::of(self.starts.row[address.segment.index()] + address.row.index())
    }

    /// The record that a DELETE entry of a segment is.
    pub fn record_of_entry(&self, segment: SegmentId, entry: EntryId) -> RecordId {
        RecordId::of(self.starts.rows + self.starts.tombstone[segment.index()] + entry.index())
    }

    /// Whether a record is a row; else it is a DELETE entry.
    pub fn is_row(&self, record: RecordId) -> bool {
        record.index() < self.starts.rows
    }

    /// The address of a record that is a row.
    pub fn locate(&self, row: RecordId) -> RowAddress {
        let segment = SegmentId::of(self.starts.row.partition_point(|start| *start <= row.index()) - 1);
        RowAddress::of(segment, row.index() - self.starts.row[segment.index()])
    }

    /// The segment that holds a record that is a DELETE entry, and the entry in it.
    pub fn locate_tombstone(&self, record: RecordId) -> (SegmentId, EntryId) {
        let position = record.index() - self.starts.rows;
        let segment = SegmentId::of(self.starts.tombstone.partition_point(|start| *start <= position) - 1);
        (segment, EntryId::of(position - self.starts.tombstone[segment.index()]))
    }

    /// The number over the store of an owner of a segment.
    pub fn owner_of_segment(&self, segment: SegmentId, owner: OwnerOrd) -> OwnerId {
        OwnerId::of(self.starts.owner[segment.index()] + owner.index())
    }

    /// The segment that holds an owner, and its place among those of the segment.
    pub fn locate_owner(&self, owner: OwnerId) -> (SegmentId, OwnerOrd) {
        let segment = SegmentId::of(self.starts.owner.partition_point(|start| *start <= owner.index()) - 1);
        (segment, OwnerOrd::of(owner.index() - self.starts.owner[segment.index()]))
    }

    /// The segment that holds a target, and the number of the target in it.
    pub fn locate_target(&self, target: TargetId) -> (SegmentId, usize) {
        let segment = SegmentId::of(self.starts.target.partition_point(|start| *start <= target.index()) - 1);
        (segment, target.index() - self.starts.target[segment.index()])
    }

    /// Paths in the store, relative to it, that the walk ignored because they are no data files.
    pub fn ignored_files(&self) -> &[String] {
        self.files.ignored_names()
    }

    /// The walk that found the store's files.
    pub(crate) fn walked(&self) -> &Walk {
        self.files.walked()
    }

    /// Whether the index is on disk and outlives the process.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Checks that every store file that was opened still holds the bytes that its segments were made from. Content is
    /// read only if size or times have changed. Files that were not opened are not checked: no byte of them was
    /// exported.
    ///
    /// # Errors
    /// [`IndexError::Changed`] or [`IndexError::StoreFile`] with the file's name.
    pub fn verify_unchanged(&self) -> Result<(), IndexError> {
        for (file, source) in self.files.opened_files() {
            source.check()?;
            if source.changed()? || source.stamp() != self.meta.files[file.index()].stamp {
                self.verify_content(file)?;
            }
        }
        Ok(())
    }
}

/// The view that one export has of a store: the visible segments of an index, as of T.
#[derive(Clone)]
pub struct Snapshot {
    index: Arc<Index>,
    as_of: Instant,
    /// For each segment whether it is visible; all are unless the snapshot was reopened from a record.
    visible: Arc<[bool]>,
    /// Vanished resources of a snapshot that was reopened from a record; those of the index if `None`.
    vanished: Option<Arc<[VanishedResource]>>,
}

/// The visible segments of a snapshot, serialized as the list of them that a record has.
pub(crate) struct RecordedSegments<'a>(&'a Snapshot);

impl Serialize for RecordedSegments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.recorded_segments())
    }
}

/// State of a resource version at some instant, as the ledger counts it (reading 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// The current version of its resource.
    Current,
    /// Its lastUpdated is after the instant.
    Future,
    /// A later version of the resource exists at the instant.
    Superseded,
    /// No later version exists, and a DELETE entry ended it.
    Deleted,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("as_of", &self.as_of).field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// The snapshot of all segments of an index, as of T.
    pub fn new(index: Arc<Index>, as_of: Instant) -> Snapshot {
        let visible = vec![true; index.segment_count()].into();
        Snapshot { index, as_of, visible, vanished: None }
    }

    /// The snapshot of all segments of an index as of an instant; the index does not record it.
    pub fn of_latest(index: Index, as_of: Instant) -> Snapshot {
        Snapshot::new(Arc::new(index), as_of)
    }

    /// The snapshot of the segments of a record, as of T.
    ///
    /// # Errors
    /// The index, and the number of the first segment of the record that it lacks.
    pub(crate) fn of_segments(
        mut index: Index,
        record: &SnapshotRecord,
        as_of: Instant,
    ) -> Result<Snapshot, (Box<Index>, usize)> {
        let found = index.find_segments(record);
        if let Some(missing) = found.iter().position(Option::is_none) {
            return Err((Box::new(index), missing));
        }
        let mut visible = vec![false; index.segment_count()];
        index.meta.birth = record.birth;
        let mut runs: Vec<(usize, Vec<TimeRun>)> = Vec::new();
        for (i, wanted) in found.into_iter().flatten().zip(&record.segments) {
            visible[i.index()] = true;
            index.meta.segments[i.index()].first_seen = wanted.first_seen;
            let run = |(row, first_seen): &(u32, Option<i64>)| TimeRun { row: *row, first_seen: *first_seen };
            runs.push((i.index(), wanted.row_times.iter().map(run).collect()));
        }
        // As the record has them: the index may have learned of other snapshots since.
        index.times = RowTimes::default();
        runs.sort_by_key(|(segment, _)| *segment);
        runs.into_iter().for_each(|(segment, runs)| index.times.push(segment, runs));
        // What the index has missed since is not of this snapshot.
        let vanished = Some(Arc::from([]));
        Ok(Snapshot { index: Arc::new(index), as_of, visible: visible.into(), vanished })
    }

    /// The same snapshot with the vanished resources that a record of it holds.
    pub(crate) fn with_vanished(self, vanished: Vec<VanishedResource>) -> Snapshot {
        Snapshot { vanished: Some(vanished.into()), ..self }
    }

    /// Resources that are gone from the store without a deletion.
    ///
    /// # Errors
    /// [`CorruptIndex`] if their file in the index is lost or damaged.
    pub(crate) fn vanished(&self) -> Result<&[VanishedResource], CorruptIndex> {
        self.vanished.as_deref().map_or_else(|| self.index.vanished(), Ok)
    }

    /// The record from which this snapshot can be reopened.
    pub fn record(&self) -> SnapshotRecord {
        let owned = |segment: SegmentRef<&str>| {
            let SegmentRef { file, start, end, content, tail, compression, first_seen, row_times } = segment;
            SegmentRef { file: file.to_string(), start, end, content, tail, compression, first_seen, row_times }
        };
        self.record_with(self.recorded_segments().map(owned).collect())
    }

    /// The same to be written: of a store of many files it takes no memory.
    pub(crate) fn borrowed_record(&self) -> SnapshotRecord<RecordedSegments<'_>> {
        self.record_with(RecordedSegments(self))
    }

    /// The visible segments as a record has them.
    fn recorded_segments(&self) -> impl Iterator<Item = SegmentRef<&str>> {
        self.segments().map(|segment| {
            let entry = self.index.entry(segment);
            SegmentRef {
                file: self.index.file_name(self.index.file_of(segment)),
                start: entry.start,
                end: entry.end,
                content: entry.content,
                tail: entry.tail,
                compression: self.index.meta.files[entry.file.index()].other_compression(),
                first_seen: entry.first_seen,
                row_times: self.index.row_times(segment).iter().map(|run| (run.row, run.first_seen)).collect(),
            }
        })
    }

    /// The record with these segments.
    fn record_with<S>(&self, segments: S) -> SnapshotRecord<S> {
        SnapshotRecord {
            as_of: self.as_of.to_string(),
            rules: RecordedRules::of(self.index.meta.rules),
            unproven: self.index.meta.unproven,
            follow_symlinks: self.index.meta.follow_symlinks,
            birth: self.index.meta.birth,
            segments,
        }
    }

    /// Id of the snapshot: the same bytes at the same T have the same id on any machine.
    pub fn id(&self) -> String {
        self.borrowed_record().snapshot_id()
    }

    /// The index that the snapshot is of.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The transactionTime T.
    pub fn as_of(&self) -> &Instant {
        &self.as_of
    }

    /// Whether a segment is visible in the snapshot.
    pub fn sees_segment(&self, segment: SegmentId) -> bool {
        self.visible[segment.index()]
    }

    /// The visible segments, in store order.
    pub fn segments(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.index.segment_ids().filter(|segment| self.visible[segment.index()])
    }

    /// Whether rows or DELETE entries of a segment may be late for an export since `since`: its latest are.
    pub fn is_late(&self, segment: SegmentId, since: &Instant) -> bool {
        self.index.meta.is_late(self.index.entry(segment), since)
    }

    /// Whether a row is late for an export since `since`.
    pub fn is_late_row(&self, address: RowAddress, since: &Instant) -> bool {
        self.is_late(address.segment, since) && self.index.meta.came_late(self.index.first_seen(address), since)
    }

    /// Whether a DELETE entry is late for an export since `since`.
    pub(crate) fn is_late_entry(&self, segment: SegmentId, entry: EntryId, since: &Instant) -> bool {
        self.is_late(segment, since) && self.index.meta.came_late(self.index.entry_first_seen(segment, entry), since)
    }

    /// Whether every segment of the index is visible.
    pub fn sees_whole_index(&self) -> bool {
        self.visible.iter().all(|visible| *visible)
    }

    /// State of a row at `instant`, which is T or earlier, by the records of visible segments that `known` accepts.
    ///
    /// `ours` holds for each of `Index::bases` whether it is a base of this store: DELETE entries under other bases are
    /// ignored.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub fn state(
        &self,
        address: RowAddress,
        instant: InstantRef<'_>,
        ours: &[bool],
        known: &dyn Fn(SegmentId) -> bool,
    ) -> Result<RowState, CorruptIndex> {
        let index = &*self.index;
        // Most segments have no row after T, by their headers; then the lastUpdated of the row is not read.
        let (segment_id, row) = address.parts();
        let segment = index.segment(segment_id);
        if segment.head().updated_max() >= instant.ticks
            && segment.updated(row)?.is_some_and(|updated| updated > instant)
        {
            return Ok(RowState::Future);
        }
        let mut next = index.global.next(index.record_of_row(address))?;
        let mut deleted = false;
        while let Some(number) = next {
            if index.is_row(number) {
                let (segment_id, row) = index.locate(number).parts();
                if index.segment(segment_id).updated(row)?.is_some_and(|updated| updated > instant) {
                    break;
                }
                if self.sees_segment(segment_id) && known(segment_id) {
                    return Ok(RowState::Superseded);
                }
            } else {
                let (segment_id, entry) = index.locate_tombstone(number);
                let columns = index.segment(segment_id).tombstone(entry)?;
                if columns.tombstone_updated(entry).is_none_or(|updated| updated > instant) {
                    break;
                }
                let base = index.base_of_segment(segment_id, columns.tomb_base[entry.index()] & BASE_BITS);
                deleted |= self.sees_segment(segment_id) && known(segment_id) && ours[base.index()];
            }
            next = index.global.next(number)?;
        }
        Ok(if deleted { RowState::Deleted } else { RowState::Current })
    }
}
