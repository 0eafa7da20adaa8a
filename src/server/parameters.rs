//! Tables of kick-off parameters, from which requests are checked and the documentation is made (CAP-13).
//!
//! Values are not read here. A parameter outside the table is unknown: refused, or ignored with a message under
//! `handling=lenient` (PARAM-04).

/// One parameter of `$export`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParameterRow {
    /// Name of the parameter; case counts (PARAM-08).
    pub name: &'static str,
    /// FHIR type in an OperationDefinition.
    pub fhir_type: &'static str,
    /// Smallest number of values.
    pub min: u32,
    /// Largest number of values: `1` or `*`.
    pub max: &'static str,
    /// The effect of the parameter here, in markdown; for an unsupported one, the effect that it would have.
    pub documentation: &'static str,
    /// Whether the parameter is served. An unsupported row exists so that the refusal can name it.
    pub supported: bool,
    /// Whether `handling=lenient` ignores values that cannot be served, with a message (HDR-05). Never for parameters
    /// that decide which data are disclosed or how they are read (HDR-07).
    pub lenient: bool,
    /// Whether it narrows what is exported, so that a slip of its name is refused also under `handling=lenient`: without it the
    /// answer would be wider than was meant (HDR-07).
    pub narrows: bool,
    /// Whether it applies at system level (PATIENT-03); at the other levels all do.
    pub system: bool,
    /// Types of its value in the body of a POST, as elements of `Parameters.parameter` (PARAM-05).
    pub body_types: &'static [&'static str],
}

impl ParameterRow {
    /// Whether it may be repeated, or have several values in a comma list (PARAM-01).
    #[cfg(test)]
    pub(crate) fn is_list(&self) -> bool {
        self.max == "*"
    }
}

/// Values of `_outputFormat`, the default first; all mean the same (FMT-01).
pub(crate) const OUTPUT_FORMATS: [&str; 3] = ["application/fhir+ndjson", "application/ndjson", "ndjson"];

/// The parameter of exactly this name; `None` if the table has none.
pub(crate) fn find<'a>(table: &'a [ParameterRow], name: &str) -> Option<&'a ParameterRow> {
    table.iter().find(|parameter| parameter.name == name)
}

/// Types of texts in the body of a POST.
const TEXT_TYPES: &[&str] = &["valueString", "valueCode"];
/// Types of instants in the body of a POST.
const INSTANT_TYPES: &[&str] = &["valueInstant", "valueDateTime", "valueString"];

/// The row of a parameter that is served.
const fn served_parameter(
    name: &'static str,
    fhir_type: &'static str,
    max: &'static str,
    documentation: &'static str,
) -> ParameterRow {
    ParameterRow {
        name,
        fhir_type,
        min: 0,
        max,
        documentation,
        supported: true,
        lenient: false,
        narrows: false,
        system: true,
        body_types: TEXT_TYPES,
    }
}

/// The row of a parameter that is known and not served.
const fn known_parameter(
    name: &'static str,
    fhir_type: &'static str,
    max: &'static str,
    documentation: &'static str,
) -> ParameterRow {
    let served = served_parameter(name, fhir_type, max, documentation);
    ParameterRow { supported: false, lenient: true, ..served }
}

/// `_outputFormat`, the same in all dialects.
const OUTPUT_FORMAT: ParameterRow = served_parameter(
    "_outputFormat",
    "string",
    "1",
    "`application/fhir+ndjson` (the default), `application/ndjson` or `ndjson`: newline-delimited JSON in every case. \
     Anything else is refused, also under `handling=lenient`.",
);

/// `_since` of the IG.
const SINCE: ParameterRow = ParameterRow {
    narrows: true,
    body_types: INSTANT_TYPES,
    ..served_parameter(
        "_since",
        "instant",
        "1",
        "Resources whose `meta.lastUpdated` is strictly later, compared as instants. Seconds and zone are required. Who is \
     a member, and whose record a resource is in, does not depend on it. Deletions since then are listed in the \
     manifest's `deleted`.",
    )
};

/// `_until` of the IG.
const UNTIL: ParameterRow = ParameterRow {
    narrows: true,
    body_types: INSTANT_TYPES,
    ..served_parameter(
        "_until",
        "instant",
        "1",
        "Resources whose `meta.lastUpdated` is strictly earlier, compared as instants. Seconds and zone are required, and \
     `_since` must be earlier. Only the latest version of a resource is exported: one that changed again after \
     `_until` is absent, so windows of time do not add up to the history.",
    )
};

