//! Files written by earlier versions are carried over: what the index remembers of snapshots, jobs of the service, an
//! interrupted export, a packed store. `testdata/compat/README.md` says how they were made.

use crate::http::server::Server;
use crate::run::{self, scratch, testdata};
use std::path::{Path, PathBuf};
use std::time::Duration;

const FIRST: &str = "2024-02-01T00:00:00Z";
const SECOND: &str = "2024-03-01T00:00:00Z";
const THIRD: &str = "2024-04-01T00:00:00Z";

/// A copy of the files of format 3, whose times are those of a checkout.
fn kept() -> (tempfile::TempDir, PathBuf) {
    let scratch = scratch();
    let root = scratch.path().join("kept");
    let done = std::process::Command::new("cp").arg("-r").arg(testdata("compat/index-3")).arg(&root).status().unwrap();
    assert!(done.success());
    (scratch, root)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The lines of an export's output files, sorted, and its messages.
fn lines(out: &Path, bounds: run::Bounds) -> (Vec<String>, String) {
    let export = run::Export::read(out, bounds);
    let of = |files: &[run::File]| -> Vec<String> {
        files.iter().flat_map(|file| &file.lines).map(|line| String::from_utf8(line.clone()).unwrap()).collect()
    };
    let mut output = of(&export.output);
    output.sort();
    (output, of(&export.error).join("\n"))
}

/// What the earlier version exported.
fn expected(root: &Path, name: &str) -> Vec<String> {
    let bytes = std::fs::read_to_string(root.join("expected").join(name)).unwrap();
    let mut lines: Vec<String> = bytes.lines().map(str::to_string).collect();
    lines.sort();
    lines
}

/// Exports everybody and compares with what the earlier version exported.
fn exported(root: &Path, store: &str, index: &Path, name: &str, since: &[&str]) {
    let out = root.join("out");
    std::fs::remove_dir_all(&out).ok();
    let words = [&["--all-patients", "--index-dir", text(index), "--as-of", THIRD], since].concat();
    let run = run::export(&root.join(store), &out, &words);
    assert_eq!(run.code, 0, "{run:#?}");
    let (found, messages) = lines(&out, run::Bounds::DEFAULT);
    assert_eq!(found, expected(root, &format!("{store}/{name}.ndjson")), "{store} {since:?}");
    assert!(!messages.contains("cannot be told") && !run.said().contains("damaged"), "{messages}\n{run:#?}");
}

/// First-seen times are carried over, row by row: what was late for the earlier version is late, and nothing else. Rows
/// that came between are late, too, and so are those behind a compressed file that is scanned again as a whole.
#[test]
fn first_seen_times_of_format_3_are_kept() {
    let (_scratch, root) = kept();
    let index = root.join("index");
    // A plan and a verification read it and change nothing.
    let before = std::fs::read(index.join("generation")).unwrap();
    let words = ["--all-patients", "--index-dir", text(&index), "--as-of", THIRD, "--since", FIRST, "--plan"];
    let plan = run::export(&root.join("store"), &root.join("none"), &words);
    assert!(plan.code == 0 && plan.said().contains("5 resources came to the store after"), "{plan:#?}");
    let verified = run::run(&["verify", text(&root.join("store")), "--index-dir", text(&index)]);
    assert!(verified.code == 0 && verified.said().contains("another version"), "{verified:#?}");
    assert!(std::fs::read(index.join("generation")).unwrap() == before && !index.join("generation-b").exists());
    for _ in 0..2 {
        exported(&root, "store", &index, "since-first", &["--since", FIRST]);
        exported(&root, "store", &index, "since-second", &["--since", SECOND]);
        exported(&root, "store", &index, "whole", &[]);
    }
    let verified = run::run(&["verify", text(&root.join("store")), "--index-dir", text(&index)]);
    assert_eq!(verified.code, 0, "{verified:#?}");
}

/// The first run of this version finds a store that has changed since the last one of the earlier version.
#[test]
fn rows_that_came_with_the_new_version_are_late() {
    use std::io::Write;
    let (_scratch, root) = kept();
    let row = |id: &str| {
        format!(
            "{{\"resourceType\":\"Condition\",\"id\":\"{id}\",\"meta\":{{\"lastUpdated\":\"2024-01-25T00:00:00Z\"}},\
             \"subject\":{{\"reference\":\"Patient/a\"}}}}\n"
        )
    };
    let append = |name: &str, bytes: &[u8]| {
        let file = root.join("store").join(name);
        std::fs::OpenOptions::new().append(true).open(file).unwrap().write_all(bytes).unwrap();
    };
    append("Condition.ndjson.gz", &coded("gzip", row("member").as_bytes()));
    append("Patient.ndjson", row("line").as_bytes());
    // The other compressed file holds another first line now: none of its rows was there before, and all are late.
    let encounters = std::fs::read(root.join("store/Encounter.ndjson.zst")).unwrap();
    let changed = String::from_utf8(run::decode("x.zst", &encounters)).unwrap().replacen("\"e0\"", "\"ex\"", 1);
    std::fs::write(root.join("store/Encounter.ndjson.zst"), coded("zstd", changed.as_bytes())).unwrap();
    let (out, index) = (root.join("out"), root.join("index"));
    let words = ["--all-patients", "--index-dir", text(&index), "--as-of", THIRD, "--since", SECOND];
    let run = run::export(&root.join("store"), &out, &words);
    assert_eq!(run.code, 0, "{run:#?}");
    let (found, _) = lines(&out, run::Bounds::DEFAULT);
    let mut ids: Vec<String> = found
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_string())
        .collect();
    ids.sort();
    assert_eq!(ids, ["e1", "e2", "e3", "ex", "late5", "line", "member"]);
}

