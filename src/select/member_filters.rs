//! Filters of the members of a Group (COHORT-03, COHORT-05): the patients who meet all of them at T.
//!
//! A patient meets a filter of Patients by the Patient resource itself, and one of another type by any resource of that type in
//! the patient's record, as both are at T. Rows are read of the searched types alone, and of patients who can be in the Group.

use std::collections::BTreeMap;
use std::slice::from_ref;

use rayon::prelude::*;

use crate::casts::to_u32;
use crate::count_text::word_form;
use crate::error::{CorruptIndex, ExportError, RequestError, RequestProblem};
use crate::fhir::base_url::BaseUrls;
use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::type_filter::TypeFilter;
use crate::group::reader::GroupHead;
use crate::ids::{BaseId, OwnerOrd, PatientId, RowAddress, SegmentId};
use crate::index::segment::layout::Column;
use crate::index::snapshot::{RowState, Snapshot};
use crate::issue::{Issue, IssueCode, Parameter, Severity};
use crate::limits::POSTINGS_SHARE;
use crate::policies::Audience;
use crate::progress::Progress;
use crate::request::{ExportRequest, WriterScope};
use crate::select::bitmap::Bitmap;
use crate::select::filter_verdicts::MET;
use crate::select::segment_filter::{FilteredRows, TypeFilters};

/// The filters of the requested Group.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupFilters {
    /// A patient of the Group meets each; everybody meets none.
    filters: Vec<TypeFilter>,
    /// Whether the Group has no `member`, so that they choose among everybody whom its writer may access.
    pub is_open: bool,
}

impl GroupFilters {
    /// The filters of a Group that was found usable, by its head. `writer` is the scope of its writer, if it has one; `name` stands
    /// for the Group in errors.
    ///
    /// # Errors
    /// If a filter is none, the writer is not known, or the Group is open and its writer is bound to Groups but may name anybody:
    /// whom such a writer may access is not known without names.
    pub(crate) fn of(head: &GroupHead, writer: Option<&WriterScope>, name: &str) -> Result<GroupFilters, RequestError> {
        let problem = |text: &str| RequestProblem::of(Parameter::Group, format!("{name} {text}"));
        let found = head.filters.parse().map_err(|problems| RequestError {
            problems: problems.iter().map(|of| problem(&format!("cannot be evaluated: {}", of.text))).collect(),
        })?;
        let is_open = !found.is_empty() && !head.has_member;
        match writer {
            Some(scope) if !found.is_empty() && !scope.known => Err(RequestError::one(problem(UNKNOWN_WRITER))),
            Some(WriterScope { patients_of: None, .. }) if is_open => Err(RequestError::one(problem(UNBOUND_WRITER))),
            _ => Ok(GroupFilters { filters: found, is_open }),
        }
    }
}

/// What is wrong with a filtered Group whose writer is not recorded, after its name.
pub(crate) const UNKNOWN_WRITER: &str = "has a member-filter, and who wrote this version is not recorded, so that it cannot be \
                                         held to what its writer may access; write the Group again";
/// What is wrong with a filtered Group without members, after its name, whose writer is bound to Groups and may name anybody.
pub(crate) const UNBOUND_WRITER: &str = "has a member-filter and no member, and its writer is bound to Groups but may name any \
                                         patient: that is no right to be told of all; list the members to choose from";

/// Who of a Group meets its filters.
pub(crate) struct FilteredMembers {
    /// The patients, under every base that is ours.
    pub patients: Bitmap,
    /// One of the patients for each member.
    pub members: Bitmap,
    /// What is to be said of resources that cannot be searched.
    pub unreadable: Option<Issue>,
}

