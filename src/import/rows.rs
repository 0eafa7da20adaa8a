//! Resources of a source made rows of the store: white space between tokens dropped, links replaced, ids added, every row
//! validated as the index validates it.

use crate::casts::to_usize;
use crate::extract::Validate;
use crate::extract::extractor::Extractor;
use crate::extract::facts::ResourceFacts;
use crate::extract::fault::{Fault, FaultKind};
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::import::compact::compact_to_front;
use crate::import::entry::RowTarget;
use crate::import::links::LinkRewriter;
use crate::import::problem::{ImportProblem, ProblemLog};
use crate::simd::Kernel;

/// Rows of one type, in their order.
pub(crate) struct TypeRows {
    /// The type.
    pub resource_type: ResourceType,
    /// The rows, each with a line feed behind it.
    pub bytes: Vec<u8>,
    /// Where each comes from.
    origins: Vec<RowOrigin>,
}

impl TypeRows {
    /// How many rows there are.
    pub(crate) fn rows(&self) -> u64 {
        self.origins.len() as u64
    }

    /// Puts other bytes in the place of the rows, for those of these numbers.
    pub(crate) fn replace(&mut self, bytes: Vec<u8>, kept: &[usize]) {
        self.origins = kept.iter().map(|row| self.origins[*row]).collect();
        self.bytes = bytes;
    }
}

/// Where a row comes from, for problems.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowOrigin {
    /// Number of its document; `None` if there is one.
    pub document: Option<u64>,
    /// Number of its entry, from 1.
    pub entry: Option<u64>,
    /// Offset of its resource in the source, in bytes.
    pub offset: u64,
}

impl RowOrigin {
    /// A problem of what comes from here, so many bytes behind its start.
    pub(crate) fn problem(self, source: &str, behind: u64, reason: impl Into<String>) -> ImportProblem {
        let (document, entry, offset) = (self.document, self.entry, self.offset + behind);
        ImportProblem { source: source.to_string(), document, entry, offset, reason: reason.into() }
    }
}

/// A deletion that a source lists.
#[derive(Clone, Debug)]
pub(crate) struct SourceDeletion {
    /// The resource.
    pub target: RowTarget,
    /// When it was deleted.
    pub date: Instant,
}

/// What a part of a source becomes.
#[derive(Default)]
pub(crate) struct BatchRows {
    /// Rows by type.
    pub types: Vec<TypeRows>,
    /// Deletions, in their order.
    pub deletions: Vec<SourceDeletion>,
    /// What cannot be taken.
    pub problems: ProblemLog,
    /// Rows and deletions that are left out because the store is as they say.
    pub unchanged: u64,
    /// Entries that are no rows: messages of a search, rows that a condition found in the store.
    pub passed_over: u64,
    /// Bytes of the source.
    pub source_bytes: u64,
}

impl BatchRows {
    /// The rows of a type.
    fn of_type(&mut self, resource_type: ResourceType) -> &mut TypeRows {
        let known = self.types.iter().position(|rows| rows.resource_type == resource_type);
        let at = known.unwrap_or_else(|| {
            self.types.push(TypeRows { resource_type, bytes: Vec::new(), origins: Vec::new() });
            self.types.len() - 1
        });
        &mut self.types[at]
    }
}

/// How the bytes of a resource become those of a row.
#[derive(Clone, Copy)]
pub(crate) struct RowForm {
    /// Whose row it is.
    pub target: RowTarget,
    /// Whether the resource has its id; else it is put in front.
    pub has_id: bool,
    /// Whether it stands on one line and its bytes stay.
    pub is_line: bool,
}

/// Makes rows, one thread's worth.
pub(crate) struct RowMaker<'a> {
    kernel: Kernel,
    source: &'a str,
    extractor: Extractor,
    links: Option<LinkRewriter<'a>>,
    /// The resource in hand without white space, at its front.
    compacted: Vec<u8>,
    /// What was made so far.
    pub batch: BatchRows,
}

const LINE_FEED: &str = "a line feed stands unescaped in a string (RFC 8259)";

