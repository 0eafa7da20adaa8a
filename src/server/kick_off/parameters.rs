//! Checks the parameters of a kick-off against the table of the mount: each value by itself, then `_since` with
//! `_until`.
//!
//! It reads decoded names and values, of query and body, and knows no HTTP. Under lenient handling some problems become notes.

use std::collections::{BTreeMap, BTreeSet};

use crate::count_text::{counted, word_form};
use crate::error::RequestProblem;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::compartment;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::id::Id;
use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::type_filter::split_filters;
use crate::ignorable_part::{
    IgnorablePart, drop_filters, leave_out, no_element_left, no_type_left, read_associated, read_elements,
    read_filters, read_types, shorten, unused_filters,
};
use crate::issue::{Issue, IssueCode, IssueLog};
use crate::limits::{KICKOFF_PROBLEMS_MAX, SHOWN_CHARS_MAX};
use crate::patient_restriction::PatientList;
use crate::policies::Context;
use crate::request::ExportRequest;
use crate::server::config::presets::Preset;
use crate::server::error::OutcomeIssue;
use crate::server::http::query::plus_for_space;
use crate::server::kick_off::request::{GivenParameter, KickOffContext, KickOffPolicy, Level, ParameterSource};
use crate::server::message_text::HTTP_WORDS;
use crate::server::parameters::{OUTPUT_FORMATS, ParameterRow, find};

/// Checks decoded parameters; values of the query hold a space where it had a raw `+`.
///
/// # Errors
/// All problems: the first [`KICKOFF_PROBLEMS_MAX`] in full, then a count of the rest.
pub(crate) fn read_parameters(
    level: &Level,
    given: &[GivenParameter],
    lenient: bool,
    context: &KickOffContext<'_>,
    policy: &KickOffPolicy,
) -> Result<ExportRequest, Vec<OutcomeIssue>> {
    let mut reader = ParameterReader {
        lenient,
        context,
        policy,
        problems: Vec::new(),
        problems_more: 0,
        notes: IssueLog::default(),
        request: context.defaults.clone().for_population(level.population()),
    };
    let mut by_name: BTreeMap<&str, Vec<&GivenParameter>> = BTreeMap::new();
    for parameter in given {
        // An empty value has no effect, but the name of the parameter and the type are still checked (PARAM-07).
        let of_name = by_name.entry(&parameter.name).or_default();
        let is_empty = parameter.value.trim().is_empty() && parameter.source == ParameterSource::Query;
        // Where `patient` may not be, it is told of whatever it says: the answer would be wider than was meant.
        let counts = !is_empty || parameter.name == "patient";
        of_name.extend(Some(parameter).filter(|_| counts));
    }
    for (name, values) in by_name {
        match find(policy.parameters, name) {
            Some(_) if values.is_empty() => {}
            Some(parameter) if parameter.supported => {
                let values = reader.check_types_of_values(parameter, &values);
                reader.check_supported(level, parameter, &values);
            }
            Some(parameter) => reader.check_unsupported(name, parameter.lenient),
            None => reader.check_unsupported(name, true),
        }
    }
    reader.check_window();
    reader.finish()
}

/// State while the parameters of one kick-off are checked.
struct ParameterReader<'a> {
    /// Whether the client prefers `handling=lenient`.
    lenient: bool,
    context: &'a KickOffContext<'a>,
    policy: &'a KickOffPolicy,
    problems: Vec<OutcomeIssue>,
    /// Problems beyond [`KICKOFF_PROBLEMS_MAX`], only counted.
    problems_more: usize,
    notes: IssueLog,
    /// The request, as far as its parameters were accepted.
    request: ExportRequest,
}

