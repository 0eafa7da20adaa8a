//! Files that are something else than their names say, or hold no FHIR: read by their first bytes, or told once.

use crate::run::{self, Bounds, Export, Message, Run, scratch};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A gzip member of a text.
fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// A zstd frame of a text.
fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(text, 1).unwrap()
}

fn patient(id: &str) -> String {
    format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\",\"meta\":{{\"lastUpdated\":\"2020-01-01T00:00:00Z\"}}}}\n")
}

/// A store and its exports.
struct World {
    scratch: tempfile::TempDir,
}

impl World {
    fn new(files: &[(&str, &[u8])]) -> World {
        let world = World { scratch: scratch() };
        std::fs::create_dir(world.store()).unwrap();
        files.iter().for_each(|(name, bytes)| world.write(name, bytes));
        world
    }

    fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.store().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn out(&self) -> PathBuf {
        self.scratch.path().join("out")
    }

    fn run(&self, words: &[&str]) -> Run {
        run::export(&self.store(), &self.out(), &[&["--all-patients", "--force"], words].concat())
    }

    /// An export with this exit code, whose ledger is recounted and whose index is verified.
    #[track_caller]
    fn export(&self, words: &[&str], code: i32) -> Export {
        let done = self.run(words);
        assert_eq!(done.code, code, "{done:#?}");
        for words in [&["verify", "--ledger", text(&self.out())][..], &["verify", text(&self.store())]] {
            let verified = run::run(words);
            assert_eq!(verified.code, 0, "{verified:#?}");
        }
        Export::read(&self.out(), Bounds::DEFAULT)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Ids of the Patients of an export.
fn ids(export: &Export) -> Vec<String> {
    let id = |line: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().into();
    export.lines().remove("Patient").unwrap_or_default().iter().map(id).collect()
}

/// The messages about a file.
fn of_file<'a>(messages: &'a [Message], name: &str) -> Vec<&'a Message> {
    messages.iter().filter(|message| message.text.contains(&format!("\"diagnostics\":\"{name}: "))).collect()
}

/// Every compression under every name is read by its first bytes, with one warning a file where the name differs.
#[test]
fn compressions_are_told_by_first_bytes() {
    let content = |id: &str| (patient(id) + &patient(&format!("{id}2"))).into_bytes();
    let skippable = [&b"\x53\x2a\x4d\x18\x02\0\0\0xy"[..], &zstd(&content("s"))].concat();
    let files: [(&str, Vec<u8>, Option<&str>); 11] = [
        ("a.ndjson", content("a"), None),
        ("b.ndjson", gzip(&content("b")), Some("gzip")),
        ("c.ndjson", zstd(&content("c")), Some("zstd")),
        ("d.ndjson.gz", content("d"), Some("plain text")),
        ("e.ndjson.gz", gzip(&content("e")), None),
        ("f.ndjson.gz", zstd(&content("f")), Some("zstd")),
        ("g.ndjson.zst", [b"\xef\xbb\xbf", &content("g")[..]].concat(), Some("plain text")),
        ("h.ndjson.zst", gzip(&content("h")), Some("gzip")),
        ("i.ndjson.zst", zstd(&content("i")), None),
        ("j.jsonl", skippable, Some("zstd")),
        ("k.ndjson.gz", [b"\r\n  ", &content("k")[..]].concat(), Some("plain text")),
    ];
    let listed: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes, _)| (*name, &bytes[..])).collect();
    let world = World::new(&listed);
    let export = world.export(&[], 0);
    let expected: Vec<String> = "abcdefghisk".chars().flat_map(|c| [c.to_string(), format!("{c}2")]).collect();
    let mut found = ids(&export);
    found.sort();
    let mut sorted = expected.clone();
    sorted.sort();
    assert_eq!(found, sorted);
    let messages = export.messages();
    for (name, _, found) in &files {
        let told = of_file(&messages, name);
        assert_eq!(told.len(), usize::from(found.is_some()), "{name}: {told:?}");
        if let (Some(message), Some(found)) = (told.first(), found) {
            assert!(
                message.severity == "warning" && message.text.contains(&format!("the file is {found}")),
                "{told:?}"
            );
        }
    }
    // Nothing is read again, and what is appended is read as what the file is.
    std::thread::sleep(std::time::Duration::from_millis(40));
    world.run(&[]);
    let again = world.run(&["--json"]);
    assert!(again.stdout.contains("\"scannedBytes\":0") || again.stdout.contains("\"scannedBytes\": 0"), "{again:#?}");
    for (name, bytes) in [("b.ndjson", gzip(patient("b3").as_bytes())), ("d.ndjson.gz", patient("d3").into_bytes())] {
        let mut file = std::fs::OpenOptions::new().append(true).open(world.store().join(name)).unwrap();
        file.write_all(&bytes).unwrap();
    }
    let found = ids(&world.export(&[], 0));
    assert!(found.contains(&"b3".to_string()) && found.contains(&"d3".to_string()) && found.len() == 24, "{found:?}");
    // A file that is replaced by another compression of the same lines is scanned, and its lines are not new.
    world.write("b.ndjson", &zstd(&content("b")));
    world.write("e.ndjson.gz", &content("e"));
    let since = ["--since", "2021-01-01T00:00:00Z"];
    let export = world.export(&since, 0);
    assert_eq!(ids(&export), ["d3"], "only what was appended came late");
    assert_eq!(of_file(&export.messages(), "e.ndjson.gz").len(), 1);
}

