//! The patients of finished exports of Groups, kept as keys of 16 bytes so that increments on these exports can tell who joined and
//! left (GROUP-11). They outlive the jobs: of a job that is deleted or has expired nothing else is kept.
//!
//! ```text
//! <files>/baselines/<id of the job>.json   whose export it was, of what, and when
//! <files>/baselines/<id of the job>.keys   the keys of its patients: a hard link to the file in the job's record
//! ```
//!
//! The `.json` is written last and removed first: keys without it are a leftover. A baseline is there before the record of its job
//! says that the job is complete, so that whoever reads of the end can build on it. It is used for the client, the mount and the
//! Group that it is of, for nobody else. Only so many are kept of a Group for a client, and for a limited time.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::baseline::Baseline;
use crate::export::report::ExportReport;
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::hash::xxh3_128;
use crate::job::record::{JobRecord, OUT, RecordedBaseline, RecordedPopulation, StoredRequest, is_hex, is_job_id};
use crate::job::record_directory::{is_intact, with_checksum};
use crate::job::state::JobState;
use crate::key_set::ResourceKeySet;
use crate::limits::{BASELINE_RECORD_BYTES_MAX, BASELINE_SECONDS_MAX, BASELINES_PER_CLIENT_MAX};
use crate::policies::NewMembers;
use crate::request::ExportRequest;
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::write::journal::{COHORT, JOB, place_of_json_error};
use crate::write::manifest::EXPORT_KEY;

/// Name of the directory, beside the directories of the jobs; no job has such an id.
const BASELINES: &str = "baselines";
/// Name of the file in a job's directory that holds the patients of the export that it builds on.
pub(crate) const BASELINE_FILE: &str = "baseline";
/// Version of the form on disk.
const BASELINE_FORMAT: u32 = 1;

/// A finished export of a Group on which its client may build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptBaseline {
    /// [`BASELINE_FORMAT`].
    format: u32,
    /// Id of the job, which may be gone.
    job: String,
    /// Mount of the job.
    mount: String,
    /// Client of the job.
    client: String,
    /// Id of the Group.
    group: String,
    /// The transactionTime T.
    transaction_time: String,
    /// Types that were exported, sorted; all if there are none.
    types: Vec<String>,
    /// Hash of what else was asked for; see [`question_of`].
    question: String,
    /// Name of the plan of the export.
    plan_id: String,
    /// Digest of the keys of its patients.
    cohort: String,
}

impl KeptBaseline {
    /// Reads the form on disk of the job with this id, and checks it as if a stranger had written it.
    ///
    /// # Errors
    /// The reason, in words that repeat nothing of it.
    fn from_bytes(bytes: &[u8], job: &str) -> Result<KeptBaseline, String> {
        if !is_intact(bytes) {
            return Err("it is not as it was written".to_string());
        }
        let kept: KeptBaseline = serde_json::from_slice(bytes).map_err(|error| place_of_json_error(&error))?;
        let sound = kept.format == BASELINE_FORMAT
            && kept.job == job
            && Id::parse(kept.group.as_bytes()).is_some()
            && Instant::parse(&kept.transaction_time).is_some()
            && kept.types.is_sorted()
            && kept.types.iter().all(|name| ResourceType::parse(name).is_some())
            && [&kept.question, &kept.plan_id, &kept.cohort].into_iter().all(|text| is_hex(text, 32));
        if sound { Ok(kept) } else { Err("it is not as a baseline is kept".to_string()) }
    }

    /// Whether an increment may build on it: of this client, mount and Group, of T, for the same question, and with types that
    /// cover those that are asked for.
    fn serves(&self, asked: &AskedIncrement<'_>) -> bool {
        let covers = self.types.is_empty()
            || !asked.types.is_empty() && asked.types.iter().all(|of| self.types.binary_search(of).is_ok());
        self.mount == asked.mount
            && self.client == asked.client
            && self.group == asked.group
            && Instant::parse(&self.transaction_time).as_ref() == Some(asked.since)
            && self.question == asked.question
            && covers
    }

