//! Limits that the system sets this process: made errors instead of signals when it starts, and named when one is reached.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::count_text::counted;
use crate::sys::unsynced_entry::os_error;

/// Prepares the process. The soft limit of open files (RLIMIT_NOFILE) is raised to the hard one, so that a store of
/// thousands of files can be opened; a failure is ignored, since the file that exceeds the limit is named in its own error.
/// SIGXFSZ is ignored: a write beyond the limit on the size of a file (RLIMIT_FSIZE) is then an error like any other, and
/// not the death of the process.
pub(crate) fn prepare() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    // SAFETY: ignoring a signal installs no handler, and the call touches only this process's table of signals.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Most files that this process may have open at a time; `None` when any number may be.
pub(crate) fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The limit that made a call fail, its number, and how it is raised, as a part of a sentence; `None` if no limit did.
pub(crate) fn reached_limit(error: &io::Error) -> Option<String> {
    let of = |resource| getrlimit(resource).current;
    match os_error(error)? {
        // Without a limit, the file system is what allows no longer file.
        libc::EFBIG => of(Resource::Fsize).map(|bytes| {
            let bytes = counted(bytes, "byte");
            format!("RLIMIT_FSIZE, the limit on the size of a file, is {bytes}: raise it (ulimit -f)")
        }),
        libc::EMFILE => {
            let files = of(Resource::Nofile).map_or("unlimited".to_string(), |files| files.to_string());
            Some(format!(
                "RLIMIT_NOFILE, the limit of open files, is {files}: raise it (ulimit -n, or LimitNOFILE of the service)"
            ))
        }
        libc::ENFILE => {
            let files = of(Resource::Nofile).map_or("unlimited".to_string(), |files| files.to_string());
            Some(format!(
                "all programs together have as many files open as the system allows (RLIMIT_NOFILE, {files}, allows this \
                 one more): end some of them, or raise fs.file-max"
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_with_their_numbers() {
        let text = |code| reached_limit(&io::Error::from_raw_os_error(code));
        let files = getrlimit(Resource::Nofile).current.unwrap().to_string();
        for code in [libc::EMFILE, libc::ENFILE] {
            let text = text(code).unwrap();
            assert!(text.contains("RLIMIT_NOFILE") && text.contains(&files), "{text}");
        }
        assert_eq!(text(libc::EFBIG).is_some(), getrlimit(Resource::Fsize).current.is_some());
        assert_eq!((text(libc::ENOSPC), text(libc::EIO)), (None, None));
        assert_eq!(reached_limit(&io::ErrorKind::FileTooLarge.into()), None, "a bound of ours, not the system's");
    }
}
