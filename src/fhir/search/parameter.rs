//! The search parameters of each resource type, from the official definitions of FHIR R4 (4.0.1).
//!
//! `parameters.csv` has their expressions as paths of property names, made from `search-parameters.ndjson` and
//! `elements.csv`; a test compares the two. Composite and special parameters are left out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use crate::fhir::resource_type::ResourceType;

/// Type of a search parameter, which decides what its values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ParameterKind {
    /// A code, an identifier, a truth value.
    Token,
    /// An instant, a date, a period.
    Date,
    /// Text, compared without its case.
    String,
    /// A reference to a resource.
    Reference,
    /// A number with a unit.
    Quantity,
    /// A number.
    Number,
    /// A URI, compared as it is.
    Uri,
}

impl ParameterKind {
    /// Every kind.
    const ALL: [ParameterKind; 7] = [
        ParameterKind::Token,
        ParameterKind::Date,
        ParameterKind::String,
        ParameterKind::Reference,
        ParameterKind::Quantity,
        ParameterKind::Number,
        ParameterKind::Uri,
    ];

    /// Its code in a SearchParameter.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            ParameterKind::Token => "token",
            ParameterKind::Date => "date",
            ParameterKind::String => "string",
            ParameterKind::Reference => "reference",
            ParameterKind::Quantity => "quantity",
            ParameterKind::Number => "number",
            ParameterKind::Uri => "uri",
        }
    }
}

/// A property on the way to the values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathStep {
    /// Name of the property.
    pub name: &'static str,
    /// A property of the element that must have this text, as `system` of a telecom that is a phone.
    pub condition: Option<(&'static str, &'static str)>,
}

/// A path to values of a parameter, from the root of the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ElementPath {
    /// Properties; lists on the way are followed item by item.
    pub steps: Vec<PathStep>,
    /// FHIR type of the values, or `presence`: the value is whether there is one that is not `false`.
    pub data_type: &'static str,
    /// The type that a reference must be to.
    pub target: Option<ResourceType>,
}

/// A search parameter of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SearchParameter {
    /// Its name in a search.
    pub code: &'static str,
    /// What its values mean.
    pub kind: ParameterKind,
    /// Where its values stand.
    pub paths: Vec<ElementPath>,
}

/// A parameter of a type by name, as `Observation.category`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ParameterName {
    /// The type.
    pub resource_type: ResourceType,
    /// The name in a search.
    pub code: &'static str,
}

impl ParameterName {
    /// Reads `Type.code` or `Type?code`; `None` if there is no such parameter here.
    pub(crate) fn parse(text: &str) -> Option<ParameterName> {
        let (of, code) = text.split_once(['.', '?'])?;
        let resource_type = ResourceType::parse(of)?;
        let code = find_parameter(resource_type, code)?.code;
        Some(ParameterName { resource_type, code })
    }

    /// The parameter.
    pub(crate) fn parameter(self) -> Option<SearchParameter> {
        find_parameter(self.resource_type, self.code)
    }
}

impl fmt::Display for ParameterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.resource_type, self.code)
    }
}

impl SearchParameter {
    /// Whether its values can be kept in a column of the index: texts are read each time.
    pub(crate) fn has_column(&self) -> bool {
        self.kind != ParameterKind::String
    }
}

/// The official parameters: type (`*` for every one), code, kind, paths.
const OFFICIAL: &str = include_str!("parameters.csv");

/// What clients send that R4 does not define, each with its source.
const FURTHER: [&str; 5] = [
    // R5, Observation.
    "Observation,issued,date,issued:instant",
    // CARIN Consumer Directed Payer Data Exchange 2.0.
    "ExplanationOfBenefit,service-date,date,billablePeriod:Period",
    "ExplanationOfBenefit,type,token,type:CodeableConcept",
    // US Core 6.1.
    "Encounter,discharge-disposition,token,hospitalization.dischargeDisposition:CodeableConcept",
    "CareTeam,role,token,participant.role:CodeableConcept",
];

/// Kind and paths of the parameters, by type and by code.
static BY_TYPE: LazyLock<BTreeMap<&'static str, BTreeMap<&'static str, &'static str>>> = LazyLock::new(|| {
    let mut by_type: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for row in OFFICIAL.lines().skip(1).chain(FURTHER) {
        let mut parts = row.splitn(3, ',');
        if let (Some(of), Some(code), Some(rest)) = (parts.next(), parts.next(), parts.next()) {
            by_type.entry(of).or_default().insert(code, rest);
        }
    }
    by_type
});

/// The parameter of this code for a type; `None` if there is none here.
pub(crate) fn find_parameter(resource_type: ResourceType, code: &str) -> Option<SearchParameter> {
    let find = |of: &str| BY_TYPE.get(of)?.get_key_value(code);
    let (code, row) = find(resource_type.name()).or_else(|| find("*"))?;
    let (kind, paths) = row.split_once(',')?;
    let kind = ParameterKind::ALL.into_iter().find(|known| known.name() == kind)?;
    Some(SearchParameter { code, kind, paths: paths.split(' ').map(read_path).collect::<Option<_>>()? })
}

/// Names and kinds of the parameters of a type, sorted by name.
pub(crate) fn parameters_of(resource_type: ResourceType) -> Vec<(&'static str, &'static str)> {
    let own = [resource_type.name(), "*"].into_iter().filter_map(|of| BY_TYPE.get(of)).flatten();
    let mut all: Vec<_> = own.map(|(code, row)| (*code, row.split(',').next().unwrap_or_default())).collect();
    all.sort_unstable();
    all
}

/// Reads a path as `parameters.csv` writes it: `a.b{system=phone}.c:Type>Target`.
fn read_path(text: &'static str) -> Option<ElementPath> {
    let (steps, end) = text.split_once(':')?;
    let (data_type, target) = match end.split_once('>') {
        Some((data_type, target)) => (data_type, Some(ResourceType::parse(target)?)),
        None => (end, None),
    };
    let step = |text: &'static str| match text.split_once('{') {
        None => Some(PathStep { name: text, condition: None }),
        Some((name, condition)) => {
            Some(PathStep { name, condition: Some(condition.strip_suffix('}')?.split_once('=')?) })
        }
    };
    Some(ElementPath { steps: steps.split('.').map(step).collect::<Option<_>>()?, data_type, target })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of the tables is read, and has paths.
    #[test]
    fn every_parameter_is_read() {
        let mut count = 0;
        for (of, code) in BY_TYPE.iter().flat_map(|(of, all)| all.keys().map(move |code| (of, code))) {
            let resource_type = if *of == "*" { ResourceType::PATIENT } else { ResourceType::parse(of).unwrap() };
            let found = find_parameter(resource_type, code).unwrap_or_else(|| panic!("{of}?{code}"));
            assert!(!found.paths.is_empty() && found.code == *code);
            count += 1;
        }
        assert_eq!(count, OFFICIAL.lines().count() - 1 + FURTHER.len());
        assert!(find_parameter(ResourceType::PATIENT, "status").is_none(), "R4 has no Patient.status");
        let phone = find_parameter(ResourceType::PATIENT, "phone").unwrap();
        assert_eq!(phone.paths[0].steps, [PathStep { name: "telecom", condition: Some(("system", "phone")) }]);
        assert!(parameters_of(ResourceType::PATIENT).contains(&("birthdate", "date")));
    }
}
