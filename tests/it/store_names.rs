//! Which files of a store are read: names that are no UTF-8, symbolic links where they are followed, and what
//! `.outpourignore` passes over; and that what is not read any more by choice is not taken for gone.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::run::{self, Bounds, Export, Run, scratch, testdata};

/// A store and its exports, each a day later than the one before and since that one.
struct World {
    scratch: tempfile::TempDir,
    day: std::cell::Cell<u32>,
}

impl World {
    /// A store of these files, each with patients of these ids.
    fn new(files: &[(&str, &[&str])]) -> World {
        let world = World { scratch: scratch(), day: 0.into() };
        std::fs::create_dir(world.store()).unwrap();
        files.iter().for_each(|(name, ids)| world.write(format!("store/{name}"), ids));
        world
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.at("store")
    }

    fn write(&self, name: impl AsRef<Path>, ids: &[&str]) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, ids.iter().map(|id| patient(id, 1)).collect::<String>()).unwrap();
    }

    fn ignore(&self, patterns: &str) {
        std::fs::write(self.store().join(".outpourignore"), patterns).unwrap();
    }

    fn index(&self, words: &[&str]) -> Run {
        let store = self.store();
        run::run(&[&["index", "--store", store.to_str().unwrap(), "--progress", "never"], words].concat())
    }

    /// The next export.
    fn run(&self, words: &[&str]) -> Run {
        self.day.set(self.day.get() + 1);
        let as_of = format!("2026-01-{:02}T00:00:00Z", self.day.get());
        let out = self.at(format!("out-{}", self.day.get()));
        run::export(&self.store(), &out, &[&["--system", "--as-of", &as_of], words].concat())
    }

    /// The next export, which is right by every verification.
    #[track_caller]
    fn export(&self, words: &[&str]) -> (Export, Run) {
        let done = self.run(words);
        assert_eq!(done.code, 0, "{done:#?}");
        let (out, store) = (self.at(format!("out-{}", self.day.get())), self.store());
        for words in [&["verify", "--ledger", out.to_str().unwrap()][..], &["verify", store.to_str().unwrap()]] {
            let verified = run::run(words);
            assert_eq!(verified.code, 0, "{verified:#?}");
        }
        (Export::read(&out, Bounds::DEFAULT), done)
    }

    /// Ids of the next export of everything.
    #[track_caller]
    fn ids(&self, words: &[&str]) -> Vec<String> {
        ids(&self.export(words).0)
    }

    /// Ids of the next export since the last one, of which nothing may be told as deleted or gone.
    #[track_caller]
    fn increment(&self) -> Vec<String> {
        let since = format!("2026-01-{:02}T00:00:00Z", self.day.get());
        let (export, done) = self.export(&["--since", &since, "--vanished", "delete"]);
        assert!(export.deletions().is_empty(), "{:?}", export.deletions());
        assert!(export.manifest["extension"]["urn:outpour:export:1"].get("vanished").is_none());
        assert!(!done.said().contains("gone  "), "{}", done.stderr);
        ids(&export)
    }
}

fn patient(id: &str, version: u32) -> String {
    format!(
        "{{\"resourceType\":\"Patient\",\"id\":\"{id}\",\"meta\":{{\"lastUpdated\":\"2020-01-0{version}T00:00:00Z\"}}}}\n"
    )
}

/// Ids of the patients of an export, sorted.
fn ids(export: &Export) -> Vec<String> {
    let id =
        |line: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&line).unwrap()["id"].as_str().unwrap().to_string();
    let mut ids: Vec<String> = export.lines().into_values().flatten().map(id).collect();
    ids.sort();
    ids
}

/// Severities of the messages that hold these words.
fn told(export: &Export, words: &str) -> Vec<String> {
    export.messages().into_iter().filter(|one| one.text.contains(words)).map(|one| one.severity).collect()
}

