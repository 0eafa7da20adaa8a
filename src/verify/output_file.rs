//! Reads one file of an export from its first byte to its last: size, digest, compression, and every line.
//!
//! The file is streamed: one line is held, if it is not too long, and 16 bytes a line for the search for duplicates,
//! which is made in `export`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use crate::codec::compression::Compression;
use crate::count_text::counted;
use crate::extract::Validate;
use crate::extract::rules::{LineRules, LoneSurrogates};
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::id::{Id, IdRule};
use crate::fhir::reference::{PatientReferences, Reference};
use crate::fhir::resource_type::ResourceType;
use crate::hash::digest::{Digest, DigestAlgorithm, Digester};
use crate::hash::{xxh3_64, xxh3_128_with_seed};
use crate::limits::{DELETED_ENTRIES_MAX, READ_BYTES};
use crate::progress::Progress;
use crate::sys::regular_file::{Links, RegularFileError, open_regular};
use crate::verify::VerifyError;
use crate::verify::json_oracle::JsonOracle;
use crate::verify::line_reader::{Body, CutLine, LineMark, LineReader};
use crate::verify::mismatch::{Mismatch, Mismatches};
use crate::verify::oracle_line::OracleLine;
use crate::verify::reduced_line::reduced_line;

/// What any index takes: an export holds what its index took.
const TAKEN: LineRules = LineRules {
    validate: Validate::Full,
    ids: IdRule::Any,
    lone_surrogates: LoneSurrogates::Pass,
    patient_references: PatientReferences::Strict,
    compartment_paths: CompartmentPaths::R4,
};

/// Largest window of a zstd file that every client can be expected to support, as a power of two of bytes (8 MiB, RFC
/// 8878).
const WINDOW_LOG_MAX: u32 = 23;

/// Section of the manifest that lists a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileSection {
    /// The lines are resources.
    Output,
    /// The lines are Bundles of deletions.
    Deleted,
    /// The lines are OperationOutcomes.
    Error,
}

impl FileSection {
    /// Key of the section in the manifest.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FileSection::Output => "output",
            FileSection::Deleted => "deleted",
            FileSection::Error => "error",
        }
    }
}

/// Facts found in one file.
#[derive(Default)]
pub(crate) struct VerifiedFile {
    /// Number of its lines.
    pub lines: u64,
    /// Bytes of the file after decompression.
    pub bytes: u64,
    /// Bytes of the file on disk.
    pub file_bytes: u64,
    /// Digest of the file on disk, by the algorithm that the caller named.
    pub digest: Option<Digest>,
    /// In `output`, the hash of (type, id) of each line, 0 for a line without; in `deleted`, that of each deletion.
    pub entities: Vec<u128>,
    /// Sum of the hashes of the lines, which does not depend on their order.
    pub sum: u64,
    /// Lines too long to be held, which only the scanner has read.
    pub long_lines: u64,
    /// Lines that simd-json refuses and serde_json accepts or has to judge.
    pub fallback_lines: u64,
    /// Facts that are not as stated.
    pub mismatches: Mismatches,
}

/// What the manifest and the record state of the lines of a file.
pub(crate) struct StatedLines<'a> {
    /// Section of the manifest that lists the file.
    pub section: FileSection,
    /// Resource type that the manifest states for it.
    pub of_type: &'a str,
    /// Elements that the resources of the export keep.
    pub elements: &'a ElementSelection,
}

/// Reads a file of an export.
///
/// # Errors
/// [`VerifyError::Read`] if the file exists and the operating system cannot read it; [`VerifyError::Cancelled`]. A
/// missing file, and one that cannot be decoded, is a mismatch.
pub(crate) fn read(
    directory: &Path,
    name: &str,
    lines: &StatedLines<'_>,
    algorithm: DigestAlgorithm,
    progress: &Progress,
) -> Result<VerifiedFile, VerifyError> {
    let path = directory.join(name);
    let mut file_reading = FileReading::new(name, lines);
    let failed = |source| VerifyError::Read { path: path.clone(), source };
    let file = match open_regular(&path, Links::Follow) {
        Ok(file) => file,
        Err(RegularFileError::NotRegular) => return Ok(file_reading.refused_file("it is no regular file")),
        Err(error) if error.is_absence() => return Ok(file_reading.refused_file("it is not there")),
        Err(error) => return Err(failed(error.into())),
    };
    let metered = MeteredReader { file, digester: Digester::new(algorithm), bytes: 0, failed: None, progress };
    let mut input = BufReader::with_capacity(READ_BYTES, metered);
    let decoded = match Compression::of_file_name(name) {
        Some(Compression::Gzip) => {
            let mut decoder = flate2::bufread::GzDecoder::new(input);
            let decoded = file_reading.lines(&mut decoder);
            input = decoder.into_inner();
            // Many clients read the first member only.
            let more = decoded.is_ok() && input.fill_buf().is_ok_and(|rest| !rest.is_empty());
            if more {
                file_reading.report_mismatch(
                    "FILE-04",
                    "something follows its first gzip member, which many clients never read",
                );
            }
            decoded
        }
        Some(Compression::Zstd) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(failed)?;
            let decoded = file_reading.lines(&mut decoder);
            input = decoder.finish();
            decoded
        }
        _ => file_reading.lines(&mut input),
    };
    // The digest is over the whole file, whether or not all of it could be decoded.
    let drained = io::copy(&mut input, &mut io::sink());
    let MeteredReader { digester, bytes, failed: broken, .. } = input.into_inner();
    if progress.cancel.load(Relaxed) {
        return Err(VerifyError::Cancelled);
    }
    if let Some(source) = broken.or(drained.err()) {
        return Err(failed(source));
    }
    if let Err(error) = decoded {
        file_reading.report_mismatch("FILE-04", format!("it cannot be decoded as its name says: {error}"));
    }
    let mut found = file_reading.finish();
    found.file_bytes = bytes;
    found.digest = digester.finish();
    Ok(found)
}