/// `_type` of the IG.
const TYPE: ParameterRow = ParameterRow {
    lenient: true,
    narrows: true,
    ..served_parameter(
        "_type",
        "string",
        "*",
        "Names of the resource types to export, in a comma list or repeated; case counts. Only these are in the \
         output, Patient too only if listed. Without it every type is exported. A name that FHIR R4 does not have is \
         refused, under `handling=lenient` left out with a message; if no name is left the request is refused. At \
         Patient and Group level one type at least must be of the Patient compartment.",
    )
};

/// `_elements` of the IG.
const ELEMENTS: ParameterRow = ParameterRow {
    lenient: true,
    narrows: true,
    ..served_parameter(
        "_elements",
        "string",
        "*",
        "Root elements that resources keep, as `element` (of every type that has it) or `Type.element`, in a comma list or \
         repeated. Mandatory elements, `id`, `meta`, `implicitRules` and `modifierExtension` stay, and what is reduced has the tag \
         `SUBSETTED`. Types that no item touches stay whole. Nested paths and unknown names are refused, under \
         `handling=lenient` ignored with a message.",
    )
};
/// `_elements` in dialects whose documents do not have it.
const ELEMENTS_UNKNOWN: ParameterRow = ParameterRow { supported: false, ..ELEMENTS };
/// `_typeFilter` of the IG.
const TYPE_FILTER: ParameterRow = ParameterRow {
    lenient: true,
    narrows: true,
    ..served_parameter(
        "_typeFilter",
        "string",
        "*",
        "Searches by the parameters of R4 over one type each, such as \
         `Observation?category=laboratory&date=ge2024-01`, repeated or separated by commas. Of a type with searches \
         those resources are exported that one of them finds; other types are not touched. The CapabilityStatement \
         lists the parameters. Modifiers are `:not`, `:missing`, `:exact`, `:contains` and, of references, a type. \
         Chains, `_has`, composite parameters, other modifiers and parameters of results are refused; under \
         `handling=lenient` the type is not filtered, which a message says. Deletions are listed whatever a search \
         would find.",
    )
};
/// `_typeFilter` in dialects whose documents do not have it.
const TYPE_FILTER_UNKNOWN: ParameterRow = ParameterRow { supported: false, ..TYPE_FILTER };
/// `patient` of the IG.
const PATIENT: ParameterRow = ParameterRow {
    narrows: true,
    system: false,
    body_types: &["valueReference"],
    ..served_parameter(
        "patient",
        "Reference",
        "*",
        "References to the Patients to whose records an export of a Group or of all patients is restricted, in the body of a \
         POST only. One that is not in the Group, or not known, is refused or gets a warning in the `error` files, as the \
         CapabilityStatement says.",
    )
};
/// `patient` in dialects that have no POST. Never ignored, because the answer would be wider (HDR-07).
const PATIENT_UNKNOWN: ParameterRow = ParameterRow { supported: false, ..PATIENT };
/// `includeAssociatedData` of the IG.
const ASSOCIATED: ParameterRow = ParameterRow {
    lenient: true,
    body_types: &["valueCode", "valueString", "valueCoding"],
    ..served_parameter(
        "includeAssociatedData",
        "code",
        "*",
        "`LatestProvenanceResources`: of each exported resource the newest Provenance; `RelevantProvenanceResources`: every \
         Provenance; of both the second. They are added whatever `_type` says, and no other Provenance is exported. Without it \
         Provenance is exported that is about a patient's record, or at system level every one. Names that begin with `_` are \
         presets, which the CapabilityStatement explains where there are any. Any other value is refused, \
         under `handling=lenient` ignored with a message.",
    )
};
/// `includeAssociatedData` in dialects whose documents do not have it.
const ASSOCIATED_UNKNOWN: ParameterRow = ParameterRow { supported: false, ..ASSOCIATED };
/// `organizeOutputBy` of the IG, not served.
const ORGANIZE: ParameterRow =
    known_parameter("organizeOutputBy", "string", "1", "The resource type by whose instances files are organized.");
/// `allowPartialManifests` of the IG, not served.
const PARTIAL: ParameterRow =
    known_parameter("allowPartialManifests", "boolean", "1", "Whether files may be listed before the export ends.");

/// The parameters of the Bulk Data IG, release 3.
pub(crate) const PARAMETERS: &[ParameterRow] =
    &[OUTPUT_FORMAT, SINCE, UNTIL, TYPE, ELEMENTS, TYPE_FILTER, PATIENT, ASSOCIATED, ORGANIZE, PARTIAL];

