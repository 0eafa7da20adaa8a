//! The lines of a file of an export, read once: decompressed, checked against what its manifest states, each line given out with
//! its type and id. A line of any length is given in pieces, of which no more than a bounded part is in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::codec::compression::Compression;
use crate::error::JournalError;
use crate::extract::Validate;
use crate::extract::extractor::Extractor;
use crate::extract::rules::{LineRules, LoneSurrogates};
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::id::IdRule;
use crate::fhir::reference::PatientReferences;
use crate::hash::digest::{DigestAlgorithm, Digester};
use crate::key_set::resource_key::{ResourceKey, resource_key};
use crate::limits::{LINE_HELD_MAX, READ_BYTES};
use crate::simd::Kernel;
use crate::sys::directory::Directory;
use crate::sys::private_files::create_unnamed;
use crate::write::manifest::ManifestItem;
use crate::write::output_name::OutputName;

/// How lines of an export are read: whatever an index may have taken.
const RULES: LineRules = LineRules {
    validate: Validate::Full,
    ids: IdRule::Any,
    lone_surrogates: LoneSurrogates::Pass,
    patient_references: PatientReferences::Strict,
    compartment_paths: CompartmentPaths::R4,
};

/// A line of an export: what is held of it, and the file that holds the rest of a long one.
pub(crate) struct ExportedLine<'a> {
    /// The key of its resource.
    pub key: ResourceKey,
    held: &'a [u8],
    spilled: Option<&'a mut File>,
}

impl ExportedLine<'_> {
    /// Passes the bytes of the line, with its newline, to `take`, piece by piece.
    ///
    /// # Errors
    /// Those of `take`, or of the file that holds a long line.
    pub(crate) fn copy(self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if let Some(file) = self.spilled {
            file.seek(SeekFrom::Start(0))?;
            let mut piece = vec![0; READ_BYTES];
            loop {
                match file.read(&mut piece)? {
                    0 => break,
                    len => take(&piece[..len])?,
                }
            }
        }
        take(self.held)?;
        take(b"\n")
    }

    /// Bytes of the line with its newline.
    ///
    /// # Errors
    /// The file that holds a long line cannot be asked.
    pub(crate) fn len(&self) -> io::Result<u64> {
        let spilled = self.spilled.as_ref().map_or(Ok(0), |file| file.metadata().map(|found| found.len()))?;
        Ok(spilled + self.held.len() as u64 + 1)
    }
}

/// Counts and hashes the bytes of a file on their way to its decoder.
struct HashedFile {
    file: File,
    digester: Digester,
    bytes: u64,
}

impl Read for HashedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(buffer)?;
        self.digester.update(&buffer[..len]);
        self.bytes += len as u64;
        Ok(len)
    }
}

/// Why a file of an export cannot be applied.
#[derive(Debug)]
pub(crate) enum LinesError {
    /// The file cannot be read, or is not what its manifest states.
    File(JournalError),
    /// What the caller did with a line failed.
    Caller(io::Error),
}

/// Reads all lines of a file that a manifest lists and passes each to `on_line`, with `scratch` as the directory for lines too
/// long to be held; checks size, digest and number of lines at the end.
///
/// # Errors
/// [`LinesError`]; lines that were passed before are of no use then.
pub(crate) fn read_lines(
    directory: &Directory,
    item: &ManifestItem,
    scratch: &Path,
    on_line: &mut dyn FnMut(ExportedLine<'_>) -> io::Result<()>,
) -> Result<(), LinesError> {
    let name = item.file_name();
    let path = directory.path().join(name);
    let io = |source| LinesError::File(JournalError::Io { path: path.clone(), source });
    let damaged = |reason: String| LinesError::File(JournalError::Damaged { path: path.clone(), reason });
    let Some(parts) = OutputName::parse(name) else {
        return Err(damaged("its name is that of no output file".to_string()));
    };
    let facts = item.facts();
    let digest = facts.as_ref().and_then(|facts| facts.digest.clone());
    let digester = Digester::new(digest.as_ref().map_or(DigestAlgorithm::None, |digest| digest.algorithm));
    let file = HashedFile { file: directory.open_file(name).map_err(io)?, digester, bytes: 0 };
    let mut input = BufReader::with_capacity(READ_BYTES, file);
    let mut splitter = ExportLineSplitter {
        extractor: Extractor::new(Kernel::detect(), RULES),
        of_type: &item.r#type,
        scratch,
        held: Vec::new(),
        spilled: None,
        lines: 0,
        damaged: &damaged,
        on_line,
    };
    let broken = |error: io::Error| damaged(format!("it cannot be decoded: {error}"));
    match parts.compression {
        Compression::None => splitter.split(&mut input, &io)?,
        Compression::Gzip => {
            let decoder = flate2::bufread::MultiGzDecoder::new(&mut input);
            splitter.split(&mut BufReader::with_capacity(READ_BYTES, decoder), &broken)?;
        }
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(&mut input).map_err(io)?;
            splitter.split(&mut BufReader::with_capacity(READ_BYTES, decoder), &broken)?;
        }
    }
    let lines = splitter.lines;
    io::copy(&mut input, &mut io::sink()).map_err(io)?;
    let HashedFile { digester, bytes, .. } = input.into_inner();
    let is_stated = facts.is_none_or(|facts| facts.file_bytes == bytes) && digester.finish() == digest;
    match is_stated && lines == item.count {
        true => Ok(()),
        false => Err(damaged("its size, digest or number of lines is not what the manifest states".to_string())),
    }
}

