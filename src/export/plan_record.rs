//! The record of a job: what decides the bytes of an export, as a resumed run must find it again.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::ExportError;
use crate::export::chain_link::ChainLink;
use crate::export::vanished_record::VanishedRecord;
use crate::fhir::attachment_url::AttachmentUrls;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::type_filter::TypeFilter;
use crate::hash::Hasher128;
use crate::ids::PatientId;
use crate::index::snapshot::{RecordedSegments, Snapshot};
use crate::index::snapshot_record::{SegmentRef, SnapshotRecord};
use crate::index::vanished::VanishedResource;
use crate::issue::{Issue, Parameter};
use crate::plan::Plan;
use crate::policies::{NewMembers, PatientStrict, Vanished};
use crate::request::{ExportRequest, Population};
use crate::select::attachments::attachment_urls;
use crate::select::bitmap::Bitmap;
use crate::store::Store;
use crate::store::walk::is_store_name;
use crate::write::journal::place_of_json_error;
use crate::write::output_name::{OutputName, are_numbered};

/// Field of the request that holds the elements that are kept.
const ELEMENTS_FIELD: &str = "--elements";
/// Field of the request that holds a hash of the filters.
const FILTERS_FIELD: &str = "--type-filter";
/// Field of the request that holds what relative URLs of attachments become.
const ATTACHMENTS_FIELD: &str = "attachmentUrls";
/// Field of the request that holds the name of the plan that an increment builds on.
const BASELINE_FIELD: &str = "baseline";
/// Fields that records leave out where they have their defaults.
const LEFT_OUT: [&str; 9] = [
    ELEMENTS_FIELD,
    FILTERS_FIELD,
    "--vanished",
    "--patient",
    "--patient-strict",
    "--include-associated-data",
    "--context",
    BASELINE_FIELD,
    "--new-members",
];

/// First file of the record: everything that a resumed run must find again. The snapshot is a record of one that was read, or what
/// is written as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlanRecord<S = SnapshotRecord> {
    /// Name of the plan: a hash of all that decides its bytes.
    pub plan_id: String,
    /// The request, field by field, as normalised.
    pub request: BTreeMap<String, String>,
    /// The snapshot.
    pub snapshot: S,
    /// The files: name, rows, uncompressed bytes (of changed rows the most that they can be).
    pub shards: Vec<(String, u64, u64)>,
    /// Names of the files in which URLs of attachments become absolute, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewritten: Vec<String>,
    /// Resources that are gone from the store and that the export lists as deleted or counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vanished: Vec<VanishedRecord>,
    /// Ids of the patients to whom the export is restricted, ascending; the request holds their hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_patients: Vec<String>,
    /// Filters of the export, as given; the request holds their hash, for their values are patients' data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub type_filters: Vec<String>,
    /// Digest of the file that holds the keys of the exported patients, if the record has one. The plan determines it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<String>,
    /// Ids of the patients who joined since the baseline and whose records are exported whatever their age, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<String>,
    /// Names of rows that an increment exports whatever their age, because a reader of the baseline lacks them, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub completed: Vec<String>,
    /// The chain of exports that this one is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainLink>,
    /// Where the run read from. Not part of the plan's name: the same bytes elsewhere are the same plan.
    #[serde(default)]
    pub origin: ExportOrigin,
}

/// Where a run read from, so that `verify --ledger` can count again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportOrigin {
    /// The store, as it was given.
    pub store: String,
    /// The store, absolute, links resolved.
    pub store_absolute: String,
    /// The file that names the population, absolute, if one does. What it held is known by its hash in the request.
    pub population_file: Option<String>,
}

impl ExportOrigin {
    /// The store and the Group of a request, as its plan record names them.
    pub(crate) fn of(store: &Store, request: &ExportRequest) -> ExportOrigin {
        let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf()).display().to_string();
        let population_file = match &request.population {
            // What came through a pipe is not there to be read again.
            Population::Patients(path) | Population::GroupFile(path) if path.is_file() => Some(absolute(path)),
            Population::Patients(_) | Population::GroupFile(_) => None,
            Population::System | Population::AllPatients | Population::Group(_) => None,
            Population::PatientIds(_) | Population::GroupDocument(_) => None,
        };
        ExportOrigin {
            store: store.root().display().to_string(),
            store_absolute: absolute(store.root()),
            population_file,
        }
    }
}

