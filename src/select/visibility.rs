//! Visibility of superseded and deleted rows at T.
//!
//! When every segment is in the snapshot and nothing is dated after T, the kind of the successor decides: a row
//! supersedes, a tombstone deletes, and neither record is read. Otherwise the successor chain is walked
//! ([`Snapshot::state`](crate::index::snapshot::Snapshot::state)).

use crate::error::CorruptIndex;
use crate::ids::{RecordId, RowAddress};
use crate::index::snapshot::RowState;
use crate::select::classifier::RowClassifier;

/// What the kind of a successor decides at T, for all successions of the store. The default decides nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visibility {
    /// Every row is in the snapshot and dated before T, so a row that another row follows is superseded.
    by_rows: bool,
    /// Also every tombstone is dated before T, under a base of ours and followed by nothing, so a row that a tombstone
    /// follows is deleted.
    by_deletions: bool,
}

impl Visibility {
    /// Derives from the segment headers and the totals of the global index what successors decide at T.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn of(classifier: &RowClassifier<'_>) -> Result<Visibility, CorruptIndex> {
        let (snapshot, index, instant) = (classifier.snapshot, classifier.snapshot.index(), classifier.as_of());
        let headers = || index.segments().iter().map(|segment| segment.head());
        if !snapshot.sees_whole_index() || headers().any(|header| header.updated_max() >= instant.ticks) {
            return Ok(Visibility::default());
        }
        let by_deletions = !index.follows_entries()?
            && index.global().totals()?.foreign_deletions() == 0
            && headers().all(|header| header.tombstone_updated_max() < instant.ticks);
        Ok(Visibility { by_rows: true, by_deletions })
    }

    /// State of a row whose successor is record `next`; `None` if the kind of the successor does not decide it.
    pub(crate) fn by_successor(self, classifier: &RowClassifier<'_>, next: RecordId) -> Option<RowState> {
        match classifier.snapshot.index().is_row(next) {
            true => self.by_rows.then_some(RowState::Superseded),
            false => self.by_deletions.then_some(RowState::Deleted),
        }
    }

    /// State at T of a row whose successor is record `next`; walks the successor chain if the kind does not decide.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn state(
        self,
        classifier: &RowClassifier<'_>,
        row: RowAddress,
        next: RecordId,
    ) -> Result<RowState, CorruptIndex> {
        match self.by_successor(classifier, next) {
            Some(state) => Ok(state),
            None => classifier.snapshot.state(row, classifier.as_of(), &classifier.cohort.ours, &|_| true),
        }
    }
}
