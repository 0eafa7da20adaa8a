//! Marks the segments of a store file to be scanned again, after an export found that they contradict the file.

use crate::error::IndexError;
use crate::index::dir::IndexDir;
use crate::index::load::{LoadedMeta, is_unwritable_place, load_published};
use crate::index::meta::{self, SCAN_AGAIN};
use crate::progress::Progress;
use crate::store::{IndexAccess, Store};
use std::sync::atomic::Ordering::Relaxed;

/// Marks the segments of a file (by its name below the store) to be scanned again. Times of snapshots are kept. An
/// index in memory is made by every command, and needs no mark.
///
/// # Errors
/// When the index cannot be read or written.
pub(crate) fn invalidate_file(store: &Store, name: &str, progress: &Progress) -> Result<(), IndexError> {
    if store.options().index_access == IndexAccess::ReadOnly {
        return Ok(());
    }
    let failed = |source| IndexError::Write { name: meta::FILE.into(), source };
    let dir = match IndexDir::directory(&store.index_dir()) {
        Ok(dir) => dir,
        Err(error) if is_unwritable_place(&error) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let _lock = dir.lock(&mut || progress.waiting.store(true, Relaxed)).map_err(failed)?;
    progress.waiting.store(false, Relaxed);
    let Some(LoadedMeta { current: mut known, is_legacy, .. }) = load_published(&dir)?.known() else { return Ok(()) };
    if is_legacy {
        // All of its segments are scanned again.
        return Ok(());
    }
    for segment in &mut known.segments {
        if known.files[segment.file.index()].name == name {
            segment.at = SCAN_AGAIN;
        }
    }
    dir.write_twice(meta::FILE, &known.to_bytes(), true).map_err(failed)
}