impl<S> PlanRecord<S> {
    /// The same record with another form of its snapshot.
    pub(crate) fn with_snapshot<T>(self, snapshot: T) -> PlanRecord<T> {
        PlanRecord {
            snapshot,
            plan_id: self.plan_id,
            request: self.request,
            shards: self.shards,
            rewritten: self.rewritten,
            vanished: self.vanished,
            only_patients: self.only_patients,
            type_filters: self.type_filters,
            cohort: self.cohort,
            joined: self.joined,
            completed: self.completed,
            chain: self.chain,
            origin: self.origin,
        }
    }

    /// Rows and bytes of each shard, by the name of its file; bytes of changed rows are the most that they can be.
    pub(crate) fn files_by_name(&self) -> HashMap<&str, (u64, u64)> {
        self.shards.iter().map(|(name, rows, bytes)| (name.as_str(), (*rows, *bytes))).collect()
    }

    /// Names of the files in which URLs of attachments become absolute.
    pub(crate) fn rewritten_files(&self) -> HashSet<&str> {
        self.rewritten.iter().map(String::as_str).collect()
    }
}

impl PlanRecord {
    /// Reads the record of an output directory, `.outpour-job/plan.json`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<PlanRecord, String> {
        match PlanRecord::read(bytes)? {
            (job, None) => Ok(job),
            (_, Some(wrong)) => Err(wrong),
        }
    }

    /// The same of a record that may be damaged, which is only to be shown: what can be read, and what is wrong with it.
    ///
    /// # Errors
    /// Where it cannot be read at all.
    pub(crate) fn read(bytes: &[u8]) -> Result<(PlanRecord, Option<String>), String> {
        #[derive(Deserialize)]
        struct SnapshotFile {
            files: Vec<String>,
            job: PlanRecord,
        }
        let SnapshotFile { files, job } = serde_json::from_slice(bytes).map_err(|error| place_of_json_error(&error))?;
        let wrong = job.check_files(&files).err();
        Ok((job, wrong))
    }

    /// Name of the plan that an increment builds on.
    pub(crate) fn baseline_plan(&self) -> Option<&str> {
        self.request.get(BASELINE_FIELD).map(String::as_str)
    }

    /// The vanished resources; those that are not as outpour writes them are left out.
    pub(crate) fn vanished_resources(&self) -> Vec<VanishedResource> {
        self.vanished.iter().filter_map(VanishedRecord::resource).collect()
    }

    /// The elements that its resources keep, `_elements`.
    ///
    /// # Errors
    /// A clause about the record, if an item of it is none.
    pub(crate) fn elements(&self) -> Result<ElementSelection, String> {
        let text = self.request.get(ELEMENTS_FIELD).map_or("", String::as_str);
        match ElementSelection::parse(text.split(',')) {
            (selection, problems) if problems.is_empty() => Ok(selection),
            _ => Err(format!("has {text:?} for {ELEMENTS_FIELD}, which this version does not know")),
        }
    }

    /// What relative URLs of attachments become; `None` if they stay as they are.
    ///
    /// # Errors
    /// A clause about the record, if it says so in another form.
    pub(crate) fn attachment_urls(&self) -> Result<Option<AttachmentUrls>, String> {
        let Some(text) = self.request.get(ATTACHMENTS_FIELD) else { return Ok(None) };
        let read = AttachmentUrls::from_recorded(text);
        read.map(Some).ok_or_else(|| format!("has {text:?} for {ATTACHMENTS_FIELD}, which this version does not know"))
    }

    /// Checks a record that was read, as if a stranger had written it; `files` are the names beside it. Names are those that
    /// an export gives, the shards' first; store files lie in the store; instants are instants.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it, without a word of what it holds.
    pub(crate) fn check_files(&self, files: &[String]) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{what} is not as outpour writes it"));
        let is_hash = self.plan_id.len() == 32 && self.plan_id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hash {
            return wrong("planId");
        }
        let is_of_shard = |name: &String| OutputName::parse(name).is_some_and(|name| name.folder.is_empty());
        let (shards, generated) = files.split_at_checked(self.shards.len()).unwrap_or_default();
        let in_place = shards.iter().all(is_of_shard) && !generated.iter().any(is_of_shard);
        if shards.len() != self.shards.len() || !in_place || !are_numbered(files.iter().map(String::as_str)) {
            return wrong("files");
        }
        let sized = |rows: u64, bytes: u64| rows > 0 && bytes / 2 >= rows;
        let listed =
            |(i, (name, rows, bytes)): (usize, &(String, u64, u64))| files.get(i) == Some(name) && sized(*rows, *bytes);
        if !self.shards.iter().enumerate().all(listed) {
            return wrong("shards");
        }
        let known = self.files_by_name();
        if !self.rewritten.iter().all(|name| known.contains_key(name.as_str())) {
            return wrong("rewritten");
        }
        if self.vanished.iter().any(|gone| gone.resource().is_none()) {
            return wrong("vanished");
        }
        let ids = &self.only_patients;
        if !ids.is_sorted_by(|a, b| a < b) || ids.iter().any(|id| Id::parse(id.as_bytes()).is_none()) {
            return wrong("onlyPatients");
        }
        let ids = &self.joined;
        if !ids.is_sorted_by(|a, b| a < b) || ids.iter().any(|id| Id::parse(id.as_bytes()).is_none()) {
            return wrong("joined");
        }
        let is_name = |text: &String| {
            let parts = text.split_once('/');
            parts.is_some_and(|(of, id)| ResourceType::parse(of).is_some() && Id::parse(id.as_bytes()).is_some())
        };
        if !self.completed.is_sorted() || !self.completed.iter().all(is_name) {
            return wrong("completed");
        }
        if self.type_filters.iter().any(|text| TypeFilter::parse(text).is_err()) {
            return wrong("typeFilters");
        }
        if Instant::parse(&self.snapshot.as_of).is_none() {
            return wrong("snapshot.asOf");
        }
        let sound = |segment: &SegmentRef| is_store_name(&segment.file) && segment.start <= segment.end;
        // In store order, and no byte in two of them.
        let ordered = |a: &SegmentRef, b: &SegmentRef| match a.file.as_bytes().cmp(b.file.as_bytes()) {
            Ordering::Equal => a.end <= b.start,
            order => order.is_lt(),
        };
        let segments = &self.snapshot.segments;
        if !segments.iter().all(sound) || !segments.is_sorted_by(ordered) {
            return wrong("snapshot.extents");
        }
        Ok(())
    }
}

