//! Texts of errors and issues as the command line prints them: parameters by their flags, and advice that names flags.

use crate::count_text::{counted, word_form};
use crate::error::{DirectoryContent, ExportError, IndexError, JournalError, PackError, RequestError, limit_of};
use crate::issue::{Advice, CORRECT_REFERENCES, PLAIN_NAMES, Parameter, ParameterNames};
use crate::verify::VerifyError;

/// Names of parameters in texts of the command line: their flags.
pub(crate) const FLAGS: ParameterNames = ParameterNames { parameter: flag, place: PLAIN_NAMES.place, advice };

/// The flag of a parameter.
fn flag(parameter: Parameter) -> &'static str {
    match parameter {
        Parameter::Group => "--group",
        Parameter::Patients => "--patients",
        Parameter::Patient => "--patient",
        Parameter::PatientStrict => "--patient-strict",
        Parameter::AssociatedData => "--include-associated-data",
        Parameter::Type => "--type",
        Parameter::Since => "--since",
        Parameter::Until => "--until",
        Parameter::Elements => "--elements",
        Parameter::TypeFilter => "--type-filter",
        Parameter::AsOf => "--as-of",
        Parameter::Members => "--members",
        Parameter::FhirBase => "--fhir-base",
        Parameter::Late => "--late",
        Parameter::MissingLastUpdated => "--missing-last-updated",
        Parameter::Vanished => "--vanished",
        Parameter::Baseline => "--since-manifest",
        Parameter::NewMembers => "--new-members",
        Parameter::MaxFileBytes => "--max-file-bytes",
        Parameter::MaxFileResources => "--max-file-resources",
        Parameter::FaultsAllowed => "--faults-allowed",
        Parameter::Compression => "--compress",
        Parameter::CompressionLevel => "--level",
        Parameter::Digest => "--digest",
        Parameter::BaseUrl => "--base-url",
        Parameter::Context => "--context",
        Parameter::Store => "--store",
        Parameter::SearchColumns => "--search",
        Parameter::Out => "--out",
    }
}

/// Advice in words of the command line, to be appended to the text that it belongs to.
fn advice(advice: &Advice) -> Option<String> {
    Some(match advice {
        Advice::NameBase(base) => format!("; if that base is this store's, give --fhir-base {base}"),
        Advice::CorrectReferences => CORRECT_REFERENCES.to_string(),
        Advice::TakeAsListed => "; use --members listed to export it".to_string(),
        Advice::GroupIdOrFile => "; give an id, or a path with a '/'".to_string(),
        Advice::SystemLevel => ", or export with --system".to_string(),
        Advice::AllowEmpty => "; give --allow-empty for an export without records".to_string(),
        Advice::BeginEarlier(since) => format!("; give a later one, or an earlier --since than {since}"),
        Advice::LateReported => ", as --late report asks".to_string(),
        Advice::UndatedExcluded => ", as --missing-last-updated exclude asks".to_string(),
        Advice::GiveBaseUrl => "; give --base-url, of a service of this store, to make them absolute".to_string(),
        Advice::VanishedReported => ", as --vanished report asks; --vanished delete lists them".to_string(),
    })
}

/// The lines of an error's own text, one for each problem of a request; its causes are not included.
pub(crate) fn lines(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let text = if let Some(error) = error.downcast_ref() {
        export_text(error)
    } else if let Some(error) = error.downcast_ref::<RequestError>() {
        error.say(&FLAGS).join("\n")
    } else if let Some(error) = error.downcast_ref() {
        index_text(error)
    } else if let Some(error) = error.downcast_ref() {
        journal_text(error)
    } else if let Some(error) = error.downcast_ref() {
        pack_text(error)
    } else if let Some(VerifyError::Index(error)) = error.downcast_ref() {
        index_text(error)
    } else {
        error.to_string()
    };
    text.lines().map(str::to_string).collect()
}

/// The text of an export error, with the flags that help.
fn export_text(error: &ExportError) -> String {
    match error {
        ExportError::Request(request) => request.say(&FLAGS).join("\n"),
        ExportError::Index(index) => index_text(index),
        ExportError::Record(journal) => journal_text(journal),
        ExportError::Write { .. } => format!("{error}; {}, then run the same command with --resume", cure(error)),
        // What was relative then is another time now.
        ExportError::Differs {
            parameter: Some(which @ (Parameter::Since | Parameter::Until)),
            recorded,
            given,
            ..
        } => {
            format!(
                "cannot resume: {0} differs ({recorded} then, {given} now); repeat the first command with --resume, with \
                 {0} as it was taken then, or begin anew with --force",
                flag(*which)
            )
        }
        ExportError::Differs { parameter, field, recorded, given } => format!(
            "cannot resume: {} differs ({recorded} then, {given} now); repeat the first command with --resume, or begin \
             anew with --force",
            parameter.map_or(field.as_str(), |parameter| flag(parameter))
        ),
        ExportError::Faults { faults, lines, allowed } => format!(
            "{faults} of {} {} faulty, which is more than {} {allowed} permits; `outpour verify --faults STORE` \
             lists them. Nothing was published",
            counted(*lines, "line"),
            word_form(*faults, "is", "are"),
            flag(Parameter::FaultsAllowed)
        ),
        ExportError::Cancelled => format!("{error}; run the same command with --resume to go on"),
        _ => error.to_string(),
    }
}

