//! The parameters of a kick-off, from whatever carried them: read by the table, checked each by itself and together.

use std::collections::{BTreeMap, BTreeSet};

use crate::fhir::compartment;
use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::fhir::resource_type::ResourceType;
use crate::issue::{Issue, IssueCode, IssueLog};
use crate::limits::{KICKOFF_PROBLEMS_MAX, SHOWN_CHARS_MAX};
use crate::server::error::{OutcomeIssue, OutcomeIssueType};
use crate::server::http::query::plus_for_space;
use crate::server::kick_off::request::{KickOffParams, KickOffPolicy, Level};
use crate::server::parameters::{OUTPUT_FORMATS, ParameterRow, find};

/// Reads parameters, decoded: names and values, with a space where a query had a raw `+`.
///
/// # Errors
/// Every problem, the first [`KICKOFF_PROBLEMS_MAX`] of them in full.
pub(crate) fn read_parameters(
    level: &Level,
    pairs: &[(String, String)],
    lenient: bool,
    now: &Instant,
    policy: &KickOffPolicy,
) -> Result<KickOffParams, Vec<OutcomeIssue>> {
    let mut reader = ParameterReader {
        lenient,
        now,
        policy,
        problems: Vec::new(),
        problems_more: 0,
        notes: IssueLog::default(),
        asked: KickOffParams::default(),
    };
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in pairs {
        // An empty parameter asks for nothing, but its name may still be a slip (PARAM-07).
        let given = values.entry(name).or_default();
        given.extend(Some(value.trim()).filter(|value| !value.is_empty()));
    }
    for (name, values) in values {
        match find(policy.parameters, name) {
            Some(_) if values.is_empty() => {}
            Some(parameter) if parameter.supported => reader.check_supported(level, parameter, &values),
            Some(parameter) => reader.unsupported(name, parameter.lenient),
            None => reader.unsupported(name, true),
        }
    }
    reader.window();
    reader.finish()
}

struct ParameterReader<'a> {
    lenient: bool,
    now: &'a Instant,
    policy: &'a KickOffPolicy,
    problems: Vec<OutcomeIssue>,
    problems_more: usize,
    notes: IssueLog,
    asked: KickOffParams,
}