/// Bytes compressed by the program of this name.
fn coded(program: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child =
        Command::new(program).args(["-q", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// A packed store of the earlier version remembers what came late.
#[test]
fn a_packed_store_of_format_3_is_exported() {
    let (_scratch, root) = kept();
    let index = root.join("packed-index");
    exported(&root, "packed", &index, "since-first", &["--since", FIRST]);
    exported(&root, "packed", &index, "since-second", &["--since", SECOND]);
    exported(&root, "packed", &index, "whole", &[]);
}

/// An export that the earlier version began is finished, or refused by what can no longer be found: never mixed.
#[test]
fn an_export_of_format_3_is_resumed_or_refused() {
    let (_scratch, root) = kept();
    let (out, index) = (root.join("interrupted"), root.join("index"));
    let words = ["--all-patients", "--index-dir", text(&index), "--as-of", THIRD, "--since", FIRST];
    let more = ["--max-file-resources", "2", "--base-url", "https://files.example.org/"];
    let run = run::export(&root.join("store"), &out, &[&words[..], &more, &["--resume"]].concat());
    if run.code != 0 {
        run.refused(3, &["ndjson", "--force"]);
        assert!(!out.join("manifest.json").exists());
        let run = run::export(&root.join("store"), &out, &[&words[..], &more, &["--force"]].concat());
        assert_eq!(run.code, 0, "{run:#?}");
    }
    let bounds = run::Bounds { file_resources: 2, ..run::Bounds::DEFAULT };
    assert_eq!(lines(&out, bounds).0, expected(&root, "store/since-first.ndjson"));
}

/// A service goes on with the jobs of the earlier version: the finished one is there, the accepted one completes.
#[test]
fn jobs_of_format_3_go_on() {
    let (_scratch, root) = kept();
    let words = ["--config", "serve.toml", "--store", "store", "--index-dir", "service-index", "--data", "data"];
    let server = Server::start(&root, &words);
    let client = server.client();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(root.join("expected").join(name)).unwrap()).unwrap()
    };
    let path = |known: &serde_json::Value| format!("/fhir{}", known["status"].as_str().unwrap());
    let ended = |status: &str| {
        for _ in 0..600 {
            let answer = client.get(status);
            if ![202, 429].contains(&answer.status) {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the job did not end: {}", server.log());
    };
    let texts = |manifest: &serde_json::Value| -> Vec<String> {
        let items = manifest["output"].as_array().unwrap();
        let mut texts: Vec<String> = items
            .iter()
            .map(|item| {
                let url = item["url"].as_str().unwrap();
                let answer = client.get(&url[url.find("/fhir/").unwrap()..]);
                assert_eq!(answer.status, 200, "{url}");
                answer.text()
            })
            .collect();
        texts.sort();
        texts
    };
    let done = read("job-done.json");
    let answer = ended(&path(&done));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let expected: Vec<&str> = done["files"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(texts(&answer.json()), expected);
    let answer = ended(&path(&read("job-accepted.json")));
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), server.log());
    let rows: usize = texts(&answer.json()).iter().map(|text| text.lines().count()).sum();
    assert_eq!(rows, 12, "the records of two patients");
}

/// An index of an earlier version goes on as that version did, and each export says so; made again, it takes this version's
/// rules. What comes into sight is new to an increment, and nothing else.
#[test]
fn an_earlier_index_keeps_its_rules() {
    let (_scratch, root) = kept();
    let (store, index, out) = (root.join("store"), root.join("index"), root.join("out"));
    let long = "e".repeat(66);
    let row = |id: &str| {
        format!(
            "{{\"resourceType\":\"Condition\",\"id\":\"{id}\",\"meta\":{{\"lastUpdated\":\"2024-01-01T00:00:00Z\"}},\
             \"subject\":{{\"reference\":\"Patient/a\"}}}}\n"
        )
    };
    std::fs::write(store.join("x.ndjson"), row(&long)).unwrap();
    std::fs::write(store.join("y.jsonl"), row("jsonl")).unwrap();
    std::fs::write(store.join("z.ndjson.gz"), row("plain")).unwrap();
    let run = |as_of: &str, since: &str| {
        let words = ["--all-patients", "--index-dir", text(&index), "--as-of", as_of, "--since", since, "--force"];
        let done = run::export(&store, &out, &words);
        assert!([0, 1].contains(&done.code), "{done:#?}");
        run::Export::read(&out, run::Bounds::DEFAULT)
    };
    let says =
        |export: &run::Export| export.messages().iter().any(|message| message.text.contains("made by a version that"));
    let [third, fourth, fifth] = [1, 2, 3].map(|day| format!("2026-06-0{day}T00:00:00Z"));
    run(&third, SECOND);
    let export = run(&fourth, &third);
    assert!(says(&export) && export.lines().is_empty(), "{:?}", export.lines());
    let told = "z.ndjson.gz: from line 1 on, from byte 0 of the file: the file is no gzip file, though its name says so: it is \
                plain text; rename it";
    assert!(export.messages().iter().any(|message| message.text.contains(told)), "{:#?}", export.messages());
    assert!(export.messages().iter().any(|message| message.text.contains("not read: y.jsonl")));
    let words = ["index", "--store", text(&store), "--index-dir", text(&index), "--remake"];
    assert_eq!(run::run(&words).code, 0);
    let export = run(&fifth, &fourth);
    let ids: Vec<String> =
        export.lines().into_values().flatten().map(|line| String::from_utf8(line).unwrap()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids[0].contains(&long) && ids[1].contains("jsonl") && ids[2].contains("plain") && !says(&export));
}
