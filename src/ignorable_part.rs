//! Parts of a request that cannot be served and that lenient handling leaves out, with a message each (HDR-05, HDR-06).
//!
//! Every door reads these parts here, so that a part is refused or left out in the same words wherever it was given. What is
//! none of them is never left out: it would change what is disclosed, or how it is read (HDR-07).

use crate::associated_data::AssociatedData;
use crate::error::RequestProblem;
use crate::fhir::elements::selection::{ElementProblem, ElementSelection};
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::type_filter::{FilterProblem, TypeFilter};
use crate::issue::{Issue, IssueCode, IssueLog, Parameter, ParameterNames};
use crate::limits::{KICKOFF_PROBLEMS_MAX, SHOWN_CHARS_MAX};

/// A part of a request that cannot be served and may be left out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum IgnorablePart {
    /// A name of `_type` that R4 does not have.
    TypeName(String),
    /// An item of `_elements` that names no root element.
    ElementItem(ElementProblem),
    /// A filter of `_typeFilter` that cannot be evaluated: its type is not filtered without it.
    Filter(ResourceType, String),
    /// Filters of a type that is not exported.
    UnusedFilter(ResourceType),
    /// A code of `includeAssociatedData` that stands for nothing here.
    AssociatedDataCode {
        /// The code.
        code: String,
        /// Further codes that are known here.
        presets: Vec<String>,
    },
}

impl IgnorablePart {
    /// The parameter that it was given in.
    pub(crate) fn parameter(&self) -> Parameter {
        match self {
            IgnorablePart::TypeName(_) => Parameter::Type,
            IgnorablePart::ElementItem(_) => Parameter::Elements,
            IgnorablePart::Filter(..) | IgnorablePart::UnusedFilter(_) => Parameter::TypeFilter,
            IgnorablePart::AssociatedDataCode { .. } => Parameter::AssociatedData,
        }
    }

    /// The kind that messages are counted by.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            IgnorablePart::TypeName(_) => "unknown types",
            IgnorablePart::ElementItem(_) => "unknown elements",
            IgnorablePart::Filter(..) => "filters that cannot be evaluated",
            IgnorablePart::UnusedFilter(_) => "filters of types that are not exported",
            IgnorablePart::AssociatedDataCode { .. } => "unknown associated data",
        }
    }

    /// Why a request with it is refused, without the name of the parameter. Names that are like an unknown one are looked for,
    /// which is slow.
    pub(crate) fn refusal(&self) -> String {
        match self {
            IgnorablePart::TypeName(name) => {
                let similar = if name.len() <= SHOWN_CHARS_MAX { ResourceType::similar(name) } else { Vec::new() };
                let advice = match similar.as_slice() {
                    [] => "use the names of FHIR R4, such as Patient or Observation".to_string(),
                    near => format!("did you mean {}?", near.join(" or ")),
                };
                format!("{:?} is no R4 resource type; {advice}", shorten(name))
            }
            IgnorablePart::ElementItem(problem) => problem.to_string(),
            IgnorablePart::Filter(_, problem) => problem.clone(),
            IgnorablePart::UnusedFilter(of) => {
                format!("{of}?: this type is not among those of _type; name it there, too")
            }
            IgnorablePart::AssociatedDataCode { code, presets } => {
                let names = AssociatedData::ALL.map(AssociatedData::name).into_iter();
                let names = names.chain(presets.iter().map(String::as_str)).collect::<Vec<_>>().join(" or ");
                format!("{:?} is no set of resources that can be added; give {names}", shorten(code))
            }
        }
    }

    /// The message that it was left out, in the words of a door.
    pub(crate) fn note(&self, words: &ParameterNames) -> Issue {
        let text = match self {
            IgnorablePart::TypeName(name) => {
                format!("{:?} is no R4 resource type, and was left out", shorten(name))
            }
            IgnorablePart::ElementItem(problem) => format!("{problem}; it was ignored"),
            IgnorablePart::Filter(of, problem) => format!("{of} is not filtered, and all of it is exported; {problem}"),
            IgnorablePart::UnusedFilter(of) => format!("{of}?: this type is not exported, and its filter was ignored"),
            IgnorablePart::AssociatedDataCode { code, .. } => {
                format!("{:?} is no set of resources that can be added, and was ignored", shorten(code))
            }
        };
        Issue::warning(IssueCode::NotSupported, format!("{}: {text}", (words.parameter)(self.parameter())))
    }
}

