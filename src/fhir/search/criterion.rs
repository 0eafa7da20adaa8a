//! One criterion of a search: a parameter with its modifier and the values of which one must match.

use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::decimal::Decimal;
use crate::fhir::search::parameter::{ElementPath, ParameterKind, SearchParameter};

/// Data types whose values name a system. Of the others `code` has one that it does not name, and R4 forbids to give one for a
/// ContactPoint, a URI or a truth value (R4 search, token).
const SYSTEM_TYPES: [&str; 3] = ["CodeableConcept", "Coding", "Identifier"];
/// Most values of one criterion.
const VALUES_MAX: usize = 1000;

/// How a value is compared, by the two letters before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Equal, by the precision of the value.
    Eq,
    /// Not equal.
    Ne,
    /// Greater.
    Gt,
    /// Less.
    Lt,
    /// Greater or equal.
    Ge,
    /// Less or equal.
    Le,
    /// Starts after the value.
    Sa,
    /// Ends before the value.
    Eb,
    /// About the same.
    Ap,
}

impl Comparison {
    /// Each with its prefix.
    const ALL: [(&'static str, Comparison); 9] = [
        ("eq", Comparison::Eq),
        ("ne", Comparison::Ne),
        ("gt", Comparison::Gt),
        ("lt", Comparison::Lt),
        ("ge", Comparison::Ge),
        ("le", Comparison::Le),
        ("sa", Comparison::Sa),
        ("eb", Comparison::Eb),
        ("ap", Comparison::Ap),
    ];

    /// The comparison that a value begins with, and the rest of it.
    fn split(text: &str) -> (Comparison, &str) {
        let found = Comparison::ALL.into_iter().find_map(|(prefix, of)| Some((of, text.strip_prefix(prefix)?)));
        found.unwrap_or((Comparison::Eq, text))
    }
}

/// What changes the meaning of a criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SearchModifier {
    /// None.
    None,
    /// `:missing`: whether there is no value.
    Missing(bool),
    /// `:not`: no value matches.
    Not,
    /// `:exact`: the whole text, with its case.
    Exact,
    /// `:contains`: a part of the text.
    Contains,
    /// A type: the reference is to a resource of it.
    Type(ResourceType),
}

/// A part of a token that a value must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenSystem {
    /// Any, or none.
    Any,
    /// None.
    Absent,
    /// This one.
    Named(String),
}

/// A number as a search gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NumberValue {
    /// How it is compared.
    pub comparison: Comparison,
    /// The number.
    pub number: Decimal,
    /// The numbers that equal it, to the one behind the last.
    pub range: (Decimal, Decimal),
}

/// What a resource's value is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SearchValue {
    /// A token; any code of the system if it has none.
    Token {
        /// Its system.
        system: TokenSystem,
        /// Its code.
        code: Option<String>,
    },
    /// A date.
    Date(Comparison, TimeSpan),
    /// A text.
    Text(String),
    /// A reference: an id, `Type/id`, or a URL.
    Reference(String),
    /// A number.
    Number(NumberValue),
    /// A number with a unit.
    Quantity {
        /// The number.
        number: NumberValue,
        /// The system of its unit.
        system: TokenSystem,
        /// The unit, or its code.
        unit: Option<String>,
    },
}

/// One criterion. A resource meets it if one of the values matches, but for what the modifier says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SearchCriterion {
    /// The parameter.
    pub parameter: SearchParameter,
    /// Its modifier.
    pub modifier: SearchModifier,
    /// The values.
    pub values: Vec<SearchValue>,
}

