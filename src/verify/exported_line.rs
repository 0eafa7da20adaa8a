//! What an export writes of a line, found again from the store's bytes: reduced, its attachment URLs made absolute.
//!
//! Lines that can be held are changed by the slow twins of what exports use; longer ones by what exports use, which no second
//! implementation checks then.

use crate::fhir::reference::Reference;
use crate::hash::{Hasher64, xxh3_64};
use crate::limits::{BINARY_HEAD_BYTES, LINE_HELD_MAX};
use crate::simd::Kernel;
use crate::verify::VerifyError;
use crate::verify::output_file::entity;
use crate::verify::reduced_line::reduced_line;
use crate::verify::request::RecordedRequest;
use crate::verify::rewritten_line::{rewritten_line, stated_version};
use crate::verify::version_history::VersionHistory;
use crate::write::reduce::line_reducer::LineReducer;
use crate::write::rewrite::url_rewriter::UrlRewriter;

/// Hash (xxh3, 64 bits) of a version's line as an export by the recorded request writes it.
///
/// # Errors
/// [`VerifyError`] if the line, or that of a Binary that it refers to, cannot be read again.
pub(crate) fn exported_hash(
    history: &VersionHistory,
    version: usize,
    recorded: &RecordedRequest,
) -> Result<u64, VerifyError> {
    let of_version = &history.versions[version];
    if !of_version.is_pending {
        return Ok(of_version.line);
    }
    let (resource_type, mut failure) = (of_version.resource_type, None);
    let mut new_url = |found: Reference<'_>| {
        new_text(history, recorded, found).unwrap_or_else(|error| {
            failure = Some(error);
            None
        })
    };
    let hash = if history.length(version) <= LINE_HELD_MAX as u64 {
        let line = history.bytes(version)?;
        let line = reduced_line(&line, resource_type, &recorded.elements).unwrap_or(line);
        xxh3_64(&rewritten_line(&line, new_url))
    } else {
        let mut reducer = LineReducer::of(&recorded.elements, resource_type, Kernel::detect());
        let (mut rewriter, mut hash) = (UrlRewriter::default(), Hasher64::new());
        let (mut reduced, mut changed) = (Vec::new(), Vec::new());
        history.stream(version, u64::MAX, &mut |piece| {
            reduced.clear();
            match &mut reducer {
                Some(reducer) => reducer.feed(piece, &mut reduced),
                None => reduced.extend_from_slice(piece),
            }
            rewriter.feed(&reduced, &mut new_url, &mut changed);
            hash.update(&changed);
            changed.clear();
        })?;
        rewriter.end_row(&mut changed);
        hash.update(&changed);
        hash.digest()
    };
    failure.map_or(Ok(hash), Err)
}

/// The text that takes the place of a URL of an attachment; `None` if it stays.
fn new_text(
    history: &VersionHistory,
    recorded: &RecordedRequest,
    found: Reference<'_>,
) -> Result<Option<String>, VerifyError> {
    let Some(urls) = &recorded.attachments else { return Ok(None) };
    let versions = history.kept_versions(entity("Binary", found.id), &recorded.as_of);
    let Some(current) = versions.last() else { return Ok(None) };
    let Some(named) = found.version else {
        return Ok(Some(urls.json_text(found.id, version_text(history, *current)?.as_deref())));
    };
    for version in versions.iter().rev() {
        if version_text(history, *version)?.as_deref() == Some(named) {
            return Ok(Some(urls.json_text(found.id, Some(named))));
        }
    }
    Ok(None)
}

/// The versionId of a version as URLs name it.
fn version_text(history: &VersionHistory, version: usize) -> Result<Option<String>, VerifyError> {
    if let Some(number) = history.numbered(version) {
        return Ok(Some(number.to_string()));
    }
    let mut head = Vec::new();
    history.stream(version, BINARY_HEAD_BYTES, &mut |piece| head.extend_from_slice(piece))?;
    Ok(stated_version(&head))
}
