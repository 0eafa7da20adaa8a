//! The body of a kick-off by POST: a `Parameters` resource (KICK-05, <https://hl7.org/fhir/R4/parameters.html>), read into
//! the parameters that a query would give. What a parameter means is not known here.

use crate::codec::byte_order_mark::without_mark;
use crate::issue::IssueCode;
use crate::limits::{KICKOFF_PROBLEMS_MAX, SHOWN_CHARS_MAX};
use crate::server::error::OutcomeIssue;
use crate::server::kick_off::request::{GivenParameter, ParameterSource};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The types of values that some parameter takes (PARAM-05), as elements of `Parameters.parameter`.
const VALUE_TYPES: [&str; 7] =
    ["valueBoolean", "valueCode", "valueCoding", "valueDateTime", "valueInstant", "valueReference", "valueString"];

/// Name of the type of any other value.
const OTHER_TYPE: &str = "this type of value";

/// Most entries of a body: each takes more memory than it has bytes.
const ENTRIES_MAX: usize = 250_000;

/// Reads the parameters of a body. Each entry is judged as it is read, so that a body takes little more memory than its
/// parameters do.
///
/// # Errors
/// All problems, at most [`KICKOFF_PROBLEMS_MAX`]: text that is no JSON, JSON that is no `Parameters` (KICK-06), and
/// parameters without a name or without one value.
pub(crate) fn read_body_parameters(body: &[u8]) -> Result<Vec<GivenParameter>, Vec<OutcomeIssue>> {
    let structure = |text: String| OutcomeIssue::error(IssueCode::Structure, text);
    let document: ParametersDocument = serde_json::from_slice(without_mark(body)).map_err(|error| {
        // The text of the error may repeat what it is about.
        let what = if error.is_data() { "no Parameters resource as R4 has it" } else { "no JSON" };
        vec![structure(format!("the body is {what} at line {}, column {}", error.line(), error.column()))]
    })?;
    if document.resource_type.as_deref() != Some("Parameters") {
        let text = "the body is no Parameters resource: its resourceType must be Parameters";
        return Err(vec![structure(text.to_string()).at("Parameters.resourceType")]);
    }
    let ParametersDocument { entries: ReadEntries { given, mut problems, count }, others, .. } = document;
    if count > ENTRIES_MAX {
        let text = format!("Parameters.parameter has {count} entries, more than {ENTRIES_MAX}; ask for less at a time");
        problems.insert(0, structure(text).at("Parameters.parameter"));
    }
    for name in &others {
        let text = format!("{name} is no element that the Parameters of a kick-off may have");
        problems.push(structure(text).at("Parameters"));
    }
    problems.truncate(KICKOFF_PROBLEMS_MAX);
    if problems.is_empty() { Ok(given) } else { Err(problems) }
}

/// The parameters of the entries that were read, and what is wrong with the others.
#[derive(Default)]
struct ReadEntries {
    given: Vec<GivenParameter>,
    problems: Vec<OutcomeIssue>,
    count: usize,
}

impl ReadEntries {
    /// Judges the next entry.
    fn add(&mut self, entry: ParametersEntry) {
        let i = self.count;
        self.count += 1;
        if self.problems.len() == KICKOFF_PROBLEMS_MAX || i >= ENTRIES_MAX {
            return;
        }
        let ParametersEntry { name, value, more_values, other } = entry;
        let mut problem = |text: String| {
            let issue = OutcomeIssue::error(IssueCode::Structure, text);
            self.problems.push(issue.at(format!("Parameters.parameter[{i}]")));
        };
        let Some(name) = name else { return problem(format!("Parameters.parameter[{i}] has no name")) };
        let shown = shorten(&name);
        if let Some(other) = &other {
            problem(format!("{shown}: {other} is not taken; give a value"));
        }
        match value {
            _ if more_values => problem(format!("{shown}: it has more than one value; repeat the parameter")),
            None if other.is_none() => problem(format!("{shown}: it has no value")),
            None => {}
            Some((value_type, value)) => match text_of(value_type, value) {
                Ok(value) => self.given.push(GivenParameter { name, value, source: ParameterSource::Body(value_type) }),
                Err(what) => problem(format!("{shown}: the value of {value_type} {what}")),
            },
        }
    }
}

