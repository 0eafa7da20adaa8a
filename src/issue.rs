//! What the reader of an export should know: messages, bounded in number and without clinical content.
//!
//! A message names no flag, header or file of the host. It carries the place it speaks of ([`IssuePlace`]), the parameter it
//! is about ([`Parameter`]) and what can be done ([`Advice`]) as data, and each door puts them into its own [`ParameterNames`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::MESSAGES_PER_CAUSE_MAX;
use crate::named_enum::by_name;

/// A parameter of an export. Doors have their own names for it: a flag, a query parameter, a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Parameter {
    Group,
    Patients,
    Patient,
    PatientStrict,
    AssociatedData,
    Type,
    Since,
    Until,
    Elements,
    TypeFilter,
    AsOf,
    Members,
    FhirBase,
    Late,
    MissingLastUpdated,
    Vanished,
    Baseline,
    NewMembers,
    MaxFileBytes,
    MaxFileResources,
    FaultsAllowed,
    Compression,
    CompressionLevel,
    Digest,
    BaseUrl,
    Context,
    Store,
    SearchColumns,
    Out,
}

impl Parameter {
    /// Its name where no door gives it another: FHIR's if it has one, else that of the field of
    /// [`ExportRequest`](crate::request::ExportRequest).
    pub const fn name(self) -> &'static str {
        match self {
            Parameter::Group => "group",
            Parameter::Patients => "patients",
            Parameter::Patient => "patient",
            Parameter::PatientStrict => "patient_strict",
            Parameter::AssociatedData => "includeAssociatedData",
            Parameter::Type => "_type",
            Parameter::Since => "_since",
            Parameter::Until => "_until",
            Parameter::Elements => "_elements",
            Parameter::TypeFilter => "_typeFilter",
            Parameter::AsOf => "as_of",
            Parameter::Members => "members",
            Parameter::FhirBase => "fhir_bases",
            Parameter::Late => "late",
            Parameter::MissingLastUpdated => "missing_last_updated",
            Parameter::Vanished => "vanished",
            Parameter::Baseline => "baseline",
            Parameter::NewMembers => "new_members",
            Parameter::MaxFileBytes => "file_bytes",
            Parameter::MaxFileResources => "file_resources",
            Parameter::FaultsAllowed => "faults_allowed",
            Parameter::Compression => "compression",
            Parameter::CompressionLevel => "level",
            Parameter::Digest => "digest",
            Parameter::BaseUrl => "base_url",
            Parameter::Context => "context",
            Parameter::Store => "store",
            Parameter::SearchColumns => "search_columns",
            Parameter::Out => "out",
        }
    }
}

/// What lists the member that a message speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IssuePlace {
    /// The Group of this id.
    Group(String),
    /// A Group that the Group of this id reaches through others; which one is not told.
    BelowGroup(String),
    /// The Group file that was asked for, which gives no id.
    GroupFile,
    /// A line of the list of patients, from 1.
    PatientList(u64),
}

/// What the reader of a message can do, or what decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// If this base is one of the store's, it can be given as such (reading 5).
    NameBase(String),
    /// A base that ends with a slash is never one of the store's, given or not: only the references can be corrected.
    CorrectReferences,
    /// A Group that is not active can be exported for its members as listed (reading 9).
    TakeAsListed,
    /// The Group can be asked for by id, or be read from a file.
    GroupIdOrFile,
    /// Types outside the Patient compartment are exported at system level (TYPE-04).
    SystemLevel,
    /// The window must begin before it ends; this is where it begins.
    BeginEarlier(String),
    /// Late rows were left out because the request says so ([`LateArrivals::Report`](crate::policies::LateArrivals::Report)).
    LateReported,
    /// An export of nobody can be asked for ([`ExportRequest::allow_empty`](crate::request::ExportRequest::allow_empty)).
    AllowEmpty,
    /// Undated rows were left out because the request says so ([`MissingLastUpdated::Exclude`](crate::policies::MissingLastUpdated::Exclude)).
    UndatedExcluded,
    /// Resources that are gone were only counted because the request says so
    /// ([`Vanished::Report`](crate::policies::Vanished::Report)).
    VanishedReported,
    /// Relative URLs become absolute below a base ([`ExportRequest::base_url`](crate::request::ExportRequest::base_url)).
    GiveBaseUrl,
}

