//! The concrete resource types of FHIR R4.

/// One of the 146 concrete R4 resource types; order is the names' order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceType(u8);

impl ResourceType {
    /// How many there are.
    pub const COUNT: usize = NAMES.len();
    /// Bundle.
    pub const BUNDLE: ResourceType = ResourceType(11);
    /// Device.
    pub const DEVICE: ResourceType = ResourceType(34);
    /// Group.
    pub const GROUP: ResourceType = ResourceType(57);
    /// OperationOutcome.
    pub const OPERATION_OUTCOME: ResourceType = ResourceType(98);
    /// Patient.
    pub const PATIENT: ResourceType = ResourceType(102);
    /// Provenance.
    pub const PROVENANCE: ResourceType = ResourceType(110);

    /// The type of this exact name, if R4 has it (case-sensitive, PARAM-08).
    pub fn parse(name: &str) -> Option<ResourceType> {
        NAMES.binary_search(&name).ok().map(|offset| ResourceType(offset as u8))
    }

    /// The type's name.
    pub fn name(self) -> &'static str {
        NAMES[self.0 as usize]
    }

    /// Place of the type in the order of names, below [`ResourceType::COUNT`].
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The type at this place.
    pub fn from_index(index: usize) -> Option<ResourceType> {
        (index < Self::COUNT).then_some(ResourceType(index as u8))
    }

    /// Every type, in the order of names.
    pub fn all() -> impl Iterator<Item = ResourceType> {
        (0..Self::COUNT).map(|offset| ResourceType(offset as u8))
    }

    /// Names a person may have meant by `name`: at most three, nearest first.
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

/// <https://hl7.org/fhir/R4/valueset-resource-types.html> without the abstract Resource and DomainResource.
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
