//! Which rows stay, and with which files.
//!
//! A version leaves when a later version, or a deletion under the store's own base, followed it no later than T. The
//! exception is a deleted Provenance: whose it is depends on what it is about, which may change hands yet.

use crate::error::CorruptIndex;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;
use crate::index::snapshot::{RowState, Snapshot};

/// Rows that go to the same files: those that an index says it first saw at one T, after they were written.
///
/// `None` is the set of all others. A row is late for an export since S when S is not before its lastUpdated and before
/// the T that first saw it; a row dated after that T can never be, and needs no set of its own.
pub(crate) type VersionSet = Option<i64>;

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// It stays; it is current at T.
    Stays,
    /// It stays; it is dated after T.
    Future,
    /// It leaves: a later version is there.
    Superseded,
    /// It leaves: it was deleted.
    Deleted,
}

impl Disposition {
    /// Whether it leaves.
    pub(crate) fn is_purged(self) -> bool {
        matches!(self, Disposition::Superseded | Disposition::Deleted)
    }
}

/// Answers for a snapshot.
pub(crate) struct Retention<'a> {
    /// The snapshot packed.
    pub snapshot: &'a Snapshot,
    /// Which reference bases are the store's own in any case: the empty one.
    ours: Vec<bool>,
    sets: Vec<VersionSet>,
}

impl<'a> Retention<'a> {
    /// Prepares.
    pub(crate) fn new(snapshot: &'a Snapshot) -> Retention<'a> {
        let index = snapshot.index();
        let ours = index.bases().iter().map(String::is_empty).collect();
        let mut keep = Retention { snapshot, ours, sets: vec![None] };
        let mut late: Vec<i64> = snapshot.segments().filter_map(|segment| keep.late_from(segment)).collect();
        late.sort_unstable();
        late.dedup();
        keep.sets.extend(late.into_iter().map(Some));
        keep
    }

    /// The sets, that of the rows that are never late first.
    pub(crate) fn version_sets(&self) -> impl Iterator<Item = VersionSet> + '_ {
        self.sets.iter().copied()
    }

    /// T of the first snapshot that held a segment, if its rows can be late.
    fn late_from(&self, segment: usize) -> Option<i64> {
        let index = self.snapshot.index();
        let first = index.entry(segment).first_seen?;
        (first > index.generation().birth?).then_some(first)
    }

    /// The set of rows or deletions of a segment that are dated so (in ticks). Those without a date are older than any:
    /// when they came tells whether a reader of increments could know them.
    pub(crate) fn version_set_of(&self, segment: usize, ticks: i64) -> VersionSet {
        self.late_from(segment).filter(|first| ticks < *first)
    }

    /// What becomes of a row.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub(crate) fn disposition(&self, segment: usize, row: usize) -> Result<Disposition, CorruptIndex> {
        let first = self.snapshot.index().starts().row[segment];
        self.disposition_of(segment, row, self.snapshot.index().global().next(first + row)?.is_some())
    }

    /// The same when it is known whether anything follows the row.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub(crate) fn disposition_of(
        &self,
        segment: usize,
        row: usize,
        is_followed: bool,
    ) -> Result<Disposition, CorruptIndex> {
        let index = self.snapshot.index();
        let columns = index.segments()[segment].columns();
        let instant = self.snapshot.as_of().as_ref();
        if columns.updated_of(row).is_some_and(|updated| updated > instant) {
            return Ok(Disposition::Future);
        }
        if !is_followed {
            return Ok(Disposition::Stays);
        }
        Ok(match self.snapshot.state(segment, row, instant, &self.ours, &|_| true)? {
            RowState::Current => Disposition::Stays,
            RowState::Future => Disposition::Future,
            RowState::Superseded => Disposition::Superseded,
            RowState::Deleted if columns.type_of(row) == ResourceType::PROVENANCE => Disposition::Stays,
            RowState::Deleted => Disposition::Deleted,
        })
    }

    /// Whether a version follows a record (a row or a DELETE entry, numbered over the store) no later than T.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub(crate) fn is_followed(&self, record: usize) -> Result<bool, CorruptIndex> {
        let index = self.snapshot.index();
        let instant: InstantRef<'_> = self.snapshot.as_of().as_ref();
        let mut next = index.global().next(record)?;
        while let Some(number) = next {
            if number < index.rows() {
                let (segment, row) = index.locate(number);
                if index.segments()[segment].columns().updated_of(row).is_some_and(|updated| updated > instant) {
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
