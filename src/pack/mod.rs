//! Packs a store: writes its rows to a new directory, sorted by type, patient and time, as compressed frames that an
//! export can copy.
//!
//! ```text
//! snapshot → which rows are kept → order → frames → files → publish
//! ```
//!
//! A packed store is an ordinary store directory of `.ndjson.zst` or `.ndjson.gz` files (see [`crate::store::packed`]). A pack drops a
//! version that a later version or a deletion followed no later than the pack's T; the owners of a version dropped for
//! its deletion are kept in the file's table, so that the deletion is still listed for them. Faulty lines go unchanged
//! to `rejected.ndjson`. The new directory appears complete, by rename, or not at all; the old store is only read.
//! Nothing here parses rows, except the few lines that the index does not place (deletions and faults).
//!
//! Memory: 16 bytes a row of the largest type (in passes when there are very many), and a few frames a thread.

pub(crate) mod cluster;
pub(crate) mod non_rows;
pub(crate) mod prior_owners;
pub(crate) mod report;
pub(crate) mod retention;
pub(crate) mod row_fetch;
pub(crate) mod sort_key;
pub(crate) mod tombstones;
pub(crate) mod writer;

use crate::error::{IndexError, PackError};
use crate::fhir::resource_type::ResourceType;
use crate::ids::SegmentId;
use crate::index::report::RefreshStats;
use crate::index::snapshot::Snapshot;
use crate::index::snapshot_time::SnapshotTime;
use crate::pack::report::PackReport;
use crate::pack::retention::Retention;
use crate::pack::row_fetch::RowFetcher;
use crate::pack::writer::{FrameCoder, PackHeader, PackWriter};
use crate::progress::{Phase, Progress};
use crate::select::store_issues::store_issues;
use crate::store::paths::check_outside_linked;
use crate::store::{Store, StoreOptions};
use crate::sys::atomic_dir::AtomicDir;
use crate::sys::durability::FileSync;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;

/// Target and parameters of a pack.
pub(crate) struct PackOptions {
    /// The new directory; it must not exist, or be empty.
    pub to: PathBuf,
    /// How frames are compressed: zstd at a level from 1 to 19, gzip at one from 1 to 9.
    pub coder: FrameCoder,
    /// Whether files are synced before the directory appears under its name.
    pub sync: FileSync,
}

/// Packs a store as of the T of `time`. Runs on the current rayon pool.
///
/// # Errors
/// [`PackError`] if the target lies in the store or holds it, if the store cannot be read or changes during the pack,
/// or if a file cannot be written. No file of the pack is left at or beside the target then.
pub(crate) fn pack(
    store: &Store,
    time: impl Into<SnapshotTime>,
    options: &PackOptions,
    progress: &Progress,
) -> Result<PackReport, PackError> {
    check_outside(store.root(), &options.to)?;
    let directory = AtomicDir::begin(&options.to, options.sync)?;
    let (snapshot, work) = verified_snapshot(store, time.into(), progress)?;
    check_outside_linked(&snapshot.index().walked().linked, &options.to)
        .map_err(|_| PackError::Inside { to: options.to.clone(), store: store.root().to_path_buf() })?;
    let mut packed =
        PackReport { transaction_time: snapshot.as_of().to_string(), index: work, ..PackReport::default() };
    packed.excluded = snapshot.index().walked().excluded;
    packed.messages = store_issues(&snapshot).map_err(IndexError::from)?;
    write_store(&snapshot, store.options(), &directory, options, progress, &mut packed)?;
    // A store file that changed during the pack may have been read in two states.
    snapshot.index().verify_unchanged()?;
    if progress.cancel.load(Relaxed) {
        return Err(IndexError::Cancelled.into());
    }
    directory.publish()?;
    Ok(packed)
}

