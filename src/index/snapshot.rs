//! An opened index, and the snapshot that one export sees of it.
//!
//! A snapshot is the segments visible to an export and its transactionTime T; with them every question about a row
//! (is it current at T, whose is it, is it late) has one answer, whatever happens to the store meanwhile.

use crate::codec::compression::{Compression, SeekPoint};
use crate::codec::decoder::Decoder;
use crate::error::{CorruptIndex, IndexError};
use crate::extract::Validate;
use crate::fhir::id::Id;
use crate::fhir::instant::{Instant, InstantRef};
use crate::hash::Hasher64;
use crate::index::global::{GlobalIndex, Section, SegmentOffsets};
use crate::index::meta::{IndexMeta, SegmentMeta};
use crate::index::segment::layout::{BASE_BITS, Column};
use crate::index::segment::reader::Segment;
use crate::index::store_files::StoreFiles;
use crate::store::packed::frame_reader::FrameReader;
use crate::store::packed::seek_table::SeekTable;
use crate::sys::store_file::{StoreFile, StoreFileError};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

/// One consistent index of a store. Its files, and those of the store, are read as they are asked.
pub struct Index {
    generation: IndexMeta,
    segments: Vec<Segment>,
    global: GlobalIndex,
    files: StoreFiles,
    /// Restarts of each compressed file, ascending.
    restarts: Vec<Vec<SeekPoint>>,
    bases: Vec<String>,
    base_numbers: Vec<u32>,
    starts: SegmentOffsets,
    durable: bool,
    /// Tables of packed files, read when first asked for.
    tables: Vec<OnceLock<Option<Box<SeekTable>>>>,
}

impl Index {
    pub(crate) fn new(
        generation: IndexMeta,
        segments: Vec<Segment>,
        global: GlobalIndex,
        files: StoreFiles,
        durable: bool,
    ) -> Result<Index, CorruptIndex> {
        let mut restarts = vec![Vec::new(); files.count()];
        for (entry, segment) in generation.segments.iter().zip(&segments) {
            if files.compression(entry.file) == Compression::None {
                continue;
            }
            let (pairs, _) = segment.verify_columns(&[Column::Restart])?.restart.as_chunks::<2>();
            restarts[entry.file].extend(
                pairs.iter().map(|[uncompressed, compressed]| SeekPoint {
                    compressed: *compressed,
                    uncompressed: *uncompressed,
                }),
            );
        }
        restarts.iter_mut().for_each(|list| list.sort_by_key(|restart| (restart.uncompressed, restart.compressed)));
        let bases = global.bases()?;
        let base_numbers = global.verified_words(Section::SegmentBase, 0..global.count(Section::SegmentBase))?.to_vec();
        let starts = SegmentOffsets::of(segments.iter().map(Segment::head));
        let tables = generation.files.iter().map(|_| OnceLock::new()).collect();
        Ok(Index { tables, generation, segments, global, files, restarts, bases, base_numbers, starts, durable })
    }

    /// Resource rows of all segments.
    pub fn rows(&self) -> usize {
        self.starts.rows
    }

    /// Number of segments.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The segments, in store order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What the generation says of a segment.
    pub fn entry(&self, segment: usize) -> &SegmentMeta {
        &self.generation.segments[segment]
    }

    /// The generation.
    pub fn generation(&self) -> &IndexMeta {
        &self.generation
    }

    /// The merged facts.
    pub fn global(&self) -> &GlobalIndex {
        &self.global
    }

    /// The segments that a record names, by their numbers here; `None` for those that are not here as they were.
    pub(crate) fn find_segments(&self, record: &SnapshotRecord) -> Vec<Option<usize>> {
        let key = |file, start, end, content, tail| (file, start, end, content, tail);
        let entries = self.generation.segments.iter().enumerate();
        let mut known: HashMap<_, usize> =
            entries.map(|(i, e)| (key(self.file_name(e.file), e.start, e.end, e.content, e.tail), i)).collect();
        let wanted = record.segments.iter();
        // Each stands once in a snapshot.
        wanted.map(|e| known.remove(&key(&*e.file, e.start, e.end, e.content, e.tail))).collect()
    }

    /// Name of a store file, relative to the store.
    pub fn file_name(&self, file: usize) -> &str {
        &self.generation.files[file].name
    }

