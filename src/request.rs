//! What is asked for: a builder with the names of the FHIR parameters, and the policies beside them. A request is checked as a
//! whole; every problem is told at once. Nothing here reads the store.

use crate::associated_data::AssociatedData;
use crate::baseline::Baseline;
use crate::codec::compression::Compression;
use crate::error::{RequestError, RequestProblem};
use crate::fhir::attachment_url::AttachmentUrls;
use crate::fhir::compartment;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::type_filter::TypeFilter;
use crate::group::lookup::MembershipRule;
use crate::group::member_filter::FilteredGroups;
use crate::hash::digest::DigestAlgorithm;
use crate::ignorable_part::{
    FoundProblem, drop_filters, leave_out, no_element_left, no_type_left, notes_on, read_associated, read_elements,
    read_filters, read_types, unused_filters,
};
use crate::issue::{Advice, Issue, PLAIN_NAMES, Parameter, ParameterNames};
use crate::patient_restriction::PatientList;
use crate::policies::{
    AccessPath, Audience, Context, FileBounds, LateArrivals, MissingLastUpdated, NewMembers, PatientStrict, Vanished,
};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Whose records are exported.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Population {
    /// Everything in the store, compartments ignored (COMP-14).
    System,
    /// Every patient's compartment.
    AllPatients,
    /// The patients named in a file, one id or reference a line.
    Patients(PathBuf),
    /// The members of the Group with this id in the store.
    Group(String),
    /// The members of the Group in this file.
    GroupFile(PathBuf),
    /// The patients named here, an id or a reference each, such as `a` or `Patient/a`; blank ones are passed by.
    PatientIds(Vec<String>),
    /// The members of the Group in this JSON document.
    GroupDocument(Arc<[u8]>),
}

/// Members that were given in memory are not shown, only how much there is of them.
impl fmt::Debug for Population {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Population::System => f.write_str("System"),
            Population::AllPatients => f.write_str("AllPatients"),
            Population::Patients(path) => f.debug_tuple("Patients").field(path).finish(),
            Population::Group(id) => f.debug_tuple("Group").field(id).finish(),
            Population::GroupFile(path) => f.debug_tuple("GroupFile").field(path).finish(),
            Population::PatientIds(ids) => write!(f, "PatientIds({} of them)", ids.len()),
            Population::GroupDocument(json) => write!(f, "GroupDocument({} bytes)", json.len()),
        }
    }
}

impl Population {
    /// Whether it is the same when it is asked again: what came through a pipe is gone then.
    pub fn can_be_read_again(&self) -> bool {
        match self {
            Population::Patients(path) | Population::GroupFile(path) => path.is_file(),
            Population::System | Population::AllPatients | Population::Group(_) => true,
            Population::PatientIds(_) | Population::GroupDocument(_) => true,
        }
    }
}

/// What the writer of the Group asked for may draw on if it was bound to Groups: its Group reaches no more patients (GROUP-03).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WriterScope {
    /// Whether the writer of the version is known. An unknown one is not shown any Group.
    pub known: bool,
    /// Ids of Groups that the Group may list; others are not there for it. All if `None`.
    pub groups: Option<Vec<String>>,
    /// Groups whose members it may list; any patient if `None`.
    pub patients_of: Option<Vec<Population>>,
}

