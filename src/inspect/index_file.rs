//! Files of an index as they are opened to be described.

use std::path::Path;

use crate::index::dir::{IndexBytes, IndexDir};
use crate::inspect::report::InspectReport;

/// Bytes of an index file; a failure is added to the report as damage.
pub(crate) fn open_index_file(path: &Path, report: &mut InspectReport) -> Option<IndexBytes> {
    let name = path.file_name()?.to_str()?;
    // `IndexDir::Directory` only holds the path: the directory is neither created nor locked.
    match IndexDir::Directory(path.parent()?.to_path_buf()).open(name) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            report.broken(path, format!("it cannot be read: {error}"));
            None
        }
    }
}

/// Name of an index file, for the headings of its description.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
