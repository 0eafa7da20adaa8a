//! Jobs in tasks by their commands: what they come to is what one `outpour export` writes; exit codes; the life of a task.

use crate::fixture::plain_store;
use crate::run::{self, command, scratch, testdata};
use crate::store_forms;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const AS_OF: &str = "2026-01-01T00:00:00Z";

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A file of a manifest: type, count, facts and bytes.
type PublishedFile = (String, Value, Value, Vec<u8>);

/// The files that a manifest lists, and what it says beside.
fn published(directory: &Path) -> (Vec<PublishedFile>, Value) {
    let mut manifest = json(&directory.join("manifest.json"));
    let prefix = format!("file://{}/", directory.canonicalize().unwrap().display());
    let mut files = Vec::new();
    for list in ["output", "deleted", "error"] {
        for item in manifest[list].as_array().into_iter().flatten() {
            let name = item["url"].as_str().unwrap().strip_prefix(&prefix).unwrap().to_string();
            let bytes = std::fs::read(directory.join(name)).unwrap();
            files.push((item["type"].to_string(), item["count"].clone(), item["extension"].clone(), bytes));
        }
        manifest.as_object_mut().unwrap().remove(list);
    }
    (files, manifest)
}

/// Plans a job.
fn plan(store: &Path, job: &Path, more: &[&str]) -> run::Run {
    let mut args = vec!["plan", "--store", store.to_str().unwrap(), "--job", job.to_str().unwrap(), "--as-of", AS_OF];
    args.extend(more);
    run::run(&args)
}

/// The command of a task without its number.
fn task(store: &Path, job: &Path) -> Command {
    let mut command = command();
    command.args(["run-task", "--store", store.to_str().unwrap(), "--job", job.to_str().unwrap()]);
    command
}

fn commit(job: &Path) -> run::Run {
    run::run(&["commit", "--job", job.to_str().unwrap()])
}

