//! Parses the search parameters of Groups into criteria, all of which a Group must meet (GROUP-01), and matches them.
//!
//! R4's rules (<https://hl7.org/fhir/R4/search.html>): a comma separates values of which one must match, a repeated
//! parameter adds a criterion, `\` escapes. Names are compared without regard to case, but accents count. Parameters on
//! content that is not held in memory (`characteristic`, `value`, `exclude`, text) are not supported.

use crate::fhir::base_url::BaseUrls;
use crate::fhir::id::Id;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::group::registry::search_facts::{SearchFacts, member_key};
use crate::group::rules::problem::RuleViolation;
use crate::issue::IssueCode;

/// The search parameters of a Group and their types, as a CapabilityStatement lists them.
pub(crate) const PARAMETERS: [(&str, &str); 8] = [
    ("_id", "token"),
    ("actual", "token"),
    ("code", "token"),
    ("identifier", "token"),
    ("managing-entity", "reference"),
    ("member", "reference"),
    ("name", "string"),
    ("type", "token"),
];

/// The system of `Group.type` (<https://hl7.org/fhir/R4/valueset-group-type.html>).
const TYPE_SYSTEM: &str = "http://hl7.org/fhir/group-type";

/// The criteria of a search; a Group must meet all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupQuery {
    criteria: Vec<Criterion>,
}

/// One parameter of a search; a Group meets it if any of the values matches.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Criterion {
    Id(Vec<String>),
    Name(Comparator, Vec<String>),
    Identifier(Vec<TokenCriterion>),
    Code(Vec<TokenCriterion>),
    Type(Vec<TokenCriterion>),
    Actual(Vec<String>),
    ManagingEntity(Vec<ReferenceCriterion>),
    Member(Vec<ReferenceCriterion>),
}

/// Comparison of a string parameter: by its start (the default), by a part of it, or exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparator {
    Starts,
    Contains,
    Exact,
}

/// A value of a token parameter; an empty system stands for no system.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TokenCriterion {
    Value(String),
    SystemAndValue(String, String),
    System(String),
}

impl TokenCriterion {
    /// Whether a system (empty if none) and value match.
    fn matches(&self, (system, value): (&str, &str)) -> bool {
        match self {
            TokenCriterion::Value(wanted) => wanted == value,
            TokenCriterion::SystemAndValue(of_system, wanted) => of_system == system && wanted == value,
            TokenCriterion::System(of_system) => of_system == system,
        }
    }
}

/// A value of a reference parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReferenceCriterion {
    /// Under a base that is ours, of one type or of any.
    Ours(Option<ResourceType>, Id),
    /// Under another base (without final slash), of one type.
    Foreign(String, ResourceType, Id),
    /// In no form that names a resource: compared as text.
    Text(String),
}

impl ReferenceCriterion {
    /// Reads a value; `only` is the type that the parameter's modifier names.
    fn parse(text: &str, only: Option<ResourceType>, bases: BaseUrls<'_>) -> ReferenceCriterion {
        match (Reference::parse(text), Id::parse(text.as_bytes())) {
            (Some(found), _) if bases.contains(found.base) => {
                ReferenceCriterion::Ours(Some(found.resource_type), found.id())
            }
            (Some(found), _) => ReferenceCriterion::Foreign(found.base.to_string(), found.resource_type, found.id()),
            (None, Some(id)) => ReferenceCriterion::Ours(only, id),
            (None, None) => ReferenceCriterion::Text(text.to_string()),
        }
    }

    /// Whether a reference in a Group matches; versions in it do not count.
    pub(crate) fn matches(&self, reference: &str, bases: BaseUrls<'_>) -> bool {
        match (self, Reference::parse(reference)) {
            (ReferenceCriterion::Ours(only, id), Some(found)) => {
                found.id == id.as_str()
                    && only.is_none_or(|only| only == found.resource_type)
                    && bases.contains(found.base)
            }
            (ReferenceCriterion::Foreign(base, only, id), Some(found)) => {
                found.base == base && found.resource_type == *only && found.id == id.as_str()
            }
            (ReferenceCriterion::Text(text), None) => text == reference,
            _ => false,
        }
    }

    /// Key of the member filter under which a matching member is found.
    fn key(&self) -> u64 {
        match self {
            ReferenceCriterion::Ours(_, id) | ReferenceCriterion::Foreign(_, _, id) => {
                crate::hash::xxh3_64(id.as_bytes())
            }
            ReferenceCriterion::Text(text) => member_key(text),
        }
    }
}

impl GroupQuery {
    /// Parses parameters (name and value, percent escapes resolved). A parameter that cannot be used adds a problem,
    /// whose expression is the parameter's name, and no criterion; the caller decides whether that is an error.
    pub(crate) fn parse(parameters: &[(String, String)], bases: &[String]) -> (GroupQuery, Vec<RuleViolation>) {
        let (mut query, mut problems) = (GroupQuery::default(), Vec::new());
        for (name, value) in parameters {
            match criterion(name, value, BaseUrls::new(bases)) {
                Ok(criterion) => query.criteria.push(criterion),
                Err((kind, text)) => problems.push(RuleViolation { kind, expression: Some(name.clone()), text }),
            }
        }
        (query, problems)
    }