/// Everything that decides the bytes of an export, by the name a user knows it under.
pub(crate) fn plan_record<'a>(
    plan: &Plan,
    snapshot: &'a Snapshot,
    store: &Store,
) -> PlanRecord<SnapshotRecord<RecordedSegments<'a>>> {
    let request = &plan.request;
    let types: Vec<&str> = request.types.iter().map(|t| t.name()).collect();
    let instant = |time: &Option<Instant>| time.as_ref().map_or(String::new(), Instant::to_string);
    let hash = || format!("{:032x}", plan.cohort.content_hash.unwrap_or_default());
    let population = match &request.population {
        Population::System => "system".to_string(),
        Population::AllPatients => "all patients".to_string(),
        Population::Patients(_) => format!("patients {}", hash()),
        Population::Group(id) => format!("Group/{id}"),
        Population::GroupFile(_) => format!("Group file {}", hash()),
        Population::PatientIds(_) => format!("patient ids {}", hash()),
        Population::GroupDocument(_) => format!("Group document {}", hash()),
    };
    let fields = [
        ("population", population),
        ("--type", types.join(",")),
        ("--since", instant(&request.since)),
        ("--until", instant(&request.until)),
        ("--members", request.members.name().to_string()),
        ("--fhir-base", request.fhir_bases.join(" ")),
        ("--late", request.late.name().to_string()),
        ("--missing-last-updated", request.missing_last_updated.name().to_string()),
        ("--max-file-bytes", request.bounds.file_bytes.to_string()),
        ("--max-file-resources", request.bounds.file_resources.map_or(String::new(), |n| n.to_string())),
        ("--compress", request.compression.name().to_string()),
        ("--digest", request.digest.name().to_string()),
        ("--base-url", request.base_url.clone().unwrap_or_default()),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
    ];
    let mut fields = fields.to_vec();
    if !request.absent_groups.is_empty() {
        let absent: Vec<&str> = request.absent_groups.iter().map(String::as_str).collect();
        fields.push(("absentGroups", absent.join(" ")));
    }
    if let Some(writer) = &plan.cohort.writer {
        fields.push(("writer", writer.clone()));
    }
    if let Some(associated) = request.associated {
        fields.push(("--include-associated-data", associated.name().to_string()));
    }
    if !request.context.is_default() {
        fields.push(("--context", request.context.name().to_string()));
    }
    if let Some(ids) = &plan.cohort.only {
        fields.push(("--patient", format!("patients {}", hash_of_ids(ids.iter().map(Id::as_str)))));
    }
    if plan.cohort.outsiders.is_some() {
        fields.push(("--patient-strict", request.patient_strict.name().to_string()));
    }
    if !request.elements.is_empty() {
        fields.push((ELEMENTS_FIELD, request.elements.to_string()));
    }
    if !request.type_filters.is_empty() {
        fields.push((FILTERS_FIELD, hash_of_filters(request.type_filters.iter().map(TypeFilter::text))));
    }
    // Without such rows the plan is that of versions that knew no URLs.
    if let Some(urls) = attachment_urls(request).filter(|_| plan.shards.iter().any(|shard| shard.rewritten)) {
        fields.push((ATTACHMENTS_FIELD, urls.recorded()));
    }
    if !request.vanished.is_default() {
        fields.push(("--vanished", request.vanished.name().to_string()));
    }
    let vanished = VanishedRecord::of(&plan.vanished);
    if !vanished.is_empty() {
        let vanished = serde_json::to_vec(&vanished).expect("plain data");
        fields.push(("vanished", format!("{:032x}", crate::hash::xxh3_128(&vanished))));
    }
    if let Some(baseline) = &request.baseline {
        fields.push((BASELINE_FIELD, baseline.plan_id.clone()));
    }
    // Without a baseline only what is not the default: records of versions that did not look at starts have none.
    let is_told = plan.request.since.is_some() && plan.request.is_of_group();
    if request.baseline.is_some() || is_told && request.new_members != NewMembers::default() {
        fields.push(("--new-members", request.new_members.name().to_string()));
    }
    if !request.notes.is_empty() {
        fields.push(("notes", notes_hash(&request.notes)));
    }
    let request: BTreeMap<String, String> = fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    let rewritten = plan.shards.iter().enumerate().filter(|(_, shard)| shard.rewritten);
    let rewritten = rewritten.map(|(position, _)| plan.file_name(position)).collect();
    let shards = plan.shards.iter().enumerate();
    let shards = shards.map(|(position, shard)| (plan.file_name(position), shard.rows, shard.bytes)).collect();
    let plan_id = plan_id(&plan.snapshot_id, &request);
    let origin = ExportOrigin::of(store, &plan.request);
    let only_patients = plan.cohort.only.iter().flatten().map(Id::to_string).collect();
    let type_filters = plan.request.type_filters.iter().map(|filter| filter.text().to_string()).collect();
    let joined = joined_ids(plan, snapshot);
    let snapshot = snapshot.borrowed_record();
    let (cohort, chain) = (None, None);
    PlanRecord {
        plan_id,
        request,
        snapshot,
        shards,
        rewritten,
        vanished,
        only_patients,
        type_filters,
        cohort,
        joined,
        completed: plan.completed.clone(),
        chain,
        origin,
    }
}