impl Advice {
    /// What can be done about references under a base that is not ours.
    pub(crate) fn on_foreign_base(base: &str) -> Advice {
        if base.ends_with('/') { Advice::CorrectReferences } else { Advice::NameBase(base.to_string()) }
    }
}

/// How a door speaks.
#[derive(Debug)]
pub(crate) struct ParameterNames {
    /// The name of a parameter.
    pub parameter: fn(Parameter) -> &'static str,
    /// The subject of a sentence about a place.
    pub place: fn(&IssuePlace) -> String,
    /// What follows the text of a message, with its own punctuation; none where there is nothing to do.
    pub advice: fn(&Advice) -> Option<String>,
}

/// The words of the library: names of fields and FHIR's parameters, and no advice but what holds at every door.
pub(crate) const PLAIN_NAMES: ParameterNames =
    ParameterNames { parameter: Parameter::name, place: plain_place, advice: plain_advice };

/// The place of an issue in the library's own words, which name no flag or parameter of a front end.
fn plain_place(place: &IssuePlace) -> String {
    match place {
        IssuePlace::Group(id) => format!("Group/{id}"),
        IssuePlace::BelowGroup(id) => format!("a Group below Group/{id}"),
        IssuePlace::GroupFile => "the Group".to_string(),
        IssuePlace::PatientList(line) => format!("line {line} of the list of patients"),
    }
}

/// [`Advice::CorrectReferences`] in words that hold at every door.
pub(crate) const CORRECT_REFERENCES: &str = "; a reference with two slashes before the type names another URL than one with a single slash (RFC 3986), so no setting \
     makes this base one of ours: write these references with a single slash";

/// The advice of an issue in the library's own words, which name no flag or parameter of a front end.
fn plain_advice(advice: &Advice) -> Option<String> {
    match advice {
        Advice::NameBase(base) => Some(format!("; if that base is this store's, name {base} as one of ours")),
        Advice::CorrectReferences => Some(CORRECT_REFERENCES.to_string()),
        Advice::TakeAsListed => Some("; take members as listed to export it".to_string()),
        Advice::SystemLevel => Some(", or export at system level".to_string()),
        Advice::AllowEmpty => Some("; allow_empty exports nobody all the same".to_string()),
        Advice::BeginEarlier(since) => Some(format!("; _since is {since}")),
        Advice::LateReported | Advice::UndatedExcluded | Advice::VanishedReported => Some(", as was asked".to_string()),
        Advice::GiveBaseUrl => Some("; give a base_url where they can be asked for".to_string()),
        Advice::GroupIdOrFile => None,
    }
}

/// Severity of an OperationOutcome issue (<https://hl7.org/fhir/R4/valueset-issue-severity.html>), worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Severity {
    Information,
    Warning,
    Error,
    Fatal,
}

impl Severity {
    /// Every value.
    pub const ALL: [Severity; 4] = [Severity::Information, Severity::Warning, Severity::Error, Severity::Fatal];

    /// Its code in FHIR, which records and answers hold.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Information => "information",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Fatal => "fatal",
        }
    }
}

/// Code of an OperationOutcome issue (<https://hl7.org/fhir/R4/valueset-issue-type.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum IssueCode {
    BusinessRule,
    Conflict,
    Deleted,
    Exception,
    Expired,
    Forbidden,
    Incomplete,
    Informational,
    Invalid,
    Login,
    NoStore,
    NotFound,
    NotSupported,
    Processing,
    Required,
    Structure,
    Throttled,
    Timeout,
    TooCostly,
    TooLong,
    Transient,
    Value,
}

impl IssueCode {
    /// Every value.
    pub const ALL: [IssueCode; 22] = [
        IssueCode::BusinessRule,
        IssueCode::Conflict,
        IssueCode::Deleted,
        IssueCode::Exception,
        IssueCode::Expired,
        IssueCode::Forbidden,
        IssueCode::Incomplete,
        IssueCode::Informational,
        IssueCode::Invalid,
        IssueCode::Login,
        IssueCode::NoStore,
        IssueCode::NotFound,
        IssueCode::NotSupported,
        IssueCode::Processing,
        IssueCode::Required,
        IssueCode::Structure,
        IssueCode::Throttled,
        IssueCode::Timeout,
        IssueCode::TooCostly,
        IssueCode::TooLong,
        IssueCode::Transient,
        IssueCode::Value,
    ];

