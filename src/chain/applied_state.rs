//! The directory that holds the current records of a chain: files of resources, and `state.json`, which lists them.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{DirectoryContent, JournalError};
use crate::limits::RECORD_BYTES_MAX;
use crate::sys::directory::Directory;
use crate::write::journal::{Receipt, place_of_json_error};

/// File that describes the directory.
pub(crate) const STATE: &str = "state.json";

/// Contents of [`STATE`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppliedState {
    /// The chain's own id.
    pub chain: String,
    /// Number of the last export that was applied.
    pub number: u64,
    /// Number of the full export that it began with.
    pub full: u64,
    /// The transactionTime of the last export: the files hold what was current then.
    pub transaction_time: String,
    /// The files.
    pub files: Vec<Receipt>,
}

impl AppliedState {
    /// The description of a directory; `None` if it is not there or empty.
    ///
    /// # Errors
    /// [`JournalError::NotEmpty`] if it holds anything that was not made by applying a chain; [`JournalError::Damaged`] if its
    /// description cannot be read; [`JournalError::Io`].
    pub(crate) fn of_directory(path: &Path) -> Result<Option<AppliedState>, JournalError> {
        let io = |source| JournalError::Io { path: path.to_path_buf(), source };
        let damaged = |reason: String| JournalError::Damaged { path: path.join(STATE), reason };
        let directory = match Directory::open(path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let names = directory.names().map_err(io)?;
        if names.is_empty() {
            return Ok(None);
        }
        let foreign = |name: &str| JournalError::NotEmpty {
            path: path.to_path_buf(),
            holds: DirectoryContent::Foreign(name.to_string()),
        };
        let bytes = match directory.read(STATE, RECORD_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(_) => return Err(foreign(&names[0].to_string_lossy())),
        };
        let state: AppliedState =
            serde_json::from_slice(&bytes).map_err(|error| damaged(place_of_json_error(&error)))?;
        let known: BTreeSet<&str> = state.files.iter().map(|file| file.file.as_str()).chain([STATE]).collect();
        match names.iter().find(|name| name.to_str().is_none_or(|name| !known.contains(name))) {
            Some(name) => Err(foreign(&name.to_string_lossy())),
            None => Ok(Some(state)),
        }
    }
}
