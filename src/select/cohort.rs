//! The cohort of an export: the population of a request, resolved to a set of patients of the dictionary.
//!
//! The dictionary names a patient by base and id; a member means its id under the relative base and under every base
//! that is ours (reading 5). A member that does not resolve is a warning, never an error (GROUP-06).

use std::collections::HashSet;

use crate::error::ExportError;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::id::Id;
use crate::group::lookup::our_bases;
use crate::group::member_filter::FilteredGroups;
use crate::ids::RowAddress;
use crate::index::snapshot::Snapshot;
use crate::issue::IssueLog;
use crate::policies::PatientStrict;
use crate::progress::Progress;
use crate::request::{ExportRequest, Population, WriterScope};
use crate::select::bitmap::Bitmap;
use crate::select::member_filters::{FilterQuestion, filter_members};
use crate::select::member_starts::MemberStarts;
use crate::select::members::MemberResolver;
use crate::select::only_patients::{outsiders, restrict};
use crate::select::patient_list::read_patient_ids;

/// The patients whose records are exported, and the Group or list that they come from.
pub struct Cohort {
    /// Patients by their numbers in the dictionary; `None` at system level, where compartments do not count.
    pub patients: Option<Bitmap>,
    /// One of the patients for each resolved member, under the relative base if it is there; empty without a list or
    /// Group.
    pub members: Bitmap,
    /// Members that no row of the store names any more, but that owned vanished resources.
    pub(crate) vanished_members: HashSet<Id>,
    /// When the members of a Group joined, where no export before tells (GROUP-11).
    pub(crate) starts: Option<MemberStarts>,
    /// Whether each reference base of the index is ours, by its number.
    pub ours: Vec<bool>,
    /// Segment and row of the requested Group, if it is in the store: the only Group row that may be exported.
    pub group_row: Option<RowAddress>,
    /// The id of the requested Group; `None` for other populations and for a file whose Group has no id.
    pub group_id: Option<String>,
    /// Number of members listed (entries of Groups or lines of the list), duplicates included.
    pub listed: u64,
    /// XXH3-128 of the Group or list that came with the request, in a file or in memory.
    pub content_hash: Option<u128>,
    /// Ids of the patients to whom the export is restricted, ascending; `None` for no restriction (PATIENT-01).
    pub(crate) only: Option<Vec<Id>>,
    /// Everybody else, where rows that are in the record of one of them, too, are left out (COMP-05): all patients of ours
    /// but those of the cohort.
    pub(crate) outsiders: Option<Bitmap>,
    /// Name of the scope of the Group's writer, if it has one: equal names only for equal scopes.
    pub writer: Option<String>,
    /// Warnings about members that did not resolve, and notes on the Groups read.
    pub messages: IssueLog,
}

impl Cohort {
    /// Resolves the request's population in a snapshot.
    ///
    /// # Errors
    /// [`ExportError::Request`] if the Group or file is missing, unreadable or does not define a set of patients; index
    /// and store errors if the store cannot be read.
    pub fn resolve(snapshot: &Snapshot, request: &ExportRequest) -> Result<Cohort, ExportError> {
        Cohort::resolve_cancellably(snapshot, request, &Progress::default())
    }

