//! Around an export: `verify`, `--plan`, `--resume`, `--force`, the lock of the directory, `status.json`, file
//! permissions.

use crate::run::{self, Bounds, Export, command, scratch, snapshot, testdata};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const AS_OF: &str = "2025-01-01T00:00:00.000Z";

/// The bundled and hostile stores, each with the arguments of an export.
fn stores() -> Vec<(PathBuf, Vec<String>)> {
    let hostile = |store: &str, group: &str| {
        let group = testdata("hostile").join(group).to_str().unwrap().to_string();
        (
            testdata("hostile").join(store),
            vec!["--group".into(), group, "--fhir-base".into(), "https://fhir.example.org/r4".into()],
        )
    };
    vec![
        (testdata("stores/synthea-r4-100"), vec!["--group".into(), "ten".into()]),
        hostile("store", "Group-edge.json"),
        hostile("compressed", "Group-edge.json"),
        hostile("coverage", "Group-m1.json"),
        hostile("deleted", "Group-edge.json"),
    ]
}

fn export(store: &Path, out: &Path, index: &Path, request: &[String], more: &[&str]) -> run::Run {
    let mut args: Vec<&str> = request.iter().map(String::as_str).collect();
    args.extend(["--as-of", AS_OF, "--index-dir", index.to_str().unwrap()]);
    args.extend(more);
    run::export(store, out, &args)
}

/// `verify --ledger`, which recounts line by line, confirms the ledger of exports of every bundled and hostile store.
#[test]
fn verify_recounts_every_ledger() {
    let scratch = scratch();
    for (number, (store, request)) in stores().into_iter().enumerate() {
        let index = scratch.path().join(format!("index-{number}"));
        for more in [
            &[][..],
            &["--since", "2020-06-15T12:00:00Z"],
            &["--type", "Observation", "--until", "2021-01-01T00:00:00Z"],
        ] {
            let out = scratch.path().join("out");
            let run = export(&store, &out, &index, &request, more);
            assert!(run.code == 0 || run.code == 1, "{run:#?}");
            let verified = run::run(&["verify", out.to_str().unwrap(), "--ledger"]);
            assert_eq!(verified.code, 0, "{store:?} {more:?}: {verified:#?}");
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
}

/// `verify` passes an intact export, and reports every kind of later change.
#[test]
fn verify_finds_what_was_changed() {
    let scratch = scratch();
    let (store, request) = stores().remove(0);
    let out = scratch.path().join("out");
    assert_eq!(export(&store, &out, &scratch.path().join("index"), &request, &[]).code, 0);
    let verify = || run::run(&["verify", out.to_str().unwrap()]);
    assert_eq!(verify().code, 0);
    let file = out.join("Patient.00001.ndjson");
    let original = std::fs::read(&file).unwrap();
    let mut flipped = original.clone();
    flipped[100] ^= 1;
    for changed in [flipped, original[..original.len() - 1].to_vec(), [&original[..], b"{}\n"].concat()] {
        std::fs::write(&file, changed).unwrap();
        let run = verify();
        assert_eq!(run.code, 1, "{run:#?}");
        assert!((run.stdout + &run.stderr).contains("Patient.00001.ndjson"));
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(verify().code, 1);
    std::fs::write(&file, original).unwrap();
    assert_eq!(verify().code, 0);
}

/// `verify` of a store passes if its index matches, and reports the difference if not.
#[test]
fn verify_compares_an_index_with_its_store() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    crate::fixture::plain_store(&store, &["Patient", "Condition"], 1);
    let indexed = run::run(&["index", "--store", store.to_str().unwrap()]);
    assert_eq!(indexed.code, 0, "{indexed:#?}");
    let verified = run::run(&["verify", store.to_str().unwrap()]);
    assert_eq!(verified.code, 0, "{verified:#?}");
}

/// `--plan` names the rows, bytes and files of the real run for each type, and writes nothing.
#[test]
fn a_plan_is_the_run_without_writing() {
    let scratch = scratch();
    for (number, (store, request)) in stores().into_iter().enumerate() {
        let (out, index) =
            (scratch.path().join(format!("out-{number}")), scratch.path().join(format!("index-{number}")));
        let more = ["--max-file-bytes", "40kB", "--since", "2015-01-01"];
        let run = export(&store, &out, &index, &request, &[&more[..], &["--plan", "--json"]].concat());
        assert!(run.code == 0 || run.code == 1, "{run:#?}");
        assert!(!out.exists() && !index.exists(), "--plan writes nothing");
        let plan: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}", run.stdout));
        export(&store, &out, &index, &request, &more);
        let real = Export::read(&out, Bounds { file_bytes: 40_000, ..Bounds::DEFAULT });
        for (name, lines) in real.lines() {
            let planned = find(&plan, &name).unwrap_or_else(|| panic!("the plan has no {name}: {plan}"));
            let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
            let files = real.output.iter().filter(|file| file.resource_type == name).count();
            let found = [&planned["rows"], &planned["bytes"], &planned["files"]].map(Value::as_u64);
            assert_eq!(found, [lines.len(), bytes, files].map(|count| Some(count as u64)), "{name}");
        }
    }
}

/// The totals of the type `name`, at any depth of a document.
fn find<'a>(document: &'a Value, name: &str) -> Option<&'a Value> {
    match document {
        Value::Object(fields) => fields
            .get(name)
            .filter(|totals| totals.get("rows").is_some())
            .or_else(|| fields.get("type").filter(|one| *one == name && fields.contains_key("rows")).map(|_| document))
            .or_else(|| fields.values().find_map(|value| find(value, name))),
        Value::Array(items) => items.iter().find_map(|item| find(item, name)),
        _ => None,
    }
}