/// Ids of the patients whose older records an increment exports because they joined, ascending; none under other policies.
fn joined_ids(plan: &Plan, snapshot: &Snapshot) -> Vec<String> {
    let joined = plan.member_changes.as_ref().and_then(|changes| changes.joined.as_ref());
    let joined = joined.filter(|_| plan.request.new_members == NewMembers::Full);
    let ids = joined.into_iter().flat_map(Bitmap::iter);
    let mut ids: Vec<String> = ids
        .filter_map(|patient| snapshot.index().patient_id(PatientId::of(patient)).ok())
        .map(|id| id.to_string())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The parameter that a field of `plan.json` holds, if it is one. Some fields bear the name that the command line has
/// for it; so they have stood on disk since the first version.
fn recorded_parameter(field: &str) -> Option<Parameter> {
    Some(match field {
        "--type" => Parameter::Type,
        "--since" => Parameter::Since,
        "--until" => Parameter::Until,
        ELEMENTS_FIELD => Parameter::Elements,
        FILTERS_FIELD => Parameter::TypeFilter,
        "--members" => Parameter::Members,
        "--fhir-base" => Parameter::FhirBase,
        "--late" => Parameter::Late,
        "--missing-last-updated" => Parameter::MissingLastUpdated,
        "--vanished" => Parameter::Vanished,
        "--context" => Parameter::Context,
        "--patient" => Parameter::Patient,
        "--patient-strict" => Parameter::PatientStrict,
        "--include-associated-data" => Parameter::AssociatedData,
        "--max-file-bytes" => Parameter::MaxFileBytes,
        "--max-file-resources" => Parameter::MaxFileResources,
        "--new-members" => Parameter::NewMembers,
        BASELINE_FIELD => Parameter::Baseline,
        "--compress" => Parameter::Compression,
        "--digest" => Parameter::Digest,
        "--base-url" => Parameter::BaseUrl,
        _ => return None,
    })
}

/// What a field of `plan.json` without a value means, as a word.
fn word_of_nothing(parameter: Option<Parameter>) -> &'static str {
    match parameter {
        Some(Parameter::Type | Parameter::Patient | Parameter::Elements) => "all",
        Some(Parameter::MaxFileResources) => "no bound",
        // Recorded only where it is not the default.
        Some(Parameter::NewMembers) => NewMembers::Report.name(),
        Some(Parameter::Vanished) => Vanished::Report.name(),
        Some(Parameter::PatientStrict) => PatientStrict::Any.name(),
        _ => "none",
    }
}

