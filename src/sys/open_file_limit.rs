//! The limit of open files of the process: every file of an opened store stays open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files (RLIMIT_NOFILE) to the hard one, so that a store of thousands of files can be
/// opened. A failure is ignored: the file that exceeds the limit is then named in its own error.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
