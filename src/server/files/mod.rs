//! Downloads of stored files: content codings, ranges, validators, HEAD.
//!
//! The caller has decided that the client may have the file. A file that is stored compressed has two
//! representations: the stored bytes and their decoded bytes ("identity"), which are decoded while they are sent. A
//! range addresses the bytes of the chosen representation; the entity tags of the two differ. A range of decoded
//! bytes is decoded from the start of the file and skipped up to the range.

pub(crate) mod binary;
pub(crate) mod body;
pub(crate) mod negotiation;
pub(crate) mod representation;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use axum::http::Extensions;
use axum::response::{IntoResponse, Response};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderValue, LAST_MODIFIED, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, StatusCode};

use crate::codec::compression::Compression;
use crate::fhir::instant::Instant;
use crate::issue::IssueCode;
use crate::job::api::FileView;
use crate::job::record::FileRecord;
use crate::server::admission::AnswerPlace;
use crate::server::connection::request_tracker::Peer;
use crate::server::error::ApiError;
use crate::server::files::body::{BodyReader, FileBody};
use crate::server::files::negotiation::{MEDIA_TYPES, coding_name, negotiate_coding, takes_ndjson};
use crate::server::files::representation::{Representation, set_header};
use crate::server::http::dates::{imf_fixdate_of, system_time};
use crate::server::http::preconditions::Validators;
use crate::server::shares::Share;
use crate::sys::directory::Directory;
use crate::sys::sendfile::OutgoingFile;

/// A finished file of a job, from the job record. Its content never changes (FILE-16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredFile {
    /// Directory that holds all files of the tenant, as configured.
    pub root: PathBuf,
    /// Path of the file below `root`. No answer contains either.
    pub place: String,
    /// File name for the client, such as `Patient.00001.ndjson`.
    pub name: String,
    /// Compression of the stored bytes.
    pub coding: Compression,
    /// Length of the decoded bytes.
    pub bytes: u64,
    /// Length of the stored bytes.
    pub file_bytes: u64,
    /// Text that differs between any two files of different content: a digest or the random id.
    pub etag_seed: String,
    /// When the job ended: `Last-Modified`.
    pub finished: SystemTime,
    /// What its lines are: FHIR resources, or JSON of our own.
    pub media_type: &'static str,
}

/// Media type of lines of JSON that are no FHIR resources; there is no registered one, and this is what is in use
/// (<https://github.com/ndjson/ndjson-spec>).
const PLAIN_LINES: &str = "application/x-ndjson";

impl StoredFile {
    /// The file of a job that was found under this id.
    pub(crate) fn of(found: FileView, id: &str) -> StoredFile {
        let FileView { record, at, root, place } = found;
        let ended = record.ended.as_deref().and_then(Instant::parse);
        let finished = ended.as_ref().and_then(system_time).unwrap_or(SystemTime::UNIX_EPOCH);
        let (bytes, file_bytes, digest, coding, media_type) = match (record.files.get(at), &record.departed) {
            (Some(FileRecord { receipt, .. }), _) => {
                (receipt.bytes, receipt.file_bytes, &receipt.digest, record.request.compression, MEDIA_TYPES[0])
            }
            (None, Some(list)) => (list.bytes, list.bytes, &list.digest, Compression::None, PLAIN_LINES),
            (None, None) => (0, 0, &None, Compression::None, PLAIN_LINES),
        };
        StoredFile {
            root,
            name: place.rsplit('/').next().unwrap_or_default().to_string(),
            place,
            coding,
            bytes,
            file_bytes,
            etag_seed: digest.as_ref().map_or(id.to_string(), |digest| digest.value.clone()),
            finished,
            media_type,
        }
    }
}

/// Who reads a file: what the request says of its place and of its connection.
#[derive(Clone, Default)]
pub(crate) struct FileReader {
    /// Place of the answer among those in progress.
    pub place: Option<AnswerPlace>,
    /// The client's side of the connection.
    pub peer: Option<Peer>,
}

impl FileReader {
    /// The reader of a request with these extensions.
    pub(crate) fn of(extensions: &Extensions) -> FileReader {
        FileReader { place: extensions.get().cloned(), peer: extensions.get().cloned() }
    }
}

