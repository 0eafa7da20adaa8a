//! The end of an attempt of a task: its record, which only the first attempt can make.

use crate::tasks::hashed_record::HashedRecord;
use crate::tasks::job_error::JobError;
use crate::tasks::job_files::{Creation, JobRoot, differs_name, is_attempt, task_name};

/// What an attempt of a task has written, `tasks/<i>.json`.
pub(crate) trait AttemptRecord: HashedRecord {
    /// The plan that its task is of.
    type Plan;

    /// Name of the attempt.
    fn attempt(&self) -> &str;

    /// Whether it says what a task of this plan writes.
    fn is_of(&self, plan: &Self::Plan, task: usize) -> bool;

    /// Whether another attempt has written the same.
    fn has_same_contents(&self, other: &Self) -> bool;

    /// The record of a task; `None` if the bytes are not as it is written, or of another plan.
    fn of_bytes(bytes: &[u8], plan: &Self::Plan, task: usize) -> Option<Self> {
        Self::from_written(bytes).filter(|record| record.is_of(plan, task))
    }

    /// Reads the record of a task; `None` if the task has not ended.
    ///
    /// # Errors
    /// [`JobError::Refused`] when it is not as it was written, or of another plan; [`JobError::Io`].
    fn read(root: &JobRoot, plan: &Self::Plan, task: usize) -> Result<Option<Self>, JobError> {
        let name = task_name(task);
        let Some(bytes) = root.read(&name)? else { return Ok(None) };
        let text = "it is not as a task of this plan writes it; plan anew in another directory";
        let wrong = || JobError::damaged(&root.path(&name), text);
        Self::of_bytes(&bytes, plan, task).map(Some).ok_or_else(wrong)
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) struct TaskOutcome<R> {
    /// The record of the task.
    pub record: R,
    /// Whether this attempt has made it.
    pub is_own: bool,
}

/// Refuses what is no task of a plan of so many, and what cannot name an attempt; `wrong` says what else is.
///
/// # Errors
/// [`JobError::Refused`] with everything that is wrong.
pub(crate) fn check_task(task: usize, tasks: usize, attempt: &str, mut wrong: Vec<String>) -> Result<(), JobError> {
    if task >= tasks {
        wrong.push(format!("task {task} is none of the plan's, which are 0 to {}", tasks - 1));
    }
    if !is_attempt(attempt) {
        wrong.push("the name of an attempt has 1 to 80 letters, digits, '-' and '_'".to_string());
    }
    if wrong.is_empty() { Ok(()) } else { Err(JobError::Refused(wrong.join("\n"))) }
}

/// Runs an attempt of a task, unless its record stands: `write` writes its files and returns its record, `remove` removes them
/// if the record does not become that of the task.
///
/// # Errors
/// What `write` fails with; [`JobError::Differs`] when another attempt has written something else.
pub(crate) fn run_attempt<R: AttemptRecord>(
    root: &JobRoot,
    plan: &R::Plan,
    (task, attempt): (usize, &str),
    write: impl FnOnce() -> Result<R, JobError>,
    remove: impl Fn(),
) -> Result<TaskOutcome<R>, JobError> {
    if let Some(record) = R::read(root, plan, task)? {
        return Ok(TaskOutcome { record, is_own: false });
    }
    let written = write().and_then(|record| {
        let made = root.create_once(&task_name(task), attempt, &record.to_bytes())?;
        Ok((record, made))
    });
    match written {
        Ok((record, Creation::Made)) => Ok(TaskOutcome { record, is_own: true }),
        Ok((own, Creation::Exists)) => {
            remove();
            let first = R::read(root, plan, task)?;
            let first = first.ok_or_else(|| JobError::Differs(format!("the record of task {task} is gone")))?;
            match first.has_same_contents(&own) {
                true => Ok(TaskOutcome { record: first, is_own: false }),
                false => {
                    // A commit must not choose between them.
                    root.create_once(&differs_name(task), attempt, &own.to_bytes())?;
                    Err(JobError::Differs(format!(
                        "task {task}: attempts {:?} and {:?} have written different bytes from the same plan: a machine or a build is \
                         at fault; plan anew, and say so",
                        first.attempt(),
                        own.attempt()
                    )))
                }
            }
        }
        Err(error) => match R::read(root, plan, task) {
            // The record stands, and only its directory could not be synced; or nobody knows whether it does.
            Ok(Some(record)) if record.attempt() == attempt => Err(error),
            Err(_) => Err(error),
            Ok(first) => {
                remove();
                // Whoever cleans up behind a commit may have taken the files of an attempt that came too late.
                match first {
                    Some(record) if matches!(error, JobError::Io { .. }) => Ok(TaskOutcome { record, is_own: false }),
                    _ => Err(error),
                }
            }
        },
    }
}

/// The records of all tasks of a job.
///
/// # Errors
/// [`JobError::Missing`] with the tasks that have none; [`JobError::Differs`] when two attempts of a task have written different
/// bytes; what reading fails with.
pub(crate) fn records_of_all<R: AttemptRecord>(
    root: &JobRoot,
    plan: &R::Plan,
    tasks: usize,
) -> Result<Vec<R>, JobError> {
    for task in 0..tasks {
        if root.read(&differs_name(task))?.is_some() {
            let text = format!("two attempts of task {task} have written different bytes; plan anew, and say so");
            return Err(JobError::Differs(text));
        }
    }
    let (mut records, mut missing) = (Vec::new(), Vec::new());
    for task in 0..tasks {
        match R::read(root, plan, task)? {
            Some(record) => records.push(record),
            None => missing.push(task),
        }
    }
    if missing.is_empty() { Ok(records) } else { Err(JobError::Missing { missing, tasks }) }
}
