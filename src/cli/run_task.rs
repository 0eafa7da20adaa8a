//! `outpour run-task` and `outpour commit`: the commands that the workers and the driver of another system call.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::byte_size::format_bytes;
use crate::cli::args::tasks::{CommitArgs, RunTaskArgs};
use crate::cli::config::{pool, sync};
use crate::cli::message_text::index_text;
use crate::cli::progress::watched;
use crate::cli::{Exit, complain, fail, fail_with, put_failure, put_json, say};
use crate::sys::durability::FileSync;
use crate::sys::interrupt::interrupts_and_hangups;
use crate::sys::parent_death::end_with_parent;
use crate::tasks::attempt::TaskOutcome;
use crate::tasks::commit::{CommittedJob, commit};
use crate::tasks::job_error::JobError;
use crate::tasks::job_files::is_attempt;
use crate::tasks::run_task::{TaskRequest, run_task};
use crate::text_table::grouped_with;

/// Longest name of an attempt that is given; what is added is as long again as a hash.
const ATTEMPT_MAX: usize = 60;
/// Where launchers of task arrays tell the number of a task.
const NUMBERS: [&str; 3] = ["JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID", "AWS_BATCH_JOB_ARRAY_INDEX"];

/// The exit code of a failed task or commit, as sysexits.h names them.
fn exit_of(error: &JobError) -> Exit {
    match error {
        JobError::Refused(_) | JobError::Index(_) => Exit::Usage,
        JobError::Drifted(_) => Exit::DataChanged,
        JobError::Differs(_) => Exit::Differs,
        JobError::Io { .. } => Exit::InputOutput,
        JobError::Missing { .. } => Exit::NotYet,
        JobError::NotPermitted { .. } => Exit::NotPermitted,
        JobError::Cancelled => Exit::Interrupted,
    }
}

/// Runs `outpour run-task` and returns its exit code.
pub(crate) fn run(args: RunTaskArgs) -> Exit {
    let json = args.write.run.json;
    let task = match begin_task(args.task, json) {
        Ok(task) => task,
        Err(exit) => return exit,
    };
    // One thread, unless more are asked for: schedulers count the processors of a task.
    let pool = match pool(args.write.run.threads.or(Some(1))) {
        Ok(pool) => pool,
        Err(error) => return fail(Exit::Usage, &error, json),
    };
    let attempt = match attempt_name(&args.attempt) {
        Ok(attempt) => attempt,
        Err(text) => return refuse(&text, json),
    };
    let request = TaskRequest { store: &args.store, job: &args.job, task, attempt: &attempt, sync: sync(&args.write) };
    let outcome = pool.install(|| watched(args.write.run.progress, |progress| run_task(&request, progress)));
    match outcome {
        Ok(TaskOutcome { record, is_own }) => {
            if json {
                let mut document = serde_json::to_value(&record).expect("a record is plain data");
                document["status"] = if is_own { "complete" } else { "complete before" }.into();
                document["exitCode"] = 0.into();
                put_json(&document);
            }
            let (rows, bytes) = record.files.iter().fold((0, 0), |sum, file| (sum.0 + file.count, sum.1 + file.bytes));
            let whose = if is_own { "" } else { ", by another attempt" };
            let (files, rows) = (grouped_with(record.files.len() as u64, "file"), grouped_with(rows, "row"));
            say(&format!("Task {task} is done{whose}: {files}, {rows}, {}", format_bytes(bytes)));
            Exit::Done
        }
        Err(error) => fail_job(&error, json),
    }
}

/// Has the task end with its parent; its number.
pub(crate) fn begin_task(given: Option<usize>, json: bool) -> Result<usize, Exit> {
    if !end_with_parent() {
        complain("the process that started this task has ended");
        return Err(Exit::InputOutput);
    }
    task_number(given).map_err(|text| refuse(&text, json))
}

/// A name of an attempt that no other one has: attempts may be given one name, as where a job is started twice.
pub(crate) fn attempt_name(given: &str) -> Result<String, String> {
    match (1..=ATTEMPT_MAX).contains(&given.len()) && is_attempt(given) {
        true => Ok(format!("{given}-{:016x}", random())),
        false => Err(format!("--attempt: give 1 to {ATTEMPT_MAX} letters, digits, '-' and '_'")),
    }
}

