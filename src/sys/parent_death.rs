//! The end of a process with its parent: a task whose launcher was killed must not go on writing.

/// Has the kernel end this process when the thread that started it ends (prctl(2), `PR_SET_PDEATHSIG`). `false` if the parent has
/// ended already, while this was called.
pub(crate) fn end_with_parent() -> bool {
    // SAFETY: getppid has no arguments and no failures.
    let parent = unsafe { libc::getppid() };
    // SAFETY: the call has no pointers; where it fails, as in a sandbox, the process goes on as any other.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) };
    // SAFETY: as above.
    parent == unsafe { libc::getppid() }
}
