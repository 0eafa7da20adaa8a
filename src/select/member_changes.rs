//! Who joined and who left a population since the export that an increment builds on (GROUP-11, GROUP-13), and the records of
//! those who joined.
//!
//! Members are compared by the keys of their ids, under whatever base of ours the store names them. A member without any record
//! is not in the store's dictionary, and counts as joined when the first one comes.

use crate::baseline::Baseline;
use crate::error::CorruptIndex;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::ids::{PatientId, RowAddress, SegmentId};
use crate::index::snapshot::Snapshot;
use crate::issue::IssueLog;
use crate::key_set::resource_key::{ResourceKey, patient_key};
use crate::policies::{Audience, LateArrivals, NewMembers};
use crate::request::ExportRequest;
use crate::select::bitmap::Bitmap;
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::ledger::{RowClass, SegmentSelection};
use crate::select::selection::Selection;
use std::collections::{BTreeMap, HashSet};

/// By what it is known who joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ChangeSource {
    /// By the list of the patients of the baseline.
    #[default]
    Baseline,
    /// By `member.period.start`, which tells nobody who left.
    Starts {
        /// Of how many members it is not known when they joined.
        unknown: u64,
    },
}

/// How the population of an increment differs from that of its baseline.
#[derive(Debug, Default)]
pub(crate) struct MemberChanges {
    /// Patients of the dictionary who joined, under each base.
    pub joined: Option<Bitmap>,
    /// How many they are, each once.
    pub joined_count: u64,
    /// Ids of those who left, ascending; for a client those of whom it may have been sent something.
    pub left: Vec<Box<str>>,
    /// How many left who are not named for that.
    pub left_untold: u64,
    /// How many left of whom the store has no record any more, so that they cannot be named.
    pub left_unnamed: u64,
    /// By what it is known.
    pub source: ChangeSource,
}

/// The keys of the patients of a cohort, ascending, each once; none at system level.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn cohort_keys(snapshot: &Snapshot, cohort: &Cohort) -> Result<Vec<ResourceKey>, CorruptIndex> {
    let Some(patients) = &cohort.patients else { return Ok(Vec::new()) };
    let mut keys = Vec::with_capacity(patients.count() + cohort.vanished_members.len());
    let index = snapshot.index();
    for patient in patients.iter() {
        // A patient whom only later segments name is not of this snapshot, which may be reopened.
        let is_seen = snapshot.sees_whole_index()
            || index
                .owners_of_patient(PatientId::of(patient))?
                .any(|owner| snapshot.sees_segment(index.locate_owner(owner).0));
        if !is_seen {
            continue;
        }
        keys.push(patient_key(snapshot.index().patient_id(PatientId::of(patient))?.as_bytes()));
    }
    keys.extend(cohort.vanished_members.iter().map(|id| patient_key(id.as_bytes())));
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

impl MemberChanges {
    /// How many left, named or not.
    pub(crate) fn left_count(&self) -> u64 {
        self.left.len() as u64 + self.left_untold + self.left_unnamed
    }

    /// Who joined and left since `_since` as far as the request wants to know: by its baseline, or by the entries of its Group.
    /// `None` if neither tells.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn of(
        request: &ExportRequest,
        snapshot: &Snapshot,
        cohort: &Cohort,
    ) -> Result<Option<MemberChanges>, CorruptIndex> {
        if request.new_members == NewMembers::Ignore {
            return Ok(None);
        }
        if let Some(baseline) = request.baseline.as_ref().filter(|baseline| baseline.cohort.is_some()) {
            return MemberChanges::since(baseline, snapshot, cohort, request);
        }
        let (Some(starts), Some(patients)) = (&cohort.starts, &cohort.patients) else { return Ok(None) };
        let (joined_count, unknown) = starts.counts(&cohort.members);
        let joined = (joined_count > 0).then(|| starts.joined(patients));
        let source = ChangeSource::Starts { unknown };
        Ok(Some(MemberChanges { joined, joined_count, source, ..MemberChanges::default() }))
    }

    /// Compares a cohort with that of a baseline; `None` if the baseline's is not known, or the export has none.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn since(
        baseline: &Baseline,
        snapshot: &Snapshot,
        cohort: &Cohort,
        request: &ExportRequest,
    ) -> Result<Option<MemberChanges>, CorruptIndex> {
        let (Some(before), Some(patients)) = (&baseline.cohort, &cohort.patients) else { return Ok(None) };
        let index = snapshot.index();
        let now = cohort_keys(snapshot, cohort)?;
        let mut changes = MemberChanges {
            joined_count: now.iter().filter(|key| !before.contains(key)).count() as u64,
            ..MemberChanges::default()
        };
        if changes.joined_count > 0 {
            let mut joined = Bitmap::new(patients.len());
            for patient in patients.iter() {
                if !before.contains(&patient_key(index.patient_id(PatientId::of(patient))?.as_bytes())) {
                    joined.insert(patient);
                }
            }
            changes.joined = Some(joined);
        }
        let left: HashSet<ResourceKey> =
            before.keys().iter().filter(|key| now.binary_search(key).is_err()).copied().collect();
        if !left.is_empty() {
            let types = &request.types;
            let is_sent = |of: ResourceType| types.is_empty() || types.contains(&of);
            let named = names_of(snapshot, &left, &baseline.transaction_time, &is_sent)?;
            changes.left_unnamed = (left.len() - named.len()) as u64;
            let is_told = |has_sent: bool| request.audience == Audience::Operator || has_sent;
            let told = named.into_iter().map(|(id, has_sent)| is_told(has_sent).then_some(id));
            let (told, untold): (Vec<_>, Vec<_>) = told.partition(Option::is_some);
            changes.left = told.into_iter().flatten().collect();
            changes.left_untold = untold.len() as u64;
        }
        Ok(Some(changes))
    }
}

