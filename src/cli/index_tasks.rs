//! `outpour index-plan`, `outpour index-task` and `outpour index-commit`: the index of a store in tasks.

use serde_json::json;

use crate::byte_size::format_bytes;
use crate::cli::args::index_tasks::{IndexCommitArgs, IndexPlanArgs, IndexTaskArgs};
use crate::cli::config::{open_store, pool, row_choices, validation};
use crate::cli::export::{exit_of, gone_lines, index_warnings};
use crate::cli::plan::plan_text;
use crate::cli::progress::watched;
use crate::cli::run_task::{attempt_name, begin_task, fail_job, random, refuse};
use crate::cli::{Exit, fail, fail_with, put_json, say};
use crate::index::segment::reader::Segment;
use crate::index::snapshot::Index;
use crate::simd::Kernel;
use crate::store::StoreOptions;
use crate::store::choices::RowChoices;
use crate::sys::durability::FileSync;
use crate::tasks::attempt::TaskOutcome;
use crate::tasks::index_commit::{CommittedIndex, IndexCommitRequest, commit_index};
use crate::tasks::index_plan::{IndexJobOptions, PlannedIndex, plan_index};
use crate::tasks::index_task::run_index_task;
use crate::tasks::job_error::JobError;
use crate::tasks::run_task::TaskRequest;
use crate::text_table::{TextTable, grouped as count, grouped_with};

/// Runs `outpour index-plan` and returns its exit code.
pub(crate) fn run_plan(args: IndexPlanArgs) -> Exit {
    let json = args.write.run.json;
    let choices = RowChoices { validate: validation(args.validate), ..row_choices(&args.store.choices) };
    let ready = open_store(&args.store, choices, args.remake, true)
        .and_then(|store| Ok((store, pool(args.write.run.threads)?)));
    let (store, pool) = match ready {
        Ok(ready) => ready,
        Err(error) => return fail(Exit::BadRequest, &error, json),
    };
    let options = IndexJobOptions {
        job: &args.job,
        writer: &format!("planner-{:016x}", random()),
        tasks: args.tasks.map(|tasks| tasks as usize),
        sync: file_sync(args.write.no_sync),
    };
    let planned = pool.install(|| plan_index(&store, &options));
    match planned {
        Ok(planned) => {
            tell_planned(&planned, json);
            Exit::Done
        }
        Err(error) => fail_with(exit_of(&error), &error, plan_text(&error), json),
    }
}

/// Whether files are waited for.
fn file_sync(no_sync: bool) -> FileSync {
    if no_sync { FileSync::No } else { FileSync::Yes }
}

/// Prints what was planned.
fn tell_planned(planned: &PlannedIndex, json: bool) {
    let PlannedIndex { plan, task_bytes } = planned;
    if json {
        let tasks = plan.tasks.iter().zip(task_bytes);
        let tasks: Vec<_> = tasks.map(|(ranges, bytes)| json!({ "ranges": ranges.len(), "bytes": bytes })).collect();
        put_json(&json!({
            "status": "planned",
            "exitCode": 0,
            "job": plan.job,
            "jobId": plan.job_id,
            "store": plan.store,
            "index": plan.index_dir,
            "tasks": tasks,
            "files": plan.files.len(),
        }));
    }
    let mut table = TextTable::of_figures(&["task", "ranges", "bytes"]);
    const SHOWN: usize = 12;
    for (number, (ranges, bytes)) in plan.tasks.iter().zip(task_bytes).enumerate().take(SHOWN) {
        table.row([number.to_string(), count(ranges.len() as u64), format_bytes(*bytes)]);
    }
    if plan.tasks.len() > SHOWN {
        table.row([format!("to {}", plan.tasks.len() - 1), "…".into(), "…".into()]);
    }
    let ranges = plan.tasks.iter().map(|ranges| ranges.len() as u64).sum();
    table.row(["all".into(), count(ranges), format_bytes(task_bytes.iter().sum())]);
    let mut out =
        format!("{} to be indexed in tasks\n\n{}", grouped_with(plan.files.len() as u64, "file"), table.text());
    let words = format!("--store {} --job {}", plan.store, plan.job);
    let index = format!("--index-dir {}", plan.index_dir);
    out += &format!("  next       `outpour index-task {words} --task 0` and so on,\n");
    say(&(out + &format!("             then `outpour index-commit {words} {index}`")));
}

