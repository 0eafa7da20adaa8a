//! An opened index, and the snapshot that one export sees of it.
//!
//! A snapshot is the extents visible to an export and its transactionTime T; with them every question about a row
//! (is it current at T, whose is it, is it late) has one answer, whatever happens to the store meanwhile.

use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};

use super::extent::Extent;
use super::generation::{ExtentEntry, Generation};
use super::merge::{Bases, Merged, Sections, global_bases};
use super::packed::{FrameReader, PackedTable};
use super::walk::Walk;
use crate::bytes::decode::{Coding, Decoder, Restart};
use crate::bytes::source::Source;
use crate::error::IndexError;
use crate::extract::Validate;
use crate::fhir::instant::InstantRef;
use crate::fhir::{Id, Instant};

/// One consistent index of a store, opened with its files.
pub struct Index {
    generation: Generation,
    extents: Vec<Extent>,
    merged: Merged,
    sources: Vec<Source>,
    codings: Vec<Coding>,
    /// Restarts of each compressed file, ascending.
    restarts: Vec<Vec<Restart>>,
    bases: Vec<String>,
    base_numbers: Vec<Vec<u32>>,
    starts: Bases,
    ignored: Vec<String>,
    durable: bool,
    /// Tables of packed files, read when first asked for.
    tables: Vec<OnceLock<Option<Box<PackedTable>>>>,
}

impl Index {
    pub(super) fn new(
        generation: Generation,
        extents: Vec<Extent>,
        merged: Merged,
        sources: Vec<Source>,
        walked: &Walk,
        durable: bool,
    ) -> Index {
        let mut restarts = vec![Vec::new(); sources.len()];
        for (entry, extent) in generation.extents.iter().zip(&extents) {
            let (pairs, _) = extent.columns().restart.as_chunks::<2>();
            restarts[entry.file].extend(
                pairs
                    .iter()
                    .map(|[uncompressed, compressed]| Restart { compressed: *compressed, uncompressed: *uncompressed }),
            );
        }
        restarts.iter_mut().for_each(|list| list.sort_by_key(|restart| (restart.uncompressed, restart.compressed)));
        let (bases, base_numbers) = global_bases(&extents);
        let starts = Bases::of(&extents);
        let codings = walked.files.iter().map(|found| found.coding).collect();
        let ignored = walked.ignored.clone();
        let tables = walked.files.iter().map(|_| OnceLock::new()).collect();
        Index {
            tables,
            generation,
            extents,
            merged,
            sources,
            codings,
            restarts,
            bases,
            base_numbers,
            starts,
            ignored,
            durable,
        }
    }

    /// Resource rows of all extents.
    pub fn rows(&self) -> usize {
        self.starts.rows
    }

    /// Number of extents.
    pub fn extent_count(&self) -> usize {
        self.extents.len()
    }

    /// The extents, in store order.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// What the generation says of an extent.
    pub fn entry(&self, extent: usize) -> &ExtentEntry {
        &self.generation.extents[extent]
    }

