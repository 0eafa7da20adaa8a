//! The R4 Patient compartment as element paths (COMP-01), and the paths that this crate adds to it.
//!
//! A resource is in the compartment of Patient/X when one of its paths leads to a reference to Patient/X. Paths carry
//! no mark for arrays: objects and arrays of them are followed alike, whatever the type's definition says (reading 8).
//! `Device.patient` is added (COMP-07). A test compares the table with the official definitions.

use crate::fhir::resource_type::ResourceType;
use crate::named_enum::by_name;

/// Every path of any type: property names from the root to a Reference, joined by dots. The index of a path is its bit
/// in [`paths_of`].
pub(crate) const PATHS: [&str; 32] = [
    "action.participant",
    "activity.detail.performer",
    "actor",
    "agent.who",
    "asserter",
    "attester.party",
    "author",
    "beneficiary",
    "candidate",
    "deliverTo",
    "entity.what",
    "individual",
    "link.other",
    "link.target",
    "member.entity",
    "participant.actor",
    "participant.member",
    "patient",
    "payee.party",
    "payor",
    "performer",
    "performer.actor",
    "policyHolder",
    "receiver",
    "recipient",
    "recorder",
    "requester",
    "sender",
    "source",
    "subject",
    "subscriber",
    "target",
];

/// The types that can be in the compartment, and their paths.
#[rustfmt::skip]
const TABLE: [(&str, &[&str]); 67] = [
    ("Account", &["subject"]),
    ("AdverseEvent", &["subject"]),
    ("AllergyIntolerance", &["patient", "recorder", "asserter"]),
    ("Appointment", &["participant.actor"]),
    ("AppointmentResponse", &["actor"]),
    ("AuditEvent", &["agent.who", "entity.what"]),
    ("Basic", &["subject", "author"]),
    ("BodyStructure", &["patient"]),
    ("CarePlan", &["subject", "activity.detail.performer"]),
    ("CareTeam", &["subject", "participant.member"]),
    ("ChargeItem", &["subject"]),
    ("Claim", &["patient", "payee.party"]),
    ("ClaimResponse", &["patient"]),
    ("ClinicalImpression", &["subject"]),
    ("Communication", &["subject", "sender", "recipient"]),
    ("CommunicationRequest", &["subject", "sender", "recipient", "requester"]),
    ("Composition", &["subject", "author", "attester.party"]),
    ("Condition", &["subject", "asserter"]),
    ("Consent", &["patient"]),
    ("Coverage", &["policyHolder", "subscriber", "beneficiary", "payor"]),
    ("CoverageEligibilityRequest", &["patient"]),
    ("CoverageEligibilityResponse", &["patient"]),
    ("DetectedIssue", &["patient"]),
    ("Device", &["patient"]),
    ("DeviceRequest", &["subject", "performer"]),
    ("DeviceUseStatement", &["subject"]),
    ("DiagnosticReport", &["subject"]),
    ("DocumentManifest", &["subject", "author", "recipient"]),
    ("DocumentReference", &["subject", "author"]),
    ("Encounter", &["subject"]),
    ("EnrollmentRequest", &["candidate"]),
    ("EpisodeOfCare", &["patient"]),
    ("ExplanationOfBenefit", &["patient", "payee.party"]),
    ("FamilyMemberHistory", &["patient"]),
    ("Flag", &["subject"]),
    ("Goal", &["subject"]),
    ("Group", &["member.entity"]),
    ("ImagingStudy", &["subject"]),
    ("Immunization", &["patient"]),
    ("ImmunizationEvaluation", &["patient"]),
    ("ImmunizationRecommendation", &["patient"]),
    ("Invoice", &["subject", "recipient"]),
    ("List", &["subject", "source"]),
    ("MeasureReport", &["subject"]),
    ("Media", &["subject"]),
    ("MedicationAdministration", &["subject", "performer.actor"]),
    ("MedicationDispense", &["subject", "receiver"]),
    ("MedicationRequest", &["subject"]),
    ("MedicationStatement", &["subject"]),
    ("MolecularSequence", &["patient"]),
    ("NutritionOrder", &["patient"]),
    ("Observation", &["subject", "performer"]),
    ("Patient", &["link.other"]),
    ("Person", &["link.target"]),
    ("Procedure", &["subject", "performer.actor"]),
    ("Provenance", &["target"]),
    ("QuestionnaireResponse", &["subject", "author"]),
    ("RelatedPerson", &["patient"]),
    ("RequestGroup", &["subject", "action.participant"]),
    ("ResearchSubject", &["individual"]),
    ("RiskAssessment", &["subject"]),
    ("Schedule", &["actor"]),
    ("ServiceRequest", &["subject", "performer"]),
    ("Specimen", &["subject"]),
    ("SupplyDelivery", &["patient"]),
    ("SupplyRequest", &["deliverTo"]),
    ("VisionPrescription", &["patient"]),
];