/// Runs `outpour index-task` and returns its exit code.
pub(crate) fn run_task(args: IndexTaskArgs) -> Exit {
    let task = match begin_task(args.task, args.json) {
        Ok(task) => task,
        Err(exit) => return exit,
    };
    let attempt = match attempt_name(&args.attempt) {
        Ok(attempt) => attempt,
        Err(text) => return refuse(&text, args.json),
    };
    let sync = file_sync(args.no_sync);
    let request = TaskRequest { store: &args.store, job: &args.job, task, attempt: &attempt, sync };
    match watched(args.progress, |progress| run_index_task(&request, Kernel::detect(), progress)) {
        Ok(TaskOutcome { record, is_own }) => {
            if args.json {
                put_json(&json!({
                    "status": if is_own { "complete" } else { "complete before" },
                    "exitCode": 0,
                    "task": task,
                    "attempt": record.attempt,
                    "extents": record.segments.len(),
                    "bytes": record.bytes,
                }));
            }
            let whose = if is_own { "" } else { ", by another attempt" };
            let extents = grouped_with(record.segments.len() as u64, "extent");
            say(&format!("Task {task} is done{whose}: {extents}, {}", format_bytes(record.bytes)));
            Exit::Done
        }
        Err(error) => fail_job(&error, args.json),
    }
}

/// Runs `outpour index-commit` and returns its exit code.
pub(crate) fn run_commit(args: IndexCommitArgs) -> Exit {
    let json = args.run.json;
    let pool = match pool(args.run.threads) {
        Ok(pool) => pool,
        Err(error) => return fail(Exit::Usage, &error, json),
    };
    let writer = format!("commit-{:016x}", random());
    let request = IndexCommitRequest {
        store: &args.store,
        options: StoreOptions {
            index_dir: args.index_dir.clone(),
            allow_missing: args.missing.allow_missing,
            ..StoreOptions::default()
        },
        job: &args.job,
        writer: &writer,
        sync: file_sync(args.no_sync),
    };
    let committed = pool.install(|| watched(args.run.progress, |progress| commit_index(request, progress)));
    match committed {
        Ok(committed) => {
            tell_committed(&committed, json);
            Exit::Done
        }
        Err(JobError::Drifted(text)) => {
            // An index that is damaged while its stamps are not is seen by a commit alone.
            let advice = "if another plan ends so, too, run `outpour index --recheck` before it";
            fail_job(&JobError::Drifted(format!("{text}; {advice}")), json)
        }
        Err(error) => fail_job(&error, json),
    }
}

/// Prints what a commit has come to.
fn tell_committed(committed: &CommittedIndex, json: bool) {
    let CommittedIndex { index, removed } = committed;
    let lines = |index: &Index| -> (u64, u64) {
        let heads = index.segments().iter().map(Segment::head);
        heads.fold((0, 0), |(lines, faulty), head| (lines + head.lines, faulty + head.faulty))
    };
    if json {
        let mut document = json!({
            "status": if index.is_some() { "complete" } else { "complete before" },
            "exitCode": 0,
            "removed": removed,
        });
        if let Some((index, work)) = index {
            document["files"] = index.generation().files.len().into();
            document["extents"] = index.segment_count().into();
            document["rows"] = index.rows().into();
            document["patients"] = index.patients().into();
            (document["lines"], document["faulty"]) = (lines(index).0.into(), lines(index).1.into());
            document["work"] = json!(work);
        }
        put_json(&document);
    }
    match index {
        None => say("The index was committed before"),
        Some((index, work)) => {
            let (rows, patients) =
                (grouped_with(index.rows() as u64, "row"), grouped_with(index.patients() as u64, "patient"));
            say(&format!("Index of {rows} of {patients}, {}", grouped_with(index.segment_count() as u64, "extent")));
            let (new, kept) = (count(work.scanned_segments as u64), count(work.kept_segments as u64));
            let (lines, faulty) = lines(index);
            say(&format!("  lines      {}, {} of them faulty", count(lines), count(faulty)));
            say(&format!("  extents    {new} of tasks, {kept} of the index before"));
            if let Some(gone) = &work.gone {
                say(gone_lines(gone).trim_end());
            }
            index_warnings(work);
        }
    }
}
