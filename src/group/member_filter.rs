//! Filters of the members of a Group: the modifier extension `member-filter` of the Bulk Data Access IG
//! (<http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter>, COHORT-02 to COHORT-04).
//!
//! Each filter is one search over one type, in the language of `_typeFilter`. Which patients meet it is found in
//! `select/member_filters.rs`.

use std::collections::BTreeSet;
use std::fmt;

use crate::fhir::compartment;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::type_filter::TypeFilter;
use crate::issue::IssueCode;
use crate::limits::{MEMBER_FILTERS_MAX, REFERENCE_BYTES_MAX};
use crate::named_enum::by_name;

/// URL of the extension. It is a modifier also in a plain `extension`, where it stands by mistake: its writer meant fewer
/// patients than are listed.
pub(crate) const MEMBER_FILTER: &str = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter";
/// URL of the extension that says when the members of a Group were last found. A server that finds them at each export
/// leaves it out (COHORT-06).
pub(crate) const MEMBERS_REFRESHED: &str = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/members-refreshed";
/// Profile of the Groups that have such filters.
pub(crate) const COHORT_PROFILE: &str = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/bulk-cohort-group";
/// FHIRPath of the element that holds filters.
pub(crate) const FILTER_PATH: &str = "Group.modifierExtension";
/// The one language of filters.
const QUERY_LANGUAGE: &str = "application/x-fhir-query";

/// What becomes of a Group that has filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FilteredGroups {
    /// Its filters are evaluated.
    #[default]
    Evaluated,
    /// It is refused, as one with any other modifier is: 1upHealth's clients know of no filters, and a Group that others list
    /// would need filters of its own.
    Refused,
}

impl FilteredGroups {
    /// Whether it is the default, which records leave out.
    pub(crate) fn is_default(&self) -> bool {
        *self == FilteredGroups::default()
    }

    /// Both, for lookup by name.
    pub(crate) const ALL: [FilteredGroups; 2] = [FilteredGroups::Evaluated, FilteredGroups::Refused];

    /// The word, in records of jobs, of what becomes of a Group that has filters.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            FilteredGroups::Evaluated => "evaluated",
            FilteredGroups::Refused => "refused",
        }
    }
}

by_name!(FilteredGroups);

/// What is wrong with a filter of a Group, or with a Group that has filters, without any value of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberFilterProblem {
    /// Kind of the problem.
    pub kind: IssueCode,
    /// FHIRPath of the element.
    pub path: String,
    /// What is wrong, and what to do about it.
    pub text: String,
}

impl MemberFilterProblem {
    /// A problem of the Group as the IG's profile has it (COHORT-02).
    pub(crate) fn of_profile(path: &str, text: &str) -> MemberFilterProblem {
        MemberFilterProblem { kind: IssueCode::BusinessRule, path: path.to_string(), text: format!("{path} {text}") }
    }
}

/// A text of an extension, as far as it was read.
#[derive(Clone, Default, PartialEq, Eq)]
enum FilterText {
    /// There is none.
    #[default]
    Absent,
    /// It is this.
    Text(String),
    /// It stands twice, or is no string.
    Malformed,
    /// It is longer than any text that is read.
    TooLong,
}

impl FilterText {
    /// Takes a string of the document, `None` if it is too long.
    fn set(&mut self, text: Option<&str>) {
        *self = match (&self, text) {
            (FilterText::Absent, Some(text)) => FilterText::Text(text.to_string()),
            (FilterText::Absent, None) => FilterText::TooLong,
            _ => FilterText::Malformed,
        };
    }
}

/// One filter of a Group as it stands there.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct FilterExtension {
    /// Number of modifier extensions of the Group before it.
    position: u64,
    language: FilterText,
    expression: FilterText,
}

/// Values are patients' data, and not shown.
impl fmt::Debug for FilterExtension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FILTER_PATH}[{}]", self.position)
    }
}

