//! Bodies of requests, read as a whole: within a length, a time, and a share of the memory and the disk for all of them.

use crate::issue::IssueCode;
use crate::server::admission::AnswerPlace;
use crate::server::error::ApiError;
use crate::sys::file_map::ReadMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use bytes::BytesMut;
use http_body_util::BodyExt;

/// Longest body that is held in memory, in bytes, and the piece in which a longer one is written to a file.
const MEMORY_BYTES: usize = 256 << 10;

/// Limits of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Most bytes.
    pub bytes_max: usize,
    /// Longest time from its first byte to its last.
    pub whole_wait: Duration,
}

/// The whole body of a request.
pub(crate) enum RequestBody {
    /// One that is held in memory.
    Memory(Bytes),
    /// A longer one, in a file without a name.
    File(ReadMap),
}

impl Deref for RequestBody {
    type Target = [u8];

    /// Its bytes.
    fn deref(&self) -> &[u8] {
        match self {
            RequestBody::Memory(bytes) => bytes,
            RequestBody::File(map) => map,
        }
    }
}

/// Reads the whole body of a request: into memory, or into a file that `new_file` makes if it is long. What it takes counts
/// for the client until the answer has ended.
///
/// # Errors
/// 413 for a longer body, 503 for one that does not fit into what bodies may take at a time, 408 for one that takes longer
/// than it may, 400 for one that breaks off, 507 if the disk is full, 500 if the file cannot be written.
pub(crate) async fn read_body(
    body: Body,
    limits: BodyLimits,
    place: Option<&AnswerPlace>,
    new_file: impl FnOnce() -> io::Result<File> + Send + 'static,
) -> Result<RequestBody, ApiError> {
    let reading = collect(body, limits.bytes_max, place, new_file);
    tokio::time::timeout(limits.whole_wait, reading).await.unwrap_or_else(|_| {
        let text = format!(
            "the body took longer than {} seconds, which is what this service gives it: send less, or faster",
            limits.whole_wait.as_secs()
        );
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, IssueCode::Timeout, text))
    })
}

/// As [`read_body`], however long it takes.
async fn collect(
    mut body: Body,
    bytes_max: usize,
    place: Option<&AnswerPlace>,
    new_file: impl FnOnce() -> io::Result<File> + Send + 'static,
) -> Result<RequestBody, ApiError> {
    let too_long = || {
        let text = format!("the body has more than {bytes_max} bytes, which is what this service takes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, IssueCode::TooLong, text)
    };
    // 1. A length that is announced is refused, or counted, before a byte of it is read.
    let announced = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(too_long());
    }
    let mut counted = CountedBody { place, bytes_max, memory: 0, disk: 0 };
    let announced = announced.unwrap_or(0);
    counted.hold_memory(announced.min(MEMORY_BYTES))?;
    if announced > MEMORY_BYTES {
        counted.hold_disk(announced)?;
    }
    // 2. Its bytes: in memory, in pieces in a file once they are too many for it.
    let mut piece = BytesMut::with_capacity(announced.min(MEMORY_BYTES));
    let mut new_file = Some(new_file);
    let mut file = None;
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            let text = "the body did not arrive as a whole; send it again";
            ApiError::new(StatusCode::BAD_REQUEST, IssueCode::Incomplete, text)
        })?;
        let Ok(mut bytes) = frame.into_data() else { continue };
        length += bytes.len();
        if length > bytes_max {
            return Err(too_long());
        }
        while !bytes.is_empty() {
            if piece.len() == MEMORY_BYTES {
                counted.hold_disk(length)?;
                (file, piece) = write_piece(file, new_file.take(), piece).await?;
            }
            let part = bytes.split_to(bytes.len().min(MEMORY_BYTES - piece.len()));
            // The buffer grows by doubling.
            counted.hold_memory((piece.len() + part.len()).next_power_of_two().min(MEMORY_BYTES))?;
            piece.extend_from_slice(&part);
        }
    }
    if file.is_none() {
        return Ok(RequestBody::Memory(piece.freeze()));
    }
    let (file, _) = write_piece(file, new_file.take(), piece).await?;
    let file = file.ok_or_else(|| file_error(&io::ErrorKind::NotFound.into()))?;
    let map = ReadMap::of_file(file, Path::new("the body of a request"));
    map.map(RequestBody::File).map_err(|error| file_error(&io::Error::other(error.to_string())))
}

/// Writes a piece of a body to its file, which is made first if there is none; the file, and the emptied piece.
async fn write_piece(
    file: Option<File>,
    new_file: Option<impl FnOnce() -> io::Result<File> + Send + 'static>,
    mut piece: BytesMut,
) -> Result<(Option<File>, BytesMut), ApiError> {
    let write = move || {
        let mut file = match (file, new_file) {
            (Some(file), _) => file,
            (None, Some(new_file)) => new_file()?,
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        file.write_all(&piece)?;
        piece.clear();
        Ok((Some(file), piece))
    };
    let written = tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    written.map_err(|error| file_error(&error))
}

/// 507 for a body that the disk has no room for, 500 for one that cannot be written for another reason.
fn file_error(error: &io::Error) -> ApiError {
    tracing::error!(%error, "the body of a request cannot be kept on the disk");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let text = "the service has no room to take in the body; try again later";
            ApiError::new(StatusCode::INSUFFICIENT_STORAGE, IssueCode::NoStore, text)
        }
        _ => {
            let text = "the service cannot take in the body; its log says why";
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, IssueCode::Exception, text)
        }
    }
}

/// What a body is counted for so far.
struct CountedBody<'a> {
    place: Option<&'a AnswerPlace>,
    /// Most bytes that it may have.
    bytes_max: usize,
    /// Bytes in memory.
    memory: usize,
    /// Bytes in a file.
    disk: usize,
}

impl CountedBody<'_> {
    /// Counts so many bytes in memory in all.
    fn hold_memory(&mut self, bytes: usize) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(self.memory);
        self.memory += more;
        self.place.map_or(Ok(()), |place| place.hold_request_bytes(more as u64))
    }

    /// Counts at least so many bytes in a file in all, by doubling, but no more than a body may have.
    fn hold_disk(&mut self, bytes: usize) -> Result<(), ApiError> {
        let more = bytes.max(self.disk.saturating_mul(2)).min(self.bytes_max).saturating_sub(self.disk);
        if bytes <= self.disk {
            return Ok(());
        }
        self.disk += more;
        self.place.map_or(Ok(()), |place| place.hold_request_file_bytes(more as u64))
    }
}
