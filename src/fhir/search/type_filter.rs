//! A filter of `_typeFilter`: a search over one resource type, `Type?parameter=value&…` (TFILTER-01 to TFILTER-11).

use std::fmt;

use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::criterion::{SearchCriterion, shown, split_unescaped};
use crate::fhir::search::parameter::find_parameter;

/// Most bytes of a filter.
const FILTER_BYTES_MAX: usize = 64 << 10;
/// More bytes than the name of any type has.
const NAME_BYTES_MAX: usize = 64;
/// Most criteria of a filter.
const CRITERIA_MAX: usize = 100;
/// Parameters that say what a search returns, and how (TFILTER-04).
const RESULT_PARAMETERS: [&str; 12] = [
    "_sort",
    "_include",
    "_revinclude",
    "_elements",
    "_count",
    "_summary",
    "_total",
    "_contained",
    "_containedType",
    "_score",
    "_format",
    "_offset",
];

/// A search over one type. A resource meets it if it meets every criterion.
#[derive(Clone)]
pub(crate) struct TypeFilter {
    /// The type.
    pub resource_type: ResourceType,
    /// The criteria.
    pub criteria: Vec<SearchCriterion>,
    /// The filter as it was given.
    text: String,
}

/// Filters are equal if they were given alike.
impl PartialEq for TypeFilter {
    fn eq(&self, other: &TypeFilter) -> bool {
        self.text == other.text
    }
}

/// Values are patients' data, and not shown.
impl fmt::Debug for TypeFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.criteria.iter().map(|criterion| criterion.parameter.code).collect();
        write!(f, "{}?{}", self.resource_type, names.join("&"))
    }
}

/// What is wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilterProblem {
    /// The type that it filters, if that is known.
    pub resource_type: Option<ResourceType>,
    /// Type, parameter and reason, without any value.
    pub text: String,
}

impl TypeFilter {
    /// Reads a filter. Names and values may be percent-encoded (TFILTER-11).
    ///
    /// # Errors
    /// Every problem of it.
    pub(crate) fn parse(text: &str) -> Result<TypeFilter, Vec<FilterProblem>> {
        let one = |resource_type, text: String| Err(vec![FilterProblem { resource_type, text }]);
        if text.len() > FILTER_BYTES_MAX {
            return one(None, format!("a filter has {} bytes; give at most {FILTER_BYTES_MAX}", text.len()));
        }
        let form = "a filter is Type?parameter=value, such as Observation?category=laboratory";
        let Some((name, search)) = text.split_once('?') else { return one(None, form.to_string()) };
        let Some(resource_type) = ResourceType::parse(name.trim()) else {
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
            let what = if is_name { format!("there is no resource type {}; ", shown(name)) } else { String::new() };
            return one(None, format!("{what}{form}"));
        };
        let problem = |text: String| FilterProblem { resource_type: Some(resource_type), text };
        let pairs: Vec<&str> = search.split('&').filter(|pair| !pair.is_empty()).collect();
        if pairs.is_empty() || pairs.len() > CRITERIA_MAX {
            let text = format!("{resource_type}?: it has {} criteria; give 1 to {CRITERIA_MAX}", pairs.len());
            return Err(vec![problem(text)]);
        }
        let (mut criteria, mut problems) = (Vec::new(), Vec::new());
        for pair in pairs {
            match read_criterion(resource_type, pair) {
                Ok(criterion) => criteria.push(criterion),
                Err(text) => problems.push(problem(text)),
            }
        }
        match problems.is_empty() {
            true => Ok(TypeFilter { resource_type, criteria, text: text.to_string() }),
            false => Err(problems),
        }
    }

    /// The filter as it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The filter as the value of a query parameter.
    pub(crate) fn encoded(&self) -> String {
        let mut out = String::with_capacity(self.text.len());
        for byte in self.text.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b',' | b':' | b'|' => {
                    out.push(char::from(byte));
                }
                byte => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    }
}

/// Reads `name=value` or `name:modifier=value`.
fn read_criterion(resource_type: ResourceType, pair: &str) -> Result<SearchCriterion, String> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let (name, value) = (decode(name), decode(value));
    let (Some(name), Some(value)) = (name, value) else {
        return Err(format!("{resource_type}?: a percent sign is not followed by the code of UTF-8 text"));
    };
    let (name, modifier) = match name.split_once(':') {
        Some((name, modifier)) => (name, Some(modifier)),
        None => (&name[..], None),
    };
    let told = |text: &str| Err(format!("{resource_type}?{}: {text}", shown(name)));
    if RESULT_PARAMETERS.contains(&name) {
        return told("it says what a search returns, which a filter does not");
    }
    if name.contains('.') || modifier.is_some_and(|modifier| modifier.contains('.')) || name == "_has" {
        return told("searches over several resources are not supported");
    }
    let Some(parameter) = find_parameter(resource_type, name) else {
        return told("there is no such search parameter here");
    };
    SearchCriterion::parse(parameter, modifier, &value)
        .map_err(|text| format!("{resource_type}?{}: {text}", shown(name)))
}

