//! Lists of patients, from a file or in memory: one id or reference in each line, all wrong lines reported at once.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;

use crate::error::{ExportError, RequestError, RequestProblem};
use crate::fhir::id::Id;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::hash::Hasher128;
use crate::issue::{Advice, IssuePlace, Parameter};
use crate::limits::READ_BYTES;
use crate::select::members::{MemberResolver, prefixed, unreadable_error};

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
        let mut reader = BufReader::with_capacity(READ_BYTES, file);
        let mut hash = Hasher128::new();
        let (mut line, mut number) = (Vec::new(), 0u64);
        let mut wrong = Vec::new();
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
        let mut wrong = Vec::new();
        for (number, id) in (1..).zip(ids) {
            hash.update(id.as_bytes());
            hash.update(b"\n");
            self.add_line(id.as_bytes(), number, &mut wrong);
        }
        self.check_list(&wrong, None)?;
        Ok(hash.digest())
    }

    /// A line of a list; its number goes to `wrong` if it names no patient.
    fn add_line(&mut self, line: &[u8], number: u64, wrong: &mut Vec<u64>) {
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
                    _ => wrong.push(number),
                }
            }
            _ => wrong.push(number),
        }
    }

    /// Whether every line of a list names a patient, and there is one; `name` is that of its file.
    fn check_list(&self, wrong: &[u64], name: Option<&str>) -> Result<(), RequestError> {
        let problem = |text: String| RequestProblem::of(Parameter::Patients, prefixed(name, text));
        if let Some(first) = wrong.first() {
            return Err(RequestError::one(problem(format!(
                "line {first}{} is neither a patient id nor a reference such as Patient/123",
                match wrong.len() {
                    1 => String::new(),
                    more => format!(" (and {} more lines)", more - 1),
                }
            ))));
        }
        if self.listed == 0 && !self.request.allow_empty {
            let text = "it names nobody: no line of it holds an id or a reference".to_string();
            return Err(RequestError::one(problem(text).advise(Advice::AllowEmpty)));
        }
        Ok(())
    }
}