impl ParameterReader<'_> {
    fn problem(&mut self, code: OutcomeIssueType, name: &str, text: String) {
        if self.problems.len() == KICKOFF_PROBLEMS_MAX {
            self.problems_more += 1;
            return;
        }
        let issue = OutcomeIssue::error(code, format!("{}: {text}", shorten(name)));
        // As R4 writes where an HTTP request is wrong; what is no plain name is told in the text alone.
        let plain =
            name.len() <= SHOWN_CHARS_MAX && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        self.problems.push(if plain { issue.at(format!("http.{name}")) } else { issue });
    }

    /// Something that lenient handling passed by (HDR-06). The number of notes is bounded (OUTCOME-06).
    fn note_ignored(&mut self, cause: &'static str, text: String) {
        self.notes.push(cause, Issue::warning(IssueCode::NotSupported, text));
    }

    fn finish(mut self) -> Result<KickOffParams, Vec<OutcomeIssue>> {
        if self.problems_more > 0 {
            let text = format!("{} more parts of the request are wrong", self.problems_more);
            self.problems.push(OutcomeIssue::error(OutcomeIssueType::Invalid, text));
        }
        match self.problems.is_empty() {
            true => Ok(KickOffParams { notes: self.notes.iter().collect(), ..self.asked }),
            false => Err(self.problems),
        }
    }

    /// A parameter of the table with its values, of which there is one at least.
    fn check_supported(&mut self, level: &Level, parameter: &ParameterRow, values: &[&str]) {
        let name = parameter.name;
        if name == "_type" {
            // Repeats add up, as if given in one list (PARAM-01).
            let items = values.iter().flat_map(|value| value.split(',')).map(str::trim);
            return self.types(level, items.filter(|item| !item.is_empty()).collect());
        }
        // Where a space cannot stand, it was a `+` that nobody has encoded (PARAM-06).
        let values: BTreeSet<String> = values.iter().map(|value| plus_for_space(value)).collect();
        if values.len() > 1 {
            let text = "it is given more than once with different values; give it once (PARAM-03)".to_string();
            return self.problem(OutcomeIssueType::Invalid, name, text);
        }
        let Some(value) = values.first() else { return };
        match name {
            "_since" => self.asked.since = self.since(name, value),
            "_until" => self.asked.until = self.instant(name, value, Instant::parse(value)),
            _ if OUTPUT_FORMATS.contains(&value.as_str()) => {}
            _ => {
                let text = format!(
                    "{:?} is not supported; the output is {}",
                    shorten(value),
                    OUTPUT_FORMATS.join(", also written ")
                );
                self.problem(OutcomeIssueType::NotSupported, name, text);
            }
        }
    }

    fn since(&mut self, name: &str, value: &str) -> Option<Instant> {
        let read = if self.policy.dates { Instant::parse_instant_or_date(value) } else { Instant::parse(value) };
        let time = self.instant(name, value, read)?;
        let skew = i64::try_from(self.policy.clock_skew_seconds).unwrap_or(i64::MAX).saturating_mul(TICKS_PER_SECOND);
        if time.ticks > self.now.ticks.saturating_add(skew) {
            let text = format!("{:?} lies in the future; it is {} here (SINCE-03)", shorten(value), self.now);
            self.problem(OutcomeIssueType::Value, name, text);
            return None;
        }
        Some(time)
    }

    fn instant(&mut self, name: &str, value: &str, read: Option<Instant>) -> Option<Instant> {
        if read.is_none() {
            let date = if self.policy.dates && name == "_since" { "date such as 2024-05-01, nor an " } else { "" };
            let text = format!(
                "{:?} is no {date}instant such as 2024-05-01T00:00:00Z: all from the year to the seconds and the offset must \
                 be there, and be possible",
                shorten(value)
            );
            self.problem(OutcomeIssueType::Value, name, text);
        }
        read
    }

    fn types(&mut self, level: &Level, names: BTreeSet<&str>) {
        let problems = self.problems.len() + self.problems_more;
        for name in &names {
            match self.type_named(name) {
                Some(known) => self.asked.types.push(known),
                None => self.no_type(name),
            }
        }
        self.asked.types.sort_unstable();
        self.asked.types.dedup();
        let types = &self.asked.types;
        if names.is_empty() || self.problems.len() + self.problems_more > problems {
            return;
        }
        if types.is_empty() {
            let given: Vec<String> = names.iter().take(KICKOFF_PROBLEMS_MAX).map(|name| shorten(name)).collect();
            let text = format!("none of {} is exported here, and without a type everything would be", given.join(", "));
            return self.problem(self.policy.type_refused, "_type", text + " (TYPE-03)");
        }
        let outside: Vec<&str> =
            types.iter().filter(|of| !compartment::in_compartment(**of)).map(|of| of.name()).collect();
        if self.policy.compartment_types && !outside.is_empty() {
            let text = format!(
                "{} is not of the Patient compartment, and only types of it are exported here; leave it out (ONEUP-M07)",
                outside.join(", ")
            );
            return self.problem(self.policy.type_refused, "_type", text);
        }
        if *level != Level::System && types.iter().all(|of| !compartment::in_compartment(*of)) {
            let text = format!(
                "no patient's compartment has {}, so that this level exports none; add a type that belongs to patients, \
                 or export the system (TYPE-04)",
                outside.join(", ")
            );
            self.problem(self.policy.type_refused, "_type", text);
        }
    }

    fn type_named(&self, name: &str) -> Option<ResourceType> {
        match self.policy.case_sensitive_types {
            true => ResourceType::parse(name),
            false => ResourceType::all().find(|known| known.name().eq_ignore_ascii_case(name)),
        }
    }

    fn no_type(&mut self, name: &str) {
        // Looking for what was meant takes time: not for what is no name at all, nor once all that will be told is told.
        let reported = self.problems.len() < KICKOFF_PROBLEMS_MAX && name.len() <= SHOWN_CHARS_MAX;
        let similar = if reported && !self.lenient { ResourceType::similar(name) } else { Vec::new() };
        let text = format!("{:?} is no R4 resource type", shorten(name));
        match (self.lenient, similar.as_slice()) {
            (true, _) => self.note_ignored("unknown types", format!("_type: {text}, and was left out")),
            (false, []) => {
                self.problem(self.policy.type_refused, "_type", format!("{text}; give names such as Patient"));
            }
            (false, near) => {
                let text = format!("{text}; did you mean {}?", near.join(" or "));
                self.problem(self.policy.type_refused, "_type", text);
            }
        }
    }

    /// PARAM-04, HDR-05
    fn unsupported(&mut self, name: &str, may_be_ignored: bool) {
        let meant = self.policy.parameters.iter().find(|known| known.supported && is_slip(name, known.name));
        if self.lenient && may_be_ignored {
            let advice = meant.map(|known| format!("; {} is", known.name)).unwrap_or_default();
            let text = format!("{}: this parameter is not supported here and was ignored{advice}", shorten(name));
            return self.note_ignored("unsupported parameters", text);
        }
        let advice = match meant {
            Some(known) => format!("did you mean {}?", known.name),
            None => "leave it out, or send Prefer: handling=lenient to have it ignored".to_string(),
        };
        self.problem(OutcomeIssueType::NotSupported, name, format!("this parameter is not supported here; {advice}"));
    }

    /// SINCE-09. An end in the future is only an end that does not matter.
    fn window(&mut self) {
        if let (Some(since), Some(until)) = (&self.asked.since, &self.asked.until)
            && since >= until
        {
            let text = format!("{until} is not later than _since, {since}, so that nothing could match (SINCE-09)");
            self.problem(OutcomeIssueType::Value, "_until", text);
        }
    }
}

/// Whether somebody who wrote `name` may have meant `known`: case aside, one or two letters off.
fn is_slip(name: &str, known: &str) -> bool {
    name.len() <= SHOWN_CHARS_MAX && strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase()) <= 2
}

/// The beginning of what a client sent, to be repeated to it.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text.to_string(),
        Some((offset, _)) => format!("{}…", &text[..offset]),
    }
}
