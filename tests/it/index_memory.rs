//! What an index remembers of snapshots cannot be made again from the store: rows that came late are then lost between two
//! increments. So it survives the loss of one copy and of a system call, a loss is said where it matters, and it is never
//! mixed with that of another store.

use crate::run::{self, Bounds, Export, Run, command, scratch};
use std::path::{Path, PathBuf};
use std::process::Command;

const FIRST: &str = "2024-02-01T00:00:00Z";
const SECOND: &str = "2024-03-01T00:00:00Z";
const THIRD: &str = "2024-04-01T00:00:00Z";

/// What the message about a lost memory says.
const LOST: &str = "cannot be told";

/// A store that was exported at [`FIRST`], and then got a row that is dated before.
struct LateStore {
    scratch: tempfile::TempDir,
    store: PathBuf,
    index: PathBuf,
}

/// Copies a directory as a backup does, times and all.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl LateStore {
    fn new() -> LateStore {
        let scratch = scratch();
        let (store, index) = (scratch.path().join("store"), scratch.path().join("index"));
        std::fs::create_dir(&store).unwrap();
        let patient = r#"{"resourceType":"Patient","id":"a","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}"#;
        std::fs::write(store.join("p.ndjson"), format!("{patient}\n")).unwrap();
        let made = LateStore { scratch, store, index };
        assert_eq!(made.export(&made.index, "first", &["--as-of", FIRST]).code, 0);
        let late = r#"{"resourceType":"Observation","id":"late","meta":{"lastUpdated":"2024-01-15T00:00:00Z"},"subject":{"reference":"Patient/a"}}"#;
        std::fs::write(made.store.join("late.ndjson"), format!("{late}\n")).unwrap();
        made
    }

    fn words<'a>(&self, index: &'a Path, out: &'a Path, more: &[&'a str]) -> Vec<String> {
        let own = ["export", "--store", text(&self.store), "--index-dir", text(index), "--out", text(out)];
        let fixed = ["--all-patients", "--progress", "never", "--threads", "1", "--json"];
        own.iter().chain(&fixed).chain(more).map(|word| word.to_string()).collect()
    }

    /// An export into a directory of this name, with an index of its own or another's.
    fn export(&self, index: &Path, out: &str, more: &[&str]) -> Run {
        let out = self.scratch.path().join(out);
        std::fs::remove_dir_all(&out).ok();
        run::run(&self.words(index, &out, more))
    }

    /// Rows and messages of a finished export.
    fn read(&self, out: &str) -> (usize, String) {
        let export = Export::read(&self.scratch.path().join(out), Bounds::DEFAULT);
        let messages = export.error.iter().flat_map(|file| &file.lines);
        let messages: Vec<String> = messages.map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        (export.lines().values().map(Vec::len).sum(), messages.join("\n"))
    }
}

/// Whether a file of the index remembers snapshots: the index meta, once of each copy.
const COPIES: [&str; 2] = ["generation", "generation-b"];