/// What begins as a gzip or zstd file does and is damaged, or is neither that nor text, keeps its fault.
#[test]
fn damage_stays_damage() {
    let whole = gzip((patient("a") + &patient("b")).as_bytes());
    let mut torn = whole.clone();
    torn.truncate(whole.len() - 9);
    let mut headless = whole.clone();
    headless[0] = b'x';
    for bytes in [&torn, &headless] {
        for name in ["x.ndjson.gz", "x.ndjson"] {
            let world = World::new(&[("p.ndjson", patient("p").as_bytes()), (name, bytes)]);
            let export = world.export(&[], 1);
            assert_eq!(ids(&export), ["p"], "{name}");
        }
    }
    // An empty file is what its name says.
    let world = World::new(&[("p.ndjson", patient("p").as_bytes()), ("x.ndjson.gz", b""), ("y.ndjson.zst", b"")]);
    assert!(world.export(&[], 0).messages().is_empty());
}

/// A resumed export and a packed store read such files as the first did.
#[test]
fn later_readers_know_what_a_file_is() {
    let world = World::new(&[
        ("p.ndjson.gz", patient("p").as_bytes()),
        ("q.ndjson", &gzip(patient("q").as_bytes())),
        ("r.ndjson", &zstd(patient("r").as_bytes())),
    ]);
    world.export(&[], 0);
    let resumed = run::export(&world.store(), &world.out(), &["--all-patients", "--resume"]);
    assert_eq!(resumed.code, 0, "{resumed:#?}");
    let packed = world.scratch.path().join("packed");
    let done = run::run(&["pack", "--store", text(&world.store()), "--to", text(&packed)]);
    assert_eq!(done.code, 0, "{done:#?}");
    let out = world.scratch.path().join("of-packed");
    assert_eq!(run::export(&packed, &out, &["--all-patients"]).code, 0);
    assert_eq!(ids(&Export::read(&out, Bounds::DEFAULT)).len(), 3);
    let shown = run::run(&["inspect", text(&world.store().join("p.ndjson.gz"))]);
    assert!(shown.code == 0 && shown.said().contains("Patient"), "{shown:#?}");
}

