//! The words of the service: parameters as the query names them, and advice that a client can follow. No option of the
//! command line, no setting and no file of the host is named (OUTCOME-05).

use crate::issue::{Advice, Parameter, Place, Words};

/// See the module.
pub const HTTP_WORDS: Words = Words { parameter: Parameter::name, place, advice };

fn place(place: &Place) -> String {
    match place {
        Place::Group(id) => format!("Group/{id}"),
        Place::BelowGroup(id) => format!("a Group below Group/{id}"),
        Place::GroupFile => "the Group".to_string(),
        Place::PatientList(_) => "the request".to_string(),
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
