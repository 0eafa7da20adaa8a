//! Pipes, sockets, devices, directories and dangling links in place of files. In a store, an index or an export they
//! are ignored or reported at once, never waited for; files named on the command line may be pipes.

use crate::run::{Bounds, Export, Run, command, finish, scratch};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENT: &str = "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n";
const GROUP: &str = "{\"resourceType\":\"Group\",\"id\":\"g\",\"type\":\"person\",\"actual\":true,\
                     \"member\":[{\"entity\":{\"reference\":\"Patient/a\"}}]}\n";

/// Longer than any run here takes. A run that waits for a pipe never ends.
const PATIENCE: Duration = Duration::from_secs(60);

fn pipe(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the name is a C string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0, "{path:?}");
}

type Made = fn(&Path);
const KINDS: [(&str, Made); 6] = [
    ("pipe", pipe),
    ("socket", |path| drop(UnixListener::bind(path).unwrap())),
    ("directory", |path| std::fs::create_dir(path).unwrap()),
    ("link to nowhere", |path| symlink("/nowhere/at/all", path).unwrap()),
    ("link to itself", |path| symlink(path, path).unwrap()),
    ("link to a device", |path| symlink("/dev/zero", path).unwrap()),
];

/// Runs a command, which must end within [`PATIENCE`].
#[track_caller]
fn ended(command: &mut Command) -> Run {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it waits for ever: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn outpour(words: &[&str]) -> Command {
    let mut command = command();
    command.args(words);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An export of all patients of `store` into `out`, with the index in `index`.
fn export(store: &Path, index: &Path, out: &Path) -> Command {
    let mut words = vec!["export", "--store", text(store), "--index-dir", text(index), "--out", text(out)];
    words.extend(["--all-patients", "--no-sync", "--progress", "never"]);
    outpour(&words)
}

/// Irregular files with the names of a manifest or of a data file are ignored in a store.
#[test]
fn a_store_with_irregular_files_is_exported() {
    let scratch = scratch();
    for (i, (kind, make)) in KINDS.iter().enumerate() {
        for (number, name) in ["manifest.json", "below/manifest.json", "x.ndjson", "y.ndjson.zst"].iter().enumerate() {
            let directory = scratch.path().join(format!("{i}-{number}"));
            let (store, index, out) = (directory.join("store"), directory.join("index"), directory.join("out"));
            std::fs::create_dir_all(store.join("below")).unwrap();
            std::fs::write(store.join("p.ndjson"), PATIENT).unwrap();
            make(&store.join(name));
            let run = ended(&mut export(&store, &index, &out));
            assert_eq!(run.code, 0, "{kind} {name}: {run:#?}");
            assert_eq!(Export::read(&out, Bounds::DEFAULT).lines()["Patient"].len(), 1, "{kind} {name}");
            let verified = ended(&mut outpour(&["verify", text(&store), "--index-dir", text(&index)]));
            // A directory is walked as a directory of the store.
            assert_eq!(verified.code, 0, "{kind} {name}: {verified:#?}");
        }
    }
}

/// A manifest larger than any of an export is reported, and not read into memory.
#[test]
fn an_endless_manifest_is_reported() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("p.ndjson"), PATIENT).unwrap();
    std::fs::File::create(store.join("manifest.json")).unwrap().set_len((1 << 30) + 1).unwrap();
    let run = ended(&mut export(&store, &scratch.path().join("index"), &out));
    run.refused(3, &["manifest.json", "more than 1073741824 bytes"]);
}

/// An index with irregular files is rebuilt, or the file that prevents that is named.
#[test]
fn an_index_with_irregular_files_is_rebuilt() {
    let scratch = scratch();
    let names =
        ["generation", "generation.note", "generation.part", "lock", "extents-000000000001", "merged-000000000001"];
    for (i, (kind, make)) in KINDS.iter().enumerate() {
        for (number, name) in names.iter().enumerate() {
            let directory = scratch.path().join(format!("{i}-{number}"));
            let (store, index) = (directory.join("store"), directory.join("index"));
            std::fs::create_dir_all(&store).unwrap();
            std::fs::create_dir(&index).unwrap();
            std::fs::write(store.join("p.ndjson"), PATIENT).unwrap();
            // Once before the first index is built, once in directory of a file of a good index.
            for round in ["first", "second"] {
                let there = index.join(name);
                std::fs::remove_file(&there).ok();
                make(&there);
                let out = directory.join(round);
                let run = ended(&mut export(&store, &index, &out));
                // A directory cannot be replaced: then it is named.
                if *kind == "directory" && run.code != 0 {
                    run.refused(3, &[name.trim_end_matches(".part")]);
                    break;
                }
                assert_eq!(run.code, 0, "{kind} {name} {round}: {run:#?}");
                assert_eq!(Export::read(&out, Bounds::DEFAULT).lines()["Patient"].len(), 1, "{kind} {name}");
                for words in [vec!["verify", text(&store), "--index-dir", text(&index)], vec!["inspect", text(&index)]]
                {
                    let run = ended(&mut outpour(&words));
                    assert!(run.code <= 2, "{kind} {name} {words:?}: {run:#?}");
                }
                if there.is_dir() {
                    break;
                }
            }
        }
    }
}

