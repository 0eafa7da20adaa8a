//! What the files and rows of a store give occasion to say, whatever is asked of it: for the messages of an export, and for
//! the commands that read a store as a whole.

use std::collections::HashSet;

use crate::count_text::{counted, word_form};
use crate::error::CorruptIndex;
use crate::fhir::reference::OddReference;
use crate::index::meta::FileEntry;
use crate::index::other_data::{FaultTotals, OtherData};
use crate::index::segment::layout::Column;
use crate::index::segment::row_note::RowNote;
use crate::index::snapshot::Snapshot;
use crate::issue::{Issue, IssueCode, IssueLog, Severity};
use crate::select::file_order::count_decided_by_file;
use crate::store::walk::{Walk, excluded_text};
use crate::sys::regular_file::Links;

/// Names of files that are not read in a message; the others are counted.
const FILES_NAMED_MAX: usize = 5;

/// All of it, for the operator of a store.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn store_issues(snapshot: &Snapshot) -> Result<IssueLog, CorruptIndex> {
    let mut messages = IssueLog::default();
    let ours: Vec<bool> = snapshot.index().bases().iter().map(String::is_empty).collect();
    add_versions_by_file(snapshot, &ours, &mut messages)?;
    add_row_notes(snapshot, &mut messages)?;
    let other_data = FaultTotals::of(snapshot.index())?.other_data;
    add_file_issues(snapshot, &other_data, &HashSet::new(), &mut messages);
    add_operator_issues(snapshot, &mut messages);
    Ok(messages)
}

/// Adds a warning about versions of which only the names of their files say which one is current. `ours` holds for each base
/// of the index whether it is a base of this store.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn add_versions_by_file(
    snapshot: &Snapshot,
    ours: &[bool],
    messages: &mut IssueLog,
) -> Result<(), CorruptIndex> {
    let by_file = count_decided_by_file(snapshot, ours)?;
    if by_file > 0 {
        let text = format!(
            "{} {} versions in several files that no meta.lastUpdated and no versionId tells apart: the one in the file whose \
             name comes last is taken as current; give each version a meta.lastUpdated",
            counted(by_file, "resource"),
            word_form(by_file, "has", "have")
        );
        messages.push("version-by-file", Issue::new(Severity::Warning, IssueCode::Informational, text));
    }
    Ok(())
}

