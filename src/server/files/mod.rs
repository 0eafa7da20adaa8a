//! Stored files as answers: codings, ranges, validators, HEAD.
//!
//! Who may have which file is decided before; here a file that the job record names is sent. Each file has two
//! representations when it is stored compressed: the stored bytes, and their decoded ones ("identity"), which are
//! decoded while they are sent. Ranges address the bytes of the chosen representation, whose tag tells it from the
//! other. A range of a decoded file is decoded from the file's start and skipped: it costs the server what the client
//! would have downloaded again, and a download that was cut can go on in either coding.

pub(crate) mod binary;
pub(crate) mod body;
pub(crate) mod negotiation;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, StatusCode};

use crate::codec::compression::Compression;
use crate::server::error::{ApiError, OutcomeIssueType};
use crate::server::files::body::{BodyReader, FileBody};
use crate::server::files::negotiation::{
    MEDIA_TYPES, RangeSpec, coding_name, negotiate_coding, parse_range, takes_ndjson,
};
use crate::server::http::dates::imf_fixdate_of;
use crate::server::http::preconditions::{PreconditionVerdict, Validators};
use crate::sys::directory::Directory;
use crate::sys::sendfile::OutgoingFile;

/// A finished file of a job, as its record knows it. It never changes (FILE-16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredFile {
    /// The directory that all files lie beneath, as its operator has chosen it.
    pub root: PathBuf,
    /// Its name beneath that. The client never sees either.
    pub place: String,
    /// Name to save it under, such as `Patient.00001.ndjson`.
    pub name: String,
    /// How it is stored.
    pub coding: Compression,
    /// Its bytes when decoded.
    pub bytes: u64,
    /// Its bytes as they are stored.
    pub file_bytes: u64,
    /// What tells its content from every other file's: a digest or random text.
    pub etag_seed: String,
    /// When it was finished.
    pub finished: SystemTime,
}

/// The answer to a request for this file (FILE-03, FILE-04, FILE-05, FILE-14, FILE-15, FILE-19). The file is open before
/// the answer begins and until it ends, so that deletion and expiry do not cut it (DELETE-06).
///
/// Other methods than GET and HEAD are 405, an `Accept` without NDJSON and an `Accept-Encoding` without any coding that
/// there is 406, conditions that fail 412, ranges behind the end 416. Several ranges at once, and ranges of a HEAD, are
/// passed by. A file that is not as the record has it is 500, one that cannot be opened just now 503.
pub(crate) async fn send(method: &Method, headers: &HeaderMap, file: StoredFile) -> Response {
    match answer(method, headers, file).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn answer(method: &Method, headers: &HeaderMap, file: StoredFile) -> Result<Response, ApiError> {
    let refuse = |status, code, reason: String| Err(ApiError::new(status, code, reason));
    if !matches!(*method, Method::GET | Method::HEAD) {
        let reason = "a file is read with GET or HEAD, and deleted with its job".to_string();
        let refusal = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, OutcomeIssueType::NotSupported, reason);
        return Err(refusal.header(ALLOW, HeaderValue::from_static("GET, HEAD")));
    }
    if !takes_ndjson(headers) {
        let reason = format!("the Accept header excludes what files are sent as: add {}", MEDIA_TYPES[0]);
        return refuse(StatusCode::NOT_ACCEPTABLE, OutcomeIssueType::NotSupported, reason);
    }
    let Some(coding) = negotiate_coding(headers, file.coding) else {
        let offered = coding_name(file.coding).map(|name| format!(" or {name}")).unwrap_or_default();
        let reason = format!("the Accept-Encoding header excludes what there is: allow identity{offered}");
        return refuse(StatusCode::NOT_ACCEPTABLE, OutcomeIssueType::NotSupported, reason)
            .map_err(|refusal| vary(refusal, &file));
    };
    let len = if coding == file.coding { file.file_bytes } else { file.bytes };
    let opened = open(&file, coding).await?;

    let validators = Validators::new(tag(&file, coding), file.finished);
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), &file, coding, &validators);
    match validators.judge_preconditions(headers) {
        PreconditionVerdict::Go => {}
        PreconditionVerdict::NotModified => {
            for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_DISPOSITION] {
                response.headers_mut().remove(name);
            }
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        PreconditionVerdict::Failed(header) => {
            let reason = format!("{header} names another version than the file's only one: ask without it");
            return refuse(StatusCode::PRECONDITION_FAILED, OutcomeIssueType::Conflict, reason);
        }
    }

    let requested = if *method == Method::GET && validators.allow_range(headers) {
        parse_range(headers, len)
    } else {
        RangeSpec::Whole
    };
    let range = match requested {
        RangeSpec::Whole => 0..len,
        RangeSpec::Range(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let told_text = format!("bytes {}-{}/{len}", range.start, range.end - 1);
            put(response.headers_mut(), CONTENT_RANGE, &told_text);
            range
        }
        RangeSpec::Beyond => {
            let reason = format!("Range asks for bytes that are not there: the file has {len} in this coding");
            let refusal = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, OutcomeIssueType::Value, reason);
            let report = HeaderValue::from_str(&format!("bytes */{len}")).ok();
            return Err(vary(
                report.into_iter().fold(refusal, |refusal, reported| refusal.header(CONTENT_RANGE, reported)),
                &file,
            ));
        }
    };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if *method == Method::GET {
        *response.body_mut() = Body::new(body(opened, &file, coding, range).map_err(|error| failed(&file, error))?);
    }
    Ok(response)
}