impl FilterExtension {
    /// Takes `valueExpression.language`; `None` for one that is too long to be read.
    pub(crate) fn set_language(&mut self, text: Option<&str>) {
        self.language.set(text);
    }

    /// Takes `valueExpression.expression`; `None` for one that is too long to be read.
    pub(crate) fn set_expression(&mut self, text: Option<&str>) {
        self.expression.set(text);
    }

    /// Notes something else than a string in place of the language.
    pub(crate) fn spoil_language(&mut self) {
        self.language = FilterText::Malformed;
    }

    /// Notes something else than a string in place of the expression.
    pub(crate) fn spoil_expression(&mut self) {
        self.expression = FilterText::Malformed;
    }

    /// The filter as a search.
    ///
    /// # Errors
    /// Every problem of it.
    fn parse(&self) -> Result<TypeFilter, Vec<MemberFilterProblem>> {
        let path = format!("{FILTER_PATH}[{}]", self.position);
        let problem = |text: String| MemberFilterProblem {
            kind: IssueCode::NotSupported,
            text: format!("{path} (member-filter): {text}"),
            path: path.clone(),
        };
        let mut problems = Vec::new();
        if self.language != FilterText::Text(QUERY_LANGUAGE.to_string()) {
            let text = format!("its valueExpression.language is not {QUERY_LANGUAGE}, the only one that is evaluated");
            problems.push(problem(text));
        }
        let wrong = match &self.expression {
            FilterText::Text(text) if text.contains("{{") => {
                "its valueExpression.expression has a template; give values".to_string()
            }
            FilterText::Text(text) => match TypeFilter::parse(text) {
                Ok(filter) if is_searched(filter.resource_type) => match problems.is_empty() {
                    true => return Ok(filter),
                    false => return Err(problems),
                },
                Ok(filter) => format!(
                    "resources of type {} are in no patient's record by themselves; search Patient or a type of its compartment",
                    filter.resource_type
                ),
                Err(found) => {
                    problems.extend(found.into_iter().map(|found| problem(found.text)));
                    return Err(problems);
                }
            },
            FilterText::Absent => "it has no valueExpression.expression, such as Condition?code=a".to_string(),
            FilterText::Malformed => "its valueExpression.expression is not one string".to_string(),
            FilterText::TooLong => {
                format!("its valueExpression.expression has more than {REFERENCE_BYTES_MAX} bytes; make it shorter")
            }
        };
        problems.push(problem(wrong));
        Err(problems)
    }
}

/// Whether a filter may search a type: a Patient itself, or what is in a patient's record by what it says. A Group is in that of
/// its members, but tells of others (COMP-09), and a Provenance in that of what it is about.
fn is_searched(of: ResourceType) -> bool {
    compartment::in_compartment(of) && !matches!(of, ResourceType::GROUP | ResourceType::PROVENANCE)
}

/// The filters of a Group as they stand there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberFilters {
    /// The first of them, at most [`MEMBER_FILTERS_MAX`].
    listed: Vec<FilterExtension>,
    /// How many there are.
    count: u64,
}

