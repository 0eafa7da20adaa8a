//! The plan of an index in tasks: which ranges of which store files each task scans. Nothing of the index is written by it.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::codec::compression::UnprovenPolicy;
use crate::error::{ExportError, IndexError};
use crate::extract::Validate;
use crate::extract::rules::{LineRules, LoneSurrogates};
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::id::IdRule;
use crate::fhir::reference::PatientReferences;
use crate::index::scan_plan::{PlannedFile, PlannedRange, plan_scan};
use crate::index::segment::layout;
use crate::index::store_listing::StoreListing;
use crate::store::Store;
use crate::store::choices::{RowChoices, RowRules};
use crate::store::walk::is_store_name;
use crate::sys::durability::FileSync;
use crate::tasks::hashed_record::HashedRecord;
use crate::tasks::job_files::{SEGMENTS, TASKS};
use crate::tasks::job_plan::TaskPlan;
use crate::tasks::new_job::{open_new_job, publish_plan, write_error};

/// Version of the plan of an index, and of the records of its tasks.
const INDEX_JOB_FORMAT: u32 = 1;
/// Bytes of store files of a task, where the number of tasks is not given: some seconds of work.
const TASK_BYTES: u64 = 4 << 30;
/// Most tasks that are planned unless more are asked for; schedulers bound arrays of tasks (Slurm: 1,001 by default).
const TASKS_DEFAULT_MAX: usize = 1000;

/// The plan of an index in tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IndexJobPlan {
    /// Which build made it.
    pub build: String,
    /// Hash of everything else in this record.
    pub job_id: String,
    /// The store, absolute, links resolved.
    pub store: String,
    /// The index directory, absolute.
    pub index_dir: String,
    /// The root of the job, absolute, links resolved.
    pub job: String,
    /// How rows are read.
    pub rules: PlannedRules,
    /// Whether links in the store are followed.
    pub follow_symlinks: bool,
    /// Whether an index that was made by other rules is made again.
    pub remake: bool,
    /// Percent of the resources of the last snapshot that may be gone, as whoever planned allows it.
    pub allow_missing: f64,
    /// The files of the store; what is added later is not indexed.
    pub listing: StoreListing,
    /// The files that are scanned, in store order.
    pub files: Vec<PlannedFile>,
    /// The ranges of each task. Together, in the order of the tasks, they are what a refresh would scan.
    pub tasks: Vec<Vec<PlannedRange>>,
}

/// How rows are read, by names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlannedRules {
    validate: String,
    unproven: String,
    ids: String,
    lone_surrogates: String,
    patient_references: String,
    compartment_paths: String,
}

impl PlannedRules {
    /// The names of rules.
    fn of((lines, unproven): RowRules) -> PlannedRules {
        PlannedRules {
            validate: lines.validate.name().to_string(),
            unproven: unproven.name().to_string(),
            ids: lines.ids.name().to_string(),
            lone_surrogates: lines.lone_surrogates.name().to_string(),
            patient_references: lines.patient_references.name().to_string(),
            compartment_paths: lines.compartment_paths.name().to_string(),
        }
    }

    /// The rules of these names; `None` if one is unknown.
    pub(crate) fn rules(&self) -> Option<RowRules> {
        fn named<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str, text: &str) -> Option<T> {
            all.iter().copied().find(|one| name(*one) == text)
        }
        let lines = LineRules {
            validate: named(&Validate::ALL, Validate::name, &self.validate)?,
            ids: named(&IdRule::ALL, IdRule::name, &self.ids)?,
            lone_surrogates: named(&LoneSurrogates::ALL, LoneSurrogates::name, &self.lone_surrogates)?,
            patient_references: named(&PatientReferences::ALL, PatientReferences::name, &self.patient_references)?,
            compartment_paths: named(&CompartmentPaths::ALL, CompartmentPaths::name, &self.compartment_paths)?,
        };
        Some((lines, named(&UnprovenPolicy::ALL, UnprovenPolicy::name, &self.unproven)?))
    }
}

impl HashedRecord for IndexJobPlan {
    fn stated_hash(&mut self) -> &mut String {
        &mut self.job_id
    }
}

impl TaskPlan for IndexJobPlan {
    const OTHER: (&'static str, &'static str) = (", spans ", "`outpour run-task` and `outpour commit`");

    fn build_id() -> String {
        let (crate_version, index) = (env!("CARGO_PKG_VERSION"), layout::VERSION);
        format!("outpour {crate_version}, index job {INDEX_JOB_FORMAT}, index {index}")
    }

    fn job(&self) -> &str {
        &self.job
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.tasks.is_empty() {
            return Err("it has no task");
        }
        if self.rules.rules().is_none() {
            return Err("it has a rule that is none");
        }
        if !self.files.windows(2).all(|pair| pair[0].name.as_bytes() < pair[1].name.as_bytes()) {
            return Err("its files are not in store order");
        }
        // A name leads nowhere but into the store.
        if !self.files.iter().all(|file| is_store_name(&file.name)) {
            return Err("it names a file that is none of a store");
        }
        let is_sound = |range: &PlannedRange| {
            let file = self.files.get(range.file as usize);
            file.is_some_and(|file| range.part.is_of(file.compression))
        };
        if !self.tasks.iter().flatten().all(is_sound) {
            return Err("it has a range that is none of its file");
        }
        let with_ranges: HashSet<u32> = self.tasks.iter().flatten().map(|range| range.file).collect();
        if with_ranges.len() != self.files.len() {
            return Err("it has a file without a range");
        }
        Ok(())
    }
}