    /// The legal ids that the first `_id` names; `None` without `_id`.
    pub(crate) fn ids(&self) -> Option<Vec<Id>> {
        let ids = self.criteria.iter().find_map(|criterion| match criterion {
            Criterion::Id(ids) => Some(ids),
            _ => None,
        })?;
        Some(ids.iter().filter_map(|id| Id::parse_r4(id.as_bytes())).collect())
    }

    /// The values of each `member` parameter.
    pub(crate) fn members(&self) -> Vec<&[ReferenceCriterion]> {
        let members = self.criteria.iter().filter_map(|criterion| match criterion {
            Criterion::Member(targets) => Some(targets.as_slice()),
            _ => None,
        });
        members.collect()
    }

    /// Whether a Group may meet every criterion, by its facts. Certain but for `member`, which only the Group's bytes
    /// decide.
    pub(crate) fn may_match(&self, id: &Id, facts: &SearchFacts, bases: BaseUrls<'_>) -> bool {
        let any = |tokens: &[TokenCriterion], pairs: &[(String, String)]| {
            pairs.iter().any(|(system, value)| tokens.iter().any(|token| token.matches((system, value))))
        };
        self.criteria.iter().all(|criterion| match criterion {
            Criterion::Id(ids) => ids.iter().any(|wanted| wanted == id.as_str()),
            Criterion::Name(comparator, texts) => facts.name.as_deref().is_some_and(|name| {
                texts.iter().any(|text| match comparator {
                    Comparator::Exact => name == text,
                    Comparator::Starts => name.to_lowercase().starts_with(&text.to_lowercase()),
                    Comparator::Contains => name.to_lowercase().contains(&text.to_lowercase()),
                })
            }),
            Criterion::Identifier(tokens) => any(tokens, &facts.identifiers),
            Criterion::Code(tokens) => any(tokens, &facts.codes),
            Criterion::Type(tokens) => {
                let code = facts.group_type.as_deref();
                code.is_some_and(|code| tokens.iter().any(|token| token.matches((TYPE_SYSTEM, code))))
            }
            Criterion::Actual(values) => {
                let actual = match facts.actual {
                    Some(true) => "true",
                    Some(false) => "false",
                    None => return false,
                };
                values.iter().any(|value| value == actual)
            }
            Criterion::ManagingEntity(targets) => {
                let reference = facts.managing_entity.as_deref();
                reference.is_some_and(|reference| targets.iter().any(|target| target.matches(reference, bases)))
            }
            Criterion::Member(targets) => targets.iter().any(|target| facts.members.may_contain(target.key())),
        })
    }
}

/// Parses one parameter.
///
/// # Errors
/// Kind and text of the problem if the parameter, its modifier or its value is not supported.
fn criterion(name: &str, value: &str, bases: BaseUrls<'_>) -> Result<Criterion, (IssueCode, String)> {
    let (stem, modifier) = name.split_once(':').map_or((name, None), |(stem, modifier)| (stem, Some(modifier)));
    let Some((_, kind)) = PARAMETERS.iter().find(|(known, _)| *known == stem) else {
        let known = PARAMETERS.map(|(known, _)| known).join(", ");
        let text = format!("{name} is no search parameter of Group here; give one of {known}");
        return Err((IssueCode::NotSupported, text));
    };
    let resource_type = modifier.and_then(ResourceType::parse);
    let comparator = match (*kind, modifier) {
        (_, None) => Comparator::Starts,
        ("string", Some("exact")) => Comparator::Exact,
        ("string", Some("contains")) => Comparator::Contains,
        ("reference", Some(_)) if resource_type.is_some() => Comparator::Starts,
        (_, Some(_)) => {
            let text = format!("{name}: this modifier is not supported here; give {stem} without it");
            return Err((IssueCode::NotSupported, text));
        }
    };
    let values = split(value, ',');
    if values.iter().any(|value| value.is_empty()) {
        return Err((IssueCode::Value, format!("{name} has an empty value; give one, or leave {name} away")));
    }
    let plain = || values.iter().map(|value| unescape(value)).collect::<Vec<_>>();
    let targets =
        || plain().iter().map(|value| ReferenceCriterion::parse(value, resource_type, bases)).collect::<Vec<_>>();
    let tokens = || {
        let wrong = || (IssueCode::Value, format!("{name} has a value that is no token; give value or system|value"));
        values.iter().map(|value| token(value).ok_or_else(wrong)).collect::<Result<Vec<_>, _>>()
    };
    Ok(match stem {
        "_id" => Criterion::Id(plain()),
        "name" => Criterion::Name(comparator, plain()),
        "identifier" => Criterion::Identifier(tokens()?),
        "code" => Criterion::Code(tokens()?),
        "type" => Criterion::Type(tokens()?),
        "managing-entity" => Criterion::ManagingEntity(targets()),
        "member" => Criterion::Member(targets()),
        _ => {
            if plain().iter().any(|value| !matches!(value.as_str(), "true" | "false")) {
                return Err((IssueCode::Value, format!("{name} has a value that is neither true nor false")));
            }
            Criterion::Actual(plain())
        }
    })
}

