//! Methods of [`Store`] that use its index: refresh, snapshots, listings, verification and repair. Each delegates to a
//! module of `index`.

use crate::store::walk::walk_store;
use std::sync::Arc;

use crate::error::IndexError;
use crate::fhir::instant::Instant;
use crate::index::open::Verification;
use crate::index::report::RefreshStats;
use crate::index::snapshot::{Index, Snapshot};
use crate::index::snapshot_record::SnapshotRecord;
use crate::index::store_listing::StoreListing;
use crate::index::{invalidate, refresh};
use crate::progress::Progress;
use crate::store::Store;

impl Store {
    /// The greatest T of the snapshots taken, as the index on disk records it; `None` without an index or a snapshot.
    pub fn latest_snapshot(&self) -> Option<Instant> {
        let ticks = refresh::latest_snapshot_ticks(self)?;
        Some(Instant { ticks, rest: Box::default() })
    }

    /// Brings the index up to date and takes a snapshot: what an export as of `as_of` sees (CONS-04). Rows that come
    /// to the store later, or are dated later, are not part of it.
    ///
    /// # Errors
    /// When the store cannot be read as a whole.
    pub fn snapshot(&self, as_of: Instant) -> Result<Snapshot, IndexError> {
        self.snapshot_watched(as_of, &Progress::default()).map(|(snapshot, _)| snapshot)
    }

    /// Like [`Store::snapshot`], with progress; also returns statistics of the refresh.
    ///
    /// # Errors
    /// When the store cannot be read as a whole, or `progress` is cancelled.
    pub fn snapshot_watched(
        &self,
        as_of: Instant,
        progress: &Progress,
    ) -> Result<(Snapshot, RefreshStats), IndexError> {
        let (index, work) = refresh::refresh(self, Some(&as_of), None, progress, Verification::Stamps)?;
        Ok((Snapshot::new(Arc::new(index), as_of), work))
    }

    /// Like [`Store::snapshot_watched`], but every byte of the index is checked as by [`Store::verify_and_repair`].
    ///
    /// # Errors
    /// As [`Store::snapshot_watched`].
    pub fn snapshot_verified(
        &self,
        as_of: Instant,
        progress: &Progress,
    ) -> Result<(Snapshot, RefreshStats), IndexError> {
        let (index, work) = refresh::refresh(self, Some(&as_of), None, progress, Verification::Nothing)?;
        Ok((Snapshot::new(Arc::new(index), as_of), work))
    }

    /// Names, sizes and times of the data files of the store now; no file is read.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn list_files(&self) -> Result<StoreListing, IndexError> {
        Ok(StoreListing::of(&walk_store(self)?))
    }

    /// Like [`Store::snapshot_watched`], of the bytes that an earlier [`Store::list_files`] listed: later bytes and
    /// files are not part of it, unless they have been indexed meanwhile. Files replaced since are taken as they are
    /// now.
    ///
    /// # Errors
    /// As [`Store::snapshot_watched`].
    pub fn snapshot_of_listing(
        &self,
        view: &StoreListing,
        as_of: Instant,
        progress: &Progress,
    ) -> Result<(Snapshot, RefreshStats), IndexError> {
        let (index, work) = refresh::refresh(self, Some(&as_of), Some(view), progress, Verification::Stamps)?;
        Ok((Snapshot::new(Arc::new(index), as_of), work))
    }

    /// The index as last published, without a walk over the store; `None` when no intact one exists, or it is being
    /// replaced.
    pub fn latest_published(&self) -> Option<Index> {
        refresh::latest_published(self)
    }

    /// Brings the index up to date and opens it, without taking a snapshot.
    ///
    /// # Errors
    /// When the store cannot be read as a whole, or `progress` is cancelled.
    pub fn index(&self, progress: &Progress) -> Result<(Index, RefreshStats), IndexError> {
        refresh::refresh(self, None, None, progress, Verification::Stamps)
    }

    /// Like [`Store::index`], but every byte of the index is checked whatever the times of its files, and damaged parts
    /// are made again. To be called after [`IndexError::Damaged`].
    ///
    /// # Errors
    /// As [`Store::index`].
    pub fn verify_and_repair(&self, progress: &Progress) -> Result<(Index, RefreshStats), IndexError> {
        refresh::refresh(self, None, None, progress, Verification::Nothing)
    }

    /// The operation of a store that marks one of its files, by its path relative to the store, to be scanned again by
    /// the next refresh.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn invalidate_file(&self, name: &str, progress: &Progress) -> Result<(), IndexError> {
        invalidate::invalidate_file(self, name, progress)
    }

    /// The snapshot that a record names: the same segments, whatever has been appended since.
    ///
    /// # Errors
    /// [`IndexError::Changed`] when the store no longer holds those bytes; else as [`Store::index`].
    pub fn reopen_snapshot(
        &self,
        record: &SnapshotRecord,
        progress: &Progress,
    ) -> Result<(Snapshot, RefreshStats), IndexError> {
        refresh::rebuild_from_record(self, record, progress)
    }
}
