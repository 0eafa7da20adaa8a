//! Inspects a job in tasks, of an export or of an index: its plan, the records of its tasks, and its files of spans. No request is shown, which may
//! hold values of filters.

use std::path::Path;

use crate::byte_size::format_bytes;
use crate::inspect::export;
use crate::inspect::index_file::file_name;
use crate::inspect::report::{InspectReport, ReportSection};
use crate::limits::RECORD_BYTES_MAX;
use crate::spans::RowSpan;
use crate::spans::span_file::SpanFile;
use crate::sys::regular_file::{Links, open_regular, read_regular};
use crate::tasks::attempt::AttemptRecord;
use crate::tasks::index_plan::IndexJobPlan;
use crate::tasks::index_task::IndexTaskRecord;
use crate::tasks::job_files::{COMMITTED, MANIFEST, PLAN, TASKS, is_export_job, is_job, spans_name, task_name};
use crate::tasks::job_plan::{JobPlan, TaskPlan};
use crate::tasks::task_record::TaskRecord;
use crate::text_table::grouped;

/// Whether a file is the plan of a job.
pub(crate) fn is_job_plan(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == PLAN) && path.parent().is_some_and(is_job)
}

/// Whether a file is the record of a task.
pub(crate) fn is_task_record(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with(TASKS) && folder.parent().is_some_and(is_job))
}

/// Adds a job: its plan, its tasks, its spans.
pub(crate) fn job(path: &Path, report: &mut InspectReport) {
    if !is_export_job(path) {
        return index_job(path, report);
    }
    let plan = plan(&path.join(PLAN), report);
    report.what = "a job of an export in tasks".to_string();
    let Some(plan) = plan else { return };
    let mut section = ReportSection::new("tasks", &["task", "attempt", "files", "rows"]);
    for task in 0..plan.tasks.len() {
        let record = path.join(task_name(task));
        match record.symlink_metadata().is_ok().then(|| read_record::<TaskRecord>(&record, &plan, task)) {
            None => section.row(vec![task.to_string(), "has not ended".into(), String::new(), String::new()]),
            Some(Ok(record)) => section.row(cells(&record)),
            Some(Err(reason)) => report.broken(&record, reason),
        }
    }
    report.part("a job of an export in tasks", section);
    report.what = "a job of an export in tasks".to_string();
    for shard in 0..plan.shards.len() {
        spans(&path.join(spans_name(shard)), report);
    }
    report.what = "a job of an export in tasks".to_string();
    match path.join(MANIFEST).exists() {
        true => export::manifest(&path.join(MANIFEST), report),
        false => report.absent.push(MANIFEST.to_string()),
    }
    report.what = "a job of an export in tasks".to_string();
}

/// What the job of an index is called.
const INDEX_JOB: &str = "a job of an index in tasks";

/// Adds the job of an index: its plan and its tasks.
fn index_job(path: &Path, report: &mut InspectReport) {
    let plan = index_plan(&path.join(PLAN), report);
    if let Some(plan) = plan {
        let mut section = ReportSection::new("tasks", &["task", "attempt", "extents", "bytes"]);
        for task in 0..plan.tasks.len() {
            let record = path.join(task_name(task));
            match record.symlink_metadata().is_ok().then(|| read_record::<IndexTaskRecord>(&record, &plan, task)) {
                None => section.row(vec![task.to_string(), "has not ended".into(), String::new(), String::new()]),
                Some(Ok(record)) => section.row(index_cells(&record)),
                Some(Err(reason)) => report.broken(&record, reason),
            }
        }
        report.part(INDEX_JOB, section);
        if !path.join(COMMITTED).exists() {
            report.absent.push(COMMITTED.to_string());
        }
    }
    report.what = INDEX_JOB.to_string();
}

/// Adds the plan of an index; it, if it can be read.
fn index_plan(path: &Path, report: &mut InspectReport) -> Option<IndexJobPlan> {
    let read = read_regular(path, RECORD_BYTES_MAX).map_err(|error| format!("it cannot be read: {error}"));
    let mut section = ReportSection::new("plan", &["task", "ranges"]);
    let plan = read.and_then(|bytes| IndexJobPlan::from_bytes(&bytes));
    let plan = plan.map_err(|reason| report.broken(path, reason)).ok();
    if let Some(plan) = &plan {
        section.fact("made by", &plan.build);
        section.fact("job", &plan.job_id);
        section.fact("files", plan.files.len());
        for (number, ranges) in plan.tasks.iter().enumerate() {
            section.row(vec![number.to_string(), grouped(ranges.len() as u64)]);
        }
    }
    report.part("the plan of an index in tasks", section);
    plan
}

/// A row about a task of an index.
fn index_cells(record: &IndexTaskRecord) -> Vec<String> {
    let extents = grouped(record.segments.len() as u64);
    vec![record.task.to_string(), record.attempt.clone(), extents, format_bytes(record.bytes)]
}

