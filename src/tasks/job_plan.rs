//! The plan of a job, `plan.json`: what every task and the commit need to know, and nothing that only the planner needs.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::codec::compression::Compression;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::hash::digest::DigestAlgorithm;
use crate::issue::Severity;
use crate::spans::span_file::SPAN_FORMAT;
use crate::tasks::hashed_record::HashedRecord;
use crate::tasks::job_error::JobError;
use crate::tasks::job_files::{DATA, JobRoot, PLAN, PLANNED, data_name};
use crate::write::journal::Receipt;

/// Version of the plan and of the records of tasks.
const JOB_FORMAT: u32 = 1;

/// What decides the bytes of an output file besides the plan: another build may not run its tasks.
fn build_id() -> String {
    let zstd = zstd::zstd_safe::version_string();
    format!("outpour {}, job {JOB_FORMAT}, spans {SPAN_FORMAT}, zstd {zstd}", env!("CARGO_PKG_VERSION"))
}

/// The plan of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobPlan {
    /// Which build made it, see [`build_id`].
    pub build: String,
    /// Hash of everything else in this record.
    pub job_id: String,
    /// Name of the plan, as in the manifest of an export.
    pub plan_id: String,
    /// The store, absolute, links resolved.
    pub store: String,
    /// The root of the job, likewise.
    pub job: String,
    /// Whether links in the store are followed.
    pub follow_symlinks: bool,
    /// T of the snapshot.
    pub transaction_time: String,
    /// The request as its kick-off URL.
    pub request: String,
    /// What is put before names of files in the manifest.
    pub base_url: String,
    /// Coding of the files.
    pub compression: Compression,
    /// Digest of the files.
    pub digest: DigestAlgorithm,
    /// The elements that resources keep, `_elements`.
    pub elements: Vec<String>,
    /// The output files, by type name, then ordinal.
    pub shards: Vec<JobShard>,
    /// The tasks: groups of places in `shards`. The files of a group are written together, because they take rows from a file
    /// that has to be decoded from its start.
    pub tasks: Vec<Vec<Vec<u32>>>,
    /// The files of deletions, which the planner has written.
    pub deleted: Vec<Receipt>,
    /// The files of messages, likewise.
    pub error: Vec<Receipt>,
    /// The worst severity of the messages.
    pub worst: Option<Severity>,
    /// The extension of the manifest.
    pub extension: Value,
}

/// An output file of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobShard {
    /// Type of its rows.
    #[serde(serialize_with = "write_type", deserialize_with = "read_type")]
    pub r#type: ResourceType,
    /// Its number within the type, from 1.
    pub ordinal: u32,
    /// Number of its rows.
    pub rows: u64,
    /// Its uncompressed bytes, newlines included; of reduced rows the most that they can be.
    pub bytes: u64,
    /// Bytes of its rows as they are in the store, newlines included.
    pub source_bytes: u64,
    /// Hash of the file of its spans.
    pub spans: String,
}

/// Writes a resource type as its name.
fn write_type<S: Serializer>(of_type: &ResourceType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(of_type.name())
}

/// Reads a resource type from its name.
fn read_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ResourceType, D::Error> {
    let name = String::deserialize(deserializer)?;
    ResourceType::parse(&name).ok_or_else(|| serde::de::Error::custom("it is no resource type"))
}

/// A record that says what the tasks of a job are.
pub(crate) trait TaskPlan: HashedRecord {
    /// Which build makes it: the others cannot read it, or would write other bytes.
    fn build_id() -> String;

    /// What the builds of another kind of plan begin with, and which commands it is for.
    const OTHER: (&'static str, &'static str);

    /// The root of its job, absolute, links resolved.
    fn job(&self) -> &str;

    /// Checks what a hash does not: a plan may have been made by hand.
    ///
    /// # Errors
    /// A clause that says what is wrong.
    fn check(&self) -> Result<(), &'static str>;