    /// The generation.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// The merged facts.
    pub fn merged(&self) -> Sections<'_> {
        self.merged.sections()
    }

    /// The store file of an extent.
    pub fn source_of(&self, extent: usize) -> &Source {
        &self.sources[self.entry(extent).file]
    }

    /// Name of a store file, relative to the store.
    pub fn file_name(&self, file: usize) -> &str {
        &self.generation.files[file].name
    }

    /// A store file.
    pub fn source(&self, file: usize) -> &Source {
        &self.sources[file]
    }

    /// Coding of a store file.
    pub fn coding(&self, file: usize) -> Coding {
        self.codings[file]
    }

    /// The table of a packed file, `None` when the file has none that can be used.
    pub fn packed(&self, file: usize) -> Option<&PackedTable> {
        if self.codings[file] != Coding::Zstd {
            return None;
        }
        // A file that cannot be read tells so when its rows are.
        let open = || PackedTable::open(&self.sources[file]).ok().flatten().map(Box::new);
        self.tables[file].get_or_init(open).as_deref()
    }

    /// The last restart of a compressed file at or before an uncompressed offset.
    pub fn restart_before(&self, file: usize, offset: u64) -> Restart {
        let list = &self.restarts[file];
        let after = list.partition_point(|restart| restart.uncompressed <= offset);
        // Several restarts may share an uncompressed offset (empty members); any of them serves.
        if after == 0 { Restart { compressed: 0, uncompressed: 0 } } else { list[after - 1] }
    }

    /// Reference bases in the store, the empty one first.
    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// Number of an extent's base among [`Index::bases`].
    pub fn base_number(&self, extent: usize, base: u32) -> u32 {
        self.base_numbers[extent][base as usize]
    }

    /// Numbers of the first row, DELETE entry, target and owner of each extent.
    pub fn starts(&self) -> &Bases {
        &self.starts
    }

    /// The extent that holds a row, and the row's number in it.
    pub fn locate(&self, row: usize) -> (usize, usize) {
        let extent = self.starts.row.partition_point(|start| *start <= row) - 1;
        (extent, row - self.starts.row[extent])
    }

    /// The extent that holds a DELETE entry (counted over the store), and its number in it.
    pub fn locate_tombstone(&self, at: usize) -> (usize, usize) {
        let extent = self.starts.tombstone.partition_point(|start| *start <= at) - 1;
        (extent, at - self.starts.tombstone[extent])
    }

    /// The number of a patient named by a base (a number among [`Index::bases`]) and an id.
    pub fn patient(&self, base: u32, id: &Id) -> Option<u32> {
        let sections = self.merged.sections();
        let hash = super::key::owner_hash(self.bases[base as usize].as_bytes(), id.as_bytes());
        let first = sections.patient_hash.partition_point(|known| *known < hash);
        let same = sections.patient_hash[first..].iter().take_while(|known| **known == hash).count();
        (first..first + same)
            .find(|at| sections.patient_base[*at] == base && self.patient_id(*at as u32) == *id)
            .map(|at| at as u32)
    }

    /// How many patients the dictionary has: every (base, id) that a reference or a Patient row names.
    pub fn patients(&self) -> usize {
        self.merged.sections().patient_hash.len()
    }

    /// The id of a patient of the dictionary.
    pub fn patient_id(&self, patient: u32) -> Id {
        let sections = self.merged.sections();
        let extent = sections.patient_extent[patient as usize] as usize;
        self.extents[extent].columns().owner_id_of(sections.patient_owner[patient as usize] as usize)
    }

    /// Files in the store's tree that are no data files.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Whether the index is kept on disk.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Checks that every store file still holds the bytes that its extents were made from, if it was touched at all.
    ///
    /// # Errors
    /// [`IndexError::Changed`] or [`IndexError::Source`] with the file's name.
    pub fn verify_unchanged(&self) -> Result<(), IndexError> {
        for (file, source) in self.sources.iter().enumerate() {
            source.check()?;
            if source.changed()? {
                self.verify_content(file)?;
            }
        }
        Ok(())
    }

    /// Hashes the bytes behind each extent of a file again.
    ///
    /// # Errors
    /// As [`Index::verify_unchanged`].
    pub fn verify_content(&self, file: usize) -> Result<(), IndexError> {
        let source = &self.sources[file];
        let changed = |what: &str| IndexError::Changed {
            path: source.path().to_path_buf(),
            reason: format!(
                "was {what} in place while it was in use; replace store files by rename, then run the same command again"
            ),
        };
        let entries: Vec<&ExtentEntry> = self.generation.extents.iter().filter(|e| e.file == file).collect();
        if self.codings[file] == Coding::Plain {
            for entry in entries {
                if source.content_hash(entry.start..entry.end)? != entry.content {
                    return Err(changed("rewritten"));
                }
            }
            return Ok(());
        }
        if let Ok(Some(table)) = PackedTable::open(source) {
            return self.verify_frames(source, &table, &entries).then_some(()).ok_or_else(|| changed("rewritten"));
        }
        let from = Restart { compressed: 0, uncompressed: 0 };
        let Ok(mut decoder) = Decoder::new(source, self.codings[file], from) else { return Err(changed("truncated")) };
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        let (mut at, mut next) = (0u64, 0);
        while let Some(piece) = decoder.piece(|_| {}).ok().flatten() {
            let mut piece = piece;
            while next < entries.len() && entries[next].end <= at + piece.len() as u64 {
                let (own, rest) = piece.split_at((entries[next].end - at) as usize);
                hash.update(own);
                if hash.digest() != entries[next].content {
                    return Err(changed("rewritten"));
                }
                hash.reset();
                at += own.len() as u64;
                piece = rest;
                next += 1;
            }
            hash.update(piece);
            at += piece.len() as u64;
        }
        // An empty extent at the end holds a fault only, and no bytes that could have changed.
        while next < entries.len() && entries[next].end == at && hash.digest() == entries[next].content {
            hash.reset();
            next += 1;
        }
        if next < entries.len() { Err(changed("truncated")) } else { Ok(()) }
    }

    /// Whether the frames of a packed file hash to what the extents were made from; damaged ones have no bytes.
    fn verify_frames(&self, source: &Source, table: &PackedTable, entries: &[&ExtentEntry]) -> bool {
        let (mut reader, mut buffer) = (FrameReader::new(), Vec::new());
        let mut hashes = entries.iter().map(|entry| (entry, xxhash_rust::xxh3::Xxh3::new())).collect::<Vec<_>>();
        let mut next = 0;
        for at in 0..table.frames() {
            let frame = table.frame(at);
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
    /// The extents.
    pub extents: Vec<ExtentRecord>,
}

/// An extent as a job record keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtentRecord {
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
    /// Visible extents; all of them unless the snapshot was taken again from a record.
    visible: Arc<[bool]>,
}

