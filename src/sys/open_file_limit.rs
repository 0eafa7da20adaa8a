//! The limit of open files of the process: every file of an opened store stays open.

/// Raises the soft limit of open files (RLIMIT_NOFILE) to the hard one, so that a store of thousands of files can be
/// opened. A failure is ignored: the file that exceeds the limit is then named in its own error.
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