/// It as a problem of a request that is strict.
impl From<&IgnorablePart> for RequestProblem {
    fn from(part: &IgnorablePart) -> RequestProblem {
        RequestProblem::of(part.parameter(), part.refusal())
    }
}

/// A problem of a request that is being put together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FoundProblem {
    /// The request is refused.
    Fixed(RequestProblem),
    /// The request is refused unless it is lenient.
    Ignorable(IgnorablePart),
}

impl From<&FoundProblem> for RequestProblem {
    fn from(found: &FoundProblem) -> RequestProblem {
        match found {
            FoundProblem::Fixed(problem) => problem.clone(),
            FoundProblem::Ignorable(part) => RequestProblem::from(part),
        }
    }
}

/// The resource types of some names, by a rule for names, in the order given; and the names that are none. Names have no white
/// space around them and are not empty.
pub(crate) fn read_types<'a>(
    names: impl IntoIterator<Item = &'a str>,
    named: impl Fn(&str) -> Option<ResourceType>,
) -> (Vec<ResourceType>, Vec<IgnorablePart>) {
    let (mut types, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        match named(name) {
            Some(known) => types.push(known),
            None => unknown.push(IgnorablePart::TypeName(name.to_string())),
        }
    }
    (types, unknown)
}

/// Why a request is refused that has no type left but these parts, also under lenient handling: without a type it would be for
/// all. `None` if it named none.
pub(crate) fn no_type_left(ignored: &[IgnorablePart]) -> Option<String> {
    let name = |part: &IgnorablePart| match part {
        IgnorablePart::TypeName(name) => Some(shorten(name)),
        _ => None,
    };
    let names: Vec<String> = ignored.iter().filter_map(name).take(KICKOFF_PROBLEMS_MAX).collect();
    let text = || format!("none of {} is exported here, and without a type everything would be", names.join(", "));
    (!names.is_empty()).then(text)
}

/// Why a request is refused that has no element left but these parts, also under lenient handling: without an element records
/// would be whole. `None` if it named none.
pub(crate) fn no_element_left(ignored: &[IgnorablePart]) -> Option<String> {
    let told = |part: &IgnorablePart| match part {
        IgnorablePart::ElementItem(problem) => Some(problem.to_string()),
        _ => None,
    };
    let told: Vec<String> = ignored.iter().filter_map(told).take(KICKOFF_PROBLEMS_MAX).collect();
    (!told.is_empty()).then(|| format!("{}; without an element records would be whole", told.join("; ")))
}

/// The problems that refuse a request under lenient handling, too, and the parts that it leaves out.
pub(crate) fn leave_out(problems: Vec<FoundProblem>) -> (Vec<FoundProblem>, Vec<IgnorablePart>) {
    let (mut refused, mut ignored) = (Vec::new(), Vec::new());
    for found in problems {
        match found {
            FoundProblem::Fixed(_) => refused.push(found),
            FoundProblem::Ignorable(part) => ignored.push(part),
        }
    }
    (refused, ignored)
}

/// Messages on parts that were left out, in the words of a door; their number is bounded (OUTCOME-06).
pub(crate) fn notes_on(ignored: &[IgnorablePart], words: &ParameterNames) -> IssueLog {
    let mut notes = IssueLog::default();
    ignored.iter().for_each(|part| notes.push(part.cause(), part.note(words)));
    notes
}

/// The selection of some items of `_elements`, and the items that are left out of it.
pub(crate) fn read_elements<S: AsRef<str>>(
    items: impl IntoIterator<Item = S>,
) -> (ElementSelection, Vec<IgnorablePart>) {
    let (selection, problems) = ElementSelection::parse(items);
    (selection, problems.into_iter().map(IgnorablePart::ElementItem).collect())
}