/// What helps when something cannot be written: room, unless a limit of the process is what was reached.
fn cure(error: &(dyn std::error::Error + 'static)) -> String {
    limit_of(error).unwrap_or_else(|| "make room".to_string())
}

/// An error of a store or its index, as a whole.
pub(crate) fn index_text(error: &IndexError) -> String {
    if let Some(limit) = limit_of(error) {
        return format!("{error}; {limit}");
    }
    let advice = match error {
        IndexError::NoStore { .. } => "; give the directory that holds the .ndjson files with --store",
        IndexError::Write { .. } => "; make room, or choose another place with --index-dir",
        IndexError::ReadIndex { .. } => {
            "; check the disk that holds it and its permissions, then run the same command again"
        }
        IndexError::ForeignIndex { .. } => "; choose an --index-dir of its own for each store",
        IndexError::Damaged(_) => {
            "; run `outpour index --recheck` on the store, which repairs it, and check the disk that holds it"
        }
        IndexError::NoDataFiles { links: 1.., .. } => {
            "; give the directory that holds the .ndjson files with --store, or --follow-symlinks to have links followed \
             (with an index that does not, `outpour index --remake --follow-symlinks`)"
        }
        IndexError::IgnoreFile(..) => "; correct it, or remove it to have everything read",
        IndexError::NoDataFiles { .. } => "; give the directory that holds the .ndjson files with --store",
        IndexError::ResourcesMissing { .. } => ", or, if they are to be gone, allow it with --allow-missing",
        IndexError::OtherChoices { .. } => {
            "; leave the option out to go on as the index was made, or make it again with `outpour index --remake` and the \
             options that it is to have, which keeps what it remembers of exports"
        }
        IndexError::SnapshotLost { restorable: true, .. } => "; put it back, or begin anew with --force",
        IndexError::SnapshotLost { .. } => "; begin anew with --force",
        _ => "",
    };
    format!("{error}{advice}")
}

/// The text of a journal error, with the flags that help.
fn journal_text(error: &JournalError) -> String {
    if let Some(limit) = limit_of(error) {
        return format!("{error}; {limit}");
    }
    let advice = match error {
        JournalError::Unsynced { .. } => "; run `sync`, or the same command with --resume, before you rely on it",
        JournalError::Io { .. } => "; choose another directory with --out, or make it writable",
        JournalError::Busy { .. } => "; wait for it, or choose another directory with --out",
        JournalError::NotEmpty { holds: DirectoryContent::Finished, .. } => {
            "; choose another directory, or replace it with --force"
        }
        JournalError::NotEmpty { holds: DirectoryContent::Interrupted, .. } => {
            "; finish it with --resume, or begin anew with --force"
        }
        JournalError::NotEmpty { holds: DirectoryContent::Replacement, .. } => {
            "; finish that with --resume, or begin anew with --force"
        }
        JournalError::NotEmpty { holds: DirectoryContent::Increment | DirectoryContent::Job, .. } => {
            "; choose another directory"
        }
        JournalError::NotEmpty { holds: DirectoryContent::Foreign(_), .. } => {
            "; choose another directory, or use --force, which leaves foreign files alone"
        }
        JournalError::NotEmpty { holds: DirectoryContent::OtherChain, .. } => "",
        JournalError::Damaged { .. } => "; begin anew with --force",
        JournalError::Foreign { .. } => "; move it away, or choose another directory with --out",
    };
    format!("{error}{advice}")
}

/// The text of a pack error, with the flags that help.
fn pack_text(error: &PackError) -> String {
    match error {
        PackError::Index(index) => index_text(index),
        PackError::Target { path, reason } => {
            format!("--to: {} {reason}; give a directory that is not there yet, or an empty one", path.display())
        }
        PackError::Inside { to, store } => format!(
            "--to: {} lies inside the store {}, where the next command would read it as input; choose a directory outside",
            to.display(),
            store.display()
        ),
        PackError::Write { path, source } => {
            format!("cannot write {}: {source}; {}, then pack again", path.display(), cure(error))
        }
        PackError::Code(reason) => {
            format!("zstd cannot compress: {reason}; free some memory, or choose a lower --level")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CorruptIndex;

    /// What the command line says of errors that carry data, to the byte: scripts compare it.
    #[test]
    fn flags_are_named_as_they_were() {
        let path = || std::path::PathBuf::from("/p");
        let io = || std::io::Error::other("full");
        let journal = |holds| ExportError::Record(JournalError::NotEmpty { path: path(), holds });
        let differs = |parameter, field: &str| ExportError::Differs {
            parameter,
            field: field.to_string(),
            recorded: "a".to_string(),
            given: "b".to_string(),
        };
        let cases: Vec<(ExportError, &str)> = vec![
            (
                IndexError::NoStore { path: path(), reason: "is not there" }.into(),
                "the store /p is not there; give the directory that holds the .ndjson files with --store",
            ),
            (
                IndexError::ResourcesMissing {
                    gone: 2,
                    present: 9,
                    allowed: 10.0,
                    files: "2 of a, which is gone".into(),
                }
                .into(),
                "2 of 9 resources of the last snapshot are gone from the store without a deletion, more than 10 % (2 of a, \
                 which is gone): mount or restore what is missing, or, if they are to be gone, allow it with \
                 --allow-missing",
            ),
            (
                IndexError::NoDataFiles { path: path(), others: ", but 1 symbolic link: a".into(), links: 1 }.into(),
                "the store /p holds no data file (.ndjson or .jsonl, with .gz or .zst or nothing behind it), but 1 symbolic \
                 link: a: check that it is mounted and that the path is right; give the directory that holds the .ndjson \
                 files with --store, or --follow-symlinks to have links followed (with an index that does not, `outpour \
                 index --remake --follow-symlinks`)",
            ),
            (
                IndexError::IgnoreFile(path(), "line 2 is no pattern: x".into()).into(),
                "/p: line 2 is no pattern: x; correct it, or remove it to have everything read",
            ),
            (
                IndexError::Write { name: "n".into(), source: io() }.into(),
                "cannot write the index file n: full; make room, or choose another place with --index-dir",
            ),
            (
                IndexError::ReadIndex { name: "n".into(), source: io() }.into(),
                "cannot read the index file n: full; nothing was changed; check the disk that holds it and its permissions, \
                 then run the same command again",
            ),
            (
                IndexError::ForeignIndex { index: path(), recorded: "/a".into(), store: "/b".into() }.into(),
                "the index in /p was made of the store /a, and none of its files is in /b; choose an --index-dir of its own \
                 for each store",
            ),
            (
                CorruptIndex("x").into(),
                "the index is damaged: x; run `outpour index --recheck` on the store, which repairs it, and check the \
                 disk that holds it",
            ),
            (
                IndexError::SnapshotLost { path: path(), reason: "is no longer there", restorable: true }.into(),
                "the store file /p is no longer there; put it back, or begin anew with --force",
            ),
            (
                ExportError::Write { directory: path(), name: "n".into(), source: io() },
                "cannot write n in /p: full; make room, then run the same command with --resume",
            ),
            (
                differs(Some(Parameter::Compression), "--compress"),
                "cannot resume: --compress differs (a then, b now); repeat the first command with --resume, or begin \
                 anew with --force",
            ),
            (
                differs(None, "the plan"),
                "cannot resume: the plan differs (a then, b now); repeat the first command with --resume, or begin anew \
                 with --force",
            ),
            (
                ExportError::Faults { faults: 2, lines: 3, allowed: "1".into() },
                "2 of 3 lines are faulty, which is more than --faults-allowed 1 permits; `outpour verify --faults STORE` \
                 lists them. Nothing was published",
            ),
            (ExportError::Cancelled, "stopped on request; run the same command with --resume to go on"),
            (
                journal(DirectoryContent::Foreign("f".into())),
                "the output directory /p holds f, which is not of an export; choose another directory, or use --force, \
                 which leaves foreign files alone",
            ),
            (
                journal(DirectoryContent::Replacement),
                "the output directory /p holds an export and an unfinished one that is to replace it; finish that with \
                 --resume, or begin anew with --force",
            ),
            (
                journal(DirectoryContent::Finished),
                "the output directory /p holds a finished export; choose another directory, or replace it with --force",
            ),
            (
                JournalError::Damaged { path: path(), reason: "r".into() }.into(),
                "the record /p cannot be read (r); begin anew with --force",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(lines(&error), [text]);
            assert!(!error.to_string().contains("--"), "{error}");
        }
    }
}