/// Files that hold no NDJSON are told once, with what to do; the number of their lines stands in the ledger.
#[test]
fn documents_are_told_once() {
    let pretty = "{\n  \"resourceType\": \"Patient\",\n  \"id\": \"x\"\n}\n";
    let bundle = "{\n  \"resourceType\": \"Bundle\",\n  \"type\": \"collection\",\n  \"entry\": [\n  ]\n}\n";
    let array = format!("[\n{},\n{}]\n", patient("x").trim_end(), patient("y"));
    let utf16: Vec<u8> =
        "\u{feff}".encode_utf16().chain(patient("u").encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    let forms: [(&str, Vec<u8>, u64, &[&str]); 8] = [
        ("a.ndjson", pretty.into(), 4, &["one JSON document over several lines", "one resource a line"]),
        ("b.ndjson", bundle.into(), 6, &["one Bundle over several lines", "take it apart"]),
        ("c.ndjson", array.clone().into(), 3, &["one JSON array"]),
        ("d.ndjson", utf16, 2, &["UTF-16", "convert it to UTF-8"]),
        ("e.ndjson", pointer.into(), 3, &["Git LFS", "git lfs pull"]),
        // Compressed, and under a name of a compression.
        ("f.ndjson.gz", gzip(bundle.as_bytes()), 6, &["one Bundle over several lines"]),
        ("g.ndjson.zst", pointer.into(), 3, &["Git LFS"]),
        ("h.ndjson", zstd(format!("[{}]", patient("z").trim_end()).as_bytes()), 1, &["one JSON array"]),
    ];
    for (name, bytes, lines, needles) in &forms {
        let world = World::new(&[("p.ndjson", patient("p").as_bytes()), (name, bytes)]);
        let export = world.export(&[], 1);
        let messages = export.messages();
        let errors: Vec<&Message> = messages.iter().filter(|message| message.severity == "error").collect();
        assert_eq!(errors.len(), 1, "{name}: {messages:#?}");
        let told = &errors[0].text;
        assert!(
            told.contains(&format!("\"diagnostics\":\"{name}: ")) && needles.iter().all(|needle| told.contains(needle)),
            "{told}"
        );
        assert_eq!(export.ledger()["faulty"], *lines, "{name}");
        let listed = run::run(&["verify", "--faults", text(&world.store())]);
        assert_eq!(listed.said().matches(name).count(), 1, "{listed:#?}");
    }
    // The last element of an array that stands on lines may be read; what is not read is told.
    let world = World::new(&[("c.ndjson", array.replace("}]", "}\n]").as_bytes())]);
    let export = world.export(&[], 1);
    assert_eq!(ids(&export), ["y"]);
    let messages = export.messages();
    let told = of_file(&messages, "c.ndjson");
    assert!(told.len() == 1 && told[0].text.contains("not read of it: 3 lines"), "{told:#?}");
    // All of one store at once: each is told.
    let listed: Vec<(&str, &[u8])> = forms.iter().map(|(name, bytes, ..)| (*name, &bytes[..])).collect();
    let messages = World::new(&listed).export(&[], 1).messages();
    for (name, ..) in &forms {
        assert_eq!(of_file(&messages, name).len(), 1, "{name}: {messages:#?}");
    }
}

/// A file that begins as a document may, and holds other faults, keeps a fault a line.
#[test]
fn other_faults_are_told_line_by_line() {
    let torn = "{\"resourceType\":\"Patient\",\n";
    for (content, faults) in [
        (torn.to_string(), 1),
        (format!("{torn}{}", patient("q")), 1),
        ("{\"resourceType\":\"Bundle\",\"type\":\"collection\"}\n".repeat(2), 2),
        (format!("no JSON\n[{}]\n", patient("q").trim_end()), 2),
    ] {
        let world = World::new(&[("p.ndjson", patient("p").as_bytes()), ("x.ndjson", content.as_bytes())]);
        let messages = world.export(&[], 1).messages();
        let told = of_file(&messages, "x.ndjson");
        assert_eq!(told.len(), faults, "{content}: {told:#?}");
        assert!(told.iter().all(|message| message.text.contains("at byte")), "{told:#?}");
    }
}

/// The log of another tool beside the data is passed over with one warning; with a resource, a deletion or a broken line in
/// it, it keeps a fault a line.
#[test]
fn files_without_fhir_are_passed_over() {
    let log = |lines: usize| "{\"eventId\":\"kickoff\",\"timestamp\":\"2026-01-01T00:00:00Z\"}\n".repeat(lines);
    let world = World::new(&[("p.ndjson", patient("p").as_bytes()), ("log.ndjson", log(3).as_bytes())]);
    let export = world.export(&["--faults-allowed", "0"], 0);
    let messages = export.messages();
    let told = of_file(&messages, "log.ndjson");
    assert!(told.len() == 1 && told[0].severity == "warning" && messages.len() == 1, "{messages:#?}");
    assert!(told[0].text.contains("none of its 3 lines has a resourceType"), "{told:?}");
    let ledger = export.ledger();
    assert_eq!((ledger["lines"], ledger["notFhir"], ledger["faulty"], ledger["exported"]), (4, 3, 0, 1));
    let indexed = run::run(&["index", "--store", text(&world.store()), "--faults"]);
    assert!(indexed.said().contains("0 of them faulty") || indexed.stdout.contains("0 of them faulty"), "{indexed:#?}");

    let deletion =
        r#"{"resourceType":"Bundle","type":"transaction","entry":[{"request":{"method":"DELETE","url":"Patient/z"}}]}"#;
    for (content, other, faults) in [
        // Blank lines and a missing end of line are no matter.
        (format!("\n{}\r\n{{}}", log(2)), 3, 0),
        (format!("{}{}", log(2), patient("q")), 0, 2),
        (format!("{}{deletion}\n", log(2)), 0, 2),
        (format!("{}{{\"eventId\":\n", log(2)), 0, 3),
        (format!("{}[]\n", log(1)), 0, 2),
        (format!("{}{{\"resourceType\":\"Event\"}}\n", log(1)), 0, 2),
    ] {
        for (name, bytes) in [("log.ndjson", content.clone().into_bytes()), ("log.ndjson.gz", gzip(content.as_bytes()))]
        {
            let world = World::new(&[("p.ndjson", patient("p").as_bytes()), (name, &bytes)]);
            let export = world.export(&[], i32::from(faults > 0));
            let ledger = export.ledger();
            let found = (ledger.get("notFhir").copied().unwrap_or(0), ledger["faulty"]);
            assert_eq!(found, (other, faults), "{name} {content}");
        }
    }
    // A file that comes to hold a resource has its faults from then on.
    world.write("log.ndjson", (log(3) + &patient("q")).as_bytes());
    let export = world.export(&[], 1);
    assert_eq!((ids(&export).len(), export.ledger()["faulty"]), (2, 3));
}

/// `pack` and `index` say what an export says of the files of a store: nobody takes a packed store for the whole of one that it
/// is not.
#[test]
fn other_commands_tell_of_files() {
    let undated = |name: &str| format!("{{\"resourceType\":\"Patient\",\"id\":\"u\",\"gender\":\"{name}\"}}\n");
    let world = World::new(&[
        ("a.ndjson.gz", patient("a").as_bytes()),
        ("b.csv", b"x"),
        ("log.ndjson", b"{}\n"),
        ("u.1.ndjson", undated("male").as_bytes()),
        ("u.2.ndjson", undated("female").as_bytes()),
        ("other/c.ndjson", b""),
    ]);
    world.write(".outpourignore", b"other\n");
    let packed = world.scratch.path().join("packed");
    let store = world.store();
    for words in [&["index", "--store", text(&store)][..], &["pack", "--store", text(&store), "--to", text(&packed)]] {
        let done = run::run(words);
        let needles = [
            "a.ndjson.gz: the file is plain text",
            "1 file of the store not read: b.csv",
            "log.ndjson: passed over",
            "1 resource has versions in several files",
            "1 file or directory by .outpourignore",
        ];
        for needle in needles {
            assert!(done.said().contains(needle), "{needle}: {done:#?}");
        }
        std::fs::remove_dir_all(&packed).ok();
        let done = run::run(&[words, &["--json"]].concat());
        let document: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(document["warnings"].as_array().unwrap().len(), 4, "{document:#}");
    }
}
