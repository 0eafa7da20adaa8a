//! Resources that are gone from the store without a deletion: which an export lists as deletions and which it counts
//! (reading 26).
//!
//! Under `_since` those count that a snapshot after it was the first to miss; without it those that this very snapshot is
//! the first to miss. Their owners are those of their last version, as the index remembers them.

use serde::{Deserialize, Serialize};

use crate::error::CorruptIndex;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::id::Id;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::group_rows_of;
use crate::ids::BaseId;
use crate::index::snapshot::{Index, RowState, Snapshot};
use crate::index::snapshot_time::ticks_rounded_up;
use crate::index::vanished::{VanishCause, VanishedResource};
use crate::policies::{Audience, Vanished};
use crate::request::{ExportRequest, Population};
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;

/// Numbers of vanished resources of an export, as its manifest states them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VanishedCounts {
    /// Gone from replaced files and listed as deleted.
    pub told: u64,
    /// Gone from replaced files and not listed.
    pub replaced_files: u64,
    /// Gone from files that were changed in place, hold faults or end within a line.
    pub uncertain_files: u64,
    /// Gone with their files.
    pub missing_files: u64,
    /// Still there, but without their newest version.
    pub older_versions: u64,
}

impl VanishedCounts {
    /// Whether there is nothing to state.
    pub(crate) fn is_zero(&self) -> bool {
        *self == VanishedCounts::default()
    }

    /// Counts a resource.
    pub(crate) fn count(&mut self, cause: VanishCause, told: bool) {
        *match cause {
            VanishCause::ReplacedFile | VanishCause::Deleted if told => &mut self.told,
            VanishCause::ReplacedFile => &mut self.replaced_files,
            VanishCause::UncertainFile => &mut self.uncertain_files,
            VanishCause::MissingFile => &mut self.missing_files,
            VanishCause::OlderVersion => &mut self.older_versions,
            // What a DELETE entry ends is only ever told.
            VanishCause::Deleted => return,
        } += 1;
    }
}

/// A vanished resource that an export counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CountedVanish {
    /// The resource.
    pub resource: VanishedResource,
    /// Whether it is listed as deleted.
    pub told: bool,
}

/// The vanished resources of an export, in the order of the index's list.
#[derive(Default)]
pub struct VanishedSelection {
    /// Those of the cohort, the types and the time of the request.
    pub(crate) resources: Vec<CountedVanish>,
}

impl VanishedSelection {
    /// Selects the vanished resources of a request.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page or the list of vanished resources is damaged.
    pub fn new(
        snapshot: &Snapshot,
        cohort: &Cohort,
        request: &ExportRequest,
    ) -> Result<VanishedSelection, CorruptIndex> {
        let mut selection = VanishedSelection::default();
        let list = snapshot.vanished()?;
        if list.is_empty() {
            return Ok(selection);
        }
        let classifier = RowClassifier::new(snapshot, cohort, request);
        let owners = OwnerCheck::new(snapshot, cohort, request);
        let birth = snapshot.index().generation().birth;
        let now = ticks_rounded_up(snapshot.as_of());
        for gone in list {
            let Some(first) = gone.first_missed.filter(|first| *first <= now) else { continue };
            let is_news = match &request.since {
                Some(since) => first > since.ticks,
                None => first == now,
            };
            // What was gone before the first snapshot no reader was ever given.
            let is_known = birth.is_some_and(|birth| first > birth);
            let in_window = is_news && is_known && classifier.before_until(InstantRef { ticks: first, rest: &[] });
            if !in_window || !classifier.lists_deletions_of(gone.resource_type) {
                continue;
            }
            let is_owned = owners.in_cohort(gone)?;
            // Whose a Provenance was that named nobody of the cohort itself is not known any more. It is counted, but
            // not to one who is told of the cohort alone.
            let may_be = gone.resource_type == ResourceType::PROVENANCE && request.audience != Audience::BoundClient;
            if !is_owned && !may_be {
                continue;
            }
            let told = is_owned
                && request.since.is_some()
                && match gone.cause {
                    // A DELETE entry says so: no policy is asked.
                    VanishCause::Deleted => true,
                    VanishCause::ReplacedFile => request.vanished == Vanished::Delete,
                    _ => false,
                };
            if gone.cause == VanishCause::Deleted && !told {
                continue;
            }
            // A resource that is current again is exported as late, and never listed as deleted (DELETED-03).
            if gone.cause != VanishCause::OlderVersion && is_current(snapshot, cohort, gone)? {
                continue;
            }
            selection.resources.push(CountedVanish { resource: gone.clone(), told });
        }
        Ok(selection)
    }

