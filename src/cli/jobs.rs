//! `outpour jobs`: lists, shows and removes the jobs of a service, whoever's they are: through its admin socket, or where it is
//! stopped by the records on disk.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::byte_size::format_bytes;
use crate::cli::admin_client::ask_service;
use crate::cli::args::jobs::{JobArgs, JobsCommand, JobsListArgs};
use crate::cli::{Exit, complain, put_json, say};
use crate::count_text::counted;
use crate::job::administration::{JobList, RecordRemoval, RecordedJobs};
use crate::job::overview::JobOverview;
use crate::job::record::is_job_id;
use crate::job::state::JobState;
use crate::text_table::{TextTable, grouped};

/// Why a command on jobs did not do its work.
struct JobsError {
    exit: Exit,
    problem: String,
}

impl JobsError {
    fn new(exit: Exit, problem: impl Into<String>) -> JobsError {
        JobsError { exit, problem: problem.into() }
    }
}

/// Where what is told of jobs comes from.
#[derive(Clone, Copy, PartialEq)]
enum JobSource {
    /// The running service.
    Service,
    /// The records on disk.
    Records,
}

impl JobSource {
    /// Its word in the JSON document.
    fn name(self) -> &'static str {
        match self {
            JobSource::Service => "service",
            JobSource::Records => "records",
        }
    }
}

/// Runs `outpour jobs` and returns its exit code.
pub(crate) fn run(command: JobsCommand) -> Exit {
    let (json, done) = match &command {
        JobsCommand::List(place) => (place.json, list_jobs(place)),
        JobsCommand::Show(args) => (args.place.json, show_job(args)),
        JobsCommand::Remove(args) => (args.place.json, remove_job(args)),
    };
    match done {
        Ok((exit, mut document)) => {
            if json {
                document["status"] = json!("complete");
                document["exitCode"] = json!(exit as u8);
                put_json(&document);
            }
            exit
        }
        Err(JobsError { exit, problem }) => {
            complain(&problem);
            if json {
                put_json(&json!({ "status": "failed", "exitCode": exit as u8, "problems": [problem] }));
            }
            exit
        }
    }
}

/// The error of asking the service, or of a data directory that is not there.
fn unreachable_error(place: &JobsListArgs, error: &io::Error) -> JobsError {
    let path = place.data.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            JobsError::new(Exit::BadRequest, format!("--data: {path} is not there, or no directory"))
        }
        io::ErrorKind::PermissionDenied => JobsError::new(
            Exit::Failed,
            format!("{path} cannot be opened: run this as the user that the service runs as"),
        ),
        _ => JobsError::new(Exit::Failed, format!("the service that has {path} does not answer: {error}")),
    }
}

/// The records of a service that is stopped.
fn recorded(place: &JobsListArgs) -> Result<RecordedJobs, JobsError> {
    let records: PathBuf = place.jobs.clone().unwrap_or_else(|| place.data.join("jobs"));
    RecordedJobs::open(&records, &place.data.join("files")).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => JobsError::new(
            Exit::BadRequest,
            format!(
                "{} has no records of jobs: give the data directory of a service with --data, and where its records lie \
                 elsewhere that directory with --jobs",
                records.display()
            ),
        ),
        _ => JobsError::new(Exit::Failed, format!("{} cannot be read: {error}", records.display())),
    })
}

/// The document of an answer of the service with this status.
fn expect_status((status, document): (u16, Value), expected: u16) -> Result<Value, JobsError> {
    match status {
        status if status == expected => Ok(document),
        404 => Err(no_such_job()),
        _ => Err(JobsError::new(Exit::Failed, document["problem"].as_str().unwrap_or("the service gave no reason"))),
    }
}

/// A job or jobs as the service wrote them.
fn read_document<T: serde::de::DeserializeOwned>(document: Value) -> Result<T, JobsError> {
    let foreign = |error| JobsError::new(Exit::Failed, format!("the service is of another version: {error}"));
    serde_json::from_value(document).map_err(foreign)
}

/// All jobs, and where they are from.
fn all_jobs(place: &JobsListArgs) -> Result<(JobList, JobSource), JobsError> {
    let asked = ask_service(&place.data, "GET", "/admin/v1/jobs").map_err(|error| unreachable_error(place, &error))?;
    match asked {
        Some(answer) => {
            let mut document = expect_status(answer, 200)?;
            let jobs = read_document(document["jobs"].take())?;
            Ok((JobList { jobs, unreadable: Vec::new() }, JobSource::Service))
        }
        None => {
            let listed = recorded(place)?.list();
            let list =
                listed.map_err(|error| JobsError::new(Exit::Failed, format!("the records cannot be read: {error}")))?;
            Ok((list, JobSource::Records))
        }
    }
}

/// Lists the jobs.
fn list_jobs(place: &JobsListArgs) -> Result<(Exit, Value), JobsError> {
    let (JobList { jobs, unreadable }, source) = all_jobs(place)?;
    say_source(source);
    if jobs.is_empty() {
        say("  no jobs");
    } else {
        let mut table = TextTable::new(&["job", "state", "client", "records of", "transactionTime", "done", "files"]);
        for job in &jobs {
            let done = format!("{} %", job.percent);
            let files = grouped(job.files.len() as u64);
            table.row([&job.id, state_text(job), &job.client, &population(job), &job.transaction_time, &done, &files]);
        }
        table.lines().iter().for_each(|line| say(line));
    }
    for (id, reason) in &unreadable {
        complain(&format!("the record {id} cannot be read: {reason}"));
    }
    let exit = if unreadable.is_empty() { Exit::Done } else { Exit::Partial };
    let lost: Vec<Value> = unreadable.iter().map(|(id, reason)| json!({ "id": id, "reason": reason })).collect();
    Ok((exit, json!({ "source": source.name(), "jobs": jobs, "unreadable": lost })))
}

