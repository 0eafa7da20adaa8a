//! A kick-off as it was written: its parameters read and checked, every problem told at once, before anything is looked
//! up. What a mount allows is a [`KickoffPolicy`]; which parameters there are is a table of [`super::parameters`].

use std::collections::BTreeMap;

use super::outcome::{Issue, IssueType};
use super::parameters::{PARAMETERS, Parameter};
use crate::fhir::instant::TICKS_PER_SECOND;
use crate::fhir::{Instant, ResourceType, compartment};
use crate::observe::{Code, Message, Severity};

/// Formats that mean NDJSON (FMT-01).
pub const NDJSON: [&str; 3] = ["application/fhir+ndjson", "application/ndjson", "ndjson"];

/// At which level an export was asked for (KICK-01…03).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// `[base]/$export`
    System,
    /// `[base]/Patient/$export`
    Patient,
    /// `[base]/Group/[id]/$export`
    Group(String),
}

/// How a mount reads parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KickoffPolicy {
    /// Whether names of types are told apart by case (PARAM-08).
    pub case_sensitive_types: bool,
    /// Whether a date alone stands for its midnight in `_since` (reading 1).
    pub dates: bool,
    /// How far in the future `_since` and `_until` may lie, in seconds (SINCE-03).
    pub clock_skew_seconds: u64,
}

/// The parameters of a kick-off, normalised (PARAM-09).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// `_type`, sorted, without repeats; empty for all.
    pub types: Vec<ResourceType>,
    /// `_since`.
    pub since: Option<Instant>,
    /// `_until`.
    pub until: Option<Instant>,
    /// What was ignored or dropped under lenient handling, for the message files (HDR-06).
    pub notes: Vec<Message>,
}

/// Reads the parameters of a query, decoded: names and values, with a space where the query had a raw `+`.
///
/// # Errors
/// Every problem.
pub fn read(
    level: &Level,
    pairs: &[(String, String)],
    lenient: bool,
    now: &Instant,
    policy: &KickoffPolicy,
) -> Result<Asked, Vec<Issue>> {
    let mut reader = Reader { lenient, now, policy, problems: Vec::new(), asked: Asked::default() };
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in pairs {
        values.entry(name).or_default().push(value);
    }
    for (name, values) in values {
        match PARAMETERS.iter().find(|parameter| parameter.name == name) {
            Some(parameter) if parameter.supported => reader.supported(parameter, &values),
            Some(parameter) => reader.unsupported(name, parameter.lenient, &values),
            None => reader.unsupported(name, true, &values),
        }
    }
    reader.together(level);
    match reader.problems.is_empty() {
        true => Ok(reader.asked),
        false => Err(reader.problems),
    }
}

struct Reader<'a> {
    lenient: bool,
    now: &'a Instant,
    policy: &'a KickoffPolicy,
    problems: Vec<Issue>,
    asked: Asked,
}

