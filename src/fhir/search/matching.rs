//! Whether a resource meets a filter (TFILTER-02, TFILTER-03, TFILTER-10).

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::fmt;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::fhir::base_url::BaseUrls;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::criterion::{
    Comparison, NumberValue, SearchCriterion, SearchModifier, SearchValue, TokenSystem,
};
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::decimal::Decimal;
use crate::fhir::search::parameter::{ElementPath, ParameterKind, PathStep};
use crate::fhir::search::type_filter::TypeFilter;

/// The filters of one type, of which a resource must meet one (TFILTER-03).
pub(crate) struct FilterSet<'a> {
    filters: Vec<PreparedFilter<'a>>,
    /// Members of the root that they look at.
    members: BTreeSet<&'static str>,
    /// Bases under which absolute references are ours.
    bases: BaseUrls<'a>,
    /// The moment of the export, for dates that are about the same.
    now: TimeSpan,
}

/// A filter as rows are compared with it.
struct PreparedFilter<'a> {
    criteria: Vec<PreparedCriterion<'a>>,
    /// Members of the root that it looks at.
    members: BTreeSet<&'static str>,
}

/// A criterion with what is made of its values once.
struct PreparedCriterion<'a> {
    criterion: &'a SearchCriterion,
    /// Texts of which a resource that meets it has one, if there are such.
    needles: Option<Vec<Finder<'static>>>,
    /// Codes of its tokens; a token of another code matches only a value without one.
    codes: HashSet<&'a str>,
    /// Whether a value takes every code of a system.
    takes_systems: bool,
    /// Its texts without their case.
    folded: Vec<String>,
}

impl<'a> PreparedCriterion<'a> {
    fn new(criterion: &'a SearchCriterion) -> PreparedCriterion<'a> {
        let code = |value: &'a SearchValue| match value {
            SearchValue::Token { code, .. } => code.as_deref(),
            _ => None,
        };
        let takes_system = |value: &SearchValue| matches!(value, SearchValue::Token { code: None, .. });
        let text = |value: &SearchValue| match value {
            SearchValue::Text(text) => fold(text),
            _ => String::new(),
        };
        PreparedCriterion {
            criterion,
            needles: needles_of(criterion),
            codes: criterion.values.iter().filter_map(code).collect(),
            takes_systems: criterion.values.iter().any(takes_system),
            folded: criterion.values.iter().map(text).collect(),
        }
    }
}

/// A resource that cannot be read for a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnreadableRow;

