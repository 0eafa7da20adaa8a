//! Whether all patients of a kick-off are there, for mounts that refuse one that names others (PATIENT-05).
//!
//! They are judged as the export itself would, by the index at the time of the kick-off.

use crate::error::ExportError;
use crate::fhir::id::Id;
use crate::group::registry::RegisteredGroup;
use crate::index::snapshot::Snapshot;
use crate::issue::{IssueCode, Parameter};
use crate::job::record::{RecordedPopulation, StoredRequest};
use crate::request::{ExportRequest, Population};
use crate::select::cohort::Cohort;
use crate::server::error::OutcomeIssue;
use crate::server::message_text::HTTP_WORDS;

/// The patients of a kick-off, and what they are looked for in.
pub(crate) struct PatientQuestion<'a> {
    /// The request as its job would have it.
    pub request: &'a StoredRequest,
    /// The Group of the request, if it was created through the service.
    pub own: Option<&'a RegisteredGroup>,
    /// Copies of the Groups that the request's scope refers to.
    pub copies: &'a [RegisteredGroup],
    /// The patients, by id.
    pub patients: &'a [Id],
}

impl PatientQuestion<'_> {
    /// An issue for each patient who is not in the population, or not known: one text for both. Blocks.
    ///
    /// # Errors
    /// [`ExportError`] if store, index or a Group cannot be read.
    pub(crate) fn missing(&self, snapshot: &Snapshot) -> Result<Vec<OutcomeIssue>, ExportError> {
        match Cohort::resolve(snapshot, &self.strict_request()?) {
            Ok(_) => Ok(Vec::new()),
            // What else is wrong with a Group has been told before, or is the job's to tell.
            Err(ExportError::Request(error)) => {
                let of_patient =
                    |problem: &&crate::error::RequestProblem| problem.parameter == Some(Parameter::Patient);
                let issue = |problem: &crate::error::RequestProblem| {
                    OutcomeIssue::error(IssueCode::NotFound, problem.say(&HTTP_WORDS)).at("http.patient")
                };
                Ok(error.problems.iter().filter(of_patient).map(issue).collect())
            }
            Err(error) => Err(error),
        }
    }

    /// A request for the same patients of the same population, as far as they depend on it.
    fn strict_request(&self) -> Result<ExportRequest, ExportError> {
        let unreadable = |error: crate::group::registry::GroupsError| {
            let source = std::io::Error::other(error.to_string());
            ExportError::from(crate::error::IndexError::Read { path: "a Group".into(), source })
        };
        let recorded = self.request;
        let mut request = match (&recorded.population, self.own) {
            (_, Some(group)) => ExportRequest::group_document(group.document().map_err(unreadable)?),
            (RecordedPopulation::StoreGroup(id) | RecordedPopulation::OwnGroup(id), None) => {
                ExportRequest::group(id.clone())
            }
            (RecordedPopulation::Patient(id), None) => ExportRequest::patient_ids([id.as_str()]),
            (RecordedPopulation::System | RecordedPopulation::AllPatients, None) => ExportRequest::all_patients(),
        };
        let mut documents = std::collections::HashMap::new();
        for group in self.copies {
            if let Some(id) = group.facts().id {
                documents.insert(id.to_string(), group.document().map_err(unreadable)?);
            }
        }
        let copied = |id: &str| Population::GroupDocument(documents.get(id).cloned().unwrap_or_default().into());
        request.writer = recorded.scope.as_ref().map(|scope| scope.to_scope(&copied));
        request.members = recorded.members;
        request.absent_groups = recorded.absent_groups.iter().cloned().collect();
        request.fhir_bases.clone_from(&recorded.fhir_bases);
        Ok(request.only_patients(self.patients.iter().map(Id::as_str)).strict_patients())
    }
}
