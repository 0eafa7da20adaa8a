//! Whether values of a parameter meet a criterion (TFILTER-10).

use std::collections::HashSet;

use crate::fhir::base_url::BaseUrls;
use crate::fhir::reference::Reference;
use crate::fhir::search::base_letters::{base_letters, lower_case};
use crate::fhir::search::criterion::{
    Comparison, NumberValue, SearchCriterion, SearchModifier, SearchValue, TokenSystem,
};
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::decimal::Decimal;
use crate::fhir::search::parameter::{ParameterKind, SearchParameter};
use crate::fhir::search::value::{ParameterValue, ParameterValues, url_key, without_version};

/// What values are compared by beside a criterion.
#[derive(Clone, Copy)]
pub(crate) struct MatchContext<'a> {
    /// Bases under which absolute references are ours.
    pub bases: BaseUrls<'a>,
    /// The moment of the export, for dates that are about the same.
    pub now: TimeSpan,
}

/// A criterion with what is made of its values once.
pub(crate) struct PreparedCriterion<'a> {
    /// The criterion.
    pub criterion: &'a SearchCriterion,
    /// Keys of its values: a value of another key matches none ([`ParameterValue::key`]). `None` if keys do not decide.
    pub keys: Option<HashSet<&'a str>>,
    /// Its texts without case and accents, or codes that are texts without their case.
    folded: Vec<String>,
}