/// One of the two copies is damaged, cut or gone: nothing is forgotten, it is said that it was repaired, and it is.
#[test]
fn one_copy_remembers_what_the_other_has_lost() {
    let late = LateStore::new();
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let damage: [Damage<'_>; 4] = [
        ("of another version by a flipped bit", &|path| {
            let mut bytes = std::fs::read(path).unwrap();
            assert!(bytes.starts_with(b"outpour-index "));
            bytes[b"outpour-index ".len()] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
        ("flipped", &|path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[100] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
        ("cut", &|path| std::fs::write(path, "outpour").unwrap()),
        ("removed", &|path| std::fs::remove_file(path).unwrap()),
    ];
    for copy_name in COPIES {
        for (what, damage) in &damage {
            let index = late.scratch.path().join(format!("{copy_name}-{what}"));
            copy(&late.index, &index);
            damage(&index.join(copy_name));
            let run = late.export(&index, "out", &["--since", FIRST, "--as-of", SECOND]);
            assert_eq!(run.code, 0, "{run:#?}");
            let (rows, messages) = late.read("out");
            assert!(rows == 1 && !messages.contains(LOST), "{copy_name} {what}: {rows} {messages}");
            let [first, second] = COPIES.map(|name| std::fs::read(index.join(name)).unwrap());
            assert!(first == second, "{copy_name} {what}: both copies are there again");
        }
        // An untouched store: the lost copy is made again nevertheless.
        let index = late.scratch.path().join(format!("{copy_name}-untouched"));
        copy(&late.index, &index);
        let indexed = |more: &[&str]| {
            let words = ["index", "--store", text(&late.store), "--index-dir", text(&index), "--progress", "never"];
            assert_eq!(run::run(&[&words[..], more].concat()).code, 0);
        };
        indexed(&[]);
        std::fs::write(index.join(copy_name), "outpour").unwrap();
        indexed(&["--recheck"]);
        let [first, second] = COPIES.map(|name| std::fs::read(index.join(name)).unwrap());
        assert!(first == second, "{copy_name}");
    }
}

/// Both copies are damaged, or of a version of the future: the late row cannot be known, and that is said on the terminal,
/// in the document and in the error files of every export whose `_since` lies before the new index, and in no other.
#[test]
fn a_lost_memory_is_said() {
    let late = LateStore::new();
    for what in ["damaged", "other version"] {
        let index = late.scratch.path().join(what);
        copy(&late.index, &index);
        for name in COPIES {
            let mut bytes = std::fs::read(index.join(name)).unwrap();
            match what {
                "damaged" => bytes[100] ^= 1,
                _ => bytes = b"outpour-index 77 0123456789abcdef\nwhatever".to_vec(),
            }
            std::fs::write(index.join(name), bytes).unwrap();
        }
        // A plan says it and changes nothing.
        let plan = late.export(&index, "none", &["--since", FIRST, "--as-of", SECOND, "--plan"]);
        assert!(plan.code == 0 && plan.said().contains(LOST), "{what}: {plan:#?}");
        for (out, as_of) in [("one", SECOND), ("two", THIRD)] {
            let run = late.export(&index, out, &["--since", FIRST, "--as-of", as_of]);
            assert_eq!(run.code, 0, "{run:#?}");
            let (rows, messages) = late.read(out);
            assert!(rows == 0 && messages.contains(LOST) && messages.contains("warning"), "{what}: {messages}");
            assert!(
                run.said().contains(LOST) && run.stdout.contains("memoryLost\":\"")
                    || run.stdout.contains("memoryLost\": \""),
                "{what} {out}: {run:#?}"
            );
        }
        let run = late.export(&index, "three", &["--since", SECOND, "--as-of", THIRD]);
        assert!(run.code == 0 && !run.said().contains(LOST), "{what}: {run:#?}");
        assert!(!late.read("three").1.contains(LOST), "{what}");
        // A full export has every row: nothing to say.
        let run = late.export(&index, "full", &["--as-of", THIRD]);
        assert!(run.code == 0 && late.read("full").0 == 2 && !late.read("full").1.contains(LOST), "{what}: {run:#?}");
    }
    // A new index is no lost one.
    let run = late.export(&late.scratch.path().join("new-index"), "new", &["--since", FIRST, "--as-of", SECOND]);
    assert!(run.code == 0 && !run.said().contains(LOST) && !late.read("new").1.contains(LOST), "{run:#?}");
}

/// Any one system call fails once, by a failing disk or too many open files: the export fails, or the late row leaves. What
/// fails changes nothing: the next run has the late row.
#[test]
fn a_transient_error_is_no_lost_memory() {
    let late = LateStore::new();
    let shim = late.scratch.path().join("fail_call.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fail_call.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).arg("-ldl").status();
    if !built.is_ok_and(|status| status.success()) {
        println!("skipped: there is no C compiler to build the failing calls with");
        return;
    }
    let log = late.scratch.path().join("log");
    let (mut failed, mut kinds) = (0, std::collections::BTreeSet::new());
    for at in 0..400 {
        let mut tried = false;
        for error in [libc::EIO, libc::EMFILE] {
            let (index, out) = (late.scratch.path().join("copy"), late.scratch.path().join("out"));
            for path in [&index, &out] {
                std::fs::remove_dir_all(path).ok();
            }
            std::fs::remove_file(&log).ok();
            copy(&late.index, &index);
            let mut failing = command();
            failing.args(late.words(&index, &out, &["--since", FIRST, "--as-of", SECOND]));
            failing.env("LD_PRELOAD", &shim).env("FAIL_PATH", late.scratch.path()).env("FAIL_LOG", &log);
            failing.env("FAIL_AT", at.to_string()).env("FAIL_ERR", error.to_string());
            let run = run::finish(&mut failing);
            let Ok(kind) = std::fs::read_to_string(&log) else { break };
            tried = true;
            kinds.insert(kind.clone());
            if run.code == 0 {
                // Not read as a whole: a status file that failed may stand there.
                assert!(
                    out.join("Observation.00001.ndjson").exists(),
                    "call {at} ({kind}), error {error}: the late row is lost: {run:#?}"
                );
                continue;
            }
            failed += 1;
            assert!((1..=3).contains(&run.code) && !run.said().contains("panicked"), "call {at} ({kind}): {run:#?}");
            let run = late.export(&index, "out", &["--since", FIRST, "--as-of", SECOND]);
            assert!(run.code == 0 && late.read("out").0 == 1, "after call {at} ({kind}), error {error}: {run:#?}");
        }
        if !tried {
            break;
        }
    }
    println!("{failed} failed runs; kinds of calls: {kinds:?}");
    assert!(failed > 10 && kinds.contains("open64") && kinds.contains("read"), "{failed} {kinds:?}");
}

/// An index directory that is shared by mistake is refused, and left as it is; copies and moves of a store keep theirs.
#[test]
fn the_index_of_another_store_is_refused() {
    let late = LateStore::new();
    let other = late.scratch.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let patient = r#"{"resourceType":"Patient","id":"b","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}"#;
    std::fs::write(other.join("q.ndjson"), format!("{patient}\n")).unwrap();
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(&late.index).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let before = files();
    let out = late.scratch.path().join("out");
    for more in [&["--as-of", SECOND][..], &["--as-of", SECOND, "--plan"]] {
        let run = run::export(&other, &out, &[&["--all-patients", "--index-dir", text(&late.index)], more].concat());
        run.refused(2, &[text(&late.index), text(&late.store), text(&other), "--index-dir"]);
    }
    for words in [&["index", "--store", text(&other)][..], &["verify", text(&other)]] {
        let run = run::run(&[words, &["--index-dir", text(&late.index)]].concat());
        run.refused(2, &[text(&late.index), text(&late.store), text(&other)]);
    }
    assert!(files() == before && !out.join("manifest.json").exists());
    // Moved, copied with its index, copied beside its index: the late row leaves.
    for (name, index) in [("moved", &late.index), ("copied", &late.scratch.path().join("copied-index"))] {
        let store = late.scratch.path().join(name);
        copy(&late.store, &store);
        if !index.exists() {
            copy(&late.index, index);
        }
        std::fs::remove_dir_all(&out).ok();
        let words = ["--all-patients", "--index-dir", text(index), "--since", FIRST, "--as-of", SECOND];
        let run = run::export(&store, &out, &words);
        assert!(run.code == 0 && late.read("out").0 == 1, "{name}: {run:#?}");
    }
    let (own, restored) = (late.scratch.path().join("own"), late.scratch.path().join("restored"));
    std::fs::create_dir(&own).unwrap();
    std::fs::copy(late.store.join("p.ndjson"), own.join("p.ndjson")).unwrap();
    let export = |store: &Path, more: &[&str]| {
        std::fs::remove_dir_all(&out).ok();
        run::export(store, &out, &[&["--all-patients"], more].concat())
    };
    assert_eq!(export(&own, &["--as-of", FIRST]).code, 0);
    copy(&own, &restored);
    std::fs::copy(late.store.join("late.ndjson"), restored.join("late.ndjson")).unwrap();
    let run = export(&restored, &["--since", FIRST, "--as-of", SECOND]);
    assert!(run.code == 0 && late.read("out").0 == 1, "{run:#?}");
}
