//! `outpour plan`: makes the plan of an export in tasks, and prints what it comes to.

use serde_json::json;

use crate::byte_size::format_bytes;
use crate::cli::args::tasks::PlanArgs;
use crate::cli::config::{ResolvedConfig, TargetFlags, pool, resolve, sync};
use crate::cli::export::{exit_of, index_line, index_warnings};
use crate::cli::message_text::{FLAGS, lines};
use crate::cli::progress::watched;
use crate::cli::run_task::random;
use crate::cli::{Exit, fail, fail_with, print_messages, put_json, say, warn};
use crate::error::{ExportError, JournalError};
use crate::issue::Severity;
use crate::tasks::job_plan::JobPlan;
use crate::tasks::planner::{JobOptions, PlannedJob, plan_job};
use crate::text_table::{TextTable, grouped as count};

/// Runs `outpour plan` and returns its exit code.
pub(crate) fn run(args: PlanArgs) -> Exit {
    let json = args.write.run.json;
    let target = TargetFlags {
        directory: Some(("--job", &args.job)),
        chain: None,
        modes: [None, None],
        sync: !args.write.no_sync,
    };
    let resolved = resolve(&args.request, &args.store, &target);
    let resolved = resolved.and_then(|resolved| Ok((resolved, pool(args.write.run.threads)?)));
    let (resolved, pool) = match resolved {
        Ok(ready) => ready,
        Err(error) => return fail(Exit::BadRequest, &error, json),
    };
    let ResolvedConfig { request, store, time, clock_warning, faults_allowed, .. } = resolved;
    clock_warning.iter().for_each(|text| warn(text));
    let writer = format!("planner-{:016x}", random());
    let options = JobOptions {
        job: &args.job,
        writer: &writer,
        tasks: args.tasks.map(|tasks| tasks as usize),
        sync: sync(&args.write),
        faults_allowed,
        words: &FLAGS,
    };
    let planned = pool
        .install(|| watched(args.write.run.progress, |progress| plan_job(&store, &request, time, &options, progress)));
    let planned = match planned {
        Ok(planned) => planned,
        Err(error) => return fail_with(exit_of(&error), &error, plan_text(&error), json),
    };
    let exit = match planned.messages.worst() {
        Some(Severity::Error | Severity::Fatal) => Exit::Partial,
        _ => Exit::Done,
    };
    if json {
        put_json(&document(&planned, exit));
    }
    print_messages(&planned.messages);
    index_warnings(&planned.index);
    say(&summary(&planned));
    exit
}

/// The text of an error of a plan, whose flags are others than those of an export.
pub(crate) fn plan_text(error: &ExportError) -> Vec<String> {
    let text = match error {
        ExportError::Write { .. } => format!("{error}; make room, then plan once more"),
        ExportError::Record(JournalError::Busy { path }) => {
            format!("--job: another process plans into {}; wait for it, or choose another directory", path.display())
        }
        ExportError::Record(JournalError::NotEmpty { .. }) => format!("--job: {error}; choose another one"),
        ExportError::Record(JournalError::Io { .. }) => {
            format!("--job: {error}; choose another directory, or make it writable")
        }
        other => return lines(other),
    };
    text.lines().map(str::to_string).collect()
}

/// Rows and bytes of a task.
fn task_sums(plan: &JobPlan, task: &[Vec<u32>]) -> (u64, u64) {
    let shards = task.iter().flatten().map(|shard| &plan.shards[*shard as usize]);
    shards.fold((0, 0), |(rows, bytes), shard| (rows + shard.rows, bytes + shard.source_bytes))
}

/// What was planned, for people.
fn summary(planned: &PlannedJob) -> String {
    let PlannedJob { plan, transaction_time, index, .. } = planned;
    let mut table = TextTable::of_figures(&["task", "rows", "bytes", "files"]);
    const SHOWN: usize = 12;
    for (number, task) in plan.tasks.iter().enumerate().take(SHOWN) {
        let (rows, bytes) = task_sums(plan, task);
        table.row([number.to_string(), count(rows), format_bytes(bytes), count(task.iter().flatten().count() as u64)]);
    }
    if plan.tasks.len() > SHOWN {
        table.row([format!("to {}", plan.tasks.len() - 1), "…".into(), "…".into(), "…".into()]);
    }
    let (rows, bytes) = plan.tasks.iter().map(|task| task_sums(plan, task)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    table.row(["all".into(), count(rows), format_bytes(bytes), count(plan.shards.len() as u64)]);
    let mut out = format!("Job as of {transaction_time}; its tasks are to be run\n\n{}", table.text());
    out += &index_line(index);
    out += &format!("  next       `outpour run-task --store {} --job {} --task 0` and so on,\n", plan.store, plan.job);
    out + &format!("             then `outpour commit --job {}`", plan.job)
}

/// What was planned, as a document.
fn document(planned: &PlannedJob, exit: Exit) -> serde_json::Value {
    let PlannedJob { plan, transaction_time, messages, index } = planned;
    let tasks = plan.tasks.iter().map(|task| {
        let (rows, bytes) = task_sums(plan, task);
        json!({ "rows": rows, "bytes": bytes, "files": task.iter().flatten().count() })
    });
    json!({
        "status": "planned",
        "exitCode": exit as u8,
        "job": plan.job,
        "jobId": plan.job_id,
        "store": plan.store,
        "transactionTime": transaction_time.to_string(),
        "tasks": tasks.collect::<Vec<_>>(),
        "files": plan.shards.len(),
        "messages": messages.counts(),
        "index": index,
    })
}
