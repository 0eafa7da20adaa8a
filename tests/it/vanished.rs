//! Resources that are gone from the store without a deletion: counted, told as deletions where that is asked for and
//! certain, and refused where so much is gone that the store may not be mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::random::{each_case, knob};
use crate::run::{self, Bounds, Export, Run, scratch};

/// Members of the Group of the tests; nothing of `gone` is in a store but what a test puts there.
const GROUP: &str = r#"{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[
    {"entity":{"reference":"Patient/p0"}},{"entity":{"reference":"Patient/p1"}},{"entity":{"reference":"Patient/gone"}}]}"#;

fn time(round: u32) -> String {
    format!("2020-01-01T00:{round:02}:00.000Z")
}

fn patient(id: &str) -> String {
    format!(r#"{{"resourceType":"Patient","id":"{id}","meta":{{"lastUpdated":"2019-01-01T00:00:00Z"}}}}"#)
}

fn observation(id: &str, owner: &str, version: u32) -> String {
    format!(
        r#"{{"resourceType":"Observation","id":"{id}","meta":{{"lastUpdated":"2019-01-01T00:00:0{version}Z"}},"subject":{{"reference":"Patient/{owner}"}}}}"#
    )
}

/// A store of three patients and twenty Observations of the first, and its exports.
struct World {
    scratch: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let world = World { scratch: scratch() };
        std::fs::create_dir(world.store()).unwrap();
        std::fs::write(world.scratch.path().join("group.json"), GROUP).unwrap();
        world.replace("a.ndjson", &World::rows(""));
        world
    }

    fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    /// The rows of the store, without the Observation of this id.
    fn rows(without: &str) -> Vec<String> {
        let patients = ["p0", "p1", "p2"].map(patient).into_iter();
        let ids = (0..20).map(|n| format!("o{n}")).filter(|id| id != without);
        patients.chain(ids.map(|id| observation(&id, "p0", 0))).collect()
    }

    /// Replaces a file as a whole, by rename.
    fn replace(&self, name: &str, lines: &[String]) {
        let path = self.store().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = self.scratch.path().join("new");
        std::fs::write(&new, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn out(&self, round: u32) -> PathBuf {
        self.scratch.path().join(format!("out-{round}"))
    }

    /// Runs the export of a round, into a directory of its own.
    fn run(&self, round: u32, words: &[&str]) -> Run {
        let (as_of, group) = (time(round), self.scratch.path().join("group.json"));
        let index = self.scratch.path().join("index");
        let mut all = vec!["--index-dir", index.to_str().unwrap(), "--threads", "1"];
        if !words.contains(&"--as-of") {
            all.extend(["--as-of", &as_of]);
        }
        if !words.contains(&"--system") {
            all.extend(["--group", group.to_str().unwrap()]);
        }
        all.extend(words);
        run::export(&self.store(), &self.out(round), &all)
    }

    /// An export of a round that succeeds and is verified, with its ledger.
    #[track_caller]
    fn export(&self, round: u32, words: &[&str]) -> Export {
        let done = self.run(round, words);
        assert_eq!(done.code, 0, "{done:#?}");
        let verified = self.verify(round);
        assert_eq!(verified.code, 0, "{verified:#?}");
        Export::read(&self.out(round), Bounds::DEFAULT)
    }

    fn verify(&self, round: u32) -> Run {
        run::run(&["verify", "--ledger", self.out(round).to_str().unwrap()])
    }

    /// An increment since another round.
    #[track_caller]
    fn increment(&self, round: u32, since: u32, vanished: &str) -> Export {
        self.export(round, &["--since", &time(since), "--vanished", vanished])
    }
}

/// The numbers that a manifest states.
fn stated(export: &Export) -> Value {
    export.manifest["extension"]["urn:outpour:export:1"]["vanished"].clone()
}

/// Numbers as a manifest states them.
fn numbers(told: u64, replaced: u64, uncertain: u64, missing: u64, older: u64) -> Value {
    serde_json::json!({"told": told, "replacedFiles": replaced, "uncertainFiles": uncertain, "missingFiles": missing,
        "olderVersions": older})
}

/// A row that is gone from a replaced dump is told once, to the increments that missed it first, if that is asked for;
/// else it is counted. A row that comes back is exported, and no deletion any more.
#[test]
fn a_replaced_dump_without_a_row() {
    let world = World::new();
    let first = world.export(1, &[]);
    assert_eq!((stated(&first), first.lines()["Observation"].len()), (Value::Null, 20));
    world.replace("a.ndjson", &World::rows("o3"));
    let report = world.increment(2, 1, "report");
    assert_eq!((report.deletions(), stated(&report)), (vec![], numbers(0, 1, 0, 0, 0)));
    let messages = report.messages();
    let about = |needle: &str| messages.iter().find(|message| message.text.contains(needle)).expect("a message");
    let message = about("is gone from files that were replaced");
    assert!(message.severity == "warning" && message.names_number(1) && message.text.contains("--vanished report"));
    // The same moment, told.
    let told = world.increment(3, 1, "delete");
    assert_eq!((told.deletions(), stated(&told)), (vec!["Observation/o3".to_string()], numbers(1, 0, 0, 0, 0)));
    assert_eq!(told.output.len(), 0, "no row that stayed is late");
    // A chain: who was told is not told again, and a full export has nothing to tell.
    let next = world.increment(4, 3, "delete");
    assert_eq!((next.deletions(), stated(&next)), (vec![], Value::Null));
    assert_eq!(stated(&world.export(5, &["--vanished", "delete"])), Value::Null);
    world.replace("a.ndjson", &World::rows(""));
    let back = world.increment(6, 1, "delete");
    assert_eq!((back.deletions(), stated(&back)), (vec![], Value::Null));
    assert_eq!(back.lines()["Observation"].len(), 1);
}

/// What is gone with its file, from a file changed in place, from one with faults, or but for an older version is counted
/// by its cause, whatever is asked for.
#[test]
fn other_causes_are_counted_and_not_told() {
    let world = World::new();
    world.replace("b.ndjson", &[observation("in-place", "p1", 0), observation("other", "p1", 0)]);
    world.replace("c.ndjson", &[observation("with-file", "p1", 0)]);
    world.replace("d.ndjson", &[observation("o5", "p0", 7)]);
    world.replace("e.ndjson", &[observation("faulty", "p1", 0), observation("another", "p1", 0)]);
    world.export(1, &[]);
    std::fs::write(world.store().join("b.ndjson"), observation("other", "p1", 0) + "\n").unwrap();
    std::fs::remove_file(world.store().join("c.ndjson")).unwrap();
    world.replace("d.ndjson", &[observation("unrelated", "p2", 0)]);
    world.replace("e.ndjson", &[observation("another", "p1", 0), "{".to_string()]);
    let done = world.run(2, &["--since", &time(1), "--vanished", "delete", "--allow-missing", "20%"]);
    assert_eq!(done.code, 1, "{done:#?}");
    assert_eq!(world.verify(2).code, 0);
    let export = Export::read(&world.out(2), Bounds::DEFAULT);
    assert_eq!((export.deletions(), stated(&export)), (vec![], numbers(0, 0, 2, 1, 1)));
    let warnings = export.messages().into_iter().filter(|message| message.severity == "warning");
    assert_eq!(warnings.filter(|message| message.text.contains(" resource")).count(), 3);
    assert!(done.said().contains("gone       3 resources") && done.said().contains("1 of c.ndjson, which is gone"));
    // A full export that is not the first to miss them has nothing to say.
    let done = world.run(3, &[]);
    assert_eq!((done.code, stated(&Export::read(&world.out(3), Bounds::DEFAULT))), (1, Value::Null));
}

/// A row that is gone together with a DELETE entry that no snapshot held, or held before its date, is gone: the entry
/// was told to nobody. A file that held only the entry has no part in the cause.
#[test]
fn a_row_that_goes_with_an_untold_deletion() {
    for (date, is_seen) in [("2030-01-01", true), ("2019-06-01", false)] {
        let world = World::new();
        let with_entry = [
            patient("p1"),
            format!(
                r#"{{"resourceType":"Bundle","type":"batch","meta":{{"lastUpdated":"{date}T00:00:00Z"}},"entry":[{{"request":{{"method":"DELETE","url":"Observation/o3"}}}}]}}"#
            ),
        ];
        world.replace("b.ndjson", if is_seen { &with_entry } else { &with_entry[..1] });
        world.export(1, &[]);
        if !is_seen {
            world.replace("b.ndjson", &with_entry);
            let (store, index) = (world.store(), world.scratch.path().join("index"));
            let words = ["index", "--store", store.to_str().unwrap(), "--index-dir", index.to_str().unwrap()];
            assert_eq!(run::run(&words).code, 0);
        }
        world.replace("a.ndjson", &World::rows("o3"));
        std::fs::write(world.store().join("b.ndjson"), patient("p1") + "\n").unwrap();
        let told = world.increment(2, 1, "delete");
        assert_eq!((told.deletions(), stated(&told)), (vec!["Observation/o3".to_string()], numbers(1, 0, 0, 0, 0)));
    }
}

/// A DELETE entry that stands twice and goes once still ends its resource: nothing is gone.
#[test]
fn a_deletion_that_is_written_twice() {
    let world = World::new();
    let entry = r#"{"resourceType":"Bundle","type":"batch","meta":{"lastUpdated":"2019-06-01T00:00:00Z"},"entry":[{"request":{"method":"DELETE","url":"Observation/o3"}}]}"#;
    world.replace("b.ndjson", &[patient("p1"), entry.to_string()]);
    world.replace("c.ndjson", &[entry.to_string()]);
    world.export(1, &[]);
    world.replace("b.ndjson", &[patient("p1")]);
    let export = world.increment(2, 1, "delete");
    assert_eq!((export.deletions(), stated(&export)), (vec![], Value::Null));
}

/// A DELETE entry of a file that is written anew is not told again; when it goes later, the older version that it ended is
/// counted.
#[test]
fn a_deletion_of_a_replaced_file() {
    let world = World::new();
    let entry = r#"{"resourceType":"Bundle","type":"batch","meta":{"lastUpdated":"2019-06-01T00:00:00Z"},"entry":[{"request":{"method":"DELETE","url":"Observation/o3"}}]}"#.to_string();
    world.replace("b.ndjson", std::slice::from_ref(&entry));
    world.export(1, &[]);
    world.replace("b.ndjson", &[patient("other"), entry]);
    let export = world.increment(2, 1, "delete");
    assert_eq!((export.deletions(), stated(&export)), (vec![], Value::Null));
    world.replace("b.ndjson", &[patient("other")]);
    let export = world.increment(3, 2, "delete");
    assert_eq!((export.deletions(), stated(&export)), (vec![], numbers(0, 0, 0, 0, 1)));
}

/// A vanished resource is told to the cohort of its last owners, also when nothing names the patient any more; to others
/// nothing is said of it.
#[test]
fn only_the_cohort_is_told() {
    let world = World::new();
    let others = [observation("of-p1", "p1", 0), observation("of-p2", "p2", 0)];
    world.replace("b.ndjson", &[&others[..], &[patient("gone"), observation("of-gone", "gone", 0)]].concat());
    world.export(1, &[]);
    world.replace("b.ndjson", &[observation("new", "p2", 0)]);
    let since = time(1);
    let words = ["--since", &since, "--vanished", "delete", "--allow-missing", "50"];
    let export = world.export(2, &words);
    let told = ["Observation/of-gone", "Observation/of-p1", "Patient/gone"];
    assert_eq!((export.deletions(), stated(&export)), (told.map(String::from).to_vec(), numbers(3, 0, 0, 0, 0)));
    let typed = world.export(3, &[&words[..], &["--type", "Patient"]].concat());
    assert_eq!(typed.deletions(), ["Patient/gone"]);
    let system = world.export(4, &[&words[..], &["--system"]].concat());
    assert_eq!(system.deletions().len(), 4);
    let until = world.export(5, &[&words[..], &["--until", "2020-01-01T00:01:30Z"]].concat());
    assert_eq!((until.deletions(), stated(&until)), (vec![], Value::Null));
}

/// Names and bytes of the files of a directory.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

/// An empty mount point and a directory that is missing are errors that leave the index as it was; a little that is gone
/// is said with the names of files, and so is what the operator allows.
#[test]
fn a_store_that_is_not_mounted() {
    let world = World::new();
    let rows = |name: &str, count: usize| -> Vec<String> {
        (0..count).map(|n| observation(&format!("{name}-{n}"), "p1", 0)).collect()
    };
    world.replace("big/b.ndjson", &rows("big", 10));
    world.replace("small/b.ndjson", &rows("small", 2));
    world.export(1, &[]);
    let index = files(&world.scratch.path().join("index"));
    let (store, away) = (world.store(), world.scratch.path().join("away"));
    // 1. An empty mount point.
    std::fs::rename(&store, &away).unwrap();
    std::fs::create_dir(&store).unwrap();
    world.run(2, &[]).refused(3, &["35 of 35 resources", "a.ndjson", "--allow-missing"]);
    assert!(!world.out(2).join("manifest.json").exists());
    assert_eq!(files(&world.scratch.path().join("index")), index);
    std::fs::remove_dir(&store).unwrap();
    std::fs::rename(&away, &store).unwrap();
    // 2. A directory that held more than a tenth.
    std::fs::rename(store.join("big"), &away).unwrap();
    for words in [&[][..], &["--plan"]] {
        world.run(2, words).refused(3, &["10 of 35 resources", "10 of big/b.ndjson, which is gone"]);
    }
    let index_dir = world.scratch.path().join("index");
    let words = ["index", "--store", store.to_str().unwrap(), "--index-dir", index_dir.to_str().unwrap()];
    run::run(&words).refused(3, &["--allow-missing"]);
    let words = ["verify", store.to_str().unwrap(), "--index-dir", index_dir.to_str().unwrap()];
    run::run(&words).refused(3, &["--allow-missing"]);
    assert_eq!(files(&index_dir), index);
    world.run(2, &["--allow-missing", "110"]).refused(2, &["between 0% and 100%"]);
    std::fs::rename(&away, store.join("big")).unwrap();
    // 3. One that held less.
    std::fs::remove_dir_all(store.join("small")).unwrap();
    let done = world.run(3, &["--json"]);
    assert_eq!(done.code, 0, "{done:#?}");
    assert!(done.said().contains("2 of small/b.ndjson, which is gone"), "{}", done.stderr);
    let document: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(document["index"]["gone"]["resources"], 2);
    // 4. What the operator allows.
    std::fs::remove_dir_all(store.join("big")).unwrap();
    let done = world.run(4, &["--allow-missing", "50%"]);
    assert_eq!(done.code, 0, "{done:#?}");
}

/// A directory without a data file is no store, and one of files without rows is; a Group can be imported into either.
#[test]
fn the_first_index_of_nothing() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let index = || run::run(&["index", "--store", store.to_str().unwrap()]);
    index().refused(2, &["holds no data file", "--store"]);
    std::fs::write(store.join("a.ndjson"), "").unwrap();
    assert_eq!(index().code, 0);
    std::fs::remove_file(store.join("a.ndjson")).unwrap();
    std::fs::remove_dir_all(store.join(".outpour")).unwrap();
    let group = scratch.path().join("group.json");
    std::fs::write(&group, GROUP).unwrap();
    let done = run::run(&["group", "import", group.to_str().unwrap(), "--store", store.to_str().unwrap()]);
    assert_eq!(done.code, 0, "{done:#?}");
}

/// What an export told is found again by `verify`: a deletion that was taken out or put in another's place, an owner that
/// is not of the cohort, a number that is not the record's.
#[test]
fn a_told_deletion_is_verified() {
    let world = World::new();
    world.export(1, &[]);
    world.replace("a.ndjson", &World::rows("o3"));
    let since = time(1);
    world.export(2, &["--since", &since, "--vanished", "delete", "--digest", "none"]);
    let (deleted, record) = ("deleted/Bundle.00001.ndjson", ".outpour-job/plan.json");
    let change = |file: &str, from: &str, to: &str, code: i32, says: &[&str]| {
        let path = world.out(2).join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let verified = world.verify(2);
        std::fs::write(&path, text).unwrap();
        verified.refused(code, says);
    };
    change(
        deleted,
        "Observation/o3",
        "Observation/x3",
        1,
        &["no deleted file lists 1 vanished resource", "missing 1, listed wrongly 1"],
    );
    change(
        record,
        r#""owners":[["","p0"]]"#,
        r#""owners":[["","p2"]]"#,
        1,
        &["tells 1 vanished resource as deleted wrongly"],
    );
    change(
        record,
        r#""cause":"replacedFile""#,
        r#""cause":"missingFile""#,
        2,
        &["vanished is not as outpour writes it"],
    );
    change("manifest.json", r#""told": 1"#, r#""told": 2"#, 1, &["other numbers of vanished resources"]);
    assert_eq!(world.verify(2).code, 0);
}

/// An export that is resumed tells what it began with, although the index has forgotten it since; another policy is
/// another request.
#[test]
fn a_resumed_export_tells_what_it_began_with() {
    let world = World::new();
    world.export(1, &[]);
    world.replace("a.ndjson", &World::rows("o3"));
    let since = time(1);
    let words = ["--since", &since, "--vanished", "delete"];
    world.export(2, &words);
    let before = run::snapshot(&world.out(2));
    std::fs::remove_file(world.out(2).join("manifest.json")).unwrap();
    world.replace("b.ndjson", &[observation("o3", "p0", 0)]);
    assert_eq!(world.increment(3, 1, "delete").deletions(), Vec::<String>::new());
    let other = world.run(2, &["--since", &since, "--resume"]);
    other.refused(2, &["--vanished differs (delete then"]);
    let resumed = world.run(2, &[&words[..], &["--resume"]].concat());
    assert_eq!(resumed.code, 0, "{resumed:#?}");
    assert_eq!(run::snapshot(&world.out(2)), before);
    // A store that is gone by then fails.
    std::fs::remove_file(world.out(2).join("manifest.json")).unwrap();
    std::fs::remove_file(world.store().join("a.ndjson")).unwrap();
    world.run(2, &[&words[..], &["--resume"]].concat()).refused(3, &["--allow-missing"]);
}

/// Where the index of a replaced file is damaged, nobody knows what is gone from it: its rows are exported as new, and it
/// is said that losses are not known.
#[test]
fn a_replaced_file_with_a_damaged_index_is_said() {
    let world = World::new();
    world.export(1, &[]);
    for (path, mut bytes) in files(&world.scratch.path().join("index")) {
        if path.to_str().unwrap().contains("extents-") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
    }
    world.replace("a.ndjson", &World::rows("o3"));
    let done = world.run(2, &["--since", &time(1), "--vanished", "delete"]);
    assert_eq!(done.code, 0, "{done:#?}");
    assert!(done.said().contains("resources gone from there are not known"), "{}", done.stderr);
    let export = Export::read(&world.out(2), Bounds::DEFAULT);
    let rows: usize = export.lines().values().map(Vec::len).sum();
    assert_eq!((rows, export.deletions()), (21, vec![]), "two members and nineteen Observations");
    assert!(export.messages().iter().any(|message| message.text.contains("without a deletion was damaged")));
}

/// A list of vanished resources that is damaged is dropped, which is said; the rest of the index is kept.
#[test]
fn a_damaged_list_is_dropped_and_said() {
    let world = World::new();
    world.export(1, &[]);
    world.replace("a.ndjson", &World::rows("o3"));
    world.increment(2, 1, "report");
    // Once the stamps of store and index have settled, nothing but the list gives reason to look at the index whole.
    for round in [3, 4] {
        std::thread::sleep(std::time::Duration::from_millis(100));
        world.export(round, &[]);
    }
    let index = world.scratch.path().join("index");
    let copies: Vec<_> =
        files(&index).into_iter().filter(|(path, _)| path.to_str().unwrap().contains("vanished-")).collect();
    assert_eq!(copies.len(), 2);
    for (list, mut bytes) in copies {
        bytes[40] ^= 1;
        std::fs::write(list, bytes).unwrap();
    }
    let since = time(1);
    let done = world.run(5, &["--since", &since, "--vanished", "delete"]);
    assert_eq!(done.code, 0, "{done:#?}");
    assert!(done.said().contains("the list of vanished resources was lost or damaged"), "{}", done.stderr);
    let export = Export::read(&world.out(5), Bounds::DEFAULT);
    assert_eq!((export.deletions(), stated(&export)), (vec![], Value::Null));
    assert!(!world.run(6, &[]).said().contains("lost or damaged"));
    // Every export that would need the list says so, also when the store has changed since; others do not.
    let says = |export: &Export| {
        export.messages().iter().any(|message| message.text.contains("without a deletion was damaged"))
    };
    assert!(says(&export));
    world.replace("b.ndjson", &[observation("new", "p0", 0)]);
    let [before, after] = [(7, 1), (8, 2)].map(|(round, since)| says(&world.increment(round, since, "delete")));
    assert!(before && !after);
}

/// Random dumps, each replaced whole by rename, whose rows are changed, taken out, put back and moved between files: under
/// `--vanished delete` a reader of increments holds after each what a full export of that moment gives.
#[test]
fn increments_of_replaced_dumps_add_up() {
    each_case("replaced dumps", knob("OUTPOUR_TEST_CHAINS", 200).div_ceil(10), |_, random| {
        let world = World::new();
        std::fs::remove_file(world.store().join("a.ndjson")).unwrap();
        // The last version of each resource, and the dump that has it, if one has.
        let mut rows: Vec<(u32, Option<usize>)> = (0..12).map(|n| (0, Some(n % 3))).collect();
        let text = |n: usize, version: u32| match n {
            0..3 => format!(r#"{{"resourceType":"Patient","id":"p{n}","meta":{{"lastUpdated":"{}"}}}}"#, time(version)),
            _ => {
                observation(&format!("o{n}"), &format!("p{}", n % 3), 0).replace("2019-01-01T00:00:00Z", &time(version))
            }
        };
        let mut reader: BTreeMap<String, String> = BTreeMap::new();
        for round in (2..=10).step_by(2) {
            for (version, dump) in &mut rows {
                match random.below(6) {
                    0 => *dump = None,
                    1 => *dump = Some(random.below(3)),
                    2 if dump.is_some() => *version = round - 1,
                    _ => {}
                }
            }
            for dump in 0..3 {
                let own = (0..12).filter(|n| rows[*n].1 == Some(dump));
                let mut lines: Vec<String> = own.map(|n| text(n, rows[n].0)).collect();
                random.shuffle(&mut lines);
                world.replace(&format!("dump-{dump}.ndjson"), &lines);
            }
            let since = time(round.saturating_sub(2));
            let mut words = vec!["--vanished", "delete", "--allow-missing", "100%"];
            if round > 2 {
                words.extend(["--since", &since]);
            }
            let increment = world.export(round, &words);
            increment.deletions().iter().for_each(|name| drop(reader.remove(name)));
            let text = |line: &Vec<u8>| String::from_utf8(line.clone()).unwrap();
            for line in increment.lines().values().flatten().map(text) {
                let row: Value = serde_json::from_str(&line).unwrap();
                let name = format!("{}/{}", row["resourceType"].as_str().unwrap(), row["id"].as_str().unwrap());
                reader.insert(name, line);
            }
            let full = world.export(round + 1, &["--allow-missing", "100%", "--as-of", &time(round)]);
            let current: BTreeSet<String> = full.lines().values().flatten().map(text).collect();
            assert_eq!(reader.values().cloned().collect::<BTreeSet<_>>(), current, "round {round}");
        }
    });
}