/// A directory that holds an export is refused; `--force` removes the files that its journal lists, and no others.
#[test]
fn force_removes_only_what_the_record_lists() {
    let scratch = scratch();
    let (store, request) = stores().remove(0);
    let (out, index) = (scratch.path().join("out"), scratch.path().join("index"));
    assert_eq!(export(&store, &out, &index, &request, &["--max-file-bytes", "100kB"]).code, 0);
    std::fs::write(out.join("foreign.txt"), "mine").unwrap();
    std::fs::write(out.join("foreign.00001.ndjson"), "mine, too").unwrap();
    let before = snapshot(&out);
    export(&store, &out, &index, &request, &["--type", "Patient"]).refused(2, &["--force"]);
    assert!(snapshot(&out) == before, "a refused run changes nothing");
    assert_eq!(export(&store, &out, &index, &request, &["--type", "Patient", "--force"]).code, 0);
    let after = Export::read(&out, Bounds::DEFAULT);
    assert_eq!(after.lines().keys().collect::<Vec<_>>(), ["Patient"]);
    assert_eq!(std::fs::read(out.join("foreign.txt")).unwrap(), b"mine");
    assert_eq!(std::fs::read(out.join("foreign.00001.ndjson")).unwrap(), b"mine, too");
}

/// If a new export cannot be planned, the old one and its journal stay complete: for an unknown Group, too many faults,
/// an unreadable store, and a foreign file in the way.
#[test]
fn a_refused_force_leaves_the_old_export_whole() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    crate::fixture::plain_store(&store, &["Patient", "Condition"], 1);
    let (out, index) = (scratch.path().join("out"), scratch.path().join("index"));
    let all = ["--all-patients".to_string()];
    assert_eq!(export(&store, &out, &index, &all, &["--type", "Condition"]).code, 0);
    std::fs::write(store.join("broken.ndjson"), "{\n").unwrap();
    std::fs::write(out.join("Patient.00001.ndjson"), "mine").unwrap();
    let record = |name: &str| std::fs::read(out.join(".outpour-job").join(name)).unwrap();
    let before = (snapshot(&out), record("plan.json"), record("receipts.jsonlog"));
    let other = scratch.path().join("no-store");
    for (store, request, more, code) in [
        (&store, ["--group", "nobody"], &[][..], 2),
        (&store, ["--group", "no-such-file.json"], &[], 2),
        (&store, ["--type", "Condition"], &["--all-patients", "--faults-allowed", "0"], 3),
        (&store, ["--type", "Patient"], &["--all-patients"], 2),
        (&other, ["--type", "Condition"], &["--all-patients"], 2),
    ] {
        let run = export(store, &out, &index, &request.map(String::from), &[more, &["--force"]].concat());
        assert_eq!(run.code, code, "{request:?} {run:#?}");
        assert!((snapshot(&out), record("plan.json"), record("receipts.jsonlog")) == before, "{request:?}");
        // A run that failed says why there, and a later one that is refused leaves that.
        let next = std::fs::read_dir(out.join(".outpour-job/next")).into_iter().flatten();
        let next: Vec<_> = next.map(|entry| entry.unwrap().file_name()).collect();
        assert!(next.is_empty() || next == ["status.json"] && (code == 3 || request[1] != "nobody"), "{next:?}");
    }
    std::fs::remove_file(out.join("Patient.00001.ndjson")).unwrap();
    assert_eq!(export(&store, &out, &index, &all, &["--force"]).code, 1);
    Export::read(&out, Bounds::DEFAULT);
}

