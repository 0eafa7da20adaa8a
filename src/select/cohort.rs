//! Who is asked for: Groups, lists and levels resolved to a set of patients of the dictionary.
//!
//! A patient is named by base and id; a member stands for its id under the relative base and under every base that is
//! ours (reading 5). What does not resolve is a warning, never an error (GROUP-06).

use crate::error::ExportError;
use crate::group::lookup::our_bases;
use crate::index::snapshot::Snapshot;
use crate::issue::IssueLog;
use crate::request::{ExportRequest, Population, WriterScope};
use crate::select::bitmap::Bitmap;
use crate::select::members::MemberResolver;

/// The patients of an export.
pub struct Cohort {
    /// Patients of the dictionary; `None` at system level, where compartments do not count.
    pub patients: Option<Bitmap>,
    /// Those of them that stand for a member: one each, the relative name where there is one.
    pub members: Bitmap,
    /// Whether each reference base of the index is ours.
    pub ours: Vec<bool>,
    /// The row of the Group asked for (segment, row), when it lies in the store: the one Group row that may leave.
    pub group_row: Option<(usize, usize)>,
    /// The id of the Group asked for.
    pub group_id: Option<String>,
    /// Members listed (entries of the Group or lines of the file), before duplicates collapse.
    pub listed: u64,
    /// xxh3 (128 bit) of the list or Group that came with the request, in a file or in memory.
    pub content_hash: Option<u128>,
    /// A name of the scope of the Group's writer, if it has one.
    pub writer: Option<String>,
    /// What did not resolve.
    pub messages: IssueLog,
}

impl Cohort {
    /// Resolves the request's population in a snapshot.
    ///
    /// # Errors
    /// [`ExportError::Request`] when the Group or file cannot stand for a set of patients; store errors.
    pub fn resolve(snapshot: &Snapshot, request: &ExportRequest) -> Result<Cohort, ExportError> {
        let ours = our_bases(snapshot, &request.fhir_bases);
        let mut eligible = None;
        let mut writer = None;
        if let Some(scope) = &request.writer {
            let (patients, name) = eligible_patients(snapshot, request, scope)?;
            (eligible, writer) = (patients, Some(name));
        }
        let mut resolver = MemberResolver::new(snapshot, request, &ours, eligible);
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
                // Its namesake in the store is the Group asked for, should `_type` name Group.
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
        let found = resolver.finish()?;
        Ok(Cohort {
            patients: (request.population != Population::System).then_some(found.patients),
            members: found.members,
            ours,
            group_row: group.0,
            group_id: group.1,
            listed: found.listed,
            content_hash,
            writer,
            messages: found.messages,
        })
    }
}

/// The patients that a Group may name whose writer is bound to Groups, and a name of that scope that two scopes share
/// only if they are equal. A Group of the scope that is not there, or cannot stand for patients, adds nobody.
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
        (request.population, request.writer) = (source.clone(), None);
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
