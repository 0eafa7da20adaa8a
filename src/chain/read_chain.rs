//! The exports of a chain, read: which follow each other, and what each lists as deleted and departed.

use std::io;

use serde::Deserialize;

use crate::chain::root::{ChainExport, ChainRoot};
use crate::codec::compression::Compression;
use crate::error::{ExportError, JournalError};
use crate::export::baseline_record::FinishedExport;
use crate::fhir::resource_type::ResourceType;
use crate::hash::digest::{DigestAlgorithm, digest_file};
use crate::key_set::resource_key::{ResourceKey, resource_key};
use crate::sys::directory::Directory;
use crate::write::journal::DEPARTED;
use crate::write::manifest::{EXPORT_KEY, ManifestItem};

/// An export of the chain that is read.
pub(crate) struct ReadExport {
    /// Its directory.
    pub directory: Directory,
    /// Its record and manifest.
    pub finished: FinishedExport,
    /// Its place in the chain.
    pub export: ChainExport,
}

impl ReadExport {
    /// Opens a finished export of a chain.
    ///
    /// # Errors
    /// [`ExportError`] if its record or manifest is missing or damaged.
    pub(crate) fn open(root: &ChainRoot, export: &ChainExport) -> Result<ReadExport, ExportError> {
        let path = root.export_path(&export.name);
        let finished = FinishedExport::open(&path)?;
        let directory = Directory::open(&path).map_err(|source| JournalError::Io { path, source })?;
        Ok(ReadExport { directory, finished, export: export.clone() })
    }
}

/// The newest full export of a chain and the increments on it, the oldest first, each checked to build on the one before it.
///
/// # Errors
/// [`ExportError`] if there is none, or one is missing or damaged.
pub(crate) fn read_chain(root: &ChainRoot) -> Result<Vec<ReadExport>, ExportError> {
    let finished = root.finished()?;
    let damaged = |reason: String| JournalError::Damaged { path: root.path().to_path_buf(), reason };
    let Some(newest) = finished.last() else {
        return Err(damaged("no export of the chain is finished yet".to_string()).into());
    };
    let full = newest.link.full;
    let mut chain: Vec<ReadExport> = Vec::new();
    for export in finished.iter().filter(|export| export.link.number >= full) {
        let number = full + chain.len() as u64;
        let before = chain.last().map(|before| &before.export.plan_id);
        if export.link.number != number || export.link.full != full || export.baseline.as_ref() != before {
            let reason = format!("export {number} of the chain is missing, or {} does not build on it", export.name);
            return Err(damaged(reason).into());
        }
        chain.push(ReadExport::open(root, export)?);
    }
    Ok(chain)
}

/// The keys of the resources that an export lists as deleted.
///
/// # Errors
/// [`JournalError`] if a file cannot be read, or is not what the manifest states.
pub(crate) fn read_deletions(export: &ReadExport) -> Result<Vec<ResourceKey>, JournalError> {
    #[derive(Deserialize)]
    struct Bundle {
        entry: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        request: Request,
    }
    #[derive(Deserialize)]
    struct Request {
        method: String,
        url: String,
    }
    let mut keys = Vec::new();
    for item in &export.finished.manifest.deleted {
        let path = export.directory.path().join(item.file_name());
        let damaged =
            || JournalError::Damaged { path: path.clone(), reason: "a line is no Bundle of deletions".into() };
        let mut wrong = false;
        let read = read_text(export, item, &mut |line| {
            let Ok(bundle) = serde_json::from_slice::<Bundle>(line) else {
                wrong = true;
                return;
            };
            for Entry { request: Request { method, url } } in bundle.entry {
                match (method.as_str(), key_of(&url)) {
                    ("DELETE", Some(key)) => keys.push(key),
                    _ => wrong = true,
                }
            }
        });
        read?;
        if wrong {
            return Err(damaged());
        }
    }
    Ok(keys)
}

/// The lines of a file of deletions, decompressed. They are bounded in length.
fn read_text(export: &ReadExport, item: &ManifestItem, on_line: &mut dyn FnMut(&[u8])) -> Result<(), JournalError> {
    let name = item.file_name();
    let path = export.directory.path().join(name);
    let io = |source| JournalError::Io { path: path.clone(), source };
    let file = export.directory.open_file(name).map_err(io)?;
    if let Some(facts) = item.facts() {
        let algorithm = facts.digest.as_ref().map_or(DigestAlgorithm::None, |digest| digest.algorithm);
        let again = export.directory.open_file(name).map_err(io)?;
        let found = digest_file(again, algorithm).map_err(io)?;
        if found.1 != facts.digest || file.metadata().map_err(io)?.len() != facts.file_bytes {
            let reason = "its size or digest is not what the manifest states".to_string();
            return Err(JournalError::Damaged { path: path.clone(), reason });
        }
    }
    let mut input: Box<dyn io::Read> = match Compression::of_file_name(name) {
        Some(Compression::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some(Compression::Zstd) => Box::new(zstd::stream::read::Decoder::new(file).map_err(io)?),
        _ => Box::new(file),
    };
    let mut reader = io::BufReader::new(&mut input);
    let mut line = Vec::new();
    while io::BufRead::read_until(&mut reader, b'\n', &mut line).map_err(io)? > 0 {
        on_line(&line);
        line.clear();
    }
    Ok(())
}

/// The keys of the resources that an export lists as departed.
///
/// # Errors
/// As [`read_deletions`].
pub(crate) fn read_departures(export: &ReadExport) -> Result<Vec<ResourceKey>, JournalError> {
    #[derive(Deserialize)]
    struct Departed {
        resource: Option<String>,
        member: Option<String>,
    }
    let Some(facts) = export.finished.manifest.extension.get(EXPORT_KEY).and_then(|own| own.get("departed")) else {
        return Ok(Vec::new());
    };
    let path = export.directory.path().join(DEPARTED);
    let damaged = |reason: &str| JournalError::Damaged { path: path.clone(), reason: reason.to_string() };
    let file = export.directory.open_file(DEPARTED).map_err(|error| damaged(&error.to_string()))?;
    let digest = facts.get("digest").and_then(|digest| digest.get("value")).and_then(|value| value.as_str());
    let again = export.directory.open_file(DEPARTED).map_err(|error| damaged(&error.to_string()))?;
    let found = digest_file(again, DigestAlgorithm::Xxh3).map_err(|error| damaged(&error.to_string()))?;
    if found.1.as_ref().map(|found| found.value.as_str()) != digest {
        return Err(damaged("its digest is not what the manifest states"));
    }
    let mut keys = Vec::new();
    for line in io::BufRead::split(io::BufReader::new(file), b'\n') {
        let line = line.map_err(|error| damaged(&error.to_string()))?;
        match serde_json::from_slice::<Departed>(&line) {
            Ok(Departed { resource: Some(resource), member: None }) => {
                keys.push(key_of(&resource).ok_or_else(|| damaged("a line names no resource"))?);
            }
            Ok(Departed { resource: None, member: Some(_) }) => {}
            _ => return Err(damaged("a line names neither a member nor a resource")),
        }
    }
    Ok(keys)
}

/// The key of `Type/id`.
fn key_of(text: &str) -> Option<ResourceKey> {
    let (resource_type, id) = text.split_once('/')?;
    Some(resource_key(ResourceType::parse(resource_type)?, id.as_bytes()))
}