/// Counts and digests the bytes of a file as they are read. Keeps an error of the operating system, so that the caller
/// can tell it from one of the decoder.
struct MeteredReader<'a> {
    file: File,
    digester: Digester,
    bytes: u64,
    failed: Option<io::Error>,
    progress: &'a Progress,
}

impl Read for MeteredReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.progress.cancel.load(Relaxed) {
            return Err(io::Error::other("stopped on request"));
        }
        match self.file.read(buffer) {
            Ok(read) => {
                self.digester.update(&buffer[..read]);
                self.bytes += read as u64;
                self.progress.scan_done.fetch_add(read as u64, Relaxed);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                self.failed = Some(error);
                Err(copy)
            }
        }
    }
}

/// A file of an export that is being read, and the facts found so far.
struct FileReading<'a> {
    name: &'a str,
    section: FileSection,
    of_type: &'a str,
    /// The type of the lines, and the elements to which they are reduced; `None` if they are whole.
    reduction: Option<(ResourceType, &'a ElementSelection)>,
    json_oracle: JsonOracle,
    found: VerifiedFile,
}

impl<'a> FileReading<'a> {
    /// A file of which nothing was read yet.
    fn new(name: &'a str, lines: &StatedLines<'a>) -> FileReading<'a> {
        let StatedLines { section, of_type, elements } = *lines;
        let known = ResourceType::parse(of_type).filter(|_| section == FileSection::Output);
        FileReading {
            name,
            section,
            of_type,
            reduction: known.filter(|known| elements.reduces(*known)).map(|known| (known, elements)),
            json_oracle: JsonOracle::default(),
            found: VerifiedFile::default(),
        }
    }

    /// The result for a file that cannot be opened as one of an export.
    fn refused_file(mut self, why: &str) -> VerifiedFile {
        self.report_mismatch("MANIFEST-05", why);
        self.found
    }

    /// The facts of a file that was read to its end.
    fn finish(mut self) -> VerifiedFile {
        self.found.fallback_lines = self.json_oracle.fallback_lines;
        self.found
    }

    /// Adds a mismatch of the file as a whole.
    fn report_mismatch(&mut self, rule: &'static str, what: impl Into<String>) {
        self.found.mismatches.push(Mismatch::of_file(rule, self.name, what));
    }

    /// Reads all lines of the decoded file and checks each.
    fn lines(&mut self, input: &mut dyn Read) -> io::Result<()> {
        let mut line_reader = LineReader::new(0, LineMark::Keep, TAKEN);
        let mut buffer = vec![0; READ_BYTES];
        let outcome = loop {
            match input.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(read) => {
                    self.found.bytes += read as u64;
                    line_reader.feed(&buffer[..read], &mut |cut| self.check_line(&cut));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        if outcome.is_ok() {
            line_reader.finish(&mut |cut| self.check_line(&cut));
        }
        outcome
    }

    /// Checks one line and adds its facts.
    fn check_line(&mut self, cut: &CutLine<'_>) {
        self.found.lines += 1;
        let (number, byte) = (self.found.lines, cut.offset);
        let name = self.name;
        let mut wrong = Vec::new();
        if !cut.ended {
            wrong.push(("FILE-02", "no newline ends the last line".to_string()));
        }
        let (resource_type, id) = match &cut.body {
            Body::Whole(line) => {
                self.found.sum = self.found.sum.wrapping_add(xxh3_64(line));
                self.check_held_line(line, &mut wrong)
            }
            Body::Long(_, hash, line) => {
                self.found.sum = self.found.sum.wrapping_add(*hash);
                self.found.long_lines += 1;
                check_long_line(line, self.section, &mut wrong)
            }
            Body::Broken(_) => (None, None),
        };
        if let Some(found) = &resource_type
            && found != self.of_type
        {
            wrong.push(("FILE-01", format!("its resourceType is {found}, the manifest says {}", self.of_type)));
        }
        if self.section == FileSection::Output {
            let id = id.filter(|id| Id::parse(id.as_bytes()).is_some());
            if id.is_none() && wrong.is_empty() {
                wrong.push(("CONS-07", "it has no legal id".to_string()));
            }
            self.found.entities.push(match (resource_type, id) {
                (Some(resource_type), Some(id)) => entity(&resource_type, &id),
                _ => 0,
            });
        }
        for (rule, what) in wrong {
            self.found.mismatches.push(Mismatch::of_line(rule, name, number, byte, what));
        }
    }

    /// Checks a line that is held. Returns its type and id, `None` where they are missing or the line is no JSON
    /// object.
    fn check_held_line(
        &mut self,
        line: &[u8],
        wrong: &mut Vec<(&'static str, String)>,
    ) -> (Option<String>, Option<String>) {
        if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            wrong.push(("FILE-02", "it is blank".to_string()));
            return (None, None);
        }
        if line.starts_with(b"\xef\xbb\xbf") {
            wrong.push(("FILE-02", "a byte order mark begins it".to_string()));
            return (None, None);
        }
        if simdutf8::basic::from_utf8(line).is_err() {
            wrong.push(("FILE-02", "it is not UTF-8".to_string()));
            return (None, None);
        }
        let Some(named) = self.json_oracle.read(line) else {
            wrong.push(("FILE-02", "it is no JSON object".to_string()));
            return (None, None);
        };
        if named.duplicate_key {
            wrong.push(("FILE-01", "resourceType or id stands twice in it".to_string()));
        }
        if named.resource_type.is_none() {
            wrong.push(("FILE-01", "it has no resourceType".to_string()));
        }
        // What is reduced already has nothing to be left out, and has the tag.
        if let Some((of_type, elements)) = self.reduction
            && reduced_line(line, of_type, elements).as_deref() != Some(line)
        {
            wrong.push(("ELEM-02", "it has elements that are not listed, or lacks the tag SUBSETTED".to_string()));
        }
        if self.section == FileSection::Deleted {
            match check_deletions(line) {
                Ok(entries) => self.found.entities.extend(entries),
                Err(what) => wrong.push(("DELETED-02", what)),
            }
        }
        (named.resource_type, named.id)
    }
}

/// Type and id of a line that is too long to be held, from the scanner's facts.
fn check_long_line(
    line: &OracleLine,
    section: FileSection,
    wrong: &mut Vec<(&'static str, String)>,
) -> (Option<String>, Option<String>) {
    match line {
        OracleLine::Row(row) => (Some(row.resource_type.to_string()), Some(row.id.to_string())),
        _ if section == FileSection::Deleted => {
            wrong.push(("DELETED-07", format!("it has more than {DELETED_ENTRIES_MAX} entries")));
            (None, None)
        }
        OracleLine::Blank => {
            wrong.push(("FILE-02", "it is blank".to_string()));
            (None, None)
        }
        _ => {
            wrong.push(("FILE-02", "it is no resource".to_string()));
            (None, None)
        }
    }
}

/// Hashes of the resources that a Bundle line deletes, if every client can read it as such (DELETED-02, DELETED-07).
///
/// # Errors
/// The first rule that the line breaks, in words.
fn check_deletions(line: &[u8]) -> Result<Vec<u128>, String> {
    let bundle: serde_json::Value = serde_json::from_slice(line).map_err(|_| "it cannot be read".to_string())?;
    if bundle["type"] != "transaction" {
        return Err("its type is not transaction".to_string());
    }
    let entries = bundle["entry"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !(1..=DELETED_ENTRIES_MAX).contains(&entries.len()) {
        return Err(format!("it has {}, not 1 to {DELETED_ENTRIES_MAX}", counted(entries.len() as u64, "entry")));
    }
    let read = |(i, entry): (usize, &serde_json::Value)| {
        let request = &entry["request"];
        let target =
            request["url"].as_str().filter(|_| request["method"] == "DELETE" && entry.get("resource").is_none());
        match target.and_then(Reference::parse) {
            Some(target) if target.base.is_empty() && target.version.is_none() => {
                Ok(entity(target.resource_type.name(), target.id))
            }
            _ => Err(format!("its entry {} is no DELETE of Type/id", i + 1)),
        }
    };
    entries.iter().enumerate().map(read).collect()
}

/// Hash by which the verification of output files knows a resource, of its type and id. Never 0, which stands for a
/// line without.
pub(crate) fn entity(resource_type: &str, id: &str) -> u128 {
    let seed = ResourceType::parse(resource_type).map_or(0, |known| known.index() as u64 + 1);
    xxh3_128_with_seed(id.as_bytes(), seed).max(1)
}
