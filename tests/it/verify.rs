//! `verify`, `--plan`, `--resume`, `--force`, the lock and `status.json`: what surrounds an export.

use crate::run::{self, Bounds, Export, command, scratch, snapshot, testdata};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const AS_OF: &str = "2025-01-01T00:00:00.000Z";

/// A bundled store, and a request for it.
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

/// The ledger recounted line by line agrees on every bundled and hostile store, for several requests.
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

/// An export that was touched afterwards is told from one that was not.
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

/// A store and its index: equal, and told when they are not.
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
        assert!(!out.exists(), "--plan writes nothing");
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

/// The totals of a type, wherever they stand in a document.
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

/// A directory that holds an export is refused; `--force` removes what its record lists, and touches nothing else.
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

/// Whatever keeps a new export from being planned, the old one is whole, and its record: a Group that is not there, more
/// faults than allowed, a store that cannot be read, a foreign file in the way.
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
    let before = (snapshot(&out), record("plan.json"), record("done.ndjson"));
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
        assert!((snapshot(&out), record("plan.json"), record("done.ndjson")) == before, "{request:?}");
        assert!(!out.join(".outpour-job/next").exists(), "{request:?}");
    }
    std::fs::remove_file(out.join("Patient.00001.ndjson")).unwrap();
    assert_eq!(export(&store, &out, &index, &all, &["--force"]).code, 1);
    Export::read(&out, Bounds::DEFAULT);
}

/// `verify` and `inspect` look at the export that stands, and `inspect` shows what is to replace it, too.
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
    // It stops in the middle: files may not be as large as its own.
    crate::disk::limit_files(&mut command, 100_000);
    run::finish(&mut command).refused(3, &["--resume"]);
    assert!(snapshot(&out) == before, "the old export is whole");
    let verified = run::run(&["verify", out.to_str().unwrap(), "--ledger"]);
    assert_eq!(verified.code, 0, "{verified:#?}");
    assert!(verified.stderr.contains("Patient") && !verified.stderr.contains("next"), "{verified:#?}");
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

/// A directory with files of somebody else's only is never overwritten.
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

/// Two runs into one directory: the second is refused while the first runs, and the first ends well.
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
        assert!(second.stderr.contains(out.to_str().unwrap()), "{second:#?}");
    }
    signal(libc::SIGCONT);
    assert!(first.wait().unwrap().success());
    Export::read(&out, Bounds::DEFAULT);
}

/// The last state of `status.json` (ONEUP-S12…S17).
#[test]
fn status_tells_the_end() {
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

/// The index and the job's files are nobody else's to read (they hold patient ids).
#[test]
fn files_of_ours_are_private() {
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
