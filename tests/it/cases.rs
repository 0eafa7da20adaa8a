//! Table-driven exports: each `testdata/cases/*.toml` is a small store, a request and its answer, and names the rows of
//! the specification and the readings that it shows. A new behaviour is a new file there.
//!
//! A file has `about`, `cites`, `[store]` (path = content), optionally `[files]` (request files, written beside the
//! store and named `{files}/…` in arguments) and one `[[step]]` or more: `write`, `append` (path = content) and
//! `remove` change the store; `args` are those of `outpour export` (default `--as-of 2021-01-01T00:00:00.000Z`); then
//! come `exit` (default 0), `output` (type = ids, `id@versionId` to tell versions apart), `deleted`, `files` (number of
//! output files per type), `messages` (`"severity: needle"`, or `any`) and `stderr` (needles).
//!
//! A store line that begins with a letter is shorthand: `Type/id TIME vN REFERENCE…` (`-` for no time; the version may
//! be left out), or `DELETE TIME Type/id…`. Every case is answered by the binary and by the naive oracle.

use crate::comparison::Comparison;
use crate::naive::{self, Members, Who, line::Line};
use crate::run::{self, Bounds, Export, scratch, testdata};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

const AS_OF: &str = "2021-01-01T00:00:00.000Z";

struct Case {
    name: String,
    table: Table,
}

fn cases() -> Vec<Case> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(testdata("cases")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let only = std::env::var("OUTPOUR_TEST_ONLY").unwrap_or_default();
    let load = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let table = std::fs::read_to_string(&path).unwrap().parse::<Table>();
        Case { table: table.unwrap_or_else(|error| panic!("{name}: {error}")), name }
    };
    let cases: Vec<Case> = paths.into_iter().map(load).filter(|case| case.name.contains(&only)).collect();
    let known = ["about", "cites", "store", "files", "step"];
    for case in &cases {
        assert!(case.table.keys().all(|key| known.contains(&key.as_str())), "{}: unknown key", case.name);
        assert!(case.table["cites"].as_array().is_some_and(|cites| !cites.is_empty()), "{}: cites nothing", case.name);
    }
    cases
}

/// The naive oracle gives the answer of every case.
#[test]
fn oracle_answers_every_case() {
    let cases = cases();
    assert!(cases.len() >= 30 || std::env::var("OUTPOUR_TEST_ONLY").is_ok(), "{} cases", cases.len());
    for case in cases {
        play(&case, &mut |step, dir, files| {
            let Some(mut comparison) = comparison(step, files) else { return };
            let store = comparison.read(dir);
            let after = naive::seen(dir, &store);
            if let Some(before) = &step.before {
                comparison.late = naive::late_lines(&store, before, &after);
            }
            step.before = Some(after);
            match naive::export(&store, &comparison.request()) {
                Ok(_) if step.exit() > 1 => {} // the oracle does not check arguments
                Ok(answer) => {
                    let exit = i64::from(!answer.faults.is_empty());
                    step.same("exit (of the twin)", &exit, &step.exit());
                    step.check_output(&answer.lines);
                    step.check_deleted(&answer.deleted);
                }
                Err(why) => step.same(&format!("exit (the twin refuses: {why})"), &2, &step.exit()),
            }
        });
    }
}

/// The binary gives the answer of every case.
#[test]
fn binary_answers_every_case() {
    for case in cases() {
        play(&case, &mut |step, dir, files| {
            let out = files.join(format!("out-{}", step.number));
            let mut args: Vec<String> = step.args(files);
            if !args.contains(&"--as-of".to_string()) {
                args.extend(["--as-of".into(), AS_OF.into()]);
            }
            let run = run::export(dir, &out, &args.iter().map(String::as_str).collect::<Vec<_>>());
            step.same(&format!("exit ({run:#?})"), &(run.code as i64), &step.exit());
            for needle in step.texts("stderr") {
                assert!(run.said().contains(&needle), "{}: {needle:?} in {}", step.place(), run.stderr);
            }
            if run.code > 1 {
                assert!(!out.join("manifest.json").exists(), "{}: a manifest after exit {}", step.place(), run.code);
                return;
            }
            let export = Export::read(&out, bounds(&args));
            step.check_output(&export.lines());
            step.check_deleted(&export.deletions());
            step.check_messages(&export);
            step.check_files(&export);
            // `verify` resolves the members of a Group by code of its own.
            if case.name.starts_with("group-") {
                let recount = run::run(&["verify", "--ledger", out.to_str().unwrap()]);
                step.same(&format!("exit of verify ({recount:#?})"), &(recount.code as i64), &0);
            }
        });
    }
}

/// One step of a case.
struct Step<'a> {
    case: &'a str,
    number: usize,
    table: &'a Table,
    before: Option<naive::Seen>,
}