    /// Its code in FHIR, which records and answers hold.
    pub const fn name(self) -> &'static str {
        match self {
            IssueCode::BusinessRule => "business-rule",
            IssueCode::Conflict => "conflict",
            IssueCode::Deleted => "deleted",
            IssueCode::Exception => "exception",
            IssueCode::Expired => "expired",
            IssueCode::Forbidden => "forbidden",
            IssueCode::Incomplete => "incomplete",
            IssueCode::Informational => "informational",
            IssueCode::Invalid => "invalid",
            IssueCode::Login => "login",
            IssueCode::NoStore => "no-store",
            IssueCode::NotFound => "not-found",
            IssueCode::NotSupported => "not-supported",
            IssueCode::Processing => "processing",
            IssueCode::Required => "required",
            IssueCode::Structure => "structure",
            IssueCode::Throttled => "throttled",
            IssueCode::Timeout => "timeout",
            IssueCode::TooCostly => "too-costly",
            IssueCode::TooLong => "too-long",
            IssueCode::Transient => "transient",
            IssueCode::Value => "value",
        }
    }
}

by_name!(Severity, IssueCode);

/// One issue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Issue {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of thing.
    pub code: IssueCode,
    /// What lists it; its name comes before the text. Not kept in records: a note on a request has none.
    #[serde(skip)]
    pub(crate) place: Option<IssuePlace>,
    /// What, where, and what to do; ids and offsets, never clinical content (OUTCOME-05).
    pub text: String,
    /// What follows the text. Not kept in records either.
    #[serde(skip)]
    pub(crate) advice: Option<Advice>,
}

impl Issue {
    /// A message of no place.
    pub fn new(severity: Severity, code: IssueCode, text: impl Into<String>) -> Issue {
        Issue { severity, code, place: None, text: text.into(), advice: None }
    }

    /// A warning.
    pub fn warning(code: IssueCode, text: impl Into<String>) -> Issue {
        Issue::new(Severity::Warning, code, text)
    }

    /// The same, about what a place lists.
    pub(crate) fn at(self, place: IssuePlace) -> Issue {
        Issue { place: Some(place), ..self }
    }

    /// The same, with what can be done.
    pub(crate) fn advise(self, advice: Advice) -> Issue {
        Issue { advice: Some(advice), ..self }
    }

    /// The sentence that a door prints.
    pub(crate) fn say(&self, words: &ParameterNames) -> String {
        let place = self.place.as_ref().map_or(String::new(), |place| (words.place)(place) + " ");
        let advice = self.advice.as_ref().and_then(words.advice).unwrap_or_default();
        format!("{place}{}{advice}", self.text)
    }
}

/// Messages of one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IssueCause {
    name: &'static str,
    severity: Severity,
    code: IssueCode,
    kept: Vec<Issue>,
    count: u64,
}

/// Messages by cause: the first [`MESSAGES_PER_CAUSE_MAX`] of each are kept, the others counted (OUTCOME-06).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssueLog {
    causes: Vec<IssueCause>,
}

impl IssueLog {
    /// Adds a message under its cause.
    pub fn push(&mut self, cause: &'static str, message: Issue) {
        let cause = self.cause(message.severity, message.code, cause);
        cause.count += 1;
        if cause.kept.len() < MESSAGES_PER_CAUSE_MAX {
            cause.kept.push(message);
        }
    }

    /// Gives messages about one place another one: that of a Group file, once its id is known.
    pub(crate) fn replace_place(&mut self, old: &IssuePlace, new: &IssuePlace) {
        let kept = self.causes.iter_mut().flat_map(|cause| &mut cause.kept);
        kept.filter(|message| message.place.as_ref() == Some(old)).for_each(|m| m.place = Some(new.clone()));
    }