    /// Client, mount and Group, of which so many are kept.
    fn owner(&self) -> (&str, &str, &str) {
        (&self.client, &self.mount, &self.group)
    }
}

/// What an increment asks of a baseline.
struct AskedIncrement<'a> {
    mount: &'a str,
    client: &'a str,
    group: &'a str,
    since: &'a Instant,
    types: &'a [String],
    question: String,
}

/// Hash of what an increment must ask for as its baseline did, beside Group and types: which members count, to whom it is
/// restricted, and what of their records is exported. The bases of absolute references are not in it: members are compared by id,
/// and a service that moves to another URL keeps its baselines.
fn question_of(request: &StoredRequest, only_patients: Option<&[String]>) -> String {
    let only = only_patients.map(|ids| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    });
    let asked = (
        (&request.elements, &request.type_filters, &request.associated, request.context.name()),
        (request.members.name(), request.patient_strict.name(), only),
    );
    format!("{:032x}", xxh3_128(&serde_json::to_vec(&asked).expect("plain data")))
}

/// The id of the Group that a request is about, if it is about one.
fn group_of(request: &StoredRequest) -> Option<&str> {
    match &request.population {
        RecordedPopulation::StoreGroup(id) | RecordedPopulation::OwnGroup(id) => Some(id),
        RecordedPopulation::System | RecordedPopulation::AllPatients | RecordedPopulation::Patient(_) => None,
    }
}

/// The baselines that are kept.
pub(crate) struct KeptBaselines {
    /// Most of a Group for a client.
    most: usize,
    /// Whether files are synced.
    sync: bool,
    /// Those on disk. Held while files are linked and removed; no other lock is acquired under it.
    kept: Mutex<Vec<Arc<KeptBaseline>>>,
}