/// Stores of every form, requests and codings: the files of a job, run by three workers at once that are told their task as the
/// launchers of task arrays tell it, have the bytes of one machine's.
#[test]
fn a_job_has_the_files_of_an_export() {
    let scratch = scratch();
    let plain = scratch.path().join("plain");
    plain_store(&plain, &["Patient", "Condition", "Encounter", "Procedure"], 1);
    let (zstd, gzip, mixed) = ("zstd", "gzip", scratch.path().join("mixed"));
    store_forms::packed_in(zstd, &plain, &scratch.path().join(zstd), AS_OF);
    store_forms::packed_in(gzip, &plain, &scratch.path().join(gzip), AS_OF);
    store_forms::mixed(&plain, &mixed, AS_OF);
    let list = scratch.path().join("some.txt");
    let ids: Vec<String> = std::fs::read_to_string(plain.join("Patient.ndjson"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_string())
        .collect();
    std::fs::write(&list, ids.iter().step_by(9).map(|id| format!("{id}\n")).collect::<String>()).unwrap();
    let some = ["--patients", list.to_str().unwrap(), "--max-file-bytes", "400kB"];
    let cases: [(&Path, &[&str], &[&str]); 7] = [
        (&plain, &["--all-patients"], &["--max-file-resources", "700"]),
        (&plain, &some, &["--compress", "gzip"]),
        (&plain, &["--system"], &["--elements", "id,Procedure.code", "--compress", "zstd"]),
        (&scratch.path().join(zstd), &["--all-patients"], &["--compress", "zstd", "--max-file-bytes", "500kB"]),
        (&scratch.path().join(gzip), &some, &["--compress", "gzip"]),
        (&scratch.path().join(gzip), &["--system"], &["--since", "2015-01-01"]),
        (&mixed, &some, &["--compress", "zstd"]),
    ];
    for (number, (store, whose, how)) in cases.into_iter().enumerate() {
        let (out, job) = (scratch.path().join(format!("out{number}")), scratch.path().join(format!("job{number}")));
        let args: Vec<&str> = whose.iter().chain(how).copied().collect();
        let exported = run::export(store, &out, &[&args[..], &["--as-of", AS_OF]].concat());
        let tasks = [1, 3, 8][number % 3];
        let planned = plan(store, &job, &[&args[..], &["--tasks", &tasks.to_string(), "--json", "--no-sync"]].concat());
        assert_eq!((exported.code, planned.code), (planned.code, exported.code), "{planned:#?}");
        let document: Value = serde_json::from_str(&planned.stdout).unwrap();
        assert_eq!(document["tasks"].as_array().unwrap().len(), tasks);
        std::thread::scope(|scope| {
            for (worker, variable) in
                ["JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID", "AWS_BATCH_JOB_ARRAY_INDEX"].into_iter().enumerate()
            {
                let job = &job;
                scope.spawn(move || {
                    for number in (worker..tasks).step_by(3) {
                        let mut task = task(store, job);
                        let run = run::finish(task.env(variable, number.to_string()).args(["--no-sync", "--json"]));
                        assert_eq!(run.code, 0, "{run:#?}");
                        let record: Value = serde_json::from_str(&run.stdout).unwrap();
                        assert_eq!(
                            (record["status"].as_str(), record["task"].as_u64()),
                            (Some("complete"), Some(number as u64))
                        );
                    }
                });
            }
        });
        assert_eq!(commit(&job).code, 0);
        let (expected, found) = (published(&out), published(&job));
        assert!(expected == found, "case {number}: {:#?} {:#?}", expected.1, found.1);
        assert!(expected.0.len() > 2, "case {number} compares {} files", expected.0.len());
        let verified = run::run(&["verify", job.to_str().unwrap()]);
        assert_eq!(verified.code, 0, "{verified:#?}");
        let taken = scratch.path().join(format!("taken{number}"));
        std::fs::create_dir(&taken).unwrap();
        let imported = run::run(&["import", job.to_str().unwrap(), "--store", taken.to_str().unwrap(), "--no-sync"]);
        assert_eq!(imported.code, 0, "{imported:#?}");
        let inspected = run::run(&["inspect", job.to_str().unwrap()]);
        assert!(inspected.code == 0 && inspected.stdout.contains("Nothing is broken"), "{inspected:#?}");
    }
}

/// A small store, and a job of it that is planned.
fn small_job(scratch: &Path, tasks: &str) -> (PathBuf, PathBuf) {
    let (store, job) = (scratch.join("store"), scratch.join("job"));
    plain_store(&store, &["Patient", "Condition"], 1);
    let planned = plan(&store, &job, &["--all-patients", "--tasks", tasks]);
    assert_eq!(planned.code, 0, "{planned:#?}");
    (store, job)
}

/// Each exit code, with a message that says what to do.
#[test]
fn exit_codes_say_whether_to_try_again() {
    let scratch = scratch();
    let (store, job) = small_job(scratch.path(), "2");
    let run_task = |more: &[&str]| run::finish(task(&store, &job).args(more));
    // 64: arguments, numbers, the directory, the store.
    run_task(&[]).refused(64, &["--task: give the number", "SLURM_ARRAY_TASK_ID"]);
    run_task(&["--taks", "1"]).refused(64, &["--taks"]);
    run_task(&["--task", "2"]).refused(64, &["task 2 is none of the plan's, which are 0 to 1"]);
    run_task(&["--task", "0", "--attempt", "a/b"]).refused(64, &["--attempt: ", "letters, digits"]);
    std::fs::create_dir(job.join("tasks/1.json")).unwrap();
    run_task(&["--task", "1"]).refused(64, &["is not of a job's making"]);
    std::fs::remove_dir(job.join("tasks/1.json")).unwrap();
    run_task(&["--task", "0", "--threads", "0"]).refused(64, &["--threads"]);
    let both = run::finish(task(&store, &job).env("SLURM_ARRAY_TASK_ID", "0").env("JOB_COMPLETION_INDEX", "1"));
    both.refused(64, &["are both set: give --task"]);
    run::finish(task(&store, &job).env("SLURM_ARRAY_TASK_ID", "x")).refused(64, &["SLURM_ARRAY_TASK_ID is no number"]);
    run::finish(task(&job, &job).args(["--task", "0"])).refused(64, &["not the one that the plan names"]);
    run::finish(task(&store, &store).args(["--task", "0"])).refused(64, &["plan first"]);
    run::run(&["commit"]).refused(64, &["--job"]);
    plan(&store, &job, &["--all-patients"]).refused(2, &["--job: ", "holds a job in tasks", "choose another one"]);
    plan(&store, &store.join("inside"), &["--all-patients"]).refused(2, &["--job"]);
    // 75: not all tasks have ended. 74: there is no room; nothing is left of the attempt.
    assert_eq!(run_task(&["--task", "0"]).code, 0);
    commit(&job).refused(75, &["1 of 2 tasks has not ended: 1;"]);
    let mut limited = task(&store, &job);
    crate::disk::limit_files(&mut limited, 1000);
    run::finish(limited.args(["--task", "1"])).refused(74, &["run it once more"]);
    let left = run::snapshot(&job.join("data"));
    assert!(left.keys().all(|name| !name.contains(".part")), "{:?}", left.keys());
    // 65: a store file is another one.
    for name in ["Patient.ndjson", "Condition.ndjson"] {
        let bytes = std::fs::read(store.join(name)).unwrap();
        std::fs::write(store.join(name), bytes).unwrap();
    }
    let changed = [run_task(&["--task", "0"]), run_task(&["--task", "1"])];
    // The first has its record and reads nothing.
    assert_eq!(changed[0].code, 0, "{changed:#?}");
    changed[1].refused(65, &["is not what it was when the plan was made; make a new plan"]);
}

/// A commit that is interrupted while it waits to clean up has published all the same, and ends with 130.
#[test]
fn an_interrupted_commit_has_published() {
    let scratch = scratch();
    let (store, job) = small_job(scratch.path(), "1");
    assert_eq!(run::finish(task(&store, &job).args(["--task", "0"])).code, 0);
    let mut commit = command();
    commit.args(["commit", "--job", job.to_str().unwrap(), "--grace", "600"]).stderr(Stdio::piped());
    let commit = commit.spawn().unwrap();
    let begun = Instant::now();
    while !job.join("manifest.json").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    // SAFETY: the process is a child that nobody has waited for.
    assert_eq!(unsafe { libc::kill(commit.id().try_into().unwrap(), libc::SIGTERM) }, 0);
    let ended = commit.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(130) && said.contains("the job is committed"), "{said}");
}