/// An export request: a population, and options by the method of their name. [`ExportRequest::check`] tells what is wrong.
///
/// ```
/// use outpour::{Compression, ExportRequest};
/// let request = ExportRequest::patient_ids(["a", "Patient/b"]).compression(Compression::Gzip).file_bytes(64 << 20);
/// assert!(request.check().is_ok());
/// let request = ExportRequest::group("ten").types(["Patient", "Observation"]).since("2020-01-01T00:00:00Z");
/// assert!(request.check().is_ok());
/// let wrong = ExportRequest::group("ten").types(["Pateint"]).since("yesterday");
/// assert_eq!(wrong.check().unwrap_err().problems.len(), 2); // every problem at once
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExportRequest {
    /// Whose records.
    pub population: Population,
    /// `_type`; empty for all (TYPE-02).
    pub types: Vec<ResourceType>,
    /// `_since`, strict (SINCE-02).
    pub since: Option<Instant>,
    /// `_until`, strict (SINCE-08).
    pub until: Option<Instant>,
    /// `_elements`: the root elements that resources keep; all of every type if empty.
    pub elements: ElementSelection,
    /// `_typeFilter`: of a type with filters the resources that meet one of them.
    pub(crate) type_filters: Vec<TypeFilter>,
    /// Whether a list of patients may name nobody; it decides no byte of an export.
    pub allow_empty: bool,
    /// Whether a patient to whom the export is to be restricted must be there (PATIENT-05); it decides no byte either.
    pub strict_patients: bool,
    /// Whether a row that is also in the record of somebody else is left out of an export that is restricted to patients.
    pub patient_strict: PatientStrict,
    /// Patients to whom the population is restricted; all of it if `None`.
    pub(crate) only_patients: Option<PatientList>,
    /// Provenance of the exported resources; by the rule for all other types if `None` (ASSOC-05).
    pub associated: Option<AssociatedData>,
    /// Resources that come with those that refer to them (COMP-06).
    pub context: Context,
    /// How Group members are read.
    pub members: MembershipRule,
    /// What becomes of a Group that has filters of its members.
    pub(crate) filtered_groups: FilteredGroups,
    /// What the Group's writer may draw on; the whole store if `None`.
    pub(crate) writer: Option<WriterScope>,
    /// Ids of Groups of the store that count as absent where others list them: replaced or deleted elsewhere (GROUP-01).
    pub(crate) absent_groups: BTreeSet<String>,
    /// Bases under which absolute references are ours (reading 5), without a slash at their ends.
    pub fhir_bases: Vec<String>,
    /// Late rows.
    pub late: LateArrivals,
    /// Undated rows.
    pub missing_last_updated: MissingLastUpdated,
    /// Resources that are gone from replaced files.
    pub vanished: Vanished,
    /// The export that this is an increment on; its transactionTime is `since` then.
    pub(crate) baseline: Option<Arc<Baseline>>,
    /// What happens for patients who joined after the baseline; without one it has no effect.
    pub(crate) new_members: NewMembers,
    /// Whether the record keeps the keys of all resources that a reader holds after the export, for increments on it.
    pub(crate) keeps_resources: bool,
    /// Bounds of a file.
    pub bounds: FileBounds,
    /// Compression of the files.
    pub compression: Compression,
    /// Digest over each file.
    pub digest: DigestAlgorithm,
    /// Who reads the messages.
    pub(crate) audience: Audience,
    /// Put before file names and the request path, so it ends with a slash; when `None` file URLs, or bare names in a sink.
    pub base_url: Option<String>,
    /// What relative URLs of attachments become; by `base_url` if `None`.
    pub(crate) attachments: Option<AttachmentUrls>,
    /// How rows are selected.
    pub(crate) access_path: AccessPath,
    /// What was decided while the request was read, for the message files (HDR-06).
    pub notes: Vec<Issue>,
    problems: Vec<FoundProblem>,
}

