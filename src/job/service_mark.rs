//! The mark by which the directories of records and of files are known to belong together.

use crate::job::api::{EngineOptions, OpenError};
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;

/// Name of the file, in both directories, whose equal content says that records and files belong together.
const MARK: &str = ".service";
/// Most bytes of a mark that are read.
const MARK_BYTES_MAX: u64 = 4096;

/// Checks that records and files belong together, by the mark in both directories, which is made when both are new.
/// With the records of another volume, or none, every directory of a finished job would be removed as unknown.
///
/// # Errors
/// [`OpenError::Strangers`] if the files bear a mark that the records do not; [`OpenError::Directory`] if a mark cannot
/// be read or written.
pub(crate) fn check_same_disk(
    options: &EngineOptions,
    files: &Directory,
    records: &Directory,
) -> Result<(), OpenError> {
    let failed = |directory: &Directory| {
        let path = directory.path().join(MARK);
        |source| OpenError::Directory { path, source }
    };
    let read = |directory: &Directory| match directory.read(MARK, MARK_BYTES_MAX) {
        Ok(mark) => Ok(Some(mark)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(directory)(error)),
    };
    let (of_files, of_records) = (read(files)?, read(records)?);
    if of_files.is_some() && of_files != of_records {
        return Err(OpenError::Strangers { files: options.files.clone(), records: options.records.clone() });
    }
    let new = || format!("{:032x}\n", u128::from_le_bytes((options.random)())).into_bytes();
    let mark = of_records.clone().unwrap_or_else(new);
    // The mark of the records first: then files without a mark mean a first start that was cut short, never lost
    // records.
    for (directory, found) in [(records, of_records), (files, of_files)] {
        if found.is_none() {
            directory.replace(MARK, &mark, options.sync == FileSync::Yes).map_err(failed(directory))?;
        }
    }
    Ok(())
}