impl SearchCriterion {
    /// Reads a criterion; `modifier` is what stands behind the colon of its name, `value` is decoded.
    ///
    /// # Errors
    /// What is wrong, without a word of the value.
    pub(crate) fn parse(
        parameter: SearchParameter,
        modifier: Option<&str>,
        value: &str,
    ) -> Result<SearchCriterion, String> {
        let kind = parameter.kind;
        let modifier = match modifier {
            None => SearchModifier::None,
            Some("missing") => match value {
                "true" | "false" => SearchModifier::Missing(value == "true"),
                _ => return Err(":missing takes true or false".to_string()),
            },
            Some("not") if kind == ParameterKind::Token => SearchModifier::Not,
            Some("exact") if kind == ParameterKind::String => SearchModifier::Exact,
            Some("contains") if kind == ParameterKind::String => SearchModifier::Contains,
            Some(name) => match ResourceType::parse(name).filter(|_| kind == ParameterKind::Reference) {
                Some(resource_type) => SearchModifier::Type(resource_type),
                None => return Err(format!("the modifier :{} is not supported for it", shown(name))),
            },
        };
        if matches!(modifier, SearchModifier::Missing(_)) {
            return Ok(SearchCriterion { parameter, modifier, values: Vec::new() });
        }
        if has_stray_backslash(value) {
            return Err(
                r"a backslash in a value of it stands before none of , | $ and \; write two for one".to_string()
            );
        }
        let items = split_unescaped(value, ',');
        if items.len() > VALUES_MAX {
            return Err(format!("it has {} values; give at most {VALUES_MAX}", items.len()));
        }
        let items = items.into_iter().filter(|item| !item.is_empty());
        let values = items.map(|item| read_value(&parameter, modifier, item)).collect::<Result<Vec<_>, _>>()?;
        if values.is_empty() {
            return Err("it has no value".to_string());
        }
        Ok(SearchCriterion { parameter, modifier, values })
    }
}

/// A name as messages show it.
pub(crate) fn shown(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(40).collect()
}

/// Reads one value of a criterion.
fn read_value(parameter: &SearchParameter, modifier: SearchModifier, text: &str) -> Result<SearchValue, String> {
    Ok(match parameter.kind {
        ParameterKind::Token => {
            let (system, code) = read_token(text);
            let names_system = |path: &ElementPath| SYSTEM_TYPES.contains(&path.data_type);
            if !matches!(system, TokenSystem::Any) && !parameter.paths.iter().any(names_system) {
                return Err(
                    "its values name no system; give the code alone, with a backslash before a bar in it".to_string()
                );
            }
            if code.is_none() && !matches!(system, TokenSystem::Named(_)) {
                return Err("a value of it has neither a system nor a code".to_string());
            }
            SearchValue::Token { system, code }
        }
        ParameterKind::Date => {
            let (comparison, rest) = Comparison::split(text);
            // A raw plus sign of an offset may have become a space.
            let span = TimeSpan::parse(&unescape(rest).replace(' ', "+"));
            let form = "a value of it is no date such as 2024, 2024-05, 2024-05-01 or 2024-05-01T00:00:00Z, with or without one \
                        of the prefixes eq, ne, gt, lt, ge, le, sa, eb, ap";
            SearchValue::Date(comparison, span.ok_or(form)?)
        }
        ParameterKind::Number => SearchValue::Number(read_number(text)?),
        ParameterKind::Quantity => {
            let parts = split_unescaped(text, '|');
            let number = read_number(parts[0])?;
            let part = |i: usize| parts.get(i).map(|part| unescape(part)).filter(|part| !part.is_empty());
            if parts.len() > 3 || parts.len() == 2 {
                return Err("a value of it is not of the form number, number|system|code or number||code".to_string());
            }
            let system = part(1).map_or(TokenSystem::Any, TokenSystem::Named);
            SearchValue::Quantity { number, system, unit: part(2) }
        }
        ParameterKind::Reference => {
            let text = unescape(text);
            let is_plain_id = !text.contains(['/', ':']);
            if let SearchModifier::Type(resource_type) = modifier {
                match is_plain_id {
                    true => return Ok(SearchValue::Reference(format!("{resource_type}/{text}"))),
                    false => return Err(format!("with :{resource_type} a value of it is an id")),
                }
            }
            SearchValue::Reference(text)
        }
        ParameterKind::String | ParameterKind::Uri => SearchValue::Text(unescape(text)),
    })
}

/// Reads a number with its comparison.
fn read_number(text: &str) -> Result<NumberValue, String> {
    let (comparison, rest) = Comparison::split(text);
    let number = Decimal::parse(rest).ok_or(
        "a value of it is no number such as 5.4, with or without one of the prefixes eq, ne, gt, lt, ge, le, sa, eb, ap",
    )?;
    Ok(NumberValue { comparison, number, range: number.range(rest) })
}

