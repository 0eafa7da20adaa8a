//! Groups of the store in a snapshot: the current version or the last deletion of an id, facts, and bytes.
//!
//! Read-only; nothing of the registry is consulted but its cache of facts.

use std::ops::Range;
use std::sync::Arc;

use crate::codec::compression::Compression;
use crate::error::{CorruptIndex, IndexError};
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::{group_rows_of, our_bases};
use crate::group::registry::search_facts::SearchFacts;
use crate::group::registry::{GroupRegistry, GroupsError};
use crate::ids::{EntryId, FileId, RowAddress, SegmentId};
use crate::index::row_reader::{row_range, stream_range};
use crate::index::segment::layout::{BASE_BITS, Column, kind};
use crate::index::snapshot::{RowState, Snapshot};
use crate::key_set::resource_key::entity_hash;

/// A current Group of the store: one row of a snapshot. Its bytes are read on demand.
#[derive(Clone)]
pub(crate) struct StoreGroup {
    /// The snapshot that the row is part of.
    pub snapshot: Snapshot,
    /// The row.
    pub row: RowAddress,
    facts: Arc<SearchFacts>,
}

impl StoreGroup {
    /// The searchable facts of the Group.
    pub(crate) fn facts(&self) -> &SearchFacts {
        &self.facts
    }

    /// Byte range of the row in its file.
    fn range(&self) -> Range<u64> {
        row_range(self.snapshot.index(), self.row)
    }

    /// Bytes of the resource, without a newline.
    pub(crate) fn len(&self) -> u64 {
        let range = self.range();
        range.end - range.start
    }

    /// Whether its file is compressed, so that a read first decodes bytes before the row.
    pub(crate) fn is_compressed(&self) -> bool {
        let index = self.snapshot.index();
        index.compression(index.file_of(self.row.segment)) != Compression::None
    }

    /// Passes a byte range of the resource to `feed`, in pieces. Blocks.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) fn stream(&self, part: Range<u64>, feed: &mut dyn FnMut(&[u8])) -> Result<(), GroupsError> {
        let index = self.snapshot.index();
        let row = self.range();
        let range = row.start + part.start..(row.start + part.end).min(row.end);
        Ok(stream_range(index, index.file_of(self.row.segment), range, feed)?)
    }
}

/// Most files whose stamps are looked at for one request.
const STAMPS_MAX: usize = 1_000;

/// Whether the store files that hold Groups have the stamps that they were indexed with, so that the Groups of the index are
/// those of the store. Of very many files only the first are looked at.
pub(crate) fn groups_are_current(snapshot: &Snapshot) -> bool {
    let index = snapshot.index();
    let has_groups = |segment: &SegmentId| index.segment(*segment).head().has_type(ResourceType::GROUP.index());
    let mut files: Vec<FileId> =
        snapshot.segments().filter(has_groups).map(|segment| index.file_of(segment)).take(STAMPS_MAX).collect();
    files.dedup();
    files.into_iter().all(|file| index.is_current(file))
}

/// State at T of a Group's id in the store.
pub(crate) enum StoreLocation {
    /// The row of the current version, and its lastUpdated, if it has one.
    Current { row: RowAddress, updated: Option<Instant> },
    /// There is no current version; the instant of the last deletion.
    Deleted(Instant),
    /// Neither a current version nor a dated deletion.
    Unknown,
}

/// Looks up Groups in a snapshot, under the bases that are ours.
pub(crate) struct SnapshotLocation<'a> {
    /// The snapshot that is searched.
    pub snapshot: &'a Snapshot,
    /// Whether each reference base of the index is ours.
    ours: Vec<bool>,
}

