//! The table of kick-off parameters that the parser, the OperationDefinitions and the documentation share (CAP-13).

/// A parameter of a kick-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its FHIR type.
    pub fhir_type: &'static str,
    /// How often it may be given: `1`, or `*`.
    pub max: &'static str,
    /// What it does.
    pub documentation: &'static str,
    /// Whether it is supported here.
    pub supported: bool,
    /// Whether `handling=lenient` has it ignored when it is not (HDR-05).
    pub lenient: bool,
}

const fn supported(
    name: &'static str,
    fhir_type: &'static str,
    max: &'static str,
    documentation: &'static str,
) -> Parameter {
    Parameter { name, fhir_type, max, documentation, supported: true, lenient: false }
}

const fn unsupported(name: &'static str, fhir_type: &'static str, max: &'static str, lenient: bool) -> Parameter {
    Parameter { name, fhir_type, max, documentation: "", supported: false, lenient }
}

/// Every parameter that the Bulk Data IG knows.
pub const PARAMETERS: &[Parameter] = &[
    supported(
        "_outputFormat",
        "string",
        "1",
        "The format of the files: application/fhir+ndjson, also written application/ndjson or ndjson.",
    ),
    supported(
        "_since",
        "instant",
        "1",
        "Only resources whose meta.lastUpdated is later than this. Membership is not filtered: records of members who joined later are exported only as far as they changed later.",
    ),
    supported(
        "_until",
        "instant",
        "1",
        "Only resources whose meta.lastUpdated is earlier than this. A resource changed again since is left out, so that windows do not add up to a history.",
    ),
    supported("_type", "string", "*", "Only resources of these types; a list with commas, or given several times."),
    unsupported("_elements", "string", "*", true),
    unsupported("_typeFilter", "string", "*", true),
    unsupported("patient", "Reference", "*", true),
    unsupported("includeAssociatedData", "code", "*", true),
    unsupported("organizeOutputBy", "string", "1", true),
    unsupported("allowPartialManifests", "boolean", "1", true),
];