/// During a replacement `verify` and `inspect` read the old export, and `inspect` shows the new one, too.
#[test]
fn an_export_that_is_being_replaced_is_verified_and_inspected() {
    let scratch = scratch();
    let (store, request) = stores().remove(0);
    let (out, index) = (scratch.path().join("out"), scratch.path().join("index"));
    assert_eq!(export(&store, &out, &index, &request, &["--type", "Patient"]).code, 0);
    let before = snapshot(&out);
    let mut args = vec!["export", "--store", store.to_str().unwrap(), "--out", out.to_str().unwrap()];
    args.extend(request.iter().map(String::as_str));
    args.extend(["--as-of", AS_OF, "--index-dir", index.to_str().unwrap(), "--progress", "never", "--force"]);
    let mut command = command();
    command.args(&args);
    // The new export stops halfway, because of a limit on the size of files.
    crate::disk::limit_files(&mut command, 100_000);
    run::finish(&mut command).refused(3, &["--resume"]);
    assert!(snapshot(&out) == before, "the old export is whole");
    let verified = run::run(&["verify", out.to_str().unwrap(), "--ledger"]);
    assert_eq!(verified.code, 0, "{verified:#?}");
    // The report mentions the replacement, and counts the files of the old export only.
    assert!(verified.said().contains("under way in .outpour-job/next"), "{verified:#?}");
    assert!(verified.said().contains("Patient") && !verified.said().contains("Observation"), "{verified:#?}");
    let inspected = run::run(&["inspect", out.to_str().unwrap()]);
    assert_eq!(inspected.code, 0, "{inspected:#?}");
    for shown in ["Patient.00001.ndjson", "Observation.00001.ndjson", "Failed", "Successful"] {
        assert!((inspected.stdout.clone() + &inspected.stderr).contains(shown), "{shown}: {inspected:#?}");
    }
    for more in [&[][..], &["--type", "Patient", "--resume"]] {
        export(&store, &out, &index, &request, more).refused(2, &["--force"]);
        assert!(snapshot(&out) == before, "{more:?}");
    }
    assert_eq!(export(&store, &out, &index, &request, &["--resume"]).code, 0);
    let after = Export::read(&out, Bounds::DEFAULT);
    assert!(after.lines().len() > 5 && !out.join(".outpour-job/next").exists());
    assert_eq!(run::run(&["verify", out.to_str().unwrap(), "--ledger"]).code, 0);
}

/// A directory with foreign files is refused, also with `--force`.
#[test]
fn foreign_files_are_left_alone() {
    let scratch = scratch();
    let (store, request) = stores().remove(0);
    let out = scratch.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("Patient.00001.ndjson"), "mine").unwrap();
    for more in [&[][..], &["--force"], &["--resume"]] {
        let run = export(&store, &out, &scratch.path().join("index"), &request, more);
        assert_eq!(std::fs::read(out.join("Patient.00001.ndjson")).unwrap(), b"mine", "{more:?}: {run:#?}");
        assert!(run.code == 2 || run.code == 3, "{more:?}: {run:#?}");
        run.refused(run.code, &[out.to_str().unwrap()]);
        assert!(!out.join("manifest.json").exists());
    }
}