    /// As [`Cohort::resolve`], until `progress` is cancelled: filters of a Group may read much of the store.
    ///
    /// # Errors
    /// Also [`ExportError::Cancelled`].
    pub(crate) fn resolve_cancellably(
        snapshot: &Snapshot,
        request: &ExportRequest,
        progress: &Progress,
    ) -> Result<Cohort, ExportError> {
        let ours = our_bases(snapshot, &request.fhir_bases);
        let mut eligible = None;
        let mut writer = None;
        if let Some(scope) = &request.writer {
            let (patients, name) = eligible_patients(snapshot, request, scope)?;
            (eligible, writer) = (patients, Some(name));
        }
        let mut resolver = MemberResolver::new(snapshot, request, &ours, eligible);
        resolver.remember_vanished(snapshot.vanished()?);
        let mut group = (None, None);
        let mut content_hash = None;
        match &request.population {
            Population::System => {}
            Population::AllPatients => resolver.add_everyone()?,
            Population::Patients(path) => content_hash = Some(resolver.add_list(path)?),
            Population::PatientIds(ids) => content_hash = Some(resolver.add_ids(ids)?),
            Population::Group(id) => {
                let row = resolver.find_group(id)?;
                resolver.add_group_of_store(row, id)?;
                group = (Some(row), Some(id.clone()));
            }
            Population::GroupFile(_) | Population::GroupDocument(_) => {
                let (id, hash) = match &request.population {
                    Population::GroupFile(path) => resolver.add_group_file(path)?,
                    Population::GroupDocument(json) => resolver.add_group_document(json)?,
                    _ => unreachable!("matched above"),
                };
                content_hash = Some(hash);
                // The Group of the same id in the store is the Group row to export, should `_type` name Group.
                let named = id.filter(|id| !request.absent_groups.contains(id.as_str()));
                let row = match named.map(|id| resolver.find_group(id.as_str())) {
                    Some(Ok(row)) => Some(row),
                    None | Some(Err(ExportError::Request(_))) => None,
                    Some(Err(error)) => return Err(error),
                };
                group = (row, id.map(|id| id.to_string()));
            }
        }
        resolver.add_nested_groups()?;
        resolver.add_identified()?;
        resolver.add_unlisted()?;
        let mut found = resolver.finish()?;
        let only = match &request.only_patients {
            Some(list) => Some(read_patient_ids(list, &BaseUrls::new(&request.fhir_bases))?),
            None => None,
        };
        let question = FilterQuestion { snapshot, request, ours: &ours, progress };
        let resolved = (&found.patients, &found.members);
        if let Some(met) = filter_members(&question, &found.filters, resolved, only.as_deref())? {
            (found.patients, found.members) = (met.patients, met.members);
            // Nothing is left of these that could meet a filter.
            found.vanished.clear();
            met.unreadable.into_iter().for_each(|message| found.messages.push("filter-unreadable", message));
        }
        if let Some(ids) = &only {
            found = restrict(snapshot, request, &ours, found, ids)?;
        }
        let outsiders = match only.is_some() && request.patient_strict == PatientStrict::All {
            true => Some(outsiders(snapshot, &ours, &found.patients)?),
            false => None,
        };
        Ok(Cohort {
            patients: (request.population != Population::System).then_some(found.patients),
            members: found.members,
            vanished_members: found.vanished,
            starts: found.starts,
            ours,
            // It lists members whom the export is not about.
            group_row: group.0.filter(|_| only.is_none()),
            group_id: group.1,
            listed: found.listed,
            content_hash,
            only,
            outsiders,
            writer,
            messages: found.messages,
        })
    }
}

/// The patients that a Group may list if its writer is bound to Groups (`None` for all), and a name of that scope that
/// two scopes share only if they are equal. A Group of the scope that is missing or unusable adds no patient, nor does one with
/// filters: whom they find its writer might be told by a type that it may not export.
fn eligible_patients(
    snapshot: &Snapshot,
    request: &ExportRequest,
    scope: &WriterScope,
) -> Result<(Option<Bitmap>, String), ExportError> {
    let mut name = match &scope.groups {
        Some(groups) => format!("groups {}", groups.join(" ")),
        None => "any groups".to_string(),
    };
    let Some(sources) = &scope.patients_of else { return Ok((None, name + "; any patients")) };
    let mut eligible = Bitmap::new(snapshot.index().patients());
    name.push_str("; patients of");
    for source in sources {
        let mut request = request.clone();
        (request.population, request.writer, request.only_patients) = (source.clone(), None, None);
        request.filtered_groups = FilteredGroups::Refused;
        match Cohort::resolve(snapshot, &request) {
            Ok(cohort) => {
                cohort.patients.iter().flat_map(Bitmap::iter).for_each(|patient| {
                    eligible.insert(patient);
                });
                let hash = cohort.content_hash.map_or(String::new(), |hash| format!(" ({hash:032x})"));
                name.push_str(&format!(" {}{hash}", cohort.group_id.as_deref().unwrap_or("-")));
            }
            Err(ExportError::Request(_)) => name.push_str(" -"),
            Err(error) => return Err(error),
        }
    }
    Ok((Some(eligible), name))
}
