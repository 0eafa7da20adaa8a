//! A selection of root elements (`_elements`): parsed, with every problem of its items, and what it keeps of each type.
//!
//! Nothing here decides whether a problem refuses a request: the caller turns problems into errors or into messages.

use crate::fhir::elements::root_element::root_elements;
use crate::fhir::resource_type::ResourceType;
use std::collections::BTreeSet;
use std::fmt;

/// Elements that a reduced resource keeps whether they are listed or not, beside its mandatory ones (ELEM-02, ELEM-05).
const ALWAYS_KEPT: [&str; 4] = ["id", "meta", "implicitRules", "modifierExtension"];
/// The property that names the type of a resource. It is no element, yet may be listed like one.
const RESOURCE_TYPE: &str = "resourceType";

/// The root elements that the resources of an export keep, `_elements` (ELEM-01 to ELEM-06); all of every type if it is empty.
///
/// ```
/// use outpour::{ElementSelection, ResourceType};
/// let (selection, problems) = ElementSelection::parse(["Patient.name", "Patient.birthDate"]);
/// assert!(problems.is_empty());
/// assert_eq!(selection.to_string(), "Patient.birthDate,Patient.name");
/// let observation = ResourceType::parse("Observation").unwrap();
/// assert!(!selection.reduces(observation)); // no item touches it: it stays whole
/// let (_, problems) = ElementSelection::parse(["Patient.name.family", "Pateint.name", "nmae"]);
/// assert_eq!(problems.len(), 3); // every problem at once
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElementSelection {
    /// Its items in their written form, sorted: `Type.element` or `element`.
    items: BTreeSet<String>,
}

/// What is wrong with an item of a selection (ELEM-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElementProblemKind {
    /// It is a path to an element below a root element.
    NestedPath,
    /// R4 has no resource type of its name.
    UnknownType,
    /// The type has no root element of its name; no type has, where it names none.
    UnknownElement,
}

/// An item of a selection that is not taken into it, and why. Its text is a sentence for the person who made the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementProblem {
    /// The item as it was given, without white space around it.
    pub item: String,
    /// What is wrong with it.
    pub kind: ElementProblemKind,
    /// What to do instead.
    advice: String,
}

impl fmt::Display for ElementProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ElementProblemKind::NestedPath => "is a path to a nested element; only root elements can be listed",
            ElementProblemKind::UnknownType => "names no R4 resource type",
            ElementProblemKind::UnknownElement => "is no root element of R4",
        };
        write!(f, "{:?} {what}; {}", self.item, self.advice)
    }
}

impl ElementSelection {
    /// Parses items of the forms `Type.element` and `element`; white space around them and empty ones are ignored. An element
    /// is called by its name, a choice by its base name or one of its names in JSON: `value`, `valueQuantity`. What is wrong
    /// is left out of the selection and told, each item by itself and in order.
    pub fn parse<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> (ElementSelection, Vec<ElementProblem>) {
        let (mut selection, mut problems) = (ElementSelection::default(), Vec::new());
        for item in items {
            let item = item.as_ref().trim();
            if item.is_empty() {
                continue;
            }
            match check_item(item) {
                Ok(()) => {
                    selection.items.insert(item.to_string());
                }
                Err((kind, advice)) => problems.push(ElementProblem { item: item.to_string(), kind, advice }),
            }
        }
        (selection, problems)
    }

    /// Whether it has no item, so that nothing is reduced.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Its items in their written form, sorted, each once.
    pub fn items(&self) -> impl ExactSizeIterator<Item = &str> {
        self.items.iter().map(String::as_str)
    }

    /// Whether resources of a type are reduced: an item names the type, or names no type and an element that the type has.
    /// Others stay whole and untagged (ELEM-04).
    pub fn reduces(&self, resource_type: ResourceType) -> bool {
        self.listed(resource_type).next().is_some()
    }

    /// Names of the JSON properties that a reduced resource of a type keeps, without those with an underscore, which are kept
    /// with the names that they extend; sorted. `None` if the type is not reduced.
    pub(crate) fn kept_names(&self, resource_type: ResourceType) -> Option<BTreeSet<&str>> {
        let listed: Vec<&str> = self.listed(resource_type).collect();
        if listed.is_empty() {
            return None;
        }
        let mut kept = BTreeSet::from([RESOURCE_TYPE]);
        for element in root_elements(resource_type) {
            let is_whole =
                element.is_mandatory || ALWAYS_KEPT.contains(&element.name) || listed.contains(&element.name);
            kept.extend(element.json_names().filter(|name| is_whole || listed.contains(name)));
        }
        Some(kept)
    }

