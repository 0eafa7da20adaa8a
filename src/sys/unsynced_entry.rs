//! A file or directory that stands complete under its name, while the directory that holds the name could not be synced:
//! no failure of what was written, but a doubt about a loss of power. It is told apart from every other error.

use std::io;

/// The failed sync of a directory, after a rename in it.
#[derive(Debug, thiserror::Error)]
#[error("it stands complete, but its directory cannot be synced ({source}): only a loss of power can still undo it")]
struct UnsyncedEntry {
    /// The system's error.
    source: io::Error,
}

/// The error of a directory that could not be synced after a rename in it, by the system's error.
pub(crate) fn unsynced(source: io::Error) -> io::Error {
    io::Error::new(source.kind(), UnsyncedEntry { source })
}

/// Whether an error says that all that was written stands, and only its directory could not be synced.
pub(crate) fn is_unsynced(error: &io::Error) -> bool {
    inner(error).is_some()
}

/// The number of the system's error, also beneath that of a directory that could not be synced.
pub(crate) fn os_error(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| inner(error)?.source.raw_os_error())
}

/// The failed sync that an error tells of.
fn inner(error: &io::Error) -> Option<&UnsyncedEntry> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_is_told_from_what_failed() {
        let failed = || io::Error::from_raw_os_error(libc::EIO);
        let stands = unsynced(failed());
        assert!(is_unsynced(&stands) && !is_unsynced(&failed()));
        assert_eq!((os_error(&stands), os_error(&failed())), (Some(libc::EIO), Some(libc::EIO)));
        assert!(stands.to_string().contains("stands complete") && stands.to_string().contains("(os error 5)"));
    }
}