    /// A store file, opened when it is first asked for. Should it be another by then than the one that was indexed,
    /// [`Index::verify_unchanged`] tells.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn source(&self, file: usize) -> Result<&StoreFile, StoreFileError> {
        self.files.source(file)
    }

    /// Compression of a store file.
    pub fn compression(&self, file: usize) -> Compression {
        self.files.compression(file)
    }

    /// The table of a packed file, `None` when the file has none that can be used.
    pub fn packed(&self, file: usize) -> Option<&SeekTable> {
        if self.compression(file) != Compression::Zstd {
            return None;
        }
        // A file that cannot be read tells so when its rows are.
        let open = || SeekTable::open(self.source(file).ok()?).ok().flatten().map(Box::new);
        self.tables[file].get_or_init(open).as_deref()
    }

    /// The last restart of a compressed file at or before an uncompressed offset.
    pub fn restart_before(&self, file: usize, offset: u64) -> SeekPoint {
        let list = &self.restarts[file];
        let after = list.partition_point(|restart| restart.uncompressed <= offset);
        // Several restarts may share an uncompressed offset (empty members); any of them serves.
        if after == 0 { SeekPoint { compressed: 0, uncompressed: 0 } } else { list[after - 1] }
    }

    /// Reference bases in the store, the empty one first.
    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// Number of a segment's base among [`Index::bases`].
    pub fn base_number(&self, segment: usize, base: u32) -> u32 {
        self.base_numbers[self.starts.base[segment] + base as usize]
    }

    /// Numbers of the first row, DELETE entry, target and owner of each segment.
    pub fn starts(&self) -> &SegmentOffsets {
        &self.starts
    }

    /// The segment that holds a row, and the row's number in it.
    pub fn locate(&self, row: usize) -> (usize, usize) {
        let segment = self.starts.row.partition_point(|start| *start <= row) - 1;
        (segment, row - self.starts.row[segment])
    }

    /// The segment that holds a DELETE entry (counted over the store), and its number in it.
    pub fn locate_tombstone(&self, offset: usize) -> (usize, usize) {
        let segment = self.starts.tombstone.partition_point(|start| *start <= offset) - 1;
        (segment, offset - self.starts.tombstone[segment])
    }

    /// The segment that holds an owner (counted over the store), and its number in it.
    pub fn locate_owner(&self, offset: usize) -> (usize, usize) {
        let segment = self.starts.owner.partition_point(|start| *start <= offset) - 1;
        (segment, offset - self.starts.owner[segment])
    }

    /// The segment that holds a target (counted over the store), and its number in it.
    pub fn locate_target(&self, offset: usize) -> (usize, usize) {
        let segment = self.starts.target.partition_point(|start| *start <= offset) - 1;
        (segment, offset - self.starts.target[segment])
    }

    /// The number of a patient named by a base (a number among [`Index::bases`]) and an id.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub fn patient(&self, base: u32, id: &Id) -> Result<Option<u32>, CorruptIndex> {
        let hash = crate::index::segment::id_encoding::owner_hash(self.bases[base as usize].as_bytes(), id.as_bytes());
        let first = self.global.lower_bound(Section::PatientHash, hash)?;
        for i in first..self.patients() {
            if self.global.verified_longs(Section::PatientHash, i..i + 1)?[0] != hash {
                break;
            }
            if self.global.word(Section::PatientBase, i)? == base && self.patient_id(i as u32)? == *id {
                return Ok(Some(i as u32));
            }
        }
        Ok(None)
    }

    /// How many patients the dictionary has: every (base, id) that a reference or a Patient row names.
    pub fn patients(&self) -> usize {
        self.global.count(Section::PatientHash)
    }

    /// The owners (counted over the store) that are a patient of the dictionary, one in each segment that names it.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub fn owners_of_patient(&self, patient: u32) -> Result<&[u32], CorruptIndex> {
        let offset = patient as usize;
        let span = self.global.verified_words(Section::PatientStart, offset..offset + 2)?;
        self.global.verified_words(Section::Occurrence, span[0] as usize..span[1] as usize)
    }

    /// The patient that an owner of a segment is.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub fn patient_of_owner(&self, segment: usize, owner: u32) -> Result<u32, CorruptIndex> {
        self.global.word(Section::OwnerPatient, self.starts.owner[segment] + owner as usize)
    }

    /// The id of a patient of the dictionary.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub fn patient_id(&self, patient: u32) -> Result<Id, CorruptIndex> {
        let first = self.owners_of_patient(patient)?.first().ok_or(CorruptIndex("a patient has no name"))?;
        let (segment, owner) = self.locate_owner(*first as usize);
        self.segments[segment].owner_id(owner)
    }

    /// Files in the store's tree that are no data files.
    pub fn ignored_files(&self) -> &[String] {
        self.files.ignored_names()
    }

    /// Whether the index is kept on disk.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Checks that every store file that was read still holds the bytes that its segments were made from, if it was
    /// touched at all. Of a file that was not opened nothing has left, so nothing is asked of it.
    ///
    /// # Errors
    /// [`IndexError::Changed`] or [`IndexError::StoreFile`] with the file's name.
    pub fn verify_unchanged(&self) -> Result<(), IndexError> {
        for (file, source) in self.files.opened_files() {
            source.check()?;
            if source.changed()? || source.stamp() != self.generation.files[file].stamp {
                self.verify_content(file)?;
            }
        }
        Ok(())
    }

    /// Hashes the bytes behind each segment of a file again.
    ///
    /// # Errors
    /// As [`Index::verify_unchanged`].
    pub fn verify_content(&self, file: usize) -> Result<(), IndexError> {
        let source = self.source(file)?;
        let changed = |what: &str| IndexError::Changed {
            path: source.path().to_path_buf(),
            reason: format!(
                "was {what} in place while it was in use; replace store files by rename, then run the same command again"
            ),
        };
        let entries: Vec<&SegmentMeta> = self.generation.segments.iter().filter(|e| e.file == file).collect();
        if self.files.compression(file) == Compression::None {
            for entry in entries {
                if entry.end > source.len() {
                    return Err(changed("truncated"));
                }
                if source.content_hash(entry.start..entry.end)? != entry.content {
                    return Err(changed("rewritten"));
                }
            }
            return Ok(());
        }
        if let Ok(Some(table)) = SeekTable::open(source) {
            return self.verify_frames(source, &table, &entries).then_some(()).ok_or_else(|| changed("rewritten"));
        }
        let from = SeekPoint { compressed: 0, uncompressed: 0 };
        let Ok(mut decoder) = Decoder::new(source, self.files.compression(file), from) else {
            return Err(changed("truncated"));
        };
        let mut hash = Hasher64::new();
        let (mut offset, mut next) = (0u64, 0);
        while let Some(piece) = decoder.piece(|_| {}).ok().flatten() {
            let mut piece = piece;
            while next < entries.len() && entries[next].end <= offset + piece.len() as u64 {
                let (own, rest) = piece.split_at((entries[next].end - offset) as usize);
                hash.update(own);
                if hash.digest() != entries[next].content {
                    return Err(changed("rewritten"));
                }
                hash = Hasher64::new();
                offset += own.len() as u64;
                piece = rest;
                next += 1;
            }
            hash.update(piece);
            offset += piece.len() as u64;
        }
        // An empty segment at the end holds a fault only, and no bytes that could have changed.
        while next < entries.len() && entries[next].end == offset && hash.digest() == entries[next].content {
            hash = Hasher64::new();
            next += 1;
        }
        if next < entries.len() { Err(changed("truncated")) } else { Ok(()) }
    }

    /// Whether the frames of a packed file hash to what the segments were made from; damaged ones have no bytes.
    fn verify_frames(&self, source: &StoreFile, table: &SeekTable, entries: &[&SegmentMeta]) -> bool {
        let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
        let mut hashes = entries.iter().map(|entry| (entry, Hasher64::new())).collect::<Vec<_>>();
        let mut next = 0;
        for i in 0..table.frames() {
            let frame = table.frame(i);
            let mut place = frame.uncompressed;
            let read = reader.feed(source, &frame, &mut buffer, &mut |mut piece| {
                while !piece.is_empty() && next < hashes.len() {
                    let (entry, hash) = &mut hashes[next];
                    let (own, rest) = piece.split_at(piece.len().min((entry.end.max(place) - place) as usize));
                    hash.update(own);
                    place += own.len() as u64;
                    next += usize::from(place >= entry.end);
                    piece = rest;
                }
            });
            let end = frame.uncompressed + frame.uncompressed_len;
            while read.is_err() && next < hashes.len() && hashes[next].0.end <= end {
                next += 1;
            }
        }
        hashes.iter().all(|(entry, hash)| hash.digest() == entry.content)
    }
}