    /// Names of elements, by which items list elements of a type.
    fn listed(&self, resource_type: ResourceType) -> impl Iterator<Item = &str> {
        self.items().filter_map(move |item| match item.split_once('.') {
            Some((of_type, name)) => (of_type == resource_type.name()).then_some(name),
            None => has_element(resource_type, item).then_some(item),
        })
    }
}

/// The items, separated by commas: the value of `_elements`.
impl fmt::Display for ElementSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.items().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(item)?;
        }
        Ok(())
    }
}

/// Whether a type has a root element that is called so.
fn has_element(resource_type: ResourceType, name: &str) -> bool {
    name == RESOURCE_TYPE || root_elements(resource_type).iter().any(|element| element.is_called(name))
}

/// Checks an item.
///
/// # Errors
/// What is wrong with it, and advice.
fn check_item(item: &str) -> Result<(), (ElementProblemKind, String)> {
    let parts: Vec<&str> = item.split('.').collect();
    let (of_type, name) = match parts[..] {
        [name] => match ResourceType::parse(name) {
            // A type alone lists nothing of it.
            Some(_) => {
                let advice = format!("name an element of it, such as {name}.id");
                return Err((ElementProblemKind::UnknownElement, advice));
            }
            None => (None, name),
        },
        [of_type, name] => match ResourceType::parse(of_type) {
            Some(known) => (Some(known), name),
            // `name.family`: an element where a type should be.
            None if ResourceType::all().any(|known| has_element(known, of_type)) => {
                return Err((ElementProblemKind::NestedPath, format!("list {of_type}")));
            }
            None => {
                let near = ResourceType::similar(of_type);
                return Err((ElementProblemKind::UnknownType, did_you_mean(near.iter().map(|near| near.to_string()))));
            }
        },
        _ if ResourceType::parse(parts[0]).is_some() => {
            return Err((ElementProblemKind::NestedPath, format!("list {}.{}", parts[0], parts[1])));
        }
        _ => return Err((ElementProblemKind::NestedPath, "list its root element".to_string())),
    };
    let known = match of_type {
        Some(of_type) => has_element(of_type, name),
        None => ResourceType::all().any(|of_type| has_element(of_type, name)),
    };
    if known {
        return Ok(());
    }
    let prefix = of_type.map_or(String::new(), |of_type| format!("{of_type}."));
    let near = similar_elements(of_type, name).into_iter().map(|near| format!("{prefix}{near}"));
    Err((ElementProblemKind::UnknownElement, did_you_mean(near)))
}

/// Names of elements that `name` may be a misspelling of, of one type or of any: at most three, nearest first.
fn similar_elements(of_type: Option<ResourceType>, name: &str) -> Vec<&'static str> {
    let name = name.trim_end_matches("[x]").to_lowercase();
    let types = ResourceType::all().filter(|known| of_type.is_none_or(|of_type| of_type == *known));
    let names: BTreeSet<&str> =
        types.flat_map(|known| root_elements(known).iter().map(|element| element.name)).collect();
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&name, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= 2.min(known.len() / 2))
        .collect();
    near.sort();
    near.into_iter().take(3).map(|(_, known)| known).collect()
}

