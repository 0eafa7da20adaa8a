//! Lists of patients, from a file or in memory: one id or reference in each line, all wrong lines reported at once.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;

use crate::codec::byte_order_mark::{BYTE_ORDER_MARK, skip_mark};
use crate::count_text::{numbered, word_form};
use crate::error::{ExportError, RequestError, RequestProblem};
use crate::fhir::base_url::BaseUrls;
use crate::fhir::id::Id;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::hash::Hasher128;
use crate::issue::{Advice, IssuePlace, Parameter};
use crate::limits::{LINES_NAMED_MAX, READ_BYTES};
use crate::patient_restriction::PatientList;
use crate::select::member_messages::{prefixed, unreadable_error};
use crate::select::members::MemberResolver;

impl MemberResolver<'_> {
    /// Adds the patients of a list, a file with one id or reference in each line. Returns the XXH3-128 of the file.
    ///
    /// # Errors
    /// [`ExportError::Request`] if the file cannot be read, a line is neither a patient id nor a reference to a
    /// Patient, or the list is empty and the request does not allow that.
    pub(crate) fn add_list(&mut self, path: &Path) -> Result<u128, ExportError> {
        let name = path.display().to_string();
        let unreadable = |error| unreadable_error(Parameter::Patients, &name, &error);
        let file = File::open(path).map_err(unreadable)?;
        let (mark, file) = skip_mark(file).map_err(unreadable)?;
        let mut reader = BufReader::with_capacity(READ_BYTES, file);
        // The hash is that of the file, mark and all.
        let mut hash = Hasher128::new();
        hash.update(mark);
        let (mut line, mut number) = (Vec::new(), 0u64);
        let mut wrong = WrongLines::default();
        loop {
            line.clear();
            // A line longer than any reference may be is cut here and reported.
            let limit = 2 * crate::limits::REFERENCE_BYTES_MAX as u64;
            let read = (&mut reader).take(limit).read_until(b'\n', &mut line);
            if read.map_err(unreadable)? == 0 {
                break;
            }
            hash.update(&line);
            number += 1;
            self.add_line(&line, number, &mut wrong);
        }
        self.check_list(&wrong, Some(&name))?;
        Ok(hash.digest())
    }

    /// The same of a list in memory, whose hash is that of a file with one of them a line.
    ///
    /// # Errors
    /// [`ExportError::Request`] when one names no patient.
    pub(crate) fn add_ids(&mut self, ids: &[String]) -> Result<u128, ExportError> {
        let mut hash = Hasher128::new();
        let mut wrong = WrongLines::default();
        for (number, id) in (1..).zip(ids) {
            hash.update(id.as_bytes());
            hash.update(b"\n");
            self.add_line(id.as_bytes(), number, &mut wrong);
        }
        self.check_list(&wrong, None)?;
        Ok(hash.digest())
    }

    /// A line of a list; its number goes to `wrong` if it names no patient.
    fn add_line(&mut self, line: &[u8], number: u64, wrong: &mut WrongLines) {
        let text = line.trim_ascii();
        if text.is_empty() {
            return;
        }
        self.listed += 1;
        // One place serves every line: what it stands for is copied into a message, and nothing is kept.
        self.places.clear();
        let place = self.register_place(IssuePlace::PatientList(number));
        match (Id::parse(text), str::from_utf8(text).ok()) {
            (Some(id), _) => self.add_patient(&id, place),
            (None, Some(text)) if Reference::parse(text).is_some() => {
                // A list names patients; Groups are asked for as such.
                match Reference::parse(text) {
                    Some(reference) if reference.resource_type == ResourceType::PATIENT => {
                        self.add_reference(text, 0, place)
                    }
                    _ => wrong.add(text.as_bytes(), number),
                }
            }
            _ => wrong.add(text, number),
        }
    }

    /// Whether every line of a list names a patient, and there is one; `name` is that of its file.
    fn check_list(&self, wrong: &WrongLines, name: Option<&str>) -> Result<(), RequestError> {
        let problem = |text: String| RequestProblem::of(Parameter::Patients, prefixed(name, text));
        let problems: Vec<RequestProblem> = wrong.texts().into_iter().map(problem).collect();
        if !problems.is_empty() {
            return Err(RequestError { problems });
        }
        if self.listed == 0 && !self.request.allow_empty {
            let text = "it names nobody: no line of it holds an id or a reference".to_string();
            return Err(RequestError::one(problem(text).advise(Advice::AllowEmpty)));
        }
        Ok(())
    }
}

/// Reads the list of patients that restricts an export: their ids, ascending, each once. `bases` are those under which
/// absolute references are ours.
///
/// # Errors
/// [`RequestError`] if the file cannot be read, or a line is neither an id nor a reference to a Patient of this store
/// (PATIENT-06).
pub(crate) fn read_patient_ids(list: &PatientList, bases: &BaseUrls<'_>) -> Result<Vec<Id>, RequestError> {
    let mut ids = Vec::new();
    let mut wrong = WrongLines::default();
    let mut add = |line: &[u8], number: u64| {
        let text = line.trim_ascii();
        let reference = || Reference::parse(str::from_utf8(text).ok()?);
        let is_ours =
            |found: &Reference<'_>| found.resource_type == ResourceType::PATIENT && bases.contains(found.base);
        match Id::parse(text).or_else(|| reference().filter(is_ours).map(|found| found.id())) {
            Some(id) => ids.push(id),
            None if text.is_empty() => {}
            None => wrong.add(text, number),
        }
    };
    match list {
        PatientList::Ids(texts) => (1..).zip(texts).for_each(|(number, text)| add(text.as_bytes(), number)),
        PatientList::File(path) => {
            let name = path.display().to_string();
            let unreadable = |error| unreadable_error(Parameter::Patient, &name, &error);
            let mut reader = BufReader::with_capacity(READ_BYTES, File::open(path).map_err(unreadable)?);
            let mut line = Vec::new();
            for number in 1.. {
                line.clear();
                let limit = 2 * crate::limits::REFERENCE_BYTES_MAX as u64;
                if (&mut reader).take(limit).read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
                    break;
                }
                add(&line, number);
            }
        }
    }
    let problems: Vec<RequestProblem> =
        wrong.texts().into_iter().map(|text| RequestProblem::of(Parameter::Patient, text)).collect();
    if !problems.is_empty() {
        return Err(RequestError { problems });
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// The lines of a list that name no patient.
#[derive(Default)]
struct WrongLines {
    /// Those that begin with a byte order mark, which no editor shows: such a line looks right.
    marked: LineNumbers,
    others: LineNumbers,
}

/// Lines by number, of which the first few are kept.
#[derive(Default)]
struct LineNumbers {
    first: Vec<u64>,
    count: u64,
}

impl WrongLines {
    /// Adds a line by its text and number.
    fn add(&mut self, text: &[u8], number: u64) {
        let lines = if text.starts_with(BYTE_ORDER_MARK) { &mut self.marked } else { &mut self.others };
        lines.count += 1;
        if lines.first.len() < LINES_NAMED_MAX {
            lines.first.push(number);
        }
    }

    /// What is wrong with them, a sentence for each kind.
    fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for (lines, one, many, what) in [
            (
                &self.marked,
                "begins",
                "begin",
                "with a byte order mark, which only the start of a file may have; remove it",
            ),
            (&self.others, "is", "are", "neither a patient id nor a reference such as Patient/123"),
        ] {
            if lines.count > 0 {
                let verb = word_form(lines.count, one, many);
                texts.push(format!("{} {verb} {what}", numbered("line", &lines.first, lines.count)));
            }
        }
        texts
    }
}