/// Names of Latin-1 systems are read, of files and directories, in every form of file; a second run reads nothing again,
/// and what is appended is found.
#[test]
fn names_that_are_no_utf8_are_read() {
    let world = World::new(&[("a.ndjson", &["a"])]);
    let path = |bytes: &[u8]| world.store().join(OsStr::from_bytes(bytes));
    world.write(path(b"caf\xe9.ndjson"), &["b"]);
    world.write(path(b"\xff\xfe/\\xff.ndjson"), &["c"]);
    let packed = crate::unproven::gzip(patient("d", 1).as_bytes(), 1);
    std::fs::write(path(b"\xff\xfe/\xe9.ndjson.gz"), packed).unwrap();
    let (export, _) = world.export(&[]);
    assert_eq!(ids(&export), ["a", "b", "c", "d"]);
    assert!(told(&export, "not read").is_empty());
    let again = world.index(&["--json"]);
    let document: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((&document["files"], &document["work"]["scannedBytes"]), (&4.into(), &0.into()), "{again:#?}");
    std::fs::write(path(b"caf\xe9.ndjson"), patient("b", 1) + &patient("e", 1)).unwrap();
    assert_eq!(world.increment(), ["e"]);
    // A fault names the file so that it can be found.
    std::fs::write(path(b"caf\xe9.ndjson"), patient("b", 1) + &patient("e", 1) + "{\n").unwrap();
    let done = world.run(&[]);
    assert_eq!(done.code, 1);
    assert!(done.said().contains(r"caf\xe9.ndjson"), "{}", done.stderr);
    let pack = world.at("pack");
    let words = ["pack", "--store", world.store().to_str().unwrap(), "--to", pack.to_str().unwrap(), "--no-sync"]
        .map(str::to_string);
    assert!([0, 1].contains(&run::run(&words).code));
    run::export(&pack, &world.at("of-pack"), &["--system"]);
    assert_eq!(ids(&Export::read(&world.at("of-pack"), Bounds::DEFAULT)), ["a", "b", "c", "d", "e"]);
}

/// A version that did not read such names goes on so until its index is made again.
#[test]
fn an_earlier_index_reads_no_such_names() {
    let scratch = scratch();
    let root = scratch.path().join("kept");
    let copied =
        std::process::Command::new("cp").arg("-r").arg(testdata("compat/index-3")).arg(&root).status().unwrap();
    assert!(copied.success());
    let (store, index, out) = (root.join("store"), root.join("index"), root.join("out"));
    std::fs::write(store.join(OsStr::from_bytes(b"caf\xe9.ndjson")), patient("latin", 1)).unwrap();
    symlink("nowhere/..", store.join("link")).unwrap();
    let export = |words: &[&str]| {
        let words = [&["--system", "--index-dir", index.to_str().unwrap(), "--force"], words].concat();
        let done = run::export(&store, &out, &words);
        assert_eq!(done.code, 0, "{done:#?}");
        Export::read(&out, Bounds::DEFAULT)
    };
    let before = export(&[]);
    assert!(!ids(&before).contains(&"latin".to_string()));
    let messages = before.messages();
    let warning = messages.iter().find(|message| message.text.contains("of the store not read")).expect("a warning");
    assert!(warning.text.contains(r"caf\\xe9.ndjson, link"), "{warning:?}");
    let words = ["index", "--store", store.to_str().unwrap(), "--index-dir", index.to_str().unwrap(), "--remake"];
    assert_eq!(run::run(&words).code, 0);
    assert!(ids(&export(&[])).contains(&"latin".to_string()));
    // The patterns hold for every index, also for one that knew none.
    std::fs::write(store.join(".outpourignore"), "caf*\n").unwrap();
    assert!(!ids(&export(&[])).contains(&"latin".to_string()));
}