/// Resolves percent escapes; a plus sign stays. `None` if they give no UTF-8 text.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let (code, after) = rest.split_at_checked(2)?;
        let code = str::from_utf8(code).ok().filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        out.push(u8::from_str_radix(code, 16).ok()?);
        rest = after;
    }
    String::from_utf8(out).ok()
}

/// The filters of a value: a comma before `Type?` that no backslash escapes separates two (TFILTER-07).
pub(crate) fn split_filters(value: &str) -> Vec<&str> {
    let begins_filter = |rest: &str| {
        let rest = rest.trim_start();
        let letters = rest.bytes().take(NAME_BYTES_MAX).take_while(u8::is_ascii_alphabetic).count();
        rest.starts_with(|c: char| c.is_ascii_uppercase()) && rest.as_bytes().get(letters) == Some(&b'?')
    };
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    for part in split_unescaped(value, ',') {
        if at > 0 && begins_filter(part) {
            parts.push(value[start..at - 1].trim());
            start = at;
        }
        at += part.len() + 1;
    }
    parts.push(value[start..].trim());
    // Commas before a filter separate it from nothing (PARAM-07).
    let parts = parts.into_iter().map(|part| part.trim_start_matches([',', ' ']));
    parts.filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        TypeFilter::parse(text).unwrap_err().into_iter().map(|problem| problem.text).collect()
    }

    /// TFILTER-01, TFILTER-11: a filter is read encoded once or twice.
    #[test]
    fn filters_are_read() {
        let plain =
            TypeFilter::parse("Observation?category=laboratory,vital-signs&date=ge2020-01-01T00:00:00+05:00").unwrap();
        let coded =
            TypeFilter::parse("Observation?category=laboratory%2Cvital-signs&date=ge2020-01-01T00%3A00%3A00%2B05:00")
                .unwrap();
        assert_eq!(plain.criteria, coded.criteria);
        assert_eq!(plain.criteria.len(), 2);
        assert_eq!(format!("{plain:?}"), "Observation?category&date");
    }

    /// TFILTER-04, TFILTER-05, TFILTER-06: what is refused, each part by name and all at once, without a value.
    #[test]
    fn wrong_filters_are_refused() {
        for text in ["?code=x", "Patient/1/Observation?code=x", "Observation/$stats?x=y", "Observation", "", "Nope?x=y"]
        {
            assert!(problems(text)[0].contains("Type?parameter=value"), "{text}");
        }
        for name in RESULT_PARAMETERS {
            assert!(problems(&format!("Observation?{name}=SECRET"))[0].starts_with(&format!("Observation?{name}: ")));
        }
        let all = problems(
            "Observation?nope=SECRET&code:in=SECRET&subject:Patient.name=SECRET&_has:x:y=SECRET&date=SECRET&code=%zz&code=%+6F",
        );
        assert_eq!(all.len(), 7);
        assert!(all.iter().all(|text| text.starts_with("Observation?") && !text.contains("SECRET")), "{all:?}");
        assert_eq!(problems("Observation?").len(), 1);
        assert_eq!(problems(&format!("Observation?{}", "code=x&".repeat(101))).len(), 1);
        assert_eq!(problems("Patient?status=active"), ["Patient?status: there is no such search parameter here"]);
    }

    /// TFILTER-07: commas between filters, and those of lists.
    #[test]
    fn values_hold_several_filters_where_they_may() {
        let value = "MedicationRequest?status=active,completed,Observation?code=a,B,Condition?x=y";
        assert_eq!(
            split_filters(value),
            ["MedicationRequest?status=active,completed", "Observation?code=a,B", "Condition?x=y"]
        );
        let escaped = r"Observation?value-string=a\,Patient?x=b";
        assert_eq!(split_filters(escaped), [escaped]);
        assert_eq!(split_filters(",, Patient?a=b,"), ["Patient?a=b,"]);
        assert!(split_filters(",,").is_empty());
        // Time grows with the value.
        assert_eq!(split_filters(&"a,".repeat(1_000_000)).len(), 1);
    }
}