/// The ids of patients of the store with these keys, ascending, and whether the store had a version of a wanted type in the record of
/// each at a moment: of others an export of then sent nothing, so that its reader need not know of them.
fn names_of(
    snapshot: &Snapshot,
    keys: &HashSet<ResourceKey>,
    moment: &Instant,
    wanted: &dyn Fn(ResourceType) -> bool,
) -> Result<BTreeMap<Box<str>, bool>, CorruptIndex> {
    let mut names: BTreeMap<Box<str>, bool> = BTreeMap::new();
    let index = snapshot.index();
    for patient in 0..index.patients() {
        let id = index.patient_id(PatientId::of(patient))?;
        if keys.contains(&patient_key(id.as_bytes())) {
            *names.entry(id.as_str().into()).or_default() |=
                has_rows(snapshot, PatientId::of(patient), moment, wanted)?;
        }
    }
    for gone in snapshot.vanished()? {
        for (_, id) in gone.owners.iter().filter(|(_, id)| keys.contains(&patient_key(id.as_bytes()))) {
            *names.entry(id.as_str().into()).or_default() |= wanted(gone.resource_type);
        }
    }
    Ok(names)
}

/// Whether any version that was in the record of a patient at a moment is of a wanted type.
fn has_rows(
    snapshot: &Snapshot,
    patient: PatientId,
    moment: &Instant,
    wanted: &dyn Fn(ResourceType) -> bool,
) -> Result<bool, CorruptIndex> {
    let index = snapshot.index();
    for owner in index.owners_of_patient(patient)? {
        let (segment_id, owner) = index.locate_owner(owner);
        if !snapshot.sees_segment(segment_id) {
            continue;
        }
        let segment = index.segment(segment_id);
        for row in segment.posting(owner.index())?.iter().map(|row| *row as usize) {
            let is_later = segment.updated(row)?.is_some_and(|updated| updated > moment.as_ref())
                || snapshot.is_late_row(RowAddress::of(segment_id, row), moment);
            if !is_later && wanted(segment.type_of(row)?) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Adds to a selection under `_since` all current records of the members who joined, whatever their age.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn add_records_of_joined(
    snapshot: &Snapshot,
    cohort: &Cohort,
    request: &ExportRequest,
    joined: &Bitmap,
    selection: &mut Selection,
) -> Result<(), CorruptIndex> {
    let of_joined = Cohort {
        patients: Some(joined.clone()),
        members: Bitmap::new(joined.len()),
        vanished_members: HashSet::new(),
        starts: None,
        ours: cohort.ours.clone(),
        group_row: None,
        group_id: None,
        listed: 0,
        content_hash: None,
        only: None,
        outsiders: cohort.outsiders.clone(),
        writer: None,
        messages: IssueLog::default(),
    };
    let whole = Selection::new(snapshot, &of_joined, &request.clone().without_baseline())?;
    let classifier = RowClassifier::new(snapshot, cohort, request);
    let mut passed = SegmentSelection::default();
    for (position, (rows, of_joined)) in selection.rows.iter_mut().zip(&whole.rows).enumerate() {
        let missing: Vec<usize> = of_joined.iter().filter(|row| !rows.any(*row..*row + 1)).collect();
        if request.late == LateArrivals::Report {
            let segment = SegmentId::of(position);
            missing
                .iter()
                .try_for_each(|row| classifier.classify(RowAddress::of(segment, *row), &mut passed).map(drop))?;
        }
        rows.add_all(&missing);
        // They are current, of the cohort and of the types: only their age kept them out.
        missing.iter().for_each(|_| selection.ledger.export_one_of(RowClass::SinceOrUntil));
    }
    // Those that came late are exported all the same, and were counted as left out.
    selection.stats.late = selection.stats.late.saturating_sub(passed.late);
    Ok(())
}