/// Makes the store of a case and calls `answer` on each step with the step, the store and a scratch directory.
fn play(case: &Case, answer: &mut dyn FnMut(&mut Step, &Path, &Path)) {
    let scratch = scratch();
    let dir = scratch.path().join("store");
    std::fs::create_dir(&dir).unwrap();
    let put = |root: &Path, files: Option<&Value>, shorthand: bool| {
        for (path, content) in files.and_then(Value::as_table).into_iter().flatten() {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let content = content.as_str().unwrap();
            let bytes = if shorthand { spelled_out(content) } else { content.into() };
            let _ = std::fs::remove_file(&path); // makes a new file instead of rewriting the old one in place
            std::fs::write(&path, bytes).unwrap();
        }
    };
    put(&dir, case.table.get("store"), true);
    put(scratch.path(), case.table.get("files"), false);
    let mut before = None;
    for (number, step) in case.table["step"].as_array().unwrap().iter().enumerate() {
        let table = step.as_table().unwrap();
        let known = ["write", "append", "remove", "args", "exit", "output", "deleted", "files", "messages", "stderr"];
        assert!(table.keys().all(|key| known.contains(&key.as_str())), "{}: unknown key in step {number}", case.name);
        put(&dir, table.get("write"), true);
        if let Some(files) = table.get("append").and_then(Value::as_table) {
            for (path, content) in files {
                let mut file = std::fs::OpenOptions::new().append(true).open(dir.join(path)).unwrap();
                std::io::Write::write_all(&mut file, &spelled_out(content.as_str().unwrap())).unwrap();
            }
        }
        for path in table.get("remove").and_then(Value::as_array).into_iter().flatten() {
            std::fs::remove_file(dir.join(path.as_str().unwrap())).unwrap();
        }
        let mut step = Step { case: &case.name, number, table, before };
        answer(&mut step, &dir, scratch.path());
        before = step.before;
    }
}

impl Step<'_> {
    fn place(&self) -> String {
        format!("testdata/cases/{}.toml, step {}", self.case, self.number + 1)
    }

    #[track_caller]
    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, found: &T, expected: &T) {
        assert_eq!(found, expected, "{}: {what} (left is found, right expected)", self.place());
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let list = self.table.get(key).and_then(Value::as_array);
        list.into_iter().flatten().map(|text| text.as_str().unwrap().to_string()).collect()
    }

    fn args(&self, files: &Path) -> Vec<String> {
        self.texts("args").iter().map(|word| word.replace("{files}", files.to_str().unwrap())).collect()
    }

    fn exit(&self) -> i64 {
        self.table.get("exit").map_or(0, |exit| exit.as_integer().unwrap())
    }

    fn check_output(&self, lines: &BTreeMap<String, Vec<Vec<u8>>>) {
        let empty = Table::new();
        let expected: BTreeMap<String, Vec<String>> = self
            .table
            .get("output")
            .and_then(Value::as_table)
            .unwrap_or(&empty)
            .iter()
            .map(|(name, ids)| {
                (name.clone(), ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_string()).collect())
            })
            .collect();
        let rendered: BTreeMap<String, Vec<String>> = lines
            .iter()
            .map(|(name, lines)| {
                let wanted = expected.get(name).cloned().unwrap_or_default();
                let ids = lines.iter().enumerate().map(|(i, line)| render(line, wanted.get(i)));
                (name.clone(), ids.collect())
            })
            .collect();
        self.same("output", &rendered, &expected);
    }

    fn check_deleted(&self, found: &[String]) {
        self.same("deleted", &found.to_vec(), &self.texts("deleted"));
    }

    fn check_messages(&self, export: &Export) {
        let messages = export.messages();
        for expected in self.texts("messages") {
            let (severity, needle) = expected.split_once(": ").unwrap();
            let reported = messages
                .iter()
                .any(|message| (severity == "any" || message.severity == severity) && message.text.contains(needle));
            assert!(reported, "{}: no {severity} names {needle:?}: {messages:#?}", self.place());
        }
        if self.table.get("messages").is_some_and(|list| list.as_array().unwrap().is_empty()) {
            assert!(messages.is_empty(), "{}: {messages:#?}", self.place());
        }
    }

    fn check_files(&self, export: &Export) {
        for (name, count) in self.table.get("files").and_then(Value::as_table).into_iter().flatten() {
            let found = export.output.iter().filter(|file| file.resource_type == *name).count();
            self.same(&format!("files of {name}"), &(found as i64), &count.as_integer().unwrap());
        }
    }
}

/// `id`, or `id@versionId` where the table says so.
fn render(line: &[u8], like: Option<&String>) -> String {
    match naive::line::read(line) {
        Line::Row(row) if like.is_some_and(|like| like.contains('@')) => {
            format!("{}@{}", row.id, row.version.unwrap_or_default())
        }
        Line::Row(row) => row.id,
        other => format!("{other:?}"),
    }
}

