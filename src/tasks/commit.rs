//! The commit of a job: the manifest, once every task has its record, and the removal of what no record names.

use std::collections::BTreeSet;
use std::path::Path;

use crate::fhir::instant::Instant;
use crate::hash::digest::DigestAlgorithm;
use crate::issue::Severity;
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::tasks::job_error::JobError;
use crate::tasks::job_files::{Creation, DATA, JobRoot, MANIFEST, TASKS, task_name};
use crate::tasks::job_plan::JobPlan;
use crate::tasks::task_record::{TaskRecord, shards_of};
use crate::write::journal::Receipt;
use crate::write::manifest::Manifest;

/// A committed job.
#[derive(Debug)]
pub(crate) struct CommittedJob {
    /// Its manifest.
    pub manifest: Manifest,
    /// The worst severity of its messages.
    pub worst: Option<Severity>,
    /// Whether its manifest stood before this commit began.
    pub was_committed: bool,
    /// Names of files that were removed because no record names them.
    pub removed: Vec<String>,
}

/// Commits a job whose tasks have ended. The same once more changes nothing but what is left to be removed.
///
/// # Errors
/// [`JobError::Missing`] when a task has no record; [`JobError`] otherwise. Without a manifest nothing is published.
pub(crate) fn commit(job: &Path, sync: FileSync) -> Result<CommittedJob, JobError> {
    let root = JobRoot { directory: Directory::open(job).map_err(|error| JobError::io(job, error))?, sync };
    let plan = JobPlan::read(&root)?;
    // 1. The records.
    let (mut records, mut missing) = (Vec::new(), Vec::new());
    for task in 0..plan.tasks.len() {
        match TaskRecord::read(&root, &plan, task)? {
            Some(record) => records.push(record),
            None => missing.push(task),
        }
    }
    if !missing.is_empty() {
        return Err(JobError::Missing { missing, tasks: plan.tasks.len() });
    }
    let mut output: Vec<Option<Receipt>> = vec![None; plan.shards.len()];
    for record in records {
        for (shard, receipt) in shards_of(&plan, record.task).into_iter().zip(record.files) {
            output[shard] = Some(receipt);
        }
    }
    let output: Vec<Receipt> = output.into_iter().flatten().collect();
    // 2. Their files.
    for receipt in output.iter().chain(&plan.deleted).chain(&plan.error) {
        let found = root.directory.metadata(&receipt.file);
        let found = found.map_err(|error| JobError::io(root.path(&receipt.file), error))?;
        if found.is_none_or(|found| !found.is_file() || found.len() != receipt.file_bytes) {
            let path = root.path(&receipt.file);
            return Err(JobError::damaged(
                &path,
                "it is missing, or its size is not what its record states; export anew",
            ));
        }
    }
    // 3. The manifest.
    let Some(as_of) = Instant::parse(&plan.transaction_time) else { unreachable!("checked when it was read") };
    let without_digest = plan.digest == DigestAlgorithm::None;
    let output: Vec<Receipt> = output
        .into_iter()
        .map(|receipt| Receipt { digest: receipt.digest.filter(|_| !without_digest), ..receipt })
        .collect();
    let (request, extension) = (plan.request.clone(), plan.extension.clone());
    let manifest = Manifest::assemble(&as_of, request, &plan.base_url, &output, &plan.deleted, &plan.error, extension);
    let bytes = manifest.to_bytes();
    let before = root.read(MANIFEST)?;
    let was_committed = before.is_some();
    let stands = match before {
        Some(before) => before,
        None => {
            // The files had their directories synced before their record was made.
            let writer = format!("commit-{}", std::process::id());
            match root.create_once(MANIFEST, &writer, &bytes)? {
                Creation::Made => bytes.clone(),
                Creation::Exists => root.read(MANIFEST)?.unwrap_or_default(),
            }
        }
    };
    if stands != bytes {
        return Err(JobError::Differs(format!(
            "{} is not what the records of the tasks come to: the job was changed behind the commit; export anew",
            root.path(MANIFEST).display()
        )));
    }
    // 4. What lost.
    let kept: BTreeSet<&str> =
        output.iter().chain(&plan.deleted).chain(&plan.error).map(|receipt| receipt.file.as_str()).collect();
    let mut removed = Vec::new();
    remove_others(&root, DATA, &kept, &mut removed)?;
    let records: BTreeSet<String> = (0..plan.tasks.len()).map(task_name).collect();
    let records = records.iter().map(String::as_str).collect();
    remove_others(&root, TASKS, &records, &mut removed)?;
    Ok(CommittedJob { manifest, worst: plan.worst, was_committed, removed })
}

/// Removes the files below a folder of the job that are not among `kept`; what is gone by then is passed over. Nothing that stands in
/// no job is touched: names that no attempt gives.
fn remove_others(
    root: &JobRoot,
    folder: &str,
    kept: &BTreeSet<&str>,
    removed: &mut Vec<String>,
) -> Result<(), JobError> {
    let failed = |error| JobError::io(root.path(folder), error);
    let directory = match root.directory.directory(folder) {
        Ok(directory) => directory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for name in directory.names().map_err(failed)? {
        let Some(last) = name.to_str() else { continue };
        let name = format!("{folder}/{last}");
        match root.directory.metadata(&name) {
            Ok(Some(found)) if found.is_dir() => remove_others(root, &name, kept, removed)?,
            Ok(Some(_)) if !kept.contains(name.as_str()) && is_of_attempt(last) => {
                match root.directory.remove_file(&name) {
                    Ok(true) => removed.push(name),
                    Ok(false) => {}
                    Err(error) => return Err(JobError::io(root.path(&name), error)),
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file is one that an attempt makes: an output file, or one that is being written.
fn is_of_attempt(name: &str) -> bool {
    let name = name.strip_prefix('.').unwrap_or(name);
    name.contains(".ndjson") || name.contains(".json.")
}
