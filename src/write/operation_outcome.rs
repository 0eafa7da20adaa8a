//! The lines of the `error` files: one OperationOutcome a message (OUTCOME-01…06).

use serde_json::json;

use crate::issue::{IssueLog, ParameterNames};

/// One line a message, in the words of a door, without line ends.
pub(crate) fn outcome_lines(messages: &IssueLog, words: &ParameterNames) -> Vec<String> {
    let line = |message: crate::issue::Issue| {
        json!({
            "resourceType": "OperationOutcome",
            "issue": [{ "severity": message.severity, "code": message.code, "diagnostics": message.say(words) }],
        })
        .to_string()
    };
    messages.iter().map(line).collect()
}