/// Adds the plan of a job.
pub(crate) fn any_plan(path: &Path, report: &mut InspectReport) {
    match path.parent().is_some_and(is_export_job) {
        true => drop(plan(path, report)),
        false => drop(index_plan(path, report)),
    }
}

/// Adds the plan of a job; it, if it can be read.
fn plan(path: &Path, report: &mut InspectReport) -> Option<JobPlan> {
    let read = read_regular(path, RECORD_BYTES_MAX).map_err(|error| format!("it cannot be read: {error}"));
    let mut section = ReportSection::new("plan", &["task", "files", "rows", "bytes"]);
    let plan = read.and_then(|bytes| JobPlan::from_bytes(&bytes));
    let plan = plan.map_err(|reason| report.broken(path, reason)).ok();
    if let Some(plan) = &plan {
        section.fact("made by", &plan.build);
        section.fact("job", &plan.job_id);
        section.fact("transactionTime", &plan.transaction_time);
        section.fact("compression", plan.compression.name());
        section.fact("deleted files", plan.deleted.len());
        section.fact("error files", plan.error.len());
        for (number, task) in plan.tasks.iter().enumerate() {
            let shards = task.iter().flatten().map(|shard| &plan.shards[*shard as usize]);
            let (rows, bytes) = shards.fold((0, 0), |sum, shard| (sum.0 + shard.rows, sum.1 + shard.source_bytes));
            let files = task.iter().flatten().count() as u64;
            section.row(vec![number.to_string(), grouped(files), grouped(rows), format_bytes(bytes)]);
        }
    }
    report.part("the plan of a job", section);
    plan
}

/// Adds the record of a task.
pub(crate) fn record(path: &Path, report: &mut InspectReport) {
    let mut section = ReportSection::new(file_name(path), &["task", "attempt", "files", "rows"]);
    let root = path.parent().and_then(Path::parent).unwrap_or(path);
    let task = path.file_stem().and_then(|stem| stem.to_str()?.parse::<usize>().ok());
    let read = match is_export_job(root) {
        true => record_of_plan::<TaskRecord>(path, root, task, &|plan| plan.tasks.len()).map(|record| cells(&record)),
        false => {
            section = ReportSection::new(file_name(path), &["task", "attempt", "extents", "bytes"]);
            let read = record_of_plan::<IndexTaskRecord>(path, root, task, &|plan| plan.tasks.len());
            read.map(|record| index_cells(&record))
        }
    };
    match read {
        Ok(cells) => section.row(cells),
        Err(reason) => report.broken(path, reason),
    }
    report.part("the record of a task", section);
}

/// Reads the record of a task and the plan that it is of; `tasks` gives the number of tasks of the plan.
fn record_of_plan<R: AttemptRecord>(
    path: &Path,
    root: &Path,
    task: Option<usize>,
    tasks: &dyn Fn(&R::Plan) -> usize,
) -> Result<R, String>
where
    R::Plan: TaskPlan,
{
    let bytes = read_regular(&root.join(PLAN), RECORD_BYTES_MAX).map_err(|error| format!("its plan: {error}"))?;
    let plan = R::Plan::from_bytes(&bytes)?;
    let task = task.filter(|task| *task < tasks(&plan)).ok_or("its plan has no such task")?;
    read_record(path, &plan, task)
}

/// Reads the record of a task.
fn read_record<R: AttemptRecord>(path: &Path, plan: &R::Plan, task: usize) -> Result<R, String> {
    let bytes = read_regular(path, RECORD_BYTES_MAX).map_err(|error| format!("it cannot be read: {error}"))?;
    R::of_bytes(&bytes, plan, task).ok_or_else(|| "it is not as a task of its plan writes it".to_string())
}

/// A row about a task.
fn cells(record: &TaskRecord) -> Vec<String> {
    let rows = record.files.iter().map(|file| file.count).sum();
    vec![record.task.to_string(), record.attempt.clone(), grouped(record.files.len() as u64), grouped(rows)]
}

/// Adds a file of spans, all of whose blocks are read.
pub(crate) fn spans(path: &Path, report: &mut InspectReport) {
    let mut section =
        ReportSection::new(format!("{}: spans", file_name(path)), &["store file", "bytes", "compression"]);
    let opened = open_regular(path, Links::Refuse).map_err(|error| format!("it cannot be read: {error}"));
    match opened.and_then(|file| SpanFile::open(file, path).map_err(|error| error.to_string())) {
        Ok(file) => {
            section.fact("rows", grouped(file.facts.rows));
            section.fact("spans", grouped(file.spans()));
            section.fact("bytes of rows", format_bytes(file.facts.bytes));
            for source in &file.facts.files {
                let packed = if source.packed { ", packed" } else { "" };
                let coding = format!("{}{packed}", source.compression.name());
                section.row(vec![source.name.clone(), format_bytes(source.stamp.len), coding]);
            }
            if let Some(Err(error)) = file.iter(&[]).find(|span: &Result<RowSpan, _>| span.is_err()) {
                report.broken(path, error);
            }
        }
        Err(reason) => report.broken(path, reason),
    }
    report.part("the rows of an output file of a job", section);
}