impl<'a> FilterSet<'a> {
    /// The filters for a type, if there are any.
    pub(crate) fn of(
        resource_type: ResourceType,
        filters: &'a [TypeFilter],
        bases: BaseUrls<'a>,
        now: TimeSpan,
    ) -> Option<FilterSet<'a>> {
        let prepared = |filter: &'a TypeFilter| {
            let paths = filter.criteria.iter().flat_map(|criterion| &criterion.parameter.paths);
            let members = paths.filter_map(|path| path.steps.first()).map(|step| step.name).collect();
            PreparedFilter { criteria: filter.criteria.iter().map(PreparedCriterion::new).collect(), members }
        };
        let own = filters.iter().filter(|filter| filter.resource_type == resource_type);
        let filters: Vec<PreparedFilter<'_>> = own.map(prepared).collect();
        let members = filters.iter().flat_map(|filter| &filter.members).copied().collect();
        (!filters.is_empty()).then_some(FilterSet { filters, members, bases, now })
    }

    /// Whether a line can meet one of the filters, by the texts that it has: in a line without a backslash every text stands as it
    /// is, so that one which lacks all texts of a criterion does not meet it. Most lines are ruled out so, and not parsed.
    fn may_be_met(&self, line: &[u8]) -> bool {
        let lacks = |needles: &Vec<Finder<'static>>| needles.iter().all(|needle| needle.find(line).is_none());
        let is_ruled_out =
            |filter: &PreparedFilter<'_>| filter.criteria.iter().any(|of| of.needles.as_ref().is_some_and(lacks));
        !self.filters.iter().all(is_ruled_out) || memchr::memchr(b'\\', line).is_some()
    }

    /// Whether a resource meets one of the filters.
    ///
    /// # Errors
    /// [`UnreadableRow`] if a member that decides is nested deeper than 128 levels.
    pub(crate) fn is_met(&self, line: &[u8]) -> Result<bool, UnreadableRow> {
        if self.may_be_met(line) { self.is_met_by_members(line) } else { Ok(false) }
    }

    /// As [`FilterSet::is_met`], by the members of every line: its slow twin.
    fn is_met_by_members(&self, line: &[u8]) -> Result<bool, UnreadableRow> {
        let meets = |filter: &PreparedFilter<'_>, root: &Value| filter.criteria.iter().all(|of| self.meets(root, of));
        if let Ok(root) = read_members(line, &self.members) {
            return Ok(self.filters.iter().any(|filter| meets(filter, &root)));
        }
        // A member is nested too deep: filters that do not look at it decide.
        let mut is_unreadable = false;
        for filter in &self.filters {
            match read_members(line, &filter.members) {
                Ok(root) if meets(filter, &root) => return Ok(true),
                Ok(_) => {}
                Err(_) => is_unreadable = true,
            }
        }
        if is_unreadable { Err(UnreadableRow) } else { Ok(false) }
    }

    /// Whether a resource meets a criterion.
    fn meets(&self, root: &Value, prepared: &PreparedCriterion<'_>) -> bool {
        let SearchCriterion { parameter, modifier, .. } = prepared.criterion;
        let matches = || self.has_match(root, prepared);
        match modifier {
            SearchModifier::Missing(is_missing) => {
                let is_of_path = |path: &ElementPath, value: &Value| path.target.is_none_or(|of| names_type(value, of));
                let has_value = parameter
                    .paths
                    .iter()
                    .any(|path| values_of(root, path).into_iter().any(|value| is_of_path(path, value)));
                has_value != *is_missing
            }
            SearchModifier::Not => !matches(),
            _ => matches(),
        }
    }

    /// Whether a value of a parameter matches one of a search. What is made of a resource's value is made once.
    fn has_match(&self, root: &Value, prepared: &PreparedCriterion<'_>) -> bool {
        let SearchCriterion { parameter, modifier, values } = prepared.criterion;
        if parameter.paths.iter().any(|path| path.data_type == "presence") {
            let is_present =
                |path: &ElementPath| values_of(root, path).iter().any(|value| **value != Value::Bool(false));
            let found = parameter.paths.iter().any(is_present);
            return matches_token(&(None, found.to_string()), prepared, false);
        }
        let of_path = |path: &ElementPath| {
            let found = values_of(root, path);
            found.into_iter().any(|value| self.matches_any(path, value, *modifier, prepared, values))
        };
        parameter.paths.iter().any(of_path)
    }

    /// Whether a value at the end of a path matches one of a search.
    fn matches_any(
        &self,
        path: &ElementPath,
        value: &Value,
        modifier: SearchModifier,
        prepared: &PreparedCriterion<'_>,
        values: &[SearchValue],
    ) -> bool {
        match prepared.criterion.parameter.kind {
            ParameterKind::Token => {
                let is_code = path.data_type == "code";
                tokens(path.data_type, value).iter().any(|token| matches_token(token, prepared, is_code))
            }
            ParameterKind::Date => time_of(path.data_type, value).is_some_and(|found| {
                let matches = |wanted: &SearchValue| {
                    matches!(wanted, SearchValue::Date(by, span) if matches_date(found, *by, *span, self.now))
                };
                values.iter().any(matches)
            }),
            ParameterKind::String => {
                texts(path.data_type, value).into_iter().any(|found| matches_text(found, modifier, prepared))
            }
            ParameterKind::Number => decimal(value).is_some_and(|found| {
                let matches = |wanted: &SearchValue| {
                    matches!(wanted, SearchValue::Number(number) if matches_number(Some(found), Some(found), number))
                };
                values.iter().any(matches)
            }),
            ParameterKind::Reference | ParameterKind::Quantity | ParameterKind::Uri => {
                values.iter().any(|wanted| match wanted {
                    SearchValue::Reference(text) => self.matches_reference(path, value, text),
                    SearchValue::Quantity { number, system, unit } => {
                        matches_quantity(path.data_type, value, number, system, unit.as_deref())
                    }
                    SearchValue::Text(text) if path.data_type == "canonical" => matches_canonical(value, text),
                    SearchValue::Text(text) => value.as_str() == Some(text),
                    _ => false,
                })
            }
        }
    }

    /// Whether a reference is to what a search names: by id, by type and id, or by URL; versions do not count.
    fn matches_reference(&self, path: &ElementPath, value: &Value, wanted: &str) -> bool {
        if path.data_type != "Reference" {
            return matches_canonical(value, wanted);
        }
        let Some(text) = value.get("reference").and_then(Value::as_str) else { return false };
        let found = Reference::parse(text);
        if let Some(target) = path.target
            && found.as_ref().is_none_or(|found| found.resource_type != target)
        {
            return false;
        }
        let Some(found) = found else { return text == wanted };
        let is_ours = |base: &str| self.bases.contains(base);
        match Reference::parse(wanted) {
            Some(wanted) => {
                let same_base = is_ours(found.base) && is_ours(wanted.base) || found.base == wanted.base;
                (found.resource_type, found.id) == (wanted.resource_type, wanted.id) && same_base
            }
            None => is_ours(found.base) && found.id == wanted,
        }
    }
}