impl KeptBaselines {
    /// Reads what is kept beneath the directory of the jobs' directories, and removes what a crash has left.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub(crate) fn open(files: &Directory, most: usize, sync: FileSync) -> io::Result<KeptBaselines> {
        let directory = files.make_directory(BASELINES)?;
        let names: Vec<String> = directory.names()?.into_iter().filter_map(|name| name.into_string().ok()).collect();
        let mut kept = Vec::new();
        for name in &names {
            let Some(job) = name.strip_suffix(".json").filter(|job| is_job_id(job)) else { continue };
            let read = directory.read(name, BASELINE_RECORD_BYTES_MAX).map_err(|error| error.to_string());
            match read.and_then(|bytes| KeptBaseline::from_bytes(&bytes, job)) {
                Ok(baseline) => kept.push(Arc::new(baseline)),
                Err(reason) => {
                    tracing::error!(
                        job,
                        reason,
                        "the kept patients of an export cannot be used; they are left as they are"
                    );
                }
            }
        }
        let is_leftover = |name: &&String| {
            let keys = name.strip_suffix(".keys").filter(|job| is_job_id(job));
            let part =
                name.strip_prefix('.').and_then(|name| name.strip_suffix(".json.part")).filter(|job| is_job_id(job));
            part.is_some() || keys.is_some_and(|job| !names.contains(&format!("{job}.json")))
        };
        names.iter().filter(is_leftover).for_each(|name| drop(directory.remove_file(name)));
        Ok(KeptBaselines { most, sync: sync == FileSync::Yes, kept: Mutex::new(kept) })
    }

    /// Those on disk.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<KeptBaseline>>> {
        self.kept.lock().expect("no panic under it")
    }

    /// Brings what is kept in line with the records of jobs, when the service starts: a job that is not complete has none yet,
    /// and one that is may lack its own.
    pub(crate) fn reconcile(&self, files: &Directory, records: &[Arc<JobRecord>], now: &Instant) {
        let mut kept = self.lock();
        for record in records {
            let place = kept.iter().position(|baseline| baseline.job == record.id);
            let removed = match (place, record.state) {
                (Some(place), JobState::Queued | JobState::Running | JobState::Failed) => {
                    let baseline = kept.swap_remove(place);
                    remove(files, &baseline.job)
                }
                (None, JobState::Complete) => {
                    let plan = record.extension.get(EXPORT_KEY).and_then(|facts| facts["planId"].as_str());
                    let made = self.make(files, record, plan.unwrap_or_default());
                    made.map(|made| kept.extend(made))
                }
                _ => Ok(()),
            };
            if let Err(error) = removed {
                tracing::warn!(job = record.id, %error, "the kept patients of an export are not as they should be");
            }
        }
        self.prune_locked(&mut kept, files, now);
    }

    /// Keeps the patients of an export that is about to be complete, if increments may ask for them.
    ///
    /// # Errors
    /// The system's; nothing is kept then.
    pub(crate) fn keep(
        &self,
        files: &Directory,
        record: &JobRecord,
        exported: &ExportReport,
        now: &Instant,
    ) -> io::Result<()> {
        let plan = exported.manifest.extension.get(EXPORT_KEY).and_then(|facts| facts["planId"].as_str());
        let made = self.make(files, record, plan.unwrap_or_default())?;
        let mut kept = self.lock();
        kept.retain(|baseline| baseline.job != record.id);
        kept.extend(made);
        self.prune_locked(&mut kept, files, now);
        Ok(())
    }

    /// Writes the files of a baseline; `None` if the job needs none.
    fn make(&self, files: &Directory, record: &JobRecord, plan_id: &str) -> io::Result<Option<Arc<KeptBaseline>>> {
        let request = &record.request;
        let Some(group) = group_of(request).filter(|_| self.most > 0 && request.new_members != NewMembers::Ignore)
        else {
            return Ok(None);
        };
        let own = format!("{}/{OUT}/{JOB}/{COHORT}", record.id);
        let file = match files.open_file(&own) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let set = ResourceKeySet::open(file, Path::new(&own)).map_err(io::Error::other)?;
        let kept = KeptBaseline {
            format: BASELINE_FORMAT,
            job: record.id.clone(),
            mount: record.mount.clone(),
            client: record.client.clone(),
            group: group.to_string(),
            transaction_time: record.transaction_time.clone(),
            types: request.types.clone(),
            question: request.question.clone().unwrap_or_default(),
            plan_id: plan_id.to_string(),
            cohort: set.digest(),
        };
        let bytes = with_checksum(&kept);
        // What could not be read back is of a job of a version that did not keep baselines.
        let Ok(kept) = KeptBaseline::from_bytes(&bytes, &record.id) else { return Ok(None) };
        files.link(&own, &keys_file(&record.id))?;
        files.replace(&record_file(&record.id), &bytes, self.sync)?;
        Ok(Some(Arc::new(kept)))
    }

    /// Removes what was kept of a job that has not become complete.
    pub(crate) fn discard(&self, files: &Directory, job: &str) {
        let mut kept = self.lock();
        if kept.iter().any(|baseline| baseline.job == job) {
            kept.retain(|baseline| baseline.job != job);
            if let Err(error) = remove(files, job) {
                tracing::warn!(job, %error, "the kept patients of an export cannot be removed");
            }
        }
    }

    /// For a kick-off: the baseline of an increment on an earlier export, with its patients linked into the directory of the job,
    /// which is made if it is not there. `None` if the request is no increment or there is no such export.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn take(
        &self,
        files: &Directory,
        (job, mount, client): (&str, &str, &str),
        request: &StoredRequest,
        only_patients: Option<&[String]>,
    ) -> io::Result<Option<RecordedBaseline>> {
        let since = request.since.as_deref().and_then(Instant::parse);
        let (Some(since), Some(group), true) = (&since, group_of(request), request.new_members != NewMembers::Ignore)
        else {
            return Ok(None);
        };
        let question = question_of(request, only_patients);
        let asked = AskedIncrement { mount, client, group, since, types: &request.types, question };
        let kept = self.lock();
        let Some(found) = kept.iter().find(|baseline| baseline.serves(&asked)) else { return Ok(None) };
        files.make_directory(job)?;
        match files.link(&keys_file(&found.job), &format!("{job}/{BASELINE_FILE}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            linked => linked?,
        }
        Ok(Some(RecordedBaseline { plan_id: found.plan_id.clone(), cohort: found.cohort.clone() }))
    }

    /// Removes those that are too many of their Group or client, and those that are too old.
    pub(crate) fn prune(&self, files: &Directory, now: &Instant) {
        self.prune_locked(&mut self.lock(), files, now);
    }

    /// As [`KeptBaselines::prune`], of what is held.
    fn prune_locked(&self, kept: &mut Vec<Arc<KeptBaseline>>, files: &Directory, now: &Instant) {
        let age = |baseline: &KeptBaseline| Instant::parse(&baseline.transaction_time).map_or(i64::MIN, |t| t.ticks);
        let oldest =
            now.ticks.saturating_sub(BASELINE_SECONDS_MAX.saturating_mul(crate::fhir::instant::TICKS_PER_SECOND));
        kept.sort_by_key(|baseline| std::cmp::Reverse(age(baseline)));
        let (mut of_groups, mut of_clients) = (HashMap::new(), HashMap::new());
        let mut expired = Vec::new();
        let mut is_kept = |baseline: &Arc<KeptBaseline>| {
            let (client, mount, group) = baseline.owner();
            let of_group: &mut usize =
                of_groups.entry((client.to_string(), mount.to_string(), group.to_string())).or_default();
            let of_client: &mut usize = of_clients.entry(client.to_string()).or_default();
            let stays = *of_group < self.most && *of_client < BASELINES_PER_CLIENT_MAX && age(baseline) > oldest;
            (*of_group, *of_client) = (*of_group + usize::from(stays), *of_client + usize::from(stays));
            if !stays {
                expired.push(baseline.job.clone());
            }
            stays
        };
        kept.retain(&mut is_kept);
        for job in expired {
            if let Err(error) = remove(files, &job) {
                tracing::warn!(job, %error, "the kept patients of an export cannot be removed");
            }
        }
    }
}

