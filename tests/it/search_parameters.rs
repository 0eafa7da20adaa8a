//! The table of search parameters against the official definitions of FHIR R4: each expression is followed through the
//! elements of its type, and must give the paths of the table.

use crate::run::testdata;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// FHIR types that the values of a kind of parameter can have (R4, page "Search").
const TYPES: [(&str, &[&str]); 7] = [
    (
        "token",
        &[
            "code",
            "Coding",
            "CodeableConcept",
            "Identifier",
            "ContactPoint",
            "boolean",
            "string",
            "id",
            "uri",
            "markdown",
        ],
    ),
    ("date", &["date", "dateTime", "instant", "Period", "Timing"]),
    ("string", &["string", "HumanName", "Address", "markdown", "code", "id", "uri"]),
    ("quantity", &["Quantity", "Age", "Duration", "Money", "Count", "Distance", "Range"]),
    ("number", &["decimal", "integer", "positiveInt", "unsignedInt", "Range"]),
    ("uri", &["uri", "url", "canonical", "oid", "uuid"]),
    ("reference", &["Reference", "canonical", "uri"]),
];

/// Element paths and their types.
type Elements = BTreeMap<String, Vec<String>>;

/// A place in a resource: property names, the element or data type there, and the type that a reference must be to.
#[derive(Clone, Debug)]
struct Place {
    names: Vec<String>,
    of: String,
    target: Option<String>,
}

/// The places of a property below others; a choice has one for each of its types.
fn below(places: &[Place], elements: &Elements, name: &str) -> Vec<Place> {
    let mut found = Vec::new();
    for place in places {
        let plain = format!("{}.{name}", place.of);
        let choice = format!("{plain}[x]");
        let (path, types) = match (elements.get(&plain), elements.get(&choice)) {
            (Some(types), _) => (plain, types),
            (None, Some(types)) => (choice.clone(), types),
            (None, None) => continue,
        };
        for of in types {
            let mut names = place.names.clone();
            names.push(match path == choice {
                true => format!("{name}{}{}", of[..1].to_uppercase(), &of[1..]),
                false => name.to_string(),
            });
            let of = match &of[..] {
                "BackboneElement" | "Element" => path.clone(),
                // The type that R4 has for `id` alone.
                "System.String" => "id".to_string(),
                of => of.trim_start_matches('#').to_string(),
            };
            found.push(Place { names, of, target: place.target.clone() });
        }
    }
    found
}

/// The places that an expression without `|` leads to for a type; `None` if it is of no form that is followed.
fn places(expression: &str, base: &str, elements: &Elements) -> Option<Vec<Place>> {
    let expression = expression.trim();
    if let Some(inner) = expression.strip_prefix('(') {
        let (cast, rest) = inner.split_once(')')?;
        return follow(places(cast, base, elements)?, rest, elements);
    }
    if let Some((inner, of)) = expression.split_once(" as ") {
        return Some(places(inner, base, elements)?.into_iter().filter(|place| place.of == of).collect());
    }
    let (root, rest) = expression.split_at(expression.find('.').unwrap_or(expression.len()));
    if root != base && root != "Resource" && root != "DomainResource" {
        return Some(Vec::new());
    }
    follow(vec![Place { names: Vec::new(), of: base.to_string(), target: None }], rest, elements)
}

/// Follows what stands behind places: `.name`, `.where(…)`, `.as(Type)`.
fn follow(mut found: Vec<Place>, mut rest: &str, elements: &Elements) -> Option<Vec<Place>> {
    while let Some(step) = rest.strip_prefix('.') {
        if let Some(condition) = step.strip_prefix("where(resolve() is ") {
            let (target, after) = condition.split_once(')')?;
            found.iter_mut().for_each(|place| place.target = Some(target.to_string()));
            rest = after;
        } else if let Some(condition) = step.strip_prefix("where(") {
            let (condition, after) = condition.split_once(')')?;
            let (name, text) = condition.split_once("='")?;
            for place in &mut found {
                place.names.last_mut()?.push_str(&format!("{{{name}={}}}", text.strip_suffix('\'')?));
            }
            rest = after;
        } else if let Some(cast) = step.strip_prefix("as(") {
            let (of, after) = cast.split_once(')')?;
            found.retain(|place| place.of.eq_ignore_ascii_case(of));
            rest = after;
        } else {
            let end = step.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(step.len());
            found = below(&found, elements, &step[..end]);
            rest = &step[end..];
        }
    }
    rest.is_empty().then_some(found)
}

/// TFILTER-10: every parameter of R4 but composite and special ones is in the table, with the paths of its expression.
#[test]
fn the_table_follows_the_official_expressions() {
    let directory = testdata("fhir-r4");
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let mut elements = Elements::new();
    for row in read("elements.csv").lines().skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        elements.insert(cells[0].to_string(), cells[3].split('|').map(str::to_string).collect());
    }
    let all: Vec<String> = read("resource-types.txt").lines().map(str::to_string).collect();
    let mut expected: BTreeSet<String> = BTreeSet::new();
    let mut odd = BTreeSet::new();
    for line in read("search-parameters.ndjson").lines() {
        let parameter: serde_json::Value = serde_json::from_str(line).unwrap();
        let (code, kind) = (parameter["code"].as_str().unwrap(), parameter["type"].as_str().unwrap());
        let Some((_, types)) = TYPES.iter().find(|(name, _)| *name == kind) else { continue };
        let Some(expression) = parameter["expression"].as_str() else { continue };
        for base in parameter["base"].as_array().unwrap() {
            let (name, base) = match base.as_str().unwrap() {
                "Resource" => ("*", "Observation"),
                base => (base, base),
            };
            assert!(name == "*" || all.iter().any(|of| of == name), "{name}");
            let mut paths: Vec<String> = Vec::new();
            for part in expression.split(" | ") {
                let Some(found) = places(part, base, &elements) else {
                    odd.insert(format!("{name}?{code}"));
                    continue;
                };
                for place in found.into_iter().filter(|place| types.contains(&&place.of[..])) {
                    let target = place.target.map_or(String::new(), |target| format!(">{target}"));
                    let path = format!("{}:{}{target}", place.names.join("."), place.of);
                    if !paths.contains(&path) {
                        paths.push(path);
                    }
                }
            }
            match paths.is_empty() {
                true => drop(odd.insert(format!("{name}?{code}"))),
                false => drop(expected.insert(format!("{name},{code},{kind},{}", paths.join(" ")))),
            }
        }
    }
    // An expression without its type, a truth value that is made from an element, and resources in a Bundle.
    let by_hand = ["Bundle?composition", "Bundle?message", "InsurancePlan?name", "Patient?deceased"];
    assert_eq!(odd, by_hand.map(str::to_string).into());
    expected.insert("InsurancePlan,name,string,name:string alias:string".to_string());
    expected.insert("Patient,deceased,token,deceasedBoolean:presence deceasedDateTime:presence".to_string());
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fhir/search/parameters.csv");
    let table: BTreeSet<String> = std::fs::read_to_string(table).unwrap().lines().skip(1).map(str::to_string).collect();
    let difference: Vec<&String> = table.symmetric_difference(&expected).take(20).collect();
    assert!(difference.is_empty(), "{difference:#?}");
}