/// A resource's state at some instant, as the ledger counts it (reading 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is the current version.
    Current,
    /// Its lastUpdated is later.
    Future,
    /// A later version is there.
    Superseded,
    /// It was deleted.
    Deleted,
}

impl Snapshot {
    pub(super) fn new(index: Arc<Index>, as_of: Instant) -> Snapshot {
        let visible = vec![true; index.extent_count()].into();
        Snapshot { index, as_of, visible }
    }

    /// A look at an index as of some instant, which the index does not remember as a snapshot.
    pub fn of_index(index: Index, as_of: Instant) -> Snapshot {
        Snapshot::new(Arc::new(index), as_of)
    }

    /// The snapshot that a record names, if the index has all of its extents.
    pub(super) fn of_record(mut index: Index, record: &SnapshotRecord) -> Option<Snapshot> {
        let as_of = Instant::parse(&record.as_of)?;
        let mut visible = vec![false; index.extent_count()];
        index.generation.birth = record.birth;
        for wanted in &record.extents {
            let at = (0..index.extent_count()).find(|at| {
                let entry = index.entry(*at);
                !visible[*at]
                    && index.file_name(entry.file) == wanted.file
                    && (entry.start, entry.end, entry.content, entry.tail)
                        == (wanted.start, wanted.end, wanted.content, wanted.tail)
            })?;
            visible[at] = true;
            index.generation.extents[at].first_seen = wanted.first_seen;
        }
        Some(Snapshot { index: Arc::new(index), as_of, visible: visible.into() })
    }

    /// What a job record needs to take this snapshot again.
    pub fn record(&self) -> SnapshotRecord {
        let extents = (0..self.index.extent_count()).filter(|at| self.visible[*at]).map(|at| {
            let entry = self.index.entry(at);
            ExtentRecord {
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
            extents: extents.collect(),
        }
    }

    /// Name of the snapshot: the same bytes at the same T have the same name on any machine.
    pub fn id(&self) -> String {
        let record = serde_json::to_vec(&self.record()).expect("a record is plain data");
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&record))
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The transactionTime T.
    pub fn as_of(&self) -> &Instant {
        &self.as_of
    }

    /// Whether an extent is part of the snapshot.
    pub fn sees(&self, extent: usize) -> bool {
        self.visible[extent]
    }

    /// The visible extents, in store order.
    pub fn extents(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.index.extent_count()).filter(|at| self.visible[*at])
    }

    /// Whether rows of an extent are late for an export since `since`.
    pub fn is_late(&self, extent: usize, since: &Instant) -> bool {
        self.index.generation.is_late(self.index.entry(extent), since)
    }

    /// State of a row at `at`, which is T or an instant before it, among the extents that `known` lets through.
    ///
    /// `ours` tells whether a reference base (a number among [`Index::bases`]) is one of ours: a DELETE entry under
    /// another base ends nothing here.
    pub fn state(
        &self,
        extent: usize,
        row: usize,
        at: InstantRef<'_>,
        ours: &[bool],
        known: &dyn Fn(usize) -> bool,
    ) -> State {
        let index = &*self.index;
        let columns = index.extents[extent].columns();
        if columns.updated_of(row).is_some_and(|updated| updated > at) {
            return State::Future;
        }
        let next = index.merged.sections().next;
        let mut record = next[index.starts.row[extent] + row] as usize;
        let mut deleted = false;
        while record != 0 {
            let number = record - 1;
            if number < index.starts.rows {
                let (extent, row) = index.locate(number);
                let columns = index.extents[extent].columns();
                if columns.updated_of(row).is_some_and(|updated| updated > at) {
                    break;
                }
                if self.visible[extent] && known(extent) {
                    return State::Superseded;
                }
            } else {
                let (extent, entry) = index.locate_tombstone(number - index.starts.rows);
                let columns = index.extents[extent].columns();
                if columns.tombstone_updated(entry).is_none_or(|updated| updated > at) {
                    break;
                }
                let base = index.base_number(extent, columns.tomb_base[entry] & super::layout::BASE_BITS);
                deleted |= self.visible[extent] && known(extent) && ours[base as usize];
            }
            record = next[number] as usize;
        }
        if deleted { State::Deleted } else { State::Current }
    }
}
