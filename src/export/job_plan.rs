//! The record of a job: what decides the bytes of an export, as a resumed run must find it again.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::ExportError;
use crate::fhir::Instant;
use crate::plan::Plan;
use crate::select::{ExportRequest, Population};
use crate::store::snapshot::ExtentRecord;
use crate::store::walk::is_store_name;
use crate::store::{Snapshot, SnapshotRecord, Store};
use crate::write::output_name::OutputName;
use crate::write::record::place_of;

/// First file of the record: everything that a resumed run must find again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobPlan {
    /// Name of the plan: a hash of all that decides its bytes.
    pub plan_id: String,
    /// The request, field by field, as normalised.
    pub request: BTreeMap<String, String>,
    /// The snapshot.
    pub snapshot: SnapshotRecord,
    /// The files: name, rows, uncompressed bytes.
    pub shards: Vec<(String, u64, u64)>,
    /// Where the run read from. Not part of the plan's name: the same bytes elsewhere are the same plan.
    #[serde(default)]
    pub origin: Origin,
}

/// Where a run read from, so that `verify --ledger` can count again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The store, as it was given.
    pub store: String,
    /// The store, absolute, links resolved.
    pub store_absolute: String,
    /// The file that names the population, absolute, if one does. What it held is known by its hash in the request.
    pub population_file: Option<String>,
}

impl Origin {
    pub(super) fn of(store: &Store, request: &ExportRequest) -> Origin {
        let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf()).display().to_string();
        let population_file = match &request.population {
            // What came through a pipe is not there to be read again.
            Population::Patients(path) | Population::GroupFile(path) if path.is_file() => Some(absolute(path)),
            Population::Patients(_) | Population::GroupFile(_) => None,
            Population::System | Population::AllPatients | Population::Group(_) => None,
        };
        Origin { store: store.root().display().to_string(), store_absolute: absolute(store.root()), population_file }
    }
}

impl JobPlan {
    /// Reads the record of an output directory, `.outpour-job/plan.json`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<JobPlan, String> {
        match JobPlan::read(bytes)? {
            (job, None) => Ok(job),
            (_, Some(wrong)) => Err(wrong),
        }
    }

    /// The same of a record that may be damaged, which is only to be shown: what can be read, and what is wrong with it.
    ///
    /// # Errors
    /// Where it cannot be read at all.
    pub fn read(bytes: &[u8]) -> Result<(JobPlan, Option<String>), String> {
        #[derive(Deserialize)]
        struct File {
            files: Vec<String>,
            job: JobPlan,
        }
        let File { files, job } = serde_json::from_slice(bytes).map_err(|error| place_of(&error))?;
        let wrong = job.check(&files).err();
        Ok((job, wrong))
    }

    /// Rows and bytes of each shard, by the name of its file.
    pub(super) fn by_name(&self) -> HashMap<&str, (u64, u64)> {
        self.shards.iter().map(|(name, rows, bytes)| (name.as_str(), (*rows, *bytes))).collect()
    }

    /// Checks a record that was read, as if a stranger had written it; `files` are the names beside it. Names are those of
    /// output files and each stands once, the shards' first; store files lie in the store; instants are instants.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it, without a word of what it holds.
    pub(super) fn check(&self, files: &[String]) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{what} is not as outpour writes it"));
        let is_hash = self.plan_id.len() == 32 && self.plan_id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hash {
            return wrong("planId");
        }
        let mut names = HashSet::new();
        for (at, name) in files.iter().enumerate() {
            let (Some(parsed), true) = (OutputName::parse(name), names.insert(name)) else { return wrong("files") };
            if parsed.folder.is_empty() != (at < self.shards.len()) {
                return wrong("files");
            }
        }
        let sized = |rows: u64, bytes: u64| rows > 0 && bytes / 2 >= rows;
        let listed = |(at, (name, rows, bytes)): (usize, &(String, u64, u64))| {
            files.get(at) == Some(name) && sized(*rows, *bytes)
        };
        if !self.shards.iter().enumerate().all(listed) {
            return wrong("shards");
        }
        if Instant::parse(&self.snapshot.as_of).is_none() {
            return wrong("snapshot.asOf");
        }
        let sound = |extent: &ExtentRecord| is_store_name(&extent.file) && extent.start <= extent.end;
        // In store order, and no byte in two of them.
        let ordered = |a: &ExtentRecord, b: &ExtentRecord| match a.file.as_bytes().cmp(b.file.as_bytes()) {
            Ordering::Equal => a.end <= b.start,
            order => order.is_lt(),
        };
        let extents = &self.snapshot.extents;
        if !extents.iter().all(sound) || !extents.is_sorted_by(ordered) {
            return wrong("snapshot.extents");
        }
        Ok(())
    }
}

