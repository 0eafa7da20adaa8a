//! How the rows ended that something follows: mostly told by what follows alone, without a look at either.

use crate::casts::to_usize;
use crate::error::CorruptIndex;
use crate::index::global::Section;
use crate::index::snapshot::RowState;
use crate::select::classifier::RowClassifier;

/// What is known of all successions of the store at T.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visibility {
    /// Every row is seen and dated before T, so that a row that another one follows is superseded.
    by_rows: bool,
    /// So is every deletion, each of one of ours, and nothing follows any: what a deletion follows is deleted.
    by_deletions: bool,
}

impl Visibility {
    /// Looks at the headers of the store.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub(crate) fn of(filter: &RowClassifier<'_>) -> Result<Visibility, CorruptIndex> {
        let (snapshot, index, instant) = (filter.snapshot, filter.snapshot.index(), filter.as_of());
        let heads = || index.segments().iter().map(|segment| segment.head());
        if !snapshot.sees_whole_index() || heads().any(|head| head.updated_max() >= instant.ticks) {
            return Ok(Visibility::default());
        }
        let deletions: usize = heads().map(|head| to_usize(head.tombstones)).sum();
        let followed = index.global().pairs(Section::Succession, index.rows()..index.rows() + deletions)?;
        let by_deletions = followed.is_empty()
            && index.global().totals()?.foreign_deletions() == 0
            && heads().all(|head| head.tombstone_updated_max() < instant.ticks);
        Ok(Visibility { by_rows: true, by_deletions })
    }

    /// How a row ended that the record of number `next` follows, if that much tells it.
    pub(crate) fn by_successor(self, filter: &RowClassifier<'_>, next: usize) -> Option<RowState> {
        match next < filter.snapshot.index().rows() {
            true => self.by_rows.then_some(RowState::Superseded),
            false => self.by_deletions.then_some(RowState::Deleted),
        }
    }

    /// The state of a row that the record of number `next` follows.
    ///
    /// # Errors
    /// [`Damaged`] when the index is.
    pub(crate) fn state(
        self,
        filter: &RowClassifier<'_>,
        segment: usize,
        row: usize,
        next: usize,
    ) -> Result<RowState, CorruptIndex> {
        match self.by_successor(filter, next) {
            Some(state) => Ok(state),
            None => filter.snapshot.state(segment, row, filter.as_of(), &filter.cohort.ours, &|_| true),
        }
    }
}