/// Adds what only the operator of the store is told: which files are not read, and that its index goes on as an earlier
/// version did.
pub(crate) fn add_operator_issues(snapshot: &Snapshot, messages: &mut IssueLog) {
    let walked = snapshot.index().walked();
    let passed_over = &walked.ignored;
    if !passed_over.is_empty() {
        let names = passed_over.iter().take(FILES_NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if passed_over.len() > FILES_NAMED_MAX { ", ..." } else { "" };
        let text = format!(
            "{} of the store not read: {names}{more}. Names of data files end in .ndjson or .jsonl, with .gz or .zst behind it; \
             beside the manifest of an export only what it lists is read{}",
            counted(passed_over.len() as u64, "file"),
            links_text(walked)
        );
        messages.push("files-not-read", Issue::new(Severity::Warning, IssueCode::Informational, text));
    }
    if walked.excluded > 0 {
        let text = format!("{} of the store passed over, as .outpourignore asks", excluded_text(walked.excluded));
        messages.push("excluded", Issue::new(Severity::Information, IssueCode::Informational, text));
    }
    if !snapshot.index().generation().chosen {
        let text = "The index was made by a version that did not know --ids, --lone-surrogates, --patient-references and \
                    --follow-symlinks; it goes on as that version did (r4, pass, strict, no), and without files whose names \
                    are no UTF-8 or do not end as names did then. `outpour index --remake` with the options of the \
                    store takes the defaults of this version, and keeps what the index remembers of exports"
            .to_string();
        messages.push("earlier-rules", Issue::new(Severity::Information, IssueCode::Informational, text));
    }
}

/// How many of the files that are not read are symbolic links, and what can be done; empty if none is.
fn links_text(walked: &Walk) -> String {
    match (walked.ignored_links, walked.rules.links) {
        (0, _) => String::new(),
        (links, Links::Refuse) => format!(
            ". {} of them {}: with --follow-symlinks links are followed",
            links,
            word_form(links, "is a symbolic link", "are symbolic links")
        ),
        (links, Links::Follow) => format!(
            ". {} of them {}, to nothing, in a circle or to no data file",
            links,
            word_form(links, "is a symbolic link", "are symbolic links")
        ),
    }
}

/// Adds the warnings about rows that are no faults: one for each kind of note, with the place of the first row.
pub(crate) fn add_row_notes(snapshot: &Snapshot, messages: &mut IssueLog) -> Result<(), CorruptIndex> {
    let index = snapshot.index();
    let mut counts = [0u64; RowNote::ALL.len()];
    let mut places: [Option<String>; RowNote::ALL.len()] = Default::default();
    let (mut file, mut lines_before) = (None, 0);
    for segment in snapshot.segments() {
        let (entry, own, header) = (index.entry(segment), index.file_of(segment), index.segment(segment).head());
        if file != Some(own) {
            (file, lines_before) = (Some(own), 0);
        }
        if header.notes > 0 {
            let columns = index.segment(segment).verify_columns(&[Column::NoteCount, Column::NotePlace])?;
            for (kind, count) in columns.note_count.iter().enumerate().filter(|(_, count)| **count > 0) {
                counts[kind] += count;
                places[kind].get_or_insert_with(|| {
                    let [offset, line] = columns.note_place[kind];
                    let (line, byte) = (lines_before + u64::from(line) + 1, entry.start + u64::from(offset));
                    format!("{}: line {line} at byte {byte}", index.file_name(own))
                });
            }
        }
        lines_before += header.lines;
    }
    for ((note, count), place) in RowNote::ALL.iter().zip(counts).zip(places) {
        if let Some(place) = place {
            let (cause, text) = note_text(*note);
            let issue =
                Issue::new(Severity::Warning, IssueCode::Informational, format!("{text}: {count}; the first: {place}"));
            messages.push(cause, issue);
        }
    }
    Ok(())
}

/// Adds a warning for each file that is something else than its name says, or holds no FHIR; not for those of `told`.
pub(crate) fn add_file_issues(
    snapshot: &Snapshot,
    other_data: &[OtherData],
    told: &HashSet<String>,
    messages: &mut IssueLog,
) {
    let index = snapshot.index();
    let mut warn = |cause, text| messages.push(cause, Issue::new(Severity::Warning, IssueCode::Informational, text));
    let is_other = |file: &&FileEntry| file.other_compression().is_some() && !told.contains(&file.name);
    for file in index.generation().files.iter().filter(is_other) {
        let (name, found) = (&file.name, file.compression.noun());
        warn(
            "other-compression",
            format!(
                "{name}: the file is {found}, though its name says otherwise; it was read as what it is: rename it"
            ),
        );
    }
    for other in other_data {
        let (name, lines) = (index.file_name(other.file), counted(other.lines, "line"));
        warn(
            "no-fhir",
            format!(
                "{name}: passed over, because none of its {lines} has a resourceType: it holds no FHIR; list it in \
                 .outpourignore in the store, or keep it elsewhere"
            ),
        );
    }
}

/// The cause and the words of a kind of note.
fn note_text(note: RowNote) -> (&'static str, &'static str) {
    match note {
        RowNote::WideId => (
            "wide-id",
            "Resources whose id R4 does not allow (above 64 characters, or with '_' or '~'), exported as they are",
        ),
        RowNote::Reference(OddReference::Urn) => {
            ("reference-urn", "References by URN (urn:uuid:), perhaps to patients, which name no Patient of a store")
        }
        RowNote::Reference(OddReference::Conditional) => {
            ("reference-conditional", "Patient references by search (Patient?...), which are not resolved")
        }
        RowNote::Reference(OddReference::Slash) => (
            "reference-slash",
            "Patient references with a slash before or behind them, which are not followed where such references \
             are read strictly, as by default",
        ),
        RowNote::Reference(OddReference::TypeCase) => (
            "reference-case",
            "Patient references with another case of the type's name, which are not followed where such references \
             are read strictly, as by default",
        ),
        RowNote::Reference(OddReference::WhiteSpace) => (
            "reference-space",
            "Patient references with white space around them, which are not followed where such references \
             are read strictly, as by default",
        ),
        RowNote::Reference(OddReference::IdentifierOnly) => (
            "reference-identifier",
            "Resources of no patient that name somebody, perhaps a patient, by an identifier only",
        ),
        RowNote::Reference(OddReference::ImpossibleId) => {
            ("reference-id", "Patient references to ids that no Patient can have")
        }
    }
}
