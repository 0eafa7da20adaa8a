//! Wording of export messages for HTTP clients: parameters by their query names, and advice that a client can follow.
//! No command-line option, setting or file of the host is named (OUTCOME-05).

use crate::issue::{Advice, CORRECT_REFERENCES, IssuePlace, Parameter, ParameterNames};

/// The words of the service, for messages of the job engine.
pub(crate) const HTTP_WORDS: ParameterNames =
    ParameterNames { parameter: Parameter::name, place: place_text, advice: advice_text };

/// The words for the place of an issue, without paths of the host.
fn place_text(place: &IssuePlace) -> String {
    match place {
        IssuePlace::Group(id) => format!("Group/{id}"),
        IssuePlace::BelowGroup(id) => format!("a Group below Group/{id}"),
        IssuePlace::GroupFile => "the Group".to_string(),
        IssuePlace::PatientList(_) => "the request".to_string(),
    }
}

/// The advice at the end of a message; `None` if a client cannot follow it.
fn advice_text(advice: &Advice) -> Option<String> {
    match advice {
        Advice::NameBase(_) => Some("; if that base is this server's, tell its operator".to_string()),
        Advice::CorrectReferences => Some(CORRECT_REFERENCES.to_string()),
        Advice::BeginEarlier(since) => Some(format!("; _since is {since}")),
        Advice::LateReported | Advice::UndatedExcluded | Advice::VanishedReported => {
            Some(", as this service is configured".to_string())
        }
        Advice::TakeAsListed
        | Advice::GroupIdOrFile
        | Advice::SystemLevel
        | Advice::AllowEmpty
        | Advice::GiveBaseUrl => None,
    }
}
