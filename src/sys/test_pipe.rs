//! Named pipes for tests. They are made without another program: a process that is being started holds copies of this one's
//! locks for a moment, which other tests would meet.

use std::path::Path;

/// Makes a named pipe.
pub(crate) fn make_pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}