impl MemberFilters {
    /// Adds a filter that follows `position` modifier extensions.
    pub(crate) fn push(&mut self, filter: FilterExtension, position: u64) {
        self.count += 1;
        if self.listed.len() < MEMBER_FILTERS_MAX {
            self.listed.push(FilterExtension { position, ..filter });
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The types that they search, sorted; of those that can be read.
    pub(crate) fn searched_types(&self) -> Vec<ResourceType> {
        let found = self.listed.iter().filter_map(|filter| filter.parse().ok());
        let types: BTreeSet<ResourceType> = found.map(|filter| filter.resource_type).collect();
        types.into_iter().collect()
    }

    /// The filters as searches, in their order. A patient must meet each.
    ///
    /// # Errors
    /// Every problem of every filter.
    pub(crate) fn parse(&self) -> Result<Vec<TypeFilter>, Vec<MemberFilterProblem>> {
        let (mut filters, mut problems) = (Vec::new(), Vec::new());
        for filter in &self.listed {
            match filter.parse() {
                Ok(filter) => filters.push(filter),
                Err(found) => problems.extend(found),
            }
        }
        if self.count > MEMBER_FILTERS_MAX as u64 {
            let text = format!("the Group has {} member-filters; give at most {MEMBER_FILTERS_MAX}", self.count);
            problems.push(MemberFilterProblem { kind: IssueCode::NotSupported, path: FILTER_PATH.to_string(), text });
        }
        if problems.is_empty() { Ok(filters) } else { Err(problems) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(language: &str, expression: &str) -> FilterExtension {
        let mut filter = FilterExtension::default();
        filter.set_language(Some(language));
        filter.set_expression(Some(expression));
        filter
    }

    fn problems(language: &str, expression: &str) -> Vec<String> {
        let found = filter(language, expression).parse().unwrap_err();
        assert!(found.iter().all(|problem| problem.path == "Group.modifierExtension[0]"));
        found.into_iter().map(|problem| problem.text).collect()
    }

    /// COHORT-03, COHORT-04: one search over Patient or a type of its compartment, in one language; everything else is refused,
    /// every problem at once and none with a value.
    #[test]
    fn what_is_no_filter_is_refused() {
        for expression in ["Patient?gender=female", "Condition?code=a,b&onset-date=ge2020", "Device?status=active"] {
            assert!(filter(QUERY_LANGUAGE, expression).parse().is_ok(), "{expression}");
        }
        for (expression, part) in [
            ("Condition?_sort=SECRET", "Condition?_sort: it says what a search returns"),
            ("Condition?nope=SECRET", "Condition?nope: there is no such search parameter"),
            ("Condition?subject:Patient.name=SECRET", "several resources"),
            ("Organization?name=SECRET", "Organization are in no patient's record"),
            ("Group?_id=SECRET", "type Group"),
            ("Provenance?_id=SECRET", "type Provenance"),
            ("Condition?code={{SECRET}}", "template"),
            ("SECRET", "Type?parameter=value"),
        ] {
            let found = problems(QUERY_LANGUAGE, expression);
            assert!(found.len() == 1 && found[0].contains(part) && !found[0].contains("SECRET"), "{found:?}");
        }
        let found = problems("text/cql", "Condition?nope=SECRET&code:in=SECRET");
        assert!(found.len() == 3 && found[0].contains("valueExpression.language"), "{found:?}");
        assert!(!format!("{found:?} {:?}", filter("x", "SECRET")).contains("SECRET"));
        assert_eq!(FilterExtension::default().parse().unwrap_err().len(), 2);
    }

    /// What stands twice, is no string or is too long is no filter.
    #[test]
    fn malformed_expressions_are_refused() {
        let mut twice = filter(QUERY_LANGUAGE, "Patient?gender=male");
        twice.set_expression(Some("Patient?gender=female"));
        let mut spoiled = filter(QUERY_LANGUAGE, "Patient?gender=male");
        spoiled.spoil_expression();
        let mut long = FilterExtension::default();
        long.set_language(Some(QUERY_LANGUAGE));
        long.set_expression(None);
        for (filter, part) in [(twice, "not one string"), (spoiled, "not one string"), (long, "more than 4096 bytes")] {
            let found = filter.parse().unwrap_err();
            assert!(found.len() == 1 && found[0].text.contains(part), "{found:?}");
        }
    }

    /// The number of filters is bounded, and told.
    #[test]
    fn filters_are_bounded() {
        let mut all = MemberFilters::default();
        for position in 0..MEMBER_FILTERS_MAX as u64 {
            all.push(filter(QUERY_LANGUAGE, "Patient?gender=male"), position);
        }
        assert_eq!(all.parse().unwrap().len(), MEMBER_FILTERS_MAX);
        all.push(filter(QUERY_LANGUAGE, "Patient?gender=male"), 20);
        assert!(all.parse().unwrap_err()[0].text.contains("has 21 member-filters; give at most 20"));
    }
}