/// A second export into a directory is refused while the first runs, and the first one completes.
#[test]
fn a_second_run_into_the_directory_is_refused() {
    let scratch = scratch();
    let (store, request) = stores().remove(0);
    let (out, index) = (scratch.path().join("out"), scratch.path().join("index"));
    assert_eq!(export(&store, &scratch.path().join("warm"), &index, &request, &[]).code, 0);
    let mut args = vec!["export", "--store", store.to_str().unwrap(), "--out", out.to_str().unwrap(), "--all-patients"];
    args.extend(["--as-of", AS_OF, "--index-dir", index.to_str().unwrap(), "--threads", "1", "--progress", "never"]);
    let mut first = command().args(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !out.join(".outpour-job/plan.json").exists() {
        assert!(first.try_wait().unwrap().is_none(), "the first run ended before it could be held");
        std::thread::yield_now();
    }
    let signal = |signal: libc::c_int| {
        // SAFETY: the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(first.id() as libc::pid_t, signal) }, 0);
    };
    signal(libc::SIGSTOP);
    for more in [&[][..], &["--force"], &["--resume"]] {
        let second = export(&store, &out, &index, &["--all-patients".into()], more);
        assert!(second.code == 2 || second.code == 3, "{second:#?}");
        assert!(second.said().contains(out.to_str().unwrap()), "{second:#?}");
    }
    signal(libc::SIGCONT);
    assert!(first.wait().unwrap().success());
    Export::read(&out, Bounds::DEFAULT);
}

/// `status.json` has the final state of an export (ONEUP-S12…S17).
#[test]
fn status_reports_the_end() {
    let scratch = scratch();
    let (store, request) = stores().remove(0);
    let out = scratch.path().join("out");
    assert_eq!(export(&store, &out, &scratch.path().join("index"), &request, &["--max-file-bytes", "100kB"]).code, 0);
    let real = Export::read(&out, Bounds { file_bytes: 100_000, ..Bounds::DEFAULT });
    let status: Value = serde_json::from_slice(&std::fs::read(out.join("status.json")).unwrap()).unwrap();
    assert_eq!(status["status"], "Successful");
    assert_eq!(status["requiresAccessToken"], false);
    let rows: usize = real.output.iter().map(|file| file.lines.len()).sum();
    assert_eq!(status["resourceCount"].as_u64(), Some(rows as u64));
    let shards = real.output.len() as u64;
    assert_eq!(status["batches"]["total"].as_u64(), Some(shards));
    assert_eq!(status["batches"]["complete"].as_u64(), Some(shards));
    assert_eq!(status["batches"]["running"].as_u64(), Some(0));
    assert_eq!(status["batches"]["failed"].as_u64(), Some(0));
    for item in status["output"].as_array().unwrap() {
        assert!(item["type"].is_string() && item["url"].as_str().unwrap().contains("://"));
    }
}

/// The index and the files of the export journal are readable by their owner only: they hold patient ids.
#[test]
fn index_and_job_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch();
    let (store, request) = stores().remove(0);
    let index = scratch.path().join("index");
    assert_eq!(export(&store, &scratch.path().join("out"), &index, &request, &[]).code, 0);
    let mut dirs = vec![index];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            } else {
                assert_eq!(mode, 0o600, "{:?}", entry.path());
            }
        }
    }
}

/// Every path below a directory, hidden ones included: bytes (empty for a directory) and time of the last change.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(path) = left.pop() {
        let modified = path.metadata().unwrap().modified().unwrap();
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            found.insert(path, (Vec::new(), modified));
        } else {
            found.insert(path.clone(), (std::fs::read(&path).unwrap(), modified));
        }
    }
    found
}

