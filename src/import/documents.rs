//! The documents of a text: the lines of NDJSON, or JSON values one after another, or the elements of arrays. Each is a
//! resource or a Bundle.

use std::ops::Range;

use rayon::prelude::*;

use crate::fhir::resource_type::ResourceType;
use crate::import::bundle::{stamped, take_bundle};
use crate::import::entry::{EntryFault, RowTarget, derived_id, resource_head};
use crate::import::outline::{TYPE_AND_ID, text_of_value, type_and_id, value_end};
use crate::import::problem::ImportError;
use crate::import::rows::{BatchRows, RowForm, RowMaker, RowOrigin, bytes_at};
use crate::import::source_run::SourceRun;
use crate::limits::{IMPORT_BATCH_BYTES, IMPORT_ROW_HELD_MAX};
use crate::simd::Kernel;

/// How the documents of a text are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextLayout {
    /// One a line.
    Lines,
    /// Values, each to its last bracket; a value may be an array of documents.
    Values,
}

impl TextLayout {
    /// The layout of a text, by its content: its first line that is not blank is a whole object, and not all of the text.
    /// `named` is whether the name of its file says NDJSON, which decides where the first line is broken.
    pub(crate) fn of(kernel: Kernel, text: &[u8], named: bool) -> TextLayout {
        let start = text.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(text.len());
        let rest = &text[start..];
        let first = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
        let is_all = text[start + first.len()..].trim_ascii_start().is_empty();
        if is_all && !named {
            return TextLayout::Values;
        }
        let is_object = first.first() == Some(&b'{');
        let is_opening = matches!(first.trim_ascii_end(), b"{" | b"[");
        let end = if is_object { value_end(kernel, first) } else { None };
        match end {
            Some(end) if first[end..].trim_ascii().is_empty() => TextLayout::Lines,
            Some(_) if named => TextLayout::Lines,
            Some(_) => TextLayout::Values,
            None if named && !is_opening && first.first() != Some(&b'[') => TextLayout::Lines,
            None => TextLayout::Values,
        }
    }
}

/// A document that is no Bundle.
struct PlainDocument {
    range: Range<usize>,
    number: u64,
}

/// Documents that wait to be converted together.
struct DocumentQueue<'t> {
    text: &'t [u8],
    /// Offset of the text in its source.
    base: u64,
    layout: TextLayout,
    waiting: Vec<PlainDocument>,
    bytes: usize,
}

/// Takes all documents of a text, whose first byte stands at `base` of the source.
///
/// # Errors
/// If rows cannot be written, the store cannot be searched, or the work is cancelled.
pub(crate) fn take_text(
    run: &mut SourceRun<'_>,
    text: &[u8],
    base: u64,
    layout: TextLayout,
) -> Result<(), ImportError> {
    let mut queue = DocumentQueue { text, base, layout, waiting: Vec::new(), bytes: 0 };
    match layout {
        TextLayout::Lines => take_lines(run, &mut queue)?,
        TextLayout::Values => take_values(run, &mut queue)?,
    }
    queue.flush(run)
}

/// Takes the documents of NDJSON.
fn take_lines(run: &mut SourceRun<'_>, queue: &mut DocumentQueue<'_>) -> Result<(), ImportError> {
    let text = queue.text;
    let (mut from, mut number) = (0, 0);
    while from < text.len() {
        let end = memchr::memchr(b'\n', &text[from..]).map_or(text.len(), |len| from + len);
        number += 1;
        let line = text[from..end].trim_ascii();
        let start = from + (text[from..end].len() - text[from..end].trim_ascii_start().len());
        from = end + 1;
        if line.is_empty() {
            continue;
        }
        if !is_bundle(run.kernel, line) {
            queue.push(run, start..start + line.len(), number)?;
            continue;
        }
        queue.flush(run)?;
        let offset = queue.base + start as u64;
        let len = take_bundle(run, line, offset, Some(number))?;
        if !line[len.min(line.len())..].trim_ascii().is_empty() {
            run.refuse(Some(number), None, offset + len as u64, TRAILING);
        }
    }
    Ok(())
}

const TRAILING: &str = "something follows the resource on its line; write one resource a line";
const NO_DOCUMENT: &str = "no resource begins here; a source holds JSON objects, arrays of them, or one a line";
const CUT: &str = "the file ends inside of a resource; write it again as a whole";
const COMMAS: &str = "the elements of the array are not parted by commas (RFC 8259)";
const OPEN_ARRAY: &str = "the file ends inside of an array; write it again as a whole";