/// Most texts of a criterion that lines are searched for.
const NEEDLES_MAX: usize = 16;

/// Texts of which a resource has one that meets a criterion; `None` if it may meet it without.
fn needles_of(criterion: &SearchCriterion) -> Option<Vec<Finder<'static>>> {
    let SearchCriterion { parameter, modifier, values } = criterion;
    let is_absence = matches!(modifier, SearchModifier::Not | SearchModifier::Missing(_));
    // Each is searched for in a line; of many the parser is faster.
    if is_absence || values.len() > NEEDLES_MAX || parameter.paths.iter().any(|path| path.data_type == "presence") {
        return None;
    }
    let needle = |value: &SearchValue| match (value, parameter.kind) {
        (SearchValue::Token { code: Some(code), .. }, _) => Some(code.clone()),
        (SearchValue::Reference(text), _) => {
            Some(Reference::parse(text).map_or_else(|| text.clone(), |found| found.id.to_string()))
        }
        (SearchValue::Text(text), ParameterKind::Uri) => Some(text.clone()),
        (SearchValue::Text(text), _) => Some(text.clone()).filter(|_| *modifier == SearchModifier::Exact),
        _ => None,
    };
    values.iter().map(|value| Some(Finder::new(needle(value)?.as_bytes()).into_owned())).collect()
}

/// Reads some members of the root of a document.
fn read_members(line: &[u8], members: &BTreeSet<&'static str>) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(line);
    MemberSeed(members).deserialize(&mut reader).map(Value::Object)
}

/// Reads some members of the root of a document; of several of one name the last counts.
struct MemberSeed<'a>(&'a BTreeSet<&'static str>);

/// A name, copied only where it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct BorrowedName<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for MemberSeed<'_> {
    type Value = Map<String, Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Map<String, Value>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MemberSeed<'_> {
    type Value = Map<String, Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a resource")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map<String, Value>, A::Error> {
        let mut members = Map::new();
        while let Some(BorrowedName(name)) = map.next_key::<BorrowedName<'de>>()? {
            match self.0.contains(&name[..]) {
                true => drop(members.insert(name.into_owned(), map.next_value()?)),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(members)
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

/// The values at the end of a path.
fn values_of<'v>(root: &'v Value, path: &ElementPath) -> Vec<&'v Value> {
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

/// The tokens of a value: systems and codes.
fn tokens(data_type: &str, value: &Value) -> Vec<(Option<String>, String)> {
    let pair = |value: &Value, system: &str, code: &str| {
        let owned = |text: &str| text.to_string();
        Some((text_of(value, system).map(owned), text_of(value, code).map_or_else(String::new, owned)))
    };
    let found = match data_type {
        "CodeableConcept" => {
            let codings = value.get("coding").into_iter().flat_map(items);
            return codings.filter_map(|coding| pair(coding, "system", "code")).collect();
        }
        "Coding" => pair(value, "system", "code"),
        "Identifier" => pair(value, "system", "value"),
        "ContactPoint" => pair(value, "use", "value"),
        _ => match value {
            Value::String(text) => Some((None, text.clone())),
            Value::Bool(truth) => Some((None, truth.to_string())),
            _ => None,
        },
    };
    found.into_iter().collect()
}

/// Whether a token is a wanted one. The system of `codes` is known to neither side.
fn matches_token((system, code): &(Option<String>, String), prepared: &PreparedCriterion<'_>, are_codes: bool) -> bool {
    if !prepared.takes_systems && !prepared.codes.contains(&code[..]) {
        return false;
    }
    prepared.criterion.values.iter().any(|wanted| {
        let SearchValue::Token { system: wanted_system, code: wanted_code } = wanted else { return false };
        let has_system = match wanted_system {
            TokenSystem::Any => true,
            TokenSystem::Absent => system.as_deref().is_none_or(str::is_empty) && !are_codes,
            TokenSystem::Named(wanted) => system.as_ref() == Some(wanted),
        };
        has_system && wanted_code.as_ref().is_none_or(|wanted| wanted == code)
    })
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
        _ => value.as_str().and_then(TimeSpan::parse),
    }
}

