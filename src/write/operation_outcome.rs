//! Lines of the `error` files: one OperationOutcome an issue (OUTCOME-01…06).

use serde_json::json;

use crate::issue::{IssueLog, ParameterNames};

/// One OperationOutcome line an issue, without line ends. `words` are the names that the caller's interface has for
/// request parameters.
pub(crate) fn outcome_lines(issues: &IssueLog, words: &ParameterNames) -> Vec<String> {
    let line = |issue: crate::issue::Issue| {
        json!({
            "resourceType": "OperationOutcome",
            "issue": [{ "severity": issue.severity, "code": issue.code, "diagnostics": issue.say(words) }],
        })
        .to_string()
    };
    issues.iter().map(line).collect()
}
