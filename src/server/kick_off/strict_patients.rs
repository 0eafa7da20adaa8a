//! Whether all patients of a kick-off are there, for mounts that refuse one that names others (PATIENT-05).
//!
//! They are judged as the export itself would, by the index at the time of the kick-off.

use crate::error::ExportError;
use crate::group::registry::RegisteredGroup;
use crate::index::snapshot::Snapshot;
use crate::issue::{IssueCode, Parameter};
use crate::job::record::RecordedScope;
use crate::request::{ExportRequest, Population};
use crate::select::cohort::Cohort;
use crate::server::error::OutcomeIssue;
use crate::server::message_text::HTTP_WORDS;

/// The patients of a kick-off, and what they are looked for in.
pub(crate) struct PatientQuestion<'a> {
    /// The request.
    pub request: &'a ExportRequest,
    /// The Group of the request, if it was created through the service.
    pub own: Option<&'a RegisteredGroup>,
    /// What the writer of that Group may draw on; the whole store if `None`.
    pub scope: Option<&'a RecordedScope>,
    /// Copies of the Groups that the scope refers to.
    pub copies: &'a [RegisteredGroup],
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
        let given = self.request;
        let mut request = match self.own {
            Some(group) => ExportRequest::group_document(group.document().map_err(unreadable)?),
            None => ExportRequest::system().for_population(given.population.clone()),
        };
        let mut documents = std::collections::HashMap::new();
        for group in self.copies {
            if let Some(id) = group.facts().id {
                documents.insert(id.to_string(), group.document().map_err(unreadable)?);
            }
        }
        let copied = |id: &str| Population::GroupDocument(documents.get(id).cloned().unwrap_or_default().into());
        request.writer = self.scope.map(|scope| scope.to_scope(&copied));
        request.members = given.members;
        request.filtered_groups = given.filtered_groups;
        request.absent_groups.clone_from(&given.absent_groups);
        request.fhir_bases.clone_from(&given.fhir_bases);
        request.only_patients.clone_from(&given.only_patients);
        Ok(request.strict_patients())
    }
}