/// The text of a value as a query would have it; none for a type that no parameter takes.
///
/// # Errors
/// The predicate of a sentence about a value that is not of its type.
fn text_of(value_type: &'static str, value: EntryValue) -> Result<String, &'static str> {
    match (value_type, value) {
        (OTHER_TYPE, _) => Ok(String::new()),
        ("valueBoolean", EntryValue::Bool(truth)) => Ok(truth.to_string()),
        ("valueBoolean", _) => Err("is neither true nor false"),
        ("valueCoding", EntryValue::Object { code, .. }) => code.ok_or("has no code"),
        ("valueCoding", _) => Err("has no code"),
        ("valueReference", EntryValue::Object { reference, .. }) => reference.ok_or("has no reference"),
        ("valueReference", _) => Err("has no reference"),
        (_, EntryValue::Text(text)) => Ok(text),
        _ => Err("is no string"),
    }
}

/// The beginning of a client's text, escaped, at most [`SHOWN_CHARS_MAX`] characters, for a message.
fn shorten(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).take(SHOWN_CHARS_MAX).collect()
}

/// The resource.
#[derive(Default)]
struct ParametersDocument {
    resource_type: Option<String>,
    entries: ReadEntries,
    /// Names of elements that decide something unknown, or that `Parameters` does not have; the first few.
    others: Vec<String>,
}

/// One entry of `Parameters.parameter`.
#[derive(Default)]
struct ParametersEntry {
    name: Option<String>,
    /// The type of the value, and the value.
    value: Option<(&'static str, EntryValue)>,
    more_values: bool,
    /// Name of an element that is not taken.
    other: Option<String>,
}

/// What a value of an entry says, as far as some parameter takes it.
enum EntryValue {
    Text(String),
    Bool(bool),
    Object {
        code: Option<String>,
        reference: Option<String>,
    },
    /// A number, an array or null.
    Other,
}

impl<'de> Deserialize<'de> for ParametersDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ParametersDocument, D::Error> {
        struct DocumentVisitor;

        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = ParametersDocument;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a Parameters resource")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParametersDocument, A::Error> {
                let mut document = ParametersDocument::default();
                let mut has_entries = false;
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "resourceType" if document.resource_type.is_none() => {
                            document.resource_type = Some(map.next_value()?);
                        }
                        "parameter" if !has_entries => {
                            has_entries = true;
                            document.entries = map.next_value()?;
                        }
                        "resourceType" | "parameter" => return Err(A::Error::custom("an element stands twice")),
                        // They change nothing of what is asked for.
                        "id" | "meta" | "language" => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            if document.others.len() < KICKOFF_PROBLEMS_MAX {
                                document.others.push(shorten(&name));
                            }
                        }
                    }
                }
                Ok(document)
            }
        }

        deserializer.deserialize_map(DocumentVisitor)
    }
}

impl<'de> Deserialize<'de> for ReadEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ReadEntries, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = ReadEntries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("parameters")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ReadEntries, A::Error> {
                let mut read = ReadEntries::default();
                while let Some(entry) = seq.next_element()? {
                    read.add(entry);
                }
                Ok(read)
            }
        }

        deserializer.deserialize_seq(EntriesVisitor)
    }
}

impl<'de> Deserialize<'de> for ParametersEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ParametersEntry, D::Error> {
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = ParametersEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a parameter")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParametersEntry, A::Error> {
                let mut entry = ParametersEntry::default();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "name" if entry.name.is_none() => entry.name = Some(map.next_value()?),
                        "name" => return Err(A::Error::custom("an element stands twice")),
                        "id" | "extension" => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        _ if name.starts_with("value") && name.len() > "value".len() => {
                            let known = VALUE_TYPES.into_iter().find(|known| *known == name).unwrap_or(OTHER_TYPE);
                            entry.more_values |= entry.value.is_some();
                            entry.value = Some((known, map.next_value()?));
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            entry.other = Some(shorten(&name));
                        }
                    }
                }
                Ok(entry)
            }
        }

        deserializer.deserialize_map(EntryVisitor)
    }
}