impl<'a> RowMaker<'a> {
    /// A maker of rows of a source, whose name is for messages. Links are replaced if there is a rewriter.
    pub(crate) fn new(kernel: Kernel, source: &'a str, links: Option<LinkRewriter<'a>>) -> RowMaker<'a> {
        let extractor = Extractor::new(kernel, Validate::Full);
        RowMaker { kernel, source, extractor, links, compacted: Vec::new(), batch: BatchRows::default() }
    }

    /// Adds a problem.
    pub(crate) fn refuse(&mut self, origin: RowOrigin, reason: impl Into<String>) {
        self.batch.problems.push(origin.problem(self.source, 0, reason));
    }

    /// Makes the row of a resource.
    pub(crate) fn add(&mut self, resource: &[u8], form: RowForm, origin: RowOrigin) {
        let rows = self.batch.of_type(form.target.resource_type);
        let start = rows.bytes.len();
        let mut broken = ProblemLog::default();
        let row = match form.is_line {
            true => resource,
            false => {
                let (len, is_one_line) = compact_to_front(self.kernel, resource, &mut self.compacted);
                if !is_one_line {
                    broken.push(origin.problem(self.source, 0, LINE_FEED));
                }
                &self.compacted[..len]
            }
        };
        let row = begin_row(row, form, &mut |bytes| rows.bytes.extend_from_slice(bytes));
        match &mut self.links {
            Some(links) => links.rewrite(row, &mut |bytes| rows.bytes.extend_from_slice(bytes), &mut |(_, reason)| {
                broken.push(origin.problem(self.source, 0, reason));
            }),
            None => rows.bytes.extend_from_slice(row),
        }
        if broken.count > 0 {
            rows.bytes.truncate(start);
            self.batch.problems.append(broken);
            return;
        }
        rows.bytes.push(b'\n');
        rows.origins.push(origin);
    }

    /// Validates the rows made so far, drops those that are none, and returns the rest. `raw` gives the resource that stands
    /// at an offset of the source, so that the place of a fault in it is told.
    pub(crate) fn finish(mut self, raw: &dyn Fn(RowOrigin) -> Option<&'a [u8]>) -> BatchRows {
        let mut batch = std::mem::take(&mut self.batch);
        for rows in &mut batch.types {
            let faults = self.validate(rows);
            if faults.is_empty() {
                continue;
            }
            for (row, fault) in &faults {
                let origin = rows.origins[*row];
                let exact = raw(origin).and_then(|resource| self.extractor.extract(resource).err());
                let behind = exact.filter(|exact| exact.kind == fault.kind).map_or(0, |exact| exact.at);
                batch.problems.push(origin.problem(self.source, behind, fault.kind.to_string()));
            }
            drop_rows(rows, &faults);
        }
        batch.types.retain(|rows| !rows.origins.is_empty());
        batch
    }

    /// The rows that the index would not take, by their number.
    fn validate(&mut self, rows: &TypeRows) -> Vec<(usize, Fault)> {
        let (mut faults, mut from, mut row) = (Vec::new(), 0, 0);
        let resource_type = rows.resource_type;
        // The type was taken from the first key of that name: another one is found by the extractor alone.
        let other_type = Fault { kind: FaultKind::DuplicateKey, at: 0 };
        while from < rows.bytes.len() {
            from = self.extractor.extract_lines(&rows.bytes, from, |_, found| {
                if found.resource_type() != resource_type {
                    faults.push((row, other_type));
                }
                row += 1;
                true
            });
            if from == rows.bytes.len() {
                break;
            }
            let line = &rows.bytes[from..];
            let len = memchr::memchr(b'\n', line).unwrap_or(line.len());
            match self.extractor.extract(&line[..len]) {
                Ok(facts) if facts.resource_type == resource_type => {}
                Ok(_) => faults.push((row, other_type)),
                Err(fault) => faults.push((row, fault)),
            }
            row += 1;
            from += len + 1;
        }
        faults
    }

    /// Makes the row of a resource that is too long to be held: passes it to `emit` in pieces. `false`, and a problem, if it
    /// is none; then what was passed on is no row. Its bytes are without white space between tokens.
    pub(crate) fn pass_long(
        &mut self,
        row: &[u8],
        form: RowForm,
        origin: RowOrigin,
        emit: &mut dyn FnMut(&[u8]),
    ) -> bool {
        let mut broken = ProblemLog::default();
        self.extractor.begin();
        let mut sink = |bytes: &[u8]| {
            for piece in bytes.chunks(crate::limits::READ_BYTES) {
                self.extractor.feed(piece);
                emit(piece);
            }
        };
        let row = begin_row(row, form, &mut sink);
        match &mut self.links {
            Some(links) => links.rewrite(row, &mut sink, &mut |(_, reason)| {
                broken.push(origin.problem(self.source, 0, reason));
            }),
            None => sink(row),
        }
        match self.extractor.finish() {
            Ok(facts) if facts.resource_type == form.target.resource_type => {}
            Ok(_) => broken.push(origin.problem(self.source, 0, FaultKind::DuplicateKey.to_string())),
            Err(fault) => broken.push(origin.problem(self.source, fault.at, fault.kind.to_string())),
        }
        let is_row = broken.count == 0;
        self.batch.problems.append(broken);
        is_row
    }
}

/// Puts the id in front of a row that has none; returns what follows.
fn begin_row<'r>(row: &'r [u8], form: RowForm, emit: &mut dyn FnMut(&[u8])) -> &'r [u8] {
    match row.strip_prefix(b"{").filter(|_| !form.has_id) {
        Some(rest) => {
            emit(id_member(&form.target.id).as_bytes());
            rest
        }
        None => row,
    }
}

/// The start of a row with this id.
fn id_member(id: &Id) -> String {
    format!("{{\"id\":\"{id}\",")
}

/// Drops these rows.
fn drop_rows(rows: &mut TypeRows, faults: &[(usize, Fault)]) {
    let lines: Vec<&[u8]> = rows.bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let is_kept = |row: &usize| !faults.iter().any(|(faulty, _)| faulty == row);
    let kept: Vec<usize> = (0..rows.origins.len()).filter(is_kept).collect();
    let bytes = kept.iter().flat_map(|row| lines[*row].iter().copied()).collect();
    rows.replace(bytes, &kept);
}

/// Where a resource lies that comes from a document of the text.
pub(crate) fn bytes_at(text: &[u8], offset: u64) -> Option<&[u8]> {
    text.get(to_usize(offset)..)
}