/// Those of a Group who meet every filter of it, of its `patients` and `members`; of `only` these, if it is given. `None` without
/// filters.
///
/// # Errors
/// [`ExportError`] if the index is damaged, a row cannot be read, or the work is cancelled.
pub(crate) fn filter_members(
    question: &FilterQuestion<'_>,
    filters: &GroupFilters,
    (patients, members): (&Bitmap, &Bitmap),
    only: Option<&[Id]>,
) -> Result<Option<FilteredMembers>, ExportError> {
    if filters.filters.is_empty() {
        return Ok(None);
    }
    // One row a patient: these cost least, and leave fewer patients to the others.
    let mut in_order: Vec<&TypeFilter> = filters.filters.iter().collect();
    in_order.sort_by_key(|filter| filter.resource_type != ResourceType::PATIENT);
    let mut patients = match only {
        Some(ids) => question.known_among(ids, patients)?,
        None => patients.clone(),
    };
    let mut count = 0;
    for filter in in_order {
        let (met, unreadable) = question.patients_meeting(filter, &patients)?;
        patients = met;
        count += unreadable;
    }
    let members = match filters.is_open {
        true => question.one_of_each(&patients)?,
        false => intersection(members, &patients),
    };
    let text = match question.request.audience {
        // How many there are is known of the whole store.
        Audience::BoundClient => {
            "Resources are nested too deep to be searched: to a filter of the Group they count as not meeting it"
                .to_string()
        }
        _ => format!(
            "{} nested too deep to be searched: to a filter of the Group {} as not meeting it",
            word_form(count, "1 resource is", &format!("{count} resources are")),
            word_form(count, "it counts", "they count")
        ),
    };
    let unreadable = (count > 0).then(|| Issue::new(Severity::Error, IssueCode::Informational, text));
    Ok(Some(FilteredMembers { patients, members, unreadable }))
}

/// What filters are asked of.
pub(crate) struct FilterQuestion<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// The request.
    pub request: &'a ExportRequest,
    /// Whether each reference base of the index is ours.
    pub ours: &'a [bool],
    /// Cancels the work.
    pub progress: &'a Progress,
}