/// Name of a plan: a hash of the snapshot's name and of the request, field by field.
fn plan_id(snapshot_id: &str, request: &BTreeMap<String, String>) -> String {
    let identity = serde_json::to_vec(&(snapshot_id, request)).expect("plain data");
    format!("{:032x}", crate::hash::xxh3_128(&identity))
}

/// Whether there are filters, as a word.
fn filters_word(recorded: &str) -> String {
    if recorded.is_empty() { "none" } else { "filters" }.to_string()
}

/// Hash of filters, whose values are not told where records are compared.
pub(crate) fn hash_of_filters<'a>(filters: impl Iterator<Item = &'a str>) -> String {
    format!("filters {}", hash_of_ids(filters))
}

/// Hash of ids of patients, which are not told where records are compared.
pub(crate) fn hash_of_ids<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Hasher128::new();
    ids.for_each(|id| {
        hash.update(id.as_bytes());
        hash.update(b"\n");
    });
    format!("{:032x}", hash.digest())
}

/// Hash of what was decided while the request was read: it goes into the message files, and so into the plan's name.
fn notes_hash(notes: &[Issue]) -> String {
    let notes = serde_json::to_vec(notes).expect("plain data");
    format!("{:032x}", crate::hash::xxh3_128(&notes))
}

/// The parameter of a field of two requests and the words for its values, where these differ. Filters are not told, only whether
/// there are some.
pub(crate) fn difference_of_value(
    field: &str,
    recorded: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Option<(Option<Parameter>, String, String)> {
    // A field with its default may be left out of a record, or be new since it was written.
    let value = |request: &BTreeMap<String, String>| request.get(field).cloned().unwrap_or_default();
    let (then, given) = (value(recorded), value(now));
    if then == given {
        return None;
    }
    let parameter = recorded_parameter(field);
    let told = |value: String| if value.is_empty() { word_of_nothing(parameter).to_string() } else { value };
    // Neither filters nor their hash are printed: a value such as a birth date could be found from the hash by trial.
    let (recorded, given) = match field == FILTERS_FIELD && !then.is_empty() && !given.is_empty() {
        true => ("filters".to_string(), "other filters".to_string()),
        false if field == FILTERS_FIELD => (filters_word(&then), filters_word(&given)),
        false => (told(then), told(given)),
    };
    Some((parameter, recorded, given))
}

/// A resumed run must be the recorded one (the field that differs is named).
pub(crate) fn check_same_request<S>(recorded: &PlanRecord, now: &PlanRecord<S>) -> Result<(), ExportError> {
    for field in recorded.request.keys().filter(|field| LEFT_OUT.contains(&field.as_str())).chain(now.request.keys()) {
        if let Some((parameter, recorded, given)) = difference_of_value(field, &recorded.request, &now.request) {
            return Err(ExportError::Differs { parameter, field: field.clone(), recorded, given });
        }
    }
    if recorded.plan_id != now.plan_id || recorded.shards != now.shards {
        let (recorded, given) = (recorded.plan_id.clone(), now.plan_id.clone());
        return Err(ExportError::Differs { parameter: None, field: "the plan".to_string(), recorded, given });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::compression::Compression;
    use crate::extract::rules::LoneSurrogates;
    use crate::fhir::id::IdRule;
    use crate::group::lookup::MembershipRule;
    use crate::hash::digest::DigestAlgorithm;
    use crate::issue::IssueCode;
    use crate::policies::{Context, LateArrivals, MissingLastUpdated};
    use crate::progress::Progress;
    use crate::store::StoreOptions;

    /// The record of an export of a store that never changes, at an instant that never changes.
    fn record(change: impl Fn(&mut ExportRequest)) -> PlanRecord {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
        // As versions read lines that had no choice: what differs is recorded.
        let options = StoreOptions::default().ids(IdRule::R4).lone_surrogates(LoneSurrogates::Pass);
        let store = Store::open_with(dir.path(), options).unwrap();
        let mut request = ExportRequest::all_patients();
        change(&mut request);
        let as_of = Instant::parse("2024-05-01T00:00:00Z").unwrap();
        let (plan, snapshot, _) =
            crate::export::planning::plan_only(&store, &request, as_of, &Progress::default()).unwrap();
        let mut job = plan_record(&plan, &snapshot, &store).with_snapshot(snapshot.record());
        job.origin = ExportOrigin::default();
        job
    }

    /// Its name under a version that never changes.
    fn named(job: &PlanRecord) -> String {
        let mut request = job.request.clone();
        request.insert("version".to_string(), "0.1.0".to_string());
        let snapshot = serde_json::to_vec(&job.snapshot).unwrap();
        plan_id(&format!("{:032x}", crate::hash::xxh3_128(&snapshot)), &request)
    }

    /// CLI-04: a run that a former build of this version began is taken up by this one. The words stand in the records on
    /// disk and are hashed into the names of plans: a test that fails here is mended by putting the old words back.
    #[test]
    fn names_of_plans_stay_as_they_are() {
        type RequestChange = fn(&mut ExportRequest);
        let cases: [(&str, &str, &str, RequestChange); 8] = [
            ("--members", "listed", "6064c05b7db63cd1b979e5166716d682", |_| {}),
            ("--members", "active", "bb8472546cb4aff95ef1e2e758b44e12", |request| {
                request.members = MembershipRule::Active
            }),
            ("--late", "report", "c19b41acc7ff210ca30c66ef66d3e63a", |request| request.late = LateArrivals::Report),
            ("--missing-last-updated", "exclude", "976a8671f1915fde64b855351d610abf", |request| {
                request.missing_last_updated = MissingLastUpdated::Exclude;
            }),
            ("--compress", "gzip", "1316627620c83909dd772d5e346594d1", |request| {
                request.compression = Compression::Gzip
            }),
            ("--compress", "zstd", "1223a0f72abad76896028e8e8f20f9c9", |request| {
                request.compression = Compression::Zstd
            }),
            ("--digest", "none", "918dc522c87ea9f9d7bc8cedc3c0318f", |request| request.digest = DigestAlgorithm::None),
            ("--digest", "sha256", "ba10fe30eacf074816636514fc95153c", |request| {
                request.digest = DigestAlgorithm::Sha256
            }),
        ];
        for (field, word, name, change) in cases {
            let job = record(change);
            assert_eq!((&*job.request[field], &*named(&job)), (word, name), "{field}");
        }
    }

    /// A value that is not given is told by a word, on either side.
    #[test]
    fn differences_from_nothing_have_words() {
        type RequestChange = fn(&mut ExportRequest);
        let cases: [(Parameter, &str, &str, RequestChange); 9] = [
            (Parameter::Type, "all", "Patient", |request| *request = request.clone().types(["Patient"])),
            (Parameter::Since, "none", "2020-01-01T00:00:00.000Z", |request| {
                *request = request.clone().since("2020-01-01T00:00:00Z");
            }),
            (Parameter::FhirBase, "none", "https://a.example", |request| {
                request.fhir_bases = vec!["https://a.example".into()]
            }),
            (Parameter::MaxFileResources, "no bound", "7", |request| request.bounds.file_resources = Some(7)),
            (Parameter::BaseUrl, "none", "https://a.example/", |request| {
                request.base_url = Some("https://a.example/".into())
            }),
            (Parameter::Vanished, "report", "delete", |request| request.vanished = Vanished::Delete),
            (Parameter::Context, "none", "referenced", |request| request.context = Context::Referenced),
            (Parameter::PatientStrict, "any", "all", |request| {
                *request = request.clone().only_patients(["a"]).patient_strict(PatientStrict::All);
            }),
            (Parameter::Elements, "all", "Patient.name,id", |request| {
                *request = request.clone().elements(["id", "Patient.name"]);
            }),
        ];
        let of_all = record(|_| {});
        let restricted = record(|request| *request = request.clone().only_patients(["a"]));
        for (wanted, nothing, value, change) in cases {
            let plain = if wanted == Parameter::PatientStrict { &restricted } else { &of_all };
            let changed = record(change);
            for (then, now, words) in [(plain, &changed, [nothing, value]), (&changed, plain, [value, nothing])] {
                let Err(ExportError::Differs { parameter, recorded, given, .. }) = check_same_request(then, now) else {
                    panic!("{value} makes no difference");
                };
                assert_eq!((parameter, [&*recorded, &*given]), (Some(wanted), words));
            }
        }
    }

    /// What came in memory is recorded by a word of its own, and a hash of what it held.
    #[test]
    fn members_in_memory_are_recorded_by_a_hash() {
        let ids = record(|request| request.population = Population::PatientIds(vec!["a".into(), "Patient/b".into()]));
        assert_eq!(ids.request["population"], format!("patient ids {:032x}", crate::hash::xxh3_128(b"a\nPatient/b\n")));
        let json = br#"{"resourceType":"Group","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}}]}"#;
        let group = record(|request| request.population = Population::GroupDocument(json[..].into()));
        assert_eq!(group.request["population"], format!("Group document {:032x}", crate::hash::xxh3_128(json)));
        assert_eq!((ids.origin.population_file, group.origin.population_file), (None, None));
    }

    /// The same of everything else that a record holds, to the byte.
    #[test]
    fn a_record_stays_as_it_is() {
        let note = Issue::warning(IssueCode::NotFound, "n");
        let mut job = record(|request| request.notes = vec![note.clone()]);
        job.plan_id = named(&job);
        job.request.insert("version".to_string(), "0.1.0".to_string());
        let text = serde_json::to_string(&job).unwrap();
        let expected = concat!(
            r#"{"planId":"e6ad2c55b00972e82b6d88a13b459b64","request":{"--base-url":"","--compress":"none","--digest":"xxh3","#,
            r#""--fhir-base":"","--late":"include","--max-file-bytes":"268435456","--max-file-resources":"","#,
            r#""--members":"listed","--missing-last-updated":"include","--since":"","--type":"","--until":"","#,
            r#""notes":"bc2c0d41e1b754ef40233cafef77b8d8","population":"all patients","version":"0.1.0"},"#,
            r#""snapshot":{"asOf":"2024-05-01T00:00:00.000Z","validate":"full","birth":17145216000000000,"#,
            r#""extents":[{"file":"p.ndjson","start":0,"end":36,"content":16782702288333608016,"tail":false,"#,
            r#""firstSeen":17145216000000000}]},"shards":[["Patient.00001.ndjson",1,36]],"#,
            r#""origin":{"store":"","storeAbsolute":"","populationFile":null}}"#
        );
        assert_eq!(text, expected);
    }
}
