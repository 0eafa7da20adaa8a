//! An export that is restricted to some patients of its population (PATIENT-01).

use crate::error::ExportError;
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{BaseId, PatientId};
use crate::index::snapshot::Snapshot;
use crate::issue::{Issue, IssueCode};
use crate::request::{ExportRequest, Population};
use crate::select::bitmap::Bitmap;
use crate::select::members::ResolvedMembers;
use std::collections::HashSet;

/// Restricts resolved members to the patients of some ids. Each id that is not among them is a warning, with one text for a
/// patient that is missing and one that is there but not asked for (PATIENT-05). `ours` says of each base of the index
/// whether it is ours.
///
/// # Errors
/// If the index is corrupt.
pub(crate) fn restrict(
    snapshot: &Snapshot,
    request: &ExportRequest,
    ours: &[bool],
    found: ResolvedMembers,
    ids: &[Id],
) -> Result<ResolvedMembers, ExportError> {
    let index = snapshot.index();
    // Patients of whom no row is left may still have deletions to be told.
    let gone: HashSet<Id> = match request.population {
        Population::AllPatients => {
            let list = snapshot.vanished()?.iter();
            let own = list.clone().filter(|gone| gone.resource_type == ResourceType::PATIENT).map(|gone| gone.id);
            own.chain(list.flat_map(|gone| &gone.owners).map(|(_, id)| *id)).collect()
        }
        _ => found.vanished,
    };
    let mut restricted = ResolvedMembers {
        patients: Bitmap::new(index.patients()),
        members: Bitmap::new(index.patients()),
        vanished: HashSet::new(),
        listed: ids.len() as u64,
        messages: found.messages,
    };
    for id in ids {
        let mut is_first = true;
        for base in (0..ours.len()).filter(|base| ours[*base]).map(BaseId::of) {
            let known = index.patient(base, id)?.map(PatientId::index);
            let Some(patient) = known.filter(|patient| found.patients.contains(*patient)) else { continue };
            restricted.patients.insert(patient);
            if std::mem::take(&mut is_first) {
                restricted.members.insert(patient);
            }
        }
        if is_first {
            restricted.vanished.extend(gone.get(id));
            restricted.messages.push("patient-not-found", absent_patient(id, request));
        }
    }
    if request.types.contains(&ResourceType::GROUP) {
        let text = "Group: an export that is restricted to patients has no Group, which lists others";
        restricted.messages.push("group-restricted", Issue::warning(IssueCode::NotSupported, text));
    }
    Ok(restricted)
}

/// The warning about a patient of whom a restricted export has nothing.
fn absent_patient(id: &Id, request: &ExportRequest) -> Issue {
    let why = match request.population {
        Population::AllPatients => "whom the store does not hold",
        _ => "who is not among those whose records were asked for, or not in the store",
    };
    Issue::warning(IssueCode::NotFound, format!("patient: Patient/{id}, {why}: nothing was exported for them"))
}