/// Most filters of a request.
const FILTERS_MAX: usize = 100;
/// Most values of all its filters together: each row of a type is compared with each at worst.
const FILTER_VALUES_MAX: usize = 5000;

/// The filters of some values of `_typeFilter`, and what is wrong with others; empty values are ignored.
pub(crate) fn read_filters<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> (Vec<TypeFilter>, Vec<FoundProblem>) {
    let (mut filters, mut problems, mut count) = (Vec::new(), Vec::new(), 0);
    let fixed = |text: String| FoundProblem::Fixed(RequestProblem::of(Parameter::TypeFilter, text));
    for value in values {
        let value = value.as_ref().trim();
        count += usize::from(!value.is_empty());
        if value.is_empty() || count > FILTERS_MAX {
            continue;
        }
        match TypeFilter::parse(value) {
            Ok(filter) => filters.push(filter),
            Err(wrong) => problems.extend(wrong.into_iter().map(|problem| match problem {
                FilterProblem { resource_type: Some(of), text } => {
                    FoundProblem::Ignorable(IgnorablePart::Filter(of, text))
                }
                FilterProblem { resource_type: None, text } => fixed(text),
            })),
        }
    }
    let values: usize =
        filters.iter().flat_map(|filter| &filter.criteria).map(|criterion| criterion.values.len()).sum();
    if values > FILTER_VALUES_MAX {
        problems.push(fixed(format!("the filters have {values} values; give at most {FILTER_VALUES_MAX} together")));
    }
    if count > FILTERS_MAX {
        problems.push(fixed(format!("there are {count} filters; give at most {FILTERS_MAX}")));
    }
    (filters, problems)
}

/// Takes filters out of a list that are not to be applied (TFILTER-06, TFILTER-08): those of a type of which another cannot be
/// evaluated, and those of types that are not exported; the types of the latter.
pub(crate) fn drop_filters(
    filters: &mut Vec<TypeFilter>,
    ignored: &[IgnorablePart],
    types: &[ResourceType],
) -> Vec<IgnorablePart> {
    filters.retain(|filter| {
        !ignored.iter().any(|part| matches!(part, IgnorablePart::Filter(of, _) if *of == filter.resource_type))
    });
    let unused = unused_filters(filters, types);
    filters.retain(|filter| types.is_empty() || types.contains(&filter.resource_type));
    unused
}

/// The types of filters that are not exported, each once.
pub(crate) fn unused_filters(filters: &[TypeFilter], types: &[ResourceType]) -> Vec<IgnorablePart> {
    let unused =
        filters.iter().map(|filter| filter.resource_type).filter(|of| !types.is_empty() && !types.contains(of));
    unused.collect::<std::collections::BTreeSet<_>>().into_iter().map(IgnorablePart::UnusedFilter).collect()
}

/// What some codes of `includeAssociatedData` ask for together (ASSOC-04), and the codes that are none; empty ones are ignored.
/// `presets` are further codes, which the caller reads, to be named beside the others.
pub(crate) fn read_associated<S: AsRef<str>>(
    codes: impl IntoIterator<Item = S>,
    presets: &[String],
) -> (Option<AssociatedData>, Vec<IgnorablePart>) {
    let (mut associated, mut unknown) = (None, Vec::new());
    for code in codes {
        let code = code.as_ref().trim();
        match AssociatedData::parse(code) {
            _ if code.is_empty() => {}
            Some(known) => associated = associated.max(Some(known)),
            None => {
                let presets = presets.to_vec();
                unknown.push(IgnorablePart::AssociatedDataCode { code: code.to_string(), presets });
            }
        }
    }
    (associated, unknown)
}

/// The first [`SHOWN_CHARS_MAX`] characters of a text that a request sent, for a message.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text.to_string(),
        Some((offset, _)) => format!("{}…", &text[..offset]),
    }
}
