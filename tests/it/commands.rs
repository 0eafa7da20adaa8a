//! Commands around an export: `group check`, `group import`, `inspect`; an export used as a store; concurrent exports;
//! a list of patients on standard input.

use crate::run::{self, Bounds, Export, scratch, snapshot, testdata};
use std::path::{Path, PathBuf};

/// `group check` reports the members of a Group and the patients found, and refuses Groups that cannot be exported.
#[test]
fn group_check() {
    let groups = testdata("groups/synthea-r4-100");
    for name in ["ten", "all", "empty", "versioned", "nested", "missing"] {
        let run = run::run(&["group", "check", groups.join(format!("Group-{name}.json")).to_str().unwrap()]);
        assert!(run.code == 0 || run.code == 1, "{name}: {run:#?}");
    }
    let scratch = scratch();
    let file = scratch.path().join("broken.json");
    for broken in ["{\n\"resourceType\": \"Group\",\n", r#"{"resourceType":"Patient","id":"x"}"#, "[]", ""] {
        std::fs::write(&file, broken).unwrap();
        run::run(&["group", "check", file.to_str().unwrap()]).refused(2, &["broken.json"]);
    }
    run::run(&["group", "check", "/no/such/file.json"]).refused(2, &["/no/such/file.json"]);
}

/// `group import` stores a Group that an export then finds by id.
#[test]
fn group_import() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    crate::fixture::plain_store(&store, &["Patient", "Condition"], 1);
    let group = testdata("groups/synthea-r4-100/Group-ten.json");
    let run = run::run(&["group", "import", group.to_str().unwrap(), "--store", store.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{run:#?}");
    assert!(store.join("Group.ten.ndjson").exists());
    let out = scratch.path().join("out");
    assert_eq!(run::export(&store, &out, &["--group", "ten", "--type", "Patient"]).code, 0);
    assert_eq!(Export::read(&out, Bounds::DEFAULT).lines()["Patient"].len(), 10);
}

/// ONEUP-G02, ONEUP-G04, ONEUP-G06, ONEUP-M12, CLI-05: `--rules oneup` refuses what 1upHealth would, every problem at
/// once, and nothing is written; the bounds can be moved; R4's rules have none.
#[test]
fn group_rules() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    crate::fixture::plain_store(&store, &["Patient"], 1);
    let store = store.to_str().unwrap();
    let file = scratch.path().join("group.json");
    let write = |members: usize, more: &str, other: &str| {
        let mut list: Vec<String> = (0..members)
            .map(|offset| {
                format!("\n{{\"entity\": {{\"reference\": \"Patient/58c297c4-d684-4677-8024-{offset:012}\"}}{more}}}")
            })
            .collect();
        list.extend((!other.is_empty()).then(|| other.to_string()));
        let list = list.join(",");
        let text = format!(r#"{{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{list}]}}"#);
        std::fs::write(&file, text).unwrap();
    };
    let group = |words: &[&str]| run::run(&[&["group", words[0], file.to_str().unwrap()], &words[1..]].concat());
    let both = |words: &[&str], code: i32, needles: &[&str]| {
        let check = group(&[&["check"], words].concat());
        assert!(code == 2 || check.code == 0, "{check:#?}");
        if code == 2 {
            check.refused(2, needles);
            let before = snapshot(Path::new(store));
            group(&[&["import", "--store", store], words].concat()).refused(2, needles);
            assert_eq!(snapshot(Path::new(store)), before, "nothing is written");
        }
    };
    write(10_001, "", "");
    both(&["--rules", "oneup"], 2, &["10001 members", "10000"]);
    both(&["--rules", "oneup", "--max-members", "10001"], 0, &[]);
    both(&[], 0, &[]);
    both(&["--max-members", "10000"], 2, &["10001 members", "10000"]);
    write(10_000, "", "");
    both(&["--rules", "oneup"], 0, &[]);
    write(6000, r#", "inactive": false"#, "");
    both(&["--rules", "oneup"], 2, &["bytes without white space", "409600"]);
    both(&["--rules", "oneup", "--max-bytes", "1MB"], 0, &[]);
    both(&[], 0, &[]);
    write(10_001, r#", "inactive": false"#, r#"{"entity":{"reference":"Practitioner/p"}}"#);
    both(&["--rules", "oneup"], 2, &["10002 members", "409600", "Group.member[10001].entity.reference"]);
    both(&["--rules", "oneup", "--max-bytes", "many"], 2, &["--max-bytes"]);
    std::fs::write(&file, r#"{"resourceType":"Group","id":"../g"}"#).unwrap();
    both(&["--rules", "oneup"], 2, &["Group.id", "Group.type", "Group.actual", "Group.member"]);
    write(10_000, "", "");
    let imported = group(&["import", "--store", store, "--rules", "oneup", "--json"]);
    assert_eq!(imported.code, 0, "{imported:#?}");
    let reported: serde_json::Value = serde_json::from_str(&imported.stdout).unwrap();
    assert_eq!((&reported["members"], &reported["current"]), (&10_000.into(), &true.into()), "{reported}");
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// `inspect` shows every kind of file that the project writes, intact or damaged, and changes none.
#[test]
fn inspect_reads_everything_and_writes_nothing() {
    let scratch = scratch();
    let index = scratch.path().join("index");
    let out = scratch.path().join("out");
    let store = testdata("hostile/deleted");
    let group = testdata("hostile/Group-edge.json");
    let mut args =
        vec!["--group", group.to_str().unwrap(), "--index-dir", index.to_str().unwrap(), "--compress", "zstd"];
    args.extend(["--since", "2020-06-15T12:00:00Z", "--as-of", "2025-01-01T00:00:00.000Z"]);
    assert_eq!(run::export(&store, &out, &args).code, 1);
    let mut files = Vec::new();
    files_below(&index, &mut files);
    files_below(&out, &mut files);
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        let run = run::run(&["inspect", path.to_str().unwrap()]);
        let lock = path.file_name().unwrap().to_str().unwrap().contains("lock");
        assert!(run.code == 0 || lock, "{path:?}: {run:#?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "inspect never writes");
        let damaged = scratch.path().join(path.file_name().unwrap());
        for cut in [0, 1, bytes.len() / 3, bytes.len().saturating_sub(1)] {
            std::fs::write(&damaged, &bytes[..cut.min(bytes.len())]).unwrap();
            let run = run::run(&["inspect", damaged.to_str().unwrap()]);
            assert!((0..=3).contains(&run.code) && !run.said().contains("panicked"), "{path:?} cut at {cut}: {run:#?}");
        }
    }
}

/// An export can be used as a store: of its directory only the output and deleted files are read (DESIGN section 1).
#[test]
fn an_export_is_a_store() {
    let scratch = scratch();
    let index = scratch.path().join("index");
    let store = scratch.path().join("store");
    let first = store.join("2025-01-01");
    std::fs::create_dir(&store).unwrap();
    let group = testdata("hostile/Group-edge.json");
    let mut args = vec!["--group", group.to_str().unwrap(), "--index-dir", index.to_str().unwrap()];
    args.extend(["--since", "2020-06-15T12:00:00Z", "--as-of", "2025-01-01T00:00:00.000Z"]);
    assert_eq!(run::export(&testdata("hostile/deleted"), &first, &args).code, 1);
    let exported = Export::read(&first, Bounds::DEFAULT);
    assert!(!exported.deleted.is_empty() && !exported.error.is_empty());
    std::fs::write(first.join("foreign.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"stray\"}\n").unwrap();
    let out = scratch.path().join("out");
    let run = run::export(&store, &out, &["--system", "--as-of", "2025-01-02T00:00:00.000Z"]);
    assert_eq!(run.code, 0, "neither the error files nor the stray file were read: {run:#?}");
    let again = Export::read(&out, Bounds::DEFAULT);
    assert_eq!(again.lines(), exported.lines());
    assert_eq!(
        again.ledger()["tombstone"] as usize,
        exported.deleted.iter().map(|file| file.lines.len()).sum::<usize>()
    );
}

/// Concurrent exports of one store without an index: one process builds it, and all write the same files.
#[test]
fn several_exports_at_once() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    crate::fixture::plain_store(&store, &["Patient", "Condition", "Encounter"], 1);
    let outs: Vec<PathBuf> = (0..4).map(|number| scratch.path().join(format!("out-{number}"))).collect();
    std::thread::scope(|scope| {
        for out in &outs {
            scope.spawn(|| {
                let args =
                    ["--all-patients", "--as-of", crate::golden::AS_OF, "--base-url", "https://files.example.org/"];
                let run = run::export(&store, out, &args);
                assert_eq!(run.code, 0, "{run:#?}");
            });
        }
    });
    for out in &outs[1..] {
        assert!(snapshot(out) == snapshot(&outs[0]));
    }
}

/// `--patients -` reads the list of patients from standard input.
#[test]
fn patients_from_standard_input() {
    use std::io::Write;
    let scratch = scratch();
    let out = scratch.path().join("out");
    let store = testdata("stores/synthea-r4-100");
    let index = scratch.path().join("index");
    let mut command = run::command();
    command.args(["export", "--store", store.to_str().unwrap(), "--out", out.to_str().unwrap(), "--patients", "-"]);
    command.args(["--index-dir", index.to_str().unwrap(), "--as-of", crate::golden::AS_OF]);
    let mut child = command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"Patient/6b12b22d-6dc2-486c-9526-8ac8524f6402\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(Export::read(&out, Bounds::DEFAULT).lines()["Patient"].len(), 1);
}
