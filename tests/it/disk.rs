//! A full disk: exit code 3, no manifest, nothing lost, and `--resume` completes once there is room. Tested on a small
//! tmpfs where mounting is allowed, and everywhere by a limit on the size of files (`RLIMIT_FSIZE`), whose writes fail
//! alike.

use crate::run::{self, Bounds, Export, Run, command, scratch, snapshot, testdata};
use std::ffi::CString;
use std::path::Path;

/// An export that cannot write files larger than `limit` bytes.
pub(crate) fn limited(store: &Path, out: &Path, more: &[&str], limit: u64) -> Run {
    let mut command = command();
    command.args(["export", "--store", store.to_str().unwrap(), "--out", out.to_str().unwrap(), "--progress", "never"]);
    command.args(more);
    limit_files(&mut command, limit);
    run::finish(&mut command)
}

/// Makes writes of a command beyond `limit` bytes of a file fail.
pub(crate) fn limit_files(command: &mut std::process::Command, limit: u64) {
    limit_by(command, libc::rlimit { rlim_cur: limit, rlim_max: limit });
}

/// As [`limit_files`], by the soft limit only, so that it can be lifted later.
pub(crate) fn limit_files_softly(command: &mut std::process::Command, limit: u64) {
    limit_by(command, libc::rlimit { rlim_cur: limit, rlim_max: libc::RLIM_INFINITY });
}