/// The answer to a request for this file (FILE-03, FILE-04, FILE-05, FILE-14, FILE-15, FILE-19). The file is opened
/// before the answer begins and stays open until it ends, so that deletion and expiry do not cut it (DELETE-06).
///
/// Answers 405 to methods other than GET and HEAD, 406 to an `Accept` without NDJSON and to an `Accept-Encoding`
/// without an available coding, 412 to failed preconditions, 416 to a range behind the end. Several ranges at once,
/// and ranges of a HEAD, are ignored. A file that differs from its record is 500, one that cannot be opened for the
/// moment is 503.
pub(crate) async fn send(method: &Method, headers: &HeaderMap, file: StoredFile, reader: FileReader) -> Response {
    match answer(method, headers, file, reader).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

/// The successful answers of [`send`]: 200, 206 and 304.
///
/// # Errors
/// The error answers that [`send`] lists.
async fn answer(
    method: &Method,
    headers: &HeaderMap,
    file: StoredFile,
    reader: FileReader,
) -> Result<Response, ApiError> {
    // 1. Method, media type and coding.
    let refuse = |status, code, reason: String| Err(ApiError::new(status, code, reason));
    if !matches!(*method, Method::GET | Method::HEAD) {
        let reason = "a file is read with GET or HEAD, and deleted with its job".to_string();
        let refusal = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, IssueCode::NotSupported, reason);
        return Err(refusal.header(ALLOW, HeaderValue::from_static("GET, HEAD")));
    }
    if !takes_ndjson(headers) {
        let reason = format!("the Accept header excludes what files are sent as: add {}", MEDIA_TYPES[0]);
        return refuse(StatusCode::NOT_ACCEPTABLE, IssueCode::NotSupported, reason);
    }
    let Some(coding) = negotiate_coding(headers, file.coding) else {
        let offered = coding_name(file.coding).map(|name| format!(" or {name}")).unwrap_or_default();
        let reason = format!("the Accept-Encoding header excludes what there is: allow identity{offered}");
        return refuse(StatusCode::NOT_ACCEPTABLE, IssueCode::NotSupported, reason)
            .map_err(|refusal| add_vary(refusal, &file));
    };
    let len = if coding == file.coding { file.file_bytes } else { file.bytes };
    // 2. The file is opened before the conditions are judged: a damaged file is an error, never a 304.
    let opened = open(&file, coding).await?;

    // 3. Headers, preconditions and range; then the body.
    let validators = Validators::new(entity_tag(&file, coding), file.finished);
    let mut headers_of_answer = HeaderMap::new();
    set_representation_headers(&mut headers_of_answer, &file, coding, &validators);
    let representation = Representation { headers: headers_of_answer, validators, len };
    representation.answer(method, headers, &|refusal| add_vary(refusal, &file), |range| {
        // Bytes before the range have to be decoded, too.
        let skips = coding != file.coding && range.start > 0;
        let permit = reader.place.as_ref().filter(|_| skips).map(AnswerPlace::begin_skip).transpose()?.flatten();
        body(opened, &file, coding, range, (permit, reader.peer)).map_err(|error| failed(&file, error))
    })
}

/// An open file, mapped into memory if possible.
enum OpenedFile {
    Mapped(Arc<OutgoingFile>),
    File(File),
}

/// Opens the file and checks it against its record, on a blocking thread unless the system has its name at hand: to change
/// threads takes about as long as to send a small file. A file that must be decoded is not mapped.
///
/// # Errors
/// Those of [`failed`].
async fn open(file: &StoredFile, coding: Compression) -> Result<OpenedFile, ApiError> {
    let as_stored = coding == file.coding;
    let at_hand = Directory::open_file_at_hand(&file.root, &file.place);
    // Whatever is wrong is found again, and told, on the other way.
    if let Some(opened) = at_hand.and_then(|plain| file.opened(file.checked(plain).ok()?, as_stored).ok()) {
        return Ok(opened);
    }
    let stored = file.clone();
    let opened = tokio::task::spawn_blocking(move || stored.opened(stored.open()?, as_stored));
    opened.await.map_err(io::Error::other).flatten().map_err(|error| failed(file, error))
}

