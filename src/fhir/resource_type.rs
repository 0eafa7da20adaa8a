//! The concrete resource types of FHIR R4, by name and index.

/// One of the 146 concrete R4 resource types, ordered by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceType(u8);

impl ResourceType {
    /// Number of concrete types.
    pub const COUNT: usize = NAMES.len();
    /// The type `Binary`, which attachments refer to.
    pub const BINARY: ResourceType = ResourceType(8);
    /// The type `Bundle`, whose lines list deletions.
    pub const BUNDLE: ResourceType = ResourceType(11);
    /// The type `Device`, which this crate adds to the compartment.
    pub const DEVICE: ResourceType = ResourceType(34);
    /// The type `Group`, which defines cohorts.
    pub const GROUP: ResourceType = ResourceType(57);
    /// The type `OperationOutcome`, used in `error` files.
    pub const OPERATION_OUTCOME: ResourceType = ResourceType(98);
    /// The type `Patient`, the owner of a compartment.
    pub const PATIENT: ResourceType = ResourceType(102);
    /// The type `Provenance`, exported with its targets.
    pub const PROVENANCE: ResourceType = ResourceType(110);
    /// The type `Questionnaire`, which QuestionnaireResponses name by a canonical URL.
    pub const QUESTIONNAIRE: ResourceType = ResourceType(111);
    /// The type `QuestionnaireResponse`.
    pub const QUESTIONNAIRE_RESPONSE: ResourceType = ResourceType(112);

    /// The type of this exact name; `None` when R4 has none (case-sensitive, PARAM-08).
    pub fn parse(name: &str) -> Option<ResourceType> {
        NAMES.binary_search(&name).ok().map(|offset| ResourceType(offset as u8))
    }

    /// Name of the type, as in `resourceType`.
    pub fn name(self) -> &'static str {
        NAMES[self.0 as usize]
    }

    /// Index of the type in the order of names, below [`ResourceType::COUNT`]. Indexes on disk store it.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The type with this index; `None` from [`ResourceType::COUNT`] on.
    pub fn from_index(index: usize) -> Option<ResourceType> {
        (index < Self::COUNT).then_some(ResourceType(index as u8))
    }

    /// Every type, in the order of names.
    pub fn all() -> impl Iterator<Item = ResourceType> {
        (0..Self::COUNT).map(|offset| ResourceType(offset as u8))
    }

    /// Names of types that `name` may be a misspelling of: at most three, nearest first.
    pub fn similar(name: &str) -> Vec<&'static str> {
        let lower = name.to_lowercase();
        let mut near: Vec<(usize, &'static str)> = NAMES
            .iter()
            .map(|known| (strsim::damerau_levenshtein(&lower, &known.to_lowercase()), *known))
            .filter(|(distance, known)| *distance <= 2.max(known.len() / 4))
            .collect();
        near.sort();
        near.into_iter().take(3).map(|(_, known)| known).collect()
    }
}

impl std::fmt::Debug for ResourceType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Display for ResourceType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Names of the types in their order: <https://hl7.org/fhir/R4/valueset-resource-types.html> without the abstract
/// Resource and DomainResource.
#[rustfmt::skip]
const NAMES: [&str; 146] = [
    "Account", "ActivityDefinition", "AdverseEvent", "AllergyIntolerance", "Appointment", "AppointmentResponse",
    "AuditEvent", "Basic", "Binary", "BiologicallyDerivedProduct", "BodyStructure", "Bundle", "CapabilityStatement",
    "CarePlan", "CareTeam", "CatalogEntry", "ChargeItem", "ChargeItemDefinition", "Claim", "ClaimResponse",
    "ClinicalImpression", "CodeSystem", "Communication", "CommunicationRequest", "CompartmentDefinition",
    "Composition", "ConceptMap", "Condition", "Consent", "Contract", "Coverage", "CoverageEligibilityRequest",
    "CoverageEligibilityResponse", "DetectedIssue", "Device", "DeviceDefinition", "DeviceMetric", "DeviceRequest",
    "DeviceUseStatement", "DiagnosticReport", "DocumentManifest", "DocumentReference", "EffectEvidenceSynthesis",
    "Encounter", "Endpoint", "EnrollmentRequest", "EnrollmentResponse", "EpisodeOfCare", "EventDefinition",
    "Evidence", "EvidenceVariable", "ExampleScenario", "ExplanationOfBenefit", "FamilyMemberHistory", "Flag",
    "Goal", "GraphDefinition", "Group", "GuidanceResponse", "HealthcareService", "ImagingStudy", "Immunization",
    "ImmunizationEvaluation", "ImmunizationRecommendation", "ImplementationGuide", "InsurancePlan", "Invoice",
    "Library", "Linkage", "List", "Location", "Measure", "MeasureReport", "Media", "Medication",
    "MedicationAdministration", "MedicationDispense", "MedicationKnowledge", "MedicationRequest",
    "MedicationStatement", "MedicinalProduct", "MedicinalProductAuthorization", "MedicinalProductContraindication",
    "MedicinalProductIndication", "MedicinalProductIngredient", "MedicinalProductInteraction",
    "MedicinalProductManufactured", "MedicinalProductPackaged", "MedicinalProductPharmaceutical",
    "MedicinalProductUndesirableEffect", "MessageDefinition", "MessageHeader", "MolecularSequence", "NamingSystem",
    "NutritionOrder", "Observation", "ObservationDefinition", "OperationDefinition", "OperationOutcome",
    "Organization", "OrganizationAffiliation", "Parameters", "Patient", "PaymentNotice", "PaymentReconciliation",
    "Person", "PlanDefinition", "Practitioner", "PractitionerRole", "Procedure", "Provenance", "Questionnaire",
    "QuestionnaireResponse", "RelatedPerson", "RequestGroup", "ResearchDefinition", "ResearchElementDefinition",
    "ResearchStudy", "ResearchSubject", "RiskAssessment", "RiskEvidenceSynthesis", "Schedule", "SearchParameter",
    "ServiceRequest", "Slot", "Specimen", "SpecimenDefinition", "StructureDefinition", "StructureMap",
    "Subscription", "Substance", "SubstanceNucleicAcid", "SubstancePolymer", "SubstanceProtein",
    "SubstanceReferenceInformation", "SubstanceSourceMaterial", "SubstanceSpecification", "SupplyDelivery",
    "SupplyRequest", "Task", "TerminologyCapabilities", "TestReport", "TestScript", "ValueSet",
    "VerificationResult", "VisionPrescription",
];
