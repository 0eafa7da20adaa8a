//! Texts of errors and issues as the command line prints them: parameters by their flags, and advice that names flags.

use crate::error::{ExportError, RequestError};
use crate::issue::{Advice, PLAIN_NAMES, Parameter, ParameterNames};

/// Names of parameters in texts of the command line: their flags.
pub(crate) const FLAGS: ParameterNames = ParameterNames { parameter: flag, place: PLAIN_NAMES.place, advice };

/// The flag of a parameter.
fn flag(parameter: Parameter) -> &'static str {
    match parameter {
        Parameter::Group => "--group",
        Parameter::Patients => "--patients",
        Parameter::Type => "--type",
        Parameter::Since => "--since",
        Parameter::Until => "--until",
        Parameter::AsOf => "--as-of",
        Parameter::Members => "--members",
        Parameter::FhirBase => "--fhir-base",
        Parameter::Late => "--late",
        Parameter::MissingLastUpdated => "--missing-last-updated",
        Parameter::MaxFileBytes => "--max-file-bytes",
        Parameter::MaxFileResources => "--max-file-resources",
        Parameter::FaultsAllowed => "--faults-allowed",
        Parameter::BaseUrl => "--base-url",
        Parameter::Context => "--context",
        Parameter::Store => "--store",
        Parameter::Out => "--out",
    }
}

/// Advice in words of the command line, to be appended to the text that it belongs to.
fn advice(advice: &Advice) -> Option<String> {
    Some(match advice {
        Advice::NameBase(base) => format!("; if that base is this store's, give --fhir-base {base}"),
        Advice::TakeAsListed => "; use --members listed to export it".to_string(),
        Advice::GroupIdOrFile => "; give an id, or a path with a '/'".to_string(),
        Advice::SystemLevel => ", or export with --system".to_string(),
        Advice::AllowEmpty => "; give --allow-empty for an export without records".to_string(),
        Advice::BeginEarlier(since) => format!("; give a later one, or an earlier --since than {since}"),
        Advice::LateReported => ", as --late report asks".to_string(),
        Advice::UndatedExcluded => ", as --missing-last-updated exclude asks".to_string(),
    })
}

/// The lines of an error's own text, one for each problem of a request; its causes are not included.
pub(crate) fn lines(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let request = error.downcast_ref::<RequestError>().or(match error.downcast_ref() {
        Some(ExportError::Request(request)) => Some(request),
        _ => None,
    });
    match request {
        Some(request) => request.say(&FLAGS).iter().flat_map(|text| text.lines()).map(str::to_string).collect(),
        None => error.to_string().lines().map(str::to_string).collect(),
    }
}
