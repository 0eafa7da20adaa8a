//! Request of an export, parsed from the words of its record.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::associated_data::AssociatedData;
use crate::export::plan_record::{PlanRecord, hash_of_filters, hash_of_ids};
use crate::fhir::attachment_url::AttachmentUrls;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::type_filter::TypeFilter;
use crate::policies::Context;

/// Patients whose resources were requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VerifiedPopulation {
    /// No restriction: all resources, those without an owner included.
    System,
    /// Resources of any patient.
    AllPatients,
    /// Resources of the patients listed in this file, which had this hash.
    Patients(PathBuf, String),
    /// Resources of the members of this Group in the store.
    Group(String),
    /// Resources of the members of the Group in this file, which had this hash.
    GroupFile(PathBuf, String),
}

/// Parameters of the recorded request that decide which lines are exported.
#[derive(Clone, Debug)]
pub(crate) struct RecordedRequest {
    /// Patients whose resources were requested.
    pub population: VerifiedPopulation,
    /// The transactionTime T of the export.
    pub as_of: Instant,
    /// Requested types; empty if all are.
    pub types: HashSet<ResourceType>,
    /// Value of `_since`; `None` if the request has none.
    pub since: Option<Instant>,
    /// Value of `_until`; `None` if the request has none.
    pub until: Option<Instant>,
    /// Elements that resources keep; all if it has none.
    pub elements: ElementSelection,
    /// Filters of the export.
    pub type_filters: Vec<TypeFilter>,
    /// What relative URLs of attachments became; `None` if they stayed.
    pub attachments: Option<AttachmentUrls>,
    /// Whether members must be active.
    pub active: bool,
    /// Provenance of exported resources that was asked for; `None` for that of the cohort.
    pub associated: Option<AssociatedData>,
    /// Which context is exported; none at system level.
    pub context: Context,
    /// Patients to whom the export was restricted; all if `None`.
    pub only: Option<Vec<String>>,
    /// Ids of the patients who joined since the baseline and whose records were exported whatever their age.
    pub joined: Vec<String>,
    /// Names of rows that were exported whatever their age, because a reader of the baseline lacked them.
    pub completed: Vec<String>,
    /// Whether rows were left out that are in the record of somebody else, too.
    pub strict: bool,
    /// Bases that are ours, without a slash at the end.
    pub bases: Vec<String>,
    /// Whether late-arriving rows were exported.
    pub late: bool,
    /// Whether rows without a lastUpdated pass the time filter.
    pub undated: bool,
    /// Whether resources that are gone from replaced files were listed as deleted.
    pub vanished: bool,
}