    /// Drops every message of causes of which `keeps` says no.
    pub(crate) fn retain_causes(&mut self, keeps: impl Fn(&str) -> bool) {
        self.causes.retain(|cause| keeps(cause.name));
    }

    /// Counts messages of a cause whose details are not known.
    pub fn more(&mut self, severity: Severity, code: IssueCode, cause: &'static str, count: u64) {
        if count > 0 {
            self.cause(severity, code, cause).count += count;
        }
    }

    /// Adds all of another's.
    pub fn add(&mut self, other: &IssueLog) {
        for cause in &other.causes {
            for message in &cause.kept {
                self.push(cause.name, message.clone());
            }
            self.more(cause.severity, cause.code, cause.name, cause.count - cause.kept.len() as u64);
        }
    }

    /// The entry of the log for a cause, made on its first issue.
    fn cause(&mut self, severity: Severity, code: IssueCode, name: &'static str) -> &mut IssueCause {
        let i = self.causes.iter().position(|known| known.name == name).unwrap_or_else(|| {
            self.causes.push(IssueCause { name, severity, code, kept: Vec::new(), count: 0 });
            self.causes.len() - 1
        });
        let cause = &mut self.causes[i];
        cause.severity = cause.severity.max(severity);
        cause
    }

    /// Every message kept, causes in the order they came up, each with one more line for what was only counted.
    pub fn iter(&self) -> impl Iterator<Item = Issue> + '_ {
        self.causes.iter().flat_map(|cause| {
            let left = cause.count - cause.kept.len() as u64;
            let summary = (left > 0).then(|| {
                let text = format!("{left} more of the same kind ({}), {} in all", cause.name, cause.count);
                Issue::new(cause.severity, cause.code, text)
            });
            cause.kept.iter().cloned().chain(summary)
        })
    }

    /// The first message of each cause that is a warning or worse, with the number of its cause.
    pub(crate) fn warnings(&self) -> Vec<(Issue, u64)> {
        self.first_of_causes(|severity| severity >= Severity::Warning)
    }

    /// The first message of each cause of some severities, with the number of its cause.
    pub(crate) fn first_of_causes(&self, is_wanted: impl Fn(Severity) -> bool) -> Vec<(Issue, u64)> {
        let causes = self.causes.iter().filter(|cause| is_wanted(cause.severity));
        causes.filter_map(|cause| Some((cause.kept.first()?.clone(), cause.count))).collect()
    }

    /// How many there were of each severity.
    pub fn counts(&self) -> BTreeMap<Severity, u64> {
        let mut counts = BTreeMap::new();
        self.causes.iter().for_each(|cause| *counts.entry(cause.severity).or_default() += cause.count);
        counts
    }

    /// Causes that came up more often here than in what a reader was told: name, count, and the first message.
    pub fn withheld<'a>(&'a self, reported: &'a IssueLog) -> impl Iterator<Item = (&'static str, u64, &'a Issue)> {
        let known = |name| reported.causes.iter().find(|cause| cause.name == name).map_or(0, |cause| cause.count);
        let more = self.causes.iter().filter(move |cause| cause.count > known(cause.name));
        more.filter_map(|cause| Some((cause.name, cause.count, cause.kept.first()?)))
    }

    /// The worst severity.
    pub fn worst(&self) -> Option<Severity> {
        self.causes.iter().map(|cause| cause.severity).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OUTCOME-06: a hundred thousand of one cause are so many lines and one more.
    #[test]
    fn messages_of_one_cause_are_bounded() {
        let mut messages = IssueLog::default();
        for n in 0..100_000 {
            messages.push("grammar", Issue::new(Severity::Error, IssueCode::Structure, format!("line {n}")));
        }
        messages.push("member", Issue::warning(IssueCode::NotFound, "Patient/x"));
        messages.more(Severity::Error, IssueCode::Structure, "grammar", 5);
        let all: Vec<Issue> = messages.iter().collect();
        assert_eq!(all.len(), MESSAGES_PER_CAUSE_MAX + 2);
        assert!(all[MESSAGES_PER_CAUSE_MAX].text.contains("100005 in all"));
        assert_eq!(messages.worst(), Some(Severity::Error));
    }
}
