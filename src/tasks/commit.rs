//! The commit of a job: the manifest, once every task has its record, and the removal of what no record names.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crate::export::prepare::{DELETED, ERROR};
use crate::fhir::instant::Instant;
use crate::hash::digest::DigestAlgorithm;
use crate::issue::Severity;
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::tasks::attempt::records_of_all;
use crate::tasks::job_error::JobError;
use crate::tasks::job_files::{
    Creation, DATA, JobRoot, MANIFEST, PLAN, TASKS, is_data_name, is_unlinked, is_unlinked_record,
};
use crate::tasks::job_plan::{JobPlan, TaskPlan};
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

/// Commits a job whose tasks have ended. The same once more changes nothing but what is left to be removed. `writer` is a name that
/// no other commit has, on whatever machine.
///
/// # Errors
/// [`JobError::Missing`] when a task has no record; [`JobError`] otherwise. Without a manifest nothing is published.
pub(crate) fn commit(job: &Path, writer: &str, sync: FileSync) -> Result<CommittedJob, JobError> {
    let root = JobRoot { directory: Directory::open(job).map_err(|error| JobError::io(job, error))?, sync };
    let plan = JobPlan::read(&root)?;
    // 1. The records.
    let records: Vec<TaskRecord> = records_of_all(&root, &plan, plan.tasks.len())?;
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
                "it is missing, or its size is not what its record states: plan anew in another directory",
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
            match root.create_once(MANIFEST, writer, &bytes)? {
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
    let mut folders = plan.folders(0..plan.shards.len());
    folders.extend([DELETED, ERROR].map(|stem| format!("{DATA}/{stem}")));
    for folder in folders {
        let is_lost = |name: &str| is_data_name(name) && !kept.contains(format!("{folder}/{name}").as_str());
        remove_files(&root, &folder, &is_lost, &mut removed)?;
    }
    remove_files(&root, TASKS, &is_unlinked_record, &mut removed)?;
    // What planners and commits leave that were killed. One that is at work finds what stands in place of its own.
    let is_lost = |name: &str| is_unlinked(name, PLAN) || is_unlinked(name, MANIFEST);
    remove_files(&root, "", &is_lost, &mut removed)?;
    Ok(CommittedJob { manifest, worst: plan.worst, was_committed, removed })
}

/// Removes the files of a directory of the job, `""` for its root, whose names are `lost`; what is gone by then is passed over, and so is what is no
/// file.
pub(crate) fn remove_files(
    root: &JobRoot,
    folder: &str,
    lost: &dyn Fn(&str) -> bool,
    removed: &mut Vec<String>,
) -> Result<(), JobError> {
    let failed = |error| JobError::io(root.path(folder), error);
    let opened = match folder {
        "" => None,
        folder => match root.directory.directory(folder) {
            Ok(directory) => Some(directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        },
    };
    let directory = opened.as_ref().unwrap_or(&root.directory);
    for name in directory.names().map_err(failed)? {
        let Some(name) = name.to_str().filter(|name| lost(name)) else { continue };
        let is_file = directory.metadata(name).map_err(failed)?.is_some_and(|found| found.is_file());
        if is_file && directory.remove_file(name).map_err(failed)? {
            removed.push(if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") });
        }
    }
    Ok(())
}