impl RecordedRequest {
    /// Parses the request of a record. `file` replaces the population's file that the record names.
    ///
    /// # Errors
    /// A clause about the record: the parameter that it lacks, or whose value this version does not know.
    pub(crate) fn read(job: &PlanRecord, file: Option<&Path>) -> Result<RecordedRequest, String> {
        if ["writer", "absentGroups"].iter().any(|field| job.request.contains_key(*field)) {
            let why =
                "belongs to an export for which Groups of the service decided who is a member, which is not recounted";
            return Err(why.into());
        }
        let field = |name: &str| {
            let missing = || format!("does not say what {name} was; export again");
            job.request.get(name).map(String::as_str).ok_or_else(missing)
        };
        let instant = |name: &str| match field(name)? {
            "" => Ok(None),
            text => Instant::parse(text).map(Some).ok_or_else(|| format!("has a {name} that is no instant")),
        };
        let choice = |name: &str, yes: &str, no: &str| match field(name)? {
            text if text == yes => Ok(true),
            text if text == no => Ok(false),
            other => Err(format!("has {other:?} for {name}, which this version does not know")),
        };
        let types = field("--type")?.split(',').filter(|name| !name.is_empty());
        let types = types
            .map(|name| ResourceType::parse(name).ok_or_else(|| format!("names an unknown type {name:?}")))
            .collect::<Result<_, _>>()?;
        let only = job.request.get("--patient").map(|recorded| {
            let given = format!("patients {}", hash_of_ids(job.only_patients.iter().map(String::as_str)));
            let differs = "lists other patients than the export was restricted to; export again";
            if *recorded == given { Ok(job.only_patients.clone()) } else { Err(differs.to_string()) }
        });
        let associated = job.request.get("--include-associated-data").map(|code| {
            AssociatedData::parse(code).ok_or("names associated data that this version does not know".to_string())
        });
        let population = recorded_population(job, field("population")?, file)?;
        let bases = field("--fhir-base")?.split(' ').filter(|base| !base.is_empty());
        Ok(RecordedRequest {
            as_of: Instant::parse(&job.snapshot.as_of).ok_or("has a transactionTime that is no instant")?,
            types,
            since: instant("--since")?,
            until: instant("--until")?,
            associated: associated.transpose()?,
            context: match job.request.get("--context").map(String::as_str) {
                _ if population == VerifiedPopulation::System => Context::None,
                None => Context::None,
                Some(word) => Context::ALL
                    .into_iter()
                    .find(|context| context.name() == word)
                    .ok_or_else(|| format!("has {word:?} for --context, which this version does not know"))?,
            },
            population,
            only: only.transpose()?,
            joined: job.joined.clone(),
            completed: job.completed.clone(),
            strict: job.request.contains_key("--patient-strict") && choice("--patient-strict", "all", "any")?,
            elements: job.elements()?,
            type_filters: recorded_filters(job)?,
            attachments: job.attachment_urls()?,
            active: choice("--members", "active", "listed")?,
            bases: bases.map(|base| base.trim_end_matches('/').to_string()).collect(),
            late: choice("--late", "include", "report")?,
            undated: choice("--missing-last-updated", "include", "exclude")?,
            // Records leave the default out.
            vanished: job.request.contains_key("--vanished") && choice("--vanished", "delete", "report")?,
        })
    }

    /// Whether a reference base is ours; the empty one of relative references is.
    pub(crate) fn is_ours(&self, base: &str) -> bool {
        BaseUrls::new(&self.bases).contains(base)
    }
}

/// Parses the filters, which must be those of the request.
fn recorded_filters(job: &PlanRecord) -> Result<Vec<TypeFilter>, String> {
    let given = hash_of_filters(job.type_filters.iter().map(String::as_str));
    let recorded = job.request.get("--type-filter");
    if recorded.map_or(!job.type_filters.is_empty(), |recorded| *recorded != given) {
        return Err("lists other filters than the export had; export again".to_string());
    }
    let filters = job.type_filters.iter().map(|text| TypeFilter::parse(text));
    filters.collect::<Result<_, _>>().map_err(|_| "has a filter that this version does not know".to_string())
}

/// Parses the population; `text` is the word that the record has for it.
fn recorded_population(job: &PlanRecord, text: &str, file: Option<&Path>) -> Result<VerifiedPopulation, String> {
    let named = job.origin.population_file.as_deref().map(Path::new);
    let file = || {
        let path = file.or(named).ok_or("does not say where the population's file was; name it again")?;
        Ok::<PathBuf, String>(path.to_path_buf())
    };
    // What was given in memory can be named as a file of the same content.
    if let Some(hash) = text.strip_prefix("patients ").or(text.strip_prefix("patient ids ")) {
        return Ok(VerifiedPopulation::Patients(file()?, hash.to_string()));
    }
    if let Some(hash) = text.strip_prefix("Group file ").or(text.strip_prefix("Group document ")) {
        return Ok(VerifiedPopulation::GroupFile(file()?, hash.to_string()));
    }
    match text {
        "system" => Ok(VerifiedPopulation::System),
        "all patients" => Ok(VerifiedPopulation::AllPatients),
        _ => match text.strip_prefix("Group/") {
            Some(id) => Ok(VerifiedPopulation::Group(id.to_string())),
            None => Err(format!("has {text:?} for population, which this version does not know")),
        },
    }
}