/// A file that is open, mapped where it can be.
enum OpenedFile {
    Mapped(Arc<OutgoingFile>),
    File(File),
}

/// Opens it on a thread that may wait, and makes sure that it is the one of the record. What has to be decoded is not
/// mapped.
async fn open(file: &StoredFile, coding: Compression) -> Result<OpenedFile, ApiError> {
    let (stored, as_stored) = (file.clone(), coding == file.coding);
    let opened = tokio::task::spawn_blocking(move || -> io::Result<OpenedFile> {
        let plain = stored.open()?;
        let path = stored.root.join(&stored.place);
        let mapped = if as_stored { OutgoingFile::of_file(plain.try_clone()?, &path)? } else { None };
        Ok(mapped.map_or(OpenedFile::File(plain), OpenedFile::Mapped))
    });
    opened.await.map_err(io::Error::other).flatten().map_err(|error| failed(file, error))
}

impl StoredFile {
    /// Opens it, if it is a regular file of the recorded length that no link leads to.
    fn open(&self) -> io::Result<File> {
        let file = Directory::open(&self.root)?.open_file(&self.place)?;
        match file.metadata()?.len() {
            len if len == self.file_bytes => Ok(file),
            len => {
                let found = format!("it has {len} bytes instead of {}", self.file_bytes);
                Err(io::Error::new(io::ErrorKind::InvalidData, found))
            }
        }
    }
}

fn body(opened: OpenedFile, file: &StoredFile, coding: Compression, range: Range<u64>) -> io::Result<FileBody> {
    Ok(match opened {
        OpenedFile::Mapped(mapped) => FileBody::mapped(mapped, range),
        OpenedFile::File(plain) if coding == file.coding => {
            FileBody::read(BodyReader::new(plain, Compression::None, range, file.file_bytes)?)
        }
        OpenedFile::File(plain) => FileBody::read(BodyReader::new(plain, file.coding, range, file.bytes)?),
    })
}

/// What the client is told when the file is not to be had; what happened goes to the log.
fn failed(file: &StoredFile, error: io::Error) -> ApiError {
    tracing::error!(file = file.place, %error, "a stored file cannot be sent");
    // Out of file descriptors or memory: soon there may be some again.
    let within = error.get_ref().and_then(|error| error.source()).and_then(|error| error.downcast_ref::<io::Error>());
    if matches!(within.unwrap_or(&error).raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EIO)) {
        let reason = "the file cannot be opened at the moment: try again";
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, OutcomeIssueType::Transient, reason);
    }
    let reason = "the file is not as the server has stored it: export again, and tell the server's operator";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, OutcomeIssueType::Exception, reason)
}

/// The headers that every answer about this representation has.
fn describe(headers: &mut HeaderMap, file: &StoredFile, coding: Compression, validators: &Validators) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPES[0]));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-transform"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    put(headers, CONTENT_DISPOSITION, &format!("attachment; filename=\"{}\"", name_of(&file.name)));
    put(headers, ETAG, &validators.tag);
    if let Some(date) = imf_fixdate_of(validators.modified) {
        headers.insert(LAST_MODIFIED, date);
    }
    if let Some(name) = coding_name(coding) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    if file.coding != Compression::None {
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// A refusal that another `Accept-Encoding` would have changed.
fn vary(refusal: ApiError, file: &StoredFile) -> ApiError {
    match file.coding {
        Compression::None => refusal,
        _ => refusal.header(VARY, HeaderValue::from_static("accept-encoding")),
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // All that is put is made of letters, digits and punctuation, so that nothing is ever left out.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The strong tag of a representation.
fn tag(file: &StoredFile, coding: Compression) -> String {
    let seed: String = file.etag_seed.chars().filter(|c| c.is_ascii_graphic() && *c != '"').collect();
    match coding_name(coding) {
        Some(name) => format!("\"{seed}-{name}\""),
        None => format!("\"{seed}\""),
    }
}

/// The name as it may stand in quotes.
fn name_of(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}