/// Runs a command, and asserts that it changes nothing below a directory.
#[track_caller]
fn looks_only(dir: &Path, words: &[&str]) -> run::Run {
    let before = tree(dir);
    let run = run::run(words);
    assert!(tree(dir) == before, "{words:?} writes: {run:#?}");
    run
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `verify`, `--plan` and `group check` write nothing, whether the index is missing, up to date, out of date or
/// damaged.
#[test]
fn read_only_commands_write_nothing() {
    let scratch = scratch();
    let (store, directory) = (scratch.path().join("store"), scratch.path());
    crate::fixture::plain_store(&store, &["Patient", "Condition"], 1);
    let group = testdata("groups/synthea-r4-100/Group-ten.json");
    let verify = || looks_only(directory, &["verify", word(&store)]);
    let others = || {
        let plan = ["export", "--store", word(&store), "--all-patients", "--plan", "--progress", "never"];
        assert_eq!(looks_only(directory, &plan).code, 0);
        assert_eq!(looks_only(directory, &["group", "check", word(&group), "--store", word(&store)]).code, 0);
    };
    // 1. A store without an index.
    let run = verify();
    assert!(run.code == 0 && run.said().contains("has no index"), "{run:#?}");
    others();
    assert!(!store.join(".outpour").exists());
    // 2. An index that is up to date.
    assert_eq!(run::run(&["index", "--store", word(&store)]).code, 0);
    assert_eq!(verify().code, 0);
    others();
    // 3. An index that is out of date.
    std::fs::write(store.join("late.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"late\"}\n").unwrap();
    let run = verify();
    assert!(run.code == 0 && run.said().contains("behind the store: 39 bytes"), "{run:#?}");
    others();
    // 4. A damaged index.
    assert_eq!(run::run(&["index", "--store", word(&store)]).code, 0);
    let container = std::fs::read_dir(store.join(".outpour")).unwrap().map(|entry| entry.unwrap().path());
    let container = container.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("extents-")).min();
    let container = container.unwrap();
    let mut bytes = std::fs::read(&container).unwrap();
    let i = bytes.len() - 100;
    bytes[i] ^= 1;
    std::fs::write(&container, bytes).unwrap();
    for _ in 0..2 {
        let run = verify();
        assert!(run.code == 1 && run.said().contains("outpour index --recheck"), "{run:#?}");
    }
    others();
    assert_eq!(run::run(&["index", "--store", word(&store), "--recheck"]).code, 0);
    assert_eq!(verify().code, 0);
}

/// A plan counts late rows as the export after it does, although it does not record them as seen.
#[test]
fn a_plan_counts_late_rows() {
    let scratch = scratch();
    let (store, index) = (scratch.path().join("store"), scratch.path().join("index"));
    std::fs::create_dir(&store).unwrap();
    let row = |id: &str| {
        format!(
            "{{\"resourceType\":\"Patient\",\"id\":\"{id}\",\"meta\":{{\"lastUpdated\":\"2020-01-01T00:00:00Z\"}}}}\n"
        )
    };
    std::fs::write(store.join("a.ndjson"), row("a")).unwrap();
    let run = |out: &str, more: &[&str]| {
        let out = scratch.path().join(out);
        run::export(&store, &out, &[&["--all-patients", "--index-dir", word(&index)], more].concat())
    };
    assert_eq!(run("first", &["--as-of", "2024-01-01T00:00:00Z"]).code, 0);
    std::fs::write(store.join("b.ndjson"), row("b")).unwrap();
    let more = ["--as-of", "2024-01-02T00:00:00Z", "--since", "2024-01-01T00:00:00Z", "--json"];
    for _ in 0..2 {
        let plan = run("second", &[&more[..], &["--plan"]].concat());
        let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
        assert_eq!(plan["rows"].as_u64(), Some(1), "{plan}");
    }
    assert_eq!(run("second", &more).code, 0);
    let real = Export::read(&scratch.path().join("second"), Bounds::DEFAULT);
    assert_eq!(real.lines()["Patient"], [row("b").trim_end().as_bytes()]);
}

/// `verify` of an export without a manifest reports how many of its files are finished, for all remains of a killed run
/// or an incomplete copy.
#[test]
fn verify_reports_an_unfinished_export() {
    let scratch = scratch();
    let (store, request) = stores().remove(0);
    let out = scratch.path().join("out");
    assert_eq!(export(&store, &out, &scratch.path().join("index"), &request, &["--max-file-bytes", "100kB"]).code, 0);
    let record = out.join(".outpour-job");
    let plan: Value = serde_json::from_slice(&std::fs::read(record.join("plan.json")).unwrap()).unwrap();
    let planned = plan["files"].as_array().unwrap().len();
    assert!(planned > 5);
    let reported = |needles: &[&str]| {
        for more in [&[][..], &["--ledger"]] {
            let run = looks_only(&out, &[&["verify", word(&out), "--json"], more].concat());
            run.refused(1, needles);
            let document: Value = serde_json::from_str(&run.stdout).unwrap();
            assert_eq!((&document["exitCode"], &document["holds"]), (&1.into(), &false.into()), "{document}");
            assert!(document["unfinished"]["finished"].is_u64(), "{document}");
        }
    };
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    reported(&[&format!("incomplete, {planned} of {planned} files"), AS_OF, "--resume", "Successful"]);
    // A file without a receipt is not finished, nor one with a receipt that is missing or has another size.
    let done = std::fs::read_to_string(record.join("receipts.jsonlog")).unwrap();
    let lines: Vec<&str> = done.lines().collect();
    assert_eq!(lines.len(), planned);
    let (kept, torn) = (lines[..4].join("\n") + "\n", &lines[4][..20]);
    std::fs::write(record.join("receipts.jsonlog"), kept + torn).unwrap();
    reported(&[&format!("incomplete, 4 of {planned} files")]);
    let name = |line: &str| serde_json::from_str::<Value>(line).unwrap()["file"].as_str().unwrap().to_string();
    std::fs::remove_file(out.join(name(lines[0]))).unwrap();
    std::fs::write(out.join(name(lines[1])), "x").unwrap();
    reported(&[&format!("incomplete, 2 of {planned} files")]);
    std::fs::remove_file(record.join("receipts.jsonlog")).unwrap();
    reported(&[&format!("incomplete, 0 of {planned} files")]);
    // Without the plan the total comes from the status; without the status an export is recognised by its file names.
    std::fs::remove_file(record.join("plan.json")).unwrap();
    reported(&["incomplete, ", "of ", "files", "--force"]);
    std::fs::remove_dir_all(&record).unwrap();
    reported(&["incomplete, ", "files", "copy the whole export again"]);
    std::fs::remove_file(out.join("status.json")).unwrap();
    reported(&["incomplete, ", "of an unknown number of files", "Copy the whole export again"]);
    // A run killed before it wrote its plan.
    std::fs::remove_dir_all(&out).unwrap();
    std::fs::create_dir_all(&record).unwrap();
    std::fs::write(record.join("lock"), "").unwrap();
    reported(&["incomplete, 0 of an unknown number of files"]);
}

/// During a replacement `verify` checks the old export; once its manifest is removed, the new one is reported as
/// unfinished.
#[test]
fn verify_of_an_export_that_is_being_replaced() {
    let scratch = scratch();
    let (store, request) = stores().remove(0);
    let (out, index) = (scratch.path().join("out"), scratch.path().join("index"));
    assert_eq!(export(&store, &out, &index, &request, &[]).code, 0);
    let other = scratch.path().join("other");
    assert_eq!(export(&store, &other, &index, &request, &["--type", "Patient,Condition"]).code, 0);
    let next = out.join(".outpour-job/next");
    std::fs::create_dir(&next).unwrap();
    for name in ["plan.json", "receipts.jsonlog"] {
        std::fs::copy(other.join(".outpour-job").join(name), next.join(name)).unwrap();
    }
    std::fs::copy(other.join("Patient.00001.ndjson"), next.join("Patient.00001.ndjson")).unwrap();
    for more in [&[][..], &["--ledger"]] {
        let run = looks_only(&out, &[&["verify", word(&out), "--json"], more].concat());
        assert!(run.code == 0 && run.said().contains(".outpour-job/next"), "{run:#?}");
        let document: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(document["export"]["isBeingReplaced"], true, "{document}");
    }
    let plan: Value = serde_json::from_slice(&std::fs::read(next.join("plan.json")).unwrap()).unwrap();
    let planned = plan["files"].as_array().unwrap().len();
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    let run = looks_only(&out, &["verify", word(&out)]);
    run.refused(1, &[&format!("of {planned} files"), "--resume"]);
    assert!(!run.said().contains("incomplete, 0"), "{run:#?}");
}

/// A directory that is neither an export nor a store is refused, and the error names the files that were looked for.
#[test]
fn verify_refuses_other_directories() {
    let scratch = scratch();
    let directory = scratch.path().join("place");
    std::fs::create_dir_all(directory.join("below")).unwrap();
    let verify = |path: &Path| looks_only(&directory, &["verify", word(path)]);
    let looked_for = ["neither an export nor a store", "manifest.json", ".outpour-job", "status.json", ".ndjson"];
    verify(&directory).refused(2, &looked_for);
    std::fs::write(directory.join("notes.txt"), "x").unwrap();
    std::fs::write(directory.join("status.json"), "{\"status\":\"of another system\"}").unwrap();
    verify(&directory).refused(2, &looked_for);
    verify(&directory.join("notes.txt")).refused(2, &["is no directory"]);
    verify(&directory.join("nothing")).refused(2, &["is not there"]);
    std::fs::write(directory.join("below/a.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    assert_eq!(verify(&directory).code, 0);
    assert_eq!(run::run(&["index", "--store", word(&directory)]).code, 0);
    verify(&directory.join(".outpour")).refused(2, &["is an index", "--index-dir"]);
    // Files with names of an export's output count as a store if there is an index.
    std::fs::remove_dir_all(directory.join("below")).unwrap();
    std::fs::write(directory.join("Patient.00001.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    assert_eq!(verify(&directory).code, 0);
    std::fs::remove_dir_all(directory.join(".outpour")).unwrap();
    verify(&directory).refused(1, &["incomplete, 1 of an unknown number of files", "outpour index"]);
    let index = scratch.path().join("index");
    assert_eq!(looks_only(&directory, &["verify", word(&directory), "--index-dir", word(&index)]).code, 0);
    assert!(!index.exists());
}

/// A list without patients is refused, and with `--allow-empty` exported as an empty Group is.
#[test]
fn an_empty_patient_list_is_refused() {
    let scratch = scratch();
    let (store, _) = stores().remove(0);
    let index = scratch.path().join("index");
    let list = scratch.path().join("list");
    let base = ["--index-dir", word(&index), "--as-of", AS_OF];
    let run = |out: &str, patients: &str, more: &[&str]| {
        let out = scratch.path().join(out);
        run::export(&store, &out, &[&base[..], &["--patients", patients], more].concat())
    };
    for empty in ["", "\n", " \t\r\n\n"] {
        std::fs::write(&list, empty).unwrap();
        for more in [&[][..], &["--plan"], &["--resume"]] {
            // Standard input of the binary is empty here.
            for patients in [word(&list), "-", "/dev/null"] {
                let words = ["--patients", "names nobody", "--allow-empty"];
                run("out", patients, more).refused(2, &words);
                assert!(!scratch.path().join("out").exists(), "nothing is left: {more:?} {patients}");
            }
        }
    }
    let group = scratch.path().join("empty.json");
    std::fs::write(&group, r#"{"resourceType":"Group","id":"empty","type":"person","actual":true}"#).unwrap();
    let of_group = scratch.path().join("of-group");
    assert_eq!(run::export(&store, &of_group, &[&base[..], &["--group", word(&group)]].concat()).code, 0);
    for (number, patients) in [word(&list), "-"].iter().enumerate() {
        let name = format!("allowed-{number}");
        assert_eq!(run(&name, patients, &["--allow-empty"]).code, 0);
        let out = scratch.path().join(&name);
        let (found, expected) = (Export::read(&out, Bounds::DEFAULT), Export::read(&of_group, Bounds::DEFAULT));
        assert!(found.output.is_empty() && found.deleted.is_empty());
        assert_eq!(found.ledger(), expected.ledger(), "as an empty Group");
        assert_eq!(run::run(&["verify", word(&out)]).code, 0);
        // A resume needs the same arguments.
        std::fs::remove_file(out.join("manifest.json")).unwrap();
        run(&name, patients, &["--resume"]).refused(2, &["--allow-empty"]);
        assert_eq!(run(&name, patients, &["--resume", "--allow-empty"]).code, 0);
        Export::read(&out, Bounds::DEFAULT);
    }
    let recounted = run::run(&["verify", word(&scratch.path().join("allowed-0")), "--ledger"]);
    assert_eq!(recounted.code, 0, "{recounted:#?}");
    // A list of unknown ids is not empty, and the flag has no effect on it.
    std::fs::write(&list, "nobody-of-this-id\n").unwrap();
    let plan = |out: &str| -> Value {
        let path = scratch.path().join(out).join(".outpour-job/plan.json");
        serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()["job"]["planId"].clone()
    };
    assert_eq!((run("named", word(&list), &[]).code, run("same", word(&list), &["--allow-empty"]).code), (0, 0));
    assert_eq!(plan("named"), plan("same"));
    let messages = Export::read(&scratch.path().join("named"), Bounds::DEFAULT).messages();
    assert!(messages.iter().any(|message| message.text.contains("nobody-of-this-id")));
    let none = scratch.path().join("none");
    run::export(&store, &none, &[&base[..], &["--all-patients", "--allow-empty"]].concat()).refused(2, &["--patients"]);
}
