//! Downloads of what Binaries of the store hold: the URLs of attachments in exported rows lead here (ATTACH-02, ATTACH-03,
//! NETSMART-E08).
//!
//! The row is read once, which tells where its content lies, how long it is and whether it is base64; then the content is read
//! again and decoded as the client takes it, so that no Binary is held in memory. What is not known, not permitted and no longer
//! there has one answer.

pub(crate) mod access;
pub(crate) mod base64_text;
pub(crate) mod binary_scan;
pub(crate) mod media_type;
#[cfg(test)]
mod referring_rows;

use crate::error::ExportError;
use crate::fhir::id::Id;
use crate::fhir::reference::Reference;
use crate::group::lookup::our_bases;
use crate::ids::RowAddress;
use crate::index::row_reader::{RangeReader, row_range, stream_range};
use crate::index::snapshot::Snapshot;
use crate::issue::IssueCode;
use crate::select::attachments::rows_that_refer_to;
use crate::select::binaries::find_binary;
use crate::server::admission::answers_error;
use crate::server::attachments::access::{RowAccess, unreadable};
use crate::server::attachments::base64_text::Base64Text;
use crate::server::attachments::binary_scan::{BinaryContent, BinaryScan, NoContent};
use crate::server::attachments::media_type::sent_media_type;
use crate::server::auth::Principal;
use crate::server::blocking::run_blocking;
use crate::server::error::ApiError;
use crate::server::files::FileReader;
use crate::server::files::body::{BodyReader, FileBody};
use crate::server::files::representation::{Representation, set_header};
use crate::server::http::preconditions::Validators;
use crate::server::http::query::Query;
use crate::server::kick_off::start::unusable_store;
use crate::server::shares::{Holder, Share};
use crate::server::state::App;
use crate::write::rewrite::url_rewriter::UrlRewriter;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

/// How often, and after what pause, a client's share of the work on attachments is asked for.
const SHARE_ATTEMPTS: usize = 500;
const SHARE_PAUSE: Duration = Duration::from_millis(20);

/// The attachment that is asked for, and who asks.
pub(crate) struct WantedAttachment {
    /// The id of the path.
    pub id: String,
    /// The query, which may name a version as `v`.
    pub query: Option<String>,
    /// Who asks.
    pub principal: Principal,
}

/// An attachment that may be sent.
struct FoundAttachment {
    snapshot: Snapshot,
    row: RowAddress,
    content: BinaryContent,
}

/// The answer to GET or HEAD of an attachment, in its own media type whatever `Accept` says.
///
/// # Errors
/// 404 for what is not there or not the principal's, 412 and 416 as for files, 429 for a client that looks for its share of
/// attachments already, 500 for content that is no base64, 503 if the store cannot be read.
pub(crate) async fn send_attachment(
    app: &Arc<App>,
    mount_index: usize,
    wanted: WantedAttachment,
    (method, headers): (&Method, &HeaderMap),
    reader: FileReader,
) -> Result<Response<Body>, ApiError> {
    let found = {
        let share = share_of(app, &wanted.principal).await?;
        let app = app.clone();
        let find = move || {
            // Held while it is worked on, whether the client still waits or not.
            let _share = share;
            find_attachment(&app, mount_index, &wanted)
        };
        run_blocking(find).await?
    };
    let BinaryContent { bytes: len, hash, content_type, .. } = &found.content;
    let mut own = HeaderMap::new();
    set_header(&mut own, header::CONTENT_TYPE, sent_media_type(content_type.as_deref()));
    own.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    own.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    own.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    own.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-transform"));
    own.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let validators = Validators::of_tag(format!("\"{hash:032x}\""));
    set_header(&mut own, header::ETAG, &validators.tag);
    let len = *len;
    Representation { headers: own, validators, len }.answer(method, headers, &|refusal| refusal, |range| {
        let place = reader.place.as_ref().filter(|_| range.start > 0);
        let permit = place.map(|place| place.begin_skip()).transpose()?.flatten();
        let bytes = AttachmentBytes::new(&found).map_err(|error| unreadable(&error))?;
        let bytes = BodyReader::of(Box::new(bytes), range, len).with_permit(permit);
        Ok(FileBody::read(bytes, reader.peer))
    })
}

/// Waits until a client may have another attachment looked for.
///
/// # Errors
/// 429 if none became free in [`SHARE_ATTEMPTS`] times [`SHARE_PAUSE`].
async fn share_of(app: &App, principal: &Principal) -> Result<Share, ApiError> {
    let holder = Holder::Client(principal.client.clone());
    for _ in 0..SHARE_ATTEMPTS {
        if let Some(share) = app.attachments.take(&holder, 1) {
            return Ok(share);
        }
        tokio::time::sleep(SHARE_PAUSE).await;
    }
    Err(answers_error())
}

