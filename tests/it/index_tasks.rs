//! Indexes in tasks by their commands: what they come to is the index of one `outpour index`; exit codes.

use crate::fixture::plain_store;
use crate::run::{self, command, scratch};
use crate::store_forms;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

const AS_OF: &str = "2026-01-01T00:00:00Z";

/// The files of an index, but the lock and the index meta, which has the stamps of the others.
fn index_files(index: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = run::snapshot(index);
    files.retain(|name, _| !["lock", "generation", "generation-b"].contains(&name.as_str()));
    files
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command of an index job.
fn of_job(word: &str, store: &Path, job: &Path, more: &[&str]) -> run::Run {
    run::finish(command().args([word, "--store", text(store), "--job", text(job)]).args(more))
}

/// Stores of every form: an index by three workers at once, which are told their task as the launchers of task arrays tell it, has the
/// bytes of the index of one thread, is up to date, verified, and exported from.
#[test]
fn an_index_in_tasks_is_that_of_one_command() {
    let scratch = scratch();
    let plain = scratch.path().join("plain");
    plain_store(&plain, &["Patient", "Condition", "Encounter"], 1);
    for coding in ["zstd", "gzip"] {
        store_forms::packed_in(coding, &plain, &scratch.path().join(coding), AS_OF);
    }
    store_forms::mixed(&plain, &scratch.path().join("mixed"), AS_OF);
    for (number, form) in ["plain", "zstd", "gzip", "mixed"].into_iter().enumerate() {
        let place = |name: &str| scratch.path().join(format!("{form}-{name}"));
        let (store, job, one, tasks) = (scratch.path().join(form), place("job"), place("one"), place("tasks"));
        let indexed =
            run::run(&["index", "--store", text(&store), "--index-dir", text(&one), "--threads", "1", "--json"]);
        assert_eq!(indexed.code, 0, "{indexed:#?}");
        let count = [1, 3, 8][number % 3];
        let more = ["--index-dir", text(&tasks), "--tasks", &count.to_string(), "--json"];
        let planned = of_job("index-plan", &store, &job, &more);
        assert_eq!(planned.code, 0, "{planned:#?}");
        let document: Value = serde_json::from_str(&planned.stdout).unwrap();
        assert_eq!(document["tasks"].as_array().unwrap().len(), count);
        assert!(!tasks.exists(), "a plan writes no index");
        let commit = || of_job("index-commit", &store, &job, &["--index-dir", text(&tasks), "--json"]);
        commit().refused(75, &["have not ended", "0"].map(|text| if count == 1 { "has not ended" } else { text }));
        std::thread::scope(|scope| {
            for (worker, variable) in
                ["JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID", "AWS_BATCH_JOB_ARRAY_INDEX"].into_iter().enumerate()
            {
                let (store, job) = (&store, &job);
                scope.spawn(move || {
                    for number in (worker..count).step_by(3) {
                        let mut task = command();
                        task.args(["index-task", "--store", text(store), "--job", text(job), "--no-sync", "--json"]);
                        let run = run::finish(task.env(variable, number.to_string()));
                        assert_eq!(run.code, 0, "{run:#?}");
                    }
                });
            }
        });
        let inspected = run::run(&["inspect", text(&job)]);
        assert!(inspected.code == 0 && inspected.stdout.contains("a job of an index in tasks"), "{inspected:#?}");
        let committed = commit();
        assert_eq!(committed.code, 0, "{committed:#?}");
        assert!(index_files(&one) == index_files(&tasks), "{form}");
        let [first, second]: [Value; 2] = [&indexed, &committed].map(|run| serde_json::from_str(&run.stdout).unwrap());
        for fact in ["files", "extents", "rows", "patients"] {
            assert_eq!(first[fact], second[fact], "{form}: {fact}");
        }
        let again = commit();
        assert!(again.code == 0 && again.stdout.contains("complete before"), "{again:#?}");
        let index = ["--index-dir", text(&tasks)];
        let later = run::run(&[&["index", "--store", text(&store), "--json"], &index[..]].concat());
        let later: Value = serde_json::from_str(&later.stdout).unwrap();
        assert_eq!(later["work"]["scannedBytes"], 0);
        let verified = run::run(&[&["verify", text(&store)], &index[..]].concat());
        assert_eq!(verified.code, 0, "{verified:#?}");
        run::run(&["verify", text(&job)]).refused(2, &["the job of an index: verify the store"]);
    }
}

/// Each exit code, with a message that says what to do.
#[test]
fn exit_codes_of_an_index_in_tasks() {
    let scratch = scratch();
    let (store, job, export) =
        (scratch.path().join("store"), scratch.path().join("job"), scratch.path().join("export"));
    plain_store(&store, &["Patient", "Condition"], 1);
    assert_eq!(of_job("index-plan", &store, &job, &["--tasks", "2"]).code, 0);
    let task = |more: &[&str]| of_job("index-task", &store, &job, more);
    let commit = || of_job("index-commit", &store, &job, &[]);
    // 64: arguments, numbers, the directory, the store, the index, a job of another kind.
    task(&[]).refused(64, &["--task: give the number", "SLURM_ARRAY_TASK_ID"]);
    task(&["--taks", "1"]).refused(64, &["--taks"]);
    task(&["--task", "2"]).refused(64, &["task 2 is none of the plan's, which are 0 to 1"]);
    of_job("index-task", &job, &job, &["--task", "0"]).refused(64, &["not the one that the plan names"]);
    of_job("index-task", &store, &store, &["--task", "0"]).refused(64, &["plan first"]);
    of_job("index-commit", &store, &job, &["--index-dir", text(&export)]).refused(64, &["the index directory is not"]);
    of_job("run-task", &store, &job, &["--task", "0"]).refused(64, &["it is for `outpour index-task`"]);
    of_job("index-plan", &store, &job, &[]).refused(2, &["--job: ", "holds a job in tasks", "choose another one"]);
    let planned = run::run(&["plan", "--store", text(&store), "--job", text(&export), "--all-patients"]);
    assert_eq!(planned.code, 0, "{planned:#?}");
    of_job("index-task", &store, &export, &["--task", "0"]).refused(64, &["it is for `outpour run-task`"]);
    // The export has brought the index up to date, which is no longer what the plan was made of.
    (0..2).for_each(|number| assert_eq!(task(&["--task", &number.to_string()]).code, 0));
    assert_eq!(commit().code, 0);
    // 65: a store file is another one; what has its record is read no more. 74: there is no room.
    let job = scratch.path().join("second");
    std::fs::write(store.join("New.ndjson"), std::fs::read(store.join("Condition.ndjson")).unwrap()).unwrap();
    std::fs::copy(store.join("Condition.ndjson"), store.join("Newer.ndjson")).unwrap();
    assert_eq!(of_job("index-plan", &store, &job, &["--tasks", "2"]).code, 0);
    let mut limited = command();
    crate::disk::limit_files(&mut limited, 1000);
    let limited =
        run::finish(limited.args(["index-task", "--store", text(&store), "--job", text(&job), "--task", "1"]));
    limited.refused(74, &["run it once more"]);
    assert!(run::snapshot(&job.join("segments")).keys().all(|name| name.contains(".lock")));
    assert_eq!(of_job("index-task", &store, &job, &["--task", "0"]).code, 0);
    of_job("index-commit", &store, &job, &[]).refused(75, &["1 of 2 tasks has not ended: 1;"]);
    std::fs::write(store.join("Newer.ndjson"), "{}\n").unwrap();
    of_job("index-task", &store, &job, &["--task", "1"]).refused(65, &["when its scan was planned; make a new plan"]);
    assert_eq!(of_job("index-task", &store, &job, &["--task", "0"]).code, 0);
}