/// A snapshot with every page checksum of its segments verified, since a pack reads all of them; a damaged index is
/// repaired first. Also returns the work on the index.
fn verified_snapshot(
    store: &Store,
    time: SnapshotTime,
    progress: &Progress,
) -> Result<(Snapshot, RefreshStats), PackError> {
    let verify = |snapshot: &Snapshot| {
        snapshot.index().segments().par_iter().try_for_each(|segment| segment.verify_all().map(drop))
    };
    let (snapshot, work) = store.snapshot_watched(time.clone(), progress)?;
    if verify(&snapshot).is_ok() {
        return Ok((snapshot, work));
    }
    let (_, repair) = store.verify_and_repair(progress)?;
    let (snapshot, mut work) = store.snapshot_watched(time, progress)?;
    verify(&snapshot)?;
    work.repaired.extend(repair.repaired);
    Ok((snapshot, work))
}

/// Writes every file of the new directory: rejected lines, then the data files type by type.
fn write_store(
    snapshot: &Snapshot,
    store: &StoreOptions,
    directory: &AtomicDir,
    options: &PackOptions,
    progress: &Progress,
    packed: &mut PackReport,
) -> Result<(), PackError> {
    let index = snapshot.index();
    let retention = Retention::new(snapshot);
    let bytes = |segment: SegmentId| index.entry(segment).end - index.entry(segment).start;
    progress.begin(Phase::Writing);
    progress.write_total.store(snapshot.segments().map(bytes).sum(), Relaxed);
    let mut rows = RowFetcher::new(snapshot, directory.path(), store.access);
    let tombstone_lines = non_rows::write_non_rows(
        snapshot,
        &mut rows,
        store.kernel,
        (directory.path(), options.sync),
        progress,
        packed,
    )?;
    let mut types: BTreeSet<usize> = snapshot.segments().flat_map(|segment| types_of(snapshot, segment)).collect();
    if !tombstone_lines.is_empty() {
        types.insert(ResourceType::BUNDLE.index());
    }
    for i in types {
        let resource_type = ResourceType::from_index(i).expect("a type of the index");
        rows.decode(&|segment| types_of(snapshot, segment).any(|of| of == i), progress)?;
        let mut writer = PackWriter::new(directory.path(), resource_type, options.coder, options.sync);
        for set in retention.version_sets() {
            let header = PackHeader::new(snapshot, set);
            writer.begin(header, packed)?;
            for pass in cluster::passes(&retention, i) {
                cluster::write_type(&retention, i, set, pass, &rows, &mut writer, progress, packed)?;
            }
        }
        // Lines of DELETE entries are Bundles and go behind the rows of that type.
        if resource_type == ResourceType::BUNDLE {
            rows.decode(&|segment| index.segment(segment).head().tombstone_lines > 0, progress)?;
            tombstones::write(&retention, &tombstone_lines, &rows, &mut writer, packed)?;
        }
        writer.finish(packed)?;
        // Decoded files take disk space: keep only those that a later type still needs.
        let bundles_to_come = i < ResourceType::BUNDLE.index();
        rows.forget_decoded(&|segment| {
            let lines = index.segment(segment).head().tombstone_lines;
            types_of(snapshot, segment).any(|of| of > i) || bundles_to_come && lines > 0
        });
        if progress.cancel.load(Relaxed) {
            return Err(IndexError::Cancelled.into());
        }
    }
    if packed.frames == 0 {
        // An empty store still needs the snapshot times in a table: rows added to it later must count as late-arriving
        // exactly as they would have in the old store.
        let mut writer = PackWriter::new(directory.path(), ResourceType::BUNDLE, options.coder, options.sync);
        writer.empty(PackHeader::new(snapshot, None), packed)?;
    }
    Ok(())
}

/// Indexes of the resource types that a segment has rows of.
fn types_of(snapshot: &Snapshot, segment: SegmentId) -> impl Iterator<Item = usize> + '_ {
    let counts = snapshot.index().segment(segment).columns().type_count;
    counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(i, _)| i)
}

/// Refuses a new directory inside the store, where the next command would read it as input, and one that contains the
/// store.
fn check_outside(store: &Path, to: &Path) -> Result<(), PackError> {
    crate::store::paths::check_outside_store(store, to)
        .map_err(|_| PackError::Inside { to: to.to_path_buf(), store: store.into() })
}
