//! Retention rules of a pack: which versions are dropped, and which output files a kept row goes to.
//!
//! A version is dropped if a later version, or a deletion under the store's own base URL, follows it no later than T. A
//! deleted Provenance is kept: its compartment is that of its targets, which may still change owners.

use std::collections::HashMap;

use crate::error::CorruptIndex;
use crate::fhir::id::Id;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{EntryId, RecordId, RowAddress, SegmentId};
use crate::index::segment::layout::BASE_BITS;
use crate::index::snapshot::{RowState, Snapshot};

/// Rows that go to the same files. `Some(ticks)`: rows that the index first saw at this T although they are dated
/// before it; `None`: all others.
///
/// A row arrives late for an export since S if its lastUpdated is not after S and S is before the T that first saw the
/// row. A row dated after that T can never arrive late and needs no set of its own.
pub(crate) type VersionSet = Option<i64>;

/// Decision on one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Kept: the current version at T.
    Stays,
    /// Kept: dated after T.
    Future,
    /// Dropped: a later version exists.
    Superseded,
    /// Dropped: it was deleted.
    Deleted,
}

impl Disposition {
    /// Whether the pack drops the row.
    pub(crate) fn is_purged(self) -> bool {
        matches!(self, Disposition::Superseded | Disposition::Deleted)
    }
}

/// Retention rules applied to one snapshot.
pub(crate) struct Retention<'a> {
    /// The snapshot that is packed.
    pub snapshot: &'a Snapshot,
    /// For each reference base URL whether it is the store's own by itself: only the empty one is.
    ours: Vec<bool>,
    /// The sets of the snapshot, `None` first, then ascending.
    sets: Vec<VersionSet>,
    /// Of each resource the lastUpdated, in ticks, of the youngest version that an earlier pack dropped, as far as DELETE
    /// entries record it.
    purged_before: HashMap<(ResourceType, Id), i64>,
}

impl<'a> Retention<'a> {
    /// Retention for a snapshot; collects its version sets.
    pub(crate) fn new(snapshot: &'a Snapshot) -> Retention<'a> {
        let index = snapshot.index();
        let ours = index.bases().iter().map(String::is_empty).collect();
        let mut retention = Retention { snapshot, ours, sets: vec![None], purged_before: HashMap::new() };
        retention.purged_before = retention.collect_purged();
        // The times of rows and DELETE entries: that of the segment, and those of the runs.
        let times = |segment| {
            let own = index.row_times(segment).iter().filter_map(|run| run.first_seen);
            own.chain(index.entry(segment).first_seen).filter(|time| retention.is_late(*time))
        };
        let mut late: Vec<i64> = snapshot.segments().flat_map(times).collect();
        late.sort_unstable();
        late.dedup();
        retention.sets.extend(late.into_iter().map(Some));
        retention
    }

    /// The youngest versions that DELETE entries record as dropped.
    fn collect_purged(&self) -> HashMap<(ResourceType, Id), i64> {
        let index = self.snapshot.index();
        let mut youngest = HashMap::new();
        for segment in self.snapshot.segments().filter(|segment| index.segment(*segment).head().left > 0) {
            let columns = index.segment(segment).columns();
            for entry in index.segment(segment).entry_ids() {
                let base = index.base_of_segment(segment, columns.tomb_base[entry.index()] & BASE_BITS);
                let prior = columns.prior_owner_of(entry).filter(|prior| !prior.followed && self.ours[base.index()]);
                if let Some(prior) = prior {
                    let known = youngest.entry(columns.tombstone_of(entry)).or_insert(prior.updated);
                    *known = prior.updated.max(*known);
                }
            }
        }
        youngest
    }

    /// Whether a version that an earlier pack dropped followed a DELETE entry of a segment.
    pub(crate) fn was_followed(&self, segment: SegmentId, entry: EntryId) -> bool {
        let columns = self.snapshot.index().segment(segment).columns();
        let (Some(purged), Some(updated)) =
            (self.purged_before.get(&columns.tombstone_of(entry)), columns.tombstone_updated(entry))
        else {
            return false;
        };
        InstantRef { ticks: *purged, rest: &[] } >= updated
    }

    /// The version sets of the snapshot, that of rows that are never late-arriving first.
    pub(crate) fn version_sets(&self) -> impl Iterator<Item = VersionSet> + '_ {
        self.sets.iter().copied()
    }

    /// Whether rows that a snapshot of T `first_seen` held first can arrive late: not if it is that of the index.
    fn is_late(&self, first_seen: i64) -> bool {
        self.snapshot.index().generation().birth.is_some_and(|birth| first_seen > birth)
    }

    /// The set of a row of a segment with this lastUpdated in ticks. Rows without an instant compare as oldest, so that a
    /// set records when they arrived.
    pub(crate) fn version_set_of(&self, row: RowAddress, ticks: i64) -> VersionSet {
        self.set_of_time(self.snapshot.index().first_seen(row), ticks)
    }

    /// The set of a DELETE entry of a segment with this instant in ticks.
    pub(crate) fn version_set_of_entry(&self, segment: SegmentId, entry: EntryId, ticks: i64) -> VersionSet {
        self.set_of_time(self.snapshot.index().entry_first_seen(segment, entry), ticks)
    }

    /// The set of a record of this first-seen time and this instant.
    fn set_of_time(&self, first_seen: Option<i64>, ticks: i64) -> VersionSet {
        first_seen.filter(|first| self.is_late(*first) && ticks < *first)
    }

    /// Decision on a row of a segment.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn disposition(&self, row: RowAddress) -> Result<Disposition, CorruptIndex> {
        let index = self.snapshot.index();
        self.disposition_of(row, index.global().next(index.record_of_row(row))?.is_some())
    }

    /// As [`Retention::disposition`], for a caller that knows whether the row has a successor.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn disposition_of(&self, address: RowAddress, is_followed: bool) -> Result<Disposition, CorruptIndex> {
        let index = self.snapshot.index();
        let (segment, row) = address.parts();
        let columns = index.segment(segment).columns();
        let instant = self.snapshot.as_of().as_ref();
        if columns.updated_of(row).is_some_and(|updated| updated > instant) {
            return Ok(Disposition::Future);
        }
        if !is_followed {
            return Ok(Disposition::Stays);
        }
        Ok(match self.snapshot.state(address, instant, &self.ours, &|_| true)? {
            RowState::Current => Disposition::Stays,
            RowState::Future => Disposition::Future,
            RowState::Superseded => Disposition::Superseded,
            RowState::Deleted if columns.type_of(row) == ResourceType::PROVENANCE => Disposition::Stays,
            RowState::Deleted => Disposition::Deleted,
        })
    }

    /// Whether a version follows a record no later than T.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn is_followed(&self, record: RecordId) -> Result<bool, CorruptIndex> {
        let index = self.snapshot.index();
        let instant: InstantRef<'_> = self.snapshot.as_of().as_ref();
        let mut next = index.global().next(record)?;
        while let Some(number) = next {
            if index.is_row(number) {
                let (segment, row) = index.locate(number).parts();
                if index.segment(segment).columns().updated_of(row).is_some_and(|updated| updated > instant) {
                    return Ok(false);
                }
                if self.snapshot.sees_segment(segment) {
                    return Ok(true);
                }
            }
            next = index.global().next(number)?;
        }
        Ok(false)
    }
}