    /// Reads and checks the plan of a job.
    ///
    /// # Errors
    /// [`JobError::Refused`]: there is none, it was made by another build or of another job, or it is not as it was written;
    /// [`JobError::Io`].
    fn read(root: &JobRoot) -> Result<Self, JobError> {
        let path = root.path(PLAN);
        let Some(bytes) = root.read(PLAN)? else {
            return Err(JobError::damaged(&path, "it is not there; plan first, or give the directory of the job"));
        };
        let plan = Self::from_bytes(&bytes).map_err(|reason| JobError::damaged(&path, &reason))?;
        let here = root.directory.path().canonicalize().map_err(|error| JobError::io(root.directory.path(), error))?;
        if here.display().to_string() != plan.job() {
            return Err(JobError::damaged(&path, "it is of a job in another directory; give that one, or plan here"));
        }
        Ok(plan)
    }

    /// Reads and checks a plan, wherever it lies.
    ///
    /// # Errors
    /// A clause that says what is wrong.
    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        /// The one field that tells whether the others can be read.
        #[derive(Deserialize)]
        struct Build {
            build: String,
        }
        let Build { build } = serde_json::from_slice(bytes).map_err(|_| "it is no plan of a job")?;
        let (other, commands) = Self::OTHER;
        if build.contains(other) {
            return Err(format!("it is for {commands}"));
        }
        let own = Self::build_id();
        if build != own {
            return Err(format!("{build:?} has made it, and this is {own:?}; run the same build on every machine"));
        }
        let plan = Self::from_written(bytes).ok_or("it is not as it was written; plan anew in another directory")?;
        plan.check()?;
        Ok(plan)
    }
}

impl HashedRecord for JobPlan {
    fn stated_hash(&mut self) -> &mut String {
        &mut self.job_id
    }
}

impl TaskPlan for JobPlan {
    const OTHER: (&'static str, &'static str) = (", index job ", "`outpour index-task` and `outpour index-commit`");

    fn build_id() -> String {
        build_id()
    }

    fn job(&self) -> &str {
        &self.job
    }

    fn check(&self) -> Result<(), &'static str> {
        let mut numbers: Vec<u32> = self.tasks.iter().flatten().flatten().copied().collect();
        numbers.sort_unstable();
        if !numbers.iter().enumerate().all(|(i, number)| i == *number as usize) || numbers.len() != self.shards.len() {
            return Err("its tasks do not have each file once");
        }
        if self.tasks.iter().flatten().any(Vec::is_empty) || self.tasks.is_empty() {
            return Err("it has a group without files, or no task");
        }
        let mut before: Option<&JobShard> = None;
        for shard in &self.shards {
            let ordinal = before.filter(|before| before.r#type == shard.r#type).map_or(0, |before| before.ordinal);
            let in_order = before.is_none_or(|before| before.r#type.index() <= shard.r#type.index());
            if !in_order || shard.ordinal != ordinal + 1 || shard.rows == 0 || shard.source_bytes > shard.bytes {
                return Err("its files are not as outpour numbers them");
            }
            before = Some(shard);
        }
        if Instant::parse(&self.transaction_time).is_none() {
            return Err("it has no time");
        }
        let (_, problems) = ElementSelection::parse(self.elements.iter().map(String::as_str));
        if !problems.is_empty() {
            return Err("it has an element that is none");
        }
        for (stem, receipts) in [("deleted/Bundle", &self.deleted), ("error/OperationOutcome", &self.error)] {
            let is_named = |(i, receipt): (usize, &Receipt)| {
                receipt.file == data_name(stem, i as u32 + 1, PLANNED, self.compression)
            };
            if !receipts.iter().enumerate().all(is_named) {
                return Err("it names a file that it would not write");
            }
        }
        Ok(())
    }
}

impl JobPlan {
    /// The elements that resources keep.
    pub(crate) fn elements(&self) -> ElementSelection {
        ElementSelection::parse(self.elements.iter().map(String::as_str)).0
    }

    /// Name of an output file as an attempt writes it.
    pub(crate) fn file_name(&self, shard: usize, attempt: &str) -> String {
        let JobShard { r#type, ordinal, .. } = &self.shards[shard];
        data_name(r#type.name(), *ordinal, attempt, self.compression)
    }

    /// Folders that files of these shards lie in, each once.
    pub(crate) fn folders(&self, shards: impl IntoIterator<Item = usize>) -> Vec<String> {
        let mut folders: Vec<String> =
            shards.into_iter().map(|shard| format!("{DATA}/{}", self.shards[shard].r#type.name())).collect();
        folders.sort();
        folders.dedup();
        folders
    }
}