impl IndexJobPlan {
    /// The choices by which a store is opened as it was planned.
    pub(crate) fn choices(&self) -> RowChoices {
        let Some((lines, unproven)) = self.rules.rules() else { unreachable!("checked when it was read") };
        RowChoices {
            validate: Some(lines.validate),
            unproven: Some(unproven),
            ids: Some(lines.ids),
            lone_surrogates: Some(lines.lone_surrogates),
            patient_references: Some(lines.patient_references),
            compartment_paths: Some(lines.compartment_paths),
            follow_symlinks: Some(self.follow_symlinks),
        }
    }

    /// The ranges of all tasks, in their order.
    pub(crate) fn ranges(&self) -> Vec<PlannedRange> {
        self.tasks.iter().flatten().cloned().collect()
    }
}

/// An index that was planned.
pub(crate) struct PlannedIndex {
    /// Its record.
    pub plan: IndexJobPlan,
    /// Bytes on disk that each task covers.
    pub task_bytes: Vec<u64>,
}

/// How an index is planned.
pub(crate) struct IndexJobOptions<'a> {
    /// The root of the job, which is made if it is not there.
    pub job: &'a Path,
    /// A name that no other planner has, on whatever machine.
    pub writer: &'a str,
    /// Number of tasks; as many as [`TASK_BYTES`] ask for if `None`.
    pub tasks: Option<usize>,
    /// Whether the plan is synced.
    pub sync: FileSync,
}

/// Plans the index of a store in tasks. Runs on the current rayon pool.
///
/// # Errors
/// [`ExportError`]: what fails in the store or its index, a root that holds another job or something else.
pub(crate) fn plan_index(store: &Store, options: &IndexJobOptions<'_>) -> Result<PlannedIndex, ExportError> {
    let (root, _lock) = open_new_job(options.job, options.sync, [SEGMENTS, TASKS, SEGMENTS])?;
    root.directory.make_directory(TASKS).map_err(|error| write_error(&root, TASKS, error))?;
    let scan = plan_scan(store)?;
    let bytes: u64 = scan.range_bytes.iter().sum();
    let asked_for = || (bytes.div_ceil(TASK_BYTES) as usize).clamp(1, TASKS_DEFAULT_MAX);
    let (ranges, task_bytes) = deal(scan.ranges, &scan.range_bytes, options.tasks.unwrap_or_else(asked_for).max(1));
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let plan = IndexJobPlan {
        build: IndexJobPlan::build_id(),
        job_id: String::new(),
        store: absolute(store.root()).display().to_string(),
        index_dir: index_dir_of(store)?,
        job: absolute(root.directory.path()).display().to_string(),
        rules: PlannedRules::of(scan.rules),
        follow_symlinks: scan.follow_symlinks,
        remake: store.options().remake,
        allow_missing: store.options().allow_missing,
        listing: scan.listing,
        files: scan.files,
        tasks: ranges,
    }
    .hashed();
    publish_plan(&root, [SEGMENTS, TASKS, ""], options.writer, &plan)?;
    Ok(PlannedIndex { plan, task_bytes })
}

/// Path of the index directory of a store, absolute; it need not be there.
///
/// # Errors
/// When the directory of this process is gone.
pub(crate) fn index_dir_of(store: &Store) -> Result<String, IndexError> {
    let path = store.index_dir();
    let read = |source| IndexError::Read { path: path.clone(), source };
    let absolute = std::path::absolute(&path).map_err(read)?;
    // Below links that stand, a new directory has the same path later.
    let (above, name) = (absolute.parent().unwrap_or(&absolute), absolute.file_name().unwrap_or_default());
    let resolved = absolute.canonicalize().or_else(|_| above.canonicalize().map(|above| above.join(name)));
    Ok(resolved.unwrap_or(absolute).display().to_string())
}

/// Cuts ranges, in their order, into so many tasks of about as many bytes each; and the bytes of each. Some may be empty: their
/// number is what was asked for.
fn deal(ranges: Vec<PlannedRange>, bytes: &[u64], tasks: usize) -> (Vec<Vec<PlannedRange>>, Vec<u64>) {
    let all: u128 = bytes.iter().map(|bytes| u128::from(*bytes)).sum();
    let (mut dealt, mut sums) = (vec![Vec::new(); tasks], vec![0; tasks]);
    let mut before: u128 = 0;
    for (range, bytes) in ranges.into_iter().zip(bytes) {
        // By the middle of the range, so that a long one goes to where most of it belongs.
        let middle = 2 * before + u128::from(*bytes);
        let task = ((middle * tasks as u128) / (2 * all).max(1)).min(tasks as u128 - 1) as usize;
        dealt[task].push(range);
        sums[task] += bytes;
        before += u128::from(*bytes);
    }
    (dealt, sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::scan_plan::PlannedPart;
    use proptest::prelude::*;

    proptest! {
        /// Each range is in one task, in order, and no task has more than its share and one range.
        #[test]
        fn ranges_are_dealt_in_order(bytes in prop::collection::vec(0..1000_u64, 0..60), tasks in 1..20_usize) {
            let range = |file: usize| PlannedRange { file: file as u32, part: PlannedPart::Compressed(0, 0, None) };
            let ranges: Vec<PlannedRange> = (0..bytes.len()).map(range).collect();
            let (dealt, sums) = deal(ranges.clone(), &bytes, tasks);
            prop_assert_eq!(dealt.len(), tasks);
            prop_assert_eq!(dealt.concat(), ranges);
            let share = bytes.iter().sum::<u64>() / tasks as u64 + 1;
            let longest = bytes.iter().max().copied().unwrap_or(0);
            prop_assert!(sums.iter().all(|sum| *sum <= share + longest), "{sums:?}");
        }
    }
}