/// Whether links are followed is a fact of the index like the other choices.
#[test]
fn links_are_a_choice_of_the_index() {
    let world = World::new(&[("a.ndjson", &["a"])]);
    world.write("beside/b.ndjson", &["b"]);
    symlink("../beside", world.store().join("link")).unwrap();
    symlink("../beside/none.ndjson", world.store().join("none.ndjson")).unwrap();
    let (export, _) = world.export(&[]);
    assert_eq!(ids(&export), ["a"]);
    assert_eq!(told(&export, "2 of them are symbolic links: with --follow-symlinks links are followed"), ["warning"]);
    world.run(&["--follow-symlinks"]).refused(2, &["--follow-symlinks no, and yes is given", "outpour index --remake"]);
    world.index(&["--follow-symlinks"]).refused(2, &["--follow-symlinks no, and yes is given"]);
    assert_eq!(world.index(&["--follow-symlinks", "--remake"]).code, 0);
    world.day.set(1);
    // What comes into sight is new to every increment.
    assert_eq!(world.increment(), ["b"]);
    let (export, _) = world.export(&["--follow-symlinks=yes"]);
    assert_eq!(ids(&export), ["a", "b"]);
    assert_eq!(told(&export, "1 file of the store not read: none.ndjson"), ["warning"]);
    world.run(&["--follow-symlinks=no"]).refused(2, &["--follow-symlinks yes, and no is given"]);
    let inspected = run::run(&["inspect", world.store().join(".outpour").to_str().unwrap()]);
    assert!(inspected.said().contains("symbolic links       followed"), "{inspected:#?}");
    // Back again: the file is where it was, and what it held is not gone.
    assert_eq!(world.index(&["--remake"]).code, 0);
    world.day.set(3);
    assert!(world.increment().is_empty());
    assert_eq!(world.ids(&[]), ["a"]);
}

/// A directory that also has a lesser path through a link changes the names of its files, and no row comes or goes.
#[test]
fn files_that_get_another_path() {
    let many: Vec<String> = (0..30).map(|n| format!("m{n:02}")).collect();
    let world =
        World::new(&[("a/a.ndjson", &many.iter().map(String::as_str).collect::<Vec<_>>()), ("b.ndjson", &["b"])]);
    symlink("a", world.store().join("0")).unwrap();
    std::fs::hard_link(world.store().join("b.ndjson"), world.store().join("c.ndjson")).unwrap();
    assert_eq!(world.ids(&[]).len(), 31);
    assert_eq!(world.index(&["--follow-symlinks", "--remake"]).code, 0);
    assert!(world.increment().is_empty());
    let (export, _) = world.export(&[]);
    assert_eq!((ids(&export).len(), export.ledger()["lines"]), (31, 31));
    assert_eq!(world.index(&["--remake"]).code, 0);
    // The hard link is a file of its own again, with another row of the resource, which is the later one.
    assert_eq!(world.increment(), ["b"]);
    // Files that are really gone while the choice changes are missed all the same.
    std::fs::rename(world.store().join("a"), world.at("a")).unwrap();
    world.index(&["--follow-symlinks", "--remake"]).refused(3, &["30 of 31 resources", "--allow-missing"]);
}

/// A store of links alone is refused with what to do, and so is one that a choice leaves nothing of.
#[test]
fn a_store_of_links_alone() {
    let world = World::new(&[]);
    world.write("beside/Patient.ndjson", &["a"]);
    symlink("../beside/Patient.ndjson", world.store().join("Patient.ndjson")).unwrap();
    world.run(&[]).refused(2, &["holds no data file", "but 1 symbolic link: Patient.ndjson", "--follow-symlinks"]);
    assert_eq!(world.ids(&["--follow-symlinks"]), ["a"]);
    world.index(&["--remake"]).refused(2, &["but 1 symbolic link: Patient.ndjson"]);
    world.ignore("*.ndjson\n");
    world.run(&[]).refused(2, &["holds no data file", ".outpourignore passes over 1 file or directory"]);
    world.ignore("");
    assert_eq!(world.ids(&[]), ["a"]);
}