/// Whether a span of time compares so with a wanted one.
fn matches_date(found: TimeSpan, comparison: Comparison, wanted: TimeSpan, now: TimeSpan) -> bool {
    let (is_equal, ends_later, starts_earlier) =
        (wanted.contains(found), found.end > wanted.end, found.start < wanted.start);
    match comparison {
        Comparison::Eq => is_equal,
        Comparison::Ne => !is_equal,
        Comparison::Gt => ends_later,
        Comparison::Lt => starts_earlier,
        Comparison::Ge => ends_later || is_equal,
        Comparison::Le => starts_earlier || is_equal,
        Comparison::Sa => found.start >= wanted.end,
        Comparison::Eb => found.end <= wanted.start,
        // A tenth of the time between the date and now, to either side.
        Comparison::Ap => {
            wanted.widened(i128::try_from(now.start.abs_diff(wanted.start) / 10).unwrap_or(i128::MAX)).overlaps(found)
        }
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

/// A text without its case, character by character.
fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c }).collect()
}

/// Whether a text begins with a wanted one, has it somewhere, or is it; without `:exact` case does not count.
fn matches_text(found: &str, modifier: SearchModifier, prepared: &PreparedCriterion<'_>) -> bool {
    if modifier == SearchModifier::Exact {
        return prepared
            .criterion
            .values
            .iter()
            .any(|wanted| matches!(wanted, SearchValue::Text(text) if text == found));
    }
    let found = fold(found);
    prepared.folded.iter().any(|wanted| match modifier {
        SearchModifier::Contains => found.contains(wanted),
        _ => found.starts_with(wanted),
    })
}

/// Whether a canonical URL is the wanted one: of any version, if none is named.
fn matches_canonical(value: &Value, wanted: &str) -> bool {
    let Some(found) = value.as_str() else { return false };
    found == wanted || !wanted.contains('|') && found.split('|').next() == Some(wanted)
}

/// A number of a document.
fn decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::Number(number) => Decimal::read(&number.to_string()),
        _ => None,
    }
}

/// Whether the numbers from `low` to `high`, without end where there is none, compare so with a wanted one.
fn matches_number(low: Option<Decimal>, high: Option<Decimal>, wanted: &NumberValue) -> bool {
    let NumberValue { comparison, number, range } = wanted;
    let lies_in = |from: Decimal, to: Decimal| low.is_some_and(|low| low >= from) && high.is_some_and(|high| high < to);
    let is_equal = lies_in(range.0, range.1);
    let is_greater = high.is_none_or(|high| high > *number);
    let is_less = low.is_none_or(|low| low < *number);
    let is_same = low == Some(*number) && high == Some(*number);
    match comparison {
        Comparison::Eq => is_equal,
        Comparison::Ne => !is_equal,
        Comparison::Gt => is_greater,
        Comparison::Lt => is_less,
        Comparison::Ge => is_greater || is_same,
        Comparison::Le => is_less || is_same,
        Comparison::Sa => low.is_some_and(|low| low > *number),
        Comparison::Eb => high.is_some_and(|high| high < *number),
        Comparison::Ap => {
            let (from, to) = number.about();
            low.is_none_or(|low| low <= to) && high.is_none_or(|high| high >= from)
        }
    }
}

/// Whether a quantity compares so with a wanted one: its number, and system and code of its unit, or the unit as it is read.
fn matches_quantity(
    data_type: &str,
    value: &Value,
    number: &NumberValue,
    system: &TokenSystem,
    unit: Option<&str>,
) -> bool {
    let Some(found) = value.get("value").and_then(decimal) else { return false };
    let (own_system, own_code) = match data_type {
        "Money" => (Some("urn:iso:std:iso:4217"), text_of(value, "currency")),
        _ => (text_of(value, "system"), text_of(value, "code")),
    };
    let has_unit = match system {
        TokenSystem::Named(system) => own_system == Some(system) && unit.is_none_or(|unit| own_code == Some(unit)),
        _ => unit.is_none_or(|unit| own_code == Some(unit) || text_of(value, "unit") == Some(unit)),
    };
    // `<5` stands for all that is less.
    let (low, high) = match text_of(value, "comparator") {
        Some("<" | "<=") => (None, Some(found)),
        Some(">" | ">=") => (Some(found), None),
        _ => (Some(found), Some(found)),
    };
    has_unit && matches_number(low, high, number)
}

#[cfg(test)]
mod tests;
