//! What is wrong with a Group, or with a question about Groups: its kind, its place and words, and no content.

use crate::extract::fault::{Fault, FaultKind};
use crate::limits::GROUP_PROBLEMS_MAX;

/// What kind of thing is wrong with a document or a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleKind {
    /// It cannot be read as what it should be.
    Structure,
    /// Something that must be there is not.
    Required,
    /// A value is not among those allowed.
    Value,
    /// Two elements contradict each other.
    Invariant,
    /// It is larger than allowed.
    TooLong,
    /// R4 allows it, the rules of the door do not.
    BusinessRule,
    /// It is not known or not done here.
    NotSupported,
}

/// Something wrong with a document or a question, without any of its content but ids and codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleViolation {
    /// What kind.
    pub kind: RuleKind,
    /// The element or parameter, as a FHIRPath where it is an element.
    pub expression: Option<String>,
    /// What is wrong, and what to do.
    pub text: String,
}

/// A text that cannot be read, by line and column, in bytes, from 1.
pub(crate) fn unreadable(fault: Fault, line: u64, column: u64) -> RuleViolation {
    let text = match fault.kind {
        FaultKind::DuplicateKey => "a key stands twice in one object; parsers disagree on which one holds".to_string(),
        FaultKind::NotObject => "this is no JSON object; give one Group resource".to_string(),
        FaultKind::Trailing => "something follows the Group; give one Group resource".to_string(),
        FaultKind::Truncated => "the text ends inside its resource; give it as a whole".to_string(),
        FaultKind::Utf8 => "the text is not UTF-8; convert it".to_string(),
        FaultKind::Bom => "the text begins with a byte order mark; remove it".to_string(),
        kind => kind.to_string(),
    };
    RuleViolation { kind: RuleKind::Structure, expression: None, text: format!("line {line}, column {column}: {text}") }
}

/// Problems of one Group, as many as are told.
#[derive(Default)]
pub(crate) struct RuleViolations {
    kept: Vec<RuleViolation>,
    more: usize,
}

impl RuleViolations {
    /// A problem of a single element; beyond the bound it is counted only.
    pub(crate) fn push(&mut self, kind: RuleKind, expression: &str, text: impl FnOnce() -> String) {
        match self.kept.len() < GROUP_PROBLEMS_MAX {
            true => self.push_last(kind, expression, text()),
            false => self.more += 1,
        }
    }

    /// One of the few that decide about the Group as a whole, which no number of others may hide.
    pub(crate) fn push_last(&mut self, kind: RuleKind, expression: &str, text: impl Into<String>) {
        self.kept.push(RuleViolation { kind, expression: Some(expression.to_string()), text: text.into() });
    }

    /// Whether further problems of single elements are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.more > 0
    }

    /// All that are told, and how many are not.
    pub(crate) fn into_violations(mut self) -> Vec<RuleViolation> {
        if self.more > 0 {
            let text = format!("{} more problems of this Group are not listed", self.more);
            self.kept.push(RuleViolation { kind: RuleKind::Structure, expression: None, text });
        }
        self.kept
    }
}