    /// Numbers by cause.
    pub fn counts(&self) -> VanishedCounts {
        let mut counts = VanishedCounts::default();
        self.resources.iter().for_each(|gone| counts.count(gone.resource.cause, gone.told));
        counts
    }

    /// Those that are listed as deleted.
    pub(crate) fn told(&self) -> impl Iterator<Item = (ResourceType, Id)> + '_ {
        let told = self.resources.iter().filter(|gone| gone.told);
        told.map(|gone| (gone.resource.resource_type, gone.resource.id))
    }
}

/// Whether a vanished resource has a current row at T.
fn is_current(snapshot: &Snapshot, cohort: &Cohort, gone: &VanishedResource) -> Result<bool, CorruptIndex> {
    for address in group_rows_of(snapshot, gone.resource_type, &gone.id)? {
        let state = snapshot.state(address, snapshot.as_of().as_ref(), &cohort.ours, &|_| true)?;
        if state == RowState::Current {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Vanished resources that were somebody's, nobody of whom is in the cohort now.
///
/// # Errors
/// [`CorruptIndex`] if a page or the list of vanished resources is damaged.
pub(crate) fn vanished_of_others<'a>(
    snapshot: &'a Snapshot,
    cohort: &Cohort,
    request: &ExportRequest,
) -> Result<Vec<&'a VanishedResource>, CorruptIndex> {
    let owners = OwnerCheck::new(snapshot, cohort, request);
    let mut others = Vec::new();
    for gone in snapshot.vanished()? {
        let is_owned = !gone.owners.is_empty() || gone.resource_type == ResourceType::PATIENT;
        if is_owned && !owners.in_cohort(gone)? {
            others.push(gone);
        }
    }
    Ok(others)
}

/// Decides whose vanished resources were.
struct OwnerCheck<'a> {
    index: &'a Index,
    cohort: &'a Cohort,
    request: &'a ExportRequest,
    ours: BaseUrls<'a>,
}

impl<'a> OwnerCheck<'a> {
    /// A check for the cohort of a request.
    fn new(snapshot: &'a Snapshot, cohort: &'a Cohort, request: &'a ExportRequest) -> OwnerCheck<'a> {
        OwnerCheck { index: snapshot.index(), cohort, request, ours: BaseUrls::new(&request.fhir_bases) }
    }

    /// Whether an owner of the last version of a resource is in the cohort, and no other one an outsider where there are
    /// some; true at system level.
    fn in_cohort(&self, gone: &VanishedResource) -> Result<bool, CorruptIndex> {
        if self.cohort.patients.is_none() {
            return Ok(true);
        }
        if self.cohort.outsiders.is_some() {
            for (base, id) in &gone.owners {
                if self.ours.contains(base) && !self.is_member(base, id)? {
                    return Ok(false);
                }
            }
        }
        if gone.resource_type == ResourceType::PATIENT && self.is_member("", &gone.id)? {
            return Ok(true);
        }
        for (base, id) in &gone.owners {
            if self.is_member(base, id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a patient is in the cohort, even if no row of the store names it any more.
    fn is_member(&self, base: &str, id: &Id) -> Result<bool, CorruptIndex> {
        if !self.ours.contains(base) {
            return Ok(false);
        }
        let is_everybody = self.request.population == Population::AllPatients && self.cohort.only.is_none();
        if is_everybody || self.cohort.vanished_members.contains(id) {
            return Ok(true);
        }
        let Some(patients) = &self.cohort.patients else { return Ok(true) };
        // Under any base of ours it is the same patient.
        for (base, own) in (0u32..).map(BaseId).zip(self.index.bases()) {
            if self.ours.contains(own)
                && let Some(patient) = self.index.patient(base, id)?
                && patients.contains(patient.index())
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