impl<'de> Deserialize<'de> for EntryValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EntryValue, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = EntryValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E: Error>(self, truth: bool) -> Result<EntryValue, E> {
                Ok(EntryValue::Bool(truth))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<EntryValue, E> {
                Ok(EntryValue::Text(text.to_string()))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<EntryValue, E> {
                Ok(EntryValue::Other)
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<EntryValue, E> {
                Ok(EntryValue::Other)
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<EntryValue, E> {
                Ok(EntryValue::Other)
            }

            fn visit_unit<E: Error>(self) -> Result<EntryValue, E> {
                Ok(EntryValue::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<EntryValue, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(EntryValue::Other)
            }

            /// An object, or a number as serde_json hands on one of any precision.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EntryValue, A::Error> {
                let (mut code, mut reference) = (None, None);
                while let Some(name) = map.next_key::<String>()? {
                    let member = match name.as_str() {
                        "code" => &mut code,
                        "reference" => &mut reference,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    if member.is_some() {
                        return Err(A::Error::custom("an element stands twice"));
                    }
                    *member = match map.next_value()? {
                        EntryValue::Text(text) => Some(text),
                        _ => None,
                    };
                }
                Ok(EntryValue::Object { code, reference })
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str) -> Result<Vec<(String, String, &'static str)>, Vec<String>> {
        let plain = |given: GivenParameter| match given.source {
            ParameterSource::Body(value_type) => (given.name, given.value, value_type),
            ParameterSource::Query => panic!("it came in a body"),
        };
        match read_body_parameters(body.as_bytes()) {
            Ok(given) => Ok(given.into_iter().map(plain).collect()),
            Err(problems) => Err(problems.into_iter().map(|problem| problem.diagnostics).collect()),
        }
    }

    /// KICK-05, PARAM-05: names and values of every type, in any order; an empty array and none at all are valid.
    #[test]
    fn parameters_are_read() {
        for body in [
            r#"{"resourceType":"Parameters"}"#,
            r#" {"parameter":[],"resourceType":"Parameters","id":"x","meta":{"profile":["y"]}} "#,
            "\u{feff}{\"resourceType\":\"Parameters\",\"parameter\":[]}",
        ] {
            assert_eq!(read(body), Ok(vec![]), "{body}");
        }
        let body = r#"{"resourceType":"Parameters","parameter":[
            {"name":"_since","valueInstant":"2024-01-01T00:00:00Z"},{"valueString":"Patient,Group","name":"_type","id":"z"},
            {"name":"patient","valueReference":{"display":"D","reference":"Patient/a"}},{"name":"x","valueBoolean":true},
            {"name":"n","valuePositiveInt":12},{"name":"c","valueCoding":{"system":"s","code":"k"}},{"name":"u","valueUrl":"v"}]}"#;
        let expected = [
            ("_since", "2024-01-01T00:00:00Z", "valueInstant"),
            ("_type", "Patient,Group", "valueString"),
            ("patient", "Patient/a", "valueReference"),
            ("x", "true", "valueBoolean"),
            ("n", "", OTHER_TYPE),
            ("c", "k", "valueCoding"),
            ("u", "", OTHER_TYPE),
        ];
        assert_eq!(read(body), Ok(expected.map(|(n, v, t)| (n.to_string(), v.to_string(), t)).to_vec()));
    }

    /// KICK-06: what is no `Parameters` is told by place, without its content; wrong entries all at once.
    #[test]
    fn wrong_bodies_are_told() {
        for (body, word) in [
            ("", "no JSON"),
            ("{", "no JSON"),
            ("[]", "no Parameters"),
            ("3", "no Parameters"),
            ("{}", "resourceType"),
            (r#"{"resourceType":"Patient"}"#, "resourceType"),
            (r#"{"resourceType":"Parameters","parameter":{}}"#, "no Parameters"),
            (r#"{"resourceType":"Parameters","parameter":["secret"]}"#, "no Parameters"),
            (r#"{"resourceType":"Parameters","resourceType":"Parameters"}"#, "no Parameters"),
            (
                r#"{"resourceType":"Parameters","parameter":[{"name":"a","name":"b","valueString":"c"}]}"#,
                "no Parameters",
            ),
            (r#"{"resourceType":"Parameters","implicitRules":"http://x"}"#, "implicitRules"),
            (r#"{"resourceType":"Parameters"} x"#, "no JSON"),
            (r#"{"resourceType":"Parameters","parameter":[{"name":"\ud800","valueString":"c"}]}"#, "no JSON"),
        ] {
            let problems = read(body).unwrap_err();
            assert!(problems.len() == 1 && problems[0].contains(word), "{body}: {problems:?}");
            assert!(!problems[0].contains("secret"));
        }
        let body = r#"{"resourceType":"Parameters","parameter":[{"valueString":"a"},{"name":"b"},{"name":"c","part":[]},
            {"name":"d","valueString":"1","valueCode":"2"},{"name":"e","valueString":5},{"name":"f","valueReference":{}}]}"#;
        assert_eq!(read(body).unwrap_err().len(), 6);
        let many =
            format!(r#"{{"resourceType":"Parameters","parameter":[{}]}}"#, vec![r#"{"name":"a"}"#; 500].join(","));
        assert_eq!(read(&many).unwrap_err().len(), KICKOFF_PROBLEMS_MAX);
    }

    proptest! {
        /// No body is a panic.
        #[test]
        fn any_body_is_read(cut in 0usize..200, with in "[\\[\\]{}:,\" \\\\a1tn\u{e9}]{0,6}") {
            let mut text = r#"{"resourceType":"Parameters","parameter":[{"name":"_since","valueInstant":"2024-01-01T00:00:00Z"},{"name":"patient","valueReference":{"reference":"Patient/a"}}]}"#.as_bytes().to_vec();
            let cut = cut.min(text.len());
            text.splice(cut..(cut + with.len()).min(text.len()), with.bytes());
            read_body_parameters(&text).ok();
        }
    }
}