/// The request of a step for the oracle; `None` if it has arguments that only the binary knows.
fn comparison(step: &Step, files: &Path) -> Option<Comparison> {
    let args = step.args(files);
    let mut comparison = Comparison::new(Who::System, AS_OF);
    let mut words = args.iter();
    while let Some(flag) = words.next() {
        let mut value = || words.next().unwrap().clone();
        match flag.as_str() {
            "--group" => {
                let group = value();
                comparison.who = match std::fs::read(&group) {
                    Ok(bytes) => Who::GroupFile(serde_json::from_slice(&bytes).ok()?),
                    Err(_) => Who::GroupId(group),
                }
            }
            "--patients" => {
                let list = std::fs::read_to_string(value()).ok()?;
                comparison.who =
                    Who::Patients(list.lines().filter(|line| !line.is_empty()).map(str::to_string).collect());
            }
            "--all-patients" => comparison.who = Who::AllPatients,
            "--system" => comparison.who = Who::System,
            "--type" => {
                comparison.types = Some(comparison.types.map_or_else(String::new, |types| types + ",") + &value())
            }
            "--since" => comparison.since = Some(value()),
            "--until" => comparison.until = Some(value()),
            "--as-of" => comparison.as_of = value(),
            "--fhir-base" => comparison.bases.push(value()),
            "--members" => {
                comparison.members = Some(if value() == "active" { Members::Active } else { Members::Listed })
            }
            "--missing-last-updated" => comparison.missing_included = value() != "exclude",
            "--late" => comparison.late_included = value() != "report",
            "--max-file-bytes" | "--max-file-resources" | "--compress" | "--base-url" => drop(value()),
            _ => return None,
        }
    }
    let parse = |text: &Option<String>| {
        text.as_deref().is_none_or(|text| text.len() == 10 || naive::instant::parse(text).is_some())
    };
    (parse(&comparison.since) && parse(&comparison.until)).then_some(comparison)
}

fn bounds(args: &[String]) -> Bounds {
    let value = |flag: &str| {
        let offset = args.iter().position(|word| word == flag)?;
        args[offset + 1].parse::<u64>().ok()
    };
    Bounds {
        file_bytes: value("--max-file-bytes").unwrap_or(Bounds::DEFAULT.file_bytes),
        file_resources: value("--max-file-resources").unwrap_or(u64::MAX),
    }
}

/// Replaces the shorthand lines of a store file by JSON; other lines and all line ends stay.
fn spelled_out(content: &str) -> Vec<u8> {
    let line = |line: &str| match line.trim_end_matches('\n') {
        short if short.starts_with(|first: char| first.is_ascii_uppercase()) => long(short) + &line[short.len()..],
        _ => line.to_string(),
    };
    content.split_inclusive('\n').map(line).collect::<String>().into_bytes()
}

fn long(short: &str) -> String {
    let words: Vec<&str> = short.split_whitespace().collect();
    let time = |text: &str| (text != "-").then(|| json!({"lastUpdated": text}));
    if words[0] == "DELETE" {
        let entries: Vec<_> =
            words[2..].iter().map(|url| json!({"request": {"method": "DELETE", "url": url}})).collect();
        let mut bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
        if let Some(meta) = time(words[1]) {
            bundle["meta"] = meta;
        }
        return bundle.to_string();
    }
    let (name, id) = words[0].split_once('/').unwrap_or_else(|| panic!("shorthand: {short}"));
    let mut resource = json!({"resourceType": name, "id": id});
    let mut rest = &words[1..];
    if let Some(meta) = rest.first().and_then(|word| time(word)) {
        resource["meta"] = meta;
    }
    rest = rest.get(1..).unwrap_or(&[]);
    if let Some(version) = rest.first().and_then(|word| word.strip_prefix('v')) {
        resource["meta"]["versionId"] = version.into();
        rest = &rest[1..];
    }
    let references: Vec<_> = rest.iter().map(|text| json!({"reference": text})).collect();
    match name {
        _ if references.is_empty() => {}
        "Group" => {
            let members: Vec<_> = references.iter().map(|entity| json!({"entity": entity})).collect();
            resource["type"] = "person".into();
            resource["actual"] = true.into();
            resource["member"] = members.into();
        }
        "Provenance" => resource["target"] = references.into(),
        "Patient" => resource["link"] = references.iter().map(|other| json!({"other": other})).collect(),
        "Device" | "Coverage" => {
            let element = if name == "Device" { "patient" } else { "beneficiary" };
            resource[element] = references[0].clone();
        }
        _ => {
            resource["subject"] = references[0].clone();
            if references.len() > 1 {
                resource["performer"] = references[1..].into();
            }
        }
    }
    resource.to_string()
}