/// Whether a row has the URL of an attachment that is this Binary: the index also has URLs that are none.
fn has_attachment(snapshot: &Snapshot, row: RowAddress, id: &Id) -> Result<bool, ExportError> {
    let index = snapshot.index();
    index.segment(row.segment).row(row.row.index())?;
    let (mut rewriter, mut rewritten, mut is_named) = (UrlRewriter::default(), Vec::new(), false);
    stream_range(index, index.file_of(row.segment), row_range(index, row), &mut |piece| {
        rewritten.clear();
        let mut note = |found: Reference<'_>| {
            is_named |= found.id() == *id;
            None
        };
        rewriter.feed(piece, &mut note, &mut rewritten);
    })?;
    Ok(is_named)
}

/// 404 with one text for an attachment that is not there, not any more, or not the client's.
fn unknown_attachment() -> ApiError {
    ApiError::not_found("this file")
}

/// Finds an attachment, judges whether the principal may have it, and reads its row. Blocks.
///
/// # Errors
/// Those of [`send_attachment`].
fn find_attachment(app: &App, mount_index: usize, wanted: &WantedAttachment) -> Result<FoundAttachment, ApiError> {
    let mount = &app.mounts[mount_index];
    let id = Id::parse(wanted.id.as_bytes()).ok_or_else(unknown_attachment)?;
    let version = version_of(wanted.query.as_deref()).ok_or_else(unknown_attachment)?;
    let Some(snapshot) = app.tenant(mount).engine.snapshot_now() else { return Err(unusable_store()) };
    let ours = our_bases(&snapshot, mount.fhir_bases());
    let row = find_binary(&snapshot, &id, version.as_deref(), &ours).map_err(|error| unreadable(&error))?;
    let row = row.ok_or_else(unknown_attachment)?;
    let referring = rows_that_refer_to(&snapshot, &id, &ours).map_err(|error| unreadable(&error))?;
    let access = RowAccess { app, mount, principal: &wanted.principal, snapshot: &snapshot };
    let mut refers = |row: RowAddress| has_attachment(&snapshot, row, &id);
    if !access.may_export_any((&referring, row), &mut refers)? {
        return Err(unknown_attachment());
    }
    match read_content(&snapshot, row, &id).map_err(|error| unreadable(&error))? {
        Ok(content) => Ok(FoundAttachment { snapshot, row, content }),
        Err(NoContent::NoData) => Err(unknown_attachment()),
        Err(NoContent::NotBase64) => {
            tracing::error!("a Binary cannot be sent: its data is no base64");
            let text = "this file is not stored as it should be, and cannot be sent: tell the operator of the service";
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, IssueCode::Processing, text))
        }
        Err(NoContent::OtherRow) => {
            tracing::error!("a Binary cannot be sent: the store has another row in its place");
            Err(unusable_store())
        }
    }
}

/// The version that a query names, if it names one; `None` for a query that cannot be read, or names several.
fn version_of(query: Option<&str>) -> Option<Option<String>> {
    let (pairs, problems) = Query::parse(query);
    let mut versions = pairs.into_iter().filter(|(name, _)| name == "v").map(|(_, version)| version);
    let version = versions.next();
    (problems.is_empty() && versions.next().is_none()).then_some(version)
}

/// Reads the row of a Binary.
///
/// # Errors
/// If the store cannot be read.
fn read_content(
    snapshot: &Snapshot,
    row: RowAddress,
    id: &Id,
) -> Result<Result<BinaryContent, NoContent>, ExportError> {
    let index = snapshot.index();
    index.segment(row.segment).row(row.row.index())?;
    let mut scan = BinaryScan::default();
    stream_range(index, index.file_of(row.segment), row_range(index, row), &mut |piece| scan.feed(piece))?;
    Ok(scan.finish(id))
}

/// The bytes of an attachment, decoded as they are read.
struct AttachmentBytes {
    text: RangeReader,
    decoder: Base64Text,
    decoded: Vec<u8>,
    /// How many of the decoded bytes were read.
    taken: usize,
}

impl AttachmentBytes {
    /// A reader before the first byte.
    ///
    /// # Errors
    /// If the store file cannot be opened.
    fn new(found: &FoundAttachment) -> Result<AttachmentBytes, ExportError> {
        let (index, text) = (found.snapshot.index(), &found.content.text);
        let start = row_range(index, found.row).start;
        let text = RangeReader::new(index, index.file_of(found.row.segment), start + text.start..start + text.end)?;
        Ok(AttachmentBytes { text, decoder: Base64Text::default(), decoded: Vec::new(), taken: 0 })
    }
}

impl Read for AttachmentBytes {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.decoded.len() {
            (self.taken, self.decoded) = (0, std::mem::take(&mut self.decoded));
            self.decoded.clear();
            let mut is_base64 = true;
            let AttachmentBytes { text, decoder, decoded, .. } = self;
            let more = text.next(&mut |piece| is_base64 &= decoder.feed(piece, decoded).is_ok());
            if !is_base64 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it was changed while it was sent"));
            }
            if !more.map_err(io::Error::other)? {
                return Ok(0);
            }
        }
        let len = out.len().min(self.decoded.len() - self.taken);
        out[..len].copy_from_slice(&self.decoded[self.taken..self.taken + len]);
        self.taken += len;
        Ok(len)
    }
}
