//! How many files the process may have open: a store is opened file by file, and every file stays open.

/// Raises the soft limit to the hard one, so that a store of thousands of files can be opened. Best effort: where it
/// fails, opening a file fails with its name.
pub(crate) fn raise_limit() {
    // SAFETY: both calls only read and write the structure that outlives them.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