impl FilterQuestion<'_> {
    /// Numbers of the bases that are ours.
    fn our_bases(&self) -> impl Iterator<Item = BaseId> + '_ {
        (0..self.ours.len()).filter(|base| self.ours[*base]).map(BaseId::of)
    }

    /// The patients of some ids who are among `patients`.
    fn known_among(&self, ids: &[Id], patients: &Bitmap) -> Result<Bitmap, CorruptIndex> {
        let mut known = Bitmap::new(patients.len());
        for id in ids {
            for base in self.our_bases() {
                let found = self.snapshot.index().patient(base, id)?.map(PatientId::index);
                found.filter(|patient| patients.contains(*patient)).map(|patient| known.insert(patient));
            }
        }
        Ok(known)
    }

    /// The same patients under every base that is ours: a person has a number under each.
    fn under_every_base(&self, patients: Bitmap) -> Result<Bitmap, CorruptIndex> {
        if self.our_bases().nth(1).is_none() {
            return Ok(patients);
        }
        let index = self.snapshot.index();
        let mut all = Bitmap::new(patients.len());
        for patient in patients.iter() {
            let id = index.patient_id(PatientId::of(patient))?;
            for base in self.our_bases() {
                index.patient(base, &id)?.map(|patient| all.insert(patient.index()));
            }
        }
        Ok(all)
    }

    /// One number of each of some patients, under the first base that has them.
    fn one_of_each(&self, patients: &Bitmap) -> Result<Bitmap, CorruptIndex> {
        let index = self.snapshot.index();
        let mut found = Bitmap::new(patients.len());
        for patient in patients.iter() {
            let id = index.patient_id(PatientId::of(patient))?;
            let mut first = None;
            for base in self.our_bases() {
                first = first.or(index.patient(base, &id)?);
            }
            found.insert(first.map_or(patient, PatientId::index));
        }
        Ok(found)
    }

    /// Those of some patients who meet a filter, and the number of rows that cannot be read for it.
    fn patients_meeting(&self, filter: &TypeFilter, patients: &Bitmap) -> Result<(Bitmap, u64), ExportError> {
        let searched = filter.resource_type;
        let bases = BaseUrls::new(&self.request.fhir_bases);
        let filters = TypeFilters::of(self.snapshot, searched, from_ref(filter), bases);
        let filters = filters.ok_or(CorruptIndex("a filter is of another type than its own"))?;
        let index = self.snapshot.index();
        let has_type = |segment: &SegmentId| index.segment(*segment).head().has_type(searched.index());
        let candidates: Vec<(SegmentId, Option<Vec<u32>>)> = match patients.count() * POSTINGS_SHARE <= index.patients()
        {
            true => self.posted_rows(patients)?.into_iter().map(|(segment, rows)| (segment, Some(rows))).collect(),
            false => self.snapshot.segments().map(|segment| (segment, None)).collect(),
        };
        let found: Vec<(Vec<usize>, u64)> = candidates
            .into_par_iter()
            .filter(|(segment, _)| has_type(segment))
            .map(|(segment, rows)| self.meeting_in(segment, rows, searched, &filters, patients))
            .collect::<Result<_, ExportError>>()?;
        let (mut met, mut unreadable) = (Bitmap::new(patients.len()), 0);
        for (found, count) in found {
            unreadable += count;
            found.into_iter().for_each(|patient| {
                met.insert(patient);
            });
        }
        Ok((intersection(&self.under_every_base(met)?, patients), unreadable))
    }

    /// The rows that are in the records of some patients, by segment and ascending.
    fn posted_rows(&self, patients: &Bitmap) -> Result<BTreeMap<SegmentId, Vec<u32>>, CorruptIndex> {
        let index = self.snapshot.index();
        let mut rows: BTreeMap<SegmentId, Vec<u32>> = BTreeMap::new();
        for patient in patients.iter() {
            for owner in index.owners_of_patient(PatientId::of(patient))? {
                let (segment, owner) = index.locate_owner(owner);
                if self.snapshot.sees_segment(segment) {
                    let posting = index.segment(segment).posting(owner.index())?;
                    rows.entry(segment).or_default().extend_from_slice(posting);
                }
            }
        }
        rows.values_mut().for_each(|rows| {
            rows.sort_unstable();
            rows.dedup();
        });
        Ok(rows)
    }

    /// The patients of `patients` who meet a filter by a row of a segment, and the number of rows that cannot be read for it.
    /// `rows` are the only ones that can be theirs; any, if it is `None`.
    fn meeting_in(
        &self,
        segment_id: SegmentId,
        rows: Option<Vec<u32>>,
        searched: ResourceType,
        filters: &TypeFilters<'_>,
        patients: &Bitmap,
    ) -> Result<(Vec<usize>, u64), ExportError> {
        let index = self.snapshot.index();
        let segment = index.segment(segment_id);
        let owner_patient = index.patients_of_segment(segment_id)?;
        // 1. Rows of the type.
        let mut of_type: Vec<usize> = Vec::new();
        match rows {
            Some(rows) => {
                for row in rows.into_iter().map(|row| row as usize) {
                    if segment.type_of(row)? == searched {
                        of_type.push(row);
                    }
                }
            }
            None => {
                let columns = segment.verify_columns(&[Column::Type])?;
                of_type.extend((0..columns.rows()).filter(|row| columns.type_of(*row) == searched));
            }
        }
        // 2. Those of the patients that are current at T. A Patient row owns itself first; a patient that it links to does not
        // meet a filter by it.
        let owners_of = |row: usize| -> Result<Vec<usize>, CorruptIndex> {
            let owners = segment.row_owners(row)?;
            let own = if searched == ResourceType::PATIENT { &owners[..owners.len().min(1)] } else { owners };
            let found = own.iter().map(|owner| owner_patient.patient_of(OwnerOrd(*owner)).index());
            Ok(found.filter(|patient| patients.contains(*patient)).collect())
        };
        let mut candidates = Vec::new();
        for row in of_type {
            let address = RowAddress::of(segment_id, row);
            let as_of = self.snapshot.as_of().as_ref();
            if !owners_of(row)?.is_empty()
                && self.snapshot.state(address, as_of, self.ours, &|_| true)? == RowState::Current
            {
                candidates.push(to_u32(row));
            }
        }
        // 3. What they say.
        let (mut met, mut work) = (Vec::new(), filters.no_work());
        work.rows = candidates.len() as u64;
        let rows = FilteredRows::Listed(&candidates);
        let verdicts = filters.decide(self.snapshot, segment_id, rows, &mut work, self.progress)?;
        for (row, _) in candidates.iter().zip(verdicts).filter(|(_, verdict)| *verdict == MET) {
            met.extend(owners_of(*row as usize)?);
        }
        Ok((met, work.unreadable))
    }
}

/// What is in both of two sets.
fn intersection(a: &Bitmap, b: &Bitmap) -> Bitmap {
    let mut both = Bitmap::new(a.len());
    a.iter().filter(|i| b.contains(*i)).for_each(|i| {
        both.insert(i);
    });
    both
}