/// Parses a token: `value`, `system|value`, `|value` (no system) or `system|`; `None` for other forms.
fn token(text: &str) -> Option<TokenCriterion> {
    let parts: Vec<String> = split(text, '|').iter().map(|part| unescape(part)).collect();
    match parts.as_slice() {
        [value] => Some(TokenCriterion::Value(value.clone())),
        [system, value] if value.is_empty() => (!system.is_empty()).then(|| TokenCriterion::System(system.clone())),
        [system, value] => Some(TokenCriterion::SystemAndValue(system.clone(), value.clone())),
        _ => None,
    }
}

/// Cuts a value at each separator without a `\` before it; escapes stay.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        if character == separator && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = character == '\\' && !escaped;
        parts.last_mut().expect("there is one").push(character);
    }
    parts
}

/// Resolves the escapes `\,`, `\|`, `\$` and `\\`; any other backslash stays.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some(',' | '|' | '$' | '\\')) => plain.extend(characters.next()),
            _ => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<Criterion, (IssueCode, String)> {
        criterion(name, value, BaseUrls::new(&["https://us.example/fhir/".to_string()]))
    }

    #[test]
    fn tokens_and_their_escapes() {
        let text = |text: &str| text.to_string();
        for (value, expected) in [
            ("v", TokenCriterion::Value(text("v"))),
            ("s|v", TokenCriterion::SystemAndValue(text("s"), text("v"))),
            ("|v", TokenCriterion::SystemAndValue(text(""), text("v"))),
            ("s|", TokenCriterion::System(text("s"))),
            (r"a\|b", TokenCriterion::Value(text("a|b"))),
            (r"s|a\,b\\", TokenCriterion::SystemAndValue(text("s"), text(r"a,b\"))),
        ] {
            assert_eq!(one("identifier", value), Ok(Criterion::Identifier(vec![expected])), "{value}");
        }
        assert_eq!(
            one("identifier", "a,s|b"),
            Ok(Criterion::Identifier(vec![
                TokenCriterion::Value(text("a")),
                TokenCriterion::SystemAndValue(text("s"), text("b"))
            ]))
        );
        for wrong in ["", "|", "a|b|c", "a,"] {
            assert!(one("identifier", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn references_in_every_form() {
        let bases = ["https://us.example/fhir".to_string()];
        let bases = BaseUrls::new(&bases);
        let id = Id::parse(b"x").unwrap();
        let patient = ReferenceCriterion::Ours(Some(ResourceType::PATIENT), id);
        for (name, value, expected) in [
            ("member", "Patient/x", patient.clone()),
            ("member", "https://us.example/fhir/Patient/x", patient.clone()),
            ("member:Patient", "x", patient.clone()),
            ("member", "x", ReferenceCriterion::Ours(None, id)),
            (
                "member",
                "https://b.example/Patient/x",
                ReferenceCriterion::Foreign("https://b.example".into(), ResourceType::PATIENT, id),
            ),
            ("member", "urn:uuid:1", ReferenceCriterion::Text("urn:uuid:1".into())),
        ] {
            assert_eq!(one(name, value), Ok(Criterion::Member(vec![expected])), "{value}");
        }
        assert!(patient.matches("Patient/x/_history/3", bases));
        assert!(patient.matches("https://us.example/fhir/Patient/x", bases));
        assert!(!patient.matches("https://b.example/Patient/x", bases));
        assert!(!patient.matches("Practitioner/x", bases));
        assert!(ReferenceCriterion::Ours(None, id).matches("Practitioner/x", bases));
    }

    /// CORE-04: a problem names its parameter.
    #[test]
    fn what_cannot_be_used_is_told_by_name() {
        for (name, value) in [
            ("nonsense", "1"),
            ("_summary", "true"),
            ("name:missing", "true"),
            ("identifier:of-type", "a"),
            ("name", ""),
            ("actual", "yes"),
            ("_id:exact", "a"),
            ("member:Nonsense", "x"),
            ("characteristic", "a"),
        ] {
            let (query, problems) = GroupQuery::parse(&[(name.into(), value.into())], &[]);
            assert_eq!(query, GroupQuery::default());
            assert!(problems[0].text.contains(name) && problems[0].expression.as_deref() == Some(name), "{problems:?}");
        }
    }
}