/// A volume of Kubernetes is replaced by one rename of a link: its files are other ones from then on. An export that has
/// begun keeps those that it opened.
#[test]
fn a_volume_of_kubernetes_is_replaced() {
    let world = World::new(&[("..1/Patient.ndjson", &["a", "b"]), ("..2/Patient.ndjson", &["a", "c"])]);
    let swap = |target: &str| {
        symlink(target, world.store().join("..new")).unwrap();
        std::fs::rename(world.store().join("..new"), world.store().join("..data")).unwrap();
    };
    swap("..1");
    symlink("..data/Patient.ndjson", world.store().join("Patient.ndjson")).unwrap();
    assert_eq!(world.ids(&["--follow-symlinks"]), ["a", "b"]);
    // Files of the same size and times are other files all the same.
    let times = std::fs::metadata(world.store().join("..1/Patient.ndjson")).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(world.store().join("..2/Patient.ndjson")).unwrap();
    file.set_modified(times).unwrap();
    swap("..2");
    let (export, _) =
        world.export(&["--since", "2026-01-01T00:00:00Z", "--vanished", "delete", "--allow-missing", "60"]);
    assert_eq!(ids(&export), ["c"]);
    // What a file lost that was replaced as a whole is told, as ever.
    assert_eq!(export.deletions(), ["Patient/b"]);
}

/// An output directory beyond a link would be read by the next export.
#[test]
fn an_output_beyond_a_link_is_refused() {
    let world = World::new(&[("a.ndjson", &["a"])]);
    world.write("beside/b.ndjson", &["b"]);
    symlink("../beside", world.store().join("link")).unwrap();
    let (out, pack) = (world.at("beside/out"), world.at("beside/pack"));
    let words = ["--system", "--follow-symlinks"];
    run::export(&world.store(), &out, &words)
        .refused(2, &["--out", "lies inside", "which a link of the store leads to"]);
    assert!(!out.join("manifest.json").exists());
    let (store, to) = (world.store(), pack.to_str().unwrap());
    run::run(&["pack", "--store", store.to_str().unwrap(), "--to", to, "--no-sync"])
        .refused(2, &["--to", "lies inside"]);
    assert!(!pack.exists());
    assert_eq!(run::export(&store, &world.at("out"), &["--system"]).code, 0);
}

