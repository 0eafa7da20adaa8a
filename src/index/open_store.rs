//! Methods of [`Store`] that use its index: refresh, snapshots, listings, verification and repair. Each delegates to a
//! module of `index`.

use crate::store::choices::links_of;
use crate::store::walk::walk_store;
use std::sync::Arc;

use crate::error::{ExportError, IndexError};
use crate::fhir::instant::Instant;
use crate::index::open::Verification;
use crate::index::refresh::{RefreshRun, latest_published, refresh};
use crate::index::report::RefreshStats;
use crate::index::search::maintenance::{DroppedColumns, maintain_columns, read_names};
use crate::index::snapshot::{Index, Snapshot};
use crate::index::snapshot_record::SnapshotRecord;
use crate::index::snapshot_time::SnapshotTime;
use crate::index::store_listing::StoreListing;
use crate::index::{invalidate, load, reopen};
use crate::progress::Progress;
use crate::store::Store;

impl Store {
    /// The last T given out, as the index on disk records it: the greatest of the snapshots taken that was not beyond
    /// the clock then; `None` without an index or a snapshot, and while it cannot be read.
    pub fn latest_snapshot(&self) -> Option<Instant> {
        let ticks = load::latest_snapshot_ticks(self)?;
        Some(Instant { ticks, rest: Box::default() })
    }

    /// Brings the index up to date and takes a snapshot: what an export as of its T sees (CONS-04). Rows that come to
    /// the store later, or are dated later, are not part of it. `time` is the T, or has it chosen by the clock
    /// ([`SnapshotTime::by_clock`]).
    ///
    /// # Errors
    /// When the store cannot be read as a whole.
    pub fn snapshot(&self, time: impl Into<SnapshotTime>) -> Result<Snapshot, IndexError> {
        self.snapshot_watched(time, &Progress::default()).map(|(snapshot, _)| snapshot)
    }

    /// Like [`Store::snapshot`], with progress; also returns statistics of the refresh.
    ///
    /// # Errors
    /// When the store cannot be read as a whole, or `progress` is cancelled.
    pub fn snapshot_watched(
        &self,
        time: impl Into<SnapshotTime>,
        progress: &Progress,
    ) -> Result<(Snapshot, RefreshStats), IndexError> {
        self.take_snapshot(&time.into(), None, progress, Verification::Stamps)
    }

    /// Like [`Store::snapshot_watched`], but every byte of the index is checked as by [`Store::verify_and_repair`].
    ///
    /// # Errors
    /// As [`Store::snapshot_watched`].
    pub fn snapshot_verified(
        &self,
        time: impl Into<SnapshotTime>,
        progress: &Progress,
    ) -> Result<(Snapshot, RefreshStats), IndexError> {
        self.take_snapshot(&time.into(), None, progress, Verification::Nothing)
    }

    /// A refresh that scans what is new itself.
    fn run<'a>(&'a self, progress: &'a Progress) -> RefreshRun<'a> {
        RefreshRun { store: self, progress, supply: None }
    }

    /// Brings the index up to date and takes a snapshot of it, or of the bytes of `view`.
    fn take_snapshot(
        &self,
        time: &SnapshotTime,
        view: Option<&StoreListing>,
        progress: &Progress,
        verification: Verification,
    ) -> Result<(Snapshot, RefreshStats), IndexError> {
        let (index, work, as_of) = refresh(self.run(progress), Some(time), view, verification)?;
        let as_of = as_of.expect("a refresh that is given a time records a snapshot");
        Ok((Snapshot::new(Arc::new(index), as_of), work))
    }

    /// Names, sizes and times of the data files of the store now; none of them is read.
    ///
    /// # Errors
    /// When a directory, the index or `.outpourignore` cannot be read.
    pub fn list_files(&self) -> Result<StoreListing, IndexError> {
        let links = match self.options().choices.follow_symlinks {
            Some(follow) => links_of(follow),
            None if self.options().remake => self.options().choices.links_of_new_index(),
            // As the index was made with, if there is one.
            None => load::links_of_published(self)?,
        };
        Ok(StoreListing::of(&walk_store(self, links)?))
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
        time: impl Into<SnapshotTime>,
        progress: &Progress,
    ) -> Result<(Snapshot, RefreshStats), IndexError> {
        self.take_snapshot(&time.into(), Some(view), progress, Verification::Stamps)
    }

    /// The index as last published, without a walk over the store; `None` when no intact one exists, or it is being
    /// replaced.
    ///
    /// # Errors
    /// [`IndexError::ReadIndex`] when one may exist that cannot be read.
    pub fn latest_published(&self) -> Result<Option<Index>, IndexError> {
        latest_published(self)
    }

    /// Brings the index up to date and opens it, without taking a snapshot.
    ///
    /// # Errors
    /// When the store cannot be read as a whole, or `progress` is cancelled.
    pub fn index(&self, progress: &Progress) -> Result<(Index, RefreshStats), IndexError> {
        refresh(self.run(progress), None, None, Verification::Stamps).map(|(index, work, _)| (index, work))
    }

    /// Brings the index up to date, and keeps the values of these search parameters in it, named as `Observation.category`: from
    /// then on filters on them ([`ExportRequest::type_filters`](crate::ExportRequest::type_filters)) are decided without a look at
    /// the rows. They are completed by each later call, with or without names, and by `outpour index`.
    ///
    /// # Errors
    /// [`ExportError::Request`] with each name that is no parameter or is one of texts, which are read each time; what fails in
    /// the store or the index.
    pub fn keep_search_columns<S: AsRef<str>>(&self, parameters: &[S], progress: &Progress) -> Result<(), ExportError> {
        let names = read_names(parameters)?;
        let (index, _) = self.index(progress)?;
        maintain_columns(&index, &names, &DroppedColumns::Of(Vec::new()), progress).map(drop)
    }

    /// Like [`Store::index`], but every byte of the index is checked whatever the times of its files, and damaged parts
    /// are made again. To be called after [`IndexError::Damaged`].
    ///
    /// # Errors
    /// As [`Store::index`].
    pub fn verify_and_repair(&self, progress: &Progress) -> Result<(Index, RefreshStats), IndexError> {
        refresh(self.run(progress), None, None, Verification::Nothing).map(|(index, work, _)| (index, work))
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
        reopen::rebuild_from_record(self, record, progress)
    }
}