/// The types some of whose paths name somebody whom the record is not about (who performed, wrote, sent, pays or takes part),
/// and the paths that name whom it is about (COMP-15). Of every other type all paths do. A Patient is about itself, whatever it
/// links to.
#[rustfmt::skip]
const PRIMARY: [(&str, &[&str]); 25] = [
    ("AllergyIntolerance", &["patient"]),
    ("AuditEvent", &["entity.what"]),
    ("Basic", &["subject"]),
    ("CarePlan", &["subject"]),
    ("CareTeam", &["subject"]),
    ("Claim", &["patient"]),
    ("Communication", &["subject"]),
    ("CommunicationRequest", &["subject"]),
    ("Composition", &["subject"]),
    ("Condition", &["subject"]),
    ("Coverage", &["beneficiary"]),
    ("DeviceRequest", &["subject"]),
    ("DocumentManifest", &["subject"]),
    ("DocumentReference", &["subject"]),
    ("ExplanationOfBenefit", &["patient"]),
    ("Invoice", &["subject"]),
    ("List", &["subject"]),
    ("MedicationAdministration", &["subject"]),
    ("MedicationDispense", &["subject"]),
    ("Observation", &["subject"]),
    ("Patient", &[]),
    ("Procedure", &["subject"]),
    ("QuestionnaireResponse", &["subject"]),
    ("RequestGroup", &["subject"]),
    ("ServiceRequest", &["subject"]),
];

/// Which compartment paths make a patient the owner of a record (COMP-15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompartmentPaths {
    /// All that R4 lists.
    #[default]
    R4,
    /// Those that name whom the record is about.
    Primary,
}

impl CompartmentPaths {
    /// Every value, in the order of the enum.
    pub const ALL: [CompartmentPaths; 2] = [CompartmentPaths::R4, CompartmentPaths::Primary];

    /// Name in records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            CompartmentPaths::R4 => "r4",
            CompartmentPaths::Primary => "primary",
        }
    }

    /// The paths of a type that make a patient its owner, one bit each, as in [`paths_of`].
    pub(crate) fn paths_of(self, resource_type: ResourceType) -> u64 {
        static MASKS: std::sync::LazyLock<[u64; ResourceType::COUNT]> = std::sync::LazyLock::new(|| {
            let mut masks = masks_of(&TABLE);
            let primary = masks_of(&PRIMARY);
            for (name, _) in PRIMARY {
                let i = type_named(name).index();
                masks[i] = primary[i];
            }
            masks
        });
        match self {
            CompartmentPaths::R4 => paths_of(resource_type),
            CompartmentPaths::Primary => MASKS[resource_type.index()],
        }
    }
}

by_name!(CompartmentPaths);

/// A type of the tables.
fn type_named(name: &str) -> ResourceType {
    ResourceType::parse(name).expect("a type of R4")
}

