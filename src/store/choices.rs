//! What a caller chooses of how a store is read: the rules of its rows, and whether its links are followed.

use crate::codec::compression::UnprovenPolicy;
use crate::extract::Validate;
use crate::extract::rules::{LineRules, LoneSurrogates};
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::id::IdRule;
use crate::fhir::reference::PatientReferences;
use crate::sys::regular_file::Links;

/// How rows are read, which is a fact of an index: what becomes of rows of compressed files that are not proven, and the
/// rules of lines.
pub(crate) type RowRules = (LineRules, UnprovenPolicy);

/// Choices of how a store is read; `None` for what the index was made with, or for a new one the default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowChoices {
    /// How strictly a scan checks resources.
    pub(crate) validate: Option<Validate>,
    /// What becomes of rows of compressed files that are not proven.
    pub(crate) unproven: Option<UnprovenPolicy>,
    /// Which ids are legal.
    pub(crate) ids: Option<IdRule>,
    /// What becomes of halves of surrogate pairs.
    pub(crate) lone_surrogates: Option<LoneSurrogates>,
    /// Which Patient references are followed.
    pub(crate) patient_references: Option<PatientReferences>,
    /// Which paths make a patient the owner of a row.
    pub(crate) compartment_paths: Option<CompartmentPaths>,
    /// Whether symbolic links in the store are followed.
    pub(crate) follow_symlinks: Option<bool>,
}

/// What a walk does with links, by the choice.
pub(crate) fn links_of(follow_symlinks: bool) -> Links {
    if follow_symlinks { Links::Follow } else { Links::Refuse }
}

/// A choice that differs from what an index was made with: option, value given, value that stands.
pub(crate) type ChoiceDifference = (&'static str, &'static str, &'static str);

impl RowChoices {
    /// The rules of a new index.
    pub(crate) fn of_new_index(&self) -> RowRules {
        self.over((LineRules::default(), UnprovenPolicy::default()))
    }

    /// The rules with what was chosen in the place of what stands.
    fn over(&self, (lines, unproven): RowRules) -> RowRules {
        let lines = LineRules {
            validate: self.validate.unwrap_or(lines.validate),
            ids: self.ids.unwrap_or(lines.ids),
            lone_surrogates: self.lone_surrogates.unwrap_or(lines.lone_surrogates),
            patient_references: self.patient_references.unwrap_or(lines.patient_references),
            compartment_paths: self.compartment_paths.unwrap_or(lines.compartment_paths),
        };
        (lines, self.unproven.unwrap_or(unproven))
    }

    /// Whether a walk for a new index follows links.
    pub(crate) fn links_of_new_index(&self) -> Links {
        links_of(self.follow_symlinks.unwrap_or(false))
    }

    /// The choices that differ from what stands.
    pub(crate) fn differences(&self, (lines, unproven): RowRules, follow_symlinks: bool) -> Vec<ChoiceDifference> {
        let yes_or_no = |follow: bool| if follow { "yes" } else { "no" };
        let named = [
            ("--validate", self.validate.map(Validate::name), lines.validate.name()),
            ("--unproven", self.unproven.map(UnprovenPolicy::name), unproven.name()),
            ("--ids", self.ids.map(IdRule::name), lines.ids.name()),
            ("--lone-surrogates", self.lone_surrogates.map(LoneSurrogates::name), lines.lone_surrogates.name()),
            (
                "--patient-references",
                self.patient_references.map(PatientReferences::name),
                lines.patient_references.name(),
            ),
            ("--compartment-paths", self.compartment_paths.map(CompartmentPaths::name), lines.compartment_paths.name()),
            ("--follow-symlinks", self.follow_symlinks.map(yes_or_no), yes_or_no(follow_symlinks)),
        ];
        let different = named.into_iter().filter_map(|(option, given, stands)| Some((option, given?, stands)));
        different.filter(|(_, given, stands)| given != stands).collect()
    }
}