/// Path of the description of a job's baseline, beneath the directory of the jobs' directories.
fn record_file(job: &str) -> String {
    format!("{BASELINES}/{job}.json")
}

/// Path of the keys of a job's baseline.
fn keys_file(job: &str) -> String {
    format!("{BASELINES}/{job}.keys")
}

/// Removes the files of a baseline.
fn remove(files: &Directory, job: &str) -> io::Result<()> {
    files.remove_file(&record_file(job))?;
    files.remove_file(&keys_file(job)).map(drop)
}

/// The question of a kick-off, as its record holds it for the export's own baseline; `None` where none is kept.
pub(crate) fn recorded_question(request: &StoredRequest, only_patients: Option<&[String]>) -> Option<String> {
    let is_asked = group_of(request).is_some() && request.new_members != NewMembers::Ignore;
    is_asked.then(|| question_of(request, only_patients))
}

/// The request of a job with the baseline that its record names. Patients that cannot be read back, or are not those of that
/// export, are told in the log, and then it is not known who joined.
pub(crate) fn with_baseline(files: &Directory, record: &JobRecord, mut request: ExportRequest) -> ExportRequest {
    let (Some(recorded), Some(since)) = (&record.request.baseline, request.since.clone()) else { return request };
    let place = format!("{}/{BASELINE_FILE}", record.id);
    let opened = files.open_file(&place).map_err(|error| error.to_string());
    let set = opened.and_then(|file| ResourceKeySet::open(file, Path::new(&place)));
    match set.and_then(|set| if set.digest() == recorded.cohort { Ok(set) } else { Err("is of another export".into()) })
    {
        Ok(cohort) => {
            let plan_id = recorded.plan_id.clone();
            let baseline = Baseline { plan_id, transaction_time: since, cohort: Some(cohort), resources: None };
            request.baseline = Some(Arc::new(baseline));
        }
        Err(reason) => {
            tracing::error!(job = record.id, reason, "the patients of the export that a job builds on cannot be used");
        }
    }
    request
}
