//! The rules by which a line is a row, a list of deletions or a fault, and by which its references are read. They are
//! facts of an index: all of its rows were read by the same.

use crate::extract::Validate;
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::id::IdRule;
use crate::fhir::reference::PatientReferences;
use crate::named_enum::by_name;

/// What becomes of a line with an escape that is half of a surrogate pair (`\ud83d` alone). RFC 8259 (section 8.2) calls
/// the behaviour of a reader unpredictable, and many refuse the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoneSurrogates {
    /// The line is a fault. Seen only where the whole grammar is checked ([`Validate::Full`]).
    #[default]
    Fault,
    /// It is a row as any other.
    Pass,
}

impl LoneSurrogates {
    /// Every value, in the order of the enum.
    pub const ALL: [LoneSurrogates; 2] = [LoneSurrogates::Fault, LoneSurrogates::Pass];

    /// Name in records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            LoneSurrogates::Fault => "fault",
            LoneSurrogates::Pass => "pass",
        }
    }
}

by_name!(LoneSurrogates);

/// How lines are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineRules {
    /// How much of a line is validated.
    pub validate: Validate,
    /// Which ids are legal.
    pub ids: IdRule,
    /// What becomes of halves of surrogate pairs.
    pub lone_surrogates: LoneSurrogates,
    /// Which Patient references are followed.
    pub patient_references: PatientReferences,
    /// Which paths make a patient the owner of a row.
    pub compartment_paths: CompartmentPaths,
}

impl LineRules {
    /// What versions did that had no choice but of `validate`.
    pub(crate) const fn without_choices(validate: Validate) -> LineRules {
        LineRules {
            validate,
            ids: IdRule::R4,
            lone_surrogates: LoneSurrogates::Pass,
            patient_references: PatientReferences::Strict,
            compartment_paths: CompartmentPaths::R4,
        }
    }
}

impl From<Validate> for LineRules {
    /// The default rules with this validation.
    fn from(validate: Validate) -> LineRules {
        LineRules { validate, ..LineRules::default() }
    }
}