/// A task ends with the process that started it, even while it stands still.
#[test]
fn a_task_ends_with_its_parent() {
    let scratch = scratch();
    let (store, job) = (testdata("stores/synthea-r4-100"), scratch.path().join("job"));
    let index = scratch.path().join("index");
    let planned = plan(&store, &job, &["--system", "--compress", "gzip", "--index-dir", index.to_str().unwrap()]);
    assert!(planned.code <= 1, "{planned:#?}");
    let binary = env!("CARGO_BIN_EXE_outpour");
    let script = format!("'{binary}' run-task --store '{}' --job '{}' --task 0 & wait", store.display(), job.display());
    let mut shell =
        Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The task that the shell has started, once it has begun to write.
    let begun = Instant::now();
    let children = PathBuf::from(format!("/proc/{0}/task/{0}/children", shell.id()));
    let task = loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "no task was seen to write");
        let child = std::fs::read_to_string(&children).unwrap_or_default().trim().parse::<i32>().ok();
        let writes = std::fs::read_dir(job.join("data"))
            .is_ok_and(|mut found| found.any(|entry| entry.unwrap().file_name() != "error"));
        if let Some(child) = child.filter(|_| writes) {
            break child;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    // SAFETY: the process is the shell's child; a signal to one that has ended by now is an error that is seen below.
    let stopped = unsafe { libc::kill(task, libc::SIGSTOP) };
    if stopped != 0 || job.join("tasks/0.json").exists() {
        println!("skipped: the task had ended");
        shell.wait().unwrap();
        return;
    }
    shell.kill().unwrap();
    shell.wait().unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{task}/stat")).unwrap_or_default();
    let is_gone = || state().rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']));
    let killed = Instant::now();
    while !is_gone() {
        assert!(killed.elapsed() < Duration::from_secs(20), "the task goes on: {}", state());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!job.join("tasks/0.json").exists());
}
