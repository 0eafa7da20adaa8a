//! Texts about members that do not resolve, shared by Groups and lists.

use crate::error::{RequestError, RequestProblem};
use crate::issue::{Issue, IssueCode, Parameter};
use crate::limits::REFERENCE_CHARS_TOLD_MAX;

/// A member's reference as a message repeats it: in quotes, control characters escaped, cut if it is long.
pub(crate) fn quote(reference: &str) -> String {
    match reference.char_indices().nth(REFERENCE_CHARS_TOLD_MAX) {
        Some((end, _)) => format!("{:?} (cut here)", &reference[..end]),
        None => format!("{reference:?}"),
    }
}

/// What is wrong with what came with the request, after the name of its file if it lay in one.
pub(crate) fn prefixed(name: Option<&str>, text: String) -> String {
    name.map_or_else(String::new, |name| format!("{name}: ")) + &text
}

/// The request error that a named file of members cannot be read.
pub(crate) fn unreadable_error(parameter: Parameter, name: &str, error: &std::io::Error) -> RequestError {
    RequestError::one(RequestProblem::of(parameter, format!("{name}: cannot be read: {error}")))
}

/// The message about a member that resolves to no Group: it is not there, or not for the writer of the Group that
/// lists it.
pub(crate) fn absent_group(name: &str) -> Issue {
    let text = format!("lists {name}, which the store does not hold, or not as it stands; it was not followed");
    Issue::warning(IssueCode::NotFound, text)
}
