//! The types of referenced context: what records of patients refer to, and is no record of a patient itself (COMP-06).

use std::sync::LazyLock;

use crate::fhir::resource_type::ResourceType;

/// Names of the types that come with `context` by reference from exported resources, and from one another.
const NAMES: [&str; 10] = [
    "Device",
    "Endpoint",
    "HealthcareService",
    "Location",
    "Medication",
    "Organization",
    "Practitioner",
    "PractitionerRole",
    "Questionnaire",
    "Substance",
];

/// For each type, by its index, whether it is context.
static IS_CONTEXT: LazyLock<[bool; ResourceType::COUNT]> = LazyLock::new(|| {
    let mut is_context = [false; ResourceType::COUNT];
    types().for_each(|resource_type| is_context[resource_type.index()] = true);
    is_context
});

/// The types of context, in the order of names.
pub(crate) fn types() -> impl Iterator<Item = ResourceType> {
    NAMES.iter().map(|name| ResourceType::parse(name).expect("a type of R4"))
}

/// Whether resources of a type come as context.
#[inline]
pub(crate) fn is_context(resource_type: ResourceType) -> bool {
    IS_CONTEXT[resource_type.index()]
}

/// The type of context that a reference relative to its server, literal or conditional, begins with.
#[inline]
pub(crate) fn type_of_relative(reference: &str) -> Option<ResourceType> {
    if !may_be_relative(reference.as_bytes()) {
        return None;
    }
    let end = reference.bytes().position(|byte| matches!(byte, b'/' | b'?'))?;
    ResourceType::parse(&reference[..end]).filter(|resource_type| is_context(*resource_type))
}

/// Whether a reference that begins so may be one that [`type_of_relative`] takes. Most references name patients and
/// encounters: two bytes tell.
#[inline(always)]
pub(crate) fn may_be_relative(start: &[u8]) -> bool {
    matches!(
        start,
        [b'D', b'e', ..]
            | [b'E', b'n', b'd', ..]
            | [b'H', b'e', ..]
            | [b'L', ..]
            | [b'M', b'e', ..]
            | [b'O', b'r', ..]
            | [b'P', b'r', ..]
            | [b'Q', ..]
            | [b'S', b'u', ..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The look at the first bytes passes over no type of context.
    #[test]
    fn each_type_is_recognised() {
        for resource_type in ResourceType::all() {
            let expected = NAMES.contains(&resource_type.name()).then_some(resource_type);
            assert_eq!(type_of_relative(&format!("{resource_type}/a")), expected);
            assert_eq!(type_of_relative(&format!("{resource_type}?identifier=a|b")), expected);
            assert_eq!(is_context(resource_type), expected.is_some());
        }
        for other in
            ["", "Practitioner", "practitioner/a", "#p", "urn:uuid:1", "http://a/Practitioner/1", "/Location/1"]
        {
            assert_eq!(type_of_relative(other), None, "{other}");
        }
    }
}
