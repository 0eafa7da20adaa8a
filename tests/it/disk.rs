//! A full disk: exit 3, no manifest, nothing lost, and `--resume` completes once there is room. A small tmpfs where
//! mounting is allowed; everywhere a limit on the size of files (`RLIMIT_FSIZE`), which fails writes in the same way.

use crate::run::{self, Bounds, Export, Run, command, scratch, snapshot, testdata};
use std::ffi::CString;
use std::path::Path;

/// An export that cannot write files larger than `limit` bytes.
pub fn limited(store: &Path, out: &Path, more: &[&str], limit: u64) -> Run {
    let mut command = command();
    command.args(["export", "--store", store.to_str().unwrap(), "--out", out.to_str().unwrap(), "--progress", "never"]);
    command.args(more);
    limit_files(&mut command, limit);
    run::finish(&mut command)
}

/// Makes writes fail that would make a file larger than `limit` bytes.
pub fn limit_files(command: &mut std::process::Command, limit: u64) {
    use std::os::unix::process::CommandExt;
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: both calls are async-signal-safe and touch only this process's own limits and signal table.
    unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            if libc::setrlimit(libc::RLIMIT_FSIZE, &limit) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

#[test]
fn a_failed_write_is_exit_3_and_resumes() {
    let scratch = scratch();
    let store = testdata("stores/synthea-r4-100");
    let index = scratch.path().join("index");
    let (index, out) = (index.to_str().unwrap(), scratch.path().join("out"));
    let request =
        ["--group", "ten", "--as-of", crate::golden::AS_OF, "--index-dir", index, "--max-file-bytes", "400kB"];
    let warm = scratch.path().join("warm");
    let mut with_base = request.to_vec();
    with_base.extend(["--base-url", "https://files.example.org/"]);
    assert_eq!(run::export(&store, &warm, &with_base).code, 0);
    let stopped = limited(&store, &out, &with_base, 100_000);
    stopped.refused(3, &[]);
    assert!(!out.join("manifest.json").exists(), "no manifest after a failure");
    with_base.push("--resume");
    assert_eq!(run::export(&store, &out, &with_base).code, 0);
    Export::read(&out, Bounds { file_bytes: 400_000, ..Bounds::DEFAULT });
    assert!(snapshot(&out) == snapshot(&warm), "the resumed directory is that of an undisturbed run");
}

/// A mounted tmpfs, unmounted at the end.
struct Tmpfs(CString);

impl Tmpfs {
    fn mount(at: &Path, size: &str, flags: libc::c_ulong) -> Option<Tmpfs> {
        let path = CString::new(at.to_str().unwrap()).unwrap();
        let options = CString::new(format!("size={size}")).unwrap();
        // SAFETY: all pointers are to NUL-terminated strings that live through the call.
        let done =
            unsafe { libc::mount(c"tmpfs".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), flags, options.as_ptr().cast()) };
        (done == 0).then_some(Tmpfs(path))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // SAFETY: the path is a NUL-terminated string.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_full_disk_is_exit_3_and_resumes() {
    let scratch = scratch();
    let disk = scratch.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(_mounted) = Tmpfs::mount(&disk, "6m", 0) else {
        println!("skipped: mounting a tmpfs is not permitted here (the limit on file sizes is tested all the same)");
        return;
    };
    let store = testdata("stores/synthea-r4-100");
    let index = scratch.path().join("index");
    let out = disk.join("out");
    let mut request = vec!["--all-patients", "--as-of", crate::golden::AS_OF, "--index-dir", index.to_str().unwrap()];
    request.extend(["--max-file-bytes", "1MB", "--base-url", "https://files.example.org/"]);
    run::export(&store, &out, &request).refused(3, &["out"]);
    assert!(!out.join("manifest.json").exists(), "no manifest after a failure");
    std::mem::forget(Tmpfs::mount(&disk, "200m", libc::MS_REMOUNT).expect("room is made"));
    request.push("--resume");
    assert_eq!(run::export(&store, &out, &request).code, 0);
    let found = snapshot(&out);
    request.pop();
    let whole = scratch.path().join("whole");
    assert_eq!(run::export(&store, &whole, &request).code, 0);
    assert!(found == snapshot(&whole), "the resumed directory is that of an undisturbed run");
}
