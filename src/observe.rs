//! What the reader of an export should know: messages, bounded in number and without clinical content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::MESSAGES_PER_CAUSE_MAX;
use crate::words::by_name;

/// Severity of an OperationOutcome issue (<https://hl7.org/fhir/R4/valueset-issue-severity.html>), worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
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
pub enum Code {
    Incomplete,
    Informational,
    Invalid,
    NotFound,
    NotSupported,
    Processing,
    Structure,
    TooLong,
}

impl Code {
    /// Every value.
    pub const ALL: [Code; 8] = [
        Code::Incomplete,
        Code::Informational,
        Code::Invalid,
        Code::NotFound,
        Code::NotSupported,
        Code::Processing,
        Code::Structure,
        Code::TooLong,
    ];

    /// Its code in FHIR, which records and answers hold.
    pub const fn name(self) -> &'static str {
        match self {
            Code::Incomplete => "incomplete",
            Code::Informational => "informational",
            Code::Invalid => "invalid",
            Code::NotFound => "not-found",
            Code::NotSupported => "not-supported",
            Code::Processing => "processing",
            Code::Structure => "structure",
            Code::TooLong => "too-long",
        }
    }
}

by_name!(Severity, Code);

/// One issue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of thing.
    pub code: Code,
    /// What, where, and what to do; ids and offsets, never clinical content (OUTCOME-05).
    pub text: String,
}

/// Messages of one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cause {
    name: &'static str,
    severity: Severity,
    code: Code,
    kept: Vec<Message>,
    count: u64,
}

/// Messages by cause: the first [`MESSAGES_PER_CAUSE_MAX`] of each are kept, the others counted (OUTCOME-06).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    causes: Vec<Cause>,
}

impl Messages {
    /// Adds a message under its cause.
    pub fn push(&mut self, severity: Severity, code: Code, cause: &'static str, text: String) {
        let cause = self.cause(severity, code, cause);
        cause.count += 1;
        if cause.kept.len() < MESSAGES_PER_CAUSE_MAX {
            cause.kept.push(Message { severity, code, text });
        }
    }

    /// Counts messages of a cause whose details are not known.
    pub fn more(&mut self, severity: Severity, code: Code, cause: &'static str, count: u64) {
        if count > 0 {
            self.cause(severity, code, cause).count += count;
        }
    }

    /// Adds all of another's.
    pub fn add(&mut self, other: &Messages) {
        for cause in &other.causes {
            for message in &cause.kept {
                self.push(cause.severity, message.code, cause.name, message.text.clone());
            }
            self.more(cause.severity, cause.code, cause.name, cause.count - cause.kept.len() as u64);
        }
    }

    fn cause(&mut self, severity: Severity, code: Code, name: &'static str) -> &mut Cause {
        let at = self.causes.iter().position(|known| known.name == name).unwrap_or_else(|| {
            self.causes.push(Cause { name, severity, code, kept: Vec::new(), count: 0 });
            self.causes.len() - 1
        });
        let cause = &mut self.causes[at];
        cause.severity = cause.severity.max(severity);
        cause
    }

    /// Every message kept, causes in the order they came up, each with one more line for what was only counted.
    pub fn iter(&self) -> impl Iterator<Item = Message> + '_ {
        self.causes.iter().flat_map(|cause| {
            let left = cause.count - cause.kept.len() as u64;
            let summary = (left > 0).then(|| Message {
                severity: cause.severity,
                code: cause.code,
                text: format!("{left} more of the same kind ({}), {} in all", cause.name, cause.count),
            });
            cause.kept.iter().cloned().chain(summary)
        })
    }

    /// How many there were of each severity.
    pub fn counts(&self) -> BTreeMap<Severity, u64> {
        let mut counts = BTreeMap::new();
        self.causes.iter().for_each(|cause| *counts.entry(cause.severity).or_default() += cause.count);
        counts
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
        let mut messages = Messages::default();
        for n in 0..100_000 {
            messages.push(Severity::Error, Code::Structure, "grammar", format!("line {n}"));
        }
        messages.push(Severity::Warning, Code::NotFound, "member", "Patient/x".into());
        messages.more(Severity::Error, Code::Structure, "grammar", 5);
        let all: Vec<Message> = messages.iter().collect();
        assert_eq!(all.len(), MESSAGES_PER_CAUSE_MAX + 2);
        assert!(all[MESSAGES_PER_CAUSE_MAX].text.contains("100005 in all"));
        assert_eq!(messages.worst(), Some(Severity::Error));
    }
}