/// A snapshot as a job record keeps it, enough to take the same one again (CONS-08).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRecord {
    /// The transactionTime.
    pub as_of: String,
    /// What the index checked.
    pub validate: Validate,
    /// Birth of the index, in ticks.
    pub birth: Option<i64>,
    /// The segments.
    #[serde(rename = "extents")]
    pub segments: Vec<SegmentRef>,
}

impl SnapshotRecord {
    /// Name of the snapshot: a hash of the record as JSON, so its keys, their order and its words stay as they are.
    fn snapshot_id(&self) -> String {
        let record = serde_json::to_vec(self).expect("a record is plain data");
        format!("{:032x}", crate::hash::xxh3_128(&record))
    }
}

/// A segment as a job record keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentRef {
    /// Store file, relative to the store.
    pub file: String,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in it.
    pub end: u64,
    /// Hash of the bytes between.
    pub content: u64,
    /// Whether it is the last line without a newline.
    pub tail: bool,
    /// T of the first snapshot that held it, in ticks.
    pub first_seen: Option<i64>,
}

/// What one export sees of a store.
#[derive(Clone)]
pub struct Snapshot {
    index: Arc<Index>,
    as_of: Instant,
    /// Visible segments; all of them unless the snapshot was taken again from a record.
    visible: Arc<[bool]>,
}

