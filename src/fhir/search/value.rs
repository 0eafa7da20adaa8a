//! The values that a parameter has in a resource (R4 search, types of parameters).
//!
//! What is made of an element does not depend on what is searched for, so that it can be made once and kept.

use serde_json::Value;

use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::decimal::Decimal;
use crate::fhir::search::parameter::{ElementPath, ParameterKind, PathStep, SearchParameter};

/// System of currencies, which a Money does not name (R4, Money).
const CURRENCIES: &str = "urn:iso:std:iso:4217";

/// One value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ParameterValue<'v> {
    /// A code with its system.
    Token {
        /// The system, if it names one.
        system: Option<&'v str>,
        /// The code, empty if it has none.
        code: &'v str,
        /// Whether it is of type `code`, whose system no value names.
        is_code: bool,
    },
    /// A span of time.
    Time(TimeSpan),
    /// A text, or a URI.
    Text(&'v str),
    /// A canonical URL, with a version behind a vertical line or without.
    Canonical(&'v str),
    /// The text of a Reference.
    Reference(&'v str),
    /// A number.
    Number(Decimal),
    /// Numbers with a unit.
    Quantity {
        /// The least of them; `None` for no end.
        low: Option<Decimal>,
        /// The greatest of them; `None` for no end.
        high: Option<Decimal>,
        /// System of the unit's code.
        system: Option<&'v str>,
        /// The unit's code.
        code: Option<&'v str>,
        /// The unit as it is read.
        unit: Option<&'v str>,
    },
}

impl<'v> ParameterValue<'v> {
    /// The part of a value that every search which names one has in common with it: the code of a token, the id or text of a
    /// reference, a URL without its version. `None` for values that are compared otherwise.
    pub(crate) fn key(&self) -> Option<&'v str> {
        match self {
            ParameterValue::Token { code, .. } => Some(code),
            ParameterValue::Reference(text) | ParameterValue::Canonical(text) | ParameterValue::Text(text) => {
                Some(url_key(text))
            }
            _ => None,
        }
    }
}

/// What a reference or URL has in common with all that it is the same as: the id that it is to, else its text without a
/// version.
pub(crate) fn url_key(text: &str) -> &str {
    let id_of = |text| Reference::parse(text).map(|found| found.id);
    let unversioned = without_version(text);
    id_of(text).or_else(|| id_of(unversioned)).unwrap_or(unversioned)
}

/// A canonical URL without a version.
pub(crate) fn without_version(text: &str) -> &str {
    text.split('|').next().unwrap_or(text)
}

/// What a parameter has in one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ParameterValues<'v> {
    /// Whether an element is there, be it one without a value that can be compared (`:missing`).
    pub is_present: bool,
    /// The values.
    pub values: Vec<ParameterValue<'v>>,
}

impl<'v> ParameterValues<'v> {
    /// The values of a parameter in a resource, of which `root` has at least the members that the parameter looks at.
    pub(crate) fn of(parameter: &SearchParameter, root: &'v Value) -> ParameterValues<'v> {
        let mut found = ParameterValues::default();
        let mut is_true = false;
        for path in &parameter.paths {
            for value in elements_at(root, path) {
                is_true |= *value != Value::Bool(false);
                found.is_present |= path.target.is_none_or(|of| names_type(value, of));
                found.add(parameter.kind, path, value);
            }
        }
        if parameter.paths.iter().any(|path| path.data_type == "presence") {
            let code = if is_true { "true" } else { "false" };
            found.values = vec![ParameterValue::Token { system: None, code, is_code: false }];
        }
        found
    }

    /// What a parameter has in a resource with one time.
    pub(crate) fn of_time(span: TimeSpan) -> ParameterValues<'v> {
        ParameterValues { is_present: true, values: vec![ParameterValue::Time(span)] }
    }

    /// Adds what an element at the end of a path has.
    fn add(&mut self, kind: ParameterKind, path: &ElementPath, value: &'v Value) {
        let text = || value.as_str();
        match kind {
            ParameterKind::Token => self.add_tokens(path.data_type, value),
            ParameterKind::Date => self.values.extend(time_of(path.data_type, value).map(ParameterValue::Time)),
            ParameterKind::String => {
                self.values.extend(texts(path.data_type, value).into_iter().map(ParameterValue::Text));
            }
            ParameterKind::Number if path.data_type == "Range" => self.values.extend(range(value)),
            ParameterKind::Number => self.values.extend(decimal(value).map(ParameterValue::Number)),
            ParameterKind::Quantity if path.data_type == "Range" => self.values.extend(range(value)),
            ParameterKind::Quantity => self.values.extend(quantity(path.data_type, value)),
            ParameterKind::Uri if path.data_type != "canonical" => self.values.extend(text().map(ParameterValue::Text)),
            ParameterKind::Reference if path.data_type == "Reference" => {
                let is_wanted = path.target.is_none_or(|of| names_type(value, of));
                let found = text_of(value, "reference").filter(|_| is_wanted);
                self.values.extend(found.map(ParameterValue::Reference));
            }
            ParameterKind::Uri | ParameterKind::Reference => self.values.extend(text().map(ParameterValue::Canonical)),
        }
    }

