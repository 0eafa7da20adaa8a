//! The search parameters of the naive search, with paths written by hand from R4's pages of each resource.

/// Name, type and paths of a parameter. A path names properties, and the data type of the values behind a colon.
type Parameter = (&'static str, &'static str, &'static [&'static str]);

/// Parameters of every type.
const COMMON: &[Parameter] = &[
    ("_id", "token", &["id:id"]),
    ("_lastUpdated", "date", &["meta.lastUpdated:instant"]),
    ("_profile", "uri", &["meta.profile:canonical"]),
    ("_tag", "token", &["meta.tag:Coding"]),
    ("_security", "token", &["meta.security:Coding"]),
    ("_source", "uri", &["meta.source:uri"]),
];

/// Types with some of their parameters, of every kind of parameter and value.
pub(crate) const TYPES: &[(&str, &[Parameter])] = &[
    (
        "Patient",
        &[
            ("active", "token", &["active:boolean"]),
            ("address", "string", &["address:Address"]),
            ("address-city", "string", &["address.city:string"]),
            ("address-use", "token", &["address.use:code"]),
            ("birthdate", "date", &["birthDate:date"]),
            ("death-date", "date", &["deceasedDateTime:dateTime"]),
            ("deceased", "token", &["deceasedBoolean:truth", "deceasedDateTime:truth"]),
            ("email", "token", &["telecom[email]:ContactPoint"]),
            ("phone", "token", &["telecom[phone]:ContactPoint"]),
            ("telecom", "token", &["telecom:ContactPoint"]),
            ("family", "string", &["name.family:string"]),
            ("given", "string", &["name.given:string"]),
            ("name", "string", &["name:HumanName"]),
            ("gender", "token", &["gender:code"]),
            ("identifier", "token", &["identifier:Identifier"]),
            ("language", "token", &["communication.language:CodeableConcept"]),
            ("general-practitioner", "reference", &["generalPractitioner:Reference"]),
            ("link", "reference", &["link.other:Reference"]),
            ("organization", "reference", &["managingOrganization:Reference"]),
        ],
    ),
    (
        "Observation",
        &[
            ("category", "token", &["category:CodeableConcept"]),
            ("code", "token", &["code:CodeableConcept"]),
            ("combo-code", "token", &["code:CodeableConcept", "component.code:CodeableConcept"]),
            ("component-value-quantity", "quantity", &["component.valueQuantity:Quantity"]),
            (
                "date",
                "date",
                &[
                    "effectiveDateTime:dateTime",
                    "effectivePeriod:Period",
                    "effectiveTiming:Timing",
                    "effectiveInstant:instant",
                ],
            ),
            ("identifier", "token", &["identifier:Identifier"]),
            ("patient", "reference", &["subject:Reference>Patient"]),
            ("performer", "reference", &["performer:Reference"]),
            ("status", "token", &["status:code"]),
            ("subject", "reference", &["subject:Reference"]),
            ("value-date", "date", &["valueDateTime:dateTime", "valuePeriod:Period"]),
            ("value-quantity", "quantity", &["valueQuantity:Quantity"]),
            ("combo-value-quantity", "quantity", &["valueQuantity:Quantity", "component.valueQuantity:Quantity"]),
            ("value-string", "string", &["valueString:string", "valueCodeableConcept.text:string"]),
        ],
    ),
    (
        "Condition",
        &[
            ("abatement-date", "date", &["abatementDateTime:dateTime", "abatementPeriod:Period"]),
            ("abatement-age", "quantity", &["abatementAge:Quantity", "abatementRange:Range"]),
            ("body-site", "token", &["bodySite:CodeableConcept"]),
            ("clinical-status", "token", &["clinicalStatus:CodeableConcept"]),
            ("encounter", "reference", &["encounter:Reference"]),
            ("evidence-detail", "reference", &["evidence.detail:Reference"]),
            ("onset-info", "string", &["onsetString:string"]),
            ("recorded-date", "date", &["recordedDate:dateTime"]),
            ("stage", "token", &["stage.summary:CodeableConcept"]),
        ],
    ),
    (
        "Encounter",
        &[
            ("class", "token", &["class:Coding"]),
            ("date", "date", &["period:Period"]),
            ("length", "quantity", &["length:Quantity"]),
            ("location", "reference", &["location.location:Reference"]),
            ("location-period", "date", &["location.period:Period"]),
            ("special-arrangement", "token", &["hospitalization.specialArrangement:CodeableConcept"]),
            ("status", "token", &["status:code"]),
        ],
    ),
    (
        "MedicationRequest",
        &[
            ("authoredon", "date", &["authoredOn:dateTime"]),
            ("code", "token", &["medicationCodeableConcept:CodeableConcept"]),
            ("date", "date", &["dosageInstruction.timing.event:dateTime"]),
            ("medication", "reference", &["medicationReference:Reference"]),
            ("status", "token", &["status:code"]),
        ],
    ),
    (
        "ExplanationOfBenefit",
        &[
            ("coverage", "reference", &["insurance.coverage:Reference"]),
            ("created", "date", &["created:dateTime"]),
            ("disposition", "string", &["disposition:string"]),
            ("status", "token", &["status:code"]),
        ],
    ),
    (
        "RiskAssessment",
        &[
            ("date", "date", &["occurrenceDateTime:dateTime"]),
            ("probability", "number", &["prediction.probabilityDecimal:decimal", "prediction.probabilityRange:Range"]),
            ("risk", "token", &["prediction.qualitativeRisk:CodeableConcept"]),
        ],
    ),
    (
        "Questionnaire",
        &[
            ("code", "token", &["item.code:Coding"]),
            ("definition", "uri", &["item.definition:uri"]),
            ("effective", "date", &["effectivePeriod:Period"]),
            ("title", "string", &["title:string"]),
            ("url", "uri", &["url:uri"]),
            ("version", "token", &["version:text"]),
        ],
    ),
    (
        "CarePlan",
        &[
            ("instantiates-canonical", "reference", &["instantiatesCanonical:canonical"]),
            ("instantiates-uri", "uri", &["instantiatesUri:uri"]),
            ("performer", "reference", &["activity.detail.performer:Reference"]),
            (
                "activity-date",
                "date",
                &["activity.detail.scheduledTiming:Timing", "activity.detail.scheduledPeriod:Period"],
            ),
        ],
    ),
    ("Invoice", &[("date", "date", &["date:dateTime"]), ("totalgross", "quantity", &["totalGross:Money"])]),
    ("Appointment", &[("date", "date", &["start:instant"])]),
];

/// Parameters of a type, those of every type among them.
pub(crate) fn parameters(of: &str) -> Vec<Parameter> {
    let own = TYPES.iter().find(|(name, _)| *name == of).map_or(&[][..], |(_, own)| own);
    COMMON.iter().chain(own).copied().collect()
}
