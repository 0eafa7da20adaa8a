//! The elements at the root of a resource type, and the names that they have in JSON.

use crate::fhir::elements::table::{DOMAIN_RESOURCE, NOT_DOMAIN, RESOURCE, ROOT_ELEMENTS};
use crate::fhir::resource_type::ResourceType;
use std::sync::LazyLock;

/// An element at the root of a resource type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootElement {
    /// Its name, without the `[x]` of a choice.
    pub name: &'static str,
    /// Whether each resource of the type must have it (min of at least 1).
    pub is_mandatory: bool,
    /// Of a choice, its names in JSON, one for each type; else empty.
    pub choices: Vec<String>,
}

impl RootElement {
    /// An element from its word in the table.
    fn of(word: &'static str) -> RootElement {
        let (word, is_mandatory) = match word.strip_suffix('!') {
            Some(word) => (word, true),
            None => (word, false),
        };
        let Some((name, types)) = word.split_once('[') else {
            return RootElement { name: word, is_mandatory, choices: Vec::new() };
        };
        let json_name = |of_type: &str| {
            let (first, rest) = of_type.split_at(1);
            format!("{name}{}{rest}", first.to_uppercase())
        };
        RootElement { name, is_mandatory, choices: types.trim_end_matches(']').split('|').map(json_name).collect() }
    }

    /// The names of its properties in JSON, without the underscore of the properties that extend primitives.
    pub(crate) fn json_names(&self) -> impl Iterator<Item = &str> {
        let own = self.choices.is_empty().then_some(self.name);
        own.into_iter().chain(self.choices.iter().map(String::as_str))
    }

    /// Whether `name` is its name or, of a choice, one of its names in JSON (ELEM-05).
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.choices.iter().any(|choice| choice == name)
    }
}

/// The elements at the root of a type.
pub(crate) fn root_elements(resource_type: ResourceType) -> &'static [RootElement] {
    static ELEMENTS: LazyLock<Vec<Vec<RootElement>>> = LazyLock::new(|| {
        let of = |(name, own): &(&'static str, &'static str)| {
            let domain = if NOT_DOMAIN.contains(name) { "" } else { DOMAIN_RESOURCE };
            [RESOURCE, domain, own].iter().flat_map(|words| words.split_whitespace()).map(RootElement::of).collect()
        };
        ROOT_ELEMENTS.iter().map(of).collect()
    });
    &ELEMENTS[resource_type.index()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ELEM-02: the table has the elements of HL7's StructureDefinitions, their least numbers and the types of choices.
    #[test]
    fn the_table_is_the_official_one() {
        let path = format!("{}/testdata/fhir-r4/root-elements.csv", env!("CARGO_MANIFEST_DIR"));
        let official = std::fs::read_to_string(path).unwrap();
        let mut wanted: Vec<String> = official.lines().skip(1).map(str::to_string).collect();
        wanted.sort();
        let mut ours = 0;
        for resource_type in ResourceType::all() {
            for element in root_elements(resource_type) {
                let x = if element.choices.is_empty() { "" } else { "[x]" };
                let key = format!("{resource_type}.{}{x},{},", element.name, u8::from(element.is_mandatory));
                let at = wanted.partition_point(|row| row.as_str() < key.as_str());
                assert!(wanted.get(at).is_some_and(|row| row.starts_with(&key)), "{key}");
                if !element.choices.is_empty() {
                    let types = wanted[at].rsplit(',').next().unwrap();
                    let lower: Vec<String> = element.choices.iter().map(|name| name.to_lowercase()).collect();
                    let named: Vec<String> =
                        types.split('|').map(|of| format!("{}{of}", element.name).to_lowercase()).collect();
                    assert_eq!(lower, named);
                }
                ours += 1;
            }
        }
        assert_eq!(ours, wanted.len());
        assert!(ROOT_ELEMENTS.iter().map(|(name, _)| *name).eq(ResourceType::all().map(ResourceType::name)));
    }

    /// A choice is called by its base name and by each of its names in JSON.
    #[test]
    fn choices_have_names_in_json() {
        let observation = ResourceType::parse("Observation").unwrap();
        let value = root_elements(observation).iter().find(|element| element.name == "value").unwrap();
        assert!(value.is_called("value") && value.is_called("valueQuantity") && value.is_called("valueDateTime"));
        assert!(!value.is_called("valueInstant") && !value.is_mandatory);
        assert_eq!(value.json_names().count(), 11);
        let status = root_elements(observation).iter().find(|element| element.name == "status").unwrap();
        assert!(status.is_mandatory && status.json_names().eq(["status"]));
    }
}