fn limit_by(command: &mut std::process::Command, limit: libc::rlimit) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the call is async-signal-safe and touches only this process's own limits.
    unsafe {
        command.pre_exec(move || {
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
    stopped.refused(3, &["cannot write ", ".ndjson in ", "RLIMIT_FSIZE", "100000 bytes", "--resume"]);
    assert!(!stopped.said().contains("make room"), "room is not what lacks: {}", stopped.stderr);
    assert!(!out.join("manifest.json").exists(), "no manifest after a failure");
    with_base.push("--resume");
    assert_eq!(run::export(&store, &out, &with_base).code, 0);
    Export::read(&out, Bounds { file_bytes: 400_000, ..Bounds::DEFAULT });
    assert!(snapshot(&out) == snapshot(&warm), "the resumed directory is that of an undisturbed run");
}

/// Every command that writes ends with code 3 and the limit's name where a file may not be as long as it needs to be, and
/// leaves nothing under a final name: no signal ends it.
#[test]
fn the_limit_on_the_size_of_a_file_is_named() {
    let scratch = scratch();
    let store = testdata("stores/synthea-r4-100");
    let word = |name: &str| scratch.path().join(name).to_str().unwrap().to_string();
    let (from, index, new, out) = (store.to_str().unwrap(), word("index"), word("new"), word("out"));
    let built = run::run(&["index", "--store", from, "--index-dir", &index]);
    assert_eq!(built.code, 0, "{built:#?}");
    for (args, target) in [
        (vec!["index", "--store", from, "--index-dir", &new], None),
        (vec!["pack", "--store", from, "--index-dir", &index, "--to", &new], Some(&new)),
        (vec!["synth", "--out", &new, "--patients", "40"], Some(&new)),
        (vec!["export", "--store", from, "--index-dir", &index, "--all-patients", "--out", &out], None),
    ] {
        let mut command = command();
        limit_files(command.args(&args), 50_000);
        let stopped = run::finish(&mut command);
        stopped.refused(3, &["RLIMIT_FSIZE", "50000 bytes", "ulimit -f"]);
        assert!(target.is_none_or(|target| !Path::new(target).exists()), "{args:?}");
        assert!(!Path::new(&out).join("manifest.json").exists(), "{args:?}");
        std::fs::remove_dir_all(&new).ok();
    }
}

/// Too few files may be open, at whatever place that is noticed: code 3, and the limit with its number.
#[test]
fn the_limit_of_open_files_is_named() {
    use std::os::unix::process::CommandExt;
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    std::fs::create_dir(&store).unwrap();
    for number in 0..20 {
        let row = format!("{{\"resourceType\":\"Patient\",\"id\":\"p{number}\"}}\n");
        std::fs::write(store.join(format!("{number}.ndjson")), row).unwrap();
    }
    let mut stopped = 0;
    for limit in 4..40 {
        let mut command = command();
        command.args(["export", "--store", store.to_str().unwrap(), "--out", out.to_str().unwrap(), "--all-patients"]);
        command.args(["--progress", "never", "--no-sync", "--threads", "2"]);
        let bound = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: the call is async-signal-safe and touches only this process's own limits.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &bound) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let run = run::finish(&mut command);
        match run.code {
            0 => assert!(out.join("manifest.json").exists(), "{limit}: {run:#?}"),
            code => {
                stopped += 1;
                assert!(!out.join("manifest.json").exists(), "{limit}: {run:#?}");
                assert_eq!(code, 3, "{limit}: {run:#?}");
                run.refused(3, &["RLIMIT_NOFILE", &limit.to_string(), "ulimit -n"]);
            }
        }
        std::fs::remove_dir_all(&out).ok();
        std::fs::remove_dir_all(store.join(".outpour")).ok();
    }
    assert!(stopped > 3, "some of the limits are too small");
}

/// A mounted tmpfs, unmounted when dropped.
pub(crate) struct Tmpfs(CString);

impl Tmpfs {
    pub(crate) fn mount(directory: &Path, size: &str, flags: libc::c_ulong) -> Option<Tmpfs> {
        let path = CString::new(directory.to_str().unwrap()).unwrap();
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

/// `pack` and `synth` to a full disk: exit code 3, the path named, and nothing left at the target or beside it; with
/// room again the same command succeeds. An index that did not fit is built completely once there is room.
#[test]
fn new_stores_on_a_full_disk_leave_nothing() {
    let scratch = scratch();
    let disk = scratch.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(_mounted) = Tmpfs::mount(&disk, "64k", 0) else {
        println!("skipped: mounting a tmpfs is not permitted here (the limit on file sizes is tested all the same)");
        return;
    };
    let resize = |size| std::mem::forget(Tmpfs::mount(&disk, size, libc::MS_REMOUNT).expect("the disk is resized"));
    let plain = scratch.path().join("plain");
    crate::fixture::plain_store(&plain, &["Patient", "Condition", "Observation"], 1);
    let (compressed, index) = (testdata("stores/synthea-r4-100"), scratch.path().join("index"));
    let (target, other) = (disk.join("new"), scratch.path().join("other"));
    let word = |path: &Path| path.to_str().unwrap().to_string();
    let pack = |store: &Path| {
        ["pack", "--store", &word(store), "--to", &word(&target), "--index-dir", &word(&index)].map(str::to_string)
    };
    // On the small disk: the decoded source, the frames, the lines, the index.
    let synth = ["synth", "--out", &word(&target), "--patients", "40", "--no-sync"].map(str::to_string);
    let indexed = ["index", "--store", &word(&plain), "--index-dir", &word(&target)].map(str::to_string);
    let packed_by = ["pack", "--store", &word(&plain), "--to", &word(&other), "--index-dir", &word(&target)];
    let packed_by = packed_by.map(str::to_string);
    for (i, args) in [&pack(&compressed)[..], &pack(&plain), &synth, &indexed, &packed_by].into_iter().enumerate() {
        for size in ["64k", "200k", "500k"] {
            resize(size);
            run::run(args).refused(3, &[]);
            assert!(!other.exists());
            if i < 3 {
                run::run(args).refused(3, &["disk/", "new", "make room"]);
                let left: Vec<_> = std::fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().path()).collect();
                assert!(left.is_empty(), "{args:?} leaves {left:?}");
            }
        }
        resize("200m");
        let run = run::run(args);
        assert_eq!(run.code, 0, "{run:#?}");
        let store = if i < 3 { &target } else { &plain };
        let mut verify = vec!["verify".to_string(), word(store)];
        if i >= 3 {
            verify.extend(["--index-dir".to_string(), word(&target)]);
        }
        let verified = run::run(&verify);
        assert_eq!(verified.code, 0, "{args:?}: {verified:#?}");
        std::fs::remove_dir_all(&target).unwrap();
        std::fs::remove_dir_all(&index).ok();
    }
}

/// An export replaces another where there is room for one only: the new one is planned before the old one is removed,
/// both if the lack of room was foreseen (plain files) and if it was met (compressed ones), and no finished file is
/// written again.
#[test]
fn an_export_makes_room_for_the_one_that_replaces_it() {
    let scratch = scratch();
    let disk = scratch.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(_mounted) = Tmpfs::mount(&disk, "200m", 0) else {
        println!("skipped: mounting a tmpfs is not permitted here");
        return;
    };
    let (store, index) = (testdata("stores/synthea-r4-100"), scratch.path().join("index"));
    let (out, whole) = (disk.join("out"), scratch.path().join("whole"));
    for compression in ["none", "gzip"] {
        let mut request =
            vec!["--all-patients", "--as-of", crate::golden::AS_OF, "--index-dir", index.to_str().unwrap()];
        request.extend([
            "--max-file-bytes",
            "1MB",
            "--base-url",
            "https://files.example.org/",
            "--compress",
            compression,
        ]);
        assert_eq!(run::export(&store, &whole, &request).code, 0);
        let size: u64 = snapshot(&whole).values().map(|bytes| bytes.len() as u64).sum();
        // First room for the larger of the two and a little more, then too little for it.
        for (room, fits) in [(size * 5 / 4 + (1 << 20), true), (size * 3 / 4, false)] {
            std::mem::forget(Tmpfs::mount(&disk, "200m", libc::MS_REMOUNT).expect("room is made"));
            std::fs::remove_dir_all(&out).ok();
            let old = ["--type", "Observation,Encounter"];
            assert_eq!(run::export(&store, &out, &[&request[..], &old].concat()).code, 0);
            let before = snapshot(&out);
            std::mem::forget(Tmpfs::mount(&disk, &room.to_string(), libc::MS_REMOUNT).expect("the disk is resized"));
            let refused =
                run::export(&store, &out, &["--group", "nobody", "--force", "--index-dir", index.to_str().unwrap()]);
            assert!(refused.code == 2 && snapshot(&out) == before, "{refused:#?}");
            request.push("--force");
            let run = run::export(&store, &out, &request);
            request.pop();
            if !fits {
                run.refused(3, &["--resume"]);
                assert!(!out.join("manifest.json").exists(), "{compression}");
                std::mem::forget(Tmpfs::mount(&disk, "200m", libc::MS_REMOUNT).expect("room is made"));
                request.push("--resume");
                assert_eq!(run::export(&store, &out, &request).code, 0);
                request.pop();
            } else {
                assert_eq!(run.code, 0, "{compression}: {run:#?}");
            }
            assert!(snapshot(&out) == snapshot(&whole), "{compression}: the directory is that of an undisturbed run");
            assert!(!out.join(".outpour-job/next").exists());
        }
        std::fs::remove_dir_all(&whole).unwrap();
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