impl<'a> SnapshotLocation<'a> {
    /// A lookup in a snapshot; absolute references under `bases` are ours.
    pub(crate) fn new(snapshot: &'a Snapshot, bases: &[String]) -> SnapshotLocation<'a> {
        SnapshotLocation { snapshot, ours: our_bases(snapshot, bases) }
    }

    /// State of a row at T.
    fn group_state(&self, row: RowAddress) -> Result<RowState, CorruptIndex> {
        self.snapshot.state(row, self.snapshot.as_of().as_ref(), &self.ours, &|_| true)
    }

    /// The location of a current row.
    fn current(&self, address: RowAddress) -> Result<StoreLocation, CorruptIndex> {
        let (segment, row) = address.parts();
        let updated = self.snapshot.index().segment(segment).updated(row)?.map(|instant| instant.to_owned());
        Ok(StoreLocation::Current { row: address, updated })
    }

    /// State at T of the Group of an id.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn find(&self, id: &Id) -> Result<StoreLocation, CorruptIndex> {
        for row in group_rows_of(self.snapshot, ResourceType::GROUP, id)? {
            if self.group_state(row)? == RowState::Current {
                return self.current(row);
            }
        }
        // No version is current, so the last deletion decides, if there is one.
        Ok(self.deleted(id)?.map_or(StoreLocation::Unknown, StoreLocation::Deleted))
    }

    /// Instant of the last deletion of a Group at or before T, under a base of ours; `None` if there is none.
    fn deleted(&self, id: &Id) -> Result<Option<Instant>, CorruptIndex> {
        let index = self.snapshot.index();
        let hash = entity_hash(ResourceType::GROUP, id.as_bytes());
        let mut last: Option<Instant> = None;
        for segment_id in self.snapshot.segments() {
            let segment = index.segment(segment_id);
            if segment.tombstones() == 0 {
                continue;
            }
            for reference in
                segment.references_of_hash(hash)?.iter().filter(|reference| *reference & kind::MASK == kind::TOMBSTONE)
            {
                let entry = EntryId(reference & !kind::MASK);
                let columns = segment.tombstone(entry)?;
                let base = index.base_of_segment(segment_id, columns.tomb_base[entry.index()] & BASE_BITS);
                let Some(instant) = columns.tombstone_updated(entry) else { continue };
                if columns.tombstone_of(entry) == (ResourceType::GROUP, *id)
                    && self.ours[base.index()]
                    && instant <= self.snapshot.as_of().as_ref()
                    && last.as_ref().is_none_or(|last| last.as_ref() < instant)
                {
                    last = Some(instant.to_owned());
                }
            }
        }
        Ok(last)
    }

    /// Passes every current Group to `visit`, in no particular order of ids.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn each_group(&self, visit: &mut dyn FnMut(Id, StoreLocation)) -> Result<(), CorruptIndex> {
        let index = self.snapshot.index();
        for segment_id in self.snapshot.segments() {
            let segment = index.segment(segment_id);
            if !segment.head().has_type(ResourceType::GROUP.index()) {
                continue;
            }
            let columns = segment.verify_columns(&[Column::Type])?;
            for row in memchr::memchr_iter(ResourceType::GROUP.index() as u8, columns.resource_type) {
                let address = RowAddress::of(segment_id, row);
                if self.group_state(address)? == RowState::Current {
                    visit(segment.row_id(row)?, self.current(address)?);
                }
            }
        }
        Ok(())
    }

    /// The Group of a row, with its facts from the registry's cache, or else from its bytes.
    ///
    /// # Errors
    /// If the index is corrupt, or the row cannot be read or changed since it was indexed.
    pub(crate) fn read_group(&self, registry: &GroupRegistry, address: RowAddress) -> Result<StoreGroup, GroupsError> {
        let index = self.snapshot.index();
        let (segment, row) = address.parts();
        // Verifies offset and length of the row, which the reads below rely on.
        index.segment(segment).row(row)?;
        let key = (index.entry(segment).content, row);
        let cached = registry.store_facts.lock().expect("no panic under it").get(key);
        let facts = match cached {
            Some(facts) => facts,
            None => {
                let file = index.file_of(segment);
                let range = row_range(index, address);
                let read = SearchFacts::read(|feed| stream_range(index, file, range, feed))?;
                let facts = Arc::new(read.map_err(|_| {
                    // The row passed the scan when it was indexed; a fault now means that it was changed in place.
                    let path = index.source(file).map(|source| source.path().to_path_buf()).unwrap_or_default();
                    crate::error::ExportError::from(IndexError::Changed {
                        path,
                        reason: "was rewritten in place".into(),
                    })
                })?);
                registry.store_facts.lock().expect("no panic under it").put(key, &facts);
                facts
            }
        };
        Ok(StoreGroup { snapshot: self.snapshot.clone(), row: address, facts })
    }
}