impl StoredFile {
    /// Opens the file and checks its length.
    ///
    /// # Errors
    /// The system's; `InvalidData` if the length differs from the recorded one.
    fn open(&self) -> io::Result<File> {
        self.checked(Directory::open(&self.root)?.open_file(&self.place)?)
    }

    /// Passes on the open file if it has the recorded length.
    ///
    /// # Errors
    /// As [`StoredFile::open`].
    fn checked(&self, file: File) -> io::Result<File> {
        match file.metadata()?.len() {
            len if len == self.file_bytes => Ok(file),
            len => {
                let found = format!("it has {len} bytes instead of {}", self.file_bytes);
                Err(io::Error::new(io::ErrorKind::InvalidData, found))
            }
        }
    }

    /// Maps the open file if it is sent as it is stored.
    ///
    /// # Errors
    /// The system's.
    fn opened(&self, plain: File, as_stored: bool) -> io::Result<OpenedFile> {
        let path = self.root.join(&self.place);
        let mapped = if as_stored { OutgoingFile::of_file(plain.try_clone()?, &path)? } else { None };
        Ok(mapped.map_or(OpenedFile::File(plain), OpenedFile::Mapped))
    }
}

/// The body with a range of the chosen representation, from the map or by a reader.
fn body(
    opened: OpenedFile,
    file: &StoredFile,
    coding: Compression,
    range: Range<u64>,
    (permit, peer): (Option<Share>, Option<Peer>),
) -> io::Result<FileBody> {
    Ok(match opened {
        OpenedFile::Mapped(mapped) => FileBody::mapped(mapped, range),
        OpenedFile::File(plain) if coding == file.coding => {
            FileBody::read(BodyReader::new(plain, Compression::None, range, file.file_bytes)?, peer)
        }
        OpenedFile::File(plain) => {
            FileBody::read(BodyReader::new(plain, file.coding, range, file.bytes)?.with_permit(permit), peer)
        }
    })
}

/// 500 or 503 for a file that cannot be sent; `error` goes to the log.
fn failed(file: &StoredFile, error: io::Error) -> ApiError {
    tracing::error!(file = file.place, %error, "a stored file cannot be sent");
    // Without file descriptors or memory, or after an I/O error, a later request may succeed.
    let cause = error.get_ref().and_then(|error| error.source()).and_then(|error| error.downcast_ref::<io::Error>());
    if matches!(cause.unwrap_or(&error).raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EIO)) {
        let reason = "the file cannot be opened at the moment: try again";
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::Transient, reason);
    }
    let reason = "the file is not as the server has stored it: export again, and tell the server's operator";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, IssueCode::Exception, reason)
}

/// Sets the headers that every answer about a representation has.
fn set_representation_headers(
    headers: &mut HeaderMap,
    file: &StoredFile,
    coding: Compression,
    validators: &Validators,
) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-transform"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set_header(headers, CONTENT_DISPOSITION, &format!("attachment; filename=\"{}\"", safe_file_name(&file.name)));
    set_header(headers, ETAG, &validators.tag);
    if let Some(date) = validators.modified.and_then(imf_fixdate_of) {
        headers.insert(LAST_MODIFIED, date);
    }
    if let Some(name) = coding_name(coding) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    if file.coding != Compression::None {
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// Adds `Vary` to an error that another `Accept-Encoding` might have avoided.
fn add_vary(refusal: ApiError, file: &StoredFile) -> ApiError {
    match file.coding {
        Compression::None => refusal,
        _ => refusal.header(VARY, HeaderValue::from_static("accept-encoding")),
    }
}

/// The strong entity tag of a representation, with quotes.
fn entity_tag(file: &StoredFile, coding: Compression) -> String {
    let seed: String = file.etag_seed.chars().filter(|c| c.is_ascii_graphic() && *c != '"').collect();
    match coding_name(coding) {
        Some(name) => format!("\"{seed}-{name}\""),
        None => format!("\"{seed}\""),
    }
}

/// A file name that is safe inside quotes: other characters than ASCII letters, digits, `.`, `_`, `-` become `_`.
fn safe_file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}