/// Says that the service is stopped, if it is.
fn say_source(source: JobSource) {
    if source == JobSource::Records {
        say("no service answers: this is what the records on disk say");
    }
}

/// The id of a command, if it is one.
fn job_id(args: &JobArgs) -> Result<&str, JobsError> {
    match is_job_id(&args.id) {
        true => Ok(&args.id),
        false => Err(JobsError::new(
            Exit::BadRequest,
            "the id of a job is 32 digits from 0 to f, the last part of its status URL: outpour jobs list has them",
        )),
    }
}

/// What is said of a job that is not there.
fn no_such_job() -> JobsError {
    JobsError::new(
        Exit::BadRequest,
        "there is no such job, or it has expired: outpour jobs list has those that are there",
    )
}

/// Shows one job.
fn show_job(args: &JobArgs) -> Result<(Exit, Value), JobsError> {
    let id = job_id(args)?;
    let asked = ask_service(&args.place.data, "GET", &format!("/admin/v1/jobs/{id}"));
    let (job, source) = match asked.map_err(|error| unreachable_error(&args.place, &error))? {
        Some(answer) => (read_document(expect_status(answer, 200)?)?, JobSource::Service),
        None => {
            let (list, _) = all_jobs(&args.place)?;
            (list.jobs.into_iter().find(|job| job.id == id).ok_or_else(no_such_job)?, JobSource::Records)
        }
    };
    say_source(source);
    lines_of(&job).iter().for_each(|line| say(line));
    Ok((Exit::Done, json!({ "source": source.name(), "job": job })))
}

/// Removes one job.
fn remove_job(args: &JobArgs) -> Result<(Exit, Value), JobsError> {
    let id = job_id(args)?;
    let asked = ask_service(&args.place.data, "DELETE", &format!("/admin/v1/jobs/{id}"));
    let source = match asked.map_err(|error| unreachable_error(&args.place, &error))? {
        Some(answer) => {
            expect_status(answer, 202)?;
            JobSource::Service
        }
        None => match recorded(&args.place)?.remove(id) {
            Ok(RecordRemoval::Removed) => JobSource::Records,
            Ok(RecordRemoval::Unknown) => return Err(no_such_job()),
            Ok(RecordRemoval::Busy) => {
                let text = "a service has these records, and does not answer at admin.sock in --data: its log says why";
                return Err(JobsError::new(Exit::Failed, text));
            }
            Err(error) => return Err(JobsError::new(Exit::Failed, format!("the job cannot be removed: {error}"))),
        },
    };
    say(&format!("job {id} is removed, and its files go"));
    Ok((Exit::Done, json!({ "source": source.name(), "removed": id })))
}

/// The state of a job in a word.
fn state_text(job: &JobOverview) -> &'static str {
    match job.state {
        JobState::Queued => "queued",
        JobState::Running if job.awaits_space => "waits for room",
        JobState::Running => "running",
        JobState::Complete => "complete",
        JobState::Failed => "failed",
        JobState::Expired => "expired",
    }
}

/// Whose records a job exports, in words.
fn population(job: &JobOverview) -> String {
    match (&job.group, job.population.as_str()) {
        (Some(group), _) => format!("Group/{group}"),
        (None, "allPatients") => "all patients".to_string(),
        (None, "patient") => "one patient".to_string(),
        (None, other) => other.to_string(),
    }
}

/// A job for people: a line for each fact, then a table of its files.
fn lines_of(job: &JobOverview) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<16} {text}"));
    line("job", job.id.clone());
    line("state", format!("{}, {} % done", state_text(job), job.percent));
    if let Some(failure) = &job.failure {
        line("failed", failure.clone());
    }
    line("client", if job.client.is_empty() { "anybody".to_string() } else { job.client.clone() });
    line("mount", job.mount.clone());
    let only = job.patients.map_or_else(String::new, |patients| format!(", {} of them", counted(patients, "patient")));
    line("records of", population(job) + &only);
    line("types", if job.types.is_empty() { "all".to_string() } else { job.types.join(", ") });
    if job.type_filters > 0 {
        line("filters", counted(job.type_filters, "filter"));
    }
    let instants = [
        ("since", &job.since),
        ("until", &job.until),
        ("transactionTime", &Some(job.transaction_time.clone())),
        ("accepted", &Some(job.accepted.clone())),
        ("ended", &job.ended),
        ("expires", &job.expires),
    ];
    for (name, instant) in instants {
        if let Some(instant) = instant {
            line(name, instant.clone());
        }
    }
    if let Some(planned) = &job.planned {
        let (rows, complete) = (grouped(planned.rows), grouped(planned.complete));
        line(
            "planned",
            format!("{rows} resources in {}, {complete} of them complete", counted(planned.shards, "file")),
        );
    }
    line("messages", grouped(job.messages));
    if !job.files.is_empty() {
        let mut table = TextTable::new(&["file", "type", "lines", "size"]);
        for file in &job.files {
            table.row([&file.name, &file.r#type, &grouped(file.count), &format_bytes(file.bytes)]);
        }
        lines.extend(table.lines());
    }
    lines
}
