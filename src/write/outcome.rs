//! The lines of the `error` files: one OperationOutcome a message (OUTCOME-01…06).

use serde_json::json;

use crate::observe::Messages;

/// One line a message, without line ends.
pub fn outcome_lines(messages: &Messages) -> Vec<String> {
    let line = |message: crate::observe::Message| {
        json!({
            "resourceType": "OperationOutcome",
            "issue": [{ "severity": message.severity, "code": message.code, "diagnostics": message.text }],
        })
        .to_string()
    };
    messages.iter().map(line).collect()
}