/// Reads a token: `code`, `system|code`, `|code` or `system|`.
fn read_token(text: &str) -> (TokenSystem, Option<String>) {
    let parts = split_unescaped(text, '|');
    match parts[..] {
        [code] => (TokenSystem::Any, Some(unescape(code))),
        _ => {
            let code = &text[parts[0].len() + 1..];
            let system = match parts[0] {
                "" => TokenSystem::Absent,
                system => TokenSystem::Named(unescape(system)),
            };
            (system, Some(unescape(code)).filter(|code| !code.is_empty()))
        }
    }
}

/// The parts of a text between separators that no backslash escapes (R4 search, escaping); escapes stay in them.
pub(crate) fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == separator {
            parts.push(&text[start..at]);
            start = at + c.len_utf8();
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Whether a text has a backslash that escapes nothing, which R4 calls illegal (R4 search, escaping).
fn has_stray_backslash(text: &str) -> bool {
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\\' && !matches!(rest.next(), Some(',' | '|' | '$' | '\\')) {
            return true;
        }
    }
    false
}

/// A text without the backslashes that escape `,`, `|`, `$` and `\`.
fn unescape(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text.chars().peekable());
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('\\', Some(',' | '|' | '$' | '\\')) => out.extend(rest.next()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::search::parameter::find_parameter;

    fn read(of: &str, code: &str, modifier: Option<&str>, value: &str) -> Result<SearchCriterion, String> {
        SearchCriterion::parse(find_parameter(ResourceType::parse(of).unwrap(), code).unwrap(), modifier, value)
    }

    /// TFILTER-11: a separator behind a backslash is part of the value.
    #[test]
    fn escapes_are_honoured() {
        assert_eq!(split_unescaped(r"a\,b,c\\,d", ','), [r"a\,b", r"c\\", "d"]);
        assert_eq!(unescape(r"a\,b\|c\$d\\e\f"), r"a,b|c$d\e\f");
        let token = |system: &str, code: &str| SearchValue::Token {
            system: TokenSystem::Named(system.into()),
            code: Some(code.into()),
        };
        assert_eq!(read("Observation", "code", None, r"a\|b|c\,d|e").unwrap().values, [token("a|b", "c,d|e")]);
    }

    /// TFILTER-06, TFILTER-10: what a value must look like, told without the value.
    #[test]
    fn wrong_values_are_told() {
        for (of, code, modifier, value, part) in [
            ("Observation", "code", Some("in"), "SECRET", ":in is not supported"),
            ("Observation", "code", Some("text"), "SECRET", ":text is not supported"),
            ("Observation", "code", Some("missing"), "SECRET", "true or false"),
            ("Observation", "code", None, "|", "neither a system nor a code"),
            ("Observation", "code", None, ",", "no value"),
            ("Observation", "status", None, "http://s|SECRET", "give the code alone"),
            ("Patient", "telecom", None, "home|SECRET", "give the code alone"),
            ("Patient", "active", None, "http://s|SECRET", "give the code alone"),
            ("Patient", "deceased", None, "|true", "give the code alone"),
            ("Questionnaire", "version", None, "s|SECRET", "give the code alone"),
            ("Observation", "_id", None, "|SECRET", "give the code alone"),
            ("Observation", "code", None, r"SECRET\\,a,b\x", "write two for one"),
            ("Patient", "family", None, r"SECRET\", "write two for one"),
            ("Observation", "date", None, "SECRET", "no date"),
            ("Observation", "date", None, "ge2023-02-30", "no date"),
            ("Observation", "date", None, "xx2023-02-28", "no date"),
            ("Observation", "value-quantity", None, "5.4|mg", "number|system|code"),
            ("Observation", "value-quantity", None, "SECRET", "no number"),
            ("Observation", "subject", Some("Patient"), "Patient/SECRET", "is an id"),
            ("Observation", "subject", Some("identifier"), "SECRET", ":identifier is not supported"),
            ("Patient", "family", Some("not"), "SECRET", ":not is not supported"),
        ] {
            let wrong = read(of, code, modifier, value).unwrap_err();
            assert!(wrong.contains(part) && !wrong.contains("SECRET"), "{wrong}");
        }
    }
}
