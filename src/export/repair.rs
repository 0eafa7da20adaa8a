//! Repairs the index of a store after an export found a page or a frame of it damaged.

use crate::codec::decoder::DecodeError;
use crate::error::{ExportError, IndexError};
use crate::progress::Progress;
use crate::store::Store;
use crate::store::packed::envelope::is_packed;
use crate::sys::access::Access;
use crate::sys::store_file::StoreFile;

/// What an error that stopped an export says of the index, mended: damage found while writing has the index checked
/// as a whole, a packed file that is no longer what was indexed is indexed anew. Then what was repaired is told, and
/// the export can begin anew with [`Existing::Force`]; `None` when there is nothing to mend.
///
/// # Errors
/// When the store or the index cannot be read or written.
pub(crate) fn repair_index(
    store: &Store,
    error: &ExportError,
    progress: &Progress,
) -> Result<Option<Vec<String>>, ExportError> {
    if let ExportError::Index(IndexError::Damaged(_)) = error {
        return Ok(Some(store.verify_and_repair(progress)?.1.repaired));
    }
    let Some(name) = damaged_file(store, error) else { return Ok(None) };
    store.invalidate_file(&name, progress)?;
    Ok(Some(Vec::new()))
}

/// The packed file of the store whose damage stopped an export, if that is what happened.
fn damaged_file(store: &Store, error: &ExportError) -> Option<String> {
    let path = match error {
        ExportError::Frame { path, .. } => path,
        ExportError::Decode(DecodeError::Corrupt { path, .. }) => path,
        _ => return None,
    };
    let source = StoreFile::open(path, Access::pread()).ok()?;
    is_packed(&source).ok()?.then(|| path.strip_prefix(store.root()).ok()?.to_str().map(str::to_string))?
}