/// Splits a file into lines, reads of each its type and id, and passes it on.
struct ExportLineSplitter<'a> {
    extractor: Extractor,
    of_type: &'a str,
    scratch: &'a Path,
    /// Bytes of the current line that are in memory: all, or what follows the spilled ones.
    held: Vec<u8>,
    /// The first bytes of a line that is too long to be held.
    spilled: Option<File>,
    lines: u64,
    damaged: &'a dyn Fn(String) -> LinesError,
    on_line: &'a mut dyn FnMut(ExportedLine<'_>) -> io::Result<()>,
}

impl ExportLineSplitter<'_> {
    /// Splits everything that `input` gives.
    fn split(&mut self, input: &mut dyn BufRead, failed: &dyn Fn(io::Error) -> LinesError) -> Result<(), LinesError> {
        loop {
            let bytes = match input.fill_buf() {
                Ok([]) => break,
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            let mut rest = bytes;
            while let Some(end) = memchr::memchr(b'\n', rest) {
                match self.held.is_empty() && self.spilled.is_none() {
                    true => self.pass(&rest[..end])?,
                    false => {
                        self.hold(&rest[..end])?;
                        let held = std::mem::take(&mut self.held);
                        self.pass(&held)?;
                        self.held = held;
                        self.held.clear();
                    }
                }
                rest = &rest[end + 1..];
            }
            self.hold(rest)?;
            let len = bytes.len();
            input.consume(len);
        }
        match self.held.is_empty() && self.spilled.is_none() {
            true => Ok(()),
            false => Err((self.damaged)("its last line has no newline".to_string())),
        }
    }

    /// Keeps the bytes of a line that goes on.
    fn hold(&mut self, bytes: &[u8]) -> Result<(), LinesError> {
        self.held.extend_from_slice(bytes);
        if self.held.len() > LINE_HELD_MAX {
            let file = match &mut self.spilled {
                Some(file) => file,
                slot => {
                    self.extractor.begin();
                    slot.insert(create_unnamed(self.scratch, ".line.part").map_err(LinesError::Caller)?)
                }
            };
            file.write_all(&self.held).map_err(LinesError::Caller)?;
            self.extractor.feed(&self.held);
            self.held.clear();
        }
        Ok(())
    }

    /// Passes a whole line on, of which `held` is all or the rest.
    fn pass(&mut self, held: &[u8]) -> Result<(), LinesError> {
        let mut spilled = self.spilled.take();
        let facts = match spilled {
            Some(_) => {
                self.extractor.feed(held);
                self.extractor.finish()
            }
            None => self.extractor.extract(held),
        };
        self.lines += 1;
        let wrong = |what: &str| (self.damaged)(format!("its line {} {what}", self.lines));
        let facts = facts.map_err(|_| wrong("is no resource"))?;
        let id = facts.id.as_ref().ok_or_else(|| wrong("is no resource"))?;
        if facts.resource_type.name() != self.of_type {
            return Err(wrong("is of another type than its file"));
        }
        let key = resource_key(facts.resource_type, id.as_bytes());
        (self.on_line)(ExportedLine { key, held, spilled: spilled.as_mut() }).map_err(LinesError::Caller)
    }
}