/// The paths of a table as bits, by type.
fn masks_of(table: &[(&str, &[&str])]) -> [u64; ResourceType::COUNT] {
    let mut masks = [0; ResourceType::COUNT];
    for (name, paths) in table {
        for path in *paths {
            masks[type_named(name).index()] |=
                1 << PATHS.iter().position(|known| known == path).expect("a listed path");
        }
    }
    masks
}

/// Compartment paths of a type, one bit each; 0 for a type outside the compartment.
pub(crate) fn paths_of(resource_type: ResourceType) -> u64 {
    static MASKS: std::sync::LazyLock<[u64; ResourceType::COUNT]> = std::sync::LazyLock::new(|| masks_of(&TABLE));
    MASKS[resource_type.index()]
}

/// Whether resources of this type can be in a patient's compartment: the 66 types of R4 and Device. Only these are
/// allowed in `_type` at Patient and Group level (TYPE-04).
pub(crate) fn in_compartment(resource_type: ResourceType) -> bool {
    paths_of(resource_type) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// COMP-01: the table says what HL7's CompartmentDefinition and SearchParameters say, and Device.patient.
    #[test]
    fn the_table_is_the_official_one() {
        let read = |name: &str| {
            let path = format!("{}/testdata/fhir-r4/{name}", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(path).unwrap()
        };
        let definition: serde_json::Value = serde_json::from_str(&read("compartmentdefinition-patient.json")).unwrap();
        let parameters: serde_json::Value =
            serde_json::from_str(&read("search-parameters-patient-compartment.json")).unwrap();
        let mut official = BTreeSet::new();
        for resource in definition["resource"].as_array().unwrap() {
            let name = resource["code"].as_str().unwrap();
            for param in resource["param"].as_array().into_iter().flatten() {
                let code = param.as_str().unwrap();
                let parameter = parameters["searchParameters"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|p| p["code"] == code && p["base"].as_array().unwrap().iter().any(|base| base == name))
                    .unwrap_or_else(|| panic!("{name}.{code}"));
                for part in parameter["expression"].as_str().unwrap().split('|') {
                    let part = part.trim().trim_matches(['(', ')']);
                    let path = part.split(".where(").next().unwrap();
                    if let Some(path) = path.strip_prefix(&format!("{name}.")) {
                        official.insert((name.to_string(), path.to_string()));
                    }
                }
            }
        }
        official.insert(("Device".into(), "patient".into()));
        let ours: BTreeSet<(String, String)> = TABLE
            .iter()
            .flat_map(|(name, paths)| paths.iter().map(|path| (name.to_string(), path.to_string())))
            .collect();
        assert_eq!(ours, official);
        assert_eq!(ResourceType::all().filter(|t| in_compartment(*t)).count(), 67);
    }

    /// COMP-15: primary paths are paths of R4, fewer of each type that is listed; of the others that have several paths none
    /// is left out. No type but Patient is without.
    #[test]
    fn primary_paths_are_some_of_r4s() {
        let count = |which: CompartmentPaths, of| which.paths_of(of).count_ones();
        let listed: BTreeSet<&str> = PRIMARY.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed.len(), PRIMARY.len());
        for of in ResourceType::all() {
            let (all, primary) = (paths_of(of), CompartmentPaths::Primary.paths_of(of));
            assert_eq!(primary & !all, 0, "{}", of.name());
            let [r4, primary] = CompartmentPaths::ALL.map(|which| count(which, of));
            assert_eq!(primary < r4, listed.contains(of.name()), "{}", of.name());
            assert_eq!(primary == 0 && r4 > 0, of == ResourceType::PATIENT, "{}", of.name());
            assert!(primary <= 1, "{}: one path says whom a record is about", of.name());
        }
    }

    /// The paths derived from the definitions agree with the published table of paths.
    #[test]
    fn the_types_are_the_official_ones() {
        let path = format!("{}/testdata/fhir-r4/resource-types.txt", env!("CARGO_MANIFEST_DIR"));
        let names = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            names.split_whitespace().collect::<Vec<_>>(),
            ResourceType::all().map(|t| t.name()).collect::<Vec<_>>()
        );
    }
}