impl ParameterReader<'_> {
    /// Records an error about the parameter `name`, or counts it once the list is full.
    fn problem(&mut self, code: IssueCode, name: &str, text: String) {
        if self.problems.len() == KICKOFF_PROBLEMS_MAX {
            self.problems_more += 1;
            return;
        }
        let issue = OutcomeIssue::error(code, format!("{}: {text}", shorten(name)));
        // R4 writes `http.name` for a place in an HTTP request; a name with other characters is only in the text.
        let plain =
            name.len() <= SHOWN_CHARS_MAX && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        self.problems.push(if plain { issue.at(format!("http.{name}")) } else { issue });
    }

    /// Notes that lenient handling ignored a part of the request (HDR-06). The number of notes is bounded
    /// (OUTCOME-06).
    fn note_ignored(&mut self, cause: &'static str, text: String) {
        self.notes.push(cause, Issue::warning(IssueCode::NotSupported, text));
    }

    /// The request with its notes, or all problems that were found.
    fn finish(mut self) -> Result<ExportRequest, Vec<OutcomeIssue>> {
        if self.problems_more > 0 {
            let more = self.problems_more as u64;
            let text = format!("{} of the request {} wrong", counted(more, "more part"), word_form(more, "is", "are"));
            self.problems.push(OutcomeIssue::error(IssueCode::Invalid, text));
        }
        self.request.notes = self.notes.iter().collect();
        if self.problems.is_empty() { Ok(self.request) } else { Err(self.problems) }
    }

    /// Checks the types of values given in the body (PARAM-05); returns the values of types that the parameter takes.
    fn check_types_of_values<'g>(
        &mut self,
        parameter: &ParameterRow,
        values: &[&'g GivenParameter],
    ) -> Vec<&'g GivenParameter> {
        let mut refused = BTreeSet::new();
        let taken = values.iter().copied().filter(|given| match given.source {
            ParameterSource::Body(value_type) if !parameter.body_types.contains(&value_type) => {
                refused.insert(value_type);
                false
            }
            _ => true,
        });
        let taken = taken.collect();
        for value_type in refused {
            let text = format!("{value_type} is not taken for it; give {}", parameter.body_types.join(" or "));
            self.problem(IssueCode::Value, parameter.name, text);
        }
        taken
    }

    /// Checks the references of `patient` (PATIENT-01…06). What is wrong with it is never ignored: the answer would be wider.
    fn patients(&mut self, level: &Level, values: &[&GivenParameter]) {
        if values.iter().any(|given| given.source == ParameterSource::Query) {
            let text = "it is taken in the body of a POST only, as valueReference".to_string();
            return self.problem(IssueCode::Invalid, "patient", text);
        }
        if !matches!(level, Level::Patient | Level::Group(_)) {
            let text =
                "an export of the system is not restricted to patients; export all patients, or a Group".to_string();
            return self.problem(IssueCode::Invalid, "patient", text);
        }
        let bases = BaseUrls::new(&self.context.defaults.fhir_bases);
        let mut ids = Vec::with_capacity(values.len());
        for (i, given) in values.iter().enumerate() {
            let reference = Reference::parse(given.value.trim());
            let is_ours =
                |found: &Reference<'_>| found.resource_type == ResourceType::PATIENT && bases.contains(found.base);
            match reference.filter(is_ours) {
                Some(found) => ids.push(found.id()),
                None => {
                    let text = format!("number {} of them is no reference to a Patient of this server", i + 1);
                    self.problem(IssueCode::Value, "patient", text);
                }
            }
        }
        ids.sort_unstable();
        ids.dedup();
        self.request.only_patients = Some(PatientList::Ids(ids.iter().map(Id::to_string).collect()));
    }

    /// Checks the items of `_elements` (ELEM-01, ELEM-05).
    fn elements(&mut self, values: &[&GivenParameter]) {
        let (selection, unknown) = read_elements(values.iter().flat_map(|given| given.value.split(',')));
        self.request.elements = selection;
        if self.request.elements.is_empty()
            && self.lenient
            && let Some(text) = no_element_left(&unknown)
        {
            return self.problem(IssueCode::NotSupported, "_elements", text);
        }
        self.judge(&unknown, IssueCode::NotSupported);
    }

    /// Checks the filters of `_typeFilter` (TFILTER-01 to TFILTER-08). Types were read before: their name comes first.
    fn type_filters(&mut self, values: &[&GivenParameter]) {
        let filters = values.iter().flat_map(|given| split_filters(&given.value));
        let (filters, problems) = read_filters(filters);
        self.request.type_filters = filters;
        let (refused, mut parts) = leave_out(problems);
        for problem in refused {
            let text = RequestProblem::from(&problem).text;
            self.problem(IssueCode::Invalid, "_typeFilter", text);
        }
        match self.lenient {
            true => {
                let unused = drop_filters(&mut self.request.type_filters, &parts, &self.request.types);
                parts.extend(unused);
            }
            false => parts.extend(unused_filters(&self.request.type_filters, &self.request.types)),
        }
        self.judge(&parts, IssueCode::NotSupported);
    }

    /// Checks the codes of `includeAssociatedData` (ASSOC-01, ASSOC-04, ASSOC-07).
    fn associated_data(&mut self, values: &[&GivenParameter]) {
        let codes: BTreeSet<&str> = values.iter().flat_map(|given| given.value.split(',')).map(str::trim).collect();
        let (presets, codes): (Vec<&str>, Vec<&str>) =
            codes.into_iter().partition(|code| self.policy.presets.contains_key(*code));
        let names: Vec<String> = self.policy.presets.keys().cloned().collect();
        let (associated, unknown) = read_associated(codes, &names);
        self.request.associated = associated;
        self.apply(&presets);
        // A preset may narrow an export: a slip of its name is not passed over.
        let is_slip_of_preset = |part: &IgnorablePart| matches!(part, IgnorablePart::AssociatedDataCode { code, .. } if code.starts_with('_') && names.iter().any(|name| is_slip(code, name)));
        if let Some(part) = unknown.iter().find(|part| self.lenient && is_slip_of_preset(part)) {
            return self.problem(IssueCode::NotSupported, "includeAssociatedData", part.refusal());
        }
        self.judge(&unknown, IssueCode::NotSupported);
    }

    /// Sets what presets set (ASSOC-09), the least restrictive of each. A request's own `_elements`, which was read before,
    /// stands.
    fn apply(&mut self, names: &[&str]) {
        let presets: Vec<&Preset> = names.iter().filter_map(|name| self.policy.presets.get(*name)).collect();
        let request = &mut self.request;
        let associated = presets.iter().map(|preset| preset.associated).chain([request.associated]);
        request.associated = associated.max().flatten();
        if request.elements.is_empty() {
            let items = presets.iter().flat_map(|preset| &preset.elements);
            request.elements = ElementSelection::parse(items).0;
        }
        let is_set = |context: &Context| presets.iter().any(|preset| preset.context == Some(*context));
        if let Some(context) = [Context::Referenced, Context::Changed, Context::None].into_iter().find(is_set) {
            request.context = context;
        }
    }

    /// Leaves parts out under lenient handling, with a note each; else each is a problem of this code.
    fn judge(&mut self, parts: &[IgnorablePart], code: IssueCode) {
        for part in parts {
            if self.lenient {
                self.notes.push(part.cause(), part.note(&HTTP_WORDS));
                continue;
            }
            // The search for similar names is slow: it is skipped once the list of problems is full.
            let is_told = self.problems.len() < KICKOFF_PROBLEMS_MAX;
            let text = if is_told { part.refusal() } else { String::new() };
            self.problem(code, part.parameter().name(), text);
        }
    }

    /// Checks the non-empty values of a parameter that is served.
    fn check_supported(&mut self, level: &Level, parameter: &ParameterRow, values: &[&GivenParameter]) {
        let name = parameter.name;
        if name == "patient" {
            return self.patients(level, values);
        }
        if name == "_elements" {
            return self.elements(values);
        }
        if name == "_typeFilter" {
            return self.type_filters(values);
        }
        if name == "includeAssociatedData" {
            return self.associated_data(values);
        }
        if name == "_type" {
            // Repeated parameters are one list (PARAM-01).
            let items = values.iter().flat_map(|given| given.value.split(',')).map(str::trim);
            return self.types(level, items.filter(|item| !item.is_empty()).collect());
        }
        // No space is legal in these values, so that each in a query was an unencoded `+` (PARAM-06).
        let value_of = |given: &&GivenParameter| match given.source {
            ParameterSource::Query => plus_for_space(given.value.trim()),
            ParameterSource::Body(_) => given.value.trim().to_string(),
        };
        let values: BTreeSet<String> = values.iter().map(value_of).filter(|value| !value.is_empty()).collect();
        if values.len() > 1 {
            let text = "it is given more than once with different values; give it once".to_string();
            return self.problem(IssueCode::Invalid, name, text);
        }
        let Some(value) = values.first() else { return };
        match name {
            "_since" => self.request.since = self.since(name, value),
            "_until" => self.request.until = self.instant(name, value, Instant::parse(value)),
            _ if OUTPUT_FORMATS.contains(&value.as_str()) => {}
            _ => {
                let text = format!(
                    "{:?} is not supported; the output is {}",
                    shorten(value),
                    OUTPUT_FORMATS.join(", also written ")
                );
                self.problem(IssueCode::NotSupported, name, text);
            }
        }
    }

    /// The value of `_since`; `None`, with a problem, if it is no instant or too far in the future.
    fn since(&mut self, name: &str, value: &str) -> Option<Instant> {
        let read = if self.policy.dates { Instant::parse_instant_or_date(value) } else { Instant::parse(value) };
        let time = self.instant(name, value, read)?;
        let skew = i64::try_from(self.policy.clock_skew_seconds).unwrap_or(i64::MAX).saturating_mul(TICKS_PER_SECOND);
        // The last transactionTime is never refused to who sends it back, whatever the clock shows since.
        let now = &self.context.now;
        if time.ticks > now.ticks.saturating_add(skew) && (self.context.last)().is_none_or(|last| time > last) {
            let text = format!("{:?} lies in the future; it is {now} here", shorten(value));
            self.problem(IssueCode::Value, name, text);
            return None;
        }
        Some(time)
    }

    /// Passes on `read`, the parsed value of an instant parameter, or records a problem if it is `None`.
    fn instant(&mut self, name: &str, value: &str, read: Option<Instant>) -> Option<Instant> {
        if read.is_none() {
            let date = if self.policy.dates && name == "_since" { "date such as 2024-05-01, nor an " } else { "" };
            let text = format!(
                "{:?} is no {date}instant such as 2024-05-01T00:00:00Z: all from the year to the seconds and the offset must \
                 be there, and be possible",
                shorten(value)
            );
            self.problem(IssueCode::Value, name, text);
        }
        read
    }

    /// Checks the names of `_type` and whether the level exports any of them (TYPE-03, TYPE-04, ONEUP-M07).
    fn types(&mut self, level: &Level, names: BTreeSet<&str>) {
        let problems = self.problems.len() + self.problems_more;
        let case_counts = self.policy.case_sensitive_types;
        let (known, unknown) = read_types(names.iter().copied(), |name| type_named(name, case_counts));
        self.request.types.extend(known);
        self.judge(&unknown, self.policy.type_refused);
        self.request.types.sort_unstable();
        self.request.types.dedup();
        let types = &self.request.types;
        if names.is_empty() || self.problems.len() + self.problems_more > problems {
            return;
        }
        if types.is_empty() {
            let text = no_type_left(&unknown).unwrap_or_default();
            return self.problem(self.policy.type_refused, "_type", text);
        }
        let outside: Vec<&str> =
            types.iter().filter(|of| !compartment::in_compartment(**of)).map(|of| of.name()).collect();
        if self.policy.compartment_types && !outside.is_empty() {
            let text = format!(
                "{} is not of the Patient compartment, and only types of it are exported here; leave it out",
                outside.join(", ")
            );
            return self.problem(self.policy.type_refused, "_type", text);
        }
        if *level != Level::System && types.iter().all(|of| !compartment::in_compartment(*of)) {
            let text = format!(
                "no patient's compartment has {}, so that this level exports none; add a type that belongs to patients, \
                 or export the system",
                outside.join(", ")
            );
            self.problem(self.policy.type_refused, "_type", text);
        }
    }

    /// Records a parameter that is unknown or not served (PARAM-04); a note under lenient handling (HDR-05) unless
    /// the table forbids it, for it or for the parameter that the name may be a slip of.
    fn check_unsupported(&mut self, name: &str, may_be_ignored: bool) {
        let slips = || self.policy.parameters.iter().filter(|known| known.name != name && is_slip(name, known.name));
        let meant = slips().find(|known| known.supported);
        if self.lenient && may_be_ignored && !slips().any(|known| known.narrows) {
            let advice = meant.map(|known| format!("; {} is", known.name)).unwrap_or_default();
            let text = format!("{}: this parameter is not supported here and was ignored{advice}", shorten(name));
            return self.note_ignored("unsupported parameters", text);
        }
        let advice = match meant {
            Some(known) => format!("did you mean {}?", known.name),
            None if self.lenient => "leave it out".to_string(),
            None => "leave it out, or send Prefer: handling=lenient to have it ignored".to_string(),
        };
        self.problem(IssueCode::NotSupported, name, format!("this parameter is not supported here; {advice}"));
    }

    /// Checks that `_since` is earlier than `_until` (SINCE-09). An `_until` in the future is legal: it excludes
    /// nothing.
    fn check_window(&mut self) {
        if let (Some(since), Some(until)) = (&self.request.since, &self.request.until)
            && since >= until
        {
            let text = format!("{until} is not later than _since, {since}, so that nothing could match");
            self.problem(IssueCode::Value, "_until", text);
        }
    }
}

/// The resource type of a name in `_type`, under the case rule of a mount.
fn type_named(name: &str, case_counts: bool) -> Option<ResourceType> {
    match case_counts {
        true => ResourceType::parse(name),
        false => ResourceType::all().find(|known| known.name().eq_ignore_ascii_case(name)),
    }
}

/// Whether `name` may be a misspelling of `known`: at most two edits apart, ignoring case.
fn is_slip(name: &str, known: &str) -> bool {
    // A search modifier behind a known name.
    name.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case(known))
        || name.len() <= SHOWN_CHARS_MAX
            && strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase()) <= 2
}
