//! The words of the service: parameters as the query names them, and advice that a client can follow. No option of the
//! command line, no setting and no file of the host is named (OUTCOME-05).

use crate::issue::{Advice, IssuePlace, Parameter, ParameterNames};

/// See the module.
pub(crate) const HTTP_WORDS: ParameterNames = ParameterNames { parameter: Parameter::name, place, advice };

fn place(place: &IssuePlace) -> String {
    match place {
        IssuePlace::Group(id) => format!("Group/{id}"),
        IssuePlace::BelowGroup(id) => format!("a Group below Group/{id}"),
        IssuePlace::GroupFile => "the Group".to_string(),
        IssuePlace::PatientList(_) => "the request".to_string(),
    }
}

fn advice(advice: &Advice) -> Option<String> {
    match advice {
        Advice::NameBase(_) => Some("; if that base is this server's, tell its operator".to_string()),
        Advice::BeginEarlier(since) => Some(format!("; _since is {since}")),
        Advice::LateReported | Advice::UndatedExcluded => Some(", as this service is configured".to_string()),
        Advice::TakeAsListed | Advice::GroupIdOrFile | Advice::SystemLevel | Advice::AllowEmpty => None,
    }
}