/// Everything that decides the bytes of an export, by the name a user knows it under.
pub(super) fn job_plan(plan: &Plan, snapshot: &Snapshot, store: &Store) -> JobPlan {
    let request = &plan.request;
    let types: Vec<&str> = request.types.iter().map(|t| t.name()).collect();
    let instant = |at: &Option<Instant>| at.as_ref().map_or(String::new(), Instant::to_string);
    let population = match &request.population {
        Population::System => "system".to_string(),
        Population::AllPatients => "all patients".to_string(),
        Population::Patients(_) => format!("patients {:032x}", plan.cohort.file_hash.unwrap_or_default()),
        Population::Group(id) => format!("Group/{id}"),
        Population::GroupFile(_) => format!("Group file {:032x}", plan.cohort.file_hash.unwrap_or_default()),
    };
    let fields = [
        ("population", population),
        ("--type", types.join(",")),
        ("--since", instant(&request.since)),
        ("--until", instant(&request.until)),
        ("--members", format!("{:?}", request.members).to_lowercase()),
        ("--fhir-base", request.fhir_bases.join(" ")),
        ("--late", format!("{:?}", request.late).to_lowercase()),
        ("--missing-last-updated", format!("{:?}", request.missing_last_updated).to_lowercase()),
        ("--max-file-bytes", request.bounds.file_bytes.to_string()),
        ("--max-file-resources", request.bounds.file_resources.map_or(String::new(), |n| n.to_string())),
        ("--compress", format!("{:?}", request.coding).to_lowercase()),
        ("--digest", format!("{:?}", request.digest).to_lowercase()),
        ("--base-url", request.base_url.clone().unwrap_or_default()),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
    ];
    let mut fields = fields.to_vec();
    if !request.notes.is_empty() {
        let notes = serde_json::to_vec(&request.notes).expect("plain data");
        fields.push(("notes", format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&notes))));
    }
    let request: BTreeMap<String, String> = fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    let shards = plan.shards.iter().enumerate();
    let shards = shards.map(|(at, shard)| (plan.file_name(at), shard.rows, shard.bytes)).collect();
    let identity = serde_json::to_vec(&(&plan.snapshot_id, &request)).expect("plain data");
    let plan_id = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&identity));
    JobPlan { plan_id, request, snapshot: snapshot.record(), shards, origin: Origin::of(store, &plan.request) }
}

/// A resumed run must be the recorded one (the field that differs is named).
pub(super) fn same_job(recorded: &JobPlan, now: &JobPlan) -> Result<(), ExportError> {
    for (field, given) in &now.request {
        let then = recorded.request.get(field).cloned().unwrap_or_default();
        if then != *given {
            return Err(ExportError::Differs { field: field.clone(), recorded: then, given: given.clone() });
        }
    }
    if recorded.plan_id != now.plan_id || recorded.shards != now.shards {
        let (recorded, given) = (recorded.plan_id.clone(), now.plan_id.clone());
        return Err(ExportError::Differs { field: "the plan".to_string(), recorded, given });
    }
    Ok(())
}