/// What the patterns take is not read, told as a number without a warning, and not gone: no deletion is told, and no
/// share of missing resources is exceeded. Taken back, its rows are late for every export since a time before.
#[test]
fn excluded_files_are_not_gone() {
    let many: Vec<String> = (0..30).map(|n| format!("m{n:02}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let world = World::new(&[("a.ndjson", &["a"]), ("old/many.ndjson", &many), ("note.txt", &[])]);
    assert_eq!(world.ids(&[]).len(), 31);
    world.ignore("# what was moved\nold/\n*.txt\n");
    assert!(world.increment().is_empty());
    let (export, done) = world.export(&[]);
    assert_eq!(ids(&export), ["a"]);
    assert!(told(&export, "not read").is_empty());
    assert_eq!(told(&export, "2 files or directories of the store passed over"), ["information"]);
    assert!(done.said().contains("excluded   2 files or directories by .outpourignore"), "{}", done.stderr);
    let indexed = world.index(&["--json"]);
    let document: serde_json::Value = serde_json::from_str(&indexed.stdout).unwrap();
    assert_eq!((&document["excludedFiles"], &document["ignoredFiles"]), (&2.into(), &serde_json::json!([])));
    let inspected = run::run(&["inspect", world.store().join(".outpour").to_str().unwrap()]);
    assert!(inspected.said().contains(".outpourignore       ") && !inspected.said().contains("many"), "{inspected:#?}");
    // Another text with the same meaning changes no row.
    world.ignore("old/\n*.txt\n");
    assert!(world.increment().is_empty());
    // Taken back: late rows, once.
    std::fs::remove_file(world.store().join(".outpourignore")).unwrap();
    assert_eq!(world.increment(), many);
    assert!(world.increment().is_empty());
}

/// An interrupted export is resumed with the files that it began with, also if they are passed over by now.
#[test]
fn an_export_is_resumed_whose_files_are_passed_over() {
    let world = World::new(&[("a.ndjson", &["a"]), ("b.ndjson", &["b"])]);
    assert_eq!(world.ids(&[]), ["a", "b"]);
    let (out, whole) = (world.at("resumed"), world.at("out-1"));
    let words = ["--system", "--as-of", "2026-01-01T00:00:00Z"];
    std::process::Command::new("cp").arg("-r").arg(&whole).arg(&out).status().unwrap();
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    std::fs::remove_file(out.join("Patient.00001.ndjson")).unwrap();
    world.ignore("b.*\n");
    assert_eq!(world.ids(&[]), ["a"]);
    let done = run::export(&world.store(), &out, &[&words[..], &["--resume"]].concat());
    assert!(!done.said().contains("is no longer there"), "{done:#?}");
    let lines = |out: &Path| std::fs::read(out.join("Patient.00001.ndjson")).unwrap();
    assert_eq!((done.code, lines(&out)), (0, lines(&whole)), "{done:#?}");
}

/// Of what vanishes, only what no excluded file held is gone; what vanished before stays told.
#[test]
fn vanished_and_excluded() {
    let world =
        World::new(&[("a.ndjson", &["a", "both"]), ("b.ndjson", &["b", "both", "only-b"]), ("c.ndjson", &["c"])]);
    // An older version in another file.
    std::fs::write(world.store().join("b.ndjson"), ["b", "both", "only-b", "c"].map(|id| patient(id, 2)).concat())
        .unwrap();
    assert_eq!(world.ids(&[]), ["a", "b", "both", "c", "only-b"]);
    // `a` loses a row, and `b` is excluded with newer versions of what the others hold.
    let replace = |name: &str, ids: &[&str]| {
        world.write("new", ids);
        std::fs::rename(world.at("new"), world.store().join(name)).unwrap();
    };
    replace("a.ndjson", &["x"]);
    world.ignore("b.ndjson\n");
    let words = ["--since", "2026-01-01T00:00:00Z", "--vanished", "delete", "--allow-missing", "100"];
    let (export, _) = world.export(&words);
    // `both` was in the excluded file, too.
    assert_eq!((export.deletions(), ids(&export)), (vec!["Patient/a".to_string()], vec!["x".to_string()]));
    let vanished = &export.manifest["extension"]["urn:outpour:export:1"]["vanished"];
    let counts: BTreeMap<&str, u64> =
        vanished.as_object().unwrap().iter().filter_map(|(name, n)| Some((name.as_str(), n.as_u64()?))).collect();
    assert_eq!(counts.values().sum::<u64>(), 1, "{counts:?}");
    // The older version is the current one while the newer is out of sight.
    assert_eq!(world.ids(&[]), ["c", "x"]);
    world.ignore("");
    assert_eq!(world.increment(), ["b", "both", "c", "only-b"]);
}

/// A list of names that cannot be used is an error with its line, of every command that reads the store.
#[test]
fn a_list_that_cannot_be_used_is_refused() {
    let world = World::new(&[("a.ndjson", &["a"])]);
    world.ignore("ok\n[a-\n");
    let words = [".outpourignore: line 2 is no pattern", "correct it, or remove it"];
    world.run(&[]).refused(2, &words);
    world.run(&["--plan"]).refused(2, &words);
    world.index(&[]).refused(2, &words);
    let (store, to) = (world.store(), world.at("pack"));
    let store = store.to_str().unwrap();
    run::run(&["pack", "--store", store, "--to", to.to_str().unwrap()]).refused(2, &words);
    run::run(&["verify", store]).refused(2, &[".outpourignore: line 2 is no pattern"]);
    world.ignore("");
    assert_eq!(world.ids(&[]), ["a"]);
}
