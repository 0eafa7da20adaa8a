//! Marks the segments of a store file to be scanned again, after an export found that they contradict the file.

use crate::error::IndexError;
use crate::index::dir::IndexDir;
use crate::index::meta::{self, IndexMeta, SCAN_AGAIN};
use crate::progress::Progress;
use crate::store::{IndexAccess, Store};
use std::sync::atomic::Ordering::Relaxed;

/// Marks the segments of a file (by its name below the store) to be scanned again. Times of snapshots are kept. An
/// index in memory is made by every command, and needs no mark.
///
/// # Errors
/// When the index cannot be written.
pub(crate) fn invalidate_file(store: &Store, name: &str, progress: &Progress) -> Result<(), IndexError> {
    if store.options().index_access == IndexAccess::ReadOnly {
        return Ok(());
    }
    let Ok(dir) = IndexDir::directory(&store.index_dir()) else { return Ok(()) };
    let failed = |source| IndexError::Write { name: meta::FILE.into(), source };
    let _lock = dir.lock(&mut || progress.waiting.store(true, Relaxed)).map_err(failed)?;
    progress.waiting.store(false, Relaxed);
    let Some(mut known) = dir.read(meta::FILE).ok().and_then(|bytes| IndexMeta::from_bytes(&bytes)) else {
        return Ok(());
    };
    for segment in &mut known.segments {
        if known.files[segment.file].name == name {
            segment.at = SCAN_AGAIN;
        }
    }
    dir.replace(meta::FILE, &mut |_| known.to_bytes()).map_err(failed)
}
