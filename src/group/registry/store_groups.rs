//! Groups of the store, as a snapshot shows them: which version is current, and its bytes.

use std::ops::Range;
use std::sync::Arc;

use crate::codec::compression::Compression;
use crate::error::{CorruptIndex, IndexError};
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::{group_rows_of, our_bases};
use crate::group::registry::search_facts::GroupFacts;
use crate::group::registry::{GroupRegistry, GroupsError};
use crate::index::row_reader::{row_range, stream_range};
use crate::index::segment::id_encoding;
use crate::index::segment::layout::{BASE_BITS, Column, kind};
use crate::index::snapshot::{RowState, Snapshot};

/// A Group of the store: one row, whose bytes stay where they are.
#[derive(Clone)]
pub(crate) struct StoreGroup {
    /// The snapshot that shows it.
    pub snapshot: Snapshot,
    /// Its segment.
    pub segment: usize,
    /// Its number there.
    pub row: usize,
    facts: Arc<GroupFacts>,
}

impl StoreGroup {
    /// What is known of it.
    pub(crate) fn facts(&self) -> &GroupFacts {
        &self.facts
    }

    fn range(&self) -> Range<u64> {
        row_range(self.snapshot.index(), self.segment, self.row)
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> u64 {
        let range = self.range();
        range.end - range.start
    }

    /// Whether its file is compressed, so that each read decodes what lies before.
    pub(crate) fn is_compressed(&self) -> bool {
        let index = self.snapshot.index();
        index.compression(index.entry(self.segment).file) != Compression::None
    }

    /// Feeds a part of the resource, in pieces. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn stream(&self, part: Range<u64>, feed: &mut dyn FnMut(&[u8])) -> Result<(), GroupsError> {
        let index = self.snapshot.index();
        let row = self.range();
        let range = row.start + part.start..(row.start + part.end).min(row.end);
        Ok(stream_range(index, index.entry(self.segment).file, range, feed)?)
    }
}

/// What the store says of an id.
pub(crate) enum StoreLocation {
    /// The row that is current, and its lastUpdated.
    Current {
        segment: usize,
        row: usize,
        updated: Option<Instant>,
    },
    /// It was deleted then.
    Deleted(Instant),
    Unknown,
}

/// A snapshot, and which reference bases are ours in it.
pub(crate) struct SnapshotLocation<'a> {
    pub snapshot: &'a Snapshot,
    ours: Vec<bool>,
}

impl<'a> SnapshotLocation<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, bases: &[String]) -> SnapshotLocation<'a> {
        SnapshotLocation { snapshot, ours: our_bases(snapshot, bases) }
    }

    fn group_state(&self, segment: usize, row: usize) -> Result<RowState, CorruptIndex> {
        self.snapshot.state(segment, row, self.snapshot.as_of().as_ref(), &self.ours, &|_| true)
    }

    fn current(&self, segment: usize, row: usize) -> Result<StoreLocation, CorruptIndex> {
        let updated = self.snapshot.index().segments()[segment].updated(row)?.map(|instant| instant.to_owned());
        Ok(StoreLocation::Current { segment, row, updated })
    }

    /// What the store says of an id.
    pub(crate) fn find(&self, id: &Id) -> Result<StoreLocation, CorruptIndex> {
        for (segment, row) in group_rows_of(self.snapshot, ResourceType::GROUP, id)? {
            if self.group_state(segment, row)? == RowState::Current {
                return self.current(segment, row);
            }
        }
        // No version is left, so the last deletion is what holds, if there is one.
        Ok(self.deleted(id)?.map_or(StoreLocation::Unknown, StoreLocation::Deleted))
    }

    fn deleted(&self, id: &Id) -> Result<Option<Instant>, CorruptIndex> {
        let index = self.snapshot.index();
        let hash = id_encoding::entity_hash(ResourceType::GROUP, id.as_bytes());
        let mut last: Option<Instant> = None;
        for segment_id in self.snapshot.segments() {
            let segment = &index.segments()[segment_id];
            if segment.tombstones() == 0 {
                continue;
            }
            for reference in
                segment.based_name_of(hash)?.iter().filter(|reference| *reference & kind::MASK == kind::TOMBSTONE)
            {
                let entry = (reference & !kind::MASK) as usize;
                let columns = segment.tombstone(entry)?;
                let base = index.base_number(segment_id, columns.tomb_base[entry] & BASE_BITS);
                let Some(instant) = columns.tombstone_updated(entry) else { continue };
                if columns.tombstone_of(entry) == (ResourceType::GROUP, *id)
                    && self.ours[base as usize]
                    && instant <= self.snapshot.as_of().as_ref()
                    && last.as_ref().is_none_or(|last| last.as_ref() < instant)
                {
                    last = Some(instant.to_owned());
                }
            }
        }
        Ok(last)
    }

    /// Every Group that is current.
    pub(crate) fn each_group(&self, tell: &mut dyn FnMut(Id, StoreLocation)) -> Result<(), CorruptIndex> {
        let index = self.snapshot.index();
        for segment_id in self.snapshot.segments() {
            let segment = &index.segments()[segment_id];
            if !segment.head().has_type(ResourceType::GROUP.index()) {
                continue;
            }
            let columns = segment.verify_columns(&[Column::Type])?;
            for row in memchr::memchr_iter(ResourceType::GROUP.index() as u8, columns.resource_type) {
                if self.group_state(segment_id, row)? == RowState::Current {
                    tell(segment.row_id(row)?, self.current(segment_id, row)?);
                }
            }
        }
        Ok(())
    }

    /// A Group with its facts, from memory or from its bytes.
    pub(crate) fn read_group(
        &self,
        book: &GroupRegistry,
        segment: usize,
        row: usize,
    ) -> Result<StoreGroup, GroupsError> {
        let index = self.snapshot.index();
        // Its place and length, which the reader of its bytes relies on.
        index.segments()[segment].row(row)?;
        let key = (index.entry(segment).content, row);
        let known = book.store_facts.lock().expect("no panic under it").get(key);
        let facts = match known {
            Some(facts) => facts,
            None => {
                let file = index.entry(segment).file;
                let range = row_range(index, segment, row);
                let read = GroupFacts::read(|feed| stream_range(index, file, range, feed))?;
                let facts = Arc::new(read.map_err(|_| {
                    // The row passed the scan when it was indexed; a fault now means that it was changed in place.
                    let path = index.source(file).map(|source| source.path().to_path_buf()).unwrap_or_default();
                    crate::error::ExportError::from(IndexError::Changed {
                        path,
                        reason: "was rewritten in place".into(),
                    })
                })?);
                book.store_facts.lock().expect("no panic under it").put(key, &facts);
                facts
            }
        };
        Ok(StoreGroup { snapshot: self.snapshot.clone(), segment, row, facts })
    }
}
