//! Store files as whoever copies rows sees them: found by an index, or by the stamps in a file of spans.

use crate::codec::compression::{Compression, SeekPoint};
use crate::ids::FileId;
use crate::store::packed::seek_table::SeekTable;
use crate::sys::store_file::{StoreFile, StoreFileError};

/// Numbered store files and what is known of their coding. Numbers ascend in the order of the store.
pub(crate) trait SourceFiles: Sync {
    /// A file, opened on first use.
    ///
    /// # Errors
    /// When it cannot be opened, or is not the file that was meant.
    fn source(&self, file: FileId) -> Result<&StoreFile, StoreFileError>;

    /// Coding of a file.
    fn compression(&self, file: FileId) -> Compression;

    /// The seek table of a packed file; `None` for every other file.
    fn packed(&self, file: FileId) -> Option<&SeekTable>;

    /// The last known point at or before an uncompressed offset from which a compressed file can be decoded; its start if no
    /// other is known.
    fn restart_before(&self, file: FileId, offset: u64) -> SeekPoint;
}