/// `verify` and `inspect` report irregular files in place of an export's files.
#[test]
fn an_export_with_irregular_files_is_reported() {
    let scratch = scratch();
    let (store, index, out) = (scratch.path().join("store"), scratch.path().join("index"), scratch.path().join("out"));
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("p.ndjson"), PATIENT).unwrap();
    assert_eq!(finish(&mut export(&store, &index, &out)).code, 0);
    for name in [
        "manifest.json",
        "status.json",
        ".outpour-job/plan.json",
        ".outpour-job/receipts.jsonlog",
        "Patient.00001.ndjson",
    ] {
        let (path, aside) = (out.join(name), scratch.path().join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        for (kind, make) in KINDS {
            make(&path);
            for words in
                [vec!["verify", text(&out)], vec!["verify", text(&out), "--ledger"], vec!["inspect", text(&out)]]
            {
                let run = ended(&mut outpour(&words));
                assert!((0..=2).contains(&run.code), "{kind} {name} {words:?}: {run:#?}");
                let reported = run.stdout + &run.stderr;
                if name.starts_with("Patient") && words[0] == "verify" {
                    assert!(run.code == 1 && reported.contains(name), "{kind} {words:?}: {reported}");
                }
            }
            let run = ended(&mut outpour(&["inspect", text(&path)]));
            assert!(kind == "directory" || run.code == 2, "{kind} {name}: {run:#?}");
            if kind == "directory" { std::fs::remove_dir(&path).unwrap() } else { std::fs::remove_file(&path).unwrap() }
        }
        std::fs::rename(&aside, &path).unwrap();
    }
    assert_eq!(finish(&mut outpour(&["verify", text(&out)])).code, 0);
}

/// Lists, Groups and configurations named on the command line can be read from a pipe, to its end.
#[test]
fn arguments_may_be_pipes() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("p.ndjson"), PATIENT).unwrap();
    let named = scratch.path().join("pipe.json");
    pipe(&named);
    // A thread writes the document to the pipe, once.
    let through = |document: &'static str, command: &mut Command| {
        let path = named.clone();
        let writer = std::thread::spawn(move || std::fs::write(path, document));
        let run = ended(command);
        assert!(writer.is_finished(), "it was read: {run:#?}");
        writer.join().unwrap().unwrap();
        run
    };
    let base = ["export", "--store", text(&store), "--no-sync", "--progress", "never", "--out"];
    let pipe = text(&named);
    for (number, (words, document)) in
        [(["--patients", pipe], "a\n"), (["--group", pipe], GROUP), (["--patients", pipe], "Patient/a")]
            .iter()
            .enumerate()
    {
        let out = scratch.path().join(format!("out{number}"));
        let run = through(document, outpour(&base).arg(&out).args(words));
        assert_eq!(run.code, 0, "{words:?}: {run:#?}");
        assert_eq!(Export::read(&out, Bounds::DEFAULT).lines()["Patient"].len(), 1, "{words:?}");
    }
    for (number, words) in
        [["--patients", "-"], ["--patients", "/dev/stdin"], ["--group", "/dev/stdin"]].iter().enumerate()
    {
        let out = scratch.path().join(format!("in{number}"));
        let (reader, mut writer) = std::io::pipe().unwrap();
        let document = if words[0] == "--group" { GROUP } else { "a\n" };
        std::io::Write::write_all(&mut writer, document.as_bytes()).unwrap();
        drop(writer);
        let run = ended(outpour(&base).arg(&out).args(words).stdin(reader));
        assert_eq!(run.code, 0, "{words:?}: {run:#?}");
        assert_eq!(Export::read(&out, Bounds::DEFAULT).lines()["Patient"].len(), 1, "{words:?}");
    }
    assert_eq!(through(GROUP, &mut outpour(&["group", "check", pipe])).code, 0);
    // Commands that would read the pipe twice refuse it at once.
    for words in [["group", "check", pipe, "--store", text(&store)], ["group", "import", pipe, "--store", text(&store)]]
    {
        ended(&mut outpour(&words)).refused(2, &["pipe.json", "reads it twice", "give a file"]);
    }
    let config = "[log]\nlevel = \"debug\"\n[store]\npath = \"/s\"\n[data]\npath = \"/d\"\n";
    let run = through(config, &mut outpour(&["serve", "--print-config", "--config", pipe]));
    assert!(run.code == 0 && run.stdout.contains("level = \"debug\""), "{run:#?}");
    ended(&mut outpour(&["serve", "--print-config", "--config", "/dev/zero"])).refused(2, &["/dev/zero", "more than"]);
    ended(&mut outpour(&["serve", "--print-config", "--config", "/"])).refused(2, &["cannot be read"]);
}
