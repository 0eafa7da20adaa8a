//! A stored file as a Binary resource, for clients that ask for FHIR (NETSMART-G10;
//! <https://hl7.org/fhir/R4/binary.html#rest>).
//!
//! The bytes are base64 in JSON and held in memory as a whole, so that only small files are sent this way.

use std::io;

use axum::response::Response;
use base64ct::{Base64, Encoding};
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::issue::IssueCode;
use crate::limits::WRAPPED_FILE_BYTES_MAX;
use crate::server::error::{ApiError, FHIR_JSON, outcome_resource};
use crate::server::files::body::BodyReader;
use crate::server::files::negotiation::MEDIA_TYPES;
use crate::server::files::{FileReader, StoredFile, failed, send};
use crate::server::http::accept::Accept;

/// The answer to a read of `Binary/{id}`: the file itself, or a Binary resource if the client prefers FHIR's JSON;
/// 413 instead of the resource for a file of more than [`WRAPPED_FILE_BYTES_MAX`] bytes.
pub(crate) async fn send_as_binary(
    method: &Method,
    headers: &HeaderMap,
    file: StoredFile,
    id: &str,
    reader: FileReader,
) -> Response {
    let offered = [MEDIA_TYPES[0], MEDIA_TYPES[1], MEDIA_TYPES[2], FHIR_JSON, "application/json"];
    let best = Accept::of(headers).best(&offered);
    if best.is_none_or(|best| MEDIA_TYPES.contains(&best)) {
        return send(method, headers, file, reader).await;
    }
    match wrap_file(file, id).await {
        Ok(response) => response,
        Err(refusal) => axum::response::IntoResponse::into_response(refusal),
    }
}

/// 200 with a file as a Binary resource.
///
/// # Errors
/// 413 for a file of more than [`WRAPPED_FILE_BYTES_MAX`] bytes; 500 or 503 if it cannot be read.
async fn wrap_file(file: StoredFile, id: &str) -> Result<Response, ApiError> {
    if file.bytes > WRAPPED_FILE_BYTES_MAX {
        let text = format!(
            "the file has {} bytes, and up to {WRAPPED_FILE_BYTES_MAX} are sent as a Binary resource: ask with Accept: {}, or at \
             Binary/{id}/$binary-access-read",
            file.bytes, MEDIA_TYPES[0]
        );
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, IssueCode::TooLong, text));
    }
    let stored = file.clone();
    let read = tokio::task::spawn_blocking(move || -> io::Result<Vec<u8>> {
        let mut reader = BodyReader::new(stored.open()?, stored.coding, 0..stored.bytes, stored.bytes)?;
        let mut bytes = Vec::with_capacity(stored.bytes as usize);
        while (bytes.len() as u64) < stored.bytes {
            bytes.extend_from_slice(&reader.next()?);
        }
        Ok(bytes)
    });
    let bytes = read.await.map_err(io::Error::other).flatten().map_err(|error| failed(&file, error))?;
    let body = json!({
        "resourceType": "Binary",
        "id": id,
        "contentType": MEDIA_TYPES[0],
        "data": Base64::encode_string(&bytes),
    });
    Ok(outcome_resource(StatusCode::OK, &body))
}
