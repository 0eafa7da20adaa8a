//! What is imported as one: a file, or the output directory of a bulk export. Directories of files are looked through.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::fhir::instant::Instant;
use crate::import::problem::ImportError;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::sys::regular_file::{RegularFileError, read_regular};
use crate::write::manifest::file_name_of;

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImportSource {
    /// The path of the file or directory.
    pub path: PathBuf,
    /// Its files, in the order in which they are taken.
    pub files: Vec<PathBuf>,
    /// The transactionTime of an export: when what it lists as deleted was deleted, unless it says so itself.
    pub deleted_at: Option<Instant>,
    /// Why it cannot be taken.
    pub fault: Option<String>,
}

/// A manifest of an export, as far as it is followed (<https://hl7.org/fhir/uv/bulkdata/export.html#response---complete-status>).
#[derive(Deserialize)]
struct SourceManifest {
    #[serde(rename = "transactionTime")]
    transaction_time: Option<String>,
    output: Option<Vec<SourceManifestItem>>,
    #[serde(default)]
    deleted: Option<Vec<SourceManifestItem>>,
}

/// A file of a manifest.
#[derive(Deserialize)]
struct SourceManifestItem {
    url: String,
}

/// Names of the manifests that exports have.
const MANIFEST: &str = "manifest.json";
/// Directories beside a manifest in which listed files may lie.
const PLACES: [&str; 2] = ["", "deleted"];

/// The sources that a path names: itself, or those in the directory, by name. Of a directory, names that begin with a dot
/// and symbolic links are passed over, and files that are neither JSON nor NDJSON.
///
/// # Errors
/// If a directory cannot be read.
pub(crate) fn list_sources(path: &Path, into: &mut Vec<ImportSource>) -> Result<(), ImportError> {
    let found = std::fs::metadata(path).map_err(ImportError::read(path))?;
    if !found.is_dir() {
        into.push(file_source(path));
        return Ok(());
    }
    if let Some(export) = export_source(path)? {
        into.push(export);
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(ImportError::read(path))? {
        let entry = entry.map_err(ImportError::read(path))?;
        let kind = entry.file_type().map_err(ImportError::read(path))?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden && (kind.is_dir() || kind.is_file() && has_source_name(&entry.path())) {
            entries.push(entry.path());
        }
    }
    entries.sort();
    entries.iter().try_for_each(|entry| list_sources(entry, into))
}

/// A file as a source.
pub(crate) fn file_source(path: &Path) -> ImportSource {
    ImportSource { path: path.to_path_buf(), files: vec![path.to_path_buf()], deleted_at: None, fault: None }
}

/// The name of a file without the ending of a compression, in small letters.
fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let plain = [".gz", ".zst"].iter().find_map(|ending| name.strip_suffix(ending));
    plain.unwrap_or(&name).to_string()
}

/// Whether the name of a file is that of JSON or NDJSON.
pub(crate) fn has_source_name(path: &Path) -> bool {
    let name = plain_name(path);
    is_named_lines(path) || [".json", ".fhir"].iter().any(|ending| name.ends_with(ending))
}

/// Whether the name of a file says that it has a resource a line.
pub(crate) fn is_named_lines(path: &Path) -> bool {
    let name = plain_name(path);
    [".ndjson", ".jsonl"].iter().any(|ending| name.ends_with(ending))
}

/// The export whose output directory this is; `None` if it is none.
fn export_source(directory: &Path) -> Result<Option<ImportSource>, ImportError> {
    let path = directory.join(MANIFEST);
    let text = match read_regular(&path, MANIFEST_BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.is_absence() => return Ok(None),
        Err(RegularFileError::Io(source)) => return Err(ImportError::Read { path, source }),
        Err(_) => return Ok(None),
    };
    let Ok(manifest) = serde_json::from_slice::<SourceManifest>(&text) else { return Ok(None) };
    let Some(output) = manifest.output else { return Ok(None) };
    let mut source = file_source(directory);
    source.files.clear();
    match manifest.transaction_time.as_deref().map(Instant::parse) {
        Some(None) => source.fault = Some("its manifest's transactionTime is no instant".to_string()),
        found => source.deleted_at = found.flatten(),
    }
    let mut missing = Vec::new();
    for item in output.iter().chain(manifest.deleted.iter().flatten()) {
        let name = item.url.split(['?', '#']).next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let is_plain = !name.is_empty() && name != ".." && name != ".";
        // Files of a job in tasks lie deeper, and have names that only their directories tell apart.
        let of_job = Some(file_name_of(&item.url)).filter(|name| name.starts_with("data/") && !name.contains(".."));
        let places = PLACES.iter().map(|place| directory.join(place).join(name));
        let places = of_job.map(|name| directory.join(name)).into_iter().chain(places);
        // Other tools give files another ending than the URL has.
        let found = places.flat_map(|place| {
            let with = |ending: &str| PathBuf::from(format!("{}{ending}", place.display()));
            [place.clone(), with(".ndjson"), with(".gz"), with(".zst")]
        });
        match found.filter(|_| is_plain).find(|path| std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file()))
        {
            Some(found) if !source.files.contains(&found) => source.files.push(found),
            Some(_) => {}
            None => missing.push(name.to_string()),
        }
    }
    if let Some(first) = missing.first() {
        let count = missing.len();
        source.fault = Some(format!(
            "{} of the files that its manifest names {} not there (the first is {first:?}); fetch the export again",
            count,
            crate::count_text::word_form(count as u64, "is", "are"),
        ));
    }
    Ok(Some(source))
}