    /// Adds the tokens of an element: systems and codes.
    fn add_tokens(&mut self, data_type: &str, value: &'v Value) {
        let pair = |value: &'v Value, system: &str, code: &str| ParameterValue::Token {
            system: text_of(value, system),
            code: text_of(value, code).unwrap_or_default(),
            is_code: false,
        };
        let found = match data_type {
            // Compared without its case.
            "string" => return self.values.extend(value.as_str().map(ParameterValue::Text)),
            "CodeableConcept" => {
                let codings = value.get("coding").into_iter().flat_map(items);
                self.values.extend(codings.map(|coding| pair(coding, "system", "code")));
                return;
            }
            "Coding" => pair(value, "system", "code"),
            "Identifier" => pair(value, "system", "value"),
            _ => {
                let value =
                    if data_type == "ContactPoint" { value.get("value").unwrap_or(&Value::Null) } else { value };
                let code = match value {
                    Value::String(text) => text,
                    Value::Bool(true) => "true",
                    Value::Bool(false) => "false",
                    _ => return,
                };
                ParameterValue::Token { system: None, code, is_code: data_type == "code" }
            }
        };
        self.values.push(found);
    }
}

/// The items of a list, or the one value; nothing of `null`.
fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(all) => all.iter().flat_map(items).collect(),
        one => vec![one],
    }
}

/// The elements at the end of a path.
fn elements_at<'v>(root: &'v Value, path: &ElementPath) -> Vec<&'v Value> {
    let mut found = vec![root];
    for PathStep { name, condition } in &path.steps {
        found = found.into_iter().filter_map(|value| value.get(name)).flat_map(items).collect();
        if let Some((member, text)) = condition {
            found.retain(|value| value.get(member).and_then(Value::as_str) == Some(text));
        }
    }
    found
}

/// Whether a Reference is to a resource of a type, as far as it says.
fn names_type(value: &Value, of: ResourceType) -> bool {
    let found = text_of(value, "reference").and_then(Reference::parse);
    found.map_or_else(|| text_of(value, "type") == Some(of.name()), |found| found.resource_type == of)
}

/// A member that is a text.
fn text_of<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str)
}

/// The span of time that a value stands for.
fn time_of(data_type: &str, value: &Value) -> Option<TimeSpan> {
    match data_type {
        "Period" => {
            let end_of = |name: &str| match value.get(name) {
                None | Some(Value::Null) => Some(None),
                Some(found) => found.as_str().and_then(TimeSpan::parse).map(Some),
            };
            let (start, end) = (end_of("start")?, end_of("end")?);
            if start.is_none() && end.is_none() {
                return None;
            }
            let found = TimeSpan {
                start: start.map_or(TimeSpan::ALWAYS.start, |span| span.start),
                end: end.map_or(TimeSpan::ALWAYS.end, |span| span.end),
            };
            // One that ends before it begins is none.
            (found.start < found.end).then_some(found)
        }
        // Only the outer limits of a schedule count.
        "Timing" => {
            let events = value.get("event").into_iter().flat_map(items);
            let mut all: Vec<TimeSpan> = events.filter_map(Value::as_str).filter_map(TimeSpan::parse).collect();
            let bounds = value.get("repeat").and_then(|repeat| repeat.get("boundsPeriod"));
            all.extend(bounds.and_then(|bounds| time_of("Period", bounds)));
            let start = all.iter().map(|span| span.start).min()?;
            Some(TimeSpan { start, end: all.iter().map(|span| span.end).max()? })
        }
        "instant" => value.as_str().and_then(TimeSpan::parse).map(TimeSpan::instant),
        _ => value.as_str().and_then(TimeSpan::parse),
    }
}

/// The texts of a value that a string parameter looks at.
fn texts<'v>(data_type: &str, value: &'v Value) -> Vec<&'v str> {
    let members: &[&str] = match data_type {
        "HumanName" => &["text", "family", "given", "prefix", "suffix"],
        "Address" => &["text", "line", "city", "district", "state", "postalCode", "country"],
        _ => return value.as_str().into_iter().collect(),
    };
    let all = members.iter().filter_map(|name| value.get(name)).flat_map(items);
    all.filter_map(Value::as_str).collect()
}

/// A number of a document.
fn decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::Number(number) => Decimal::read(&number.to_string()),
        _ => None,
    }
}

/// The quantities from the low to the high one of a Range (R4 search, prefixes: the target is explicitly a range). Both are of one
/// unit, and a missing one is no end.
fn range(value: &Value) -> Option<ParameterValue<'_>> {
    let (low, high) = (value.get("low"), value.get("high"));
    let number = |of: Option<&Value>| of.and_then(|of| of.get("value")).and_then(decimal);
    let unit = |name: &str| [low, high].into_iter().flatten().find_map(|of| text_of(of, name));
    let (from, to) = (number(low), number(high));
    (from.is_some() || to.is_some()).then(|| ParameterValue::Quantity {
        low: from,
        high: to,
        system: unit("system"),
        code: unit("code"),
        unit: unit("unit"),
    })
}

/// The quantity of a value: its number, and the unit in each way that it may be named.
fn quantity<'v>(data_type: &str, value: &'v Value) -> Option<ParameterValue<'v>> {
    let found = value.get("value").and_then(decimal)?;
    let (system, code) = match data_type {
        "Money" => (Some(CURRENCIES), text_of(value, "currency")),
        _ => (text_of(value, "system"), text_of(value, "code")),
    };
    // `<5` stands for all that is less.
    let (low, high) = match text_of(value, "comparator") {
        Some("<" | "<=") => (None, Some(found)),
        Some(">" | ">=") => (Some(found), None),
        _ => (Some(found), Some(found)),
    };
    Some(ParameterValue::Quantity { low, high, system, code, unit: text_of(value, "unit") })
}