impl ExportRequest {
    /// A request for the records of a population, with every option at its default.
    fn population(population: Population) -> ExportRequest {
        ExportRequest {
            population,
            types: Vec::new(),
            since: None,
            until: None,
            elements: ElementSelection::default(),
            type_filters: Vec::new(),
            allow_empty: false,
            strict_patients: false,
            patient_strict: PatientStrict::default(),
            only_patients: None,
            associated: None,
            context: Context::default(),
            members: MembershipRule::default(),
            filtered_groups: FilteredGroups::default(),
            writer: None,
            absent_groups: BTreeSet::new(),
            fhir_bases: Vec::new(),
            late: LateArrivals::default(),
            missing_last_updated: MissingLastUpdated::default(),
            vanished: Vanished::default(),
            baseline: None,
            new_members: NewMembers::default(),
            keeps_resources: false,
            bounds: FileBounds::default(),
            compression: Compression::None,
            digest: DigestAlgorithm::Xxh3,
            audience: Audience::default(),
            base_url: None,
            attachments: None,
            access_path: AccessPath::Auto,
            notes: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The same request for the records of another population.
    pub(crate) fn for_population(self, population: Population) -> ExportRequest {
        ExportRequest { population, ..self }
    }

    /// Everything in the store.
    pub fn system() -> ExportRequest {
        ExportRequest::population(Population::System)
    }

    /// Every patient's compartment.
    pub fn all_patients() -> ExportRequest {
        ExportRequest::population(Population::AllPatients)
    }

    /// The patients named in a file.
    pub fn patients(file: impl Into<PathBuf>) -> ExportRequest {
        ExportRequest::population(Population::Patients(file.into()))
    }

    /// The members of a Group in the store.
    pub fn group(id: impl Into<String>) -> ExportRequest {
        ExportRequest::population(Population::Group(id.into()))
    }

    /// The members of a Group in a file.
    pub fn group_file(file: impl Into<PathBuf>) -> ExportRequest {
        ExportRequest::population(Population::GroupFile(file.into()))
    }

    /// Patients named here, an id or a reference each: what [`ExportRequest::patients`] takes from a file, one a line. A list that
    /// names nobody is refused unless [`ExportRequest::allow_empty`] is given.
    pub fn patient_ids<S: Into<String>>(ids: impl IntoIterator<Item = S>) -> ExportRequest {
        ExportRequest::population(Population::PatientIds(ids.into_iter().map(Into::into).collect()))
    }

    /// The members of the Group in a JSON document: what [`ExportRequest::group_file`] takes from a file. It need not be in
    /// the store. It is read when the export is planned, and refused then if it can stand for no set of patients.
    ///
    /// ```
    /// # use outpour::ExportRequest;
    /// let group = br#"{"resourceType":"Group","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}}]}"#;
    /// let request = ExportRequest::group_document(&group[..]);
    /// ```
    pub fn group_document(json: impl Into<Arc<[u8]>>) -> ExportRequest {
        ExportRequest::population(Population::GroupDocument(json.into()))
    }

    /// `_type`: names of resource types; empty items are ignored (PARAM-07). Repeats add up (PARAM-01).
    pub fn types<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> ExportRequest {
        let names: Vec<S> = names.into_iter().collect();
        let names = names.iter().map(|name| name.as_ref().trim()).filter(|name| !name.is_empty());
        let (known, unknown) = read_types(names, ResourceType::parse);
        self.types.extend(known);
        self.problems.extend(unknown.into_iter().map(FoundProblem::Ignorable));
        self.types.sort_unstable();
        self.types.dedup();
        self
    }

    /// `_since`: an instant, or a date as 00:00:00Z of that day (reading 1).
    pub fn since(mut self, text: &str) -> ExportRequest {
        match Instant::parse_instant_or_date(text) {
            Some(time) => self.since = Some(time),
            None => {
                let form = "neither an instant such as 2024-05-01T00:00:00Z (with seconds and offset) nor a date";
                self.refuse(RequestProblem::of(Parameter::Since, format!("{text:?} is {form}")));
            }
        }
        self
    }

    /// `_until`: an instant.
    pub fn until(mut self, text: &str) -> ExportRequest {
        match Instant::parse(text) {
            Some(time) => self.until = Some(time),
            None => {
                let form = format!("{text:?} is no instant such as 2024-05-01T00:00:00Z (with seconds and offset)");
                self.refuse(RequestProblem::of(Parameter::Until, form));
            }
        }
        self
    }

    /// `_elements`: the root elements that resources keep beside mandatory ones, as `Type.element` or `element`
    /// ([`ElementSelection::parse`]); the others are left out, and what is reduced gets the tag `SUBSETTED` in `meta.tag`
    /// (ELEM-01 to ELEM-06). Types that no item touches stay whole, byte for byte. Which resources are exported does not
    /// depend on it. It takes the place of a list given before; each wrong item is a problem of the request.
    ///
    /// ```
    /// use outpour::ExportRequest;
    /// let request = ExportRequest::all_patients().elements(["id", "Patient.birthDate", "Observation.value"]);
    /// assert!(request.check().is_ok());
    /// let wrong = ExportRequest::all_patients().elements(["Patient.name.family", "Patient.nmae"]);
    /// assert_eq!(wrong.check().unwrap_err().problems.len(), 2);
    /// ```
    pub fn elements<S: AsRef<str>>(mut self, items: impl IntoIterator<Item = S>) -> ExportRequest {
        let (selection, unknown) = read_elements(items);
        self.elements = selection;
        self.problems.extend(unknown.into_iter().map(FoundProblem::Ignorable));
        self
    }

    /// `_typeFilter`: searches over one type each, by R4's search parameters (TFILTER-01 to TFILTER-11). Of a type with filters
    /// the resources are exported that meet one. Repeats add up; each wrong part is a problem, told without its value.
    ///
    /// ```
    /// use outpour::ExportRequest;
    /// assert!(ExportRequest::all_patients().type_filters(["Observation?category=laboratory&date=ge2024-01"]).check().is_ok());
    /// assert!(ExportRequest::all_patients().type_filters(["Patient?status=active"]).check().is_err());
    /// ```
    pub fn type_filters<S: AsRef<str>>(mut self, filters: impl IntoIterator<Item = S>) -> ExportRequest {
        let (filters, problems) = read_filters(filters);
        self.type_filters.extend(filters);
        self.problems.extend(problems);
        self
    }

    /// `_since` as an instant; see [`ExportRequest::since`].
    pub fn since_instant(mut self, time: Instant) -> ExportRequest {
        self.since = Some(time);
        self
    }

    /// `_until` as an instant; see [`ExportRequest::until`].
    pub fn until_instant(mut self, time: Instant) -> ExportRequest {
        self.until = Some(time);
        self
    }

    /// A list of patients may name nobody, which gives an export without records; else it is refused.
    pub fn allow_empty(mut self) -> ExportRequest {
        self.allow_empty = true;
        self
    }

    /// `patient`: restricts the export to these patients of its population, an id or a reference each, such as `a` or
    /// `Patient/a`. Repeats add up. One whom the population does not hold is a warning, or an error under
    /// [`ExportRequest::strict_patients`] (PATIENT-05).
    pub fn only_patients<S: Into<String>>(mut self, patients: impl IntoIterator<Item = S>) -> ExportRequest {
        let mut ids = match self.only_patients.take() {
            Some(PatientList::Ids(ids)) => ids,
            _ => Vec::new(),
        };
        ids.extend(patients.into_iter().map(Into::into));
        self.only_patients = Some(PatientList::Ids(ids));
        self
    }

    /// A patient of [`ExportRequest::only_patients`] whom the population does not hold is an error; else a warning.
    pub fn strict_patients(mut self) -> ExportRequest {
        self.strict_patients = true;
        self
    }

    /// Which rows belong to [`ExportRequest::only_patients`]: those of any of them unless given, or those in nobody else's record.
    pub fn patient_strict(mut self, strict: PatientStrict) -> ExportRequest {
        self.patient_strict = strict;
        self
    }

    /// `includeAssociatedData`: codes of sets. Of several the least restrictive counts (ASSOC-04); empty items are ignored.
    pub fn include_associated_data<S: AsRef<str>>(mut self, codes: impl IntoIterator<Item = S>) -> ExportRequest {
        let (associated, unknown) = read_associated(codes, &[]);
        self.associated = self.associated.max(associated);
        self.problems.extend(unknown.into_iter().map(FoundProblem::Ignorable));
        self
    }

    /// Whether Practitioners, Organizations, Locations and the like come with what refers to them (COMP-06); none unless given.
    pub fn context(mut self, context: Context) -> ExportRequest {
        self.context = context;
        self
    }

    /// How Group members are read; as listed unless given.
    pub fn members(mut self, rule: MembershipRule) -> ExportRequest {
        self.members = rule;
        self
    }

    /// Bases of the store's own absolute references (reading 5): absolute http(s) URLs, maybe with a slash at the end. Repeats add up.
    pub fn fhir_bases<S: AsRef<str>>(mut self, bases: impl IntoIterator<Item = S>) -> ExportRequest {
        for base in bases {
            let base = base.as_ref().trim_end_matches('/');
            if !base.starts_with("http://") && !base.starts_with("https://") {
                let text = format!("{base:?} is no absolute http(s) URL");
                self.refuse(RequestProblem::of(Parameter::FhirBase, text));
            }
            self.fhir_bases.push(base.to_string());
        }
        self.fhir_bases.sort();
        self.fhir_bases.dedup();
        self
    }

    /// What happens under `_since` to rows that came late to the store; exported unless given.
    pub fn late(mut self, late: LateArrivals) -> ExportRequest {
        self.late = late;
        self
    }

    /// What happens under `_since` and `_until` to rows without `meta.lastUpdated`; exported unless given.
    pub fn missing_last_updated(mut self, missing: MissingLastUpdated) -> ExportRequest {
        self.missing_last_updated = missing;
        self
    }

    /// What happens under `_since` to resources that are gone from a replaced file; counted unless given. Never those of others.
    pub fn vanished(mut self, vanished: Vanished) -> ExportRequest {
        self.vanished = vanished;
        self
    }

    /// Most uncompressed bytes of a file, at least 1, newlines included; 256 MiB unless given.
    pub fn file_bytes(mut self, bytes: u64) -> ExportRequest {
        self.bounds.file_bytes = bytes;
        self
    }

    /// Most rows of a file, at least 1; any number unless given.
    pub fn file_resources(mut self, rows: u64) -> ExportRequest {
        self.bounds.file_resources = Some(rows);
        self
    }

    /// Compression of the files; none unless given.
    pub fn compression(mut self, compression: Compression) -> ExportRequest {
        self.compression = compression;
        self
    }

    /// Digest over each file, which the manifest holds; xxh3 unless given.
    pub fn digest(mut self, digest: DigestAlgorithm) -> ExportRequest {
        self.digest = digest;
        self
    }

    /// What the manifest puts before file names and the path of the request: an absolute URL, with or without a slash at its
    /// end. Relative URLs of attachments in the rows become absolute below it, `{base}/attachment/{id}?v={version}`, where a
    /// service at this base answers them (ATTACH-02).
    pub fn base_url(mut self, url: &str) -> ExportRequest {
        let absolute = url.split_once("://").is_some_and(|(scheme, rest)| {
            !rest.is_empty() && !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
        });
        if !absolute {
            let text = format!("{url:?} is no absolute URL such as https://host/files/");
            self.refuse(RequestProblem::of(Parameter::BaseUrl, text));
        }
        self.base_url = Some(format!("{}/", url.trim_end_matches('/')));
        self
    }

    /// A message for the `error` files: something that was decided while the request was put together (HDR-06).
    pub fn note(mut self, note: Issue) -> ExportRequest {
        self.notes.push(note);
        self
    }

    /// What was given so far and cannot be served, but may be left out, is left out with a message each in the `error` files
    /// (HDR-05, HDR-06): unknown names of `_type`, items of `_elements`, codes of `includeAssociatedData`. Everything else is
    /// refused as before, and so is a request of whose types none is left.
    ///
    /// ```
    /// use outpour::ExportRequest;
    /// let request = ExportRequest::system().types(["Patient", "Pateint"]).elements(["name", "nmae"]).lenient();
    /// assert!(request.check().is_ok() && request.notes.len() == 2);
    /// assert!(ExportRequest::system().types(["Pateint"]).lenient().check().is_err());
    /// ```
    pub fn lenient(self) -> ExportRequest {
        self.ignore(&PLAIN_NAMES)
    }

    /// [`ExportRequest::lenient`], with messages in the words of a door.
    pub(crate) fn ignore(mut self, words: &ParameterNames) -> ExportRequest {
        let (refused, mut ignored) = leave_out(std::mem::take(&mut self.problems));
        self.problems = refused;
        ignored.extend(drop_filters(&mut self.type_filters, &ignored, &self.types));
        self.notes.extend(notes_on(&ignored, words).iter());
        if self.types.is_empty()
            && let Some(text) = no_type_left(&ignored)
        {
            self.refuse(RequestProblem::of(Parameter::Type, text));
        }
        if self.elements.is_empty()
            && let Some(text) = no_element_left(&ignored)
        {
            self.refuse(RequestProblem::of(Parameter::Elements, text));
        }
        self
    }

    /// How rows are selected; for tests and benches.
    #[doc(hidden)]
    pub fn access_path(mut self, access_path: AccessPath) -> ExportRequest {
        self.access_path = access_path;
        self
    }

    /// A problem that was found elsewhere.
    pub fn problem(mut self, problem: impl Into<RequestProblem>) -> ExportRequest {
        self.refuse(problem.into());
        self
    }

    /// Records a problem that is never left out.
    fn refuse(&mut self, problem: RequestProblem) {
        self.problems.push(FoundProblem::Fixed(problem));
    }

    /// Whether the request can be carried out as far as it can be told without the store.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn check(&self) -> Result<(), RequestError> {
        let mut problems: Vec<RequestProblem> = self.problems.iter().map(RequestProblem::from).collect();
        problems.extend(unused_filters(&self.type_filters, &self.types).iter().map(RequestProblem::from));
        if let (Some(since), Some(until)) = (&self.since, &self.until)
            && since >= until
        {
            let text = format!("{until} ends the window before it begins, so nothing could match");
            problems.push(RequestProblem::of(Parameter::Until, text).advise(Advice::BeginEarlier(since.to_string())));
        }
        if self.bounds.file_bytes == 0 {
            let text = "0 is no bound; give at least 1, such as 256MiB";
            problems.push(RequestProblem::of(Parameter::MaxFileBytes, text));
        }
        if self.bounds.file_resources == Some(0) {
            let text = "0 is no bound; give at least 1, or leave it out";
            problems.push(RequestProblem::of(Parameter::MaxFileResources, text));
        }
        let names_nobody =
            |list: &PatientList| matches!(list, PatientList::Ids(ids) if ids.iter().all(|id| id.trim().is_empty()));
        if self.only_patients.as_ref().is_some_and(names_nobody) {
            let text = "no patient is named; leave it out for all patients";
            problems.push(RequestProblem::of(Parameter::Patient, text));
        }
        if self.population == Population::System && self.only_patients.is_some() {
            let text = "an export of the whole store is not restricted to patients; ask for that of all patients";
            problems.push(RequestProblem::of(Parameter::Patient, text));
        }
        if self.population != Population::System
            && !self.types.is_empty()
            && self.problems.is_empty()
            && self.types.iter().all(|t| !compartment::in_compartment(*t))
        {
            let names: Vec<&str> = self.types.iter().map(|t| t.name()).collect();
            let text = format!(
                "only types outside the Patient compartment are named ({}), which belong to no patient; \
                 add a type of the compartment",
                names.join(", ")
            );
            problems.push(RequestProblem::of(Parameter::Type, text).advise(Advice::SystemLevel));
        }
        if problems.is_empty() { Ok(()) } else { Err(RequestError { problems }) }
    }

    /// The request as its kick-off URL: `{base-url}Group/{id}/$export?…` with sorted parameters (MANIFEST-02).
    /// `group_id` is the id inside a Group file or document.
    pub fn canonical_text(&self, group_id: Option<&str>) -> String {
        let path = match &self.population {
            Population::System => "$export".to_string(),
            Population::AllPatients | Population::Patients(_) | Population::PatientIds(_) => {
                "Patient/$export".to_string()
            }
            Population::Group(id) => format!("Group/{id}/$export"),
            Population::GroupFile(_) => format!("Group/{}/$export", group_id.unwrap_or("file")),
            Population::GroupDocument(_) => format!("Group/{}/$export", group_id.unwrap_or("document")),
        };
        let mut parameters = Vec::new();
        if !self.elements.is_empty() {
            parameters.push(format!("_elements={}", self.elements));
        }
        for filter in &self.type_filters {
            parameters.push(format!("_typeFilter={}", filter.encoded()));
        }
        if let Some(since) = &self.since {
            parameters.push(format!("_since={since}"));
        }
        if !self.types.is_empty() {
            let names: Vec<&str> = self.types.iter().map(|t| t.name()).collect();
            parameters.push(format!("_type={}", names.join(",")));
        }
        if let Some(until) = &self.until {
            parameters.push(format!("_until={until}"));
        }
        if let Some(associated) = self.associated {
            parameters.push(format!("includeAssociatedData={}", associated.name()));
        }
        parameters.sort();
        let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
        format!("{}{path}{query}", self.base_url.as_deref().unwrap_or(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option has a method of its name, and bases are brought into one form.
    #[test]
    fn a_request_is_built_without_its_fields() {
        let time = Instant::from_unix_millis;
        let request = ExportRequest::group("g")
            .types(["Patient"])
            .since_instant(time(1))
            .until_instant(time(2))
            .elements(["id", "Patient.name"])
            .allow_empty()
            .strict_patients()
            .patient_strict(PatientStrict::All)
            .members(MembershipRule::Active)
            .fhir_bases(["https://b.example/fhir/", "http://a.example", "https://b.example/fhir"])
            .late(LateArrivals::Report)
            .missing_last_updated(MissingLastUpdated::Exclude)
            .vanished(Vanished::Delete)
            .file_bytes(7)
            .file_resources(8)
            .compression(Compression::Zstd)
            .digest(DigestAlgorithm::Sha256)
            .base_url("https://x.example/files")
            .note(Issue::warning(crate::issue::IssueCode::NotSupported, "n"));
        let mut expected = ExportRequest::group("g").types(["Patient"]);
        expected.since = Some(time(1));
        expected.until = Some(time(2));
        expected.elements = ElementSelection::parse(["Patient.name", "id"]).0;
        (expected.allow_empty, expected.strict_patients) = (true, true);
        expected.patient_strict = PatientStrict::All;
        expected.members = MembershipRule::Active;
        expected.fhir_bases = ["http://a.example", "https://b.example/fhir"].map(String::from).to_vec();
        expected.late = LateArrivals::Report;
        expected.missing_last_updated = MissingLastUpdated::Exclude;
        expected.vanished = Vanished::Delete;
        expected.bounds = FileBounds { file_bytes: 7, file_resources: Some(8) };
        expected.compression = Compression::Zstd;
        expected.digest = DigestAlgorithm::Sha256;
        expected.base_url = Some("https://x.example/files/".to_string());
        expected.notes = request.notes.clone();
        assert_eq!(request, expected);
        assert_eq!((request.notes.len(), request.check().is_ok()), (1, true));
    }

    /// Bases that are none are problems of their parameters, told with all the others.
    #[test]
    fn bases_are_checked() {
        let wrong = ExportRequest::system().fhir_bases(["ftp://x", "Patient"]).base_url("/files").file_bytes(0);
        let problems = wrong.check().unwrap_err().problems;
        let parameters: Vec<_> = problems.iter().filter_map(|problem| problem.parameter).collect();
        let base = Parameter::FhirBase;
        assert_eq!(parameters, [base, base, Parameter::BaseUrl, Parameter::MaxFileBytes]);
        assert_eq!(problems[2].to_string(), "base_url: \"/files\" is no absolute URL such as https://host/files/");
    }
}