/// Reports the error of a task or a commit; its exit code.
pub(crate) fn fail_job(error: &JobError, json: bool) -> Exit {
    match error {
        JobError::Index(index) => fail_with(exit_of(error), error, vec![index_text(index)], json),
        _ => fail(exit_of(error), error, json),
    }
}

/// Runs `outpour commit` and returns its exit code.
pub(crate) fn run_commit(args: CommitArgs) -> Exit {
    let sync = if args.no_sync { FileSync::No } else { FileSync::Yes };
    let commit = || commit(&args.job, &format!("commit-{:016x}", random()), sync);
    // From here on a signal ends the wait, and not the commit.
    let interrupted = args.grace.map(|_| interrupts_and_hangups());
    let mut committed = commit();
    if let (Ok(first), Some(seconds), Some(interrupted)) = (&mut committed, args.grace, interrupted) {
        if !wait_uninterrupted(Duration::from_secs(seconds), interrupted) {
            return refuse_as(
                Exit::Interrupted,
                "interrupted; the job is committed, run it once more to clean up",
                args.json,
            );
        }
        match commit() {
            Ok(second) => first.removed.extend(second.removed),
            Err(error) => return fail_job(&error, args.json),
        }
    }
    match committed {
        Ok(committed) => {
            tell_committed(&args, &committed);
            Exit::Done
        }
        Err(error) => fail_job(&error, args.json),
    }
}

/// Prints what a commit has come to.
fn tell_committed(args: &CommitArgs, committed: &CommittedJob) {
    let CommittedJob { manifest, worst, was_committed, removed } = committed;
    let path = args.job.join("manifest.json");
    if args.json {
        put_json(&json!({
            "status": if *was_committed { "complete before" } else { "complete" },
            "exitCode": 0,
            "manifest": path,
            "transactionTime": manifest.transaction_time,
            "files": manifest.output.len(),
            "rows": manifest.output.iter().map(|item| item.count).sum::<u64>(),
            "worst": worst,
            "removed": removed,
        }));
    }
    let rows = manifest.output.iter().map(|item| item.count).sum();
    let (files, rows) = (grouped_with(manifest.output.len() as u64, "file"), grouped_with(rows, "row"));
    let mut out = format!("Job as of {}: {files}, {rows}\n", manifest.transaction_time);
    if !removed.is_empty() {
        out += &format!("  removed    {} of attempts that lost\n", grouped_with(removed.len() as u64, "file"));
    }
    say(&(out + &format!("  manifest   {}", path.display())));
}

/// Waits; whether it was not interrupted.
fn wait_uninterrupted(time: Duration, interrupted: &AtomicBool) -> bool {
    let end = Instant::now() + time;
    while !interrupted.load(Relaxed) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
    false
}

/// Refuses arguments.
pub(crate) fn refuse(text: &str, json: bool) -> Exit {
    refuse_as(Exit::Usage, text, json)
}

/// Says why a command ends so.
fn refuse_as(exit: Exit, text: &str, json: bool) -> Exit {
    complain(text);
    if json {
        put_failure(exit, &[text.to_string()]);
    }
    exit
}

/// The number of the task: as given, or as a launcher of task arrays tells it.
fn task_number(given: Option<usize>) -> Result<usize, String> {
    if let Some(task) = given {
        return Ok(task);
    }
    let told: Vec<(&str, String)> =
        NUMBERS.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?))).collect();
    match &told[..] {
        [] => Err(format!("--task: give the number of the task, or set one of {}", NUMBERS.join(", "))),
        [(name, text)] => {
            let number = text.parse();
            number.map_err(|_| format!("{name} is no number of a task: give --task, or start it as one of an array"))
        }
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
            Err(format!("{} are both set: give --task", names.join(" and ")))
        }
    }
}

/// 64 bits that no other process has, on whatever machine: the standard library seeds its hash maps by the system's random bytes.
pub(crate) fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