impl<'a> PreparedCriterion<'a> {
    /// Prepares a criterion.
    pub(crate) fn new(criterion: &'a SearchCriterion) -> PreparedCriterion<'a> {
        let text = |value: &SearchValue| match value {
            SearchValue::Text(text) => base_letters(text),
            SearchValue::Token { code: Some(code), .. } => lower_case(code),
            _ => String::new(),
        };
        let key = |value| key_of(criterion.parameter.kind, value).filter(|_| !has_texts_as_tokens(criterion));
        PreparedCriterion {
            criterion,
            keys: criterion.values.iter().map(key).collect(),
            folded: criterion.values.iter().map(text).collect(),
        }
    }

    /// Whether a resource with these values of the parameter meets the criterion.
    pub(crate) fn is_met_by(&self, found: &ParameterValues<'_>, context: MatchContext<'_>) -> bool {
        let has_match = || found.values.iter().any(|value| self.matches(value, context));
        match self.criterion.modifier {
            SearchModifier::Missing(is_missing) => found.is_present != is_missing,
            SearchModifier::Not => !has_match(),
            _ => has_match(),
        }
    }

    /// Whether a value matches one of the criterion.
    pub(crate) fn matches(&self, found: &ParameterValue<'_>, context: MatchContext<'_>) -> bool {
        if let (Some(keys), Some(key)) = (&self.keys, found.key())
            && !keys.contains(key)
        {
            return false;
        }
        let mut wanted = self.criterion.values.iter();
        match found {
            ParameterValue::Token { .. } => wanted.any(|wanted| matches_token(found, wanted)),
            ParameterValue::Time(span) => wanted.any(|wanted| {
                matches!(wanted, SearchValue::Date(by, wanted) if matches_date(*span, *by, *wanted, context.now))
            }),
            ParameterValue::Text(text) => match self.criterion.parameter.kind {
                ParameterKind::String => self.matches_text(text),
                ParameterKind::Token => self.folded.contains(&lower_case(text)),
                _ => wanted.any(|wanted| matches!(wanted, SearchValue::Text(own) if own == text)),
            },
            ParameterValue::Canonical(url) => wanted.any(|wanted| match wanted {
                SearchValue::Text(wanted) | SearchValue::Reference(wanted) => matches_canonical(url, wanted),
                _ => false,
            }),
            ParameterValue::Reference(text) => wanted.any(|wanted| {
                matches!(wanted, SearchValue::Reference(wanted) if matches_reference(text, wanted, context.bases))
            }),
            ParameterValue::Number(number) => wanted.any(|wanted| {
                matches!(wanted, SearchValue::Number(own) if matches_number(Some(*number), Some(*number), own))
            }),
            ParameterValue::Quantity { .. } => wanted.any(|wanted| matches_quantity(found, wanted)),
        }
    }

    /// Whether a text begins with a wanted one, has it somewhere, or is it; without `:exact` case and accents do not count.
    fn matches_text(&self, found: &str) -> bool {
        let SearchCriterion { modifier, values, .. } = self.criterion;
        if *modifier == SearchModifier::Exact {
            return values.iter().any(|wanted| matches!(wanted, SearchValue::Text(text) if text == found));
        }
        let found = base_letters(found);
        self.folded.iter().any(|wanted| match modifier {
            SearchModifier::Contains => found.contains(wanted),
            _ => found.starts_with(wanted),
        })
    }
}

/// Whether the tokens of a parameter are texts, whose case does not count (R4 search, token).
fn has_texts_as_tokens(criterion: &SearchCriterion) -> bool {
    let SearchParameter { kind, paths, .. } = &criterion.parameter;
    *kind == ParameterKind::Token && paths.iter().any(|path| path.data_type == "string")
}

/// The key that a value must have which matches a wanted one; `None` if values of several keys do.
fn key_of(kind: ParameterKind, wanted: &SearchValue) -> Option<&str> {
    match wanted {
        SearchValue::Token { code, .. } => code.as_deref(),
        SearchValue::Reference(text) => Some(url_key(text)),
        SearchValue::Text(text) => Some(url_key(text)).filter(|_| kind == ParameterKind::Uri),
        _ => None,
    }
}

/// Whether a token is a wanted one. The system of a `code` is known to neither side.
fn matches_token(found: &ParameterValue<'_>, wanted: &SearchValue) -> bool {
    let ParameterValue::Token { system, code, is_code } = found else { return false };
    let SearchValue::Token { system: wanted_system, code: wanted_code } = wanted else { return false };
    let has_system = match wanted_system {
        TokenSystem::Any => true,
        TokenSystem::Absent => system.is_none_or(str::is_empty) && !is_code,
        TokenSystem::Named(wanted) => *system == Some(wanted),
    };
    has_system && wanted_code.as_ref().is_none_or(|wanted| wanted == code)
}

/// Whether a reference is to what a search names: by id, by type and id, or by URL; versions do not count.
fn matches_reference(text: &str, wanted: &str, bases: BaseUrls<'_>) -> bool {
    let Some(found) = Reference::parse(text) else { return text == wanted };
    let is_ours = |base: &str| bases.contains(base);
    match Reference::parse(wanted) {
        Some(wanted) => {
            let same_base = is_ours(found.base) && is_ours(wanted.base) || found.base == wanted.base;
            (found.resource_type, found.id) == (wanted.resource_type, wanted.id) && same_base
        }
        None => is_ours(found.base) && found.id == wanted,
    }
}

/// Whether a span of time compares so with a wanted one.
pub(crate) fn matches_date(found: TimeSpan, comparison: Comparison, wanted: TimeSpan, now: TimeSpan) -> bool {
    let (is_equal, ends_later, starts_earlier) =
        (wanted.contains(found), found.end > wanted.end, found.start < wanted.start);
    match comparison {
        Comparison::Eq => is_equal,
        Comparison::Ne => !is_equal,
        Comparison::Gt => ends_later,
        Comparison::Lt => starts_earlier,
        // The range above a value is "the specified value and up", and that below it ends with the value.
        Comparison::Ge => found.end > wanted.start,
        Comparison::Le => found.start < wanted.end,
        Comparison::Sa => found.start >= wanted.end,
        Comparison::Eb => found.end <= wanted.start,
        // A tenth of the time between the date and now, to either side.
        Comparison::Ap => {
            wanted.widened(i128::try_from(now.start.abs_diff(wanted.start) / 10).unwrap_or(i128::MAX)).overlaps(found)
        }
    }
}

/// Whether a canonical URL is the wanted one: of any version, if none is named.
fn matches_canonical(found: &str, wanted: &str) -> bool {
    found == wanted || !wanted.contains('|') && without_version(found) == wanted
}

/// Whether the numbers from `low` to `high`, without end where there is none, compare so with a wanted one.
fn matches_number(low: Option<Decimal>, high: Option<Decimal>, wanted: &NumberValue) -> bool {
    let NumberValue { comparison, number, range } = wanted;
    let lies_in = |from: Decimal, to: Decimal| low.is_some_and(|low| low >= from) && high.is_some_and(|high| high < to);
    let is_equal = lies_in(range.0, range.1);
    let is_greater = high.is_none_or(|high| high > *number);
    let is_less = low.is_none_or(|low| low < *number);
    // The ends of a Range belong to it; the one end that a comparator leaves may not.
    let reaches = |end: Option<Decimal>, other: Option<Decimal>| end == Some(*number) && other.is_some();
    match comparison {
        Comparison::Eq => is_equal,
        Comparison::Ne => !is_equal,
        Comparison::Gt => is_greater,
        Comparison::Lt => is_less,
        Comparison::Ge => is_greater || reaches(high, low),
        Comparison::Le => is_less || reaches(low, high),
        Comparison::Sa => low.is_some_and(|low| low > *number),
        Comparison::Eb => high.is_some_and(|high| high < *number),
        Comparison::Ap => {
            let (from, to) = number.about();
            low.is_none_or(|low| low <= to) && high.is_none_or(|high| high >= from)
        }
    }
}

/// Whether a quantity compares so with a wanted one: its number, and system and code of its unit, or the unit as it is read.
fn matches_quantity(found: &ParameterValue<'_>, wanted: &SearchValue) -> bool {
    let ParameterValue::Quantity { low, high, system, code, unit } = found else { return false };
    if let SearchValue::Number(number) = wanted {
        return matches_number(*low, *high, number);
    }
    let SearchValue::Quantity { number, system: wanted_system, unit: wanted } = wanted else { return false };
    let wanted = wanted.as_deref();
    let has_unit = match wanted_system {
        TokenSystem::Named(wanted_system) => {
            *system == Some(wanted_system) && wanted.is_none_or(|wanted| *code == Some(wanted))
        }
        _ => wanted.is_none_or(|wanted| *code == Some(wanted) || *unit == Some(wanted)),
    };
    has_unit && matches_number(*low, *high, number)
}
