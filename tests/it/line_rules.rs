//! How lines are read: ids beyond R4's, halves of surrogate pairs, references of other forms, and the choice that an index
//! keeps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::run::{self, Bounds, Export, Run, scratch};

/// A store and its exports.
struct World {
    scratch: tempfile::TempDir,
}

impl World {
    fn new(lines: &[String]) -> World {
        let world = World { scratch: scratch() };
        std::fs::create_dir(world.store()).unwrap();
        world.write("a.ndjson", lines);
        world
    }

    fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    fn write(&self, name: &str, lines: &[String]) {
        std::fs::write(self.store().join(name), lines.iter().map(|line| format!("{line}\n")).collect::<String>())
            .unwrap();
    }

    fn out(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn run(&self, out: &str, words: &[&str]) -> Run {
        run::export(&self.store(), &self.out(out), words)
    }

    /// An export with this exit code.
    #[track_caller]
    fn export(&self, out: &str, words: &[&str], code: i32) -> Export {
        let done = self.run(out, words);
        assert_eq!(done.code, code, "{done:#?}");
        let verified = run::run(&["verify", "--ledger", self.out(out).to_str().unwrap()]);
        assert_eq!(verified.code, 0, "{verified:#?}");
        let verified = run::run(&["verify", self.store().to_str().unwrap()]);
        assert_eq!(verified.code, 0, "{verified:#?}");
        Export::read(&self.out(out), Bounds::DEFAULT)
    }

    fn index(&self, words: &[&str]) -> Run {
        let store = self.store();
        run::run(&[&["index", "--store", store.to_str().unwrap()], words].concat())
    }
}

fn patient(id: &str) -> String {
    format!(r#"{{"resourceType":"Patient","id":"{id}","meta":{{"lastUpdated":"2020-01-01T00:00:00Z"}}}}"#)
}

fn observation(id: &str, subject: &str) -> String {
    format!(
        r#"{{"resourceType":"Observation","id":"{id}","meta":{{"lastUpdated":"2020-01-01T00:00:00Z"}},"subject":{subject}}}"#
    )
}

fn refers(reference: &str) -> String {
    format!(r#"{{"reference":"{reference}"}}"#)
}

/// Ids of the rows of an export, by type.
fn ids(export: &Export) -> BTreeMap<String, Vec<String>> {
    let id =
        |line: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_string();
    export.lines().into_iter().map(|(name, lines)| (name, lines.iter().map(id).collect())).collect()
}

/// The message that holds these words.
#[track_caller]
fn message<'a>(messages: &'a [run::Message], words: &str) -> &'a run::Message {
    messages.iter().find(|message| message.text.contains(words)).unwrap_or_else(|| panic!("{words}: {messages:#?}"))
}

/// Ids of up to 255 characters are taken, of rows, references, members, lists and DELETE entries, and told in one warning;
/// `--ids r4` takes R4's alone. Both sides of each bound.
#[test]
fn ids_beyond_r4() {
    let [long, longest, too_long] = [66, 255, 256].map(|count| "e".repeat(count));
    let lines = [
        patient(&long),
        patient("a_b~"),
        observation(&longest, &refers(&format!("Patient/{long}"))),
        observation("under-score", &refers("Patient/a_b~")),
        observation(&too_long, &refers("Patient/a_b~")),
        observation("..", &refers("Patient/a_b~")),
        observation("other", &refers(&format!("Patient/{too_long}"))),
    ];
    let world = World::new(&lines);
    let group = world.scratch.path().join("group.json");
    std::fs::write(
        &group,
        format!(
            r#"{{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{{"entity":{{"reference":"Patient/{long}"}}}}]}}"#
        ),
    )
    .unwrap();
    let all = world.export("all", &["--all-patients"], 1);
    let expected =
        [("Patient", vec![long.clone(), "a_b~".into()]), ("Observation", vec![longest.clone(), "under-score".into()])];
    assert_eq!(ids(&all), expected.map(|(name, ids)| (name.to_string(), ids)).into());
    let messages = all.messages();
    let warning = message(&messages, "id R4 does not allow");
    assert!(
        warning.severity == "warning" && warning.text.contains(": 3; the first: a.ndjson: line 1 at byte 0"),
        "{warning:?}"
    );
    assert_eq!(messages.iter().filter(|message| message.text.contains("the id is not legal")).count(), 2);
    assert!(message(&messages, "ids that no Patient can have").text.contains(": 1; the first: a.ndjson: line 7"));
    let of_group = world.export("group", &["--group", group.to_str().unwrap()], 1);
    assert_eq!(ids(&of_group)["Observation"], std::slice::from_ref(&longest));
    let list = world.scratch.path().join("patients");
    std::fs::write(&list, format!("{long}\n")).unwrap();
    assert_eq!(ids(&world.export("list", &["--patients", list.to_str().unwrap()], 1)), ids(&of_group));
    // A DELETE entry of such an id.
    let entry = format!(
        r#"{{"resourceType":"Bundle","type":"batch","meta":{{"lastUpdated":"2021-01-01T00:00:00Z"}},"entry":[{{"request":{{"method":"DELETE","url":"Observation/{longest}"}}}}]}}"#
    );
    world.write("b.ndjson", &[entry]);
    let deleted = world.export("deleted", &["--all-patients", "--since", "2020-06-01T00:00:00Z"], 1);
    assert_eq!(deleted.deletions(), [format!("Observation/{longest}")]);
    // R4's rule, in an index of its own.
    let own = world.scratch.path().join("r4");
    let strict = world.run("strict", &["--all-patients", "--ids", "r4", "--index-dir", own.to_str().unwrap()]);
    assert_eq!(strict.code, 1);
    let strict = Export::read(&world.out("strict"), Bounds::DEFAULT);
    assert_eq!(strict.lines().len(), 0);
    assert_eq!(strict.messages().iter().filter(|message| message.text.contains("the id is not legal")).count(), 4);
}

/// A line with half of a surrogate pair is a fault that names line, byte, type and id, in every form of file; whole pairs
/// and escaped backslashes are not. `--lone-surrogates pass` exports it as it stands.
#[test]
fn halves_of_surrogate_pairs() {
    let text =
        |id: &str, text: &str| format!(r#"{{"resourceType":"Patient","id":"{id}","name":[{{"family":"{text}"}}]}}"#);
    let pad = "x".repeat(60);
    let right = [r"\ud83d\ude00", r"\uD83D\uDE00", r"\\ud83d", r"\\\ud83d\ude00", r"\u00e9", "\u{1f600}"];
    let wrong = [
        r"\ud83d",
        r"\ude00",
        r"\ud83d\u0041",
        r"\ud83d \ude00",
        r"\ude00\ud83d",
        r"\ud83d\ud83d\ude00",
        r"\\\ud83d",
        r"\ud83d\n",
    ];
    for (form, padding) in [("plain", ""), ("plain", &*pad), ("gz", ""), ("zst", "")] {
        let mut lines: Vec<String> = right
            .iter()
            .enumerate()
            .map(|(i, part)| text(&format!("right-{i}"), &format!("{padding}{part}")))
            .collect();
        lines
            .extend(wrong.iter().enumerate().map(|(i, part)| text(&format!("wrong-{i}"), &format!("{padding}{part}"))));
        let world = World::new(&[]);
        std::fs::remove_file(world.store().join("a.ndjson")).unwrap();
        let bytes: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
        let (name, bytes) = match form {
            "gz" => ("a.ndjson.gz", crate::unproven::gzip(&bytes, 1)),
            "zst" => ("a.ndjson.zst", zstd::encode_all(&bytes[..], 1).unwrap()),
            _ => ("a.ndjson", bytes),
        };
        std::fs::write(world.store().join(name), bytes).unwrap();
        let export = world.export("out", &["--system"], 1);
        let expected: Vec<String> = (0..right.len()).map(|i| format!("right-{i}")).collect();
        assert_eq!(ids(&export)["Patient"], expected, "{form}");
        let messages = export.messages();
        for i in 0..wrong.len() {
            let words = format!("{name}: line {} at byte", right.len() + i + 1);
            let fault = message(&messages, &words);
            assert!(fault.severity == "error" && fault.text.contains(&format!(", Patient/wrong-{i}: ")), "{fault:?}");
            assert!(!fault.text.contains("ud83d"), "{fault:?}");
        }
        let own = world.scratch.path().join("pass");
        let words = ["--system", "--lone-surrogates", "pass", "--index-dir", own.to_str().unwrap()];
        let done = world.run("pass", &words);
        assert_eq!(done.code, 0, "{done:#?}");
        let rows = std::fs::read_to_string(world.out("pass").join("Patient.00001.ndjson")).unwrap();
        assert!(rows.lines().eq(lines.iter()));
    }
}

/// References of other forms are counted by form with the place of the first; those with a slash, white space or another
/// case are followed where that is asked for.
#[test]
fn references_of_other_forms() {
    let forms = [
        ("urn", refers("urn:uuid:0b7d7a9e-6d6f-4c53-9d50-3a0c6a2f1e11"), "by URN"),
        ("search", refers("Patient?identifier=1"), "by search"),
        ("before", refers("/Patient/a"), "with a slash"),
        ("behind", refers("Patient/a/"), "with a slash"),
        ("case", refers("patient/a"), "another case"),
        ("space", refers(" Patient/a"), "white space"),
        ("identifier", r#"{"identifier":{"value":"1"}}"#.to_string(), "by an identifier only"),
        ("impossible", refers("Patient/a b"), "ids that no Patient can have"),
    ];
    let mut lines = vec![patient("a"), observation("literal", &refers("Patient/a"))];
    lines.extend(forms.iter().map(|(id, subject, _)| observation(id, subject)));
    // Not of this kind: an identifier beside a reference, another type, a contained resource.
    lines.push(observation("beside", r#"{"reference":"Patient/a","identifier":{"value":"1"}}"#));
    lines.push(observation("device", &refers("Device/a")));
    lines.push(observation("contained", &refers("#a")));
    let world = World::new(&lines);
    let export = world.export("out", &["--all-patients"], 0);
    assert_eq!(ids(&export)["Observation"], ["literal", "beside"]);
    let messages = export.messages();
    for (i, (id, _, words)) in forms.iter().enumerate() {
        let found = message(&messages, words);
        let (count, first) = match *id {
            "before" => (2, i),
            "behind" => (2, i - 1),
            _ => (1, i),
        };
        let place = format!(": {count}; the first: a.ndjson: line {} at byte", first + 3);
        assert!(found.severity == "warning" && found.text.contains(&place), "{found:?}");
    }
    assert_eq!(messages.iter().filter(|message| message.text.contains("; the first: ")).count(), 7);
    world.index(&["--patient-references", "lenient", "--remake"]);
    let lenient = world.export("lenient", &["--all-patients"], 0);
    assert_eq!(ids(&lenient)["Observation"], ["literal", "before", "behind", "case", "space", "beside"]);
    let pack = world.out("packed");
    let packed = run::run(&["pack", "--store", world.store().to_str().unwrap(), "--to", pack.to_str().unwrap()]);
    assert_eq!(packed.code, 0, "{packed:#?}");
    let words = ["--all-patients", "--patient-references", "lenient"];
    assert_eq!(run::export(&pack, &world.out("of-pack"), &words).code, 0);
    let of_pack = ids(&Export::read(&world.out("of-pack"), Bounds::DEFAULT));
    assert_eq!(of_pack["Observation"].len(), ids(&lenient)["Observation"].len());
}

/// A choice is a fact of the index: a later command that gives none uses it, one that gives another is refused, and a new
/// index is made only on request. Rows that come into sight then are new to increments; the others are not.
#[test]
fn choices_are_facts_of_the_index() {
    let long = "e".repeat(66);
    let lines = [patient("p"), observation("o", &refers("Patient/p")), observation(&long, &refers("Patient/p"))];
    let world = World::new(&lines);
    let at = |day: u32| format!("2026-01-0{day}T00:00:00Z");
    let first = world.export("1", &["--all-patients", "--ids", "r4", "--as-of", &at(1)], 1);
    assert_eq!(ids(&first)["Observation"], ["o"]);
    let second = world.export("2", &["--all-patients", "--as-of", &at(2)], 1);
    assert_eq!(ids(&second)["Observation"], ["o"]);
    let refused = world.run("3", &["--all-patients", "--ids", "any", "--as-of", &at(3)]);
    refused.refused(2, &["--ids r4, and any is given", "outpour index --remake"]);
    world.index(&["--ids", "any"]).refused(2, &["--ids r4, and any is given"]);
    let several = world.index(&["--ids", "any", "--unproven", "export", "--validate", "structure"]);
    several.refused(2, &["--ids r4", "--unproven fault", "--validate full"]);
    let made = world.index(&["--remake"]);
    assert_eq!(made.code, 0, "{made:#?}");
    let third = world.export("4", &["--all-patients", "--since", &at(2), "--as-of", &at(4)], 0);
    assert_eq!(ids(&third), [("Observation".to_string(), vec![long])].into());
    let again = world.export("5", &["--all-patients", "--since", &at(4), "--as-of", &at(5)], 0);
    assert_eq!(again.lines().len(), 0);
    // Back again: the row is gone, and counted.
    let back = world.index(&["--ids", "r4", "--remake", "--allow-missing", "100"]);
    assert_eq!(back.code, 0, "{back:#?}");
    let gone = world.export("6", &["--all-patients", "--since", &at(5), "--as-of", &at(6)], 1);
    assert_eq!(gone.manifest["extension"]["urn:outpour:export:1"]["vanished"]["uncertainFiles"], 1);
    assert!(Path::new(&world.out("6")).exists());
}

/// COMP-15: by the primary paths a record is its subject's alone, and not whose performer, payer or link a member is; the choice
/// is a fact of the index, and the ledger is recounted by it. A line is a fault by a key of any path of R4.
#[test]
fn owners_by_primary_paths() {
    let performed = |id: &str, performer: &str, subject: &str| {
        let row = observation(id, &refers(subject));
        row.replace(",\"subject\"", &format!(",\"performer\":[{}],\"subject\"", refers(performer)))
    };
    let of = |of_type: &str, id: &str, paths: &[(&str, &str)]| {
        let paths: Vec<String> = paths.iter().map(|(path, to)| format!(r#""{path}":{}"#, refers(to))).collect();
        format!(r#"{{"resourceType":"{of_type}","id":"{id}",{}}}"#, paths.join(","))
    };
    let lines = [
        patient("m"),
        patient("other"),
        performed("own", "Patient/other", "Patient/m"),
        performed("foreign", "Patient/m", "Patient/other"),
        of("Coverage", "own", &[("beneficiary", "Patient/m"), ("payor", "Patient/other")]),
        of("Coverage", "foreign", &[("beneficiary", "Patient/other"), ("subscriber", "Patient/m")]),
        of("Encounter", "own", &[("subject", "Patient/m")]),
        r#"{"resourceType":"Patient","id":"linked","link":[{"other":{"reference":"Patient/m"}}]}"#.to_string(),
        of("Provenance", "of-foreign", &[("target", "Observation/foreign")]),
        r#"{"resourceType":"Observation","id":"twice","performer":{"reference":"Patient/m","reference":"Patient/m"}}"#
            .to_string(),
    ];
    let world = World::new(&lines);
    let everything = ["own", "foreign"].map(String::from).to_vec();
    let words = ["--all-patients", "--patient", "m"];
    let primary = [&words[..], &["--compartment-paths", "primary"]].concat();
    let first = world.export("primary", &primary, 1);
    let found = ids(&first);
    assert_eq!(found["Observation"], ["own"]);
    assert_eq!((&found["Coverage"], &found["Encounter"]), (&vec!["own".to_string()], &vec!["own".to_string()]));
    assert_eq!((&found["Patient"], found.get("Provenance")), (&vec!["m".to_string()], None));
    assert_eq!(first.manifest["extension"]["urn:outpour:export:1"]["policies"]["compartmentPaths"], "primary");
    // It stands, and another one is refused.
    assert_eq!(ids(&world.export("stands", &words, 1)), found);
    let refused = world.run("x", &[&words[..], &["--compartment-paths", "r4"]].concat());
    refused.refused(2, &["--compartment-paths primary, and r4 is given", "outpour index --remake"]);
    let packed = world.out("packed");
    let pack = run::run(&["pack", "--store", world.store().to_str().unwrap(), "--to", packed.to_str().unwrap()]);
    assert_eq!(pack.code, 1, "{pack:?}");
    let done = run::export(&packed, &world.out("of-packed"), &primary);
    assert!(matches!(done.code, 0 | 1), "{done:?}");
    assert_eq!(ids(&Export::read(&world.out("of-packed"), Bounds::DEFAULT)), found);
    let made = world.index(&["--remake", "--compartment-paths", "r4"]);
    assert_eq!(made.code, 0, "{made:?}");
    let found = ids(&world.export("r4", &words, 1));
    assert_eq!((&found["Observation"], &found["Coverage"]), (&everything, &everything));
    assert_eq!((found["Patient"].len(), found["Provenance"].len()), (2, 1));
}

/// Names are compared without case and `.jsonl` is taken; files of other names are counted with the first names, in the
/// message files, on the terminal and under `--json`. A store without any data file is refused.
#[test]
fn files_of_other_names_are_told() {
    let world = World::new(&[patient("a")]);
    for (name, id) in [("b.NDJSON", "b"), ("c.jsonl", "c"), ("d.JsonL", "d"), ("sub/e.ndjson", "e")] {
        std::fs::create_dir_all(world.store().join("sub")).unwrap();
        world.write(name, &[patient(id)]);
    }
    std::fs::write(world.store().join("f.jsonl.GZ"), crate::unproven::gzip((patient("f") + "\n").as_bytes(), 1))
        .unwrap();
    let quiet = world.export("quiet", &["--system"], 0);
    assert_eq!(ids(&quiet)["Patient"], ["a", "b", "c", "d", "f", "e"]);
    assert!(!quiet.messages().iter().any(|message| message.text.contains("not read")));
    for name in ["a.json", "b.ndjson.bz2", "c.txt", "d.csv", "e.xml", "f.parquet"] {
        world.write(name, &[patient("x")]);
    }
    std::os::unix::fs::symlink("a.ndjson", world.store().join("0-link.ndjson")).unwrap();
    let done = world.run("told", &["--system"]);
    assert_eq!(done.code, 0, "{done:#?}");
    let words = "7 files of the store not read: 0-link.ndjson, a.json, b.ndjson.bz2, c.txt, d.csv, ...";
    assert!(done.said().contains("7 files of the store not read"), "{}", done.stderr);
    let told = Export::read(&world.out("told"), Bounds::DEFAULT);
    assert_eq!(message(&told.messages(), words).severity, "warning");
    // None of them is a data file.
    let other = World::new(&[]);
    std::fs::rename(other.store().join("a.ndjson"), other.store().join("a.txt")).unwrap();
    other.run("none", &["--system"]).refused(2, &["holds no data file", "but 1 file of other names: a.txt"]);
}