impl Reader<'_> {
    fn problem(&mut self, code: IssueType, name: &str, text: String) {
        self.problems.push(
            Issue::error(code, format!("{name}: {text}")).at(format!("Parameters.parameter.where(name='{name}')")),
        );
    }

    fn note(&mut self, text: String) {
        self.asked.notes.push(Message { severity: Severity::Warning, code: Code::NotSupported, text });
    }

    fn supported(&mut self, parameter: &Parameter, values: &[&str]) {
        let name = parameter.name;
        if name == "_type" {
            let items = values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty());
            return self.types(items);
        }
        let mut given: Vec<&str> = values.iter().map(|value| value.trim()).filter(|value| !value.is_empty()).collect();
        given.sort_unstable();
        given.dedup();
        match given[..] {
            [] => {}
            [value] => self.value(name, value),
            _ => self.problem(
                IssueType::Invalid,
                name,
                "it is given more than once with different values; give it once".into(),
            ),
        }
    }

    fn value(&mut self, name: &str, value: &str) {
        // Where a space cannot stand, it was a `+` that nobody has encoded (PARAM-06).
        let value = value.replace(' ', "+");
        match name {
            "_outputFormat" if NDJSON.contains(&value.as_str()) => {}
            "_outputFormat" => {
                let text =
                    format!("{value:?} is not supported; the output is {} (FMT-02)", NDJSON.join(", also written "));
                self.problem(IssueType::NotSupported, name, text);
            }
            "_since" => self.asked.since = self.instant(name, &value),
            "_until" => self.asked.until = self.instant(name, &value),
            _ => unreachable!("every supported parameter is read"),
        }
    }

    fn instant(&mut self, name: &str, value: &str) -> Option<Instant> {
        let read = if self.policy.dates { Instant::parse_instant_or_date(value) } else { Instant::parse(value) };
        let Some(at) = read else {
            let text = format!(
                "{value:?} is no instant such as 2024-05-01T00:00:00Z: year to second and the offset must all be there and possible"
            );
            self.problem(IssueType::Value, name, text);
            return None;
        };
        let skew = i64::try_from(self.policy.clock_skew_seconds).unwrap_or(i64::MAX).saturating_mul(TICKS_PER_SECOND);
        // An end in the future is only an end that does not matter (SINCE-09).
        if name == "_since" && at.ticks > self.now.ticks.saturating_add(skew) {
            self.problem(IssueType::Value, name, format!("{value:?} lies in the future; it is {} here", self.now));
            return None;
        }
        Some(at)
    }

    fn types<'t>(&mut self, names: impl Iterator<Item = &'t str>) {
        let (mut given, mut unknown) = (0, 0);
        let mut seen = Vec::new();
        for name in names {
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            given += 1;
            if let Some(known) = self.type_named(name) {
                self.asked.types.push(known);
                continue;
            }
            unknown += 1;
            let similar = ResourceType::similar(name);
            let advice = match similar.as_slice() {
                [] => "give names of R4 resource types, such as Patient".to_string(),
                near => format!("did you mean {}?", near.join(" or ")),
            };
            let text = format!("{name:?} is no resource type that is exported here; {advice}");
            match self.lenient {
                true => self.note(format!("_type: {text} It was left out.")),
                false => self.problem(IssueType::NotSupported, "_type", text),
            }
        }
        self.asked.types.sort_unstable();
        self.asked.types.dedup();
        if self.lenient && given > 0 && unknown == given {
            let names = seen.join(", ");
            let text = format!("none of {names} is exported here, and without a type everything would be (TYPE-03)");
            self.problem(IssueType::NotSupported, "_type", text);
        }
    }

    fn type_named(&self, name: &str) -> Option<ResourceType> {
        match self.policy.case_sensitive_types {
            true => ResourceType::parse(name),
            false => ResourceType::all().find(|known| known.name().eq_ignore_ascii_case(name)),
        }
    }

    fn unsupported(&mut self, name: &str, may_be_ignored: bool, values: &[&str]) {
        // An empty parameter asks for nothing (PARAM-07); its name may still be a slip.
        let known = PARAMETERS.iter().any(|parameter| parameter.name == name);
        if known && values.iter().all(|value| value.trim().is_empty()) {
            return;
        }
        let shown: String = name.chars().take(64).collect();
        if self.lenient && may_be_ignored {
            return self.note(format!("{shown}: this parameter is not supported here and was ignored"));
        }
        let similar = PARAMETERS.iter().find(|known| known.supported && known.name.eq_ignore_ascii_case(name));
        let advice = match similar {
            Some(known) => format!("it is written {}", known.name),
            None => "leave it out, or send Prefer: handling=lenient to have it ignored".to_string(),
        };
        self.problem(IssueType::NotSupported, &shown, format!("this parameter is not supported here; {advice}"));
    }

    /// What only several parameters together can have wrong.
    fn together(&mut self, level: &Level) {
        if let (Some(since), Some(until)) = (&self.asked.since, &self.asked.until)
            && since >= until
        {
            let text = format!("{until} is not later than _since, {since}, so that nothing could match (SINCE-09)");
            self.problem(IssueType::Value, "_until", text);
        }
        let outside =
            |types: &[ResourceType]| !types.is_empty() && types.iter().all(|of| !compartment::in_compartment(*of));
        if *level != Level::System && self.problems.is_empty() && outside(&self.asked.types) {
            let names: Vec<&str> = self.asked.types.iter().map(|of| of.name()).collect();
            let text = format!(
                "{} belong to no patient's compartment, so that this level exports none; add a type that does, or export the system (TYPE-04)",
                names.join(", ")
            );
            self.problem(IssueType::NotSupported, "_type", text);
        }
    }
}