/// `_until` in dialects whose documents do not have it.
const UNTIL_UNKNOWN: ParameterRow = ParameterRow { supported: false, ..UNTIL };

/// The table of a vendor's dialect, with its own `_since` and `_type`; the other parameters of the IG are known and
/// not served.
const fn vendor_table(since: ParameterRow, types: ParameterRow) -> [ParameterRow; 10] {
    [
        OUTPUT_FORMAT,
        since,
        UNTIL_UNKNOWN,
        types,
        ELEMENTS_UNKNOWN,
        TYPE_FILTER_UNKNOWN,
        PATIENT_UNKNOWN,
        ASSOCIATED_UNKNOWN,
        ORGANIZE,
        PARTIAL,
    ]
}

/// Netsmart's parameters: the three of its documents (NETSMART-G04).
pub(crate) const NETSMART_PARAMETERS: &[ParameterRow] = &vendor_table(SINCE, TYPE);

/// `_since` of 1upHealth, which may be a date.
const ONEUP_SINCE: ParameterRow = ParameterRow {
    fhir_type: "string",
    documentation: "A date, such as `2021-01-01`, or a date with time and zone: resources whose `meta.lastUpdated` is strictly \
                    later. A date alone stands for 00:00:00 of that day, UTC.",
    ..SINCE
};

/// `_type` of 1upHealth, whose case does not count.
const ONEUP_TYPE: ParameterRow = ParameterRow {
    documentation: "Names of the resource types to export, in a comma list or repeated; case does not count. Only these are in \
                    the output. Without it every type is exported. A name that FHIR R4 does not have is refused.",
    ..TYPE
};

/// Parameters of 1upHealth's single-tenant environment (ONEUP-S04…S06).
pub(crate) const ONEUP_STE_PARAMETERS: &[ParameterRow] = &vendor_table(ONEUP_SINCE, ONEUP_TYPE);

/// `_type` of 1upHealth's multi-tenant environment: types of the Patient compartment only.
const ONEUP_MTE_TYPE: ParameterRow = ParameterRow {
    lenient: false,
    documentation: "Names of the resource types to export, in a comma list or repeated; case does not count. Patient and types of \
                    the Patient compartment alone: any other name is refused. Without it all of these are exported.",
    ..TYPE
};

/// Parameters of 1upHealth's multi-tenant environment (ONEUP-M06…M08).
pub(crate) const ONEUP_MTE_PARAMETERS: &[ParameterRow] = &vendor_table(ONEUP_SINCE, ONEUP_MTE_TYPE);

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: impl Fn(&ParameterRow) -> bool) -> Vec<&'static str> {
        PARAMETERS.iter().filter(|parameter| of(parameter)).map(|parameter| parameter.name).collect()
    }

    /// SINCE-01, SINCE-08, FMT-01, TYPE-01: the served parameters. PARAM-01, PARAM-03: those that are lists.
    #[test]
    fn what_is_served() {
        assert_eq!(
            names(|p| p.supported),
            [
                "_outputFormat",
                "_since",
                "_until",
                "_type",
                "_elements",
                "_typeFilter",
                "patient",
                "includeAssociatedData"
            ]
        );
        let lists = ["_type", "_elements", "_typeFilter", "patient", "includeAssociatedData"];
        assert_eq!(names(ParameterRow::is_list), lists);
        assert!(PARAMETERS.iter().all(|p| p.min == 0 && ["1", "*"].contains(&p.max)));
        assert_eq!(names(|p| !p.system), ["patient"], "PATIENT-03");
    }

    /// HDR-05: parameters that `handling=lenient` may ignore. HDR-07: those that it never ignores.
    #[test]
    fn what_lenient_passes_over() {
        assert_eq!(names(|p| !p.lenient), ["_outputFormat", "_since", "_until", "patient"]);
        for name in ["_type", "_elements", "includeAssociatedData", "_typeFilter", "organizeOutputBy"] {
            assert!(find(PARAMETERS, name).unwrap().lenient, "{name}");
        }
    }

    /// HDR-07: parameters of which no slip is passed over.
    #[test]
    fn what_narrows_an_export() {
        assert_eq!(names(|p| p.narrows), ["_since", "_until", "_type", "_elements", "_typeFilter", "patient"]);
    }

    /// PARAM-08: names are exact, and none is in a table twice.
    #[test]
    fn names_are_exact() {
        assert_eq!(find(PARAMETERS, "_Type"), None);
        assert_eq!(find(PARAMETERS, "_type").unwrap().name, "_type");
        let mut all = names(|_| true);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), PARAMETERS.len());
    }
}