/// Advice that offers what may have been meant.
fn did_you_mean(near: impl Iterator<Item = String>) -> String {
    let near: Vec<String> = near.collect();
    match near.is_empty() {
        true => "use names of FHIR R4, such as Patient.birthDate or id".to_string(),
        false => format!("did you mean {}?", near.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> ResourceType {
        ResourceType::parse(name).unwrap()
    }

    fn selection(items: &[&str]) -> ElementSelection {
        let (selection, problems) = ElementSelection::parse(items);
        assert_eq!(problems, []);
        selection
    }

    /// ELEM-01: an item without a type applies to every type that has the element, one with a type to that alone.
    #[test]
    fn items_apply_to_types() {
        let ours = selection(&["id", " Patient.birthDate ", "", "Patient.birthDate"]);
        assert_eq!(ours.to_string(), "Patient.birthDate,id");
        assert!(ResourceType::all().all(|known| ours.reduces(known)));
        let kept = ours.kept_names(of("Patient")).unwrap();
        let always = ["birthDate", "id", "implicitRules", "meta", "modifierExtension", "resourceType"];
        assert!(kept.into_iter().eq(always));
        let dates = selection(&["birthDate"]);
        assert!(dates.reduces(of("Patient")) && dates.reduces(of("Practitioner")) && !dates.reduces(of("Observation")));
        assert!(!ElementSelection::default().reduces(of("Patient")));
    }

    /// ELEM-02: the mandatory elements of every type are kept, choices by all their names.
    #[test]
    fn mandatory_elements_of_every_type_are_kept() {
        let ours = selection(&["id"]);
        for known in ResourceType::all() {
            let kept = ours.kept_names(known).unwrap();
            for element in root_elements(known) {
                let stays = element.is_mandatory || ALWAYS_KEPT.contains(&element.name);
                assert!(element.json_names().all(|name| kept.contains(name) == stays), "{known}.{}", element.name);
            }
            assert!(kept.contains("resourceType"));
        }
        let kept = ours.kept_names(of("MedicationRequest")).unwrap();
        assert!(kept.contains("medicationCodeableConcept") && kept.contains("medicationReference"));
    }

    /// ELEM-05: a choice is listed by its base name, which keeps every one of its names, or by one of its names in JSON.
    #[test]
    fn choices_are_listed_by_either_name() {
        let both = selection(&["Observation.value"]).kept_names(of("Observation")).unwrap().len();
        assert_eq!(both, selection(&["Observation.valueQuantity"]).kept_names(of("Observation")).unwrap().len() + 10);
        let one = selection(&["valueQuantity"]);
        let kept = one.kept_names(of("Observation")).unwrap();
        assert!(kept.contains("valueQuantity") && !kept.contains("valueString") && !one.reduces(of("Patient")));
    }

    /// ELEM-04: types that no item of a typed list touches are not reduced.
    #[test]
    fn untouched_types_stay_whole() {
        let ours = selection(&["Patient.id"]);
        assert!(ResourceType::all().filter(|known| ours.reduces(*known)).eq([ResourceType::PATIENT]));
        assert_eq!(ours.kept_names(of("Observation")), None);
    }

    /// ELEM-05: every wrong item is reported, and the others are taken.
    #[test]
    fn wrong_items_are_told_together() {
        use ElementProblemKind::*;
        let cases = [
            (
                "Patient.name.family",
                NestedPath,
                "\"Patient.name.family\" is a path to a nested element; only root elements can be listed; list Patient.name",
            ),
            (
                "name.family",
                NestedPath,
                "\"name.family\" is a path to a nested element; only root elements can be listed; list name",
            ),
            (
                "a.b.c",
                NestedPath,
                "\"a.b.c\" is a path to a nested element; only root elements can be listed; list its root element",
            ),
            ("Pateint.name", UnknownType, "\"Pateint.name\" names no R4 resource type; did you mean Patient?"),
            (
                "Patient.birthdate",
                UnknownElement,
                "\"Patient.birthdate\" is no root element of R4; did you mean Patient.birthDate?",
            ),
            (
                "Observation.value[x]",
                UnknownElement,
                "\"Observation.value[x]\" is no root element of R4; did you mean Observation.value?",
            ),
            (
                "Patient",
                UnknownElement,
                "\"Patient\" is no root element of R4; name an element of it, such as Patient.id",
            ),
            (
                "Patient.",
                UnknownElement,
                "\"Patient.\" is no root element of R4; use names of FHIR R4, such as Patient.birthDate or id",
            ),
            (
                ".",
                UnknownType,
                "\".\" names no R4 resource type; use names of FHIR R4, such as Patient.birthDate or id",
            ),
            ("_birthDate", UnknownElement, "\"_birthDate\" is no root element of R4; did you mean birthDate?"),
            (
                "Patient.valueQuantity",
                UnknownElement,
                "\"Patient.valueQuantity\" is no root element of R4; use names of FHIR R4, such as Patient.birthDate or id",
            ),
        ];
        let items = cases.iter().map(|(item, ..)| *item).chain(["id"]);
        let (selection, problems) = ElementSelection::parse(items);
        assert_eq!(selection.to_string(), "id");
        assert_eq!(problems.len(), cases.len());
        for (problem, (item, kind, text)) in problems.iter().zip(cases) {
            assert_eq!((&*problem.item, problem.kind, &*problem.to_string()), (item, kind, text));
        }
    }
}