/// A resource's state at some instant, as the ledger counts it (reading 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// It is the current version.
    Current,
    /// Its lastUpdated is later.
    Future,
    /// A later version is there.
    Superseded,
    /// It was deleted.
    Deleted,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("as_of", &self.as_of).field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Everything that an index holds, as of an instant.
    pub fn new(index: Arc<Index>, as_of: Instant) -> Snapshot {
        let visible = vec![true; index.segment_count()].into();
        Snapshot { index, as_of, visible }
    }

    /// A look at an index as of some instant, which the index does not remember as a snapshot.
    pub fn of_latest(index: Index, as_of: Instant) -> Snapshot {
        Snapshot::new(Arc::new(index), as_of)
    }

    /// The snapshot that a record names, as of its instant, if the index has all of its segments; else the index again, and the number of the
    /// first of the record's segments that it does not have.
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
        index.generation.birth = record.birth;
        for (i, wanted) in found.into_iter().flatten().zip(&record.segments) {
            visible[i] = true;
            index.generation.segments[i].first_seen = wanted.first_seen;
        }
        Ok(Snapshot { index: Arc::new(index), as_of, visible: visible.into() })
    }

    /// What a job record needs to take this snapshot again.
    pub fn record(&self) -> SnapshotRecord {
        let segments = (0..self.index.segment_count()).filter(|position| self.visible[*position]).map(|offset| {
            let entry = self.index.entry(offset);
            SegmentRef {
                file: self.index.file_name(entry.file).to_string(),
                start: entry.start,
                end: entry.end,
                content: entry.content,
                tail: entry.tail,
                first_seen: entry.first_seen,
            }
        });
        SnapshotRecord {
            as_of: self.as_of.to_string(),
            validate: self.index.generation.validate,
            birth: self.index.generation.birth,
            segments: segments.collect(),
        }
    }

    /// Name of the snapshot: the same bytes at the same T have the same name on any machine.
    pub fn id(&self) -> String {
        self.record().snapshot_id()
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The transactionTime T.
    pub fn as_of(&self) -> &Instant {
        &self.as_of
    }

    /// Whether a segment is part of the snapshot.
    pub fn sees_segment(&self, segment: usize) -> bool {
        self.visible[segment]
    }

    /// The visible segments, in store order.
    pub fn segments(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.index.segment_count()).filter(|offset| self.visible[*offset])
    }

    /// Whether rows of a segment are late for an export since `since`.
    pub fn is_late(&self, segment: usize, since: &Instant) -> bool {
        self.index.generation.is_late(self.index.entry(segment), since)
    }

    /// Whether every segment is part of it.
    pub fn sees_whole_index(&self) -> bool {
        self.visible.iter().all(|visible| *visible)
    }

    /// State of a row at `at`, which is T or an instant before it, among the segments that `known` lets through.
    ///
    /// `ours` tells whether a reference base (a number among `Index::bases`) is one of ours: a DELETE entry under
    /// another base ends nothing here.
    ///
    /// # Errors
    /// [`CorruptIndex`] when the index is.
    pub fn state(
        &self,
        segment_id: usize,
        row: usize,
        instant: InstantRef<'_>,
        ours: &[bool],
        known: &dyn Fn(usize) -> bool,
    ) -> Result<RowState, CorruptIndex> {
        let index = &*self.index;
        // Most segments end before T as a whole, and then nobody need look when a row is dated.
        let segment = &index.segments[segment_id];
        if segment.head().updated_max() >= instant.ticks
            && segment.updated(row)?.is_some_and(|updated| updated > instant)
        {
            return Ok(RowState::Future);
        }
        let mut next = index.global.next(index.starts.row[segment_id] + row)?;
        let mut deleted = false;
        while let Some(number) = next {
            if number < index.starts.rows {
                let (segment_id, row) = index.locate(number);
                if index.segments[segment_id].updated(row)?.is_some_and(|updated| updated > instant) {
                    break;
                }
                if self.visible[segment_id] && known(segment_id) {
                    return Ok(RowState::Superseded);
                }
            } else {
                let (segment_id, entry) = index.locate_tombstone(number - index.starts.rows);
                let columns = index.segments[segment_id].tombstone(entry)?;
                if columns.tombstone_updated(entry).is_none_or(|updated| updated > instant) {
                    break;
                }
                let base = index.base_number(segment_id, columns.tomb_base[entry] & BASE_BITS);
                deleted |= self.visible[segment_id] && known(segment_id) && ours[base as usize];
            }
            next = index.global.next(number)?;
        }
        Ok(if deleted { RowState::Deleted } else { RowState::Current })
    }
}
