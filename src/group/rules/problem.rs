//! Violations of the rules for Groups and for searches of Groups: kind, element and text, without content of the Group.
//!
//! Doors map kinds to their own codes; this module knows no HTTP status and no OperationOutcome.

use crate::count_text::{counted, word_form};
use crate::extract::fault::{Fault, FaultKind};
use crate::issue::IssueCode;
use crate::limits::GROUP_PROBLEMS_MAX;

/// One violation in a Group or a search, without content other than ids and codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleViolation {
    /// Kind of the violation.
    pub kind: IssueCode,
    /// FHIRPath of the element, or name of the parameter; `None` for the text as a whole.
    pub expression: Option<String>,
    /// What is wrong, and what to do about it.
    pub text: String,
}

/// The violation for a text that is no JSON object, at a line and a column in bytes, both from 1.
pub(crate) fn unreadable(fault: Fault, line: u64, column: u64) -> RuleViolation {
    let text = match fault.kind {
        FaultKind::DuplicateKey => "a key stands twice in one object; parsers disagree on which one holds".to_string(),
        FaultKind::NotObject => "this is no JSON object; give one Group resource".to_string(),
        FaultKind::Trailing => "something follows the Group; give one Group resource".to_string(),
        FaultKind::Truncated => "the text ends inside its resource; give it as a whole".to_string(),
        FaultKind::Utf8 => "the text is not UTF-8; convert it".to_string(),
        FaultKind::Bom => {
            "a byte order mark stands where only the start of the text may have one; remove it".to_string()
        }
        kind => kind.to_string(),
    };
    RuleViolation {
        kind: IssueCode::Structure,
        expression: None,
        text: format!("line {line}, column {column}: {text}"),
    }
}

/// Violations of one Group: at most [`GROUP_PROBLEMS_MAX`] of single elements, and those of the Group as a whole.
#[derive(Default)]
pub(crate) struct RuleViolations {
    listed: Vec<RuleViolation>,
    /// Violations of single elements that are counted only.
    unlisted: usize,
}

impl RuleViolations {
    /// Adds a violation of a single element; beyond the bound it is only counted, and `text` is not called.
    pub(crate) fn push(&mut self, kind: IssueCode, expression: &str, text: impl FnOnce() -> String) {
        match self.listed.len() < GROUP_PROBLEMS_MAX {
            true => self.push_last(kind, expression, text()),
            false => self.unlisted += 1,
        }
    }

    /// Adds a violation of the Group as a whole, beyond the bound, too: no number of others may hide it.
    pub(crate) fn push_last(&mut self, kind: IssueCode, expression: &str, text: impl Into<String>) {
        self.listed.push(RuleViolation { kind, expression: Some(expression.to_string()), text: text.into() });
    }

    /// Whether a violation of a single element was counted only, so that further ones will be.
    pub(crate) fn is_full(&self) -> bool {
        self.unlisted > 0
    }

    /// All listed violations, and one more with the number of those that were only counted.
    pub(crate) fn into_violations(mut self) -> Vec<RuleViolation> {
        if self.unlisted > 0 {
            let more = self.unlisted as u64;
            let text =
                format!("{} of this Group {} not listed", counted(more, "more problem"), word_form(more, "is", "are"));
            self.listed.push(RuleViolation { kind: IssueCode::Structure, expression: None, text });
        }
        self.listed
    }
}
