//! What a caller chooses of how the rows of a store are read.

use crate::codec::compression::UnprovenPolicy;
use crate::extract::Validate;
use crate::extract::rules::{LineRules, LoneSurrogates};
use crate::fhir::id::IdRule;
use crate::fhir::reference::PatientReferences;

/// How rows are read, which is a fact of an index: what becomes of rows of compressed files that are not proven, and the
/// rules of lines.
pub(crate) type RowRules = (LineRules, UnprovenPolicy);

/// Choices of how rows are read; `None` for what the index was made with, or for a new one the default.
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
        };
        (lines, self.unproven.unwrap_or(unproven))
    }

    /// The choices that differ from what stands.
    pub(crate) fn differences(&self, (lines, unproven): RowRules) -> Vec<ChoiceDifference> {
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
        ];
        let different = named.into_iter().filter_map(|(option, given, stands)| Some((option, given?, stands)));
        different.filter(|(_, given, stands)| given != stands).collect()
    }
}
