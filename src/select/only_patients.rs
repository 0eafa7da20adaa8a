//! An export that is restricted to some patients of its population (PATIENT-01).

use crate::count_text::{counted, word_form};
use crate::error::{CorruptIndex, ExportError, RequestError, RequestProblem};
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{BaseId, PatientId};
use crate::index::global::Section;
use crate::index::snapshot::Snapshot;
use crate::issue::{Issue, IssueCode, Parameter};
use crate::limits::KICKOFF_PROBLEMS_MAX;
use crate::request::{ExportRequest, Population};
use crate::select::bitmap::Bitmap;
use crate::select::members::ResolvedMembers;
use std::collections::HashSet;

/// Restricts resolved members to the patients of some ids. Each id that is not among them is a warning, or a problem of the
/// request where it is strict, with one text for a patient that is missing and one that is there but not asked for
/// (PATIENT-05). `ours` says of each base of the index whether it is ours.
///
/// # Errors
/// [`ExportError::Request`] for ids that are not among them, if the request is strict; or if the index is corrupt.
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
    // What is said of single members is of people whom nobody asked for, or is said below of those who were.
    let mut messages = found.messages;
    messages.retain_causes(|cause| !cause.starts_with("member-"));
    let mut restricted = ResolvedMembers {
        patients: Bitmap::new(index.patients()),
        members: Bitmap::new(index.patients()),
        vanished: HashSet::new(),
        starts: found.starts,
        filters: found.filters,
        listed: ids.len() as u64,
        messages,
    };
    let mut absent: Vec<&Id> = Vec::new();
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
            absent.push(id);
        }
    }
    if request.strict_patients && !absent.is_empty() {
        return Err(absent_error(&absent, request).into());
    }
    for id in absent {
        let text = format!("patient: Patient/{id}, {}: nothing was exported for them", why_absent(request));
        restricted.messages.push("patient-not-found", Issue::warning(IssueCode::NotFound, text));
    }
    if request.types.contains(&ResourceType::GROUP) {
        let text = "Group: an export that is restricted to patients has no Group, which lists others";
        restricted.messages.push("group-restricted", Issue::warning(IssueCode::NotSupported, text));
    }
    Ok(restricted)
}

/// Patients under bases of ours who are not among `patients`: who an export that is restricted to these must not tell of,
/// if it is strict (COMP-05).
///
/// # Errors
/// If the index is corrupt.
pub(crate) fn outsiders(snapshot: &Snapshot, ours: &[bool], patients: &Bitmap) -> Result<Bitmap, CorruptIndex> {
    let index = snapshot.index();
    let mut others = Bitmap::new(index.patients());
    let bases = index.global().verified_words(Section::PatientBase, 0..index.patients())?;
    let is_other = |(patient, base): &(usize, &u32)| ours[**base as usize] && !patients.contains(*patient);
    bases.iter().enumerate().filter(is_other).for_each(|(patient, _)| {
        others.insert(patient);
    });
    Ok(others)
}

/// The clause about a patient of whom a restricted export has nothing.
fn why_absent(request: &ExportRequest) -> &'static str {
    match request.population {
        Population::AllPatients => "whom the store does not hold",
        _ => "who is not among those whose records were asked for, or not in the store",
    }
}

/// The error about patients of whom a strict export has nothing: the first of them by id, then how many more there are.
fn absent_error(absent: &[&Id], request: &ExportRequest) -> RequestError {
    let why = why_absent(request);
    let of_id = |id: &&Id| format!("Patient/{id}, {why}; leave them out");
    let mut texts: Vec<String> = absent.iter().take(KICKOFF_PROBLEMS_MAX).map(of_id).collect();
    let more = (absent.len() - texts.len()) as u64;
    if more > 0 {
        texts.push(format!("{} of the kind {} named", counted(more, "more patient"), word_form(more, "is", "are")));
    }
    let problem = |text: String| RequestProblem::of(Parameter::Patient, text).not_found();
    RequestError { problems: texts.into_iter().map(problem).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PATIENT-05: however many are missing, the first are named and the others counted.
    #[test]
    fn many_missing_patients_are_counted() {
        let ids: Vec<Id> = (0..1000).map(|i| Id::parse(format!("p{i}").as_bytes()).unwrap()).collect();
        let all: Vec<&Id> = ids.iter().collect();
        let request = ExportRequest::group("g");
        let problems = absent_error(&all, &request).problems;
        assert_eq!(problems.len(), KICKOFF_PROBLEMS_MAX + 1);
        assert!(problems[0].to_string().starts_with("patient: Patient/p0, who is not among"));
        assert_eq!(problems[KICKOFF_PROBLEMS_MAX].to_string(), "patient: 900 more patients of the kind are named");
        assert_eq!(absent_error(&all[..1], &request).problems.len(), 1);
    }
}