/// Takes JSON values, and the elements of arrays.
fn take_values(run: &mut SourceRun<'_>, queue: &mut DocumentQueue<'_>) -> Result<(), ImportError> {
    let text = queue.text;
    let (mut at, mut number) = (0, 0);
    // Within an array: whether an element may come, and whether a comma or the end may.
    let (mut in_array, mut may_begin, mut may_part) = (false, true, false);
    // A single document has no number.
    let is_single = text.trim_ascii_start().first() == Some(&b'{') && value_is_all(run.kernel, text);
    loop {
        at += text[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
        let offset = queue.base + at as u64;
        let Some(byte) = text.get(at) else { break };
        match byte {
            b'[' if !in_array => (in_array, may_begin, may_part, at) = (true, true, false, at + 1),
            b']' if in_array && (may_part || may_begin && text[..at].trim_ascii_end().ends_with(b"[")) => {
                (in_array, may_begin, may_part, at) = (false, true, false, at + 1);
            }
            b',' if in_array && may_part => (may_begin, may_part, at) = (true, false, at + 1),
            b'{' if may_begin => {
                number += 1;
                let document = (!is_single).then_some(number);
                (may_begin, may_part) = (!in_array, in_array);
                if is_bundle(run.kernel, &text[at..]) {
                    queue.flush(run)?;
                    at += take_bundle(run, &text[at..], offset, document)?;
                    continue;
                }
                let Some(len) = value_end(run.kernel, &text[at..]) else {
                    queue.flush(run)?;
                    run.refuse(document, None, offset, CUT);
                    return Ok(());
                };
                queue.push(run, at..at + len, if is_single { 0 } else { number })?;
                at += len;
            }
            _ => {
                queue.flush(run)?;
                run.refuse(None, None, offset, if in_array { COMMAS } else { NO_DOCUMENT });
                return Ok(());
            }
        }
    }
    if in_array {
        run.refuse(None, None, queue.base + text.len() as u64, OPEN_ARRAY);
    }
    Ok(())
}

/// Whether a text is one value, or begins as a Bundle: then it is taken for a single document until another one follows.
fn value_is_all(kernel: Kernel, text: &[u8]) -> bool {
    let text = text.trim_ascii();
    is_bundle(kernel, text) || value_end(kernel, text) == Some(text.len())
}

/// Whether a document is a Bundle.
fn is_bundle(kernel: Kernel, document: &[u8]) -> bool {
    let [type_at, _] = type_and_id(kernel, document, &TYPE_AND_ID[..1]);
    let value = &document[type_at];
    value == b"\"Bundle\"" || value.contains(&b'\\') && text_of_value(value).as_deref() == Some("Bundle")
}

impl DocumentQueue<'_> {
    /// Adds a document; converts all that wait when there are enough.
    fn push(&mut self, run: &mut SourceRun<'_>, range: Range<usize>, number: u64) -> Result<(), ImportError> {
        if range.len() > IMPORT_ROW_HELD_MAX {
            self.flush(run)?;
            return self.take_long(run, PlainDocument { range, number });
        }
        self.bytes += range.len();
        self.waiting.push(PlainDocument { range, number });
        match self.bytes >= IMPORT_BATCH_BYTES * 2 * rayon::current_num_threads() {
            true => self.flush(run),
            false => Ok(()),
        }
    }

    /// Converts the documents that wait.
    fn flush(&mut self, run: &mut SourceRun<'_>) -> Result<(), ImportError> {
        let waiting = std::mem::take(&mut self.waiting);
        let share = (self.bytes / IMPORT_BATCH_BYTES).max(1);
        self.bytes = 0;
        let (kernel, source) = (run.kernel, run.source.clone());
        let parts: Vec<&[PlainDocument]> = waiting.chunks(waiting.len().div_ceil(share).max(1)).collect();
        let stamp = run.stamp.take();
        let convert = |part| stamped(self.convert(part, kernel, &source), stamp.as_ref());
        let made: Vec<Result<BatchRows, ImportError>> = parts.into_par_iter().map(convert).collect();
        run.stamp = stamp;
        made.into_iter().try_for_each(|batch| run.add(batch?))
    }

    /// Converts some documents.
    fn convert(&self, part: &[PlainDocument], kernel: Kernel, source: &str) -> BatchRows {
        let mut maker = RowMaker::new(kernel, source, None);
        for document in part {
            let resource = &self.text[document.range.clone()];
            match self.form(resource, kernel) {
                Ok(form) => maker.add(resource, form, self.origin(document)),
                Err(reason) => maker.refuse(self.origin(document), reason),
            }
        }
        let find = |origin: RowOrigin| {
            let rest = bytes_at(self.text, origin.offset - self.base)?;
            match self.layout {
                TextLayout::Lines => rest.split(|byte| *byte == b'\n').next(),
                TextLayout::Values => rest.get(..value_end(kernel, rest)?),
            }
        };
        let mut made = maker.finish(&find);
        made.source_bytes = part.iter().map(|document| document.range.len() as u64).sum();
        made
    }

    /// What becomes of a resource that stands by itself.
    fn form(&self, resource: &[u8], kernel: Kernel) -> Result<RowForm, EntryFault> {
        let (resource_type, own_id) = resource_head(resource, kernel)?;
        debug_assert!(resource_type != ResourceType::BUNDLE);
        let id = own_id.unwrap_or_else(|| derived_id(None, resource_type, resource, kernel));
        let target = RowTarget { resource_type, id };
        Ok(RowForm { target, has_id: own_id.is_some(), is_line: self.layout == TextLayout::Lines })
    }

    /// Where a document stands.
    fn origin(&self, document: &PlainDocument) -> RowOrigin {
        let number = (document.number > 0).then_some(document.number);
        RowOrigin { document: number, entry: None, offset: self.base + document.range.start as u64 }
    }

    /// Takes a document that is too long to be held.
    fn take_long(&self, run: &mut SourceRun<'_>, document: PlainDocument) -> Result<(), ImportError> {
        let resource = &self.text[document.range.clone()];
        let (source, origin) = (run.source.clone(), self.origin(&document));
        let mut maker = RowMaker::new(run.kernel, &source, None);
        match self.form(resource, run.kernel) {
            Ok(form) => run.add_long(maker, resource, form, origin),
            Err(reason) => {
                maker.refuse(origin, reason);
                run.add(maker.finish(&|_| None))
            }
        }
    }
}
